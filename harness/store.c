/* store.c - opening the store: folder, file, journal, schema, and every way that this can fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "sql.h"
#include "store_internal.h"

const char *hs_store_default_path(void)
{
    const char *path = getenv("HARNESS_DB");
    return path && *path ? path : "results/harness.db";
}

double store_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One sentence for a failure of SQLite: what is the matter, and what to do. */
static void explain(sqlite3 *db, const char *path, char *out, size_t n)
{
    int code = sqlite3_errcode(db) & 0xff, error = sqlite3_system_errno(db);
    const char *message = sqlite3_errmsg(db);
    if (code == SQLITE_FULL || sqlite3_extended_errcode(db) == SQLITE_IOERR_WRITE)     /* a quota is the latter */
        snprintf(out, n, "%s cannot grow, the disk is full or a quota or limit is reached: free some space, then the same "
                 "command goes on from here", path);
    else if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        snprintf(out, n, "%s has been locked by another program for %d s: end that program or wait, then the same "
                 "command goes on from here", path, STORE_BUSY_MS / 1000);
    else if (code == SQLITE_READONLY || code == SQLITE_PERM)
        snprintf(out, n, "%s cannot be written: make the file and its folder writable, or name another file with --db",
                 path);
    else if (code == SQLITE_NOTADB)
        snprintf(out, n, "%s is not a database: name another file with --db, or move this one away", path);
    else if (code == SQLITE_CANTOPEN)
        snprintf(out, n, "%s cannot be opened (%s): make the file and its folder readable and writable, or name "
                 "another file with --db", path, error ? strerror(error) : message);
    else if (code == SQLITE_CORRUPT)
        snprintf(out, n, "%s is damaged (%s): save what is left with `sqlite3 FILE .recover`, or move it away",
                 path, message);
    else if (code == SQLITE_IOERR)
        snprintf(out, n, "%s cannot be read or written (%s)", path, error ? strerror(error) : message);
    else
        snprintf(out, n, "%s: %s", path, message);
}

int store_fail(hs_store *s)
{
    explain(s->db, s->path, s->error, sizeof s->error);
    return -1;
}

int store_begin(hs_store *s)
{
    return sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK ? 0 : store_fail(s);
}

int store_end(hs_store *s, int ok)
{
    if (ok && sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK) return 0;
    store_fail(s);                      /* before ROLLBACK, which clears the error */
    if (!sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

/* Makes every folder above path.  0, or -1 with a sentence. */
static int make_folders(const char *path, char *why, size_t nwhy)
{
    char *copy = strdup(path);
    int rc = copy ? 0 : -1;
    for (char *slash = copy; rc == 0 && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            snprintf(why, nwhy, "the folder %s cannot be made (%s): name a database elsewhere with --db", copy,
                     strerror(errno));
            rc = -1;
        }
        *slash = '/';
    }
    free(copy);
    return rc;
}

/* Opens as immutable: how a reader sees a WAL database in a folder where no journal can be made. */
static int open_immutable(const char *path, sqlite3 **db)
{
    char *quoted = sqlite3_mprintf("file:"), *wal = sqlite3_mprintf("%s-wal", path);
    int pending = wal && access(wal, F_OK) == 0;    /* its content would be missed */
    for (const char *p = path; quoted && *p; p++) {
        char *longer = strchr("?#%", *p) ? sqlite3_mprintf("%s%%%02x", quoted, *p) : sqlite3_mprintf("%s%c", quoted, *p);
        sqlite3_free(quoted);
        quoted = longer;
    }
    char *uri = sqlite3_mprintf("%s?immutable=1", quoted);
    int rc = SQLITE_CANTOPEN;
    if (uri && !pending) {
        sqlite3_close(*db);
        rc = sqlite3_open_v2(uri, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    }
    sqlite3_free(uri);
    sqlite3_free(quoted);
    sqlite3_free(wal);
    return rc;
}

/* Whether the file can be read as a database at all. */
static int readable(sqlite3 *db)
{
    return sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) == SQLITE_OK;
}

/* Looks whose database this is.  1: ours, 0: empty, -1: not for us, with a sentence.  One transaction, because another
 * process may be making the tables meanwhile. */
static int whose(hs_store *s)
{
    int own = sqlite3_get_autocommit(s->db);
    if (own && sqlite3_exec(s->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) return store_fail(s);
    sqlite3_int64 id = hs_sql_int(s->db, "PRAGMA application_id", INT64_MIN);
    sqlite3_int64 version = hs_sql_int(s->db, "PRAGMA user_version", INT64_MIN);
    sqlite3_int64 tables = hs_sql_int(s->db, "SELECT count(*) FROM sqlite_schema", INT64_MIN);
    int unread = id == INT64_MIN || version == INT64_MIN || tables == INT64_MIN;
    if (unread) store_fail(s);
    if (own) sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (unread) return -1;
    if (id == 0 && version == 0 && tables == 0) return 0;
    if (id == STORE_APPLICATION && version == STORE_SCHEMA) return 1;
    if (id != STORE_APPLICATION)
        snprintf(s->error, sizeof s->error, "%s is a database of another program: name another file with --db", s->path);
    else
        snprintf(s->error, sizeof s->error, "%s has schema %lld and this program knows schema %d: use the %s harness "
                 "that wrote it, or name another file with --db", s->path, (long long)version, STORE_SCHEMA,
                 version > STORE_SCHEMA ? "newer" : "older");
    return -1;
}

/* Makes the tables.  Another process may be doing the same: who comes second finds them made. */
static int make_schema(hs_store *s)
{
    char pragmas[96];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id=%d; PRAGMA user_version=%d", STORE_APPLICATION, STORE_SCHEMA);
    if (store_begin(s) != 0) return -1;
    int owner = whose(s);
    if (owner < 0) {
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        return -1;
    }
    return store_end(s, owner == 1 || (sqlite3_exec(s->db, store_schema, NULL, NULL, NULL) == SQLITE_OK &&
                                       sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) == SQLITE_OK));
}

/* A write-ahead log lets readers and one writer work at once, and with it a killed process loses no commit even
 * without a flush at each: only a loss of power can take the last cells.  Where it cannot be had (some network
 * file systems) the rollback journal stays, with a flush at each commit. */
static void choose_journal(hs_store *s)
{
    sqlite3_stmt *mode = NULL;
    int wal = 0;
    for (int tries = 0; !wal && tries < 20; tries++) {      /* another process may be switching, too */
        mode = hs_sql_ask(s->db, "PRAGMA journal_mode=WAL", "");
        int rc = mode ? sqlite3_step(mode) : SQLITE_ERROR;
        wal = rc == SQLITE_ROW && strcmp(hs_sql_text(mode, 0), "wal") == 0;
        sqlite3_finalize(mode);
        if ((rc & 0xff) != SQLITE_BUSY) break;
        sqlite3_sleep(50);
    }
    if (wal) sqlite3_exec(s->db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
}

/* Opens the file for reading. */
static int open_reader(hs_store *s)
{
    if (access(s->path, F_OK) != 0) {
        snprintf(s->error, sizeof s->error, "%s does not exist: `harness run FILE` makes it, or name another file with "
                 "--db", s->path);
        return -1;
    }
    if (sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) return store_fail(s);
    sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
    if (!readable(s->db)) {
        int code = sqlite3_errcode(s->db) & 0xff;
        if ((code != SQLITE_CANTOPEN && code != SQLITE_READONLY) || open_immutable(s->path, &s->db) != SQLITE_OK ||
            !readable(s->db))
            return store_fail(s);
    }
    int owner = whose(s);
    if (owner == 0) snprintf(s->error, sizeof s->error, "%s is empty: `harness run FILE` fills it", s->path);
    return owner == 1 ? 0 : -1;
}

/* Opens the file for reading and writing, making it and its folder when absent. */
static int open_writer(hs_store *s)
{
    if (make_folders(s->path, s->error, sizeof s->error) != 0) return -1;
    int rc = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc != SQLITE_OK) return store_fail(s);
    sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
    if (sqlite3_db_readonly(s->db, "main") == 1) {
        snprintf(s->error, sizeof s->error, "%s cannot be written: make the file and its folder writable, or name "
                 "another file with --db", s->path);
        return -1;
    }
    int owner = whose(s);
    if (owner < 0) return -1;
    choose_journal(s);
    if (sqlite3_exec(s->db, "PRAGMA foreign_keys=ON; PRAGMA cache_size=-65536", NULL, NULL, NULL) != SQLITE_OK) return store_fail(s);
    return owner == 1 ? 0 : make_schema(s);
}

int hs_store_open(const char *path, int flags, hs_store **out, char *why, size_t nwhy)
{
    hs_store *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s || !(s->path = strdup(path))) {
        snprintf(why, nwhy, "no memory to open %s", path);
        free(s);
        return -1;
    }
    store_claimant_init(&s->me);
    if ((flags & HS_STORE_READ ? open_reader(s) : open_writer(s)) != 0) {
        snprintf(why, nwhy, "%s", s->error);
        hs_store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void hs_store_close(hs_store *s)
{
    if (!s) return;
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

sqlite3 *hs_store_sql(hs_store *s)
{
    return s->db;
}

const char *hs_store_error(const hs_store *s)
{
    return s->error;
}
