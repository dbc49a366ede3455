/* lsh_tile.cuh - tiles of gathered rows in shared memory, and their products by the tensor cores of any chip from sm_80 on.
 *
 * A float is the sum of three bfloat16 exactly, since each of them holds 8 of its 24 bits.  So a tile of N rows lies as
 * that many planes [N][PITCH], and a product of two tiles is the sum of the six largest products of planes: what is left
 * out is below 2^-23 of it.  The tensor cores cut sums off where floats round them; therefore the product of the leading
 * planes is summed apart from the rest.  A tile of bfloat16 is one plane, and its product one.
 *
 * A warp has 16 rows; sums lie in its registers as attention_tile.cuh says. */
#ifndef KERNELS_CUDA_LSH_TILE_CUH
#define KERNELS_CUDA_LSH_TILE_CUH
#include "device.cuh"
#include "softmax_rows.cuh"

/* Planes of a number; rows of the block's own tile and of those it goes over; threads of a block. */
template <class T> constexpr int PLANES = sizeof(T) == 4 ? 3 : 1;
template <class T, int D> constexpr int OWN = sizeof(T) == 4 && D == 256 ? 32 : 64;
enum { OTHER = 32 };
template <class T, int D> constexpr int WORKERS = 2 * OWN<T, D>;
/* Numbers of a tile of N rows. */
template <class T, int D, int N> constexpr int TILE = PLANES<T> * N * PITCH<bf16, D>;

/* A token where it stands: its number (-1: none), chunk, bucket, and 1 / the length of its key. */
struct __align__(16) token { int number, chunk, bucket; float inverse; };

/* ---- bringing in -------------------------------------------------------------------------------------------------- */

/* Two numbers as sums of P bfloat16; x[n] holds part n of both, the first in the low half. */
template <int P> __device__ inline void cut(float a, float b, uint32_t (&x)[P])
{
    #pragma unroll
    for (int n = 0; n < P; n++) {
        x[n] = halves(a, b);
        a -= __uint_as_float(x[n] << 16);
        b -= __uint_as_float(x[n] & 0xffff0000u);
    }
}

/* 16 bytes of numbers to their place in P planes, so many numbers apart. */
template <int P> __device__ inline void put(bf16 *to, int plane, const pack<bf16> &x)
{
    *(pack<bf16> *)to = x;
    #pragma unroll
    for (int n = 1; n < P; n++)
        *(pack<bf16> *)(to + n * plane) = {};
}
template <int P> __device__ inline void put(bf16 *to, int plane, const pack<float> &x)
{
    uint32_t left[P], right[P];
    cut(x.v[0], x.v[1], left);
    cut(x.v[2], x.v[3], right);
    #pragma unroll
    for (int n = 0; n < P; n++)
        *(uint2 *)(to + n * plane) = make_uint2(left[n], right[n]);
}

/* The thread's next parts of the rows of tokens, from part `from` on; zeros where there is no token.  x: row of token 0,
 * st: from one row to the next.  vec: rows begin at multiples of 16 bytes and are as long. */
enum { ATONCE = 4 };
template <class T, int D, int N>
__device__ inline void fetch(pack<T> (&parts)[ATONCE], const T *x, int64_t st, const token *at, int from, int width, bool vec)
{
    constexpr int EACH = pack<T>::N, PER = D / EACH, W = WORKERS<T, D>;
    if (vec) {
        #pragma unroll
        for (int n = 0, i = from; n < ATONCE && n < N * PER / W; n++, i += W) {
            const int token = at[i / PER].number, d = i % PER * EACH;
            parts[n] = {};
            if (token >= 0 && d < width)
                parts[n] = *(const pack<T> *)(x + token * st + d);
        }
    } else {
        #pragma unroll
        for (int n = 0, i = from; n < ATONCE && n < N * PER / W; n++, i += W)
            #pragma unroll
            for (int e = 0; e < EACH; e++) {
                const int token = at[i / PER].number, d = i % PER * EACH + e;
                parts[n].v[e] = token >= 0 && d < width ? x[token * st + d] : T(0);
            }
    }
}
template <class T, int D, int N> __device__ inline void place(bf16 *tile, const pack<T> (&parts)[ATONCE], int from)
{
    constexpr int EACH = pack<T>::N, PER = D / EACH, W = WORKERS<T, D>;
    #pragma unroll
    for (int n = 0, i = from; n < ATONCE && n < N * PER / W; n++, i += W)
        put<PLANES<T>>(tile + i / PER * PITCH<bf16, D> + i % PER * EACH, N * PITCH<bf16, D>, parts[n]);
}

/* ---- the thread's part of a row, two numbers of every eight ------------------------------------------------------- */

template <class T, int D> __device__ inline void get_row(float (&x)[D / 4], const T *row, int width, bool vec)
{
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const int d = column_of(n, 0);
        pack<T, 2> two = {};
        if (vec) {
            if (d < width)
                two = *(const pack<T, 2> *)(row + d);
        } else {
            two.v[0] = d < width ? row[d] : T(0), two.v[1] = d + 1 < width ? row[d + 1] : T(0);
        }
        x[2 * n] = float(two.v[0]), x[2 * n + 1] = float(two.v[1]);
    }
}
template <class T, int D> __device__ inline void put_row(T *row, int width, bool vec, const float (&x)[D / 4])
{
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const int d = column_of(n, 0);
        if (vec && d < width)
            *(pack<T, 2> *)(row + d) = { T(x[2 * n]), T(x[2 * n + 1]) };
        if (!vec && d < width)
            row[d] = T(x[2 * n]);
        if (!vec && d + 1 < width)
            row[d + 1] = T(x[2 * n + 1]);
    }
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* sum, rest [16,8 M] += a [16,16] b [16,8 M]: the product of leading parts, and the others. */
template <int P, int M>
__device__ inline void add_products(float (&sum)[M][4], float (&rest)[M][4], const uint32_t (&a)[P][4], const uint32_t (&b)[P][M / 2][4])
{
    #pragma unroll
    for (int both = P - 1; both >= 0; both--)
        #pragma unroll
        for (int i = 0; i <= both; i++)
            #pragma unroll
            for (int n = 0; n < M; n++)
                multiply(both ? rest[n] : sum[n], a[i], b[both - i][n / 2][n % 2 * 2], b[both - i][n / 2][n % 2 * 2 + 1]);
}

/* s [16,N] += x [16,D] y [N,D]^T; x: the warp's rows of a tile of R. */
template <int P, int D, int R, int N> __device__ inline void tile_nt(float (&s)[N / 8][4], const bf16 *x, const bf16 *y)
{
    const int lane = threadIdx.x % 32;
    float rest[N / 8][4] = {};
    x += lane % 16 * PITCH<bf16, D> + lane / 16 * 8;
    y += (lane % 8 + lane / 16 * 8) * PITCH<bf16, D> + lane / 8 % 2 * 8;
    #pragma unroll 4
    for (int k = 0; k < D; k += 16) {
        uint32_t a[P][4], b[P][N / 16][4];
        #pragma unroll
        for (int i = 0; i < P; i++) {
            read_blocks<false>(a[i], x + i * R * PITCH<bf16, D> + k);
            #pragma unroll
            for (int n = 0; n < N / 16; n++)
                read_blocks<false>(b[i][n], y + (i * N + 16 * n) * PITCH<bf16, D> + k);
        }
        add_products<P>(s, rest, a, b);
    }
    #pragma unroll
    for (int n = 0; P > 1 && n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] += rest[n][e];
}

/* o [16,D] += p [16,N] y [N,D]. */
template <int P, int D, int N> __device__ inline void tile_nn(float (&o)[D / 8][4], const float (&p)[N / 8][4], const bf16 *y)
{
    constexpr int M = D == 256 ? 2 : 4;                     /* blocks of 8 columns at once: registers are short */
    const int lane = threadIdx.x % 32;
    uint32_t left[N / 16][P][4];
    y += lane % 16 * PITCH<bf16, D> + lane / 16 * 8;
    #pragma unroll
    for (int i = 0; i < N / 4; i++) {
        uint32_t parts[P];
        cut(p[i / 2][i % 2 * 2], p[i / 2][i % 2 * 2 + 1], parts);
        #pragma unroll
        for (int n = 0; n < P; n++)
            left[i / 4][n][i % 4] = parts[n];
    }
    #pragma unroll
    for (int d = 0; d < D / 8; d += M) {
        float sum[M][4] = {}, rest[M][4] = {};
        #pragma unroll
        for (int k = 0; k < N / 16; k++) {
            uint32_t b[P][M / 2][4];
            #pragma unroll
            for (int i = 0; i < P; i++)
                #pragma unroll
                for (int n = 0; n < M / 2; n++)
                    read_blocks<true>(b[i][n], y + (i * N + 16 * k) * PITCH<bf16, D> + 8 * d + 16 * n);
            add_products<P>(sum, rest, left[k], b);
        }
        #pragma unroll
        for (int n = 0; n < M; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++)
                o[d + n][e] += sum[n][e] + rest[n][e];
    }
}

/* q [16,D/2] += columns m0 .. of s [R,N], turned, by columns d0 .. of y [R,D]; s: planes of rows of N + 8 numbers. */
template <int P, int D, int R, int N> __device__ inline void tile_tn(float (&q)[D / 16][4], const bf16 *s, int m0, const bf16 *y, int d0)
{
    const int lane = threadIdx.x % 32;
    float rest[D / 16][4] = {};
    s += (lane % 8 + lane / 16 * 8) * (N + 8) + m0 + lane / 8 % 2 * 8;
    y += lane % 16 * PITCH<bf16, D> + d0 + lane / 16 * 8;
    #pragma unroll
    for (int k = 0; k < R; k += 16) {
        uint32_t a[P][4], b[P][D / 32][4];
        #pragma unroll
        for (int i = 0; i < P; i++) {
            read_blocks<true>(a[i], s + (i * R + k) * (N + 8));
            #pragma unroll
            for (int n = 0; n < D / 32; n++)
                read_blocks<true>(b[i][n], y + (i * R + k) * PITCH<bf16, D> + 16 * n);
        }
        add_products<P>(q, rest, a, b);
    }
    #pragma unroll
    for (int n = 0; P > 1 && n < D / 16; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            q[n][e] += rest[n][e];
}
#endif
