/* flash.h - exact softmax attention on the CPU over any allowed set, in float without a Tq x Tk matrix.
 *
 * k_flash is one pass (kernels/mask.h) of one query head; k_attention is all passes, heads and batch rows, with
 * shared key heads (GQA, MQA), positions and threads.  Tiles with an online maximum and sum; tiles that no query
 * sees are skipped.  The only thing kept for backward is the row log-sum-exp.  Nothing is allocated. */
#ifndef KERNELS_FLASH_H
#define KERNELS_FLASH_H
#include <stddef.h>
#include <stdint.h>
#include "heads.h"
#include "mask.h"
#include "rope.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_flash {
    k_pass pass;
    int Dk, Dv;
    float scale, slope;                 /* s_ij = scale q_i.k_j - slope |position of i - position of j| */
    const float *q, *k, *v;             /* [nq,Dk] [nk,Dk] [nk,Dv] with row strides ldq ldk ldv */
    int64_t ldq, ldk, ldv;
    float *o, *lse;                     /* [nq,Dv] and [nq] with row strides ldo and ldl */
    int64_t ldo, ldl;
    const float *d_o;                   /* backward: [nq,Dv] */
    float *dq, *dk, *dv;                /* NULL: not wanted */
    int64_t lddo, lddq, lddk, lddv;
} k_flash;

/* Adds the keys of this pass to o and lse, which hold those of the passes before: 0 and -inf when there were none. */
void k_flash_forward(const k_flash *);
/* Adds what this pass gives to dq, dk and dv; o and lse are those of all passes. */
void k_flash_backward(const k_flash *);

/* Does query p see key j, in this head?  The definition of a variant. */
typedef int k_sees(const void *options, int causal, int head, int64_t p, int64_t j);

typedef struct k_attention {
    int B, Hq, Hk, Tq, Tk, Dk, Dv;      /* query i is at position i + Tk - Tq */
    int threads;
    double scale;
    k_mask mask;
    const k_position *position;
    int keys_turned;                    /* the keys have had their rotation (decoding did it) */
    k_heads q, k, v, o;                 /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] [B,Hq,Tq,Dv] */
    k_heads d_o, dq, dk, dv;            /* backward; dq, dk and dv are overwritten */
    const int32_t *klen;                /* [B] or NULL */
    k_sees *sees;                       /* the reference goes by this, not by the mask */
    const void *options;
    void *lse;                          /* [B,Hq,Tq]; NULL: not wanted */
    void *scratch;                      /* k_attention_scratch() floats, or k_dattention_scratch() doubles */
} k_attention;

size_t k_attention_scratch(const k_attention *);
void   k_attention_forward(const k_attention *);
void   k_attention_backward(const k_attention *);
/* Causal, Tq new tokens at position pos; state [B,Hk,k_mask_rows(capacity),Dk+Dv] holds the keys, turned, and values. */
void   k_attention_decode(const k_attention *, void *state, int64_t pos, int capacity);

/* The definition, in double: tensors, lse and scratch are double.  The state's keys are as given. */
size_t k_dattention_scratch(const k_attention *);
void   k_dattention_forward(const k_attention *);
void   k_dattention_backward(const k_attention *);
void   k_dattention_decode(const k_attention *, void *state, int64_t pos, int capacity);

#ifdef __cplusplus
}
#endif
#endif
