/* linear_attention.h in float.
 *
 * The work is cut into units, one per (batch, key head), and a unit into tiles of ROWS tokens, whose features
 * are computed when the tile is read, in both passes, and never kept.  Rows of a unit's queries are numbered
 * head by head: row r is query r % Tq of head r / Tq.  Two walks over the tiles:
 *
 *   pairs   all queries at once against each tile of keys
 *   states  S [M,Dv] and z [M] of the keys behind a tile, pairs only inside it; backward goes forward once
 *           more for dq, then back from the end with T = sum a g^T and y = sum h a for dk and dv
 *
 * where g_i = do_i / den_i and h_i = -(do_i . o_i) / den_i.
 * Saved: [B,Hq,Tq] 1/den, [B,Hk] kappa, and of each key its score and what else k_sscores_forward keeps. */
#include "kernels/linear_attention.h"
#include "kernels/cpu.h"
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { ROWS = 64, SLOTS = 16 };         /* tokens of a tile; threads that have scratch */

typedef struct unit {
    const k_linattn *p;
    k_features f;
    int b, hk, heads, M, n;             /* heads: query heads of this key head; n: keys that exist */
    int rows, pairs, fused;             /* rows: queries that a tile holds */
    float kappa;
    k_scores_sizes fz;                  /* fused only, like packed, scores [Tk] and keep [Tk,fz.keep] */
    float *packed, *inv, *scores, *keep;    /* packed in scratch, inv [heads*Tq] in saved; NULL: not kept */
    float *a, *da;                      /* [rows,M] features of queries; fused: da is what dq is made of */
    float *bs, *db;                     /* [ROWS,M] features of keys */
    float *P, *dP;                      /* [rows,ROWS] scores */
    float *G, *h;                       /* [rows,Dv] num, later g; [rows] den, later h */
    float *S, *z;                       /* [M,Dv] [M], or T and y */
    float *work;
} unit;

#define ROW(t, hh, i) ((float *)(t).p + u->b * (t).sb + (hh) * (t).sh + (i) * (t).st)

/* ---- sizes ------------------------------------------------------------------------------------------- */

/* With few queries the scores cost less than the states. */
int k_linattn_pairs(const k_linattn *p)
{
    double M = k_features_width(&p->f), nq = (double)p->Tq * (p->Hq / p->Hk);
    return nq * p->Tk * (M + p->Dv) < (nq + p->Tk) * M * p->Dv;
}

/* One query, and a map whose scores need no features. */
static int is_fused(const k_linattn *p)
{
    return p->Tq == 1 && p->Hq == p->Hk && k_linattn_pairs(p) && k_scores_fused(&p->f);
}

/* n floats in whole cache lines. */
static size_t round16(size_t n) { return (n + 15) / 16 * 16; }

/* Takes n floats from a cursor, aligned to a cache line. */
static float *take(float **cursor, size_t n)
{
    float *x = *cursor;
    *cursor += round16(n);
    return x;
}

/* Lays out the scratch of a unit at base and returns its floats. */
static size_t lay_out(const k_linattn *p, unit *u, float *base)
{
    float *c = base;
    size_t M = u->M = k_features_width(&p->f);
    u->pairs = k_linattn_pairs(p);
    u->fused = is_fused(p);
    u->heads = p->Hq / p->Hk;
    size_t R = u->rows = u->pairs ? p->Tq * u->heads : ROWS;
    u->a = take(&c, R * M);
    if (u->fused) k_sscores_sizes(&p->f, &u->fz);
    u->da = take(&c, u->fused ? u->fz.query : R * M);
    u->bs = take(&c, u->fused ? 0 : ROWS * M);
    u->db = take(&c, u->fused ? 0 : ROWS * M);
    u->P = take(&c, R * ROWS);
    u->dP = take(&c, R * ROWS);
    u->G = take(&c, R * p->Dv);
    u->h = take(&c, R);
    u->S = take(&c, u->pairs ? 0 : M * p->Dv);
    u->z = take(&c, u->pairs ? 0 : M);
    u->work = take(&c, k_features_work(&p->f, ROWS) + u->fz.work);
    return (size_t)(c - base);
}

/* Threads that work at once. */
static int slots(const k_linattn *p) { return p->B * p->Hk < SLOTS ? p->B * p->Hk : SLOTS; }

/* Floats of the state of a unit, and of the scratch of one that decodes. */
static size_t state_of(const k_linattn *p, size_t M) { return M * p->Dv + M + 1; }
static size_t decode_scratch(const k_linattn *p)
{
    return 2 * round16(k_features_width(&p->f)) + round16(k_features_work(&p->f, 1));
}

/* Floats of 1/den and kappa in saved. */
static size_t saved_heads(const k_linattn *p) { return round16((size_t)p->B * (p->Hq * p->Tq + p->Hk)); }

/* Scratch is for SLOTS units at a time and forward's packed W, saved and state for all. */
void k_slinattn_sizes(const k_linattn *p, k_linattn_sizes *z)
{
    unit u = { .p = p };
    float probe[1];
    size_t units = (size_t)p->B * p->Hk;
    z->scratch_bwd = slots(p) * lay_out(p, &u, probe) * sizeof(float);
    z->scratch_fwd = z->scratch_bwd + p->Hk * u.fz.packed * sizeof(float);
    z->scratch_dec = slots(p) * decode_scratch(p) * sizeof(float);
    z->state = units * state_of(p, u.M) * sizeof(float);
    z->saved = (saved_heads(p) + (u.fused ? units * p->Tk * (1 + u.fz.keep) : 0)) * sizeof(float);
}

/* ---- a unit and its tiles ------------------------------------------------------------------------------- */

/* The features of key head hk. */
static k_features head(const k_linattn *p, int hk)
{
    k_features f = p->f;
    if (f.W) f.W = (const float *)f.W + (size_t)hk * f.m * f.D;
    return f;
}

/* Unit number at of the call, with the scratch of a slot. */
static unit unit_at(const k_linattn *p, int at, int slot)
{
    unit u = { .p = p, .b = at / p->Hk, .hk = at % p->Hk, .f = head(p, at % p->Hk) };
    size_t size = lay_out(p, &u, p->scratch), units = (size_t)p->B * p->Hk, nq = (size_t)u.heads * p->Tq;
    lay_out(p, &u, (float *)p->scratch + slot * size);
    u.n = p->klen && p->klen[u.b] < p->Tk ? p->klen[u.b] : p->Tk;
    u.packed = (float *)p->scratch + slots(p) * size + u.hk * u.fz.packed;
    if (p->saved) u.inv = (float *)p->saved + at * nq;
    if (!p->saved || !u.fused) return u;
    float *keep = (float *)p->saved + saved_heads(p);
    u.keep = keep + (size_t)at * p->Tk * u.fz.keep;
    u.scores = keep + units * p->Tk * u.fz.keep + (size_t)at * p->Tk;
    return u;
}

/* kappa over all keys of a unit. */
static float kappa_of(const unit *u)
{
    float kappa = u->f.map == K_MAP_FAVOR && u->f.stabilise ? -INFINITY : 0;
    if (kappa == 0) return 0;
    for (int j = 0; j < u->n; j += ROWS) {
        int n = u->n - j < ROWS ? u->n - j : ROWS;
        kappa = fmaxf(kappa, k_sfeatures_kappa(&u->f, n, ROW(u->p->k, u->hk, j), u->p->k.st, u->work));
    }
    return kappa;
}

/* bs[j1-j0,M] = features of keys j0..j1-1. */
static void load_keys(const unit *u, int j0, int j1)
{
    k_sfeatures_forward(&u->f, K_KEY, j1 - j0, ROW(u->p->k, u->hk, j0), u->p->k.st, &u->kappa, u->bs, u->M, u->work);
}

/* a[i1-i0,M] = features of queries i0..i1-1 of query head hq. */
static void load_queries(const unit *u, int hq, int i0, int i1, float *a)
{
    for (int i = i0, n; i < i1; i += n, a += (size_t)n * u->M) {
        n = i1 - i < ROWS ? i1 - i : ROWS;
        k_sfeatures_forward(&u->f, K_QUERY, n, ROW(u->p->q, hq, i), u->p->q.st, NULL, a, u->M, u->work);
    }
}

/* dq of the same queries, of a and da. */
static void store_dq(const unit *u, int hq, int i0, int i1, const float *a, const float *da)
{
    const k_linattn *p = u->p;
    for (int i = i0, n; i < i1; i += n, a += (size_t)n * u->M, da += (size_t)n * u->M) {
        n = i1 - i < ROWS ? i1 - i : ROWS;
        k_sfeatures_backward(&u->f, K_QUERY, n, ROW(p->q, hq, i), p->q.st, a, u->M, da, u->M, ROW(p->dq, hq, i), p->dq.st, u->work);
    }
}

/* dk of keys j0..j1-1, of bs and db. */
static void store_dk(const unit *u, int j0, int j1)
{
    const k_linattn *p = u->p;
    k_sfeatures_backward(&u->f, K_KEY, j1 - j0, ROW(p->k, u->hk, j0), p->k.st, u->bs, u->M, u->db, u->M,
                         ROW(p->dk, u->hk, j0), p->dk.st, u->work);
}

/* Rows i0..i1-1 of t, n wide, become 0. */
static void zero_rows(const unit *u, k_rows t, int hh, int i0, int i1, int n)
{
    if (t.p) for (int i = i0; i < i1; i++) memset(ROW(t, hh, i), 0, (size_t)n * sizeof(float));
}

/* The factor of num.  A denominator below the normal numbers has no digits left and counts as 0. */
static float inverse(const k_linattn *p, float den)
{
    if (!p->normalise) return 1;
    den += (fabsf(den) <= (float)p->guard ? 2 * (float)p->guard : 0) + (float)p->denom_eps;
    return fabsf(den) < FLT_MIN ? 0 : 1 / den;
}

/* o = num / den of one query; num may be o. */
static void finish(const unit *u, int hq, int i, float den, const float *num)
{
    float r = inverse(u->p, den), *o = ROW(u->p->o, hq, i);
    for (int d = 0; d < u->p->Dv; d++) o[d] = r * num[d];
    if (u->inv) u->inv[(size_t)(hq - u->hk * u->heads) * u->p->Tq + i] = r;
}

/* g[Dv] and h of queries i0..i1-1 of head hq. */
static void load_g(const unit *u, int hq, int i0, int i1, float *G, float *h)
{
    const k_linattn *p = u->p;
    for (int i = i0; i < i1; i++, G += p->Dv, h++) {
        const float *d_o = ROW(p->d_o, hq, i);
        float r = u->inv[(size_t)(hq - u->hk * u->heads) * p->Tq + i];
        for (int d = 0; d < p->Dv; d++) G[d] = r * d_o[d];
        *h = p->normalise ? -k_sdot(p->Dv, G, ROW(p->o, hq, i)) : 0;
    }
}

/* ---- pairs ---------------------------------------------------------------------------------------------- */

/* Clears the entries of P[rows,ROWS] whose key, j0 + column, lies ahead of the query. */
static void mask_pairs(const unit *u, int j0, int n, float *P)
{
    if (!u->p->causal) return;
    for (int r = 0; r < u->rows; r++, P += ROWS) {
        int visible = r % u->p->Tq + u->p->Tk - u->p->Tq + 1 - j0;
        for (int j = visible < 0 ? 0 : visible; j < n; j++) P[j] = 0;
    }
}

/* num[Dv] += s[n] of v[n,Dv], four rows of v at a time so that num is loaded once for four. */
static void add_rows(int n, int Dv, const float *s, const float *v, int64_t ldv, float *restrict num)
{
    int j = 0;
    for (; j + 4 <= n; j += 4) {
        const float *v0 = v + j * ldv, *v1 = v0 + ldv, *v2 = v1 + ldv, *v3 = v2 + ldv;
        for (int d = 0; d < Dv; d++) num[d] += s[j] * v0[d] + s[j + 1] * v1[d] + s[j + 2] * v2[d] + s[j + 3] * v3[d];
    }
    for (; j < n; j++) k_saxpy(Dv, s[j], v + j * ldv, num);
}

/* The scores of keys j0..j1-1, [rows,ROWS]; leaves the features of these keys in bs unless fused. */
static const float *pair_scores(const unit *u, int j0, int j1)
{
    const k_linattn *p = u->p;
    if (u->fused) {
        float *s = u->scores ? u->scores + j0 : u->P, *keep = u->keep ? u->keep + (size_t)j0 * u->fz.keep : NULL;
        k_sscores_forward(&u->f, u->packed, j1 - j0, ROW(p->k, u->hk, j0), p->k.st, &u->kappa, u->a, s, keep, u->work);
        return s;
    }
    load_keys(u, j0, j1);
    k_sgemm(0, 1, u->rows, j1 - j0, u->M, 1, u->a, u->M, u->bs, u->M, 0, u->P, ROWS);
    mask_pairs(u, j0, j1 - j0, u->P);
    return u->P;
}

/* a[rows,M] of all queries. */
static void load_all_queries(const unit *u)
{
    for (int g = 0; g < u->heads; g++) load_queries(u, u->hk * u->heads + g, 0, u->p->Tq, u->a + (size_t)g * u->p->Tq * u->M);
}

/* num in G and den in h, tile by tile, then o. */
static void forward_pairs(const unit *u)
{
    const k_linattn *p = u->p;
    load_all_queries(u);
    memset(u->G, 0, (size_t)u->rows * p->Dv * sizeof(float));
    memset(u->h, 0, (size_t)u->rows * sizeof(float));
    for (int j0 = 0; j0 < u->n; j0 += ROWS) {
        int j1 = j0 + ROWS < u->n ? j0 + ROWS : u->n;
        const float *v = ROW(p->v, u->hk, j0), *P = pair_scores(u, j0, j1);
        for (int r = 0; r < u->rows; r++) for (int j = 0; j < j1 - j0; j++) u->h[r] += P[r * ROWS + j];
        if (u->rows == 1) add_rows(j1 - j0, p->Dv, P, v, p->v.st, u->G);
        else k_sgemm(0, 0, u->rows, p->Dv, j1 - j0, 1, P, ROWS, v, (int)p->v.st, 1, u->G, p->Dv);
    }
    for (int r = 0; r < u->rows; r++) finish(u, u->hk * u->heads + r / p->Tq, r % p->Tq, u->h[r], u->G + (size_t)r * p->Dv);
}

/* dP = g_i . v_j + h_i of keys j0..j1-1. */
static void pair_gradients(const unit *u, int j0, int j1)
{
    const k_linattn *p = u->p;
    const float *v = ROW(p->v, u->hk, j0);
    if (u->rows == 1) for (int j = 0; j < j1 - j0; j++) u->dP[j] = k_sdot(p->Dv, u->G, v + j * p->v.st);
    else k_sgemm(0, 1, u->rows, j1 - j0, p->Dv, 1, u->G, p->Dv, v, (int)p->v.st, 0, u->dP, ROWS);
    for (int r = 0; r < u->rows; r++) for (int j = 0; j < j1 - j0; j++) u->dP[r * ROWS + j] += u->h[r];
    mask_pairs(u, j0, j1 - j0, u->dP);
}

/* The tile of a fused backward: the scores are kept, and da is what dq will be made of. */
static void backward_fused_tile(const unit *u, int j0, int j1)
{
    const k_linattn *p = u->p;
    const float *s = u->scores + j0, *keep = u->keep + (size_t)j0 * u->fz.keep;
    float *dk = p->dk.p ? ROW(p->dk, u->hk, j0) : NULL;
    if (p->dv.p) k_sgemm(1, 0, j1 - j0, p->Dv, 1, 1, s, j1 - j0, u->G, p->Dv, 0, ROW(p->dv, u->hk, j0), (int)p->dv.st);
    pair_gradients(u, j0, j1);
    k_sscores_backward(&u->f, j1 - j0, ROW(p->k, u->hk, j0), p->k.st, u->a, s, u->dP, keep, u->da, dk, p->dk.st, u->work);
}

/* One tile of backward_pairs: da +=, dk and dv of keys j0..j1-1. */
static void backward_pairs_tile(const unit *u, int j0, int j1)
{
    const k_linattn *p = u->p;
    int n = j1 - j0;
    if (p->dv.p) {
        const float *P = pair_scores(u, j0, j1);
        k_sgemm(1, 0, n, p->Dv, u->rows, 1, P, ROWS, u->G, p->Dv, 0, ROW(p->dv, u->hk, j0), (int)p->dv.st);
    } else {
        load_keys(u, j0, j1);
    }
    pair_gradients(u, j0, j1);
    k_sgemm(0, 0, u->rows, u->M, n, 1, u->dP, ROWS, u->bs, u->M, 1, u->da, u->M);
    if (!p->dk.p) return;
    if (u->rows == 1) for (int j = 0; j < n; j++) for (int m = 0; m < u->M; m++) u->db[j * u->M + m] = u->dP[j] * u->a[m];
    else k_sgemm(1, 0, n, u->M, u->rows, 1, u->dP, ROWS, u->a, u->M, 0, u->db, u->M);
    store_dk(u, j0, j1);
}

/* da over all tiles, dk and dv of each, then dq. */
static void backward_pairs(const unit *u)
{
    const k_linattn *p = u->p;
    if (!u->fz.keep) load_all_queries(u);               /* what forward keeps is independent of a */
    memset(u->da, 0, (u->fused ? u->fz.query : (size_t)u->rows * u->M) * sizeof(float));
    for (int g = 0; g < u->heads; g++)
        load_g(u, u->hk * u->heads + g, 0, p->Tq, u->G + (size_t)g * p->Tq * p->Dv, u->h + (size_t)g * p->Tq);
    for (int j0 = 0; j0 < u->n; j0 += ROWS) {
        int j1 = j0 + ROWS < u->n ? j0 + ROWS : u->n;
        (u->fused ? backward_fused_tile : backward_pairs_tile)(u, j0, j1);
    }
    if (!p->dq.p) return;
    if (u->fused) k_sscores_dq(&u->f, ROW(p->q, u->hk, 0), u->a, u->da, ROW(p->dq, u->hk, 0), u->work);
    else for (int g = 0; g < u->heads; g++) {
        size_t at = (size_t)g * p->Tq * u->M;
        store_dq(u, u->hk * u->heads + g, 0, p->Tq, u->a + at, u->da + at);
    }
}

/* ---- states ------------------------------------------------------------------------------------------------ */

/* A tile: keys k0..k1-1 and queries q0..q1-1; past: whether anything lies in S.  Without causality one of
 * the two ranges is empty, so that a walk is all keys and then all queries, or the other way round. */
typedef struct tile { int k0, k1, q0, q1, past; } tile;

/* x, or the bound that it is beyond. */
static int between(int x, int lo, int hi) { return x < lo ? lo : x > hi ? hi : x; }

/* Tiles of a walk. */
static int tiles(const unit *u)
{
    int kt = (u->p->Tk + ROWS - 1) / ROWS;
    return u->p->causal ? kt : kt + (u->p->Tq + ROWS - 1) / ROWS;
}

/* Tile number c from the start: positions c ROWS .. (c+1) ROWS - 1 if causal. */
static tile tile_at(const unit *u, int c)
{
    int kt = (u->p->Tk + ROWS - 1) / ROWS, shift = u->p->Tk - u->p->Tq, p0 = c * ROWS, q0 = (c - kt) * ROWS;
    tile t = { .k0 = between(p0, 0, u->n), .k1 = between(p0 + ROWS, 0, u->n), .past = c > 0 };
    if (u->p->causal) {
        int end = between(p0 + ROWS, 0, u->p->Tk);
        t.q0 = between(p0 - shift, 0, u->p->Tq);
        t.q1 = between(end - shift, 0, u->p->Tq);
    } else if (q0 >= 0) {
        t.q0 = q0;
        t.q1 = between(q0 + ROWS, 0, u->p->Tq);
    }
    return t;
}

/* X[n queries, k1-k0 keys] = A[n,w] B^T, 0 where the key lies ahead; add is added to each row that it has one for. */
static void inner_scores(const unit *u, tile t, int w, const float *A, const float *B, int64_t ldb, const float *add, float *X)
{
    int nk = t.k1 - t.k0, shift = u->p->Tk - u->p->Tq;
    k_sgemm(0, 1, t.q1 - t.q0, nk, w, 1, A, w, B, (int)ldb, 0, X, ROWS);
    for (int i = t.q0; i < t.q1; i++, X += ROWS) {
        int visible = between(i + shift + 1 - t.k0, 0, nk);
        if (add) for (int j = 0; j < visible; j++) X[j] += add[i - t.q0];
        for (int j = visible; j < nk; j++) X[j] = 0;
    }
}

/* S += bs^T v and z += sum of bs. */
static void write_keys(const unit *u, tile t)
{
    const k_linattn *p = u->p;
    if (t.k0 == t.k1) return;
    k_sgemm(1, 0, u->M, p->Dv, t.k1 - t.k0, 1, u->bs, u->M, ROW(p->v, u->hk, t.k0), (int)p->v.st, 1, u->S, p->Dv);
    for (int j = 0; j < t.k1 - t.k0; j++) k_saxpy(u->M, 1, u->bs + (size_t)j * u->M, u->z);
}

/* o of the queries of a tile: what lies in S, and the keys of the tile. */
static void read_queries(const unit *u, int hq, tile t)
{
    const k_linattn *p = u->p;
    int nq = t.q1 - t.q0, nk = t.k1 - t.k0;
    load_queries(u, hq, t.q0, t.q1, u->a);
    memset(u->G, 0, (size_t)nq * p->Dv * sizeof(float));
    if (t.past) k_sgemm(0, 0, nq, p->Dv, u->M, 1, u->a, u->M, u->S, p->Dv, 0, u->G, p->Dv);
    if (nk) {
        inner_scores(u, t, u->M, u->a, u->bs, u->M, NULL, u->P);
        k_sgemm(0, 0, nq, p->Dv, nk, 1, u->P, ROWS, ROW(p->v, u->hk, t.k0), (int)p->v.st, 1, u->G, p->Dv);
    }
    for (int i = 0; i < nq; i++) {
        float den = t.past ? k_sdot(u->M, u->a + (size_t)i * u->M, u->z) : 0;
        for (int j = 0; j < nk; j++) den += u->P[i * ROWS + j];
        finish(u, hq, t.q0 + i, den, u->G + (size_t)i * p->Dv);
    }
}

/* dq of the queries of a tile: da = G S^T + h z^T + dP bs. */
static void query_gradients(const unit *u, int hq, tile t)
{
    const k_linattn *p = u->p;
    int nq = t.q1 - t.q0, nk = t.k1 - t.k0;
    load_queries(u, hq, t.q0, t.q1, u->a);
    load_g(u, hq, t.q0, t.q1, u->G, u->h);
    memset(u->da, 0, (size_t)nq * u->M * sizeof(float));
    if (t.past) {
        k_sgemm(0, 1, nq, u->M, p->Dv, 1, u->G, p->Dv, u->S, p->Dv, 0, u->da, u->M);
        for (int i = 0; i < nq; i++) k_saxpy(u->M, u->h[i], u->z, u->da + (size_t)i * u->M);
    }
    if (nk) {
        inner_scores(u, t, p->Dv, u->G, ROW(p->v, u->hk, t.k0), p->v.st, u->h, u->dP);
        k_sgemm(0, 0, nq, u->M, nk, 1, u->dP, ROWS, u->bs, u->M, 1, u->da, u->M);
    }
    store_dq(u, hq, t.q0, t.q1, u->a, u->da);
}

/* Queries whose position is before the first key see nothing. */
static void blind_queries(const unit *u, k_rows out, int width)
{
    int n = u->p->causal ? between(u->p->Tq - u->p->Tk, 0, u->p->Tq) : 0;
    for (int g = 0; g < u->heads; g++) {
        zero_rows(u, out, u->hk * u->heads + g, 0, n, width);
        if (u->inv && out.p == u->p->o.p) memset(u->inv + (size_t)g * u->p->Tq, 0, (size_t)n * sizeof(float));
    }
}

/* Walks from the first tile to the last, each read by visit before its keys are written. */
static void walk_forward(const unit *u, void (*visit)(const unit *, int, tile))
{
    memset(u->S, 0, (size_t)u->M * u->p->Dv * sizeof(float));
    memset(u->z, 0, (size_t)u->M * sizeof(float));
    for (int c = 0; c < tiles(u); c++) {
        tile t = tile_at(u, c);
        if (t.k0 < t.k1) load_keys(u, t.k0, t.k1);
        if (t.q0 < t.q1) for (int g = 0; g < u->heads; g++) visit(u, u->hk * u->heads + g, t);
        write_keys(u, t);
    }
}

/* The later queries' share of a tile of keys: db = v T^T + y and dv = bs T; 0 when there are none. */
static void future_gradients(const unit *u, tile t)
{
    const k_linattn *p = u->p;
    int nk = t.k1 - t.k0;
    k_sgemm(0, 1, nk, u->M, p->Dv, 1, ROW(p->v, u->hk, t.k0), (int)p->v.st, u->S, p->Dv, 0, u->db, u->M);
    for (int j = 0; j < nk; j++) k_saxpy(u->M, 1, u->z, u->db + (size_t)j * u->M);
    if (p->dv.p) k_sgemm(0, 0, nk, p->Dv, u->M, 1, u->bs, u->M, u->S, p->Dv, 0, ROW(p->dv, u->hk, t.k0), (int)p->dv.st);
}

/* One head's queries of a tile: their share of its db and dv, then T += a^T G and y += a^T h. */
static void key_gradients(const unit *u, int hq, tile t)
{
    const k_linattn *p = u->p;
    int nq = t.q1 - t.q0, nk = t.k1 - t.k0;
    load_queries(u, hq, t.q0, t.q1, u->a);
    load_g(u, hq, t.q0, t.q1, u->G, u->h);
    if (nk) {
        inner_scores(u, t, p->Dv, u->G, ROW(p->v, u->hk, t.k0), p->v.st, u->h, u->dP);
        k_sgemm(1, 0, nk, u->M, nq, 1, u->dP, ROWS, u->a, u->M, 1, u->db, u->M);
    }
    if (nk && p->dv.p) {
        inner_scores(u, t, u->M, u->a, u->bs, u->M, NULL, u->P);
        k_sgemm(1, 0, nk, p->Dv, nq, 1, u->P, ROWS, u->G, p->Dv, 1, ROW(p->dv, u->hk, t.k0), (int)p->dv.st);
    }
    k_sgemm(1, 0, u->M, p->Dv, nq, 1, u->a, u->M, u->G, p->Dv, 1, u->S, p->Dv);
    for (int i = 0; i < nq; i++) k_saxpy(u->M, u->h[i], u->a + (size_t)i * u->M, u->z);
}

/* Walks from the last tile to the first for dk and dv. */
static void walk_backward(const unit *u)
{
    memset(u->S, 0, (size_t)u->M * u->p->Dv * sizeof(float));
    memset(u->z, 0, (size_t)u->M * sizeof(float));
    for (int c = tiles(u) - 1; c >= 0; c--) {
        tile t = tile_at(u, c);
        if (t.k0 < t.k1) {
            load_keys(u, t.k0, t.k1);
            future_gradients(u, t);
        }
        if (t.q0 < t.q1) for (int g = 0; g < u->heads; g++) key_gradients(u, u->hk * u->heads + g, t);
        if (t.k0 < t.k1 && u->p->dk.p) store_dk(u, t.k0, t.k1);
    }
}

/* ---- the three methods --------------------------------------------------------------------------------------- */

/* Visits every unit; slot is the scratch that the visit may use. */
static void each_unit(const k_linattn *p, void (*visit)(const k_linattn *p, int at, int slot))
{
    int threads = p->threads < slots(p) ? p->threads : slots(p);
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int at = 0; at < p->B * p->Hk; at++) visit(p, at, omp_get_thread_num());
}

/* Where a unit's kappa is saved. */
static float *saved_kappa(const k_linattn *p, int at) { return (float *)p->saved + (size_t)p->B * p->Hq * p->Tq + at; }

/* o of a unit; kappa is kept for backward. */
static void forward_unit(const k_linattn *p, int at, int slot)
{
    unit u = unit_at(p, at, slot);
    u.kappa = kappa_of(&u);
    if (p->saved) *saved_kappa(p, at) = u.kappa;
    if (u.pairs) {
        forward_pairs(&u);
        return;
    }
    walk_forward(&u, read_queries);
    blind_queries(&u, p->o, p->Dv);
}

/* dq, dk and dv of a unit; keys that do not exist get 0. */
static void backward_unit(const k_linattn *p, int at, int slot)
{
    unit u = unit_at(p, at, slot);
    u.kappa = *saved_kappa(p, at);
    zero_rows(&u, p->dk, u.hk, u.n, p->Tk, p->Dk);
    zero_rows(&u, p->dv, u.hk, u.n, p->Tk, p->Dv);
    if (u.pairs) {
        backward_pairs(&u);
        return;
    }
    if (p->dq.p) walk_forward(&u, query_gradients);
    blind_queries(&u, p->dq, p->Dk);
    if (p->dk.p || p->dv.p) walk_backward(&u);
}

/* S += b v^T and z += b of token i; a larger kappa than the state's first rescales both. */
static void write_token(const unit *u, int i, float *S)
{
    const k_linattn *p = u->p;
    float *z = S + (size_t)u->M * p->Dv, *old = z + u->M, *k = ROW(p->k, u->hk, i), *v = ROW(p->v, u->hk, i);
    float kappa = k_sfeatures_kappa(&u->f, 1, k, p->k.st, u->work), fade = 1;
    if (p->pos + i > 0) {
        kappa = fmaxf(kappa, *old);
        fade = expf(*old - kappa);
    }
    *old = kappa;
    k_sfeatures_forward(&u->f, K_KEY, 1, k, p->k.st, &kappa, u->bs, u->M, u->work);
    for (int m = 0; m < u->M; m++) {
        float *s = S + (size_t)m * p->Dv, b = u->bs[m];
        z[m] = fade * z[m] + b;
        for (int d = 0; d < p->Dv; d++) s[d] = fade * s[d] + b * v[d];
    }
}

/* o = S^T a / den of query row i of head hq. */
static void read_token(const unit *u, int hq, int i, const float *S)
{
    const k_linattn *p = u->p;
    float *o = ROW(p->o, hq, i);
    load_queries(u, hq, i, i + 1, u->a);
    memset(o, 0, (size_t)p->Dv * sizeof *o);
    add_rows(u->M, p->Dv, u->a, S, p->Dv, o);
    finish(u, hq, i, k_sdot(u->M, u->a, S + (size_t)u->M * p->Dv), o);
}

/* The new tokens of a unit, one after the other. */
static void decode_unit(const k_linattn *p, int at, int slot)
{
    unit u = { .p = p, .b = at / p->Hk, .hk = at % p->Hk, .heads = p->Hq / p->Hk, .M = k_features_width(&p->f) };
    float *c = (float *)p->scratch + slot * decode_scratch(p), *S = (float *)p->state + at * state_of(p, u.M);
    u.f = head(p, u.hk);
    u.a = take(&c, u.M);
    u.bs = take(&c, u.M);
    u.work = c;
    for (int i = 0; i < p->Tq; i++) {
        write_token(&u, i, S);
        for (int h = u.hk * u.heads; h < (u.hk + 1) * u.heads; h++) read_token(&u, h, i, S);
    }
}

/* The methods of the header, unit by unit. */
void k_slinattn_forward(const k_linattn *p)
{
    for (int h = 0; h < p->Hk && is_fused(p); h++) {    /* once for all batches */
        unit u = unit_at(p, h, 0);
        k_sscores_pack(&u.f, u.packed);
    }
    each_unit(p, forward_unit);
}
void k_slinattn_backward(const k_linattn *p) { each_unit(p, backward_unit); }
void k_slinattn_decode(const k_linattn *p)   { each_unit(p, decode_unit); }
