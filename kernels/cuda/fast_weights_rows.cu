/* fast_weights_rows.cu - keys and queries of fast weights as rows of normed features, and back; a warp has a row. */
#include "fast_weights.cuh"
#include "features.cuh"

/* The warp's row: its number among all, and where it lies in x or dx. */
static __device__ int64_t own_row() { return (int64_t)blockIdx.x * WARPS + warp_id(); }
static __device__ float *place(const fw_rows &s, const k_heads &x, int64_t row)
{
    const int64_t unit = row / s.T;
    return (float *)x.p + unit / s.H * x.sb + unit % s.H * x.sh + row % s.T * x.st;
}

static __device__ float total(float x)
{
    for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
    return x;
}

/* Feature i of a row. */
static __device__ float feature(const fw_rows &s, local_map map, const float *from, int i)
{
    float x[1] = { from[i] };
    if (!s.mixes) apply_map<float, 1>(map, x);
    return x[0];
}

/* y = r phi. */
static __global__ void __launch_bounds__(THREADS) norm_kernel(const __grid_constant__ fw_rows s, local_map map)
{
    const int64_t row = own_row();
    if (row >= (int64_t)s.B * s.H * s.T) return;
    const float *from = s.mixes ? s.phi + row * s.m : place(s, s.x, row);
    float sum = 0;
    for (int i = lane_id(); i < s.m && s.norm != K_NORM_NONE; i += 32) {
        const float y = feature(s, map, from, i);
        sum += s.norm == K_NORM_SUM ? y : y * y;
    }
    sum = total(sum) + s.eps;
    const float r = s.norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : s.norm == K_NORM_SUM ? 1 / sum : 1 / sqrtf(sum);
    if (lane_id() == 0) s.r[row] = r;
    for (int i = lane_id(); i < s.m; i += 32) s.y[row * s.m + i] = r * feature(s, map, from, i);
}

/* dphi = r (dy - along) with along = y.dy, times y for l2; through a local map to dx at once. */
static __global__ void __launch_bounds__(THREADS) norm_back_kernel(const __grid_constant__ fw_rows s, local_map map)
{
    const int64_t row = own_row();
    if (row >= (int64_t)s.B * s.H * s.T) return;
    const float *y = s.y + row * s.m, *x = place(s, s.x, row), *dy = s.dy + row * s.m;
    float along = 0;
    for (int i = lane_id(); i < s.m && s.norm != K_NORM_NONE; i += 32) along += y[i] * dy[i];
    along = total(along);
    for (int i = lane_id(); i < s.m; i += 32) {
        const float d = s.r[row] * (dy[i] - along * (s.norm == K_NORM_L2 ? y[i] : 1));
        if (s.mixes) s.dphi[row * s.m + i] = d;
        else place(s, s.dx, row)[i] = d * map_slope<float>(map, x[i]);
    }
}

static unsigned blocks_of(const fw_rows &s) { return (unsigned)(((int64_t)s.B * s.H * s.T + WARPS - 1) / WARPS); }

/* The rows as features.cu takes them.  A stabiliser belongs to a row, as that of queries does: it cancels in the norm. */
static feature_rows mixed(const fw_rows &s, k_role role)
{
    return { s.f, role, s.B, s.H, s.Hk, s.T, { s.x.p, s.x.sb, s.x.sh, s.x.st }, NULL, NULL, NULL };
}

void fw_features(const fw_rows &s, cudaStream_t stream)
{
    if (s.mixes) features_forward<float>(mixed(s, s.f.stabilise ? K_QUERY : s.role), s.phi, stream);
    norm_kernel<<<blocks_of(s), THREADS, 0, stream>>>(s, local_map_of(s.f));
}

void fw_features_back(const fw_rows &s, cudaStream_t stream)
{
    norm_back_kernel<<<blocks_of(s), THREADS, 0, stream>>>(s, local_map_of(s.f));
    if (s.mixes) features_backward<float>(mixed(s, s.role), s.phi, s.dphi, 1, { s.dx.p, s.dx.sb, s.dx.sh, s.dx.st }, stream);
}

/* ---- widths ------------------------------------------------------------------------------------------------------------ */

template <class From, class To> static __global__ void __launch_bounds__(THREADS) convert_kernel(int H, int T, int D, int64_t all, k_heads from, k_heads to)
{
    const int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = n / D, unit = row / T;
    if (n >= all) return;
    const int64_t b = unit / H, h = unit % H, t = row % T, d = n % D;
    ((To *)to.p)[b * to.sb + h * to.sh + t * to.st + d] = from_float<To>(to_float(((const From *)from.p)[b * from.sb + h * from.sh + t * from.st + d]));
}

void fw_widen(int B, int H, int T, int D, k_heads from, k_heads to, cudaStream_t stream)
{
    const int64_t all = (int64_t)B * H * T * D;
    convert_kernel<bf16, float><<<(unsigned)((all + THREADS - 1) / THREADS), THREADS, 0, stream>>>(H, T, D, all, from, to);
}

void fw_narrow(int B, int H, int T, int D, k_heads from, k_heads to, cudaStream_t stream)
{
    const int64_t all = (int64_t)B * H * T * D;
    convert_kernel<float, bf16><<<(unsigned)((all + THREADS - 1) / THREADS), THREADS, 0, stream>>>(H, T, D, all, from, to);
}
