/* test_plugin.c - which tables and which files are refused, and in which words; the catalog. */
#include "harness/nn/train.h"
#include "harness/plugin.h"
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char why[PATH_MAX + 512];

/* ---- a sound variant and a sound task, to be spoiled in one place each ----------------------------------- */
typedef struct opts { int32_t a, b; double c; attn_ints d; } opts;
static int plan(const attn_shape *s, const void *o, attn_plan *p) { (void)s, (void)o, (void)p; return ATTN_OK; }
static int forward(const attn_call *c) { (void)c; return ATTN_OK; }
static int run(const task_call *c) { (void)c; return TASK_DONE; }

typedef struct tables {
    attn_opt opt[5];
    attn_gate gate[10];
    attn_param param[3];
    attn_impl impl[3];
    attn_variant variant;
    task_metric metric[3];
    task_default train[2];
    task task;
} tables;

/* Fills t with tables that are valid. */
static void make(tables *t)
{
    static const char choices[] = "none,rms";
    *t = (tables){
        .opt = { { "a", "an int", offsetof(opts, a), ATTN_INT, 1, 0, 9, NULL, 0 },
                 { "b", "a choice", offsetof(opts, b), ATTN_CHOICE, 1, 0, 0, choices, 0 },
                 { "c", "a float", offsetof(opts, c), ATTN_FLOAT, 1, 0, 9, NULL, ATTN_OPEN_MIN },
                 { "d", "a list", offsetof(opts, d), ATTN_INTS, 1, 1, 9, NULL, 0 } },
        .gate = { { "beta", "" } }, .param = { { "w", "", 0 }, { "u", "", ATTN_FROZEN } },
        .impl = { { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, NULL, NULL },
                  { "cpu", ATTN_CPU, ATTN_F32, ATTN_CAUSAL, 1, plan, forward, NULL, NULL } },
        .metric = { { "loss", "1", "", -1, 1 } }, .train = { { "lr", "1e-3" } } };
    t->variant = (attn_variant){ .size = sizeof t->variant, .name = "fine", .opts_size = sizeof(opts), .opts = t->opt,
                                 .gates = t->gate, .params = t->param, .impls = t->impl };
    t->task = (task){ .size = sizeof t->task, .name = "fine", .opts_size = sizeof(opts), .opts = t->opt,
                      .metrics = t->metric, .train_defaults = t->train, .run = run };
}

/* Spoils a valid variant with a statement and expects exactly this sentence. */
#define REFUSED(statement, sentence) do {                                               \
        tables t;                                                                       \
        make(&t);                                                                       \
        statement;                                                                      \
        assert_int_equal(hs_variant_valid(&t.variant, why, sizeof why), -1);            \
        assert_string_equal(why, sentence);                                             \
    } while (0)
#define TASK_REFUSED(statement, sentence) do {                                          \
        tables t;                                                                       \
        make(&t);                                                                       \
        statement;                                                                      \
        assert_int_equal(hs_task_valid(&t.task, why, sizeof why), -1);                  \
        assert_string_equal(why, sentence);                                             \
    } while (0)

static void sound_tables(void **state)
{
    tables t;
    (void)state;
    make(&t);
    assert_int_equal(hs_variant_valid(&t.variant, why, sizeof why), 0);
    assert_int_equal(hs_task_valid(&t.task, why, sizeof why), 0);
    t.task.size = TASK_LEAST;           /* one made before tasks could be opened */
    assert_int_equal(hs_task_valid(&t.task, why, sizeof why), 0);
    t.variant.opts = NULL, t.variant.gates = NULL, t.variant.params = NULL;
    assert_int_equal(hs_variant_valid(&t.variant, why, sizeof why), 0);
}

/* One more than a call has room for. */
static void nine_gates(tables *t)
{
    static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h", "i" };
    for (int i = 0; i < 9; i++) t->gate[i].name = names[i];
}

static void bad_variants(void **state)
{
    (void)state;
    REFUSED(t.variant.size = 40, "size is 40, less than the 104 bytes of ABI 1");
    REFUSED(t.variant.name = NULL, "the name is NULL");
    REFUSED(t.variant.name = "Soft-Max", "the name 'Soft-Max' is not [a-z0-9_]+");
    REFUSED(t.variant.flags = 1 << 20, "unknown flags 0x100000");
    REFUSED(t.variant.impls = NULL, "there are no impls");
    REFUSED(t.impl[0].name = NULL, "there are no impls");
    REFUSED(t.impl[0].dtypes = ATTN_F32, "the first impl, ref, must be the reference: ATTN_CPU with ATTN_F64");
    REFUSED(t.impl[0].device = ATTN_CUDA, "the first impl, ref, must be the reference: ATTN_CPU with ATTN_F64");
    REFUSED(t.impl[1].device = 3, "impl cpu has device 3, neither ATTN_CPU nor ATTN_CUDA");
    REFUSED(t.impl[1].dtypes = 0, "impl cpu has the dtypes mask 0");
    REFUSED(t.impl[1].dtypes = 64, "impl cpu has the dtypes mask 64");
    REFUSED(t.impl[1].modes = 0, "impl cpu has the modes mask 0");
    REFUSED(t.impl[1].plan = NULL, "impl cpu has no plan()");
    REFUSED(t.impl[1].forward = NULL, "impl cpu has no forward()");
    REFUSED(t.impl[1].name = "ref", "impl ref comes twice");
    REFUSED(t.param[1].name = "w", "param w comes twice");
    REFUSED(t.param[1].flags = 64, "param u has unknown flags");
    REFUSED(nine_gates(&t), "more than 8 gates");
}

static void bad_options(void **state)
{
    (void)state;
    REFUSED(t.opt[0].name = "A b", "option name 'A b' is not [a-z0-9_.]+");
    REFUSED(t.opt[0].type = 9, "option a has the unknown type 9");
    REFUSED(t.opt[3].off = sizeof(opts), "option d lies outside the options struct of 56 bytes");
    REFUSED(t.variant.opts_size = 8, "option c lies outside the options struct of 8 bytes");
    REFUSED(t.opt[2].off = 4, "option c lies at the unaligned offset 4");
    REFUSED(t.opt[1].off = 0, "options a and b share a field");
    REFUSED(t.opt[1].name = "a", "option a comes twice");
    REFUSED(t.opt[0].flags = 8, "option a has unknown flags");
    REFUSED(t.opt[0].def = 10, "the default 10 of option a is out of its range");
    REFUSED(t.opt[2].def = 0, "the default 0 of option c is out of its range");
    REFUSED(t.opt[0].min = 10, "option a has min above max");
    REFUSED(t.opt[0].def = 1.5, "the default or range of option a does not fit an int32");
    REFUSED(t.opt[0].max = 1e12, "the default or range of option a does not fit an int32");
    REFUSED(t.opt[1].choices = NULL, "option b has no choices");
    REFUSED(t.opt[1].choices = "none,,rms", "option b has the choice '', which is not [a-z0-9_.]+");
    REFUSED(t.opt[1].choices = "rms,rms", "option b has the choice rms twice");
    REFUSED(t.opt[1].def = 2, "the default of option b is not the index of a choice");
}

static void bad_tasks(void **state)
{
    (void)state;
    TASK_REFUSED(t.task.size = 8, "size is 8, less than the 88 bytes of ABI 1");
    TASK_REFUSED(t.task.name = "", "the name '' is not [a-z0-9_]+");
    TASK_REFUSED(t.task.metrics = NULL, "there are no metrics");
    TASK_REFUSED(t.metric[0].unit = NULL, "metric loss has no unit (\"1\" when there is none)");
    TASK_REFUSED(t.metric[0].better = 2, "metric loss has better = 2, not -1, 0 or 1");
    TASK_REFUSED(t.metric[1] = t.metric[0], "metric loss comes twice");
    TASK_REFUSED(t.task.run = NULL, "there is no run()");
    TASK_REFUSED(t.train[0].option = "lrr", "train_defaults names the unknown option lrr");
    TASK_REFUSED(t.train[0].value = "fast", "train_defaults: lr must be a number (0..10), not 'fast'");
    TASK_REFUSED(t.task.model_defaults = t.train, "model_defaults names the unknown option lr");
    TASK_REFUSED((t.train[0] = (task_default){ "lr", "1" }, t.task.model_defaults = (task_default[]){ { "heads", "0" }, { NULL, NULL } }),
                 "model_defaults: heads must be 1..1024, not 0");
}

/* ---- files ------------------------------------------------------------------------------------------------------ */
static char folder[] = "/tmp/test_plugin.XXXXXX", variant_so[PATH_MAX];

/* Finds a variant that was built beside this program. */
static int find_variant(void **state)
{
    char exe[PATH_MAX - 64] = "";
    (void)state;
    if (!mkdtemp(folder) || readlink("/proc/self/exe", exe, sizeof exe - 1) < 0) return -1;
    *strrchr(exe, '/') = 0;
    snprintf(variant_so, sizeof variant_so, "%s/../../variants/softmax.so", exe);
    return 0;
}

/* Removes the folder. */
static int clean_up(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* Writes n bytes to a file of the folder; its path. */
static const char *write_file(const char *name, const void *bytes, size_t n)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    return path;
}

/* The sentence of a file that is refused must begin with its path and go on so. */
static void file_refused(const char *path, const char *rest)
{
    hs_plugin p;
    assert_int_equal(hs_plugin_open(path, &p, why, sizeof why), -1);
    assert_null(p.handle);
    assert_int_equal(strncmp(why, path, strlen(path)), 0);
    assert_string_equal(why + strlen(path), rest);
}

static void bad_files(void **state)
{
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/none.so", folder);
    file_refused(path, ": no such file");
    file_refused(folder, ": is not a file");
    file_refused(write_file("text.so", "hello, I am a text\n", 19), ": is not a shared object (no ELF header)");
    file_refused(write_file("empty.so", "", 0), ": is not a shared object (no ELF header)");
    file_refused(write_file("short.so", "\177ELF", 4), ": is truncated");
}

/* Any length that cuts something off is refused by us, never met by SIGBUS inside dlopen. */
static void truncated_files(void **state)
{
    (void)state;
    FILE *f = fopen(variant_so, "rb");
    if (!f) skip();
    char *bytes = malloc(1 << 20);
    size_t n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    for (int i = 1; i < 16; i++) file_refused(write_file("cut.so", bytes, n * (size_t)i / 16), ": is truncated");
    free(bytes);
}

static void describe_a_real_one(void **state)
{
    hs_plugin p;
    char digest[65];
    (void)state;
    if (access(variant_so, R_OK)) skip();
    assert_int_equal(hs_plugin_open(variant_so, &p, why, sizeof why), 0);
    assert_non_null(hs_plugin_variant(&p, "softmax"));
    assert_null(hs_plugin_variant(&p, "sofmax"));
    assert_null(hs_plugin_task(&p, "softmax"));
    assert_int_equal(hs_file_digest(variant_so, digest), 0);
    json_t *j = hs_plugin_describe(&p), *v = json_array_get(json_object_get(j, "variants"), 0);
    assert_string_equal(json_string_value(json_object_get(v, "digest")), digest);
    assert_string_equal(json_string_value(json_object_get(v, "kind")), "variant");
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(v, "impls"), 0), "name")), "ref");
    assert_int_equal(json_array_size(json_object_get(j, "tasks")), 0);
    json_decref(j);
    hs_plugin_close(&p);
    assert_int_equal(hs_file_digest("/nonexistent", digest), -1);
}

/* ---- catalog --------------------------------------------------------------------------------------------------------- */
static void catalog(void **state)
{
    (void)state;
    json_t *all = json_pack("[{s:s,s:s,s:s,s:s},{s:s,s:s,s:s,s:s},{s:s,s:s,s:s,s:s},{s:s,s:s,s:s,s:s},{s:s,s:s,s:s,s:s}]",
                    "kind", "variant", "name", "a", "path", "/x/a.so", "digest", "1",
                    "kind", "variant", "name", "b", "path", "/x/a.so", "digest", "1",
                    "kind", "variant", "name", "a", "path", "/y/a.so", "digest", "2",
                    "kind", "variant", "name", "b", "path", "/y/copy.so", "digest", "1",
                    "kind", "task", "name", "a", "path", "/x/t.so", "digest", "3");
    hs_catalog *c = hs_catalog_from_json(all);
    json_decref(all);
    assert_int_equal(json_array_size(hs_catalog_all(c)), 3);
    assert_non_null(hs_catalog_variant(c, "a"));
    assert_non_null(hs_catalog_task(c, "a"));
    assert_null(hs_catalog_task(c, "b"));
    assert_int_equal(json_array_size(hs_catalog_refused(c)), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(hs_catalog_refused(c), 0), "reason")),
                        "/y/a.so: the name a is taken by /x/a.so");
    assert_null(hs_catalog_path(c, "/x/a.so", NULL, why, sizeof why));
    assert_string_equal(why, "/x/a.so: holds several variants (a, b): say variant: NAME");
    assert_non_null(hs_catalog_path(c, "/x/a.so", "b", why, sizeof why));
    assert_null(hs_catalog_path(c, "/x/a.so", "z", why, sizeof why));
    assert_string_equal(why, "/x/a.so: holds no variant 'z', but a, b");
    assert_null(hs_catalog_path(c, "/x/t.so", NULL, why, sizeof why));
    assert_string_equal(why, "/x/t.so: holds no variant");
    assert_null(hs_catalog_path(c, "/z.so", NULL, why, sizeof why));
    assert_string_equal(why, "/z.so: no such file");
    assert_ptr_equal(hs_catalog_path(c, "/y/copy.so", NULL, why, sizeof why), hs_catalog_variant(c, "b"));
    hs_catalog_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_tables), cmocka_unit_test(bad_variants), cmocka_unit_test(bad_options),
        cmocka_unit_test(bad_tasks), cmocka_unit_test(bad_files), cmocka_unit_test(truncated_files),
        cmocka_unit_test(describe_a_real_one), cmocka_unit_test(catalog) };
    return cmocka_run_group_tests_name("plugin", tests, find_variant, clean_up);
}
