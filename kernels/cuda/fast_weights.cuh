/* fast_weights.cuh - fast weights on the GPU: what the files of fast_weights*.cu share.
 *
 * Three ways lead through the tokens.  The delta and the sum rule without denominators, causal, are fading memories that do
 * not fade, and go in chunks of the call's dtype (recurrence.cu); where a memory has at most 64 x 64 numbers and the map works
 * on each number by itself, the chunks make their features themselves.  Else keys and queries become rows of features first,
 * b [B,Hk,Tk,m] and a [B,Hq,Tq,m], mapped and normed (fast_weights_rows.cu).  Everything else a block walks token by token, in
 * float: rows of bfloat16 are widened first and their results narrowed (fast_weights_walk.cu). */
#ifndef KERNELS_CUDA_FAST_WEIGHTS_CUH
#define KERNELS_CUDA_FAST_WEIGHTS_CUH
#include "../cuda.h"
#include <cuda_runtime.h>

enum { FW_CHUNK = 64 };                 /* tokens between two memories that are kept */

/* The rows of one role. */
struct fw_rows {
    k_features f;
    k_norm norm;
    float eps;                          /* of the norm */
    k_role role;
    int B, H, Hk, T, m, whole;          /* whole: rows are whole eights, at 16 bytes */
    k_heads x, dx;
    void *phi, *y;                      /* [B,H,T,m] favor's features, normed features */
    float *r;                           /* [B,H,T] what the norm multiplied by */
    float *dy, *dphi;                   /* [B,H,T,m] gradients of y, of phi */
};
template <class T> void fw_features(const fw_rows &, cudaStream_t);
/* dx of dy. */
template <class T> void fw_features_back(const fw_rows &, cudaStream_t);
/* Rows [B,H,T,D] of bfloat16 to rows of float, and back. */
void fw_widen(int B, int H, int T, int D, k_heads from, k_heads to, cudaStream_t);
void fw_narrow(int B, int H, int T, int D, k_heads from, k_heads to, cudaStream_t);

/* The walk.  A memory is W [m,Dv], then z [m]. */
struct fw_walk {
    k_fast_weights f;
    int G, chunks, shared;              /* shared: a memory fits in shared memory */
    const float *a, *b;
    float *da, *db;                     /* backward, dense like a and b */
    float *memory;                      /* [B,Hk] memories; NULL when in shared memory */
    float *kept;                        /* [B,Hk,chunks] memories at the start of chunks, NULL: not wanted */
    float *past, *clip;                 /* backward: [B,Hk,FW_CHUNK+1] memories of a chunk, [B,Hk,FW_CHUNK] divisors of fwm */
};
void fw_walk_forward(const fw_walk &, cudaStream_t);
void fw_walk_backward(const fw_walk &, cudaStream_t);

/* Numbers of a memory. */
static inline __host__ __device__ int64_t fw_size(const k_fast_weights &f) { return (int64_t)f.m * (f.Dv + 1); }

#endif
