/* relative.cu - attention with learned vectors per distance on CUDA: the table of kernels/cuda.h.
 *
 * Saved: the log-sum-exp of the rows.  The gradients of the tables gather by (batch row, head) and distance, and are added
 * up in that order. */
#include "relative.cuh"
#include "scratch.cuh"

/* Widest rows: in float five tiles of them have to fit in shared memory. */
enum { WIDEST_BF16 = 256, WIDEST_F32 = 128 };

/* Where in the scratch of backward the parts lie, in bytes. */
struct layout { size_t delta, part_E, part_F, end; };

/* Distances of a pair that can have a vector. */
static int spread_of(const k_relative *a)
{
    const int far = a->clamp ? a->Tk - 1 : least(a->Tk, a->distance) - 1;
    return a->causal ? far + 1 : 2 * far + 1;
}

static layout layout_of(const k_relative *a, bool values)
{
    const size_t rows = (size_t)a->B * (size_t)a->Hq, spread = rows * (size_t)spread_of(a);
    layout l = {};
    l.delta = take(&l.end, rows * (size_t)a->Tq * sizeof(float));
    l.part_E = take(&l.end, spread * (size_t)a->Dk * sizeof(float));
    l.part_F = take(&l.end, values ? spread * (size_t)a->Dv * sizeof(float) : 0);
    return l;
}

/* The problem as kernels take it, without what backward adds. */
static relative problem_of(const k_relative *a, k_dtype dtype)
{
    const size_t number = k_dtype_size(dtype);
    relative x = {};
    x.a = *a, x.scale = (float)a->scale;
    x.vec = even(a->q, a->Dk, number) && even(a->k, a->Dk, number) && even(a->v, a->Dv, number) && (!a->d_o.p || even(a->d_o, a->Dv, number));
    return x;
}

/* Bytes; F of a need not be there yet. */
static const char *plan(const k_relative *a, k_dtype dtype, int training, k_cuda_sizes *z)
{
    const int width = most(a->Dk, a->Dv);
    if (dtype == K_F32 && width > WIDEST_F32)
        return "the CUDA kernels of relative attention go up to width 128 in float, 256 in bfloat16";
    if (width > WIDEST_BF16)
        return "the CUDA kernels of relative attention go up to width 256";
    *z = k_cuda_sizes{};
    z->saved = training ? (size_t)a->B * (size_t)a->Hq * (size_t)a->Tq * sizeof(float) : 0;
    z->scratch_bwd = training ? layout_of(a, true).end : 0;
    z->state = (size_t)a->B * (size_t)a->Hk * (size_t)a->Tk * (size_t)(a->Dk + a->Dv) * k_dtype_size(dtype);
    return NULL;
}

static int forward(const k_relative *a, k_dtype dtype, void *stream)
{
    relative x = problem_of(a, dtype);
    return relative_forward(x, dtype, (cudaStream_t)stream);
}

static int backward(const k_relative *a, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    const layout l = layout_of(a, a->dF != NULL);
    char *room = (char *)a->scratch;
    relative x = problem_of(a, dtype);
    x.spread = spread_of(a);
    x.delta = (float *)(room + l.delta);
    x.part_E = a->dE ? (float *)(room + l.part_E) : NULL;
    x.part_F = a->F && a->dF ? (float *)(room + l.part_F) : NULL;
    const int code = relative_gradient(x, dtype, stream);
    return code ? code : relative_sum(x, stream);
}

/* State: rows of k and v so far, [B,Hk,capacity,Dk+Dv]; the new ones join them first. */
static int decode(const k_relative *a, k_dtype dtype, void *state, int64_t pos, int64_t capacity, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    const int64_t width = a->Dk + a->Dv, sh = capacity * width;
    k_relative held = *a;
    held.Tk = (int)pos + a->Tq;
    held.k = { state, sh * a->Hk, sh, width };
    held.v = { (char *)state + (size_t)a->Dk * k_dtype_size(dtype), sh * a->Hk, sh, width };
    held.lse = NULL;
    held.d_o.p = NULL;
    const relative x = problem_of(&held, dtype);
    const int code = relative_append(x, a->k, a->v, dtype, stream);
    return code ? code : relative_forward(x, dtype, stream);
}

extern "C" __attribute__((visibility("default"))) const k_cuda_relative k_cuda_relative_v1;
const k_cuda_relative k_cuda_relative_v1 = { sizeof(k_cuda_relative), plan, forward, backward, decode };
