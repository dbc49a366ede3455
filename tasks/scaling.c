/* scaling - what one mixer costs alone: time, arithmetic, traffic and memory of a pass at one length.
 *
 * The mixer stands where a layer has it, q k v o as [B,T,H,D], on random normal numbers (zeros would flatter the
 * clock of a GPU).  What is timed is one phase:
 *
 *   forward    without training, so that nothing is saved
 *   backward   alone; the forward pass that belongs to it runs before each sample, untimed
 *   both       forward and backward of training, one after the other
 *   decode     one new token after decode_position others; the state is put back before each sample, untimed
 *
 * Operations and bytes are the plan's own: a multiply-add counts 2, pairs beyond the mask count nothing, bytes are the
 * least traffic.  The rates follow from them and from the median; the machine's bounds are measured once per worker.
 * An account of memory by phase comes from the allocator: the gradients are taken after the first forward pass, so that
 * its peak does not know them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/cost.h"
#include "harness/nn/train.h"

enum { MODE_CAUSAL, MODE_BIDIRECTIONAL, MODE_CROSS };
enum { FORWARD, BACKWARD, BOTH, DECODE };
enum { STREAM_INPUTS = 1, PIECE = 1 << 20, PREFILL = 512, BLOCKS = 5 + 3 * ATTN_MAX + 3 };

typedef struct opts {
    int32_t length, heads, key_heads, dim, dim_v, mode, phase, decode_position;
    nn_size_opts size;
    nn_cost_opts cost;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "length", "T: tokens of a sequence; decode: the capacity of the state", OFF(length), ATTN_INT, 1024, 1, 1 << 26, NULL, 0 },
    NN_SIZE_OPTIONS(opts, size, "q, k, v, o and gates"),
    { "heads", "query heads, or value heads where several of them share a query and key head", OFF(heads), ATTN_INT, 8, 1, 4096, NULL, 0 },
    { "key_heads", "key heads; 0 = heads", OFF(key_heads), ATTN_INT, 0, 0, 4096, NULL, 0 },
    { "dim", "D: width of a query and of a key", OFF(dim), ATTN_INT, 64, 1, 65536, NULL, 0 },
    { "dim_v", "width of a value; 0 = dim", OFF(dim_v), ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "mode", "which keys a query sees", OFF(mode), ATTN_CHOICE, MODE_CAUSAL, 0, 0, "causal,bidirectional,cross", 0 },
    { "phase", "what is timed", OFF(phase), ATTN_CHOICE, FORWARD, 0, 0, "forward,backward,both,decode", 0 },
    { "decode_position", "tokens before the one that is decoded; -1 = length - 1", OFF(decode_position), ATTN_INT, -1, -1, 1 << 26, NULL, 0 },
    NN_COST_OPTIONS(opts, cost),
    { .name = NULL } };

static const task_metric METRICS[] = {
    NN_COST_METRICS,
    NN_TRAFFIC_METRICS,
    { "memory_bytes", "bytes", "peak of the phase that is timed: inputs, outputs, gradients, saved, scratch and state", -1, 0 },
    { "peak_forward_bytes", "bytes", "peak of the forward pass", -1, 0 },
    { "peak_backward_bytes", "bytes", "peak of the backward pass", -1, 0 },
    { "inputs_bytes", "bytes", "q, k, v, o and gates", 0, 0 },
    { "gradient_bytes", "bytes", "gradients of inputs and parameters", 0, 0 },
    { "parameter_bytes", "bytes", "the mixer's own parameters", 0, 0 },
    { "saved_bytes", "bytes", "what forward leaves for backward", -1, 0 },
    { "scratch_bytes", "bytes", "working memory", -1, 0 },
    { "state_bytes", "bytes", "decode state", -1, 0 },
    { "seen_bytes", "bytes", "what the system sees: the process's peak (CPU), the device's memory in use (CUDA)", -1, 0 },
    { .name = NULL } };

typedef struct run {
    const task_call *call;
    const opts *o;
    k_dev *dev;
    k_dtype dtype;
    nn_mixer_spec spec;
    attn_plan plan;
    int64_t capacity;                   /* of the decode state, 0 unless decoding */
    int64_t T;                          /* rows that the tensors have room for */
    nn_params *params;
    nn_mixer *mixer;
    nn_mixer_io io;
    void *state;                        /* decode: as it is before the timed token */
    void *block[BLOCKS];                /* whatever else was taken */
    int nblocks;
    uint32_t drawn;                     /* tensors so far: each has its own random numbers */
    nn_cost cost;
    size_t seen;                        /* what the system sees once every pass has run, before any cache is flushed */
    char why[512];
} run;

/* ---- memory --------------------------------------------------------------------------------------------- */

/* k_alloc, freed with the run. */
static int take(run *r, k_tag tag, size_t bytes, void **out)
{
    if (k_alloc(r->dev, tag, bytes, out)) {
        snprintf(r->why, sizeof r->why, "%s of the mixer: %s", tag == K_TAG_GRAD ? "gradients" : "inputs", k_error(r->dev));
        return NN_ENOMEM;
    }
    r->block[r->nblocks++] = *out;
    return ATTN_OK;
}

/* x [n] of the run's dtype = normal numbers; what no kernel draws is drawn as f32 and converted, a piece at a time. */
static int fill(run *r, void *x, int64_t n)
{
    k_rng rng = { r->call->seed, STREAM_INPUTS, r->drawn++ };
    if (r->dtype != K_BF16) {
        k_random_normal(r->dev, r->dtype, n, x, rng, 0, 1);
        return ATTN_OK;
    }
    void *piece;
    if (k_alloc(r->dev, K_TAG_DATA, PIECE * sizeof(float), &piece)) {
        snprintf(r->why, sizeof r->why, "random inputs: %s", k_error(r->dev));
        return NN_ENOMEM;
    }
    for (int64_t at = 0; at < n; at += PIECE, rng.stream++) {
        int64_t m = n - at < PIECE ? n - at : PIECE;
        k_random_normal(r->dev, K_F32, m, piece, rng, 0, 1);
        k_convert(r->dev, m, (char *)x + at * (int64_t)k_dtype_size(r->dtype), r->dtype, piece, K_F32);
    }
    k_free(r->dev, piece);
    return ATTN_OK;
}

/* A tensor [B,T,H,D], of random numbers when wanted; D == 0: absent. */
static int tensor(run *r, k_tag tag, int64_t H, int64_t T, int64_t D, int random, attn_tensor *out)
{
    int64_t n = r->spec.shape.B * H * T * D;
    void *p = NULL;
    *out = (attn_tensor){ 0 };
    if (D == 0)
        return ATTN_OK;
    int rc = take(r, tag, (size_t)n * k_dtype_size(r->dtype), &p);
    if (!rc && random)
        rc = fill(r, p, n);
    *out = nn_tensor_of(p, H, T, D, 0);
    return rc;
}

/* q, k, v, gates and o, as wide as the variant wants them. */
static int make_inputs(run *r)
{
    const attn_shape *s = &r->spec.shape;
    uint32_t flags = r->spec.variant->flags;
    nn_mixer_io *io = &r->io;
    io->seed = r->call->seed;
    int rc = tensor(r, K_TAG_ACTIVATION, s->Hq, r->T, flags & ATTN_NO_Q ? 0 : s->Dk, 1, &io->q);
    if (!rc)
        rc = tensor(r, K_TAG_ACTIVATION, s->Hk, r->T, flags & (ATTN_NO_K | ATTN_SHARED_QK) ? 0 : s->Dk, 1, &io->k);
    if (!rc)
        rc = tensor(r, K_TAG_ACTIVATION, s->Hv, r->T, s->Dv, 1, &io->v);
    for (int i = 0; !rc && i < ATTN_MAX; i++)
        rc = tensor(r, K_TAG_ACTIVATION, s->Hv, r->T, r->plan.gate_width[i], 1, &io->gate[i]);
    return rc ? rc : tensor(r, K_TAG_ACTIVATION, attn_out_heads(s), r->T, s->Dv, 0, &io->o);
}

/* The gradients that training wants, d_o of random numbers. */
static int make_gradients(run *r)
{
    const attn_shape *s = &r->spec.shape;
    nn_mixer_io *io = &r->io;
    const attn_variant *v = r->spec.variant;
    int rc = tensor(r, K_TAG_GRAD, attn_out_heads(s), r->T, s->Dv, 1, &io->d_o);
    if (!rc)
        rc = tensor(r, K_TAG_GRAD, s->Hq, r->T, io->q.p ? s->Dk : 0, 0, &io->dq);
    if (!rc)
        rc = tensor(r, K_TAG_GRAD, s->Hk, r->T, io->k.p ? s->Dk : 0, 0, &io->dk);
    if (!rc)
        rc = tensor(r, K_TAG_GRAD, s->Hv, r->T, s->Dv, 0, &io->dv);
    for (int i = 0; !rc && i < ATTN_MAX; i++) {
        rc = tensor(r, K_TAG_GRAD, s->Hv, r->T, r->plan.gate_width[i], 0, &io->dgate[i]);
        if (rc || !io->param[i] || v->params[i].flags & ATTN_FROZEN)
            continue;
        int64_t n = 1;
        for (int d = 0; d < r->plan.param_dims[i].n; d++)
            n *= r->plan.param_dims[i].d[d];
        size_t bytes = (size_t)n * k_dtype_size(r->dtype == K_F64 ? K_F64 : K_F32);
        rc = take(r, K_TAG_GRAD, bytes, &io->dparam[i]);
        if (!rc)
            k_zero(r->dev, io->dparam[i], bytes);
    }
    return rc;
}

/* The parameters, drawn as a model draws them.  All are declared frozen, because nothing here optimises. */
static int make_params(run *r)
{
    const attn_variant *v = r->spec.variant;
    int id[ATTN_MAX];
    r->params = nn_params_new(r->dev, r->dtype == K_F64 ? K_F64 : K_F32, r->call->seed);
    for (int i = 0; i < ATTN_MAX; i++) {
        id[i] = NN_NONE;
        if (r->plan.param_dims[i].n && !(v->params[i].flags & ATTN_OPTIONAL))
            id[i] = nn_param(r->params, v->params[i].name, r->plan.param_dims[i], r->plan.param_init[i], ATTN_FROZEN);
    }
    int rc = nn_params_alloc(r->params, r->why, sizeof r->why);
    for (int i = 0; !rc && i < ATTN_MAX; i++)
        r->io.param[i] = id[i] < 0 ? NULL : nn_param_value(r->params, id[i]);
    return rc;
}

/* ---- what is timed ------------------------------------------------------------------------------------------ */

static int forward(void *arg) { run *r = arg; return nn_mixer_forward(r->mixer, &r->io); }
static int backward(void *arg) { run *r = arg; return nn_mixer_backward(r->mixer, &r->io); }
static int both(void *arg) { return forward(arg) || backward(arg); }
static int decode(void *arg) { run *r = arg; return nn_mixer_decode(r->mixer, &r->io); }
static int stop(void *arg) { const task_host *h = ((run *)arg)->call->host; return h->stop(h->ctx); }

/* Puts the state back to where the timed token finds it. */
static int restore(void *arg)
{
    run *r = arg;
    k_copy(r->dev, nn_mixer_state(r->mixer), r->state, r->plan.state);
    return 0;
}

/* One call, timed apart and accounted to a phase. */
static int first_call(run *r, k_phase phase, int (*work)(void *), const char *what)
{
    k_set_phase(r->dev, phase);
    double seconds = k_time(r->dev, work, r, 0);
    if (seconds < 0) {
        snprintf(r->why, sizeof r->why, "the first %s failed: %s", what, k_error(r->dev));
        return ATTN_EDEVICE;
    }
    r->seen = k_memory_seen(r->dev);
    r->cost.first = r->o->phase == BOTH ? r->cost.first + seconds : seconds;
    return ATTN_OK;
}

/* A mixer of n tokens at a time takes the state `count` steps further from io.pos on. */
static int feed(run *r, int32_t n, int64_t count)
{
    nn_mixer_spec spec = r->spec;
    spec.shape.Tq = n;
    nn_mixer *m = NULL;
    int rc = nn_mixer_new(r->dev, &spec, r->capacity, &m, r->why, sizeof r->why);
    if (!rc)
        k_copy(r->dev, nn_mixer_state(m), r->state, r->plan.state);
    for (int64_t i = 0; !rc && i < count; i++, r->io.pos += n) {
        rc = stop(r) ? TASK_INTERRUPTED : nn_mixer_decode(m, &r->io);
        r->call->host->progress(r->call->host->ctx, r->io.pos, r->capacity, "prefill", (double)r->io.pos);
    }
    if (!rc)
        k_copy(r->dev, r->state, nn_mixer_state(m), r->plan.state);
    nn_mixer_free(m);
    return rc;
}

/* The state after `position` tokens, in pieces. */
static int prefill(run *r, int64_t position)
{
    int rc = take(r, K_TAG_DATA, r->plan.state, &r->state);
    if (rc)
        return rc;
    k_zero(r->dev, r->state, r->plan.state);
    if (position % PREFILL)
        rc = feed(r, (int32_t)(position % PREFILL), 1);
    return rc || position < PREFILL ? rc : feed(r, PREFILL, position / PREFILL);
}

/* Everything that stands before the first sample: the mixer, its tensors, the first call. */
static int prepare(run *r)
{
    int rc = nn_mixer_ask(r->dev, &r->spec, r->capacity, &r->plan, r->why, sizeof r->why);
    if (!rc)
        rc = make_params(r);
    if (!rc)
        rc = make_inputs(r);
    if (!rc && r->capacity) {
        k_set_phase(r->dev, K_PHASE_EVAL);
        rc = prefill(r, r->o->decode_position < 0 ? r->capacity - 1 : r->o->decode_position);
        k_set_phase(r->dev, K_PHASE_SETUP);
    }
    if (!rc)
        rc = nn_mixer_new(r->dev, &r->spec, r->capacity, &r->mixer, r->why, sizeof r->why);
    if (rc)
        return rc;
    if (r->capacity)
        return restore(r) ? ATTN_EDEVICE : first_call(r, K_PHASE_DECODE, decode, "decoding step");
    rc = first_call(r, K_PHASE_FORWARD, forward, "forward pass");
    if (rc || !r->spec.shape.training)
        return rc;
    k_set_phase(r->dev, K_PHASE_BACKWARD);
    rc = make_gradients(r);
    return rc ? rc : first_call(r, K_PHASE_BACKWARD, backward, "backward pass");
}

/* ---- what is reported ------------------------------------------------------------------------------------------ */

static void metric(const run *r, const char *name, double value) { r->call->host->metric(r->call->host->ctx, name, 0, value); }

/* Plan's amounts of the phase; 0 when a part of them is unknown. */
static double amount(const run *r, double fwd, double bwd)
{
    switch (r->o->phase) {
    case FORWARD: return fwd;
    case BACKWARD: return bwd;
    case BOTH: return fwd > 0 && bwd > 0 ? fwd + bwd : 0;
    default: return 0;                  /* the plan does not tell of decoding */
    }
}

/* What one pass works on. */
static void count(run *r)
{
    r->cost.tokens = (double)r->spec.shape.B * r->spec.shape.Tq;
    r->cost.flops = amount(r, r->plan.flops_fwd, r->plan.flops_bwd);
    r->cost.bytes = amount(r, r->plan.bytes_fwd, r->plan.bytes_bwd);
}

/* The peak of a phase without what only the measuring needs (a copy of the state) and what belongs to an optimiser. */
static double peak_of(const k_memory *m, k_phase phase)
{
    return (double)(m->peak_phase[phase] - m->peak_phase_tag[phase][K_TAG_DATA] - m->peak_phase_tag[phase][K_TAG_OPTIMISER]);
}

static void report_memory(const run *r)
{
    static const struct { const char *name; k_tag tag; } parts[] = {
        { "inputs_bytes", K_TAG_ACTIVATION }, { "gradient_bytes", K_TAG_GRAD }, { "parameter_bytes", K_TAG_PARAM },
        { "saved_bytes", K_TAG_SAVED }, { "scratch_bytes", K_TAG_WORKSPACE }, { "state_bytes", K_TAG_STATE } };
    k_phase timed = r->capacity ? K_PHASE_DECODE : r->spec.shape.training ? K_PHASE_BACKWARD : K_PHASE_FORWARD;
    k_memory m;
    k_memory_read(r->dev, &m);
    metric(r, "memory_bytes", peak_of(&m, timed));
    if (!r->capacity)
        metric(r, "peak_forward_bytes", peak_of(&m, K_PHASE_FORWARD));
    if (r->spec.shape.training)
        metric(r, "peak_backward_bytes", peak_of(&m, K_PHASE_BACKWARD));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        metric(r, parts[i].name, (double)m.peak_phase_tag[timed][parts[i].tag]);
    if (r->seen)
        metric(r, "seen_bytes", (double)r->seen);
}

/* Samples the phase; a TASK_ code. */
static int measure(run *r)
{
    static int (*const runs[])(void *) = { [FORWARD] = forward, [BACKWARD] = backward, [BOTH] = both, [DECODE] = decode };
    nn_work work = { .run = runs[r->o->phase], .stop = stop, .arg = r,
                     .before = r->o->phase == BACKWARD ? forward : r->o->phase == DECODE ? restore : NULL };
    count(r);
    return nn_cost_measure(r->dev, &r->o->cost, &work, &r->cost, r->why, sizeof r->why);
}

/* ---- a cell ------------------------------------------------------------------------------------------------------- */

/* The shape of the problem that the options state. */
static attn_shape shape_of(const run *r)
{
    static const int32_t modes[] = { ATTN_CAUSAL, ATTN_BIDIR, ATTN_CROSS };
    const opts *o = r->o;
    int grouped = (r->spec.variant->flags & ATTN_GROUPED_QK) != 0;
    int32_t H = o->heads, G = o->key_heads ? o->key_heads : H;
    return (attn_shape){ .B = nn_size_batch(&o->size, o->length), .Hq = grouped ? G : H, .Hk = G, .Hv = grouped ? H : G,
                         .Tq = o->phase == DECODE ? 1 : o->length, .Tk = o->length, .Dk = o->dim,
                         .Dv = o->dim_v ? o->dim_v : o->dim, .mode = modes[o->mode], .dtype = (int32_t)r->dtype,
                         .training = o->phase == BACKWARD || o->phase == BOTH };
}

static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (o->phase == DECODE && o->mode != MODE_CAUSAL)
        snprintf(why, nwhy, "decoding is causal");
    else if (o->decode_position >= o->length)
        snprintf(why, nwhy, "decode_position %d leaves no room for a token in a state of %d", o->decode_position, o->length);
    else
        return nn_cost_check(&o->cost, why, nwhy);
    return -1;
}

/* Frees what the run took of the device. */
static void release(run *r)
{
    nn_mixer_free(r->mixer);
    nn_params_free(r->params);
    while (r->nblocks > 0)
        k_free(r->dev, r->block[--r->nblocks]);
}

static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    run r = { .call = call, .o = o, .dev = call->dev, .dtype = nn_size_dtype(&o->size, call), .spec = *call->mixer };
    r.spec.shape = shape_of(&r);
    r.capacity = o->phase == DECODE ? o->length : 0;
    r.T = o->phase != DECODE ? o->length : o->length < PREFILL ? o->length : PREFILL;
    int rc = prepare(&r);
    rc = rc == TASK_INTERRUPTED ? rc : rc ? nn_task_code(rc) : measure(&r);
    release(&r);
    if (rc == TASK_DONE) {              /* the device is free again: so are the bounds of the machine */
        report_memory(&r);
        nn_cost_report(call, r.dtype, &r.cost, 1);
    } else {
        call->host->reason(call->host->ctx, r.why);
    }
    nn_cost_release(&r.cost);
    return rc;
}

static const task SCALING = {
    .size = sizeof(task), .name = "scaling", .title = "Cost of the mixer alone", .paper = "arXiv:2009.14794",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .check = check, .run = task_run };
TASK_EXPORT(&SCALING);
