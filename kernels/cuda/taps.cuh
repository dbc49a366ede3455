/* taps.cuh - products of tokens with matrices, tap by tap: what a convolution is made of, and an LSTM but for its walk.
 *
 *   out[b,h,t,:] = bias[h,:] + sum_tau W[h,tau] in[b,h,t + first + tau step,:]
 *
 * and the gradient of W, a sum over all tokens.  Both go over tiles of 64 x 64 through the tensor cores (linattn_tile.cuh),
 * which read numbers of any type from memory and are given numbers of T.  A tile of the result belongs to one block, which
 * sums in a fixed order.  The floor of a product is the memory's up to a width of about 300. */
#ifndef KERNELS_CUDA_TAPS_CUH
#define KERNELS_CUDA_TAPS_CUH
#include "../cuda.h"
#include "linattn_tile.cuh"
#include <cuda_runtime.h>

/* What tap tau reads: row t + first + tau step. */
struct tap_range { int taps; int64_t first, step; };

struct tap_product {
    int B, H, T, K, N, add;             /* width of in and of out; add to out instead of writing it */
    k_heads in, out;                    /* [B,H,T,K] [B,H,T,N] */
    const float *w;                     /* [H,taps,N,K], turned: [H,taps,K,N] */
    const float *bias, *before;         /* [H,N] and row -1 of in [B,H,K], or NULL */
    tap_range range;
};

struct tap_gradient {
    int B, H, T, M, N;
    k_heads g, x;                       /* [B,H,T,M] [B,H,T,N] */
    const float *before;                /* row -1 of x [B,H,N], or NULL */
    float *dw;                          /* [H,taps,M,N] += sum of g x' */
    tap_range range;
};

/* ---- tiles ------------------------------------------------------------------------------------------------ */

/* Rows of one head: those outside 0..rows-1 are 0, but row -1 is `before` where there is one. */
template <class S> struct side { const S *p; int64_t st; int rows, width; bool vector; const float *before; };

/* Whether eight numbers can be read at a time from a multiple of eight on. */
template <class S> static __device__ __forceinline__ bool is_aligned(const S *p, int64_t st)
{
    return (uintptr_t)p % 16 == 0 && st * (int64_t)sizeof(S) % 16 == 0;
}
template <class S> static __device__ side<S> side_of(const k_heads &x, int b, int h, int rows, int width, const float *before)
{
    const S *p = (const S *)x.p + b * x.sb + h * x.sh;
    return { p, x.st, rows, width, is_aligned(p, x.st), before };
}

/* tile = rows row0 .. row0+63, columns col0 .. col0+63. */
template <class T, class S> static __device__ __forceinline__ void fill(T *tile, const side<S> &s, int64_t row0, int col0)
{
    #pragma unroll 4
    for (int n = threadIdx.x; n < TILE * TILE / 8; n += THREADS) {
        const int64_t row = row0 + n / (TILE / 8);
        const int c = n % (TILE / 8) * 8, left = s.width - col0 - c;
        float x[8] = { 0 };
        if (row >= 0 && row < s.rows) {
            const S *from = s.p + row * s.st + col0 + c;
            if (s.vector && left >= 8) read8(from, x);
            else for (int i = 0; i < 8; i++) x[i] = i < left ? to_float(from[i]) : 0;
        } else if (row == -1 && s.before)
            for (int i = 0; i < 8; i++) x[i] = i < left ? s.before[col0 + c + i] : 0;
        write8(tile + n / (TILE / 8) * LD + c, x);
    }
}

/* Whether a tap, rows row0 .. row0+63, reads anything at all. */
static __device__ __forceinline__ bool reads(int64_t row0, int rows, bool before) { return row0 < rows && row0 + TILE > (before ? -1 : 0); }

/* ---- products ----------------------------------------------------------------------------------------------- */

/* c [64,64] += a b', 16 rows to a warp; A_TURNED, B_TURNED: k goes down the rows of the tile. */
template <bool A_TURNED, bool B_TURNED, class T> static __device__ __forceinline__ void multiply(acc (&c)[BLOCKS], const T *a, const T *b)
{
    #pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        const frag<T> x = A_TURNED ? load_cols(a, k, 16 * warp_id()) : load_rows(a, 16 * warp_id(), k);
        #pragma unroll
        for (int n = 0; n < BLOCKS; n++) product(c[n], x, B_TURNED ? load_cols(b, k, 16 * n) : load_rows(b, 16 * n, k));
    }
}

/* Calls f(row, column, number) for all that a thread has of a tile. */
template <class F> static __device__ __forceinline__ void each_number(const acc (&c)[BLOCKS], F f)
{
    #pragma unroll
    for (int n = 0; n < BLOCKS; n++)
        #pragma unroll
        for (int i = 0; i < 8; i++) f(16 * warp_id() + acc_row(i), 16 * n + acc_col(i), c[n].c[i]);
}

static inline __host__ __device__ int tiles(int n) { return (n + TILE - 1) / TILE; }

/* One tile of out: 64 tokens of (b,h), 64 columns. */
template <class T, class S, class O, bool TURNED> __global__ static void __launch_bounds__(THREADS) tap_product_kernel(tap_product p)
{
    __shared__ __align__(16) T left[TILE * LD], right[TILE * LD];
    const int across = tiles(p.N), n0 = blockIdx.x % across * TILE, t0 = blockIdx.x / across % tiles(p.T) * TILE;
    const int bh = blockIdx.x / across / tiles(p.T), h = bh % p.H, b = bh / p.H;
    const side<S> in = side_of<S>(p.in, b, h, p.T, p.K, p.before ? p.before + (int64_t)bh * p.K : NULL);
    const int64_t size = (int64_t)p.N * p.K;
    acc c[BLOCKS];
    for (int n = 0; n < BLOCKS; n++) clear(c[n]);
    for (int tau = 0; tau < p.range.taps; tau++) {
        const int64_t row0 = t0 + p.range.first + tau * p.range.step;
        if (!reads(row0, p.T, in.before != NULL)) continue;
        const float *w = p.w + (h * (int64_t)p.range.taps + tau) * size;
        const int wide = TURNED ? p.N : p.K;
        const side<float> weight = { w, wide, TURNED ? p.K : p.N, wide, is_aligned(w, wide), NULL };
        for (int k0 = 0; k0 < p.K; k0 += TILE) {
            fill(left, in, row0, k0);
            if (TURNED) fill(right, weight, k0, n0);
            else fill(right, weight, n0, k0);
            __syncthreads();
            multiply<false, TURNED>(c, left, right);
            __syncthreads();
        }
    }
    O *out = (O *)p.out.p + b * p.out.sb + h * p.out.sh;
    each_number(c, [&](int r, int n, float x) {
        if (t0 + r >= p.T || n0 + n >= p.N) return;
        O *to = out + (t0 + r) * p.out.st + n0 + n;
        *to = from_float<O>(x + (p.bias ? p.bias[(int64_t)h * p.N + n0 + n] : 0) + (p.add ? to_float(*to) : 0));
    });
}

/* One tile of dw of one head and tap: the sum over all tokens. */
template <class T, class G, class X> __global__ static void __launch_bounds__(THREADS) tap_gradient_kernel(tap_gradient p)
{
    __shared__ __align__(16) T left[TILE * LD], right[TILE * LD];
    const int across = tiles(p.N), n0 = blockIdx.x % across * TILE, m0 = blockIdx.x / across % tiles(p.M) * TILE;
    const int at = blockIdx.x / across / tiles(p.M), tau = at % p.range.taps, h = at / p.range.taps;
    const int64_t shift = p.range.first + tau * p.range.step;
    acc c[BLOCKS];
    for (int n = 0; n < BLOCKS; n++) clear(c[n]);
    for (int b = 0; b < p.B; b++) {
        const float *before = p.before ? p.before + ((int64_t)b * p.H + h) * p.N : NULL;
        const side<G> g = side_of<G>(p.g, b, h, p.T, p.M, NULL);
        const side<X> x = side_of<X>(p.x, b, h, p.T, p.N, before);
        for (int t0 = 0; t0 < p.T; t0 += TILE) {
            if (!reads(t0 + shift, p.T, before != NULL)) continue;
            fill(left, g, t0, m0);
            fill(right, x, t0 + shift, n0);
            __syncthreads();
            multiply<true, true>(c, left, right);
            __syncthreads();
        }
    }
    float *dw = p.dw + (int64_t)at * p.M * p.N;
    each_number(c, [&](int m, int n, float x) {
        if (m0 + m < p.M && n0 + n < p.N) dw[(int64_t)(m0 + m) * p.N + n0 + n] += x;
    });
}

/* ---- sums over tokens, column by column ----------------------------------------------------------------------- */

enum { COLUMNS = 32, STRIPES = 32 };    /* of a block; a stripe takes every STRIPES-th token */

/* dw [H,taps,M] += sum of g x, number by number; without x the sum of g (and one tap). */
template <class G, class X> __global__ static void __launch_bounds__(COLUMNS * STRIPES) column_sum_kernel(tap_gradient p)
{
    __shared__ float part[STRIPES][COLUMNS + 1];
    const int across = (p.M + COLUMNS - 1) / COLUMNS, column = threadIdx.x % COLUMNS, stripe = threadIdx.x / COLUMNS;
    const int m = blockIdx.x % across * COLUMNS + column, at = blockIdx.x / across, h = at / p.range.taps;
    const int64_t shift = p.range.first + at % p.range.taps * p.range.step;
    float sum = 0;
    for (int b = 0; b < p.B && m < p.M; b++) {
        const G *g = (const G *)p.g.p + b * p.g.sb + h * p.g.sh + m;
        const X *x = (const X *)p.x.p + b * p.x.sb + h * p.x.sh + m;
        for (int t = stripe; t < p.T; t += STRIPES) {
            const int64_t j = t + shift;
            if (!p.x.p) sum += to_float(g[t * p.g.st]);
            else if (j >= 0 && j < p.T) sum += to_float(g[t * p.g.st]) * to_float(x[j * p.x.st]);
        }
    }
    part[stripe][column] = sum;
    __syncthreads();
    if (stripe || m >= p.M) return;
    for (int s = 1; s < STRIPES; s++) sum += part[s][column];
    p.dw[(int64_t)at * p.M + m] += sum;
}

/* ---- zeros ------------------------------------------------------------------------------------------------------ */

enum { MAP_THREADS = 256, MOST_BLOCKS = 132 * 32 };
static inline unsigned map_blocks(int64_t n)
{
    const int64_t wanted = (n + MAP_THREADS - 1) / MAP_THREADS;
    return (unsigned)(wanted < MOST_BLOCKS ? wanted : (int64_t)MOST_BLOCKS);
}

/* x [B,H,T,D] = 0. */
template <class T> __global__ static void __launch_bounds__(MAP_THREADS) zero_kernel(k_heads x, int64_t n, int H, int rows, int D)
{
    for (int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * MAP_THREADS) {
        const int64_t t = i / D % rows, h = i / D / rows % H, b = i / D / rows / H;
        ((T *)x.p)[b * x.sb + h * x.sh + t * x.st + i % D] = from_float<T>(0);
    }
}

/* ---- queueing: each is left out where nobody wants its result ----------------------------------------------------- */

template <class T> static void queue_zero(k_heads x, int B, int H, int rows, int D, cudaStream_t stream)
{
    const int64_t n = (int64_t)B * H * rows * D;
    if (x.p && n) zero_kernel<T><<<map_blocks(n), MAP_THREADS, 0, stream>>>(x, n, H, rows, D);
}
template <class T, class S, class O, bool TURNED> static void queue_product(const tap_product &p, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)((int64_t)tiles(p.N) * tiles(p.T) * p.H * p.B);
    if (p.out.p) tap_product_kernel<T, S, O, TURNED><<<blocks, THREADS, 0, stream>>>(p);
}
template <class T, class G, class X> static void queue_gradient(const tap_gradient &p, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)((int64_t)tiles(p.N) * tiles(p.M) * p.range.taps * p.H);
    if (p.dw) tap_gradient_kernel<T, G, X><<<blocks, THREADS, 0, stream>>>(p);
}
template <class G, class X> static void queue_column_sum(const tap_gradient &p, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)((int64_t)((p.M + COLUMNS - 1) / COLUMNS) * p.range.taps * p.H);
    if (p.dw) column_sum_kernel<G, X><<<blocks, COLUMNS * STRIPES, 0, stream>>>(p);
}
#endif
