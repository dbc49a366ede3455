/* test_compare.c - sides, pairs and verdicts, on stores whose samples are known. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include "compare.h"
#include "fake_plan.h"
#include "kernels/philox.h"

enum { SAMPLES = 40, CELLS = 6 };
typedef struct room {
    char dir[64], a[96], b[96], why[1024];
    hs_side side[2];
    hs_comparison c;
} room;

static int setup(void **state)
{
    room *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/test_compare.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->a, sizeof r->a, "%s/a.db", r->dir);
    snprintf(r->b, sizeof r->b, "%s/b.db", r->dir);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    room *r = *state;
    char command[128];
    hs_comparison_release(&r->c);
    hs_side_release(&r->side[0]);
    hs_side_release(&r->side[1]);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    int rc = system(command);
    free(r);
    return rc;
}

/* What a build measured: seconds of each cell with the relative scatter; a cell of 0 s runs out of memory. */
typedef struct build { int number; const char *git, *cpu, *dtype; double seconds[CELLS], scatter; } build;

/* Samples of about so many seconds, other ones for every cell and build. */
static void fill(hs_value value[SAMPLES], const build *b, int cell)
{
    for (int i = 0; i < SAMPLES; i++) {
        double u = philox_uniform(philox_u32(1, (uint32_t)(100 * b->number + cell), 0, (uint64_t)i)) - 0.5;
        value[i] = (hs_value){ "sample_seconds", "s", i, b->seconds[cell] * (1 + b->scatter * u) };
    }
}

/* Records the cells of a build, three series by two keys, as an experiment in a database. */
static void record(const char *db, const char *experiment, const build *b)
{
    char why[512];
    hs_store *store;
    hs_plan plan;
    json_t *env = json_pack("{s:s, s:s, s:{s:s}}", "git", b->git, "cpu", b->cpu, "gpu", "driver", "575.1");
    if (hs_store_open(db, 0, &store, why, sizeof why) != 0) fail_msg("%s", why);
    fake_plan(&plan, experiment, 3, 2, 1, b->number);
    for (int i = 0; i < CELLS; i++) {
        json_t *options = json_object_get(json_object_get(plan.cell[i].doc, "variant"), "options");
        json_object_set_new(options, "nu", json_integer(i / 2));        /* no two series are one question */
        json_object_set_new(plan.cell[i].doc, "dtype", json_string(b->dtype));
        if (strcmp(b->dtype, "f32") != 0) fake_key(plan.cell[i].ident, i, 77);
    }
    assert_int_equal(hs_store_environment(store, env), 0);
    assert_int_equal(hs_store_plan(store, &plan), 0);
    for (int i = 0; i < CELLS; i++) {
        hs_value value[SAMPLES];
        fill(value, b, i);
        const hs_result done = { HS_DONE, NULL, NULL, 1, value, SAMPLES }, oom = { HS_OOM, "8 GB asked, 1 GB free", NULL, 1, NULL, 0 };
        assert_int_equal(hs_store_finish(store, &plan.cell[i], b->seconds[i] > 0 ? &done : &oom), 0);
    }
    hs_store_close(store);
    fake_plan_free(&plan);
    json_decref(env);
}

/* Compares two sides. */
static int compare(room *r, const char *a, const char *b, const char *metric)
{
    if (hs_side_open(&r->side[0], a, r->a, r->why, sizeof r->why) != 0) return -1;
    if (hs_side_open(&r->side[1], b, r->a, r->why, sizeof r->why) != 0) return -1;
    return hs_compare(&r->c, &r->side[0], &r->side[1], metric, 0.03, r->why, sizeof r->why);
}

static const build before = { 1, "aaaa11112222", "EPYC", "f32", { 1, 1, 1, 1, 1, 0 }, 0.02 };
static const build after = { 2, "bbbb33334444", "EPYC", "f32", { 1, 1.1, 0.9, 1.004, 0, 1 }, 0.02 };

static void test_databases(void **state)
{
    static const enum hs_verdict expected[CELLS] = { HS_SAME, HS_SLOWER, HS_FASTER, HS_SAME, HS_LOST, HS_GAINED };
    room *r = *state;
    record(r->a, "scaling", &before);
    record(r->b, "scaling", &after);
    if (compare(r, r->a, r->b, NULL) != 0) fail_msg("%s", r->why);
    assert_int_equal(r->c.npairs, CELLS);
    assert_int_equal(json_object_size(r->c.compared), 0);
    assert_string_equal(r->c.metric, "sample_seconds");
    for (int i = 0; i < CELLS; i++) {
        const hs_pair *p = &r->c.pair[i];
        assert_int_equal(p->verdict, expected[i]);
        if (i < 4) {
            assert_true(fabs(p->ratio.mean - after.seconds[i]) < 0.01 && p->ratio.low < p->ratio.high);
            assert_true(p->ratio.low <= p->ratio.mean && p->ratio.mean <= p->ratio.high);
            assert_int_equal(p->na, SAMPLES);
        }
    }
    assert_int_equal(r->c.pair[4].b->status, HS_OOM);
    assert_int_equal(r->c.alone_a + r->c.alone_b + r->c.unanswered, 0);
    assert_false(hs_compare_machines(&r->c, &r->side[0], &r->side[1], r->why, sizeof r->why));
}

/* Wide samples that differ a little say nothing: neither the same nor slower. */
static void test_what_cannot_be_told(void **state)
{
    room *r = *state;
    build wide = before, wider = after;
    wide.scatter = wider.scatter = 1;
    for (int i = 0; i < CELLS; i++) wide.seconds[i] = 1, wider.seconds[i] = 1.02;
    record(r->a, "scaling", &wide);
    record(r->b, "scaling", &wider);
    assert_int_equal(compare(r, r->a, r->b, NULL), 0);
    assert_int_equal(r->c.count[HS_AMBIGUOUS], CELLS);
}

/* Two experiments that differ in one coordinate are compared in it. */
static void test_experiments(void **state)
{
    room *r = *state;
    build half = after;
    half.dtype = "bf16";
    record(r->a, "scaling", &before);
    record(r->a, "scaling-bf16", &half);
    assert_int_equal(compare(r, "scaling", "scaling-bf16", NULL), 0);
    json_t *dtype = json_object_get(r->c.compared, "dtype");
    assert_int_equal(json_object_size(r->c.compared), 1);
    assert_string_equal(json_string_value(json_array_get(dtype, 0)), "f32");
    assert_string_equal(json_string_value(json_array_get(dtype, 1)), "bf16");
    assert_int_equal(r->c.npairs, CELLS);
    assert_int_equal(r->c.count[HS_SLOWER], 1);
    json_t *axes = hs_side_axes(&r->side[0]);
    assert_int_equal(json_array_size(axes), 1);
    assert_string_equal(json_string_value(json_array_get(axes, 0)), "task.options.keys");
    json_decref(axes);
}

/* Two builds of one question in one database: the newer has taken the experiment over, the commits have both. */
static void test_commits(void **state)
{
    room *r = *state;
    record(r->a, "scaling", &before);
    record(r->a, "scaling", &after);
    assert_int_equal(compare(r, "aaaa11", "bbbb33334444", NULL), 0);
    assert_int_equal(r->c.npairs, CELLS);
    assert_int_equal(r->c.count[HS_SLOWER], 1);
    assert_int_equal(r->c.count[HS_LOST], 1);
    hs_comparison_release(&r->c);
    hs_side_release(&r->side[0]);
    hs_side_release(&r->side[1]);
    assert_int_equal(compare(r, "scaling@aaaa", "scaling", NULL), 0);
    assert_int_equal(r->c.count[HS_SLOWER], 1);
    assert_string_equal(r->c.pair[0].a->label, "Softmax");
}

static void test_names(void **state)
{
    room *r = *state;
    char name[256];
    record(r->a, "scaling", &before);
    record(r->b, "other", &after);
    snprintf(name, sizeof name, "%s:other@bbbb", r->b);
    assert_int_equal(compare(r, r->a, name, NULL), 0);
    hs_comparison_release(&r->c);
    hs_side_release(&r->side[0]);
    hs_side_release(&r->side[1]);
    const char *const unknown[] = { "other", "cccc", "scaling@bbbb", "nothing.db" };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(hs_side_open(&r->side[0], unknown[i], r->a, r->why, sizeof r->why), -1);
        if (!strstr(r->why, "neither a database nor an experiment or a commit")) fail_msg("%s", r->why);
        hs_side_release(&r->side[0]);
    }
}

/* A metric that is no time has other words; without samples the seeds are them. */
static void test_seeds_as_samples(void **state)
{
    room *r = *state;
    char why[512];
    for (int side = 0; side < 2; side++) {
        hs_store *store;
        hs_plan plan;
        if (hs_store_open(side ? r->b : r->a, 0, &store, why, sizeof why) != 0) fail_msg("%s", why);
        fake_plan(&plan, "train", 2, 1, 8, 1 + side);
        assert_int_equal(hs_store_plan(store, &plan), 0);
        for (int i = 0; i < 16; i++) {
            double loss = 2 + 0.01 * i + (side && i >= 8 ? 0.5 : 0);
            const hs_value value[] = { { "loss", "1", 100, 9 }, { "loss", "1", 200, loss }, { "seconds", "s", 0, 3 } };
            assert_int_equal(hs_store_finish(store, &plan.cell[i], &(hs_result){ HS_DONE, NULL, NULL, 1, value, 3 }), 0);
        }
        hs_store_close(store);
        fake_plan_free(&plan);
    }
    assert_int_equal(compare(r, r->a, r->b, "loss"), 0);
    assert_int_equal(r->c.npairs, 2);
    assert_int_equal(r->c.pair[0].na, 8);
    assert_int_equal(r->c.pair[0].verdict, HS_SAME);
    assert_int_equal(r->c.pair[1].verdict, HS_MORE);
    assert_true(r->c.pair[1].p < 0.0002);       /* 2 / C(16, 8) */
    hs_comparison_release(&r->c);
    assert_int_equal(hs_compare(&r->c, &r->side[0], &r->side[1], NULL, 0.03, r->why, sizeof r->why), 0);
    assert_string_equal(r->c.metric, "seconds");
    assert_int_equal(r->c.count[HS_SAME], 2);
    hs_comparison_release(&r->c);
    assert_int_equal(hs_compare(&r->c, &r->side[0], &r->side[1], "bleu", 0.03, r->why, sizeof r->why), -1);
    assert_non_null(strstr(r->why, "none has the metric bleu"));
}

static void test_unlike_machines(void **state)
{
    room *r = *state;
    build there = after;
    there.cpu = "Xeon";
    record(r->a, "scaling", &before);
    record(r->b, "scaling", &there);
    assert_int_equal(compare(r, r->a, r->b, NULL), 0);
    assert_true(hs_compare_machines(&r->c, &r->side[0], &r->side[1], r->why, sizeof r->why));
    assert_string_equal(r->why, "the machines differ in cpu: EPYC and Xeon");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_databases), TEST(test_what_cannot_be_told), TEST(test_experiments), TEST(test_commits), TEST(test_names),
        TEST(test_seeds_as_samples), TEST(test_unlike_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
