/* figure_select.c - which cells a figure shows, and which series each belongs to. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_internal.h"
#include "options.h"
#include "table.h"

const char *fig_bare(const char *name)
{
    static const char *const prefixes[] = { "task.", "variant.", "model.", "train." };
    for (int i = 0; i < 4; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) return name + strlen(prefixes[i]);
    return name;
}

/* What a name means in a cell: an axis, else an option, else a field such as seed.  NULL: nothing. */
const json_t *fig_value_in(const hs_cell *cell, const char *name)
{
    const struct { const char *prefix; const json_t *map; } place[] = {
        { "task.", json_object_get(json_object_get(cell->doc, "task"), "options") },
        { "variant.", json_object_get(json_object_get(cell->doc, "variant"), "options") },
        { "model.", json_object_get(cell->doc, "model") },
        { "train.", json_object_get(cell->doc, "train") } };
    const json_t *v = json_object_get(cell->axes, name);
    for (size_t i = 0; !v && i < sizeof place / sizeof *place; i++)
        if (fig_bare(name) == name || strncmp(name, place[i].prefix, strlen(place[i].prefix)) == 0)
            v = json_object_get(place[i].map, fig_bare(name));
    return v ? v : json_object_get(cell->doc, name);
}

char *fig_value_text(const hs_cell *cell, const char *axis)
{
    const json_t *v = strcmp(axis, "variant") == 0 ? NULL : fig_value_in(cell, axis);
    char number[32];
    if (!v) return strdup(strcmp(axis, "variant") == 0 ? cell->label : "");
    if (json_is_string(v)) return strdup(json_string_value(v));
    if (!json_is_real(v)) return json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    hs_exact(json_real_value(v), number);
    return strdup(number);
}

/* ---- where ------------------------------------------------------------------------------------------------------ */
/* Whether a cell has a value on an axis; a variant is meant by its label or its name. */
static int has_value(const hs_cell *cell, const char *axis, const json_t *wanted)
{
    if (strcmp(axis, "variant") == 0) {
        const char *text = json_string_value(wanted);
        const char *name = json_string_value(json_object_get(json_object_get(cell->doc, "variant"), "name"));
        return text && (strcmp(text, cell->label) == 0 || (name && strcmp(text, name) == 0));
    }
    const json_t *v = fig_value_in(cell, axis);
    if (json_is_number(v) && json_is_number(wanted)) return json_number_value(v) == json_number_value(wanted);
    return v && json_equal(v, wanted);
}

int fig_wants(const json_t *spec, const hs_cell *cell)
{
    const char *axis;
    json_t *wanted, *one;
    size_t i;
    json_object_foreach(json_object_get(spec, "where"), axis, wanted) {
        int any = !json_is_array(wanted) && has_value(cell, axis, wanted);
        json_array_foreach(wanted, i, one) {
            any |= has_value(cell, axis, one);
        }
        if (!any) return 0;
    }
    return 1;
}

/* ---- series ----------------------------------------------------------------------------------------------------- */
/* The axis that names the series. */
static const char *series_axis(const json_t *spec)
{
    const char *axis = json_string_value(json_object_get(spec, "series"));
    return axis ? axis : "variant";
}

/* Whether an axis may have to be added to a series' name: not the x axis, not the seed, not the name itself, nor the axis
 * of which the best is shown. */
static int could_split(const json_t *spec, const char *axis)
{
    const char *best = json_string_value(json_object_get(spec, "best"));
    if (best && (strcmp(axis, best) == 0 || strcmp(axis, fig_bare(best)) == 0)) return 0;
    return strcmp(axis, fig_bare(fig_x(spec))) != 0 && strcmp(axis, fig_x(spec)) != 0 && strcmp(axis, "seed") != 0 &&
           strcmp(axis, series_axis(spec)) != 0;
}

/* {name: {axis: true}}: the axes that take more than one value among the cells of one name, so that points which
 * differ in more than the seed are never averaged. */
json_t *fig_splitting_axes(const hs_plan *plan, const json_t *spec)
{
    json_t *seen = json_object(), *split = json_object();
    for (size_t i = 0; i < plan->ncells; i++) {
        const hs_cell *cell = &plan->cell[i];
        if (!fig_wants(spec, cell)) continue;
        char *name = fig_value_text(cell, series_axis(spec));
        if (!json_object_get(seen, name)) {
            json_object_set_new(seen, name, json_object());
            json_object_set_new(split, name, json_object());
        }
        const char *axis;
        json_t *ignored;
        json_object_foreach(cell->axes, axis, ignored) {
            if (!could_split(spec, axis)) continue;
            char *text = fig_value_text(cell, axis);
            json_t *values = json_object_get(seen, name), *first = json_object_get(values, axis);
            if (!first) json_object_set_new(values, axis, json_string(text));
            else if (strcmp(json_string_value(first), text) != 0)
                json_object_set_new(json_object_get(split, name), axis, json_true());
            free(text);
        }
        free(name);
    }
    json_decref(seen);
    return split;
}

char *fig_series_name(const hs_cell *cell, const json_t *spec, const json_t *split)
{
    char *name = fig_value_text(cell, series_axis(spec));
    const json_t *axes = json_object_get(split, name);
    const char *axis;
    json_t *ignored;
    json_object_foreach(cell->axes, axis, ignored) {
        if (!json_object_get(axes, axis)) continue;
        char *text = fig_value_text(cell, axis), *longer = NULL;
        int n = strcmp(axis, "variant") == 0 ? asprintf(&longer, "%s, %s", name, text)
                                             : asprintf(&longer, "%s, %s=%s", name, axis, text);
        free(text);
        if (n < 0) break;
        free(name);
        name = longer;
    }
    return name;
}

/* ---- each ------------------------------------------------------------------------------------------------------- */
/* The figure for one value of its axis: `where` narrowed to it, the value added to name and title; a number says little in a
 * title without the name of its axis. */
static json_t *figure_for(const json_t *spec, size_t number, const char *axis, const json_t *value, const char *text)
{
    json_t *one = json_deep_copy(spec), *where = json_object_get(one, "where");
    const char *name = json_string_value(json_object_get(spec, "name")), *title = json_string_value(json_object_get(spec, "title"));
    json_object_del(one, "each");
    if (!where) json_object_set_new(one, "where", where = json_object());
    json_object_set(where, axis, (json_t *)value);
    json_object_set_new(one, "name", name ? json_sprintf("%s-%s", name, text) : json_sprintf("%zu-%s", number, text));
    json_object_set_new(one, "title", json_sprintf("%s%s%s%s%s", title ? title : "", title ? ", " : "", json_is_number(value) ? axis : "",
                                                   json_is_number(value) ? " " : "", text));
    return one;
}

json_t *fig_each(const hs_plan *plan, const json_t *spec, size_t number)
{
    const char *axis = json_string_value(json_object_get(spec, "each"));
    json_t *figures = json_array(), *seen = json_object();
    if (!axis) json_array_append(figures, (json_t *)spec);
    for (size_t i = 0; axis && i < plan->ncells; i++) {
        const json_t *value = fig_value_in(&plan->cell[i], axis);
        char *text = fig_value_text(&plan->cell[i], axis);
        if (value && fig_wants(spec, &plan->cell[i]) && !json_object_get(seen, text)) {
            json_object_set_new(seen, text, json_true());
            json_array_append_new(figures, figure_for(spec, number, axis, value, text));
        }
        free(text);
    }
    json_decref(seen);
    return figures;
}

/* ---- against the plan --------------------------------------------------------------------------------------------- */
/* Whether the figure has a series of that name; the names that it has go into names. */
static int has_series(const hs_plan *plan, const json_t *spec, const char *wanted, json_t *names)
{
    json_t *split = fig_splitting_axes(plan, spec);
    for (size_t i = 0; i < plan->ncells; i++) {
        if (!fig_wants(spec, &plan->cell[i])) continue;
        char *name = fig_series_name(&plan->cell[i], spec, split);
        json_object_set_new(names, name, json_true());
        free(name);
    }
    json_decref(split);
    return json_object_get(names, wanted) != NULL;
}

/* Nothing selected, or no such baseline, in one figure; -1 with a sentence. */
static int fits_plan(const hs_plan *plan, const json_t *spec, char *why, size_t nwhy)
{
    const char *baseline = fig_baseline(spec), *list[512], *name;
    size_t n = 0;
    json_t *names = json_object(), *ignored;
    int found = has_series(plan, spec, baseline ? baseline : "", names);
    json_object_foreach(names, name, ignored) {
        if (n < 512) list[n++] = name;
    }
    const char *near = baseline ? hs_nearest(baseline, list, n) : NULL;
    if (n == 0) snprintf(why, nwhy, "no cell of this sweep is as `where` of the figure says");
    else if (baseline && !found)
        snprintf(why, nwhy, "the figure has no series '%s' for a baseline%s%s%s", baseline, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
    json_decref(names);
    return n == 0 || (baseline && !found) ? -1 : 0;
}

int hs_figure_check_plan(const hs_plan *plan, const json_t *figure, char *why, size_t nwhy)
{
    if (!json_object_get(figure, "where") && !json_object_get(figure, "each") && !fig_baseline(figure)) return 0;
    json_t *all = fig_each(plan, figure, 1), *one;
    size_t i;
    int rc = 0;
    json_array_foreach(all, i, one) {
        if (rc == 0) rc = fits_plan(plan, one, why, nwhy);
    }
    if (json_array_size(all) == 0) {
        snprintf(why, nwhy, "no cell of this sweep is as `where` and `each` of the figure say");
        rc = -1;
    }
    json_decref(all);
    return rc;
}
