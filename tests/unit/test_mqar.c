/* test_mqar.c - multi-query associative recall: the sequences by their definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tasks/data/mqar.h"

enum { LENGTH_MAX = 512 };

typedef struct drawn { int32_t token[LENGTH_MAX], at[LENGTH_MAX], target[LENGTH_MAX]; } drawn;

/* Sequence number `draw` of seed 7. */
static void draw(const mqar *m, uint32_t number, drawn *d)
{
    mqar_clock clock[LENGTH_MAX];
    words w = { .seed = 7, .stream = 1, .draw = number };
    memset(d, 0, sizeof *d);
    mqar_draw(m, &w, clock, d->token, d->at, d->target);
}

/* How often x stands in v [n]. */
static int count(int n, const int32_t *v, int32_t x)
{
    int found = 0;
    for (int i = 0; i < n; i++) found += v[i] == x;
    return found;
}

/* Pairs first, keys and values from their halves and none twice; each key once more, at an even place behind the pairs,
 * with its value for a target; nothing else but zeros. */
static void test_definition(void **state)
{
    (void)state;
    const mqar shapes[] = { { 64, 4, 8192, 0, 0.01 }, { 512, 64, 8192, 0, 0.01 }, { 64, 16, 8192, 0, 0.01 }, { 4, 1, 4, 0, 0.01 },
                            { 62, 7, 64, 0, 0.5 } };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        mqar m = shapes[s];
        assert_null(mqar_refusal(&m));
        assert_int_equal(mqar_init(&m), 0);
        for (uint32_t number = 0; number < 50; number++) {
            drawn d;
            int zeros = 0;
            draw(&m, number, &d);
            for (int i = 0; i < m.pairs; i++) {
                int32_t key = d.token[2 * i], value = d.token[2 * i + 1];
                assert_in_range(key, 1, m.vocabulary / 2 - 1);
                assert_in_range(value, m.vocabulary / 2, m.vocabulary - 1);
                assert_int_equal(count(m.length, d.token, key), 2);
                assert_int_equal(count(m.length, d.token, value), 1);
                assert_int_equal(d.token[d.at[i]], key);
                assert_int_equal(d.target[i], value);
                assert_in_range(d.at[i], 2 * m.pairs, m.length - 2);
                assert_int_equal(d.at[i] % 2, 0);
            }
            for (int i = 2 * m.pairs; i < m.length; i++) zeros += d.token[i] == 0;
            assert_int_equal(zeros, m.length - 3 * m.pairs);
        }
        mqar_release(&m);
    }
}

/* A sequence is its seed and its number: drawn again it is the same, whatever was drawn between; others differ. */
static void test_pure(void **state)
{
    (void)state;
    mqar m = { 128, 8, 8192, 0, 0.01 };
    drawn a, b, other;
    assert_int_equal(mqar_init(&m), 0);
    draw(&m, 3, &a);
    draw(&m, 4, &other);
    draw(&m, 3, &b);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &other, sizeof a);
    mqar_release(&m);
}

/* Where the first key is asked again follows p_g ~ g^(a-1), and the second the same among the slots that are left:
 * frequencies within four standard errors, and chi squared within its 99.9 % quantile. */
static void test_gaps(void **state)
{
    (void)state;
    enum { SLOTS = 28, N = 40000 };
    mqar m = { 64, 4, 8192, 0, 0.01 };
    static int seen[2][SLOTS];
    double p[SLOTS], second[SLOTS] = { 0 }, sum = 0;
    memset(seen, 0, sizeof seen);
    assert_int_equal(mqar_init(&m), 0);
    assert_int_equal(m.slots, SLOTS);
    for (uint32_t number = 0; number < N; number++) {
        drawn d;
        draw(&m, number, &d);
        for (int i = 0; i < 2; i++) seen[i][d.at[i] / 2 - m.pairs]++;
    }
    for (int g = 0; g < SLOTS; g++) sum += p[g] = pow(g + 1, 0.01 - 1);
    for (int g = 0; g < SLOTS; g++) p[g] /= sum;
    for (int first = 0; first < SLOTS; first++)
        for (int g = 0; g < SLOTS; g++) second[g] += g == first ? 0 : p[first] * p[g] / (1 - p[first]);
    for (int i = 0; i < 2; i++) {
        const double *expected = i ? second : p;
        double chi2 = 0;
        for (int g = 0; g < SLOTS; g++) {
            double n = N * expected[g];
            assert_true(fabs(seen[i][g] - n) < 4 * sqrt(n));
            chi2 += (seen[i][g] - n) * (seen[i][g] - n) / n;
        }
        assert_true(chi2 < 55.5);               /* 27 degrees of freedom */
    }
    mqar_release(&m);
}

/* Keys and values come from the whole of their halves, evenly. */
static void test_symbols(void **state)
{
    (void)state;
    enum { N = 20000 };
    mqar m = { 32, 3, 32, 0, 0.01 };
    static int seen[32];
    memset(seen, 0, sizeof seen);
    assert_int_equal(mqar_init(&m), 0);
    for (uint32_t number = 0; number < N; number++) {
        drawn d;
        draw(&m, number, &d);
        for (int i = 0; i < 6; i++) seen[d.token[i]]++;
    }
    for (int s = 1; s < 32; s++) {
        double n = 3.0 * N / (s < 16 ? 15 : 16);
        assert_true(fabs(seen[s] - n) < 4 * sqrt(n));
    }
    assert_int_equal(seen[0], 0);
    mqar_release(&m);
}

/* Random filler changes nothing but the zeros. */
static void test_filler(void **state)
{
    (void)state;
    mqar m = { 128, 8, 8192, 1, 0.01 };
    drawn d;
    int zeros = 0;
    assert_int_equal(mqar_init(&m), 0);
    draw(&m, 0, &d);
    for (int i = 0; i < m.pairs; i++) {
        assert_int_equal(d.token[d.at[i]], d.token[2 * i]);
        assert_int_equal(d.target[i], d.token[2 * i + 1]);
    }
    for (int i = 0; i < m.length; i++) {
        assert_in_range(d.token[i], 0, 8191);
        zeros += d.token[i] == 0;
    }
    assert_true(zeros < 4);
    mqar_release(&m);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_non_null(strstr(mqar_refusal(&(mqar){ 63, 4, 8192, 0, 0.01 }), "even"));
    assert_non_null(strstr(mqar_refusal(&(mqar){ 64, 17, 8192, 0, 0.01 }), "4 pairs"));
    assert_non_null(strstr(mqar_refusal(&(mqar){ 64, 4, 8191, 0, 0.01 }), "vocabulary"));
    assert_non_null(strstr(mqar_refusal(&(mqar){ 64, 4, 8, 0, 0.01 }), "vocabulary"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition), cmocka_unit_test(test_pure),   cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_symbols),    cmocka_unit_test(test_filler), cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests_name("mqar", tests, NULL, NULL);
}
