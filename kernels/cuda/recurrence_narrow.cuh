/* recurrence_narrow.cuh - fading memories of at most 64 x 64: a chunk of 64 tokens is done in one go, while the memory stays
 * in the registers of a block that walks through all chunks (recurrence_narrow_forward.cu, recurrence_narrow_backward.cu).
 *
 * Rows of q and k are tiles in shared memory, made in place what the products of recurrence.cuh need.  Where channels fade
 * each by itself, rows of q are multiplied by e^b and rows of k by e^-b, b the running sum of decays: their products are the
 * faded scores, and no token's numbers know of later ones.  In a chunk that fades by more than e^-STEEP they would overflow;
 * then rows of k are multiplied by the fade to the end, and scores are made by recurrence_scores.cuh.
 *
 * Delta: instead of W = (I + T)^-1 beta of recurrence.cuh a tile holds -T, with the inverses of its blocks of 16 x 16 on the
 * diagonal, and (I + T) X = beta (V - in K S) is solved block by block, each warp for its own columns of the values. */
#ifndef KERNELS_CUDA_RECURRENCE_NARROW_CUH
#define KERNELS_CUDA_RECURRENCE_NARROW_CUH
#include "recurrence_rows.cuh"
#include "recurrence_scores.cuh"

enum narrow_kind { ONE, EACH, DELTA };  /* one decay for all channels; each channel its own; one, and the delta rule */
static constexpr float STEEP = 70;

/* A block has 4 SIDES warps.  A warp belongs to a group, which has 16 rows of a result, and to a side, which has every
 * SIDES-th block of 16 columns: those from side() on. */
template <int SIDES> struct team {
    enum { THREADS_ALL = SIDES * THREADS, WARPS_ALL = SIDES * WARPS, OWN = BLOCKS / SIDES, ROWS = TILE / WARPS_ALL };
};
static __device__ __forceinline__ int group() { return warp_id() & (WARPS - 1); }
template <int SIDES> static __device__ __forceinline__ int side() { return SIDES == 1 ? 0 : warp_id() / WARPS; }

/* What belongs to the tokens of a chunk. */
struct token_numbers { float b[TILE], in[TILE], out[TILE], beta[TILE], step[TILE], k_factor[TILE], q_factor[TILE]; };
/* What belongs to the channels: e^b of the last token; the same, or 1 if rows of k have it; sums of decays over each warp's rows. */
template <int SIDES> struct channel_numbers { float left[TILE], after[TILE], sums[SIDES * WARPS][TILE]; };

/* ---- one decay for all channels --------------------------------------------------------------------------------------- */

/* b, in, out, beta and step of the chunk's tokens; returns the slope of this thread's. */
template <typename T> static __device__ float find_tokens(const recurrence &x, const chunk_at &k, token_numbers *m)
{
    int i = threadIdx.x;
    float step = 0, slope = 0, beta = 0;
    double sum = 0;
    if (i < TILE) {
        sum = scalar_gate<T>(x, k, k.t0 + i, &step, &slope, &beta);
        m->step[i] = step, m->beta[i] = beta;
    }
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        double before = __shfl_up_sync(~0u, sum, lanes);
        if (lane_id() >= lanes) sum += before;
    }
    if (i == 31) m->b[0] = (float)sum;
    __syncthreads();
    if (i >= 32) sum += m->b[0];
    __syncthreads();
    if (i < TILE) m->b[i] = (float)sum;
    __syncthreads();
    if (i >= TILE) return slope;
    m->in[i] = expf(m->b[i]);
    m->out[i] = expf(m->b[TILE - 1] - m->b[i]) * (x.stepped ? step : 1);
    return slope;
}

/* How rows are made: features of a map, D of them, divided by the length or the sum of all. */
struct row_rule { local_map map; k_norm norm; float eps; int D; };
static __device__ __forceinline__ row_rule rule_of(const recurrence &x) { return { x.map, x.r.norm, (float)x.r.norm_eps, x.r.D }; }

/* The features of eight numbers of a row, from column c on; 0 beyond the row. */
template <typename T> static __device__ __forceinline__ void map_row8(const row_rule &w, int c, float y[8])
{
    apply_map<T, 8>(w.map, y);
    #pragma unroll
    for (int e = 0; e < 8; e++) if (c + e >= w.D) y[e] = 0;
}
/* The sum over the eight threads of a row. */
static __device__ __forceinline__ float row_total(float sum)
{
    #pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    return sum;
}
/* What the norm multiplies a row by, of which each of eight threads has eight numbers. */
static __device__ __forceinline__ float norm_factor(const row_rule &w, const float y[8])
{
    float sum = 0;
    #pragma unroll
    for (int e = 0; e < 8; e++) sum += w.norm == K_NORM_SUM ? y[e] : y[e] * y[e];
    sum = row_total(sum) + w.eps;
    return w.norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : w.norm == K_NORM_SUM ? 1 / sum : 1 / sqrtf(sum);
}

/* Rows of a tile by a rule, whose map counts only where MAPPED; factor [64]: what the norm multiplied them by. */
template <typename T, int SIDES, bool MAPPED> static __device__ __forceinline__ void make_rows_of(const row_rule &w, T *tile, float *factor)
{
    #pragma unroll 1
    for (int n = threadIdx.x; n < TILE * 8; n += team<SIDES>::THREADS_ALL) {
        int i = n / 8, c = n % 8 * 8;
        float y[8];
        read8(tile + i * LD + c, y);
        if (MAPPED) map_row8<T>(w, c, y);
        float by = norm_factor(w, y);
        #pragma unroll
        for (int e = 0; e < 8; e++) y[e] *= by;
        write8(tile + i * LD + c, y);
        if (c == 0) factor[i] = by;
    }
}
/* A call, as is all that few memories need: inlined, it would not leave the rest its place in the instruction cache. */
template <typename T, int SIDES> static __device__ __noinline__ void map_rows(row_rule w, T *tile, float *factor) { make_rows_of<T, SIDES, true>(w, tile, factor); }
/* Rows of a tile as the memories see them. */
template <typename T, int SIDES> static __device__ __forceinline__ void prepare_rows(const recurrence &x, T *tile, float *factor)
{
    if (x.mapped) map_rows<T, SIDES>(rule_of(x), tile, factor);
    else if (x.r.norm == K_NORM_L2) make_rows_of<T, SIDES, false>({ no_map(), K_NORM_L2, (float)x.r.norm_eps, x.r.D }, tile, factor);
}

/* ---- a decay for each channel ------------------------------------------------------------------------------------------ */

/* Threads have the rows of their warp in two columns. */
static __device__ __forceinline__ int own_column() { return 2 * lane_id(); }
template <int SIDES> static __device__ __forceinline__ int own_number(int r) { return (team<SIDES>::ROWS * warp_id() + r) * LD + own_column(); }
static __device__ __forceinline__ float2 read2(const float *p) { return *reinterpret_cast<const float2 *>(p); }
static __device__ __forceinline__ float2 read2(const bf16 *p)
{
    uint32_t x = *reinterpret_cast<const uint32_t *>(p); return make_float2(low(x), high(x));
}
static __device__ __forceinline__ void write2(float *p, float x, float y) { *reinterpret_cast<float2 *>(p) = make_float2(x, y); }
static __device__ __forceinline__ void write2(bf16 *p, float x, float y) { *reinterpret_cast<uint32_t *>(p) = pack(x, y); }
static __device__ __forceinline__ void add2(float2 &x, float2 y) { x.x += y.x, x.y += y.y; }

/* Decays of the rows of the warps before one, in this thread's columns. */
template <int SIDES> static __device__ __forceinline__ float2 decays_before(const channel_numbers<SIDES> *m, int warp)
{
    float2 sum = { 0, 0 };
    #pragma unroll
    for (int w = 0; w < team<SIDES>::WARPS_ALL; w++) if (w < warp) add2(sum, read2(m->sums[w] + own_column()));
    return sum;
}
template <int SIDES> static __device__ __forceinline__ float2 end_of(const channel_numbers<SIDES> *m) { return decays_before<SIDES>(m, SIDES * WARPS); }

/* b of this thread's numbers of a tile of gates, and the channels' numbers; 1: the chunk is steep.  Sums are made in one order,
 * so that no b is above an earlier one, however they are rounded. */
template <typename T, int SIDES>
static __device__ __forceinline__ int find_channels(const recurrence &x, const chunk_at &k, const T *gate, channel_numbers<SIDES> *m, float2 b[team<SIDES>::ROWS])
{
    enum { ROWS = team<SIDES>::ROWS };
    int c = own_column();
    float2 sum = { 0, 0 };
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float2 y = read2(gate + own_number<SIDES>(r));
        int there = k.t0 + ROWS * warp_id() + r < x.r.T;
        sum.x += there && c < x.r.D ? channel_decay<T>(x.r, y.x) : 0;
        sum.y += there && c + 1 < x.r.D ? channel_decay<T>(x.r, y.y) : 0;
        b[r] = sum;
    }
    write2(m->sums[warp_id()] + c, sum.x, sum.y);
    __syncthreads();
    float2 before = decays_before<SIDES>(m, warp_id()), all = end_of<SIDES>(m);
    #pragma unroll
    for (int r = 0; r < ROWS; r++) add2(b[r], before);
    int steep = __syncthreads_or(fminf(all.x, all.y) < -STEEP);
    if (warp_id() == 0) {
        all.x = expf(all.x), all.y = expf(all.y);
        write2(m->left + c, all.x, all.y);
        write2(m->after + c, steep ? 1 : all.x, steep ? 1 : all.y);
    }
    return steep;
}

/* This thread's numbers of a tile times e^(sign (b - to)). */
template <typename T, int SIDES> static __device__ __forceinline__ void fade_tile(T *tile, const float2 b[team<SIDES>::ROWS], float2 to, float sign)
{
    #pragma unroll
    for (int r = 0; r < team<SIDES>::ROWS; r++) {
        T *at = tile + own_number<SIDES>(r);
        float2 y = read2(at);
        write2(at, y.x * exponential<T>(sign * (b[r].x - to.x)), y.y * exponential<T>(sign * (b[r].y - to.y)));
    }
}

/* b to a tile, and back. */
template <int SIDES> static __device__ __forceinline__ void keep_sums(float *tile, const float2 b[team<SIDES>::ROWS])
{
    #pragma unroll
    for (int r = 0; r < team<SIDES>::ROWS; r++) write2(tile + own_number<SIDES>(r), b[r].x, b[r].y);
}
template <int SIDES> static __device__ __forceinline__ void read_sums(const float *tile, float2 b[team<SIDES>::ROWS])
{
    #pragma unroll
    for (int r = 0; r < team<SIDES>::ROWS; r++) b[r] = read2(tile + own_number<SIDES>(r));
}

/* Scores of the group's 16 rows where the chunk is steep, from rows as they came; half: a tile of room, which P may be. */
template <typename T> static __device__ __noinline__ void steep_scores(const T *q, const T *k, const float *b, T *half, T *P)
{
    acc p[BLOCKS];
    for (int j = 0; j < BLOCKS; j++) clear(p[j]);
    #pragma unroll 1
    for (int h = TILE / 2; h; h /= 2) {
        make_half(q, k, b, h, half);
        half_scores(half, half, group(), h, p);
    }
    half_scores(q, k, group(), 0, p);
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) if (16 * j + acc_col(n) > 16 * group() + acc_row(n)) p[j].c[n] = 0;
        store_acc(P, 16 * group(), 16 * j, p[j]);
    }
}

/* Their gradients: the group's 16 rows of dq and of dk. */
template <typename T> static __device__ __noinline__ void steep_back(const T *dP, const T *q, const T *k, const float *b, T *half,
                                                                     acc dq[BLOCKS], acc dk[BLOCKS])
{
    for (int c = 0; c < BLOCKS; c++) clear(dq[c]), clear(dk[c]);
    #pragma unroll 1
    for (int h = TILE / 2; h; h /= 2) {
        make_half(q, k, b, h, half);
        half_back(dP, half, b, group(), h, dq, dk);
    }
    diagonal_back(dP, q, k, group(), dq, dk);
    __syncthreads();
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

/* The numbers of an operand. */
static __device__ __forceinline__ acc numbers(const frag<bf16> &f)
{
    acc y;
    #pragma unroll
    for (int i = 0; i < 4; i++) y.c[2 * i] = low(f.r[i]), y.c[2 * i + 1] = high(f.r[i]);
    return y;
}
static __device__ __forceinline__ acc numbers(const frag<float> &f)
{
    acc y;
    #pragma unroll
    for (int i = 0; i < 8; i++) y.c[i] = f.r[i];
    return y;
}

/* Block j of left right': 16 rows over 64 columns with a tile's rows. */
template <typename T> static __device__ __forceinline__ acc rows_product(const frag<T> left[BLOCKS], const T *right, int j)
{
    acc y;
    clear(y);
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) product(y, left[c], load_rows(right, 16 * j, 16 * c));
    return y;
}
template <typename T> static __device__ __forceinline__ void load_own_rows(frag<T> f[BLOCKS], const T *tile)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) f[c] = load_rows(tile, 16 * group(), 16 * c);
}

/* P of the group's 16 rows, 0 for j > i; a side's blocks. */
template <typename T, int KIND, int SIDES> static __device__ __forceinline__ void find_scores(const recurrence &x, const T *q, const T *k,
                                                                                              const token_numbers *m, T *P)
{
    frag<T> rows[BLOCKS];
    load_own_rows(rows, q);
    #pragma unroll
    for (int n = 0; n < team<SIDES>::OWN; n++) {
        int j = side<SIDES>() + n * SIDES;
        if (j > group()) break;
        acc p = rows_product(rows, k, j);
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * group() + acc_row(i), c = 16 * j + acc_col(i);
            if (c > r) p.c[i] = 0;
            else if (KIND != EACH) p.c[i] *= exponential<T>(m->b[r] - m->b[c]) * (x.stepped ? m->step[c] : 1);
        }
        store_acc(P, 16 * group(), 16 * j, p);
    }
}

/* ---- delta ------------------------------------------------------------------------------------------------------------- */

/* The inverse of I - t, t [16,16] strictly lower triangular, to a block of a tile: a column by each of 16 lanes. */
template <typename T> static __device__ __forceinline__ void invert_block(const float *t, T *block)
{
    int c = lane_id() & 15;
    float y[16];
    #pragma unroll
    for (int r = 0; r < 16; r++) {
        y[r] = r == c;
        #pragma unroll
        for (int s = 0; s < r; s++) y[r] += t[r * 16 + s] * y[s];
        if (lane_id() < 16) block[r * LD + c] = from_float<T>(y[r]);
    }
}

/* The group's 16 rows of -T, the inverse of I + T on the diagonal; a side's blocks.  room: 256 floats of the group's own. */
template <typename T, int SIDES> static __device__ __forceinline__ void find_pairs(const T *k, const token_numbers *m, float *room, T *A)
{
    int i0 = 16 * group();
    frag<T> rows[BLOCKS];
    load_own_rows(rows, k);
    #pragma unroll
    for (int n = 0; n < team<SIDES>::OWN; n++) {
        int j = side<SIDES>() + n * SIDES;
        if (j > group()) break;
        acc p = rows_product(rows, k, j);
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = i0 + acc_row(i), c = 16 * j + acc_col(i);
            p.c[i] = c < r ? -p.c[i] * exponential<T>(m->b[r] - m->b[c]) * m->beta[r] : 0;
            if (j == group()) room[acc_row(i) * 16 + acc_col(i)] = p.c[i];
        }
        if (j < group()) store_acc(A, i0, 16 * j, p);
    }
    if (group() % SIDES != side<SIDES>()) return;
    __syncwarp();
    invert_block(room, A + i0 * LD + i0);
    __syncwarp();
}

/* Rows of reader g as its products need them, and its scores; with the first one rows of keys and, for delta, their pairs.
 * One decay for all channels.  room: 256 floats of the group's own. */
template <typename T, int KIND, int SIDES, typename Tiles> static __device__ __forceinline__ void find_reader(const recurrence &x, int g, Tiles *m, float *room)
{
    prepare_rows<T, SIDES>(x, m->q, m->tokens.q_factor);
    if (g == 0) prepare_rows<T, SIDES>(x, m->k, m->tokens.k_factor);
    __syncthreads();
    find_scores<T, KIND, SIDES>(x, m->q, m->k, &m->tokens, m->P);
    if constexpr (KIND == DELTA) if (g == 0) find_pairs<T, SIDES>(m->k, &m->tokens, room, m->A);
}

/* Y (I + T)^-1' of the warp's columns of the values x 64 tokens, in place of Y; X: the result as an operand. */
template <typename T> static __device__ __forceinline__ void solve(const T *A, acc y[BLOCKS], frag<T> X[BLOCKS])
{
    #pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        #pragma unroll
        for (int k = 0; k < i; k++) product(y[i], X[k], load_rows(A, 16 * i, 16 * k));
        frag<T> rest = operand<T>(y[i]);
        clear(y[i]);
        product(y[i], rest, load_rows(A, 16 * i, 16 * i));
        X[i] = operand<T>(y[i]);
    }
}
/* The same with I + T in place of its transpose: from the last token to the first. */
template <typename T> static __device__ __forceinline__ void solve_back(const T *A, acc y[BLOCKS], frag<T> X[BLOCKS])
{
    #pragma unroll
    for (int i = BLOCKS - 1; i >= 0; i--) {
        #pragma unroll
        for (int k = i + 1; k < BLOCKS; k++) product(y[i], X[k], load_cols(A, 16 * k, 16 * i));
        frag<T> rest = operand<T>(y[i]);
        clear(y[i]);
        product(y[i], rest, load_cols(A, 16 * i, 16 * i));
        X[i] = operand<T>(y[i]);
    }
}

/* ---- to global memory ------------------------------------------------------------------------------------------------------ */

/* The warp's 16 columns of 64 rows of a tile to rows t0.. of a head. */
template <typename T> static __device__ __forceinline__ void put_columns(const recurrence &x, T *to, int64_t st, int vector, int t0, const T *tile)
{
    __syncwarp();
    #pragma unroll
    for (int n = lane_id(); n < TILE * 2; n += 32) {
        int i = n / 2, c = 16 * warp_id() + n % 2 * 8;
        float y[8];
        if (t0 + i >= x.r.T || c >= x.r.E) continue;
        read8(tile + i * LD + c, y);
        if (vector) write8(to + (t0 + i) * st + c, y);
        else for (int e = 0; e < 8 && c + e < x.r.E; e++) to[(t0 + i) * st + c + e] = from_float<T>(y[e]);
    }
    __syncwarp();
}

static __device__ __forceinline__ float warp_total(float x)
{
    #pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
    return x;
}

/* ---- the memory, transposed: 16 columns of the values, the group's, x 64 rows ------------------------------------------------- */

/* From and to [D,E] floats of a unit; NULL: zeros, and nowhere. */
static __device__ __forceinline__ void load_memory(const recurrence &x, int unit, const void *from, acc S[BLOCKS])
{
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int d = 16 * c + acc_col(n), e = 16 * group() + acc_row(n);
            S[c].c[n] = from && d < x.r.D && e < x.r.E ? ((const float *)from)[((int64_t)unit * x.r.D + d) * x.r.E + e] : 0;
        }
    }
}
static __device__ __forceinline__ void store_memory_block(const recurrence &x, int unit, void *to, int c, const acc &S)
{
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        int d = 16 * c + acc_col(n), e = 16 * group() + acc_row(n);
        if (to && d < x.r.D && e < x.r.E) ((float *)to)[((int64_t)unit * x.r.D + d) * x.r.E + e] = S.c[n];
    }
}
/* 16 rows of the warp, of 64 numbers, in a tile. */
template <typename T> static __device__ __forceinline__ void store_own_rows(T *tile, const acc y[BLOCKS])
{
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) store_acc(tile, 16 * warp_id(), 16 * c, y[c]);
}

/* S <- left S + after (X K), X the warp's columns x tokens: left and after of the channels, or one left for all. */
template <typename T, int KIND> static __device__ __forceinline__ void write_memory(acc S[BLOCKS], const frag<T> X[BLOCKS], const T *k,
                                                                                    const float *left, const float *after)
{
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        acc more;
        clear(more);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) product(more, X[j], load_cols(k, 16 * j, 16 * c));
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int d = 16 * c + acc_col(n);
            S[c].c[n] = KIND == EACH ? left[d] * S[c].c[n] + after[d] * more.c[n] : left[0] * S[c].c[n] + more.c[n];
        }
    }
}
#endif
