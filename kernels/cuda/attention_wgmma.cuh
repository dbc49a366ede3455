/* attention_wgmma.cuh - the instructions of sm_90a that attention stands on: barriers that count bytes, the copy engine
 * for tiles, products of a warpgroup, and the registers' redistribution.
 *
 * A tile of R rows and D columns lies in shared memory as D/64 panels [R][64] of bf16, 128 bytes a row, in the 128-byte
 * swizzle that the copy engine writes and the products read.  Panels begin at multiples of 1024 bytes.  A product reads
 * such a tile along its rows or, turned, along its columns: keys serve the scores and the queries' gradient alike. */
#ifndef ATTENTION_WGMMA_CUH
#define ATTENTION_WGMMA_CUH
#include "attention.cuh"
#include <cuda.h>
#include <cuda_bf16.h>

typedef __nv_bfloat16 bf16;

__device__ inline uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- barriers in shared memory ------------------------------------------------------------------------------------ */

__device__ inline void barrier_init(uint64_t *bar, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals));
}
__device__ inline void barrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
/* Arrives, and expects so many bytes from the copy engine. */
__device__ inline void barrier_expect(uint64_t *bar, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}
/* Until the phase of this parity has passed. */
__device__ inline void barrier_wait(uint64_t *bar, int parity)
{
    asm volatile("{.reg .pred p;\nagain: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra.uni done;\nbra.uni again;\ndone: }"
                 ::"r"(shared_address(bar)), "r"(parity) : "memory");
}
/* Named barriers between warpgroups. */
__device__ inline void named_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ inline void named_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

/* ---- the copy engine ------------------------------------------------------------------------------------------------ */

/* A row of a tensor map: number x of block y. */
struct line { int x, y; };

/* A panel from this row, column d of head h of batch row b on; what lies beyond the tensor is 0. */
__device__ inline void panel_load(void *to, const CUtensorMap *map, uint64_t *bar, int d, line t, int h, int b)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 ::"r"(shared_address(to)), "l"(map), "r"(shared_address(bar)), "r"(d), "r"(t.x), "r"(t.y), "r"(h), "r"(b) : "memory");
}
/* The other way; what lies beyond the tensor is dropped. */
__device__ inline void panel_store(const CUtensorMap *map, const void *from, int d, line t, int h, int b)
{
    asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];"
                 ::"l"(map), "r"(shared_address(from)), "r"(d), "r"(t.x), "r"(t.y), "r"(h), "r"(b) : "memory");
}
__device__ inline void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/* 16 bytes or a multiple, in sequence. */
template <int BYTES> __device__ inline void line_load(void *to, const float *from, uint64_t *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %3, [%2];"
                 ::"r"(shared_address(to)), "l"(from), "r"(shared_address(bar)), "n"(BYTES) : "memory");
}
/* Until everything stored is in memory. */
__device__ inline void store_done() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
/* Until the copy engine has read what was to be stored. */
__device__ inline void store_wait() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/* What ordinary stores wrote becomes visible to the copy engine and the products. */
__device__ inline void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- products --------------------------------------------------------------------------------------------------------- */

/* Where a factor lies: its first byte, and for turned factors the bytes from panel to panel. */
__device__ inline uint64_t factor(uint32_t address, int panel = 16)
{
    return (uint64_t)((address & 0x3FFFF) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
/* Keeps the compiler from reading sums before the wait above it. */
template <int N> __device__ inline void hold_still(float (&x)[N])
{
    #pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i]) :: "memory");
}

#define SUM8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])

/* d [64,64] (+)= a [64,16] b [16,64], both in shared memory; TURNED: b lies as [16,64], else as [64,16]; A_TURNED: a as [16,64]. */
template <int TURNED, int A_TURNED = 0> __device__ inline void wgmma(float (&d)[32], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, p, 1, 1, %36, %35;}"
        : SUM8(d, 0), SUM8(d, 8), SUM8(d, 16), SUM8(d, 24)
        : "l"(a), "l"(b), "r"((int)add), "n"(TURNED), "n"(A_TURNED));
}

/* The same with a in registers. */
template <int TURNED> __device__ inline void wgmma(float (&d)[32], const uint32_t *a, uint64_t b, bool add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, %38;}"
        : SUM8(d, 0), SUM8(d, 8), SUM8(d, 16), SUM8(d, 24)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"(TURNED));
}

/* d [64,128] (+)= a [64,16] b [16,128], both in shared memory; TURNED: b lies as [16,128], else as [128,16]. */
template <int TURNED> __device__ inline void wgmma(float (&d)[64], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, %67;}"
        : SUM8(d, 0), SUM8(d, 8), SUM8(d, 16), SUM8(d, 24),
          SUM8(d, 32), SUM8(d, 40), SUM8(d, 48), SUM8(d, 56)
        : "l"(a), "l"(b), "r"((int)add), "n"(TURNED));
}

/* The same with a in registers. */
template <int TURNED> __device__ inline void wgmma(float (&d)[64], const uint32_t *a, uint64_t b, bool add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, p, 1, 1, %70;}"
        : SUM8(d, 0), SUM8(d, 8), SUM8(d, 16), SUM8(d, 24),
          SUM8(d, 32), SUM8(d, 40), SUM8(d, 48), SUM8(d, 56)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"(TURNED));
}
#undef SUM8

/* s [64,N] = x [64,D] y [N,D]^T: x at row 0 of panels of XR rows, y of YR rows. */
template <int D, int XR, int YR, int N> __device__ inline void product_nt(float (&s)[N], uint32_t x, uint32_t y)
{
    #pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma<0>(s, factor(x + k / 4 * XR * 128 + k % 4 * 32), factor(y + k / 4 * YR * 128 + k % 4 * 32), k > 0);
}

/* o [64,D] += p [64,N] y [N,D]: p in registers, y of panels of N rows. */
template <int N, int M> __device__ inline void product_nn(float (&o)[M], const uint32_t (&p)[N / 4], uint32_t y)
{
    #pragma unroll
    for (int k = 0; k < N / 16; k++)
        wgmma<1>(o, p + 4 * k, factor(y + k * 2048, N * 128), true);
}

/* o [64,64] = s [N,64]^T y [N,64], both in panels of N rows. */
template <int N> __device__ inline void product_tn(float (&o)[32], uint32_t s, uint32_t y)
{
    #pragma unroll
    for (int k = 0; k < N / 16; k++)
        wgmma<1, 1>(o, factor(s + k * 2048, N * 128), factor(y + k * 2048, N * 128), k > 0);
}

/* ---- registers --------------------------------------------------------------------------------------------------------- */

template <int N> __device__ inline void registers_give() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ inline void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

/* 2^x. */
__device__ inline float power(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two numbers as bfloat16, the first in the low half. */
__device__ inline uint32_t halves(float x, float y)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&two);
}

/* Sums as the left factor of the next product. */
template <int N> __device__ inline void as_factor(uint32_t (&p)[N / 4], const float (&s)[N / 2])
{
    #pragma unroll
    for (int i = 0; i < N / 4; i++)
        p[i] = halves(s[2 * i], s[2 * i + 1]);
}
#endif
