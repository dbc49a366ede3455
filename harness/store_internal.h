/* store_internal.h - what the files of the store share. */
#ifndef HS_STORE_INTERNAL_H
#define HS_STORE_INTERNAL_H
#include "store.h"

enum { STORE_APPLICATION = 0x48534442,  /* "HSDB" */
       STORE_SCHEMA = 1,                /* raised, with a migration, when the tables change */
       STORE_BUSY_MS = 10000,
       STORE_FOREIGN_SECONDS = 120 };   /* a claim from another machine counts as dead after so long without a sign of life */

extern const char store_schema[];

/* Who claims.  A pid alone is used again; with the boot, the pid namespace and the start of the process it is not. */
typedef struct store_claimant {
    char host[256], boot[128];
    sqlite3_int64 pid, born;            /* born: start of the process in clock ticks after boot */
} store_claimant;

struct hs_store {
    sqlite3 *db;
    char *path;
    sqlite3_int64 env;                  /* row of the environment, 0: not told */
    store_claimant me;
    char error[640];
};

/* Notes the database's last error as a sentence; returns -1. */
int store_fail(hs_store *);
/* BEGIN IMMEDIATE, so that what is read stays true until COMMIT.  0 or -1. */
int store_begin(hs_store *);
/* Commits when ok, else rolls back and notes the error.  0 or -1. */
int store_end(hs_store *, int ok);
void store_claimant_init(store_claimant *);
/* Releases the claims of dead runners: their cells become interrupted.  Inside a transaction. */
int store_reap(hs_store *);
/* A status by its name in the store; HS_PLANNED when there is no such name. */
enum hs_status store_status(const char *name);
double store_now(void);                 /* seconds since 1970 */
#endif
