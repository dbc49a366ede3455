/* convert.cu - from any dtype to any other, rounding to nearest even. */
#include "device.cuh"
#include <cuda_fp16.h>

/* Through float, which holds every bf16 and f16, except between double and the integers. */
template <class To, class From> static inline __device__ To converted(From x) { return (To)(float)x; }
template <> inline __device__ double converted(int32_t x) { return (double)x; }
template <> inline __device__ int32_t converted(double x) { return (int32_t)llrint(x); }
template <> inline __device__ int32_t converted(float x) { return (int32_t)llrintf(x); }
template <> inline __device__ int32_t converted(bf16 x) { return (int32_t)llrintf((float)x); }
template <> inline __device__ int32_t converted(__half x) { return (int32_t)llrintf((float)x); }
template <> inline __device__ __half converted(double x) { return __double2half(x); }

/* Eight elements a thread, so that 16 bytes of the narrower type pass at once. */
enum { RUN = 8, THREADS = 256 };
template <class T> struct alignas(sizeof(T) * RUN > 16 ? 16 : sizeof(T) * RUN) run { T v[RUN]; };

template <class To, class From> __global__ static void __launch_bounds__(THREADS) convert_kernel(int64_t n, To *y, const From *x)
{
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x, threads = (int64_t)gridDim.x * THREADS;
    const int64_t runs = aligned16(y) && aligned16(x) ? n / RUN : 0;
    for (int64_t i = thread; i < runs; i += threads) {
        const run<From> in = ((const run<From> *)x)[i];
        run<To> out;
#pragma unroll
        for (int e = 0; e < RUN; e++)
            out.v[e] = converted<To, From>(in.v[e]);
        ((run<To> *)y)[i] = out;
    }
    for (int64_t i = runs * RUN + thread; i < n; i += threads)
        y[i] = converted<To, From>(x[i]);
}

template <class To, class From> static void convert(k_dev *dev, int64_t n, void *dst, const void *src)
{
    CUDA_RUN(dev, (convert_kernel<To, From>), cuda_blocks(dev, n, THREADS * RUN), THREADS, n, (To *)dst, (const From *)src);
}

template <class From> static void convert_from(k_dev *dev, int64_t n, void *dst, k_dtype to, const void *src)
{
    switch (to) {
    case K_F32: convert<float, From>(dev, n, dst, src); break;
    case K_F64: convert<double, From>(dev, n, dst, src); break;
    case K_BF16: convert<bf16, From>(dev, n, dst, src); break;
    case K_F16: convert<__half, From>(dev, n, dst, src); break;
    case K_I32: convert<int32_t, From>(dev, n, dst, src); break;
    }
}

void cuda_convert(k_dev *dev, int64_t n, void *dst, k_dtype to, const void *src, k_dtype from)
{
    if (n <= 0)
        return;
    if (to == from) {
        cuda_copy(dev, dst, src, (size_t)n * k_dtype_size(to));
        return;
    }
    switch (from) {
    case K_F32: convert_from<float>(dev, n, dst, to, src); break;
    case K_F64: convert_from<double>(dev, n, dst, to, src); break;
    case K_BF16: convert_from<bf16>(dev, n, dst, to, src); break;
    case K_F16: convert_from<__half>(dev, n, dst, to, src); break;
    case K_I32: convert_from<int32_t>(dev, n, dst, to, src); break;
    }
}
