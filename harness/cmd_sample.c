/* cmd_sample.c - `harness sample`: a trained language model says what comes next, word after word, or one of images completes them. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"
#include "nn/sample.h"
#include "plan.h"
#include "protocol.h"
#include "sheet.h"
#include "speak.h"
#include "text.h"

enum { MOST_ROWS = 4096, MOST_WORDS = 1 << 24, WORDS = 100, GREY = 225 };      /* --length; what is not there */
typedef struct request {
    hs_kept_args kept;
    nn_sampling sampling;
    const char *prompt, *split, *out;   /* NULL: none is given */
    long number, length, from;          /* length 0: none is given */
    enum hs_speak_how how;
    int json, complete;
} request;

typedef struct sample {
    request r;
    hs_kept kept;
    hs_text text;
    hs_speaker speaker;
    int32_t *said;                      /* [number,length] all words, first those of the prompt */
    int64_t nprompt, begin, length;     /* begin: 1 if the first word is none of the prompt */
    const data_split *images;           /* what is completed, or NULL */
    int32_t *room, *word;               /* for nn_sample; [number] the last words */
    char why[2400];
} sample;

/* ---- the command line ----------------------------------------------------------------------------------------------- */

/* A whole number of that range; 0 when it is none. */
static int take_whole(const char *text, long least, long most, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    return end != text && !*end && *out >= least && *out <= most;
}

static int take_real(const char *text, double least, double most, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end && *out >= least && *out <= most;
}

/* Takes one option; 0 when its value is wrong or it is unknown. */
static int take_option(request *r, int o, const char *arg)
{
    long n = 0;
    int ok = 1;
    switch (o) {
    case 't': return take_real(arg, 0, 1e6, &r->sampling.temperature);
    case 'p': return take_real(arg, 1e-9, 1, &r->sampling.top_p);
    case 'k': ok = take_whole(arg, 0, INT32_MAX, &n), r->sampling.top_k = (int32_t)n; return ok;
    case 's': ok = take_whole(arg, 0, INT64_MAX, &n), r->sampling.seed = (uint64_t)n; return ok;
    case 'P': r->prompt = arg; return 1;
    case 'l': return take_whole(arg, 1, MOST_WORDS, &r->length);
    case 'n': return take_whole(arg, 1, MOST_ROWS, &r->number);
    case 'j': return r->json = 1;
    case 'c': return r->complete = 1;
    case 'S': r->split = arg; return 1;
    case 'o': r->out = arg; return 1;
    case 'f': return take_whole(arg, 0, INT64_MAX, &r->from);
    case 'w':
        r->how = !strcmp(arg, "states") ? HS_SPEAK_STATES : !strcmp(arg, "windows") ? HS_SPEAK_WINDOWS : HS_SPEAK_ANY;
        return r->how != HS_SPEAK_ANY;
    default: return hs_kept_option(&r->kept, o, arg) > 0;
    }
}

/* An exit code when the command ends here, else -1. */
static int parse(request *r, int argc, char **argv)
{
    static const struct option longs[] = {
        HS_KEPT_OPTIONS, { "temperature", 1, NULL, 't' }, { "top-k", 1, NULL, 'k' }, { "top-p", 1, NULL, 'p' }, { "seed", 1, NULL, 's' },
        { "prompt", 1, NULL, 'P' }, { "length", 1, NULL, 'l' }, { "number", 1, NULL, 'n' }, { "by", 1, NULL, 'w' },
        { "json", 0, NULL, 'j' }, { "complete", 0, NULL, 'c' }, { "split", 1, NULL, 'S' }, { "from", 1, NULL, 'f' }, { "out", 1, NULL, 'o' },
        { "help", 0, NULL, 'h' }, { 0 } };
    const hs_command *me = hs_command_find("sample");
    char complaint[200];
    *r = (request){ .sampling = { .temperature = 1, .top_p = 1, .seed = 1 }, .number = 1 };
    optind = 0, opterr = 0;
    for (int o, at = 0; (o = getopt_long(argc, argv, "h", longs, &at)) != -1;) {
        if (o == 'h') return hs_usage(me, NULL);
        if (o != '?' && take_option(r, o, optarg)) continue;
        if (o == '?') snprintf(complaint, sizeof complaint, "%s is unknown or lacks its value", argv[optind - 1]);
        else snprintf(complaint, sizeof complaint, "--%s does not take '%.100s'", longs[at].name, optarg);
        return hs_usage(me, complaint);
    }
    if (argc - optind != 1) return hs_usage(me, argc == optind ? "which model? an experiment, a key or a file" : "one model at a time");
    r->kept.model = argv[optind];
    if (r->complete && (r->prompt || r->length)) return hs_usage(me, "--complete takes halves of images: neither --prompt nor --length");
    if (!r->complete && (r->split || r->from || r->out)) return hs_usage(me, "--split, --from and --out belong to --complete");
    return -1;
}

/* ---- speaking ---------------------------------------------------------------------------------------------------------- */

/* Room for all that is said, behind so many words that are given, the first of which may begin what is none: 0, or an exit code. */
static int lay_out(sample *s, int64_t begin, int64_t given, int64_t length)
{
    s->begin = begin;
    s->nprompt = begin + given;
    s->length = s->nprompt + length;
    s->said = malloc((size_t)(s->r.number * s->length) * sizeof *s->said);
    return s->said ? 0 : (snprintf(s->why, sizeof s->why, "out of memory"), HS_EXIT_FAILED);
}

/* The prompt's tokens.  A line begins behind the <eos> of the one before; bytes without a prompt behind a line's end; what stands for
 * itself behind token 0. */
static int read_prompt(sample *s)
{
    char why[300];
    const task_model *m = &s->kept.model;
    int64_t first = m->whole ? 0 : s->text.eos >= 0 ? s->text.eos : data_id(m->data, "\n", 1), n;
    int32_t *given = hs_text_tokens(&s->text, s->r.prompt ? s->r.prompt : "", &n, why, sizeof why);
    if (!given) return snprintf(s->why, sizeof s->why, "--prompt: %s", why), HS_EXIT_USAGE;
    int64_t length = s->r.length ? s->r.length : m->whole && m->context - n < WORDS ? m->context - n : WORDS;
    int rc = 0;
    if (m->whole && (length < 1 || n + length > m->context)) {
        snprintf(s->why, sizeof s->why, "%s makes sequences of %d tokens at most, those of the prompt among them", s->kept.found.label, m->context);
        rc = HS_EXIT_USAGE;
    } else if (!(rc = lay_out(s, m->whole || s->text.eos >= 0 || n == 0, n, length)))
        for (int64_t i = 0; i < s->r.number; i++) {
            s->said[i * s->length] = (int32_t)(first < 0 ? 0 : first);
            memcpy(s->said + i * s->length + s->begin, given, (size_t)n * sizeof *given);
        }
    free(given);
    return rc;
}

/* The upper halves of images. */
static int read_images(sample *s)
{
    const task_model *m = &s->kept.model;
    const char *name = s->r.split ? s->r.split : m->test_split;
    s->images = m->side ? data_find_split(m->data, name) : NULL;
    if (!m->side) snprintf(s->why, sizeof s->why, "--complete: %s makes no images", s->kept.found.label);
    else if (!s->images) snprintf(s->why, sizeof s->why, "--split: the data set %s has no split '%s'", m->data->name, name);
    else if (s->r.number > s->images->ndocs - s->r.from)
        snprintf(s->why, sizeof s->why, "--from: split '%s' of %s has %lld images", name, m->data->name, (long long)s->images->ndocs);
    else {
        const int64_t half = 3 * (int64_t)m->side * (m->side / 2);
        int rc = lay_out(s, 1, half, m->context - half);
        for (int64_t i = 0; i < s->r.number && !rc; i++) {
            s->said[i * s->length] = 0;
            data_copy(s->images, data_doc_begin(s->images, s->r.from + i), half, s->said + i * s->length + 1);
        }
        return rc;
    }
    return HS_EXIT_USAGE;
}

static int open_model(sample *s)
{
    int rc = hs_kept_open(&s->kept, &s->r.kept, s->why, sizeof s->why);
    if (rc) return rc;
    if (s->kept.model.mode != ATTN_CAUSAL) {
        snprintf(s->why, sizeof s->why, "%s was trained to say what is hidden, not what comes next: it cannot go on with a text", s->kept.found.label);
        return HS_EXIT_USAGE;
    }
    if (*s->kept.note) fprintf(stderr, "harness sample: note: %s\n", s->kept.note);
    hs_text_init(&s->text, s->kept.model.data);
    return s->r.complete ? read_images(s) : read_prompt(s);
}

/* All words of all rows.  The last is not shown to the model: nothing follows. */
static int speak(sample *s)
{
    const int64_t V = s->kept.model.vocabulary, n = s->r.number;
    s->room = malloc((size_t)V * sizeof *s->room);
    s->word = malloc((size_t)n * sizeof *s->word);
    if (!s->room || !s->word) return snprintf(s->why, sizeof s->why, "out of memory"), HS_EXIT_FAILED;
    if (hs_speaker_init(&s->speaker, &s->kept, n, s->length - 1, s->r.how, s->why, sizeof s->why)) return HS_EXIT_FAILED;
    for (int64_t t = 0; t < s->length; t++) {
        for (int64_t i = 0; i < n; i++) {
            int32_t *word = s->said + i * s->length + t;
            if (t >= s->nprompt) *word = nn_sample(&s->r.sampling, s->speaker.score + i * V, (int32_t)V, (uint64_t)i, (uint32_t)t, s->room);
            s->word[i] = *word;
        }
        if (t + 1 < s->length && hs_speaker_take(&s->speaker, s->word))
            return snprintf(s->why, sizeof s->why, "the model failed at word %lld", (long long)t), HS_EXIT_FAILED;
    }
    return HS_EXIT_OK;
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

static void tell(const sample *s)
{
    for (int64_t i = 0; i < s->r.number; i++) {
        if (s->r.number > 1) printf("%s== %lld\n", i ? "\n" : "", (long long)i + 1);
        hs_text_write(&s->text, s->said + i * s->length + s->begin, s->length - s->begin, stdout);
        putchar('\n');
    }
}

static void tell_json(const sample *s)
{
    json_t *texts = json_array();
    for (int64_t i = 0; i < s->r.number; i++) {
        const int32_t *said = s->said + i * s->length + s->begin;
        json_t *tokens = json_array();
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        if (f) hs_text_write(&s->text, said, s->length - s->begin, f), fclose(f);
        for (int64_t t = 0; t < s->length - s->begin; t++) json_array_append_new(tokens, json_integer(said[t]));
        json_array_append_new(texts, json_pack("{s:o, s:o}", "text", hs_json_text(text), "tokens", tokens));
        free(text);
    }
    json_t *all = json_pack("{s:s, s:s, s:s, s:I, s:o}", "key", s->kept.found.key, "model", s->kept.found.label, "by",
                            s->speaker.how == HS_SPEAK_STATES ? "states" : "windows", "prompt_tokens", (json_int_t)(s->nprompt - s->begin), "samples", texts);
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
}

/* What was given, what has become of it, and what it is a half of: images[3][number]. */
static int draw(sample *s)
{
    static const char *const row[] = { "given", "completed", "original" };
    const int64_t bytes = s->kept.model.context, n = s->r.number;
    unsigned char *image = malloc((size_t)(3 * n * bytes));
    int32_t *all = malloc((size_t)bytes * sizeof *all);
    int drawn = 0, rc = image && all ? 0 : (snprintf(s->why, sizeof s->why, "out of memory"), -1);
    for (int64_t i = 0; i < n && !rc; i++) {
        data_copy(s->images, data_doc_begin(s->images, s->r.from + i), bytes, all);
        for (int64_t t = 0; t < bytes; t++) {
            const int32_t said = s->said[i * s->length + s->begin + t];
            image[i * bytes + t] = (unsigned char)(s->begin + t < s->nprompt ? said : GREY);
            image[(n + i) * bytes + t] = (unsigned char)said;
            image[(2 * n + i) * bytes + t] = (unsigned char)all[t];
        }
    }
    const hs_sheet sheet = { s->kept.found.label, row, 3, n, s->kept.model.side, image };
    const char *out = s->r.out ? s->r.out : "completion";
    if (!rc) rc = hs_sheet_draw(&sheet, out, "completion", &drawn, s->why, sizeof s->why);
    if (!rc) fprintf(s->r.json ? stderr : stdout, "%s/completion.%s\n", out, drawn ? "pdf, .png, .svg" : "gp and .tsv (there is no gnuplot to draw them)");
    free(image);
    free(all);
    return rc ? HS_EXIT_FAILED : HS_EXIT_OK;
}

int cmd_sample(int argc, char **argv)
{
    sample s = { 0 };
    int rc = parse(&s.r, argc, argv);
    if (rc >= 0) return rc;
    rc = open_model(&s);
    if (!rc) rc = speak(&s);
    if (!rc && s.r.complete) rc = draw(&s);
    if (rc) fprintf(stderr, "harness sample: %s\n", s.why);
    else if (s.r.json) tell_json(&s);
    else if (!s.r.complete) tell(&s);
    hs_speaker_release(&s.speaker);
    hs_kept_close(&s.kept);
    free(s.said);
    free(s.room);
    free(s.word);
    return rc;
}
