/* ops_pool.c - the node that makes one row of a sequence: the mean over its tokens. */
#include "ops.h"

/* in: x [depth,rows,width], lengths [depth] or none. */
static int pool_forward(nn_graph *g, node *n)
{
    k_pool_forward(g->dev, type(g, n), n->depth, n->rows, n->width, data(g, n->out), data(g, n->in[0]), data(g, n->in[1]));
    return 0;
}

static int pool_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add);
    if (dx)
        k_pool_backward(g->dev, type(g, n), n->depth, n->rows, n->width, add, dx, out_grad(g, n), data(g, n->in[1]));
    return 0;
}

static const op pool_op = { .name = "pool", .forward = pool_forward, .backward = pool_backward };

nn_id nn_pool(nn_graph *g, nn_id x, nn_id len)
{
    nn_id in[] = { x, len };
    if (!nn_ready(g, "pool", in, 2))
        return NN_BAD;
    if (!is_activation(g, x, 3) || (len != NN_NONE && (!is_index(g, len) || g->tensors[len].n != nn_dims(g, x).d[0])))
        return nn_unfit(g, "pool", x, len, "[B,T,d], in bf16 no parameter, and i32 lengths [B]");
    attn_dims d = nn_dims(g, x);
    node *n = nn_new_node(g, &pool_op, in, 2, g->params->dtype, (attn_dims){ 2, { d.d[0], d.d[2] } });
    if (!n)
        return NN_BAD;
    n->depth = d.d[0];
    n->rows = d.d[1];
    n->width = d.d[2];
    return n->out;
}
