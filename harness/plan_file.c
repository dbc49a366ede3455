/* plan_file.c - the sections of an experiment file, checked one by one: an error in one does not hide the next. */
#include "figure.h"
#include "nn/model.h"
#include "nn/train.h"
#include "plan_internal.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const attn_opt seed_table[] = {
    { "seeds", "seeds of the random numbers", 0, ATTN_INT, 1, 0, INT32_MAX, NULL, 0 }, { .name = NULL } };
static const attn_opt device_option = { "device", "", 0, ATTN_CHOICE, 0, 0, 0, "auto,cpu,cuda", 0 };
static const attn_opt dtype_option = { "dtype", "", 0, ATTN_CHOICE, 0, 0, 0, "f32,f64,bf16", 0 };
static const attn_opt jobs_option = { "jobs", "", 0, ATTN_INT, 1, 1, 1024, NULL, 0 };

/* ---- single values ------------------------------------------------------------------------------------------ */
/* A key of the file that must be there; NULL with the error told. */
static hs_node *need(plan_file *f, const char *key, const char *what)
{
    hs_node *n = hs_node_get(f->root, key);
    if (!n) hs_errors_add(&f->errors, f->root, "the key '%s' is missing: %s", key, what);
    return n;
}

/* The one value of an option at the top of the file, checked; def when it is not there.  The caller frees. */
static json_t *top_value(plan_file *f, const attn_opt *o, json_t *def)
{
    hs_node *n = hs_node_get(f->root, o->name);
    char why[512];
    if (!n) return def;
    json_decref(def);
    json_t *v = n->kind == HS_SCALAR ? hs_node_json(n) : NULL;
    json_t *canonical = v ? hs_opt_canonical(o, v, why, sizeof why) : NULL;
    if (!v) hs_errors_add(&f->errors, n, "%s takes one value", o->name);
    else if (!canonical) hs_errors_add(&f->errors, n, "%s", why);
    json_decref(v);
    return canonical;
}

/* The same as text that the caller frees. */
static char *top_choice(plan_file *f, const attn_opt *o, const char *def)
{
    json_t *v = top_value(f, o, json_string(def));
    char *text = strdup(v ? json_string_value(v) : def);
    json_decref(v);
    return text;
}

/* The name names folders and rows: letters, digits, '-', '_' and '.', not a hidden file. */
static void read_name(plan_file *f)
{
    hs_node *n = need(f, "experiment", "a name for this experiment");
    if (!n) return;
    int ok = n->kind == HS_SCALAR && *n->text && *n->text != '.' && strlen(n->text) <= 100;
    for (const char *p = ok ? n->text : ""; *p; p++) ok &= isalnum((unsigned char)*p) || strchr("-_.", *p);
    if (!ok) hs_errors_add(&f->errors, n, "experiment must be a name of letters, digits, '-', '_' and '.'");
}

/* A number with one of the units, "30m" with units "smhd"; its index into units, -1 for a bare number, -2 when it is
 * neither. */
static int number_unit(const char *text, const char *units, double *x)
{
    char *end;
    if (!isdigit((unsigned char)*text) && *text != '.') return -2;
    *x = strtod(text, &end);
    if (!*end) return -1;
    const char *unit = strchr(units, *end);
    return unit && !end[1] ? (int)(unit - units) : -2;
}

/* stop_longer: the name of a number among the task's options. */
static void read_stop_longer(plan_file *f, hs_node *n)
{
    const char *names[256];
    size_t count = 0;
    for (const attn_opt *o = f->task_table; o && o->name && count < 256; o++) {
        if (o->type != ATTN_INT && o->type != ATTN_FLOAT) continue;
        names[count++] = o->name;
        if (n->kind == HS_SCALAR && !strcmp(o->name, n->text)) f->stop_longer = strdup(o->name);
    }
    if (f->stop_longer || !f->task) return;
    const char *near = n->kind == HS_SCALAR ? hs_nearest(n->text, names, count) : NULL;
    hs_errors_add(&f->errors, n, "stop_longer must be a number among the task's options, such as its length%s%s%s",
                  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* limits: {time: 30m, memory: 8G, stop_longer: length}. */
static void read_limits(plan_file *f)
{
    static const char *const keys[] = { "time", "memory", "stop_longer" };
    static const double seconds[] = { 1, 60, 3600, 86400 };
    hs_node *map = hs_node_get(f->root, "limits");
    double x = 0;
    if (!map) return;
    if (map->kind != HS_MAP) {
        hs_errors_add(&f->errors, map, "limits: a map is expected, as in {time: 30m, memory: 8G}");
        return;
    }
    hs_node_known(map, "limits", keys, sizeof keys / sizeof *keys, &f->errors);
    hs_node *time = hs_node_get(map, "time"), *memory = hs_node_get(map, "memory"), *longer = hs_node_get(map, "stop_longer");
    if (time) {
        int unit = time->kind == HS_SCALAR ? number_unit(time->text, "smhd", &x) : -2;
        if (unit == -2 || !(x > 0)) hs_errors_add(&f->errors, time, "time must be a duration such as 90s, 30m or 2h");
        else f->time_limit = x * (unit < 0 ? 1 : seconds[unit]);
    }
    if (memory) {
        int unit = memory->kind == HS_SCALAR ? number_unit(memory->text, "KMGT", &x) : -2;
        double bytes = unit == -2 ? 0 : x * pow(1024, unit + 1);
        if (bytes < 1 || bytes > 9e18) hs_errors_add(&f->errors, memory, "memory must be a size such as 512M or 8G");
        else f->memory_limit = (int64_t)bytes;
    }
    if (longer) read_stop_longer(f, longer);
}

/* ---- task and training ---------------------------------------------------------------------------------------- */
/* A name that the catalog does not have: the nearest, or why its file was refused. */
static void refuse_task(plan_file *f, hs_node *n)
{
    const char *names[256];
    size_t count = 0, i;
    json_t *one;
    json_array_foreach(hs_catalog_all(f->catalog), i, one) {
        if (!strcmp(json_string_value(json_object_get(one, "kind")), "task") && count < 256)
            names[count++] = json_string_value(json_object_get(one, "name"));
    }
    const char *reason = plan_refused_reason(f->catalog, n->text);
    const char *near = hs_nearest(n->text, names, count);
    f->plugin_errors += reason != NULL;
    hs_errors_add(&f->errors, n, "there is no task '%s'%s%s%s%s%s", n->text, near ? "; did you mean '" : "", near ? near : "",
                  near ? "'?" : "", reason ? ": " : near ? "" : " (harness list tasks)", reason ? reason : "");
}

/* task: NAME, or task: {name: NAME, option: value...}. */
static void read_task(plan_file *f)
{
    static const char *const skip[] = { "name", NULL };
    hs_node *n = need(f, "task", "as in task: {name: associative_retrieval, keys: 20}");
    hs_node *name = n && n->kind == HS_MAP ? hs_node_get(n, "name") : n;
    size_t size;
    char what[128];
    if (!n) return;
    if (!name) hs_errors_add(&f->errors, n, "the task has no name, as in task: {name: associative_retrieval, keys: 20}");
    else if (name->kind != HS_SCALAR || hs_node_is_null(name)) hs_errors_add(&f->errors, name, "the name of a task is expected");
    else if (!(f->task = hs_catalog_task(f->catalog, name->text))) refuse_task(f, name);
    if (!f->task) return;
    f->task_table = hs_opts_rebuild(json_object_get(f->task, "options"), &size);
    plan_group_init(&f->task_options, f->task_table, NULL);
    snprintf(what, sizeof what, "task %s", name->text);
    if (n->kind == HS_MAP) plan_group_read(&f->task_options, n, what, skip, &f->errors);
}

/* train: or model: the table's defaults, the task's over them, the file's over those. */
static void read_section(plan_file *f, plan_group *g, const char *section, const attn_opt *table, const json_t *defaults)
{
    hs_node *n = hs_node_get(f->root, section);
    const char *name;
    json_t *value;
    char why[256];
    plan_group_init(g, table, NULL);
    json_object_foreach((json_t *)defaults, name, value) {
        const attn_opt *o = hs_opts_find(table, name);
        json_t *typed = o && o->type == ATTN_CHOICE ? json_incref(value) : hs_scalar_json(json_string_value(value));
        json_t *canonical = o ? hs_opt_canonical(o, typed, why, sizeof why) : NULL;
        if (canonical) json_object_set_new(g->fixed, name, canonical);          /* valid.c vouches for the rest */
        json_decref(typed);
    }
    if (n) plan_group_read(g, n, section, NULL, &f->errors);
}

/* See plan_internal.h. */
int plan_model_refused(plan_file *f, hs_node *model)
{
    if (model && f->task && !f->builds_model)
        hs_errors_add(&f->errors, model, "the task %s builds no model: it takes no 'model'", json_string_value(json_object_get(f->task, "name")));
    return !f->builds_model;
}

/* model: as train, for a task that builds one. */
static void read_model(plan_file *f)
{
    const json_t *defaults = json_object_get(f->task, "model_defaults");
    f->builds_model = json_is_object(defaults);
    if (plan_model_refused(f, hs_node_get(f->root, "model"))) plan_group_init(&f->model, NULL, NULL);
    else read_section(f, &f->model, "model", nn_model_table, defaults);
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */
/* Every name that an axis of a figure may have: options, metrics and the coordinates of a cell. */
static int is_quantity(const plan_file *f, const char *name, const char **names, size_t *n, size_t max)
{
    static const char *const fixed[] = { "variant", "label", "seed", "step", "device", "dtype" };
    const attn_opt *const tables[] = { f->task_table, nn_train_table, f->builds_model ? nn_model_table : NULL };
    size_t i;
    json_t *m;
    *n = 0;
    for (i = 0; i < sizeof fixed / sizeof *fixed; i++) names[(*n)++] = fixed[i];
    for (int t = 0; t < 3; t++)
        for (const attn_opt *o = tables[t]; o && o->name && *n < max; o++) names[(*n)++] = o->name;
    for (size_t s = 0; s < f->nseries; s++)
        for (int t = 0; t < 2; t++)
            for (const attn_opt *o = f->series[s].options.table[t]; o && o->name && *n < max; o++) names[(*n)++] = o->name;
    json_array_foreach(json_object_get(f->task, "metrics"), i, m) {
        if (*n < max) names[(*n)++] = json_string_value(json_object_get(m, "name"));
    }
    for (i = 0; i < *n; i++)
        if (!strcmp(names[i], name)) return 1;
    return 0;
}

/* Each key on its own in a figure that is otherwise sound, so that the error stands where the key does; then the whole. */
static int check_figure_keys(plan_file *f, hs_node *map)
{
    char why[512];
    size_t before = f->errors.n;
    const hs_node *kind = hs_node_get(map, "kind");
    json_t *sound = json_pack("{s:s, s:s, s:s}", "kind", kind && kind->kind == HS_SCALAR ? kind->text : "line", "x", "x", "y", "y");
    if (hs_figure_check(sound, why, sizeof why)) json_object_set_new(sound, "kind", json_string("line"));
    for (size_t i = 0; i < map->n; i++) {
        json_t *one = json_copy(sound);
        json_object_set_new(one, map->key[i]->text, hs_node_json(map->item[i]));
        if (hs_figure_check(one, why, sizeof why)) hs_errors_add(&f->errors, map->key[i], "%s", why);
        json_decref(one);
    }
    json_decref(sound);
    json_t *all = hs_node_json(map);
    if (f->errors.n == before && hs_figure_check(all, why, sizeof why)) hs_errors_add(&f->errors, map, "%s", why);
    json_decref(all);
    return f->errors.n > before ? -1 : 0;
}

/* A name as a figure may write it, without its section in front. */
static const char *bare_name(const char *name)
{
    static const char *const sections[] = { "task.", "variant.", "model.", "train." };
    for (size_t i = 0; i < 4; i++)
        if (!strncmp(name, sections[i], strlen(sections[i]))) return name + strlen(sections[i]);
    return name;
}

/* The name of an axis of a figure, which must exist; it stands at where. */
static void check_axis(plan_file *f, hs_node *where, const char *key, const char *text)
{
    const char *names[1024];
    size_t n;
    if (is_quantity(f, bare_name(text), names, &n, 1024)) return;
    const char *near = hs_nearest(text, names, n);
    hs_errors_add(&f->errors, where, "'%s' of a figure must be an option, a metric or variant, seed, step, not '%s'%s%s%s", key, text,
                  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* One figure: keys and types, and axes that exist. */
static void read_figure(plan_file *f, hs_node *map)
{
    static const char *const axes[] = { "x", "y", "series", "each", "best" };
    if (map->kind != HS_MAP) {
        hs_errors_add(&f->errors, map, "a figure is a map, as in {kind: line, x: keys, y: best_eval_loss, series: variant}");
        return;
    }
    if (check_figure_keys(f, map) || !f->task) return;
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) {
        hs_node *a = hs_node_get(map, axes[i]);
        if (a) check_axis(f, a, axes[i], a->text);
    }
    const hs_node *where = hs_node_get(map, "where");
    for (size_t i = 0; where && i < where->n; i++) check_axis(f, where->key[i], "where", where->key[i]->text);
}

/* See plan_internal.h. */
int plan_figures_check(plan_file *f, const hs_plan *plan)
{
    hs_node *list = hs_node_get(f->root, "figures");
    char why[512];
    int rc = 0;
    for (size_t i = 0; list && i < list->n; i++) {
        if (!hs_figure_check_plan(plan, json_array_get(plan->figures, i), why, sizeof why)) continue;
        hs_errors_add(&f->errors, list->item[i], "%s", why);
        rc = -1;
    }
    return rc;
}

/* figures: a list of maps. */
static void read_figures(plan_file *f)
{
    hs_node *n = hs_node_get(f->root, "figures");
    if (n && n->kind != HS_LIST) hs_errors_add(&f->errors, n, "figures: a list is expected");
    for (size_t i = 0; n && n->kind == HS_LIST && i < n->n; i++) read_figure(f, n->item[i]);
}

/* ---- the whole file ----------------------------------------------------------------------------------------------- */
/* See plan_internal.h. */
const char *plan_refused_reason(const hs_catalog *c, const char *name)
{
    size_t i, n = strlen(name);
    json_t *one;
    json_array_foreach(hs_catalog_refused(c), i, one) {
        const char *path = json_string_value(json_object_get(one, "path"));
        const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        if (!strncmp(base, name, n) && !strcmp(base + n, ".so")) return json_string_value(json_object_get(one, "reason"));
    }
    return NULL;
}

/* seeds: one, a list or a range. */
static void read_seeds(plan_file *f)
{
    hs_node *n = hs_node_get(f->root, "seeds");
    plan_group_init(&f->seeds, seed_table, NULL);
    if (n) plan_group_set(&f->seeds, "seeds", n, &f->errors);
}

/* See plan_internal.h: every section, in the order in which later ones need earlier ones. */
void plan_file_read(plan_file *f)
{
    static const char *const keys[] = { "experiment", "about", "task", "variants", "model", "train", "seeds", "device", "dtype",
                                        "limits", "jobs", "figures" };
    if (f->root->kind != HS_MAP) {
        hs_errors_add(&f->errors, f->root, "an experiment is a map: experiment, task, variants, ...");
        return;
    }
    hs_node_known(f->root, "an experiment", keys, sizeof keys / sizeof *keys, &f->errors);
    hs_node *about = hs_node_get(f->root, "about");
    if (about && about->kind != HS_SCALAR) hs_errors_add(&f->errors, about, "about must be a text");
    read_name(f);
    read_task(f);
    read_section(f, &f->train, "train", nn_train_table, json_object_get(f->task, "train_defaults"));
    read_model(f);
    read_seeds(f);
    hs_node *variants = need(f, "variants", "a list of variants, as in variants: [softmax, linear]");
    if (variants) plan_series_read(f, variants);
    read_limits(f);
    f->device = top_choice(f, &device_option, "auto");
    f->dtype = top_choice(f, &dtype_option, "f32");
    json_t *jobs = top_value(f, &jobs_option, NULL);
    f->jobs = (int)json_integer_value(jobs);
    json_decref(jobs);
    read_figures(f);
}
