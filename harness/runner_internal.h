/* runner_internal.h - what the files of the runner share. */
#ifndef HS_RUNNER_INTERNAL_H
#define HS_RUNNER_INTERNAL_H
#include "child.h"
#include "gate.h"
#include "protocol.h"
#include "redraw.h"
#include "runner.h"

enum { NO_CELL = -1, VALUES_MAX = 1 << 22 };

/* Where a cell stands in this run. */
enum stage { STAGE_TODO, STAGE_RUNNING, STAGE_ELSEWHERE, STAGE_OVER };
enum halt { HALT_NONE, HALT_TIMEOUT, HALT_INTERRUPT };

typedef struct slot {                   /* one worker and the cell it serves */
    hs_child child;
    hs_lines lines;
    long cell, last;                    /* index of the cell, of the one before; NO_CELL */
    int served, started;                /* cells this worker has ended; it said "start" for this one */
    double began, deadline, kill_at;    /* seconds; 0: none */
    enum halt halt;                     /* why it was asked to stop */
    hs_value *value;
    size_t nvalues, capacity;
    hs_row row;
    char axes[256];
    char place[24];                     /* "cuda:1" where there are several GPUs, else "" */
} slot;

typedef struct runner {
    hs_store *store;
    const hs_plan *plan;
    const hs_run_args *args;
    hs_run_summary *sum;
    hs_progress progress;
    hs_sweep sweep;
    hs_gate gate;
    hs_redraw redraw;
    unsigned char *stage;               /* enum stage, by cell */
    unsigned char *was_crashed;         /* before this run: another try is wanted */
    unsigned char *wanted;              /* not in the store when the run began */
    struct rung { double at; enum hs_status status; } *broken;  /* by ladder: the lowest rung that timed out or found no
                                           memory; HS_PLANNED: none did */
    size_t first_todo, elsewhere;       /* no cell before first_todo is STAGE_TODO; how many are elsewhere */
    slot *slot;
    int jobs, threads, sigfd, stopping;
    double start, beat, looked;         /* seconds; when the claims were last confirmed, elsewhere last looked at */
    int said_waiting;
    char **name;                        /* metric names and units, each once: values point here */
    size_t nnames;
    json_t *metric_better;              /* the metric that the sweep line shows: {"name","better"}, or NULL */
    char best_label[320];
} runner;

double runner_now(void);

/* runner_cells.c: which cell next, and what becomes of one. */
int  runner_cells_init(runner *);       /* reads every cell's state */
long runner_next_cell(runner *, const slot *);  /* claimed for this slot, or NO_CELL */
void runner_look_elsewhere(runner *);   /* what became of cells that other runs compute */
/* Files a result; the cell is over.  A store that fails stops the run. */
void runner_file(runner *, long cell, const hs_result *);
void runner_give_back(runner *, long cell);     /* claimed but not begun */
int  runner_work_left(const runner *);
char *runner_checkpoint(const runner *, const hs_cell *);   /* its path, the caller's; NULL: the cell wants none */
void runner_store_failed(runner *, const char *doing);

/* runner_slot.c: one worker from start to end. */
void slot_give(runner *, slot *, long cell);
void slot_attend(runner *, slot *);     /* reads, watches the clock, buries */
void slot_halt(slot *, enum halt);      /* SIGTERM now, SIGKILL after the grace */
void slot_release(slot *);
#endif
