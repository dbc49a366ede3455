/* bench_attention.c - what each variant costs beside softmax attention: one table, causal, H = 8, D = 64, all cores.
 *
 * bench_attention T causal|bidirectional [THREADS] is softmax attention as a server for pytorch_attention.py: it reads q, k,
 * v and the gradient of o, float [8,T,64] each, then one letter at a time: f runs forward, b forward and backward, both
 * answered by the seconds as a double; r writes o, dq, dk and dv. */
#include "harness/nn/mixer.h"
#include "harness/nn/nn.h"
#include "harness/options.h"
#include "harness/plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { H = 8, D = 64, Q = 0, K, V, O, D_O, DQ, DK, DV, TENSORS };

/* One variant at one length, with all its tensors. */
typedef struct problem {
    k_dev *dev;
    hs_plugin plugin;
    void *opts;
    nn_params *params;
    nn_mixer *mixer;
    nn_mixer_io io;
    float *x[TENSORS];                  /* [1,H,T,D] each */
    size_t n;                           /* floats of one */
} problem;

/* Ends the program with a sentence. */
static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_attention: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* n floats on the device, normally distributed. */
static void *drawn(k_dev *dev, size_t n, uint32_t stream)
{
    void *x;
    if (k_alloc(dev, K_TAG_DATA, n * sizeof(float), &x))
        die("memory", k_error(dev));
    k_random_normal(dev, K_F32, (int64_t)n, x, (k_rng){ 1, stream, 0 }, 0, 1);
    return x;
}

/* ---- a problem ------------------------------------------------------------------------------------------ */

/* The variant, with options "a=1 b=2". */
static const attn_variant *load(problem *p, const char *dir, const char *name, const char *set)
{
    char path[4096], text[200], why[600], *rest = text;
    snprintf(path, sizeof path, "%s/variants/%s.so", dir, name);
    if (hs_plugin_open(path, &p->plugin, why, sizeof why))
        die(name, why);
    const attn_variant *v = p->plugin.variants[0];
    p->opts = calloc(1, v->opts_size + 1);
    hs_opts_defaults(v->opts, p->opts);
    snprintf(text, sizeof text, "%s", set);
    for (char *one; (one = strtok_r(rest, " ", &rest));) {
        char *value = strchr(one, '=');
        *value++ = 0;
        const attn_opt *o = hs_opts_find(v->opts, one);
        if (!o || hs_opt_set_text(o, p->opts, value, why, sizeof why))
            die(name, o ? why : one);
    }
    return v;
}

/* Gates and parameters that the plan asks for, with room for their gradients. */
static void bind_extras(problem *p, const attn_variant *v, const attn_plan *plan, int T)
{
    int id[ATTN_MAX];
    char why[600];
    p->params = nn_params_new(p->dev, K_F32, 1);
    for (int i = 0; i < ATTN_MAX; i++) {
        if (plan->gate_width[i]) {
            size_t n = (size_t)H * (size_t)T * (size_t)plan->gate_width[i];
            p->io.gate[i] = nn_tensor_of(drawn(p->dev, n, 100 + (uint32_t)i), H, T, plan->gate_width[i], 0);
            p->io.dgate[i] = nn_tensor_of(drawn(p->dev, n, 200), H, T, plan->gate_width[i], 0);
        }
        if (plan->param_dims[i].n && !(v->params[i].flags & ATTN_OPTIONAL))
            id[i] = nn_param(p->params, v->params[i].name, plan->param_dims[i], plan->param_init[i], v->params[i].flags);
    }
    if (nn_params_alloc(p->params, why, sizeof why))
        die(v->name, why);
    nn_params_zero_grad(p->params);
    for (int i = 0; i < ATTN_MAX; i++)
        if (plan->param_dims[i].n && !(v->params[i].flags & ATTN_OPTIONAL)) {
            p->io.param[i] = nn_param_value(p->params, id[i]);
            p->io.dparam[i] = nn_param_grad(p->params, id[i]);
        }
}

/* Everything for T tokens; bhtd: the order of the tensors. */
static problem begin(const char *dir, const char *name, const char *set, int T, int mode, int bhtd, int threads)
{
    problem p = { .n = (size_t)H * (size_t)T * D };
    attn_tensor t[TENSORS];
    char why[600];
    if (k_dev_open("cpu", threads, &p.dev, why, sizeof why))
        die("cpu", why);
    const attn_variant *v = load(&p, dir, name, set);
    for (int i = 0; i < TENSORS; i++)
        t[i] = nn_tensor_of(p.x[i] = drawn(p.dev, p.n, (uint32_t)i), H, T, D, bhtd);
    p.io = (nn_mixer_io){ .q = t[Q], .k = t[K], .v = t[V], .o = t[O], .d_o = t[D_O], .dq = t[DQ], .dk = t[DK], .dv = t[DV] };
    if (v->flags & ATTN_SHARED_QK) {
        p.io.k = p.io.q;
        p.io.dk.p = NULL;
    }
    nn_mixer_spec spec = { .variant = v, .opts = p.opts,
                           .shape = { .B = 1, .Hq = H, .Hk = H, .Hv = H, .Tq = T, .Tk = T, .Dk = D, .Dv = D, .mode = mode,
                                      .dtype = ATTN_F32, .training = 1 } };
    if (nn_mixer_new(p.dev, &spec, 0, &p.mixer, why, sizeof why))
        die(name, why);
    bind_extras(&p, v, nn_mixer_plan(p.mixer), T);
    return p;
}

static void end(problem *p)
{
    nn_mixer_free(p->mixer);
    nn_params_free(p->params);
    k_dev_close(p->dev);
    free(p->opts);
    hs_plugin_close(&p->plugin);
}

/* Seconds of a forward pass, or of forward and backward. */
static double run(problem *p, int both)
{
    double start = now();
    if (nn_mixer_forward(p->mixer, &p->io) || (both && nn_mixer_backward(p->mixer, &p->io)))
        die("call", k_error(p->dev));
    return now() - start;
}

/* The shortest of several runs. */
static double shortest(problem *p, int both)
{
    double best = 1e9, all = 0;
    for (int i = 0; i < 3 || (i < 20 && all < 0.3); i++) {
        double t = run(p, both);
        best = t < best ? t : best;
        all += t;
    }
    return best;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

/* "%d" in the options stands for a length near sqrt(T). */
static const struct { const char *name, *set; } CASES[] = {
    { "softmax", "" }, { "softmax", "position=rope" }, { "softmax", "position=alibi" }, { "sliding_window", "window=256" },
    { "local_1d", "block_length=128" }, { "local_2d", "width=%d" }, { "sparse_strided", "stride=%d" }, { "sparse_fixed", "stride=128" },
    { "relative", "max_distance=128" }, { "relative", "max_distance=4096" }, { "lsh", "n_rounds=1" }, { "lsh", "n_rounds=4" },
    { "linear", "feature_map=elu1" }, { "linear", "feature_map=dpfp nu=1" }, { "performer", "nb_features=64" }, { "performer", "nb_features=256" },
    { "performer_generalized", "nb_features=64" }, { "fwp", "update_rule=sum feature_map=elu1" }, { "fwp", "feature_map=elu1" },
    { "fwp", "feature_map=dpfp nu=1" }, { "retention", "" }, { "gla", "" }, { "gated_deltanet", "" }, { "mamba2", "" }, { "lstm", "" },
    { "conv", "" }, { "identity", "" } };

/* Milliseconds, their ratio to softmax, and how much of its multiply-adds the plan counts (of the pairs that it visits,
 * where it is softmax over a set). */
static void row(const char *dir, const char *name, const char *set, int T, double *base)
{
    char options[80], title[120];
    snprintf(options, sizeof options, set, T > 2048 ? 64 : 32);
    snprintf(title, sizeof title, "%s %s", name, options);
    problem p = begin(dir, name, options, T, ATTN_CAUSAL, 0, 0);
    double forward = shortest(&p, 0), both = shortest(&p, 1), work = nn_mixer_plan(p.mixer)->flops_fwd;
    if (!base[0])
        base[0] = forward, base[1] = both, base[2] = work;
    printf("%-42s %6d %10.2f %10.2f %9.3f %9.3f %9.3f\n", title, T, forward * 1e3, both * 1e3, forward / base[0], both / base[1], work / base[2]);
    fflush(stdout);
    end(&p);
}

static void table(const char *dir)
{
    printf("%-42s %6s %10s %10s %9s %9s %9s\n", "variant", "T", "fwd ms", "f+b ms", "fwd/soft", "f+b/soft", "work/soft");
    for (int T = 1024; T <= 4096; T *= 4) {
        double base[3] = { 0 };
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
            row(dir, CASES[i].name, CASES[i].set, T, base);
    }
}

/* ---- the server -------------------------------------------------------------------------------------------- */

/* Until the input ends. */
static void serve(problem *p)
{
    static const int INPUTS[] = { Q, K, V, D_O }, RESULTS[] = { O, DQ, DK, DV };
    for (int i = 0; i < 4; i++)
        if (fread(p->x[INPUTS[i]], sizeof(float), p->n, stdin) != p->n)
            die("input", "too short");
    for (int what; (what = getchar()) != EOF; fflush(stdout)) {
        double seconds = what == 'r' ? 0 : run(p, what == 'b');
        if (what != 'r')
            fwrite(&seconds, sizeof seconds, 1, stdout);
        for (int i = 0; what == 'r' && i < 4; i++)
            fwrite(p->x[RESULTS[i]], sizeof(float), p->n, stdout);
    }
}

int main(int argc, char **argv)
{
    char dir[4096];
    k_blas_init(argv);
    const char *b = getenv("B");
    snprintf(dir, sizeof dir, "%s", b ? b : "build");
    if (argc < 3) {
        table(dir);
        return 0;
    }
    problem p = begin(dir, "softmax", "", atoi(argv[1]), strcmp(argv[2], "causal") ? ATTN_BIDIR : ATTN_CAUSAL, 1, argc > 3 ? atoi(argv[3]) : 0);
    serve(&p);
    end(&p);
    return 0;
}
