/* associative_retrieval - write L (key, value) pairs into a memory, then ask for the value of one key.
 *
 * The synthetic task of Schlag, Irie & Schmidhuber 2021 (arXiv:2102.11174, section 6.1), as their released
 * code runs it.  S keys, S values.  Setting 1 (replacement: false): L = S, keys and values each a random
 * permutation.  Setting 2 (replacement: true): L = 2S, drawn with replacement; the last value of a key counts.
 *
 *   k_i  = W_k [onehot(value_i) ; e(key_i)] + b_k      the write key sees the value too
 *   v_i  = onehot(value_i)                             fixed: W_v is not trained, there is none
 *   q    = W_q e(query) + b_q
 *   loss = 0.5 |o - onehot(target)|^2, mean over the batch (predicting 0 gives exactly 0.5)
 *
 * A product with a one-hot vector is a row of a table, and there are only S different keys, so the tables are
 * projected and the tokens gather: k_i = (E W_ke' + b)[key_i] + W_kv[value_i].  Gates take the same way.
 *
 * Every choice of the released code that is a quirk is an option whose default is the code's choice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/train.h"
#include "tasks/data/words.h"

enum { WRITE_VALUE_AND_KEY, WRITE_KEY };
enum { INIT_AUTO, INIT_UNIFORM, INIT_XAVIER };
enum { QUERY_TOKEN, QUERY_KEY };
enum { STREAM_TRAIN = 1, STREAM_EVAL = 2 };     /* of the Philox counter; the draw is the step */

typedef struct opts {
    int32_t keys, replacement, length, d_key, embed_dim, write_key, init, query;
    int32_t eval_sequences, eval_length, eval_max_queries, eval_batch, redraw_at_eval;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "keys", "S: number of keys, and of values", OFF(keys), ATTN_INT, 20, 1, 65536, NULL, 0 },
    { "replacement", "setting 2: keys and values drawn with replacement", OFF(replacement), ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "length", "L: pairs per training sequence; 0 = S, or 2S with replacement", OFF(length), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "d_key", "width of keys and queries", OFF(d_key), ATTN_INT, 64, 1, 4096, NULL, 0 },
    { "embed_dim", "width of the key embedding; 0 = int(1.1 * 2S)", OFF(embed_dim), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "write_key", "what the write key sees", OFF(write_key), ATTN_CHOICE, WRITE_VALUE_AND_KEY, 0, 0, "value_and_key,key", 0 },
    { "init", "drawing of W_k and W_q; auto = xavier for softmax, uniform(+-d_key^-1/2) for the others", OFF(init),
      ATTN_CHOICE, INIT_AUTO, 0, 0, "auto,uniform,xavier", 0 },
    { "query", "training query: the key of a random token, or a random distinct key", OFF(query), ATTN_CHOICE,
      QUERY_TOKEN, 0, 0, "token,key", 0 },
    { "eval_sequences", "sequences per evaluation", OFF(eval_sequences), ATTN_INT, 20, 1, 1 << 20, NULL, 0 },
    { "eval_length", "pairs per evaluation sequence; 0 = S (in setting 2 too)", OFF(eval_length), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "eval_max_queries", "distinct keys asked per evaluation sequence, at most", OFF(eval_max_queries), ATTN_INT, 200, 1, 1 << 20, NULL, 0 },
    { "eval_batch", "queries per evaluation batch; the loss is the unweighted mean of batch means", OFF(eval_batch),
      ATTN_INT, 32, 1, 65536, NULL, 0 },
    { "redraw_at_eval", "random features that are redrawn in training are redrawn for every evaluation batch", OFF(redraw_at_eval),
      ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = {
    { "eval_loss", "1", "evaluation loss", -1, 1 },
    { "best_eval_loss", "1", "best evaluation loss", -1, 0 },
    { "last_eval_loss", "1", "last evaluation loss", -1, 0 },
    { "steps", "1", "training steps", 0, 0 },
    { "seconds", "s", "time of training, evaluations left out", -1, 0 },
    { "steps_per_second", "1/s", "training steps per second", 1, 0 },
    { .name = NULL } };

static const task_default TRAIN[] = {
    { "max_steps", "100000" }, { "stop.loss", "1e-3" }, { "stop.patience", "10" }, { NULL, NULL } };

/* ---- data ------------------------------------------------------------------------------------------- */

/* x[n]: n of 0..S-1, without replacement (n <= S) by Fisher and Yates in perm[S], or with. */
static void draw(words *w, int replacement, int S, int n, int32_t *perm, int32_t *x)
{
    if (!replacement)
        for (int i = 0; i < S; i++) perm[i] = i;
    for (int i = 0; i < n; i++) {
        if (replacement) {
            x[i] = (int32_t)words_below(w, (uint32_t)S);
            continue;
        }
        int j = i + (int)words_below(w, (uint32_t)(S - i));
        x[i] = perm[j];
        perm[j] = perm[i];
    }
}

/* Where each key stands last in key[n]: last[S], -1 for a key that is absent. */
static void last_positions(int S, int n, const int32_t *key, int32_t *last)
{
    for (int s = 0; s < S; s++) last[s] = -1;
    for (int i = 0; i < n; i++) last[key[i]] = i;
}

/* ---- the model ----------------------------------------------------------------------------------------- */

/* The inputs of a graph that writes and reads the memory. */
typedef struct reader {
    nn_graph *graph;
    int B, T, Tq;
    nn_id key, value, query, target;            /* i32 [B,T] [B,T] [B,Tq] [B*Tq] */
    nn_id onehot, shown;                        /* [B,T,1,S], and i32 [B,T]: which element of it is 1 */
    int32_t *host_key, *host_value, *host_query, *host_target;
} reader;

typedef struct run {
    const task_call *call;
    const opts *o;
    int S, L, embed, eval_length, ngates, redraw_interval;
    int gate_width[ATTN_MAX];
    nn_params *params;
    nn_graph *project;                          /* the tables alone, for evaluation */
    nn_id table[1 + ATTN_MAX];                  /* in project: keys, gates */
    nn_id eval_table[1 + ATTN_MAX];             /* inputs of eval */
    reader train, eval;
    int32_t *perm, *last;
    char why[512];
} run;

static attn_dims dims1(int64_t a) { return (attn_dims){ 1, { a } }; }
static attn_dims dims2(int64_t a, int64_t b) { return (attn_dims){ 2, { a, b } }; }
static attn_dims dims4(int64_t a, int64_t b, int64_t c, int64_t d) { return (attn_dims){ 4, { a, b, c, d } }; }

static nn_id weight(run *r, nn_graph *g, const char *name, attn_dims d, double bound)
{
    return nn_use(g, nn_param(r->params, name, d, (attn_init){ ATTN_INIT_UNIFORM, -bound, bound }, 0));
}
static nn_id key_embedding(run *r, nn_graph *g)
{
    return nn_use(g, nn_param(r->params, "key_embedding", dims2(r->S, r->embed), (attn_init){ ATTN_INIT_NORMAL, 0, 1 }, 0));
}
/* How far W_k and W_q reach: uniform(+-d^-1/2) in the code's linear models, Glorot in its softmax model. */
static double weight_bound(const run *r, int fan_in)
{
    int init = r->o->init;
    if (init == INIT_AUTO) init = strcmp(r->call->mixer->variant->name, "softmax") ? INIT_UNIFORM : INIT_XAVIER;
    return init == INIT_XAVIER ? sqrt(6.0 / (fan_in + r->o->d_key)) : 1 / sqrt(r->o->d_key);
}
/* What the fan-in of a map from a token is: the embedding, and the value's one-hot where it is seen. */
static int token_width(const run *r) { return r->embed + (r->o->write_key == WRITE_VALUE_AND_KEY ? r->S : 0); }

/* The projected key table [S,d_key] and the gates' tables [S,width]. */
static void project(run *r, nn_graph *g, nn_id *table)
{
    nn_id E = key_embedding(r, g);
    double b = 1 / sqrt(token_width(r));
    table[0] = nn_linear(g, E, weight(r, g, "write_key.embedding", dims2(r->o->d_key, r->embed), weight_bound(r, token_width(r))),
                         weight(r, g, "write_key.bias", dims1(r->o->d_key), b));
    for (int i = 0; i < r->ngates; i++) {
        char w[64], c[64];
        snprintf(w, sizeof w, "gate%d.embedding", i);
        snprintf(c, sizeof c, "gate%d.bias", i);
        table[1 + i] = r->gate_width[i] == 0 ? NN_NONE
            : nn_linear(g, E, weight(r, g, w, dims2(r->gate_width[i], r->embed), b), weight(r, g, c, dims1(r->gate_width[i]), b));
    }
}

/* A token's projection: the key's row of table, plus the value's row where it is seen. */
static nn_id tokens(run *r, nn_graph *g, reader *x, nn_id table, const char *name, int width, double bound)
{
    if (table == NN_NONE) return NN_NONE;
    nn_id t = r->o->write_key == WRITE_KEY
        ? nn_gather(g, table, x->key)
        : nn_gather2(g, table, x->key, weight(r, g, name, dims2(r->S, width), bound), x->value);
    return nn_reshape(g, t, dims4(x->B, x->T, 1, width));
}

static int32_t *ints(size_t n) { return calloc(n ? n : 1, sizeof(int32_t)); }

/* Writes B sequences of T tokens, reads Tq queries of each. */
static int reader_init(run *r, reader *x, nn_graph *g, int B, int T, int Tq, const nn_id *table)
{
    x->graph = g, x->B = B, x->T = T, x->Tq = Tq;
    x->host_key = ints((size_t)B * T), x->host_value = ints((size_t)B * T);
    x->host_query = ints((size_t)B * Tq), x->host_target = ints((size_t)B * Tq);
    if (!x->host_key || !x->host_value || !x->host_query || !x->host_target) return -1;
    x->key = nn_input(g, K_I32, dims2(B, T));
    x->value = nn_input(g, K_I32, dims2(B, T));
    x->onehot = nn_input(g, r->call->dtype, dims4(B, T, 1, r->S));
    x->shown = nn_input(g, K_I32, dims2(B, T));
    x->query = nn_input(g, K_I32, dims2(B, Tq));
    x->target = nn_input(g, K_I32, dims1((int64_t)B * Tq));

    nn_id k = tokens(r, g, x, table[0], "write_key.value", r->o->d_key, weight_bound(r, token_width(r)));
    nn_id gate[ATTN_MAX];
    for (int i = 0; i < r->ngates; i++) {
        char name[64];
        snprintf(name, sizeof name, "gate%d.value", i);
        gate[i] = tokens(r, g, x, table[1 + i], name, r->gate_width[i], 1 / sqrt(token_width(r)));
    }
    nn_id q = nn_linear(g, nn_gather(g, key_embedding(r, g), x->query),
                        weight(r, g, "query.weight", dims2(r->o->d_key, r->embed), weight_bound(r, r->embed)),
                        weight(r, g, "query.bias", dims1(r->o->d_key), 1 / sqrt(r->embed)));
    nn_mixer_spec mixer = *r->call->mixer;
    mixer.shape.mode = ATTN_CROSS;
    nn_id y = nn_attention(g, &mixer, "mixer", nn_reshape(g, q, dims4(B, Tq, 1, r->o->d_key)), k, x->onehot, gate);
    nn_graph_set_loss(g, nn_half_squared_error(g, nn_reshape(g, y, dims2((int64_t)B * Tq, r->S)), x->target));
    return 0;
}

static void reader_release(reader *x)
{
    nn_graph_free(x->graph);
    free(x->host_key), free(x->host_value), free(x->host_query), free(x->host_target);
}

/* Host arrays to the device.  B*T*S one-hot values are mostly zeros that stay: only the ones move. */
static void show_tokens(run *r, reader *x)
{
    k_dev *dev = r->call->dev;
    nn_graph *g = x->graph;
    size_t n = (size_t)x->B * x->T, bytes = n * sizeof(int32_t);
    k_upload(dev, nn_data(g, x->key), x->host_key, bytes);
    k_upload(dev, nn_data(g, x->value), x->host_value, bytes);
    k_one_hot_move(dev, r->call->dtype, (int64_t)n, r->S, nn_data(g, x->onehot), nn_data(g, x->value), nn_data(g, x->shown));
}
static void show_queries(run *r, reader *x)
{
    size_t bytes = (size_t)x->B * x->Tq * sizeof(int32_t);
    k_upload(r->call->dev, nn_data(x->graph, x->query), x->host_query, bytes);
    k_upload(r->call->dev, nn_data(x->graph, x->target), x->host_target, bytes);
}

/* ---- training and evaluation -------------------------------------------------------------------------------- */

static int train_batch(void *ctx, int64_t step)
{
    run *r = ctx;
    reader *x = &r->train;
    words w = { .seed = r->call->seed, .stream = STREAM_TRAIN, .draw = (uint32_t)step };
    for (int b = 0; b < x->B; b++) {
        int32_t *key = x->host_key + (size_t)b * x->T, *value = x->host_value + (size_t)b * x->T;
        draw(&w, r->o->replacement, r->S, x->T, r->perm, key);
        draw(&w, r->o->replacement, r->S, x->T, r->perm, value);
        last_positions(r->S, x->T, key, r->last);
        int at;
        if (r->o->query == QUERY_TOKEN) {
            at = r->last[key[words_below(&w, (uint32_t)x->T)]];
        } else {
            do at = r->last[words_below(&w, (uint32_t)r->S)]; while (at < 0);
        }
        x->host_query[b] = key[at];
        x->host_target[b] = value[at];
    }
    show_tokens(r, x);
    show_queries(r, x);
    return TASK_DONE;
}

/* One batch of evaluation queries, filled up with ignored rows: its mean loss. */
static int evaluate_batch(run *r, const int32_t *key, int n, uint32_t draw_index, double *loss)
{
    reader *x = &r->eval;
    for (int i = 0; i < x->Tq; i++) {
        int at = r->last[key[i < n ? i : 0]];
        x->host_query[i] = x->host_key[at];
        x->host_target[i] = i < n ? x->host_value[at] : -1;
    }
    show_queries(r, x);
    if (r->redraw_interval > 0 && r->o->redraw_at_eval) nn_params_redraw(r->params, draw_index);
    int rc = nn_forward(x->graph);
    if (rc == 0) *loss = nn_loss(x->graph);
    return rc;
}

static void log_loss(void *ctx, int64_t step, double loss)
{
    const task_host *host = ((run *)ctx)->call->host;
    host->metric(host->ctx, "eval_loss", step, loss);
}

/* The mean over all batches of all distinct keys (in ascending order, at most eval_max_queries) of
 * eval_sequences new sequences. */
static int evaluate(void *ctx, int64_t step, double *loss)
{
    enum { EVAL_DRAWS = 0x80000000u };          /* draw numbers of random features beyond those of training */
    run *r = ctx;
    reader *x = &r->eval;
    k_dev *dev = r->call->dev;
    words w = { .seed = r->call->seed, .stream = STREAM_EVAL, .draw = (uint32_t)step };
    double sum = 0;
    uint32_t batches = 0, first = EVAL_DRAWS + (uint32_t)(step * 4099);
    int rc = nn_forward(r->project);
    for (int i = 0; i < 1 + r->ngates && rc == 0; i++) {
        if (r->table[i] == NN_NONE) continue;
        size_t width = i ? (size_t)r->gate_width[i - 1] : (size_t)r->o->d_key;
        k_copy(dev, nn_data(x->graph, r->eval_table[i]), nn_data(r->project, r->table[i]),
               (size_t)r->S * width * k_dtype_size(r->call->dtype));
    }
    for (int s = 0; s < r->o->eval_sequences && rc == 0; s++) {
        draw(&w, r->o->replacement, r->S, x->T, r->perm, x->host_key);
        draw(&w, r->o->replacement, r->S, x->T, r->perm, x->host_value);
        last_positions(r->S, x->T, x->host_key, r->last);
        show_tokens(r, x);
        int n = 0;
        for (int k = 0; k < r->S && n < r->o->eval_max_queries; k++)
            if (r->last[k] >= 0) r->perm[n++] = k;
        for (int at = 0; at < n && rc == 0; at += x->Tq, batches++) {
            double mean = 0;
            rc = evaluate_batch(r, r->perm + at, n - at < x->Tq ? n - at : x->Tq, first + batches, &mean);
            sum += mean;
        }
    }
    if (r->redraw_interval > 0 && r->o->redraw_at_eval)     /* back to the training step's own */
        nn_params_redraw(r->params, (uint32_t)((step - 1) / r->redraw_interval));
    *loss = sum / batches;
    if (rc == 0) log_loss(r, step, *loss);
    return rc ? TASK_FAILED : TASK_DONE;
}

/* ---- a cell ---------------------------------------------------------------------------------------------------- */

/* Asks the variant for its plan: whether it can serve, and which gates it wants. */
static int probe(run *r)
{
    nn_mixer_spec m = *r->call->mixer;
    m.shape = (attn_shape){ r->call->train->batch, 1, 1, 1, r->L, r->o->d_key, r->S, ATTN_CROSS, (int32_t)r->call->dtype, 1, 0 };
    attn_plan plan;
    int rc = nn_mixer_ask(r->call->dev, &m, 0, &plan, r->why, sizeof r->why);
    if (rc != ATTN_OK) return rc;
    for (const attn_gate *g = m.variant->gates; g && g->name; g++, r->ngates++)
        r->gate_width[r->ngates] = plan.gate_width[r->ngates];
    return ATTN_OK;
}

/* All zeros, and "the one is at 0", which k_one_hot_move then clears again. */
static void clear_onehot(run *r, reader *x)
{
    size_t n = (size_t)x->B * x->T;
    k_zero(r->call->dev, nn_data(x->graph, x->onehot), n * r->S * k_dtype_size(r->call->dtype));
    k_zero(r->call->dev, nn_data(x->graph, x->shown), n * sizeof(int32_t));
}

/* Builds the three graphs over one set of parameters, then sizes and allocates them. */
static int build(run *r)
{
    const task_call *c = r->call;
    int rc = probe(r);
    if (rc != ATTN_OK) return rc;
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    nn_graph *train = nn_graph_new(r->params, 1), *eval = nn_graph_new(r->params, 0);
    r->project = nn_graph_new(r->params, 0);
    nn_id table[1 + ATTN_MAX];
    project(r, train, table);
    project(r, r->project, r->table);
    for (int i = 0; i < 1 + r->ngates; i++)
        r->eval_table[i] = r->table[i] == NN_NONE ? NN_NONE
            : nn_input(eval, c->dtype, dims2(r->S, i ? r->gate_width[i - 1] : r->o->d_key));
    if (reader_init(r, &r->train, train, c->train->batch, r->L, 1, table) ||
        reader_init(r, &r->eval, eval, 1, r->eval_length, r->o->eval_batch, r->eval_table)) {
        snprintf(r->why, sizeof r->why, "no memory for the task's index arrays");
        return NN_ENOMEM;
    }
    if ((rc = nn_params_alloc(r->params, r->why, sizeof r->why)) ||
        (rc = nn_graph_compile(train, r->why, sizeof r->why)) ||
        (rc = nn_graph_compile(r->project, r->why, sizeof r->why)) ||
        (rc = nn_graph_compile(eval, r->why, sizeof r->why)))
        return rc;
    clear_onehot(r, &r->train);
    clear_onehot(r, &r->eval);
    return ATTN_OK;
}

static void report(const run *r, const nn_trainer *t)
{
    const task_host *h = r->call->host;
    h->metric(h->ctx, "best_eval_loss", t->steps, t->best);
    h->metric(h->ctx, "last_eval_loss", t->steps, t->last);
    h->metric(h->ctx, "steps", t->steps, (double)t->steps);
    h->metric(h->ctx, "seconds", t->steps, t->seconds);
    if (t->seconds > 0) h->metric(h->ctx, "steps_per_second", t->steps, (double)t->steps / t->seconds);
}

static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (o->replacement || (o->length <= o->keys && o->eval_length <= o->keys)) return 0;
    snprintf(why, nwhy, "without replacement a sequence has at most keys = %d pairs, asked for %d", o->keys,
             o->length > o->keys ? o->length : o->eval_length);
    return -1;
}

static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    run r = { .call = call, .o = o, .S = o->keys, .redraw_interval = nn_redraw_interval(call->mixer) };
    r.L = o->length ? o->length : o->replacement ? 2 * o->keys : o->keys;
    r.embed = o->embed_dim ? o->embed_dim : (int)(2 * o->keys * 1.1);
    r.eval_length = o->eval_length ? o->eval_length : o->keys;
    r.perm = ints((size_t)r.S), r.last = ints((size_t)r.S);
    nn_trainer t = { .call = call, .ctx = &r, .batch = train_batch, .evaluate = evaluate, .restored = log_loss,
                     .redraw_interval = r.redraw_interval };
    int rc = r.perm && r.last ? build(&r) : NN_ENOMEM;
    if (rc == ATTN_OK) {
        t.params = r.params;
        t.graph = r.train.graph;
        rc = nn_train(&t);
        if (rc == TASK_DONE || rc == TASK_DIVERGED) report(&r, &t);
    } else {
        call->host->reason(call->host->ctx, r.why[0] ? r.why : "no memory for the task's index arrays");
        rc = nn_task_code(rc);
    }
    reader_release(&r.train);
    reader_release(&r.eval);
    nn_graph_free(r.project);
    nn_params_free(r.params);
    free(r.perm), free(r.last);
    return rc;
}

static const task ASSOCIATIVE_RETRIEVAL = {
    .size = sizeof(task), .name = "associative_retrieval", .title = "Associative retrieval", .paper = "arXiv:2102.11174",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .check = check, .run = task_run };
TASK_EXPORT(&ASSOCIATIVE_RETRIEVAL);
