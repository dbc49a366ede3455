/* compare.c - pairs, samples and verdicts. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "compare.h"
#include "sql.h"

const char *const hs_verdict_names[HS_VERDICTS] = { "SAME", "FASTER", "SLOWER", "LESS", "MORE", "AMBIGUOUS", "LOST", "GAINED" };
static const double significant = 0.002;

/* ---- coordinates ------------------------------------------------------------------------------------------------- */
/* {coordinate: its value}, an array of none where it differs among the cells; a coordinate that some cells lack differs. */
static json_t *common(const hs_side *s)
{
    json_t *all = json_object(), *v, *seen;
    const char *name;
    for (size_t i = 0; i < s->ncells; i++) {
        json_object_foreach(s->cell[i].at, name, v) {
            seen = json_object_get(all, name);
            if (!seen && i == 0) json_object_set(all, name, v);
            else if (!seen || !json_equal(seen, v)) json_object_set_new(all, name, json_array());
        }
        json_object_foreach(all, name, v) {
            if (!json_object_get(s->cell[i].at, name)) json_object_set_new(all, name, json_array());
        }
    }
    return all;
}

/* Whether a coordinate in common() differs among the cells; lists of a variant's options are arrays too, but not empty. */
static int differs(const json_t *v)
{
    return json_is_array(v) && json_array_size(v) == 0;
}

/* {coordinate: [in a, in b]}: what all of a have, and all of b have otherwise. */
static json_t *compared_coordinates(const hs_side *a, const hs_side *b)
{
    json_t *in_a = common(a), *in_b = common(b), *out = json_object(), *v;
    const char *name;
    json_object_foreach(in_a, name, v) {
        json_t *w = json_object_get(in_b, name);
        if (!differs(v) && !differs(w) && (!w || !json_equal(v, w)) && strcmp(name, "seed") != 0)
            json_object_set_new(out, name, json_pack("[O, o]", v, w ? json_incref(w) : json_null()));
    }
    json_object_foreach(in_b, name, v) {
        if (!differs(v) && !json_object_get(in_a, name)) json_object_set_new(out, name, json_pack("[n, O]", v));
    }
    json_decref(in_a);
    json_decref(in_b);
    return out;
}

json_t *hs_side_axes(const hs_side *s)
{
    json_t *all = common(s), *axes = json_array(), *v;
    const char *name;
    json_object_foreach(all, name, v) {
        if (differs(v) && strncmp(name, "variant.", 8) != 0 && strcmp(name, "seed") != 0) json_array_append_new(axes, json_string(name));
    }
    json_decref(all);
    return axes;
}

/* The question that a cell answers, as text; the caller frees. */
static char *question(const hs_side_cell *c, const json_t *compared)
{
    json_t *at = json_copy(c->at), *ignored;
    const char *name;
    json_object_foreach((json_t *)compared, name, ignored) {
        json_object_del(at, name);
    }
    json_object_del(at, "seed");
    char *text = json_dumps(at, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(at);
    return text;
}

/* {question: {seed: number of the cell}}; of two answers to one question the later stays. */
static json_t *questions(const hs_side *s, const json_t *compared)
{
    json_t *all = json_object();
    for (size_t i = 0; i < s->ncells; i++) {
        char *text = question(&s->cell[i], compared), seed[32];
        json_t *seeds = json_object_get(all, text);
        if (!seeds) json_object_set_new(all, text, seeds = json_object());
        snprintf(seed, sizeof seed, "%lld", (long long)json_integer_value(json_object_get(s->cell[i].at, "seed")));
        json_object_set_new(seeds, seed, json_integer((json_int_t)i));
        free(text);
    }
    return all;
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */
typedef struct samples { double *x; size_t n; } samples;

/* The numbers of a metric of the cells of one question. */
static samples samples_of(const hs_side *s, const json_t *seeds, const char *metric)
{
    int all = strncmp(metric, "sample_", 7) == 0;
    samples r = { 0 };
    const char *seed;
    json_t *index;
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s->store), "SELECT value FROM v_metrics WHERE cell_key=? AND metric=? "
                                   "AND value IS NOT NULL ORDER BY step DESC LIMIT ?", "");
    json_object_foreach((json_t *)seeds, seed, index) {
        const hs_side_cell *c = &s->cell[json_integer_value(index)];
        if (!row || c->status != HS_DONE) continue;
        hs_sql_bind(row, "tti", c->key, metric, (sqlite3_int64)(all ? -1 : 1));
        while (sqlite3_step(row) == SQLITE_ROW) {
            double *grown = realloc(r.x, (r.n + 1) * sizeof *grown);
            if (!grown) abort();
            r.x = grown;
            r.x[r.n++] = sqlite3_column_double(row, 0);
        }
    }
    sqlite3_finalize(row);
    return r;
}

/* The metric's unit, "" when no cell of the side has the metric; the caller frees. */
static char *unit_of(const hs_side *s, const char *metric)
{
    char *unit = NULL;
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s->store), "SELECT unit FROM v_metrics WHERE cell_key=? AND metric=? LIMIT 1", "");
    for (size_t i = 0; row && !unit && i < s->ncells; i++) {
        hs_sql_bind(row, "tt", s->cell[i].key, metric);
        if (sqlite3_step(row) == SQLITE_ROW) unit = strdup(hs_sql_text(row, 0));
    }
    sqlite3_finalize(row);
    return unit ? unit : strdup("");
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */
/* What the samples of both sides say. */
static enum hs_verdict judge(const hs_comparison *c, const hs_pair *p)
{
    double t = 1 + c->threshold;
    int positive = p->median_a > 0 && p->median_b > 0;
    int same = positive ? p->ratio.low >= 1 / t && p->ratio.high <= t : p->median_a == p->median_b && p->p >= significant;
    int up = positive ? p->ratio.mean > t : p->median_b > p->median_a, down = positive ? p->ratio.mean < 1 / t : p->median_b < p->median_a;
    if (same) return HS_SAME;
    if (p->p < significant && up) return c->is_time ? HS_SLOWER : HS_MORE;
    if (p->p < significant && down) return c->is_time ? HS_FASTER : HS_LESS;
    return HS_AMBIGUOUS;
}

/* Compares one question that both sides ask. */
static void add_pair(hs_comparison *c, const hs_side *a, const hs_side *b, const json_t *seeds_a, const json_t *seeds_b)
{
    samples x = samples_of(a, seeds_a, c->metric), y = samples_of(b, seeds_b, c->metric);
    const json_t *first_a = json_object_iter_value(json_object_iter((json_t *)seeds_a)),
                 *first_b = json_object_iter_value(json_object_iter((json_t *)seeds_b));
    hs_pair *p = &c->pair[c->npairs];
    *p = (hs_pair){ .a = &a->cell[json_integer_value(first_a)], .b = &b->cell[json_integer_value(first_b)],
                    .median_a = hs_median(x.x, x.n), .median_b = hs_median(y.x, y.n), .na = x.n, .nb = y.n, .p = NAN,
                    .ratio = { NAN, NAN, NAN, 0 }, .verdict = x.n ? HS_LOST : HS_GAINED };
    if (x.n && y.n) {
        p->p = hs_mann_whitney(x.x, x.n, y.x, y.n);
        if (p->median_a > 0) p->ratio = hs_median_ratio(x.x, x.n, y.x, y.n);
        p->verdict = judge(c, p);
    }
    if (x.n + y.n == 0) c->unanswered++;
    else c->count[c->pair[c->npairs++].verdict]++;
    free(x.x);
    free(y.x);
}

int hs_compare(hs_comparison *c, const hs_side *a, const hs_side *b, const char *metric, double threshold, char *why, size_t nwhy)
{
    char *unit = unit_of(a, metric ? metric : "sample_seconds");
    if (!metric) metric = *unit ? "sample_seconds" : "seconds";
    free(unit);
    unit = unit_of(a, metric);
    *c = (hs_comparison){ .metric = metric, .is_time = strcmp(unit, "s") == 0, .threshold = threshold,
                          .compared = compared_coordinates(a, b), .pair = calloc(a->ncells + 1, sizeof *c->pair) };
    free(unit);
    json_t *of_a = questions(a, c->compared), *of_b = questions(b, c->compared), *seeds;
    const char *text;
    json_object_foreach(of_a, text, seeds) {
        const json_t *partner = json_object_get(of_b, text);
        if (!partner) c->alone_a++;
        else if (c->pair) add_pair(c, a, b, seeds, partner);
    }
    c->alone_b = json_object_size(of_b) - (json_object_size(of_a) - c->alone_a);
    json_decref(of_a);
    json_decref(of_b);
    if (c->npairs) return 0;
    if (c->unanswered) snprintf(why, nwhy, "%zu cells are in both, and none has the metric %s", c->unanswered, metric);
    else snprintf(why, nwhy, "%s and %s have no cell in common", a->name, b->name);
    return -1;
}

void hs_comparison_release(hs_comparison *c)
{
    json_decref(c->compared);
    free(c->pair);
    *c = (hs_comparison){ 0 };
}

/* ---- machines ---------------------------------------------------------------------------------------------------- */
/* The environment of a row, NULL when it was not recorded. */
static json_t *environment(const hs_side *s, sqlite3_int64 id)
{
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s->store), "SELECT text FROM env WHERE id=?", "i", id);
    json_t *env = row && sqlite3_step(row) == SQLITE_ROW ? json_loads(hs_sql_text(row, 0), 0, NULL) : NULL;
    sqlite3_finalize(row);
    return env;
}

/* A value in a sentence; the caller frees. */
static char *said(const json_t *v)
{
    if (!v || json_is_null(v)) return strdup("none");
    return json_is_string(v) ? strdup(json_string_value(v)) : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
}

/* Whether two environments agree on one thing; else a sentence. */
static int is_like(const json_t *a, const json_t *b, const char *what, char *why, size_t nwhy)
{
    char *x = said(a), *y = said(b);
    int like = strcmp(x, y) == 0;
    if (!like) snprintf(why, nwhy, "the machines differ in %s: %s and %s", what, x, y);
    free(x);
    free(y);
    return like;
}

/* What times depend on: the names of `harness env --json`, every entry of the GPU's. */
static int differ(const json_t *a, const json_t *b, char *why, size_t nwhy)
{
    static const char *const names[] = { "cpu", "cores", "governor", "blas", "compiler", "flags", "threads" };
    const json_t *x = json_object_get(a, "gpu"), *y = json_object_get(b, "gpu");
    const char *name;
    char what[128];
    json_t *v;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!is_like(json_object_get(a, names[i]), json_object_get(b, names[i]), names[i], why, nwhy)) return 1;
    if (!json_is_object(x) && !json_is_object(y)) return 0;     /* neither has one, for whatever reason */
    if (!json_is_object(x) || !json_is_object(y)) return !is_like(x, y, "gpu", why, nwhy);
    json_object_foreach((json_t *)x, name, v) {
        snprintf(what, sizeof what, "gpu %s", name);
        if (!is_like(v, json_object_get(y, name), what, why, nwhy)) return 1;
    }
    return 0;
}

int hs_compare_machines(const hs_comparison *c, const hs_side *a, const hs_side *b, char *why, size_t nwhy)
{
    sqlite3_int64 seen_a = -1, seen_b = -1;
    int unlike = 0;
    for (size_t i = 0; !unlike && i < c->npairs; i++) {
        const hs_pair *p = &c->pair[i];
        if (p->a->env == seen_a && p->b->env == seen_b) continue;
        json_t *x = environment(a, seen_a = p->a->env), *y = environment(b, seen_b = p->b->env);
        if (x && y) unlike = differ(x, y, why, nwhy);
        else if (x || y) {
            snprintf(why, nwhy, "%s does not say on which machine it was computed", x ? b->name : a->name);
            unlike = 1;
        }
        json_decref(x);
        json_decref(y);
    }
    return unlike;
}
