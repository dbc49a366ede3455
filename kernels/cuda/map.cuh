/* map.cuh - one kernel for everything that happens element by element: y[i] = f(x0[i], x1[i] ...).
 *
 * The floor is the memory's: every array passes once, 16 bytes at a time, two of them in flight per thread and array.
 * y may be one of the x. */
#ifndef KERNELS_CUDA_MAP_CUH
#define KERNELS_CUDA_MAP_CUH
#include "device.cuh"

enum { MAP_THREADS = 256, MAP_PACKS = 2 };

template <class T, int INPUTS> struct map_inputs { const T *p[INPUTS]; };

/* f takes wide<T> x[INPUTS] and gives wide<T>. */
template <class T, int INPUTS, class F>
__global__ static void __launch_bounds__(MAP_THREADS) map_kernel(int64_t n, T *y, map_inputs<T, INPUTS> x, F f)
{
    const int64_t thread = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x, threads = (int64_t)gridDim.x * MAP_THREADS;
    bool whole = aligned16(y);
    for (int j = 0; j < INPUTS; j++)
        whole = whole && aligned16(x.p[j]);
    const int64_t packs = whole ? n / pack<T>::N : 0;
    for (int64_t i = thread; i < packs; i += MAP_PACKS * threads) {
        pack<T> in[MAP_PACKS][INPUTS];
        wide<T> out[pack<T>::N];
#pragma unroll
        for (int u = 0; u < MAP_PACKS; u++)
#pragma unroll
            for (int j = 0; j < INPUTS; j++)
                if (i + u * threads < packs)
                    in[u][j] = ((const pack<T> *)x.p[j])[i + u * threads];
#pragma unroll
        for (int u = 0; u < MAP_PACKS; u++) {
            if (i + u * threads >= packs)
                break;
#pragma unroll
            for (int e = 0; e < pack<T>::N; e++) {
                wide<T> v[INPUTS];
#pragma unroll
                for (int j = 0; j < INPUTS; j++)
                    v[j] = (wide<T>)in[u][j].v[e];
                out[e] = f(v);
            }
            ((pack<T> *)y)[i + u * threads] = packed<T>(out);
        }
    }
    for (int64_t i = packs * pack<T>::N + thread; i < n; i += threads) {
        wide<T> v[INPUTS];
        for (int j = 0; j < INPUTS; j++)
            v[j] = (wide<T>)x.p[j][i];
        y[i] = (T)f(v);
    }
}

template <class T, int INPUTS, class F> static void map(k_dev *dev, int64_t n, T *y, map_inputs<T, INPUTS> x, F f)
{
    if (n > 0)
        CUDA_RUN(dev, map_kernel, cuda_blocks(dev, n, MAP_THREADS * MAP_PACKS * pack<T>::N), MAP_THREADS, n, y, x, f);
}
#endif
