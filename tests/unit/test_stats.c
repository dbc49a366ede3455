/* test_stats.c - Student's t against tables, fits and crossings against curves that are known, the rank test against
 * published p values, and every interval against how often it holds the truth. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "kernels/philox.h"
#include "stats.h"

static void close_to(double got, double expected, double relative)
{
    if (!(fabs(got - expected) <= relative * fabs(expected))) fail_msg("%.17g should be %.17g", got, expected);
}

/* Values of R's qt(), which agree with the tables in print. */
static void test_t_quantiles(void **state)
{
    (void)state;
    const struct { double p, dof, t; } known[] = {
        { 0.975, 1, 12.706204736174694 }, { 0.975, 2, 4.302652729749462 }, { 0.975, 3, 3.182446305283708 },
        { 0.975, 4, 2.776445105197793 },  { 0.975, 9, 2.262157162798205 }, { 0.975, 10, 2.228138851986274 },
        { 0.975, 30, 2.042272456301238 }, { 0.975, 1000, 1.962339080826408 }, { 0.95, 5, 2.015048373333024 },
        { 0.995, 3, 5.840909309733355 },  { 0.75, 1, 1.0 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        close_to(hs_t_quantile(known[i].p, known[i].dof), known[i].t, 1e-9);
        close_to(hs_t_quantile(1 - known[i].p, known[i].dof), -known[i].t, 1e-9);
    }
    close_to(hs_t_quantile(0.975, 1e7), 1.9599640, 1e-6);   /* the normal distribution */
}

static void test_interval(void **state)
{
    (void)state;
    const double x[] = { 4.1, 3.9, 4.4, 4.0, 4.6 };
    hs_interval r = hs_mean_interval(x, 5);
    double half = 2.776445105197793 * sqrt(0.085) / sqrt(5);        /* sum of squares .34, variance .085 */
    close_to(r.mean, 4.2, 1e-14);
    close_to(hs_deviation(x, 5), sqrt(0.085), 1e-12);
    close_to(r.low, 4.2 - half, 1e-10);
    close_to(r.high, 4.2 + half, 1e-10);
    assert_int_equal(r.n, 5);
}

static void test_edges(void **state)
{
    (void)state;
    const double one = 7, far[] = { 1e9 + 1, 1e9 + 2, 1e9 + 3 };
    hs_interval r = hs_mean_interval(&one, 1);
    assert_true(r.mean == 7 && r.low == 7 && r.high == 7);
    assert_true(isnan(hs_mean_interval(&one, 0).mean));
    close_to(hs_deviation(far, 3), 1, 1e-12);
}

/* ---- power laws -------------------------------------------------------------------------------------------------- */
enum { POINTS = 14 };

/* Lengths 2^7 to 2^20. */
static void lengths(double x[POINTS])
{
    for (int i = 0; i < POINTS; i++) x[i] = exp2(7 + i);
}

/* A normal number, element i of its draw. */
static double normal(uint32_t draw, uint32_t i)
{
    philox4 r = philox4x32_10(2026, i, 7, draw);
    return sqrt(-2 * log(((double)r.v[0] + 0.5) * 0x1p-32)) * cos(2 * M_PI * ((double)r.v[1] + 0.5) * 0x1p-32);
}

/* Five points whose scatter has neither slope nor bend: -1 2 0 -2 1, a tenth of it; standard error sqrt(0.1 / 3 / 10). */
static void test_a_line_by_hand(void **state)
{
    (void)state;
    const double scatter[] = { -1, 2, 0, -2, 1 };
    double x[5], y[5];
    hs_power p;
    for (int i = 0; i < 5; i++) {
        x[i] = exp(i);
        y[i] = exp(0.2 + 0.6 * i + 0.01 * scatter[i]);
    }
    assert_true(hs_power_fit(x, y, NULL, 5, &p, NULL));
    assert_int_equal(p.first, 0);
    close_to(p.slope.mean, 0.6, 1e-9);
    close_to(p.slope.high - p.slope.mean, 3.182446305283708 * sqrt(0.1 / 3 / 10) * 0.1, 1e-6);
    close_to(p.shift, 0.2, 1e-6);
    close_to(p.deviation, sqrt(0.1 / 3) * 0.1, 1e-6);
    close_to(hs_power_at(&p, exp(3)), exp(2), 1e-9);
}

/* Three points that lie on a line by luck are as uncertain as their errors are. */
static void test_errors_bound_the_interval(void **state)
{
    (void)state;
    const double x[] = { 1, 2, 4 }, y[] = { 3, 6, 12 }, error[] = { 0.01, 0.02, 0.01 }, unknown[] = { NAN, NAN, NAN };
    hs_power p;
    assert_true(hs_power_fit(x, y, error, 3, &p, NULL));
    close_to(p.slope.high - p.slope.mean, 1.959963984540054 * sqrt(2) * 0.01 / (2 * log(2)), 1e-9);
    assert_true(hs_power_fit(x, y, unknown, 3, &p, NULL));
    assert_true(p.slope.high - p.slope.mean < 1e-9);
}

/* A power law is found whole; under a constant cost its tail alone is, and the slope comes out right. */
static void test_the_plateau_is_left_out(void **state)
{
    (void)state;
    double x[POINTS], y[POINTS];
    hs_power p;
    lengths(x);
    for (double slope = 0.5; slope <= 3; slope += 0.5) {
        for (int i = 0; i < POINTS; i++) y[i] = 3e-9 * pow(x[i], slope);
        assert_true(hs_power_fit(x, y, NULL, POINTS, &p, NULL));
        assert_int_equal(p.first, 0);
        close_to(p.slope.mean, slope, 1e-9);
        assert_true(p.slope.high - p.slope.low < 1e-9);
    }
    for (double slope = 1; slope <= 2; slope++)
        for (int knee = 2; knee < 9; knee++) {
            for (int i = 0; i < POINTS; i++) y[i] = fmax(1e-5, 1e-5 * pow(x[i] / x[knee], slope));
            assert_true(hs_power_fit(x, y, NULL, POINTS, &p, NULL));
            assert_in_range(p.first, knee, knee);
            close_to(p.slope.mean, slope, 1e-9);
            for (int i = 0; i < POINTS; i++) y[i] = 1e-5 * (1 + pow(x[i] / x[knee], slope));      /* as a launch adds up */
            assert_true(hs_power_fit(x, y, NULL, POINTS, &p, NULL));
            assert_in_range(p.first, knee, knee + 5);
            int near = p.kept > 3 ? fabs(p.slope.mean - slope) < 0.03 : p.slope.low < slope && slope < p.slope.high;
            if (!near) fail_msg("slope %g, knee %d: %g from %zu", slope, knee, p.slope.mean, p.first);
        }
}

/* A curve that is still bending at its end has no slope; neither have two points. */
static void test_no_power_law_no_fit(void **state)
{
    (void)state;
    double x[POINTS], y[POINTS];
    unsigned char out[POINTS];
    hs_power p;
    lengths(x);
    for (int i = 0; i < POINTS; i++) y[i] = exp(0.2 * i * i);
    assert_false(hs_power_fit(x, y, NULL, POINTS, &p, out));
    assert_int_equal(p.kept, 0);
    assert_int_equal(p.first, POINTS);
    assert_false(hs_power_fit(x, y, NULL, 2, &p, NULL));
    assert_false(hs_power_fit(x, y, NULL, 0, &p, NULL));
}

/* One wrong point among many is flagged and does not move the slope. */
static void test_an_outlier_is_flagged(void **state)
{
    (void)state;
    double x[POINTS], y[POINTS];
    unsigned char out[POINTS];
    hs_power p;
    lengths(x);
    for (int wrong = 1; wrong < POINTS - 1; wrong++) {
        for (int i = 0; i < POINTS; i++) y[i] = 1e-8 * x[i] * exp(0.01 * normal((uint32_t)wrong, (uint32_t)i));
        y[wrong] *= 1.5;
        assert_true(hs_power_fit(x, y, NULL, POINTS, &p, out));
        for (int i = 0; i < POINTS; i++) assert_int_equal(out[i], i == wrong);
        assert_int_equal(p.first, 0);
        assert_int_equal(p.kept, POINTS - 1);
        assert_true(fabs(p.slope.mean - 1) < 0.01);
    }
}

/* How often the 95 % interval holds the slope, with and without a plateau before the tail. */
static void test_coverage_of_the_slope(void **state)
{
    (void)state;
    enum { TRIALS = 2000 };
    double x[POINTS], y[POINTS];
    lengths(x);
    for (int knee = 0; knee <= 6; knee += 6)
        for (double scatter = 0.005; scatter < 0.05; scatter *= 3) {
            int held = 0, fitted = 0;
            for (uint32_t k = 0; k < TRIALS; k++) {
                hs_power p;
                for (int i = 0; i < POINTS; i++)
                    y[i] = fmax(1, pow(x[i] / x[knee], 1.5)) * exp(scatter * normal(k + 10000 * (uint32_t)knee, (uint32_t)i));
                if (!hs_power_fit(x, y, NULL, POINTS, &p, NULL)) continue;
                fitted++;
                held += p.slope.low <= 1.5 && 1.5 <= p.slope.high;
            }
            double share = (double)held / fitted;
            if (fitted < 0.99 * TRIALS || share < 0.935 || share > 0.995)
                fail_msg("knee %d, scatter %g: %d fitted, %.4f hold the slope", knee, scatter, fitted, share);
        }
}

/* A constant cost under the power law fades slowly: the interval, widened by the bend that is left, still holds the slope
 * mostly, and the slope is at most some hundredths too low. */
static void test_a_constant_cost_biases_little(void **state)
{
    (void)state;
    enum { TRIALS = 500 };
    double x[POINTS], y[POINTS];
    lengths(x);
    for (int knee = 3; knee <= 5; knee++) {
        int held = 0;
        double sum = 0;
        for (uint32_t k = 0; k < TRIALS; k++) {
            hs_power p;
            for (int i = 0; i < POINTS; i++) y[i] = (1 + x[i] / x[knee]) * exp(0.01 * normal(k, (uint32_t)(POINTS * knee + i)));
            assert_true(hs_power_fit(x, y, NULL, POINTS, &p, NULL));
            sum += p.slope.mean - 1;
            held += p.slope.low <= 1 && 1 <= p.slope.high;
        }
        if (sum / TRIALS < -0.02 || held < 0.75 * TRIALS) fail_msg("knee %d: bias %g, %d of %d hold", knee, sum / TRIALS, held, TRIALS);
    }
}

/* ---- crossings --------------------------------------------------------------------------------------------------- */
/* T against T^2 / 1000 cross at 1000, whatever the grid. */
static void test_crossing_of_two_lines(void **state)
{
    (void)state;
    double x[POINTS], a[POINTS], b[POINTS], none[POINTS] = { 0 }, some[POINTS];
    lengths(x);
    for (int i = 0; i < POINTS; i++) {
        a[i] = x[i];
        b[i] = x[i] * x[i] / 1000;
        some[i] = 0.02;
    }
    hs_crossing c = hs_crossing_of(x, a, b, none, POINTS);
    assert_int_equal(c.kind, HS_CROSS_AT);
    close_to(c.at, 1000, 1e-9);
    close_to(c.low, 1000, 1e-9);
    close_to(c.high, 1000, 1e-9);
    c = hs_crossing_of(x, a, b, some, POINTS);      /* near 1024, so that this point's error is the crossing's */
    close_to(c.at, 1000, 1e-9);
    close_to(log(c.high / c.low), 2 * 1.96 * 0.02 * log(1000 / 512.) / log(2), 0.1);
    assert_int_equal(hs_crossing_of(x, b, a, some, POINTS).kind, HS_CROSS_NEVER);
    assert_true(isinf(hs_crossing_of(x, b, a, some, POINTS).low));
    c = hs_crossing_of(x, a, b, some, 3);           /* 128, 256, 512 */
    assert_int_equal(c.kind, HS_CROSS_NEVER);
    c = hs_crossing_of(x + 4, a + 4, b + 4, some, POINTS - 4);
    assert_int_equal(c.kind, HS_CROSS_ALWAYS);
    assert_true(c.low == 0 && c.high == 0);
    assert_int_equal(hs_crossing_of(x, a, b, some, 0).kind, HS_CROSS_NEVER);
}

/* Under equal launches the curves bend where they cross, at 3000: on a grid of octaves it is found to 3 %. */
static void test_crossing_on_bent_curves(void **state)
{
    (void)state;
    double x[POINTS], a[POINTS], b[POINTS], none[POINTS] = { 0 };
    lengths(x);
    for (double launch = 1000; launch < 10000; launch *= 2) {
        for (int i = 0; i < POINTS; i++) {
            a[i] = launch + x[i];
            b[i] = launch + x[i] * x[i] / 3000;
        }
        assert_true(fabs(hs_crossing_of(x, a, b, none, POINTS).at / 3000 - 1) < 0.03);
    }
}

/* An interval that reaches the end of what was measured says so. */
static void test_crossing_at_the_edge(void **state)
{
    (void)state;
    double x[POINTS], a[POINTS], b[POINTS], sd[POINTS];
    lengths(x);
    for (int i = 0; i < POINTS; i++) {
        a[i] = 1;
        b[i] = i == POINTS - 1 ? 1.001 : 0.9;
        sd[i] = 0.01;
    }
    hs_crossing c = hs_crossing_of(x, a, b, sd, POINTS);
    assert_int_equal(c.kind, HS_CROSS_AT);
    assert_true(c.low > x[POINTS - 2] && c.low < c.at && isinf(c.high));
}

/* How often the interval holds the crossing when every measurement scatters. */
static void test_coverage_of_the_crossing(void **state)
{
    (void)state;
    enum { TRIALS = 400 };
    double x[POINTS], a[POINTS], b[POINTS], sd[POINTS];
    int held = 0;
    lengths(x);
    for (uint32_t k = 0; k < TRIALS; k++) {
        for (int i = 0; i < POINTS; i++) {
            a[i] = x[i] * exp(0.03 * normal(k, (uint32_t)i));
            b[i] = x[i] * x[i] / 3000 * exp(0.04 * normal(k, 100 + (uint32_t)i));
            sd[i] = 0.05;
        }
        hs_crossing c = hs_crossing_of(x, a, b, sd, POINTS);
        held += c.low <= 3000 && 3000 <= c.high;
    }
    if (held < 0.92 * TRIALS || held > 0.98 * TRIALS) fail_msg("%d of %d hold the crossing", held, TRIALS);
}

/* ---- ranks ------------------------------------------------------------------------------------------------------- */
static void test_medians(void **state)
{
    (void)state;
    const double x[] = { 3, 1, 2, 10 };
    close_to(hs_median(x, 3), 2, 1e-15);
    close_to(hs_median(x, 4), 2.5, 1e-15);
    assert_true(isnan(hs_median(x, 0)));
}

/* The examples of R's wilcox.test and of SciPy's mannwhitneyu. */
static void test_mann_whitney_against_known_values(void **state)
{
    (void)state;
    const double x[] = { 0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46 }, y[] = { 1.15, 0.88, 0.90, 0.74, 1.21 };
    const double males[] = { 19, 22, 16, 29, 24 }, females[] = { 20, 11, 17, 12 };
    const double may[] = { 41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37 };
    const double august[] = { 39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85 };
    close_to(hs_mann_whitney(x, 10, y, 5), 2 * 382. / 3003, 1e-12);        /* W = 35, one-sided 0.1272 */
    close_to(hs_mann_whitney(males, 5, females, 4), 14. / 126, 1e-12);      /* 0.1111 */
    close_to(hs_mann_whitney(may, 26, august, 26), 0.0001208, 5e-4);        /* W = 127.5, with ties */
    const double low[] = { 1, 2, 3 }, high[] = { 4, 5, 6 };
    close_to(hs_mann_whitney(low, 3, high, 3), 2. / 20, 1e-12);
    close_to(hs_mann_whitney(high, 3, low, 3), 2. / 20, 1e-12);
    close_to(hs_mann_whitney(low, 3, low, 3), 1, 1e-12);
    assert_true(hs_mann_whitney(low, 3, high, 0) == 1);
    const double same[] = { 7, 7, 7 };
    assert_true(hs_mann_whitney(same, 3, same, 2) == 1);
}

/* The exact distribution, by counting every order of 4 and 5 values. */
static void test_mann_whitney_counts_every_order(void **state)
{
    (void)state;
    int below[21] = { 0 };
    for (int set = 0; set < 512; set++) {
        int u = 0, after = 0;
        if (__builtin_popcount((unsigned)set) != 4) continue;
        for (int i = 0; i < 9; i++) {   /* u: pairs with the value of the first sample above */
            if (set >> i & 1) u += i - after++;
        }
        for (int k = u; k <= 20; k++) below[k]++;
    }
    assert_int_equal(below[20], 126);
    for (int set = 0; set < 512; set++) {
        double a[4], b[5];
        int na = 0, nb = 0, u = 0;
        if (__builtin_popcount((unsigned)set) != 4) continue;
        for (int i = 0; i < 9; i++) {
            if (set >> i & 1) u += nb, a[na++] = i;
            else b[nb++] = i;
        }
        close_to(hs_mann_whitney(a, 4, b, 5), fmin(1, 2. * below[u < 20 - u ? u : 20 - u] / 126), 1e-12);
    }
}

/* By hand; ties share ranks; what is constant has no correlation. */
static void test_correlations(void **state)
{
    static const double x[] = { 1, 2, 3, 4, 5 }, y[] = { 2, 1, 4, 3, 5 }, cubes[] = { 1, 8, 27, 64, 125 }, ties[] = { 1, 1, 2, 2, 3 };
    (void)state;
    close_to(hs_pearson(x, y, 5), 0.8, 1e-15);
    close_to(hs_spearman(x, y, 5), 0.8, 1e-15);
    close_to(hs_spearman(x, cubes, 5), 1, 1e-15);
    assert_true(hs_pearson(x, cubes, 5) < 0.95);
    close_to(hs_spearman(x, ties, 5), 9 / sqrt(90), 1e-15);     /* ranks 1.5 1.5 3.5 3.5 5 */
    assert_true(isnan(hs_pearson(x, (double[]){ 7, 7, 7, 7, 7 }, 5)) && isnan(hs_pearson(x, y, 1)));
}

/* A tie that changes no rank between the samples brings in the normal form: it is near the exact one. */
static void test_mann_whitney_forms_agree(void **state)
{
    (void)state;
    double a[49], b[49];
    for (uint32_t i = 0; i < 49; i++) {
        a[i] = normal(1, i);
        b[i] = normal(2, i) + 0.5;
    }
    a[0] = 100;
    a[1] = 101;
    double exact = hs_mann_whitney(a, 49, b, 49);
    a[1] = 100;
    assert_true(exact > 1e-4 && exact < 0.2);
    close_to(hs_mann_whitney(a, 49, b, 49), exact, 0.05);
}

/* The ratio of medians: exact without scatter, and its interval holds the truth as often as it says. */
static void test_ratio_of_medians(void **state)
{
    (void)state;
    enum { TRIALS = 300, N = 30 };
    const double two[] = { 2, 2, 2 }, three[] = { 3, 3, 3, 3 };
    double a[N], b[N];
    int held = 0;
    hs_interval r = hs_median_ratio(two, 3, three, 4);
    assert_true(r.mean == 1.5 && r.low == 1.5 && r.high == 1.5);
    assert_true(isnan(hs_median_ratio(two, 0, three, 4).mean));
    for (uint32_t k = 0; k < TRIALS; k++) {
        for (uint32_t i = 0; i < N; i++) {
            a[i] = exp(0.1 * normal(k, i));
            b[i] = 1.2 * exp(0.1 * normal(k, 1000 + i));
        }
        r = hs_median_ratio(a, N, b, N);
        held += r.low <= 1.2 && 1.2 <= r.high;
    }
    if (held < 0.91 * TRIALS || held > 0.985 * TRIALS) fail_msg("%d of %d hold the ratio", held, TRIALS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t_quantiles), cmocka_unit_test(test_interval), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_a_line_by_hand), cmocka_unit_test(test_errors_bound_the_interval),
        cmocka_unit_test(test_the_plateau_is_left_out), cmocka_unit_test(test_no_power_law_no_fit), cmocka_unit_test(test_an_outlier_is_flagged),
        cmocka_unit_test(test_coverage_of_the_slope), cmocka_unit_test(test_a_constant_cost_biases_little),
        cmocka_unit_test(test_crossing_of_two_lines), cmocka_unit_test(test_crossing_on_bent_curves),
        cmocka_unit_test(test_crossing_at_the_edge), cmocka_unit_test(test_coverage_of_the_crossing),
        cmocka_unit_test(test_medians), cmocka_unit_test(test_correlations), cmocka_unit_test(test_mann_whitney_against_known_values),
        cmocka_unit_test(test_mann_whitney_counts_every_order), cmocka_unit_test(test_mann_whitney_forms_agree),
        cmocka_unit_test(test_ratio_of_medians),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
