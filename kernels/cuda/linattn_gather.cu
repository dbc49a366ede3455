/* linattn_gather.cu - S = sum over rows of P y' and z = sum of P w, of P = f(Wx) times a factor of the row (see
 * linattn_projected.cu): a block has 128 features of a head, its warps 16 each with their W in registers, and goes
 * through the rows of a segment, 64 at a time. */
#include "linattn_projected.cuh"

static __device__ __forceinline__ float warp_most(float x)
{
    #pragma unroll
    for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
    return x;
}

/* 64 rows as they come, and in parts. */
template <typename T> struct gather_memory {
    T raw_x[TILE * LD], raw_y[TILE * LD];
    bf16 x[PARTS<T>][TILE * LD], y[PARTS<T>][TILE * LD];
    float offset[TILE], factor[TILE], weight[TILE];     /* offset: eta + kappa in powers of two, less factor's; inf: no row */
};

/* What a warp of gather holds: features f0 .. f0+15; and a thread of sums over rows, of columns c .. c+7. */
struct gatherer {
    int unit, b, h, f0, end, running;   /* unit: of x's heads; running: the maximum is not known */
    frag<bf16> W[BLOCKS][2];
    acc S[BLOCKS];
    float z[2], top, largest, sum_y[8], sum_w;
};

/* W of the warp's features, x' = scale x. */
static __device__ __forceinline__ void load_W(const projection &p, gatherer &g)
{
    const float *W = (const float *)p.f.W + (int64_t)(g.h / (p.H / p.Hk)) * p.f.m * p.D;
    #pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            int row = g.f0 + acc_row(2 * n), col = 16 * k + acc_col(2 * n), there = row < p.f.m;
            const float *at = W + row * p.D + col;
            uint32_t pair[2];
            split_pair(there && col < p.D ? p.scale * at[0] : 0, there && col + 1 < p.D ? p.scale * at[1] : 0, pair);
            g.W[k][0].r[n] = pair[0], g.W[k][1].r[n] = pair[1];
        }
    }
}

/* Starts the loads of 64 rows. */
template <typename T> static __device__ __forceinline__ void load_raw(const projection &p, const gatherer &g, gather_memory<T> *m, int row0)
{
    const T *x = (const T *)p.x.p + g.b * p.x.sb + g.h * p.x.sh, *y = (const T *)p.y.p + g.b * p.y.sb + g.h * p.y.sh;
    load_tile<T, GATHERERS>(m->raw_x, rows_at<T>{ x, p.x.st, 0, g.end, p.D, p.x_vector }, row0, 0);
    load_tile<T, GATHERERS>(m->raw_y, rows_at<T>{ y, p.y.st, 0, g.end, p.E, p.y_vector }, row0, 0);
    loads_commit();
}

/* Eight columns x of a row in parts. */
template <typename T> static __device__ __forceinline__ void split_columns(float (&x)[8], bf16 (*to)[TILE * LD], int at)
{
    write8(to[0] + at, x);
    #pragma unroll
    for (int i = 0; i < 8; i++) x[i] -= to_float(from_float<bf16>(x[i]));
    if (PARTS<T> > 1) write8(to[PARTS<T> - 1] + at, x);
}

/* The rows in parts, what there is per row, and the sums that eps is multiplied by. */
template <typename T> static __device__ __forceinline__ void split_rows(const projection &p, gatherer &g, gather_memory<T> *m, int row0)
{
    int c = (threadIdx.x & 7) * 8;
    #pragma unroll 1
    for (int r = threadIdx.x >> 3; r < TILE; r += GATHERERS / 8) {
        int there = row0 + r < g.end;
        int64_t at = (int64_t)g.unit * p.T + row0 + r;
        float factor = !there ? 0 : p.factor ? p.factor[at] : 1, weight = !there || !p.weight ? p.plain : p.weight[at];
        float x[8], y[8], squares = 0;
        read8(m->raw_x + r * LD + c, x);
        read8(m->raw_y + r * LD + c, y);
        #pragma unroll
        for (int i = 0; i < 8; i++) squares += x[i] * x[i], g.sum_y[i] += factor * y[i];
        split_columns<T>(x, m->x, r * LD + c);
        split_columns<T>(y, m->y, r * LD + c);
        #pragma unroll
        for (int lanes = 1; lanes < 8; lanes *= 2) squares += __shfl_xor_sync(~0u, squares, lanes);
        if (c) continue;
        float eta = 0.5f * p.scale * p.scale * squares;
        g.sum_w += factor * weight;
        m->factor[r] = factor, m->weight[r] = weight;
        m->offset[r] = there ? LOG2E * (eta + (p.peak ? p.peak[at] : 0)) - log2f(factor) : INFINITY;
    }
}

/* u where there is neither feature nor row becomes -inf. */
static __device__ __forceinline__ void cover(const projection &p, const gatherer &g, int row0, acc &u)
{
    #pragma unroll
    for (int n = 0; n < 8; n++)
        if (g.f0 + acc_row(n) >= p.f.m || row0 + acc_col(n) >= g.end) u.c[n] = -INFINITY;
}

/* Where u grows too far, the sums move under a new maximum. */
static __device__ __forceinline__ void raise(gatherer &g, const acc &u)
{
    float most = -INFINITY;
    #pragma unroll
    for (int n = 0; n < 8; n++) most = fmaxf(most, u.c[n]);
    g.largest = fmaxf(g.largest, most);
    if (!__any_sync(~0u, LOG2E * most > g.top + SLACK)) return;
    float now = LOG2E * warp_most(most), keep = power(g.top - now);
    g.top = now;
    g.z[0] *= keep, g.z[1] *= keep;
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) g.S[j].c[n] *= keep;
    }
}

/* P of the warp's features and rows r .. r+15 of the tile, in place of u; z grows. */
template <typename T, int FAVOR>
static __device__ __forceinline__ void weigh(const projection &p, gatherer &g, const gather_memory<T> *m, int r, acc &u, frag<bf16> (&P)[PARTS<T>])
{
    const float *row = FAVOR ? m->offset : m->factor;
    float base = g.top == -INFINITY ? 0 : g.top;
    if (!FAVOR) apply_function<T>(p.f, u.c);
    #pragma unroll
    for (int n = 0; n < 8; n += 2) {
        float2 of = *(const float2 *)(row + r + acc_col(n));
        float &x = u.c[n], &y = u.c[n + 1];
        x = FAVOR ? power(fmaf(x, LOG2E, -(of.x + base))) : of.x * x;
        y = FAVOR ? power(fmaf(y, LOG2E, -(of.y + base))) : of.y * y;
    }
    split_acc(u, P);
    #pragma unroll
    for (int n = 0; n < 8; n += 2) {
        float2 weight = *(const float2 *)(m->weight + r + acc_col(n));
        g.z[n / 2 % 2] += weight.x * u.c[n] + weight.y * u.c[n + 1];
    }
}

/* The 64 rows of a tile join S and z. */
template <typename T, int FAVOR>
static __device__ __forceinline__ void add_rows(const projection &p, gatherer &g, const gather_memory<T> *m, int row0)
{
    int whole = g.f0 + WARP_FEATURES <= p.f.m && row0 + TILE <= g.end;
    #pragma unroll 1
    for (int r = 0; r < TILE; r += 16) {
        acc u;
        right x[PARTS<T>];
        frag<bf16> P[PARTS<T>];
        clear(u);
        #pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            right_rows(x, m->x[0], TILE * LD, r, 16 * k);
            multiply(u, g.W[k], x);
        }
        if (FAVOR && !whole) cover(p, g, row0 + r, u);
        if (FAVOR && g.running) raise(g, u);
        weigh<T, FAVOR>(p, g, m, r, u, P);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            right_cols(x, m->y[0], TILE * LD, r, 16 * j);
            multiply(g.S[j], P, x);
        }
    }
}

/* What a warp has gathered, to part number `part` of all. */
static __device__ __forceinline__ void put_sums(const projection &p, const gatherer &g, const share &to, int64_t part)
{
    float *S = to.S + part * p.f.m * p.E, *z = to.z + part * p.f.m, largest = warp_most(g.largest);
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        int row = g.f0 + acc_row(n);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            int col = 16 * j + acc_col(n);
            if (row < p.f.m && col < p.E) S[row * p.E + col] = g.S[j].c[n];
        }
    }
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        int row = g.f0 + acc_row(2 * e);
        float sum = row_sum(g.z[e]);
        if (lane_id() % 4 == 0 && row < p.f.m) z[row] = sum;
    }
    int64_t at = part * GROUPS + g.f0 / WARP_FEATURES;
    if (lane_id() == 0) to.top[at] = g.running ? g.top : 0, to.largest[at] = largest;
}

/* What eps is multiplied by, of all threads; work [GATHERERS / 8][TILE]. */
static __device__ __forceinline__ void put_columns(const projection &p, const gatherer &g, const share &to, int64_t part, float *work)
{
    int c = threadIdx.x & 7, r = threadIdx.x >> 3;
    __syncthreads();
    write8(work + r * TILE + c * 8, g.sum_y);
    __syncthreads();
    if (threadIdx.x < p.E) {
        float sum = 0;
        for (int i = 0; i < GATHERERS / 8; i++) sum += work[i * TILE + threadIdx.x];
        to.sum_y[part * p.E + threadIdx.x] = sum;
    }
    __syncthreads();
    if (c == 0) work[r] = g.sum_w;
    __syncthreads();
    if (threadIdx.x) return;
    float sum = 0;
    for (int i = 0; i < GATHERERS / 8; i++) sum += work[i];
    to.sum_w[part] = sum;
}

template <typename T, int FAVOR> static __global__ void __launch_bounds__(GATHERERS, 2) gather_kernel(const __grid_constant__ gathering c)
{
    extern __shared__ __align__(16) unsigned char memory[];
    gather_memory<T> *m = reinterpret_cast<gather_memory<T> *>(memory);
    const projection &p = c.p;
    gatherer g = {};
    unsigned at = blockIdx.x;
    int half = at % c.halves, segment = at / c.halves % c.segments;
    g.unit = at / c.halves / c.segments, g.b = g.unit / p.H, g.h = g.unit % p.H, g.end = end_of(p, g.b);
    g.f0 = half * BLOCK_FEATURES + warp_id() * WARP_FEATURES;
    g.running = FAVOR && !p.peak, g.top = g.running ? -INFINITY : 0, g.largest = -INFINITY;
    int per = (feature_blocks(p.T) + c.segments - 1) / c.segments * TILE, from = segment * per, to = min(from + per, g.end);
    load_W(p, g);
    if (from < to) load_raw(p, g, m, from);
    for (int row0 = from; row0 < to; row0 += TILE) {
        loads_wait<0>();
        __syncthreads();
        split_rows(p, g, m, row0);
        __syncthreads();
        if (row0 + TILE < to) load_raw(p, g, m, row0 + TILE);
        add_rows<T, FAVOR>(p, g, m, row0);
    }
    int64_t part = (int64_t)g.unit * c.segments + segment;
    put_sums(p, g, c.to, part);
    if (half == 0) put_columns(p, g, c.to, part, (float *)m);
}

/* ---- settle -------------------------------------------------------------------------------------------------------- */

enum { SETTLERS = 256 };

/* Of one (b, key head): kappa, S and, as column E, z. */
static __global__ void __launch_bounds__(SETTLERS) settle_kernel(const __grid_constant__ settling c)
{
    const projection &p = c.p;
    int m = p.f.m, n = blockIdx.y * SETTLERS + threadIdx.x, f = n / (p.E + 1), e = n % (p.E + 1), groups = (m + WARP_FEATURES - 1) / WARP_FEATURES;
    int64_t unit = blockIdx.x, first = unit * c.parts;
    float kappa = -INFINITY, sum = 0, more = 0;
    for (int i = 0; i < c.parts * groups && c.running; i++) kappa = fmaxf(kappa, c.of.largest[(first + i / groups) * GROUPS + i % groups]);
    if (!p.f.stabilise || !c.running) kappa = 0;
    if (n == 0 && c.kappa) c.kappa[unit] = kappa;
    if (f >= m) return;
    for (int64_t i = first; i < first + c.parts; i++) {
        float top = c.of.top[i * GROUPS + f / WARP_FEATURES], x = e < p.E ? c.of.S[(i * m + f) * p.E + e] : c.of.z[i * m + f];
        if (top > -INFINITY) sum += power(top - LOG2E * kappa) * x;
        if (p.favor) more += e < p.E ? c.of.sum_y[i * p.E + e] : c.of.sum_w[i];
    }
    sum = p.front * (sum + p.eps * more);
    if (e < p.E) c.S[(unit * m + f) * p.E + e] = sum;
    else c.z[unit * m + f] = sum;
}

template <typename T> void linattn_gather(int B, const gathering &g, const settling &s, cudaStream_t stream)
{
    const projection &p = g.p;
    dim3 blocks((unsigned)(B * p.H * g.segments * g.halves));
    dim3 numbers((unsigned)(B * p.Hk), (unsigned)((p.f.m * (p.E + 1) + SETTLERS - 1) / SETTLERS));
    launch(p.favor ? gather_kernel<T, 1> : gather_kernel<T, 0>, blocks, GATHERERS, sizeof(gather_memory<T>), g, stream);
    launch(settle_kernel, numbers, SETTLERS, 0, s, stream);
}
template void linattn_gather<float>(int, const gathering &, const settling &, cudaStream_t);
template void linattn_gather<bf16>(int, const gathering &, const settling &, cudaStream_t);
