/* wrong_gradient.c - o = v whose backward forgets half of the gradient: the gate must catch it. */
#include <string.h>
#include "attn.h"

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    if (s->Tq == s->Tk && !s->klen) return ATTN_OK;
    strcpy(p->why, "Tq must be Tk, without padding");
    return ATTN_EUNSUP;
}

/* The first byte of row (b,h,t) of doubles. */
static double *row(const attn_tensor *x, int b, int h, int t) { return (double *)x->p + b * x->sb + h * x->sh + t * x->st; }

/* o [B,Hq,Tq,Dv] = v [B,Hk,Tq,Dv]. */
static int forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++)
        memcpy(row(&c->o, b, h, t), row(&c->v, b, h * s->Hk / s->Hq, t), sizeof(double) * (size_t)s->Dv);
    return ATTN_OK;
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(const attn_tensor *x, int B, int H, int T, int D)
{
    for (int b = 0; x->p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(row(x, b, h, t), 0, sizeof(double) * (size_t)D);
}

/* dv [B,Hk,Tk,Dv] = half of what it should be; dq = dk = 0. */
static int backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    zero(&c->dq, s->B, s->Hq, s->Tq, s->Dk);
    zero(&c->dk, s->B, s->Hk, s->Tk, s->Dk);
    zero(&c->dv, s->B, s->Hk, s->Tk, s->Dv);
    for (int b = 0; c->dv.p && b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++)
        for (int d = 0; d < s->Dv; d++) row(&c->dv, b, h * s->Hk / s->Hq, t)[d] += 0.5 * row(&c->d_o, b, h, t)[d];
    return ATTN_OK;
}

static const attn_impl IMPLS[] = {
    {"ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL | ATTN_BIDIR, 0, plan, forward, backward, NULL}, {.name = NULL}};
static const attn_variant WRONG = {.size = sizeof(attn_variant), .name = "wrong_gradient", .title = "Half a gradient", .paper = "",
    .cost = "T Dv", .flags = ATTN_NO_Q | ATTN_NO_K, .impls = IMPLS};
ATTN_EXPORT(&WRONG);
