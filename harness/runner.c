/* runner.c - the loop of the pool: signals, slots, the clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "gpu.h"
#include "runner_internal.h"

enum { JOBS_MAX = 256, TICK_MS = 100 };
static const double beat_seconds = 30, look_seconds = 1;

double runner_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int hs_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

void hs_run_summary_release(hs_run_summary *s)
{
    for (size_t i = 0; i < s->nfailures && i < HS_FAILURES_KEPT; i++) free(s->failure[i].reason);
    *s = (hs_run_summary){0};
}

/* ---- signals ---------------------------------------------------------------------------------------------- */

/* The signals of interest become readable; SIGPIPE becomes an error of write. */
static int signals_take(sigset_t *before)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGWINCH);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, before) < 0) return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The first asks the workers to end their cells, the second kills them. */
static void interrupt(runner *r, int sig)
{
    int again = r->sum->signal != 0;
    r->sum->signal = sig;
    r->stopping = 1;
    if (!again) hs_progress_say(&r->progress, "harness: stopping after signal %d (%s); again to kill the running cells at once", sig, strsignal(sig));
    for (int i = 0; i < r->jobs; i++) {
        if (r->slot[i].cell == NO_CELL) continue;
        slot_halt(&r->slot[i], HALT_INTERRUPT);
        if (again) r->slot[i].kill_at = 1e-9;
    }
}

static void signals_read(runner *r)
{
    struct signalfd_siginfo info;
    while (read(r->sigfd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGWINCH) hs_progress_resized(&r->progress);
        else if (info.ssi_signo != SIGCHLD) interrupt(r, (int)info.ssi_signo);
    }
}

/* For the gate. */
static int stopped_by_signal(void *ctx)
{
    signals_read(ctx);
    return ((runner *)ctx)->stopping;
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static int busy(const runner *r)
{
    int n = 0;
    for (int i = 0; i < r->jobs; i++) n += r->slot[i].cell != NO_CELL;
    return n;
}

static void fill_slots(runner *r)
{
    for (int i = 0; i < r->jobs && !r->stopping; i++) {
        slot *s = &r->slot[i];
        for (long cell; s->cell == NO_CELL && (cell = runner_next_cell(r, s)) != NO_CELL; ) slot_give(r, s, cell);
    }
}

static void draw(runner *r)
{
    hs_row row[JOBS_MAX];
    size_t n = 0;
    double now = runner_now();
    r->sweep.elapsed = now - r->start;
    for (int i = 0; i < r->jobs; i++) {
        if (r->slot[i].cell == NO_CELL) continue;
        row[n] = r->slot[i].row;
        row[n++].elapsed = now - r->slot[i].began;
    }
    hs_progress_draw(&r->progress, row, n, &r->sweep);
}

/* Sleeps until something happens, a tick at most. */
static void wait_for_news(runner *r)
{
    struct pollfd fd[1 + 2 * JOBS_MAX];
    nfds_t n = 0;
    fd[n++] = (struct pollfd){.fd = r->sigfd, .events = POLLIN};
    for (int i = 0; i < r->jobs; i++) {
        fd[n++] = (struct pollfd){.fd = r->slot[i].child.out, .events = POLLIN};
        fd[n++] = (struct pollfd){.fd = r->slot[i].child.log, .events = POLLIN};
    }
    poll(fd, n, TICK_MS);
    signals_read(r);
}

/* What is due now and then: a sign of life for the claims, figures, a look at other runs' cells. */
static void chores(runner *r)
{
    double now = runner_now();
    if (now - r->beat > beat_seconds && !r->sum->store_failed) {
        r->beat = now;
        if (hs_store_beat(r->store) < 0) hs_progress_say(&r->progress, "harness: %s", hs_store_error(r->store));
    }
    if (json_array_size(r->plan->figures) > 0 && !r->stopping)
        hs_redraw_tick(&r->redraw, r->args->file, r->args->plan_args, r->args->db, r->sweep.ended, now);
    if (r->elsewhere == 0 || now - r->looked < look_seconds || r->stopping) return;
    r->looked = now;
    runner_look_elsewhere(r);
    if (!busy(r) && r->elsewhere && !r->said_waiting++)
        hs_progress_say(&r->progress, "waiting for %zu cell(s) that another harness run is computing", r->elsewhere);
}

static void loop(runner *r)
{
    while (busy(r) || (!r->stopping && runner_work_left(r))) {
        fill_slots(r);
        draw(r);
        if (busy(r) || r->elsewhere) wait_for_news(r);
        for (int i = 0; i < r->jobs; i++) slot_attend(r, &r->slot[i]);
        chores(r);
        if (r->sum->store_failed)
            for (int i = 0; i < r->jobs; i++) if (r->slot[i].cell != NO_CELL) slot_release(&r->slot[i]), r->slot[i].cell = NO_CELL;
    }
    hs_redraw_stop(&r->redraw);
    hs_progress_clear(&r->progress);
}

/* ---- setting up ---------------------------------------------------------------------------------------------- */

/* The metric for the sweep line: the first figure's y when it is a value per cell, else the task's first such. */
static json_t *pick_metric(const hs_plan *p)
{
    const char *task = p->ncells ? json_string_value(json_object_get(json_object_get(p->cell[0].doc, "task"), "name")) : NULL;
    const json_t *described = task && p->catalog ? hs_catalog_task(p->catalog, task) : NULL;
    const char *y = json_string_value(json_object_get(json_array_get(p->figures, 0), "y"));
    json_t *metric, *first = NULL;
    size_t i;
    json_array_foreach(json_object_get(described, "metrics"), i, metric) {
        const char *name = json_string_value(json_object_get(metric, "name"));
        json_t *series = json_object_get(metric, "series");
        if (!name || json_integer_value(json_object_get(metric, "better")) == 0) continue;
        if (json_is_true(series) || json_integer_value(series) != 0) continue;
        if (y && !strcmp(name, y)) return metric;
        if (!first) first = metric;
    }
    return first;
}

/* How many GPUs the cells may use; 0: they run on the CPU. */
static int gpus_of(const hs_plan *p)
{
    const char *text, *device = json_string_value(json_object_get(p->cell[0].doc, "device"));
    return device && !strcmp(device, "cuda") ? hs_gpu_ask(&text) : 0;
}

/* Slots and threads: as many at once as are worth it, the cores shared among them; on GPUs one each, because two cells on
 * one would measure each other. */
static int slots_init(runner *r, size_t todo)
{
    int cores = hs_cores(), gpus = gpus_of(r->plan);
    char threads[16];
    r->jobs = r->args->jobs > 0 ? r->args->jobs : r->plan->jobs > 0 ? r->plan->jobs : gpus > 0 ? gpus : cores;
    if ((size_t)r->jobs > todo) r->jobs = todo > 0 ? (int)todo : 1;
    if (r->jobs > JOBS_MAX) r->jobs = JOBS_MAX;
    r->threads = cores / r->jobs > 1 ? cores / r->jobs : 1;
    r->sweep.jobs = r->jobs;
    snprintf(threads, sizeof threads, "%d", r->threads);
    setenv("OMP_NUM_THREADS", threads, 1);
    setenv("GOMP_SPINCOUNT", "10000", 0);       /* tens of microseconds: a thread that waits must not eat a core that others need */
    setenv("OPENBLAS_NUM_THREADS", "1", 1);     /* our threads are OpenMP's; its own pool would only cost start-up */
    r->slot = calloc((size_t)r->jobs, sizeof *r->slot);
    for (int i = 0; r->slot && i < r->jobs; i++) {
        r->slot[i] = (slot){.child = {.in = -1, .out = -1, .log = -1}, .cell = NO_CELL, .last = NO_CELL};
        if (gpus > 1) snprintf(r->slot[i].place, sizeof r->slot[i].place, "cuda:%d", i % gpus);
    }
    return r->slot ? 0 : -1;
}

static void runner_release(runner *r)
{
    for (int i = 0; r->slot && i < r->jobs; i++) slot_release(&r->slot[i]);
    for (size_t i = 0; i < r->nnames; i++) free(r->name[i]);
    free(r->name);
    free(r->slot);
    free(r->stage);
    free(r->was_crashed);
    free(r->wanted);
    free(r->broken);
    hs_gate_release(&r->gate);
    hs_guard_stop();
}

/* Gate, then clock.  The cells that are left undone are counted as planned. */
static int run_cells(runner *r)
{
    size_t todo = 0;
    for (size_t i = 0; i < r->plan->ncells; i++) todo += r->wanted[i] = r->stage[i] == STAGE_TODO;
    if (todo == 0) return 0;
    if (slots_init(r, todo) < 0 || hs_guard_start() < 0) {
        fprintf(stderr, "harness: cannot start workers: %s\n", strerror(errno));
        return -1;
    }
    const hs_gate_args gate = {r->wanted, hs_cores(), r->sigfd, stopped_by_signal, r, &r->progress};
    if (hs_gate_init(&r->gate, r->store, r->plan, &gate) < 0) runner_store_failed(r, "the verdicts of the checks cannot be kept");
    loop(r);
    for (size_t i = 0; i < r->plan->ncells; i++)
        r->sum->count[HS_PLANNED] += r->stage[i] == STAGE_TODO || r->stage[i] == STAGE_ELSEWHERE || r->stage[i] == STAGE_RUNNING;
    return 0;
}

int hs_run(hs_store *store, const hs_plan *plan, const hs_run_args *args, hs_run_summary *sum)
{
    runner r = {.store = store, .plan = plan, .args = args, .sum = sum, .start = runner_now()};
    sigset_t before;
    *sum = (hs_run_summary){0};
    hs_progress_init(&r.progress, STDERR_FILENO, args->quiet, args->color);
    r.sweep.total = plan->ncells;
    r.metric_better = pick_metric(plan);
    r.stage = calloc(plan->ncells + 1, 1);
    r.was_crashed = calloc(plan->ncells + 1, 1);
    r.wanted = calloc(plan->ncells + 1, 1);
    r.broken = calloc(plan->nladders + 1, sizeof *r.broken);
    r.sigfd = signals_take(&before);
    r.beat = r.start;
    r.redraw.next = r.start + 10;
    int rc = r.stage && r.was_crashed && r.wanted && r.broken && r.sigfd >= 0 ? 0 : -1;
    if (rc == 0 && runner_cells_init(&r) == 0) rc = run_cells(&r);
    sum->seconds = runner_now() - r.start;
    runner_release(&r);
    if (r.sigfd >= 0) close(r.sigfd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return rc;
}
