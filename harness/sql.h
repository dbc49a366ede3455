/* sql.h - one SQL statement in one line: prepare and bind together. */
#ifndef HS_SQL_H
#define HS_SQL_H
#include <sqlite3.h>

/* Prepares sql and binds the arguments that types lists: t text (NULL allowed), i int64_t, d double (NaN becomes
 * NULL).  Text is copied.  NULL on failure; sqlite3_errmsg says why. */
sqlite3_stmt *hs_sql_ask(sqlite3 *, const char *sql, const char *types, ...);
/* Binds anew, for a statement that runs many times. */
int hs_sql_bind(sqlite3_stmt *, const char *types, ...);
/* Asks, steps once and finalizes: SQLITE_DONE, SQLITE_ROW or an error. */
int hs_sql_do(sqlite3 *, const char *sql, const char *types, ...);
/* A column as text, "" for NULL; valid until the next step. */
const char *hs_sql_text(sqlite3_stmt *, int column);
/* The first column of the first row as an integer, absent when there is no row or on failure. */
sqlite3_int64 hs_sql_int(sqlite3 *, const char *sql, sqlite3_int64 absent);
#endif
