/* mirrored.c - a variant whose second implementation claims to run on a GPU, in float and bfloat16, but needs none.
 *
 *   o_i = sum_{j<=i} (q_i . k_j) g_j v_j * amp
 *
 * `harness check --device mirror` calls it as it calls a GPU: every buffer is a copy in another device's memory, which
 * here is the CPU's.  tests/conform/device.sh breaks it in many ways. */
#include <string.h>
#include "attn.h"

static const attn_gate GATES[] = { { "g", "weight of a token" }, { .name = NULL } };
static const attn_param PARAMS[] = { { "amp", "multiplier", 0 }, { .name = NULL } };

/* ---- numbers of any dtype ------------------------------------------------------------------------------- */
static float from_bf16(uint16_t x) { uint32_t u = (uint32_t)x << 16; float f; memcpy(&f, &u, sizeof f); return f; }
static uint16_t to_bf16(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16); }

static double get(const void *p, int dtype, int64_t i)
{
    return dtype == ATTN_F64 ? ((const double *)p)[i] : dtype == ATTN_F32 ? ((const float *)p)[i] : from_bf16(((const uint16_t *)p)[i]);
}

static void put(void *p, int dtype, int64_t i, double x)
{
    if (dtype == ATTN_F64) ((double *)p)[i] = x;
    else if (dtype == ATTN_F32) ((float *)p)[i] = (float)x;
    else ((uint16_t *)p)[i] = to_bf16((float)x);
}

static int64_t at(const attn_tensor *x, int b, int h, int64_t t) { return b * x->sb + h * x->sh + t * x->st; }

/* What an intermediate is kept in. */
static double kept(int dtype, double x) { return dtype == ATTN_BF16 ? from_bf16(to_bf16((float)x)) : x; }

static double dot(const attn_tensor *x, int64_t i, const attn_tensor *y, int64_t j, int n, int dtype)
{
    double sum = 0;
    for (int d = 0; d < n; d++) sum += get(x->p, dtype, i + d) * get(y->p, dtype, j + d);
    return kept(dtype, sum);
}

/* params are float unless the call is in double */
static int wide(int dtype) { return dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

/* ---- the variant ------------------------------------------------------------------------------------------ */
/* Numbers of dq, dk, dv and dg. */
static size_t sums(const attn_shape *s)
{
    return (size_t)s->B * ((size_t)s->Hq * s->Tq * s->Dk + (size_t)s->Hk * s->Tk * (s->Dk + s->Dv + 1));
}

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    const char *why = s->klen ? "no key lengths" : s->dtype != ATTN_F64 && s->Dk % 4 ? "Dk must be a multiple of 4" :
                      s->training && s->Tq != s->Tk ? "Tq must be Tk" : NULL;
    if (why) { strcpy(p->why, why); return ATTN_EUNSUP; }
    p->saved = s->training ? sizeof(float) : 0;
    p->scratch_fwd = sizeof(double) * (size_t)s->Dv;
    p->scratch_bwd = sizeof(double) * sums(s);
    p->state = sizeof(double) * (size_t)s->B * s->Hq * s->Dk * s->Dv;
    p->gate_width[0] = 1;
    p->param_dims[0] = (attn_dims){ 1, { 1 } };
    p->param_init[0] = (attn_init){ ATTN_INIT_CONST, 1, 0 };
    return ATTN_OK;
}

static double amp_of(const attn_call *c) { return get(c->param[0], wide(c->s->dtype), 0); }

static int forward_with(const attn_call *c, double amp)
{
    const attn_shape *s = c->s;
    const int dtype = s->dtype;
    double *sum = c->scratch;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int i = 0; i < s->Tq; i++) {
        int hk = h * s->Hk / s->Hq, last = i + s->Tk - s->Tq;
        for (int e = 0; e < s->Dv; e++) sum[e] = 0;
        for (int j = 0; j <= last; j++) {
            double w = dot(&c->q, at(&c->q, b, h, i), &c->k, at(&c->k, b, hk, j), s->Dk, dtype) * get(c->gate[0].p, dtype, at(&c->gate[0], b, hk, j));
            for (int e = 0; e < s->Dv; e++) sum[e] += w * get(c->v.p, dtype, at(&c->v, b, hk, j) + e);
        }
        for (int e = 0; e < s->Dv; e++) put(c->o.p, dtype, at(&c->o, b, h, i) + e, amp * sum[e]);
    }
    if (c->saved) *(float *)c->saved = (float)amp;
    return ATTN_OK;
}

/* Sums in double and rounds them once: dense [B,H,T,W] of doubles into a gradient. */
static void hand_over(const attn_tensor *t, int dtype, const double *x, int B, int H, int T, int W)
{
    for (int b = 0; t->p && b < B; b++) for (int h = 0; h < H; h++) for (int i = 0; i < T; i++) for (int w = 0; w < W; w++)
        put(t->p, dtype, at(t, b, h, i) + w, *x++);
}

/* With w_ij = q_i.k_j:  dv_j = sum_i amp w g_j do_i,  dg_j = sum_i amp w do_i.v_j,  dw = amp g_j do_i.v_j. */
static int backward_with(const attn_call *c, double amp)
{
    const attn_shape *s = c->s;
    const int dtype = s->dtype;
    double damp = 0;
    int64_t nq = (int64_t)s->B * s->Hq * s->Tq * s->Dk, nk = (int64_t)s->B * s->Hk * s->Tk * s->Dk, nv = (int64_t)s->B * s->Hk * s->Tk * s->Dv;
    double *dq = c->scratch, *dk = dq + nq, *dv = dk + nk, *dg = dv + nv;
    memset(dq, 0, sizeof *dq * sums(s));
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int i = 0; i < s->Tq; i++) for (int j = 0; j <= i; j++) {
        int hk = h * s->Hk / s->Hq;
        int64_t q = at(&c->q, b, h, i), k = at(&c->k, b, hk, j), row = ((int64_t)b * s->Hk + hk) * s->Tk + j;
        double g = get(c->gate[0].p, dtype, at(&c->gate[0], b, hk, j)), w = dot(&c->q, q, &c->k, k, s->Dk, dtype);
        double dov = dot(&c->d_o, at(&c->d_o, b, h, i), &c->v, at(&c->v, b, hk, j), s->Dv, dtype), dw = kept(dtype, amp * g * dov);
        for (int d = 0; d < s->Dk; d++) {
            dq[(((int64_t)b * s->Hq + h) * s->Tq + i) * s->Dk + d] += dw * get(c->k.p, dtype, k + d);
            dk[row * s->Dk + d] += dw * get(c->q.p, dtype, q + d);
        }
        for (int e = 0; e < s->Dv; e++) dv[row * s->Dv + e] += amp * w * g * get(c->d_o.p, dtype, at(&c->d_o, b, h, i) + e);
        dg[row] += amp * w * dov;
        damp += w * g * dov;
    }
    hand_over(&c->dq, dtype, dq, s->B, s->Hq, s->Tq, s->Dk);
    hand_over(&c->dk, dtype, dk, s->B, s->Hk, s->Tk, s->Dk);
    hand_over(&c->dv, dtype, dv, s->B, s->Hk, s->Tk, s->Dv);
    hand_over(&c->dgate[0], dtype, dg, s->B, s->Hk, s->Tk, 1);
    if (c->dparam[0]) put(c->dparam[0], wide(dtype), 0, get(c->dparam[0], wide(dtype), 0) + damp);
    return ATTN_OK;
}

/* State: S [B,Hq,Dk,Dv] = sum g k v^T. */
static int decode(const attn_call *c)
{
    const attn_shape *s = c->s;
    const int dtype = s->dtype;
    double amp = amp_of(c), *S = c->state;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++, S += s->Dk * s->Dv) for (int t = 0; t < s->Tq; t++) {
        int hk = h * s->Hk / s->Hq;
        double g = get(c->gate[0].p, dtype, at(&c->gate[0], b, hk, t));
        for (int e = 0; e < s->Dv; e++) {
            double sum = 0;
            for (int d = 0; d < s->Dk; d++) {
                S[d * s->Dv + e] += g * get(c->k.p, dtype, at(&c->k, b, hk, t) + d) * get(c->v.p, dtype, at(&c->v, b, hk, t) + e);
                sum += get(c->q.p, dtype, at(&c->q, b, h, t) + d) * S[d * s->Dv + e];
            }
            put(c->o.p, dtype, at(&c->o, b, h, t) + e, amp * sum);
        }
    }
    return ATTN_OK;
}

static int forward(const attn_call *c) { return forward_with(c, amp_of(c)); }
static int backward(const attn_call *c) { return backward_with(c, amp_of(c)); }

/* The second implementation: the mutants change these, the definition stays as it is. */
static int far_forward(const attn_call *c)
{
    double amp = amp_of(c);
    int rc = forward_with(c, amp);
    return rc;
}

static int far_backward(const attn_call *c)
{
    attn_call mine = *c;
    double amp = amp_of(c);
    return backward_with(&mine, amp);
}

static int far_decode(const attn_call *c)
{
    attn_call mine = *c;
    return decode(&mine);
}

static const attn_impl IMPLS[] = { { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, backward, decode },
    { "far", ATTN_CUDA, ATTN_F32 | ATTN_BF16, ATTN_CAUSAL, 20, plan, far_forward, far_backward, far_decode }, { .name = NULL } };
static const attn_variant MIRRORED = { .size = sizeof MIRRORED, .name = "mirrored", .title = "A far copy", .paper = "", .cost = "T Dk Dv",
                                       .gates = GATES, .params = PARAMS, .impls = IMPLS };
ATTN_EXPORT(&MIRRORED);
