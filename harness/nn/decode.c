/* decode.c - graphs that decode: token by token, with the states of the variants instead of the tokens before.
 *
 * Invariants:
 *  1. Nodes of causal attention hold decode states, all of the same sequences, all `at` tokens long between two forwards.
 *  2. A node all of whose inputs are held, constant or parameters runs in the first forward after a reset alone; what others
 *     read of it has a buffer of its own. */
#include "internal.h"
#include <stdio.h>
#include <stdlib.h>

void nn_graph_decode(nn_graph *g, int64_t capacity)
{
    if (!nn_ready(g, "decode", NULL, 0))
        return;
    if (g->training || g->nnodes || capacity < 1 || capacity > INT32_MAX)
        nn_fail(g, ATTN_EINVAL, "decode: said of an empty graph that does not train, with a capacity of 1..2^31-1 tokens");
    g->decoding = (decoding){ .capacity = capacity, .places = NN_NONE };
}

int64_t nn_capacity(const nn_graph *g, int mode) { return mode == ATTN_CAUSAL ? g->decoding.capacity : 0; }

/* All that decodes has the same sequences and tokens. */
static int agree(nn_graph *g, int64_t B, int64_t tokens)
{
    decoding *d = &g->decoding;
    if (!d->B)
        d->B = (int)B, d->tokens = (int)tokens;
    if (d->B == B && d->tokens == tokens)
        return 1;
    nn_fail(g, ATTN_EINVAL, "decode: %lld sequences by %lld tokens beside %d by %d", (long long)B, (long long)tokens, d->B, d->tokens);
    return 0;
}

nn_id nn_places(nn_graph *g, int64_t B, int64_t n)
{
    decoding *d = &g->decoding;
    if (!nn_ready(g, "places", NULL, 0))
        return NN_BAD;
    if (!d->capacity)
        return nn_fail(g, ATTN_EINVAL, "places: the graph does not decode");
    if (!agree(g, B, n) || d->places != NN_NONE)
        return g->code ? NN_BAD : d->places;
    d->host = malloc((size_t)(B * n) * sizeof *d->host);
    if (!d->host)
        return nn_fail(g, NN_ENOMEM, "out of host memory");
    return d->places = nn_input(g, K_I32, (attn_dims){ 2, { B, n } });
}

void nn_hold(nn_graph *g, nn_id x)
{
    if (!nn_ready(g, "hold", &x, 1))
        return;
    if (x < 0 || !g->tensors[x].input)
        nn_fail(g, ATTN_EINVAL, "hold: not an input");
    else
        g->tensors[x].held = 1;
}

void nn_decode_mark(nn_graph *g)
{
    for (int i = 0; g->decoding.capacity && i < g->nnodes; i++) {
        node *n = &g->nodes[i];
        const attention *a = n->attention;
        if (a && a->capacity)
            agree(g, a->spec.shape.B, a->spec.shape.Tq);
        n->once = !a || !a->capacity;
        for (int j = 0; j < n->n_in; j++) {
            const tensor *t = n->in[j] == NN_NONE ? NULL : &g->tensors[n->in[j]];
            if (t && !t->held && !t->constant && t->param < 0)
                n->once = 0;
        }
        g->tensors[n->out].held = n->once;
        for (int j = 0; !n->once && j < n->n_in; j++)
            if (n->in[j] != NN_NONE && g->tensors[n->in[j]].held)
                g->tensors[n->in[j]].kept = 1;
    }
}

int nn_decode_take(nn_graph *g, char *why, size_t nwhy)
{
    decoding *d = &g->decoding;
    size_t largest = 0;
    for (int i = 0; i < g->nnodes; i++) {
        const attention *a = g->nodes[i].attention;
        if (a && a->capacity && a->plan.state > largest)
            largest = a->plan.state;
    }
    if (g->code)                        /* of nn_decode_mark */
        return snprintf(why, nwhy, "%s", g->why), g->code;
    if (!largest)
        return 0;
    if (nn_take(g, K_TAG_WORKSPACE, largest, &d->room) ||
        nn_take(g, K_TAG_WORKSPACE, (size_t)d->B * sizeof *d->source, (void **)&d->source)) {
        snprintf(why, nwhy, "reordering of decode states: %s", k_error(g->dev));
        return NN_ENOMEM;
    }
    return 0;
}

void nn_decode_release(nn_graph *g)
{
    k_free(g->dev, g->decoding.room);
    k_free(g->dev, g->decoding.source);
    free(g->decoding.host);
}

int nn_decode_begin(nn_graph *g)
{
    decoding *d = &g->decoding;
    if (d->at + d->tokens > d->capacity)
        return ATTN_EINVAL;
    if (!d->capacity || d->places == NN_NONE)
        return 0;
    for (int i = 0; i < d->B * d->tokens; i++)
        d->host[i] = (int32_t)(d->at + i % d->tokens);
    k_upload(g->dev, nn_data(g, d->places), d->host, (size_t)d->B * (size_t)d->tokens * sizeof *d->host);
    return 0;
}

void nn_decode_reset(nn_graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i].attention && g->nodes[i].attention->capacity)
            nn_mixer_decode_reset(g->nodes[i].attention->mixer);
    g->decoding.at = 0;
}

int64_t nn_decode_position(const nn_graph *g) { return g->decoding.at; }

int nn_decode_reorder(nn_graph *g, const int32_t *source)
{
    decoding *d = &g->decoding;
    if (!g->compiled || g->code || !d->source)
        return ATTN_EINVAL;
    for (int b = 0; b < d->B; b++)
        if (source[b] < 0 || source[b] >= d->B)
            return ATTN_EINVAL;
    k_upload(g->dev, d->source, source, (size_t)d->B * sizeof *source);
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i].attention && g->nodes[i].attention->capacity)
            nn_mixer_decode_reorder(g->nodes[i].attention->mixer, d->source, d->room);
    return 0;
}
