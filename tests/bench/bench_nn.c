/* bench_nn.c - what the tape costs: nanoseconds per replayed node, and steps per second of the first task's model
 * (S = T = 20, batch 32) around a variant that does next to nothing. */
#include "harness/nn/train.h"
#include "tests/unit/nn_model.h"
#include <stdio.h>
#include <time.h>

/* ---- the variant: o_i = the mean of v -------------------------------------------------------------------------------- */

static int mean_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)s, (void)opts, (void)p;
    return ATTN_OK;
}

/* o [B,1,Tq,Dv] = mean over keys of v [B,1,Tk,Dv]. */
static int mean_forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    for (int b = 0; b < s->B; b++) {
        float *o = (float *)c->o.p + b * c->o.sb;
        memset(o, 0, (size_t)s->Dv * sizeof *o);
        for (int j = 0; j < s->Tk; j++)
            for (int e = 0; e < s->Dv; e++)
                o[e] += ((const float *)c->v.p)[b * c->v.sb + j * c->v.st + e] / (float)s->Tk;
    }
    return ATTN_OK;
}

static int mean_backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    memset(c->dq.p, 0, (size_t)(s->B * s->Tq * s->Dk) * sizeof(float));
    memset(c->dk.p, 0, (size_t)(s->B * s->Tk * s->Dk) * sizeof(float));
    return ATTN_OK;
}

static const attn_impl impls[] = { { "cpu", ATTN_CPU, ATTN_F32, ATTN_CROSS, 0, mean_plan, mean_forward, mean_backward, NULL }, { NULL } };
static const attn_variant mean = { .size = sizeof mean, .name = "mean", .impls = impls };

/* ---- the clock --------------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nanoseconds of a forward over a chain of n nodes of one number each, per node. */
static double replay_ns(k_dev *dev, int n)
{
    char why[200];
    nn_params *p = nn_params_new(dev, K_F32, 1);
    nn_graph *g = nn_graph_new(p, 1);
    nn_id one = nn_use(g, nn_param(p, "x", (attn_dims){ 2, { 1, 1 } }, (attn_init){ ATTN_INIT_CONST, 0, 0 }, 0)), x = one;
    for (int i = 0; i < n; i++)
        x = nn_unary(g, K_RELU, x);
    nn_graph_set_loss(g, nn_half_squared_error(g, x, nn_input(g, K_I32, (attn_dims){ 1, { 1 } })));
    if (nn_params_alloc(p, why, sizeof why) || nn_graph_compile(g, why, sizeof why))
        return -1;
    double best = 1e9;
    for (int turn = 0; turn < 20; turn++) {
        double before = now();
        for (int i = 0; i < 100; i++)
            nn_forward(g);
        double t = (now() - before) / 100 / n * 1e9;
        best = t < best ? t : best;
    }
    nn_graph_free(g);
    nn_params_free(p);
    return best;
}

/* Training steps per second of the task's model, best of several rounds. */
static double steps_per_second(k_dev *dev, int S)
{
    char why[200];
    const nn_train_opts opts = { .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_steps = 1000000 };
    nn_mixer_spec spec = { .variant = &mean, .common = { 0, 1e-5 }, .shape = { .mode = ATTN_CROSS, .dtype = ATTN_F32 } };
    model m = { .B = 32, .T = S, .Tq = 1, .S = S, .params = nn_params_new(dev, K_F32, 1) };
    m.graph = nn_graph_new(m.params, 1);
    model_record(&m, &spec, 22 * S / 10, 64, 0);
    if (nn_params_alloc(m.params, why, sizeof why) || nn_graph_compile(m.graph, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        return -1;
    }
    model_batch(&m, 1, 0);
    double best = 1e9;
    int steps = 20000 / S;
    for (int turn = 0, step = 1; turn < 5; turn++) {
        double before = now();
        for (int i = 0; i < steps; i++, step++) {
            nn_params_zero_grad(m.params);
            nn_forward(m.graph);
            nn_backward(m.graph);
            nn_optimiser_step(m.params, &opts, step);
        }
        double t = (now() - before) / steps;
        best = t < best ? t : best;
    }
    nn_graph_free(m.graph);
    nn_params_free(m.params);
    return 1 / best;
}

int main(void)
{
    char why[200];
    for (int threads = 1; threads <= 2; threads++) {
        k_dev *dev;
        if (k_dev_open("cpu", threads, &dev, why, sizeof why)) {
            fprintf(stderr, "%s\n", why);
            return 1;
        }
        printf("nn: %d thread%s: %.0f ns per replayed node", threads, threads > 1 ? "s" : "", replay_ns(dev, 1000));
        for (int S = 20; S <= 300; S += S < 100 ? 80 : 200)
            printf(", S=%d %.0f steps/s", S, steps_per_second(dev, S));
        printf("\n");
        k_dev_close(dev);
    }
    return 0;
}
