/* test_decode.c - graphs that decode: token by token they say what the graph of the whole sequence says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "built_variants.h"

enum { V = 13, B = 3, T = 16, S = 6 };

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

/* A model in two graphs over one set of parameters: of T tokens, and of n at a time. */
typedef struct pair {
    nn_params *params;
    nn_transformer t;
    nn_graph *whole, *steps;
    nn_mixer_spec mixer;
    char variant_opts[1024];
    nn_id in[2], logits[2], source[2];  /* of the whole, of the steps */
    k_dtype dtype;
    int n;                              /* tokens of a step */
} pair;

/* Records the decoder in a graph, over T tokens or n; with an encoder over S tokens, if there is to be one. */
static void record(pair *p, int i, nn_graph *g, int tokens, int encoder)
{
    p->in[i] = nn_input(g, K_I32, (attn_dims){ 2, { B, tokens } });
    nn_stack own = { "", ATTN_CAUSAL, p->in[i], NN_NONE, &p->mixer, 1, NN_NONE, NN_NONE, NULL };
    if (encoder) {
        p->source[i] = nn_input(g, K_I32, (attn_dims){ 2, { B, S } });
        if (i)
            nn_hold(g, p->source[i]);
        nn_stack first = { "encoder", ATTN_BIDIR, p->source[i], NN_NONE, &p->mixer, 1, NN_NONE, NN_NONE, NULL };
        own = (nn_stack){ "decoder", ATTN_CAUSAL, p->in[i], NN_NONE, &p->mixer, 1, nn_transformer_stack(&p->t, g, &first), NN_NONE, &p->mixer };
    }
    p->logits[i] = nn_transformer_logits(&p->t, g, nn_transformer_stack(&p->t, g, &own));
    nn_keep(g, p->logits[i]);
}

/* 0, or what is wrong with the model of these options that decodes, in why. */
static int start(pair *p, const attn_variant *v, const char *model, k_dtype dtype, int n, int encoder)
{
    json_t *options = json_loads(model, 0, NULL);
    nn_model_opts o;
    *p = (pair){ .dtype = dtype, .n = n, .mixer = { .variant = v, .opts = p->variant_opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } } };
    hs_opts_defaults(nn_model_table, &o);
    o.layers = 2, o.d_model = 16, o.heads = 2, o.init = 0.3;
    assert_non_null(options);
    assert_int_equal(hs_opts_set_json(nn_model_table, &o, options, why, sizeof why), 0);
    json_decref(options);
    assert_true(v->opts_size <= sizeof p->variant_opts);
    hs_opts_defaults(v->opts, p->variant_opts);
    /* A picture has a width; an epsilon beside features scaled by their maximum sees the whole sequence. */
    const attn_opt *width = hs_opts_find(v->opts, "width"), *eps = hs_opts_find(v->opts, "feature_eps");
    assert_true(!width || hs_opt_set_text(width, p->variant_opts, "4", why, sizeof why) == 0);
    assert_true(!eps || hs_opt_set_text(eps, p->variant_opts, "0", why, sizeof why) == 0);
    p->params = nn_params_new(dev, dtype, 5);
    assert_int_equal(nn_transformer_init(&p->t, p->params, &o, &p->mixer, 1, V, T, why, sizeof why), 0);
    p->whole = nn_graph_new(p->params, 0);
    p->steps = nn_graph_new(p->params, 0);
    nn_graph_decode(p->steps, T);
    record(p, 0, p->whole, T, encoder);
    record(p, 1, p->steps, n, encoder);
    int rc = nn_params_alloc(p->params, why, sizeof why);
    rc = rc ? rc : nn_graph_compile(p->whole, why, sizeof why);
    return rc ? rc : nn_graph_compile(p->steps, why, sizeof why);
}

static void finish(pair *p)
{
    nn_graph_free(p->whole);
    nn_graph_free(p->steps);
    nn_params_free(p->params);
}

/* Token t of sequence b, another one for another draw. */
static int32_t token(int b, int t, int draw) { return (int32_t)((7 * b + 3 * t + t * t / 5 + draw * (t + 2)) % V); }

static void fill(nn_graph *g, nn_id in, int tokens, int draw)
{
    for (int i = 0; i < B * tokens; i++)
        ((int32_t *)nn_data(g, in))[i] = token(i / tokens, i % tokens, draw);
}

/* Element `at` of the logits of the whole or of the step. */
static double logit(pair *p, int i, int64_t at)
{
    const void *y = nn_data(i ? p->steps : p->whole, p->logits[i]);
    return p->dtype == K_F64 ? ((const double *)y)[at] : ((const float *)y)[at];
}

/* The next tokens, row b those of sequence of[b], and what the model says of them against the whole. */
static void step(pair *p, const int32_t *of, int compare)
{
    int at = (int)nn_decode_position(p->steps);
    double bound = p->dtype == K_F64 ? 1e-10 : 2e-4;
    for (int i = 0; i < B * p->n; i++)
        ((int32_t *)nn_data(p->steps, p->in[1]))[i] = token(of[i / p->n], at + i % p->n, 0);
    assert_int_equal(nn_forward(p->steps), 0);
    assert_int_equal(nn_decode_position(p->steps), at + p->n);
    for (int i = 0; compare && i < B * p->n * V; i++) {
        int b = i / (p->n * V), rest = i % (p->n * V);
        double got = logit(p, 1, i), want = logit(p, 0, ((int64_t)of[b] * T + at) * V + rest);
        if (!(fabs(got - want) <= bound * (1 + fabs(want))))
            fail_msg("%s, sequence %d, token %d: %.9g, by the whole %.9g", p->mixer.variant->name, b, at + rest / V, got, want);
    }
}

/* From the beginning to the end; half way the sequences change places, one is dropped and one goes on twice. */
static void decode(pair *p)
{
    static const int32_t same[B] = { 0, 1, 2 }, turned[B] = { 2, 0, 0 };
    int ahead = (p->mixer.variant->flags & ATTN_LOOKS_AHEAD) != 0;      /* sees the same sequence in the last step alone */
    fill(p->whole, p->in[0], T, 0);
    assert_int_equal(nn_forward(p->whole), 0);
    nn_decode_reset(p->steps);
    for (int t = 0; t < T; t += p->n) {
        if (t == T / 2)
            assert_int_equal(nn_decode_reorder(p->steps, turned), 0);
        step(p, t < T / 2 ? same : turned, !ahead || t + p->n == T);
    }
    assert_int_equal(nn_forward(p->steps), ATTN_EINVAL);        /* there is no room for more */
}

/* Every variant that decodes, token by token and four at a time, in double and in float; twice, the second time from a reset. */
static void test_every_variant(void **state)
{
    int decodes = 0;
    (void)state;
    for (int i = 0; i < nfiles; i++)
        for (int j = 0; file[i].variants && file[i].variants[j]; j++)
            for (int k = 0; k < 4; k++) {
                pair p;
                why[0] = 0;
                int rc = start(&p, file[i].variants[j], k % 2 ? "{\"positions\": \"learned\"}" : "{}", k / 2 ? K_F32 : K_F64, k % 2 ? 4 : 1, 0);
                decodes += rc == 0;
                for (int again = 0; rc == 0 && again < 2; again++)
                    decode(&p);
                assert_true(rc == 0 || why[0]);
                finish(&p);
            }
    assert_true(decodes >= 4 * 17);
}

/* Layers other than the common ones, one token and four at a time, in double and in float. */
static void test_layers(void **state)
{
    static const char *const models[] = {
        "{\"short_conv\": 4}", "{\"short_conv\": 2, \"short_conv_activation\": \"none\", \"kv_heads\": 1}", "{\"short_conv\": 20}",
        "{\"positions\": \"axial\"}", "{\"positions\": \"axial\", \"axial_channels\": 3}", "{\"positions\": \"axial\", \"axial_columns\": 5, \"axial_width\": 3, \"positions_each_layer\": true}",
        "{\"feed_forward_chunks\": 3, \"activation\": \"swiglu\"}", "{\"reversible\": true}", "{\"residual\": false, \"positions_each_layer\": true}",
        "{\"reversible\": true, \"short_conv\": 4, \"positions\": \"axial\", \"feed_forward_chunks\": 2}" };
    static const char *const names[] = { "softmax", "fwp", "gated_deltanet" };
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int k = 0; k < 4; k++) {
            pair p;
            if (start(&p, variant(names[i % 3]), models[i], k / 2 ? K_F32 : K_F64, k % 2 ? 4 : 1, 0))
                fail_msg("%s: %s", models[i], why);
            for (int again = 0; again < 2; again++)
                decode(&p);
            finish(&p);
        }
}

/* The decoder of a translation: what the encoder made is computed in the first step and stays until a reset. */
static void test_memory(void **state)
{
    static const char *const names[] = { "softmax", "linear", "fwp", "performer" };
    static const int32_t same[B] = { 0, 1, 2 };
    (void)state;
    for (int i = 0; i < 4; i++) {
        pair p;
        if (start(&p, variant(names[i]), "{}", K_F64, 1, 1))
            fail_msg("%s: %s", names[i], why);
        fill(p.whole, p.in[0], T, 0);
        for (int draw = 1; draw < 3; draw++) {
            fill(p.whole, p.source[0], S, draw);
            fill(p.steps, p.source[1], S, draw);
            assert_int_equal(nn_forward(p.whole), 0);
            nn_decode_reset(p.steps);
            for (int t = 0; t < T; t++) {
                step(&p, same, 1);
                fill(p.steps, p.source[1], S, 9);       /* nobody looks at it any more */
            }
        }
        fill(p.whole, p.source[0], S, 3);
        assert_int_equal(nn_forward(p.whole), 0);
        double first = logit(&p, 0, 0);
        fill(p.whole, p.source[0], S, 1);
        assert_int_equal(nn_forward(p.whole), 0);
        assert_true(fabs(first - logit(&p, 0, 0)) > 1e-9);      /* the source matters */
        finish(&p);
    }
}

/* What cannot decode is refused with a sentence. */
static void test_refusals(void **state)
{
    pair p;
    (void)state;
    assert_int_equal(start(&p, variant("softmax"), "{\"positions\": \"sinusoidal_reversed\"}", K_F32, 1, 0), ATTN_EINVAL);
    assert_string_equal(why, "transformer: reversed positions are known when the sequence ends, not in decoding");
    finish(&p);
    nn_params *params = nn_params_new(dev, K_F32, 1);
    nn_graph *g = nn_graph_new(params, 1);
    nn_graph_decode(g, 4);
    assert_int_equal(nn_params_alloc(params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), ATTN_EINVAL);
    assert_string_equal(why, "decode: said of an empty graph that does not train, with a capacity of 1..2^31-1 tokens");
    nn_graph_free(g);
    assert_int_equal(start(&p, variant("softmax"), "{\"positions\": \"none\"}", K_F32, 1, 0), 0);
    assert_int_equal(nn_decode_reorder(p.steps, (int32_t[B]){ 0, 1, B }), ATTN_EINVAL);
    assert_int_equal(nn_decode_reorder(p.whole, (int32_t[B]){ 0, 1, 2 }), ATTN_EINVAL);
    finish(&p);
    nn_params_free(params);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_variant), cmocka_unit_test(test_layers), cmocka_unit_test(test_memory),
                                        cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests_name("decode", tests, open_files, close_files);
}
