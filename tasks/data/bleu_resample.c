/* bleu_resample.c - how sure a BLEU is: the bootstrap of one system, the randomisation of two.  See bleu.h.
 *
 * Resample r of seed s draws from Philox at (s, STREAM, r), so that it depends on nothing else. */
#include "../../kernels/philox.h"
#include "bleu.h"
#include <math.h>
#include <stdlib.h>

enum { STREAM_BOOTSTRAP = 0xb1e0, STREAM_SWAPS = 0xb1e1 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Word i of resample r. */
static uint32_t draw(uint64_t seed, uint32_t stream, int r, int64_t i)
{
    return philox4x32_10(seed, (uint64_t)i >> 2, stream, (uint32_t)r).v[i & 3];
}

/* The score of n segments drawn with replacement. */
static double resampled(const bleu_opts *o, const bleu_counts *segment, int64_t n, uint64_t seed, int r)
{
    bleu_counts sum = { 0 };
    for (int64_t i = 0; i < n; i++) bleu_add(&sum, &segment[philox_below(draw(seed, STREAM_BOOTSTRAP, r, i), (uint32_t)n)]);
    return bleu_of(o, &sum).score;
}

bleu_interval bleu_bootstrap(const bleu_opts *o, const bleu_counts *segment, int64_t n, int resamples, uint64_t seed)
{
    bleu_interval ci = { 0, -1 };
    double *score = malloc((size_t)resamples * sizeof *score);
    if (!score) return ci;
    for (int r = 0; r < resamples; r++) ci.mean += score[r] = resampled(o, segment, n, seed, r);
    ci.mean /= resamples;
    qsort(score, (size_t)resamples, sizeof *score, ascending);
    int low = resamples / 40;           /* 2.5 % on either side */
    ci.half = (score[resamples - 1 - low] - score[low]) / 2;
    free(score);
    return ci;
}

/* The difference of the two scores after the swaps of trial t; t < 0: without any. */
static double difference(const bleu_opts *o, const bleu_counts *a, const bleu_counts *b, int64_t n, uint64_t seed, int t)
{
    bleu_counts x = { 0 }, y = { 0 };
    for (int64_t i = 0; i < n; i++) {
        int swap = t >= 0 && (draw(seed, STREAM_SWAPS, t, i / 32) >> (i % 32) & 1);
        bleu_add(&x, swap ? &b[i] : &a[i]);
        bleu_add(&y, swap ? &a[i] : &b[i]);
    }
    return fabs(bleu_of(o, &x).score - bleu_of(o, &y).score);
}

double bleu_compare(const bleu_opts *o, const bleu_counts *a, const bleu_counts *b, int64_t n, int trials, uint64_t seed)
{
    double real = difference(o, a, b, n, seed, -1);
    int hits = 0;
    for (int t = 0; t < trials; t++) hits += difference(o, a, b, n, seed, t) >= real;
    return (hits + 1.0) / (trials + 1.0);
}
