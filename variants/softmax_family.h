/* softmax_family.h - what the variants of masked softmax attention share: everything but their set A_i.
 *
 *   o_i = sum_j p_ij v_j,   p_i = softmax over j in A_i of s_ij,   s_ij = scale q_i.k_j - slope_h |p_i - j|
 *
 * with p_i = i + Tk - Tq, keys j < klen, and an output of 0 where A_i is empty.  With position rope q and k are
 * turned by their positions first, with alibi slope_h > 0.  Several query heads may share a key head (GQA, MQA).
 * Saved: the row log-sum-exp, one number per (b,h,i).  Decode state: the keys and values that later queries may see.
 *
 * The file that includes this begins its options struct with a softmax_options called shared, and defines
 * sees() (the set as one predicate: "ref" goes by it), mask_of() (the set as data: "cpu" goes by it) and refusal(). */
#ifndef SOFTMAX_FAMILY_H
#define SOFTMAX_FAMILY_H
#include "attn.h"
#include "attn_map.h"
#include "cuda_impl.h"
#include <math.h>

typedef struct { double scale; k_position position; } softmax_options;
#define SOFTMAX_OPTIONS(type)                                                                                     \
    { "scale", "multiplier of the scores; 0: 1/sqrt(Dk)", offsetof(type, shared.scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 }, \
    K_POSITION_OPTIONS(type, shared.position)

static k_sees sees;
static k_mask mask_of(const attn_shape *, const void *opts);
/* NULL, or why the variant's own options do not fit this shape. */
static const char *refusal(const attn_shape *, const void *opts);

/* The problem of this shape, without tensors. */
static k_attention problem_of(const attn_shape *s, const void *opts)
{
    const softmax_options *o = opts;
    k_attention a = { .B = s->B, .Hq = s->Hq, .Hk = s->Hk, .Tq = s->Tq, .Tk = s->Tk, .Dk = s->Dk, .Dv = s->Dv,
                      .threads = 1, .scale = o->scale > 0 ? o->scale : 1 / sqrt(s->Dk), .mask = mask_of(s, opts),
                      .position = &o->position, .sees = sees, .options = opts };
    a.mask.causal = s->mode == ATTN_CAUSAL;
    return a;
}

/* Multiply-adds of q.k and p v over the visible pairs; backward computes q.k again and adds four products.
 * Traffic: inputs and outputs once each way, backward reads q k v o d_o and writes dq dk dv. */
static void plan_costs(const attn_shape *s, const k_attention *a, size_t number, attn_plan *p)
{
    double pairs = 0;
    int kinds = a->mask.patterns == K_PATTERNS_SPLIT && s->Hq > 1 ? 2 : 1;      /* even and odd heads differ */
    for (int h = 0; h < kinds; h++)
        pairs += k_mask_pairs(&a->mask, &(k_scope){ s->Tk - s->Tq, s->Tq, s->Tk, h }) * s->B * ((s->Hq + kinds - 1 - h) / kinds);
    double in = (double)s->B * ((double)s->Hq * s->Tq * s->Dk + (double)s->Hk * s->Tk * (s->Dk + s->Dv));
    double out = (double)s->B * s->Hq * s->Tq * s->Dv;
    p->flops_fwd = 2.0 * pairs * (s->Dk + s->Dv);
    p->flops_bwd = 2.0 * pairs * (3.0 * s->Dk + 2.0 * s->Dv);
    p->bytes_fwd = (in + out) * (double)number;
    p->bytes_bwd = (2 * in + 2 * out) * (double)number;
}

/* [cold] Why this shape cannot be planned at all, or NULL. */
static const char *shape_refusal(const attn_shape *s, const void *opts)
{
    const softmax_options *o = opts;
    const char *why = k_position_refusal(&o->position, s->Dk, s->mode == ATTN_CROSS);
    if (!why && s->mode == ATTN_BIDIR && s->Tq != s->Tk)
        why = "bidirectional attention needs Tq == Tk";
    return why ? why : refusal(s, opts);
}

/* [cold] Both impls of the CPU; number: bytes of one number, scratch: how many of them. */
static int plan_common(const attn_shape *s, const void *opts, size_t number, size_t (*scratch)(const k_attention *), attn_plan *p)
{
    if (refused(p, shape_refusal(s, opts)))
        return ATTN_EUNSUP;
    k_attention a = problem_of(s, opts);
    p->saved = s->training ? (size_t)s->B * (size_t)s->Hq * (size_t)s->Tq * number : 0;
    p->scratch_fwd = p->scratch_bwd = p->scratch_dec = scratch(&a) * number;
    p->state = (size_t)s->B * (size_t)s->Hk * (size_t)k_mask_rows(&a.mask, s->Tk) * (size_t)(s->Dk + s->Dv) * number;
    plan_costs(s, &a, number, p);
    return ATTN_OK;
}
/* [cold] Double and float. */
static int ref_plan(const attn_shape *s, const void *opts, attn_plan *p) { return plan_common(s, opts, sizeof(double), k_dattention_scratch, p); }
static int cpu_plan(const attn_shape *s, const void *opts, attn_plan *p) { return plan_common(s, opts, sizeof(float), k_attention_scratch, p); }
/* [cold] What the GPU's kernels do not size themselves. */
static int accepts(const attn_shape *s, const void *opts, attn_plan *p)
{
    if (refused(p, shape_refusal(s, opts)))
        return ATTN_EUNSUP;
    k_attention a = problem_of(s, opts);
    plan_costs(s, &a, k_dtype_size((k_dtype)s->dtype), p);
    return ATTN_OK;
}

/* The problem of a call. */
static k_attention problem_from(const attn_call *c)
{
    k_attention a = problem_of(c->s, c->opts);
    a.threads = c->nthreads;
    a.q = heads(c->q), a.k = heads(c->k), a.v = heads(c->v), a.o = heads(c->o);
    a.d_o = heads(c->d_o), a.dq = heads(c->dq), a.dk = heads(c->dk), a.dv = heads(c->dv);
    a.klen = c->klen;
    a.lse = c->saved;
    a.scratch = c->scratch;
    return a;
}

/* All passes hand the problem on. */
static int ref_forward(const attn_call *c)  { k_attention a = problem_from(c); k_dattention_forward(&a);  return ATTN_OK; }
static int ref_backward(const attn_call *c) { k_attention a = problem_from(c); k_dattention_backward(&a); return ATTN_OK; }
static int cpu_forward(const attn_call *c)  { k_attention a = problem_from(c); k_attention_forward(&a);   return ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_attention a = problem_from(c); k_attention_backward(&a);  return ATTN_OK; }
static int ref_decode(const attn_call *c)
{
    k_attention a = problem_from(c);
    a.lse = NULL;
    k_dattention_decode(&a, c->state, c->pos, c->s->Tk);
    return ATTN_OK;
}
static int cpu_decode(const attn_call *c)
{
    k_attention a = problem_from(c);
    a.lse = NULL;
    k_attention_decode(&a, c->state, c->pos, c->s->Tk);
    return ATTN_OK;
}
/* The rungs of the GPU: with the kernels of sm_90a where they fit, and only those that run on every chip. */
typedef k_cuda_attention k_cuda_attention_tiles;
CUDA_IMPL(tiles, attention_tiles, accepts, problem_of, problem_from, problem_from)
CUDA_IMPL(cuda, attention, accepts, problem_of, problem_from, problem_from)

#define SOFTMAX_IMPLS(modes)                                                                                      \
    { { "ref", ATTN_CPU, ATTN_F64, modes, 0, ref_plan, ref_forward, ref_backward, ref_decode },                   \
      { "cpu", ATTN_CPU, ATTN_F32, modes, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },                  \
      { "cuda_tiles", ATTN_CUDA, ATTN_BF16, modes, 15, tiles_plan, tiles_forward, tiles_backward, tiles_decode },  \
      { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, modes, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode }, \
      { .name = NULL } }

/* Rows of the map sum to one wherever a query sees a key. */
static int sums(const attn_shape *s, const void *opts) { return (void)s, (void)opts, 1; }
ATTN_MAP_EXT(ref_plan, ref_forward, sums)
#endif
