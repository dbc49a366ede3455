/* attention_rows.cu - what attention does row by row around its tiles: turning by positions, putting slots and sums
 * together, d_o . o, and the rows that decoding holds. */
#include "attention.cuh"
#include "attention_tile.cuh"
#include <cmath>

enum { THREADS_EACH = 256 };                                /* of a block; some of them share a row */

/* Row (b,h,t). */
template <class T> __device__ static T *row_at(const k_heads &x, int b, int h, int t)
{
    return (T *)x.p + b * x.sb + h * x.sh + t * x.st;
}

/* ---- turning -------------------------------------------------------------------------------------------------------- */

/* Of the T rows of H heads: width D, r of it turned; from and to of their own kinds. */
struct turning { k_heads from, to; int B, H, T, D, r, first, sign; k_position how; };

/* Places of the two components of pair n. */
__device__ static void pair(const turning &w, int n, int *i, int *j)
{
    *i = w.how.rope_interleaved ? 2 * n : n;
    *j = w.how.rope_interleaved ? 2 * n + 1 : n + w.r / 2;
}

/* Frequency of pair n, as kernels/cpu/rope.c computes it. */
__device__ static double frequency(const turning &w, int n)
{
    if (w.how.rope_freqs == K_ROPE_STANDARD)
        return pow(w.how.rope_base, -2.0 * n / w.r);
    return w.r == 2 ? 1.0 : pow(w.how.rope_base, -n / (w.r / 2 - 1.0));
}

/* One thread: one position and one pair, or one number that is not turned, of every head from blockIdx.y on. */
template <class In, class Out> __global__ void turn(const __grid_constant__ turning w)
{
    const int each = w.D - w.r / 2;
    const int64_t x = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int t = (int)(x / each), n = (int)(x % each);
    if (t >= w.T)
        return;
    int i = n + w.r / 2, j = -1;
    double sine = 0, cosine = 1;
    if (n < w.r / 2) {
        pair(w, n, &i, &j);
        sincos(w.sign * (double)(w.first + t) * frequency(w, n), &sine, &cosine);
    }
    const float c = (float)cosine, s = (float)sine;
    for (int bh = blockIdx.y; bh < w.B * w.H; bh += gridDim.y) {
        const int b = bh / w.H, h = bh % w.H;
        const In *from = row_at<In>(w.from, b, h, t);
        Out *to = row_at<Out>(w.to, b, h, t);
        const float p = float(from[i]), q = j < 0 ? 0 : float(from[j]);
        to[i] = Out(p * c - q * s);
        if (j >= 0)
            to[j] = Out(p * s + q * c);
    }
}

/* Over all rows. */
template <class In, class Out> static int run_turn(const turning &w, cudaStream_t stream)
{
    const int64_t n = (int64_t)w.T * (w.D - w.r / 2);
    if (n == 0)
        return K_OK;
    turn<In, Out><<<dim3((unsigned)((n + 255) / 256), (unsigned)least(w.B * w.H, 32)), 256, 0, stream>>>(w);
    return attention_launched();
}

int attention_turn(const attention &a, const k_position *how, k_dtype dtype, int H, int T, int first, k_heads from, k_heads to, cudaStream_t stream)
{
    const turning w = { from, to, a.B, H, T, a.Dk, k_rope_width(how, a.Dk), first, 1, *how };
    return dtype == K_BF16 ? run_turn<bf16, bf16>(w, stream) : run_turn<float, float>(w, stream);
}

/* to = sum [B,H,T,D], turned back by r numbers. */
static int finish(const attention &a, const k_position *how, k_dtype dtype, int r, float *sum, int H, int T, int D, int first, k_heads to,
                  cudaStream_t stream)
{
    const turning w = { { sum, (int64_t)H * T * D, (int64_t)T * D, D }, to, a.B, H, T, D, r, first, -1, *how };
    if (!to.p)
        return K_OK;
    return dtype == K_BF16 ? run_turn<float, bf16>(w, stream) : run_turn<float, float>(w, stream);
}

int attention_finish(const attention &a, const k_position *how, k_dtype dtype, cudaStream_t stream)
{
    const int r = k_rope_width(how, a.Dk);
    int code = K_OK;
    if (a.sum_q)
        code = finish(a, how, dtype, r, a.sum_q, a.Hq, a.Tq, a.Dk, a.first, a.dq, stream);
    if (a.sum_k && !code)
        code = finish(a, how, dtype, r, a.sum_k, a.Hk, a.Tk, a.Dk, 0, a.dk, stream);
    if (a.sum_v && !code)
        code = finish(a, how, dtype, 0, a.sum_v, a.Hk, a.Tk, a.Dv, 0, a.dv, stream);
    return code;
}

/* ---- rows of o -------------------------------------------------------------------------------------------------------- */

/* EACH numbers of a row at once; LANES threads that share a row. */
template <class T, int EACH> struct alignas(sizeof(T) * EACH) some { T x[EACH]; };

/* Which row of [B,Hq,T] these lanes have, and whether there is one. */
template <int LANES> struct row_of {
    int64_t row;
    int b, h, t, lane;
    bool there;
    __device__ row_of(const attention &a, int T)
    {
        row = (int64_t)blockIdx.x * (THREADS_EACH / LANES) + threadIdx.x / LANES;
        t = (int)(row % T), h = (int)(row / T % a.Hq), b = (int)(row / T / a.Hq);
        lane = threadIdx.x % LANES;
        there = b < a.B;
    }
};

/* level and delta = d_o . o, over rows of the padded length. */
template <class T, int EACH, int LANES> __global__ void __launch_bounds__(THREADS_EACH) delta(const __grid_constant__ attention a)
{
    const row_of<LANES> r(a, pitch_of(a.Tq));
    float sum = 0, lse = -INFINITY;
    if (r.there && r.t < a.Tq) {
        const T *o = row_at<T>(a.o, r.b, r.h, r.t), *g = row_at<T>(a.d_o, r.b, r.h, r.t);
        for (int d = r.lane * EACH; d < a.Dv; d += LANES * EACH) {
            const some<T, EACH> x = *(const some<T, EACH> *)(o + d), y = *(const some<T, EACH> *)(g + d);
            #pragma unroll
            for (int i = 0; i < EACH; i++)
                sum += float(x.x[i]) * float(y.x[i]);
        }
        lse = a.lse[((int64_t)r.b * a.Hq + r.h) * a.Tq + r.t];
    }
    #pragma unroll
    for (int n = LANES / 2; n; n /= 2)
        sum += __shfl_xor_sync(~0u, sum, n);
    if (r.there && r.lane == 0) {
        a.delta[r.row] = sum;
        a.level[r.row] = lse == -INFINITY ? INFINITY : lse * 1.4426950408889634f;
    }
}

/* o = mean of the slots, by the sums of weights that their log-sum-exps stand for. */
template <class T, int EACH, int LANES> __global__ void __launch_bounds__(THREADS_EACH) merge(const __grid_constant__ attention a)
{
    const row_of<LANES> r(a, a.Tq);
    const int64_t plane = (int64_t)a.B * a.Hq * a.Tq;
    if (!r.there)
        return;
    float top = -INFINITY, sum = 0;
    for (int s = 0; s < a.slots; s++)
        top = fmaxf(top, a.part_lse[s * plane + r.row]);
    const float base = top == -INFINITY ? 0 : top;
    for (int s = 0; s < a.slots; s++)
        sum += expf(a.part_lse[s * plane + r.row] - base);
    const float inverse = sum > 0 ? 1 / sum : 0;
    T *o = row_at<T>(a.o, r.b, r.h, r.t);
    for (int d = r.lane * EACH; d < a.Dv; d += LANES * EACH) {
        float x[EACH] = {};
        for (int s = 0; s < a.slots; s++) {
            const some<float, EACH> part = *(const some<float, EACH> *)(a.part + (s * plane + r.row) * a.Dv + d);
            const float weight = expf(a.part_lse[s * plane + r.row] - base) * inverse;
            #pragma unroll
            for (int i = 0; i < EACH; i++)
                x[i] += weight * part.x[i];
        }
        some<T, EACH> y;
        #pragma unroll
        for (int i = 0; i < EACH; i++)
            y.x[i] = T(x[i]);
        *(some<T, EACH> *)(o + d) = y;
    }
    if (a.lse && r.lane == 0)
        a.lse[r.row] = sum > 0 ? top + logf(sum) : -INFINITY;
}

/* A kernel over rows of length T. */
#define OVER_ROWS(kernel, type, each, lanes, T)                                                                         \
    kernel<type, each, lanes><<<(unsigned)(((int64_t)a.B * a.Hq * (T) * (lanes) + THREADS_EACH - 1) / THREADS_EACH), THREADS_EACH, 0, stream>>>(a)

int attention_delta(const attention &a, bool even, k_dtype dtype, cudaStream_t stream)
{
    if (a.Tq == 0)
        return K_OK;
    if (dtype == K_F32)
        OVER_ROWS(delta, float, 1, 32, pitch_of(a.Tq));
    else if (!even)
        OVER_ROWS(delta, bf16, 1, 32, pitch_of(a.Tq));
    else if (a.Dv <= 64)
        OVER_ROWS(delta, bf16, 8, 8, pitch_of(a.Tq));
    else
        OVER_ROWS(delta, bf16, 8, 16, pitch_of(a.Tq));
    return attention_launched();
}

int attention_merge(const attention &a, bool even, k_dtype dtype, cudaStream_t stream)
{
    if (a.Tq == 0)
        return K_OK;
    if (dtype == K_F32)
        OVER_ROWS(merge, float, 1, 32, a.Tq);
    else if (!even)
        OVER_ROWS(merge, bf16, 1, 32, a.Tq);
    else if (a.Dv <= 64)
        OVER_ROWS(merge, bf16, 4, 16, a.Tq);
    else
        OVER_ROWS(merge, bf16, 4, 32, a.Tq);
    return attention_launched();
}

/* ---- decoding ----------------------------------------------------------------------------------------------------------- */

/* Row i of k and v into row `to` of the state, one block per (b, key head). */
template <class T> __device__ static void hold(const attention &a, int i, int to)
{
    const int b = blockIdx.y / a.Hk, h = blockIdx.y % a.Hk;
    const T *k = row_at<T>(a.k, b, h, i), *v = row_at<T>(a.v, b, h, i);
    T *row = (T *)a.state + ((int64_t)blockIdx.y * a.rows + to) * (a.Dk + a.Dv);
    for (int d = threadIdx.x; d < a.Dk + a.Dv; d += blockDim.x)
        row[d] = d < a.Dk ? k[d] : v[d - a.Dk];
}

/* Token blockIdx.x: into the ring unless a later one takes its row, and among the summaries when it is one. */
template <class T> __global__ void append(const __grid_constant__ attention a)
{
    const k_mask &m = a.mask;
    const int i = blockIdx.x, j = a.held + i, each = m.summary_len * m.summary_slots;
    if (i >= a.Tq - a.ring)
        hold<T>(a, i, j % a.ring);
    if (m.kind == K_MASK_FIXED && m.patterns != K_PATTERNS_FIRST && j % m.length >= m.length - each)
        hold<T>(a, i, a.ring + j / m.length * each + j % m.length - (m.length - each));
}

int attention_append(const attention &a, k_dtype dtype, cudaStream_t stream)
{
    const dim3 blocks((unsigned)a.Tq, (unsigned)(a.B * a.Hk));
    if (dtype == K_BF16)
        append<bf16><<<blocks, 64, 0, stream>>>(a);
    else
        append<float><<<blocks, 64, 0, stream>>>(a);
    return attention_launched();
}
