/* features.cu - feature maps that mix the numbers of a row, 64 rows by each block.
 *
 * favor and general multiply by W in tiles of 64 features: u = W x' stays in the registers of the warps, 16 rows each, and
 * is computed again where it is needed again (the stabiliser of a query is the largest u of its row).  Arithmetic is
 * float whatever the dtype of the rows, the products in three of TF32. */
#include "features.cuh"

/* Shared memory: a tile of W, one of u or du, x' of the block's 64 rows in tiles of 64 columns, and what there is per row. */
enum { MOST_KEPT = 4 };                 /* tiles of u that wait for the largest of their row */
struct feature_memory {
    float W[TILE * LD], u[TILE * LD], eta[TILE], largest[TILE], deta[TILE];
    float x[1][TILE * LD];              /* as many as x has columns of tiles */
};

struct feature_call {
    feature_rows r;
    int M, columns, parts, blocks, kept;    /* kept: tiles of u that wait for their row's largest */
    float scale, front, eps;            /* of x in x'; of the features; eps of the map */
    void *phi;
    const float *dphi;
    k_rows dx;
};

static __device__ int rows_end(const feature_rows &r, int b) { return r.klen && r.klen[b] < r.T ? r.klen[b] : r.T; }

/* The block's batch row, head and first row. */
struct place { int b, h, row0, unit; };
static __device__ place place_of(const feature_call &c)
{
    int unit = blockIdx.x / c.blocks;
    return { unit / c.r.H, unit % c.r.H, (int)(blockIdx.x % c.blocks) * TILE, unit };
}

/* x' into shared memory, and eta. */
template <typename T> static __device__ void load_x(const feature_call &c, const place &at, feature_memory *m)
{
    const feature_rows &r = c.r;
    const T *x = (const T *)r.x.p + at.b * r.x.sb + at.h * r.x.sh;
    int hi = rows_end(r, at.b);
    for (int n = threadIdx.x; n < c.columns * TILE * TILE; n += THREADS) {
        int k = n % (c.columns * TILE), i = n / (c.columns * TILE), row = at.row0 + i;
        m->x[k / TILE][i * LD + k % TILE] = row < hi && k < r.f.D ? c.scale * to_float(x[row * r.x.st + k]) : 0;
    }
    __syncthreads();
    for (int i = threadIdx.x / 8; i < TILE; i += THREADS / 8) {
        float eta = 0;
        for (int k = threadIdx.x % 8; k < r.f.D; k += 8) {
            float y = m->x[k / TILE][i * LD + k % TILE];
            eta += 0.5f * y * y;
        }
        for (int lanes = 1; lanes < 8; lanes *= 2) eta += __shfl_xor_sync(~0u, eta, lanes);
        if (threadIdx.x % 8 == 0) m->eta[i] = eta;
    }
    __syncthreads();
}

/* Features f0.. of W, columns 64 k.., of the head's projection. */
static __device__ void load_W(const feature_call &c, const place &at, feature_memory *m, int f0, int k)
{
    const k_features &f = c.r.f;
    const float *W = (const float *)f.W + (int64_t)(at.h / (c.r.H / c.r.Hk)) * f.m * f.D;
    __syncthreads();
    load_tile(m->W, rows_at<float>{ W, f.D, 0, f.m, f.D, f.D % 4 == 0 && (uintptr_t)f.W % 16 == 0 }, f0, k * TILE);
    loads_commit();
    loads_wait<0>();
    __syncthreads();
}

/* u of this warp's 16 rows and features f0 .. f0+63. */
static __device__ void project(const feature_call &c, const place &at, feature_memory *m, int f0, acc u[BLOCKS])
{
    for (int j = 0; j < BLOCKS; j++) clear(u[j]);
    for (int k = 0; k < c.columns; k++) {
        load_W(c, at, m, f0, k);
        #pragma unroll
        for (int s = 0; s < BLOCKS; s++) {
            frag<float> x = load_rows(m->x[k], 16 * warp_id(), 16 * s);
            #pragma unroll
            for (int j = 0; j < BLOCKS; j++) product(u[j], x, load_rows(m->W, 16 * j, 16 * s));
        }
    }
}

/* u of this warp's 16 rows to a tile. */
static __device__ void store_u(float *tile, const acc u[BLOCKS])
{
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) store_acc(tile, 16 * warp_id(), 16 * j, u[j]);
    __syncwarp();
}

/* Tile number n of those of u that are kept. */
static __device__ float *kept_u(const feature_call &c, feature_memory *m, int n) { return m->x[c.columns + n]; }

/* largest[row] = the stabiliser of each row alone. */
static __device__ void row_peaks(const feature_call &c, const place &at, feature_memory *m)
{
    const k_features &f = c.r.f;
    float most[2] = { -INFINITY, -INFINITY };
    for (int f0 = 0; f0 < f.m; f0 += TILE) {
        acc u[BLOCKS];
        project(c, at, m, f0, u);
        if (c.kept) store_u(kept_u(c, m, f0 / TILE), u);
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            #pragma unroll
            for (int i = 0; i < 8; i++)
                if (f0 + 16 * j + acc_col(i) < f.m)
                    most[i >> 1 & 1] = fmaxf(most[i >> 1 & 1], f.favor == K_FAVOR_POSITIVE ? u[j].c[i] : fabsf(u[j].c[i]));
        }
    }
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        for (int lanes = 1; lanes < 4; lanes *= 2) most[n] = fmaxf(most[n], __shfl_xor_sync(~0u, most[n], lanes));
        if ((lane_id() & 3) == 0) m->largest[16 * warp_id() + acc_row(2 * n)] = most[n];
    }
    __syncthreads();
}

/* ---- the stabiliser of keys ------------------------------------------------------------------------------------ */

template <typename T> static __global__ void __launch_bounds__(THREADS) peaks_kernel(const __grid_constant__ feature_call c)
{
    extern __shared__ __align__(16) unsigned char memory[];
    feature_memory *m = reinterpret_cast<feature_memory *>(memory);
    place at = place_of(c);
    load_x<T>(c, at, m);
    if (c.r.f.favor != K_FAVOR_TRIG) row_peaks(c, at, m);
    if (threadIdx.x) return;
    float most = -INFINITY;
    for (int i = 0; i < TILE && at.row0 + i < rows_end(c.r, at.b); i++)
        most = fmaxf(most, c.r.f.favor == K_FAVOR_TRIG ? m->eta[i] : m->largest[i]);
    c.r.peaks[blockIdx.x] = most;
}

/* kappa [unit] = the largest of its peaks. */
static __global__ void kappa_kernel(const float *peaks, int blocks, float *kappa)
{
    float most = -INFINITY;
    for (int i = threadIdx.x; i < blocks; i += 32) most = fmaxf(most, peaks[(int64_t)blockIdx.x * blocks + i]);
    for (int lanes = 16; lanes; lanes /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, lanes));
    if (threadIdx.x == 0) kappa[blockIdx.x] = most;
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

/* The features of one u; the second one of maps that have two. */
static __device__ __forceinline__ float2 features_of(const feature_call &c, float u, float eta, float kappa)
{
    const k_features &f = c.r.f;
    if (f.map == K_MAP_GENERAL) return make_float2(function_of<float>(f.fn, u) + c.eps, 0);
    if (f.favor == K_FAVOR_TRIG) {
        float by = c.r.role == K_KEY ? c.front * expf(eta - kappa) : c.front;
        return make_float2(by * cosf(u), by * sinf(u));
    }
    return make_float2(c.front * (expf(u - eta - kappa) + c.eps), f.favor == K_FAVOR_HYPERBOLIC ? c.front * (expf(-u - eta - kappa) + c.eps) : 0);
}

/* u of this warp's 16 rows in the tile of that name. */
static __device__ void project_to_tile(const feature_call &c, const place &at, feature_memory *m, int f0)
{
    acc u[BLOCKS];
    project(c, at, m, f0, u);
    store_u(m->u, u);
}

template <typename T> static __global__ void __launch_bounds__(THREADS) forward_kernel(const __grid_constant__ feature_call c)
{
    extern __shared__ __align__(16) unsigned char memory[];
    feature_memory *m = reinterpret_cast<feature_memory *>(memory);
    const k_features &f = c.r.f;
    place at = place_of(c);
    int two = c.M > f.m, peaks = f.map == K_MAP_FAVOR && f.stabilise, hi = rows_end(c.r, at.b);
    load_x<T>(c, at, m);
    if (peaks && c.r.role == K_QUERY && f.favor != K_FAVOR_TRIG) row_peaks(c, at, m);
    float shared = peaks && c.r.role == K_KEY ? c.r.kappa[at.unit] : 0;
    for (int f0 = 0; f0 < f.m; f0 += TILE) {
        const float *u = c.kept ? kept_u(c, m, f0 / TILE) : m->u;
        if (!c.kept) project_to_tile(c, at, m, f0);
        #pragma unroll 1
        for (int n = lane_id(); n < 16 * TILE; n += 32) {
            int r = 16 * warp_id() + n / TILE, feature = f0 + n % TILE, row = at.row0 + r;
            if (feature >= f.m || row >= hi) continue;
            float2 y = features_of(c, u[r * LD + n % TILE], m->eta[r], !peaks || c.r.role == K_KEY ? shared : m->largest[r]);
            T *phi = (T *)c.phi + ((int64_t)at.unit * c.r.T + row) * c.M + feature;
            phi[0] = from_float<T>(y.x);
            if (two) phi[f.m] = from_float<T>(y.y);
        }
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------------- */

/* dphi of feature i of a row, its parts added up. */
static __device__ __forceinline__ float gradient_of(const feature_call &c, int64_t i)
{
    float sum = 0;
    int64_t all = (int64_t)c.r.B * c.r.H * c.r.T * c.M;
    for (int n = 0; n < c.parts; n++) sum += c.dphi[n * all + i];
    return sum;
}

/* du of feature r of the row whose features begin at `first`, and its share of deta.  u: general only. */
template <typename T> static __device__ __forceinline__ float2 du_of(const feature_call &c, int64_t first, int r, float u)
{
    const k_features &f = c.r.f;
    const T *phi = (const T *)c.phi + first + r;
    float d = gradient_of(c, first + r), ce = c.front * c.eps;
    if (f.map == K_MAP_GENERAL) return make_float2(d * function_slope<float>(f.fn, u), 0);
    float a = to_float(phi[0]);
    if (f.favor == K_FAVOR_POSITIVE) return make_float2(d * (a - ce), -d * (a - ce));
    float e = gradient_of(c, first + f.m + r), b = to_float(phi[f.m]);
    if (f.favor == K_FAVOR_TRIG) return make_float2(e * a - d * b, c.r.role == K_KEY ? d * a + e * b : 0);
    return make_float2(d * (a - ce) - e * (b - ce), -d * (a - ce) - e * (b - ce));
}

/* du of this warp's 16 rows and features f0 .. f0+63 in the tile u; deta grows by their share. */
template <typename T> static __device__ void load_du(const feature_call &c, const place &at, feature_memory *m, int f0)
{
    const k_features &f = c.r.f;
    int hi = rows_end(c.r, at.b);
    if (f.map == K_MAP_GENERAL) project_to_tile(c, at, m, f0);
    __syncwarp();
    #pragma unroll 1
    for (int r = 16 * warp_id(); r < 16 * warp_id() + 16; r++) {
        float deta = 0;
        int row = at.row0 + r;
        #pragma unroll 1
        for (int i = lane_id(); i < TILE; i += 32) {
            float2 d = make_float2(0, 0);
            if (f0 + i < f.m && row < hi) d = du_of<T>(c, ((int64_t)at.unit * c.r.T + row) * c.M, f0 + i, m->u[r * LD + i]);
            m->u[r * LD + i] = d.x;
            deta += d.y;
        }
        for (int lanes = 16; lanes; lanes /= 2) deta += __shfl_xor_sync(~0u, deta, lanes);
        if (lane_id() == 0) m->deta[r] += deta;
    }
    __syncwarp();
}

/* dx = scale (W'du + deta x'), 64 columns of it by each block. */
template <typename T> static __global__ void __launch_bounds__(THREADS) backward_kernel(const __grid_constant__ feature_call c)
{
    extern __shared__ __align__(16) unsigned char memory[];
    feature_memory *m = reinterpret_cast<feature_memory *>(memory);
    const k_features &f = c.r.f;
    place at = place_of(c);
    int hi = rows_end(c.r, at.b), k = blockIdx.y;
    acc dx[BLOCKS];
    for (int j = 0; j < BLOCKS; j++) clear(dx[j]);
    if (threadIdx.x < TILE) m->deta[threadIdx.x] = 0;
    load_x<T>(c, at, m);
    for (int f0 = 0; f0 < f.m; f0 += TILE) {
        load_du<T>(c, at, m, f0);
        load_W(c, at, m, f0, k);
        #pragma unroll
        for (int s = 0; s < BLOCKS; s++) {
            frag<float> d = load_rows(m->u, 16 * warp_id(), 16 * s);
            #pragma unroll
            for (int j = 0; j < BLOCKS; j++) product(dx[j], d, load_cols(m->W, 16 * s, 16 * j));
        }
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            int r = 16 * warp_id() + acc_row(i), col = 16 * j + acc_col(i), row = at.row0 + r;
            if (row >= c.r.T || k * TILE + col >= f.D) continue;
            float x = m->x[k][r * LD + col], y = c.scale * (dx[j].c[i] + (f.map == K_MAP_FAVOR ? m->deta[r] * x : 0));
            ((T *)c.dx.p)[at.b * c.dx.sb + at.h * c.dx.sh + row * c.dx.st + k * TILE + col] = from_float<T>(row < hi ? y : 0);
        }
    }
}

/* ---- dpfp: one warp for each row ---------------------------------------------------------------------------------------- */

/* r [2D] of the warp's row; returns its number among those of its head, or -1 beyond the end. */
template <typename T> static __device__ int load_rectified(const feature_call &c, place &at, float *r)
{
    int D = c.r.f.D;
    int64_t n = (int64_t)blockIdx.x * WARPS + warp_id();
    if (n >= (int64_t)c.r.B * c.r.H * c.r.T) return -1;
    int row = (int)(n % c.r.T);
    at.unit = (int)(n / c.r.T), at.b = at.unit / c.r.H, at.h = at.unit % c.r.H;
    const T *x = (const T *)c.r.x.p + at.b * c.r.x.sb + at.h * c.r.x.sh + row * c.r.x.st;
    for (int d = lane_id(); d < D; d += 32) {
        float y = row < rows_end(c.r, at.b) ? to_float(x[d]) : 0;
        r[d] = fmaxf(y, 0), r[D + d] = fmaxf(-y, 0);
    }
    __syncwarp();
    return row;
}

template <typename T> static __global__ void __launch_bounds__(THREADS) dpfp_kernel(const __grid_constant__ feature_call c)
{
    extern __shared__ float rectified[];
    int R = 2 * c.r.f.D;
    float *r = rectified + warp_id() * R;
    place at;
    int row = load_rectified<T>(c, at, r);
    T *phi = (T *)c.phi + ((int64_t)at.unit * c.r.T + row) * c.M;
    for (int n = lane_id(); row >= 0 && n < c.M; n += 32) {
        int i = n % R, j = i - n / R - 1;
        phi[n] = from_float<T>(r[i] * r[j < 0 ? j + R : j]);
    }
}

template <typename T> static __global__ void __launch_bounds__(THREADS) dpfp_back_kernel(const __grid_constant__ feature_call c)
{
    extern __shared__ float rectified[];
    int D = c.r.f.D, R = 2 * D;
    float *r = rectified + warp_id() * R;
    place at;
    int row = load_rectified<T>(c, at, r);
    if (row < 0) return;
    int64_t first = ((int64_t)at.unit * c.r.T + row) * c.M;
    int there = row < rows_end(c.r, at.b);
    for (int d = lane_id(); d < D; d += 32) {
        int i = r[d] > 0 ? d : D + d;
        float dr = 0;
        for (int s = 1; s <= c.r.f.nu && there && r[i] > 0; s++) {
            int before = (i - s + R) % R, after = (i + s) % R;
            dr += gradient_of(c, first + (s - 1) * R + i) * r[before] + gradient_of(c, first + (s - 1) * R + after) * r[after];
        }
        ((T *)c.dx.p)[at.b * c.dx.sb + at.h * c.dx.sh + row * c.dx.st + d] = from_float<T>(i == d ? dr : -dr);
    }
}

/* ---- the host's side -------------------------------------------------------------------------------------------------------- */

static feature_call call_of(const feature_rows &r)
{
    feature_call c = {};
    c.r = r;
    c.M = k_features_width(&r.f);
    c.columns = (r.f.D + TILE - 1) / TILE;
    c.blocks = feature_blocks(r.T);
    c.scale = features_scale(r.f);
    c.front = r.f.map == K_MAP_FAVOR ? 1 / sqrtf(r.f.favor == K_FAVOR_HYPERBOLIC ? 2 * r.f.m : r.f.m) : 1;
    c.eps = (float)r.f.eps;
    return c;
}

/* Bytes of shared memory. */
static int memory_of(const feature_call &c) { return (int)sizeof(feature_memory) + (c.columns + c.kept - 1) * TILE * LD * (int)sizeof(float); }

template <typename T> void features_kappa(const feature_rows &r, cudaStream_t stream)
{
    if (r.f.map != K_MAP_FAVOR || !r.f.stabilise) return;
    feature_call c = call_of(r);
    int bytes = memory_of(c);
    cudaFuncSetAttribute(peaks_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    peaks_kernel<T><<<r.B * r.H * c.blocks, THREADS, bytes, stream>>>(c);
    kappa_kernel<<<r.B * r.H, 32, 0, stream>>>(r.peaks, c.blocks, r.kappa);
}

template <typename T> void features_forward(const feature_rows &r, T *phi, cudaStream_t stream)
{
    feature_call c = call_of(r);
    c.phi = phi;
    if (r.f.map == K_MAP_DPFP) {
        int64_t rows = (int64_t)r.B * r.H * r.T;
        dpfp_kernel<T><<<(unsigned)((rows + WARPS - 1) / WARPS), THREADS, WARPS * 2 * r.f.D * sizeof(float), stream>>>(c);
        return;
    }
    if (r.role == K_QUERY && r.f.map == K_MAP_FAVOR && r.f.favor != K_FAVOR_TRIG && r.f.stabilise && c.columns <= 2 && r.f.m <= MOST_KEPT * TILE)
        c.kept = (r.f.m + TILE - 1) / TILE;
    int bytes = memory_of(c);
    cudaFuncSetAttribute(forward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    forward_kernel<T><<<r.B * r.H * c.blocks, THREADS, bytes, stream>>>(c);
}

template <typename T> void features_backward(const feature_rows &r, const T *phi, const float *dphi, int parts, k_rows dx, cudaStream_t stream)
{
    feature_call c = call_of(r);
    c.phi = (void *)phi, c.dphi = dphi, c.parts = parts, c.dx = dx;
    if (r.f.map == K_MAP_DPFP) {
        int64_t rows = (int64_t)r.B * r.H * r.T;
        dpfp_back_kernel<T><<<(unsigned)((rows + WARPS - 1) / WARPS), THREADS, WARPS * 2 * r.f.D * sizeof(float), stream>>>(c);
        return;
    }
    int bytes = memory_of(c);
    cudaFuncSetAttribute(backward_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    backward_kernel<T><<<dim3(r.B * r.H * c.blocks, c.columns), THREADS, bytes, stream>>>(c);
}

template void features_kappa<float>(const feature_rows &, cudaStream_t);
template void features_kappa<bf16>(const feature_rows &, cudaStream_t);
template void features_forward<float>(const feature_rows &, float *, cudaStream_t);
template void features_forward<bf16>(const feature_rows &, bf16 *, cudaStream_t);
template void features_backward<float>(const feature_rows &, const float *, const float *, int, k_rows, cudaStream_t);
template void features_backward<bf16>(const feature_rows &, const bf16 *, const float *, int, k_rows, cudaStream_t);
