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

/* Takes the slope's share off the scores s [n] of query row i with key rows j0 .. j0 + n - 1. */
static void bias(const k_flash *f, int i, int j0, int n, float *s)
{
    const k_pass *a = &f->pass;
    int64_t away = a->q0 + i * a->qstep - a->k0 - j0 * a->kstep;
    if (f->slope != 0)
        for (int j = 0; j < n; j++)
            s[j] -= f->slope * fabsf((float)(away - j * a->kstep));
}

/* Scaled and biased scores s [n] of query row i with key rows j0 .. j0 + n - 1. */
static void row_scores(const k_flash *f, int i, int j0, int n, float *s)
{
    dots(n, f->Dk, f->q + i * f->ldq, f->k + j0 * f->ldk, f->ldk, s);
    for (int j = 0; j < n; j++)
        s[j] *= f->scale;
    bias(f, i, j0, n, s);
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

/* The running maximum and sum of a row that other passes have been over: o is a mean, of weight exp(lse). */
static void resume(const k_flash *f, int i, float *top, float *sum)
{
    *top = f->lse[i * f->ldl];
    *sum = *top > -INFINITY ? 1 : 0;
}

/* Divides o [Dv] by its sum and notes the log-sum-exp. */
static void finish(const k_flash *f, int i, float top, float sum)
{
    float *o = f->o + i * f->ldo, inverse = sum > 0 ? 1 / sum : 0;
    for (int d = 0; d < f->Dv; d++)
        o[d] *= inverse;
    f->lse[i * f->ldl] = sum > 0 ? top + logf(sum) : -INFINITY;
}

/* Few queries: one after another over strips of keys. */
static void forward_rows(const k_flash *f)
{
    for (int i = 0; i < f->pass.nq; i++) {
        k_span seen = k_pass_span(&f->pass, i);
        float s[STRIP], top, sum, *o = f->o + i * f->ldo;
        resume(f, i, &top, &sum);
        for (int j0 = seen.from; j0 < seen.to; j0 += STRIP) {
            int m = least(seen.to - j0, STRIP);
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
    for (int i = 0; i < f->pass.nq; i++) {
        k_span seen = k_pass_span(&f->pass, i);
        const float *q = f->q + i * f->ldq, *g = f->d_o + i * f->lddo;
        float p[STRIP], ds[STRIP], delta = k_sdot(f->Dv, g, f->o + i * f->ldo);
        for (int j0 = seen.from; j0 < seen.to; j0 += STRIP) {
            int m = least(seen.to - j0, STRIP);
            row_scores(f, i, j0, m, p);
            k_sexp_sum(m, p, p, f->lse[i * f->ldl]);
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

/* What the queries of a block see, each and together. */
typedef struct { k_span row[TILE], all; } spans;

/* Of the nq queries from row i0 on. */
static void look(const k_flash *f, int i0, int nq, spans *s)
{
    s->all = (k_span){ f->pass.nk, 0 };
    for (int i = 0; i < nq; i++) {
        k_span seen = s->row[i] = k_pass_span(&f->pass, i0 + i);
        if (seen.from < seen.to && seen.from < s->all.from)
            s->all.from = seen.from;
        if (seen.to > s->all.to)
            s->all.to = seen.to;
    }
}

/* The part of a row's span inside the tile of nk keys at j0, counted from j0. */
static k_span inside(k_span row, int j0, int nk)
{
    k_span s = { row.from > j0 ? row.from - j0 : 0, least(row.to - j0, nk) };
    return s.from < s.to ? s : (k_span){ 0, 0 };
}

/* x [nk] = 0 outside the span. */
static void clear_outside(k_span s, int nk, float *x)
{
    memset(x, 0, (size_t)s.from * sizeof *x);
    memset(x + s.to, 0, (size_t)(nk - s.to) * sizeof *x);
}

/* S [nq,TILE] = scaled and biased scores of queries i0.. with keys j0.., all nk of them. */
static void tile_scores(const k_flash *f, int i0, int nq, int j0, int nk, float *S)
{
    k_sgemm(0, 1, nq, nk, f->Dk, f->scale, f->q + i0 * f->ldq, (int)f->ldq, f->k + j0 * f->ldk, (int)f->ldk, 0, S, TILE);
    for (int i = 0; i < nq; i++)
        bias(f, i0 + i, j0, nk, S + i * TILE);
}

/* Blocks of queries over tiles of keys, with a running maximum and sum per query. */
static void forward_tiles(const k_flash *f)
{
    float S[TILE * TILE];
    spans seen;
    for (int i0 = 0; i0 < f->pass.nq; i0 += TILE) {
        int nq = least(f->pass.nq - i0, TILE);
        float top[TILE], sum[TILE], *o = f->o + i0 * f->ldo;
        look(f, i0, nq, &seen);
        for (int i = 0; i < nq; i++)
            resume(f, i0 + i, top + i, sum + i);
        for (int j0 = seen.all.from; j0 < seen.all.to; j0 += TILE) {
            int nk = least(seen.all.to - j0, TILE);
            tile_scores(f, i0, nq, j0, nk, S);
            for (int i = 0; i < nq; i++) {
                k_span s = inside(seen.row[i], j0, nk);
                if (s.to)
                    online(s.to - s.from, S + i * TILE + s.from, top + i, sum + i, o + i * f->ldo, f->Dv);
                clear_outside(s, nk, S + i * TILE);
            }
            k_sgemm(0, 0, nq, f->Dv, nk, 1, S, TILE, f->v + j0 * f->ldv, (int)f->ldv, 1, o, (int)f->ldo);
        }
        for (int i = 0; i < nq; i++)
            finish(f, i0 + i, top[i], sum[i]);
    }
}

/* P [nq,TILE]: scores to weights; dS [nq,TILE]: g.v to the gradient of the scores. */
static void tile_gradient(const k_flash *f, const spans *seen, int i0, int nq, int j0, int nk, const float *delta, float *P, float *dS)
{
    for (int i = 0; i < nq; i++) {
        k_span s = inside(seen->row[i], j0, nk);
        float *p = P + i * TILE, *ds = dS + i * TILE;
        if (s.to)
            k_sexp_sum(s.to - s.from, p + s.from, p + s.from, f->lse[(i0 + i) * f->ldl]);
        for (int j = s.from; j < s.to; j++)
            ds[j] = f->scale * p[j] * (ds[j] - delta[i]);
        clear_outside(s, nk, p);
        clear_outside(s, nk, ds);
    }
}

/* The same tiles; weights come back from the log-sum-exp. */
static void backward_tiles(const k_flash *f)
{
    float P[TILE * TILE], dS[TILE * TILE], delta[TILE];
    spans seen;
    for (int i0 = 0; i0 < f->pass.nq; i0 += TILE) {
        int nq = least(f->pass.nq - i0, TILE);
        const float *q = f->q + i0 * f->ldq, *g = f->d_o + i0 * f->lddo;
        look(f, i0, nq, &seen);
        for (int i = 0; i < nq; i++)
            delta[i] = k_sdot(f->Dv, g + i * f->lddo, f->o + (i0 + i) * f->ldo);
        for (int j0 = seen.all.from; j0 < seen.all.to; j0 += TILE) {
            int nk = least(seen.all.to - j0, TILE);
            tile_scores(f, i0, nq, j0, nk, P);
            k_sgemm(0, 1, nq, nk, f->Dv, 1, g, (int)f->lddo, f->v + j0 * f->ldv, (int)f->ldv, 0, dS, TILE);
            tile_gradient(f, &seen, i0, nq, j0, nk, delta, P, dS);
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
void k_flash_forward(const k_flash *f) { f->pass.nq <= FEW ? forward_rows(f) : forward_tiles(f); }
/* As forward. */
void k_flash_backward(const k_flash *f) { f->pass.nq <= FEW ? backward_rows(f) : backward_tiles(f); }
