/* stats.h - what a figure says of repeated measurements. */
#ifndef HS_STATS_H
#define HS_STATS_H
#include <stddef.h>

typedef struct hs_interval {
    double mean, low, high;             /* low == high == mean when there is one value only */
    size_t n;
} hs_interval;

double hs_mean(const double *x, size_t n);              /* x [n]; NaN when n == 0 */
double hs_deviation(const double *x, size_t n);         /* of the sample, divided by n - 1; 0 when n < 2 */
/* The quantile p of Student's t with dof degrees of freedom; p in (0, 1), dof > 0. */
double hs_t_quantile(double p, double dof);
/* The mean of x [n] with its 95 % t interval. */
hs_interval hs_mean_interval(const double *x, size_t n);
#endif
