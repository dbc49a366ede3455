/* recurrence_walk.cu - fading memories through their chunks, first to last and back: products of the tiles that
 * recurrence_chunk.cu has made.  A block has one memory and 64 columns of its values, of which each warp holds 16 with
 * all rows of the memory in registers. */
#include "recurrence_rows.cuh"

/* Shared memory: three panels of DT tiles, or one that all take in turns, and these. */
template <typename T> struct walk_tiles { T v[TILE * LD], w[TILE * LD], p[TILE * LD], stage[TILE * LD]; };
template <typename T, int DT> struct walk_shape {
    enum { PANELS = DT * (int)sizeof(T) <= 4 ? 3 : 1, BYTES = (int)sizeof(walk_tiles<T>) + PANELS * DT * tile_of<T>::BYTES };
};

template <typename T, int DT> struct memory_walk {
    walk_tiles<T> *m;
    T *panel;
    int unit, strip;
    acc S[BLOCKS * DT];                 /* 16 columns of the values x 64 DT rows of the memory */
};

template <typename T, int DT> static __device__ __forceinline__ memory_walk<T, DT> walk_at(const recurrence &x, unsigned char *memory)
{
    memory_walk<T, DT> k;
    k.m = reinterpret_cast<walk_tiles<T> *>(memory);
    k.panel = reinterpret_cast<T *>(k.m + 1);
    k.unit = blockIdx.x / x.ET, k.strip = blockIdx.x % x.ET;
    return k;
}

/* Panel number n holds the chunk's tiles; where panels are shared this waits for them. */
template <typename T, int DT> static __device__ __forceinline__ T *panel_of(const memory_walk<T, DT> &k, int n)
{
    return k.panel + (walk_shape<T, DT>::PANELS > 1 ? n * DT * TILE * LD : 0);
}
template <typename T, int DT> static __device__ __forceinline__ void load_panel(const memory_walk<T, DT> &k, int n, void *tiles, int64_t at)
{
    if (walk_shape<T, DT>::PANELS == 1) __syncthreads();
    for (int d = 0; d < DT; d++) load_dense(panel_of(k, n) + d * TILE * LD, tiles, at * DT + d);
    if (walk_shape<T, DT>::PANELS == 1) loads_done();
}

/* The memory itself, [D,E] floats of a unit: row of S, column. */
template <typename T, int DT> static __device__ __forceinline__ void load_memory(const recurrence &x, memory_walk<T, DT> &k, const float *from)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS * DT; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int d = 16 * c + acc_col(n), e = k.strip * TILE + 16 * warp_id() + acc_row(n);
            k.S[c].c[n] = from && d < x.r.D && e < x.r.E ? from[((int64_t)k.unit * x.r.D + d) * x.r.E + e] : 0;
        }
    }
}
template <typename T, int DT> static __device__ __forceinline__ void store_memory(const recurrence &x, const memory_walk<T, DT> &k, float *to)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS * DT; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int d = 16 * c + acc_col(n), e = k.strip * TILE + 16 * warp_id() + acc_row(n);
            if (to && d < x.r.D && e < x.r.E) to[((int64_t)k.unit * x.r.D + d) * x.r.E + e] = k.S[c].c[n];
        }
    }
}

/* The memory as tiles, for the gradients. */
template <typename T, int DT> static __device__ __forceinline__ void keep_memory(const recurrence &x, const memory_walk<T, DT> &k, void *tiles, int64_t at)
{
    #pragma unroll
    for (int d = 0; d < DT; d++) {
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) store_acc(k.m->stage, 16 * warp_id(), 16 * c, k.S[d * BLOCKS + c]);
        store_warp_rows(tile_at<T>(tiles, (at * x.ET + k.strip) * DT + d), k.m->stage);
    }
}

/* S <- left S. */
template <typename T, int DT> static __device__ __forceinline__ void fade_memory(const recurrence &x, memory_walk<T, DT> &k, int64_t at)
{
    const float *left = x.left + at * DT * TILE;
    #pragma unroll
    for (int c = 0; c < BLOCKS * DT; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) k.S[c].c[n] *= left[16 * c + acc_col(n)];
    }
}

/* y += S' rows of a panel: 16 columns of the values x 16 rows from row on. */
template <typename T, int DT> static __device__ __forceinline__ void recall(const memory_walk<T, DT> &k, const T *panel, int row, acc &y)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS * DT; c++)
        product(y, operand<T>(k.S[c]), load_rows(panel + c / BLOCKS * TILE * LD, row, c % BLOCKS * 16));
}

/* S += by x [16 columns x 64 rows] times the rows of a panel. */
template <typename T, int DT> static __device__ __forceinline__ void record(memory_walk<T, DT> &k, const T *panel, const frag<T> x[BLOCKS], float by)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS * DT; c++) {
        acc more;
        clear(more);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) product(more, x[j], load_cols(panel + c / BLOCKS * TILE * LD, 16 * j, c % BLOCKS * 16));
        #pragma unroll
        for (int n = 0; n < 8; n++) k.S[c].c[n] += by * more.c[n];
    }
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

enum { PANEL_IN, PANEL_OUT, PANEL_QUERY };

/* X' [16 columns x 64 rows]: the values, or what delta makes of them; kept for the gradients. */
template <typename T, int DT> static __device__ __forceinline__ void find_written(const recurrence &x, const memory_walk<T, DT> &k, int64_t at, frag<T> X[BLOCKS])
{
    int e0 = 16 * warp_id();
    if (!x.delta) {
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) X[j] = load_cols(k.m->v, 16 * j, e0);
        return;
    }
    frag<T> rest[BLOCKS];
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        acc y;
        clear(y);
        recall(k, panel_of(k, PANEL_IN), 16 * j, y);
        #pragma unroll
        for (int n = 0; n < 8; n++) y.c[n] = to_float(k.m->v[(16 * j + acc_col(n)) * LD + e0 + acc_row(n)]) - y.c[n];
        rest[j] = operand<T>(y);
    }
    #pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        acc y;
        clear(y);
        #pragma unroll
        for (int j = 0; j <= i; j++) product(y, rest[j], load_rows(k.m->w, 16 * i, 16 * j));
        X[i] = operand<T>(y);
        store_acc(k.m->stage, e0, 16 * i, y);
    }
    if (x.keep) store_warp_rows(tile_at<T>(x.X, at * x.ET + k.strip), k.m->stage);
}

/* o of reader g: 64 rows x 64 columns, through the stage. */
template <typename T, int DT> static __device__ __forceinline__ void read_memory(const recurrence &x, const memory_walk<T, DT> &k, const chunk_at &at, int g,
                                                                                 const frag<T> X[BLOCKS])
{
    reader_at to = reader_of(x, at, g);
    int e0 = 16 * warp_id();
    float scale = (float)x.r.scale, skip = x.r.d_skip ? ((const float *)x.r.d_skip)[at.h] : 0;
    #pragma unroll 1
    for (int i = 0; i < BLOCKS; i++) {
        acc o;
        clear(o);
        #pragma unroll
        for (int c = 0; c < BLOCKS * DT; c++)
            product(o, load_rows(panel_of(k, PANEL_QUERY) + c / BLOCKS * TILE * LD, 16 * i, c % BLOCKS * 16), operand<T>(k.S[c]));
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++)
            if (j <= i) product(o, load_rows(k.m->p, 16 * i, 16 * j), X[j]);
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            o.c[n] *= scale;
            if (skip != 0) o.c[n] += skip * to_float(k.m->v[(16 * i + acc_row(n)) * LD + e0 + acc_col(n)]);
        }
        store_acc(k.m->stage, 16 * i, e0, o);
    }
    __syncthreads();
    T *out = (T *)x.r.o.p + at.b * x.r.o.sb + to.ho * x.r.o.sh;
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int i = n / 8, c = n % 8 * 8, t = at.t0 + i, e = k.strip * TILE + c;
        float y[8];
        if (t >= x.r.T || e >= x.r.E) continue;
        read8(k.m->stage + i * LD + c, y);
        if (x.vector_o) write8(out + t * x.r.o.st + e, y);
        else for (int j = 0; j < 8 && e + j < x.r.E; j++) out[t * x.r.o.st + e + j] = from_float<T>(y[j]);
    }
}

template <typename T, int DT> static __global__ void __launch_bounds__(THREADS) forward_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    memory_walk<T, DT> k = walk_at<T, DT>(x, memory);
    constexpr int apart = walk_shape<T, DT>::PANELS > 1;
    load_memory(x, k, (const float *)x.r.state_in);
    for (int c = 0; c < x.chunks; c++) {
        chunk_at at = chunk_of(x, k.unit, c);
        frag<T> X[BLOCKS];
        __syncthreads();
        if (x.keep) keep_memory(x, k, x.S, at.at);
        __syncthreads();
        load_tile(k.m->v, head_rows<T>(x, x.r.v, at.b, at.hv, x.r.E, x.vector_v), at.t0, k.strip * TILE);
        if (x.delta) load_dense(k.m->w, x.W, at.at);
        if (x.delta) load_panel(k, PANEL_IN, x.k_in, at.at);
        if (apart) load_panel(k, PANEL_OUT, x.k_out, at.at);
        for (int g = 0; g < x.G; g++) {
            int64_t reader = reader_of(x, at, g).at;
            if (g) __syncthreads();
            load_dense(k.m->p, x.P, reader);
            if (apart) load_panel(k, PANEL_QUERY, x.q_in, reader);
            loads_done();
            if (g == 0) find_written(x, k, at.at, X);
            if (!apart) load_panel(k, PANEL_QUERY, x.q_in, reader);
            __syncthreads();
            read_memory(x, k, at, g, X);
        }
        if (!apart) load_panel(k, PANEL_OUT, x.k_out, at.at);
        fade_memory(x, k, at.at);
        record(k, panel_of(k, PANEL_OUT), X, 1);
    }
    store_memory(x, k, (float *)x.r.state_out);
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

/* dX and R from reader g; G' = d_o' of this warp's 16 columns. */
template <typename T, int DT> static __device__ __forceinline__ void reader_back(const recurrence &x, memory_walk<T, DT> &k, int h, acc dX[BLOCKS],
                                                                                 acc direct[BLOCKS])
{
    int e0 = 16 * warp_id();
    float scale = (float)x.r.scale, skip = x.r.d_skip ? ((const float *)x.r.d_skip)[h] : 0;
    frag<T> G[BLOCKS];
    #pragma unroll
    for (int i = 0; i < BLOCKS; i++) G[i] = load_cols(k.m->v, 16 * i, e0);
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        acc y;
        clear(y);
        #pragma unroll
        for (int i = j; i < BLOCKS; i++) product(y, G[i], load_cols(k.m->p, 16 * i, 16 * j));
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            dX[j].c[n] += scale * y.c[n];
            if (skip != 0) direct[j].c[n] += skip * to_float(k.m->v[(16 * j + acc_col(n)) * LD + e0 + acc_row(n)]);
        }
    }
    record(k, panel_of(k, PANEL_QUERY), G, scale);
}

/* dV' [16 columns x 64 rows] of dX', W'dX for delta, through the stage to where it belongs. */
template <typename T, int DT> static __device__ __forceinline__ void values_back(const recurrence &x, memory_walk<T, DT> &k, const chunk_at &at, acc dX[BLOCKS],
                                                                                 const acc direct[BLOCKS])
{
    int e0 = 16 * warp_id();
    if (x.delta) {
        frag<T> y[BLOCKS];
        #pragma unroll
        for (int i = 0; i < BLOCKS; i++) y[i] = operand<T>(dX[i]);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            clear(dX[j]);
            #pragma unroll
            for (int i = j; i < BLOCKS; i++) product(dX[j], y[i], load_cols(k.m->w, 16 * i, 16 * j));
            store_acc(k.m->stage, e0, 16 * j, dX[j]);
        }
        store_warp_rows(tile_at<T>(x.dV, at.at * x.ET + k.strip), k.m->stage);
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int t = at.t0 + 16 * j + acc_col(n), e = k.strip * TILE + e0 + acc_row(n);
            float y = dX[j].c[n] + direct[j].c[n];
            if (t >= x.r.T || e >= x.r.E || !x.r.dv.p) continue;
            if (x.direct_v) ((T *)x.r.dv.p)[at.b * x.r.dv.sb + at.hv * x.r.dv.sh + t * x.r.dv.st + e] = from_float<T>(y);
            else x.dv[((int64_t)k.unit * x.r.T + t) * x.r.E + e] = y;
        }
    }
}

template <typename T, int DT> static __global__ void __launch_bounds__(THREADS) backward_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    memory_walk<T, DT> k = walk_at<T, DT>(x, memory);
    constexpr int apart = walk_shape<T, DT>::PANELS > 1;
    load_memory<T, DT>(x, k, NULL);
    for (int c = x.chunks - 1; c >= 0; c--) {
        chunk_at at = chunk_of(x, k.unit, c);
        acc dX[BLOCKS], direct[BLOCKS];
        keep_memory(x, k, x.R, at.at);
        __syncthreads();
        if (x.delta) load_dense(k.m->w, x.W, at.at);
        if (apart && x.delta) load_panel(k, PANEL_IN, x.k_in, at.at);
        load_panel(k, PANEL_OUT, x.k_out, at.at);
        for (int g = 0; g < x.G; g++) {
            reader_at from = reader_of(x, at, g);
            if (g) __syncthreads();
            load_dense(k.m->p, x.P, from.at);
            load_tile(k.m->v, head_rows<T>(x, x.r.d_o, at.b, from.ho, x.r.E, x.vector_o), at.t0, k.strip * TILE);
            if (apart) load_panel(k, PANEL_QUERY, x.q_in, from.at);
            loads_done();
            if (g == 0) {
                #pragma unroll
                for (int j = 0; j < BLOCKS; j++) {
                    clear(dX[j]), clear(direct[j]);
                    recall(k, panel_of(k, PANEL_OUT), 16 * j, dX[j]);
                }
                fade_memory(x, k, at.at);
            }
            if (!apart) load_panel(k, PANEL_QUERY, x.q_in, from.at);
            reader_back(x, k, at.h, dX, direct);
        }
        values_back(x, k, at, dX, direct);
        if (!x.delta) continue;
        if (!apart) load_panel(k, PANEL_IN, x.k_in, at.at);
        frag<T> y[BLOCKS];
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) y[j] = operand<T>(dX[j]);
        record(k, panel_of(k, PANEL_IN), y, -1);
    }
    store_memory(x, k, (float *)x.r.dstate);
}

/* ---- the host's side ------------------------------------------------------------------------------------------------------ */

template <typename T, int DT> static void launch(const recurrence &x, int back, cudaStream_t stream)
{
    auto kernel = back ? backward_kernel<T, DT> : forward_kernel<T, DT>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, walk_shape<T, DT>::BYTES);
    kernel<<<x.r.B * x.r.H * x.ET, THREADS, walk_shape<T, DT>::BYTES, stream>>>(x);
}
template <typename T> static void walk(const recurrence &x, int back, cudaStream_t stream)
{
    if (x.DT == 1) launch<T, 1>(x, back, stream);
    else if (x.DT == 2) launch<T, 2>(x, back, stream);
    else if (x.DT == 4) launch<T, 4>(x, back, stream);
    else launch<T, 6>(x, back, stream);
}

template <typename T> void recurrence_forward_walk(const recurrence &x, cudaStream_t stream) { walk<T>(x, 0, stream); }
template <typename T> void recurrence_backward_walk(const recurrence &x, cudaStream_t stream) { walk<T>(x, 1, stream); }
template void recurrence_forward_walk<float>(const recurrence &, cudaStream_t);
template void recurrence_forward_walk<bf16>(const recurrence &, cudaStream_t);
template void recurrence_backward_walk<float>(const recurrence &, cudaStream_t);
template void recurrence_backward_walk<bf16>(const recurrence &, cudaStream_t);
