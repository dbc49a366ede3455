/* test_sample.c - draws from scores: frequencies, what top-k and top-p leave, the same again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "harness/nn/sample.h"

enum { N = 6, DRAWS = 40000 };
static const float score[N] = { 0.5F, 2, -1, 2, 1, -30 };      /* 1 and 3 are equally likely */

/* How often each word is drawn, in DRAWS steps. */
static void draw(const nn_sampling *s, int *count)
{
    int32_t room[N];
    for (int i = 0; i < N; i++) count[i] = 0;
    for (uint32_t step = 0; step < DRAWS; step++) count[nn_sample(s, score, N, 0, step, room)]++;
}

/* Counts against probabilities: five standard deviations. */
static void frequencies_are(const int *count, const double *p)
{
    for (int i = 0; i < N; i++)
        assert_true(fabs(count[i] - DRAWS * p[i]) <= 5 * sqrt(DRAWS * p[i] * (1 - p[i])) + 1e-9);
}

/* softmax of score / temperature over those in `left`. */
static void expected(double temperature, const char *left, double *p)
{
    double sum = 0;
    for (int i = 0; i < N; i++) sum += p[i] = left[i] == '1' ? exp((double)score[i] / temperature) : 0;
    for (int i = 0; i < N; i++) p[i] /= sum;
}

static void frequencies(void **state)
{
    static const struct { nn_sampling s; const char *left; } cases[] = {
        { { 1, 0, 1, 3 }, "111111" }, { { 0.5, 0, 1, 3 }, "111111" }, { { 4, 0, 1, 3 }, "111111" },
        { { 1, 3, 1, 3 }, "010110" }, { { 1, 1, 1, 3 }, "010000" },     /* of equal ones the first */
        { { 1, 99, 1, 3 }, "111111" },
        { { 1, 0, 0.80, 3 }, "010110" },                                /* 2: 0.36 each, 1: 0.13, 0.5: 0.08 */
        { { 1, 0, 1e-9, 3 }, "010000" },
        { { 1, 2, 0.6, 3 }, "010100" }, { { 1, 2, 0.4, 3 }, "010000" } };   /* top-p of what top-k leaves */
    int count[N];
    double p[N];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        draw(&cases[i].s, count);
        expected(cases[i].s.temperature, cases[i].left, p);
        frequencies_are(count, p);
    }
}

static void greedy(void **state)
{
    int32_t room[N];
    (void)state;
    for (uint32_t step = 0; step < 50; step++) assert_int_equal(nn_sample(&(nn_sampling){ 0, 0, 1, step }, score, N, step, step, room), 1);
}

/* A draw is a function of seed, row and step: again the same, and each of the three makes others. */
static void draws_are_numbered(void **state)
{
    int32_t room[N];
    int differ[3] = { 0 };
    (void)state;
    for (uint32_t step = 0; step < 200; step++) {
        const nn_sampling s = { 1, 0, 1, 7 }, other = { 1, 0, 1, 8 };
        int32_t word = nn_sample(&s, score, N, 2, step, room);
        assert_int_equal(word, nn_sample(&s, score, N, 2, step, room));
        differ[0] += word != nn_sample(&other, score, N, 2, step, room);
        differ[1] += word != nn_sample(&s, score, N, 3, step, room);
        differ[2] += word != nn_sample(&s, score, N, 2, step + 1000, room);
    }
    for (int i = 0; i < 3; i++) assert_true(differ[i] > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(frequencies), cmocka_unit_test(greedy), cmocka_unit_test(draws_are_numbered) };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
