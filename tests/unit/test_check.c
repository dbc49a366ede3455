/* test_check.c - the checker is checked: a variant in this file is right, or wrong in a way of our choice. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "check_case.h"
#include "plan.h"

/* ---- a variant: o_i = scale sum_{j<=i} v_j ------------------------------------------------------------ */
static enum { RIGHT, LEAVES_NAN, PAST_END, BETWEEN_ROWS, CHANGES_INPUT, SAVED_SHORT, FAILS, LEAKS, SIGN, LAYOUT, BATCH, COUNTS,
              ADDS_DV, TOUCHES, DECODE_POS, SAVES_SQUARE, SCRATCHES_SQUARE,
              STATE_SQUARE, STATE_HOLLOW, MAP_OTHER, MAP_FUTURE, MAP_SUMS } how;
static int calls;
typedef struct options { int32_t rule, size; double scale; } options;
static const attn_opt OPTS[] = {
    { "rule", "", offsetof(options, rule), ATTN_CHOICE, 0, 0, 0, "plain,odd,needy", 0 },
    { "size", "", offsetof(options, size), ATTN_INT, 256, 0, 1000, NULL, 0 },
    { "scale", "", offsetof(options, scale), ATTN_FLOAT, 1, 0, 10, NULL, 0 }, { .name = NULL } };

static double *row(const attn_tensor *x, int b, int h, int t) { return (double *)x->p + b * x->sb + h * x->sh + t * x->st; }

static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    const options *o = opts;
    if (s->klen) { strcpy(p->why, "no key lengths"); return ATTN_EUNSUP; }
    if (o->rule == 2 && o->scale == 1) { strcpy(p->why, "needy needs another rule beside it"); return ATTN_EUNSUP; }
    if (s->training && s->Tq != s->Tk) { strcpy(p->why, "Tq must be Tk"); return ATTN_EUNSUP; }
    size_t row = (size_t)s->Tk * sizeof(double), sums = (size_t)(s->B * s->Hq * s->Dv) * sizeof(double);
    p->saved = !s->training ? 0 : how == SAVES_SQUARE ? row * (size_t)s->Tk : 64;
    p->scratch_bwd = how == SCRATCHES_SQUARE ? row * (size_t)s->Tk : 0;
    p->state = how == STATE_SQUARE ? sums + row * (size_t)s->Tk : how == STATE_HOLLOW ? 3 * sums : sums;
    return ATTN_OK;
}

static int forward(const attn_call *c)
{
    const attn_shape *s = c->s;
    double scale = ((const options *)c->opts)->scale;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int i = 0; i < s->Tq; i++) for (int e = 0; e < s->Dv; e++) {
        double sum = 0;
        for (int j = 0; j <= i + (how == LEAKS && i + 1 < s->Tk); j++) sum += row(&c->v, how == BATCH ? 0 : b, h * s->Hk / s->Hq, j)[e];
        row(&c->o, b, h, i)[e] = scale * sum;
    }
    double *last = row(&c->o, s->B - 1, s->Hq - 1, s->Tq - 1);
    if (how == LEAVES_NAN) last[0] = NAN;
    if (how == PAST_END) last[s->Dv] = 1;
    if (how == BETWEEN_ROWS && c->o.st > s->Dv && c->o.sh > c->o.st) row(&c->o, 0, 0, 0)[s->Dv] = 1;
    if (how == CHANGES_INPUT) row(&c->v, 0, 0, 0)[0] = 1;
    if (how == SAVED_SHORT && c->saved) memset(c->saved, 0, 65);
    if (how == LAYOUT && s->Tq > 1) row(&c->o, 0, 0, 1)[0] = ((double *)c->v.p)[s->Dv * s->Hk] * scale;
    if (how == COUNTS) last[0] += calls++;
    return how == FAILS ? ATTN_EINVAL : ATTN_OK;
}

/* dv_j = scale sum_{i>=j} d_o_i, over the query heads of the group; dq = dk = 0. */
static int backward(const attn_call *c)
{
    const attn_shape *s = c->s;
    double scale = ((const options *)c->opts)->scale * (how == SIGN ? -1 : 1);
    for (int b = 0; b < s->B; b++) {
        for (int h = 0; c->dq.p && h < s->Hq; h++) for (int t = 0; t < s->Tq; t++) memset(row(&c->dq, b, h, t), 0, (size_t)s->Dk * sizeof(double));
        for (int h = 0; c->dk.p && h < s->Hk; h++) for (int t = 0; t < s->Tk; t++) memset(row(&c->dk, b, h, t), 0, (size_t)s->Dk * sizeof(double));
        for (int h = 0; c->dv.p && h < s->Hk; h++) for (int j = 0; j < s->Tk; j++) for (int e = 0; e < s->Dv; e++) {
            double sum = how == ADDS_DV ? row(&c->dv, b, h, j)[e] : 0;
            for (int g = h * s->Hq / s->Hk; g < (h + 1) * s->Hq / s->Hk; g++) for (int i = j; i < s->Tq; i++) sum += scale * row(&c->d_o, b, g, i)[e];
            row(&c->dv, b, h, j)[e] = how == TOUCHES && !c->dq.p ? 0 : sum;
        }
    }
    return ATTN_OK;
}

static int decode(const attn_call *c)
{
    const attn_shape *s = c->s;
    double *state = c->state, scale = ((const options *)c->opts)->scale;
    for (int b = 0; b < s->B; b++) for (int h = 0; h < s->Hq; h++) for (int t = 0; t < s->Tq; t++) for (int e = 0; e < s->Dv; e++) {
        double *sum = &state[(b * s->Hq + h) * s->Dv + e];
        *sum = (how == DECODE_POS && c->pos == 2 ? 0 : *sum) + row(&c->v, b, h * s->Hk / s->Hq, t)[e];
        row(&c->o, b, h, t)[e] = scale * *sum;
    }
    return ATTN_OK;
}

/* map_ij = scale for j <= i. */
static int map(const attn_call *c, double *out)
{
    const attn_shape *s = c->s;
    double scale = ((const options *)c->opts)->scale * (how == MAP_OTHER ? 1.001 : 1);
    for (int row = 0; row < s->B * s->Hq * s->Tq; row++) for (int j = 0; j < s->Tk; j++)
        *out++ = j <= row % s->Tq ? scale : how == MAP_FUTURE ? 1e-30 : 0;
    return ATTN_OK;
}

static int sums(const attn_shape *s, const void *opts) { return (void)s, (void)opts, how == MAP_SUMS; }

static const void *ext(const char *id)
{
    static const attn_map MAP = { sizeof MAP, map, sums };
    return strcmp(id, ATTN_MAP_ID) ? NULL : &MAP;
}

static const attn_impl IMPLS[] = { { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, backward, decode }, { .name = NULL } };
static const attn_variant VARIANT = { .size = sizeof VARIANT, .name = "toy", .title = "", .paper = "", .cost = "T Dv",
                                      .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = ext };

/* ---- a case of it ------------------------------------------------------------------------------------------ */
static char failed[4096];               /* names of the checks that failed, each in brackets */
static int verdicts;

static void collect(void *ctx, const hs_check_result *r)
{
    (void)ctx;
    verdicts++;
    if (r->status == HS_CHECK_FAIL) snprintf(failed + strlen(failed), sizeof failed - strlen(failed), "[%s]", r->check);
}

static options defaults = { 0, 256, 1 };
static hs_check_where where;
static hs_case the_case(void)
{
    return (hs_case){ .variant = &VARIANT, .impl = IMPLS, .ref = IMPLS, .mode = ATTN_CAUSAL, .dtype = ATTN_F64, .opts = &defaults,
        .exact = &defaults, .quick = 1, .defaults = 1, .base = { .Hq = 4, .Hk = 2, .Dk = 5, .Dv = 3 }, .options = (char *)"", .size = "", .where = &where, .sink = collect };
}

static hs_rig *rig(const hs_case *c, int layout)
{
    hs_rig *r = hs_rig_new(c, c->impl, ATTN_F64, c->opts, hs_case_shape(c, 3, 5, 5), layout, NULL, 0);
    assert_non_null(r);
    return r;
}

/* Every check of a healthy first run, with the variant as wrong as `mistake` says. */
static void judge(int mistake)
{
    hs_case c = the_case();
    calls = 0, failed[0] = 0, verdicts = 0;
    how = mistake;
    hs_rig *r = rig(&c, HS_BTHD);
    assert_int_equal(hs_rig_run(r), 0);
    hs_check_forward(&c, r);
    hs_check_decode(&c, r);
    hs_check_gradients(&c, r);
    hs_check_differences(&c, r);
    hs_check_growth(&c);
    hs_check_map(&c, r);
    hs_rig_free(r);
}

/* ---- the rig sees what a single run does ----------------------------------------------------------------------- */
static void faulty(int mistake, int layout, const char *part)
{
    hs_case c = the_case();
    how = mistake;
    hs_rig *r = rig(&c, layout);
    assert_int_equal(hs_rig_run(r), -1);
    if (!strstr(r->fault, part)) fail_msg("'%s' should hold '%s'", r->fault, part);
    hs_rig_free(r);
}

static void test_faults(void **state)
{
    (void)state;
    faulty(LEAVES_NAN, HS_BTHD, "NaN");
    faulty(PAST_END, HS_BTHD, "past");
    faulty(BETWEEN_ROWS, HS_PADDED, "between the rows of o");
    faulty(CHANGES_INPUT, HS_BTHD, "changed its input v");
    faulty(SAVED_SHORT, HS_BTHD, "saved");
    faulty(FAILS, HS_BTHD, "returned -2");
    faulty(ADDS_DV, HS_BTHD, "dv");
}

static void test_right(void **state)
{
    (void)state;
    judge(RIGHT);
    assert_string_equal(failed, "");
    assert_true(verdicts > 10);
}

/* ---- comparisons see what two runs tell ------------------------------------------------------------------------- */
static void caught(int mistake, const char *check)
{
    judge(mistake);
    if (!strstr(failed, check)) fail_msg("'%s' should hold '%s'", failed, check);
}

static void test_mistakes(void **state)
{
    (void)state;
    caught(LEAKS, "no leak from the future");
    caught(SIGN, "dv by differences");
    caught(LAYOUT, "layout");
    caught(BATCH, "batch rows");
    caught(COUNTS, "same bits");
    caught(TOUCHES, "not wanted");
    caught(DECODE_POS, "decode one by one");
    caught(SAVES_SQUARE, "saved grows as claimed");
    caught(SCRATCHES_SQUARE, "scratch grows as claimed");
    caught(STATE_SQUARE, "state grows as claimed");
    caught(STATE_HOLLOW, "state bytes are touched");
    caught(MAP_OTHER, "the map times v is the output");
    caught(MAP_FUTURE, "the map hides hidden keys");
    caught(MAP_SUMS, "rows of the map sum to one");
}

static void test_costs(void **state)
{
    (void)state;
    static const struct { const char *text; double degree; } good[] = {
        { "T^2 (Dk + Dv)", 2 }, { "T m Dv", 1 }, { "T (stride + summary_len T / stride) (Dk + Dv)", 2 }, { "T", 1 }, { "T^1.5 D", 1.5 },
        { "T log T D", 1.2 }, { "T*K*Dv^2", 1 }, { "T^2 / T", 1 }, { "m D + T", 1 } };
    static const char *const bad[] = { "", "n^2 d", "linear in T!", "T (m + D", "O(T)^", "m) T" };
    double degree;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(hs_cost_degree(good[i].text, &degree), 0);
        assert_true(fabs(degree - good[i].degree) < 1e-12);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(hs_cost_degree(bad[i], &degree), -1);
}

static void test_growth(void **state)
{
    (void)state;
    hs_case c = the_case();
    hs_growth g;
    char why[200];
    how = SAVES_SQUARE;
    assert_int_equal(hs_growth_measure(&c, &g, why, sizeof why), 0);
    assert_true(fabs(g.saved.slope - 2) < 1e-9 && fabs(g.state.slope) < 1e-9);
    assert_true(g.saved.bytes_1k == 8 << 20 && g.saved.bytes_8k == 512 << 20);
}

static void test_diff(void **state)
{
    (void)state;
    double x[4] = { 1, 2, 3, 4 }, y[4] = { 1, 2, 3, 4 };
    hs_slot a = { .name = "a", .B = 1, .H = 1, .T = 4, .W = 1, .n = 4, .val = x }, b = { .name = "b", .B = 1, .H = 1, .T = 4, .W = 1, .n = 4, .val = y };
    hs_diff d = hs_diff_none;
    hs_diff_slot(&d, &a, &b, 0);
    assert_true(d.ok);
    x[2] = nextafter(3, 4);
    hs_diff_slot(&d, &a, &b, 1e-20);
    assert_true(d.ok);
    hs_diff_slot(&d, &a, &b, 0);
    assert_false(d.ok);
    assert_non_null(strstr(d.note, "a[0,0,2,0]"));
    for (int t = 0; t < 2; t++) {
        d = hs_diff_none;
        x[2] = NAN;
        hs_diff_slot(&d, &a, &b, t ? 1e-7 : 0);
        assert_false(d.ok);
    }
    d = hs_diff_none;
    hs_diff_part(&d, (hs_part){ &a, 0, 0 }, (hs_part){ &b, 0, 0 }, 1, 2, 0);
    assert_true(d.ok);                  /* the NaN lies outside the part */
}

/* ---- option sets ---------------------------------------------------------------------------------------------------- */
static int has(const hs_opt_set *set, size_t n, const char *text, int refused)
{
    for (size_t i = 0; i < n; i++) if (!strcmp(set[i].text, text) && !set[i].refusal == !refused) return 1;
    return 0;
}

static void test_option_sets(void **state)
{
    (void)state;
    char why[200];
    size_t n;
    hs_case c = the_case();
    const char *given[] = { "rule=odd size=3" };
    hs_check_args args = { .options = given, .noptions = 1 };
    hs_opt_set *set = hs_opt_sets(&VARIANT, IMPLS, hs_case_shape(&c, 2, 5, 5), &args, &n, why, sizeof why);
    assert_true(has(set, n, "", 0) && set[0].defaults);
    assert_true(has(set, n, "size=8 rule=odd", 0));
    assert_true(has(set, n, "size=0", 0));
    assert_true(has(set, n, "size=8 scale=0.5", 0));
    assert_true(has(set, n, "size=8 rule=needy", 1));
    assert_true(has(set, n, "rule=odd size=3", 0));
    hs_opt_sets_free(set, n);
    args.only_options = 1;
    set = hs_opt_sets(&VARIANT, IMPLS, hs_case_shape(&c, 2, 5, 5), &args, &n, why, sizeof why);
    assert_int_equal(n, 1);
    hs_opt_sets_free(set, n);
    given[0] = "rul=odd";
    assert_null(hs_opt_sets(&VARIANT, IMPLS, hs_case_shape(&c, 2, 5, 5), &args, &n, why, sizeof why));
    assert_non_null(strstr(why, "rul"));
}

/* ---- files that are no plug-in ----------------------------------------------------------------------------------------- */
static void test_files(void **state)
{
    (void)state;
    const char *const paths[] = { "/nowhere/x.so", "/dev/null", "/proc/self/status" };
    for (int i = 0; i < 3; i++) {
        hs_check_report r;
        assert_int_equal(hs_check_file(paths[i], &(hs_check_args){ 0 }, &r), HS_EXIT_PLUGIN);
        assert_int_equal(r.failed, 1);
        assert_non_null(strstr(r.why, paths[i]));
        hs_check_report_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults), cmocka_unit_test(test_right), cmocka_unit_test(test_mistakes), cmocka_unit_test(test_diff),
        cmocka_unit_test(test_costs), cmocka_unit_test(test_growth), cmocka_unit_test(test_option_sets), cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
