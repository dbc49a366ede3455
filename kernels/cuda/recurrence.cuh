/* recurrence.cuh - what the files of fading memories on CUDA share.
 *
 * Work is cut into chunks of 64 tokens.  recurrence_chunk.cu turns the rows of a chunk into tiles, all chunks at once:
 *   k_out  keys times the fade from them to the end of the chunk          q_in, k_in  rows times the fade from its start
 *   P      faded scores of a reader, 0 for j > i        W = (I + T)^-1 beta, T = beta stril(K K' o fade): delta only
 * so that recurrence_walk.cu needs products alone.  With S the memory at the chunk's start and R = dL/dS at its end,
 *   X = V, or W (V - k_in S);      O = scale (P X + q_in S) + skip V;       S <- left S + k_out'X
 *   dX = scale P'G + k_out R;  dV = dX, or W'dX (delta);     R <- left R + scale q_in'G - k_in'dV (delta)
 * A stepped write has its steps in P and k_out.  recurrence_back.cu makes of S, R, X and dV the other gradients, all
 * chunks at once.  Tiles are [64,64], dense; S, R, X and dV lie transposed in theirs, so that a warp stores its own rows. */
#ifndef KERNELS_CUDA_RECURRENCE_CUH
#define KERNELS_CUDA_RECURRENCE_CUH
#include "features.cuh"
#include "kernels/recurrence.h"
#include <cuda_runtime.h>

enum { TILE_SIZE = TILE * TILE, RC_PARAMS = 3 };        /* a_log, dt_bias, d_skip */

/* A problem with its scratch.  H memories, Ho = H G readers; DT and ET tiles of 64 columns make a row of k and of v. */
struct recurrence {
    k_recurrence r;
    k_position position;
    int G, chunks, DT, ET, rope, delta, channel, stepped;
    int keep, training;                 /* keep: S and X are for backward; training: this is backward */
    int narrow;                         /* recurrence_narrow.cuh does it, and needs of the following S, X and the gradients alone */
    int vector_q, vector_k, vector_v, vector_o, vector_gate;    /* rows begin at 16 bytes, those of their gradients too */
    int normed;                         /* rows are normalised, and a tile has all of their columns */
    int direct_q, direct_k, direct_v;                   /* gradients go out as they are made: no turn, no sharing, no other norm */
    const float *turns;                 /* [T,rope]: cosines, then sines */
    void *k_in, *k_out, *k_hat;         /* [B,H,chunks,DT] tiles; k_hat: rows normalised or turned */
    void *q_in, *q_hat;                 /* [B,Ho,chunks,DT] */
    void *P, *W;                        /* [B,Ho,chunks] [B,H,chunks] */
    void *S, *R;                        /* [B,H,chunks,ET,DT], transposed */
    void *X, *dV;                       /* [B,H,chunks,ET], transposed; delta only */
    float *b;                           /* running sums of decays: [B,H,chunks,64], or [B,H,chunks,DT] tiles */
    float *left;                        /* [B,H,chunks,64 DT] */
    float *beta, *step, *slope;         /* [B,H,chunks,64] */
    float *k_factor, *q_factor;         /* [B,H,chunks,64] [B,Ho,chunks,64]: of norm */
    float *dq, *dk, *dv;                /* [B,Ho,T,D] [B,H,T,D] [B,H,T,E], where not direct */
    float *dparam;                      /* [RC_PARAMS][B,H,shares] */
    int shares;                         /* in the gradients of params: one of each chunk, narrow: of each memory */
    int mapped;                         /* narrow: rows of q and k are features of what came */
    local_map map;
};

/* Whether eight numbers can be moved at once: rows begin at 16 bytes and end with whole eights. */
static inline int in_eights(const k_heads &t, int width, size_t size)
{
    return width % 8 == 0 && ((uintptr_t)t.p | (size_t)t.sb * size | (size_t)t.sh * size | (size_t)t.st * size) % 16 == 0;
}

/* A chunk of a memory, and the heads that it reads. */
struct chunk_at { int b, h, c, unit, t0, hk, hv; int64_t at; };     /* at: number of the chunk among all */
static __device__ __forceinline__ chunk_at chunk_of(const recurrence &x, int unit, int c)
{
    int h = unit % x.r.H;
    return { unit / x.r.H, h, c, unit, c * TILE, h * x.r.Hk / x.r.H, h * x.r.Hv / x.r.H, (int64_t)unit * x.chunks + c };
}
/* Reader g of it: its head of o, its head of q, its chunk among those of readers. */
struct reader_at { int ho, hq; int64_t at; };
static __device__ __forceinline__ reader_at reader_of(const recurrence &x, const chunk_at &k, int g)
{
    int ho = k.h * x.G + g;
    return { ho, ho * x.r.Hq / x.r.Ho, ((int64_t)k.b * x.r.Ho + ho) * x.chunks + k.c };
}

/* The rows of a head. */
template <typename T> static __device__ __forceinline__ rows_at<T> head_rows(const recurrence &x, const k_heads &t, int b, int h,
                                                                             int width, int vector)
{
    return { (const T *)t.p + b * t.sb + h * t.sh, t.st, 0, x.r.T, width, vector };
}
/* Tile number n of an array of tiles. */
template <typename T> static __device__ __forceinline__ T *tile_at(void *tiles, int64_t n) { return (T *)tiles + n * TILE_SIZE; }
template <typename T> static __device__ __forceinline__ void load_dense(T *tile, void *tiles, int64_t n)
{
    load_tile(tile, rows_at<T>{ tile_at<T>(tiles, n), TILE, 0, TILE, TILE, 1 }, 0, 0);
}

/* 16 rows of a tile in shared memory, those of this warp, to row 16 w of a dense tile. */
template <typename T> static __device__ __forceinline__ void store_warp_rows(T *dense, const T *tile)
{
    __syncwarp();
    #pragma unroll
    for (int n = lane_id(); n < 16 * 8; n += 32) {
        float x[8];
        int r = 16 * warp_id() + n / 8, c = n % 8 * 8;
        read8(tile + r * LD + c, x);
        write8(dense + r * TILE + c, x);
    }
    __syncwarp();
}

/* Waits for all loads, and for all threads. */
static __device__ __forceinline__ void loads_done()
{
    loads_commit();
    loads_wait<0>();
    __syncthreads();
}

/* Rows of shared heads, and params, from what their sharers have; row gradients of params from shares. */
template <typename T> void recurrence_finish(const recurrence &, cudaStream_t);
template <typename T> void recurrence_narrow_forward(const recurrence &, cudaStream_t);
template <typename T> void recurrence_narrow_backward(const recurrence &, cudaStream_t);
template <typename T> void recurrence_chunks(const recurrence &, cudaStream_t);
template <typename T> void recurrence_forward_walk(const recurrence &, cudaStream_t);
template <typename T> void recurrence_backward_walk(const recurrence &, cudaStream_t);
template <typename T> void recurrence_gradients(const recurrence &, cudaStream_t);

#endif
