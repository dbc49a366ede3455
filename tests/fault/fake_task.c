/* fake_task.c - a task without a model: what it reports follows from its options, how it misbehaves is an option.
 *
 * With steps, sleep_ms and value it is the steady load of the kill tests; its curve depends on value, seed and
 * step alone.  With length > 0 it calls the variant once on tensors of that length, as a task would. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "nn/train.h"

enum { NONE, SEGFAULT, LOOP, EXIT, PRINT, NAN_METRIC, OUT_OF_BOUNDS, SMASH, ASK, MALLOC, DEAF, STUBBORN, ABORT, ORPHAN,
       UNNAMED, DIVERGE, REFUSE, FAIL, BABBLE, FORGE };
static const char BEHAVIOURS[] = "none,segfault,loop,exit,print,nan,out_of_bounds,smash,ask,malloc,deaf,stubborn,abort,orphan,"
                                 "unnamed,diverge,refuse,fail,babble,forge";
typedef struct fake_opts { int32_t steps, sleep_ms, length, behave; double value; } fake_opts;
#define OFF(f) offsetof(fake_opts, f)
static const attn_opt OPTIONS[] = {
    {"steps", "steps to report", OFF(steps), ATTN_INT, 10, 0, 1e9, NULL, 0},
    {"sleep_ms", "milliseconds between steps", OFF(sleep_ms), ATTN_INT, 0, 0, 1e6, NULL, 0},
    {"length", "tokens of one call of the variant, 0: none", OFF(length), ATTN_INT, 0, 0, 1e6, NULL, 0},
    {"behave", "what goes wrong in the middle", OFF(behave), ATTN_CHOICE, 0, 0, 0, BEHAVIOURS, 0},
    {"value", "what the curve depends on", OFF(value), ATTN_FLOAT, 1, -1e9, 1e9, NULL, 0},
    {NULL}};
static const task_metric METRICS[] = {
    {"curve", "1", "a value per step", -1, 1}, {"final", "1", "the last value", -1, 0},
    {"seconds", "s", "a time, different on every run", 0, 0}, {NULL}};

/* Writes over its own frame; the compiler must not see where it ends. */
static __attribute__((noinline)) void smash(volatile int n)
{
    char frame[16];
    for (volatile char *p = frame; n-- > 0; p++) *p = 0x5A;
}

/* Follows the null pointer, in a way that no compiler proves. */
static void segfault(void) { *(volatile int *)(uintptr_t)getenv("HARNESS_NO_SUCH_VARIABLE") = 1; }

/* Fills memory that it took behind the host's back; volatile, or a compiler would see that nobody looks. */
static void swallow(size_t bytes)
{
    volatile char *p = malloc(bytes);
    for (size_t i = 0; i < bytes; i += 4096) p[i] = 1;
}

/* One allocation through the host, ending as the host says. */
static int ask(const task_call *c, size_t bytes)
{
    void *p = NULL;
    if (k_alloc(c->dev, K_TAG_ACTIVATION, bytes, &p) == K_OK) return TASK_DONE;
    c->host->reason(c->host->ctx, k_error(c->dev));
    return TASK_OOM;
}

/* Ends without return, or not at all. */
static void misbehave(int how)
{
    switch (how) {
    case SEGFAULT: segfault(); break;
    case LOOP: for (volatile int for_ever = 1; for_ever; ) { } break;
    case EXIT: exit(0);
    case SMASH: smash(1 << 16); break;
    case MALLOC: swallow((size_t)200 << 30); break;
    case DEAF: for (int fd = 0; fd < 1024; fd++) close(fd); pause(); break;
    case STUBBORN: signal(SIGTERM, SIG_IGN); for (;;) pause();
    case ABORT: abort();
    case BABBLE: for (;;) puts("la la la la la la la la la la la la la la la la la la la");
    default: break;
    }
}

/* What returns to the host, with more or less honesty; TASK_DONE goes on. */
static int go_wrong(const task_call *c, const fake_opts *o)
{
    char *p = NULL;
    switch (o->behave) {
    case PRINT: puts("{\"t\":\"end\",\"status\":\"done\"}\nhello from the plug-in \xff\xfe\x1b[2J"); return TASK_DONE;
    case FORGE: return write(3, "{\"t\":\"end\",\"status\":\"done\",\"reason\":null}\n", 42) < 0 ? TASK_DONE : TASK_FAILED;
    case NAN_METRIC: c->host->metric(c->host->ctx, "curve", -1, NAN); return TASK_DONE;
    case OUT_OF_BOUNDS:
        if (k_alloc(c->dev, K_TAG_ACTIVATION, 4096, (void **)&p) < 0) return TASK_FAILED;
        p[4096] ^= 1;
        return TASK_DONE;
    case ASK: return ask(c, (size_t)1000000000000000);
    case ORPHAN: if (fork() == 0) { execlp("sleep", "sleep", "86399", (char *)NULL); _exit(1); } return TASK_DONE;
    case UNNAMED: c->host->metric(c->host->ctx, "no_such_metric", 0, 1); return TASK_DONE;
    case DIVERGE: c->host->reason(c->host->ctx, "the loss is nan at step 3"); return TASK_DIVERGED;
    case REFUSE: c->host->reason(c->host->ctx, "this cell asks too much"); return TASK_REFUSED;
    case FAIL: c->host->reason(c->host->ctx, "it did not work out"); return TASK_FAILED;
    default: misbehave(o->behave); return TASK_DONE;
    }
}

/* One forward of the variant's first implementation, B = H = 1, D = 8, on memory of the host. */
static int call_variant(const task_call *c, int T)
{
    const attn_impl *impl = c->mixer->variant->impls;
    attn_shape s = {1, 1, 1, T, T, 8, 8, ATTN_CAUSAL, ATTN_F64, 0, 0};
    attn_plan plan = {0};
    if (impl->plan(&s, c->mixer->opts, &plan) != ATTN_OK) { c->host->reason(c->host->ctx, plan.why); return TASK_REFUSED; }
    size_t rows = (size_t)T * 8 * sizeof(double);
    void *p[5] = {0};
    for (int i = 0; i < 5; i++)
        if (k_alloc(c->dev, K_TAG_ACTIVATION, i < 4 ? rows : plan.scratch_fwd + 1, &p[i]) < 0) {
            c->host->reason(c->host->ctx, k_error(c->dev));
            return TASK_OOM;
        }
    for (int i = 0; i < 3; i++) k_fill(c->dev, K_F64, (int64_t)T * 8, p[i], 0.5);
    attn_tensor t[4];
    for (int i = 0; i < 4; i++) t[i] = (attn_tensor){p[i], (int64_t)T * 8, (int64_t)T * 8, 8};
    attn_call call = {.size = sizeof call, .nthreads = 1, .s = &s, .plan = &plan, .opts = c->mixer->opts, .q = t[0], .k = t[1],
                      .v = t[2], .o = t[3], .scratch = p[4], .seed = c->seed};
    int rc = impl->forward(&call);
    double last = ((double *)p[3])[T * 8 - 1];
    if (rc != ATTN_OK || !isfinite(last)) {
        c->host->reason(c->host->ctx, rc != ATTN_OK ? "forward failed" : "the variant returned a value that is not finite");
        return rc != ATTN_OK ? TASK_FAILED : TASK_DIVERGED;
    }
    return TASK_DONE;
}

/* The curve, with what goes wrong halfway. */
static int run(const task_call *c)
{
    const fake_opts *o = c->opts;
    const task_host *h = c->host;
    double x = o->value + 1e-3 * (double)c->seed;
    if (o->length > 0) {
        int rc = call_variant(c, o->length);
        if (rc != TASK_DONE) return rc;
    }
    for (int i = 0; i <= o->steps; i++) {
        if (h->stop(h->ctx)) return TASK_INTERRUPTED;
        if (i == o->steps / 2) {
            int rc = go_wrong(c, o);
            if (rc != TASK_DONE) return rc;
        }
        if (i == o->steps) break;
        x = sin(x) + 1.0 / (i + 3);
        h->metric(h->ctx, "curve", i, x);
        h->progress(h->ctx, i, o->steps, "curve", x);
        if (o->sleep_ms) usleep(1000u * (unsigned)o->sleep_ms);
    }
    h->metric(h->ctx, "final", 0, x);
    h->metric(h->ctx, "seconds", 0, (double)clock() / CLOCKS_PER_SEC);
    return TASK_DONE;
}

static const task FAKE = {.size = sizeof(task), .name = "fake", .title = "A task without a model", .paper = "", .opts_size = sizeof(fake_opts),
                          .opts = OPTIONS, .metrics = METRICS, .run = run};
TASK_EXPORT(&FAKE);
