/* runner_slot.c - one worker as the runner sees it: a cell goes in, lines come out, and then it ends somehow. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runner_internal.h"

enum { READS_MAX = 64 };                /* at a time, of one worker: more than a pipe holds, less than for ever */

/* Forgets the cell; the worker stays. */
static void slot_idle(slot *s)
{
    s->last = s->cell;
    s->cell = NO_CELL;
    s->nvalues = 0;
    s->deadline = s->kill_at = 0;
    s->halt = HALT_NONE;
}

/* Ends the worker. */
static void slot_retire(slot *s)
{
    hs_child_kill(&s->child);
    hs_lines_release(&s->lines);
    s->served = 0;
}

void slot_release(slot *s)
{
    slot_retire(s);
    free(s->value);
    s->value = NULL;
}

/* How far the cell had come, for the reason of one that did not get there. */
static void how_far(const slot *s, char *out, size_t n)
{
    out[0] = 0;
    if (s->row.of > 0) snprintf(out, n, " at step %lld of %lld", (long long)s->row.step, (long long)s->row.of);
    if (s->row.what[0]) {
        size_t used = strlen(out);
        snprintf(out + used, n - used, " with %s %.6g", s->row.what, s->row.value);
    }
}

/* Files the slot's cell.  After done and refused the worker is clean and stays. */
static void slot_end(runner *r, slot *s, enum hs_status status, const char *reason)
{
    char far[128], sentence[256];
    how_far(s, far, sizeof far);
    if (s->halt == HALT_TIMEOUT && status != HS_DONE) {
        char limit[16];
        hs_format_seconds(r->plan->cell[s->cell].time_limit, limit, sizeof limit);
        status = HS_TIMEOUT;
        snprintf(sentence, sizeof sentence, "stopped by its time limit of %s%s", limit, far);
        reason = sentence;
    } else if (s->halt == HALT_INTERRUPT && status != HS_DONE) {
        status = HS_INTERRUPTED;
        snprintf(sentence, sizeof sentence, "stopped by signal %d (%s)%s", r->sum->signal, strsignal(r->sum->signal), far);
        reason = sentence;
    }
    hs_child_read_log(&s->child);
    hs_clean_text(s->child.tail);
    hs_result result = {status, reason, s->child.tail, runner_now() - s->began, s->value, s->nvalues};
    runner_file(r, s->cell, &result);
    slot_idle(s);
    s->served++;
    if (status != HS_DONE && status != HS_REFUSED) slot_retire(s);
}

/* The cell of a worker that is no good any more. */
static void slot_crash(runner *r, slot *s, const char *how)
{
    char reason[1024], far[128];
    how_far(s, far, sizeof far);
    hs_child_read_log(&s->child);
    const char *words = hs_child_last_line(&s->child);
    snprintf(reason, sizeof reason, "%s%s%s%.600s", how, far, *words ? "; its last words: " : "", words);
    slot_end(r, s, HS_CRASHED, reason);
}

/* One name for all values that carry it. */
static const char *intern(runner *r, const char *name)
{
    for (size_t i = 0; i < r->nnames; i++)
        if (!strcmp(r->name[i], name)) return r->name[i];
    char **more = realloc(r->name, (r->nnames + 1) * sizeof *more);
    char *copy = more ? strdup(name) : NULL;
    if (more) r->name = more;
    if (copy) r->name[r->nnames++] = copy;
    return copy;
}

/* Keeps a metric until the cell is filed; -1 when there are too many. */
static int add_value(runner *r, slot *s, const json_t *said)
{
    const char *name = json_string_value(json_object_get(said, "name")), *unit = json_string_value(json_object_get(said, "unit"));
    if (!name || !unit || s->nvalues == VALUES_MAX) return -1;
    if (s->nvalues == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 256;
        hs_value *more = realloc(s->value, capacity * sizeof *more);
        if (!more) return -1;
        s->value = more;
        s->capacity = capacity;
    }
    hs_value v = {intern(r, name), intern(r, unit), json_integer_value(json_object_get(said, "step")), hs_json_double(json_object_get(said, "value"))};
    if (!v.metric || !v.unit) return -1;
    s->value[s->nvalues++] = v;
    return 0;
}

static void set_progress(slot *s, const json_t *said)
{
    const char *what = json_string_value(json_object_get(said, "what"));
    s->row.step = json_integer_value(json_object_get(said, "step"));
    s->row.of = json_integer_value(json_object_get(said, "of"));
    s->row.value = hs_json_double(json_object_get(said, "value"));
    snprintf(s->row.what, sizeof s->row.what, "%s", what ? what : "");
}

/* The status of that name, or HS_STATUSES. */
static enum hs_status status_named(const char *name)
{
    int s = 0;
    while (s < HS_STATUSES && (!name || strcmp(hs_status_names[s], name))) s++;
    return (enum hs_status)s;
}

/* Understands one line; -1 when it is none of the protocol. */
static int take_line(runner *r, slot *s, const char *line)
{
    json_t *said = json_loads(line, 0, NULL);
    const char *type = json_string_value(json_object_get(said, "t"));
    int rc = 0;
    if (!type || s->cell == NO_CELL) rc = -1;
    else if (!strcmp(type, "start")) s->started = 1;
    else if (!strcmp(type, "progress")) set_progress(s, said);
    else if (!strcmp(type, "metric")) rc = add_value(r, s, said);
    else if (!strcmp(type, "end")) {
        enum hs_status status = status_named(json_string_value(json_object_get(said, "status")));
        if (status >= HS_DONE && status < HS_STATUSES) slot_end(r, s, status, json_string_value(json_object_get(said, "reason")));
        else rc = -1;
    } else rc = -1;
    json_decref(said);
    return rc;
}

void slot_halt(slot *s, enum halt why)
{
    if (s->halt == HALT_NONE) s->halt = why;
    if (s->kill_at > 0) return;
    hs_child_signal(&s->child, SIGTERM);
    s->kill_at = runner_now() + HS_GRACE_SECONDS;
}

/* The worker has ended.  One that died between two cells is not the next cell's fault: that is given back. */
static void slot_bury(runner *r, slot *s, int wait_status)
{
    char how[128];
    hs_child_how(wait_status, how, sizeof how);
    if (s->cell != NO_CELL && !s->started && s->served > 0 && s->halt == HALT_NONE) {
        runner_give_back(r, s->cell);
        slot_idle(s);
    }
    if (s->cell != NO_CELL) slot_crash(r, s, how);
    slot_retire(s);
}

/* What the clock says about a worker that still lives. */
static void slot_clock(runner *r, slot *s, int deaf)
{
    double now = runner_now();
    if (s->cell == NO_CELL) { if (deaf) slot_retire(s); return; }
    if (deaf && s->kill_at == 0) s->kill_at = now + 0.5;        /* it closed its channel: it may be about to exit */
    if (s->deadline > 0 && now > s->deadline && s->halt == HALT_NONE) slot_halt(s, HALT_TIMEOUT);
    if (s->kill_at > 0 && now > s->kill_at) {
        hs_child_signal(&s->child, SIGKILL);
        slot_crash(r, s, deaf ? "closed its channel to the runner and went on" : "did not stop when asked to");
    }
}

void slot_attend(runner *r, slot *s)
{
    if (s->child.pid <= 0) return;
    int wait_status = 0, got, reads = 0;
    int ended = hs_child_ended(&s->child, &wait_status);        /* asked first: what it said is then in the pipe */
    hs_child_read_log(&s->child);
    do {
        got = hs_lines_read(&s->lines, s->child.out);
        for (char *line; s->child.out >= 0 && (line = hs_lines_next(&s->lines)); )
            if (take_line(r, s, line) < 0) got = HS_LINES_BAD;
    } while (got > 0 && s->child.out >= 0 && ++reads < READS_MAX);
    if (s->child.out < 0) return;       /* retired by what it said */
    if (got == HS_LINES_BAD && s->cell != NO_CELL) slot_crash(r, s, "sent an answer that is none of the protocol");
    else if (ended) slot_bury(r, s, wait_status);
    else slot_clock(r, s, got == HS_LINES_END || got == HS_LINES_BAD);
}

/* The message that carries a cell. */
static json_t *cell_message(const runner *r, const slot *s, const hs_cell *c)
{
    char *checkpoint = runner_checkpoint(r, c);
    json_t *m = json_pack("{s:s, s:O, s:s, s:s, s:O?, s:O?, s:i, s:I, s:o, s:o}", "cell", c->key, "doc", c->doc, "variant_path", c->variant_path,
                          "task_path", c->task_path, "others", c->others, "init", c->init, "threads", r->threads, "memory", (json_int_t)c->memory_limit,
                          "checkpoint", hs_json_text(checkpoint), "place", hs_json_text(*s->place ? s->place : NULL));
    free(checkpoint);
    return m;
}

/* Whether the living worker has other plug-ins than the cell needs. */
static int other_plugins(const runner *r, const slot *s, const hs_cell *c)
{
    if (s->last == NO_CELL) return 0;
    const hs_cell *l = &r->plan->cell[s->last];
    return strcmp(l->variant_path, c->variant_path) || strcmp(l->task_path, c->task_path);
}

void slot_give(runner *r, slot *s, long cell)
{
    static const char *const args[] = {"worker", NULL};
    const hs_cell *c = &r->plan->cell[cell];
    char why[256] = "";
    s->began = runner_now();
    if (s->child.pid > 0 && other_plugins(r, s, c)) slot_retire(s);
    s->cell = cell;
    s->started = 0;
    hs_axes_text(c->axes, s->axes, sizeof s->axes);
    s->row = (hs_row){.label = c->label, .axes = s->axes};
    if (s->child.pid <= 0 && hs_child_start(&s->child, args, why, sizeof why) < 0) {
        runner_file(r, cell, &(hs_result){.status = HS_CRASHED, .reason = why, .log = ""});
        slot_idle(s);
        return;
    }
    s->child.ntail = 0;
    s->child.tail[0] = 0;
    if (c->time_limit > 0) s->deadline = s->began + c->time_limit;
    json_t *message = cell_message(r, s, c);
    if (hs_line_write(s->child.in, message) < 0) hs_child_signal(&s->child, SIGKILL);   /* dead already: it will be buried */
    json_decref(message);
}
