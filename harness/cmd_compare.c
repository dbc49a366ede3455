/* cmd_compare.c - `harness compare A B`: what became faster, what slower, and what cannot be told. */
#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"
#include "compare.h"
#include "protocol.h"
#include "table.h"

enum { OPT_DB = 256, OPT_METRIC, OPT_THRESHOLD, OPT_MACHINES, OPT_FORMAT };     /* OPT_FORMAT + enum hs_format */
static const struct option long_options[] = {
    { "db", required_argument, NULL, OPT_DB }, { "metric", required_argument, NULL, OPT_METRIC },
    { "threshold", required_argument, NULL, OPT_THRESHOLD }, { "across-machines", no_argument, NULL, OPT_MACHINES },
    { "csv", no_argument, NULL, OPT_FORMAT + HS_CSV }, { "json", no_argument, NULL, OPT_FORMAT + HS_JSON },
    { "markdown", no_argument, NULL, OPT_FORMAT + HS_MARKDOWN }, { "latex", no_argument, NULL, OPT_FORMAT + HS_LATEX },
    { "help", no_argument, NULL, 'h' }, { 0 } };

typedef struct compare_options {
    const char *a, *b, *db, *metric;
    double threshold;
    int across;
    enum hs_format format;
} compare_options;

/* Takes one option; a complaint when its value is wrong. */
static const char *take(compare_options *o, int opt)
{
    char *end;
    switch (opt) {
    case OPT_DB: o->db = optarg; return NULL;
    case OPT_METRIC: o->metric = optarg; return NULL;
    case OPT_MACHINES: o->across = 1; return NULL;
    case OPT_THRESHOLD:
        o->threshold = strtod(optarg, &end) / 100;
        return *end || end == optarg || !(o->threshold >= 0 && o->threshold < 100) ? "wants a number of percent, such as 3" : NULL;
    default: o->format = (enum hs_format)(opt - OPT_FORMAT); return NULL;
    }
}

/* Reads the command line.  Negative: go on, else the exit code. */
static int parse(compare_options *o, int argc, char **argv)
{
    const hs_command *self = hs_command_find("compare");
    char complaint[256];
    *o = (compare_options){ .db = hs_store_default_path(), .threshold = 0.03, .format = HS_TEXT };
    opterr = 0;
    optind = 0;
    for (int opt; (opt = getopt_long(argc, argv, ":h", long_options, NULL)) != -1;) {
        if (opt == 'h') return hs_usage(self, NULL);
        const char *wrong = opt == ':' ? "wants a value" : opt == '?' ? "is no option of this command" : take(o, opt);
        if (!wrong) continue;
        snprintf(complaint, sizeof complaint, "%s %s", argv[optind - 1], wrong);
        return hs_usage(self, complaint);
    }
    if (argc - optind != 2) return hs_usage(self, "two sides are compared: databases, experiments or commits");
    o->a = argv[optind];
    o->b = argv[optind + 1];
    return -1;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */
/* The last word of a coordinate, "length" of "task.options.length". */
static const char *short_name(const char *at)
{
    return strrchr(at, '.') ? strrchr(at, '.') + 1 : at;
}

/* Sets a value of a row by its column's name. */
static void set(hs_table *t, size_t row, const char *column, json_t *value)
{
    hs_table_set(t, row, hs_table_column(t, column), value);
}

/* A number, null when there is none. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* Why a side has no value: how its cell ended. */
static json_t *note_of(const hs_pair *p)
{
    const hs_side_cell *lacks = p->verdict == HS_LOST ? p->b : p->verdict == HS_GAINED ? p->a : NULL;
    if (!lacks) return json_string("");
    return json_sprintf("%s%s%s", hs_status_names[lacks->status], *lacks->reason ? ": " : "", lacks->reason);
}

/* One pair as a row. */
static void set_row(hs_table *t, size_t row, const hs_pair *p, const json_t *axes)
{
    size_t i;
    json_t *axis;
    int same = strcmp(p->a->label, p->b->label) == 0;
    json_t *label_a = hs_json_text(p->a->label), *label_b = hs_json_text(p->b->label);
    set(t, row, "variant", same ? json_incref(label_a) : json_sprintf("%s → %s", json_string_value(label_a), json_string_value(label_b)));
    json_decref(label_a);
    json_decref(label_b);
    json_array_foreach(axes, i, axis) {
        json_t *v = json_object_get(p->a->at, json_string_value(axis));
        set(t, row, short_name(json_string_value(axis)), v ? json_incref(v) : json_null());
    }
    set(t, row, "A", number(p->median_a));
    set(t, row, "B", number(p->median_b));
    set(t, row, "B/A", number(p->ratio.mean));
    set(t, row, "low", number(p->ratio.low));
    set(t, row, "high", number(p->ratio.high));
    set(t, row, "p", number(p->p));
    set(t, row, "n_A", json_integer((json_int_t)p->na));
    set(t, row, "n_B", json_integer((json_int_t)p->nb));
    set(t, row, "verdict", json_string(hs_verdict_names[p->verdict]));
    set(t, row, "note", note_of(p));
}

/* All pairs. */
static hs_table *table_of(const hs_comparison *c, const hs_side *a)
{
    hs_table *t = hs_table_new();
    json_t *axes = hs_side_axes(a);
    for (size_t i = 0; t && i < c->npairs; i++) set_row(t, i, &c->pair[i], axes);
    json_decref(axes);
    return t;
}

/* ---- what it comes to ------------------------------------------------------------------------------------------- */
/* A value of a coordinate for the eye. */
static void print_value(FILE *out, const json_t *v)
{
    char *text = json_is_string(v) ? strdup(json_string_value(v)) : json_is_null(v) ? strdup("none")
               : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    fputs(text ? text : "", out);
    free(text);
}

/* Counts, what was compared, what had no partner. */
static void print_summary(FILE *out, const hs_comparison *c, const compare_options *o)
{
    const char *comma = "", *name;
    json_t *pair;
    for (int v = 0; v < HS_VERDICTS; v++)
        if (c->count[v]) {
            fprintf(out, "%s%zu %s", comma, c->count[v], hs_verdict_names[v]);
            comma = ", ";
        }
    fprintf(out, " (%s, A %s, B %s, threshold %g %%)\n", c->metric, o->a, o->b, 100 * c->threshold);
    json_object_foreach(c->compared, name, pair) {
        fprintf(out, "compared: %s ", name);
        print_value(out, json_array_get(pair, 0));
        fputs(" → ", out);
        print_value(out, json_array_get(pair, 1));
        fputc('\n', out);
    }
    if (c->alone_a || c->alone_b) fprintf(out, "no partner: %zu of A, %zu of B\n", c->alone_a, c->alone_b);
    if (c->unanswered) fprintf(out, "without %s on either side: %zu\n", c->metric, c->unanswered);
}

/* The same and the pairs as one object. */
static void print_json(const hs_comparison *c, const compare_options *o, const hs_table *t)
{
    json_t *count = json_object(), *rows = hs_table_json(t);
    for (int v = 0; v < HS_VERDICTS; v++) json_object_set_new(count, hs_verdict_names[v], json_integer((json_int_t)c->count[v]));
    json_t *all = json_pack("{s:s, s:s, s:s, s:f, s:o, s:O, s:I, s:I, s:I, s:o}", "a", o->a, "b", o->b, "metric", c->metric, "threshold",
                            c->threshold, "count", count, "compared", c->compared, "no_partner_a", (json_int_t)c->alone_a,
                            "no_partner_b", (json_int_t)c->alone_b, "without_metric", (json_int_t)c->unanswered, "pairs", rows);
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

/* Prints the comparison; the exit code. */
static int report(const hs_comparison *c, const compare_options *o, const hs_side *a)
{
    hs_table *t = table_of(c, a);
    if (o->format == HS_JSON) print_json(c, o, t);
    else {
        hs_table_write(t, o->format, stdout);
        if (o->format == HS_MARKDOWN) putchar('\n');
        fflush(stdout);
        print_summary(o->format == HS_TEXT || o->format == HS_MARKDOWN ? stdout : stderr, c, o);
    }
    hs_table_free(t);
    return c->count[HS_SLOWER] || c->count[HS_LOST] ? HS_EXIT_FAILED : HS_EXIT_OK;
}

/* Says why nothing is compared; the exit code. */
static int refuse(const char *why, int code)
{
    fprintf(stderr, "harness: %s\n", why);
    return code;
}

int cmd_compare(int argc, char **argv)
{
    compare_options o;
    hs_side a = { 0 }, b = { 0 };
    hs_comparison c = { 0 };
    char why[1024] = "", refusal[1200];
    int rc = parse(&o, argc, argv);
    if (rc >= 0) return rc;
    if (hs_side_open(&a, o.a, o.db, why, sizeof why) != 0 || hs_side_open(&b, o.b, o.db, why, sizeof why) != 0)
        rc = refuse(why, HS_EXIT_STORE);
    else if (hs_compare(&c, &a, &b, o.metric, o.threshold, why, sizeof why) != 0) rc = refuse(why, HS_EXIT_EMPTY);
    else if (hs_compare_machines(&c, &a, &b, why, sizeof why) && !o.across) {
        snprintf(refusal, sizeof refusal, "%s; --across-machines compares them all the same", why);
        rc = refuse(refusal, HS_EXIT_DEVICE);
    } else rc = report(&c, &o, &a);
    hs_comparison_release(&c);
    hs_side_release(&a);
    hs_side_release(&b);
    return rc;
}
