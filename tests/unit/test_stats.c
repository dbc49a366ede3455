/* test_stats.c - Student's t against tables, intervals against a worked example. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_t_quantiles), cmocka_unit_test(test_interval),
                                        cmocka_unit_test(test_edges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
