/* recurrence_chunk.cu - the rows and gates of a chunk as the tiles that recurrence.cuh lists, one block for each chunk. */
#include "recurrence_rows.cuh"
#include "recurrence_scores.cuh"

/* Shared memory: DT tiles of keys, DT of running sums if channels fade by themselves, and these. */
template <typename T> struct chunk_memory {
    T q[TILE * LD];
    float A[TILE * LD], inverse[TILE * LD];             /* delta: T, then (I + T)^-1 */
    float factor[TILE], b[TILE], in[TILE], out[TILE], beta[TILE], step[TILE];
};
template <typename T> struct chunk_block { chunk_memory<T> *m; T *k; float *sums; };

/* ---- gates ------------------------------------------------------------------------------------------------------- */

/* l of token t, and its step, its slope and beta, which are 0 beyond the end. */
template <typename T> static __device__ float scalar_gate(const recurrence &x, const chunk_at &k, int t, float *step, float *slope, float *beta)
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

/* One decay for all channels: running sums, fades of the rows, and what later passes read of them. */
template <typename T> static __device__ void scalar_gates(const recurrence &x, const chunk_at &k, chunk_memory<T> *m)
{
    int i = threadIdx.x;
    float step, slope, beta;
    if (i < TILE) {
        m->b[i] = scalar_gate<T>(x, k, k.t0 + i, &step, &slope, &beta);
        m->step[i] = step, m->beta[i] = beta;
        int64_t at = k.at * TILE + i;
        x.step[at] = step, x.slope[at] = slope, x.beta[at] = beta;
    }
    __syncthreads();
    double sum = 0;
    for (int j = 0; i < TILE && j <= i; j++) sum += m->b[j];
    __syncthreads();
    if (i < TILE) m->b[i] = x.b[k.at * TILE + i] = (float)sum;
    __syncthreads();
    float last = m->b[TILE - 1];
    if (i < TILE) {
        m->in[i] = expf(m->b[i]);
        m->out[i] = expf(last - m->b[i]) * (x.stepped ? m->step[i] : 1);
    }
    for (int d = i; d < x.DT * TILE; d += THREADS) x.left[k.at * x.DT * TILE + d] = expf(last);
}

/* A decay for each channel: running sums in tiles. */
template <typename T> static __device__ void channel_gates(const recurrence &x, const chunk_at &k, float *sums)
{
    for (int n = threadIdx.x; n < x.DT * TILE_SIZE; n += THREADS) {
        int c = n % (x.DT * TILE), i = n / (x.DT * TILE), t = k.t0 + i;
        sums[c / TILE * TILE * LD + i * LD + c % TILE] = t < x.r.T && c < x.r.D ? channel_decay(x.r, to_float(head_row<T>(x.r.gate, k.b, k.h, t)[c])) : 0;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < x.DT * TILE; c += THREADS) {
        float *b = sums + c / TILE * TILE * LD + c % TILE, sum = 0;
        for (int i = 0; i < TILE; i++) b[i * LD] = sum = fmaxf(sum + b[i * LD], -1e30f);
        x.left[k.at * x.DT * TILE + c] = expf(sum);
    }
    __syncthreads();
    if (!x.training) return;
    for (int n = threadIdx.x; n < x.DT * TILE * 8; n += THREADS) {
        int d = n / (TILE * 8), i = n / 8 % TILE, c = n % 8 * 8;
        float y[8];
        read8(sums + d * TILE * LD + i * LD + c, y);
        write8(x.b + (k.at * x.DT + d) * TILE_SIZE + i * TILE + c, y);
    }
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

enum fade { FADE_NONE, FADE_IN, FADE_OUT };

/* A tile in shared memory to a dense one, faded. */
template <typename T> static __device__ void store_faded(const recurrence &x, const chunk_memory<T> *m, const float *sums, const T *tile, T *dense, fade by)
{
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int i = n / 8, c = n % 8 * 8;
        float y[8];
        read8(tile + i * LD + c, y);
        #pragma unroll
        for (int e = 0; e < 8 && by != FADE_NONE; e++) {
            float b = x.channel ? sums[i * LD + c + e] : 0;
            y[e] *= !x.channel ? (by == FADE_IN ? m->in[i] : m->out[i]) : expf(by == FADE_IN ? b : sums[(TILE - 1) * LD + c + e] - b);
        }
        write8(dense + i * TILE + c, y);
    }
}

/* Keys of the chunk. */
template <typename T> static __device__ void make_keys(const recurrence &x, const chunk_at &k, const chunk_block<T> &w)
{
    rows_at<T> rows = head_rows<T>(x, x.r.k, k.b, k.hk, x.r.D, x.vector_k);
    row_factors(x, rows, k.t0, w.m->factor);
    for (int d = 0; d < x.DT; d++) {
        T *tile = w.k + d * TILE * LD;
        const float *sums = w.sums + d * TILE * LD;
        make_rows(x, rows, k.t0, d * TILE, w.m->factor, tile);
        __syncthreads();
        store_faded(x, w.m, sums, tile, tile_at<T>(x.k_out, k.at * x.DT + d), FADE_OUT);
        if (x.delta) store_faded(x, w.m, sums, tile, tile_at<T>(x.k_in, k.at * x.DT + d), FADE_IN);
        if (x.training) store_faded(x, w.m, sums, tile, tile_at<T>(x.k_hat, k.at * x.DT + d), FADE_NONE);
    }
}

/* Queries of reader g, and their scores. */
template <typename T> static __device__ void make_reader(const recurrence &x, const chunk_at &k, int g, const chunk_block<T> &w)
{
    reader_at at = reader_of(x, k, g);
    rows_at<T> rows = head_rows<T>(x, x.r.q, k.b, at.hq, x.r.D, x.vector_q);
    int i0 = warp_id();
    acc p[BLOCKS];
    for (int j = 0; j < BLOCKS; j++) clear(p[j]);
    __syncthreads();
    row_factors(x, rows, k.t0, w.m->factor);
    for (int d = 0; d < x.DT; d++) {
        const T *keys = w.k + d * TILE * LD;
        const float *sums = w.sums + d * TILE * LD;
        __syncthreads();
        make_rows(x, rows, k.t0, d * TILE, w.m->factor, w.m->q);
        __syncthreads();
        store_faded(x, w.m, sums, w.m->q, tile_at<T>(x.q_in, at.at * x.DT + d), FADE_IN);
        if (x.training) store_faded(x, w.m, sums, w.m->q, tile_at<T>(x.q_hat, at.at * x.DT + d), FADE_NONE);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            if (j > i0) continue;
            if (x.channel) {
                channel_scores(w.m->q, keys, sums, i0, j, p[j]);
                continue;
            }
            #pragma unroll
            for (int c = 0; c < BLOCKS; c++) product(p[j], load_rows(w.m->q, 16 * i0, 16 * c), load_rows(keys, 16 * j, 16 * c));
        }
    }
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int i = 16 * i0 + acc_row(n), c = 16 * j + acc_col(n);
            if (c > i) p[j].c[n] = 0;
            else if (!x.channel) p[j].c[n] *= expf(w.m->b[i] - w.m->b[c]) * (x.stepped ? w.m->step[c] : 1);
        }
        store_acc(w.m->q, 16 * i0, 16 * j, p[j]);
    }
    store_warp_rows(tile_at<T>(x.P, at.at), w.m->q);
}

/* ---- delta -------------------------------------------------------------------------------------------------------- */

/* A = T: the products of keys below the diagonal, faded, times beta of the later one. */
template <typename T> static __device__ void make_T(const recurrence &x, const chunk_block<T> &w)
{
    int i0 = warp_id();
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        acc p;
        clear(p);
        for (int d = 0; d < x.DT && j <= i0; d++) {
            const T *keys = w.k + d * TILE * LD;
            #pragma unroll
            for (int c = 0; c < BLOCKS; c++) product(p, load_rows(keys, 16 * i0, 16 * c), load_rows(keys, 16 * j, 16 * c));
        }
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int i = 16 * i0 + acc_row(n), c = 16 * j + acc_col(n);
            p.c[n] = c < i ? p.c[n] * expf(w.m->b[i] - w.m->b[c]) * w.m->beta[i] : 0;
        }
        store_acc(w.m->A, 16 * i0, 16 * j, p);
    }
}

/* (I + T)^-1 of block i of the diagonal, a column by each lane. */
template <typename T> static __device__ void invert_block(chunk_memory<T> *m, int i)
{
    int c = lane_id();
    const float *t = m->A + 16 * i * LD + 16 * i;
    float y[16];
    #pragma unroll
    for (int r = 0; r < 16; r++) {
        y[r] = r == c;
        #pragma unroll
        for (int s = 0; s < r; s++) y[r] -= t[r * LD + s] * y[s];
        if (c < 16) m->inverse[(16 * i + r) * LD + 16 * i + c] = y[r];
    }
}

/* (I + T)^-1: the diagonal, then the blocks beside it, then those farther off: X_ij = -X_ii sum of T_ik X_kj. */
template <typename T> static __device__ void invert(chunk_memory<T> *m)
{
    int i = warp_id();
    invert_block(m, i);
    __syncthreads();
    #pragma unroll 1
    for (int off = 1; off < BLOCKS; off++) {
        int j = i - off;
        if (j >= 0) {
            acc sum, y;
            clear(sum), clear(y);
            for (int k = j; k < i; k++) product(sum, load_cols(m->inverse, 16 * k, 16 * j), load_rows(m->A, 16 * i, 16 * k));
            product(y, load_rows(m->inverse, 16 * i, 16 * i), operand<float>(sum));
            #pragma unroll
            for (int n = 0; n < 8; n++) y.c[n] = -y.c[n];
            store_acc(m->inverse, 16 * i, 16 * j, y);
        }
        __syncthreads();
    }
}

/* W = (I + T)^-1 beta. */
template <typename T> static __device__ void make_W(const recurrence &x, const chunk_at &k, const chunk_block<T> &w)
{
    make_T(x, w);
    __syncthreads();
    invert(w.m);
    T *W = tile_at<T>(x.W, k.at);
    for (int n = threadIdx.x; n < TILE_SIZE; n += THREADS) {
        int i = n / TILE, j = n % TILE;
        W[n] = from_float<T>(j <= i ? w.m->inverse[i * LD + j] * w.m->beta[j] : 0);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------ */

template <typename T> static __global__ void __launch_bounds__(THREADS) chunk_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    chunk_block<T> w;
    w.m = reinterpret_cast<chunk_memory<T> *>(memory);
    w.k = reinterpret_cast<T *>(w.m + 1);
    w.sums = reinterpret_cast<float *>(w.k + x.DT * TILE * LD);
    chunk_at k = chunk_of(x, blockIdx.x / x.chunks, blockIdx.x % x.chunks);
    if (x.channel) channel_gates<T>(x, k, w.sums);
    else scalar_gates(x, k, w.m);
    __syncthreads();
    make_keys(x, k, w);
    if (x.delta) {
        __syncthreads();
        make_W(x, k, w);
    }
    for (int g = 0; g < x.G; g++) make_reader(x, k, g, w);
}

template <typename T> void recurrence_chunks(const recurrence &x, cudaStream_t stream)
{
    int bytes = (int)sizeof(chunk_memory<T>) + x.DT * tile_of<T>::BYTES + (x.channel ? x.DT * tile_of<float>::BYTES : 0);
    cudaFuncSetAttribute(chunk_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    chunk_kernel<T><<<x.r.B * x.r.H * x.chunks, THREADS, bytes, stream>>>(x);
}
template void recurrence_chunks<float>(const recurrence &, cudaStream_t);
template void recurrence_chunks<bf16>(const recurrence &, cudaStream_t);
