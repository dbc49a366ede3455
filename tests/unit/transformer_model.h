/* transformer_model.h - what tests of the Transformer share: a model around a variant over a text of its own, its gradients against
 * differences, and some steps of training. */
#ifndef TEST_TRANSFORMER_MODEL_H
#define TEST_TRANSFORMER_MODEL_H
#include <math.h>
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "built_variants.h"

enum { V = 11 };

/* The variant of that name among all that are built. */
static const attn_variant *variant(const char *name)
{
    for (int i = 0; i < nfiles; i++) {
        const attn_variant *v = hs_plugin_variant(&file[i], name);
        if (v)
            return v;
    }
    fail_msg("there is no variant %s", name);
    return NULL;
}

/* A model's options: the defaults, and what JSON says over them. */
static nn_model_opts options(const char *json)
{
    nn_model_opts o;
    json_t *j = json_loads(json, 0, NULL);
    assert_non_null(j);
    hs_opts_defaults(nn_model_table, &o);
    if (hs_opts_set_json(nn_model_table, &o, j, why, sizeof why))
        fail_msg("%s", why);
    json_decref(j);
    return o;
}

typedef struct model {
    nn_params *params;
    nn_transformer t;
    nn_graph *graph;
    nn_mixer_spec mixer;
    char variant_opts[1024];
    nn_id tokens, target, h, logits, loss, source, length;      /* the last two: of an encoder */
    int B, T;
} model;

/* Declares and records the model over [B,T] tokens, without memory. */
static int record(model *m, const char *name, const char *opts, k_dtype dtype, int B, int T, int mode)
{
    nn_model_opts o = options(opts);
    const attn_variant *v = variant(name);
    *m = (model){ .B = B, .T = T, .mixer = { .variant = v, .opts = m->variant_opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } } };
    assert_true(v->opts_size <= sizeof m->variant_opts);
    hs_opts_defaults(v->opts, m->variant_opts);
    const attn_opt *width = hs_opts_find(v->opts, "width");     /* of a picture */
    if (width)
        assert_int_equal(hs_opt_set_text(width, m->variant_opts, "4", why, sizeof why), 0);
    m->params = nn_params_new(dev, dtype, 5);
    m->graph = nn_graph_new(m->params, 1);
    int rc = nn_transformer_init(&m->t, m->params, &o, &m->mixer, 1, V, T, why, sizeof why);
    if (rc)
        return rc;
    m->tokens = nn_input(m->graph, K_I32, (attn_dims){ 2, { B, T } });
    m->target = nn_input(m->graph, K_I32, (attn_dims){ 1, { (int64_t)B * T } });
    m->h = nn_transformer_body(&m->t, m->graph, m->tokens, mode);
    m->logits = nn_transformer_logits(&m->t, m->graph, m->h);
    m->loss = nn_transformer_loss(&m->t, m->graph, m->h, m->target, 0);
    nn_graph_set_loss(m->graph, m->loss);
    return 0;                           /* compiling tells what is wrong with the graph */
}

static void release(model *m)
{
    nn_graph_free(m->graph);
    nn_params_free(m->params);
}

/* Gives it memory and tokens (3 i + i^2 / 5) mod V, each to be followed by the next. */
static int start(model *m)
{
    int rc = nn_params_alloc(m->params, why, sizeof why);
    rc = rc ? rc : nn_graph_compile(m->graph, why, sizeof why);
    int32_t *token = rc ? NULL : nn_data(m->graph, m->tokens), *target = rc ? NULL : nn_data(m->graph, m->target);
    for (int i = 0; !rc && i < m->B * m->T; i++)
        token[i] = (3 * i + i * i / 5) % V;
    for (int i = 0; !rc && i < m->B * m->T; i++)
        target[i] = (i + 1) % m->T ? token[i + 1] : -1;
    return rc;
}

/* Some elements of every parameter against central differences. */
__attribute__((unused)) static void check_gradients(model *m, const char *what)
{
    nn_params_zero_grad(m->params);
    assert_int_equal(nn_forward(m->graph), 0);
    assert_int_equal(nn_backward(m->graph), 0);
    for (int i = 0; i < nn_params_count(m->params); i++) {
        attn_dims d = nn_param_dims(m->params, i);
        double *x = nn_param_value(m->params, i), *dx = nn_param_grad(m->params, i);
        int64_t n = d.d[0] * (d.n > 1 ? d.d[1] : 1);
        for (int64_t e = 0; e < n; e += 1 + n / 5) {
            double was = x[e], h = 1e-6;
            x[e] = was + h;
            nn_forward(m->graph);
            double up = nn_loss(m->graph);
            x[e] = was - h;
            nn_forward(m->graph);
            double slope = (up - nn_loss(m->graph)) / (2 * h);
            x[e] = was;
            if (fabs(slope - dx[e]) > 1e-6 * (1 + fabs(slope)))
                fail_msg("%s: %s[%lld]: %.9g by the tape, %.9g by differences", what, nn_param_name(m->params, i), (long long)e, dx[e], slope);
        }
    }
}

/* Some steps of Adam on one batch: the loss before the first and the last of them. */
__attribute__((unused)) static void learn(model *m, int steps, double *first, double *last)
{
    nn_train_opts o;
    hs_opts_defaults(nn_train_table, &o);
    o.lr = 3e-3;
    for (int s = 1; s <= steps; s++) {
        nn_params_zero_grad(m->params);
        assert_int_equal(nn_step(m->graph), 0);
        *last = nn_loss(m->graph);
        if (s == 1)
            *first = *last;
        nn_optimiser_step(m->params, &o, s);
    }
}
#endif
