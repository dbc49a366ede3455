/* test_carry.c - graphs that go on from segment to segment: what they say of a text is what one long context says of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "built_variants.h"

enum { V = 13, B = 3, T = 24, LARGEST = 1 << 17 };

/* A decoder in two graphs over one set of parameters: of T tokens, and of n at a time, which go on. */
typedef struct pair {
    nn_params *params;
    nn_transformer t;
    nn_graph *whole, *parts;
    nn_mixer_spec mixer;
    char variant_opts[1024];
    nn_id in[2], out[2], target;        /* of the whole, of the parts */
    k_dtype dtype;
    int n;
} pair;

typedef struct wanted { const char *name, *option, *value; int layers, n, memory, training; k_dtype dtype; int short_conv; } wanted;

static const attn_variant *variant(const char *name)
{
    const attn_variant *v = NULL;
    for (int i = 0; i < nfiles && !v; i++)
        v = hs_plugin_variant(&file[i], name);
    assert_non_null(v);
    return v;
}

/* Records the model over n tokens of B sequences: logits that stay, or a loss. */
static nn_id record(pair *p, nn_graph *g, int i, int n, int training)
{
    p->in[i] = nn_input(g, K_I32, (attn_dims){ 2, { B, n } });
    nn_id h = nn_transformer_body(&p->t, g, p->in[i], ATTN_CAUSAL);
    if (training) {
        p->target = nn_input(g, K_I32, (attn_dims){ 1, { B * n } });
        nn_id loss = nn_transformer_loss(&p->t, g, h, p->target, 0);
        nn_graph_set_loss(g, loss);
        return loss;
    }
    nn_id y = nn_transformer_logits(&p->t, g, h);
    nn_keep(g, y);
    return y;
}

/* 0, or what is wrong with the model, in why.  Its parts go on by a memory, if one is wanted, else by states. */
static int start(pair *p, const wanted *w)
{
    nn_model_opts o;
    const attn_variant *v = variant(w->name);
    *p = (pair){ .dtype = w->dtype, .n = w->n, .mixer = { .variant = v, .opts = p->variant_opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } } };
    hs_opts_defaults(nn_model_table, &o);
    o.layers = w->layers, o.d_model = 16, o.heads = 2, o.init = 0.3, o.positions = NN_POSITIONS_NONE, o.short_conv = w->short_conv;
    assert_true(v->opts_size <= sizeof p->variant_opts);
    hs_opts_defaults(v->opts, p->variant_opts);
    assert_true(!w->option || hs_opt_set_text(hs_opts_find(v->opts, w->option), p->variant_opts, w->value, why, sizeof why) == 0);
    p->params = nn_params_new(dev, w->dtype, 5);
    assert_int_equal(nn_transformer_init(&p->t, p->params, &o, &p->mixer, 1, V, T, why, sizeof why), 0);
    p->whole = nn_graph_new(p->params, 0);
    p->parts = nn_graph_new(p->params, w->training);
    p->out[0] = record(p, p->whole, 0, T, 0);
    p->t.memory = w->memory;
    if (!w->memory)
        nn_graph_carry(p->parts);
    p->out[1] = record(p, p->parts, 1, w->n, w->training);
    int rc = nn_params_alloc(p->params, why, sizeof why);
    rc = rc ? rc : nn_graph_compile(p->whole, why, sizeof why);
    return rc ? rc : nn_graph_compile(p->parts, why, sizeof why);
}

static void finish(pair *p)
{
    nn_graph_free(p->whole);
    nn_graph_free(p->parts);
    nn_params_free(p->params);
}

static int32_t token(int b, int t) { return (int32_t)((7 * b + 3 * t + t * t / 5) % V); }

/* Tokens from `at` on into a graph of n at a time. */
static void fill(nn_graph *g, nn_id in, int at, int n)
{
    for (int i = 0; i < B * n; i++)
        ((int32_t *)nn_data(g, in))[i] = token(i / n, at + i % n);
}

static double logit(pair *p, int i, int b, int t, int v)
{
    const void *y = nn_data(i ? p->parts : p->whole, p->out[i]);
    int64_t at = ((int64_t)b * (i ? p->n : T) + t) * V + v;
    return p->dtype == K_F64 ? ((const double *)y)[at] : ((const float *)y)[at];
}

/* The segment at `at`, and by how much it differs from the whole at most. */
static double segment(pair *p, int at)
{
    double most = 0;
    fill(p->parts, p->in[1], at, p->n);
    assert_int_equal(nn_forward(p->parts), 0);
    for (int i = 0; i < B * p->n * V; i++) {
        double got = logit(p, 1, i / (p->n * V), i / V % p->n, i % V), want = logit(p, 0, i / (p->n * V), at + i / V % p->n, i % V);
        most = fmax(most, fabs(got - want) / (1 + fabs(want)));
        assert_true(isfinite(got));
    }
    return most;
}

static void run_whole(pair *p)
{
    fill(p->whole, p->in[0], 0, T);
    assert_int_equal(nn_forward(p->whole), 0);
}

/* The whole text in segments equals the long context, twice, the second time from a reset; without a reset it does not. */
static void hold_against_whole(const wanted *w)
{
    pair p;
    double bound = w->dtype == K_F64 ? 1e-11 : 2e-4;
    if (start(&p, w))
        fail_msg("%s: %s", w->name, why);
    run_whole(&p);
    for (int again = 0; again < 3; again++) {
        if (again == 1)
            nn_carry_reset(p.parts);
        double most = 0;
        for (int at = 0; at < T; at += p.n)
            most = fmax(most, segment(&p, at));
        if (again < 2 ? !(most <= bound) : !(most > 1e-3))
            fail_msg("%s, segments of %d: off by %.3g", w->name, w->n, most);
    }
    finish(&p);
}

/* Every variant that has a state; the others say so. */
static void states_are_one_long_context(void **state)
{
    int carried = 0;
    (void)state;
    for (int i = 0; i < nfiles; i++)
        for (int j = 0; file[i].variants && file[i].variants[j]; j++) {
            const char *name = file[i].variants[j]->name;
            pair p;
            char refusal[100];
            why[0] = 0;
            int rc = start(&p, &(wanted){ name, NULL, NULL, 1, 8, 0, 0, K_F64 });
            finish(&p);
            snprintf(refusal, sizeof refusal, "%s has no state to go on from", name);
            assert_true(rc == 0 || rc == ATTN_EUNSUP);
            if (rc && !strstr(why, "width"))    /* a picture's, which has no state either */
                assert_string_equal(why, refusal);
            carried += rc == 0;
            for (int n = 1; rc == 0 && n <= 8; n += n == 1 ? 5 : 2)
                for (int k = 0; k < 2; k++)
                    hold_against_whole(&(wanted){ name, NULL, NULL, 2, n, 0, 0, k ? K_F32 : K_F64 });
        }
    assert_true(carried >= 6);
    static const char *const rules[] = { "sum", "delta", "gated" };
    for (int i = 0; i < 3; i++)
        hold_against_whole(&(wanted){ "fwp", "update_rule", rules[i], 2, 8, 0, 0, K_F64 });
}

static void set_targets(pair *p, int at)
{
    for (int i = 0; i < B * p->n; i++)
        ((int32_t *)nn_data(p->parts, p->target))[i] = i % 5 == 4 ? -1 : token(i / p->n, at + i % p->n + 1);
}

/* The loss of a segment that begins with what was kept. */
static double loss_from(pair *p, const char *kept)
{
    nn_carry_load(p->parts, kept);
    assert_int_equal(nn_forward(p->parts), 0);
    return nn_loss(p->parts);
}

/* The gradient of the second segment is that of its loss with what is carried held fast. */
static void gradients_end_where_a_segment_begins(void **state)
{
    static const wanted models[] = { { "fwp", "update_rule", "delta", 2, 8, 0, 1, K_F64 }, { "gla", NULL, NULL, 2, 8, 0, 1, K_F64 },
                                     { "softmax", "position", "rope", 2, 8, 5, 1, K_F64 }, { "linear", NULL, NULL, 2, 8, 12, 1, K_F64 } };
    static char kept[LARGEST];
    (void)state;
    for (int m = 0; m < 4; m++) {
        pair p;
        assert_int_equal(start(&p, &models[m]), 0);
        assert_true(nn_carry_bytes(p.parts) > 0 && nn_carry_bytes(p.parts) <= sizeof kept);
        fill(p.parts, p.in[1], 0, p.n);
        set_targets(&p, 0);
        assert_int_equal(nn_forward(p.parts), 0);
        nn_carry_save(p.parts, kept);
        fill(p.parts, p.in[1], p.n, p.n);
        set_targets(&p, p.n);
        nn_params_zero_grad(p.params);
        assert_int_equal(nn_step(p.parts), 0);
        for (int i = 0; i < nn_params_count(p.params); i++) {
            double *x = nn_param_value(p.params, i), *dx = nn_param_grad(p.params, i), was = *x, h = 1e-5;
            *x = was + h;
            double up = loss_from(&p, kept);
            *x = was - h;
            double slope = (up - loss_from(&p, kept)) / (2 * h);
            *x = was;
            if (fabs(slope - *dx) > 1e-7 * (1 + fabs(slope)))
                fail_msg("%s, %s: %.9g by the tape, %.9g by differences", models[m].name, nn_param_name(p.params, i), *dx, slope);
        }
        finish(&p);
    }
}

/* What was saved in the middle of a text and loaded into another graph goes on to the same bits. */
static void what_is_kept_goes_on(void **state)
{
    static const wanted models[] = { { "fwp", "update_rule", "delta", 2, 6, 0, 0, K_F32 }, { "softmax", NULL, NULL, 2, 6, 9, 0, K_F32 } };
    static char kept[LARGEST];
    (void)state;
    for (int m = 0; m < 2; m++) {
        pair p, q;
        double want[B * 6 * V];
        assert_int_equal(start(&p, &models[m]), 0);
        assert_int_equal(start(&q, &models[m]), 0);
        for (int at = 0; at < 18; at += 6) {
            if (at == 12)
                nn_carry_save(p.parts, kept);
            segment(&p, at);
        }
        for (int i = 0; i < B * 6 * V; i++)
            want[i] = logit(&p, 1, i / (6 * V), i / V % 6, i % V);
        segment(&q, 12);
        double other = logit(&q, 1, 0, 0, 0);
        nn_carry_load(q.parts, kept);
        segment(&q, 12);
        for (int i = 0; i < B * 6 * V; i++)
            assert_true(logit(&q, 1, i / (6 * V), i / V % 6, i % V) == want[i]);
        assert_true(other != want[0]);
        finish(&p);
        finish(&q);
    }
}

/* One layer with a memory of M tokens sees in a segment what it sees in the last tokens of a context of M + n = T tokens: keys
 * that are far enough back are gone, others are there however many segments ago they were. */
static void a_memory_is_a_longer_context(void **state)
{
    static const wanted models[] = { { "softmax", NULL, NULL, 1, 8, 16, 0, K_F64 }, { "softmax", "position", "rope", 1, 4, 20, 0, K_F64 },
                                     { "softmax", "position", "alibi", 1, 12, 12, 0, K_F64 }, { "performer", NULL, NULL, 1, 8, 16, 0, K_F32 },
                                     { "linear", NULL, NULL, 1, 6, 18, 0, K_F32 }, { "sliding_window", "window", "7", 1, 8, 16, 0, K_F64 } };
    enum { BEFORE = 24 };               /* other tokens that are forgotten again */
    (void)state;
    for (int m = 0; m < 6; m++) {
        pair p;
        if (start(&p, &models[m]))
            fail_msg("%s: %s", models[m].name, why);
        run_whole(&p);
        for (int at = BEFORE; at < 2 * BEFORE; at += p.n) {
            fill(p.parts, p.in[1], at, p.n);
            assert_int_equal(nn_forward(p.parts), 0);
        }
        for (int at = 0; at < T - p.n; at += p.n)
            segment(&p, at);
        double last = segment(&p, T - p.n);
        if (!(last <= (p.dtype == K_F64 ? 1e-11 : 2e-4)))
            fail_msg("%s, a memory of %d: off by %.3g", models[m].name, models[m].memory, last);
        finish(&p);
    }
}

/* What cannot go on is refused with a sentence. */
static void refusals(void **state)
{
    pair p;
    (void)state;
    assert_int_equal(start(&p, &(wanted){ "lsh", NULL, NULL, 1, 8, 8, 0, K_F64 }), ATTN_EUNSUP);
    assert_string_equal(why, "the keys of lsh are its queries, which a memory does not have");
    finish(&p);
    assert_int_equal(start(&p, &(wanted){ "softmax", NULL, NULL, 1, 8, 8, 0, K_F64, 4 }), ATTN_EUNSUP);
    assert_string_equal(why, "a short convolution sees queries before the segment, which a memory does not have");
    finish(&p);
    assert_int_equal(start(&p, &(wanted){ "fwp", NULL, NULL, 1, 8, 0, 0, K_F64, 4 }), ATTN_EUNSUP);
    assert_non_null(strstr(why, "has no state to go on from"));     /* the convolution */
    finish(&p);
    nn_params *params = nn_params_new(dev, K_F32, 1);
    nn_graph *g = nn_graph_new(params, 0);
    nn_graph_decode(g, 4);
    nn_graph_carry(g);
    assert_int_equal(nn_params_alloc(params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), ATTN_EINVAL);
    assert_string_equal(why, "carry: said of an empty graph that does not decode");
    nn_graph_free(g);
    nn_params_free(params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_are_one_long_context),
        cmocka_unit_test(gradients_end_where_a_segment_begins),
        cmocka_unit_test(what_is_kept_goes_on),
        cmocka_unit_test(a_memory_is_a_longer_context),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests_name("carry", tests, open_files, close_files);
}
