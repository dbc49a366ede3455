/* attention_hopper_gradient.cu - backward in bfloat16 on sm_90a, for the sets that attention_hopper.cu takes.
 *
 * Two sweeps, so that no sum crosses blocks and every run gives the same bits: a block of queries streams keys and
 * gathers dq; a block of keys streams the queries that see them and gathers dk and dv.  That costs seven products
 * where the one sweep of attention_hopper_sweep.cu takes five.  Both are one kernel over rows and columns:
 *     s = x1 y1^T,   p = 2^(scale s - level),   dp = x2 y2^T,   ds = p (dp - delta),   out1 += ds y1,   out2 += p y2
 * with x = (q, d_o), y = (k, v) for queries, and x = (k, v), y = (q, d_o) for keys, where level and delta lie along the
 * columns. */
#include "attention_hopper.cuh"

enum { COLUMNS = 64 };

/* Warpgroups that multiply, with 64 rows each: a third where registers allow. */
template <int D, bool KEYS> constexpr int GROUPS = D == 64 && !KEYS ? 3 : 2;
template <int D, bool KEYS> constexpr int ROWS = GROUPS<D, KEYS> * 64;

/* Stages of columns: what fits beside the rows and the room for results. */
template <bool KEYS> constexpr int STAGES = KEYS ? 2 : 3;

template <int D, bool KEYS> struct gradient_room {
    bf16 x1[ROWS<D, KEYS> * D], x2[ROWS<D, KEYS> * D], y1[STAGES<KEYS>][COLUMNS * D], y2[STAGES<KEYS>][COLUMNS * D];
    bf16 out1[GROUPS<D, KEYS>][64 * D], out2[KEYS ? GROUPS<D, KEYS> : 0][64 * D];
    float level[STAGES<KEYS>][COLUMNS], delta[STAGES<KEYS>][COLUMNS];
    uint64_t x_full, x_empty, full[STAGES<KEYS>], empty[STAGES<KEYS>];
};
struct gradient_maps { CUtensorMap x1, x2, y1[2], y2[2], out1, out2; };    /* columns in sequence, and those of summaries */

/* Columns that rows i .. i + n - 1 see in a pass, for query head h; tiles of queries begin where level and delta can be
 * copied. */
template <bool KEYS> __device__ static interval columns_of(const attention &a, const sweep &w, int pass, int h, int i, int n)
{
    interval v = KEYS ? queries_seen(a, pass, w.rows, i, n) : keys_seen(a, pass, h, i, n);
    if (KEYS)
        v.from = v.from / COLUMNS * COLUMNS;
    return v;
}

/* ---- the warpgroup that copies --------------------------------------------------------------------------------------- */

/* All tiles of the block's jobs, as stages come free. */
template <int D, bool KEYS> __device__ static void produce(const attention &a, const gradient_maps &m, const order &o, const sweep &w,
                                                             gradient_room<D, KEYS> &s)
{
    const int group = a.Hq / a.Hk, each = KEYS ? group : 1;
    turn_of<STAGES<KEYS>> y = { 0, 1 };
    int parity = 1;
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, KEYS ? a.Hk : a.Hq, !KEYS);
        const int i = j.tile * ROWS<D, KEYS>;
        const line at = line_of(i, KEYS && w.passes.from ? a.mask.summary_len : 0);
        barrier_wait(&s.x_empty, parity);
        parity ^= 1;
        barrier_expect(&s.x_full, sizeof s.x1 + sizeof s.x2);
        for (int d = 0; d < D; d += 64) {
            panel_load(s.x1 + d * ROWS<D, KEYS>, &m.x1, &s.x_full, d, at, j.h, j.b);
            panel_load(s.x2 + d * ROWS<D, KEYS>, &m.x2, &s.x_full, d, at, j.h, j.b);
        }
        for (int g = 0; g < each; g++) for (int pass = w.passes.from; pass < w.passes.to; pass++) {
            const int h = KEYS ? j.h * group + g : j.h, hy = KEYS ? h : h / group, apart = !KEYS && pass > 0;
            const interval v = columns_of<KEYS>(a, w, pass, h, i, ROWS<D, KEYS>);
            if (!has_pass(a.mask, pass, h))
                continue;
            for (int t = v.from; t < v.to; t += COLUMNS, y.next()) {
                uint64_t *full = &s.full[y.stage];
                const line from = line_of(t, apart ? a.mask.summary_len : 0);
                barrier_wait(&s.empty[y.stage], y.parity);
                barrier_expect(full, sizeof s.y1[0] + sizeof s.y2[0] + (KEYS ? 2 * sizeof s.level[0] : 0));
                for (int d = 0; d < D; d += 64) {
                    panel_load(s.y1[y.stage] + d * COLUMNS, &m.y1[apart], full, d, from, hy, j.b);
                    panel_load(s.y2[y.stage] + d * COLUMNS, &m.y2[apart], full, d, from, hy, j.b);
                }
                if (KEYS) {
                    const int64_t row = ((int64_t)j.b * a.Hq + h) * pitch_of(a.Tq) + t;
                    line_load<sizeof s.level[0]>(s.level[y.stage], a.level + row, full);
                    line_load<sizeof s.delta[0]>(s.delta[y.stage], a.delta + row, full);
                }
            }
        }
    }
}

/* ---- the warpgroups that multiply ------------------------------------------------------------------------------------- */

/* What belongs to the queries: of the thread's two rows, or of the columns in shared memory. */
template <bool KEYS> struct queries {
    float level[2], delta[2];
    const float *levels, *deltas;
    __device__ float level_of(int n, int e) const { return KEYS ? levels[8 * n + threadIdx.x % 4 * 2 + e % 2] : level[e / 2]; }
    __device__ float delta_of(int n, int e) const { return KEYS ? deltas[8 * n + threadIdx.x % 4 * 2 + e % 2] : delta[e / 2]; }
};

/* What a warpgroup gathers for its 64 rows. */
template <int D, bool KEYS> struct gathered { float out1[D / 2], out2[KEYS ? D / 2 : 1]; };

/* Whether the last products of a tile may go on while the next tile's scores are summed: not where registers are short. */
template <int D, bool KEYS> constexpr bool AHEAD = D < 128 || !KEYS;
/* Whether warpgroups take turns to multiply: narrow rows leave the exponentials as the longer part, and gain nothing. */
template <int D> constexpr bool TURNS = D == 128;

/* The columns of v for one head, in tiles; see: what the thread's own rows see, sure: what all of the warpgroup's do. */
template <int D, bool KEYS>
__device__ static void over_columns(const interval &v, const interval &sure, const rows &see, float scale, queries<KEYS> q, gradient_room<D, KEYS> &s,
                                    int group, turn_of<STAGES<KEYS>> &y, gathered<D, KEYS> &x)
{
    const uint32_t x1 = shared_address(s.x1) + group * 64 * 128, x2 = shared_address(s.x2) + group * 64 * 128;
    int before = -1;                                        /* the stage whose last products are under way */
    for (int t = v.from; t < v.to; t += COLUMNS, y.next()) {
        float w[COLUMNS / 2], d[COLUMNS / 2];
        uint32_t p[COLUMNS / 4], e[COLUMNS / 4];
        const uint32_t y1 = shared_address(s.y1[y.stage]), y2 = shared_address(s.y2[y.stage]);
        q.levels = s.level[y.stage], q.deltas = s.delta[y.stage];
        barrier_wait(&s.full[y.stage], y.parity);
        if (TURNS<D>)
            my_turn<GROUPS<D, KEYS>>(group);
        wgmma_fence();
        product_nt<D, ROWS<D, KEYS>, COLUMNS>(w, x1, y1);
        product_nt<D, ROWS<D, KEYS>, COLUMNS>(d, x2, y2);
        wgmma_commit();
        if (TURNS<D>)
            your_turn<GROUPS<D, KEYS>>(group);
        wgmma_wait<0>();
        hold_still(w);
        hold_still(d);
        if (AHEAD<D, KEYS> && before >= 0)
            release(&s.empty[before]);
        before = y.stage;
        if (t < sure.sure_from || t + COLUMNS > sure.sure_to)
            cover<COLUMNS>(see, t, w);
        #pragma unroll
        for (int n = 0; n < COLUMNS / 2; n++) {
            w[n] = power(fmaf(w[n], scale, -q.level_of(n / 4, n % 4)));
            d[n] = w[n] * (d[n] - q.delta_of(n / 4, n % 4));
        }
        as_factor<COLUMNS>(e, d);
        if constexpr (KEYS)
            as_factor<COLUMNS>(p, w);
        if (TURNS<D>)
            my_turn<GROUPS<D, KEYS>>(group);
        wgmma_fence();
        if constexpr (KEYS)
            product_nn<COLUMNS>(x.out2, p, y2);
        product_nn<COLUMNS>(x.out1, e, y1);
        wgmma_commit();
        if (TURNS<D>)
            your_turn<GROUPS<D, KEYS>>(group);
        if (!AHEAD<D, KEYS>) {
            wgmma_wait<0>();
            hold_still(x.out1);
            hold_still(x.out2);
            release(&s.empty[y.stage]);
        }
    }
    wgmma_wait<0>();
    hold_still(x.out1);
    hold_still(x.out2);
    if (AHEAD<D, KEYS> && before >= 0)
        release(&s.empty[before]);
}

/* 64 rows of every job. */
template <int D, bool KEYS> __device__ static void consume(const attention &a, const gradient_maps &m, const order &o, const sweep &w,
                                                           gradient_room<D, KEYS> &s, int group)
{
    const int each = KEYS ? a.Hq / a.Hk : 1, lane = threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    turn_of<STAGES<KEYS>> y = { 0, 0 };
    int parity = 0;
    if (TURNS<D> && group == GROUPS<D, KEYS> - 1)
        your_turn<GROUPS<D, KEYS>>(group);
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, KEYS ? a.Hk : a.Hq, !KEYS);
        const int i = j.tile * ROWS<D, KEYS>, mine = i + group * 64;
        gathered<D, KEYS> x = {};
        queries<KEYS> q;
        for (int e = 0; e < 2 && !KEYS; e++) {
            const int row = mine + lane + 8 * e;
            const int64_t at = ((int64_t)j.b * a.Hq + j.h) * pitch_of(a.Tq) + row;
            q.level[e] = row < a.Tq ? a.level[at] : INFINITY;
            q.delta[e] = row < a.Tq ? a.delta[at] : 0;
        }
        barrier_wait(&s.x_full, parity);
        parity ^= 1;
        for (int g = 0; g < each; g++) for (int pass = w.passes.from; pass < w.passes.to; pass++) {
            const int h = KEYS ? j.h * each + g : j.h;
            const interval v = columns_of<KEYS>(a, w, pass, h, i, ROWS<D, KEYS>), sure = columns_of<KEYS>(a, w, pass, h, mine, 64);
            rows see;
            for (int e = 0; e < 2; e++) {
                const interval own = KEYS ? queries_seen(a, pass, w.rows, mine + lane + 8 * e, 1) : keys_seen(a, pass, h, mine + lane + 8 * e, 1);
                see.from[e] = own.from, see.to[e] = own.to;
            }
            if (has_pass(a.mask, pass, h))
                over_columns<D, KEYS>(v, sure, see, a.scale * LOG2E, q, s, group, y, x);
        }
        release(&s.x_empty);
        if constexpr (KEYS) {
            if (a.dk.p)
                put_gradient<D>(&m.out1, a.sum_k, w, s.out1[group], group, x.out1, a.scale, j, mine, a.Hk, a.Tk, a.Dk);
            if (a.dv.p)
                put_gradient<D>(&m.out2, a.sum_v, w, s.out2[group], group, x.out2, 1, j, mine, a.Hk, a.Tk, a.Dv);
        } else {
            put_gradient<D>(&m.out1, a.sum_q, w, s.out1[group], group, x.out1, a.scale, j, mine, a.Hq, a.Tq, a.Dk);
        }
    }
    if (threadIdx.x % GROUP == 0)
        store_wait();
}

template <int D, bool KEYS> __global__ void __launch_bounds__((GROUPS<D, KEYS> + 1) * GROUP, 1)
gradient_hopper(const __grid_constant__ attention a, const __grid_constant__ gradient_maps m, const __grid_constant__ order o,
                const __grid_constant__ sweep w)
{
    extern __shared__ unsigned char raw[];
    gradient_room<D, KEYS> &s = *(gradient_room<D, KEYS> *)(((uintptr_t)raw + 1023) / 1024 * 1024);
    if (threadIdx.x == 0) {
        barrier_init(&s.x_full, 1);
        barrier_init(&s.x_empty, GROUPS<D, KEYS> * 4);
        for (int i = 0; i < STAGES<KEYS>; i++) {
            barrier_init(&s.full[i], 1);
            barrier_init(&s.empty[i], GROUPS<D, KEYS> * 4);
        }
        fence_shared();
    }
    __syncthreads();
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0);
    if (group == 0) {
        registers_give<GROUPS<D, KEYS> == 2 ? 24 : 32>();
        if (threadIdx.x == 0)
            produce<D, KEYS>(a, m, o, w, s);
    } else {
        registers_take<GROUPS<D, KEYS> == 2 ? 240 : 160>();
        consume<D, KEYS>(a, m, o, w, s, group - 1);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------------------ */

/* One sweep. */
template <int D, bool KEYS> static int run(const attention &a, const gradient_maps &m, const sweep &w, cudaStream_t stream)
{
    const size_t bytes = sizeof(gradient_room<D, KEYS>) + 1024;
    const order o = order_of(a.B, KEYS ? a.Hk : a.Hq, w.rows.n, ROWS<D, KEYS>, 4.0 * (KEYS ? a.Tq * (a.Hq / a.Hk) : a.Tk) * D, !a.mask.causal);
    cudaFuncSetAttribute(gradient_hopper<D, KEYS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    gradient_hopper<D, KEYS><<<least(processors(), o.tiles * o.heads), (GROUPS<D, KEYS> + 1) * GROUP, bytes, stream>>>(a, m, o, w);
    return attention_launched();
}

/* dq. */
template <int D> static int sweep_queries(const attention &a, cudaStream_t stream)
{
    const bool many = a.mask.kind == K_MASK_FIXED;
    gradient_maps m = {};
    int code = tensor_map(&m.x1, a.q, a.B, a.Hq, a.Tq, a.Dk, ROWS<D, false>) || tensor_map(&m.x2, a.d_o, a.B, a.Hq, a.Tq, a.Dv, ROWS<D, false>) ||
               (!a.sum_q && tensor_map(&m.out1, a.dq, a.B, a.Hq, a.Tq, a.Dk, 64));
    for (int i = 0; i < 1 + many && !code; i++)
        code = tensor_map(&m.y1[i], a.k, a.B, a.Hk, a.Tk, a.Dk, COLUMNS, i ? &a.mask : NULL) ||
               tensor_map(&m.y2[i], a.v, a.B, a.Hk, a.Tk, a.Dv, COLUMNS, i ? &a.mask : NULL);
    return code ? K_EDEVICE : run<D, false>(a, m, { { 0, many ? pass_count(a.mask) : 1 }, { 0, K_FAR, K_FAR, 0, a.Tq }, false }, stream);
}

/* dk and dv, stage by stage; of a strided set the first. */
template <int D> static int sweep_keys(const attention &a, cudaStream_t stream)
{
    stage s[2] = { { 0, 1 } };
    int code = K_OK;
    for (int i = 0, n = a.mask.kind == K_MASK_STRIDED ? 1 : stages_of(a.mask, true, s); i < n && !code; i++) {
        const k_mask *summaries = s[i].from ? &a.mask : NULL;
        gradient_maps m = {};
        code = tensor_map(&m.x1, a.k, a.B, a.Hk, a.Tk, a.Dk, ROWS<D, true>, summaries) ||
               tensor_map(&m.x2, a.v, a.B, a.Hk, a.Tk, a.Dv, ROWS<D, true>, summaries) ||
               tensor_map(&m.y1[0], a.q, a.B, a.Hq, a.Tq, a.Dk, COLUMNS) || tensor_map(&m.y2[0], a.d_o, a.B, a.Hq, a.Tq, a.Dv, COLUMNS) ||
               (a.dk.p && !a.sum_k && tensor_map(&m.out1, a.dk, a.B, a.Hk, a.Tk, a.Dk, 64)) ||
               (a.dv.p && !a.sum_v && tensor_map(&m.out2, a.dv, a.B, a.Hk, a.Tk, a.Dv, 64));
        code = code ? K_EDEVICE : run<D, true>(a, m, { s[i], view_of(a.mask, s[i], true, 0, a.Tk, 0), i > 0 }, stream);
    }
    return code;
}

/* Both, of one width. */
template <int D> static int sweeps(const attention &a, cudaStream_t stream)
{
    const int code = a.dq.p ? sweep_queries<D>(a, stream) : K_OK;
    return code || !(a.dk.p || a.dv.p) ? code : sweep_keys<D>(a, stream);
}

int attention_gradient_hopper(const attention &a, cudaStream_t stream)
{
    if (a.tickets)
        return attention_sweep_hopper(a, stream);
    return a.Dk <= 64 && a.Dv <= 64 ? sweeps<64>(a, stream) : sweeps<128>(a, stream);
}
