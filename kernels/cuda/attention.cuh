/* attention.cuh - softmax attention on the GPU: the problem as kernels take it, and the steps that attention.cu puts
 * together.  Each step is queued on the stream; none of them waits or allocates. */
#ifndef ATTENTION_CUH
#define ATTENTION_CUH
#include "../cuda.h"
#include "attention_mask.cuh"
#include <cuda_runtime.h>

struct attention {
    int B, Hq, Hk, Tq, Tk, Dk, Dv;
    int first;                          /* position of query 0; key 0 is at position 0 */
    float scale;                        /* of the scores */
    int alibi;                          /* 0, or the largest power of two <= Hq */
    k_mask mask;
    bool vec;                           /* every row of q k v d_o begins at a multiple of 16 bytes and is as long */
    k_heads q, k, v, o, d_o;            /* q and k as they enter the product: turned by their positions */
    k_heads dq, dk, dv;                 /* of these two, too, the gradients; p NULL: not wanted */
    const int32_t *klen;
    float *lse;                         /* [B,Hq,Tq] */
    /* Backward, [B,Hq,pitch_of(Tq)]: the log-sum-exp in powers of two, inf where no key is seen and in the padding; d_o . o. */
    float *level, *delta;
    /* Forward in slots: parts of the keys, put together by attention_merge.  One slot is the result itself. */
    int slots, splits;                  /* slots: splits of every stage */
    float *part, *part_lse;             /* [slots,B,Hq,Tq,Dv] and [slots,B,Hq,Tq] */
    /* Backward in stages, or turned: sums gather here, until attention_finish.  NULL: dq dk dv are written at once. */
    float *sum_q, *sum_k, *sum_v;       /* dense [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] */
    /* Backward in one sweep: sums of dq [B,Hq,pitch_of(Tq),64], and how many blocks of keys have added to each 128 rows. */
    float *parts;
    int *tickets;                       /* NULL: in two sweeps */
    /* Decoding: keys at positions before `held` are rows of the state [B,Hk,rows,Dk+Dv], the others rows of k and v. */
    int held, ring, rows;
    void *state;
};

/* Room for T rows, so that every tile of 128 is whole. */
BOTH int pitch_of(int T) { return ceil_div(T, 128) * 128; }

/* Keys that batch row b has. */
__device__ inline int keys_there(const attention &a, int b)
{
    return a.klen ? least(a.klen[b], a.Tk) : a.Tk;
}

/* Any problem, on any chip from sm_80 on: what the first `done` stages leave to do.  Gradients: of queries, then of keys. */
int attention_forward(const attention &, k_dtype, int done, cudaStream_t);
int attention_gradient(const attention &, k_dtype, int done, cudaStream_t);
/* Whether this object has code for sm_90a and the device runs it. */
int attention_hopper_built(void);
/* There, in bfloat16, the sets and shapes of attention_hopper.cu: all stages, or the first of a strided set. */
int attention_forward_hopper(const attention &, cudaStream_t);
int attention_gradient_hopper(const attention &, cudaStream_t);
/* The latter in one sweep, when there are tickets. */
int attention_sweep_hopper(const attention &, cudaStream_t);
/* o and lse from the slots, in their order; even: rows of o begin at multiples of 16 bytes and are as long. */
int attention_merge(const attention &, bool even, k_dtype, cudaStream_t);
/* level from lse, delta from d_o and o; even: so do theirs. */
int attention_delta(const attention &, bool even, k_dtype, cudaStream_t);
/* dq, dk and dv from their sums, turned back. */
int attention_finish(const attention &, const k_position *, k_dtype, cudaStream_t);
/* to = from [B,H,T,D] turned by the positions first .. first + T - 1, both of dtype. */
int attention_turn(const attention &, const k_position *, k_dtype, int H, int T, int first, k_heads from, k_heads to, cudaStream_t);
/* Writes the rows of k and v into the state. */
int attention_append(const attention &, k_dtype, cudaStream_t);

/* 0, or K_EDEVICE when the launch before it failed. */
static inline int attention_launched(void) { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }
#endif
