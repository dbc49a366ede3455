/* attention_tile.cuh - products of tiles in shared memory by the tensor cores of any chip from sm_80 on.
 *
 * A warp has 16 rows.  Sums lie in its registers as the instruction leaves them: number n of s [N/8][4] is
 * row lane/4 (+ 8 when n is 2 or 3), column 2 (lane%4) + n%2 of the 8 columns.  In that place they are also the left
 * factor of the next product, so that weights never leave registers.
 *
 * bfloat16: m16n8k16.  float: m16n8k8 in tf32, three times, over operands split into a high and a low half of 11 bits
 * each: products are good to 2^-22, sums are float. */
#ifndef ATTENTION_TILE_CUH
#define ATTENTION_TILE_CUH
#include <cstdint>
#include <cuda_bf16.h>

typedef __nv_bfloat16 bf16;
enum { THREADS = 128, ROWS = 64 };                          /* of a block: four warps of 16 rows */

/* Elements from one row of a tile to the next: 16 bytes more than a row, against bank conflicts. */
template <class T, int D> constexpr int PITCH = D + 16 / (int)sizeof(T);

__device__ inline uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- bringing in ---------------------------------------------------------------------------------------------- */

/* 16 bytes to shared memory, zeros unless there are any. */
__device__ inline void copy16(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until all but the newest N groups are there. */
template <int N> __device__ inline void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* tile [N][D] = rows r0 .. r0 + N - 1 of x, each of width elements; zeros beyond the width and where x has no row.  vec:
 * rows begin at multiples of 16 bytes and are as long; then the copy goes on behind, until wait().  X: there(r), row(r)
 * and, when step is not 0, rows that begin step elements apart. */
template <class T, int D, int N, class X> __device__ inline void bring(T *tile, const X &x, int r0, int width, bool vec)
{
    constexpr int EACH = 16 / sizeof(T), PER = D / EACH, ATONCE = THREADS / PER;
    const int r = threadIdx.x / PER, d = threadIdx.x % PER * EACH;
    if (vec && x.step) {
        const T *from = x.row(r0) + r * x.step + d;
        #pragma unroll
        for (int i = 0; i < N / ATONCE; i++, from += ATONCE * x.step) {
            const bool there = x.there(r0 + r + i * ATONCE) && d < width;
            copy16(tile + (r + i * ATONCE) * PITCH<T, D> + d, there ? from : x.p, there);
        }
    } else if (vec) {
        #pragma unroll 1
        for (int i = r; i < N; i += ATONCE) {
            const bool there = x.there(r0 + i) && d < width;
            copy16(tile + i * PITCH<T, D> + d, there ? x.row(r0 + i) + d : x.p, there);
        }
    } else {
        #pragma unroll 1
        for (int i = threadIdx.x; i < N * D; i += THREADS)
            tile[i / D * PITCH<T, D> + i % D] = x.there(r0 + i / D) && i % D < width ? x.row(r0 + i / D)[i % D] : T(0);
    }
}

/* ---- bfloat16 ------------------------------------------------------------------------------------------------- */

/* Four 8x8 blocks, whose rows begin where lanes 0-7, 8-15, 16-23 and 24-31 say; turned: transposed. */
template <bool TURNED> __device__ inline void read_blocks(uint32_t (&x)[4], const bf16 *row)
{
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(shared_address(row)));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(shared_address(row)));
}

/* c [16,8] += a [16,16] b [16,8]. */
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two numbers, the first in the low half. */
__device__ inline uint32_t halves(float x, float y)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&two);
}

/* s [16,N] += x [16,D] y [N,D]^T; x: the warp's rows of a tile. */
template <int D, int N> __device__ inline void product_nt(float (&s)[N / 8][4], const bf16 *x, const bf16 *y)
{
    const int lane = threadIdx.x % 32;
    #pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t a[4], b[4];
        read_blocks<false>(a, x + lane % 16 * PITCH<bf16, D> + k + lane / 16 * 8);
        #pragma unroll
        for (int n = 0; n < N; n += 16) {
            read_blocks<false>(b, y + (n + lane % 8 + lane / 16 * 8) * PITCH<bf16, D> + k + lane / 8 % 2 * 8);
            multiply(s[n / 8], a, b[0], b[1]);
            multiply(s[n / 8 + 1], a, b[2], b[3]);
        }
    }
}

/* o [16,E] += p [16,N] y [N,E]; y: columns of a tile of width D. */
template <int D, int N, int E> __device__ inline void product_nn(float (&o)[E / 8][4], const float (&p)[N / 8][4], const bf16 *y)
{
    const int lane = threadIdx.x % 32;
    #pragma unroll
    for (int k = 0; k < N / 16; k++) {
        const float(&l)[4] = p[2 * k], (&r)[4] = p[2 * k + 1];
        const uint32_t a[4] = { halves(l[0], l[1]), halves(l[2], l[3]), halves(r[0], r[1]), halves(r[2], r[3]) };
        #pragma unroll
        for (int n = 0; n < E; n += 16) {
            uint32_t b[4];
            read_blocks<true>(b, y + (k * 16 + lane % 16) * PITCH<bf16, D> + n + lane / 16 * 8);
            multiply(o[n / 8], a, b[0], b[1]);
            multiply(o[n / 8 + 1], a, b[2], b[3]);
        }
    }
}

/* ---- float ------------------------------------------------------------------------------------------------------ */

/* The halves of x: high + low = x to 22 bits. */
__device__ inline void split(float x, uint32_t *high, uint32_t *low)
{
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(*high) : "f"(x));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(*low) : "f"(x - __uint_as_float(*high)));
}

/* c [16,8] += a [16,8] b [8,8], in tf32. */
__device__ inline void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A left factor in halves. */
struct halved { uint32_t high[4], low[4]; };
__device__ inline halved halve(float a0, float a1, float a2, float a3)
{
    halved a;
    split(a0, &a.high[0], &a.low[0]);
    split(a1, &a.high[1], &a.low[1]);
    split(a2, &a.high[2], &a.low[2]);
    split(a3, &a.high[3], &a.low[3]);
    return a;
}

/* c [16,8] += a [16,8] b [8,8], the small products first.  The tensor cores cut sums off where floats round them:
 * over thousands of keys that would show, so that they sum eight products and an addition does the rest. */
__device__ inline void multiply(float (&c)[4], const halved &a, float b0, float b1)
{
    uint32_t high[2], low[2];
    float sum[4] = {};
    split(b0, &high[0], &low[0]);
    split(b1, &high[1], &low[1]);
    multiply_tf32(sum, a.low, high);
    multiply_tf32(sum, a.high, low);
    multiply_tf32(sum, a.high, high);
    #pragma unroll
    for (int i = 0; i < 4; i++)
        c[i] += sum[i];
}

/* s [16,N] += x [16,D] y [N,D]^T; x: the warp's rows of a tile. */
template <int D, int N> __device__ inline void product_nt(float (&s)[N / 8][4], const float *x, const float *y)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, P = PITCH<float, D>;
    #pragma unroll 4
    for (int k = 0; k < D; k += 8) {
        const float *a = x + g * P + k + t;
        const halved left = halve(a[0], a[8 * P], a[4], a[8 * P + 4]);
        #pragma unroll
        for (int n = 0; n < N / 8; n++) {
            const float *b = y + (8 * n + g) * P + k + t;
            multiply(s[n], left, b[0], b[4]);
        }
    }
}

/* o [16,E] += p [16,N] y [N,E]; y: columns of a tile of width D.  Within eight rows of y the order of the sum is that
 * in which p lies: t is row 2t, t + 4 is row 2t + 1. */
template <int D, int N, int E> __device__ inline void product_nn(float (&o)[E / 8][4], const float (&p)[N / 8][4], const float *y)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, P = PITCH<float, D>;
    #pragma unroll
    for (int k = 0; k < N / 8; k++) {
        const halved left = halve(p[k][0], p[k][2], p[k][1], p[k][3]);
        #pragma unroll
        for (int n = 0; n < E / 8; n++) {
            const float *b = y + (8 * k + 2 * t) * P + 8 * n + g;
            multiply(o[n], left, b[0], b[P]);
        }
    }
}
#endif
