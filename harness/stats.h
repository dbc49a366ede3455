/* stats.h - what figures and comparisons say of repeated measurements.
 *
 * stats.c       mean, deviation, Student's t
 * stats_fit.c   power laws beyond a plateau, crossover lengths
 * stats_rank.c  medians, correlations and the test of Mann and Whitney
 * Random draws are Philox's: the same numbers give the same interval everywhere. */
#ifndef HS_STATS_H
#define HS_STATS_H
#include <stddef.h>

typedef struct hs_interval {
    double mean, low, high;             /* low == high == mean when there is one value only */
    size_t n;
} hs_interval;

double hs_mean(const double *x, size_t n);              /* x [n]; NaN when n == 0 */
double hs_deviation(const double *x, size_t n);         /* of the sample, divided by n - 1; 0 when n < 2 */
/* The probability that Student's t with dof degrees of freedom exceeds t >= 0. */
double hs_t_tail(double t, double dof);
/* The quantile p of Student's t with dof degrees of freedom; p in (0, 1), dof > 0. */
double hs_t_quantile(double p, double dof);
/* The mean of x [n] with its 95 % t interval. */
hs_interval hs_mean_interval(const double *x, size_t n);

/* y = exp(shift) x^slope, by least squares of ln y on ln x over the longest tail on which a power law holds.
 *
 * A tail [first, n) has three points or more.  A power law holds on it when, in ln-ln,
 *  1. its ends are no outliers.  A point is one when its externally studentised residual is significant at 1 % for as
 *     many points (Bonferroni) and it is 5 % or more away from the line of the others; tails of six points or more are
 *     looked at, at most a fifth of a tail is left out, and those points are flagged.
 *  2. it is straight: its bend, the slope at its end less that at its beginning by the parabola through it, is at most
 *     0.03 and 1.5 times its standard error.  For the latter the scatter counts as at most 3 % (and as 2 % where three
 *     points leave none to see), so that a bend is not excused as scatter.
 * A launch-bound plateau bends the curve, and so the tail begins beyond it; a bend by another cause (a cache, a window)
 * is treated alike.  The slope's interval is the 95 % t interval of the line through the points that were kept, or what the
 * errors of the points give where that is wider (three points may lie on a line by luck), with half the bend that is left
 * added as an independent error: a constant cost under a power law fades slowly. */
typedef struct hs_power {
    size_t first, kept;                 /* the tail begins at first; points of it in the fit, 0: no tail is a power law */
    hs_interval slope;
    double shift, deviation;            /* of ln y about the line */
} hs_power;
/* x [n] rising and y [n], all positive; error [n]: the standard errors of ln y, NaN where not known, may be NULL; left_out [n]
 * becomes 1 at the outliers, may be NULL.  Nonzero when there is a fit. */
int hs_power_fit(const double *x, const double *y, const double *error, size_t n, hs_power *, unsigned char *left_out);
double hs_power_at(const hs_power *, double x);

/* From which length on a is below b, up to the end of what was measured: the last zero of ln(a / b), which
 * between its points in ln x is the monotone cubic of Fritsch and Butland: near a plateau a straight line misses by 10 %. */
enum { HS_CROSS_NEVER, HS_CROSS_ALWAYS, HS_CROSS_AT };
typedef struct hs_crossing {
    int kind;
    double at;                          /* HS_CROSS_AT only */
    double low, high;                   /* 95 %; 0: below all lengths, INFINITY: beyond them */
} hs_crossing;
/* x [n] rising, a and b [n] positive, sd [n]: the standard error of ln(a / b).  The interval is that of HS_BOOTSTRAPS
 * draws of ln(a / b), normal about what was measured. */
enum { HS_BOOTSTRAPS = 2000 };
hs_crossing hs_crossing_of(const double *x, const double *a, const double *b, const double *sd, size_t n);

double hs_median(const double *x, size_t n);            /* x [n]; NaN when n == 0 */
/* Pearson's correlation of x and y [n], and Spearman's, that of their ranks (equal values share the mean of theirs); NaN when n < 2
 * or one of them is constant. */
double hs_pearson(const double *x, const double *y, size_t n);
double hs_spearman(const double *x, const double *y, size_t n);
/* median(b) / median(a) with the 95 % percentile interval of HS_BOOTSTRAPS resamples of both; a [na] > 0, b [nb]. */
hs_interval hs_median_ratio(const double *a, size_t na, const double *b, size_t nb);
/* The two-sided p value of Mann and Whitney's U: exact when there are no ties and both have fewer than 50 values, else
 * normal with corrections for ties and continuity.  1 when either is empty or all values are equal. */
double hs_mann_whitney(const double *a, size_t na, const double *b, size_t nb);
#endif
