/* train.h - the training options that every task shares, and the loop that obeys them. */
#ifndef NN_TRAIN_H
#define NN_TRAIN_H
#include "../task.h"
#include "nn.h"
#ifdef __cplusplus
extern "C" {
#endif
enum { NN_ADAM, NN_ADAMW, NN_ADAFACTOR };
enum { NN_CONSTANT, NN_INVERSE_SQRT, NN_COSINE, NN_LINEAR };
typedef struct nn_train_opts {
    int32_t optimizer;                  /* adam | adamw | adafactor */
    int32_t relative_step;              /* of adafactor: lr is a bound, and relative to the size of a parameter */
    int32_t decay_embeddings;           /* whether weight decay is for tables of embeddings, too */
    double lr, beta1, beta2, eps, weight_decay, clip;       /* clip: bound of the global gradient norm, 0 = none */
    int32_t schedule, warmup;           /* steps of linear warm-up */
    int32_t batch, accumulate;          /* sequences at a time; batches whose gradients a step averages */
    double average;                     /* decay of the moving average of the weights, which is what is evaluated; 0 = none */
    int32_t average_last;               /* so many times, eval_every steps apart and the last at the end: their weights' mean; 0 = none */
    int32_t max_steps, eval_every;      /* 0 steps: one evaluation */
    double stop_loss;                   /* "stop.loss": end when an evaluation is at or below it; 0 = never */
    int32_t stop_patience;              /* "stop.patience": end after more than this many evaluations without a new best; 0 = never */
    int32_t checkpoint_every;           /* steps; 0 = never */
    int32_t keep;                       /* the last checkpoint stays when the cell is done */
    char keep_as[ATTN_TEXT_SIZE];       /* and under this name, too; "": none */
    char init[ATTN_TEXT_SIZE];          /* a kept model whose values are taken instead of drawn ones; "": none */
} nn_train_opts;
extern const attn_opt nn_train_table[];
/* step from 1.  Linear warm-up to lr, then constant; inverse_sqrt: lr sqrt(warmup / step); cosine and linear: down to
 * 0 at max_steps. */
double nn_learning_rate(const nn_train_opts *, int64_t step);

typedef struct nn_trainer {             /* what a task lends to the loop */
    const task_call *call;
    nn_params *params;
    nn_graph *graph;                    /* the training graph, compiled, with a loss */
    void *ctx;
    int (*batch)(void *ctx, int64_t number);                        /* fills the graph's inputs; from 1: the step, or the
                                           batches of all steps so far when they accumulate */
    int (*evaluate)(void *ctx, int64_t step, double *loss);         /* the number that the stop rule looks at */
    void (*restored)(void *ctx, int64_t step, double loss);         /* on resuming, once for every evaluation that the
                                           checkpoint remembers, in order; may be NULL */
    double score;                       /* evaluate() may leave a second number here; restored() finds it again */
    int redraw_interval;                /* of the variant, 0 = never: before step s when s - 1 is a positive multiple */
    /* results */
    int64_t steps;
    double best, last, seconds;         /* seconds of training with its batches, evaluations left out */
} nn_trainer;
/* Trains until the stop rule ends it.  An evaluation is due every eval_every steps and after the last.  With
 * call->checkpoint and checkpoint_every > 0 it goes on from the file when there is one and ends with the numbers of
 * an undisturbed run; the caller removes the file.  With an average of the weights, that is what params hold in evaluate()
 * and after the end.  A TASK_ code; emits no metric: the task reports. */
int nn_train(nn_trainer *);
/* The variant's option redraw_interval, 0 when it has none. */
int nn_redraw_interval(const nn_mixer_spec *);
/* How a cell ends when building or planning returned this code (ATTN_EUNSUP, NN_ENOMEM ...). */
int nn_task_code(int code);
/* The room that the optimiser needs beside the parameters: asked for before nn_params_alloc it is planned and taken there, else at
 * once.  nn_train does it, and so does the first nn_optimiser_step: 0, NN_ENOMEM, or ATTN_EINVAL when they have another's. */
int nn_params_moments(nn_params *, const nn_train_opts *, char *why, size_t nwhy);
/* One optimiser step from the gradients in params, the sums over o->accumulate batches: clips, schedules, updates.  0, or
 * what nn_params_moments says. */
int nn_optimiser_step(nn_params *, const nn_train_opts *, int64_t step);
#ifdef __cplusplus
}
#endif
#endif
