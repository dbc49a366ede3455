/* kernel_attention.h - what linear.c, performer.c and performer_generalized.c share: an attn_call as a k_linattn, and their plan. */
#ifndef KERNEL_ATTENTION_H
#define KERNEL_ATTENTION_H
#include "attn.h"
#include "cuda_impl.h"

/* The rows of a tensor. */
static inline k_rows rows(attn_tensor t) { return (k_rows){ t.p, t.sb, t.sh, t.st }; }

/* The problem of a shape; the caller fills in the features, the normaliser, and of a call the tensors. */
static inline k_linattn problem(const attn_shape *s)
{
    return (k_linattn){ .normalise = 1, .B = s->B, .Hq = s->Hq, .Hk = s->Hk, .Tq = s->Tq, .Tk = s->Tk, .Dk = s->Dk, .Dv = s->Dv,
                        .causal = s->mode == ATTN_CAUSAL, .threads = 1 };
}

/* The tensors of a call. */
static inline void bind_call(k_linattn *p, const attn_call *c)
{
    p->threads = c->nthreads;
    p->klen = c->klen;
    p->q = rows(c->q), p->k = rows(c->k), p->v = rows(c->v), p->o = rows(c->o);
    p->d_o = rows(c->d_o), p->dq = rows(c->dq), p->dk = rows(c->dk), p->dv = rows(c->dv);
    p->saved = c->saved, p->scratch = c->scratch, p->state = c->state;
    p->pos = c->pos;
}

/* Pairs of a query and a key that it sees, in one head. */
static inline double visible_pairs(const attn_shape *s)
{
    double q = s->Tq, k = s->Tk;
    if (s->mode != ATTN_CAUSAL) return q * k;
    return q <= k ? q * (k - (q - 1) / 2) : k * (k + 1) / 2;
}

/* Sizes and costs.  Multiply-adds, with M features, W of them per feature for the map (D for Wx, 1 else), N queries
 * and n keys in a (batch, key head), P pairs that see each other: features (N + n) M W, and for the sums
 * P (M + Dv) by pairs or (N + n) M Dv by states; backward computes the features again and two products for
 * each of the forward's.  Bytes: q, k, v and o once; backward reads them and do, and writes dq, dk and dv. */
static inline int plan_sizes(const attn_shape *s, const k_linattn *p, attn_plan *plan)
{
    k_linattn_sizes z;
    int ref = s->dtype == ATTN_F64;
    double size = (double)k_dtype_size((k_dtype)s->dtype);
    if (ref) k_dlinattn_sizes(p, &z);
    else k_slinattn_sizes(p, &z);
    plan->saved = s->training ? z.saved : 0;
    plan->scratch_fwd = z.scratch_fwd;
    plan->scratch_bwd = s->training ? z.scratch_bwd : 0;
    plan->scratch_dec = z.scratch_dec;
    plan->state = z.state;
    double M = k_features_width(&p->f), W = p->f.m ? s->Dk : 1, units = (double)s->B * s->Hk;
    double N = (double)s->Tq * s->Hq / s->Hk, n = s->Tk, map = (N + n) * M * W;
    double P = visible_pairs(s) * s->Hq / s->Hk, sums = ref || k_linattn_pairs(p) ? P * (M + s->Dv) : (N + n) * M * s->Dv;
    plan->flops_fwd = 2 * units * (map + sums);
    plan->flops_bwd = 4 * units * (map + sums);
    double q = N * s->Dk, kv = n * (s->Dk + s->Dv), o = N * s->Dv;
    plan->bytes_fwd = units * (q + kv + o) * size;
    plan->bytes_bwd = units * (2 * q + 2 * kv + 2 * o) * size;
    return ATTN_OK;
}

/* ---- the implementations, over three functions of the variant ------------------------------------------------ */
static int plan(const attn_shape *, const void *opts, attn_plan *);
static k_linattn problem_of(const attn_shape *, const void *opts);      /* the problem of a shape with its options */
static k_linattn call(const attn_call *);       /* the problem of a call, everything bound */

CUDA_IMPL(cuda, linattn, plan, problem_of, call, call)
static int ref_forward(const attn_call *c)  { k_linattn p = call(c); k_dlinattn_forward(&p);  return ATTN_OK; }
static int ref_backward(const attn_call *c) { k_linattn p = call(c); k_dlinattn_backward(&p); return ATTN_OK; }
static int ref_decode(const attn_call *c)   { k_linattn p = call(c); k_dlinattn_decode(&p);   return ATTN_OK; }
static int cpu_forward(const attn_call *c)  { k_linattn p = call(c); k_slinattn_forward(&p);  return ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_linattn p = call(c); k_slinattn_backward(&p); return ATTN_OK; }
static int cpu_decode(const attn_call *c)   { k_linattn p = call(c); k_slinattn_decode(&p);   return ATTN_OK; }

enum { KERNEL_MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl KERNEL_IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, KERNEL_MODES, 0, plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, KERNEL_MODES, 10, plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, KERNEL_MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL } };
#endif
