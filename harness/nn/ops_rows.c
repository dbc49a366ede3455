/* ops_rows.c - nodes that work row by row: tables of rows and norms. */
#include "ops.h"

/* ---- gather: rows of one table, or the sum of rows of two ------------------------------------------------------------ */

/* in: table, indices [, table, indices].  A table is a root here, whose dims need not be [rows,d]: see nn_reshape. */
static int gather_forward(nn_graph *g, node *n)
{
    for (int i = 0; i < n->n_in; i += 2)
        k_gather_rows(g->dev, type(g, n), n->rows, n->width, data(g, n->out), data(g, n->in[i]), data(g, n->in[i + 1]), i > 0);
    return 0;
}

/* The gradient of a table that is no parameter, in bf16: added up in float, then rounded. */
static void gather_backward_narrow(nn_graph *g, node *n, int i)
{
    int add = 0;
    const tensor *table = &g->tensors[n->in[i]];
    void *dtable = nn_into(g, n, i, &add);
    if (!dtable)
        return;
    if (add)
        k_convert(g->dev, table->n, n->room, K_F32, dtable, K_BF16);
    else
        k_zero(g->dev, n->room, (size_t)table->n * sizeof(float));
    k_scatter_add_rows(g->dev, K_BF16, n->rows, n->width, table->n / n->width, n->room, out_grad(g, n), data(g, n->in[i + 1]));
    k_convert(g->dev, table->n, dtable, K_BF16, n->room, K_F32);
}

static int gather_backward(nn_graph *g, node *n)
{
    for (int i = 0; i < n->n_in; i += 2) {
        if (type(g, n) == K_BF16 && nn_is_narrow(g, n->in[i])) {
            gather_backward_narrow(g, n, i);
            continue;
        }
        void *dtable = nn_zeroed(g, n, i);
        if (dtable)
            k_scatter_add_rows(g->dev, type(g, n), n->rows, n->width, g->tensors[n->in[i]].n / n->width, dtable, out_grad(g, n),
                               data(g, n->in[i + 1]));
    }
    return 0;
}

static int gather_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    int64_t largest = 0;
    for (int i = 0; n->live && g->params->dtype == K_BF16 && i < n->n_in; i += 2)
        if (nn_is_narrow(g, n->in[i]) && g->tensors[n->in[i]].n > largest)
            largest = g->tensors[n->in[i]].n;
    return largest ? nn_take_room(g, n, (size_t)largest * sizeof(float), why, nwhy) : 0;
}

static const op gather_op = { .name = "gather", .forward = gather_forward, .backward = gather_backward, .compile = gather_compile };

/* in: one or two pairs of table [rows,d] and indices [n..], the indices of one shape. */
static nn_id gather(nn_graph *g, const nn_id *in, int n_in)
{
    if (!nn_ready(g, "gather", in, n_in))
        return NN_BAD;
    for (int i = 0; i < n_in; i += 2)
        if (!is_real(g, in[i], 2) || !is_index(g, in[i + 1]) || nn_dims(g, in[i]).d[1] != nn_dims(g, in[0]).d[1] ||
            g->tensors[in[i + 1]].n != g->tensors[in[1]].n || nn_dims(g, in[i + 1]).n == ATTN_MAX_DIMS)
            return nn_unfit(g, "gather", in[i], in[i + 1], "a table [rows,d] and i32 indices of at most 3 dimensions");
    attn_dims dims = nn_dims(g, in[1]);
    int64_t rows = g->tensors[in[1]].n, width = nn_dims(g, in[0]).d[1];
    dims.d[dims.n++] = width;
    node *n = nn_new_node(g, &gather_op, in, n_in, g->params->dtype, dims);
    if (!n)
        return NN_BAD;
    n->rows = rows;
    n->width = width;
    return n->out;
}

nn_id nn_gather(nn_graph *g, nn_id table, nn_id idx)
{
    return gather(g, (nn_id[]){ table, idx }, 2);
}

nn_id nn_gather2(nn_graph *g, nn_id ta, nn_id ia, nn_id tb, nn_id ib)
{
    return gather(g, (nn_id[]){ ta, ia, tb, ib }, 4);
}

/* ---- add_rows: y [rows,width] = x + table [width], width being the first positions of a table, as many as x has -------- */

static int add_rows_forward(nn_graph *g, node *n)
{
    k_add_bias(g->dev, type(g, n), n->rows, n->width, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int add_rows_backward(nn_graph *g, node *n)
{
    void *dtable = nn_zeroed(g, n, 1);
    nn_pass_gradient(g, n, 0);
    if (dtable)
        k_sum_rows(g->dev, type(g, n), n->rows, n->width, out_grad(g, n), dtable);
    return 0;
}

static const op add_rows_op = { .name = "add_rows", .passes = 1, .forward = add_rows_forward, .backward = add_rows_backward };

nn_id nn_add_rows(nn_graph *g, nn_id x, nn_id table)
{
    nn_id in[] = { x, table };
    if (!nn_ready(g, "add_rows", in, 2))
        return NN_BAD;
    attn_dims dims = nn_dims(g, x), of = nn_dims(g, table);
    int64_t width = 1;
    int ok = is_activation(g, x, 0) && is_real(g, table, 0) && of.n < dims.n && !(g->params->dtype == K_BF16 && nn_is_narrow(g, table) && g->tensors[table].learns);
    for (int i = 0; ok && i < of.n; i++) {
        int64_t want = dims.d[dims.n - of.n + i];
        ok = of.d[i] == want || (i == 0 && of.n > 1 && of.d[i] > want);
        width *= want;
    }
    if (!ok)
        return nn_unfit(g, "add_rows", x, table, "[..,T,d] and [T or more,d], in bf16 a parameter or nothing learned");
    node *n = nn_new_node(g, &add_rows_op, in, 2, g->params->dtype, dims);
    if (!n)
        return NN_BAD;
    n->width = width;
    n->rows = g->tensors[n->out].n / n->width;
    return n->out;
}

/* ---- norms: y = gain (x - m) / sqrt(mean((x - m)^2) + eps) + bias by rows of the last dimension ------------------------- */

/* in: x, gain, bias.  Backward makes the moments anew from x, which it reads anyway: nothing is saved. */
static int norm_forward(nn_graph *g, node *n)
{
    k_norm_forward(g->dev, type(g, n), n->norm, n->rows, n->width, n->number, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]),
                   data(g, n->in[2]));
    return 0;
}

static int norm_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add), *dgain = nn_zeroed(g, n, 1), *dbias = nn_zeroed(g, n, 2);
    k_norm_backward(g->dev, type(g, n), n->norm, n->rows, n->width, n->number, add, dx, dgain, dbias, out_grad(g, n), data(g, n->in[0]),
                    data(g, n->in[1]));
    return 0;
}

static const op norm_op = { .name = "norm", .reads = NN_READS_IN, .forward = norm_forward, .backward = norm_backward };

/* Either norm. */
static nn_id norm(nn_graph *g, k_norm_kind kind, nn_id x, nn_id gain, nn_id bias, double eps)
{
    nn_id in[] = { x, gain, bias };
    if (!nn_ready(g, "norm", in, 3))
        return NN_BAD;
    if (!is_activation(g, x, 0) || !(eps > 0))
        return nn_unfit(g, "norm", x, NN_NONE, "one tensor, in bf16 no parameter, and eps above 0");
    attn_dims dims = nn_dims(g, x);
    int64_t d = last(dims);
    if ((gain != NN_NONE && !is_vector(g, gain, d)) || (bias != NN_NONE && !is_vector(g, bias, d)))
        return nn_unfit(g, "norm", gain, bias, "a gain and a bias as long as a row, in bf16 parameters");
    node *n = nn_new_node(g, &norm_op, in, 3, g->params->dtype, dims);
    if (!n)
        return NN_BAD;
    n->norm = kind;
    n->number = eps;
    n->width = d;
    n->rows = g->tensors[n->out].n / d;
    return n->out;
}

nn_id nn_layer_norm(nn_graph *g, nn_id x, nn_id gain, nn_id bias, double eps) { return norm(g, K_NORM_LAYER, x, gain, bias, eps); }
nn_id nn_rms_norm(nn_graph *g, nn_id x, nn_id gain, double eps) { return norm(g, K_NORM_RMS, x, gain, NN_NONE, eps); }
