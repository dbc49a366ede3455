/* lsh - attention among tokens of like hash, with keys that are the queries (Reformer; Kitaev et al. 2020).
 *
 *   o_i = sum_j N_ij exp(s_ij) v_j / sum_j N_ij exp(s_ij),   N_ij = sum_r N_ij^r  (dedup: at most 1)
 *   s_ij = scale q_i.k_j,  s_ii less 1e5,   k_j = q_j / rho_j,   rho_j = sqrt(|q_j|^2 + Dk key_eps)
 *
 * N_ij^r: does i meet j in round r?  In every round the tokens, sorted by (bucket, position), are cut into chunks of
 * chunk_len; a token meets its own chunk and the one before, of which only j <= i when causal and only its own bucket
 * without attend_across_buckets.  lookback_wrap: before the first chunk of a round comes the last of the round before,
 * before the first of all the last of all.  n_rounds 0: every j is met once.
 * Bucket: per factor f of n_buckets f/2 columns of y = q rotations_r, a = argmax of [y; -y]; a_1 + f_1 a_2.
 *
 * Backward, with p_ij the weights, g_i = d_o_i and D_i = g_i.o_i:  dv_j = sum_i p_ij g_i,  ds_ij = p_ij (g_i.v_j - D_i),
 * dk_j = scale sum_i ds_ij q_i,  dq_j = scale sum_i ds_ji k_i + (dk_j - k_j (k_j.dk_j)) / rho_j.  Buckets are constants.
 *
 * Which tokens share a chunk depends on later tokens, so this looks ahead; decoding sorts the tokens so far anew.
 * All impls are kernels/lsh.h: "ref" in double is the definition; "cpu" and "cuda" never hold more than a tile, and
 * leave the token itself out where it meets another, since exp(2 scale |q| - 1e5) is 0 for what scale and q may be. */
#include "attn.h"
#include "attn_map.h"
#include "cuda_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    double scale, key_eps;
    int32_t chunk_len, n_rounds, attend_across_buckets, dedup, lookback_wrap, redraw_interval;
    attn_ints n_buckets;
} options;
static const attn_opt OPTS[] = {
    { "chunk_len", "tokens of a chunk", offsetof(options, chunk_len), ATTN_INT, 64, 1, 1 << 30, NULL, 0 },
    { "n_rounds", "rounds of hashing; 0: every token meets every other", offsetof(options, n_rounds), ATTN_INT, 4, 0, 1024, NULL, 0 },
    { "n_buckets", "buckets as one or two even factors; 0: 2 max(1, T / chunk_len)", offsetof(options, n_buckets), ATTN_INTS, 0, 0, 1 << 15,
      NULL, 0 },
    { "lookback_wrap", "the first chunk looks back, too", offsetof(options, lookback_wrap), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "attend_across_buckets", "chunks mix buckets", offsetof(options, attend_across_buckets), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { "dedup", "a pair that meets in several rounds counts once", offsetof(options, dedup), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "scale", "multiplier of the scores; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 1, 0, 100, NULL, 0 },
    { "key_eps", "added to the mean square of a key", offsetof(options, key_eps), ATTN_FLOAT, 1e-6, 0, 1e30, NULL, 0 },
    { "redraw_interval", "training steps between two drawings of rotations; 0: never", offsetof(options, redraw_interval), ATTN_INT, 0, 0,
      1 << 30, NULL, 0 },
    { .name = NULL }
};
enum { ROTATIONS, BUCKETS };
static const attn_param PARAMS[] = {
    { "rotations", "random directions [H,n_rounds,Dk,sum of the factors / 2]", ATTN_FROZEN | ATTN_REDRAW },
    { "buckets", "instead of rotations, for tests: integers >= 0 [B,H,n_rounds,T]", ATTN_FROZEN | ATTN_OPTIONAL },
    { .name = NULL }
};

/* ---- the problem --------------------------------------------------------------------------------------- */

/* The factors of the number of buckets for T tokens, the second 0 when there is one. */
static void factors_of(const options *o, int64_t T, int32_t *f)
{
    int chunks = (int)(T / o->chunk_len);
    f[0] = o->n_buckets.v[0] ? o->n_buckets.v[0] : 2 * (chunks > 1 ? chunks : 1);
    f[1] = o->n_buckets.n == 2 ? o->n_buckets.v[1] : 0;
}

/* NULL, or why this is not defined. */
static const char *refusal(const attn_shape *s, const options *o)
{
    const attn_ints *f = &o->n_buckets;
    if (s->Hq != s->Hk) return "shared queries and keys need Hq == Hk";
    if (s->klen) return "key lengths are not defined for LSH attention";
    if (s->Tq != s->Tk && !s->decode) return "shared queries and keys need Tq == Tk";
    if (f->n != 1 && f->n != 2) return "n_buckets is one factor or two";
    for (int i = 0; i < f->n; i++)
        if (f->v[i] % 2 || (f->v[i] == 0 && f->n > 1)) return "the factors of n_buckets are even";
    if (o->lookback_wrap && o->n_rounds && s->decode) return "lookback_wrap needs whole chunks, which decoding has not";
    return o->lookback_wrap && o->n_rounds && s->Tk % o->chunk_len ? "lookback_wrap needs T to be a multiple of chunk_len" : NULL;
}

/* What all impls plan; number: bytes of one number. */
static int plan_common(const attn_shape *s, const options *o, size_t number, attn_plan *p)
{
    int32_t f[2];
    if (refused(p, refusal(s, o)))
        return ATTN_EUNSUP;
    factors_of(o, s->Tk, f);
    if (o->n_rounds) {
        p->param_dims[ROTATIONS] = (attn_dims){ 4, { s->Hk, o->n_rounds, s->Dk, (f[0] + f[1]) / 2 } };
        p->param_dims[BUCKETS] = (attn_dims){ 4, { s->B, s->Hk, o->n_rounds, s->Tk } };
        p->param_init[ROTATIONS] = (attn_init){ ATTN_INIT_NORMAL, 0, 1 };
    }
    /* Rule: q.k and p v over two chunks per token and round (all tokens in one when n_rounds is 0), half of it when
     * causal, and the products of hashing; backward recomputes q.k and adds four products.
     * Traffic: inputs and outputs once each way, backward reads q v o d_o and writes dq dv. */
    double T = s->Tk, reach = o->n_rounds && 2.0 * o->chunk_len < T ? 2.0 * o->chunk_len : T, units = (double)s->B * s->Hk;
    double pairs = units * T * reach * (o->n_rounds ? o->n_rounds : 1) * (s->mode == ATTN_CAUSAL ? 0.5 : 1);
    p->flops_fwd = 2 * pairs * (s->Dk + s->Dv) + units * T * o->n_rounds * s->Dk * (f[0] + f[1]);
    p->flops_bwd = 2 * pairs * (3.0 * s->Dk + 2.0 * s->Dv);
    p->bytes_fwd = units * T * (s->Dk + 2.0 * s->Dv) * (double)number;
    p->bytes_bwd = units * T * (2.0 * s->Dk + 4.0 * s->Dv) * (double)number;
    return ATTN_OK;
}

/* ---- the two precisions of kernels/lsh.h ---------------------------------------------------------------- */

typedef struct engine {
    size_t number;                      /* bytes of one */
    size_t (*scratch)(const k_lsh *, int backward);
    void (*hash)(const k_lsh *, const void *rotations, int from);
    void (*forward)(const k_lsh *), (*backward)(const k_lsh *);
} engine;
static const engine REF = { sizeof(double), k_dlsh_scratch, k_dlsh_hash, k_dlsh_forward, k_dlsh_backward };
static const engine CPU = { sizeof(float), k_slsh_scratch, k_slsh_hash, k_slsh_forward, k_slsh_backward };

/* The problem of T tokens with room for capacity, without tensors.  Full attention is one chunk of one round. */
static k_lsh problem_of(const attn_shape *s, const options *o, int T)
{
    k_lsh p = { .B = s->B, .H = s->Hk, .T = T, .Dk = s->Dk, .Dv = s->Dv, .first = T - s->Tq, .causal = s->mode == ATTN_CAUSAL,
                .rounds = o->n_rounds, .chunk = o->chunk_len < T ? o->chunk_len : T, .across = o->attend_across_buckets, .dedup = o->dedup,
                .wrap = o->lookback_wrap, .scale = o->scale > 0 ? o->scale : 1 / sqrt(s->Dk), .key_eps = o->key_eps, .capacity = s->Tk };
    factors_of(o, s->Tk, p.factor);
    if (!o->n_rounds)
        p.rounds = p.across = 1, p.dedup = p.wrap = p.factor[0] = p.factor[1] = 0, p.chunk = T;
    return p;
}

/* Bytes of the buckets [B,H,n_rounds,T] of a call, with which saved, or else scratch, begins. */
static size_t buckets_size(const k_lsh *p)
{
    size_t bytes = p->factor[0] ? (size_t)p->B * (size_t)p->H * (size_t)p->rounds * (size_t)p->T * sizeof(int32_t) : 0;
    return (bytes + 255) / 256 * 256;
}

/* [cold] Forward keeps the buckets and the log-sum-exp [B,H,T]. */
static int plan(const attn_shape *s, const options *o, const engine *e, attn_plan *p)
{
    int rc = plan_common(s, o, e->number, p);
    if (rc)
        return rc;
    k_lsh l = problem_of(s, o, s->Tk);
    size_t tokens = (size_t)s->B * s->Hk * s->Tk;
    p->saved = s->training ? buckets_size(&l) + tokens * sizeof(float) : 0;
    p->state = tokens * ((size_t)(s->Dk + s->Dv) * e->number + (size_t)o->n_rounds * sizeof(int32_t));
    p->state_second = tokens * (size_t)(s->Dk + s->Dv) * e->number;
    p->scratch_fwd = e->scratch(&l, 0) + (s->training ? 0 : buckets_size(&l));
    p->scratch_bwd = e->scratch(&l, 1);
    p->scratch_dec = e->scratch(&l, 0);
    return ATTN_OK;
}

/* The problem of a call without decoding. */
static k_lsh problem_from(const attn_call *c)
{
    const options *o = c->opts;
    k_lsh p = problem_of(c->s, o, c->s->Tk);
    char *first = c->saved ? c->saved : c->scratch, *rest = first + buckets_size(&p);
    p.threads = c->nthreads;
    p.q = p.k = heads(c->q), p.v = heads(c->v), p.o = heads(c->o);
    p.d_o = heads(c->d_o), p.dq = heads(c->dq), p.dv = heads(c->dv);
    p.bucket = o->n_rounds ? (void *)first : NULL;
    p.lse = c->saved ? (void *)rest : NULL;
    p.scratch = c->saved ? c->scratch : rest;
    return p;
}

/* Buckets of the tokens from .. T - 1, by hashing unless they are given. */
static void fill_buckets(const attn_call *c, const engine *e, const k_lsh *p, int from)
{
    const void *given = c->param[BUCKETS];
    if (p->bucket && !given)
        e->hash(p, c->param[ROTATIONS], from);
    for (int64_t row = 0; p->bucket && given && row < (int64_t)p->B * p->H * p->rounds; row++)
        for (int64_t t = row * p->capacity + from; t < row * p->capacity + p->T; t++)
            p->bucket[t] = (int32_t)(e == &REF ? ((const double *)given)[t] : ((const float *)given)[t]);
}

/* Buckets, then chunks. */
static int forward(const attn_call *c, const engine *e)
{
    k_lsh p = problem_from(c);
    fill_buckets(c, e, &p, 0);
    e->forward(&p);
    return ATTN_OK;
}

/* By the buckets of forward. */
static int backward(const attn_call *c, const engine *e) { k_lsh p = problem_from(c); return e->backward(&p), ATTN_OK; }

/* Rows 0 .. n - 1 of from [B,H,n,D] to the rows pos .. of to, of numbers of so many bytes. */
static void copy_rows(const attn_shape *s, size_t number, k_heads from, k_heads to, int64_t pos, int D)
{
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hk; h++) for (int t = 0; t < s->Tq; t++)
        memcpy((char *)to.p + (size_t)(b * to.sb + h * to.sh + (pos + t) * to.st) * number,
               (const char *)from.p + (size_t)(b * from.sb + h * from.sh + t * from.st) * number, (size_t)D * number);
}

/* State: rows of q and v so far, [B,H,capacity,Dk+Dv], and their buckets [B,H,n_rounds,capacity].  The new tokens are
 * hashed, and all of them sorted anew. */
static int decode(const attn_call *c, const engine *e)
{
    const attn_shape *s = c->s;
    k_lsh p = problem_of(s, c->opts, (int)c->pos + s->Tq);
    int64_t width = s->Dk + s->Dv, sh = s->Tk * width;
    p.threads = c->nthreads;
    p.q = heads(c->q), p.o = heads(c->o);
    p.k = (k_heads){ c->state, sh * s->Hk, sh, width };
    p.v = (k_heads){ (char *)c->state + (size_t)s->Dk * e->number, sh * s->Hk, sh, width };
    p.bucket = ((const options *)c->opts)->n_rounds ? (int32_t *)((char *)c->state + (size_t)(s->B * s->Hk * sh) * e->number) : NULL;
    p.scratch = c->scratch;
    copy_rows(s, e->number, p.q, p.k, c->pos, s->Dk);
    copy_rows(s, e->number, heads(c->v), p.v, c->pos, s->Dv);
    fill_buckets(c, e, &p, (int)c->pos);
    e->forward(&p);
    return ATTN_OK;
}

/* ---- the GPU ----------------------------------------------------------------------------------------------- */

static int accepts(const attn_shape *s, const void *o, attn_plan *p)
{
    size_t number = k_dtype_size((k_dtype)s->dtype);
    p->state_second = (size_t)s->B * (size_t)s->Hk * (size_t)s->Tk * (size_t)(s->Dk + s->Dv) * number;
    return plan_common(s, o, number, p);
}
static k_lsh cuda_shape(const attn_shape *s, const void *o) { return problem_of(s, o, s->Tk); }

/* The problem of a call; it hashes as it goes. */
static k_lsh cuda_call(const attn_call *c)
{
    k_lsh p = problem_from(c);
    p.rotations = c->param[ROTATIONS], p.given = c->param[BUCKETS];
    return p;
}
static k_lsh cuda_step(const attn_call *c)
{
    k_lsh p = cuda_call(c);
    p.scratch = c->scratch;
    return p;
}
CUDA_IMPL(kernels, lsh, accepts, cuda_shape, cuda_call, cuda_step)

/* [cold] Calls that save nothing have the buckets before the scratch of the kernels. */
static int cuda_plan(const attn_shape *s, const void *o, attn_plan *p)
{
    int rc = kernels_plan(s, o, p);
    k_lsh l = problem_of(s, o, s->Tk);
    p->scratch_fwd += s->training ? 0 : buckets_size(&l);
    return rc;
}

static int ref_plan(const attn_shape *s, const void *o, attn_plan *p) { return plan(s, o, &REF, p); }
static int cpu_plan(const attn_shape *s, const void *o, attn_plan *p) { return plan(s, o, &CPU, p); }
static int ref_forward(const attn_call *c)  { return forward(c, &REF); }
static int cpu_forward(const attn_call *c)  { return forward(c, &CPU); }
static int ref_backward(const attn_call *c) { return backward(c, &REF); }
static int cpu_backward(const attn_call *c) { return backward(c, &CPU); }
static int ref_decode(const attn_call *c)   { return decode(c, &REF); }
static int cpu_decode(const attn_call *c)   { return decode(c, &CPU); }

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, ref_plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, kernels_forward, kernels_backward, kernels_decode },
    { .name = NULL }
};
/* Rows of the map always sum to one. */
static int sums(const attn_shape *s, const void *opts) { return (void)s, (void)opts, 1; }
ATTN_MAP_EXT(ref_plan, ref_forward, sums)

static const attn_variant LSH = {
    .size = sizeof LSH, .name = "lsh", .title = "LSH attention (Reformer)", .paper = "arXiv:2001.04451",
    .cost = "R T C (Dk + Dv)", .flags = ATTN_LOOKS_AHEAD | ATTN_SHARED_QK, .opts_size = sizeof(options), .opts = OPTS,
    .params = PARAMS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&LSH);
