/* The scores of one query against many keys, s_j = a . phi(x_j), without forming phi (linear_attention.h).
 *
 * dpfp: s = sum_i r_i sum_s a_si r_(i-s).
 *
 * hyperbolic favor: with E = exp(u) the features are c g E and c g / E, g = exp(-eta - kappa): one exponential for
 * two features.  As each feature is its own derivative by u, and those of the query likewise,
 *     t_j = c g (a E - a' / E),  T_j = input_scale W^T t_j,  ds_j/dx_j = T_j - s_j input_scale x'_j,
 * and ds_j/dq is the same with q' for x'_j.  So forward leaves T_j [D] instead of E [m], and backward, which only
 * weighs the T_j, reads neither E nor W.  BLOCK keys go through PANEL features at a time: u, t and T stay in the
 * nearest cache.  So that E may go far, a enters as a 4^-k of at most 1, and 2^k g^1/2 is multiplied on twice at the
 * end.  Rows that leave the range of float even so take both exponentials with the shift inside.
 *
 * The floor for n keys: the 4 n m D flops of the two products; beside them n m exponentials and divisions, and
 * 4 n D bytes read and 4 n (D + 1) written.  m = 512, D = 64, n = 3200 on a core that does 32 flops in each cycle of
 * 3.2 GHz: 4.1 ms for the products, measured 5.7 ms in all, 0.9 of them exponentials and divisions. */
#include "kernels/linear_attention.h"
#include "kernels/cpu/features_internal.h"
#include "kernels/cpu.h"
#include "kernels/cpu/math.h"
#include <float.h>

/* A row is near where |u| <= FAR_U, -eta - kappa >= FAR_SHIFT and its sum is at least TINY: then sums of thousands of
 * E, and 2^k g^1/2, are inside the range of float, and what underflowed is no part of the sum.
 * Scores that are no normal number count as 0, and so do features below exp(LOWEST), as everywhere in math.h. */
static const float FAR_U = 75, FAR_SHIFT = -160, TINY = 1e-20f, LOWEST = -88;

/* A tile of TILE rows and COLS columns has its sums in 12 of the 16 vector registers of AVX2. */
typedef float vec __attribute__((vector_size(32), aligned(4)));
enum { LANES = 8, TILE = 6, COLS = 2 * LANES, BLOCK = 4 * TILE, PANEL = 4 * LANES };

/* n in whole steps. */
static int whole(int n, int step) { return (n + step - 1) / step * step; }

/* The maps that this file knows. */
int k_scores_fused(const k_features *f)
{
    return f->map == K_MAP_DPFP || (f->map == K_MAP_FAVOR && f->favor == K_FAVOR_HYPERBOLIC && f->eps == 0);
}

/* dpfp: query is da.  favor: packed is W by panels, and by rows; keep is T; query is sum ds T and sum ds s. */
void k_sscores_sizes(const k_features *f, k_scores_sizes *z)
{
    size_t m = whole(f->m, PANEL), D = whole(f->D, COLS);
    if (f->map == K_MAP_DPFP) *z = (k_scores_sizes){ 0, 0, k_features_width(f), k_features_work(f, 1) };
    else *z = (k_scores_sizes){ m * (f->D + D), D, f->D + 1, 2 * m + 3 * (size_t)f->m + D };
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

/* packed: input_scale W as panels [m/PANEL][D][PANEL], then as rows [m,D]; 0 where m and D are filled up. */
void k_sscores_pack(const k_features *f, float *packed)
{
    if (f->map != K_MAP_FAVOR) return;
    int D = f->D, m = whole(f->m, PANEL), width = whole(D, COLS);
    float scale = input_scale(f), *rows = packed + (size_t)m * D;
    memset(packed, 0, (size_t)m * (D + width) * sizeof *packed);
    for (int r = 0; r < f->m; r++) {
        const float *w = (const float *)f->W + (size_t)r * D;
        float *panel = packed + (size_t)(r / PANEL) * D * PANEL + r % PANEL;
        for (int d = 0; d < D; d++) rows[(size_t)r * width + d] = panel[d * PANEL] = scale * w[d];
    }
}

/* C[rows,COLS] = A[rows,K] B[K,COLS], added to C if add; rows is a constant wherever this is called. */
static inline __attribute__((always_inline)) void tile(int rows, int K, const float *A, int64_t lda, const float *B, int ldb,
                                                       int add, float *C, int ldc)
{
    vec c[TILE][2];
    #pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        c[i][0] = add ? *(const vec *)(C + i * ldc) : (vec){ 0 };
        c[i][1] = add ? *(const vec *)(C + i * ldc + LANES) : (vec){ 0 };
    }
    for (int k = 0; k < K; k++, B += ldb) {
        vec b0 = *(const vec *)B, b1 = *(const vec *)(B + LANES);
        #pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            c[i][0] += A[i * lda + k] * b0;
            c[i][1] += A[i * lda + k] * b1;
        }
    }
    #pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        *(vec *)(C + i * ldc) = c[i][0];
        *(vec *)(C + i * ldc + LANES) = c[i][1];
    }
}

/* C[n,N] = A[n,K] B[K,N], added to C if add; N in whole COLS. */
static void product(int n, int N, int K, const float *A, int64_t lda, const float *B, int ldb, int add, float *C, int ldc)
{
    for (int j = 0; j < N; j += COLS)
        for (int i = 0; i < n; i += TILE) {
            const float *a = A + i * lda, *b = B + j;
            float *c = C + i * ldc + j;
            switch (n - i) {
            case 1:  tile(1, K, a, lda, b, ldb, add, c, ldc); break;
            case 2:  tile(2, K, a, lda, b, ldb, add, c, ldc); break;
            case 3:  tile(3, K, a, lda, b, ldb, add, c, ldc); break;
            case 4:  tile(4, K, a, lda, b, ldb, add, c, ldc); break;
            case 5:  tile(5, K, a, lda, b, ldb, add, c, ldc); break;
            default: tile(TILE, K, a, lda, b, ldb, add, c, ldc);
            }
        }
}

/* u[PANEL] becomes a E - a' / E; a E + a' / E is added to sum[PANEL] and max[PANEL] keeps the largest |u|, column by
 * column, so that a row is added up once and not once per panel.  NaN is the largest, as in largest_magnitude. */
static void cosh_panel(const float *restrict a, const float *restrict a2, float *restrict u, float *restrict sum, float *restrict max)
{
    #pragma omp simd
    for (int r = 0; r < PANEL; r++) {
        uint32_t size = bits_of(u[r]) & 0x7fffffff, old = bits_of(max[r]);
        float E = exp_f32(u[r]), up = a[r] * E, down = a2[r] / E;
        u[r] = up - down;
        sum[r] += up + down;
        max[r] = float_of(size > old ? size : old);
    }
}

/* The sum of x[PANEL]. */
static float panel_sum(const float *x)
{
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int r = 0; r < PANEL; r++) sum += x[r];
    return sum;
}

/* s and T[D] of one key with both exponentials, shift inside; work[3m]. */
static float far_score(const k_features *f, const float *x, float shift, const float *a, float *T, float *work)
{
    int m = f->m;
    float *u = work, *e = u + m, c = front(f), scale = input_scale(f);
    k_sgemm(0, 1, 1, m, f->D, scale, x, f->D, f->W, f->D, 0, u, m);
    for (int r = 0; r < m; r++) {
        e[r] = shift + u[r];
        e[m + r] = shift - u[r];
    }
    k_sexp(2 * m, e, e);
    if (T) {
        for (int r = 0; r < m; r++) u[r] = c * (a[r] * e[r] - a[m + r] * e[m + r]);
        k_sgemm(0, 0, 1, f->D, m, scale, u, m, f->W, f->D, 0, T, f->D);
    }
    return c * k_sdot(2 * m, a, e);
}

/* s[n] and, unless NULL, T[n,D] of n <= BLOCK keys; near is a 4^-k, padded to the panels, and a' behind it; work[3m]. */
static void favor_block(const k_features *f, const float *packed, int n, const float *x, int64_t ldx, float kappa,
                        const float *a, const float *near, int k, float *s, float *T, float *work)
{
    int D = f->D, m = whole(f->m, PANEL), width = whole(D, COLS);
    float t[BLOCK][PANEL], sum[BLOCK][PANEL] = { 0 }, max[BLOCK][PANEL] = { 0 }, c = front(f), scale = input_scale(f);
    for (int r = 0; r < m; r += PANEL) {
        product(n, PANEL, D, x, ldx, packed + (size_t)r * D, PANEL, 0, *t, PANEL);
        for (int j = 0; j < n; j++) cosh_panel(near + r, near + m + r, t[j], sum[j], max[j]);
        if (T) product(n, width, PANEL, *t, PANEL, packed + (size_t)m * D + (size_t)r * width, width, r > 0, T, width);
    }
    for (int j = 0; j < n; j++) {
        const float *xj = x + j * ldx;
        float shift = -0.5f * scale * scale * k_sdot(D, xj, xj) - kappa, *Tj = T ? T + j * width : NULL;
        float total = panel_sum(sum[j]), u = largest_magnitude(PANEL, max[j]), h = ldexpf(expf(0.5f * shift), k);
        int near = u <= FAR_U && shift >= FAR_SHIFT && total >= TINY;
        s[j] = c * (total * h * h);
        if (shift + u < LOWEST || (near && s[j] < FLT_MIN)) {
            s[j] = 0;
            if (Tj) memset(Tj, 0, (size_t)D * sizeof *Tj);
        } else if (!near) {
            s[j] = far_score(f, xj, shift, a, Tj, work);
        } else if (Tj) {
            for (int d = 0; d < D; d++) Tj[d] = c * (Tj[d] * h * h);
        }
    }
}

/* near[m] = 4^-k a[n], and 0 behind it. */
static void bring_near(int n, int m, int k, const float *a, float *near)
{
    float scale = ldexpf(1, -2 * k);
    for (int r = 0; r < n; r++) near[r] = scale * a[r];
    memset(near + n, 0, (size_t)(m - n) * sizeof *near);
}

/* s[n] and keep[n,D]; work[2m] of padded features and 3m. */
static void favor_forward(const k_features *f, const float *packed, int n, const float *x, int64_t ldx, float kappa,
                          const float *a, float *s, float *keep, float *work)
{
    int m = whole(f->m, PANEL), width = whole(f->D, COLS), exponent = 0;
    float largest = largest_magnitude(2 * f->m, a);
    if (largest < FLT_MIN) {                            /* the query lies so far out that nothing is like it */
        memset(s, 0, (size_t)n * sizeof *s);
        if (keep) memset(keep, 0, (size_t)n * width * sizeof *keep);
        return;
    }
    frexpf(largest, &exponent);
    int k = exponent / 2 + (exponent > 0);              /* 4^k >= 2^exponent > a */
    bring_near(f->m, m, k, a, work);
    bring_near(f->m, m, k, a + f->m, work + m);
    for (int j = 0; j < n; j += BLOCK)
        favor_block(f, packed, n - j < BLOCK ? n - j : BLOCK, x + j * ldx, ldx, kappa, a, work, k, s + j,
                    keep ? keep + (size_t)j * width : NULL, work + 2 * m);
}

/* query[D+1] += and dx[n,D] of ds[n]. */
static void favor_backward(const k_features *f, int n, const float *x, int64_t ldx, const float *s, const float *ds,
                           const float *keep, float *restrict query, float *dx, int64_t lddx)
{
    int D = f->D;
    float scale = input_scale(f);
    for (int j = 0; j < n; j++) {
        const float *restrict T = keep + (size_t)j * whole(D, COLS), *restrict xj = x + j * ldx;
        float w = ds[j], pull = w * s[j];
        for (int d = 0; d < D; d++) query[d] += w * T[d];
        query[D] += pull;
        if (!dx) continue;
        pull *= scale * scale;
        float *restrict dxj = dx + j * lddx;
        for (int d = 0; d < D; d++) dxj[d] = w * T[d] - pull * xj[d];
    }
}

/* ---- either ------------------------------------------------------------------------------------------------ */

/* s[n] of the keys x[n,D]. */
void k_sscores_forward(const k_features *f, const float *packed, int n, const float *x, int64_t ldx, const float *kappa,
                       const float *a, float *s, float *keep, float *work)
{
    if (f->map == K_MAP_FAVOR) {
        favor_forward(f, packed, n, x, ldx, f->stabilise ? *kappa : 0, a, s, keep, work);
        return;
    }
    for (int j = 0; j < n; j++) {
        rectify(f->D, x + j * ldx, work);
        s[j] = dpfp_score(f->nu, 2 * f->D, a, work);
    }
}

/* query += and dx[n,D] of ds[n]. */
void k_sscores_backward(const k_features *f, int n, const float *x, int64_t ldx, const float *a, const float *s, const float *ds,
                        const float *keep, float *query, float *dx, int64_t lddx, float *work)
{
    if (f->map == K_MAP_FAVOR) favor_backward(f, n, x, ldx, s, ds, keep, query, dx, lddx);
    else for (int j = 0; j < n; j++) dpfp_backward(f, x + j * ldx, a, ds[j], query, dx ? dx + j * lddx : NULL, work);
}

/* dq[D] of query. */
void k_sscores_dq(const k_features *f, const float *q, const float *a, const float *query, float *dq, float *work)
{
    int D = f->D, M = k_features_width(f);
    float scale = input_scale(f), pull = scale * scale * query[D];
    if (f->map == K_MAP_FAVOR) for (int d = 0; d < D; d++) dq[d] = query[d] - pull * q[d];
    else k_sfeatures_backward(f, K_QUERY, 1, q, D, a, M, query, M, dq, D, work);
}
