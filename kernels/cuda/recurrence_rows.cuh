/* recurrence_rows.cuh - rows of q and k as the memories see them, normalised or turned, and gates; both ways. */
#ifndef KERNELS_CUDA_RECURRENCE_ROWS_CUH
#define KERNELS_CUDA_RECURRENCE_ROWS_CUH
#include "recurrence.cuh"

template <typename T> static __device__ __forceinline__ const T *head_row(const k_heads &t, int b, int h, int i)
{
    return (const T *)t.p + b * t.sb + h * t.sh + (int64_t)i * t.st;
}

static __device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0) + log1pf(expf(-fabsf(x))); }
/* Decay of a channel before it is bounded, to the precision that its gate has. */
template <typename T> static __device__ __forceinline__ float free_decay(const k_recurrence &r, float gate)
{
    float s = sizeof(T) == 4 ? softplus(-gate) : fmaxf(-gate, 0) + __logf(1 + exponential<T>(-fabsf(gate)));
    return -(float)(1 / r.gate_normalizer) * s;
}
template <typename T> static __device__ __forceinline__ float channel_decay(const k_recurrence &r, float gate)
{
    return fmaxf(free_decay<T>(r, gate), (float)r.gate_min);
}
/* The gradient of its gate from that of the decay. */
template <typename T> static __device__ __forceinline__ float channel_gate_back(const k_recurrence &r, float gate, float dl)
{
    float y = (float)r.gate_normalizer * (1 + exponential<T>(gate));
    return free_decay<T>(r, gate) < (float)r.gate_min ? 0 : sizeof(T) == 4 ? dl / y : __fdividef(dl, y);
}
/* l of token t, and its step, its slope and beta, which are 0 beyond the end. */
template <typename T> static __device__ __forceinline__ float scalar_gate(const recurrence &x, const chunk_at &k, int t, float *step,
                                                                          float *slope, float *beta)
{
    const k_recurrence &r = x.r;
    *step = *slope = *beta = 0;
    if (t >= r.T) return 0;
    if (x.delta) *beta = (float)r.beta_max / (1 + expf(-to_float(head_row<T>(r.beta, k.b, k.h, t)[0])));
    if (r.decay == K_DECAY_FIXED) {
        *step = 1;
        return fmaxf((float)log1p(-exp2(-r.decay_exponent - k.h)), -1e30f);
    }
    float gate = to_float(head_row<T>(r.gate, k.b, k.h, t)[0]) + (r.dt_bias ? ((const float *)r.dt_bias)[k.h] : 0), s = softplus(gate);
    *slope = s >= (float)r.step_min && s <= (float)r.step_max ? 1 / (1 + expf(-gate)) : 0;
    *step = fminf(fmaxf(s, (float)r.step_min), (float)r.step_max);
    return fmaxf(-expf(r.a_log ? ((const float *)r.a_log)[k.h] : 0) * *step, -1e30f);
}

/* Eight columns of a row from col on; what is not there is 0. */
template <typename T> static __device__ __forceinline__ void read_row8(const rows_at<T> &s, int row, int col, float *x)
{
    if (s.vector && row < s.hi && col < s.width) {
        read8(s.p + (int64_t)row * s.st + col, x);
        return;
    }
    #pragma unroll
    for (int i = 0; i < 8; i++) x[i] = row < s.hi && col + i < s.width ? to_float(s.p[(int64_t)row * s.st + col + i]) : 0;
}

/* Column col of a row turned by its position, sign -1: turned back.  x is that of column `other` at its partner. */
static __device__ __forceinline__ int rope_partner(const recurrence &x, int col)
{
    int half = x.rope / 2;
    return x.position.rope_interleaved ? col ^ 1 : col < half ? col + half : col - half;
}
static __device__ __forceinline__ float turned(const recurrence &x, int row, int col, int sign, float own, float partner)
{
    int half = x.rope / 2, n = x.position.rope_interleaved ? col / 2 : col % half;
    int second = x.position.rope_interleaved ? col & 1 : col >= half;
    const float *turn = x.turns + (int64_t)row * x.rope;
    float s = sign * turn[half + n];
    return own * turn[n] + (second ? s : -s) * partner;
}

/* factor [64]: 1 / the length of each row, 1 without norm. */
template <typename T> static __device__ void row_factors(const recurrence &x, const rows_at<T> &rows, int t0, float *factor)
{
    for (int i = threadIdx.x / 8; i < TILE; i += THREADS / 8) {
        float sum = 0, y[8];
        for (int c = threadIdx.x % 8 * 8; c < x.r.D && x.r.norm == K_NORM_L2; c += TILE) {
            read_row8(rows, t0 + i, c, y);
            for (int e = 0; e < 8; e++) sum += y[e] * y[e];
        }
        for (int lanes = 1; lanes < 8; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
        sum += (float)x.r.norm_eps;
        if (threadIdx.x % 8 == 0) factor[i] = x.r.norm != K_NORM_L2 ? 1 : sum == 0 ? 0 : 1 / sqrtf(sum);
    }
    __syncthreads();
}

/* Rows t0.. and columns col.. into a tile. */
template <typename T> static __device__ void make_rows(const recurrence &x, const rows_at<T> &rows, int t0, int col, const float *factor, T *tile)
{
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int i = n / 8, c = n % 8 * 8;
        float y[8];
        read_row8(rows, t0 + i, col + c, y);
        #pragma unroll
        for (int e = 0; e < 8; e++) {
            int d = col + c + e;
            y[e] *= factor[i];
            if (d < x.rope && t0 + i < x.r.T) y[e] = turned(x, t0 + i, d, 1, y[e], to_float(rows.p[(t0 + i) * rows.st + rope_partner(x, d)]));
        }
        write8(tile + i * LD + c, y);
    }
}
#endif
