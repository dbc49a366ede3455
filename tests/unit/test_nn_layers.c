/* test_nn_layers.c - the nodes of a Transformer: gradients against differences, masks, smoothing, chunks. */
#include "nn_check.h"
#include "harness/nn/internal.h"
#include "kernels/philox.h"

static nn_id frozen(model *m, const char *name, attn_dims d)
{
    return nn_use(m->graph, nn_param(m->params, name, d, (attn_init){ ATTN_INIT_NORMAL, 0, 1 }, ATTN_FROZEN));
}

/* Ends a model with a loss over rows of y [rows,width] and compiles it. */
static void with_loss(model *m, nn_id y, int rows, int width)
{
    m->target = nn_input(m->graph, K_I32, dims(1, rows, 0, 0, 0));
    m->loss = nn_half_squared_error(m->graph, nn_reshape(m->graph, y, dims(2, rows, width, 0, 0)), m->target);
    nn_graph_set_loss(m->graph, m->loss);
    ready(m);
    targets(m, m->target, rows, width);
}

/* ---- norms, products, positions ------------------------------------------------------------------------------------------ */

/* Every kind with every choice of vectors; x has another consumer before and behind the norm. */
static void norms(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        model m = begin();
        nn_graph *g = m.graph;
        nn_id x = nn_unary(g, K_TANH, weight(&m, "x", dims(3, 2, 3, 5, 0), 1));
        nn_id gain = kind % 3 ? weight(&m, "gain", dims(1, 5, 0, 0, 0), 1) : NN_NONE;
        nn_id bias = kind % 3 == 2 ? weight(&m, "bias", dims(1, 5, 0, 0, 0), 1) : NN_NONE;
        nn_id y = kind < 3 ? nn_layer_norm(g, x, gain, bias, 0.01) : nn_rms_norm(g, x, gain, 0.01);
        with_loss(&m, nn_add(g, nn_add(g, x, y), nn_mul(g, x, x)), 6, 5);
        check_gradients(m.params, g);
        end(&m);
    }
}

/* What a norm promises: rows of mean 0 and mean square 1 (layer), mean square 1 (RMS), whatever their offset and size. */
static void norms_are_normal(void **state)
{
    (void)state;
    model m = begin();
    nn_id x = nn_input(m.graph, K_F64, dims(2, 4, 300, 0, 0));
    nn_id y[] = { nn_layer_norm(m.graph, x, NN_NONE, NN_NONE, 1e-12), nn_rms_norm(m.graph, x, NN_NONE, 1e-12) };
    ready(&m);
    for (int i = 0; i < 4 * 300; i++)
        ((double *)nn_data(m.graph, x))[i] = 1000 * (1 + i / 300) + sin(i) * (1 + i / 300);
    assert_int_equal(nn_forward(m.graph), 0);
    for (int kind = 0; kind < 2; kind++)
        for (int r = 0; r < 4; r++) {
            double mean = 0, square = 0;
            for (int j = 0; j < 300; j++) {
                double v = ((double *)nn_data(m.graph, y[kind]))[r * 300 + j];
                mean += v / 300;
                square += v * v / 300;
            }
            assert_true(fabs(square - 1) < 1e-9);
            assert_true(kind ? fabs(mean - 1) < 1e-3 : fabs(mean) < 1e-9);
        }
    end(&m);
}

static void gated_units(void **state)
{
    (void)state;
    model m = begin();
    nn_graph *g = m.graph;
    nn_id x = weight(&m, "x", dims(2, 4, 5, 0, 0), 1);
    nn_id gate = nn_unary(g, K_SILU, nn_linear(g, x, weight(&m, "g", dims(2, 6, 5, 0, 0), 1), NN_NONE));
    nn_id h = nn_mul(g, gate, nn_linear(g, x, weight(&m, "u", dims(2, 6, 5, 0, 0), 1), NN_NONE));
    with_loss(&m, nn_add(g, nn_scale(g, nn_mul(g, h, h), -0.3), nn_add(g, h, nn_scale(g, h, 2))), 4, 6);
    check_gradients(m.params, g);
    end(&m);
}

/* Learned, frozen and given positions, over one batch dimension and over two. */
static void positions(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        model m = begin();
        nn_graph *g = m.graph;
        nn_id x = weight(&m, "x", dims(4, 2, 2, 3, 4), 1), given = nn_input(g, K_F64, dims(2, 3, 4, 0, 0));
        nn_id table = kind == 0 ? weight(&m, "table", dims(2, 3, 4, 0, 0), 1) : kind == 1 ? frozen(&m, "table", dims(2, 3, 4, 0, 0)) : given;
        nn_id y = nn_add_rows(g, nn_add_rows(g, x, table), kind == 0 ? table : weight(&m, "head", dims(1, 4, 0, 0, 0), 1));
        with_loss(&m, nn_add(g, nn_unary(g, K_TANH, y), x), 12, 4);
        for (int i = 0; i < 12; i++)
            ((double *)nn_data(g, given))[i] = sin(i);
        assert_int_equal(nn_forward(g), 0);
        const double *ys = nn_data(g, y), *xs = nn_data(g, x), *ts = nn_data(g, table);
        for (int i = 0; kind == 0 && i < 48; i++)
            assert_true(fabs(ys[i] - xs[i] - 2 * ts[i % 12]) < 1e-14);
        check_gradients(m.params, g);
        end(&m);
    }
}

/* ---- dropout ----------------------------------------------------------------------------------------------------------------- */

enum { DROPPED = 20000 };

/* Two dropouts of the same ones: both masks can be read off, in forward and, as the gradient of their sum, in backward. */
typedef struct masks { model m; nn_id x, a, b; } masks;

static masks two_masks(k_dtype dtype, double p)
{
    masks k = { .m = { .params = nn_params_new(dev, dtype, 11) } };
    nn_graph *g = k.m.graph = nn_graph_new(k.m.params, 1);
    nn_id one = nn_use(g, nn_param(k.m.params, "one", dims(2, 1, DROPPED, 0, 0), (attn_init){ ATTN_INIT_CONST, 1, 0 }, 0));
    k.x = nn_scale(g, one, 1);
    k.a = nn_dropout(g, k.x, p);
    k.b = nn_dropout(g, k.x, p);
    nn_keep(g, k.x), nn_keep(g, k.a), nn_keep(g, k.b);
    k.m.target = nn_input(g, K_I32, dims(1, 1, 0, 0, 0));
    nn_graph_set_loss(g, nn_half_squared_error(g, nn_add(g, k.a, k.b), k.m.target));
    ready(&k.m);
    return k;
}

/* How many of n numbers are not 0; the others must be `kept`. */
static int kept_of(const float *x, int n, float kept)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        assert_true(x[i] == 0 || x[i] == kept);
        count += x[i] != 0;
    }
    return count;
}

static void dropout_keeps_its_share(void **state)
{
    (void)state;
    for (int tenths = 1; tenths < 10; tenths += 4) {
        double p = 0.1 * tenths, sd = sqrt(p * (1 - p) * DROPPED);
        masks k = two_masks(K_F32, p);
        assert_int_equal(nn_forward(k.m.graph), 0);
        const float *a = nn_data(k.m.graph, k.a), *b = nn_data(k.m.graph, k.b);
        float kept = (float)(1 / (1 - p));
        assert_true(fabs(kept_of(a, DROPPED, kept) - (1 - p) * DROPPED) < 4 * sd);
        assert_true(fabs(kept_of(b, DROPPED, kept) - (1 - p) * DROPPED) < 4 * sd);
        int both = 0;                   /* nodes draw independently */
        for (int i = 0; i < DROPPED; i++)
            both += a[i] != 0 && b[i] != 0;
        assert_true(fabs(both - (1 - p) * (1 - p) * DROPPED) < 4 * (1 - p) * sqrt((1 - (1 - p) * (1 - p)) * DROPPED) + 1);
        end(&k.m);
    }
}

/* Forward s has the masks of s again after set_forwards, and no other forward has them; backward drops what forward did. */
static void dropout_draws_by_forward(void **state)
{
    static float first[2][DROPPED];
    (void)state;
    masks k = two_masks(K_F32, 0.5);
    for (uint32_t s = 0; s < 2; s++) {
        assert_int_equal(nn_params_forwards(k.m.params), s);
        assert_int_equal(nn_forward(k.m.graph), 0);
        memcpy(first[s], nn_data(k.m.graph, k.a), sizeof first[s]);
    }
    assert_memory_not_equal(first[0], first[1], sizeof first[0]);
    nn_params_set_forwards(k.m.params, 1);
    assert_int_equal(nn_forward(k.m.graph), 0);
    assert_memory_equal(first[1], nn_data(k.m.graph, k.a), sizeof first[1]);
    nn_params_zero_grad(k.m.params);
    assert_int_equal(nn_backward(k.m.graph), 0);
    const float *a = nn_data(k.m.graph, k.a), *b = nn_data(k.m.graph, k.b), *dx = nn_grad(k.m.graph, k.x);
    for (int i = 0; i < DROPPED; i++) {     /* the loss is half the square of a + b - e0 */
        float dy = a[i] + b[i] - (i == 0);
        assert_true(dx[i] == dy * (a[i] + b[i]));
    }
    end(&k.m);
}

static void dropout_is_philox(void **state)
{
    (void)state;
    masks k = two_masks(K_F64, 0.25);
    nn_params_set_forwards(k.m.params, 41);
    assert_int_equal(nn_forward(k.m.graph), 0);
    for (int i = 0; i < DROPPED; i++) {
        int keep = philox_u32(11, nn_fnv1a("dropout 1"), 42, (uint64_t)i) >= 1u << 30;
        assert_true(((double *)nn_data(k.m.graph, k.b))[i] == (keep ? 1 / 0.75 : 0));
    }
    end(&k.m);
}

/* No node and no memory where nothing drops; a graph that does not train leaves the count alone. */
static void dropout_is_nothing_where_it_is_off(void **state)
{
    (void)state;
    model m = begin();
    nn_id x = weight(&m, "x", dims(2, 3, 4, 0, 0), 1), i = nn_input(m.graph, K_F64, dims(2, 3, 4, 0, 0));
    nn_graph *still = nn_graph_new(m.params, 0);
    nn_id y = nn_use(still, 0);
    assert_int_equal(nn_dropout(m.graph, x, 0), x);
    assert_int_equal(nn_dropout(still, y, 0.5), y);
    assert_int_not_equal(nn_dropout(m.graph, i, 0.5), i);
    nn_unary(still, K_TANH, y);
    ready(&m);
    assert_int_equal(nn_graph_compile(still, why, sizeof why), 0);
    assert_int_equal(nn_forward(still), 0);
    assert_int_equal(nn_params_forwards(m.params), 0);
    assert_int_equal(nn_forward(m.graph), 0);
    assert_int_equal(nn_params_forwards(m.params), 1);
    nn_graph_free(still);
    end(&m);
}

static void dropout_has_its_gradient(void **state)
{
    (void)state;
    model m = begin();
    nn_graph *g = m.graph;
    nn_id x = nn_unary(g, K_TANH, weight(&m, "x", dims(2, 6, 7, 0, 0), 1));
    with_loss(&m, nn_add(g, nn_dropout(g, nn_dropout(g, x, 0.4), 0.3), nn_mul(g, nn_dropout(g, x, 0.5), x)), 6, 7);
    check_gradients(m.params, g);
    end(&m);
}

/* ---- cross-entropy ------------------------------------------------------------------------------------------------------------- */

static void smoothing_spreads_the_target(void **state)
{
    (void)state;
    model m = begin();
    nn_id y = weight(&m, "y", dims(2, 4, 5, 0, 0), 2), t = nn_input(m.graph, K_I32, dims(1, 4, 0, 0, 0));
    nn_graph_set_loss(m.graph, m.loss = nn_cross_entropy_smoothed(m.graph, y, t, 0.1));
    ready(&m);
    targets(&m, t, 4, 5);
    assert_int_equal(nn_forward(m.graph), 0);
    for (int r = 0; r < 4; r++) {
        const double *s = (double *)nn_data(m.graph, y) + 5 * r;
        double total = 0, want = 0;
        for (int j = 0; j < 5; j++)
            total += exp(s[j]);
        for (int j = 0; r != 2 && j < 5; j++)
            want -= (0.02 + (j == r * 7 % 5 ? 0.9 : 0)) * log(exp(s[j]) / total);
        assert_true(fabs(((double *)nn_data(m.graph, m.loss))[r] - want) < 1e-12);
    }
    check_gradients(m.params, m.graph);
    end(&m);
}

enum { ROWS = 10, DEPTH = 6, WORDS = 7 };

/* Words in, words out, with shared weights: scores at once, or in chunks of so many rows. */
static model words_model(k_dtype dtype, int64_t chunk, int biased, double smoothing)
{
    model m = { .params = nn_params_new(dev, dtype, 11) };
    nn_graph *g = m.graph = nn_graph_new(m.params, 1);
    m.key = nn_input(g, K_I32, dims(1, ROWS, 0, 0, 0));
    m.target = nn_input(g, K_I32, dims(1, ROWS, 0, 0, 0));
    nn_id w = weight(&m, "words", dims(2, WORDS, DEPTH, 0, 0), 1), b = biased ? weight(&m, "bias", dims(1, WORDS, 0, 0, 0), 1) : NN_NONE;
    nn_id x = nn_unary(g, K_TANH, nn_gather(g, w, m.key));
    nn_id h = nn_layer_norm(g, nn_linear(g, x, weight(&m, "turn", dims(2, DEPTH, DEPTH, 0, 0), 1), NN_NONE), NN_NONE, NN_NONE, 0.1);
    g->chunk_bytes = chunk * WORDS * (int64_t)k_dtype_size(dtype);
    m.loss = chunk ? nn_linear_cross_entropy(g, h, w, b, m.target, smoothing) : nn_cross_entropy_smoothed(g, nn_linear(g, h, w, b), m.target, smoothing);
    nn_graph_set_loss(g, m.loss);
    ready(&m);
    targets(&m, m.target, ROWS, WORDS);
    for (int i = 0; i < ROWS; i++)
        ((int32_t *)nn_data(g, m.key))[i] = i * 3 % WORDS;
    return m;
}

/* Chunks of 1, 3 (not a divisor) and all rows, against the scores at once, and against differences; by nn_step too, where
 * forward leaves all of it to backward. */
static void chunks_are_the_whole(void **state)
{
    static const int64_t sizes[] = { 1, 3, 1000 };
    (void)state;
    for (int kind = 0; kind < 12; kind++) {
        const int by_step = kind / 6;
        model a = words_model(K_F64, 0, kind & 1, 0.1 * (kind % 3)), b = words_model(K_F64, sizes[kind % 3], kind & 1, 0.1 * (kind % 3));
        model *const both[] = { &a, &b };
        for (int i = 0; i < 2; i++) {
            nn_params_zero_grad(both[i]->params);
            assert_int_equal(by_step ? nn_step(both[i]->graph) : nn_forward(both[i]->graph), 0);
            assert_int_equal(by_step ? 0 : nn_backward(both[i]->graph), 0);
        }
        assert_true(fabs(nn_loss(a.graph) - nn_loss(b.graph)) < 1e-12 && nn_loss(a.graph) > 0.5);
        for (int i = 0; i < ROWS; i++)
            assert_true(fabs(((double *)nn_data(a.graph, a.loss))[i] - ((double *)nn_data(b.graph, b.loss))[i]) < 1e-12);
        for (int i = 0; i < nn_params_count(a.params); i++)
            for (int64_t e = 0; e < count(a.params, i); e++)
                assert_true(fabs(((double *)nn_param_grad(a.params, i))[e] - ((double *)nn_param_grad(b.params, i))[e]) < 1e-12);
        if (!by_step)
            check_gradients(b.params, b.graph);
        end(&a);
        end(&b);
    }
}

/* The memory that chunks save: scores and their gradient, of which a chunk is left. */
static void chunks_save_memory(void **state)
{
    size_t bytes[2];
    (void)state;
    for (int chunked = 0; chunked < 2; chunked++) {
        enum { MANY = 4096, LARGE = 1024, CHUNK = 256 };
        model m = { .params = nn_params_new(dev, K_F32, 11) };
        nn_graph *g = m.graph = nn_graph_new(m.params, 1);
        k_memory memory;
        nn_id x = nn_input(g, K_F32, dims(2, MANY, 4, 0, 0)), t = nn_input(g, K_I32, dims(1, MANY, 0, 0, 0)), w = weight(&m, "w", dims(2, LARGE, 4, 0, 0), 1);
        g->chunk_bytes = CHUNK * LARGE * (int64_t)sizeof(float);
        nn_graph_set_loss(g, chunked ? nn_linear_cross_entropy(g, x, w, NN_NONE, t, 0) : nn_cross_entropy(g, nn_linear(g, x, w, NN_NONE), t));
        ready(&m);
        k_memory_read(dev, &memory);
        bytes[chunked] = memory.now_tag[K_TAG_ACTIVATION] + memory.now_tag[K_TAG_WORKSPACE];
        end(&m);
    }
    assert_true(bytes[0] > 2 * 4096 * 1024 * sizeof(float) && bytes[1] < bytes[0] / 20);
}

/* ---- mistakes ------------------------------------------------------------------------------------------------------------------- */

static nn_id wrong(int which, model *m)
{
    nn_graph *g = m->graph;
    nn_id x = weight(m, "x", dims(2, 4, 5, 0, 0), 1), five = weight(m, "v", dims(1, 5, 0, 0, 0), 1), i = nn_input(g, K_I32, dims(1, 4, 0, 0, 0));
    switch (which) {
    case 0: return nn_layer_norm(g, x, weight(m, "g", dims(1, 4, 0, 0, 0), 1), NN_NONE, 1e-5);
    case 1: return nn_layer_norm(g, x, five, x, 1e-5);
    case 2: return nn_layer_norm(g, x, five, five, 0);
    case 3: return nn_rms_norm(g, i, NN_NONE, 1e-5);
    case 4: return nn_dropout(g, x, 1);
    case 5: return nn_dropout(g, x, -0.1);
    case 6: return nn_dropout(g, i, 0.1);
    case 7: return nn_mul(g, x, five);
    case 8: return nn_scale(g, x, NAN);
    case 9: return nn_add_rows(g, x, x);
    case 10: return nn_add_rows(g, x, weight(m, "t", dims(1, 4, 0, 0, 0), 1));
    case 11: return nn_cross_entropy_smoothed(g, x, i, 1);
    case 12: return nn_linear_cross_entropy(g, x, weight(m, "w", dims(2, 5, 4, 0, 0), 1), NN_NONE, i, 0);
    case 13: return nn_linear_cross_entropy(g, x, weight(m, "w", dims(2, 7, 5, 0, 0), 1), five, i, 0);
    case 14: return nn_linear_cross_entropy(g, x, weight(m, "w", dims(2, 7, 5, 0, 0), 1), NN_NONE, nn_input(g, K_I32, dims(1, 3, 0, 0, 0)), 0);
    case 15: return nn_linear_cross_entropy(g, x, weight(m, "w", dims(2, 7, 5, 0, 0), 1), NN_NONE, i, -1);
    default: return nn_rms_norm(g, NN_BAD, NN_NONE, 1e-5);
    }
}

static void mistakes_are_told(void **state)
{
    (void)state;
    for (int which = 0; which <= 16; which++) {
        model m = begin();
        assert_int_equal(wrong(which, &m), NN_BAD);
        nn_params_alloc(m.params, why, sizeof why);
        assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), ATTN_EINVAL);
        assert_true(strlen(why) > 10);
        end(&m);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(norms), T(norms_are_normal), T(gated_units), T(positions), T(dropout_keeps_its_share), T(dropout_draws_by_forward), T(dropout_is_philox),
        T(dropout_is_nothing_where_it_is_off), T(dropout_has_its_gradient), T(smoothing_spreads_the_target), T(chunks_are_the_whole),
        T(chunks_save_memory), T(mistakes_are_told) };
    return cmocka_run_group_tests_name("nn_layers", tests, NULL, NULL);
}
