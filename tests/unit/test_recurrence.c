/* test_recurrence.c - the chunks of fading memories against their loops where gates saturate: half of them keep all,
 * half of them forget all, over several chunks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "kernels/philox.h"
#include "kernels/recurrence.h"

enum { B = 2, H = 4, T = 150, D = 7, E = 5 };
enum { Q, K, V, GATE, BETA, D_O, A_LOG, BIAS, SKIP, STATE, INPUTS };
enum { O, DQ, DK, DV, DGATE, DBETA, DA_LOG, DBIAS, DSKIP, DSTATE, FINAL, OUTPUTS };

typedef struct kind {
    const char *name;
    k_decay decay;
    k_write write;
    k_norm norm;
    int Hq, Hk, Hv, Ho, H;              /* of q, k, v, o, memories */
} kind;
static const kind KINDS[] = {
    { "retention", K_DECAY_FIXED, K_WRITE_SUM, K_NORM_NONE, H, 2, 2, H, H },
    { "gla", K_DECAY_CHANNEL, K_WRITE_SUM, K_NORM_NONE, H, 2, 2, H, 2 },
    { "gated_deltanet", K_DECAY_STEP, K_WRITE_DELTA, K_NORM_L2, H, 2, 2, H, 2 },
    { "mamba2", K_DECAY_STEP, K_WRITE_STEPPED, K_NORM_NONE, 2, 2, H, H, H },
};

/* Both runs: the same numbers in double and in float, every tensor dense [B,H,T,width] with room for the largest. */
typedef struct run { double *d_in[INPUTS], *d_out[OUTPUTS]; float *f_in[INPUTS], *f_out[OUTPUTS]; } run;
enum { ROOM = B * H * T * 8 };

/* Inputs are uniform in [-1, 1); gates are +-30 with a little beside. */
static void draw(run *r)
{
    for (int i = 0; i < INPUTS; i++) {
        r->d_in[i] = calloc(ROOM, sizeof(double));
        r->f_in[i] = calloc(ROOM, sizeof(float));
        for (uint64_t e = 0; e < ROOM; e++) {
            double x = 2 * philox_uniform(philox_u32(7, (uint32_t)i, 0, e)) - 1;
            int gate = i == GATE || i == BETA;
            r->f_in[i][e] = (float)(gate ? x + (philox_below(philox_u32(7, (uint32_t)i, 1, e), 2) ? 30 : -30) : x);
            r->d_in[i][e] = r->f_in[i][e];
        }
    }
    for (int i = 0; i < OUTPUTS; i++) {
        r->d_out[i] = calloc(ROOM, sizeof(double));
        r->f_out[i] = calloc(ROOM, sizeof(float));
    }
}

/* Frees them. */
static void release(run *r)
{
    for (int i = 0; i < INPUTS; i++)
        free(r->d_in[i]), free(r->f_in[i]);
    for (int i = 0; i < OUTPUTS; i++)
        free(r->d_out[i]), free(r->f_out[i]);
}

/* A dense tensor of `heads` heads. */
static k_heads dense(void *p, int heads, int width) { return (k_heads){ p, (int64_t)heads * T * width, (int64_t)T * width, width }; }

/* The problem on these arrays, forward and backward. */
static k_recurrence problem(const kind *k, void **in, void **out)
{
    int W = k->decay == K_DECAY_CHANNEL ? D : 1, step = k->decay == K_DECAY_STEP;
    k_recurrence r = { .B = B, .H = k->H, .Hq = k->Hq, .Hk = k->Hk, .Hv = k->Hv, .Ho = k->Ho, .T = T, .D = D, .E = E, .threads = 1,
        .decay = k->decay, .write = k->write, .norm = k->norm, .scale = 0.4, .norm_eps = 1e-6, .decay_exponent = 2,
        .gate_normalizer = 1, .gate_min = -1e30, .step_max = INFINITY, .beta_max = 2,
        .q = dense(in[Q], k->Hq, D), .k = dense(in[K], k->Hk, D), .v = dense(in[V], k->Hv, E), .d_o = dense(in[D_O], k->Ho, E),
        .o = dense(out[O], k->Ho, E), .dq = dense(out[DQ], k->Hq, D), .dk = dense(out[DK], k->Hk, D), .dv = dense(out[DV], k->Hv, E),
        .state_in = in[STATE], .state_out = out[FINAL], .dstate = out[DSTATE] };
    if (k->decay != K_DECAY_FIXED)
        r.gate = dense(in[GATE], k->H, W), r.dgate = dense(out[DGATE], k->H, W);
    if (k->write == K_WRITE_DELTA)
        r.beta = dense(in[BETA], k->H, 1), r.dbeta = dense(out[DBETA], k->H, 1);
    if (step)
        r.a_log = in[A_LOG], r.dt_bias = in[BIAS], r.da_log = out[DA_LOG], r.ddt_bias = out[DBIAS];
    if (k->write == K_WRITE_STEPPED)
        r.d_skip = in[SKIP], r.dd_skip = out[DSKIP];
    return r;
}

/* Every output of every kind, to what float can do: 1e-5 of its root mean square, below 1e-2 of 1e-2. */
static void chunks_equal_loops_where_gates_saturate(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof KINDS / sizeof *KINDS; n++) {
        run a;
        draw(&a);
        k_recurrence d = problem(&KINDS[n], (void **)a.d_in, (void **)a.d_out), f = problem(&KINDS[n], (void **)a.f_in, (void **)a.f_out);
        d.scratch = calloc(k_drecurrence_scratch(&d, 1), sizeof(double));
        f.scratch = calloc(k_srecurrence_scratch(&f), sizeof(float));
        f.saved = calloc(k_srecurrence_saved(&f), sizeof(float));
        k_drecurrence_forward(&d);
        k_drecurrence_backward(&d);
        k_srecurrence_forward(&f);
        k_srecurrence_backward(&f);
        for (int i = 0; i < OUTPUTS; i++) {
            double error = 0, size = 0;
            for (int e = 0; e < ROOM; e++) {
                error += pow(a.f_out[i][e] - a.d_out[i][e], 2);
                size += pow(a.d_out[i][e], 2);
            }
            if (!(error <= 1e-10 * fmax(size, 1e-4 * T)))
                fail_msg("%s: output %d is %g off of %g", KINDS[n].name, i, sqrt(error), sqrt(size));
        }
        free(d.scratch), free(f.scratch), free(f.saved);
        release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(chunks_equal_loops_where_gates_saturate) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
