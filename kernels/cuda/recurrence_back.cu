/* recurrence_back.cu - the gradients of fading memories but those of the values, one block for each chunk, from S at the
 * chunk's start, R = dL/dS at its end, and what the walks left (recurrence.cuh).  With w_ij the fade from j to i:
 *   dP = tril(scale G X') o w,  dA = -stril(dV X') o w (delta)
 *   dq = dP K + in (scale G S'),  dk = dP'Q + out (X R') + dA K + dA'K - in (dV S')
 * The gradient of the decay of token t is the sum of every product that holds it: of what rows i >= t read from S, of what
 * rows j < t write for the end, left R o S, and of pairs j < t <= i, which is the sum over i >= t of q.dq + k.dk(read) -
 * k.dk(write) as far as both lie in the chunk. */
#include "recurrence_rows.cuh"
#include "recurrence_scores.cuh"

/* Shared memory; b only where channels fade by themselves.  Tiles serve again where they are done: g and S carry rows on
 * their way out, S also the halves of recurrence_scores.cuh, q becomes dA, and g with dV what rows write for the end. */
template <typename T> struct back_memory {
    T k[TILE * LD], q[TILE * LD], S[TILE * LD], R[TILE * LD], X[TILE * LD], dP[TILE * LD], g[TILE * LD], dV[TILE * LD];
    float b1[TILE], in[TILE], out[TILE], beta[TILE], step[TILE];
    float from[TILE], to[TILE], kdk[TILE], vdx[TILE], dl[TILE], left[TILE], sums[WARPS];
    float b[1][TILE * LD];              /* sums of decays; then what rows share in their gradients from t on */
};
template <typename T> static __device__ __forceinline__ float *share_to_end(back_memory<T> *m) { return reinterpret_cast<float *>(m->g); }

template <typename T> struct back_block {
    back_memory<T> *m;
    chunk_at at;
    acc dk[BLOCKS];                     /* 16 rows of each warp x 64 columns */
};

/* ---- what a chunk needs all along ---------------------------------------------------------------------------------- */

template <typename T> static __device__ void load_scalars(const recurrence &x, const back_block<T> &k)
{
    back_memory<T> *m = k.m;
    int i = threadIdx.x;
    if (i >= TILE) return;
    m->from[i] = m->to[i] = m->kdk[i] = m->vdx[i] = m->dl[i] = 0;
    m->step[i] = m->beta[i] = 1;
    if (x.channel) return;
    const float *b = x.b + k.at.at * TILE;
    m->b1[i] = b[i], m->in[i] = expf(b[i]);
    m->step[i] = x.step[k.at.at * TILE + i], m->beta[i] = x.beta[k.at.at * TILE + i];
    m->out[i] = expf(b[TILE - 1] - b[i]) * (x.stepped ? m->step[i] : 1);
}

/* Fade of row r, column c from the chunk's start, and to its end. */
template <typename T> static __device__ __forceinline__ float fade_in(const recurrence &x, const back_memory<T> *m, int r, int c)
{
    return x.channel ? exponential<T>(m->b[0][r * LD + c]) : m->in[r];
}
template <typename T> static __device__ __forceinline__ float fade_out(const recurrence &x, const back_memory<T> *m, int r, int c)
{
    return x.channel ? exponential<T>(m->b[0][(TILE - 1) * LD + c] - m->b[0][r * LD + c]) : m->out[r];
}

/* What was written, rows x values, as the left or the right side of a product over values. */
template <typename T> static __device__ __forceinline__ frag<T> written(const recurrence &x, const back_memory<T> *m, int row, int e)
{
    return x.delta ? load_cols(m->X, e, row) : load_rows(m->X, row, e);
}
template <typename T> static __device__ __forceinline__ void load_written(const recurrence &x, const back_block<T> &k, int e)
{
    if (x.delta) load_dense(k.m->X, x.X, k.at.at * x.ET + e);
    else load_tile(k.m->X, head_rows<T>(x, x.r.v, k.at.b, k.at.hv, x.r.E, x.vector_v), k.at.t0, e * TILE);
}

/* Shares of this warp's rows in the gradient of decays: x o dx summed over columns and added to share, or, where channels
 * fade by themselves, added to a tile or set. */
template <typename T> static __device__ __forceinline__ void add_share(const recurrence &x, const T *rows, const acc dx[BLOCKS], float by, float *share,
                                                                       float *tile, int set)
{
    if (x.r.decay == K_DECAY_FIXED) return;
    float sum[2] = { 0, 0 };
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int at = (16 * warp_id() + acc_row(n)) * LD + 16 * c + acc_col(n);
            float y = by * to_float(rows[at]) * dx[c].c[n];
            if (x.channel) tile[at] = (set ? 0 : tile[at]) + y;
            else sum[n >> 1 & 1] += y;
        }
    }
    if (x.channel) return;
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        sum[n] += __shfl_xor_sync(~0u, sum[n], 1);
        sum[n] += __shfl_xor_sync(~0u, sum[n], 2);
        if ((lane_id() & 3) == 0) share[16 * warp_id() + acc_row(2 * n)] += sum[n];
    }
    __syncwarp();
}

/* The gradient d of normalised rows becomes that of the rows before: factor (d - row (d.row)). */
template <typename T> static __device__ __forceinline__ void norm_back(const T *rows, const float *factor, acc d[BLOCKS])
{
    float dot[2] = { 0, 0 };
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) dot[n >> 1 & 1] += d[c].c[n] * to_float(rows[(16 * warp_id() + acc_row(n)) * LD + 16 * c + acc_col(n)]);
    }
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        dot[n] += __shfl_xor_sync(~0u, dot[n], 1);
        dot[n] += __shfl_xor_sync(~0u, dot[n], 2);
    }
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = 16 * warp_id() + acc_row(n);
            d[c].c[n] = factor[r] * (d[c].c[n] - dot[n >> 1 & 1] * to_float(rows[r * LD + 16 * c + acc_col(n)]));
        }
    }
}

/* 16 rows of each warp x 64 columns to a gradient: in its own dtype, or to floats [T,D] of the head. */
template <typename T> static __device__ void put_gradient(const recurrence &x, const back_block<T> &k, T *stage, const k_heads &t, int h, int direct, int vector,
                                                          float *dense, int col, const acc d[BLOCKS])
{
    int r0 = 16 * warp_id();
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        if (direct) store_acc(stage, r0, 16 * c, d[c]);
        #pragma unroll
        for (int n = 0; n < 8 && !direct; n++) {
            int i = k.at.t0 + r0 + acc_row(n), e = col + 16 * c + acc_col(n);
            if (i < x.r.T && e < x.r.D) dense[(int64_t)i * x.r.D + e] = d[c].c[n];
        }
    }
    __syncwarp();
    for (int n = lane_id(); n < 16 * 8 && direct; n += 32) {
        int r = r0 + n / 8, c = n % 8 * 8, i = k.at.t0 + r;
        float y[8];
        if (i >= x.r.T || col + c >= x.r.D) continue;
        T *to = (T *)t.p + k.at.b * t.sb + h * t.sh + i * t.st + col + c;
        read8(stage + r * LD + c, y);
        if (vector) write8(to, y);
        else for (int e = 0; e < 8 && col + c + e < x.r.D; e++) to[e] = from_float<T>(y[e]);
    }
    __syncwarp();
}

/* ---- readers --------------------------------------------------------------------------------------------------------- */

/* dP of reader g in its tile, and what its queries get from S over the 64 columns from d on. */
template <typename T> static __device__ void reader_scores(const recurrence &x, const back_block<T> &k, const reader_at &from, int d, acc dq[BLOCKS])
{
    back_memory<T> *m = k.m;
    int i0 = warp_id();
    float scale = (float)x.r.scale;
    acc dP[BLOCKS];
    for (int j = 0; j < BLOCKS; j++) clear(dP[j]), clear(dq[j]);
    for (int e = 0; e < x.ET; e++) {
        __syncthreads();
        load_tile(m->g, head_rows<T>(x, x.r.d_o, k.at.b, from.ho, x.r.E, x.vector_o), k.at.t0, e * TILE);
        load_written(x, k, e);
        load_dense(m->S, x.S, (k.at.at * x.ET + e) * x.DT + d);
        loads_done();
        #pragma unroll 1
        for (int s = 0; s < BLOCKS; s++) {
            frag<T> g = load_rows(m->g, 16 * i0, 16 * s);
            #pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                if (j <= i0) product(dP[j], g, written(x, m, 16 * j, 16 * s));
                product(dq[j], g, load_cols(m->S, 16 * s, 16 * j));
            }
        }
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = 16 * i0 + acc_row(n), c = 16 * j + acc_col(n);
            dq[j].c[n] *= scale * fade_in(x, m, r, c);
            float w = c > r ? 0 : x.channel ? scale : scale * exponential<T>(m->b1[r] - m->b1[c]) * (x.stepped ? m->step[c] : 1);
            dP[j].c[n] = c > r ? 0 : dP[j].c[n] * w;
        }
        if (j <= i0) store_acc(m->dP, 16 * i0, 16 * j, dP[j]);
    }
    __syncthreads();
}

/* dq of reader g, and its share of dk, over the 64 columns from d on. */
template <typename T> static __device__ void reader_back(const recurrence &x, back_block<T> &k, int g, int d)
{
    back_memory<T> *m = k.m;
    reader_at from = reader_of(x, k.at, g);
    int i0 = warp_id();
    acc dq[BLOCKS], dk[BLOCKS];
    __syncthreads();
    load_dense(m->q, x.q_hat, from.at * x.DT + d);
    reader_scores(x, k, from, d, dq);
    for (int c = 0; c < BLOCKS; c++) clear(dk[c]);
    #pragma unroll 1
    for (int h = TILE / 2; x.channel && h; h /= 2) {
        make_half(m->q, m->k, m->b[0], h, m->S);
        half_back(m->dP, m->S, m->b[0], i0, h, dq, dk);
    }
    #pragma unroll 1
    for (int n = 0; n < BLOCKS && !x.channel; n++) {
        if (n <= i0) {
            frag<T> p = load_rows(m->dP, 16 * i0, 16 * n);
            #pragma unroll
            for (int c = 0; c < BLOCKS; c++) product(dq[c], p, load_cols(m->k, 16 * n, 16 * c));
        }
        if (n >= i0) {
            frag<T> p = load_cols(m->dP, 16 * n, 16 * i0);
            #pragma unroll
            for (int c = 0; c < BLOCKS; c++) product(dk[c], p, load_cols(m->q, 16 * n, 16 * c));
        }
    }
    add_share(x, m->q, dq, 1, m->from, m->b[1], 0);
    add_share(x, m->k, dk, -1, m->from, m->b[1], 0);
    if (x.stepped) add_share(x, m->k, dk, 1, m->kdk, NULL, 0);
    if (x.channel) diagonal_back(m->dP, m->q, m->k, i0, dq, dk);
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) k.dk[c].c[n] += dk[c].c[n];
    }
    if (x.normed) norm_back(m->q, x.q_factor + from.at * TILE, dq);
    float *dense = x.dq ? x.dq + ((int64_t)k.at.b * x.r.Ho + from.ho) * x.r.T * x.r.D : NULL;
    if (x.r.dq.p) put_gradient(x, k, m->g, x.r.dq, from.hq, x.direct_q, x.vector_q, dense, d * TILE, dq);
}

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

/* left R o S over a tile: of all its numbers into dl, or of each channel. */
template <typename T> static __device__ void add_memory_share(const recurrence &x, back_memory<T> *m)
{
    float sum = 0;
    int d = threadIdx.x & (TILE - 1);
    for (int e = threadIdx.x / TILE; e < TILE; e += THREADS / TILE) sum += to_float(m->R[e * LD + d]) * to_float(m->S[e * LD + d]);
    sum *= m->left[d];
    if (x.channel) {
        if (threadIdx.x >= TILE) m->vdx[d] = sum;
        __syncthreads();
        if (threadIdx.x < TILE) m->dl[d] += sum + m->vdx[d];
        return;
    }
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (lane_id() == 0) m->sums[warp_id()] = sum;
    __syncthreads();
    if (threadIdx.x < TILE) for (int n = 0; n < WARPS; n++) m->dl[threadIdx.x] += m->sums[n];
}

/* dk of what the chunk leaves for later, and of what delta reads from S; also dA and the products of beta's gradient. */
template <typename T> static __device__ void memory_back(const recurrence &x, back_block<T> &k, int d)
{
    back_memory<T> *m = k.m;
    int i0 = warp_id();
    acc later[BLOCKS], read[BLOCKS], dA[BLOCKS];
    for (int c = 0; c < BLOCKS; c++) clear(later[c]), clear(read[c]), clear(dA[c]);
    for (int e = 0; e < x.ET; e++) {
        __syncthreads();
        load_written(x, k, e);
        load_dense(m->R, x.R, (k.at.at * x.ET + e) * x.DT + d);
        load_dense(m->S, x.S, (k.at.at * x.ET + e) * x.DT + d);
        if (x.delta) load_dense(m->dV, x.dV, k.at.at * x.ET + e);
        loads_done();
        if (x.r.decay != K_DECAY_FIXED) add_memory_share(x, m);
        #pragma unroll 1
        for (int s = 0; s < BLOCKS; s++) {
            frag<T> X = written(x, m, 16 * i0, 16 * s), y;
            if (x.delta) y = load_cols(m->dV, 16 * s, 16 * i0);
            #pragma unroll
            for (int c = 0; c < BLOCKS; c++) {
                product(later[c], X, load_cols(m->R, 16 * s, 16 * c));
                if (!x.delta) continue;
                product(read[c], y, load_cols(m->S, 16 * s, 16 * c));
                if (c <= i0) product(dA[c], y, written(x, m, 16 * c, 16 * s));
            }
        }
        for (int s = 0; s < TILE && x.delta && d == 0 && threadIdx.x < TILE; s++)
            m->vdx[threadIdx.x] += to_float(m->X[s * LD + threadIdx.x]) * to_float(m->dV[s * LD + threadIdx.x]);
    }
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = 16 * i0 + acc_row(n), col = 16 * c + acc_col(n);
            later[c].c[n] *= fade_out(x, m, r, col);
            if (!x.delta) continue;
            read[c].c[n] *= -fade_in(x, m, r, col);
            dA[c].c[n] = col < r ? -dA[c].c[n] * exponential<T>(m->b1[r] - m->b1[col]) : 0;
        }
        if (x.delta && c <= i0) store_acc(m->q, 16 * i0, 16 * c, dA[c]);
    }
    add_share(x, m->k, later, 1, m->to, share_to_end(m), 1);
    if (x.stepped) add_share(x, m->k, later, 1, m->kdk, NULL, 0);
    if (x.delta) add_share(x, m->k, read, 1, m->from, NULL, 0);
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) k.dk[c].c[n] += later[c].c[n] + (x.delta ? read[c].c[n] : 0);
    }
    __syncthreads();
}

/* dk of the pairs of keys that delta compares. */
template <typename T> static __device__ void pairs_back(const recurrence &x, back_block<T> &k)
{
    back_memory<T> *m = k.m;
    int i0 = warp_id();
    acc read[BLOCKS], write[BLOCKS];
    for (int c = 0; c < BLOCKS; c++) clear(read[c]), clear(write[c]);
    #pragma unroll 1
    for (int n = 0; n < BLOCKS; n++) {
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) {
            if (n <= i0) product(read[c], load_rows(m->q, 16 * i0, 16 * n), load_cols(m->k, 16 * n, 16 * c));
            if (n >= i0) product(write[c], load_cols(m->q, 16 * n, 16 * i0), load_cols(m->k, 16 * n, 16 * c));
        }
    }
    add_share(x, m->k, read, 1, m->from, NULL, 0);
    add_share(x, m->k, write, -1, m->from, NULL, 0);
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) k.dk[c].c[n] += read[c].c[n] + write[c].c[n];
    }
}

/* ---- gates --------------------------------------------------------------------------------------------------------------- */

/* Gradients of the gates of channels, 64 columns from col on. */
template <typename T> static __device__ void channel_gates_back(const recurrence &x, const back_block<T> &k, int col)
{
    back_memory<T> *m = k.m;
    int d = threadIdx.x, c = col + d;
    float *to = share_to_end(m);
    __syncthreads();
    if (d < TILE) {
        float sum = m->dl[d];
        for (int i = 0; i < TILE; i++) {                /* what rows before t leave for the end */
            float y = to[i * LD + d];
            to[i * LD + d] = sum;
            sum += y;
        }
        sum = 0;
        for (int i = TILE - 1; i >= 0; i--) to[i * LD + d] += sum += m->b[1][i * LD + d];
        m->dl[d] = 0;
    }
    __syncthreads();
    for (int n = threadIdx.x; n < TILE_SIZE && x.r.dgate.p; n += THREADS) {
        int i = n / TILE, t = k.at.t0 + i;
        c = col + n % TILE;
        if (t >= x.r.T || c >= x.r.D) continue;
        float gate = to_float(head_row<T>(x.r.gate, k.at.b, k.at.h, t)[c]);
        const_cast<T *>(head_row<T>(x.r.dgate, k.at.b, k.at.h, t))[c] = from_float<T>(channel_gate_back<T>(x.r, gate, to[i * LD + n % TILE]));
    }
}

/* Sum over the 64 rows of a chunk, in threads 0..31. */
static __device__ float row_sum(float x, float *work)
{
    if (threadIdx.x < TILE) work[threadIdx.x] = x;
    __syncthreads();
    float sum = threadIdx.x < 32 ? work[threadIdx.x] + work[threadIdx.x + 32] : 0;
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    __syncthreads();
    return sum;
}

/* Gradients of one gate for all channels, of beta, and the chunk's share of those of params. */
template <typename T> static __device__ void scalar_gates_back(const recurrence &x, const back_block<T> &k)
{
    back_memory<T> *m = k.m;
    const k_recurrence &r = x.r;
    int i = threadIdx.x, t = k.at.t0 + i, there = i < TILE && t < r.T;
    float dl = 0, of_gate = 0, of_log = 0;
    __syncthreads();
    if (there) {
        dl = m->dl[i];
        for (int s = i; s < TILE; s++) dl += m->from[s];
        for (int s = 0; s < i; s++) dl += m->to[s];
        if (r.decay == K_DECAY_STEP) {
            float A = expf(r.a_log ? ((const float *)r.a_log)[k.at.h] : 0), step = m->step[i], dstep = x.stepped && step != 0 ? m->kdk[i] / step : 0;
            of_gate = x.slope[k.at.at * TILE + i] * (dstep - A * dl);
            of_log = -A * step * dl;
            if (r.dgate.p) const_cast<T *>(head_row<T>(r.dgate, k.at.b, k.at.h, t))[0] = from_float<T>(of_gate);
        }
        if (x.delta && r.dbeta.p) {
            float beta = m->beta[i], y = beta != 0 ? m->vdx[i] / beta * (1 - beta / (float)r.beta_max) : 0;
            const_cast<T *>(head_row<T>(r.dbeta, k.at.b, k.at.h, t))[0] = from_float<T>(y);
        }
    }
    __syncthreads();
    int64_t all = (int64_t)r.B * r.H * x.chunks;
    of_log = row_sum(of_log, m->from), of_gate = row_sum(of_gate, m->to);
    if (i == 0) x.dparam[k.at.at] = of_log, x.dparam[all + k.at.at] = of_gate;
}

/* The chunk's share of the gradient of d_skip: all v.d_o. */
template <typename T> static __device__ void skip_back(const recurrence &x, const back_block<T> &k)
{
    float sum = 0;
    rows_at<T> v = head_rows<T>(x, x.r.v, k.at.b, k.at.hv, x.r.E, 0);
    for (int g = 0; g < x.G; g++) {
        rows_at<T> d = head_rows<T>(x, x.r.d_o, k.at.b, reader_of(x, k.at, g).ho, x.r.E, 0);
        for (int n = threadIdx.x; n < TILE * x.r.E; n += THREADS) {
            int64_t t = k.at.t0 + n / x.r.E;
            if (t < x.r.T) sum += to_float(v.p[t * v.st + n % x.r.E]) * to_float(d.p[t * d.st + n % x.r.E]);
        }
    }
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    __syncthreads();
    if (lane_id() == 0) k.m->sums[warp_id()] = sum;
    __syncthreads();
    if (threadIdx.x == 0) x.dparam[2 * (int64_t)x.r.B * x.r.H * x.chunks + k.at.at] = k.m->sums[0] + k.m->sums[1] + k.m->sums[2] + k.m->sums[3];
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------------ */

template <typename T> static __global__ void __launch_bounds__(THREADS, sizeof(T) == 2 ? 3 : 1) chunk_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    back_block<T> k;
    back_memory<T> *m = k.m = reinterpret_cast<back_memory<T> *>(memory);
    k.at = chunk_of(x, blockIdx.x / x.chunks, blockIdx.x % x.chunks);
    load_scalars(x, k);
    for (int d = 0; d < x.DT; d++) {
        __syncthreads();
        load_dense(m->k, x.k_hat, k.at.at * x.DT + d);
        if (x.channel) load_dense(m->b[0], x.b, k.at.at * x.DT + d);
        if (threadIdx.x < TILE) m->left[threadIdx.x] = x.left[(k.at.at * x.DT + d) * TILE + threadIdx.x];
        for (int n = threadIdx.x; n < TILE * LD && x.channel; n += THREADS) m->b[1][n] = 0;
        loads_done();
        for (int c = 0; c < BLOCKS; c++) clear(k.dk[c]);
        for (int g = 0; g < x.G; g++) reader_back(x, k, g, d);
        memory_back(x, k, d);
        if (x.delta) pairs_back(x, k);
        if (x.normed) norm_back(m->k, x.k_factor + k.at.at * TILE, k.dk);
        float *dense = x.dk ? x.dk + (int64_t)k.at.unit * x.r.T * x.r.D : NULL;
        if (x.r.dk.p) put_gradient(x, k, m->S, x.r.dk, k.at.hk, x.direct_k, x.vector_k, dense, d * TILE, k.dk);
        if (x.channel) channel_gates_back(x, k, d * TILE);
    }
    if (!x.channel && (x.delta || x.r.decay != K_DECAY_FIXED)) scalar_gates_back(x, k);
    if (x.r.dd_skip) skip_back(x, k);
}

/* ---- the host's side -------------------------------------------------------------------------------------------------------- */

template <typename T> void recurrence_gradients(const recurrence &x, cudaStream_t stream)
{
    const k_recurrence &r = x.r;
    int bytes = (int)sizeof(back_memory<T>) + (x.channel ? 1 : -1) * tile_of<float>::BYTES;
    cudaFuncSetAttribute(chunk_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    chunk_kernel<T><<<r.B * r.H * x.chunks, THREADS, bytes, stream>>>(x);
}
template void recurrence_gradients<float>(const recurrence &, cudaStream_t);
template void recurrence_gradients<bf16>(const recurrence &, cudaStream_t);
