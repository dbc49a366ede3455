/* norm.cu - normalisation by row: layer norm and root mean square.
 *
 * Rows lie in the registers of the G threads that share them, so that every matrix passes once: forward reads x and writes y,
 * backward reads x and dy and writes dx.  The moments of a row are made anew in backward, from what it reads anyway.  The
 * gradients of gain and bias are summed by each thread over the rows that it sees, then over the threads of a block, then over
 * blocks in double, all in a fixed order. */
#include "block.cuh"

enum { THREADS = 256, WARP = 32 };
enum { BUSY = 768, BUSY_BACK = 512 };   /* threads of a multiprocessor, for which there are registers */

/* Rows that a group of threads works on at once, so that enough is on its way from memory: P packs of each lie in a thread. */
constexpr int at_once(int P, bool back) { return back ? (P == 1 ? 2 : 1) : P == 1 ? 4 : 2; }

static inline __device__ float rsqrt_of(float x) { return rsqrtf(x); }
static inline __device__ double rsqrt_of(double x) { return 1 / sqrt(x); }

/* The sums of R numbers over G neighbouring threads, in each of them.  Warps of a group meet once, and write where no one reads
 * any more: turn counts the calls. */
template <int G, int R, class A> static inline __device__ void group_sums(A *x, int *turn)
{
    __shared__ A part[2][THREADS / WARP][R];
#pragma unroll
    for (int lane = (G < WARP ? G : WARP) / 2; lane > 0; lane >>= 1)
#pragma unroll
        for (int k = 0; k < R; k++)
            x[k] += __shfl_xor_sync(0xffffffffu, x[k], lane);
    if constexpr (G > WARP) {
        const int group = (int)threadIdx.x / G, warp = (int)threadIdx.x / WARP, now = (*turn)++ & 1;
        if (threadIdx.x % WARP == 0)
            for (int k = 0; k < R; k++)
                part[now][warp][k] = x[k];
        asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(G) : "memory");
#pragma unroll
        for (int k = 0; k < R; k++) {
            x[k] = 0;
#pragma unroll
            for (int i = 0; i < G / WARP; i++)
                x[k] += part[now][group * (G / WARP) + i][k];
        }
    }
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

/* What makes R rows normal, of which x [R] are a thread's numbers; over: 1 / d */
template <class T, int P, int G, int R> static inline __device__ void
moments_of(k_norm_kind kind, int d, wide<T> over, const wide<T> (*x)[P * pack<T>::N], wide<T> eps, wide<T> *mean, wide<T> *scale, int *turn)
{
    typedef share<T, P, G> S;
#pragma unroll
    for (int k = 0; k < R; k++) {
        mean[k] = 0;
#pragma unroll
        for (int i = 0; i < S::COUNT; i++)
            mean[k] += x[k][i];
    }
    if (kind == K_NORM_LAYER)
        group_sums<G, R>(mean, turn);
#pragma unroll
    for (int k = 0; k < R; k++) {
        mean[k] = kind == K_NORM_LAYER ? mean[k] * over : 0;
        scale[k] = 0;
#pragma unroll
        for (int i = 0; i < S::COUNT; i++)
            if (S::column(i / S::N) < d)
                scale[k] += (x[k][i] - mean[k]) * (x[k][i] - mean[k]);
    }
    group_sums<G, R>(scale, turn);
#pragma unroll
    for (int k = 0; k < R; k++)
        scale[k] = rsqrt_of(scale[k] * over + eps);
}

/* x, y [rows,d], gain, bias [d] or NULL; over: 1 / d */
template <class T, int P, int G> __global__ static void __launch_bounds__(THREADS, BUSY / THREADS)
norm_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> over, wide<T> eps, T *y, const T *x, const T *gain, const T *bias)
{
    typedef share<T, P, G> S;
    enum { R = at_once(P, false), GROUPS = THREADS / G };
    int turn = 0;
    S a, b;
    a.load(d, gain);
    b.load(d, bias);
    for (int64_t first = (int64_t)blockIdx.x * GROUPS * R; first < rows; first += (int64_t)gridDim.x * GROUPS * R) {
        const int64_t r = first + threadIdx.x / G;
        wide<T> v[R][S::COUNT], mean[R], scale[R];
        S in[R];
#pragma unroll
        for (int k = 0; k < R; k++)
            in[k].load(d, r + k * GROUPS < rows ? x + (r + k * GROUPS) * d : NULL);
#pragma unroll
        for (int k = 0; k < R; k++)
            in[k].widen(v[k]);
        moments_of<T, P, G, R>(kind, d, over, v, eps, mean, scale, &turn);
#pragma unroll
        for (int k = 0; k < R; k++) {
#pragma unroll
            for (int i = 0; i < S::COUNT; i++)
                v[k][i] = scale[k] * (v[k][i] - mean[k]) * (gain ? a.get(i) : 1) + b.get(i);
            S::store(d, r + k * GROUPS < rows ? y + (r + k * GROUPS) * d : NULL, v[k]);
        }
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

/* Of a thread's numbers x and dy of a row: z = (x - mean) scale and g = gain dy in their place, and the sums of g and g z;
 * SUMS: dy z and dy are added to gains and biases.  gain may be NULL. */
template <class T, int P, int G, bool SUMS> static inline __device__ void
weigh(wide<T> *z, wide<T> *g, wide<T> mean, wide<T> scale, const share<T, P, G> *gain, wide<T> *gains, wide<T> *biases, wide<T> *sums)
{
    sums[0] = sums[1] = 0;
#pragma unroll
    for (int i = 0; i < share<T, P, G>::COUNT; i++) {
        z[i] = scale * (z[i] - mean);
        if (SUMS) {
            gains[i] += g[i] * z[i];
            biases[i] += g[i];
        }
        g[i] = gain ? g[i] * gain->get(i) : g[i];
        sums[0] += g[i];
        sums[1] += g[i] * z[i];
    }
}

/* With z = (x - mean) scale and g = gain dy: dx = scale (g - mean(g) - z mean(g z)), the middle for layers alone.
 * dx, dy, x [rows,d], gain [d] or NULL; SUMS: part [blocks,2,d] becomes the sums of dy z and dy. */
template <class T, int P, int G, bool SUMS> __global__ static void __launch_bounds__(THREADS, BUSY_BACK / THREADS)
norm_back_kernel(k_norm_kind kind, int64_t rows, int d, wide<T> over, wide<T> eps, int add, T *dx, const T *dy, const T *x, const T *gain,
                 wide<T> *part)
{
    typedef share<T, P, G> S;
    enum { R = at_once(P, true), GROUPS = THREADS / G };
    int turn = 0;
    S a;
    wide<T> gains[S::COUNT] = { 0 }, biases[S::COUNT] = { 0 };
    a.load(d, gain);
    for (int64_t first = (int64_t)blockIdx.x * GROUPS * R; first < rows; first += (int64_t)gridDim.x * GROUPS * R) {
        const int64_t r = first + threadIdx.x / G;
        wide<T> z[R][S::COUNT], g[R][S::COUNT], mean[R], scale[R], sums[2 * R];
        S in[R], from[R];
#pragma unroll
        for (int k = 0; k < R; k++) {
            in[k].load(d, r + k * GROUPS < rows ? x + (r + k * GROUPS) * d : NULL);
            from[k].load(d, r + k * GROUPS < rows ? dy + (r + k * GROUPS) * d : NULL);
        }
#pragma unroll
        for (int k = 0; k < R; k++)
            in[k].widen(z[k]), from[k].widen(g[k]);
        moments_of<T, P, G, R>(kind, d, over, z, eps, mean, scale, &turn);
#pragma unroll
        for (int k = 0; k < R; k++)
            weigh<T, P, G, SUMS>(z[k], g[k], mean[k], scale[k], gain ? &a : NULL, gains, biases, sums + 2 * k);
        group_sums<G, 2 * R>(sums, &turn);
#pragma unroll
        for (int k = 0; k < R; k++) {
            const wide<T> sum = kind == K_NORM_LAYER ? sums[2 * k] * over : 0, dot = sums[2 * k + 1] * over;
            T *const out = dx && r + k * GROUPS < rows ? dx + (r + k * GROUPS) * d : NULL;
            if (add)
                in[k].load(d, out);
#pragma unroll
            for (int i = 0; i < S::COUNT; i++)
                z[k][i] = scale[k] * (g[k][i] - sum - z[k][i] * dot) + (add ? in[k].get(i) : 0);
            S::store(d, out, z[k]);
        }
    }
    if (SUMS) {
        add_groups<T, P, G>(d, gains, part + (int64_t)blockIdx.x * 2 * d);
        add_groups<T, P, G>(d, biases, part + (int64_t)blockIdx.x * 2 * d + d);
    }
}

template <class W> struct moments { W mean, scale; };

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

/* Blocks that share `rows` rows, `each` at a time: as many as work at once, so many threads being busy in a multiprocessor, and
 * fewer where each leaves so many bytes of sums. */
static int64_t blocks_for(k_dev *dev, int64_t rows, int64_t each, int64_t busy, int64_t sums)
{
    const int64_t wanted = (rows + each - 1) / each, working = busy / THREADS * (int64_t)cuda_of(dev)->sms;
    const int64_t room = sums ? CUDA_SCRATCH / sums : working, most = working < room ? working : room;
    return wanted < most ? wanted : most;
}

template <class T>
static void forward(k_dev *dev, k_norm_kind kind, int64_t rows, int64_t d, double eps, T *y, const T *x, const T *gain, const T *bias)
{
    const bool aligned = aligned16(y) && aligned16(x) && aligned16(gain) && aligned16(bias);
#define RUN(P, G)                                                                                                              \
    CUDA_RUN(dev, (norm_kernel<T, P, G>), blocks_for(dev, rows, THREADS / G * at_once(P, false), BUSY, 0), THREADS, kind, rows, \
             (int)d, (wide<T>)(1.0 / (double)d), (wide<T>)eps, y, x, gain, bias)
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
    blocks = blocks_for(dev, rows, THREADS / G * at_once(P, true), BUSY_BACK, sums);                                           \
    CUDA_RUN(dev, (norm_back_kernel<T, P, G, SUMS>), blocks, THREADS, kind, rows, (int)d, (wide<T>)(1.0 / (double)d), (wide<T>)eps, \
             add, dx, dy, x, gain, part)
#define RUN_LONG                                                                                                               \
    blocks = blocks_for(dev, rows, 1, BUSY_BACK, sums);                                                                        \
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
