/* plan.c - what a graph will take, counted by compiling it without taking anything. */
#include "internal.h"
#include <string.h>

int nn_take(nn_graph *g, k_tag tag, size_t bytes, void **out)
{
    if (!g->plan)
        return k_alloc(g->dev, tag, bytes, out);
    g->plan->bytes[tag] += bytes;
    *out = NULL;
    return 0;
}

void nn_share_room(nn_graph *g, size_t bytes)
{
    if (bytes > g->room_bytes)
        g->room_bytes = bytes;
}

/* Forgets where tensors would have been. */
static void forget(nn_graph *g)
{
    for (nn_id i = 0; i < g->ntensors; i++)
        g->tensors[i].data = g->tensors[i].grad = NULL;
    g->pool_bytes = 0;
    g->room_bytes = g->saved_bytes = 0;
    g->saving = 0;
}

int nn_graph_plan(nn_graph *g, nn_plan *plan, char *why, size_t nwhy)
{
    *plan = (nn_plan){ 0 };
    if (nn_check_recording(g, why, nwhy))
        return g->code;
    g->plan = plan;
    int rc = nn_compile_parts(g, why, nwhy);
    g->plan = NULL;
    forget(g);
    if (!rc)
        rc = nn_params_count_bytes(g->params, plan->bytes, why, nwhy);
    if (rc)
        return rc;
    for (int i = 0; i < K_TAGS; i++)
        plan->all += plan->bytes[i];
    size_t always = plan->all - plan->bytes[K_TAG_ACTIVATION];
    plan->forward += always - plan->bytes[K_TAG_GRAD];
    plan->backward += always;
    plan->step = plan->bytes[K_TAG_PARAM] + plan->bytes[K_TAG_GRAD] + plan->bytes[K_TAG_OPTIMISER];
    return 0;
}
