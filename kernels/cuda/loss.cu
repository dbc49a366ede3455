/* loss.cu - losses by row, and what a row weighs in their mean.  A block a row: 256 threads, fixed order of sums. */
#include "device.cuh"

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP };

/* ---- a block's sum and maximum, in every thread -------------------------------------------------------------------------- */

template <class A> static __device__ A block_sum(A x)
{
    __shared__ A part[WARPS];
    x = warp_sum(x);
    __syncthreads();                    /* the last call's readers are done */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    A total = 0;
    for (int i = 0; i < WARPS; i++)
        total += part[i];
    return total;
}

template <class A> static __device__ A block_max(A x)
{
    __shared__ A part[WARPS];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    A most = part[0];
    for (int i = 1; i < WARPS; i++)
        most = part[i] > most ? part[i] : most;
    return most;
}

/* Calls f(j, y[j]) for every column of a row y [d] that is this thread's, 16 bytes at a time where they are aligned. */
template <class T, class F> static inline __device__ void each_column(int64_t d, const T *y, F f)
{
    const int64_t packs = aligned16(y) ? d / pack<T>::N : 0;
#pragma unroll 2
    for (int64_t i = threadIdx.x; i < packs; i += THREADS) {
        const pack<T> v = ((const pack<T> *)y)[i];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            f(i * pack<T>::N + e, (wide<T>)v.v[e]);
    }
    for (int64_t j = packs * pack<T>::N + threadIdx.x; j < d; j += THREADS)
        f(j, (wide<T>)y[j]);
}

/* The same where a gradient g [d] is added to: g[j] += f(j, y[j]). */
template <class T, class F> static inline __device__ void add_columns(int64_t d, const T *y, T *g, F f)
{
    const int64_t packs = aligned16(y) && aligned16(g) ? d / pack<T>::N : 0;
#pragma unroll 2
    for (int64_t i = threadIdx.x; i < packs; i += THREADS) {
        const pack<T> v = ((const pack<T> *)y)[i];
        pack<T> s = ((const pack<T> *)g)[i];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            s.v[e] = (T)((wide<T>)s.v[e] + f(i * pack<T>::N + e, (wide<T>)v.v[e]));
        ((pack<T> *)g)[i] = s;
    }
    for (int64_t j = packs * pack<T>::N + threadIdx.x; j < d; j += THREADS)
        g[j] = (T)((wide<T>)g[j] + f(j, (wide<T>)y[j]));
}

/* ---- the mean's weight ------------------------------------------------------------------------------------------------------ */

__global__ static void __launch_bounds__(THREADS) weight_kernel(int64_t n, const int32_t *target, double *weight)
{
    double counted = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        counted += target[i] >= 0;
    counted = block_sum(counted);
    if (threadIdx.x == 0)
        *weight = counted > 0 ? 1 / counted : 0;
}

void cuda_mean_weight(k_dev *dev, int64_t n, const int32_t *target, double *weight)
{
    CUDA_RUN(dev, weight_kernel, 1, THREADS, n, target, weight);
}

/* ---- half the square of the distance to a one-hot row --------------------------------------------------------------------- */

template <class T> __global__ static void __launch_bounds__(THREADS)
half_sq_kernel(int64_t d, wide<T> *loss, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    wide<T> s = 0;
    if (hit >= 0)
        each_column(d, y + r * d, [&](int64_t j, wide<T> v) {
            const wide<T> miss = j == hit ? v - 1 : v;
            s += miss * miss;
        });
    s = block_sum(s);
    if (threadIdx.x == 0)
        loss[r] = (wide<T>)0.5 * s;
}

template <class T> __global__ static void __launch_bounds__(THREADS)
half_sq_back_kernel(int64_t d, const double *w, T *dy, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    const wide<T> weight = (wide<T>)*w;
    if (hit >= 0)
        add_columns(d, y + r * d, dy + r * d, [&](int64_t j, wide<T> v) { return weight * (j == hit ? v - 1 : v); });
}

/* ---- softmax cross-entropy -------------------------------------------------------------------------------------------------- */

static inline __device__ float exp_of(float x) { return expf(x); }
static inline __device__ double exp_of(double x) { return exp(x); }
static inline __device__ float log_of(float x) { return logf(x); }
static inline __device__ double log_of(double x) { return log(x); }

/* The maximum m of a row y [d] and the sum of exp(y - m), in every thread, in one pass: a thread's sum is scaled when its
 * maximum grows. */
template <class T> static __device__ void softmax_of(int64_t d, const T *y, wide<T> *max, wide<T> *total)
{
    wide<T> m = -INFINITY, s = 0;
    each_column(d, y, [&](int64_t, wide<T> v) {
        if (v > m) {
            s *= exp_of(m - v);
            m = v;
        }
        s += exp_of(v - m);
    });
    *max = block_max(m);
    *total = block_sum(m == -INFINITY ? s : s * exp_of(m - *max));      /* a NaN in s stays */
}

template <class T> __global__ static void __launch_bounds__(THREADS)
xent_kernel(int64_t d, wide<T> *loss, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    wide<T> max, total;
    if (hit < 0) {
        if (threadIdx.x == 0)
            loss[r] = 0;
        return;
    }
    softmax_of(d, y + r * d, &max, &total);
    if (threadIdx.x == 0)
        loss[r] = log_of(total) + max - (wide<T>)y[r * d + hit];
}

template <class T> __global__ static void __launch_bounds__(THREADS)
xent_back_kernel(int64_t d, const double *w, T *dy, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    wide<T> max, total;
    if (hit < 0)
        return;
    softmax_of(d, y + r * d, &max, &total);
    const wide<T> weight = (wide<T>)*w, c = weight / total;
    add_columns(d, y + r * d, dy + r * d, [&](int64_t j, wide<T> v) { return c * exp_of(v - max) - (j == hit ? weight : 0); });
}

/* ---- the seam ------------------------------------------------------------------------------------------------------------------ */

void cuda_half_sq_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, half_sq_kernel<T>, rows, THREADS, d, (wide<T> *)loss, (const T *)y, target));
}
void cuda_half_sq_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, void *dy, const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, half_sq_back_kernel<T>, rows, THREADS, d, w, (T *)dy, (const T *)y, target));
}
void cuda_xent_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, xent_kernel<T>, rows, THREADS, d, (wide<T> *)loss, (const T *)y, target));
}
void cuda_xent_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, void *dy, const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, xent_back_kernel<T>, rows, THREADS, d, w, (T *)dy, (const T *)y, target));
}
