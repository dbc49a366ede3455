/* plan_cells.c - the sweep multiplied out: every combination of a series, the task, the model, the training and a seed.
 *
 * Variants are outermost and seeds innermost, so that a worker serves the cells of one plug-in one after another.
 * The canonical text of a cell is put together from the texts of its parts, which many cells share: a sweep of
 * 10,000 cells is two hashes and two small objects per cell. */
#define _GNU_SOURCE
#include "gpu.h"
#include "plan_internal.h"
#include "../tasks/data/tokens.h"
#include <math.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One combination of a group's axes. */
typedef struct point {
    json_t *part, *options, *swept;     /* for the doc; all values; those of the axes, in their order */
    char *text, *ident;                 /* canonical text of part, with and without its digest */
    json_t *data;                       /* the digest of the data set that a task reads, or null; of the model that a training begins with */
    json_t *init;                       /* of a training: the path of that model, NULL: none */
    json_t *others;                     /* of a task: {name: path} of the variants beside that of the cell, NULL: none */
} point;
typedef struct points { point *at; size_t n; } points;
typedef struct corner { const point *variant, *task, *model, *train, *seed; } corner;     /* one combination of them */

/* What the loops carry. */
typedef struct expansion {
    plan_file *f;
    hs_plan *plan;
    const plan_series *series;
    const char *device;
    size_t room;
    points tasks, seeds, variants, models, trains;
    json_t *ladders;                    /* coordinates without stop_longer, as text: the number of their ladder */
} expansion;

/* Canonical text: sorted keys, no blanks, 17 digits. */
static char *canonical(const json_t *j)
{
    return json_dumps(j, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

/* ---- points --------------------------------------------------------------------------------------------------- */
/* Combination number i of the axes; the last axis runs fastest. */
static point point_at(const plan_group *g, size_t i)
{
    point p = { .options = json_copy(g->fixed), .swept = json_object() };
    size_t stride = 1;
    for (size_t a = 0; a < g->naxes; a++) stride *= json_array_size(g->axis[a].values);
    for (size_t a = 0; a < g->naxes; a++) {
        size_t n = json_array_size(g->axis[a].values);
        stride /= n;
        json_t *v = json_array_get(g->axis[a].values, i / stride % n);
        json_object_set(p.options, g->axis[a].name, v);
        json_object_set(p.swept, g->axis[a].name, v);
    }
    return p;
}

/* The canonical texts of a point.  NULL name: the part is the options themselves, which have no digest. */
static void describe_point(point *p, const char *name, const char *impl, int has_impl, const json_t *digest)
{
    if (!name) {
        p->part = json_incref(p->options);
        p->text = canonical(p->part);
        p->ident = strdup(p->text);
        return;
    }
    p->part = json_pack("{s:s, s:O}", "name", name, "options", p->options);
    if (has_impl) json_object_set_new(p->part, "impl", impl ? json_string(impl) : json_null());
    p->ident = canonical(p->part);
    json_object_set(p->part, "digest", (json_t *)digest);
    p->text = canonical(p->part);
}

/* Every combination of a group, named as its part of the doc is. */
static points points_of(const plan_group *g, const char *name, const char *impl, int has_impl, const char *digest)
{
    points all = { calloc(plan_group_points(g), sizeof *all.at), 0 };
    json_t *d = digest ? json_string(digest) : json_null();
    for (; all.at && all.n < plan_group_points(g); all.n++) {
        all.at[all.n] = point_at(g, all.n);
        describe_point(&all.at[all.n], name, impl, has_impl, d);
    }
    json_decref(d);
    return all;
}

/* Frees them. */
static void points_release(points *p)
{
    for (size_t i = 0; i < p->n; i++) {
        json_decref(p->at[i].part);
        json_decref(p->at[i].options);
        json_decref(p->at[i].swept);
        json_decref(p->at[i].data);
        json_decref(p->at[i].others);
        json_decref(p->at[i].init);
        free(p->at[i].text);
        free(p->at[i].ident);
    }
    free(p->at);
    *p = (points){ 0 };
}

/* The digest of a prepared set, opened once however many cells read it; null, with the reason in the plan, where it is not
 * at hand. */
static json_t *digest_of(hs_plan *plan, json_t *known, const char *name)
{
    data_tokens set;
    char why[512];
    json_t *digest = json_object_get(known, name);
    if (digest) return json_incref(digest);
    if (!data_open(name, &set, why, sizeof why)) {
        digest = json_string(set.digest);
        data_close(&set);
    } else {
        if (!plan->no_data) plan->no_data = strdup(why);
        digest = json_null();
    }
    json_object_set(known, name, digest);
    return digest;
}

/* What the points of the task read: the option that names a data set says it. */
static void find_data(const plan_file *f, hs_plan *plan, points *tasks)
{
    json_t *known = json_object();
    const attn_opt *o = f->task_table;
    while (o && o->name && !(o->flags & ATTN_DATA_SET)) o++;
    for (size_t i = 0; i < tasks->n; i++) {
        const char *name = o && o->name ? json_string_value(json_object_get(tasks->at[i].options, o->name)) : NULL;
        tasks->at[i].data = name && *name ? digest_of(plan, known, name) : json_null();
    }
    json_decref(known);
}

/* The kept models that the points of a training begin with. */
static void find_init(const plan_file *f, points *trains)
{
    for (size_t i = 0; i < trains->n; i++) {
        point *p = &trains->at[i];
        const char *said = json_string_value(json_object_get(p->options, "init"));
        char digest[65];
        char *path = said && *said ? plan_init_path(f, said, digest) : NULL;
        if (path) {
            p->init = json_string(path);
            p->data = json_string(digest);
        }
        free(path);
    }
}

/* Notes the first cell whose model to begin with is not there. */
static void miss_init(hs_plan *plan, const point *train)
{
    const char *said = json_string_value(json_object_get(train->options, "init"));
    if (said && *said && !train->init && !plan->no_data &&
        asprintf(&plan->no_data, "train.init: there is no kept model '%s' yet: train what says train.keep first", said) < 0)
        plan->no_data = NULL;
}

/* The variants beside that of the cell which the options of a task name: their digests are part of its description.  -1 with
 * the error told. */
static int find_others(plan_file *f, points *tasks)
{
    hs_node *said = hs_node_get(f->root, "task");
    for (size_t i = 0; i < tasks->n; i++) {
        point *p = &tasks->at[i];
        json_t *digests = json_object();
        for (const attn_opt *o = f->task_table; o && o->name; o++) {
            const char *name = o->flags & ATTN_OTHER_VARIANT ? json_string_value(json_object_get(p->options, o->name)) : NULL;
            if (!name || !strcmp(name, o->choices)) continue;
            const json_t *v = hs_catalog_variant(f->catalog, name);
            if (!v) {
                plan_refuse_variant(f, hs_node_get(said, o->name), name);
                json_decref(digests);
                return -1;
            }
            if (!p->others) p->others = json_object();
            json_object_set(digests, name, json_object_get(v, "digest"));
            json_object_set(p->others, name, json_object_get(v, "path"));
        }
        if (p->others) {
            json_object_set(p->part, "variants", digests);
            free(p->text);
            p->text = canonical(p->part);
        }
        json_decref(digests);
    }
    return 0;
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */
/* A value as a label shows it: 0.001, true, dpfp, 8,16. */
static void print_value(FILE *out, const json_t *v)
{
    size_t i;
    json_t *one;
    if (json_is_string(v)) fputs(json_string_value(v), out);
    else if (json_is_boolean(v)) fputs(json_is_true(v) ? "true" : "false", out);
    else if (json_is_number(v)) fprintf(out, "%.15g", json_number_value(v));
    json_array_foreach(v, i, one) {
        if (i) fputc(',', out);
        print_value(out, one);
    }
}

/* "DPFP-{nu}" with the values of this cell. */
static void print_template(FILE *out, const char *template, const corner *k)
{
    for (const char *p = template; *p; p++) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        if (!end) { fputc(*p, out); continue; }
        char *name = strndup(p + 1, (size_t)(end - p - 1));
        const json_t *value = json_object_get(k->variant->options, name);
        if (!value) value = json_object_get(k->task->options, name);
        if (!value) value = json_object_get(k->model->options, name);
        if (!value) value = json_object_get(k->train->options, name);
        print_value(out, value);
        free(name);
        p = end;
    }
}

/* The label of a cell: the template, or the name with the options that the series sweeps. */
static char *make_label(const plan_series *s, const corner *k)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    if (s->label) print_template(out, s->label, k);
    else fputs(s->name, out);
    for (size_t i = 0; !s->label && i < s->options.naxes; i++) {
        const plan_axis *a = &s->options.axis[i];
        if (json_array_size(a->values) < 2) continue;
        fprintf(out, " %s=", a->name);
        print_value(out, json_object_get(k->variant->swept, a->name));
    }
    fclose(out);
    return text;
}

/* ---- axes and --only ------------------------------------------------------------------------------------------ */
/* Adds coordinates; a name that is taken (a task and a variant may both have `window`) gets its section in front. */
static void add_coordinates(json_t *axes, const json_t *swept, const char *section)
{
    const char *name;
    char full[192];
    json_t *v;
    json_object_foreach((json_t *)swept, name, v) {
        int taken = json_object_get(axes, name) || !strcmp(name, "variant") || !strcmp(name, "seed");
        snprintf(full, sizeof full, "%s%s%s", taken ? section : "", taken ? "." : "", name);
        json_object_set(axes, full, v);
    }
}

/* Does a coordinate have the value that is written as text? */
static int value_is(const json_t *v, const char *text)
{
    char *shown = NULL;
    size_t size;
    json_t *typed = hs_scalar_json(text);
    int same = json_is_number(v) && json_is_number(typed) && json_number_value(v) == json_number_value(typed);
    json_decref(typed);
    if (same) return 1;
    FILE *out = open_memstream(&shown, &size);
    if (!out) return 0;
    print_value(out, v);
    fclose(out);
    same = !strcmp(shown, text);
    free(shown);
    return same;
}

/* One --only AXIS=A,B,C: any of the values will do; the whole text is tried too, for labels with commas. */
static int passes(const expansion *x, const json_t *axes, const char *only)
{
    const char *eq = strchr(only, '=');
    char *axis = strndup(only, (size_t)(eq - only)), *list = strdup(eq + 1), *rest = list, *one;
    int is_variant = !strcmp(axis, "variant"), ok;
    const json_t *v = json_object_get(axes, axis);
    ok = (v && value_is(v, list)) || (is_variant && !strcmp(x->series->name, list));
    while (!ok && (one = strsep(&rest, ","))) ok = (v && value_is(v, one)) || (is_variant && !strcmp(x->series->name, one));
    free(axis);
    free(list);
    return ok;
}

/* Every --only must name an axis of the sweep; -1 with the errors told. */
static int check_only(plan_file *f)
{
    const char *names[512] = { "variant", "seed" };
    size_t n = 2, bad = 0;
    for (size_t a = 0; a < f->task_options.naxes && n < 512; a++) names[n++] = f->task_options.axis[a].name;
    for (size_t s = 0; s < f->nseries; s++) {
        const plan_group *const groups[] = { &f->series[s].options, &f->series[s].model, &f->series[s].train };
        for (int g = 0; g < 3; g++)
            for (size_t a = 0; a < groups[g]->naxes && n < 512; a++) names[n++] = groups[g]->axis[a].name;
    }
    for (size_t i = 0; i < f->args->nonly; i++) {
        const char *only = f->args->only[i];
        char axis[192], origin[256];
        hs_node where = { .kind = HS_MAP, .origin = origin };
        size_t len = strcspn(only, "="), j = 0;
        snprintf(axis, sizeof axis, "%.*s", (int)len, only);
        snprintf(origin, sizeof origin, "--only %s", only);
        while (j < n && strcmp(names[j], axis)) j++;
        if (only[len] && j < n) continue;
        const char *near = hs_nearest(axis, names, n);
        bad++;
        if (!only[len]) hs_errors_add(&f->errors, &where, "AXIS=VALUE is expected, as in --only variant=linear");
        else hs_errors_add(&f->errors, &where, "this sweep has no axis '%s'%s%s%s", axis, near ? "; did you mean '" : "",
                           near ? near : "", near ? "'?" : "");
    }
    return bad ? -1 : 0;
}

/* ---- cells ----------------------------------------------------------------------------------------------------------- */
/* Key and ident from the texts of the parts; equal to the hash of canonical(doc), which a test holds it to. */
static int hash_cell(const expansion *x, hs_cell *c, const corner *k, json_int_t seed)
{
    char *text = NULL;
    const char *model = x->f->builds_model ? ",\"model\":" : "", *described = x->f->builds_model ? k->model->text : "";
    const char *data = json_string_value(k->task->data), *quote = data ? "\"" : "";
    const char *init = json_string_value(k->train->data);
    int n = asprintf(&text, "{\"data\":%s%s%s,\"device\":\"%s\",\"dtype\":\"%s\"%s%s%s%s%s,\"numerics\":%d,\"seed\":%lld,\"task\":%s,"
                     "\"train\":%s,\"variant\":%s}", quote, data ? data : "null", quote, x->device, x->f->dtype, init ? ",\"init\":\"" : "", init ? init : "",
                     init ? "\"" : "", model, described, HS_NUMERICS, (long long)seed, k->task->text, k->train->text, k->variant->text);
    if (n < 0) return -1;
    SHA256Data((const uint8_t *)text, (size_t)n, c->key);
    free(text);
    n = asprintf(&text, "{\"device\":\"%s\",\"dtype\":\"%s\"%s%s,\"seed\":%lld,\"task\":%s,\"train\":%s,\"variant\":%s}",
                 x->device, x->f->dtype, model, described, (long long)seed, k->task->ident, k->train->ident, k->variant->ident);
    if (n < 0) return -1;
    SHA256Data((const uint8_t *)text, (size_t)n, c->ident);
    free(text);
    return 0;
}

/* Places a cell on the ladder of those that differ from it in stop_longer alone. */
static void set_ladder(expansion *x, hs_cell *c)
{
    const char *option = x->plan->stop_longer;
    json_t *others = option ? json_copy(c->axes) : NULL;
    if (!others) return;
    c->rung = json_number_value(json_object_get(others, option));
    json_object_del(others, option);
    char *text = canonical(others);
    if (!json_object_get(x->ladders, text)) json_object_set_new(x->ladders, text, json_integer((json_int_t)x->plan->nladders++));
    c->ladder = (size_t)json_integer_value(json_object_get(x->ladders, text));
    free(text);
    json_decref(others);
}

/* Appends one cell, unless --only leaves it out. */
static int add_cell(expansion *x, const corner *k)
{
    hs_plan *plan = x->plan;
    json_int_t seed = json_integer_value(json_object_get(k->seed->options, "seeds"));
    char *label = make_label(x->series, k);
    json_t *axes = json_object();
    add_coordinates(axes, k->task->swept, "task");
    add_coordinates(axes, k->model->swept, "model");
    add_coordinates(axes, k->train->swept, "train");
    json_object_set_new(axes, "variant", json_string(label));
    add_coordinates(axes, k->variant->swept, "variant");
    json_object_set_new(axes, "seed", json_integer(seed));
    int wanted = 1;
    for (size_t i = 0; wanted && i < x->f->args->nonly; i++) wanted = passes(x, axes, x->f->args->only[i]);
    if (!wanted) {
        json_decref(axes);
        free(label);
        return 0;
    }
    miss_init(plan, k->train);
    hs_cell *c = &plan->cell[plan->ncells++];
    *c = (hs_cell){ .axes = axes, .label = label, .variant_path = x->series->path,
                    .task_path = json_string_value(json_object_get(x->f->task, "path")),
                    .others = json_incref(k->task->others), .init = json_incref(k->train->init), .time_limit = x->f->time_limit, .memory_limit = x->f->memory_limit };
    c->doc = json_pack("{s:O, s:O, s:O, s:I, s:s, s:s, s:O, s:i}", "task", k->task->part, "variant", k->variant->part, "train", k->train->part,
                       "seed", seed, "device", x->device, "dtype", x->f->dtype, "data", k->task->data, "numerics", HS_NUMERICS);
    if (x->f->builds_model) json_object_set(c->doc, "model", k->model->part);
    if (k->train->init) json_object_set(c->doc, "init", k->train->data);
    set_ladder(x, c);
    return hash_cell(x, c, k, seed);
}

/* All cells of one series. */
static int add_series(expansion *x)
{
    const plan_series *s = x->series;
    int rc = 0;
    x->variants = points_of(&s->options, s->name, s->impl, 1, s->digest);
    x->models = points_of(&s->model, NULL, NULL, 0, NULL);
    x->trains = points_of(&s->train, NULL, NULL, 0, NULL);
    find_init(x->f, &x->trains);
    for (size_t v = 0; v < x->variants.n; v++)
        for (size_t t = 0; t < x->tasks.n; t++)
            for (size_t m = 0; m < x->models.n; m++)
                for (size_t r = 0; r < x->trains.n; r++)
                    for (size_t seed = 0; seed < x->seeds.n && !rc; seed++)
                        rc = add_cell(x, &(corner){ &x->variants.at[v], &x->tasks.at[t], &x->models.at[m], &x->trains.at[r],
                                                    &x->seeds.at[seed] });
    points_release(&x->variants);
    points_release(&x->models);
    points_release(&x->trains);
    return rc;
}

/* The number of cells without --only; more than MAX_CELLS is enough to know. */
static size_t count_cells(const plan_file *f)
{
    double n = 0, shared = (double)plan_group_points(&f->task_options) * (double)plan_group_points(&f->seeds);
    for (size_t s = 0; s < f->nseries; s++)
        n += shared * (double)plan_group_points(&f->series[s].options) * (double)plan_group_points(&f->series[s].model) *
             (double)plan_group_points(&f->series[s].train);
    return n <= MAX_CELLS ? (size_t)n : MAX_CELLS + 1;
}

/* "auto" is the GPU when it opens; else *no_gpu becomes the reason. */
static const char *resolve_device(const char *said, const char **no_gpu)
{
    const char *text;
    if (strcmp(said, "auto")) return said;
    if (hs_gpu_ask(&text) > 0) return "cuda";
    *no_gpu = text;
    return "cpu";
}

/* ---- what no two cells may share ------------------------------------------------------------------------------ */
/* Cells by key, then as they stand in the plan. */
static int by_key(const void *a, const void *b)
{
    const hs_cell *x = *(const hs_cell *const *)a, *y = *(const hs_cell *const *)b;
    int d = strcmp(x->key, y->key);
    return d ? d : (x > y) - (x < y);
}

/* Two entries that are the same computation; -1 with the error told once. */
static int check_keys(plan_file *f, const hs_plan *plan)
{
    const hs_cell **sorted = calloc(plan->ncells + 1, sizeof *sorted);
    int rc = 0;
    for (size_t i = 0; sorted && i < plan->ncells; i++) sorted[i] = &plan->cell[i];
    if (sorted && plan->ncells) qsort(sorted, plan->ncells, sizeof *sorted, by_key);
    for (size_t i = 1; sorted && i < plan->ncells && !rc; i++) {
        if (strcmp(sorted[i - 1]->key, sorted[i]->key)) continue;
        hs_errors_add(&f->errors, hs_node_get(f->root, "variants"), "'%s' and '%s' are the same computation: leave one out",
                      sorted[i - 1]->label, sorted[i]->label);
        rc = -1;
    }
    free(sorted);
    return rc;
}

/* A label that two entries share would merge them in a figure; -1 with the error told.  first: the series of each cell. */
static int check_labels(plan_file *f, const hs_plan *plan, const size_t *ends)
{
    json_t *owner = json_object();
    int rc = 0;
    for (size_t s = 0, i = 0; s < f->nseries; s++)
        for (; i < ends[s]; i++) {
            json_t *first = json_object_get(owner, plan->cell[i].label);
            size_t other = (size_t)json_integer_value(first);
            if (!first) json_object_set_new(owner, plan->cell[i].label, json_integer((json_int_t)s));
            if (!first || other == s) continue;
            hs_errors_add(&f->errors, f->series[s].node, "the label '%s' is also that of the entry on line %zu: give one a label",
                          plan->cell[i].label, f->series[other].node->line);
            rc = -1;
            i = ends[s] - 1;            /* one error per entry */
        }
    json_decref(owner);
    return rc;
}

/* See plan_internal.h. */
int plan_cells(plan_file *f, hs_plan *plan)
{
    expansion x = { .f = f, .plan = plan, .device = resolve_device(f->device, &plan->no_gpu), .room = count_cells(f),
                    .ladders = json_object() };
    size_t *ends = calloc(f->nseries, sizeof *ends);
    int rc = check_only(f);
    if (x.room > MAX_CELLS) {
        hs_errors_add(&f->errors, hs_node_get(f->root, "variants"), "the sweep has more than %d cells", MAX_CELLS);
        rc = -1;
    }
    plan->cell = rc ? NULL : calloc(x.room, sizeof *plan->cell);
    if (!ends || !plan->cell) rc = -1;
    if (!rc) {
        x.tasks = points_of(&f->task_options, json_string_value(json_object_get(f->task, "name")), NULL, 0,
                            json_string_value(json_object_get(f->task, "digest")));
        find_data(f, plan, &x.tasks);
        rc = find_others(f, &x.tasks);
        x.seeds = points_of(&f->seeds, NULL, NULL, 0, NULL);
    }
    for (size_t s = 0; !rc && s < f->nseries; s++) {
        x.series = &f->series[s];
        rc = add_series(&x);
        ends[s] = plan->ncells;
    }
    points_release(&x.tasks);
    points_release(&x.seeds);
    json_decref(x.ladders);
    if (!rc && check_keys(f, plan)) rc = -1;
    else if (!rc) rc = check_labels(f, plan, ends);
    free(ends);
    return rc;
}
