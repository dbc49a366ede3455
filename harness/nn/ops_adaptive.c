/* ops_adaptive.c - adaptive softmax (Grave et al. 2017): a head of the commonest words and one entry per tail, and tails of the
 * others, whose words are weighed only where the head says so.  All words have vectors of one width, rows of one table, which may
 * be the embedding (Baevski & Auli 2019, with equal widths).
 *
 *   log p(w) = log softmax_head(w)                                            w < cut[0]
 *            = log softmax_head(tail i) + log softmax_i(w)                    cut[i] <= w < cut[i + 1]
 *
 * Rows are sorted by the tail of their target, so that a tail's work is a stretch of them; chunks of which no row is its are
 * left out (k_when: on the CPU, and in the recording of a training step).  The scores of a chunk are all that there ever is of them. */
#include "ops.h"

enum { STEP = 64, TAIL_ROWS = 1024 };

/* in: x [rows,depth], table [width,depth], tails [K,depth], targets [rows] */
enum { IN_X, IN_TABLE, IN_TAILS, IN_TARGET };

typedef struct piece {                  /* of the vocabulary: the head (0), then the tails */
    int64_t begin, words, columns, pitch, chunk;    /* columns: words with the rows of zeros that a parameter ends with */
} piece;

/* Rows of an input's table as they lie in memory. */
static int64_t rows_of(const nn_graph *g, const node *n, int i)
{
    const tensor *t = &g->tensors[n->in[i]];
    int64_t own = i == IN_TABLE ? n->width : n->clusters.tails;
    return t->param >= 0 && t->dims.n == 2 && t->dims.d[0] == own ? nn_param_rows(g->params, t->param) : own;
}

static piece piece_of(const nn_graph *g, const node *n, int i)
{
    const k_clusters *c = &n->clusters;
    piece p = { .begin = i ? c->cut[i - 1] : 0, .words = c->cut[0] + c->tails, .columns = c->cut[0] + rows_of(g, n, IN_TAILS) };
    if (i) {
        int64_t end = i < c->tails ? c->cut[i] : n->width, there = i < c->tails ? end : rows_of(g, n, IN_TABLE);
        p.words = end - p.begin;
        p.columns = there - p.begin;
    }
    p.pitch = (p.columns + STEP - 1) / STEP * STEP;
    int64_t most = g->chunk_bytes / (p.pitch * (int64_t)k_dtype_size(g->params->dtype));
    p.chunk = most < 1 ? 1 : most < n->rows ? most : n->rows;
    return p;
}

/* Rows of a chunk of every tail: the widest one's. */
static int64_t tail_chunk(const nn_graph *g, const node *n)
{
    int64_t chunk = n->rows < TAIL_ROWS ? n->rows : TAIL_ROWS;
    for (int i = 1; i <= n->clusters.tails; i++)
        chunk = piece_of(g, n, i).chunk < chunk ? piece_of(g, n, i).chunk : chunk;
    return chunk;
}

/* ---- the node's room ----------------------------------------------------------------------------------------------------- */

typedef struct room {
    char *xs, *dxs, *loss, *tail_loss, *scores;     /* sorted x and its gradient [rows,depth], losses [rows], of a tail's chunk; [chunk,pitch] */
    int32_t *row, *place, *word, *some;             /* of k_sort_targets */
    int64_t chunk, chunks;                          /* of the tails */
} room;

/* The next `bytes` of a room that begins at base, which may be NULL while sizes are added up. */
static void *next(char *base, size_t *used, size_t bytes)
{
    char *at = base ? base + *used : NULL;
    *used += (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    return at;
}

/* What lies where; the bytes of all. */
static size_t lay_out(const nn_graph *g, const node *n, room *r)
{
    size_t used = 0, each = k_dtype_size(g->params->dtype), wide = k_dtype_size(g->params->wide), rows = (size_t)n->rows, scores = 0;
    int tails = n->clusters.tails;
    r->chunk = tail_chunk(g, n);
    r->chunks = (n->rows + r->chunk - 1) / r->chunk;
    for (int i = 0; i <= tails; i++) {
        piece p = piece_of(g, n, i);
        size_t bytes = (size_t)((i ? r->chunk : p.chunk) * p.pitch) * each;
        scores = bytes > scores ? bytes : scores;
    }
    r->xs = next(n->room, &used, rows * (size_t)n->depth * each);
    r->dxs = next(n->room, &used, n->live ? rows * (size_t)n->depth * each : 0);
    r->loss = next(n->room, &used, rows * wide);
    r->tail_loss = next(n->room, &used, (size_t)r->chunk * wide);
    r->row = next(n->room, &used, rows * sizeof *r->row);
    r->place = next(n->room, &used, rows * sizeof *r->place);
    r->word = next(n->room, &used, (size_t)(1 + tails) * rows * sizeof *r->word);
    r->some = next(n->room, &used, (size_t)(tails * r->chunks) * sizeof *r->some);
    r->scores = next(n->room, &used, scores);
    return used;
}

static int adaptive_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    room r;
    return nn_take_room(g, n, lay_out(g, n, &r), why, nwhy);
}

/* ---- one chunk of one piece ------------------------------------------------------------------------------------------------ */

typedef struct work {
    nn_graph *g;
    node *n;
    const room *r;
    int i;                              /* the piece */
    int64_t at;                         /* its first row */
    int back, dx;                       /* whether gradients are made, that of x too */
    char *dtable, *dtails;              /* zeroed or begun by others; NULL: nobody wants them */
} work;

/* scores [rows,columns] = x table^T of the words from `begin` on; their place in a row of scores */
static void score(const work *w, const piece *p, int in, int64_t begin, int64_t columns, int64_t rows, int64_t to)
{
    const nn_graph *g = w->g;
    const node *n = w->n;
    size_t each = k_dtype_size(g->params->dtype);
    k_gemm(g->dev, g->params->dtype, 0, 1, rows, columns, n->depth, 1, w->r->xs + (size_t)(w->at * n->depth) * each, n->depth,
           (char *)data(g, n->in[in]) + (size_t)(begin * n->depth) * each, n->depth, 0, w->r->scores + (size_t)to * each, p->pitch);
}

/* Their gradients, of which d [.., depth] is that of the table, onto what is there but for the first of x. */
static void spread(const work *w, const piece *p, int in, int64_t begin, int64_t columns, int64_t rows, int64_t from, int first)
{
    nn_graph *g = w->g;
    node *n = w->n;
    k_dtype t = g->params->dtype;
    size_t each = k_dtype_size(t), x = (size_t)(w->at * n->depth) * each, row = (size_t)(begin * n->depth);
    const char *ds = w->r->scores + (size_t)from * each;
    char *d = in == IN_TABLE ? w->dtable : w->dtails;
    size_t wide = k_dtype_size(nn_is_narrow(g, n->in[in]) ? t : g->params->wide);
    if (w->dx)
        k_gemm(g->dev, t, 0, 0, rows, n->depth, columns, 1, ds, p->pitch, (char *)data(g, n->in[in]) + row * each, n->depth, !first, w->r->dxs + x,
               n->depth);
    if (d)
        nn_product_for(g, n, in)(g->dev, t, 1, 0, columns, n->depth, rows, 1, ds, p->pitch, w->r->xs + x, n->depth, 1, d + row * wide, n->depth);
}

/* The losses of a chunk, and where wanted its gradients; of a tail's chunk that has none of its rows: nothing, at length. */
static int one_chunk(void *arg)
{
    const work *w = arg;
    nn_graph *g = w->g;
    node *n = w->n;
    piece p = piece_of(g, n, w->i);
    int64_t most = w->i ? w->r->chunk : p.chunk, rows = n->rows - w->at < most ? n->rows - w->at : most, cut = n->clusters.cut[0];
    const int32_t *word = w->r->word + w->i * n->rows + w->at;
    char *sum = w->r->loss + (size_t)w->at * k_dtype_size(g->params->wide), *loss = w->i ? w->r->tail_loss : sum;
    score(w, &p, IN_TABLE, p.begin, w->i ? p.columns : cut, rows, 0);
    if (!w->i)
        score(w, &p, IN_TAILS, 0, p.columns - cut, rows, cut);
    if (w->back)
        k_xent_both(g->dev, g->params->dtype, rows, p.words, p.pitch, 0, n->weight, loss, w->r->scores, word);
    else
        k_xent_forward(g->dev, g->params->dtype, rows, p.words, p.pitch, 0, loss, w->r->scores, word);
    if (w->i)
        k_axpy(g->dev, g->params->wide, rows, 1, loss, sum);
    if (w->back) {
        spread(w, &p, IN_TABLE, p.begin, w->i ? p.columns : cut, rows, 0, !w->i);
        if (!w->i)
            spread(w, &p, IN_TAILS, 0, p.columns - cut, rows, cut, 0);
    }
    return 0;
}

/* ---- the node ------------------------------------------------------------------------------------------------------------------ */

/* Losses, and in backward gradients: the head of all rows, then each tail of its own. */
static int pass(nn_graph *g, node *n, int back)
{
    room r;
    int add = 0, rc = 0;
    lay_out(g, n, &r);
    void *dx = back ? nn_into(g, n, IN_X, &add) : NULL;
    work w = { .g = g, .n = n, .r = &r, .back = back, .dx = dx != NULL, .dtable = back ? nn_zeroed(g, n, IN_TABLE) : NULL,
               .dtails = back ? nn_zeroed(g, n, IN_TAILS) : NULL };
    const int32_t *target = data(g, n->in[IN_TARGET]);
    k_mean_weight(g->dev, n->rows, target, n->weight);
    k_sort_targets(g->dev, n->rows, target, &n->clusters, r.chunk, r.row, r.place, r.word, r.some);
    k_gather_rows(g->dev, g->params->dtype, n->rows, n->depth, r.xs, data(g, n->in[IN_X]), r.row, 0);
    for (int64_t chunk = piece_of(g, n, 0).chunk; w.at < n->rows; w.at += chunk)
        one_chunk(&w);
    for (w.i = 1; w.i <= n->clusters.tails; w.i++)
        for (int64_t c = 0; !rc && c < r.chunks; c++) {
            w.at = c * r.chunk;
            rc = k_when(g->dev, r.some + (w.i - 1) * r.chunks + c, one_chunk, &w);
        }
    k_gather_rows(g->dev, g->params->wide, n->rows, 1, data(g, n->out), r.loss, r.place, 0);
    if (dx)
        k_gather_rows(g->dev, g->params->dtype, n->rows, n->depth, dx, r.dxs, r.place, add);
    return rc;
}

/* Backward makes the losses, too. */
static int adaptive_forward(nn_graph *g, node *n) { return g->stepping && n == g->loss_node ? 0 : pass(g, n, 0); }
static int adaptive_backward(nn_graph *g, node *n) { return pass(g, n, 1); }

static const op adaptive_op = { .name = "adaptive_cross_entropy", .reads = NN_READS_IN, .forward = adaptive_forward, .backward = adaptive_backward,
                                .compile = adaptive_compile, .loss = 1 };

/* ---- the logarithms of all probabilities ------------------------------------------------------------------------------------------ */

static int log_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    piece p = piece_of(g, n, 0);
    n->chunk = p.chunk;
    return nn_take_room(g, n, (size_t)(p.chunk * p.pitch) * k_dtype_size(g->params->dtype), why, nwhy);
}

static int log_forward(nn_graph *g, node *n)
{
    k_dtype t = g->params->dtype;
    size_t each = k_dtype_size(t);
    const piece head = piece_of(g, n, 0);
    const int64_t cut = n->clusters.cut[0], d = n->depth;
    const char *table = data(g, n->in[IN_TABLE]);
    char *tails = (char *)n->room + (size_t)cut * each;     /* of a row of the head */
    for (int64_t at = 0; at < n->rows; at += n->chunk) {
        int64_t rows = n->rows - at < n->chunk ? n->rows - at : n->chunk;
        const char *x = (char *)data(g, n->in[IN_X]) + (size_t)(at * d) * each;
        char *out = (char *)data(g, n->out) + (size_t)(at * n->width) * each;
        k_gemm(g->dev, t, 0, 1, rows, cut, d, 1, x, d, table, d, 0, n->room, head.pitch);
        k_gemm(g->dev, t, 0, 1, rows, head.columns - cut, d, 1, x, d, data(g, n->in[IN_TAILS]), d, 0, tails, head.pitch);
        k_log_softmax(g->dev, t, rows, head.words, cut, out, n->width, n->room, head.pitch, NULL, 0);
        k_log_softmax(g->dev, t, rows, head.words, head.words, n->room, head.pitch, n->room, head.pitch, NULL, 0);
        for (int i = 1; i <= n->clusters.tails; i++) {
            piece p = piece_of(g, n, i);
            char *to = out + (size_t)p.begin * each;
            k_gemm(g->dev, t, 0, 1, rows, p.words, d, 1, x, d, table + (size_t)(p.begin * d) * each, d, 0, to, n->width);
            k_log_softmax(g->dev, t, rows, p.words, p.words, to, n->width, to, n->width, tails + (size_t)(i - 1) * each, head.pitch);
        }
    }
    return 0;
}

static const op log_op = { .name = "adaptive_logits", .forward = log_forward, .compile = log_compile };

/* ---- building ------------------------------------------------------------------------------------------------------------------------ */

/* Whether the cuts go up, from 1 to below the number of words. */
static int fits(const k_clusters *c, int64_t words)
{
    int ok = c->tails >= 1 && c->tails <= K_TAILS && c->cut[0] >= 1;
    for (int i = 0; ok && i < c->tails; i++)
        ok = c->cut[i] < (i + 1 < c->tails ? c->cut[i + 1] : words);
    return ok;
}

/* The node of either kind, but for its sizes; NULL with the mistake recorded. */
static node *build(nn_graph *g, const op *kind, const nn_id *in, int n_in, const k_clusters *c, k_dtype dtype, attn_dims dims)
{
    attn_dims x = nn_dims(g, in[IN_X]), table = nn_dims(g, in[IN_TABLE]), tails = nn_dims(g, in[IN_TAILS]);
    if (!is_activation(g, in[IN_X], 2) || !is_real(g, in[IN_TABLE], 2) || !is_real(g, in[IN_TAILS], 2) || x.d[1] != table.d[1] ||
        x.d[1] != tails.d[1])
        return nn_unfit(g, kind->name, in[IN_X], in[IN_TABLE], "[rows,d], in bf16 no parameter, [words,d] and [tails,d]"), NULL;
    if (!fits(c, table.d[0]) || tails.d[0] != c->tails)
        return nn_fail(g, ATTN_EINVAL, "%s: at most %d cuts that go up from 1 and stay below %lld words, a row of the tails each", kind->name,
                       K_TAILS, (long long)table.d[0]), NULL;
    node *n = nn_new_node(g, kind, in, n_in, dtype, dims);
    if (!n)
        return NULL;
    n->rows = x.d[0];
    n->depth = x.d[1];
    n->width = table.d[0];
    n->clusters = *c;
    return n;
}

nn_id nn_adaptive_cross_entropy(nn_graph *g, nn_id x, nn_id table, nn_id tails, nn_id target, const k_clusters *c)
{
    nn_id in[] = { x, table, tails, target };
    if (!nn_ready(g, "adaptive_cross_entropy", in, 4))
        return NN_BAD;
    if (!is_index(g, target) || x < 0 || g->tensors[target].n != nn_dims(g, x).d[0])
        return nn_unfit(g, "adaptive_cross_entropy", x, target, "[rows,d] and i32 [rows]");
    node *n = build(g, &adaptive_op, in, 4, c, g->params->wide, (attn_dims){ 1, { nn_dims(g, x).d[0] } });
    return n ? n->out : NN_BAD;
}

nn_id nn_adaptive_logits(nn_graph *g, nn_id x, nn_id table, nn_id tails, const k_clusters *c)
{
    nn_id in[] = { x, table, tails };
    if (!nn_ready(g, "adaptive_logits", in, 3))
        return NN_BAD;
    if (g->training)
        return nn_fail(g, ATTN_EINVAL, "adaptive_logits: of a graph that does not train; there is nn_adaptive_cross_entropy");
    node *n = build(g, &log_op, in, 3, c, g->params->dtype, (attn_dims){ 2, { nn_dims(g, x).d[0], nn_dims(g, table).d[0] } });
    return n ? n->out : NN_BAD;
}
