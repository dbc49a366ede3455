/* cmd_show.c - `harness show FILE|NAME`: one row per cell with its axes, status, reason and metrics. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "command.h"
#include "options.h"
#include "protocol.h"
#include "sql.h"
#include "view.h"

/* The metrics that the cells have: {name: true}. */
static json_t *metrics_of(sqlite3 *db, const hs_plan *plan, const char *experiment)
{
    json_t *names = json_object();
    sqlite3_stmt *row = plan ? hs_sql_ask(db, "SELECT DISTINCT metric FROM v_metrics WHERE cell_key=?", "")
                             : hs_sql_ask(db, "SELECT DISTINCT m.metric FROM v_metrics m JOIN v_cells c USING(cell_key) "
                                          "WHERE c.experiment=?", "t", experiment);
    for (size_t i = 0; row && i < (plan ? plan->ncells : 1); i++) {
        if (plan) hs_sql_bind(row, "t", plan->cell[i].key);
        while (sqlite3_step(row) == SQLITE_ROW) json_object_set_new(names, hs_sql_text(row, 0), json_true());
    }
    sqlite3_finalize(row);
    return names;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The metrics to show: those asked for in that order, else all in the alphabet's.  NULL after a message when there is
 * none of a name. */
static json_t *choose_metrics(const hs_view *v, json_t *present)
{
    json_t *chosen = json_array(), *ignored;
    const char **names = calloc(json_object_size(present) + 1, sizeof *names), *name;
    size_t n = 0;
    json_object_foreach(present, name, ignored) {
        if (names) names[n++] = name;
    }
    if (names) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; v->nmetrics == 0 && i < n; i++) json_array_append_new(chosen, json_string(names[i]));
    for (size_t i = 0; chosen && i < v->nmetrics; i++) {
        json_array_append_new(chosen, json_string(v->metric[i]));
        if (json_object_get(present, v->metric[i])) continue;
        const char *near = hs_nearest(v->metric[i], names, n);
        fprintf(stderr, "harness: no cell of %s has the metric '%s'%s%s%s\n", v->file, v->metric[i],
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        json_decref(chosen);
        chosen = NULL;
    }
    free(names);
    return chosen;
}

/* A table under construction: what all its rows have in common. */
typedef struct sheet {
    hs_store *store;
    hs_table *table;
    json_t *metrics;
    sqlite3_stmt *value;                /* the last value of a metric of a cell */
} sheet;

/* The column of a metric; an axis may have taken its name. */
static size_t metric_column(hs_table *t, const char *name, const json_t *axes)
{
    char longer[256];
    snprintf(longer, sizeof longer, "metric.%s", name);
    return hs_table_column(t, json_object_get(axes, name) ? longer : name);
}

/* The axes, then status and reason, then the metrics of one cell. */
static int add_row(sheet *s, const char *key, const json_t *axes)
{
    size_t row = hs_table_rows(s->table), i;
    const char *axis;
    json_t *v;
    hs_cell_state state;
    if (hs_store_state(s->store, key, &state) != 0) return -1;
    json_object_foreach((json_t *)axes, axis, v) {
        hs_table_set(s->table, row, hs_table_column(s->table, axis), json_incref(v));
    }
    hs_table_set(s->table, row, hs_table_column(s->table, "status"), json_string(hs_status_names[state.status]));
    hs_table_set(s->table, row, hs_table_column(s->table, "reason"), state.reason ? json_string(state.reason) : json_null());
    free(state.reason);
    json_array_foreach(s->metrics, i, v) {
        const char *name = json_string_value(v);
        size_t column = metric_column(s->table, name, axes);
        hs_sql_bind(s->value, "tt", key, name);
        if (sqlite3_step(s->value) != SQLITE_ROW) continue;
        double value = sqlite3_column_type(s->value, 0) == SQLITE_NULL ? NAN : sqlite3_column_double(s->value, 0);
        int whole = value == trunc(value) && fabs(value) < 1e15;        /* steps and bytes, in full */
        hs_table_set(s->table, row, column, whole ? json_integer((json_int_t)value) : hs_json_number(value));
    }
    return 0;
}

/* The columns of every axis that some cell has, before all others, so that their order is that of the file. */
static void add_axes(hs_table *t, const json_t *axes)
{
    const char *axis;
    json_t *ignored;
    json_object_foreach((json_t *)axes, axis, ignored) {
        hs_table_column(t, axis);
    }
}

/* The rows of the plan's cells. */
static int add_plan(sheet *s, const hs_plan *plan)
{
    int rc = 0;
    for (size_t i = 0; i < plan->ncells; i++) add_axes(s->table, plan->cell[i].axes);
    for (size_t i = 0; rc == 0 && i < plan->ncells; i++) rc = add_row(s, plan->cell[i].key, plan->cell[i].axes);
    return rc;
}

/* The rows of an experiment that the store knows by name. */
static int add_stored(sheet *s, const char *experiment)
{
    int rc = 0, step = SQLITE_ERROR;
    for (int pass = 0; rc == 0 && pass < 2; pass++) {
        sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s->store),
            "SELECT c.key, m.axes FROM membership m JOIN experiment e ON e.id=m.experiment JOIN cell c ON c.id=m.cell "
            "WHERE e.name=? ORDER BY m.position", "t", experiment);
        while (row && rc == 0 && (step = sqlite3_step(row)) == SQLITE_ROW) {
            json_t *axes = json_loads(hs_sql_text(row, 1), 0, NULL);
            if (pass == 0) add_axes(s->table, axes);
            else rc = add_row(s, hs_sql_text(row, 0), axes);
            json_decref(axes);
        }
        sqlite3_finalize(row);
    }
    return rc == 0 && step == SQLITE_DONE ? 0 : -1;
}

/* Fills and writes the table. */
static int show(hs_view *v, const hs_plan *plan)
{
    sqlite3 *db = hs_store_sql(v->store);
    json_t *present = metrics_of(db, plan, v->file);
    sheet s = { .store = v->store, .table = hs_table_new(), .metrics = choose_metrics(v, present),
                .value = hs_sql_ask(db, "SELECT value FROM v_metrics WHERE cell_key=? AND metric=? ORDER BY step DESC LIMIT 1", "") };
    int rc = HS_EXIT_FAILED;
    if (s.metrics && s.value) {
        rc = (plan ? add_plan(&s, plan) : add_stored(&s, v->file)) == 0 ? HS_EXIT_OK : HS_EXIT_STORE;
        if (rc == HS_EXIT_OK) hs_table_write(s.table, v->format, stdout);
        else fprintf(stderr, "harness: %s\n", hs_store_error(v->store));
    }
    sqlite3_finalize(s.value);
    hs_table_free(s.table);
    json_decref(s.metrics);
    json_decref(present);
    return rc;
}

/* Whether the store knows an experiment of that name. */
static int is_stored(hs_view *v)
{
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(v->store), "SELECT 1 FROM experiment WHERE name=?", "t", v->file);
    int found = row && sqlite3_step(row) == SQLITE_ROW;
    sqlite3_finalize(row);
    return found;
}

int cmd_show(int argc, char **argv)
{
    hs_view v;
    int rc = hs_view_parse(&v, argc, argv, HS_VIEW_METRIC | HS_VIEW_FORMAT);
    if (rc >= 0) return rc;
    int file = access(v.file, F_OK) == 0 || strchr(v.file, '/') || strstr(v.file, ".y");
    rc = file ? hs_view_plan(&v) : HS_EXIT_OK;
    if (rc == HS_EXIT_OK) rc = hs_view_store(&v, 0);
    if (rc == HS_EXIT_OK && !file && !is_stored(&v)) {
        fprintf(stderr, "harness: there is neither a file %s nor an experiment of that name in %s\n", v.file, v.db);
        rc = HS_EXIT_USAGE;
    }
    if (rc == HS_EXIT_OK) rc = show(&v, file ? &v.plan : NULL);
    hs_view_release(&v);
    return rc;
}
