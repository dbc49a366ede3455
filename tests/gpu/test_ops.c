/* test_ops.c - every kernel of the seam on the GPU against the same kernel on the CPU: random sizes, odd sizes, pointers that
 * are not aligned; f32 and f64 with the same inputs, bf16 against double on the inputs as bf16 holds them.  Prints TAP.
 *
 * `test_ops own` tries our own kernels alone, for sanitizers: cuBLAS's are no business of ours and take minutes there.
 *
 * A kernel is a `trial`: it runs on any device on buffers b0..b6, which are filled alike on both; b6 is always aligned.  What
 * may differ is a few roundings of the type per element, more where many are summed; random numbers may not differ at all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/kernels.h"
#include "kernels/philox.h"

enum { BUFFERS = 7, MOST = 1 << 17, SIZES = 13, BF16_STEPS = 2 };
typedef struct sizes { int64_t rows, d, k; int variant; } sizes;
typedef struct trial {
    const char *name;
    void (*run)(k_dev *, k_dtype, const sizes *, void **b, int32_t *index);
    double steps;                       /* how many roundings of the type the result may be away, relative to its scale; bf16:
                                           BF16_STEPS, because it is computed in float */
    int wide;                           /* not for bf16 */
    int out[BUFFERS];                   /* 1: compared; 2: compared, and float when the type is bf16 */
} trial;

static k_dev *cpu, *gpu;
static int number, failures;

static void report(int ok, const char *name, const char *detail)
{
    failures += !ok;
    printf("%s %d - %s%s%s\n", ok ? "ok" : "not ok", ++number, name, *detail ? ": " : "", detail);
}

/* ---- trials ----------------------------------------------------------------------------------------------------------- */
/* The type of what adds up over rows. */
static k_dtype sum_type(k_dtype t) { return t == K_BF16 ? K_F32 : t; }

#define TRIAL(name) static void run_##name(k_dev *v, k_dtype t, const sizes *s, void **b, int32_t *x)
#define N (s->rows * s->d)
#define UNUSED (void)x, (void)s, (void)b

TRIAL(fill) { UNUSED; k_fill(v, t, N, b[0], 0.3); }
TRIAL(axpy) { UNUSED; k_axpy(v, t, N, 0.7, b[1], b[0]); }
TRIAL(scale) { UNUSED; k_scale(v, t, N, -1.3, b[0], b[s->variant % 2]); }
TRIAL(approach) { UNUSED; k_approach(v, t, N, 0.2, b[0], b[1]); }
TRIAL(add) { UNUSED; k_add(v, t, N, b[0], b[1], b[2]); }
TRIAL(mul) { UNUSED; k_mul(v, t, N, s->variant & 1, b[0], b[1], b[2]); }
TRIAL(add_bias) { UNUSED; k_add_bias(v, t, s->rows, s->d, b[0], b[s->variant & 1 ? 2 : 0], b[1]); }
TRIAL(sum_rows) { UNUSED; k_sum_rows(v, t, s->rows, s->d, b[0], b[1]); }
TRIAL(unary)
{
    UNUSED;
    k_unary_forward(v, t, (k_unary)(s->variant % K_UNARIES), N, b[0], b[1]);
    k_unary_backward(v, t, (k_unary)(s->variant % K_UNARIES), N, s->variant >= K_UNARIES || s->variant & 1, b[2], b[3], b[1], b[4]);
}
TRIAL(gather) { k_gather_rows(v, t, s->rows, s->d, b[0], b[1], x, s->variant & 1); }
TRIAL(scatter) { k_scatter_add_rows(v, t, s->rows, s->d, s->k, b[0], b[1], x); }
/* rows / k sequences of k rows, of which x[b] count. */
TRIAL(pool)
{
    k_pool_forward(v, t, s->rows / s->k, s->k, s->d, b[0], b[1], s->variant & 2 ? NULL : x);
    k_pool_backward(v, t, s->rows / s->k, s->k, s->d, s->variant & 1, b[2], b[3], s->variant & 2 ? NULL : x);
}
/* Dropped alike on both, by a draw that lies in memory of the device. */
TRIAL(dropout)
{
    uint32_t *draw = (uint32_t *)x;
    k_dropout(v, t, N, 0.3, 99, 7, draw, s->variant & 1, b[0], b[1]);
    k_tick(v, draw);
    k_dropout(v, t, N, 0.3, 99, 7, draw, 0, b[2], b[2]);
}
/* Both kinds, with and without vectors, added to dx and not; b[4]: gain, b[5]: bias, behind b[2] and b[3]: their gradients. */
TRIAL(norm)
{
    UNUSED;
    const k_norm_kind kind = s->variant & 1 ? K_NORM_RMS : K_NORM_LAYER;
    const int bare = s->variant % 3 == 2;
    k_norm_forward(v, t, kind, s->rows, s->d, 1e-3, b[0], b[1], bare ? NULL : b[4], bare ? NULL : b[5]);
    k_norm_backward(v, t, kind, s->rows, s->d, 1e-3, s->variant & 2, b[2], NULL, NULL, b[3], b[1], bare ? NULL : b[4]);
}
TRIAL(norm_vectors)
{
    UNUSED;
    const k_norm_kind kind = s->variant & 1 ? K_NORM_RMS : K_NORM_LAYER;
    k_norm_backward(v, t, kind, s->rows, s->d, 1e-3, 0, s->variant & 2 ? b[2] : NULL, b[0], s->variant % 3 ? b[5] : NULL, b[3], b[1], b[4]);
}
TRIAL(half_sq)
{
    k_mean_weight(v, s->rows, x, b[6]);
    k_half_sq_forward(v, t, s->rows, s->d, b[0], b[1], x);
    k_half_sq_backward(v, t, s->rows, s->d, b[6], s->variant & 1, b[2], b[1], x);
}
TRIAL(xent)
{
    const double smoothing = s->variant % 3 ? 0.1 : 0;
    k_mean_weight(v, s->rows, x, b[6]);
    k_xent_forward(v, t, s->rows, s->d, s->d, smoothing, b[0], b[1], x);
    k_xent_backward(v, t, s->rows, s->d, smoothing, b[6], s->variant & 1, b[2], b[1], x);
}
TRIAL(xent_both)
{
    k_mean_weight(v, 1, x, b[6]);               /* 1: the gradient is as large as what it is held against */
    const int64_t ld = s->variant & 1 ? (s->d + 7) / 8 * 8 : s->d;
    k_xent_both(v, t, s->rows, s->d, ld, s->variant % 3 ? 0.1 : 0, b[6], b[0], b[1], x);
}
TRIAL(adam)
{
    UNUSED;
    const k_adam o = { .lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .weight_decay = s->variant & 1 ? 0.1 : 0,
                       .decoupled = s->variant & 2, .step = 3 };
    k_mul(v, t, N, 0, b[3], b[3], b[3]);           /* a second moment is not negative */
    k_clip_factor(v, t, N, b[1], 0.5, b[6]);
    k_adam_step(v, t, N, b[0], b[1], b[2], b[3], &o, s->variant & 4 ? b[6] : NULL);
}
/* Matrices and vectors, relative and not, clipped and not. */
TRIAL(adafactor)
{
    UNUSED;
    const k_adafactor o = { .rate = 0.01, .least = s->variant & 2 ? 1e-3 : 0, .beta2 = 0.5, .eps = 1e-30, .clip = s->variant & 1 ? 1 : 0.5, .keep = 0.999 };
    k_mul(v, t, N, 0, b[2], b[2], b[2]);
    k_mul(v, t, N, 0, b[3], b[3], b[3]);
    k_clip_factor(v, t, N, b[1], 0.5, b[6]);
    k_adafactor_step(v, t, s->rows, s->d, b[0], b[1], s->variant % 3 ? b[2] : NULL, b[3], &o, s->variant & 4 ? b[6] : NULL);
}
/* Into another matrix, part of a row; and in place, with a number for each row. */
TRIAL(log_softmax)
{
    UNUSED;
    k_log_softmax(v, t, s->rows, s->d, (s->d + 1) / 2, b[0], s->d, b[1], s->d, NULL, 0);
    k_log_softmax(v, t, s->rows, s->d, s->d, b[2], s->d, b[2], s->d, b[3], s->d);
}
/* b[0] [rows,d] = alpha op(b[1]) op(b[2]) + beta b[0], b[1] [rows,k], b[2] [k,d] or their transposes. */
TRIAL(gemm)
{
    UNUSED;
    const int ta = s->variant & 1, tb = s->variant >> 1 & 1;
    k_gemm(v, t, ta, tb, s->rows, s->d, s->k, 0.5, b[1], ta ? s->rows : s->k, b[2], tb ? s->k : s->d, s->variant & 4 ? 1 : 0, b[0], s->d);
}
TRIAL(gemm_wide)
{
    UNUSED;
    const int ta = s->variant & 1, tb = s->variant >> 1 & 1;
    k_gemm_wide(v, t, ta, tb, s->rows, s->d, s->k, 1, b[1], ta ? s->rows : s->k, b[2], tb ? s->k : s->d, 1, b[0], s->d);
}
TRIAL(gemm_batched)
{
    UNUSED;
    const int64_t rows = s->rows / 3 + 1;
    k_gemm_batched(v, t, 0, 1, rows, s->d, s->k, 1, b[1], s->k, s->variant & 1 ? 0 : rows * s->k, b[2], s->k, s->d * s->k / 4, 0, b[0],
                   s->d, rows * s->d, 2);
}
/* b[0] [rows,d] = b[1] [rows,k] b[2] [d,k]^T + b[3] [d] */
TRIAL(linear)
{
    UNUSED;
    k_linear(v, t, s->rows, s->d, s->k, b[0], b[1], b[2], s->variant & 1 ? NULL : b[3]);
}

static const trial trials[] = {
    { "fill", run_fill, 1, 0, { 1 } }, { "axpy", run_axpy, 4, 0, { 1 } }, { "scale", run_scale, 2, 0, { 1 } },
    { "approach", run_approach, 4, 0, { 1 } }, { "add", run_add, 2, 0, { 1 } }, { "mul", run_mul, 2, 0, { 1 } }, { "add_bias", run_add_bias, 2, 0, { 1 } },
    { "sum_rows", run_sum_rows, 200, 0, { 0, 2 } }, { "unary", run_unary, 16, 0, { 1, 0, 1 } },
    { "gather_rows", run_gather, 2, 0, { 1 } }, { "scatter_add_rows", run_scatter, 200, 0, { 2 } },
    { "pool_rows", run_pool, 40, 0, { 1, 0, 1 } },
    { "dropout", run_dropout, 4, 0, { 1, 0, 1 } }, { "norm", run_norm, 60, 0, { 1, 0, 1 } },
    { "norm_vectors", run_norm_vectors, 200, 0, { 2, 0, 1, 0, 0, 2 } }, { "half_sq", run_half_sq, 100, 0, { 2, 0, 1 } },
    { "xent", run_xent, 40, 0, { 2, 0, 1 } }, { "xent_both", run_xent_both, 40, 0, { 2, 1 } }, { "adam", run_adam, 40, 1, { 1, 0, 1, 1 } },
    { "adafactor", run_adafactor, 60, 1, { 1, 0, 1, 1 } }, { "log_softmax", run_log_softmax, 40, 0, { 1, 0, 1 } },
    { "gemm", run_gemm, 100, 0, { 1 } }, { "gemm_wide", run_gemm_wide, 100, 0, { 2 } },
    { "gemm_batched", run_gemm_batched, 100, 0, { 1 } }, { "linear", run_linear, 100, 0, { 1 } },
};

/* ---- running one on both ---------------------------------------------------------------------------------------------------- */

static double epsilon_of(k_dtype t) { return t == K_F64 ? 0x1p-52 : t == K_BF16 ? 0x1p-8 : 0x1p-23; }

/* Sizes of case i: small, odd, one row, one column, one large. */
static sizes sizes_of(int i)
{
    static const int64_t row[SIZES] = { 1, 5, 33, 64, 257, 1, 700, 96, 128, 1000, 31, 2, 9 };
    static const int64_t width[SIZES] = { 1, 7, 64, 128, 33, 1000, 1, 40, 256, 120, 1024, 20000, 3000 };
    static const int64_t inner[SIZES] = { 1, 3, 17, 64, 100, 9, 31, 128, 72, 16, 33, 5, 7 };
    return (sizes){ row[i], width[i], inner[i], i };
}

/* Both devices' buffers for one case; index holds -1 (losses) in every seventh place where the trial allows it. */
typedef struct pair { void *host[BUFFERS], *device[BUFFERS]; int32_t *index, *index_device; } pair;

static void *take(k_dev *dev, size_t bytes)
{
    void *p;
    if (k_alloc(dev, K_TAG_DATA, bytes, &p)) {
        printf("Bail out! %s\n", k_error(dev));
        exit(1);
    }
    return p;
}

/* Fills both sides of a pair alike, one element off alignment when `off`; the host's side is of host_type. */
static void fill(pair *p, k_dtype t, k_dtype host_type, const sizes *s, const trial *k, int off)
{
    double *draw = malloc(MOST * sizeof *draw);
    for (int i = 0; i < BUFFERS; i++) {
        const k_dtype here = k->out[i] == 2 ? sum_type(t) : t;
        k_random_normal(cpu, K_F64, MOST, draw, (k_rng){ 5, (uint32_t)i, (uint32_t)s->variant }, 0, 1);
        void *rounded = malloc(MOST * 8);
        k_convert(cpu, MOST, rounded, here, draw, K_F64);
        k_convert(cpu, MOST, p->host[i], host_type, rounded, here);
        k_upload(gpu, (char *)p->device[i] + (off ? k_dtype_size(here) : 0), rounded, MOST * k_dtype_size(here));
        free(rounded);
    }
    const int64_t range = strstr(k->name, "rows") ? s->k : s->d;
    const int holes = !strstr(k->name, "rows");
    for (int64_t i = 0; i < s->rows; i++)
        p->index[i] = holes && i % 7 == 3 ? -1 : (int32_t)philox_below(philox_u32(9, 0, 0, (uint64_t)i), (uint32_t)range);
    k_upload(gpu, p->index_device, p->index, (size_t)s->rows * sizeof *p->index);
    free(draw);
}

/* The largest distance of the two sides of a buffer over the largest magnitude, in roundings; NaN is infinite. */
static double distance(const void *host, k_dtype host_type, const void *device, k_dtype t, double eps)
{
    double *a = malloc(MOST * 8), *b = malloc(MOST * 8), worst = 0, scale = 1;
    void *fetched = malloc(MOST * 8);
    k_download(gpu, fetched, device, MOST * k_dtype_size(t));
    k_convert(cpu, MOST, a, K_F64, host, host_type);
    k_convert(cpu, MOST, b, K_F64, fetched, t);
    for (int64_t i = 0; i < MOST; i++) {
        scale = fmax(scale, fabs(a[i]));
        const double miss = fabs(a[i] - b[i]);
        worst = miss <= worst ? worst : miss == miss ? miss : INFINITY;
    }
    free(a);
    free(b);
    free(fetched);
    return worst / (scale * eps);
}

static void try_one(const trial *k, k_dtype t, pair *p)
{
    char detail[160] = "", name[80];
    double worst = 0;
    const k_dtype host_type = t == K_F32 ? K_F32 : K_F64;
    for (int i = 0; i < SIZES; i++)
        for (int off = 0; off < 2; off++) {
            const sizes s = sizes_of(i);
            void *device[BUFFERS];
            fill(p, t, host_type, &s, k, off);
            for (int b = 0; b < BUFFERS; b++)
                device[b] = (char *)p->device[b] + (off && b < BUFFERS - 1 ? k_dtype_size(k->out[b] == 2 ? sum_type(t) : t) : 0);
            k->run(cpu, host_type, &s, p->host, p->index);
            k->run(gpu, t, &s, device, p->index_device);
            for (int b = 0; b < BUFFERS; b++) {
                if (!k->out[b])
                    continue;
                const k_dtype here = k->out[b] == 2 ? sum_type(t) : t;
                const double limit = here == K_BF16 ? BF16_STEPS : k->steps;
                const double miss = distance(p->host[b], host_type, device[b], here, epsilon_of(here));
                if (!(miss <= limit) && !*detail)
                    snprintf(detail, sizeof detail, "buffer %d is %.3g roundings off at rows %lld d %lld k %lld, case %d%s", b, miss,
                             (long long)s.rows, (long long)s.d, (long long)s.k, i, off ? ", unaligned" : "");
                worst = fmax(worst, miss);
            }
        }
    const int ok = !*detail && k_sync(gpu) == K_OK;
    if (ok)
        snprintf(detail, sizeof detail, "within %.1f roundings", worst);
    else if (!*detail)
        snprintf(detail, sizeof detail, "%s", k_error(gpu));
    snprintf(name, sizeof name, "%s %s", k->name, k_dtype_name(t));
    report(ok, name, detail);
}

/* ---- what must be equal to the bit -------------------------------------------------------------------------------------------- */

enum { DRAWN = 1000003 };
typedef void draw(k_dev *, k_dtype, void *);
static const k_rng stream = { 0x123456789abcdefull, 77, 3 };
static void draw_uniform(k_dev *v, k_dtype t, void *x) { k_random_uniform(v, t, DRAWN, x, stream, -0.3, 2.1); }
static void draw_normal(k_dev *v, k_dtype t, void *x) { k_random_normal(v, t, DRAWN, x, stream, 0.1, 1.7); }
static void draw_orthogonal(k_dev *v, k_dtype t, void *x) { k_random_orthogonal(v, t, 3, 70, 24, x, stream, 1); }

static void same_bits(const char *what, draw *f, k_dtype t, size_t n)
{
    const size_t bytes = n * k_dtype_size(t);
    char name[80], detail[80] = "";
    char *a = malloc(bytes), *b = malloc(bytes);
    void *device = take(gpu, bytes);
    f(cpu, t, a);
    f(gpu, t, device);
    k_download(gpu, b, device, bytes);
    for (size_t i = 0; i < bytes && !*detail; i++)
        if (a[i] != b[i])
            snprintf(detail, sizeof detail, "element %zu differs", i / k_dtype_size(t));
    snprintf(name, sizeof name, "%s %s has the CPU's bits", what, k_dtype_name(t));
    report(!*detail, name, detail);
    k_free(gpu, device);
    free(a);
    free(b);
}

/* Between every two dtypes, of numbers that each of them meets: large, small, infinite. */
static void conversions(void)
{
    enum { COUNT = 4099 };
    static const k_dtype all[] = { K_F32, K_F64, K_BF16, K_F16, K_I32 };
    double *values = malloc(COUNT * 8);
    k_random_normal(cpu, K_F64, COUNT, values, stream, 0, 1);
    for (int i = 0; i < COUNT; i++)
        values[i] *= exp2(i % 20 - 8);
    char *from = malloc(COUNT * 8), *a = malloc(COUNT * 8), *b = malloc(COUNT * 8);
    void *x = take(gpu, COUNT * 8), *y = take(gpu, COUNT * 8);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            char name[80];
            for (int e = 0; e < 3; e++)
                values[e] = all[i] == K_I32 || all[j] == K_I32 ? e : e == 0 ? INFINITY : e == 1 ? -0.0 : 65520;
            k_convert(cpu, COUNT, from, all[i], values, K_F64);
            k_upload(gpu, x, from, COUNT * k_dtype_size(all[i]));
            k_convert(cpu, COUNT, a, all[j], from, all[i]);
            k_convert(gpu, COUNT, y, all[j], x, all[i]);
            k_download(gpu, b, y, COUNT * k_dtype_size(all[j]));
            snprintf(name, sizeof name, "convert %s to %s", k_dtype_name(all[i]), k_dtype_name(all[j]));
            report(memcmp(a, b, COUNT * k_dtype_size(all[j])) == 0, name, "");
        }
    k_free(gpu, x);
    k_free(gpu, y);
    free(values);
    free(from);
    free(a);
    free(b);
}

/* Rows in the order of their targets' tails: few and many, with and without some of the tails. */
static void sorted_targets(void)
{
    enum { MANY = 5003, CHUNK = 100 };
    static const int64_t count[] = { 1, 31, MANY };
    static const k_clusters c = { 3, { 40, 60, 90 } };
    const size_t bytes = 8 * MANY * sizeof(int32_t);
    int32_t *target = malloc(bytes), *have = calloc(1, bytes), *want = calloc(1, bytes), *device = take(gpu, bytes);
    int same = 1;
    for (int i = 0; i < 6; i++) {
        const int64_t n = count[i % 3], chunks = (n + CHUNK - 1) / CHUNK;
        for (int64_t r = 0; r < n; r++)
            target[r] = (int32_t)philox_below(philox_u32(5, 6, (uint32_t)i, (uint64_t)r), i < 3 ? 101 : 50) - 1;
        k_upload(gpu, device, target, (size_t)n * sizeof *target);
        k_sort_targets(gpu, n, device, &c, CHUNK, device + MANY, device + 2 * MANY, device + 3 * MANY, device + 3 * MANY + 4 * n);
        k_download(gpu, have, device + MANY, (size_t)(2 * MANY + 4 * n + 3 * chunks) * sizeof *have);
        k_sort_targets(cpu, n, target, &c, CHUNK, want, want + MANY, want + 2 * MANY, want + 2 * MANY + 4 * n);
        same = same && memcmp(have, want, (size_t)n * sizeof *have) == 0 && memcmp(have + MANY, want + MANY, (size_t)n * sizeof *have) == 0 &&
               memcmp(have + 2 * MANY, want + 2 * MANY, (size_t)(4 * n + 3 * chunks) * sizeof *have) == 0;
    }
    report(same, "targets are sorted as on the CPU", "");
    k_free(gpu, device);
    free(target);
    free(have);
    free(want);
}

/* The same input gives the same bits, where sums are many. */
static void same_every_time(void)
{
    enum { ROWS = 4096, WIDTH = 192, TABLE = 50 };
    const size_t bytes = (size_t)ROWS * WIDTH * 4;
    int32_t index[ROWS];
    float *first = malloc(bytes), *again = malloc(bytes);
    void *x = take(gpu, bytes), *out = take(gpu, bytes), *idx = take(gpu, sizeof index);
    k_random_normal(gpu, K_F32, ROWS * WIDTH, x, stream, 0, 1);
    for (int i = 0; i < ROWS; i++)
        index[i] = (int32_t)philox_below(philox_u32(1, 2, 3, (uint64_t)i), TABLE);
    k_upload(gpu, idx, index, sizeof index);
    int same = 1;
    for (int turn = 0; turn < 5; turn++) {
        k_zero(gpu, out, bytes);
        k_sum_rows(gpu, K_F32, ROWS, WIDTH, x, out);
        k_scatter_add_rows(gpu, K_F32, ROWS, WIDTH, TABLE, (float *)out + WIDTH, x, idx);
        k_gemm(gpu, K_F32, 1, 0, WIDTH, WIDTH, ROWS, 1, x, WIDTH, x, WIDTH, 0, (float *)out + 100 * WIDTH, WIDTH);
        k_download(gpu, turn ? again : first, out, bytes);
        same = same && (!turn || memcmp(first, again, bytes) == 0);
    }
    report(same, "sums and products repeat their bits", "");
    const double square = k_sum_squares(gpu, K_F32, ROWS * WIDTH, x);
    report(square == k_sum_squares(gpu, K_F32, ROWS * WIDTH, x) && fabs(square / (ROWS * WIDTH) - 1) < 0.01, "sum_squares", "");
    int finite = k_all_finite(gpu, K_F32, ROWS * WIDTH, x);
    k_fill(gpu, K_F32, 1, (float *)x + 777, NAN);
    report(finite && !k_all_finite(gpu, K_F32, ROWS * WIDTH, x), "all_finite", "");
    k_free(gpu, x);
    k_free(gpu, out);
    k_free(gpu, idx);
    free(first);
    free(again);
}

/* Products in TF32 are off until they are asked for, and then wrong by its roundings and no more. */
static void tf32_is_a_choice(void)
{
    enum { SIZE = 512 };
    const size_t bytes = (size_t)SIZE * SIZE * 4;
    char detail[80];
    float *plain = malloc(bytes), *rounded = malloc(bytes), *again = malloc(bytes), *const out[] = { plain, rounded, again };
    void *x = take(gpu, bytes), *y = take(gpu, bytes), *z = take(gpu, bytes);
    double worst = 0;
    k_random_normal(gpu, K_F32, SIZE * SIZE, x, stream, 0, 1);
    k_random_normal(gpu, K_F32, SIZE * SIZE, y, (k_rng){ 1, 2, 3 }, 0, 1);
    for (int turn = 0; turn < 3; turn++) {
        k_set_tf32(gpu, turn == 1);
        k_gemm(gpu, K_F32, 0, 0, SIZE, SIZE, SIZE, 1, x, SIZE, y, SIZE, 0, z, SIZE);
        k_download(gpu, out[turn], z, bytes);
    }
    for (int i = 0; i < SIZE * SIZE; i++)
        worst = fmax(worst, fabs((double)(plain[i] - rounded[i])));
    worst /= sqrt(SIZE);                /* the size of an element */
    snprintf(detail, sizeof detail, "off by %.1e", worst);
    report(worst > 0x1p-16 && worst < 0x1p-8 && memcmp(plain, again, bytes) == 0, "TF32 is a choice", detail);
    k_free(gpu, x);
    k_free(gpu, y);
    k_free(gpu, z);
    free(plain);
    free(rounded);
    free(again);
}

/* ---- memory, uploads and the clock ---------------------------------------------------------------------------------------------- */

static void memory_is_watched(void)
{
    char what[128];
    const size_t before = k_memory_seen(gpu), bytes = (size_t)64 << 20;
    void *p = take(gpu, bytes), *q;
    const size_t seen = k_memory_seen(gpu) - before;
    report(seen >= bytes && seen < bytes + (8 << 20), "the driver sees what is taken", "");
    report(k_check_guards(gpu, what, sizeof what) == K_OK, "guards are whole", "");
    k_fill(gpu, K_F32, 1, (char *)p + bytes, 1);
    report(k_check_guards(gpu, what, sizeof what) == K_EGUARD, "a write past the end is found", "");
    k_free(gpu, p);
    report(k_alloc(gpu, K_TAG_DATA, (size_t)1 << 45, &q) == K_ENOMEM, "too much memory is refused", k_error(gpu));
    int given = 0;
    void *block[64];
    while (given < 64 && k_alloc(gpu, K_TAG_DATA, (size_t)4 << 30, &block[given]) == K_OK)
        given++;
    report(given > 0 && given < 64 && k_sync(gpu) == K_OK, "the last memory is refused and nothing breaks", k_error(gpu));
    while (given > 0)
        k_free(gpu, block[--given]);
    k_set_limit(gpu, 1 << 20);
    report(k_alloc(gpu, K_TAG_DATA, 1 << 21, &q) == K_ENOMEM, "a limit is kept", k_error(gpu));
    k_set_limit(gpu, 0);
}

/* Many small uploads in a row, while the queue is busy, arrive whole and in order. */
static void uploads_arrive(void)
{
    enum { EACH = 60000, TIMES = 200 };
    int32_t *sent = malloc(EACH * 4), *got = malloc(EACH * 4);
    void *x = take(gpu, (size_t)EACH * 4 * TIMES);
    int ok = 1;
    for (int i = 0; i < TIMES; i++) {
        for (int j = 0; j < EACH; j++)
            sent[j] = i * EACH + j;
        k_upload(gpu, (int32_t *)x + (size_t)i * EACH, sent, EACH * 4);
    }
    for (int i = 0; i < TIMES; i++) {
        k_download(gpu, got, (int32_t *)x + (size_t)i * EACH, EACH * 4);
        for (int j = 0; j < EACH; j++)
            ok = ok && got[j] == i * EACH + j;
    }
    report(ok, "uploads arrive whole and in order", "");
    k_free(gpu, x);
    free(sent);
    free(got);
}

typedef struct copying { void *dst, *src; size_t bytes; int times; } copying;
static int copy_work(void *arg)
{
    const copying *c = arg;
    for (int i = 0; i < c->times; i++)
        k_copy(gpu, c->dst, c->src, c->bytes);
    return 0;
}
static int fail_work(void *arg) { (void)arg; return 1; }

static void time_is_told(void)
{
    char detail[160];
    copying c = { .bytes = (size_t)1 << 30, .times = 1 }, many;
    c.dst = take(gpu, c.bytes);
    c.src = take(gpu, c.bytes);
    k_zero(gpu, c.src, c.bytes);
    double once = 1, ten = 1, empty = 1;
    many = c;
    many.times = 10;
    copying none = { .times = 0 };
    for (int i = 0; i < 5; i++) {
        once = fmin(once, k_time(gpu, copy_work, &c, 1));
        ten = fmin(ten, k_time(gpu, copy_work, &many, 0));
        empty = fmin(empty, k_time(gpu, copy_work, &none, 0));
    }
    snprintf(detail, sizeof detail, "1 GiB %.1f us (%.2f TB/s), ten %.2f times that, nothing %.2f us", 1e6 * once,
             2e-12 * (double)c.bytes / once, ten / once, 1e6 * empty);
    report(once > 0 && ten > 9 * once && ten < 11 * once && empty >= 0 && empty < 2e-6, "time adds up", detail);
    report(k_time(gpu, fail_work, NULL, 0) < 0, "work that fails has no time", "");
    k_free(gpu, c.dst);
    k_free(gpu, c.src);
}

int main(int argc, char **argv)
{
    const int own = argc > 1 && strcmp(argv[1], "own") == 0;
    char why[256], text[256];
    static const k_dtype types[] = { K_F32, K_F64, K_BF16 };
    pair p;
    if (k_dev_open("cpu", 0, &cpu, why, sizeof why) || k_dev_open("cuda", 0, &gpu, why, sizeof why)) {
        printf("Bail out! %s\n", why);
        return 1;
    }
    printf("# %s\n", k_dev_describe(gpu, text, sizeof text));
    for (int i = 0; i < BUFFERS; i++) {
        p.host[i] = take(cpu, MOST * 8);
        p.device[i] = take(gpu, MOST * 8 + 64);
    }
    p.index = take(cpu, 4096);
    p.index_device = take(gpu, 4096);
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
        for (int t = 0; t < 3; t++)
            if ((types[t] != K_BF16 || !trials[i].wide) && !(own && (strncmp(trials[i].name, "gemm", 4) == 0 || strcmp(trials[i].name, "linear") == 0)))
                try_one(&trials[i], types[t], &p);
    for (int t = 0; t < 2; t++) {
        same_bits("uniform", draw_uniform, types[t], DRAWN);
        same_bits("normal", draw_normal, types[t], DRAWN);
        same_bits("orthogonal", draw_orthogonal, types[t], 3 * 70 * 24);
    }
    conversions();
    if (!own) {
        sorted_targets();
    same_every_time();
        tf32_is_a_choice();
        memory_is_watched();
        uploads_arrive();
        time_is_told();
    }
    report(k_sync(gpu) == K_OK, "the device is well at the end", k_sync(gpu) ? k_error(gpu) : "");
    printf("1..%d\n", number);
    k_dev_close(gpu);
    k_dev_close(cpu);
    return failures != 0;
}
