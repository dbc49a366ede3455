/* test_nn.c - the same models trained on the GPU, where steps are replayed from a recording, and on the CPU from the same
 * seeds: losses step by step, then every value.  Prints TAP.  `test_nn STEPS` trains for so few steps under a sanitizer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "harness/nn/internal.h"
#include "harness/nn/train.h"
#include "kernels/philox.h"

enum { ROWS = 96, WIDTH = 64, WORDS = 211, STEPS = 40 };
typedef struct model {
    k_dev *dev;
    nn_params *params;
    nn_graph *graph;
    nn_id word, place, target;
} model;

static int number, failures, steps = STEPS;

static void report(int ok, const char *name, const char *detail)
{
    failures += !ok;
    printf("%s %d - %s%s%s\n", ok ? "ok" : "not ok", ++number, name, *detail ? ": " : "", detail);
}

static void must(int rc, const char *why)
{
    if (rc == 0) return;
    printf("Bail out! %s\n", why);
    exit(1);
}

static nn_id weight(model *m, const char *name, int64_t a, int64_t b)
{
    return nn_use(m->graph, nn_param(m->params, name, b ? (attn_dims){ 2, { a, b } } : (attn_dims){ 1, { a } },
                                     (attn_init){ ATTN_INIT_NORMAL, 0, b ? 1 / sqrt((double)b) : 0.1 }, b ? 0 : ATTN_NO_DECAY));
}

/* Two embeddings, one of them projected, two layers around an activation, a residual path, and one of the losses. */
static void build(model *m, const char *device, k_dtype dtype, k_unary f, int entropy)
{
    char why[256];
    must(k_dev_open(device, 0, &m->dev, why, sizeof why), why);
    m->params = nn_params_new(m->dev, dtype, 11);
    nn_graph *g = m->graph = nn_graph_new(m->params, 1);
    m->word = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    m->place = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    m->target = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    nn_id places = nn_linear(g, weight(m, "places", ROWS, WIDTH), weight(m, "turn", WIDTH, WIDTH), NN_NONE);
    nn_id x = nn_gather2(g, weight(m, "words", WORDS, WIDTH), m->word, places, m->place);
    nn_id h = nn_unary(g, f, nn_linear(g, x, weight(m, "up", 3 * WIDTH, WIDTH), weight(m, "up.bias", 3 * WIDTH, 0)));
    nn_id y = nn_add(g, x, nn_linear(g, h, weight(m, "down", WIDTH, 3 * WIDTH), NN_NONE));
    nn_id scores = nn_matmul(g, y, weight(m, "out", WIDTH, WORDS));
    nn_graph_set_loss(g, entropy ? nn_cross_entropy(g, scores, m->target) : nn_half_squared_error(g, scores, m->target));
    must(nn_params_alloc(m->params, why, sizeof why), why);
    must(nn_graph_compile(g, why, sizeof why), why);
}

static void release(model *m)
{
    nn_graph_free(m->graph);
    nn_params_free(m->params);
    k_dev_close(m->dev);
}

/* Step s: words at random, each followed by a fixed other one; some rows have no target. */
static void show(model *m, int s)
{
    int32_t word[ROWS], place[ROWS], target[ROWS];
    for (int i = 0; i < ROWS; i++) {
        word[i] = (int32_t)philox_below(philox_u32(3, 1, (uint32_t)s, (uint64_t)i), WORDS);
        place[i] = i;
        target[i] = i % 11 == 0 ? -1 : (word[i] * 7 + 3) % WORDS;
    }
    k_upload(m->dev, nn_data(m->graph, m->word), word, sizeof word);
    k_upload(m->dev, nn_data(m->graph, m->place), place, sizeof place);
    k_upload(m->dev, nn_data(m->graph, m->target), target, sizeof target);
}

/* One step of training; its loss. */
static double train(model *m, const nn_train_opts *o, int s)
{
    show(m, s);
    nn_params_zero_grad(m->params);
    must(nn_step(m->graph), "forward or backward failed");
    nn_optimiser_step(m->params, o, s);
    return nn_loss(m->graph);
}

/* The largest distance of a parameter's values on two devices. */
static double distance(model *a, model *b, int i)
{
    int64_t n = 1;
    const attn_dims dims = nn_param_dims(a->params, i);
    for (int d = 0; d < dims.n; d++)
        n *= dims.d[d];
    const size_t bytes = (size_t)n * sizeof(float);
    float *x = malloc(bytes), *y = malloc(bytes);
    double worst = 0;
    k_download(a->dev, x, nn_param_value(a->params, i), bytes);
    k_download(b->dev, y, nn_param_value(b->params, i), bytes);
    for (int64_t j = 0; j < n; j++)
        worst = fabs((double)(x[j] - y[j])) <= worst ? worst : fabs((double)(x[j] - y[j]));
    free(x);
    free(y);
    return worst;
}

/* Trains one model on both devices: f32 curves agree within rounding, which Adam's quotients may amplify; bf16 follows
 * the f32 curve of the CPU within some of its own roundings. */
static void compare(k_dtype dtype, k_unary f, int entropy, int optimizer, double clip)
{
    const int narrow = dtype == K_BF16;
    static const char *const names[K_UNARIES] = { "relu", "sigmoid", "tanh", "exp", "silu", "gelu", "softplus", "elu1" };
    const nn_train_opts o = { .optimizer = optimizer, .lr = 3e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-4, .weight_decay = 0.01,
                              .clip = clip, .warmup = 5, .max_steps = STEPS };
    model cpu, gpu;
    build(&cpu, "cpu", K_F32, f, entropy);
    build(&gpu, "cuda", dtype, f, entropy);
    double first = 0, last = 0, worst = 0, values = 0;
    for (int s = 1; s <= steps; s++) {
        const double a = train(&cpu, &o, s), b = train(&gpu, &o, s), off = fabs(a - b) / fabs(a);
        worst = off <= worst ? worst : off;
        first = s == 1 ? a : first;
        last = a;
    }
    for (int i = 0; i < nn_params_count(cpu.params); i++)
        values = fmax(values, distance(&cpu, &gpu, i));
    char name[120], detail[160], guard[128];
    snprintf(name, sizeof name, "%s: %s, %s, %s%s trains to the CPU's curve", k_dtype_name(dtype), names[f], entropy ? "cross entropy" : "half square",
             optimizer == NN_ADAMW ? "AdamW" : "Adam", clip > 0 ? ", clipped" : "");
    snprintf(detail, sizeof detail, "loss %.4f to %.4f, off by %.1e at most, values by %.1e", first, last, worst, values);
    const int close = worst < (narrow ? 0x1p-6 : 1e-4) && values < (narrow ? 0x1p-4 : 1e-3), learns = last < first || steps < STEPS;
    const int well = k_sync(gpu.dev) == 0 && k_check_guards(gpu.dev, guard, sizeof guard) == 0;
    report(close && learns && well && gpu.graph->recording, name, gpu.graph->recording ? detail : "no step was recorded");
    release(&cpu);
    release(&gpu);
}

int main(int argc, char **argv)
{
    k_dev *gpu;
    char why[256];
    if (argc > 1)
        steps = atoi(argv[1]);
    must(k_dev_open("cuda", 1, &gpu, why, sizeof why), why);
    k_dev_close(gpu);
    for (int i = 0; i < 2 * K_UNARIES; i++) {
        const int f = i % K_UNARIES;
        if (i == K_UNARIES + K_EXP)
            continue;                   /* exp makes a rounding of x, 2^-9 |x|, one of y: no bound on a curve follows */
        compare(i < K_UNARIES ? K_F32 : K_BF16, (k_unary)f, f != K_EXP && f % 2 == 0, f % 3 == 0 ? NN_ADAMW : NN_ADAM, f % 2 ? 0.5 : 0);
    }
    printf("1..%d\n", number);
    return failures != 0;
}
