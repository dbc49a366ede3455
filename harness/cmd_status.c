/* cmd_status.c - `harness status FILE`: what is done, what runs, what is left, and what is stale and why. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "command.h"
#include "progress.h"
#include "sql.h"
#include "view.h"

enum { SINGLE_LINES = 3 };              /* so many cells of one kind get a line each, more get one together */

/* What is told of the cells: counts by status (stale is one), and groups of cells of one series with one fate. */
typedef struct report {
    hs_view *view;
    json_t *counts;                     /* {"done": 60, "stale": 4} in order of appearance */
    json_t *groups;                     /* [{"status", "label", "reason", "cells": [{"key", "axes"}]}] */
    json_t *index;                      /* {group's text: place in groups} */
    sqlite3_stmt *older;
} report;

/* Appends a cause to the list of causes. */
static void add_cause(char *out, size_t n, const char *cause)
{
    size_t used = strlen(out);
    snprintf(out + used, n - used, "%s%s changed", used ? ", " : "", cause);
}

/* Whether a member of two maps differs. */
static int differs(const json_t *a, const json_t *b, const char *part, const char *member)
{
    const json_t *x = json_object_get(part ? json_object_get(a, part) : a, member), *y = json_object_get(part ? json_object_get(b, part) : b, member);
    return (x || y) && !json_equal(x, y);
}

/* Why a cell that the store answered before has another key now: 1 and the causes, 0: it was never answered. */
static int is_stale(report *r, const hs_cell *cell, char *why, size_t nwhy)
{
    if (!r->older) return 0;
    hs_sql_bind(r->older, "tt", cell->ident, cell->key);
    if (sqlite3_step(r->older) != SQLITE_ROW) return 0;
    json_t *before = json_loads(hs_sql_text(r->older, 0), 0, NULL);
    *why = '\0';
    if (differs(before, cell->doc, "variant", "digest")) add_cause(why, nwhy, cell->variant_path);
    if (differs(before, cell->doc, "task", "digest")) add_cause(why, nwhy, cell->task_path);
    if (differs(before, cell->doc, "task", "variants")) add_cause(why, nwhy, "a variant beside it");
    if (differs(before, cell->doc, NULL, "data")) add_cause(why, nwhy, "the data set");
    if (differs(before, cell->doc, NULL, "init")) add_cause(why, nwhy, "the model that it begins with");
    if (differs(before, cell->doc, NULL, "numerics")) add_cause(why, nwhy, "the numerics of harness");
    if (!*why) add_cause(why, nwhy, "the description of the cell");
    json_decref(before);
    return 1;
}

/* Adds one to the count of a status. */
static void count(report *r, const char *status)
{
    json_int_t n = json_integer_value(json_object_get(r->counts, status));
    json_object_set_new(r->counts, status, json_integer(n + 1));
}

/* Puts a cell into the group of its series and fate. */
static void group(report *r, const hs_cell *cell, const char *status, const char *reason)
{
    char *text = NULL;
    if (asprintf(&text, "%s\n%s\n%s", status, cell->label, reason ? reason : "") < 0) return;
    json_t *place = json_object_get(r->index, text);
    if (!place) {
        json_object_set_new(r->index, text, json_integer((json_int_t)json_array_size(r->groups)));
        json_array_append_new(r->groups, json_pack("{s:s, s:s, s:s?, s:[]}", "status", status, "label", cell->label, "reason",
                                                   reason, "cells"));
        place = json_object_get(r->index, text);
    }
    json_t *cells = json_object_get(json_array_get(r->groups, (size_t)json_integer_value(place)), "cells");
    json_array_append_new(cells, json_pack("{s:s, s:O}", "key", cell->key, "axes", cell->axes));
    free(text);
}

/* Looks one cell up. */
static int look(report *r, const hs_cell *cell)
{
    char why[1024];
    hs_cell_state state = { .status = HS_PLANNED };
    if (r->view->store && hs_store_state(r->view->store, cell->key, &state) != 0) return -1;
    int stale = !hs_status_final(state.status) && state.status != HS_RUNNING && is_stale(r, cell, why, sizeof why);
    const char *status = stale ? "stale" : hs_status_names[state.status];
    count(r, status);
    if (stale) group(r, cell, status, why);
    else if (state.status != HS_DONE && state.status != HS_PLANNED) group(r, cell, status, state.reason);
    free(state.reason);
    return 0;
}

/* The groups of one status, for people. */
static void print_groups(const report *r, const char *status)
{
    size_t i, k;
    json_t *g, *cell;
    json_array_foreach(r->groups, i, g) {
        const json_t *cells = json_object_get(g, "cells");
        const char *reason = json_string_value(json_object_get(g, "reason")), *label = json_string_value(json_object_get(g, "label"));
        if (strcmp(json_string_value(json_object_get(g, "status")), status) != 0) continue;
        if (json_array_size(cells) > SINGLE_LINES) {
            printf("  %s: %zu cells %s%s%s\n", label, json_array_size(cells), status, reason ? ", " : "", reason ? reason : "");
            continue;
        }
        json_array_foreach((json_t *)cells, k, cell) {
            char axes[512];
            hs_axes_text(json_object_get(cell, "axes"), axes, sizeof axes);
            printf("  %s %s: %s%s%s\n", label, axes, status, reason ? ", " : "", reason ? reason : "");
        }
    }
}

/* The report for people: the counts in one line, then what deserves a word. */
static void print_text(const report *r)
{
    const char *status, *comma = " ";
    json_t *n;
    printf("%s: %zu cells,", r->view->plan.experiment, r->view->plan.ncells);
    json_object_foreach(r->counts, status, n) {
        printf("%s%lld %s", comma, (long long)json_integer_value(n), status);
        comma = ", ";
    }
    printf(" (%s%s)\n", r->view->db, r->view->store ? "" : ", not made yet");
    for (int i = 0; i < HS_STATUSES; i++) print_groups(r, hs_status_names[i]);
    print_groups(r, "stale");
}

/* The report for programs. */
static void print_json(const report *r)
{
    json_t *all = json_pack("{s:s, s:s, s:I, s:O, s:O}", "experiment", r->view->plan.experiment, "db", r->view->db, "cells",
                            (json_int_t)r->view->plan.ncells, "status", r->counts, "groups", r->groups);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

/* Looks every cell up and prints. */
static int status_of(hs_view *v)
{
    report r = { v, json_object(), json_array(), json_object(), NULL };
    int rc = 0;
    if (v->store)
        r.older = hs_sql_ask(hs_store_sql(v->store), "SELECT doc FROM cell WHERE ident=? AND key<>? AND status NOT IN "
                             "('planned', 'running') ORDER BY started DESC LIMIT 1", "");
    for (size_t i = 0; rc == 0 && i < v->plan.ncells; i++) rc = look(&r, &v->plan.cell[i]);
    sqlite3_finalize(r.older);
    if (rc != 0) fprintf(stderr, "harness: %s\n", hs_store_error(v->store));
    else (v->format == HS_JSON ? print_json : print_text)(&r);
    json_decref(r.counts);
    json_decref(r.groups);
    json_decref(r.index);
    return rc == 0 ? HS_EXIT_OK : HS_EXIT_STORE;
}

int cmd_status(int argc, char **argv)
{
    hs_view v;
    int rc = hs_view_parse(&v, argc, argv, HS_VIEW_JSON);
    if (rc >= 0) return rc;
    rc = hs_view_plan(&v);
    if (rc == HS_EXIT_OK) rc = hs_view_store(&v, 1);
    if (rc == HS_EXIT_OK) rc = status_of(&v);
    hs_view_release(&v);
    return rc;
}
