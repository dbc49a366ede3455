/* fast_weights_products.c - products of matrices that the nearest caches hold.
 *
 * A tile of C stays in registers while A and B are read where they lie: nothing is packed, and at these sizes the
 * multipliers are busy twice the time that BLAS keeps them so.  B is read along its rows: a B' has to be made first. */
#include "fast_weights.h"

enum { LANES = 8, TALLEST = 8, WIDEST = 2 };
typedef float vec __attribute__((vector_size(32), aligned(4)));

/* Element (i,p) of A is at i rs + p cs. */
typedef struct { const float *p; int64_t rs, cs; } strided;

/* C [rows,wide vectors] = A [rows,k] B [k,ldb] + keep C. */
static inline __attribute__((always_inline)) void tile(const int rows, const int wide, int k, strided A, const float *B, int64_t ldb,
                                                       float keep, float *C, int64_t ldc)
{
    vec sum[TALLEST][WIDEST];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < wide; v++)
            sum[i][v] = (vec){ 0 };
    for (int p = 0; p < k; p++) {
        const vec *b = (const vec *)(B + p * ldb);
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < wide; v++)
                sum[i][v] += A.p[i * A.rs + p * A.cs] * b[v];
    }
    for (int i = 0; i < rows; i++) {
        vec *c = (vec *)(C + i * ldc);
        for (int v = 0; v < wide; v++)
            c[v] = keep == 0 ? sum[i][v] : sum[i][v] + keep * c[v];
    }
}

/* The same of rows rows and n columns, fewer than a vector. */
static void corner(int rows, int n, int k, strided A, const float *B, int64_t ldb, float keep, float *C, int64_t ldc)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int p = 0; p < k; p++)
                sum += A.p[i * A.rs + p * A.cs] * B[p * ldb + j];
            C[i * ldc + j] = keep == 0 ? sum : sum + keep * C[i * ldc + j];
        }
}

/* A panel of wide vectors of B for all m rows, tall at a time. */
static inline __attribute__((always_inline)) void panel(const int tall, const int wide, int m, int k, strided A, const float *B,
                                                        int64_t ldb, float keep, float *C, int64_t ldc)
{
    for (; m >= tall; m -= tall, A.p += tall * A.rs, C += tall * ldc)
        tile(tall, wide, k, A, B, ldb, keep, C, ldc);
    for (; m > 0; m--, A.p += A.rs, C += ldc)
        tile(1, wide, k, A, B, ldb, keep, C, ldc);
}

/* Panel by panel: eight sums at once, which hide the latency of the additions. */
void fw_product(int ta, int m, int n, int k, const float *A, int lda, const float *B, int ldb, float keep, float *C, int ldc)
{
    strided a = { A, ta ? 1 : lda, ta ? lda : 1 };
    int j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        panel(4, 2, m, k, a, B + j, ldb, keep, C + j, ldc);
    for (; j + LANES <= n; j += LANES)
        panel(8, 1, m, k, a, B + j, ldb, keep, C + j, ldc);
    corner(m, n - j, k, a, B + j, ldb, keep, C + j, ldc);
}

/* A block of 8 x 8: pairs, then fours, then halves change places. */
static void transpose_block(const float *from, int64_t ld, float *to, int64_t ldt)
{
    vec r[LANES], s[LANES];
    for (int i = 0; i < LANES; i++)
        r[i] = *(const vec *)(from + i * ld);
    for (int i = 0; i < LANES; i += 2) {
        s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < LANES; i += i % 2 ? 3 : 1) {
        r[i] = __builtin_shufflevector(s[i], s[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + 2] = __builtin_shufflevector(s[i], s[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < LANES / 2; i++) {
        *(vec *)(to + i * ldt) = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(vec *)(to + (i + 4) * ldt) = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Whole blocks, then what is left of rows and columns. */
void fw_transpose(int m, int n, const float *from, int ld, float *to, int ldt)
{
    int whole_m = m / LANES * LANES, whole_n = n / LANES * LANES;
    for (int i = 0; i < whole_m; i += LANES)
        for (int j = 0; j < whole_n; j += LANES)
            transpose_block(from + i * ld + j, ld, to + j * ldt + i, ldt);
    for (int i = 0; i < m; i++)
        for (int j = i < whole_m ? whole_n : 0; j < n; j++)
            to[j * ldt + i] = from[i * ld + j];
}
