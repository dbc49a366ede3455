/* recurrence_chunk.cu - the rows and gates of a chunk as the tiles that recurrence.cuh lists, one block for each chunk. */
#include "recurrence_rows.cuh"
#include "recurrence_scores.cuh"

/* What a block has in shared memory: these, and tiles.  Delta needs A before there are queries, and takes their place. */
struct chunk_memory { float factor[TILE], b[TILE], in[TILE], out[TILE], beta[TILE], step[TILE]; };
template <typename T> struct chunk_block {
    chunk_memory *m;
    T *q, *k;                           /* one tile, DT tiles */
    float *A, *inverse;                 /* delta: T, then (I + T)^-1 */
    float *sums;                        /* channels: DT tiles of running sums of decays */
    T *half;                            /* channels: see recurrence_scores.cuh */
};

/* Lays the tiles out after m; returns the bytes of all. */
template <typename T> static __host__ __device__ int lay_out(const recurrence &x, unsigned char *memory, chunk_block<T> *w)
{
    enum { FLOATS = tile_of<float>::BYTES, ROWS = tile_of<T>::BYTES };
    int at = sizeof(chunk_memory), tiles = x.DT;
    w->m = reinterpret_cast<chunk_memory *>(memory);
    w->q = reinterpret_cast<T *>(memory + at), w->A = reinterpret_cast<float *>(memory + at), at += x.delta ? FLOATS : ROWS;
    w->k = reinterpret_cast<T *>(memory + at), at += tiles * ROWS;
    w->inverse = reinterpret_cast<float *>(memory + at), at += x.delta ? FLOATS : 0;
    w->sums = reinterpret_cast<float *>(memory + at), at += x.channel ? tiles * FLOATS : 0;
    w->half = reinterpret_cast<T *>(memory + at), at += x.channel ? ROWS : 0;
    return at;
}

/* ---- gates ------------------------------------------------------------------------------------------------------- */

/* One decay for all channels: running sums, fades of the rows, and what later passes read of them. */
template <typename T> static __device__ void scalar_gates(const recurrence &x, const chunk_at &k, chunk_memory *m)
{
    int i = threadIdx.x;
    float step, slope, beta;
    double sum = 0;
    if (i < TILE) {
        sum = scalar_gate<T>(x, k, k.t0 + i, &step, &slope, &beta);
        m->step[i] = step, m->beta[i] = beta;
        int64_t at = k.at * TILE + i;
        x.step[at] = step, x.slope[at] = slope, x.beta[at] = beta;
    }
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        double before = __shfl_up_sync(~0u, sum, lanes);
        if (lane_id() >= lanes) sum += before;
    }
    if (i == 31) m->b[0] = (float)sum;
    __syncthreads();
    if (i >= 32) sum += m->b[0];
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
        sums[c / TILE * TILE * LD + i * LD + c % TILE] = t < x.r.T && c < x.r.D ? channel_decay<T>(x.r, to_float(head_row<T>(x.r.gate, k.b, k.h, t)[c])) : 0;
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
template <typename T> static __device__ void store_faded(const recurrence &x, const chunk_memory *m, const float *sums, const T *tile, T *dense, fade by)
{
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int i = n / 8, c = n % 8 * 8;
        float y[8];
        read8(tile + i * LD + c, y);
        #pragma unroll
        for (int e = 0; e < 8 && by != FADE_NONE; e++) {
            float b = x.channel ? sums[i * LD + c + e] : 0;
            y[e] *= !x.channel ? (by == FADE_IN ? m->in[i] : m->out[i]) : exponential<T>(by == FADE_IN ? b : sums[(TILE - 1) * LD + c + e] - b);
        }
        write8(dense + i * TILE + c, y);
    }
}

/* Keys of the chunk. */
template <typename T> static __device__ void make_keys(const recurrence &x, const chunk_at &k, const chunk_block<T> &w)
{
    rows_at<T> rows = head_rows<T>(x, x.r.k, k.b, k.hk, x.r.D, x.vector_k);
    row_factors(x, rows, k.t0, w.m->factor);
    if (x.training && x.normed && threadIdx.x < TILE) x.k_factor[k.at * TILE + threadIdx.x] = w.m->factor[threadIdx.x];
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

/* Scores of the rows in q with keys, over 64 columns. */
template <typename T> static __device__ __forceinline__ void add_scores(const recurrence &x, const chunk_block<T> &w, const T *keys,
                                                                       const float *sums, acc p[BLOCKS])
{
    int i0 = warp_id();
    #pragma unroll 1
    for (int h = TILE / 2; x.channel && h; h /= 2) {
        make_half(w.q, keys, sums, h, w.half);
        half_scores(w.half, w.half, i0, h, p);
    }
    if (x.channel) half_scores(w.q, keys, i0, 0, p);
    #pragma unroll
    for (int j = 0; j < BLOCKS && !x.channel; j++) {
        if (j > i0) continue;
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) product(p[j], load_rows(w.q, 16 * i0, 16 * c), load_rows(keys, 16 * j, 16 * c));
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
    if (x.training && x.normed && threadIdx.x < TILE) x.q_factor[at.at * TILE + threadIdx.x] = w.m->factor[threadIdx.x];
    for (int d = 0; d < x.DT; d++) {
        const T *keys = w.k + d * TILE * LD;
        const float *sums = w.sums + d * TILE * LD;
        __syncthreads();
        make_rows(x, rows, k.t0, d * TILE, w.m->factor, w.q);
        __syncthreads();
        store_faded(x, w.m, sums, w.q, tile_at<T>(x.q_in, at.at * x.DT + d), FADE_IN);
        if (x.training) store_faded(x, w.m, sums, w.q, tile_at<T>(x.q_hat, at.at * x.DT + d), FADE_NONE);
        add_scores(x, w, keys, sums, p);
    }
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int i = 16 * i0 + acc_row(n), c = 16 * j + acc_col(n);
            if (c > i) p[j].c[n] = 0;
            else if (!x.channel) p[j].c[n] *= exponential<T>(w.m->b[i] - w.m->b[c]) * (x.stepped ? w.m->step[c] : 1);
        }
        store_acc(w.q, 16 * i0, 16 * j, p[j]);
    }
    store_warp_rows(tile_at<T>(x.P, at.at), w.q);
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
            p.c[n] = c < i ? p.c[n] * exponential<T>(w.m->b[i] - w.m->b[c]) * w.m->beta[i] : 0;
        }
        store_acc(w.A, 16 * i0, 16 * j, p);
    }
}

/* (I + T)^-1 of block i of the diagonal, a column by each lane. */
template <typename T> static __device__ void invert_block(const chunk_block<T> &w, int i)
{
    int c = lane_id();
    const float *t = w.A + 16 * i * LD + 16 * i;
    float y[16];
    #pragma unroll
    for (int r = 0; r < 16; r++) {
        y[r] = r == c;
        #pragma unroll
        for (int s = 0; s < r; s++) y[r] -= t[r * LD + s] * y[s];
        if (c < 16) w.inverse[(16 * i + r) * LD + 16 * i + c] = y[r];
    }
}

/* (I + T)^-1: the diagonal, then the blocks beside it, then those farther off: X_ij = -X_ii sum of T_ik X_kj. */
template <typename T> static __device__ void invert(const chunk_block<T> &w)
{
    int i = warp_id();
    invert_block(w, i);
    __syncthreads();
    #pragma unroll 1
    for (int off = 1; off < BLOCKS; off++) {
        int j = i - off;
        if (j >= 0) {
            acc sum, y;
            clear(sum), clear(y);
            for (int k = j; k < i; k++) product(sum, load_cols(w.inverse, 16 * k, 16 * j), load_rows(w.A, 16 * i, 16 * k));
            product(y, load_rows(w.inverse, 16 * i, 16 * i), operand<float>(sum));
            #pragma unroll
            for (int n = 0; n < 8; n++) y.c[n] = -y.c[n];
            store_acc(w.inverse, 16 * i, 16 * j, y);
        }
        __syncthreads();
    }
}

/* W = (I + T)^-1 beta. */
template <typename T> static __device__ void make_W(const recurrence &x, const chunk_at &k, const chunk_block<T> &w)
{
    make_T(x, w);
    __syncthreads();
    invert(w);
    T *W = tile_at<T>(x.W, k.at);
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int i = n / 8, c = n % 8 * 8;
        float y[8];
        read8(w.inverse + i * LD + c, y);
        #pragma unroll
        for (int e = 0; e < 8; e++) y[e] = c + e <= i ? y[e] * w.m->beta[c + e] : 0;
        write8(W + i * TILE + c, y);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------ */

template <typename T> static __global__ void __launch_bounds__(THREADS, sizeof(T) == 2 ? 4 : 2) chunk_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    chunk_block<T> w;
    lay_out(x, memory, &w);
    chunk_at k = chunk_of(x, blockIdx.x / x.chunks, blockIdx.x % x.chunks);
    if (x.channel) channel_gates<T>(x, k, w.sums);
    else scalar_gates<T>(x, k, w.m);
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
    chunk_block<T> w;
    int bytes = lay_out(x, (unsigned char *)NULL, &w);
    cudaFuncSetAttribute(chunk_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    chunk_kernel<T><<<x.r.B * x.r.H * x.chunks, THREADS, bytes, stream>>>(x);
}
template void recurrence_chunks<float>(const recurrence &, cudaStream_t);
template void recurrence_chunks<bf16>(const recurrence &, cudaStream_t);
