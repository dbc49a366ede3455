/* attention_tiles.cu - softmax attention over any set, in tiles: the general rung, for every chip from sm_80 on.
 *
 * Forward: a block has 64 queries of a view and goes over the tiles of keys that they see, pass by pass, with a running
 * maximum and sum.  Backward recomputes the weights from the log-sum-exp twice, so that no sum crosses blocks: a block
 * of 64 queries gathers dq over keys, a block of 64 keys gathers dk and dv over queries (transposed tiles, the same
 * code).  Tiles that nobody sees are not read, tiles inside every interval are not masked. */
#include "attention.cuh"
#include "softmax_rows.cuh"

/* ---- where a block is ------------------------------------------------------------------------------------------- */

struct place { int b, h, split, r0; view rows; };

/* Block x of a stage: split, then tile, then head, then batch row.  Tiles of queries begin with the last, which see
 * most keys when causal. */
__device__ static place place_of(const attention &a, stage s, bool keys, int splits)
{
    const int first = keys ? 0 : a.first, n = keys ? a.Tk : a.Tq, H = keys ? a.Hk : a.Hq;
    const cut c = cut_of(a.mask, s, first, n);
    const int each = ceil_div(c.rows, ROWS), tiles = c.views * each;
    unsigned x = blockIdx.x;
    place p;
    p.split = x % splits;
    x /= splits;
    const int tile = keys ? x % tiles : tiles - 1 - x % tiles;
    x /= tiles;
    p.h = x % H;
    p.b = x / H;
    p.r0 = tile % each * ROWS;
    p.rows = view_of(a.mask, s, keys, first, n, tile / each);
    return p;
}

/* Of the mask's functions, which are long, one copy. */
__device__ __noinline__ static seen sees_in(const k_mask &m, int n, int head, int p) { return sees(m, n, head, p); }
__device__ __noinline__ static int position_in(const view &v, int r) { return position(v, r); }

/* Rows of a tensor, in the order of a view. */
template <class T> struct source {
    const T *p;                         /* the row at position 0, there or not */
    int64_t st, step;                   /* from position to position; from row to row, 0: at no one distance */
    view v;
    int end;                            /* rows v.begin .. end - 1 are there */
    __device__ bool there(int r) const { return r >= v.begin && r < end; }
    __device__ const T *row(int r) const { return p + position(v, r) * st; }
};

/* Of head h of x [B,H,T,D], whose row 0 is at position `first`. */
template <class T> __device__ static source<T> source_of(const k_heads &x, int b, int h, int first, const view &v, int end)
{
    return { row_at<T>(x, b, h, 0) - first * x.st, x.st, v.run == K_FAR ? x.st : v.run == 1 ? v.step * x.st : 0, v, end };
}

/* The same of keys (at 0) or values (at Dk), those before position a.held from the state. */
template <class T> struct held_source : source<T> {
    const T *held;                      /* row 0 of this head in the state */
    const attention *a;
    int pass;
    __device__ const T *row(int r) const
    {
        const int j = position(this->v, r), each = a->mask.summary_len * a->mask.summary_slots, l = a->mask.length;
        if (j >= a->held)
            return this->p + j * this->st;
        const int at = a->mask.kind == K_MASK_FIXED && pass > 0 ? a->ring + j / l * each + j % l - (l - each) : j % a->ring;
        return held + (int64_t)at * (a->Dk + a->Dv);
    }
};
template <class T>
__device__ static held_source<T> keys_source(const attention &a, const k_heads &x, int b, int h, const view &v, int end, int pass, int at)
{
    held_source<T> s;
    (source<T> &)s = source_of<T>(x, b, h, a.held, v, end);
    s.held = (const T *)a.state + (int64_t)(b * a.Hk + h) * a.rows * (a.Dk + a.Dv) + at;
    s.step = a.held ? 0 : s.step;
    s.a = &a;
    s.pass = pass;
    return s;
}

/* Slope of head h in powers of two, as kernels/rope.h defines it. */
__device__ static float slope_of(const attention &a, int h)
{
    if (!a.alibi)
        return 0;
    const int P = a.alibi;
    return LOG2E * exp2f(h < P ? -8.f * (h + 1) / P : -4.f * (2 * (h - P) + 1) / P);
}

/* ---- rows of queries over keys ------------------------------------------------------------------------------------ */

/* What the queries of a block see in a pass: each thread's two rows, and all rows together. */
struct sight {
    view keys;
    int from, to;                       /* rows of keys that some query sees */
    int sure_from, sure_to;             /* rows that every query sees */
    int row_from[2], row_to[2];         /* rows that the thread's queries see */
};

/* Position of the thread's row i, and whether there is such a query. */
__device__ static bool own_row(const place &p, int i, int *at)
{
    const int r = p.r0 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
    *at = position(p.rows, r);
    return r >= p.rows.begin && r < p.rows.n;
}

/* In pass n. */
__device__ static sight look(const attention &a, const place &p, int n, int keys)
{
    const int begin = most(p.r0, p.rows.begin), end = least(p.r0 + ROWS, p.rows.n) - 1;
    const seen first = sees_in(a.mask, n, p.h, position(p.rows, begin)), last = sees_in(a.mask, n, p.h, position(p.rows, end));
    sight s;
    s.keys = keys_of(a.mask, n, first, keys);
    s.from = rows_before(s.keys, first.from);
    s.to = rows_before(s.keys, last.to);
    s.sure_from = rows_before(s.keys, last.from);
    s.sure_to = rows_before(s.keys, first.to);
    if (begin > end)
        s.from = s.to = 0;
    for (int i = 0; i < 2; i++) {
        int at;
        const bool there = own_row(p, i, &at);
        const seen own = sees_in(a.mask, n, p.h, at);
        s.row_from[i] = rows_before(s.keys, own.from);
        s.row_to[i] = there ? rows_before(s.keys, own.to) : 0;
    }
    return s;
}

/* Scores of N rows of keys from j on, in powers of two: scaled, biased, -inf where a query sees nothing.  at and where:
 * positions of the thread's queries and, if there is a slope, of the keys. */
template <int N>
__device__ static void shape(const sight &v, int j, float scale, float slope, const int (&at)[2], const int (&where)[N], float (&s)[N / 8][4])
{
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] *= scale;
    if (slope != 0)
        #pragma unroll
        for (int n = 0; n < N / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++)
                s[n][e] -= slope * abs(at[e / 2] - where[8 * n + threadIdx.x % 4 * 2 + e % 2]);
    if (v.sure_from <= j && j + N <= v.sure_to)
        return;
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = e / 2, c = j + 8 * n + threadIdx.x % 4 * 2 + e % 2;
            s[n][e] = c >= v.row_from[i] && c < v.row_to[i] ? s[n][e] : -INFINITY;
        }
}

/* The positions of N rows of keys from j on. */
template <int N> __device__ static void locate(const view &v, int j, int (&where)[N])
{
    if (threadIdx.x < N)
        where[threadIdx.x] = position_in(v, j + threadIdx.x);
}

/* o and lse of the thread's rows, or of the block's slot. */
template <class T, int D> __device__ static void put_output(const attention &a, const place &p, int slot, const float (&top)[2],
                                                            const float (&sum)[2], const float (&o)[D / 8][4])
{
    const int64_t plane = (int64_t)a.B * a.Hq * a.Tq, head = ((int64_t)p.b * a.Hq + p.h) * a.Tq;
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        int at;
        const float all = quad_sum(sum[i]), inverse = all > 0 ? 1 / all : 0;
        if (!own_row(p, i, &at))
            continue;
        const int64_t row = head + at - a.first;
        const float lse = all > 0 ? LN2 * (top[i] + log2f(all)) : -INFINITY;
        float *to = a.slots > 1 ? a.part_lse + slot * plane + row : a.lse ? a.lse + row : nullptr;
        if (to && threadIdx.x % 4 == 0)
            *to = lse;
        if (a.slots > 1)
            put_row<float, D>(a.part + (slot * plane + row) * a.Dv, a.Dv, i, inverse, false, o);
        else
            put_row<T, D>(row_at<T>(a.o, p.b, p.h, at - a.first), a.Dv, i, inverse, false, o);
    }
}

/* What a thread knows of its two queries, and gathers for them. */
template <int D> struct answers { int at[2]; float o[D / 8][4], top[2], sum[2]; };

/* The tiles of one pass that belong to the block's split.  Values come while scores are summed, the next keys while
 * scores become weights. */
template <class T, int D> __device__ static void over_keys(const attention &a, const place &p, int n, const sight &v, T *Q, T *K, T *V,
                                                           int (&where)[ROWS], answers<D> &x)
{
    const int hk = p.h / (a.Hq / a.Hk);
    const float slope = slope_of(a, p.h), scale = a.scale * LOG2E;
    const int64_t tiles = ceil_div(v.to - v.from, ROWS);
    const int from = v.from + tiles * p.split / a.splits * ROWS, to = least(v.to, v.from + tiles * (p.split + 1) / a.splits * ROWS);
    const held_source<T> keys = keys_source<T>(a, a.k, p.b, hk, v.keys, to, n, 0), values = keys_source<T>(a, a.v, p.b, hk, v.keys, to, n, a.Dk);
    if (from < to)
        bring<T, D, ROWS>(K, keys, from, a.Dk, a.vec);
    commit();
    for (int j = from; j < to; j += ROWS) {
        float w[ROWS / 8][4] = {};
        wait<0>();
        __syncthreads();
        bring<T, D, ROWS>(V, values, j, a.Dv, a.vec);
        commit();
        if (slope != 0)
            locate(v.keys, j, where);
        product_nt<D, ROWS>(w, Q + threadIdx.x / 32 * 16 * PITCH<T, D>, K);
        wait<0>();
        __syncthreads();
        if (j + ROWS < to)
            bring<T, D, ROWS>(K, keys, j + ROWS, a.Dk, a.vec);
        commit();
        shape<ROWS>(v, j, scale, slope, x.at, where, w);
        online<ROWS, D>(w, x.top, x.sum, x.o);
        product_nn<D, ROWS, D>(x.o, w, V);
    }
}

/* The passes of stage s; slot: that of its split 0. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) forward(const __grid_constant__ attention a, stage s, int slot)
{
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ int where[ROWS];
    T *Q = (T *)room, *K = Q + ROWS * PITCH<T, D>, *V = K + ROWS * PITCH<T, D>;
    const place p = place_of(a, s, false, a.splits);
    const int keys = keys_there(a, p.b);
    answers<D> x = { {}, {}, { -INFINITY, -INFINITY }, {} };
    own_row(p, 0, &x.at[0]), own_row(p, 1, &x.at[1]);
    bring<T, D, ROWS>(Q, source_of<T>(a.q, p.b, p.h, a.first, p.rows, p.rows.n), p.r0, a.Dk, a.vec);
    for (int n = s.from; n < s.to; n++)
        if (has_pass(a.mask, n, p.h))
            over_keys<T, D>(a, p, n, look(a, p, n, keys), Q, K, V, where, x);
    put_output<T, D>(a, p, slot + p.split, x.top, x.sum, x.o);
}

/* ---- gradients: what both kinds of rows share ----------------------------------------------------------------------- */

/* Columns of a tile: fewer where shared memory is short. */
template <class T, int D> constexpr int COLUMNS = sizeof(T) == 4 && D == 256 ? 32 : 64;
/* Width of what a block of keys gathers at once: wider rows take two blocks, because registers are short. */
template <int D> constexpr int PART = D < 128 ? D : 128;

/* Columns c0 .. of row (b,h,t) of a gradient, or of its sum [B,H,T,width]. */
template <class T, int E> __device__ static void put_gradient(const k_heads &x, float *sum, int b, int h, int H, int t, int n, int width,
                                                              int c0, bool add, int i, float factor, const float (&g)[E / 8][4])
{
    if (sum)
        put_row<float, E>(sum + (((int64_t)b * H + h) * n + t) * width + c0, width - c0, i, factor, add, g);
    else
        put_row<T, E>(row_at<T>(x, b, h, t) + c0, width - c0, i, factor, false, g);
}

/* What a thread knows of its two queries, and gathers for them. */
template <int D> struct askers { int at[2]; float level[2], delta[2], dq[D / 8][4]; };

/* Scores of query rows to weights, and d from d_o.v to the gradient of the scores. */
template <int N, int D> __device__ static void differentiate(const askers<D> &x, float (&w)[N / 8][4], float (&d)[N / 8][4])
{
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            w[n][e] = power(w[n][e] - x.level[e / 2]);
            d[n][e] = w[n][e] * (d[n][e] - x.delta[e / 2]);
        }
}

/* The tiles of one pass; Q and G are there, K and V are rooms. */
template <class T, int D> __device__ static void back_over_keys(const attention &a, const place &p, const sight &v, T *Q, T *G, T *K, T *V,
                                                                int (&where)[COLUMNS<T, D>], askers<D> &x)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>;
    const int hk = p.h / (a.Hq / a.Hk), warp = threadIdx.x / 32 * 16 * P;
    const float slope = slope_of(a, p.h), scale = a.scale * LOG2E;
    const source<T> keys = source_of<T>(a.k, p.b, hk, 0, v.keys, v.to), values = source_of<T>(a.v, p.b, hk, 0, v.keys, v.to);
    for (int j = v.from; j < v.to; j += N) {
        float w[N / 8][4] = {}, d[N / 8][4] = {};
        __syncthreads();
        bring<T, D, N>(K, keys, j, a.Dk, a.vec);
        bring<T, D, N>(V, values, j, a.Dv, a.vec);
        commit();
        if (slope != 0)
            locate(v.keys, j, where);
        wait<0>();
        __syncthreads();
        product_nt<D, N>(w, Q + warp, K);
        product_nt<D, N>(d, G + warp, V);
        shape<N>(v, j, scale, slope, x.at, where, w);
        differentiate<N, D>(x, w, d);
        product_nn<D, N, D>(x.dq, d, K);
    }
}

/* dq of a block of queries; add: to what the stage before left. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_q(const __grid_constant__ attention a, stage s, bool add)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>;
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ int where[N];
    T *Q = (T *)room, *G = Q + ROWS * P, *K = G + ROWS * P, *V = K + N * P;
    const place p = place_of(a, s, false, 1);
    const int keys = keys_there(a, p.b);
    askers<D> x = {};
    for (int i = 0; i < 2; i++) {
        const bool there = own_row(p, i, &x.at[i]);
        const int64_t row = ((int64_t)p.b * a.Hq + p.h) * pitch_of(a.Tq) + x.at[i] - a.first;
        x.level[i] = there ? a.level[row] : INFINITY;
        x.delta[i] = there ? a.delta[row] : 0;
    }
    bring<T, D, ROWS>(Q, source_of<T>(a.q, p.b, p.h, a.first, p.rows, p.rows.n), p.r0, a.Dk, a.vec);
    bring<T, D, ROWS>(G, source_of<T>(a.d_o, p.b, p.h, a.first, p.rows, p.rows.n), p.r0, a.Dv, a.vec);
    for (int n = s.from; n < s.to; n++)
        if (has_pass(a.mask, n, p.h))
            back_over_keys<T, D>(a, p, look(a, p, n, keys), Q, G, K, V, where, x);
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        int t;
        if (own_row(p, i, &t))
            put_gradient<T, D>(a.dq, a.sum_q, p.b, p.h, a.Hq, t - a.first, a.Tq, a.Dk, 0, add, i, a.scale, x.dq);
    }
}

/* ---- rows of keys over queries ---------------------------------------------------------------------------------------- */

/* Queries as a block of keys knows them. */
template <int N> struct crowd { seen sees[N]; float level[N], delta[N]; int at[N]; };

/* The queries in rows r0 .. of a view, for keys up to `keys`; beyond its end they have no weight. */
template <int N> __device__ static void meet(const attention &a, const view &v, int pass, int b, int h, int r0, int keys, crowd<N> *ask)
{
    for (int i = threadIdx.x; i < N; i += THREADS) {
        const bool there = r0 + i < v.n;
        const int at = there ? position_in(v, r0 + i) : 0;
        const int64_t row = ((int64_t)b * a.Hq + h) * pitch_of(a.Tq) + at - a.first;
        ask->at[i] = at;
        ask->level[i] = there ? a.level[row] : INFINITY;
        ask->delta[i] = there ? a.delta[row] : 0;
        ask->sees[i] = there ? sees_in(a.mask, pass, h, at) : seen{ 0, 0, 0, 0 };
        ask->sees[i].to = least(ask->sees[i].to, keys);
    }
}

/* Whether all queries in rows r0 .. see all of a whole block of keys from .. to, or none of them any (0 and -1: some). */
template <int N> __device__ static int all_or_none(const attention &a, const view &v, int pass, int h, int r0, int keys, int from, int to)
{
    const seen first = sees_in(a.mask, pass, h, position_in(v, r0)), last = sees_in(a.mask, pass, h, position_in(v, least(r0 + N, v.n) - 1));
    const k_mask &m = a.mask;
    const bool alike = m.kind != K_MASK_IMAGE && (m.kind != K_MASK_FIXED || pass == 0 || m.summary_slots == 1);
    if (last.to <= from || first.from > to)
        return 0;
    return alike && last.from <= from && to < least(first.to, keys) ? 1 : -1;
}

/* Scores [keys, queries] to weights; at, column: of the thread's two keys; sure: no query misses any key. */
template <int N> __device__ static void weigh(const crowd<N> *ask, bool sure, float scale, float slope, const int (&at)[2],
                                              const int (&column)[2], float (&s)[N / 8][4])
{
    if (slope != 0)
        #pragma unroll
        for (int n = 0; n < N / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++)
                s[n][e] -= slope / scale * abs(ask->at[8 * n + threadIdx.x % 4 * 2 + e % 2] - at[e / 2]);
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = power(s[n][e] * scale - ask->level[8 * n + threadIdx.x % 4 * 2 + e % 2]);
    if (sure)
        return;
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const seen &is = ask->sees[8 * n + threadIdx.x % 4 * 2 + e % 2];
            const int j = at[e / 2], c = column[e / 2];
            s[n][e] = j >= is.from && j < is.to && c >= is.left && c < is.right ? s[n][e] : 0;
        }
}

/* A block of keys: where they begin and end, how many there are in this batch row, the thread's two of them, and the
 * columns from c0 on that it gathers. */
template <int E> struct asked { int from, to, keys, at[2], c0; bool whole; float dk[E / 8][4], dv[E / 8][4]; };

/* The queries of head h that see the block in pass n; K and V are there, Q and G are rooms. */
template <class T, int D> __device__ static void over_queries(const attention &a, const place &p, int n, int h, T *K, T *V, T *Q, T *G,
                                                              crowd<COLUMNS<T, D>> &ask, asked<PART<D>> &x)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>, E = PART<D>;
    const int warp = threadIdx.x / 32 * 16 * P, width = pass_width(a.mask, n), column[2] = { x.at[0] % width, x.at[1] % width };
    const float slope = slope_of(a, h);
    const view v = queries_of(a.mask, n, a.first, a.Tq, x.from, x.to);
    const source<T> queries = source_of<T>(a.q, p.b, h, a.first, v, v.n), grads = source_of<T>(a.d_o, p.b, h, a.first, v, v.n);
    for (int r0 = v.begin; r0 < v.n; r0 += N) {
        const int all = all_or_none<N>(a, v, n, h, r0, x.keys, x.from, x.whole ? x.to : K_FAR);
        float w[N / 8][4] = {}, d[N / 8][4] = {};
        if (all == 0)
            continue;
        __syncthreads();
        bring<T, D, N>(Q, queries, r0, a.Dk, a.vec);
        bring<T, D, N>(G, grads, r0, a.Dv, a.vec);
        commit();
        meet<N>(a, v, n, p.b, h, r0, x.keys, &ask);
        wait<0>();
        __syncthreads();
        product_nt<D, N>(w, K + warp, Q);
        weigh<N>(&ask, all == 1, a.scale * LOG2E, slope, x.at, column, w);
        product_nn<D, N, E>(x.dv, w, G + x.c0);
        product_nt<D, N>(d, V + warp, G);
        #pragma unroll
        for (int c = 0; c < N / 8; c++)
            #pragma unroll
            for (int e = 0; e < 4; e++)
                d[c][e] = w[c][e] * (d[c][e] - ask.delta[8 * c + threadIdx.x % 4 * 2 + e % 2]);
        product_nn<D, N, E>(x.dk, d, Q + x.c0);
    }
}

/* dk and dv of a block of keys, columns blockIdx.y PART on; add as above. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_k(const __grid_constant__ attention a, stage s, bool add)
{
    constexpr int N = COLUMNS<T, D>, P = PITCH<T, D>, E = PART<D>;
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ crowd<N> ask;
    T *K = (T *)room, *V = K + ROWS * P, *Q = V + ROWS * P, *G = Q + N * P;
    const place p = place_of(a, s, true, 1);
    const int group = a.Hq / a.Hk, last = least(p.r0 + ROWS, p.rows.n) - 1;
    asked<E> x = { position(p.rows, p.r0), position(p.rows, last), keys_there(a, p.b), {}, (int)blockIdx.y * E, last == p.r0 + ROWS - 1, {}, {} };
    for (int e = 0; e < 2; e++)
        if (!own_row(p, e, &x.at[e]))
            x.at[e] = -1;
    bring<T, D, ROWS>(K, source_of<T>(a.k, p.b, p.h, 0, p.rows, p.rows.n), p.r0, a.Dk, a.vec);
    bring<T, D, ROWS>(V, source_of<T>(a.v, p.b, p.h, 0, p.rows, p.rows.n), p.r0, a.Dv, a.vec);
    for (int h = p.h * group; h < (p.h + 1) * group && p.r0 <= last; h++) for (int n = s.from; n < s.to; n++)
        if (has_pass(a.mask, n, h))
            over_queries<T, D>(a, p, n, h, K, V, Q, G, ask, x);
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        int t;
        if (!own_row(p, i, &t))
            continue;
        if (a.dk.p && x.c0 < a.Dk)
            put_gradient<T, E>(a.dk, a.sum_k, p.b, p.h, a.Hk, t, a.Tk, a.Dk, x.c0, add, i, a.scale, x.dk);
        if (a.dv.p && x.c0 < a.Dv)
            put_gradient<T, E>(a.dv, a.sum_v, p.b, p.h, a.Hk, t, a.Tk, a.Dv, x.c0, add, i, 1, x.dv);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------------ */

/* Blocks of a stage, of one split. */
static unsigned blocks_of(const attention &a, stage s, bool keys)
{
    const cut c = cut_of(a.mask, s, keys ? 0 : a.first, keys ? a.Tk : a.Tq);
    return (unsigned)((int64_t)c.views * ceil_div(c.rows, ROWS) * (keys ? a.Hk : a.Hq) * a.B);
}

/* Raises the limit of shared memory, then launches what there is. */
template <class K, class... A> static int launch(K *kernel, dim3 blocks, size_t room, cudaStream_t stream, const A &...args)
{
    if (blocks.x == 0)
        return K_OK;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
    kernel<<<blocks, THREADS, room, stream>>>(args...);
    return attention_launched();
}

/* Of one type and width, without the first `done` stages. */
template <class T, int D> static int run_forward(const attention &a, int done, cudaStream_t stream)
{
    stage s[2];
    int code = K_OK;
    for (int i = done, n = stages_of(a.mask, false, s); i < n && !code; i++)
        code = launch(forward<T, D>, dim3(blocks_of(a, s[i], false) * a.splits), 3 * ROWS * PITCH<T, D> * sizeof(T), stream, a, s[i], i * a.splits);
    return code;
}

/* Of one type and width, without the first `done` stages. */
template <class T, int D> static int run_gradient(const attention &a, int done, cudaStream_t stream)
{
    const size_t room = (2 * ROWS + 2 * COLUMNS<T, D>) * PITCH<T, D> * sizeof(T);
    const unsigned parts = (unsigned)ceil_div(most(a.Dk, a.Dv), PART<D>);
    stage s[2];
    int code = K_OK;
    for (int i = done, n = stages_of(a.mask, false, s); a.dq.p && i < n && !code; i++)
        code = launch(gradient_q<T, D>, dim3(blocks_of(a, s[i], false)), room, stream, a, s[i], i > 0);
    for (int i = done, n = stages_of(a.mask, true, s); (a.dk.p || a.dv.p) && i < n && !code; i++)
        code = launch(gradient_k<T, D>, dim3(blocks_of(a, s[i], true), parts), room, stream, a, s[i], i > 0);
    return code;
}

/* By the wider of keys and values. */
template <class T> static int by_width(const attention &a, bool gradient, int done, cudaStream_t stream)
{
    const int width = most(a.Dk, a.Dv);
    if (width <= 64)
        return gradient ? run_gradient<T, 64>(a, done, stream) : run_forward<T, 64>(a, done, stream);
    if (width <= 128)
        return gradient ? run_gradient<T, 128>(a, done, stream) : run_forward<T, 128>(a, done, stream);
    return gradient ? run_gradient<T, 256>(a, done, stream) : run_forward<T, 256>(a, done, stream);
}

int attention_forward(const attention &a, k_dtype dtype, int done, cudaStream_t stream)
{
    return dtype == K_BF16 ? by_width<bf16>(a, false, done, stream) : by_width<float>(a, false, done, stream);
}

int attention_gradient(const attention &a, k_dtype dtype, int done, cudaStream_t stream)
{
    return dtype == K_BF16 ? by_width<bf16>(a, true, done, stream) : by_width<float>(a, true, done, stream);
}
