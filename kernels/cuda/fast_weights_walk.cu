/* fast_weights_walk.cu - fast weights token by token: every rule and every denominator, as fast_weights.h defines them and
 * variants/fwp.c derives them.  A block has one memory.  Forward keeps the memory at the start of every chunk; backward
 * walks a chunk again, keeps all its memories, and goes back through them. */
#include "fast_weights.cuh"
#include "linattn_tile.cuh"
#include <math.h>

enum { WALKERS = 256, WARPS_WALKING = WALKERS / 32, SHARED_MEMORY = 64 << 10 };

/* What a block keeps in shared memory. */
struct walk_room {
    float *x, *row;                     /* [m] features of a row; [m] */
    float *u, *g, *y;                   /* [Dv] */
    float *part;                        /* [WALKERS] */
};
struct walk_at { int b, h; int64_t unit; };

/* ---- vectors and matrices of a block -------------------------------------------------------------------------------- */

static __device__ float warp_total(float x)
{
    for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
    return x;
}

/* The sum over all threads, in all of them. */
static __device__ float block_total(float x, float *part)
{
    x = warp_total(x);
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads();
    float sum = 0;
    for (int w = 0; w < WARPS_WALKING; w++) sum += part[w];
    __syncthreads();
    return sum;
}

static __device__ float inner(int n, const float *x, const float *y, float *part)
{
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += WALKERS) sum += x[i] * y[i];
    return block_total(sum, part);
}

/* y [E] = W' x, W [m,E]; every thread has a column, several share one. */
static __device__ void columns(int m, int E, const float *W, const float *x, float *y, float *part)
{
    int wide = 32;
    while (wide < E) wide *= 2;
    const int e = threadIdx.x % wide, groups = WALKERS / wide;
    float sum = 0;
    for (int d = threadIdx.x / wide; e < E && d < m; d += groups) sum += x[d] * W[(int64_t)d * E + e];
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < E) {
        sum = 0;
        for (int n = 0; n < groups; n++) sum += part[n * wide + threadIdx.x];
        y[threadIdx.x] = sum;
    }
    __syncthreads();
}

/* y [m] = s W x, plus what is there if add; every warp has a row. */
static __device__ void rows(int m, int E, const float *W, const float *x, float s, bool add, float *y)
{
    for (int d = warp_id(); d < m; d += WARPS_WALKING) {
        float sum = 0;
        for (int e = lane_id(); e < E; e += 32) sum += W[(int64_t)d * E + e] * x[e];
        sum = warp_total(sum);
        if (lane_id() == 0) y[d] = s * sum + (add ? y[d] : 0);
    }
    __syncthreads();
}

static __device__ void fetch(float *to, const float *from, int n)
{
    for (int i = threadIdx.x; i < n; i += WALKERS) to[i] = from[i];
    __syncthreads();
}

static __device__ float *head_row(const k_heads &x, int b, int h, int64_t t)
{
    return (float *)x.p + b * x.sb + h * x.sh + t * x.st;
}

/* 1 / den; a denominator of exactly 0 gives 0. */
static __device__ float inverse(float den) { return den != 0 ? 1 / den : 0; }

/* ---- one token ------------------------------------------------------------------------------------------------------- */

static __device__ float strength(const fw_walk &w, const walk_at &at, int t)
{
    return w.f.rule == K_FW_SUM ? 1 : (float)w.f.beta_max / (1 + expf(-head_row(w.f.beta, at.b, at.h, t)[0]));
}
static __device__ bool recalls(const fw_walk &w) { return w.f.rule == K_FW_DELTA || w.f.rule == K_FW_FWM; }

/* x = b_t, u = v - W'b / den, or v where nothing is recalled; returns 1 / den. */
static __device__ float recall(const fw_walk &w, const walk_at &at, const walk_room &s, int t, const float *W)
{
    const int m = w.f.m, E = w.f.Dv;
    fetch(s.x, (const float *)w.b + (at.unit * w.f.Tk + t) * m, m);
    const float inv = w.f.attn_norm == K_FW_FULL ? inverse(inner(m, W + (int64_t)m * E, s.x, s.part) + (float)w.f.attn_eps) : 1;
    if (recalls(w)) columns(m, E, W, s.x, s.u, s.part);
    for (int e = threadIdx.x; e < E; e += WALKERS) s.u[e] = head_row(w.f.v, at.b, at.h, t)[e] - (recalls(w) ? inv * s.u[e] : 0);
    __syncthreads();
    return inv;
}

/* Token t is written: the memory W becomes Wn, which may be W; `first`: it is not clipped.  Returns the divisor of fwm. */
static __device__ float write_token(const fw_walk &w, const walk_at &at, const walk_room &s, int t, bool first, const float *W, float *Wn)
{
    const int m = w.f.m, E = w.f.Dv;
    const float beta = strength(w, at, t), keep = w.f.rule == K_FW_GATED ? 1 - beta : 1, more = w.f.rule == K_FW_GATED ? beta : 1;
    float square = 0;
    recall(w, at, s, t, W);
    for (int64_t i = threadIdx.x; i < (int64_t)m * E; i += WALKERS) {
        const float y = keep * W[i] + beta * s.x[i / E] * s.u[i % E];
        Wn[i] = y;
        square += y * y;
    }
    for (int d = threadIdx.x; d < m; d += WALKERS) Wn[(int64_t)m * E + d] = keep * W[(int64_t)m * E + d] + more * s.x[d];
    __syncthreads();
    if (w.f.rule != K_FW_FWM || first) return 1;
    const float clip = fmaxf(1, sqrtf(block_total(square, s.part)));
    for (int64_t i = threadIdx.x; clip > 1 && i < (int64_t)m * E; i += WALKERS) Wn[i] /= clip;
    __syncthreads();
    return clip;
}

/* x = features of query i of reader h, y = what it reads, before fwm's layer norm; returns scale / den. */
static __device__ float read_memory(const fw_walk &w, const walk_at &at, const walk_room &s, int h, int i, const float *W)
{
    const int m = w.f.m, E = w.f.Dv;
    fetch(s.x, (const float *)w.a + (((int64_t)at.b * w.f.Hq + h) * w.f.Tq + i) * m, m);
    float inv = (float)w.f.scale;
    if (w.f.attn_norm != K_FW_NONE) inv *= inverse(inner(m, W + (int64_t)m * E, s.x, s.part) + (float)w.f.attn_eps);
    columns(m, E, W, s.x, s.y, s.part);
    for (int e = threadIdx.x; e < E; e += WALKERS) s.y[e] *= inv;
    __syncthreads();
    return inv;
}

/* fwm: y becomes its layer norm; returns what it was multiplied by, 1 without. */
static __device__ float layer_norm(const fw_walk &w, const walk_room &s)
{
    const int E = w.f.Dv, e = threadIdx.x;
    if (w.f.rule != K_FW_FWM) return 1;
    const float mean = block_total(e < E ? s.y[e] : 0, s.part) / E, off = e < E ? s.y[e] - mean : 0;
    const float r = 1 / sqrtf(block_total(off * off, s.part) / E + (float)K_FW_LAYER_NORM_EPS);
    if (e < E) s.y[e] = r * off;
    __syncthreads();
    return r;
}

/* ---- forward ----------------------------------------------------------------------------------------------------------- */

static __device__ walk_room room_of(const fw_walk &w, float *at)
{
    const int m = w.f.m, E = w.f.Dv;
    return { at, at + m, at + 2 * m, at + 2 * m + E, at + 2 * m + 2 * E, at + 2 * m + 3 * E };
}
static __device__ walk_at place_of(const fw_walk &w) { return { (int)(blockIdx.x / w.f.Hk), (int)(blockIdx.x % w.f.Hk), blockIdx.x }; }

/* to = from, n numbers; NULL: zeros. */
static __device__ void copy(float *to, const float *from, int64_t n)
{
    for (int64_t i = threadIdx.x; i < n; i += WALKERS) to[i] = from ? from[i] : 0;
    __syncthreads();
}

/* The memory before token 0; whether there is nothing in it. */
static __device__ bool begin_memory(const fw_walk &w, const walk_at &at, const walk_room &s, float *W)
{
    const int64_t n = (int64_t)w.f.m * w.f.Dv;
    copy(W, w.f.state_in ? (const float *)w.f.state_in + at.unit * n : NULL, n);
    copy(W + n, w.f.z_in ? (const float *)w.f.z_in + at.unit * w.f.m : NULL, w.f.m);
    float used = 0;
    for (int64_t i = threadIdx.x; i < n; i += WALKERS) used += W[i] != 0;
    return block_total(used, s.part) == 0;
}

/* o of the readers from .. to - 1 in all heads of the group. */
static __device__ void read_rows(const fw_walk &w, const walk_at &at, const walk_room &s, int from, int to, const float *W)
{
    for (int i = from; i < to; i++) for (int g = 0; g < w.G; g++) {
        const int h = at.h * w.G + g;
        read_memory(w, at, s, h, i, W);
        layer_norm(w, s);
        for (int e = threadIdx.x; e < w.f.Dv; e += WALKERS) head_row(w.f.o, at.b, h, i)[e] = s.y[e];
        __syncthreads();
    }
}

static __global__ void __launch_bounds__(WALKERS) walk_forward_kernel(const __grid_constant__ fw_walk w)
{
    extern __shared__ float shared[];
    const walk_room s = room_of(w, shared);
    const walk_at at = place_of(w);
    const int64_t n = fw_size(w.f), nW = (int64_t)w.f.m * w.f.Dv;
    float *W = w.shared ? s.part + WALKERS : w.memory + at.unit * n;
    const bool empty = begin_memory(w, at, s, W);
    for (int t = 0; t < w.f.Tk; t++) {
        if (w.kept && t % FW_CHUNK == 0) copy(w.kept + (at.unit * w.chunks + t / FW_CHUNK) * n, W, n);
        write_token(w, at, s, t, empty && t == 0, W, W);
        if (w.f.causal) read_rows(w, at, s, t, t + 1, W);
    }
    if (!w.f.causal) read_rows(w, at, s, 0, w.f.Tq, W);
    if (w.f.state_out) copy((float *)w.f.state_out + at.unit * nW, W, nW);
    if (w.f.z_out) copy((float *)w.f.z_out + at.unit * w.f.m, W + nW, w.f.m);
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

/* Query i of reader h read W: its gradient da, and R += that of W and z. */
static __device__ void read_back(const fw_walk &w, const walk_at &at, const walk_room &s, int h, int i, const float *W, float *R)
{
    const int m = w.f.m, E = w.f.Dv, e = threadIdx.x;
    const int64_t nW = (int64_t)m * E;
    const bool normed = w.f.attn_norm != K_FW_NONE;
    float *da = w.da + (((int64_t)at.b * w.f.Hq + h) * w.f.Tq + i) * m;
    const float inv = read_memory(w, at, s, h, i, W), r = layer_norm(w, s);
    fetch(s.g, head_row(w.f.d_o, at.b, h, i), E);
    const float along = inner(E, s.g, s.y, s.part), mean = block_total(e < E ? s.g[e] : 0, s.part) / E, z = normed ? -inv / (float)w.f.scale * along : 0;
    if (e < E && w.f.rule == K_FW_FWM) s.g[e] = r * (s.g[e] - mean - s.y[e] * along / E);
    __syncthreads();
    rows(m, E, W, s.g, inv, false, da);
    for (int d = e; d < m; d += WALKERS) {
        da[d] += z * W[nW + d];
        R[nW + d] += z * s.x[d];
    }
    for (int64_t n = e; n < nW; n += WALKERS) R[n] += inv * s.x[n / E] * s.g[n % E];
    __syncthreads();
}

/* R <- its part that passes through the division of W' by clip. */
static __device__ void clip_back(const fw_walk &w, const walk_room &s, float clip, const float *Wn, float *R)
{
    const int64_t nW = (int64_t)w.f.m * w.f.Dv;
    float along = 0;
    for (int64_t n = threadIdx.x; n < nW; n += WALKERS) along += R[n] * Wn[n];
    along = block_total(along, s.part);
    for (int64_t n = threadIdx.x; n < nW; n += WALKERS) R[n] = (R[n] - along * Wn[n]) / clip;
    __syncthreads();
}

/* Token t made Wn of W: R becomes the gradient of W and z; db, dv and dbeta of the token.  g: beta du, row: rows of sums. */
static __device__ void write_back(const fw_walk &w, const walk_at &at, const walk_room &s, int t, float clip, const float *W, const float *Wn, float *R)
{
    const int m = w.f.m, E = w.f.Dv, me = threadIdx.x;
    const int64_t nW = (int64_t)m * E;
    const bool gated = w.f.rule == K_FW_GATED, full = w.f.attn_norm == K_FW_FULL;
    const float beta = strength(w, at, t), inv = recall(w, at, s, t, W), keep = gated ? 1 - beta : 1, more = gated ? beta : 1;
    const float *z = W + nW;
    float *dz = R + nW, *db = w.db + (at.unit * w.f.Tk + t) * m, dbeta = 0, dden = 0;
    if (clip > 1) clip_back(w, s, clip, Wn, R);
    columns(m, E, R, s.x, s.g, s.part);
    if (me < E) {
        const float v = head_row(w.f.v, at.b, at.h, t)[me];
        dbeta = s.g[me] * s.u[me];
        s.g[me] *= beta;
        dden = inv * s.g[me] * (v - s.u[me]);
        if (w.f.dv.p) head_row(w.f.dv, at.b, at.h, t)[me] = s.g[me];
    }
    dden = full ? block_total(dden, s.part) : 0;
    __syncthreads();
    rows(m, E, R, s.u, beta, false, s.row);
    if (recalls(w)) rows(m, E, W, s.g, -inv, true, s.row);
    for (int64_t n = me; n < nW; n += WALKERS) {
        if (gated) dbeta -= R[n] * W[n];
        R[n] = keep * R[n] - (recalls(w) ? inv * s.x[n / E] * s.g[n % E] : 0);
    }
    for (int d = me; d < m; d += WALKERS) {
        if (gated) dbeta += dz[d] * (s.x[d] - z[d]);
        db[d] = s.row[d] + more * dz[d] + dden * z[d];
        dz[d] = keep * dz[d] + dden * s.x[d];
    }
    dbeta = block_total(dbeta, s.part);
    if (me == 0 && w.f.dbeta.p) head_row(w.f.dbeta, at.b, at.h, t)[0] = dbeta * beta * (1 - beta / (float)w.f.beta_max);
}

/* Walks chunk c again: all its memories in past, its divisors in clip; returns its tokens. */
static __device__ int walk_again(const fw_walk &w, const walk_at &at, const walk_room &s, int c, bool empty)
{
    const int64_t n = fw_size(w.f);
    const int t0 = c * FW_CHUNK, tokens = min(FW_CHUNK, w.f.Tk - t0);
    float *past = w.past + at.unit * (FW_CHUNK + 1) * n;
    copy(past, w.kept + (at.unit * w.chunks + c) * n, n);
    for (int i = 0; i < tokens; i++) {
        const float clip = write_token(w, at, s, t0 + i, empty && t0 + i == 0, past + i * n, past + (i + 1) * n);
        if (threadIdx.x == 0) w.clip[at.unit * FW_CHUNK + i] = clip;
    }
    __syncthreads();
    return tokens;
}

static __global__ void __launch_bounds__(WALKERS) walk_backward_kernel(const __grid_constant__ fw_walk w)
{
    extern __shared__ float shared[];
    const walk_room s = room_of(w, shared);
    const walk_at at = place_of(w);
    const int64_t n = fw_size(w.f), nW = (int64_t)w.f.m * w.f.Dv;
    float *R = w.shared ? s.part + WALKERS : w.memory + at.unit * n;
    const float *past = w.past + at.unit * (FW_CHUNK + 1) * n;
    const bool empty = begin_memory(w, at, s, R);
    copy(R, NULL, n);
    for (int c = w.chunks - 1; c >= 0; c--) {
        const int tokens = walk_again(w, at, s, c, empty);
        for (int i = 0; c == w.chunks - 1 && !w.f.causal && i < w.f.Tq; i++)
            for (int g = 0; g < w.G; g++) read_back(w, at, s, at.h * w.G + g, i, past + tokens * n, R);
        for (int i = tokens - 1; i >= 0; i--) {
            for (int g = 0; w.f.causal && g < w.G; g++) read_back(w, at, s, at.h * w.G + g, c * FW_CHUNK + i, past + (i + 1) * n, R);
            write_back(w, at, s, c * FW_CHUNK + i, w.clip[at.unit * FW_CHUNK + i], past + i * n, past + (i + 1) * n, R);
        }
    }
    if (w.f.dstate) copy((float *)w.f.dstate + at.unit * nW, R, nW);
    if (w.f.dz) copy((float *)w.f.dz + at.unit * w.f.m, R + nW, w.f.m);
}

/* ---- the host's side ------------------------------------------------------------------------------------------------------ */

static void launch(void (*kernel)(fw_walk), fw_walk w, cudaStream_t stream)
{
    const size_t room = (size_t)(2 * w.f.m + 3 * w.f.Dv + WALKERS) * sizeof(float), memory = (size_t)fw_size(w.f) * sizeof(float);
    w.shared = memory <= SHARED_MEMORY;
    const int bytes = (int)(room + (w.shared ? memory : 0));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<w.f.B * w.f.Hk, WALKERS, bytes, stream>>>(w);
}

void fw_walk_forward(const fw_walk &w, cudaStream_t stream) { launch(walk_forward_kernel, w, stream); }
void fw_walk_backward(const fw_walk &w, cudaStream_t stream) { launch(walk_backward_kernel, w, stream); }
