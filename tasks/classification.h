/* classification.h - what tasks have in common that put sequences into classes: an encoder, one row made of it, a classifier.
 *
 * A task says what example i of a split is: one text, or two, and a label.  The texts go through one Transformer (model:) around the
 * variant; padding is hidden, unless it is asked for as a token.  One row stands for a text: that of an extra token (CLS), or the mean over its tokens.  Of x, or of
 * two of them, the classifier of Long Range Arena (Tay et al. 2021, arXiv:2011.04006) makes the scores of the classes:
 *
 *     W2 relu(W1 x + b1) + b2          W3 relu(W2 relu(W1 [x1, x2, x1 * x2, x1 - x2] + b1) + b2) + b3
 *
 * Examples to train on come in another order each epoch; batch and order are functions of seed and step alone, so that a resumed
 * run goes on bit for bit. */
#ifndef CLASSIFICATION_H
#define CLASSIFICATION_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "tasks/data/tokens.h"

enum { CLASS_TRAIN, CLASS_VALID, CLASS_TEST, CLASS_SPLITS };
enum { CLASS_BIDIRECTIONAL, CLASS_CAUSAL };
enum { CLASS_CLS, CLASS_MEAN };
enum { CLASS_HIDDEN, CLASS_SEEN };
enum { CLASS_NLI, CLASS_BOTH };         /* what is made of two rows: see above; without product and difference */
enum { CLASS_TEXTS = 2, CLASS_MOST = 1000 };    /* texts of an example; classes */

typedef struct class_opts { int32_t length, mode, pooling, padding, interaction, eval_batch, eval_examples, test_examples; } class_opts;

/* The rows of a table of options whose struct has a class_opts `c`. */
#define CLASS_OPTIONS(opts, tokens)                                                                                                   \
    { "length", "T: tokens of a sequence at most, CLS counted; what is longer is cut off", offsetof(opts, c.length), ATTN_INT, tokens, 2, \
      1 << 24, NULL, 0 },                                                                                                             \
    { "mode", "whether a token sees all others or those before it alone; then CLS is the last", offsetof(opts, c.mode), ATTN_CHOICE,   \
      CLASS_BIDIRECTIONAL, 0, 0, "bidirectional,causal", 0 },                                                                         \
    { "pooling", "the row that stands for a text: of an extra token, or the mean of all", offsetof(opts, c.pooling), ATTN_CHOICE,      \
      CLASS_CLS, 0, 0, "cls,mean", 0 },                                                                                               \
    { "padding", "behind the end of a text: hidden from attention; seen: one more token, for variants that know no lengths",           \
      offsetof(opts, c.padding), ATTN_CHOICE, CLASS_HIDDEN, 0, 0, "hidden,seen", 0 },                                                 \
    { "eval_batch", "examples at a time in evaluations; 0: the training's batch", offsetof(opts, c.eval_batch), ATTN_INT, 0, 0, 65536, \
      NULL, 0 },                                                                                                                      \
    { "eval_examples", "of valid at an evaluation, a random choice, always the same; 0: all", offsetof(opts, c.eval_examples),        \
      ATTN_INT, 0, 0, 1 << 30, NULL, 0 },                                                                                             \
    { "test_examples", "of the test, a random choice, always the same; 0: all", offsetof(opts, c.test_examples), ATTN_INT, 0, 0,      \
      1 << 30, NULL, 0 }

#define CLASS_METRICS                                                                                        \
    { "valid_loss", "nat", "mean negative log-likelihood of the class", -1, 1 },                             \
    { "valid_accuracy", "1", "share of examples put into their class", 1, 1 },                               \
    { "best_valid_loss", "nat", "best of the evaluations", -1, 0 },                                          \
    { "test_loss", "nat", "mean negative log-likelihood of the class, last weights", -1, 0 },                \
    { "test_accuracy", "1", "share of examples put into their class, last weights", 1, 0 },                  \
    { "test_accuracy_low", "1", "lower end of its 95 % interval (Wilson)", 1, 0 },                           \
    { "test_accuracy_high", "1", "upper end of its 95 % interval (Wilson)", 1, 0 },                          \
    { "test_majority", "1", "accuracy of always naming the commonest class of the test", 0, 0 },             \
    { "test_tokens", "1", "mean tokens of a text of the test, uncut", 0, 0 },                                \
    { "test_cut", "1", "share of the test's texts that are longer than length", 0, 0 },                      \
    { "train_examples", "1", "examples to train on; 0: every one is new", 0, 0 },                            \
    { "valid_examples", "1", "examples of an evaluation while training", 0, 0 },                             \
    { "test_examples", "1", "examples of the test", 0, 0 },                                                  \
    { "parameters", "1", "learned numbers", 0, 0 },                                                          \
    { "steps", "1", "training steps", 0, 0 },                                                                \
    { "seconds", "s", "time of training, evaluations left out", -1, 0 },                                     \
    { "tokens_per_second", "1/s", "tokens of training per second, padding counted", 1, 0 }

typedef struct class_text {             /* a text as it is drawn */
    int32_t *token;                     /* room for so many */
    int32_t room, n;                    /* n: how many there are, 1..room */
    int64_t whole;                      /* and how many it had before it was cut */
} class_text;

typedef struct classification {         /* what a task fills in */
    const task_call *call;
    const class_opts *o;
    int32_t texts, vocabulary, classes; /* 1 or 2 texts of an example; tokens, CLS not counted */
    int64_t examples[CLASS_SPLITS];     /* of training 0: every one is new */
    void *ctx;
    /* Example i of a split: its texts text[0..texts-1] and its label. */
    void (*draw)(void *ctx, int split, int64_t i, class_text *text, int32_t *label);
} classification;

typedef struct class_graph {            /* a batch of B examples: texts * B sequences, first texts first */
    nn_transformer model;
    nn_graph *graph;
    int32_t B;
    nn_id token, len, at[CLASS_TEXTS], target, logits;  /* i32 [texts*B,T] [texts*B] [B] [B], [B,classes]; len: NN_NONE if nobody asks */
} class_graph;

typedef struct class_run {
    classification *t;
    nn_trainer *trainer;
    nn_params *params;
    class_graph learner, judge;
    int32_t *token, *len, *at, *target; /* host: [texts*B,T] [texts*B] [texts*B] [B], for the larger B */
    float *logits;                      /* host: [B,classes] */
    void *wide;                         /* device: the same in float, NULL: they are float anyhow */
    char why[512];
} class_run;

typedef struct class_score { double loss; int64_t n, right, tokens, cut, count[CLASS_MOST]; } class_score;

/* CLS and padding are tokens behind those of the texts, where they are tokens. */
static int32_t class_padding(const classification *t)
{
    return t->o->padding == CLASS_SEEN ? t->vocabulary + (t->o->pooling == CLASS_CLS) : 0;
}
static int32_t class_words(const classification *t)
{
    return t->vocabulary + (t->o->pooling == CLASS_CLS) + (t->o->padding == CLASS_SEEN);
}

/* ---- a batch ---------------------------------------------------------------------------------------------------------- */

/* Puts example i of a split into place b of B on the host; the first text's length before it was cut is added to *s, unless NULL. */
static void class_put(class_run *r, int split, int64_t i, int32_t b, int32_t B, class_score *s)
{
    const classification *t = r->t;
    const int32_t T = t->o->length, cls = t->o->pooling == CLASS_CLS, first = cls && t->o->mode == CLASS_BIDIRECTIONAL;
    class_text text[CLASS_TEXTS];
    for (int k = 0; k < t->texts; k++) {
        int32_t *row = r->token + ((int64_t)k * B + b) * T;
        for (int32_t j = 0; j < T; j++) row[j] = class_padding(t);
        text[k] = (class_text){ .token = row + first, .room = T - cls };
    }
    t->draw(t->ctx, split, i, text, &r->target[b]);
    for (int k = 0; k < t->texts; k++) {
        const int32_t row = k * B + b, place = first ? 0 : text[k].n;
        if (cls) r->token[(int64_t)row * T + place] = t->vocabulary;
        r->len[row] = text[k].n + cls;
        r->at[row] = cls ? row * T + place : row;
        if (s) s->tokens += text[k].whole, s->cut += text[k].whole > text[k].room;
    }
}

/* The host's batch to the device. */
static void class_show(class_run *r, const class_graph *g)
{
    k_dev *dev = r->t->call->dev;
    const size_t rows = (size_t)r->t->texts * (size_t)g->B, one = (size_t)g->B * sizeof(int32_t);
    k_upload(dev, nn_data(g->graph, g->token), r->token, rows * (size_t)r->t->o->length * sizeof(int32_t));
    if (g->len != NN_NONE) k_upload(dev, nn_data(g->graph, g->len), r->len, rows * sizeof(int32_t));
    for (int k = 0; k < r->t->texts; k++) k_upload(dev, nn_data(g->graph, g->at[k]), r->at + (size_t)k * (size_t)g->B, one);
    k_upload(dev, nn_data(g->graph, g->target), r->target, one);
}

/* nn_train's batch. */
static int class_batch(void *ctx, int64_t number)
{
    class_run *r = ctx;
    const int64_t n = r->t->examples[CLASS_TRAIN], B = r->learner.B;
    for (int32_t b = 0; b < B; b++) {
        const int64_t i = (number - 1) * B + b;
        class_put(r, CLASS_TRAIN, n ? data_permuted(r->t->call->seed, (uint32_t)(i / n), n, i % n) : i, b, (int32_t)B, NULL);
    }
    class_show(r, &r->learner);
    return TASK_DONE;
}

/* ---- evaluation ----------------------------------------------------------------------------------------------------------- */

/* Counts the first n rows of what the judge has been shown. */
static void class_count(class_run *r, int32_t n, class_score *s)
{
    const task_call *c = r->t->call;
    const int64_t classes = r->t->classes, numbers = r->judge.B * classes;
    const void *logits = nn_data(r->judge.graph, r->judge.logits);
    if (r->wide) k_convert(c->dev, numbers, r->wide, K_F32, logits, c->dtype), logits = r->wide;
    k_download(c->dev, r->logits, logits, (size_t)numbers * sizeof(float));
    for (int32_t i = 0; i < n; i++) {
        const float *y = r->logits + i * classes;
        int32_t best = 0;
        for (int32_t k = 1; k < classes; k++)
            if (y[k] > y[best]) best = k;
        s->right += best == r->target[i];
        s->count[r->target[i]]++;
    }
    s->n += n;
}

/* How many examples of a split are looked at. */
static int64_t class_asked(const classification *t, int split)
{
    const int64_t most = split == CLASS_TEST ? t->o->test_examples : t->o->eval_examples, n = t->examples[split];
    return most && most < n ? most : n;
}

/* Looks at as many examples of a split as the options say.  Files come sorted by label: which these are is drawn, but not by the
 * cell's seed, so that all cells are asked the same. */
static int class_evaluate(class_run *r, int split, class_score *s)
{
    const class_graph *g = &r->judge;
    const task_host *h = r->t->call->host;
    const int64_t all = class_asked(r->t, split);
    *s = (class_score){ 0 };
    for (int64_t from = 0; from < all; from += g->B) {
        const int32_t n = (int32_t)(all - from < g->B ? all - from : g->B);
        for (int32_t b = 0; b < g->B; b++) {
            const int64_t i = data_permuted(0, (uint32_t)split, r->t->examples[split], b < n ? from + b : from);
            class_put(r, split, i, b, g->B, b < n ? s : NULL);
            if (b >= n) r->target[b] = -1;
        }
        class_show(r, g);
        if (nn_forward(g->graph)) return snprintf(r->why, sizeof r->why, "the evaluation failed: %s", k_error(r->t->call->dev)), TASK_FAILED;
        s->loss += nn_loss(g->graph) * n;
        class_count(r, n, s);
        if (h->stop(h->ctx)) return snprintf(r->why, sizeof r->why, "interrupted"), TASK_INTERRUPTED;
    }
    s->loss /= (double)all;
    return TASK_DONE;
}

/* A point of the learning curves, new or of a checkpoint. */
static void class_tell(void *ctx, int64_t step, double loss)
{
    const class_run *r = ctx;
    const task_host *h = r->t->call->host;
    h->metric(h->ctx, "valid_loss", step, loss);
    h->metric(h->ctx, "valid_accuracy", step, r->trainer->score);
}

/* nn_train's evaluation: the loss is what the stop rule looks at. */
static int class_judge(void *ctx, int64_t step, double *loss)
{
    class_run *r = ctx;
    const task_host *h = r->t->call->host;
    class_score s;
    const int rc = class_evaluate(r, CLASS_VALID, &s);
    if (rc) return h->reason(h->ctx, r->why), rc;
    *loss = s.loss;
    r->trainer->score = (double)s.right / (double)s.n;
    class_tell(r, step, *loss);
    return TASK_DONE;
}

/* An end of Wilson's 95 % interval of `right` of n: side -1 or 1. */
static double class_wilson(int64_t right, int64_t n, int side)
{
    const double z = 1.959963984540054, p = (double)right / (double)n, of = z * z / (double)n;
    return (p + of / 2 + side * z * sqrt(p * (1 - p) / (double)n + of / (double)(4 * n))) / (1 + of);
}

/* What the last weights do on the test. */
static int class_test(class_run *r)
{
    const task_host *h = r->t->call->host;
    class_score s;
    int64_t commonest = 0;
    k_set_phase(r->t->call->dev, K_PHASE_EVAL);
    const int rc = class_evaluate(r, CLASS_TEST, &s);
    if (rc) return h->reason(h->ctx, r->why), rc;
    for (int k = 0; k < r->t->classes; k++) commonest = s.count[k] > commonest ? s.count[k] : commonest;
    h->metric(h->ctx, "test_loss", 0, s.loss);
    h->metric(h->ctx, "test_accuracy", 0, (double)s.right / (double)s.n);
    h->metric(h->ctx, "test_accuracy_low", 0, class_wilson(s.right, s.n, -1));
    h->metric(h->ctx, "test_accuracy_high", 0, class_wilson(s.right, s.n, 1));
    h->metric(h->ctx, "test_majority", 0, (double)commonest / (double)s.n);
    h->metric(h->ctx, "test_tokens", 0, (double)s.tokens / (double)(s.n * r->t->texts));
    h->metric(h->ctx, "test_cut", 0, (double)s.cut / (double)(s.n * r->t->texts));
    h->metric(h->ctx, "test_examples", 0, (double)s.n);
    return TASK_DONE;
}

/* What the training has come to. */
static void class_report(class_run *r)
{
    const task_host *h = r->t->call->host;
    const nn_trainer *n = r->trainer;
    const int64_t batches = n->steps * (r->t->call->train->accumulate > 1 ? r->t->call->train->accumulate : 1);
    const double tokens = (double)(batches * r->learner.B * r->t->texts) * r->t->o->length;
    h->metric(h->ctx, "best_valid_loss", 0, n->best);
    h->metric(h->ctx, "train_examples", 0, (double)r->t->examples[CLASS_TRAIN]);
    h->metric(h->ctx, "valid_examples", 0, (double)class_asked(r->t, CLASS_VALID));
    h->metric(h->ctx, "parameters", 0, (double)nn_params_elements(r->params, 1));
    h->metric(h->ctx, "steps", 0, (double)n->steps);
    h->metric(h->ctx, "seconds", 0, n->seconds);
    if (n->seconds > 0) h->metric(h->ctx, "tokens_per_second", 0, tokens / n->seconds);
}

/* ---- the model -------------------------------------------------------------------------------------------------------------- */

/* W x (+ b), the parameters classifier.name.*; depth: how many numbers an output is made of. */
static nn_id class_linear(class_run *r, nn_graph *g, const char *name, nn_id x, int64_t width, int64_t depth, int bias)
{
    char full[80];
    if (x < 0) return NN_BAD;
    const attn_dims d = nn_dims(g, x);
    snprintf(full, sizeof full, "classifier.%s.weight", name);
    const attn_init even = { ATTN_INIT_NORMAL, 0, 1 / sqrt((double)depth) }, zero = { ATTN_INIT_CONST, 0, 0 };
    nn_id w = nn_use(g, nn_param(r->params, full, (attn_dims){ 2, { width, d.d[1] } }, even, 0));
    snprintf(full, sizeof full, "classifier.%s.bias", name);
    nn_id b = bias ? nn_use(g, nn_param(r->params, full, (attn_dims){ 1, { width } }, zero, ATTN_NO_DECAY)) : NN_NONE;
    return nn_linear(g, x, w, b);
}

/* W1 [x1, x2, x1 * x2, x1 - x2] + b1 of rows [B,d], W1 in blocks. */
static nn_id class_pair(class_run *r, nn_graph *g, const nn_id *x, int64_t width, int64_t d)
{
    const int nli = r->t->o->interaction == CLASS_NLI;
    const int64_t depth = (nli ? 4 : 2) * d;
    nn_id y = nn_add(g, class_linear(r, g, "hidden.first", x[0], width, depth, 1), class_linear(r, g, "hidden.second", x[1], width, depth, 0));
    if (!nli) return y;
    nn_id difference = nn_add(g, x[0], nn_scale(g, x[1], -1));
    y = nn_add(g, y, class_linear(r, g, "hidden.product", nn_mul(g, x[0], x[1]), width, depth, 0));
    return nn_add(g, y, class_linear(r, g, "hidden.difference", difference, width, depth, 0));
}

/* The scores [B,classes] of the rows x [B,d] that stand for each example's texts. */
static nn_id class_head(class_run *r, nn_graph *g, const nn_id *x, const nn_model_opts *o)
{
    const int64_t d = o->d_model, width = o->d_ff, half = width / 2 > 0 ? width / 2 : 1;
    if (r->t->texts == 1) {
        nn_id h = nn_unary(g, K_RELU, class_linear(r, g, "hidden", x[0], width, d, 1));
        return class_linear(r, g, "output", h, r->t->classes, width, 1);
    }
    nn_id h = nn_unary(g, K_RELU, class_pair(r, g, x, width, d));
    h = nn_unary(g, K_RELU, class_linear(r, g, "hidden2", h, half, width, 1));
    return class_linear(r, g, "output", h, r->t->classes, half, 1);
}

/* Records the model over a batch of B examples. */
static int class_graph_init(class_run *r, class_graph *x, int32_t B, int training)
{
    const classification *t = r->t;
    const task_call *c = t->call;
    const int64_t rows = (int64_t)t->texts * B, T = t->o->length;
    const int cls = t->o->pooling == CLASS_CLS, causal = t->o->mode == CLASS_CAUSAL, hide = !causal && t->o->padding == CLASS_HIDDEN;
    int rc = nn_transformer_init(&x->model, r->params, c->model, c->mixer, 1, class_words(t), T, r->why, sizeof r->why);
    if (rc) return rc;
    nn_graph *g = x->graph = nn_graph_new(r->params, training);
    x->B = B;
    x->token = nn_input(g, K_I32, (attn_dims){ 2, { rows, T } });
    x->len = cls && !hide ? NN_NONE : nn_input(g, K_I32, (attn_dims){ 1, { rows } });
    x->target = nn_input(g, K_I32, (attn_dims){ 1, { B } });
    nn_id h = nn_transformer_stack(&x->model, g, &(nn_stack){ "", causal ? ATTN_CAUSAL : ATTN_BIDIR, x->token, hide ? x->len : NN_NONE,
                                                              c->mixer, 1, NN_NONE, NN_NONE, NULL });
    nn_id of = cls ? nn_reshape(g, h, (attn_dims){ 2, { rows * T, x->model.o.d_model } }) : nn_pool(g, h, x->len), row[CLASS_TEXTS];
    for (int k = 0; k < t->texts; k++) {
        x->at[k] = nn_input(g, K_I32, (attn_dims){ 1, { B } });
        row[k] = nn_gather(g, of, x->at[k]);
    }
    x->logits = class_head(r, g, row, &x->model.o);
    nn_graph_set_loss(g, nn_cross_entropy(g, x->logits, x->target));
    if (!training) nn_keep(g, x->logits);
    return ATTN_OK;
}

/* The host's arrays, and the device's room for logits in float. */
static int class_arrays(class_run *r)
{
    const classification *t = r->t;
    const size_t B = (size_t)(r->learner.B > r->judge.B ? r->learner.B : r->judge.B), rows = (size_t)t->texts * B;
    const size_t logits = B * (size_t)t->classes * sizeof(float);
    r->token = malloc(rows * (size_t)t->o->length * sizeof(int32_t));
    r->len = malloc(rows * sizeof(int32_t)), r->at = malloc(rows * sizeof(int32_t)), r->target = malloc(B * sizeof(int32_t));
    r->logits = malloc(logits);
    if (r->token && r->len && r->at && r->target && r->logits)
        return t->call->dtype == K_F32 ? 0 : k_alloc(t->call->dev, K_TAG_WORKSPACE, logits, &r->wide) ? NN_ENOMEM : 0;
    snprintf(r->why, sizeof r->why, "no memory for a batch of %zu sequences on the host", rows);
    return NN_ENOMEM;
}

/* Both graphs over one set of parameters. */
static int class_build(class_run *r)
{
    const classification *t = r->t;
    const task_call *c = t->call;
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    int rc = class_graph_init(r, &r->learner, c->train->batch, 1);
    if (!rc) rc = class_graph_init(r, &r->judge, t->o->eval_batch ? t->o->eval_batch : c->train->batch, 0);
    if (!rc) rc = nn_params_alloc(r->params, r->why, sizeof r->why);
    if (!rc) rc = nn_graph_compile(r->learner.graph, r->why, sizeof r->why);
    if (!rc) rc = nn_graph_compile(r->judge.graph, r->why, sizeof r->why);
    return rc ? rc : class_arrays(r);
}

/* Frees what the run took. */
static void class_release(class_run *r)
{
    nn_graph_free(r->learner.graph);
    nn_graph_free(r->judge.graph);
    nn_params_free(r->params);
    k_free(r->t->call->dev, r->wide);
    free(r->token), free(r->len), free(r->at), free(r->target), free(r->logits);
}

/* Trains, evaluates, reports: a TASK_ code. */
static int classification_run(classification *t)
{
    class_run r = { .t = t };
    nn_trainer n = { .call = t->call, .ctx = &r, .batch = class_batch, .evaluate = class_judge, .restored = class_tell,
                     .redraw_interval = nn_redraw_interval(t->call->mixer) };
    r.trainer = &n;
    int rc = class_build(&r);
    if (rc) {
        t->call->host->reason(t->call->host->ctx, r.why);
        rc = nn_task_code(rc);
    } else {
        n.params = r.params;
        n.graph = r.learner.graph;
        rc = nn_train(&n);
        if (rc == TASK_DONE) class_report(&r), rc = class_test(&r);
    }
    class_release(&r);
    return rc;
}
#endif
