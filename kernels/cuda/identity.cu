/* identity.cu - every token passes its own value: copies of heads, sums over those that share one, zeros.
 *
 * All three are one kernel: row (b,h,t) of the output is the sum of `count` heads of the input from `first(h)` on.  The
 * floor is the memory's: each input read once, each output written once. */
#include "../cuda.h"
#include <cuda_bf16.h>
#include <cuda_runtime.h>

enum { THREADS = 256, MOST_BLOCKS = 132 * 32 };

static inline __device__ float wide(float x) { return x; }
static inline __device__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }

/* N numbers, read and written at once. */
template <class T, int N> struct alignas(N * sizeof(T)) group { T v[N]; };

/* A tensor [B,H,T,D] by strides, in groups of N. */
typedef struct shape { int64_t B, H, T, D; } shape;

/* out [B,H,T,D]: head h is the sum of heads h * num / den .. + count of in. */
template <class T, int N> __global__ static void __launch_bounds__(THREADS)
pass(shape s, k_heads out, k_heads in, int64_t num, int64_t den, int count)
{
    const int64_t across = s.D / N, all = s.B * s.H * s.T * across;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < all; i += (int64_t)gridDim.x * THREADS) {
        const int64_t d = i % across * N, t = i / across % s.T, h = i / across / s.T % s.H, b = i / across / s.T / s.H;
        const T *from = (const T *)in.p + b * in.sb + h * num / den * in.sh + t * in.st + d;
        group<T, N> sum;
        float total[N] = { 0 };
        for (int g = 0; g < count; g++) {
            const group<T, N> x = *(const group<T, N> *)(from + g * in.sh);
            for (int e = 0; e < N; e++)
                total[e] += wide(x.v[e]);
        }
        for (int e = 0; e < N; e++)
            sum.v[e] = (T)total[e];
        *(group<T, N> *)((T *)out.p + b * out.sb + h * out.sh + t * out.st + d) = sum;
    }
}

/* Whether rows of x can be read 16 bytes at a time, n numbers each. */
static bool whole(k_heads x, int64_t n)
{
    return (uintptr_t)x.p % 16 == 0 && x.sb % n == 0 && x.sh % n == 0 && x.st % n == 0;
}

template <class T>
static int queue(shape s, k_heads out, k_heads in, int64_t num, int64_t den, int count, void *stream)
{
    enum { N = 16 / sizeof(T) };
    if (!out.p)
        return 0;
    const int packed = s.D % N == 0 && whole(out, N) && (count == 0 || whole(in, N));
    const int64_t items = s.B * s.H * s.T * (packed ? s.D / N : s.D), wanted = (items + THREADS - 1) / THREADS;
    const unsigned blocks = (unsigned)(wanted < MOST_BLOCKS ? wanted : (int64_t)MOST_BLOCKS);
    if (packed)
        pass<T, N><<<blocks, THREADS, 0, (cudaStream_t)stream>>>(s, out, in, num, den, count);
    else
        pass<T, 1><<<blocks, THREADS, 0, (cudaStream_t)stream>>>(s, out, in, num, den, count);
    return cudaGetLastError() == cudaSuccess ? 0 : K_EDEVICE;
}

static const char *plan(const k_identity *p, k_dtype t, int training, k_cuda_sizes *out)
{
    (void)training;
    (void)p;
    *out = k_cuda_sizes{ 0, 0, 0, 0, 1 };       /* decoding needs no memory; 0 would mean that there is no decoding */
    return t == K_F32 || t == K_BF16 ? NULL : "the GPU's kernel takes f32 and bf16";
}

template <class T> static int forward_in(const k_identity *p, void *stream)
{
    return queue<T>(shape{ p->B, p->Hq, p->T, p->Dv }, p->o, p->v, p->Hk, p->Hq, 1, stream);
}
template <class T> static int backward_in(const k_identity *p, void *stream)
{
    const int shared = p->Hq / p->Hk;
    int rc = queue<T>(shape{ p->B, p->Hq, p->T, p->Dk }, p->dq, p->dq, 1, 1, 0, stream);
    if (rc == 0)
        rc = queue<T>(shape{ p->B, p->Hk, p->T, p->Dk }, p->dk, p->dk, 1, 1, 0, stream);
    return rc ? rc : queue<T>(shape{ p->B, p->Hk, p->T, p->Dv }, p->dv, p->d_o, shared, 1, shared, stream);
}

static int forward(const k_identity *p, k_dtype t, void *stream)
{
    return t == K_BF16 ? forward_in<__nv_bfloat16>(p, stream) : forward_in<float>(p, stream);
}
static int backward(const k_identity *p, k_dtype t, void *stream)
{
    return t == K_BF16 ? backward_in<__nv_bfloat16>(p, stream) : backward_in<float>(p, stream);
}
static int decode(const k_identity *p, k_dtype t, void *, int64_t, int64_t, void *stream) { return forward(p, t, stream); }

extern "C" const k_cuda_identity k_cuda_identity_v1;
const k_cuda_identity k_cuda_identity_v1 = { sizeof(k_cuda_identity), plan, forward, backward, decode };
