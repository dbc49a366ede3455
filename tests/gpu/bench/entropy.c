/* entropy.c - the losses of an output layer and their gradients, scores made chunk by chunk: 24576 tokens, 128 wide, 32768 words in
 * bf16, for chunks of several sizes.  Times of forward and backward as in a training step, the least of several runs, and the
 * bytes that the graph holds.  Floors: three products, 0.8 ms at 780 TFLOP/s; five passes over the scores, 1.9 ms at 4.2 TB/s
 * where they pass through memory and less where a chunk stays in the cache. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "harness/nn/internal.h"

enum { TOKENS = 24576, WIDTH = 128, WORDS = 32768, RUNS = 7 };

static int step(void *arg)
{
    nn_graph *g = arg;
    g->stepping = 1;                    /* as nn_step has it */
    int rc = nn_forward(g);
    g->stepping = 0;
    return rc ? rc : nn_backward(g);
}

/* One graph with chunks of so many bytes, 0: the scores whole. */
static int measure(k_dev *dev, int64_t chunk, double smoothing)
{
    char why[256];
    k_memory memory;
    const attn_init normal = { ATTN_INIT_NORMAL, 0, 0.05 };
    nn_params *p = nn_params_new(dev, K_BF16, 1);
    nn_graph *g = nn_graph_new(p, 1);
    nn_id x = nn_scale(g, nn_linear(g, nn_input(g, K_BF16, (attn_dims){ 2, { TOKENS, WIDTH } }), nn_use(g, nn_param(p, "x", (attn_dims){ 2, { WIDTH, WIDTH } }, normal, 0)), NN_NONE), 1);
    nn_id w = nn_use(g, nn_param(p, "w", (attn_dims){ 2, { WORDS, WIDTH } }, normal, 0)), target = nn_input(g, K_I32, (attn_dims){ 1, { TOKENS } });
    g->chunk_bytes = chunk;
    nn_graph_set_loss(g, chunk ? nn_linear_cross_entropy(g, x, w, NN_NONE, target, smoothing) : nn_cross_entropy_smoothed(g, nn_linear(g, x, w, NN_NONE), target, smoothing));
    int rc = nn_params_alloc(p, why, sizeof why);
    rc = rc ? rc : nn_graph_compile(g, why, sizeof why);
    if (rc)
        return fprintf(stderr, "entropy: %s\n", why), rc;
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        nn_params_zero_grad(p);
        const double s = k_time(dev, step, g, 0);
        best = i && s < best ? s : best;
    }
    k_memory_read(dev, &memory);
    printf("chunks of %4d MiB, smoothing %.1f: %7.3f ms, %7.1f MiB of activations and workspace\n", (int)(chunk >> 20), smoothing, 1e3 * best,
           (double)(memory.now_tag[K_TAG_ACTIVATION] + memory.now_tag[K_TAG_WORKSPACE]) / 1048576);
    nn_graph_free(g);
    nn_params_free(p);
    return 0;
}

int main(void)
{
    k_dev *dev;
    char why[256];
    int rc = k_dev_open("cuda", 0, &dev, why, sizeof why);
    if (rc)
        return fprintf(stderr, "entropy: %s\n", why), 1;
    for (int64_t chunk = 8; !rc && chunk <= 512; chunk *= 2)
        rc = measure(dev, chunk << 20, 0);
    rc = rc ? rc : measure(dev, 64 << 20, 0.1);
    rc = rc ? rc : measure(dev, 0, 0);
    k_dev_close(dev);
    return rc != 0;
}
