/* The feature maps of kernels/features.h in float: every inner loop is contiguous, the products of favor
 * are one matrix product over the rows, exponentials go through k_sexp. */
#include "kernels/cpu/features_internal.h"
#include "kernels/cpu.h"
#include "kernels/cpu/math.h"
#include <math.h>
#include <string.h>

/* ---- element by element --------------------------------------------------------------------------- */

/* phi[D] of x[D]. */
static void map_row(k_map map, int D, const float *restrict x, float *restrict phi)
{
    switch (map) {
    case K_MAP_ELU1:
        for (int d = 0; d < D; d++) phi[d] = x[d] > 0 ? 0 : x[d];
        k_sexp(D, phi, phi);
        for (int d = 0; d < D; d++) phi[d] += x[d] > 0 ? x[d] : 0;
        break;
    case K_MAP_RELU:
        for (int d = 0; d < D; d++) phi[d] = x[d] > 0 ? x[d] : 0;
        break;
    case K_MAP_SILU:
        k_ssigmoid(D, phi, x);
        for (int d = 0; d < D; d++) phi[d] *= x[d];
        break;
    case K_MAP_TANH: k_stanh(D, phi, x); break;
    default:         memcpy(phi, x, (size_t)D * sizeof *phi);
    }
}

/* dx[D] of dphi[D]; x and phi of the forward call. */
static void map_row_backward(k_map map, int D, const float *restrict x, const float *restrict phi, const float *restrict dphi,
                             float *restrict dx)
{
    switch (map) {
    case K_MAP_ELU1:
        for (int d = 0; d < D; d++) dx[d] = dphi[d] * (x[d] > 0 ? 1 : phi[d]);
        break;
    case K_MAP_RELU:
        for (int d = 0; d < D; d++) dx[d] = x[d] > 0 ? dphi[d] : 0;
        break;
    case K_MAP_SILU:
        k_ssigmoid(D, dx, x);
        for (int d = 0; d < D; d++) dx[d] = dphi[d] * (dx[d] + phi[d] * (1 - dx[d]));
        break;
    case K_MAP_TANH:
        for (int d = 0; d < D; d++) dx[d] = dphi[d] * (1 - phi[d] * phi[d]);
        break;
    default: memcpy(dx, dphi, (size_t)D * sizeof *dx);
    }
}

/* ---- dpfp -------------------------------------------------------------------------------------------- */

/* phi[2 nu D] of x[D]; rr[4D] is work. */
static void dpfp_row(const k_features *f, const float *x, float *restrict phi, float *restrict rr)
{
    int R = 2 * f->D;
    rectify(f->D, x, rr);
    for (int s = 1; s <= f->nu; s++, phi += R)
        for (int i = 0; i < R; i++) phi[i] = rr[R + i] * rr[R + i - s];
}

/* dx[D] of dphi[2 nu D]; work holds rr[4D] and its gradient drr[4D]. */
static void dpfp_row_backward(const k_features *f, const float *x, const float *restrict dphi, float *dx, float *work)
{
    int D = f->D, R = 2 * D;
    float *restrict rr = work, *restrict drr = work + 2 * R;
    rectify(D, x, rr);
    memset(drr, 0, 2 * (size_t)R * sizeof *drr);
    for (int s = 1; s <= f->nu; s++, dphi += R) {
        for (int i = 0; i < R; i++) drr[R + i] += dphi[i] * rr[R + i - s];
        for (int i = 0; i < R; i++) drr[R + i - s] += dphi[i] * rr[R + i];
    }
    rectify_backward(D, 1, x, drr, dx);
}

/* ---- favor --------------------------------------------------------------------------------------------- */

/* The largest u of a row, or the largest +-u. */
static float largest(const k_features *f, const float *u)
{
    return f->favor == K_FAVOR_POSITIVE ? k_smax(f->m, u) : largest_magnitude(f->m, u);
}

/* u[n,m] = W x' and eta[n] of x[n,D]; returns what stabilises them as keys. */
float k_sfavor_log(const k_features *f, int n, const float *x, int64_t ldx, float *u, int64_t ldu, float *eta)
{
    float s = input_scale(f), max = -INFINITY;
    k_sgemm(0, 1, n, f->m, f->D, s, x, (int)ldx, f->W, f->D, 0, u, (int)ldu);
    for (int i = 0; i < n; i++) {
        eta[i] = 0.5f * s * s * k_sdot(f->D, x + i * ldx, x + i * ldx);
        if (f->stabilise) max = fmaxf(max, f->favor == K_FAVOR_TRIG ? eta[i] : largest(f, u + i * ldu));
    }
    return f->stabilise ? max : 0;
}

/* The key stabiliser of x[n,D]. */
float k_sfeatures_kappa(const k_features *f, int n, const float *x, int64_t ldx, float *work)
{
    if (f->map != K_MAP_FAVOR || !f->stabilise) return 0;
    return k_sfavor_log(f, n, x, ldx, work, f->m, work + (size_t)n * f->m);
}

/* phi[2m] of u[m]; u may be phi. */
static void trig_row(const k_features *f, float scale, const float *u, float *phi)
{
    for (int r = 0; r < f->m; r++) {
        float angle = u[r];
        phi[f->m + r] = scale * sinf(angle);
        phi[r] = scale * cosf(angle);
    }
}

/* phi[n,M] of u[n,m] and eta[n]. */
void k_sfavor_exp(const k_features *f, k_role role, int n, const float *u, int64_t ldu, const float *eta, const float *kappa,
                  float *phi, int64_t ldp)
{
    float c = front(f), ce = c * (float)f->eps;
    for (int i = 0; i < n; i++, u += ldu, phi += ldp) {
        if (f->favor == K_FAVOR_TRIG) {
            float k = !f->stabilise ? 0 : kappa ? *kappa : eta[i];
            trig_row(f, role == K_KEY ? c * expf(eta[i] - k) : c, u, phi);
            continue;
        }
        float shift = eta[i] + (!f->stabilise ? 0 : kappa ? *kappa : largest(f, u));
        int M = f->m;
        if (f->favor == K_FAVOR_HYPERBOLIC) {
            #pragma omp simd
            for (int r = 0; r < f->m; r++) phi[f->m + r] = -u[r] - shift;
            M = 2 * f->m;
        }
        #pragma omp simd
        for (int r = 0; r < f->m; r++) phi[r] = u[r] - shift;
        k_sexp(M, phi, phi);
        for (int r = 0; r < M; r++) phi[r] = c * phi[r] + ce;
    }
}

/* du[m] of dphi[M], read off the features; returns deta. */
static float favor_du(const k_features *f, k_role role, const float *restrict phi, const float *restrict dphi, float *restrict du)
{
    int m = f->m;
    float ce = front(f) * (float)f->eps, deta = 0;
    if (f->favor == K_FAVOR_POSITIVE) {
        #pragma omp simd reduction(- : deta)
        for (int r = 0; r < m; r++) {
            du[r] = dphi[r] * (phi[r] - ce);
            deta -= du[r];
        }
    } else if (f->favor == K_FAVOR_HYPERBOLIC) {
        #pragma omp simd reduction(- : deta)
        for (int r = 0; r < m; r++) {
            float up = dphi[r] * (phi[r] - ce), down = dphi[m + r] * (phi[m + r] - ce);
            du[r] = up - down;
            deta -= up + down;
        }
    } else {
        for (int r = 0; r < m; r++) du[r] = dphi[m + r] * phi[r] - dphi[r] * phi[m + r];
        if (role == K_KEY) deta = k_sdot(2 * m, dphi, phi);
    }
    return deta;
}

/* dx[n,D] = s (du W + deta x'). */
static void favor_backward(const k_features *f, k_role role, int n, const float *x, int64_t ldx, const float *phi, int64_t ldp,
                           const float *dphi, int64_t lddp, float *dx, int64_t lddx, float *work)
{
    float s = input_scale(f), *du = work, *deta = work + (size_t)n * f->m;
    for (int i = 0; i < n; i++) deta[i] = favor_du(f, role, phi + i * ldp, dphi + i * lddp, du + (size_t)i * f->m);
    k_sgemm(0, 0, n, f->D, f->m, s, du, f->m, f->W, f->D, 0, dx, (int)lddx);
    for (int i = 0; i < n; i++) k_saxpy(f->D, s * s * deta[i], x + i * ldx, dx + i * lddx);
}

/* ---- general ------------------------------------------------------------------------------------------- */

/* y[n] = f(u[n]) + eps; y may be u. */
static void function_row(k_function fn, float eps, int n, const float *u, float *y)
{
    switch (fn) {
    case K_FN_RELU:    for (int r = 0; r < n; r++) y[r] = (u[r] > 0 ? u[r] : 0) + eps; break;
    case K_FN_ABS:     for (int r = 0; r < n; r++) y[r] = fabsf(u[r]) + eps; break;
    case K_FN_EXP:     for (int r = 0; r < n; r++) y[r] = exp_f32(u[r]) + eps; break;
    case K_FN_SIGMOID: for (int r = 0; r < n; r++) y[r] = sigmoid_f32(u[r]) + eps; break;
    default:           for (int r = 0; r < n; r++) y[r] = softplus_f32(u[r]) + eps;
    }
}

/* du[n] = f'(u[n]) dphi[n]; du may be u. */
static void slope_row(k_function fn, int n, const float *u, const float *dphi, float *du)
{
    switch (fn) {
    case K_FN_RELU: for (int r = 0; r < n; r++) du[r] = u[r] > 0 ? dphi[r] : 0; break;
    case K_FN_ABS:  for (int r = 0; r < n; r++) du[r] = u[r] > 0 ? dphi[r] : u[r] < 0 ? -dphi[r] : 0; break;
    case K_FN_EXP:  for (int r = 0; r < n; r++) du[r] = exp_f32(u[r]) * dphi[r]; break;
    case K_FN_SIGMOID:
        for (int r = 0; r < n; r++) {
            float s = sigmoid_f32(u[r]);
            du[r] = s * (1 - s) * dphi[r];
        }
        break;
    default: for (int r = 0; r < n; r++) du[r] = sigmoid_f32(u[r]) * dphi[r];
    }
}

/* phi[n,M] = f(Wx) + eps. */
static void general_forward(const k_features *f, int n, const float *x, int64_t ldx, float *phi, int64_t ldp)
{
    int M = k_features_width(f);
    if (f->m) k_sgemm(0, 1, n, M, f->D, 1, x, (int)ldx, f->W, f->D, 0, phi, (int)ldp);
    for (int i = 0; i < n; i++) function_row(f->fn, (float)f->eps, M, f->m ? phi + i * ldp : x + i * ldx, phi + i * ldp);
}

/* dx[n,D] = du W, du = f'(Wx) dphi.  Wx is computed again: the features do not tell the sign of abs, and eps hides
 * the last digits of small ones. */
static void general_backward(const k_features *f, int n, const float *x, int64_t ldx, const float *dphi, int64_t lddp,
                             float *dx, int64_t lddx, float *du)
{
    int M = k_features_width(f);
    if (f->m) k_sgemm(0, 1, n, M, f->D, 1, x, (int)ldx, f->W, f->D, 0, du, M);
    for (int i = 0; i < n; i++)
        if (f->m) slope_row(f->fn, M, du + (size_t)i * M, dphi + i * lddp, du + (size_t)i * M);
        else slope_row(f->fn, M, x + i * ldx, dphi + i * lddp, dx + i * lddx);
    if (f->m) k_sgemm(0, 0, n, f->D, M, 1, du, M, f->W, f->D, 0, dx, (int)lddx);
}

/* ---- any map ------------------------------------------------------------------------------------------- */

/* phi[n,M] of x[n,D]. */
void k_sfeatures_forward(const k_features *f, k_role role, int n, const float *x, int64_t ldx, const float *kappa,
                         float *phi, int64_t ldp, float *work)
{
    if (f->map == K_MAP_FAVOR) {
        float *eta = work + (size_t)n * f->m;
        k_sfavor_log(f, n, x, ldx, phi, ldp, eta);
        k_sfavor_exp(f, role, n, phi, ldp, eta, kappa, phi, ldp);
        return;
    }
    if (f->map == K_MAP_GENERAL) {
        general_forward(f, n, x, ldx, phi, ldp);
        return;
    }
    for (int i = 0; i < n; i++)
        if (f->map == K_MAP_DPFP) dpfp_row(f, x + i * ldx, phi + i * ldp, work);
        else map_row(f->map, f->D, x + i * ldx, phi + i * ldp);
}

/* dx[n,D] of dphi[n,M]. */
void k_sfeatures_backward(const k_features *f, k_role role, int n, const float *x, int64_t ldx, const float *phi, int64_t ldp,
                          const float *dphi, int64_t lddp, float *dx, int64_t lddx, float *work)
{
    if (f->map == K_MAP_FAVOR) {
        favor_backward(f, role, n, x, ldx, phi, ldp, dphi, lddp, dx, lddx, work);
        return;
    }
    if (f->map == K_MAP_GENERAL) {
        general_backward(f, n, x, ldx, dphi, lddp, dx, lddx, work);
        return;
    }
    for (int i = 0; i < n; i++)
        if (f->map == K_MAP_DPFP) dpfp_row_backward(f, x + i * ldx, dphi + i * lddp, dx + i * lddx, work);
        else map_row_backward(f->map, f->D, x + i * ldx, phi + i * ldp, dphi + i * lddp, dx + i * lddx);
}

/* ---- normalisation ---------------------------------------------------------------------------------------- */

/* y = r phi by rows of phi[n,M]; r[n] is kept. */
void k_snormalise_forward(k_norm norm, double eps, int n, int M, const float *phi, int64_t ldp, float *y, int64_t ldy, float *r)
{
    for (int i = 0; i < n; i++, phi += ldp, y += ldy) {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int k = 0; k < M; k++) sum += norm == K_NORM_L2 ? phi[k] * phi[k] : phi[k];
        sum += (float)eps;
        r[i] = norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : norm == K_NORM_L2 ? 1 / sqrtf(sum) : 1 / sum;
        for (int k = 0; k < M; k++) y[k] = r[i] * phi[k];
    }
}

/* sum: dphi = r (dy - dy.y);  l2: dphi = r (dy - y (dy.y)). */
void k_snormalise_backward(k_norm norm, int n, int M, const float *y, int64_t ldy, const float *r,
                           const float *dy, int64_t lddy, float *dphi, int64_t lddp)
{
    for (int i = 0; i < n; i++, y += ldy, dy += lddy, dphi += lddp) {
        float dot = norm == K_NORM_NONE ? 0 : k_sdot(M, dy, y);
        if (norm == K_NORM_L2) for (int k = 0; k < M; k++) dphi[k] = r[i] * (dy[k] - dot * y[k]);
        else for (int k = 0; k < M; k++) dphi[k] = r[i] * (dy[k] - dot);
    }
}
