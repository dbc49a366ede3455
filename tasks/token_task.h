/* token_task.h - what tasks have in common that ask a causal Transformer about some tokens of sequences drawn as they go.
 *
 * A task says how a sequence is drawn: tokens, and the places whose outputs have a target.  Sequence i of training, or of
 * evaluation, is a pure function of (seed, i); the evaluation's are the same every time.  Outputs are looked at where they
 * are asked for alone: those rows are gathered before the output layer, so that neither loss nor logits of the others
 * are computed.
 *
 * The parameters may be evaluated with other mixers than the one that they were trained with: see token_other. */
#ifndef TOKEN_TASK_H
#define TOKEN_TASK_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "tasks/data/words.h"

enum { TOKEN_TRAIN = 1, TOKEN_EVAL, TOKEN_ORDER };  /* streams of random words; the draw is the sequence, or the epoch */
enum { TOKEN_OTHERS = 8 };

typedef struct token_score { double loss, accuracy; } token_score;

typedef struct token_other {            /* another mixer for the trained parameters; its own parameters are frozen */
    nn_mixer_spec mixer;                /* with an alias */
    token_score score;                  /* the result, after training */
} token_other;

typedef struct token_task {             /* what a task fills in */
    const task_call *call;
    int32_t length, asked, vocabulary;  /* T; outputs with a target, per sequence; how many tokens there are */
    int32_t examples;                   /* sequences to train on, in a random order each epoch; 0: all are new */
    int32_t eval_sequences, nothers;
    token_other other[TOKEN_OTHERS];
    void *ctx;
    /* Draws token [length], and at [asked] of 0..length-1 with target [asked]. */
    void (*draw)(void *ctx, words *, int32_t *token, int32_t *at, int32_t *target);
} token_task;

#define TOKEN_METRICS \
    { "eval_loss", "1", "evaluation loss, the mean over all targets", -1, 1 }, \
    { "accuracy", "1", "share of targets that are the likeliest token, after training", 1, 0 }, \
    { "last_eval_loss", "1", "last evaluation loss", -1, 0 }, \
    { "steps", "1", "training steps", 0, 0 }, \
    { "seconds", "s", "time of training, evaluations left out", -1, 0 }, \
    { "tokens_per_second", "1/s", "tokens of training per second", 1, 0 }

typedef struct token_graph {            /* a batch of B sequences, and what it is asked */
    nn_transformer model;
    nn_graph *graph;
    int32_t B;
    nn_id token, at, target, logits;    /* i32 [B,T] [B*asked] [B*asked], [B*asked,vocabulary] */
} token_graph;

typedef struct token_run {
    token_task *t;
    int redraw_interval;
    int64_t epoch;                      /* of order */
    nn_params *params;
    token_graph train, eval[1 + TOKEN_OTHERS];      /* eval[0]: with the mixer of training */
    int32_t *token, *at, *target, *order;           /* host: [B,T] [B*asked] [B*asked] [examples] */
    float *logits;                                  /* host: [B*asked,vocabulary] */
    void *wide;                                     /* device: the same in float, NULL: they are float anyhow */
    char why[512];
} token_run;

/* ---- data ------------------------------------------------------------------------------------------------------- */

/* order [examples] of an epoch, by Fisher and Yates. */
static void token_shuffle(token_run *r, int64_t epoch)
{
    words w = { .seed = r->t->call->seed, .stream = TOKEN_ORDER, .draw = (uint32_t)epoch };
    for (int32_t i = 0; i < r->t->examples; i++) {
        int32_t j = (int32_t)words_below(&w, (uint32_t)i + 1);
        r->order[i] = r->order[j];
        r->order[j] = i;
    }
    r->epoch = epoch;
}

/* The number of sequence b of a training batch.  What is left of an epoch when no whole batch is, is left out. */
static uint32_t token_number(token_run *r, int64_t batch, int32_t b)
{
    int64_t B = r->train.B, i = (batch - 1) * B + b;
    if (!r->t->examples) return (uint32_t)i;
    int64_t epoch = (batch - 1) / (r->t->examples / B);
    if (epoch != r->epoch) token_shuffle(r, epoch);
    return (uint32_t)r->order[i - epoch * (r->t->examples / B * B)];
}

/* Draws sequence `number` of a stream into place b of the host's batch. */
static void token_draw(token_run *r, uint32_t stream, uint32_t number, int32_t b)
{
    const token_task *t = r->t;
    int32_t *at = r->at + (size_t)b * t->asked;
    words w = { .seed = t->call->seed, .stream = stream, .draw = number };
    t->draw(t->ctx, &w, r->token + (size_t)b * t->length, at, r->target + (size_t)b * t->asked);
    for (int32_t i = 0; i < t->asked; i++) at[i] += b * t->length;
}

/* The host's batch to the device. */
static void token_show(token_run *r, const token_graph *g)
{
    k_dev *dev = r->t->call->dev;
    size_t asked = (size_t)g->B * r->t->asked * sizeof(int32_t);
    k_upload(dev, nn_data(g->graph, g->token), r->token, (size_t)g->B * r->t->length * sizeof(int32_t));
    k_upload(dev, nn_data(g->graph, g->at), r->at, asked);
    k_upload(dev, nn_data(g->graph, g->target), r->target, asked);
}

/* nn_train's batch. */
static int token_batch(void *ctx, int64_t number)
{
    token_run *r = ctx;
    for (int32_t b = 0; b < r->train.B; b++) token_draw(r, TOKEN_TRAIN, token_number(r, number, b), b);
    token_show(r, &r->train);
    return TASK_DONE;
}

/* ---- evaluation ----------------------------------------------------------------------------------------------------- */

/* How many of n rows have their target for their largest logit. */
static int64_t token_right(token_run *r, const token_graph *g, int64_t n)
{
    const task_call *c = r->t->call;
    int64_t V = r->t->vocabulary, right = 0;
    const void *logits = nn_data(g->graph, g->logits);
    if (r->wide) k_convert(c->dev, n * V, r->wide, K_F32, logits, c->dtype), logits = r->wide;
    k_download(c->dev, r->logits, logits, (size_t)(n * V) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const float *y = r->logits + i * V;
        int64_t best = 0;
        for (int64_t v = 1; v < V; v++)
            if (y[v] > y[best]) best = v;
        right += best == r->target[i];
    }
    return right;
}

/* Mean loss over the sequences of evaluation after so many steps, and accuracy where it is wanted.  Random matrices that
 * training redraws are redrawn for every batch, from numbers beyond those of training, and then are again as the last
 * training step had them. */
static int token_evaluate(token_run *r, const token_graph *g, int64_t step, int accuracy, token_score *score)
{
    enum { EVAL_DRAWS = 0x80000000u };
    const token_task *t = r->t;
    int64_t right = 0;
    int rc = 0;
    *score = (token_score){ 0 };
    for (int32_t from = 0; from < t->eval_sequences && !rc; from += g->B) {
        int32_t n = t->eval_sequences - from < g->B ? t->eval_sequences - from : g->B;
        for (int32_t b = 0; b < g->B; b++) token_draw(r, TOKEN_EVAL, (uint32_t)(b < n ? from + b : 0), b);
        for (int64_t i = (int64_t)n * t->asked; i < (int64_t)g->B * t->asked; i++) r->target[i] = -1;
        token_show(r, g);
        if (r->redraw_interval) nn_params_redraw(r->params, EVAL_DRAWS + (uint32_t)(from / g->B));
        if ((rc = nn_forward(g->graph))) break;
        score->loss += nn_loss(g->graph) * n / t->eval_sequences;
        if (accuracy) right += token_right(r, g, (int64_t)n * t->asked);
    }
    if (r->redraw_interval) nn_params_redraw(r->params, (uint32_t)((step - 1) / r->redraw_interval));
    score->accuracy = (double)right / ((double)t->eval_sequences * t->asked);
    if (rc) snprintf(r->why, sizeof r->why, "the evaluation failed: %s", k_error(t->call->dev));
    return rc ? TASK_FAILED : TASK_DONE;
}

/* nn_train's evaluation: the loss is what the stop rule looks at. */
static int token_judge(void *ctx, int64_t step, double *loss)
{
    token_run *r = ctx;
    const task_host *h = r->t->call->host;
    token_score score;
    int rc = token_evaluate(r, &r->eval[0], step, 0, &score);
    if (rc) return h->reason(h->ctx, r->why), rc;
    *loss = score.loss;
    h->metric(h->ctx, "eval_loss", step, *loss);
    return TASK_DONE;
}

/* An evaluation that a checkpoint remembers. */
static void token_restored(void *ctx, int64_t step, double loss)
{
    const task_host *h = ((token_run *)ctx)->t->call->host;
    h->metric(h->ctx, "eval_loss", step, loss);
}

/* After training: how the mixer of training does, and every other. */
static int token_report(token_run *r, const nn_trainer *n)
{
    token_task *t = r->t;
    const task_host *h = t->call->host;
    token_score trained;
    k_set_phase(t->call->dev, K_PHASE_EVAL);
    int rc = token_evaluate(r, &r->eval[0], n->steps, 1, &trained);
    for (int i = 0; i < t->nothers && !rc; i++) rc = token_evaluate(r, &r->eval[1 + i], n->steps, 1, &t->other[i].score);
    if (rc) return h->reason(h->ctx, r->why), rc;
    h->metric(h->ctx, "accuracy", n->steps, trained.accuracy);
    h->metric(h->ctx, "last_eval_loss", n->steps, n->last);
    h->metric(h->ctx, "steps", n->steps, (double)n->steps);
    h->metric(h->ctx, "seconds", n->steps, n->seconds);
    int64_t batches = n->steps * (t->call->train->accumulate > 1 ? t->call->train->accumulate : 1);
    if (n->seconds > 0) h->metric(h->ctx, "tokens_per_second", n->steps, (double)(batches * r->train.B * t->length) / n->seconds);
    return TASK_DONE;
}

/* ---- a cell --------------------------------------------------------------------------------------------------------- */

/* Records the model over a batch of B sequences; loss for all graphs, logits where there is no training. */
static int token_graph_init(token_run *r, token_graph *g, const nn_mixer_spec *mixer, int32_t B, int training)
{
    const token_task *t = r->t;
    int64_t asked = (int64_t)B * t->asked;
    int rc = nn_transformer_init(&g->model, r->params, t->call->model, mixer, 1, t->vocabulary, t->length, r->why, sizeof r->why);
    if (rc) return rc;
    g->graph = nn_graph_new(r->params, training);
    g->B = B;
    g->token = nn_input(g->graph, K_I32, (attn_dims){ 2, { B, t->length } });
    g->at = nn_input(g->graph, K_I32, (attn_dims){ 1, { asked } });
    g->target = nn_input(g->graph, K_I32, (attn_dims){ 1, { asked } });
    nn_id all = nn_transformer_body(&g->model, g->graph, g->token, ATTN_CAUSAL);
    int64_t d = g->model.o.d_model;
    nn_id rows = nn_gather(g->graph, nn_reshape(g->graph, all, (attn_dims){ 2, { (int64_t)B * t->length, d } }), g->at);
    nn_id h = nn_reshape(g->graph, rows, (attn_dims){ 3, { B, t->asked, d } });
    nn_graph_set_loss(g->graph, nn_transformer_loss(&g->model, g->graph, h, g->target, 0));
    if (!training) g->logits = nn_transformer_logits(&g->model, g->graph, h);
    return ATTN_OK;
}

/* The host's arrays, and the device's room for logits in float. */
static int token_arrays(token_run *r)
{
    const token_task *t = r->t;
    size_t B = (size_t)r->train.B, asked = B * (size_t)t->asked, logits = asked * (size_t)t->vocabulary * sizeof *r->logits;
    r->token = malloc(B * (size_t)t->length * sizeof *r->token);
    r->at = malloc(asked * sizeof *r->at), r->target = malloc(asked * sizeof *r->target);
    r->order = malloc(((size_t)t->examples + 1) * sizeof *r->order);
    r->logits = malloc(logits);
    if (r->token && r->at && r->target && r->order && r->logits)
        return t->call->dtype == K_F32 ? 0 : k_alloc(t->call->dev, K_TAG_WORKSPACE, logits, &r->wide) ? NN_ENOMEM : 0;
    snprintf(r->why, sizeof r->why, "no memory for a batch of %zu sequences on the host", B);
    return NN_ENOMEM;
}

/* All graphs over one set of parameters. */
static int token_build(token_run *r)
{
    const token_task *t = r->t;
    const task_call *c = t->call;
    int32_t B = c->train->batch;
    if (t->examples && t->examples < B) {
        snprintf(r->why, sizeof r->why, "%d examples do not make a batch of %d", t->examples, B);
        return ATTN_EUNSUP;
    }
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    int rc = token_graph_init(r, &r->train, c->mixer, B, 1);
    for (int i = 0; i <= t->nothers && !rc; i++)
        rc = token_graph_init(r, &r->eval[i], i ? &t->other[i - 1].mixer : c->mixer, B, 0);
    if (!rc) rc = nn_params_alloc(r->params, r->why, sizeof r->why);
    if (!rc) rc = nn_graph_compile(r->train.graph, r->why, sizeof r->why);
    for (int i = 0; i <= t->nothers && !rc; i++) rc = nn_graph_compile(r->eval[i].graph, r->why, sizeof r->why);
    return rc ? rc : token_arrays(r);
}

/* Frees what the run took. */
static void token_release(token_run *r)
{
    nn_graph_free(r->train.graph);
    for (int i = 0; i <= r->t->nothers; i++) nn_graph_free(r->eval[i].graph);
    nn_params_free(r->params);
    k_free(r->t->call->dev, r->wide);
    free(r->token), free(r->at), free(r->target), free(r->order), free(r->logits);
}

/* Trains, evaluates, reports: a TASK_ code. */
static int token_task_run(token_task *t)
{
    token_run r = { .t = t, .redraw_interval = nn_redraw_interval(t->call->mixer), .epoch = -1 };
    int rc = token_build(&r);
    if (rc) {
        t->call->host->reason(t->call->host->ctx, r.why);
        rc = nn_task_code(rc);
    } else {
        nn_trainer n = { .call = t->call, .params = r.params, .graph = r.train.graph, .ctx = &r, .batch = token_batch,
                         .evaluate = token_judge, .restored = token_restored, .redraw_interval = r.redraw_interval };
        rc = nn_train(&n);
        if (rc == TASK_DONE) rc = token_report(&r, &n);
    }
    token_release(&r);
    return rc;
}
#endif
