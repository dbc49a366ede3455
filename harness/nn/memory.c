/* memory.c - the buffers of a graph: which tensors take turns in one block.
 *
 * Time is counted in nodes: N of them forward, then the same backwards.  A gradient is needed from its first writer to the
 * node that made its tensor; data that no backward looks at, from its node to the last that reads it; data inside a segment
 * of nn_recompute, so long in forward and once more while backward is in the segment.
 *
 * Inputs, constants, what backward looks at, what no other node reads and what nn_keep names have buffers of their own.
 *
 * Places are given by size, the largest first, each as far in front as those allow that have theirs and whose times it meets:
 * as good as exact for chains of layers, where one layer's pattern repeats. */
#include "internal.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct span { int from, to; } span;             /* nodes in time, both included; empty when to < from */
typedef struct item {                                   /* what takes a place */
    void **where;                                       /* the pointer to set */
    int64_t bytes, offset;
    span when[2];
} item;

typedef struct life {                                   /* of a root tensor, in numbers of nodes; -1: none */
    int made, last, readers;                            /* the node that makes it, the last that reads it, how many do */
    int leaves;                                         /* whether one of them is outside of the segment where it was made */
    int seen, again;                                    /* whether a backward looks at it; whether what is run again reads it */
    int written;                                        /* the node that writes its gradient first */
    nn_id sum;                                          /* whose gradient is also its own, NN_NONE: it has one of its own */
    int low, high;                                      /* of all tensors that share it so: the first node that makes one, the
                                                           last that adds to it, but for the sums that pass it on */
} life;

static size_t bytes_of(const tensor *t) { return (size_t)t->n * k_dtype_size(t->dtype); }
static span forwards(int from, int to) { return (span){ from, to }; }
static span backwards(const nn_graph *g, int from, int to) { return (span){ 2 * g->nnodes - 1 - from, 2 * g->nnodes - 1 - to }; }
static int meet(span a, span b) { return a.from <= a.to && b.from <= b.to && a.from <= b.to && b.from <= a.to; }

static int items_meet(const item *a, const item *b)
{
    return meet(a->when[0], b->when[0]) || meet(a->when[0], b->when[1]) || meet(a->when[1], b->when[0]) || meet(a->when[1], b->when[1]);
}

/* Notes when tensors are made and read, and by which backwards. */
static void watch(const nn_graph *g, life *lives)
{
    for (nn_id t = 0; t < g->ntensors; t++)
        lives[t] = (life){ .made = -1, .last = -1, .written = -1, .sum = NN_NONE, .high = -1 };
    for (int i = 0; i < g->nnodes; i++) {
        const node *n = &g->nodes[i];
        lives[n->out].made = lives[n->out].made < 0 ? i : lives[n->out].made;   /* again, where something is added in its place */
        lives[n->out].seen |= n->live && n->reads & NN_READS_OUT;
        for (int j = 0; j < n->n_in; j++) {
            if (n->in[j] == NN_NONE)
                continue;
            life *l = &lives[n->in[j]];
            l->last = i;
            l->readers++;
            l->leaves |= l->made >= 0 && n->segment != g->nodes[l->made].segment;
            l->seen |= n->live && n->reads & NN_READS_IN;
            if (n->live && g->tensors[n->in[j]].live)
                l->written = i;
        }
    }
}

/* Whether its data lie in a segment's share of the block. */
static int is_inner(const nn_graph *g, const life *l)
{
    return l->made >= 0 && g->nodes[l->made].segment && l->readers && !l->leaves && !g->tensors[g->nodes[l->made].out].kept;
}

/* Marks what backward makes again in segments: what it looks at, and what that is made of. */
static void mark_again(nn_graph *g, life *lives)
{
    for (int i = g->nnodes - 1; i >= 0; i--) {
        node *n = &g->nodes[i];
        life *l = &lives[n->out];
        n->again = is_inner(g, l) && (l->seen || l->again);
        for (int j = 0; n->again && j < n->n_in; j++)
            if (n->in[j] != NN_NONE)
                lives[n->in[j]].again = 1;
    }
}

/* The first and the last node of the segment that node i is in. */
static span segment_of(const nn_graph *g, int i)
{
    span s = { i, i };
    while (s.from > 0 && g->nodes[s.from - 1].segment == g->nodes[i].segment)
        s.from--;
    while (s.to + 1 < g->nnodes && g->nodes[s.to + 1].segment == g->nodes[i].segment)
        s.to++;
    return s;
}

/* ---- gradients that a sum passes on as they are: one buffer serves the sum and its terms ------------------------------------ */

/* Whether the gradient of t is one of the block's. */
static int turns(const nn_graph *g, const life *lives, nn_id t)
{
    return t != NN_NONE && lives[t].made >= 0 && lives[t].written >= 0 && !g->tensors[t].kept;
}

/* Whether node i, which is the first to write the gradient of term j, may leave it in the place of its own; the others that
 * write there are looked up: the last of them is noted. */
static int may_pass(const nn_graph *g, life *lives, int i, int j)
{
    const node *n = &g->nodes[i];
    nn_id t = n->in[j];
    if (!n->live || n->add[j] || !turns(g, lives, t) || !turns(g, lives, n->out) || (n->op->passes > 1 && n->in[0] == n->in[1]))
        return 0;
    for (int k = lives[t].made; k < i; k++)
        for (int m = 0; g->nodes[k].live && m < g->nodes[k].n_in; m++)
            if (g->nodes[k].in[m] == t && k > lives[t].high)
                lives[t].high = k;
    return 1;
}

/* Joins terms to their sums.  Those who add to one term later on must find the other's maker done with it. */
static void join(const nn_graph *g, life *lives)
{
    for (nn_id t = 0; t < g->ntensors; t++)
        lives[t].low = lives[t].made;
    for (int i = 0; i < g->nnodes; i++) {
        const node *n = &g->nodes[i];
        int joins[2] = { n->op->passes > 0 && may_pass(g, lives, i, 0), n->op->passes > 1 && may_pass(g, lives, i, 1) };
        const life *a = &lives[n->in[0]], *b = joins[1] ? &lives[n->in[1]] : NULL;
        if (joins[0] && joins[1] && (a->high >= b->low || b->high >= a->low))
            joins[0] = 0;
        for (int j = 0; j < 2; j++)
            if (joins[j]) {
                life *term = &lives[n->in[j]], *sum = &lives[n->out];
                term->sum = n->out;
                sum->low = term->low < sum->low ? term->low : sum->low;
                sum->high = term->high > sum->high ? term->high : sum->high;
            }
    }
}

/* The times of a tensor's data and gradient, as items; how many there are. */
static int items_of(nn_graph *g, nn_id t, const life *l, item *out)
{
    static const span never = { 0, -1 };
    tensor *x = &g->tensors[t];
    int64_t bytes = (int64_t)bytes_of(x);
    int n = 0;
    if (l->made < 0 || x->kept)
        return 0;
    if (is_inner(g, l)) {
        span s = segment_of(g, l->made);
        out[n++] = (item){ &x->data, bytes, 0, { forwards(l->made, l->last), g->nodes[l->made].again ? backwards(g, s.to, s.from) : never } };
    } else if (l->readers && !l->seen && !l->again) {
        out[n++] = (item){ &x->data, bytes, 0, { forwards(l->made, l->last), never } };
    }
    if (l->written >= 0 && l->sum == NN_NONE)
        out[n++] = (item){ &x->grad, bytes, 0, { backwards(g, l->written, l->low), never } };
    return n;
}

static int by_size(const void *a, const void *b)
{
    const item *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : (x->when[0].from > y->when[0].from) - (x->when[0].from < y->when[0].from);
}

/* Gives item i its offset; placed: those before it that it meets, by offset.  Where it ends. */
static int64_t place(item *items, int i, int *placed)
{
    int n = 0;
    for (int k = 0; k < i; k++) {
        if (!items_meet(&items[k], &items[i]))
            continue;
        int at = n++;
        for (; at > 0 && items[placed[at - 1]].offset > items[k].offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = k;
    }
    int64_t offset = 0;
    for (int k = 0; k < n && items[placed[k]].offset < offset + items[i].bytes; k++) {
        int64_t end = items[placed[k]].offset + items[placed[k]].bytes;
        offset = end > offset ? end : offset;
    }
    items[i].offset = offset;
    return offset + items[i].bytes;
}

/* Takes the block for n items and points all of them into it; of a plan it has no place yet. */
static int take_pool(nn_graph *g, item *items, int n, int *placed, char *why, size_t nwhy)
{
    int64_t size = 0;
    for (int i = 0; i < n; i++)
        items[i].bytes = (items[i].bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    qsort(items, (size_t)n, sizeof *items, by_size);
    for (int i = 0; i < n; i++) {
        int64_t end = place(items, i, placed);
        size = end > size ? end : size;
    }
    g->pool_bytes = size;
    if (size && nn_take(g, K_TAG_ACTIVATION, (size_t)size, &g->pool)) {
        snprintf(why, nwhy, "%d tensors in turns: %s", n, k_error(g->dev));
        return NN_ENOMEM;
    }
    for (int i = 0; i < n; i++)
        *items[i].where = g->plan ? (void *)g : (char *)g->pool + items[i].offset;
    return 0;
}

/* ---- how much is in use when ------------------------------------------------------------------------------------------ */

/* Bytes more at the beginning of a span and fewer behind its end; change has a number for every moment and one behind them. */
static void use(int64_t *change, span s, int64_t bytes)
{
    if (s.from > s.to)
        return;
    change[s.from] += bytes;
    change[s.to + 1] -= bytes;
}

/* When the data of a tensor that has a buffer of its own are in use: from its node to the end of its backward. */
static span own_time(const nn_graph *g, const tensor *t, const life *l)
{
    int last = 2 * g->nnodes - 1;
    return t->kept || l->made < 0 ? (span){ 0, last } : (span){ l->made, t->live || l->seen || l->again ? last - l->made : l->last };
}

/* The most that is in use at a time in forward and in backward, for the plan: tensors in turns and others. */
static int note_use(nn_graph *g, const life *lives, const item *items, int n)
{
    int64_t *change = calloc(2 * (size_t)g->nnodes + 2, sizeof *change), now = 0, most[2] = { 0 };
    if (!change)
        return 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++)
            use(change, items[i].when[k], items[i].bytes);
    for (nn_id t = 0; t < g->ntensors; t++) {
        const tensor *x = &g->tensors[t];
        if (x->root != t || x->param >= 0 || x->input)
            continue;
        if (!x->data)
            use(change, own_time(g, x, &lives[t]), (int64_t)bytes_of(x));
        if (x->live && !x->grad && lives[t].sum == NN_NONE)
            use(change, backwards(g, lives[t].written < 0 ? g->nnodes - 1 : lives[t].written, lives[t].made < 0 ? 0 : lives[t].made), (int64_t)bytes_of(x));
    }
    for (int i = 0; i < 2 * g->nnodes; i++) {
        now += change[i];
        most[i >= g->nnodes] = now > most[i >= g->nnodes] ? now : most[i >= g->nnodes];
    }
    g->plan->forward = (size_t)most[0];
    g->plan->backward = (size_t)most[1];
    free(change);
    return 1;
}

/* Points all tensors that take turns to their places. */
static int share(nn_graph *g, char *why, size_t nwhy)
{
    int n = 0, rc = NN_ENOMEM, most = 2 * g->ntensors + 1;
    life *lives = calloc((size_t)g->ntensors + 1, sizeof *lives);
    item *items = calloc((size_t)most, sizeof *items);
    int *placed = calloc((size_t)most, sizeof *placed);
    if (lives && items && placed) {
        watch(g, lives);
        mark_again(g, lives);
        join(g, lives);
        for (nn_id t = 0; t < g->ntensors; t++)
            n += items_of(g, t, &lives[t], items + n);
        rc = take_pool(g, items, n, placed, why, nwhy);
        if (!rc && g->plan)
            rc = note_use(g, lives, items, n) ? 0 : NN_ENOMEM;
        for (nn_id t = g->ntensors - 1; t >= 0; t--)    /* a sum is younger than its terms */
            if (lives[t].sum != NN_NONE)
                g->tensors[t].grad = g->tensors[lives[t].sum].grad;
    } else {
        snprintf(why, nwhy, "out of host memory");
    }
    free(lives);
    free(items);
    free(placed);
    return rc;
}

/* ---- buffers of one tensor -------------------------------------------------------------------------------------------- */

/* One buffer of the device; a sentence when there is no room. */
static int take(nn_graph *g, k_tag tag, size_t bytes, attn_dims dims, void **out, char *why, size_t nwhy)
{
    char text[100];
    if (nn_take(g, tag, bytes, out) == 0)
        return 0;
    snprintf(why, nwhy, "a tensor %s: %s", nn_dims_text(dims, text, sizeof text), k_error(g->dev));
    return NN_ENOMEM;
}

/* Moves a constant's values to its data; the host's copy is done with. */
static int show_constant(nn_graph *g, tensor *t, char *why, size_t nwhy)
{
    void *wide = t->data;
    size_t bytes = (size_t)t->n * sizeof(float);
    if (t->dtype != K_F32 && t->dtype != K_I32 && take(g, K_TAG_WORKSPACE, bytes, t->dims, &wide, why, nwhy))
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

/* Data and gradient of a root that is not in the block; a parameter's are the parameter's. */
static int take_tensor(nn_graph *g, tensor *t, char *why, size_t nwhy)
{
    int rc = 0;
    if (t->param >= 0 && g->plan)
        return 0;
    if (t->param >= 0) {
        t->data = nn_param_seen(g->params, t->param);
        t->grad = nn_param_grad(g->params, t->param);
        return 0;
    }
    if (!t->data)
        rc = take(g, t->input ? K_TAG_DATA : K_TAG_ACTIVATION, bytes_of(t), t->dims, &t->data, why, nwhy);
    if (!rc && t->live && !t->grad)
        rc = take(g, K_TAG_ACTIVATION, bytes_of(t), t->dims, &t->grad, why, nwhy);
    if (rc || g->plan)
        return rc;
    if (t->input)
        k_zero(g->dev, t->data, bytes_of(t));
    return t->constant ? show_constant(g, t, why, nwhy) : rc;
}

int nn_take_tensors(nn_graph *g, char *why, size_t nwhy)
{
    int rc = share(g, why, nwhy);
    for (nn_id i = 0; !rc && i < g->ntensors; i++)
        if (g->tensors[i].root == i)
            rc = take_tensor(g, &g->tensors[i], why, nwhy);
    return rc;
}

/* Whether p points into the block. */
static int in_pool(const nn_graph *g, const void *p)
{
    return g->pool && (const char *)p >= (char *)g->pool && (const char *)p < (char *)g->pool + g->pool_bytes;
}

void nn_free_tensors(nn_graph *g)
{
    for (nn_id i = 0; i < g->ntensors; i++) {
        tensor *t = &g->tensors[i];
        if (t->root == i && t->param < 0) {
            k_free(g->dev, in_pool(g, t->data) ? NULL : t->data);
            k_free(g->dev, in_pool(g, t->grad) ? NULL : t->grad);
        }
        free(t->constant);
    }
    k_free(g->dev, g->pool);
}
