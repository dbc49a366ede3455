/* plan.h - an experiment file as a list of cells.
 *
 * spec (YAML with marks) + catalog (described plug-ins) -> cells, each with its key.  Pure: nothing is run,
 * nothing is stored, no plug-in is loaded here. */
#ifndef HS_PLAN_H
#define HS_PLAN_H
#include <jansson.h>
#include <stdio.h>
#include "plugin.h"

/* Part of every key: a change of it makes every cell stale.  Raised when the numbers of the harness itself
 * (kernels, nn, initial values, order of random draws) change. */
#define HS_NUMERICS 2

typedef struct hs_cell {
    char key[65];                       /* SHA-256 of the canonical text of doc */
    char ident[65];                     /* the same without digests and HS_NUMERICS: the coordinates, that
                                           outlive a rebuild; `harness status` compares by it */
    json_t *doc;                        /* {"task":{"name","options","digest","variants":{name: digest} of those beside it, if
                                           its options name some}, "variant":{"name","options","impl","digest"},
                                           "model":{..} if the task builds one, "train":{..}, "seed", "device", "dtype",
                                           "data":digest|null, "init":digest if train.init is said, "numerics"} */
    json_t *axes;                       /* what distinguishes this cell, for people: {"keys":20,"variant":"DPFP-1","seed":1} */
    const char *label;                  /* the series in legends */
    const char *variant_path, *task_path;   /* the files to load */
    json_t *others;                     /* {name: path} of the variants beside it, or NULL */
    json_t *init;                       /* the path of train.init, or NULL */
    double time_limit;                  /* seconds, 0 = none */
    int64_t memory_limit;               /* bytes, 0 = none */
    size_t ladder;                      /* with stop_longer: cells that differ in that option alone share a number */
    double rung;                        /* and this is its value; 0 when the option is no axis */
} hs_cell;

typedef struct hs_plan {
    char *file, *experiment, *about;
    hs_cell *cell;
    size_t ncells;
    json_t *figures;                    /* as written, checked: [{"kind","x","y","series",...}] */
    json_t *text;                       /* the whole file as JSON, for the record */
    int jobs;                           /* 0: not said */
    const char *no_gpu;                 /* with device: auto, why the cells run on the CPU; NULL: they do not, or were told to */
    char *no_data;                      /* why a data set that the cells read cannot be opened: they are counted, not run, and their
                                           keys lack its digest; NULL: all can */
    char *stop_longer;                  /* the option of limits.stop_longer: what timed out or found no memory at one value
                                           of it is not tried at larger ones; NULL: everything is tried */
    size_t nladders;
    int partial;                        /* narrowed by --only or --set: the experiment keeps its other cells */
    hs_catalog *catalog;
} hs_plan;

typedef struct hs_plan_args {
    const char *const *set, *const *only;   /* "task.keys=20,60", "variant=linear" */
    size_t nset, nonly;
    const char *device;                 /* overrides the file; NULL: as written */
    const char *db;                     /* the store, beside which kept models lie; NULL: results/harness.db */
} hs_plan_args;

/* Reads and expands.  On failure prints every error found as file:line:column: sentence to stderr and returns
 * the exit code (HS_EXIT_SPEC, HS_EXIT_PLUGIN, HS_EXIT_EMPTY). */
int  hs_plan_read(const char *file, const hs_plan_args *, hs_plan *);
/* The same with a catalog that is at hand (the plan owns it then; NULL: every plug-in is sought) and errors to a stream. */
int  hs_plan_read_with(const char *file, const hs_plan_args *, hs_catalog *, FILE *errors, hs_plan *);
void hs_plan_release(hs_plan *);

/* Exit codes of every command (FIELD D1). */
enum { HS_EXIT_OK = 0, HS_EXIT_FAILED = 1, HS_EXIT_USAGE = 2, HS_EXIT_SPEC = 3, HS_EXIT_DEVICE = 4,
       HS_EXIT_PLUGIN = 5, HS_EXIT_EMPTY = 6, HS_EXIT_STORE = 7, HS_EXIT_INTERRUPTED = 130 };
#endif
