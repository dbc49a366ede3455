/* adafactor.cu - Adafactor: a second moment of a matrix from the means over its rows and columns.
 *
 * Sums are in double and in a fixed order; what one kernel hands to the next lies in the scratch of the device. */
#include "block.cuh"
#include <math.h>

enum { THREADS = 256, PARTS = 512, ROWS_EACH = 64 };

typedef struct found { double mean, rate, part[PARTS][2]; } found;     /* of row; what u is taken at; sums of u^2 and p^2 by block */

static inline __device__ double gscale_of(const double *gscale) { return gscale ? *gscale : 1; }

/* row [rows] moves to the means of (g gscale)^2 + eps over the rows of g [rows,d]: a block a row */
template <class T> __global__ static void __launch_bounds__(THREADS)
row_kernel(int64_t rows, int64_t d, const T *g, T *row, k_adafactor o, const double *gscale)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        double s = 0;
        for (int64_t j = threadIdx.x; j < d; j += THREADS)
            s += (double)g[r * d + j] * (double)g[r * d + j];
        s = block_sum<THREADS>(s) * gscale_of(gscale) * gscale_of(gscale);
        if (threadIdx.x == 0)
            row[r] = (T)(o.beta2 * row[r] + (1 - o.beta2) * (s / (double)d + o.eps));
    }
}

/* sums [gridDim.y,d]: of g^2 over as many rows as each has */
template <class T> __global__ static void __launch_bounds__(THREADS) column_kernel(int64_t rows, int64_t d, const T *g, double *sums)
{
    const int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, each = (rows + gridDim.y - 1) / gridDim.y;
    const int64_t from = blockIdx.y * each, to = from + each < rows ? from + each : rows;
    double s = 0;
    if (j >= d)
        return;
#pragma unroll 8
    for (int64_t r = from; r < to; r++)
        s += (double)g[r * d + j] * (double)g[r * d + j];
    sums[blockIdx.y * d + j] = s;
}

/* column [d] moves to the means, and the first block finds the mean of row. */
template <class T> __global__ static void __launch_bounds__(THREADS)
column_end(int64_t rows, int64_t d, int parts, const double *sums, const T *row, T *column, k_adafactor o, const double *gscale, found *f)
{
    const int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    double s = 0, mean = 0;
    for (int y = 0; j < d && y < parts; y++)
        s += sums[y * d + j];
    s *= gscale_of(gscale) * gscale_of(gscale);
    if (j < d)
        column[j] = (T)(o.beta2 * column[j] + (1 - o.beta2) * (s / (double)rows + o.eps));
    if (blockIdx.x > 0)
        return;
    for (int64_t r = threadIdx.x; r < rows; r += THREADS)
        mean += (double)row[r];
    mean = block_sum<THREADS>(mean) / (double)rows;
    if (threadIdx.x == 0)
        f->mean = mean;
}

/* The second moments v [n] themselves. */
template <class T> __global__ static void __launch_bounds__(THREADS) whole_kernel(int64_t n, const T *g, T *v, k_adafactor o, const double *gscale)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
        const double gi = (double)g[i] * gscale_of(gscale);
        v[i] = (T)(o.beta2 * v[i] + (1 - o.beta2) * (gi * gi + o.eps));
    }
}

/* What u of row r is made of, beside g and the columns' moments. */
template <class T> static inline __device__ double scale_of(const T *row, int64_t r, const double *gscale, const found *f)
{
    return gscale_of(gscale) * (row ? sqrt(f->mean / (double)row[r]) : 1);
}
template <class T> static inline __device__ T u_of(T g, T v, double scale) { return (T)(scale * (double)g) / (T)sqrt(v); }

/* Sums of u^2 and p^2 by block; p, g [rows,d], row [rows] or NULL, v [d] or [rows,d] */
template <class T> __global__ static void __launch_bounds__(THREADS)
sums_kernel(int64_t rows, int64_t d, const T *p, const T *g, const T *row, const T *v, const double *gscale, found *f)
{
    double a = 0, b = 0;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const double scale = scale_of(row, r, gscale, f);
        for (int64_t j = threadIdx.x; j < d; j += THREADS) {
            const double u = (double)u_of(g[r * d + j], v[row ? j : r * d + j], scale), x = (double)p[r * d + j];
            a += u * u;
            b += x * x;
        }
    }
    a = block_sum<THREADS>(a);
    b = block_sum<THREADS>(b);
    if (threadIdx.x == 0)
        f->part[blockIdx.x][0] = a, f->part[blockIdx.x][1] = b;
}

__global__ static void __launch_bounds__(THREADS) rate_kernel(int parts, double n, k_adafactor o, found *f)
{
    double a = 0, b = 0;
    for (int i = (int)threadIdx.x; i < parts; i += THREADS)
        a += f->part[i][0], b += f->part[i][1];
    a = block_sum<THREADS>(a);
    b = block_sum<THREADS>(b);
    if (threadIdx.x == 0)
        f->rate = o.rate * (o.least > 0 ? fmax(o.least, sqrt(b / n)) : 1) / fmax(1.0, sqrt(a / n) / o.clip);
}

template <class T> __global__ static void __launch_bounds__(THREADS)
take_kernel(int64_t rows, int64_t d, T *p, const T *g, const T *row, const T *v, T keep, const double *gscale, const found *f)
{
    const T rate = (T)f->rate;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const double scale = scale_of(row, r, gscale, f);
        for (int64_t j = threadIdx.x; j < d; j += THREADS)
            p[r * d + j] = keep * p[r * d + j] - rate * u_of(g[r * d + j], v[row ? j : r * d + j], scale);
    }
}

template <class T>
static void step(k_dev *dev, int64_t rows, int64_t d, T *p, const T *g, T *row, T *column, const k_adafactor *o, const double *gscale)
{
    found *const f = (found *)cuda_of(dev)->scratch;
    double *const sums = (double *)(f + 1);
    const int64_t blocks = rows < PARTS ? rows : (int64_t)PARTS, room = (CUDA_SCRATCH - (int64_t)sizeof *f) / (d * (int64_t)sizeof *sums);
    const int64_t wanted = (rows + ROWS_EACH - 1) / ROWS_EACH, parts = wanted < room ? wanted < PARTS ? wanted : (int64_t)PARTS : room;
    const unsigned across = (unsigned)((d + THREADS - 1) / THREADS);
    if (row) {
        CUDA_RUN(dev, row_kernel<T>, cuda_blocks(dev, rows, 1), THREADS, rows, d, g, row, *o, gscale);
        column_kernel<T><<<dim3(across, (unsigned)parts), THREADS, 0, cuda_stream(dev)>>>(rows, d, g, sums);
        CUDA_RUN(dev, column_end<T>, across, THREADS, rows, d, (int)parts, sums, row, column, *o, gscale, f);
    } else {
        CUDA_RUN(dev, whole_kernel<T>, cuda_blocks(dev, rows * d, THREADS), THREADS, rows * d, g, column, *o, gscale);
    }
    CUDA_RUN(dev, sums_kernel<T>, blocks, THREADS, rows, d, p, g, row, column, gscale, f);
    CUDA_RUN(dev, rate_kernel, 1, THREADS, (int)blocks, (double)(rows * d), *o, f);
    CUDA_RUN(dev, take_kernel<T>, cuda_blocks(dev, rows, 1), THREADS, rows, d, p, g, row, column, (T)o->keep, gscale, f);
}

void cuda_adafactor_step(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *p, const void *g, void *row, void *column, const k_adafactor *o,
                         const double *gscale)
{
    if (rows > 0 && d > 0)
        CUDA_WIDE(t, step(dev, rows, d, (T *)p, (const T *)g, (T *)row, (T *)column, o, gscale));
}
