/* test_nn.c - the same models trained on the GPU, where steps are replayed from a recording, and on the CPU from the same
 * seeds: losses step by step, then every value.  Prints TAP.  `test_nn STEPS` trains for so few steps under a sanitizer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "harness/nn/internal.h"
#include "harness/nn/train.h"
#include "kernels/philox.h"

enum { ROWS = 96, PLACES = 12, WIDTH = 64, WORDS = 211, STEPS = 40 };
enum { TRANSFORMER = K_UNARIES, REVERSIBLE, ADAPTIVE, MODELS };      /* models beside those that are named by their activation */
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
static nn_id plain(model *m, k_unary f, int entropy)
{
    nn_graph *g = m->graph;
    nn_id places = nn_linear(g, weight(m, "places", ROWS, WIDTH), weight(m, "turn", WIDTH, WIDTH), NN_NONE);
    nn_id x = nn_gather2(g, weight(m, "words", WORDS, WIDTH), m->word, places, m->place);
    nn_id h = nn_unary(g, f, nn_linear(g, x, weight(m, "up", 3 * WIDTH, WIDTH), weight(m, "up.bias", 3 * WIDTH, 0)));
    nn_id y = nn_add(g, x, nn_linear(g, h, weight(m, "down", WIDTH, 3 * WIDTH), NN_NONE));
    nn_id scores = nn_matmul(g, y, weight(m, "out", WIDTH, WORDS));
    return entropy ? nn_cross_entropy(g, scores, m->target) : nn_half_squared_error(g, scores, m->target);
}

/* All that a Transformer has but its attention: shared embeddings, positions, both norms, gated units that are computed again in
 * backward, dropout, and a smoothed cross-entropy of scores in chunks. */
static nn_id transformer(model *m)
{
    nn_graph *g = m->graph;
    nn_id words = weight(m, "words", WORDS, WIDTH), gain = weight(m, "gain", WIDTH, 0), bias = weight(m, "bias", WIDTH, 0);
    nn_id x = nn_reshape(g, nn_gather(g, words, m->word), (attn_dims){ 3, { ROWS / PLACES, PLACES, WIDTH } });
    x = nn_dropout(g, nn_add_rows(g, nn_scale(g, x, 2), weight(m, "places", PLACES, WIDTH)), 0.1);
    nn_recompute_begin(g);
    nn_id h = nn_layer_norm(g, x, gain, bias, 1e-5);
    h = nn_mul(g, nn_unary(g, K_SILU, nn_linear(g, h, weight(m, "gate", 3 * WIDTH, WIDTH), NN_NONE)), nn_linear(g, h, weight(m, "up", 3 * WIDTH, WIDTH), NN_NONE));
    x = nn_add(g, x, nn_dropout(g, nn_linear(g, h, weight(m, "down", WIDTH, 3 * WIDTH), bias), 0.2));
    nn_recompute_end(g);
    x = nn_reshape(g, nn_rms_norm(g, x, gain, 1e-5), (attn_dims){ 2, { ROWS, WIDTH } });
    g->chunk_bytes = 40 * WORDS * (int64_t)k_dtype_size(m->params->dtype);
    return nn_linear_cross_entropy(g, x, words, weight(m, "word.bias", WORDS, 0), m->target, 0.1);
}

/* Two streams that backward takes apart again. */
static nn_id reversible(model *m)
{
    nn_graph *g = m->graph;
    nn_id x[2] = { nn_gather(g, weight(m, "words", WORDS, WIDTH), m->word) };
    x[1] = nn_scale(g, x[0], 1);
    for (int i = 0; i < 4; i++) {
        char up[16], down[16];
        snprintf(up, sizeof up, "up%d", i);
        snprintf(down, sizeof down, "down%d", i);
        nn_recompute_begin(g);
        nn_id h = nn_layer_norm(g, x[1 - i % 2], NN_NONE, NN_NONE, 1e-5);
        h = nn_unary(g, K_GELU, nn_linear(g, h, weight(m, up, 2 * WIDTH, WIDTH), NN_NONE));
        h = nn_dropout(g, nn_linear(g, h, weight(m, down, WIDTH, 2 * WIDTH), NN_NONE), 0.1);
        x[i % 2] = nn_reversible_add(g, x[i % 2], h);
        nn_recompute_end(g);
    }
    return nn_linear_cross_entropy(g, nn_add(g, x[0], x[1]), weight(m, "out", WORDS, WIDTH), NN_NONE, m->target, 0);
}

/* Words in four clusters, of which the first and the last have few, sorted by their targets, in chunks. */
static nn_id adaptive(model *m)
{
    static const k_clusters clusters = { 3, { 20, 101, 200 } };
    nn_graph *g = m->graph;
    nn_id words = weight(m, "words", WORDS, WIDTH), x = nn_gather(g, words, m->word);
    nn_id h = nn_unary(g, K_GELU, nn_linear(g, x, weight(m, "up", 3 * WIDTH, WIDTH), weight(m, "up.bias", 3 * WIDTH, 0)));
    x = nn_add(g, x, nn_linear(g, h, weight(m, "down", WIDTH, 3 * WIDTH), NN_NONE));
    g->chunk_bytes = 30 * 128 * (int64_t)k_dtype_size(m->params->dtype);
    return nn_adaptive_cross_entropy(g, x, words, weight(m, "tails", clusters.tails, WIDTH), m->target, &clusters);
}

static void build(model *m, const char *device, k_dtype dtype, int f, int entropy)
{
    char why[256];
    must(k_dev_open(device, 0, &m->dev, why, sizeof why), why);
    m->params = nn_params_new(m->dev, dtype, 11);
    nn_graph *g = m->graph = nn_graph_new(m->params, 1);
    m->word = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    m->place = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    m->target = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    nn_graph_set_loss(g, f == TRANSFORMER ? transformer(m) : f == REVERSIBLE ? reversible(m) : f == ADAPTIVE ? adaptive(m) : plain(m, (k_unary)f, entropy));
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

/* One step of training; the loss of its last batch. */
static double train(model *m, const nn_train_opts *o, int s)
{
    nn_params_zero_grad(m->params);
    for (int i = 0; i < o->accumulate; i++) {
        show(m, s * o->accumulate + i);
        must(nn_step(m->graph), "forward or backward failed");
    }
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
static void compare(k_dtype dtype, int f, int entropy, int optimizer, double clip)
{
    const int narrow = dtype == K_BF16;
    static const char *const names[MODELS] = { "relu", "sigmoid", "tanh", "exp", "silu", "gelu", "softplus", "elu1", "Transformer", "reversible", "adaptive" };
    const nn_train_opts o = { .optimizer = optimizer, .relative_step = 1, .lr = optimizer == NN_ADAFACTOR ? 0.05 : 3e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-4, .weight_decay = 0.01,
                              .clip = clip, .warmup = 5, .max_steps = STEPS, .accumulate = f == REVERSIBLE ? 3 : 1 };
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
             optimizer == NN_ADAMW ? "AdamW" : optimizer == NN_ADAM ? "Adam" : "Adafactor", clip > 0 ? ", clipped" : "");
    snprintf(detail, sizeof detail, "loss %.4f to %.4f, off by %.1e at most, values by %.1e", first, last, worst, values);
    const int close = worst < (narrow ? 0x1p-6 : 1e-4) && values < (narrow ? 0x1p-4 : 1e-3), learns = last < first || steps < STEPS;
    const int well = k_sync(gpu.dev) == 0 && k_check_guards(gpu.dev, guard, sizeof guard) == 0;
    const int recorded = gpu.graph->recording && (o.accumulate == 1 || gpu.graph->more);
    report(close && learns && well && recorded, name, recorded ? detail : "no step was recorded");
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
        compare(i < K_UNARIES ? K_F32 : K_BF16, f, f != K_EXP && f % 2 == 0, f % 3 == 0 ? NN_ADAMW : NN_ADAM, f % 2 ? 0.5 : 0);
    }
    for (int narrow = 0; narrow < 2; narrow++)
        compare(narrow ? K_BF16 : K_F32, TRANSFORMER, 1, NN_ADAMW, 1);
    for (int narrow = 0; narrow < 2; narrow++)
        for (int f = TRANSFORMER; f <= ADAPTIVE; f += ADAPTIVE - TRANSFORMER)
            compare(narrow ? K_BF16 : K_F32, f, 1, NN_ADAFACTOR, 0);
    compare(K_F32, REVERSIBLE, 1, NN_ADAM, 0);
    printf("1..%d\n", number);
    return failures != 0;
}
