/* test_transformer.c - Transformers on the GPU: trained from the same seeds as on the CPU, in float step by step the same losses up
 * to rounding, in bf16 nearly; with dropout and layers made again too; the same bits twice.  Prints TAP.  `test_transformer NAME...`:
 * around these variants. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "kernels/philox.h"

enum { B = 4, T = 64, V = 97, STEPS = 25 };
typedef struct curve { double loss[STEPS]; } curve;

static int number, failures;
static struct { int carry, memory; } past;      /* how the models of train() go on from step to step; memory: tokens */

static void report(int ok, const char *name, const char *detail)
{
    failures += !ok;
    printf("%s %d - %s%s%s\n", ok ? "ok" : "not ok", ++number, name, *detail ? ": " : "", detail);
}

static void must(int rc, const char *why)
{
    if (rc == 0)
        return;
    printf("Bail out! %s\n", why);
    exit(1);
}

/* Every option of a table at its default. */
static void defaults(const attn_opt *o, void *opts)
{
    for (; o && o->name; o++) {
        char *field = (char *)opts + o->off;
        if (o->type == ATTN_FLOAT)
            *(double *)field = o->def;
        else if (o->type == ATTN_INTS)
            *(attn_ints *)field = (attn_ints){ 1, { (int32_t)o->def } };
        else
            *(int32_t *)field = (int32_t)o->def;
    }
}

static const attn_variant *variant(const char *name)
{
    char path[500];
    snprintf(path, sizeof path, "%s/variants/%s.so", getenv("B") ? getenv("B") : "build", name);
    void *file = dlopen(path, RTLD_NOW);
    const attn_variant *const *v = file ? (const attn_variant *const *)dlsym(file, ATTN_SYMBOL) : NULL;
    must(!v, file ? "the file has no variant" : dlerror());
    return v[0];
}

/* Token t of sequence b of step s: few words of the vocabulary, each followed by one other. */
static int32_t token(int64_t step, int b, int t)
{
    return (int32_t)((philox_below(philox_u32(1, 1, (uint32_t)step, (uint64_t)b), 13) + 5u * (uint32_t)t) % 13);
}

/* Trains the model for some steps. */
static curve train(const char *device, k_dtype dtype, const char *name, const nn_model_opts *o)
{
    static char opts[1024], why[400];
    static int32_t x[B * T], y[B * T];
    curve c;
    k_dev *dev;
    nn_train_opts how;
    nn_transformer m;
    const attn_variant *v = variant(name);
    defaults(v->opts, opts);
    defaults(nn_train_table, &how);
    how.lr = 2e-3;
    how.clip = 1;
    must(k_dev_open(device, 2, &dev, why, sizeof why), why);
    nn_params *params = nn_params_new(dev, dtype, 7);
    nn_graph *g = nn_graph_new(params, 1);
    const nn_mixer_spec mixer = { .variant = v, .opts = opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    must(nn_transformer_init(&m, params, o, &mixer, 1, V, T, why, sizeof why), why);
    m.memory = past.memory;
    if (past.carry)
        nn_graph_carry(g);
    nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { B, T } }), target = nn_input(g, K_I32, (attn_dims){ 1, { B * T } });
    nn_graph_set_loss(g, nn_transformer_loss(&m, g, nn_transformer_body(&m, g, tokens, ATTN_CAUSAL), target, 0.1));
    must(nn_params_alloc(params, why, sizeof why) || nn_graph_compile(g, why, sizeof why), why);
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < B * T; i++) {
            x[i] = token(s, i / T, i % T);
            y[i] = token(s, i / T, i % T + 1);
        }
        k_upload(dev, nn_data(g, tokens), x, sizeof x);
        k_upload(dev, nn_data(g, target), y, sizeof y);
        nn_params_zero_grad(params);
        must(nn_step(g), "a step failed");
        c.loss[s] = nn_loss(g);
        nn_optimiser_step(params, &how, s + 1);
    }
    must(k_sync(dev), k_error(dev));
    nn_graph_free(g);
    nn_params_free(params);
    k_dev_close(dev);
    return c;
}

/* The greatest distance of two curves, relative to the first. */
static double distance(const curve *a, const curve *b)
{
    double worst = 0;
    for (int s = 0; s < STEPS; s++)
        worst = fmax(worst, fabs(b->loss[s] - a->loss[s]) / a->loss[s]);
    return isfinite(b->loss[STEPS - 1]) ? worst : INFINITY;
}

/* One model everywhere. */
static void compare(const char *what, const char *name, const nn_model_opts *o)
{
    char detail[160], title[160];
    curve cpu = train("cpu", K_F32, name, o), wide = train("cuda", K_F32, name, o), narrow = train("cuda", K_BF16, name, o),
          again = train("cuda", K_BF16, name, o);
    double f32 = distance(&cpu, &wide), bf16 = distance(&cpu, &narrow);
    snprintf(detail, sizeof detail, "losses %.4f to %.4f, f32 within %.1e, bf16 within %.1e", cpu.loss[0], cpu.loss[STEPS - 1], f32, bf16);
    snprintf(title, sizeof title, "%s around %s learns as on the CPU", what, name);
    report(cpu.loss[STEPS - 1] < 0.9 * cpu.loss[0] && f32 < 1e-3 && bf16 < 0.02, title, detail);
    snprintf(title, sizeof title, "%s around %s has the same bits twice", what, name);
    report(memcmp(&narrow, &again, sizeof narrow) == 0, title, "");
}

/* Models that read on: what is carried from step to step is the CPU's, also where the step is replayed. */
static void that_read_on(const nn_model_opts *plain)
{
    nn_model_opts none = *plain, again;
    none.positions = NN_POSITIONS_NONE;
    again = none;
    again.recompute = NN_RECOMPUTE_LAYER;
    past.carry = 1;
    compare("a model that carries states on", "fwp", &none);
    compare("a model that carries states on", "gated_deltanet", &again);
    past.carry = 0, past.memory = 2 * T;
    compare("a model with a memory", "softmax", &again);
    past.memory = T / 2;
    compare("a model with a memory", "linear", &none);
    past.memory = 0;
}

/* A model in two graphs on the GPU: of whole sequences, and of one token after another. */
typedef struct reader {
    k_dev *dev;
    k_dtype dtype;
    nn_params *params;
    nn_graph *g[2];
    nn_id tokens[2], logits[2];
    void *wide;                         /* [B,T,V] of the device: logits in float */
} reader;

static reader read_with(k_dtype dtype, const nn_model_opts *o)
{
    static char opts[1024], why[400];
    static nn_transformer m;
    static nn_mixer_spec mixer;
    reader r = { .dtype = dtype };
    must(k_dev_open("cuda", 2, &r.dev, why, sizeof why), why);
    r.params = nn_params_new(r.dev, dtype, 7);
    mixer = (nn_mixer_spec){ .variant = variant("softmax"), .opts = opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    defaults(mixer.variant->opts, opts);
    must(nn_transformer_init(&m, r.params, o, &mixer, 1, V, T, why, sizeof why), why);
    for (int i = 0; i < 2; i++) {
        r.g[i] = nn_graph_new(r.params, 0);
        if (i)
            nn_graph_decode(r.g[i], T);
        r.tokens[i] = nn_input(r.g[i], K_I32, (attn_dims){ 2, { B, i ? 1 : T } });
        r.logits[i] = nn_transformer_logits(&m, r.g[i], nn_transformer_body(&m, r.g[i], r.tokens[i], ATTN_CAUSAL));
        nn_keep(r.g[i], r.logits[i]);
    }
    must(nn_params_alloc(r.params, why, sizeof why) || nn_graph_compile(r.g[0], why, sizeof why) || nn_graph_compile(r.g[1], why, sizeof why), why);
    must(k_alloc(r.dev, K_TAG_DATA, B * T * V * sizeof(float), &r.wide), "no memory");
    return r;
}

/* The logits of these tokens, n of them in all, by the whole or by the step. */
static void say(reader *r, int i, int n, const int32_t *x, float *logits)
{
    k_upload(r->dev, nn_data(r->g[i], r->tokens[i]), x, (size_t)n * sizeof *x);
    must(nn_forward(r->g[i]), "a forward failed");
    k_convert(r->dev, n * V, r->wide, K_F32, nn_data(r->g[i], r->logits[i]), r->dtype);
    k_download(r->dev, logits, r->wide, (size_t)n * V * sizeof *logits);
}

/* The greatest distance of logits, token by token in a graph that decodes, from those of the whole sequence. */
static double decoded(k_dtype dtype, const nn_model_opts *o)
{
    static float whole[B * T * V], next[B * V];
    int32_t x[B * T], now[B];
    double worst = 0;
    reader r = read_with(dtype, o);
    for (int i = 0; i < B * T; i++)
        x[i] = token(1, i / T, i % T);
    say(&r, 0, B * T, x, whole);
    for (int t = 0; t < T; t++) {
        for (int b = 0; b < B; b++)
            now[b] = x[b * T + t];
        say(&r, 1, B, now, next);
        for (int i = 0; i < B * V; i++) {
            double apart = fabs((double)next[i] - (double)whole[(i / V * T + t) * V + i % V]);
            worst = apart <= worst ? worst : isfinite(apart) ? apart : INFINITY;
        }
    }
    must(k_sync(r.dev), k_error(r.dev));
    nn_graph_free(r.g[0]);
    nn_graph_free(r.g[1]);
    nn_params_free(r.params);
    k_dev_close(r.dev);
    return worst;
}

/* Layers other than the common ones: they learn as on the CPU, and decode as they read. */
static void other_layers(nn_model_opts plain)
{
    nn_model_opts conv = plain, reversible = plain, cut = plain, *const each[] = { &conv, &reversible, &cut };
    static const char *const names[] = { "a model with short convolutions and axial positions", "a reversible model in chunks", "a model without residuals" };
    char title[160], detail[80];
    conv.short_conv = 4, conv.positions = NN_POSITIONS_AXIAL, conv.axial_columns = 10;
    reversible.reversible = 1, reversible.feed_forward_chunks = 3, reversible.ffn_dropout = 0.1, reversible.activation = NN_SWIGLU;
    cut.residual = 0, cut.positions_each_layer = 1, cut.positions = NN_POSITIONS_AXIAL;
    for (int i = 0; i < 3; i++) {
        compare(names[i], "softmax", each[i]);
        each[i]->init = 0.2;            /* so that a token's logits depend on those before it */
        double f32 = decoded(K_F32, each[i]), bf16 = decoded(K_BF16, each[i]);
        snprintf(title, sizeof title, "%s says token by token what it says of the whole", names[i]);
        snprintf(detail, sizeof detail, "logits within %.1e in f32, %.1e in bf16", f32, bf16);
        report(f32 < 1e-3 && bf16 < 0.2, title, detail);
    }
}

int main(int argc, char **argv)
{
    static char *some[] = { "", "softmax", "identity", "linear", "fwp", "gated_deltanet", "lsh", NULL };
    nn_model_opts plain, rich;
    defaults(nn_model_table, &plain);
    plain.layers = 2, plain.d_model = 128, plain.heads = 2;
    rich = plain;
    rich.norm = NN_NORM_RMS, rich.norm_position = NN_NORM_POST, rich.activation = NN_SWIGLU, rich.positions = NN_POSITIONS_LEARNED;
    rich.dropout = rich.ffn_dropout = rich.embedding_dropout = 0.1;
    rich.scale_embedding = 1, rich.tie_embeddings = 0, rich.recompute = NN_RECOMPUTE_LAYER;
    for (char **name = (argc > 1 ? argv : some) + 1; *name; name++)
        compare("a plain model", *name, &plain);
    compare("a model of all there is", "softmax", &rich);
    other_layers(plain);
    that_read_on(&plain);
    printf("1..%d\n", number);
    return failures != 0;
}
