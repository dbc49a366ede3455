/* test_shared_keys.c - variants whose keys are their queries, and params that may be absent: what mixer and graph do. */
#include "harness/nn/mixer.h"
#include "harness/nn/nn.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "device.h"

enum { T = 3, D = 2, N = T * D };
static attn_call seen;
static double param_seen;               /* the second number of the param, -1: it was absent */

/* [cold] A param of four numbers that may be absent. */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)s, (void)opts;
    p->param_dims[0] = (attn_dims){ 1, { 4 } };
    return ATTN_OK;
}

/* o = k + v. */
static int forward(const attn_call *c)
{
    seen = *c;
    param_seen = c->param[0] ? ((const double *)c->param[0])[1] : -1;
    for (int i = 0; i < N; i++)
        ((double *)c->o.p)[i] = ((const double *)c->k.p)[i] + ((const double *)c->v.p)[i];
    return ATTN_OK;
}

/* The gradient of o goes to q and v. */
static int backward(const attn_call *c)
{
    seen = *c;
    if (c->dq.p)
        memcpy(c->dq.p, c->d_o.p, N * sizeof(double));
    if (c->dv.p)
        memcpy(c->dv.p, c->d_o.p, N * sizeof(double));
    return ATTN_OK;
}

static const attn_param params[] = { { "maybe", "", ATTN_FROZEN | ATTN_OPTIONAL }, { NULL } };
static const attn_impl impls[] = { { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, backward, NULL }, { NULL } };
static const attn_variant shared = { .size = sizeof shared, .name = "shared", .flags = ATTN_SHARED_QK, .params = params, .impls = impls };

/* Queries are the keys, whatever the caller passes for them, also where the host converts; the gradient of keys that
 * are given is left alone; the param is NULL unless it is given. */
static void in_a_mixer(void **state)
{
    (void)state;
    float q[N] = { 0 }, v[N] = { 0 }, o[N], dk[N] = { 7, 7, 7, 7, 7, 7 }, maybe[4] = { 1, 2, 3, 4 };
    nn_mixer_spec spec = { .variant = &shared, .shape = { .B = 1, .Hq = 1, .Hk = 1, .Tq = T, .Tk = T, .Dk = D, .Dv = D, .mode = ATTN_CAUSAL,
                                                          .dtype = ATTN_F32, .training = 1 } };
    nn_mixer_io io = { .q = nn_tensor_of(q, 1, T, D, 1), .v = nn_tensor_of(v, 1, T, D, 1), .o = nn_tensor_of(o, 1, T, D, 1) };
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, &spec, 0, &m, NULL, 0), ATTN_OK);
    assert_int_equal(nn_mixer_forward(m, &io), ATTN_OK);
    assert_true(seen.q.p && seen.k.p == seen.q.p && param_seen == -1);
    io.param[0] = maybe;
    io.k = io.v, io.d_o = io.o, io.dk = nn_tensor_of(dk, 1, T, D, 1);
    assert_int_equal(nn_mixer_forward(m, &io), ATTN_OK);
    assert_true(seen.k.p == seen.q.p && param_seen == 2);
    assert_int_equal(nn_mixer_backward(m, &io), ATTN_OK);
    assert_null(seen.dk.p);
    assert_true(dk[0] == 7 && dk[N - 1] == 7);
    nn_mixer_free(m);
}

/* The loss after a step of one number of x. */
static double loss_after(nn_graph *g, double *x, double step)
{
    *x += step;
    assert_int_equal(nn_forward(g), 0);
    *x -= step;
    return nn_loss(g);
}

/* In a graph the variant gets no keys, though there are some, and no param is declared for it; the gradients of x,
 * query and value at once, are those of differences, and y, the keys, has none. */
static void in_a_graph(void **state)
{
    (void)state;
    nn_params *p = nn_params_new(dev, K_F64, 1);
    nn_graph *g = nn_graph_new(p, 1);
    attn_dims dims = { 4, { 1, T, 1, D } };
    attn_init init = { ATTN_INIT_NORMAL, 0, 1 };
    nn_mixer_spec spec = { .variant = &shared, .shape = { .mode = ATTN_CAUSAL } };
    int ix = nn_param(p, "x", dims, init, 0), iy = nn_param(p, "y", dims, init, 0);
    nn_id x = nn_use(g, ix), target = nn_input(g, K_I32, (attn_dims){ 1, { T } });
    nn_id o = nn_attention(g, &spec, "mixer", x, nn_use(g, iy), x, NULL);
    assert_int_equal(nn_graph_set_loss(g, nn_half_squared_error(g, nn_reshape(g, o, (attn_dims){ 2, { T, D } }), target)), 0);
    assert_int_equal(nn_params_count(p), 2);
    assert_int_equal(nn_params_alloc(p, NULL, 0), 0);
    assert_int_equal(nn_graph_compile(g, NULL, 0), 0);
    memset(nn_data(g, target), 0, T * sizeof(int32_t));
    nn_params_zero_grad(p);
    assert_int_equal(nn_forward(g), 0);
    assert_int_equal(nn_backward(g), 0);
    assert_null(seen.dk.p);
    for (int i = 0; i < N; i++) {
        double *at = (double *)nn_param_value(p, ix) + i;
        double slope = (loss_after(g, at, 1e-4) - loss_after(g, at, -1e-4)) / 2e-4;
        assert_true(fabs(slope) > 1e-6 && fabs(slope - ((const double *)nn_param_grad(p, ix))[i]) < 1e-8);
        assert_true(((const double *)nn_param_grad(p, iy))[i] == 0);
    }
    nn_graph_free(g);
    nn_params_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(in_a_mixer, open_device, close_device),
                                        cmocka_unit_test_setup_teardown(in_a_graph, open_device, close_device) };
    return cmocka_run_group_tests_name("shared keys", tests, NULL, NULL);
}
