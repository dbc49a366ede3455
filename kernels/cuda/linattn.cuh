/* linattn.cuh - what the files of linear attention on CUDA share. */
#ifndef KERNELS_CUDA_LINATTN_CUH
#define KERNELS_CUDA_LINATTN_CUH
#include "features.cuh"

/* Tq new tokens of every (batch, key head), one after the other. */
template <typename T> void linattn_decode(const k_linattn *, void *state, int64_t pos, cudaStream_t);

#endif
