/* ops_loss.c - losses: one number per row, float when what they look at is bf16.
 *
 * Rows without a target (-1) count in nothing; node.weight is what each of the others weighs in the mean. */
#include "ops.h"

/* ---- half the square, and cross-entropy: in y [rows,width] and targets [rows] ------------------------------------------- */

/* The dtype of y. */
static k_dtype scored(const nn_graph *g, const node *n) { return g->tensors[n->in[0]].dtype; }

static int half_square_forward(nn_graph *g, node *n)
{
    k_mean_weight(g->dev, n->rows, data(g, n->in[1]), n->weight);
    k_half_sq_forward(g->dev, scored(g, n), n->rows, n->width, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int half_square_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dy = nn_into(g, n, 0, &add);
    if (dy)
        k_half_sq_backward(g->dev, scored(g, n), n->rows, n->width, n->weight, add, dy, data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int entropy_forward(nn_graph *g, node *n)
{
    k_mean_weight(g->dev, n->rows, data(g, n->in[1]), n->weight);
    k_xent_forward(g->dev, scored(g, n), n->rows, n->width, n->width, n->number, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int entropy_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dy = nn_into(g, n, 0, &add);
    if (dy)
        k_xent_backward(g->dev, scored(g, n), n->rows, n->width, n->number, n->weight, add, dy, data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static const op half_square_op = { .name = "half_squared_error", .reads = NN_READS_IN, .forward = half_square_forward, .backward = half_square_backward, .loss = 1 };
static const op entropy_op = { .name = "cross_entropy", .reads = NN_READS_IN, .forward = entropy_forward, .backward = entropy_backward, .loss = 1 };

/* Either loss; smoothing is the second one's. */
static nn_id loss(nn_graph *g, const op *kind, nn_id y, nn_id target, double smoothing)
{
    nn_id in[] = { y, target };
    if (!nn_ready(g, kind->name, in, 2))
        return NN_BAD;
    if (!is_activation(g, y, 2) || !is_index(g, target) || g->tensors[target].n != nn_dims(g, y).d[0] || !(smoothing >= 0 && smoothing < 1))
        return nn_unfit(g, kind->name, y, target, "[rows,d], in bf16 no parameter, i32 [rows], and a smoothing below 1");
    attn_dims of = nn_dims(g, y);
    node *n = nn_new_node(g, kind, in, 2, g->params->wide, (attn_dims){ 1, { of.d[0] } });
    if (!n)
        return NN_BAD;
    n->rows = of.d[0];
    n->width = of.d[1];
    n->number = smoothing;
    return n->out;
}

nn_id nn_half_squared_error(nn_graph *g, nn_id y, nn_id target) { return loss(g, &half_square_op, y, target, 0); }
nn_id nn_cross_entropy(nn_graph *g, nn_id y, nn_id target) { return loss(g, &entropy_op, y, target, 0); }
nn_id nn_cross_entropy_smoothed(nn_graph *g, nn_id y, nn_id target, double smoothing) { return loss(g, &entropy_op, y, target, smoothing); }

/* ---- linear and cross-entropy at once: in x [rows,depth], w [width,depth], b [width], targets [rows] --------------------- */

/* Scores are made in chunks of rows, in the node's room: [chunk,pitch] is all there ever is of them.  Backward makes the
 * scores and with them the losses, so that in a step, where backward follows at once, forward has nothing to do (see
 * nn_step) and every score is made once; to keep what forward made would take the whole matrix, to make gradients in
 * forward a second gradient of w. */
enum { CHUNK_STEP = 128, PITCH_STEP = 64 };

/* Numbers from one row of scores to the next: rows begin where tensor cores want them to, whatever the number of words.  With
 * a bias, whose kernels know no gaps, they are dense. */
static int64_t pitch(const node *n)
{
    return n->in[2] != NN_NONE ? n->width : (n->width + PITCH_STEP - 1) / PITCH_STEP * PITCH_STEP;
}

/* Scores of a row as the products make them: with those of the rows of zeros that a parameter ends with, whose gradients are
 * zero, too.  Tensor cores work on whole packs: with an odd number of words the products would take several times as long. */
static int64_t columns(const nn_graph *g, const node *n)
{
    const tensor *w = &g->tensors[n->in[1]];
    int padded = w->param >= 0 && w->dims.d[0] == n->width && n->in[2] == NN_NONE;
    return padded ? nn_param_rows(g->params, w->param) : n->width;
}

/* Rows per chunk: chunks of one size, whole tiles of the products. */
static int64_t chunk_of(const nn_graph *g, const node *n)
{
    int64_t most = g->chunk_bytes / (pitch(n) * (int64_t)k_dtype_size(g->params->dtype));
    most = most < 1 ? 1 : most;
    int64_t chunks = (n->rows + most - 1) / most, chunk = (n->rows + chunks - 1) / chunks;
    int64_t whole = (chunk + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
    return whole <= most && whole < n->rows ? whole : chunk;
}

static int scores_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    n->chunk = chunk_of(g, n);
    return nn_take_room(g, n, (size_t)(n->chunk * pitch(n)) * k_dtype_size(g->params->dtype), why, nwhy);
}

/* The scores of rows at.. into the room; how many rows they are. */
static int64_t make_scores(nn_graph *g, node *n, int64_t at)
{
    k_dtype t = g->params->dtype;
    int64_t rows = n->rows - at < n->chunk ? n->rows - at : n->chunk;
    const char *x = (char *)data(g, n->in[0]) + (size_t)(at * n->depth) * k_dtype_size(t);
    k_gemm(g->dev, t, 0, 1, rows, columns(g, n), n->depth, 1, x, n->depth, data(g, n->in[1]), n->depth, 0, n->room, pitch(n));
    if (n->in[2] != NN_NONE)
        k_add_bias(g->dev, t, rows, n->width, n->room, n->room, data(g, n->in[2]));
    return rows;
}

static int scores_forward(nn_graph *g, node *n)
{
    const int32_t *target = data(g, n->in[3]);
    if (g->stepping && n == g->loss_node)
        return 0;
    k_mean_weight(g->dev, n->rows, target, n->weight);
    for (int64_t at = 0; at < n->rows; at += n->chunk) {
        int64_t rows = make_scores(g, n, at);
        char *loss = (char *)data(g, n->out) + (size_t)at * k_dtype_size(g->params->wide);
        k_xent_forward(g->dev, g->params->dtype, rows, n->width, pitch(n), n->number, loss, n->room, target + at);
    }
    return 0;
}

typedef struct scores_grads { void *dx, *dw, *db; int add_x, add_w; } scores_grads;

/* The gradients of rows at.. from that of their scores, which is in the room. */
static void spread(nn_graph *g, node *n, const scores_grads *d, int64_t at, int64_t rows)
{
    k_dtype t = g->params->dtype;
    size_t offset = (size_t)(at * n->depth) * k_dtype_size(t);
    if (d->dx)      /* dx [rows,depth] = ds w */
        nn_product_for(g, n, 0)(g->dev, t, 0, 0, rows, n->depth, columns(g, n), 1, n->room, pitch(n), data(g, n->in[1]), n->depth, d->add_x,
                                (char *)d->dx + offset, n->depth);
    if (d->dw)      /* dw [width,depth] = ds^T x */
        nn_product_for(g, n, 1)(g->dev, t, 1, 0, columns(g, n), n->depth, rows, 1, n->room, pitch(n), (char *)data(g, n->in[0]) + offset, n->depth,
                                d->add_w || at > 0, d->dw, n->depth);
    if (d->db)
        k_sum_rows(g->dev, t, rows, n->width, n->room, d->db);
}

static int scores_backward(nn_graph *g, node *n)
{
    const int32_t *target = data(g, n->in[3]);
    scores_grads d = { 0 };
    d.dx = nn_into(g, n, 0, &d.add_x);
    d.dw = nn_into(g, n, 1, &d.add_w);
    d.db = nn_zeroed(g, n, 2);
    k_mean_weight(g->dev, n->rows, target, n->weight);
    for (int64_t at = 0; at < n->rows; at += n->chunk) {
        int64_t rows = make_scores(g, n, at);
        char *loss = (char *)data(g, n->out) + (size_t)at * k_dtype_size(g->params->wide);
        k_xent_both(g->dev, g->params->dtype, rows, n->width, pitch(n), n->number, n->weight, loss, n->room, target + at);
        spread(g, n, &d, at, rows);
    }
    return 0;
}

static const op scores_op = { .name = "linear_cross_entropy", .reads = NN_READS_IN, .forward = scores_forward, .backward = scores_backward, .compile = scores_compile,
                              .loss = 1 };

nn_id nn_linear_cross_entropy(nn_graph *g, nn_id x, nn_id w, nn_id b, nn_id target, double smoothing)
{
    nn_id in[] = { x, w, b, target };
    if (!nn_ready(g, "linear_cross_entropy", in, 4))
        return NN_BAD;
    if (!is_activation(g, x, 2) || !is_real(g, w, 2) || nn_dims(g, x).d[1] != nn_dims(g, w).d[1] || (b != NN_NONE && !is_vector(g, b, nn_dims(g, w).d[0])))
        return nn_unfit(g, "linear_cross_entropy", x, w, "[rows,d], in bf16 no parameter, and [words,d], with a bias [words] or none");
    attn_dims rows = nn_dims(g, x), weight = nn_dims(g, w);
    if (!is_index(g, target) || g->tensors[target].n != rows.d[0] || !(smoothing >= 0 && smoothing < 1))
        return nn_unfit(g, "linear_cross_entropy", x, target, "[rows,d] and i32 [rows], and a smoothing below 1");
    node *n = nn_new_node(g, &scores_op, in, 4, g->params->wide, (attn_dims){ 1, { rows.d[0] } });
    if (!n)
        return NN_BAD;
    n->rows = rows.d[0];
    n->depth = rows.d[1];
    n->width = weight.d[0];
    n->number = smoothing;
    return n->out;
}
