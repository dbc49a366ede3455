/* test_options.c - option tables: text, JSON, ranges, sentences, and the way across a process border. */
#include "harness/options.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct opts { int32_t nu, norm, map, top; double eps, limit; attn_ints rank; } opts;
#define OFF(f) offsetof(opts, f)
static const attn_opt table[] = {
    { "nu", "width", OFF(nu), ATTN_INT, 1, 1, 16, NULL, 0 },
    { "norm", "normalise", OFF(norm), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "map", "feature map", OFF(map), ATTN_CHOICE, 1, 0, 0, "elu1,relu,dpfp", 0 },
    { "top", "no upper limit", OFF(top), ATTN_INT, 3, 0, INT32_MAX, NULL, 0 },
    { "eps", "above zero", OFF(eps), ATTN_FLOAT, 1e-3, 0, 1, NULL, ATTN_OPEN_MIN },
    { "limit", "infinite unless said", OFF(limit), ATTN_FLOAT, INFINITY, 0, INFINITY, NULL, 0 },
    { "stop.rank", "a list", OFF(rank), ATTN_INTS, 8, 1, 1024, NULL, 0 },
    { .name = NULL } };

static char why[512];

/* Sets one option from text; 0 or -1. */
static int set(opts *o, const char *name, const char *text)
{
    *why = 0;
    return hs_opt_set_text(hs_opts_find(table, name), o, text, why, sizeof why);
}

/* The sentence of a refusal, after checking that it is one and that nothing was written. */
static const char *refusal(const char *name, const char *text)
{
    opts o, before;
    memset(&o, 0x55, sizeof o);
    before = o;
    assert_int_equal(set(&o, name, text), -1);
    assert_memory_equal(&o, &before, sizeof o);
    return why;
}

static void defaults(void **state)
{
    (void)state;
    opts o;
    hs_opts_defaults(table, &o);
    assert_int_equal(hs_opts_count(table), 7);
    assert_int_equal(hs_opts_count(NULL), 0);
    assert_int_equal(o.nu, 1);
    assert_int_equal(o.norm, 1);
    assert_int_equal(o.map, 1);
    assert_true(o.eps == 1e-3 && isinf(o.limit));
    assert_int_equal(o.rank.n, 1);
    assert_int_equal(o.rank.v[0], 8);
}

static void text_forms(void **state)
{
    (void)state;
    opts o;
    hs_opts_defaults(table, &o);
    assert_int_equal(set(&o, "nu", "16"), 0);
    assert_int_equal(o.nu, 16);
    assert_int_equal(set(&o, "top", "1e3"), 0);
    assert_int_equal(o.top, 1000);
    assert_int_equal(set(&o, "eps", "1e-3"), 0);
    assert_true(o.eps == 1e-3);
    assert_int_equal(set(&o, "limit", "2.5"), 0);
    assert_int_equal(set(&o, "limit", "inf"), 0);
    assert_true(isinf(o.limit));
    assert_int_equal(set(&o, "norm", "false"), 0);
    assert_int_equal(o.norm, 0);
    assert_int_equal(set(&o, "map", "dpfp"), 0);
    assert_int_equal(o.map, 2);
    assert_int_equal(set(&o, "stop.rank", "[8, 16]"), 0);
    assert_true(o.rank.n == 2 && o.rank.v[0] == 8 && o.rank.v[1] == 16);
    assert_int_equal(set(&o, "stop.rank", "1,2,3"), 0);
    assert_true(o.rank.n == 3 && o.rank.v[2] == 3);
    assert_int_equal(set(&o, "stop.rank", "4"), 0);
    assert_true(o.rank.n == 1 && o.rank.v[0] == 4);
}

static void sentences(void **state)
{
    (void)state;
    assert_string_equal(refusal("nu", "17"), "nu must be 1..16, not 17");
    assert_string_equal(refusal("nu", "two"), "nu must be an integer (1..16), not 'two'");
    assert_string_equal(refusal("nu", "2.5"), "nu must be an integer (1..16), not '2.5'");
    assert_string_equal(refusal("nu", "0x8"), "nu must be an integer (1..16), not '0x8'");
    assert_string_equal(refusal("nu", "08"), "nu must be an integer (1..16), not '08'");
    assert_string_equal(refusal("nu", ""), "nu must be an integer (1..16), not ''");
    assert_string_equal(refusal("nu", " 8"), "nu must be an integer (1..16), not ' 8'");
    assert_string_equal(refusal("nu", "true"), "nu must be an integer (1..16), not 'true'");
    assert_string_equal(refusal("top", "3000000000"), "top must be at most 2147483647, not 3000000000");
    assert_string_equal(refusal("top", "-1"), "top must be >= 0, not -1");
    assert_string_equal(refusal("eps", "0"), "eps must be > 0 and <= 1, not 0");
    assert_string_equal(refusal("eps", "inf"), "eps must be finite");
    assert_string_equal(refusal("eps", "nan"), "eps must be a number (> 0 and <= 1), not 'nan'");
    assert_string_equal(refusal("norm", "yes"), "norm must be true or false, not 'yes': write true or false");
    assert_string_equal(refusal("norm", "1"), "norm must be true or false, not '1': write true or false");
    assert_string_equal(refusal("map", "dpf"), "map must be elu1|relu|dpfp, not 'dpf'; did you mean 'dpfp'?");
    assert_string_equal(refusal("map", "softplus"), "map must be elu1|relu|dpfp, not 'softplus'");
    assert_string_equal(refusal("stop.rank", "[8,x]"), "stop.rank must be a list of integers such as [8, 16], not '[8,\"x\"]'");
    assert_string_equal(refusal("stop.rank", "[0]"), "stop.rank must be a list of 1..1024, not 0");
    assert_string_equal(refusal("stop.rank", "1,2,3,4,5,6,7,8,9"),
                        "stop.rank must be a list of 1..8 integers, not [1,2,3,4,5,6,7,8,9]");
    assert_string_equal(refusal("map", "\xff"), "map is not UTF-8 text");
}

static void ranges(void **state)
{
    static const char *const expected[] = { "1..16", "true|false", "elu1|relu|dpfp", ">= 0", "> 0 and <= 1", ">= 0", "list of 1..1024" };
    char range[64];
    (void)state;
    for (size_t i = 0; i < hs_opts_count(table); i++) {
        hs_opt_range(&table[i], range, sizeof range);
        assert_string_equal(range, expected[i]);
    }
}

static void json_both_ways(void **state)
{
    (void)state;
    opts o, back;
    memset(&o, 0, sizeof o);
    memset(&back, 0, sizeof back);
    hs_opts_defaults(table, &o);
    assert_int_equal(set(&o, "stop.rank", "[3,4]"), 0);
    assert_int_equal(set(&o, "map", "elu1"), 0);
    assert_int_equal(set(&o, "eps", "0.1"), 0);
    json_t *j = hs_opts_to_json(table, &o);
    char *text = json_dumps(j, JSON_SORT_KEYS | JSON_COMPACT);
    assert_string_equal(text, "{\"eps\":0.10000000000000001,\"limit\":\"inf\",\"map\":\"elu1\",\"norm\":true,\"nu\":1,"
                              "\"stop.rank\":[3,4],\"top\":3}");
    assert_int_equal(hs_opts_set_json(table, &back, j, why, sizeof why), 0);
    assert_memory_equal(&o, &back, sizeof o);
    json_object_set_new(j, "foo", json_true());
    assert_int_equal(hs_opts_set_json(table, &back, j, why, sizeof why), -1);
    assert_string_equal(why, "there is no option 'foo'");
    free(text);
    json_decref(j);
}

/* The same value in two spellings is one canonical value: keys of cells rest on it. */
static void canonical_types(void **state)
{
    (void)state;
    json_t *in[] = { json_integer(1), json_real(2.0), json_string("2") };
    json_t *eps = hs_opt_canonical(hs_opts_find(table, "eps"), in[0], why, sizeof why);
    json_t *nu = hs_opt_canonical(hs_opts_find(table, "nu"), in[1], why, sizeof why);
    assert_true(json_is_real(eps) && json_real_value(eps) == 1);
    assert_true(json_is_integer(nu) && json_integer_value(nu) == 2);
    assert_null(hs_opt_canonical(hs_opts_find(table, "nu"), in[2], why, sizeof why));
    for (int i = 0; i < 3; i++) json_decref(in[i]);
    json_decref(eps);
    json_decref(nu);
}

static void across_a_border(void **state)
{
    (void)state;
    size_t size, n = hs_opts_count(table);
    json_t *described = hs_opts_describe(table);
    attn_opt *again = hs_opts_rebuild(described, &size);
    assert_int_equal(hs_opts_count(again), n);
    for (size_t i = 0; i < n; i++) {
        char a[64], b[64];
        hs_opt_range(&table[i], a, sizeof a);
        hs_opt_range(&again[i], b, sizeof b);
        assert_string_equal(a, b);
        assert_string_equal(again[i].help, table[i].help);
        assert_true(again[i].def == table[i].def && again[i].type == table[i].type);
        assert_true(again[i].off < size && again[i].off % 8 == 0);
    }
    void *o = calloc(1, size);
    hs_opts_defaults(again, o);
    assert_int_equal(hs_opt_set_text(hs_opts_find(again, "eps"), o, "0", why, sizeof why), -1);
    json_t *values = hs_opts_to_json(again, o), *redescribed = hs_opts_describe(again);
    assert_true(json_equal(described, redescribed));
    assert_int_equal(json_object_size(values), n);
    free(o);
    json_decref(values);
    json_decref(described);
    json_decref(redescribed);
    hs_opts_rebuilt_free(again);
}

static void nearest(void **state)
{
    static const char *const names[] = { "softmax", "linear", "performer", "lr", "cpu", "fwp" };
    (void)state;
    assert_string_equal(hs_nearest("sofmax", names, 6), "softmax");
    assert_string_equal(hs_nearest("lienar", names, 6), "linear");
    assert_string_equal(hs_nearest("peformr", names, 6), "performer");
    assert_string_equal(hs_nearest("lr2", names, 6), "lr");
    assert_null(hs_nearest("gpu", names, 6));
    assert_null(hs_nearest("attention", names, 6));
    assert_null(hs_nearest("", names, 6));
}

static void scalars(void **state)
{
    static const struct { const char *text; json_type type; } rows[] = {
        { "3", JSON_INTEGER }, { "-3", JSON_INTEGER }, { "1e-3", JSON_REAL }, { ".5", JSON_REAL }, { "true", JSON_TRUE },
        { "false", JSON_FALSE }, { "True", JSON_STRING }, { "no", JSON_STRING }, { "010", JSON_STRING }, { "0x10", JSON_STRING },
        { "1_000", JSON_STRING }, { "nan", JSON_STRING }, { "1e999", JSON_STRING }, { "-", JSON_STRING }, { "e", JSON_STRING },
        { "", JSON_STRING }, { "1 ", JSON_STRING }, { "1.2.3", JSON_STRING }, { "0", JSON_INTEGER }, { "0.5", JSON_REAL } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *j = hs_scalar_json(rows[i].text);
        if (json_typeof(j) != rows[i].type) fail_msg("'%s' has JSON type %d", rows[i].text, (int)json_typeof(j));
        json_decref(j);
    }
}

static void names(void **state)
{
    (void)state;
    assert_true(hs_name_valid("dpfp_2", 0) && hs_name_valid("stop.loss", 1));
    assert_false(hs_name_valid("stop.loss", 0) || hs_name_valid("", 0) || hs_name_valid(NULL, 0) || hs_name_valid("A", 0));
    assert_false(hs_name_valid("a..b", 1) || hs_name_valid(".a", 1) || hs_name_valid("a.", 1) || hs_name_valid("a-b", 1));
}

/* Text: its own little table, so that the other tests' structs stay as they are. */
typedef struct named { char name[ATTN_TEXT_SIZE], data[ATTN_TEXT_SIZE], other[ATTN_TEXT_SIZE]; } named;
static const attn_opt named_table[] = {
    { "name", "what it is called", offsetof(named, name), ATTN_TEXT, 0, 0, 0, "none yet", 0 },
    { "data", "what it reads", offsetof(named, data), ATTN_TEXT, 0, 0, 0, NULL, ATTN_DATA_SET },
    { "other", "what stands beside it", offsetof(named, other), ATTN_TEXT, 0, 0, 0, "variant", ATTN_OTHER_VARIANT },
    { .name = NULL } };

static void text(void **state)
{
    named o;
    char too_long[ATTN_TEXT_SIZE + 1], range[64];
    (void)state;
    hs_opts_defaults(named_table, &o);
    assert_string_equal(o.name, "none yet");
    assert_string_equal(o.data, "");
    assert_int_equal(hs_opt_set_text(&named_table[0], &o, "true", why, sizeof why), 0);
    assert_string_equal(o.name, "true");
    json_t *number = json_integer(103), *list = json_array();
    assert_int_equal(hs_opt_set_json(&named_table[1], &o, number, why, sizeof why), 0);
    assert_string_equal(o.data, "103");
    assert_int_equal(hs_opt_set_json(&named_table[1], &o, list, why, sizeof why), -1);
    assert_string_equal(why, "data must be text");
    memset(too_long, 'x', ATTN_TEXT_SIZE);
    too_long[ATTN_TEXT_SIZE] = 0;
    assert_int_equal(hs_opt_set_text(&named_table[0], &o, too_long, why, sizeof why), -1);
    assert_int_equal(hs_opt_set_text(&named_table[0], &o, "two\nlines", why, sizeof why), -1);
    assert_string_equal(o.name, "true");
    hs_opt_range(&named_table[1], range, sizeof range);
    assert_string_equal(range, "a prepared data set");
    hs_opt_range(&named_table[2], range, sizeof range);
    assert_string_equal(range, "a variant");
    json_decref(number);
    json_decref(list);
}

static void text_across_a_border(void **state)
{
    size_t size;
    named o;
    (void)state;
    json_t *described = hs_opts_describe(named_table);
    attn_opt *again = hs_opts_rebuild(described, &size);
    char *fields = calloc(1, size);
    hs_opts_defaults(again, fields);
    hs_opts_defaults(named_table, &o);
    assert_int_equal(again[1].flags, ATTN_DATA_SET);
    assert_int_equal(again[2].flags, ATTN_OTHER_VARIANT);
    assert_string_equal(again[2].choices, "variant");
    assert_int_equal(hs_opt_set_text(&again[1], fields, "wikitext-103", why, sizeof why), 0);
    assert_int_equal(hs_opt_set_text(&named_table[1], &o, "wikitext-103", why, sizeof why), 0);
    json_t *a = hs_opts_to_json(again, fields), *b = hs_opts_to_json(named_table, &o);
    assert_true(json_equal(a, b));
    assert_string_equal(json_string_value(json_object_get(a, "name")), "none yet");
    json_decref(a), json_decref(b), json_decref(described);
    free(fields);
    hs_opts_rebuilt_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults), cmocka_unit_test(text_forms), cmocka_unit_test(sentences), cmocka_unit_test(ranges),
        cmocka_unit_test(json_both_ways), cmocka_unit_test(canonical_types), cmocka_unit_test(across_a_border),
        cmocka_unit_test(nearest), cmocka_unit_test(scalars), cmocka_unit_test(names), cmocka_unit_test(text),
        cmocka_unit_test(text_across_a_border) };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
