/* random.c - uniform and normal numbers, and random features with orthogonal rows.
 *
 * Everything is drawn in double and rounded last, so that a model in float starts from the rounded values of
 * the same model in double. */
#include "internal.h"
#include "../cpu.h"
#include "../normal.h"
#include <stdlib.h>

/* Philox blocks that are drawn at once, four numbers each. */
enum { BATCH = 32, NUMBERS = 4 * BATCH };

typedef enum law { UNIFORM, NORMAL } law;

/* word[i][b] is word i of counter block first + b. */
static void draw_words(k_rng r, uint64_t first, uint32_t word[4][BATCH])
{
    SIMD for (int b = 0; b < BATCH; b++) {
        const philox4 w = philox4x32_10(r.seed, first + (uint64_t)b, r.stream, r.draw);
        word[0][b] = w.v[0];
        word[1][b] = w.v[1];
        word[2][b] = w.v[2];
        word[3][b] = w.v[3];
    }
}

/* The numbers of the counter blocks first .. first + BATCH - 1: in [0,1) with 32 bits, or standard normal. */
static void draw_batch(law l, k_rng r, uint64_t first, double out[NUMBERS])
{
    uint32_t word[4][BATCH];
    double z[4][BATCH];
    draw_words(r, first, word);
    for (int i = 0; i < 4; i += 2)
        if (l == NORMAL)
            SIMD for (int b = 0; b < BATCH; b++) normal_pair(word[i][b], word[i + 1][b], &z[i][b], &z[i + 1][b]);
        else
            for (int b = 0; b < BATCH; b++) {
                z[i][b] = word[i][b] * 0x1p-32;
                z[i + 1][b] = word[i + 1][b] * 0x1p-32;
            }
    for (int b = 0; b < BATCH; b++)
        for (int i = 0; i < 4; i++)
            out[4 * b + i] = z[i][b];
}

/* n normal numbers from counter block first on; out has room for n rounded up to NUMBERS. */
static void draw_normals(k_rng rng, uint64_t first, int64_t n, double *out)
{
    for (int64_t i = 0; i < n; i += NUMBERS)
        draw_batch(NORMAL, rng, first + (uint64_t)(i / 4), out + i);
}

/* n numbers v into x at element `at`. */
static void write_out(k_dtype t, void *x, int64_t at, int64_t n, const double *v)
{
    if (t == K_F64)
        memcpy((double *)x + at, v, (size_t)n * sizeof *v);
    else
        for (int64_t i = 0; i < n; i++)
            ((float *)x)[at + i] = (float)v[i];
}

/* x [n] = offset + scale number, kept below limit: rounding, of the sum or to float, may reach it. */
static void draw_all(k_dev *dev, k_dtype t, law l, int64_t n, void *x, k_rng rng, double offset, double scale, double limit)
{
    const double under = t == K_F64 ? nextafter(limit, -INFINITY) : (double)nextafterf((float)limit, -INFINITY);
    IN_STEPS(dev, n, CHUNK / 8, n, for (int64_t at = lo; at < hi; at += NUMBERS) {
        double v[NUMBERS];
        draw_batch(l, rng, (uint64_t)at / 4, v);
        for (int i = 0; i < NUMBERS; i++) {
            v[i] = fma(scale, v[i], offset);
            v[i] = v[i] > under ? under : v[i];
        }
        write_out(t, x, at, hi - at < NUMBERS ? hi - at : NUMBERS, v);
    });
}

void cpu_random_uniform(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double lo, double hi)
{
    draw_all(dev, t, UNIFORM, n, x, rng, lo, hi - lo, hi);
}

void cpu_random_normal(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double mean, double sd)
{
    draw_all(dev, t, NORMAL, n, x, rng, mean, sd, INFINITY);
}

/* Gram-Schmidt, each row twice, which is enough to be orthogonal to the last digits.  The diagonal of R is
 * positive, so that Q is drawn evenly from the orthogonal matrices.  q [rows,D], rows <= D; c [D] to work in. */
static void orthonormalise(int rows, int D, double *q, double *c)
{
    for (int i = 0; i < rows; i++) {
        double *x = q + (int64_t)i * D, square;
        for (int pass = 0; i > 0 && pass < 2; pass++) {
            k_dgemm(0, 1, 1, i, D, 1, x, D, q, D, 0, c, i);         /* c = Q x */
            k_dgemm(0, 0, 1, D, i, -1, c, i, q, D, 1, x, D);        /* x -= Q^T c */
        }
        k_dgemm(0, 1, 1, 1, D, 1, x, D, x, D, 0, &square, 1);
        for (int k = 0; k < D; k++)
            x[k] /= sqrt(square);
    }
}

/* The counters of the lengths, far from those of the directions. */
static const uint64_t LENGTHS = 1ull << 62;

/* Rows first .. first + rows - 1 of all rows, orthonormal among each other, scaled, into x at their place.
 * q [D + 1, D rounded up to NUMBERS] is room to work in. */
static void draw_group(k_dtype t, int64_t first, int rows, int D, void *x, k_rng rng, int chi, double *q)
{
    const uint64_t stride = ((uint64_t)D + 3) / 4;          /* counter blocks of a row */
    double *g = q + (int64_t)D * D;
    for (int r = 0; r < rows; r++)                          /* each row's surplus is overwritten by the next */
        draw_normals(rng, (uint64_t)(first + r) * stride, D, q + (int64_t)r * D);
    orthonormalise(rows, D, q, g);
    for (int r = 0; r < rows; r++) {
        double *row = q + (int64_t)r * D, square = D;
        if (chi) {
            draw_normals(rng, LENGTHS + (uint64_t)(first + r) * stride, D, g);
            k_dgemm(0, 1, 1, 1, D, 1, g, D, g, D, 0, &square, 1);
        }
        for (int k = 0; k < D; k++)
            row[k] *= sqrt(square);
        write_out(t, x, (first + r) * D, D, row);
    }
}

/* Takes room for a group from the heap; without it the numbers are NaN. */
void cpu_random_orthogonal(k_dev *dev, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    const int64_t groups = (m + D - 1) / D, room = D * D + D + NUMBERS;
    IN_STEPS(dev, blocks * groups, 1, blocks * m * D * D, {
        const int64_t at = lo % groups * D;
        const int64_t first = lo / groups * m + at;
        const int64_t rows = m - at < D ? m - at : D;
        double *q = malloc((size_t)room * sizeof *q);
        (void)hi;
        if (q)
            draw_group(t, first, (int)rows, (int)D, x, rng, chi, q);
        else
            for (int64_t i = first * D; i < (first + rows) * D; i++)
                write_out(t, x, i, 1, &(double){ NAN });
        free(q);
    });
}
