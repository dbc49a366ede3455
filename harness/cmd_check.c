/* cmd_check.c - `harness check FILE.so...`: is it right? */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attn.h"
#include "check.h"
#include "command.h"
#include "plan.h"

enum { REPORT, JSON, TAP, TABLE };
enum { MOST_ROWS = 64, MOST_REASONS = 32 };
typedef struct row { char check[64]; size_t n[3]; double error; char place[200]; } row;
typedef struct reason { char note[200]; size_t n; } reason;
typedef struct group { char name[256]; size_t n[3]; } group;
typedef struct printer {
    int format, verbose;
    const char *path;
    json_t *array;
    hs_check_table *table;
    char group[256];                    /* the variant, impl and mode whose rows are being gathered */
    row rows[MOST_ROWS];
    reason reasons[MOST_REASONS];       /* of its skips */
    int nrows, nreasons;
    group *groups;                      /* all, for the summary */
    size_t ngroups;
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
    for (int i = 0; i < p->nreasons; i++) printf("  skipped %5zu times: %s\n", p->reasons[i].n, p->reasons[i].note);
    p->nrows = p->nreasons = 0;
}

/* Counts a skip with its reason; what does not fit the table of reasons counts as "other reasons". */
static void count_reason(printer *p, const char *note)
{
    int i = 0;
    while (i < p->nreasons && strncmp(p->reasons[i].note, note, sizeof p->reasons[i].note - 1)) i++;
    if (i == MOST_REASONS) snprintf(p->reasons[--i].note, sizeof p->reasons[i].note, "other reasons");
    if (i == p->nreasons) snprintf(p->reasons[p->nreasons++].note, sizeof p->reasons[i].note, "%s", note), p->reasons[i].n = 0;
    p->reasons[i].n++;
}

/* The groups follow one another; a failure of the file as a whole is a group of its own. */
static void count_group(printer *p, const char *name, hs_check_status status)
{
    if (!p->ngroups || strcmp(p->groups[p->ngroups - 1].name, name)) {
        group *more = realloc(p->groups, (p->ngroups + 1) * sizeof *more);
        if (!more) return;
        p->groups = more;
        more[p->ngroups] = (group){ .n = { 0 } };
        snprintf(more[p->ngroups++].name, sizeof more->name, "%s", name);
    }
    p->groups[p->ngroups - 1].n[status]++;
}

/* One line per variant x impl x dtype x mode. */
static void print_summary(const printer *p)
{
    printf("\n%-44s %5s %5s %5s\n", "summary", "ok", "FAIL", "skip");
    for (size_t i = 0; i < p->ngroups; i++) {
        const group *g = &p->groups[i];
        printf("  %-42s %5zu %5zu %5zu\n", g->name, g->n[HS_CHECK_OK], g->n[HS_CHECK_FAIL], g->n[HS_CHECK_SKIP]);
    }
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

static void print_report(printer *p, const hs_check_result *r)
{
    char group[256];
    group_name(p, r, group, sizeof group);
    if (!p->nrows || strcmp(group, p->group)) close_group(p), memcpy(p->group, group, sizeof group);
    count_group(p, group, r->status);
    if (r->status == HS_CHECK_SKIP) count_reason(p, r->note);
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
    if (p->format == REPORT) print_report(p, r);
    else if (p->format == TAP) print_tap(p, r);
    else if (p->format == TABLE) hs_check_table_add(p->table, r);
    else json_array_append_new(p->array, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:f,s:f,s:f,s:f,s:s}", "file", p->path, "variant",
        r->variant, "impl", r->impl, "dtype", r->dtype, "mode", r->mode, "options", r->options, "check", r->check, "status", words[r->status],
        "error", r->error == r->error && r->error < 1e300 ? r->error : 1e300,
        "bytes_1k", r->bytes_1k, "bytes_8k", r->bytes_8k, "slope", r->slope, "note", r->note));
}

static int dtype_of(const char *name)
{
    return !strcmp(name, "f64") ? ATTN_F64 : !strcmp(name, "f32") ? ATTN_F32 : !strcmp(name, "bf16") ? ATTN_BF16 : 0;
}

/* "mirror" calls the implementations for a GPU in a copy of the CPU's memory, so that the checker can be tested. */
static const char *device_of(const char *name)
{
    return !strcmp(name, "mirror") ? "cpu" : !strcmp(name, "cpu") ? NULL : name;
}

static int usage(const char *complaint) { return hs_usage(hs_command_find("check"), complaint); }

/* Options of the command line; -1 when the command is to go on. */
static int parse(int argc, char **argv, hs_check_args *a, printer *p, const char **sets)
{
    enum { O_JSON = 1000, O_TAP, O_TABLE, O_QUICK, O_LIMIT, O_VARIANT, O_IMPL, O_DTYPE, O_DEVICE, O_OPTIONS, O_ONLY, O_DEFAULTS, O_ONCE };
    static const struct option longs[] = {
        { "json", 0, NULL, O_JSON }, { "tap", 0, NULL, O_TAP }, { "table", 0, NULL, O_TABLE }, { "quick", 0, NULL, O_QUICK }, { "limit", 1, NULL, O_LIMIT },
        { "variant", 1, NULL, O_VARIANT }, { "impl", 1, NULL, O_IMPL },
        { "dtype", 1, NULL, O_DTYPE }, { "device", 1, NULL, O_DEVICE }, { "options", 1, NULL, O_OPTIONS },
        { "only-options", 0, NULL, O_ONLY }, { "defaults", 0, NULL, O_DEFAULTS }, { "once", 0, NULL, O_ONCE },
        { "verbose", 0, NULL, 'v' }, { "help", 0, NULL, 'h' }, { 0 } };
    optind = 0, opterr = 0;
    for (int o; (o = getopt_long(argc, argv, "hv", longs, NULL)) != -1;) switch (o) {
        case 'h': return usage(NULL);
        case 'v': p->verbose = 1; break;
        case O_JSON: p->format = JSON; break;
        case O_TAP: p->format = TAP; break;
        case O_TABLE: p->format = TABLE; break;
        case O_QUICK: a->quick = 1; break;
        case O_VARIANT: a->variant = optarg; break;
        case O_IMPL: a->impl = optarg; break;
        case O_DTYPE: if (!(a->dtype = dtype_of(optarg))) return usage("--dtype takes f64, f32 or bf16"); break;
        case O_DEVICE: a->device = device_of(optarg); break;
        case O_OPTIONS: sets[a->noptions++] = optarg; break;
        case O_ONLY: a->only_options = 1; break;
        case O_DEFAULTS: a->defaults = 1; break;
        case O_ONCE: a->once = 1; break;
        case O_LIMIT: if ((a->limit_s = atoi(optarg)) < 1) return usage("--limit takes a number of seconds"); break;
        default: return usage("an option is unknown or lacks its value");
    }
    if (optind == argc) return usage("which plug-in? name one or more .so files");
    return a->only_options && !a->noptions ? usage("--only-options goes with --options") : -1;
}

/* The end of the output: totals, after the summary or with all results. */
static void finish(printer *p, const size_t n[3])
{
    if (p->format == JSON) {
        json_t *all = json_pack("{s:I,s:I,s:I,s:O}", "ok", (json_int_t)n[HS_CHECK_OK], "failed", (json_int_t)n[HS_CHECK_FAIL],
                                "skipped", (json_int_t)n[HS_CHECK_SKIP], "checks", p->array);
        json_dumpf(all, stdout, JSON_INDENT(1));
        json_decref(all);
        putchar('\n');
        return;
    }
    if (p->format == REPORT) print_summary(p);
    if (p->format == TABLE) hs_check_table_write(p->table, stdout);
    fprintf(p->format == TAP || p->format == TABLE ? stderr : stdout, "%zu ok, %zu failed, %zu skipped\n", n[HS_CHECK_OK], n[HS_CHECK_FAIL], n[HS_CHECK_SKIP]);
}

/* Every file; the exit status. */
static int check_files(char **files, int n, const hs_check_args *args, printer *p)
{
    size_t total[3] = { 0 };
    for (int i = 0; i < n; i++) {
        hs_check_report report;
        p->path = files[i];
        int rc = hs_check_file(files[i], args, &report);
        close_group(p);
        total[HS_CHECK_OK] += report.ok, total[HS_CHECK_FAIL] += report.failed, total[HS_CHECK_SKIP] += report.skipped;
        if (rc == HS_EXIT_DEVICE) fprintf(stderr, "harness check: %s\n", report.why);
        hs_check_report_release(&report);
        if (rc == HS_EXIT_DEVICE) return rc;
    }
    finish(p, total);
    return total[HS_CHECK_FAIL] ? HS_EXIT_PLUGIN : HS_EXIT_OK;
}

int cmd_check(int argc, char **argv)
{
    const char **sets = calloc((size_t)argc, sizeof *sets);
    printer p = { .format = REPORT, .array = json_array(), .table = hs_check_table_new() };
    hs_check_args args = { .options = sets, .each = each, .ctx = &p };
    int rc = sets && p.array && p.table ? parse(argc, argv, &args, &p, sets) : HS_EXIT_FAILED;
    if (rc < 0) rc = check_files(argv + optind, argc - optind, &args, &p);
    json_decref(p.array);
    hs_check_table_free(p.table);
    free(p.groups);
    free(sets);
    return rc;
}
