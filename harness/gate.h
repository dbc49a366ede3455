/* gate.h - gate before clock: no cell runs whose variant's quick check is red.
 *
 * Verdicts are kept in the store by the digests of the plug-in's file and of libharness, whose kernels it calls,
 * so that a file is checked once, whatever the sweep; for cells on CUDA its implementations for that are judged, and the
 * library's CUDA half belongs to the digest.  A check that was stopped by its time limit is no verdict on the file: it is not kept. */
#ifndef HS_GATE_H
#define HS_GATE_H
#include "progress.h"
#include "store.h"

enum { HS_GATE_SECONDS = 120 };
typedef struct hs_verdict {
    const char *path, *digest;          /* the plan's */
    enum hs_status status;              /* HS_DONE: green; HS_WRONG or HS_TIMEOUT: what its cells become */
    char *reason;                       /* NULL when green */
} hs_verdict;
typedef struct hs_gate { hs_verdict *verdict; size_t n; } hs_gate;

enum { HS_GATE_INTERRUPTED = 1 };
typedef struct hs_gate_args {
    const unsigned char *wanted;        /* by cell: only the files of these are judged */
    int jobs;                           /* checks at a time */
    int sigfd;                          /* when it can be read, interrupted(ctx) is asked */
    int (*interrupted)(void *ctx);
    void *ctx;
    hs_progress *progress;
} hs_gate_args;
/* Verdicts from the store or from checks.  0; HS_GATE_INTERRUPTED as soon as interrupted() says so; -1 when the
 * store failed (hs_store_error). */
int  hs_gate_init(hs_gate *, hs_store *, const hs_plan *, const hs_gate_args *);
const hs_verdict *hs_gate_of(const hs_gate *, const hs_cell *);
void hs_gate_release(hs_gate *);
#endif
