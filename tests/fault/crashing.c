/* crashing.c - a variant whose forward never returns: the gate must survive it and say so. */
#include <stdint.h>
#include <stdlib.h>
#include "attn.h"

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)s, (void)opts, (void)p;
    return ATTN_OK;
}

static int forward(const attn_call *c)
{
    *(volatile int *)(uintptr_t)getenv("HARNESS_NO_SUCH_VARIABLE") = c->s->Tq;
    return ATTN_OK;
}

static const attn_impl IMPLS[] = {{"ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, NULL, NULL}, {.name = NULL}};
static const attn_variant CRASHING = {.size = sizeof(attn_variant), .name = "crashing", .title = "A null pointer", .paper = "", .cost = "1",
    .impls = IMPLS};
ATTN_EXPORT(&CRASHING);
