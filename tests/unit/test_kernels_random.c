/* Philox against its published vectors, uniform and normal numbers, orthogonal random features. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "devices.h"
#include "kernels/normal.h"

enum { N = 40001 };

static void *take(size_t bytes)
{
    void *p;
    assert_int_equal(k_alloc(one, K_TAG_DATA, bytes, &p), 0);
    return p;
}

/* Random123's kat_vectors for philox4x32, 10 rounds. */
static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct { uint64_t seed, block; uint32_t stream, draw, word[4]; } known[] = {
        { 0, 0, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { 0x299f31d0a4093822, 0x85a308d3243f6a88, 0x13198a2e, 0x03707344, { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        philox4 got = philox4x32_10(known[i].seed, known[i].block, known[i].stream, known[i].draw);
        assert_memory_equal(got.v, known[i].word, sizeof got.v);
    }
    assert_int_equal(philox_u32(0, 0, 0, 2), 0xbc57ac4c);
    assert_int_equal(philox_below(UINT32_MAX, 10), 9);
    assert_true(philox_uniform(UINT32_MAX) < 1);
}

static void elements_depend_on_their_index_alone(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 0, 1, 3, 17, 1000, N };
    const k_rng r = { 5, 6, 7 };
    double *all = take(N * sizeof *all), *part = take(N * sizeof *part);
    k_random_normal(one, K_F64, N, all, r, 0, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        k_random_normal(three, K_F64, sizes[s], part, r, 0, 1);
        assert_memory_equal(part, all, (size_t)sizes[s] * sizeof *all);
    }
    k_random_uniform(one, K_F64, N, all, r, -1, 3);
    k_random_uniform(three, K_F64, N, part, r, -1, 3);
    assert_memory_equal(part, all, N * sizeof *all);
    for (int64_t i = 0; i < N; i++)
        assert_true(all[i] == philox_u32(r.seed, r.stream, r.draw, (uint64_t)i) * 0x1p-30 - 1);
    k_random_uniform(one, K_F64, N, part, (k_rng){ 5, 6, 8 }, -1, 3);
    assert_memory_not_equal(part, all, N * sizeof *all);
    k_free(one, all);
    k_free(one, part);
}

static void floats_are_the_rounded_doubles(void **state)
{
    (void)state;
    const k_rng r = { 11, 0, 0 };
    double *d = take(N * sizeof *d);
    float *f = take(N * sizeof *f);
    k_random_normal(one, K_F64, N, d, r, 0.5, 2);
    k_random_normal(one, K_F32, N, f, r, 0.5, 2);
    for (int64_t i = 0; i < N; i++)
        assert_true(f[i] == (float)d[i]);
    k_random_uniform(one, K_F64, N, d, r, 1, 1 + 0x1p-22);      /* a few floats wide: many would round to hi */
    k_random_uniform(one, K_F32, N, f, r, 1, 1 + 0x1p-22);
    for (int64_t i = 0; i < N; i++) {
        assert_true(d[i] >= 1 && d[i] < 1 + 0x1p-22);
        assert_true(f[i] >= 1 && f[i] < 1 + 0x1p-22f);
        assert_true(f[i] == fminf((float)d[i], nextafterf(1 + 0x1p-22f, 0)));
    }
    k_free(one, d);
    k_free(one, f);
}

static void normal_numbers_follow_libm(void **state)
{
    (void)state;
    double worst = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        const uint32_t w0 = philox_u32(1, 0, 0, 2 * i) >> (i % 32), w1 = philox_u32(1, 0, 0, 2 * i + 1);
        const double radius = sqrt(-2 * log((w0 + 0.5) * 0x1p-32)), angle = 2 * M_PI * (w1 * 0x1p-32);
        double z0, z1;
        normal_pair(w0, w1, &z0, &z1);
        worst = fmax(worst, fmax(fabs(z0 - radius * cos(angle)), fabs(z1 - radius * sin(angle))));
    }
    assert_true(worst < 1e-14);
}

static void normal_numbers_have_their_moments(void **state)
{
    (void)state;
    enum { MANY = 1 << 20 };
    double *x = take(MANY * sizeof *x), sum[5] = { 0 }, neighbours = 0, largest = 0;
    k_random_normal(three, K_F64, MANY, x, (k_rng){ 2026, 1, 0 }, 0, 1);
    for (int i = 0; i < MANY; i++) {
        double power = 1;
        for (int k = 0; k < 5; k++, power *= x[i])
            sum[k] += power / MANY;
        neighbours += i % 2 ? x[i] * x[i - 1] * 2 / MANY : 0;
        largest = fmax(largest, fabs(x[i]));
    }
    const double sigma = 1 / sqrt((double)MANY);                /* four standard errors of each moment */
    assert_true(fabs(sum[1]) < 4 * sigma);
    assert_true(fabs(sum[2] - 1) < 4 * sigma * sqrt(2));
    assert_true(fabs(sum[3]) < 4 * sigma * sqrt(15));
    assert_true(fabs(sum[4] - 3) < 4 * sigma * sqrt(96));
    assert_true(fabs(neighbours) < 4 * sigma * sqrt(2));        /* the two numbers of a pair */
    assert_true(largest > 4.2 && largest < 6.77);
    k_free(one, x);
}

static double product(int64_t D, const double *x, const double *y)
{
    double s = 0;
    for (int64_t i = 0; i < D; i++)
        s += x[i] * y[i];
    return s;
}

/* Rows of a group of D are orthogonal, whatever m is against D. */
static void check_orthogonal(int64_t blocks, int64_t m, int64_t D, int chi)
{
    const size_t n = (size_t)(blocks * m * D);
    double *x = take(n * sizeof *x), *y = take(n * sizeof *y);
    float *f = take(n * sizeof *f);
    const k_rng r = { 3, 4, 5 };
    k_random_orthogonal(one, K_F64, blocks, m, D, x, r, chi);
    k_random_orthogonal(three, K_F64, blocks, m, D, y, r, chi);
    k_random_orthogonal(one, K_F32, blocks, m, D, f, r, chi);
    assert_memory_equal(x, y, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        assert_true(f[i] == (float)x[i]);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < m; i++) {
            const double *xi = x + (b * m + i) * D, length = sqrt(product(D, xi, xi));
            if (!chi)
                assert_true(fabs(length - sqrt((double)D)) < 1e-12 * length);
            for (int64_t j = i / D * D; j < i; j++) {
                const double *xj = x + (b * m + j) * D;
                assert_true(fabs(product(D, xi, xj)) < 1e-12 * length * sqrt(product(D, xj, xj)));
            }
        }
    k_free(one, x);
    k_free(one, y);
    k_free(one, f);
}

/* Row r is in the direction of numbers 4 r .. of the stream, as long as those from counter block 2^62 + r on. */
static void random_features_come_from_known_counters(void **state)
{
    (void)state;
    const k_rng r = { 77, 1, 2 };
    double x[8], z[2][4];
    k_random_orthogonal(one, K_F64, 1, 2, 4, x, r, 1);
    for (uint64_t row = 0; row < 2; row++) {
        const philox4 w = philox4x32_10(r.seed, row ? (1ull << 62) + 1 : 0, r.stream, r.draw);
        normal_pair(w.v[0], w.v[1], &z[row][0], &z[row][1]);
        normal_pair(w.v[2], w.v[3], &z[row][2], &z[row][3]);
    }
    const double length = sqrt(product(4, x, x));
    assert_true(fabs(product(4, x, z[0]) - length * sqrt(product(4, z[0], z[0]))) < 1e-13);
    assert_true(fabs(sqrt(product(4, x + 4, x + 4)) - sqrt(product(4, z[1], z[1]))) < 1e-13);
}

static void random_features_are_orthogonal(void **state)
{
    (void)state;
    check_orthogonal(1, 1, 1, 0);
    check_orthogonal(3, 5, 8, 1);
    check_orthogonal(2, 17, 7, 0);
    check_orthogonal(2, 128, 64, 1);
    check_orthogonal(1, 150, 130, 1);
}

/* The squared lengths of chi rows are chi-squared with D degrees: mean D, variance 2 D; without chi every row has
 * D; and no entry of Q prefers a sign, as it would if R's diagonal were not positive. */
static void random_features_are_drawn_evenly(void **state)
{
    (void)state;
    enum { BLOCKS = 2000, D = 8 };
    double *x = take(BLOCKS * D * D * sizeof *x), mean = 0, square = 0, first = 0;
    k_random_orthogonal(one, K_F64, BLOCKS, D, D, x, (k_rng){ 9, 0, 0 }, 1);
    for (int i = 0; i < BLOCKS * D; i++) {
        const double s = product(D, x + i * D, x + i * D);
        mean += s / (BLOCKS * D);
        square += s * s / (BLOCKS * D);
    }
    for (int b = 0; b < BLOCKS; b++)
        first += x[b * D * D] / BLOCKS;
    assert_true(fabs(mean - D) < 4 * sqrt(2.0 * D / (BLOCKS * D)));
    assert_true(fabs(square - mean * mean - 2 * D) < 1.5);
    assert_true(fabs(first) < 4 / sqrt((double)BLOCKS));
    k_free(one, x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors), cmocka_unit_test(elements_depend_on_their_index_alone),
        cmocka_unit_test(floats_are_the_rounded_doubles), cmocka_unit_test(normal_numbers_follow_libm),
        cmocka_unit_test(normal_numbers_have_their_moments), cmocka_unit_test(random_features_come_from_known_counters),
        cmocka_unit_test(random_features_are_orthogonal),
        cmocka_unit_test(random_features_are_drawn_evenly),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
