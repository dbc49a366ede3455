/* fast_weights_chunks.c - sum and gated rules, a chunk of tokens at a time as matrix products.
 *
 * Rows of a chunk: keys B, values V, queries A; S [m,E] is W at its start.  keep_i = 1 - beta_i (sum: 1),
 * weight_ij = beta_j keep_{j+1} .. keep_i for j <= i (sum: 1), in_i = keep_1 .. keep_i, out_j = weight_cj.
 *   read    P = tril(A B' o weight),  Y = P V + in A S,  den = rows of P + in A z
 *   write   S <- in_c S + (out B)' V,  z <- in_c z + sum of out B
 * Backward, with R = dL/dS after the chunk and G = dL/dY:
 *   dV = P'G + out B R,  dP = tril(G V' + dden 1'),  dA = (dP o weight) B + in (G S' + dden z')
 *   dB = (dP o weight)'A + out (V R' + dz'),  R <- in_c R + (in A)'G
 *   gated: every product that holds keep_t or beta_t gives its share, summed without division.
 * Kept: S and z at the start of every chunk, the denominators. */
#include "fast_weights.h"
#include "../cpu.h"
#include <math.h>
#include <string.h>

enum { C = FW_BLOCK };

/* Chunks of Tk tokens; the last may be short. */
static size_t chunks_of(const k_fast_weights *f) { return ((size_t)f->Tk + C - 1) / C; }
static size_t queries_of(const k_fast_weights *f) { return (size_t)(f->Hq / f->Hk) * (size_t)f->Tq; }

/* Saved for one head: S [chunks+1,m,E], z [chunks+1,m], factor [queries]. */
static size_t saved(const k_fast_weights *f)
{
    return (chunks_of(f) + 1) * (size_t)f->m * ((size_t)f->Dv + 1) + queries_of(f);
}

typedef struct {
    float *phi, *b, *db, *rho;          /* keys of the chunk: [C,m] x 3 [C] */
    float *phi_q, *a, *da, *rho_q;      /* queries of one head: [C,m] x 3 [C] */
    float *x, *dx, *g;                  /* [C,E]: values, their gradients, gradient of y */
    float *P, *dP, *weight;             /* [C,C] */
    float *in, *out, *beta, *dden;      /* [C] */
    float *shares, *in_share, *out_share; /* [C,C] [C] [C]: what P, in and out give to the gates */
    float *R, *dz, *S, *z, *outB;       /* [m,E] [m] [m,E] [m] [C,m] */
    float *work;
    size_t size;
} chunk;

/* Lays the arrays out from `at` on; NULL: only their size. */
static chunk layout(const k_fast_weights *f, float *at)
{
    size_t m = (size_t)f->m, E = (size_t)f->Dv;
    chunk w = { .size = 0 };
    float **array[] = { &w.phi, &w.b, &w.db, &w.rho, &w.phi_q, &w.a, &w.da, &w.rho_q, &w.x, &w.dx, &w.g, &w.P, &w.dP, &w.weight,
                        &w.in, &w.out, &w.beta, &w.dden, &w.shares, &w.in_share, &w.out_share, &w.R, &w.dz, &w.S, &w.z, &w.outB, &w.work };
    size_t count[] = { C * m, C * m, C * m, C, C * m, C * m, C * m, C, C * E, C * E, C * E, C * C, C * C, C * C,
                       C, C, C, C, C * C, C, C, m * E, m, m * E, m, C * m, fw_features_work(f, C) };
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        *array[i] = at ? at + w.size : NULL;
        w.size += (count[i] + 7) / 8 * 8;
    }
    return w;
}
/* Floats for one thread. */
static size_t scratch(const k_fast_weights *f) { return layout(f, NULL).size; }

/* Tokens t0 .. t0 + n - 1: features, values, beta, weights. */
static void load_tokens(const fw_head *a, chunk w, int t0, int n)
{
    const k_fast_weights *f = a->f;
    int gated = f->rule == K_FW_GATED, m = f->m, E = f->Dv;
    fw_keys(a, t0, n, w.phi, w.b, w.rho, w.work);
    for (int i = 0; i < n; i++) {
        memcpy(w.x + i * E, k_row(f->v, a->b, a->h, t0 + i), (size_t)E * sizeof *w.x);
        w.beta[i] = fw_beta(a, t0 + i);
    }
    for (int j = 0; j < n; j++) {
        float left = gated ? w.beta[j] : 1;
        for (int i = 0; i < n; i++) {
            left *= gated && i > j ? 1 - w.beta[i] : 1;
            w.weight[i * C + j] = i < j ? 0 : left;
        }
        w.out[j] = left;
        w.in[j] = (j ? w.in[j - 1] : 1) * (gated ? 1 - w.beta[j] : 1);
        for (int d = 0; d < m; d++)
            w.outB[j * m + d] = left * w.b[j * m + d];
    }
}

/* S and z past the chunk. */
static void write_chunk(const fw_head *a, chunk w, float *S, float *z, int n)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv;
    float left = w.in[n - 1];
    if (f->rule == K_FW_GATED)
        for (int i = 0; i < m * E; i++)
            S[i] *= left;
    k_sgemm(1, 0, m, E, n, 1, w.outB, m, w.x, E, 1, S, E);
    for (int d = 0; d < m; d++)
        z[d] *= left;
    for (int i = 0; i < n; i++)
        k_saxpy(m, 1, w.outB + i * m, z);
}

/* o of the queries t0 .. t0 + n - 1 of query head g; inside: they see the tokens of the chunk too. */
static void read_chunk(const fw_head *a, chunk w, const float *S, const float *z, int g, int t0, int n, int inside, float *factor)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv;
    k_heads o = f->o;
    float *out = k_row(o, a->b, a->h * a->G + g, t0);
    fw_queries(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.work);
    for (int i = 0; i < n; i++)
        k_sgemm(0, 0, 1, E, m, inside ? w.in[i] : 1, w.a + i * m, m, S, E, 0, out + i * o.st, E);
    if (inside)
        k_sgemm(0, 1, n, n, m, 1, w.a, m, w.b, m, 0, w.P, C);
    for (int i = 0; i < n; i++) {
        float den = f->attn_norm == K_FW_NONE ? 0 : (inside ? w.in[i] : 1) * k_sdot(m, w.a + i * m, z), scale = (float)f->scale;
        for (int j = 0; inside && j < n; j++) {
            w.P[i * C + j] *= w.weight[i * C + j];
            den += w.P[i * C + j];
        }
        if (f->attn_norm != K_FW_NONE)
            scale *= fw_inverse(den + (float)f->attn_eps);
        if (inside)
            k_sgemm(0, 0, 1, E, i + 1, 1, w.P + i * C, C, w.x, E, 1, out + i * o.st, E);
        for (int e = 0; e < E; e++)
            out[i * o.st + e] *= scale;
        if (factor)
            factor[(size_t)g * (size_t)f->Tq + (size_t)(t0 + i)] = scale;
    }
}

/* Reads and writes chunk by chunk; the read-out follows the last write. */
static void forward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    chunk w = layout(f, a->scratch);
    size_t m = (size_t)f->m, mE = m * (size_t)f->Dv, K = chunks_of(f) + 1;
    float *kept_S = a->saved, *kept_z = a->saved ? a->saved + K * mE : NULL, *factor = a->saved ? kept_z + K * m : NULL;
    memset(w.S, 0, mE * sizeof *w.S);
    memset(w.z, 0, m * sizeof *w.z);
    if (f->state_in)
        memcpy(w.S, (const float *)f->state_in + a->index * mE, mE * sizeof *w.S);
    if (f->z_in && f->attn_norm != K_FW_NONE)
        memcpy(w.z, (const float *)f->z_in + a->index * m, m * sizeof *w.z);
    for (size_t c = 0; c < K; c++) {
        int t0 = (int)c * C, n = f->Tk - t0 < C ? f->Tk - t0 : C;
        if (a->saved) {
            memcpy(kept_S + c * mE, w.S, mE * sizeof *w.S);
            memcpy(kept_z + c * m, w.z, m * sizeof *w.z);
        }
        if (n <= 0)
            break;
        load_tokens(a, w, t0, n);
        for (int g = 0; f->causal && g < a->G; g++)
            read_chunk(a, w, w.S, w.z, g, t0, n, 1, factor);
        write_chunk(a, w, w.S, w.z, n);
    }
    for (int g = 0; !f->causal && g < a->G; g++)
        for (int t0 = 0; t0 < f->Tq; t0 += C)
            read_chunk(a, w, w.S, w.z, g, t0, f->Tq - t0 < C ? f->Tq - t0 : C, 0, factor);
    if (f->state_out)
        memcpy((float *)f->state_out + a->index * mE, w.S, mE * sizeof *w.S);
    if (f->z_out)
        memcpy((float *)f->z_out + a->index * m, w.z, m * sizeof *w.z);
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* Queries t0.. of query head g: dq, dS and dz of the state they read; inside: dV, dB and the shares of the gates too. */
static void read_back(const fw_head *a, chunk w, const float *S, const float *z, int g, int t0, int n, int inside,
                      const float *factor, float *dS, float *dz)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv, h = a->h * a->G + g;
    fw_queries(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.work);
    for (int i = 0; i < n; i++) {
        const float *d_o = k_row(f->d_o, a->b, h, t0 + i);
        float by = factor[(size_t)g * (size_t)f->Tq + (size_t)(t0 + i)];
        for (int e = 0; e < E; e++)
            w.g[i * E + e] = by * d_o[e];
        w.dden[i] = f->attn_norm == K_FW_NONE ? 0 : -by / (float)f->scale * k_sdot(E, d_o, k_row(f->o, a->b, h, t0 + i));
    }
    k_sgemm(0, 1, n, m, E, 1, w.g, E, S, E, 0, w.da, m);                /* through the state */
    for (int i = 0; i < n; i++) {
        float *da = w.da + i * m, in = inside ? w.in[i] : 1;
        k_saxpy(m, w.dden[i], z, da);
        if (inside)
            w.in_share[i] += in * k_sdot(m, da, w.a + i * m);
        for (int d = 0; d < m; d++)
            da[d] *= in;
        k_saxpy(m, in * w.dden[i], w.a + i * m, dz);
    }
    if (inside) {
        k_sgemm(0, 1, n, n, m, 1, w.a, m, w.b, m, 0, w.P, C);
        k_sgemm(0, 1, n, n, E, 1, w.g, E, w.x, E, 0, w.dP, C);
        for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) {
            float weight = w.weight[i * C + j];
            float dp = w.dP[i * C + j] + w.dden[i];
            w.shares[i * C + j] += j <= i ? dp * w.P[i * C + j] : 0;    /* per unit of weight */
            w.P[i * C + j] *= weight;
            w.dP[i * C + j] = weight * dp;
        }
        k_sgemm(1, 0, n, E, n, 1, w.P, C, w.g, E, 1, w.dx, E);
        k_sgemm(0, 0, n, m, n, 1, w.dP, C, w.b, m, 1, w.da, m);
        k_sgemm(1, 0, n, m, n, 1, w.dP, C, w.a, m, 1, w.db, m);
    }
    for (int i = 0; i < n; i++)
        for (int e = 0; inside && e < E; e++)
            w.g[i * E + e] *= w.in[i];
    k_sgemm(1, 0, m, E, n, 1, w.a, m, w.g, E, 1, dS, E);
    fw_queries_back(a, g, t0, n, w.phi_q, w.a, w.rho_q, w.da, w.work);
}

/* The writes of a chunk: db, dx from R and dz, which become those before the chunk; returns <R,in_c S> + in_c dz.z. */
static float write_back(const fw_head *a, chunk w, const float *S, const float *z, int n)
{
    const k_fast_weights *f = a->f;
    int m = f->m, E = f->Dv;
    float left = w.in[n - 1], along = 0;
    k_sgemm(0, 0, n, E, m, 1, w.outB, m, w.R, E, 0, w.dx, E);
    k_sgemm(0, 1, n, m, E, 1, w.x, E, w.R, E, 0, w.db, m);
    for (int i = 0; i < n; i++) {
        float *db = w.db + i * m;
        k_saxpy(m, 1, w.dz, db);
        for (int d = 0; d < m; d++)
            db[d] *= w.out[i];
        w.out_share[i] = k_sdot(m, db, w.b + i * m);
    }
    if (f->rule == K_FW_GATED)
        along = left * (k_sdot(m * E, w.R, S) + k_sdot(m, w.dz, z));
    for (int i = 0; i < m * E; i++)
        w.R[i] *= left;
    for (int d = 0; d < m; d++)
        w.dz[d] *= left;
    return along;
}

/* gated: the logit of token t gets beta's shares times 1 - beta and minus beta times those of keep. */
static void gates_back(const fw_head *a, chunk w, float along, int t0, int n)
{
    for (int t = 0; t < n; t++) {
        float of_beta = w.out_share[t], of_keep = along;
        for (int i = t; i < n; i++) {
            of_beta += w.weight[i * C + t] * w.shares[i * C + t];
            of_keep += w.in_share[i];
            for (int j = 0; j < t; j++)
                of_keep += w.weight[i * C + j] * w.shares[i * C + j];
        }
        for (int j = 0; j < t; j++)
            of_keep += w.out_share[j];
        if (a->f->dbeta.p)
            *k_row(a->f->dbeta, a->b, a->h, t0 + t) = of_beta * (1 - w.beta[t]) - of_keep * w.beta[t];
    }
}

/* One chunk of tokens, from R and dz after it to those before it. */
static void chunk_back(const fw_head *a, chunk w, const float *S, const float *z, const float *factor, int t0, int n)
{
    const k_fast_weights *f = a->f;
    load_tokens(a, w, t0, n);
    memset(w.shares, 0, C * C * sizeof *w.shares);
    memset(w.in_share, 0, C * sizeof *w.in_share);
    float along = write_back(a, w, S, z, n);
    for (int g = 0; f->causal && g < a->G; g++)
        read_back(a, w, S, z, g, t0, n, 1, factor, w.R, w.dz);
    if (f->rule == K_FW_GATED)
        gates_back(a, w, along, t0, n);
    for (int i = 0; f->dv.p && i < n; i++)
        memcpy(k_row(f->dv, a->b, a->h, t0 + i), w.dx + i * f->Dv, (size_t)f->Dv * sizeof *w.dx);
    fw_keys_back(a, t0, n, w.phi, w.b, w.rho, w.db, w.work);
}

/* The read-out first, then the chunks from last to first. */
static void backward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    chunk w = layout(f, a->scratch);
    size_t m = (size_t)f->m, mE = m * (size_t)f->Dv, K = chunks_of(f) + 1;
    const float *S = a->saved, *z = S + K * mE, *factor = z + K * m;
    memset(w.R, 0, mE * sizeof *w.R);
    memset(w.dz, 0, m * sizeof *w.dz);
    for (int g = 0; !f->causal && g < a->G; g++)
        for (int t0 = 0; t0 < f->Tq; t0 += C)
            read_back(a, w, S + (K - 1) * mE, z + (K - 1) * m, g, t0, f->Tq - t0 < C ? f->Tq - t0 : C, 0, factor, w.R, w.dz);
    for (size_t c = K - 1; c-- > 0;) {
        int t0 = (int)c * C;
        chunk_back(a, w, S + c * mE, z + c * m, factor, t0, f->Tk - t0 < C ? f->Tk - t0 : C);
    }
    if (f->dstate)
        memcpy((float *)f->dstate + a->index * mE, w.R, mE * sizeof *w.R);
    if (f->dz)
        memcpy((float *)f->dz + a->index * m, w.dz, m * sizeof *w.dz);
}

const fw_form fw_chunks = { saved, scratch, forward, backward };
