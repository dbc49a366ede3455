/* fast_weights.cuh - fast weights on the GPU: what the files of fast_weights*.cu share.
 *
 * All is computed in float: rows of bfloat16 are widened first and their results narrowed.  Keys and queries become rows of
 * features b [B,Hk,Tk,m] and a [B,Hq,Tq,m], mapped and normed; a block then walks through the tokens of a memory. */
#ifndef KERNELS_CUDA_FAST_WEIGHTS_CUH
#define KERNELS_CUDA_FAST_WEIGHTS_CUH
#include "../cuda.h"
#include <cuda_runtime.h>

enum { FW_CHUNK = 64 };                 /* tokens between two memories that are kept */

/* The rows of one role, in float. */
struct fw_rows {
    k_features f;
    k_norm norm;
    float eps;                          /* of the norm */
    k_role role;
    int B, H, Hk, T, m, mixes;          /* mixes: the map mixes the numbers of a row */
    k_heads x, dx;
    float *phi, *y;                     /* [B,H,T,m] features (where the map mixes), normed features */
    float *r;                           /* [B,H,T] what the norm multiplied by */
    float *dy, *dphi;                   /* [B,H,T,m] gradient of y; of phi, where the map mixes */
};
void fw_features(const fw_rows &, cudaStream_t);
/* dx of dy. */
void fw_features_back(const fw_rows &, cudaStream_t);
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
