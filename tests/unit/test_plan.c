/* test_plan.c - from an experiment file to cells: axes, labels, keys, --set, --only, and every refusal. */
#include "harness/nn/train.h"
#include "harness/options.h"
#include "harness/plan.h"
#include <math.h>
#include <setjmp.h>
#include <sha2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- a catalog without files ------------------------------------------------------------------------------------- */
static const attn_opt linear_options[] = {
    { "feature_map", "", 0, ATTN_CHOICE, 0, 0, 0, "elu1,relu,dpfp", 0 }, { "nu", "", 8, ATTN_INT, 1, 1, 64, NULL, 0 },
    { "eps", "", 16, ATTN_FLOAT, 1e-6, 0, 1, NULL, 0 }, { "rank", "", 24, ATTN_INTS, 8, 1, 99, NULL, 0 },
    { "keys", "", 64, ATTN_INT, 1, 1, 9, NULL, 0 }, { .name = NULL } };
static const attn_opt task_options[] = {
    { "keys", "", 0, ATTN_INT, 20, 1, 1000, NULL, 0 }, { "replacement", "", 8, ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "noise", "", 16, ATTN_FLOAT, 0, 0, 1, NULL, 0 }, { .name = NULL } };

static const attn_opt writer_options[] = {
    { "reader", "", 0, ATTN_TEXT, 0, 0, 0, "variant", ATTN_OTHER_VARIANT },
    { "after", "", ATTN_TEXT_SIZE, ATTN_TEXT, 0, 0, 0, "variant", ATTN_OTHER_VARIANT }, { .name = NULL } };

/* A new catalog: variants softmax and linear (impls ref, cpu), tasks recall (metrics loss, steps) and writer, which builds a
 * model. */
static hs_catalog *catalog(void)
{
    json_t *all = json_pack(
        "[{s:s,s:s,s:s,s:s,s:o,s:[{s:s},{s:s}]},{s:s,s:s,s:s,s:s,s:[],s:[{s:s}]},{s:s,s:s,s:s,s:s,s:o,s:[{s:s},{s:s}],s:{s:s,s:s}},"
        "{s:s,s:s,s:s,s:s,s:o,s:[{s:s}],s:{},s:{s:s,s:s}}]",
        "kind", "variant", "name", "linear", "path", "/x/linear.so", "digest", "d1", "options", hs_opts_describe(linear_options),
        "impls", "name", "ref", "name", "cpu",
        "kind", "variant", "name", "softmax", "path", "/x/softmax.so", "digest", "d2", "options", "impls", "name", "ref",
        "kind", "task", "name", "recall", "path", "/x/recall.so", "digest", "d3", "options", hs_opts_describe(task_options),
        "metrics", "name", "loss", "name", "steps", "train_defaults", "stop.loss", "1e-3", "optimizer", "adamw",
        "kind", "task", "name", "writer", "path", "/x/writer.so", "digest", "d4", "options", hs_opts_describe(writer_options), "metrics", "name", "loss",
        "train_defaults", "model_defaults", "layers", "2", "norm", "rms");
    assert_non_null(all);
    hs_catalog *c = hs_catalog_from_json(all);
    json_decref(all);
    return c;
}

/* Plans text; the exit code.  *errors: what was printed, the file called F. */
static int plan_text(const char *text, const hs_plan_args *args, hs_plan *plan, char **errors)
{
    char path[] = "/tmp/test_plan.XXXXXX", *said = NULL;
    size_t size, n = strlen(path);
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
    FILE *out = open_memstream(&said, &size);
    int rc = hs_plan_read_with(path, args, catalog(), out, plan);
    fclose(out);
    unlink(path);
    for (char *p; (p = strstr(said, path)); ) {
        *p = 'F';
        memmove(p + 1, p + n, strlen(p + n) + 1);
    }
    *errors = said;
    return rc;
}

/* A head that is sound, to which tests add. */
#define HEAD "experiment: e\ntask: {name: recall}\n"

/* Expects a plan without errors. */
static hs_plan good_with(const char *text, const hs_plan_args *args)
{
    hs_plan plan;
    char *errors;
    int rc = plan_text(text, args, &plan, &errors);
    assert_string_equal(errors, "");
    assert_int_equal(rc, 0);
    free(errors);
    return plan;
}
static hs_plan good(const char *text) { return good_with(text, NULL); }

/* Expects exactly these errors and this exit code. */
static void bad_with(const char *text, const hs_plan_args *args, int code, const char *expected)
{
    hs_plan plan;
    char *errors;
    int rc = plan_text(text, args, &plan, &errors);
    assert_string_equal(errors, expected);
    assert_int_equal(rc, code);
    assert_int_equal(plan.ncells, 0);
    free(errors);
}
static void bad(const char *text, const char *expected) { bad_with(text, NULL, HS_EXIT_SPEC, expected); }

/* The axes of cell i as text, in their order. */
static void axes_are(const hs_plan *p, size_t i, const char *expected)
{
    char *text = json_dumps(p->cell[i].axes, JSON_COMPACT | JSON_REAL_PRECISION(15));
    assert_string_equal(text, expected);
    free(text);
}

/* A value in a doc. */
static const json_t *doc_at(const hs_plan *p, size_t i, const char *part, const char *group, const char *name)
{
    const json_t *j = json_object_get(p->cell[i].doc, part);
    if (group) j = json_object_get(j, group);
    return name ? json_object_get(j, name) : j;
}

/* Arguments from lists that end with NULL. */
#define SETS(...) &(hs_plan_args){ .set = (const char *const[]){ __VA_ARGS__ }, .nset = sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *) }
#define ONLY(...) &(hs_plan_args){ .only = (const char *const[]){ __VA_ARGS__ }, .nonly = sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *) }

/* ---- expansion -------------------------------------------------------------------------------------------------------- */
static void one_cell(void **state)
{
    (void)state;
    hs_plan p = good(HEAD "variants: [softmax]\ndevice: cpu\nlimits: {time: 1.5m, memory: 2K}\njobs: 3\nabout: x y\n");
    assert_int_equal(p.ncells, 1);
    assert_string_equal(p.experiment, "e");
    assert_string_equal(p.about, "x y");
    assert_int_equal(p.jobs, 3);
    assert_true(p.cell[0].time_limit == 90 && p.cell[0].memory_limit == 2048);
    assert_string_equal(p.cell[0].label, "softmax");
    assert_string_equal(p.cell[0].variant_path, "/x/softmax.so");
    assert_string_equal(p.cell[0].task_path, "/x/recall.so");
    axes_are(&p, 0, "{\"variant\":\"softmax\",\"seed\":1}");
    assert_int_equal(json_integer_value(doc_at(&p, 0, "task", "options", "keys")), 20);
    assert_string_equal(json_string_value(doc_at(&p, 0, "variant", NULL, "digest")), "d2");
    assert_string_equal(json_string_value(doc_at(&p, 0, "variant", "options", "output_norm")), "none");
    assert_true(json_is_null(doc_at(&p, 0, "variant", NULL, "impl")));
    assert_string_equal(json_string_value(doc_at(&p, 0, "dtype", NULL, NULL)), "f32");
    hs_plan_release(&p);
}

/* The task's defaults lie over the table's, the file's over the task's, the series' over the file's. */
static void train_options_in_layers(void **state)
{
    (void)state;
    hs_plan p = good(HEAD "variants:\n  - softmax\n  - linear:\n    train: {lr: 0.5, stop: {patience: 7}}\ntrain: {lr: 0.25, batch: 8}\n");
    assert_int_equal(p.ncells, 2);
    assert_true(json_number_value(doc_at(&p, 0, "train", NULL, "stop.loss")) == 1e-3);
    assert_string_equal(json_string_value(doc_at(&p, 0, "train", NULL, "optimizer")), "adamw");
    assert_true(json_number_value(doc_at(&p, 0, "train", NULL, "lr")) == 0.25);
    assert_true(json_number_value(doc_at(&p, 1, "train", NULL, "lr")) == 0.5);
    assert_int_equal(json_integer_value(doc_at(&p, 1, "train", NULL, "batch")), 8);
    assert_int_equal(json_integer_value(doc_at(&p, 1, "train", NULL, "stop.patience")), 7);
    hs_plan_release(&p);
}

/* The same layers; the model is part of a cell of a task that builds one, and of no other. */
static void model_options_in_layers(void **state)
{
    (void)state;
    hs_plan p = good_with("experiment: e\ntask: writer\nvariants:\n  - softmax\n  - linear: {nu: 2}\n    label: L{d_model}\n"
                          "    model: {positions: none}\nmodel: {d_model: [64, 128], heads: 4}\n", SETS("model.heads=2", "model.bias=false"));
    assert_int_equal(p.ncells, 4);
    axes_are(&p, 1, "{\"d_model\":128,\"variant\":\"softmax\",\"seed\":1}");
    assert_string_equal(p.cell[3].label, "L128");
    assert_int_equal(json_integer_value(doc_at(&p, 1, "model", NULL, "layers")), 2);
    assert_string_equal(json_string_value(doc_at(&p, 1, "model", NULL, "norm")), "rms");
    assert_int_equal(json_integer_value(doc_at(&p, 1, "model", NULL, "heads")), 2);
    assert_true(json_is_false(doc_at(&p, 1, "model", NULL, "bias")));
    assert_string_equal(json_string_value(doc_at(&p, 1, "model", NULL, "positions")), "sinusoidal");
    assert_string_equal(json_string_value(doc_at(&p, 2, "model", NULL, "positions")), "none");
    hs_plan_release(&p);
    p = good(HEAD "variants: [softmax]\n");
    assert_null(doc_at(&p, 0, "model", NULL, NULL));
    hs_plan_release(&p);
}

static void bad_models(void **state)
{
    (void)state;
    bad(HEAD "variants: [softmax, linear: {model: {layers: 2}}]\nmodel: {layers: 2}\n",
        "F:3:30: variant linear has no option 'model'\nF:4:8: the task recall builds no model: it takes no 'model'\n");
    bad(HEAD "variants:\n  - linear: {}\n    model: {layers: 2}\n", "F:5:12: the task recall builds no model: it takes no 'model'\n");
    bad("experiment: e\ntask: writer\nvariants:\n  - softmax: {}\n    model: {heads: 0}\nmodel: {layer: 2, norm: rmsnorm, d_model: big}\n",
        "F:5:20: heads must be 1..1024, not 0\nF:6:9: model has no option 'layer'; did you mean 'layers'?\n"
        "F:6:25: norm must be layer|rms, not 'rmsnorm'\nF:6:43: d_model must be an integer (1..65536), not 'big'\n");
    bad_with(HEAD "variants: [softmax]\n", SETS("model.layers=2"), HS_EXIT_SPEC,
             "--set model.layers=2: the task recall builds no model: it takes no 'model'\n");
}

static void order_axes_and_labels(void **state)
{
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: recall, keys: [20, 40]}\nvariants:\n  - linear: {feature_map: dpfp, nu: [1, 2]}\n"
                     "    label: DPFP-{nu} {feature_map} {lr}\n  - linear: {nu: [3, 4]}\n  - softmax\ntrain: {lr: [0.1, 1e-4]}\nseeds: [5, 6]\n");
    assert_int_equal(p.ncells, 2 * 2 * 2 * 2 + 2 * 2 * 2 * 2 + 2 * 2 * 2);
    axes_are(&p, 0, "{\"keys\":20,\"lr\":0.1,\"variant\":\"DPFP-1 dpfp 0.1\",\"nu\":1,\"seed\":5}");
    axes_are(&p, 1, "{\"keys\":20,\"lr\":0.1,\"variant\":\"DPFP-1 dpfp 0.1\",\"nu\":1,\"seed\":6}");
    axes_are(&p, 2, "{\"keys\":20,\"lr\":0.0001,\"variant\":\"DPFP-1 dpfp 0.0001\",\"nu\":1,\"seed\":5}");
    axes_are(&p, 4, "{\"keys\":40,\"lr\":0.1,\"variant\":\"DPFP-1 dpfp 0.1\",\"nu\":1,\"seed\":5}");
    axes_are(&p, 8, "{\"keys\":20,\"lr\":0.1,\"variant\":\"DPFP-2 dpfp 0.1\",\"nu\":2,\"seed\":5}");
    axes_are(&p, 16, "{\"keys\":20,\"lr\":0.1,\"variant\":\"linear nu=3\",\"nu\":3,\"seed\":5}");
    axes_are(&p, 39, "{\"keys\":40,\"lr\":0.0001,\"variant\":\"softmax\",\"seed\":6}");
    hs_plan_release(&p);
}

/* A name that task and variant share keeps both coordinates. */
static void names_that_clash(void **state)
{
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: recall, keys: [20]}\nvariants:\n  - linear: {keys: [1, 2]}\n");
    axes_are(&p, 1, "{\"keys\":20,\"variant\":\"linear keys=2\",\"variant.keys\":2,\"seed\":1}");
    hs_plan_release(&p);
}

static void lists_of_integers(void **state)
{
    (void)state;
    hs_plan p = good(HEAD "variants:\n  - linear: {rank: [8, 16]}\n    label: one\n  - linear: {rank: [[1], [2, 3]]}\n");
    assert_int_equal(p.ncells, 3);
    axes_are(&p, 0, "{\"variant\":\"one\",\"seed\":1}");
    assert_int_equal(json_array_size(doc_at(&p, 0, "variant", "options", "rank")), 2);
    axes_are(&p, 2, "{\"variant\":\"linear rank=2,3\",\"rank\":[2,3],\"seed\":1}");
    hs_plan_release(&p);
}

/* The values of the task's option in the order of the cells, as text. */
static void values_are(const char *option, const char *range, const char *expected)
{
    char text[256], got[512] = "";
    snprintf(text, sizeof text, "experiment: e\ntask: {name: recall, %s: %s}\nvariants: [softmax]\n", option, range);
    hs_plan p = good(text);
    for (size_t i = 0; i < p.ncells; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%.17g ", json_number_value(doc_at(&p, i, "task", "options", option)));
    assert_string_equal(got, expected);
    hs_plan_release(&p);
}

static void ranges(void **state)
{
    (void)state;
    values_are("keys", "{from: 20, to: 100, step: 40}", "20 60 100 ");
    values_are("keys", "{from: 20, to: 99, step: 40}", "20 60 ");
    values_are("keys", "{from: 5, to: 5, step: 1}", "5 ");
    values_are("keys", "{from: 4, to: 64, times: 4}", "4 16 64 ");
    values_are("keys", "{from: 1, to: 1000, times: 10}", "1 10 100 1000 ");
    values_are("noise", "{from: 0, to: 1, step: 0.25}", "0 0.25 0.5 0.75 1 ");
    values_are("noise", "{from: 0.1, to: 0.3, step: 0.1}", "0.10000000000000001 0.20000000000000001 0.29999999999999999 ");
    values_are("noise", "{from: 1e-3, to: 1, times: 10}", "0.001 0.01 0.10000000000000001 1 ");
}

/* ---- keys --------------------------------------------------------------------------------------------------------------- */
/* The key is the hash of the doc's canonical text, the ident that of its coordinates. */
static void keys_are_hashes_of_docs(void **state)
{
    char digest[65];
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: recall, keys: [20, 40], noise: 0.1}\nvariants: [softmax, linear: {nu: [1, 2]}]\nseeds: [1, 2]\n");
    assert_int_equal(p.ncells, 12);
    for (size_t i = 0; i < p.ncells; i++) {
        json_t *doc = json_deep_copy(p.cell[i].doc);
        char *text = json_dumps(doc, JSON_SORT_KEYS | JSON_COMPACT);
        assert_string_equal(SHA256Data((const uint8_t *)text, strlen(text), digest), p.cell[i].key);
        free(text);
        json_object_del(json_object_get(doc, "task"), "digest");
        json_object_del(json_object_get(doc, "variant"), "digest");
        json_object_del(doc, "numerics");
        json_object_del(doc, "data");
        text = json_dumps(doc, JSON_SORT_KEYS | JSON_COMPACT);
        assert_string_equal(SHA256Data((const uint8_t *)text, strlen(text), digest), p.cell[i].ident);
        free(text);
        json_decref(doc);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(p.cell[i].key, p.cell[j].key);
    }
    hs_plan_release(&p);
}

/* A cell that has other variants beside its own has their digests and their files; one that has none says nothing of them. */
static void variants_beside_the_own(void **state)
{
    char digest[65];
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: writer, reader: [variant, linear, softmax], after: linear}\nvariants: [softmax]\n");
    assert_int_equal(p.ncells, 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *others = json_object_get(json_object_get(p.cell[i].doc, "task"), "variants");
        assert_int_equal(json_object_size(others), i == 2 ? 2 : 1);
        assert_string_equal(json_string_value(json_object_get(others, "linear")), "d1");
        assert_string_equal(json_string_value(json_object_get(p.cell[i].others, "linear")), "/x/linear.so");
        char *text = json_dumps(p.cell[i].doc, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
        assert_string_equal(SHA256Data((const uint8_t *)text, strlen(text), digest), p.cell[i].key);
        free(text);
    }
    hs_plan_release(&p);
    p = good("experiment: e\ntask: writer\nvariants: [softmax]\n");
    assert_null(p.cell[0].others);
    assert_null(json_object_get(json_object_get(p.cell[0].doc, "task"), "variants"));
    hs_plan_release(&p);
    bad("experiment: e\ntask: {name: writer, after: linar}\nvariants: [softmax]\n",
        "F:2:29: there is no variant 'linar'; did you mean 'linear'?\n");
}

/* The same with a model. */
static void keys_of_models_are_hashes_too(void **state)
{
    char digest[65];
    (void)state;
    hs_plan p = good("experiment: e\ntask: writer\nvariants: [softmax]\nmodel: {layers: [2, 3]}\n");
    for (size_t i = 0; i < p.ncells; i++) {
        json_t *doc = p.cell[i].doc;
        char *text = json_dumps(doc, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
        assert_string_equal(SHA256Data((const uint8_t *)text, strlen(text), digest), p.cell[i].key);
        free(text);
    }
    assert_int_equal(p.ncells, 2);
    assert_string_not_equal(p.cell[0].key, p.cell[1].key);
    assert_string_not_equal(p.cell[0].ident, p.cell[1].ident);
    hs_plan_release(&p);
}

/* How a value is spelled, and whether a default is written, is no part of the key. */
static void keys_know_no_spelling(void **state)
{
    (void)state;
    hs_plan a = good(HEAD "variants: [softmax]\ntrain: {lr: 0.01, max_steps: 1000}\nlimits: {time: 1h}\n");
    hs_plan b = good("about: other\nexperiment: f\nseeds: 1\nvariants:\n  - softmax: {output_norm: none}\n    label: S\n"
                     "task: {keys: 2e1, name: recall}\ntrain:\n  stop.loss: 0.001\n  lr: 1e-2\n  max_steps: 1e3\n");
    assert_string_equal(a.cell[0].key, b.cell[0].key);
    hs_plan_release(&a);
    hs_plan_release(&b);
}

/* ---- --set, --only, --device ------------------------------------------------------------------------------------------------ */
#define SWEEP "experiment: e\ntask: {name: recall, keys: {from: 20, to: 60, step: 20}}\nvariants:\n  - softmax\n" \
              "  - linear: {nu: [1, 2]}\n    label: L{nu}\nseeds: [1, 2]\n"

static void set_values(void **state)
{
    (void)state;
    hs_plan p = good_with(SWEEP, SETS("task.keys=20,60", "seeds=7", "variants.linear.nu=3", "train.stop.loss=0.5", "train.lr=1e-4",
                                      "variants.softmax.output_norm=rms", "limits.time=2h", "task.replacement=true"));
    assert_int_equal(p.ncells, 4);
    axes_are(&p, 0, "{\"keys\":20,\"variant\":\"softmax\",\"seed\":7}");
    axes_are(&p, 3, "{\"keys\":60,\"variant\":\"L3\",\"nu\":3,\"seed\":7}");      /* an axis stays one */
    assert_true(json_number_value(doc_at(&p, 0, "train", NULL, "stop.loss")) == 0.5);
    assert_string_equal(json_string_value(doc_at(&p, 0, "variant", "options", "output_norm")), "rms");
    assert_string_equal(json_string_value(doc_at(&p, 2, "variant", "options", "output_norm")), "none");
    assert_true(json_is_true(doc_at(&p, 0, "task", "options", "replacement")));
    assert_true(p.cell[0].time_limit == 7200);
    hs_plan_release(&p);
    p = good_with(SWEEP, SETS("task.keys={from: 1, to: 9, times: 3}", "variants=[softmax]"));
    assert_int_equal(p.ncells, 6);
    hs_plan_release(&p);
    p = good_with(SWEEP, SETS("task.keys.step=40", "variants=softmax", "seeds=[1]"));
    assert_int_equal(p.ncells, 2);
    hs_plan_release(&p);
    p = good_with("experiment: e\ntask: recall\nvariants: [softmax]\n", SETS("task.keys=30"));
    assert_int_equal(json_integer_value(doc_at(&p, 0, "task", "options", "keys")), 30);
    hs_plan_release(&p);
}

static void set_refused(void **state)
{
    (void)state;
    bad_with(SWEEP, SETS("task.kyes=3"), HS_EXIT_SPEC, "--set task.kyes=3: task recall has no option 'kyes'; did you mean 'keys'?\n");
    bad_with(SWEEP, SETS("task.keys=0"), HS_EXIT_SPEC, "--set task.keys=0: keys must be 1..1000, not 0\n");
    bad_with(SWEEP, SETS("task.keys"), HS_EXIT_SPEC, "--set task.keys: PATH=VALUE is expected, as in --set task.keys=20,60\n");
    bad_with(SWEEP, SETS("task.keys="), HS_EXIT_SPEC, "--set task.keys=: a value is expected after '='\n");
    bad_with(SWEEP, SETS("task.keys=[1"), HS_EXIT_SPEC,
             "--set task.keys=[1: is not YAML: while parsing a flow sequence, did not find expected ',' or ']'\n");
    bad_with(SWEEP, SETS("variants.performer.nu=1"), HS_EXIT_SPEC, "--set variants.performer.nu=1: no entry of variants is 'performer'\n");
    bad_with(SWEEP, SETS("task.replacement=yes"), HS_EXIT_SPEC,
             "--set task.replacement=yes: 'yes' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"yes\" in quotes for the word\n");
    bad_with(SWEEP, SETS("devise=cpu"), HS_EXIT_SPEC, "--set devise=cpu: an experiment has no key 'devise'; did you mean 'device'?\n");
    bad_with(SWEEP, &(hs_plan_args){ .device = "tpu" }, HS_EXIT_SPEC, "--device tpu: device must be auto|cpu|cuda, not 'tpu'\n");
}

static void only_filters(void **state)
{
    (void)state;
    hs_plan p = good_with(SWEEP, ONLY("variant=linear", "keys=20,60", "seed=2"));
    assert_int_equal(p.ncells, 4);
    axes_are(&p, 0, "{\"keys\":20,\"variant\":\"L1\",\"nu\":1,\"seed\":2}");
    hs_plan all = good(SWEEP);
    assert_string_equal(p.cell[0].key, all.cell[7].key);        /* a filter leaves keys alone */
    hs_plan_release(&all);
    hs_plan_release(&p);
    p = good_with(SWEEP, ONLY("variant=L2,softmax", "keys=2e1"));
    assert_int_equal(p.ncells, 4);
    hs_plan_release(&p);
    bad_with(SWEEP, ONLY("keys=30"), HS_EXIT_EMPTY, "F: nothing is left of the sweep by --only keys=30\n");
    bad_with(SWEEP, ONLY("kyes=20"), HS_EXIT_SPEC, "--only kyes=20: this sweep has no axis 'kyes'; did you mean 'keys'?\n");
    bad_with(SWEEP, ONLY("keys"), HS_EXIT_SPEC, "--only keys: AXIS=VALUE is expected, as in --only variant=linear\n");
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------------ */
static void nothing_missing(void **state)
{
    (void)state;
    bad("x: 1\n", "F:1:1: an experiment has no key 'x'; known are experiment, about, task, variants, model, train, seeds, device, dtype, "
        "limits, jobs, figures\nF:1:1: the key 'experiment' is missing: a name for this experiment\n"
        "F:1:1: the key 'task' is missing: as in task: {name: associative_retrieval, keys: 20}\n"
        "F:1:1: the key 'variants' is missing: a list of variants, as in variants: [softmax, linear]\n");
    bad("- a\n", "F:1:1: an experiment is a map: experiment, task, variants, ...\n");
    bad(HEAD "variants: []\n", "F:3:11: variants: a list of at least one variant is expected\n");
    bad(HEAD "variants: softmax\n", "F:3:11: variants: a list of at least one variant is expected\n");
    bad("experiment: ../x\ntask: recall\nvariants: [softmax]\n", "F:1:13: experiment must be a name of letters, digits, '-', '_' and '.'\n");
    bad("experiment: e\ntask: recal\nvariants: [sofmax]\n", "F:2:7: there is no task 'recal'; did you mean 'recall'?\n"
        "F:3:12: there is no variant 'sofmax'; did you mean 'softmax'?\n");
}

static void bad_entries(void **state)
{
    (void)state;
    bad(HEAD "variants: [[softmax], {label: x}, {linear: {nu: 99}}, {linear: {nuu: 1}, lable: x}]\n",
        "F:3:12: an entry of variants is a name or a map, as in linear: {nu: 2}\n"
        "F:3:23: an entry of variants names a variant, as in linear: {nu: 2}, or a path\n"
        "F:3:49: nu must be 1..64, not 99\nF:3:65: variant linear has no option 'nuu'; did you mean 'nu'?\n"
        "F:3:74: beside 'linear' stand label, model, train or impl, not 'lable'; did you mean 'label'?\n");
    bad(HEAD "variants:\n  - linear: 3\n  - linear:\n    label: \"{nux}\"\n    impl: gpu\n  - softmax: {a: 1}\n    label: \"a\\nb\"\n",
        "F:4:13: variant linear: a map of options is expected\nF:6:12: label: {nux} is no option of linear, of the task, of model or of train\n"
        "F:7:11: linear has no implementation 'gpu', but ref, cpu\nF:8:15: variant softmax has no option 'a'\n"
        "F:9:12: label must be one line without control characters\n");
    bad(HEAD "variants: [softmax, softmax]\n", "F:3:11: 'softmax' and 'softmax' are the same computation: leave one out\n");
    bad(HEAD "variants: [linear, {linear: {nu: 2}}]\n", "F:3:20: the label 'linear' is also that of the entry on line 3: give one a label\n");
    bad(HEAD "variants: [linear, {linear: {nu: 1}, label: one}]\n", "F:3:11: 'linear' and 'one' are the same computation: leave one out\n");
}

static void bad_values(void **state)
{
    (void)state;
    bad("experiment: e\ntask: {name: recall, keys: [], noise: [0.1, 0.1], replacement: {from: 0, to: 1, step: 1}}\nvariants: [softmax]\n",
        "F:2:28: keys has an empty list: at least one value is expected\nF:2:45: noise has the value 0.1 twice\n"
        "F:2:64: replacement takes no range: it is not a number\n");
    bad("experiment: e\ntask: {name: recall, keys: {from: 5, to: 1, step: 1}, noise: {from: 0, to: 1, times: 2}}\nvariants: [softmax]\n",
        "F:2:35: 'from' (5) must not be above 'to' (1)\nF:2:69: 'from' must be > 0 in a range with 'times'\n");
    bad("experiment: e\ntask: {name: recall, keys: {from: 1, to: 5, step: 0}, noise: {from: 1, to: 1, times: 1}}\nvariants: [softmax]\n",
        "F:2:51: 'step' must be > 0, not 0\nF:2:86: 'times' must be > 1, not 1\n");
    bad("experiment: e\ntask: {name: recall, keys: {from: 1, stop: 5}, noise: {from: a, to: 1, step: 1}}\nvariants: [softmax]\n",
        "F:2:38: a range has no key 'stop'; did you mean 'step'?\nF:2:62: 'from' of a range must be a number\n");
    bad("experiment: e\ntask: {name: recall, keys: {from: 999, to: 1001, step: 1}, noise: {from: 0, to: 1}}\nvariants: [softmax]\n",
        "F:2:28: keys must be 1..1000, not 1001\n"
        "F:2:67: a range needs 'step': {from: 20, to: 600, step: 20} or {from: 64, to: 4096, times: 2}\n");
    bad(HEAD "variants: [softmax]\ntrain: {stop: {loss: 1}, stop.loss: 2, stopp: 1, optimizer: adm, lr: }\n",
        "F:4:26: 'stop.loss' of train is given twice\nF:4:40: train has no option 'stopp'\n"
        "F:4:61: optimizer must be adam|adamw|adafactor, not 'adm'; did you mean 'adam'?\nF:4:70: lr has no value\n");
    bad(HEAD "variants: [softmax]\nlimits: {time: 30x, memory: -1}\ndtype: f16\njobs: [1]\nseeds: -1\n",
        "F:4:16: time must be a duration such as 90s, 30m or 2h\nF:4:29: memory must be a size such as 512M or 8G\n"
        "F:5:8: dtype must be f32|f64|bf16, not 'f16'\nF:6:7: jobs takes one value\nF:7:8: seeds must be >= 0, not -1\n");
}

static void bad_figures(void **state)
{
    (void)state;
    bad(HEAD "variants: [softmax]\nfigures: [{kind: line, x: kes, y: loss}, {kind: pie, x: keys, y: loss}, {kind: curve, y: los}, 3]\n",
        "F:4:27: 'x' of a figure must be an option, a metric or variant, seed, step, not 'kes'; did you mean 'keys'?\n"
        "F:4:43: the kind of a figure is line, curve, scaling or pareto, not 'pie'\n"
        "F:4:90: 'y' of a figure must be an option, a metric or variant, seed, step, not 'los'; did you mean 'loss'?\n"
        "F:4:96: a figure is a map, as in {kind: line, x: keys, y: best_eval_loss, series: variant}\n");
}

/* Cells that differ in the option of stop_longer alone are on one ladder, at the height of its value. */
static void ladders(void **state)
{
    static const double rungs[] = { 20, 80, 40 };
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: recall, keys: [20, 80, 40], noise: [0, 0.5]}\n"
                     "variants: [softmax, linear: {nu: [1, 2]}]\nlimits: {stop_longer: keys}\n");
    assert_string_equal(p.stop_longer, "keys");
    assert_int_equal(p.ncells, 18);
    assert_int_equal(p.nladders, 6);                        /* 3 series times 2 noises */
    for (size_t i = 0; i < 18; i++) {
        assert_int_equal(p.cell[i].ladder, i / 6 * 2 + i % 2);
        assert_true(p.cell[i].rung == rungs[i / 2 % 3]);
    }
    hs_plan_release(&p);
    p = good("experiment: e\ntask: {name: recall, keys: [20, 80]}\nvariants: [softmax]\nlimits: {stop_longer: noise}\n");
    assert_int_equal(p.nladders, 2);                        /* no axis: each cell for itself */
    hs_plan_release(&p);
    p = good(HEAD "variants: [softmax]\n");
    assert_null(p.stop_longer);
    hs_plan_release(&p);
    bad(HEAD "variants: [softmax]\nlimits: {stop_longer: replacement}\n",
        "F:4:23: stop_longer must be a number among the task's options, such as its length\n");
    bad(HEAD "variants: [softmax]\nlimits: {stop_longer: kyes}\n",
        "F:4:23: stop_longer must be a number among the task's options, such as its length; did you mean 'keys'?\n");
}

/* 10^6 cells are the limit, and it is told before anything is multiplied out. */
static void too_many(void **state)
{
    (void)state;
    bad("experiment: e\ntask: {name: recall, keys: {from: 1, to: 1000, step: 1}}\nvariants: [softmax]\nseeds: {from: 1, to: 1001, step: 1}\n",
        "F:3:11: the sweep has more than 1000000 cells\n");
    bad(HEAD "variants: [softmax]\nseeds: {from: 0, to: 2e9, step: 1}\n", "F:4:8: a range of more than 1000000 values\n");
}

static void ten_thousand(void **state)
{
    (void)state;
    hs_plan p = good("experiment: e\ntask: {name: recall, keys: {from: 1, to: 100, step: 1}}\nvariants: [softmax]\nseeds: {from: 1, to: 100, step: 1}\n");
    assert_int_equal(p.ncells, 10000);
    axes_are(&p, 9999, "{\"keys\":100,\"variant\":\"softmax\",\"seed\":100}");
    hs_plan_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_cell), cmocka_unit_test(train_options_in_layers), cmocka_unit_test(model_options_in_layers),
        cmocka_unit_test(bad_models), cmocka_unit_test(variants_beside_the_own), cmocka_unit_test(keys_of_models_are_hashes_too), cmocka_unit_test(order_axes_and_labels),
        cmocka_unit_test(names_that_clash), cmocka_unit_test(lists_of_integers), cmocka_unit_test(ranges),
        cmocka_unit_test(keys_are_hashes_of_docs), cmocka_unit_test(keys_know_no_spelling), cmocka_unit_test(set_values),
        cmocka_unit_test(set_refused), cmocka_unit_test(only_filters), cmocka_unit_test(nothing_missing),
        cmocka_unit_test(bad_entries), cmocka_unit_test(bad_values), cmocka_unit_test(bad_figures), cmocka_unit_test(too_many), cmocka_unit_test(ladders),
        cmocka_unit_test(ten_thousand) };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
