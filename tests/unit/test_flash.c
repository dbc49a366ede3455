/* test_flash.c - softmax attention of one long sequence: however many threads there are, the bits are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/flash.h"
#include "kernels/kernels.h"

enum { T = 1100, D = 24, NUMBERS = T * D };

/* o, dq, dk and dv [T,D] of one head into out, with so many threads; x: q, k, v and the gradient of o. */
static void compute(k_mask mask, int threads, float *x, float *out)
{
    const k_position none = { 0 };
    k_heads t[8];
    for (int i = 0; i < 8; i++)
        t[i] = (k_heads){ i < 4 ? x + i * NUMBERS : out + (i - 4) * NUMBERS, NUMBERS, NUMBERS, D };
    k_attention a = { .B = 1, .Hq = 1, .Hk = 1, .Tq = T, .Tk = T, .Dk = D, .Dv = D, .threads = threads, .scale = 0.2, .mask = mask,
                      .position = &none, .q = t[0], .k = t[1], .v = t[2], .d_o = t[3], .o = t[4], .dq = t[5], .dk = t[6], .dv = t[7] };
    float *scratch = malloc(k_attention_scratch(&a) * sizeof *scratch);
    assert_non_null(scratch);
    a.lse = malloc(T * sizeof(float));
    a.scratch = scratch;
    k_attention_forward(&a);
    k_attention_backward(&a);
    free(a.lse);
    free(scratch);
}

static void test_threads(void **state)
{
    static const k_mask MASKS[] = { { .kind = K_MASK_ALL }, { .kind = K_MASK_ALL, .causal = 1 }, { .kind = K_MASK_WINDOW, .length = 300, .causal = 1 },
                                    { .kind = K_MASK_STRIDED, .length = 7 }, { .kind = K_MASK_BLOCK, .length = 64, .left = 500, .right = 10 } };
    static float x[4 * NUMBERS], one[4 * NUMBERS], many[4 * NUMBERS];
    k_dev *dev;
    char why[200];
    (void)state;
    assert_int_equal(k_dev_open("cpu", 1, &dev, why, sizeof why), K_OK);
    k_random_normal(dev, K_F32, 4 * NUMBERS, x, (k_rng){ 1, 2, 3 }, 0, 1);
    k_dev_close(dev);
    for (size_t m = 0; m < sizeof MASKS / sizeof *MASKS; m++) {
        compute(MASKS[m], 1, x, one);
        for (int threads = 2; threads <= 9; threads += 7) {
            memset(many, 0xFF, sizeof many);
            compute(MASKS[m], threads, x, many);
            assert_memory_equal(one, many, sizeof one);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests_name("flash", tests, NULL, NULL);
}
