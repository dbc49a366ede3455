/* store_cells.c - what is recorded: experiments and their cells, results, verdicts. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sql.h"
#include "store_internal.h"

const char *const hs_status_names[HS_STATUSES] = {
    [HS_PLANNED] = "planned", [HS_RUNNING] = "running", [HS_DONE] = "done", [HS_REFUSED] = "refused",
    [HS_WRONG] = "wrong", [HS_DIVERGED] = "diverged", [HS_OOM] = "oom", [HS_TIMEOUT] = "timeout",
    [HS_CRASHED] = "crashed", [HS_INTERRUPTED] = "interrupted" };

int hs_status_final(enum hs_status status)
{
    return status == HS_DONE || status == HS_REFUSED || status == HS_WRONG || status == HS_DIVERGED ||
           status == HS_OOM || status == HS_TIMEOUT;
}

enum hs_status store_status(const char *name)
{
    for (int i = 0; i < HS_STATUSES; i++)
        if (strcmp(hs_status_names[i], name) == 0) return (enum hs_status)i;
    return HS_PLANNED;
}

/* JSON as text with sorted keys; the caller frees. */
static char *dump(const json_t *value)
{
    return json_dumps(value, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
}

int hs_store_environment(hs_store *s, const json_t *environment)
{
    char *text = dump(environment);
    sqlite3_stmt *row = NULL;
    int ok = text && hs_sql_do(s->db, "INSERT INTO env(text, seen) VALUES(?1, ?2) ON CONFLICT(text) DO UPDATE SET seen=?2",
                               "td", text, store_now()) == SQLITE_DONE &&
             (row = hs_sql_ask(s->db, "SELECT id FROM env WHERE text=?", "t", text)) && sqlite3_step(row) == SQLITE_ROW;
    if (ok) s->env = sqlite3_column_int64(row, 0);
    sqlite3_finalize(row);
    free(text);
    return ok ? 0 : store_fail(s);
}

#define CELL_INSERT "INSERT INTO cell(key, ident, task, variant, seed, device, doc) VALUES(?,?,?,?,?,?,?) " \
                    "ON CONFLICT(key) DO NOTHING"

/* Binds a cell to CELL_INSERT and runs it; a key that an older experiment has computed stays as it is. */
static int put_cell(sqlite3_stmt *insert, const hs_cell *cell)
{
    char *doc = dump(cell->doc);
    const json_t *task = json_object_get(cell->doc, "task"), *variant = json_object_get(cell->doc, "variant");
    sqlite3_int64 seed = json_integer_value(json_object_get(cell->doc, "seed"));
    int ok = doc && hs_sql_bind(insert, "ttttitt", cell->key, cell->ident, json_string_value(json_object_get(task, "name")),
                                json_string_value(json_object_get(variant, "name")), seed,
                                json_string_value(json_object_get(cell->doc, "device")), doc) == SQLITE_OK &&
             sqlite3_step(insert) == SQLITE_DONE;
    free(doc);
    return ok;
}

/* The experiment's row, made or brought up to date; 0 on failure. */
static sqlite3_int64 put_experiment(hs_store *s, const hs_plan *plan)
{
    char *text = dump(plan->text);
    sqlite3_int64 id = 0;
    sqlite3_stmt *row = text ? hs_sql_ask(s->db,
        "INSERT INTO experiment(name, file, about, text, planned, env) VALUES(?,?,?,?,?,nullif(?,0)) ON CONFLICT(name) DO UPDATE "
        "SET file=excluded.file, about=excluded.about, text=excluded.text, planned=excluded.planned, env=excluded.env "
        "RETURNING id", "ttttdi", plan->experiment, plan->file, plan->about, text, store_now(), s->env) : NULL;
    if (row && sqlite3_step(row) == SQLITE_ROW) id = sqlite3_column_int64(row, 0);
    if (sqlite3_finalize(row) != SQLITE_OK) id = 0;
    free(text);
    return id;
}

/* Records the cells and that they belong to the experiment, in the plan's order; the same question under an older key
 * (another build of its variant) leaves the experiment. */
static int put_cells(hs_store *s, const hs_plan *plan, sqlite3_int64 experiment)
{
    sqlite3_stmt *insert = hs_sql_ask(s->db, CELL_INSERT, "");
    sqlite3_stmt *join = hs_sql_ask(s->db, "INSERT OR REPLACE INTO membership(experiment, cell, position, label, axes) "
                                    "SELECT ?, id, ?, ?, ? FROM cell WHERE key=?", "");
    sqlite3_stmt *part = hs_sql_ask(s->db, "DELETE FROM membership WHERE experiment=? AND cell IN "
                                    "(SELECT id FROM cell WHERE ident=? AND key<>?)", "");
    int ok = insert && join && part;
    for (size_t i = 0; ok && i < plan->ncells; i++) {
        const hs_cell *cell = &plan->cell[i];
        char *axes = json_dumps(cell->axes, JSON_COMPACT);      /* in the file's order */
        ok = axes && put_cell(insert, cell) &&
             hs_sql_bind(join, "iittt", experiment, (sqlite3_int64)i, cell->label, axes, cell->key) == SQLITE_OK &&
             sqlite3_step(join) == SQLITE_DONE &&
             hs_sql_bind(part, "itt", experiment, cell->ident, cell->key) == SQLITE_OK && sqlite3_step(part) == SQLITE_DONE;
        free(axes);
    }
    sqlite3_finalize(part);
    sqlite3_finalize(insert);
    sqlite3_finalize(join);
    return ok;
}

int hs_store_plan(hs_store *s, const hs_plan *plan)
{
    if (store_begin(s) != 0) return -1;
    sqlite3_int64 id = 0;
    int ok = store_reap(s) == 0 && (id = put_experiment(s, plan)) != 0 &&
             (plan->partial || hs_sql_do(s->db, "DELETE FROM membership WHERE experiment=?", "i", id) == SQLITE_DONE) &&
             put_cells(s, plan, id);
    return store_end(s, ok);
}

/* Writes the values of a result; of two values at one step the last stays. */
static int put_values(hs_store *s, sqlite3_int64 cell, const hs_result *r)
{
    sqlite3_stmt *insert = hs_sql_ask(s->db, "INSERT OR REPLACE INTO metric(cell, name, step, value, unit) "
                                      "VALUES(?,?,?,?,?)", "");
    int ok = insert != NULL;
    for (size_t i = 0; ok && i < r->nvalues; i++) {
        const hs_value *v = &r->value[i];
        const char *unit = v->unit ? v->unit : "1";
        ok = hs_sql_bind(insert, "itidt", cell, v->metric, (sqlite3_int64)v->step, v->value, unit) == SQLITE_OK &&
             sqlite3_step(insert) == SQLITE_DONE;
    }
    sqlite3_finalize(insert);
    return ok;
}

/* Replaces what an unfinished attempt left by this result. */
static int put_result(hs_store *s, sqlite3_int64 cell, const hs_result *r)
{
    return hs_sql_do(s->db, "DELETE FROM metric WHERE cell=?", "i", cell) == SQLITE_DONE &&
           hs_sql_do(s->db, "DELETE FROM log WHERE cell=?", "i", cell) == SQLITE_DONE &&
           hs_sql_do(s->db, "UPDATE cell SET status=?, reason=?, seconds=?, started=coalesce(started, ?), env=nullif(?,0) "
                     "WHERE id=?", "ttddii", hs_status_names[r->status], r->reason, r->seconds, store_now() - r->seconds,
                     s->env, cell) == SQLITE_DONE &&
           put_values(s, cell, r) &&
           (!r->log || !*r->log ||
            hs_sql_do(s->db, "INSERT INTO log(cell, text) VALUES(?,?)", "it", cell, r->log) == SQLITE_DONE);
}

int hs_store_finish(hs_store *s, const hs_cell *cell, const hs_result *r)
{
    if (store_begin(s) != 0) return -1;
    sqlite3_stmt *insert = hs_sql_ask(s->db, CELL_INSERT, ""), *row = NULL;
    int ok = insert && put_cell(insert, cell) &&
             (row = hs_sql_ask(s->db, "SELECT id, status FROM cell WHERE key=?", "t", cell->key)) &&
             sqlite3_step(row) == SQLITE_ROW;
    sqlite3_int64 id = ok ? sqlite3_column_int64(row, 0) : 0;
    int final = ok && hs_status_final(store_status(hs_sql_text(row, 1)));
    sqlite3_finalize(row);
    sqlite3_finalize(insert);
    ok = ok && (final || put_result(s, id, r)) &&
         hs_sql_do(s->db, "DELETE FROM claim WHERE cell=?", "i", id) == SQLITE_DONE;
    return store_end(s, ok);
}

int hs_store_reopen(hs_store *s, const hs_plan *plan, unsigned statuses)
{
    if (store_begin(s) != 0) return -1;
    sqlite3_stmt *update = hs_sql_ask(s->db, "UPDATE cell SET status='planned', reason=NULL, seconds=NULL, started=NULL "
                                      "WHERE key=? AND status=? AND id NOT IN (SELECT cell FROM claim)", "");
    int ok = update != NULL, reopened = 0;
    for (size_t i = 0; ok && i < plan->ncells; i++)
        for (int status = 0; ok && status < HS_STATUSES; status++) {
            if (!(statuses & 1u << status)) continue;
            ok = hs_sql_bind(update, "tt", plan->cell[i].key, hs_status_names[status]) == SQLITE_OK &&
                 sqlite3_step(update) == SQLITE_DONE;
            reopened += ok ? sqlite3_changes(s->db) : 0;
        }
    sqlite3_finalize(update);
    return store_end(s, ok) == 0 ? reopened : -1;
}

int hs_store_verdict_get(hs_store *s, const char *digest, int *ok, char **reason)
{
    *reason = NULL;
    sqlite3_stmt *row = hs_sql_ask(s->db, "SELECT ok, reason FROM verdict WHERE digest=?", "t", digest);
    int rc = row ? sqlite3_step(row) : SQLITE_ERROR;
    if (rc == SQLITE_ROW) {
        *ok = sqlite3_column_int(row, 0);
        if (sqlite3_column_type(row, 1) != SQLITE_NULL) *reason = strdup(hs_sql_text(row, 1));
    }
    sqlite3_finalize(row);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : store_fail(s);
}

int hs_store_verdict_put(hs_store *s, const char *digest, int ok, const char *reason, const json_t *report)
{
    char *text = report ? dump(report) : NULL;
    int rc = hs_sql_do(s->db, "INSERT OR REPLACE INTO verdict(digest, ok, reason, report, time) VALUES(?,?,?,?,?)", "tittd",
                       digest, (sqlite3_int64)(ok != 0), reason, text, store_now());
    free(text);
    return rc == SQLITE_DONE ? 0 : store_fail(s);
}
