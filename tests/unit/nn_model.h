/* nn_model.h - the model of the first task over the toy variant, small, for tests and the benchmark of nn/.
 *
 *   PK = E Wke^T + b;  k = PK[key] + Wkv[value];  q = E[query] Wq^T + bq;  g = Wg[key] + Wgv[value];  v one-hot;  half squared error */
#ifndef NN_MODEL_H
#define NN_MODEL_H
#include "harness/nn/nn.h"
#include "kernels/philox.h"
#include <stdlib.h>
#include <string.h>

typedef struct model {
    int B, T, Tq, S;
    nn_params *params;
    nn_graph *graph;
    nn_id key, value, query, target, v, o, loss;
} model;

static attn_dims dims(int n, int64_t a, int64_t b, int64_t c, int64_t d) { return (attn_dims){ n, { a, b, c, d } }; }

static nn_id weight(model *m, const char *name, attn_dims d, double sd)
{
    return nn_use(m->graph, nn_param(m->params, name, d, (attn_init){ ATTN_INIT_NORMAL, 0, sd }, 0));
}

/* Records the model; e: width of the embedding, width: of keys.  The caller allocates and compiles. */
__attribute__((unused)) static void model_record(model *m, const nn_mixer_spec *spec, int e, int width, int gated)
{
    nn_graph *g = m->graph;
    m->key = nn_input(g, K_I32, dims(2, m->B, m->T, 0, 0));
    m->value = nn_input(g, K_I32, dims(2, m->B, m->T, 0, 0));
    m->query = nn_input(g, K_I32, dims(2, m->B, m->Tq, 0, 0));
    m->target = nn_input(g, K_I32, dims(1, m->B * m->Tq, 0, 0, 0));
    m->v = nn_input(g, (k_dtype)spec->shape.dtype, dims(4, m->B, m->T, 1, m->S));
    nn_id E = weight(m, "E", dims(2, m->S, e, 0, 0), 1);
    nn_id q = nn_linear(g, nn_gather(g, E, m->query), weight(m, "Wq", dims(2, width, e, 0, 0), 0.2), weight(m, "bq", dims(1, width, 0, 0, 0), 0.2));
    nn_id PK = nn_linear(g, E, weight(m, "Wke", dims(2, width, e, 0, 0), 0.2), weight(m, "b", dims(1, width, 0, 0, 0), 0.2));
    nn_id k = nn_gather2(g, PK, m->key, weight(m, "Wkv", dims(2, m->S, width, 0, 0), 0.2), m->value);
    nn_id gate = NN_NONE;
    if (gated)
        gate = nn_reshape(g, nn_gather2(g, weight(m, "Wg", dims(2, m->S, 1, 0, 0), 1), m->key, weight(m, "Wgv", dims(2, m->S, 1, 0, 0), 1), m->value),
                          dims(4, m->B, m->T, 1, 1));
    m->o = nn_attention(g, spec, "mixer", nn_reshape(g, q, dims(4, m->B, m->Tq, 1, width)), nn_reshape(g, k, dims(4, m->B, m->T, 1, width)),
                        m->v, &gate);
    m->loss = nn_half_squared_error(g, nn_reshape(g, m->o, dims(2, m->B * m->Tq, m->S, 0, 0)), m->target);
    nn_graph_set_loss(g, m->loss);
}

/* Keys and values of one step, drawn with replacement; queries name keys of the sequence; v is one-hot (wide: double). */
__attribute__((unused)) static void model_batch(model *m, uint64_t step, int wide)
{
    int32_t *key = nn_data(m->graph, m->key), *value = nn_data(m->graph, m->value);
    int32_t *query = nn_data(m->graph, m->query), *target = nn_data(m->graph, m->target);
    int64_t n = (int64_t)m->B * m->T;
    memset(nn_data(m->graph, m->v), 0, (size_t)(n * m->S) * (wide ? 8 : 4));
    for (int64_t i = 0; i < n; i++) {
        key[i] = (int32_t)philox_below(philox_u32(7, 1, (uint32_t)step, (uint64_t)i), (uint32_t)m->S);
        value[i] = (int32_t)philox_below(philox_u32(7, 2, (uint32_t)step, (uint64_t)i), (uint32_t)m->S);
        if (wide)
            ((double *)nn_data(m->graph, m->v))[i * m->S + value[i]] = 1;
        else
            ((float *)nn_data(m->graph, m->v))[i * m->S + value[i]] = 1;
    }
    for (int64_t i = 0; i < (int64_t)m->B * m->Tq; i++) {
        int64_t from = i / m->Tq * m->T + (int64_t)philox_below(philox_u32(7, 3, (uint32_t)step, (uint64_t)i), (uint32_t)m->T);
        query[i] = key[from];
        target[i] = value[from];
    }
}
#endif
