/* flash.c - tiled softmax attention, see flash.h.
 *
 * Up to FEW queries are rows of dot products, which read every key and value once and reuse four of them per load of the
 * query: with one query (retrieval, decoding) that is bound by memory alone.  More queries go in blocks over tiles of
 * keys.  A tile of scores is held transposed, [keys,queries], so that everything about a query - maximum, sum, weights -
 * runs over vectors of queries without a sum across one, keys and values are read where they are, and only the queries
 * are turned round, once a block.  A panel of 16 queries computes the keys that any of its queries sees and no others.
 * Widths above WIDE are taken in parts. */
#include "../flash.h"
#include "../cpu.h"
#include "internal.h"
#include "math.h"
#include "tile.h"
#include <math.h>
#include <string.h>

enum { FEW = 8, STRIP = 256, BLOCK = 96, PANELS = BLOCK / K_PANEL, WIDE = 128 };

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

/* Part of a tensor's rows, packed for products; it is still there when the same is asked for again. */
typedef struct { const float *of; float x[BLOCK * WIDE]; } packed;

/* A block of queries, and what they see. */
typedef struct {
    int i0, n;
    k_span row[BLOCK], all;
    float top[BLOCK], sum[BLOCK];       /* running maximum and sum; in backward log-sum-exp and delta */
} block;

/* A tile of keys for them. */
typedef struct {
    int j0, n;
    k_span panel[PANELS];               /* what the queries of a panel see, in whole groups of keys */
    int cut[PANELS];                    /* one of them sees less */
} tile;

/* The block of queries from row i0 on. */
static void look(const k_flash *f, int i0, block *q)
{
    q->i0 = i0;
    q->n = least(f->pass.nq - i0, BLOCK);
    q->all = (k_span){ f->pass.nk, 0 };
    for (int i = 0; i < q->n; i++) {
        k_span seen = q->row[i] = k_pass_span(&f->pass, i0 + i);
        if (seen.from < seen.to && seen.from < q->all.from)
            q->all.from = seen.from;
        if (seen.to > q->all.to)
            q->all.to = seen.to;
    }
}

/* The part of a row's span inside a tile, counted from its first key. */
static k_span inside(k_span row, int j0, int n)
{
    k_span s = { row.from > j0 ? row.from - j0 : 0, least(row.to - j0, n) };
    return s.from < s.to ? s : (k_span){ 0, 0 };
}

/* The tile of the next keys that the block sees, from j0 on. */
static void look_at(const block *q, int j0, tile *t)
{
    t->j0 = j0;
    t->n = least(q->all.to - j0, BLOCK);
    for (int p = 0; p * K_PANEL < q->n; p++) {
        k_span all = { t->n, 0 }, common = { 0, t->n };
        for (int i = p * K_PANEL; i < q->n && i < (p + 1) * K_PANEL; i++) {
            k_span s = inside(q->row[i], j0, t->n);
            common = (k_span){ s.from > common.from ? s.from : common.from, least(s.to, common.to) };
            if (s.to)
                all = (k_span){ least(s.from, all.from), s.to > all.to ? s.to : all.to };
        }
        all = all.to ? (k_span){ all.from / K_GROUP * K_GROUP, least((all.to + K_GROUP - 1) / K_GROUP * K_GROUP, t->n) } : (k_span){ 0, 0 };
        t->panel[p] = all;
        t->cut[p] = common.from > all.from || common.to < all.to;
    }
}

/* The columns of scale x [rows,width], packed. */
static const float *columns(packed *to, float scale, const float *x, int64_t ld, int rows, int width)
{
    if (to->of != x) {
        k_tile_columns(rows, width, scale, x, ld, to->x);
        to->of = x;
    }
    return to->x;
}

/* The rows of x [rows,width], packed. */
static const float *rows(packed *to, const float *x, int64_t ld, int n, int width)
{
    if (to->of != x) {
        k_tile_rows(n, width, x, ld, BLOCK * K_PANEL, to->x);
        to->of = x;
    }
    return to->x;
}

/* Asks for the rows of x [n,width] ahead of their use: the rows of a head may lie too far apart for a machine to guess. */
static void fetch(const float *x, int64_t ld, int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int d = 0; d < width; d += K_PANEL)
            __builtin_prefetch(x + i * ld + d);
}

/* The queries of the panels that see one of the keys j .. j + K_GROUP - 1. */
static k_span queries_of(const block *q, const tile *t, int j)
{
    k_span all = { q->n, 0 };
    for (int p = 0; p * K_PANEL < q->n; p++)
        if (t->panel[p].from < j + K_GROUP && t->panel[p].to > j)
            all = (k_span){ least(p * K_PANEL, all.from), least((p + 1) * K_PANEL, q->n) };
    return all;
}

/* S [keys,BLOCK] = x y' for the tile's rows of x [.,D] and the block's rows of scale y [.,D], where a panel sees the key. */
static void products(const block *q, const tile *t, int D, const float *x, int64_t ldx, float scale, const float *y, int64_t ldy,
                     packed *room, float *S)
{
    for (int d = 0; d < D; d += WIDE) {
        int width = least(D - d, WIDE);
        const float *turned = columns(room, scale, y + q->i0 * ldy + d, ldy, q->n, width);
        for (int j = 0; j < t->n; j += K_GROUP) {
            k_span s = queries_of(q, t, j);
            fetch(x + (t->j0 + j + K_GROUP) * ldx + d, ldx, K_GROUP, width);
            if (s.to)
                k_tile_product(least(t->n - j, K_GROUP), (s.to - s.from + K_PANEL - 1) / K_PANEL * K_PANEL, width, x + (t->j0 + j) * ldx + d, ldx, 1,
                               turned + s.from * width, K_PANEL * width, d > 0, S + j * BLOCK + s.from, BLOCK);
        }
    }
}

/* Scores s [keys,BLOCK] of panel p: takes off the slope's share, and -inf where a query does not see the key. */
static void restrict_scores(const k_flash *f, const block *q, const tile *t, int p, float *S)
{
    const k_pass *a = &f->pass;
    k_span all = t->panel[p];
    float away[K_PANEL];
    int from[K_PANEL], to[K_PANEL];
    for (int c = 0; c < K_PANEL; c++) {
        int i = p * K_PANEL + c;
        k_span s = i < q->n ? inside(q->row[i], t->j0, t->n) : all;
        away[c] = (float)(a->q0 + (q->i0 + i) * a->qstep - a->k0 - t->j0 * a->kstep);
        from[c] = s.from;
        to[c] = s.to;
    }
    for (int j = all.from; j < all.to; j++) {
        float *s = S + j * BLOCK + p * K_PANEL, at = (float)(j * a->kstep);
        if (f->slope != 0)
            SIMD for (int c = 0; c < K_PANEL; c++) s[c] -= f->slope * fabsf(away[c] - at);
        if (t->cut[p])
            SIMD for (int c = 0; c < K_PANEL; c++) s[c] = j >= from[c] && j < to[c] ? s[c] : -INFINITY;
    }
}

/* S [keys,BLOCK] = scaled, biased and masked scores of the block with the tile. */
static void tile_scores(const k_flash *f, const block *q, const tile *t, packed *room, float *S)
{
    products(q, t, f->Dk, f->k, f->ldk, f->scale, f->q, f->ldq, room, S);
    for (int p = 0; p * K_PANEL < q->n; p++)
        if (t->cut[p] || f->slope != 0)
            restrict_scores(f, q, t, p, S);
}

/* X [keys,BLOCK] = 0 where a panel computes nothing. */
static void clear_outside(const block *q, const tile *t, float *X)
{
    for (int p = 0; p * K_PANEL < q->n; p++) {
        float *x = X + p * K_PANEL;
        for (int j = 0; j < t->panel[p].from; j++)
            memset(x + j * BLOCK, 0, K_PANEL * sizeof *x);
        for (int j = t->panel[p].to; j < t->n; j++)
            memset(x + j * BLOCK, 0, K_PANEL * sizeof *x);
    }
}

/* What the queries i .. i + K_GROUP - 1 see of a tile: a span that holds those of their panels. */
static k_span seen_by(const block *q, const tile *t, int i)
{
    int p = i / K_PANEL, last = least(i + K_GROUP, q->n) - 1;
    k_span a = t->panel[p], b = t->panel[last / K_PANEL];
    if (a.from == a.to || b.from == b.to)
        return a.from == a.to ? b : a;
    return (k_span){ least(a.from, b.from), a.to > b.to ? a.to : b.to };
}

/* y [block's rows,D] += X' x, X [keys,BLOCK], for the tile's rows of x [.,D]. */
static void combine(const block *q, const tile *t, int D, const float *X, const float *x, int64_t ldx, packed *room, float *y, int64_t ldy)
{
    for (int d = 0; d < D; d += WIDE) {
        int width = least(D - d, WIDE);
        const float *b = rows(room, x + t->j0 * ldx + d, ldx, t->n, width);
        for (int i = 0; i < q->n; i += K_GROUP) {
            k_span s = seen_by(q, t, i);
            fetch(x + (t->j0 + t->n + i) * ldx + d, ldx, K_GROUP, width);
            k_tile_product(least(q->n - i, K_GROUP), width, s.to - s.from, X + s.from * BLOCK + i, 1, BLOCK, b + s.from * K_PANEL,
                           BLOCK * K_PANEL, 1, y + (q->i0 + i) * ldy + d, ldy);
        }
    }
}

/* y [tile's rows,D] += X x, X [keys,BLOCK], for the block's rows of x [.,D]. */
static void distribute(const block *q, const tile *t, int D, const float *X, const float *x, int64_t ldx, packed *room, float *y, int64_t ldy)
{
    for (int d = 0; d < D; d += WIDE) {
        int width = least(D - d, WIDE);
        const float *b = rows(room, x + q->i0 * ldx + d, ldx, q->n, width);
        for (int j = 0; j < t->n; j += K_GROUP) {
            k_span s = queries_of(q, t, j);
            fetch(y + (t->j0 + j + K_GROUP) * ldy + d, ldy, K_GROUP, width);
            if (s.to)
                k_tile_product(least(t->n - j, K_GROUP), width, s.to - s.from, X + j * BLOCK + s.from, BLOCK, 1, b + s.from * K_PANEL,
                               BLOCK * K_PANEL, 1, y + (t->j0 + j) * ldy + d, ldy);
        }
    }
}

/* Scores S [keys,BLOCK] of panel p become weights under the running maximum and sum; outputs come under the new maximum. */
static void tile_online(const k_flash *f, block *q, const tile *t, int p, float *S)
{
    float *top = q->top + p * K_PANEL, *sum = q->sum + p * K_PANEL, now[K_PANEL], keep[K_PANEL], part[K_PANEL] = { 0 };
    k_span seen = t->panel[p];
    memcpy(now, top, sizeof now);
    for (int j = seen.from; j < seen.to; j++) {
        const float *s = S + j * BLOCK + p * K_PANEL;
        SIMD for (int c = 0; c < K_PANEL; c++) now[c] = s[c] > now[c] ? s[c] : now[c];
    }
    SIMD for (int c = 0; c < K_PANEL; c++) {
        float zero = now[c] > -INFINITY ? now[c] : 0;       /* nothing seen yet: weights exp(-inf) */
        keep[c] = exp_small_f32(top[c] - zero);
        top[c] = now[c];
        now[c] = zero;
    }
    for (int c = 0; c < K_PANEL && p * K_PANEL + c < q->n; c++) {
        float *o = f->o + (q->i0 + p * K_PANEL + c) * f->ldo;
        for (int d = 0; keep[c] != 1 && sum[c] > 0 && d < f->Dv; d++)
            o[d] *= keep[c];
    }
    for (int j = seen.from; j < seen.to; j++) {
        float *s = S + j * BLOCK + p * K_PANEL;
        SIMD for (int c = 0; c < K_PANEL; c++) part[c] += s[c] = exp_small_f32(s[c] - now[c]);
    }
    SIMD for (int c = 0; c < K_PANEL; c++) sum[c] = sum[c] * keep[c] + part[c];
}

/* Blocks of queries over tiles of keys, with a running maximum and sum per query. */
static void forward_tiles(const k_flash *f)
{
    packed turned, values;
    float S[BLOCK * BLOCK];
    block q = { 0 };
    tile t;
    for (int i0 = 0; i0 < f->pass.nq; i0 += BLOCK) {
        look(f, i0, &q);
        turned.of = values.of = NULL;
        for (int i = 0; i < q.n; i++)
            resume(f, i0 + i, q.top + i, q.sum + i);
        for (int j0 = q.all.from; j0 < q.all.to; j0 += BLOCK) {
            look_at(&q, j0, &t);
            tile_scores(f, &q, &t, &turned, S);
            for (int p = 0; p * K_PANEL < q.n; p++)
                tile_online(f, &q, &t, p, S);
            clear_outside(&q, &t, S);
            combine(&q, &t, f->Dv, S, f->v, f->ldv, &values, f->o, f->ldo);
        }
        for (int i = 0; i < q.n; i++)
            finish(f, i0 + i, q.top[i], q.sum[i]);
    }
}

/* Panel p: P [keys,BLOCK] scores to weights; dS [keys,BLOCK]: g.v to the gradient of the scores. */
static void tile_gradient(const k_flash *f, const block *q, const tile *t, int p, float *P, float *dS)
{
    const float *lse = q->top + p * K_PANEL, *delta = q->sum + p * K_PANEL;
    float scale = f->scale;
    for (int j = t->panel[p].from; j < t->panel[p].to; j++) {
        float *w = P + j * BLOCK + p * K_PANEL, *ds = dS + j * BLOCK + p * K_PANEL;
        SIMD for (int c = 0; c < K_PANEL; c++) {
            w[c] = exp_small_f32(w[c] - lse[c]);
            ds[c] = scale * w[c] * (ds[c] - delta[c]);
        }
    }
}

/* The same tiles; weights come back from the log-sum-exp. */
static void backward_tiles(const k_flash *f)
{
    packed turned_q, turned_g, q_rows, g_rows, k_rows;
    float P[BLOCK * BLOCK], dS[BLOCK * BLOCK];
    block q = { 0 };
    tile t;
    for (int i0 = 0; i0 < f->pass.nq; i0 += BLOCK) {
        look(f, i0, &q);
        turned_q.of = turned_g.of = q_rows.of = g_rows.of = k_rows.of = NULL;
        for (int i = 0; i < q.n; i++) {
            float lse = f->lse[(i0 + i) * f->ldl];
            q.top[i] = lse > -INFINITY ? lse : INFINITY;    /* nothing seen: weights exp(-inf) */
            q.sum[i] = k_sdot(f->Dv, f->d_o + (i0 + i) * f->lddo, f->o + (i0 + i) * f->ldo);
        }
        for (int j0 = q.all.from; j0 < q.all.to; j0 += BLOCK) {
            look_at(&q, j0, &t);
            tile_scores(f, &q, &t, &turned_q, P);
            products(&q, &t, f->Dv, f->v, f->ldv, 1, f->d_o, f->lddo, &turned_g, dS);
            for (int p = 0; p * K_PANEL < q.n; p++)
                tile_gradient(f, &q, &t, p, P, dS);
            clear_outside(&q, &t, P);
            clear_outside(&q, &t, dS);
            if (f->dq)
                combine(&q, &t, f->Dk, dS, f->k, f->ldk, &k_rows, f->dq, f->lddq);
            if (f->dk)
                distribute(&q, &t, f->Dk, dS, f->q, f->ldq, &q_rows, f->dk, f->lddk);
            if (f->dv)
                distribute(&q, &t, f->Dv, P, f->d_o, f->lddo, &g_rows, f->dv, f->lddv);
        }
    }
}

/* The form by the number of queries. */
void k_flash_forward(const k_flash *f) { f->pass.nq <= FEW ? forward_rows(f) : forward_tiles(f); }
/* As forward. */
void k_flash_backward(const k_flash *f) { f->pass.nq <= FEW ? backward_rows(f) : backward_tiles(f); }
