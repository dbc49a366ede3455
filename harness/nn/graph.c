/* graph.c - the tape: recorded once by the builders of ops*.c, compiled, replayed.
 *
 * Invariants:
 *  1. Nodes stand in the order in which they were recorded, which is an order of evaluation.
 *  2. After nn_graph_compile every pointer is fixed; replay touches no allocator and no string.
 *  3. A gradient buffer exists only for a tensor that depends on a learned parameter and on which the loss
 *     depends.  In the backward sweep its first writer overwrites it and the others add (node.add), so that
 *     nothing is zeroed that will be written anyway. */
#include "internal.h"
#include "mixer_choose.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 256 << 20 };

nn_graph *nn_graph_new(nn_params *params, int training)
{
    nn_graph *g = calloc(1, sizeof *g);
    if (g)
        *g = (nn_graph){ .params = params, .dev = params->dev, .training = training, .loss = NN_NONE, .chunk_bytes = CHUNK_BYTES };
    return g;
}

void nn_graph_free(nn_graph *g)
{
    if (!g)
        return;
    nn_step_release(g);
    nn_decode_release(g);
    nn_carry_release(g);
    for (int i = 0; i < g->nnodes; i++) {
        nn_release_attention(g, g->nodes[i].attention);
        k_free(g->dev, g->nodes[i].shares ? NULL : g->nodes[i].room);
        k_free(g->dev, g->nodes[i].weight);
    }
    nn_free_tensors(g);
    k_free(g->dev, g->room);
    k_free(g->dev, g->saved);
    free(g->loss_host);
    free(g->tensors);
    free(g->nodes);
    free(g);
}

/* ---- recording ------------------------------------------------------------------------------------------------ */

nn_id nn_fail(nn_graph *g, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!g->code) {
        g->code = code;
        vsnprintf(g->why, sizeof g->why, format, args);
    }
    va_end(args);
    return NN_BAD;
}

const char *nn_dims_text(attn_dims dims, char *out, size_t n)
{
    size_t used = (size_t)snprintf(out, n, "[");
    for (int i = 0; i < dims.n && i < ATTN_MAX_DIMS && used < n; i++)
        used += (size_t)snprintf(out + used, n - used, "%s%lld", i ? "," : "", (long long)dims.d[i]);
    if (used < n)
        snprintf(out + used, n - used, "]");
    return out;
}

int nn_ready(nn_graph *g, const char *what, const nn_id *in, int n)
{
    if (g->code)
        return 0;
    if (g->compiled)
        return nn_fail(g, ATTN_EINVAL, "%s: the graph is compiled already", what), 0;
    for (int i = 0; i < n; i++)
        if (in[i] != NN_NONE && (in[i] < 0 || in[i] >= g->ntensors))
            return nn_fail(g, ATTN_EINVAL, "%s: input %d is no tensor of this graph", what, i), 0;
        else if (in[i] >= 0 && g->tensors[in[i]].spent)
            return nn_fail(g, ATTN_EINVAL, "%s: input %d is gone since something was added in its place", what, i), 0;
    return 1;
}

/* Room for one more item in an array that doubles. */
static int grow(void **array, int count, int *capacity, size_t each)
{
    if (count < *capacity)
        return 1;
    int wanted = *capacity ? 2 * *capacity : 32;
    void *bigger = realloc(*array, (size_t)wanted * each);
    if (!bigger)
        return 0;
    *array = bigger;
    *capacity = wanted;
    return 1;
}

nn_id nn_new_tensor(nn_graph *g, k_dtype dtype, attn_dims dims, const char *what)
{
    char text[100];
    if (g->code)
        return NN_BAD;
    if (dims.n < 1 || dims.n > ATTN_MAX_DIMS || nn_elements(dims) < 0)
        return nn_fail(g, ATTN_EINVAL, "%s: impossible dimensions %s", what, nn_dims_text(dims, text, sizeof text));
    if (!grow((void **)&g->tensors, g->ntensors, &g->tensor_capacity, sizeof *g->tensors))
        return nn_fail(g, NN_ENOMEM, "out of host memory");
    g->tensors[g->ntensors] = (tensor){ .dtype = dtype, .dims = dims, .n = nn_elements(dims), .root = g->ntensors, .param = -1 };
    return g->ntensors++;
}

node *nn_new_node(nn_graph *g, const op *kind, const nn_id *in, int n_in, k_dtype dtype, attn_dims dims)
{
    nn_id out = nn_new_tensor(g, dtype, dims, kind->name);
    if (out == NN_BAD)
        return NULL;
    if (!grow((void **)&g->nodes, g->nnodes, &g->node_capacity, sizeof *g->nodes)) {
        nn_fail(g, NN_ENOMEM, "out of host memory");
        return NULL;
    }
    node *n = &g->nodes[g->nnodes++];
    *n = (node){ .op = kind, .out = out, .n_in = n_in, .reads = kind->reads, .segment = g->segment };
    for (int i = 0; i < n_in; i++) {
        n->in[i] = in[i] < 0 ? NN_NONE : g->tensors[in[i]].root;
        if (n->in[i] != NN_NONE && g->tensors[n->in[i]].learns)
            g->tensors[out].learns = 1;
    }
    return n;
}

nn_id nn_input(nn_graph *g, k_dtype dtype, attn_dims dims)
{
    if (!nn_ready(g, "input", NULL, 0))
        return NN_BAD;
    nn_id id = nn_new_tensor(g, dtype, dims, "input");
    if (id != NN_BAD)
        g->tensors[id].input = 1;
    return id;
}

/* A tensor with these values, floats or integers of as many bytes. */
static nn_id constant(nn_graph *g, k_dtype dtype, attn_dims dims, const void *values)
{
    if (!nn_ready(g, "constant", NULL, 0))
        return NN_BAD;
    nn_id id = nn_new_tensor(g, dtype, dims, "constant");
    if (id == NN_BAD)
        return NN_BAD;
    size_t bytes = (size_t)g->tensors[id].n * sizeof(float);
    if (!(g->tensors[id].constant = malloc(bytes)))
        return nn_fail(g, NN_ENOMEM, "out of host memory");
    memcpy(g->tensors[id].constant, values, bytes);
    return id;
}

nn_id nn_constant(nn_graph *g, attn_dims dims, const float *values) { return constant(g, g->params->dtype, dims, values); }
nn_id nn_indices(nn_graph *g, attn_dims dims, const int32_t *values) { return constant(g, K_I32, dims, values); }

nn_id nn_use(nn_graph *g, int index)
{
    if (!nn_ready(g, "use", NULL, 0))
        return NN_BAD;
    if (index < 0 || index >= g->params->count)
        return nn_fail(g, ATTN_EINVAL, "%s", g->params->why[0] ? g->params->why : "use: no such parameter");
    nn_id id = nn_new_tensor(g, g->params->dtype, g->params->list[index].dims, "use");
    if (id != NN_BAD) {
        g->tensors[id].param = index;
        g->tensors[id].learns = !(g->params->list[index].flags & ATTN_FROZEN);
    }
    return id;
}

nn_id nn_reshape(nn_graph *g, nn_id x, attn_dims dims)
{
    char from[100], to[100];
    if (!nn_ready(g, "reshape", &x, 1))
        return NN_BAD;
    if (x < 0 || nn_elements(dims) != g->tensors[x].n)
        return nn_fail(g, ATTN_EINVAL, "reshape: %s does not have the elements of %s",
                       x < 0 ? "nothing" : nn_dims_text(g->tensors[x].dims, from, sizeof from), nn_dims_text(dims, to, sizeof to));
    nn_id id = nn_new_tensor(g, g->tensors[x].dtype, dims, "reshape");
    if (id != NN_BAD)
        g->tensors[id].root = g->tensors[x].root;
    return id;
}

void nn_recompute_begin(nn_graph *g)
{
    if (nn_ready(g, "recompute", NULL, 0) && g->segment)
        nn_fail(g, ATTN_EINVAL, "recompute: a segment is within another");
    g->segment = ++g->segments;
}

void nn_recompute_end(nn_graph *g)
{
    if (nn_ready(g, "recompute", NULL, 0) && !g->segment)
        nn_fail(g, ATTN_EINVAL, "recompute: no segment is begun");
    g->segment = 0;
}

void nn_keep(nn_graph *g, nn_id x)
{
    if (nn_ready(g, "keep", &x, 1) && x >= 0)
        g->tensors[g->tensors[x].root].kept = 1;
}

int nn_graph_set_loss(nn_graph *g, nn_id rows)
{
    if (!nn_ready(g, "set_loss", &rows, 1))
        return ATTN_EINVAL;
    nn_id root = rows < 0 ? NN_NONE : g->tensors[rows].root;
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i].out == root && g->nodes[i].op->loss) {
            g->loss = root;
            return 0;
        }
    nn_fail(g, ATTN_EINVAL, "set_loss: not the output of a loss");
    return ATTN_EINVAL;
}

/* ---- compiling -------------------------------------------------------------------------------------------------- */

/* Marks what takes part in backward and decides, writer by writer, who overwrites and who adds; once. */
static void order_backward(nn_graph *g)
{
    if (!g->training || g->loss == NN_NONE || g->ordered)
        return;
    g->ordered = 1;
    for (int i = g->nnodes - 1; i >= 0; i--) {
        node *n = &g->nodes[i];
        n->live = n->out == g->loss || (g->tensors[n->out].learns && g->tensors[n->out].live);
        for (int j = 0; n->live && j < n->n_in; j++) {
            if (n->in[j] == NN_NONE || !g->tensors[n->in[j]].learns)
                continue;
            n->add[j] = (uint8_t)g->tensors[n->in[j]].live;
            g->tensors[n->in[j]].live = 1;
        }
    }
}

/* The weights of losses, and the rows of the graph's loss on the host. */
static int take_loss(nn_graph *g, char *why, size_t nwhy)
{
    for (int i = 0; i < g->nnodes; i++) {
        node *n = &g->nodes[i];
        if (!n->op->loss)
            continue;
        if (nn_take(g, K_TAG_ACTIVATION, sizeof *n->weight, (void **)&n->weight)) {
            snprintf(why, nwhy, "a loss: %s", k_error(g->dev));
            return NN_ENOMEM;
        }
        if (n->out != g->loss || g->plan)
            continue;
        g->loss_node = n;
        g->loss_host = malloc((size_t)n->rows * k_dtype_size(g->tensors[n->out].dtype));
        if (!g->loss_host) {
            snprintf(why, nwhy, "out of host memory");
            return NN_ENOMEM;
        }
    }
    return 0;
}

/* What nodes have in turns, and who has which part. */
static int take_shared(nn_graph *g, char *why, size_t nwhy)
{
    if ((g->room_bytes && nn_take(g, K_TAG_WORKSPACE, g->room_bytes, &g->room)) || (g->saved_bytes && nn_take(g, K_TAG_SAVED, g->saved_bytes, &g->saved))) {
        snprintf(why, nwhy, "what nodes have in turns: %s", k_error(g->dev));
        return NN_ENOMEM;
    }
    for (int i = 0; i < g->nnodes && !g->plan; i++) {
        node *n = &g->nodes[i];
        if (n->shares)
            n->room = g->room;
        if (n->attention)
            nn_mixer_lend(n->attention->mixer, g->room, g->saved ? (char *)g->saved + n->attention->saved_at : NULL);
    }
    return 0;
}

int nn_compile_parts(nn_graph *g, char *why, size_t nwhy)
{
    order_backward(g);
    nn_decode_mark(g);
    int rc = nn_take_tensors(g, why, nwhy);
    if (!rc)
        rc = take_loss(g, why, nwhy);
    for (int i = 0; !rc && i < g->nnodes; i++)
        if (g->nodes[i].op->compile)
            rc = g->nodes[i].op->compile(g, &g->nodes[i], why, nwhy);
    rc = rc ? rc : take_shared(g, why, nwhy);
    return rc ? rc : nn_decode_take(g, why, nwhy);
}

/* Whether the recording is sound and whole: the first mistake. */
int nn_check_recording(nn_graph *g, char *why, size_t nwhy)
{
    if (!g->code && g->compiled)
        nn_fail(g, ATTN_EINVAL, "the graph is compiled already");
    if (!g->code && g->segment)
        nn_fail(g, ATTN_EINVAL, "recompute: a segment is not ended");
    if (g->code)
        snprintf(why, nwhy, "%s", g->why);
    return g->code;
}

int nn_graph_compile(nn_graph *g, char *why, size_t nwhy)
{
    if (!g->code && !g->params->allocated)
        nn_fail(g, ATTN_EINVAL, "nn_params_alloc comes before nn_graph_compile");
    if (nn_check_recording(g, why, nwhy))
        return g->code;
    int rc = nn_compile_parts(g, why, nwhy);
    g->compiled = 1;
    g->code = rc;
    if (rc)
        snprintf(g->why, sizeof g->why, "%s", why);
    return rc;
}

/* ---- replaying ---------------------------------------------------------------------------------------------------- */

attn_dims nn_dims(const nn_graph *g, nn_id id)
{
    static const attn_dims none;
    return id < 0 ? none : g->tensors[id].dims;
}

void *nn_data(nn_graph *g, nn_id id) { return id < 0 ? NULL : g->tensors[g->tensors[id].root].data; }
void *nn_grad(nn_graph *g, nn_id id) { return id < 0 ? NULL : g->tensors[g->tensors[id].root].grad; }

int nn_forward(nn_graph *g)
{
    if (!g->compiled || g->code)
        return ATTN_EINVAL;
    if (g->dropouts)
        k_tick(g->dev, g->params->forwards);
    if (nn_decode_begin(g))
        return ATTN_EINVAL;
    nn_carry_begin(g);
    for (node *n = g->nodes, *end = n + g->nnodes; n < end; n++) {
        int rc = n->once && g->decoding.at > 0 ? 0 : n->op->forward(g, n);
        if (rc)
            return rc;
    }
    g->decoding.at += g->decoding.tokens;
    return 0;
}

/* Runs forward again what backward wants of the segment that ends with this node. */
static int run_again(nn_graph *g, node *last)
{
    node *n = last;
    int rc = 0;
    while (n > g->nodes && n[-1].segment == last->segment)
        n--;
    for (; !rc && n <= last; n++)
        rc = n->again ? n->op->forward(g, n) : 0;
    return rc;
}

int nn_backward(nn_graph *g)
{
    int rc = 0, segment = 0;
    if (!g->compiled || g->code || !g->training || !g->loss_node)
        return ATTN_EINVAL;
    for (node *n = g->nodes + g->nnodes; !rc && n-- > g->nodes;) {
        if (n->segment && n->segment != segment)
            rc = run_again(g, n);
        segment = n->segment;
        if (!rc && n->live)
            rc = n->op->backward(g, n);
    }
    return rc;
}

double nn_loss(nn_graph *g)
{
    const node *n = g->loss_node;
    if (!n)
        return 0;
    const tensor *t = &g->tensors[n->out];
    double sum = 0, weight;
    k_download(g->dev, &weight, n->weight, sizeof weight);
    k_download(g->dev, g->loss_host, t->data, (size_t)t->n * k_dtype_size(t->dtype));
    for (int64_t i = 0; i < t->n; i++)
        sum += t->dtype == K_F64 ? ((double *)g->loss_host)[i] : (double)((float *)g->loss_host)[i];
    return weight * sum;
}
