/* conv.cu - convolution over the tokens on CUDA: full as products of tiles (taps.cuh), depthwise number by number.
 *
 * The floor: 2 K D FLOP per number on the tensor cores if full; if depthwise the memory's, x once and o once, since the
 * taps of neighbours meet in the cache.  The decode state keeps rows of the tensors' own dtype. */
#include "taps.cuh"

/* Where the taps of p read, or those of the transposed convolution. */
static tap_range range_of(const k_conv *p) { return { p->K, k_conv_shift(p, 0), p->dilation }; }
static tap_range range_back(const k_conv *p) { return { p->K, -k_conv_shift(p, 0), -p->dilation }; }

/* ---- whole sequences --------------------------------------------------------------------------------------------- */

/* out = bias + sum of taps, number by number; p.w [H,taps,N]. */
template <class T> __global__ static void __launch_bounds__(MAP_THREADS) depthwise_kernel(tap_product p)
{
    const int64_t all = (int64_t)p.B * p.H * p.T * p.N;
    for (int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; i < all; i += (int64_t)gridDim.x * MAP_THREADS) {
        const int64_t d = i % p.N, t = i / p.N % p.T, h = i / p.N / p.T % p.H, b = i / p.N / p.T / p.H;
        const T *in = (const T *)p.in.p + b * p.in.sb + h * p.in.sh + d;
        const float *w = p.w + h * p.range.taps * p.N + d;
        float sum = p.bias ? p.bias[h * p.N + d] : 0;
        for (int tau = 0; tau < p.range.taps; tau++) {
            const int64_t j = t + p.range.first + tau * p.range.step;
            if (j >= 0 && j < p.T) sum += w[(int64_t)tau * p.N] * to_float(in[j * p.in.st]);
        }
        ((T *)p.out.p)[b * p.out.sb + h * p.out.sh + t * p.out.st + d] = from_float<T>(sum);
    }
}

/* The product of p from x to y, forward or back. */
template <class T> static void convolve(const k_conv *p, k_heads x, k_heads y, bool back, cudaStream_t stream)
{
    tap_product q = {};
    q.B = p->B, q.H = p->H, q.T = p->T, q.K = q.N = p->D, q.in = x, q.out = y, q.w = p->weight;
    q.bias = back ? NULL : p->bias, q.range = back ? range_back(p) : range_of(p);
    if (!y.p) return;
    if (!p->full) depthwise_kernel<T><<<map_blocks((int64_t)p->B * p->H * p->T * p->D), MAP_THREADS, 0, stream>>>(q);
    else if (back) queue_product<T, T, T, true>(q, stream);
    else queue_product<T, T, T, false>(q, stream);
}

template <class T> static void backward_in(const k_conv *p, cudaStream_t stream)
{
    tap_gradient g = {};
    g.B = p->B, g.H = p->H, g.T = p->T, g.M = g.N = p->D, g.g = p->d_o, g.x = p->x, g.dw = p->dweight, g.range = range_of(p);
    queue_zero<T>(p->dq, p->B, p->H, p->T, p->Dk, stream);
    queue_zero<T>(p->dk, p->B, p->H, p->T, p->Dk, stream);
    convolve<T>(p, p->d_o, p->dx, true, stream);
    if (p->full) queue_gradient<T, T, T>(g, stream);
    else queue_column_sum<T, T>(g, stream);
    g.x.p = NULL, g.dw = p->dbias, g.range = { 1, 0, 0 };
    queue_column_sum<T, T>(g, stream);
}

/* ---- decode --------------------------------------------------------------------------------------------------------- */

struct ring { void *p; int64_t rows, pos; };    /* [B,H,rows,D]: row j of the sequence in row j mod rows; tokens so far */

/* Row j of head bh: a new token, or one of the ring. */
template <class T> static __device__ __forceinline__ const T *row_of(const k_conv &p, const ring &r, int64_t bh, int64_t j)
{
    if (j >= r.pos) return (const T *)p.x.p + bh / p.H * p.x.sb + bh % p.H * p.x.sh + (j - r.pos) * p.x.st;
    return (const T *)r.p + (bh * r.rows + j % r.rows) * p.D;
}

/* A number of o by a warp, its lanes the columns of W; depthwise all but the first lane have none. */
template <class T> __global__ static void __launch_bounds__(MAP_THREADS) recall_kernel(k_conv p, tap_range range, ring r)
{
    const int64_t all = (int64_t)p.B * p.H * p.T * p.D, step = (int64_t)gridDim.x * (MAP_THREADS / 32);
    for (int64_t i = (int64_t)blockIdx.x * (MAP_THREADS / 32) + warp_id(); i < all; i += step) {
        const int64_t d = i % p.D, t = i / p.D % p.T, bh = i / p.D / p.T, h = bh % p.H;
        float sum = 0;
        for (int tau = 0; tau < p.K; tau++) {
            const int64_t j = r.pos + t + range.first + tau * range.step;
            if (j < 0) continue;
            const T *x = row_of<T>(p, r, bh, j);
            const float *w = p.weight + (h * p.K + tau) * p.D * (p.full ? p.D : 1);
            if (!p.full) sum += lane_id() ? 0 : w[d] * to_float(x[d]);
            else for (int e = lane_id(); e < p.D; e += 32) sum += w[d * p.D + e] * to_float(x[e]);
        }
        for (int lane = 16; lane > 0; lane >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
        if (lane_id() == 0)
            ((T *)p.o.p)[bh / p.H * p.o.sb + h * p.o.sh + t * p.o.st + d] = from_float<T>(sum + (p.bias ? p.bias[h * p.D + d] : 0));
    }
}

/* The last of the new tokens take the places of the oldest. */
template <class T> __global__ static void __launch_bounds__(MAP_THREADS) remember_kernel(k_conv p, ring r)
{
    const int64_t n = p.T < r.rows ? p.T : r.rows, all = (int64_t)p.B * p.H * n * p.D;
    for (int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; i < all; i += (int64_t)gridDim.x * MAP_THREADS) {
        const int64_t bh = i / p.D / n, j = r.pos + p.T - n + i / p.D % n;
        ((T *)r.p)[(bh * r.rows + j % r.rows) * p.D + i % p.D] = row_of<T>(p, r, bh, j)[i % p.D];
    }
}

template <class T> static void decode_in(const k_conv *p, const ring &r, cudaStream_t stream)
{
    recall_kernel<T><<<map_blocks((int64_t)p->B * p->H * p->T * p->D * 32), MAP_THREADS, 0, stream>>>(*p, range_of(p), r);
    if (r.rows) remember_kernel<T><<<map_blocks((int64_t)p->B * p->H * p->T * p->D), MAP_THREADS, 0, stream>>>(*p, r);
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

static const char *plan(const k_conv *, k_dtype t, int, k_cuda_sizes *)
{                                       /* no memory is needed; the state is the caller's to size: it knows the capacity */
    return t == K_F32 || t == K_BF16 ? NULL : "the GPU's kernel takes f32 and bf16";
}
static int result(void) { return cudaGetLastError() == cudaSuccess ? 0 : K_EDEVICE; }
static int forward(const k_conv *p, k_dtype t, void *stream)
{
    if (t == K_BF16) convolve<bf16>(p, p->x, p->o, false, (cudaStream_t)stream);
    else convolve<float>(p, p->x, p->o, false, (cudaStream_t)stream);
    return result();
}
static int backward(const k_conv *p, k_dtype t, void *stream)
{
    if (t == K_BF16) backward_in<bf16>(p, (cudaStream_t)stream);
    else backward_in<float>(p, (cudaStream_t)stream);
    return result();
}
static int decode(const k_conv *p, k_dtype t, void *state, int64_t pos, int64_t capacity, void *stream)
{
    const int64_t span = (p->K - 1) * p->dilation;
    const ring r = { state, span < capacity ? span : capacity, pos };
    if (t == K_BF16) decode_in<bf16>(p, r, (cudaStream_t)stream);
    else decode_in<float>(p, r, (cudaStream_t)stream);
    return result();
}

extern "C" const k_cuda_conv k_cuda_conv_v1;
const k_cuda_conv k_cuda_conv_v1 = { sizeof(k_cuda_conv), plan, forward, backward, decode };
