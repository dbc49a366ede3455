/* test_nn_grouped.c - value heads that share query and key heads (ATTN_GROUPED_QK), in the mixer and in the tape.
 *
 * The variant of this test is o[t,h] = gate[t,h] (q[t,h/2].k[t,h/2]) v[t,h]. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "device.h"
#include "harness/nn/nn.h"

enum { B = 2, T = 3, G = 2, H = 4, D = 3, E = 2 };

/* ---- the variant ----------------------------------------------------------------------------------------- */

/* Row (b,h,t). */
static double *at(attn_tensor x, int b, int h, int t) { return (double *)x.p + b * x.sb + h * x.sh + t * x.st; }

/* [cold] */
static int grouped_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    p->gate_width[0] = 1;
    return s->Hv == H && s->Hk == G && s->Hq == G ? ATTN_OK : ATTN_EINVAL;
}

/* Forward, and with gradients of everything backward. */
static void grouped_run(const attn_call *c, int back)
{
    for (int b = 0; b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++) {
        const double *q = at(c->q, b, h / 2, t), *k = at(c->k, b, h / 2, t), *v = at(c->v, b, h, t), gate = *at(c->gate[0], b, h, t);
        double dot = 0, along = 0;
        for (int d = 0; d < D; d++)
            dot += q[d] * k[d];
        for (int e = 0; !back && e < E; e++)
            at(c->o, b, h, t)[e] = gate * dot * v[e];
        for (int e = 0; back && e < E; e++) {
            along += at(c->d_o, b, h, t)[e] * v[e];
            at(c->dv, b, h, t)[e] = gate * dot * at(c->d_o, b, h, t)[e];
        }
        for (int d = 0; back && d < D; d++) {
            at(c->dq, b, h / 2, t)[d] = (h % 2 ? at(c->dq, b, h / 2, t)[d] : 0) + gate * along * k[d];
            at(c->dk, b, h / 2, t)[d] = (h % 2 ? at(c->dk, b, h / 2, t)[d] : 0) + gate * along * q[d];
        }
        if (back)
            *at(c->dgate[0], b, h, t) = dot * along;
    }
}
static int grouped_forward(const attn_call *c) { grouped_run(c, 0); return ATTN_OK; }
static int grouped_backward(const attn_call *c) { grouped_run(c, 1); return ATTN_OK; }

static const attn_gate GATES[] = { { "gate", "" }, { NULL } };
static const attn_impl IMPLS[] = { { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, grouped_plan, grouped_forward, grouped_backward, NULL }, { NULL } };
static const attn_variant GROUPED = { .size = sizeof GROUPED, .name = "grouped", .flags = ATTN_GROUPED_QK, .gates = GATES, .impls = IMPLS };

/* ---- a model of it ----------------------------------------------------------------------------------------- */

typedef struct model { nn_params *params; nn_graph *graph; nn_id o, target; } model;

/* q, k, v and the gate are parameters; heads: those of v. */
static model record(k_dtype dtype, const attn_variant *v, int heads, double eps)
{
    model m = { .params = nn_params_new(dev, dtype, 3) };
    const attn_init normal = { ATTN_INIT_NORMAL, 0, 1 };
    const char *const names[] = { "q", "k", "v", "gate" };
    const int64_t width[] = { D, D, E, 1 };
    nn_id id[4];
    m.graph = nn_graph_new(m.params, 1);
    for (int i = 0; i < 4; i++)
        id[i] = nn_use(m.graph, nn_param(m.params, names[i], (attn_dims){ 4, { B, T, i < 2 ? G : heads, width[i] } }, normal, 0));
    nn_mixer_spec spec = { .variant = v, .common = { eps > 0, eps }, .shape = { .mode = ATTN_CAUSAL, .dtype = (int32_t)dtype } };
    m.o = nn_attention(m.graph, &spec, "mixer", id[0], id[1], id[2], &id[3]);
    m.target = nn_input(m.graph, K_I32, (attn_dims){ 1, { B * T * heads } });
    if (m.o >= 0)
        nn_graph_set_loss(m.graph, nn_half_squared_error(m.graph, nn_reshape(m.graph, m.o, (attn_dims){ 2, { B * T * heads, E } }), m.target));
    return m;
}

/* Takes its memory and sets the targets; returns the code. */
static int ready(model *m)
{
    int rc = nn_params_alloc(m->params, why, sizeof why);
    if (!rc)
        rc = nn_graph_compile(m->graph, why, sizeof why);
    for (int i = 0; !rc && i < B * T * H; i++)
        ((int32_t *)nn_data(m->graph, m->target))[i] = i % E;
    return rc;
}

static void end(model *m)
{
    nn_graph_free(m->graph);
    nn_params_free(m->params);
}

/* o has the heads of v, and every gradient is that of central differences; with and without the output norm. */
static void grouped_heads_train(void **state)
{
    (void)state;
    for (int norm = 0; norm < 2; norm++) {
        model m = record(K_F64, &GROUPED, H, norm * 0.1);
        assert_int_equal(ready(&m), 0);
        assert_int_equal(nn_dims(m.graph, m.o).d[2], H);
        nn_params_zero_grad(m.params);
        assert_int_equal(nn_forward(m.graph), 0);
        assert_int_equal(nn_backward(m.graph), 0);
        for (int i = 0; i < nn_params_count(m.params); i++) {
            double *x = nn_param_value(m.params, i), *dx = nn_param_grad(m.params, i);
            const attn_dims d = nn_param_dims(m.params, i);
            for (int64_t e = 0; e < d.d[0] * d.d[1] * d.d[2] * d.d[3]; e++) {
                double was = x[e], loss[2];
                for (int side = 0; side < 2; side++) {
                    x[e] = was + (side ? 1e-5 : -1e-5);
                    assert_int_equal(nn_forward(m.graph), 0);
                    loss[side] = nn_loss(m.graph);
                }
                x[e] = was;
                assert_true(fabs((loss[1] - loss[0]) / 2e-5 - dx[e]) < 1e-6 * (1 + fabs(dx[e])));
            }
        }
        end(&m);
    }
}

/* A float model converts tensors of either number of heads. */
static void grouped_heads_are_converted(void **state)
{
    (void)state;
    model d = record(K_F64, &GROUPED, H, 0), f = record(K_F32, &GROUPED, H, 0);
    assert_true(ready(&d) == 0 && ready(&f) == 0);
    nn_params_zero_grad(d.params);
    nn_params_zero_grad(f.params);
    assert_true(nn_forward(d.graph) == 0 && nn_forward(f.graph) == 0 && nn_backward(d.graph) == 0 && nn_backward(f.graph) == 0);
    assert_true(fabs(nn_loss(d.graph) - nn_loss(f.graph)) < 1e-5 * nn_loss(d.graph));
    for (int i = 0; i < 4; i++) {
        const attn_dims n = nn_param_dims(d.params, i);
        for (int64_t e = 0; e < n.d[0] * n.d[1] * n.d[2] * n.d[3]; e++)
            assert_true(fabs(((double *)nn_param_grad(d.params, i))[e] - (double)((float *)nn_param_grad(f.params, i))[e]) < 1e-4);
    }
    end(&d);
    end(&f);
}

/* Value heads that are no multiple of the key heads; and any of their own for a variant without the flag. */
static void other_heads_are_refused(void **state)
{
    (void)state;
    attn_variant plain = GROUPED;
    plain.flags = 0;
    model odd = record(K_F64, &GROUPED, 3, 0), own = record(K_F64, &plain, H, 0);
    assert_int_equal(ready(&odd), ATTN_EINVAL);
    assert_non_null(strstr(why, "Hv = 3"));
    assert_int_equal(ready(&own), ATTN_EINVAL);
    assert_non_null(strstr(why, "do not fit together"));
    end(&odd);
    end(&own);
    nn_mixer *m;
    nn_mixer_spec spec = { .variant = &plain, .shape = { B, G, G, T, T, D, E, ATTN_CAUSAL, ATTN_F64, .Hv = H } };
    assert_int_equal(nn_mixer_new(dev, &spec, 0, &m, why, sizeof why), ATTN_EINVAL);
    assert_non_null(strstr(why, "as many value heads as key heads"));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
    const struct CMUnitTest tests[] = { CASE(grouped_heads_train), CASE(grouped_heads_are_converted), CASE(other_heads_are_refused) };
    return cmocka_run_group_tests_name("grouped heads", tests, NULL, NULL);
}
