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
    return x ? x : fig_kind_of(spec) == FIG_SCALING ? "length" : "step";
}

const char *fig_y(const json_t *spec)
{
    return json_string_value(json_object_get(spec, "y"));
}

const char *fig_baseline(const json_t *spec)
{
    return json_string_value(json_object_get(spec, "baseline"));
}

const char *const fig_kind_names[FIG_KINDS] = { "line", "curve", "scaling", "pareto" };

enum fig_kind fig_kind_of(const json_t *spec)
{
    const char *name = json_string_value(json_object_get(spec, "kind"));
    int kind = 0;
    while (kind < FIG_KINDS && (!name || strcmp(fig_kind_names[kind], name) != 0)) kind++;
    return (enum fig_kind)kind;
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

/* ---- one cell ---------------------------------------------------------------------------------------------------- */
/* What goes through the cells: the last, or for a curve every value of a metric of a cell. */
typedef struct reader { fig *f; hs_store *store; sqlite3_stmt *values; } reader;

/* The metric's value of a cell, NaN when it has none; suffix: of a metric that belongs to it. */
static double value_of(const reader *r, const hs_cell *cell, const char *metric, const char *suffix)
{
    char name[256];
    double value = NAN;
    snprintf(name, sizeof name, "%s%s", metric, suffix);
    if (hs_sql_bind(r->values, "tt", cell->key, name) == SQLITE_OK && sqlite3_step(r->values) == SQLITE_ROW &&
        sqlite3_column_type(r->values, 1) != SQLITE_NULL)
        value = sqlite3_column_double(r->values, 1);
    return value;
}

/* The number of the group of a cell: those that differ in the seed alone are of one. */
static size_t group_of(fig *f, const hs_cell *cell)
{
    json_t *axes = json_copy(cell->axes);
    json_object_del(axes, "seed");
    char *text = json_dumps(axes, JSON_SORT_KEYS | JSON_COMPACT);
    if (!json_object_get(f->groups, text)) json_object_set_new(f->groups, text, json_integer((json_int_t)json_object_size(f->groups)));
    size_t group = (size_t)json_integer_value(json_object_get(f->groups, text));
    free(text);
    json_decref(axes);
    return group;
}

/* The point of one finished cell.  Of a measured time the store has quantiles and an interval of the median as well. */
static fig_point point_of(const reader *r, const hs_cell *cell, double x)
{
    const char *y = fig_y(r->f->spec), *bars = json_string_value(json_object_get(r->f->spec, "bars"));
    double value = value_of(r, cell, y, "");
    fig_point p = { .x = x, .y = value, .low = value, .high = value, .n = 1 };
    if (r->f->kind == FIG_PARETO || json_object_get(r->f->spec, "best")) p.group = group_of(r->f, cell);
    if (r->f->kind == FIG_PARETO) {
        p.x = p.xlow = p.xhigh = value_of(r, cell, fig_x(r->f->spec), "");
    } else if (r->f->kind == FIG_SCALING) {
        double lo = value_of(r, cell, y, "_low"), hi = value_of(r, cell, y, "_high");
        double p20 = value_of(r, cell, y, "_p20"), p80 = value_of(r, cell, y, "_p80");
        int interval = bars && strcmp(bars, "interval") == 0;
        p.low = interval ? lo : p20;
        p.high = interval ? hi : p80;
        p.error = lo > 0 && hi >= lo ? (log(hi) - log(lo)) / (2 * 1.959963984540054) : NAN;
        if (!(p.low <= value && value <= p.high)) p.low = p.high = value;       /* not stored */
    }
    return p;
}

/* Adds what the store has of one cell: values to its series, or a mark.  The last x with a value is *last. */
static int add_values(const reader *r, const hs_cell *cell, fig_series *s, double x, int done, double *last)
{
    if (r->f->kind != FIG_CURVE) {
        fig_point p = done ? point_of(r, cell, x) : (fig_point){ .n = 0 };
        return done ? fig_add_point(s, p) : 0;
    }
    int rc = hs_sql_bind(r->values, "tt", cell->key, fig_y(r->f->spec));
    if (rc != SQLITE_OK) return -1;
    while ((rc = sqlite3_step(r->values)) == SQLITE_ROW) {
        double y = sqlite3_column_type(r->values, 1) == SQLITE_NULL ? NAN : sqlite3_column_double(r->values, 1);
        *last = (double)sqlite3_column_int64(r->values, 0);
        if (fig_add_point(s, (fig_point){ .x = *last, .y = y, .low = y, .high = y, .n = 1 }) != 0) return -1;
    }
    return rc == SQLITE_DONE ? 0 : -1;
}

/* Adds one cell of the plan to the figure. */
static int add_cell(const reader *r, const hs_cell *cell, size_t series, double x)
{
    fig *f = r->f;
    hs_cell_state state;
    if (hs_store_state(r->store, cell->key, &state) != 0) return -1;
    int rc = 0, done = state.status == HS_DONE;
    double last = x;
    f->cells++;
    if (state.status == HS_PLANNED || state.status == HS_RUNNING || state.status == HS_INTERRUPTED) f->missing++;
    else rc = add_values(r, cell, &f->series[series], x, done, &last);
    if (rc == 0 && !done && (hs_status_final(state.status) || state.status == HS_CRASHED)) {
        fig_mark *grown = realloc(f->mark, (f->nmarks + 1) * sizeof *grown);
        if (!grown) rc = -1;
        else {
            f->mark = grown;
            f->mark[f->nmarks++] = (fig_mark){ .x = last, .series = series, .status = state.status, .reason = state.reason };
            state.reason = NULL;
        }
    }
    free(state.reason);
    return rc;
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */
/* By x; pareto: by group. */
static int by_place(const void *a, const void *b)
{
    const fig_point *p = a, *q = b;
    if (p->group != q->group) return p->group < q->group ? -1 : 1;
    return (p->x > q->x) - (p->x < q->x);
}

/* Whether two points differ in the seed alone. */
static int is_same_place(const fig *f, const fig_point *p, const fig_point *q)
{
    return p->group == q->group && (f->kind == FIG_PARETO || p->x == q->x);
}

/* Points of several seeds as one: means with their intervals. */
static fig_point mean_of(const fig *f, const fig_point *p, size_t n, double *room)
{
    fig_point m = p[0];
    if (n == 1) return m;
    for (size_t i = 0; i < n; i++) room[i] = p[i].y;
    hs_interval y = hs_mean_interval(room, n);
    m.y = y.mean;
    m.low = y.low;
    m.high = y.high;
    m.n = n;
    m.error = hs_deviation(room, n) / sqrt((double)n) / fabs(y.mean);
    if (f->kind != FIG_PARETO) return m;
    for (size_t i = 0; i < n; i++) room[i] = p[i].x;
    hs_interval x = hs_mean_interval(room, n);
    m.x = x.mean;
    m.xlow = x.low;
    m.xhigh = x.high;
    return m;
}

/* By x alone. */
static int by_x(const void *a, const void *b)
{
    const fig_point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

/* Of the points at one x, each the mean of its seeds, the best stays. */
static void keep_best(const fig *f, fig_series *s)
{
    size_t kept = 0;
    if (s->npoints) qsort(s->point, s->npoints, sizeof *s->point, by_x);
    for (size_t i = 0; i < s->npoints; i++) {
        if (kept == 0 || s->point[kept - 1].x != s->point[i].x) s->point[kept++] = s->point[i];
        else if (f->ybetter * (s->point[i].y - s->point[kept - 1].y) > 0) s->point[kept - 1] = s->point[i];
    }
    s->npoints = kept;
}

/* Points at one place become their mean with its interval; those without a number are counted and left out. */
static void merge_points(fig *f, fig_series *s)
{
    size_t kept = 0, merged = 0;
    for (size_t i = 0; i < s->npoints; i++) {
        if (isfinite(s->point[i].y) && isfinite(s->point[i].x)) s->point[kept++] = s->point[i];
        else f->dropped++;
    }
    double *room = calloc(kept + 1, sizeof *room);
    if (kept) qsort(s->point, kept, sizeof *s->point, by_place);
    for (size_t i = 0, n; room && i < kept; i += n) {
        for (n = 1; i + n < kept && is_same_place(f, &s->point[i], &s->point[i + n]);) n++;
        s->point[merged++] = mean_of(f, &s->point[i], n, room);
    }
    s->npoints = merged;
    free(room);
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */
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
    return named(json_object_get(hs_catalog_task(plan->catalog, task), list), fig_bare(name));
}

/* The title of an axis: as written, else the help with its unit, else the name; the caller frees. */
static char *axis_title(const json_t *spec, const char *key, const char *name, const json_t *row)
{
    const char *written = json_string_value(json_object_get(spec, key)), *unit = json_string_value(json_object_get(row, "unit"));
    const char *help = json_string_value(json_object_get(row, "help"));
    char *title = NULL;
    if (written) return strdup(written);
    if (!help || strlen(help) > 48) help = fig_bare(name);
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

/* Whether less (-1) or more (1) of a metric is better; what nobody says counts as def. */
static int better_of(const hs_plan *plan, const char *name, int def)
{
    int better = (int)json_integer_value(json_object_get(described(plan, name, "metrics"), "better"));
    return better ? better : def;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */
/* Goes through the cells of the plan. */
static int collect_cells(fig *f, hs_store *store, const hs_plan *plan, const json_t *split, char *why, size_t nwhy)
{
    const reader r = { f, store, hs_sql_ask(hs_store_sql(store), f->kind == FIG_CURVE
        ? "SELECT step, value FROM v_metrics WHERE cell_key=? AND metric=? ORDER BY step"
        : "SELECT step, value FROM v_metrics WHERE cell_key=? AND metric=? ORDER BY step DESC LIMIT 1", "") };
    int rc = r.values ? 0 : -1, has_x = f->kind == FIG_LINE || f->kind == FIG_SCALING;
    for (size_t i = 0; rc == 0 && i < plan->ncells; i++) {
        const hs_cell *cell = &plan->cell[i];
        const json_t *x = has_x ? fig_value_in(cell, fig_x(f->spec)) : NULL;
        if (!fig_wants(f->spec, cell)) continue;
        if (has_x && !json_is_number(x)) {
            snprintf(why, nwhy, "figure %s: x '%s' is %s", f->name, fig_x(f->spec),
                     x ? "not a number" : "neither an axis nor an option");
            sqlite3_finalize(r.values);
            return -1;
        }
        char *name = fig_series_name(cell, f->spec, split);
        int series = find_series(f, name);
        rc = series < 0 ? -1 : add_cell(&r, cell, (size_t)series, has_x ? json_number_value(x) : NAN);
        free(name);
    }
    if (rc != 0) snprintf(why, nwhy, "figure %s: %s", f->name, sqlite3_errmsg(hs_store_sql(store)));
    sqlite3_finalize(r.values);
    return rc;
}

/* The head of a figure: what its map and the catalog say. */
static void begin(fig *f, const hs_plan *plan, const json_t *spec, size_t number)
{
    const char *name = json_string_value(json_object_get(spec, "name")), *title = json_string_value(json_object_get(spec, "title"));
    enum fig_kind kind = fig_kind_of(spec);
    const json_t *y = described(plan, fig_y(spec), "metrics");
    const char *unit = json_string_value(json_object_get(y, "unit"));
    *f = (fig){ .spec = spec, .kind = kind, .xcap = number_of(spec, "xmax"), .ycap = number_of(spec, "ymax"),
                .yfloor = number_of(spec, "ymin"),
                .logx = kind == FIG_SCALING || json_is_true(json_object_get(spec, "logx")),
                .logy = kind == FIG_SCALING || json_is_true(json_object_get(spec, "logy")), .baseline = -1,
                .groups = json_object() };
    if (name) fig_safe_name(name, f->name);
    if (!*f->name) snprintf(f->name, sizeof f->name, "%zu", number);
    f->title = strdup(title ? title : "");
    f->xlabel = axis_title(spec, "xlabel", fig_x(spec), described(plan, fig_x(spec), kind == FIG_PARETO ? "metrics" :
                           kind == FIG_CURVE ? "" : "options"));
    f->ylabel = axis_title(spec, "ylabel", fig_y(spec), y);
    f->yunit = strdup(unit ? unit : "1");
    f->xbetter = better_of(plan, fig_x(spec), -1);
    f->ybetter = better_of(plan, fig_y(spec), 1);
}

int fig_collect(fig *f, hs_store *store, const hs_plan *plan, const json_t *spec, size_t number, char *why, size_t nwhy)
{
    begin(f, plan, spec, number);
    json_t *split = f->kind == FIG_PARETO ? json_object() : fig_splitting_axes(plan, spec);
    int rc = collect_cells(f, store, plan, split, why, nwhy);
    for (size_t i = 0; rc == 0 && i < f->nseries; i++) {
        merge_points(f, &f->series[i]);
        if (json_object_get(spec, "best")) keep_best(f, &f->series[i]);
        if (fig_baseline(spec) && strcmp(f->series[i].name, fig_baseline(spec)) == 0) f->baseline = (int)i;
    }
    f->ours = f->nseries;
    json_decref(split);
    return rc;
}

/* The place of every mark below the upper edge: the marks of one series in one line; in a scaling figure, where many
 * series may end at one length, those of one length above each other. */
static void place_marks(fig *f)
{
    for (size_t i = 0; i < f->nmarks; i++) {
        fig_mark *m = &f->mark[i];
        size_t row = 0;
        for (size_t s = 0; s < m->series; s++) {
            size_t k = 0;
            while (k < f->nmarks && (f->mark[k].series != s || (f->kind == FIG_SCALING && f->mark[k].x != m->x))) k++;
            row += k < f->nmarks;
        }
        m->row = row % FIG_MARK_ROWS;
        if (m->row + 1 > f->mark_rows) f->mark_rows = m->row + 1;
    }
    if (f->kind == FIG_PARETO) f->mark_rows = 0;        /* a cell that failed has no place there */
}

void fig_measure(fig *f)
{
    place_marks(f);
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
            int both = f->kind == FIG_PARETO && !(f->logx && p.xlow <= 0);      /* x has an interval to be seen */
            f->xmin = fmin(f->xmin, both ? p.xlow : p.x);
            f->xmax = fmax(f->xmax, both ? p.xhigh : p.x);
            f->ymin = fmin(f->ymin, p.y >= 0 && p.low < 0 ? 0 : p.low);     /* a loss is not negative, its band may be */
            f->ymax = fmax(f->ymax, p.high);
            s->point[kept++] = s->point[k];
        }
        s->npoints = kept;
    }
    for (size_t i = 0; i < f->nmarks; i++) {
        if (!isfinite(f->mark[i].x)) continue;
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
    free(f->yunit);
    json_decref(f->groups);
    *f = (fig){ 0 };
}
