/* relative.cuh - attention with learned vectors per distance on the GPU: the problem as kernels take it, and the steps
 * that relative.cu puts together. */
#ifndef KERNELS_CUDA_RELATIVE_CUH
#define KERNELS_CUDA_RELATIVE_CUH
#include "../cuda.h"
#include "attention_mask.cuh"
#include <cuda_runtime.h>

struct relative {
    k_relative a;                       /* with the device's pointers */
    float scale;
    bool vec;                           /* every row of q k v d_o begins at a multiple of 16 bytes and is as long */
    float *delta;                       /* [B,Hq,Tq] d_o.o */
    /* Backward: what every (batch row, head) gives to the rows of the tables, [B,Hq,spread,Dk] and [.., Dv]: number n is
     * that of distance j - p = n - Tk + 1. */
    int spread;
    float *part_E, *part_F;
};

int relative_forward(const relative &, k_dtype, cudaStream_t);
/* delta; dq; dk and dv; part_E and part_F. */
int relative_gradient(const relative &, k_dtype, cudaStream_t);
/* dE and dF += their parts. */
int relative_sum(const relative &, cudaStream_t);
int relative_append(const relative &, k_heads k, k_heads v, k_dtype, cudaStream_t);

static inline int relative_launched(void) { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }
#endif
