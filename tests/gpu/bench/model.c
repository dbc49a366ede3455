/* model.c - whole training steps of three decoders on a GPU in bf16: tokens per second and memory.
 *
 *     model [NAME] [profile]      small | long | gpt2; profile: the time of every kind of node instead
 *
 * small is the language model of Schlag, Irie and Schmidhuber 2021 with a vocabulary of 32,768, long has the layer of the
 * Transformer's base model and 2048 tokens of context, gpt2 is GPT-2 small.  model.py trains the same in PyTorch. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "harness/nn/internal.h"
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "kernels/philox.h"

enum { WARM = 6, STEPS = 8, REPEATS = 5 };
typedef struct problem { const char *name; int layers, d_model, heads, d_ff, context, batch, vocabulary; } problem;
static const problem PROBLEMS[] = { { "small", 16, 128, 8, 2048, 256, 96, 32768 },
                                    { "long", 6, 512, 8, 2048, 2048, 16, 32768 },
                                    { "gpt2", 12, 768, 12, 3072, 1024, 32, 50257 } };

typedef struct trained {
    k_dev *dev;
    nn_params *params;
    nn_graph *graph;
    nn_train_opts train;
    int64_t step;
} trained;

static void must(int rc, const char *why)
{
    if (rc == 0)
        return;
    fprintf(stderr, "model: %s\n", why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every option of a table at its default. */
static void defaults(const attn_opt *o, void *opts)
{
    for (; o->name; o++) {
        char *field = (char *)opts + o->off;
        if (o->type == ATTN_FLOAT)
            *(double *)field = o->def;
        else if (o->type == ATTN_INTS)
            *(attn_ints *)field = (attn_ints){ 1, { (int32_t)o->def } };
        else
            *(int32_t *)field = (int32_t)o->def;
    }
}

static const attn_variant *softmax(void)
{
    char path[500];
    snprintf(path, sizeof path, "%s/variants/softmax.so", getenv("B") ? getenv("B") : "build");
    void *file = dlopen(path, RTLD_NOW);
    const attn_variant *const *v = file ? (const attn_variant *const *)dlsym(file, ATTN_SYMBOL) : NULL;
    must(!v, file ? "softmax.so has no variant" : dlerror());
    return v[0];
}

static void random_tokens(k_dev *dev, void *to, int64_t n, int vocabulary, uint32_t stream)
{
    int32_t *x = malloc((size_t)n * sizeof *x);
    must(!x, "no memory");
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)philox_below(philox_u32(1, stream, 0, (uint64_t)i), (uint32_t)vocabulary);
    k_upload(dev, to, x, (size_t)n * sizeof *x);
    free(x);
}

/* The model, ready for its first step. */
static void build(trained *m, const problem *p)
{
    static char opts[1024], why[300];
    nn_model_opts o;
    const attn_variant *v = softmax();
    defaults(nn_model_table, &o);
    defaults(nn_train_table, &m->train);
    defaults(v->opts, opts);
    o.layers = p->layers, o.d_model = p->d_model, o.heads = p->heads, o.d_ff = p->d_ff, o.positions = NN_POSITIONS_LEARNED;
    m->params = nn_params_new(m->dev, K_BF16, 1);
    m->graph = nn_graph_new(m->params, 1);
    const nn_mixer_spec mixer = { .variant = v, .opts = opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    nn_transformer t;
    must(nn_transformer_init(&t, m->params, &o, &mixer, 1, p->vocabulary, p->context, why, sizeof why), why);
    int64_t n = (int64_t)p->batch * p->context;
    nn_id tokens = nn_input(m->graph, K_I32, (attn_dims){ 2, { p->batch, p->context } }), target = nn_input(m->graph, K_I32, (attn_dims){ 1, { n } });
    nn_id h = nn_transformer_body(&t, m->graph, tokens, ATTN_CAUSAL);
    nn_graph_set_loss(m->graph, nn_transformer_loss(&t, m->graph, h, target, 0));
    must(nn_params_alloc(m->params, why, sizeof why), why);
    must(nn_graph_compile(m->graph, why, sizeof why), why);
    random_tokens(m->dev, nn_data(m->graph, tokens), n, p->vocabulary, 1);
    random_tokens(m->dev, nn_data(m->graph, target), n, p->vocabulary, 2);
}

static void steps(trained *m, int n)
{
    for (int i = 0; i < n; i++) {
        nn_params_zero_grad(m->params);
        must(nn_step(m->graph), "a step failed");
        nn_optimiser_step(m->params, &m->train, ++m->step);
    }
    must(k_sync(m->dev), k_error(m->dev));
}

/* Tokens per second and memory. */
static void measure(trained *m, const problem *p)
{
    double best = 1e9;
    k_memory memory;
    steps(m, WARM);
    for (int r = 0; r < REPEATS; r++) {
        double start = now();
        steps(m, STEPS);
        double seconds = (now() - start) / STEPS;
        best = seconds < best ? seconds : best;
    }
    k_memory_read(m->dev, &memory);
    printf("%-6s harness  %8.3f ms a step, %7.1f thousand tokens/s, %6.2f GiB (", p->name, 1e3 * best,
           1e-3 * p->batch * p->context / best, (double)memory.peak / (1 << 30));
    for (int t = 0; t < K_TAGS; t++)
        if (memory.now_tag[t])
            printf("%s %.2f ", k_tag_names[t], (double)memory.now_tag[t] / (1 << 30));
    printf("), loss %.4f\n", nn_loss(m->graph));
}

/* ---- where the time goes ----------------------------------------------------------------------------------------- */

typedef struct call { nn_graph *g; node *n; int back; } call;
static int run(void *arg)
{
    call *c = arg;
    return (c->back ? c->n->op->backward : c->n->op->forward)(c->g, c->n);
}
static int optimise(void *arg)
{
    trained *m = arg;
    nn_optimiser_step(m->params, &m->train, ++m->step);
    return 0;
}

/* The time of all nodes of one kind and size, forward and backward. */
static void profile(trained *m)
{
    static struct { char name[80]; int n; double seconds[2]; } kind[64];
    int kinds = 0;
    double all = k_time(m->dev, optimise, m, 0);
    steps(m, 2);
    printf("       optimiser %.3f ms\n", 1e3 * all);
    for (int back = 0; back < 2; back++)
        for (int i = 0; i < m->graph->nnodes; i++) {
            call c = { m->graph, &m->graph->nodes[back ? m->graph->nnodes - 1 - i : i], back };
            char name[80];
            snprintf(name, sizeof name, "%s %lld x %lld, %lld", c.n->op->name, (long long)c.n->rows, (long long)c.n->width, (long long)c.n->depth);
            int k = 0;
            while (k < kinds && strcmp(kind[k].name, name))
                k++;
            kinds += k == kinds;
            strcpy(kind[k].name, name);
            double a = k_time(m->dev, run, &c, 0), b = k_time(m->dev, run, &c, 0);
            kind[k].n += !back;
            kind[k].seconds[back] += a < b ? a : b;
        }
    for (int k = 0; k < kinds; k++) {
        printf("       %3d %-44s %8.3f + %8.3f ms\n", kind[k].n, kind[k].name, 1e3 * kind[k].seconds[0], 1e3 * kind[k].seconds[1]);
        all += kind[k].seconds[0] + kind[k].seconds[1];
    }
    printf("       all %.3f ms\n", 1e3 * all);
}

int main(int argc, char **argv)
{
    int profiled = argc > 1 && !strcmp(argv[argc - 1], "profile");
    for (size_t i = 0; i < sizeof PROBLEMS / sizeof *PROBLEMS; i++) {
        char why[300];
        trained m = { 0 };
        if (argc - profiled > 1 && strcmp(argv[1], PROBLEMS[i].name))
            continue;
        must(k_dev_open("cuda", 1, &m.dev, why, sizeof why), why);
        build(&m, &PROBLEMS[i]);
        measure(&m, &PROBLEMS[i]);
        if (profiled)
            profile(&m);
        nn_graph_free(m.graph);
        nn_params_free(m.params);
        k_dev_close(m.dev);
    }
    return 0;
}
