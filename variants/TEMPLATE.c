/* (1) A working variant in one file.  `harness new NAME` copies it under your name into a folder of its own, where
 *     make check says after every change whether it is right; make builds a copy in variants/ with the tree.
 *
 * (2) Say what is computed, as a formula, and by whom.
 * template - a running average whose forgetting a gate decides (an example, from no paper).
 *
 *   a_t = sigmoid(f_t + bias_h)                       f: the gate "forget", bias: the param "bias"
 *   S_t = a_t S_{t-1} + k_t v_t'                      S_0 = initial_state or 0
 *   o_t = scale S_t' q_t                              mode cross: every query reads the last S
 *
 * Backward, with g_t = d_o_t and R = dL/dS_t, from the last token to the first:
 *   R += scale q_t g_t',  dq_t = scale S_t g_t,
 *   dk_t = R v_t,  dv_t = R' k_t,  da_t = sum(R o S_{t-1}),  R <- a_t R,
 *   df_t = a_t (1 - a_t) da_t,  dbias_h = sum of df_t. */
#include "attn.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* (3) Options are fields of one struct, set and range-checked by the host.  Gates are inputs per token,
 *     params are learned tensors, states are what one call may hand to the next. */
typedef struct { double scale; } options;
static const attn_opt OPTS[] = {
    { "scale", "multiplier of the output; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { .name = NULL }
};
static const attn_gate GATES[] = { { "forget", "logit of what is kept" }, { .name = NULL } };
static const attn_param PARAMS[] = { { "bias", "added to the logit, per head", ATTN_NO_DECAY }, { .name = NULL } };
static const attn_state STATES[] = { { "state", "S [B,H,Dk,Dv]" }, { .name = NULL } };

#define ROW(t, b, h, i) ((double *)(t).p + (b) * (t).sb + (h) * (t).sh + (i) * (t).st)

/* [cold] Refuse what is not defined and give the sizes of all that is named above. */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    const char *why = NULL;
    if (s->Hq != s->Hk)
        why = "needs as many key heads as query heads";
    else if (s->klen)
        why = "key lengths are not defined";
    else if (s->mode == ATTN_CAUSAL && (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk))
        why = "causal needs as many queries as keys";
    if (why) {
        snprintf(p->why, sizeof p->why, "%s", why);
        return ATTN_EUNSUP;
    }
    size_t S = (size_t)s->Dk * (size_t)s->Dv * sizeof(double), heads = (size_t)s->B * (size_t)s->Hq;
    p->gate_width[0] = 1;
    p->param_dims[0] = (attn_dims){ 1, { s->Hk } };
    p->param_init[0] = (attn_init){ ATTN_INIT_CONST, 3, 0 };
    p->state_dims[0] = (attn_dims){ 4, { s->B, s->Hk, s->Dk, s->Dv } };
    p->saved = s->training ? heads * S * ((size_t)s->Tk + 1) : 0;      /* every S_t, S_0 too */
    p->scratch_fwd = p->scratch_bwd = S;
    p->state = heads * S;
    p->flops_fwd = (3.0 * s->Tk + 2.0 * s->Tq) * (double)heads * s->Dk * s->Dv;    /* per entry of S: decay and write, read */
    p->flops_bwd = (7.0 * s->Tk + 4.0 * s->Tq) * (double)heads * s->Dk * s->Dv;
    return ATTN_OK;
}

/* a_t of (b,h). */
static double keep(const attn_call *c, int b, int h, int t)
{
    return 1 / (1 + exp(-ROW(c->gate[0], b, h, t)[0] - ((const double *)c->param[0])[h]));
}

/* The multiplier of the output. */
static double scale_of(const attn_call *c)
{
    double scale = ((const options *)c->opts)->scale;
    return scale > 0 ? scale : 1 / sqrt(c->s->Dk);
}

/* (4) Forward in the plain way, in numbered passes ...
 * 1. Token t is written: S [Dk,Dv] = a S + k v'. */
static void write_token(const attn_call *c, int b, int h, int t, double *S)
{
    int D = c->s->Dk, E = c->s->Dv;
    const double *k = ROW(c->k, b, h, t), *v = ROW(c->v, b, h, t);
    double a = keep(c, b, h, t);
    for (int d = 0; d < D; d++) for (int e = 0; e < E; e++)
        S[d * E + e] = a * S[d * E + e] + k[d] * v[e];
}

/* 2. Query i reads: o = scale S' q. */
static void read_query(const attn_call *c, int b, int h, int i, const double *S)
{
    int D = c->s->Dk, E = c->s->Dv;
    const double *q = ROW(c->q, b, h, i);
    double *o = ROW(c->o, b, h, i), scale = scale_of(c);
    for (int e = 0; e < E; e++) {
        o[e] = 0;
        for (int d = 0; d < D; d++)
            o[e] += scale * S[d * E + e] * q[d];
    }
}

/* Head by head, token by token. */
static int forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    size_t n = (size_t)s->Dk * (size_t)s->Dv, bytes = n * sizeof(double);
    double *S = c->scratch;                                             /* [Dk,Dv] */
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) {
        size_t head = (size_t)b * (size_t)s->Hq + (size_t)h;
        double *saved = c->saved ? (double *)c->saved + head * ((size_t)s->Tk + 1) * n : NULL;     /* [Tk+1,Dk,Dv] */
        if (c->state_in[0])
            memcpy(S, (const double *)c->state_in[0] + head * n, bytes);
        else
            memset(S, 0, bytes);
        for (int t = 0; t < s->Tk; t++) {
            if (saved)
                memcpy(saved + (size_t)t * n, S, bytes);
            write_token(c, b, h, t, S);
            if (s->mode == ATTN_CAUSAL)
                read_query(c, b, h, t, S);
        }
        for (int i = 0; s->mode == ATTN_CROSS && i < s->Tq; i++)
            read_query(c, b, h, i, S);
        if (saved)
            memcpy(saved + (size_t)s->Tk * n, S, bytes);
        if (c->state_out[0])
            memcpy((double *)c->state_out[0] + head * n, S, bytes);
    }
    return ATTN_OK;
}

/* ... then backward, the same passes from last to first.  S: before the token, N: after it, R [Dk,Dv]: dL/dN,
 * which becomes dL/dS.  A gradient whose pointer is NULL is not wanted; dparam is added to, the others overwritten.
 * 2. o = scale N' q. */
static void read_back(const attn_call *c, int b, int h, int i, const double *N, double *R)
{
    int D = c->s->Dk, E = c->s->Dv;
    const double *q = ROW(c->q, b, h, i), *g = ROW(c->d_o, b, h, i);
    double scale = scale_of(c);
    for (int d = 0; d < D; d++) {
        double dq = 0;
        for (int e = 0; e < E; e++) {
            dq += scale * N[d * E + e] * g[e];
            R[d * E + e] += scale * q[d] * g[e];
        }
        if (c->dq.p)
            ROW(c->dq, b, h, i)[d] = dq;
    }
}

/* 1. N = a S + k v'. */
static void write_back(const attn_call *c, int b, int h, int t, const double *S, double *R)
{
    int D = c->s->Dk, E = c->s->Dv;
    const double *k = ROW(c->k, b, h, t), *v = ROW(c->v, b, h, t);
    double a = keep(c, b, h, t), da = 0;
    for (int e = 0; c->dv.p && e < E; e++)
        ROW(c->dv, b, h, t)[e] = 0;
    for (int d = 0; d < D; d++) {
        double dk = 0;
        for (int e = 0; e < E; e++) {
            dk += R[d * E + e] * v[e];
            da += R[d * E + e] * S[d * E + e];
            if (c->dv.p)
                ROW(c->dv, b, h, t)[e] += R[d * E + e] * k[d];
            R[d * E + e] *= a;
        }
        if (c->dk.p)
            ROW(c->dk, b, h, t)[d] = dk;
    }
    if (c->dgate[0].p)
        ROW(c->dgate[0], b, h, t)[0] = a * (1 - a) * da;
    if (c->dparam[0])
        ((double *)c->dparam[0])[h] += a * (1 - a) * da;
}

/* Head by head, from the last token; R ends as the gradient of the initial state. */
static int backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    size_t n = (size_t)s->Dk * (size_t)s->Dv;
    double *R = c->scratch;                                             /* [Dk,Dv] */
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) {
        size_t head = (size_t)b * (size_t)s->Hq + (size_t)h;
        const double *S = (const double *)c->saved + head * ((size_t)s->Tk + 1) * n;
        memset(R, 0, n * sizeof *R);
        for (int i = 0; s->mode == ATTN_CROSS && i < s->Tq; i++)
            read_back(c, b, h, i, S + (size_t)s->Tk * n, R);
        for (int t = s->Tk - 1; t >= 0; t--) {
            if (s->mode == ATTN_CAUSAL)
                read_back(c, b, h, t, S + ((size_t)t + 1) * n, R);
            write_back(c, b, h, t, S + (size_t)t * n, R);
        }
        if (c->dstate_in[0])
            memcpy((double *)c->dstate_in[0] + head * n, R, n * sizeof *R);
    }
    return ATTN_OK;
}

/* Tq new tokens on the state S [B,H,Dk,Dv], which the host zeroes before token 0. */
static int decode(const attn_call *c)
{
    const attn_shape *s = c->s;
    size_t n = (size_t)s->Dk * (size_t)s->Dv;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++) {
        double *S = (double *)c->state + ((size_t)b * (size_t)s->Hq + (size_t)h) * n;
        write_token(c, b, h, t, S);
        read_query(c, b, h, t, S);
    }
    return ATTN_OK;
}

/* (5) The ways to compute it (the first is the double reference; a fast one may follow later), and the export. */
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL | ATTN_CROSS, 0, plan, forward, backward, decode },
    { .name = NULL }
};
static const attn_variant VARIANT = {
    .size = sizeof VARIANT, .name = "template", .title = "Running average with forgetting", .paper = "",
    .cost = "T Dk Dv", .opts_size = sizeof(options), .opts = OPTS, .gates = GATES, .params = PARAMS, .states = STATES,
    .impls = IMPLS
};
ATTN_EXPORT(&VARIANT);
