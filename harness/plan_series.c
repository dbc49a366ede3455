/* plan_series.c - the entries of `variants:`, each a series of the sweep.
 *
 *     - softmax
 *     - linear: {feature_map: dpfp, nu: [1, 2, 3]}         # beside it: label, model, train, impl
 *       label: DPFP-{nu}
 *     - {path: ../mine.so, variant: NAME, options: {..}, label: .., model: {..}, train: {..}, impl: ..}
 *
 * A file that cannot be loaded does not stop the sweep: its cells are planned with the options as they are
 * written, and the worker that cannot load it says why. */
#define _GNU_SOURCE
#include "nn/mixer.h"
#include "plan_internal.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const beside_name[] = { "label", "model", "train", "impl", NULL };
static const char *const path_keys[] = { "path", "variant", "options", "label", "model", "train", "impl" };

/* Is key one of those that stand beside the name of a variant? */
static int is_beside(const char *key)
{
    for (size_t i = 0; beside_name[i]; i++)
        if (!strcmp(key, beside_name[i])) return 1;
    return 0;
}

/* ---- which variant ------------------------------------------------------------------------------------------- */
/* A path as written, seen from the folder of the experiment file. */
static char *resolve(const plan_file *f, const char *path)
{
    const char *slash = strrchr(f->path, '/');
    char *full = NULL;
    if (*path == '/' || !slash) full = strdup(path);
    else if (asprintf(&full, "%.*s/%s", (int)(slash - f->path), f->path, path) < 0) return NULL;
    char *real = realpath(full, NULL);
    if (real) free(full);
    return real ? real : full;
}

/* See plan_internal.h. */
char **plan_series_paths(const plan_file *f, size_t *n)
{
    hs_node *list = hs_node_get(f->root, "variants");
    *n = 0;
    if (!list || list->kind != HS_LIST) return NULL;
    char **paths = calloc(list->n + 1, sizeof *paths);
    for (size_t i = 0; paths && i < list->n; i++) {
        hs_node *path = hs_node_get(list->item[i], "path");
        if (path && path->kind == HS_SCALAR && *path->text) paths[(*n)++] = resolve(f, path->text);
    }
    return paths;
}

/* See plan_internal.h. */
void plan_refuse_variant(plan_file *f, hs_node *where, const char *name)
{
    const char *names[512];
    size_t n = 0, i;
    json_t *one;
    json_array_foreach(hs_catalog_all(f->catalog), i, one) {
        if (!strcmp(json_string_value(json_object_get(one, "kind")), "variant") && n < 512)
            names[n++] = json_string_value(json_object_get(one, "name"));
    }
    const char *reason = plan_refused_reason(f->catalog, name), *near = hs_nearest(name, names, n);
    f->plugin_errors += reason != NULL;
    hs_errors_add(&f->errors, where, "there is no variant '%s'%s%s%s%s%s", name, near ? "; did you mean '" : "",
                  near ? near : "", near ? "'?" : "", reason ? ": " : near ? "" : " (harness list variants)", reason ? reason : "");
}

/* The refusal of a file, or NULL. */
static const json_t *refusal(const hs_catalog *c, const char *path)
{
    size_t i;
    json_t *one;
    json_array_foreach(hs_catalog_refused(c), i, one) {
        if (!strcmp(json_string_value(json_object_get(one, "path")), path)) return one;
    }
    return NULL;
}

/* A file that could not be loaded as a series of its own: a warning, and the name from what is written. */
static void make_broken(plan_file *f, plan_series *s, hs_node *path, const hs_node *said, const json_t *refused)
{
    char digest[65];
    s->path = json_string_value(json_object_get(refused, "path"));
    hs_errors_warn(&f->errors, path, json_string_value(json_object_get(refused, "reason")));
    const char *base = strrchr(s->path, '/') ? strrchr(s->path, '/') + 1 : s->path;
    s->name = said ? strdup(said->text) : strndup(base, strcspn(base, "."));
    if (!hs_file_digest(s->path, digest)) s->digest = strdup(digest);
}

/* The variant of a plug-in named by path.  A file that could not be loaded leaves s->variant NULL. */
static int find_path(plan_file *f, plan_series *s, hs_node *path)
{
    char why[PATH_MAX + 512];
    hs_node *said = hs_node_get(s->node, "variant");
    if (path->kind != HS_SCALAR || !*path->text) return hs_errors_add(&f->errors, path, "path must be the path of a .so"), -1;
    if (said && said->kind != HS_SCALAR) return hs_errors_add(&f->errors, said, "variant must be one name"), -1;
    char *full = resolve(f, path->text);
    const json_t *refused = refusal(f->catalog, full);
    int taken = json_is_true(json_object_get(refused, "taken"));
    s->variant = hs_catalog_path(f->catalog, full, said ? said->text : NULL, why, sizeof why);
    free(full);
    if (s->variant) return 0;
    if (refused && !taken) return make_broken(f, s, path, said, refused), 0;
    f->plugin_errors += taken;
    return hs_errors_add(&f->errors, said ? said : path, "%s", why), -1;
}

/* The variant that an entry {NAME: {..}} names, and where its options are; -1 with the error told. */
static int find_named(plan_file *f, plan_series *s)
{
    hs_node *key = NULL, *map = s->node;
    size_t n = 0;
    for (size_t i = 0; i < map->n; i++) {
        const char *text = map->key[i]->text;
        if (is_beside(text)) continue;
        if (!key || hs_catalog_variant(f->catalog, text)) key = map->key[i], s->options_node = map->item[i];
        n++;
    }
    if (!key) return hs_errors_add(&f->errors, map, "an entry of variants names a variant, as in linear: {nu: 2}, or a path"), -1;
    s->variant = hs_catalog_variant(f->catalog, key->text);
    if (!s->variant) return plan_refuse_variant(f, key, key->text), -1;
    for (size_t i = 0; n > 1 && i < map->n; i++) {
        const char *text = map->key[i]->text, *near = hs_nearest(text, beside_name, 4);
        if (map->key[i] == key || is_beside(text)) continue;
        hs_errors_add(&f->errors, map->key[i], "beside '%s' stand label, model, train or impl, not '%s'%s%s%s", key->text, text,
                      near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return 0;
}

/* Finds the variant of an entry in whichever form it is written. */
static int find_variant(plan_file *f, plan_series *s)
{
    hs_node *n = s->node, *path = hs_node_get(n, "path");
    if (n->kind == HS_LIST || hs_node_is_null(n))
        return hs_errors_add(&f->errors, n, "an entry of variants is a name or a map, as in linear: {nu: 2}"), -1;
    if (n->kind == HS_SCALAR) {
        s->variant = hs_catalog_variant(f->catalog, n->text);
        return s->variant ? 0 : (plan_refuse_variant(f, n, n->text), -1);
    }
    if (!path) return find_named(f, s);
    hs_node_known(n, "a plug-in by path", path_keys, sizeof path_keys / sizeof *path_keys, &f->errors);
    s->options_node = hs_node_get(n, "options");
    return find_path(f, s, path);
}

/* ---- its options, label, impl ----------------------------------------------------------------------------------- */
/* Is it an option of this series, the task, the model or the training? */
static int is_placeholder(const plan_file *f, const plan_series *s, const char *name)
{
    return plan_group_find(&s->options, name) || plan_group_find(&f->task_options, name) ||
           plan_group_find(&s->model, name) || plan_group_find(&s->train, name) || json_object_get(s->options.fixed, name);
}

/* A label is one line of text; each {name} in it is an option. */
static void read_label(plan_file *f, plan_series *s)
{
    hs_node *n = hs_node_get(s->node, "label");
    char name[128];
    if (!n) return;
    if (n->kind != HS_SCALAR || !*n->text) {
        hs_errors_add(&f->errors, n, "label must be a text");
        return;
    }
    for (const char *p = n->text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) hs_errors_add(&f->errors, n, "label must be one line without control characters");
        if (*p != '{') continue;
        const char *end = strchr(p, '}');
        if (!end) hs_errors_add(&f->errors, n, "label has a '{' without its '}'");
        snprintf(name, sizeof name, "%.*s", end ? (int)(end - p - 1) : 0, p + 1);
        if (end && s->variant && f->task && !is_placeholder(f, s, name))
            hs_errors_add(&f->errors, n, "label: {%s} is no option of %s, of the task, of model or of train", name, s->name);
    }
    s->label = strdup(n->text);
}

/* impl: one that the variant has. */
static void read_impl(plan_file *f, plan_series *s)
{
    hs_node *n = hs_node_get(s->node, "impl");
    const char *names[64];
    size_t count = 0, i;
    json_t *one;
    if (!n) return;
    if (n->kind != HS_SCALAR || hs_node_is_null(n)) {
        hs_errors_add(&f->errors, n, "impl must be one name");
        return;
    }
    s->impl = strdup(n->text);
    json_array_foreach(json_object_get(s->variant, "impls"), i, one) {
        if (count < 64) names[count++] = json_string_value(json_object_get(one, "name"));
        if (!strcmp(json_string_value(json_object_get(one, "name")), n->text)) return;
    }
    char list[512] = "";
    for (i = 0; i < count; i++) snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    if (s->variant) hs_errors_add(&f->errors, n, "%s has no implementation '%s', but %s", s->name, n->text, list);
}

/* Name, path and digest from the description. */
static void identify(plan_series *s)
{
    if (!s->variant) return;
    s->name = strdup(json_string_value(json_object_get(s->variant, "name")));
    s->path = json_string_value(json_object_get(s->variant, "path"));
    const char *digest = json_string_value(json_object_get(s->variant, "digest"));
    s->digest = digest ? strdup(digest) : NULL;
}

/* One entry. */
static void read_series(plan_file *f, plan_series *s, hs_node *node)
{
    char what[160];
    size_t size;
    *s = (plan_series){ .node = node };
    plan_group_copy(&s->model, &f->model);
    plan_group_copy(&s->train, &f->train);
    if (find_variant(f, s)) return;
    identify(s);
    if (s->variant) s->table = hs_opts_rebuild(json_object_get(s->variant, "options"), &size);
    plan_group_init(&s->options, s->table, s->variant ? nn_common_table : NULL);
    snprintf(what, sizeof what, "variant %s", s->name);
    if (s->options_node) plan_group_read(&s->options, s->options_node, what, NULL, &f->errors);
    hs_node *model = hs_node_get(node, "model"), *train = hs_node_get(node, "train");
    if (!plan_model_refused(f, model) && model) plan_group_read(&s->model, model, "model", NULL, &f->errors);
    if (train) plan_group_read(&s->train, train, "train", NULL, &f->errors);
    read_label(f, s);
    read_impl(f, s);
}

/* See plan_internal.h. */
void plan_series_read(plan_file *f, hs_node *list)
{
    if (list->kind != HS_LIST || !list->n) {
        hs_errors_add(&f->errors, list, "variants: a list of at least one variant is expected");
        return;
    }
    f->series = calloc(list->n, sizeof *f->series);
    for (; f->series && f->nseries < list->n; f->nseries++) read_series(f, &f->series[f->nseries], list->item[f->nseries]);
}

/* Frees one entry. */
void plan_series_release(plan_series *s)
{
    plan_group_release(&s->options);
    plan_group_release(&s->model);
    plan_group_release(&s->train);
    hs_opts_rebuilt_free(s->table);
    free(s->name);
    free(s->digest);
    free(s->label);
    free(s->impl);
}
