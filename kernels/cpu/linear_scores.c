/* The scores of one query against many keys, s_j = a . phi(x_j), without forming phi (linear_attention.h).
 *
 * dpfp: s = sum_i r_i sum_s a_si r_(i-s).
 * hyperbolic favor: with E = exp(u) the features are c (g E + eps) and c (g / E + eps), g = exp(-eta - kappa): one
 * exponential for two features.  E is kept for backward.  Rows where E or g might leave the range of float
 * keep u, marked by g = -1, and take both exponentials with the shift inside. */
#include "kernels/linear_attention.h"
#include "kernels/cpu/features_internal.h"
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

/* exp(+-40) and products of two such stay far inside the range of float. */
static const float SAFE = 40;

/* The maps that this file knows. */
int k_scores_fused(const k_features *f)
{
    return f->map == K_MAP_DPFP || (f->map == K_MAP_FAVOR && f->favor == K_FAVOR_HYPERBOLIC);
}

/* E [n,m] and g [n]. */
size_t k_scores_keep(const k_features *f)
{
    return f->map == K_MAP_FAVOR && f->favor == K_FAVOR_HYPERBOLIC ? (size_t)f->m + 1 : 0;
}

/* ---- dpfp ------------------------------------------------------------------------------------------- */

/* a . phi of rr[2R], a[nu,R]. */
static float dpfp_score(int nu, int R, const float *restrict a, const float *restrict rr)
{
    float sum = 0;
    for (int s = 1; s <= nu; s++, a += R) {
        #pragma omp simd reduction(+ : sum)
        for (int i = 0; i < R; i++) sum += a[i] * rr[R + i] * rr[R + i - s];
    }
    return sum;
}

/* da += ds phi, and drr[2R] += the derivative of a . phi by both factors. */
static void dpfp_score_backward(int nu, int R, float ds, const float *restrict a, const float *restrict rr,
                                float *restrict da, float *restrict drr)
{
    for (int s = 1; s <= nu; s++, a += R, da += R) {
        for (int i = 0; i < R; i++) {
            float w = ds * rr[R + i];
            da[i] += w * rr[R + i - s];
            drr[R + i] += a[i] * rr[R + i - s];
        }
        for (int i = 0; i < R; i++) drr[R + i - s] += a[i] * rr[R + i];
    }
}

/* One key x[D]; work holds rr and drr.  dx may be NULL. */
static void dpfp_backward(const k_features *f, const float *x, const float *a, float ds, float *da, float *dx, float *work)
{
    int D = f->D, R = 2 * D;
    float *rr = work, *drr = work + 2 * R;
    rectify(D, x, rr);
    memset(drr, 0, 2 * (size_t)R * sizeof *drr);
    dpfp_score_backward(f->nu, R, ds, a, rr, da, drr);
    if (dx) rectify_backward(D, ds, x, drr, dx);
}

/* ---- hyperbolic favor ----------------------------------------------------------------------------------- */

/* exp(shift + u) and exp(shift - u) of u[m], into e[2m]. */
static void both_exp(int m, const float *restrict u, float shift, float *restrict e)
{
    for (int r = 0; r < m; r++) {
        e[r] = shift + u[r];
        e[m + r] = shift - u[r];
    }
    k_sexp(2 * m, e, e);
}

/* sum_r a_r exp(shift + u_r) + a_(m+r) exp(shift - u_r).  u[m] becomes E where that is safe; *g tells. */
static float cosh_row(int m, float shift, const float *restrict a, float *restrict u, float *g, float *restrict e)
{
    float sum = 0;
    if (largest_magnitude(m, u) <= SAFE && fabsf(shift) <= SAFE) {
        k_sexp(m, u, u);
        #pragma omp simd reduction(+ : sum)
        for (int r = 0; r < m; r++) sum += a[r] * u[r] + a[m + r] / u[r];
        *g = expf(shift);
        return *g * sum;
    }
    *g = -1;
    both_exp(m, u, shift, e);
    return k_sdot(2 * m, a, e);
}

/* s[n] and keep[n,m+1]; work[2m]. */
static void favor_forward(const k_features *f, int n, const float *x, int64_t ldx, float kappa, const float *a,
                          float *s, float *keep, float *work)
{
    int m = f->m;
    float c = front(f), ce = 0, *g = keep + (size_t)n * m;
    if (f->eps > 0) for (int r = 0; r < 2 * m; r++) ce += c * (float)f->eps * a[r];
    k_sfavor_log(f, n, x, ldx, keep, m, g);             /* g holds eta first */
    for (int j = 0; j < n; j++) s[j] = ce + c * cosh_row(m, -g[j] - kappa, a, keep + (size_t)j * m, g + j, work);
}

/* du[m], and da[2m] +=, of w = c g ds at E[m]; returns -deta. */
static float cosh_backward(int m, float w, const float *restrict a, const float *restrict E, float *restrict da, float *restrict du)
{
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int r = 0; r < m; r++) {
        float up = w * E[r], down = w / E[r], pu = a[r] * up, pd = a[m + r] * down;
        da[r] += up;
        da[m + r] += down;
        du[r] = pu - pd;
        sum += pu + pd;
    }
    return sum;
}

/* The same of w = c ds where g and E are not safe: e[2m] holds both exponentials. */
static float exp_backward(int m, float w, const float *restrict a, const float *restrict e, float *restrict da, float *restrict du)
{
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int r = 0; r < m; r++) {
        float up = w * e[r], down = w * e[m + r], pu = a[r] * up, pd = a[m + r] * down;
        da[r] += up;
        da[m + r] += down;
        du[r] = pu - pd;
        sum += pu + pd;
    }
    return sum;
}

/* da[M] += and dx[n,D] of ds[n]; work[n,m+1] and 2m. */
static void favor_backward(const k_features *f, int n, const float *x, int64_t ldx, float kappa, const float *a,
                           const float *ds, const float *keep, float *da, float *dx, int64_t lddx, float *work)
{
    int m = f->m;
    const float *g = keep + (size_t)n * m;
    float c = front(f), scale = input_scale(f), sum = 0;
    float *du = work, *deta = du + (size_t)n * m, *e = deta + n;
    for (int j = 0; j < n; j++) {
        const float *E = keep + (size_t)j * m, *xj = x + j * ldx;
        sum += ds[j];
        if (g[j] >= 0) {
            deta[j] = -cosh_backward(m, c * g[j] * ds[j], a, E, da, du + (size_t)j * m);
        } else {
            both_exp(m, E, -0.5f * scale * scale * k_sdot(f->D, xj, xj) - kappa, e);
            deta[j] = -exp_backward(m, c * ds[j], a, e, da, du + (size_t)j * m);
        }
    }
    if (f->eps > 0) for (int r = 0; r < 2 * m; r++) da[r] += c * (float)f->eps * sum;
    if (!dx) return;
    k_sgemm(0, 0, n, f->D, m, scale, du, m, f->W, f->D, 0, dx, (int)lddx);
    for (int j = 0; j < n; j++) k_saxpy(f->D, scale * scale * deta[j], x + j * ldx, dx + j * lddx);
}

/* ---- either ------------------------------------------------------------------------------------------------ */

/* s[n] of the keys x[n,D]. */
void k_sscores_forward(const k_features *f, int n, const float *x, int64_t ldx, const float *kappa, const float *a,
                       float *s, float *keep, float *work)
{
    if (f->map == K_MAP_FAVOR) {
        float *e = work + (size_t)n * (f->m + 1);
        favor_forward(f, n, x, ldx, f->stabilise ? *kappa : 0, a, s, keep ? keep : work, e);
        return;
    }
    for (int j = 0; j < n; j++) {
        rectify(f->D, x + j * ldx, work);
        s[j] = dpfp_score(f->nu, 2 * f->D, a, work);
    }
}

/* da[M] += and dx[n,D] of ds[n]. */
void k_sscores_backward(const k_features *f, int n, const float *x, int64_t ldx, const float *kappa, const float *a,
                        const float *ds, const float *keep, float *da, float *dx, int64_t lddx, float *work)
{
    if (f->map == K_MAP_FAVOR) favor_backward(f, n, x, ldx, f->stabilise ? *kappa : 0, a, ds, keep, da, dx, lddx, work);
    else for (int j = 0; j < n; j++) dpfp_backward(f, x + j * ldx, a, ds[j], da, dx ? dx + j * lddx : NULL, work);
}
