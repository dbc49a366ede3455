/* Every kernel of kernels.h in both precisions: against plain loops in double, at odd sizes, and the same bits
 * from one thread and from three. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "devices.h"
#include "kernels/philox.h"

enum { BUFFERS = 4 };

/* A case works on BUFFERS arrays of rows * d + d numbers each; what it does not name must stay as it was. */
typedef struct problem { int64_t rows, d, n; const int32_t *index; int variant; } problem;
typedef struct kernel_case {
    const char *name;
    void (*run)(k_dev *, k_dtype, const problem *, void **b);
    void (*naive)(const problem *, double **b);
    int variants, by_rows;                  /* by_rows: index holds columns 0..d-1 or -1, else rows */
} kernel_case;

#define EACH for (int64_t i = 0; i < p->n; i++)
#define ROWS for (int64_t r = 0; r < p->rows; r++)
#define COLUMNS for (int64_t j = 0; j < p->d; j++)

/* ---- element by element ----------------------------------------------------------------------------- */
static void run_fill(k_dev *v, k_dtype t, const problem *p, void **b) { k_fill(v, t, p->n, b[0], 0.7); }
static void naive_fill(const problem *p, double **b) { EACH b[0][i] = 0.7; }
static void run_axpy(k_dev *v, k_dtype t, const problem *p, void **b) { k_axpy(v, t, p->n, -1.5, b[0], b[1]); }
static void naive_axpy(const problem *p, double **b) { EACH b[1][i] += -1.5 * b[0][i]; }
static void run_scale(k_dev *v, k_dtype t, const problem *p, void **b) { k_scale(v, t, p->n, 0.3, b[2], b[p->variant]); }
static void naive_scale(const problem *p, double **b) { EACH b[2][i] = 0.3 * b[p->variant][i]; }
static void run_approach(k_dev *v, k_dtype t, const problem *p, void **b) { k_approach(v, t, p->n, 0.2, b[1], b[0]); }
static void naive_approach(const problem *p, double **b) { EACH b[1][i] = 0.8 * b[1][i] + 0.2 * b[0][i]; }
static void run_add(k_dev *v, k_dtype t, const problem *p, void **b)
{
    k_add(v, t, p->n, b[0], b[1], b[2]);
    k_add(v, t, p->n, b[0], b[0], b[1]);
}
static void naive_add(const problem *p, double **b) { EACH b[0][i] = b[1][i] + b[2][i] + b[1][i]; }
static void run_mul(k_dev *v, k_dtype t, const problem *p, void **b)
{
    k_mul(v, t, p->n, p->variant, b[0], b[1], b[2]);
    k_mul(v, t, p->n, 0, b[3], b[1], b[3]);
}
static void naive_mul(const problem *p, double **b)
{
    EACH b[0][i] = (p->variant ? b[0][i] : 0) + b[1][i] * b[2][i];
    EACH b[3][i] *= b[1][i];
}
static void run_copies(k_dev *v, k_dtype t, const problem *p, void **b)
{
    const size_t bytes = (size_t)p->n * k_dtype_size(t);
    k_copy(v, b[0], b[1], bytes);
    k_upload(v, b[1], b[2], bytes);
    k_download(v, b[2], b[3], bytes);
    k_zero(v, b[3], bytes);
}
static void naive_copies(const problem *p, double **b)
{
    EACH {
        b[0][i] = b[1][i];
        b[1][i] = b[2][i];
        b[2][i] = b[3][i];
        b[3][i] = 0;
    }
}

static double unary(int f, double x)
{
    switch (f) {
    case K_RELU: return x > 0 ? x : 0;
    case K_SIGMOID: return 1 / (1 + exp(-x));
    case K_TANH: return tanh(x);
    case K_EXP: return exp(x);
    case K_SILU: return x / (1 + exp(-x));
    case K_GELU: return 0.5 * x * (1 + erf(x / sqrt(2)));
    case K_SOFTPLUS: return log1p(exp(x));
    case K_ELU1: return x > 0 ? x + 1 : exp(x);
    }
    return NAN;
}
static void run_unary(k_dev *v, k_dtype t, const problem *p, void **b)
{
    const k_unary f = (k_unary)(p->variant % K_UNARIES);
    k_unary_forward(v, t, f, p->n, b[1], b[0]);
    k_unary_backward(v, t, f, p->n, p->variant >= K_UNARIES, b[3], b[2], b[0], b[1]);
}
/* The slope by central differences, exact to 1e-10; the second half of the variants adds. */
static void naive_unary(const problem *p, double **b)
{
    const double h = 1e-5;
    const int f = p->variant % K_UNARIES, add = p->variant >= K_UNARIES;
    EACH {
        const double x = b[0][i];
        b[1][i] = unary(f, x);
        b[3][i] = (add ? b[3][i] : 0) + b[2][i] * (unary(f, x + h) - unary(f, x - h)) / (2 * h);
    }
}

/* ---- optimiser: five steps, both kinds of weight decay ------------------------------------------------- */
static k_adam adam_of(const problem *p, int64_t step)
{
    return (k_adam){ .lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .weight_decay = p->variant ? 0.1 : 0,
                     .decoupled = p->variant == 2, .step = step };
}
static void run_adam(k_dev *v, k_dtype t, const problem *p, void **b)
{
    const double half = 0.5;
    k_zero(v, b[2], (size_t)p->n * k_dtype_size(t));
    k_zero(v, b[3], (size_t)p->n * k_dtype_size(t));
    for (int64_t step = 1; step <= 5; step++) {
        const k_adam o = adam_of(p, step);
        k_adam_step(v, t, p->n, b[0], b[1], b[2], b[3], &o, &half);
    }
}
static void naive_adam(const problem *p, double **b)
{
    EACH {
        double m = 0, s = 0, w = b[0][i];
        for (int t = 1; t <= 5; t++) {
            const k_adam o = adam_of(p, t);
            double g = 0.5 * b[1][i];
            if (o.decoupled)
                w -= o.lr * o.weight_decay * w;
            else
                g += o.weight_decay * w;
            m = o.beta1 * m + (1 - o.beta1) * g;
            s = o.beta2 * s + (1 - o.beta2) * g * g;
            w -= o.lr * (m / (1 - pow(o.beta1, t))) / (sqrt(s / (1 - pow(o.beta2, t))) + o.eps);
        }
        b[0][i] = w;
        b[2][i] = m;
        b[3][i] = s;
    }
}

/* ---- row by row ------------------------------------------------------------------------------------------ */
static void run_add_bias(k_dev *v, k_dtype t, const problem *p, void **b) { k_add_bias(v, t, p->rows, p->d, b[0], b[p->variant], b[1]); }
static void naive_add_bias(const problem *p, double **b) { ROWS COLUMNS b[0][r * p->d + j] = b[p->variant][r * p->d + j] + b[1][j]; }
static void run_sum_rows(k_dev *v, k_dtype t, const problem *p, void **b) { k_sum_rows(v, t, p->rows, p->d, b[0], b[1]); }
static void naive_sum_rows(const problem *p, double **b) { ROWS COLUMNS b[1][j] += b[0][r * p->d + j]; }
static void run_gather(k_dev *v, k_dtype t, const problem *p, void **b)
{
    k_gather_rows(v, t, p->rows, p->d, b[0], b[1], p->index, p->variant);
}
static void naive_gather(const problem *p, double **b)
{
    ROWS COLUMNS b[0][r * p->d + j] = (p->variant ? b[0][r * p->d + j] : 0) + b[1][p->index[r] * p->d + j];
}
static void run_scatter(k_dev *v, k_dtype t, const problem *p, void **b)
{
    k_scatter_add_rows(v, t, p->rows, p->d, p->rows, b[0], b[1], p->index);
}
static void naive_scatter(const problem *p, double **b)
{
    ROWS COLUMNS b[0][p->index[r] * p->d + j] += b[1][r * p->d + j];
}
/* Sequences of at most seven rows, of which some, none or all (variant 2: all, always) count. */
static void pools_of(const problem *p, int64_t *B, int64_t *T)
{
    *T = p->rows < 7 ? p->rows : 7;
    *B = *T ? p->rows / *T : 0;
}
static int64_t length_of(const problem *p, int64_t b, int64_t T) { return p->variant & 2 ? T : b * 5 % (T + 1); }
static void run_pool(k_dev *v, k_dtype t, const problem *p, void **b)
{
    int64_t B, T;
    pools_of(p, &B, &T);
    int32_t *len = malloc((size_t)(B + 1) * sizeof *len);
    for (int64_t i = 0; i < B; i++)
        len[i] = (int32_t)length_of(p, i, T);
    k_pool_forward(v, t, B, T, p->d, b[0], b[1], p->variant & 2 ? NULL : len);
    k_pool_backward(v, t, B, T, p->d, p->variant & 1, b[2], b[3], p->variant & 2 ? NULL : len);
    free(len);
}
static void naive_pool(const problem *p, double **b)
{
    int64_t B, T;
    pools_of(p, &B, &T);
    for (int64_t r = 0; r < B; r++) {
        const int64_t n = length_of(p, r, T);
        COLUMNS {
            double sum = 0;
            for (int64_t i = 0; i < T; i++) {
                double *dx = &b[2][(r * T + i) * p->d + j];
                sum += i < n ? b[1][(r * T + i) * p->d + j] / (double)n : 0;
                *dx = (p->variant & 1 ? *dx : 0) + (i < n ? b[3][r * p->d + j] / (double)n : 0);
            }
            b[0][r * p->d + j] = sum;
        }
    }
}
/* Twice, so that the ones of the first move are taken away. */
static void run_one_hot(k_dev *v, k_dtype t, const problem *p, void **b)
{
    int32_t *shown = calloc((size_t)p->rows * 2 + 1, sizeof *shown), *first = shown + p->rows;
    k_zero(v, b[0], (size_t)p->n * k_dtype_size(t));
    for (int64_t r = 0; r < p->rows; r++)
        first[r] = (int32_t)((p->index[r] + 1) % p->d);
    k_one_hot_move(v, t, p->rows, p->d, b[0], first, shown);
    for (int64_t r = 0; r < p->rows; r++)
        first[r] = p->index[r] < 0 ? 0 : p->index[r];
    k_one_hot_move(v, t, p->rows, p->d, b[0], first, shown);
    assert_memory_equal(shown, first, (size_t)p->rows * sizeof *shown);
    free(shown);
}
static void naive_one_hot(const problem *p, double **b)
{
    ROWS COLUMNS b[0][r * p->d + j] = j == (p->index[r] < 0 ? 0 : p->index[r]);
}
/* Every element alone: its word, and what comes of it; the second variant adds. */
static void run_dropout(k_dev *v, k_dtype t, const problem *p, void **b)
{
    uint32_t draw = 6;
    k_tick(v, &draw);
    k_dropout(v, t, p->n, 0.25, UINT64_C(0x100000002), 77, &draw, p->variant, b[0], b[1]);
}
static void naive_dropout(const problem *p, double **b)
{
    EACH {
        const double kept = philox_u32(UINT64_C(0x100000002), 77, 7, (uint64_t)i) >= 1u << 30 ? b[1][i] / 0.75 : 0;
        b[0][i] = (p->variant ? b[0][i] : 0) + kept;
    }
}

/* Variants: 1 RMS, 2 without gain and bias, 4 added to dx, 8 the gradients of gain and bias alone.  The vectors lie behind
 * the matrices: gain, dgain, bias, dbias behind x, y, dy, dx. */
static void run_norm(k_dev *v, k_dtype t, const problem *p, void **b)
{
    const k_norm_kind kind = p->variant & 1 ? K_NORM_RMS : K_NORM_LAYER;
    const int bare = p->variant & 2, alone = p->variant & 8;
    void *end[BUFFERS];
    for (int i = 0; i < BUFFERS; i++)
        end[i] = (char *)b[i] + (size_t)p->n * k_dtype_size(t);
    k_norm_forward(v, t, kind, p->rows, p->d, 0.1, b[1], b[0], bare ? NULL : end[0], bare ? NULL : end[2]);
    k_norm_backward(v, t, kind, p->rows, p->d, 0.1, p->variant & 4, alone ? NULL : b[3], bare ? NULL : end[1], bare ? NULL : end[3], b[2],
                    b[0], bare ? NULL : end[0]);
}
static void naive_norm(const problem *p, double **b)
{
    const int bare = p->variant & 2;
    const double *gain = b[0] + p->n, *bias = b[2] + p->n, D = (double)p->d;
    ROWS {
        const double *x = b[0] + r * p->d, *dy = b[2] + r * p->d;
        double *dx = b[3] + r * p->d, mean = 0, square = 0, sum = 0, dot = 0;
        COLUMNS mean += p->variant & 1 ? 0 : x[j] / D;
        COLUMNS square += (x[j] - mean) * (x[j] - mean);
        const double sd = sqrt(square / D + 0.1);
        COLUMNS {
            const double z = (x[j] - mean) / sd, g = dy[j] * (bare ? 1 : gain[j]);
            sum += p->variant & 1 ? 0 : g / D;
            dot += g * z / D;
            b[1][r * p->d + j] = bare ? z : z * gain[j] + bias[j];
            b[1][p->n + j] += bare ? 0 : dy[j] * z;
            b[3][p->n + j] += bare ? 0 : dy[j];
        }
        for (int64_t j = 0; !(p->variant & 8) && j < p->d; j++)
            dx[j] = (p->variant & 4 ? dx[j] : 0) + (dy[j] * (bare ? 1 : gain[j]) - sum - (x[j] - mean) / sd * dot) / sd;
    }
}
static const double quarter = 0.25;
static void run_half_sq(k_dev *v, k_dtype t, const problem *p, void **b)
{
    k_half_sq_forward(v, t, p->rows, p->d, b[1], b[0], p->index);
    k_half_sq_backward(v, t, p->rows, p->d, &quarter, p->variant, b[2], b[0], p->index);
}
static void naive_half_sq(const problem *p, double **b)
{
    ROWS {
        const int32_t hit = p->index[r];
        b[1][r] = 0;
        for (int64_t j = 0; !p->variant && j < p->d; j++)
            b[2][r * p->d + j] = 0;
        for (int64_t j = 0; hit >= 0 && j < p->d; j++) {
            const double miss = b[0][r * p->d + j] - (j == hit);
            b[1][r] += 0.5 * miss * miss;
            b[2][r * p->d + j] += 0.25 * miss;
        }
    }
}
/* Variants: 1 smoothed, 2 added to dy, 4 both at once in the place of the scores. */
static double smoothing_of(const problem *p) { return p->variant & 1 ? 0.3 : 0; }
static void run_xent(k_dev *v, k_dtype t, const problem *p, void **b)
{
    if (p->variant & 4) {
        k_xent_both(v, t, p->rows, p->d, p->d, smoothing_of(p), &quarter, b[1], b[0], p->index);
        return;
    }
    k_xent_forward(v, t, p->rows, p->d, p->d, smoothing_of(p), b[1], b[0], p->index);
    k_xent_backward(v, t, p->rows, p->d, smoothing_of(p), &quarter, p->variant & 2, b[2], b[0], p->index);
}
static void naive_xent(const problem *p, double **b)
{
    const double even = smoothing_of(p) / (double)p->d;
    ROWS {
        const double *y = b[0] + r * p->d;
        double *dy = b[p->variant & 4 ? 0 : 2] + r * p->d, total = 0;
        const int32_t hit = p->index[r];
        COLUMNS total += exp(y[j]);
        b[1][r] = 0;
        COLUMNS {
            const double q = even + (j == hit ? 1 - smoothing_of(p) : 0), share = exp(y[j]) / total;
            b[1][r] += hit < 0 ? 0 : q * (log(total) - y[j]);
            dy[j] = (p->variant & 2 && !(p->variant & 4) ? dy[j] : 0) + (hit < 0 ? 0 : 0.25 * (share - q));
        }
    }
}

static const kernel_case cases[] = {
    { "fill", run_fill, naive_fill, 1, 0 }, { "axpy", run_axpy, naive_axpy, 1, 0 }, { "scale", run_scale, naive_scale, 3, 0 },
    { "approach", run_approach, naive_approach, 1, 0 }, { "add", run_add, naive_add, 1, 0 }, { "mul", run_mul, naive_mul, 2, 0 }, { "copies", run_copies, naive_copies, 1, 0 },
    { "unary", run_unary, naive_unary, 2 * K_UNARIES, 0 }, { "adam", run_adam, naive_adam, 3, 0 },
    { "add_bias", run_add_bias, naive_add_bias, 3, 0 }, { "sum_rows", run_sum_rows, naive_sum_rows, 1, 0 },
    { "gather_rows", run_gather, naive_gather, 2, 0 }, { "scatter_add_rows", run_scatter, naive_scatter, 1, 0 },
    { "one_hot_move", run_one_hot, naive_one_hot, 1, 1 }, { "pool", run_pool, naive_pool, 4, 0 },
    { "dropout", run_dropout, naive_dropout, 2, 0 }, { "norm", run_norm, naive_norm, 16, 0 },
    { "half_sq", run_half_sq, naive_half_sq, 2, 1 }, { "xent", run_xent, naive_xent, 6, 1 },
};
static const struct { int64_t rows, d; } shapes[] = { { 0, 5 }, { 1, 1 }, { 3, 1 }, { 1, 17 }, { 17, 3 }, { 50, 20 }, { 1000, 41 },
                                                      { 40001, 1 }, { 2, 40001 }, { 700, 64 } };

/* ---- the walk over cases, shapes and precisions -------------------------------------------------------------- */
static void *take(size_t bytes)
{
    void *p;
    assert_int_equal(k_alloc(one, K_TAG_DATA, bytes, &p), 0);
    return p;
}

/* Number i of buffer b, in (-3, 3). */
static double number(int b, int64_t i) { return 6 * (double)philox_uniform(philox_u32(3, (uint32_t)b, 0, (uint64_t)i)) - 3; }
static double get(k_dtype t, const void *x, int64_t i) { return t == K_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i]; }

/* n numbers of buffer b, rounded to t. */
static void *draw(k_dtype t, int b, int64_t n)
{
    void *x = take((size_t)n * k_dtype_size(t));
    for (int64_t i = 0; i < n; i++)
        if (t == K_F64)
            ((double *)x)[i] = number(b, i);
        else
            ((float *)x)[i] = (float)number(b, i);
    return x;
}

static void check_buffer(const char *name, k_dtype t, const problem *p, int b, int64_t n, const void *got, const double *want)
{
    const double tolerance = t == K_F64 ? 2e-9 : 3e-5;      /* 2e-9 leaves room for the central differences */
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(get(t, got, i) - want[i]) <= tolerance * (1 + fabs(want[i]))))
            fail_msg("%s %d %s [%d,%d]: buffer %d element %d is %.9g, not %.9g", name, p->variant, k_dtype_name(t), (int)p->rows,
                     (int)p->d, b, (int)i, get(t, got, i), want[i]);
}

static void check_case(const kernel_case *c, k_dtype t, const problem *p)
{
    const int64_t n = p->n + p->d;
    void *x1[BUFFERS], *x3[BUFFERS];
    double *want[BUFFERS];
    for (int b = 0; b < BUFFERS; b++) {
        x1[b] = draw(t, b, n);
        x3[b] = draw(t, b, n);
        want[b] = take((size_t)n * sizeof *want[b]);
        for (int64_t i = 0; i < n; i++)
            want[b][i] = get(t, x1[b], i);
    }
    c->run(one, t, p, x1);
    c->run(three, t, p, x3);
    c->naive(p, want);
    for (int b = 0; b < BUFFERS; b++) {
        check_buffer(c->name, t, p, b, n, x1[b], want[b]);
        if (memcmp(x1[b], x3[b], (size_t)n * k_dtype_size(t)) != 0)
            fail_msg("%s %d %s [%d,%d]: three threads give other bits", c->name, p->variant, k_dtype_name(t), (int)p->rows, (int)p->d);
        k_free(one, x1[b]);
        k_free(one, x3[b]);
        k_free(one, want[b]);
    }
}

static void kernels_equal_plain_loops(void **state)
{
    (void)state;
    int32_t *index = take(40001 * sizeof *index);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            problem p = { shapes[s].rows, shapes[s].d, shapes[s].rows * shapes[s].d, index, 0 };
            for (int64_t r = 0; r < p.rows; r++) {
                const uint32_t bits = philox_u32(4, 0, 0, (uint64_t)r);
                index[r] = cases[c].by_rows ? (int32_t)philox_below(bits, (uint32_t)p.d + 1) - 1 : (int32_t)philox_below(bits, (uint32_t)p.rows);
            }
            for (; p.variant < cases[c].variants; p.variant++) {
                check_case(&cases[c], K_F32, &p);
                check_case(&cases[c], K_F64, &p);
            }
        }
    k_free(one, index);
}

static void cross_entropy_of_large_scores_is_finite(void **state)
{
    (void)state;
    const float y[3] = { 1000, 0, -1000 };
    float loss, dy[3] = { 0 };
    const int32_t target = 1;
    const double weight = 1;
    k_xent_forward(one, K_F32, 1, 3, 3, 0, &loss, y, &target);
    k_xent_backward(one, K_F32, 1, 3, 0, &weight, 0, dy, y, &target);
    assert_true(loss == 1000 && dy[0] == 1 && dy[1] == -1 && dy[2] == 0);
}

/* ---- the weight of a row in a mean, and what clips a gradient ------------------------------------------------- */
static void targets_that_count_share_the_mean(void **state)
{
    (void)state;
    const int32_t some[5] = { 3, -1, 0, -1, 7 }, none[2] = { -1, -1 };
    double weight;
    k_mean_weight(one, 5, some, &weight);
    assert_true(weight == 1.0 / 3);
    k_mean_weight(one, 2, none, &weight);
    assert_true(weight == 0);
}

static void long_gradients_are_clipped(void **state)
{
    (void)state;
    const double x[2] = { 3, -4 };
    double factor;
    k_clip_factor(one, K_F64, 2, x, 1, &factor);
    assert_true(factor == 0.2);
    k_clip_factor(one, K_F64, 2, x, 5, &factor);
    assert_true(factor == 1);
}

/* ---- questions about whole arrays ------------------------------------------------------------------------------ */
static void sums_of_squares_and_finiteness(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 0, 1, 3, 17, 1000, 40001, 1200007 };
    for (int t = K_F32; t <= K_F64; t += K_F64 - K_F32)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const int64_t n = sizes[s];
            char *x = draw((k_dtype)t, 0, n);
            double want = 0;
            for (int64_t i = 0; i < n; i++)
                want += get((k_dtype)t, x, i) * get((k_dtype)t, x, i);
            const double got = k_sum_squares(one, (k_dtype)t, n, x);
            assert_true(fabs(got - want) <= 1e-12 * want);
            assert_true(got == k_sum_squares(three, (k_dtype)t, n, x));
            assert_true(k_all_finite(one, (k_dtype)t, n, x) && k_all_finite(three, (k_dtype)t, n, x));
            for (int64_t at = 0; at < n; at += n / 3 + 1) {
                const int64_t size = (int64_t)k_dtype_size((k_dtype)t);
                k_fill(one, (k_dtype)t, 1, x + at * size, at ? INFINITY : NAN);
                assert_false(k_all_finite(one, (k_dtype)t, n, x) || k_all_finite(three, (k_dtype)t, n, x));
                k_fill(one, (k_dtype)t, 1, x + at * size, 1);
            }
            k_free(one, x);
        }
}

/* ---- products ------------------------------------------------------------------------------------------------------ */
typedef struct product { int64_t m, n, k, batches; } product;

static void check_product(k_dtype t, product z, int ta, int tb, double alpha, double beta)
{
    const int64_t size = (int64_t)k_dtype_size(t), lda = (ta ? z.m : z.k) + 3, ldb = (tb ? z.k : z.n) + 1, ldc = z.n + 2;
    const int64_t sA = (ta ? z.k : z.m) * lda, sB = z.batches > 2 ? 0 : (tb ? z.n : z.k) * ldb, sC = z.m * ldc;
    void *A = draw(t, 0, sA * z.batches + 1), *B = draw(t, 1, (tb ? z.n : z.k) * ldb * z.batches + 1);
    char *C1 = draw(t, 2, sC * z.batches), *C3 = draw(t, 2, sC * z.batches), *C0 = draw(t, 2, sC * z.batches);
    for (int64_t i = 0; beta == 0 && i < z.batches * z.m * z.n; i++)       /* NaN where C is to be overwritten */
        for (int c = 0; c < 2; c++)
            k_fill(one, t, 1, (c ? C1 : C3) + (i / (z.m * z.n) * sC + i / z.n % z.m * ldc + i % z.n) * size, NAN);
    if (z.batches == 1) {
        k_gemm(one, t, ta, tb, z.m, z.n, z.k, alpha, A, lda, B, ldb, beta, C1, ldc);
        k_gemm(three, t, ta, tb, z.m, z.n, z.k, alpha, A, lda, B, ldb, beta, C3, ldc);
    } else {
        k_gemm_batched(one, t, ta, tb, z.m, z.n, z.k, alpha, A, lda, sA, B, ldb, sB, beta, C1, ldc, sC, z.batches);
        k_gemm_batched(three, t, ta, tb, z.m, z.n, z.k, alpha, A, lda, sA, B, ldb, sB, beta, C3, ldc, sC, z.batches);
    }
    assert_memory_equal(C1, C3, (size_t)(sC * z.batches * size));
    for (int64_t b = 0; b < z.batches; b++)
        for (int64_t i = 0; i < z.m; i++)
            for (int64_t j = 0; j < ldc; j++) {
                const int64_t at = b * sC + i * ldc + j;
                double want = get(t, C0, at), sum = 0;
                for (int64_t p = 0; j < z.n && p < z.k; p++)
                    sum += get(t, A, b * sA + (ta ? p * lda + i : i * lda + p)) * get(t, B, b * sB + (tb ? j * ldb + p : p * ldb + j));
                want = j < z.n ? alpha * sum + (beta == 0 ? 0 : beta * want) : want;        /* beyond n: untouched */
                assert_true(fabs(get(t, C1, at) - want) <= (t == K_F64 ? 1e-12 : 1e-5) * (double)(z.k + 4));
            }
    void *all[] = { A, B, C1, C3, C0 };
    for (int i = 0; i < 5; i++)
        k_free(one, all[i]);
}

static void products_equal_plain_loops(void **state)
{
    (void)state;
    static const product all[] = { { 1, 1, 1, 1 }, { 1, 64, 40, 1 }, { 1, 17, 33, 1 }, { 33, 1, 17, 1 }, { 2, 3, 5, 1 }, { 17, 16, 31, 1 },
                                   { 1, 8, 0, 1 }, { 3, 4, 0, 1 }, { 0, 4, 4, 1 }, { 4, 0, 4, 1 }, { 300, 70, 61, 1 }, { 40, 333, 90, 1 },
                                   { 7, 9, 11, 5 }, { 1, 40, 64, 40 }, { 64, 64, 80, 2 } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int v = 0; v < 8; v++) {
            check_product(K_F32, all[i], v & 1, v >> 1 & 1, v >> 2 ? -0.5 : 1, v >> 2 ? 1.5 : 0);
            check_product(K_F64, all[i], v & 1, v >> 1 & 1, v >> 2 ? -0.5 : 1, v >> 2 ? 1.5 : 0);
        }
}

/* No kernel wrote beside its buffers: k_free leaves a sentence when one did. */
static void nothing_was_written_outside(void **state)
{
    (void)state;
    assert_string_equal(k_error(one), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_equal_plain_loops), cmocka_unit_test(cross_entropy_of_large_scores_is_finite),
        cmocka_unit_test(targets_that_count_share_the_mean), cmocka_unit_test(long_gradients_are_clipped),
        cmocka_unit_test(sums_of_squares_and_finiteness), cmocka_unit_test(products_equal_plain_loops),
        cmocka_unit_test(nothing_was_written_outside),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
