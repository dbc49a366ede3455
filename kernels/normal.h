/* normal.h - two standard normal numbers from two random words (Box & Muller 1958), in arithmetic that every
 * device repeats to the bit.
 *
 * libm's log and cos differ between devices in the last digit; these use only operations that IEEE 754 rounds
 * exactly (+ - * / sqrt and fused multiply-add), each spelled out so that no compiler fuses others.  The
 * polynomials are those of Sun's fdlibm (k_sin.c, k_cos.c, e_log.c), good to one unit in the last place. */
#ifndef KERNELS_NORMAL_H
#define KERNELS_NORMAL_H
#include "philox.h"
#include <math.h>
#include <string.h>

K_HD uint64_t normal_bits(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
K_HD double normal_double(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }

/* ln x for 2^-64 < x < 2: x = 2^e m with m in [sqrt 1/2, sqrt 2), ln m by s = f / (2 + f), f = m - 1. */
K_HD double normal_log(double x)
{
    const uint64_t root_half = 0x3fe6a09e667f3bcdull;
    const uint64_t t = normal_bits(x) - root_half + (64ull << 52);              /* e + 64 above, m's distance below */
    const double e = normal_double(t >> 52 | 0x4330000000000000ull) - (0x1p52 + 64);
    const double f = normal_double((t & 0xfffffffffffffull) + root_half) - 1, s = f / (2 + f), z = s * s;
    double p = 1.479819860511658591e-01;
    p = fma(p, z, 1.531383769920937332e-01);
    p = fma(p, z, 1.818357216161805012e-01);
    p = fma(p, z, 2.222219843214978396e-01);
    p = fma(p, z, 2.857142874366239149e-01);
    p = fma(p, z, 3.999999999940941908e-01);
    p = fma(p, z, 6.666666666666735130e-01);
    const double half_sq = (0.5 * f) * f, low = e * 1.90821492927058770002e-10;
    const double r = half_sq - fma(s, fma(p, z, half_sq), low);
    return fma(e, 6.93147180369123816490e-01, f - r);
}

/* sin and cos of 2 pi w / 2^32: the nearest quarter turn by the top bits, the rest within pi/4 of it. */
K_HD void normal_sincos(uint32_t w, double *sine, double *cosine)
{
    const uint32_t quarter = (w + 0x20000000u) >> 30;
    const double x = (double)(int32_t)(w - (quarter << 30)) * (6.283185307179586477 * 0x1p-32), z = x * x;
    double p = 1.58969099521155010221e-10, q = -1.13596475577881948265e-11;
    p = fma(p, z, -2.50507602534068634195e-08);
    p = fma(p, z, 2.75573137070700676789e-06);
    p = fma(p, z, -1.98412698298579493134e-04);
    p = fma(p, z, 8.33333333332248946124e-03);
    p = fma(p, z, -1.66666666666666324348e-01);
    q = fma(q, z, 2.08757232129817482790e-09);
    q = fma(q, z, -2.75573143513906633035e-07);
    q = fma(q, z, 2.48015872894767294178e-05);
    q = fma(q, z, -1.38888888888741095749e-03);
    q = fma(q, z, 4.16666666666666019037e-02);
    const double s = fma(x * z, p, x), c = fma(z * z, q, fma(-0.5, z, 1.0));
    const double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = (quarter + 1) & 2 ? -b : b;
}

/* z[0], z[1] from words w0 (the radius) and w1 (the angle).  The radius takes the middle of its step of 2^-32,
 * never 0, so that the largest number is sqrt(2 ln 2^33) = 6.76. */
K_HD void normal_pair(uint32_t w0, uint32_t w1, double *z0, double *z1)
{
    const double u = ((double)(int32_t)(w0 ^ 0x80000000u) + 2147483648.5) * 0x1p-32;
    const double radius = sqrt(-2 * normal_log(u));
    double s, c;
    normal_sincos(w1, &s, &c);
    *z0 = radius * c;
    *z1 = radius * s;
}
#endif
