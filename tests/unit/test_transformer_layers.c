/* test_transformer_layers.c - layers other than the common ones: reversible, recomputed, without residuals, with a short
 * convolution, with a feed-forward in chunks, with axial positions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "transformer_model.h"
#include "kernels/philox.h"

/* The model of these options, over tokens, ready; it stays where it is, for its graph points into it. */
static void begin(model *m, const char *name, const char *opts, k_dtype dtype, int B, int T)
{
    if (record(m, name, opts, dtype, B, T, ATTN_CAUSAL) || start(m))
        fail_msg("%s: %s", opts, why);
}

/* Where the parameter of that name is; -1: there is none. */
static int find(const model *m, const char *name)
{
    for (int i = 0; i < nn_params_count(m->params); i++)
        if (!strcmp(nn_param_name(m->params, i), name))
            return i;
    return -1;
}

static int64_t count(const model *m, int i)
{
    attn_dims d = nn_param_dims(m->params, i);
    int64_t n = 1;
    for (int k = 0; k < d.n; k++)
        n *= d.d[k];
    return n;
}

static size_t activations(void)
{
    k_memory memory;
    k_memory_read(dev, &memory);
    return memory.now_tag[K_TAG_ACTIVATION];
}

/* One step without an update: the loss, and the gradients behind one another in grad, how many numbers. */
static int64_t step(model *m, double *loss, double *grad)
{
    int64_t n = 0;
    nn_params_zero_grad(m->params);
    assert_int_equal(nn_step(m->graph), 0);
    *loss = nn_loss(m->graph);
    for (int i = 0; i < nn_params_count(m->params); i++)
        for (int64_t e = 0; e < count(m, i); e++)
            grad[n++] = ((double *)nn_param_grad(m->params, i))[e];
    return n;
}

/* ---- gradients ------------------------------------------------------------------------------------------------------- */

static void test_gradients(void **state)
{
    static const char *const opts[] = {
        "\"reversible\": true", "\"reversible\": true, \"feed_forward\": false, \"layers\": 3", "\"reversible\": true, \"feed_forward_chunks\": 3",
        "\"residual\": false, \"norm_position\": \"post\"", "\"positions_each_layer\": true, \"positions\": \"learned\", \"recompute\": \"layer\"",
        "\"residual\": false", "\"residual\": false, \"positions_each_layer\": true", "\"positions\": \"axial\"",
        "\"positions\": \"axial\", \"axial_columns\": 2, \"axial_width\": 5, \"positions_each_layer\": true", "\"positions\": \"axial\", \"axial_channels\": 2", "\"short_conv\": 4",
        "\"short_conv\": 3, \"short_conv_activation\": \"none\", \"kv_heads\": 2, \"recompute\": \"layer\"",
        "\"feed_forward_chunks\": 3, \"activation\": \"gelu\"", "\"feed_forward_chunks\": 4, \"activation\": \"swiglu\"",
        "\"feed_forward_chunks\": 100, \"activation\": \"reglu\", \"bias\": false, \"recompute\": \"layer\"",
        "\"reversible\": true, \"short_conv\": 2, \"positions\": \"axial\", \"activation\": \"geglu\", \"feed_forward_chunks\": 2" };
    (void)state;
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++) {
        char all[400];
        snprintf(all, sizeof all, "{\"layers\": 2, \"d_model\": 8, \"heads\": 4, \"d_ff\": 6, \"init\": 0.4, %s}", opts[i]);
        model m;
        begin(&m, i % 3 == 1 ? "fwp" : "softmax", all, K_F64, 2, 5);
        check_gradients(&m, all);
        release(&m);
    }
}

static void test_contradictions(void **state)
{
    static const char *const reversible = "model: reversible layers are pre-norm, have residuals, and take neither positions_each_layer nor recompute";
    static const char *const bad[] = { "\"norm_position\": \"post\"", "\"residual\": false", "\"positions_each_layer\": true", "\"recompute\": \"layer\"",
                                        "\"axial_width\": 512", "\"axial_channels\": 3, \"axial_width\": 341, \"axial_channel_width\": 171" };
    static const char *const row_column = "model: axial positions of d_model 512 need some of it for the row and some for the column";
    static const char *const row_column_channel = "model: axial positions of d_model 512 need some of it for the row, the column and the channel";
    (void)state;
    for (int i = 0; i < 6; i++) {
        char all[200];
        model m;
        snprintf(all, sizeof all, "{%s, %s}", i < 4 ? "\"reversible\": true" : "\"positions\": \"axial\"", bad[i]);
        assert_int_equal(record(&m, "softmax", all, K_F32, 1, 4, ATTN_CAUSAL), ATTN_EINVAL);
        assert_string_equal(why, i < 4 ? reversible : i < 5 ? row_column : row_column_channel);
        release(&m);
    }
}

/* ---- twelve layers: plain, recomputed, reversible -------------------------------------------------------------------- */

enum { NUMBERS = 1 << 16 };
#define TWELVE "\"layers\": 12, \"d_model\": 16, \"heads\": 2, \"d_ff\": 24, \"init\": 0.2, \"dropout\": 0.1, \"ffn_dropout\": 0.1"

/* Layers, or their attention, made again in backward have the plain ones' gradients to the bit, step by step, in less memory. */
static void test_recomputed(void **state)
{
    static double kept[NUMBERS], again[NUMBERS];
    static const char *const names[] = { "softmax", "fwp", "gla", "gated_deltanet" };
    double first = 0;
    (void)state;
    for (int k = 0; k < 4; k++) {
        model m[3];
        begin(&m[0], names[k], "{" TWELVE "}", K_F64, 2, 9);
        size_t all = activations(), whole = all;
        for (int i = 1; i < 3; i++) {
            begin(&m[i], names[k], i == 1 ? "{" TWELVE ", \"recompute\": \"attention\"}" : "{" TWELVE ", \"recompute\": \"layer\"}", K_F64, 2, 9);
            assert_true((i == 1 ? 4 : 9) * (activations() - all) < 3 * whole);
            all = activations();
        }
        for (int turn = 0; turn < 3; turn++)
            for (int i = 0; i < 3; i++) {
                double x = 0, y = 0;
                int64_t n = step(&m[i], i ? &y : &x, i ? again : kept);
                assert_true(n > 10000 && n < NUMBERS && (i == 0 || y == first));
                if (i) assert_memory_equal(kept, again, (size_t)n * sizeof *kept);
                else first = x;
            }
        for (int i = 0; i < 3; i++)
            release(&m[i]);
    }
}

/* norm(x), and W x + b, with the parameters of the model under the same names. */
static nn_id norm_of(model *m, nn_graph *g, const char *path, nn_id x)
{
    char name[80];
    snprintf(name, sizeof name, "%s%snorm.weight", path, *path ? "." : "");
    nn_id gain = nn_use(g, find(m, name));
    snprintf(name, sizeof name, "%s%snorm.bias", path, *path ? "." : "");
    return nn_layer_norm(g, x, gain, nn_use(g, find(m, name)), 1e-5);
}

static nn_id linear_of(model *m, nn_graph *g, const char *path, const char *which, nn_id x)
{
    char name[80];
    snprintf(name, sizeof name, "%s.%s.weight", path, which);
    nn_id w = nn_use(g, find(m, name));
    snprintf(name, sizeof name, "%s.%s.bias", path, which);
    return nn_linear(g, x, w, nn_use(g, find(m, name)));
}

/* What a sublayer of the two-stream network adds to one stream, made of the other. */
static nn_id attention_of(model *m, nn_graph *g, const char *path, nn_id x)
{
    attn_dims heads = { 4, { m->B, m->T, 2, 8 } }, whole = { 3, { m->B, m->T, 16 } };
    nn_mixer_spec spec = m->mixer;
    spec.shape = (attn_shape){ .mode = ATTN_CAUSAL };
    nn_id h = norm_of(m, g, path, x), qkv[3];
    static const char *const names[] = { "q", "k", "v" };
    for (int i = 0; i < 3; i++)
        qkv[i] = nn_reshape(g, linear_of(m, g, path, names[i], h), heads);
    return linear_of(m, g, path, "out", nn_reshape(g, nn_attention(g, &spec, path, qkv[0], qkv[1], qkv[2], NULL), whole));
}

static nn_id feed_forward_of(model *m, nn_graph *g, const char *path, nn_id x)
{
    return linear_of(m, g, path, "down", nn_unary(g, K_GELU, linear_of(m, g, path, "up", norm_of(m, g, path, x))));
}

/* The network of two streams as its definition has it, every sum a tensor of its own, over the parameters of m. */
static nn_graph *two_streams(model *m, int layers)
{
    nn_graph *g = nn_graph_new(m->params, 1);
    nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { m->B, m->T } }), target = nn_input(g, K_I32, (attn_dims){ 1, { m->B * m->T } });
    nn_id words = nn_use(g, find(m, "embedding.weight")), first = nn_gather(g, words, tokens), second = first;
    for (int l = 0; l < layers; l++) {
        char path[40];
        snprintf(path, sizeof path, "layers.%d.attention", l);
        first = nn_add(g, first, attention_of(m, g, path, second));
        snprintf(path, sizeof path, "layers.%d.feed_forward", l);
        second = nn_add(g, second, feed_forward_of(m, g, path, first));
    }
    nn_id h = nn_reshape(g, norm_of(m, g, "", nn_add(g, first, second)), (attn_dims){ 2, { m->B * m->T, 16 } });
    nn_graph_set_loss(g, nn_cross_entropy(g, nn_linear(g, h, words, NN_NONE), target));
    if (nn_graph_compile(g, why, sizeof why))
        fail_msg("%s", why);
    memcpy(nn_data(g, tokens), nn_data(m->graph, m->tokens), (size_t)(m->B * m->T) * sizeof(int32_t));
    memcpy(nn_data(g, target), nn_data(m->graph, m->target), (size_t)(m->B * m->T) * sizeof(int32_t));
    return g;
}

/* Layers that go back have the gradients of a network that keeps everything, but for the rounding of adding and taking away;
 * they keep nothing: more of them take no more. */
static void test_reversible(void **state)
{
    static double back[NUMBERS], kept[NUMBERS];
    static const char *const opts = "{\"layers\": 12, \"d_model\": 16, \"heads\": 2, \"d_ff\": 24, \"init\": 0.3, \"positions\": \"none\", \"reversible\": true}";
    (void)state;
    model m;
    begin(&m, "softmax", opts, K_F64, 2, 9);
    double x, y, most = 0, far = 0;
    int64_t n = step(&m, &x, back);
    nn_graph *own = m.graph;
    m.graph = two_streams(&m, 12);
    assert_true(n > 10000 && n < NUMBERS && step(&m, &y, kept) == n);
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs(kept[i]));
        far = fmax(far, fabs(kept[i] - back[i]));
    }
    print_message("# gradients up to %.3g, at most %.3g apart, of 12 reversible layers and of the same that keep all\n", most, far);
    assert_true(fabs(x - y) < 1e-12 && most > 0.01 && far < 1e-10);
    nn_graph_free(m.graph);
    m.graph = own;
    release(&m);
}

/* Reversible layers keep nothing: more of them take no more, of no kind but what the parameters and their optimiser take. */
static void test_reversible_keeps_nothing(void **state)
{
    static const char *const names[] = { "softmax", "fwp", "performer", "gated_deltanet" };
    (void)state;
    for (int k = 0; k < 8; k++) {
        k_memory memory[2];
        for (int i = 0; i < 2; i++) {
            char text[200];
            snprintf(text, sizeof text, "{\"layers\": %d, \"d_model\": 16, \"heads\": 2, \"reversible\": true, \"short_conv\": %d, \"feed_forward_chunks\": %d}",
                     i ? 24 : 2, k / 4 * 4, 1 + k / 4);
            model m;
            begin(&m, names[k % 4], text, K_F32, 2, 9);
            k_memory_read(dev, &memory[i]);
            release(&m);
        }
        for (int tag = K_TAG_ACTIVATION; tag < K_TAGS; tag++)
            assert_int_equal(memory[0].now_tag[tag], memory[1].now_tag[tag]);
    }
}

/* ---- one option at a time ------------------------------------------------------------------------------------------------ */

/* Chunks change no number but for the rounding of products of fewer rows and of sums in parts, and take less room. */
static void test_chunks(void **state)
{
    static double whole[NUMBERS], parts[NUMBERS];
    static const char *const acts[] = { "relu", "geglu" };
    (void)state;
    for (int i = 0; i < 4; i++) {
        char opts[2][240];
        for (int j = 0; j < 2; j++)
            snprintf(opts[j], sizeof opts[j], "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"d_ff\": 64, \"init\": 0.4, \"activation\": \"%s\", "
                     "\"feed_forward_chunks\": %d}", acts[i % 2], j ? i / 2 ? 7 : 2 : 1);
        model a;
        begin(&a, "softmax", opts[0], K_F64, 3, 16);
        size_t before = activations();
        model b;
        begin(&b, "softmax", opts[1], K_F64, 3, 16);
        size_t plain = before, less = activations() - before;
        double x, y;
        int64_t n = step(&a, &x, whole);
        assert_true(n < NUMBERS && step(&b, &y, parts) == n);
        for (int64_t e = 0; e < n; e++)
            assert_true(fabs(whole[e] - parts[e]) < 1e-12);
        assert_true(fabs(x - y) < 1e-13 && less < plain / 2);
        release(&a);
        release(&b);
    }
}

/* A mask of dropout is the same in backward as it was in forward, chunk by chunk: the slope along the gradient. */
static void test_chunks_drop(void **state)
{
    static double grad[NUMBERS];
    (void)state;
    for (int i = 0; i < 2; i++) {
        char opts[240];
        snprintf(opts, sizeof opts, "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"d_ff\": 16, \"init\": 0.4, \"ffn_dropout\": 0.5, \"activation\": \"%s\", "
                 "\"feed_forward_chunks\": 3}", i ? "swiglu" : "gelu");
        model m;
        begin(&m, "softmax", opts, K_F64, 2, 8);
        double loss[2], h = 1e-6, slope = 0;
        nn_params_set_forwards(m.params, 6);
        step(&m, &loss[0], grad);
        for (int side = 0; side < 2; side++) {
            int64_t n = 0;
            for (int p = 0; p < nn_params_count(m.params); p++)
                for (int64_t e = 0; e < count(&m, p); e++, n++) {
                    ((double *)nn_param_value(m.params, p))[e] += (side ? -2 : 1) * h * grad[n];
                    slope += side ? 0 : grad[n] * grad[n];
                }
            nn_params_set_forwards(m.params, 6);
            assert_int_equal(nn_forward(m.graph), 0);
            loss[side] = nn_loss(m.graph);
        }
        assert_true(slope > 1e-3 && fabs((loss[0] - loss[1]) / (2 * h) - slope) < 1e-6 * (1 + slope));
        release(&m);
    }
}

/* Axial positions are learned positions whose row t is row t / columns of one table and, behind it, row t % columns of the other. */
static void test_axial(void **state)
{
    static const char *const start = "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.4, \"positions\": ";
    (void)state;
    for (int i = 0; i < 2; i++) {
        char axial[200], learned[200];
        int columns = i ? 4 : 3, width = i ? 5 : 4;             /* the root of 7 rounded up, half of 8 */
        snprintf(axial, sizeof axial, "%s\"axial\"%s}", start, i ? ", \"axial_columns\": 4, \"axial_width\": 5" : "");
        snprintf(learned, sizeof learned, "%s\"learned\"}", start);
        model a, b;
        begin(&a, "softmax", axial, K_F64, 2, 7);
        begin(&b, "softmax", learned, K_F64, 2, 7);
        int row = find(&a, "positions.row.weight"), column = find(&a, "positions.column.weight"), all = find(&b, "positions.weight");
        attn_dims r = nn_param_dims(a.params, row), c = nn_param_dims(a.params, column);
        assert_true(r.d[0] == (7 + columns - 1) / columns && r.d[1] == width && c.d[0] == columns && c.d[1] == 8 - width);
        for (int t = 0; t < 7; t++) {
            double *to = (double *)nn_param_value(b.params, all) + t * 8;
            memcpy(to, (double *)nn_param_value(a.params, row) + t / columns * width, (size_t)width * sizeof *to);
            memcpy(to + width, (double *)nn_param_value(a.params, column) + t % columns * (8 - width), (size_t)(8 - width) * sizeof *to);
        }
        assert_int_equal(nn_forward(a.graph) || nn_forward(b.graph), 0);
        assert_memory_equal(nn_data(a.graph, a.logits), nn_data(b.graph, b.logits), 2 * 7 * V * sizeof(double));
        release(&a);
        release(&b);
    }
}

/* With channels a position is its pixel's row and column and, behind them, its channel. */
static void test_axial_channels(void **state)
{
    static const char *const start = "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.4, \"positions\": ";
    (void)state;
    for (int i = 0; i < 2; i++) {
        char axial[200], learned[200];
        int columns = i ? 1 : 2, width[3] = { i ? 4 : 2, i ? 1 : 4, i ? 3 : 2 };    /* 4 pixels of 7 tokens; thirds of 8, what is left the column's */
        snprintf(axial, sizeof axial, "%s\"axial\", \"axial_channels\": 2%s}", start,
                 i ? ", \"axial_columns\": 1, \"axial_width\": 4, \"axial_channel_width\": 3" : "");
        snprintf(learned, sizeof learned, "%s\"learned\"}", start);
        model a, b;
        begin(&a, "softmax", axial, K_F64, 2, 7);
        begin(&b, "softmax", learned, K_F64, 2, 7);
        const char *const name[] = { "positions.row.weight", "positions.column.weight", "positions.channel.weight" };
        const int rows[] = { 4 / columns, columns, 2 };
        for (int t = 0; t < 7; t++) {
            double *to = (double *)nn_param_value(b.params, find(&b, "positions.weight")) + t * 8;
            const int at[] = { t / 2 / columns, t / 2 % columns, t % 2 };
            for (int k = 0; k < 3; k++) {
                int of = find(&a, name[k]);
                attn_dims d = nn_param_dims(a.params, of);
                assert_true(d.d[0] == rows[k] && d.d[1] == width[k]);
                memcpy(to, (double *)nn_param_value(a.params, of) + at[k] * width[k], (size_t)width[k] * sizeof *to);
                to += width[k];
            }
        }
        assert_int_equal(nn_forward(a.graph) || nn_forward(b.graph), 0);
        assert_memory_equal(nn_data(a.graph, a.logits), nn_data(b.graph, b.logits), 2 * 7 * V * sizeof(double));
        release(&a);
        release(&b);
    }
}

/* Without residuals and positions a layer of identity mixes nothing; with positions at each layer the logits depend on them. */
static void test_positions_each_layer(void **state)
{
    double y[2][7 * V];
    (void)state;
    for (int i = 0; i < 2; i++) {
        char opts[200];
        snprintf(opts, sizeof opts, "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"init\": 0.4, \"residual\": false, \"positions_each_layer\": %s}", i ? "true" : "false");
        model m;
        begin(&m, "identity", opts, K_F64, 1, 7);
        assert_int_equal(nn_forward(m.graph), 0);
        memcpy(y[i], nn_data(m.graph, m.logits), sizeof y[i]);
        release(&m);
    }
    for (int t = 1; t < 7; t++)         /* the first token's cosines shift it, too, but the norm may hide what is even */
        assert_memory_not_equal(y[0] + t * V, y[1] + t * V, V * sizeof(double));
}

/* The convolution by its definition, in double and float, of sequences shorter than it and longer. */
static void test_short_conv(void **state)
{
    enum { B = 2, T = 7, H = 3, D = 5, MOST = B * T * H * D };
    (void)state;
    for (int i = 0; i < 6; i++) {
        k_dtype dtype = i % 2 ? K_F32 : K_F64;
        int taps = i / 2 == 0 ? 1 : i / 2 == 1 ? 4 : 9;
        nn_short_conv_opts o = { taps };
        nn_params *params = nn_params_new(dev, dtype, 3);
        nn_graph *g = nn_graph_new(params, 0);
        nn_id x = nn_input(g, dtype, (attn_dims){ 4, { B, T, H, D } });
        nn_mixer_spec m = { .variant = &nn_short_conv, .opts = &o, .common = { NN_OUTPUT_NORM_NONE, 1e-5 }, .shape = { .mode = ATTN_CAUSAL } };
        nn_id y = nn_attention(g, &m, "conv", NN_NONE, NN_NONE, x, NULL);
        if (nn_params_alloc(params, why, sizeof why) || nn_graph_compile(g, why, sizeof why))
            fail_msg("%s", why);
        double in[MOST];
        for (int e = 0; e < MOST; e++) {
            in[e] = (float)(philox_u32(1, 2, 3, (uint64_t)e) / 4e9 - 0.5);
            if (dtype == K_F64) ((double *)nn_data(g, x))[e] = in[e];
            else ((float *)nn_data(g, x))[e] = (float)in[e];
        }
        assert_int_equal(nn_forward(g), 0);
        for (int e = 0; e < MOST; e++) {
            int d = e % D, h = e / D % H, t = e / D / H % T, b = e / D / H / T;
            double want = 0;
            for (int tau = 0; tau < taps; tau++) {
                int j = t - taps + 1 + tau, at = (h * taps + tau) * D + d;
                double w = dtype == K_F64 ? ((double *)nn_param_value(params, 0))[at] : ((float *)nn_param_value(params, 0))[at];
                want += j < 0 ? 0 : w * in[((b * T + j) * H + h) * D + d];
            }
            double got = dtype == K_F64 ? ((double *)nn_data(g, y))[e] : ((float *)nn_data(g, y))[e];
            assert_true(fabs(got - want) < (dtype == K_F64 ? 1e-14 : 1e-6));
        }
        nn_graph_free(g);
        nn_params_free(params);
    }
}

/* ---- the plan of memory ------------------------------------------------------------------------------------------------ */

/* What the recorded graph and its parameters take is to the byte what was planned, tag by tag, and no phase needs more than all. */
static void holds_its_plan(model *m, const char *what)
{
    nn_plan plan, again;
    k_memory memory;
    if (nn_graph_plan(m->graph, &plan, why, sizeof why) || nn_graph_plan(m->graph, &again, why, sizeof why))
        fail_msg("%s: %s", what, why);
    assert_memory_equal(&plan, &again, sizeof plan);
    k_memory_read(dev, &memory);
    assert_int_equal(memory.now, 0);
    if (nn_params_alloc(m->params, why, sizeof why) || nn_graph_compile(m->graph, why, sizeof why))
        fail_msg("%s: %s", what, why);
    k_memory_read(dev, &memory);
    for (int i = 0; i < K_TAGS; i++)
        if (plan.bytes[i] != memory.now_tag[i])
            fail_msg("%s: %zu bytes of %s planned, %zu taken", what, plan.bytes[i], k_tag_names[i], memory.now_tag[i]);
    assert_int_equal(plan.all, memory.now);
    assert_true(plan.forward <= plan.all && plan.backward <= plan.all && plan.step <= plan.all && plan.step > 0);
    assert_int_equal(nn_forward(m->graph), 0);
    assert_int_equal(nn_graph_plan(m->graph, &plan, why, sizeof why), ATTN_EINVAL);     /* it is too late */
}

static void test_plan(void **state)
{
    static const char *const opts[] = { "", ", \"recompute\": \"layer\"", ", \"reversible\": true", ", \"norm_position\": \"post\", \"residual\": false",
                                        ", \"short_conv\": 4, \"positions\": \"axial\"", ", \"feed_forward_chunks\": 3, \"dropout\": 0.1",
                                        ", \"kv_heads\": 1, \"tie_embeddings\": false, \"activation\": \"swiglu\", \"positions\": \"learned\"" };
    static const char *const names[] = { "softmax", "performer", "fwp", "gated_deltanet" };
    (void)state;
    for (int i = 0; i < 7 * 4; i++) {
        char all[240];
        model m;
        snprintf(all, sizeof all, "{\"layers\": 3, \"d_model\": 16, \"heads\": 2%s}", opts[i % 7]);
        record(&m, names[i / 7], all, i % 2 ? K_F32 : K_F64, 2, 9, ATTN_CAUSAL);
        holds_its_plan(&m, all);
        release(&m);
    }
}

/* The same of graphs that decode, that go on from segment to segment with a memory, and with an adaptive softmax. */
static void test_plan_of_others(void **state)
{
    enum { DECODES, CARRIES, CARRIES_AND_TRAINS, ADAPTIVE };
    (void)state;
    for (int i = DECODES; i <= ADAPTIVE; i++) {
        int carries = i == CARRIES || i == CARRIES_AND_TRAINS;
        model m;
        record(&m, carries ? "fwp" : "softmax", i == ADAPTIVE ? "{\"layers\": 2, \"d_model\": 16, \"heads\": 2, \"adaptive_cutoffs\": [4, 8]}"
               : "{\"layers\": 2, \"d_model\": 16, \"heads\": 2}", K_F32, 2, 9, ATTN_CAUSAL);
        nn_graph_free(m.graph);
        m.graph = nn_graph_new(m.params, i >= CARRIES_AND_TRAINS);
        if (carries) nn_graph_carry(m.graph);
        if (i == DECODES) nn_graph_decode(m.graph, 9);
        nn_id tokens = nn_input(m.graph, K_I32, (attn_dims){ 2, { 2, 3 } });
        nn_id h = nn_transformer_body(&m.t, m.graph, tokens, ATTN_CAUSAL);
        h = carries ? nn_remember(m.graph, h, 5) : h;
        nn_id target = nn_input(m.graph, K_I32, (attn_dims){ 1, { carries ? 16 : 6 } });
        nn_graph_set_loss(m.graph, nn_transformer_loss(&m.t, m.graph, h, target, 0));
        holds_its_plan(&m, i == DECODES ? "decode" : carries ? "carry" : "adaptive");
        release(&m);
    }
}

/* Twelve layers: forward and backward of the recomputed and the reversible ones need less, by the plan that they hold. */
static void test_plan_of_twelve(void **state)
{
    static const char *const kinds[] = { "\"recompute\": \"none\"", "\"recompute\": \"layer\"", "\"reversible\": true" };
    nn_plan plan[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        char all[200];
        model m;
        nn_train_opts adam;
        hs_opts_defaults(nn_train_table, &adam);
        snprintf(all, sizeof all, "{\"layers\": 12, \"d_model\": 32, \"heads\": 2, %s}", kinds[i]);
        record(&m, "softmax", all, K_F32, 4, 64, ATTN_CAUSAL);
        assert_int_equal(nn_params_moments(m.params, &adam, why, sizeof why) || nn_graph_plan(m.graph, &plan[i], why, sizeof why), 0);
        print_message("# %-20s %8zu bytes: %8zu in forward, %8zu in backward, %8zu in the optimiser's step\n", kinds[i], plan[i].all, plan[i].forward,
                      plan[i].backward, plan[i].step);
        holds_its_plan(&m, all);
        release(&m);
    }
    for (int i = 1; i < 3; i++) {
        assert_int_equal(plan[i].step, plan[0].step);
        assert_true(plan[i].all < plan[i - 1].all && plan[i].forward < plan[i - 1].forward && plan[i].backward < plan[i - 1].backward);
    }
}

/* All of them learn the text. */
static void test_learning(void **state)
{
    static const char *const opts[] = { "\"reversible\": true", "\"short_conv\": 4", "\"feed_forward_chunks\": 4", "\"positions\": \"axial\"" };
    (void)state;
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++) {
        char all[240];
        double first, last;
        snprintf(all, sizeof all, "{\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"d_ff\": 64, %s}", opts[i]);
        model m;
        begin(&m, "softmax", all, K_F32, 2, 16);
        learn(&m, 60, &first, &last);
        if (!(last < 0.6 * first))
            fail_msg("%s: the loss went from %g to %g", opts[i], first, last);
        release(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),   cmocka_unit_test(test_contradictions), cmocka_unit_test(test_recomputed),
        cmocka_unit_test(test_reversible),  cmocka_unit_test(test_reversible_keeps_nothing), cmocka_unit_test(test_chunks),         cmocka_unit_test(test_chunks_drop),
        cmocka_unit_test(test_axial),       cmocka_unit_test(test_axial_channels),
        cmocka_unit_test(test_positions_each_layer), cmocka_unit_test(test_short_conv),
        cmocka_unit_test(test_plan),        cmocka_unit_test(test_plan_of_others), cmocka_unit_test(test_plan_of_twelve),
        cmocka_unit_test(test_learning) };
    return cmocka_run_group_tests_name("transformer_layers", tests, open_files, close_files);
}
