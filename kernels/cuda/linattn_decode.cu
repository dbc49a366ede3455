/* linattn_decode.cu - linear attention a token at a time: one block per (batch, key head) writes the token into the state
 * and reads it with the queries of its group.  State: S [M,Dv], z [M] and kappa, as on the CPU. */
#include "linattn.cuh"

enum { DECODERS = 256, DECODE_WARPS = DECODERS / 32 };

struct decode_call {
    k_linattn p;
    float *state;
    int64_t pos;
    int M;
    float input_scale;
};

/* The sum or the largest of one number per thread, the same for all. */
static __device__ float block_reduce(float x, int largest, float *work)
{
    for (int lanes = 16; lanes; lanes /= 2) {
        float y = __shfl_xor_sync(~0u, x, lanes);
        x = largest ? fmaxf(x, y) : x + y;
    }
    __syncthreads();
    if (lane_id() == 0) work[warp_id()] = x;
    __syncthreads();
    x = work[0];
    for (int i = 1; i < DECODE_WARPS; i++) x = largest ? fmaxf(x, work[i]) : x + work[i];
    return x;
}

/* u [m] = W x of x [D]. */
static __device__ void project(const k_features &f, const float *W, const float *x, float *u)
{
    for (int r = warp_id(); r < f.m; r += DECODE_WARPS) {
        float sum = 0;
        for (int d = lane_id(); d < f.D; d += 32) sum += W[(int64_t)r * f.D + d] * x[d];
        for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
        if (lane_id() == 0) u[r] = sum;
    }
    __syncthreads();
}

/* phi [M] from u = phi[0..m), eta and kappa. */
static __device__ void favor_exp(const k_features &f, k_role role, float eta, float kappa, float *phi)
{
    int m = f.m, wide = f.favor != K_FAVOR_POSITIVE;
    float c = rsqrtf(f.favor == K_FAVOR_HYPERBOLIC ? 2 * m : m), gain = role == K_KEY ? expf(eta - kappa) : 1;
    for (int r = threadIdx.x; r < m; r += DECODERS) {
        float u = phi[r];
        if (f.favor == K_FAVOR_TRIG) {
            phi[r] = c * gain * cosf(u), phi[m + r] = c * gain * sinf(u);
            continue;
        }
        phi[r] = c * (expf(u - eta - kappa) + (float)f.eps);
        if (wide) phi[m + r] = c * (expf(-u - eta - kappa) + (float)f.eps);
    }
    __syncthreads();
}

/* Features phi [M] of x [D].  kappa: of a key the state's so far, which becomes the larger one; of a query NULL. */
static __device__ void token_features(const decode_call &c, const float *W, const float *x, k_role role, float *kappa, float *phi, float *work)
{
    const k_features &f = c.p.f;
    int D = f.D, R = 2 * D;
    if (map_is_local(f)) {
        local_map m = { f.map, f.fn, (float)f.eps };
        for (int d = threadIdx.x; d < D; d += DECODERS) {
            float y = x[d];
            apply_map<float, 1>(m, &y);
            phi[d] = y;
        }
    } else if (f.map == K_MAP_DPFP) {
        for (int n = threadIdx.x; n < c.M; n += DECODERS) {
            int s = n / R + 1, i = n % R, j = (i - s + R) % R;
            float a = i < D ? x[i] : -x[i - D], b = j < D ? x[j] : -x[j - D];
            phi[n] = fmaxf(a, 0) * fmaxf(b, 0);
        }
    } else {
        project(f, W, x, phi);
        if (f.map == K_MAP_GENERAL)
            for (int r = threadIdx.x; r < f.m; r += DECODERS) phi[r] = function_of<float>(f.fn, phi[r]) + (float)f.eps;
    }
    __syncthreads();
    if (f.map != K_MAP_FAVOR) return;
    float eta = 0, largest = -INFINITY;
    for (int d = threadIdx.x; d < D; d += DECODERS) eta += 0.5f * x[d] * x[d];
    eta = block_reduce(eta, 0, work);
    for (int r = threadIdx.x; r < f.m; r += DECODERS) largest = fmaxf(largest, f.favor == K_FAVOR_POSITIVE ? phi[r] : fabsf(phi[r]));
    largest = block_reduce(largest, 1, work);
    float own = !f.stabilise ? 0 : f.favor == K_FAVOR_TRIG ? eta : largest;
    if (kappa) *kappa = fmaxf(*kappa, own);
    favor_exp(f, role, eta, kappa ? *kappa : own, phi);
}

/* Row x [n] of T, times by. */
template <typename T> static __device__ void load_row(const k_rows &t, int b, int h, int i, int n, float by, float *x)
{
    __syncthreads();
    for (int d = threadIdx.x; d < n; d += DECODERS) x[d] = by * to_float(((const T *)t.p)[b * t.sb + h * t.sh + i * t.st + d]);
    __syncthreads();
}

/* o of query i of head h with features a; write: first S = fade S + key v and z = fade z + key. */
template <typename T> static __device__ void read_token(const decode_call &c, float *S, int b, int h, int i, const float *a, int write,
                                                        const float *key, const float *v, float fade, float *part, float *work)
{
    const k_linattn &p = c.p;
    int wide = (p.Dv + 31) / 32 * 32, groups = DECODERS / wide, d = threadIdx.x % wide, group = threadIdx.x / wide;
    float *z = S + (int64_t)c.M * p.Dv, sum = 0, den = 0;
    for (int m = group; m < c.M && d < p.Dv && group < groups; m += groups) {
        float s = S[(int64_t)m * p.Dv + d];
        if (write) S[(int64_t)m * p.Dv + d] = s = fade * s + key[m] * v[d];
        sum += a[m] * s;
    }
    for (int m = threadIdx.x; m < c.M; m += DECODERS) {
        if (write) z[m] = fade * z[m] + key[m];
        den += a[m] * z[m];
    }
    den = block_reduce(den, 0, work);
    part[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < p.Dv) {
        for (int g = 1; g < groups; g++) sum += part[g * wide + threadIdx.x];
        den += (fabsf(den) <= (float)p.guard ? 2 * (float)p.guard : 0) + (float)p.denom_eps;
        float by = !p.normalise ? 1 : fabsf(den) < 1.17549435e-38f ? 0 : 1 / den;
        ((T *)p.o.p)[b * p.o.sb + h * p.o.sh + i * p.o.st + threadIdx.x] = from_float<T>(by * sum);
    }
    __syncthreads();
}

template <typename T> static __global__ void __launch_bounds__(DECODERS) decode_kernel(const __grid_constant__ decode_call c)
{
    extern __shared__ float memory[];
    const k_linattn &p = c.p;
    float *key = memory, *a = key + c.M, *x = a + c.M, *v = x + p.Dk, *part = v + p.Dv, *work = part + DECODERS;
    int b = blockIdx.x / p.Hk, hk = blockIdx.x % p.Hk, G = p.Hq / p.Hk;
    const float *W = p.f.W ? (const float *)p.f.W + (int64_t)hk * p.f.m * p.f.D : NULL;
    float *S = c.state + (int64_t)blockIdx.x * ((int64_t)c.M * p.Dv + c.M + 1), *old = S + (int64_t)c.M * p.Dv + c.M;
    for (int i = 0; i < p.Tq; i++) {
        int fresh = c.pos + i == 0;
        float before = fresh ? 0 : *old, kappa = fresh ? -INFINITY : before;
        load_row<T>(p.k, b, hk, i, p.Dk, c.input_scale, x);
        load_row<T>(p.v, b, hk, i, p.Dv, 1, v);
        token_features(c, W, x, K_KEY, &kappa, key, work);
        if (kappa == -INFINITY) kappa = 0;      /* the map has none */
        for (int g = 0; g < G; g++) {
            load_row<T>(p.q, b, hk * G + g, i, p.Dk, c.input_scale, x);
            token_features(c, W, x, K_QUERY, NULL, a, work);
            read_token<T>(c, S, b, hk * G + g, i, a, g == 0, key, v, fresh ? 1 : expf(before - kappa), part, work);
        }
        if (threadIdx.x == 0) *old = kappa;
        __syncthreads();
    }
}

template <typename T> void linattn_decode(const k_linattn *p, void *state, int64_t pos, cudaStream_t stream)
{
    decode_call c = { *p, (float *)state, pos, k_features_width(&p->f), features_scale(p->f) };
    int bytes = (2 * c.M + p->Dk + p->Dv + DECODERS + DECODE_WARPS) * (int)sizeof(float);
    cudaFuncSetAttribute(decode_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    decode_kernel<T><<<p->B * p->Hk, DECODERS, bytes, stream>>>(c);
}
template void linattn_decode<float>(const k_linattn *, void *, int64_t, cudaStream_t);
template void linattn_decode<bf16>(const k_linattn *, void *, int64_t, cudaStream_t);
