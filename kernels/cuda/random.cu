/* random.cu - the numbers of kernels/cpu/random.c, bit for bit: the same words (philox.h), the same arithmetic (normal.h; this
 * file is compiled without contraction), the same rounding.  A thread makes the four numbers of a counter block. */
#include "device.cuh"
#include "../normal.h"
#include <stdlib.h>

enum { THREADS = 256 };

/* x [n] = offset + scale number, kept at most `under`: rounding, of the sum or to float, may reach beyond. */
template <class T, bool NORMAL> __global__ static void __launch_bounds__(THREADS)
draw_kernel(int64_t n, T *x, k_rng rng, double offset, double scale, double under)
{
    for (int64_t block = (int64_t)blockIdx.x * THREADS + threadIdx.x; 4 * block < n; block += (int64_t)gridDim.x * THREADS) {
        const philox4 word = philox4x32_10(rng.seed, (uint64_t)block, rng.stream, rng.draw);
        double z[4];
        for (int i = 0; i < 4; i += 2) {
            if (NORMAL) {
                normal_pair(word.v[i], word.v[i + 1], &z[i], &z[i + 1]);
            } else {
                z[i] = word.v[i] * 0x1p-32;
                z[i + 1] = word.v[i + 1] * 0x1p-32;
            }
        }
        for (int i = 0; i < 4 && 4 * block + i < n; i++) {
            const double v = fma(scale, z[i], offset);
            x[4 * block + i] = (T)(v > under ? under : v);
        }
    }
}

template <bool NORMAL>
static void draw(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double offset, double scale, double limit)
{
    const double under = t == K_F64 ? nextafter(limit, -INFINITY) : (double)nextafterf((float)limit, -INFINITY);
    if (n > 0)
        CUDA_WIDE(t, CUDA_RUN(dev, (draw_kernel<T, NORMAL>), cuda_blocks(dev, n, 4 * THREADS), THREADS, n, (T *)x, rng, offset,
                              scale, under));
}

void cuda_random_uniform(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double lo, double hi)
{
    draw<false>(dev, t, n, x, rng, lo, hi - lo, hi);
}

void cuda_random_normal(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double mean, double sd)
{
    draw<true>(dev, t, n, x, rng, mean, sd, INFINITY);
}

/* Drawn by the host, whose function takes from the device the number of threads alone; without room they are NaN. */
void cuda_random_orthogonal(k_dev *dev, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    const size_t bytes = (size_t)(blocks * m * D) * k_dtype_size(t);
    void *host = malloc(bytes);
    if (host) {
        k_cpu_ops.random_orthogonal(dev, t, blocks, m, D, host, rng, chi);
        cuda_upload(dev, x, host, bytes);
    } else if (bytes) {
        cuda_failed(dev, cudaMemsetAsync(x, 0xFF, bytes, cuda_stream(dev)), "random features");
    }
    free(host);
}
