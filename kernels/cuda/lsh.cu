/* lsh.cu - LSH attention on CUDA: the table of kernels/cuda.h, and what happens token by token.
 *
 * Forward: lengths of keys, buckets, order, then round after round (lsh_tiles.cu).  Backward sorts the buckets again and
 * goes through the rounds; in float gradients gather where they belong, else in scratch. */
#include "lsh.cuh"
#include "device.cuh"
#include "scratch.cuh"
#include <cstring>

enum { WIDEST = 256, BLOCK = 256, LANES = 8 };

/* ---- token by token: eight lanes each ----------------------------------------------------------------------------- */

/* The token of this thread: false, there is none. */
struct whose { int64_t row; int b, h, t; };
__device__ static bool mine(const lsh &p, whose *w)
{
    w->row = blockIdx.x * (int64_t)(BLOCK / LANES) + threadIdx.x / LANES;
    w->t = (int)(w->row % p.T), w->h = (int)(w->row / p.T % p.H), w->b = (int)(w->row / p.T / p.H);
    return w->row < (int64_t)p.B * p.H * p.T;
}
template <class T> __device__ static T *row_of(const k_heads &x, const whose &w) { return (T *)x.p + w.b * x.sb + w.h * x.sh + w.t * x.st; }

/* The sum over the lanes of the token, in all of them. */
__device__ static float sum_over(float x)
{
    const unsigned all = 0xffu << threadIdx.x % 32 / LANES * LANES;
    for (int step = 1; step < LANES; step *= 2)
        x += __shfl_xor_sync(all, x, step);
    return x;
}

/* x.y of n numbers, in all lanes of the token. */
template <class T> __device__ static float inner(const T *x, const T *y, int n)
{
    constexpr int N = pack<T>::N;
    const int lane = threadIdx.x % LANES;
    const bool whole = aligned16(x) && aligned16(y) && n % N == 0;
    float sum = 0;
    for (int d = lane * N; whole && d < n; d += LANES * N) {
        const pack<T> a = *(const pack<T> *)(x + d), b = *(const pack<T> *)(y + d);
        #pragma unroll
        for (int e = 0; e < N; e++)
            sum += (float)a.v[e] * (float)b.v[e];
    }
    for (int d = lane; !whole && d < n; d += LANES)
        sum += (float)x[d] * (float)y[d];
    return sum_over(sum);
}

/* inverse = 1 / |k|, 0 of a zero. */
template <class T> __global__ void __launch_bounds__(BLOCK) lengths(const __grid_constant__ lsh p)
{
    whose w;
    if (!mine(p, &w))
        return;
    const float square = inner(row_of<T>(p.k, w), row_of<T>(p.k, w), p.Dk) + p.key_eps;
    if (threadIdx.x % LANES == 0)
        p.inverse[w.row] = square > 0 ? 1 / sqrtf(square) : 0;
}

/* delta = d_o.o. */
template <class T> __global__ void __launch_bounds__(BLOCK) deltas(const __grid_constant__ lsh p)
{
    whose w;
    if (!mine(p, &w))
        return;
    const float sum = inner(row_of<T>(p.d_o, w), row_of<T>(p.o, w), p.Dv);
    if (threadIdx.x % LANES == 0)
        p.delta[w.row] = sum;
}

/* Rows of q and v to the tokens first .. of the state's k and v. */
template <class T> __global__ void __launch_bounds__(BLOCK) append(const __grid_constant__ lsh p, k_heads v)
{
    whose w;
    if (!mine(p, &w) || w.t < p.first)
        return;
    whose fresh = w;
    fresh.t -= p.first;
    for (int d = threadIdx.x % LANES; d < p.Dk; d += LANES)
        row_of<T>(p.k, w)[d] = row_of<T>(p.q, fresh)[d];
    for (int d = threadIdx.x % LANES; d < p.Dv; d += LANES)
        row_of<T>(p.v, w)[d] = row_of<T>(v, fresh)[d];
}

/* kernel<T> over all tokens. */
#define BY_TOKEN(kernel, p, dtype, stream, ...)                                                                  \
    do {                                                                                                         \
        const unsigned blocks = (unsigned)(((int64_t)(p).B * (p).H * (p).T + BLOCK / LANES - 1) / (BLOCK / LANES)); \
        if ((dtype) == K_BF16)                                                                                   \
            kernel<bf16><<<blocks, BLOCK, 0, stream>>>(__VA_ARGS__);                                             \
        else                                                                                                     \
            kernel<float><<<blocks, BLOCK, 0, stream>>>(__VA_ARGS__);                                            \
        return lsh_launched();                                                                                   \
    } while (0)

int lsh_lengths(const lsh &p, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(lengths, p, dtype, stream, p); }
int lsh_delta(const lsh &p, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(deltas, p, dtype, stream, p); }
int lsh_append(const lsh &p, k_heads v, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(append, p, dtype, stream, p, v); }

/* ---- the problem -------------------------------------------------------------------------------------------------- */

/* The next place in the scratch. */
static void *take(size_t *end, const k_lsh *l, size_t bytes) { return (char *)l->scratch + take(end, bytes); }

/* Rows of D floats for the tokens first .. T - 1, in scratch, or there where x has floats already or nothing gathers. */
static k_heads sums(size_t *end, const k_lsh *l, k_heads x, bool there, int first, int D)
{
    const int64_t n = (int64_t)(l->T - first) * D;
    return there ? x : k_heads{ take(end, l, (size_t)(l->B * l->H * n) * sizeof(float)), l->H * n, n, D };
}

/* The problem as kernels take it, its scratch cut for T tokens; *bytes of it are used. */
static lsh problem_of(const k_lsh *l, k_dtype dtype, bool backward, size_t *bytes)
{
    const size_t number = k_dtype_size(dtype), tokens = (size_t)l->B * (size_t)l->H * (size_t)l->T;
    const size_t places = tokens * (size_t)l->rounds * sizeof(int32_t);
    const bool wide = dtype == K_F32;
    lsh p = {};
    p.B = l->B, p.H = l->H, p.T = l->T, p.Dk = l->Dk, p.Dv = l->Dv, p.first = l->first, p.causal = l->causal;
    p.rounds = l->rounds, p.chunk = l->chunk, p.chunks = ceil_div(l->T, l->chunk), p.across = l->across, p.dedup = l->dedup, p.wrap = l->wrap;
    p.factor[0] = l->factor[0], p.factor[1] = l->factor[1];
    p.scale = (float)l->scale, p.key_eps = (float)(l->Dk * l->key_eps);
    p.q = l->q, p.k = l->k, p.v = l->v, p.o = l->o;
    p.rotations = l->rotations, p.given = l->given, p.bucket = l->bucket, p.capacity = l->capacity;
    *bytes = 0;
    p.order = (int32_t *)take(bytes, l, l->bucket ? places : 0), p.spare = (int32_t *)take(bytes, l, l->bucket ? places : 0);
    p.order = l->bucket ? p.order : NULL;
    int32_t *chunk_of = (int32_t *)take(bytes, l, l->dedup ? places : 0);
    p.chunk_of = l->dedup ? chunk_of : NULL;
    float *inverse = (float *)take(bytes, l, l->lse ? 0 : tokens * sizeof(float));
    p.inverse = l->lse ? l->lse + tokens : inverse;
    p.longest = (float *)take(bytes, l, (size_t)(l->H * l->rounds) * sizeof(float));
    p.panels = (bf16 *)take(bytes, l, backward ? 0 : (size_t)(l->H * l->rounds) * lsh_panels(p) * 8192);
    if (backward) {
        p.d_o = l->d_o, p.dq = l->dq, p.dv = l->dv;
        p.delta = (float *)take(bytes, l, tokens * sizeof(float));
        p.sum_q = sums(bytes, l, l->dq, wide, 0, l->Dk), p.sum_v = sums(bytes, l, l->dv, wide || l->rounds == 1, 0, l->Dv);
    } else {
        p.sum_o = sums(bytes, l, l->o, wide || l->rounds == 1, l->first, l->Dv);
    }
    float *lse = (float *)take(bytes, l, backward || l->lse ? 0 : tokens * sizeof(float));
    p.lse = l->lse ? l->lse : lse;
    p.vec = even(p.q, p.Dk, number) && even(p.k, p.Dk, number) && even(p.v, p.Dv, number) &&
            (backward ? even(p.d_o, p.Dv, number) && even(p.dq, p.Dk, number) && even(p.dv, p.Dv, number) : even(p.o, p.Dv, number));
    return p;
}

/* Bytes; any order, any chunk; rows up to 256 numbers.  After the log-sum-exp forward keeps the lengths of keys. */
static const char *plan(const k_lsh *l, k_dtype dtype, int training, k_cuda_sizes *sizes)
{
    k_lsh shape = *l;
    int32_t some;
    if (l->Dk > WIDEST || l->Dv > WIDEST)
        return "the CUDA kernels of LSH attention go up to width 256";
    *sizes = k_cuda_sizes{};
    shape.bucket = l->factor[0] ? &some : NULL;
    shape.lse = NULL;
    problem_of(&shape, dtype, false, &sizes->scratch_fwd);
    if (training)
        problem_of(&shape, dtype, true, &sizes->scratch_bwd);
    shape.first = 0;
    problem_of(&shape, dtype, false, &sizes->scratch_dec);
    const size_t tokens = (size_t)l->B * (size_t)l->H * (size_t)l->T, buckets = shape.bucket ? tokens * (size_t)l->rounds * sizeof(int32_t) : 0;
    sizes->saved = training ? (buckets + 255) / 256 * 256 + 2 * tokens * sizeof(float) : 0;
    sizes->state = tokens * (size_t)(l->Dk + l->Dv) * k_dtype_size(dtype) + buckets;
    return NULL;
}

/* From hashes to outputs. */
static int attend(const lsh &p, k_dtype dtype, cudaStream_t stream)
{
    int code = lsh_lengths(p, dtype, stream);
    if (p.order && !code)
        code = lsh_hash(p, dtype, stream);
    if (p.order && !code)
        code = lsh_sort(p, stream);
    for (int r = 0; r < p.rounds && !code; r++)
        code = lsh_forward(p, r, dtype, stream);
    return code;
}

/* [hot] */
static int forward(const k_lsh *l, k_dtype dtype, void *queue)
{
    size_t bytes;
    return attend(problem_of(l, dtype, false, &bytes), dtype, (cudaStream_t)queue);
}

/* By the buckets of forward. */
static int backward(const k_lsh *l, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    size_t bytes;
    const lsh p = problem_of(l, dtype, true, &bytes);
    int code = lsh_delta(p, dtype, stream);
    if (p.order && !code)
        code = lsh_sort(p, stream);
    for (int r = 0; r < p.rounds && !code; r++)
        code = lsh_gradient(p, r, dtype, stream);
    return code;
}

/* State: rows of q and v so far, [B,H,capacity,Dk+Dv], and their buckets [B,H,rounds,capacity].  The new tokens are
 * hashed, and all of them sorted anew. */
static int decode(const k_lsh *l, k_dtype dtype, void *state, int64_t pos, int64_t capacity, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    const size_t number = k_dtype_size(dtype);
    const int64_t width = l->Dk + l->Dv, sh = capacity * width;
    k_lsh held = *l;
    size_t bytes;
    held.first = (int)pos;
    held.T = held.first + (l->T - l->first);
    held.k = { state, sh * l->H, sh, width };
    held.v = { (char *)state + (size_t)l->Dk * number, sh * l->H, sh, width };
    held.bucket = l->factor[0] ? (int32_t *)((char *)state + (size_t)(l->B * l->H * sh) * number) : NULL;
    held.capacity = capacity;
    held.lse = NULL;
    const lsh p = problem_of(&held, dtype, false, &bytes);
    const int code = lsh_append(p, l->v, dtype, stream);
    return code ? code : attend(p, dtype, stream);
}

extern "C" __attribute__((visibility("default"))) const k_cuda_lsh k_cuda_lsh_v1;
const k_cuda_lsh k_cuda_lsh_v1 = { sizeof(k_cuda_lsh), plan, forward, backward, decode };
