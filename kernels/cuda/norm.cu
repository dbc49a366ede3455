/* norm.cu - normalisation by row: layer norm and root mean square.
 *
 * A row lies in the registers of the G threads that share it, so that every matrix passes once: forward reads x and writes y,
 * backward reads x and dy and writes dx.  The moments of a row are made anew in backward, from what it reads anyway.  The
 * gradients of gain and bias are summed by each thread over the rows that it sees, then over the threads of a block, then over
 * blocks in double, all in a fixed order. */
#include "block.cuh"

enum { THREADS = 256, WARP = 32 };

static inline __device__ float rsqrt_of(float x) { return 1 / sqrtf(x); }
static inline __device__ double rsqrt_of(double x) { return 1 / sqrt(x); }

/* The sum over G neighbouring threads, in each of them. */
template <int G, class A> static inline __device__ A group_sum(A x)
{
    if constexpr (G > WARP) {
        return block_sum<THREADS>(x);
    } else {
#pragma unroll
        for (int lane = G / 2; lane > 0; lane >>= 1)
            x += __shfl_xor_sync(0xffffffffu, x, lane);
        return x;
    }
}

/* What a thread holds of a row [d]: packs thread, thread + G ..., zeros beyond its end. */
template <class T, int P, int G> struct part_of {
    enum { N = pack<T>::N };
    pack<T> v[P];
    __device__ static int column(int p) { return (p * G + (int)threadIdx.x % G) * N; }
    __device__ void load(int d, const T *x)
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (x && column(p) < d)
                v[p] = *(const pack<T> *)(x + column(p));
            else
                for (int e = 0; e < N; e++)
                    v[p].v[e] = (T)0.0f;
    }
    __device__ void store(int d, T *x) const
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (x && column(p) < d)
                *(pack<T> *)(x + column(p)) = v[p];
    }
    /* f(i, column, number) for every number of the row that this thread holds; i counts them. */
    template <class F> __device__ void each(int d, F f) const
    {
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int e = 0; e < N; e++)
                if (column(p) < d)
                    f(p * N + e, column(p) + e, (wide<T>)v[p].v[e]);
    }
    __device__ void set(int i, wide<T> x) { v[i / N].v[i % N] = (T)x; }
    __device__ wide<T> get(int i) const { return (wide<T>)v[i / N].v[i % N]; }
};

template <class W> struct moments { W mean, scale; };

template <class T, int P, int G>
static inline __device__ moments<wide<T>> moments_of(k_norm_kind kind, int d, const part_of<T, P, G> &x, wide<T> eps)
{
    wide<T> sum = 0, square = 0;
    if (kind == K_NORM_LAYER) {
        x.each(d, [&](int, int, wide<T> v) { sum += v; });
        sum = group_sum<G>(sum);
    }
    const wide<T> mean = sum / (wide<T>)d;
    x.each(d, [&](int, int, wide<T> v) { square += (v - mean) * (v - mean); });
    return { mean, rsqrt_of(group_sum<G>(square) / (wide<T>)d + eps) };
}

/* x, y [rows,d], gain, bias [d] or NULL */
template <class T, int P, int G> __global__ static void __launch_bounds__(THREADS)
norm_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> eps, T *y, const T *x, const T *gain, const T *bias)
{
    part_of<T, P, G> a, b, v;
    a.load(d, gain);
    b.load(d, bias);
    for (int64_t first = (int64_t)blockIdx.x * (THREADS / G); first < rows; first += (int64_t)gridDim.x * (THREADS / G)) {
        const int64_t r = first + threadIdx.x / G;
        v.load(d, r < rows ? x + r * d : NULL);
        const moments<wide<T>> m = moments_of(kind, d, v, eps);
        v.each(d, [&](int i, int, wide<T> x) { v.set(i, m.scale * (x - m.mean) * (gain ? a.get(i) : 1) + b.get(i)); });
        v.store(d, r < rows ? y + r * d : NULL);
    }
}

/* Adds the sums of the groups of a block, in turn, into part [2,d] of the block. */
template <class T, int P, int G>
static inline __device__ void add_groups(int d, const part_of<T, P, G> &x, const wide<T> *gains, const wide<T> *biases, wide<T> *part)
{
    for (int turn = 0; turn < THREADS / G; turn++) {
        if (turn == threadIdx.x / G)
            x.each(d, [&](int i, int j, wide<T>) {
                part[j] = (turn ? part[j] : 0) + gains[i];
                part[d + j] = (turn ? part[d + j] : 0) + biases[i];
            });
        __syncthreads();
    }
}

/* With z = (x - mean) scale and g = gain dy: dx = scale (g - mean(g) - z mean(g z)), the middle for layers alone.
 * dx, dy, x [rows,d], gain [d] or NULL; SUMS: part [blocks,2,d] becomes the sums of dy z and dy. */
template <class T, int P, int G, bool SUMS> __global__ static void __launch_bounds__(THREADS)
norm_back_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> eps, int add, T *dx, const T *dy, const T *x, const T *gain, wide<T> *part)
{
    part_of<T, P, G> a, v, g, out;
    wide<T> gains[P * pack<T>::N] = { 0 }, biases[P * pack<T>::N] = { 0 };
    a.load(d, gain);
    for (int64_t first = (int64_t)blockIdx.x * (THREADS / G); first < rows; first += (int64_t)gridDim.x * (THREADS / G)) {
        const int64_t r = first + threadIdx.x / G;
        v.load(d, r < rows ? x + r * d : NULL);
        g.load(d, r < rows ? dy + r * d : NULL);
        out.load(d, r < rows && add && dx ? dx + r * d : NULL);
        const moments<wide<T>> m = moments_of(kind, d, v, eps);
        wide<T> sum = 0, dot = 0;
        g.each(d, [&](int i, int, wide<T> from) {
            const wide<T> z = m.scale * (v.get(i) - m.mean), through = gain ? from * a.get(i) : from;
            sum += through;
            dot += through * z;
            if (SUMS) {
                gains[i] += from * z;
                biases[i] += from;
            }
        });
        sum = kind == K_NORM_LAYER ? group_sum<G>(sum) / (wide<T>)d : 0;
        dot = group_sum<G>(dot) / (wide<T>)d;
        g.each(d, [&](int i, int, wide<T> from) {
            const wide<T> z = m.scale * (v.get(i) - m.mean), through = gain ? from * a.get(i) : from;
            out.set(i, out.get(i) + m.scale * (through - sum - z * dot));
        });
        out.store(d, r < rows && dx ? dx + r * d : NULL);
    }
    if (SUMS)
        add_groups(d, v, gains, biases, part + (int64_t)blockIdx.x * 2 * d);
}

/* ---- rows that no registers hold, or that are not aligned: a block a row, read again and again ---------------------------- */

template <class T> static inline __device__ moments<wide<T>> moments_of(k_norm_kind kind, int64_t d, const T *x, wide<T> eps)
{
    wide<T> sum = 0, square = 0;
    for (int64_t j = threadIdx.x; kind == K_NORM_LAYER && j < d; j += THREADS)
        sum += (wide<T>)x[j];
    const wide<T> mean = kind == K_NORM_LAYER ? block_sum<THREADS>(sum) / (wide<T>)d : 0;
    for (int64_t j = threadIdx.x; j < d; j += THREADS)
        square += ((wide<T>)x[j] - mean) * ((wide<T>)x[j] - mean);
    return { mean, rsqrt_of(block_sum<THREADS>(square) / (wide<T>)d + eps) };
}

template <class T> __global__ static void __launch_bounds__(THREADS)
long_kernel(k_norm_kind kind, int64_t rows, int64_t d, wide<T> eps, T *y, const T *x, const T *gain, const T *bias)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const moments<wide<T>> m = moments_of(kind, d, x + r * d, eps);
        for (int64_t j = threadIdx.x; j < d; j += THREADS)
            y[r * d + j] = (T)(m.scale * ((wide<T>)x[r * d + j] - m.mean) * (gain ? (wide<T>)gain[j] : 1) + (bias ? (wide<T>)bias[j] : 0));
    }
}

/* The columns of part are a thread's own. */
template <class T, bool SUMS> __global__ static void __launch_bounds__(THREADS)
long_back_kernel(k_norm_kind kind, int64_t rows, int64_t d, wide<T> eps, int add, T *dx, const T *dy, const T *x, const T *gain, wide<T> *part)
{
    wide<T> *gains = part + (int64_t)blockIdx.x * 2 * d, *biases = gains + d;
    for (int64_t j = threadIdx.x; SUMS && j < d; j += THREADS)
        gains[j] = biases[j] = 0;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const moments<wide<T>> m = moments_of(kind, d, x + r * d, eps);
        wide<T> sum = 0, dot = 0;
        for (int64_t j = threadIdx.x; j < d; j += THREADS) {
            const wide<T> from = (wide<T>)dy[r * d + j], z = m.scale * ((wide<T>)x[r * d + j] - m.mean);
            const wide<T> through = gain ? from * (wide<T>)gain[j] : from;
            sum += through;
            dot += through * z;
            if (SUMS) {
                gains[j] += from * z;
                biases[j] += from;
            }
        }
        sum = kind == K_NORM_LAYER ? block_sum<THREADS>(sum) / (wide<T>)d : 0;
        dot = block_sum<THREADS>(dot) / (wide<T>)d;
        for (int64_t j = threadIdx.x; dx && j < d; j += THREADS) {
            const wide<T> from = (wide<T>)dy[r * d + j], z = m.scale * ((wide<T>)x[r * d + j] - m.mean);
            const wide<T> into = m.scale * ((gain ? from * (wide<T>)gain[j] : from) - sum - z * dot);
            dx[r * d + j] = (T)(add ? (wide<T>)dx[r * d + j] + into : into);
        }
    }
}

/* part [blocks,2,d] -> dgain, dbias [d] +=, either may be NULL.  32 columns a block, 32 lanes a column. */
template <class W> __global__ static void __launch_bounds__(WARP * WARP) add_parts(int blocks, int64_t d, const W *part, W *dgain, W *dbias)
{
    __shared__ double sum[WARP][WARP + 1];
    const int64_t j = (int64_t)blockIdx.x * WARP + threadIdx.x;
    W *out = blockIdx.y ? dbias : dgain;
    double s = 0;
    for (int b = (int)threadIdx.y; j < d && b < blocks; b += WARP)
        s += (double)part[((int64_t)b * 2 + blockIdx.y) * d + j];
    sum[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    const double total = warp_sum(sum[threadIdx.x][threadIdx.y]);
    const int64_t column = (int64_t)blockIdx.x * WARP + threadIdx.y;
    if (threadIdx.x == 0 && column < d && out)
        out[column] += (W)total;
}

/* ---- the seam ----------------------------------------------------------------------------------------------------------------- */

/* Calls call(P, G) for the P and G that hold a row of d numbers, or otherwise(). */
#define NORM_SHAPE(T, d, aligned, call, otherwise)                                                          \
    do {                                                                                                    \
        const int64_t packs = (d) / pack<T>::N;                                                             \
        if (!(aligned) || (d) % pack<T>::N || packs > 512) { otherwise; }                                   \
        else if (packs <= 8) { call(1, 8); }                                                                \
        else if (packs <= 32) { call(1, 32); }                                                              \
        else if (packs <= 64) { call(2, 32); }                                                              \
        else if (packs <= 128) { call(4, 32); }                                                             \
        else { call(2, 256); }                                                                              \
    } while (0)

template <class T>
static void forward(k_dev *dev, k_norm_kind kind, int64_t rows, int64_t d, double eps, T *y, const T *x, const T *gain, const T *bias)
{
    const bool aligned = aligned16(y) && aligned16(x) && aligned16(gain) && aligned16(bias);
#define RUN(P, G) CUDA_RUN(dev, (norm_kernel<T, P, G>), cuda_blocks(dev, rows, THREADS / G), THREADS, kind, rows, (int)d, (wide<T>)eps, y, x, gain, bias)
    NORM_SHAPE(T, d, aligned, RUN,
               CUDA_RUN(dev, long_kernel<T>, cuda_blocks(dev, rows, 1), THREADS, kind, rows, d, (wide<T>)eps, y, x, gain, bias));
#undef RUN
}

/* Blocks that share `rows` rows, `each` at a time: few where every one of them leaves sums [2,d]. */
template <class T> static int64_t blocks_for(k_dev *dev, int64_t rows, int64_t each, int64_t d, bool sums)
{
    const int64_t wanted = cuda_blocks(dev, rows, each), busy = 3 * (int64_t)cuda_of(dev)->sms;
    const int64_t room = CUDA_SCRATCH / (2 * d * (int64_t)sizeof(wide<T>)), most = busy < room ? busy : room;
    return sums && wanted > most ? most : wanted;
}

template <class T, bool SUMS>
static void backward(k_dev *dev, k_norm_kind kind, int64_t rows, int64_t d, double eps, int add, T *dx, wide<T> *dgain, wide<T> *dbias,
                     const T *dy, const T *x, const T *gain)
{
    const bool aligned = aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(gain);
    wide<T> *part = (wide<T> *)cuda_of(dev)->scratch;
    int64_t blocks = 0;
#define RUN(P, G)                                                                                                              \
    blocks = blocks_for<T>(dev, rows, THREADS / G, d, SUMS);                                                                   \
    CUDA_RUN(dev, (norm_back_kernel<T, P, G, SUMS>), blocks, THREADS, kind, rows, (int)d, (wide<T>)eps, add, dx, dy, x, gain, part)
#define RUN_LONG                                                                                                               \
    blocks = blocks_for<T>(dev, rows, 1, d, SUMS);                                                                             \
    CUDA_RUN(dev, (long_back_kernel<T, SUMS>), blocks, THREADS, kind, rows, d, (wide<T>)eps, add, dx, dy, x, gain, part)
    NORM_SHAPE(T, d, aligned, RUN, RUN_LONG);
#undef RUN
#undef RUN_LONG
    if (!SUMS)
        return;
    add_parts<wide<T>><<<dim3((unsigned)((d + WARP - 1) / WARP), 2), dim3(WARP, WARP), 0, cuda_stream(dev)>>>((int)blocks, d, part, dgain, dbias);
    cuda_failed(dev, cudaPeekAtLastError(), "add_parts");
}

void cuda_norm_forward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, void *y, const void *x, const void *gain,
                       const void *bias)
{
    if (rows > 0 && d > 0)
        CUDA_TYPED(t, forward(dev, kind, rows, d, eps, (T *)y, (const T *)x, (const T *)gain, (const T *)bias));
}

void cuda_norm_backward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, int add, void *dx, void *dgain,
                        void *dbias, const void *dy, const void *x, const void *gain)
{
    if (rows <= 0 || d <= 0)
        return;
    if (dgain || dbias)
        CUDA_TYPED(t, (backward<T, true>(dev, kind, rows, d, eps, add, (T *)dx, (wide<T> *)dgain, (wide<T> *)dbias, (const T *)dy,
                                         (const T *)x, (const T *)gain)));
    else
        CUDA_TYPED(t, (backward<T, false>(dev, kind, rows, d, eps, add, (T *)dx, NULL, NULL, (const T *)dy, (const T *)x, (const T *)gain)));
}
