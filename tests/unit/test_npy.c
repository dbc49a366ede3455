/* test_npy.c - NPY files: what is written is read again, and no header is trusted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "npy.h"

static char folder[] = "/tmp/npy.XXXXXX", path[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/x.npy", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* A file with this version, header text and number of data bytes. */
static void make(int version, const char *header, size_t data)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    size_t n = strlen(header);
    fprintf(f, "\x93NUMPY%c%c", version, 0);
    for (int i = 0; i < (version == 1 ? 2 : 4); i++) fputc((int)(n >> 8 * i & 255), f);
    fputs(header, f);
    for (size_t i = 0; i < data; i++) fputc(0, f);
    assert_int_equal(fclose(f), 0);
}

/* The header is refused with a sentence that begins with the path and holds `part`. */
static void refused(const char *header, size_t data, const char *part)
{
    hs_npy a;
    char why[300] = "";
    make(1, header, data);
    assert_int_equal(hs_npy_read(path, &a, why, sizeof why), -1);
    assert_null(a.data);
    if (strncmp(why, path, strlen(path)) || !strstr(why, part)) fail_msg("'%s' should hold '%s'", why, part);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const int64_t shapes[][5] = { { 0 }, { 1, 7 }, { 2, 3, 2 }, { 4, 2, 1, 3, 2 } };
    for (int t = HS_NPY_F32; t <= HS_NPY_I64; t++) for (int s = 0; s < 4; s++) {
        unsigned char data[12 * 8];
        char why[300];
        hs_npy a = { .type = (hs_npy_type)t, .ndim = (int)shapes[s][0], .n = 1, .data = data }, b;
        for (int i = 0; i < a.ndim; i++) a.n *= a.shape[i] = shapes[s][1 + i];
        for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37 + 11);
        assert_int_equal(hs_npy_write(path, &a, why, sizeof why), 0);
        assert_int_equal(hs_npy_read(path, &b, why, sizeof why), 0);
        assert_int_equal(b.type, a.type);
        assert_int_equal(b.ndim, a.ndim);
        assert_int_equal(b.n, a.n);
        for (int i = 0; i < a.ndim; i++) assert_int_equal(b.shape[i], a.shape[i]);
        assert_memory_equal(b.data, data, (size_t)a.n * hs_npy_width(a.type));
        hs_npy_release(&b);
    }
}

/* The data of a written file begin on a multiple of 64 bytes, as NumPy's do. */
static void test_alignment(void **state)
{
    (void)state;
    double x[6] = { 0 };
    char why[300];
    for (int64_t rows = 1; rows <= 6; rows++) {
        hs_npy a = { .type = HS_NPY_F64, .ndim = 1, .shape = { rows }, .n = rows, .data = x };
        assert_int_equal(hs_npy_write(path, &a, why, sizeof why), 0);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        fseek(f, 0, SEEK_END);
        assert_int_equal((ftell(f) - rows * 8) % 64, 0);
        fclose(f);
    }
}

static void test_versions_and_spelling(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n", "{'shape':(2,3),'descr':\"<f8\",'fortran_order':False}",
        "{ 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , 'descr' : '=f8' }   \n",
    };
    for (int version = 1; version <= 3; version++) for (size_t i = 0; i < 3; i++) {
        hs_npy a;
        char why[300] = "";
        make(version, headers[i], 48);
        if (hs_npy_read(path, &a, why, sizeof why)) fail_msg("version %d, %s: %s", version, headers[i], why);
        assert_int_equal(a.ndim, 2);
        assert_int_equal(a.shape[0], 2);
        assert_int_equal(a.shape[1], 3);
        hs_npy_release(&a);
    }
}

static void test_hostile_headers(void **state)
{
    (void)state;
#define HEAD(descr, fortran, shape) "{'descr': " descr ", 'fortran_order': " fortran ", 'shape': " shape ", }\n"
    refused(HEAD("'>f8'", "False", "(1,)"), 8, "big-endian");
    refused(HEAD("'|O'", "False", "(1,)"), 8, "objects");
    refused(HEAD("'<f2'", "False", "(1,)"), 2, "'<f2'");
    refused(HEAD("[('a', '<f8')]", "False", "(1,)"), 8, "records");
    refused(HEAD("'<f8'", "True", "(2, 2)"), 32, "Fortran");
    refused(HEAD("'<f8'", "Maybe", "(1,)"), 8, "fortran_order");
    refused(HEAD("'<f8'", "False", "(2, 2)"), 24, "truncated");
    refused(HEAD("'<f8'", "False", "(2, 2)"), 40, "damaged");
    refused(HEAD("'<f8'", "False", "(-1,)"), 8, "no number");
    refused(HEAD("'<f8'", "False", "(2 2)"), 32, "does not end");
    refused(HEAD("'<f8'", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 8, "dimensions");
    refused(HEAD("'<f8'", "False", "(99999999999999999999,)"), 8, "too large");
    refused(HEAD("'<f8'", "False", "(4294967296, 4294967296)"), 8, "too large");
    refused(HEAD("'<f8'", "False", "(2305843009213693951, 1)"), 8, "too large");
    refused(HEAD("'<f8'", "False", "(1000000000, 1000)"), 8, "truncated");
    refused(HEAD("'<f8'", "False", "7"), 8, "tuple");
    refused("{'descr': '<f8', 'shape': (1,)}", 8, "missing");
    refused("{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", 8, "twice");
    refused("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}", 8, "'x'");
    refused("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} import os", 8, "more behind");
    refused("{'descr': '<f8", 8, "does not end");
    refused("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)", 8, "does not end");
    refused("", 8, "begin");
    refused("[]", 8, "begin");
}

/* Every prefix of a good file is refused and none crashes. */
static void test_prefixes(void **state)
{
    (void)state;
    double x[3] = { 1, 2, 3 };
    char why[300], bytes[256];
    hs_npy a = { .type = HS_NPY_F64, .ndim = 1, .shape = { 3 }, .n = 3, .data = x }, b;
    assert_int_equal(hs_npy_write(path, &a, why, sizeof why), 0);
    FILE *f = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        f = fopen(path, "wb");
        fwrite(bytes, 1, i, f);
        fclose(f);
        assert_int_equal(hs_npy_read(path, &b, why, sizeof why), -1);
    }
}

static void test_files(void **state)
{
    (void)state;
    hs_npy a;
    char why[300];
    assert_int_equal(hs_npy_read("/nowhere/x.npy", &a, why, sizeof why), -1);
    assert_non_null(strstr(why, "No such file"));
    assert_int_equal(hs_npy_read(folder, &a, why, sizeof why), -1);
    assert_int_equal(hs_npy_read("/dev/zero", &a, why, sizeof why), -1);
    assert_non_null(strstr(why, "no regular file"));
    double x = 1;
    a = (hs_npy){ .type = HS_NPY_F64, .ndim = 0, .n = 1, .data = &x };
    assert_int_equal(hs_npy_write("/nowhere/x.npy", &a, why, sizeof why), -1);
    assert_int_equal(hs_npy_write("/dev/full", &a, why, sizeof why), -1);
}

static void test_shape_text(void **state)
{
    (void)state;
    char out[64];
    assert_string_equal(hs_npy_shape_text(3, (int64_t[]){ 2, 4, 5 }, out, sizeof out), "[2, 4, 5]");
    assert_string_equal(hs_npy_shape_text(0, NULL, out, sizeof out), "[]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_alignment), cmocka_unit_test(test_versions_and_spelling),
        cmocka_unit_test(test_hostile_headers), cmocka_unit_test(test_prefixes), cmocka_unit_test(test_files), cmocka_unit_test(test_shape_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
