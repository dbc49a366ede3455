/* The vector functions of cpu.h against libm in double, in units of the last place; conversions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <string.h>
#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/philox.h"

enum { N = 1000, MANY = 40001 };

static float of_bits(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

/* |y - exact| in units of the last place of a float of exact's size. */
static double ulps(float y, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)y - exact) / ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

/* Walks all floats in steps, and every float near the ends of exp's range. */
static float walk(uint64_t i)
{
    static const float edges[] = { 88.7228317f, -87.3365479f, 88.3762626f, 0.34657359f, -0.34657359f, 1e-38f };
    if (i < 6 * 20000)
        return of_bits((uint32_t)((int64_t)(i % 20000) - 10000) + (union { float f; uint32_t u; }){ edges[i / 20000] }.u);
    return of_bits((uint32_t)(i * 997));
}

static void exp_is_within_two_ulps_everywhere(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t i = 0; i < (1ull << 32) / 997; i += N) {
        float x[N], y[N];
        for (int j = 0; j < N; j++)
            x[j] = walk(i + (uint64_t)j);
        k_sexp(N, y, x);
        for (int j = 0; j < N; j++) {
            const double exact = exp((double)x[j]);
            if (x[j] != x[j])
                assert_true(y[j] != y[j]);
            else if (exact > FLT_MAX)
                assert_true(y[j] == INFINITY || (y[j] > 3.4028e38f && exact < 3.4029e38));
            else if (exact < FLT_MIN)
                assert_true(y[j] == 0 || (double)y[j] < 1.000001 * FLT_MIN);
            else
                worst = fmax(worst, ulps(y[j], exact));
        }
    }
    print_message("# exp: %.2f ulp\n", worst);
    assert_true(worst <= 2);
}

static void exp_of_special_values(void **state)
{
    (void)state;
    const float x[9] = { 0, -0.0f, INFINITY, -INFINITY, of_bits(0xffffffff), of_bits(0x7f800001), NAN, 1000, -1000 };
    float y[9];
    k_sexp(9, y, x);
    assert_true(y[0] == 1 && y[1] == 1 && y[2] == INFINITY && y[3] == 0 && y[7] == INFINITY && y[8] == 0);
    assert_true(y[4] != y[4] && y[5] != y[5] && y[6] != y[6]);          /* 0xff.. is the poison of debug memory */
    k_stanh(9, y, x);
    assert_true(y[0] == 0 && y[2] == 1 && y[3] == -1 && y[4] != y[4] && y[7] == 1 && y[8] == -1);
    k_ssigmoid(9, y, x);
    assert_true(y[0] == 0.5f && y[2] == 1 && y[3] == 0 && y[4] != y[4] && y[7] == 1 && y[8] == 0);
}

static void sigmoid_and_tanh_are_within_four_ulps(void **state)
{
    (void)state;
    double worst_tanh = 0, worst_sigmoid = 0;
    for (int i = 0; i < 2000; i++) {
        float x[N], s[N], t[N];
        for (int j = 0; j < N; j++)
            x[j] = ldexpf(philox_uniform(philox_u32(1, 0, 0, (uint64_t)(i * N + j))) * 2 - 1, i % 40 - 33);
        k_ssigmoid(N, s, x);
        k_stanh(N, t, x);
        for (int j = 0; j < N; j++) {
            worst_tanh = fmax(worst_tanh, ulps(t[j], tanh((double)x[j])));
            worst_sigmoid = fmax(worst_sigmoid, ulps(s[j], 1 / (1 + exp(-(double)x[j]))));
        }
    }
    print_message("# tanh: %.2f ulp, sigmoid: %.2f ulp\n", worst_tanh, worst_sigmoid);
    assert_true(worst_tanh <= 4);
    assert_true(worst_sigmoid <= 4);
}

static float x[MANY], y[MANY], z[MANY];

static void sums_and_maxima_at_odd_sizes(void **state)
{
    (void)state;
    static const int sizes[] = { 0, 1, 3, 17, 63, 1000, MANY };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int n = sizes[s];
        double dot = 0, total = 0, magnitude = 0;
        float max = -INFINITY;
        for (int i = 0; i < n; i++) {
            x[i] = philox_uniform(philox_u32(2, 0, 0, (uint64_t)i)) * 6 - 5;
            y[i] = philox_uniform(philox_u32(2, 1, 0, (uint64_t)i)) - 0.5f;
            dot += (double)x[i] * (double)y[i];
            magnitude += fabs((double)x[i] * (double)y[i]);
            max = x[i] > max ? x[i] : max;
        }
        assert_true(fabs((double)k_sdot(n, x, y) - dot) <= 1e-6 * magnitude);
        assert_true(k_smax(n, x) == max);
        const float sum = k_sexp_sum(n, z, x, max);
        for (int i = 0; i < n; i++) {
            const double exact = exp((double)(x[i] - max));
            assert_true(ulps(z[i], exact) <= 2);
            total += exact;
        }
        assert_true(fabs((double)sum - total) <= 1e-5 * total);
        memcpy(z, y, sizeof z);
        k_saxpy(n, 2, x, z);
        for (int i = 0; i < n; i++)
            assert_true(z[i] == fmaf(2, x[i], y[i]) || z[i] == 2 * x[i] + y[i]);
    }
    assert_true(k_smax(0, x) == -INFINITY);
}

static double convert_one(k_dev *dev, k_dtype through, double value)
{
    double back;
    uint64_t middle = 0;
    k_convert(dev, 1, &middle, through, &value, K_F64);
    k_convert(dev, 1, &back, K_F64, &middle, through);
    return back;
}

/* (I + T) x, or (I + T') x, is what was given. */
static void substitution_solves_both_ways(void **state)
{
    (void)state;
    enum { N = 19, WIDTH = 5, LD = 23 };
    float T[N * LD], x[N * WIDTH], y[N * WIDTH];
    for (int i = 0; i < N * LD; i++)
        T[i] = i % LD < i / LD ? 0.1f * (float)(i * 7 % 11 - 5) : NAN;  /* only the strict lower triangle may be read */
    for (int transposed = 0; transposed < 2; transposed++) {
        for (int i = 0; i < N * WIDTH; i++)
            x[i] = y[i] = (float)(i * 5 % 13 - 6);
        k_ssolve_unit(transposed, N, WIDTH, T, LD, x);
        for (int i = 0; i < N; i++)
            for (int e = 0; e < WIDTH; e++) {
                double sum = x[i * WIDTH + e], size = fabs(sum);
                for (int j = 0; j < N; j++) {
                    double t = j == i || (j < i) == transposed ? 0 : transposed ? T[j * LD + i] : T[i * LD + j];
                    sum += t * x[j * WIDTH + e];
                    size += fabs(t * x[j * WIDTH + e]);
                }
                assert_true(fabs(sum - y[i * WIDTH + e]) <= 1e-5 * (1 + size));
            }
    }
}

static void conversions_round_to_even(void **state)
{
    (void)state;
    static const struct { k_dtype t; double in, out; } known[] = {
        { K_F16, 1 + 0x1p-11, 1 }, { K_F16, 1 + 0x3p-11, 1 + 0x1p-9 }, { K_F16, 65504, 65504 }, { K_F16, 65519, 65504 },
        { K_F16, 65520, INFINITY }, { K_F16, 0x1p-24, 0x1p-24 }, { K_F16, 0x1p-25, 0 }, { K_F16, 0x1.8p-24, 0x1p-23 },
        { K_F16, 1023.9 * 0x1p-24, 0x1p-14 }, { K_F16, 2047.7, 2048 }, { K_F16, -INFINITY, -INFINITY }, { K_F16, -0.3, -0x1.334p-2 },
        { K_BF16, 1 + 0x1p-8, 1 }, { K_BF16, 1 + 0x3p-8, 1 + 0x1p-6 }, { K_BF16, -3.39e38, -0x1p128 * 0.99609375 },
        { K_BF16, FLT_MAX, INFINITY }, { K_F32, 1 + 0x1p-24, 1 }, { K_F32, 1e300, INFINITY }, { K_I32, -7, -7 }, { K_I32, 2.5, 2 },
    };
    char err[64];
    k_dev *dev;
    assert_int_equal(k_dev_open("cpu", 1, &dev, err, sizeof err), 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_true(convert_one(dev, known[i].t, known[i].in) == known[i].out);
    assert_true(isnan(convert_one(dev, K_F16, NAN)) && isnan(convert_one(dev, K_BF16, NAN)));
    for (uint32_t h = 0; h < 1 << 16; h++) {                /* every half-size number survives the way there and back */
        uint16_t in = (uint16_t)h, out;
        float f;
        for (int t = K_BF16; t <= K_F16; t *= 2) {
            k_convert(dev, 1, &f, K_F32, &in, (k_dtype)t);
            k_convert(dev, 1, &out, (k_dtype)t, &f, K_F32);
            assert_true(out == in || f != f);
        }
    }
    k_dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_two_ulps_everywhere), cmocka_unit_test(exp_of_special_values),
        cmocka_unit_test(sigmoid_and_tanh_are_within_four_ulps), cmocka_unit_test(sums_and_maxima_at_odd_sizes),
        cmocka_unit_test(conversions_round_to_even), cmocka_unit_test(substitution_solves_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
