/* tile.c - see tile.h.
 *
 * Six rows by two vectors are twelve sums in registers, enough to hide the latency of the multiply-adds, fed by two
 * loads and six broadcasts a step: sixteen registers of eight floats hold all of it. */
#include "tile.h"
#include "../cpu.h"
#include "internal.h"
#include <string.h>

typedef float vec __attribute__((vector_size(32), aligned(4)));
enum { LANES = 8, WIDE = 128 };       /* WIDE: what is packed at a time of a long side */
#define INLINE static inline __attribute__((always_inline))

/* c [cols] = the first of the vectors x + keep c. */
static __attribute__((noinline)) void put_some(int cols, vec x, vec y, float keep, float *c)
{
    vec some[2] = { x, y };
    for (int e = 0; e < cols; e++)
        c[e] = some[e / LANES][e % LANES] + (keep == 0 ? 0 : keep * c[e]);
}

/* c [rows,cols] = a b + keep c, for one panel b of `wide` vectors and a number of rows that the compiler knows. */
INLINE void multiply(const int rows, const int wide, int cols, int k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t ldb,
                     float keep, float *c, int64_t ldc)
{
    vec s[K_GROUP][2] = { 0 };
    for (int e = 0; e < k; e++, a += cs, b += ldb) {
        const vec *x = (const vec *)b;
        #pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            #pragma GCC unroll 2
            for (int v = 0; v < wide; v++)
                s[r][v] += a[r * rs] * x[v];
    }
    #pragma GCC unroll 6
    for (int r = 0; r < rows; r++, c += ldc) {
        vec *to = (vec *)c;
        if (cols < wide * LANES) {
            put_some(cols, s[r][0], s[r][1], keep, c);
            continue;
        }
        #pragma GCC unroll 2
        for (int v = 0; v < wide; v++)
            to[v] = keep == 0 ? s[r][v] : s[r][v] + keep * to[v];
    }
}

/* The same for a number of rows from 1 to K_GROUP. */
INLINE void multiply_some(int rows, const int wide, int cols, int k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t ldb,
                          float keep, float *c, int64_t ldc)
{
    switch (rows) {
    case 1: multiply(1, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc); break;
    case 2: multiply(2, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc); break;
    case 3: multiply(3, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc); break;
    case 4: multiply(4, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc); break;
    case 5: multiply(5, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc); break;
    default: multiply(6, wide, cols, k, a, rs, cs, b, ldb, keep, c, ldc);
    }
}

/* Group after group of rows, each over all panels: what it reads of A stays in the nearest cache.  Row e of panel p of B is at
 * b + p bs + e ldb; half a panel is read where no more is needed. */
INLINE void product(int m, int n, int k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, int64_t ldb, float keep,
                    float *c, int64_t ldc)
{
    for (int r = 0; r < m; r += K_GROUP) {
        const int rows = m - r < K_GROUP ? m - r : K_GROUP;
        int e = 0;
        for (; n - e > LANES; e += K_PANEL)
            multiply_some(rows, 2, n - e, k, a + r * rs, rs, cs, b + e / K_PANEL * bs, ldb, keep, c + r * ldc + e, ldc);
        if (e < n)
            multiply_some(rows, 1, n - e, k, a + r * rs, rs, cs, b + e / K_PANEL * bs, ldb, keep, c + r * ldc + e, ldc);
    }
}

void k_tile_product(int m, int n, int k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, int keep, float *c, int64_t ldc)
{
    if (cs == 1)
        product(m, n, k, a, rs, 1, b, bs, K_PANEL, (float)keep, c, ldc);
    else
        product(m, n, k, a, 1, cs, b, bs, K_PANEL, (float)keep, c, ldc);
}

void k_tile_plain(int turned, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb, float keep, float *c, int64_t ldc)
{
    if (turned)
        product(m, n, k, a, 1, lda, b, K_PANEL, ldb, keep, c, ldc);
    else
        product(m, n, k, a, lda, 1, b, K_PANEL, ldb, keep, c, ldc);
}

void k_tile_rows(int rows, int width, const float *x, int64_t ld, int64_t bs, float *to)
{
    int whole = width / K_PANEL, rest = width % K_PANEL;
    for (int r = 0; r < rows; r++, x += ld, to += K_PANEL) {
        for (int p = 0; p < whole; p++)
            memcpy(to + p * bs, x + p * K_PANEL, K_PANEL * sizeof *to);
        if (rest) {
            memset(to + whole * bs, 0, K_PANEL * sizeof *to);
            memcpy(to + whole * bs, x + whole * K_PANEL, (size_t)rest * sizeof *to);
        }
    }
}

/* to [8,ldt] = scale x' for x [8,8]: laying the first four rows between the last four turns the bits of (row, column)
 * by one, and three times is the transpose. */
INLINE void transpose(float scale, const float *x, int64_t ld, float *to, int64_t ldt)
{
    vec a[LANES], b[LANES];
    #pragma GCC unroll 8
    for (int i = 0; i < LANES; i++)
        a[i] = scale * *(const vec *)(x + i * ld);
    #pragma GCC unroll 3
    for (int turn = 0; turn < 3; turn++) {
        #pragma GCC unroll 4
        for (int i = 0; i < LANES / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        #pragma GCC unroll 8
        for (int i = 0; i < LANES; i++)
            a[i] = b[i];
    }
    #pragma GCC unroll 8
    for (int i = 0; i < LANES; i++)
        *(vec *)(to + i * ldt) = a[i];
}

void k_tile_columns(int rows, int width, float scale, const float *x, int64_t ld, float *to)
{
    for (int r0 = 0; r0 < rows; r0 += LANES) {
        int here = rows - r0 < LANES ? rows - r0 : LANES, whole = here == LANES ? width / LANES * LANES : 0;
        float *panel = to + r0 / K_PANEL * K_PANEL * width + r0 % K_PANEL;
        for (int e = 0; e < whole; e += LANES)
            transpose(scale, x + r0 * ld + e, ld, panel + e * K_PANEL, K_PANEL);
        for (int e = whole; e < width; e++)
            for (int r = 0; r < LANES; r++)
                panel[e * K_PANEL + r] = r < here ? scale * x[(r0 + r) * ld + e] : 0;
    }
    if (rows % K_PANEL && rows % K_PANEL <= LANES)              /* the second half of the last panel */
        for (int e = 0; e < width; e++)
            memset(to + rows / K_PANEL * K_PANEL * width + e * K_PANEL + LANES, 0, LANES * sizeof *to);
}

void k_tile_transpose(int m, int n, const float *x, int64_t ld, float *to, int64_t ldt)
{
    int whole_m = m / LANES * LANES, whole_n = n / LANES * LANES;
    for (int i = 0; i < whole_m; i += LANES)
        for (int j = 0; j < whole_n; j += LANES)
            transpose(1, x + i * ld + j, ld, to + j * ldt + i, ldt);
    for (int i = 0; i < m; i++)
        for (int j = i < whole_m ? whole_n : 0; j < n; j++)
            to[j * ldt + i] = x[i * ld + j];
}

void k_tile_dots(int m, int n, int k, float scale, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
    float packed[K_TILE * WIDE];
    if (m == 1) {                       /* not worth packing for */
        k_sgemm(0, 1, m, n, k, scale, a, (int)lda, b, (int)ldb, 0, c, (int)ldc);
        return;
    }
    for (int e = 0; e < k; e += WIDE) {
        int width = k - e < WIDE ? k - e : WIDE;
        k_tile_columns(n, width, scale, b + e, ldb, packed);
        k_tile_product(m, n, width, a + e, lda, 1, packed, width * K_PANEL, e > 0, c, ldc);
    }
}

void k_tile_sums(int turned, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb, int keep, float *c, int64_t ldc)
{
    float packed[K_TILE * WIDE];
    if (m == 1) {
        k_sgemm(turned, 0, m, n, k, 1, a, (int)lda, b, (int)ldb, (float)keep, c, (int)ldc);
        return;
    }
    for (int e = 0; e < n; e += WIDE) {
        int width = n - e < WIDE ? n - e : WIDE;
        k_tile_rows(k, width, b + e, ldb, k * K_PANEL, packed);
        k_tile_product(m, width, k, a, turned ? 1 : lda, turned ? lda : 1, packed, k * K_PANEL, keep, c + e, ldc);
    }
}
