/* test_measure.c - the clock on a GPU: what it is held against, and that a measurement says how the GPU ran.  Prints TAP. */
#include "harness/nn/measure.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 40 };
static k_dev *gpu;
static int number, failures;

static void report(int ok, const char *name, const char *detail)
{
    failures += !ok;
    printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", ++number, name, detail);
}

typedef struct copying { void *to, *from; size_t bytes; } copying;
static int copy(void *arg)
{
    const copying *c = arg;
    k_copy(gpu, c->to, c->from, c->bytes);
    return 0;
}

static nn_pace pace_of(const void *clocks) { return nn_clocks_now(clocks); }

/* The median of copying so many bytes; how: what else the measurement is to know. */
static nn_measured measured(size_t bytes, int cold, double rest, const nn_clocks *clocks)
{
    const nn_measure_opts o = { .warmup_calls = 3, .min_samples = SAMPLES, .max_samples = SAMPLES, .max_time = 10, .cold = cold, .rest = rest,
                                .pace = pace_of, .watch = clocks };
    copying c = { .bytes = bytes };
    double sample[SAMPLES];
    nn_measured m = { 0 };
    if (k_alloc(gpu, K_TAG_DATA, bytes, &c.to) || k_alloc(gpu, K_TAG_DATA, bytes, &c.from) ||
        nn_measure(gpu, &o, &(nn_work){ .run = copy, .arg = &c }, 0, sample, &m)) {
        printf("Bail out! %s\n", k_error(gpu));
        exit(1);
    }
    k_free(gpu, c.to);
    k_free(gpu, c.from);
    return m;
}

int main(void)
{
    char why[256], text[160];
    if (k_dev_open("cuda", 0, &gpu, why, sizeof why)) {
        printf("Bail out! %s\n", why);
        return 1;
    }
    nn_clocks *clocks = nn_clocks_open(gpu);
    nn_pace pace = nn_clocks_now(clocks);
    snprintf(text, sizeof text, "%.0f MHz%s%s", 1e-6 * pace.hertz, pace.throttled ? ", throttled" : "", pace.capped ? ", at its power limit" : "");
    report(pace.hertz > 1e8 && pace.hertz < 5e9, "the driver tells the clock", text);

    const nn_measured warm = measured(8 << 20, 0, 0, clocks), cold = measured(8 << 20, 1, 0, clocks);
    snprintf(text, sizeof text, "8 MiB copied in %.2f us, with empty caches %.2f us", 1e6 * warm.median, 1e6 * cold.median);
    report(cold.median > 1.1 * warm.median, "flushing empties the caches", text);

    const nn_measured busy = measured(256 << 20, 1, 0, clocks), rested = measured(256 << 20, 1, 0.005, clocks);
    snprintf(text, sizeof text, "256 MiB copied in %.2f us, rested %.2f us, at %.0f MHz", 1e6 * busy.median, 1e6 * rested.median, 1e-6 * rested.hertz);
    report(fabs(busy.median / rested.median - 1) < 0.05, "a rest alters nothing for a copy, which needs no clock", text);
    report(rested.n == SAMPLES && rested.hertz > 1e8 && rested.throttled >= 0, "samples come with the clock", text);
    nn_clocks_close(clocks);
    k_dev_close(gpu);
    printf("1..%d\n", number);
    return failures != 0;
}
