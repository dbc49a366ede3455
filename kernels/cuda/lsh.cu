/* lsh.cu - LSH attention on CUDA: the table of kernels/cuda.h, and what happens token by token.
 *
 * Forward: buckets, order, lengths of keys, then round after round (lsh_tiles.cu).  Backward sorts the buckets again and
 * goes through the rounds; in float the gradients gather where they belong, in bfloat16 in scratch. */
#include "lsh.cuh"
#include "device.cuh"
#include <cstring>

enum { WIDEST = 256, BLOCK = 256 };

/* ---- token by token: a warp each ---------------------------------------------------------------------------------- */

/* The token of this warp: false, there is none. */
struct whose { int64_t row; int b, h, t; };
__device__ static bool mine(const lsh &p, whose *w)
{
    w->row = blockIdx.x * (int64_t)(BLOCK / 32) + threadIdx.x / 32;
    w->t = (int)(w->row % p.T), w->h = (int)(w->row / p.T % p.H), w->b = (int)(w->row / p.T / p.H);
    return w->row < (int64_t)p.B * p.H * p.T;
}
template <class T> __device__ static T *row_of(const k_heads &x, const whose &w) { return (T *)x.p + w.b * x.sb + w.h * x.sh + w.t * x.st; }

/* inverse = 1 / |k|, 0 of a zero. */
template <class T> __global__ void __launch_bounds__(BLOCK) lengths(const __grid_constant__ lsh p)
{
    whose w;
    float square = 0;
    if (!mine(p, &w))
        return;
    for (int d = threadIdx.x % 32; d < p.Dk; d += 32) {
        const float x = row_of<T>(p.k, w)[d];
        square += x * x;
    }
    square = warp_sum(square) + p.key_eps;
    if (threadIdx.x % 32 == 0)
        p.inverse[w.row] = square > 0 ? 1 / sqrtf(square) : 0;
}

/* delta = d_o.o. */
template <class T> __global__ void __launch_bounds__(BLOCK) deltas(const __grid_constant__ lsh p)
{
    whose w;
    float sum = 0;
    if (!mine(p, &w))
        return;
    for (int d = threadIdx.x % 32; d < p.Dv; d += 32)
        sum += (float)row_of<T>(p.d_o, w)[d] * (float)row_of<T>(p.o, w)[d];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        p.delta[w.row] = sum;
}

/* dq += (dk - k (k.dk)) / |x| with k = x / |x|; a token that saw itself alone has its value's gradient. */
template <class T> __global__ void __launch_bounds__(BLOCK) finish(const __grid_constant__ lsh p)
{
    whose w;
    if (!mine(p, &w))
        return;
    if (p.dq.p) {
        const float inverse = p.inverse[w.row], *dk = row_of<float>(p.sum_k, w);
        float along = 0;
        for (int d = threadIdx.x % 32; d < p.Dk; d += 32)
            along += (float)row_of<T>(p.k, w)[d] * inverse * dk[d];
        along = warp_sum(along);
        for (int d = threadIdx.x % 32; d < p.Dk; d += 32)
            row_of<T>(p.dq, w)[d] = T(row_of<float>(p.sum_q, w)[d] + inverse * (dk[d] - (float)row_of<T>(p.k, w)[d] * inverse * along));
    }
    if (p.dv.p) {
        const float own = p.lse[w.row] == -INFINITY;
        for (int d = threadIdx.x % 32; d < p.Dv; d += 32)
            row_of<T>(p.dv, w)[d] = T(row_of<float>(p.sum_v, w)[d] + own * (float)row_of<T>(p.d_o, w)[d]);
    }
}

/* Rows of q and v to the tokens first .. of the state's k and v. */
template <class T> __global__ void __launch_bounds__(BLOCK) append(const __grid_constant__ lsh p, k_heads v)
{
    whose w;
    if (!mine(p, &w) || w.t < p.first)
        return;
    whose fresh = w;
    fresh.t -= p.first;
    for (int d = threadIdx.x % 32; d < p.Dk; d += 32)
        row_of<T>(p.k, w)[d] = row_of<T>(p.q, fresh)[d];
    for (int d = threadIdx.x % 32; d < p.Dv; d += 32)
        row_of<T>(p.v, w)[d] = row_of<T>(v, fresh)[d];
}

/* kernel<T> over all tokens. */
#define BY_TOKEN(kernel, p, dtype, stream, ...)                                                                  \
    do {                                                                                                         \
        const unsigned blocks = (unsigned)(((int64_t)(p).B * (p).H * (p).T + BLOCK / 32 - 1) / (BLOCK / 32));    \
        if ((dtype) == K_BF16)                                                                                   \
            kernel<bf16><<<blocks, BLOCK, 0, stream>>>(__VA_ARGS__);                                             \
        else                                                                                                     \
            kernel<float><<<blocks, BLOCK, 0, stream>>>(__VA_ARGS__);                                            \
        return lsh_launched();                                                                                   \
    } while (0)

int lsh_lengths(const lsh &p, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(lengths, p, dtype, stream, p); }
int lsh_delta(const lsh &p, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(deltas, p, dtype, stream, p); }
int lsh_finish(const lsh &p, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(finish, p, dtype, stream, p); }
int lsh_append(const lsh &p, k_heads v, k_dtype dtype, cudaStream_t stream) { BY_TOKEN(append, p, dtype, stream, p, v); }

/* ---- the problem -------------------------------------------------------------------------------------------------- */

/* The next place in the scratch. */
static void *take(size_t *end, const k_lsh *l, size_t bytes)
{
    char *at = (char *)l->scratch + *end;
    *end += (bytes + 255) / 256 * 256;
    return at;
}

/* Rows of D floats for the tokens first .. T - 1, in scratch, or where x has floats already. */
static k_heads sums(size_t *end, const k_lsh *l, k_heads x, bool there, int first, int D)
{
    const int64_t n = (int64_t)(l->T - first) * D;
    return there ? x : k_heads{ take(end, l, (size_t)(l->B * l->H * n) * sizeof(float)), l->H * n, n, D };
}

/* Whether rows of width numbers begin at multiples of 16 bytes and are as long. */
static bool even(const k_heads &x, int width, size_t number)
{
    const int64_t n = 16 / (int64_t)number;
    return ((uintptr_t)x.p & 15) == 0 && x.sb % n == 0 && x.sh % n == 0 && x.st % n == 0 && width % n == 0;
}

/* The problem as kernels take it, its scratch cut for T tokens; *bytes of it are used. */
static lsh problem_of(const k_lsh *l, k_dtype dtype, bool backward, size_t *bytes)
{
    const size_t number = k_dtype_size(dtype), tokens = (size_t)l->B * (size_t)l->H * (size_t)l->T, places = tokens * (size_t)l->rounds * sizeof(int32_t);
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
    p.inverse = (float *)take(bytes, l, tokens * sizeof(float));
    if (backward) {
        p.d_o = l->d_o, p.dq = l->dq, p.dv = l->dv;
        p.delta = (float *)take(bytes, l, tokens * sizeof(float));
        p.sum_k = sums(bytes, l, l->dq, false, 0, l->Dk);
        p.sum_q = sums(bytes, l, l->dq, wide, 0, l->Dk), p.sum_v = sums(bytes, l, l->dv, wide, 0, l->Dv);
    } else {
        p.sum_o = sums(bytes, l, l->o, wide || l->rounds == 1, l->first, l->Dv);
    }
    float *lse = (float *)take(bytes, l, backward || l->lse ? 0 : tokens * sizeof(float));
    p.lse = l->lse ? l->lse : lse;
    p.vec = even(p.q, p.Dk, number) && even(p.k, p.Dk, number) && even(p.v, p.Dv, number) && (!backward || even(p.d_o, p.Dv, number));
    return p;
}

/* Bytes; any order, any chunk; rows up to 256 numbers. */
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
    sizes->saved = training ? (buckets + 255) / 256 * 256 + tokens * sizeof(float) : 0;
    sizes->state = tokens * (size_t)(l->Dk + l->Dv) * k_dtype_size(dtype) + buckets;
    return NULL;
}

/* Sorts by the buckets that are there, then goes through the rounds. */
static int attend(const lsh &p, k_dtype dtype, cudaStream_t stream)
{
    int code = lsh_lengths(p, dtype, stream);
    if (p.order && !code)
        code = lsh_sort(p, stream);
    for (int r = 0; r < p.rounds && !code; r++)
        code = lsh_forward(p, r, dtype, stream);
    return code;
}

/* From hashes to outputs. */
static int forward(const k_lsh *l, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    size_t bytes;
    const lsh p = problem_of(l, dtype, false, &bytes);
    const int code = p.order ? lsh_hash(p, dtype, stream) : K_OK;
    return code ? code : attend(p, dtype, stream);
}

/* By the buckets of forward. */
static int backward(const k_lsh *l, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    size_t bytes;
    const lsh p = problem_of(l, dtype, true, &bytes);
    int code = lsh_lengths(p, dtype, stream);
    if (!code)
        code = lsh_delta(p, dtype, stream);
    if (p.order && !code)
        code = lsh_sort(p, stream);
    for (int r = 0; r < p.rounds && !code; r++)
        code = lsh_gradient(p, r, dtype, stream);
    return code ? code : lsh_finish(p, dtype, stream);
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
    int code = lsh_append(p, l->v, dtype, stream);
    if (p.order && !code)
        code = lsh_hash(p, dtype, stream);
    return code ? code : attend(p, dtype, stream);
}

extern "C" __attribute__((visibility("default"))) const k_cuda_lsh k_cuda_lsh_v1;
const k_cuda_lsh k_cuda_lsh_v1 = { sizeof(k_cuda_lsh), plan, forward, backward, decode };
