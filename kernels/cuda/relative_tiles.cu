/* relative_tiles.cu - attention with learned vectors per distance in tiles of 64 queries at p0 .. and 64 keys at j0 ...
 *
 * Pair (i,j) of a tile needs the product of a row with the vector of distance j - i + j0 - p0: number j - i + 63 of the 127
 * from distance j0 - p0 - 63 on.  They are computed in two blocks of 64 vectors, low for j <= i and high for j > i, and put
 * on the diagonals of a tile in shared memory; the high block of a tile of keys is the low block of the next.
 * Backward recomputes the weights three times, so that no sum crosses blocks: a block of threads has 64 queries, 64 keys,
 * or 64 distances of one head. */
#include "relative.cuh"
#include "softmax_rows.cuh"

enum { LINE = ROWS + 4 };               /* floats of a row of the tile of diagonals */

/* Where a block of threads is: a batch row, a head, and what its tile begins with. */
struct place { int b, h, r0; };
__device__ static place place_of(int H, int tiles, bool last_first)
{
    const int tile = blockIdx.x % tiles, unit = blockIdx.x / tiles;
    return { unit / H, unit % H, (last_first ? tiles - 1 - tile : tile) * ROWS };
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

/* Rows 0 .. end - 1 of a head, for bring(). */
template <class T> struct source {
    const T *p;
    int64_t step;
    int end;
    __device__ bool there(int r) const { return r >= 0 && r < end; }
    __device__ const T *row(int r) const { return p + r * step; }
};
template <class T> __device__ static source<T> source_of(const k_heads &x, int b, int h, int end) { return { row_at<T>(x, b, h, 0), x.st, end }; }

/* The row of the tables that stands for a distance j - p, -1: a row of zeros. */
__device__ static int table_row(const k_relative &a, int distance)
{
    const int r = distance + a.distance - 1;
    return r >= 0 && r < a.rows ? r : !a.clamp ? -1 : r < 0 ? 0 : a.rows - 1;
}

/* tile [64][D] = the vectors of 64 distances of head h; a table is [Hq or 1,rows,width] floats. */
template <class T, int D> __device__ static void bring_vectors(T *tile, const k_relative &a, const void *table, int h, int distance, int width)
{
    const float *from = (const float *)table + (int64_t)(a.shared ? 0 : h) * a.rows * width;
    for (int n = threadIdx.x; n < ROWS * D; n += THREADS) {
        const int d = n % D, r = d < width ? table_row(a, distance + n / D) : -1;
        tile[n / D * PITCH<T, D> + d] = T(r >= 0 ? from[(int64_t)r * width + d] : 0.f);
    }
}

/* ---- diagonals ------------------------------------------------------------------------------------------------------- */

/* The warp's rows of block `high` (0 or 1) to their diagonals. */
__device__ static void put_diagonals(float *tile, const float (&x)[ROWS / 8][4], int high)
{
    #pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = row_of(e), j = i + column_of(n, e) + (high ? 1 : 1 - ROWS);
            if (j >= 0 && j < ROWS)
                tile[i * LINE + j] = x[n][e];
        }
}

/* The warp's rows from their diagonals: block `high` of a tile, zeros elsewhere. */
__device__ static void get_diagonals(const float *tile, float (&x)[ROWS / 8][4], int high)
{
    #pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = row_of(e), j = i + column_of(n, e) + (high ? 1 : 1 - ROWS);
            x[n][e] = j >= 0 && j < ROWS ? tile[i * LINE + j] : 0;
        }
}

/* The warp's rows to the tile, and from it, both as they are. */
__device__ static void put_tile(float *tile, const float (&x)[ROWS / 8][4])
{
    __syncwarp();
    #pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            tile[row_of(e) * LINE + column_of(n, e)] = x[n][e];
    __syncwarp();
}
__device__ static void add_tile(const float *tile, bool turned, float (&x)[ROWS / 8][4])
{
    #pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++)
            x[n][e] += turned ? tile[column_of(n, e) * LINE + row_of(e)] : tile[row_of(e) * LINE + column_of(n, e)];
}

/* tile = rows X by the vectors of their distances, both blocks; distance: that of (0,0).  All threads. */
template <class T, int D> __device__ static void vector_products(float *tile, const T *X, T *vectors, const k_relative &a, const void *table, int h, int distance, int width)
{
    for (int high = 0; high < 2; high++) {
        float x[ROWS / 8][4] = {};
        __syncthreads();
        bring_vectors<T, D>(vectors, a, table, h, distance + (high ? 1 : 1 - ROWS), width);
        __syncthreads();
        product_nt<D, ROWS>(x, X + threadIdx.x / 32 * 16 * PITCH<T, D>, vectors);
        put_diagonals(tile, x, high);
    }
}

/* o += the weights in tile by the vectors of their distances.  All threads. */
template <class T, int D> __device__ static void vector_sums(float (&o)[D / 8][4], const float *tile, T *vectors, const k_relative &a, const void *table, int h, int distance, int width)
{
    for (int high = 0; high < 2; high++) {
        float x[ROWS / 8][4];
        __syncthreads();
        bring_vectors<T, D>(vectors, a, table, h, distance + (high ? 1 : 1 - ROWS), width);
        __syncthreads();
        get_diagonals(tile, x, high);
        product_nn<D, ROWS, D>(o, x, vectors);
    }
}

/* ---- who sees whom --------------------------------------------------------------------------------------------------- */

/* Keys that the query at position p sees: from .. to - 1; none beyond the last position. */
struct range { int from, to; };
__device__ static range reach(const k_relative &a, int p)
{
    range s = { 0, p < a.Tk ? a.Tk : 0 };
    if (a.block) {
        const int b = p / a.block;
        s.from = most(b - 1, 0) * a.block;
        s.to = a.Tk - b * a.block > 2 * a.block ? least((b + 2) * a.block, s.to) : s.to;
    }
    s.to = a.causal ? least(s.to, p + 1) : s.to;
    return s;
}

/* Queries (rows) that see any of the keys j0 .. j0 + 63; only used where Tq = Tk. */
__device__ static range askers(const k_relative &a, int j0)
{
    const int last = least(j0 + ROWS, a.Tk) - 1;
    range s = { a.causal ? j0 : 0, a.Tq };
    if (a.block) {
        s.from = most(s.from, (j0 / a.block - 1) * a.block);
        s.to = a.Tq - last / a.block * a.block > 2 * a.block ? (last / a.block + 2) * a.block : a.Tq;
    }
    return s;
}

/* What rows of queries know: what they see, their log-sum-exp in powers of two, d_o.o. */
struct known { range sees[ROWS]; float level[ROWS], delta[ROWS]; };
__device__ static void know(const relative &x, int b, int h, int i0, known *k)
{
    const int i = threadIdx.x, t = i0 + i;
    const int64_t row = ((int64_t)b * x.a.Hq + h) * x.a.Tq + t;
    if (i >= ROWS)
        return;
    const bool there = t < x.a.Tq;
    k->sees[i] = there ? reach(x.a, t + x.a.Tk - x.a.Tq) : range{ 0, 0 };
    k->level[i] = there ? x.a.lse[row] * LOG2E : INFINITY;
    k->delta[i] = there ? x.delta[row] : 0;
}
__device__ static bool sees(const known &k, int i, int j) { return j >= k.sees[i].from && j < k.sees[i].to; }

/* ---- forward --------------------------------------------------------------------------------------------------------- */

template <class T, int D> __global__ void __launch_bounds__(THREADS) forward(const __grid_constant__ relative x)
{
    extern __shared__ __align__(16) unsigned char room[];
    constexpr int SIZE = ROWS * PITCH<T, D>;
    T *Q = (T *)room, *K = Q + SIZE, *V = K + SIZE, *vectors = V + SIZE;
    float *tile = (float *)(vectors + SIZE);
    const k_relative &a = x.a;
    const place at = place_of(a.Hq, ceil_div(a.Tq, ROWS), true);
    const int hk = at.h / (a.Hq / a.Hk), p0 = at.r0 + a.Tk - a.Tq, warp = threadIdx.x / 32 * 16 * PITCH<T, D>;
    const range own[2] = { reach(a, p0 + row_of(0)), reach(a, p0 + row_of(2)) };
    const int from = reach(a, p0).from, to = reach(a, p0 + least(ROWS, a.Tq - at.r0) - 1).to;
    float o[D / 8][4] = {}, low[ROWS / 8][4] = {}, top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0, 0 };
    bring<T, D, ROWS>(Q, source_of<T>(a.q, at.b, at.h, a.Tq), at.r0, a.Dk, x.vec);
    bring_vectors<T, D>(vectors, a, a.E, at.h, from - p0 - (ROWS - 1), a.Dk);
    commit();
    wait<0>();
    __syncthreads();
    product_nt<D, ROWS>(low, Q + warp, vectors);
    for (int j0 = from; j0 < to; j0 += ROWS) {
        float w[ROWS / 8][4] = {}, high[ROWS / 8][4] = {};
        __syncthreads();
        bring<T, D, ROWS>(K, source_of<T>(a.k, at.b, hk, to), j0, a.Dk, x.vec);
        bring<T, D, ROWS>(V, source_of<T>(a.v, at.b, hk, to), j0, a.Dv, x.vec);
        commit();
        bring_vectors<T, D>(vectors, a, a.E, at.h, j0 - p0 + 1, a.Dk);
        wait<0>();
        __syncthreads();
        product_nt<D, ROWS>(high, Q + warp, vectors);
        put_diagonals(tile, low, 0);
        put_diagonals(tile, high, 1);
        __syncwarp();
        product_nt<D, ROWS>(w, Q + warp, K);
        add_tile(tile, false, w);
        #pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int j = j0 + column_of(n, e);
                w[n][e] = j >= own[e / 2].from && j < own[e / 2].to ? w[n][e] * x.scale * LOG2E : -INFINITY;
                low[n][e] = high[n][e];
            }
        online<ROWS, D>(w, top, sum, o);
        product_nn<D, ROWS, D>(o, w, V);
        if (a.F) {
            put_tile(tile, w);
            vector_sums<T, D>(o, tile, vectors, a, a.F, at.h, j0 - p0, a.Dv);
        }
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int t = at.r0 + row_of(2 * i);
        const float all = quad_sum(sum[i]);
        if (t >= a.Tq)
            continue;
        put_row<T, D>(row_at<T>(a.o, at.b, at.h, t), a.Dv, i, all > 0 ? 1 / all : 0, false, o);
        if (a.lse && threadIdx.x % 4 == 0)
            a.lse[((int64_t)at.b * a.Hq + at.h) * a.Tq + t] = LN2 * (top[i] + log2f(all));
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------------- */

/* delta: a warp has a row. */
template <class T> __global__ void __launch_bounds__(THREADS) deltas(const __grid_constant__ relative x)
{
    const k_relative &a = x.a;
    const int64_t row = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (row >= (int64_t)a.B * a.Hq * a.Tq)
        return;
    const int t = (int)(row % a.Tq), h = (int)(row / a.Tq % a.Hq), b = (int)(row / a.Tq / a.Hq);
    float sum = 0;
    for (int d = threadIdx.x % 32; d < a.Dv; d += 32)
        sum += (float)row_at<T>(a.d_o, b, h, t)[d] * (float)row_at<T>(a.o, b, h, t)[d];
    for (int lane = 16; lane; lane /= 2)
        sum += __shfl_xor_sync(~0u, sum, lane);
    if (threadIdx.x % 32 == 0)
        x.delta[row] = sum;
}

/* dq of 64 queries. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_q(const __grid_constant__ relative x)
{
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ known ask;
    constexpr int SIZE = ROWS * PITCH<T, D>;
    T *Q = (T *)room, *G = Q + SIZE, *K = G + SIZE, *V = K + SIZE, *vectors = V + SIZE;
    float *tile = (float *)(vectors + SIZE);
    const k_relative &a = x.a;
    const place at = place_of(a.Hq, ceil_div(a.Tq, ROWS), true);
    const int hk = at.h / (a.Hq / a.Hk), p0 = at.r0, warp = threadIdx.x / 32 * 16 * PITCH<T, D>;
    const int from = reach(a, p0).from, to = reach(a, least(p0 + ROWS, a.Tq) - 1).to;
    float g[D / 8][4] = {};
    know(x, at.b, at.h, p0, &ask);
    bring<T, D, ROWS>(Q, source_of<T>(a.q, at.b, at.h, a.Tq), p0, a.Dk, x.vec);
    bring<T, D, ROWS>(G, source_of<T>(a.d_o, at.b, at.h, a.Tq), p0, a.Dv, x.vec);
    for (int j0 = from; j0 < to; j0 += ROWS) {
        float w[ROWS / 8][4] = {}, d[ROWS / 8][4] = {};
        __syncthreads();
        bring<T, D, ROWS>(K, source_of<T>(a.k, at.b, hk, to), j0, a.Dk, x.vec);
        bring<T, D, ROWS>(V, source_of<T>(a.v, at.b, hk, to), j0, a.Dv, x.vec);
        commit();
        wait<0>();
        vector_products<T, D>(tile, Q, vectors, a, a.E, at.h, j0 - p0, a.Dk);
        __syncwarp();
        product_nt<D, ROWS>(w, Q + warp, K);
        add_tile(tile, false, w);
        product_nt<D, ROWS>(d, G + warp, V);
        if (a.F) {
            vector_products<T, D>(tile, G, vectors, a, a.F, at.h, j0 - p0, a.Dv);
            __syncwarp();
            add_tile(tile, false, d);
        }
        #pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row_of(e);
                const float weight = sees(ask, i, j0 + column_of(n, e)) ? power(w[n][e] * x.scale * LOG2E - ask.level[i]) : 0;
                d[n][e] = weight * (d[n][e] - ask.delta[i]);
            }
        product_nn<D, ROWS, D>(g, d, K);
        put_tile(tile, d);
        vector_sums<T, D>(g, tile, vectors, a, a.E, at.h, j0 - p0, a.Dk);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int t = p0 + row_of(2 * i);
        if (t < a.Tq)
            put_row<T, D>(row_at<T>(a.dq, at.b, at.h, t), a.Dk, i, x.scale, false, g);
    }
}

/* dk and dv of 64 keys, columns blockIdx.y E on. */
template <int D> constexpr int PART = D < 128 ? D : 128;
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_k(const __grid_constant__ relative x)
{
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ known ask;
    constexpr int SIZE = ROWS * PITCH<T, D>, E = PART<D>;
    T *K = (T *)room, *V = K + SIZE, *Q = V + SIZE, *G = Q + SIZE, *vectors = G + SIZE;
    float *tile = (float *)(vectors + SIZE);
    const k_relative &a = x.a;
    const place at = place_of(a.Hk, ceil_div(a.Tk, ROWS), false);
    const int group = a.Hq / a.Hk, j0 = at.r0, warp = threadIdx.x / 32 * 16 * PITCH<T, D>, c0 = blockIdx.y * E;
    const range who = askers(a, j0);
    float dk[E / 8][4] = {}, dv[E / 8][4] = {};
    bring<T, D, ROWS>(K, source_of<T>(a.k, at.b, at.h, a.Tk), j0, a.Dk, x.vec);
    bring<T, D, ROWS>(V, source_of<T>(a.v, at.b, at.h, a.Tk), j0, a.Dv, x.vec);
    for (int h = at.h * group; h < (at.h + 1) * group; h++) for (int i0 = who.from; i0 < who.to; i0 += ROWS) {
        float w[ROWS / 8][4] = {}, d[ROWS / 8][4] = {};
        __syncthreads();
        know(x, at.b, h, i0, &ask);
        bring<T, D, ROWS>(Q, source_of<T>(a.q, at.b, h, a.Tq), i0, a.Dk, x.vec);
        bring<T, D, ROWS>(G, source_of<T>(a.d_o, at.b, h, a.Tq), i0, a.Dv, x.vec);
        commit();
        wait<0>();
        vector_products<T, D>(tile, Q, vectors, a, a.E, h, j0 - i0, a.Dk);
        __syncthreads();
        product_nt<D, ROWS>(w, K + warp, Q);
        add_tile(tile, true, w);
        product_nt<D, ROWS>(d, V + warp, G);
        if (a.F) {
            vector_products<T, D>(tile, G, vectors, a, a.F, h, j0 - i0, a.Dv);
            __syncthreads();
            add_tile(tile, true, d);
        }
        #pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = column_of(n, e);
                w[n][e] = sees(ask, i, j0 + row_of(e)) ? power(w[n][e] * x.scale * LOG2E - ask.level[i]) : 0;
                d[n][e] = w[n][e] * (d[n][e] - ask.delta[i]);
            }
        product_nn<D, ROWS, E>(dv, w, G + c0);
        product_nn<D, ROWS, E>(dk, d, Q + c0);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int t = j0 + row_of(2 * i);
        if (t < a.Tk && a.dk.p)
            put_row<T, E>(row_at<T>(a.dk, at.b, at.h, t) + c0, a.Dk - c0, i, x.scale, false, dk);
        if (t < a.Tk && a.dv.p)
            put_row<T, E>(row_at<T>(a.dv, at.b, at.h, t) + c0, a.Dv - c0, i, 1, false, dv);
    }
}

/* The distances of number n .. of a head's parts begin with this one. */
__device__ static int distance_of(const relative &x, int n)
{
    const int least_one = x.a.clamp ? 1 - x.a.Tk : most(1 - x.a.Tk, 1 - x.a.distance);
    return least_one + n;
}

/* tile [i][c] = rows X by the row of Y at their distance, number c of 64 from `distance` on: Y goes through `buffer` in two
 * tiles, whose products lie at c = j - i and c = j - i + 64.  All threads; a row of the tile is its warp's. */
template <class T, int D> __device__ static void distance_products(float *tile, const T *X, T *buffer, const source<T> &Y, int j0, int width, bool vec)
{
    for (int late = 0; late < 2; late++) {
        float x[ROWS / 8][4] = {};
        __syncthreads();
        bring<T, D, ROWS>(buffer, Y, j0 + late * ROWS, width, vec);
        commit();
        wait<0>();
        __syncthreads();
        product_nt<D, ROWS>(x, X + threadIdx.x / 32 * 16 * PITCH<T, D>, buffer);
        #pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row_of(e), c = column_of(n, e) - i + late * ROWS;
                if (c >= 0 && c < ROWS)
                    tile[i * LINE + c] = x[n][e];
            }
    }
    __syncwarp();
}

/* sum [64 distances,E] += tile' X: a warp has 16 of the distances.  All threads. */
template <class T, int D, int E> __device__ static void turned_sums(float (&sum)[E / 8][4], float *tile, const float (&x)[ROWS / 8][4], const T *X)
{
    float y[ROWS / 8][4] = {};
    put_tile(tile, x);
    __syncthreads();
    add_tile(tile, true, y);
    product_nn<D, ROWS, E>(sum, y, X);
    __syncthreads();
}

/* Parts of dE and dF for 64 distances of a head, columns blockIdx.y E on. */
template <class T, int D> __global__ void __launch_bounds__(THREADS) gradient_table(const __grid_constant__ relative x)
{
    extern __shared__ __align__(16) unsigned char room[];
    __shared__ known ask;
    constexpr int SIZE = ROWS * PITCH<T, D>, E = PART<D>;
    T *Q = (T *)room, *G = Q + SIZE, *buffer = G + SIZE, *vectors = buffer + SIZE;
    float *tile = (float *)(vectors + SIZE);
    const k_relative &a = x.a;
    const place at = place_of(a.Hq, ceil_div(x.spread, ROWS), false);
    const int hk = at.h / (a.Hq / a.Hk), distance = distance_of(x, at.r0), warp = threadIdx.x / 32 * 16 * PITCH<T, D>, c0 = blockIdx.y * E;
    const source<T> k = source_of<T>(a.k, at.b, hk, a.Tk), v = source_of<T>(a.v, at.b, hk, a.Tk);
    float dE[E / 8][4] = {}, dF[E / 8][4] = {};
    for (int i0 = most(0, -(distance + ROWS - 1)) / ROWS * ROWS; i0 < a.Tq && i0 + distance < a.Tk; i0 += ROWS) {
        float w[ROWS / 8][4] = {}, d[ROWS / 8][4] = {};
        __syncthreads();
        know(x, at.b, at.h, i0, &ask);
        bring<T, D, ROWS>(Q, source_of<T>(a.q, at.b, at.h, a.Tq), i0, a.Dk, x.vec);
        bring<T, D, ROWS>(G, source_of<T>(a.d_o, at.b, at.h, a.Tq), i0, a.Dv, x.vec);
        bring_vectors<T, D>(vectors, a, a.E, at.h, distance, a.Dk);
        distance_products<T, D>(tile, Q, buffer, k, i0 + distance, a.Dk, x.vec);
        product_nt<D, ROWS>(w, Q + warp, vectors);
        add_tile(tile, false, w);
        __syncthreads();
        if (a.F) {
            bring_vectors<T, D>(vectors, a, a.F, at.h, distance, a.Dv);
            __syncthreads();
            product_nt<D, ROWS>(d, G + warp, vectors);
        }
        distance_products<T, D>(tile, G, buffer, v, i0 + distance, a.Dv, x.vec);
        add_tile(tile, false, d);
        #pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row_of(e), j = i0 + i + distance + column_of(n, e);
                w[n][e] = sees(ask, i, j) ? power(w[n][e] * x.scale * LOG2E - ask.level[i]) : 0;
                d[n][e] = w[n][e] * (d[n][e] - ask.delta[i]);
            }
        turned_sums<T, D, E>(dE, tile, d, Q + c0);
        if (x.part_F)
            turned_sums<T, D, E>(dF, tile, w, G + c0);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        const int n = at.r0 + row_of(2 * i);
        const int64_t row = ((int64_t)at.b * a.Hq + at.h) * x.spread + n;
        if (n < x.spread && x.part_E)
            put_row<float, E>(x.part_E + row * a.Dk + c0, a.Dk - c0, i, x.scale, false, dE);
        if (n < x.spread && x.part_F)
            put_row<float, E>(x.part_F + row * a.Dv + c0, a.Dv - c0, i, 1, false, dF);
    }
}

/* table [Hq or 1,rows,width] += the parts of every (batch row, head) and distance that has that row. */
__global__ void __launch_bounds__(THREADS) sum_parts(const __grid_constant__ relative x, const float *part, float *table, int width)
{
    const k_relative &a = x.a;
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x, all = (int64_t)(a.shared ? 1 : a.Hq) * a.rows * width;
    if (n >= all)
        return;
    const int d = (int)(n % width), r = (int)(n / width % a.rows), h = (int)(n / width / a.rows);
    const int at = r - (a.distance - 1) - distance_of(x, 0);
    const int from = a.clamp && r == 0 ? 0 : most(at, 0), to = a.clamp && r == a.rows - 1 ? x.spread : least(at + 1, x.spread);
    float sum = 0;
    for (int b = 0; b < a.B; b++) for (int g = a.shared ? 0 : h; g < (a.shared ? a.Hq : h + 1); g++)
        for (int i = from; i < to; i++)
            sum += part[(((int64_t)b * a.Hq + g) * x.spread + i) * width + d];
    table[n] += sum;
}

/* ---- launching ------------------------------------------------------------------------------------------------------- */

/* Raises the limit of shared memory, then launches. */
template <class K> static int launch(K *kernel, const relative &x, int64_t blocks, int parts, size_t room, cudaStream_t stream)
{
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)room);
    kernel<<<dim3((unsigned)blocks, (unsigned)parts), THREADS, room, stream>>>(x);
    return relative_launched();
}

/* Of one type and width. */
template <class T, int D> static int run_forward(const relative &x, cudaStream_t stream)
{
    const size_t tile = ROWS * PITCH<T, D> * sizeof(T), diagonals = ROWS * LINE * sizeof(float);
    return launch(forward<T, D>, x, (int64_t)x.a.B * x.a.Hq * ceil_div(x.a.Tq, ROWS), 1, 4 * tile + diagonals, stream);
}
template <class T, int D> static int run_gradient(const relative &x, cudaStream_t stream)
{
    const k_relative &a = x.a;
    const size_t room = 5 * ROWS * PITCH<T, D> * sizeof(T) + ROWS * LINE * sizeof(float);
    const int parts = ceil_div(most(a.Dk, a.Dv), PART<D>);
    int code = launch(deltas<T>, x, ((int64_t)a.B * a.Hq * a.Tq + THREADS / 32 - 1) / (THREADS / 32), 1, 0, stream);
    if (a.dq.p && !code)
        code = launch(gradient_q<T, D>, x, (int64_t)a.B * a.Hq * ceil_div(a.Tq, ROWS), 1, room, stream);
    if ((a.dk.p || a.dv.p) && !code)
        code = launch(gradient_k<T, D>, x, (int64_t)a.B * a.Hk * ceil_div(a.Tk, ROWS), parts, room, stream);
    if ((x.part_E || x.part_F) && !code)
        code = launch(gradient_table<T, D>, x, (int64_t)a.B * a.Hq * ceil_div(x.spread, ROWS), parts, room, stream);
    return code;
}

int relative_forward(const relative &x, k_dtype dtype, cudaStream_t stream)
{
    const bool narrow = most(x.a.Dk, x.a.Dv) <= 64;
    if (dtype == K_BF16)
        return narrow ? run_forward<bf16, 64>(x, stream) : run_forward<bf16, 256>(x, stream);
    return narrow ? run_forward<float, 64>(x, stream) : run_forward<float, 128>(x, stream);
}

int relative_gradient(const relative &x, k_dtype dtype, cudaStream_t stream)
{
    const bool narrow = most(x.a.Dk, x.a.Dv) <= 64;
    if (dtype == K_BF16)
        return narrow ? run_gradient<bf16, 64>(x, stream) : run_gradient<bf16, 256>(x, stream);
    return narrow ? run_gradient<float, 64>(x, stream) : run_gradient<float, 128>(x, stream);
}

int relative_sum(const relative &x, cudaStream_t stream)
{
    const int64_t rows = (int64_t)(x.a.shared ? 1 : x.a.Hq) * x.a.rows;
    if (x.part_E)
        sum_parts<<<(unsigned)((rows * x.a.Dk + THREADS - 1) / THREADS), THREADS, 0, stream>>>(x, x.part_E, (float *)x.a.dE, x.a.Dk);
    if (x.part_F)
        sum_parts<<<(unsigned)((rows * x.a.Dv + THREADS - 1) / THREADS), THREADS, 0, stream>>>(x, x.part_F, (float *)x.a.dF, x.a.Dv);
    return relative_launched();
}

/* The new rows of k and v into the state's. */
template <class T> __global__ void __launch_bounds__(THREADS) append(const __grid_constant__ relative x, k_heads k, k_heads v)
{
    const k_relative &a = x.a;
    const int64_t width = a.Dk + a.Dv, n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (n >= (int64_t)a.B * a.Hk * a.Tq * width)
        return;
    const int d = (int)(n % width), t = (int)(n / width % a.Tq), h = (int)(n / width / a.Tq % a.Hk), b = (int)(n / width / a.Tq / a.Hk);
    if (d < a.Dk)
        row_at<T>(a.k, b, h, a.Tk - a.Tq + t)[d] = row_at<T>(k, b, h, t)[d];
    else
        row_at<T>(a.v, b, h, a.Tk - a.Tq + t)[d - a.Dk] = row_at<T>(v, b, h, t)[d - a.Dk];
}

int relative_append(const relative &x, k_heads k, k_heads v, k_dtype dtype, cudaStream_t stream)
{
    const int64_t n = (int64_t)x.a.B * x.a.Hk * x.a.Tq * (x.a.Dk + x.a.Dv);
    if (dtype == K_BF16)
        append<bf16><<<(unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, stream>>>(x, k, v);
    else
        append<float><<<(unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, stream>>>(x, k, v);
    return relative_launched();
}
