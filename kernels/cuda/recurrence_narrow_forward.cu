/* recurrence_narrow_forward.cu - fading memories of at most 64 x 64 from the first token to the last: a block has one. */
#include "recurrence_narrow.cuh"

/* Shared memory, what a kind needs of it.  Outputs take the place of the values on their way out. */
template <typename T, int KIND> struct forward_tiles { T q[TILE * LD], k[TILE * LD], v[TILE * LD], P[TILE * LD]; token_numbers tokens; };
template <typename T> struct forward_tiles<T, EACH> {
    T q[TILE * LD], k[TILE * LD], v[TILE * LD], P[TILE * LD];
    union { T gate[TILE * LD]; float b[TILE * LD]; };
    channel_numbers<1> channels;
};
template <typename T> struct forward_tiles<T, DELTA> {
    T q[TILE * LD], k[TILE * LD], v[TILE * LD], P[TILE * LD], A[TILE * LD], stage[TILE * LD];
    token_numbers tokens;
};

/* The tiles of reader g and what the gates make of their rows; those of the keys for the first one, and where they fade
 * by channels again for each. */
template <typename T, int KIND> static __device__ __forceinline__ void load_chunk(const recurrence &x, const chunk_at &k, int g,
                                                                                  forward_tiles<T, KIND> *m)
{
    load_tile(m->q, head_rows<T>(x, x.r.q, k.b, reader_of(x, k, g).hq, x.r.D, x.vector_q), k.t0, 0);
    if (g == 0) load_tile(m->v, head_rows<T>(x, x.r.v, k.b, k.hv, x.r.E, x.vector_v), k.t0, 0);
    if (g == 0 || KIND == EACH) load_tile(m->k, head_rows<T>(x, x.r.k, k.b, k.hk, x.r.D, x.vector_k), k.t0, 0);
    if constexpr (KIND == EACH) load_tile(m->gate, head_rows<T>(x, x.r.gate, k.b, k.h, x.r.D, x.vector_gate), k.t0, 0);
    else if (g == 0) find_tokens<T>(x, k, &m->tokens);
    loads_done();
}

/* Its scores. */
template <typename T> static __device__ __forceinline__ void find_chunk(const recurrence &x, const chunk_at &k, int g, forward_tiles<T, EACH> *m)
{
    float2 b[team<1>::ROWS];
    int steep = find_channels<T, 1>(x, k, m->gate, &m->channels, b);
    if (steep) {
        keep_sums<1>(m->b, b);
        steep_scores(m->q, m->k, m->b, m->P, m->P);
    }
    fade_tile<T, 1>(m->q, b, make_float2(0, 0), 1);
    fade_tile<T, 1>(m->k, b, steep ? end_of(&m->channels) : make_float2(0, 0), -1);
    __syncthreads();
    if (!steep) find_scores<T, EACH, 1>(x, m->q, m->k, NULL, m->P);
}
template <typename T> static __device__ __forceinline__ void find_chunk(const recurrence &x, const chunk_at &k, int g, forward_tiles<T, ONE> *m)
{
    find_reader<T, ONE, 1>(x, g, m, NULL);
}
template <typename T> static __device__ __forceinline__ void find_chunk(const recurrence &x, const chunk_at &k, int g, forward_tiles<T, DELTA> *m)
{
    find_reader<T, DELTA, 1>(x, g, m, reinterpret_cast<float *>(m->stage + 16 * warp_id() * LD));
}

/* X' of the warp: the values, or what delta makes of them, which is kept for backward. */
template <typename T, int KIND> static __device__ __forceinline__ void find_written(const recurrence &x, const chunk_at &k, forward_tiles<T, KIND> *m,
                                                                                    const acc S[BLOCKS], frag<T> X[BLOCKS])
{
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) X[j] = load_cols(m->v, 16 * j, 16 * warp_id());
    if constexpr (KIND == DELTA) {
        frag<T> s[BLOCKS];
        acc y[BLOCKS];
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) s[c] = operand<T>(S[c]);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            acc v = numbers(X[j]);
            y[j] = rows_product(s, m->k, j);
            #pragma unroll
            for (int n = 0; n < 8; n++) {
                int t = 16 * j + acc_col(n);
                y[j].c[n] = m->tokens.beta[t] * (v.c[n] - m->tokens.in[t] * y[j].c[n]);
            }
        }
        solve(m->A, y, X);
        if (!x.keep) return;
        store_own_rows(m->stage, y);
        store_warp_rows(tile_at<T>(x.X, k.at), m->stage);
    }
}

/* o of reader g: the warp's columns of all rows. */
template <typename T, int KIND> static __device__ __forceinline__ void read_memory(const recurrence &x, const chunk_at &k, int g, forward_tiles<T, KIND> *m,
                                                                                   const acc S[BLOCKS], const frag<T> X[BLOCKS])
{
    int e0 = 16 * warp_id();
    float scale = (float)x.r.scale, skip = x.r.d_skip ? ((const float *)x.r.d_skip)[k.h] : 0;
    frag<T> s[BLOCKS];
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) s[c] = operand<T>(S[c]);
    #pragma unroll 1
    for (int i = 0; i < BLOCKS; i++) {
        acc o;
        clear(o);
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) product(o, load_rows(m->q, 16 * i, 16 * c), s[c]);
        if constexpr (KIND != EACH) {
            #pragma unroll
            for (int n = 0; n < 8; n++) o.c[n] *= m->tokens.in[16 * i + acc_row(n)];
        }
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++)
            if (j <= i) product(o, load_rows(m->P, 16 * i, 16 * j), X[j]);
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            o.c[n] *= scale;
            if (skip != 0) o.c[n] += skip * to_float(m->v[(16 * i + acc_row(n)) * LD + e0 + acc_col(n)]);
        }
        store_acc(m->v, 16 * i, e0, o);
    }
    reader_at to = reader_of(x, k, g);
    put_columns(x, (T *)x.r.o.p + k.b * x.r.o.sb + to.ho * x.r.o.sh, x.r.o.st, x.vector_o, k.t0, m->v);
}

/* S <- left S + what the tokens write. */
template <typename T, int KIND> static __device__ __forceinline__ void write_chunk(forward_tiles<T, KIND> *m, acc S[BLOCKS], frag<T> X[BLOCKS])
{
    if constexpr (KIND == EACH) write_memory<T, KIND>(S, X, m->k, m->channels.left, m->channels.after);
    else {
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            acc y = numbers(X[j]);
            #pragma unroll
            for (int n = 0; n < 8; n++) y.c[n] *= m->tokens.out[16 * j + acc_col(n)];
            X[j] = operand<T>(y);
        }
        write_memory<T, KIND>(S, X, m->k, m->tokens.in + TILE - 1, NULL);
    }
}

template <typename T, int KIND>
static __global__ void __launch_bounds__(THREADS, sizeof(T) == 2 ? 4 : 2) forward_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    forward_tiles<T, KIND> *m = reinterpret_cast<forward_tiles<T, KIND> *>(memory);
    int unit = blockIdx.x;
    acc S[BLOCKS];
    load_memory(x, unit, x.r.state_in, S);
    for (int c = 0; c < x.chunks; c++) {
        chunk_at at = chunk_of(x, unit, c);
        frag<T> X[BLOCKS];
        __syncthreads();
        if (x.keep) {
            store_own_rows(m->P, S);
            store_warp_rows(tile_at<T>(x.S, at.at), m->P);
        }
        for (int g = 0; g < x.G; g++) {
            if (g) __syncthreads();
            load_chunk(x, at, g, m);
            find_chunk(x, at, g, m);
            __syncthreads();
            if (g == 0) find_written(x, at, m, S, X);
            read_memory(x, at, g, m, S, X);
        }
        write_chunk(m, S, X);
    }
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) store_memory_block(x, unit, x.r.state_out, c, S[c]);
}

/* ---- the host's side ------------------------------------------------------------------------------------------------------ */

template <typename T, int KIND> static void launch(const recurrence &x, cudaStream_t stream)
{
    cudaFuncSetAttribute(forward_kernel<T, KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(forward_tiles<T, KIND>));
    forward_kernel<T, KIND><<<x.r.B * x.r.H, THREADS, sizeof(forward_tiles<T, KIND>), stream>>>(x);
}
template <typename T> void recurrence_narrow_forward(const recurrence &x, cudaStream_t stream)
{
    if (x.delta) launch<T, DELTA>(x, stream);
    else if (x.channel) launch<T, EACH>(x, stream);
    else launch<T, ONE>(x, stream);
}
template void recurrence_narrow_forward<float>(const recurrence &, cudaStream_t);
template void recurrence_narrow_forward<bf16>(const recurrence &, cudaStream_t);
