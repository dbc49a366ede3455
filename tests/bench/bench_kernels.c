/* bench_kernels.c - what the CPU kernels reach, against what this machine can: its copy bandwidth and its best product. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "kernels/cpu.h"
#include "kernels/kernels.h"

enum { LARGE = 10 << 20, SMALL = 4096 };         /* elements: beyond the caches, and within the first */
static k_dev *dev;
static float *x, *y, *z, *w;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds per call: the shortest of seven means over at least 4 ms each. */
static double time_of(void (*f)(const int64_t *), const int64_t *arg)
{
    double best = 1e9, seconds = 0;
    int64_t calls = 1;
    for (int repeat = 0; repeat < 7; repeat += seconds >= 4e-3) {
        const double start = now();
        for (int64_t i = 0; i < calls; i++)
            f(arg);
        seconds = now() - start;
        if (seconds < 4e-3)
            calls *= 2;
        else if (seconds / (double)calls < best)
            best = seconds / (double)calls;
    }
    return best;
}

static void copy(const int64_t *n) { k_copy(dev, y, x, (size_t)*n * sizeof *x); }
static void axpy(const int64_t *n) { k_axpy(dev, K_F32, *n, 1e-9, x, y); }
static void add(const int64_t *n) { k_add(dev, K_F32, *n, z, x, y); }
static void sum_squares(const int64_t *n) { (void)k_sum_squares(dev, K_F32, *n, x); }
static void sum_rows(const int64_t *n) { k_sum_rows(dev, K_F32, *n / 64, 64, x, w); }
static void adam(const int64_t *n)
{
    const k_adam o = { .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 7 };
    k_adam_step(dev, K_F32, *n, y, x, z, w, &o, NULL);
}
static void sexp_(const int64_t *n) { k_sexp((int)*n, y, x); }
static void sexp_sum_(const int64_t *n) { (void)k_sexp_sum((int)*n, y, x, 1); }
static void tanh_(const int64_t *n) { k_stanh((int)*n, y, x); }
static void sigmoid_(const int64_t *n) { k_ssigmoid((int)*n, y, x); }
static void gelu(const int64_t *n) { k_unary_forward(dev, K_F32, K_GELU, *n, y, x); }
static void normal(const int64_t *n) { k_random_normal(dev, K_F32, *n, y, (k_rng){ 1, 2, 3 }, 0, 1); }
static void orthogonal(const int64_t *n) { k_random_orthogonal(dev, K_F32, 1, *n / 64, 64, y, (k_rng){ 1, 2, 3 }, 1); }
static void gemm(const int64_t *s) { k_gemm(dev, K_F32, 0, 0, s[0], s[1], s[2], 1, x, s[2], y, s[1], 0, z, s[1]); }

/* Bytes that an element moves, read and written. */
static void bandwidths(void)
{
    static const struct { const char *name; void (*f)(const int64_t *); int bytes; } all[] = {
        { "copy", copy, 8 }, { "axpy", axpy, 12 }, { "add", add, 12 }, { "sum_squares", sum_squares, 4 },
        { "sum_rows x64", sum_rows, 4 }, { "adam_step", adam, 28 } };
    const int64_t large = LARGE, small = SMALL;
    double peak = 0;
    printf("%-16s %12s %8s %14s\n", "GB/s", "40 MB arrays", "of copy", "16 KB arrays");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const double far = all[i].bytes * (double)large / time_of(all[i].f, &large) * 1e-9;
        const double near = all[i].bytes * (double)small / time_of(all[i].f, &small) * 1e-9;
        peak = i == 0 ? far : peak;
        printf("%-16s %12.1f %7.0f%% %14.1f\n", all[i].name, far, 100 * far / peak, near);
    }
}

static void functions(void)
{
    static const struct { const char *name; void (*f)(const int64_t *); } all[] = {
        { "exp", sexp_ }, { "exp and sum", sexp_sum_ }, { "tanh", tanh_ }, { "sigmoid", sigmoid_ }, { "gelu", gelu },
        { "normal", normal }, { "orthogonal x64", orthogonal } };
    const int64_t small = SMALL;
    printf("\n%-16s %12s\n", "functions", "elements/ns");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        printf("%-16s %12.2f\n", all[i].name, (double)small / time_of(all[i].f, &small) * 1e-9);
}

static void products(void)
{
    static const int64_t all[][3] = { { 1024, 1024, 1024 }, { 19200, 64, 512 }, { 19200, 512, 64 }, { 600, 64, 1320 },
                                      { 128, 128, 128 }, { 32, 64, 64 }, { 1, 64, 64 } };
    enum { PRODUCTS = sizeof all / sizeof *all };
    double rate[PRODUCTS], peak = 0;
    for (int i = 0; i < PRODUCTS; i++) {
        rate[i] = 2e-9 * (double)(all[i][0] * all[i][1] * all[i][2]) / time_of(gemm, all[i]);
        peak = rate[i] > peak ? rate[i] : peak;
    }
    printf("\n%-24s %10s %8s\n", "k_gemm [m,n,k], f32", "GFLOP/s", "of best");
    for (int i = 0; i < PRODUCTS; i++)
        printf("%6d %6d %6d %13.1f %9.0f%%\n", (int)all[i][0], (int)all[i][1], (int)all[i][2], rate[i], 100 * rate[i] / peak);
}

static void small_calls(void)
{
    const int64_t n = 1;
    printf("\ncall with one element: axpy %.0f ns, adam_step %.0f ns, sum_squares %.0f ns\n", 1e9 * time_of(axpy, &n),
           1e9 * time_of(adam, &n), 1e9 * time_of(sum_squares, &n));
}

int main(int argc, char **argv)
{
    float **all[] = { &x, &y, &z, &w };
    char err[256];
    (void)argc;
    k_blas_init(argv);
    printf("%s\n%s\n", k_cpu_describe(), k_blas_describe());
    for (int threads = 1; threads >= 0; threads--) {                /* one, then all */
        if (k_dev_open("cpu", threads, &dev, err, sizeof err) < 0) {
            fprintf(stderr, "%s\n", err);
            return 1;
        }
        for (int i = 0; i < 4; i++) {
            if (k_alloc(dev, K_TAG_DATA, LARGE * sizeof(float), (void **)all[i]) < 0) {
                fprintf(stderr, "%s\n", k_error(dev));
                return 1;
            }
            k_random_uniform(dev, K_F32, LARGE, *all[i], (k_rng){ 1, (uint32_t)i, 0 }, 0, 1);
        }
        printf("\n---- threads: %d\n", k_dev_threads(dev));
        bandwidths();
        if (threads == 1) {
            functions();
            small_calls();
        }
        products();
        k_dev_close(dev);
    }
    return 0;
}
