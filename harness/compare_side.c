/* compare_side.c - one side of a comparison: which cells it has. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "compare.h"
#include "sql.h"

/* ---- what was asked for ------------------------------------------------------------------------------------------ */
typedef struct request { char *db, *experiment, *commit; } request;    /* NULL: any */

static void request_release(request *r)
{
    free(r->db);
    free(r->experiment);
    free(r->commit);
}

/* Whether the text is the beginning of a commit's name. */
static int is_hex(const char *text)
{
    size_t n = strspn(text, "0123456789abcdef");
    return n >= 4 && n <= 40 && (text[n] == '\0' || strcmp(text + n, "-dirty") == 0);
}

/* Splits "DB:EXPERIMENT@COMMIT", in which only a file that is there counts as DB; the rest is left in experiment. */
static request parse(const char *name, const char *db)
{
    request r = { 0 };
    char *rest = strdup(name), *at = strrchr(rest, '@'), *colon;
    if (at && is_hex(at + 1)) {
        r.commit = strdup(at + 1);
        *at = '\0';
    }
    colon = strrchr(rest, ':');
    if (access(rest, F_OK) == 0) r.db = strdup(rest);
    else if (colon) {
        *colon = '\0';
        if (access(rest, F_OK) == 0) {
            r.db = strdup(rest);
            r.experiment = strdup(colon + 1);
        }
        *colon = ':';
    }
    if (!r.db) {
        r.db = strdup(db);
        r.experiment = strdup(rest);
    }
    free(rest);
    return r;
}

/* Whether a query with one text has a row. */
static int exists(sqlite3 *db, const char *sql, const char *text)
{
    return hs_sql_do(db, sql, "t", text) == SQLITE_ROW;
}

#define OF_COMMIT "substr(json_extract(text, '$.git'), 1, length(?1)) = ?1"

/* Is the name in experiment that of one, or a commit?  -1 with a sentence when neither. */
static int resolve(request *r, sqlite3 *db, const char *name, char *why, size_t nwhy)
{
    if (r->experiment && !exists(db, "SELECT 1 FROM experiment WHERE name=?1", r->experiment) && !r->commit && is_hex(r->experiment)) {
        r->commit = r->experiment;
        r->experiment = NULL;
    }
    int known = !r->experiment || exists(db, "SELECT 1 FROM experiment WHERE name=?1", r->experiment);
    if (known && r->commit) known = exists(db, "SELECT 1 FROM env WHERE " OF_COMMIT, r->commit);
    if (!known) snprintf(why, nwhy, "%s is neither a database nor an experiment or a commit that %s knows", name, r->db);
    return known ? 0 : -1;
}

/* ---- cells ------------------------------------------------------------------------------------------------------- */
/* Puts the values of a map under their names with the prefix, maps inside likewise; digests say which build, not what was
 * asked. */
static void flatten(json_t *out, const char *prefix, const json_t *map)
{
    const char *name;
    char path[512];
    json_t *v;
    json_object_foreach((json_t *)map, name, v) {
        if (strcmp(name, "digest") == 0 || strcmp(name, "numerics") == 0 || strcmp(name, "data") == 0) continue;
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", name);
        if (json_is_object(v)) flatten(out, path, v);
        else json_object_set(out, path, v);
    }
}

/* Appends the row that a query stands on. */
static int take_row(hs_side *s, sqlite3_stmt *row)
{
    hs_side_cell *grown = realloc(s->cell, (s->ncells + 1) * sizeof *grown);
    json_t *doc = json_loads(hs_sql_text(row, 2), 0, NULL);
    if (grown) s->cell = grown;
    if (!grown || !doc) {
        json_decref(doc);
        return -1;
    }
    hs_side_cell c = { .key = strdup(hs_sql_text(row, 0)), .label = strdup(hs_sql_text(row, 1)), .at = json_object(),
                       .reason = strdup(hs_sql_text(row, 4)), .env = sqlite3_column_int64(row, 5) };
    for (int i = 0; i < HS_STATUSES; i++)
        if (strcmp(hs_status_names[i], hs_sql_text(row, 3)) == 0) c.status = (enum hs_status)i;
    flatten(c.at, "", doc);
    json_decref(doc);
    s->cell[s->ncells++] = c;
    return 0;
}

/* The cells in the experiment's order, or that in which they were planned; later attempts later.  A commit's cells may have
 * left the experiment for those of a newer build: they are of it when they ask what one of its cells asks. */
static int read_cells(hs_side *s, const request *r, char *why, size_t nwhy)
{
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s->store),
        "WITH member AS (SELECT m.cell, c.ident, m.position, m.label FROM membership m JOIN experiment e ON e.id = m.experiment"
        "  JOIN cell c ON c.id = m.cell WHERE e.name = ?1 OR ?1 IS NULL)"
        " SELECT c.key, coalesce((SELECT label FROM member WHERE member.ident = c.ident), c.variant), c.doc, c.status, c.reason, c.env"
        " FROM cell c WHERE c.status NOT IN ('planned', 'running')"
        "  AND (?1 IS NULL OR c.id IN (SELECT cell FROM member) OR (?2 IS NOT NULL AND c.ident IN (SELECT ident FROM member)))"
        "  AND (?2 IS NULL OR c.env IN (SELECT id FROM env WHERE substr(json_extract(text, '$.git'), 1, length(?2)) = ?2))"
        " ORDER BY coalesce((SELECT min(position) FROM member WHERE member.ident = c.ident), c.id), c.started, c.id",
        "tt", r->experiment, r->commit);
    int rc = row ? 0 : -1, step = SQLITE_ERROR;
    while (rc == 0 && (step = sqlite3_step(row)) == SQLITE_ROW) rc = take_row(s, row);
    if (rc == 0 && step != SQLITE_DONE) rc = -1;
    if (rc != 0) snprintf(why, nwhy, "%s: %s", s->name, sqlite3_errmsg(hs_store_sql(s->store)));
    else if (s->ncells == 0) {
        snprintf(why, nwhy, "%s has no cell that has ended", s->name);
        rc = -1;
    }
    sqlite3_finalize(row);
    return rc;
}

int hs_side_open(hs_side *s, const char *name, const char *db, char *why, size_t nwhy)
{
    request r = parse(name, db);
    *s = (hs_side){ .name = strdup(name) };
    int rc = hs_store_open(r.db, HS_STORE_READ, &s->store, why, nwhy);
    if (rc == 0) rc = resolve(&r, hs_store_sql(s->store), name, why, nwhy);
    if (rc == 0) rc = read_cells(s, &r, why, nwhy);
    request_release(&r);
    return rc;
}

void hs_side_release(hs_side *s)
{
    for (size_t i = 0; i < s->ncells; i++) {
        free(s->cell[i].key);
        free(s->cell[i].label);
        free(s->cell[i].reason);
        json_decref(s->cell[i].at);
    }
    free(s->cell);
    free(s->name);
    hs_store_close(s->store);
    *s = (hs_side){ 0 };
}
