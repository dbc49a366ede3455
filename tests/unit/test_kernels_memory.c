/* Devices by name, accounts by tag and phase, limits, guards, arenas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "kernels/kernels.h"

static k_dev *open_cpu(void)
{
    k_dev *dev;
    char err[256];
    assert_int_equal(k_dev_open("cpu", 1, &dev, err, sizeof err), 0);
    return dev;
}

static void *take(k_dev *dev, k_tag tag, size_t bytes)
{
    void *p;
    assert_int_equal(k_alloc(dev, tag, bytes, &p), 0);
    assert_int_equal((uintptr_t)p % K_ALIGN, 0);
    return p;
}

static void devices_have_names(void **state)
{
    (void)state;
    k_dev *dev;
    char err[256] = "";
    assert_int_equal(k_dev_open("gpu", 0, &dev, err, sizeof err), K_EINVAL);
    assert_null(dev);
    assert_string_equal(err, "no device gpu: expected cpu, cuda or cuda:N");
    assert_int_equal(k_dev_open("cuda:x", 0, &dev, err, sizeof err), K_EINVAL);
    assert_int_equal(k_dev_open("cuda:-1", 0, &dev, err, sizeof err), K_EINVAL);
    dev = open_cpu();
    assert_string_equal(k_dev_name(dev), "cpu");
    assert_int_equal(k_dev_is_cuda(dev), 0);
    assert_int_equal(k_dev_threads(dev), 1);
    assert_null(k_dev_stream(dev));
    assert_int_equal(k_sync(dev), 0);
    k_dev_close(dev);
    assert_non_null(strstr(k_blas_describe(), "OpenBLAS"));
    assert_non_null(strstr(k_cpu_describe(), "cores"));
}

/* Without the CUDA half beside the library the sentence says so; with it, the device opens or its driver tells why. */
static void cuda_is_found_or_explained(void **state)
{
    (void)state;
    k_dev *dev;
    char err[256] = "";
    if (k_dev_open("cuda:0", 1, &dev, err, sizeof err) == 0) {
        assert_string_equal(k_dev_name(dev), "cuda:0");
        assert_true(k_dev_is_cuda(dev));
        k_dev_close(dev);
    } else {
        assert_null(dev);
        assert_memory_equal(err, "no CUDA device: ", 16);
    }
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    static const struct { k_dtype t; const char *name; size_t size; } all[] = {
        { K_F32, "f32", 4 }, { K_BF16, "bf16", 2 }, { K_F16, "f16", 2 }, { K_F64, "f64", 8 }, { K_I32, "i32", 4 } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        k_dtype t;
        assert_string_equal(k_dtype_name(all[i].t), all[i].name);
        assert_int_equal(k_dtype_size(all[i].t), all[i].size);
        assert_int_equal(k_dtype_parse(all[i].name, &t), 0);
        assert_int_equal(t, all[i].t);
    }
    k_dtype t;
    assert_int_equal(k_dtype_parse("f33", &t), K_EINVAL);
}

static void every_byte_has_a_tag_and_a_phase(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    k_memory m;
    void *p = take(dev, K_TAG_PARAM, 1000);
    k_set_phase(dev, K_PHASE_FORWARD);
    void *a = take(dev, K_TAG_ACTIVATION, 3), *b = take(dev, K_TAG_ACTIVATION, 500);
    k_free(dev, a);
    k_set_phase(dev, K_PHASE_BACKWARD);
    void *g = take(dev, K_TAG_GRAD, 100);
    k_free(dev, b);
    k_free(dev, g);
    k_set_phase(dev, K_PHASE_STEP);
    k_memory_read(dev, &m);
    assert_int_equal(m.now, 1000);
    assert_int_equal(m.peak, 1600);
    assert_int_equal(m.now_tag[K_TAG_ACTIVATION], 0);
    assert_int_equal(m.peak_tag[K_TAG_ACTIVATION], 503);
    assert_int_equal(m.peak_tag[K_TAG_PARAM], 1000);
    assert_int_equal(m.peak_phase[K_PHASE_SETUP], 1000);
    assert_int_equal(m.peak_phase[K_PHASE_FORWARD], 1503);
    assert_int_equal(m.peak_phase[K_PHASE_BACKWARD], 1600);
    assert_int_equal(m.peak_phase[K_PHASE_STEP], 1000);
    assert_int_equal(m.peak_phase[K_PHASE_DECODE], 0);
    assert_int_equal(m.peak_phase_tag[K_PHASE_BACKWARD][K_TAG_ACTIVATION], 500);
    assert_int_equal(m.peak_phase_tag[K_PHASE_BACKWARD][K_TAG_GRAD], 100);
    assert_int_equal(m.peak_phase_tag[K_PHASE_FORWARD][K_TAG_GRAD], 0);
    k_free(dev, p);
    k_free(dev, NULL);
    k_memory_read(dev, &m);
    assert_int_equal(m.now, 0);
    k_dev_close(dev);
}

static void a_limit_is_kept_and_told(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    void *p = take(dev, K_TAG_PARAM, 400), *q = p;
    k_set_limit(dev, 1000);
    assert_int_equal(k_alloc(dev, K_TAG_ACTIVATION, 601, &q), K_ENOMEM);
    assert_null(q);
    assert_string_equal(k_error(dev), "asked 601 bytes for activations, 600 of 1000 free");
    q = take(dev, K_TAG_ACTIVATION, 600);
    k_free(dev, q);
    k_set_limit(dev, 300);                      /* below what is already there */
    assert_int_equal(k_alloc(dev, K_TAG_STATE, 1, &q), K_ENOMEM);
    assert_string_equal(k_error(dev), "asked 1 bytes for state, 0 of 300 free");
    k_set_limit(dev, 0);
    take(dev, K_TAG_STATE, 5 << 20);
    k_dev_close(dev);
}

static void absurd_sizes_fail_cleanly(void **state)
{
    (void)state;
    static const size_t absurd[] = { 1000000000000000, SIZE_MAX, SIZE_MAX - 255, SIZE_MAX - 600, SIZE_MAX / 2 };
    k_dev *dev = open_cpu();
    k_memory m;
    void *p = take(dev, K_TAG_PARAM, 64);
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        void *q = p;
        char asked[64];
        assert_int_equal(k_alloc(dev, K_TAG_WORKSPACE, absurd[i], &q), K_ENOMEM);
        assert_null(q);
        snprintf(asked, sizeof asked, "asked %zu bytes for workspace, ", absurd[i]);
        assert_memory_equal(k_error(dev), asked, strlen(asked));
    }
    k_memory_read(dev, &m);
    assert_int_equal(m.now, 64);
    k_dev_close(dev);
}

static void writes_outside_are_found_and_named(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    char what[128] = "";
    unsigned char *a = take(dev, K_TAG_ACTIVATION, 4096), *b = take(dev, K_TAG_STATE, 33);
    take(dev, K_TAG_PARAM, 0);
    memset(a, 0, 4096);
    memset(b, 0, 33);
    assert_int_equal(k_check_guards(dev, what, sizeof what), 0);
    a[4098] ^= 1;
    assert_int_equal(k_check_guards(dev, what, sizeof what), K_EGUARD);
    assert_string_equal(what, "activations buffer of 4096 bytes, 3 bytes past its end");
    a[4098] ^= 1;
    assert_int_equal(k_check_guards(dev, what, sizeof what), 0);
    b[-2] ^= 255;
    assert_int_equal(k_check_guards(dev, what, sizeof what), K_EGUARD);
    assert_string_equal(what, "state buffer of 33 bytes, 2 bytes before its start");
    b[-2] ^= 255;
    b[33] ^= 8;
    k_free(dev, b);
    assert_string_equal(k_error(dev), "written outside: state buffer of 33 bytes, 1 bytes past its end");
    assert_int_equal(k_check_guards(dev, what, sizeof what), 0);
    k_free(dev, a + 1);
    assert_non_null(strstr(k_error(dev), "not allocated on cpu"));
    k_dev_close(dev);
}

#ifdef K_DEBUG
static void debug_memory_is_poisoned(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    double *x = take(dev, K_TAG_SAVED, 17 * sizeof *x);
    for (int i = 0; i < 17; i++)
        assert_true(x[i] != x[i]);
    assert_false(k_all_finite(dev, K_F32, 34, x));
    k_dev_close(dev);
}
#endif

static void an_arena_fills_from_the_front(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    k_arena a;
    k_memory m;
    assert_int_equal(k_arena_init(&a, dev, K_TAG_WORKSPACE, 1000), 0);
    char *p = k_arena_take(&a, 1), *q = k_arena_take(&a, 300);
    assert_ptr_equal(q, p + K_ALIGN);
    assert_null(k_arena_take(&a, 300));         /* 768 + 300 > 1000 */
    assert_null(k_arena_take(&a, SIZE_MAX));
    assert_non_null(k_arena_take(&a, 232));
    assert_null(k_arena_take(&a, 1));
    assert_int_equal(a.peak, 1000);
    k_arena_reset(&a);
    assert_ptr_equal(k_arena_take(&a, 1000), p);
    k_arena_release(&a);
    k_memory_read(dev, &m);
    assert_int_equal(m.now, 0);
    k_set_limit(dev, 10);
    assert_int_equal(k_arena_init(&a, dev, K_TAG_WORKSPACE, 11), K_ENOMEM);
    assert_null(k_arena_take(&a, 1));
    k_arena_release(&a);
    k_dev_close(dev);
}

/* Sleeps for arg's nanoseconds; fails when there are none. */
static int sleep_for(void *arg)
{
    const struct timespec t = { .tv_nsec = *(long *)arg };
    return t.tv_nsec ? nanosleep(&t, NULL) : -1;
}

static void work_is_timed(void **state)
{
    (void)state;
    k_dev *dev = open_cpu();
    long wait = 3000000, none = 0;
    for (int cold = 0; cold < 2; cold++) {
        const double seconds = k_time(dev, sleep_for, &wait, cold);
        assert_true(seconds >= 0.003 && seconds < 1);
        assert_true(k_time(dev, sleep_for, &none, cold) < 0);
    }
    k_dev_close(dev);
}

/* Counts its calls. */
static int count_call(void *arg) { ++*(int *)arg; return 0; }

static void the_cpu_keeps_no_recordings(void **state)
{
    (void)state;
    int calls = 0;
    char text[64];
    k_dev *dev = open_cpu();
    assert_null(k_record(dev, count_call, &calls));
    assert_int_equal(calls, 0);
    k_forget(dev, NULL);
    k_set_tf32(dev, 1);                         /* means nothing here, and neither do names for a profiler */
    k_range_push(dev, "a range");
    k_range_pop(dev);
    assert_string_equal(k_dev_describe(dev, text, sizeof text), k_cpu_describe());
    k_dev_close(dev);
}

/* Pages that were touched show, and stay when they are gone. */
static void the_system_sees_memory(void **state)
{
    (void)state;
    enum { BYTES = 256 << 20 };
    k_dev *dev = open_cpu();
    void *p = take(dev, K_TAG_DATA, BYTES);
    memset(p, 1, BYTES);
    k_free(dev, p);
    assert_true(k_memory_seen(dev) >= BYTES);
    k_dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_have_names), cmocka_unit_test(cuda_is_found_or_explained),
        cmocka_unit_test(dtypes_have_names_and_sizes), cmocka_unit_test(every_byte_has_a_tag_and_a_phase),
        cmocka_unit_test(a_limit_is_kept_and_told), cmocka_unit_test(absurd_sizes_fail_cleanly),
        cmocka_unit_test(writes_outside_are_found_and_named), cmocka_unit_test(an_arena_fills_from_the_front),
        cmocka_unit_test(work_is_timed), cmocka_unit_test(the_system_sees_memory),
        cmocka_unit_test(the_cpu_keeps_no_recordings),
#ifdef K_DEBUG
        cmocka_unit_test(debug_memory_is_poisoned),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
