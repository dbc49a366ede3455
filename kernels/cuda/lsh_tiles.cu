/* lsh_tiles.cu - one round of LSH attention, forward and backward, in tiles of places.
 *
 * The scores of a tile are products of raw queries; the length of a key is a factor of its column.  Forward: a block
 * has a tile of queries and goes over the keys that their chunks reach, on from the maximum, sum and output of the rounds
 * before.  Backward recomputes the weights from the log-sum-exp twice: a block of queries adds to their gradient, a block
 * of keys to that of keys and values. */
#include "lsh.cuh"
#include "lsh_tile.cuh"

/* Tokens at N places; as queries, too, their log-sum-exp in powers of two and d_o.o. */
template <int N> struct listed { token at[N]; float level[N], delta[N]; };

/* Chunks of those that are not there: nobody meets them. */
enum { NO_QUERY = -1000000000, NO_KEY = 1000000000 };

/* Places of a round that a tile reaches; its chunks are called shift more. */
struct span { int round, from, to, shift; };

/* Writes down the places from `place` on; asking: as queries, which begin with token p.first. */
template <int N> __device__ static void list(const lsh &p, int unit, const span &s, int place, bool asking, listed<N> *to)
{
    const int i = threadIdx.x, at = place + i;
    if (i >= N)
        return;
    int number = at >= s.to ? -1 : p.order ? p.order[round_at(p, unit, s.round) * p.T + at] : at;
    if (asking && number < p.first)
        number = -1;
    const int64_t row = (int64_t)unit * p.T + number;
    token t = { -1, asking ? NO_QUERY : NO_KEY, 0, 0 };
    if (number >= 0)
        t = { number, at / p.chunk + s.shift, p.across ? 0 : p.bucket[round_at(p, unit, s.round) * p.capacity + number], p.inverse[row] };
    to->at[i] = t;
    if (asking && p.delta) {
        const float lse = number >= 0 ? p.lse[row] : -INFINITY;
        to->level[i] = lse == -INFINITY ? INFINITY : lse * LOG2E;
        to->delta[i] = number >= 0 ? p.delta[row] : 0;
    }
}

/* The keys that n queries from place r0 on reach in a round: their chunks and the one before; 1 or 2 spans. */
__device__ static int keys_of(const lsh &p, int round, int r0, int n, span (&s)[2])
{
    const int chunk = r0 / p.chunk, last = least(r0 + n, p.T) - 1, before = (round + p.rounds - 1) % p.rounds;
    s[0] = { round, most(chunk - 1, 0) * p.chunk, least((last / p.chunk + 1) * p.chunk, p.T), 0 };
    if (p.causal && !p.order)
        s[0].to = least(s[0].to, last + 1);
    s[1] = { before, (p.chunks - 1) * p.chunk, p.T, -p.chunks };
    return p.wrap && chunk == 0 && (p.across || before == round) ? 2 : 1;
}

/* The queries that reach n keys from place r0 on: in their chunks and the one after. */
__device__ static int queries_of(const lsh &p, int round, int r0, int n, span (&s)[2])
{
    const int last = least(r0 + n, p.T) - 1, after = (round + 1) % p.rounds, from = r0 / p.chunk * p.chunk;
    s[0] = { round, p.causal && !p.order ? r0 : from, least((last / p.chunk + 2) * p.chunk, p.T), 0 };
    s[1] = { after, 0, least(p.chunk, p.T), p.chunks };
    return p.wrap && last / p.chunk == p.chunks - 1 && (p.across || after == round) ? 2 : 1;
}

/* Chunk and bucket of a token. */
__device__ static int chunk_at(const lsh &p, int unit, int round, int token) { return p.chunk_of[round_at(p, unit, round) * p.T + token]; }
__device__ static int bucket_at(const lsh &p, int unit, int round, int token) { return p.bucket[round_at(p, unit, round) * p.capacity + token]; }

/* How often a query meets a key in all rounds. */
__device__ static int meetings(const lsh &p, int unit, int query, int key)
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

/* met [N][M], with dedup: how often row and column meet; turned: rows are keys.  NULL without. */
template <class T, int D, int N, int M> __device__ static void count_meetings(const lsh &p, int unit, const token *rows, const token *columns, bool turned, uint16_t *met)
{
    for (int i = threadIdx.x; met && i < N * M; i += WORKERS<T, D>) {
        const int row = rows[i / M].number, column = columns[i % M].number;
        met[i] = row < 0 || column < 0 ? 1 : turned ? meetings(p, unit, column, row) : meetings(p, unit, row, column);
    }
}

/* The score s of a query and a key: scaled, -inf unless the one sees the other; shared among their meetings. */
__device__ static float shaped(const lsh &p, const token &query, const token &key, const uint16_t *met, float s)
{
    const bool seen = (p.causal ? key.number < query.number : key.number != query.number) && (unsigned)(query.chunk - key.chunk) <= 1 &&
                      query.bucket == key.bucket;
    return !seen ? -INFINITY : p.scale * LOG2E * key.inverse * s - (met ? log2f(*met) : 0);
}

/* Where rows come from and go to: x is as wide as a key, y as a value. */
template <class T> struct both { const T *x, *y; int64_t step_x, step_y; int wide_x, wide_y; bool vec; };
template <class T> __device__ static both<T> both_of(const lsh &p, int unit, const k_heads &x, const k_heads &y)
{
    const int b = unit / p.H, h = unit % p.H;
    return { row_at<T>(x, b, h, 0), row_at<T>(y, b, h, 0), x.st, y.st, p.Dk, p.Dv, p.vec };
}

/* Parts of rows under way to X and Y. */
template <class T> struct parts_of_both { pack<T> x[ATONCE], y[ATONCE]; };
template <class T, int D, int N> __device__ static void fetch_both(parts_of_both<T> *parts, const both<T> &rows, const token *at, int from)
{
    fetch<T, D, N>(parts->x, rows.x, rows.step_x, at, from, rows.wide_x, rows.vec);
    fetch<T, D, N>(parts->y, rows.y, rows.step_y, at, from, rows.wide_y, rows.vec);
}

/* X, Y = rows of N tokens, whose first parts are under way. */
template <class T, int D, int N> __device__ static void bring_both(parts_of_both<T> *parts, const both<T> &rows, const token *at, bf16 *X, bf16 *Y)
{
    for (int i = threadIdx.x; i < N * D / pack<T>::N; i += ATONCE * WORKERS<T, D>) {
        if (i >= WORKERS<T, D>)
            fetch_both<T, D, N>(parts, rows, at, i);
        place<T, D, N>(X, parts->x, i);
        place<T, D, N>(Y, parts->y, i);
    }
}

/* Turns to the tile of others at `place` of a span: brings keys and values, or as queries q and d_o, to X and Y, and counts
 * how often they meet the block's own.  They are listed by as many as there are threads; where in the list are these?  Rows
 * of the next tile of the list set out. */
template <class T, int D> __device__ static int turn_to(const lsh &p, int unit, const span &s, int place, bool asking, const both<T> &rows, const token *own,
                                                        listed<WORKERS<T, D>> *others, parts_of_both<T> *parts, bf16 *X, bf16 *Y, uint16_t *met)
{
    const int at = (place - s.from) % WORKERS<T, D>;
    __syncthreads();
    if (at == 0) {
        list<WORKERS<T, D>>(p, unit, s, place, asking, others);
        __syncthreads();
        fetch_both<T, D, OTHER>(parts, rows, others->at, threadIdx.x);
    }
    bring_both<T, D, OTHER>(parts, rows, others->at + at, X, Y);
    count_meetings<T, D, OWN<T, D>, OTHER>(p, unit, own, others->at + at, asking, met);
    __syncthreads();
    if (at + OTHER < WORKERS<T, D> && place + OTHER < s.to)
        fetch_both<T, D, OTHER>(parts, rows, others->at + at + OTHER, threadIdx.x);
    return at;
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

/* What the rounds before left of the thread's row i. */
template <int D> __device__ static void go_on(const lsh &p, int unit, int token, int i, float (&top)[2], float (&sum)[2], float (&o)[D / 8][4])
{
    const float *row = row_at<float>(p.sum_o, unit / p.H, unit % p.H, token - p.first);
    const float lse = token < 0 ? -INFINITY : p.lse[(int64_t)unit * p.T + token];
    if (lse == -INFINITY)
        return;
    top[i] = lse * LOG2E;
    sum[i] = threadIdx.x % 4 == 0;
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float2 two = two_of(row, column_of(n, 0), p.Dv, p.vec);
        o[n][2 * i] = two.x, o[n][2 * i + 1] = two.y;
    }
}

/* The thread's part of its row i: row = factor x. */
template <class T, int D> __device__ static void put_row(const lsh &p, const k_heads &to, int unit, int row, int width, int i, float factor, const float (&x)[D / 8][4])
{
    T *at = row_at<T>(to, unit / p.H, unit % p.H, row);
    #pragma unroll
    for (int n = 0; n < D / 8; n++)
        put_two(at, column_of(n, 0), width, p.vec, factor * x[n][2 * i], factor * x[n][2 * i + 1]);
}

/* Output and log-sum-exp of the thread's row i; at last a token that saw itself alone has its own value. */
template <class T, int D> __device__ static void put_output(const lsh &p, int unit, int token, int i, bool last, float top, float all, const float (&o)[D / 8][4])
{
    const float inverse = all > 0 ? 1 / all : 0;
    if (token < 0)
        return;
    if (p.lse && threadIdx.x % 4 == 0)
        p.lse[(int64_t)unit * p.T + token] = all > 0 ? LN2 * (top + log2f(all)) : -INFINITY;
    if (!last) {
        put_row<float, D>(p, p.sum_o, unit, token - p.first, p.Dv, i, inverse, o);
    } else if (all > 0) {
        put_row<T, D>(p, p.o, unit, token - p.first, p.Dv, i, inverse, o);
    } else {
        const T *own = row_at<T>(p.v, unit / p.H, unit % p.H, token);
        for (int d = threadIdx.x % 4; d < p.Dv; d += 4)
            row_at<T>(p.o, unit / p.H, unit % p.H, token - p.first)[d] = own[d];
    }
}

/* Scores [queries, keys] of a tile. */
template <int N> __device__ static void shape(const lsh &p, const token *queries, const token *keys, const uint16_t *met, float (&w)[N / 8][4])
{
    const token me[2] = { queries[row_of(0)], queries[row_of(2)] };
    #pragma unroll
    for (int c = 0; c < N / 4; c++) {
        const int j = column_of(c / 2, c % 2);
        const token key = keys[j];
        #pragma unroll
        for (int i = 0; i < 2; i++)
            w[c / 2][2 * i + c % 2] = shaped(p, me[i], key, met ? met + row_of(2 * i) * N + j : met, w[c / 2][2 * i + c % 2]);
    }
}

/* Block: a unit's tile of queries. */
template <class T, int D> __global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 3 : 4) forward(const __grid_constant__ lsh p, int round)
{
    constexpr int P = PLANES<T>, R = OWN<T, D>, N = OTHER, W = WORKERS<T, D>;
    extern __shared__ __align__(16) bf16 room[];
    __shared__ listed<R> queries;
    __shared__ listed<W> keys;
    bf16 *Q = room, *K = Q + TILE<T, D, R>, *V = K + TILE<T, D, N>;
    uint16_t *met = p.dedup ? (uint16_t *)(V + TILE<T, D, N>) : NULL;
    const int tiles = ceil_div(p.T, R), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * R;
    float o[D / 8][4] = {}, top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0, 0 };
    const both<T> rows = both_of<T>(p, unit, p.k, p.v);
    parts_of_both<T> parts;
    span s[2];
    list<R>(p, unit, span{ round, 0, p.T, 0 }, r0, true, &queries);
    if (!__syncthreads_or(threadIdx.x < R && queries.at[threadIdx.x].number >= 0))
        return;
    for (int i = threadIdx.x; i < R * D / pack<T>::N; i += ATONCE * W) {
        pack<T> parts[ATONCE];
        fetch<T, D, R>(parts, row_at<T>(p.q, unit / p.H, unit % p.H, -p.first), p.q.st, queries.at, i, p.Dk, p.vec);
        place<T, D, R>(Q, parts, i);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++)
        if (round > 0)
            go_on<D>(p, unit, queries.at[row_of(2 * i)].number, i, top, sum, o);
    for (int n = 0, spans = keys_of(p, round, r0, R, s); n < spans; n++) for (int j = s[n].from; j < s[n].to; j += N) {
        float w[N / 8][4];
        const token *key = keys.at + turn_to<T, D>(p, unit, s[n], j, false, rows, queries.at, &keys, &parts, K, V, met);
        tile_nt<P, D, R, N>(w, Q + threadIdx.x / 32 * 16 * PITCH<bf16, D>, K);
        shape<N>(p, queries.at, key, met, w);
        online<N, D>(w, top, sum, o);
        tile_nn<P, D, N>(o, w, V);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++)
        put_output<T, D>(p, unit, queries.at[row_of(2 * i)].number, i, round == p.rounds - 1, top[i], quad_sum(sum[i]), o);
}

/* ---- backward ----------------------------------------------------------------------------------------------------- */

/* Scores [queries, keys] to weights, d = g.v to ds / scale with the length of the key. */
template <int N, int R> __device__ static void slopes(const lsh &p, const listed<R> &queries, const token *keys, const float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    const float level[2] = { queries.level[row_of(0)], queries.level[row_of(2)] }, delta[2] = { queries.delta[row_of(0)], queries.delta[row_of(2)] };
    #pragma unroll
    for (int c = 0; c < N / 8; c++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            d[c][e] = power(w[c][e] - level[e / 2]) * (d[c][e] - delta[e / 2]) * keys[column_of(c, e)].inverse;
}

/* The thread's row i of x becomes factor x plus the sums of the rounds before; keep: and so do the sums. */
template <int D> __device__ static void gather(const lsh &p, const k_heads &sums, int unit, int token, int i, int width, int round, float factor, float (&x)[D / 8][4], bool keep)
{
    float *row = row_at<float>(sums, unit / p.H, unit % p.H, token);
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float2 two = round > 0 ? two_of(row, column_of(n, 0), width, p.vec) : make_float2(0, 0);
        x[n][2 * i] = factor * x[n][2 * i] + two.x, x[n][2 * i + 1] = factor * x[n][2 * i + 1] + two.y;
    }
    if (keep)
        put_row<float, D>(p, sums, unit, token, width, i, 1, x);
}

/* Block: a unit's tile of queries, whose gradient it adds to. */
template <class T, int D> __global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 2 : 3) gradient_q(const __grid_constant__ lsh p, int round)
{
    constexpr int P = PLANES<T>, R = OWN<T, D>, N = OTHER, W = WORKERS<T, D>;
    extern __shared__ __align__(16) bf16 room[];
    __shared__ listed<R> queries;
    __shared__ listed<W> keys;
    bf16 *Q = room, *G = Q + TILE<T, D, R>, *K = G + TILE<T, D, R>, *V = K + TILE<T, D, N>;
    uint16_t *met = p.dedup ? (uint16_t *)(V + TILE<T, D, N>) : NULL;
    const int tiles = ceil_div(p.T, R), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * R, warp = threadIdx.x / 32 * 16 * PITCH<bf16, D>;
    float g[D / 8][4] = {};
    const both<T> own = both_of<T>(p, unit, p.q, p.d_o), rows = both_of<T>(p, unit, p.k, p.v);
    parts_of_both<T> parts;
    span s[2];
    list<R>(p, unit, span{ round, 0, p.T, 0 }, r0, true, &queries);
    __syncthreads();
    fetch_both<T, D, R>(&parts, own, queries.at, threadIdx.x);
    bring_both<T, D, R>(&parts, own, queries.at, Q, G);
    for (int n = 0, spans = keys_of(p, round, r0, R, s); n < spans; n++) for (int j = s[n].from; j < s[n].to; j += N) {
        float w[N / 8][4], d[N / 8][4];
        const token *key = keys.at + turn_to<T, D>(p, unit, s[n], j, false, rows, queries.at, &keys, &parts, K, V, met);
        tile_nt<P, D, R, N>(w, Q + warp, K);
        tile_nt<P, D, R, N>(d, G + warp, V);
        shape<N>(p, queries.at, key, met, w);
        slopes<N>(p, queries, key, w, d);
        tile_nn<P, D, N>(g, d, K);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = queries.at[row_of(2 * i)].number;
        if (token >= 0)
            gather<D>(p, p.sum_q, unit, token, i, p.Dk, round, p.scale, g, true);
    }
}

/* Scores [keys, queries from place `from` of their list] to weights, d = v.g to ds / scale. */
template <int N, int W> __device__ static void turned_slopes(const lsh &p, const listed<W> &queries, int from, const token *keys, const uint16_t *met,
                                                             float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    const token me[2] = { keys[row_of(0)], keys[row_of(2)] };
    #pragma unroll
    for (int c = 0; c < N / 4; c++) {
        const int at = column_of(c / 2, c % 2);
        const token query = queries.at[from + at];
        const float level = queries.level[from + at], delta = queries.delta[from + at];
        #pragma unroll
        for (int i = 0; i < 2; i++) {
            const int e = 2 * i + c % 2;
            w[c / 2][e] = power(shaped(p, query, me[i], met ? met + row_of(2 * i) * N + at : met, w[c / 2][e]) - level);
            d[c / 2][e] = w[c / 2][e] * (d[c / 2][e] - delta);
        }
    }
}

/* dq of the thread's row i of keys is complete: dq = that of queries + (dk - k (k.dk)) / |x|, k = x / |x|. */
template <class T, int D> __device__ static void put_keys(const lsh &p, int unit, const token &me, int i, float (&dk)[D / 8][4])
{
    const T *x = row_at<T>(p.k, unit / p.H, unit % p.H, me.number);
    const float *sum = row_at<float>(p.sum_q, unit / p.H, unit % p.H, me.number);
    float along = 0;
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float2 two = two_of(x, column_of(n, 0), p.Dk, p.vec);
        along += dk[n][2 * i] * two.x + dk[n][2 * i + 1] * two.y;
    }
    const unsigned quad = 0xfu << threadIdx.x % 32 / 4 * 4;
    along += __shfl_xor_sync(quad, along, 1);
    along = (along + __shfl_xor_sync(quad, along, 2)) * me.inverse * me.inverse;
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float2 two = two_of(x, column_of(n, 0), p.Dk, p.vec), query = two_of(sum, column_of(n, 0), p.Dk, p.vec);
        dk[n][2 * i] = query.x + me.inverse * (dk[n][2 * i] - two.x * along);
        dk[n][2 * i + 1] = query.y + me.inverse * (dk[n][2 * i + 1] - two.y * along);
    }
    put_row<T, D>(p, p.dq, unit, me.number, p.Dk, i, 1, dk);
}

/* dv of the thread's row i is complete; a token that saw itself alone has its output's gradient besides. */
template <class T, int D> __device__ static void put_values(const lsh &p, int unit, int token, int i, float (&dv)[D / 8][4])
{
    const T *g = row_at<T>(p.d_o, unit / p.H, unit % p.H, token);
    const bool alone = p.lse[(int64_t)unit * p.T + token] == -INFINITY;
    #pragma unroll
    for (int n = 0; alone && n < D / 8; n++) {
        const float2 two = two_of(g, column_of(n, 0), p.Dv, p.vec);
        dv[n][2 * i] += two.x, dv[n][2 * i + 1] += two.y;
    }
    put_row<T, D>(p, p.dv, unit, token, p.Dv, i, 1, dv);
}

/* Which gradients a block of keys adds to: of normed keys, of values, or both. */
enum { KEYS = 1, VALUES = 2 };

/* The thread's row i of them, done when this is the last round. */
template <class T, int D, int WHAT> __device__ static void put_gradients(const lsh &p, int unit, const token &me, int i, int round, float (&dk)[D / 8][4], float (&dv)[D / 8][4])
{
    if (me.number < 0)
        return;
    if ((WHAT & KEYS) && p.dq.p) {
        gather<D>(p, p.sum_k, unit, me.number, i, p.Dk, round, p.scale, dk, round < p.rounds - 1);
        if (round == p.rounds - 1)
            put_keys<T, D>(p, unit, me, i, dk);
    }
    if ((WHAT & VALUES) && p.dv.p) {
        gather<D>(p, p.sum_v, unit, me.number, i, p.Dv, round, 1, dv, round < p.rounds - 1);
        if (round == p.rounds - 1)
            put_values<T, D>(p, unit, me.number, i, dv);
    }
}

/* Block: a unit's tile of keys. */
template <class T, int D, int WHAT> __global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 2 : 3) gradient_k(const __grid_constant__ lsh p, int round)
{
    constexpr int P = PLANES<T>, R = OWN<T, D>, N = OTHER, W = WORKERS<T, D>;
    extern __shared__ __align__(16) bf16 room[];
    __shared__ listed<R> keys;
    __shared__ listed<W> queries;
    bf16 *K = room, *V = K + TILE<T, D, R>, *Q = V + TILE<T, D, R>, *G = Q + TILE<T, D, N>;
    uint16_t *met = p.dedup ? (uint16_t *)(G + TILE<T, D, N>) : NULL;
    const int tiles = ceil_div(p.T, R), unit = blockIdx.x / tiles, r0 = blockIdx.x % tiles * R, warp = threadIdx.x / 32 * 16 * PITCH<bf16, D>;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    const both<T> own = both_of<T>(p, unit, p.k, p.v), rows = both_of<T>(p, unit, p.q, p.d_o);
    parts_of_both<T> parts;
    span s[2];
    list<R>(p, unit, span{ round, 0, p.T, 0 }, r0, false, &keys);
    __syncthreads();
    fetch_both<T, D, R>(&parts, own, keys.at, threadIdx.x);
    bring_both<T, D, R>(&parts, own, keys.at, K, V);
    for (int n = 0, spans = queries_of(p, round, r0, R, s); n < spans; n++) for (int i0 = s[n].from; i0 < s[n].to; i0 += N) {
        float w[N / 8][4], d[N / 8][4] = {};
        const int at = turn_to<T, D>(p, unit, s[n], i0, true, rows, keys.at, &queries, &parts, Q, G, met);
        tile_nt<P, D, R, N>(w, K + warp, Q);
        if (WHAT & KEYS)
            tile_nt<P, D, R, N>(d, V + warp, G);
        turned_slopes<N>(p, queries, at, keys.at, met, w, d);
        if (WHAT & VALUES)
            tile_nn<P, D, N>(dv, w, G);
        if (WHAT & KEYS)
            tile_nn<P, D, N>(dk, d, Q);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++)
        put_gradients<T, D, WHAT>(p, unit, keys.at[row_of(2 * i)], i, round, dk, dv);
}

/* ---- launching ---------------------------------------------------------------------------------------------------- */

/* Raises the limit of shared memory, then launches: numbers of tiles, and a byte pair for every score with dedup. */
template <class T, int D, class K> static int launch(K *kernel, const lsh &p, int numbers, int round, cudaStream_t stream)
{
    const unsigned tiles = (unsigned)((int64_t)p.B * p.H * ceil_div(p.T, OWN<T, D>));
    const int room = 2 * numbers + (p.dedup ? 2 * OWN<T, D> * OTHER : 0);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    kernel<<<tiles, WORKERS<T, D>, (size_t)room, stream>>>(p, round);
    return lsh_launched();
}

/* Of one type and width. */
template <class T, int D> static int run(const lsh &p, int round, bool gradient, cudaStream_t stream)
{
    constexpr int OWNS = TILE<T, D, OWN<T, D>>, OTHERS = TILE<T, D, OTHER>, ALL = 2 * (OWNS + OTHERS);
    if (!gradient)
        return launch<T, D>(forward<T, D>, p, OWNS + 2 * OTHERS, round, stream);
    int code = p.dq.p ? launch<T, D>(gradient_q<T, D>, p, ALL, round, stream) : K_OK;
    if constexpr (D < 128)
        return code || (!p.dq.p && !p.dv.p) ? code : launch<T, D>(gradient_k<T, D, KEYS | VALUES>, p, ALL, round, stream);
    if constexpr (D >= 128) {                               /* registers are short */
        if (p.dq.p && !code)
            code = launch<T, D>(gradient_k<T, D, KEYS>, p, ALL, round, stream);
        return code || !p.dv.p ? code : launch<T, D>(gradient_k<T, D, VALUES>, p, ALL, round, stream);
    }
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
