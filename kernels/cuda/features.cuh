/* features.cuh - the feature maps of ../features.h on CUDA.
 *
 * Maps that work element by element are applied where their argument is loaded.  Those that mix the numbers of a row
 * (dpfp, favor, general with W) are computed by kernels of their own, to and from dense arrays. */
#ifndef KERNELS_CUDA_FEATURES_CUH
#define KERNELS_CUDA_FEATURES_CUH
#include "linattn_tile.cuh"
#include "kernels/linear_attention.h"
#include <cuda_runtime.h>
#include <math.h>

template <typename T> static __device__ __forceinline__ float logistic(float x) { return 1 / (1 + exponential<T>(-x)); }
/* The slope of silu. */
template <typename T> static __device__ __forceinline__ float silu_slope(float x) { float s = logistic<T>(x); return s * (1 + x * (1 - s)); }

/* 1: the map of a number depends on it alone. */
static inline __host__ __device__ int map_is_local(const k_features &f)
{
    return f.map != K_MAP_DPFP && f.map != K_MAP_FAVOR && !(f.map == K_MAP_GENERAL && f.m);
}

/* What a local map needs to know. */
struct local_map { k_map map; k_function fn; float eps; };
static inline local_map local_map_of(const k_features &f) { return { f.map, f.fn, (float)f.eps }; }
static inline __host__ __device__ local_map no_map() { return { K_MAP_IDENTITY, K_FN_RELU, 0 }; }

/* f of k_function. */
template <typename T> static __device__ __forceinline__ float function_of(k_function fn, float u)
{
    switch (fn) {
    case K_FN_RELU:    return fmaxf(u, 0);
    case K_FN_ABS:     return fabsf(u);
    case K_FN_EXP:     return exponential<T>(u);
    case K_FN_SIGMOID: return logistic<T>(u);
    default:           return fmaxf(u, 0) + log1pf(exponential<T>(-fabsf(u)));
    }
}

/* Its derivative. */
template <typename T> static __device__ __forceinline__ float function_slope(k_function fn, float u)
{
    float s;
    switch (fn) {
    case K_FN_RELU:    return u > 0;
    case K_FN_ABS:     return (u > 0) - (u < 0);
    case K_FN_EXP:     return exponential<T>(u);
    case K_FN_SIGMOID: s = logistic<T>(u); return s * (1 - s);
    default:           return logistic<T>(u);
    }
}

/* x[n] becomes its features. */
template <typename T, int N> static __device__ __forceinline__ void apply_map(local_map m, float *x)
{
    switch (m.map) {
    case K_MAP_ELU1:
        #pragma unroll
        for (int i = 0; i < N; i++) x[i] = fmaxf(x[i], 0) + fminf(exponential<T>(x[i]), 1);
        break;
    case K_MAP_RELU:
        #pragma unroll
        for (int i = 0; i < N; i++) x[i] = fmaxf(x[i], 0);
        break;
    case K_MAP_SILU:
        #pragma unroll
        for (int i = 0; i < N; i++) x[i] *= logistic<T>(x[i]);
        break;
    case K_MAP_TANH:
        #pragma unroll
        for (int i = 0; i < N; i++) x[i] = tanhf(x[i]);
        break;
    case K_MAP_GENERAL:
        #pragma unroll
        for (int i = 0; i < N; i++) x[i] = function_of<T>(m.fn, x[i]) + m.eps;
        break;
    default:
        break;
    }
}

/* The slope of the map at x. */
template <typename T> static __device__ __forceinline__ float map_slope(local_map m, float x)
{
    float s;
    switch (m.map) {
    case K_MAP_RELU:    return x > 0;
    case K_MAP_SILU:    return silu_slope<T>(x);
    case K_MAP_TANH:    s = tanhf(x); return 1 - s * s;
    case K_MAP_GENERAL: return function_slope<T>(m.fn, x);
    case K_MAP_ELU1:    return fminf(exponential<T>(x), 1);
    default:            return 1;
    }
}

/* y[n] times the slope at x[n]. */
template <typename T, int N> static __device__ __forceinline__ void multiply_slope(local_map m, const float *x, float *y)
{
    switch (m.map) {
    case K_MAP_ELU1:
        #pragma unroll
        for (int i = 0; i < N; i++) y[i] *= fminf(exponential<T>(x[i]), 1);
        break;
    case K_MAP_RELU:
        #pragma unroll
        for (int i = 0; i < N; i++) y[i] = x[i] > 0 ? y[i] : 0;
        break;
    case K_MAP_SILU:
        #pragma unroll
        for (int i = 0; i < N; i++) y[i] *= silu_slope<T>(x[i]);
        break;
    case K_MAP_IDENTITY: break;
    default:
        #pragma unroll
        for (int i = 0; i < N; i++) y[i] *= map_slope<T>(m, x[i]);
    }
}

/* The factor of x in x of favor; 1 for the other maps. */
static inline float features_scale(const k_features &f)
{
    return f.map != K_MAP_FAVOR ? 1 : f.input_scale > 0 ? (float)f.input_scale : powf((float)f.D, -0.25f);
}

/* ---- maps that mix a row (features.cu) -------------------------------------------------------------------------- */

/* Rows of one role: x [B,H,T,D] in memory, H a multiple of the projection's Hk heads; keys end at klen[b]. */
struct feature_rows {
    k_features f;                       /* W on the device, [Hk,m,D] */
    k_role role;
    int B, H, Hk, T;
    k_rows x;
    const int32_t *klen;                /* NULL: rows end at T */
    float *kappa;                       /* [B,H], of keys; used where f.stabilise */
    float *peaks;                       /* [B,H,ceil(T/64)], work of features_kappa */
};

static inline __host__ __device__ int feature_blocks(int T) { return (T + TILE - 1) / TILE; }
/* kappa of all keys, where the map has one. */
template <typename T> void features_kappa(const feature_rows &, cudaStream_t);
/* phi [B,H,T,M], dense. */
template <typename T> void features_forward(const feature_rows &, T *phi, cudaStream_t);
/* dx of dphi [parts][B,H,T,M], whose parts are added up; phi is what forward computed.  Rows beyond klen become 0. */
template <typename T> void features_backward(const feature_rows &, const T *phi, const float *dphi, int parts, k_rows dx, cudaStream_t);

#endif
