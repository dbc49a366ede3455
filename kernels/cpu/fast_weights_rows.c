/* fast_weights_rows.c - few queries after all writes, without the memory itself.
 *
 * With r_L = a, going back through the tokens, y = W_L'a unrolls to
 *   c_i = b_i.r_i,  w_i = beta_i c_i,  y += w_i v_i,  r_{i-1} = r_i - w_i b_i   (delta)
 *                                                     r_{i-1} = (1 - beta_i) r_i  (gated; sum: r_i)
 * and y += W_0'r_0, z.a likewise.  O(m + Dv) per token and query instead of O(m Dv).  Kept: c_i, r_0 and the r at
 * the end of every block, from which backward makes the others again.  (r_i = r_{i-1} + w_i b_i would need none of
 * them, but loses every digit where beta |b|^2 > 2 lets r grow.)
 * Backward goes the other way with s_0 = W_0 g (g: gradient of y) and
 *   t_i = g.v_i - s_{i-1}.b_i,  s_i = s_{i-1} + t_i beta_i b_i,  db_i = beta_i t_i r_i - w_i s_{i-1},
 *   dbeta_i = t_i c_i,  dv_i = w_i g,  da = s_L                                               (delta).
 * gated and sum: r_i = gamma_i a is a multiple of a, and only gamma_i is carried. */
#include "fast_weights.h"
#include "../cpu.h"
#include <string.h>

/* Saved for one head: per query c [Tk], r_0 [m], the denominator's inverse, delta: r [blocks,m]; favor: phi [Tk,m]. */
static size_t saved_query(const k_fast_weights *f)
{
    size_t blocks = f->rule == K_FW_DELTA ? ((size_t)f->Tk + FW_BLOCK - 1) / FW_BLOCK : 0;
    return (size_t)f->Tk + 1 + (size_t)f->m * (1 + blocks);
}
/* Queries of one key head. */
static size_t queries_of(const k_fast_weights *f) { return (size_t)(f->Hq / f->Hk) * (size_t)f->Tq; }
static int keeps_phi(const k_fast_weights *f) { return f->features.map == K_MAP_FAVOR; }
static size_t saved(const k_fast_weights *f)
{
    return queries_of(f) * saved_query(f) + (keeps_phi(f) ? (size_t)f->Tk * (size_t)f->m : 0);
}

/* Scratch of one thread. */
typedef struct {
    float *phi, *b, *db, *rho;          /* of a block of keys: [FW_BLOCK,m] x 3, [FW_BLOCK] */
    float *w, *e;                       /* [FW_BLOCK] weights and g.v of a query in a block */
    float *phi_q, *a, *rho_q;           /* [n,m] [n,m] [n], n = G Tq queries */
    float *r, *s, *g;                   /* forward [n,m], backward [FW_BLOCK+1,m] of one query; [n,m] [n,Dv] */
    float *dgamma, *dden;               /* [n] */
    float *beta, *gamma;                /* [Tk]: gamma_i is what the tokens after i leave of it, 1 but for gated */
    float *z, *dz;                      /* [m] */
    float *dbeta;                       /* [FW_BLOCK] */
    float *work, *c;                    /* c: in place of saved when that is absent */
    size_t size;
} rows;

/* Lays the arrays out from `at` on; NULL: only their size. */
static rows layout(const k_fast_weights *f, float *at)
{
    rows w = { .size = 0 };
    size_t m = (size_t)f->m, n = queries_of(f), K = FW_BLOCK;
    int work_rows = f->Tq > FW_BLOCK ? f->Tq : FW_BLOCK;
    float **array[] = { &w.phi, &w.b, &w.db, &w.rho, &w.w, &w.e, &w.phi_q, &w.a, &w.rho_q, &w.r, &w.s, &w.g, &w.dgamma,
                        &w.dden, &w.beta, &w.gamma, &w.z, &w.dz, &w.dbeta, &w.work, &w.c };
    size_t count[] = { K * m, K * m, K * m, K, K, K, n * m, n * m, n, (n > K ? n : K + 1) * m, n * m, n * (size_t)f->Dv, n, n,
                       (size_t)f->Tk, (size_t)f->Tk, m, m, K,
                       fw_features_work(f, work_rows), n * saved_query(f) };
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        *array[i] = at ? at + w.size : NULL;
        w.size += (count[i] + 7) / 8 * 8;
    }
    return w;
}
/* Floats for one thread. */
static size_t scratch(const k_fast_weights *f) { return layout(f, NULL).size; }

/* Where query i of the head keeps c [Tk], r_0 [m], 1 / den. */
static float *kept(const fw_head *a, rows w, size_t i)
{
    return (a->saved ? a->saved : w.c) + i * saved_query(a->f);
}
/* phi of the block at t0: kept for favor, else made anew in scratch. */
static float *block_phi(const fw_head *a, rows w, int t0)
{
    if (!keeps_phi(a->f) || !a->saved)
        return w.phi;
    return a->saved + queries_of(a->f) * saved_query(a->f) + (size_t)t0 * (size_t)a->f->m;
}

/* Features of all queries of the head, beta and gamma of all tokens; returns what they leave of W_0 for gated. */
static float load(const fw_head *a, rows w)
{
    size_t Q = (size_t)a->f->Tq, m = (size_t)a->f->m;
    float left = 1;
    for (int g = 0; g < a->G; g++)
        fw_queries(a, g, 0, a->f->Tq, w.phi_q + (size_t)g * Q * m, w.a + (size_t)g * Q * m, w.rho_q + (size_t)g * Q, w.work);
    for (int t = a->f->Tk - 1; t >= 0; t--) {
        w.beta[t] = fw_beta(a, t);
        w.gamma[t] = left;
        left *= a->f->rule == K_FW_GATED ? 1 - w.beta[t] : 1;
    }
    return left;
}

/* The r that query i had at the end of the block at t0, in what it keeps. */
static float *block_r(const fw_head *a, float *keep, int t0)
{
    return keep + a->f->Tk + 1 + (size_t)a->f->m * (size_t)(1 + t0 / FW_BLOCK);
}

/* Rows of one query through a block of n keys, from the last to the first: c, w. */
static void walk_back(const fw_head *a, rows w, int t0, int n, size_t i, float *c)
{
    const k_fast_weights *f = a->f;
    int m = f->m;
    float *r = w.r + i * (size_t)m;
    if (f->rule == K_FW_DELTA)
        memcpy(block_r(a, c, t0), r, (size_t)m * sizeof *r);
    for (int j = n - 1; j >= 0; j--) {
        const float *b = w.b + (size_t)j * (size_t)m;
        c[t0 + j] = k_sdot(m, b, r);
        w.w[j] = w.beta[t0 + j] * w.gamma[t0 + j] * c[t0 + j];
        if (f->rule == K_FW_DELTA)
            k_saxpy(m, -w.w[j], b, r);
    }
}

/* Denominator and initial state of every query; y [n,Dv] is scaled. */
static void finish(const fw_head *a, rows w, float left)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv, Q = f->Tq;
    const float *W0 = f->state_in, *z0 = f->z_in;
    for (size_t i = 0; i < queries_of(f); i++) {
        float *keep = kept(a, w, i), *r = w.r + i * (size_t)m, inv = (float)f->scale;
        float *o = k_row(f->o, a->b, a->h * a->G + (int)i / Q, (int)i % Q);
        for (int d = 0; d < m; d++)
            keep[f->Tk + d] = left * r[d];
        if (W0)
            k_sgemm(0, 0, 1, E, m, 1, keep + f->Tk, m, W0 + a->index * (size_t)m * (size_t)E, E, 1, o, E);
        if (f->attn_norm != K_FW_NONE) {
            float den = w.dden[i];      /* sum and gated: the weights; delta: nothing, z is at hand */
            if (f->rule == K_FW_DELTA)
                den = k_sdot(m, w.z, w.a + i * (size_t)m);
            else if (z0)
                den += k_sdot(m, z0 + a->index * (size_t)m, keep + f->Tk);
            inv *= fw_inverse(den + (float)f->attn_eps);
        }
        keep[f->Tk + m] = inv;
        for (int e = 0; e < E; e++)
            o[e] *= inv;
    }
}

/* W and z after all writes, which nothing but the caller wants. */
static void final_state(const fw_head *a, rows w)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv;
    float *W = f->state_out ? (float *)f->state_out + a->index * (size_t)m * (size_t)E : NULL, *u = w.g;
    if (f->z_out)
        memcpy((float *)f->z_out + a->index * (size_t)m, w.z, (size_t)m * sizeof(float));
    if (!W)
        return;
    memset(W, 0, (size_t)m * (size_t)E * sizeof *W);
    if (f->state_in)
        memcpy(W, (const float *)f->state_in + a->index * (size_t)m * (size_t)E, (size_t)m * (size_t)E * sizeof *W);
    for (int t = 0; t < f->Tk; t++) {
        float beta = w.beta[t];
        fw_keys(a, t, 1, w.phi, w.b, w.rho, w.work);
        memcpy(u, k_row(f->v, a->b, a->h, t), (size_t)E * sizeof *u);
        if (f->rule == K_FW_DELTA)
            k_sgemm(0, 0, 1, E, m, -1, w.b, m, W, E, 1, u, E);
        for (int d = 0; d < m; d++) {
            if (f->rule == K_FW_GATED)
                for (int e = 0; e < E; e++)
                    W[d * E + e] *= 1 - beta;
            k_saxpy(E, beta * w.b[d], u, W + (size_t)d * (size_t)E);
        }
    }
}

/* z += the keys of a block. */
static void add_z(const fw_head *a, rows w, int t0, int n)
{
    for (int j = 0; j < n; j++)
        k_saxpy(a->f->m, a->f->rule == K_FW_GATED ? w.beta[t0 + j] * w.gamma[t0 + j] : 1, w.b + (size_t)j * (size_t)a->f->m, w.z);
}

/* Blocks of keys from the last to the first, all queries in each. */
static void forward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    rows w = layout(f, a->scratch);
    size_t n = queries_of(f), m = (size_t)f->m;
    float left = load(a, w);
    memcpy(w.r, w.a, n * m * sizeof *w.r);
    memset(w.z, 0, m * sizeof *w.z);
    for (size_t i = 0; i < n; i++) {
        w.dden[i] = 0;
        memset(k_row(f->o, a->b, a->h * a->G + (int)i / f->Tq, (int)i % f->Tq), 0, (size_t)f->Dv * sizeof(float));
    }
    for (int t0 = (f->Tk - 1) / FW_BLOCK * FW_BLOCK; t0 >= 0; t0 -= FW_BLOCK) {
        int k = f->Tk - t0 < FW_BLOCK ? f->Tk - t0 : FW_BLOCK;
        fw_keys(a, t0, k, block_phi(a, w, t0), w.b, w.rho, w.work);
        if (f->attn_norm != K_FW_NONE)
            add_z(a, w, t0, k);
        for (size_t i = 0; i < n; i++) {
            float *o = k_row(f->o, a->b, a->h * a->G + (int)i / f->Tq, (int)i % f->Tq);
            walk_back(a, w, t0, k, i, kept(a, w, i));
            k_sgemm(0, 0, 1, f->Dv, k, 1, w.w, k, k_row(f->v, a->b, a->h, t0), (int)f->v.st, 1, o, f->Dv);
            for (int j = 0; j < k; j++)
                w.dden[i] += w.w[j];
        }
    }
    if (f->z_in && f->attn_norm != K_FW_NONE)
        k_saxpy(f->m, left, (const float *)f->z_in + a->index * m, w.z);
    finish(a, w, left);
    final_state(a, w);
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* Per query: g [Dv] of y, dden, s_0 [m] and what W_0 and z_0 receive. */
static void start_back(const fw_head *a, rows w, float left)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv, Q = f->Tq, delta = f->rule == K_FW_DELTA;
    size_t n = queries_of(f), at = a->index * (size_t)m, W_at = at * (size_t)E;
    const float *W0 = f->state_in ? (const float *)f->state_in + W_at : NULL, *z0 = f->z_in ? (const float *)f->z_in + at : NULL;
    memset(w.s, 0, n * (size_t)m * sizeof *w.s);
    memset(w.dz, 0, (size_t)m * sizeof *w.dz);
    for (size_t i = 0; i < n; i++) {
        int h = a->h * a->G + (int)i / Q, t = (int)i % Q;
        const float *keep = kept(a, w, i), *d_o = k_row(f->d_o, a->b, h, t);
        float inv = keep[f->Tk + m], *g = w.g + i * (size_t)E, *s = w.s + i * (size_t)m;
        for (int e = 0; e < E; e++)
            g[e] = inv * d_o[e];
        w.dden[i] = f->attn_norm == K_FW_NONE ? 0 : -inv / (float)f->scale * k_sdot(E, d_o, k_row(f->o, a->b, h, t));
        if (W0)
            k_sgemm(0, 1, 1, m, E, 1, g, E, W0, E, 0, s, m);
        if (z0 && !delta)
            k_saxpy(m, w.dden[i], z0, s);
        k_saxpy(m, w.dden[i], delta ? w.a + i * (size_t)m : keep + f->Tk, w.dz);
        w.dgamma[i] = delta ? 0 : k_sdot(m, s, w.a + i * (size_t)m);
        for (int d = 0; d < m; d++)
            s[d] *= left;
        if (f->dstate)
            k_sgemm(1, 0, m, E, 1, 1, keep + f->Tk, m, g, E, i > 0, (float *)f->dstate + W_at, E);
    }
    if (f->dz)
        memcpy((float *)f->dz + at, w.dz, (size_t)m * sizeof *w.dz);
}

/* w.r [n,m] = r of one query at every token of the block, w.w = its weights. */
static void rebuild(const fw_head *a, rows w, int t0, int n, float *keep)
{
    int m = a->f->m;
    memcpy(w.r + (size_t)(n - 1) * (size_t)m, block_r(a, keep, t0), (size_t)m * sizeof *w.r);
    for (int j = n - 1; j >= 0; j--) {
        const float *b = w.b + (size_t)j * (size_t)m, *r = w.r + (size_t)j * (size_t)m;
        float by = w.w[j] = w.beta[t0 + j] * keep[t0 + j], *before = w.r + (size_t)(j ? j - 1 : n) * (size_t)m;
        #pragma omp simd
        for (int d = 0; d < m; d++)
            before[d] = r[d] - by * b[d];
    }
}

/* The adjoint s [m] of the rows of the delta rule passes one token: db [m] is added to; returns t_i. */
static float delta_back(int m, float beta, float w, float e, const float *b, const float *r, float *s, float *db)
{
    float t = e - k_sdot(m, s, b), tb = t * beta;
    #pragma omp simd
    for (int d = 0; d < m; d++) {
        float sd = s[d];
        db[d] += tb * r[d] - w * sd;
        s[d] = sd + tb * b[d];
    }
    return t;
}

/* One query forward through a block of n keys: db, dv and dbeta of the block are added to. */
static void walk_on(const fw_head *a, rows w, int t0, int n, size_t i)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv;
    float *keep = kept(a, w, i), *c = keep + t0, *g = w.g + i * (size_t)E, *s = w.s + i * (size_t)m;
    k_sgemm(0, 1, 1, n, E, 1, g, E, k_row(f->v, a->b, a->h, t0), (int)f->v.st, 0, w.e, n);
    if (f->rule == K_FW_DELTA)
        rebuild(a, w, t0, n, keep);
    for (int j = 0; j < n; j++) {
        float *b = w.b + (size_t)j * (size_t)m, *db = w.db + (size_t)j * (size_t)m, beta = w.beta[t0 + j];
        if (f->rule == K_FW_DELTA) {
            w.dbeta[j] += c[j] * delta_back(m, beta, w.w[j], w.e[j], b, w.r + (size_t)j * (size_t)m, s, db);
            continue;
        }
        float e = w.e[j] + w.dden[i], gamma = w.gamma[t0 + j];
        w.w[j] = beta * gamma * c[j];
        w.dbeta[j] += gamma * (c[j] * e - w.dgamma[i]);
        w.dgamma[i] = beta * c[j] * e + (f->rule == K_FW_GATED ? 1 - beta : 1) * w.dgamma[i];
        k_saxpy(m, beta * gamma * e, w.a + i * (size_t)m, db);
        k_saxpy(m, beta * gamma * e, b, s);
    }
    for (int j = 0; f->dv.p && j < n; j++)
        k_saxpy(E, w.w[j], g, k_row(f->dv, a->b, a->h, t0 + j));
}

/* Blocks of keys from the first to the last. */
static void backward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    rows w = layout(f, a->scratch);
    size_t n = queries_of(f), m = (size_t)f->m;
    start_back(a, w, load(a, w));
    memset(w.z, 0, m * sizeof *w.z);
    if (f->z_in && f->attn_norm != K_FW_NONE)
        memcpy(w.z, (const float *)f->z_in + a->index * m, m * sizeof *w.z);
    k_rows_zero(f->dv, a->b, a->h, f->Tk, f->Dv);
    for (int t0 = 0; t0 < f->Tk; t0 += FW_BLOCK) {
        int k = f->Tk - t0 < FW_BLOCK ? f->Tk - t0 : FW_BLOCK;
        float *phi = block_phi(a, w, t0);
        if (keeps_phi(f))
            k_snormalise_forward(f->qk_norm, f->norm_eps, k, f->m, phi, f->m, w.b, f->m, w.rho);
        else
            fw_keys(a, t0, k, phi, w.b, w.rho, w.work);
        if (f->attn_norm != K_FW_NONE && f->rule == K_FW_DELTA)
            add_z(a, w, t0, k);
        memset(w.dbeta, 0, sizeof(float) * FW_BLOCK);
        for (int j = 0; j < k; j++)     /* delta: every key is in z once */
            if (f->rule == K_FW_DELTA)
                memcpy(w.db + (size_t)j * m, w.dz, m * sizeof *w.db);
            else
                memset(w.db + (size_t)j * m, 0, m * sizeof *w.db);
        for (size_t i = 0; i < n; i++)
            walk_on(a, w, t0, k, i);
        for (int j = 0; j < k; j++)
            fw_beta_back(a, t0 + j, w.dbeta[j]);
        fw_keys_back(a, t0, k, phi, w.b, w.rho, w.db, w.work);
    }
    for (size_t i = 0; f->rule == K_FW_DELTA && i < n; i++)     /* da is s, and z where the denominator is z.a */
        k_saxpy(f->m, w.dden[i], w.z, w.s + i * m);
    for (int g = 0; g < a->G; g++) {
        size_t at = (size_t)g * (size_t)f->Tq;
        fw_queries_back(a, g, 0, f->Tq, w.phi_q + at * m, w.a + at * m, w.rho_q + at, w.s + at * m, w.work);
    }
}

const fw_form fw_rows = { saved, scratch, forward, backward };
