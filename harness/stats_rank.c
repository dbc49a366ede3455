/* stats_rank.c - medians, and whether two samples differ, by ranks. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "../kernels/philox.h"
#include "stats.h"

enum { EXACT_BELOW = 50 };

/* By size. */
static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A sorted copy; the caller frees. */
static double *sorted(const double *x, size_t n)
{
    double *s = malloc((n + 1) * sizeof *s);
    if (!s) abort();
    memcpy(s, x, n * sizeof *s);
    qsort(s, n, sizeof *s, by_size);
    return s;
}

double hs_median(const double *x, size_t n)
{
    if (n == 0) return NAN;
    double *s = sorted(x, n), middle = 0.5 * (s[(n - 1) / 2] + s[n / 2]);
    free(s);
    return middle;
}

/* ---- correlations ------------------------------------------------------------------------------------------------ */
double hs_pearson(const double *x, const double *y, size_t n)
{
    double mx = hs_mean(x, n), my = hs_mean(y, n), xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return n < 2 || xx == 0 || yy == 0 ? NAN : xy / sqrt(xx * yy);
}

/* The rank of each value, from 1 on; equal ones share the mean of theirs. */
static double *ranks(const double *x, size_t n)
{
    double *r = malloc((n + 1) * sizeof *r);
    if (!r) abort();
    for (size_t i = 0; i < n; i++) {
        size_t below = 0, equal = 0;
        for (size_t k = 0; k < n; k++) below += x[k] < x[i], equal += x[k] == x[i];
        r[i] = (double)below + 0.5 * (double)(equal + 1);
    }
    return r;
}

double hs_spearman(const double *x, const double *y, size_t n)
{
    double *rx = ranks(x, n), *ry = ranks(y, n), r = hs_pearson(rx, ry, n);
    free(rx);
    free(ry);
    return r;
}

/* ---- the ratio of two medians ---------------------------------------------------------------------------------- */
/* The median of resample number draw of s [n], sorted: how often each value was drawn is enough to find it. */
static double resampled_median(const double *s, size_t n, uint32_t stream, uint32_t draw, uint32_t *count)
{
    size_t seen = 0, i = 0;
    memset(count, 0, n * sizeof *count);
    for (size_t k = 0; k < n; k++) count[philox_below(philox_u32(0, stream, draw, k), (uint32_t)n)]++;
    while (seen + count[i] <= (n - 1) / 2) seen += count[i++];
    size_t low = i;
    while (seen + count[i] <= n / 2) seen += count[i++];
    return 0.5 * (s[low] + s[i]);
}

hs_interval hs_median_ratio(const double *a, size_t na, const double *b, size_t nb)
{
    hs_interval r = { NAN, NAN, NAN, na < nb ? na : nb };
    if (r.n == 0) return r;
    double *sa = sorted(a, na), *sb = sorted(b, nb), *ratio = calloc(HS_BOOTSTRAPS, sizeof *ratio);
    uint32_t *count = calloc(na > nb ? na : nb, sizeof *count);
    if (!ratio || !count) abort();
    for (uint32_t k = 0; k < HS_BOOTSTRAPS; k++)
        ratio[k] = resampled_median(sb, nb, 1, k, count) / resampled_median(sa, na, 0, k, count);
    qsort(ratio, HS_BOOTSTRAPS, sizeof *ratio, by_size);
    r.mean = hs_median(b, nb) / hs_median(a, na);
    r.low = ratio[HS_BOOTSTRAPS / 40];
    r.high = ratio[HS_BOOTSTRAPS - 1 - HS_BOOTSTRAPS / 40];
    free(count);
    free(ratio);
    free(sb);
    free(sa);
    return r;
}

/* ---- Mann and Whitney ------------------------------------------------------------------------------------------ */
/* The probability that U <= u for na and nb values without ties.  ways[k] counts the orders with U = k: it is the
 * coefficient of q^k in the product of (1 - q^(nb + i)) / (1 - q^i), i = 1 .. na. */
static double exact_tail(size_t na, size_t nb, size_t u)
{
    double *ways = calloc(u + 1, sizeof *ways), sum = 0, all = 1;
    if (!ways) abort();
    ways[0] = 1;
    for (size_t i = 1; i <= na; i++) {
        for (size_t k = u; k >= nb + i; k--) ways[k] -= ways[k - nb - i];
        for (size_t k = i; k <= u; k++) ways[k] += ways[k - i];
        all *= (double)(nb + i) / (double)i;
    }
    for (size_t k = 0; k <= u; k++) sum += ways[k];
    free(ways);
    return sum / all;
}

/* The sum of the ranks of a, equal values sharing the mean of theirs; *ties: the sum of t^3 - t over groups of t. */
static double rank_sum(const double *sa, size_t na, const double *sb, size_t nb, double *ties)
{
    double sum = 0, before = 0;
    *ties = 0;
    for (size_t i = 0, k = 0; i < na || k < nb;) {
        double value = k == nb || (i < na && sa[i] <= sb[k]) ? sa[i] : sb[k], of_a = 0, t = 0;
        for (; i < na && sa[i] == value; i++) of_a++;
        for (; k < nb && sb[k] == value; k++) t++;
        t += of_a;
        sum += of_a * (before + 0.5 * (t + 1));
        before += t;
        *ties += t * t * t - t;
    }
    return sum;
}

double hs_mann_whitney(const double *a, size_t na, const double *b, size_t nb)
{
    double *sa = sorted(a, na), *sb = sorted(b, nb), ties, m = (double)na, n = (double)nb, all = m + n;
    double u = rank_sum(sa, na, sb, nb, &ties) - 0.5 * m * (m + 1), smaller = fmin(u, m * n - u);
    free(sa);
    free(sb);
    if (na == 0 || nb == 0) return 1;
    if (ties == 0 && na < EXACT_BELOW && nb < EXACT_BELOW) return fmin(1, 2 * exact_tail(na, nb, (size_t)smaller));
    double variance = m * n / 12 * (all + 1 - ties / (all * (all - 1)));
    if (variance <= 0) return 1;
    return erfc(fmax(0, 0.5 * m * n - smaller - 0.5) / sqrt(2 * variance));
}
