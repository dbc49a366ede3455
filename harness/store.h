/* store.h - the one SQLite file: every experiment, cell, metric, sample and verdict.
 *
 * Invariants:
 *  1. A finished cell is one transaction: its row, metrics and log appear together or not at all.
 *  2. A key is finished once.  Two runs on one file share the work: a cell is claimed (BEGIN IMMEDIATE) by a
 *     runner that is alive, and a dead runner's claim is taken over.
 *  3. The views v_cells and v_metrics are the public face; tables may change, they do not. */
#ifndef HS_STORE_H
#define HS_STORE_H
#include <sqlite3.h>
#include "plan.h"

/* Status of a cell, as text in the store. */
enum hs_status { HS_PLANNED, HS_RUNNING, HS_DONE, HS_REFUSED, HS_WRONG, HS_DIVERGED, HS_OOM, HS_TIMEOUT,
                 HS_CRASHED, HS_INTERRUPTED, HS_STATUSES };
extern const char *const hs_status_names[HS_STATUSES];
/* done, refused, wrong, diverged, oom, timeout are results and are not run again; crashed and interrupted are. */
int hs_status_final(enum hs_status);

typedef struct hs_store hs_store;
enum { HS_STORE_READ = 1 };             /* open for reading: a missing file is an error */
/* Makes folder and file when absent.  0, or -1 with a sentence that says what to do: not a database, of a newer
 * schema (both numbers), read-only, disk full, locked for too long. */
int  hs_store_open(const char *path, int flags, hs_store **out, char *why, size_t nwhy);
void hs_store_close(hs_store *);
sqlite3 *hs_store_sql(hs_store *);
const char *hs_store_error(const hs_store *);
const char *hs_store_default_path(void);    /* $HARNESS_DB, else results/harness.db */

/* Records the experiment (text, file, time, environment) and its cells in order; rows of cells that the file no
 * longer has leave the experiment, not the store; none do when the plan is partial. */
int hs_store_plan(hs_store *, const hs_plan *);
/* The machine and its software (`harness env --json`): experiments and results recorded from now on name it. */
int hs_store_environment(hs_store *, const json_t *environment);
/* What the store knows of a key.  A running cell whose runner is dead reads as interrupted; of a running one the
 * reason says who runs it.  The caller frees reason. */
typedef struct hs_cell_state { enum hs_status status; char *reason; int alive; } hs_cell_state;
int hs_store_state(hs_store *, const char *key, hs_cell_state *);
/* Claims the key for this process.  1: claimed, 0: another living runner has it or it is finished, -1: error. */
int hs_store_claim(hs_store *, const char *key);
/* A sign of life for this process's claims, wanted every minute or less: a runner on another machine that shares
 * the file cannot look for the process, and takes a claim over after two minutes of silence. */
int hs_store_beat(hs_store *);

typedef struct hs_value { const char *metric, *unit; int64_t step; double value; } hs_value;
typedef struct hs_result {
    enum hs_status status;
    const char *reason;                 /* of a cell that is done a note, or NULL */
    const char *log;                    /* the tail of what the worker wrote on stdout and stderr */
    double seconds;
    const hs_value *value;
    size_t nvalues;
} hs_result;
/* Records the result and gives the claim back.  A row that is final already stays as it is. */
int hs_store_finish(hs_store *, const hs_cell *, const hs_result *);    /* one transaction */
int hs_store_release(hs_store *, const char *key);                      /* an unfinished claim given back */
/* Makes the plan's cells of these statuses (a mask of 1u << status) planned again.  The number of them, or -1. */
int hs_store_reopen(hs_store *, const hs_plan *, unsigned statuses);
/* Verdicts of the gate; digest: of what was judged, the plug-in's file and the library that it calls. */
int hs_store_verdict_get(hs_store *, const char *digest, int *ok, char **reason);  /* 1 found, 0 not, -1 error */
int hs_store_verdict_put(hs_store *, const char *digest, int ok, const char *reason, const json_t *report);
#endif
