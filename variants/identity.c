/* identity - no mixing: every token passes its own value.
 *
 *   o_i = v_i                    (query head h passes the value of the key head it shares)
 *
 * The bound on the speed any mixer can reach: the "OPT" line in the timing figures of
 * Choromanski et al. 2021 (arXiv:2009.14794).  Nothing is saved; dq = dk = 0. */
#include "cuda_impl.h"
#include <string.h>

/* Bytes of a number: the impls are copies, only this differs. */
static size_t number(const attn_shape *s) { return k_dtype_size((k_dtype)s->dtype); }

/* First byte of row (b,h,t). */
static char *row(const attn_tensor *t, size_t size, int b, int h, int i)
{
    return (char *)t->p + (b * t->sb + h * t->sh + i * t->st) * (int64_t)size;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    if (s->mode == ATTN_CROSS || (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk)) {
        strcpy(p->why, "every query passes its own value: Tq must be Tk, not cross attention");
        return ATTN_EUNSUP;
    }
    if (s->klen) {
        strcpy(p->why, "key lengths are not defined: nothing is mixed, so no key can be absent");
        return ATTN_EUNSUP;
    }
    /* Rule: v is read and o written once, the other way round backward; no arithmetic but the sum over
     * a group of query heads. */
    double rows = (double)s->B * s->Tq * s->Dv;
    p->state = 1;                       /* decoding needs no memory; 0 would mean that there is no decoding */
    p->flops_bwd = rows * (s->Hq - s->Hk);
    p->bytes_fwd = p->bytes_bwd = rows * (s->Hq + s->Hk) * (double)number(s);
    return ATTN_OK;
}

/* o [B,Hq,Tq,Dv] = v [B,Hk,Tq,Dv] of the shared head. */
static int copy(const attn_call *c)
{
    const attn_shape *s = c->s;
    size_t size = number(s);
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++)
        memcpy(row(&c->o, size, b, h, t), row(&c->v, size, b, h * s->Hk / s->Hq, t), size * (size_t)s->Dv);
    return ATTN_OK;
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(const attn_tensor *x, size_t size, int B, int H, int T, int D)
{
    if (!x->p)
        return;
    for (int b = 0; b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(row(x, size, b, h, t), 0, size * (size_t)D);
}

/* dv [B,Hk,Tk,Dv] = sum of d_o over the group of query heads. */
static int backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    size_t size = number(s);
    zero(&c->dq, size, s->B, s->Hq, s->Tq, s->Dk);
    zero(&c->dk, size, s->B, s->Hk, s->Tk, s->Dk);
    zero(&c->dv, size, s->B, s->Hk, s->Tk, s->Dv);
    if (!c->dv.p)
        return ATTN_OK;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++) {
        const void *from = row(&c->d_o, size, b, h, t);
        void *to = row(&c->dv, size, b, h * s->Hk / s->Hq, t);
        for (int d = 0; d < s->Dv; d++)
            if (s->dtype == ATTN_F64)
                ((double *)to)[d] += ((const double *)from)[d];
            else
                ((float *)to)[d] += ((const float *)from)[d];
    }
    return ATTN_OK;
}

/* ---- on the GPU ------------------------------------------------------------------------------------------ */

/* The problem as the GPU's kernel takes it. */
static k_identity problem(const attn_call *c)
{
    const attn_shape *s = c->s;
    return (k_identity){ s->B, s->Hq, s->Hk, s->Tq, s->Dk, s->Dv, heads(c->v), heads(c->o), heads(c->d_o), heads(c->dq), heads(c->dk),
                         heads(c->dv) };
}

/* Its kernel needs no memory, so that the shape does not matter. */
static k_identity shape_problem(const attn_shape *s, const void *opts) { return (void)s, (void)opts, (k_identity){ 0 }; }
CUDA_IMPL(cuda, identity, plan, shape_problem, problem, problem)

static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL | ATTN_BIDIR, 0, plan, copy, backward, copy },
    { "cpu", ATTN_CPU, ATTN_F32, ATTN_CAUSAL | ATTN_BIDIR, 10, plan, copy, backward, copy },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, ATTN_CAUSAL | ATTN_BIDIR, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL }
};
static const attn_variant IDENTITY = {
    .size = sizeof IDENTITY, .name = "identity", .title = "No mixing (o = v)", .paper = "arXiv:2009.14794",
    .cost = "T Dv", .flags = ATTN_NO_Q | ATTN_NO_K, .impls = IMPLS
};
ATTN_EXPORT(&IDENTITY);
