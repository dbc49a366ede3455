/* recurrence.h - what retention, gla, gated_deltanet and mamba2 share: an attn_call as a k_recurrence, and their plan.
 * The variant defines plan(), problem_of() and bound(). */
#ifndef RECURRENCE_H
#define RECURRENCE_H
#include "attn.h"
#include "cuda_impl.h"
#include <math.h>

static int plan(const attn_shape *, const void *opts, attn_plan *);     /* [cold], of all impls */
static k_recurrence problem_of(const attn_shape *, const void *opts);   /* the problem of a shape with its options */
static k_recurrence bound(const attn_call *);                           /* the problem of a call, tensors and all */

/* Any state of these variants is the memory. */
static const attn_state STATES[] = { { "state", "S [B,H,Dk,Dv]" }, { .name = NULL } };

/* The multiplier of the outputs. */
static inline double scale_of(const attn_shape *s, double scale) { return scale > 0 ? scale : 1 / sqrt(s->Dk); }

/* The problem of a shape with H memories; the caller fills in decay, write and what they need. */
static inline k_recurrence problem_with(const attn_shape *s, int H)
{
    return (k_recurrence){ .B = s->B, .H = H, .Hq = s->Hq, .Hk = s->Hk, .Hv = s->Hv, .Ho = attn_out_heads(s), .T = s->Tk, .D = s->Dk, .E = s->Dv,
                           .threads = 1, .scale = 1, .beta_max = 1, .step_max = INFINITY };
}

/* The tensors that every variant has; gates and params are the caller's. */
static inline void bind_call(k_recurrence *r, const attn_call *c)
{
    r->threads = c->nthreads;
    r->q = heads(c->q), r->k = heads(c->k), r->v = heads(c->v), r->o = heads(c->o);
    r->d_o = heads(c->d_o), r->dq = heads(c->dq), r->dk = heads(c->dk), r->dv = heads(c->dv);
    r->state_in = c->state_in[0], r->state_out = c->state_out[0], r->dstate = c->dstate_in[0];
    r->saved = c->saved, r->scratch = c->scratch;
}

/* Number i of an array in the precision of the call. */
static inline double number_of(const attn_call *c, const void *x, int i)
{
    return c->s->dtype == ATTN_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

/* Sizes and costs of an accepted problem, or what no recurrence allows.  Rule: the recurrence as defined, D E
 * to fade and 2 D E for each of recall (delta), write and read; backward twice that.  Traffic: inputs and outputs
 * once each way. */
static inline int plan_sizes(const attn_shape *s, k_recurrence r, attn_plan *p)
{
    size_t memory = (size_t)s->Dk * (size_t)s->Dv * (size_t)s->B * (size_t)r.H, size = k_dtype_size((k_dtype)s->dtype);
    int ref = s->dtype == ATTN_F64;
    if (s->klen)
        return refused(p, "key lengths are not defined for a recurrence (pad on the right)");
    if (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk)
        return refused(p, "a recurrence needs Tq == Tk: every token is written and read");
    p->state_dims[0] = (attn_dims){ 4, { s->B, r.H, s->Dk, s->Dv } };
    p->state = memory * (ref ? sizeof(double) : sizeof(float));
    p->scratch_fwd = ref ? k_drecurrence_scratch(&r, 0) * sizeof(double) : k_srecurrence_scratch(&r) * sizeof(float);
    p->scratch_bwd = ref ? k_drecurrence_scratch(&r, 1) * sizeof(double) : p->scratch_fwd;
    p->saved = s->training && !ref ? k_srecurrence_saved(&r) * sizeof(float) : 0;
    r.T = s->Tq;
    p->scratch_dec = ref ? k_drecurrence_scratch(&r, 0) * sizeof(double) : k_srecurrence_scratch(&r) * sizeof(float);
    double tokens = (double)s->B * s->Tq, D = s->Dk, E = s->Dv, gates = 0;
    for (int i = 0; i < ATTN_MAX; i++)
        gates += p->gate_width[i];
    p->flops_fwd = tokens * D * E * ((r.write == K_WRITE_DELTA ? 5 : 3) * r.H + 2 * r.Ho);
    p->flops_bwd = 2 * p->flops_fwd;
    p->bytes_fwd = tokens * (r.Hq * D + r.Hk * D + r.Hv * E + r.H * gates + r.Ho * E) * (double)size;
    p->bytes_bwd = 2 * p->bytes_fwd;
    return ATTN_OK;
}

/* The problem of a call whose tensors and params the host can read. */
static inline k_recurrence on_host(const attn_call *c)
{
    k_recurrence r = bound(c);
    if (r.offset)
        r.first += llround(number_of(c, r.offset, 0));
    return r;
}

/* Decoding is a forward pass over the new tokens, from the memory to itself. */
static inline k_recurrence decoding(k_recurrence r, const attn_call *c)
{
    r.T = c->s->Tq;
    r.first += c->pos;
    r.saved = NULL;
    r.state_in = r.state_out = c->state;
    return r;
}

/* All of the work is in kernels/recurrence.h. */
static int ref_forward(const attn_call *c)  { k_recurrence r = on_host(c); k_drecurrence_forward(&r);  return ATTN_OK; }
static int ref_backward(const attn_call *c) { k_recurrence r = on_host(c); k_drecurrence_backward(&r); return ATTN_OK; }
static int ref_decode(const attn_call *c)   { k_recurrence r = decoding(on_host(c), c); k_drecurrence_forward(&r); return ATTN_OK; }
static int cpu_forward(const attn_call *c)  { k_recurrence r = on_host(c); k_srecurrence_forward(&r);  return ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_recurrence r = on_host(c); k_srecurrence_backward(&r); return ATTN_OK; }
static int cpu_decode(const attn_call *c)   { k_recurrence r = decoding(on_host(c), c); k_srecurrence_forward(&r); return ATTN_OK; }

/* The GPU's, as long as the tokens of one call are. */
static inline k_recurrence cuda_shape(const attn_shape *s, const void *opts) { k_recurrence r = problem_of(s, opts); return r.T = s->Tq, r; }
static inline k_recurrence cuda_step(const attn_call *c) { k_recurrence r = bound(c); return r.T = c->s->Tq, r; }
CUDA_IMPL(cuda, recurrence, plan, cuda_shape, bound, cuda_step)

static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, ATTN_CAUSAL, 10, plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, ATTN_CAUSAL, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL }
};
#endif
