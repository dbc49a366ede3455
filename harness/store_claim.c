/* store_claim.c - who works on which cell, and whether they still live. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sql.h"
#include "store_internal.h"

/* The start of a process in clock ticks after boot, -1 when there is no such process.  Field 22 of its stat file,
 * counted from the last parenthesis, because the program's name may hold anything. */
static sqlite3_int64 process_born(sqlite3_int64 pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "r");
    if (!f) return -1;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++) field = strchr(field + 1, ' ');
    return field ? strtoll(field, NULL, 10) : -1;
}

void store_claimant_init(store_claimant *me)
{
    char host[sizeof me->host] = "";
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "?");
    memset(me, 0, sizeof *me);
    memcpy(me->host, host, sizeof host);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f) {
        if (fscanf(f, "%60s", me->boot) != 1) me->boot[0] = '\0';
        fclose(f);
    }
    size_t n = strlen(me->boot);        /* two containers of one machine share the boot, not the pids */
    me->boot[n++] = ' ';
    if (readlink("/proc/self/ns/pid", me->boot + n, sizeof me->boot - n - 1) < 0) me->boot[n] = '\0';
    me->pid = getpid();
    me->born = process_born(me->pid);
}

/* Whether the claimant in columns first.. (host, boot, pid, born, beat) of a row lives. */
static int lives(const store_claimant *me, sqlite3_stmt *row, int first)
{
    if (strcmp(hs_sql_text(row, first + 1), me->boot) == 0)
        return process_born(sqlite3_column_int64(row, first + 2)) == sqlite3_column_int64(row, first + 3);
    return store_now() - sqlite3_column_double(row, first + 4) < STORE_FOREIGN_SECONDS;
}

/* Whether the claimant of a row is this process. */
static int is_me(const store_claimant *me, sqlite3_stmt *row, int first)
{
    return strcmp(hs_sql_text(row, first + 1), me->boot) == 0 && sqlite3_column_int64(row, first + 2) == me->pid &&
           sqlite3_column_int64(row, first + 3) == me->born;
}

enum status_row { S_ID, S_STATUS, S_REASON, S_CLAIM };     /* columns of the query below */

/* The row of a key with its claim, if any. */
static sqlite3_stmt *ask_state(hs_store *s, const char *key)
{
    return hs_sql_ask(s->db, "SELECT c.id, c.status, c.reason, k.host, k.boot, k.pid, k.born, k.beat FROM cell c "
                      "LEFT JOIN claim k ON k.cell = c.id WHERE c.key = ?", "t", key);
}

/* The sentence for a cell whose runner ended before the cell did. */
static char *orphan_reason(sqlite3_stmt *row, int first)
{
    char *text = NULL;
    if (sqlite3_column_type(row, first) == SQLITE_NULL) return strdup("its runner ended");
    if (asprintf(&text, "its runner ended (process %lld on %s)", (long long)sqlite3_column_int64(row, first + 2),
                 hs_sql_text(row, first)) < 0)
        return NULL;
    return text;
}

int hs_store_state(hs_store *s, const char *key, hs_cell_state *out)
{
    *out = (hs_cell_state){ .status = HS_PLANNED };
    sqlite3_stmt *row = ask_state(s, key);
    if (!row) return store_fail(s);
    int rc = sqlite3_step(row);
    if (rc == SQLITE_ROW) {
        out->status = store_status(hs_sql_text(row, S_STATUS));
        out->alive = sqlite3_column_type(row, S_CLAIM) != SQLITE_NULL && lives(&s->me, row, S_CLAIM);
        if (out->status == HS_RUNNING && !out->alive) {
            out->status = HS_INTERRUPTED;
            out->reason = orphan_reason(row, S_CLAIM);
        } else if (out->status == HS_RUNNING) {
            if (asprintf(&out->reason, "process %lld on %s", (long long)sqlite3_column_int64(row, S_CLAIM + 2),
                         hs_sql_text(row, S_CLAIM)) < 0)
                out->reason = NULL;
        } else if (sqlite3_column_type(row, S_REASON) != SQLITE_NULL) {
            out->reason = strdup(hs_sql_text(row, S_REASON));
        }
    }
    sqlite3_finalize(row);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : store_fail(s);
}

/* Writes the claim of a cell that is free. */
static int write_claim(hs_store *s, sqlite3_int64 cell)
{
    const store_claimant *me = &s->me;
    double now = store_now();
    return hs_sql_do(s->db, "INSERT OR REPLACE INTO claim(cell, host, boot, pid, born, beat) VALUES(?,?,?,?,?,?)", "ittiid",
                     cell, me->host, me->boot, me->pid, me->born, now) == SQLITE_DONE &&
           hs_sql_do(s->db, "UPDATE cell SET status='running', reason=NULL, seconds=NULL, started=? WHERE id=?", "di",
                     now, cell) == SQLITE_DONE;
}

int hs_store_claim(hs_store *s, const char *key)
{
    if (store_begin(s) != 0) return -1;
    sqlite3_stmt *row = ask_state(s, key);
    int rc = row ? sqlite3_step(row) : SQLITE_ERROR, taken = 0, mine = 0;
    sqlite3_int64 cell = 0;
    if (rc == SQLITE_ROW) {
        int claimed = sqlite3_column_type(row, S_CLAIM) != SQLITE_NULL;
        cell = sqlite3_column_int64(row, S_ID);
        mine = claimed && is_me(&s->me, row, S_CLAIM);
        taken = hs_status_final(store_status(hs_sql_text(row, S_STATUS))) ||
                (claimed && !mine && lives(&s->me, row, S_CLAIM));
    }
    sqlite3_finalize(row);
    int ok = rc == SQLITE_ROW && (taken || mine || write_claim(s, cell));
    if (store_end(s, ok) == 0) return !taken;
    if (rc == SQLITE_DONE) snprintf(s->error, sizeof s->error, "%s holds no cell %.12s", s->path, key);
    return -1;
}

int hs_store_release(hs_store *s, const char *key)
{
    if (store_begin(s) != 0) return -1;
    int ok = hs_sql_do(s->db, "UPDATE cell SET status='planned', started=NULL WHERE key=? AND status='running' AND id IN "
                       "(SELECT cell FROM claim WHERE boot=? AND pid=? AND born=?)", "ttii",
                       key, s->me.boot, s->me.pid, s->me.born) == SQLITE_DONE &&
             hs_sql_do(s->db, "DELETE FROM claim WHERE cell=(SELECT id FROM cell WHERE key=?) AND boot=? AND pid=? AND born=?",
                       "ttii", key, s->me.boot, s->me.pid, s->me.born) == SQLITE_DONE;
    return store_end(s, ok);
}

int hs_store_beat(hs_store *s)
{
    return hs_sql_do(s->db, "UPDATE claim SET beat=? WHERE boot=? AND pid=? AND born=?", "dtii", store_now(), s->me.boot,
                     s->me.pid, s->me.born) == SQLITE_DONE ? 0 : store_fail(s);
}

int store_reap(hs_store *s)
{
    sqlite3_stmt *row = hs_sql_ask(s->db, "SELECT cell, host, boot, pid, born, beat FROM claim", "");
    int rc = row ? SQLITE_ROW : SQLITE_ERROR;
    while (rc == SQLITE_ROW && (rc = sqlite3_step(row)) == SQLITE_ROW) {
        if (lives(&s->me, row, 1)) continue;
        sqlite3_int64 cell = sqlite3_column_int64(row, 0);
        char *reason = orphan_reason(row, 1);
        if (hs_sql_do(s->db, "UPDATE cell SET status='interrupted', reason=? WHERE id=? AND status='running'", "ti",
                      reason, cell) != SQLITE_DONE ||
            hs_sql_do(s->db, "DELETE FROM claim WHERE cell=?", "i", cell) != SQLITE_DONE)
            rc = SQLITE_ERROR;
        free(reason);
    }
    sqlite3_finalize(row);
    return rc == SQLITE_DONE ? 0 : -1;
}
