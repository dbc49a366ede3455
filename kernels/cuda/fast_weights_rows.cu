/* fast_weights_rows.cu - keys and queries of fast weights as rows of normed features, and back.  All are of one dtype, but for
 * gradients of features, which are float.
 *
 * The floor is the memory's: a row belongs to `lanes` threads of a warp, each of which has eight numbers of it at a time.
 * Features that need other numbers of their row, dpfp, find them in shared memory; favor's come from features.cu. */
#include "fast_weights.cuh"
#include "features.cuh"

enum { MOST_LANES = 32 };

/* A row of a thread, where its own numbers begin, and whether there is such a row. */
struct row_part { int64_t row; int lane, lanes; bool there; };
static __device__ row_part own_part(const fw_rows &s, int lanes)
{
    const int64_t row = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / lanes, all = (int64_t)s.B * s.H * s.T;
    return { row < all ? row : all - 1, (int)threadIdx.x % lanes, lanes, row < all };
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

/* ---- dpfp --------------------------------------------------------------------------------------------------------------- */

/* Number p of an array in shared memory: eight threads that are eight numbers apart meet in no bank. */
static __host__ __device__ int spread(int p) { return p + p / 8; }

/* Floats of shared memory of a row: r [2D], and backward the gradients of its features. */
static __host__ __device__ int room_of(const fw_rows &s, int backward)
{
    return s.f.map != K_MAP_DPFP ? 0 : spread(2 * s.f.D) + 1 + (backward ? spread(s.m) + 1 : 0);
}
/* Those of this thread's row. */
static __device__ float *own_room(const fw_rows &s, int lanes, int backward)
{
    extern __shared__ float row_rooms[];
    return row_rooms + threadIdx.x / lanes * room_of(s, backward);
}

/* r = [relu(x); relu(-x)]. */
template <class T> static __device__ void rectify(const fw_rows &s, const row_part &at, const T *x, float *r)
{
    for (int d = at.lane; d < s.f.D; d += at.lanes) {
        const float y = to_float(x[d]);
        r[spread(d)] = fmaxf(y, 0), r[spread(s.f.D + d)] = fmaxf(-y, 0);
    }
    __syncwarp();
}
/* Eight features from i on, 0 beyond the row. */
static __device__ void dpfp_features(const fw_rows &s, const float *r, int i, float y[8])
{
    const int R = 2 * s.f.D;
    int p = i % R, shift = i / R + 1;
    #pragma unroll
    for (int n = 0; n < 8; n++, p++) {
        if (p == R) p = 0, shift++;
        const int other = p - shift;
        y[n] = i + n < s.m ? r[spread(p)] * r[spread(other < 0 ? other + R : other)] : 0;
    }
}
/* dx of the gradients of features. */
template <class T> static __device__ void dpfp_back(const fw_rows &s, const row_part &at, const float *r, const float *dphi, T *dx)
{
    const int D = s.f.D, R = 2 * D;
    __syncwarp();
    for (int d = at.lane; d < D && at.there; d += at.lanes) {
        const int i = r[spread(d)] > 0 ? d : D + d;
        float dr = 0;
        for (int shift = 1; shift <= s.f.nu && r[spread(i)] > 0; shift++) {
            const int before = i < shift ? i - shift + R : i - shift, after = i + shift < R ? i + shift : i + shift - R, first = (shift - 1) * R;
            dr += dphi[spread(first + i)] * r[spread(before)] + dphi[spread(first + after)] * r[spread(after)];
        }
        dx[d] = from_float<T>(i == d ? dr : -dr);
    }
}

/* ---- features and norms --------------------------------------------------------------------------------------------------- */

/* The row that features are made of: of x, or of favor's features. */
template <class T> static __device__ const T *row_of(const fw_rows &s, int64_t row)
{
    return s.f.map == K_MAP_FAVOR ? (const T *)s.phi + row * s.m : place<T>(s, s.x, row);
}
/* Features from i on, 0 beyond the row; x: the numbers that they are of, where the map is local. */
template <class T> static __device__ void read_features(const fw_rows &s, local_map map, const T *from, const float *r, int i, float *x, float *y)
{
    if (s.f.map == K_MAP_DPFP) return dpfp_features(s, r, i, y);
    read_part(from, i, s.m, s.whole, x);
    #pragma unroll
    for (int n = 0; n < 8; n++) y[n] = x[n];
    if (s.f.map == K_MAP_FAVOR) return;
    apply_map<T, 8>(map, y);
    #pragma unroll
    for (int n = 0; n < 8; n++) if (i + n >= s.m) y[n] = 0;
}

/* y = r phi. */
template <class T> static __global__ void __launch_bounds__(THREADS) norm_kernel(const __grid_constant__ fw_rows s, local_map map, int lanes)
{
    const row_part at = own_part(s, lanes);
    const T *from = row_of<T>(s, at.row);
    float *r = own_room(s, lanes, 0), sum = 0, x[8], y[8];
    if (s.f.map == K_MAP_DPFP) rectify(s, at, from, r);
    for (int i = 8 * at.lane; i < s.m; i += 8 * lanes) {
        read_features(s, map, from, r, i, x, y);
        #pragma unroll
        for (int n = 0; n < 8; n++) sum += s.norm == K_NORM_SUM ? y[n] : y[n] * y[n];
    }
    sum = total(sum, lanes) + s.eps;
    const float by = s.norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : s.norm == K_NORM_SUM ? 1 / sum : 1 / sqrtf(sum);
    if (at.there && at.lane == 0) s.r[at.row] = by;
    for (int i = 8 * at.lane; at.there && i < s.m; i += 8 * lanes) {
        if (s.m > 8 * lanes) read_features(s, map, from, r, i, x, y);
        #pragma unroll
        for (int n = 0; n < 8; n++) y[n] *= by;
        write_part((T *)s.y + at.row * s.m, i, s.m, s.whole, y);
    }
}

/* dphi = r (dy - along) with along = y.dy, times y for l2; through a map to dx at once, but for favor's.  y is made again,
 * unrounded: where few features are large, dy and along all but cancel. */
template <class T> static __global__ void __launch_bounds__(THREADS) norm_back_kernel(const __grid_constant__ fw_rows s, local_map map, int lanes)
{
    const row_part at = own_part(s, lanes);
    const T *from = row_of<T>(s, at.row);
    const float *dy = s.dy + at.row * s.m, by = s.r[at.row];
    float *r = own_room(s, lanes, 1), *dphi = r + spread(2 * s.f.D) + 1, along = 0, x[8], y[8], d[8];
    if (s.f.map == K_MAP_DPFP) rectify(s, at, from, r);
    for (int i = 8 * at.lane; i < s.m; i += 8 * lanes) {
        read_features(s, map, from, r, i, x, y);
        read_part(dy, i, s.m, s.whole, d);
        #pragma unroll
        for (int n = 0; n < 8; n++) along += by * y[n] * d[n];
    }
    along = s.norm == K_NORM_NONE ? 0 : total(along, lanes);
    for (int i = 8 * at.lane; at.there && i < s.m; i += 8 * lanes) {
        if (s.m > 8 * lanes) read_features(s, map, from, r, i, x, y), read_part(dy, i, s.m, s.whole, d);
        #pragma unroll
        for (int n = 0; n < 8; n++) d[n] = by * (d[n] - along * (s.norm == K_NORM_L2 ? by * y[n] : 1));
        if (s.f.map == K_MAP_FAVOR) write_part(s.dphi + at.row * s.m, i, s.m, s.whole, d);
        else if (s.f.map == K_MAP_DPFP) for (int n = 0; n < 8 && i + n < s.m; n++) dphi[spread(i + n)] = d[n];
        else {
            multiply_slope<T, 8>(map, x, d);
            write_part(place<T>(s, s.dx, at.row), i, s.m, s.whole, d);
        }
    }
    if (s.f.map == K_MAP_DPFP) dpfp_back(s, at, r, dphi, place<T>(s, s.dx, at.row));
}

/* ---- the host's side -------------------------------------------------------------------------------------------------------- */

/* Threads of a row. */
static int lanes_of(const fw_rows &s)
{
    int lanes = 1;
    while (lanes < MOST_LANES && 8 * lanes < s.m) lanes *= 2;
    return lanes;
}
/* Rows of all blocks, and shared memory of each. */
template <class Kernel> static void run_rows(Kernel kernel, const fw_rows &s, int backward, cudaStream_t stream)
{
    const int lanes = lanes_of(s), bytes = THREADS / lanes * room_of(s, backward) * (int)sizeof(float);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<(unsigned)(((int64_t)s.B * s.H * s.T * lanes + THREADS - 1) / THREADS), THREADS, bytes, stream>>>(s, local_map_of(s.f), lanes);
}

/* The rows as features.cu takes them.  A stabiliser belongs to a row, as that of queries does: it cancels in the norm. */
static feature_rows favor_rows(const fw_rows &s, k_role role)
{
    return { s.f, role, s.B, s.H, s.Hk, s.T, { s.x.p, s.x.sb, s.x.sh, s.x.st }, NULL, NULL, NULL };
}

template <class T> void fw_features(const fw_rows &s, cudaStream_t stream)
{
    if (s.f.map == K_MAP_FAVOR) features_forward<T>(favor_rows(s, s.f.stabilise ? K_QUERY : s.role), (T *)s.phi, stream);
    run_rows(norm_kernel<T>, s, 0, stream);
}

template <class T> void fw_features_back(const fw_rows &s, cudaStream_t stream)
{
    run_rows(norm_back_kernel<T>, s, 1, stream);
    if (s.f.map == K_MAP_FAVOR) features_backward<T>(favor_rows(s, s.role), (const T *)s.phi, s.dphi, 1, { s.dx.p, s.dx.sb, s.dx.sh, s.dx.st }, stream);
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
