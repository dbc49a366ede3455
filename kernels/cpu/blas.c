/* blas.c - products.  OpenBLAS computes the large ones, always on the calling thread; k_gemm spreads blocks
 * of fixed size over threads itself, so that its result does not depend on how many there are. */
#include "internal.h"
#include "../cpu.h"
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { STRIP = 8, STRIP_WORK = 16384 };                 /* vectors in registers; elements that a near cache holds */
enum { CUT_WORK = 1 << 20, PIECES = 8, MIN_BLOCK = 64, MAX_BLOCK = 256, BLOCK_STEP = 16 };     /* how k_gemm cuts */
enum { FMA_PER_ELEMENT = 8 };                           /* that take the time of one element */

#define REAL float
#define T(name) name##_f32
#define BLAS(name) cblas_s##name
#include "gemm.inc"
#undef REAL
#undef T
#undef BLAS
#define REAL double
#define T(name) name##_f64
#define BLAS(name) cblas_d##name
#include "gemm.inc"

/* OpenBLAS starts with a thread per core; its own threads would fight with ours. */
__attribute__((constructor)) static void one_thread(void) { openblas_set_num_threads(1); }

void k_sgemm(int ta, int tb, int m, int n, int k, float alpha, const float *A, int lda, const float *B, int ldb,
             float beta, float *C, int ldc)
{
    gemm_f32(ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

void k_dgemm(int ta, int tb, int m, int n, int k, double alpha, const double *A, int lda, const double *B, int ldb,
             double beta, double *C, int ldc)
{
    gemm_f64(ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

/* How C [m,n] is cut: rows or columns, whichever are more, in blocks of block.  Many batches, or little work, are
 * not cut.  The number of threads has no say, so that the result cannot depend on it. */
typedef struct cut { int64_t block, count; int by_rows; } cut;

static cut cut_product(int64_t m, int64_t n, int64_t k, int64_t nbatch)
{
    cut c = { .by_rows = m >= n };
    const int64_t side = c.by_rows ? m : n;
    c.block = side / PIECES < MIN_BLOCK ? MIN_BLOCK : side / PIECES > MAX_BLOCK ? MAX_BLOCK : side / PIECES;
    c.block = (c.block + BLOCK_STEP - 1) / BLOCK_STEP * BLOCK_STEP;
    if (m * n * k < CUT_WORK || nbatch >= PIECES)
        c.block = side;
    c.count = (side + c.block - 1) / c.block;
    return c;
}

static void multiply(k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
                     int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    if (t == K_F64)
        k_dgemm(ta, tb, (int)m, (int)n, (int)k, alpha, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
    else
        k_sgemm(ta, tb, (int)m, (int)n, (int)k, (float)alpha, A, (int)lda, B, (int)ldb, (float)beta, C, (int)ldc);
}

void cpu_gemm_batched(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                      const void *A, int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB, double beta,
                      void *C, int64_t ldc, int64_t sC, int64_t nbatch)
{
    const int64_t size = (int64_t)k_dtype_size(t);
    if (m == 0 || n == 0)
        return;
    const cut c = cut_product(m, n, k, nbatch);
    IN_STEPS(dev, nbatch * c.count, 1, nbatch * m * n * k / FMA_PER_ELEMENT, {
        const int64_t batch = lo / c.count;
        const int64_t at = lo % c.count * c.block;
        const int64_t left = (c.by_rows ? m : n) - at;
        const int64_t here = left < c.block ? left : c.block;
        const char *a = (const char *)A + (batch * sA + (c.by_rows ? at * (ta ? 1 : lda) : 0)) * size;
        const char *b = (const char *)B + (batch * sB + (c.by_rows ? 0 : at * (tb ? ldb : 1))) * size;
        char *out = (char *)C + (batch * sC + (c.by_rows ? at * ldc : at)) * size;
        (void)hi;
        multiply(t, ta, tb, c.by_rows ? here : m, c.by_rows ? n : here, k, alpha, a, lda, b, ldb, beta, out, ldc);
    });
}

void cpu_gemm(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
              int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    cpu_gemm_batched(dev, t, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);
}

void cpu_gemm_wide(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
                   int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    cpu_gemm(dev, t, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

void cpu_linear(k_dev *dev, k_dtype t, int64_t rows, int64_t width, int64_t depth, void *y, const void *x, const void *w, const void *bias)
{
    cpu_gemm(dev, t, 0, 1, rows, width, depth, 1, x, depth, w, depth, 0, y, width);
    if (bias)
        cpu_add_bias(dev, t, rows, width, y, y, bias);
}

/* ---- the kernel set ------------------------------------------------------------------------------- */

/* The kernel set to ask for instead of the one OpenBLAS took, or NULL when that one is right: it names its
 * set after a processor family, and takes an old one on processors younger than itself. */
static const char *better_set(const char *core)
{
#ifdef __x86_64__
    static const char *const modern[] = { "Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids", "Excavator" };
    for (size_t i = 0; i < sizeof modern / sizeof *modern; i++)
        if (strcasecmp(core, modern[i]) == 0)
            return NULL;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
#endif
    (void)core;
    return NULL;
}

void k_blas_init(char **argv)
{
    const char *set = better_set(openblas_get_corename());
    if (!set || getenv("OPENBLAS_CORETYPE"))                /* the user's choice, or ours of the run before */
        return;
    if (setenv("OPENBLAS_CORETYPE", set, 1) == 0)
        execv("/proc/self/exe", argv);
    perror("harness: cannot start again with better BLAS kernels");
}

const char *k_blas_describe(void)
{
    static char text[96];
    char name[32] = "OpenBLAS", version[32] = "";
    sscanf(openblas_get_config(), "%31s %31s", name, version);
    snprintf(text, sizeof text, "%s %s, kernels %s", name, version, openblas_get_corename());
    return text;
}
