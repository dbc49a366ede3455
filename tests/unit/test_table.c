/* test_table.c - one table in five formats, with texts that would break each. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "protocol.h"
#include "table.h"

/* Two rows: numbers, a hostile text, and a column that only the second row has. */
static hs_table *sample(void)
{
    hs_table *t = hs_table_new();
    size_t keys = hs_table_column(t, "keys"), label = hs_table_column(t, "label"), loss = hs_table_column(t, "eval_loss");
    hs_table_set(t, 0, keys, json_integer(20));
    hs_table_set(t, 0, label, json_string("a,\"b\"|50%_\\x"));
    hs_table_set(t, 0, loss, hs_json_number(1.0 / 3 * 1e-5));
    hs_table_set(t, 1, keys, json_integer(600));
    hs_table_set(t, 1, label, json_string("φ\n2"));
    hs_table_set(t, 1, loss, hs_json_number(NAN));
    hs_table_set(t, 1, hs_table_column(t, "reason"), json_string("the loss is nan"));
    return t;
}

static void must_write(enum hs_format format, const char *expected)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    hs_table *t = sample();
    hs_table_write(t, format, f);
    fclose(f);
    hs_table_free(t);
    assert_string_equal(text, expected);
    free(text);
}

static void test_text(void **state)
{
    (void)state;
    must_write(HS_TEXT, "keys  label         eval_loss  reason\n"
                        "  20  a,\"b\"|50%_\\x  3.333e-06  \n"
                        " 600  φ 2           nan        the loss is nan\n");
}

static void test_csv(void **state)
{
    (void)state;
    must_write(HS_CSV, "keys,label,eval_loss,reason\n20,\"a,\"\"b\"\"|50%_\\x\",3.3333333333333333e-06,\n"
                       "600,\"φ\n2\",nan,the loss is nan\n");
}

static void test_markdown(void **state)
{
    (void)state;
    must_write(HS_MARKDOWN, "| keys | label | eval_loss | reason |\n| ---: | --- | ---: | --- |\n"
                            "| 20 | a,\"b\"\\|50%_\\\\x | 3.333e-06 |  |\n| 600 | φ 2 | nan | the loss is nan |\n");
}

static void test_latex(void **state)
{
    (void)state;
    must_write(HS_LATEX, "\\begin{tabular}{rlrl}\n\\toprule\nkeys & label & eval\\_loss & reason \\\\\n\\midrule\n"
                         "20 & a,\"b\"|50\\%\\_\\textbackslash{}x & $3.333\\times10^{-6}$ &  \\\\\n"
                         "600 & φ 2 & nan & the loss is nan \\\\\n\\bottomrule\n\\end{tabular}\n");
}

static void test_json_is_exact(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    hs_table *t = sample();
    hs_table_write(t, HS_JSON, f);
    fclose(f);
    json_t *list = json_loads(text, 0, NULL), *first = json_array_get(list, 0), *second = json_array_get(list, 1);
    assert_int_equal(json_array_size(list), 2);
    assert_int_equal(json_object_size(first), 4);
    assert_true(hs_json_double(json_object_get(first, "eval_loss")) == 1.0 / 3 * 1e-5);
    assert_true(isnan(hs_json_double(json_object_get(second, "eval_loss"))));
    assert_true(json_is_null(json_object_get(first, "reason")));
    assert_string_equal(json_string_value(json_object_get(second, "label")), "φ\n2");
    json_decref(list);
    hs_table_free(t);
    free(text);
}

static void test_exact_numbers_are_short(void **state)
{
    (void)state;
    const double x[] = { 0.1, 1e-3, 1.0 / 3, 20, 5e-324, 1.7976931348623157e308 };
    const char *const expected[] = { "0.1", "0.001", "0.3333333333333333", "20", NULL, "1.7976931348623157e+308" };
    for (int i = 0; i < 6; i++) {
        char text[32];
        hs_exact(x[i], text);
        assert_true(strtod(text, NULL) == x[i]);
        if (expected[i]) assert_string_equal(text, expected[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_csv), cmocka_unit_test(test_markdown),
                                        cmocka_unit_test(test_latex), cmocka_unit_test(test_json_is_exact),
                                        cmocka_unit_test(test_exact_numbers_are_short) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
