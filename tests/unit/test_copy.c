/* test_copy.c - the duplication task: the sequences by their definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "tasks/data/duplication.h"

enum { LENGTH_MAX = 1024 };

typedef struct drawn { int32_t token[LENGTH_MAX], at[LENGTH_MAX], target[LENGTH_MAX]; } drawn;

/* Sequence number `draw` of seed 7. */
static void draw(uint32_t number, int length, int symbols, drawn *d)
{
    words w = { .seed = 7, .stream = 1, .draw = number };
    memset(d, 0, sizeof *d);
    duplication_draw(&w, length, symbols, d->token, d->at, d->target);
}

/* 0 w 0 w; asked for is every symbol of the second w, one token ahead, and nothing else. */
static void test_definition(void **state)
{
    (void)state;
    const int lengths[] = { 4, 10, 64, 1024 };
    for (int s = 0; s < 4; s++)
        for (uint32_t number = 0; number < 20; number++) {
            drawn d;
            int length = lengths[s], half = length / 2;
            draw(number, length, 127, &d);
            assert_int_equal(d.token[0], 0);
            assert_memory_equal(d.token, d.token + half, (size_t)half * sizeof *d.token);
            for (int i = 1; i < half; i++) assert_in_range(d.token[i], 1, 127);
            for (int i = 0; i < half - 1; i++) {
                assert_int_equal(d.at[i], half + i);
                assert_int_equal(d.target[i], d.token[d.at[i] + 1]);
            }
            assert_int_equal(d.at[half - 2], length - 2);
        }
}

/* A sequence is its seed and its number, and its symbols are even. */
static void test_drawing(void **state)
{
    (void)state;
    enum { N = 2000, HALF = 32, SYMBOLS = 31 };
    int seen[SYMBOLS + 1] = { 0 };
    drawn a, b;
    for (uint32_t number = 0; number < N; number++) {
        draw(number, 2 * HALF, SYMBOLS, &a);
        for (int i = 0; i < HALF - 1; i++) seen[a.target[i]]++;
    }
    draw(N - 1, 2 * HALF, SYMBOLS, &b);
    assert_memory_equal(&a, &b, sizeof a);
    draw(N, 2 * HALF, SYMBOLS, &b);
    assert_memory_not_equal(&a, &b, sizeof a);
    double expected = (double)N * (HALF - 1) / SYMBOLS;
    for (int s = 1; s <= SYMBOLS; s++) assert_true(fabs(seen[s] - expected) < 4 * sqrt(expected));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_definition), cmocka_unit_test(test_drawing) };
    return cmocka_run_group_tests_name("copy", tests, NULL, NULL);
}
