/* softmax_rows.cuh - the running softmax over tiles of scores as attention_tile.cuh leaves them in registers: each thread
 * has parts of two rows, which four lanes share.  Scores are in powers of two. */
#ifndef KERNELS_CUDA_SOFTMAX_ROWS_CUH
#define KERNELS_CUDA_SOFTMAX_ROWS_CUH
#include "attention_tile.cuh"
#include "../heads.h"
#include <cmath>

static constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/* Row and column in the block of number e of the thread's part n. */
__device__ inline int row_of(int e) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * (e / 2); }
__device__ inline int column_of(int n, int e) { return 8 * n + threadIdx.x % 4 * 2 + e % 2; }

/* 2^x. */
__device__ inline float power(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Over the four lanes that share a row. */
__device__ inline float quad_most(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* Scores to weights under the running maximum and sum (each lane's own share of it); brings o under the new maximum. */
template <int N, int E> __device__ inline void online(float (&s)[N / 8][4], float (&top)[2], float (&sum)[2], float (&o)[E / 8][4])
{
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        float now = top[i], part = 0;
        #pragma unroll
        for (int n = 0; n < N / 8; n++)
            now = fmaxf(now, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        now = quad_most(now);
        const float base = now == -INFINITY ? 0 : now, keep = power(top[i] - base);
        #pragma unroll
        for (int n = 0; n < N / 8; n++) {
            s[n][2 * i] = power(s[n][2 * i] - base);
            s[n][2 * i + 1] = power(s[n][2 * i + 1] - base);
            part += s[n][2 * i] + s[n][2 * i + 1];
        }
        sum[i] = sum[i] * keep + part;
        top[i] = now;
        #pragma unroll
        for (int n = 0; n < E / 8; n++)
            o[n][2 * i] *= keep, o[n][2 * i + 1] *= keep;
    }
}

/* Row (b,h,t). */
template <class T> __device__ inline T *row_at(const k_heads &x, int b, int h, int64_t t)
{
    return (T *)x.p + b * x.sb + h * x.sh + t * x.st;
}

/* The thread's part of its row i: row [width] = factor x, plus what is there if add. */
template <class T, int E> __device__ inline void put_row(T *row, int width, int i, float factor, bool add, const float (&x)[E / 8][4])
{
    #pragma unroll
    for (int n = 0; n < E / 8; n++)
        #pragma unroll
        for (int e = 0; e < 2; e++)
            if (column_of(n, e) < width) {
                T *to = row + column_of(n, e);
                *to = T(factor * x[n][2 * i + e] + (add ? float(*to) : 0));
            }
}
#endif
