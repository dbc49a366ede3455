/* pool.cu - the mean over the tokens of a sequence. */
#include "device.cuh"

enum { WARP = 32, WARPS = 16 };

/* A block for a sequence and 32 columns; warp w sums the rows w, w + WARPS ..., and the first adds up what they have, in order.
 * out [B,d], x [B,rows,d], len [B] or NULL */
template <class T> __global__ static void __launch_bounds__(WARP *WARPS)
pool_kernel(int64_t rows, int64_t d, T *out, const T *x, const int32_t *len)
{
    __shared__ wide<T> part[WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t b = blockIdx.x, j = (int64_t)blockIdx.y * WARP + lane, n = len ? len[b] : rows;
    const T *from = x + b * rows * d + j;
    wide<T> sum = 0;
    if (j < d)
#pragma unroll 8
        for (int64_t i = warp; i < n; i += WARPS)
            sum += (wide<T>)from[i * d];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || j >= d)
        return;
    for (int w = 1; w < WARPS; w++)
        sum += part[w][lane];
    out[b * d + j] = (T)(n > 0 ? sum / (wide<T>)n : 0);
}

void cuda_pool_forward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, void *out, const void *x, const int32_t *len)
{
    const dim3 blocks((unsigned)B, (unsigned)((d + WARP - 1) / WARP));
    if (B <= 0 || d <= 0)
        return;
    CUDA_TYPED(t, pool_kernel<T><<<blocks, WARP * WARPS, 0, cuda_stream(dev)>>>(rows, d, (T *)out, (const T *)x, len));
    cuda_failed(dev, cudaPeekAtLastError(), "pool_kernel");
}

/* dx [B,rows,d], dout [B,d], len [B] or NULL */
template <class T> __global__ static void
pool_back_kernel(int64_t B, int64_t rows, int64_t d, int add, T *dx, const T *dout, const int32_t *len)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < B * rows * d; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t r = i / d, b = r / rows, n = len ? len[b] : rows;
        const wide<T> share = r % rows < n ? (wide<T>)dout[b * d + i % d] / (wide<T>)n : 0;
        dx[i] = (T)(add ? (wide<T>)dx[i] + share : share);
    }
}

void cuda_pool_backward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, int add, void *dx, const void *dout, const int32_t *len)
{
    if (B * rows * d > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, pool_back_kernel<T>, cuda_blocks(dev, B * rows * d, 256), 256, B, rows, d, add, (T *)dx, (const T *)dout, len));
}
