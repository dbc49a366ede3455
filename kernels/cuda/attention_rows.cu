/* attention_rows.cu - what attention does row by row around its tiles: turning by positions, putting slots and sums
 * together, d_o . o, and the rows that decoding holds. */
#include "attention.cuh"
#include "attention_tile.cuh"
#include <cmath>

enum { WARP = 32, ROWS_EACH = 8 };                          /* rows of one block, a warp each */

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
        const In *from = (const In *)w.from.p + b * w.from.sb + h * w.from.sh + t * w.from.st;
        Out *to = (Out *)w.to.p + b * w.to.sb + h * w.to.sh + t * w.to.st;
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
    turn<In, Out><<<dim3((unsigned)((n + 255) / 256), (unsigned)least(w.B * w.H, 32)), 256, 0, stream>>>(w);
    return attention_launched();
}

int attention_turn(const attention &a, const k_position *how, k_dtype dtype, int H, int T, int first, k_heads from, k_heads to, cudaStream_t stream)
{
    const turning w = { from, to, a.B, H, T, a.Dk, k_rope_width(how, a.Dk), first, 1, *how };
    return dtype == K_BF16 ? run_turn<bf16, bf16>(w, stream) : run_turn<float, float>(w, stream);
}

/* to = sum [B,H,T,D], turned back by r numbers. */
static int finish(const attention &a, const k_position *how, k_dtype dtype, int r, float *sum, int H, int T, int D, int first, k_heads to, cudaStream_t stream)
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

/* Which row of [B,Hq,Tq] a warp has, or -1. */
__device__ static int64_t row_of_warp(const attention &a, int *b, int *h, int *t)
{
    const int64_t row = (int64_t)blockIdx.x * ROWS_EACH + threadIdx.x / WARP;
    *t = (int)(row % a.Tq);
    *h = (int)(row / a.Tq % a.Hq);
    *b = (int)(row / a.Tq / a.Hq);
    return row < (int64_t)a.B * a.Hq * a.Tq ? row : -1;
}
static unsigned blocks_of_rows(const attention &a) { return (unsigned)(((int64_t)a.B * a.Hq * a.Tq + ROWS_EACH - 1) / ROWS_EACH); }

/* level and delta = d_o . o, a warp per row of the padded length; EACH numbers at once. */
template <class T, int EACH> __global__ void delta(const __grid_constant__ attention a)
{
    const int pitch = pitch_of(a.Tq);
    const int64_t row = (int64_t)blockIdx.x * ROWS_EACH + threadIdx.x / WARP;
    const int t = (int)(row % pitch), h = (int)(row / pitch % a.Hq), b = (int)(row / pitch / a.Hq);
    if (b >= a.B)
        return;
    float sum = 0, lse = -INFINITY;
    if (t < a.Tq) {
        const T *o = (const T *)a.o.p + b * a.o.sb + h * a.o.sh + t * a.o.st;
        const T *g = (const T *)a.d_o.p + b * a.d_o.sb + h * a.d_o.sh + t * a.d_o.st;
        struct alignas(sizeof(T) * EACH) some { T x[EACH]; };
        for (int d = threadIdx.x % WARP * EACH; d < a.Dv; d += WARP * EACH) {
            const some x = *(const some *)(o + d), y = *(const some *)(g + d);
            for (int i = 0; i < EACH; i++)
                sum += float(x.x[i]) * float(y.x[i]);
        }
        lse = a.lse[((int64_t)b * a.Hq + h) * a.Tq + t];
    }
    for (int n = WARP / 2; n; n /= 2)
        sum += __shfl_xor_sync(~0u, sum, n);
    if (threadIdx.x % WARP == 0) {
        a.delta[row] = sum;
        a.level[row] = lse == -INFINITY ? INFINITY : lse * 1.4426950408889634f;
    }
}

int attention_delta(const attention &a, bool even, k_dtype dtype, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)(((int64_t)a.B * a.Hq * pitch_of(a.Tq) + ROWS_EACH - 1) / ROWS_EACH);
    if (dtype == K_BF16 && even)
        delta<bf16, 4><<<blocks, ROWS_EACH * WARP, 0, stream>>>(a);
    else if (dtype == K_BF16)
        delta<bf16, 1><<<blocks, ROWS_EACH * WARP, 0, stream>>>(a);
    else
        delta<float, 1><<<blocks, ROWS_EACH * WARP, 0, stream>>>(a);
    return attention_launched();
}

/* o = mean of the slots, by the sums of weights that their log-sum-exps stand for; a warp per row. */
template <class T> __global__ void merge(const __grid_constant__ attention a)
{
    int b, h, t;
    const int64_t row = row_of_warp(a, &b, &h, &t), plane = (int64_t)a.B * a.Hq * a.Tq;
    if (row < 0)
        return;
    float top = -INFINITY, sum = 0;
    for (int s = 0; s < a.slots; s++)
        top = fmaxf(top, a.part_lse[s * plane + row]);
    const float base = top == -INFINITY ? 0 : top;
    for (int s = 0; s < a.slots; s++)
        sum += expf(a.part_lse[s * plane + row] - base);
    T *o = (T *)a.o.p + b * a.o.sb + h * a.o.sh + t * a.o.st;
    for (int d = threadIdx.x % WARP; d < a.Dv; d += WARP) {
        float x = 0;
        for (int s = 0; s < a.slots; s++)
            x += expf(a.part_lse[s * plane + row] - base) * a.part[(s * plane + row) * a.Dv + d];
        o[d] = T(sum > 0 ? x / sum : 0);
    }
    if (a.lse && threadIdx.x % WARP == 0)
        a.lse[row] = sum > 0 ? top + logf(sum) : -INFINITY;
}

int attention_merge(const attention &a, k_dtype dtype, cudaStream_t stream)
{
    if (dtype == K_BF16)
        merge<bf16><<<blocks_of_rows(a), ROWS_EACH * WARP, 0, stream>>>(a);
    else
        merge<float><<<blocks_of_rows(a), ROWS_EACH * WARP, 0, stream>>>(a);
    return attention_launched();
}

/* ---- decoding ----------------------------------------------------------------------------------------------------------- */

/* Row i of k and v into row `to` of the state, one block per (b, key head). */
template <class T> __device__ static void hold(const attention &a, int i, int to)
{
    const int b = blockIdx.y / a.Hk, h = blockIdx.y % a.Hk;
    const T *k = (const T *)a.k.p + b * a.k.sb + h * a.k.sh + i * a.k.st, *v = (const T *)a.v.p + b * a.v.sb + h * a.v.sh + i * a.v.st;
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
