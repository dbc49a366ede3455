/* fast_weights_rows.cu - keys and queries of fast weights as rows of normed features, and back.  All are of one dtype, but for
 * gradients of features, which are float.
 *
 * The floor is the memory's: a row belongs to `lanes` threads of a warp, each of which has eight numbers of it at a time. */
#include "fast_weights.cuh"
#include "features.cuh"

enum { MOST_LANES = 32 };

/* A row of a thread, and where its own numbers begin. */
struct row_part { int64_t row; int lanes, first; };
static __device__ row_part own_part(int lanes)
{
    return { ((int64_t)blockIdx.x * THREADS + threadIdx.x) / lanes, lanes, (int)threadIdx.x % lanes * 8 };
}
/* Where it lies in x or dx. */
template <class T> static __device__ T *place(const fw_rows &s, const k_heads &x, int64_t row)
{
    const int64_t unit = row / s.T;
    return (T *)x.p + unit / s.H * x.sb + unit % s.H * x.sh + row % s.T * x.st;
}

/* The sum over the threads of a row. */
static __device__ float total(float x, int lanes)
{
    for (int n = lanes / 2; n; n /= 2) x += __shfl_xor_sync(~0u, x, n);
    return x;
}

/* Numbers from i on of a row of m; what is not there is 0, and stays as it is. */
template <class T> static __device__ void read_part(const T *from, int i, int m, int whole, float *x)
{
    if (whole) return read8(from + i, x);
    #pragma unroll
    for (int n = 0; n < 8; n++) x[n] = i + n < m ? to_float(from[i + n]) : 0;
}
template <class T> static __device__ void write_part(T *to, int i, int m, int whole, const float *x)
{
    if (whole) return write8(to + i, x);
    #pragma unroll
    for (int n = 0; n < 8; n++) if (i + n < m) to[i + n] = from_float<T>(x[n]);
}

/* Features from i on, 0 beyond the row; x: the numbers of a local map that they are of. */
template <class T> static __device__ void read_features(const fw_rows &s, local_map map, const T *from, int i, float *x, float *y)
{
    read_part(from, i, s.m, s.whole, x);
    #pragma unroll
    for (int n = 0; n < 8; n++) y[n] = x[n];
    if (s.mixes) return;
    apply_map<T, 8>(map, y);
    #pragma unroll
    for (int n = 0; n < 8; n++) if (i + n >= s.m) y[n] = 0;
}

/* y = r phi. */
template <class T> static __global__ void __launch_bounds__(THREADS) norm_kernel(const __grid_constant__ fw_rows s, local_map map, int lanes)
{
    const row_part at = own_part(lanes);
    const bool there = at.row < (int64_t)s.B * s.H * s.T;
    const int64_t row = there ? at.row : 0;
    const T *from = s.mixes ? (const T *)s.phi + row * s.m : place<T>(s, s.x, row);
    float sum = 0, x[8], y[8];
    for (int i = at.first; i < s.m; i += 8 * lanes) {
        read_features(s, map, from, i, x, y);
        #pragma unroll
        for (int n = 0; n < 8; n++) sum += s.norm == K_NORM_SUM ? y[n] : y[n] * y[n];
    }
    sum = total(sum, lanes) + s.eps;
    const float r = s.norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : s.norm == K_NORM_SUM ? 1 / sum : 1 / sqrtf(sum);
    if (!there) return;
    if (at.first == 0) s.r[row] = r;
    for (int i = at.first; i < s.m; i += 8 * lanes) {
        if (s.m > 8 * lanes) read_features(s, map, from, i, x, y);
        #pragma unroll
        for (int n = 0; n < 8; n++) y[n] *= r;
        write_part((T *)s.y + row * s.m, i, s.m, s.whole, y);
    }
}

/* dphi = r (dy - along) with along = y.dy, times y for l2; through a local map to dx at once.  y is made again, unrounded: where
 * few features are large, dy and along all but cancel. */
template <class T> static __global__ void __launch_bounds__(THREADS) norm_back_kernel(const __grid_constant__ fw_rows s, local_map map, int lanes)
{
    const row_part at = own_part(lanes);
    const bool there = at.row < (int64_t)s.B * s.H * s.T;
    const int64_t row = there ? at.row : 0;
    const T *from = s.mixes ? (const T *)s.phi + row * s.m : place<T>(s, s.x, row);
    const float *dy = s.dy + row * s.m, r = s.r[row];
    float along = 0, x[8], y[8], d[8];
    for (int i = at.first; i < s.m; i += 8 * lanes) {
        read_features(s, map, from, i, x, y);
        read_part(dy, i, s.m, s.whole, d);
        #pragma unroll
        for (int n = 0; n < 8; n++) along += r * y[n] * d[n];
    }
    along = s.norm == K_NORM_NONE ? 0 : total(along, lanes);
    if (!there) return;
    for (int i = at.first; i < s.m; i += 8 * lanes) {
        if (s.m > 8 * lanes) read_features(s, map, from, i, x, y), read_part(dy, i, s.m, s.whole, d);
        #pragma unroll
        for (int n = 0; n < 8; n++) d[n] = r * (d[n] - along * (s.norm == K_NORM_L2 ? r * y[n] : 1));
        if (s.mixes) write_part(s.dphi + row * s.m, i, s.m, s.whole, d);
        else {
            multiply_slope<T, 8>(map, x, d);
            write_part(place<T>(s, s.dx, row), i, s.m, s.whole, d);
        }
    }
}

/* Threads of a row, and blocks of all rows. */
static int lanes_of(const fw_rows &s)
{
    int lanes = 1;
    while (lanes < MOST_LANES && 8 * lanes < s.m) lanes *= 2;
    return lanes;
}
static unsigned blocks_of(const fw_rows &s) { return (unsigned)(((int64_t)s.B * s.H * s.T * lanes_of(s) + THREADS - 1) / THREADS); }

/* The rows as features.cu takes them.  A stabiliser belongs to a row, as that of queries does: it cancels in the norm. */
static feature_rows mixed(const fw_rows &s, k_role role)
{
    return { s.f, role, s.B, s.H, s.Hk, s.T, { s.x.p, s.x.sb, s.x.sh, s.x.st }, NULL, NULL, NULL };
}

template <class T> void fw_features(const fw_rows &s, cudaStream_t stream)
{
    if (s.mixes) features_forward<T>(mixed(s, s.f.stabilise ? K_QUERY : s.role), (T *)s.phi, stream);
    norm_kernel<T><<<blocks_of(s), THREADS, 0, stream>>>(s, local_map_of(s.f), lanes_of(s));
}

template <class T> void fw_features_back(const fw_rows &s, cudaStream_t stream)
{
    norm_back_kernel<T><<<blocks_of(s), THREADS, 0, stream>>>(s, local_map_of(s.f), lanes_of(s));
    if (s.mixes) features_backward<T>(mixed(s, s.role), (const T *)s.phi, s.dphi, 1, { s.dx.p, s.dx.sb, s.dx.sh, s.dx.st }, stream);
}
template void fw_features<float>(const fw_rows &, cudaStream_t);
template void fw_features<bf16>(const fw_rows &, cudaStream_t);
template void fw_features_back<float>(const fw_rows &, cudaStream_t);
template void fw_features_back<bf16>(const fw_rows &, cudaStream_t);

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
