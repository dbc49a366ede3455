/* test_nn_checkpoint.c - what is saved comes back bit for bit; what is damaged, foreign or hostile is refused and
 * changes nothing. */
#define _GNU_SOURCE
#include "harness/nn/train.h"
#include "harness/nn/internal.h"
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "device.h"

static char folder[64], path[100];

static int open_folder(void **state)
{
    strcpy(folder, P_tmpdir "/test_nn_checkpoint.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/a", folder);
    return open_device(state);
}

/* A .tmp left behind keeps the folder. */
static int close_folder(void **state)
{
    unlink(path);
    int rc = close_device(state);
    return rmdir(folder) ? -1 : rc;
}

static attn_dims shape(int64_t rows, int64_t columns) { return (attn_dims){ 2, { rows, columns } }; }

/* w [3,5], b [1,4] without decay, r [2,2] frozen; moments that are not zero after `steps` steps. */
static nn_params *make(k_dtype dtype, uint64_t seed, int steps)
{
    nn_params *p = nn_params_new(dev, dtype, seed);
    const attn_init normal = { ATTN_INIT_NORMAL, 0, 1 };
    nn_param(p, "w", shape(3, 5), normal, 0);
    nn_param(p, "b", shape(1, 4), normal, ATTN_NO_DECAY);
    nn_param(p, "r", shape(2, 2), normal, ATTN_FROZEN | ATTN_REDRAW);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
    const nn_train_opts o = { .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_steps = 100 };
    for (int s = 1; s <= steps; s++) {
        k_fill(dev, dtype, 15, nn_param_grad(p, 0), 0.3 * s);
        k_fill(dev, dtype, 4, nn_param_grad(p, 1), -0.1 * s);
        nn_optimiser_step(p, &o, s);
        nn_params_redraw(p, (uint32_t)s);
    }
    return p;
}

/* Whether both have the same values, and go on alike for two steps (so moments and step are the same too). */
static void same(nn_params *a, nn_params *b, k_dtype dtype)
{
    const nn_train_opts o = { .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_steps = 100 };
    nn_params *const both[] = { a, b };
    assert_int_equal(nn_params_step(a), nn_params_step(b));
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 3; i++)
            assert_memory_equal(nn_param_value(a, i), nn_param_value(b, i), (i ? 4u : 15u) * k_dtype_size(dtype));
        for (int k = 0; k < 2; k++) {
            k_fill(dev, dtype, 15, nn_param_grad(both[k], 0), 0.7);
            k_fill(dev, dtype, 4, nn_param_grad(both[k], 1), 0.2);
            nn_optimiser_step(both[k], &o, nn_params_step(both[k]) + 1);
        }
    }
}

static void what_is_saved_comes_back(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        k_dtype dtype = wide ? K_F64 : K_F32;
        nn_params *p = make(dtype, 7, 5), *q = make(dtype, 7, 0);
        char extra[11] = "0123456789";
        nn_params_set_forwards(p, 4294967295u);
        assert_int_equal(nn_checkpoint_save(p, path, extra, 11, why, sizeof why), 0);
        memset(extra, 0, sizeof extra);
        assert_int_equal(nn_checkpoint_extra(path, why, sizeof why), 11);
        assert_int_equal(nn_checkpoint_load(q, path, extra, 11, why, sizeof why), 0);
        assert_string_equal(extra, "0123456789");
        assert_int_equal(nn_params_forwards(q), 4294967295u);
        same(p, q, dtype);
        assert_int_equal(nn_checkpoint_save(p, path, NULL, 0, why, sizeof why), 0);    /* over the old file; no extra */
        assert_int_equal(nn_checkpoint_extra(path, why, sizeof why), 0);
        assert_int_equal(nn_checkpoint_load(q, path, NULL, 0, why, sizeof why), 0);
        same(p, q, dtype);
        nn_params_free(p);
        nn_params_free(q);
    }
}

/* Loading fails with this text, naming the file, and p is as before. */
static void refused(nn_params *p, size_t nextra, const char *say)
{
    static unsigned char before[19 * 8], extra[64];
    memcpy(before, nn_param_value(p, 0), 15 * 4);
    int64_t step = nn_params_step(p);
    strcpy(why, "");
    assert_int_equal(nn_checkpoint_load(p, path, extra, nextra, why, sizeof why), ATTN_EINVAL);
    if (!strstr(why, say) || strncmp(why, path, strlen(path)))
        fail_msg("\"%s\" lacks \"%s\"", why, say);
    assert_memory_equal(before, nn_param_value(p, 0), 15 * 4);
    assert_int_equal(step, nn_params_step(p));
}

static void foreign_models_are_refused(void **state)
{
    (void)state;
    nn_params *p = make(K_F32, 7, 2), *seed = make(K_F32, 8, 0), *wide = make(K_F64, 7, 0);
    nn_params *more = nn_params_new(dev, K_F32, 7), *less = nn_params_new(dev, K_F32, 7), *bent = nn_params_new(dev, K_F32, 7);
    const attn_init zero = { ATTN_INIT_CONST, 0, 0 };
    nn_params *const others[] = { more, less, bent };
    for (int i = 0; i < 3; i++) {
        nn_param(others[i], "w", i == 2 ? shape(5, 3) : shape(3, 5), zero, 0);
        if (i != 1)
            nn_param(others[i], "b", shape(1, 4), zero, 0);
        nn_param(others[i], "r", shape(2, 2), zero, ATTN_FROZEN);
        if (i == 0)
            nn_param(others[i], "extra", shape(2, 2), zero, 0);
        assert_int_equal(nn_params_alloc(others[i], why, sizeof why), 0);
    }
    refused(p, 0, "cannot open");
    assert_int_equal(nn_checkpoint_save(p, path, "abc", 3, why, sizeof why), 0);
    refused(seed, 3, "seed 7, not 8");
    refused(wide, 3, "another type or shape");
    refused(more, 3, "no tensor extra");
    refused(less, 3, "does not have");
    refused(bent, 3, "another type or shape");
    refused(p, 4, "3 bytes of the caller's, not 4");
    nn_params *const all[] = { p, seed, wide, more, less, bent };
    for (int i = 0; i < 6; i++)
        nn_params_free(all[i]);
}

/* The file's bytes; free. */
static unsigned char *slurp(size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    unsigned char *bytes = malloc(1 << 16);
    *n = fread(bytes, 1, 1 << 16, f);
    fclose(f);
    return bytes;
}

static void spit(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Cut off anywhere, longer than it says, or with any bit flipped, a file is refused. */
static void damage_is_refused(void **state)
{
    (void)state;
    nn_params *p = make(K_F32, 7, 2);
    size_t n;
    assert_int_equal(nn_checkpoint_save(p, path, "abc", 3, why, sizeof why), 0);
    unsigned char *good = slurp(&n), *bad = malloc(n + 1);
    for (size_t cut = 0; cut < n; cut += cut < 20 ? 1 : 7) {
        spit(good, cut);
        refused(p, 3, ": ");
        assert_int_equal(nn_checkpoint_extra(path, why, sizeof why), -1);
    }
    memcpy(bad, good, n);
    bad[n] = 0;
    spit(bad, n + 1);
    refused(p, 3, "end at byte");
    size_t header = good[0] + 256u * good[1], flips = 0;
    for (size_t at = 8 + header; at < n; at++, flips++) {       /* the data */
        memcpy(bad, good, n);
        bad[at] ^= (unsigned char)(1 << at % 8);
        spit(bad, n);
        refused(p, 3, "damaged");
    }
    assert_true(flips > 200);
    for (size_t at = 0; at < 8 + header; at++) {                /* the header: refused, or the same model after all */
        memcpy(bad, good, n);
        bad[at] ^= 1;
        spit(bad, n);
        nn_params *q = make(K_F32, 7, 0);
        char extra[3];
        int rc = nn_checkpoint_load(q, path, extra, 3, why, sizeof why);
        assert_true(rc == ATTN_EINVAL || (rc == 0 && memcmp(nn_param_value(p, 0), nn_param_value(q, 0), 60) == 0));
        nn_params_free(q);
    }
    free(good);
    free(bad);
    nn_params_free(p);
}

/* Writes good data under a header made by hand. */
static void forge(const char *header, const unsigned char *data, size_t n)
{
    unsigned char *file = malloc(8 + strlen(header) + n);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)strlen(header) >> (8 * i));
    memcpy(file + 8, header, strlen(header));
    memcpy(file + 8 + strlen(header), data, n);
    spit(file, 8 + strlen(header) + n);
    free(file);
}

/* The good header with one text replaced; every such file must be refused. */
static void hostile_headers_are_refused(void **state)
{
    static const struct { const char *from, *to, *say; } forgeries[] = {
        { "[0,60]", "[-4,56]", "malformed" }, { "[0,60]", "[60,0]", "malformed" }, { "[0,60]", "[0,64]", "overlap" },
        { "[0,60]", "[4,60]", "do not touch" }, { "[0,60]", "[0,99999999]", "malformed" }, { "[0,60]", "[0]", "malformed" },
        { "[0,60]", "[0,60,80]", "malformed" }, { "[0,60]", "[0,9223372036854775807]", "malformed" },
        { "[0,60]", "[0,92233720368547758070]", "not JSON" }, { "[0,60]", "\"[0,60]\"", "malformed" }, { "[0,60]", "[0.0,60.0]", "malformed" },
        { "[3,5]", "[5,3]", "another type or shape" }, { "[3,5]", "[15]", "another type or shape" }, { "[3,5]", "[3,5.0]", "another type" },
        { "[3,5]", "{}", "malformed" }, { "\"F32\"", "\"F64\"", "another type" }, { "\"F32\"", "7", "malformed" },
        { "harness-checkpoint/2", "harness-checkpoint/1", "format" }, { "\"seed\":\"7\"", "\"seed\":\"-7\"", "valid seed" },
        { "\"seed\":\"7\"", "\"seed\":\"99999999999999999999999\"", "valid seed" }, { "\"seed\":\"7\"", "\"seed\":7", "valid seed" },
        { "\"step\":\"2\"", "\"step\":\"18446744073709551615\"", "out of range" }, 
        { "\"step\":\"2\"", "\"step\":\"2x\"", "valid step" }, { "\"step\":\"2\"", "\"stop\":\"2\"", "valid step" },
        { "\"forwards\":\"0\"", "\"forwards\":\"4294967296\"", "out of range" }, { "\"forwards\"", "\"backwards\"", "valid forwards" },
        { "\"fnv1a\":\"", "\"fnv1a\":\"0", "damaged" }, { "\"w\":", "\"b\":", "not JSON" }, { "\"w\":", "\"W\":", "no tensor w" },
        { "\"adam.m:w\":", "\"adam.m:x\":", "no tensor adam.m:w" } };
    (void)state;
    nn_params *p = make(K_F32, 7, 2);
    size_t n;
    assert_int_equal(nn_checkpoint_save(p, path, "abc", 3, why, sizeof why), 0);
    unsigned char *good = slurp(&n);
    size_t length = good[0] + 256u * good[1];
    char *header = strndup((char *)good + 8, length);
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        char *forged, *at = strstr(header, forgeries[i].from);
        assert_non_null(at);
        assert_true(asprintf(&forged, "%.*s%s%s", (int)(at - header), header, forgeries[i].to, at + strlen(forgeries[i].from)) > 0);
        forge(forged, good + 8 + length, n - 8 - length);
        refused(p, 3, forgeries[i].say);
        free(forged);
    }
    forge(header, good + 8 + length, n - 8 - length);           /* the forger's own tool does no harm */
    char extra[3];
    assert_int_equal(nn_checkpoint_load(p, path, extra, 3, why, sizeof why), 0);
    free(header);
    free(good);
    nn_params_free(p);
}

/* Any reader of safetensors finds the parameters: an own reading of the published format. */
static void the_file_is_safetensors(void **state)
{
    (void)state;
    nn_params *p = make(K_F64, 7, 2);
    size_t n;
    assert_int_equal(nn_checkpoint_save(p, path, NULL, 0, why, sizeof why), 0);
    unsigned char *file = slurp(&n);
    size_t length = file[0] + 256u * file[1];
    json_t *header = json_loadb((char *)file + 8, length, 0, NULL), *w = json_object_get(header, "w");
    assert_non_null(w);
    assert_string_equal(json_string_value(json_object_get(w, "dtype")), "F64");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(w, "shape"), 1)), 5);
    size_t begin = (size_t)json_integer_value(json_array_get(json_object_get(w, "data_offsets"), 0));
    assert_memory_equal(file + 8 + length + begin, nn_param_value(p, 0), 15 * 8);
    json_decref(header);
    free(file);
    nn_params_free(p);
}

/* Where nothing can be written the old file stays, nothing is left behind, and the sentence says why. */
static void a_failed_save_harms_nothing(void **state)
{
    (void)state;
    nn_params *p = make(K_F32, 7, 1);
    char nowhere[200];
    snprintf(nowhere, sizeof nowhere, "%s/none/a", folder);
    assert_int_equal(nn_checkpoint_save(p, nowhere, NULL, 0, why, sizeof why), ATTN_EINVAL);
    assert_non_null(strstr(why, strerror(ENOENT)));
    assert_int_equal(mkdir(path, 0700), 0);                     /* a folder of that name: the rename fails */
    assert_int_equal(nn_checkpoint_save(p, path, NULL, 0, why, sizeof why), ATTN_EINVAL);
    assert_int_equal(nn_checkpoint_extra(path, why, sizeof why), -1);
    assert_int_equal(rmdir(path), 0);
    nn_params_free(p);
}

/* The values alone, of a model that trained with an average: the average; and without one: the values.  A model of another shape
 * is refused and keeps its own. */
static void values_are_those_that_were_evaluated(void **state)
{
    (void)state;
    for (int average = 0; average < 2; average++) {
        nn_params *p = make(K_F32, 7, 1), *q = make(K_F32, 9, 0);
        if (average) {
            assert_int_equal(nn_params_average(p, why, sizeof why), 0);
            k_fill(dev, K_F32, 15, nn_param_value(p, 0), 5);
            nn_params_average_step(p, 0.5);
        }
        assert_int_equal(nn_checkpoint_save(p, path, "abc", 3, why, sizeof why), 0);
        assert_int_equal(nn_checkpoint_values(q, path, why, sizeof why), 0);
        if (average) nn_params_swap(p);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(nn_param_value(p, i), nn_param_value(q, i), (i ? 4u : 15u) * sizeof(float));
        nn_params_free(p);
        nn_params_free(q);
    }
    nn_params *other = nn_params_new(dev, K_F32, 7);
    nn_param(other, "w", shape(5, 3), (attn_init){ ATTN_INIT_CONST, 2, 0 }, 0);
    assert_int_equal(nn_params_alloc(other, why, sizeof why), 0);
    assert_int_equal(nn_checkpoint_values(other, path, why, sizeof why), ATTN_EINVAL);
    assert_non_null(strstr(why, "another type or shape"));
    assert_true(*(float *)nn_param_value(other, 0) == 2);
    nn_params_free(other);
}

/* Of another model those parameters are taken that have the same name and shape; both lists are told; of strangers nothing is. */
static void another_models_values_are_taken(void **state)
{
    (void)state;
    nn_imported got;
    nn_params *p = make(K_F32, 7, 2), *q = nn_params_new(dev, K_F32, 9), *stranger = nn_params_new(dev, K_F32, 9);
    const attn_init normal = { ATTN_INIT_NORMAL, 0, 1 };
    nn_param(q, "new", shape(2, 2), normal, 0);
    nn_param(q, "w", shape(3, 5), normal, ATTN_NO_DECAY);
    nn_param(q, "b", shape(4, 1), normal, 0);
    nn_param(q, "r", shape(2, 2), normal, ATTN_FROZEN);
    nn_param(stranger, "b", shape(2, 2), normal, 0);
    assert_int_equal(nn_params_alloc(q, why, sizeof why) | nn_params_alloc(stranger, why, sizeof why), 0);
    float drawn[2][4];
    memcpy(drawn[0], nn_param_value(q, 0), sizeof drawn[0]);
    memcpy(drawn[1], nn_param_value(q, 2), sizeof drawn[1]);
    assert_int_equal(nn_checkpoint_save(p, path, "abc", 3, why, sizeof why), 0);
    assert_int_equal(nn_params_import(q, path, &got, why, sizeof why), 0);
    assert_memory_equal(nn_param_value(q, 1), nn_param_value(p, 0), 15 * 4);
    assert_memory_equal(nn_param_value(q, 3), nn_param_value(p, 2), 4 * 4);
    assert_memory_equal(nn_param_value(q, 0), drawn[0], sizeof drawn[0]);
    assert_memory_equal(nn_param_value(q, 2), drawn[1], sizeof drawn[1]);
    assert_true(got.taken == 2 && got.drawn == 2 && nn_params_step(q) == 0);
    assert_string_equal(got.taken_names, "w, r");
    assert_string_equal(got.drawn_names, "new, b");
    assert_int_equal(nn_params_import(stranger, path, &got, why, sizeof why), ATTN_EINVAL);
    assert_non_null(strstr(why, "no parameter of this model"));
    nn_params_free(p);
    nn_params_free(q);
    nn_params_free(stranger);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_folder, close_folder)
int main(void)
{
    const struct CMUnitTest tests[] = { T(what_is_saved_comes_back), T(foreign_models_are_refused), T(damage_is_refused),
                                        T(hostile_headers_are_refused), T(the_file_is_safetensors), T(a_failed_save_harms_nothing),
                                        T(values_are_those_that_were_evaluated), T(another_models_values_are_taken) };
    return cmocka_run_group_tests_name("nn_checkpoint", tests, NULL, NULL);
}
