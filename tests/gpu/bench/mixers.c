/* mixers.c - attention's kernels on a GPU, at the shapes that others have published times for, against their floors:
 * operations at the rate of a large product, or bytes at that of a copy, whichever takes longer.
 *
 * A line: name, milliseconds forward, floor, forward and backward, floor; the least of several runs with cold caches. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "kernels/cuda.h"

enum { RUNS = 9, TENSORS = 8, CHUNK = 64 };
#define MIB ((size_t)1 << 20)
static const size_t TENSOR = 512 * MIB, SAVED = 64 * MIB, SCRATCH = 1024 * MIB, WEIGHTS = 64 * MIB;    /* bytes of each */
static const double PRODUCTS = 780e12, BYTES = 4.2e12;     /* a second, on an H200: bfloat16 with float sums; a copy */

/* A shape: H heads of D numbers, B sequences of T tokens; by features, or by rounds of hashing into buckets of CHUNK, or else
 * softmax. */
typedef struct shape { const char *name; int mask, causal, length, summary, features, B, T, H, D; k_dtype type; int rounds; } shape;
static const shape SHAPES[] = {
    { "softmax-64-512", K_MASK_ALL, 1, 0, 0, 0, 32, 512, 32, 64, K_BF16 },
    { "softmax-64-2048", K_MASK_ALL, 0, 0, 0, 0, 8, 2048, 32, 64, K_BF16 },
    { "softmax-64-16384", K_MASK_ALL, 1, 0, 0, 0, 1, 16384, 32, 64, K_BF16 },
    { "softmax-128-16384", K_MASK_ALL, 1, 0, 0, 0, 1, 16384, 16, 128, K_BF16 },
    { "fixed-8192", K_MASK_FIXED, 1, 128, 32, 0, 1, 8192, 32, 64, K_BF16 },
    { "fixed-32768", K_MASK_FIXED, 1, 128, 32, 0, 1, 32768, 32, 64, K_BF16 },
    { "strided-32768", K_MASK_STRIDED, 1, 128, 0, 0, 1, 32768, 32, 64, K_BF16 },
    { "window-32768", K_MASK_WINDOW, 1, 256, 0, 0, 1, 32768, 32, 64, K_BF16 },
    { "performer-f32", 0, 0, 0, 0, 256, 1, 16384, 32, 64, K_F32 },
    { "performer-bf16", 0, 0, 0, 0, 256, 1, 16384, 32, 64, K_BF16 },
    { "lsh-8192-1", 0, 1, 0, 0, 0, 1, 8192, 64, 64, K_F32, 1 },
    { "lsh-8192-4", 0, 1, 0, 0, 0, 1, 8192, 64, 64, K_F32, 4 },
    { "lsh-65536-1", 0, 1, 0, 0, 0, 1, 65536, 32, 64, K_F32, 1 },
    { "lsh-65536-4", 0, 1, 0, 0, 0, 1, 65536, 32, 64, K_F32, 4 } };

static k_dev *dev;
static void *tensor[TENSORS], *saved, *scratch, *weights;    /* q k v o d_o dq dk dv, each [B,T,H,D] in memory; W */

/* One problem and what is done with it. */
typedef struct job { const shape *s; int backward; k_position position; k_attention soft; k_linattn linear; k_lsh lsh; } job;

static int work(void *arg)
{
    job *j = arg;
    void *stream = k_dev_stream(dev);
    if (j->s->features)
        return K_CUDA(linattn)->forward(&j->linear, j->s->type, stream) || (j->backward && K_CUDA(linattn)->backward(&j->linear, j->s->type, stream));
    if (j->s->rounds)
        return K_CUDA(lsh)->forward(&j->lsh, j->s->type, stream) || (j->backward && K_CUDA(lsh)->backward(&j->lsh, j->s->type, stream));
    return K_CUDA(attention)->forward(&j->soft, j->s->type, stream) || (j->backward && K_CUDA(attention)->backward(&j->soft, j->s->type, stream));
}

/* Pairs of a query and a key that it sees, of one head. */
static double pairs(const shape *s)
{
    const double T = s->T, l = s->length, blocks = floor(T / fmax(l, 1));
    switch (s->mask) {
    case K_MASK_WINDOW:  return T * l - l * (l - 1) / 2;
    case K_MASK_FIXED:   return T * (l + 1) / 2 + l * s->summary * blocks * (blocks - 1) / 2;
    case K_MASK_STRIDED: return T * l - l * (l - 1) / 2 + l * (blocks - 1) * blocks / 2;
    default:             return s->causal ? T * (T + 1) / 2 : T * T;
    }
}

/* Seconds that no kernel goes below: products of forward, and 2.5 times those (features: twice) of backward; float takes
 * three of bfloat16, or six where it shall be whole.  Tensors once: q k v o, and with d_o again to dq dk dv. */
static double floor_of(const shape *s, int both)
{
    const double rows = (double)s->B * s->H * s->T, heads = (double)s->B * s->H, seen = s->rounds ? 2.0 * CHUNK * s->rounds * s->T : pairs(s);
    const double forward = s->features ? 8.0 * rows * s->features * s->D : 4.0 * heads * seen * s->D;
    const double products = forward * (both ? s->features ? 3 : 3.5 : 1) * (s->rounds ? 6 : s->type == K_F32 ? 3 : 1) / PRODUCTS;
    const double bytes = (both ? 12 : 4) * rows * s->D * (double)k_dtype_size(s->type) / BYTES;
    return fmax(products, bytes);
}

/* The problem of a shape over the tensors; scratch for all of it. */
static int prepare(job *j, const shape *s)
{
    k_heads h[TENSORS];
    k_rows r[TENSORS];
    k_cuda_sizes z;
    for (int i = 0; i < TENSORS; i++) {
        h[i] = (k_heads){ tensor[i], (int64_t)s->T * s->H * s->D, s->D, (int64_t)s->H * s->D };
        r[i] = (k_rows){ h[i].p, h[i].sb, h[i].sh, h[i].st };
    }
    *j = (job){ .s = s, .position = { .rope_base = 10000 } };
    j->soft = (k_attention){
        .B = s->B, .Hq = s->H, .Hk = s->H, .Tq = s->T, .Tk = s->T, .Dk = s->D, .Dv = s->D, .scale = 1 / sqrt(s->D), .position = &j->position,
        .mask = { .kind = s->mask, .causal = s->causal, .length = s->length, .summary_len = s->summary, .summary_slots = 1 },
        .q = h[0], .k = h[1], .v = h[2], .o = h[3], .d_o = h[4], .dq = h[5], .dk = h[6], .dv = h[7], .lse = saved, .scratch = scratch };
    j->linear = (k_linattn){
        .f = { .map = K_MAP_FAVOR, .D = s->D, .m = s->features, .eps = 1e-6, .stabilise = 1, .W = weights }, .normalise = 1,
        .B = s->B, .Hq = s->H, .Hk = s->H, .Tq = s->T, .Tk = s->T, .Dk = s->D, .Dv = s->D,
        .q = r[0], .k = r[1], .v = r[2], .o = r[3], .d_o = r[4], .dq = r[5], .dk = r[6], .dv = r[7], .saved = saved, .scratch = scratch };
    j->lsh = (k_lsh){
        .B = s->B, .H = s->H, .T = s->T, .Dk = s->D, .Dv = s->D, .causal = s->causal, .rounds = s->rounds, .chunk = CHUNK, .across = 1,
        .factor = { s->T / CHUNK }, .scale = 1 / sqrt(s->D), .key_eps = 1e-6, .capacity = s->T, .rotations = weights, .scratch = scratch,
        .q = h[0], .k = h[0], .v = h[2], .o = h[3], .d_o = h[4], .dq = h[5], .dv = h[7],
        .bucket = saved, .lse = (float *)saved + (size_t)s->B * (size_t)s->H * (size_t)s->rounds * (size_t)s->T };
    const char *why = s->features ? K_CUDA(linattn)->plan(&j->linear, s->type, 1, &z)
                      : s->rounds ? K_CUDA(lsh)->plan(&j->lsh, s->type, 1, &z) : K_CUDA(attention)->plan(&j->soft, s->type, 1, &z);
    if (!why && (z.saved > SAVED || z.scratch_fwd > SCRATCH || z.scratch_bwd > SCRATCH)) why = "more memory than is set aside";
    if (why) fprintf(stderr, "mixers: %s: %s\n", s->name, why);
    return why != NULL;
}

static double best_of(job *j)
{
    double best = INFINITY;
    k_time(dev, work, j, 0);
    for (int i = 0; i < RUNS; i++) best = fmin(best, k_time(dev, work, j, 1));
    return best;
}

int main(void)
{
    char why[256];
    if (k_dev_open("cuda", 0, &dev, why, sizeof why)) return fprintf(stderr, "mixers: %s\n", why), 1;
    int code = k_alloc(dev, K_TAG_DATA, SAVED, &saved) || k_alloc(dev, K_TAG_DATA, SCRATCH, &scratch) || k_alloc(dev, K_TAG_DATA, WEIGHTS, &weights);
    for (int i = 0; i < TENSORS && !code; i++) code = k_alloc(dev, K_TAG_DATA, TENSOR, &tensor[i]);
    if (code) return fprintf(stderr, "mixers: %s\n", k_error(dev)), 1;
    k_random_normal(dev, K_F32, (int64_t)(WEIGHTS / sizeof(float)), weights, (k_rng){ 2, 0, 0 }, 0, 1);
    printf("%-20s %10s %10s %10s %10s\n", "mixer", "forward", "floor", "both", "floor");
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        const shape *s = &SHAPES[i];
        job j;
        for (int n = 0; n < TENSORS; n++)
            k_random_normal(dev, s->type, (int64_t)s->B * s->T * s->H * s->D, tensor[n], (k_rng){ 1, (uint32_t)n, 0 }, 0, 1);
        if (prepare(&j, s)) return 1;
        const double forward = best_of(&j);
        j.backward = 1;
        const double both = best_of(&j);
        printf("%-20s %10.4f %10.4f %10.4f %10.4f\n", s->name, 1e3 * forward, 1e3 * floor_of(s, 0), 1e3 * both, 1e3 * floor_of(s, 1));
    }
    const int failed = k_sync(dev);
    if (failed) fprintf(stderr, "mixers: %s\n", k_error(dev));
    k_dev_close(dev);
    return failed != 0;
}
