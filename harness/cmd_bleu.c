/* cmd_bleu.c - `harness bleu HYP REF...`: the score of a translation, its interval, and whether another differs. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../tasks/data/bleu.h"
#include "command.h"
#include "plan.h"

enum { OPT_TOKENISE = 256, OPT_SMOOTH, OPT_BOOTSTRAP, OPT_SEED, OPT_AGAINST, OPT_JSON };
static const struct option long_options[] = {
    { "lowercase", no_argument, NULL, 'l' }, { "effective-order", no_argument, NULL, 'e' },
    { "tokenize", required_argument, NULL, OPT_TOKENISE }, { "smooth", required_argument, NULL, OPT_SMOOTH },
    { "bootstrap", required_argument, NULL, OPT_BOOTSTRAP }, { "seed", required_argument, NULL, OPT_SEED },
    { "against", required_argument, NULL, OPT_AGAINST }, { "json", no_argument, NULL, OPT_JSON },
    { "help", no_argument, NULL, 'h' }, { 0 } };
enum { MAX_REFS = 16, TRIALS = 10000 };

typedef struct bleu_command {
    bleu_opts opts;
    const char *hyp, *against, *ref[MAX_REFS];
    int nrefs, resamples, json;
    uint64_t seed;
} bleu_command;

/* The place of a word in a list that ends with NULL, -1: it is not there. */
static int choice(const char *word, const char *const *list)
{
    for (int i = 0; list[i]; i++)
        if (!strcmp(word, list[i])) return i;
    return -1;
}

/* Takes a whole number from 0 to most. */
static const char *whole(const char *text, uint64_t most, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return *end || end == text || *text == '-' || errno || *out > most ? "wants a whole number" : NULL;
}

/* Takes one option; a complaint when its value is wrong. */
static const char *take(bleu_command *c, int opt)
{
    static const char *const tokenisers[] = { "13a", "intl", "none", NULL }, *const smoothings[] = { "exp", "floor", "none", NULL };
    uint64_t n = 0;
    const char *wrong = NULL;
    int which = opt == OPT_TOKENISE ? choice(optarg, tokenisers) : opt == OPT_SMOOTH ? choice(optarg, smoothings) : 0;
    if (which < 0) return opt == OPT_TOKENISE ? "wants 13a, intl or none" : "wants exp, floor or none";
    switch (opt) {
    case 'l': c->opts.lowercase = 1; break;
    case 'e': c->opts.effective_order = 1; break;
    case OPT_TOKENISE: c->opts.tokeniser = (bleu_tokeniser)which; break;
    case OPT_SMOOTH: c->opts.smoothing = (bleu_smoothing)which; break;
    case OPT_SEED: wrong = whole(optarg, UINT64_MAX, &c->seed); break;
    case OPT_BOOTSTRAP: wrong = whole(optarg, 1000000, &n), c->resamples = (int)n; break;
    case OPT_AGAINST: c->against = optarg; break;
    default: c->json = 1;
    }
    return wrong;
}

/* Reads the command line.  Negative: go on, else the exit code. */
static int parse(bleu_command *c, int argc, char **argv)
{
    const hs_command *self = hs_command_find("bleu");
    char complaint[256];
    *c = (bleu_command){ .seed = 12345 };
    opterr = 0;
    optind = 0;
    for (int opt; (opt = getopt_long(argc, argv, ":h", long_options, NULL)) != -1;) {
        if (opt == 'h') return hs_usage(self, NULL);
        const char *wrong = opt == ':' ? "wants a value" : opt == '?' ? "is no option of this command" : take(c, opt);
        if (!wrong) continue;
        snprintf(complaint, sizeof complaint, "%s %s", argv[optind - 1], wrong);
        return hs_usage(self, complaint);
    }
    c->nrefs = argc - optind - 1;
    if (c->nrefs < 1 || c->nrefs > MAX_REFS) return hs_usage(self, "a translation and from 1 to 16 references are compared");
    c->hyp = argv[optind];
    for (int i = 0; i < c->nrefs; i++) c->ref[i] = argv[optind + 1 + i];
    return -1;
}

/* ---- files, line by line ------------------------------------------------------------------------------------------- */

typedef struct lines { const char *path; FILE *file; char *line; size_t room; int more; } lines;

static int lines_open(lines *l, const char *path)
{
    *l = (lines){ .path = path, .file = strcmp(path, "-") ? fopen(path, "r") : stdin };
    if (!l->file) fprintf(stderr, "harness bleu: %s: %s\n", path, strerror(errno));
    return l->file ? 0 : -1;
}

/* The next line without its end; more says whether there was one.  -1: a NUL stands in it, which would hide the rest. */
static int lines_next(lines *l)
{
    ssize_t n = getline(&l->line, &l->room, l->file);
    l->more = n >= 0;
    if (n > 0 && l->line[n - 1] == '\n') l->line[--n] = '\0';
    return n > 0 && strlen(l->line) != (size_t)n ? -1 : 0;
}

static void lines_close(lines *l)
{
    if (l->file && l->file != stdin) fclose(l->file);
    free(l->line);
}

typedef struct corpus { bleu_counts *segment; int64_t n, room; } corpus;

/* Says what is wrong with a line; -1. */
static int bad_line(const lines *l, int64_t number, const char *what)
{
    fprintf(stderr, "harness bleu: %s:%lld: %s\n", l->path, (long long)number, what);
    return -1;
}

/* Reads one line of each file.  1: one segment, 0: all have ended together, -1: said why. */
static int next_segment(lines *file, int nfiles, int64_t number)
{
    for (int i = 0; i < nfiles; i++)
        if (lines_next(&file[i])) return bad_line(&file[i], number, "a NUL byte");
    for (int i = 1; i < nfiles; i++)
        if (file[i].more != file[0].more)
            return bad_line(&file[file[0].more ? i : 0], number, "the file ends here, others go on: one line is one segment in every file");
    return file[0].more;
}

/* Counts one segment into the corpus. */
static int add_segment(corpus *c, bleu *b, const lines *file, int nrefs)
{
    const char *refs[MAX_REFS];
    if (c->n == c->room) {
        int64_t room = c->room ? 2 * c->room : 1024;
        bleu_counts *bigger = realloc(c->segment, (size_t)room * sizeof *bigger);
        if (!bigger) return -1;
        c->segment = bigger, c->room = room;
    }
    for (int i = 0; i < nrefs; i++) refs[i] = file[i + 1].line;
    int rc = bleu_count(b, file[0].line, refs, nrefs, &c->segment[c->n]);
    if (rc < 0) return bad_line(&file[-rc - 1], c->n + 1, "not UTF-8");
    c->n++;
    return 0;
}

/* Counts a translation against the references, segment by segment. */
static int read_corpus(const bleu_command *o, bleu *b, const char *hyp, corpus *c)
{
    lines file[MAX_REFS + 1] = { 0 };
    int rc = lines_open(&file[0], hyp);
    for (int i = 0; i < o->nrefs && rc == 0; i++) rc = lines_open(&file[i + 1], o->ref[i]);
    while (rc == 0 && (rc = next_segment(file, o->nrefs + 1, c->n + 1)) == 1) rc = add_segment(c, b, file, o->nrefs);
    for (int i = 0; i <= o->nrefs; i++) lines_close(&file[i]);
    if (rc == 0 && c->n == 0) rc = bad_line(&file[0], 1, "the file is empty");
    return rc;
}

/* ---- what is printed -------------------------------------------------------------------------------------------------- */

/* A corpus's score as JSON, or as the two lines of text. */
static bleu_score report(const bleu_command *o, const corpus *c, json_t *json)
{
    char signature[200], text[200];
    bleu_counts sum = { 0 };
    for (int64_t i = 0; i < c->n; i++) bleu_add(&sum, &c->segment[i]);
    bleu_score s = bleu_of(&o->opts, &sum);
    bleu_interval ci = { 0 };
    if (o->resamples > 0) ci = bleu_bootstrap(&o->opts, c->segment, c->n, o->resamples, o->seed);
    bleu_signature(&o->opts, o->nrefs, o->resamples, o->seed, signature, sizeof signature);
    bleu_text(&s, text, sizeof text);
    if (!json) {
        puts(text);
        if (o->resamples > 0) printf("mean %.2f, 95 %% interval +-%.2f of %d resamples\n", ci.mean, ci.half, o->resamples);
        puts(signature);
        return s;
    }
    json_object_update_new(json, json_pack("{s:f, s:[f,f,f,f], s:f, s:I, s:I, s:s, s:s}", "score", s.score, "precisions", s.precision[0],
        s.precision[1], s.precision[2], s.precision[3], "brevity_penalty", s.brevity, "hyp_len", (json_int_t)sum.hyp_len, "ref_len",
        (json_int_t)sum.ref_len, "text", text, "signature", signature));
    if (o->resamples > 0) json_object_update_new(json, json_pack("{s:f, s:f}", "mean", ci.mean, "interval", ci.half));
    return s;
}

/* The other system: its score, and the chance that both are equally good. */
static int report_other(const bleu_command *o, bleu *b, const corpus *mine, double score, json_t *json)
{
    corpus other = { 0 };
    json_t *inner = json ? json_object() : NULL;
    int rc = read_corpus(o, b, o->against, &other);
    if (rc == 0) {              /* as many segments as the references have, or it was refused */
        bleu_score s = report(o, &other, inner);
        double p = bleu_compare(&o->opts, mine->segment, other.segment, mine->n, TRIALS, o->seed);
        if (json) json_object_update_new(json, json_pack("{s:O, s:f, s:f}", "against", inner, "difference", score - s.score, "p", p));
        else printf("difference %+.2f, p = %.4f (approximate randomisation, %d trials, seed %llu)\n", score - s.score, p, TRIALS,
                    (unsigned long long)o->seed);
    }
    json_decref(inner);
    free(other.segment);
    return rc;
}

/* See command.h. */
int cmd_bleu(int argc, char **argv)
{
    bleu_command o;
    int rc = parse(&o, argc, argv);
    if (rc >= 0) return rc;
    corpus c = { 0 };
    bleu *b = bleu_new(&o.opts);
    json_t *json = o.json ? json_object() : NULL;
    rc = b ? read_corpus(&o, b, o.hyp, &c) : -1;
    if (rc == 0) {
        double score = report(&o, &c, json).score;
        if (o.against) rc = report_other(&o, b, &c, score, json);
    }
    if (rc == 0 && json) json_dumpf(json, stdout, JSON_INDENT(2)), puts("");
    json_decref(json);
    free(c.segment);
    bleu_free(b);
    return rc == 0 ? HS_EXIT_OK : HS_EXIT_FAILED;
}
