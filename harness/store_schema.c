/* store_schema.c - the tables and views of the store, schema 1.  docs/database.md explains the views. */
#include "store_internal.h"

const char store_schema[] =
    /* A machine with its software, as `harness env --json` gives it. */
    "CREATE TABLE env("
    " id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE CHECK(json_valid(text)), seen REAL NOT NULL) STRICT;"

    "CREATE TABLE experiment("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, file TEXT NOT NULL, about TEXT,"
    " text TEXT NOT NULL CHECK(json_valid(text)), planned REAL NOT NULL,"
    " env INTEGER REFERENCES env(id)) STRICT;"

    /* One point of a sweep, whichever experiments it belongs to.  ident is the key without digests: cells with one
     * ident and two keys are the same question before and after a rebuild. */
    "CREATE TABLE cell("
    " id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ident TEXT NOT NULL,"
    " status TEXT NOT NULL DEFAULT 'planned' CHECK(status IN ('planned','running','done','refused','wrong',"
    "  'diverged','oom','timeout','crashed','interrupted')),"
    " reason TEXT, task TEXT NOT NULL, variant TEXT NOT NULL, seed INTEGER, device TEXT,"
    " doc TEXT NOT NULL CHECK(json_valid(doc)),"
    " started REAL, seconds REAL, env INTEGER REFERENCES env(id)) STRICT;"
    "CREATE INDEX cell_ident ON cell(ident);"

    "CREATE TABLE membership("
    " experiment INTEGER NOT NULL REFERENCES experiment(id) ON DELETE CASCADE,"
    " cell INTEGER NOT NULL REFERENCES cell(id) ON DELETE CASCADE,"
    " position INTEGER NOT NULL, label TEXT NOT NULL, axes TEXT NOT NULL CHECK(json_valid(axes)),"
    " PRIMARY KEY(experiment, cell)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX membership_cell ON membership(cell);"

    /* value is NULL when the number is not a number; infinities are stored as they are. */
    "CREATE TABLE metric("
    " cell INTEGER NOT NULL REFERENCES cell(id) ON DELETE CASCADE,"
    " name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, unit TEXT NOT NULL,"
    " PRIMARY KEY(cell, name, step)) STRICT, WITHOUT ROWID;"

    "CREATE TABLE log("
    " cell INTEGER PRIMARY KEY REFERENCES cell(id) ON DELETE CASCADE, text TEXT NOT NULL) STRICT;"

    /* A cell in work and the process that works on it. */
    "CREATE TABLE claim("
    " cell INTEGER PRIMARY KEY REFERENCES cell(id) ON DELETE CASCADE,"
    " host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL, born INTEGER NOT NULL,"
    " beat REAL NOT NULL) STRICT;"

    "CREATE TABLE verdict("
    " digest TEXT PRIMARY KEY, ok INTEGER NOT NULL CHECK(ok IN (0, 1)), reason TEXT,"
    " report TEXT CHECK(report IS NULL OR json_valid(report)), time REAL NOT NULL) STRICT;"

    "CREATE VIEW v_cells(experiment, cell_key, status, reason, task, variant, label, seed, device,"
    "  task_options, variant_options, train_options, started, seconds) AS"
    " SELECT e.name, c.key, c.status, c.reason, c.task, c.variant, m.label, c.seed, c.device,"
    "  json_extract(c.doc, '$.task.options'), json_extract(c.doc, '$.variant.options'),"
    "  json_extract(c.doc, '$.train'), strftime('%Y-%m-%dT%H:%M:%SZ', c.started, 'unixepoch'), c.seconds"
    " FROM membership m JOIN experiment e ON e.id = m.experiment JOIN cell c ON c.id = m.cell;"

    "CREATE VIEW v_metrics(cell_key, metric, step, value, unit) AS"
    " SELECT c.key, m.name, m.step, m.value, m.unit FROM metric m JOIN cell c ON c.id = m.cell;";
