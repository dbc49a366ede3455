/* relative.c - see relative.h.
 *
 * Of a tile of queries p0 .. p0 + 63 and keys j0 .. j0 + 63 pair (i,j) needs row j0 - p0 + M - 1 + (j - i) of a table.
 * A block is the 64 columns, one for each of 64 consecutive rows: of the products with a table, or of what is
 * distributed over its rows.  A tile reads two blocks, `lo` for j <= i and `hi` for j > i, and the hi of a tile is the
 * lo of the next. */
#include "../relative.h"
#include "../cpu.h"
#include "tile.h"
#include <math.h>

enum { TILE = K_TILE, BLOCK = TILE * TILE };

typedef struct unit {                   /* one batch row and query head */
    const k_relative *a;
    int b, h, hk;
    const float *E, *F;                 /* [rows,Dk] [rows,Dv] of this head, or NULL */
    float *dE, *dF;                     /* the same, of this unit alone; NULL: not wanted */
    float *rows;                        /* [TILE,max(Dk,Dv)] */
    int i0, nq, first, end;             /* the tile of queries, and the keys that any of them sees */
    float top[TILE], sum[TILE];         /* running maximum and sum; in backward lse and delta */
} unit;

/* The smaller one. */
static int least(int a, int b) { return a < b ? a : b; }
/* The wider of the two widths. */
static size_t widest(const k_relative *a) { return (size_t)(a->Dk > a->Dv ? a->Dk : a->Dv); }
/* Floats of the tables' gradients of a unit. */
static size_t table_size(const k_relative *a) { return (size_t)a->rows * (size_t)(a->Dk + (a->F ? a->Dv : 0)); }

/* Room for every unit: rows, and in backward the tables' gradients. */
size_t k_srelative_scratch(const k_relative *a, int backward)
{
    size_t each = TILE * widest(a) + (backward ? (size_t)a->rows * (size_t)(a->Dk + a->Dv) : 0);
    return (size_t)a->B * (size_t)a->Hq * each * sizeof(float);
}

/* ---- blocks ------------------------------------------------------------------------------------------------ */

/* The row of the tables at column 0 of the lo block of the keys from j0 on. */
static int64_t row_of(const unit *u, int j0)
{
    const k_relative *a = u->a;
    return (int64_t)j0 - (u->i0 + a->Tk - a->Tq) - (TILE - 1) + a->distance - 1;
}

/* Rows r .. r + 63 of table [rows,D], in place or gathered; NULL: all of them are zero. */
static const float *rows_at(const unit *u, const float *table, int D, int64_t r)
{
    const k_relative *a = u->a;
    if (r >= 0 && r + TILE <= a->rows)
        return table + r * D;
    if (!a->clamp && (r + TILE <= 0 || r >= a->rows))
        return NULL;
    for (int c = 0; c < TILE; c++) {
        int row = k_relative_row(a, r + c);
        if (row < 0)
            memset(u->rows + c * D, 0, (size_t)D * sizeof *u->rows);
        else
            memcpy(u->rows + c * D, table + (int64_t)row * D, (size_t)D * sizeof *u->rows);
    }
    return u->rows;
}

/* block = scale x . rows, of the queries' x [nq,D]. */
static void block_products(const unit *u, float scale, const float *x, int64_t ldx, const float *table, int D, int64_t r, float *block)
{
    const float *rows = rows_at(u, table, D, r);
    if (rows)
        k_tile_dots(u->nq, TILE, D, scale, x, ldx, rows, D, block, TILE);
    else
        memset(block, 0, BLOCK * sizeof *block);
}

/* y [nq,D] += block . rows. */
static void block_combine(const unit *u, const float *block, const float *table, int D, int64_t r, float *y, int64_t ldy)
{
    const float *rows = rows_at(u, table, D, r);
    if (rows)
        k_tile_sums(0, u->nq, D, TILE, block, TILE, rows, D, 1, y, ldy);
}

/* Rows of dtable += block' x. */
static void block_scatter(const unit *u, const float *block, const float *x, int64_t ldx, float *dtable, int D, int64_t r)
{
    const k_relative *a = u->a;
    int inside = r >= 0 && r + TILE <= a->rows;
    if (!dtable || (!a->clamp && (r + TILE <= 0 || r >= a->rows)))
        return;
    k_tile_sums(1, TILE, D, u->nq, block, TILE, x, ldx, inside, inside ? dtable + r * D : u->rows, D);
    for (int c = 0; !inside && c < TILE; c++) {
        int row = k_relative_row(a, r + c);
        if (row >= 0)
            k_saxpy(D, 1, u->rows + c * D, dtable + (int64_t)row * D);
    }
}

/* S [nq,nk] += the diagonals of lo and hi. */
static void read_diagonals(const unit *u, int nk, const float *lo, const float *hi, float *S)
{
    for (int i = 0; i < u->nq; i++) {
        float *s = S + i * TILE;
        const float *below = lo + i * TILE + TILE - 1 - i, *above = hi + i * TILE - 1 - i;
        int middle = least(i + 1, nk);
        for (int j = 0; j < middle; j++)
            s[j] += below[j];
        for (int j = middle; j < nk; j++)
            s[j] += above[j];
    }
}

/* Puts S [nq,nk] on the diagonals of lo and hi, which hold it alone, or with keep, lo what it held besides. */
static void write_diagonals(const unit *u, int nk, const float *S, int keep, float *lo, float *hi)
{
    if (!keep)
        memset(lo, 0, BLOCK * sizeof *lo);
    memset(hi, 0, BLOCK * sizeof *hi);
    for (int i = 0; i < u->nq; i++) {
        const float *s = S + i * TILE;
        float *below = lo + i * TILE + TILE - 1 - i, *above = hi + i * TILE - 1 - i;
        int middle = least(i + 1, nk);
        for (int j = 0; j < middle; j++)
            below[j] += s[j];
        for (int j = middle; j < nk; j++)
            above[j] = s[j];
    }
}

/* ---- tiles --------------------------------------------------------------------------------------------------- */

/* The tile of queries from i0 on, and the keys that they see. */
static void choose_queries(unit *u, int i0)
{
    const k_relative *a = u->a;
    int p = i0 + a->Tk - a->Tq, ignored;
    u->i0 = i0;
    u->nq = least(TILE, a->Tq - i0);
    k_relative_reach(a, p, &u->first);
    u->end = k_relative_reach(a, p + u->nq - 1, &ignored);
}

/* Of the nk keys from j0 on query i sees *from up to, not including, the result. */
static int seen(const unit *u, int i, int j0, int nk, int *from)
{
    int first, end = k_relative_reach(u->a, u->i0 + i + u->a->Tk - u->a->Tq, &first);
    end = least(end - j0, nk);
    *from = first > j0 ? first - j0 : 0;
    if (end > *from)
        return end;
    *from = 0;
    return 0;
}

/* Row i of a head's tensor. */
static const float *row(const unit *u, k_heads x, int i) { return k_row(x, u->b, u->h, i); }

/* S [nq,TILE] = the scores with nk keys from j0 on, given the block before in lo; hi becomes the block behind. */
static void scores(const unit *u, int j0, int nk, const float *lo, float *hi, float *S)
{
    const k_relative *a = u->a;
    const float *q = row(u, a->q, u->i0);
    block_products(u, (float)a->scale, q, a->q.st, u->E, a->Dk, row_of(u, j0 + TILE), hi);
    k_tile_dots(u->nq, nk, a->Dk, (float)a->scale, q, a->q.st, k_row(a->k, u->b, u->hk, j0), a->k.st, S, TILE);
    read_diagonals(u, nk, lo, hi, S);
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

/* Scores S [nq,nk] become weights under the running maximum and sum; outputs come under the new maximum. */
static void online(unit *u, int j0, int nk, float *S)
{
    const k_relative *a = u->a;
    for (int i = 0; i < u->nq; i++) {
        int from, end = seen(u, i, j0, nk, &from);
        float *s = S + i * TILE, *o = k_row(a->o, u->b, u->h, u->i0 + i);
        if (end > from) {
            float top = fmaxf(u->top[i], k_smax(end - from, s + from)), keep = expf(u->top[i] - top);
            u->sum[i] = u->sum[i] * keep + k_sexp_sum(end - from, s + from, s + from, top);
            u->top[i] = top;
            for (int d = 0; keep != 1 && d < a->Dv; d++)
                o[d] *= keep;
        }
        memset(s, 0, (size_t)from * sizeof *s);
        memset(s + end, 0, (size_t)(nk - end) * sizeof *s);
    }
}

/* One tile of queries. */
static void forward_tile(unit *u)
{
    const k_relative *a = u->a;
    float S[BLOCK], blocks[2][BLOCK], *lo = blocks[0], *hi = blocks[1], spread[2][BLOCK], *o = k_row(a->o, u->b, u->h, u->i0);
    for (int i = 0; i < u->nq; i++) {
        u->top[i] = -INFINITY;
        u->sum[i] = 0;
        memset(o + i * a->o.st, 0, (size_t)a->Dv * sizeof *o);
    }
    block_products(u, (float)a->scale, row(u, a->q, u->i0), a->q.st, u->E, a->Dk, row_of(u, u->first), lo);
    for (int j0 = u->first; j0 < u->end; j0 += TILE) {
        int nk = least(u->end - j0, TILE);
        scores(u, j0, nk, lo, hi, S);
        online(u, j0, nk, S);
        k_tile_sums(0, u->nq, a->Dv, nk, S, TILE, k_row(a->v, u->b, u->hk, j0), a->v.st, 1, o, a->o.st);
        if (u->F) {
            write_diagonals(u, nk, S, 0, spread[0], spread[1]);
            for (int n = 0; n < 2; n++)
                block_combine(u, spread[n], u->F, a->Dv, row_of(u, j0 + n * TILE), o, a->o.st);
        }
        float *next = lo;
        lo = hi, hi = next;
    }
    for (int i = 0; i < u->nq; i++) {
        for (int d = 0; d < a->Dv; d++)
            o[i * a->o.st + d] /= u->sum[i];
        if (a->lse)
            a->lse[((size_t)u->b * (size_t)a->Hq + (size_t)u->h) * (size_t)a->Tq + (size_t)(u->i0 + i)] = u->top[i] + logf(u->sum[i]);
    }
}

/* Query head h of batch row b. */
static unit unit_of(const k_relative *a, int b, int h, int backward)
{
    size_t each = k_srelative_scratch(a, backward) / sizeof(float) / ((size_t)a->B * (size_t)a->Hq), table = a->shared ? 0 : (size_t)h;
    float *at = (float *)a->scratch + ((size_t)b * (size_t)a->Hq + (size_t)h) * each;
    unit u = { .a = a, .b = b, .h = h, .hk = h * a->Hk / a->Hq, .rows = at };
    u.E = (const float *)a->E + table * (size_t)a->rows * (size_t)a->Dk;
    u.F = a->F ? (const float *)a->F + table * (size_t)a->rows * (size_t)a->Dv : NULL;
    if (backward) {
        u.dE = at + TILE * widest(a);
        u.dF = a->F ? u.dE + (size_t)a->rows * (size_t)a->Dk : NULL;
        memset(u.dE, 0, table_size(a) * sizeof *u.dE);
    }
    return u;
}

/* Threads take whole heads. */
void k_srelative_forward(const k_relative *a)
{
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) {
        unit u = unit_of(a, b, h, 0);
        for (int i0 = 0; i0 < a->Tq; i0 += TILE) {
            choose_queries(&u, i0);
            forward_tile(&u);
        }
    }
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* P [nq,TILE]: scores to weights; dS [nq,TILE]: g.(v + F) to the gradient of the scores. */
static void gradients(const unit *u, int j0, int nk, float *P, float *dS)
{
    for (int i = 0; i < u->nq; i++) {
        int from, end = seen(u, i, j0, nk, &from);
        float *p = P + i * TILE, *ds = dS + i * TILE;
        if (end > from)
            k_sexp_sum(end - from, p + from, p + from, u->top[i]);
        memset(p, 0, (size_t)from * sizeof *p);
        memset(p + end, 0, (size_t)(nk - end) * sizeof *p);
        for (int j = 0; j < nk; j++)
            ds[j] = (float)u->a->scale * p[j] * (ds[j] - u->sum[i]);
    }
}

/* What P and dS [nq,nk] of the keys from j0 on add to dq, dk and dv. */
static void add_products(const unit *u, int j0, int nk, const float *P, const float *dS)
{
    const k_relative *a = u->a;
    if (a->dq.p)
        k_tile_sums(0, u->nq, a->Dk, nk, dS, TILE, k_row(a->k, u->b, u->hk, j0), a->k.st, 1, k_row(a->dq, u->b, u->h, u->i0), a->dq.st);
    if (a->dk.p)
        k_tile_sums(1, nk, a->Dk, u->nq, dS, TILE, row(u, a->q, u->i0), a->q.st, 1, k_row(a->dk, u->b, u->hk, j0), a->dk.st);
    if (a->dv.p)
        k_tile_sums(1, nk, a->Dv, u->nq, P, TILE, row(u, a->d_o, u->i0), a->d_o.st, 1, k_row(a->dv, u->b, u->hk, j0), a->dv.st);
}

/* What the finished blocks of dS and, with F, of P add: the one to dq and dE, the other to dF, at row r. */
static void finish(const unit *u, const float *dS, const float *P, int64_t r)
{
    const k_relative *a = u->a;
    if (a->dq.p)
        block_combine(u, dS, u->E, a->Dk, r, k_row(a->dq, u->b, u->h, u->i0), a->dq.st);
    block_scatter(u, dS, row(u, a->q, u->i0), a->q.st, a->dE ? u->dE : NULL, a->Dk, r);
    if (u->F)
        block_scatter(u, P, row(u, a->d_o, u->i0), a->d_o.st, a->dF ? u->dF : NULL, a->Dv, r);
}

/* dS [nq,nk] = g.(v + F) of the keys from j0 on, given the block before in lo; hi becomes the block behind. */
static void value_products(const unit *u, int j0, int nk, const float *lo, float *hi, float *dS)
{
    const k_relative *a = u->a;
    const float *g = row(u, a->d_o, u->i0);
    k_tile_dots(u->nq, nk, a->Dv, 1, g, a->d_o.st, k_row(a->v, u->b, u->hk, j0), a->v.st, dS, TILE);
    if (!u->F)
        return;
    block_products(u, 1, g, a->d_o.st, u->F, a->Dv, row_of(u, j0 + TILE), hi);
    read_diagonals(u, nk, lo, hi, dS);
}

/* One tile of queries: blocks of products with E and F, and of dS and P, lo and hi in turn. */
static void backward_tile(unit *u)
{
    const k_relative *a = u->a;
    float P[BLOCK], dS[BLOCK], qE[2][BLOCK], gF[2][BLOCK], sE[2][BLOCK], pF[2][BLOCK];
    const float *g = row(u, a->d_o, u->i0);
    int n = 0;                          /* which of two is lo */
    for (int i = 0; i < u->nq; i++) {
        u->top[i] = a->lse[((size_t)u->b * (size_t)a->Hq + (size_t)u->h) * (size_t)a->Tq + (size_t)(u->i0 + i)];
        u->sum[i] = k_sdot(a->Dv, g + i * a->d_o.st, row(u, a->o, u->i0 + i));
    }
    memset(sE[0], 0, sizeof sE[0]);
    memset(pF[0], 0, sizeof pF[0]);
    block_products(u, (float)a->scale, row(u, a->q, u->i0), a->q.st, u->E, a->Dk, row_of(u, u->first), qE[0]);
    if (u->F)
        block_products(u, 1, g, a->d_o.st, u->F, a->Dv, row_of(u, u->first), gF[0]);
    int j0 = u->first;
    for (; j0 < u->end; j0 += TILE, n = !n) {
        int nk = least(u->end - j0, TILE);
        scores(u, j0, nk, qE[n], qE[!n], P);
        value_products(u, j0, nk, gF[n], gF[!n], dS);
        gradients(u, j0, nk, P, dS);
        add_products(u, j0, nk, P, dS);
        write_diagonals(u, nk, dS, 1, sE[n], sE[!n]);
        if (u->F)
            write_diagonals(u, nk, P, 1, pF[n], pF[!n]);
        finish(u, sE[n], pF[n], row_of(u, j0));
    }
    finish(u, sE[n], pF[n], row_of(u, j0));
}

/* The units' gradients of the tables, added up in one order. */
static void add_tables(const k_relative *a)
{
    size_t each = k_srelative_scratch(a, 1) / sizeof(float) / ((size_t)a->B * (size_t)a->Hq);
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) {
        const float *dE = (const float *)a->scratch + ((size_t)b * (size_t)a->Hq + (size_t)h) * each + TILE * widest(a);
        size_t table = a->shared ? 0 : (size_t)h, nE = (size_t)a->rows * (size_t)a->Dk, nF = (size_t)a->rows * (size_t)a->Dv;
        for (size_t e = 0; a->dE && e < nE; e++)
            ((float *)a->dE)[table * nE + e] += dE[e];
        for (size_t e = 0; a->F && a->dF && e < nF; e++)
            ((float *)a->dF)[table * nF + e] += dE[nE + e];
    }
}

/* Threads take the query heads of whole key heads. */
void k_srelative_backward(const k_relative *a)
{
    int group = a->Hq / a->Hk;
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < a->B; b++) for (int hk = 0; hk < a->Hk; hk++) {
        k_rows_zero(a->dk, b, hk, a->Tk, a->Dk);
        k_rows_zero(a->dv, b, hk, a->Tk, a->Dv);
        for (int h = hk * group; h < (hk + 1) * group; h++) {
            unit u = unit_of(a, b, h, 1);
            k_rows_zero(a->dq, b, h, a->Tq, a->Dk);
            for (int i0 = 0; i0 < a->Tq; i0 += TILE) {
                choose_queries(&u, i0);
                backward_tile(&u);
            }
        }
    }
    add_tables(a);
}
