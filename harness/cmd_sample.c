/* cmd_sample.c - `harness sample`: a trained language model says what comes next, word after word. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"
#include "nn/sample.h"
#include "plan.h"
#include "protocol.h"
#include "speak.h"
#include "text.h"

enum { MOST_ROWS = 4096, MOST_WORDS = 1 << 24 };
typedef struct request {
    hs_kept_args kept;
    nn_sampling sampling;
    const char *prompt;
    long number, length;
    enum hs_speak_how how;
    int json;
} request;

typedef struct sample {
    request r;
    hs_kept kept;
    hs_text text;
    hs_speaker speaker;
    int32_t *prompt;                    /* tokens of it, behind one that begins */
    int64_t nprompt, begin;             /* begin: 1 if the first of them is no word of the prompt */
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
        { "json", 0, NULL, 'j' }, { "help", 0, NULL, 'h' }, { 0 } };
    const hs_command *me = hs_command_find("sample");
    char complaint[200];
    *r = (request){ .sampling = { .temperature = 1, .top_p = 1, .seed = 1 }, .prompt = "", .number = 1, .length = 100 };
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
    return -1;
}

/* ---- speaking ---------------------------------------------------------------------------------------------------------- */

/* The prompt's tokens.  A line begins behind the <eos> of the one before; bytes without a prompt behind a line's end. */
static int read_prompt(sample *s)
{
    char why[300];
    int64_t first = s->text.eos >= 0 ? s->text.eos : data_id(s->kept.model.data, "\n", 1);
    int32_t *given = hs_text_tokens(&s->text, s->r.prompt, &s->nprompt, why, sizeof why);
    s->begin = s->text.eos >= 0 || s->nprompt == 0;
    s->prompt = given ? malloc((size_t)(s->nprompt + 1) * sizeof *given) : NULL;
    if (s->prompt) {
        s->prompt[0] = (int32_t)(first < 0 ? 0 : first);
        memcpy(s->prompt + s->begin, given, (size_t)s->nprompt * sizeof *given);
        s->nprompt += s->begin;
    } else snprintf(s->why, sizeof s->why, "--prompt: %s", given ? "out of memory" : why);
    free(given);
    return s->prompt ? 0 : HS_EXIT_USAGE;
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
    return read_prompt(s);
}

/* All words of all rows, in speaker.said. */
static int speak(sample *s)
{
    const int64_t V = s->kept.model.vocabulary, n = s->r.number;
    s->room = malloc((size_t)V * sizeof *s->room);
    s->word = malloc((size_t)n * sizeof *s->word);
    if (!s->room || !s->word) return snprintf(s->why, sizeof s->why, "out of memory"), HS_EXIT_FAILED;
    if (hs_speaker_init(&s->speaker, &s->kept, n, s->nprompt + s->r.length, s->r.how, s->why, sizeof s->why)) return HS_EXIT_FAILED;
    for (int64_t t = 0; t < s->speaker.length; t++) {
        for (int64_t i = 0; i < n; i++)
            s->word[i] = t < s->nprompt ? s->prompt[t]
                       : nn_sample(&s->r.sampling, s->speaker.score + i * V, (int32_t)V, (uint64_t)i, (uint32_t)t, s->room);
        if (hs_speaker_take(&s->speaker, s->word)) return snprintf(s->why, sizeof s->why, "the model failed at word %lld", (long long)t), HS_EXIT_FAILED;
    }
    return HS_EXIT_OK;
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

static void tell(const sample *s)
{
    for (int64_t i = 0; i < s->r.number; i++) {
        if (s->r.number > 1) printf("%s== %lld\n", i ? "\n" : "", (long long)i + 1);
        hs_text_write(&s->text, s->speaker.said + i * s->speaker.length + s->begin, s->speaker.length - s->begin, stdout);
        putchar('\n');
    }
}

static void tell_json(const sample *s)
{
    json_t *texts = json_array();
    for (int64_t i = 0; i < s->r.number; i++) {
        const int32_t *said = s->speaker.said + i * s->speaker.length + s->begin;
        json_t *tokens = json_array();
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        if (f) hs_text_write(&s->text, said, s->speaker.length - s->begin, f), fclose(f);
        for (int64_t t = 0; t < s->speaker.length - s->begin; t++) json_array_append_new(tokens, json_integer(said[t]));
        json_array_append_new(texts, json_pack("{s:o, s:o}", "text", hs_json_text(text), "tokens", tokens));
        free(text);
    }
    json_t *all = json_pack("{s:s, s:s, s:s, s:I, s:o}", "key", s->kept.found.key, "model", s->kept.found.label, "by",
                            s->speaker.how == HS_SPEAK_STATES ? "states" : "windows", "prompt_tokens", (json_int_t)(s->nprompt - s->begin), "samples", texts);
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
}

int cmd_sample(int argc, char **argv)
{
    sample s = { 0 };
    int rc = parse(&s.r, argc, argv);
    if (rc >= 0) return rc;
    rc = open_model(&s);
    if (!rc) rc = speak(&s);
    if (rc) fprintf(stderr, "harness sample: %s\n", s.why);
    else if (s.r.json) tell_json(&s);
    else tell(&s);
    hs_speaker_release(&s.speaker);
    hs_kept_close(&s.kept);
    free(s.prompt);
    free(s.room);
    free(s.word);
    return rc;
}
