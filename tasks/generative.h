/* generative.h - what tasks have in common that learn to make sequences which stand for themselves: images, music, sound.
 *
 * A causal Transformer (model:) around the variant reads token 0 and then the sequence, and says each token by those before it in the
 * same image, piece or recording, never by another's (tasks/data/sequences.h).  Documents that are longer than `length` are cut,
 * unless the task wants them whole.  Training takes the sequences in another order each epoch, a function of seed and step alone, so that a
 * resumed run goes on bit for bit; an evaluation scores every token of its sequences exactly once.
 *
 * A task has its own unit of the mean negative log-likelihood: `scale` times nats per token. */
#ifndef GENERATIVE_H
#define GENERATIVE_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/nn/transformer.h"
#include "likelihood.h"
#include "tasks/data/sequences.h"

enum { GEN_TRAIN, GEN_VALID, GEN_TEST, GEN_SPLITS };

typedef struct gen_opts {
    char data[ATTN_TEXT_SIZE], train_split[ATTN_TEXT_SIZE], valid_split[ATTN_TEXT_SIZE], test_split[ATTN_TEXT_SIZE];
    int32_t length, held_out, eval_batch, eval_sequences, test_sequences;
} gen_opts;

/* The table of options of a task: the defaults of data, valid_split, held_out and length, and what length is. */
#define GEN_OPTIONS(set, valid, held, tokens, what)                                                                                   \
    { "data", "prepared data set, a name or a path (harness data list)", offsetof(gen_opts, data), ATTN_TEXT, 0, 0, 0, set, ATTN_DATA_SET }, \
    { "train_split", "what is learned from", offsetof(gen_opts, train_split), ATTN_TEXT, 0, 0, 0, "train", 0 },                       \
    { "valid_split", "what is looked at while training; empty: the last held_out documents of train", offsetof(gen_opts, valid_split), \
      ATTN_TEXT, 0, 0, 0, valid, 0 },                                                                                                 \
    { "test_split", "what is looked at in the end; empty: nothing", offsetof(gen_opts, test_split), ATTN_TEXT, 0, 0, 0, "test", 0 },  \
    { "length", what, offsetof(gen_opts, length), ATTN_INT, tokens, 2, 1 << 24, NULL, 0 },                                            \
    { "held_out", "documents of train that are not trained on, where there is no valid_split", offsetof(gen_opts, held_out), ATTN_INT, held, \
      1, 1 << 30, NULL, 0 },                                                                                                          \
    { "eval_batch", "sequences at a time in evaluations; 0: the training's batch", offsetof(gen_opts, eval_batch), ATTN_INT, 0, 0, 65536, \
      NULL, 0 },                                                                                                                      \
    { "eval_sequences", "of valid at an evaluation, a random choice, always the same; 0: all", offsetof(gen_opts, eval_sequences), ATTN_INT, \
      0, 0, 1 << 30, NULL, 0 },                                                                                                       \
    { "test_sequences", "of the test, a random choice, always the same; 0: all", offsetof(gen_opts, test_sequences), ATTN_INT, 0, 0,  \
      1 << 30, NULL, 0 },                                                                                                             \
    { .name = NULL }

/* The table of metrics, with those in the task's unit: "bits_per_dim". */
#define GEN_METRICS(scored, unit, what)                                                                                                 \
    LIKELIHOOD_METRICS,                                                                                                               \
    { "valid_" scored, unit, what, -1, 1 },                                                                                             \
    { "test_loss", "nat", "mean negative log-likelihood per token of the test, last weights", -1, 0 },                                \
    { "test_" scored, unit, what ", last weights on the test", -1, 0 },                                                                 \
    { "unigram_" scored, unit, "the same of the whole test by the frequencies of train alone", 0, 0 },                                  \
    { "train_sequences", "1", "sequences to train on", 0, 0 },                                                                        \
    { "test_sequences", "1", "sequences of the test that were scored", 0, 0 },                                                        \
    { "test_tokens", "1", "tokens of them", 0, 0 },                                                                                   \
    { "tokens_per_second", "1/s", "tokens of training per second, padding counted", 1, 0 },                                           \
    { .name = NULL }

typedef struct gen_kind {               /* what a task says of itself */
    const char *unit;                   /* "bits_per_dim" */
    double scale;                       /* of it, to a nat per token */
    int image;                          /* documents are square images of three bytes a pixel, each a sequence: length bytes, no more, no less */
} gen_kind;

typedef struct gen_graph {              /* the model over B sequences */
    nn_graph *graph;
    int32_t B;
    nn_id token, target;                /* i32 [B,T] [B*T] */
} gen_graph;

typedef struct gen_run {
    const task_call *call;              /* first: log_loss */
    const gen_kind *kind;
    const gen_opts *o;
    data_tokens data;
    sequences of[GEN_SPLITS];           /* of no sequence: there is no test */
    nn_params *params;
    nn_transformer model;
    gen_graph learner, judge;
    int32_t *token, *target;            /* host: [B,T] of the larger B */
    char why[512];
} gen_run;

typedef struct gen_score { double loss; int64_t n; } gen_score;    /* the sum over n tokens */

/* ---- the data ---------------------------------------------------------------------------------------------------------- */

/* The side of square images of so many bytes, three a pixel; 0: there are none. */
static int32_t gen_side(int32_t bytes)
{
    const int32_t side = (int32_t)lround(sqrt(bytes / 3.0));
    return 3 * side * side == bytes ? side : 0;
}

/* Whether the documents are such as the task wants: 0, or -1 with a sentence. */
static int gen_fits(gen_run *r, const sequences *q)
{
    for (int64_t d = q->from; d < q->from + q->docs && r->kind->image; d++) {
        const int64_t n = (int64_t)q->split->end[d] - data_doc_begin(q->split, d);
        if (n == r->o->length) continue;
        snprintf(r->why, sizeof r->why, "image %lld of split '%s' of %s has %lld bytes; length is %d, which must be those of an image",
                 (long long)d + 1, q->split->name, r->data.name, (long long)n, r->o->length);
        return -1;
    }
    return q->n ? 0 : (snprintf(r->why, sizeof r->why, "split '%s' of %s has no sequences", q->split->name, r->data.name), -1);
}

/* Documents of a split, less `less` at its end; those alone if only_these. */
static int gen_take(gen_run *r, int which, const char *name, int64_t less, int only_these)
{
    const data_split *s = data_find_split(&r->data, name);
    if (!s) return snprintf(r->why, sizeof r->why, "the data set %s has no split '%s'", r->data.name, name), -1;
    if (less >= s->ndocs)
        return snprintf(r->why, sizeof r->why, "%lld of %lld documents of '%s' cannot be held out", (long long)less, (long long)s->ndocs, name), -1;
    if (!sequences_init(&r->of[which], s, only_these ? s->ndocs - less : 0, only_these ? less : s->ndocs - less, r->o->length))
        return gen_fits(r, &r->of[which]);
    return snprintf(r->why, sizeof r->why, "no memory for the sequences of '%s'", name), -1;
}

/* 0, or -1 with a sentence; to be released either way. */
static int gen_open_data(gen_run *r)
{
    const gen_opts *o = r->o;
    const int64_t less = o->valid_split[0] ? 0 : o->held_out;
    if (r->kind->image && !gen_side(o->length))
        return snprintf(r->why, sizeof r->why, "length %d is not that of a square image of three bytes a pixel", o->length), -1;
    if (data_open(o->data, &r->data, r->why, sizeof r->why) || gen_take(r, GEN_TRAIN, o->train_split, less, 0) ||
        gen_take(r, GEN_VALID, less ? o->train_split : o->valid_split, less, less > 0) ||
        (o->test_split[0] && gen_take(r, GEN_TEST, o->test_split, 0, 0)))
        return -1;
    return 0;
}

/* ---- batches -------------------------------------------------------------------------------------------------------------- */

/* Sequence i of a split into row b of the host's batch; -1: nothing is asked. */
static void gen_put(gen_run *r, int which, int64_t i, int32_t b)
{
    const int64_t T = r->o->length;
    int32_t *in = r->token + b * T, *out = r->target + b * T;
    if (i >= 0) sequences_put(&r->of[which], i, in, out);
    for (int64_t t = 0; i < 0 && t < T; t++) in[t] = 0, out[t] = -1;
}

/* The host's batch to the device. */
static void gen_show(const gen_run *r, const gen_graph *g)
{
    const size_t bytes = (size_t)g->B * (size_t)r->o->length * sizeof(int32_t);
    k_upload(r->call->dev, nn_data(g->graph, g->token), r->token, bytes);
    k_upload(r->call->dev, nn_data(g->graph, g->target), r->target, bytes);
}

/* nn_train's batch. */
static int gen_batch(void *ctx, int64_t number)
{
    gen_run *r = ctx;
    const int64_t n = r->of[GEN_TRAIN].n, B = r->learner.B;
    for (int32_t b = 0; b < B; b++) {
        const int64_t i = (number - 1) * B + b;
        gen_put(r, GEN_TRAIN, data_permuted(r->call->seed, (uint32_t)(i / n), n, i % n), b);
    }
    gen_show(r, &r->learner);
    return TASK_DONE;
}

/* How many sequences of a split an evaluation looks at. */
static int64_t gen_asked(const gen_run *r, int which)
{
    const int64_t most = which == GEN_TEST ? r->o->test_sequences : r->o->eval_sequences, n = r->of[which].n;
    return most && most < n ? most : n;
}

/* Scores them: which they are does not depend on the cell's seed, so that all cells are asked the same. */
static int gen_evaluate(gen_run *r, int which, gen_score *s)
{
    const gen_graph *g = &r->judge;
    const task_host *h = r->call->host;
    const int64_t all = gen_asked(r, which);
    *s = (gen_score){ 0 };
    for (int64_t from = 0; from < all; from += g->B) {
        int64_t asked = 0;
        for (int32_t b = 0; b < g->B; b++)
            gen_put(r, which, from + b < all ? data_permuted(0, (uint32_t)which, r->of[which].n, from + b) : -1, b);
        for (int64_t t = 0; t < (int64_t)g->B * r->o->length; t++) asked += r->target[t] >= 0;
        gen_show(r, g);
        if (nn_forward(g->graph)) {
            snprintf(r->why, sizeof r->why, "the evaluation failed: %s", k_error(r->call->dev));
            return h->reason(h->ctx, r->why), TASK_FAILED;
        }
        s->loss += nn_loss(g->graph) * (double)asked;
        s->n += asked;
        if (h->stop(h->ctx)) return TASK_INTERRUPTED;
    }
    return TASK_DONE;
}

/* A metric in the task's unit: the name behind `of`, the mean of so many nats per token. */
static void gen_tell(const gen_run *r, const char *of, int64_t step, double loss)
{
    const task_host *h = r->call->host;
    char name[64];
    snprintf(name, sizeof name, "%s_%s", of, r->kind->unit);
    h->metric(h->ctx, name, step, loss * r->kind->scale);
}

/* A point of the learning curves, a new one or one that a checkpoint remembers. */
static void gen_log(void *ctx, int64_t step, double loss)
{
    log_loss(ctx, step, loss);
    gen_tell(ctx, "valid", step, loss);
}

/* nn_train's evaluation. */
static int gen_judge(void *ctx, int64_t step, double *loss)
{
    gen_score s;
    const int rc = gen_evaluate(ctx, GEN_VALID, &s);
    if (rc) return rc;
    *loss = s.loss / (double)s.n;
    gen_log(ctx, step, *loss);
    return TASK_DONE;
}

/* ---- a cell ---------------------------------------------------------------------------------------------------------------- */

/* What the training has come to, and what the last weights do on the test. */
static int gen_report(gen_run *r, const nn_trainer *t)
{
    const task_host *h = r->call->host;
    const int64_t batches = t->steps * (r->call->train->accumulate > 1 ? r->call->train->accumulate : 1);
    gen_score s;
    report_training(r->call, r->params, t);
    h->metric(h->ctx, "train_sequences", 0, (double)r->of[GEN_TRAIN].n);
    if (t->seconds > 0) h->metric(h->ctx, "tokens_per_second", 0, (double)(batches * r->learner.B) * r->o->length / t->seconds);
    if (!r->o->test_split[0]) return TASK_DONE;
    k_set_phase(r->call->dev, K_PHASE_EVAL);
    const int rc = gen_evaluate(r, GEN_TEST, &s);
    if (rc) return rc;
    h->metric(h->ctx, "test_loss", 0, s.loss / (double)s.n);
    gen_tell(r, "test", 0, s.loss / (double)s.n);
    gen_tell(r, "unigram", 0, log(data_unigram_of(&r->data, r->of[GEN_TEST].split, -1).perplexity));
    h->metric(h->ctx, "test_sequences", 0, (double)gen_asked(r, GEN_TEST));
    h->metric(h->ctx, "test_tokens", 0, (double)s.n);
    return TASK_DONE;
}

/* Records the model over B sequences. */
static void gen_record(gen_run *r, gen_graph *x, int32_t B, int training)
{
    nn_graph *g = x->graph = nn_graph_new(r->params, training);
    x->B = B;
    x->token = nn_input(g, K_I32, (attn_dims){ 2, { B, r->o->length } });
    x->target = nn_input(g, K_I32, (attn_dims){ 1, { (int64_t)B * r->o->length } });
    nn_graph_set_loss(g, nn_transformer_loss(&r->model, g, nn_transformer_body(&r->model, g, x->token, ATTN_CAUSAL), x->target, 0));
}

/* The model without its values: 0, or a code with a sentence. */
static int gen_model(gen_run *r)
{
    const task_call *c = r->call;
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    return nn_transformer_init(&r->model, r->params, c->model, c->mixer, 1, r->data.nvocab, r->o->length, r->why, sizeof r->why);
}

/* Both graphs over one set of parameters, and the host's batch. */
static int gen_build(gen_run *r)
{
    const int32_t batch = r->call->train->batch, eval_batch = r->o->eval_batch ? r->o->eval_batch : batch;
    const size_t most = (size_t)(batch > eval_batch ? batch : eval_batch) * (size_t)r->o->length;
    int rc = gen_model(r);
    if (rc) return rc;
    gen_record(r, &r->learner, batch, 1);
    gen_record(r, &r->judge, eval_batch, 0);
    r->token = malloc(most * sizeof *r->token), r->target = malloc(most * sizeof *r->target);
    if (!r->token || !r->target) return snprintf(r->why, sizeof r->why, "no memory for the batches on the host"), NN_ENOMEM;
    rc = nn_params_alloc(r->params, r->why, sizeof r->why);
    if (!rc) rc = nn_graph_compile(r->learner.graph, r->why, sizeof r->why);
    return rc ? rc : nn_graph_compile(r->judge.graph, r->why, sizeof r->why);
}

/* Frees what a run, or a model alone, took. */
static void gen_release(gen_run *r)
{
    nn_graph_free(r->learner.graph);
    nn_graph_free(r->judge.graph);
    nn_params_free(r->params);
    for (int i = 0; i < GEN_SPLITS; i++) sequences_release(&r->of[i]);
    data_close(&r->data);
    free(r->token), free(r->target);
}

/* Trains, evaluates, reports: a TASK_ code. */
static int generative_run(const task_call *call, const gen_kind *kind)
{
    gen_run r = { .call = call, .kind = kind, .o = call->opts };
    nn_trainer t = { .call = call, .ctx = &r, .batch = gen_batch, .evaluate = gen_judge, .restored = gen_log,
                     .redraw_interval = nn_redraw_interval(call->mixer) };
    int rc = gen_open_data(&r) ? TASK_FAILED : nn_task_code(gen_build(&r));
    if (rc == TASK_DONE) {
        t.params = r.params;
        t.graph = r.learner.graph;
        rc = nn_train(&t);
        if (rc == TASK_DONE) rc = gen_report(&r, &t);
    } else {
        call->host->reason(call->host->ctx, r.why);
    }
    gen_release(&r);
    return rc;
}

/* ---- the model alone ---------------------------------------------------------------------------------------------------------- */

static int32_t gen_scores(task_model *m, nn_graph *g, int32_t tokens)
{
    gen_run *r = m->ctx;
    return nn_transformer_logits(&r->model, g, nn_transformer_body(&r->model, g, tokens, m->mode));
}

static void gen_close(task_model *m)
{
    gen_release(m->ctx);
    free(m->ctx);
}

static int generative_open(const task_call *call, task_model *m, const gen_kind *kind)
{
    gen_run *r = calloc(1, sizeof *r);
    if (!r) return TASK_OOM;
    *r = (gen_run){ .call = call, .kind = kind, .o = call->opts };
    m->ctx = r;
    const int rc = gen_open_data(r) ? TASK_FAILED : nn_task_code(gen_model(r));
    if (rc) {
        call->host->reason(call->host->ctx, r->why);
        gen_close(m);
        return rc;
    }
    *m = (task_model){ .size = m->size, .ctx = r, .params = r->params, .data = &r->data, .test_split = r->o->test_split,
                       .vocabulary = r->data.nvocab, .context = r->o->length, .mode = ATTN_CAUSAL, .record = gen_scores, .close = gen_close,
                       .whole = 1, .side = kind->image ? gen_side(r->o->length) : 0 };
    return TASK_DONE;
}

/* The two entries of a task's table. */
#define GEN_ENTRIES(kind)                                                                              \
    static int task_run(const task_call *call) { return generative_run(call, &kind); }                 \
    static int task_open(const task_call *call, task_model *m) { return generative_open(call, m, &kind); }
#endif
