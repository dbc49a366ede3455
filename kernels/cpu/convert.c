/* convert.c - from any dtype to any other, rounding to nearest even. */
#include "internal.h"
#include "math.h"

static double from_bf16(uint16_t h) { return (double)float_of((uint32_t)h << 16); }

static uint16_t to_bf16(double x)
{
    uint32_t u = bits_of((float)x);
    if ((u & 0x7fffffff) > 0x7f800000)                      /* NaN: the rounding below could make it infinite */
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static double from_f16(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double x = exponent == 31 ? (fraction ? NAN : INFINITY)
             : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h >> 15 ? -x : x;
}

static uint16_t to_f16(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    int e;
    if (a != a)
        return sign | 0x7e00;
    if (a >= 65520)                                         /* half way beyond the largest, 65504 */
        return sign | 0x7c00;
    frexp(a, &e);                                           /* a = 0.1xxx * 2^e, 11 bits kept, 24 places below 1 at most */
    e = a > 0 && e - 11 > -24 ? e - 11 : -24;
    uint32_t steps = (uint32_t)nearbyint(ldexp(a, -e));     /* of 2^e; 2048 carries into the exponent by itself */
    return (uint16_t)(sign | (steps + ((uint32_t)(e + 24) << 10)));
}

static double read_as_double(const void *src, k_dtype t, int64_t i)
{
    switch (t) {
    case K_F32: return (double)((const float *)src)[i];
    case K_F64: return ((const double *)src)[i];
    case K_BF16: return from_bf16(((const uint16_t *)src)[i]);
    case K_F16: return from_f16(((const uint16_t *)src)[i]);
    case K_I32: return ((const int32_t *)src)[i];
    }
    return 0;
}

static void write_from_double(void *dst, k_dtype t, int64_t i, double x)
{
    switch (t) {
    case K_F32: ((float *)dst)[i] = (float)x; break;
    case K_F64: ((double *)dst)[i] = x; break;
    case K_BF16: ((uint16_t *)dst)[i] = to_bf16(x); break;
    case K_F16: ((uint16_t *)dst)[i] = to_f16(x); break;
    case K_I32: ((int32_t *)dst)[i] = (int32_t)lrint(x); break;
    }
}

void cpu_convert(k_dev *dev, int64_t n, void *dst, k_dtype to, const void *src, k_dtype from)
{
    if (to == from) {
        cpu_copy(dev, dst, src, (size_t)n * k_dtype_size(to));
    } else if (to == K_F64 && from == K_F32) {
        double *y = dst;
        const float *x = src;
        IN_CHUNKS(dev, n, SIMD for (int64_t i = lo; i < hi; i++) y[i] = (double)x[i];);
    } else if (to == K_F32 && from == K_F64) {
        float *y = dst;
        const double *x = src;
        IN_CHUNKS(dev, n, SIMD for (int64_t i = lo; i < hi; i++) y[i] = (float)x[i];);
    } else {
        IN_CHUNKS(dev, n, for (int64_t i = lo; i < hi; i++) write_from_double(dst, to, i, read_as_double(src, from, i)););
    }
}
