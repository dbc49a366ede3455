/* memory.c - the buffers of a graph: which tensors share one.
 *
 * Forward runs the nodes from the first to the last, backward from the last to the first.  A gradient lives from the first
 * node of the backward sweep that writes it, the last consumer of its tensor, to the node that made the tensor.  Data
 * lives from the node that makes it to its last consumer, or, when a backward pass reads it, for ever.  Tensors whose lives
 * do not overlap share a slot; slots are sized first and taken from the device afterwards.
 *
 * Inputs, constants, tensors that no node reads, and those that nn_keep names have data of their own. */
#include "internal.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct slot { size_t bytes; int busy; void *p; } slot;

struct nn_memory {
    slot *slot;
    int n;
    int *data, *grad, *last;            /* by tensor: slots, -1 = none; the last node that reads it, or -1 */
};

static size_t bytes_of(const tensor *t) { return (size_t)t->n * k_dtype_size(t->dtype); }

/* A free slot for so many bytes: the smallest that holds them, else the largest, which grows, else a new one. */
static int take_slot(nn_memory *m, size_t bytes)
{
    int best = -1;
    for (int i = 0; i < m->n; i++) {
        size_t have = m->slot[i].bytes, so_far = best < 0 ? 0 : m->slot[best].bytes;
        if (m->slot[i].busy)
            continue;
        if (best < 0 || (so_far < bytes ? have > so_far : have >= bytes && have < so_far))
            best = i;
    }
    if (best < 0)
        m->slot[best = m->n++] = (slot){ 0 };
    if (m->slot[best].bytes < bytes)
        m->slot[best].bytes = bytes;
    m->slot[best].busy = 1;
    return best;
}

/* Whether a backward pass reads the data of a root: the node `made` made it. */
static int read_in_backward(const nn_graph *g, nn_id id, const node *made)
{
    if (made->live && made->op->reads_out)
        return 1;
    for (int i = 0; i < g->nnodes; i++)
        for (int j = 0; g->nodes[i].live && !g->nodes[i].op->blind && j < g->nodes[i].n_in; j++)
            if (g->nodes[i].in[j] == id)
                return 1;
    return 0;
}

/* Whether the tensor that node n makes may share its data. */
static int may_share(const nn_graph *g, const nn_memory *m, const node *n)
{
    const tensor *t = &g->tensors[n->out];
    return m->last[n->out] >= 0 && !t->kept && !read_in_backward(g, n->out, n);
}

/* Slots for data, in the order of forward. */
static void plan_data(const nn_graph *g, nn_memory *m)
{
    for (int i = 0; i < g->nnodes; i++)
        for (int j = 0; j < g->nodes[i].n_in; j++)
            if (g->nodes[i].in[j] >= 0)
                m->last[g->nodes[i].in[j]] = i;
    for (int i = 0; i < g->nnodes; i++) {
        const node *n = &g->nodes[i];
        if (may_share(g, m, n))
            m->data[n->out] = take_slot(m, bytes_of(&g->tensors[n->out]));
        for (int j = 0; j < n->n_in; j++)
            if (n->in[j] >= 0 && m->data[n->in[j]] >= 0 && m->last[n->in[j]] == i)
                m->slot[m->data[n->in[j]]].busy = 0;
    }
}

/* Slots for gradients, in the order of backward; no data lives then that is in a slot. */
static void plan_gradients(const nn_graph *g, nn_memory *m)
{
    for (int i = g->nnodes - 1; i >= 0; i--) {
        const node *n = &g->nodes[i];
        for (int j = 0; n->live && j < n->n_in; j++) {
            nn_id in = n->in[j];
            if (in >= 0 && g->tensors[in].live && g->tensors[in].param < 0 && m->grad[in] < 0)
                m->grad[in] = take_slot(m, bytes_of(&g->tensors[in]));
        }
        if (n->live && m->grad[n->out] >= 0 && !g->tensors[n->out].kept)
            m->slot[m->grad[n->out]].busy = 0;
    }
}

/* One buffer of the device; a sentence when there is no room. */
static int take(nn_graph *g, k_tag tag, size_t bytes, attn_dims dims, void **out, char *why, size_t nwhy)
{
    char text[100];
    if (k_alloc(g->dev, tag, bytes, out) == 0)
        return 0;
    snprintf(why, nwhy, "a tensor %s: %s", nn_dims_text(dims, text, sizeof text), k_error(g->dev));
    return NN_ENOMEM;
}

/* Moves a constant's values to its data; the host's copy is done with. */
static int show_constant(nn_graph *g, tensor *t, char *why, size_t nwhy)
{
    void *wide = t->data;
    size_t bytes = (size_t)t->n * sizeof *t->constant;
    if (t->dtype != K_F32 && take(g, K_TAG_WORKSPACE, bytes, t->dims, &wide, why, nwhy))
        return NN_ENOMEM;
    k_upload(g->dev, wide, t->constant, bytes);
    if (wide != t->data) {
        k_convert(g->dev, t->n, t->data, t->dtype, wide, K_F32);
        k_free(g->dev, wide);
    }
    free(t->constant);
    t->constant = NULL;
    return 0;
}

/* Data and gradient of a root; a parameter's are the parameter's. */
static int take_tensor(nn_graph *g, nn_id id, char *why, size_t nwhy)
{
    nn_memory *m = g->memory;
    tensor *t = &g->tensors[id];
    int rc = 0;
    if (t->param >= 0) {
        t->data = nn_param_seen(g->params, t->param);
        t->grad = nn_param_grad(g->params, t->param);
        return 0;
    }
    t->grad = m->grad[id] < 0 ? NULL : m->slot[m->grad[id]].p;
    if (m->data[id] >= 0)
        t->data = m->slot[m->data[id]].p;
    else
        rc = take(g, t->input ? K_TAG_DATA : K_TAG_ACTIVATION, bytes_of(t), t->dims, &t->data, why, nwhy);
    if (!rc && t->input)
        k_zero(g->dev, t->data, bytes_of(t));
    return !rc && t->constant ? show_constant(g, t, why, nwhy) : rc;
}

int nn_take_tensors(nn_graph *g, char *why, size_t nwhy)
{
    nn_memory *m = g->memory = calloc(1, sizeof *m);
    int n = g->ntensors;
    int *lists = m ? malloc((size_t)n * 3 * sizeof *lists + 1) : NULL;
    if (!lists || !(m->slot = calloc((size_t)n * 2 + 1, sizeof *m->slot))) {
        free(lists);
        snprintf(why, nwhy, "out of host memory");
        return NN_ENOMEM;
    }
    m->data = lists, m->grad = lists + n, m->last = lists + 2 * n;
    for (int i = 0; i < 3 * n; i++)
        lists[i] = -1;
    plan_data(g, m);
    plan_gradients(g, m);
    int rc = 0;
    for (int i = 0; !rc && i < m->n; i++)
        rc = take(g, K_TAG_ACTIVATION, m->slot[i].bytes, (attn_dims){ 1, { (int64_t)m->slot[i].bytes } }, &m->slot[i].p, why, nwhy);
    for (nn_id i = 0; !rc && i < n; i++)
        if (g->tensors[i].root == i)
            rc = take_tensor(g, i, why, nwhy);
    return rc;
}

void nn_free_tensors(nn_graph *g)
{
    nn_memory *m = g->memory;
    for (nn_id i = 0; i < g->ntensors; i++) {
        tensor *t = &g->tensors[i];
        if (t->root == i && t->param < 0 && m && m->data && m->data[i] < 0)
            k_free(g->dev, t->data);
        free(t->constant);
    }
    for (int i = 0; m && i < m->n; i++)
        k_free(g->dev, m->slot[i].p);
    if (m) {
        free(m->slot);
        free(m->data);
    }
    free(m);
}
