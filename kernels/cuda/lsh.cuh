/* lsh.cuh - LSH attention on the GPU: the problem as kernels take it, and the steps that lsh.cu puts together.
 *
 * A unit is one (batch row, head).  The place of a token in a round is where it stands when the tokens are sorted by
 * (bucket, position); place / chunk is its chunk.  Tiles are 64 places of a round.  Rounds follow one another, so that
 * what a token gathers, it gathers in a fixed order, in memory that does not grow with the rounds. */
#ifndef KERNELS_CUDA_LSH_CUH
#define KERNELS_CUDA_LSH_CUH
#include "../cuda.h"
#include "attention_mask.cuh"
#include <cuda_bf16.h>
#include <cuda_runtime.h>

typedef __nv_bfloat16 bf16;

struct lsh {
    int B, H, T, Dk, Dv, first, causal, rounds, chunk, chunks, across, dedup, wrap;
    int factor[2];
    float scale, key_eps;               /* key_eps: times Dk */
    bool vec;                           /* every row of a pass begins at a multiple of 16 bytes and is as long */
    k_heads q, k, v, o, d_o, dq, dv;
    const float *rotations;             /* [H,rounds,Dk,columns] */
    bf16 *panels;                       /* the same as hashing reads them */
    const float *given;                 /* [B,H,rounds,capacity], NULL: buckets by rotations */
    int32_t *bucket;                    /* [B,H,rounds,capacity] */
    int64_t capacity;
    int32_t *order, *spare;             /* [B,H,rounds,T] token at a place; order NULL: every token at its own */
    int32_t *chunk_of;                  /* [B,H,rounds,T] chunk of a token; dedup only */
    float *inverse;                     /* [B,H,T] 1 / length of a key */
    float *longest;                     /* [H,rounds] length of the longest column of a rotation */
    float *lse, *delta;                 /* [B,H,T]; delta: d_o.o */
    k_heads sum_o, sum_q, sum_v;        /* float, what rounds gather of o, dq and dv */
};

/* What the rows of a token are called in arrays [B,H,T] and [B,H,rounds,...]. */
BOTH int64_t round_at(const lsh &p, int unit, int round) { return (int64_t)unit * p.rounds + round; }

/* One round of all units, after the rounds before it. */
int lsh_forward(const lsh &, int round, k_dtype, cudaStream_t);
int lsh_gradient(const lsh &, int round, k_dtype, cudaStream_t);
/* bucket of the tokens first .. T - 1 by inverse; order, chunk_of. */
int lsh_hash(const lsh &, k_dtype, cudaStream_t);
/* Panels of 8192 bytes that hashing cuts a rotation into. */
size_t lsh_panels(const lsh &);
int lsh_sort(const lsh &, cudaStream_t);
/* inverse of all keys; delta. */
int lsh_lengths(const lsh &, k_dtype, cudaStream_t);
int lsh_delta(const lsh &, k_dtype, cudaStream_t);
/* The new rows of q and v into the state's k and v. */
int lsh_append(const lsh &, k_heads v, k_dtype, cudaStream_t);

/* 0, or K_EDEVICE when the launch before it failed. */
static inline int lsh_launched(void) { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }
#endif
