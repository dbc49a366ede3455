/* adaptive.c - the output layer of the small language model of Schlag, Irie and Schmidhuber 2021, 24,576 tokens, 128 wide, 267,735
 * words, in bf16: forward and backward as a training step replays them, by the whole softmax and by the adaptive one with its cuts.
 * Targets are words of log-uniform rank: 79 % below 20,000.  Floors at 780 TFLOP/s: 6.5 ms of products for the whole, 0.5 ms for
 * the head, 0.9 ms with the tails of their own tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "harness/nn/internal.h"
#include "kernels/philox.h"

enum { TOKENS = 24576, WIDTH = 128, WORDS = 267735, STEPS = 8, RUNS = 4 };
static const k_clusters cuts = { 3, { 20000, 40000, 200000 } };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of a step, the least of several runs. */
static double time_steps(nn_params *p, nn_graph *g)
{
    double best = INFINITY;
    for (int r = 0; r <= RUNS; r++) {
        double start = now();
        for (int i = 0; i < STEPS; i++) {
            nn_params_zero_grad(p);
            if (nn_step(g))
                return NAN;
        }
        if (k_sync(p->dev))
            return NAN;
        double s = (now() - start) / STEPS;
        best = r && s < best ? s : best;
    }
    return best;
}

static int measure(k_dev *dev, int adaptive)
{
    char why[256];
    const attn_init normal = { ATTN_INIT_NORMAL, 0, 0.05 };
    nn_params *p = nn_params_new(dev, K_BF16, 1);
    nn_graph *g = nn_graph_new(p, 1);
    nn_id rows = nn_use(g, nn_param(p, "rows", (attn_dims){ 2, { WIDTH, WIDTH } }, normal, 0));
    nn_id x = nn_linear(g, nn_input(g, K_BF16, (attn_dims){ 2, { TOKENS, WIDTH } }), rows, NN_NONE);
    nn_id w = nn_use(g, nn_param(p, "w", (attn_dims){ 2, { WORDS, WIDTH } }, normal, 0)), target = nn_input(g, K_I32, (attn_dims){ 1, { TOKENS } });
    nn_id tails = adaptive ? nn_use(g, nn_param(p, "tails", (attn_dims){ 2, { cuts.tails, WIDTH } }, normal, 0)) : NN_NONE;
    nn_graph_set_loss(g, adaptive ? nn_adaptive_cross_entropy(g, x, w, tails, target, &cuts) : nn_linear_cross_entropy(g, x, w, NN_NONE, target, 0));
    int rc = nn_params_alloc(p, why, sizeof why);
    rc = rc ? rc : nn_graph_compile(g, why, sizeof why);
    if (rc)
        return fprintf(stderr, "adaptive: %s\n", why), rc;
    int32_t *word = malloc(TOKENS * sizeof *word);
    for (int i = 0; word && i < TOKENS; i++)
        word[i] = (int32_t)(exp(log(WORDS) * philox_u32(1, 2, 3, (uint64_t)i) / 4294967296.0)) - 1;
    if (word)
        k_upload(dev, nn_data(g, target), word, TOKENS * sizeof *word);
    free(word);
    double seconds = time_steps(p, g);
    printf("%-9s %7.3f ms%s, loss %.4f\n", adaptive ? "adaptive" : "whole", 1e3 * seconds, g->recording ? "" : " (not replayed)", nn_loss(g));
    nn_graph_free(g);
    nn_params_free(p);
    return isfinite(seconds) ? 0 : 1;
}

int main(void)
{
    k_dev *dev;
    char why[256];
    int rc = k_dev_open("cuda", 1, &dev, why, sizeof why);
    if (rc)
        return fprintf(stderr, "adaptive: %s\n", why), 1;
    rc = measure(dev, 0) || measure(dev, 1);
    k_dev_close(dev);
    return rc != 0;
}
