/* softmax - scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).
 *
 *   o_i = sum_j p_ij v_j,   p_i = softmax over j in A_i of s_ij,   s_ij = scale q_i.k_j - slope_h |p_i - j|
 *
 * A_i: all keys, or j <= p_i = i + Tk - Tq when causal, below klen; no key gives output 0.  With position
 * rope q and k are turned by their positions first, with alibi slope_h > 0.  Several query heads may share a
 * key head (GQA, MQA).  Saved: the row log-sum-exp, one number per (b,h,i).
 *
 * Backward, with g_i = d_o_i and D_i = g_i.o_i:  dv_j = sum_i p_ij g_i,  ds_ij = p_ij (g_i.v_j - D_i),
 * dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i, turned back by the positions.
 *
 * "ref" below is the definition; "cpu" is kernels/flash.h. */
#include "attn.h"
#include "../kernels/flash.h"
#include "../kernels/rope.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { double scale; k_position position; } options;
static const attn_opt OPTS[] = {
    { "scale", "multiplier of the scores; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    K_POSITION_OPTIONS(options, position),
    { .name = NULL }
};

/* ---- shared by both ---------------------------------------------------------------------------------- */

/* The multiplier of the scores. */
static double scale_of(const attn_call *c)
{
    double scale = ((const options *)c->opts)->scale;
    return scale > 0 ? scale : 1 / sqrt(c->s->Dk);
}
/* How positions enter. */
static const k_position *position_of(const attn_call *c) { return &((const options *)c->opts)->position; }

/* Keys that query i of batch row b sees: a prefix in every mode. */
static int visible(const attn_call *c, int b, int i)
{
    const attn_shape *s = c->s;
    int n = s->mode == ATTN_CAUSAL ? i + s->Tk - s->Tq + 1 : s->Tk;
    n = c->klen && c->klen[b] < n ? c->klen[b] : n;
    return n > 0 ? n : 0;
}

/* What both impls plan; number: bytes of one number. */
static int plan_common(const attn_shape *s, const options *o, size_t number, attn_plan *p)
{
    const char *why = k_position_refusal(&o->position, s->Dk, s->mode == ATTN_CROSS);
    if (!why && s->mode == ATTN_BIDIR && s->Tq != s->Tk)
        why = "bidirectional attention needs Tq == Tk";
    if (why) {
        snprintf(p->why, sizeof p->why, "%s", why);
        return ATTN_EUNSUP;
    }
    p->saved = s->training ? (size_t)s->B * s->Hq * s->Tq * number : 0;
    p->state = (size_t)s->B * s->Hk * s->Tk * (s->Dk + s->Dv) * number;
    /* Rule: q.k and p v over the visible pairs; backward recomputes q.k and adds four products (2.5 times).
     * Traffic: inputs and outputs once each way, backward reads q k v o d_o and writes dq dk dv. */
    double T = s->Tk < s->Tq ? s->Tk : s->Tq;
    double pairs = s->mode == ATTN_CAUSAL ? T * s->Tk - T * (T - 1) / 2 : (double)s->Tq * s->Tk;
    double in = (double)s->B * ((double)s->Hq * s->Tq * s->Dk + (double)s->Hk * s->Tk * (s->Dk + s->Dv));
    double out = (double)s->B * s->Hq * s->Tq * s->Dv;
    p->flops_fwd = 2.0 * s->B * s->Hq * pairs * (s->Dk + s->Dv);
    p->flops_bwd = 2.0 * s->B * s->Hq * pairs * (3.0 * s->Dk + 2.0 * s->Dv);
    p->bytes_fwd = (in + out) * (double)number;
    p->bytes_bwd = (2 * in + 2 * out) * (double)number;
    return ATTN_OK;
}

/* ---- the reference ------------------------------------------------------------------------------------ */

#define ROW(t, b, h, i) ((double *)(t).p + (b) * (t).sb + (h) * (t).sh + (i) * (t).st)

typedef struct { double *K, *dK, *q, *dq, *p; } work;     /* [Tk,Dk] [Tk,Dk] [Dk] [Dk] [Tk], turned */

/* Parts of the scratch. */
static work work_of(const attn_call *c)
{
    size_t keys = (size_t)c->s->Tk * (size_t)c->s->Dk, D = (size_t)c->s->Dk;
    double *at = c->scratch;
    return (work){ at, at + keys, at + 2 * keys, at + 2 * keys + D, at + 2 * keys + 2 * D };
}

/* [cold] */
static int ref_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    p->scratch_fwd = (2 * (size_t)s->Dk * (s->Tk + 1) + s->Tk) * sizeof(double);
    p->scratch_bwd = p->scratch_dec = p->scratch_fwd;
    return plan_common(s, opts, sizeof(double), p);
}

/* x.y of n elements. */
static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * y[d];
    return sum;
}

/* K [Tk,Dk] = the keys of (b, key head h), turned by their positions. */
static void load_keys(const attn_call *c, int b, int h, double *K)
{
    int D = c->s->Dk;
    for (int j = 0; j < c->s->Tk; j++) {
        memcpy(K + (size_t)j * D, ROW(c->k, b, h, j), (size_t)D * sizeof *K);
        k_rope_row_f64(position_of(c), D, 1, j, K + (size_t)j * D);
    }
}

/* q [Dk] = query i, turned; p [n] = its scores over the visible keys; returns n. */
static int scores(const attn_call *c, int b, int h, int i, work w)
{
    const attn_shape *s = c->s;
    int n = visible(c, b, i), pos = i + s->Tk - s->Tq;
    double slope = k_alibi_slope(position_of(c), h, s->Hq);
    memcpy(w.q, ROW(c->q, b, h, i), (size_t)s->Dk * sizeof *w.q);
    k_rope_row_f64(position_of(c), s->Dk, 1, pos, w.q);
    for (int j = 0; j < n; j++)
        w.p[j] = scale_of(c) * dot(s->Dk, w.q, w.K + (size_t)j * s->Dk) - slope * abs(pos - j);
    return n;
}

/* o_i of one row; returns the log-sum-exp. */
static double forward_row(const attn_call *c, int b, int h, int i, work w)
{
    const attn_shape *s = c->s;
    int n = scores(c, b, h, i, w);
    double *o = ROW(c->o, b, h, i), top = -INFINITY, sum = 0;
    for (int d = 0; d < s->Dv; d++)
        o[d] = 0;
    for (int j = 0; j < n; j++)
        top = fmax(top, w.p[j]);
    for (int j = 0; j < n; j++)
        sum += exp(w.p[j] - top);
    double lse = n ? top + log(sum) : -INFINITY;
    for (int j = 0; j < n; j++) {
        const double *v = ROW(c->v, b, h * s->Hk / s->Hq, j);
        for (int d = 0; d < s->Dv; d++)
            o[d] += exp(w.p[j] - lse) * v[d];
    }
    return lse;
}

/* Row by row; the log-sum-exp is kept when wanted. */
static int ref_forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    work w = work_of(c);
    double *lse = c->saved;             /* [B,Hq,Tq] */
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) {
        load_keys(c, b, h * s->Hk / s->Hq, w.K);
        for (int i = 0; i < s->Tq; i++) {
            double l = forward_row(c, b, h, i, w);
            if (lse)
                lse[((size_t)b * s->Hq + h) * s->Tq + i] = l;
        }
    }
    return ATTN_OK;
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(attn_tensor x, int B, int H, int T, int D)
{
    if (!x.p)
        return;
    for (int b = 0; b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(ROW(x, b, h, t), 0, (size_t)D * sizeof(double));
}

/* Row i of dq, and what it adds to dK and dv. */
static void backward_row(const attn_call *c, int b, int h, int i, work w)
{
    const attn_shape *s = c->s;
    int n = scores(c, b, h, i, w), D = s->Dk, hk = h * s->Hk / s->Hq;
    double lse = ((const double *)c->saved)[((size_t)b * s->Hq + h) * s->Tq + i];
    const double *g = ROW(c->d_o, b, h, i);
    double delta = dot(s->Dv, g, ROW(c->o, b, h, i));
    memset(w.dq, 0, (size_t)D * sizeof *w.dq);
    for (int j = 0; j < n; j++) {
        double p = exp(w.p[j] - lse), ds = scale_of(c) * p * (dot(s->Dv, g, ROW(c->v, b, hk, j)) - delta);
        for (int d = 0; d < D; d++) {
            w.dq[d] += ds * w.K[(size_t)j * D + d];
            w.dK[(size_t)j * D + d] += ds * w.q[d];
        }
        for (int d = 0; c->dv.p && d < s->Dv; d++)
            ROW(c->dv, b, hk, j)[d] += p * g[d];
    }
    if (!c->dq.p)
        return;
    k_rope_row_f64(position_of(c), D, -1, i + s->Tk - s->Tq, w.dq);
    memcpy(ROW(c->dq, b, h, i), w.dq, (size_t)D * sizeof *w.dq);
}

/* Row by row; dK is gathered per query head and turned back before it is added to dk. */
static int ref_backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    int D = s->Dk;
    work w = work_of(c);
    zero(c->dk, s->B, s->Hk, s->Tk, D);
    zero(c->dv, s->B, s->Hk, s->Tk, s->Dv);
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) {
        load_keys(c, b, h * s->Hk / s->Hq, w.K);
        memset(w.dK, 0, (size_t)s->Tk * (size_t)D * sizeof *w.dK);
        for (int i = 0; i < s->Tq; i++)
            backward_row(c, b, h, i, w);
        for (int j = 0; c->dk.p && j < s->Tk; j++) {
            k_rope_row_f64(position_of(c), D, -1, j, w.dK + (size_t)j * D);
            for (int d = 0; d < D; d++)
                ROW(c->dk, b, h * s->Hk / s->Hq, j)[d] += w.dK[(size_t)j * D + d];
        }
    }
    return ATTN_OK;
}

/* State: key and value rows so far, [B,Hk,capacity,Dk+Dv].  Decoding is causal attention over that cache. */
static int ref_decode(const attn_call *c)
{
    const attn_shape *s = c->s;
    int width = s->Dk + s->Dv;
    int64_t sh = (int64_t)s->Tk * width;
    attn_shape now = *s;
    attn_call f = *c;
    now.Tk = (int)c->pos + s->Tq;
    now.mode = ATTN_CAUSAL;
    f.s = &now;
    f.saved = NULL;
    f.k = (attn_tensor){ c->state, sh * s->Hk, sh, width };
    f.v = (attn_tensor){ (double *)c->state + s->Dk, sh * s->Hk, sh, width };
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hk; h++) for (int t = 0; t < s->Tq; t++) {
        memcpy(ROW(f.k, b, h, c->pos + t), ROW(c->k, b, h, t), (size_t)s->Dk * sizeof(double));
        memcpy(ROW(f.v, b, h, c->pos + t), ROW(c->v, b, h, t), (size_t)s->Dv * sizeof(double));
    }
    return ref_forward(&f);
}
#undef ROW

/* ---- float: everything is in kernels/flash.h ------------------------------------------------------------ */

/* The same tensor, as kernels call it. */
static k_heads heads(attn_tensor t) { return (k_heads){ t.p, t.sb, t.sh, t.st }; }

/* The problem of this shape, without tensors. */
static k_attention problem_of(const attn_shape *s, const options *o)
{
    return (k_attention){ .B = s->B, .Hq = s->Hq, .Hk = s->Hk, .Tq = s->Tq, .Tk = s->Tk, .Dk = s->Dk, .Dv = s->Dv,
                          .causal = s->mode == ATTN_CAUSAL, .position = &o->position };
}

/* [cold] */
static int cpu_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_attention a = problem_of(s, opts);
    p->scratch_fwd = p->scratch_bwd = p->scratch_dec = k_attention_scratch(&a) * sizeof(float);
    return plan_common(s, opts, sizeof(float), p);
}

/* The problem of a call. */
static k_attention problem_from(const attn_call *c)
{
    k_attention a = problem_of(c->s, c->opts);
    a.threads = c->nthreads;
    a.scale = scale_of(c);
    a.q = heads(c->q), a.k = heads(c->k), a.v = heads(c->v), a.o = heads(c->o);
    a.d_o = heads(c->d_o), a.dq = heads(c->dq), a.dk = heads(c->dk), a.dv = heads(c->dv);
    a.klen = c->klen;
    a.lse = c->saved;
    a.scratch = c->scratch;
    return a;
}

/* Both passes hand the problem on. */
static int cpu_forward(const attn_call *c) { k_attention a = problem_from(c); return k_attention_forward(&a), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_attention a = problem_from(c); return k_attention_backward(&a), ATTN_OK; }

/* The same state, its keys already turned. */
static int cpu_decode(const attn_call *c)
{
    k_attention a = problem_from(c);
    a.Tk = a.Tq;
    a = k_attention_append(&a, c->state, c->pos, c->s->Tk);
    k_attention_forward(&a);
    return ATTN_OK;
}

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, ref_plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },
    { .name = NULL }
};
static const attn_variant SOFTMAX = {
    .size = sizeof SOFTMAX, .name = "softmax", .title = "Softmax attention", .paper = "arXiv:1706.03762",
    .cost = "T^2 (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS
};
ATTN_EXPORT(&SOFTMAX);
