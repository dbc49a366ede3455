/* model_scaling - what a Transformer around a variant costs: time, arithmetic and memory of a pass at one length.
 *
 * The model is that of `model:`, on random tokens, each asked for a random token.  What is timed is one phase:
 *
 *   forward    the loss, without training
 *   backward   the gradients alone; the forward pass that belongs to it runs before each sample, untimed
 *   step       a whole training step: forward, backward, and Adam as `train:` says
 *
 * Operations: a matrix product counts 2 for each multiply-add in forward and twice that in backward, the mixer counts what its
 * plan says (identity's says nothing), the output layer is a product; norms, activations, softmax of the output and optimiser count nothing.  With the
 * variant `identity` all that is not attention is left: the line that no attention can beat. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/cost.h"
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "kernels/philox.h"

enum { MODE_CAUSAL, MODE_BIDIRECTIONAL };
enum { FORWARD, BACKWARD, STEP };
enum { STREAM_TOKENS = 1, STREAM_TARGETS = 2 };

typedef struct opts {
    int32_t length, vocabulary, mode, phase;
    nn_size_opts size;
    nn_cost_opts cost;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "length", "T: tokens of a sequence", OFF(length), ATTN_INT, 1024, 1, 1 << 26, NULL, 0 },
    NN_SIZE_OPTIONS(opts, size, "activations, weights in f32 beside bf16"),
    { "vocabulary", "words", OFF(vocabulary), ATTN_INT, 256, 2, 1 << 24, NULL, 0 },
    { "mode", "which keys a query sees", OFF(mode), ATTN_CHOICE, MODE_BIDIRECTIONAL, 0, 0, "causal,bidirectional", 0 },
    { "phase", "what is timed", OFF(phase), ATTN_CHOICE, STEP, 0, 0, "forward,backward,step", 0 },
    NN_COST_OPTIONS(opts, cost),
    { .name = NULL } };

static const task_metric METRICS[] = {
    NN_COST_METRICS,
    { "parameters", "1", "learned numbers", 0, 0 },
    { "memory_bytes", "bytes", "peak of the phase that is timed", -1, 0 },
    { "planned_bytes", "bytes", "the same as foretold before anything was taken", -1, 0 },
    { "planned_forward_bytes", "bytes", "of it, in use at the worst moment of the forward pass", -1, 0 },
    { "planned_backward_bytes", "bytes", "of it, in use at the worst moment of the backward pass", -1, 0 },
    { "planned_step_bytes", "bytes", "of it, what the optimiser's step looks at: parameters, gradients and moments", -1, 0 },
    { "parameter_bytes", "bytes", "values of the parameters", 0, 0 },
    { "gradient_bytes", "bytes", "their gradients", 0, 0 },
    { "optimiser_bytes", "bytes", "moments", 0, 0 },
    { "activation_bytes", "bytes", "what layers hand on, and the gradients of it", -1, 0 },
    { "saved_bytes", "bytes", "what the mixers' forward leaves for backward", -1, 0 },
    { "workspace_bytes", "bytes", "working memory of mixers and nodes", -1, 0 },
    { "data_bytes", "bytes", "tokens", 0, 0 },
    { "seen_bytes", "bytes", "what the system sees: the process's peak (CPU), the device's memory in use (CUDA)", -1, 0 },
    { .name = NULL } };

typedef struct run {
    const task_call *call;
    const opts *o;
    k_dev *dev;
    k_dtype dtype;
    int64_t B, T, step;                 /* step: of the optimiser */
    nn_params *params;
    nn_transformer model;
    nn_graph *graph;
    nn_id tokens, target;
    nn_cost cost;
    size_t seen;
    char why[512];
} run;

static void metric(const run *r, const char *name, double value) { r->call->host->metric(r->call->host->ctx, name, 0, value); }

/* ---- the model -------------------------------------------------------------------------------------------------- */

/* x [n], the device's = random words. */
static int fill(run *r, void *x, uint32_t stream)
{
    int64_t n = r->B * r->T;
    int32_t *word = malloc((size_t)n * sizeof *word);
    if (!word) {
        snprintf(r->why, sizeof r->why, "no host memory for %lld tokens", (long long)n);
        return NN_ENOMEM;
    }
    for (int64_t i = 0; i < n; i++)
        word[i] = (int32_t)philox_below(philox_u32(r->call->seed, stream, 0, (uint64_t)i), (uint32_t)r->o->vocabulary);
    k_upload(r->dev, x, word, (size_t)n * sizeof *word);
    free(word);
    return ATTN_OK;
}

static int mode_of(const run *r) { return r->o->mode == MODE_CAUSAL ? ATTN_CAUSAL : ATTN_BIDIR; }

/* Records the graph with its loss. */
static int record(run *r)
{
    const task_call *c = r->call;
    r->params = nn_params_new(r->dev, r->dtype, c->seed);
    r->graph = nn_graph_new(r->params, r->o->phase != FORWARD);
    int rc = nn_transformer_init(&r->model, r->params, c->model, c->mixer, 1, r->o->vocabulary, r->T, r->why, sizeof r->why);
    if (rc)
        return rc;
    r->tokens = nn_input(r->graph, K_I32, (attn_dims){ 2, { r->B, r->T } });
    r->target = nn_input(r->graph, K_I32, (attn_dims){ 1, { r->B * r->T } });
    nn_id h = nn_transformer_body(&r->model, r->graph, r->tokens, mode_of(r));
    return nn_graph_set_loss(r->graph, nn_transformer_loss(&r->model, r->graph, h, r->target, 0)), ATTN_OK;
}

/* Tells what the graph will take; a plan that fails is told by compiling. */
static void report_plan(run *r)
{
    nn_plan p;
    if (nn_graph_plan(r->graph, &p, r->why, sizeof r->why))
        return;
    metric(r, "planned_bytes", (double)p.all);
    metric(r, "planned_forward_bytes", (double)p.forward);
    if (r->o->phase == FORWARD)
        return;
    metric(r, "planned_backward_bytes", (double)p.backward);
    metric(r, "planned_step_bytes", (double)p.step);
}

/* The graph with its memory and its tokens. */
static int build(run *r)
{
    int rc = record(r);
    if (rc)
        return rc;
    if ((rc = nn_params_moments(r->params, r->call->train, r->why, sizeof r->why)))
        return rc;
    report_plan(r);
    if ((rc = nn_params_alloc(r->params, r->why, sizeof r->why)) || (rc = nn_graph_compile(r->graph, r->why, sizeof r->why)))
        return rc;
    rc = fill(r, nn_data(r->graph, r->tokens), STREAM_TOKENS);
    return rc ? rc : fill(r, nn_data(r->graph, r->target), STREAM_TARGETS);
}

/* Operations of one pass by the rule above. */
static double count(run *r)
{
    double weights = (double)r->o->vocabulary * r->model.o.d_model, tokens = (double)(r->B * r->T);
    for (int i = 0; i < nn_params_count(r->params); i++) {
        const char *name = nn_param_name(r->params, i), *end = strrchr(name, '.');
        attn_dims d = nn_param_dims(r->params, i);
        if (d.n == 2 && !strncmp(name, "layers.", 7) && !strcmp(end, ".weight"))
            weights += (double)d.d[0] * (double)d.d[1];
    }
    attn_plan plan = { 0 };
    nn_mixer_spec m = nn_transformer_mixer(&r->model, 0, r->B, r->T, mode_of(r), r->o->phase != FORWARD);
    if (nn_mixer_ask(r->dev, &m, 0, &plan, r->why, sizeof r->why))
        return 0;
    double forward = 2 * weights * tokens + plan.flops_fwd * r->model.o.layers;
    double backward = 4 * weights * tokens + plan.flops_bwd * r->model.o.layers;
    return r->o->phase == FORWARD ? forward : r->o->phase == BACKWARD ? backward : forward + backward;
}

/* ---- what is timed ---------------------------------------------------------------------------------------------- */

static int forward(void *arg) { run *r = arg; return nn_forward(r->graph); }
static int stop(void *arg) { const task_host *h = ((run *)arg)->call->host; return h->stop(h->ctx); }

static int backward(void *arg)
{
    run *r = arg;
    nn_params_zero_grad(r->params);
    return nn_backward(r->graph);
}

static int step(void *arg)
{
    run *r = arg;
    nn_params_zero_grad(r->params);
    int rc = nn_step(r->graph);
    nn_optimiser_step(r->params, r->call->train, ++r->step);
    return rc;
}

/* The first call, timed apart, and its place in the account of memory; then the one in which a GPU records the step. */
static int first_calls(run *r, int (*work)(void *))
{
    static const k_phase phases[] = { [FORWARD] = K_PHASE_FORWARD, [BACKWARD] = K_PHASE_BACKWARD, [STEP] = K_PHASE_STEP };
    int rc = r->o->phase == BACKWARD ? forward(r) : 0;
    k_set_phase(r->dev, phases[r->o->phase]);
    r->cost.first = rc ? -1 : k_time(r->dev, work, r, 0);
    rc = r->cost.first < 0 || (r->o->phase == STEP && k_dev_is_cuda(r->dev) && step(r)) || k_sync(r->dev) < 0;
    r->seen = k_memory_seen(r->dev);
    if (rc)
        snprintf(r->why, sizeof r->why, "the first pass failed: %s", k_error(r->dev));
    return rc ? ATTN_EDEVICE : ATTN_OK;
}

/* A TASK_ code. */
static int measure(run *r)
{
    static int (*const works[])(void *) = { [FORWARD] = forward, [BACKWARD] = backward, [STEP] = step };
    int rc = build(r);
    rc = rc ? rc : first_calls(r, works[r->o->phase]);
    if (rc)
        return nn_task_code(rc);
    nn_work work = { .run = works[r->o->phase], .before = r->o->phase == BACKWARD ? forward : NULL, .stop = stop, .arg = r };
    r->cost.tokens = (double)(r->B * r->T);
    r->cost.flops = count(r);
    return nn_cost_measure(r->dev, &r->o->cost, &work, &r->cost, r->why, sizeof r->why);
}

/* ---- what is reported --------------------------------------------------------------------------------------------- */

/* Memory as it was while the pass ran: replaying takes none. */
static void report_memory(const run *r)
{
    static const struct { const char *name; k_tag tag; } parts[] = {
        { "parameter_bytes", K_TAG_PARAM }, { "gradient_bytes", K_TAG_GRAD }, { "optimiser_bytes", K_TAG_OPTIMISER },
        { "activation_bytes", K_TAG_ACTIVATION }, { "saved_bytes", K_TAG_SAVED }, { "workspace_bytes", K_TAG_WORKSPACE },
        { "data_bytes", K_TAG_DATA } };
    k_memory m;
    k_memory_read(r->dev, &m);
    metric(r, "memory_bytes", (double)m.now);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        metric(r, parts[i].name, (double)m.now_tag[parts[i].tag]);
    if (r->seen)
        metric(r, "seen_bytes", (double)r->seen);
}

/* ---- a cell ------------------------------------------------------------------------------------------------------- */

static int check(const void *opts_, char *why, size_t nwhy) { return nn_cost_check(&((const opts *)opts_)->cost, why, nwhy); }

static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    run r = { .call = call, .o = o, .dev = call->dev, .dtype = nn_size_dtype(&o->size, call), .B = nn_size_batch(&o->size, o->length), .T = o->length };
    int rc = measure(&r);
    if (rc == TASK_DONE) {
        metric(&r, "parameters", (double)nn_params_elements(r.params, 1));
        report_memory(&r);
    }
    nn_graph_free(r.graph);
    nn_params_free(r.params);
    if (rc == TASK_DONE)                /* the device is free again: so are the bounds of the machine */
        nn_cost_report(call, r.dtype, &r.cost, 0);
    else
        call->host->reason(call->host->ctx, r.why);
    nn_cost_release(&r.cost);
    return rc;
}

static const task_default MODEL[] = { { NULL, NULL } };
static const task MODEL_SCALING = {
    .size = sizeof(task), .name = "model_scaling", .title = "Cost of a Transformer", .paper = "arXiv:2009.14794",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .check = check, .run = task_run, .model_defaults = MODEL };
TASK_EXPORT(&MODEL_SCALING);
