/* treacherous.c - a variant that passes every check and misbehaves in the field: o = v, but at T = 4099, a length
 * that no check tries, it does what its option says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attn.h"

enum { NONE, SEGFAULT, LOOP, EXIT, PRINT, NOT_A_NUMBER, OUT_OF_BOUNDS, ASK, REFUSE };
typedef struct treacherous_opts { int32_t how; } treacherous_opts;
static const attn_opt OPTIONS[] = {
    {"how", "what happens at T = 4099", offsetof(treacherous_opts, how), ATTN_CHOICE, 0, 0, 0,
     "none,segfault,loop,exit,print,nan,out_of_bounds,ask,refuse", 0},
    {NULL}};

/* What this shape is treated to. */
static int how(const attn_shape *s, const void *opts) { return s->Tq == 4099 ? ((const treacherous_opts *)opts)->how : NONE; }

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    const char *why = s->Tq != s->Tk || s->klen ? "Tq must be Tk, without padding" : how(s, opts) == REFUSE ? "not at this length" : NULL;
    if (why) { strcpy(p->why, why); return ATTN_EUNSUP; }
    if (how(s, opts) == ASK) p->scratch_fwd = 1000000000000000;
    p->state = 1;
    return ATTN_OK;
}

/* The first byte of row (b,h,t) of doubles. */
static double *row(const attn_tensor *x, int b, int h, int t) { return (double *)x->p + b * x->sb + h * x->sh + t * x->st; }

/* o [B,Hq,Tq,Dv] = v [B,Hk,Tq,Dv], and then the treachery. */
static int forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++)
        memcpy(row(&c->o, b, h, t), row(&c->v, b, h * s->Hk / s->Hq, t), sizeof(double) * (size_t)s->Dv);
    switch (how(s, c->opts)) {
    case SEGFAULT: *(volatile int *)(uintptr_t)getenv("HARNESS_NO_SUCH_VARIABLE") = 1; break;
    case LOOP: for (volatile int for_ever = 1; for_ever; ) { } break;
    case EXIT: exit(0);
    case PRINT: puts("a variant should not print"); break;
    case NOT_A_NUMBER: row(&c->o, 0, 0, s->Tq - 1)[s->Dv - 1] = NAN; break;
    case OUT_OF_BOUNDS: row(&c->o, 0, 0, s->Tq - 1)[s->Dv] = 1; break;
    default: break;
    }
    return ATTN_OK;
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(const attn_tensor *x, int B, int H, int T, int D)
{
    for (int b = 0; x->p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(row(x, b, h, t), 0, sizeof(double) * (size_t)D);
}

/* dv [B,Hk,Tk,Dv] = sum of d_o over the group of query heads; dq = dk = 0. */
static int backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    zero(&c->dq, s->B, s->Hq, s->Tq, s->Dk);
    zero(&c->dk, s->B, s->Hk, s->Tk, s->Dk);
    zero(&c->dv, s->B, s->Hk, s->Tk, s->Dv);
    for (int b = 0; c->dv.p && b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++)
        for (int d = 0; d < s->Dv; d++) row(&c->dv, b, h * s->Hk / s->Hq, t)[d] += row(&c->d_o, b, h, t)[d];
    return ATTN_OK;
}

static const attn_impl IMPLS[] = {
    {"ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL | ATTN_BIDIR, 0, plan, forward, backward, forward}, {.name = NULL}};
static const attn_variant TREACHEROUS = {.size = sizeof(attn_variant), .name = "treacherous", .title = "Right until it matters",
    .paper = "", .cost = "T Dv", .flags = ATTN_NO_Q | ATTN_NO_K, .opts_size = sizeof(treacherous_opts), .opts = OPTIONS, .impls = IMPLS};
ATTN_EXPORT(&TREACHEROUS);
