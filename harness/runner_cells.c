/* runner_cells.c - which cell is next, and what becomes of one. */
#define _GNU_SOURCE
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runner_internal.h"

/* Stops the run with one sentence: the store is what everything here is for. */
void runner_store_failed(runner *r, const char *doing)
{
    if (!r->sum->store_failed) hs_progress_say(&r->progress, "harness: %s: %s", doing, hs_store_error(r->store));
    r->sum->store_failed = 1;
    r->stopping = 1;
}

/* Remembers where a ladder ended. */
static void note_rung(runner *r, const hs_cell *c, enum hs_status status)
{
    struct rung *broken = &r->broken[c->ladder];
    if (!r->plan->stop_longer || (status != HS_TIMEOUT && status != HS_OOM)) return;
    if (broken->status == HS_PLANNED || c->rung < broken->at) *broken = (struct rung){c->rung, status};
}

/* Counts a cell that the store has a result for. */
static void count_over(runner *r, size_t i, enum hs_status status)
{
    note_rung(r, &r->plan->cell[i], status);
    r->stage[i] = STAGE_OVER;
    r->sum->count[status]++;
    r->sum->had++;
    r->sweep.had++;
}

int runner_cells_init(runner *r)
{
    for (size_t i = 0; i < r->plan->ncells; i++) {
        hs_cell_state s;
        if (hs_store_state(r->store, r->plan->cell[i].key, &s) < 0) { runner_store_failed(r, "the store cannot be read"); return -1; }
        free(s.reason);
        r->was_crashed[i] = s.status == HS_CRASHED;
        r->stage[i] = STAGE_TODO;
        if (hs_status_final(s.status)) count_over(r, i, s.status);
    }
    return 0;
}

/* Claims one cell; 1 when it is ours now.  What another run has done, crashed included, is not done again. */
static int claim(runner *r, size_t i)
{
    const char *key = r->plan->cell[i].key;
    hs_cell_state s;
    if (hs_store_state(r->store, key, &s) < 0) { runner_store_failed(r, "the store cannot be read"); return 0; }
    free(s.reason);
    if (s.status == HS_CRASHED && !r->was_crashed[i]) { count_over(r, i, s.status); return 0; }
    int got = hs_store_claim(r->store, key);
    if (got < 0) { runner_store_failed(r, "a cell cannot be claimed"); return 0; }
    if (got > 0) return 1;
    if (hs_status_final(s.status)) { count_over(r, i, s.status); return 0; }
    r->stage[i] = STAGE_ELSEWHERE;      /* or finished between the two calls: the next look will tell */
    r->elsewhere++;
    return 0;
}

/* The gate's verdict on a claimed cell; a red one is filed here and now. */
static int passes(runner *r, size_t i)
{
    const hs_verdict *v = hs_gate_of(&r->gate, &r->plan->cell[i]);
    if (!v || v->status == HS_DONE) return 1;
    runner_file(r, (long)i, &(hs_result){.status = v->status, .reason = v->reason, .log = ""});
    return 0;
}

/* Whether a claimed cell is worth trying: one above the rung where its ladder ended is filed as that was. */
static int within_reach(runner *r, size_t i)
{
    const hs_cell *c = &r->plan->cell[i];
    const struct rung *broken = &r->broken[c->ladder];
    char reason[128];
    if (broken->status == HS_PLANNED || c->rung <= broken->at) return 1;
    snprintf(reason, sizeof reason, "not tried: %s at %s %.15g", hs_status_names[broken->status], r->plan->stop_longer, broken->at);
    runner_file(r, (long)i, &(hs_result){.status = broken->status, .reason = reason, .log = ""});
    return 0;
}

/* The next cell to do from index `from`, of the same plug-ins as cell `like` if that is given. */
static size_t find_todo(const runner *r, size_t from, long like)
{
    const hs_cell *cell = r->plan->cell, *l = like >= 0 ? &cell[like] : NULL;
    size_t n = r->plan->ncells;
    for (size_t i = from; i < n; i++)
        if (r->stage[i] == STAGE_TODO &&
            (!l || (!strcmp(cell[i].variant_path, l->variant_path) && !strcmp(cell[i].task_path, l->task_path))))
            return i;
    return n;
}

long runner_next_cell(runner *r, const slot *s)
{
    size_t n = r->plan->ncells;
    for (long like = s->child.pid > 0 ? s->last : NO_CELL; !r->stopping; ) {
        r->first_todo = find_todo(r, r->first_todo, NO_CELL);
        size_t i = find_todo(r, r->first_todo, like);
        if (i == n && like == NO_CELL) return NO_CELL;
        if (i == n) { like = NO_CELL; continue; }
        if (claim(r, i) && passes(r, i) && within_reach(r, i)) {
            r->stage[i] = STAGE_RUNNING;
            return (long)i;
        }
    }
    return NO_CELL;
}

void runner_look_elsewhere(runner *r)
{
    for (size_t i = 0; i < r->plan->ncells && r->elsewhere > 0; i++) {
        if (r->stage[i] != STAGE_ELSEWHERE) continue;
        hs_cell_state s;
        if (hs_store_state(r->store, r->plan->cell[i].key, &s) < 0) { runner_store_failed(r, "the store cannot be read"); return; }
        free(s.reason);
        if (s.status == HS_RUNNING) continue;
        r->elsewhere--;
        if (hs_status_final(s.status) || s.status == HS_CRASHED) { count_over(r, i, s.status); continue; }
        r->stage[i] = STAGE_TODO;       /* its runner gave it up: ours now */
        if (i < r->first_todo) r->first_todo = i;
    }
}

int runner_work_left(const runner *r)
{
    return r->elsewhere > 0 || find_todo(r, r->first_todo, NO_CELL) < r->plan->ncells;
}

/* Keeps the best value of the metric that the sweep line shows. */
static void note_best(runner *r, const hs_cell *c, const hs_result *result)
{
    const char *metric = json_string_value(json_object_get(r->metric_better, "name"));
    int sign = json_integer_value(json_object_get(r->metric_better, "better")) < 0 ? -1 : 1;
    char axes[256];
    for (size_t i = 0; metric && i < result->nvalues; i++) {
        const hs_value *v = &result->value[i];
        if (strcmp(v->metric, metric) || !isfinite(v->value)) continue;
        if (r->sweep.best_metric && sign * v->value <= sign * r->sweep.best_value) continue;
        hs_axes_text(c->axes, axes, sizeof axes);
        snprintf(r->best_label, sizeof r->best_label, "%.60s %s", c->label, axes);
        r->sweep.best_metric = metric;
        r->sweep.best_value = v->value;
        r->sweep.best_label = r->best_label;
    }
}

/* Remembers a failure for the summary. */
static void note_failure(runner *r, const hs_cell *c, const hs_result *result)
{
    hs_run_summary *s = r->sum;
    r->sweep.failed++;
    if (s->nfailures < HS_FAILURES_KEPT)
        s->failure[s->nfailures] = (hs_failure){c, result->status, result->reason ? strdup(result->reason) : NULL};
    s->nfailures++;
}

/* Files a result, with patience for another program that holds the database; 0 or -1. */
static int finish_patiently(runner *r, const hs_cell *c, const hs_result *result)
{
    for (int try = 0; ; try++) {        /* the store itself waits some seconds each time */
        if (hs_store_finish(r->store, c, result) == 0) return 0;
        int busy = (sqlite3_errcode(hs_store_sql(r->store)) & 0xFF) == SQLITE_BUSY;
        if (!busy || try == 5) return -1;
        hs_progress_say(&r->progress, "harness: the store is locked by another program; waiting for it");
    }
}

/* models/NAME.safetensors beside the store; NULL: out of memory.  The caller's. */
static char *model_path(const runner *r, const char *name)
{
    char *db = strdup(r->args->db), *path = NULL, *folder = NULL;
    if (db && asprintf(&folder, "%s/models", dirname(db)) < 0) folder = NULL;
    if (folder) mkdir(folder, 0777);
    if (folder && asprintf(&path, "%s/%s.safetensors", folder, name) < 0) path = NULL;
    free(db);
    free(folder);
    return path;
}

/* Gives a kept model the name that train.keep_as asks for, in the place of what had it. */
static void name_model(const runner *r, const hs_cell *c, const char *model)
{
    const char *name = json_string_value(json_object_get(json_object_get(c->doc, "train"), "keep_as"));
    char *path = name && *name && !strchr(name, '/') ? model_path(r, name) : NULL;
    if (path) {
        unlink(path);
        if (link(model, path)) fprintf(stderr, "harness: warning: %s cannot be made: %s\n", path, strerror(errno));
    }
    free(path);
}

/* The checkpoint of a cell that has ended: removed, or where its weights were asked for, kept. */
static void settle_checkpoint(const runner *r, const hs_cell *c, enum hs_status status)
{
    char *checkpoint = runner_checkpoint(r, c);
    int keep = json_is_true(json_object_get(json_object_get(c->doc, "train"), "keep"));
    char *model = checkpoint && keep && status == HS_DONE ? model_path(r, c->key) : NULL;
    if (checkpoint && (!model || rename(checkpoint, model))) unlink(checkpoint);
    else if (model) name_model(r, c, model);
    free(model);
    free(checkpoint);
}

void runner_file(runner *r, long cell, const hs_result *result)
{
    const hs_cell *c = &r->plan->cell[cell];
    r->stage[cell] = STAGE_OVER;
    if (finish_patiently(r, c, result) < 0) {
        runner_store_failed(r, "a result could not be stored");
        r->sum->count[HS_PLANNED]++;
        return;
    }
    if (hs_status_final(result->status)) settle_checkpoint(r, c, result->status);
    note_rung(r, c, result->status);
    r->sum->count[result->status]++;
    r->sum->ended++;
    r->sweep.ended++;
    r->sweep.busy += result->seconds;
    r->sweep.elapsed = runner_now() - r->start;
    int expected = result->status == HS_TIMEOUT && r->plan->stop_longer;   /* how such a sweep ends */
    if (result->status == HS_CRASHED || result->status == HS_WRONG || (result->status == HS_TIMEOUT && !expected)) note_failure(r, c, result);
    note_best(r, c, result);
    hs_progress_ended(&r->progress, c, result, &r->sweep);
}

void runner_give_back(runner *r, long cell)
{
    r->stage[cell] = STAGE_TODO;
    if ((size_t)cell < r->first_todo) r->first_todo = (size_t)cell;
    if (!r->sum->store_failed && hs_store_release(r->store, r->plan->cell[cell].key) < 0) runner_store_failed(r, "a claim could not be given back");
}

/* results/checkpoints/KEY.ckpt beside the store. */
char *runner_checkpoint(const runner *r, const hs_cell *c)
{
    const json_t *train = json_object_get(c->doc, "train");
    if (json_integer_value(json_object_get(train, "checkpoint_every")) <= 0 && !json_is_true(json_object_get(train, "keep"))) return NULL;
    char *db = strdup(r->args->db), *path = NULL, *folder = NULL;
    if (db && asprintf(&folder, "%s/checkpoints", dirname(db)) < 0) folder = NULL;
    if (folder) mkdir(folder, 0777);    /* a folder that cannot be made is the task's to report, with the path */
    if (folder && asprintf(&path, "%s/%s.ckpt", folder, c->key) < 0) path = NULL;
    free(db);
    free(folder);
    return path;
}
