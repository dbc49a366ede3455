/* math.h - elementary functions that the compiler can put into vector loops, in float; libm in double.
 *
 * Written without branches and without tables: every line is one vector instruction for eight floats on
 * AVX2.  Multiply-adds are spelled out, so that a vector loop and its scalar rest round alike. */
#ifndef KERNELS_CPU_MATH_H
#define KERNELS_CPU_MATH_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __FMA__
static inline float fma_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
static inline float fma_f32(float a, float b, float c) { return a * b + c; }
#endif

static inline uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

/* exp(x) = 2^n exp(r), n = x / ln 2 to the nearest.  Adding 1.5 * 2^23 rounds to an integer and leaves it in
 * the low bits, from where a shift carries it into the exponent of exp(r) in [0.7, 1.42).  Below the log of
 * the smallest normal number the result is 0, so that no loop ever meets a denormal. */
static inline float exp_small_f32(float x)                  /* x <= 88.7, or NaN */
{
    const float magic = 12582912.0f, lowest = -87.3365447505531f;
    float t = fma_f32(x, 1.44269504088896341f, magic), n = t - magic;
    float r = fma_f32(n, -0.693359375f, x);                 /* ln 2 in two parts: the first product is exact */
    r = fma_f32(n, 2.12194440e-4f, r);
    float p = 1.3926406e-3f;                                /* (exp(r) - 1 - r) / r^2, to 1e-8 of exp(r) */
    p = fma_f32(p, r, 8.3633573e-3f);
    p = fma_f32(p, r, 4.1666553e-2f);
    p = fma_f32(p, r, 1.6666576e-1f);
    p = fma_f32(p, r, 0.5f);
    p = fma_f32(p, r * r, r) + 1.0f;
    float y = float_of(bits_of(p) + (bits_of(t) << 23));
    return x < lowest ? 0.0f : y;                           /* NaN stays NaN */
}

static inline float exp_f32(float x)
{
    return x <= 88.7228317260742f ? exp_small_f32(x) : x + INFINITY;
}

/* Beyond |x| = 0.625 by exp, below by an odd polynomial, because 1 - exp(-2x) loses digits there. */
static inline float tanh_f32(float x)
{
    float a = fabsf(x), e = exp_f32(-2.0f * a), s = x * x;
    float p = -5.70498872745e-3f;                           /* Cephes tanhf */
    p = fma_f32(p, s, 2.06390887954e-2f);
    p = fma_f32(p, s, -5.37397155531e-2f);
    p = fma_f32(p, s, 1.33314422036e-1f);
    p = fma_f32(p, s, -3.33332819422e-1f);
    float small = fma_f32(p * s, x, x), large = copysignf((1.0f - e) / (1.0f + e), x);
    return a < 0.625f ? small : (x != x ? x : large);
}

static inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

/* ln(1 + e^x) = max(x, 0) + ln(1 + u), u = e^-|x|; ln(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3. */
static inline float softplus_f32(float x)
{
    float u = exp_f32(-fabsf(x)), s = u / (2.0f + u), z = s * s, p = 1.0f / 17;
    p = fma_f32(p, z, 1.0f / 15);
    p = fma_f32(p, z, 1.0f / 13);
    p = fma_f32(p, z, 1.0f / 11);
    p = fma_f32(p, z, 1.0f / 9);
    p = fma_f32(p, z, 1.0f / 7);
    p = fma_f32(p, z, 1.0f / 5);
    p = fma_f32(p, z, 1.0f / 3);
    p = fma_f32(p * z, s, s);
    return fma_f32(2.0f, p, x > 0 ? x : (x != x ? x : 0.0f));
}

static inline float erf_f32(float x) { return erff(x); }
static inline float sqrt_f32(float x) { return sqrtf(x); }

static inline double exp_f64(double x) { return exp(x); }
static inline double tanh_f64(double x) { return tanh(x); }
static inline double sigmoid_f64(double x) { return 1 / (1 + exp(-x)); }
static inline double softplus_f64(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static inline double erf_f64(double x) { return erf(x); }
static inline double sqrt_f64(double x) { return sqrt(x); }
#endif
