/* rows.cu - rows of embedding tables. */
#include "device.cuh"
#include <cub/device/device_radix_sort.cuh>

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP };

/* ---- gathering ------------------------------------------------------------------------------------------------------ */

/* out [n,d] = (accumulate ? out : 0) + table[idx[i],:], an element (or pack) V a thread; d counts V. */
template <class T, class V> static inline __device__ V sum_of(V x, V y)
{
    V s;
    const T *a = (const T *)&x, *b = (const T *)&y;
#pragma unroll
    for (int e = 0; e < (int)(sizeof(V) / sizeof(T)); e++)
        ((T *)&s)[e] = (T)((wide<T>)a[e] + (wide<T>)b[e]);
    return s;
}

template <class T, class V>
__global__ static void __launch_bounds__(THREADS) gather_kernel(int64_t n, int64_t d, V *out, const V *table, const int32_t *idx, int accumulate)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n * d; i += (int64_t)gridDim.x * THREADS) {
        const V from = table[idx[i / d] * d + i % d];
        out[i] = accumulate ? sum_of<T, V>(out[i], from) : from;
    }
}

template <class T> static void gather(k_dev *dev, int64_t n, int64_t d, T *out, const T *table, const int32_t *idx, int accumulate)
{
    if (d % pack<T>::N == 0 && aligned16(out) && aligned16(table))
        CUDA_RUN(dev, (gather_kernel<T, pack<T>>), cuda_blocks(dev, n * d / pack<T>::N, THREADS), THREADS, n, d / pack<T>::N,
                 (pack<T> *)out, (const pack<T> *)table, idx, accumulate);
    else
        CUDA_RUN(dev, (gather_kernel<T, T>), cuda_blocks(dev, n * d, THREADS), THREADS, n, d, out, table, idx, accumulate);
}

void cuda_gather_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *out, const void *table, const int32_t *idx, int accumulate)
{
    if (n > 0 && d > 0)
        CUDA_TYPED(t, gather(dev, n, d, (T *)out, (const T *)table, idx, accumulate));
}

/* ---- scattering: the rows of one index stand together when they are sorted, in their old order ----------------------- */

/* Rows that are sorted at once: keys, places, both sorted, and the sorter's own room lie in the scratch. */
enum { SORTED = 1 << 20, SORT_ROOM = CUDA_SCRATCH - 4 * SORTED * 4 };

__global__ static void count_up(int n, int32_t *place)
{
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x))
        place[i] = i;
}

/* A warp for every position of the sorted keys and 32 columns: the first of a run adds the whole run, in order. */
template <class T> __global__ static void __launch_bounds__(THREADS)
scatter_kernel(int64_t n, int64_t d, wide<T> *dtable, const T *dout, const int32_t *key, const int32_t *place)
{
    const int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (at >= n || (at > 0 && key[at] == key[at - 1]))
        return;
    const int32_t row = key[at];
    for (int64_t j = (int64_t)blockIdx.y * WARP + threadIdx.x % WARP; j < d; j += (int64_t)gridDim.y * WARP) {
        wide<T> s = dtable[row * d + j];
#pragma unroll 4
        for (int64_t i = at; i < n && key[i] == row; i++)
            s += (wide<T>)dout[place[i] * d + j];
        dtable[row * d + j] = s;
    }
}

/* As many rows as can be sorted at once. */
template <class T>
static void scatter(k_dev *dev, int n, int64_t d, int64_t rows, wide<T> *dtable, const T *dout, const int32_t *idx)
{
    int32_t *place = (int32_t *)cuda_of(dev)->scratch, *key = place + SORTED, *sorted = key + SORTED;
    void *room = sorted + 2 * SORTED;
    size_t bytes = SORT_ROOM;
    int bits = 1;
    while (bits < 31 && (int64_t)1 << bits < rows)
        bits++;
    CUDA_RUN(dev, count_up, cuda_blocks(dev, n, THREADS), THREADS, n, place);
    cuda_failed(dev, cub::DeviceRadixSort::SortPairs(room, bytes, idx, key, place, sorted, n, 0, bits, cuda_stream(dev)), "sorting");
    const dim3 blocks((unsigned)((n + WARPS - 1) / WARPS), (unsigned)(d > 32 * WARP ? 32 : (d + WARP - 1) / WARP));
    scatter_kernel<T><<<blocks, THREADS, 0, cuda_stream(dev)>>>(n, d, dtable, dout, key, sorted);
    cuda_failed(dev, cudaPeekAtLastError(), "scatter_kernel");
}

void cuda_scatter_add_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, int64_t rows, void *dtable, const void *dout, const int32_t *idx)
{
    for (int64_t at = 0; at < n && d > 0; at += SORTED) {
        const int some = (int)(n - at < SORTED ? n - at : (int64_t)SORTED);
        CUDA_TYPED(t, scatter(dev, some, d, rows, (wide<T> *)dtable, (const T *)dout + at * d, idx + at));
    }
}

/* x [n,d], idx, shown [n] */
template <class T> __global__ static void one_hot_kernel(int64_t n, int64_t d, T *x, const int32_t *idx, int32_t *shown)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        x[i * d + shown[i]] = (T)0.0f;
        x[i * d + idx[i]] = (T)1.0f;
        shown[i] = idx[i];
    }
}

void cuda_one_hot_move(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *x, const int32_t *idx, int32_t *shown)
{
    if (n > 0)
        CUDA_TYPED(t, CUDA_RUN(dev, one_hot_kernel<T>, cuda_blocks(dev, n, THREADS), THREADS, n, d, (T *)x, idx, shown));
}
