/* ops.c - what the kinds of nodes share, and the products. */
#include "ops.h"
#include <stdio.h>

/* ---- shared by all ------------------------------------------------------------------------------------------------ */

void *nn_into(const nn_graph *g, const node *n, int i, int *add)
{
    const tensor *t = n->in[i] < 0 ? NULL : &g->tensors[n->in[i]];
    if (!t || !t->live || !t->learns)
        return NULL;
    *add = n->add[i];
    if (t->param >= 0) {
        param *p = &g->params->list[t->param];
        *add = !p->fresh;
        p->fresh = 0;
    }
    return t->grad;
}

int nn_is_narrow(const nn_graph *g, nn_id id)
{
    return id < 0 || g->params->wide == g->params->dtype || g->tensors[g->tensors[id].root].param < 0;
}

void *nn_zeroed(const nn_graph *g, const node *n, int i)
{
    int add = 1;
    void *grad = nn_into(g, n, i, &add);
    if (!grad || add)
        return grad;
    const tensor *t = &g->tensors[n->in[i]];
    k_zero(g->dev, grad, (size_t)t->n * k_dtype_size(nn_is_narrow(g, n->in[i]) ? t->dtype : g->params->wide));
    return grad;
}

product_fn nn_product_for(const nn_graph *g, const node *n, int i)
{
    return nn_is_narrow(g, n->in[i]) ? k_gemm : k_gemm_wide;
}

nn_id nn_unfit(nn_graph *g, const char *what, nn_id a, nn_id b, const char *want)
{
    char x[100], y[100];
    return nn_fail(g, ATTN_EINVAL, "%s: inputs %s and %s, wanted %s", what, nn_dims_text(nn_dims(g, a), x, sizeof x),
                   nn_dims_text(nn_dims(g, b), y, sizeof y), want);
}

int nn_take_room(nn_graph *g, node *n, size_t bytes, char *why, size_t nwhy)
{
    if (nn_take(g, K_TAG_WORKSPACE, bytes, &n->room) == 0)
        return 0;
    snprintf(why, nwhy, "%s: %s", n->op->name, k_error(g->dev));
    return NN_ENOMEM;
}

/* ---- linear: y [rows,width] = x [rows,depth] w [width,depth]^T + b [width] ------------------------------------------ */

static int linear_forward(nn_graph *g, node *n)
{
    k_linear(g->dev, type(g, n), n->rows, n->width, n->depth, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]), data(g, n->in[2]));
    return 0;
}

static int linear_backward(nn_graph *g, node *n)
{
    const void *dy = out_grad(g, n);
    int add = 0;
    void *dw = nn_into(g, n, 1, &add), *dx, *db;
    if (dw)     /* dw [width,depth] = dy^T x */
        nn_product_for(g, n, 1)(g->dev, type(g, n), 1, 0, n->width, n->depth, n->rows, 1, dy, n->width, data(g, n->in[0]), n->depth, add, dw, n->depth);
    if ((dx = nn_into(g, n, 0, &add)))     /* dx [rows,depth] = dy w */
        nn_product_for(g, n, 0)(g->dev, type(g, n), 0, 0, n->rows, n->depth, n->width, 1, dy, n->width, data(g, n->in[1]), n->depth, add, dx, n->depth);
    if ((db = nn_zeroed(g, n, 2)))
        k_sum_rows(g->dev, type(g, n), n->rows, n->width, dy, db);
    return 0;
}

static const op linear_op = { .name = "linear", .reads = NN_READS_IN, .forward = linear_forward, .backward = linear_backward };

nn_id nn_linear(nn_graph *g, nn_id x, nn_id w, nn_id b)
{
    nn_id in[] = { x, w, b };
    if (!nn_ready(g, "linear", in, 3))
        return NN_BAD;
    if (!is_real(g, x, 0) || !is_real(g, w, 2) || last(nn_dims(g, x)) != last(nn_dims(g, w)))
        return nn_unfit(g, "linear", x, w, "[..,in] and [out,in]");
    attn_dims dims = nn_dims(g, x), weight = nn_dims(g, w);
    if (b != NN_NONE && !is_vector(g, b, weight.d[0]))
        return nn_unfit(g, "linear", w, b, "[out,in] and a bias [out], in bf16 a parameter");
    dims.d[dims.n - 1] = weight.d[0];
    node *n = nn_new_node(g, &linear_op, in, 3, g->params->dtype, dims);
    if (!n)
        return NN_BAD;
    n->width = weight.d[0];
    n->depth = weight.d[1];
    n->rows = g->tensors[x].n / n->depth;
    return n->out;
}

/* ---- matmul: c [rows,width] = a [rows,depth] b [depth,width] -------------------------------------------------------- */

static int matmul_forward(nn_graph *g, node *n)
{
    k_gemm(g->dev, type(g, n), 0, 0, n->rows, n->width, n->depth, 1, data(g, n->in[0]), n->depth, data(g, n->in[1]), n->width, 0,
           data(g, n->out), n->width);
    return 0;
}

static int matmul_backward(nn_graph *g, node *n)
{
    const void *dc = out_grad(g, n);
    int add = 0;
    void *da = nn_into(g, n, 0, &add), *db;
    if (da)     /* da [rows,depth] = dc b^T */
        nn_product_for(g, n, 0)(g->dev, type(g, n), 0, 1, n->rows, n->depth, n->width, 1, dc, n->width, data(g, n->in[1]), n->width, add, da, n->depth);
    if ((db = nn_into(g, n, 1, &add)))     /* db [depth,width] = a^T dc */
        nn_product_for(g, n, 1)(g->dev, type(g, n), 1, 0, n->depth, n->width, n->rows, 1, data(g, n->in[0]), n->depth, dc, n->width, add, db, n->width);
    return 0;
}

static const op matmul_op = { .name = "matmul", .reads = NN_READS_IN, .forward = matmul_forward, .backward = matmul_backward };

nn_id nn_matmul(nn_graph *g, nn_id a, nn_id b)
{
    nn_id in[] = { a, b };
    if (!nn_ready(g, "matmul", in, 2))
        return NN_BAD;
    if (!is_real(g, a, 2) || !is_real(g, b, 2) || nn_dims(g, a).d[1] != nn_dims(g, b).d[0])
        return nn_unfit(g, "matmul", a, b, "[m,k] and [k,n]");
    attn_dims dims = { 2, { nn_dims(g, a).d[0], nn_dims(g, b).d[1] } };
    int64_t depth = nn_dims(g, a).d[1];
    node *n = nn_new_node(g, &matmul_op, in, 2, g->params->dtype, dims);
    if (!n)
        return NN_BAD;
    n->rows = dims.d[0];
    n->width = dims.d[1];
    n->depth = depth;
    return n->out;
}
