/* step.c - forward and backward of a training step; on CUDA recorded once and replayed.
 *
 * The first step runs as it is, so that every kernel is loaded; the second is recorded.  A recording holds the graph's
 * pointers, which are fixed, and overwrites or adds to parameters' gradients as the recorded step did: there is one for
 * steps that begin with every gradient fresh, and one for those that add to the gradients of such a step. */
#include "internal.h"
#include <stdlib.h>

enum { RECORDED_STEP = 2 };

/* Whether nn_params_zero_grad was just called. */
static int all_fresh(const nn_params *p)
{
    int fresh = 1;
    for (int i = 0; i < p->count; i++)
        fresh = fresh && (p->list[i].fresh || p->list[i].flags & ATTN_FROZEN);
    return fresh;
}

static int run(void *graph)
{
    nn_graph *g = graph;
    k_range_push(g->dev, "forward");
    g->stepping = 1;
    int rc = nn_forward(g);
    g->stepping = 0;
    k_range_pop(g->dev);
    k_range_push(g->dev, "backward");
    if (!rc)
        rc = nn_backward(g);
    k_range_pop(g->dev);
    return rc;
}

/* Whether gradients are as a recorded step with fresh ones leaves them. */
static int as_left(const nn_graph *g)
{
    int left = g->written != NULL;
    for (int i = 0; left && i < g->params->count; i++)
        left = g->params->list[i].flags & ATTN_FROZEN || g->params->list[i].fresh == !g->written[i];
    return left;
}

/* Records the step with fresh gradients, which they are again then. */
static void record(nn_graph *g)
{
    nn_params *p = g->params;
    g->written = calloc((size_t)p->count + 1, 1);
    g->recording = g->written ? k_record(g->dev, run, g) : NULL;
    for (int i = 0; g->recording && i < p->count; i++)
        g->written[i] = !p->list[i].fresh;
    nn_params_zero_grad(p);
}

int nn_step(nn_graph *g)
{
    int fresh = all_fresh(g->params), more = !fresh && as_left(g);
    if (fresh && ++g->steps == RECORDED_STEP)
        record(g);
    if (more && ++g->more_steps == RECORDED_STEP)
        g->more = k_record(g->dev, run, g);
    k_recording *recording = fresh ? g->recording : more ? g->more : NULL;
    if (!recording)
        return run(g);
    k_range_push(g->dev, "forward and backward, replayed");
    k_replay(g->dev, recording);
    k_range_pop(g->dev);
    for (int i = 0; i < g->params->count; i++)
        if (g->written[i])
            g->params->list[i].fresh = 0;
    return 0;
}

void nn_step_release(nn_graph *g)
{
    k_forget(g->dev, g->recording);
    k_forget(g->dev, g->more);
    free(g->written);
}
