/* task.h - the ABI of a task: what is computed with a variant, and which numbers come out.
 *
 * A task is one shared object that exports TASK_SYMBOL, a NULL-terminated array of pointers to task
 * tables.  It links libharness (kernels, nn, tasks/data) and is handed a variant; it reaches the outside
 * only through task_host.  It never prints, never opens the store, never picks a device. */
#ifndef TASK_H
#define TASK_H
#include "attn.h"
#include "../kernels/kernels.h"
#ifdef __cplusplus
extern "C" {
#endif
#define TASK_ABI_MAJOR 1
#define TASK_SYMBOL "harness_tasks_v1"

/* How run() ends.  Each is the status of a cell. */
enum { TASK_DONE = 0,
       TASK_REFUSED = -1,               /* plan() said no; its reason through host->reason */
       TASK_DIVERGED = -2,              /* a loss that is not finite */
       TASK_OOM = -3,                   /* the device's memory did not suffice; bytes asked and free in the reason */
       TASK_INTERRUPTED = -4,           /* host->stop said so */
       TASK_FAILED = -5 };              /* anything else, with a reason */

typedef struct task_metric {            /* a row of a table that ends with name == NULL */
    const char *name, *unit, *help;     /* unit "1" when there is none */
    int32_t better;                     /* -1 less is better, 1 more is better, 0 neither */
    int32_t series;                     /* 1: one value per step (a learning curve), 0: one value per cell */
} task_metric;

struct nn_train_opts;                   /* nn/train.h */
struct nn_model_opts;                   /* nn/model.h */
struct nn_mixer_spec;                   /* nn/mixer.h: variant, its options, implementation */
typedef struct task_host {              /* services lent to the task; ctx is the first argument of each */
    uint32_t size;
    void *ctx;
    void (*metric)(void *ctx, const char *name, int64_t step, double value);   /* names from the table only */
    void (*progress)(void *ctx, int64_t step, int64_t of, const char *what, double value);   /* cheap; call at will */
    int  (*stop)(void *ctx);            /* nonzero: end soon with TASK_INTERRUPTED */
    void (*reason)(void *ctx, const char *sentence);    /* why run() will not return TASK_DONE */
    /* The variant that an option with ATTN_OTHER_VARIANT names, with its defaults, until run() returns; NULL: the reason is said. */
    const struct nn_mixer_spec *(*variant)(void *ctx, const char *name);
    void (*note)(void *ctx, const char *sentence);      /* what a reader of the results should know of a cell that is done */
} task_host;

typedef struct task_call {
    uint32_t size;
    const void *opts;                   /* the task's options struct */
    const struct nn_train_opts *train;
    const struct nn_mixer_spec *mixer;  /* the variant under test; shape left for the task to fill in */
    k_dev *dev;
    k_dtype dtype;
    uint64_t seed;
    const char *checkpoint;             /* a path to save to and to resume from, or NULL */
    const task_host *host;
    const struct nn_model_opts *model;  /* NULL unless the task has model_defaults */
    const char *init;                   /* the file of train.init, or NULL */
} task_call;

/* ---- a trained model, built again: for those who look into it (harness attend) or let it speak (harness sample) ---- */
struct nn_params;                       /* nn/nn.h */
struct nn_graph;
struct data_tokens;                     /* tasks/data/tokens.h */
typedef struct task_model {
    uint32_t size;                      /* sizeof(task_model) of the host: the tail may grow */
    void *ctx;                          /* the task's own */
    struct nn_params *params;           /* record() declares them; the host allocates them and reads the values from a file */
    const struct data_tokens *data;     /* the words and the splits */
    const char *test_split;             /* what shows it best; "": none */
    int64_t vocabulary;                 /* scores of a token: the words of data, and one more where what hides tokens is none of them */
    int32_t context, mode;              /* tokens at a time in training; ATTN_CAUSAL: it says what comes next, ATTN_BIDIR: what is hidden */
    /* The model over tokens, i32 [B,T]: the id of its scores [B*T,vocabulary]. */
    int32_t (*record)(struct task_model *, struct nn_graph *, int32_t tokens);
    void (*close)(struct task_model *);
    int32_t whole;                      /* 1: it begins behind token 0 and says a document, or as much as context, and nothing goes on from that */
    int32_t side;                       /* documents are images of side x side pixels of three bytes each, in raster order; 0: they are not */
} task_model;

typedef struct task_default { const char *option, *value; } task_default;   /* "stop.loss", "1e-3" */

typedef struct task {
    uint32_t size;                      /* sizeof(task): the tail may grow */
    const char *name, *title, *paper;
    size_t opts_size;
    const attn_opt *opts;               /* as a variant's option table */
    const task_metric *metrics;
    const task_default *train_defaults; /* where this task's training options differ from nn_train_table; ends with NULL */
    int (*check)(const void *opts, char *why, size_t nwhy);     /* options that contradict each other: nonzero; may be NULL */
    int (*run)(const task_call *);
    const task_default *model_defaults; /* where this task's model differs from nn_model_table; ends with NULL.  NULL itself: the
                                           task builds no model, and `model:` of an experiment file is refused */
    /* Tables may end here: what follows is NULL then. */
    int (*open)(const task_call *, task_model *);   /* a TASK_ code; the model without values.  NULL: it cannot be looked into */
} task;
#define TASK_LEAST offsetof(task, open) /* the smallest size of a table */

#ifdef __cplusplus
#define TASK_EXTERN extern "C"
#else
#define TASK_EXTERN extern
#endif
#define TASK_EXPORT(...)                                                                            \
    TASK_EXTERN __attribute__((visibility("default"))) const task *const harness_tasks_v1[];        \
    const task *const harness_tasks_v1[] = { __VA_ARGS__, NULL }
#ifdef __cplusplus
}
#endif
#endif
