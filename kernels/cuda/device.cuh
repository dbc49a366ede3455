/* device.cuh - what the files of kernels/cuda that stand behind kernels.h share: the state of a device, how a failure is
 * noted, and how one source serves several number types.
 *
 * A failed call or launch leaves the first sentence in dev->error and `failed` in the state; from then on k_sync fails, and
 * what k_download brings is NaN in every dtype, so that no number of a broken context can pass for a result. */
#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH
#include "../device.h"
#include <cublas_v2.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define X(name) extern "C" decltype(k_##name) cuda_##name;
K_KERNELS(X)
#undef X

typedef __nv_bfloat16 bf16;

/* Bytes of the scratch that kernels of one stream share one after another, and of cuBLAS's own. */
enum { CUDA_SCRATCH = 32 << 20, CUDA_BLAS_SCRATCH = 32 << 20 };
/* Bytes of pinned memory through which uploads pass, in halves. */
enum { CUDA_STAGE = 2 << 20 };

typedef struct cuda_state {
    int index, sms, failed;
    size_t total, l2, own;              /* bytes: of the device, of its L2, taken for the state itself */
    cublasHandle_t blas;
    char *scratch;                      /* [CUDA_SCRATCH] for one kernel's partial results */
    char *stage;                        /* [CUDA_STAGE] pinned */
    int half;                           /* of the stage that is being filled */
    size_t staged;                      /* bytes of it in use */
    cudaEvent_t passed[2], start, stop; /* what lay in a half of the stage has gone; k_time */
    void *flush;                        /* 2 l2 bytes that k_time reads, from its first cold call on */
    double nothing;                     /* seconds between two events with nothing between them; 0: not yet timed */
    volatile int *gate;                 /* pinned: lets the kernel that k_time waits behind go */
    struct linear_plan *linears;        /* blas.cu: how cuBLASLt does each shape of k_linear that came */
} cuda_state;

static inline cuda_state *cuda_of(k_dev *dev) { return (cuda_state *)dev->state; }
static inline cudaStream_t cuda_stream(k_dev *dev) { return (cudaStream_t)dev->stream; }
/* Notes a failure of `what` (device.cu); whether it was one. */
int cuda_failed(k_dev *, cudaError_t, const char *what);
/* Brings bytes of the device to the host and waits: K_OK, or K_EDEVICE and bytes of 0xFF. */
int cuda_fetch(k_dev *, void *host_dst, const void *src, size_t bytes);

void cuda_forget_linears(cuda_state *);     /* blas.cu */

/* record.cu */
k_recording *cuda_record(k_dev *, int (*work)(void *), void *arg);
void cuda_replay(k_dev *, k_recording *);
void cuda_forget(k_dev *, k_recording *);

/* kernel<<<blocks, threads>>>(...) on the device's stream. */
#define CUDA_RUN(dev, kernel, blocks, threads, ...)                                                        \
    do {                                                                                                   \
        kernel<<<(unsigned)(blocks), (unsigned)(threads), 0, cuda_stream(dev)>>>(__VA_ARGS__);             \
        cuda_failed(dev, cudaPeekAtLastError(), #kernel);                                                  \
    } while (0)

/* Calls body with T the type of dtype: double, float or bf16. */
#define CUDA_TYPED(dtype, ...)                                                                             \
    do {                                                                                                   \
        if ((dtype) == K_F64) { typedef double T; __VA_ARGS__; }                                           \
        else if ((dtype) == K_BF16) { typedef bf16 T; __VA_ARGS__; }                                       \
        else { typedef float T; __VA_ARGS__; }                                                             \
    } while (0)
/* The same without bf16. */
#define CUDA_WIDE(dtype, ...)                                                                              \
    do {                                                                                                   \
        if ((dtype) == K_F64) { typedef double T; __VA_ARGS__; }                                           \
        else { typedef float T; __VA_ARGS__; }                                                             \
    } while (0)

/* What T is computed in, and what many of it are summed in. */
template <class T> struct wide_of { typedef float type; };
template <> struct wide_of<double> { typedef double type; };
template <class T> using wide = typename wide_of<T>::type;

/* COUNT numbers, read and written at once; usually 16 bytes. */
template <class T, int COUNT = 16 / sizeof(T)> struct alignas(COUNT * sizeof(T)) pack { enum { N = COUNT }; T v[N]; };
template <class T> static inline __host__ __device__ bool aligned16(const T *p) { return ((uintptr_t)p & 15) == 0; }

/* N numbers rounded to T, bf16 by pairs. */
template <class T, int N = pack<T>::N> static inline __device__ pack<T, N> packed(const wide<T> *x)
{
    pack<T, N> out;
#pragma unroll
    for (int e = 0; e < N; e++)
        if constexpr (sizeof(T) == 2 && N % 2 == 0) {
            if (e % 2 == 0)
                *(__nv_bfloat162 *)&out.v[e] = __floats2bfloat162_rn(x[e], x[e + 1]);
        } else {
            out.v[e] = (T)x[e];
        }
    return out;
}

/* Blocks of `each` items that cover n, but no more than keep the whole device busy: kernels stride over the rest. */
static inline int64_t cuda_blocks(k_dev *dev, int64_t n, int64_t each)
{
    const int64_t wanted = (n + each - 1) / each, most = 16 * (int64_t)cuda_of(dev)->sms;
    return wanted < 1 ? 1 : wanted < most ? wanted : most;
}

/* The sum over a warp, in every lane, in a fixed order. */
template <class A> static inline __device__ A warp_sum(A x)
{
    for (int lane = 16; lane > 0; lane >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
template <class A> static inline __device__ A warp_max(A x)
{
    for (int lane = 16; lane > 0; lane >>= 1) {
        const A y = __shfl_xor_sync(0xffffffffu, x, lane);
        x = y > x ? y : x;
    }
    return x;
}
#endif
