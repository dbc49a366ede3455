/* plan_axes.c - values of options: one, a list, or a range; checked once, where they are written. */
#include "plan_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups ------------------------------------------------------------------------------------------------ */
/* Adds every option of a table with its default. */
static int add_defaults(json_t *fixed, const attn_opt *table)
{
    json_t *rows = hs_opts_describe(table), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        json_object_set(fixed, json_string_value(json_object_get(row, "name")), json_object_get(row, "default"));
    }
    json_decref(rows);
    return 0;
}

/* See plan_internal.h. */
int plan_group_init(plan_group *g, const attn_opt *own, const attn_opt *common)
{
    *g = (plan_group){ .table = { own, common }, .fixed = json_object() };
    return add_defaults(g->fixed, common) || add_defaults(g->fixed, own);
}

/* A copy whose values can be replaced without touching the original. */
int plan_group_copy(plan_group *to, const plan_group *from)
{
    *to = (plan_group){ .table = { from->table[0], from->table[1] }, .fixed = json_copy(from->fixed) };
    to->axis = calloc(from->naxes + 1, sizeof *to->axis);
    if (!to->axis) return -1;
    for (; to->naxes < from->naxes; to->naxes++) {
        const plan_axis *a = &from->axis[to->naxes];
        to->axis[to->naxes] = (plan_axis){ strdup(a->name), json_incref(a->values) };
    }
    return 0;
}

/* Frees values and axes. */
void plan_group_release(plan_group *g)
{
    for (size_t i = 0; i < g->naxes; i++) {
        free(g->axis[i].name);
        json_decref(g->axis[i].values);
    }
    free(g->axis);
    json_decref(g->fixed);
    *g = (plan_group){ 0 };
}

/* The option of that name in either table. */
const attn_opt *plan_group_find(const plan_group *g, const char *name)
{
    const attn_opt *o = hs_opts_find(g->table[0], name);
    return o ? o : hs_opts_find(g->table[1], name);
}

/* See plan_internal.h. */
size_t plan_group_points(const plan_group *g)
{
    size_t n = 1;
    for (size_t i = 0; i < g->naxes && n <= MAX_CELLS; i++) n *= json_array_size(g->axis[i].values);
    return n <= MAX_CELLS ? n : MAX_CELLS + 1;
}

/* ---- values --------------------------------------------------------------------------------------------------- */
/* Appends a value in canonical form; o NULL: as it is.  -1 with the error told at node. */
static int add_value(const attn_opt *o, json_t *values, json_t *value, hs_node *node, hs_errors *e)
{
    char why[512];
    json_t *canonical = o ? hs_opt_canonical(o, value, why, sizeof why) : json_incref(value);
    json_decref(value);
    if (!canonical) {
        hs_errors_add(e, node, "%s", why);
        return -1;
    }
    json_array_append_new(values, canonical);
    return 0;
}

/* A number of a range, "from" say; -1 with the error told. */
static int range_number(hs_node *range, const char *key, double *out, hs_errors *e)
{
    hs_node *n = hs_node_get(range, key);
    json_t *v = n && n->kind == HS_SCALAR ? hs_node_json(n) : NULL;
    int ok = json_is_number(v);
    *out = json_number_value(v);
    json_decref(v);
    if (!n) hs_errors_add(e, range, "a range needs '%s': {from: 20, to: 600, step: 20} or {from: 64, to: 4096, times: 2}", key);
    else if (!ok) hs_errors_add(e, n, "'%s' of a range must be a number", key);
    return ok ? 0 : -1;
}

/* The i-th value of a range.  15 digits, so that 0.1 + 2 * 0.1 is 0.3; integral values as integers. */
static json_t *range_value(double from, double step, int times, size_t i)
{
    char text[32];
    double x = times ? from * pow(step, (double)i) : from + step * (double)i;
    snprintf(text, sizeof text, "%.15g", x);
    x = strtod(text, NULL);
    return x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

/* The number of values from..to, `to` among them when it is hit up to rounding; 0: too many. */
static size_t range_count(double from, double to, double step, int times)
{
    double n = times ? log(to / from) / log(step) : (to - from) / step;
    return n < MAX_CELLS ? (size_t)floor(n + 1e-9) + 1 : 0;
}

/* {from, to, step | times} as values; -1 with the error told. */
static int add_range(const attn_opt *o, json_t *values, hs_node *range, hs_errors *e)
{
    static const char *const keys[] = { "from", "to", "step", "times" };
    double from, to, by;
    int times = hs_node_get(range, "times") != NULL;
    size_t before = e->n;
    hs_node_known(range, "a range", keys, 4, e);
    if (e->n > before) return -1;
    if (o && o->type != ATTN_INT && o->type != ATTN_FLOAT)
        return hs_errors_add(e, range, "%s takes no range: it is not a number", o->name), -1;
    if (times && hs_node_get(range, "step")) return hs_errors_add(e, range, "a range has 'step' or 'times', not both"), -1;
    if (range_number(range, "from", &from, e) || range_number(range, "to", &to, e)) return -1;
    if (range_number(range, times ? "times" : "step", &by, e)) return -1;
    hs_node *by_node = hs_node_get(range, times ? "times" : "step");
    if (from > to) hs_errors_add(e, hs_node_get(range, "from"), "'from' (%.15g) must not be above 'to' (%.15g)", from, to);
    else if (times && from <= 0) hs_errors_add(e, hs_node_get(range, "from"), "'from' must be > 0 in a range with 'times'");
    else if (times && by <= 1) hs_errors_add(e, by_node, "'times' must be > 1, not %.15g", by);
    else if (!times && by <= 0) hs_errors_add(e, by_node, "'step' must be > 0, not %.15g", by);
    else if (!range_count(from, to, by, times)) hs_errors_add(e, range, "a range of more than %d values", MAX_CELLS);
    else {
        size_t n = range_count(from, to, by, times);
        for (size_t i = 0; i < n; i++)
            if (add_value(o, values, range_value(from, by, times, i), range, e)) return -1;
        return 0;
    }
    return -1;
}

/* The items of a list as values; none twice. */
static int add_list(const attn_opt *o, const char *name, json_t *values, hs_node *list, hs_errors *e)
{
    json_t *seen = json_object();
    int rc = 0;
    if (!list->n) hs_errors_add(e, list, "%s has an empty list: at least one value is expected", name), rc = -1;
    for (size_t i = 0; i < list->n; i++) {
        hs_node *item = list->item[i];
        if (item->kind == HS_MAP) hs_errors_add(e, item, "a list of %s holds values, not maps", name), rc = -1;
        else if (add_value(o, values, hs_node_json(item), item, e)) rc = -1;
        else {
            json_t *last = json_array_get(values, json_array_size(values) - 1);
            char *text = json_dumps(last, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
            if (json_object_get(seen, text)) hs_errors_add(e, item, "%s has the value %s twice", name, text), rc = -1;
            json_object_set_new(seen, text, json_true());
            free(text);
        }
    }
    json_decref(seen);
    return rc;
}

/* A list is one value of an integer-list option, unless it is a list of lists. */
static int is_axis(const attn_opt *o, const hs_node *n)
{
    if (n->kind == HS_MAP) return 1;
    if (n->kind == HS_SCALAR) return 0;
    return !(o && o->type == ATTN_INTS) || (n->n && n->item[0]->kind == HS_LIST);
}

/* Makes values (taken) the axis `name`, in the place of an earlier one of that name. */
static void put_axis(plan_group *g, const char *name, json_t *values)
{
    for (size_t i = 0; i < g->naxes; i++)
        if (!strcmp(g->axis[i].name, name)) {
            json_decref(g->axis[i].values);
            g->axis[i].values = values;
            return;
        }
    plan_axis *more = realloc(g->axis, (g->naxes + 1) * sizeof *more);
    if (!more) return;
    g->axis = more;
    g->axis[g->naxes++] = (plan_axis){ strdup(name), values };
}

/* Makes `name` fixed: a later single value ends an earlier axis. */
static void put_fixed(plan_group *g, const char *name, json_t *value)
{
    json_object_set(g->fixed, name, value);
    for (size_t i = 0; i < g->naxes; i++) {
        if (strcmp(g->axis[i].name, name)) continue;
        free(g->axis[i].name);
        json_decref(g->axis[i].values);
        memmove(&g->axis[i], &g->axis[i + 1], (--g->naxes - i) * sizeof *g->axis);
        return;
    }
}

/* See plan_internal.h. */
void plan_group_set(plan_group *g, const char *name, hs_node *value, hs_errors *e)
{
    const attn_opt *o = plan_group_find(g, name);
    json_t *values = json_array();
    int axis = is_axis(o, value), rc;
    if (hs_node_is_null(value)) hs_errors_add(e, value, "%s has no value", name), rc = -1;
    else if (!axis) rc = add_value(o, values, hs_node_json(value), value, e);
    else if (value->kind == HS_MAP) rc = add_range(o, values, value, e);
    else rc = add_list(o, name, values, value, e);
    if (rc) json_decref(values);
    else if (axis) put_axis(g, name, values);
    else {
        put_fixed(g, name, json_array_get(values, 0));
        json_decref(values);
    }
}

/* ---- maps of options ------------------------------------------------------------------------------------------ */
/* Does some option's name begin with "name."? */
static int is_prefix(const plan_group *g, const char *name)
{
    size_t n = strlen(name);
    for (int t = 0; t < 2; t++)
        for (const attn_opt *o = g->table[t]; o && o->name; o++)
            if (!strncmp(o->name, name, n) && o->name[n] == '.') return 1;
    return 0;
}

/* The sentence for a name that is in neither table. */
static void refuse_unknown(const plan_group *g, hs_node *key, const char *name, const char *what, hs_errors *e)
{
    const char *names[512];
    size_t n = 0;
    for (int t = 0; t < 2; t++)
        for (const attn_opt *o = g->table[t]; o && o->name && n < 512; o++) names[n++] = o->name;
    const char *near = hs_nearest(name, names, n);
    hs_errors_add(e, key, "%s has no option '%s'%s%s%s", what, name, near ? "; did you mean '" : "", near ? near : "",
                  near ? "'?" : "");
}

/* What the reading of one map of options carries along. */
typedef struct reading {
    plan_group *g;
    const char *what;                   /* "variant linear" */
    json_t *seen;                       /* names so far: stop: {loss: 1} and stop.loss: 1 are the same */
    hs_errors *e;
} reading;

/* Reads the entries of a map whose names begin with prefix. */
static void read_map(const reading *r, hs_node *map, const char *prefix, const char *const *skip)
{
    for (size_t i = 0; i < map->n; i++) {
        char name[256];
        hs_node *key = map->key[i], *value = map->item[i];
        int skipped = 0, untyped = !r->g->table[0] && !r->g->table[1];
        for (size_t j = 0; skip && skip[j]; j++) skipped |= !strcmp(key->text, skip[j]);
        if (skipped) continue;
        snprintf(name, sizeof name, "%s%s", prefix, key->text);
        if (json_object_get(r->seen, name)) hs_errors_add(r->e, key, "'%s' of %s is given twice", name, r->what);
        else if (untyped || plan_group_find(r->g, name)) plan_group_set(r->g, name, value, r->e);
        else if (value->kind == HS_MAP && is_prefix(r->g, name)) {
            strncat(name, ".", sizeof name - strlen(name) - 1);
            read_map(r, value, name, NULL);
        }
        else if (is_prefix(r->g, name)) hs_errors_add(r->e, value, "'%s' of %s is a map of options", name, r->what);
        else refuse_unknown(r->g, key, name, r->what, r->e);
        json_object_set_new(r->seen, name, json_true());
    }
}

/* See plan_internal.h. */
void plan_group_read(plan_group *g, hs_node *map, const char *what, const char *const *skip, hs_errors *e)
{
    reading r = { g, what, json_object(), e };
    if (map->kind == HS_MAP) read_map(&r, map, "", skip);
    else if (!hs_node_is_null(map)) hs_errors_add(e, map, "%s: a map of options is expected", what);
    json_decref(r.seen);
}
