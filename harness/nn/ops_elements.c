/* ops_elements.c - nodes that work element by element. */
#include "ops.h"
#include <math.h>
#include <stdio.h>

/* ---- add and mul: two tensors of one shape ------------------------------------------------------------------------------ */

void nn_pass_gradient(const nn_graph *g, const node *n, int i)
{
    int add = 0;
    void *dx = nn_into(g, n, i, &add);
    int64_t elements = g->tensors[n->out].n;
    if (dx && add)
        k_axpy(g->dev, type(g, n), elements, 1, out_grad(g, n), dx);
    else if (dx && dx != out_grad(g, n))    /* memory.c may have made them one */
        k_copy(g->dev, dx, out_grad(g, n), (size_t)elements * k_dtype_size(type(g, n)));
}

static int add_forward(nn_graph *g, node *n)
{
    k_add(g->dev, type(g, n), n->rows, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int add_backward(nn_graph *g, node *n)
{
    nn_pass_gradient(g, n, 0);
    nn_pass_gradient(g, n, 1);
    return 0;
}

static int mul_forward(nn_graph *g, node *n)
{
    k_mul(g->dev, type(g, n), n->rows, 0, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int mul_backward(nn_graph *g, node *n)
{
    for (int i = 0; i < 2; i++) {
        int add = 0;
        void *dx = nn_into(g, n, i, &add);
        if (dx)
            k_mul(g->dev, type(g, n), n->rows, add, dx, out_grad(g, n), data(g, n->in[1 - i]));
    }
    return 0;
}

static const op add_op = { .name = "add", .passes = 2, .forward = add_forward, .backward = add_backward };
static const op mul_op = { .name = "mul", .reads = NN_READS_IN, .forward = mul_forward, .backward = mul_backward };

/* Either of them. */
static nn_id pair(nn_graph *g, const op *kind, nn_id x, nn_id y)
{
    nn_id in[] = { x, y };
    if (!nn_ready(g, kind->name, in, 2))
        return NN_BAD;
    if (!is_activation(g, x, 0) || !is_activation(g, y, 0) || !same_dims(nn_dims(g, x), nn_dims(g, y)))
        return nn_unfit(g, kind->name, x, y, "two tensors of one shape, in bf16 no parameters");
    node *n = nn_new_node(g, kind, in, 2, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    n->rows = g->tensors[n->out].n;
    return n->out;
}

nn_id nn_add(nn_graph *g, nn_id x, nn_id y) { return pair(g, &add_op, x, y); }
nn_id nn_mul(nn_graph *g, nn_id x, nn_id y) { return pair(g, &mul_op, x, y); }

/* ---- reversible add: x + h in the place of x, one tensor before and after ------------------------------------------------ */

/* out is in[0]. */
static int reversible_forward(nn_graph *g, node *n)
{
    k_add(g->dev, type(g, n), n->rows, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

/* x is again what those saw that stand before this node; the gradient of x is that of x + h already. */
static int reversible_backward(nn_graph *g, node *n)
{
    k_axpy(g->dev, type(g, n), n->rows, -1, data(g, n->in[1]), data(g, n->out));
    nn_pass_gradient(g, n, 1);
    return 0;
}

/* Without its backward those that stand before it would look at the wrong x. */
static int reversible_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    if (!g->training || g->loss == NN_NONE || n->live)
        return 0;
    snprintf(why, nwhy, "reversible_add: the loss does not depend on it");
    return ATTN_EINVAL;
}

static const op reversible_op = { .name = "reversible_add", .reads = NN_READS_IN, .forward = reversible_forward, .backward = reversible_backward,
                                  .compile = reversible_compile };

nn_id nn_reversible_add(nn_graph *g, nn_id x, nn_id h)
{
    nn_id in[] = { x, h };
    if (!nn_ready(g, "reversible_add", in, 2))
        return NN_BAD;
    if (!is_activation(g, x, 0) || !is_activation(g, h, 0) || !same_dims(nn_dims(g, x), nn_dims(g, h)) || !is_made(g, x) ||
        g->tensors[x].root == g->tensors[h].root)
        return nn_unfit(g, "reversible_add", x, h, "two tensors of one shape, the first made by a node");
    node *n = nn_new_node(g, &reversible_op, in, 2, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    nn_id id = n->out, root = n->in[0];
    for (nn_id i = 0; i < id; i++)
        g->tensors[i].spent |= g->tensors[i].root == root;
    g->tensors[id].root = n->out = root;
    g->tensors[root].learns |= g->tensors[id].learns;
    g->tensors[root].kept = 1;
    n->rows = g->tensors[root].n;
    return id;
}

/* ---- scale: y = number x -------------------------------------------------------------------------------------------------- */

static int scale_forward(nn_graph *g, node *n)
{
    k_scale(g->dev, type(g, n), n->rows, n->number, data(g, n->out), data(g, n->in[0]));
    return 0;
}

static int scale_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add);
    if (dx && add)
        k_axpy(g->dev, type(g, n), n->rows, n->number, out_grad(g, n), dx);
    else if (dx)
        k_scale(g->dev, type(g, n), n->rows, n->number, dx, out_grad(g, n));
    return 0;
}

static const op scale_op = { .name = "scale", .forward = scale_forward, .backward = scale_backward };

/* ---- dropout: the mask is drawn again in backward, from the same count of forwards --------------------------------------- */

/* y (+)= x with the elements dropped that this forward drops. */
static void drop(const nn_graph *g, const node *n, int add, void *y, const void *x)
{
    k_dropout(g->dev, type(g, n), n->rows, n->number, g->params->seed, n->stream, g->params->forwards, add, y, x);
}

static int dropout_forward(nn_graph *g, node *n)
{
    drop(g, n, 0, data(g, n->out), data(g, n->in[0]));
    return 0;
}

static int dropout_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add);
    if (dx)
        drop(g, n, add, dx, out_grad(g, n));
    return 0;
}

static const op dropout_op = { .name = "dropout", .forward = dropout_forward, .backward = dropout_backward };

/* A node of one input and one number. */
static nn_id with_number(nn_graph *g, const op *kind, nn_id x, double number)
{
    node *n = nn_new_node(g, kind, &x, 1, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    n->rows = g->tensors[n->out].n;
    n->number = number;
    return n->out;
}

nn_id nn_scale(nn_graph *g, nn_id x, double a)
{
    if (!nn_ready(g, "scale", &x, 1))
        return NN_BAD;
    if (!is_activation(g, x, 0) || !isfinite(a))
        return nn_unfit(g, "scale", x, NN_NONE, "one tensor, in bf16 no parameter, and a finite number");
    return with_number(g, &scale_op, x, a);
}

nn_id nn_dropout(nn_graph *g, nn_id x, double p)
{
    char name[32];
    if (!nn_ready(g, "dropout", &x, 1))
        return NN_BAD;
    if (!is_activation(g, x, 0) || !(p >= 0 && p < 1))
        return nn_unfit(g, "dropout", x, NN_NONE, "one tensor, in bf16 no parameter, and a probability below 1");
    if (!g->training || p == 0)
        return x;
    nn_id id = with_number(g, &dropout_op, x, p);
    if (id != NN_BAD) {
        snprintf(name, sizeof name, "dropout %d", g->dropouts++);   /* the blank keeps it apart from every parameter's stream */
        g->nodes[g->nnodes - 1].stream = nn_fnv1a(name);
    }
    return id;
}

/* ---- unary -------------------------------------------------------------------------------------------------------------- */

static int unary_forward(nn_graph *g, node *n)
{
    k_unary_forward(g->dev, type(g, n), n->unary, n->rows, data(g, n->out), data(g, n->in[0]));
    return 0;
}

static int unary_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add);
    if (dx)
        k_unary_backward(g->dev, type(g, n), n->unary, n->rows, add, dx, out_grad(g, n), data(g, n->in[0]), data(g, n->out));
    return 0;
}

static const op unary_op = { .name = "unary", .forward = unary_forward, .backward = unary_backward };

nn_id nn_unary(nn_graph *g, k_unary unary, nn_id x)
{
    if (!nn_ready(g, "unary", &x, 1))
        return NN_BAD;
    if (!is_activation(g, x, 0) || (int)unary < 0 || unary >= K_UNARIES)
        return nn_unfit(g, "unary", x, NN_NONE, "one tensor, in bf16 no parameter, and a function of k_unary");
    node *n = nn_new_node(g, &unary_op, &x, 1, g->params->dtype, nn_dims(g, x));
    if (!n)
        return NN_BAD;
    n->rows = g->tensors[n->out].n;
    n->unary = unary;
    n->reads = unary == K_SILU || unary == K_GELU || unary == K_SOFTPLUS ? NN_READS_IN : NN_READS_OUT;
    return n->out;
}
