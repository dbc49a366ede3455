/* attention_hopper.cu - forward in bfloat16 on sm_90a: the fast rung, for sets of one interval in sequence, and for
 * blocks with summaries.
 *
 * A block stays on its processor and takes tile after tile of queries.  One warpgroup only drives the copy engine,
 * two stages of keys and values ahead; the others have 64 queries each.  A warpgroup starts the scores of tile j and,
 * behind them, the output of tile j - 1, and turns scores into weights while the output is summed; named barriers let
 * one warpgroup multiply while the other exponentiates. */
#include "attention_hopper.cuh"

enum { KEYS = 128, STAGES = 2 };
typedef turn_of<STAGES> place;

/* Shared memory of a block whose GROUPS warpgroups have 64 queries each. */
template <int D, int GROUPS> struct forward_room {
    bf16 q[GROUPS * 64 * D], k[STAGES][KEYS * D], v[STAGES][KEYS * D], o[GROUPS][64 * D];
    uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};
struct forward_maps { CUtensorMap q, k[2], v[2], o; };      /* keys in sequence, and those of summaries */

/* Registers of a thread that multiplies, and of one that copies. */
template <int GROUPS> constexpr int PRODUCT_REGISTERS = GROUPS == 2 ? 240 : 160;
template <int GROUPS> constexpr int COPY_REGISTERS = GROUPS == 2 ? 24 : 32;

/* ---- the warpgroup that copies --------------------------------------------------------------------------------------- */

/* All tiles of the block's jobs, as stages come free. */
template <int D, int GROUPS, bool MANY>
__device__ static void produce(const attention &a, const forward_maps &m, const order &o, forward_room<D, GROUPS> &s)
{
    constexpr int QUERIES = GROUPS * 64;
    place k = { 0, 1 };
    int parity = 1;
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, a.Hq, true);
        const int hk = j.h / (a.Hq / a.Hk), i = j.tile * QUERIES;
        barrier_wait(&s.q_empty, parity);
        parity ^= 1;
        barrier_expect(&s.q_full, sizeof s.q);
        for (int d = 0; d < D; d += 64)
            panel_load(s.q + d * QUERIES, &m.q, &s.q_full, d, line{ i, 0 }, j.h, j.b);
        for (int pass = 0, passes = MANY ? pass_count(a.mask) : 1; pass < passes; pass++) {
            const interval v = keys_seen(a, pass, j.h, i, QUERIES);
            const int each = pass ? a.mask.summary_len : 0;
            if (!has_pass(a.mask, pass, j.h))
                continue;
            for (int t = v.from; t < v.to; t += KEYS, k.next()) {
                barrier_wait(&s.k_empty[k.stage], k.parity);
                barrier_expect(&s.k_full[k.stage], sizeof s.k[0]);
                for (int d = 0; d < D; d += 64)
                    panel_load(s.k[k.stage] + d * KEYS, &m.k[pass > 0], &s.k_full[k.stage], d, line_of(t, each), hk, j.b);
                barrier_wait(&s.v_empty[k.stage], k.parity);
                barrier_expect(&s.v_full[k.stage], sizeof s.v[0]);
                for (int d = 0; d < D; d += 64)
                    panel_load(s.v[k.stage] + d * KEYS, &m.v[pass > 0], &s.v_full[k.stage], d, line_of(t, each), hk, j.b);
            }
        }
    }
}

/* ---- the warpgroups that multiply ------------------------------------------------------------------------------------- */

/* Scores to weights under the running maximum and sum (each lane's own share of it); keep: what becomes of older ones. */
__device__ static void online(float scale, float (&s)[KEYS / 2], float (&top)[2], float (&sum)[2], float (&keep)[2])
{
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        float now = top[i], part = 0;
        #pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            now = fmaxf(now, fmaxf(s[4 * n + 2 * i], s[4 * n + 2 * i + 1]));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
        const float base = now == -INFINITY ? 0 : now * scale;
        keep[i] = power(top[i] * scale - base);
        #pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            #pragma unroll
            for (int e = 0; e < 2; e++) {
                float &x = s[4 * n + 2 * i + e];
                x = power(fmaf(x, scale, -base));
                part += x;
            }
        sum[i] = sum[i] * keep[i] + part;
        top[i] = now;
    }
}

/* What a warpgroup holds of its 64 queries. */
template <int D> struct output { float o[D / 2], top[2], sum[2]; };

/* o and lse of a warpgroup's queries, i on; with slots, as the first of them. */
template <int D>
__device__ static void put_output(const attention &a, const forward_maps &m, const job &j, int i, int group, bf16 *room, output<D> &x)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x % GROUP / 32;
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        float all = x.sum[e] + __shfl_xor_sync(~0u, x.sum[e], 1);
        all += __shfl_xor_sync(~0u, all, 2);
        const float inverse = all > 0 ? 1 / all : 0;
        const int t = i + warp * 16 + lane / 4 + 8 * e;
        float *lse = a.slots == 1 ? a.lse : a.part_lse;
        if (lse && lane % 4 == 0 && t < a.Tq)
            lse[((int64_t)j.b * a.Hq + j.h) * a.Tq + t] = all > 0 ? x.top[e] * a.scale + LN2 * log2f(all) : -INFINITY;
        #pragma unroll
        for (int n = 0; n < D / 8; n++)
            x.o[4 * n + 2 * e] *= inverse, x.o[4 * n + 2 * e + 1] *= inverse;
    }
    if (a.slots == 1)
        put_panels<D>(&m.o, room, group, x.o, i, j.h, j.b);
    else
        put_rows<D>(a.part, x.o, false, view{ 0, K_FAR, K_FAR, 0, a.Tq }, j, i, a.Hq, a.Tq, a.Dv);
}

/* What the thread's two of queries i .. i + 63 see in a pass. */
__device__ static rows rows_of(const attention &a, int pass, int h, int i)
{
    rows own;
    for (int e = 0; e < 2; e++) {
        const interval x = keys_seen(a, pass, h, i + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4 + 8 * e, 1);
        own.from[e] = x.from, own.to[e] = x.to;
    }
    return own;
}

/* The keys of v, in tiles of a pass; own: what the thread's two queries see, sure: what all of the warpgroup's do; k and
 * values: where the ring stands. */
template <int D, int GROUPS>
__device__ static void over_keys(const interval &v, const interval &sure, const rows &own, float scale, forward_room<D, GROUPS> &s, int group, place &k,
                                 place &values, output<D> &x)
{
    constexpr int QUERIES = GROUPS * 64;
    const uint32_t q = shared_address(s.q) + group * 64 * 128;
    int t = v.from;
    float w[KEYS / 2], keep[2];
    uint32_t p[KEYS / 4];
    barrier_wait(&s.k_full[k.stage], k.parity);
    my_turn<GROUPS>(group);
    wgmma_fence();
    product_nt<D, QUERIES, KEYS>(w, q, shared_address(s.k[k.stage]));
    wgmma_commit();
    your_turn<GROUPS>(group);
    wgmma_wait<0>();
    hold_still(w);
    release(&s.k_empty[k.stage]);
    k.next();
    if (t < sure.sure_from || t + KEYS > sure.sure_to)
        cover<KEYS>(own, t, w);
    online(scale, w, x.top, x.sum, keep);
    #pragma unroll
    for (int d = 0; d < D / 2; d++)
        x.o[d] *= keep[d / 2 % 2];
    as_factor<KEYS>(p, w);
    for (t += KEYS; t < v.to; t += KEYS, k.next(), values.next()) {
        barrier_wait(&s.k_full[k.stage], k.parity);
        my_turn<GROUPS>(group);
        wgmma_fence();
        product_nt<D, QUERIES, KEYS>(w, q, shared_address(s.k[k.stage]));
        wgmma_commit();
        barrier_wait(&s.v_full[values.stage], values.parity);
        wgmma_fence();
        product_nn<KEYS>(x.o, p, shared_address(s.v[values.stage]));
        wgmma_commit();
        your_turn<GROUPS>(group);
        wgmma_wait<1>();
        hold_still(w);
        release(&s.k_empty[k.stage]);
        if (t < sure.sure_from || t + KEYS > sure.sure_to)
            cover<KEYS>(own, t, w);
        online(scale, w, x.top, x.sum, keep);
        wgmma_wait<0>();
        hold_still(x.o);
        release(&s.v_empty[values.stage]);
        #pragma unroll
        for (int d = 0; d < D / 2; d++)
            x.o[d] *= keep[d / 2 % 2];
        as_factor<KEYS>(p, w);
    }
    barrier_wait(&s.v_full[values.stage], values.parity);
    wgmma_fence();
    product_nn<KEYS>(x.o, p, shared_address(s.v[values.stage]));
    wgmma_commit();
    wgmma_wait<0>();
    hold_still(x.o);
    release(&s.v_empty[values.stage]);
    values.next();
}

/* 64 queries of every job. */
template <int D, int GROUPS, bool MANY> __device__ static void consume(const attention &a, const forward_maps &m, const order &o,
                                                                       forward_room<D, GROUPS> &s, int group)
{
    place k = { 0, 0 }, v = { 0, 0 };
    int parity = 0;
    if (group == GROUPS - 1)
        your_turn<GROUPS>(group);
    for (int r = 0, n; job_left(o, r); r++) {
        if ((n = job_number(o, r)) < 0)
            continue;
        const job j = job_of(o, n, a.Hq, true);
        output<D> x = { {}, { -INFINITY, -INFINITY }, { 0, 0 } };
        const int i = j.tile * GROUPS * 64, mine = i + group * 64;
        barrier_wait(&s.q_full, parity);
        parity ^= 1;
        for (int pass = 0, passes = MANY ? pass_count(a.mask) : 1; pass < passes; pass++) {
            const interval all = keys_seen(a, pass, j.h, i, GROUPS * 64), sure = keys_seen(a, pass, j.h, mine, 64);
            if (all.from < all.to && has_pass(a.mask, pass, j.h))
                over_keys<D, GROUPS>(all, sure, rows_of(a, pass, j.h, mine), a.scale * LOG2E, s, group, k, v, x);
        }
        release(&s.q_empty);
        put_output<D>(a, m, j, mine, group, s.o[group], x);
    }
    if (threadIdx.x % GROUP == 0)
        store_wait();
}

template <int D, int GROUPS, bool MANY> __global__ void __launch_bounds__((GROUPS + 1) * GROUP, 1)
forward_hopper(const __grid_constant__ attention a, const __grid_constant__ forward_maps m, const __grid_constant__ order o)
{
    extern __shared__ unsigned char raw[];
    forward_room<D, GROUPS> &s = *(forward_room<D, GROUPS> *)(((uintptr_t)raw + 1023) / 1024 * 1024);
    if (threadIdx.x == 0) {
        barrier_init(&s.q_full, 1);
        barrier_init(&s.q_empty, GROUPS * 4);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&s.k_full[i], 1);
            barrier_init(&s.v_full[i], 1);
            barrier_init(&s.k_empty[i], GROUPS * 4);
            barrier_init(&s.v_empty[i], GROUPS * 4);
        }
        fence_shared();
    }
    __syncthreads();
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP, 0);
    if (group == 0) {
        registers_give<COPY_REGISTERS<GROUPS>>();
        if (threadIdx.x == 0)
            produce<D, GROUPS, MANY>(a, m, o, s);
    } else {
        registers_take<PRODUCT_REGISTERS<GROUPS>>();
        consume<D, GROUPS, MANY>(a, m, o, s, group - 1);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------------------ */

/* Of one width. */
template <int D, int GROUPS, bool MANY> static int run(const attention &a, cudaStream_t stream)
{
    const size_t bytes = sizeof(forward_room<D, GROUPS>) + 1024;
    const order o = order_of(a.B, a.Hq, a.Tq, GROUPS * 64, 4.0 * a.Tk * D, !a.mask.causal);
    forward_maps m;
    int code = tensor_map(&m.q, a.q, a.B, a.Hq, a.Tq, a.Dk, GROUPS * 64) || tensor_map(&m.o, a.o, a.B, a.Hq, a.Tq, a.Dv, 64);
    for (int i = 0; i < 1 + MANY && !code; i++)
        code = tensor_map(&m.k[i], a.k, a.B, a.Hk, a.Tk, a.Dk, KEYS, i ? &a.mask : NULL) ||
               tensor_map(&m.v[i], a.v, a.B, a.Hk, a.Tk, a.Dv, KEYS, i ? &a.mask : NULL);
    if (code)
        return K_EDEVICE;
    cudaFuncSetAttribute(forward_hopper<D, GROUPS, MANY>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    forward_hopper<D, GROUPS, MANY><<<least(processors(), o.tiles * o.heads), (GROUPS + 1) * GROUP, bytes, stream>>>(a, m, o);
    return attention_launched();
}

int attention_hopper_built(void)
{
    cudaFuncAttributes found;
    return cudaFuncGetAttributes(&found, forward_hopper<64, 3, false>) == cudaSuccess && found.binaryVersion == 90;
}

int attention_forward_hopper(const attention &a, cudaStream_t stream)
{
    if (a.mask.kind != K_MASK_FIXED)
        return a.Dk <= 64 && a.Dv <= 64 ? run<64, 3, false>(a, stream) : run<128, 2, false>(a, stream);
    return a.Dk <= 64 && a.Dv <= 64 ? run<64, 3, true>(a, stream) : run<128, 2, true>(a, stream);
}
