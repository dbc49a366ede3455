/* ops.c - the seam's kernels on a GPU against their floors: bytes over the rate of a copy, or products against the
 * best one seen.  Cold caches, the least of several runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "kernels/kernels.h"

enum { TOKENS = 24576, WIDTH = 2048, WORDS = 32768, RUNS = 7, NORMED = 16384, MODEL = 512 };
static k_dev *dev;
static void *x, *y, *z, *w, *index_of, *scalar;
static k_dtype t;

static int do_copy(void *a) { (void)a; k_copy(dev, y, x, (size_t)1 << 30); return 0; }
static int do_add(void *a) { (void)a; k_add(dev, t, (int64_t)TOKENS * WIDTH, z, x, y); return 0; }
static int do_gelu(void *a) { (void)a; k_unary_forward(dev, t, K_GELU, (int64_t)TOKENS * WIDTH, y, x); return 0; }
static int do_gelu_back(void *a) { (void)a; k_unary_backward(dev, t, K_GELU, (int64_t)TOKENS * WIDTH, 0, w, z, x, y); return 0; }
static int do_bias(void *a) { (void)a; k_add_bias(dev, t, TOKENS, WIDTH, x, x, y); return 0; }
static int do_sum_rows(void *a) { (void)a; k_sum_rows(dev, t, TOKENS, WIDTH, x, scalar); return 0; }
static int do_gather(void *a) { (void)a; k_gather_rows(dev, t, TOKENS, WIDTH, y, x, index_of, 0); return 0; }
static int do_scatter(void *a) { (void)a; k_scatter_add_rows(dev, t, TOKENS, WIDTH, WORDS, w, x, index_of); return 0; }
static int do_rms(void *a) { (void)a; k_norm_forward(dev, t, K_NORM_RMS, (int64_t)TOKENS * 16, WIDTH / 16, 1e-5, y, x, NULL, NULL); return 0; }
static int do_norm(void *a) { (void)a; k_norm_forward(dev, t, K_NORM_LAYER, NORMED, MODEL, 1e-5, y, x, z, w); return 0; }
static int do_norm_back(void *a)
{
    (void)a;
    k_norm_backward(dev, t, K_NORM_LAYER, NORMED, MODEL, 1e-5, 0, w, scalar, (float *)scalar + MODEL, y, x, z);
    return 0;
}
static int do_dropout(void *a) { (void)a; k_dropout(dev, t, (int64_t)TOKENS * WIDTH, 0.1, 1, 2, index_of, 0, y, x); return 0; }
static int do_xent(void *a) { (void)a; k_xent_forward(dev, t, TOKENS, WORDS, WORDS, 0, scalar, x, index_of); return 0; }
static int do_xent_back(void *a) { (void)a; k_xent_backward(dev, t, TOKENS, WORDS, 0, scalar, 0, y, x, index_of); return 0; }
static int do_xent_both(void *a) { (void)a; k_xent_both(dev, t, TOKENS, WORDS, WORDS, 0.1, scalar, y, x, index_of); return 0; }
static int do_weight(void *a) { (void)a; k_mean_weight(dev, TOKENS, index_of, scalar); return 0; }
static int do_convert(void *a) { (void)a; k_convert(dev, (int64_t)1 << 27, y, K_BF16, x, K_F32); return 0; }
static int do_adam(void *a)
{
    (void)a;
    const k_adam o = { .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 1 };
    k_adam_step(dev, K_F32, (int64_t)1 << 27, x, y, z, w, &o, NULL);
    return 0;
}
static int do_squares(void *a) { (void)a; k_clip_factor(dev, K_F32, (int64_t)1 << 28, x, 1, scalar); return 0; }
static int do_normal(void *a) { (void)a; k_random_normal(dev, K_F32, (int64_t)1 << 28, x, (k_rng){ 1, 2, 3 }, 0, 1); return 0; }
static int do_gemm(void *a) { (void)a; k_gemm(dev, t, 0, 1, 8192, 8192, 8192, 1, x, 8192, y, 8192, 0, z, 8192); return 0; }
static int do_gemm_wide(void *a) { (void)a; k_gemm_wide(dev, t, 1, 0, WIDTH, WIDTH, TOKENS, 1, x, WIDTH, y, WIDTH, 0, z, WIDTH); return 0; }

typedef struct row { const char *name; int (*work)(void *); double bf16, f32; const char *unit; } row;   /* GB or GFLOP; 0: not */

static double best_of(int (*work)(void *))
{
    double best = INFINITY;
    k_time(dev, work, NULL, 0);
    for (int i = 0; i < RUNS; i++) {
        const double s = k_time(dev, work, NULL, 1);
        best = s < best ? s : best;
    }
    return best;
}

int main(void)
{
    char why[256];
    if (k_dev_open("cuda", 0, &dev, why, sizeof why)) {
        fprintf(stderr, "ops: %s\n", why);
        return 1;
    }
    void **const blocks[] = { &x, &y, &z, &w };
    for (int i = 0; i < 4; i++) {
        if (k_alloc(dev, K_TAG_DATA, (size_t)4 << 30, blocks[i])) return fprintf(stderr, "ops: %s\n", k_error(dev)), 1;
        k_random_normal(dev, K_F32, (int64_t)1 << 30, *blocks[i], (k_rng){ 1, (uint32_t)i, 0 }, 0, 1);
    }
    int32_t *host = malloc(TOKENS * sizeof *host);
    for (int i = 0; i < TOKENS; i++) host[i] = (int32_t)((uint32_t)i * 2654435761u % WORDS);
    if (!host || k_alloc(dev, K_TAG_DATA, 1 << 20, &index_of) || k_alloc(dev, K_TAG_DATA, 1 << 20, &scalar)) return 1;
    k_upload(dev, index_of, host, TOKENS * sizeof *host);
    const double n = 1e-9 * TOKENS * WIDTH, v = 1e-9 * TOKENS * (double)WORDS, m = 1e-9 * NORMED * MODEL, gemm = 2e-9 * 8192.0 * 8192 * 8192;
    const row rows[] = {
        { "copy 1 GiB", do_copy, 0, 2 * 1.073741824, "GB" },
        { "add", do_add, 6 * n, 12 * n, "GB" }, { "gelu", do_gelu, 4 * n, 8 * n, "GB" },
        { "gelu backward", do_gelu_back, 6 * n, 12 * n, "GB" }, { "add_bias", do_bias, 4 * n, 8 * n, "GB" },
        { "sum_rows", do_sum_rows, 2 * n, 4 * n, "GB" }, { "gather_rows", do_gather, 4 * n, 8 * n, "GB" },
        { "scatter_add_rows", do_scatter, 10 * n, 12 * n, "GB" }, { "rms 128", do_rms, 4 * n, 8 * n, "GB" },
        { "xent 32768", do_xent, 2 * v, 0, "GB" }, { "xent backward", do_xent_back, 4 * v, 0, "GB" },
        { "xent both", do_xent_both, 4 * v, 0, "GB" }, { "layer norm 512", do_norm, 4 * m, 8 * m, "GB" },
        { "its gradient", do_norm_back, 6 * m, 12 * m, "GB" }, { "dropout", do_dropout, 4 * n, 8 * n, "GB" },
        { "mean_weight", do_weight, 0, 4e-9 * TOKENS, "GB" }, { "convert f32 bf16", do_convert, 0, 6 * 0.134217728, "GB" },
        { "adam", do_adam, 0, 28 * 0.134217728, "GB" }, { "clip_factor", do_squares, 0, 4 * 0.268435456, "GB" },
        { "normal", do_normal, 0, 4 * 0.268435456, "GB" }, { "gemm 8192", do_gemm, gemm, gemm, "GFLOP" },
        { "gemm_wide dw", do_gemm_wide, 2 * n * WIDTH, 2 * n * WIDTH, "GFLOP" } };
    printf("%-18s %5s %10s %9s\n", "kernel", "", "ms", "per s");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int narrow = 1; narrow >= 0; narrow--) {
            const double work = narrow ? rows[i].bf16 : rows[i].f32;
            t = narrow ? K_BF16 : K_F32;
            if (work <= 0) continue;
            const double s = best_of(rows[i].work);
            printf("%-18s %5s %10.4f %9.1f T%s/s\n", rows[i].name, k_dtype_name(t), 1e3 * s, 1e-3 * work / s, rows[i].unit + 1);
        }
    free(host);
    k_dev_close(dev);
    return 0;
}
