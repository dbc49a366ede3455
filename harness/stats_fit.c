/* stats_fit.c - power laws beyond a plateau, and where two curves cross.  stats.h states the rules. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "../kernels/philox.h"
#include "stats.h"

enum { TAIL_MIN = 3, OUTLIER_MIN = 6, OUTLIER_SHARE = 5 };
static const double bend_most = 0.03, bend_errors = 1.5, scatter_most = 0.03, scatter_unseen = 0.02;
static const double outlier_p = 0.01, outlier_least = 0.04879016416943201 /* ln 1.05 */,
                    normal_95 = 1.959963984540054;

/* ---- lines ------------------------------------------------------------------------------------------------------- */
/* Points in ln-ln; those with out[i] != 0 do not count. */
typedef struct cloud { const double *u, *v; const unsigned char *out; size_t n; } cloud;
typedef struct line { double slope, middle, mean_u, sum_uu, sum_rr; size_t n; } line;    /* v = middle + slope (u - mean_u) */

/* How far v lies above the line at point i. */
static double residual(const cloud *c, const line *l, size_t i)
{
    return c->v[i] - l->middle - l->slope * (c->u[i] - l->mean_u);
}

/* The least-squares line through the points that count. */
static line line_through(const cloud *c)
{
    line l = { 0 };
    double uv = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->out[i]) continue;
        l.n++;
        l.mean_u += c->u[i];
        l.middle += c->v[i];
    }
    l.mean_u /= (double)l.n;
    l.middle /= (double)l.n;
    for (size_t i = 0; i < c->n; i++) {
        if (c->out[i]) continue;
        l.sum_uu += (c->u[i] - l.mean_u) * (c->u[i] - l.mean_u);
        uv += (c->u[i] - l.mean_u) * (c->v[i] - l.middle);
    }
    l.slope = uv / l.sum_uu;
    for (size_t i = 0; i < c->n; i++)
        if (!c->out[i]) l.sum_rr += residual(c, &l, i) * residual(c, &l, i);
    return l;
}

/* The point whose externally studentised residual is the largest, if it is an outlier; n when none is. */
static size_t find_outlier(const cloud *c, const line *l)
{
    double most = 0, away = 0;
    size_t worst = c->n;
    for (size_t i = 0; i < c->n; i++) {
        if (c->out[i]) continue;
        double du = c->u[i] - l->mean_u, r = residual(c, l, i), share = 1 - 1.0 / (double)l->n - du * du / l->sum_uu;
        double rest = fmax(0, l->sum_rr - r * r / share) / (double)(l->n - 3), t = fabs(r) / sqrt(fmax(rest * share, 1e-300));
        if (t <= most) continue;
        most = t;
        away = fabs(r) / share;         /* from the line of the others */
        worst = i;
    }
    int is_one = away >= outlier_least && 2 * hs_t_tail(most, (double)(l->n - 3)) < outlier_p / (double)l->n;
    return is_one ? worst : c->n;
}

/* The slope at the end less that at the beginning, by the parabola through the points, and its standard error. */
static double bend_of(const cloud *c, const line *l, double *error)
{
    double uw = 0, mean_w = l->sum_uu / (double)l->n, ee = 0, er = 0, low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < c->n; i++) {
        double d = c->u[i] - l->mean_u;
        if (!c->out[i]) uw += d * d * d;
    }
    for (size_t i = 0; i < c->n; i++) {         /* e: the square of u without its line */
        double d = c->u[i] - l->mean_u, e = d * d - mean_w - uw / l->sum_uu * d;
        if (c->out[i]) continue;
        ee += e * e;
        er += e * residual(c, l, i);
        low = fmin(low, c->u[i]);
        high = fmax(high, c->u[i]);
    }
    double scatter = l->n == 3 ? scatter_unseen : sqrt(fmax(0, l->sum_rr - er * er / ee) / (double)(l->n - 3));
    *error = 2 * (high - low) * fmin(scatter, scatter_most) / sqrt(ee);
    return 2 * (high - low) * er / ee;
}

/* Fits one tail; nonzero when a power law holds on it.  out [n] becomes 1 at its outliers. */
static int fit_tail(const double *u, const double *v, size_t n, unsigned char *out, line *l, double *bend)
{
    const cloud c = { u, v, out, n };
    size_t worst = 0;
    double error;
    memset(out, 0, n);
    *l = line_through(&c);
    for (size_t most = n / OUTLIER_SHARE; most > 0 && l->n >= OUTLIER_MIN; most--) {
        if ((worst = find_outlier(&c, l)) == n) break;
        if (worst == 0 || worst == n - 1) return 0;
        out[worst] = 1;
        *l = line_through(&c);
    }
    *bend = bend_of(&c, l, &error);
    return fabs(*bend) <= bend_most + bend_errors * error;
}

/* The slope's 95 % interval: half its width. */
static double half_width(const cloud *c, const line *l, const double *error, double bend)
{
    double scatter = sqrt(l->sum_rr / (double)(l->n - 2) / l->sum_uu), measured = 0;
    for (size_t i = 0; error && i < c->n; i++) {
        double du = c->u[i] - l->mean_u;
        if (!c->out[i] && isfinite(error[i])) measured += du * du * error[i] * error[i];
    }
    return hypot(fmax(hs_t_quantile(0.975, (double)(l->n - 2)) * scatter, normal_95 * sqrt(measured) / l->sum_uu), 0.5 * bend);
}

int hs_power_fit(const double *x, const double *y, const double *error, size_t n, hs_power *p, unsigned char *left_out)
{
    double *u = calloc(2 * n + 1, sizeof *u), *v = u + n;
    unsigned char *out = calloc(n + 1, 1);
    line l;
    double bend;
    *p = (hs_power){ .first = n };
    for (size_t i = 0; u && i < n; i++) {
        u[i] = log(x[i]);
        v[i] = log(y[i]);
    }
    for (size_t s = 0; u && out && p->kept == 0 && s + TAIL_MIN <= n; s++) {
        if (!fit_tail(u + s, v + s, n - s, out + s, &l, &bend)) continue;
        double half = half_width(&(cloud){ u + s, v + s, out + s, n - s }, &l, error ? error + s : NULL, bend);
        *p = (hs_power){ .first = s, .kept = l.n, .slope = { l.slope, l.slope - half, l.slope + half, l.n },
                         .shift = l.middle - l.slope * l.mean_u, .deviation = sqrt(l.sum_rr / (double)(l.n - 2)) };
        memset(out, 0, s);              /* of tails that were tried before */
    }
    if (left_out && out && p->kept) memcpy(left_out, out, n);
    else if (left_out) memset(left_out, 0, n);
    free(out);
    free(u);
    return p->kept != 0;
}

double hs_power_at(const hs_power *p, double x)
{
    return exp(p->shift + p->slope.mean * log(x));
}

/* ---- crossings --------------------------------------------------------------------------------------------------- */
/* A normal number, element i of its draw. */
static double normal(uint32_t draw, uint32_t i)
{
    philox4 r = philox4x32_10(0, i, 0, draw);
    double u = ((double)r.v[0] + 0.5) * 0x1p-32, w = ((double)r.v[1] + 0.5) * 0x1p-32;
    return sqrt(-2 * log(u)) * cos(2 * M_PI * w);
}

/* The tangent at point i of the monotone cubic through (u, d) [n]: Fritsch and Butland's harmonic mean of the slopes on both
 * sides, none where the curve turns. */
static double tangent(const double *u, const double *d, size_t n, size_t i)
{
    double before = i > 0 ? (d[i] - d[i - 1]) / (u[i] - u[i - 1]) : NAN, after = i + 1 < n ? (d[i + 1] - d[i]) / (u[i + 1] - u[i]) : NAN;
    if (i == 0) return after;
    if (i + 1 == n) return before;
    double hb = u[i] - u[i - 1], ha = u[i + 1] - u[i], all = 3 * (hb + ha);
    return before * after <= 0 ? 0 : all / ((2 * ha + hb) / before + (ha + 2 * hb) / after);
}

/* Where d [n] becomes negative for good, as ln x: -INFINITY when it always is, INFINITY when it is not at the end.  Between
 * the two points there the cubic falls, so that bisection finds its zero. */
static double last_crossing(const double *u, const double *d, size_t n)
{
    size_t i = n;
    while (i > 0 && d[i - 1] < 0) i--;
    if (i == n) return INFINITY;
    if (i == 0) return -INFINITY;
    double h = u[i] - u[i - 1], m0 = h * tangent(u, d, n, i - 1), m1 = h * tangent(u, d, n, i), low = 0, high = 1;
    for (int k = 0; k < 50; k++) {
        double t = 0.5 * (low + high), s = 1 - t;
        double at = s * s * (1 + 2 * t) * d[i - 1] + t * s * s * m0 + t * t * (3 - 2 * t) * d[i] - t * t * s * m1;
        if (at >= 0) low = t;
        else high = t;
    }
    return u[i - 1] + 0.5 * (low + high) * h;
}

/* By size, infinities at their ends. */
static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

hs_crossing hs_crossing_of(const double *x, const double *a, const double *b, const double *sd, size_t n)
{
    hs_crossing r = { .kind = HS_CROSS_NEVER, .low = INFINITY, .high = INFINITY };
    double *u = calloc(3 * n + HS_BOOTSTRAPS + 1, sizeof *u), *d = u + n, *drawn = d + n, *at = drawn + n;
    if (!u || n == 0) {
        free(u);
        return r;
    }
    for (size_t i = 0; i < n; i++) {
        u[i] = log(x[i]);
        d[i] = log(a[i]) - log(b[i]);
    }
    double middle = last_crossing(u, d, n);
    for (uint32_t k = 0; k < HS_BOOTSTRAPS; k++) {
        for (size_t i = 0; i < n; i++) drawn[i] = d[i] + sd[i] * normal(k, (uint32_t)i);
        at[k] = last_crossing(u, drawn, n);
    }
    qsort(at, HS_BOOTSTRAPS, sizeof *at, by_size);
    r.kind = middle == INFINITY ? HS_CROSS_NEVER : middle == -INFINITY ? HS_CROSS_ALWAYS : HS_CROSS_AT;
    r.at = exp(middle);
    r.low = exp(at[HS_BOOTSTRAPS / 40]);
    r.high = exp(at[HS_BOOTSTRAPS - 1 - HS_BOOTSTRAPS / 40]);
    free(u);
    return r;
}
