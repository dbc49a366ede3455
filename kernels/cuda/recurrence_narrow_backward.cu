/* recurrence_narrow_backward.cu - gradients of fading memories of at most 64 x 64, from the last token to the first: a block
 * has a memory, and R = dL/dS in its registers.  With w_ij the fade from j to i, G = d_o and what recurrence.cuh names:
 *   dP = tril(scale G X') o w,  dA = -stril(dV X') o w (delta)
 *   dq = dP K + in (scale G S'),  dk = dP'Q + out (X R') + dA K + dA'K - in (dV S')
 * Products over the values are by rows, a group has 16 tokens; what adds to values and memory is by columns of the values, of
 * which a group has 16, as in forward.  Sides have two blocks of 16 channels, or of tokens. */
#include "recurrence_narrow_gates.cuh"

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

template <typename T, int KIND> static __device__ __forceinline__ void load_reader(const recurrence &x, const backward_block<T, KIND> &k, int g)
{
    reader_at from = reader_of(x, k.at, g);
    fetch(k.m->q, head_rows<T>(x, x.r.q, k.at.b, from.hq, x.r.D, x.vector_q), k.at.t0);
    fetch(k.m->g, head_rows<T>(x, x.r.d_o, k.at.b, from.ho, x.r.E, x.vector_o), k.at.t0);
}
template <typename T, int KIND> static __device__ __forceinline__ void load_keys(const recurrence &x, const backward_block<T, KIND> &k)
{
    fetch(k.m->k, head_rows<T>(x, x.r.k, k.at.b, k.at.hk, x.r.D, x.vector_k), k.at.t0);
}
/* A dense tile. */
template <typename T> static __device__ __forceinline__ void load_kept(T *tile, void *tiles, int64_t n)
{
    fetch(tile, rows_at<T>{ tile_at<T>(tiles, n), TILE, 0, TILE, TILE, 1 }, 0);
}

/* All tiles of the chunk, and what the gates make of its rows but for those of q. */
template <typename T, int KIND> static __device__ __forceinline__ void load_chunk(const recurrence &x, backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    load_reader(x, k, 0);
    load_keys(x, k);
    if (KIND == DELTA) load_kept(m->v, x.X, k.at.at);
    else fetch(m->v, head_rows<T>(x, x.r.v, k.at.b, k.at.hv, x.r.E, x.vector_v), k.at.t0);
    load_kept(m->S, x.S, k.at.at);
    if constexpr (KIND == EACH) fetch(m->gate, head_rows<T>(x, x.r.gate, k.at.b, k.at.h, x.r.D, x.vector_gate), k.at.t0);
    else k.slope = find_tokens<T>(x, k.at, &m->tokens);
    loads_done();
    if constexpr (KIND == EACH) {
        float2 b[ROWS];
        k.steep = find_channels<T, SIDES>(x, k.at, m->gate, &m->channels, b);
        keep_sums<SIDES>(m->b, b);
        if (!k.steep) fade_tile<T, SIDES>(m->k, b, make_float2(0, 0), -1);
        __syncthreads();                                /* for the channels' numbers */
    }
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        acc y = k.R[n];
        if constexpr (KIND == EACH) {
            #pragma unroll
            for (int i = 0; i < 8; i++) y.c[i] *= m->channels.after[16 * own(n) + acc_col(i)];
        }
        store_acc(m->R, 16 * group(), 16 * own(n), y);
    }
}

/* The gradients of a reader's scores. */
template <typename T, int KIND> static __device__ __forceinline__ void find_dP(const recurrence &x, const backward_block<T, KIND> &k,
                                                                               const token_numbers *tokens)
{
    backward_tiles<T, KIND> *m = k.m;
    frag<T> rows[BLOCKS];
    load_own_rows(rows, m->g);
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        int j = own(n);
        if (j > group()) break;
        acc p;
        clear(p);
        #pragma unroll
        for (int s = 0; s < BLOCKS; s++) product(p, rows[s], KIND == DELTA ? load_cols(m->v, 16 * s, 16 * j) : load_rows(m->v, 16 * j, 16 * s));
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * group() + acc_row(i), c = 16 * j + acc_col(i);
            float w = (float)x.r.scale;
            if (KIND != EACH && c <= r) w *= exponential<T>(tokens->b[r] - tokens->b[c]) * (x.stepped ? tokens->step[c] : 1);
            p.c[i] = c > r ? 0 : p.c[i] * w;
        }
        store_acc(m->dP, 16 * group(), 16 * j, p);
    }
}

/* Scores of a reader, and their gradients. */
template <typename T> static __device__ __forceinline__ void find_chunk(const recurrence &x, const backward_block<T, EACH> &k, int g)
{
    backward_tiles<T, EACH> *m = k.m;
    float2 b[ROWS];
    if (k.steep) steep_scores(m->q, m->k, m->b, m->P, m->P);
    read_sums<SIDES>(m->b, b);
    fade_tile<T, SIDES>(m->q, b, make_float2(0, 0), 1);
    if (k.steep && g == 0) fade_tile<T, SIDES>(m->k, b, end_of(&m->channels), -1);
    __syncthreads();
    if (!k.steep) find_scores<T, EACH, SIDES>(x, m->q, m->k, NULL, m->P);
    find_dP(x, k, NULL);
}
template <typename T, int KIND> static __device__ __forceinline__ void find_chunk(const recurrence &x, const backward_block<T, KIND> &k, int g)
{
    find_reader<T, KIND, SIDES>(x, g, k.m, reinterpret_cast<float *>(k.m->dV + 16 * group() * LD));
    find_dP(x, k, &k.m->tokens);
}

/* ---- columns ------------------------------------------------------------------------------------------------------------- */

/* Columns of the values x tokens times `by` of the token, as an operand. */
template <typename T> static __device__ __forceinline__ frag<T> weighted(acc y, const float *by, float scale, int j)
{
    #pragma unroll
    for (int i = 0; i < 8; i++) y.c[i] *= scale * by[16 * j + acc_col(i)];
    return operand<T>(y);
}

/* What later tokens ask of the chunk's: dX, and R as far as it is theirs. */
template <typename T, int KIND> static __device__ __forceinline__ void later_columns(backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    frag<T> R[BLOCKS];
    load_own_rows(R, m->R);
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        k.dX[n] = rows_product(R, m->k, own(n));
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int at = 16 * own(n) + acc_col(i);
            if constexpr (KIND == EACH) k.R[n].c[i] *= m->channels.left[at];
            else {
                k.dX[n].c[i] *= m->tokens.out[at];
                k.R[n].c[i] *= m->tokens.in[TILE - 1];
            }
        }
    }
}

/* What a reader asks of the values and of the memory. */
template <typename T, int KIND> static __device__ __forceinline__ void reader_columns(const recurrence &x, backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    float scale = (float)x.r.scale;
    frag<T> G[BLOCKS];
    #pragma unroll
    for (int i = 0; i < BLOCKS; i++) G[i] = load_cols(m->g, 16 * i, 16 * group());
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        acc y;
        clear(y);
        #pragma unroll
        for (int i = 0; i < BLOCKS; i++) if (i >= own(n)) product(y, G[i], load_cols(m->P, 16 * i, 16 * own(n)));
        #pragma unroll
        for (int i = 0; i < 8; i++) k.dX[n].c[i] += scale * y.c[i];
    }
    #pragma unroll
    for (int i = 0; i < BLOCKS; i++) if constexpr (KIND != EACH) G[i] = weighted<T>(numbers(G[i]), m->tokens.in, scale, i);
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        acc more;
        clear(more);
        #pragma unroll
        for (int i = 0; i < BLOCKS; i++) product(more, G[i], load_cols(m->q, 16 * i, 16 * own(n)));
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            k.R[n].c[i] += KIND == EACH ? scale * more.c[i] : more.c[i];
        }
    }
}

/* Of delta: dV of dX, and what the memory is asked by the keys.  Both sides solve, each for all tokens. */
template <typename T> static __device__ __forceinline__ void delta_columns(backward_block<T, DELTA> &k)
{
    backward_tiles<T, DELTA> *m = k.m;
    acc y[BLOCKS];
    frag<T> solved[BLOCKS];
    #pragma unroll
    for (int n = 0; n < OWN; n++) store_acc(m->dV, 16 * group(), 16 * own(n), k.dX[n]);
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) y[j] = numbers(load_rows(m->dV, 16 * group(), 16 * j));
    __syncthreads();
    solve_back(m->A, y, solved);
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) y[j].c[i] *= m->tokens.beta[16 * j + acc_col(i)];
        solved[j] = weighted<T>(y[j], m->tokens.in, -1, j);
        if (j % SIDES == side<SIDES>()) {
            k.dX[j / SIDES] = y[j];
            store_acc(m->dV, 16 * group(), 16 * j, y[j]);
        }
    }
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) product(k.R[n], solved[j], load_cols(m->k, 16 * j, 16 * own(n)));
    }
}

/* The gradient of the values, through P's room. */
template <typename T, int KIND> static __device__ __forceinline__ void put_values(const recurrence &x, const backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    float skip = x.r.d_skip ? ((const float *)x.r.d_skip)[k.at.h] : 0;
    int e0 = 16 * group();
    if (!x.r.dv.p) return;
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int t = 16 * own(n) + acc_col(i), e = e0 + acc_row(i);
            float y = k.dX[n].c[i] + (skip != 0 ? skip * to_float(m->g[t * LD + e]) : 0);
            if (x.direct_v) m->P[t * LD + e] = from_float<T>(y);
            else if (k.at.t0 + t < x.r.T && e < x.r.E) x.dv[((int64_t)k.at.unit * x.r.T + k.at.t0 + t) * x.r.E + e] = y;
        }
    }
    if (!x.direct_v) return;
    __syncwarp();
    T *to = (T *)x.r.dv.p + k.at.b * x.r.dv.sb + k.at.hv * x.r.dv.sh + k.at.t0 * x.r.dv.st;
    #pragma unroll 1
    for (int n = 0; n < OWN; n++) put_block(to, x.r.dv.st, x.vector_v, x.r.E, x.r.T - k.at.t0, m->P, 16 * own(n), e0);
}

/* ---- rows again ---------------------------------------------------------------------------------------------------------- */

/* y += left right, over 16 of right's rows. */
template <typename T> static __device__ __forceinline__ void add_products(acc y[OWN], const frag<T> &left, const T *right, int row)
{
    #pragma unroll
    for (int n = 0; n < OWN; n++) product(y[n], left, load_cols(right, row, 16 * own(n)));
}
/* The gradient d of normalised rows becomes that of the rows before: factor (d - row (d.row)). */
template <typename T, int KIND> static __device__ __forceinline__ void norm_back(const recurrence &x, backward_tiles<T, KIND> *m,
                                                                                 const T *rows, const float *factor, acc d[OWN])
{
    float dot[2] = { 0, 0 };
    if (x.r.norm != K_NORM_L2) return;
    add_dots(rows, d, 1, dot);
    __syncthreads();
    put_dots(dot, m->dot);
    __syncthreads();
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * group() + acc_row(i);
            d[n].c[i] = factor[r] * (d[n].c[i] - (m->dot[0][r] + m->dot[1][r]) * to_float(rows[r * LD + 16 * own(n) + acc_col(i)]));
        }
    }
}

/* The gradient d of features becomes that of the numbers that they are of, and goes out: factor (d - (d.row)), times row for
 * l2, times the slope of the map.  Rows are made again, unrounded: where few features are large, d and d.row all but cancel. */
template <typename T> static __device__ __noinline__ void put_mapped(row_rule w, rows_at<T> from, int t0, const float *factor, const float *d, T *to, int64_t st)
{
    enum { TIMES = TILE * 8 / ALL };
    int c = threadIdx.x % 8 * 8;
    float numbers[TIMES][8], row[8], y[8];
    #pragma unroll
    for (int n = 0; n < TIMES; n++) read_row8(from, t0 + (int)(threadIdx.x + n * ALL) / 8, c, numbers[n]);
    __syncthreads();                                    /* for d, while the rows are on their way */
    #pragma unroll
    for (int n = 0; n < TIMES; n++) {
        int i = (int)(threadIdx.x + n * ALL) / 8;
        float along = 0;
        read8(d + i * LD + c, y);
        #pragma unroll
        for (int e = 0; e < 8; e++) row[e] = numbers[n][e];
        map_row8<T>(w, c, row);
        #pragma unroll
        for (int e = 0; e < 8; e++) row[e] *= factor[i], along += row[e] * y[e];
        along = w.norm == K_NORM_NONE ? 0 : row_total(along);
        #pragma unroll
        for (int e = 0; e < 8; e++) y[e] = factor[i] * (y[e] - along * (w.norm == K_NORM_L2 ? row[e] : 1));
        multiply_slope<T, 8>(w.map, numbers[n], y);
        if (t0 + i >= from.hi || c >= w.D) continue;
        if (from.vector) write8(to + i * st + c, y);
        else for (int e = 0; e < 8 && c + e < w.D; e++) to[i * st + c + e] = from_float<T>(y[e]);
    }
}

/* Where the gradient of one role's rows goes. */
struct rows_way { const k_heads &from, &to; int head, direct, vector; float *dense; };

/* 16 rows of a gradient: in its own dtype through a stage, or to floats [T,D] of the head. */
template <typename T> static __device__ __forceinline__ void put_rows(const recurrence &x, const chunk_at &k, T *stage, const rows_way &s, const acc d[OWN])
{
    int r0 = 16 * group();
    if (!s.to.p) return;
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        if (s.direct) store_acc(stage, r0, 16 * own(n), d[n]);
        #pragma unroll
        for (int i = 0; i < 8 && !s.direct; i++) {
            int row = k.t0 + r0 + acc_row(i), e = 16 * own(n) + acc_col(i);
            if (row < x.r.T && e < x.r.D) s.dense[(int64_t)row * x.r.D + e] = d[n].c[i];
        }
    }
    __syncwarp();
    T *to = (T *)s.to.p + k.b * s.to.sb + s.head * s.to.sh + k.t0 * s.to.st;
    #pragma unroll 1
    for (int n = 0; n < OWN && s.direct; n++) put_block(to, s.to.st, s.vector, x.r.D, x.r.T - k.t0, stage, r0, 16 * own(n));
}

/* The gradient d of a tile's rows, of which the group has 16, to where it belongs. */
template <typename T, int KIND> static __device__ __forceinline__ void rows_out(const recurrence &x, const backward_block<T, KIND> &k, const T *tile,
                                                                                const float *factor, const rows_way &s, acc d[OWN])
{
    if (!x.mapped) {
        norm_back<T, KIND>(x, k.m, tile, factor, d);
        put_rows(x, k.at, k.m->P, s, d);
        return;
    }
    __syncthreads();                                    /* nobody needs P and dP */
    #pragma unroll
    for (int n = 0; n < OWN; n++) store_acc(k.m->share, 16 * group(), 16 * own(n), d[n]);
    T *to = (T *)s.to.p + k.at.b * s.to.sb + s.head * s.to.sh + k.at.t0 * s.to.st;
    if (s.to.p) put_mapped(rule_of(x), head_rows<T>(x, s.from, k.at.b, s.head, x.r.D, s.vector), k.at.t0, factor, k.m->share, to, s.to.st);
}

/* The fades of row r, column c that stand before dq's share from the memory, and dk's of what is left to it. */
template <typename T, int KIND> static __device__ __forceinline__ float fade_in(const backward_block<T, KIND> &k, int r, int c)
{
    if constexpr (KIND == EACH) return k.steep ? exponential<T>(k.m->b[r * LD + c]) : 1;
    else return k.m->tokens.in[r];
}
template <typename T, int KIND> static __device__ __forceinline__ float fade_out(const backward_block<T, KIND> &k, int r, int c)
{
    if constexpr (KIND == EACH) return k.steep ? exponential<T>(k.m->b[(TILE - 1) * LD + c] - k.m->b[r * LD + c]) : 1;
    else return k.m->tokens.out[r];
}
/* What brings numbers that fit a tile's rows to the rows as they came: e^(sign b), steep: 1, for they did. */
template <typename T> static __device__ __forceinline__ void unfade(const backward_block<T, EACH> &k, acc y[OWN], float sign)
{
    if (k.steep) return;
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * group() + acc_row(i), c = 16 * own(n) + acc_col(i);
            y[n].c[i] *= exponential<T>(sign * k.m->b[r * LD + c]);
        }
    }
}

/* dq and dk of a reader's pairs. */
template <typename T, int KIND> static __device__ __forceinline__ void pairs_rows(backward_block<T, KIND> &k, acc dq[OWN])
{
    backward_tiles<T, KIND> *m = k.m;
    if constexpr (KIND == EACH) if (k.steep) {
        acc more[2][BLOCKS];                            /* arrays that a call takes live in memory: dq and dk shall not */
        steep_back(m->dP, m->q, m->k, m->b, m->P, more[0], more[1]);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            if (j % SIDES != side<SIDES>()) continue;
            #pragma unroll
            for (int i = 0; i < 8; i++) dq[j / SIDES].c[i] += more[0][j].c[i], k.dk[j / SIDES].c[i] += more[1][j].c[i];
        }
        return;
    }
    #pragma unroll
    for (int n = 0; n < BLOCKS; n++) {
        if (n <= group()) add_products(dq, load_rows(m->dP, 16 * group(), 16 * n), m->k, 16 * n);
        if (n >= group()) add_products(k.dk, load_cols(m->dP, 16 * n, 16 * group()), m->q, 16 * n);
    }
}

/* dq of a reader, and what its pairs ask of the keys. */
template <typename T, int KIND> static __device__ __forceinline__ void reader_rows(const recurrence &x, backward_block<T, KIND> &k, int g)
{
    backward_tiles<T, KIND> *m = k.m;
    reader_at from = reader_of(x, k.at, g);
    const rows_way way = { x.r.q, x.r.dq, from.hq, x.direct_q, x.vector_q, x.dq ? x.dq + ((int64_t)k.at.b * x.r.Ho + from.ho) * x.r.T * x.r.D : NULL };
    int r0 = 16 * group();
    acc dq[OWN];
    clear_all(dq);
    #pragma unroll
    for (int s = 0; s < BLOCKS; s++) add_products(dq, load_rows(m->g, r0, 16 * s), m->S, 16 * s);
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) dq[n].c[i] *= (float)x.r.scale * fade_in(k, r0 + acc_row(i), 16 * own(n) + acc_col(i));
    }
    pairs_rows(k, dq);
    if constexpr (KIND == EACH) {
        #pragma unroll
        for (int n = 0; n < OWN; n++) {
            #pragma unroll
            for (int i = 0; i < 8; i++) k.from[n].c[i] += dq[n].c[i] * to_float(m->q[(r0 + acc_row(i)) * LD + 16 * own(n) + acc_col(i)]);
        }
        unfade(k, dq, 1);
        put_rows(x, k.at, m->P, way, dq);
    } else {
        add_dots(m->q, dq, 1, k.own_from);
        rows_out<T, KIND>(x, k, m->q, m->tokens.q_factor, way, dq);
    }
}

/* dk of what the chunk leaves for later; the shares of the pairs so far, and its own, in to or as numbers of a tile. */
template <typename T, int KIND> static __device__ __forceinline__ void later_rows(const recurrence &x, backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    int r0 = 16 * group();
    acc later[OWN];
    clear_all(later);
    #pragma unroll
    for (int s = 0; s < BLOCKS; s++) add_products(later, KIND == DELTA ? load_cols(m->v, 16 * s, r0) : load_rows(m->v, r0, 16 * s), m->R, 16 * s);
    if constexpr (KIND != EACH) add_dots(m->k, k.dk, -1, k.own_from);
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = r0 + acc_row(i), c = 16 * own(n) + acc_col(i);
            later[n].c[i] *= fade_out(k, r, c);
            if constexpr (KIND == EACH) {
                float key = to_float(m->k[r * LD + c]);
                k.from[n].c[i] -= key * k.dk[n].c[i];
                m->share[r * LD + c] = key * later[n].c[i];
            }
        }
    }
    add(k.dk, later);
    if constexpr (KIND != EACH) add_dots(m->k, later, 1, k.own_to);
    if constexpr (KIND == ONE) if (x.stepped) add_dots(m->k, k.dk, 1, k.own_step);
}

/* dA of the group's rows, in place of A. */
template <typename T> static __device__ __forceinline__ void find_dA(const backward_block<T, DELTA> &k, const frag<T> dV[BLOCKS])
{
    backward_tiles<T, DELTA> *m = k.m;
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        int j = own(n);
        if (j > group()) break;
        acc p;
        clear(p);
        #pragma unroll
        for (int s = 0; s < BLOCKS; s++) product(p, dV[s], load_cols(m->v, 16 * s, 16 * j));
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * group() + acc_row(i), c = 16 * j + acc_col(i);
            p.c[i] = c < r ? -p.c[i] * exponential<T>(m->tokens.b[r] - m->tokens.b[c]) : 0;
        }
        store_acc(m->A, 16 * group(), 16 * j, p);
    }
}

/* dk of what delta reads from the memory and of the pairs of keys that it compares. */
template <typename T> static __device__ __forceinline__ void delta_rows(backward_block<T, DELTA> &k)
{
    backward_tiles<T, DELTA> *m = k.m;
    int i0 = group();
    acc read[OWN], write[OWN];
    frag<T> dV[BLOCKS];
    clear_all(read), clear_all(write);
    #pragma unroll
    for (int s = 0; s < BLOCKS; s++) {
        dV[s] = load_cols(m->dV, 16 * s, 16 * i0);
        add_products(read, dV[s], m->S, 16 * s);
    }
    #pragma unroll
    for (int n = 0; n < OWN; n++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) read[n].c[i] *= -m->tokens.in[16 * i0 + acc_row(i)];
    }
    find_dA(k, dV);
    __syncthreads();
    #pragma unroll
    for (int n = 0; n < BLOCKS; n++) {
        if (n <= i0) add_products(read, load_rows(m->A, 16 * i0, 16 * n), m->k, 16 * n);
        if (n >= i0) add_products(write, load_cols(m->A, 16 * n, 16 * i0), m->k, 16 * n);
    }
    add_dots(m->k, read, 1, k.own_from), add_dots(m->k, write, -1, k.own_from);
    add(k.dk, read), add(k.dk, write);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------------ */

/* dX, R and the gradients of queries. */
template <typename T, int KIND> static __device__ __forceinline__ void readers_back(const recurrence &x, backward_block<T, KIND> &k)
{
    clear_all(k.dk), clear_all(k.from);
    k.own_from[0] = k.own_from[1] = k.own_to[0] = k.own_to[1] = k.own_step[0] = k.own_step[1] = 0;
    #pragma unroll 1
    for (int g = 0; g < x.G; g++) {
        if (g) {
            __syncthreads();
            load_reader(x, k, g);
            loads_done();
        }
        find_chunk(x, k, g);
        __syncthreads();
        if (g == 0) later_columns(k);
        reader_columns(x, k);
        __syncthreads();
        if (k.steep) {                                  /* pairs need rows as they came */
            load_reader(x, k, g);
            load_keys(x, k);
            loads_done();
        }
        reader_rows(x, k, g);
    }
    __syncthreads();
}

/* The gradients of values, keys and gates. */
template <typename T, int KIND> static __device__ __forceinline__ void tokens_back(const recurrence &x, backward_block<T, KIND> &k)
{
    backward_tiles<T, KIND> *m = k.m;
    if constexpr (KIND == DELTA) delta_columns(k);
    put_values(x, k);
    skip_back(x, k);
    __syncthreads();
    later_rows(x, k);
    if constexpr (KIND == DELTA) delta_rows(k);
    if (x.delta || x.r.decay != K_DECAY_FIXED) gates_back(x, k);
    const rows_way way = { x.r.k, x.r.dk, k.at.hk, x.direct_k, x.vector_k, x.dk ? x.dk + (int64_t)k.at.unit * x.r.T * x.r.D : NULL };
    if constexpr (KIND == EACH) {
        unfade(k, k.dk, -1);
        put_rows(x, k.at, m->P, way, k.dk);
    } else rows_out<T, KIND>(x, k, m->k, m->tokens.k_factor, way, k.dk);
}

/* The sum over all threads. */
static __device__ float block_total(float x, float *room)
{
    float sum = 0;
    x = warp_total(x);
    __syncthreads();
    if (lane_id() == 0) room[warp_id()] = x;
    __syncthreads();
    for (int w = 0; w < ALL_WARPS; w++) sum += room[w];
    return sum;
}

template <typename T, int KIND>
static __global__ void __launch_bounds__(ALL, sizeof(T) == 2 ? 2 : 1) backward_kernel(const __grid_constant__ recurrence x)
{
    extern __shared__ __align__(16) unsigned char memory[];
    backward_block<T, KIND> k;
    k.m = reinterpret_cast<backward_tiles<T, KIND> *>(memory);
    k.steep = 0, k.dlog = k.dbias = k.dskip = 0;
    clear_all(k.R);
    #pragma unroll 1
    for (int c = x.chunks - 1; c >= 0; c--) {
        k.at = chunk_of(x, blockIdx.x, c);
        __syncthreads();
        load_chunk(x, k);
        readers_back(x, k);
        tokens_back(x, k);
    }
    #pragma unroll
    for (int n = 0; n < OWN; n++) store_memory_block(x, blockIdx.x, x.r.dstate, own(n), k.R[n]);
    if (KIND == EACH) return;
    float *room = reinterpret_cast<float *>(k.m->P);
    float total[RC_PARAMS] = { block_total(k.dlog, room), block_total(k.dbias, room), block_total(k.dskip, room) };
    for (int i = 0; i < RC_PARAMS && threadIdx.x == 0; i++) x.dparam[(int64_t)i * x.r.B * x.r.H + blockIdx.x] = total[i];
}

/* ---- the host's side --------------------------------------------------------------------------------------------------------- */

template <typename T, int KIND> static void launch(const recurrence &x, cudaStream_t stream)
{
    cudaFuncSetAttribute(backward_kernel<T, KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(backward_tiles<T, KIND>));
    backward_kernel<T, KIND><<<x.r.B * x.r.H, ALL, sizeof(backward_tiles<T, KIND>), stream>>>(x);
}
template <typename T> void recurrence_narrow_backward(const recurrence &x, cudaStream_t stream)
{
    if (x.delta) launch<T, DELTA>(x, stream);
    else if (x.channel) launch<T, EACH>(x, stream);
    else launch<T, ONE>(x, stream);
}
template void recurrence_narrow_backward<float>(const recurrence &, cudaStream_t);
template void recurrence_narrow_backward<bf16>(const recurrence &, cudaStream_t);
