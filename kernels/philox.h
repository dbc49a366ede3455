/* philox.h - Philox4x32-10 (Salmon et al., SC 2011), the only source of randomness in harness.
 *
 * key     = (low, high) 32 bits of the seed
 * counter = (low, high) 32 bits of the block index i / 4, stream, draw
 * so that element i of (seed, stream, draw) is word i % 4 of one block: independent of device, thread
 * count and batch.  Header-only, so that the CPU and CUDA run the same lines. */
#ifndef KERNELS_PHILOX_H
#define KERNELS_PHILOX_H
#include <stdint.h>
#ifdef __CUDACC__
#define K_HD __host__ __device__ static inline
#else
#define K_HD static inline
#endif

typedef struct philox4 { uint32_t v[4]; } philox4;

K_HD philox4 philox4x32_10(uint64_t seed, uint64_t block, uint32_t stream, uint32_t draw)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = stream, c3 = draw;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    philox4 r = { { c0, c1, c2, c3 } };
    return r;
}

/* 32 random bits of element i. */
K_HD uint32_t philox_u32(uint64_t seed, uint32_t stream, uint32_t draw, uint64_t i)
{
    return philox4x32_10(seed, i >> 2, stream, draw).v[i & 3];
}

/* A uniform number in [0, 1) with 24 bits, exact in float. */
K_HD float philox_uniform(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

/* A uniform integer in 0..n-1 by multiplication (bias below n / 2^32). */
K_HD uint32_t philox_below(uint32_t bits, uint32_t n) { return (uint32_t)(((uint64_t)bits * n) >> 32); }

/* Random bits are below it with probability p < 1. */
K_HD uint32_t philox_threshold(double p) { return (uint32_t)(p * 0x1p32); }
#endif
