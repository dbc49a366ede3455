/* likelihood.h - what tasks that learn to predict tokens tell of their training. */
#ifndef LIKELIHOOD_H
#define LIKELIHOOD_H
#include <math.h>

#include "harness/nn/train.h"

#define LIKELIHOOD_METRICS \
    { "valid_loss", "nat", "mean negative log-likelihood per token that is asked for", -1, 1 }, \
    { "best_valid_loss", "nat", "best of the evaluations", -1, 0 }, \
    { "valid_perplexity", "1", "exp of the last valid loss, per token of the set's vocabulary", -1, 0 }, \
    { "parameters", "1", "learned numbers", 0, 0 }, \
    { "steps", "1", "training steps", 0, 0 }, \
    { "seconds", "s", "time in training steps", -1, 0 }

/* A point of the learning curve, a new one or one that a checkpoint remembers; ctx: a struct that begins with its task_call *. */
static inline void log_loss(void *ctx, int64_t step, double loss)
{
    const task_host *h = (*(const task_call *const *)ctx)->host;
    h->metric(h->ctx, "valid_loss", step, loss);
}

/* What the training has come to. */
static inline void report_training(const task_call *call, const nn_params *params, const nn_trainer *t)
{
    const task_host *h = call->host;
    h->metric(h->ctx, "best_valid_loss", 0, t->best);
    h->metric(h->ctx, "valid_perplexity", 0, exp(t->last));
    h->metric(h->ctx, "parameters", 0, (double)nn_params_elements(params, 1));
    h->metric(h->ctx, "steps", 0, (double)t->steps);
    h->metric(h->ctx, "seconds", 0, t->seconds);
}
#endif
