/* recurrence_narrow_gates.cuh - the gradients of a chunk's gates, once those of its rows are known.
 *
 * The gradient of the decay of token t is the sum of every product that holds it: of what rows i >= t read from S, of what
 * rows j < t write for the end, left R o S, and of pairs j < t <= i, which is the sum over i >= t of q.dq + k.dk(read) -
 * k.dk(write) as far as both lie in the chunk.  Where channels fade by themselves, all of this is of one channel, and rows
 * of q and k as they lie in their tiles are as good as those that came: their fades stand in the gradients inversely. */
#ifndef KERNELS_CUDA_RECURRENCE_NARROW_GATES_CUH
#define KERNELS_CUDA_RECURRENCE_NARROW_GATES_CUH
#include "recurrence_narrow_backward.cuh"

/* Sums of the products of two tiles over the warp's rows, of two columns. */
template <typename T> static __device__ __forceinline__ float2 column_dots(const T *a, const T *b)
{
    float2 sum = { 0, 0 };
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float2 x = read2(a + own_number<SIDES>(r)), y = read2(b + own_number<SIDES>(r));
        sum.x += x.x * y.x, sum.y += x.y * y.y;
    }
    return sum;
}

/* What of the sums of share belongs to this thread's rows: y, but for the rows of other warps.  share holds what rows write
 * for the end, and then what they share from t on. */
template <typename T> static __device__ __forceinline__ void sum_shares(backward_block<T, EACH> &k, float2 y[ROWS])
{
    backward_tiles<T, EACH> *m = k.m;
    float2 to = { 0, 0 }, from = { 0, 0 };
    __syncthreads();
    #pragma unroll
    for (int r = 0; r < ROWS; r++) y[r] = to, add2(to, read2(m->share + own_number<SIDES>(r)));
    __syncthreads();
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) m->share[(16 * group() + acc_row(i)) * LD + 16 * own(n) + acc_col(i)] = k.from[n].c[i];
    }
    __syncthreads();
    #pragma unroll
    for (int r = ROWS - 1; r >= 0; r--) add2(from, read2(m->share + own_number<SIDES>(r))), add2(y[r], from);
    write2(m->part[0][warp_id()] + own_column(), to.x, to.y);
    write2(m->part[1][warp_id()] + own_column(), from.x, from.y);
}

/* The gradients of the gates of channels. */
template <typename T> static __device__ __forceinline__ void gates_back(const recurrence &x, backward_block<T, EACH> &k)
{
    backward_tiles<T, EACH> *m = k.m;
    int c = own_column();
    float2 y[ROWS], both = column_dots(m->R, m->S), rest = { 0, 0 };
    sum_shares(k, y);
    write2(m->part[2][warp_id()] + c, both.x, both.y);
    __syncthreads();
    #pragma unroll
    for (int w = 0; w < ALL_WARPS; w++) add2(rest, read2(m->part[2][w] + c));
    if (k.steep) {                                      /* else R's tile is that of left R */
        float2 left = read2(m->channels.left + c);
        rest.x *= left.x, rest.y *= left.y;
    }
    #pragma unroll
    for (int w = 0; w < ALL_WARPS; w++) if (w != warp_id()) add2(rest, read2(m->part[w > warp_id()][w] + c));
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        T *at = m->gate + own_number<SIDES>(r);
        float2 gate = read2(at);
        write2(at, channel_gate_back<T>(x.r, gate.x, y[r].x + rest.x), channel_gate_back<T>(x.r, gate.y, y[r].y + rest.y));
    }
    __syncthreads();
    T *to = (T *)x.r.dgate.p + k.at.b * x.r.dgate.sb + k.at.h * x.r.dgate.sh + k.at.t0 * x.r.dgate.st;
    #pragma unroll 1
    for (int n = 0; n < OWN && x.r.dgate.p; n++)
        put_block(to, x.r.dgate.st, x.vector_gate, x.r.D, x.r.T - k.at.t0, m->gate, 16 * group(), 16 * own(n));
}

/* The gradients that token t's numbers give, dl that of its decay. */
template <typename T, int KIND> static __device__ __forceinline__ void token_back(const recurrence &x, backward_block<T, KIND> &k, int i, float dl)
{
    backward_tiles<T, KIND> *m = k.m;
    const k_recurrence &r = x.r;
    int t = k.at.t0 + i;
    if (t >= r.T) return;
    if (r.decay == K_DECAY_STEP) {
        float A = expf(r.a_log ? ((const float *)r.a_log)[k.at.h] : 0), step = m->tokens.step[i];
        float dstep = x.stepped && step != 0 ? (m->dstep[0][i] + m->dstep[1][i]) / step : 0, of_gate = k.slope * (dstep - A * dl);
        k.dbias += of_gate, k.dlog -= A * step * dl;
        if (r.dgate.p) const_cast<T *>(head_row<T>(r.dgate, k.at.b, k.at.h, t))[0] = from_float<T>(of_gate);
    }
    if constexpr (KIND == DELTA) if (r.dbeta.p) {
        float beta = m->tokens.beta[i], y = 0;
        #pragma unroll
        for (int w = 0; w < ALL_WARPS; w++) y += m->part[w][i];
        y = beta != 0 ? y / beta * (1 - beta / (float)r.beta_max) : 0;
        const_cast<T *>(head_row<T>(r.dbeta, k.at.b, k.at.h, t))[0] = from_float<T>(y);
    }
}

/* Those of one gate for all channels, of beta, and shares of those of params: threads 0..63 have a token each. */
template <typename T, int KIND> static __device__ __forceinline__ void gates_back(const recurrence &x, backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    int i = threadIdx.x;
    put_dots(k.own_from, m->from), put_dots(k.own_to, m->to), put_dots(k.own_step, m->dstep);
    float2 both = column_dots(m->R, m->S);
    both.x = warp_total(both.x + both.y);
    if (lane_id() == 0) m->sums[warp_id()] = both.x;
    if constexpr (KIND == DELTA) {
        float2 y = column_dots(m->v, m->dV);
        write2(m->part[warp_id()] + own_column(), y.x, y.y);
    }
    __syncthreads();
    double from = 0;
    float all = 0, to = 0;
    if (i < TILE) {
        to = m->to[0][i] + m->to[1][i];
        from = m->from[0][i] + m->from[1][i] - (double)to;
        to += m->to[0][i ^ 32] + m->to[1][i ^ 32];
    }
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        double more = __shfl_down_sync(~0u, from, lanes);
        if (lane_id() + lanes < 32) from += more;
    }
    if (i == 32) m->half = from;
    to = warp_total(to);
    __syncthreads();
    if (i >= TILE) return;
    #pragma unroll
    for (int w = 0; w < ALL_WARPS; w++) all += m->sums[w];
    token_back(x, k, i, (float)(from + (i < 32 ? m->half : 0) + to) + m->tokens.in[TILE - 1] * all);
}

/* The share of this thread in the gradient of d_skip. */
template <typename T, int KIND> static __device__ __forceinline__ void skip_back(const recurrence &x, backward_block<T, KIND> &k)
{
    for (int n = threadIdx.x; x.r.dd_skip && n < TILE * 8; n += ALL) {
        int at = n / 8 * LD + n % 8 * 8;
        float v[8], g[8];
        read8(k.m->v + at, v), read8(k.m->g + at, g);
        #pragma unroll
        for (int e = 0; e < 8; e++) k.dskip += v[e] * g[e];
    }
}
#endif
