/* test_nn_pool.c - the mean over the tokens of a sequence: its value, and gradients against differences. */
#include "nn_check.h"

enum { B = 4, T = 5, D = 3 };
static const int32_t LENGTH[B] = { 5, 1, 3, 2 };

/* A loss over pooled rows of something learned, which others read too, before and behind the pool. */
static model pooled(int padded, nn_id *x, nn_id *y)
{
    model m = begin();
    nn_graph *g = m.graph;
    *x = nn_unary(g, K_TANH, weight(&m, "x", dims(3, B, T, D, 0), 1));
    nn_id len = padded ? nn_input(g, K_I32, dims(1, B, 0, 0, 0)) : NN_NONE;
    *y = nn_pool(g, *x, len);
    nn_id all = nn_mul(g, nn_pool(g, nn_mul(g, *x, *x), NN_NONE), nn_add(g, *y, *y));
    m.target = nn_input(g, K_I32, dims(1, B, 0, 0, 0));
    nn_graph_set_loss(g, nn_half_squared_error(g, nn_add(g, all, *y), m.target));
    nn_keep(g, *x);
    nn_keep(g, *y);
    ready(&m);
    targets(&m, m.target, B, D);
    if (padded)
        memcpy(nn_data(g, len), LENGTH, sizeof LENGTH);
    return m;
}

static void means(void **state)
{
    (void)state;
    for (int padded = 0; padded < 2; padded++) {
        nn_id x, y;
        model m = pooled(padded, &x, &y);
        assert_int_equal(nn_forward(m.graph), 0);
        const double *in = nn_data(m.graph, x), *out = nn_data(m.graph, y);
        for (int b = 0; b < B; b++)
            for (int j = 0; j < D; j++) {
                int n = padded ? LENGTH[b] : T;
                double sum = 0;
                for (int i = 0; i < n; i++)
                    sum += in[(b * T + i) * D + j];
                assert_true(fabs(out[b * D + j] - sum / n) < 1e-14);
            }
        end(&m);
    }
}

static void gradients(void **state)
{
    (void)state;
    for (int padded = 0; padded < 2; padded++) {
        nn_id x, y;
        model m = pooled(padded, &x, &y);
        check_gradients(m.params, m.graph);
        end(&m);
    }
}

/* Lengths of other sequences, or something that is not [B,T,d], are a mistake with a sentence. */
static void refusals(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        model m = begin();
        nn_id x = weight(&m, "x", kind == 0 ? dims(2, B, D, 0, 0) : dims(3, B, T, D, 0), 1);
        nn_id len = kind == 1 ? nn_input(m.graph, K_I32, dims(1, B + 1, 0, 0, 0)) : kind == 2 ? x : NN_NONE;
        assert_int_equal(nn_pool(m.graph, x, len), NN_BAD);
        assert_int_equal(nn_params_alloc(m.params, why, sizeof why), 0);
        assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), ATTN_EINVAL);
        assert_non_null(strstr(why, "pool"));
        end(&m);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = { TEST(means), TEST(gradients), TEST(refusals) };
    return cmocka_run_group_tests_name("nn_pool", tests, NULL, NULL);
}
