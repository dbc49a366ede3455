/* fast_weights_recall.c - delta and fwm, a chunk of tokens at a time: what W recalls is taken off before it is written.
 *
 * W_{t+1} = kappa_t (W_t + b_t u_t'),  u = beta (v - vbar),  vbar = inv W_t'b;  kappa = 1 / max(1, |W_t + b u'|) for fwm,
 * inv = 1 / den for the full denominator, else 1.  kappa is one number per token, so that in a chunk of n tokens, rows
 * B [n,m] and U [n,E], memory S before it, with D_tj = kappa_j .. kappa_{t-1} for j <= t <= n (products, never quotients):
 *   state  W_t = D_t0 S + sum_{j<t} D_tj b_j u_j'
 *   write  vbar_t = inv (D_t0 S'b_t + sum_{j<t} D_tj (b_t.b_j) u_j), row after row, for kappa_t needs u_t:
 *          |W_t + b u'|^2 = |W_t|^2 + 2 vbar.u + |b|^2 |u|^2 for inv = 1, and is taken anew where that cancels
 *   read   y_i = D_{i+1,0} S'a_i + sum_{j<=i} D_{i+1,j} (a_i.b_j) u_j
 *
 * Backward carries dL/dW_t = H_t + theta W_t and p = <W_t, dL/dW_t>, so that the projection of the clip is one number:
 *   theta_t = kappa^2 (theta_{t+1} - p)  (p: 0 unclipped),  dw = kappa H_{t+1}'b + theta_t (vbar + |b|^2 u)
 *   dv = beta dw,  dbeta = dw.(v - vbar),  x_t = theta_t u - inv dv,  H_t = kappa H_{t+1} + b x'
 *   <W_t, dL/dW_t> = (p, 0 clipped) - u.dw - vbar.dv
 * With R = H after the chunk and g_i the gradient of y_i this unrolls to
 *   kappa H_{t+1}'b_t = D_nt R'b_t + sum_{j>t} D_jt (b_j.b_t) x_j + sum_{i>=t} D_{i+1,t} (a_i.b_t) g_i
 *   db_t = D_nt R u_t + D_t0 S x_t + sum_{j>t} D_jt (x_j.u_t) b_j + sum_{j<t} D_tj (u_j.x_t) b_j + theta_t |u_t|^2 b_t
 *          + sum_{i>=t} D_{i+1,t} (g_i.u_t) a_i
 *   da_i = D_{i+1,0} S g_i + sum_{j<=i} D_{i+1,j} (g_i.u_j) b_j
 *   R <- D_n0 R + sum_j D_j0 b_j x_j' + sum_i D_{i+1,0} a_i g_i'
 * Kept: S and z before every chunk, and vbar, kappa, inv of every token. */
#include "fast_weights.h"
#include "tile.h"
#include "../cpu.h"
#include <math.h>
#include <string.h>

enum { C = FW_BLOCK, LANES = 8 };

/* Dv in whole vectors, E below; what is beyond Dv is 0 throughout. */
static int padded(const k_fast_weights *f) { return (f->Dv + LANES - 1) / LANES * LANES; }

/* Queries of a head, and chunks of its tokens. */
static size_t queries_of(const k_fast_weights *f) { return (size_t)(f->Hq / f->Hk) * (size_t)f->Tq; }
static size_t chunks_of(const k_fast_weights *f) { return ((size_t)f->Tk + C - 1) / C; }

/* Saved for one head; the last S and z are those after all tokens, which the read-out reads. */
typedef struct {
    float *vbar, *kappa, *inv;          /* [Tk,E] [Tk] [Tk] */
    float *mean, *factor;               /* [queries]: layer norm of a read; factor is 1 / den when there is one */
    float *S, *z;                       /* [chunks+1,m,E] [chunks+1,m] */
    size_t size;
} kept;

/* Lays the arrays out from `at` on; NULL: only their size. */
static kept keep(const k_fast_weights *f, float *at)
{
    size_t E = (size_t)padded(f), K = (size_t)f->Tk, m = (size_t)f->m, n = queries_of(f), states = chunks_of(f) + 1;
    kept s = { .size = 0 };
    float **array[] = { &s.vbar, &s.kappa, &s.inv, &s.mean, &s.factor, &s.S, &s.z };
    size_t count[] = { K * E, K, K, n, n, states * m * E, states * m };
    for (size_t i = 0; i < sizeof count / sizeof *count; s.size += count[i++])
        *array[i] = at ? at + s.size : NULL;
    return s;
}
/* Floats that one head keeps. */
static size_t saved(const k_fast_weights *f) { return keep(f, NULL).size; }

/* Scratch of one thread. */
typedef struct {
    float *phi, *b, *db, *rho;          /* keys of the chunk: [C,m] x 3 [C] */
    float *phi_q, *a, *da, *rho_q;      /* queries of one head: [C,m] x 3 [C] */
    float *vbar, *kappa, *inv;          /* [C,E] [C] [C]: in place of saved */
    float *beta, *p, *own;              /* [C]: own_t = theta_t |u_t|^2; p_i = sum over heads of <W_{i+1}, a_i g_i'> */
    float *v, *u, *x, *y, *dw;          /* [C,E]: x also D-weighted rows; y: reads, and their gradients g */
    float *ut, *xt, *bt, *dbt, *dat;    /* transposed: [E,C] x 2, [m,C] x 3 */
    float *gram, *D, *P, *Pt;           /* B B' (j <= i) [C,C], [C+1,C], [C,C] x 2 */
    float *W, *z, *spare, *dz;          /* [m,E], backward R; [m] [m,E] [m] */
    float *work;
    size_t size;
} recall;

/* Lays the arrays out from `at` on; NULL: only their size. */
static recall layout(const k_fast_weights *f, float *at)
{
    size_t E = (size_t)padded(f), m = (size_t)f->m;
    recall w = { .size = 0 };
    float **array[] = { &w.phi, &w.b, &w.db, &w.rho, &w.phi_q, &w.a, &w.da, &w.rho_q, &w.vbar, &w.kappa, &w.inv, &w.beta, &w.p,
                        &w.own, &w.v, &w.u, &w.x, &w.y, &w.dw, &w.ut, &w.xt, &w.bt, &w.dbt, &w.dat,
                        &w.gram, &w.D, &w.P, &w.Pt, &w.W, &w.z, &w.spare, &w.dz, &w.work };
    size_t count[] = { C * m, C * m, C * m, C, C * m, C * m, C * m, C, C * E, C, C, C, C, C, C * E, C * E, C * E, C * E, C * E,
                       C * E, C * E, C * m, C * m, C * m, C * C, (C + 1) * C, C * C, C * C, m * E, m, m * E, m, fw_features_work(f, C) };
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        *array[i] = at ? at + w.size : NULL;
        w.size += (count[i] + 7) / 8 * 8;
    }
    return w;
}
/* Floats for one thread. */
static size_t scratch(const k_fast_weights *f) { return layout(f, NULL).size; }

/* n tokens from t0 on; empty: the memory before them is none.  What is kept of them, or scratch in its place; S and z
 * before them, for backward. */
typedef struct { int t0, n, empty; float *vbar, *kappa, *inv; const float *S, *z; } chunk;

/* The chunk that begins with token t0. */
static chunk chunk_at(const fw_head *a, recall w, kept s, int t0)
{
    const k_fast_weights *f = a->f;
    size_t E = (size_t)padded(f), m = (size_t)f->m, t = (size_t)t0, c = t / C;
    int n = f->Tk - t0 < C ? f->Tk - t0 : C, empty = t0 == 0 && !f->state_in;
    if (!a->saved)
        return (chunk){ t0, n, empty, w.vbar, w.kappa, w.inv, NULL, NULL };
    return (chunk){ t0, n, empty, s.vbar + t * E, s.kappa + t, s.inv + t, s.S + c * m * E, s.z + c * m };
}

/* P [C,C] = A B' of the n rows of A [n,k] for columns j <= i, and some more; Bt [k,C] is B'. */
static void lower_product(int n, int k, const float *A, const float *Bt, float *P)
{
    enum { ROWS = 8 };
    for (int i = 0; i < n; i += ROWS) {
        int end = i + ROWS < n ? i + ROWS : n;
        k_tile_plain(0, end - i, end, k, A + i * k, k, Bt, C, 0, P + i * C, C);
    }
}

/* Keys, their products, values and betas. */
static void load_chunk(const fw_head *a, recall w, chunk c)
{
    int m = a->f->m, E = padded(a->f), Dv = a->f->Dv;
    fw_keys(a, c.t0, c.n, w.phi, w.b, w.rho, w.work);
    k_tile_transpose(c.n, m, w.b, m, w.bt, C);
    lower_product(c.n, m, w.b, w.bt, w.gram);
    for (int t = 0; t < c.n; t++) {
        w.beta[t] = fw_beta(a, c.t0 + t);
        memcpy(w.v + t * E, k_row(a->f->v, a->b, a->h, c.t0 + t), (size_t)Dv * sizeof *w.v);
        memset(w.v + t * E + Dv, 0, (size_t)(E - Dv) * sizeof *w.v);
    }
}

/* u [E] of token t from its vbar. */
static void make_u(recall w, chunk c, int E, int t)
{
    const float *v = w.v + t * E, *vbar = c.vbar + t * E;
    float beta = w.beta[t], *u = w.u + t * E;
    #pragma omp simd
    for (int e = 0; e < E; e++)
        u[e] = beta * (v[e] - vbar[e]);
}

/* Row t + 1 of D from row t, but for its last element, which is 1. */
static void decay(float *D, int t, float kappa)
{
    #pragma omp simd
    for (int j = 0; j <= t; j++)
        D[(t + 1) * C + j] = kappa * D[t * C + j];
}

/* to [n,E] = rows of x times weight[0], weight[step], ... */
static void weigh(int n, int E, const float *weight, int step, const float *x, float *to)
{
    for (int i = 0; i < n; i++)
        #pragma omp simd
        for (int e = 0; e < E; e++)
            to[i * E + e] = weight[i * step] * x[i * E + e];
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

/* W [m,E] = D_0 W + sum over n tokens of D_j b_j u_j', D a row. */
static void advance(const fw_head *a, recall w, int n, const float *D, float *W)
{
    int m = a->f->m, E = padded(a->f);
    weigh(n, E, D, 1, w.u, w.x);
    k_tile_plain(1, m, E, n, w.b, m, w.x, E, D[0], W, E);
}

/* kappa of token t; *square: |W|^2, before and after.  The first token of an empty memory is not clipped. */
static float clip(const fw_head *a, recall w, chunk c, int t, int first, float *square)
{
    int E = padded(a->f), size = a->f->m * E;
    const float *u = w.u + t * E;
    float added = w.gram[t * C + t] * k_sdot(E, u, u), now = *square + 2 * k_sdot(E, c.vbar + t * E, u) + added;
    if (now < 0.05f * (*square + added)) {
        memcpy(w.spare, w.W, (size_t)size * sizeof *w.W);
        advance(a, w, t + 1, w.D + t * C, w.spare);
        now = k_sdot(size, w.spare, w.spare);
    }
    *square = now > 1 && !first ? 1 : now;
    return now > 1 && !first ? 1 / sqrtf(now) : 1;
}

/* 1 / den of the write of token t, z [m] being that before the chunk. */
static float full_inverse(const fw_head *a, recall w, int t)
{
    int m = a->f->m;
    float den = k_sdot(m, w.z, w.b + t * m) + (float)a->f->attn_eps;
    for (int j = 0; j < t; j++)
        den += w.gram[t * C + j];
    return fw_inverse(den);
}

/* vbar, u, inv, kappa and D of the chunk; W and z are those before it. */
static void write_tokens(const fw_head *a, recall w, chunk c, int empty, float *square)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = padded(f);
    if (c.empty)
        memset(c.vbar, 0, (size_t)(c.n * E) * sizeof *c.vbar);
    else
        k_tile_plain(0, c.n, E, m, w.b, m, w.W, E, 0, c.vbar, E);
    for (int t = 0; t < c.n; t++) {
        float weight[C], *D = w.D + t * C;
        D[t] = 1;
        for (int j = 0; j < t; j++)
            weight[j] = D[j] * w.gram[t * C + j];
        c.inv[t] = f->attn_norm == K_FW_FULL ? full_inverse(a, w, t) : 1;
        k_sgemm(0, 0, 1, E, t, c.inv[t], weight, C, w.u, E, c.inv[t] * D[0], c.vbar + t * E, E);
        make_u(w, c, E, t);
        c.kappa[t] = f->rule == K_FW_FWM ? clip(a, w, c, t, empty && c.t0 + t == 0, square) : 1;
        decay(w.D, t, c.kappa[t]);
    }
}

/* P_ij D_{i+1,j}, and 0 for the tokens j > i that read i does not see. */
static void decay_products(recall w, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            w.P[i * C + j] = j <= i ? w.P[i * C + j] * w.D[(i + 1) * C + j] : 0;
}

/* o of query i of the head (i = g Tq + t), y [E] = W'a and den = z.a; what backward needs goes to s, unless s is NULL. */
static void finish_read(const fw_head *a, const kept *s, size_t i, const float *y, float den)
{
    const k_fast_weights *f = a->f;
    int Dv = f->Dv, Q = f->Tq;
    float *o = k_row(f->o, a->b, a->h * a->G + (int)i / Q, (int)i % Q), mean = 0, square = 0;
    float factor = f->attn_norm == K_FW_NONE ? 1 : fw_inverse(den + (float)f->attn_eps);
    for (int e = 0; e < Dv; e++) {
        o[e] = (float)f->scale * factor * y[e];
        mean += o[e] / (float)Dv;
    }
    if (f->rule == K_FW_FWM) {
        for (int e = 0; e < Dv; e++)
            square += (o[e] - mean) * (o[e] - mean) / (float)Dv;
        factor = 1 / sqrtf(square + (float)K_FW_LAYER_NORM_EPS);
        for (int e = 0; e < Dv; e++)
            o[e] = factor * (o[e] - mean);
    }
    if (s) {
        s->mean[i] = mean;
        s->factor[i] = factor;
    }
}

/* Queries t0 .. t0 + n - 1 of query head g read W and z; inside: those are of before the chunk, whose tokens they see too. */
static void read_chunk(const fw_head *a, recall w, const kept *s, int g, int t0, int n, int inside)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = padded(f);
    float den[C];
    fw_queries(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.work);
    k_tile_plain(0, n, E, m, w.a, m, w.W, E, 0, w.y, E);
    for (int i = 0; i < n; i++)
        den[i] = f->attn_norm == K_FW_NONE ? 0 : k_sdot(m, w.a + i * m, w.z);
    if (inside) {
        lower_product(n, m, w.a, w.bt, w.P);
        weigh(n, E, w.D + C, C, w.y, w.y);
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                den[i] += w.P[i * C + j];
        decay_products(w, n);
        k_tile_plain(0, n, E, n, w.P, C, w.u, E, 1, w.y, E);
    }
    for (int i = 0; i < n; i++)
        finish_read(a, s, (size_t)g * (size_t)f->Tq + (size_t)(t0 + i), w.y + i * E, den[i]);
}

/* W and z from the caller's; returns |W|^2. */
static float start(const fw_head *a, recall w)
{
    const k_fast_weights *f = a->f;
    size_t m = (size_t)f->m, Dv = (size_t)f->Dv, E = (size_t)padded(f);
    const float *W = f->state_in ? (const float *)f->state_in + a->index * m * Dv : NULL;
    memset(w.W, 0, m * E * sizeof *w.W);
    memset(w.z, 0, m * sizeof *w.z);
    for (size_t d = 0; W && d < m; d++)
        memcpy(w.W + d * E, W + d * Dv, Dv * sizeof *w.W);
    if (f->z_in && f->attn_norm != K_FW_NONE)
        memcpy(w.z, (const float *)f->z_in + a->index * m, m * sizeof *w.z);
    return k_sdot((int)(m * E), w.W, w.W);
}

/* W [m,E] and z [m] to the caller, who may not want them. */
static void give(const fw_head *a, const float *W, const float *z, void *to_W, void *to_z)
{
    size_t m = (size_t)a->f->m, Dv = (size_t)a->f->Dv, E = (size_t)padded(a->f);
    for (size_t d = 0; to_W && d < m; d++)
        memcpy((float *)to_W + (a->index * m + d) * Dv, W + d * E, Dv * sizeof *W);
    if (to_z)
        memcpy((float *)to_z + a->index * m, z, m * sizeof *z);
}

/* W and z to state c of what is kept. */
static void keep_state(const fw_head *a, recall w, kept s, size_t c)
{
    size_t m = (size_t)a->f->m, mE = m * (size_t)padded(a->f);
    if (a->saved) {
        memcpy(s.S + c * mE, w.W, mE * sizeof *w.W);
        memcpy(s.z + c * m, w.z, m * sizeof *w.z);
    }
}

/* Chunk after chunk, each read before W moves past it; the read-out follows the last write. */
static void forward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    recall w = layout(f, a->scratch);
    kept s = keep(f, a->saved), *to = a->saved ? &s : NULL;
    float square = start(a, w);
    int empty = square == 0;
    for (int t0 = 0; t0 < f->Tk; t0 += C) {
        chunk c = chunk_at(a, w, s, t0);
        keep_state(a, w, s, (size_t)t0 / C);
        load_chunk(a, w, c);
        write_tokens(a, w, c, empty, &square);
        for (int g = 0; f->causal && g < a->G; g++)
            read_chunk(a, w, to, g, t0, c.n, 1);
        advance(a, w, c.n, w.D + c.n * C, w.W);
        for (int t = 0; t < c.n; t++)
            k_saxpy(f->m, 1, w.b + t * f->m, w.z);
    }
    keep_state(a, w, s, chunks_of(f));
    for (int g = 0; !f->causal && g < a->G; g++)
        for (int t0 = 0; t0 < f->Tq; t0 += C)
            read_chunk(a, w, to, g, t0, f->Tq - t0 < C ? f->Tq - t0 : C, 0);
    give(a, w.W, w.z, f->state_out, f->z_out);
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* g [E] of query i of the head, gradient of W'a; *dden that of z.a; returns <W, a g'>. */
static float unread(const fw_head *a, kept s, size_t i, float *g, float *dden)
{
    const k_fast_weights *f = a->f;
    int Dv = f->Dv, h = a->h * a->G + (int)i / f->Tq, t = (int)i % f->Tq;
    const float *d_o = k_row(f->d_o, a->b, h, t), *o = k_row(f->o, a->b, h, t);
    float along = k_sdot(Dv, d_o, o), factor = s.factor[i], by = (float)f->scale * factor, mean = 0, p = 0;
    *dden = f->attn_norm == K_FW_NONE ? 0 : -factor * along;
    for (int e = 0; e < Dv; e++)
        mean += d_o[e] / (float)Dv;
    for (int e = 0; e < Dv; e++)
        if (f->rule == K_FW_FWM) {
            g[e] = factor * (d_o[e] - mean - o[e] * along / (float)Dv);
            p += g[e] * (s.mean[i] + o[e] / factor);
            g[e] *= (float)f->scale;
        } else
            g[e] = by * d_o[e];
    memset(g + Dv, 0, (size_t)(padded(f) - Dv) * sizeof *g);
    return p;
}

/* The part of the tokens of the chunk in the reads of its queries: dw, dbt and dat are added to. */
static void read_back_inside(const fw_head *a, recall w, int n, const float *dden)
{
    int m = a->f->m, E = padded(a->f);
    lower_product(n, m, w.a, w.bt, w.P);
    decay_products(w, n);
    k_tile_plain(1, n, E, n, w.P, C, w.y, E, 1, w.dw, E);
    lower_product(n, E, w.y, w.ut, w.P);
    decay_products(w, n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            w.P[i * C + j] += dden[i];
    k_tile_plain(1, m, n, n, w.a, m, w.P, C, 1, w.dbt, C);
    k_tile_transpose(n, n, w.P, C, w.Pt, C);
    k_tile_plain(1, m, n, n, w.b, m, w.Pt, C, 1, w.dat, C);
}

/* Queries t0 .. t0 + n - 1 of query head g read S and z; inside: the tokens of the chunk before which these are, too. */
static void read_back(const fw_head *a, recall w, kept s, const float *S, const float *z, int g, int t0, int n, int inside)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = padded(f);
    float dden[C], one = 1;
    fw_queries(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.work);
    for (int i = 0; i < n; i++)
        w.p[i] += unread(a, s, (size_t)g * (size_t)f->Tq + (size_t)(t0 + i), w.y + i * E, dden + i);
    weigh(n, E, inside ? w.D + C : &one, inside ? C : 0, w.y, w.x);
    k_tile_transpose(n, E, w.x, E, w.xt, C);
    k_tile_plain(0, m, n, E, S, E, w.xt, C, 0, w.dat, C);
    k_tile_plain(1, m, E, n, w.a, m, w.x, E, 1, w.W, E);
    if (inside)
        read_back_inside(a, w, n, dden);
    k_tile_transpose(m, n, w.dat, C, w.da, m);
    for (int i = 0; f->attn_norm != K_FW_NONE && i < n; i++) {
        k_saxpy(m, dden[i], z, w.da + i * m);
        k_saxpy(m, dden[i], w.a + i * m, w.dz);
    }
    fw_queries_back(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.da, w.work);
}

/* Carried from token to token: dL/dW = H + theta W, p = <W, dL/dW>. */
typedef struct { float theta, p; } carried;

/* Token t: dw [E], so far kappa H'b, is completed; x [E], dv, dbeta; returns the gradient of den. */
static float token_back(const fw_head *a, recall w, chunk c, int t, carried *g)
{
    const k_fast_weights *f = a->f;
    int E = padded(f);
    const float *u = w.u + t * E, *vbar = c.vbar + t * E, *v = w.v + t * E;
    float *dw = w.dw + t * E, *x = w.x + t * E, *dv = k_row(f->dv, a->b, a->h, c.t0 + t);
    float kappa = c.kappa[t], beta = w.beta[t], square = w.gram[t * C + t], inv = c.inv[t];
    float p = g->p + w.p[t], theta = kappa * kappa * (g->theta - (kappa < 1 ? p : 0)), dbeta = 0, u_dw = 0, vbar_dv = 0;
    #pragma omp simd reduction(+ : dbeta, vbar_dv, u_dw)
    for (int e = 0; e < E; e++) {
        dw[e] += theta * (vbar[e] + square * u[e]);
        x[e] = theta * u[e] - inv * beta * dw[e];
        dbeta += dw[e] * (v[e] - vbar[e]);
        u_dw += u[e] * dw[e];
        vbar_dv += vbar[e] * beta * dw[e];
    }
    for (int e = 0; dv && e < f->Dv; e++)
        dv[e] = beta * dw[e];
    fw_beta_back(a, c.t0 + t, dbeta);
    w.own[t] = theta != 0 ? theta * k_sdot(E, u, u) : 0;                /* |u|^2 may overflow where nothing is clipped */
    *g = (carried){ theta, (kappa < 1 ? 0 : p) - u_dw - vbar_dv };
    return f->attn_norm == K_FW_FULL ? inv * vbar_dv : 0;
}

/* The gradients of keys, of R and of dz through the writes; dden [n]: those of the denominators. */
static void keys_back(const fw_head *a, recall w, chunk c, const float *dden)
{
    int m = a->f->m, E = padded(a->f), n = c.n;
    lower_product(n, E, w.x, w.ut, w.P);
    for (int t = 0; t < n; t++) {
        for (int j = 0; j < t; j++)
            w.P[t * C + j] = w.P[j * C + t] = w.D[t * C + j] * w.P[t * C + j] + dden[t];
        w.P[t * C + t] = w.own[t];
    }
    k_tile_plain(1, m, n, n, w.b, m, w.P, C, 1, w.dbt, C);
    weigh(n, E, w.D, C, w.x, w.x);
    if (!c.empty) {
        k_tile_transpose(n, E, w.x, E, w.xt, C);
        k_tile_plain(0, m, n, E, c.S, E, w.xt, C, 1, w.dbt, C);
    }
    k_tile_plain(1, m, E, n, w.b, m, w.x, E, 1, w.W, E);
    k_tile_transpose(m, n, w.dbt, C, w.db, m);
    for (int t = 0; a->f->attn_norm == K_FW_FULL && t < n; t++) {
        k_saxpy(m, dden[t], c.z, w.db + t * m);
        k_saxpy(m, dden[t], w.b + t * m, w.dz);
    }
}

/* u, u' and D of a chunk from what is kept; dbt and dw so far as R and dz give them; R passes the decays. */
static void enter(const fw_head *a, recall w, chunk c)
{
    int m = a->f->m, E = padded(a->f), n = c.n;
    const float *end = w.D + n * C;
    load_chunk(a, w, c);
    for (int t = 0; t < n; t++) {
        make_u(w, c, E, t);
        w.D[t * C + t] = 1;
        decay(w.D, t, c.kappa[t]);
    }
    for (int d = 0; d < m; d++)
        for (int t = 0; t < n; t++)
            w.dbt[d * C + t] = w.dz[d];
    k_tile_transpose(n, E, w.u, E, w.ut, C);
    for (int e = 0; e < E; e++)
        for (int t = 0; t < n; t++)
            w.xt[e * C + t] = end[t] * w.ut[e * C + t];
    k_tile_plain(0, m, n, E, w.W, E, w.xt, C, 1, w.dbt, C);
    k_tile_plain(0, n, E, m, w.b, m, w.W, E, 0, w.dw, E);
    weigh(n, E, end, 1, w.dw, w.dw);
    weigh(m, E, end, 0, w.W, w.W);
}

/* One chunk, from R and dz after it to those before it. */
static void chunk_back(const fw_head *a, recall w, kept s, int t0, carried *g)
{
    const k_fast_weights *f = a->f;
    chunk c = chunk_at(a, w, s, t0);
    int m = f->m, E = padded(f), n = c.n;
    float dden[C];
    enter(a, w, c);
    memset(w.p, 0, C * sizeof *w.p);
    for (int q = 0; f->causal && q < a->G; q++)
        read_back(a, w, s, c.S, c.z, q, t0, n, 1);
    for (int t = n - 1; t >= 0; t--) {
        float weight[C];
        for (int j = t + 1; j < n; j++)
            weight[j] = w.D[j * C + t] * w.gram[j * C + t];
        k_sgemm(0, 0, 1, E, n - 1 - t, 1, weight + t + 1, C, w.x + (t + 1) * E, E, 1, w.dw + t * E, E);
        dden[t] = token_back(a, w, c, t, g);
    }
    keys_back(a, w, c, dden);
    if (g->theta != 0 && !c.empty)
        k_saxpy(m * E, g->theta, c.S, w.W);                             /* H is all of it at a border, where W is kept */
    g->theta = 0;
    fw_keys_back(a, t0, n, w.phi, w.b, w.rho, w.db, w.work);
}

/* The read-out first, then the chunks from last to first. */
static void backward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    recall w = layout(f, a->scratch);
    kept s = keep(f, a->saved);
    size_t m = (size_t)f->m, mE = m * (size_t)padded(f), last = chunks_of(f);
    carried g = { 0, 0 };
    memset(w.W, 0, mE * sizeof *w.W);
    memset(w.dz, 0, m * sizeof *w.dz);
    for (int q = 0; !f->causal && q < a->G; q++)
        for (int t0 = 0; t0 < f->Tq; t0 += C) {
            int n = f->Tq - t0 < C ? f->Tq - t0 : C;
            memset(w.p, 0, C * sizeof *w.p);
            read_back(a, w, s, s.S + last * mE, s.z + last * m, q, t0, n, 0);
            for (int i = 0; i < n; i++)
                g.p += w.p[i];
        }
    for (int t0 = (f->Tk - 1) / C * C; t0 >= 0; t0 -= C)
        chunk_back(a, w, s, t0, &g);
    give(a, w.W, w.dz, f->dstate, f->dz);
}

const fw_form fw_recall = { saved, scratch, forward, backward };
