/* clusters.cu - rows by the cluster of their target, and logarithms of probabilities. */
#include "block.cuh"

enum { THREADS = 256, SORTERS = 1024 };

/* The tail of a target, or the number of tails where it has none. */
static inline __device__ int tail_of(const k_clusters &c, int32_t target)
{
    int tail = -1;
    while (tail + 1 < c.tails && target >= c.cut[tail + 1])
        tail++;
    return tail < 0 ? c.tails : tail;
}

/* One block: each thread has a stretch of the rows, counts its tails, and learns where they go from those before it.
 * target, row, place [n], word [1 + tails,n], some [tails,chunks] */
__global__ static void __launch_bounds__(SORTERS)
sort_kernel(int n, const int32_t *target, k_clusters c, int chunk, int chunks, int32_t *row, int32_t *place, int32_t *word, int32_t *some)
{
    __shared__ int next[K_TAILS + 1][SORTERS], begin[K_TAILS + 2];
    const int me = (int)threadIdx.x, each = (n + SORTERS - 1) / SORTERS, from = me * each, to = min(n, from + each);
    for (int i = 0; i <= c.tails; i++)
        next[i][me] = 0;
    for (int i = me; i < c.tails * chunks; i += SORTERS)
        some[i] = 0;
    for (int r = from; r < to; r++)
        next[tail_of(c, target[r])][me]++;
    __syncthreads();
    if (me <= c.tails) {                /* counts become places within the tail */
        int sum = 0;
        for (int i = 0; i < SORTERS; i++) {
            const int here = next[me][i];
            next[me][i] = sum;
            sum += here;
        }
        begin[me + 1] = sum;
    }
    __syncthreads();
    if (me == 0) {
        begin[0] = 0;
        for (int i = 0; i < c.tails; i++)
            begin[i + 1] += begin[i];
    }
    __syncthreads();
    for (int r = from; r < to; r++) {
        const int tail = tail_of(c, target[r]), p = begin[tail] + next[tail][me]++;
        row[p] = r;
        place[r] = p;
        word[p] = tail < c.tails ? c.cut[0] + tail : target[r];
        for (int i = 0; i < c.tails; i++)
            word[(int64_t)(i + 1) * n + p] = i == tail ? target[r] - c.cut[i] : -1;
        if (tail < c.tails)
            some[tail * chunks + p / chunk] = 1;
    }
}

void cuda_sort_targets(k_dev *dev, int64_t n, const int32_t *target, const k_clusters *c, int64_t chunk, int32_t *row, int32_t *place, int32_t *word,
                       int32_t *some)
{
    if (n > 0)
        CUDA_RUN(dev, sort_kernel, 1, SORTERS, (int)n, target, *c, (int)chunk, (int)((n + chunk - 1) / chunk), row, place, word, some);
}

static inline __device__ float log_of(float x) { return logf(x); }
static inline __device__ double log_of(double x) { return log(x); }
static inline __device__ float exp_of(float x) { return expf(x); }
static inline __device__ double exp_of(double x) { return exp(x); }

/* A block a row: y [rows,d] -> out [rows,take], ld and ldo apart; plus [rows], `every` apart, or NULL */
template <class T> __global__ static void __launch_bounds__(THREADS)
log_softmax_kernel(int64_t d, int64_t take, T *out, int64_t ldo, const T *y, int64_t ld, const T *plus, int64_t every)
{
    const int64_t r = blockIdx.x;
    const T *yr = y + r * ld;
    wide<T> max = -INFINITY, total = 0;
    for (int64_t j = threadIdx.x; j < d; j += THREADS)
        max = (wide<T>)yr[j] > max ? (wide<T>)yr[j] : max;
    max = block_max<THREADS>(max);
    for (int64_t j = threadIdx.x; j < d; j += THREADS)
        total += exp_of((wide<T>)yr[j] - max);
    total = block_sum<THREADS>(total);
    const wide<T> less = max + log_of(total) - (plus ? (wide<T>)plus[r * every] : 0);
    for (int64_t j = threadIdx.x; j < take; j += THREADS)
        out[r * ldo + j] = (T)((wide<T>)yr[j] - less);
}

void cuda_log_softmax(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t take, void *out, int64_t ldo, const void *y, int64_t ld,
                      const void *plus, int64_t every)
{
    if (rows > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, log_softmax_kernel<T>, rows, THREADS, d, take, (T *)out, ldo, (const T *)y, ld, (const T *)plus, every));
}
