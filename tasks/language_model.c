/* language_model - predict the next token of a text, or the hidden ones of it, and count the surprise.
 *
 * A Transformer (model:) around the variant reads a prepared data set (`harness data`): words, bytes, amino acids, notes,
 * pixels.  Training cuts the split into `batch` contiguous streams, remainder dropped, and walks over them in segments of
 * `context` tokens, step by step: a function of the step alone, so that a resumed run goes on bit for bit.
 *
 *   objective next     decoder; every token is predicted from those before it
 *   objective masked   encoder; 15 % of the tokens are hidden as BERT hides them (80 % mask, 10 % another, 10 % left)
 *
 * Evaluation is sequential: windows of `context` inputs move on by `stride`, each target is scored once, the tail too;
 * stride 1 is the sliding window of Schlag et al. 2021 (arXiv:2102.11174, appendix D.3).  Perplexity is exp of the mean
 * negative log-likelihood per token of the data set's vocabulary, <eos> and <unk> included.
 *
 * With `carry` a segment begins with the states that the one before left (fast weights, ibid. section 6.3: no truncation), with
 * `memory` attention also sees the segments before, as they were inputs of its layer (Transformer-XL, Dai et al. 2019).
 * Gradients end where a segment begins, a stream that begins again begins with zeros, and an evaluation reads its split from
 * front to end in eval_batch streams side by side: one of them is the paper's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/tokens.h"
#include "harness/nn/transformer.h"
#include "likelihood.h"

enum { OBJECTIVE_NEXT, OBJECTIVE_MASKED };
enum { STREAM_MASK = 0x3a5c, EVAL_DRAW = 0x80000000u };     /* of Philox; the draw of a training step is the step */
enum { ACCURACY_MAX = 1024 };           /* words of a vocabulary whose logits are small enough to be looked at */

typedef struct opts {
    char data[ATTN_TEXT_SIZE], train_split[ATTN_TEXT_SIZE], valid_split[ATTN_TEXT_SIZE], test_split[ATTN_TEXT_SIZE], other_split[ATTN_TEXT_SIZE];
    int32_t context, objective, carry, memory, stride, test_stride, eval_batch, eval_tokens, test_tokens;
    double mask_rate, smoothing;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "data", "prepared data set, a name or a path (harness data list)", OFF(data), ATTN_TEXT, 0, 0, 0, NULL, ATTN_DATA_SET },
    { "train_split", "what is learned from", OFF(train_split), ATTN_TEXT, 0, 0, 0, "train", 0 },
    { "valid_split", "what is evaluated every eval_every steps", OFF(valid_split), ATTN_TEXT, 0, 0, 0, "valid", 0 },
    { "test_split", "what is evaluated at the end; empty: nothing", OFF(test_split), ATTN_TEXT, 0, 0, 0, "test", 0 },
    { "other_split", "what is evaluated at the end as well, as the test is; empty: nothing", OFF(other_split), ATTN_TEXT, 0, 0, 0, NULL, 0 },
    { "context", "tokens of a segment, which are all that a prediction sees but for carry and memory", OFF(context), ATTN_INT, 256, 1, 1 << 20, NULL,
      0 },
    { "objective", "what is predicted", OFF(objective), ATTN_CHOICE, OBJECTIVE_NEXT, 0, 0, "next,masked", 0 },
    { "carry", "segments go on from the states that the last ones left", OFF(carry), ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "memory", "segments before whose tokens, as they were inputs of the layer, attention sees too", OFF(memory), ATTN_INT, 0, 0, 1 << 10, NULL, 0 },
    { "mask_rate", "part of the tokens that is hidden (masked)", OFF(mask_rate), ATTN_FLOAT, 0.15, 0, 1, NULL, ATTN_OPEN_MIN },
    { "smoothing", "label smoothing in training", OFF(smoothing), ATTN_FLOAT, 0, 0, 0.9, NULL, 0 },
    { "stride", "of the windows of an evaluation; 0 = context", OFF(stride), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "test_stride", "of the windows of the test; 0 = context", OFF(test_stride), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "eval_batch", "windows, or streams, at a time; 0 = the training's batch", OFF(eval_batch), ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "eval_tokens", "targets of an evaluation, at most; 0 = all", OFF(eval_tokens), ATTN_INT, 0, 0, INT32_MAX, NULL, 0 },
    { "test_tokens", "targets of the test, at most; 0 = all", OFF(test_tokens), ATTN_INT, 0, 0, INT32_MAX, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = {
    LIKELIHOOD_METRICS,
    { "valid_accuracy", "1", "tokens guessed right (vocabularies of at most 1024 words)", 1, 0 },
    { "test_loss", "nat", "mean negative log-likelihood per token", -1, 0 },
    { "test_perplexity", "1", "exp of the test loss", -1, 0 },
    { "test_accuracy", "1", "tokens guessed right (vocabularies of at most 1024 words)", 1, 0 },
    { "test_hidden_accuracy", "1", "masked: of tokens that are hidden; half of the others that are asked for stand there as they are", 1, 0 },
    { "other_loss", "nat", "mean negative log-likelihood per token of other_split", -1, 0 },
    { "other_perplexity", "1", "exp of that", -1, 0 },
    { "other_accuracy", "1", "tokens guessed right (vocabularies of at most 1024 words)", 1, 0 },
    { "other_hidden_accuracy", "1", "as of the test", 1, 0 },
    { "test_bits_per_byte", "bit", "of the text that the tokens stand for", -1, 0 },
    { "test_word_perplexity", "1", "of a text in bytes: exp of the loss per word, words being runs without white space", -1, 0 },
    { "test_tokens", "1", "targets scored in the test", 0, 0 },
    { "test_unknown", "1", "part of the test's tokens that the vocabulary lacks", 0, 0 },
    { "unigram_perplexity", "1", "of the test by the frequencies of train alone", 0, 0 },
    { "unigram_accuracy", "1", "of the test when always the commonest token is guessed; masked: <eos> is never asked for", 0, 0 },
    { "carried_bytes", "B", "what a stream takes along from segment to segment", -1, 0 },
    { "tokens_per_second", "1/s", "tokens trained on per second", 1, 0 },
    { .name = NULL } };

static const task_default TRAIN[] = {
    { "lr", "2.5e-4" }, { "warmup", "2000" }, { "schedule", "cosine" }, { "clip", "0.25" }, { "batch", "96" }, { "max_steps", "500000" },
    { "eval_every", "1000" }, { NULL, NULL } };
static const task_default MODEL[] = { { NULL, NULL } };

/* A graph of the model with its inputs on both sides. */
typedef struct reader {
    nn_graph *graph;
    int B, T;
    nn_id tokens, target, logits;           /* i32 [B,T], i32 [B*T]; [B*T,V] or NN_NONE */
    int32_t *x, *y;                         /* the same on the host */
} reader;

typedef struct run {
    const task_call *call;              /* first: log_loss */
    const opts *o;
    data_tokens data;
    const data_split *train, *valid, *test, *other;
    int64_t vocabulary;
    data_masking masking;
    nn_params *params;
    nn_transformer model;
    reader learner, judge;
    void *scores;                           /* the judge's logits on the host */
    char why[512];
} run;

/* What an evaluation has found so far. */
typedef struct tally { double loss; int64_t n, right, hidden, hidden_right; } tally;     /* hidden: of those that <mask> stands for */

/* ---- graphs ---------------------------------------------------------------------------------------------------------- */

/* Builds one over B sequences; the judge of a small vocabulary keeps its logits. */
static void reader_init(run *r, reader *x, int training, int B)
{
    int T = r->o->context, mode = r->o->objective == OBJECTIVE_NEXT ? ATTN_CAUSAL : ATTN_BIDIR;
    size_t n = (size_t)B * (size_t)T;
    nn_graph *g = nn_graph_new(r->params, training);
    *x = (reader){ .graph = g, .B = B, .T = T, .logits = NN_NONE, .x = calloc(n, sizeof(int32_t)), .y = calloc(n, sizeof(int32_t)) };
    if (r->o->carry) nn_graph_carry(g);
    x->tokens = nn_input(g, K_I32, (attn_dims){ 2, { B, T } });
    x->target = nn_input(g, K_I32, (attn_dims){ 1, { (int64_t)B * T } });
    nn_id h = nn_transformer_body(&r->model, g, x->tokens, mode);
    if (!training && r->vocabulary <= ACCURACY_MAX) {
        x->logits = nn_transformer_logits(&r->model, g, h);
        nn_graph_set_loss(g, nn_cross_entropy(g, x->logits, x->target));
    } else {
        nn_graph_set_loss(g, nn_transformer_loss(&r->model, g, h, x->target, training ? r->o->smoothing : 0));
    }
}

static void reader_release(reader *x)
{
    nn_graph_free(x->graph);
    free(x->x), free(x->y);
}

/* The host's tokens and targets to the device. */
static void show(const run *r, const reader *x)
{
    size_t bytes = (size_t)x->B * (size_t)x->T * sizeof(int32_t);
    k_upload(r->call->dev, nn_data(x->graph, x->tokens), x->x, bytes);
    k_upload(r->call->dev, nn_data(x->graph, x->target), x->y, bytes);
}

/* ---- training ---------------------------------------------------------------------------------------------------------- */

/* Hides tokens of n sequences' worth and makes the hidden ones the targets. */
static void hide(const run *r, reader *x, int64_t n, uint32_t draw)
{
    data_masking m = r->masking;
    m.draw = draw;
    data_mask(&m, n, x->x, x->y);
}

/* The segments of a step: one of every stream, the same for all.  At a stream's beginning nothing is behind it. */
static int train_batch(void *ctx, int64_t step)
{
    run *r = ctx;
    reader *x = &r->learner;
    int64_t length = data_stream_length(r->train->n, x->B), segments = data_segments(length, x->T, 0);
    int64_t at = (step - 1) % segments * x->T;
    if (at == 0) nn_carry_reset(x->graph);
    data_streams(r->train, x->B, at, x->T, x->x);
    if (r->o->objective == OBJECTIVE_NEXT) data_streams(r->train, x->B, at + 1, x->T, x->y);
    else hide(r, x, (int64_t)x->B * x->T, (uint32_t)step);
    show(r, x);
    return TASK_DONE;
}

/* ---- evaluation ---------------------------------------------------------------------------------------------------------- */

/* A cut of the split into row b; of no length: nothing is asked. */
static void put_cut(reader *x, int b, const data_split *s, data_cut w)
{
    int32_t *in = x->x + (size_t)b * x->T, *out = x->y + (size_t)b * x->T;
    data_copy(s, w.begin, w.length, in);
    data_copy(s, w.begin + 1, w.length, out);
    for (int t = 0; t < w.length - w.score; t++) out[t] = -1;
    for (int t = w.length; t < x->T; t++) in[t] = 0, out[t] = -1;
}

/* Segment i of the split, whole, into row b: hidden tokens have no last one. */
static void put_segment(reader *x, int b, const data_split *s, int64_t i)
{
    data_copy(s, i * x->T, x->T, x->x + (size_t)b * x->T);
}

/* The place of the largest of n numbers. */
static int largest(const void *scores, k_dtype dtype, int64_t row, int64_t n)
{
    int best = 0;
    double most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = row * n + i;
        union { uint32_t bits; float value; } wide = { .bits = dtype == K_BF16 ? (uint32_t)((const uint16_t *)scores)[at] << 16 : 0 };
        double score = dtype == K_F64 ? ((const double *)scores)[at] : dtype == K_BF16 ? wide.value : ((const float *)scores)[at];
        if (score > most) most = score, best = (int)i;
    }
    return best;
}

/* Scores what the judge has been shown. */
static int score(run *r, tally *t)
{
    reader *x = &r->judge;
    int64_t rows = (int64_t)x->B * x->T, asked = 0;
    show(r, x);
    if (nn_forward(x->graph)) return TASK_FAILED;
    for (int64_t i = 0; i < rows; i++) asked += x->y[i] >= 0;
    if (asked) t->loss += nn_loss(x->graph) * (double)asked;
    t->n += asked;
    if (x->logits == NN_NONE) return TASK_DONE;
    k_download(r->call->dev, r->scores, nn_data(x->graph, x->logits), (size_t)(rows * r->vocabulary) * k_dtype_size(r->call->dtype));
    for (int64_t i = 0; i < rows; i++) {
        if (x->y[i] < 0) continue;
        const int right = largest(r->scores, r->call->dtype, i, r->vocabulary) == x->y[i], hidden = x->x[i] == r->masking.mask;
        t->right += right;
        t->hidden += hidden;
        t->hidden_right += hidden && right;
    }
    return TASK_DONE;
}

/* How an evaluation goes over a split: its first n tokens, in `turns` batches. */
typedef struct tour { const data_split *split; int64_t n, turns; int stride; } tour;

/* Whether segments are read one after another, because they go on from each other. */
static int goes_on(const run *r) { return r->o->carry || r->o->memory; }

static tour tour_of(const run *r, const data_split *s, int stride, int64_t most)
{
    const reader *x = &r->judge;
    tour p = { s, most > 0 && most + 1 < s->n ? most + 1 : s->n, 0, stride ? stride : x->T };
    int64_t rows = r->o->objective == OBJECTIVE_NEXT ? data_windows(p.n, x->T, p.stride) : p.n / x->T;
    p.turns = goes_on(r) ? data_turns(p.n, x->T, x->B) : (rows + x->B - 1) / x->B;
    return p;
}

/* Batch i of it for the judge. */
static void put_turn(run *r, const tour *p, int64_t i)
{
    reader *x = &r->judge;
    const int next = r->o->objective == OBJECTIVE_NEXT;
    const int64_t at = i * x->B, windows = next ? data_windows(p->n, x->T, p->stride) : p->n / x->T;
    const int rows = (int)(windows - at < x->B ? windows - at : x->B);
    for (int b = 0; b < x->B; b++) {
        if (goes_on(r)) put_cut(x, b, p->split, data_turn(p->n, x->T, x->B, b, i));
        else if (b >= rows) put_cut(x, b, p->split, (data_cut){ 0 });
        else if (next) put_cut(x, b, p->split, data_window(p->n, x->T, p->stride, at + b));
        else put_segment(x, b, p->split, at + b);
    }
    if (!next) hide(r, x, (int64_t)rows * x->T, EVAL_DRAW + (uint32_t)i);
}

/* The whole split, or its first `most` targets. */
static int evaluate_split(run *r, const data_split *s, int stride, int64_t most, tally *t)
{
    const task_host *host = r->call->host;
    const tour p = tour_of(r, s, stride, most);
    *t = (tally){ 0 };
    nn_carry_reset(r->judge.graph);
    for (int64_t i = 0; i < p.turns; i++) {
        put_turn(r, &p, i);
        if (score(r, t)) return TASK_FAILED;
        if (host->stop(host->ctx)) return TASK_INTERRUPTED;
    }
    return TASK_DONE;
}

/* An evaluation of the training loop. */
static int evaluate(void *ctx, int64_t step, double *loss)
{
    run *r = ctx;
    tally t;
    int rc = evaluate_split(r, r->valid, r->o->stride, r->o->eval_tokens, &t);
    if (rc) return rc;
    *loss = t.loss / (double)t.n;
    log_loss(r, step, *loss);
    return TASK_DONE;
}

/* ---- the run ------------------------------------------------------------------------------------------------------------- */

/* Finds a split; NULL with a sentence. */
static const data_split *split(run *r, const char *name, int64_t least)
{
    const data_split *s = data_find_split(&r->data, name);
    if (!s) snprintf(r->why, sizeof r->why, "the data set %s has no split '%s'", r->data.name, name);
    else if (s->n < least) {
        snprintf(r->why, sizeof r->why, "split '%s' of %s has %lld tokens; %lld are needed", name, r->data.name, (long long)s->n, (long long)least);
        return NULL;
    }
    return s;
}

/* Opens the data; what masks is its <mask>, or a word that it lacks. */
static int open_data(run *r)
{
    const opts *o = r->o;
    if (data_open(o->data, &r->data, r->why, sizeof r->why)) return -1;
    int64_t least = o->context + 1, mask = data_id(&r->data, "<mask>", 6), eos = data_id(&r->data, "<eos>", 5);
    r->train = split(r, o->train_split, least * r->call->train->batch);
    r->valid = r->train ? split(r, o->valid_split, least) : NULL;
    r->test = r->valid && o->test_split[0] ? split(r, o->test_split, least) : NULL;
    r->other = r->valid && o->other_split[0] ? split(r, o->other_split, least) : NULL;
    if (!r->valid || (o->test_split[0] && !r->test) || (o->other_split[0] && !r->other)) return -1;
    int added = o->objective == OBJECTIVE_MASKED && mask < 0;
    r->vocabulary = r->data.nvocab + added;
    r->masking = (data_masking){ .seed = r->call->seed, .stream = STREAM_MASK, .rate = o->mask_rate, .first = eos == 0,
                                 .mask = (int32_t)(added ? r->data.nvocab : mask), .last = (int32_t)(r->data.nvocab - 1 - (mask == r->data.nvocab - 1)) };
    return 0;
}

/* Builds both graphs over one set of parameters, then sizes and allocates them. */
static int build(run *r)
{
    const task_call *c = r->call;
    int eval_batch = r->o->eval_batch ? r->o->eval_batch : c->train->batch;
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    int rc = nn_transformer_init(&r->model, r->params, c->model, c->mixer, 1, r->vocabulary, r->o->context, r->why, sizeof r->why);
    if (rc) return rc;
    r->model.memory = (int64_t)r->o->memory * r->o->context;
    reader_init(r, &r->learner, 1, c->train->batch);
    reader_init(r, &r->judge, 0, eval_batch);
    if (r->judge.logits != NN_NONE) r->scores = malloc((size_t)eval_batch * (size_t)r->o->context * (size_t)r->vocabulary * k_dtype_size(c->dtype));
    if (!r->learner.x || !r->learner.y || !r->judge.x || !r->judge.y || (r->judge.logits != NN_NONE && !r->scores)) {
        snprintf(r->why, sizeof r->why, "no memory for the batches on the host");
        return NN_ENOMEM;
    }
    if ((rc = nn_params_alloc(r->params, r->why, sizeof r->why)) || (rc = nn_graph_compile(r->learner.graph, r->why, sizeof r->why)))
        return rc;
    return nn_graph_compile(r->judge.graph, r->why, sizeof r->why);
}

/* What every evaluation at the end tells, as test_... or other_... */
static void tell(const run *r, const char *of, const tally *t)
{
    const task_host *h = r->call->host;
    const struct { const char *what; double value; int known; } metric[] = {
        { "loss", t->loss / (double)t->n, 1 }, { "perplexity", exp(t->loss / (double)t->n), 1 },
        { "accuracy", (double)t->right / (double)t->n, r->judge.logits != NN_NONE },
        { "hidden_accuracy", (double)t->hidden_right / (double)t->hidden, t->hidden > 0 && r->o->objective == OBJECTIVE_MASKED } };
    for (size_t i = 0; i < sizeof metric / sizeof *metric; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_%s", of, metric[i].what);
        if (metric[i].known) h->metric(h->ctx, name, 0, metric[i].value);
    }
}

/* The last weights on the test split. */
static int test(run *r)
{
    const task_host *h = r->call->host;
    const int next = r->o->objective == OBJECTIVE_NEXT;
    tally t;
    int rc = r->test ? evaluate_split(r, r->test, r->o->test_stride, r->o->test_tokens, &t) : TASK_DONE;
    if (!r->test || rc) return rc;
    double loss = t.loss / (double)t.n, per_byte = (double)r->test->n / (double)r->test->bytes;
    data_unigram u = data_unigram_of(&r->data, r->test, next || r->masking.first == 0 ? -1 : 0);
    tell(r, "test", &t);
    h->metric(h->ctx, "test_tokens", 0, (double)t.n);
    h->metric(h->ctx, "test_unknown", 0, (double)r->test->replaced / (double)r->test->n);
    h->metric(h->ctx, "unigram_perplexity", 0, u.perplexity);
    h->metric(h->ctx, "unigram_accuracy", 0, u.accuracy);
    if (next && r->test->bytes > 0) h->metric(h->ctx, "test_bits_per_byte", 0, loss / M_LN2 * per_byte);
    int64_t words = next ? data_words_of(&r->data, r->test, 1, t.n + 1) : 0;
    if (words > 0) h->metric(h->ctx, "test_word_perplexity", 0, exp(t.loss / (double)words));
    return TASK_DONE;
}

/* The same on the other one. */
static int test_other(run *r)
{
    tally t;
    int rc = r->other ? evaluate_split(r, r->other, r->o->test_stride, r->o->test_tokens, &t) : TASK_DONE;
    if (r->other && rc == TASK_DONE) tell(r, "other", &t);
    return rc;
}

/* What the training has come to. */
static int report(run *r, const nn_trainer *t)
{
    const task_host *h = r->call->host;
    tally last;
    report_training(r->call, r->params, t);
    if (goes_on(r)) h->metric(h->ctx, "carried_bytes", 0, (double)nn_carry_bytes(r->judge.graph) / r->judge.B);
    int64_t batches = t->steps * r->call->train->accumulate;
    if (t->seconds > 0) h->metric(h->ctx, "tokens_per_second", 0, (double)batches * r->learner.B * r->learner.T / t->seconds);
    if (r->judge.logits == NN_NONE) return TASK_DONE;
    int rc = evaluate_split(r, r->valid, r->o->stride, r->o->eval_tokens, &last);
    if (rc == TASK_DONE) h->metric(h->ctx, "valid_accuracy", 0, (double)last.right / (double)last.n);
    return rc;
}

static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (!o->data[0]) return snprintf(why, nwhy, "the option data is not given: a prepared data set (harness data list)"), -1;
    if (o->stride > o->context || o->test_stride > o->context)
        return snprintf(why, nwhy, "a stride of more than context = %d would leave tokens out", o->context), -1;
    if (!o->carry && !o->memory) return 0;
    if (o->carry && o->memory) return snprintf(why, nwhy, "carry and memory are two ways to go on: tokens would be written into a state twice"), -1;
    if (o->objective != OBJECTIVE_NEXT) return snprintf(why, nwhy, "hidden tokens are of one segment: carry and memory are for the next token"), -1;
    if ((!o->stride || o->stride == o->context) && (!o->test_stride || o->test_stride == o->context)) return 0;
    return snprintf(why, nwhy, "segments that go on from each other do not overlap: carry and memory take no stride"), -1;
}

static int task_run(const task_call *call)
{
    run r = { .call = call, .o = call->opts };
    nn_trainer t = { .call = call, .ctx = &r, .batch = train_batch, .evaluate = evaluate, .restored = log_loss,
                     .redraw_interval = nn_redraw_interval(call->mixer) };
    int rc = open_data(&r) ? TASK_FAILED : nn_task_code(build(&r));
    if (rc == TASK_DONE) {
        t.params = r.params;
        t.graph = r.learner.graph;
        rc = nn_train(&t);
        if (rc == TASK_DONE) rc = report(&r, &t);
        if (rc == TASK_DONE) rc = test(&r);
        if (rc == TASK_DONE) rc = test_other(&r);
    } else {
        call->host->reason(call->host->ctx, r.why);
    }
    reader_release(&r.learner);
    reader_release(&r.judge);
    nn_params_free(r.params);
    free(r.scores);
    data_close(&r.data);
    return rc;
}

/* ---- the model alone ------------------------------------------------------------------------------------------------------- */

static int32_t record_scores(task_model *m, nn_graph *g, int32_t tokens)
{
    run *r = m->ctx;
    return nn_transformer_logits(&r->model, g, nn_transformer_body(&r->model, g, tokens, m->mode));
}

static void close_model(task_model *m)
{
    run *r = m->ctx;
    nn_params_free(r->params);
    data_close(&r->data);
    free(r);
}

static int open_model(const task_call *call, task_model *m)
{
    run *r = calloc(1, sizeof *r);
    if (!r) return TASK_OOM;
    *r = (run){ .call = call, .o = call->opts, .params = nn_params_new(call->dev, call->dtype, call->seed) };
    m->ctx = r;
    int rc = open_data(r) ? TASK_FAILED
           : nn_task_code(nn_transformer_init(&r->model, r->params, call->model, call->mixer, 1, r->vocabulary, r->o->context, r->why, sizeof r->why));
    if (rc) {
        call->host->reason(call->host->ctx, r->why);
        close_model(m);
        return rc;
    }
    *m = (task_model){ .size = m->size, .ctx = r, .params = r->params, .data = &r->data, .test_split = r->o->test_split,
                       .vocabulary = r->vocabulary, .context = r->o->context, .record = record_scores, .close = close_model,
                       .mode = r->o->objective == OBJECTIVE_NEXT ? ATTN_CAUSAL : ATTN_BIDIR };
    return TASK_DONE;
}

static const task LANGUAGE_MODEL = {
    .size = sizeof(task), .name = "language_model", .title = "Language modelling", .paper = "arXiv:2102.11174", .opts_size = sizeof(opts),
    .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run,
    .open = open_model };
TASK_EXPORT(&LANGUAGE_MODEL);
