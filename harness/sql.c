/* sql.c - one SQL statement in one line. */
#include <stdarg.h>
#include <stddef.h>
#include "sql.h"

/* Binds the arguments of a list, one per letter of types. */
static int bind_list(sqlite3_stmt *s, const char *types, va_list ap)
{
    int rc = SQLITE_OK;
    for (int i = 1; *types && rc == SQLITE_OK; types++, i++) {
        if (*types == 't')
            rc = sqlite3_bind_text(s, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
        else if (*types == 'i')
            rc = sqlite3_bind_int64(s, i, va_arg(ap, sqlite3_int64));
        else
            rc = sqlite3_bind_double(s, i, va_arg(ap, double));
    }
    return rc;
}

int hs_sql_bind(sqlite3_stmt *s, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_reset(s);
    int rc = bind_list(s, types, ap);
    va_end(ap);
    return rc;
}

/* hs_sql_ask with its arguments as a list. */
static sqlite3_stmt *ask_list(sqlite3 *db, const char *sql, const char *types, va_list ap)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK) return NULL;
    if (bind_list(s, types, ap) == SQLITE_OK) return s;
    sqlite3_finalize(s);
    return NULL;
}

sqlite3_stmt *hs_sql_ask(sqlite3 *db, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *s = ask_list(db, sql, types, ap);
    va_end(ap);
    return s;
}

int hs_sql_do(sqlite3 *db, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *s = ask_list(db, sql, types, ap);
    va_end(ap);
    if (!s) return sqlite3_errcode(db);
    int rc = sqlite3_step(s);
    sqlite3_finalize(s);
    return rc;
}

const char *hs_sql_text(sqlite3_stmt *s, int column)
{
    const unsigned char *text = sqlite3_column_text(s, column);
    return text ? (const char *)text : "";
}

sqlite3_int64 hs_sql_int(sqlite3 *db, const char *sql, sqlite3_int64 absent)
{
    sqlite3_stmt *s = hs_sql_ask(db, sql, "");
    if (!s) return absent;
    sqlite3_int64 value = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : absent;
    sqlite3_finalize(s);
    return value;
}
