/* values_only.h - what the comparators share that mix v alone, head by head: q and k are not inputs. */
#ifndef VALUES_ONLY_H
#define VALUES_ONLY_H
#include "attn.h"
#include "cuda_impl.h"
#include <string.h>

/* x [B,H,T,D] becomes 0, if wanted. */
static void zero(attn_tensor x, size_t number, int B, int H, int T, int D)
{
    for (int b = 0; x.p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset((char *)x.p + (b * x.sb + h * x.sh + t * x.st) * (int64_t)number, 0, (size_t)D * number);
}

/* dq and dk: nothing depends on q and k. */
static void zero_unused(const attn_call *c, size_t number)
{
    const attn_shape *s = c->s;
    zero(c->dq, number, s->B, s->Hq, s->Tq, s->Dk);
    zero(c->dk, number, s->B, s->Hk, s->Tk, s->Dk);
}

#endif
