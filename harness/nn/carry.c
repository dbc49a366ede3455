/* carry.c - what a graph takes along from one forward to the next: the states of its variants, and the last tokens of a layer's
 * input.
 *
 * Invariants:
 *  1. A forward reads `in` and writes `out`; the next one begins by making `in` of it.  So backward still finds what its
 *     forward read, and what is made again in backward is made of the same.
 *  2. What is carried has no gradient: that ends where a segment begins. */
#include "ops.h"
#include <stdio.h>
#include <stdlib.h>

struct carried { void *in, *out; size_t bytes; };

void nn_graph_carry(nn_graph *g)
{
    if (!nn_ready(g, "carry", NULL, 0))
        return;
    if (g->nnodes || g->decoding.capacity)
        nn_fail(g, ATTN_EINVAL, "carry: said of an empty graph that does not decode");
    g->carries = 1;
}

int nn_carry_take(nn_graph *g, size_t bytes, void **in, void **out, char *why, size_t nwhy)
{
    if (g->plan)
        return nn_take(g, K_TAG_STATE, 2 * bytes, out);
    struct carried *more = realloc(g->carried, (size_t)(g->ncarried + 1) * sizeof *more);
    if (!more)
        return snprintf(why, nwhy, "out of host memory"), NN_ENOMEM;
    g->carried = more;
    struct carried *c = &more[g->ncarried++];
    *c = (struct carried){ .bytes = bytes };
    if (k_alloc(g->dev, K_TAG_STATE, bytes, &c->in) || k_alloc(g->dev, K_TAG_STATE, bytes, &c->out)) {
        snprintf(why, nwhy, "what is carried on: %s", k_error(g->dev));
        return NN_ENOMEM;
    }
    k_zero(g->dev, c->out, bytes);
    *in = c->in;
    *out = c->out;
    return 0;
}

void nn_carry_begin(nn_graph *g)
{
    for (int i = 0; i < g->ncarried; i++)
        k_copy(g->dev, g->carried[i].in, g->carried[i].out, g->carried[i].bytes);
}

void nn_carry_release(nn_graph *g)
{
    for (int i = 0; i < g->ncarried; i++) {
        k_free(g->dev, g->carried[i].in);
        k_free(g->dev, g->carried[i].out);
    }
    free(g->carried);
}

void nn_carry_reset(nn_graph *g)
{
    for (int i = 0; i < g->ncarried; i++)
        k_zero(g->dev, g->carried[i].out, g->carried[i].bytes);
}

size_t nn_carry_bytes(const nn_graph *g)
{
    size_t bytes = 0;
    for (int i = 0; i < g->ncarried; i++)
        bytes += g->carried[i].bytes;
    return bytes;
}

void nn_carry_save(nn_graph *g, void *host)
{
    char *to = host;
    for (int i = 0; i < g->ncarried; to += g->carried[i++].bytes)
        k_download(g->dev, to, g->carried[i].out, g->carried[i].bytes);
}

void nn_carry_load(nn_graph *g, const void *host)
{
    const char *from = host;
    for (int i = 0; i < g->ncarried; from += g->carried[i++].bytes)
        k_upload(g->dev, g->carried[i].out, from, g->carried[i].bytes);
}

/* ---- the last tokens of a layer's input ------------------------------------------------------------------------------------
 *
 * The node's room holds x behind the memory, [B*M + B*T, d], and three lists of rows: out's in the room, the next memory's in
 * out, x's in out.  rows: B; depth: M; chunk: T. */

typedef struct remembered { char *both; int32_t *out, *next, *own; } remembered;

static remembered parts(const nn_graph *g, const node *n)
{
    int64_t BM = n->rows * n->depth, BT = n->rows * n->chunk;
    char *both = n->room;
    int32_t *out = (int32_t *)(both + (size_t)((BM + BT) * n->width) * k_dtype_size(type(g, n)));
    return (remembered){ both, out, out + BM + BT, out + BM + BT + BM };
}

static int remember_forward(nn_graph *g, node *n)
{
    remembered r = parts(g, n);
    k_dtype t = type(g, n);
    int64_t BM = n->rows * n->depth, BT = n->rows * n->chunk;
    size_t row = (size_t)n->width * k_dtype_size(t);
    const struct carried *c = &g->carried[n->carried];
    k_copy(g->dev, r.both, c->in, (size_t)BM * row);
    k_copy(g->dev, r.both + (size_t)BM * row, data(g, n->in[0]), (size_t)BT * row);
    k_gather_rows(g->dev, t, BM + BT, n->width, data(g, n->out), r.both, r.out, 0);
    k_gather_rows(g->dev, t, BM, n->width, c->out, data(g, n->out), r.next, 0);
    return 0;
}

static int remember_backward(nn_graph *g, node *n)
{
    int add = 0;
    void *dx = nn_into(g, n, 0, &add);
    if (dx)
        k_gather_rows(g->dev, type(g, n), n->rows * n->chunk, n->width, dx, out_grad(g, n), parts(g, n).own, add);
    return 0;
}

/* The lists of rows, on the host and then on the device. */
static int remember_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    int64_t B = n->rows, M = n->depth, T = n->chunk, BM = B * M, BT = B * T, all = 2 * (BM + BT);
    size_t row = (size_t)n->width * k_dtype_size(type(g, n));
    int32_t *list = malloc((size_t)all * sizeof *list), *p = list;
    void *in, *out;
    if (!list)
        return snprintf(why, nwhy, "out of host memory"), NN_ENOMEM;
    for (int64_t i = 0; i < BM + BT; i++)
        *p++ = (int32_t)(i % (M + T) < M ? i / (M + T) * M + i % (M + T) : BM + i / (M + T) * T + i % (M + T) - M);
    for (int64_t i = 0; i < BM; i++)
        *p++ = (int32_t)(i / M * (M + T) + T + i % M);
    for (int64_t i = 0; i < BT; i++)
        *p++ = (int32_t)(i / T * (M + T) + M + i % T);
    n->carried = g->ncarried;
    int rc = nn_take_room(g, n, (size_t)(BM + BT) * row + (size_t)all * sizeof *list, why, nwhy);
    if (!rc)
        rc = nn_carry_take(g, (size_t)BM * row, &in, &out, why, nwhy);
    if (!rc && !g->plan)
        k_upload(g->dev, parts(g, n).out, list, (size_t)all * sizeof *list);
    free(list);
    return rc;
}

static const op remember_op = { .name = "remember", .forward = remember_forward, .backward = remember_backward, .compile = remember_compile };

nn_id nn_remember(nn_graph *g, nn_id x, int64_t tokens)
{
    if (!nn_ready(g, "remember", &x, 1))
        return NN_BAD;
    attn_dims d = nn_dims(g, x);
    if (!is_activation(g, x, 3) || tokens < 1 || d.d[0] * (tokens + d.d[1]) > INT32_MAX || g->decoding.capacity)
        return nn_fail(g, ATTN_EINVAL, "remember: at least one token behind x [B,T,d], in a graph that does not decode");
    node *n = nn_new_node(g, &remember_op, &x, 1, g->params->dtype, (attn_dims){ 3, { d.d[0], tokens + d.d[1], d.d[2] } });
    if (!n)
        return NN_BAD;
    n->rows = d.d[0];
    n->depth = tokens;
    n->chunk = d.d[1];
    n->width = d.d[2];
    return n->out;
}
