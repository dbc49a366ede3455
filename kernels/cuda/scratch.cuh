/* scratch.cuh - how the problems of attention cut their scratch, and which rows go 16 bytes at a time. */
#ifndef KERNELS_CUDA_SCRATCH_CUH
#define KERNELS_CUDA_SCRATCH_CUH
#include "../kernels.h"
#include "../heads.h"
#include <cstddef>
#include <cstdint>

/* The next place, in bytes from the start. */
static inline size_t take(size_t *end, size_t bytes)
{
    const size_t at = *end;
    *end += (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    return at;
}

/* Whether rows of width numbers, each of so many bytes, begin at multiples of 16 bytes and are as long. */
static inline bool even(const k_heads &x, int width, size_t number)
{
    const int64_t n = 16 / (int64_t)number;
    return ((uintptr_t)x.p & 15) == 0 && x.sb % n == 0 && x.sh % n == 0 && x.st % n == 0 && width % n == 0;
}
#endif
