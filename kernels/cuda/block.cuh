/* block.cuh - the sum and the maximum over a block of THREADS threads, in every thread, in a fixed order. */
#ifndef KERNELS_CUDA_BLOCK_CUH
#define KERNELS_CUDA_BLOCK_CUH
#include "device.cuh"

template <int THREADS, class A> static inline __device__ A block_sum(A x)
{
    __shared__ A part[THREADS / 32];
    x = warp_sum(x);
    __syncthreads();                    /* the last call's readers are done */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    A total = 0;
    for (int i = 0; i < THREADS / 32; i++)
        total += part[i];
    return total;
}

template <int THREADS, class A> static inline __device__ A block_max(A x)
{
    __shared__ A part[THREADS / 32];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    A most = part[0];
    for (int i = 1; i < THREADS / 32; i++)
        most = part[i] > most ? part[i] : most;
    return most;
}
#endif
