/* runner.h - the pool of workers that computes what the store does not have.
 *
 * Invariants:
 *  1. One thread, one poll(): nothing here waits for a worker, however it behaves.
 *  2. A cell is claimed in the store right before it is handed out, and filed in the moment it ends: a runner
 *     that dies loses the cells in flight and nothing else.
 *  3. A cell is tried once per run.  What another living runner computes is waited for, not computed again.
 *  4. A worker serves cells of one pair of plug-ins and is replaced after any cell that did not end done or
 *     refused. */
#ifndef HS_RUNNER_H
#define HS_RUNNER_H
#include "progress.h"
#include "store.h"

enum { HS_GRACE_SECONDS = 2, HS_FAILURES_KEPT = 10 };
typedef struct hs_run_args {
    const char *file;                   /* the experiment's, and how it was read: figures are drawn from both */
    const hs_plan_args *plan_args;
    const char *db;                     /* the store's path: checkpoints lie beside it */
    int jobs;                           /* 0: the plan's, else as many as there are cores */
    int quiet;
    enum hs_color color;
} hs_run_args;

typedef struct hs_failure { const hs_cell *cell; enum hs_status status; char *reason; } hs_failure;
typedef struct hs_run_summary {
    size_t count[HS_STATUSES];          /* of all cells of the plan, as they stand at the end */
    size_t had, ended;                  /* results that the store had before; cells that this run ended */
    double seconds;
    int signal;                         /* that interrupted the run, 0: none */
    int store_failed;                   /* hs_store_error says how */
    hs_failure failure[HS_FAILURES_KEPT];   /* crashed, wrong, timeout of this run, the first few */
    size_t nfailures;                   /* all of them */
} hs_run_summary;

/* 0; -1 when the pool itself could not be set up, with a sentence on stderr. */
int  hs_run(hs_store *, const hs_plan *, const hs_run_args *, hs_run_summary *);
void hs_run_summary_release(hs_run_summary *);
int  hs_cores(void);                    /* that this process may use */
#endif
