/* ops_feed_forward.c - a feed-forward in one node, some rows at a time.
 *
 *   y = W2 drop(act(W1 x + b1)) + b2,  gated  y = W2 drop(act(Wg x + bg) * (W1 x + b1)) + b2
 *
 * What is as wide as the feed-forward is made in the room that the graph's nodes share, [chunk,width] each, and made again in backward: a row's
 * numbers are those of the nodes one by one, the gradients of the weights are the sums over the chunks.  Each chunk draws a
 * mask of its own. */
#include "ops.h"
#include <stdio.h>

enum { X, UP, UP_BIAS, GATE, GATE_BIAS, DOWN, DOWN_BIAS, INPUTS };
enum { FLOORS = 5 };                    /* buffers in the room */

typedef struct chunk {                  /* of rows [at,at+rows); all but x and y [rows,width] */
    int64_t at, rows;
    const char *x;                      /* [rows,depth] */
    void *up, *gate, *act, *hidden, *spare;     /* gate: what the activation is of; hidden: what the last product reads */
} chunk;

static int is_gated(const node *n) { return n->in[GATE] != NN_NONE; }

/* Row `at` of a tensor [rows,depth]. */
static void *row(const nn_graph *g, const node *n, void *x, int64_t at)
{
    return x ? (char *)x + (size_t)(at * n->depth) * k_dtype_size(type(g, n)) : NULL;
}

static chunk chunk_at(const nn_graph *g, const node *n, int64_t at)
{
    size_t bytes = (size_t)(n->chunk * n->width) * k_dtype_size(type(g, n));
    char *room = n->room;
    chunk c = { .at = at, .rows = n->rows - at < n->chunk ? n->rows - at : n->chunk, .x = row(g, n, data(g, n->in[X]), at), .up = room,
                .gate = room, .act = room + bytes, .hidden = room + 2 * bytes, .spare = room + 3 * bytes };
    if (is_gated(n))
        c.gate = room + 4 * bytes;
    return c;
}

/* y (+)= x with the elements dropped that this forward drops of this chunk. */
static void drop(const nn_graph *g, const node *n, const chunk *c, void *y, const void *x)
{
    uint32_t stream = n->stream + (uint32_t)(c->at / n->chunk);
    k_dropout(g->dev, type(g, n), c->rows * n->width, n->number, g->params->seed, stream, g->params->forwards, 0, y, x);
}

/* All that stands before the last product; c->hidden is its input. */
static void make_hidden(nn_graph *g, const node *n, chunk *c)
{
    k_dtype t = type(g, n);
    int64_t elements = c->rows * n->width;
    k_linear(g->dev, t, c->rows, n->width, n->depth, c->up, c->x, data(g, n->in[UP]), data(g, n->in[UP_BIAS]));
    if (is_gated(n))
        k_linear(g->dev, t, c->rows, n->width, n->depth, c->gate, c->x, data(g, n->in[GATE]), data(g, n->in[GATE_BIAS]));
    k_unary_forward(g->dev, t, n->unary, elements, c->act, c->gate);
    if (is_gated(n))
        k_mul(g->dev, t, elements, 0, c->hidden, c->act, c->up);
    if (n->number > 0)
        drop(g, n, c, c->hidden, is_gated(n) ? c->hidden : c->act);
    else if (!is_gated(n))
        c->hidden = c->act;
}

static int feed_forward(nn_graph *g, node *n)
{
    for (int64_t at = 0; at < n->rows; at += n->chunk) {
        chunk c = chunk_at(g, n, at);
        make_hidden(g, n, &c);
        k_linear(g->dev, type(g, n), c.rows, n->depth, n->width, row(g, n, data(g, n->out), at), c.hidden, data(g, n->in[DOWN]), data(g, n->in[DOWN_BIAS]));
    }
    return 0;
}

typedef struct grads { void *to[INPUTS]; int add[INPUTS]; } grads;

/* The gradients of one linear map y = W x + b from dy [rows,out]: of W and b, and into dx, if wanted. */
static void linear_back(nn_graph *g, const node *n, const grads *d, int i, int64_t rows, int64_t out, int64_t in, const void *dy, const void *x, int first)
{
    k_dtype t = type(g, n);
    if (d->to[i])
        nn_product_for(g, n, i)(g->dev, t, 1, 0, out, in, rows, 1, dy, out, x, in, d->add[i] || !first, d->to[i], in);
    if (d->to[i + 1])
        k_sum_rows(g->dev, t, rows, out, dy, d->to[i + 1]);
}

/* dx [rows,depth] (+)= dy [rows,width] W. */
static void input_back(nn_graph *g, const node *n, int i, const chunk *c, const void *dy, int add, void *dx)
{
    if (dx)
        k_gemm(g->dev, type(g, n), 0, 0, c->rows, n->depth, n->width, 1, dy, n->width, data(g, n->in[i]), n->depth, add, dx, n->depth);
}

/* One chunk, its hidden numbers made again: from dy down to x. */
static void chunk_back(nn_graph *g, const node *n, const grads *d, chunk *c)
{
    k_dtype t = type(g, n);
    int64_t elements = c->rows * n->width;
    void *dy = row(g, n, out_grad(g, n), c->at), *dx = row(g, n, d->to[X], c->at), *dact = c->spare;
    make_hidden(g, n, c);
    linear_back(g, n, d, DOWN, c->rows, n->depth, n->width, dy, c->hidden, c->at == 0);
    k_gemm(g->dev, t, 0, 0, c->rows, n->width, n->depth, 1, dy, n->depth, data(g, n->in[DOWN]), n->width, 0, dact, n->width);
    if (n->number > 0)
        drop(g, n, c, dact, dact);
    if (is_gated(n)) {
        void *dup = c->hidden;
        k_mul(g->dev, t, elements, 0, dup, dact, c->act);
        k_mul(g->dev, t, elements, 0, dact, dact, c->up);
        linear_back(g, n, d, UP, c->rows, n->width, n->depth, dup, c->x, c->at == 0);
        input_back(g, n, UP, c, dup, d->add[X], dx);
    }
    int last = is_gated(n) ? GATE : UP;
    k_unary_backward(g->dev, t, n->unary, elements, 0, dact, dact, c->gate, c->act);
    linear_back(g, n, d, last, c->rows, n->width, n->depth, dact, c->x, c->at == 0);
    input_back(g, n, last, c, dact, d->add[X] || is_gated(n), dx);
}

static int feed_backward(nn_graph *g, node *n)
{
    static const int weights[] = { UP, GATE, DOWN };
    grads d = { 0 };
    d.to[X] = nn_into(g, n, X, &d.add[X]);
    for (int i = 0; i < 3; i++) {
        d.to[weights[i]] = nn_into(g, n, weights[i], &d.add[weights[i]]);
        d.to[weights[i] + 1] = nn_zeroed(g, n, weights[i] + 1);
    }
    for (int64_t at = 0; at < n->rows; at += n->chunk) {
        chunk c = chunk_at(g, n, at);
        chunk_back(g, n, &d, &c);
    }
    return 0;
}

static int feed_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    int floors = FLOORS - !is_gated(n);
    (void)why, (void)nwhy;
    n->shares = 1;
    nn_share_room(g, (size_t)floors * (size_t)(n->chunk * n->width) * k_dtype_size(type(g, n)));
    return 0;
}

static const op feed_op = { .name = "feed_forward", .reads = NN_READS_IN, .forward = feed_forward, .backward = feed_backward, .compile = feed_compile };

/* Whether a linear map from `in` to `out` is one: its weight a parameter, its bias one, or none. */
static int is_map(const nn_graph *g, nn_id w, nn_id b, int64_t out, int64_t in)
{
    return is_real(g, w, 2) && g->tensors[w].param >= 0 && nn_dims(g, w).d[0] == out && nn_dims(g, w).d[1] == in && (b == NN_NONE || is_vector(g, b, out));
}

nn_id nn_feed_forward(nn_graph *g, nn_id x, const nn_ffn *f)
{
    nn_id in[INPUTS] = { x, f->up, f->up_bias, f->gate, f->gate_bias, f->down, f->down_bias };
    if (!nn_ready(g, "feed_forward", in, INPUTS))
        return NN_BAD;
    int64_t depth = x < 0 ? 0 : last(nn_dims(g, x)), width = f->up < 0 ? 0 : nn_dims(g, f->up).d[0];
    if (!is_activation(g, x, 0) || !is_map(g, f->up, f->up_bias, width, depth) || !is_map(g, f->down, f->down_bias, depth, width) ||
        (f->gate != NN_NONE && !is_map(g, f->gate, f->gate_bias, width, depth)) || f->chunks < 1 || !(f->dropout >= 0 && f->dropout < 1))
        return nn_unfit(g, "feed_forward", x, f->up, "[..,in], no parameter, weights [width,in] and [in,width], and at least one chunk");
    node *n = nn_new_node(g, &feed_op, in, INPUTS, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    n->rows = g->tensors[n->out].n / depth;
    n->width = width;
    n->depth = depth;
    n->chunk = (n->rows + f->chunks - 1) / f->chunks;
    n->unary = f->unary;
    if (g->training && f->dropout > 0) {
        char name[32];
        n->number = f->dropout;
        snprintf(name, sizeof name, "dropout %d", g->dropouts++);
        n->stream = nn_fnv1a(name);
    }
    return n->out;
}
