/* flash.h - exact softmax attention in float on the CPU, without a Tq x Tk matrix.
 *
 * k_flash is one (batch row, query head); k_attention is all of them, with shared key heads (GQA, MQA),
 * positions and threads.  Tiles with an online maximum and sum; tiles that no query sees are skipped.  Query i sees the keys
 * j < min(klen, i + offset + 1), where offset is Tk - Tq when causal and klen when every key is seen.
 * The only thing kept for backward is the row log-sum-exp.  Nothing is allocated. */
#ifndef KERNELS_FLASH_H
#define KERNELS_FLASH_H
#include <stddef.h>
#include <stdint.h>
#include "heads.h"
#include "rope.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_flash {
    int Tq, Dk, Dv;
    int klen;                           /* keys that exist, 0..Tk */
    int64_t offset;                     /* see above */
    int64_t position;                   /* of query 0, for slope: Tk - Tq */
    float scale, slope;                 /* s_ij = scale q_i.k_j - slope |position + i - j| */
    const float *q, *k, *v;             /* [Tq,Dk] [klen,Dk] [klen,Dv] with row strides ldq ldk ldv */
    int64_t ldq, ldk, ldv;
    float *o, *lse;                     /* [Tq,Dv] with row stride ldo; [Tq], -inf where no key is seen */
    int64_t ldo;
    const float *d_o;                   /* backward: [Tq,Dv] */
    float *dq, *dk, *dv;                /* dq is overwritten, dk and dv are added to; NULL: not wanted */
    int64_t lddo, lddq, lddk, lddv;
} k_flash;

void k_flash_forward(const k_flash *);      /* writes o and, when not NULL, lse */
void k_flash_backward(const k_flash *);     /* reads o and lse */

typedef struct k_attention {
    int B, Hq, Hk, Tq, Tk, Dk, Dv;
    int causal;                         /* query i sees keys j <= i + Tk - Tq */
    int threads;
    double scale;
    const k_position *position;
    int keys_turned;                    /* the keys have had their rotation (k_attention_append did it) */
    k_heads q, k, v, o;                 /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] [B,Hq,Tq,Dv] */
    k_heads d_o, dq, dk, dv;            /* backward; dq, dk and dv are overwritten */
    const int32_t *klen;                /* [B] or NULL */
    float *lse;                         /* [B,Hq,Tq]; NULL: not wanted */
    float *scratch;                     /* k_attention_scratch() floats */
} k_attention;

size_t k_attention_scratch(const k_attention *);
void   k_attention_forward(const k_attention *);
void   k_attention_backward(const k_attention *);
/* Appends the Tk rows of k (turned) and v to cache [B,Hk,capacity,Dk+Dv], which holds pos rows, and returns
 * the causal problem of the same queries over all of it. */
k_attention k_attention_append(const k_attention *, float *cache, int64_t pos, int capacity);

#ifdef __cplusplus
}
#endif
#endif
