/* kept_find.c - which kept model is meant: by experiment, by key, or by the file of its weights. */
#define _GNU_SOURCE
#include <glob.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "kept.h"
#include "options.h"
#include "plan.h"
#include "progress.h"
#include "sql.h"
#include "spec.h"
#include "store.h"

enum { LEAST_KEY = 6, LISTED = 8 };     /* letters that stand for a key; models that a complaint names */

/* While looking: the question, and what fits it so far. */
typedef struct search {
    const hs_kept_args *args;
    char db[4096], experiment[256];
    hs_found *out;
    size_t cells, fits;                 /* of the experiment or the key; with weights, and as --only wants them */
    char list[2000];
    char *why;
    size_t nwhy;
} search;

static const char SUFFIX[] = ".safetensors";

static int is_weights(const char *name)
{
    size_t n = strlen(name), suffix = sizeof SUFFIX - 1;
    return n > suffix && !strcmp(name + n - suffix, SUFFIX);
}

/* The key in the name of a file of weights. */
static void key_of(const char *path, char key[65])
{
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", path);
    snprintf(key, 65, "%.*s", (int)(strlen(basename(copy)) - (sizeof SUFFIX - 1)), basename(copy));
}

/* Whether a value of an axis is what the text says. */
static int is_value(const json_t *v, const char *text)
{
    json_t *said = hs_scalar_json(text);
    int same = json_is_string(v) ? !strcmp(json_string_value(v), text)
             : json_is_number(v) ? json_is_number(said) && json_number_value(v) == json_number_value(said) : json_equal(v, said);
    json_decref(said);
    return same;
}

/* One --only AXIS=A,B: any of the values will do, the whole text too, for labels with commas; `variant` is the label or the name. */
static int passes(const json_t *axes, const char *variant, const char *only)
{
    char copy[512], *rest = copy + strcspn(only, "="), *one;
    snprintf(copy, sizeof copy, "%s", only);
    if (!*rest) return 0;
    *rest++ = '\0';
    const json_t *v = json_object_get(axes, copy);
    int is_name = !strcmp(copy, "variant"), ok = v && is_value(v, rest);
    while (!ok && (one = strsep(&rest, ","))) ok = (v && is_value(v, one)) || (is_name && !strcmp(variant, one));
    return ok;
}

/* models/KEY.safetensors beside the store, or the file that was named. */
static void weights_of(const search *s, const char *key, char *out, size_t n)
{
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", s->db);
    if (is_weights(s->args->model)) snprintf(out, n, "%s", s->args->model);
    else snprintf(out, n, "%s/models/%s%s", dirname(copy), key, SUFFIX);
}

/* A row of `key, doc, axes, label, variant`: counted, and taken when it is as asked for. */
static void consider(search *s, sqlite3_stmt *row)
{
    char path[sizeof s->out->weights], axes_text[400];
    json_t *axes = json_loads(hs_sql_text(row, 2), 0, NULL);
    const char *key = hs_sql_text(row, 0);
    int ok = 1;
    s->cells++;
    for (size_t i = 0; i < s->args->nonly; i++) ok = ok && passes(axes, hs_sql_text(row, 4), s->args->only[i]);
    weights_of(s, key, path, sizeof path);
    if (ok && access(path, R_OK) == 0) {
        hs_axes_text(axes, axes_text, sizeof axes_text);
        if (s->fits++ < LISTED) snprintf(s->list + strlen(s->list), sizeof s->list - strlen(s->list), "\n  %.12s  %s", key, axes_text);
        hs_found_release(s->out);
        snprintf(s->out->key, sizeof s->out->key, "%s", key);
        snprintf(s->out->weights, sizeof s->out->weights, "%s", path);
        snprintf(s->out->label, sizeof s->out->label, "%.100s %s", hs_sql_text(row, 3), axes_text);
        s->out->doc = json_loads(hs_sql_text(row, 1), 0, NULL);
    }
    json_decref(axes);
}

#define CELLS "SELECT c.key, c.doc, m.axes, m.label, c.variant FROM membership m JOIN cell c ON c.id = m.cell " \
              "JOIN experiment e ON e.id = m.experiment WHERE c.status = 'done' AND "

/* Considers the cells of the experiment, or else those whose key begins like that. */
static int look(search *s, sqlite3 *db)
{
    char key[65] = "";
    int named = 0;
    sqlite3_stmt *row = NULL;
    if (is_weights(s->args->model)) key_of(s->args->model, key);
    else {
        named = (row = hs_sql_ask(db, CELLS "e.name = ? ORDER BY m.position", "t", s->experiment)) && sqlite3_step(row) == SQLITE_ROW;
        if (!named) snprintf(key, sizeof key, "%s", s->args->model);
    }
    if (!named && strlen(key) >= LEAST_KEY && strspn(key, "0123456789abcdef") == strlen(key)) {
        sqlite3_finalize(row);          /* a cell of several experiments once */
        row = hs_sql_ask(db, CELLS "substr(c.key, 1, length(?1)) = ?1 GROUP BY c.key", "t", key);
        named = row && sqlite3_step(row) == SQLITE_ROW;
    }
    if (!named) {                       /* the name that it was kept as, which the last one has */
        if (!*key) snprintf(key, sizeof key, "%s", s->args->model);
        sqlite3_finalize(row);
        row = hs_sql_ask(db, CELLS "json_extract(c.doc, '$.train.keep_as') = ? ORDER BY c.started DESC LIMIT 1", "t", key);
        named = row && sqlite3_step(row) == SQLITE_ROW;
    }
    while (named) {
        consider(s, row);
        named = sqlite3_step(row) == SQLITE_ROW;
    }
    sqlite3_finalize(row);
    return s->cells ? 0 : -1;
}

/* What is wrong with what was found, or HS_EXIT_OK. */
static int judge(const search *s)
{
    const char *m = s->args->model;
    if (s->fits == 1 && s->out->doc) return HS_EXIT_OK;
    if (!s->cells) snprintf(s->why, s->nwhy, "%s knows no experiment and no key '%s' whose training is done", s->db, m);
    else if (!s->fits)
        snprintf(s->why, s->nwhy, "no model of %s is kept%s: its experiment needs `train: {keep: true}`, and %s its cells in it", m,
                 s->args->nonly ? " that is as --only wants it" : "", s->db);
    else snprintf(s->why, s->nwhy, "%zu models of %s are kept; choose one with --only AXIS=VALUE or by its key:%s%s", s->fits, m, s->list,
                  s->fits > LISTED ? "\n  ..." : "");
    return HS_EXIT_EMPTY;
}

/* The name of the experiment in a file, or what was said. */
static void name_experiment(search *s)
{
    const char *m = s->args->model;
    hs_errors errors = { 0 };
    hs_node *root = access(m, R_OK) == 0 && !is_weights(m) ? hs_spec_file(m, &errors) : NULL;
    hs_node *name = root ? hs_node_get(root, "experiment") : NULL;
    snprintf(s->experiment, sizeof s->experiment, "%s", name && name->text ? name->text : m);
    if (root) hs_node_free(root);
    hs_errors_release(&errors);
}

static int open_and_look(search *s)
{
    hs_store *store;
    if (hs_store_open(s->db, HS_STORE_READ, &store, s->why, s->nwhy)) return HS_EXIT_STORE;
    look(s, hs_store_sql(store));
    hs_store_close(store);
    return judge(s);
}

/* Every store beside the folder of a file of weights, until one knows it. */
static int look_beside(search *s)
{
    char pattern[4200], folder[4096];
    glob_t g;
    snprintf(folder, sizeof folder, "%s", s->args->model);
    snprintf(pattern, sizeof pattern, "%s/../*.db", dirname(folder));
    snprintf(s->why, s->nwhy, "%s: there is no store beside its folder: name one with --db", s->args->model);
    int rc = HS_EXIT_STORE;
    if (glob(pattern, 0, NULL, &g)) return rc;
    for (size_t i = 0; i < g.gl_pathc && rc != HS_EXIT_OK; i++) {
        snprintf(s->db, sizeof s->db, "%s", g.gl_pathv[i]);
        rc = open_and_look(s);
    }
    globfree(&g);
    return rc;
}

int hs_kept_find(const hs_kept_args *a, hs_found *out, char *why, size_t nwhy)
{
    search s = { .args = a, .out = out, .why = why, .nwhy = nwhy };
    *out = (hs_found){ 0 };
    if (is_weights(a->model) && access(a->model, R_OK)) return snprintf(why, nwhy, "%s cannot be read", a->model), HS_EXIT_EMPTY;
    if (is_weights(a->model) && !a->db) return look_beside(&s);
    snprintf(s.db, sizeof s.db, "%s", a->db ? a->db : hs_store_default_path());
    name_experiment(&s);
    return open_and_look(&s);
}

void hs_found_release(hs_found *f)
{
    json_decref(f->doc);
    *f = (hs_found){ 0 };
}
