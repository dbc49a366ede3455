/* random.c - uniform and normal numbers, and random features with orthogonal rows.
 *
 * Everything is drawn in double and rounded last, so that a model in float starts from the rounded values of
 * the same model in double. */
#include "internal.h"
#include "math.h"
#include "../philox.h"
#include <stdlib.h>

typedef struct four { double v[4]; } four;

/* Four uniform numbers in [0,1) with 32 bits: elements 4 block .. 4 block + 3. */
static four uniform4(k_rng r, uint64_t block)
{
    const philox4 w = philox4x32_10(r.seed, block, r.stream, r.draw);
    four u;
    for (int i = 0; i < 4; i++)
        u.v[i] = w.v[i] * 0x1p-32;
    return u;
}

/* Four standard normal numbers: Box-Muller on words 0, 1 and on words 2, 3. */
static four normal4(k_rng r, uint64_t block)
{
    const four u = uniform4(r, block);
    four z;
    for (int i = 0; i < 4; i += 2) {
        const double radius = sqrt(-2 * log(u.v[i] + 0x1p-33)), angle = 2 * M_PI * u.v[i + 1];
        z.v[i] = radius * cos(angle);
        z.v[i + 1] = radius * sin(angle);
    }
    return z;
}

static void write4(k_dtype t, void *x, int64_t at, int64_t n, const double *v)
{
    for (int64_t i = 0; i < 4 && at + i < n; i++)
        if (t == K_F64)
            ((double *)x)[at + i] = v[i];
        else
            ((float *)x)[at + i] = (float)v[i];
}

/* Rounding, of lo + u (hi - lo) or to float, may reach hi: the number below it stands for these. */
static double below(k_dtype t, double x, double hi)
{
    if (t == K_F64)
        return x < hi ? x : nextafter(hi, -INFINITY);
    return (double)(float)x < hi ? x : (double)nextafterf((float)hi, -INFINITY);
}

void cpu_random_uniform(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double lo_value, double hi_value)
{
    IN_STEPS(dev, (n + 3) / 4, CHUNK / 8, n, for (int64_t b = lo; b < hi; b++) {
        four u = uniform4(rng, (uint64_t)b);
        for (int i = 0; i < 4; i++)
            u.v[i] = below(t, lo_value + u.v[i] * (hi_value - lo_value), hi_value);
        write4(t, x, 4 * b, n, u.v);
    });
}

void cpu_random_normal(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double mean, double sd)
{
    IN_STEPS(dev, (n + 3) / 4, CHUNK / 8, n, for (int64_t b = lo; b < hi; b++) {
        four z = normal4(rng, (uint64_t)b);
        for (int i = 0; i < 4; i++)
            z.v[i] = mean + sd * z.v[i];
        write4(t, x, 4 * b, n, z.v);
    });
}

static double dot(int64_t n, const double *x, const double *y)
{
    double s = 0;
    K_PRAGMA(omp simd reduction(+ : s)) for (int64_t i = 0; i < n; i++) s += x[i] * y[i];
    return s;
}

static void axpy(int64_t n, double a, const double *x, double *y)
{
    SIMD for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* n normal numbers of a counter range that begins at block first. */
static void draw_normals(k_rng rng, uint64_t first, int64_t n, double *out)
{
    for (int64_t i = 0; i < n; i += 4) {
        const four z = normal4(rng, first + (uint64_t)(i / 4));
        write4(K_F64, out, i, n, z.v);
    }
}

/* Gram-Schmidt, each row twice, which is enough to be orthogonal to the last digits.  The diagonal of R is
 * positive, so that Q is drawn evenly from the orthogonal matrices.  q [rows,D], rows <= D. */
static void orthonormalise(int64_t rows, int64_t D, double *q)
{
    for (int64_t i = 0; i < rows; i++) {
        double *x = q + i * D;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < i; j++)
                axpy(D, -dot(D, q + j * D, x), q + j * D, x);
        const double scale = 1 / sqrt(dot(D, x, x));
        for (int64_t k = 0; k < D; k++)
            x[k] *= scale;
    }
}

/* The counters of the lengths, far from those of the directions. */
static const uint64_t LENGTHS = 1ull << 62;

/* Rows first .. first + rows - 1 of all rows, orthonormal among each other, scaled, into x at their place.
 * q [rows,D] and g [D] are room to work in. */
static void draw_group(k_dtype t, int64_t first, int64_t rows, int64_t D, void *x, k_rng rng, int chi, double *q, double *g)
{
    const uint64_t stride = (uint64_t)(D + 3) / 4;          /* counter blocks of a row */
    for (int64_t r = 0; r < rows; r++)
        draw_normals(rng, (uint64_t)(first + r) * stride, D, q + r * D);
    orthonormalise(rows, D, q);
    for (int64_t r = 0; r < rows; r++) {
        double length = sqrt((double)D);
        if (chi) {
            draw_normals(rng, LENGTHS + (uint64_t)(first + r) * stride, D, g);
            length = sqrt(dot(D, g, g));
        }
        for (int64_t k = 0; k < D; k++) {
            const double value = length * q[r * D + k];
            write4(t, x, (first + r) * D + k, (first + r) * D + k + 1, &value);
        }
    }
}

/* Takes room for a group from the heap; without it the numbers are NaN. */
void cpu_random_orthogonal(k_dev *dev, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    const int64_t groups = (m + D - 1) / D;
    IN_STEPS(dev, blocks * groups, 1, blocks * m * D * D, {
        const int64_t at = lo % groups * D;
        const int64_t first = lo / groups * m + at;
        const int64_t rows = m - at < D ? m - at : D;
        double *room = malloc((size_t)(D * D + D) * sizeof *room);
        (void)hi;
        if (room)
            draw_group(t, first, rows, D, x, rng, chi, room, room + D * D);
        else
            cpu_fill(dev, t, rows * D, (char *)x + first * D * (int64_t)k_dtype_size(t), NAN);
        free(room);
    });
}
