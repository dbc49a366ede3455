/* cmd_data.c - `harness data list|get|prepare|verify`: the data sets of the tasks. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "command.h"
#include "options.h"
#include "plan.h"
#include "table.h"
#include "tasks/data/data.h"
#include "tasks/data/units.h"

typedef struct arguments {
    const char *verb, *name, *mirror;
    data_prepare_args prepare;
    int64_t subwords;                   /* units to make of a set of pairs, 0: none */
    enum hs_format format;
    time_t told;                        /* when progress was shown last */
} arguments;

static void say(void *ctx, const char *sentence) { (void)ctx; fprintf(stderr, "%s\n", sentence); }

/* At most once a second, and only to a terminal. */
static void progress(void *ctx, int64_t at, int64_t of)
{
    arguments *a = ctx;
    const time_t now = time(NULL);
    if (now == a->told || !isatty(STDERR_FILENO)) return;
    a->told = now;
    if (of) fprintf(stderr, "\r%.1f of %.1f MB", (double)at / 1e6, (double)of / 1e6);
    else fprintf(stderr, "\r%.1f MB", (double)at / 1e6);
}

/* ---- list --------------------------------------------------------------------------------------------------------- */

/* Bytes to fetch, 0 when some part of it is not published. */
static int64_t size_of(const data_set *s)
{
    int64_t bytes = 0;
    for (const data_download *d = s->downloads; d && d->url; d++) {
        if (!d->bytes) return 0;
        bytes += d->bytes;
    }
    return bytes;
}

/* "unpacked", "prepared" or nothing. */
static const char *state_of(const data_set *s)
{
    char path[4096], below[128];
    snprintf(below, sizeof below, "prepared/%s.tokens", s->name);
    if (data_cache_path(path, sizeof path, below) == 0 && access(path, R_OK) == 0) return "prepared";
    return data_set_folder(s, path, sizeof path) == 0 && access(path, F_OK) == 0 ? "here" : "";
}

static int list_all(const arguments *a)
{
    static const char *const columns[] = { "name", "kind", "megabytes", "state", "licence", "about" };
    hs_table *t = hs_table_new();
    for (const data_set *s = data_sets; s->name; s++) {
        const int64_t bytes = size_of(s);
        json_t *row[] = { json_string(s->name), json_string(data_kind_names[s->kind]),
                          bytes ? json_real(round((double)bytes / 1e5) / 10) : json_string("unknown"), json_string(state_of(s)),
                          json_string(s->licence), json_string(s->about) };
        const size_t at = hs_table_rows(t);
        if (!s->downloads) json_string_set(row[2], s->generate ? "made here" : "local copy");
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) hs_table_set(t, at, hs_table_column(t, columns[c]), row[c]);
    }
    hs_table_write(t, a->format, stdout);
    hs_table_free(t);
    return HS_EXIT_OK;
}

/* One set in full. */
static int list_one(const data_set *s)
{
    printf("%s - %s\n  kind     %s\n  licence  %s\n  home     %s\n", s->name, s->about, data_kind_names[s->kind], s->licence, s->home);
    for (const data_download *d = s->downloads; d && d->url; d++) {
        printf("  source   %s\n           ", d->url);
        if (d->bytes) printf("%lld bytes, ", (long long)d->bytes);
        else printf("size unknown, ");
        printf("SHA-256 %s\n", d->sha256 ? d->sha256 : "unknown: that of the first copy is kept");
    }
    for (const data_file *f = s->files; f->split; f++) {
        printf("  %-8s %s%s%s", f->split, f->names, f->other ? " and " : "", f->other ? f->other : "");
        if (f->to && s->kind == DATA_BYTES) printf(", bytes %lld to %lld", (long long)f->from, (long long)f->to);
        if (f->to && s->kind == DATA_PROTEIN) printf(", %.1f %% of the names", (double)(f->to - f->from) / 10);
        printf("%s\n", f->flags & DATA_OPTIONAL ? " (may be missing)" : "");
    }
    return HS_EXIT_OK;
}

/* ---- prepare and verify ----------------------------------------------------------------------------------------------- */

/* What a prepared set holds, on stdout. */
static void describe(const data_tokens *t, const data_set *set)
{
    const int64_t eos = data_id(t, "<eos>", 5);
    const int words = data_id(t, "<unk>", 5) >= 0;
    printf("vocabulary %lld\n", (long long)t->nvocab);
    for (int i = 0; i < t->nsplits; i++) {
        const data_split *s = &t->split[i];
        printf("%-14s %11lld tokens %8lld documents %11lld bytes", s->name, (long long)s->n, (long long)s->ndocs, (long long)s->bytes);
        if (words && s->n)
            printf("  <unk> %.3f %%, of which not in the text itself %.3f %%", 100.0 * (double)s->unknown / (double)s->n,
                   100.0 * (double)s->replaced / (double)s->n);
        if (set->kind == DATA_PROTEIN && data_find_split(t, "train")) {
            const data_unigram u = data_unigram_of(t, s, eos);
            printf("  unigram accuracy %.2f %% perplexity %.2f", 100 * u.accuracy, u.perplexity);
        }
        puts("");
    }
}

static int prepare(arguments *a, const data_set *set)
{
    data_prepared done;
    data_tokens t;
    char why[1024];
    a->prepare.say = say;
    int rc = data_prepare(set, &a->prepare, &done, why, sizeof why);
    if (rc == 0 && a->subwords) {
        data_prepared bytes = done;
        rc = data_units(set, bytes.path, (int)a->subwords, &done, why, sizeof why);
    }
    if (rc != 0 || data_open(done.path, &t, why, sizeof why) != 0) {
        fprintf(stderr, "harness data: %s\n", why);
        return HS_EXIT_FAILED;
    }
    if (done.reused) fprintf(stderr, "%s is prepared already\n", set->name);
    else fprintf(stderr, "prepared %.1f MB of text in %.1f s: %.0f MB/s\n", (double)done.bytes / 1e6, done.seconds,
                 (double)done.bytes / 1e6 / done.seconds);
    puts(done.path);
    describe(&t, set);
    data_close(&t);
    return HS_EXIT_OK;
}

/* Every copy of a set that is here. */
static int verify(const arguments *a, const data_set *set)
{
    const data_get_args get = { .say = say, .ctx = (void *)(uintptr_t)a };
    char why[1024];
    data_tokens t;
    int rc = data_verify_downloads(set, &get, why, sizeof why);
    if (rc == 0 && !strcmp(state_of(set), "prepared")) {
        rc = data_open(set->name, &t, why, sizeof why);
        if (rc == 0) {
            printf("%s: prepared, sound, of the recipe %s\n%.*s", set->name, t.digest, (int)t.recipe_length, t.recipe);
            data_close(&t);
        }
    }
    if (rc != 0) fprintf(stderr, "harness data: %s\n", why);
    return rc == 0 ? HS_EXIT_OK : HS_EXIT_FAILED;
}

static int verify_all(const arguments *a)
{
    int rc = HS_EXIT_OK, any = 0;
    for (const data_set *s = data_sets; s->name; s++) {
        if (!*state_of(s)) continue;
        any = 1;
        if (verify(a, s) != HS_EXIT_OK) rc = HS_EXIT_FAILED;
    }
    if (!any) puts("there is no data set here");
    return rc;
}

static int get(arguments *a, const data_set *set)
{
    const data_get_args args = { .mirror = a->mirror, .from = a->prepare.from[0], .progress = progress, .say = say, .ctx = a };
    char why[1024], folder[4096];
    if (data_get(set, &args, why, sizeof why) != 0) {
        fprintf(stderr, "harness data: %s\n", why);
        return HS_EXIT_FAILED;
    }
    data_set_folder(set, folder, sizeof folder);
    puts(folder);
    return HS_EXIT_OK;
}

/* ---- the command line ----------------------------------------------------------------------------------------------------- */

/* "20M" */
static int read_number(const char *text, int64_t *out)
{
    char *end;
    const double x = strtod(text, &end), unit = *end == 'k' ? 1e3 : *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 1;
    if (end == text || (*end && (unit == 1 || end[1])) || !(x >= 0 && x * unit < 9e15) || x * unit != floor(x * unit)) return -1;
    *out = (int64_t)(x * unit);
    return 0;
}

/* An option with a value; 0, or what is wrong with it. */
static const char *set_option(arguments *a, const char *option, const char *value)
{
    if (!strcmp(option, "--from")) {
        if (a->prepare.nfrom == DATA_FROM) return "--from: at most 8 folders";
        a->prepare.from[a->prepare.nfrom++] = value;
    } else if (!strcmp(option, "--mirror")) a->mirror = value;
    else if (!strcmp(option, "--limit"))
        return read_number(value, &a->prepare.limit) == 0 ? NULL : "--limit: a number of tokens is expected, such as 20M";
    else if (!strcmp(option, "--min-count")) return read_number(value, &a->prepare.min_count) == 0 ? NULL : "--min-count: a whole number is expected";
    else if (!strcmp(option, "--subwords"))
        return read_number(value, &a->subwords) == 0 && a->subwords >= 8 && a->subwords <= 1000000 ? NULL : "--subwords: a number of units from 8 to 1000000 is expected";
    else if (!strcmp(value, "words")) a->prepare.level = DATA_WORDS;
    else if (!strcmp(value, "bytes")) a->prepare.level = DATA_BYTES;
    else return "--level: words or bytes is expected";
    return NULL;
}

/* The options that a verb takes. */
static int takes(const char *verb, const char *option)
{
    static const char *const table[][2] = { { "get", "--mirror" }, { "get", "--from" }, { "prepare", "--from" }, { "prepare", "--level" },
                                            { "prepare", "--min-count" }, { "prepare", "--limit" }, { "prepare", "--subwords" } };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i][0], verb) && !strcmp(table[i][1], option)) return 1;
    return 0;
}

/* NULL, or a complaint, in static room. */
static const char *parse(arguments *a, int argc, char **argv)
{
    static char complaint[256];
    for (int i = 2; i < argc; i++) {
        if (!strcmp(a->verb, "list") && !strcmp(argv[i], "--json")) a->format = HS_JSON;
        else if (!strcmp(a->verb, "list") && !strcmp(argv[i], "--csv")) a->format = HS_CSV;
        else if (*argv[i] != '-' && !a->name) a->name = argv[i];
        else if (takes(a->verb, argv[i])) {
            snprintf(complaint, sizeof complaint, "%s: a value is expected", argv[i]);
            const char *fault = i + 1 < argc ? set_option(a, argv[i], argv[i + 1]) : complaint;
            if (fault) return fault;
            i++;
        } else {
            snprintf(complaint, sizeof complaint, "'%s' does not belong to %s", argv[i], a->verb);
            return complaint;
        }
    }
    return NULL;
}

/* The set of that name; NULL after a message with the nearest one. */
static const data_set *find(const char *name)
{
    const char *names[64];
    size_t n = 0;
    const data_set *set = data_set_find(name);
    if (set) return set;
    for (const data_set *s = data_sets; s->name && n < 64; s++) names[n++] = s->name;
    const char *near = hs_nearest(name, names, n);
    fprintf(stderr, "harness data: there is no data set '%s'%s%s%s (harness data list)\n", name,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* See command.h. */
int cmd_data(int argc, char **argv)
{
    const hs_command *self = hs_command_find("data");
    arguments a = { .verb = argc > 1 ? argv[1] : "", .prepare = { .level = -1, .min_count = -1 }, .format = HS_TEXT };
    if (!strcmp(a.verb, "-h")) return hs_usage(self, NULL);
    const int list = !strcmp(a.verb, "list"), ver = !strcmp(a.verb, "verify"), pre = !strcmp(a.verb, "prepare");
    if (!list && !ver && !pre && strcmp(a.verb, "get")) return hs_usage(self, "list, get, prepare or verify is expected");
    const char *complaint = parse(&a, argc, argv);
    if (complaint) return hs_usage(self, complaint);
    if (!a.name) return list ? list_all(&a) : ver ? verify_all(&a) : hs_usage(self, "the name of a data set is expected (harness data list)");
    const data_set *set = find(a.name);
    if (!set) return HS_EXIT_USAGE;
    return list ? list_one(set) : ver ? verify(&a, set) : pre ? prepare(&a, set) : get(&a, set);
}
