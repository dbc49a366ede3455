/* linattn.cuh - what the files of linear attention on CUDA share. */
#ifndef KERNELS_CUDA_LINATTN_CUH
#define KERNELS_CUDA_LINATTN_CUH
#include "features.cuh"
#include "kernels/cuda.h"

/* Tq new tokens of every (batch, key head), one after the other. */
template <typename T> void linattn_decode(const k_linattn *, void *state, int64_t pos, cudaStream_t);

/* Whether rows of this many numbers begin at 16 bytes and are as long. */
static inline int linattn_aligned(const k_rows &t, int width, size_t size)
{
    return ((uintptr_t)t.p | (size_t)t.sb * size | (size_t)t.sh * size | (size_t)t.st * size | width * size) % 16 == 0;
}

/* h [B,Hq,Tq] = -g.o with g = do / den, rounded as T; inverse NULL: do itself. */
template <typename T> void linattn_weights(const k_linattn *, const float *inverse, float *h, cudaStream_t);

/* ---- without a mask, features that never reach memory (linattn_projected.cu) -------------------------------------- */

/* 1: these kernels take it, in numbers of so many bytes. */
int linattn_projects(const k_linattn *, size_t size);
/* saved and scratch; the other sizes stay. */
void linattn_projected_sizes(const k_linattn *, int training, k_cuda_sizes *);
template <typename T> void linattn_projected_forward(const k_linattn *, cudaStream_t);
template <typename T> void linattn_projected_backward(const k_linattn *, cudaStream_t);

#endif
