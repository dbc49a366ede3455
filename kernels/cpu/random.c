/* random.c - uniform and normal numbers, and random features with orthogonal rows.
 *
 * Everything is drawn in double and rounded last, so that a model in float starts from the rounded values of
 * the same model in double. */
#include "internal.h"
#include "../cpu.h"
#include "../normal.h"
#include <stdlib.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Philox blocks that are drawn at once, four numbers each. */
enum { BATCH = 32, NUMBERS = 4 * BATCH };

typedef enum law { UNIFORM, NORMAL } law;

/* Four Philox blocks side by side, each word in the low half of a 64-bit lane; the high halves are rubbish that
 * no product reads. */
typedef uint64_t lanes __attribute__((vector_size(32)));
enum { LANES = 4 };

static inline lanes product_of_low_halves(lanes a, uint64_t b)
{
#ifdef __AVX2__
    return (lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)b));
#else
    return (a & 0xffffffff) * b;
#endif
}

/* philox4x32_10 of the counter blocks first .. first + BATCH - 1: word[i][b] is word i of block first + b. */
static void draw_words(k_rng r, uint64_t first, uint32_t word[4][BATCH])
{
    for (int b = 0; b < BATCH; b += LANES) {
        const lanes block = first + (uint64_t)b + (lanes){ 0, 1, 2, 3 }, zero = { 0 };
        lanes c[4] = { block, block >> 32, zero + r.stream, zero + r.draw };
        uint32_t k0 = (uint32_t)r.seed, k1 = (uint32_t)(r.seed >> 32);
        for (int round = 0; round < 10; round++) {
            const lanes p0 = product_of_low_halves(c[0], 0xD2511F53u), p1 = product_of_low_halves(c[2], 0xCD9E8D57u);
            c[0] = p1 >> 32 ^ c[1] ^ (uint64_t)k0;
            c[2] = p0 >> 32 ^ c[3] ^ (uint64_t)k1;
            c[1] = p1;
            c[3] = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        for (int i = 0; i < 4; i++)
            for (int l = 0; l < LANES; l++)
                word[i][b + l] = (uint32_t)c[i][l];
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

/* D rounded up to whole counter blocks. */
static int padded(int D) { return (D + 3) / 4 * 4; }

static double norm(int n, const double *x)
{
    double square;
    k_dgemm(0, 1, 1, 1, n, 1, x, n, x, n, 0, &square, 1);
    return sqrt(square);
}

static void scale(int n, double a, double *x)
{
    for (int i = 0; i < n; i++)
        x[i] *= a;
}

/* Gram-Schmidt, each row twice, which is enough to be orthogonal to the last digits.  The diagonal of R is
 * positive, so that Q is drawn evenly from the orthogonal matrices.  q [rows,D] by ld, rows <= D; c [D] to work in. */
static void orthonormalise(int rows, int D, double *q, int ld, double *c)
{
    for (int i = 0; i < rows; i++) {
        double *x = q + (int64_t)i * ld;
        for (int pass = 0; i > 0 && pass < 2; pass++) {
            k_dgemm(0, 1, 1, i, D, 1, x, D, q, ld, 0, c, i);        /* c = Q x */
            k_dgemm(0, 0, 1, D, i, -1, c, i, q, ld, 1, x, D);       /* x -= Q^T c */
        }
        scale(D, 1 / norm(D, x), x);
    }
}

/* The counters of the lengths, far from those of the directions. */
static const uint64_t LENGTHS = 1ull << 62;

/* Rows first .. first + rows - 1 of all rows, orthonormal among each other, scaled, into x at their place.  Row r
 * is made of the numbers from ld r on, ld being D rounded up to whole counter blocks.
 * Room to work in: q [D,ld] and NUMBERS more, length [D], c [D]. */
static void draw_group(k_dtype t, int64_t first, int rows, int D, void *x, k_rng rng, int chi, double *q, double *length, double *c)
{
    const int ld = padded(D);
    const uint64_t counter = (uint64_t)first * (uint64_t)ld / 4;
    if (chi)
        draw_normals(rng, LENGTHS + counter, (int64_t)rows * ld, q);
    for (int r = 0; r < rows; r++)
        length[r] = chi ? norm(D, q + (int64_t)r * ld) : sqrt(D);
    draw_normals(rng, counter, (int64_t)rows * ld, q);
    orthonormalise(rows, D, q, ld, c);
    for (int r = 0; r < rows; r++) {
        scale(D, length[r], q + (int64_t)r * ld);
        write_out(t, x, (first + r) * D, D, q + (int64_t)r * ld);
    }
}

/* Takes room for a group from the heap; without it the numbers are NaN. */
void cpu_random_orthogonal(k_dev *dev, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    const int64_t groups = (m + D - 1) / D, size = D * padded((int)D) + NUMBERS;
    IN_STEPS(dev, blocks * groups, 1, blocks * m * D * D, {
        const int64_t at = lo % groups * D;
        const int64_t first = lo / groups * m + at;
        const int64_t rows = m - at < D ? m - at : D;
        double *q = malloc((size_t)(size + 2 * D) * sizeof *q);
        (void)hi;
        if (q)
            draw_group(t, first, (int)rows, (int)D, x, rng, chi, q, q + size, q + size + D);
        else
            for (int64_t i = first * D; i < (first + rows) * D; i++)
                write_out(t, x, i, 1, &(double){ NAN });
        free(q);
    });
}
