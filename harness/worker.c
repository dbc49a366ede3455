/* worker.c - the process in which a plug-in may do its worst: serves cells, one after another.
 *
 * Invariants:
 *  1. The answers' descriptor is high and known to this file alone; stdin is empty and stdout is the log, so
 *     that a plug-in neither eats a cell nor forges an answer by printing.
 *  2. A cell finds the process as the one before found it: its device is opened for it and closed after it,
 *     its options are its own.  Only the loaded plug-ins stay.
 *  3. A plug-in whose bytes are not those that the key was made of is not run. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "bind.h"
#include "check.h"
#include "options.h"
#include "plan.h"
#include "plugin.h"
#include "protocol.h"
#include "redraw.h"

enum { LOADED_MAX = 16, OTHERS_MAX = 4, PROGRESS_MS = 100 };

typedef struct loaded { hs_plugin plugin; char digest[65]; } loaded;
typedef struct worker {
    hs_lines lines;
    FILE *answers;                      /* buffered: a metric costs no system call */
    int in;
    loaded *file;
    size_t nfiles;
} worker;

/* A variant beside that of the cell. */
typedef struct other { nn_mixer_spec mixer; void *opts; } other;

/* One cell being served; the ctx of the task's host. */
typedef struct job {
    worker *w;
    const json_t *message, *doc;
    hs_bound bound;
    other other[OTHERS_MAX];
    size_t nothers;
    k_dev *dev;
    k_dtype dtype;
    double spoke;                       /* when the last progress line went out, seconds */
    int broke_contract;                 /* the task did what task.h forbids: reason says what */
    char reason[640], note[640];        /* note: stands for the reason of a cell that is done */
} job;

static volatile sig_atomic_t stop_asked;

static void on_sigterm(int sig) { (void)sig; stop_asked = 1; }

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Sets the reason of a cell that will not end done; always -1. */
static int __attribute__((format(printf, 2, 3))) fail(job *j, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    vsnprintf(j->reason, sizeof j->reason, form, args);
    va_end(args);
    return -1;
}

/* Sends one answer, whose reference it takes.  A worker that nobody can hear has no reason to live. */
static void answer(worker *w, json_t *object, int flush)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (!text || fputs(text, w->answers) == EOF || fputc('\n', w->answers) == EOF || (flush && fflush(w->answers) == EOF))
        _exit(HS_EXIT_DEAF);
    free(text);
    json_decref(object);
}

/* ---- the host's side of task.h ------------------------------------------------------------------------- */

static void host_metric(void *ctx, const char *name, int64_t step, double value)
{
    job *j = ctx;
    const task_metric *m = j->bound.task->metrics;
    while (m && m->name && strcmp(m->name, name)) m++;
    if (!m || !m->name) {
        if (!j->broke_contract) fail(j, "the task reported '%s', which its table of metrics does not name", name);
        j->broke_contract = 1;
        return;
    }
    answer(j->w, json_pack("{s:s, s:s, s:s, s:I, s:o}", "t", "metric", "name", name, "unit", m->unit ? m->unit : "1",
                           "step", (json_int_t)step, "value", hs_json_number(value)), 0);
}

static void host_progress(void *ctx, int64_t step, int64_t of, const char *what, double value)
{
    job *j = ctx;
    double now = now_seconds();
    if (now - j->spoke < 1e-3 * PROGRESS_MS) return;
    j->spoke = now;
    answer(j->w, json_pack("{s:s, s:I, s:I, s:o, s:o}", "t", "progress", "step", (json_int_t)step, "of", (json_int_t)of,
                           "what", hs_json_text(what), "value", hs_json_number(value)), 1);
}

static int host_stop(void *ctx) { (void)ctx; return stop_asked; }

static void host_reason(void *ctx, const char *sentence)
{
    job *j = ctx;
    if (!j->broke_contract) fail(j, "%s", sentence ? sentence : "");
}

static const nn_mixer_spec *host_variant(void *ctx, const char *name);

static void host_note(void *ctx, const char *sentence)
{
    job *j = ctx;
    snprintf(j->note, sizeof j->note, "%s", sentence ? sentence : "");
}

/* ---- preparing a cell ----------------------------------------------------------------------------------- */

/* The plug-in at path, loaded at most once in this process; NULL with the cell's reason. */
static const hs_plugin *load(job *j, const char *path, const char *digest)
{
    worker *w = j->w;
    loaded *f = NULL;
    char why[512];
    for (size_t i = 0; i < w->nfiles; i++)
        if (!strcmp(w->file[i].plugin.path, path)) f = &w->file[i];
    if (!f) {
        if (w->nfiles == LOADED_MAX) { fail(j, "a worker holds at most %d plug-ins", LOADED_MAX); return NULL; }
        f = &w->file[w->nfiles];
        if (hs_file_digest(path, f->digest) < 0) { fail(j, "%s: cannot be read: %s", path, strerror(errno)); return NULL; }
        if (hs_plugin_open(path, &f->plugin, why, sizeof why) < 0) { fail(j, "%s", why); return NULL; }
        w->nfiles++;
    }
    if (digest && strcmp(digest, f->digest)) {
        fail(j, "%s: the file has changed since this sweep was planned; run the same command again", path);
        return NULL;
    }
    return &f->plugin;
}

/* Loaded when the task asks for it, with its defaults. */
static const nn_mixer_spec *host_variant(void *ctx, const char *name)
{
    job *j = ctx;
    for (size_t i = 0; i < j->nothers; i++)
        if (!strcmp(j->other[i].mixer.variant->name, name)) return &j->other[i].mixer;
    const char *path = json_string_value(json_object_get(json_object_get(j->message, "others"), name));
    const json_t *digests = json_object_get(json_object_get(j->doc, "task"), "variants");
    if (!path || j->nothers == OTHERS_MAX) return fail(j, "there is no variant '%s', which the task asks for", name), NULL;
    const hs_plugin *p = load(j, path, json_string_value(json_object_get(digests, name)));
    other *o = &j->other[j->nothers];
    o->mixer.variant = p ? hs_plugin_variant(p, name) : NULL;
    if (p && !o->mixer.variant) fail(j, "%s: has no variant '%s'", path, name);
    if (!o->mixer.variant || hs_bind_options(name, o->mixer.variant->opts, o->mixer.variant->opts_size, NULL, &o->opts, j->reason, sizeof j->reason) < 0)
        return NULL;
    hs_opts_defaults(nn_common_table, &o->mixer.common);
    o->mixer.opts = o->opts;
    j->nothers++;
    return &o->mixer;
}

/* Finds task and variant and fills every option. */
static int prepare_plugins(job *j)
{
    const json_t *t = json_object_get(j->doc, "task"), *v = json_object_get(j->doc, "variant");
    const char *tname = json_string_value(json_object_get(t, "name")), *vname = json_string_value(json_object_get(v, "name"));
    const char *tpath = json_string_value(json_object_get(j->message, "task_path"));
    const char *vpath = json_string_value(json_object_get(j->message, "variant_path"));
    if (!tname || !vname || !tpath || !vpath) return fail(j, "the runner's message names no task or no variant");
    const hs_plugin *tp = load(j, tpath, json_string_value(json_object_get(t, "digest")));
    const hs_plugin *vp = tp ? load(j, vpath, json_string_value(json_object_get(v, "digest"))) : NULL;
    if (!tp || !vp) return -1;
    const task *task = hs_plugin_task(tp, tname);
    const attn_variant *variant = hs_plugin_variant(vp, vname);
    if (!task) return fail(j, "%s: has no task '%s'", tpath, tname);
    if (!variant) return fail(j, "%s: has no variant '%s'", vpath, vname);
    return hs_bind(j->doc, task, variant, &j->bound, j->reason, sizeof j->reason);
}

/* Address space for a CPU cell: what the process has already, what the cell may use, twice the last cache for k_time to
 * flush it, and per thread a stack, an arena of malloc and the 128 MiB without which OpenBLAS tries for ever.  It is the
 * net under k_set_limit for plug-ins that call malloc themselves. */
static void limit_address_space(size_t memory, int threads)
{
#if !defined(__SANITIZE_ADDRESS__)      /* whose shadow is terabytes of address space */
    unsigned long pages = 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm) return;
    int ok = fscanf(statm, "%lu", &pages) == 1;
    fclose(statm);
    if (!memory) memory = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    struct rlimit r;
    if (!ok || getrlimit(RLIMIT_AS, &r) < 0) return;
    r.rlim_cur = pages * page + memory + (size_t)threads * ((8u << 20) + (64u << 20) + (128u << 20)) + (128u << 20);
    if (cache > 0) r.rlim_cur += 2 * (size_t)cache;
    if (r.rlim_cur > r.rlim_max) r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_AS, &r);
#else
    (void)memory, (void)threads;
#endif
}

/* Lets the system's account of the peak begin anew with this cell, where the system can. */
static void forget_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

static int prepare_device(job *j)
{
    const char *device = json_string_value(json_object_get(j->doc, "device"));
    const char *place = json_string_value(json_object_get(j->message, "place"));
    const char *dtype = json_string_value(json_object_get(j->doc, "dtype"));
    int threads = (int)json_integer_value(json_object_get(j->message, "threads"));
    size_t memory = (size_t)json_integer_value(json_object_get(j->message, "memory"));
    char why[512] = "";
    if (!dtype) j->dtype = K_F32;
    else if (k_dtype_parse(dtype, &j->dtype) < 0) return fail(j, "no such dtype: %s", dtype);
    if (k_dev_open(place ? place : device ? device : "cpu", threads, &j->dev, why, sizeof why) < 0) return fail(j, "%s", why);
    k_set_limit(j->dev, memory);
    forget_peak();
    if (!k_dev_is_cuda(j->dev)) limit_address_space(memory, k_dev_threads(j->dev));
    return 0;
}

/* ---- serving --------------------------------------------------------------------------------------------- */

/* Peak bytes in all and by phase: every cell has them, whatever its task. */
static void report_memory(job *j)
{
    k_memory m;
    k_memory_read(j->dev, &m);
    for (int p = -1; p < K_PHASES; p++) {
        char name[64] = "peak_bytes";
        size_t bytes = p < 0 ? m.peak : m.peak_phase[p];
        if (p >= 0) snprintf(name, sizeof name, "mem_peak_%s", k_phase_names[p]);
        if (p < 0 || bytes)
            answer(j->w, json_pack("{s:s, s:s, s:s, s:I, s:o}", "t", "metric", "name", name, "unit", "bytes",
                                   "step", (json_int_t)0, "value", hs_json_number((double)bytes)), 0);
    }
}

/* The status of a cell whose run() returned rc. */
static const char *status_of(int rc)
{
    switch (rc) {
    case TASK_DONE: return "done";
    case TASK_REFUSED: return "refused";
    case TASK_DIVERGED: return "diverged";
    case TASK_OOM: return "oom";
    case TASK_INTERRUPTED: return "interrupted";
    default: return "crashed";
    }
}

/* Runs the task on what was prepared; the status, with the reason when it is not done. */
static const char *run_task(job *j)
{
    const hs_bound *b = &j->bound;
    const task_host host = {sizeof host, j, host_metric, host_progress, host_stop, host_reason, host_variant, host_note};
    const task_call call = {.size = sizeof call, .opts = b->task_opts, .train = &b->train, .mixer = &b->mixer, .dev = j->dev,
        .dtype = j->dtype, .seed = (uint64_t)json_integer_value(json_object_get(j->doc, "seed")),
        .checkpoint = json_string_value(json_object_get(j->message, "checkpoint")), .host = &host,
        .init = json_string_value(json_object_get(j->message, "init")),
        .model = b->task->model_defaults ? &b->model : NULL};
    char what[256] = "";
    if (j->dtype == K_BF16 && !k_dev_is_cuda(j->dev)) {
        fail(j, "dtype bf16 needs a GPU");
        return "refused";
    }
    if ((call.model && nn_model_check(call.model, what, sizeof what) != 0) ||
        (b->task->check && b->task->check(b->task_opts, what, sizeof what) != 0)) {
        fail(j, "%s", what);
        return "refused";
    }
    snprintf(what, sizeof what, "%s on %s", b->mixer.variant->name, b->task->name);
    k_range_push(j->dev, what);
    const char *status = status_of(b->task->run(&call));
    k_range_pop(j->dev);
    if (k_sync(j->dev) < 0) {           /* then no number and no guard can be believed */
        fail(j, "%s", k_error(j->dev));
        return "crashed";
    }
    if (k_check_guards(j->dev, what, sizeof what) < 0) {
        fail(j, "wrote out of bounds: %s", what);
        return "crashed";
    }
    report_memory(j);
    if (j->broke_contract) return "crashed";
    if (!strcmp(status, "done")) memcpy(j->reason, j->note, sizeof j->reason);
    else if (!j->reason[0]) fail(j, "the task gave no reason");
    return status;
}

/* One cell from message to "end". */
static void serve_cell(worker *w, const json_t *message)
{
    job j = {.w = w, .message = message, .doc = json_object_get(message, "doc")};
    const char *status = "crashed";
    answer(w, json_pack("{s:s, s:O}", "t", "start", "cell", json_object_get(message, "cell")), 1);
    if (prepare_plugins(&j) == 0 && prepare_device(&j) == 0) status = run_task(&j);
    if (j.dev) k_dev_close(j.dev);
    hs_bound_release(&j.bound);
    for (size_t i = 0; i < j.nothers; i++) free(j.other[i].opts);
    fflush(stdout);                     /* the log is whole before the runner hears of the end */
    answer(w, json_pack("{s:s, s:s, s:o}", "t", "end", "status", status, "reason", hs_json_text(j.reason[0] ? j.reason : NULL)), 1);
}

/* What failed, for the record. */
static json_t *report_json(const hs_check_report *r)
{
    json_t *failures = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const hs_check_result *c = &r->results[i];
        if (c->status != HS_CHECK_FAIL) continue;
        json_array_append_new(failures, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "variant", hs_json_text(c->variant),
            "impl", hs_json_text(c->impl), "mode", hs_json_text(c->mode), "options", hs_json_text(c->options),
            "check", hs_json_text(c->check), "note", hs_json_text(c->note), "error", hs_json_number(c->error)));
    }
    return json_pack("{s:I, s:I, s:I, s:o}", "ok", (json_int_t)r->ok, "failed", (json_int_t)r->failed,
                     "skipped", (json_int_t)r->skipped, "failures", failures);
}

/* The gate asks for a verdict: the quick conformance of one file. */
static void serve_check(worker *w, const char *path, const char *device)
{
    hs_check_report report = {0};
    const char *far = device && strcmp(device, "cpu") ? device : NULL;
    int ok = hs_check_file(path, &(hs_check_args){.quick = 1, .device = far}, &report) == HS_EXIT_OK;
    fflush(stdout);
    answer(w, json_pack("{s:s, s:b, s:o, s:o}", "t", "verdict", "ok", ok, "reason", hs_json_text(ok ? NULL : report.why),
                        "report", report_json(&report)), 1);
    hs_check_report_release(&report);
}

/* Moves the two pipes out of the reach of clumsy plug-ins; -1 when this is no worker's surroundings. */
static int take_descriptors(worker *w)
{
    w->in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 100);
    int out = fcntl(HS_WORKER_FD, F_DUPFD_CLOEXEC, 100);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (w->in < 0 || out < 0 || nothing < 0 || dup2(nothing, STDIN_FILENO) < 0) return -1;
    close(nothing);
    close(HS_WORKER_FD);
    w->answers = fdopen(out, "w");
    return w->answers && setvbuf(w->answers, NULL, _IOFBF, 1 << 16) == 0 ? 0 : -1;
}

int hs_worker_main(void)
{
    worker w = {.file = calloc(LOADED_MAX, sizeof *w.file)};
    struct sigaction on_term = {.sa_handler = on_sigterm};
    if (!w.file || take_descriptors(&w) < 0) {
        fprintf(stderr, "harness worker: is started by harness run, with cells on descriptor 0 and answers on %d\n", HS_WORKER_FD);
        return HS_EXIT_USAGE;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &on_term, NULL);
    signal(SIGINT, SIG_IGN);            /* the terminal's: the runner decides */
    while (!stop_asked && hs_lines_read(&w.lines, w.in) > 0)
        for (char *line; !stop_asked && (line = hs_lines_next(&w.lines)); ) {
            json_t *message = json_loads(line, 0, NULL);
            const char *check = json_string_value(json_object_get(message, "check"));
            if (check) serve_check(&w, check, json_string_value(json_object_get(message, "device")));
            else if (json_object_get(message, "draw")) hs_redraw_serve(message);
            else if (json_is_object(message)) serve_cell(&w, message);
            json_decref(message);
        }
    for (size_t i = 0; i < w.nfiles; i++) hs_plugin_close(&w.file[i].plugin);
    free(w.file);
    hs_lines_release(&w.lines);
    fclose(w.answers);
    return HS_EXIT_OK;
}
