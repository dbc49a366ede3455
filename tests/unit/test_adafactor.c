/* test_adafactor.c - Adafactor against the formulas of Shazeer & Stern 2018 written out, on vectors and matrices, in both
 * precisions; its options; its moments in checkpoints; and which parameters lose weight. */
#include "harness/nn/train.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { ROWS = 5, COLUMNS = 7, N = ROWS * COLUMNS, STEPS = 4 };
static k_dev *dev, *many;
static char why[300];

static int open_devices(void **state)
{
    (void)state;
    return k_dev_open("cpu", 1, &dev, why, sizeof why) || k_dev_open("cpu", 3, &many, why, sizeof why);
}

static int close_devices(void **state)
{
    (void)state;
    k_dev_close(dev);
    k_dev_close(many);
    return 0;
}

/* n numbers of size one that depend on `from`. */
static void numbers(double *x, int64_t n, int from)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = sin(1.7 * (double)i + from) + 0.3 * cos(0.9 * (double)i * from);
}

/* ---- the formulas of the paper: sums, not means, and no shortcut -------------------------------------------------------- */

typedef struct paper { double R[ROWS], C[COLUMNS], V[N]; } paper;

/* Algorithm 4 (matrix) or 5 (vector) on x [ROWS,COLUMNS] or [N], at step t, relative or at the given rate. */
static void paper_step(paper *s, int matrix, double *x, const double *g, int t, double lr, int relative)
{
    double beta = 1 - pow(t, -0.8), total = 0, u[N], square = 0, size = 0;
    double rho = relative ? fmin(lr, 1 / sqrt(t)) : lr;
    for (int i = 0; i < N; i++)
        size += x[i] * x[i] / N;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int c = 0; c < COLUMNS; c++)
            sum += g[r * COLUMNS + c] * g[r * COLUMNS + c] + 1e-30;
        s->R[r] = beta * s->R[r] + (1 - beta) * sum;
        total += s->R[r];
    }
    for (int c = 0; c < COLUMNS; c++) {
        double sum = 0;
        for (int r = 0; r < ROWS; r++)
            sum += g[r * COLUMNS + c] * g[r * COLUMNS + c] + 1e-30;
        s->C[c] = beta * s->C[c] + (1 - beta) * sum;
    }
    for (int i = 0; i < N; i++) {
        s->V[i] = beta * s->V[i] + (1 - beta) * (g[i] * g[i] + 1e-30);
        u[i] = g[i] / sqrt(matrix ? s->R[i / COLUMNS] * s->C[i % COLUMNS] / total : s->V[i]);
        square += u[i] * u[i] / N;
    }
    for (int i = 0; i < N; i++)
        x[i] -= (relative ? fmax(1e-3, sqrt(size)) : 1) * rho * u[i] / fmax(1, sqrt(square));
}

/* ---- through params and options ------------------------------------------------------------------------------------------- */

static nn_train_opts options(double lr, int relative)
{
    return (nn_train_opts){ .optimizer = NN_ADAFACTOR, .lr = lr, .relative_step = relative, .max_steps = 100, .decay_embeddings = 1 };
}

/* A matrix and a vector of N numbers each, begun with the same. */
static nn_params *make(k_dev *on, k_dtype dtype, const double *begin)
{
    nn_params *p = nn_params_new(on, dtype, 3);
    const attn_init zero = { ATTN_INIT_CONST, 0, 0 };
    nn_param(p, "matrix", (attn_dims){ 2, { ROWS, COLUMNS } }, zero, 0);
    nn_param(p, "vector", (attn_dims){ 1, { N } }, zero, ATTN_NO_DECAY);
    nn_param(p, "frozen", (attn_dims){ 2, { 2, 2 } }, zero, ATTN_FROZEN);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
    for (int i = 0; i < 2; i++)
        k_convert(on, N, nn_param_value(p, i), dtype, begin, K_F64);
    return p;
}

static void give(nn_params *p, k_dtype dtype, int step)
{
    double g[N];
    numbers(g, N, 10 + step);
    for (int i = 0; i < 2; i++)
        k_convert(dev, N, nn_param_grad(p, i), dtype, g, K_F64);
}

static void near(nn_params *p, k_dtype dtype, int i, const double *want, double bound)
{
    double got[N];
    k_convert(dev, N, got, K_F64, nn_param_value(p, i), dtype);
    for (int e = 0; e < N; e++)
        if (!(fabs(got[e] - want[e]) <= bound))
            fail_msg("%s[%d]: %.12g, by the paper %.12g", nn_param_name(p, i), e, got[e], want[e]);
}

/* Both kinds of parameter, in one dtype, relative (lr above and below 1 / sqrt t) and at a rate. */
static void follow(k_dtype dtype, double bound)
{
    static const struct { double lr; int relative; } how[] = { { 10, 1 }, { 0.01, 1 }, { 0.05, 0 } };
    for (size_t h = 0; h < 3; h++) {
        double x[2][N], g[N];
        paper s[2] = { 0 };
        nn_train_opts o = options(how[h].lr, how[h].relative);
        numbers(x[0], N, 1);
        memcpy(x[1], x[0], sizeof x[1]);
        nn_params *p = make(dev, dtype, x[0]), *q = make(many, dtype, x[0]);
        for (int t = 1; t <= STEPS; t++) {
            numbers(g, N, 10 + t);
            for (int i = 0; i < 2; i++)
                paper_step(&s[i], i == 0, x[i], g, t, how[h].lr, how[h].relative);
            give(p, dtype, t);
            give(q, dtype, t);
            assert_int_equal(nn_optimiser_step(p, &o, t), 0);
            assert_int_equal(nn_optimiser_step(q, &o, t), 0);
            for (int i = 0; i < 2; i++) {
                near(p, dtype, i, x[i], bound);
                assert_memory_equal(nn_param_value(p, i), nn_param_value(q, i), N * k_dtype_size(dtype));
            }
        }
        nn_params_free(p);
        nn_params_free(q);
    }
}

static void it_follows_the_paper(void **state)
{
    (void)state;
    follow(K_F64, 1e-13);
    follow(K_F32, 4e-6);
}

/* A gradient of nothing, and one of numbers whose squares float cannot hold beside 1e-30. */
static void small_gradients_are_no_trouble(void **state)
{
    (void)state;
    double x[N];
    nn_train_opts o = options(0.01, 1);
    numbers(x, N, 1);
    nn_params *p = make(dev, K_F32, x);
    nn_params_zero_grad(p);
    assert_int_equal(nn_optimiser_step(p, &o, 1), 0);
    near(p, K_F32, 0, x, 1e-7);
    for (int i = 0; i < 2; i++)
        k_fill(dev, K_F32, N, nn_param_grad(p, i), 1e-25);
    assert_int_equal(nn_optimiser_step(p, &o, 2), 0);
    assert_true(k_all_finite(dev, K_F32, N, nn_param_value(p, 0)) && k_all_finite(dev, K_F32, N, nn_param_value(p, 1)));
    nn_params_free(p);
}

/* A clipped gradient is a smaller one; on the first step, whose moment is its own square, that is all the same. */
static void gradients_are_scaled_first(void **state)
{
    (void)state;
    double x[N];
    nn_train_opts o = options(0.01, 0), clipped = o;
    clipped.clip = 1e-3;
    numbers(x, N, 1);
    nn_params *p = make(dev, K_F64, x), *q = make(dev, K_F64, x);
    for (int t = 1; t <= 2; t++) {
        give(p, K_F64, t);
        give(q, K_F64, t);
        assert_int_equal(nn_optimiser_step(p, &o, t), 0);
        assert_int_equal(nn_optimiser_step(q, &clipped, t), 0);
        k_convert(dev, N, x, K_F64, nn_param_value(p, 0), K_F64);
        if (t == 1)
            near(q, K_F64, 0, x, 1e-12);
    }
    double y[N], most = 0;
    k_convert(dev, N, y, K_F64, nn_param_value(q, 0), K_F64);
    for (int i = 0; i < N; i++)
        most = fmax(most, fabs(x[i] - y[i]));
    assert_true(most > 1e-5);           /* the second gradient has another norm than the first */
    nn_params_free(p);
    nn_params_free(q);
}

/* The moments are a row and a column of a matrix: far fewer than Adam's. */
static void its_memory_is_small(void **state)
{
    (void)state;
    size_t bytes[2];
    for (int kind = 0; kind < 2; kind++) {
        k_memory m;
        nn_params *p = nn_params_new(dev, K_F32, 1);
        nn_train_opts o = options(0.01, 1);
        o.optimizer = kind ? NN_ADAFACTOR : NN_ADAM;
        nn_param(p, "w", (attn_dims){ 2, { 512, 256 } }, (attn_init){ ATTN_INIT_CONST, 1, 0 }, 0);
        assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
        assert_int_equal(nn_params_moments(p, &o, why, sizeof why), 0);
        k_memory_read(dev, &m);
        bytes[kind] = m.now_tag[K_TAG_OPTIMISER];
        o.optimizer = kind ? NN_ADAMW : NN_ADAFACTOR;
        assert_int_equal(nn_params_moments(p, &o, why, sizeof why), ATTN_EINVAL);
        nn_params_free(p);
    }
    assert_int_equal(bytes[0] - bytes[1], (2 * 512 * 256 - 512 - 256) * 4);
}

/* Steps after a checkpoint are those that would have come without one, in params that had no moments before. */
static void checkpoints_hold_its_moments(void **state)
{
    (void)state;
    char path[] = P_tmpdir "/test_adafactor.XXXXXX";
    double x[N];
    nn_train_opts o = options(0.01, 1);
    close(mkstemp(path));
    numbers(x, N, 1);
    nn_params *p = make(dev, K_F32, x), *q = make(dev, K_F32, x), *adam = make(dev, K_F32, x);
    give(p, K_F32, 1);
    assert_int_equal(nn_optimiser_step(p, &o, 1), 0);
    assert_int_equal(nn_checkpoint_save(p, path, NULL, 0, why, sizeof why), 0);
    assert_int_equal(nn_checkpoint_load(q, path, NULL, 0, why, sizeof why), 0);
    nn_params *const both[] = { p, q };
    for (int i = 0; i < 2; i++) {
        give(both[i], K_F32, 2);
        assert_int_equal(nn_optimiser_step(both[i], &o, 2), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_memory_equal(nn_param_value(p, i), nn_param_value(q, i), N * 4);
    give(adam, K_F32, 1);
    o.optimizer = NN_ADAM;
    assert_int_equal(nn_optimiser_step(adam, &o, 1), 0);
    assert_int_equal(nn_checkpoint_load(adam, path, NULL, 0, why, sizeof why), ATTN_EINVAL);
    nn_params_free(p);
    nn_params_free(q);
    nn_params_free(adam);
    unlink(path);
}

/* Without a gradient only decay moves a value: matrices lose it, tables when they are meant to, others never. */
static void weight_decays_by_group(void **state)
{
    (void)state;
    static const struct { const char *name; int flags; } group[] = { { "matrix", 0 }, { "table", NN_TABLE }, { "bias", ATTN_NO_DECAY } };
    for (int kind = NN_ADAMW; kind <= NN_ADAFACTOR; kind++)
        for (int tables = 0; tables < 2; tables++) {
            nn_params *p = nn_params_new(dev, K_F64, 1);
            nn_train_opts o = options(0.5, 0);
            o.optimizer = kind;
            o.beta1 = 0.9, o.beta2 = 0.99, o.eps = 1e-8;
            o.weight_decay = 0.2;
            o.decay_embeddings = tables;
            for (int i = 0; i < 3; i++)
                nn_param(p, group[i].name, (attn_dims){ 2, { 3, 2 } }, (attn_init){ ATTN_INIT_CONST, 1, 0 }, group[i].flags);
            assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
            nn_params_zero_grad(p);
            assert_int_equal(nn_optimiser_step(p, &o, 1), 0);
            for (int i = 0; i < 3; i++) {
                double want = i == 0 || (i == 1 && tables) ? 0.9 : 1, *value = nn_param_value(p, i);
                if (fabs(value[5] - want) > 1e-12)
                    fail_msg("%s is %g, not %g", group[i].name, value[5], want);
            }
            nn_params_free(p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_follows_the_paper),       cmocka_unit_test(small_gradients_are_no_trouble),
        cmocka_unit_test(gradients_are_scaled_first), cmocka_unit_test(its_memory_is_small),
        cmocka_unit_test(checkpoints_hold_its_moments), cmocka_unit_test(weight_decays_by_group),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
