/* test_progress.c - the lines of a sweep: what they say, how wide they get, where they go. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "progress.h"

static void seconds_are_short(void **state)
{
    (void)state;
    const struct { double s; const char *text; } cases[] = {{0, "0.0s"}, {0.44, "0.4s"}, {9.96, "10s"}, {59.4, "59s"}, {59.6, "1m00s"},
        {200, "3m20s"}, {3599, "59m59s"}, {3720, "1h02m"}, {-1, "?"}, {NAN, "?"}};
    char out[16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hs_format_seconds(cases[i].s, out, sizeof out);
        assert_string_equal(out, cases[i].text);
    }
}

static void time_left_is_the_mean_times_what_is_left(void **state)
{
    (void)state;
    hs_sweep s = {.total = 20, .had = 4, .ended = 6, .jobs = 2, .busy = 30};
    assert_true(hs_sweep_left(&s) == 25);           /* 10 cells of 5 s, two at a time */
    s.ended = 0;
    assert_true(hs_sweep_left(&s) < 0);
    s = (hs_sweep){.total = 3, .ended = 2, .jobs = 8, .busy = 10};
    assert_true(hs_sweep_left(&s) == 5);            /* one cell cannot be shared by eight */
    s.had = 1;
    assert_true(hs_sweep_left(&s) == 0);
}

static void rows_say_where_a_cell_is(void **state)
{
    (void)state;
    char out[256];
    hs_row r = {"DPFP-1", "keys=20 seed=1", 1200, 100000, "eval_loss", 0.03125, 75};
    hs_row_text(&r, 0, out, sizeof out);
    assert_string_equal(out, "  DPFP-1  keys=20 seed=1  1200/100000  eval_loss 0.03125  1m15s");
    hs_row fresh = {.label = "softmax", .axes = ""};
    hs_row_text(&fresh, 0, out, sizeof out);
    assert_null(strstr(out, "/0"));
    assert_null(strstr(out, "nan"));
}

static void lines_keep_to_the_terminal(void **state)
{
    (void)state;
    char out[256];
    hs_row r = {"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", "keys=20", 0, 0, "", 0, 1};
    for (size_t width = 1; width < 40; width++) {
        hs_row_text(&r, width, out, sizeof out);
        size_t columns = 0;
        for (const char *c = out; *c; c++) columns += (*c & 0xC0) != 0x80;
        assert_true(columns <= width);
        if (strlen(out) > 0 && columns == width && width < 20) assert_int_equal(out[strlen(out) - 1], '~');
    }
}

static void the_sweep_says_done_failed_left_and_best(void **state)
{
    (void)state;
    char out[256];
    hs_sweep s = {.total = 10, .had = 2, .ended = 4, .failed = 1, .jobs = 1, .busy = 8, .best_metric = "best_eval_loss", .best_value = 0.00031, .best_label = "softmax keys=20"};
    hs_sweep_text(&s, 0, out, sizeof out);
    assert_string_equal(out, "6/10 cells, 1 failed, about 8.0s left, best best_eval_loss 0.00031 (softmax keys=20)");
    s = (hs_sweep){.total = 3, .jobs = 1};
    hs_sweep_text(&s, 0, out, sizeof out);
    assert_string_equal(out, "0/3 cells");
}

static void axes_are_told_without_the_label(void **state)
{
    (void)state;
    char out[128], small[8];
    json_t *axes = json_pack("{s:i, s:s, s:f, s:[i,i]}", "keys", 20, "variant", "DPFP-1", "lr", 0.001, "sizes", 1, 2);
    hs_axes_text(axes, out, sizeof out);
    assert_string_equal(out, "keys=20 lr=0.001 sizes=[1,2]");
    hs_axes_text(axes, small, sizeof small);
    assert_int_equal(strlen(small), sizeof small - 1);
    json_decref(axes);
}

/* What a progress of this kind writes for one cell that ended with this status. */
static void capture(int quiet, enum hs_color color, enum hs_status status, char *out, size_t n)
{
    FILE *f = tmpfile();
    hs_progress p;
    json_t *axes = json_pack("{s:i}", "keys", 20);
    hs_cell cell = {.label = "softmax", .axes = axes};
    hs_result result = {.status = status, .reason = status == HS_DONE ? NULL : "why", .seconds = 1.5};
    hs_sweep sweep = {.total = 2, .ended = 1, .jobs = 1, .busy = 1.5, .elapsed = 2};
    hs_progress_init(&p, fileno(f), quiet, color);
    hs_progress_draw(&p, NULL, 0, &sweep);
    hs_progress_ended(&p, &cell, &result, &sweep);
    sweep.elapsed = 5;
    hs_progress_draw(&p, NULL, 0, &sweep);      /* too early: nothing */
    sweep.elapsed = 13;
    hs_progress_draw(&p, NULL, 0, &sweep);
    rewind(f);
    size_t got = fread(out, 1, n - 1, f);
    out[got] = 0;
    fclose(f);
    json_decref(axes);
}

static void plain_lines_elsewhere(void **state)
{
    (void)state;
    char out[1024];
    capture(0, HS_COLOR_AUTO, HS_CRASHED, out, sizeof out);
    assert_string_equal(out, "[1/2] softmax keys=20: crashed in 1.5s: why\n1/2 cells, about 1.5s left\n");
    capture(0, HS_COLOR_ALWAYS, HS_DONE, out, sizeof out);
    assert_non_null(strstr(out, "\033[32mdone\033[0m in 1.5s\n"));
    capture(1, HS_COLOR_ALWAYS, HS_CRASHED, out, sizeof out);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_are_short), cmocka_unit_test(time_left_is_the_mean_times_what_is_left), cmocka_unit_test(rows_say_where_a_cell_is),
        cmocka_unit_test(lines_keep_to_the_terminal), cmocka_unit_test(the_sweep_says_done_failed_left_and_best),
        cmocka_unit_test(axes_are_told_without_the_label), cmocka_unit_test(plain_lines_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
