/* relative - softmax attention that learns a vector per distance (Shaw et al. 2018; Music Transformer, Huang et al. 2018).
 *
 *   s_ij = scale q_i.(k_j + E_r),   p_i = softmax over j of s_ij,   o_i = sum_j p_ij (v_j + F_r),   r = j - i + M - 1
 *
 * with M = max_distance, E the param rel_k and, with relative_values, F the param rel_v, of M rows when causal and
 * 2 M - 1 when not, one table per query head unless share_heads.  A row beyond the table is 0 or, with beyond clamp,
 * the nearest.  j <= i when causal; block_length > 0 leaves the own block of so many tokens and its two neighbours
 * (causal: the one before).
 *
 * Backward, with g_i = d_o_i and D_i = g_i.o_i:  ds_ij = scale p_ij (g_i.(v_j + F_r) - D_i),
 * dq_i = sum_j ds_ij (k_j + E_r),  dk_j = sum_i ds_ij q_i,  dE_r = sum of ds_ij q_i over the pairs of row r,
 * dv_j = sum_i p_ij g_i,  dF_r = sum of p_ij g_i over the same.
 *
 * All impls are kernels/relative.h: "ref" in double is the definition, "cpu" and "cuda" skew tiles of products q E'. */
#include "attn.h"
#include "attn_map.h"
#include "cuda_impl.h"
#include <math.h>
#include <string.h>

typedef struct {
    int32_t max_distance, share_heads, beyond, relative_values, block_length;
    double scale;
} options;
enum { ZERO, CLAMP };
static const attn_opt OPTS[] = {
    { "max_distance", "distances 0 .. max_distance - 1 have a vector", offsetof(options, max_distance), ATTN_INT, 128, 1, 1 << 24, NULL, 0 },
    { "share_heads", "all heads have the same vectors", offsetof(options, share_heads), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "beyond", "the vector of a greater distance", offsetof(options, beyond), ATTN_CHOICE, ZERO, 0, 0, "zero,clamp", 0 },
    { "relative_values", "values have vectors, too", offsetof(options, relative_values), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "block_length", "tokens of a block, which sees its neighbours alone; 0: everything is seen", offsetof(options, block_length), ATTN_INT, 0, 0,
      1 << 28, NULL, 0 },
    { "scale", "multiplier of the scores; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { .name = NULL }
};
enum { REL_K, REL_V };
static const attn_param PARAMS[] = {
    { "rel_k", "E [Hq or 1,M or 2 M - 1,Dk]", 0 }, { "rel_v", "F [Hq or 1,M or 2 M - 1,Dv]", 0 }, { .name = NULL } };

/* ---- the problem --------------------------------------------------------------------------------------- */

/* The problem of T tokens, without tensors. */
static k_relative problem_of(const attn_shape *s, const options *o, int T)
{
    int M = o->max_distance, causal = s->mode == ATTN_CAUSAL;
    return (k_relative){ .B = s->B, .Hq = s->Hq, .Hk = s->Hk, .Tq = s->Tq, .Tk = T, .Dk = s->Dk, .Dv = s->Dv, .threads = 1, .causal = causal,
                         .block = o->block_length, .distance = M, .rows = causal ? M : 2 * M - 1, .shared = o->share_heads,
                         .clamp = o->beyond == CLAMP, .scale = o->scale > 0 ? o->scale : 1 / sqrt(s->Dk) };
}

/* Pairs of a query and a key that it sees, in one head; near: those that have a row of the tables. */
static double pairs_of(const k_relative *a, double *near)
{
    double pairs = 0;
    *near = 0;
    for (int p = a->Tk - a->Tq; p < a->Tk; p++) {
        int first, end = k_relative_reach(a, p, &first);
        pairs += end - first;
        if (!a->clamp && first <= p - a->distance)
            first = p - a->distance + 1;
        if (!a->clamp && end - p > a->distance)
            end = p + a->distance;
        *near += end - first;
    }
    return pairs;
}

/* NULL, or why this is not defined. */
static const char *refusal(const attn_shape *s)
{
    if (s->klen)
        return "key lengths are not defined for relative attention";
    return s->Tq != s->Tk && !s->decode ? "relative attention needs Tq == Tk" : NULL;
}

/* What all impls plan; number: bytes of one number. */
static int plan(const attn_shape *s, const options *o, size_t number, attn_plan *p)
{
    if (refused(p, refusal(s)))
        return ATTN_EUNSUP;
    k_relative a = problem_of(s, o, s->Tk);
    const attn_init init = { ATTN_INIT_NORMAL, 0, 1 / sqrt(s->Dk) };
    p->param_dims[REL_K] = (attn_dims){ 3, { o->share_heads ? 1 : s->Hq, a.rows, s->Dk } };
    p->param_init[REL_K] = p->param_init[REL_V] = init;
    if (o->relative_values)
        p->param_dims[REL_V] = (attn_dims){ 3, { o->share_heads ? 1 : s->Hq, a.rows, s->Dv } };
    p->state = (size_t)s->B * s->Hk * s->Tk * (s->Dk + s->Dv) * number;
    /* Rule: q.k and p v over the visible pairs, q.E and p F over those of them that have a row; backward recomputes the
     * scores and adds two products for each.
     * Traffic: inputs, tables and outputs once each way, backward reads all of them and d_o and writes the gradients. */
    double near, pairs = pairs_of(&a, &near), heads = (double)s->B * s->Hq, F = o->relative_values ? s->Dv : 0;
    double tables = (double)(o->share_heads ? 1 : s->Hq) * a.rows * (s->Dk + F);
    double in = (double)s->B * ((double)s->Hq * s->Tq * s->Dk + (double)s->Hk * s->Tk * (s->Dk + s->Dv)) + tables;
    double out = (double)s->B * s->Hq * s->Tq * s->Dv;
    p->flops_fwd = 2 * heads * (pairs * (s->Dk + s->Dv) + near * (s->Dk + F));
    p->flops_bwd = 2 * heads * (pairs * (3.0 * s->Dk + 2.0 * s->Dv) + near * (3.0 * s->Dk + 2 * F));
    p->bytes_fwd = (in + out) * (double)number;
    p->bytes_bwd = 2 * (in + out) * (double)number;
    return ATTN_OK;
}

/* [cold] The definition keeps nothing. */
static int ref_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_relative a = problem_of(s, opts, s->Tk);
    p->scratch_fwd = p->scratch_bwd = p->scratch_dec = k_drelative_scratch(&a, 0);
    return plan(s, opts, sizeof(double), p);
}

/* [cold] Saved: the row log-sum-exp. */
static int cpu_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_relative a = problem_of(s, opts, s->Tk);
    p->saved = s->training ? (size_t)s->B * s->Hq * s->Tq * sizeof(float) : 0;
    p->scratch_fwd = p->scratch_dec = k_srelative_scratch(&a, 0);
    p->scratch_bwd = k_srelative_scratch(&a, 1);
    return plan(s, opts, sizeof(float), p);
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

/* The problem of a call over T tokens. */
static k_relative problem_from(const attn_call *c, int T)
{
    k_relative a = problem_of(c->s, c->opts, T);
    a.threads = c->nthreads;
    a.q = heads(c->q), a.k = heads(c->k), a.v = heads(c->v), a.o = heads(c->o);
    a.d_o = heads(c->d_o), a.dq = heads(c->dq), a.dk = heads(c->dk), a.dv = heads(c->dv);
    a.E = c->param[REL_K], a.F = c->param[REL_V], a.dE = c->dparam[REL_K], a.dF = c->dparam[REL_V];
    a.lse = c->saved;
    a.scratch = c->scratch;
    return a;
}

/* Both passes hand the problem on. */
static int ref_forward(const attn_call *c)  { k_relative a = problem_from(c, c->s->Tk); return k_drelative_forward(&a), ATTN_OK; }
static int ref_backward(const attn_call *c) { k_relative a = problem_from(c, c->s->Tk); return k_drelative_backward(&a), ATTN_OK; }
static int cpu_forward(const attn_call *c)  { k_relative a = problem_from(c, c->s->Tk); return k_srelative_forward(&a), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_relative a = problem_from(c, c->s->Tk); return k_srelative_backward(&a), ATTN_OK; }

/* Copies Tq rows of from [B,Hk,Tq,D] to the rows pos .. of to, of numbers of so many bytes. */
static void copy_rows(const attn_call *c, size_t number, attn_tensor from, k_heads to, int D)
{
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++) for (int t = 0; t < c->s->Tq; t++)
        memcpy((char *)to.p + (size_t)(b * to.sb + h * to.sh + (c->pos + t) * to.st) * number,
               (const char *)from.p + (size_t)(b * from.sb + h * from.sh + t * from.st) * number, (size_t)D * number);
}

/* State: rows of k and v so far, [B,Hk,capacity,Dk+Dv].  Appends the new ones; the problem of the new queries over all. */
static k_relative append(const attn_call *c, size_t number)
{
    const attn_shape *s = c->s;
    int64_t width = s->Dk + s->Dv, sh = s->Tk * width;
    k_relative a = problem_from(c, (int)c->pos + s->Tq);
    a.k = (k_heads){ c->state, sh * s->Hk, sh, width };
    a.v = (k_heads){ (char *)c->state + (size_t)s->Dk * number, sh * s->Hk, sh, width };
    a.lse = NULL;
    copy_rows(c, number, c->k, a.k, s->Dk);
    copy_rows(c, number, c->v, a.v, s->Dv);
    return a;
}

/* Causal attention over the cache. */
static int ref_decode(const attn_call *c) { k_relative a = append(c, sizeof(double)); return k_drelative_forward(&a), ATTN_OK; }
static int cpu_decode(const attn_call *c) { k_relative a = append(c, sizeof(float)); return k_srelative_forward(&a), ATTN_OK; }

/* The GPU's. */
static int accepts(const attn_shape *s, const void *opts, attn_plan *p) { return plan(s, opts, k_dtype_size((k_dtype)s->dtype), p); }
static k_relative cuda_shape(const attn_shape *s, const void *opts) { return problem_of(s, opts, s->Tk); }
static k_relative cuda_call(const attn_call *c) { return problem_from(c, c->s->Tk); }
CUDA_IMPL(cuda, relative, accepts, cuda_shape, cuda_call, cuda_call)

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, ref_plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL }
};
/* The map, when the output is nothing but a sum of rows of v. */
static int map_of(const attn_shape *s, const void *opts, attn_plan *p)
{
    return ((const options *)opts)->relative_values ? ATTN_EUNSUP : ref_plan(s, opts, p);
}

/* Its rows always sum to one. */
static int sums(const attn_shape *s, const void *opts) { return (void)s, (void)opts, 1; }
ATTN_MAP_EXT(map_of, ref_forward, sums)

static const attn_variant RELATIVE = {
    .size = sizeof RELATIVE, .name = "relative", .title = "Relative-position attention", .paper = "arXiv:1803.02155, arXiv:1809.04281",
    .cost = "T^2 (2 Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .params = PARAMS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&RELATIVE);
