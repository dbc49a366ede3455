/* optimiser.cu - Adam, and the questions that training asks of its gradients. */
#include "device.cuh"
#include <math.h>

enum { THREADS = 256, PARTS = 1024, WARP = 32 };

/* Adam's factors, worked out once on the host as kernels/cpu/optimiser.inc does. */
template <class T> struct adam_factors { T step_size, root, eps, b1, c1, b2, c2, coupled, keep; };

template <class T> static adam_factors<T> factors_of(const k_adam *o)
{
    const double t = (double)o->step, correct1 = 1 - pow(o->beta1, t), correct2 = 1 - pow(o->beta2, t);
    return { (T)(o->lr / correct1), (T)(1 / sqrt(correct2)), (T)o->eps, (T)o->beta1, (T)(1 - o->beta1), (T)o->beta2,
             (T)(1 - o->beta2), (T)(o->decoupled ? 0 : o->weight_decay), (T)(o->decoupled ? 1 - o->lr * o->weight_decay : 1) };
}

static inline __device__ float sqrt_of(float x) { return sqrtf(x); }
static inline __device__ double sqrt_of(double x) { return sqrt(x); }

template <class T> static inline __device__ void update(T *p, T g, T *m, T *v, T scale, const adam_factors<T> &f)
{
    const T gi = g * scale + f.coupled * *p;
    *m = f.b1 * *m + f.c1 * gi;
    *v = f.b2 * *v + f.c2 * gi * gi;
    *p = f.keep * *p - f.step_size * *m / (sqrt_of(*v) * f.root + f.eps);
}

/* p, g, m, v [n], one pass, by packs where all are aligned. */
template <class T> __global__ static void __launch_bounds__(THREADS)
adam_kernel(int64_t n, T *p, const T *g, T *m, T *v, adam_factors<T> f, const double *gscale)
{
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x, threads = (int64_t)gridDim.x * THREADS;
    const int64_t packs = aligned16(p) && aligned16(g) && aligned16(m) && aligned16(v) ? n / pack<T>::N : 0;
    const T scale = gscale ? (T)*gscale : (T)1;
    for (int64_t i = thread; i < packs; i += threads) {
        pack<T> pi = ((pack<T> *)p)[i], mi = ((pack<T> *)m)[i], vi = ((pack<T> *)v)[i];
        const pack<T> gi = ((const pack<T> *)g)[i];
#pragma unroll
        for (int e = 0; e < pack<T>::N; e++)
            update(&pi.v[e], gi.v[e], &mi.v[e], &vi.v[e], scale, f);
        ((pack<T> *)p)[i] = pi;
        ((pack<T> *)m)[i] = mi;
        ((pack<T> *)v)[i] = vi;
    }
    for (int64_t i = packs * pack<T>::N + thread; i < n; i += threads)
        update(&p[i], g[i], &m[i], &v[i], scale, f);
}

void cuda_adam_step(k_dev *dev, k_dtype t, int64_t n, void *p, const void *g, void *m, void *v, const k_adam *o, const double *gscale)
{
    if (n > 0)
        CUDA_WIDE(t, CUDA_RUN(dev, adam_kernel<T>, cuda_blocks(dev, n, THREADS * pack<T>::N), THREADS, n, (T *)p, (const T *)g,
                              (T *)m, (T *)v, factors_of<T>(o), gscale));
}

/* ---- sums over whole arrays: partial sums of blocks, then their sum, both in double and in a fixed order -------------------- */

/* The sum of a block's x in its first thread. */
static __device__ double first_gets_sum(double x)
{
    __shared__ double part[THREADS / WARP];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    double total = 0;
    for (int i = 0; threadIdx.x == 0 && i < THREADS / WARP; i++)
        total += part[i];
    return total;
}

/* part[block] = the sum of x^2, or of x - x, which is 0 for finite x and else NaN. */
template <class T, bool FINITE> __global__ static void __launch_bounds__(THREADS) sum_kernel(int64_t n, const T *x, double *part)
{
    double s = 0;
#pragma unroll 4
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        s += FINITE ? (double)(x[i] - x[i]) : (double)x[i] * (double)x[i];
    s = first_gets_sum(s);
    if (threadIdx.x == 0)
        part[blockIdx.x] = s;
}

/* out = the sum of parts; with a bound: what scales a vector of that square to the bound, where it is longer. */
__global__ static void __launch_bounds__(THREADS) total_kernel(int parts, const double *part, double bound, double *out)
{
    double s = 0;
    for (int i = (int)threadIdx.x; i < parts; i += THREADS)
        s += part[i];
    s = first_gets_sum(s);
    if (threadIdx.x == 0)
        *out = bound > 0 ? (sqrt(s) > bound ? bound / sqrt(s) : 1) : s;
}

/* Leaves the total at *out of the device. */
template <bool FINITE> static void total(k_dev *dev, k_dtype t, int64_t n, const void *x, double bound, double *out)
{
    double *part = (double *)cuda_of(dev)->scratch;
    const int64_t wanted = cuda_blocks(dev, n, 4 * THREADS), parts = wanted < PARTS ? wanted : (int64_t)PARTS;
    CUDA_WIDE(t, CUDA_RUN(dev, (sum_kernel<T, FINITE>), parts, THREADS, n, (const T *)x, part));
    CUDA_RUN(dev, total_kernel, 1, THREADS, (int)parts, part, bound, out);
}

/* The total, on the host. */
template <bool FINITE> static double fetch_total(k_dev *dev, k_dtype t, int64_t n, const void *x)
{
    double *out = (double *)cuda_of(dev)->scratch + PARTS, sum;
    total<FINITE>(dev, t, n, x, 0, out);
    cuda_fetch(dev, &sum, out, sizeof sum);
    return sum;
}

void cuda_clip_factor(k_dev *dev, k_dtype t, int64_t n, const void *x, double bound, double *factor)
{
    total<false>(dev, t, n, x, bound, factor);
}
double cuda_sum_squares(k_dev *dev, k_dtype t, int64_t n, const void *x) { return fetch_total<false>(dev, t, n, x); }
int cuda_all_finite(k_dev *dev, k_dtype t, int64_t n, const void *x) { return fetch_total<true>(dev, t, n, x) == 0; }
