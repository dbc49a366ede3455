/* test_nn_recompute.c - what graphs keep and what they make again: the same gradients to the bit, and how many bytes they take. */
#include "nn_check.h"
#include "nn_toy.h"
#include "harness/nn/internal.h"

enum { LAYERS = 6, BATCH = 2, LENGTH = 8, D = 12, FF = 40, S = 9 };
static const toy_opts fine = { FINE };

/* One layer over x [BATCH,LENGTH,D]: attention with a gate and a gated feed-forward, norms before, dropout behind both. */
static nn_id layer(model *m, int l, nn_id x, k_dtype dtype)
{
    nn_graph *g = m->graph;
    const nn_mixer_spec spec = { .variant = &toy, .opts = &fine, .common = { NN_OUTPUT_NORM_RMS, 1e-5 }, .shape = { .mode = ATTN_CAUSAL, .dtype = (int)dtype } };
    char name[6][16];
    static const char *const which[] = { "q", "gate", "open", "up", "down", "gain" };
    for (int i = 0; i < 6; i++)
        snprintf(name[i], sizeof name[i], "%s%d", which[i], l);
    nn_id gain = weight(m, name[5], dims(1, D, 0, 0, 0), 1), h = nn_layer_norm(g, x, gain, NN_NONE, 1e-3);
    nn_id q = nn_reshape(g, nn_linear(g, h, weight(m, name[0], dims(2, D, D, 0, 0), 0.3), NN_NONE), dims(4, BATCH, LENGTH, 2, D / 2));
    nn_id gate = nn_reshape(g, nn_linear(g, h, weight(m, name[1], dims(2, 2, D, 0, 0), 0.3), NN_NONE), dims(4, BATCH, LENGTH, 2, 1));
    nn_id a = nn_reshape(g, nn_attention(g, &spec, name[0], q, q, q, &gate), dims(3, BATCH, LENGTH, D, 0));
    x = nn_add(g, x, nn_dropout(g, a, 0.2));
    h = nn_rms_norm(g, x, gain, 1e-3);
    nn_id open = nn_unary(g, l % 2 ? K_SILU : K_RELU, nn_linear(g, h, weight(m, name[2], dims(2, FF, D, 0, 0), 0.3), NN_NONE));
    h = nn_mul(g, open, nn_linear(g, h, weight(m, name[3], dims(2, FF, D, 0, 0), 0.3), NN_NONE));
    return nn_add(g, x, nn_dropout(g, nn_linear(g, h, weight(m, name[4], dims(2, D, FF, 0, 0), 0.3), NN_NONE), 0.2));
}

/* Layers in segments of `each` layers, 0: no segments. */
static model stack(k_dtype dtype, int layers, int each)
{
    model m = { .params = nn_params_new(dev, dtype, 11) };
    nn_graph *g = m.graph = nn_graph_new(m.params, 1);
    m.key = nn_input(g, K_I32, dims(2, BATCH, LENGTH, 0, 0));
    m.target = nn_input(g, K_I32, dims(1, BATCH * LENGTH, 0, 0, 0));
    nn_id words = weight(&m, "words", dims(2, S, D, 0, 0), 1), x = nn_gather(g, words, m.key);
    for (int l = 0; l < layers; l++) {
        if (each && l % each == 0)
            nn_recompute_begin(g);
        x = layer(&m, l, x, dtype);
        if (each && (l % each == each - 1 || l == layers - 1))
            nn_recompute_end(g);
    }
    m.loss = nn_linear_cross_entropy(g, nn_reshape(g, x, dims(2, BATCH * LENGTH, D, 0, 0)), words, NN_NONE, m.target, 0.1);
    nn_graph_set_loss(g, m.loss);
    ready(&m);
    for (int i = 0; i < BATCH * LENGTH; i++) {
        ((int32_t *)nn_data(g, m.key))[i] = i * 5 % S;
        ((int32_t *)nn_data(g, m.target))[i] = i % 7 == 6 ? -1 : i * 4 % S;
    }
    return m;
}

/* The loss of one step and its gradients, copied out one parameter after another: how many bytes. */
static size_t step_of(model *m, double *loss, char *out)
{
    size_t n = 0;
    nn_params_zero_grad(m->params);
    assert_int_equal(nn_step(m->graph), 0);
    *loss = nn_loss(m->graph);
    for (int i = 0; i < nn_params_count(m->params); i++) {
        size_t bytes = nn_param_grad(m->params, i) ? (size_t)count(m->params, i) * k_dtype_size(m->params->wide) : 0;
        if (bytes)
            memcpy(out + n, nn_param_grad(m->params, i), bytes);
        n += bytes;
    }
    return n;
}

/* Three steps with masks of their own, in segments of one layer, of four, and of all: no bit differs from keeping all. */
static void recomputing_changes_no_bit(void **state)
{
    static char kept[1 << 17], again[1 << 17];
    static const int sizes[] = { 1, 4, LAYERS };
    (void)state;
    for (int wide = 0; wide < 2; wide++)
        for (int s = 0; s < 3; s++) {
            model a = stack(wide ? K_F64 : K_F32, LAYERS, 0), b = stack(wide ? K_F64 : K_F32, LAYERS, sizes[s]);
            double x, y, before = 0;
            for (int turn = 0; turn < 3; turn++) {
                size_t n = step_of(&a, &x, kept);
                assert_true(n > 20000 && n < sizeof kept);
                assert_int_equal(step_of(&b, &y, again), n);
                assert_memory_equal(kept, again, n);
                assert_true(x == y && x != before);
                before = x;
            }
            end(&a);
            end(&b);
        }
}

/* In double and against differences too, so that not both are wrong. */
static void recomputing_has_its_gradient(void **state)
{
    (void)state;
    model m = stack(K_F64, 2, 1);
    check_gradients(m.params, m.graph);
    end(&m);
}

/* A segment whose input backward does not look at, and one whose inside others read: both are kept. */
static void what_others_read_is_kept(void **state)
{
    (void)state;
    model m = begin();
    nn_graph *g = m.graph;
    nn_id x = nn_scale(g, weight(&m, "x", dims(2, 4, 5, 0, 0), 1), 1.5);    /* nobody's backward looks at it */
    nn_recompute_begin(g);
    nn_id inside = nn_unary(g, K_TANH, nn_add(g, x, x)), y = nn_unary(g, K_SILU, nn_scale(g, inside, 0.7));
    nn_recompute_end(g);
    nn_id aside = nn_unary(g, K_GELU, nn_add(g, inside, nn_scale(g, y, 3)));
    nn_recompute_begin(g);
    y = nn_mul(g, nn_unary(g, K_SIGMOID, aside), nn_add(g, y, inside));
    nn_recompute_end(g);
    m.target = nn_input(g, K_I32, dims(1, 4, 0, 0, 0));
    nn_graph_set_loss(g, nn_half_squared_error(g, nn_add(g, y, nn_mul(g, aside, y)), m.target));
    ready(&m);
    targets(&m, m.target, 4, 5);
    check_gradients(m.params, g);
    end(&m);
}

static size_t activations(const model *m)
{
    k_memory memory;
    k_memory_read(m->params->dev, &memory);
    return memory.now_tag[K_TAG_ACTIVATION];
}

/* Layers in segments take little more than the residual stream each; the gradients of many layers no more than of few. */
static void memory_follows_the_plan(void **state)
{
    size_t kept[2], again[2];
    const size_t stream = BATCH * LENGTH * D * sizeof(float) + 1024;             /* with its guards */
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m = stack(K_F32, i ? 4 * LAYERS : LAYERS, 0);
        kept[i] = activations(&m);
        end(&m);
        m = stack(K_F32, i ? 4 * LAYERS : LAYERS, 1);
        again[i] = activations(&m);
        end(&m);
    }
    print_message("# activations of %d and %d layers: %zu and %zu bytes kept, %zu and %zu recomputed\n", LAYERS, 4 * LAYERS, kept[0], kept[1],
                  again[0], again[1]);
    assert_true(again[1] - again[0] <= 3 * LAYERS * stream);
    assert_true(again[1] < kept[1] / 3);
    const size_t values = (size_t)(BATCH * LENGTH) * (size_t)(5 * D + 2 + 3 * FF) * sizeof(float);     /* of a layer, all */
    assert_true(kept[1] - kept[0] < 3 * LAYERS * (values + 16 * 1024));
}

/* ---- reversible layers ----------------------------------------------------------------------------------------------------- */

/* What a layer adds to one stream, made of the other: the first half of a layer, or the second. */
static nn_id half(model *m, int l, int second, nn_id x)
{
    nn_graph *g = m->graph;
    char up[32], down[32];
    snprintf(up, sizeof up, "up%d.%d", l, second);
    snprintf(down, sizeof down, "down%d.%d", l, second);
    nn_id h = nn_layer_norm(g, x, NN_NONE, NN_NONE, 1e-2);
    h = nn_unary(g, second ? K_GELU : K_TANH, nn_linear(g, h, weight(m, up, dims(2, FF, D, 0, 0), 0.3), NN_NONE));
    return nn_dropout(g, nn_linear(g, h, weight(m, down, dims(2, D, FF, 0, 0), 0.3), NN_NONE), 0.2);
}

/* x1 += f(x2), x2 += g(x1), layer by layer, from one embedding; reversible or kept. */
static model two_streams(k_dtype dtype, int layers, int reversible)
{
    model m = { .params = nn_params_new(dev, dtype, 11) };
    nn_graph *g = m.graph = nn_graph_new(m.params, 1);
    m.key = nn_input(g, K_I32, dims(1, BATCH * LENGTH, 0, 0, 0));
    m.target = nn_input(g, K_I32, dims(1, BATCH * LENGTH, 0, 0, 0));
    nn_id x[2] = { nn_gather(g, weight(&m, "words", dims(2, S, D, 0, 0), 1), m.key) };
    x[1] = nn_scale(g, x[0], 1);
    for (int i = 0; i < 2 * layers; i++) {
        if (reversible)
            nn_recompute_begin(g);
        nn_id h = half(&m, i / 2, i % 2, x[1 - i % 2]);
        x[i % 2] = reversible ? nn_reversible_add(g, x[i % 2], h) : nn_add(g, x[i % 2], h);
        if (reversible)
            nn_recompute_end(g);
    }
    nn_id out = weight(&m, "out", dims(2, S, D, 0, 0), 1);
    m.loss = nn_linear_cross_entropy(g, nn_add(g, x[0], nn_unary(g, K_TANH, x[1])), out, NN_NONE, m.target, 0);
    nn_graph_set_loss(g, m.loss);
    ready(&m);
    for (int i = 0; i < BATCH * LENGTH; i++) {
        ((int32_t *)nn_data(g, m.key))[i] = i * 5 % S;
        ((int32_t *)nn_data(g, m.target))[i] = i * 4 % S;
    }
    return m;
}

/* Step by step the losses and gradients of keeping everything, but for the rounding of adding and taking away. */
static void reversing_finds_the_way_back(void **state)
{
    static double kept[1 << 14], again[1 << 14];
    (void)state;
    model a = two_streams(K_F64, LAYERS, 0), b = two_streams(K_F64, LAYERS, 1);
    for (int turn = 0; turn < 3; turn++) {
        double x, y = 0, most = 0;
        size_t n = step_of(&a, &x, (char *)kept) / sizeof *kept;
        assert_true(n < sizeof kept / sizeof *kept && step_of(&b, &y, (char *)again) == n * sizeof *again);
        assert_true(x == y);
        for (size_t i = 0; i < n; i++) {
            most = fmax(most, fabs(kept[i]));
            assert_true(fabs(kept[i] - again[i]) < 1e-13);
        }
        assert_true(most > 0.01);
    }
    end(&a);
    end(&b);
    b = two_streams(K_F64, 2, 1);
    check_gradients(b.params, b.graph);
    end(&b);
}

/* Layers cost no activations at all. */
static void reversing_keeps_nothing(void **state)
{
    size_t bytes[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m = two_streams(K_F32, i ? 10 * LAYERS : LAYERS, 1);
        bytes[i] = activations(&m);
        end(&m);
    }
    assert_int_equal(bytes[0], bytes[1]);
}

/* A tensor that is gone, one that is not the graph's own to change, and a sum that the loss does not see. */
static void reversing_is_checked(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        model m = begin();
        nn_graph *g = m.graph;
        nn_id given = nn_input(g, K_F64, dims(2, 3, 4, 0, 0)), w = weight(&m, "w", dims(2, 3, 4, 0, 0), 1);
        nn_id x = nn_scale(g, w, 2), h = nn_scale(g, w, 3), flat = nn_reshape(g, x, dims(1, 12, 0, 0, 0));
        if (which == 3)
            nn_graph_set_loss(g, nn_half_squared_error(g, x, nn_input(g, K_I32, dims(1, 3, 0, 0, 0))));
        assert_true((nn_reversible_add(g, which == 1 ? given : which == 2 ? w : x, h) == NN_BAD) == (which == 1 || which == 2));
        if (which == 0)
            assert_int_equal(nn_scale(g, flat, 1), NN_BAD);
        nn_params_alloc(m.params, why, sizeof why);
        assert_int_equal(nn_graph_compile(g, why, sizeof why), ATTN_EINVAL);
        assert_non_null(strstr(why, which == 0 ? "is gone" : "reversible_add"));
        end(&m);
    }
}

static void segments_are_checked(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        model m = begin();
        if (which < 2)
            nn_recompute_begin(m.graph);
        if (which == 0)
            nn_recompute_begin(m.graph);
        if (which == 2)
            nn_recompute_end(m.graph);
        nn_params_alloc(m.params, why, sizeof why);
        assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), ATTN_EINVAL);
        assert_non_null(strstr(why, "recompute"));
        end(&m);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = { T(recomputing_changes_no_bit), T(recomputing_has_its_gradient), T(what_others_read_is_kept),
                                        T(memory_follows_the_plan), T(reversing_finds_the_way_back),
                                        T(reversing_keeps_nothing), T(reversing_is_checked), T(segments_are_checked) };
    return cmocka_run_group_tests_name("nn_recompute", tests, NULL, NULL);
}
