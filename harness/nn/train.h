/* train.h - the training options that every task shares, and the loop that obeys them. */
#ifndef NN_TRAIN_H
#define NN_TRAIN_H
#include "../task.h"
#include "nn.h"
#ifdef __cplusplus
extern "C" {
#endif
enum { NN_ADAM, NN_ADAMW };
enum { NN_CONSTANT, NN_INVERSE_SQRT, NN_COSINE, NN_LINEAR };
typedef struct nn_train_opts {
    int32_t optimizer;                  /* adam | adamw */
    double lr, beta1, beta2, eps, weight_decay, clip;       /* clip: bound of the global gradient norm, 0 = none */
    int32_t schedule, warmup;           /* steps of linear warm-up */
    int32_t batch, max_steps, eval_every;
    double stop_loss;                   /* "stop.loss": end when an evaluation is at or below it; 0 = never */
    int32_t stop_patience;              /* "stop.patience": end after more than this many evaluations without a new best; 0 = never */
    int32_t checkpoint_every;           /* steps; 0 = never */
} nn_train_opts;
extern const attn_opt nn_train_table[];
double nn_learning_rate(const nn_train_opts *, int64_t step);   /* step from 1 */

typedef struct nn_trainer {             /* what a task lends to the loop */
    const task_call *call;
    nn_params *params;
    nn_graph *graph;                    /* the training graph, compiled, with a loss */
    void *ctx;
    int (*batch)(void *ctx, int64_t step);                          /* fills the graph's inputs for this step */
    int (*evaluate)(void *ctx, int64_t step, double *loss);         /* the number that the stop rule looks at */
    int redraw_interval;                /* of the variant, 0 = never */
    /* results */
    int64_t steps;
    double best, last, seconds;         /* seconds of training steps alone, evaluations left out */
} nn_trainer;
int nn_train(nn_trainer *);             /* a TASK_ code; emits nothing: the task reports */
/* One optimiser step from the gradients in params: clips, schedules, updates. */
void nn_optimiser_step(nn_params *, const nn_train_opts *, int64_t step);
#ifdef __cplusplus
}
#endif
#endif
