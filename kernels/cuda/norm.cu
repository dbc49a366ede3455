/* norm.cu - normalisation by row: layer norm and root mean square.
 *
 * A row lies in the registers of the G threads that share it, so that every matrix passes once: forward reads x and writes y,
 * backward reads x and dy and writes dx.  The moments of a row are made anew in backward, from what it reads anyway.  The
 * gradients of gain and bias are summed by each thread over the rows that it sees, then over the threads of a block, then over
 * blocks in double, all in a fixed order. */
#include "block.cuh"

enum { THREADS = 256, WARP = 32 };
enum { BUSY = 1024, BUSY_BACK = 512 };   /* threads of a multiprocessor, for which there are registers */

static inline __device__ float rsqrt_of(float x) { return 1 / sqrtf(x); }
static inline __device__ double rsqrt_of(double x) { return 1 / sqrt(x); }

/* The sum over G neighbouring threads, in each of them; where they are more than a warp, all threads of the block call. */
template <int G, class A> static inline __device__ A group_sum(A x)
{
    __shared__ A part[THREADS / WARP];
#pragma unroll
    for (int lane = (G < WARP ? G : WARP) / 2; lane > 0; lane >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, lane);
    if constexpr (G > WARP) {
        __syncthreads();                /* the last call's readers are done */
        if (threadIdx.x % WARP == 0)
            part[threadIdx.x / WARP] = x;
        __syncthreads();
        x = 0;
#pragma unroll
        for (int i = 0; i < G / WARP; i++)
            x += part[threadIdx.x / G * (G / WARP) + i];
    }
    return x;
}

/* What a thread has of a row [d]: packs thread, thread + G ..., as they lie in memory; zeros beyond the row's end. */
template <class T, int P, int G> struct share {
    enum { N = pack<T>::N, COUNT = P * N };
    pack<T> v[P];
    static __device__ int column(int p) { return (p * G + (int)threadIdx.x % G) * N; }
    __device__ void load(int d, const T *row)           /* NULL: zeros */
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (row && column(p) < d)
                v[p] = *(const pack<T> *)(row + column(p));
            else
                for (int e = 0; e < N; e++)
                    v[p].v[e] = (T)0.0f;
    }
    __device__ wide<T> get(int i) const { return (wide<T>)v[i / N].v[i % N]; }
    __device__ void widen(wide<T> *x) const
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            x[i] = get(i);
    }
    static __device__ void store(int d, T *row, const wide<T> *x)       /* NULL: nowhere */
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (row && column(p) < d)
                *(pack<T> *)(row + column(p)) = packed<T>(x + p * N);
    }
};

template <class W> struct moments { W mean, scale; };

/* x: a thread's numbers of a row [d] */
template <class T, int P, int G> static inline __device__ moments<wide<T>> moments_of(k_norm_kind kind, int d, const wide<T> *x, wide<T> eps)
{
    typedef share<T, P, G> S;
    wide<T> sum = 0, square = 0;
#pragma unroll
    for (int i = 0; i < S::COUNT; i++)
        sum += x[i];
    const wide<T> mean = kind == K_NORM_LAYER ? group_sum<G>(sum) / (wide<T>)d : 0;
#pragma unroll
    for (int i = 0; i < S::COUNT; i++)
        if (S::column(i / S::N) < d)
            square += (x[i] - mean) * (x[i] - mean);
    return { mean, rsqrt_of(group_sum<G>(square) / (wide<T>)d + eps) };
}

/* x, y [rows,d], gain, bias [d] or NULL.  A row is on its way while the last one is worked on. */
template <class T, int P, int G> __global__ static void __launch_bounds__(THREADS, BUSY / THREADS)
norm_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> eps, T *y, const T *x, const T *gain, const T *bias)
{
    typedef share<T, P, G> S;
    const int64_t stride = (int64_t)gridDim.x * (THREADS / G);
    int64_t r = (int64_t)blockIdx.x * (THREADS / G) + threadIdx.x / G;
    S a, b, next;
    wide<T> v[S::COUNT];
    a.load(d, gain);
    b.load(d, bias);
    next.load(d, r < rows ? x + r * d : NULL);
    for (int64_t turn = blockIdx.x * (int64_t)(THREADS / G); turn < rows; turn += stride, r += stride) {
        next.widen(v);
        next.load(d, r + stride < rows ? x + (r + stride) * d : NULL);
        const moments<wide<T>> m = moments_of<T, P, G>(kind, d, v, eps);
#pragma unroll
        for (int i = 0; i < S::COUNT; i++)
            v[i] = m.scale * (v[i] - m.mean) * (gain ? a.get(i) : 1) + b.get(i);
        S::store(d, r < rows ? y + r * d : NULL, v);
    }
}

/* Adds the threads' sums [COUNT] of the columns of a row [d] over the groups of the block, into out [d]. */
template <class T, int P, int G> static inline __device__ void add_groups(int d, const wide<T> *sums, wide<T> *out)
{
    typedef share<T, P, G> S;
    enum { GROUPS = THREADS / G, LENGTH = P * G * S::N };
    __shared__ wide<T> room[GROUPS * LENGTH];
#pragma unroll
    for (int i = 0; i < S::COUNT; i++)
        room[threadIdx.x / G * LENGTH + S::column(i / S::N) + i % S::N] = sums[i];
    __syncthreads();
    for (int j = (int)threadIdx.x; j < d; j += THREADS) {
        wide<T> total = 0;
#pragma unroll 8
        for (int g = 0; g < GROUPS; g++)
            total += room[g * LENGTH + j];
        out[j] = total;
    }
    __syncthreads();
}

/* With z = (x - mean) scale and g = gain dy: dx = scale (g - mean(g) - z mean(g z)), the middle for layers alone.
 * dx, dy, x [rows,d], gain [d] or NULL; SUMS: part [blocks,2,d] becomes the sums of dy z and dy. */
template <class T, int P, int G, bool SUMS> __global__ static void __launch_bounds__(THREADS, BUSY_BACK / THREADS)
norm_back_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> eps, int add, T *dx, const T *dy, const T *x, const T *gain, wide<T> *part)
{
    typedef share<T, P, G> S;
    const int64_t stride = (int64_t)gridDim.x * (THREADS / G);
    int64_t r = (int64_t)blockIdx.x * (THREADS / G) + threadIdx.x / G;
    S a, next_x, next_dy, old;
    wide<T> z[S::COUNT], g[S::COUNT], gains[S::COUNT] = { 0 }, biases[S::COUNT] = { 0 };
    a.load(d, gain);
    next_x.load(d, r < rows ? x + r * d : NULL);
    next_dy.load(d, r < rows ? dy + r * d : NULL);
    for (int64_t turn = blockIdx.x * (int64_t)(THREADS / G); turn < rows; turn += stride, r += stride) {
        next_x.widen(z);
        next_dy.widen(g);
        next_x.load(d, r + stride < rows ? x + (r + stride) * d : NULL);
        next_dy.load(d, r + stride < rows ? dy + (r + stride) * d : NULL);
        if (add)
            old.load(d, r < rows && dx ? dx + r * d : NULL);
        const moments<wide<T>> m = moments_of<T, P, G>(kind, d, z, eps);
        wide<T> sum = 0, dot = 0;
#pragma unroll
        for (int i = 0; i < S::COUNT; i++) {
            z[i] = m.scale * (z[i] - m.mean);
            if (SUMS) {
                gains[i] += g[i] * z[i];
                biases[i] += g[i];
            }
            g[i] = gain ? g[i] * a.get(i) : g[i];
            sum += g[i];
            dot += g[i] * z[i];
        }
        sum = kind == K_NORM_LAYER ? group_sum<G>(sum) / (wide<T>)d : 0;
        dot = group_sum<G>(dot) / (wide<T>)d;
#pragma unroll
        for (int i = 0; i < S::COUNT; i++)
            z[i] = m.scale * (g[i] - sum - z[i] * dot) + (add ? old.get(i) : 0);
        S::store(d, r < rows && dx ? dx + r * d : NULL, z);
    }
    if (SUMS) {
        add_groups<T, P, G>(d, gains, part + (int64_t)blockIdx.x * 2 * d);
        add_groups<T, P, G>(d, biases, part + (int64_t)blockIdx.x * 2 * d + d);
    }
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
        else if (packs <= 64) { call(1, 64); }                                                              \
        else if (packs <= 128) { call(1, 128); }                                                            \
        else if (packs <= 256) { call(1, 256); }                                                            \
        else { call(2, 256); }                                                                              \
    } while (0)

/* Blocks that share `rows` rows, `each` at a time: as many as are at work at once, and fewer where each leaves so many bytes
 * of sums. */
static int64_t blocks_for(k_dev *dev, int64_t rows, int64_t each, int64_t sums)
{
    const int64_t wanted = (rows + each - 1) / each, busy = (sums ? BUSY_BACK : BUSY) / THREADS * (int64_t)cuda_of(dev)->sms;
    const int64_t room = sums ? CUDA_SCRATCH / sums : busy, most = busy < room ? busy : room;
    return wanted < most ? wanted : most;
}

template <class T>
static void forward(k_dev *dev, k_norm_kind kind, int64_t rows, int64_t d, double eps, T *y, const T *x, const T *gain, const T *bias)
{
    const bool aligned = aligned16(y) && aligned16(x) && aligned16(gain) && aligned16(bias);
#define RUN(P, G)                                                                                                              \
    CUDA_RUN(dev, (norm_kernel<T, P, G>), blocks_for(dev, rows, THREADS / G, 0), THREADS, kind, rows, (int)d, \
             (wide<T>)eps, y, x, gain, bias)
    NORM_SHAPE(T, d, aligned, RUN,
               CUDA_RUN(dev, long_kernel<T>, cuda_blocks(dev, rows, 1), THREADS, kind, rows, d, (wide<T>)eps, y, x, gain, bias));
#undef RUN
}

template <class T, bool SUMS>
static void backward(k_dev *dev, k_norm_kind kind, int64_t rows, int64_t d, double eps, int add, T *dx, wide<T> *dgain, wide<T> *dbias,
                     const T *dy, const T *x, const T *gain)
{
    const bool aligned = aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(gain);
    wide<T> *part = (wide<T> *)cuda_of(dev)->scratch;
    const int64_t sums = SUMS ? 2 * d * (int64_t)sizeof(wide<T>) : 0;
    int64_t blocks = 0;
#define RUN(P, G)                                                                                                              \
    blocks = blocks_for(dev, rows, THREADS / G, sums);                                                        \
    CUDA_RUN(dev, (norm_back_kernel<T, P, G, SUMS>), blocks, THREADS, kind, rows, (int)d, (wide<T>)eps, add, dx, dy, x, gain, part)
#define RUN_LONG                                                                                                               \
    blocks = blocks_for(dev, rows, 1, sums);                                                                          \
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
