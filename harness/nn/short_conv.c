/* short_conv.c - short_conv.h: the definition in double, the kernels of kernels/conv.h in float and on the GPU.
 *
 * Backward:  dx_t = sum_tau weight[tau] * do_(t + taps - 1 - tau),  dweight[tau] = sum_t do_t * x_(t - taps + 1 + tau).
 * The decode state is the last taps - 1 tokens [B,H,taps-1,D], token p in row p mod (taps - 1). */
#include "short_conv.h"
#include "../../kernels/cuda.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const attn_opt OPTS[] = {
    { "taps", "tokens that one is made of", offsetof(nn_short_conv_opts, taps), ATTN_INT, 4, 1, 64, NULL, 0 }, { .name = NULL } };
static const attn_param PARAMS[] = { { "weight", "[H,taps,D]", 0 }, { .name = NULL } };

static k_heads heads(attn_tensor t) { return (k_heads){ t.p, t.sb, t.sh, t.st }; }

/* The problem of a call; every pointer is NULL where the call has none. */
static k_conv problem(const attn_call *c)
{
    const attn_shape *s = c->s;
    int taps = ((const nn_short_conv_opts *)c->opts)->taps;
    return (k_conv){ .B = s->B, .H = s->Hv, .T = s->Tq, .D = s->Dv, .K = taps, .left = taps - 1, .threads = c->nthreads, .dilation = 1,
                     .x = heads(c->v), .o = heads(c->o), .d_o = heads(c->d_o), .dx = heads(c->dv), .weight = c->param[0], .dweight = c->dparam[0] };
}

/* Tokens that decode keeps: no more than a sequence has. */
static int64_t kept(const attn_shape *s, const void *opts)
{
    int64_t taps = ((const nn_short_conv_opts *)opts)->taps;
    return taps - 1 < s->Tk ? taps - 1 : s->Tk;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    int taps = ((const nn_short_conv_opts *)opts)->taps;
    double numbers = (double)s->B * s->Hv * s->Tq * s->Dv, bound = 1 / sqrt(taps), each = (double)k_dtype_size((k_dtype)s->dtype);
    p->param_dims[0] = (attn_dims){ 3, { s->Hv, taps, s->Dv } };
    p->param_init[0] = (attn_init){ ATTN_INIT_UNIFORM, -bound, bound };
    p->state = (size_t)s->B * (size_t)s->Hv * (size_t)kept(s, opts) * (size_t)s->Dv * k_dtype_size((k_dtype)s->dtype);
    if (!p->state)
        p->state = 1;                   /* one tap needs no memory; 0 would mean that there is no decoding */
    p->flops_fwd = 2 * numbers * taps;
    p->flops_bwd = 2 * p->flops_fwd;
    p->bytes_fwd = 2 * numbers * each;
    p->bytes_bwd = 3 * numbers * each;
    return ATTN_OK;
}

/* ---- the definition ---------------------------------------------------------------------------------------------- */

/* Visits every token t of (b,h) with every tap tau that reads one, j: y_t += w x_j; with back y_j += w x_t; with dw
 * dw += y_t x_j. */
static void ref_head(const attn_call *c, int b, int h, k_heads x, k_heads y, int back, double *dw)
{
    const k_conv p = problem(c);
    const double *w = (const double *)c->param[0] + (int64_t)h * p.K * p.D;
    for (int64_t t = 0; t < p.T; t++)
        for (int tau = 0; tau < p.K; tau++) {
            int64_t j = t + k_conv_shift(&p, tau), to = back ? j : t, from = back ? t : j;
            for (int d = 0; j >= 0 && d < p.D; d++)
                if (dw)
                    dw[((int64_t)h * p.K + tau) * p.D + d] += k_drow(y, b, h, to)[d] * k_drow(x, b, h, from)[d];
                else
                    k_drow(y, b, h, to)[d] += w[tau * p.D + d] * k_drow(x, b, h, from)[d];
        }
}

/* y [B,H,T,D] = the convolution of x, or with back the transposed one. */
static void ref_whole(const attn_call *c, attn_tensor x, attn_tensor y, int back)
{
    for (int b = 0; b < c->s->B; b++)
        for (int h = 0; h < c->s->Hv; h++) {
            for (int64_t t = 0; t < c->s->Tq; t++)
                memset(k_drow(heads(y), b, h, t), 0, (size_t)c->s->Dv * sizeof(double));
            ref_head(c, b, h, heads(x), heads(y), back, NULL);
        }
}

static int ref_forward(const attn_call *c) { return ref_whole(c, c->v, c->o, 0), ATTN_OK; }

static int ref_backward(const attn_call *c)
{
    if (c->dv.p)
        ref_whole(c, c->d_o, c->dv, 1);
    for (int b = 0; c->dparam[0] && b < c->s->B; b++)
        for (int h = 0; h < c->s->Hv; h++)
            ref_head(c, b, h, heads(c->v), heads(c->d_o), 0, c->dparam[0]);
    return ATTN_OK;
}

/* ---- fast ----------------------------------------------------------------------------------------------------------- */

static int cpu_forward(const attn_call *c) { k_conv p = problem(c); return k_conv_forward(&p), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_conv p = problem(c); return k_conv_backward(&p), ATTN_OK; }

/* ---- decode: one token after the other ------------------------------------------------------------------------------ */

/* o[D] += W_tau x[D] of head h, in double. */
static void ref_tap(const attn_call *c, const k_conv *p, int h, int tau, const double *x, double *o)
{
    const double *w = (const double *)c->param[0] + ((int64_t)h * p->K + tau) * p->D;
    for (int d = 0; d < p->D; d++)
        o[d] += w[d] * x[d];
}

/* The new tokens of head h of sequence b: each reads the ring of rows, then takes the place of the oldest. */
static void decode_head(const attn_call *c, const k_conv *p, int b, int h)
{
    size_t number = k_dtype_size((k_dtype)c->s->dtype), bytes = (size_t)p->D * number;
    int64_t rows = kept(c->s, c->opts);
    char *ring = (char *)c->state + ((size_t)b * (size_t)p->H + (size_t)h) * (size_t)rows * bytes;
    for (int t = 0; t < p->T; t++) {
        int64_t now = c->pos + t;
        const char *x = (const char *)c->v.p + (b * c->v.sb + h * c->v.sh + t * c->v.st) * (int64_t)number;
        char *o = (char *)c->o.p + (b * c->o.sb + h * c->o.sh + t * c->o.st) * (int64_t)number;
        memset(o, 0, bytes);
        for (int tau = 0; tau < p->K; tau++) {
            int64_t j = now + k_conv_shift(p, tau);
            const void *read = j == now ? x : j < 0 ? NULL : ring + (size_t)(j % rows) * bytes;
            if (read && c->s->dtype == ATTN_F64)
                ref_tap(c, p, h, tau, read, (void *)o);
            else if (read)
                k_conv_tap(p, h, tau, read, (void *)o);
        }
        if (rows)
            memcpy(ring + (size_t)(now % rows) * bytes, x, bytes);
    }
}

static int decode(const attn_call *c)
{
    k_conv p = problem(c);
    for (int b = 0; b < p.B; b++)
        for (int h = 0; h < p.H; h++)
            decode_head(c, &p, b, h);
    return ATTN_OK;
}

/* ---- on the GPU: kernels that need no memory, with the state of the CPU ------------------------------------------------- */

static int queued(int code) { return code ? ATTN_EDEVICE : ATTN_OK; }

static int cuda_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    if (K_CUDA(conv))
        return plan(s, opts, p);
    snprintf(p->why, sizeof p->why, "this build has no CUDA half");
    return ATTN_EUNSUP;
}

static int cuda_forward(const attn_call *c) { k_conv p = problem(c); return queued(K_CUDA(conv)->forward(&p, (k_dtype)c->s->dtype, c->stream)); }
static int cuda_backward(const attn_call *c) { k_conv p = problem(c); return queued(K_CUDA(conv)->backward(&p, (k_dtype)c->s->dtype, c->stream)); }

static int cuda_decode(const attn_call *c)
{
    k_conv p = problem(c);
    return queued(K_CUDA(conv)->decode(&p, (k_dtype)c->s->dtype, c->state, c->pos, c->s->Tk, c->stream));
}

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, plan, ref_forward, ref_backward, decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, plan, cpu_forward, cpu_backward, decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL } };
const attn_variant nn_short_conv = {
    .size = sizeof nn_short_conv, .name = "short_conv", .title = "Short convolution", .cost = "T K D", .flags = ATTN_NO_Q | ATTN_NO_K,
    .opts_size = sizeof(nn_short_conv_opts), .opts = OPTS, .params = PARAMS, .impls = IMPLS };
