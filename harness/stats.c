/* stats.c - mean, deviation and Student's t. */
#define _GNU_SOURCE
#include <math.h>
#include "stats.h"

double hs_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

/* Two passes, so that a large mean does not swallow a small deviation. */
double hs_deviation(const double *x, size_t n)
{
    if (n < 2) return 0;
    double mean = hs_mean(x, n), sum = 0;
    for (size_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sqrt(sum / (double)(n - 1));
}

/* The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method. */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 500; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step[2] = { even, odd }, factor = 1;
        for (int k = 0; k < 2; k++) {
            d = 1 + step[k] * d;
            c = 1 + step[k] / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            factor = c * d;
            f *= factor;
        }
        if (fabs(factor - 1) < 1e-16) break;
    }
    return f;
}

/* The regularised incomplete beta function I_x(a, b). */
static double incomplete_beta(double a, double b, double x)
{
    int sign;
    if (x <= 0 || x >= 1) return x >= 1;
    double front = exp(lgamma_r(a + b, &sign) - lgamma_r(a, &sign) - lgamma_r(b, &sign) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double hs_t_tail(double t, double dof)
{
    return 0.5 * incomplete_beta(dof / 2, 0.5, dof / (dof + t * t));
}

/* By bisection: the tail falls monotonically, and a figure has few points. */
double hs_t_quantile(double p, double dof)
{
    double tail = p < 0.5 ? p : 1 - p, low = 0, high = 1;
    while (hs_t_tail(high, dof) > tail && high < 1e300) high *= 2;
    for (int i = 0; i < 200 && high - low > 1e-15 * high; i++) {
        double middle = 0.5 * (low + high);
        if (hs_t_tail(middle, dof) > tail) low = middle;
        else high = middle;
    }
    return p < 0.5 ? -0.5 * (low + high) : 0.5 * (low + high);
}

hs_interval hs_mean_interval(const double *x, size_t n)
{
    hs_interval r = { .mean = hs_mean(x, n), .n = n };
    double half = n < 2 ? 0 : hs_t_quantile(0.975, (double)(n - 1)) * hs_deviation(x, n) / sqrt((double)n);
    r.low = r.mean - half;
    r.high = r.mean + half;
    return r;
}
