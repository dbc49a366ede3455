/* recurrence_ref.c - the definition of fading memories in double: plain loops, every S_t kept for backward.
 *
 * Backward, with R = dL/dS and g = scale dL/do, from the last token to the first; S' is the faded S_{t-1}:
 *   read   dq = S g,  R += q g'
 *   write  dx = R'k,  dk = R x;  sum dv = dx;  stepped dv = step dx, dstep = dx.v;
 *          delta y = beta dx, dv = y, dbeta = dx.(v - S''k), dk -= S'y, R -= k y'
 *   fade   dl_d = R_d.S'_d,  R = diag(e^l) R */
#include "recurrence.h"

/* Scratch of one memory; forward keeps one S, backward (history) S_0 .. S_T. */
typedef struct {
    double *k, *dk, *rk, *q, *dq, *rq;                  /* [T,D] [T,D] [T], of all readers: [G,T,D] [G,T,D] [G,T] */
    double *l, *step, *slope, *beta;                    /* [T,width] [T] [T] [T] */
    double *S, *faded, *R, *x, *dx, *dl;                /* [T+1 or 1,D,E] [D,E] [D,E] [E] [E] [D] */
    size_t next, size;                                  /* elements between S_t and S_t+1; in all */
} ref_work;

/* Lays the arrays out from `at` on; NULL: only their size. */
static ref_work ref_layout(const k_recurrence *r, int history, double *at)
{
    size_t T = (size_t)r->T, D = (size_t)r->D, E = (size_t)r->E, G = (size_t)(r->Ho / r->H), n = D * E;
    ref_work w = { .next = history ? n : 0 };
    double **array[] = { &w.k, &w.dk, &w.rk, &w.q, &w.dq, &w.rq, &w.l, &w.step, &w.slope, &w.beta, &w.S, &w.faded, &w.R, &w.x, &w.dx, &w.dl };
    size_t count[] = { T * D, T * D, T, G * T * D, G * T * D, G * T, T * (size_t)rc_width(r), T, T, T, (history ? T + 1 : 1) * n, n, n, E, E, D };
    for (size_t i = 0; i < sizeof count / sizeof *count; w.size += count[i++])
        *array[i] = at ? at + w.size : NULL;
    return w;
}

/* x [T,D] = the rows of a head, normalised or turned. */
static void load_rows(const rc_memory *a, k_heads src, int h, double *x, double *factor)
{
    const k_recurrence *r = a->r;
    k_dnormalise_forward(r->norm, r->norm_eps, r->T, r->D, k_drow(src, a->b, h, 0), src.st, x, r->D, factor);
    for (int t = 0; r->position && t < r->T; t++)
        k_rope_row_f64(r->position, r->D, 1, r->first + t, x + (size_t)t * (size_t)r->D);
}

/* The gradient dx [T,D] of those rows, added to that of the head; dx is lost. */
static void add_rows(const rc_memory *a, k_heads dst, int h, const double *x, const double *factor, double *dx)
{
    const k_recurrence *r = a->r;
    size_t D = (size_t)r->D;
    if (!dst.p)
        return;
    k_dnormalise_backward(r->norm, r->T, r->D, x, r->D, factor, dx, r->D, dx, r->D);
    for (int t = 0; t < r->T; t++) {
        if (r->position)
            k_rope_row_f64(r->position, r->D, -1, r->first + t, dx + (size_t)t * D);
        for (size_t d = 0; d < D; d++)
            k_drow(dst, a->b, h, t)[d] += dx[(size_t)t * D + d];
    }
}

/* Decays, steps and betas of all tokens. */
static void load_gates(const rc_memory *a, ref_work w)
{
    const k_recurrence *r = a->r;
    for (int t = 0; t < r->T; t++) {
        const double *gate = k_drow(r->gate, a->b, a->h, t);
        w.step[t] = 1;
        w.beta[t] = r->write == K_WRITE_DELTA ? r->beta_max * sigmoid_f64(*k_drow(r->beta, a->b, a->h, t)) : 1;
        if (r->decay == K_DECAY_FIXED)
            w.l[t] = rc_fixed(a);
        else if (r->decay == K_DECAY_STEP) {
            w.step[t] = rc_step(a, *gate, &w.slope[t]);
            w.l[t] = -a->A * w.step[t];
        } else for (int d = 0; d < r->D; d++)
            w.l[t * r->D + d] = fmax(-softplus_f64(-gate[d]) / r->gate_normalizer, r->gate_min);
    }
}

/* Rows, gates and S_0. */
static void load(const rc_memory *a, ref_work w)
{
    const k_recurrence *r = a->r;
    size_t n = (size_t)r->D * (size_t)r->E, rows = (size_t)r->T * (size_t)r->D;
    load_rows(a, r->k, a->hk, w.k, w.rk);
    for (int g = 0; g < a->G; g++)
        load_rows(a, r->q, rc_query_head(a, g), w.q + (size_t)g * rows, w.rq + (size_t)g * (size_t)r->T);
    load_gates(a, w);
    memset(w.S, 0, n * sizeof *w.S);
    if (r->state_in)
        memcpy(w.S, (const double *)r->state_in + ((size_t)a->b * (size_t)r->H + (size_t)a->h) * n, n * sizeof *w.S);
}

/* faded [D,E] = diag(e^l_t) S, and x [E] = what token t writes into it. */
static void fade(const rc_memory *a, ref_work w, int t, const double *S)
{
    const k_recurrence *r = a->r;
    int E = r->E, width = rc_width(r), delta = r->write == K_WRITE_DELTA;
    const double *v = k_drow(r->v, a->b, a->hv, t), *k = w.k + (size_t)t * (size_t)r->D;
    memcpy(w.x, v, (size_t)E * sizeof *w.x);
    for (int d = 0; d < r->D; d++) for (int e = 0; e < E; e++) {
        w.faded[d * E + e] = exp(w.l[t * width + d % width]) * S[d * E + e];
        w.x[e] -= delta ? w.faded[d * E + e] * k[d] : 0;
    }
    for (int e = 0; e < E; e++)
        w.x[e] *= r->write == K_WRITE_STEPPED ? w.step[t] : w.beta[t];
}

/* Every token; o is written unless it is backward that asks. */
static void run(const rc_memory *a, ref_work w, int read)
{
    const k_recurrence *r = a->r;
    int D = r->D, E = r->E;
    for (int t = 0; t < r->T; t++) {
        double *S = w.S + (size_t)t * w.next, *after = S + w.next;
        fade(a, w, t, S);
        for (int d = 0; d < D; d++) for (int e = 0; e < E; e++)
            after[d * E + e] = w.faded[d * E + e] + w.k[t * D + d] * w.x[e];
        for (int g = 0; read && g < a->G; g++) {
            const double *q = w.q + ((size_t)g * (size_t)r->T + (size_t)t) * (size_t)D, *v = k_drow(r->v, a->b, a->hv, t);
            double *o = k_drow(r->o, a->b, rc_out_head(a, g), t);
            for (int e = 0; e < E; e++) {
                o[e] = 0;
                for (int d = 0; d < D; d++)
                    o[e] += r->scale * after[d * E + e] * q[d];
                o[e] += a->skip * v[e];
            }
        }
    }
}

/* Memory after memory on one scratch. */
void k_drecurrence_forward(const k_recurrence *r)
{
    size_t n = (size_t)r->D * (size_t)r->E;
    ref_work w = ref_layout(r, 0, r->scratch);
    for (int b = 0; b < r->B; b++) for (int h = 0; h < r->H; h++) {
        rc_memory a = rc_memory_of(r, b, h, 1);
        load(&a, w);
        run(&a, w, 1);
        if (r->state_out)
            memcpy((double *)r->state_out + ((size_t)b * (size_t)r->H + (size_t)h) * n, w.S, n * sizeof *w.S);
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* The reads of token t: dq, R, and past the memory dv and dd_skip. */
static void read_back(const rc_memory *a, ref_work w, int t)
{
    const k_recurrence *r = a->r;
    int E = r->E;
    const double *S = w.S + (size_t)(t + 1) * w.next, *v = k_drow(r->v, a->b, a->hv, t);
    for (int g = 0; g < a->G; g++) {
        size_t at = ((size_t)g * (size_t)r->T + (size_t)t) * (size_t)r->D;
        const double *d_o = k_drow(r->d_o, a->b, rc_out_head(a, g), t);
        for (int d = 0; d < r->D; d++) {
            w.dq[at + (size_t)d] = 0;
            for (int e = 0; e < E; e++) {
                w.dq[at + (size_t)d] += r->scale * S[d * E + e] * d_o[e];
                w.R[d * E + e] += r->scale * w.q[at + (size_t)d] * d_o[e];
            }
        }
        for (int e = 0; e < E; e++) {
            if (r->dv.p)
                k_drow(r->dv, a->b, a->hv, t)[e] += a->skip * d_o[e];
            if (r->dd_skip)
                ((double *)r->dd_skip)[a->h] += v[e] * d_o[e];
        }
    }
}

/* The write of token t: dk, dv, R of the faded memory; returns dstep or dbeta. */
static double write_back(const rc_memory *a, ref_work w, int t)
{
    const k_recurrence *r = a->r;
    int D = r->D, E = r->E, delta = r->write == K_WRITE_DELTA;
    const double *k = w.k + (size_t)t * (size_t)D, *v = k_drow(r->v, a->b, a->hv, t);
    double dfactor = 0, by = r->write == K_WRITE_STEPPED ? w.step[t] : w.beta[t];
    for (int e = 0; e < E; e++) {
        double u = v[e], dx = 0;
        for (int d = 0; d < D; d++) {
            u -= delta ? w.faded[d * E + e] * k[d] : 0;
            dx += w.R[d * E + e] * k[d];
        }
        dfactor += dx * u;
        w.dx[e] = by * dx;
        if (r->dv.p)
            k_drow(r->dv, a->b, a->hv, t)[e] += by * dx;
    }
    for (int d = 0; d < D; d++) {
        w.dk[t * D + d] = 0;
        for (int e = 0; e < E; e++) {
            w.dk[t * D + d] += w.R[d * E + e] * w.x[e] - (delta ? w.faded[d * E + e] * w.dx[e] : 0);
            w.R[d * E + e] -= delta ? k[d] * w.dx[e] : 0;
        }
    }
    return dfactor;
}

/* The fading of token t: R of the memory before it, gradients of the gates and their params. */
static void fade_back(const rc_memory *a, ref_work w, int t, double dfactor)
{
    const k_recurrence *r = a->r;
    int width = rc_width(r), E = r->E;
    double *dgate = k_drow(r->dgate, a->b, a->h, t), *dbeta = k_drow(r->dbeta, a->b, a->h, t), beta = w.beta[t];
    memset(w.dl, 0, (size_t)r->D * sizeof *w.dl);
    for (int d = 0; d < r->D; d++) for (int e = 0; e < E; e++) {
        w.dl[d % width] += w.R[d * E + e] * w.faded[d * E + e];
        w.R[d * E + e] *= exp(w.l[t * width + d % width]);
    }
    if (dbeta)
        *dbeta = dfactor * beta * (1 - beta / r->beta_max);
    if (r->decay == K_DECAY_STEP) {
        double of_gate = w.slope[t] * (-a->A * w.dl[0] + (r->write == K_WRITE_STEPPED ? dfactor : 0));
        if (dgate)
            *dgate = of_gate;
        if (r->da_log)
            ((double *)r->da_log)[a->h] += w.dl[0] * w.l[t];
        if (r->ddt_bias)
            ((double *)r->ddt_bias)[a->h] += of_gate;
    }
    for (int d = 0; dgate && r->decay == K_DECAY_CHANNEL && d < r->D; d++) {
        double gate = k_drow(r->gate, a->b, a->h, t)[d], l = -softplus_f64(-gate) / r->gate_normalizer;
        dgate[d] = l >= r->gate_min ? w.dl[d] * sigmoid_f64(-gate) / r->gate_normalizer : 0;
    }
}

/* x [B,H,T,D] = 0, if wanted: memories that share a head add to it. */
static void zero(k_heads x, int B, int H, int T, int D)
{
    for (int b = 0; x.p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(k_drow(x, b, h, t), 0, (size_t)D * sizeof(double));
}

/* Writes again with every S kept, then goes back. */
void k_drecurrence_backward(const k_recurrence *r)
{
    size_t n = (size_t)r->D * (size_t)r->E, rows = (size_t)r->T * (size_t)r->D;
    ref_work w = ref_layout(r, 1, r->scratch);
    zero(r->dq, r->B, r->Hq, r->T, r->D);
    zero(r->dk, r->B, r->Hk, r->T, r->D);
    zero(r->dv, r->B, r->Hv, r->T, r->E);
    for (int b = 0; b < r->B; b++) for (int h = 0; h < r->H; h++) {
        rc_memory a = rc_memory_of(r, b, h, 1);
        load(&a, w);
        run(&a, w, 0);
        memset(w.R, 0, n * sizeof *w.R);
        for (int t = r->T - 1; t >= 0; t--) {
            fade(&a, w, t, w.S + (size_t)t * n);
            read_back(&a, w, t);
            fade_back(&a, w, t, write_back(&a, w, t));
        }
        add_rows(&a, r->dk, a.hk, w.k, w.rk, w.dk);
        for (int g = 0; g < a.G; g++)
            add_rows(&a, r->dq, rc_query_head(&a, g), w.q + (size_t)g * rows, w.rq + (size_t)g * (size_t)r->T, w.dq + (size_t)g * rows);
        if (r->dstate)
            memcpy((double *)r->dstate + ((size_t)b * (size_t)r->H + (size_t)h) * n, w.R, n * sizeof *w.R);
    }
}

/* Doubles of the layout. */
size_t k_drecurrence_scratch(const k_recurrence *r, int backward) { return ref_layout(r, backward, NULL).size; }
