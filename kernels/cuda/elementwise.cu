/* elementwise.cu - fills, sums, products, activations and dropout, element by element. */
#include "map.cuh"
#include "../philox.h"

template <class T> __global__ static void fill_kernel(int64_t n, T *x, T value)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        x[i] = value;
}

void cuda_fill(k_dev *dev, k_dtype t, int64_t n, void *x, double value)
{
    if (n > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, fill_kernel<T>, cuda_blocks(dev, n, 1024), 256, n, (T *)x, (T)value));
}

template <class W> struct axpy_of { W a; __device__ W operator()(const W *v) const { return v[1] + a * v[0]; } };
template <class W> struct scale_of { W a; __device__ W operator()(const W *v) const { return a * v[0]; } };
template <class W> struct approach_of { W rate; __device__ W operator()(const W *v) const { return v[1] + rate * (v[0] - v[1]); } };
template <class W> struct sum_of { __device__ W operator()(const W *v) const { return v[0] + v[1]; } };
template <class W> struct product_of { __device__ W operator()(const W *v) const { return v[0] * v[1]; } };
template <class W> struct more_product_of { __device__ W operator()(const W *v) const { return v[2] + v[0] * v[1]; } };

void cuda_axpy(k_dev *dev, k_dtype t, int64_t n, double a, const void *x, void *y)
{
    CUDA_TYPED(t, map<T, 2>(dev, n, (T *)y, { { (const T *)x, (const T *)y } }, axpy_of<wide<T>>{ (wide<T>)a }));
}
void cuda_scale(k_dev *dev, k_dtype t, int64_t n, double a, void *y, const void *x)
{
    CUDA_TYPED(t, map<T, 1>(dev, n, (T *)y, { { (const T *)x } }, scale_of<wide<T>>{ (wide<T>)a }));
}
void cuda_approach(k_dev *dev, k_dtype t, int64_t n, double rate, void *y, const void *x)
{
    CUDA_TYPED(t, map<T, 2>(dev, n, (T *)y, { { (const T *)x, (const T *)y } }, approach_of<wide<T>>{ (wide<T>)rate }));
}
void cuda_add(k_dev *dev, k_dtype t, int64_t n, void *out, const void *x, const void *y)
{
    CUDA_TYPED(t, map<T, 2>(dev, n, (T *)out, { { (const T *)x, (const T *)y } }, sum_of<wide<T>>{}));
}
void cuda_mul(k_dev *dev, k_dtype t, int64_t n, int add, void *out, const void *x, const void *y)
{
    if (add)
        CUDA_TYPED(t, map<T, 3>(dev, n, (T *)out, { { (const T *)x, (const T *)y, (const T *)out } }, more_product_of<wide<T>>{}));
    else
        CUDA_TYPED(t, map<T, 2>(dev, n, (T *)out, { { (const T *)x, (const T *)y } }, product_of<wide<T>>{}));
}

/* ---- rows and columns ---------------------------------------------------------------------------------------------- */

/* y [rows,d] = x + bias [d] */
template <class T> __global__ static void add_bias_kernel(int64_t rows, int64_t d, T *y, const T *x, const T *bias)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * d; i += (int64_t)gridDim.x * blockDim.x)
        y[i] = (T)((wide<T>)x[i] + (wide<T>)bias[i % d]);
}

/* The same by packs; d and the pointers allow it. */
template <class T> __global__ static void add_bias_packs(int64_t rows, int64_t d, T *y, const T *x, const T *bias)
{
    const int64_t across = d / pack<T>::N;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * across; i += (int64_t)gridDim.x * blockDim.x) {
        pack<T> v = ((const pack<T> *)x)[i];
        const pack<T> b = ((const pack<T> *)bias)[i % across];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            v.v[e] = (T)((wide<T>)v.v[e] + (wide<T>)b.v[e]);
        ((pack<T> *)y)[i] = v;
    }
}

template <class T> static void add_bias(k_dev *dev, int64_t rows, int64_t d, T *y, const T *x, const T *bias)
{
    if (rows * d <= 0)
        return;
    if (d % pack<T>::N == 0 && aligned16(y) && aligned16(x) && aligned16(bias))
        CUDA_RUN(dev, add_bias_packs<T>, cuda_blocks(dev, rows * d / pack<T>::N, 256), 256, rows, d, y, x, bias);
    else
        CUDA_RUN(dev, add_bias_kernel<T>, cuda_blocks(dev, rows * d, 256), 256, rows, d, y, x, bias);
}

void cuda_add_bias(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *y, const void *x, const void *bias)
{
    CUDA_TYPED(t, add_bias(dev, rows, d, (T *)y, (const T *)x, (const T *)bias));
}

/* The sums of columns in two steps.  A block sums the columns of up to 32 packs over a span of rows, several rows at a time, each
 * thread one pack; then the spans are added.  Sums over a span are wide, sums of spans double, all in a fixed order. */
enum { SUMMERS = 256, MOST_PACKS = 32, WARP = 32, MAX_SPANS = 128, ROWS_PER_SPAN = 64, MOST_COLUMNS = CUDA_SCRATCH / 8 / 16 };

/* Packs of N, `packs` of them side by side in a block; d columns of rows of length ld, both multiples of N. */
template <class T, int N> __global__ static void __launch_bounds__(SUMMERS)
sum_spans(int64_t rows, int64_t d, int64_t ld, int64_t per_span, int packs, const T *x, double *part)
{
    __shared__ wide<T> sum[SUMMERS * N];
    const int lanes = SUMMERS / packs, lane = (int)threadIdx.x / packs, pack_at = (int)threadIdx.x % packs;
    const int64_t from = (int64_t)blockIdx.x * packs * N, j = from + pack_at * N, first = (int64_t)blockIdx.y * per_span;
    const int64_t end = first + per_span < rows ? first + per_span : rows;
    wide<T> s[N] = { 0 };
    if (j < d) {
#pragma unroll 8
        for (int64_t r = first + lane; r < end; r += lanes) {
            const pack<T, N> v = *(const pack<T, N> *)(x + r * ld + j);
#pragma unroll
            for (int e = 0; e < N; e++)
                s[e] += (wide<T>)v.v[e];
        }
    }
#pragma unroll
    for (int e = 0; e < N; e++)
        sum[(lane * N + e) * packs + pack_at] = s[e];
    __syncthreads();
    for (int c = (int)threadIdx.x; c < packs * N; c += SUMMERS) {
        const int64_t column = from + c % packs * N + c / packs;
        double total = 0;
        for (int i = 0; i < lanes; i++)
            total += (double)sum[i * packs * N + c];
        if (column < d)
            part[blockIdx.y * d + column] = total;
    }
}

/* part [spans,d] -> out [d] +=: 32 columns a block, 32 lanes a column. */
template <class W> __global__ static void __launch_bounds__(WARP * WARP) add_spans(int64_t spans, int64_t d, const double *part, W *out)
{
    __shared__ double sum[WARP][WARP + 1];
    const int64_t j = (int64_t)blockIdx.x * WARP + threadIdx.x, column = (int64_t)blockIdx.x * WARP + threadIdx.y;
    double s = 0;
#pragma unroll 4
    for (int64_t i = threadIdx.y; j < d && i < spans; i += WARP)
        s += part[i * d + j];
    sum[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    const double total = warp_sum(sum[threadIdx.x][threadIdx.y]);
    if (threadIdx.x == 0 && column < d)
        out[column] += (W)total;
}

/* As many columns as there is room for sums of: at least 16 spans have their place. */
template <class T, int N> static void sum_columns(k_dev *dev, int64_t rows, int64_t d, int64_t ld, const T *x, wide<T> *out)
{
    double *part = (double *)cuda_of(dev)->scratch;
    const int64_t most = CUDA_SCRATCH / (int64_t)sizeof *part / d;
    int packs = MOST_PACKS;
    while (packs > 1 && packs / 2 * N >= d)
        packs /= 2;
    int64_t spans = (rows + ROWS_PER_SPAN - 1) / ROWS_PER_SPAN;
    spans = spans < MAX_SPANS ? spans : (int64_t)MAX_SPANS;
    spans = spans < most ? spans : most;
    const int64_t per_span = (rows + spans - 1) / spans;
    const dim3 blocks((unsigned)((d + packs * N - 1) / (packs * N)), (unsigned)((rows + per_span - 1) / per_span));
    sum_spans<T, N><<<blocks, SUMMERS, 0, cuda_stream(dev)>>>(rows, d, ld, per_span, packs, x, part);
    cuda_failed(dev, cudaPeekAtLastError(), "sum_spans");
    add_spans<<<(unsigned)((d + WARP - 1) / WARP), dim3(WARP, WARP), 0, cuda_stream(dev)>>>(blocks.y, d, part, out);
    cuda_failed(dev, cudaPeekAtLastError(), "add_spans");
}

template <class T, int N> static void sum_rows(k_dev *dev, int64_t rows, int64_t d, const T *x, wide<T> *out)
{
    for (int64_t at = 0; at < d; at += MOST_COLUMNS)
        sum_columns<T, N>(dev, rows, d - at < MOST_COLUMNS ? d - at : (int64_t)MOST_COLUMNS, d, x + at, out + at);
}

void cuda_sum_rows(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const void *x, void *out)
{
    if (rows > 0 && d > 0)
        CUDA_TYPED(t, if (d % pack<T>::N == 0 && aligned16((const T *)x)) sum_rows<T, pack<T>::N>(dev, rows, d, (const T *)x, (wide<T> *)out);
                      else sum_rows<T, 1>(dev, rows, d, (const T *)x, (wide<T> *)out));
}

/* ---- activations -------------------------------------------------------------------------------------------------------- */

/* Elementary functions by the name that both types share. */
static inline __device__ float exp_of(float x) { return expf(x); }
static inline __device__ double exp_of(double x) { return exp(x); }
static inline __device__ float erf_of(float x) { return erff(x); }
static inline __device__ double erf_of(double x) { return erf(x); }
static inline __device__ float tanh_of(float x) { return tanhf(x); }
static inline __device__ double tanh_of(double x) { return tanh(x); }
static inline __device__ float log1p_of(float x) { return log1pf(x); }
static inline __device__ double log1p_of(double x) { return log1p(x); }

template <class W> static inline __device__ W sigmoid_of(W x) { return 1 / (1 + exp_of(-x)); }
template <class W> static inline __device__ W normal_below(W x) { return (W)0.5 * (1 + erf_of(x * (W)0.7071067811865476)); }

/* The function f of x. */
template <k_unary f, class W> struct value_of {
    __device__ W operator()(const W *v) const
    {
        const W x = v[0];
        switch (f) {
        case K_RELU: return x > 0 ? x : x != x ? x : 0;             /* NaN stays NaN */
        case K_SIGMOID: return sigmoid_of(x);
        case K_TANH: return tanh_of(x);
        case K_EXP: return exp_of(x);
        case K_SILU: return x * sigmoid_of(x);
        case K_GELU: return x * normal_below(x);
        case K_SOFTPLUS: return (x > 0 ? x : x != x ? x : 0) + log1p_of(exp_of(x > 0 ? -x : x));
        case K_ELU1: return x > 0 ? x + 1 : exp_of(x);
        default: return 0;
        }
    }
};

/* dy f'(x), y = f(x); v: dy, x, y, and dx where it is added to.  What a function does not ask for is not read. */
template <k_unary f, class W, bool ADD> struct slope_of {
    __device__ W operator()(const W *v) const { return (ADD ? v[3] : 0) + v[0] * slope(v[1], v[2]); }
    static __device__ W slope(W x, W y)
    {
        switch (f) {
        case K_RELU: return y > 0 ? 1 : 0;
        case K_SIGMOID: return y * (1 - y);
        case K_TANH: return 1 - y * y;
        case K_EXP: return y;
        case K_SILU: return sigmoid_of(x) * (1 + x * (1 - sigmoid_of(x)));
        case K_GELU: return normal_below(x) + x * (W)0.3989422804014327 * exp_of(x * x * (W)-0.5);
        case K_SOFTPLUS: return sigmoid_of(x);
        case K_ELU1: return y > 1 ? 1 : y;                          /* y > 1 exactly where x > 0; both slopes are 1 at 0 */
        default: return 0;
        }
    }
};

template <class T, k_unary f> static void forward(k_dev *dev, int64_t n, void *y, const void *x)
{
    map<T, 1>(dev, n, (T *)y, { { (const T *)x } }, value_of<f, wide<T>>{});
}
template <class T, k_unary f> static void backward(k_dev *dev, int64_t n, int add, void *dx, const void *dy, const void *x, const void *y)
{
    if (add)
        map<T, 4>(dev, n, (T *)dx, { { (const T *)dy, (const T *)x, (const T *)y, (const T *)dx } }, slope_of<f, wide<T>, true>{});
    else
        map<T, 3>(dev, n, (T *)dx, { { (const T *)dy, (const T *)x, (const T *)y } }, slope_of<f, wide<T>, false>{});
}

/* call<T, f>(arguments) for the f at hand. */
#define EACH_UNARY(f, call, ...)                                                \
    switch (f) {                                                                \
    case K_RELU: call<T, K_RELU>(__VA_ARGS__); break;                           \
    case K_SIGMOID: call<T, K_SIGMOID>(__VA_ARGS__); break;                     \
    case K_TANH: call<T, K_TANH>(__VA_ARGS__); break;                           \
    case K_EXP: call<T, K_EXP>(__VA_ARGS__); break;                             \
    case K_SILU: call<T, K_SILU>(__VA_ARGS__); break;                           \
    case K_GELU: call<T, K_GELU>(__VA_ARGS__); break;                           \
    case K_SOFTPLUS: call<T, K_SOFTPLUS>(__VA_ARGS__); break;                   \
    case K_ELU1: call<T, K_ELU1>(__VA_ARGS__); break;                           \
    case K_UNARIES: break;                                                      \
    }

void cuda_unary_forward(k_dev *dev, k_dtype t, k_unary f, int64_t n, void *y, const void *x)
{
    CUDA_TYPED(t, EACH_UNARY(f, forward, dev, n, y, x));
}
void cuda_unary_backward(k_dev *dev, k_dtype t, k_unary f, int64_t n, int add, void *dx, const void *dy, const void *x, const void *y)
{
    CUDA_TYPED(t, EACH_UNARY(f, backward, dev, n, add, dx, dy, x, y));
}

/* ---- dropout --------------------------------------------------------------------------------------------------------------- */

/* Elements of whole counter blocks and of 16 bytes at least, made by one thread. */
template <class T> struct dropped { enum { N = sizeof(T) == 2 ? 8 : 4 }; typedef pack<T, N> group; };

template <class T> __global__ static void __launch_bounds__(MAP_THREADS)
dropout_kernel(int64_t n, uint32_t threshold, wide<T> keep, uint64_t seed, uint32_t stream, const uint32_t *draw, int add, T *y, const T *x)
{
    typedef typename dropped<T>::group group;
    const bool whole = (uintptr_t)x % sizeof(group) == 0 && (uintptr_t)y % sizeof(group) == 0;
    const int64_t thread = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x, threads = (int64_t)gridDim.x * MAP_THREADS;
    const uint32_t drawn = *draw;
    const int64_t groups = whole ? n / group::N : 0;
    for (int64_t i = thread; i < groups; i += threads) {
        const group v = ((const group *)x)[i];
        group sum;
        wide<T> out[group::N];
        if (add)
            sum = ((const group *)y)[i];
#pragma unroll
        for (int e = 0; e < group::N; e += 4) {
            const philox4 word = philox4x32_10(seed, (uint64_t)(i * group::N + e) / 4, stream, drawn);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const wide<T> kept = word.v[k] >= threshold ? keep * (wide<T>)v.v[e + k] : 0;
                out[e + k] = add ? (wide<T>)sum.v[e + k] + kept : kept;
            }
        }
        ((group *)y)[i] = packed<T, group::N>(out);
    }
    for (int64_t i = groups * group::N + thread; i < n; i += threads) {
        const wide<T> kept = philox_u32(seed, stream, drawn, (uint64_t)i) >= threshold ? keep * (wide<T>)x[i] : 0;
        y[i] = (T)(add ? (wide<T>)y[i] + kept : kept);
    }
}

void cuda_dropout(k_dev *dev, k_dtype t, int64_t n, double p, uint64_t seed, uint32_t stream, const uint32_t *draw, int add, void *y,
                  const void *x)
{
    if (n > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, dropout_kernel<T>, cuda_blocks(dev, n, MAP_THREADS * dropped<T>::N), MAP_THREADS, n,
                               philox_threshold(p), (wide<T>)(1 / (1 - p)), seed, stream, draw, add, (T *)y, (const T *)x));
}

__global__ static void tick_kernel(uint32_t *count) { ++*count; }

void cuda_tick(k_dev *dev, uint32_t *count) { CUDA_RUN(dev, tick_kernel, 1, 1, count); }
