/* recurrence_scores.c - fades and scores within a chunk of tokens.
 *
 * No quotient of fades is ever formed: exp(b_i) / exp(b_j) with b the running sum of decays overflows.  One decay for
 * all channels: weight_ij = exp(b_i - b_j) <= 1, the difference in double.  One for each channel: the chunk is
 * halved again and again.  Between the halves [lo,mid) and [mid,hi)
 *   P_ij = (q_i exp(l_mid + .. + l_i)) . (k_j exp(l_{j+1} + .. + l_{mid-1})),
 * where both factors are at most 1 and sums run only over the tokens between, and a half has its own halves. */
#include "recurrence_chunks.h"
#include "../cpu.h"

enum { C = RC_CHUNK };

/* One decay per token. */
static void scalar_fades(rc_chunk w, int n)
{
    double b[C], sum = 0;
    for (int i = 0; i < n; i++)
        b[i] = sum += w.l[i];
    for (int i = 0; i < n; i++) {
        float *row = w.weight + i * C;
        for (int j = 0; j <= i; j++)
            row[j] = (float)(b[i] - b[j]);
        k_sexp(i + 1, row, row);
        memset(row + i + 1, 0, (size_t)(C - i - 1) * sizeof *row);
        w.in[i] = (float)b[i];
    }
    k_sexp(n, w.in, w.in);
    for (int j = 0; j < n; j++)
        w.out[j] = w.weight[(n - 1) * C + j];
    *w.left = w.in[n - 1];
}

/* Row i of fade [.,D], i in [lo,hi) = exp of the decays from lo to i. */
static void fade_from(int D, const float *l, int lo, int hi, float *fade)
{
    for (int i = lo; i < hi; i++)
        for (int d = 0; d < D; d++)
            fade[i * D + d] = l[i * D + d] + (i > lo ? fade[(i - 1) * D + d] : 0);
    k_sexp((hi - lo) * D, fade + lo * D, fade + lo * D);
}

/* Row j of fade [.,D], j in [lo,hi) = exp of the decays after j up to hi - 1. */
static void fade_to(int D, const float *l, int lo, int hi, float *fade)
{
    for (int j = hi - 1; j >= lo; j--)
        for (int d = 0; d < D; d++)
            fade[j * D + d] = j + 1 < hi ? l[(j + 1) * D + d] + fade[(j + 1) * D + d] : 0;
    k_sexp((hi - lo) * D, fade + lo * D, fade + lo * D);
}

/* The fades of either kind of decay. */
void rc_fades(const k_recurrence *r, rc_chunk w, int n)
{
    int D = r->D;
    if (r->decay != K_DECAY_CHANNEL) {
        scalar_fades(w, n);
        return;
    }
    fade_from(D, w.l, 0, n, w.in);
    fade_to(D, w.l, 0, n, w.out);
    memcpy(w.left, w.in + (n - 1) * D, (size_t)D * sizeof *w.left);
}

/* Row by row, or element by element. */
void rc_faded(const k_recurrence *r, int n, const float *x, const float *fade, float *y)
{
    int D = r->D, width = rc_width(r);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < D; d++)
            y[i * D + d] = x[i * D + d] * (width > 1 ? fade[i * D + d] : fade[i * width]);
}

/* Rows of the two halves [lo,mid) and [mid,hi), faded towards mid: k_half, q_half and the fades themselves. */
static void fade_halves(int D, rc_chunk w, int lo, int mid, int hi)
{
    fade_to(D, w.l, lo, mid, w.fade);
    fade_from(D, w.l, mid, hi, w.fade);
    for (int i = lo * D; i < mid * D; i++)
        w.k_half[i] = w.k[i] * w.fade[i];
    for (int i = mid * D; i < hi * D; i++)
        w.q_half[i] = w.q[i] * w.fade[i];
}

/* Scores among the tokens lo .. hi - 1. */
static void scores_of(int D, rc_chunk w, int lo, int hi)
{
    int mid = (lo + hi) / 2;
    if (hi - lo == 1) {
        w.P[lo * C + lo] = k_sdot(D, w.q + lo * D, w.k + lo * D);
        return;
    }
    fade_halves(D, w, lo, mid, hi);
    k_sgemm(0, 1, hi - mid, mid - lo, D, 1, w.q_half + mid * D, D, w.k_half + lo * D, D, 0, w.P + mid * C + lo, C);
    scores_of(D, w, lo, mid);
    scores_of(D, w, mid, hi);
}

/* All products at once, or half by half. */
void rc_scores(const k_recurrence *r, rc_chunk w, int n)
{
    int D = r->D;
    if (r->decay == K_DECAY_CHANNEL) {
        memset(w.P, 0, (size_t)n * C * sizeof *w.P);
        scores_of(D, w, 0, n);
        return;
    }
    k_sgemm(0, 1, n, n, D, 1, w.q, D, w.k, D, 0, w.P, C);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            w.P[i * C + j] *= w.weight[i * C + j];
}

/* sum [W] += x o dx of one token. */
static inline void add_product(const k_recurrence *r, const float *x, const float *dx, float *sum)
{
    if (r->decay == K_DECAY_CHANNEL)
        for (int d = 0; d < r->D; d++)
            sum[d] += x[d] * dx[d];
    else
        *sum += k_sdot(r->D, x, dx);
}

/* A running sum from the last token on. */
void rc_decays_from(const k_recurrence *r, rc_chunk w, int lo, int hi, const float *x, const float *dx)
{
    int D = r->D, width = rc_width(r);
    memset(w.sum, 0, (size_t)width * sizeof *w.sum);
    for (int t = hi - 1; t >= lo; t--) {
        add_product(r, x + t * D, dx + t * D, w.sum);
        for (int d = 0; d < width; d++)
            w.dl[t * width + d] += w.sum[d];
    }
}

/* A running sum from the first token on. */
void rc_decays_to(const k_recurrence *r, rc_chunk w, int lo, int hi, const float *x, const float *dx)
{
    int D = r->D, width = rc_width(r);
    memset(w.sum, 0, (size_t)width * sizeof *w.sum);
    for (int t = lo + 1; t < hi; t++) {
        add_product(r, x + (t - 1) * D, dx + (t - 1) * D, w.sum);
        for (int d = 0; d < width; d++)
            w.dl[t * width + d] += w.sum[d];
    }
}

/* Sums of columns grow from the last row up. */
void rc_decays_between(rc_chunk w, int n, const float *shares)
{
    float below[C] = { 0 };             /* of column j, the rows from t on */
    for (int t = n - 1; t > 0; t--)
        for (int j = 0; j < t; j++) {
            below[j] += shares[t * C + j];
            w.dl[t] += below[j];
        }
}

/* The gradient of scores_of. */
static void scores_of_back(const k_recurrence *r, rc_chunk w, int lo, int hi)
{
    int D = r->D, mid = (lo + hi) / 2;
    const float *dP = w.dP + mid * C + lo;
    if (hi - lo == 1) {
        k_saxpy(D, w.dP[lo * C + lo], w.k + lo * D, w.dq + lo * D);
        k_saxpy(D, w.dP[lo * C + lo], w.q + lo * D, w.dk + lo * D);
        return;
    }
    fade_halves(D, w, lo, mid, hi);
    k_sgemm(0, 0, hi - mid, D, mid - lo, 1, dP, C, w.k_half + lo * D, D, 0, w.d_half + mid * D, D);
    k_sgemm(1, 0, mid - lo, D, hi - mid, 1, dP, C, w.q_half + mid * D, D, 0, w.d_half + lo * D, D);
    for (int i = lo * D; i < mid * D; i++)
        w.dk[i] += w.fade[i] * w.d_half[i];
    for (int i = mid * D; i < hi * D; i++)
        w.dq[i] += w.fade[i] * w.d_half[i];
    rc_decays_to(r, w, lo, mid, w.k_half, w.d_half);
    rc_decays_from(r, w, mid, hi, w.q_half, w.d_half);
    scores_of_back(r, w, lo, mid);
    scores_of_back(r, w, mid, hi);
}

/* The gradient of rc_scores. */
void rc_scores_back(const k_recurrence *r, rc_chunk w, int n)
{
    int D = r->D;
    if (r->decay == K_DECAY_CHANNEL) {
        scores_of_back(r, w, 0, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            w.P[i * C + j] *= w.dP[i * C + j];
            w.dP[i * C + j] *= w.weight[i * C + j];
        }
    if (r->decay == K_DECAY_STEP)
        rc_decays_between(w, n, w.P);
    k_sgemm(0, 0, n, D, n, 1, w.dP, C, w.k, D, 1, w.dq, D);
    k_sgemm(1, 0, n, D, n, 1, w.dP, C, w.q, D, 1, w.dk, D);
}
