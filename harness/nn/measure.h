/* measure.h - how long a piece of work takes on a device, and how far the answer can be trusted.
 *
 * The protocol: warm up by count and by time; then one sample after another, each with the caches flushed before it,
 * until the median stands still or time is up.  Samples of a throttled machine are dropped and counted.  The raw samples are
 * the caller's to keep. */
#ifndef NN_MEASURE_H
#define NN_MEASURE_H
#include "clocks.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nn_measure_opts {
    int32_t warmup_calls, min_samples, max_samples;     /* warmup_calls: at least; max_samples >= 1 */
    double warmup_time, max_time;       /* seconds of warming up, at least; of wall clock for each of the two, at most */
    double spread;                      /* enough when nn_measured.spread is not above it */
    int cold;                           /* flush the caches before each sample */
    double rest;                        /* seconds of idling before each run, at most: ten times the run before it */
    nn_pace (*pace)(const void *watch); /* how the machine ran during the sample just taken; NULL: nobody knows */
    const void *watch;
} nn_measure_opts;

typedef struct nn_work {
    int (*run)(void *arg);              /* what is timed: 0, or it failed */
    int (*before)(void *arg);           /* not timed, before each run; NULL: nothing */
    int (*stop)(void *arg);             /* whether to give up; NULL: never */
    void *arg;
} nn_work;

typedef struct nn_measured {
    double min, p20, median, p80;       /* seconds; p20 and p80: quantiles */
    double low, high;                   /* 95 % interval of the median, by bootstrap; both the median when n == 1 */
    double spread;                      /* see nn_spread */
    double hertz;                       /* of the machine's clock, median over the samples; 0: not known */
    int32_t n, settled;                 /* samples; settled: the spread was reached before time was up */
    int32_t throttled, capped;          /* dropped, besides those n; of those n under the power limit */
} nn_measured;

enum { NN_MEASURE_FAILED = -1, NN_MEASURE_STOPPED = -2 };
/* Fills sample [max_samples] in the order of time and *out.  At least one sample is taken, however long it is and even of a
 * machine that was throttled all the time.  first:
 * seconds of a run before this call, which counts as the first of the warm-up; 0: there was none. */
int nn_measure(k_dev *, const nn_measure_opts *, const nn_work *, double first, double *sample, nn_measured *out);

/* What the samples x [n], n >= 1, say; nothing about how they were taken.  Sorts them. */
void nn_summarise(double *x, int32_t n, nn_measured *out);
/* The quantile p of x [n], which is sorted: linear between neighbours, p = 0 the first and 1 the last. */
double nn_quantile(const double *x, int32_t n, double p);
/* The interquartile range of the median of x [n], sorted, relative to it, as that of normally distributed samples would
 * be: sqrt(pi / 2) (p75 - p25) / sqrt(n) / median.  One sample spreads infinitely. */
double nn_spread(const double *x, int32_t n);

/* What this machine can do at most, to hold a result against. */
typedef struct nn_peaks { double flops, bytes; } nn_peaks;  /* per second: a large matrix product of the dtype; a large copy,
                                           read and written; 0: cannot be measured */
/* Opens the device a second time, so that no account of memory sees it; takes a second or so. */
nn_peaks nn_peaks_measure(const char *device, int threads, k_dtype);
#ifdef __cplusplus
}
#endif
#endif
