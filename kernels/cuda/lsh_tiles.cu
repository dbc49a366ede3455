/* lsh_tiles.cu - one round of LSH attention, forward and backward, in tiles of 64 places.
 *
 * The scores of a tile are products of raw queries; the length of a key is a factor of its column.  Forward: a block
 * has 64 queries and goes over the keys that their chunks reach, on from the maximum, sum and output of the rounds
 * before.  Backward recomputes the weights from the log-sum-exp twice: a block of 64 queries adds to their gradient, a
 * block of 64 keys to that of keys and values. */
#include "lsh.cuh"
#include "softmax_rows.cuh"

/* Tokens at N places: their numbers (-1: none), chunks, buckets, and what else a product needs of them. */
template <int N> struct listed { int token[N], chunk[N], bucket[N]; float inverse[N], level[N], delta[N]; };

/* Places of a round that a tile reaches; its chunks are called shift more. */
struct span { int round, from, to, shift; };

/* Writes down the places from `place` on; asking: as queries, which begin with token p.first. */
template <int N> __device__ static void list(const lsh &p, int unit, const span &s, int place, bool asking, listed<N> *to)
{
    const int i = threadIdx.x, at = place + i;
    if (i >= N)
        return;
    int token = at >= s.to ? -1 : p.order ? p.order[round_at(p, unit, s.round) * p.T + at] : at;
    if (asking && token < p.first)
        token = -1;
    const int64_t row = (int64_t)unit * p.T + token;
    to->token[i] = token;
    to->chunk[i] = at / p.chunk + s.shift;
    to->bucket[i] = token >= 0 && !p.across ? p.bucket[round_at(p, unit, s.round) * p.capacity + token] : 0;
    to->inverse[i] = token >= 0 ? p.inverse[row] : 0;
    if (p.delta) {
        const float lse = token >= 0 ? p.lse[row] : -INFINITY;
        to->level[i] = lse == -INFINITY ? INFINITY : lse * LOG2E;
        to->delta[i] = token >= 0 ? p.delta[row] : 0;
    }
}

/* The keys that queries from place r0 on reach in a round: their chunks and the one before; 0, 1 or 2 spans. */
__device__ static int keys_of(const lsh &p, int round, int r0, span (&s)[2])
{
    const int chunk = r0 / p.chunk, last = least(r0 + ROWS, p.T) - 1, before = (round + p.rounds - 1) % p.rounds;
    s[0] = { round, most(chunk - 1, 0) * p.chunk, least((last / p.chunk + 1) * p.chunk, p.T), 0 };
    if (p.causal && !p.order)
        s[0].to = least(s[0].to, last + 1);
    s[1] = { before, (p.chunks - 1) * p.chunk, p.T, -p.chunks };
    return p.wrap && chunk == 0 && (p.across || before == round) ? 2 : 1;
}

/* The queries that reach keys from place r0 on: in their chunks and the one after. */
__device__ static int queries_of(const lsh &p, int round, int r0, span (&s)[2])
{
    const int last = least(r0 + ROWS, p.T) - 1, after = (round + 1) % p.rounds, from = r0 / p.chunk * p.chunk;
    s[0] = { round, p.causal && !p.order ? r0 : from, least((last / p.chunk + 2) * p.chunk, p.T), 0 };
    s[1] = { after, 0, least(p.chunk, p.T), p.chunks };
    return p.wrap && last / p.chunk == p.chunks - 1 && (p.across || after == round) ? 2 : 1;
}

/* Chunk and bucket of a token. */
__device__ static int chunk_at(const lsh &p, int unit, int round, int token) { return p.chunk_of[round_at(p, unit, round) * p.T + token]; }
__device__ static int bucket_at(const lsh &p, int unit, int round, int token) { return p.bucket[round_at(p, unit, round) * p.capacity + token]; }

/* How often a query meets a key in all rounds. */
__device__ __noinline__ static int meetings(const lsh &p, int unit, int query, int key)
{
    int n = 0;
    for (int r = 0; r < p.rounds; r++) {
        const int own = chunk_at(p, unit, r, query), other = own || !p.wrap ? r : (r + p.rounds - 1) % p.rounds;
        const int back = own ? own - 1 : p.wrap ? p.chunks - 1 : -1;
        const bool alike = p.across || bucket_at(p, unit, r, query) == bucket_at(p, unit, r, key);
        n += alike && chunk_at(p, unit, r, key) == own;
        n += alike && (p.across || other == r) && chunk_at(p, unit, other, key) == back;
    }
    return n;
}

/* The score s of query i and key j: scaled, -inf unless the one sees the other; with dedup shared among their meetings. */
template <int N, int M> __device__ static float shaped(const lsh &p, int unit, const listed<N> &queries, int i, const listed<M> &keys, int j, float scale,
                                                       float s)
{
    const int me = queries.token[i], it = keys.token[j], back = queries.chunk[i] - keys.chunk[j];
    const bool seen = me >= 0 && it >= 0 && (p.causal ? it < me : it != me) && (back == 0 || back == 1) && queries.bucket[i] == keys.bucket[j];
    if (!seen)
        return -INFINITY;
    s *= scale * keys.inverse[j];
    return p.dedup ? s - log2f((float)meetings(p, unit, me, it)) : s;
}

/* Rows of the tokens of a list, for bring(). */
template <class T> struct gathered {
    const T *p;                         /* row of token 0 */
    int64_t st;
    const int *token;
    int64_t step;                       /* 0: rows lie at no one distance */
    __device__ bool there(int r) const { return token[r] >= 0; }
    __device__ const T *row(int r) const { return p + token[r] * st; }
};
template <class T> __device__ static gathered<T> rows_of(const lsh &p, const k_heads &x, int unit, int first, const int *token)
{
    return { row_at<T>(x, unit / p.H, unit % p.H, -first), x.st, token, 0 };
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

/* What the rounds before left of the thread's row i. */
template <int D> __device__ static void go_on(const lsh &p, int unit, int token, int i, float (&top)[2], float (&sum)[2], float (&o)[D / 8][4])
{
    const float lse = p.lse[(int64_t)unit * p.T + token], *row = row_at<float>(p.sum_o, unit / p.H, unit % p.H, token - p.first);
    if (lse == -INFINITY)
        return;
    top[i] = lse * LOG2E;
    sum[i] = threadIdx.x % 4 == 0;
    #pragma unroll
    for (int n = 0; n < D / 8; n++)
        #pragma unroll
        for (int e = 0; e < 2; e++)
            o[n][2 * i + e] = column_of(n, e) < p.Dv ? row[column_of(n, e)] : 0;
}

/* Output and log-sum-exp of the thread's row i; at last a token that saw itself alone has its own value. */
template <class T, int D> __device__ static void put_output(const lsh &p, int unit, int token, int i, bool last, float top, float all, const float (&o)[D / 8][4])
{
    const int b = unit / p.H, h = unit % p.H;
    const float inverse = all > 0 ? 1 / all : 0;
    if (p.lse && threadIdx.x % 4 == 0)
        p.lse[(int64_t)unit * p.T + token] = all > 0 ? LN2 * (top + log2f(all)) : -INFINITY;
    if (!last) {
        put_row<float, D>(row_at<float>(p.sum_o, b, h, token - p.first), p.Dv, i, inverse, false, o);
        return;
    }
    T *to = row_at<T>(p.o, b, h, token - p.first);
    put_row<T, D>(to, p.Dv, i, inverse, false, o);
    for (int d = threadIdx.x % 4; !(all > 0) && d < p.Dv; d += 4)
        to[d] = row_at<T>(p.v, b, h, token)[d];
}

/* Block: a unit's tile of queries. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) forward(const __grid_constant__ lsh p, int round)
{
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ listed<ROWS> queries, keys;
    T *Q = (T *)room, *K = Q + ROWS * PITCH<T, D>, *V = K + ROWS * PITCH<T, D>;
    const int tiles = ceil_div(p.T, ROWS), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * ROWS;
    float o[D / 8][4] = {}, top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0, 0 };
    span s[2];
    list<ROWS>(p, unit, span{ round, 0, p.T, 0 }, r0, true, &queries);
    if (!__syncthreads_or(threadIdx.x < ROWS && queries.token[threadIdx.x] >= 0))
        return;
    bring<T, D, ROWS>(Q, rows_of<T>(p, p.q, unit, p.first, queries.token), 0, p.Dk, p.vec);
    #pragma unroll
    for (int i = 0; i < 2; i++)
        if (round > 0 && queries.token[row_of(2 * i)] >= 0)
            go_on<D>(p, unit, queries.token[row_of(2 * i)], i, top, sum, o);
    for (int n = 0, spans = keys_of(p, round, r0, s); n < spans; n++) for (int j = s[n].from; j < s[n].to; j += ROWS) {
        float w[ROWS / 8][4] = {};
        __syncthreads();
        list<ROWS>(p, unit, s[n], j, false, &keys);
        __syncthreads();
        bring<T, D, ROWS>(K, rows_of<T>(p, p.k, unit, 0, keys.token), 0, p.Dk, p.vec);
        commit();
        bring<T, D, ROWS>(V, rows_of<T>(p, p.v, unit, 0, keys.token), 0, p.Dv, p.vec);
        commit();
        wait<1>();
        __syncthreads();
        product_nt<D, ROWS>(w, Q + threadIdx.x / 32 * 16 * PITCH<T, D>, K);
        #pragma unroll
        for (int c = 0; c < ROWS / 8; c++)
            #pragma unroll
            for (int e = 0; e < 4; e++)
                w[c][e] = shaped(p, unit, queries, row_of(e), keys, column_of(c, e), p.scale * LOG2E, w[c][e]);
        online<ROWS, D>(w, top, sum, o);
        wait<0>();
        __syncthreads();
        product_nn<D, ROWS, D>(o, w, V);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const float all = quad_sum(sum[i]);
        const int token = queries.token[row_of(2 * i)];
        if (token >= 0)
            put_output<T, D>(p, unit, token, i, round == p.rounds - 1, top[i], all, o);
    }
}

/* ---- backward ----------------------------------------------------------------------------------------------------- */

/* Columns of a tile: fewer where shared memory is short. */
template <class T, int D> constexpr int COLUMNS = sizeof(T) == 4 && D == 256 ? 32 : 64;
/* Width of what a block of keys gathers at once: wider rows take two blocks, because registers are short. */
template <int D> constexpr int PART = D < 128 ? D : 128;

/* Scores [queries, keys] to weights, d = g.v to ds / scale with the length of the key. */
template <int N> __device__ static void slopes(const lsh &p, int unit, const listed<ROWS> &queries, const listed<N> &keys, float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    #pragma unroll
    for (int c = 0; c < N / 8; c++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = row_of(e), j = column_of(c, e);
            const float weight = power(shaped(p, unit, queries, i, keys, j, p.scale * LOG2E, w[c][e]) - queries.level[i]);
            d[c][e] = weight * (d[c][e] - queries.delta[i]) * keys.inverse[j];
        }
}

/* Block: a unit's tile of queries, whose gradient it adds to. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_q(const __grid_constant__ lsh p, int round)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>;
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ listed<ROWS> queries;
    __shared__ listed<N> keys;
    T *Q = (T *)room, *G = Q + ROWS * P, *K = G + ROWS * P, *V = K + N * P;
    const int tiles = ceil_div(p.T, ROWS), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * ROWS, warp = threadIdx.x / 32 * 16 * P;
    float g[D / 8][4] = {};
    span s[2];
    list<ROWS>(p, unit, span{ round, 0, p.T, 0 }, r0, true, &queries);
    __syncthreads();
    bring<T, D, ROWS>(Q, rows_of<T>(p, p.q, unit, 0, queries.token), 0, p.Dk, p.vec);
    bring<T, D, ROWS>(G, rows_of<T>(p, p.d_o, unit, 0, queries.token), 0, p.Dv, p.vec);
    for (int n = 0, spans = keys_of(p, round, r0, s); n < spans; n++) for (int j = s[n].from; j < s[n].to; j += N) {
        float w[N / 8][4] = {}, d[N / 8][4] = {};
        __syncthreads();
        list<N>(p, unit, s[n], j, false, &keys);
        __syncthreads();
        bring<T, D, N>(K, rows_of<T>(p, p.k, unit, 0, keys.token), 0, p.Dk, p.vec);
        bring<T, D, N>(V, rows_of<T>(p, p.v, unit, 0, keys.token), 0, p.Dv, p.vec);
        commit();
        wait<0>();
        __syncthreads();
        product_nt<D, N>(w, Q + warp, K);
        product_nt<D, N>(d, G + warp, V);
        slopes<N>(p, unit, queries, keys, w, d);
        product_nn<D, N, D>(g, d, K);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = queries.token[row_of(2 * i)];
        if (token >= 0)
            put_row<float, D>(row_at<float>(p.sum_q, unit / p.H, unit % p.H, token), p.Dk, i, p.scale, round > 0, g);
    }
}

/* Block: a unit's tile of keys, and columns blockIdx.y PART on; adds to the gradients of normed keys and of values. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_k(const __grid_constant__ lsh p, int round)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>, E = PART<D>;
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ listed<ROWS> keys;
    __shared__ listed<N> queries;
    T *K = (T *)room, *V = K + ROWS * P, *Q = V + ROWS * P, *G = Q + N * P;
    const int tiles = ceil_div(p.T, ROWS), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * ROWS, warp = threadIdx.x / 32 * 16 * P, c0 = blockIdx.y * E;
    float dk[E / 8][4] = {}, dv[E / 8][4] = {};
    span s[2];
    list<ROWS>(p, unit, span{ round, 0, p.T, 0 }, r0, false, &keys);
    __syncthreads();
    bring<T, D, ROWS>(K, rows_of<T>(p, p.k, unit, 0, keys.token), 0, p.Dk, p.vec);
    bring<T, D, ROWS>(V, rows_of<T>(p, p.v, unit, 0, keys.token), 0, p.Dv, p.vec);
    for (int n = 0, spans = queries_of(p, round, r0, s); n < spans; n++) for (int i0 = s[n].from; i0 < s[n].to; i0 += N) {
        float w[N / 8][4] = {}, d[N / 8][4] = {};
        __syncthreads();
        list<N>(p, unit, s[n], i0, true, &queries);
        __syncthreads();
        bring<T, D, N>(Q, rows_of<T>(p, p.q, unit, 0, queries.token), 0, p.Dk, p.vec);
        bring<T, D, N>(G, rows_of<T>(p, p.d_o, unit, 0, queries.token), 0, p.Dv, p.vec);
        commit();
        wait<0>();
        __syncthreads();
        product_nt<D, N>(w, K + warp, Q);
        product_nt<D, N>(d, V + warp, G);
        #pragma unroll
        for (int c = 0; c < N / 8; c++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = column_of(c, e);
                w[c][e] = power(shaped(p, unit, queries, i, keys, row_of(e), p.scale * LOG2E, w[c][e]) - queries.level[i]);
                d[c][e] = w[c][e] * (d[c][e] - queries.delta[i]);
            }
        product_nn<D, N, E>(dv, w, G + c0);
        product_nn<D, N, E>(dk, d, Q + c0);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = keys.token[row_of(2 * i)], b = unit / p.H, h = unit % p.H;
        if (token >= 0 && p.dq.p)
            put_row<float, E>(row_at<float>(p.sum_k, b, h, token) + c0, p.Dk - c0, i, p.scale, round > 0, dk);
        if (token >= 0 && p.dv.p)
            put_row<float, E>(row_at<float>(p.sum_v, b, h, token) + c0, p.Dv - c0, i, 1, round > 0, dv);
    }
}

/* ---- launching ---------------------------------------------------------------------------------------------------- */

/* Raises the limit of shared memory, then launches. */
template <class K> static int launch(K *kernel, const lsh &p, int parts, size_t room, int round, cudaStream_t stream)
{
    const unsigned tiles = (unsigned)((int64_t)p.B * p.H * ceil_div(p.T, ROWS));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
    kernel<<<dim3(tiles, (unsigned)parts), THREADS, room, stream>>>(p, round);
    return lsh_launched();
}

/* Of one type and width. */
template <class T, int D> static int run(const lsh &p, int round, bool gradient, cudaStream_t stream)
{
    const size_t row = PITCH<T, D> * sizeof(T), both = (2 * ROWS + 2 * COLUMNS<T, D>) * row;
    if (!gradient)
        return launch(forward<T, D>, p, 1, 3 * ROWS * row, round, stream);
    const int code = p.dq.p ? launch(gradient_q<T, D>, p, 1, both, round, stream) : K_OK;
    return code || (!p.dq.p && !p.dv.p) ? code : launch(gradient_k<T, D>, p, ceil_div(most(p.Dk, p.Dv), PART<D>), both, round, stream);
}

/* By the wider of keys and values. */
template <class T> static int by_width(const lsh &p, int round, bool gradient, cudaStream_t stream)
{
    const int width = most(p.Dk, p.Dv);
    return width <= 64 ? run<T, 64>(p, round, gradient, stream) : width <= 128 ? run<T, 128>(p, round, gradient, stream)
                                                                               : run<T, 256>(p, round, gradient, stream);
}

int lsh_forward(const lsh &p, int round, k_dtype dtype, cudaStream_t stream)
{
    return dtype == K_BF16 ? by_width<bf16>(p, round, false, stream) : by_width<float>(p, round, false, stream);
}

int lsh_gradient(const lsh &p, int round, k_dtype dtype, cudaStream_t stream)
{
    return dtype == K_BF16 ? by_width<bf16>(p, round, true, stream) : by_width<float>(p, round, true, stream);
}
