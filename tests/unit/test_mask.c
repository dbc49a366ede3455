/* test_mask.c - allowed sets: passes show every pair of the definition once, the decode state holds what is seen, and a
 * long sequence, which several threads share, is what the definition says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/flash.h"
#include "kernels/mask.h"

enum { MAX_T = 48, HEADS = 4 };

static const k_mask MASKS[] = {
    { .kind = K_MASK_ALL },
    { .kind = K_MASK_WINDOW, .length = 1 }, { .kind = K_MASK_WINDOW, .length = 5 }, { .kind = K_MASK_WINDOW, .length = 1000 },
    { .kind = K_MASK_BLOCK, .length = 4, .left = 4, .right = 4 }, { .kind = K_MASK_BLOCK, .length = 5, .left = 0, .right = 2 },
    { .kind = K_MASK_BLOCK, .length = 1, .left = 9, .right = 0 }, { .kind = K_MASK_BLOCK, .length = 1000, .left = 1000, .right = 1000 },
    { .kind = K_MASK_STRIDED, .length = 1 }, { .kind = K_MASK_STRIDED, .length = 4, .patterns = K_PATTERNS_SPLIT },
    { .kind = K_MASK_STRIDED, .length = 7 }, { .kind = K_MASK_STRIDED, .length = 4, .patterns = K_PATTERNS_FIRST },
    { .kind = K_MASK_STRIDED, .length = 3, .patterns = K_PATTERNS_SECOND }, { .kind = K_MASK_STRIDED, .length = 1000 },
    { .kind = K_MASK_FIXED, .length = 1, .summary_len = 1, .summary_slots = 1 },
    { .kind = K_MASK_FIXED, .length = 6, .summary_len = 2, .summary_slots = 3 },
    { .kind = K_MASK_FIXED, .length = 7, .summary_len = 2, .summary_slots = 2, .patterns = K_PATTERNS_SPLIT },
    { .kind = K_MASK_FIXED, .length = 5, .summary_len = 1, .summary_slots = 2, .patterns = K_PATTERNS_FIRST },
    { .kind = K_MASK_FIXED, .length = 5, .summary_len = 2, .summary_slots = 1, .patterns = K_PATTERNS_SECOND },
    { .kind = K_MASK_IMAGE, .width = 1, .query_h = 3, .query_w = 2, .flange_h = 1, .flange_w = 1 },
    { .kind = K_MASK_IMAGE, .width = 5, .query_h = 2, .query_w = 2, .flange_h = 1, .flange_w = 1 },
    { .kind = K_MASK_IMAGE, .width = 7, .query_h = 1, .query_w = 3, .flange_h = 2, .flange_w = 0 },
    { .kind = K_MASK_IMAGE, .width = 5, .query_h = 3, .query_w = 2, .flange_h = 0, .flange_w = 3 },
    { .kind = K_MASK_IMAGE, .width = 6, .query_h = 2, .query_w = 2, .flange_h = 1, .flange_w = 2, .order = K_ORDER_BLOCK },
    { .kind = K_MASK_IMAGE, .width = 100, .query_h = 8, .query_w = 16, .flange_h = 8, .flange_w = 16 },
};
enum { NMASKS = sizeof MASKS / sizeof *MASKS };

static int floor_div(int a, int b) { return a / b - (a % b < 0); }

/* Two patterns under a head mode. */
static int patterns(const k_mask *m, int h, int first, int second)
{
    int mode = m->patterns;
    return mode == K_PATTERNS_MERGED ? first || second : mode == K_PATTERNS_FIRST || (mode == K_PATTERNS_SPLIT && h % 2 == 0) ? first : second;
}

/* The picture, for a query on it. */
static int image(const k_mask *m, int p, int j)
{
    int r = p / m->width, r0 = r - r % m->query_h, c = p % m->width, c0 = c - c % m->query_w, row = j / m->width, column = j % m->width;
    int near = column >= c0 - m->flange_w && column < c0 + m->query_w + m->flange_w;
    if (!m->causal)
        return near && row >= r0 - m->flange_h && row < r0 + m->query_h + m->flange_h;
    if (row < r0)
        return near && row >= r0 - m->flange_h;
    if (row >= r0 + m->query_h || !near || column >= c0 + m->query_w)
        return 0;
    return j <= p || (m->order == K_ORDER_BLOCK && column < c0);
}

/* The definition, once more. */
static int sees(const k_mask *m, int h, int p, int j)
{
    int l = m->length, own, slot;
    if (m->kind == K_MASK_IMAGE)
        return p >= 0 && image(m, p, j);
    if (m->causal && j > p)
        return 0;
    switch (m->kind) {
    case K_MASK_WINDOW: return j - p < l && p - j < l;
    case K_MASK_BLOCK: own = floor_div(p, l) * l; return j >= own - m->left && j < own + l + m->right;
    case K_MASK_STRIDED: return patterns(m, h, j - p < l && p - j < l, (p - j) % l == 0);
    case K_MASK_FIXED:
        slot = (m->patterns == K_PATTERNS_SPLIT ? h / 2 : h) % m->summary_slots;
        return patterns(m, h, floor_div(j, l) == floor_div(p, l), (l - 1 - j % l) / m->summary_len == slot);
    default: return 1;
    }
}

/* Every pair once, nothing else. */
static void covers(const k_mask *m, const k_scope *s)
{
    static int count[MAX_T][MAX_T];
    double pairs = 0;
    memset(count, 0, sizeof count);
    for (int64_t n = 0; n < k_mask_passes(m, s); n++) {
        k_pass a = k_mask_pass(m, s, n);
        for (int i = 0; i < a.nq; i++) {
            int64_t row = a.q0 + i * a.qstep - s->first;
            k_span seen = k_pass_span(&a, i);
            assert_in_range(row, 0, s->Tq - 1);
            assert_true(seen.from >= 0 && seen.from <= seen.to && seen.to <= a.nk);
            for (int t = seen.from; t < seen.to; t++) {
                assert_in_range(a.k0 + t * a.kstep, 0, s->keys - 1);
                count[row][a.k0 + t * a.kstep]++;
            }
        }
    }
    for (int i = 0; i < s->Tq; i++) for (int j = 0; j < s->keys; j++) {
        int want = sees(m, s->head, (int)s->first + i, j);
        if (count[i][j] != want)
            fail_msg("mask %d causal %d head %d: query at %d and key %d of %d: %d times instead of %d", (int)m->kind, m->causal,
                     s->head, (int)s->first + i, j, s->keys, count[i][j], want);
        pairs += want;
    }
    assert_true(k_mask_pairs(m, s) == pairs);
}

static void test_passes(void **state)
{
    static const struct { int Tq, Tk; } sizes[] = { { 1, 1 }, { 5, 5 }, { 48, 48 }, { 1, 30 }, { 7, 40 }, { 9, 4 } };
    (void)state;
    for (int n = 0; n < NMASKS; n++) for (int z = 0; z < 6; z++) for (int causal = 0; causal < 2; causal++) {
        k_mask m = MASKS[n];
        m.causal = causal;
        int other = sizes[z].Tq != sizes[z].Tk;
        for (int h = 0; h < HEADS && !(other && (!causal || m.order == K_ORDER_BLOCK)); h++)
            for (int absent = 0; absent < 3; absent++) {
                int keys = absent == 2 ? 0 : sizes[z].Tk - absent;
                covers(&m, &(k_scope){ sizes[z].Tk - sizes[z].Tq, sizes[z].Tq, keys, h });
            }
    }
}

/* Writes key after key where the state puts it; every query must find what it sees. */
static void test_decode_rows(void **state)
{
    (void)state;
    for (int n = 0; n < NMASKS; n++) for (int capacity = 1; capacity <= MAX_T; capacity++) {
        k_mask m = MASKS[n];
        m.causal = 1;
        int64_t rows = k_mask_rows(&m, capacity), holds[4 * MAX_T];
        assert_in_range(rows, 1, 4 * MAX_T);
        for (int p = 0; p < capacity && m.order == K_ORDER_RASTER; p++) {
            int64_t row = k_mask_row(&m, capacity, p), summary = k_mask_summary_row(&m, capacity, p);
            assert_in_range(row, 0, k_mask_ring(&m, capacity) - 1);
            assert_true(summary == -1 || (summary >= k_mask_ring(&m, capacity) && summary < rows));
            holds[row] = p;
            if (summary >= 0)
                holds[summary] = p;
            for (int j = 0; j <= p; j++) for (int h = 0; h < HEADS; h++) {
                int old = m.kind == K_MASK_FIXED && j / m.length < p / m.length;
                if (sees(&m, h, p, j))
                    assert_int_equal(holds[old ? k_mask_summary_row(&m, capacity, j) : k_mask_row(&m, capacity, j)], j);
            }
        }
    }
}

/* The table of VARIANTS: what decoding holds for a million tokens. */
static void test_state_sizes(void **state)
{
    const int64_t T = 1000000;
    (void)state;
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_WINDOW, .length = 256 }, T), 256);
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_BLOCK, .length = 128, .left = 64 }, T), 192);
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_STRIDED, .length = 1000 }, T), T);
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_FIXED, .length = 1000, .summary_len = 8, .summary_slots = 2 }, T), 1000 + 16 * 1000);
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_IMAGE, .width = 96, .query_h = 8, .query_w = 16, .flange_h = 4 }, T), 12 * 96);
    assert_int_equal(k_mask_rows(&(k_mask){ .kind = K_MASK_WINDOW, .length = 256 }, 10), 10);
}

/* ---- a long sequence -------------------------------------------------------------------------------------------------- */

enum { LONG = 1100, WIDTH = 4 };        /* more than two shares of queries, the last one short */

/* The definition, as the reference asks for it. */
static int predicate(const void *options, int causal, int head, int64_t p, int64_t j)
{
    const k_mask *m = options;
    assert_int_equal(causal, m->causal);
    return sees(m, head, (int)p, (int)j);
}

/* [1,1,LONG,WIDTH] */
static k_heads tensor(void *p) { return (k_heads){ p, LONG * WIDTH, LONG * WIDTH, WIDTH }; }

/* Float against double, and one thread against three, bit by bit. */
static void long_sequence(const k_mask *m)
{
    static float in[3][LONG * WIDTH], o[2][LONG * WIDTH], lse[LONG];
    static double din[3][LONG * WIDTH], exact[LONG * WIDTH], dlse[LONG];
    const k_position none = { 0 };
    for (int n = 0; n < 3; n++) for (int i = 0; i < LONG * WIDTH; i++)
        din[n][i] = in[n][i] = (float)((i * (7 + 4 * n) + i / 5 * 13) % 101) / 50 - 1;
    k_attention a = { .B = 1, .Hq = 1, .Hk = 1, .Tq = LONG, .Tk = LONG, .Dk = WIDTH, .Dv = WIDTH, .scale = 1, .mask = *m,
                      .position = &none, .sees = predicate, .options = m };
    k_attention d = a;
    d.q = tensor(din[0]), d.k = tensor(din[1]), d.v = tensor(din[2]), d.o = tensor(exact), d.lse = dlse;
    d.scratch = malloc(k_dattention_scratch(&d) * sizeof(double));
    assert_non_null(d.scratch);
    k_dattention_forward(&d);
    a.q = tensor(in[0]), a.k = tensor(in[1]), a.v = tensor(in[2]), a.lse = lse;
    for (int n = 0; n < 2; n++) {
        a.o = tensor(o[n]);
        a.threads = 1 + 2 * n;
        k_attention_forward(&a);
    }
    assert_memory_equal(o[0], o[1], sizeof o[0]);
    for (int i = 0; i < LONG; i++)
        assert_true(lse[i] == dlse[i] || fabs(lse[i] - dlse[i]) < 1e-5);
    for (int i = 0; i < LONG * WIDTH; i++)
        assert_true(fabs(o[0][i] - exact[i]) < 1e-5);
    free(d.scratch);
}

static void test_long_sequence(void **state)
{
    static const k_mask masks[] = {
        { .kind = K_MASK_ALL }, { .kind = K_MASK_WINDOW, .length = 100 }, { .kind = K_MASK_BLOCK, .length = 90, .left = 90, .right = 90 },
        { .kind = K_MASK_STRIDED, .length = 33 }, { .kind = K_MASK_FIXED, .length = 33, .summary_len = 3, .summary_slots = 2, .patterns = K_PATTERNS_SECOND },
        { .kind = K_MASK_IMAGE, .width = 50, .query_h = 3, .query_w = 7, .flange_h = 2, .flange_w = 4, .order = K_ORDER_BLOCK },
    };
    (void)state;
    for (int n = 0; n < 6; n++) for (int causal = 0; causal < 2; causal++) {
        k_mask m = masks[n];
        m.causal = causal;
        long_sequence(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passes), cmocka_unit_test(test_decode_rows), cmocka_unit_test(test_state_sizes),
        cmocka_unit_test(test_long_sequence),
    };
    return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
