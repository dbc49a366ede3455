/* attention_hopper_sweep.cu - backward in bfloat16 on sm_90a in one sweep, where every key is seen by all queries, by those
 * from its position on, or as blocks and summaries, and keys are 64 wide.
 *
 * A block of keys streams the queries that see them, 128 at a time, and does five products with what it has on chip:
 *     s = k q^T,   p = 2^(scale s - level),   dp = v d_o^T,   ds = p (dp - delta),   dv += p d_o,   dk += ds q,   dq = ds^T k
 * dq is added to a sum in memory by the copy engine.  The blocks of keys that a tile of queries meets take turns, in the order
 * of the keys, by a ticket for each tile: every run adds the same numbers in the same order.  Blocks start in that order, too,
 * so that the one whose turn it is always runs.  Sums lie as the registers of a warpgroup hold them, 64 queries together.
 * Summaries go through once more, after all keys have, and add to what they have as keys. */
#include "attention_hopper.cuh"

enum { D = 64, GROUPS = 2, ROWS = GROUPS * 64, COLUMNS = 128, STAGES = 2, ADDERS = 3, SUMS = COLUMNS * D };

/* What is on chip.  ds: the slopes of all keys [2][keys][64 queries], twice, so that one is written while the other is read. */
struct sweep_room {
    bf16 k[ROWS * D], v[ROWS * D], q[STAGES][COLUMNS * D], d_o[STAGES][COLUMNS * D];
    bf16 ds[2][ROWS * COLUMNS], out[GROUPS][64 * D];
    float dq[GROUPS][SUMS / GROUPS];
    float level[STAGES][COLUMNS], delta[STAGES][COLUMNS];
    uint64_t k_full, k_empty, full[STAGES], empty[STAGES], dq_full[ADDERS], dq_empty;
};
struct sweep_maps { CUtensorMap k, v, q, d_o, dk, dv; };

/* Queries that see keys in rows i .. i + n - 1, from a whole tile on.  A block's way: its tiles of keys, for each the query
 * heads of its group, for each of these these tiles of queries. */
__device__ static interval queries_of(const attention &a, const sweep &w, int i, int n)
{
    interval v = queries_seen(a, w.passes.from, w.rows, i, n);
    v.from = v.from / COLUMNS * COLUMNS;
    return v;
}
__device__ static int64_t row_of_head(const attention &a, const job &j, int h) { return ((int64_t)j.b * a.Hq + h) * pitch_of(a.Tq); }

/* How many blocks of keys add to the queries from t on before block `tile`. */
__device__ static int blocks_before(const attention &a, const sweep &w, int t, int tile)
{
    const interval v = keys_seen(a, 0, 0, t, COLUMNS);
    const int first = v.from / ROWS;
    return w.passes.from ? (v.to - 1) / ROWS - first + 1 + tile : tile - first;
}

/* ---- the warp that copies in ------------------------------------------------------------------------------------------- */

/* A tile of queries and what belongs to them. */
__device__ static void copy_queries(const attention &a, const sweep_maps &m, sweep_room &s, int stage, const job &j, int h, int t)
{
    const int64_t row = row_of_head(a, j, h) + t;
    uint64_t *full = &s.full[stage];
    barrier_expect(full, sizeof s.q[0] + sizeof s.d_o[0] + 2 * sizeof s.level[0]);
    panel_load(s.q[stage], &m.q, full, 0, line{ t, 0 }, h, j.b);
    panel_load(s.d_o[stage], &m.d_o, full, 0, line{ t, 0 }, h, j.b);
    line_load<sizeof s.level[0]>(s.level[stage], a.level + row, full);
    line_load<sizeof s.delta[0]>(s.delta[stage], a.delta + row, full);
}

__device__ static void produce(const attention &a, const sweep_maps &m, const order &o, const sweep &w, sweep_room &s)
{
    const int group = a.Hq / a.Hk;
    turn_of<STAGES> y = { 0, 1 };
    int parity = 1;
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, a.Hk, false);
        barrier_wait(&s.k_empty, parity);
        parity ^= 1;
        barrier_expect(&s.k_full, sizeof s.k + sizeof s.v);
        const line at = line_of(j.tile * ROWS, w.passes.from ? a.mask.summary_len : 0);
        const interval v = queries_of(a, w, j.tile * ROWS, ROWS);
        panel_load(s.k, &m.k, &s.k_full, 0, at, j.h, j.b);
        panel_load(s.v, &m.v, &s.k_full, 0, at, j.h, j.b);
        for (int g = 0; g < group; g++)
            for (int t = v.from; t < v.to; t += COLUMNS, y.next()) {
                barrier_wait(&s.empty[y.stage], y.parity);
                copy_queries(a, m, s, y.stage, j, j.h * group + g, t);
            }
    }
}

/* ---- the warps that add to dq ------------------------------------------------------------------------------------------ */

__device__ static int ticket_now(const int *ticket)
{
    int now;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(ticket) : "memory");
    return now;
}
__device__ static void ticket_on(int *ticket) { asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(ticket) : "memory"); }

/* The first to come writes, the others add. */
__device__ static void put_sums(float *to, const float *from, bool add)
{
    if (add)
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;"
                     ::"l"(to), "r"(shared_address(from)), "n"(SUMS * 4) : "memory");
    else
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                     ::"l"(to), "r"(shared_address(from)), "n"(SUMS * 4) : "memory");
    store_commit();
}

/* What the warpgroups have for a tile of queries, when it is this block's turn.  The way to memory and back takes about as long
 * as a tile: several warps do this, each for every ADDERS-th tile. */
__device__ static void add_up(const attention &a, const order &o, const sweep &w, sweep_room &s, int which)
{
    const int heads = a.Hq / a.Hk;
    int count = 0;
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, a.Hk, false);
        const interval v = queries_of(a, w, j.tile * ROWS, ROWS);
        for (int g = 0; g < heads; g++)
            for (int t = v.from; t < v.to; t += COLUMNS, count++) {
                if (count % ADDERS != which)
                    continue;
                const int64_t tile = (row_of_head(a, j, j.h * heads + g) + t) / COLUMNS;
                const int before = blocks_before(a, w, t, j.tile);
                while (ticket_now(a.tickets + tile) != before)
                    ;
                barrier_wait(&s.dq_full[which], count / ADDERS & 1);
                put_sums(a.parts + tile * SUMS, s.dq[0], before > 0);
                store_wait();
                barrier_arrive(&s.dq_empty);
                store_done();
                ticket_on(a.tickets + tile);
            }
    }
}

/* ---- the warpgroups that multiply --------------------------------------------------------------------------------------- */

/* The two columns of queries whose scores a thread has in part n. */
__device__ static float2 two_of(const float *x, int n) { return *(const float2 *)(x + 8 * n + threadIdx.x % 4 * 2); }

/* ds of the warpgroup's 64 keys to their rows of all slopes. */
__device__ static void put_slopes(bf16 *ds, int group, const uint32_t (&e)[COLUMNS / 4])
{
    const int lane = threadIdx.x % 32, row = group * 64 + threadIdx.x % GROUP / 32 * 16 + lane % 16;
    #pragma unroll
    for (int n = 0; n < COLUMNS / 16; n++) {
        const int block = 2 * n + lane / 16;                /* of 8 queries */
        const uint32_t to = shared_address(ds) + block / 8 * ROWS * 128 + row * 128 + ((block ^ row) & 7) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     ::"r"(to), "r"(e[4 * n]), "r"(e[4 * n + 1]), "r"(e[4 * n + 2]), "r"(e[4 * n + 3]) : "memory");
    }
}

/* dq of 64 queries of the tile of this number to the warp that adds it up. */
__device__ static void hand_on(sweep_room &s, int group, int count, const float (&dq)[D / 2])
{
    barrier_wait(&s.dq_empty, (count & 1) ^ 1);
    #pragma unroll
    for (int n = 0; n < D / 8; n++)
        *(float4 *)(s.dq[group] + (n * GROUP + threadIdx.x % GROUP) * 4) = { dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3] };
    fence_shared();
    release(&s.dq_full[count % ADDERS]);
}

/* What a warpgroup goes on with from tile to tile. */
struct sweeping { turn_of<STAGES> y; int count; float dk[D / 2], dv[D / 2]; };

/* A tile of queries from t on; see: what the thread's keys are seen by; sure: all of the warpgroup's keys by all of them. */
__device__ static void over_tile(const rows &see, bool sure, int t, float scale, sweep_room &s, int group, sweeping &x)
{
    const uint32_t k = shared_address(s.k), v = shared_address(s.v), q = shared_address(s.q[x.y.stage]), g = shared_address(s.d_o[x.y.stage]);
    const float *level = s.level[x.y.stage], *delta = s.delta[x.y.stage];
    float w[COLUMNS / 2], d[COLUMNS / 2], dq[D / 2];
    uint32_t p[COLUMNS / 4], e[COLUMNS / 4];
    barrier_wait(&s.full[x.y.stage], x.y.parity);
    wgmma_fence();
    product_nt<D, ROWS, COLUMNS>(w, k + group * 64 * 128, q);
    wgmma_commit();
    product_nt<D, ROWS, COLUMNS>(d, v + group * 64 * 128, g);
    wgmma_commit();
    wgmma_wait<1>();
    hold_still(w);
    if (!sure)
        cover<COLUMNS>(see, t, w);
    #pragma unroll
    for (int n = 0; n < COLUMNS / 2; n++)
        w[n] = power(fmaf(w[n], scale, n % 2 ? -two_of(level, n / 4).y : -two_of(level, n / 4).x));
    wgmma_wait<0>();
    hold_still(d);
    #pragma unroll
    for (int n = 0; n < COLUMNS / 2; n++)
        d[n] = w[n] * (d[n] - (n % 2 ? two_of(delta, n / 4).y : two_of(delta, n / 4).x));
    as_factor<COLUMNS>(p, w);
    as_factor<COLUMNS>(e, d);
    wgmma_fence();
    product_nn<COLUMNS>(x.dv, p, g);
    product_nn<COLUMNS>(x.dk, e, q);
    wgmma_commit();
    put_slopes(s.ds[x.count & 1], group, e);
    fence_shared();
    named_sync(3, GROUPS * GROUP);                          /* the other warpgroup's slopes are there */
    wgmma_fence();
    product_tn<ROWS>(dq, shared_address(s.ds[x.count & 1]) + group * ROWS * 128, k);
    wgmma_commit();
    wgmma_wait<0>();
    hold_still(x.dv);
    hold_still(x.dk);
    hold_still(dq);
    release(&s.empty[x.y.stage]);
    hand_on(s, group, x.count++, dq);
    x.y.next();
}


/* 64 keys of every job. */
__device__ static void consume(const attention &a, const sweep_maps &m, const order &o, const sweep &w, sweep_room &s, int group)
{
    const int heads = a.Hq / a.Hk, lane = threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    sweeping x = { { 0, 0 }, 0 };
    int parity = 0;
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, a.Hk, false);
        const int mine = j.tile * ROWS + group * 64;
        const interval v = queries_of(a, w, j.tile * ROWS, ROWS);
        interval sure = queries_seen(a, w.passes.from, w.rows, mine, 64);
        rows see;
        for (int e = 0; e < 2; e++) {                       /* keys that are not there are seen by nobody */
            const interval own = queries_seen(a, w.passes.from, w.rows, mine + lane + 8 * e, 1);
            see.from[e] = own.from, see.to[e] = mine + lane + 8 * e < w.rows.n ? own.to : 0;
        }
        if (mine + 64 > w.rows.n)
            sure.sure_to = 0;
        for (int i = 0; i < D / 2; i++)
            x.dk[i] = x.dv[i] = 0;
        barrier_wait(&s.k_full, parity);
        parity ^= 1;
        for (int g = 0; g < heads; g++)
            for (int t = v.from; t < v.to; t += COLUMNS)
                over_tile(see, t >= sure.sure_from && least(t + COLUMNS, a.Tq) <= sure.sure_to, t, a.scale * LOG2E, s, group, x);
        release(&s.k_empty);
        put_gradient<D>(&m.dk, a.sum_k, w, s.out[group], group, x.dk, a.scale, j, mine, a.Hk, a.Tk, a.Dk);
        put_gradient<D>(&m.dv, a.sum_v, w, s.out[group], group, x.dv, 1, j, mine, a.Hk, a.Tk, a.Dv);
    }
    if (threadIdx.x % GROUP == 0)
        store_wait();
}

__global__ void __launch_bounds__((GROUPS + 1) * GROUP, 1)
sweep_hopper(const __grid_constant__ attention a, const __grid_constant__ sweep_maps m, const __grid_constant__ order o,
             const __grid_constant__ sweep w)
{
    extern __shared__ unsigned char raw[];
    sweep_room &s = *(sweep_room *)(((uintptr_t)raw + 1023) / 1024 * 1024);
    if (threadIdx.x == 0) {
        barrier_init(&s.k_full, 1);
        barrier_init(&s.k_empty, GROUPS * 4);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&s.full[i], 1);
            barrier_init(&s.empty[i], GROUPS * 4);
        }
        for (int i = 0; i < ADDERS; i++)
            barrier_init(&s.dq_full[i], GROUPS * 4);
        barrier_init(&s.dq_empty, 1);
        fence_shared();
    }
    __syncthreads();
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0), warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    if (group == 0) {
        registers_give<56>();
        if (threadIdx.x == 0)
            produce(a, m, o, w, s);
        else if (threadIdx.x % 32 == 0)
            add_up(a, o, w, s, warp - 1);
    } else {
        registers_take<224>();
        consume(a, m, o, w, s, group - 1);
    }
}

/* dq = scale times the sums.  Block: 64 queries of a head. */
__global__ void __launch_bounds__(GROUP) finish_queries(const __grid_constant__ attention a)
{
    const int tiles = pitch_of(a.Tq) / 64, head = blockIdx.x / tiles, lane = threadIdx.x % 32;
    const int row = blockIdx.x % tiles * 64 + threadIdx.x / 32 * 16 + lane / 4;
    const float4 *sums = (const float4 *)(a.parts + (int64_t)blockIdx.x * (SUMS / GROUPS)) + threadIdx.x;
    bf16 *to = (bf16 *)a.dq.p + head / a.Hq * a.dq.sb + head % a.Hq * a.dq.sh + row * a.dq.st + lane % 4 * 2;
    #pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const float4 x = sums[n * GROUP];
        if (row < a.Tq)
            *(uint32_t *)(to + 8 * n) = halves(a.scale * x.x, a.scale * x.y);
        if (row + 8 < a.Tq)
            *(uint32_t *)(to + 8 * a.dq.st + 8 * n) = halves(a.scale * x.z, a.scale * x.w);
    }
}

/* Keys, or summaries. */
static int run(const attention &a, const sweep &w, cudaStream_t stream)
{
    const int bytes = (int)sizeof(sweep_room) + 1024;
    const k_mask *summaries = w.passes.from ? &a.mask : NULL;
    const order o = order_of(a.B, a.Hk, w.rows.n, ROWS, 4.0 * a.Tq * (a.Hq / a.Hk) * D, !a.mask.causal);
    sweep_maps m = {};
    if (tensor_map(&m.k, a.k, a.B, a.Hk, a.Tk, a.Dk, ROWS, summaries) || tensor_map(&m.v, a.v, a.B, a.Hk, a.Tk, a.Dv, ROWS, summaries) ||
        tensor_map(&m.q, a.q, a.B, a.Hq, a.Tq, a.Dk, COLUMNS) || tensor_map(&m.d_o, a.d_o, a.B, a.Hq, a.Tq, a.Dv, COLUMNS) ||
        (!a.sum_k && tensor_map(&m.dk, a.dk, a.B, a.Hk, a.Tk, a.Dk, 64)) || (!a.sum_v && tensor_map(&m.dv, a.dv, a.B, a.Hk, a.Tk, a.Dv, 64)))
        return K_EDEVICE;
    cudaFuncSetAttribute(sweep_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    sweep_hopper<<<least(processors(), o.tiles * o.heads), (GROUPS + 1) * GROUP, (size_t)bytes, stream>>>(a, m, o, w);
    return attention_launched();
}

int attention_sweep_hopper(const attention &a, cudaStream_t stream)
{
    const int tiles = a.B * a.Hq * pitch_of(a.Tq) / 64;
    stage s[2];
    int code = cudaMemsetAsync(a.tickets, 0, (size_t)(tiles / 2) * sizeof(int), stream) == cudaSuccess ? K_OK : K_EDEVICE;
    for (int i = 0, n = stages_of(a.mask, true, s); i < n && !code; i++)
        code = run(a, { s[i], view_of(a.mask, s[i], true, 0, a.Tk, 0), i > 0 }, stream);
    if (!code)
        finish_queries<<<(unsigned)tiles, GROUP, 0, stream>>>(a);
    return code ? code : attention_launched();
}
