/* lsh_tiles.cu - one round of LSH attention, forward and backward, in tiles of places.
 *
 * The scores of a tile are products of raw queries; the length of a key is a factor of its column.  Forward: a block
 * has a tile of queries and goes over the keys that their chunks reach, on from the maximum, sum and output of the rounds
 * before.  Backward recomputes the weights from the log-sum-exp twice: a block of queries adds to their gradient, a block
 * of keys to that of keys and values; where chunks are tiles, keys alone do it all.  A token is a query and a key: what it
 * gets as either goes to one sum, the key's part through the norm of the key.
 *
 * Floors, for N tokens that reach two chunks of 64 and width D, in float: 256 N D operations a product, two forward and five
 * backward, six times each for the parts of a float; and of memory, 3 N D floats forward, 10 N D backward in two passes.
 * 64 x 8192 tokens, D = 64, one round: 0.13 and 0.33 ms at the 780 TFLOP/s of large products, 0.10 and 0.32 ms at 4.2 TB/s. */
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

/* met [N][M], with dedup: how often row and column meet, 1 where never; turned: rows are keys.  NULL without. */
template <class T, int D, int N, int M>
__device__ static void count_meetings(const lsh &p, int unit, const token *rows, const token *columns, bool turned, uint16_t *met)
{
    for (int i = threadIdx.x; met && i < N * M; i += WORKERS<T, D>) {
        const int row = rows[i / M].number, column = columns[i % M].number;
        met[i] = row < 0 || column < 0 ? 1 : most(1, turned ? meetings(p, unit, column, row) : meetings(p, unit, row, column));
    }
}

/* The score s of a query and a key: scaled, -inf unless the one sees the other.  late: a key is seen unless its number is
 * less than so many above the query's, as numbers without sign. */
__device__ static float shaped(const token &query, const token &key, unsigned late, float scale, float s)
{
    const bool seen = (unsigned)(key.number - query.number) >= late && (unsigned)(query.chunk - key.chunk) <= 1 && query.bucket == key.bucket;
    return seen ? scale * key.inverse * s : -INFINITY;
}
__device__ static unsigned late_of(const lsh &p) { return p.causal ? 1u << 31 : 1; }

/* Scores [rows, columns] of pairs that meet more than once: shared among their meetings. */
template <int N> __device__ static void share(const uint16_t *met, float (&w)[N / 8][4])
{
    #pragma unroll
    for (int c = 0; c < N / 8; c++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            w[c][e] -= log2f((float)met[row_of(e) * N + column_of(c, e)]);
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
template <class T, int D, int N>
__device__ static void bring_both(parts_of_both<T> *parts, const both<T> &rows, const token *at, bf16 *X, bf16 *Y)
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
template <class T, int D>
__device__ static int turn_to(const lsh &p, int unit, const span &s, int place, bool asking, const both<T> &rows, const token *own,
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

/* The thread's row i of sums, alone. */
template <int D> __device__ static void part(float (&x)[D / 4], const float (&sums)[D / 8][4], int i, float factor)
{
    #pragma unroll
    for (int n = 0; n < D / 4; n++)
        x[n] = factor * sums[n / 2][2 * i + n % 2];
}

/* What the rounds before left of the thread's two rows. */
template <int D> __device__ static void go_on(const lsh &p, int unit, const token *queries, float (&top)[2], float (&sum)[2], float (&o)[D / 8][4])
{
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = queries[row_of(2 * i)].number;
        const float lse = token < 0 ? -INFINITY : p.lse[(int64_t)unit * p.T + token];
        float x[D / 4];
        if (lse == -INFINITY)
            continue;
        top[i] = lse * LOG2E;
        sum[i] = threadIdx.x % 4 == 0;
        get_row<float, D>(x, row_at<float>(p.sum_o, unit / p.H, unit % p.H, token - p.first), p.Dv, p.vec);
        #pragma unroll
        for (int n = 0; n < D / 4; n++)
            o[n / 2][2 * i + n % 2] = x[n];
    }
}

/* Q = rows of the block's queries. */
template <class T, int D> __device__ static void bring_queries(const lsh &p, int unit, const token *at, bf16 *Q)
{
    constexpr int R = OWN<T, D>;
    for (int i = threadIdx.x; i < R * D / pack<T>::N; i += ATONCE * WORKERS<T, D>) {
        pack<T> parts[ATONCE];
        fetch<T, D, R>(parts, row_at<T>(p.q, unit / p.H, unit % p.H, -p.first), p.q.st, at, i, p.Dk, p.vec);
        place<T, D, R>(Q, parts, i);
    }
}

/* Output and log-sum-exp of the thread's row i; at last a token that saw itself alone has its own value. */
template <class T, int D>
__device__ static void put_output(const lsh &p, int unit, int token, int i, bool last, float top, float all, const float (&o)[D / 8][4])
{
    const int b = unit / p.H, h = unit % p.H;
    float x[D / 4];
    if (token < 0)
        return;
    if (p.lse && threadIdx.x % 4 == 0)
        p.lse[(int64_t)unit * p.T + token] = all > 0 ? LN2 * (top + log2f(all)) : -INFINITY;
    part<D>(x, o, i, all > 0 ? 1 / all : 0);
    if (last && !(all > 0))
        get_row<T, D>(x, row_at<T>(p.v, b, h, token), p.Dv, p.vec);
    if (last)
        put_row<T, D>(row_at<T>(p.o, b, h, token - p.first), p.Dv, p.vec, x);
    else
        put_row<float, D>(row_at<float>(p.sum_o, b, h, token - p.first), p.Dv, p.vec, x);
}

/* Scores [queries, keys] of a tile. */
template <int N> __device__ static void shape(const lsh &p, const token *queries, const token *keys, const uint16_t *met, float (&w)[N / 8][4])
{
    const token me[2] = { queries[row_of(0)], queries[row_of(2)] };
    const unsigned late = late_of(p);
    #pragma unroll
    for (int c = 0; c < N / 4; c++) {
        const token key = keys[column_of(c / 2, c % 2)];
        #pragma unroll
        for (int i = 0; i < 2; i++)
            w[c / 2][2 * i + c % 2] = shaped(me[i], key, late, p.scale * LOG2E, w[c / 2][2 * i + c % 2]);
    }
    if (met)
        share<N>(met, w);
}

/* Block: a unit's tile of queries. */
template <class T, int D>
__global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 3 : 4)
forward(const __grid_constant__ lsh p, int round)
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
    bring_queries<T, D>(p, unit, queries.at, Q);
    if (round > 0)
        go_on<D>(p, unit, queries.at, top, sum, o);
    for (int n = 0, spans = keys_of(p, round, r0, R, s); n < spans; n++) for (int j = s[n].from; j < s[n].to; j += N) {
        float w[N / 8][4] = {};
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
template <int N, int R>
__device__ static void slopes(const lsh &p, const listed<R> &queries, const token *keys, const float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    const float level[2] = { queries.level[row_of(0)], queries.level[row_of(2)] };
    const float delta[2] = { queries.delta[row_of(0)], queries.delta[row_of(2)] };
    #pragma unroll
    for (int c = 0; c < N / 8; c++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            d[c][e] = power(w[c][e] - level[e / 2]) * (d[c][e] - delta[e / 2]) * keys[column_of(c, e)].inverse;
}

/* Adds x to a row of sums from column d0 on, if there is something, and puts it there, or into the row of a tensor when that
 * is all. */
template <class T, int D>
__device__ static void gather(float *sums, T *row, int d0, int width, bool vec, bool add, bool all, float (&x)[D / 4])
{
    float before[D / 4] = {};
    if (add)
        get_row<float, D>(before, sums + d0, width - d0, vec);
    #pragma unroll
    for (int n = 0; n < D / 4; n++)
        x[n] += before[n];
    if (all)
        put_row<T, D>(row + d0, width - d0, vec, x);
    else
        put_row<float, D>(sums + d0, width - d0, vec, x);
}

/* The same with a token's dq. */
template <class T, int D> __device__ static void gather_dq(const lsh &p, int unit, int token, int d0, bool add, bool all, float (&x)[D / 4])
{
    const int b = unit / p.H, h = unit % p.H;
    gather<T, D>(row_at<float>(p.sum_q, b, h, token), row_at<T>(p.dq, b, h, token), d0, p.Dk, p.vec, add, all, x);
}

/* Block: a unit's tile of queries, whose gradient it adds to. */
template <class T, int D>
__global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 2 : 3)
gradient_q(const __grid_constant__ lsh p, int round)
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
        float w[N / 8][4] = {}, d[N / 8][4] = {};
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
        float x[D / 4];
        part<D>(x, g, i, p.scale);
        if (token >= 0)
            gather_dq<T, D>(p, unit, token, 0, round > 0, false, x);
    }
}

/* Scores [keys, queries from place `from` of their list] to weights, d = v.g to ds / scale. */
template <int N, int W>
__device__ static void turned_slopes(const lsh &p, const listed<W> &queries, int from, const token *keys, const uint16_t *met,
                                     float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    const token me[2] = { keys[row_of(0)], keys[row_of(2)] };
    const unsigned late = late_of(p);
    #pragma unroll
    for (int c = 0; c < N / 4; c++) {
        const token query = queries.at[from + column_of(c / 2, c % 2)];
        #pragma unroll
        for (int i = 0; i < 2; i++)
            w[c / 2][2 * i + c % 2] = shaped(query, me[i], late, p.scale * LOG2E, w[c / 2][2 * i + c % 2]);
    }
    if (met)
        share<N>(met, w);
    #pragma unroll
    for (int c = 0; c < N / 8; c++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int at = from + column_of(c, e);
            w[c][e] = power(w[c][e] - queries.level[at]);
            d[c][e] = w[c][e] * (d[c][e] - queries.delta[at]);
        }
}

/* Which gradients a block of keys adds to. */
enum { KEYS = 1, VALUES = 2, QUERIES = 4 };

/* x = a row of dv: at last a token that saw itself alone has its output's gradient besides. */
template <class T, int D> __device__ static void put_values(const lsh &p, int unit, int token, int round, float (&x)[D / 4])
{
    const bool last = round == p.rounds - 1;
    const int b = unit / p.H, h = unit % p.H;
    float g[D / 4] = {};
    if (last && p.lse[(int64_t)unit * p.T + token] == -INFINITY)
        get_row<T, D>(g, row_at<T>(p.d_o, b, h, token), p.Dv, p.vec);
    #pragma unroll
    for (int n = 0; n < D / 4; n++)
        x[n] += g[n];
    gather<T, D>(row_at<float>(p.sum_v, b, h, token), row_at<T>(p.dv, b, h, token), 0, p.Dv, p.vec, round > 0, last, x);
}

/* x = a row of dk, the gradient of a key k = q / |q|: to that of q, (dk - k (k.dk)) / |q|. */
template <class T, int D> __device__ static void put_key(const lsh &p, int unit, const token &key, bool all, float (&x)[D / 4])
{
    float q[D / 4] = {}, along = 0;
    if (key.number >= 0)
        get_row<T, D>(q, row_at<T>(p.k, unit / p.H, unit % p.H, key.number), p.Dk, p.vec);
    #pragma unroll
    for (int n = 0; n < D / 4; n++)
        along += q[n] * x[n];
    along = quad_sum(along) * key.inverse * key.inverse;
    #pragma unroll
    for (int n = 0; n < D / 4; n++)
        x[n] = key.inverse * (x[n] - q[n] * along);
    if (key.number >= 0)
        gather_dq<T, D>(p, unit, key.number, 0, true, all, x);
}

/* The thread's two rows of the gradients of keys and values; all: this completes dq. */
template <class T, int D, int WHAT>
__device__ static void put_gradients(const lsh &p, int unit, const token *keys, int round, bool all, const float (&dk)[D / 8][4],
                                     const float (&dv)[D / 8][4])
{
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const token key = keys[row_of(2 * i)];
        float x[D / 4];
        if ((WHAT & KEYS) && p.dq.p) {
            part<D>(x, dk, i, p.scale);
            put_key<T, D>(p, unit, key, all, x);
        }
        if ((WHAT & VALUES) && p.dv.p && key.number >= 0) {
            part<D>(x, dv, i, 1);
            put_values<T, D>(p, unit, key.number, round, x);
        }
    }
}

/* slope = d [keys, queries] with the length of the key, in planes of rows of N + 8 numbers. */
template <int P, int R, int N> __device__ static void put_slopes(const token *keys, const float (&d)[N / 8][4], bf16 *slope)
{
    #pragma unroll
    for (int i = 0; i < N / 4; i++) {
        const int row = row_of(i % 2 * 2);
        const float inverse = keys[row].inverse;
        uint32_t parts[P];
        cut(inverse * d[i / 2][i % 2 * 2], inverse * d[i / 2][i % 2 * 2 + 1], parts);
        #pragma unroll
        for (int n = 0; n < P; n++)
            *(uint32_t *)(slope + (n * R + row) * (N + 8) + column_of(i / 2, 0)) = parts[n];
    }
}

/* Adds what a tile of queries gets from the keys K by their slopes, when all are there: a warp does half of the columns of 16
 * queries.  add: to something; all: this completes dq. */
template <class T, int D>
__device__ static void add_to_queries(const lsh &p, int unit, const token *queries, const bf16 *slope, const bf16 *K, bool add, bool all)
{
    const int m0 = threadIdx.x / 32 % 2 * 16, d0 = threadIdx.x / 64 * (D / 2);
    float q[D / 16][4] = {}, x[D / 8];
    __syncthreads();
    tile_tn<PLANES<T>, D, OWN<T, D>, OTHER>(q, slope, m0, K, d0);
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = queries[m0 + threadIdx.x % 32 / 4 + 8 * i].number;
        part<D / 2>(x, q, i, p.scale);
        if (token >= 0)
            gather_dq<T, D / 2>(p, unit, token, d0, add, all, x);
    }
}

/* Block: a unit's tile of keys, of which every step-th from the first on has one.  Its keys as queries get what is due to
 * them here, and with QUERIES from the tile before, which had its turn when this is not the first pass. */
template <class T, int D, int WHAT>
__global__ void __launch_bounds__(WORKERS<T, D>, D > 64 ? 1 : sizeof(T) == 4 ? 2 : 3)
gradient_k(const __grid_constant__ lsh p, int round, int first, int step)
{
    constexpr int P = PLANES<T>, R = OWN<T, D>, N = OTHER, W = WORKERS<T, D>;
    extern __shared__ __align__(16) bf16 room[];
    __shared__ listed<R> keys;
    __shared__ listed<W> queries;
    bf16 *K = room, *V = K + TILE<T, D, R>, *Q = V + TILE<T, D, R>, *G = Q + TILE<T, D, N>, *slope = G + TILE<T, D, N>;
    uint16_t *met = p.dedup ? (uint16_t *)(slope + (WHAT & QUERIES ? P * R * (N + 8) : 0)) : NULL;
    const int tiles = ceil_div(ceil_div(p.T, R) - first, step), unit = blockIdx.x / tiles, r0 = (blockIdx.x % tiles * step + first) * R;
    const int warp = threadIdx.x / 32 * 16 * PITCH<bf16, D>;
    const bool last = round == p.rounds - 1 && first == step - 1;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    const both<T> own = both_of<T>(p, unit, p.k, p.v), rows = both_of<T>(p, unit, p.q, p.d_o);
    parts_of_both<T> parts;
    span s[2];
    list<R>(p, unit, span{ round, 0, p.T, 0 }, r0, false, &keys);
    __syncthreads();
    fetch_both<T, D, R>(&parts, own, keys.at, threadIdx.x);
    bring_both<T, D, R>(&parts, own, keys.at, K, V);
    for (int n = 0, spans = queries_of(p, round, r0, R, s); n < spans; n++) for (int i0 = s[n].from; i0 < s[n].to; i0 += N) {
        float w[N / 8][4] = {}, d[N / 8][4] = {};
        const int at = turn_to<T, D>(p, unit, s[n], i0, true, rows, keys.at, &queries, &parts, Q, G, met);
        tile_nt<P, D, R, N>(w, K + warp, Q);
        if (WHAT & KEYS)
            tile_nt<P, D, R, N>(d, V + warp, G);
        turned_slopes<N>(p, queries, at, keys.at, met, w, d);
        if (WHAT & QUERIES)
            put_slopes<P, R, N>(keys.at, d, slope);
        if (WHAT & VALUES)
            tile_nn<P, D, N>(dv, w, G);
        if (WHAT & KEYS)
            tile_nn<P, D, N>(dk, d, Q);
        if (WHAT & QUERIES)
            add_to_queries<T, D>(p, unit, queries.at + at, slope, K, round > 0 || first > 0, last && i0 >= r0 + R);
    }
    if (WHAT & QUERIES)
        __syncthreads();                                    /* what was added to these keys as queries */
    put_gradients<T, D, WHAT>(p, unit, keys.at, round, last || (round == p.rounds - 1 && r0 == 0), dk, dv);
}

/* ---- launching ---------------------------------------------------------------------------------------------------- */

/* Raises the limit of shared memory, then launches blocks for so many tiles of every unit; room for numbers of tiles, and
 * for a count of every score with dedup. */
template <class T, int D, class K, class... R> static int launch(K *kernel, const lsh &p, int tiles, int numbers, cudaStream_t stream, R... rest)
{
    const int room = 2 * numbers + (p.dedup ? 2 * OWN<T, D> * OTHER : 0);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    if (tiles)
        kernel<<<(unsigned)((int64_t)p.B * p.H * tiles), WORKERS<T, D>, (size_t)room, stream>>>(p, rest...);
    return lsh_launched();
}

/* Backward.  Chunks of one tile: a tile of keys reaches the queries of two tiles, and adds to their gradient as well; first
 * every other tile, then those between, so that no two do so at once.  Else queries have a pass of their own. */
template <class T, int D> static int backward(const lsh &p, int round, cudaStream_t stream)
{
    constexpr int ALL = 2 * (TILE<T, D, OWN<T, D>> + TILE<T, D, OTHER>), SLOPES = PLANES<T> * OWN<T, D> * (OTHER + 8);
    const int tiles = ceil_div(p.T, OWN<T, D>);
    if constexpr (D == 64) {
        if (p.chunk == OWN<T, D> && !p.wrap && p.dq.p) {
            const int code = launch<T, D>(gradient_k<T, D, KEYS | VALUES | QUERIES>, p, ceil_div(tiles, 2), ALL + SLOPES, stream, round, 0, 2);
            return code ? code : launch<T, D>(gradient_k<T, D, KEYS | VALUES | QUERIES>, p, tiles / 2, ALL + SLOPES, stream, round, 1, 2);
        }
    }
    int code = p.dq.p ? launch<T, D>(gradient_q<T, D>, p, tiles, ALL, stream, round) : K_OK;
    if constexpr (D == 64)
        return code || (!p.dq.p && !p.dv.p) ? code : launch<T, D>(gradient_k<T, D, KEYS | VALUES>, p, tiles, ALL, stream, round, 0, 1);
    if constexpr (D > 64) {                                 /* registers are short */
        if (p.dq.p && !code)
            code = launch<T, D>(gradient_k<T, D, KEYS>, p, tiles, ALL, stream, round, 0, 1);
        return code || !p.dv.p ? code : launch<T, D>(gradient_k<T, D, VALUES>, p, tiles, ALL, stream, round, 0, 1);
    }
}

/* Of one type and width. */
template <class T, int D> static int run(const lsh &p, int round, bool gradient, cudaStream_t stream)
{
    return gradient ? backward<T, D>(p, round, stream)
                    : launch<T, D>(forward<T, D>, p, ceil_div(p.T, OWN<T, D>), TILE<T, D, OWN<T, D>> + 2 * TILE<T, D, OTHER>, stream, round);
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
