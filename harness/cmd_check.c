/* cmd_check.c - `harness check FILE.so...`: is it right? */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check.h"
#include "command.h"
#include "plan.h"

enum { TABLE, JSON, TAP };
enum { MOST_ROWS = 64 };
typedef struct row { char check[64]; size_t n[3]; double error; char place[200]; } row;
typedef struct printer {
    int format, verbose;
    const char *path;
    json_t *array;
    char group[256];                    /* the variant, impl and mode whose rows are being gathered */
    row rows[MOST_ROWS];
    int nrows;
} printer;

static const char *const words[] = { "ok", "FAIL", "skip" };

/* "softmax/cpu/causal"; results without a variant are about the file. */
static void group_name(const printer *p, const hs_check_result *r, char *out, size_t n)
{
    snprintf(out, n, "%s%s%s%s%s", *r->variant ? r->variant : p->path, *r->impl ? "/" : "", r->impl, *r->mode ? "/" : "", r->mode);
}

/* One row per check: its verdicts over all option sets and sizes, the worst error and where. */
static void close_group(printer *p)
{
    if (p->nrows) printf("\n%-44s %5s %5s %5s %9s  %s\n", p->group, "ok", "FAIL", "skip", "worst", "where");
    for (int i = 0; i < p->nrows; i++) {
        const row *x = &p->rows[i];
        printf("  %-42s %5zu %5zu %5zu %9.2g  %s\n", x->check, x->n[HS_CHECK_OK], x->n[HS_CHECK_FAIL], x->n[HS_CHECK_SKIP],
               x->error > 0 ? x->error : 0, x->error > 0 || x->n[HS_CHECK_OK] == 0 ? x->place : "");
    }
    p->nrows = 0;
}

/* The row of a check without its size: "klen is truncation, T=5" counts for "klen is truncation". */
static row *row_of(printer *p, const char *check)
{
    const char *comma = strstr(check, ", T="), *one = strstr(check, ", one query");
    size_t n = one ? (size_t)(one - check) : comma ? (size_t)(comma - check) : strlen(check);
    for (int i = 0; i < p->nrows; i++)
        if (strlen(p->rows[i].check) == n && !strncmp(p->rows[i].check, check, n)) return &p->rows[i];
    if (p->nrows == MOST_ROWS) return &p->rows[MOST_ROWS - 1];
    row *x = &p->rows[p->nrows++];
    *x = (row){ .error = -1 };
    snprintf(x->check, sizeof x->check, "%.*s", (int)n, check);
    return x;
}

static void print_table(printer *p, const hs_check_result *r)
{
    char group[256];
    group_name(p, r, group, sizeof group);
    if (!p->nrows || strcmp(group, p->group)) close_group(p), memcpy(p->group, group, sizeof group);
    row *x = row_of(p, r->check);
    x->n[r->status]++;
    if (r->status != HS_CHECK_SKIP && !(r->error <= x->error)) {
        x->error = r->error;
        snprintf(x->place, sizeof x->place, "%s%s%s", r->options, *r->options && strstr(r->check, ", ") ? " " : "",
                 strstr(r->check, ", ") ? strstr(r->check, ", ") + 2 : "");
    } else if (x->error < 0) snprintf(x->place, sizeof x->place, "%s", r->note);
    if (r->status == HS_CHECK_FAIL || p->verbose)
        printf("%s  %s%s%s  %s (%.2g)%s%s\n", words[r->status], group, *r->options ? " " : "", r->options, r->check, r->error,
               *r->note ? ": " : "", r->note);
}

static void print_tap(const printer *p, const hs_check_result *r)
{
    char group[256];
    group_name(p, r, group, sizeof group);
    if (r->status == HS_CHECK_FAIL) printf("# %s (%.3g)\n", r->note, r->error);
    printf("%s - %s %s%s%s%s%s\n", r->status == HS_CHECK_FAIL ? "not ok" : "ok", group, r->options, *r->options ? " " : "", r->check,
           r->status == HS_CHECK_SKIP ? " # SKIP " : "", r->status == HS_CHECK_SKIP ? r->note : "");
}

static void each(const hs_check_result *r, void *ctx)
{
    printer *p = ctx;
    if (p->format == TABLE) print_table(p, r);
    else if (p->format == TAP) print_tap(p, r);
    else json_array_append_new(p->array, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:f,s:s}", "file", p->path, "variant", r->variant,
        "impl", r->impl, "mode", r->mode, "options", r->options, "check", r->check, "status", words[r->status],
        "error", r->error == r->error && r->error < 1e300 ? r->error : 1e300, "note", r->note));
}

static int usage(const char *complaint) { return hs_usage(hs_command_find("check"), complaint); }

/* Options of the command line; -1 when the command is to go on. */
static int parse(int argc, char **argv, hs_check_args *a, printer *p, const char **sets)
{
    enum { O_JSON = 1000, O_TAP, O_QUICK, O_LIMIT, O_VARIANT, O_IMPL, O_OPTIONS, O_ONLY };
    static const struct option longs[] = {
        { "json", 0, NULL, O_JSON }, { "tap", 0, NULL, O_TAP }, { "quick", 0, NULL, O_QUICK }, { "limit", 1, NULL, O_LIMIT },
        { "variant", 1, NULL, O_VARIANT }, { "impl", 1, NULL, O_IMPL }, { "options", 1, NULL, O_OPTIONS },
        { "only-options", 0, NULL, O_ONLY }, { "verbose", 0, NULL, 'v' }, { "help", 0, NULL, 'h' }, { 0 } };
    optind = 0, opterr = 0;
    for (int o; (o = getopt_long(argc, argv, "hv", longs, NULL)) != -1;) switch (o) {
        case 'h': return usage(NULL);
        case 'v': p->verbose = 1; break;
        case O_JSON: p->format = JSON; break;
        case O_TAP: p->format = TAP; break;
        case O_QUICK: a->quick = 1; break;
        case O_VARIANT: a->variant = optarg; break;
        case O_IMPL: a->impl = optarg; break;
        case O_OPTIONS: sets[a->noptions++] = optarg; break;
        case O_ONLY: a->only_options = 1; break;
        case O_LIMIT: if ((a->limit_s = atoi(optarg)) < 1) return usage("--limit takes a number of seconds"); break;
        default: return usage("an option is unknown or lacks its value");
    }
    if (optind == argc) return usage("which plug-in? name one or more .so files");
    return a->only_options && !a->noptions ? usage("--only-options goes with --options") : -1;
}

int cmd_check(int argc, char **argv)
{
    const char **sets = calloc((size_t)argc, sizeof *sets);
    printer p = { .format = TABLE };
    hs_check_args args = { .options = sets, .each = each, .ctx = &p };
    size_t ok = 0, failed = 0, skipped = 0;
    int rc = sets ? parse(argc, argv, &args, &p, sets) : HS_EXIT_FAILED;
    if (rc >= 0) goto out;
    p.array = json_array();
    for (int i = optind; i < argc; i++) {
        hs_check_report report;
        p.path = argv[i];
        hs_check_file(argv[i], &args, &report);
        close_group(&p);
        ok += report.ok, failed += report.failed, skipped += report.skipped;
        hs_check_report_release(&report);
    }
    if (p.format == JSON) {
        json_t *all = json_pack("{s:I,s:I,s:I,s:O}", "ok", (json_int_t)ok, "failed", (json_int_t)failed, "skipped", (json_int_t)skipped,
                             "checks", p.array);
        json_dumpf(all, stdout, JSON_INDENT(1));
        json_decref(all);
        putchar('\n');
    } else fprintf(p.format == TAP ? stderr : stdout, "%zu ok, %zu failed, %zu skipped\n", ok, failed, skipped);
    json_decref(p.array);
    rc = failed ? HS_EXIT_PLUGIN : HS_EXIT_OK;
out:
    free(sets);
    return rc;
}
