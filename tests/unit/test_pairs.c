/* test_pairs.c - sentence pairs in batches, and their text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tasks/data/pairs.h"

enum { N = 37, END = 99 };
static uint8_t source[N * 12], target[N * 12];
static uint64_t source_end[N], target_end[N];
static data_split side[2];

/* Pair i: 1 + i % 12 tokens i, and 1 + i % 7 tokens i + 1. */
static int make(void **state)
{
    uint64_t a = 0, b = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        for (int t = 0; t <= i % 12; t++) source[a++] = (uint8_t)i;
        for (int t = 0; t <= i % 7; t++) target[b++] = (uint8_t)(i + 1);
        source_end[i] = a, target_end[i] = b;
    }
    side[0] = (data_split){ .tokens = source, .width = 1, .n = (int64_t)a, .ndocs = N, .end = source_end };
    side[1] = (data_split){ .tokens = target, .width = 1, .n = (int64_t)b, .ndocs = N, .end = target_end };
    return 0;
}

/* Every pair that is short enough is in the shortest bucket that holds it, and an epoch shows each at least once. */
static void test_buckets(void **state)
{
    pairs p;
    (void)state;
    assert_int_equal(pairs_init(&p, &side[0], &side[1], 10, 3, 40), 0);
    const int length[] = { 3, 5, 10 }, rows[] = { 13, 8, 4 };
    int64_t left_out = 0;
    for (int i = 0; i < N; i++) left_out += 1 + i % 12 > 10;
    assert_int_equal(p.left_out, left_out);
    assert_int_equal(p.n, N - left_out);
    assert_int_equal(p.rows, 13);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(p.bucket[k].length, length[k]);
        assert_int_equal(p.bucket[k].rows, rows[k]);
        for (int64_t i = 0; i < p.bucket[k].n; i++) {
            int pair = p.bucket[k].pair[i], longer = 1 + pair % 12 > 2 + pair % 7 ? 1 + pair % 12 : 2 + pair % 7;
            assert_true(longer <= length[k] && (k == 0 || longer > length[k - 1]));
        }
    }
    int64_t batches = pairs_batches(&p);
    int32_t pair[13], again[13];
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        int seen[N] = { 0 };
        for (int64_t s = 1; s <= batches; s++) {
            int k = pairs_step(&p, 7, epoch * batches + s, pair);
            assert_int_equal(pairs_step(&p, 7, epoch * batches + s, again), k);
            assert_memory_equal(pair, again, (size_t)rows[k] * sizeof *pair);
            for (int r = 0; r < rows[k]; r++) seen[pair[r]]++;
        }
        for (int i = 0; i < N; i++) assert_true((1 + i % 12 > 10) == (seen[i] == 0));
    }
    pairs_release(&p);
}

/* A row: what is read, shown and asked; a source that is too long is cut. */
static void test_rows(void **state)
{
    pairs p;
    int32_t x[5], shown[5], said[5], length;
    (void)state;
    assert_int_equal(pairs_init(&p, &side[0], &side[1], 5, 1, 5), 0);
    pairs_row(&p, 2, 5, END, x, &length, shown, said);
    assert_int_equal(length, 3);
    assert_memory_equal(x, ((int32_t[]){ 2, 2, 2, END, END }), sizeof x);
    assert_memory_equal(shown, ((int32_t[]){ END, 3, 3, 3, END }), sizeof x);
    assert_memory_equal(said, ((int32_t[]){ 3, 3, 3, END, -1 }), sizeof x);
    pairs_row(&p, 11, 5, END, x, &length, NULL, NULL);
    assert_int_equal(length, 5);
    assert_memory_equal(x, ((int32_t[]){ 11, 11, 11, 11, 11 }), sizeof x);
    pairs_release(&p);
}

/* Units become text; of bytes too, and what is none is replaced. */
static void test_text(void **state)
{
    static const char words[] = "\xe2\x96\x81" "das" "\xe2\x96\x81" "H" "aus" "\n" "\xc3" "\xbc" "<eos>";
    static const uint64_t end[] = { 6, 10, 13, 14, 15, 16, 21 };
    static const uint32_t sorted[] = { 3, 6, 2, 5, 4, 0, 1 }, none[] = { 3, 2, 5, 4, 0, 1 };
    data_tokens units = { .nvocab = 7, .words = words, .word_end = end, .sorted = sorted }, bytes = { .nvocab = 6, .words = words, .word_end = end, .sorted = none };
    char *text;
    (void)state;
    text = pairs_text(&units, (int32_t[]){ 0, 1, 2, 3, 4, 5 }, 6);
    assert_string_equal(text, "das Haus \xc3\xbc");
    free(text);
    text = pairs_text(&units, (int32_t[]){ 0, 4, 1 }, 3);      /* half of a letter */
    assert_string_equal(text, "das? H");
    free(text);
    text = pairs_text(&units, NULL, 0);
    assert_string_equal(text, "");
    free(text);
    text = pairs_text(&bytes, (int32_t[]){ 0, 2 }, 2);          /* no <eos>: no units */
    assert_string_equal(text, "\xe2\x96\x81" "dasaus");
    free(text);
}

/* Documents by length, each once; equals as they stand. */
static void test_longest_first(void **state)
{
    int32_t *order = pairs_longest_first(&side[0]);
    (void)state;
    assert_non_null(order);
    assert_int_equal(order[0], 11);
    for (int i = 1; i < N; i++) {
        int before = order[i - 1], here = order[i];
        assert_true(before % 12 > here % 12 || (before % 12 == here % 12 && before < here));
    }
    free(order);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_buckets), cmocka_unit_test(test_rows), cmocka_unit_test(test_text), cmocka_unit_test(test_longest_first) };
    return cmocka_run_group_tests_name("pairs", tests, make, NULL);
}
