/* loss.cu - losses by row, and what a row weighs in their mean.  A block a row: 256 threads, fixed order of sums. */
#include "block.cuh"

enum { THREADS = 256, MOST_HELD = 112 << 10 };     /* bytes of a row that stays in shared memory: two rows have room there */

/* ---- walking along a row ------------------------------------------------------------------------------------------------- */

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

/* The same where a gradient is made, g[j] = (add ? g[j] : 0) + f(j, y[j]), g [d]; g may be y. */
template <class T, class F> static inline __device__ void make_columns(int64_t d, const T *y, int add, T *g, F f)
{
    const int64_t packs = aligned16(y) && aligned16(g) ? d / pack<T>::N : 0;
#pragma unroll 2
    for (int64_t i = threadIdx.x; i < packs; i += THREADS) {
        const pack<T> v = ((const pack<T> *)y)[i];
        pack<T> s;
        if (add)
            s = ((const pack<T> *)g)[i];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            s.v[e] = (T)((add ? (wide<T>)s.v[e] : 0) + f(i * pack<T>::N + e, (wide<T>)v.v[e]));
        ((pack<T> *)g)[i] = s;
    }
    for (int64_t j = packs * pack<T>::N + threadIdx.x; j < d; j += THREADS)
        g[j] = (T)((add ? (wide<T>)g[j] : 0) + f(j, (wide<T>)y[j]));
}

/* ---- the mean's weight ------------------------------------------------------------------------------------------------------ */

__global__ static void __launch_bounds__(THREADS) weight_kernel(int64_t n, const int32_t *target, double *weight)
{
    double counted = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        counted += target[i] >= 0;
    counted = block_sum<THREADS>(counted);
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
    s = block_sum<THREADS>(s);
    if (threadIdx.x == 0)
        loss[r] = (wide<T>)0.5 * s;
}

template <class T> __global__ static void __launch_bounds__(THREADS)
half_sq_back_kernel(int64_t d, const double *w, int add, T *dy, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    const wide<T> weight = hit >= 0 ? (wide<T>)*w : 0;
    if (hit >= 0 || !add)
        make_columns(d, y + r * d, add, dy + r * d, [&](int64_t j, wide<T> v) { return weight * (j == hit ? v - 1 : v); });
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
    *max = block_max<THREADS>(m);
    *total = block_sum<THREADS>(m == -INFINITY ? s : s * exp_of(m - *max));      /* a NaN in s stays */
}

/* The sum of a row y [d], in every thread. */
template <class T> static __device__ wide<T> sum_of(int64_t d, const T *y)
{
    wide<T> s = 0;
    each_column(d, y, [&](int64_t, wide<T> v) { s += v; });
    return block_sum<THREADS>(s);
}

/* lse(y) - q y of a row y [d], which every thread calls and one gets right: that of thread 0. */
template <class T>
static __device__ wide<T> entropy(int64_t d, wide<T> smoothing, const T *y, int64_t hit, wide<T> max, wide<T> total)
{
    const wide<T> even = smoothing > 0 ? smoothing / (wide<T>)d * sum_of(d, y) : 0;
    return log_of(total) + max - (1 - smoothing) * (wide<T>)y[hit] - even;
}

template <class T> __global__ static void __launch_bounds__(THREADS)
xent_kernel(int64_t d, int64_t ld, wide<T> smoothing, wide<T> *loss, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    wide<T> max, total, value = 0;
    if (hit >= 0) {
        softmax_of(d, y + r * ld, &max, &total);
        value = entropy(d, smoothing, y + r * ld, hit, max, total);
    }
    if (threadIdx.x == 0)
        loss[r] = value;
}

template <class T> __global__ static void __launch_bounds__(THREADS)
xent_back_kernel(int64_t d, wide<T> smoothing, const double *w, int add, T *dy, const T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    wide<T> max, total;
    if (hit < 0) {
        if (!add)
            make_columns(d, y + r * d, 0, dy + r * d, [](int64_t, wide<T>) { return (wide<T>)0; });
        return;
    }
    softmax_of(d, y + r * d, &max, &total);
    const wide<T> weight = (wide<T>)*w, c = weight / total, even = weight * smoothing / (wide<T>)d, own = weight * (1 - smoothing);
    make_columns(d, y + r * d, add, dy + r * d, [&](int64_t j, wide<T> v) { return c * exp_of(v - max) - even - (j == hit ? own : 0); });
}

/* The loss, and the gradient in the place of y, zero from d to ld. */
template <class T> __global__ static void __launch_bounds__(THREADS)
xent_both_kernel(int64_t d, int64_t ld, wide<T> smoothing, const double *w, wide<T> *loss, T *y, const int32_t *target)
{
    const int64_t r = blockIdx.x, hit = target[r];
    T *yr = y + r * ld;
    wide<T> max = 0, total = 1, value = 0;
    if (hit >= 0) {
        softmax_of(d, yr, &max, &total);
        value = entropy(d, smoothing, yr, hit, max, total);
    }
    if (threadIdx.x == 0)
        loss[r] = value;
    __syncthreads();                    /* y[hit] is read */
    const wide<T> weight = hit >= 0 ? (wide<T>)*w : 0, c = weight / total, even = weight * smoothing / (wide<T>)d, own = weight * (1 - smoothing);
    make_columns(d, yr, 0, yr, [&](int64_t j, wide<T> v) { return hit >= 0 ? c * exp_of(v - max) - even - (j == hit ? own : 0) : 0; });
    for (int64_t j = d + threadIdx.x; j < ld; j += THREADS)
        yr[j] = (T)0.0f;
}

/* exp(x - max), in one instruction besides a multiply-add where bf16 asks for no more. */
template <class T> static inline __device__ wide<T> exp_beside(wide<T> x, wide<T> max) { return exp_of(x - max); }
template <> inline __device__ float exp_beside<bf16>(float x, float max)
{
    const float log2_e = 1.4426950408889634f;
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(fmaf(x, log2_e, -log2_e * max)));
    return y;
}
static inline __device__ float larger(float x, float y) { return fmaxf(x, y); }
static inline __device__ double larger(double x, double y) { return fmax(x, y); }

/* Calls f(column, number) for the packs v [packs] that are this thread's. */
template <int HOLDERS, class T, class F> static inline __device__ void each_held(int packs, const pack<T> *v, F f)
{
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < packs; i += HOLDERS) {
        const pack<T> p = v[i];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            f(i * pack<T>::N + e, (wide<T>)p.v[e]);
    }
}

/* Brings a row [d] to v, filled up with -inf. */
template <int HOLDERS, class T> static inline __device__ void hold(int d, int packs, const pack<T> *row, pack<T> *v)
{
#pragma unroll 8
    for (int i = (int)threadIdx.x; i < packs; i += HOLDERS)
        v[i] = row[i];
    if ((packs - 1) % HOLDERS == (int)threadIdx.x)
        for (int j = d; j < packs * pack<T>::N; j++)
            ((T *)v)[j] = (T)-INFINITY;
}

/* Writes row[j] = c exp(v[j] - max) - even, zeros from d to ld. */
template <int HOLDERS, class T>
static inline __device__ void spread(int d, int64_t ld, int packs, const pack<T> *v, wide<T> c, wide<T> max, wide<T> even, pack<T> *row)
{
    enum { N = pack<T>::N };
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < packs; i += HOLDERS) {
        const pack<T> p = v[i];
        wide<T> out[N];
#pragma unroll
        for (int e = 0; e < N; e++)
            out[e] = i * N + e < d ? c * exp_beside<T>((wide<T>)p.v[e], max) - even : 0;
        row[i] = packed<T>(out);
    }
    for (int64_t j = packs * N + (int)threadIdx.x; j < ld; j += HOLDERS)
        ((T *)row)[j] = (T)0.0f;
}

/* The same with the row in shared memory, where each of HOLDERS threads keeps its packs: it is read once.  Rows begin aligned;
 * what lies between the end of one and the next becomes zero. */
template <class T, int HOLDERS> __global__ static void __launch_bounds__(HOLDERS)
xent_held_kernel(int d, int64_t ld, wide<T> smoothing, const double *w, wide<T> *loss, T *y, const int32_t *target)
{
    extern __shared__ char room[];
    pack<T> *const v = (pack<T> *)room, *const row = (pack<T> *)(y + blockIdx.x * ld);
    const int hit = target[blockIdx.x], packs = (d + pack<T>::N - 1) / pack<T>::N;
    if (hit < 0) {
        for (int64_t j = threadIdx.x; j < ld; j += HOLDERS)
            ((T *)row)[j] = (T)0.0f;
        if (threadIdx.x == 0)
            loss[blockIdx.x] = 0;
        return;
    }
    const wide<T> own = (wide<T>)((const T *)row)[hit], weight = (wide<T>)*w;
    wide<T> max = -INFINITY, sum = 0, total = 0;
    hold<HOLDERS>(d, packs, row, v);
    each_held<HOLDERS>(packs, v, [&](int, wide<T> x) { max = larger(x, max); });
    max = block_max<HOLDERS>(max);
    each_held<HOLDERS>(packs, v, [&](int, wide<T> x) { total += exp_beside<T>(x, max); });
    total = block_sum<HOLDERS>(total);
    if (smoothing > 0) {
        each_held<HOLDERS>(packs, v, [&](int j, wide<T> x) { sum += j < d ? x : 0; });
        sum = block_sum<HOLDERS>(sum);
    }
    const wide<T> c = weight / total, even = smoothing / (wide<T>)d;
    spread<HOLDERS>(d, ld, packs, v, c, max, weight * even, row);
    __syncthreads();                    /* before the target's own, the only one that is written twice */
    if (threadIdx.x == 0) {
        loss[blockIdx.x] = log_of(total) + max - (1 - smoothing) * own - even * sum;
        ((T *)row)[hit] = (T)(c * exp_beside<T>(own, max) - weight * (even + 1 - smoothing));
    }
}

template <class T, int HOLDERS>
static void xent_held(k_dev *dev, int64_t rows, int64_t d, int64_t ld, wide<T> smoothing, const double *w, wide<T> *loss, T *y, const int32_t *target)
{
    const size_t bytes = (size_t)(d + pack<T>::N) * sizeof(T);
    cuda_failed(dev, cudaFuncSetAttribute(xent_held_kernel<T, HOLDERS>, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_HELD), "xent_held_kernel");
    xent_held_kernel<T, HOLDERS><<<(unsigned)rows, HOLDERS, bytes, cuda_stream(dev)>>>((int)d, ld, smoothing, w, loss, y, target);
    cuda_failed(dev, cudaPeekAtLastError(), "xent_held_kernel");
}

template <class T>
static void xent_both(k_dev *dev, int64_t rows, int64_t d, int64_t ld, wide<T> smoothing, const double *w, wide<T> *loss, T *y, const int32_t *target)
{
    if (!aligned16(y) || ld % pack<T>::N || (d + pack<T>::N) * (int64_t)sizeof(T) > MOST_HELD)
        CUDA_RUN(dev, xent_both_kernel<T>, rows, THREADS, d, ld, smoothing, w, loss, y, target);
    else if (d / pack<T>::N <= 512)
        xent_held<T, 128>(dev, rows, d, ld, smoothing, w, loss, y, target);
    else
        xent_held<T, 512>(dev, rows, d, ld, smoothing, w, loss, y, target);
}

/* ---- the seam ------------------------------------------------------------------------------------------------------------------ */

void cuda_half_sq_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, half_sq_kernel<T>, rows, THREADS, d, (wide<T> *)loss, (const T *)y, target));
}
void cuda_half_sq_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, int add, void *dy, const void *y,
                           const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, half_sq_back_kernel<T>, rows, THREADS, d, w, add, (T *)dy, (const T *)y, target));
}
void cuda_xent_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, void *loss, const void *y,
                       const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, xent_kernel<T>, rows, THREADS, d, ld, (wide<T>)smoothing, (wide<T> *)loss, (const T *)y, target));
}
void cuda_xent_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, double smoothing, const double *w, int add, void *dy,
                        const void *y, const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, xent_back_kernel<T>, rows, THREADS, d, (wide<T>)smoothing, w, add, (T *)dy, (const T *)y, target));
}
void cuda_xent_both(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, const double *w, void *loss, void *y,
                    const int32_t *target)
{
    if (rows > 0)
        CUDA_TYPED(t, xent_both(dev, rows, d, ld, (wide<T>)smoothing, w, (wide<T> *)loss, (T *)y, target));
}
