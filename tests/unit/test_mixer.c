/* test_mixer.c - choosing, doubting plans, conversion, strides, output norm, decoding. */
#include "harness/nn/mixer.h"
#include "nn_toy.h"
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include "device.h"

static const toy_opts fine = { FINE };

/* A causal training spec over the toy: B 2, Hq 4, Hk 2, Tq 3, Tk 5, Dk 3, Dv 4. */
static nn_mixer_spec spec_of(int dtype, const char *impl)
{
    return (nn_mixer_spec){ .variant = &toy, .opts = &fine, .impl = impl, .common = { NN_OUTPUT_NORM_NONE, 1e-5 },
                            .shape = { 2, 4, 2, 3, 5, 3, 4, ATTN_CAUSAL, dtype, 1, 1 } };
}

/* nn_mixer_new for its result alone. */
static int code_of(const nn_mixer_spec *spec, int64_t capacity)
{
    nn_mixer *m;
    strcpy(why, "");
    int rc = nn_mixer_new(dev, spec, capacity, &m, why, sizeof why);
    assert_true((rc == ATTN_OK) == (m != NULL));
    assert_true((rc == ATTN_OK) == (why[0] == '\0'));
    nn_mixer_free(m);
    return rc;
}

/* The name of the implementation that serves spec. */
static const char *chosen(const nn_mixer_spec *spec, int64_t capacity)
{
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, spec, capacity, &m, why, sizeof why), ATTN_OK);
    const char *name = nn_mixer_impl(m)->name;
    nn_mixer_free(m);
    return name;
}

static void shapes_are_checked(void **state)
{
    (void)state;
    nn_mixer_spec good = spec_of(ATTN_F64, NULL);
    int32_t *const sizes[] = { &good.shape.B, &good.shape.Hq, &good.shape.Hk, &good.shape.Tq, &good.shape.Tk, &good.shape.Dk, &good.shape.Dv };
    assert_int_equal(code_of(&good, 0), ATTN_OK);
    for (size_t i = 0; i < 7; i++) {
        int32_t was = *sizes[i];
        *sizes[i] = i % 2 ? 0 : -1;
        assert_int_equal(code_of(&good, 0), ATTN_EINVAL);
        *sizes[i] = was;
    }
    nn_mixer_spec s = good;
    s.shape.Hk = 3;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    assert_non_null(strstr(why, "Hq = 4 is not a multiple of Hk = 3"));
    s = good;
    s.shape.mode = ATTN_CAUSAL | ATTN_CROSS;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    s.shape.mode = ATTN_BIDIR;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    assert_non_null(strstr(why, "Tq = Tk"));
    s = good;
    s.shape.dtype = ATTN_F16;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    s = good;
    s.shape.B = s.shape.Hq = s.shape.Tq = 1 << 20;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    assert_non_null(strstr(why, "too large"));
    s = good;
    s.common.output_norm = 2;
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    s.common = (nn_common_opts){ NN_OUTPUT_NORM_RMS, 0 };
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    assert_int_equal(code_of(&good, -1), ATTN_EINVAL);
    assert_int_equal(code_of(&good, 8), ATTN_EINVAL);       /* decoding does not train */
}

static void the_best_fit_is_chosen(void **state)
{
    (void)state;
    const toy_opts fast_refuses = { FAST_REFUSES }, refuse = { ALL_REFUSE }, silent = { SILENT_REFUSAL };
    nn_mixer_spec s = spec_of(ATTN_F32, NULL);
    assert_string_equal(chosen(&s, 0), "fast");
    s.shape.dtype = ATTN_F64;
    assert_string_equal(chosen(&s, 0), "ref");
    s.shape.dtype = ATTN_F32;
    s.shape.mode = ATTN_CROSS;
    assert_string_equal(chosen(&s, 0), "ref");              /* through conversion */
    s = spec_of(ATTN_F32, NULL);
    s.opts = &fast_refuses;
    assert_string_equal(chosen(&s, 0), "ref");
    assert_int_equal(code_of(&s, 0), ATTN_OK);              /* and the refusal before leaves no message */
    s.opts = &refuse;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    assert_string_equal(why, "toy in f64 does not like you");
    s.opts = &silent;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    assert_string_equal(why, "refused without a reason");
    s = spec_of(ATTN_F64, "fast");
    assert_string_equal(chosen(&s, 0), "fast");             /* named: served through conversion */
    s = spec_of(ATTN_F32, "fast");
    s.opts = &fast_refuses;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);          /* named: no other is tried */
    assert_string_equal(why, "toy in f32 does not like you");
    s = spec_of(ATTN_F32, "fats");
    assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
    assert_string_equal(why, "toy has no implementation \"fats\" (it has ref, fast)");
    s = spec_of(ATTN_F32, "fast");
    s.shape.mode = ATTN_CROSS;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
}

static void what_is_missing_is_refused(void **state)
{
    (void)state;
    attn_impl one[] = { toy_impls[0], { NULL } };
    attn_variant v = toy;
    v.impls = one;
    nn_mixer_spec s = spec_of(ATTN_F32, NULL);
    s.variant = &v;
    one[0].backward = NULL;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    s.impl = "ref";
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    assert_string_equal(why, "toy/ref has no backward and cannot train");
    s.shape.training = 0;
    assert_int_equal(code_of(&s, 0), ATTN_OK);
    one[0].decode = NULL;
    assert_int_equal(code_of(&s, 8), ATTN_EUNSUP);
    one[0] = toy_impls[0];
    one[0].device = ATTN_CUDA;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    one[0].device = ATTN_CPU;
    one[0].dtypes = ATTN_BF16;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    one[0] = toy_impls[1];
    s.shape.dtype = ATTN_F64;                               /* float serves double only when it is named */
    s.impl = NULL;
    assert_int_equal(code_of(&s, 0), ATTN_EUNSUP);
    s.impl = "fast";
    assert_int_equal(code_of(&s, 0), ATTN_OK);
    attn_impl two[] = { toy_impls[0], toy_impls[1], { NULL } };
    v.impls = two;
    two[0].rank = 50;                                       /* rank comes after dtype */
    s.impl = NULL;
    s.shape.dtype = ATTN_F32;
    assert_string_equal(chosen(&s, 0), "fast");
    v.impls = one;
    s.impl = "ref";
    one[0] = toy_impls[0];
    const toy_opts stateless = { NO_DECODE_STATE };
    s.opts = &stateless;
    assert_int_equal(code_of(&s, 8), ATTN_EUNSUP);
}

static void bad_plans_are_caught(void **state)
{
    (void)state;
    for (int trouble = PLAN_FAILS; trouble <= STATE_UNKNOWN; trouble++) {
        const toy_opts opts = { trouble };
        nn_mixer_spec s = spec_of(ATTN_F64, NULL);
        s.opts = &opts;
        assert_int_equal(code_of(&s, 0), ATTN_EINVAL);
        assert_non_null(strstr(why, "toy/ref: plan()"));
    }
    for (int trouble = SAVED_HUGE; trouble <= SCRATCH_HUGE; trouble++) {
        const toy_opts opts = { trouble };
        nn_mixer_spec s = spec_of(ATTN_F64, NULL);
        s.opts = &opts;
        assert_int_equal(code_of(&s, 0), NN_ENOMEM);
        assert_non_null(strstr(why, trouble == SAVED_ENDLESS ? "18446744073709551615" : "1000000000000000"));
    }
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------ */

enum { MAX = 4096 };
typedef struct rig {                    /* a problem with all its tensors in one dtype and one layout */
    nn_mixer_spec spec;
    nn_mixer *mixer;
    nn_mixer_io io;
    char room[24][MAX * 8];             /* the tensors' memory */
    int32_t klen[2];
} rig;

enum { BHTD, BTHD, GAPS };              /* layouts; GAPS: dense in no order */

static double noise(int tensor, int64_t i) { return sin(1.0 + 3.7 * tensor + 0.61 * (double)i + 0.013 * (double)(i * i % 101)); }

static double get(const rig *r, const void *p, int64_t i)
{
    return r->spec.shape.dtype == ATTN_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static void put(const rig *r, void *p, int64_t i, double x)
{
    if (r->spec.shape.dtype == ATTN_F64)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}

static attn_tensor layout(void *p, int H, int T, int D, int how)
{
    if (how != GAPS)
        return nn_tensor_of(p, H, T, D, how == BHTD);
    return (attn_tensor){ p, (int64_t)H * (T + 1) * (D + 2), (int64_t)(T + 1) * (D + 2), D + 2 };
}

/* Element n of a tensor in the order [B,H,T,D], whatever its layout. */
static int64_t offset(attn_tensor t, int H, int T, int D, int64_t n)
{
    return n / (H * T * D) * t.sb + n / (T * D) % H * t.sh + n / D % T * t.st + n % D;
}

static void fill(const rig *r, int id, attn_tensor t, int H, int T, int D)
{
    for (int64_t n = 0; n < (int64_t)r->spec.shape.B * H * T * D; n++)
        put(r, t.p, offset(t, H, T, D, n), noise(id, n));
}

/* tokens 0: a training problem; else Tq = Tk = tokens, no training, klen or states, decoding up to capacity. */
static void rig_init(rig *r, int dtype, const char *impl, int how, int norm, int tokens)
{
    memset(r, 0xff, sizeof *r);
    r->spec = spec_of(dtype, impl);
    if (norm)
        r->spec.common = (nn_common_opts){ NN_OUTPUT_NORM_RMS, 1e-3 };
    if (tokens) {
        r->spec.shape.Tq = r->spec.shape.Tk = tokens;
        r->spec.shape.training = 0;
    }
    const attn_shape *s = &r->spec.shape;
    int Tk = s->Tk;
    assert_int_equal(nn_mixer_new(dev, &r->spec, 0, &r->mixer, why, sizeof why), ATTN_OK);
    r->klen[0] = 4;
    r->klen[1] = 5;
    r->io = (nn_mixer_io){ .klen = tokens ? NULL : r->klen };
    nn_mixer_io *io = &r->io;
    io->q = layout(r->room[0], s->Hq, s->Tq, s->Dk, how);
    io->k = layout(r->room[1], s->Hk, Tk, s->Dk, how);
    io->v = layout(r->room[2], s->Hk, Tk, s->Dv, how);
    io->gate[0] = layout(r->room[3], s->Hk, Tk, 1, how);
    io->o = layout(r->room[4], s->Hq, s->Tq, s->Dv, how);
    io->d_o = layout(r->room[5], s->Hq, s->Tq, s->Dv, how);
    io->dq = layout(r->room[6], s->Hq, s->Tq, s->Dk, how);
    io->dk = layout(r->room[7], s->Hk, Tk, s->Dk, how);
    io->dv = layout(r->room[8], s->Hk, Tk, s->Dv, how);
    io->dgate[0] = layout(r->room[9], s->Hk, Tk, 1, how);
    fill(r, 0, io->q, s->Hq, s->Tq, s->Dk);
    fill(r, 1, io->k, s->Hk, Tk, s->Dk);
    fill(r, 2, io->v, s->Hk, Tk, s->Dv);
    fill(r, 3, io->gate[0], s->Hk, Tk, 1);
    fill(r, 5, io->d_o, s->Hq, s->Tq, s->Dv);
    io->param[0] = r->room[10];
    io->param[1] = r->room[11];
    io->dparam[0] = r->room[12];
    io->dparam[1] = r->room[16];        /* of the frozen param: nobody may write it */
    io->state_in[0] = tokens ? NULL : r->room[13];
    io->state_out[0] = r->room[14];
    io->dstate_in[0] = r->room[15];
    for (int i = 0; i < s->Dk; i++) {
        put(r, r->room[10], i, 1 + 0.2 * noise(10, i));
        put(r, r->room[11], i, 1 + 0.2 * noise(11, i));
        put(r, r->room[12], i, 5);      /* what is there is added to */
    }
    for (int64_t i = 0; i < (int64_t)s->B * s->Hk * s->Dk * s->Dv; i++)
        put(r, r->room[13], i, noise(13, i));
}

static rig *rig_new(int dtype, const char *impl, int how, int norm)
{
    rig *r = malloc(sizeof *r);
    assert_non_null(r);
    rig_init(r, dtype, impl, how, norm, 0);
    return r;
}

static void rig_free(rig *r)
{
    nn_mixer_free(r->mixer);
    free(r);
}

/* Everything that a forward and a backward give, in the order [B,H,T,D], one after another. */
static int results(const rig *r, double *out)
{
    const attn_shape *s = &r->spec.shape;
    const nn_mixer_io *io = &r->io;
    const struct { attn_tensor t; int H, T, D; } of[] = { { io->o, s->Hq, s->Tq, s->Dv }, { io->dq, s->Hq, s->Tq, s->Dk },
        { io->dk, s->Hk, s->Tk, s->Dk }, { io->dv, s->Hk, s->Tk, s->Dv }, { io->dgate[0], s->Hk, s->Tk, 1 } };
    int n = 0;
    for (int i = 0; i < 5; i++)
        for (int64_t e = 0; e < (int64_t)s->B * of[i].H * of[i].T * of[i].D; e++)
            out[n++] = get(r, of[i].t.p, offset(of[i].t, of[i].H, of[i].T, of[i].D, e));
    for (int i = 0; i < s->Dk; i++)
        out[n++] = get(r, io->dparam[0], i);
    for (int64_t e = 0; e < (int64_t)s->B * s->Hk * s->Dk * s->Dv; e++) {
        out[n++] = get(r, io->state_out[0], e);
        out[n++] = get(r, io->dstate_in[0], e);
    }
    return n;
}

static void run(rig *r)
{
    assert_int_equal(nn_mixer_forward(r->mixer, &r->io), ATTN_OK);
    assert_int_equal(nn_mixer_backward(r->mixer, &r->io), ATTN_OK);
}

/* Every dtype, implementation, layout and norm gives the numbers of double, heads first. */
static void conversion_and_layouts_agree(void **state)
{
    static double want[MAX], have[MAX];
    (void)state;
    for (int norm = 0; norm < 2; norm++) {
        rig *plain = rig_new(ATTN_F64, "ref", BHTD, norm);
        run(plain);
        int n = results(plain, want);
        for (int how = BHTD; how <= GAPS; how++)
            for (int kind = 0; kind < 4; kind++) {
                int dtype = kind & 1 ? ATTN_F32 : ATTN_F64;
                rig *r = rig_new(dtype, kind & 2 ? "fast" : "ref", how, norm);
                run(r);
                assert_int_equal(results(r, have), n);
                for (size_t byte = 0; byte < sizeof r->room[16]; byte++)
                    assert_int_equal((unsigned char)r->room[16][byte], 0xff);
                for (int i = 0; i < n; i++)
                    assert_true(fabs(have[i] - want[i]) <= (kind == 0 ? 1e-13 : 2e-5) * (1 + fabs(want[i])));
                rig_free(r);
            }
        rig_free(plain);
    }
}

/* sum of o d_o after a forward. */
static double objective(rig *r)
{
    const attn_shape *s = &r->spec.shape;
    double sum = 0;
    assert_int_equal(nn_mixer_forward(r->mixer, &r->io), ATTN_OK);
    for (int64_t e = 0; e < (int64_t)s->B * s->Hq * s->Tq * s->Dv; e++)
        sum += get(r, r->io.o.p, e) * get(r, r->io.d_o.p, e);
    return sum;
}

/* The gradient at dx against central differences in x, n numbers of double; base: what dx held before. */
static void difference(rig *r, double *x, const double *dx, int64_t n, double base)
{
    for (int64_t i = 0; i < n; i++) {
        double was = x[i], h = 1e-5;
        x[i] = was + h;
        double up = objective(r);
        x[i] = was - h;
        double slope = (up - objective(r)) / (2 * h);
        x[i] = was;
        assert_true(fabs(slope - (dx[i] - base)) <= 1e-6 * (1 + fabs(slope)));
    }
}

static void output_norm_is_its_formula(void **state)
{
    (void)state;
    rig *raw = rig_new(ATTN_F64, NULL, BHTD, 0), *r = rig_new(ATTN_F64, NULL, BHTD, 1);
    const attn_shape *s = &r->spec.shape;
    int64_t rows = (int64_t)s->B * s->Hq * s->Tq;
    run(raw);
    run(r);
    for (int64_t i = 0; i < rows; i++) {
        const double *x = (double *)raw->io.o.p + i * s->Dv, *y = (double *)r->io.o.p + i * s->Dv;
        double mean = 0;
        for (int e = 0; e < s->Dv; e++)
            mean += x[e] * x[e] / s->Dv;
        for (int e = 0; e < s->Dv; e++)
            assert_true(fabs(y[e] - x[e] / sqrt(mean + 1e-3)) < 1e-13);
    }
    difference(r, r->io.q.p, r->io.dq.p, rows * s->Dk, 0);
    difference(r, r->io.k.p, r->io.dk.p, (int64_t)s->B * s->Hk * s->Tk * s->Dk, 0);
    difference(r, r->io.v.p, r->io.dv.p, (int64_t)s->B * s->Hk * s->Tk * s->Dv, 0);
    difference(r, r->io.gate[0].p, r->io.dgate[0].p, (int64_t)s->B * s->Hk * s->Tk, 0);
    difference(r, (double *)r->io.param[0], r->io.dparam[0], s->Dk, 5);
    difference(r, (double *)r->io.state_in[0], r->io.dstate_in[0], (int64_t)s->B * s->Hk * s->Dk * s->Dv, 0);
    rig_free(raw);
    rig_free(r);
}

/* A gradient that is not wanted changes nothing in the others, in every dtype. */
static void unwanted_gradients_are_left_out(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        int dtype = kind & 1 ? ATTN_F32 : ATTN_F64;
        rig *all = rig_new(dtype, kind & 2 ? "fast" : "ref", BTHD, kind & 1), *some = rig_new(dtype, kind & 2 ? "fast" : "ref", BTHD, kind & 1);
        some->io.dv.p = some->io.dgate[0].p = NULL;
        some->io.dparam[0] = some->io.dstate_in[0] = some->io.state_out[0] = NULL;
        run(all);
        run(some);
        assert_memory_equal(all->room[6], some->room[6], sizeof all->room[6]);
        assert_memory_equal(all->room[7], some->room[7], sizeof all->room[7]);
        for (int i = 8; i < 10; i++)
            for (size_t byte = 0; byte < sizeof some->room[i]; byte++)
                assert_int_equal((unsigned char)some->room[i][byte], 0xff);
        rig_free(all);
        rig_free(some);
    }
}

/* Rows t.. of a tensor. */
static attn_tensor rows_from(const rig *r, attn_tensor x, int t)
{
    x.p = (char *)x.p + t * x.st * (r->spec.shape.dtype == ATTN_F64 ? 8 : 4);
    return x;
}

/* One forward over six tokens, then the same by three and three, into o2: the same bits of a double reference, rounding
 * otherwise; and once more after a reset. */
static void decode_as(int dtype, const char *impl, int how, int norm)
{
    static char o2[MAX * 8];
    nn_mixer *m;
    rig *r = malloc(sizeof *r);
    assert_non_null(r);
    rig_init(r, dtype, impl, how, norm, 6);
    r->spec.shape.Tq = 3;
    assert_int_equal(nn_mixer_new(dev, &r->spec, 6, &m, why, sizeof why), ATTN_OK);
    assert_int_equal(nn_mixer_forward(r->mixer, &r->io), ATTN_OK);
    for (int turn = 0; turn < 2; turn++) {
        memset(o2, 0xff, sizeof o2);
        nn_mixer_decode_reset(m);
        for (int t = 0; t < 6; t += 3) {
            nn_mixer_io io = r->io;
            attn_tensor o = r->io.o;
            o.p = o2;
            io.q = rows_from(r, io.q, t);
            io.k = rows_from(r, io.k, t);
            io.v = rows_from(r, io.v, t);
            io.gate[0] = rows_from(r, io.gate[0], t);
            io.o = rows_from(r, o, t);
            io.pos = t;
            assert_int_equal(nn_mixer_decode(m, &io), ATTN_OK);
            io.pos = 4;
            assert_int_equal(nn_mixer_decode(m, &io), ATTN_EINVAL);     /* 4 + 3 tokens in 6 */
        }
        for (int64_t i = 0; i < 2 * 4 * 6 * 4; i++) {
            int64_t at = offset(r->io.o, 4, 6, 4, i);
            double want = get(r, r->io.o.p, at), have = get(r, o2, at);
            assert_true(fabs(want - have) <= (dtype == ATTN_F64 && impl[0] == 'r' ? 1e-13 : 2e-5) * (1 + fabs(want)));
        }
    }
    nn_mixer_free(m);
    rig_free(r);
}

static void decoding_equals_forward(void **state)
{
    (void)state;
    for (int how = BHTD; how <= GAPS; how++)
        for (int kind = 0; kind < 8; kind++)
            decode_as(kind & 1 ? ATTN_F32 : ATTN_F64, kind & 2 ? "fast" : "ref", how, kind & 4);
}

static void incomplete_calls_are_refused(void **state)
{
    (void)state;
    rig *r = rig_new(ATTN_F64, NULL, BHTD, 0);
    nn_mixer_io whole = r->io;
    for (int i = 0; i < 6; i++) {
        r->io = whole;
        void *missing[] = { &r->io.q.p, &r->io.k.p, &r->io.v.p, &r->io.o.p, &r->io.gate[0].p, &r->io.param[1] };
        memset(missing[i], 0, sizeof(void *));
        assert_int_equal(nn_mixer_forward(r->mixer, &r->io), ATTN_EINVAL);
    }
    r->io = whole;
    assert_int_equal(nn_mixer_decode(r->mixer, &r->io), ATTN_EINVAL);
    r->io.d_o.p = NULL;
    assert_int_equal(nn_mixer_backward(r->mixer, &r->io), ATTN_EINVAL);
    rig_free(r);
    nn_mixer_spec s = spec_of(ATTN_F64, NULL);
    s.shape.training = s.shape.klen = 0;
    nn_mixer *m;
    assert_int_equal(nn_mixer_new(dev, &s, 0, &m, why, sizeof why), ATTN_OK);
    assert_int_equal(nn_mixer_backward(m, &whole), ATTN_EINVAL);
    assert_int_equal(nn_mixer_forward(m, &whole), ATTN_EINVAL);         /* klen was not announced */
    nn_mixer_free(m);
}

static void calls_allocate_nothing(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        rig *r = rig_new(ATTN_F32, kind ? "ref" : "fast", GAPS, 1);
        k_memory before, after;
        run(r);
        k_memory_read(dev, &before);
        struct mallinfo2 heap = mallinfo2();
        run(r);
        struct mallinfo2 then = mallinfo2();
        k_memory_read(dev, &after);
        assert_int_equal(heap.uordblks, then.uordblks);
        assert_int_equal(before.now, after.now);
        assert_int_equal(before.peak, after.peak);
        assert_true(before.now_tag[K_TAG_SAVED] > 0);
        rig_free(r);
    }
}

static attn_call seen;

static int note_forward(const attn_call *c)
{
    seen = *c;
    return toy64_forward(c);
}

static int note_backward(const attn_call *c)
{
    seen = *c;
    return toy64_backward(c);
}

/* Everything that attn.h promises a variant besides the tensors. */
static void the_call_is_complete(void **state)
{
    (void)state;
    k_dev *three;
    attn_impl impls[] = { toy_impls[0], { NULL } };
    attn_variant v = toy;
    impls[0].forward = note_forward;
    impls[0].backward = note_backward;
    v.impls = impls;
    rig *r = rig_new(ATTN_F64, NULL, BHTD, 0);
    nn_mixer_spec s = r->spec;
    nn_mixer *m;
    s.variant = &v;
    assert_int_equal(k_dev_open("cpu", 3, &three, why, sizeof why), 0);
    assert_int_equal(nn_mixer_new(three, &s, 0, &m, why, sizeof why), ATTN_OK);
    r->io.seed = 42;
    assert_int_equal(nn_mixer_forward(m, &r->io), ATTN_OK);
    assert_int_equal(seen.size, sizeof seen);
    assert_int_equal(seen.nthreads, 3);
    assert_int_equal(seen.seed, 42);
    assert_null(seen.stream);
    assert_ptr_equal(seen.opts, &fine);
    assert_ptr_equal(seen.plan, nn_mixer_plan(m));
    assert_ptr_equal(seen.klen, r->klen);
    assert_memory_equal(seen.s, nn_mixer_shape(m), sizeof *seen.s);
    assert_ptr_equal(seen.q.p, r->io.q.p);                  /* one dtype: no copies */
    assert_ptr_equal(seen.o.p, r->io.o.p);
    assert_true(seen.saved && (uintptr_t)seen.saved % 256 == 0 && seen.scratch && (uintptr_t)seen.scratch % 256 == 0);
    assert_int_equal(nn_mixer_backward(m, &r->io), ATTN_OK);
    assert_ptr_equal(seen.dparam[0], r->io.dparam[0]);
    assert_null(seen.dparam[1]);                            /* frozen, whatever the caller says */
    assert_ptr_equal(seen.d_o.p, r->io.d_o.p);
    nn_mixer_free(m);
    k_dev_close(three);
    rig_free(r);
}

static void asking_takes_no_memory(void **state)
{
    (void)state;
    attn_plan plan;
    nn_mixer_spec s = spec_of(ATTN_F64, NULL);
    k_memory m;
    assert_int_equal(nn_mixer_ask(dev, &s, 0, &plan, why, sizeof why), ATTN_OK);
    assert_int_equal(plan.gate_width[0], 1);
    k_memory_read(dev, &m);
    assert_int_equal(m.peak, 0);
    s.shape.B = 0;
    assert_int_equal(nn_mixer_ask(dev, &s, 0, &plan, why, sizeof why), ATTN_EINVAL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(shapes_are_checked), T(the_best_fit_is_chosen), T(what_is_missing_is_refused), T(bad_plans_are_caught),
        T(conversion_and_layouts_agree), T(output_norm_is_its_formula), T(unwanted_gradients_are_left_out),
        T(decoding_equals_forward), T(incomplete_calls_are_refused), T(calls_allocate_nothing), T(the_call_is_complete), T(asking_takes_no_memory) };
    return cmocka_run_group_tests_name("mixer", tests, NULL, NULL);
}
