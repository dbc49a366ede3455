/* ops.c - the kinds of nodes: a forward, a backward and a builder each.
 *
 * In backward, into(g, n, i) gives the gradient buffer of input i, NULL when nobody wants it, and says whether to
 * add to what is there.  Kernels that only add get the buffer zeroed first when they are its first writer (zeroed()). */
#include "internal.h"
#include "mixer_choose.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- shared by all ------------------------------------------------------------------------------------------------ */

static void *data(const nn_graph *g, nn_id id) { return id < 0 ? NULL : g->tensors[id].data; }
static void *out_grad(const nn_graph *g, const node *n) { return g->tensors[n->out].grad; }
static k_dtype type(const nn_graph *g, const node *n) { return g->tensors[n->out].dtype; }

/* The gradient of input i, or NULL; *add: others wrote it before in this sweep (or, a parameter's, since zero_grad). */
static void *into(const nn_graph *g, const node *n, int i, int *add)
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

/* The same for kernels that can only add. */
static void *zeroed(const nn_graph *g, const node *n, int i)
{
    int add = 1;
    void *grad = into(g, n, i, &add);
    if (!grad || add)
        return grad;
    const tensor *t = &g->tensors[n->in[i]];
    k_zero(g->dev, grad, (size_t)t->n * k_dtype_size(nn_is_narrow(g, n->in[i]) ? t->dtype : g->params->wide));
    return grad;
}

/* The product that makes the gradient of input i. */
static __typeof__(&k_gemm) product_for(const nn_graph *g, const node *n, int i)
{
    return nn_is_narrow(g, n->in[i]) ? k_gemm : k_gemm_wide;
}

/* Whether id is a tensor of the parameters' dtype with n dimensions (0: any). */
static int is_real(const nn_graph *g, nn_id id, int n)
{
    return id >= 0 && g->tensors[id].dtype == g->params->dtype && (n == 0 || g->tensors[id].dims.n == n);
}

static int is_index(const nn_graph *g, nn_id id) { return id >= 0 && g->tensors[id].dtype == K_I32; }
static int64_t last(attn_dims d) { return d.d[d.n - 1]; }

/* Records that a builder cannot take these inputs. */
static nn_id unfit(nn_graph *g, const char *what, nn_id a, nn_id b, const char *want)
{
    char x[100], y[100];
    return nn_fail(g, ATTN_EINVAL, "%s: inputs %s and %s, wanted %s", what, nn_dims_text(nn_dims(g, a), x, sizeof x),
                   nn_dims_text(nn_dims(g, b), y, sizeof y), want);
}

/* ---- linear: y [rows,width] = x [rows,depth] w [width,depth]^T + b [width] ------------------------------------------ */

static int linear_forward(nn_graph *g, node *n)
{
    void *y = data(g, n->out);
    k_gemm(g->dev, type(g, n), 0, 1, n->rows, n->width, n->depth, 1, data(g, n->in[0]), n->depth, data(g, n->in[1]), n->depth, 0, y,
           n->width);
    if (n->in[2] != NN_NONE)
        k_add_bias(g->dev, type(g, n), n->rows, n->width, y, data(g, n->in[2]));
    return 0;
}

static int linear_backward(nn_graph *g, node *n)
{
    const void *dy = out_grad(g, n);
    int add = 0;
    void *dw = into(g, n, 1, &add), *dx, *db;
    if (dw)     /* dw [width,depth] = dy^T x */
        product_for(g, n, 1)(g->dev, type(g, n), 1, 0, n->width, n->depth, n->rows, 1, dy, n->width, data(g, n->in[0]), n->depth, add, dw, n->depth);
    if ((dx = into(g, n, 0, &add)))     /* dx [rows,depth] = dy w */
        product_for(g, n, 0)(g->dev, type(g, n), 0, 0, n->rows, n->depth, n->width, 1, dy, n->width, data(g, n->in[1]), n->depth, add, dx, n->depth);
    if ((db = zeroed(g, n, 2)))
        k_sum_rows(g->dev, type(g, n), n->rows, n->width, dy, db);
    return 0;
}

static const op linear_op = { "linear", linear_forward, linear_backward };

nn_id nn_linear(nn_graph *g, nn_id x, nn_id w, nn_id b)
{
    nn_id in[] = { x, w, b };
    if (!nn_ready(g, "linear", in, 3))
        return NN_BAD;
    if (!is_real(g, x, 0) || !is_real(g, w, 2) || last(nn_dims(g, x)) != last(nn_dims(g, w)))
        return unfit(g, "linear", x, w, "[..,in] and [out,in]");
    attn_dims dims = nn_dims(g, x), weight = nn_dims(g, w);
    if (b != NN_NONE && (!is_real(g, b, 1) || nn_dims(g, b).d[0] != weight.d[0] || (g->params->dtype == K_BF16 && nn_is_narrow(g, b))))
        return unfit(g, "linear", w, b, "[out,in] and a bias [out], in bf16 a parameter");
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
    void *da = into(g, n, 0, &add), *db;
    if (da)     /* da [rows,depth] = dc b^T */
        product_for(g, n, 0)(g->dev, type(g, n), 0, 1, n->rows, n->depth, n->width, 1, dc, n->width, data(g, n->in[1]), n->width, add, da, n->depth);
    if ((db = into(g, n, 1, &add)))     /* db [depth,width] = a^T dc */
        product_for(g, n, 1)(g->dev, type(g, n), 1, 0, n->depth, n->width, n->rows, 1, data(g, n->in[0]), n->depth, dc, n->width, add, db, n->width);
    return 0;
}

static const op matmul_op = { "matmul", matmul_forward, matmul_backward };

nn_id nn_matmul(nn_graph *g, nn_id a, nn_id b)
{
    nn_id in[] = { a, b };
    if (!nn_ready(g, "matmul", in, 2))
        return NN_BAD;
    if (!is_real(g, a, 2) || !is_real(g, b, 2) || nn_dims(g, a).d[1] != nn_dims(g, b).d[0])
        return unfit(g, "matmul", a, b, "[m,k] and [k,n]");
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

/* ---- gather: rows of one table, or the sum of rows of two ------------------------------------------------------------ */

/* in: table, indices [, table, indices]. */
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
    void *dtable = into(g, n, i, &add);
    if (!dtable)
        return;
    if (add)
        k_convert(g->dev, table->n, n->sum, K_F32, dtable, K_BF16);
    else
        k_zero(g->dev, n->sum, (size_t)table->n * sizeof *n->sum);
    k_scatter_add_rows(g->dev, K_BF16, n->rows, n->width, table->dims.d[0], n->sum, out_grad(g, n), data(g, n->in[i + 1]));
    k_convert(g->dev, table->n, dtable, K_BF16, n->sum, K_F32);
}

static int gather_backward(nn_graph *g, node *n)
{
    for (int i = 0; i < n->n_in; i += 2) {
        if (type(g, n) == K_BF16 && nn_is_narrow(g, n->in[i])) {
            gather_backward_narrow(g, n, i);
            continue;
        }
        void *dtable = zeroed(g, n, i);
        if (dtable)
            k_scatter_add_rows(g->dev, type(g, n), n->rows, n->width, g->tensors[n->in[i]].dims.d[0], dtable, out_grad(g, n),
                               data(g, n->in[i + 1]));
    }
    return 0;
}

static const op gather_op = { "gather", gather_forward, gather_backward };

int nn_compile_sums(nn_graph *g, node *n, char *why, size_t nwhy)
{
    int64_t largest = 0;
    for (int i = 0; n->op == &gather_op && n->live && g->params->dtype == K_BF16 && i < n->n_in; i += 2)
        if (nn_is_narrow(g, n->in[i]) && g->tensors[n->in[i]].n > largest)
            largest = g->tensors[n->in[i]].n;
    if (largest == 0 || k_alloc(g->dev, K_TAG_WORKSPACE, (size_t)largest * sizeof *n->sum, (void **)&n->sum) == 0)
        return 0;
    snprintf(why, nwhy, "gather: %s", k_error(g->dev));
    return NN_ENOMEM;
}

/* in: one or two pairs of table [rows,d] and indices [n..], the indices of one shape. */
static nn_id gather(nn_graph *g, const nn_id *in, int n_in)
{
    if (!nn_ready(g, "gather", in, n_in))
        return NN_BAD;
    for (int i = 0; i < n_in; i += 2)
        if (!is_real(g, in[i], 2) || !is_index(g, in[i + 1]) || nn_dims(g, in[i]).d[1] != nn_dims(g, in[0]).d[1] ||
            g->tensors[in[i + 1]].n != g->tensors[in[1]].n || nn_dims(g, in[i + 1]).n == ATTN_MAX_DIMS)
            return unfit(g, "gather", in[i], in[i + 1], "a table [rows,d] and i32 indices of at most 3 dimensions");
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

/* ---- add -------------------------------------------------------------------------------------------------------------- */

static int add_forward(nn_graph *g, node *n)
{
    k_add(g->dev, type(g, n), n->rows, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int add_backward(nn_graph *g, node *n)
{
    for (int i = 0; i < 2; i++) {
        int add = 0;
        void *dx = into(g, n, i, &add);
        if (dx && add)
            k_axpy(g->dev, type(g, n), n->rows, 1, out_grad(g, n), dx);
        else if (dx)
            k_copy(g->dev, dx, out_grad(g, n), (size_t)n->rows * k_dtype_size(type(g, n)));
    }
    return 0;
}

static const op add_op = { "add", add_forward, add_backward };

nn_id nn_add(nn_graph *g, nn_id x, nn_id y)
{
    nn_id in[] = { x, y };
    if (!nn_ready(g, "add", in, 2))
        return NN_BAD;
    attn_dims a = nn_dims(g, x), b = nn_dims(g, y);
    if (!is_real(g, x, 0) || !is_real(g, y, 0) || !nn_is_narrow(g, x) || !nn_is_narrow(g, y) || a.n != b.n || memcmp(a.d, b.d, (size_t)a.n * sizeof *a.d))
        return unfit(g, "add", x, y, "two tensors of one shape, in bf16 no parameters");
    node *n = nn_new_node(g, &add_op, in, 2, g->params->dtype, a);
    if (!n)
        return NN_BAD;
    n->rows = nn_elements(a);
    return n->out;
}

/* ---- unary -------------------------------------------------------------------------------------------------------------- */

static int unary_forward(nn_graph *g, node *n)
{
    k_unary_forward(g->dev, type(g, n), n->unary, n->rows, data(g, n->out), data(g, n->in[0]));
    return 0;
}

static int unary_backward(nn_graph *g, node *n)
{
    void *dx = zeroed(g, n, 0);
    if (dx)
        k_unary_backward(g->dev, type(g, n), n->unary, n->rows, dx, out_grad(g, n), data(g, n->in[0]), data(g, n->out));
    return 0;
}

static const op unary_op = { "unary", unary_forward, unary_backward };

nn_id nn_unary(nn_graph *g, k_unary unary, nn_id x)
{
    if (!nn_ready(g, "unary", &x, 1))
        return NN_BAD;
    if (!is_real(g, x, 0) || !nn_is_narrow(g, x) || (int)unary < 0 || unary >= K_UNARIES)
        return unfit(g, "unary", x, NN_NONE, "one tensor, in bf16 no parameter, and a function of k_unary");
    node *n = nn_new_node(g, &unary_op, &x, 1, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    n->rows = g->tensors[n->out].n;
    n->unary = unary;
    return n->out;
}

/* ---- losses: in y [rows,width] and targets [rows], out one number per row, float when y is bf16 ----------------------- */

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
    void *dy = zeroed(g, n, 0);
    if (dy)
        k_half_sq_backward(g->dev, scored(g, n), n->rows, n->width, n->weight, dy, data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int entropy_forward(nn_graph *g, node *n)
{
    k_mean_weight(g->dev, n->rows, data(g, n->in[1]), n->weight);
    k_xent_forward(g->dev, scored(g, n), n->rows, n->width, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int entropy_backward(nn_graph *g, node *n)
{
    void *dy = zeroed(g, n, 0);
    if (dy)
        k_xent_backward(g->dev, scored(g, n), n->rows, n->width, n->weight, dy, data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static const op half_square_op = { "half_squared_error", half_square_forward, half_square_backward };
static const op entropy_op = { "cross_entropy", entropy_forward, entropy_backward };

int nn_op_is_loss(const op *kind) { return kind == &half_square_op || kind == &entropy_op; }

/* Either loss. */
static nn_id loss(nn_graph *g, const op *kind, nn_id y, nn_id target)
{
    nn_id in[] = { y, target };
    if (!nn_ready(g, kind->name, in, 2))
        return NN_BAD;
    if (!is_real(g, y, 2) || !nn_is_narrow(g, y) || !is_index(g, target) || g->tensors[target].n != nn_dims(g, y).d[0])
        return unfit(g, kind->name, y, target, "[rows,d], in bf16 no parameter, and i32 [rows]");
    attn_dims of = nn_dims(g, y);
    node *n = nn_new_node(g, kind, in, 2, g->params->wide, (attn_dims){ 1, { of.d[0] } });
    if (!n)
        return NN_BAD;
    n->rows = of.d[0];
    n->width = of.d[1];
    return n->out;
}

nn_id nn_half_squared_error(nn_graph *g, nn_id y, nn_id target) { return loss(g, &half_square_op, y, target); }
nn_id nn_cross_entropy(nn_graph *g, nn_id y, nn_id target) { return loss(g, &entropy_op, y, target); }
