/* recurrence.c - fading memories in float, a chunk of tokens at a time as matrix products; one thread per key head.
 *
 * S is the memory at the chunk's start; in_i, out_j and weight_ij are the fades of recurrence_scores.c.
 *   values  X = V (sum), step V (stepped);  delta (WY form): (I + T) X = beta U, U = V - (in K) S, T = beta stril(A),
 *           A = K K' o weight
 *   read    P = scores,  Y = P X + (in Q) S,  O = scale Y + skip V
 *   write   S <- left S + (out K)' X
 * Backward, with R = dL/dS after the chunk and G = scale dL/dO:
 *   dX = P'G + (out K) R,  dP = tril(G X'),  dQ = through dP + in (G S'),  dK = through dP + out (X R')
 *   R <- left R + (in Q)'G
 *   sum dV = dX;  stepped dV = step dX, dstep = dX.V;  delta: Y = (I + T)^{-T} dX, dV = beta Y,
 *   M = -beta stril(Y X') o weight,  reads dK = M K - in (beta Y) S',  writes dK += M'K,  R -= (in K)'(beta Y),
 *   dbeta_i = Y_i.U_i - sum_j (Y_i.X_j) A_ij
 *   decays  dl_t = the sum of every product above that holds l_t, times its gradient
 * Kept: S at the start of every chunk. */
#include "recurrence_chunks.h"
#include "../cpu.h"
#include <omp.h>

enum { C = RC_CHUNK, SLOTS = 16, PARAMS = 3 };  /* threads that have scratch; a_log, dt_bias, d_skip */

/* A memory as the work of one thread. */
typedef struct {
    rc_memory m;
    rc_chunk w;
    const float *turns;                 /* rope: cosines and sines of every token */
    float *saved;                       /* S [chunks,D,E], NULL: not kept */
    double *dparams;                    /* [PARAMS] of this batch row */
    int again;                          /* not the first memory of its key head: shared gradients are added to */
    size_t index;
} job;

/* Chunks of T tokens, the last may be short; elements of S. */
static size_t chunks_of(const k_recurrence *r) { return ((size_t)r->T + C - 1) / C; }
static size_t memory_size(const k_recurrence *r) { return (size_t)r->D * (size_t)r->E; }

/* Lays the arrays out from `at` on; NULL: only their size. */
static rc_chunk layout(const k_recurrence *r, float *at)
{
    size_t D = C * (size_t)r->D, E = C * (size_t)r->E, n = memory_size(r), W = (size_t)rc_width(r);
    rc_chunk w = { .size = 0 };
    float **array[] = { &w.k, &w.dk, &w.rk, &w.q, &w.dq, &w.rq, &w.v, &w.x, &w.u, &w.dx, &w.y, &w.l, &w.in, &w.out, &w.left, &w.weight,
                        &w.k_in, &w.k_out, &w.q_in, &w.P, &w.dP, &w.A, &w.T, &w.dl, &w.sum, &w.step, &w.slope, &w.beta, &w.dfactor,
                        &w.S, &w.R, &w.fade, &w.q_half, &w.k_half, &w.d_half };
    size_t count[] = { D, D, C, D, D, C, E, E, E, E, E, C * W, C * W, C * W, W, C * C,
                       D, D, D, C * C, C * C, C * C, C * C, C * W, W, C, C, C, C, n, n, D, D, D, D };
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        *array[i] = at ? at + w.size : NULL;
        w.size += (count[i] + 15) / 16 * 16;
    }
    return w;
}

/* Width of a row of turns. */
static int turn_width(const k_recurrence *r) { return r->position ? k_rope_width(r->position, r->D) : 0; }

/* ---- rows ------------------------------------------------------------------------------------------------------- */

/* x [n,D] = the rows of a head, normalised or turned. */
static void load_rows(const job *a, k_heads src, int h, int t0, int n, float *x, float *factor)
{
    const k_recurrence *r = a->m.r;
    int D = r->D, width = turn_width(r);
    k_snormalise_forward(r->norm, r->norm_eps, n, D, k_row(src, a->m.b, h, t0), src.st, x, D, factor);
    for (int i = 0; width && i < n; i++)
        k_rope_row_f32(r->position, D, 1, a->turns + (size_t)(t0 + i) * (size_t)width, x + i * D, x + i * D);
}

/* Rows x [n,width] to those of a head, in place of what is there or added to it. */
static void put_rows(const job *a, k_heads dst, int h, int t0, int n, int width, const float *x, int add)
{
    for (int i = 0; dst.p && i < n; i++) {
        float *row = k_row(dst, a->m.b, h, t0 + i);
        if (add)
            k_saxpy(width, 1, x + i * width, row);
        else
            memcpy(row, x + i * width, (size_t)width * sizeof *row);
    }
}

/* The gradient dx [n,D] of what load_rows loaded; dx is lost. */
static void rows_back(const job *a, k_heads dst, int h, int t0, int n, const float *x, const float *factor, float *dx, int add)
{
    const k_recurrence *r = a->m.r;
    int D = r->D, width = turn_width(r);
    k_snormalise_backward(r->norm, n, D, x, D, factor, dx, D, dx, D);
    for (int i = 0; width && i < n; i++)
        k_rope_row_f32(r->position, D, -1, a->turns + (size_t)(t0 + i) * (size_t)width, dx + i * D, dx + i * D);
    put_rows(a, dst, h, t0, n, D, dx, add);
}

/* ---- a chunk ------------------------------------------------------------------------------------------------------ */

/* Decays of the channels of one token, before they are bounded from below. */
static void channel_decays(const k_recurrence *r, const float *gate, float *l)
{
    const float by = (float)(-1 / r->gate_normalizer);
    #pragma omp simd
    for (int d = 0; d < r->D; d++)
        l[d] = by * softplus_f32(-gate[d]);
}

/* Decays, steps and betas of n tokens. */
static void load_gates(const job *a, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    for (int i = 0; i < n; i++) {
        const float *gate = k_row(r->gate, a->m.b, a->m.h, t0 + i);
        double slope = 0, step = r->decay == K_DECAY_STEP ? rc_step(&a->m, *gate, &slope) : 1;
        w.step[i] = (float)step;
        w.slope[i] = (float)slope;
        w.beta[i] = r->write == K_WRITE_DELTA ? (float)(r->beta_max * sigmoid_f64(*k_row(r->beta, a->m.b, a->m.h, t0 + i))) : 1;
        if (r->decay != K_DECAY_CHANNEL)        /* finite: differences are taken */
            w.l[i] = (float)fmax(r->decay == K_DECAY_FIXED ? rc_fixed(&a->m) : -a->m.A * step, -1e30);
        else {
            float *l = w.l + i * r->D, least = (float)r->gate_min;
            channel_decays(r, gate, l);
            for (int d = 0; d < r->D; d++)
                l[d] = l[d] < least ? least : l[d];
        }
    }
}

/* x = beta (v - S'k) of every token from the memory S at the chunk's start. */
static void delta_values(const job *a, const float *S, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int D = r->D, E = r->E;
    rc_faded(r, n, w.k, w.in, w.k_in);
    memcpy(w.u, w.v, (size_t)n * (size_t)E * sizeof *w.u);
    k_sgemm(0, 0, n, E, D, -1, w.k_in, D, S, E, 1, w.u, E);
    k_sgemm(0, 1, n, n, D, 1, w.k, D, w.k, D, 0, w.A, C);
    for (int i = 0; i < n; i++) {
        for (int e = 0; e < E; e++)
            w.x[i * E + e] = w.beta[i] * w.u[i * E + e];
        for (int j = 0; j < n; j++) {
            w.A[i * C + j] *= w.weight[i * C + j];
            w.T[i * C + j] = w.beta[i] * w.A[i * C + j];
        }
    }
    k_ssolve_unit(0, n, E, w.T, C, w.x);
}

/* Keys, gates, fades and what is written, from the memory S at the chunk's start. */
static void load_chunk(const job *a, const float *S, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int E = r->E;
    load_rows(a, r->k, a->m.hk, t0, n, w.k, w.rk);
    for (int i = 0; i < n; i++)
        memcpy(w.v + i * E, k_row(r->v, a->m.b, a->m.hv, t0 + i), (size_t)E * sizeof *w.v);
    load_gates(a, t0, n);
    rc_fades(r, w, n);
    rc_faded(r, n, w.k, w.out, w.k_out);
    if (r->write == K_WRITE_DELTA) {
        delta_values(a, S, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int e = 0; e < E; e++)
            w.x[i * E + e] = w.step[i] * w.v[i * E + e];
}

/* S = left S, row by row. */
static void fade_memory(const k_recurrence *r, const float *left, float *S)
{
    int width = rc_width(r);
    for (int d = 0; d < r->D; d++)
        for (int e = 0; e < r->E; e++)
            S[d * r->E + e] *= left[d % width];
}

/* Queries of reader g, and their scores. */
static void load_reader(const job *a, int g, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    load_rows(a, r->q, rc_query_head(&a->m, g), t0, n, a->w.q, a->w.rq);
    rc_faded(r, n, a->w.q, a->w.in, a->w.q_in);
    rc_scores(r, a->w, n);
}

/* o of n queries of reader g. */
static void read_chunk(const job *a, int g, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int D = r->D, E = r->E;
    float scale = (float)r->scale, skip = (float)a->m.skip;
    load_reader(a, g, t0, n);
    k_sgemm(0, 0, n, E, n, scale, w.P, C, w.x, E, 0, w.y, E);
    k_sgemm(0, 0, n, E, D, scale, w.q_in, D, w.S, E, 1, w.y, E);
    if (skip != 0)
        k_saxpy(n * E, skip, w.v, w.y);
    put_rows(a, r->o, rc_out_head(&a->m, g), t0, n, E, w.y, 0);
}

/* One memory through all its tokens. */
static void forward(const job *a)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    size_t size = memory_size(r);
    memset(w.S, 0, size * sizeof *w.S);
    if (r->state_in)
        memcpy(w.S, (const float *)r->state_in + a->index * size, size * sizeof *w.S);
    for (int t0 = 0; t0 < r->T; t0 += C) {
        int n = r->T - t0 < C ? r->T - t0 : C;
        if (a->saved)
            memcpy(a->saved + (size_t)(t0 / C) * size, w.S, size * sizeof *w.S);
        load_chunk(a, w.S, t0, n);
        for (int g = 0; g < a->m.G; g++)
            read_chunk(a, g, t0, n);
        fade_memory(r, w.left, w.S);
        k_sgemm(1, 0, r->D, r->E, n, 1, w.k_out, r->D, w.x, r->E, 1, w.S, r->E);
    }
    if (r->state_out)
        memcpy((float *)r->state_out + a->index * size, w.S, size * sizeof *w.S);
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

/* The chunk's writes into the memory after it, and its fading from S at the start: dx, dk, dl and R before the reads. */
static void write_back(const job *a, const float *S, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int D = r->D, E = r->E, width = rc_width(r);
    k_sgemm(0, 0, n, E, D, 1, w.k_out, D, w.R, E, 0, w.dx, E);
    k_sgemm(0, 1, n, D, E, 1, w.x, E, w.R, E, 0, w.dk, D);
    rc_faded(r, n, w.dk, w.out, w.dk);
    fade_memory(r, w.left, w.R);
    if (r->decay == K_DECAY_FIXED)
        return;
    memset(w.dl, 0, (size_t)n * (size_t)width * sizeof *w.dl);
    rc_decays_to(r, w, 0, n, w.k, w.dk);
    memset(w.sum, 0, (size_t)width * sizeof *w.sum);
    for (int d = 0; d < D; d++)
        w.sum[d % width] += k_sdot(E, w.R + d * E, S + d * E);
    for (int i = 0; i < n; i++)
        k_saxpy(width, 1, w.sum, w.dl + i * width);
}

/* The reads of reader g: dq, and what they add to dx, dk and R. */
static void read_back(const job *a, const float *S, int g, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int D = r->D, E = r->E;
    load_reader(a, g, t0, n);
    for (int i = 0; i < n; i++) {
        const float *d_o = k_row(r->d_o, a->m.b, rc_out_head(&a->m, g), t0 + i);
        for (int e = 0; e < E; e++)
            w.y[i * E + e] = (float)r->scale * d_o[e];
    }
    k_sgemm(1, 0, n, E, n, 1, w.P, C, w.y, E, 1, w.dx, E);
    k_sgemm(1, 0, D, E, n, 1, w.q_in, D, w.y, E, 1, w.R, E);
    k_sgemm(0, 1, n, n, E, 1, w.y, E, w.x, E, 0, w.dP, C);
    k_sgemm(0, 1, n, D, E, 1, w.y, E, S, E, 0, w.dq, D);
    rc_faded(r, n, w.dq, w.in, w.dq);
    if (r->decay != K_DECAY_FIXED)
        rc_decays_from(r, w, 0, n, w.q, w.dq);
    rc_scores_back(r, w, n);
    rows_back(a, r->dq, rc_query_head(&a->m, g), t0, n, w.q, w.rq, w.dq, a->again && r->Hq < r->Ho);
}

/* delta: dx becomes beta Y; dbeta; dk, dl and R through what the tokens recalled.  dq is work: dk through S. */
static void delta_back(const job *a, const float *S, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int D = r->D, E = r->E;
    k_ssolve_unit(1, n, E, w.T, C, w.dx);
    k_sgemm(0, 1, n, n, E, -1, w.dx, E, w.x, E, 0, w.dP, C);
    for (int i = 0; i < n; i++) {
        w.dfactor[i] = k_sdot(E, w.dx + i * E, w.u + i * E) + k_sdot(i, w.dP + i * C, w.A + i * C);
        for (int j = 0; j < n; j++) {
            float d = j < i ? w.beta[i] * w.dP[i * C + j] : 0;
            w.A[i * C + j] *= d;
            w.dP[i * C + j] = w.weight[i * C + j] * d;
        }
        for (int e = 0; e < E; e++)
            w.dx[i * E + e] *= w.beta[i];
    }
    k_sgemm(1, 0, n, D, n, 1, w.dP, C, w.k, D, 1, w.dk, D);
    rc_decays_between(w, n, w.A);
    k_sgemm(0, 1, n, D, E, -1, w.dx, E, S, E, 0, w.dq, D);
    rc_faded(r, n, w.dq, w.in, w.dq);
    rc_decays_from(r, w, 0, n, w.k, w.dq);
    k_sgemm(0, 0, n, D, n, 1, w.dP, C, w.k, D, 1, w.dk, D);
    k_saxpy(n * D, 1, w.dq, w.dk);
    k_sgemm(1, 0, D, E, n, -1, w.k_in, D, w.dx, E, 1, w.R, E);
}

/* dv past delta: dx becomes it. */
static void values_back(const job *a, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    int E = r->E;
    for (int i = 0; i < n; i++) {
        if (r->write == K_WRITE_STEPPED)
            w.dfactor[i] = k_sdot(E, w.dx + i * E, w.v + i * E);
        for (int e = 0; r->write == K_WRITE_STEPPED && e < E; e++)
            w.dx[i * E + e] *= w.step[i];
        for (int g = 0; r->d_skip && g < a->m.G; g++) {
            const float *d_o = k_row(r->d_o, a->m.b, rc_out_head(&a->m, g), t0 + i);
            k_saxpy(E, (float)a->m.skip, d_o, w.dx + i * E);
            a->dparams[2] += (double)k_sdot(E, w.v + i * E, d_o);
        }
    }
    put_rows(a, r->dv, a->m.hv, t0, n, E, w.dx, a->again && r->Hv < r->H);
}

/* Gates of token t0 + i from its decays' gradient dl [W]. */
static void gate_back(const job *a, const float *dl, int t0, int i)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    float *dgate = k_row(r->dgate, a->m.b, a->m.h, t0 + i), *dbeta = k_row(r->dbeta, a->m.b, a->m.h, t0 + i);
    const float *gate = k_row(r->gate, a->m.b, a->m.h, t0 + i);
    if (dbeta)
        *dbeta = w.dfactor[i] * w.beta[i] * (1 - w.beta[i] / (float)r->beta_max);
    if (r->decay == K_DECAY_STEP) {
        double of_gate = w.slope[i] * (-a->m.A * dl[0] + (r->write == K_WRITE_STEPPED ? w.dfactor[i] : 0));
        a->dparams[0] += (double)dl[0] * w.l[i];
        a->dparams[1] += of_gate;
        if (dgate)
            *dgate = (float)of_gate;
    }
    if (dgate && r->decay == K_DECAY_CHANNEL) {
        const float by = (float)(1 / r->gate_normalizer), least = (float)r->gate_min;
        channel_decays(r, gate, w.sum);
        #pragma omp simd
        for (int d = 0; d < r->D; d++)
            dgate[d] = w.sum[d] < least ? 0 : dl[d] * by * sigmoid_f32(-gate[d]);
    }
}

/* One chunk, from R after it to R before it. */
static void chunk_back(const job *a, const float *S, int t0, int n)
{
    const k_recurrence *r = a->m.r;
    rc_chunk w = a->w;
    load_chunk(a, S, t0, n);
    write_back(a, S, n);
    for (int g = 0; g < a->m.G; g++)
        read_back(a, S, g, t0, n);
    if (r->write == K_WRITE_DELTA)
        delta_back(a, S, n);
    values_back(a, t0, n);
    for (int i = 0; i < n && r->decay != K_DECAY_FIXED; i++)
        gate_back(a, w.dl + i * rc_width(r), t0, i);
    rows_back(a, r->dk, a->m.hk, t0, n, w.k, w.rk, w.dk, a->again);
}

/* The chunks from last to first. */
static void backward(const job *a)
{
    const k_recurrence *r = a->m.r;
    size_t size = memory_size(r);
    memset(a->w.R, 0, size * sizeof *a->w.R);
    for (size_t c = chunks_of(r); c-- > 0;) {
        int t0 = (int)c * C;
        chunk_back(a, a->saved + c * size, t0, r->T - t0 < C ? r->T - t0 : C);
    }
    if (r->dstate)
        memcpy((float *)r->dstate + a->index * size, a->w.R, size * sizeof *a->w.R);
}

/* ---- all memories ---------------------------------------------------------------------------------------------------- */

/* Floats that forward keeps for backward. */
size_t k_srecurrence_saved(const k_recurrence *r) { return (size_t)r->B * (size_t)r->H * chunks_of(r) * memory_size(r); }

/* Scratch: gradients of params in double, turns, one layout per thread; each part begins on a cache line. */
static size_t params_size(const k_recurrence *r) { return ((size_t)r->B * (size_t)r->H * PARAMS * 2 + 15) / 16 * 16; }
static size_t turns_size(const k_recurrence *r) { return ((size_t)r->T * (size_t)turn_width(r) + 15) / 16 * 16; }
static int slots_of(const k_recurrence *r) { return (int64_t)r->B * r->Hk < SLOTS ? r->B * r->Hk : SLOTS; }

/* Enough for either pass. */
size_t k_srecurrence_scratch(const k_recurrence *r)
{
    return params_size(r) + turns_size(r) + (size_t)slots_of(r) * layout(r, NULL).size;
}

/* A key head with all its memories is the work of one thread, because they share dk. */
static void each_memory(const k_recurrence *r, void (*work)(const job *))
{
    int threads = r->threads < slots_of(r) ? r->threads : slots_of(r), shared = r->H / r->Hk;
    float *turns = (float *)r->scratch + params_size(r), *slots = turns + turns_size(r);
    size_t slot = layout(r, NULL).size, saved = chunks_of(r) * memory_size(r);
    memset(r->scratch, 0, params_size(r) * sizeof(float));
    if (turn_width(r))
        k_rope_table(r->position, r->D, r->first, r->T, turns);
    #pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int b = 0; b < r->B; b++) for (int hk = 0; hk < r->Hk; hk++)
        for (int h = hk * shared; h < (hk + 1) * shared; h++) {
            size_t index = (size_t)b * (size_t)r->H + (size_t)h;
            job a = { .m = rc_memory_of(r, b, h, 0), .w = layout(r, slots + (size_t)omp_get_thread_num() * slot), .turns = turns,
                      .saved = r->saved ? (float *)r->saved + index * saved : NULL, .dparams = (double *)r->scratch + index * PARAMS,
                      .again = h > hk * shared, .index = index };
            work(&a);
        }
}

/* Memory by memory. */
void k_srecurrence_forward(const k_recurrence *r) { each_memory(r, forward); }

/* Gradients of params are added up by batch row, whatever thread made them. */
void k_srecurrence_backward(const k_recurrence *r)
{
    float *sums[PARAMS] = { r->da_log, r->ddt_bias, r->dd_skip };
    each_memory(r, backward);
    for (int i = 0; i < PARAMS; i++)
        for (int h = 0; sums[i] && h < r->H; h++) {
            double sum = 0;
            for (int b = 0; b < r->B; b++)
                sum += ((const double *)r->scratch)[((size_t)b * (size_t)r->H + (size_t)h) * PARAMS + (size_t)i];
            sums[i][h] += (float)sum;
        }
}
