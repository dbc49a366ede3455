/* recurrence_finish.cu - gradients of fading memories that several have a share in, or that are turned back before they go out:
 * rows of shared, normalised or turned heads, and params. */
#include "recurrence_rows.cuh"

/* ---- gradients of shared, normalised or turned rows ------------------------------------------------------------------------- */

/* dst [B,heads,T,D] of y [B,heads n,T,D] floats, n of which belong to each head; plain: there is no norm or turn
 * to go back through. */
struct rows_back { recurrence x; k_heads dst, rows; int heads, n, D, plain; const float *y; };

template <typename T> static __global__ void __launch_bounds__(THREADS) rows_kernel(const __grid_constant__ rows_back k)
{
    extern __shared__ float row_memory[];
    const recurrence &x = k.x;
    float *y = row_memory + warp_id() * k.D, sum = 0, dot = 0;
    int64_t at = (int64_t)blockIdx.x * WARPS + warp_id();
    if (at >= (int64_t)x.r.B * k.heads * x.r.T) return;
    int t = (int)(at % x.r.T), h = (int)(at / x.r.T % k.heads), b = (int)(at / x.r.T / k.heads);
    const T *row = k.plain ? NULL : head_row<T>(k.rows, b, h, t);
    int norm = !k.plain && x.r.norm == K_NORM_L2;
    for (int d = lane_id(); d < k.D; d += 32) {
        float total = 0, own = norm ? to_float(row[d]) : 0;
        for (int g = 0; g < k.n; g++) total += k.y[((((int64_t)b * k.heads + h) * k.n + g) * x.r.T + t) * k.D + d];
        y[d] = total;
        sum += own * own, dot += own * total;
    }
    for (int lanes = 16; lanes; lanes /= 2) {
        sum += __shfl_xor_sync(~0u, sum, lanes);
        dot += __shfl_xor_sync(~0u, dot, lanes);
    }
    __syncwarp();
    sum += (float)x.r.norm_eps;
    float by = sum == 0 ? 0 : 1 / sqrtf(sum);
    T *out = const_cast<T *>(head_row<T>(k.dst, b, h, t));
    for (int d = lane_id(); d < k.D; d += 32) {
        float z = y[d];
        if (norm) z = by * (z - by * by * dot * to_float(row[d]));
        else if (!k.plain && d < x.rope) z = turned(x, t, d, -1, z, y[rope_partner(x, d)]);
        out[d] = from_float<T>(z);
    }
}

/* dst [H] += the shares of all batch rows and chunks. */
static __global__ void param_kernel(const float *shares, int B, int H, int chunks, float *dst)
{
    double sum = 0;
    for (int n = threadIdx.x; n < B * chunks; n += 32) sum += shares[((int64_t)(n / chunks) * H + blockIdx.x) * chunks + n % chunks];
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (threadIdx.x == 0) dst[blockIdx.x] += (float)sum;
}

/* ---- the host's side --------------------------------------------------------------------------------------------------------- */

template <typename T> static void finish_rows(const recurrence &x, const k_heads &dst, const k_heads &rows, int heads, int n, int D, int plain, const float *y,
                                              cudaStream_t stream)
{
    rows_back k = { x, dst, rows, heads, n, D, plain, y };
    int64_t blocks = ((int64_t)x.r.B * heads * x.r.T + WARPS - 1) / WARPS;
    rows_kernel<T><<<(unsigned)blocks, THREADS, WARPS * D * sizeof(float), stream>>>(k);
}

template <typename T> void recurrence_finish(const recurrence &x, cudaStream_t stream)
{
    const k_recurrence &r = x.r;
    float *params[RC_PARAMS] = { (float *)r.da_log, (float *)r.ddt_bias, (float *)r.dd_skip };
    if (r.dq.p && !x.direct_q && !r.float_rows) finish_rows<T>(x, r.dq, r.q, r.Hq, r.Ho / r.Hq, r.D, x.normed, x.dq, stream);
    if (r.dk.p && !x.direct_k && !r.float_rows) finish_rows<T>(x, r.dk, r.k, r.Hk, r.H / r.Hk, r.D, x.normed, x.dk, stream);
    if (r.dv.p && !x.direct_v) finish_rows<T>(x, r.dv, r.v, r.Hv, r.H / r.Hv, r.E, 1, x.dv, stream);
    for (int i = 0; i < RC_PARAMS; i++)
        if (params[i]) param_kernel<<<r.H, 32, 0, stream>>>(x.dparam + (int64_t)i * r.B * r.H * x.shares, r.B, r.H, x.shares, params[i]);
}
template void recurrence_finish<float>(const recurrence &, cudaStream_t);
template void recurrence_finish<bf16>(const recurrence &, cudaStream_t);
