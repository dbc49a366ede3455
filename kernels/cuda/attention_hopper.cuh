/* attention_hopper.cuh - what the kernels for sm_90a share: which problems they take, tensor maps, and the order of
 * their blocks. */
#ifndef ATTENTION_HOPPER_CUH
#define ATTENTION_HOPPER_CUH
#include "attention_wgmma.cuh"
#include <cudaTypedefs.h>
#include <cmath>

static constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/* Tensors [B,H,T,D] for the copy engine, in panels of 64 columns; summaries: only the rows of these, which are the last
 * of every block. */
static inline int tensor_map(CUtensorMap *map, const k_heads &x, int B, int H, int T, int D, int rows, const k_mask *summaries = NULL)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode = [] {
        void *f = NULL;
        cudaDriverEntryPointQueryResult found;
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
        return (PFN_cuTensorMapEncodeTiled_v12000)f;
    }();
    const int block = summaries ? summaries->length : T, each = summaries ? summaries->summary_len : T;
    const cuuint64_t size[5] = { (cuuint64_t)D, (cuuint64_t)each, (cuuint64_t)(T / block), (cuuint64_t)H, (cuuint64_t)B };
    const cuuint64_t step[4] = { (cuuint64_t)x.st * 2, (cuuint64_t)x.st * 2 * (cuuint64_t)block, (cuuint64_t)x.sh * 2, (cuuint64_t)x.sb * 2 };
    const cuuint32_t wide = (cuuint32_t)(summaries ? each : rows), box[5] = { 64, wide, (cuuint32_t)rows / wide, 1, 1 }, one[5] = { 1, 1, 1, 1, 1 };
    if (!encode)
        return K_EDEVICE;
    const CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, (bf16 *)x.p + (block - each) * x.st, size, step, box, one,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? K_OK : K_EDEVICE;
}

/* Row r of such a map; each: rows of a block, 0 when they are in sequence. */
__device__ inline line line_of(int r, int each) { return each ? line{ 0, r / each } : line{ r, 0 }; }

/* ---- order -------------------------------------------------------------------------------------------------------------- */

/* Tiles of one kind of rows: `tiles` per head, heads taken `near` at a time so that what they read stays in L2. */
struct order { int tiles, heads, near; };
struct job { int b, h, tile; };

/* Rows of H heads in tiles of `each`, that stream `bytes` per head; when tiles are not alike, all heads together go from
 * the longest tiles to the shortest. */
static inline order order_of(int B, int H, int T, int each, double bytes, bool alike)
{
    const double room = 24e6;
    return { ceil_div(T, each), B * H, alike ? most(1, least(B * H, (int)(room / bytes))) : B * H };
}

/* Number n: within a group of heads, tile by tile; last: the last tile first, because it sees most when causal. */
__device__ inline job job_of(const order &o, int n, int H, bool last)
{
    const int group = n / (o.near * o.tiles), first = group * o.near, heads = least(o.near, o.heads - first);
    const int i = n - first * o.tiles, head = first + i % heads, tile = i / heads;
    return { head / H, head % H, last ? o.tiles - 1 - tile : tile };
}

/* Number of round r of this block, back and forth so that blocks share long and short tiles evenly; -1: no more. */
__device__ inline int job_number(const order &o, int r)
{
    const int n = r * gridDim.x + (r % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    return n < o.tiles * o.heads ? n : -1;
}

/* Whether a round may still have a job. */
__device__ inline bool job_left(const order &o, int r) { return (int64_t)r * gridDim.x < (int64_t)o.tiles * o.heads; }

/* ---- what is seen -------------------------------------------------------------------------------------------------------- */

/* Columns from .. to - 1 that some of a tile's rows see, and those that every one of them sees. */
struct interval { int from, to, sure_from, sure_to; };

/* Rows of keys that queries i .. i + n - 1 see in a pass. */
__device__ inline interval keys_seen(const attention &a, int pass, int h, int i, int n)
{
    const seen first = sees(a.mask, pass, h, a.first + i), last = sees(a.mask, pass, h, a.first + least(i + n, a.Tq) - 1);
    if (pass == 0)
        return { most(first.from, 0), least(last.to, a.Tk), last.from, least(first.to, a.Tk) };
    const view v = keys_of(a.mask, pass, first, a.Tk);
    return { rows_before(v, first.from), rows_before(v, last.to), rows_before(v, last.from), rows_before(v, first.to) };
}

/* Queries that see the keys in rows j .. j + n - 1 of a view. */
__device__ inline interval queries_seen(const attention &a, int pass, const view &v, int j, int n)
{
    const int from = position(v, j), to = position(v, least(j + n, v.n) - 1);
    const stage first = seers(a.mask, pass, from, from), last = seers(a.mask, pass, to, to);
    return { most(first.from - a.first, 0), least(last.to - a.first, a.Tq), last.from - a.first, first.to - a.first };
}

/* Of the thread's two rows. */
struct rows { int from[2], to[2]; };

/* Scores [64,N] of the columns from t on become -inf where a row does not see them. */
template <int N> __device__ inline void cover(const rows &w, int t, float (&s)[N / 2])
{
    #pragma unroll
    for (int n = 0; n < N / 8; n++)
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int c = t + 8 * n + threadIdx.x % 4 * 2 + e % 2;
            if (c < w.from[e / 2] || c >= w.to[e / 2])
                s[4 * n + e] = -INFINITY;
        }
}

/* ---- between warpgroups ---------------------------------------------------------------------------------------------------- */

enum { GROUP = 128 };                                       /* threads of a warpgroup */

/* A place in a ring of stages. */
template <int STAGES> struct turn_of {
    int stage, parity;
    __device__ void next() { stage == STAGES - 1 ? (stage = 0, parity ^= 1) : stage++; }
};

/* One lane of each warp says so, when all that the warp read of a stage has been multiplied; what an arrival makes known is
 * what its own lane did, so the others must have come this far. */
__device__ inline void release(uint64_t *empty)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        barrier_arrive(empty);
}

/* Waits for this warpgroup's turn to start products, and gives it to the next: while one multiplies, others exponentiate. */
template <int GROUPS> __device__ inline void my_turn(int group) { named_sync(1 + group, 2 * GROUP); }
template <int GROUPS> __device__ inline void your_turn(int group) { named_arrive(1 + (group + 1) % GROUPS, 2 * GROUP); }

/* x [64,D] of a warpgroup through its room, panels [64][64], to row i on of head h. */
template <int D> __device__ inline void put_panels(const CUtensorMap *map, bf16 *room, int group, const float (&x)[D / 2], int i, int h, int b)
{
    const int lane = threadIdx.x % 32, row = threadIdx.x % GROUP / 32 * 16 + lane % 16;
    uint32_t y[D / 4];
    as_factor<D>(y, x);
    if (threadIdx.x % GROUP == 0)
        store_wait();                                       /* the tile before has left this room */
    named_sync(4 + group, GROUP);
    #pragma unroll
    for (int n = 0; n < D / 16; n++) {
        const int block = 2 * n + lane / 16;                /* of 8 columns */
        const uint32_t to = shared_address(room) + block / 8 * 64 * 128 + row * 128 + ((block ^ row) & 7) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     ::"r"(to), "r"(y[4 * n]), "r"(y[4 * n + 1]), "r"(y[4 * n + 2]), "r"(y[4 * n + 3]) : "memory");
    }
    fence_shared();
    named_sync(4 + group, GROUP);
    if (threadIdx.x % GROUP == 0) {
        for (int d = 0; d < D; d += 64)
            panel_store(map, room + d * 64, d, line{ i, 0 }, h, b);
        store_commit();
    }
}

/* The same rows of a view in float, written or added to [B,H,T,width]. */
template <int D>
__device__ inline void put_rows(float *to, const float (&x)[D / 2], bool add, const view &v, const job &j, int i, int H, int T, int width)
{
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        const int r = i + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4 + 8 * e;
        float *row = to + (((int64_t)j.b * H + j.h) * T + position(v, r)) * width;
        #pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int d = n * 8 + threadIdx.x % 4 * 2;
            if (r < v.n && d < width) {                     /* widths are multiples of 8 */
                float2 &two = *(float2 *)(row + d), now = add ? two : float2{ 0, 0 };
                two = { now.x + x[4 * n + 2 * e], now.y + x[4 * n + 2 * e + 1] };
            }
        }
    }
}

/* What a sweep goes through: its passes, and its rows. */
struct sweep { stage passes; view rows; bool add; };

/* Rows i on of a gradient: through its room to the tensor, or written or added to the sums [B,H,T,width] in float. */
template <int D>
__device__ inline void put_gradient(const CUtensorMap *map, float *sum, const sweep &w, bf16 *room, int group, float (&x)[D / 2], float factor,
                                    const job &j, int i, int H, int T, int width)
{
    #pragma unroll
    for (int n = 0; n < D / 2; n++)
        x[n] *= factor;
    if (sum)
        put_rows<D>(sum, x, w.add, w.rows, j, i, H, T, width);
    else
        put_panels<D>(map, room, group, x, i, j.h, j.b);
}

/* Multiprocessors of this device. */
static inline int processors(void)
{
    int device = 0, n = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device);
    return n;
}
#endif
