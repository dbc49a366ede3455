/* linattn_walk.cuh - the one sum that linear attention consists of, forward and backward:
 *
 *   out_i = sum over the j that i sees of (x_i.y_j + row_i col_j) z_j,   den_i = sum of x_i.y_j
 *
 *            x  y  z   row col   sees                              x  y  z   row col   sees
 *   forward  a  b  v    -   -    the past            backward  dv  b  a  g    -   -    the future
 *   dq       g  v  b    h   1    the past                      dk  v  g  a    1   h    the future
 *
 * with the features a and b of queries and keys, g = do / den and h = -g.o.  A block walks along one head, chunk by
 * chunk of 64 positions, and keeps the state S = sum y z' of what lies behind it in registers: warp w holds the columns
 * 16 w .. 16 w + 15 of 64 columns of z (a strip), against 64 columns of x and y (a slice; 128 in bfloat16).  Slices add up, and so do
 * the query heads of a key head in dk and dv: where there are several, their sums are parts in float, to be added
 * by finish_kernel.  A long head is cut into segments:
 * a walk that only writes gives the state of each, scan_kernel what lies before each.  Without causality a walk
 * that only writes is followed by one that only reads. */
#ifndef KERNELS_CUDA_LINATTN_WALK_CUH
#define KERNELS_CUDA_LINATTN_WALK_CUH
#include "features.cuh"

/* x, y or z: rows of [B,H,T,width] through a local map and times a factor; row r is at position r + off. */
struct side {
    const void *p;
    int64_t sb, sh, st;
    int heads, rows, width, off, vector;
    const int32_t *klen;                /* [B]: rows end there; NULL: at rows */
    local_map map;
    const float *factor;                /* [B,heads,rows] or NULL */
};

enum walk_sum { SUM_NONE, SUM_Y, SUM_Z };       /* the sums kept with a state: of y, for den; of col_j z_j */

struct walk {
    side x, y, z;
    int B, H, x_share, y_share;         /* heads; head h has head h / x_share of x, h / y_share of y and z */
    int reads, writes, reverse, wide;   /* wide: tiles of a slice */
    int first, chunks, segments, per_segment;   /* position 0 of chunk 0; in all; chunks of a segment */
    int slices, strips;
    walk_sum sum;
    const float *h;                     /* [B,heads,T] of x if h_on_rows else of y; NULL: no row col term */
    int h_on_rows;
    /* States [B,H / y_share or H,states] of [M,Dv] and [M] floats. */
    const float *state_in, *sum_in;     /* NULL: zeros */
    float *state_out, *sum_out;         /* of walks that only write */
    int64_t state_size, x_step, z_step; /* state: floats; between columns of x, of z */
    int sum_size, states, one_state;    /* states of a head; one_state: every segment reads the first */
    /* out, of H / x_share heads */
    float denom_eps, guard;
    float *inverse;                     /* [B,H,x.rows]: 1/den, kept; NULL: not wanted */
    k_rows out;
    int out_vector;                     /* rows of out and raw begin at 16 bytes */
    side raw;                           /* out is multiplied by the slope of raw.map at raw */
    float *part, *den_part;             /* [slices x_share][B,H / x_share,rows,width], [slices][B,H,rows]; NULL: out is written */
};

/* 1/den, or 0 where there is no digit left of it. */
static __device__ __forceinline__ float inverse_of(const walk &w, float den)
{
    den += (fabsf(den) <= w.guard ? 2 * w.guard : 0) + w.denom_eps;
    return fabsf(den) < 1.17549435e-38f ? 0 : 1 / den;
}

static __device__ __forceinline__ int rows_of(const side &s, int b)
{
    return s.klen && s.klen[b] < s.rows ? s.klen[b] : s.rows;
}

/* ---- a block ------------------------------------------------------------------------------------------------- */

enum { SUMMERS = THREADS / 8 };         /* threads that add up 8 columns of a tile */

/* Shared memory of a block whose slices have W tiles. */
template <typename T, int W> struct walk_memory {
    T x[W][TILE * LD], y[W][TILE * LD], z[TILE * LD];
    T P[TILE * LD], O[TILE * LD];
    float sums[W][SUMMERS][TILE], sum[2][W * TILE], den[TILE], inverse[TILE], row[TILE], col[TILE];
};

/* Where a block works, and what it holds. */
template <typename T, int W> struct walker {
    walk_memory<T, W> *m;
    int unit, b, h, hx, hy, segment, slice, strip;
    int now;                            /* which m->sum holds the sum so far */
    int x_end, y_end;                   /* rows of x, of y and z */
    acc S[BLOCKS * W];                  /* 16 columns of z x 64 W of x */
};

template <typename T, int W> static __device__ __forceinline__ walker<T, W> walker_of(const walk &w, walk_memory<T, W> *m)
{
    walker<T, W> k;
    unsigned at = blockIdx.x;
    k.m = m, k.now = 0;
    k.strip = at % w.strips, at /= w.strips;
    k.slice = at % w.slices, at /= w.slices;
    k.segment = at % w.segments, at /= w.segments;
    k.unit = at, k.b = at / w.H, k.h = at % w.H;
    k.hx = k.h / w.x_share, k.hy = k.h / w.y_share;
    k.x_end = rows_of(w.x, k.b), k.y_end = rows_of(w.y, k.b);
    return k;
}

/* Starts the load of rows row0.., columns col0.. of head (b,h). */
template <typename T> static __device__ __forceinline__ void load_side(const side &s, int b, int h, int end, T *tile, int row0, int col0)
{
    load_tile(tile, rows_at<T>{ (const T *)s.p + b * s.sb + h * s.sh, s.st, 0, end, s.width, s.vector }, row0, col0);
}

/* Starts the loads of the chunk at position p. */
template <typename T, int W> static __device__ __forceinline__ void load_step(const walk &w, const walker<T, W> &k, int p)
{
    for (int n = 0; n < W; n++) {
        int col = (k.slice * W + n) * TILE;
        if (w.reads) load_side(w.x, k.b, k.hx, k.x_end, k.m->x[n], p - w.x.off, col);
        if (w.writes) load_side(w.y, k.b, k.hy, k.y_end, k.m->y[n], p - w.y.off, col);
    }
    if (w.writes) load_side(w.z, k.b, k.hy, k.y_end, k.m->z, p - w.z.off, k.strip * TILE);
    loads_commit();
}

/* row and col of the chunk; without h they are not used. */
template <typename T, int W> static __device__ __forceinline__ void load_aside(const walk &w, const walker<T, W> &k, int p)
{
    if (!w.h || threadIdx.x >= TILE) return;
    int x = p + threadIdx.x - w.x.off, y = p + threadIdx.x - w.y.off;
    const float *h = w.h_on_rows ? w.h + ((int64_t)k.b * w.x.heads + k.hx) * w.x.rows + x : w.h + ((int64_t)k.b * w.y.heads + k.hy) * w.y.rows + y;
    k.m->row[threadIdx.x] = !w.reads || x < 0 || x >= k.x_end ? 0 : w.h_on_rows ? *h : 1;
    k.m->col[threadIdx.x] = !w.writes || y < 0 || y >= k.y_end ? 0 : w.h_on_rows ? 1 : *h;
}

/* ---- features, factors, and the sums that go with them ----------------------------------------------------------- */

/* A tile to be mapped in place, and which sums it is asked for: of row . dot, or over rows of weight_i row i. */
enum wanted { WANT_NOTHING, WANT_DOT, WANT_SUMS };
struct mapped {
    int b, h, end, row0, col0;
    wanted want;
    const float *dot;
    float *den;
    float (*sums)[TILE];
    const float *weight;                /* NULL: 1 */
};

/* 8 columns of some rows of a tile.  whole: nothing of it lies beyond the ends, and the map is elu1, relu or none. */
template <typename T, int whole> static __device__ __forceinline__ void map_columns(const side &s, T *tile, const mapped &t)
{
    int c = (threadIdx.x & 7) * 8;
    float total[8] = { 0 }, dot[8] = { 0 };
    const float *factor = s.factor ? s.factor + ((int64_t)t.b * s.heads + t.h) * s.rows + t.row0 : NULL;
    if (t.want == WANT_DOT) read8(t.dot + c, dot);
    #pragma unroll 2
    for (int r = threadIdx.x >> 3; r < TILE; r += SUMMERS) {
        int there = whole || (t.row0 + r >= 0 && t.row0 + r < t.end);
        float x[8];
        read8(tile + r * LD + c, x);
        if (!whole) apply_map<T, 8>(s.map, x);
        else if (s.map.map == K_MAP_ELU1) apply_map<T, 8>({ K_MAP_ELU1 }, x);
        else if (s.map.map == K_MAP_RELU) apply_map<T, 8>({ K_MAP_RELU }, x);
        if (factor) {
            float by = there ? factor[r] : 0;
            #pragma unroll
            for (int i = 0; i < 8; i++) x[i] *= by;
        }
        #pragma unroll
        for (int i = 0; i < 8 && !whole; i++) if (!there || t.col0 + c + i >= s.width) x[i] = 0;
        write8(tile + r * LD + c, x);
        #pragma unroll
        for (int i = 0; i < 8 && t.want != WANT_NOTHING; i++) x[i] = to_float(from_float<T>(x[i]));     /* as the products have it */
        if (t.want == WANT_SUMS) {
            float by = t.weight ? t.weight[r] : 1;
            #pragma unroll
            for (int i = 0; i < 8; i++) total[i] += by * x[i];
        }
        if (t.want != WANT_DOT) continue;
        float d = 0;
        #pragma unroll
        for (int i = 0; i < 8; i++) d += x[i] * dot[i];
        #pragma unroll
        for (int lanes = 1; lanes < 8; lanes *= 2) d += __shfl_xor_sync(~0u, d, lanes);
        if (c == 0) t.den[r] += d;
    }
    if (t.want == WANT_SUMS) write8(t.sums[threadIdx.x >> 3] + c, total);
}

/* The general case, out of the way. */
template <typename T> static __device__ __noinline__ void map_any(const side &s, T *tile, mapped t) { map_columns<T, 0>(s, tile, t); }

template <typename T> static __device__ __forceinline__ void map_tile(const side &s, T *tile, const mapped &t)
{
    int simple = s.map.map == K_MAP_IDENTITY || s.map.map == K_MAP_ELU1 || s.map.map == K_MAP_RELU;
    if (s.map.map == K_MAP_IDENTITY && !s.factor && t.want == WANT_NOTHING) return;
    if (simple && t.row0 >= 0 && t.row0 + TILE <= t.end && t.col0 + TILE <= s.width) map_columns<T, 1>(s, tile, t);
    else map_any(s, tile, t);
}

template <typename T, int W> static __device__ __forceinline__ void map_step(const walk &w, const walker<T, W> &k, int p)
{
    walk_memory<T, W> *m = k.m;
    wanted dot = w.sum == SUM_Y ? WANT_DOT : WANT_NOTHING, y = w.sum == SUM_Y ? WANT_SUMS : WANT_NOTHING, z = w.sum == SUM_Z ? WANT_SUMS : WANT_NOTHING;
    #pragma unroll 1
    for (int n = 0; n < W; n++) {
        int col = (k.slice * W + n) * TILE;
        if (w.reads) map_tile(w.x, m->x[n], { k.b, k.hx, k.x_end, p - w.x.off, col, dot, m->sum[k.now] + n * TILE, m->den, NULL, NULL });
        if (w.writes) map_tile(w.y, m->y[n], { k.b, k.hy, k.y_end, p - w.y.off, col, y, NULL, NULL, m->sums[n], NULL });
    }
    if (w.writes) map_tile(w.z, m->z, { k.b, k.hy, k.y_end, p - w.z.off, k.strip * TILE, z, NULL, NULL, m->sums[0], m->col });
}

/* The sums of the chunk join those of the chunks before it. */
template <typename T, int W> static __device__ __forceinline__ void add_sums(const walk &w, walker<T, W> &k)
{
    if (threadIdx.x >= (w.sum == SUM_Y ? W : 1) * TILE) return;
    float total = 0;
    #pragma unroll
    for (int i = 0; i < SUMMERS; i++) total += k.m->sums[threadIdx.x / TILE][i][threadIdx.x % TILE];
    k.m->sum[1 - k.now][threadIdx.x] = k.m->sum[k.now][threadIdx.x] + total;
}

/* ---- scores ---------------------------------------------------------------------------------------------------------- */

/* Row r of the chunk at position p has all of its denominator. */
template <typename T, int W> static __device__ __forceinline__ void finish_den(const walk &w, const walker<T, W> &k, int p, int r, float den)
{
    int row = p + r - w.x.off;
    float inverse = inverse_of(w, den);
    int64_t at = (int64_t)k.unit * w.x.rows + row, all = (int64_t)w.B * w.H * w.x.rows;
    k.m->inverse[r] = inverse;
    if (k.strip || row < 0 || row >= w.x.rows) return;
    if (w.den_part) w.den_part[k.slice * all + at] = den;
    else if (w.inverse) w.inverse[at] = inverse;
}

/* P = x y' + row col', 16 rows by each warp, cut at the diagonal; and den. */
template <typename T, int W, int reverse> static __device__ __forceinline__ void score_step(const walk &w, const walker<T, W> &k, int p)
{
    walk_memory<T, W> *m = k.m;
    int i0 = warp_id();
    float den[2] = { 0, 0 };
    acc s[BLOCKS];
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) clear(s[j]);
    #pragma unroll 1
    for (int c = 0; c < BLOCKS * W; c++) {
        frag<T> x = load_rows(m->x[c / BLOCKS], 16 * i0, c % BLOCKS * 16);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++)
            if (reverse ? j >= i0 : j <= i0) product(s[j], x, load_rows(m->y[c / BLOCKS], 16 * j, c % BLOCKS * 16));
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        if (reverse ? j < i0 : j > i0) continue;
        if (w.h && k.slice == 0) {
            #pragma unroll
            for (int i = 0; i < 8; i++) s[j].c[i] += m->row[16 * i0 + acc_row(i)] * m->col[16 * j + acc_col(i)];
        }
        if (j == i0) {
            #pragma unroll
            for (int i = 0; i < 8; i++) if (reverse ? acc_col(i) < acc_row(i) : acc_col(i) > acc_row(i)) s[j].c[i] = 0;
        }
        #pragma unroll
        for (int i = 0; i < 8; i++) den[i >> 1 & 1] += to_float(from_float<T>(s[j].c[i]));    /* as it will meet z */
        store_acc(m->P, 16 * i0, 16 * j, s[j]);
    }
    if (w.sum != SUM_Y) return;
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        den[n] += __shfl_xor_sync(~0u, den[n], 1);
        den[n] += __shfl_xor_sync(~0u, den[n], 2);
        int r = 16 * i0 + acc_row(2 * n);
        if ((lane_id() & 3) == 0) finish_den(w, k, p, r, den[n] + m->den[r]);
    }
}

/* ---- the state --------------------------------------------------------------------------------------------------------- */

/* 16 rows x 16 columns of out, from row 16 i on, to parts, or times 1/den to m->O. */
template <typename T, int W> static __device__ __forceinline__ void put_out(const walk &w, const walker<T, W> &k, int p, int i, acc &o)
{
    int e0 = 16 * warp_id();
    if (!w.part) {
        if (w.sum == SUM_Y) {
            float by[2] = { k.m->inverse[16 * i + acc_row(0)], k.m->inverse[16 * i + acc_row(2)] };
            #pragma unroll
            for (int n = 0; n < 8; n++) o.c[n] *= by[n >> 1 & 1];
        }
        store_acc(k.m->O, 16 * i, e0, o);
        return;
    }
    int64_t heads = (int64_t)w.B * (w.H / w.x_share), unit = (int64_t)k.b * (w.H / w.x_share) + k.hx, part = k.slice * w.x_share + k.h % w.x_share;
    #pragma unroll
    for (int n = 0; n < 8; n += 2) {
        int row = p + 16 * i + acc_row(n) - w.x.off, col = k.strip * TILE + e0 + acc_col(n);
        if (row < 0 || row >= w.x.rows) continue;
        float *to = w.part + ((part * heads + unit) * w.x.rows + row) * w.z.width + col;
        if (w.z.width % 2 == 0 && col < w.z.width) *reinterpret_cast<float2 *>(to) = make_float2(o.c[n], o.c[n + 1]);
        else for (int e = 0; e < 2; e++) if (col + e < w.z.width) to[e] = o.c[n + e];
    }
}

/* What the operand s lacks of the numbers y. */
static __device__ __forceinline__ frag<bf16> rest_of(const acc &y, const frag<bf16> &s)
{
    acc rest;
    #pragma unroll
    for (int i = 0; i < 4; i++) rest.c[2 * i] = y.c[2 * i] - low(s.r[i]), rest.c[2 * i + 1] = y.c[2 * i + 1] - high(s.r[i]);
    return operand<bf16>(rest);
}

/* out = x S + P z + row sum of all 64 rows, then S += y z', for this warp's 16 columns of z. */
template <typename T, int W, int reverse> static __device__ __forceinline__ void state_step(const walk &w, walker<T, W> &k, int p)
{
    walk_memory<T, W> *m = k.m;
    int e0 = 16 * warp_id();
    frag<T> z[BLOCKS];
    #pragma unroll
    for (int j = 0; j < BLOCKS && w.writes; j++) z[j] = load_cols(m->z, 16 * j, e0);
    if (w.reads) {
        frag<T> s[BLOCKS * W];
        #pragma unroll
        for (int c = 0; c < BLOCKS * W; c++) s[c] = operand<T>(k.S[c]);
        #pragma unroll 1
        for (int i = 0; i < BLOCKS; i++) {
            acc o;
            clear(o);
            #pragma unroll
            for (int c = 0; c < BLOCKS * W; c++) product(o, load_rows(m->x[c / BLOCKS], 16 * i, c % BLOCKS * 16), s[c]);
            if constexpr (sizeof(T) == 2) {             /* all keys are in S, and their weights must add up to den */
                #pragma unroll
                for (int c = 0; c < BLOCKS * W && !w.writes; c++)
                    product(o, load_rows(m->x[c / BLOCKS], 16 * i, c % BLOCKS * 16), rest_of(k.S[c], s[c]));
            }
            if (w.writes) {
                #pragma unroll
                for (int j = 0; j < BLOCKS; j++)
                    if (reverse ? j >= i : j <= i) product(o, load_rows(m->P, 16 * i, 16 * j), z[j]);
            }
            if (w.sum == SUM_Z && k.slice == 0) {
                #pragma unroll
                for (int n = 0; n < 8; n++) o.c[n] += m->row[16 * i + acc_row(n)] * m->sum[k.now][e0 + acc_col(n)];
            }
            put_out(w, k, p, i, o);
        }
    }
    #pragma unroll
    for (int c = 0; c < BLOCKS * W && w.writes; c++) {
        acc more;
        clear(more);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) product(sizeof(T) == 2 ? k.S[c] : more, z[j], load_cols(m->y[c / BLOCKS], 16 * j, c % BLOCKS * 16));
        #pragma unroll
        for (int n = 0; n < 8 && sizeof(T) == 4; n++) k.S[c].c[n] += more.c[n];
    }
}

/* Eight numbers of a row, of which `left` exist. */
template <typename T> static __device__ __forceinline__ void read_left(const T *p, int left, float *x)
{
    #pragma unroll
    for (int i = 0; i < 8; i++) x[i] = i < left ? to_float(p[i]) : 0;
}
template <typename T> static __device__ __forceinline__ void write_left(T *p, int left, const float *x)
{
    #pragma unroll
    for (int i = 0; i < 8; i++) if (i < left) p[i] = from_float<T>(x[i]);
}

/* m->O to memory, times the slope of raw; rows that do not exist become 0. */
template <typename T, int W> static __device__ __forceinline__ void store_out(const walk &w, const walker<T, W> &k, int p)
{
    int r = threadIdx.x >> 3, c = (threadIdx.x & 7) * 8, col = k.strip * TILE + c, left = w.z.width - col, row = p + r - w.x.off;
    if (left <= 0) return;
    T *out = (T *)w.out.p + k.b * w.out.sb + k.hx * w.out.sh + col + row * w.out.st;
    const T *raw = (const T *)w.raw.p + k.b * w.raw.sb + k.hx * w.raw.sh + col + row * w.raw.st;
    int64_t out_step = SUMMERS * w.out.st, raw_step = SUMMERS * w.raw.st;
    #pragma unroll 1
    for (; r < TILE; r += SUMMERS, row += SUMMERS, out += out_step, raw += raw_step) {
        float x[8] = { 0 }, y[8];
        if (row < 0 || row >= w.x.rows) continue;
        if (row < k.x_end) {
            read8(k.m->O + r * LD + c, x);
            if (w.raw.map.map != K_MAP_IDENTITY) {
                if (w.out_vector) read8(raw, y);
                else read_left(raw, left, y);
                multiply_slope<T, 8>(w.raw.map, y, x);
            }
        }
        if (w.out_vector) write8(out, x);
        else write_left(out, left, x);
    }
}

/* Number n of S, of 16 columns of x from 16 c on, in the state of a head; -1 beyond its ends. */
template <typename T, int W> static __device__ __forceinline__ int64_t state_at(const walk &w, const walker<T, W> &k, int c, int n)
{
    int e = k.strip * TILE + 16 * warp_id() + acc_row(n), x = k.slice * W * TILE + 16 * c + acc_col(n);
    return e < w.z.width && x < w.x.width ? x * w.x_step + e * w.z_step : -1;
}

/* S and the sum before the first chunk. */
template <typename T, int W> static __device__ __forceinline__ void load_state(const walk &w, walker<T, W> &k)
{
    int64_t at = ((int64_t)k.b * (w.H / w.y_share) + k.hy) * w.states + (w.one_state ? 0 : k.segment);
    int first = (w.sum == SUM_Y ? k.slice * W : k.strip) * TILE;
    #pragma unroll
    for (int c = 0; c < BLOCKS * W; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int64_t i = w.state_in ? state_at(w, k, c, n) : -1;
            k.S[c].c[n] = i >= 0 ? w.state_in[at * w.state_size + i] : 0;
        }
    }
    for (int i = threadIdx.x; i < W * TILE; i += THREADS)
        k.m->sum[0][i] = w.sum_in && w.sum != SUM_NONE && first + i < w.sum_size ? w.sum_in[at * w.sum_size + first + i] : 0;
}

/* S and the sum after the last chunk, of a walk that only writes. */
template <typename T, int W> static __device__ __forceinline__ void store_state(const walk &w, const walker<T, W> &k)
{
    int64_t at = (int64_t)k.unit * w.states + k.segment;
    int first = (w.sum == SUM_Y ? k.slice * W : k.strip) * TILE, again = w.sum == SUM_Y ? k.strip : k.slice;
    #pragma unroll
    for (int c = 0; c < BLOCKS * W; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int64_t i = state_at(w, k, c, n);
            if (i >= 0) w.state_out[at * w.state_size + i] = k.S[c].c[n];
        }
    }
    for (int i = threadIdx.x; i < (w.sum == SUM_Y ? W : 1) * TILE && w.sum != SUM_NONE && !again; i += THREADS)
        if (first + i < w.sum_size) w.sum_out[at * w.sum_size + first + i] = k.m->sum[k.now][i];
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------------ */

/* Blocks of one multiprocessor that the registers are made to suffice for. */
template <typename T, int W> struct walk_blocks { enum { N = sizeof(T) == 4 ? 2 : W == 1 ? 4 : 3 }; };

template <typename T, int W, int reverse> static __global__ void __launch_bounds__(THREADS, walk_blocks<T, W>::N) walk_kernel(const __grid_constant__ walk w)
{
    extern __shared__ __align__(16) unsigned char memory[];
    walker<T, W> k = walker_of(w, reinterpret_cast<walk_memory<T, W> *>(memory));
    int from = k.segment * w.per_segment, to = min(from + w.per_segment, w.chunks), waiting = 0, p = 0;
    load_state(w, k);
    for (int n = from; n <= to; n++) {
        int before = p;
        p = w.first + (reverse ? from + to - 1 - n : n) * TILE;
        __syncthreads();
        if (n < to) load_step(w, k, p);
        if (waiting) store_out(w, k, before);
        if (n == to) break;
        load_aside(w, k, p);
        if (threadIdx.x < TILE) k.m->den[threadIdx.x] = 0;
        loads_wait<0>();
        __syncthreads();
        map_step(w, k, p);
        __syncthreads();
        if (w.writes && w.sum != SUM_NONE) add_sums(w, k);
        if (w.reads && w.writes) score_step<T, W, reverse>(w, k, p);
        else if (w.reads && w.sum == SUM_Y && threadIdx.x < TILE) finish_den(w, k, p, threadIdx.x, k.m->den[threadIdx.x]);
        __syncthreads();
        state_step<T, W, reverse>(w, k, p);
        if (w.writes && w.sum != SUM_NONE) k.now = 1 - k.now;
        waiting = w.reads && !w.part;
    }
    if (w.state_out) store_state(w, k);
}

#endif
