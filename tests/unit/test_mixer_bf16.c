/* test_mixer_bf16.c - a caller who holds bf16: the implementation that takes it, unconverted, with float parameters. */
#include "harness/nn/mixer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "device.h"

/* ---- a variant o = a v with an implementation for each dtype --------------------------------------------------- */

static const void *seen_v, *seen_o, *seen_a;            /* what the bf16 implementation was given */

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)s, (void)opts;
    p->param_dims[0] = (attn_dims){ 1, { 1 } };
    p->state_dims[0] = (attn_dims){ 1, { 3 } };
    return ATTN_OK;
}

static int no_forward(const attn_call *c) { (void)c; return ATTN_EINVAL; }

/* B = H = 1, dense: o [T,D] = 2^param v by adding to the exponent, which bf16 allows; the state out is 1, 2, 3. */
static int forward(const attn_call *c)
{
    const uint16_t *v = c->v.p;
    uint16_t *o = c->o.p;
    const float *a = c->param[0];
    seen_v = c->v.p, seen_o = c->o.p, seen_a = c->param[0];
    for (int i = 0; i < c->s->Tq * c->s->Dv; i++)
        o[i] = (uint16_t)(v[i] + ((int)*a << 7));
    for (int i = 0; c->state_out[0] && i < 3; i++)
        ((float *)c->state_out[0])[i] = (float)(i + 1);
    return ATTN_OK;
}

/* dv = d_o as it is; the parameter's gradient is 5 more. */
static int backward(const attn_call *c)
{
    memcpy(c->dv.p, c->d_o.p, (size_t)(c->s->Tk * c->s->Dv) * 2);
    *(float *)c->dparam[0] += 5;
    return ATTN_OK;
}

static const attn_param PARAMS[] = { { "a", "", 0 }, { NULL } };
static const attn_state STATES[] = { { "s", "" }, { NULL } };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, no_forward, backward, NULL },
    { "float", ATTN_CPU, ATTN_F32, ATTN_CAUSAL, 20, plan, no_forward, backward, NULL },
    { "half", ATTN_CPU, ATTN_BF16, ATTN_CAUSAL, 10, plan, forward, backward, NULL },
    { .name = NULL } };
static const attn_variant half = { .size = sizeof half, .name = "half", .flags = ATTN_NO_Q | ATTN_NO_K, .params = PARAMS,
                                   .states = STATES, .impls = IMPLS };
static const attn_variant plain = { .size = sizeof plain, .name = "plain", .flags = ATTN_NO_Q | ATTN_NO_K, .params = PARAMS,
                                    .states = STATES, .impls = (const attn_impl[]){
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, no_forward, backward, NULL }, { .name = NULL } } };

static nn_mixer_spec spec_of(const attn_variant *v)
{
    return (nn_mixer_spec){ .variant = v, .common = { NN_OUTPUT_NORM_NONE, 1e-5 },
                            .shape = { 1, 1, 1, 2, 2, 2, 2, ATTN_CAUSAL, ATTN_BF16, 1, 0 } };
}

static void nothing_is_converted(void **state)
{
    (void)state;
    enum { ONE = 0x3F80 };                              /* 1.0 in bf16 */
    uint16_t v[4] = { ONE, ONE + 3, 0x8000 | ONE, ONE + 0x80 }, o[4], d_o[4] = { 7, 8, 9, 10 }, dv[4] = { 0 };
    float a = 1, da = 2, out[4] = { 0, 0, 0, -7 };
    nn_mixer_spec s = spec_of(&half);
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, &s, 0, &m, why, sizeof why), ATTN_OK);
    assert_string_equal(nn_mixer_impl(m)->name, "half");
    nn_mixer_io io = { .v = nn_tensor_of(v, 1, 2, 2, 0), .o = nn_tensor_of(o, 1, 2, 2, 0), .d_o = nn_tensor_of(d_o, 1, 2, 2, 0),
                       .dv = nn_tensor_of(dv, 1, 2, 2, 0), .param = { &a }, .dparam = { &da }, .state_out = { out } };
    assert_int_equal(nn_mixer_forward(m, &io), ATTN_OK);
    assert_true(seen_v == v && seen_o == o && seen_a == &a);
    for (int i = 0; i < 4; i++)
        assert_int_equal(o[i], v[i] + 0x80);
    assert_true(out[0] == 1 && out[1] == 2 && out[2] == 3 && out[3] == -7);
    assert_int_equal(nn_mixer_backward(m, &io), ATTN_OK);
    assert_memory_equal(dv, d_o, sizeof dv);
    assert_true(da == 7);
    nn_mixer_free(m);
}

static void what_has_no_bf16_refuses(void **state)
{
    (void)state;
    nn_mixer_spec s = spec_of(&plain), named = spec_of(&half);
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, &s, 0, &m, why, sizeof why), ATTN_EUNSUP);
    assert_string_equal(why, "plain has no implementation for mode causal that trains on cpu in bf16");
    named.impl = "float";
    assert_int_equal(nn_mixer_new(dev, &named, 0, &m, why, sizeof why), ATTN_EUNSUP);
    assert_string_equal(why, "half/float does not take bf16");
}

/* f32 and f64 are served by each other's implementations, never by bf16's, whatever its rank. */
static void bf16_serves_nobody_else(void **state)
{
    (void)state;
    static const attn_impl impls[] = {
        { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, no_forward, backward, NULL },
        { "half", ATTN_CPU, ATTN_BF16, ATTN_CAUSAL, 10, plan, forward, backward, NULL }, { .name = NULL } };
    attn_variant v = half;
    v.impls = impls;
    nn_mixer_spec s = spec_of(&v);
    s.shape.dtype = ATTN_F32;
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, &s, 0, &m, why, sizeof why), ATTN_OK);
    assert_string_equal(nn_mixer_impl(m)->name, "ref");
    nn_mixer_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_converted, open_device, close_device),
        cmocka_unit_test_setup_teardown(what_has_no_bf16_refuses, open_device, close_device),
        cmocka_unit_test_setup_teardown(bf16_serves_nobody_else, open_device, close_device) };
    return cmocka_run_group_tests_name("mixer_bf16", tests, NULL, NULL);
}
