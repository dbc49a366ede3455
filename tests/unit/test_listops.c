/* test_listops.c - nested list operations: their rules, their value, and the arena's way of drawing them. */
#include "data_set.h"
#include <math.h>
#include "tasks/data/listops.h"

enum { LONGEST = 2000 };
static const listops ARENA = { 10, 10, 500, 2000 }, SHORT = { 4, 5, 9, 64 };

/* Expression `number` of seed 7. */
static int32_t draw(const listops *l, uint32_t number, int32_t *token)
{
    words w = { .seed = 7, .stream = 1, .draw = number };
    return listops_draw(l, &w, token);
}

/* ---- another evaluator, over lists that are sorted -------------------------------------------------------------------- */

static int smaller(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* The value of what begins at *p, and the depth of it; *p goes behind it. */
static int evaluate(const int32_t **p, int *depth)
{
    int list[4096], n = 0, sum = 0, deepest = 0;
    const int32_t what = *(*p)++;
    *depth = 1;
    if (what >= LISTOPS_DIGIT) return what - LISTOPS_DIGIT;
    while (**p != LISTOPS_CLOSE) {
        int below;
        sum += list[n++] = evaluate(p, &below);
        if (below > deepest) deepest = below;
    }
    ++*p;
    *depth = deepest + 1;
    const int first = list[0], last = list[n - 1];
    qsort(list, (size_t)n, sizeof *list, smaller);
    const int value[] = { list[0], list[n - 1], (list[(n - 1) / 2] + list[n / 2]) / 2, sum % 10, first, last };
    return value[what];
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

/* Every expression is one by the rules: lengths between the bounds, not too deep, 2 to `arguments` arguments; and both evaluators
 * agree. */
static void test_rules(void **state)
{
    static int32_t token[LONGEST];
    const listops *const rules[] = { &ARENA, &SHORT };
    (void)state;
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < 300; i++) {
            const int32_t n = draw(rules[k], i, token), *end = token;
            int depth, arguments[100] = { 0 }, open = 0;
            assert_in_range(n, rules[k]->more_than + 1, rules[k]->fewer_than - 1);
            for (int32_t j = 0; j < n; j++) {
                assert_true(token[j] != LISTOPS_FIRST && token[j] != LISTOPS_LAST);
                if (token[j] == LISTOPS_CLOSE) assert_in_range(arguments[open--], 2, rules[k]->arguments);
                else arguments[open]++;
                if (token[j] < LISTOPS_CLOSE) arguments[++open] = 0;
            }
            assert_int_equal(listops_value(token, n), evaluate(&end, &depth));
            assert_int_equal(end - token, n);
            assert_in_range(depth, 2, rules[k]->depth);
        }
}

/* An expression is its seed and its number, whatever was drawn between; others are others. */
static void test_pure(void **state)
{
    static int32_t a[LONGEST], b[LONGEST], other[LONGEST];
    (void)state;
    const int32_t n = draw(&ARENA, 3, a), m = draw(&ARENA, 4, other);
    assert_int_equal(draw(&ARENA, 3, b), n);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    assert_memory_not_equal(a, other, (size_t)(n < m ? n : m) * sizeof *a);
}

/* Chances, on expressions whose length excludes nothing: an operation with 1/4, its kind and arguments even, digits too; within four
 * standard errors. */
static void test_chances(void **state)
{
    enum { N = 40000 };
    const listops flat = { 2, 4, 0, 100 };
    int operations = 0, kind[4] = { 0 }, arguments[5] = { 0 }, digit[10] = { 0 }, digits = 0;
    int32_t token[100];
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        const int32_t n = draw(&flat, i, token);
        if (n > 1) operations++, kind[token[0]]++, arguments[n - 2]++;
        for (int32_t j = 0; j < n; j++)
            if (token[j] >= LISTOPS_DIGIT) digit[token[j] - LISTOPS_DIGIT]++, digits++;
    }
    assert_true(fabs(operations - N / 4.0) < 4 * sqrt(N * 3 / 16.0));
    for (int k = 0; k < 4; k++) assert_true(fabs(kind[k] - operations / 4.0) < 4 * sqrt(operations / 4.0));
    for (int k = 2; k < 5; k++) assert_true(fabs(arguments[k] - operations / 3.0) < 4 * sqrt(operations / 3.0));
    for (int k = 0; k < 10; k++) assert_true(fabs(digit[k] - digits / 10.0) < 4 * sqrt(digits / 10.0));
}

/* Examples with their values, and what is no expression. */
static void test_values(void **state)
{
    (void)state;
#define D(x) (LISTOPS_DIGIT + (x))
#define V(...) listops_value((const int32_t[]){ __VA_ARGS__ }, (int32_t)(sizeof(int32_t[]){ __VA_ARGS__ } / sizeof(int32_t)))
    enum { MIN = LISTOPS_MIN, MAX = LISTOPS_MAX, MED = LISTOPS_MED, SM = LISTOPS_SM, END = LISTOPS_CLOSE };
    assert_int_equal(V(D(7)), 7);
    assert_int_equal(V(MAX, D(4), D(3), MIN, D(2), D(3), END, D(1), D(0), END), 4);
    assert_int_equal(V(MED, D(1), D(9), D(4), END), 4);
    assert_int_equal(V(MED, D(9), D(4), D(1), D(1), END), 2);       /* (1 + 4) / 2 */
    assert_int_equal(V(SM, D(8), D(7), D(9), END), 4);
    assert_int_equal(V(LISTOPS_FIRST, D(8), D(7), END), 8);
    assert_int_equal(V(LISTOPS_LAST, D(8), D(7), END), 7);
    assert_int_equal(V(MAX, D(4)), -1);                             /* does not end */
    assert_int_equal(V(MAX, END), -1);                              /* of nothing */
    assert_int_equal(V(END), -1);
    assert_int_equal(V(D(1), D(2)), -1);                            /* two */
    assert_int_equal(V(MAX, D(4), END, END), -1);
    assert_int_equal(V(LISTOPS_TOKENS), -1);
    assert_int_equal(listops_value(NULL, 0), -1);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_null(listops_refusal(&ARENA));
    assert_null(listops_refusal(&SHORT));
    assert_non_null(strstr(listops_refusal(&(listops){ 10, 10, 99, 100 }), "max_length must be more"));
    assert_non_null(strstr(listops_refusal(&(listops){ 3, 3, 100, 200 }), "none has a length"));
}

/* Lines of the kind that Nangia and Bowman published: what the reader makes of them has the value that they say.  The whole of their
 * test sets where HARNESS_DATA has them. */
static void test_published(void **state)
{
    static const data_file files[] = { { "test", "listops.test_d20s.tsv|own.tsv" }, { "test-d20", "listops.test_d20.tsv", .flags = DATA_OPTIONAL }, { NULL } };
    static const data_set set = { "published", .kind = DATA_LISTOPS, .files = files };
    const char *at = getenv("HARNESS_DATA");
    char folder[512];
    data_tokens t;
    int64_t seen = 0;
    (void)state;
    put_file("own.tsv", "4\t( ( ( [MAX 1 ) ( ( ( [MED 4 ) 5 ) ] ) ) ] )\n8\t( ( ( [SM 9 ) 9 ) ] )\n3\t3\n");
    snprintf(folder, sizeof folder, "%s/listops", at ? at : "");
    data_prepare_args args = { .level = -1, .min_count = -1 };
    if (at && access(folder, R_OK) == 0) args.from[args.nfrom++] = folder;
    if (prepare_with(&set, args, &t) != 0) fail_msg("%s", data_why);
    for (int i = 0; i < t.nsplits; i++)
        for (int64_t doc = 0; doc < t.split[i].ndocs; doc++, seen++) {
            static int32_t token[LONGEST];
            const int64_t begin = data_doc_begin(&t.split[i], doc), n = (int64_t)t.split[i].end[doc] - begin;
            assert_in_range(n, 1, LONGEST);
            data_copy(&t.split[i], begin, n, token);
            assert_int_equal(listops_value(token, (int32_t)n), t.split[i].label[doc]);
        }
    assert_true(seen >= 3);
    data_close(&t);
}

/* Tokens are numbered as in what is read. */
static void test_vocabulary(void **state)
{
    static const data_file files[] = { { "test", "v.tsv" }, { NULL } };
    static const data_set set = { "v", .kind = DATA_LISTOPS, .files = files };
    static const struct { const char *word; int id; } all[] = {
        { "[MIN", LISTOPS_MIN }, { "[MAX", LISTOPS_MAX }, { "[MED", LISTOPS_MED }, { "[SM", LISTOPS_SM }, { "[FIRST", LISTOPS_FIRST },
        { "[LAST", LISTOPS_LAST }, { "]", LISTOPS_CLOSE }, { "0", LISTOPS_DIGIT }, { "9", LISTOPS_DIGIT + 9 } };
    data_tokens t;
    (void)state;
    put_file("v.tsv", "3\t3\n");
    assert_int_equal(prepare_set(&set, &t), 0);
    assert_int_equal(t.nvocab, LISTOPS_TOKENS);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) assert_int_equal(data_id(&t, all[i].word, strlen(all[i].word)), all[i].id);
    data_close(&t);
}

#define T(f) cmocka_unit_test_setup_teardown(f, data_setup, data_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rules),    cmocka_unit_test(test_pure), cmocka_unit_test(test_chances),
                                        cmocka_unit_test(test_values),   cmocka_unit_test(test_refusals), T(test_published), T(test_vocabulary) };
    return cmocka_run_group_tests_name("listops", tests, NULL, NULL);
}
