/* recurrence_narrow_backward.cuh - what a block has that walks back through a memory of at most 64 x 64. */
#ifndef KERNELS_CUDA_RECURRENCE_NARROW_BACKWARD_CUH
#define KERNELS_CUDA_RECURRENCE_NARROW_BACKWARD_CUH
#include "recurrence_narrow.cuh"

enum { SIDES = 2, OWN = team<SIDES>::OWN, ROWS = team<SIDES>::ROWS, ALL = team<SIDES>::THREADS_ALL, ALL_WARPS = team<SIDES>::WARPS_ALL };

/* Shared memory.  v: delta, what the tokens wrote, transposed.  R: times `after` where channels fade by themselves.  P is
 * room once it has been used. */
template <typename T> struct backward_common {
    T q[TILE * LD], k[TILE * LD], v[TILE * LD], g[TILE * LD], S[TILE * LD], R[TILE * LD];
    union { struct { T P[TILE * LD], dP[TILE * LD]; }; float share[TILE * LD]; };
};
template <typename T, int KIND> struct backward_tiles : backward_common<T> {
    T A[KIND == DELTA ? TILE * LD : 8], dV[KIND == DELTA ? TILE * LD : 8];
    token_numbers tokens;
    float from[SIDES][TILE], to[SIDES][TILE], dstep[SIDES][TILE], dot[SIDES][TILE], part[ALL_WARPS][TILE], sums[ALL_WARPS];
    double half;
};
template <typename T> struct backward_tiles<T, EACH> : backward_common<T> {
    T gate[TILE * LD];
    float b[TILE * LD];
    channel_numbers<SIDES> channels;
    float part[3][ALL_WARPS][TILE];
};

/* What a thread has of the chunk; block n of its own is block own(n) of all. */
template <typename T, int KIND> struct backward_block {
    backward_tiles<T, KIND> *m;
    chunk_at at;
    int steep;
    float slope;                        /* of this thread's token */
    acc R[OWN], dX[OWN];                /* 16 columns of the values x channels, x tokens */
    acc dk[OWN], from[OWN];             /* 16 tokens x channels; from: shares in the decays, EACH */
    float own_from[2], own_to[2], own_step[2];          /* shares of two tokens, the others */
    float dlog, dbias, dskip;           /* of params, over all chunks */
};
static __device__ __forceinline__ int own(int n) { return side<SIDES>() + n * SIDES; }

/* Starts to copy rows row0.. of a head, at most 64 wide.  Calls: inlined everywhere, this and put_block would not leave the
 * rest of the code its place in the instruction cache. */
template <typename T> static __device__ __noinline__ void fetch(T *tile, rows_at<T> s, int row0)
{
    enum { PIECE = 16 / sizeof(T), PIECES = TILE / PIECE };
    #pragma unroll
    for (int n = threadIdx.x; s.vector && n < TILE * PIECES; n += ALL) {
        int r = n / PIECES, c = n % PIECES * PIECE, there = row0 + r < s.hi && c < s.width;
        copy16(shared_address(tile + r * LD + c), there ? s.p + (row0 + r) * s.st + c : s.p, there ? 16 : 0);
    }
    #pragma unroll 1
    for (int n = threadIdx.x; !s.vector && n < TILE_SIZE; n += ALL) {
        int r = n / TILE, c = n % TILE, there = row0 + r < s.hi && c < s.width;
        tile[r * LD + c] = there ? s.p[(row0 + r) * s.st + c] : from_float<T>(0);
    }
}

/* Block (r0,c0) of a tile, 16 x 16, to where row 0 of it belongs, `rows` rows and `width` columns of which are there. */
template <typename T> static __device__ __noinline__ void put_block(T *to, int64_t st, int vector, int width, int rows, const T *tile, int r0, int c0)
{
    int i = r0 + lane_id() / 2, c = c0 + lane_id() % 2 * 8;
    float y[8];
    if (i >= rows || c >= width) return;
    read8(tile + i * LD + c, y);
    if (vector) write8(to + i * st + c, y);
    else for (int e = 0; e < 8 && c + e < width; e++) to[i * st + c + e] = from_float<T>(y[e]);
}

/* ---- a thread's share of 16 rows ------------------------------------------------------------------------------------------ */

static __device__ __forceinline__ void add(acc y[OWN], const acc more[OWN])
{
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) y[n].c[i] += more[n].c[i];
    }
}
static __device__ __forceinline__ void clear_all(acc y[OWN])
{
    #pragma unroll
    for (int n = 0; n < OWN; n++) clear(y[n]);
}

/* This thread's share of the products of a tile's rows with y, of two tokens. */
template <typename T> static __device__ __forceinline__ void add_dots(const T *tile, const acc y[OWN], float by, float sum[2])
{
    float mine[2] = { 0, 0 };
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) mine[i >> 1 & 1] += y[n].c[i] * to_float(tile[(16 * group() + acc_row(i)) * LD + 16 * own(n) + acc_col(i)]);
    }
    sum[0] += by * mine[0], sum[1] += by * mine[1];
}
/* Of all threads that share, by side. */
static __device__ __forceinline__ void put_dots(float sum[2], float (*to)[TILE])
{
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        sum[n] += __shfl_xor_sync(~0u, sum[n], 1);
        sum[n] += __shfl_xor_sync(~0u, sum[n], 2);
        if ((lane_id() & 3) == 0) to[side<SIDES>()][16 * group() + acc_row(2 * n)] = sum[n];
    }
}
#endif
