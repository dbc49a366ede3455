/* flash.c - tiled softmax attention, see flash.h.
 *
 * Two shapes of the same algorithm: tiles of TILE x TILE on matrix products, and for up to FEW queries rows
 * of dot products, which read every key and value once and reuse four of them per load of the query.  With
 * one query (retrieval, decoding) the second is bound by memory alone. */
#include "../flash.h"
#include "../cpu.h"
#include <math.h>
#include <string.h>

enum { TILE = 64, FEW = 8, STRIP = 256 };

/* The smaller one, which is an int. */
static int least(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

/* Keys that query i sees. */
static int visible(const k_flash *f, int i)
{
    int64_t n = i + f->offset + 1;
    return n <= 0 ? 0 : least(n, f->klen);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

/* s [n] = x [D] . y_j for the rows y_j [D] of y [n,D]. */
static void dots(int n, int D, const float *x, const float *y, int64_t ldy, float *s)
{
    int j = 0;
    for (; j + 4 <= n; j += 4) {
        const float *a = y + j * ldy, *b = a + ldy, *c = b + ldy, *e = c + ldy;
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        #pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int d = 0; d < D; d++) {
            s0 += x[d] * a[d];
            s1 += x[d] * b[d];
            s2 += x[d] * c[d];
            s3 += x[d] * e[d];
        }
        s[j] = s0;
        s[j + 1] = s1;
        s[j + 2] = s2;
        s[j + 3] = s3;
    }
    for (; j < n; j++)
        s[j] = k_sdot(D, x, y + j * ldy);
}

/* x [D] += sum_j p_j y_j. */
static void gather(int n, int D, const float *p, const float *y, int64_t ldy, float *x)
{
    int j = 0;
    for (; j + 4 <= n; j += 4) {
        const float *a = y + j * ldy, *b = a + ldy, *c = b + ldy, *e = c + ldy;
        float p0 = p[j], p1 = p[j + 1], p2 = p[j + 2], p3 = p[j + 3];
        #pragma omp simd
        for (int d = 0; d < D; d++)
            x[d] += (p0 * a[d] + p1 * b[d]) + (p2 * c[d] + p3 * e[d]);
    }
    for (; j < n; j++)
        k_saxpy(D, p[j], y + j * ldy, x);
}

/* y_j += p_j x. */
static void scatter(int n, int D, const float *p, const float *x, float *y, int64_t ldy)
{
    for (int j = 0; j < n; j++)
        k_saxpy(D, p[j], x, y + j * ldy);
}

/* Takes slope |pos - j| off the scores s [n] of keys j0 .. j0 + n - 1. */
static void bias(const k_flash *f, int64_t pos, int j0, int n, float *s)
{
    if (f->slope != 0)
        for (int j = 0; j < n; j++)
            s[j] -= f->slope * fabsf((float)(pos - j0 - j));
}

/* Scaled and biased scores s [n] of query i with keys j0 .. j0 + n - 1. */
static void row_scores(const k_flash *f, int i, int j0, int n, float *s)
{
    dots(n, f->Dk, f->q + i * f->ldq, f->k + j0 * f->ldk, f->ldk, s);
    for (int j = 0; j < n; j++)
        s[j] *= f->scale;
    bias(f, f->position + i, j0, n, s);
}

/* Turns scores s [n] into weights under the running maximum and sum, and brings o [Dv] under the new maximum. */
static void online(int n, float *s, float *top, float *sum, float *o, int Dv)
{
    float now = fmaxf(*top, k_smax(n, s));
    float part = k_sexp_sum(n, s, s, now), keep = expf(*top - now);
    if (*sum > 0 && keep != 1)
        for (int d = 0; d < Dv; d++)
            o[d] *= keep;
    *sum = *sum * keep + part;
    *top = now;
}

/* Divides o [Dv] by its sum and notes the log-sum-exp. */
static void finish(const k_flash *f, int i, float top, float sum)
{
    float *o = f->o + i * f->ldo, inverse = sum > 0 ? 1 / sum : 0;
    for (int d = 0; d < f->Dv; d++)
        o[d] *= inverse;
    if (f->lse)
        f->lse[i] = sum > 0 ? top + logf(sum) : -INFINITY;
}

/* Few queries: one after another over strips of keys. */
static void forward_rows(const k_flash *f)
{
    for (int i = 0; i < f->Tq; i++) {
        int n = visible(f, i);
        float s[STRIP], top = -INFINITY, sum = 0, *o = f->o + i * f->ldo;
        memset(o, 0, (size_t)f->Dv * sizeof *o);
        for (int j0 = 0; j0 < n; j0 += STRIP) {
            int m = least(n - j0, STRIP);
            row_scores(f, i, j0, m, s);
            online(m, s, &top, &sum, o, f->Dv);
            gather(m, f->Dv, s, f->v + j0 * f->ldv, f->ldv, o);
        }
        finish(f, i, top, sum);
    }
}

/* The same strips; weights come back from the log-sum-exp. */
static void backward_rows(const k_flash *f)
{
    for (int i = 0; i < f->Tq; i++) {
        int n = visible(f, i);
        const float *q = f->q + i * f->ldq, *g = f->d_o + i * f->lddo;
        float p[STRIP], ds[STRIP], delta = k_sdot(f->Dv, g, f->o + i * f->ldo);
        if (f->dq)
            memset(f->dq + i * f->lddq, 0, (size_t)f->Dk * sizeof *f->dq);
        for (int j0 = 0; j0 < n; j0 += STRIP) {
            int m = least(n - j0, STRIP);
            row_scores(f, i, j0, m, p);
            k_sexp_sum(m, p, p, f->lse[i]);
            dots(m, f->Dv, g, f->v + j0 * f->ldv, f->ldv, ds);
            for (int j = 0; j < m; j++)
                ds[j] = f->scale * p[j] * (ds[j] - delta);
            if (f->dq)
                gather(m, f->Dk, ds, f->k + j0 * f->ldk, f->ldk, f->dq + i * f->lddq);
            if (f->dk)
                scatter(m, f->Dk, ds, q, f->dk + j0 * f->lddk, f->lddk);
            if (f->dv)
                scatter(m, f->Dv, p, g, f->dv + j0 * f->lddv, f->lddv);
        }
    }
}

/* ---- tiles ---------------------------------------------------------------------------------------------- */

/* S [nq,TILE] = scaled and biased scores of queries i0.. with keys j0.., all nk of them. */
static void tile_scores(const k_flash *f, int i0, int nq, int j0, int nk, float *S)
{
    k_sgemm(0, 1, nq, nk, f->Dk, f->scale, f->q + i0 * f->ldq, (int)f->ldq, f->k + j0 * f->ldk, (int)f->ldk, 0, S, TILE);
    for (int i = 0; i < nq; i++)
        bias(f, f->position + i0 + i, j0, nk, S + i * TILE);
}

/* Keys of the tile at j0 that query i sees, 0..nk. */
static int seen(const k_flash *f, int i, int j0, int nk)
{
    int n = visible(f, i) - j0;
    return n < 0 ? 0 : least(n, nk);
}

/* Blocks of queries over tiles of keys, with a running maximum and sum per query. */
static void forward_tiles(const k_flash *f)
{
    float S[TILE * TILE];
    for (int i0 = 0; i0 < f->Tq; i0 += TILE) {
        int nq = least(f->Tq - i0, TILE), keys = visible(f, i0 + nq - 1);
        float top[TILE], sum[TILE], *o = f->o + i0 * f->ldo;
        for (int i = 0; i < nq; i++) {
            top[i] = -INFINITY;
            sum[i] = 0;
            memset(o + i * f->ldo, 0, (size_t)f->Dv * sizeof *o);
        }
        for (int j0 = 0; j0 < keys; j0 += TILE) {
            int nk = least(keys - j0, TILE);
            tile_scores(f, i0, nq, j0, nk, S);
            for (int i = 0; i < nq; i++) {
                int n = seen(f, i0 + i, j0, nk);
                if (n)
                    online(n, S + i * TILE, top + i, sum + i, o + i * f->ldo, f->Dv);
                memset(S + i * TILE + n, 0, (size_t)(nk - n) * sizeof *S);
            }
            k_sgemm(0, 0, nq, f->Dv, nk, 1, S, TILE, f->v + j0 * f->ldv, (int)f->ldv, 1, o, (int)f->ldo);
        }
        for (int i = 0; i < nq; i++)
            finish(f, i0 + i, top[i], sum[i]);
    }
}

/* P [nq,TILE]: scores to weights; dS [nq,TILE]: g.v to the gradient of the scores. */
static void tile_gradient(const k_flash *f, int i0, int nq, int j0, int nk, const float *delta, float *P, float *dS)
{
    for (int i = 0; i < nq; i++) {
        int n = seen(f, i0 + i, j0, nk);
        float *p = P + i * TILE, *ds = dS + i * TILE;
        if (n)
            k_sexp_sum(n, p, p, f->lse[i0 + i]);
        for (int j = 0; j < n; j++)
            ds[j] = f->scale * p[j] * (ds[j] - delta[i]);
        memset(p + n, 0, (size_t)(nk - n) * sizeof *p);
        memset(ds + n, 0, (size_t)(nk - n) * sizeof *ds);
    }
}

/* The same tiles; weights come back from the log-sum-exp. */
static void backward_tiles(const k_flash *f)
{
    float P[TILE * TILE], dS[TILE * TILE], delta[TILE];
    for (int i0 = 0; i0 < f->Tq; i0 += TILE) {
        int nq = least(f->Tq - i0, TILE), keys = visible(f, i0 + nq - 1);
        const float *q = f->q + i0 * f->ldq, *g = f->d_o + i0 * f->lddo;
        for (int i = 0; i < nq; i++) {
            delta[i] = k_sdot(f->Dv, g + i * f->lddo, f->o + (i0 + i) * f->ldo);
            if (f->dq)
                memset(f->dq + (i0 + i) * f->lddq, 0, (size_t)f->Dk * sizeof *f->dq);
        }
        for (int j0 = 0; j0 < keys; j0 += TILE) {
            int nk = least(keys - j0, TILE);
            tile_scores(f, i0, nq, j0, nk, P);
            k_sgemm(0, 1, nq, nk, f->Dv, 1, g, (int)f->lddo, f->v + j0 * f->ldv, (int)f->ldv, 0, dS, TILE);
            tile_gradient(f, i0, nq, j0, nk, delta, P, dS);
            if (f->dq)
                k_sgemm(0, 0, nq, f->Dk, nk, 1, dS, TILE, f->k + j0 * f->ldk, (int)f->ldk, 1,
                        f->dq + i0 * f->lddq, (int)f->lddq);
            if (f->dk)
                k_sgemm(1, 0, nk, f->Dk, nq, 1, dS, TILE, q, (int)f->ldq, 1, f->dk + j0 * f->lddk, (int)f->lddk);
            if (f->dv)
                k_sgemm(1, 0, nk, f->Dv, nq, 1, P, TILE, g, (int)f->lddo, 1, f->dv + j0 * f->lddv, (int)f->lddv);
        }
    }
}

/* The form by the number of queries. */
void k_flash_forward(const k_flash *f) { f->Tq <= FEW ? forward_rows(f) : forward_tiles(f); }
/* As forward. */
void k_flash_backward(const k_flash *f) { f->Tq <= FEW ? backward_rows(f) : backward_tiles(f); }
