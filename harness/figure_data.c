/* figure_data.c - from cells and metrics to series of points. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_internal.h"
#include "sql.h"
#include "stats.h"
#include "table.h"

const char *fig_x(const json_t *spec)
{
    const char *x = json_string_value(json_object_get(spec, "x"));
    return x ? x : "step";
}

const char *fig_y(const json_t *spec)
{
    return json_string_value(json_object_get(spec, "y"));
}

/* The name without its "task.", "variant." or "train.". */
static const char *bare(const char *name)
{
    static const char *const prefixes[] = { "task.", "variant.", "train." };
    for (int i = 0; i < 3; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) return name + strlen(prefixes[i]);
    return name;
}

/* What a name means in a cell: an axis, else an option, else a field such as seed.  NULL: nothing. */
static const json_t *value_in(const hs_cell *cell, const char *name)
{
    const struct { const char *prefix; const json_t *map; } place[] = {
        { "task.", json_object_get(json_object_get(cell->doc, "task"), "options") },
        { "variant.", json_object_get(json_object_get(cell->doc, "variant"), "options") },
        { "train.", json_object_get(cell->doc, "train") } };
    const json_t *v = json_object_get(cell->axes, name);
    for (size_t i = 0; !v && i < sizeof place / sizeof *place; i++)
        if (bare(name) == name || strncmp(name, place[i].prefix, strlen(place[i].prefix)) == 0)
            v = json_object_get(place[i].map, bare(name));
    return v ? v : json_object_get(cell->doc, name);
}

/* Text of an axis's value for a legend; the caller frees. */
static char *value_text(const hs_cell *cell, const char *axis)
{
    const json_t *v = strcmp(axis, "variant") == 0 ? NULL : value_in(cell, axis);
    char number[32];
    if (!v) return strdup(strcmp(axis, "variant") == 0 ? cell->label : "");
    if (json_is_string(v)) return strdup(json_string_value(v));
    if (!json_is_real(v)) return json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    hs_exact(json_real_value(v), number);
    return strdup(number);
}

/* The axis that names the series. */
static const char *series_axis(const json_t *spec)
{
    const char *axis = json_string_value(json_object_get(spec, "series"));
    return axis ? axis : "variant";
}

/* Whether an axis may have to be added to a series' name: not the x axis, not the seed, not the name itself. */
static int could_split(const json_t *spec, const char *axis)
{
    return strcmp(axis, bare(fig_x(spec))) != 0 && strcmp(axis, fig_x(spec)) != 0 && strcmp(axis, "seed") != 0 &&
           strcmp(axis, series_axis(spec)) != 0;
}

/* {name: {axis: true}}: the axes that take more than one value among the cells of one name, so that points which
 * differ in more than the seed are never averaged. */
static json_t *splitting_axes(const hs_plan *plan, const json_t *spec)
{
    json_t *seen = json_object(), *split = json_object();
    for (size_t i = 0; i < plan->ncells; i++) {
        const hs_cell *cell = &plan->cell[i];
        char *name = value_text(cell, series_axis(spec));
        if (!json_object_get(seen, name)) {
            json_object_set_new(seen, name, json_object());
            json_object_set_new(split, name, json_object());
        }
        const char *axis;
        json_t *ignored;
        json_object_foreach(cell->axes, axis, ignored) {
            if (!could_split(spec, axis)) continue;
            char *text = value_text(cell, axis);
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

/* The name of a cell's series; the caller frees. */
static char *series_name(const hs_cell *cell, const json_t *spec, const json_t *split)
{
    char *name = value_text(cell, series_axis(spec));
    const json_t *axes = json_object_get(split, name);
    const char *axis;
    json_t *ignored;
    json_object_foreach(cell->axes, axis, ignored) {
        if (!json_object_get(axes, axis)) continue;
        char *text = value_text(cell, axis), *longer = NULL;
        int n = strcmp(axis, "variant") == 0 ? asprintf(&longer, "%s, %s", name, text)
                                             : asprintf(&longer, "%s, %s=%s", name, axis, text);
        free(text);
        if (n < 0) break;
        free(name);
        name = longer;
    }
    return name;
}

int fig_add_series(fig *f, const char *name, int published)
{
    fig_series *grown = realloc(f->series, (f->nseries + 1) * sizeof *grown);
    if (!grown) return -1;
    f->series = grown;
    f->series[f->nseries] = (fig_series){ .name = strdup(name), .published = published, .style = f->nseries };
    return (int)f->nseries++;
}

/* The series of that name among ours, made when there is none. */
static int find_series(fig *f, const char *name)
{
    for (size_t i = 0; i < f->nseries; i++)
        if (strcmp(f->series[i].name, name) == 0) return (int)i;
    return fig_add_series(f, name, 0);
}

int fig_add_point(fig_series *s, fig_point p)
{
    if ((s->npoints & (s->npoints - 1)) == 0) {     /* a power of two is full */
        fig_point *grown = realloc(s->point, (s->npoints ? 2 * s->npoints : 1) * sizeof *grown);
        if (!grown) return -1;
        s->point = grown;
    }
    s->point[s->npoints++] = p;
    return 0;
}

/* Adds what the store has of one cell: values to its series, or a mark.  The last x with a value is *last. */
static int add_values(fig *f, sqlite3_stmt *values, const hs_cell *cell, size_t series, double x, int done, double *last)
{
    int rc = hs_sql_bind(values, "tt", cell->key, fig_y(f->spec));
    if (rc != SQLITE_OK) return -1;
    while ((rc = sqlite3_step(values)) == SQLITE_ROW) {
        double y = sqlite3_column_type(values, 1) == SQLITE_NULL ? NAN : sqlite3_column_double(values, 1);
        if (f->curve) *last = x = (double)sqlite3_column_int64(values, 0);
        if ((f->curve || done) && fig_add_point(&f->series[series], (fig_point){ x, y, y, y, 1 }) != 0) return -1;
    }
    return rc == SQLITE_DONE ? 0 : -1;
}

/* Adds one cell of the plan to the figure. */
static int add_cell(fig *f, hs_store *store, sqlite3_stmt *values, const hs_cell *cell, size_t series, double x)
{
    hs_cell_state state;
    if (hs_store_state(store, cell->key, &state) != 0) return -1;
    int rc = 0, done = state.status == HS_DONE;
    double last = x;
    f->cells++;
    if (state.status == HS_PLANNED || state.status == HS_RUNNING || state.status == HS_INTERRUPTED) f->missing++;
    else rc = add_values(f, values, cell, series, x, done, &last);
    if (rc == 0 && !done && (hs_status_final(state.status) || state.status == HS_CRASHED)) {
        fig_mark *grown = realloc(f->mark, (f->nmarks + 1) * sizeof *grown);
        if (!grown) rc = -1;
        else {
            f->mark = grown;
            f->mark[f->nmarks++] = (fig_mark){ last, series, state.status, state.reason };
            state.reason = NULL;
        }
    }
    free(state.reason);
    return rc;
}

/* By x. */
static int by_x(const void *a, const void *b)
{
    double x = ((const fig_point *)a)->x, y = ((const fig_point *)b)->x;
    return (x > y) - (x < y);
}

/* Points at one x become their mean with its interval; those without a number are counted and left out. */
static void merge_points(fig *f, fig_series *s)
{
    size_t kept = 0, merged = 0;
    for (size_t i = 0; i < s->npoints; i++) {
        if (isfinite(s->point[i].y)) s->point[kept++] = s->point[i];
        else f->dropped++;
    }
    if (kept == 0) {
        s->npoints = 0;
        return;
    }
    qsort(s->point, kept, sizeof *s->point, by_x);
    double *y = calloc(kept, sizeof *y);
    for (size_t i = 0, n; y && i < kept; i += n) {
        for (n = 0; i + n < kept && s->point[i + n].x == s->point[i].x; n++) y[n] = s->point[i + n].y;
        hs_interval r = hs_mean_interval(y, n);
        s->point[merged++] = (fig_point){ s->point[i].x, r.mean, r.low, r.high, n };
    }
    s->npoints = merged;
    free(y);
}

/* The row of a list of maps whose "name" is that, or NULL. */
static const json_t *named(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)list, i, row) {
        const char *n = json_string_value(json_object_get(row, "name"));
        if (n && strcmp(n, name) == 0) return row;
    }
    return NULL;
}

/* What the catalog says of a name: a row with help, or NULL. */
static const json_t *described(const hs_plan *plan, const char *name, const char *list)
{
    if (!plan->catalog || plan->ncells == 0) return NULL;
    const char *task = json_string_value(json_object_get(json_object_get(plan->cell[0].doc, "task"), "name"));
    return named(json_object_get(hs_catalog_task(plan->catalog, task), list), bare(name));
}

/* The title of an axis: as written, else the help with its unit, else the name; the caller frees. */
static char *axis_title(const json_t *spec, const char *key, const char *name, const json_t *row)
{
    const char *written = json_string_value(json_object_get(spec, key)), *unit = json_string_value(json_object_get(row, "unit"));
    const char *help = json_string_value(json_object_get(row, "help"));
    char *title = NULL;
    if (written) return strdup(written);
    if (!help || strlen(help) > 48) help = bare(name);
    if (!unit || strcmp(unit, "1") == 0) return strdup(help);
    return asprintf(&title, "%s (%s)", help, unit) < 0 ? NULL : title;
}

void fig_safe_name(const char *name, char out[80])
{
    snprintf(out, 80, "%.70s", name);
    for (char *p = out; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", *p)) *p = '_';
}

/* A number of the figure's map, NaN when it is not there. */
static double number_of(const json_t *spec, const char *key)
{
    const json_t *v = json_object_get(spec, key);
    return v ? json_number_value(v) : NAN;
}

/* Goes through the cells of the plan. */
static int collect_cells(fig *f, hs_store *store, const hs_plan *plan, const json_t *split, char *why, size_t nwhy)
{
    sqlite3_stmt *values = hs_sql_ask(hs_store_sql(store), f->curve
        ? "SELECT step, value FROM v_metrics WHERE cell_key=? AND metric=? ORDER BY step"
        : "SELECT step, value FROM v_metrics WHERE cell_key=? AND metric=? ORDER BY step DESC LIMIT 1", "");
    int rc = values ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < plan->ncells; i++) {
        const hs_cell *cell = &plan->cell[i];
        const json_t *x = f->curve ? NULL : value_in(cell, fig_x(f->spec));
        if (!f->curve && !json_is_number(x)) {
            snprintf(why, nwhy, "figure %s: x '%s' is %s", f->name, fig_x(f->spec),
                     x ? "not a number" : "neither an axis nor an option");
            sqlite3_finalize(values);
            return -1;
        }
        char *name = series_name(cell, f->spec, split);
        int series = find_series(f, name);
        rc = series < 0 ? -1 : add_cell(f, store, values, cell, (size_t)series, json_number_value(x));
        free(name);
    }
    if (rc != 0) snprintf(why, nwhy, "figure %s: %s", f->name, sqlite3_errmsg(hs_store_sql(store)));
    sqlite3_finalize(values);
    return rc;
}

int fig_collect(fig *f, hs_store *store, const hs_plan *plan, const json_t *spec, size_t number, char *why, size_t nwhy)
{
    const char *kind = json_string_value(json_object_get(spec, "kind"));
    *f = (fig){ .spec = spec, .curve = kind && strcmp(kind, "curve") == 0, .xcap = number_of(spec, "xmax"),
                .ycap = number_of(spec, "ymax"), .logx = json_is_true(json_object_get(spec, "logx")),
                .logy = json_is_true(json_object_get(spec, "logy")) };
    if (json_object_get(spec, "name")) fig_safe_name(json_string_value(json_object_get(spec, "name")), f->name);
    if (!*f->name) snprintf(f->name, sizeof f->name, "%zu", number);
    f->title = strdup(json_string_value(json_object_get(spec, "title")) ? json_string_value(json_object_get(spec, "title")) : "");
    f->xlabel = axis_title(spec, "xlabel", fig_x(spec), f->curve ? NULL : described(plan, fig_x(spec), "options"));
    f->ylabel = axis_title(spec, "ylabel", fig_y(spec), described(plan, fig_y(spec), "metrics"));
    json_t *split = splitting_axes(plan, spec);
    int rc = collect_cells(f, store, plan, split, why, nwhy);
    for (size_t i = 0; rc == 0 && i < f->nseries; i++) merge_points(f, &f->series[i]);
    f->ours = f->nseries;
    json_decref(split);
    return rc;
}

void fig_measure(fig *f)
{
    f->xmin = f->ymin = INFINITY;
    f->xmax = f->ymax = -INFINITY;
    for (size_t i = 0; i < f->nseries; i++) {
        fig_series *s = &f->series[i];
        size_t kept = 0;
        for (size_t k = 0; k < s->npoints; k++) {
            fig_point p = s->point[k];
            if ((f->logx && p.x <= 0) || (f->logy && p.y <= 0)) {
                f->dropped++;
                continue;
            }
            if (f->logy && p.low <= 0) p.low = p.y;     /* the band ends at the axis, wherever that is: see low in the data */
            f->xmin = fmin(f->xmin, p.x);
            f->xmax = fmax(f->xmax, p.x);
            f->ymin = fmin(f->ymin, p.y >= 0 && p.low < 0 ? 0 : p.low);     /* a loss is not negative, its band may be */
            f->ymax = fmax(f->ymax, p.high);
            s->point[kept++] = s->point[k];
        }
        s->npoints = kept;
    }
    for (size_t i = 0; i < f->nmarks; i++) {
        if (f->logx && f->mark[i].x <= 0) f->mark[i].x = isfinite(f->xmin) ? f->xmin : 1;
        f->xmin = fmin(f->xmin, f->mark[i].x);
        f->xmax = fmax(f->xmax, f->mark[i].x);
    }
}

void fig_release(fig *f)
{
    for (size_t i = 0; i < f->nseries; i++) {
        free(f->series[i].name);
        free(f->series[i].point);
    }
    for (size_t i = 0; i < f->nmarks; i++) free(f->mark[i].reason);
    free(f->series);
    free(f->mark);
    free(f->title);
    free(f->xlabel);
    free(f->ylabel);
    *f = (fig){ 0 };
}
