/* test_measure.c - the timing protocol: what ends it, what it counts, what its numbers say. */
#include "harness/nn/measure.h"
#include "kernels/philox.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "device.h"

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static void quantiles_lie_between_neighbours(void **state)
{
    (void)state;
    const double x[] = { 1, 2, 4, 8, 16 }, one[] = { 3 };
    assert_true(nn_quantile(x, 5, 0) == 1 && nn_quantile(x, 5, 0.5) == 4 && nn_quantile(x, 5, 1) == 16);
    assert_true(nn_quantile(x, 5, 0.125) == 1.5 && nn_quantile(x, 4, 0.5) == 3);
    assert_true(nn_quantile(one, 1, 0) == 3 && nn_quantile(one, 1, 0.7) == 3 && nn_quantile(one, 1, 1) == 3);
}

static void a_summary_is_of_all_samples(void **state)
{
    (void)state;
    double x[101];
    nn_measured m;
    for (int i = 0; i < 101; i++)
        x[i] = 100 + (i * 37) % 101;                    /* 100..200 in disorder */
    nn_summarise(x, 101, &m);
    assert_true(m.min == 100 && m.p20 == 120 && m.median == 150 && m.p80 == 180);
    assert_int_equal(m.n, 101);
    assert_true(fabs(m.spread - sqrt(acos(-1) / 2) * 50 / sqrt(101) / 150) < 1e-15);
    double one = 7;
    nn_summarise(&one, 1, &m);
    assert_true(m.min == 7 && m.median == 7 && m.low == 7 && m.high == 7 && m.n == 1 && isinf(m.spread));
    double same[10] = { 2, 2, 2, 2, 2, 2, 2, 2, 2, 2 };
    nn_summarise(same, 10, &m);
    assert_true(m.low == 2 && m.high == 2 && m.spread == 0);
}

/* A uniform number in [0, 1). */
static double uniform(uint32_t stream, uint32_t i) { return philox_u32(11, stream, 0, i) * 0x1p-32; }

/* Of 200 drawings of n numbers with median 0.5, the interval should cover it 95 times of 100; for n this small the
 * bootstrap is known to be a little off. */
static void the_interval_covers_the_median(void **state)
{
    (void)state;
    static const int sizes[] = { 20, 51 };
    for (int k = 0; k < 2; k++) {
        int covered = 0;
        for (uint32_t r = 0; r < 200; r++) {
            double x[51];
            nn_measured m;
            for (int i = 0; i < sizes[k]; i++)
                x[i] = uniform(r, (uint32_t)i);
            nn_summarise(x, sizes[k], &m);
            assert_true(m.low <= m.median && m.median <= m.high && m.low >= m.min);
            covered += m.low <= 0.5 && 0.5 <= m.high;
        }
        assert_in_range(covered, 200 * 90 / 100, 200 * 98 / 100);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The interquartile range of the medians of many drawings is what nn_spread foretells from one, for normal numbers. */
static void the_spread_is_that_of_medians(void **state)
{
    (void)state;
    enum { N = 101, ROUNDS = 2000 };
    static double median[ROUNDS];
    double x[N], foretold = 0;
    for (uint32_t r = 0; r < ROUNDS; r++) {
        k_random_normal(dev, K_F64, N, x, (k_rng){ 5, r, 0 }, 100, 1);
        qsort(x, N, sizeof *x, by_value);
        median[r] = nn_quantile(x, N, 0.5);
        foretold += nn_spread(x, N) / ROUNDS;
    }
    qsort(median, ROUNDS, sizeof *median, by_value);
    double found = (nn_quantile(median, ROUNDS, 0.75) - nn_quantile(median, ROUNDS, 0.25)) / nn_quantile(median, ROUNDS, 0.5);
    assert_true(fabs(foretold / found - 1) < 0.08);
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

typedef struct work {
    int runs, befores, fail_at, stop_at;                /* counted from 1; 0: never */
    double seconds[8];                                  /* how long runs take, in turn; 0 ends the list */
} work;

static int run(void *arg)
{
    work *w = arg;
    int n = 0;
    while (n < 8 && w->seconds[n] > 0) n++;
    if (n) {
        double s = w->seconds[w->runs % n];
        nanosleep(&(struct timespec){ (time_t)s, (long)(fmod(s, 1) * 1e9) }, NULL);
    }
    return ++w->runs == w->fail_at ? -1 : 0;
}

static int before(void *arg) { ((work *)arg)->befores++; return 0; }
static int failing_before(void *arg) { (void)arg; return -1; }
static int stop(void *arg) { work *w = arg; return w->stop_at && w->runs + 1 >= w->stop_at; }

static nn_work all_of(work *w) { return (nn_work){ .run = run, .before = before, .stop = stop, .arg = w }; }

static void steady_work_settles_early(void **state)
{
    (void)state;
    const nn_measure_opts o = { .warmup_calls = 4, .min_samples = 10, .max_samples = 200, .max_time = 5, .spread = 0.05 };
    work w = { .seconds = { 5e-3 } };
    nn_work all = all_of(&w);
    double sample[200];
    nn_measured m;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_int_equal(m.settled, 1);
    assert_in_range(m.n, 10, 199);
    assert_int_equal(w.runs, 4 + m.n);
    assert_int_equal(w.befores, w.runs);
    assert_true(m.min >= 5e-3 && m.spread <= 0.05);
    w = (work){ .seconds = { 5e-3 } };
    assert_int_equal(nn_measure(dev, &o, &all, 1e-3, sample, &m), 0);
    assert_int_equal(w.runs, 3 + m.n);                  /* the first call was a call of the warm-up */
}

static void restless_work_ends_by_count_or_time(void **state)
{
    (void)state;
    nn_measure_opts o = { .min_samples = 3, .max_samples = 12, .max_time = 5, .spread = 1e-9 };
    work w = { .seconds = { 1e-3, 3e-3 } };
    nn_work all = all_of(&w);
    double sample[200];
    nn_measured m;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_true(!m.settled && m.n == 12);
    for (int i = 0; i < 12; i++)
        assert_true(sample[i] >= (i % 2 ? 3e-3 : 1e-3));    /* in the order of time */
    o.max_samples = 200, o.max_time = 0.05;
    w.runs = 0;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_true(!m.settled && m.n >= 1 && m.n <= 30);
}

/* One call longer than the limit: it is neither warmed up again nor repeated, but it is a sample. */
static void slow_work_is_sampled_once(void **state)
{
    (void)state;
    const nn_measure_opts o = { .warmup_calls = 5, .min_samples = 5, .max_samples = 9, .max_time = 0.02, .warmup_time = 1, .spread = 1e-9 };
    work w = { .seconds = { 0.03 } };
    nn_work all = all_of(&w);
    double sample[9];
    nn_measured m;
    assert_int_equal(nn_measure(dev, &o, &all, 0.03, sample, &m), 0);
    assert_true(m.n == 1 && w.runs == 1 && !m.settled);
}

/* A machine that is throttled in some of its samples, and at its power limit in some others. */
typedef struct machine { int asked, throttled_every, capped_every; } machine;
static nn_pace pace_of(const void *watch)
{
    machine *m = (machine *)watch;
    int i = m->asked++;
    return (nn_pace){ .hertz = 1e9 + i, .throttled = m->throttled_every && i % m->throttled_every == 0,
                      .capped = m->capped_every && i % m->capped_every == 0 };
}

static void throttled_samples_are_dropped_and_counted(void **state)
{
    (void)state;
    machine often = { .throttled_every = 3, .capped_every = 4 }, always = { .throttled_every = 1 };
    nn_measure_opts o = { .min_samples = 8, .max_samples = 8, .max_time = 60, .spread = 0, .pace = pace_of, .watch = &often };
    work w = { .seconds = { 1e-4 } };
    nn_work all = all_of(&w);
    double sample[8];
    nn_measured m;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_true(m.n == 8 && m.throttled == 4 && w.runs == 12 && often.asked == 12);  /* 0 3 6 9 of 0 .. 11 */
    assert_true(m.capped == 2 && m.hertz == 1e9 + 6);   /* 4 and 8 of 1 2 4 5 7 8 10 11 */
    o.watch = &always, o.max_time = 0.02;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_true(m.n == 1 && m.throttled >= 1 && !m.settled);        /* better than nothing */
    o.pace = NULL;
    assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
    assert_true(m.hertz == 0 && m.throttled == 0 && m.capped == 0);
}

/* Rests last as long as they may, and no longer than ten times the work. */
static void the_machine_rests_between_runs(void **state)
{
    (void)state;
    nn_measure_opts o = { .min_samples = 8, .max_samples = 8, .max_time = 60, .spread = 0, .rest = 5e-3 };
    work w = { .seconds = { 2e-3 } };
    nn_work all = all_of(&w);
    double sample[8];
    nn_measured m;
    struct timespec a, b;
    for (int little = 0; little < 2; little++) {
        if (little)
            o.rest = 1, w.seconds[0] = 1e-4;
        clock_gettime(CLOCK_MONOTONIC, &a);
        assert_int_equal(nn_measure(dev, &o, &all, 0, sample, &m), 0);
        clock_gettime(CLOCK_MONOTONIC, &b);
        double took = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        assert_true(m.n == 8 && (little ? took < 2 : took > 7 * 7e-3));
    }
}

static void failures_and_stops_are_told(void **state)
{
    (void)state;
    const nn_measure_opts o = { .warmup_calls = 2, .min_samples = 5, .max_samples = 5, .max_time = 1, .spread = 0 };
    double sample[5];
    nn_measured m;
    for (int at = 1; at <= 4; at += 3) {                /* in the warm-up, among the samples */
        work fails = { .fail_at = at }, stops = { .stop_at = at };
        nn_work a = all_of(&fails), b = all_of(&stops);
        assert_int_equal(nn_measure(dev, &o, &a, 0, sample, &m), NN_MEASURE_FAILED);
        assert_int_equal(fails.runs, at);
        assert_int_equal(nn_measure(dev, &o, &b, 0, sample, &m), NN_MEASURE_STOPPED);
        assert_int_equal(stops.runs, at - 1);
    }
    work w = { 0 };
    nn_work unprepared = { .run = run, .before = failing_before, .arg = &w };
    assert_int_equal(nn_measure(dev, &o, &unprepared, 0, sample, &m), NN_MEASURE_FAILED);
    assert_int_equal(w.runs, 0);
}

static void the_machine_has_bounds(void **state)
{
    (void)state;
    nn_peaks f32 = nn_peaks_measure("cpu", 1, K_F32), f64 = nn_peaks_measure("cpu", 1, K_F64);
    nn_peaks bf16 = nn_peaks_measure("cpu", 1, K_BF16), none = nn_peaks_measure("abacus", 1, K_F32);
    assert_true(f32.bytes > 1e8 && f32.bytes < 1e13);
    assert_true(f64.flops > 1e8 && f32.flops > f64.flops);
    assert_true(bf16.flops == 0 && bf16.bytes > 1e8);   /* there is no product of bf16 on the CPU */
    assert_true(none.flops == 0 && none.bytes == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_lie_between_neighbours), cmocka_unit_test(a_summary_is_of_all_samples),
        cmocka_unit_test(the_interval_covers_the_median), cmocka_unit_test(the_spread_is_that_of_medians),
        cmocka_unit_test(steady_work_settles_early), cmocka_unit_test(restless_work_ends_by_count_or_time),
        cmocka_unit_test(slow_work_is_sampled_once), cmocka_unit_test(throttled_samples_are_dropped_and_counted),
        cmocka_unit_test(the_machine_rests_between_runs), cmocka_unit_test(failures_and_stops_are_told),
        cmocka_unit_test(the_machine_has_bounds) };
    return cmocka_run_group_tests_name("measure", tests, open_device, close_device);
}
