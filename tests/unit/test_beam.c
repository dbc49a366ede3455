/* test_beam.c - beam search against all sequences there are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "harness/nn/beam.h"
#include "kernels/philox.h"

enum { V = 4, LONGEST = 4, SENTENCES = 3, BEGIN = 3, END = 0 };

/* A toy model: what follows depends on the sentence and on a number that the whole prefix makes. */
typedef struct toy {
    int width, steps, even;             /* even: all continuations are equally likely */
    uint32_t prefix[SENTENCES * 256];
} toy;

static uint32_t grow(uint32_t prefix, int32_t token) { return prefix * 5 + (uint32_t)token + 1; }

/* logp [V] of what follows. */
static void follow(const toy *t, int sentence, uint32_t prefix, float *logp)
{
    double sum = 0;
    for (int v = 0; v < V; v++)
        logp[v] = t->even ? 0 : (float)(3 * philox_uniform(philox_u32(3, (uint32_t)sentence, prefix, (uint64_t)v)));
    for (int v = 0; v < V; v++)
        sum += exp((double)logp[v]);
    for (int v = 0; v < V; v++)
        logp[v] -= (float)log(sum);
}

static int next(void *ctx, const int32_t *token, const int32_t *source, float *logp)
{
    toy *t = ctx;
    int rows = SENTENCES * t->width;
    uint32_t before[SENTENCES * 256];
    memcpy(before, t->prefix, sizeof before);
    assert_int_equal(source == NULL, t->steps++ == 0);
    for (int r = 0; r < rows; r++) {
        if (source)
            assert_int_equal(source[r] / t->width, r / t->width);
        t->prefix[r] = source ? grow(before[source[r]], token[r]) : 1;
        follow(t, r / t->width, t->prefix[r], logp + r * V);
    }
    return 0;
}

typedef struct best { double score; int length; int32_t token[LONGEST]; } best;

/* The best of all sequences that begin with these. */
static void exhaust(const toy *t, int sentence, double alpha, int longest, uint32_t prefix, double logp, best *now, best *found)
{
    float p[V];
    follow(t, sentence, prefix, p);
    double score = (logp + (double)p[END]) / pow((6.0 + now->length) / 6.0, alpha);
    if (score > found->score) {
        *found = *now;
        found->score = score;
    }
    for (int32_t v = 0; v < V && now->length < longest; v++) {
        if (v == END)
            continue;
        now->token[now->length++] = v;
        exhaust(t, sentence, alpha, longest, grow(prefix, v), logp + (double)p[v], now, found);
        now->length--;
    }
}

static const int32_t longest[SENTENCES] = { LONGEST, 2, 0 };

static nn_sequence *run(toy *t, int width, double alpha)
{
    static int runs;
    int code;
    t->width = width, t->steps = 0;
    nn_beam b = { .sentences = SENTENCES, .width = width, .vocabulary = V, .begin = BEGIN, .end = END, .alpha = alpha, .longest = longest, .ctx = t,
                  .next = next, .threads = runs++ % 3 };
    nn_sequence *s = nn_beam_search(&b, &code);
    assert_non_null(s);
    assert_int_equal(code, 0);
    return s;
}

/* With room for every prefix the search is exhaustive, whatever the penalty. */
static void test_exhaustive(void **state)
{
    static const double alphas[] = { 0, 0.6, 2 };
    (void)state;
    for (int a = 0; a < 3; a++) {
        toy t = { 0 };
        nn_sequence *s = run(&t, 81, alphas[a]);
        for (int i = 0; i < SENTENCES; i++) {
            best now = { 0 }, found = { .score = -INFINITY };
            exhaust(&t, i, alphas[a], longest[i], 1, 0, &now, &found);
            const nn_sequence *got = &s[i * 81];
            assert_true(fabs(got->score - found.score) < 1e-6);
            assert_int_equal(got->length, found.length);
            assert_memory_equal(got->token, found.token, (size_t)found.length * sizeof *found.token);
            for (int k = 1; k < 81 && got[k].length >= 0; k++)
                assert_true(got[k].score <= got[k - 1].score);
        }
        assert_int_equal(s[2 * 81 + 1].length, -1);     /* of the sentence that is empty there is one */
        free(s);
    }
}

/* A beam of one takes the likeliest token each time, until that is the end. */
static void test_greedy(void **state)
{
    (void)state;
    toy t = { 0 };
    nn_sequence *s = run(&t, 1, 0);
    for (int i = 0; i < SENTENCES; i++) {
        uint32_t prefix = 1;
        int length = 0;
        for (;; length++) {
            float p[V];
            int32_t top = 0;
            follow(&t, i, prefix, p);
            for (int32_t v = 1; v < V; v++)
                top = p[v] > p[top] ? v : top;
            if (top == END || length == longest[i])
                break;
            assert_true(length < s[i].length);
            assert_int_equal(s[i].token[length], top);
            prefix = grow(prefix, top);
        }
        assert_int_equal(s[i].length, length);
    }
    free(s);
}

/* Wider beams do no worse, of equals the first token wins, and the same search is the same twice, by as many threads as there be. */
static void test_widths_and_ties(void **state)
{
    (void)state;
    toy t = { 0 }, even = { .even = 1 };
    nn_sequence *one = run(&t, 1, 0.6), *four = run(&t, 4, 0.6), *again = run(&t, 4, 0.6);
    for (int i = 0; i < SENTENCES; i++)
        assert_true(four[4 * i].score >= one[i].score);
    for (int i = 0; i < SENTENCES * 4; i++) {
        assert_int_equal(four[i].length, again[i].length);
        assert_true(four[i].score == again[i].score);
        if (four[i].length > 0)
            assert_memory_equal(four[i].token, again[i].token, (size_t)four[i].length * sizeof(int32_t));
    }
    free(one), free(four), free(again);
    nn_sequence *s = run(&even, 4, 0);
    assert_int_equal(s[0].length, 0);
    for (int k = 1; k < 4; k++) {
        assert_int_equal(s[k].length, k);
        for (int i = 0; i < k; i++)
            assert_int_equal(s[k].token[i], 1);
    }
    free(s);
}

static int refuse(void *ctx, const int32_t *token, const int32_t *source, float *logp)
{
    (void)ctx, (void)token, (void)source, (void)logp;
    return -7;
}

/* What the model says is wrong ends the search. */
static void test_failure(void **state)
{
    int code = 0;
    (void)state;
    nn_beam b = { .sentences = 1, .width = 2, .vocabulary = V, .begin = BEGIN, .end = END, .longest = longest, .next = refuse };
    assert_null(nn_beam_search(&b, &code));
    assert_int_equal(code, -7);
}

/* Log-probabilities of logits in every type, of more words than are summed at a time, against the definition. */
static void test_log_softmax(void **state)
{
    enum { ROWS = 3, WORDS = 2500 };
    static double wide[ROWS * WORDS];
    static float single[ROWS * WORDS], got[ROWS * WORDS];
    static uint16_t half[ROWS * WORDS];
    const void *const logits[] = { [K_F32] = single, [K_F64] = wide, [K_BF16] = half };
    (void)state;
    for (int i = 0; i < ROWS * WORDS; i++) {
        union { float value; uint32_t bits; } x = { .value = (float)(40 * philox_uniform(philox_u32(1, 2, 3, (uint64_t)i)) - 20 + 100 * (i / WORDS)) };
        x.bits &= 0xffff0000u;          /* the same number in all three */
        half[i] = (uint16_t)(x.bits >> 16), wide[i] = (double)(single[i] = x.value);
    }
    for (int k = 0; k < 6; k++) {
        k_dtype t = k % 3 == 0 ? K_F32 : k % 3 == 1 ? K_F64 : K_BF16;
        memset(got, 0, sizeof got);
        nn_log_softmax(k / 3 * 2, t, ROWS, WORDS, logits[t], got);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int v = 0; v < WORDS; v++)
                sum += exp(wide[r * WORDS + v] - wide[r * WORDS]);
            for (int v = 0; v < WORDS; v++)
                assert_true(fabs((double)got[r * WORDS + v] - (wide[r * WORDS + v] - wide[r * WORDS] - log(sum))) < 1e-4);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_exhaustive), cmocka_unit_test(test_greedy), cmocka_unit_test(test_widths_and_ties),
                                        cmocka_unit_test(test_failure), cmocka_unit_test(test_log_softmax) };
    return cmocka_run_group_tests_name("beam", tests, NULL, NULL);
}
