/* test_protocol.c - numbers, text and lines between runner and worker, and children that end badly. */
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "child.h"
#include "protocol.h"

/* Through text and back, as the pipe does it. */
static double round_trip(double x)
{
    json_t *out = hs_json_number(x);
    char *text = json_dumps(out, JSON_ENCODE_ANY);
    json_t *in = json_loads(text, JSON_DECODE_ANY, NULL);
    double y = hs_json_double(in);
    json_decref(out);
    json_decref(in);
    free(text);
    return y;
}

static void numbers_survive_to_the_bit(void **state)
{
    (void)state;
    const double xs[] = {0, -0.0, 1, 0.1, 1.0 / 3, DBL_MIN, DBL_MAX, -DBL_MAX, 4.9e-324, 1e22, 123456789012345678.0, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof xs / sizeof *xs; i++) {
        double y = round_trip(xs[i]);
        assert_memory_equal(&y, &xs[i], sizeof y);
    }
    assert_true(isnan(round_trip(NAN)));
    json_t *word = json_string("seven");
    assert_true(isnan(hs_json_double(word)));
    assert_true(isnan(hs_json_double(NULL)));
    json_decref(word);
}

static void text_of_any_bytes_becomes_json(void **state)
{
    (void)state;
    const char *cases[][2] = {
        {"plain", "plain"}, {"caf\xc3\xa9", "caf\xc3\xa9"}, {"\xff\xfe", "??"}, {"\xc0\x80", "??"}, {"\xed\xa0\x80", "???"},
        {"\x1b[2J", "?[2J"}, {"cut \xe2\x82", "cut ??"}, {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}, {"a\nb\tc\r", "a\nb\tc?"}, {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = hs_json_text(cases[i][0]);
        assert_non_null(j);
        assert_string_equal(json_string_value(j), cases[i][1]);
        json_decref(j);
    }
    assert_true(json_is_null(hs_json_text(NULL)));
}

/* A pipe whose reading end does not wait. */
static void open_pipe(int fd[2])
{
    assert_int_equal(pipe(fd), 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
}

static void lines_come_whole_however_they_are_cut(void **state)
{
    (void)state;
    int fd[2];
    hs_lines l = {0};
    open_pipe(fd);
    assert_int_equal(hs_lines_read(&l, fd[0]), HS_LINES_WAIT);
    assert_int_equal(write(fd[1], "one\ntw", 6), 6);
    assert_int_equal(hs_lines_read(&l, fd[0]), 6);
    assert_string_equal(hs_lines_next(&l), "one");
    assert_null(hs_lines_next(&l));
    assert_int_equal(write(fd[1], "o\n\nlast", 7), 7);
    assert_int_equal(hs_lines_read(&l, fd[0]), 7);
    assert_string_equal(hs_lines_next(&l), "two");
    assert_string_equal(hs_lines_next(&l), "");
    assert_null(hs_lines_next(&l));
    close(fd[1]);
    assert_int_equal(hs_lines_read(&l, fd[0]), HS_LINES_END);
    hs_lines_release(&l);
    close(fd[0]);
}

static void a_line_without_end_is_refused(void **state)
{
    (void)state;
    int fd[2], got = 1;
    static char block[1 << 15];
    hs_lines l = {0};
    memset(block, 'x', sizeof block);
    open_pipe(fd);
    for (size_t sent = 0; sent < 4 * (size_t)HS_LINE_MAX && got != HS_LINES_BAD; sent += sizeof block) {
        assert_int_equal(write(fd[1], block, sizeof block), sizeof block);
        while ((got = hs_lines_read(&l, fd[0])) > 0) assert_null(hs_lines_next(&l));
    }
    assert_int_equal(got, HS_LINES_BAD);
    hs_lines_release(&l);
    close(fd[0]);
    close(fd[1]);
}

static void writing_to_nobody_is_an_error_not_a_signal(void **state)
{
    (void)state;
    int fd[2];
    open_pipe(fd);
    close(fd[0]);
    signal(SIGPIPE, SIG_IGN);
    json_t *j = json_object();
    assert_int_equal(hs_line_write(fd[1], j), -1);
    json_decref(j);
    close(fd[1]);
}

/* The wait status of a child that does what is asked. */
static int status_of(int sig, int code)
{
    int ws;
    pid_t pid = fork();
    if (pid == 0) {
        if (sig) raise(sig);
        _exit(code);
    }
    waitpid(pid, &ws, 0);
    return ws;
}

static void every_end_has_words(void **state)
{
    (void)state;
    char how[128];
    hs_child_how(status_of(SIGKILL, 0), how, sizeof how);
    assert_string_equal(how, "killed by signal 9 (out of memory?)");
    hs_child_how(status_of(SIGTERM, 0), how, sizeof how);
    assert_string_equal(how, "killed by signal 15 (Terminated)");
    hs_child_how(status_of(0, 3), how, sizeof how);
    assert_string_equal(how, "exited with code 3");
    hs_child_how(status_of(0, HS_EXIT_DEAF), how, sizeof how);
    assert_non_null(strstr(how, "could not answer"));
}

/* A child whose log we write ourselves. */
static void the_log_keeps_its_tail(void **state)
{
    (void)state;
    int fd[2];
    char line[64];
    open_pipe(fd);
    hs_child c = {.in = -1, .out = -1, .log = fd[0], .tail = calloc(1, HS_TAIL + 1)};
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(line, sizeof line, "line %d\n", i);
        assert_int_equal(write(fd[1], line, (size_t)n), n);
        hs_child_read_log(&c);
        assert_true(c.ntail <= HS_TAIL);
    }
    assert_true(c.ntail > HS_TAIL / 4);
    assert_string_equal(hs_child_last_line(&c), "line 19999");
    assert_int_equal(write(fd[1], "\0\xff \n\n", 5), 5);
    hs_child_read_log(&c);
    assert_string_equal(hs_child_last_line(&c), "line 19999??");
    close(fd[1]);
    hs_child_kill(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_survive_to_the_bit), cmocka_unit_test(text_of_any_bytes_becomes_json),
        cmocka_unit_test(lines_come_whole_however_they_are_cut), cmocka_unit_test(a_line_without_end_is_refused),
        cmocka_unit_test(writing_to_nobody_is_an_error_not_a_signal), cmocka_unit_test(every_end_has_words),
        cmocka_unit_test(the_log_keeps_its_tail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
