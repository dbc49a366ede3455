/* linattn_projected.cuh - what the kernels of linattn_projected.cu share: their problem, and operands in parts.
 *
 * Products go through the tensor cores in bfloat16, operands of more digits in two parts: of float rows all of them, of
 * bfloat16 rows W and S.  hi hi + hi lo + lo hi is good to 2^-17 of each product. */
#ifndef KERNELS_CUDA_LINATTN_PROJECTED_CUH
#define KERNELS_CUDA_LINATTN_PROJECTED_CUH
#include "linattn.cuh"

/* Features of all; of a warp that gathers; threads and features of its block; powers of two that a maximum may lag behind. */
enum { MOST_FEATURES = 256, WARP_FEATURES = 16, GATHERERS = 256, BLOCK_FEATURES = GATHERERS / 32 * WARP_FEATURES, SLACK = 10 };

/* Parts of an operand that is made of rows. */
template <typename T> constexpr int PARTS = sizeof(T) == 4 ? 2 : 1;

/* What all kernels need: rows x [B,H,T,D] and y [B,H,T,E], and their features. */
struct projection {
    k_features f;                       /* W [Hk,m,D] */
    int H, Hk, T, D, E, favor;
    k_rows x, y;
    int x_vector, y_vector;             /* rows begin at 16 bytes */
    const int32_t *klen;                /* [B] or NULL */
    float scale, front, eps;            /* x' = scale x; eps of favor, which is added to sums */
    const float *peak;                  /* [B,H,T] kappa of each row */
    const float *factor, *weight;       /* [B,H,T] or NULL: 1, and `plain` */
    float plain;
};

/* What gather leaves of each part: [m,E] [m], of WARP_FEATURES features each the maximum in powers of two that the sums
 * stand under [GROUPS] and the true one of u [GROUPS], and what eps is multiplied by [E] [1]. */
enum { GROUPS = MOST_FEATURES / WARP_FEATURES };
struct share { float *S, *z, *top, *largest, *sum_y, *sum_w; };

struct gathering { projection p; share to; int segments, halves; };
/* running: kappa is what the parts say. */
struct settling { projection p; share of; int parts, running; float *S, *z, *kappa; };  /* [B,Hk,m,E] [B,Hk,m] [B,Hk] */

/* o of queries; dq; dk and dv.  Threads of a block: as many as have room for what a warp holds of its 16 rows. */
enum spread_mode { ANSWER, ASK, TELL };
static inline constexpr __host__ __device__ int spreaders(int mode) { return mode == ANSWER ? 512 : mode == ASK ? 384 : 256; }
struct spreading {
    projection p;
    const float *S, *z, *kappa;         /* kappa [B,Hk]: TELL */
    int segments, rows, normalise;      /* rows of a segment */
    float denom_eps, guard;
    float *inverse, *peak;              /* [B,H,T], ANSWER writes them; NULL: not wanted */
    k_rows out, dx;                     /* o or dv; dq or dk; p NULL: not wanted */
};

static __device__ __forceinline__ int end_of(const projection &p, int b) { return p.klen && p.klen[b] < p.T ? p.klen[b] : p.T; }
/* Over the four lanes that share a row. */
static __device__ __forceinline__ float row_most(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
static __device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* ---- operands in parts ------------------------------------------------------------------------------------------- */

/* A right side of 16 columns, the two words of eight columns side by side, as the instruction takes them. */
struct right { uint32_t r[4]; };
static __device__ __forceinline__ void multiply(acc &c, const frag<bf16> &a, const right &b)
{
    mma_bf16(c.c, a.r, b.r[0], b.r[1]);
    mma_bf16(c.c + 4, a.r, b.r[2], b.r[3]);
}

/* c += a b', without what is smaller than lo hi. */
template <int A, int B> static __device__ __forceinline__ void multiply(acc &c, const frag<bf16> (&a)[A], const right (&b)[B])
{
    if (A > 1) multiply(c, a[A - 1], b[0]);
    if (B > 1) multiply(c, a[0], b[B - 1]);
    multiply(c, a[0], b[0]);
}

/* A pair of numbers in parts. */
template <int N> static __device__ __forceinline__ void split_pair(float x, float y, uint32_t (&to)[N])
{
    to[0] = pack(x, y);
    if (N > 1) to[N - 1] = pack(x - low(to[0]), y - high(to[0]));
}

/* A result as an operand in parts; where that is one, c becomes what it is rounded to. */
template <int N> static __device__ __forceinline__ void split_acc(acc &c, frag<bf16> (&to)[N])
{
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t pair[N];
        split_pair(c.c[2 * i], c.c[2 * i + 1], pair);
        if (N == 1) c.c[2 * i] = low(pair[0]), c.c[2 * i + 1] = high(pair[0]);
        #pragma unroll
        for (int n = 0; n < N; n++) to[n].r[i] = pair[n];
    }
}

/* Rows row .. row+15 of a matrix in parts as columns of the right side, k = columns k .. k+15. */
template <int N> static __device__ __forceinline__ void right_rows(right (&to)[N], const bf16 *tile, int part, int row, int k)
{
    int l = lane_id();
    uint32_t at = shared_address(tile + (row + (l & 7) + (l >> 4) * 8) * LD + k + (l >> 3 & 1) * 8);
    #pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[n].r[0]), "=r"(to[n].r[1]), "=r"(to[n].r[2]), "=r"(to[n].r[3]) : "r"(at + 2 * n * part) : "memory");
}
/* Columns col .. col+15 as they are, k = rows k .. k+15. */
template <int N> static __device__ __forceinline__ void right_cols(right (&to)[N], const bf16 *tile, int part, int k, int col)
{
    int l = lane_id();
    uint32_t at = shared_address(tile + (k + (l & 15)) * LD + col + (l >> 4) * 8);
    #pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[n].r[0]), "=r"(to[n].r[1]), "=r"(to[n].r[2]), "=r"(to[n].r[3]) : "r"(at + 2 * n * part) : "memory");
}

/* x [8] through the function of general. */
template <typename T> static __device__ __forceinline__ void apply_function(const k_features &f, float (&x)[8])
{
    float eps = (float)f.eps;
    #pragma unroll
    for (int n = 0; n < 8 && f.fn == K_FN_RELU; n++) x[n] = fmaxf(x[n], 0) + eps;
    #pragma unroll
    for (int n = 0; n < 8 && f.fn != K_FN_RELU; n++) x[n] = function_of<T>(f.fn, x[n]) + eps;
}

/* ---- the kernels' launches --------------------------------------------------------------------------------------- */

/* Runs a kernel with dynamic shared memory. */
template <typename C> static void launch(void (*kernel)(C), dim3 blocks, int threads, size_t bytes, const C &c, cudaStream_t stream)
{
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    kernel<<<blocks, threads, bytes, stream>>>(c);
}

/* For B batch rows: the parts (linattn_gather.cu), then what they make together. */
template <typename T> void linattn_gather(int B, const gathering &, const settling &, cudaStream_t);
/* linattn_spread.cu */
template <typename T> void linattn_spread(int B, spread_mode, const spreading &, cudaStream_t);

#endif
