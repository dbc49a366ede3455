/* plan_set.c - --set PATH=VALUE as an edit of the tree, before anything is checked: what it brings in is then
 * checked like the rest of the file, and named by its argument when it is wrong. */
#define _GNU_SOURCE
#include "plan_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "20,60" reads as "[20,60]" does; anything else as YAML reads it.  NULL with the error told. */
static hs_node *parse_value(const char *text, const char *origin, hs_errors *e)
{
    char *flow = NULL;
    hs_node where = { .kind = HS_MAP, .origin = origin };
    if (asprintf(&flow, "[%s]", text) < 0) return NULL;
    hs_node *list = hs_spec_text(flow, origin, e);
    free(flow);
    if (!list || list->kind != HS_LIST || list->n == 0) {
        if (list) hs_errors_add(e, &where, "a value is expected after '='");
        hs_node_free(list);
        return NULL;
    }
    if (list->n != 1) return list;
    hs_node *only = list->item[0];
    list->n = 0;
    hs_node_free(list);
    return only;
}

/* Puts value at key.  One value in place of an axis stays an axis, so that figures over it keep their x. */
static void put(hs_node *map, const char *key, hs_node *value)
{
    const hs_node *old = hs_node_get(map, key);
    int was_axis = old && (old->kind == HS_LIST || hs_node_get(old, "from"));
    if (was_axis && value->kind == HS_SCALAR) {
        hs_node *list = hs_node_new(HS_LIST, NULL, value);
        if (list && !hs_node_append(list, value)) value = list;
    }
    hs_node_put(map, key, value);
}

/* Follows path through the maps that are there and puts value where it ends. */
static void put_path(hs_node *map, const char *path, hs_node *value)
{
    const char *dot = strchr(path, '.');
    char *head = dot ? strndup(path, (size_t)(dot - path)) : NULL;
    hs_node *child = head ? hs_node_get(map, head) : NULL;
    if (child && child->kind == HS_MAP) put_path(child, dot + 1, value);
    else put(map, path, value);
    free(head);
}

/* The map of the section `head` of the file: made when it is not there; "task: NAME" becomes a map. */
static hs_node *section(hs_node *root, const char *head, const hs_node *where)
{
    hs_node *child = hs_node_get(root, head);
    if (child && child->kind == HS_MAP) return child;
    hs_node *map = hs_node_new(HS_MAP, NULL, where);
    if (map && child && child->kind == HS_SCALAR && !hs_node_is_null(child))
        hs_node_put(map, "name", hs_node_new(HS_SCALAR, child->text, child));
    return map && !hs_node_put(root, head, map) ? map : NULL;
}

/* The options map of an entry of `variants:` when the entry is that variant, made when there is none; else NULL. */
static hs_node *entry_options(hs_node *list, size_t i, const char *name)
{
    hs_node *entry = list->item[i], *path = hs_node_get(entry, "path"), *said = hs_node_get(entry, "variant");
    const char *key = name;
    if (entry->kind == HS_SCALAR && !strcmp(entry->text, name)) {
        hs_node *map = hs_node_new(HS_MAP, NULL, entry);
        hs_node_put(map, name, hs_node_new(HS_MAP, NULL, entry));
        hs_node_free(entry);
        list->item[i] = entry = map;
    }
    if (path && path->kind == HS_SCALAR) {
        const char *base = strrchr(path->text, '/') ? strrchr(path->text, '/') + 1 : path->text;
        size_t n = strlen(name);
        int same = said && said->kind == HS_SCALAR ? !strcmp(said->text, name) : !strncmp(base, name, n) && !strcmp(base + n, ".so");
        if (!same) return NULL;
        key = "options";
        if (!hs_node_get(entry, key)) hs_node_put(entry, key, hs_node_new(HS_MAP, NULL, entry));
    }
    hs_node *options = hs_node_get(entry, key);
    if (options && hs_node_is_null(options)) {
        hs_node_put(entry, key, hs_node_new(HS_MAP, NULL, entry));
        options = hs_node_get(entry, key);
    }
    return options && options->kind == HS_MAP ? options : NULL;
}

/* variants.NAME.OPTION: every entry of that variant. */
static void set_variants(plan_file *f, const char *path, const char *text, const char *origin)
{
    hs_node *list = hs_node_get(f->root, "variants"), where = { .kind = HS_MAP, .origin = origin };
    const char *dot = strchr(path, '.');
    char *name = dot ? strndup(path, (size_t)(dot - path)) : NULL;
    size_t hits = 0;
    if (!name) {
        hs_errors_add(&f->errors, &where, "variants.NAME.OPTION is expected");
        return;
    }
    for (size_t i = 0; list && list->kind == HS_LIST && i < list->n; i++) {
        hs_node *options = entry_options(list, i, name);
        hs_node *value = options ? parse_value(text, origin, &f->errors) : NULL;
        hits += options != NULL;
        if (value) put_path(options, dot + 1, value);
    }
    if (!hits) hs_errors_add(&f->errors, &where, "no entry of variants is '%s'", name);
    free(name);
}

/* One PATH=VALUE. */
static void set_one(plan_file *f, const char *path, const char *text, const char *origin)
{
    static const char variants[] = "variants.";
    if (!strncmp(path, variants, sizeof variants - 1)) {
        set_variants(f, path + sizeof variants - 1, text, origin);
        return;
    }
    hs_node *value = parse_value(text, origin, &f->errors);
    const char *dot = strchr(path, '.');
    if (!value) return;
    if (!dot) {
        put(f->root, path, value);
        return;
    }
    char *head = strndup(path, (size_t)(dot - path));
    hs_node *map = section(f->root, head, value);
    if (map) put_path(map, dot + 1, value);
    free(head);
}

/* Splits the argument at its first '=' and sets; origin is kept by the file, because nodes point to it. */
static void set_argument(plan_file *f, const char *flag, const char *path_prefix, const char *argument)
{
    char *origin = NULL, *path = NULL;
    char **more = realloc(f->origins, (f->norigins + 1) * sizeof *more);
    if (more) f->origins = more;
    if (!more || asprintf(&origin, "%s %s", flag, argument) < 0) return;
    f->origins[f->norigins++] = origin;
    if (asprintf(&path, "%s%s", path_prefix, argument) < 0) return;
    char *eq = strchr(path, '=');
    hs_node where = { .kind = HS_MAP, .origin = origin };
    if (!eq || eq == path) hs_errors_add(&f->errors, &where, "PATH=VALUE is expected, as in --set task.keys=20,60");
    else {
        *eq = 0;
        set_one(f, path, eq + 1, origin);
    }
    free(path);
}

/* See plan_internal.h. */
void plan_set_all(plan_file *f)
{
    if (f->root->kind != HS_MAP) return;
    for (size_t i = 0; i < f->args->nset; i++) set_argument(f, "--set", "", f->args->set[i]);
    if (f->args->device) set_argument(f, "--device", "device=", f->args->device);
}
