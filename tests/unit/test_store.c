/* test_store.c - the store keeps what it was given, shares work between processes, and says what is the matter. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "fake_plan.h"
#include "sql.h"
#include "store.h"

typedef struct room { char dir[64], db[96], why[640]; } room;

/* A fresh folder for each test. */
static int setup(void **state)
{
    room *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/test_store.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(chmod(r->dir, 0777), 0);
    snprintf(r->db, sizeof r->db, "%s/store.db", r->dir);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    room *r = *state;
    char command[192];
    snprintf(command, sizeof command, "chmod -R u+rwX %s; rm -rf %s", r->dir, r->dir);
    int rc = system(command);
    free(r);
    return rc;
}

/* The store of a room, opened. */
static hs_store *open_store(room *r)
{
    hs_store *s = NULL;
    if (hs_store_open(r->db, 0, &s, r->why, sizeof r->why) != 0) fail_msg("%s", r->why);
    return s;
}

/* Opening must fail with a sentence that holds the given words. */
static void must_refuse(room *r, const char *path, int flags, const char *words)
{
    hs_store *s = NULL;
    assert_int_equal(hs_store_open(path, flags, &s, r->why, sizeof r->why), -1);
    assert_null(s);
    if (!strstr(r->why, words)) fail_msg("\"%s\" should say \"%s\"", r->why, words);
}

/* Finishes a cell as done with n values of eval_loss. */
static int finish(hs_store *s, const hs_cell *cell, double first, size_t n)
{
    hs_value value[64];
    for (size_t i = 0; i < n; i++)
        value[i] = (hs_value){ "eval_loss", "1", (int64_t)(100 * (i + 1)), first / (double)(i + 1) };
    return hs_store_finish(s, cell, &(hs_result){ HS_DONE, NULL, "a line\n", 0.5, value, n });
}

static sqlite3_int64 count(hs_store *s, const char *sql)
{
    return hs_sql_int(hs_store_sql(s), sql, -1);
}

static void test_a_result_comes_back_to_the_bit(void **state)
{
    hs_store *s = open_store(*state);
    hs_plan plan;
    fake_plan(&plan, "e", 1, 1, 1, 1);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    const double sent[] = { 0.1, 1.0 / 3, 5e-324, -1.7976931348623157e308, 0x1.fffffffffffffp-1, INFINITY, -INFINITY, NAN };
    enum { N = sizeof sent / sizeof *sent };
    hs_value value[N];
    for (int i = 0; i < N; i++) value[i] = (hs_value){ "m", "s", i, sent[i] };
    assert_int_equal(hs_store_claim(s, plan.cell[0].key), 1);
    assert_int_equal(hs_store_finish(s, &plan.cell[0], &(hs_result){ HS_DIVERGED, "the loss is nan", "log", 1.5, value, N }), 0);
    hs_store_close(s);
    s = open_store(*state);
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s), "SELECT value, unit FROM v_metrics ORDER BY step", "");
    for (int i = 0; i < N; i++) {
        assert_int_equal(sqlite3_step(row), SQLITE_ROW);
        assert_string_equal(hs_sql_text(row, 1), "s");
        if (isnan(sent[i])) {
            assert_int_equal(sqlite3_column_type(row, 0), SQLITE_NULL);
            continue;
        }
        double got = sqlite3_column_double(row, 0);
        assert_memory_equal(&got, &sent[i], sizeof got);
    }
    sqlite3_finalize(row);
    hs_cell_state got;
    assert_int_equal(hs_store_state(s, plan.cell[0].key, &got), 0);
    assert_int_equal(got.status, HS_DIVERGED);
    assert_string_equal(got.reason, "the loss is nan");
    free(got.reason);
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_views_have_their_columns(void **state)
{
    hs_store *s = open_store(*state);
    hs_plan plan;
    fake_plan(&plan, "e", 2, 2, 1, 1);
    json_t *machine = json_pack("{s:s}", "cpu", "x");
    assert_int_equal(hs_store_environment(s, machine), 0);
    json_decref(machine);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s),
        "SELECT experiment, cell_key, status, reason, task, variant, label, seed, device, task_options, variant_options,"
        " train_options, started, seconds FROM v_cells WHERE task_options ->> 'keys' = 40 AND variant = 'linear'", "");
    assert_non_null(row);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    assert_string_equal(hs_sql_text(row, 0), "e");
    assert_string_equal(hs_sql_text(row, 1), plan.cell[3].key);
    assert_string_equal(hs_sql_text(row, 2), "planned");
    assert_string_equal(hs_sql_text(row, 6), "Linear");
    assert_string_equal(hs_sql_text(row, 9), "{\"keys\":40}");
    assert_string_equal(hs_sql_text(row, 11), "{\"lr\":0.001}");
    assert_int_equal(sqlite3_step(row), SQLITE_DONE);
    sqlite3_finalize(row);
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_a_final_row_is_never_overwritten(void **state)
{
    hs_store *s = open_store(*state);
    hs_plan plan;
    fake_plan(&plan, "e", 1, 2, 1, 1);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    assert_int_equal(finish(s, &plan.cell[0], 1.0, 3), 0);
    assert_int_equal(finish(s, &plan.cell[0], 2.0, 5), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM metric"), 3);
    assert_int_equal(count(s, "SELECT value = 1.0 FROM metric WHERE step = 100"), 1);
    assert_int_equal(hs_store_claim(s, plan.cell[0].key), 0);
    /* an unfinished attempt is replaced in full */
    hs_value half = { "eval_loss", "1", 9900, 7.0 };
    assert_int_equal(hs_store_finish(s, &plan.cell[1], &(hs_result){ HS_CRASHED, "signal 11", "x", 1, &half, 1 }), 0);
    assert_int_equal(hs_store_claim(s, plan.cell[1].key), 1);
    assert_int_equal(finish(s, &plan.cell[1], 1.0, 3), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM metric WHERE step = 9900"), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM metric"), 6);
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_experiments_share_their_cells(void **state)
{
    hs_store *s = open_store(*state);
    hs_plan one, two;
    fake_plan(&one, "one", 2, 4, 1, 1);
    fake_plan(&two, "two", 1, 4, 1, 1);     /* the first four cells of one */
    assert_int_equal(hs_store_plan(s, &one), 0);
    assert_int_equal(finish(s, &one.cell[0], 1.0, 3), 0);
    assert_int_equal(hs_store_plan(s, &two), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM cell"), 8);
    assert_int_equal(count(s, "SELECT count(*) FROM v_cells WHERE experiment = 'two'"), 4);
    assert_int_equal(count(s, "SELECT count(*) FROM v_cells WHERE experiment = 'two' AND status = 'done'"), 1);
    assert_int_equal(hs_store_claim(s, two.cell[0].key), 0);
    two.ncells = 2;                         /* the file lost two cells: they leave the experiment, not the store */
    assert_int_equal(hs_store_plan(s, &two), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM v_cells WHERE experiment = 'two'"), 2);
    assert_int_equal(count(s, "SELECT count(*) FROM cell"), 8);
    two.ncells = 4;
    hs_plan narrow;                         /* a narrowed run keeps the others, and replaces what it asks anew */
    fake_plan(&narrow, "one", 1, 2, 1, 2);
    narrow.partial = 1;
    assert_int_equal(hs_store_plan(s, &narrow), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM v_cells WHERE experiment = 'one'"), 8);
    assert_int_equal(count(s, "SELECT count(*) FROM v_cells WHERE experiment = 'one' AND status = 'done'"), 0);
    fake_plan_free(&narrow);
    hs_store_close(s);
    fake_plan_free(&one);
    fake_plan_free(&two);
}

enum { SHARED = 200 };
/* A process that claims what it can get and finishes half of it; returns through a pipe which cells it got. */
static void claim_all(room *r, const hs_plan *plan, int fd)
{
    hs_store *s = open_store(r);
    for (size_t i = 0; i < plan->ncells; i++) {
        int got = hs_store_claim(s, plan->cell[i].key);
        if (got < 0 || (got && i % 2 && finish(s, &plan->cell[i], 1.0, 2) != 0)) _exit(1);
        char mark = (char)got;
        if (write(fd, &mark, 1) != 1) _exit(1);
    }
    char wait;
    if (read(fd, &wait, 1) < 0) _exit(1);   /* stays alive, and with it its claims, until it is told to go */
    _exit(0);
}

static void test_two_processes_get_disjoint_cells(void **state)
{
    room *r = *state;
    hs_plan plan;
    fake_plan(&plan, "e", 1, SHARED, 1, 1);
    hs_store *s = open_store(r);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    hs_store_close(s);
    int got[SHARED] = { 0 }, fd[2][2], status, of[2] = { 0, 0 };
    pid_t pid[2];
    for (int p = 0; p < 2; p++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd[p]), 0);
        if ((pid[p] = fork()) == 0) claim_all(r, &plan, fd[p][1]);
    }
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < SHARED; i++) {
            char mark = 0;
            assert_int_equal(read(fd[p][0], &mark, 1), 1);
            got[i] += mark;
            of[p] += mark;
        }
    for (int i = 0; i < SHARED; i++) assert_int_equal(got[i], 1);
    assert_int_equal(of[0] + of[1], SHARED);
    s = open_store(r);
    hs_cell_state known;
    assert_int_equal(hs_store_state(s, plan.cell[0].key, &known), 0);
    assert_int_equal(known.status, HS_RUNNING);
    assert_int_equal(known.alive, 1);
    free(known.reason);
    for (int p = 0; p < 2; p++) {
        assert_int_equal(write(fd[p][0], "", 1), 1);
        waitpid(pid[p], &status, 0);
        assert_int_equal(status, 0);
        close(fd[p][0]);
        close(fd[p][1]);
    }
    assert_int_equal(hs_store_state(s, plan.cell[0].key, &known), 0);      /* both are dead now */
    assert_int_equal(known.status, HS_INTERRUPTED);
    assert_non_null(strstr(known.reason, "its runner ended"));
    free(known.reason);
    assert_int_equal(hs_store_claim(s, plan.cell[0].key), 1);
    assert_int_equal(hs_store_release(s, plan.cell[0].key), 0);
    assert_int_equal(hs_store_state(s, plan.cell[0].key, &known), 0);
    assert_int_equal(known.status, HS_PLANNED);
    assert_int_equal(hs_store_plan(s, &plan), 0);      /* reaps what is left of the dead */
    assert_int_equal(count(s, "SELECT count(*) FROM claim"), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM cell WHERE status = 'interrupted'"), SHARED / 2 - 1);
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_many_may_make_the_file_at_once(void **state)
{
    room *r = *state;
    enum { MANY = 8 };
    hs_plan plan;
    fake_plan(&plan, "e", 1, 20, 1, 1);
    for (int round = 0; round < 5; round++) {
        char db[160];
        snprintf(db, sizeof db, "%s/new/%d/x.db", r->dir, round);
        for (int p = 0; p < MANY; p++)
            if (fork() == 0) {
                hs_store *s = NULL;
                int bad = hs_store_open(db, 0, &s, r->why, sizeof r->why) != 0;
                if (!bad && (bad = hs_store_plan(s, &plan) != 0)) snprintf(r->why, sizeof r->why, "%s", hs_store_error(s));
                if (bad) fprintf(stderr, "# %s\n", r->why);
                _exit(bad);
            }
        for (int p = 0, status; p < MANY; p++) {
            assert_true(wait(&status) > 0);
            assert_int_equal(status, 0);
        }
        hs_store *s = NULL;
        assert_int_equal(hs_store_open(db, 0, &s, r->why, sizeof r->why), 0);
        assert_int_equal(count(s, "SELECT count(*) FROM v_cells"), 20);
        hs_store_close(s);
    }
    fake_plan_free(&plan);
}

static void test_a_reused_pid_is_not_alive(void **state)
{
    hs_store *s = open_store(*state);
    hs_plan plan;
    fake_plan(&plan, "e", 1, 3, 1, 1);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(hs_store_claim(s, plan.cell[i].key), 1);
    sqlite3 *db = hs_store_sql(s);      /* the same pid, started at another time; and two claims from another machine */
    assert_int_equal(hs_sql_do(db, "UPDATE claim SET born = born - 1 WHERE cell = 1", ""), SQLITE_DONE);
    assert_int_equal(hs_sql_do(db, "UPDATE claim SET boot = 'other' WHERE cell = 2", ""), SQLITE_DONE);
    assert_int_equal(hs_sql_do(db, "UPDATE claim SET boot = 'other', beat = beat - 1000 WHERE cell = 3", ""), SQLITE_DONE);
    const enum hs_status expected[] = { HS_INTERRUPTED, HS_RUNNING, HS_INTERRUPTED };
    for (int i = 0; i < 3; i++) {
        hs_cell_state known;
        assert_int_equal(hs_store_state(s, plan.cell[i].key, &known), 0);
        assert_int_equal(known.status, expected[i]);
        free(known.reason);
        assert_int_equal(hs_store_claim(s, plan.cell[i].key), expected[i] == HS_INTERRUPTED);
    }
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_kill_9_leaves_no_half_cell(void **state)
{
    room *r = *state;
    enum { CELLS = 400, VALUES = 40 };
    hs_plan plan;
    fake_plan(&plan, "e", 1, CELLS, 1, 1);
    hs_store *s = open_store(r);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    hs_store_close(s);
    srand(1);
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            s = open_store(r);
            for (int i = 0; i < CELLS; i++)
                if (hs_store_claim(s, plan.cell[i].key) == 1) finish(s, &plan.cell[i], 1.0, VALUES);
            _exit(0);
        }
        usleep((useconds_t)(1000 + rand() % 12000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        s = open_store(r);
        sqlite3_stmt *row = hs_sql_ask(hs_store_sql(s), "PRAGMA integrity_check", "");
        assert_int_equal(sqlite3_step(row), SQLITE_ROW);
        assert_string_equal(hs_sql_text(row, 0), "ok");
        sqlite3_finalize(row);
        assert_int_equal(count(s, "SELECT count(*) FROM cell c WHERE (SELECT count(*) FROM metric WHERE cell = c.id) <> "
                               "CASE status WHEN 'done' THEN 40 ELSE 0 END"), 0);
        assert_int_equal(count(s, "SELECT count(*) FROM cell c WHERE (status = 'done') <> "
                               "EXISTS (SELECT 1 FROM log WHERE cell = c.id)"), 0);
        assert_int_equal(count(s, "SELECT count(*) FROM cell c WHERE (status = 'running') <> "
                               "EXISTS (SELECT 1 FROM claim WHERE cell = c.id)"), 0);
        hs_store_close(s);
    }
    fake_plan_free(&plan);
}

static void test_newer_schema_and_strangers_are_refused(void **state)
{
    room *r = *state;
    char other[160];
    hs_store_close(open_store(r));
    sqlite3 *db;
    sqlite3_open(r->db, &db);
    sqlite3_exec(db, "PRAGMA user_version=7", NULL, NULL, NULL);
    sqlite3_close(db);
    must_refuse(r, r->db, 0, "has schema 7 and this program knows schema 1: use the newer harness");
    must_refuse(r, r->db, HS_STORE_READ, "has schema 7");
    snprintf(other, sizeof other, "%s/other.db", r->dir);
    sqlite3_open(other, &db);
    sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL);
    sqlite3_close(db);
    must_refuse(r, other, 0, "is a database of another program");
    snprintf(other, sizeof other, "%s/text.db", r->dir);
    FILE *f = fopen(other, "w");
    for (int i = 0; i < 500; i++) fprintf(f, "this is not a database\n");
    fclose(f);
    must_refuse(r, other, 0, "is not a database: name another file with --db");
    must_refuse(r, other, HS_STORE_READ, "is not a database");
    must_refuse(r, r->dir, 0, "cannot be opened");
    snprintf(other, sizeof other, "%s/none.db", r->dir);
    must_refuse(r, other, HS_STORE_READ, "does not exist: `harness run FILE` makes it");
    snprintf(other, sizeof other, "%s/text.db/sub/x.db", r->dir);
    must_refuse(r, other, 0, "cannot be made (");
}

/* Runs a check as a user whom file modes bind, root or not. */
static void as_nobody(void (*check)(room *), room *r)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(2);
        check(r);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (status) fail_msg("%s", "refused otherwise than expected (the message is above)");
}

/* As must_refuse, in a child: prints and ends it. */
static void child_must_refuse(room *r, int flags, const char *words)
{
    hs_store *s = NULL;
    if (hs_store_open(r->db, flags, &s, r->why, sizeof r->why) == 0) snprintf(r->why, sizeof r->why, "opened");
    if (strstr(r->why, words)) return;
    fprintf(stderr, "# \"%s\" should say \"%s\"\n", r->why, words);
    _exit(1);
}

static void check_no_writing(room *r)
{
    child_must_refuse(r, 0, "writable, or name another file with --db");
    hs_store *s = NULL;
    if (hs_store_open(r->db, HS_STORE_READ, &s, r->why, sizeof r->why) != 0 || count(s, "SELECT count(*) FROM v_cells") != 3)
        child_must_refuse(r, HS_STORE_READ, "a reader needs no right to write");
    hs_store_close(s);
}

static void check_no_making(room *r)
{
    child_must_refuse(r, 0, "name another file with --db");
}

static void test_read_only_places(void **state)
{
    room *r = *state;
    assert_int_equal(chmod(r->dir, 0555), 0);
    if (geteuid() == 0) assert_int_equal(chown(r->dir, 0, 0), 0);
    as_nobody(check_no_making, r);
    assert_int_equal(chmod(r->dir, 0777), 0);
    hs_plan plan;
    fake_plan(&plan, "e", 1, 3, 1, 1);
    hs_store *s = open_store(r);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    hs_store_close(s);
    assert_int_equal(chmod(r->db, 0444), 0);
    assert_int_equal(chmod(r->dir, 0555), 0);
    as_nobody(check_no_writing, r);
    fake_plan_free(&plan);
}

static void test_a_full_disk_says_so_and_loses_nothing(void **state)
{
    room *r = *state;
    hs_plan plan;
    fake_plan(&plan, "e", 1, 60, 1, 1);
    hs_store *s = open_store(r);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    assert_int_equal(finish(s, &plan.cell[0], 1.0, 3), 0);
    hs_store_close(s);
    int status;
    pid_t pid = fork();
    if (pid == 0) {                     /* a limit on the size of files stands in for the end of the disk */
        signal(SIGXFSZ, SIG_IGN);
        s = open_store(r);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 40000, 40000 });
        int rc = 0;
        for (int i = 1; i < 60 && rc == 0; i++) rc = finish(s, &plan.cell[i], 1.0, 60);
        if (rc == 0 || !strstr(hs_store_error(s), "the disk is full or a quota or limit is reached: free some space")) {
            fprintf(stderr, "# rc %d: %s\n", rc, hs_store_error(s));
            _exit(1);
        }
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    s = open_store(r);
    assert_true(count(s, "SELECT count(*) FROM cell WHERE status = 'done'") >= 1);
    assert_int_equal(count(s, "SELECT count(*) FROM cell c WHERE status = 'done' AND NOT EXISTS "
                           "(SELECT 1 FROM metric WHERE cell = c.id)"), 0);
    for (int i = 1; i < 60; i++) assert_int_equal(finish(s, &plan.cell[i], 1.0, 60), 0);
    assert_int_equal(count(s, "SELECT count(*) FROM cell WHERE status = 'done'"), 60);
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_a_lock_that_stays_is_named(void **state)
{
    room *r = *state;
    hs_plan plan;
    fake_plan(&plan, "e", 1, 1, 1, 1);
    hs_store *s = open_store(r), *other = open_store(r);
    assert_int_equal(hs_store_plan(s, &plan), 0);
    sqlite3_busy_timeout(hs_store_sql(s), 50);
    assert_int_equal(sqlite3_exec(hs_store_sql(other), "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(hs_store_claim(s, plan.cell[0].key), -1);
    assert_non_null(strstr(hs_store_error(s), "has been locked by another program"));
    assert_int_equal(sqlite3_exec(hs_store_sql(other), "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(hs_store_claim(s, plan.cell[0].key), 1);
    assert_int_equal(hs_store_claim(s, "0123"), -1);
    assert_non_null(strstr(hs_store_error(s), "holds no cell 0123"));
    hs_store_close(other);
    hs_store_close(s);
    fake_plan_free(&plan);
}

/* Only the statuses that were asked for become planned again, and only of the plan's cells. */
static void test_reopening(void **state)
{
    hs_plan plan;
    fake_plan(&plan, "e", 4, 1, 1, 1);
    hs_store *s = open_store(*state);
    static const enum hs_status ends[] = { HS_DONE, HS_TIMEOUT, HS_WRONG, HS_TIMEOUT };
    assert_int_equal(hs_store_plan(s, &plan), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(hs_store_claim(s, plan.cell[i].key), 1);
        assert_int_equal(hs_store_finish(s, &plan.cell[i], &(hs_result){ .status = ends[i], .reason = i ? "why" : NULL }), 0);
    }
    plan.ncells = 3;
    assert_int_equal(hs_store_reopen(s, &plan, 1u << HS_TIMEOUT | 1u << HS_WRONG), 2);
    plan.ncells = 4;
    static const enum hs_status now[] = { HS_DONE, HS_PLANNED, HS_PLANNED, HS_TIMEOUT };
    for (int i = 0; i < 4; i++) {
        hs_cell_state is;
        assert_int_equal(hs_store_state(s, plan.cell[i].key, &is), 0);
        assert_int_equal(is.status, now[i]);
        free(is.reason);
    }
    hs_store_close(s);
    fake_plan_free(&plan);
}

static void test_verdicts(void **state)
{
    hs_store *s = open_store(*state);
    int ok = -1;
    char *reason;
    assert_int_equal(hs_store_verdict_get(s, "d", &ok, &reason), 0);
    assert_int_equal(hs_store_verdict_put(s, "d", 0, "dk is wrong", NULL), 0);
    assert_int_equal(hs_store_verdict_get(s, "d", &ok, &reason), 1);
    assert_int_equal(ok, 0);
    assert_string_equal(reason, "dk is wrong");
    free(reason);
    json_t *report = json_pack("{s:i}", "checks", 32);
    assert_int_equal(hs_store_verdict_put(s, "d", 1, NULL, report), 0);
    json_decref(report);
    assert_int_equal(hs_store_verdict_get(s, "d", &ok, &reason), 1);
    assert_int_equal(ok, 1);
    assert_null(reason);
    hs_store_close(s);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_result_comes_back_to_the_bit), TEST(test_views_have_their_columns),
        TEST(test_a_final_row_is_never_overwritten), TEST(test_experiments_share_their_cells),
        TEST(test_two_processes_get_disjoint_cells), TEST(test_many_may_make_the_file_at_once),
        TEST(test_a_reused_pid_is_not_alive),
        TEST(test_kill_9_leaves_no_half_cell), TEST(test_newer_schema_and_strangers_are_refused),
        TEST(test_read_only_places), TEST(test_a_full_disk_says_so_and_loses_nothing),
        TEST(test_a_lock_that_stays_is_named), TEST(test_reopening), TEST(test_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
