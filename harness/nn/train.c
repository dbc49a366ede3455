/* train.c - the training options, the optimiser step and the loop.
 *
 * The loop's own state (step, best, strikes, seconds, every evaluation) travels in the checkpoint's extra bytes, so
 * that a resumed run ends with the numbers of an undisturbed one. */
#include "train.h"
#include "internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OFF(field) offsetof(nn_train_opts, field)
const attn_opt nn_train_table[] = {
    { "optimizer", "adam (weight decay as L2), adamw (decoupled) or adafactor (decoupled; the second moment by rows and columns alone)",
      OFF(optimizer), ATTN_CHOICE, NN_ADAM, 0, 0, "adam,adamw,adafactor", 0 },
    { "relative_step", "adafactor: the rate is at most 1 / sqrt(step), and relative to each parameter's root mean square, at least 1e-3",
      OFF(relative_step), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "lr", "learning rate after warm-up", OFF(lr), ATTN_FLOAT, 1e-3, 0, 10, NULL, 0 },
    { "beta1", "decay of Adam's first moment", OFF(beta1), ATTN_FLOAT, 0.9, 0, 0.999999, NULL, 0 },
    { "beta2", "decay of Adam's second moment", OFF(beta2), ATTN_FLOAT, 0.999, 0, 0.999999999, NULL, 0 },
    { "eps", "added to the root of Adam's second moment", OFF(eps), ATTN_FLOAT, 1e-8, 0, 1, NULL, ATTN_OPEN_MIN },
    { "weight_decay", "decay of the parameters that take it", OFF(weight_decay), ATTN_FLOAT, 0, 0, 10, NULL, 0 },
    { "decay_embeddings", "whether tables of embeddings and positions take it; biases and norms never do", OFF(decay_embeddings), ATTN_BOOL,
      1, 0, 1, NULL, 0 },
    { "clip", "bound of the global gradient norm, 0 = none", OFF(clip), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { "schedule", "learning rate after warm-up", OFF(schedule), ATTN_CHOICE, NN_CONSTANT, 0, 0, "constant,inverse_sqrt,cosine,linear", 0 },
    { "warmup", "steps of linear warm-up", OFF(warmup), ATTN_INT, 0, 0, 1e9, NULL, 0 },
    { "batch", "sequences per step", OFF(batch), ATTN_INT, 32, 1, 1e6, NULL, 0 },
    { "accumulate", "batches whose gradients one step averages", OFF(accumulate), ATTN_INT, 1, 1, 1e6, NULL, 0 },
    { "average", "decay of the moving average of the weights, which is evaluated in their place, 0 = none", OFF(average), ATTN_FLOAT, 0, 0,
      0.999999999, NULL, 0 },
    { "average_last", "so many times, eval_every steps apart up to the last step, the mean of whose weights is evaluated in their place, 0 = none",
      OFF(average_last), ATTN_INT, 0, 0, 1000, NULL, 0 },
    { "max_steps", "steps at most; 0: nothing but one evaluation", OFF(max_steps), ATTN_INT, 100000, 0, 1e9, NULL, 0 },
    { "eval_every", "steps from one evaluation to the next", OFF(eval_every), ATTN_INT, 100, 1, 1e9, NULL, 0 },
    { "stop.loss", "end when an evaluation is at or below it, 0 = never", OFF(stop_loss), ATTN_FLOAT, 0, 0, 1e9, NULL, 0 },
    { "stop.patience", "end after more than this many evaluations without a new best, 0 = never", OFF(stop_patience), ATTN_INT, 0, 0,
      1e9, NULL, 0 },
    { "checkpoint_every", "steps from one checkpoint to the next, 0 = never", OFF(checkpoint_every), ATTN_INT, 0, 0, 1e9, NULL, 0 },
    { "keep", "the trained weights stay, beside the store: models/KEY.safetensors", OFF(keep), ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "keep_as", "a name for them, too: models/NAME.safetensors", OFF(keep_as), ATTN_TEXT, 0, 0, 0, NULL, 0 },
    { "init", "kept weights to begin with, a path, a NAME of keep_as or the beginning of a KEY: what has name and shape of a parameter is taken",
      OFF(init), ATTN_TEXT, 0, 0, 0, NULL, 0 },
    { NULL } };

double nn_learning_rate(const nn_train_opts *o, int64_t step)
{
    double s = (double)step, warmup = o->warmup, left = o->max_steps - warmup;
    if (step <= o->warmup)
        return o->lr * s / warmup;
    double done = left > 0 ? fmin((s - warmup) / left, 1) : 1;
    switch (o->schedule) {
    case NN_INVERSE_SQRT:
        return o->lr * sqrt(fmax(warmup, 1) / s);
    case NN_COSINE:
        return o->lr * 0.5 * (1 + cos(M_PI * done));
    case NN_LINEAR:
        return o->lr * (1 - done);
    default:
        return o->lr;
    }
}

/* One kernel over the elements [from, to) of the blocks. */
static void adam(nn_params *p, int64_t from, int64_t to, k_adam adam, double weight_decay, const double *gscale)
{
    size_t at = (size_t)from * k_dtype_size(p->wide);
    adam.weight_decay = weight_decay;
    if (to > from)
        k_adam_step(p->dev, p->wide, to - from, p->value + at, p->grad + at, p->m + at, p->v + at, &adam, gscale);
}

/* Adam on everything; decayed: elements from the first on that lose weight. */
static void adam_step(nn_params *p, const nn_train_opts *o, int64_t step, int64_t decayed, const double *factor)
{
    k_adam a = { .lr = nn_learning_rate(o, step), .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps,
                 .decoupled = o->optimizer == NN_ADAMW, .step = step };
    adam(p, 0, decayed, a, o->weight_decay, factor);
    adam(p, decayed, p->learned, a, 0, factor);
}

/* Adafactor on every parameter, with the constants of Shazeer & Stern 2018. */
static void adafactor_step(nn_params *p, const nn_train_opts *o, int64_t step, int64_t decayed, const double *factor)
{
    double lr = nn_learning_rate(o, step), rate = o->relative_step ? fmin(lr, 1 / sqrt((double)step)) : lr;
    size_t each = k_dtype_size(p->wide);
    for (int i = 0; i < p->count; i++) {
        const param *q = &p->list[i];
        k_adafactor a = { .rate = rate, .least = o->relative_step ? 1e-3 : 0, .beta2 = 1 - pow((double)step, -0.8), .eps = 1e-30, .clip = 1,
                          .keep = q->offset < decayed ? 1 - rate * o->weight_decay : 1 };
        int64_t d = q->dims.d[q->dims.n - 1], rows = q->dims.n > 1 && d > 0 ? q->n / d : 0;
        char *at = p->second + (size_t)q->second * each;
        if (!(q->flags & ATTN_FROZEN))
            k_adafactor_step(p->dev, p->wide, rows ? rows : 1, d, p->value + (size_t)q->offset * each, p->grad + (size_t)q->offset * each,
                             rows ? at : NULL, at + (size_t)rows * each, &a, factor);
    }
}

int nn_params_moments(nn_params *p, const nn_train_opts *o, char *why, size_t nwhy)
{
    return nn_params_take_moments(p, o->optimizer == NN_ADAFACTOR ? NN_MOMENTS_FACTORED : NN_MOMENTS_ADAM, why, nwhy);
}

int nn_optimiser_step(nn_params *p, const nn_train_opts *o, int64_t step)
{
    char why[200];
    int rc = nn_params_moments(p, o, why, sizeof why);
    if (rc)
        return rc;
    nn_params_settle(p);
    if (o->accumulate > 1)
        k_scale(p->dev, p->wide, p->learned, 1.0 / o->accumulate, p->grad, p->grad);
    if (o->clip > 0)
        k_clip_factor(p->dev, p->wide, p->learned, p->grad, o->clip, p->factor);
    double *factor = o->clip > 0 ? p->factor : NULL;
    int64_t decayed = o->weight_decay > 0 ? (o->decay_embeddings ? p->tables : p->decayed) : 0;
    (o->optimizer == NN_ADAFACTOR ? adafactor_step : adam_step)(p, o, step, decayed, factor);
    nn_params_round(p);
    p->step = step;
    return 0;
}

int nn_redraw_interval(const nn_mixer_spec *m)
{
    for (const attn_opt *o = m->variant->opts; o && o->name; o++)
        if (o->type == ATTN_INT && strcmp(o->name, "redraw_interval") == 0)
            return *(const int32_t *)((const char *)m->opts + o->off);
    return 0;
}

int nn_task_code(int code)
{
    return code == 0 ? TASK_DONE : code == ATTN_EUNSUP ? TASK_REFUSED : code == NN_ENOMEM ? TASK_OOM : TASK_FAILED;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------- */

typedef struct evaluation { int64_t step; double loss, score; } evaluation;

typedef struct progress {               /* as it stands in a checkpoint, followed by the evaluations and by what the graph carries */
    int64_t step, strikes, evaluations;
    double best, last, seconds;
} progress;

typedef struct loop {
    nn_trainer *t;
    const nn_train_opts *opts;
    const task_host *host;
    k_dev *dev;
    progress at;
    evaluation *history;
    int64_t room;                       /* of history, in evaluations */
} loop;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Tells the host why, and passes the code on. */
static int because(const loop *l, int code, const char *sentence)
{
    l->host->reason(l->host->ctx, sentence);
    return code;
}

/* Whether this run writes and reads checkpoints. */
static int checkpoints(const loop *l) { return l->t->call->checkpoint && (l->opts->checkpoint_every > 0 || l->opts->keep); }

/* Saves where the loop stands. */
static int save(loop *l)
{
    char why[300];
    size_t rows = (size_t)l->at.evaluations * sizeof *l->history, bytes = sizeof l->at + rows + nn_carry_bytes(l->t->graph);
    if (!checkpoints(l))
        return TASK_DONE;
    char *extra = malloc(bytes);
    if (!extra)
        return because(l, TASK_FAILED, "out of host memory for the checkpoint");
    memcpy(extra, &l->at, sizeof l->at);
    if (rows)
        memcpy(extra + sizeof l->at, l->history, rows);
    nn_carry_save(l->t->graph, extra + sizeof l->at + rows);
    int rc = nn_checkpoint_save(l->t->params, l->t->call->checkpoint, extra, bytes, why, sizeof why);
    free(extra);
    return rc ? because(l, TASK_FAILED, why) : TASK_DONE;
}

/* Goes back to where the checkpoint's file stands, when there is one. */
static int restore(loop *l)
{
    char why[300] = "";
    const char *path = l->t->call->checkpoint;
    if (!checkpoints(l) || access(path, F_OK) != 0)
        return TASK_DONE;
    int64_t carried = (int64_t)nn_carry_bytes(l->t->graph), bytes = nn_checkpoint_extra(path, why, sizeof why);
    char *extra = bytes < (int64_t)sizeof l->at + carried ? NULL : malloc((size_t)bytes);
    if (!extra || nn_checkpoint_load(l->t->params, path, extra, (size_t)bytes, why, sizeof why)) {
        free(extra);
        return because(l, TASK_FAILED, why[0] ? why : "the checkpoint does not hold the state of a training run");
    }
    memcpy(&l->at, extra, sizeof l->at);
    nn_carry_load(l->t->graph, extra + bytes - carried);
    l->room = (bytes - carried - (int64_t)sizeof l->at) / (int64_t)sizeof *l->history;
    memmove(extra, extra + sizeof l->at, (size_t)bytes - sizeof l->at);
    l->history = (evaluation *)extra;
    if (l->at.evaluations != l->room || l->at.step != nn_params_step(l->t->params))
        return because(l, TASK_FAILED, "the checkpoint contradicts itself");
    for (int64_t i = 0; l->t->restored && i < l->at.evaluations; i++) {
        l->t->score = l->history[i].score;
        l->t->restored(l->t->ctx, l->history[i].step, l->history[i].loss);
    }
    return TASK_DONE;
}

/* Remembers one evaluation for the checkpoint. */
static int remember(loop *l, double loss)
{
    if (l->at.evaluations == l->room) {
        int64_t room = l->room ? 2 * l->room : 64;
        evaluation *bigger = realloc(l->history, (size_t)room * sizeof *bigger);
        if (!bigger)
            return because(l, TASK_FAILED, "out of host memory for the evaluations");
        l->history = bigger;
        l->room = room;
    }
    l->history[l->at.evaluations++] = (evaluation){ l->at.step, loss, l->t->score };
    return TASK_DONE;
}

/* Which of the last evaluations, whose weights are averaged, that of step s is: from 1 on; less: it comes before them. */
static int64_t averaged_time(const nn_train_opts *o, int64_t s)
{
    int64_t each = o->eval_every, all = (o->max_steps + each - 1) / each, now = (s + each - 1) / each;
    return now - all + (o->average_last < all ? o->average_last : all);
}

static int averages(const loop *l) { return l->opts->average > 0 || l->opts->average_last > 0; }

/* Moves the average after step s; due: an evaluation follows.  A young moving average forgets its first values sooner; the mean
 * of the last evaluations is, before them, the weights of the latest. */
static void average(loop *l, int64_t s, int due)
{
    int64_t time = averaged_time(l->opts, s);
    if (l->opts->average > 0)
        nn_params_average_step(l->t->params, fmin(l->opts->average, (1.0 + (double)s) / (10.0 + (double)s)));
    else if (l->opts->average_last > 0 && due)
        nn_params_average_step(l->t->params, time > 1 ? 1 - 1.0 / (double)time : 0);
}

/* One evaluation and the stop rule: *stop is set when training ends here. */
static int judge(loop *l, int *stop)
{
    char why[80];
    double loss = NAN;
    k_set_phase(l->dev, K_PHASE_EVAL);
    if (averages(l))
        nn_params_swap(l->t->params);
    int rc = l->t->evaluate(l->t->ctx, l->at.step, &loss);
    if (averages(l))
        nn_params_swap(l->t->params);
    if (rc == TASK_DONE)
        rc = remember(l, loss);
    if (rc)
        return rc;
    l->at.last = loss;
    l->host->progress(l->host->ctx, l->at.step, l->opts->max_steps, "eval_loss", loss);
    if (!isfinite(loss)) {
        snprintf(why, sizeof why, "the evaluation loss is %f at step %lld", loss, (long long)l->at.step);
        return because(l, TASK_DIVERGED, why);
    }
    l->at.strikes = loss < l->at.best ? 0 : l->at.strikes + 1;
    l->at.best = fmin(l->at.best, loss);
    *stop = (l->opts->stop_loss > 0 && loss <= l->opts->stop_loss) ||
            (l->opts->stop_patience > 0 && l->at.strikes > l->opts->stop_patience);
    return TASK_DONE;
}

/* The gradients of step s, summed over its batches. */
static int collect(loop *l, int64_t s)
{
    nn_trainer *t = l->t;
    int64_t each = l->opts->accumulate > 1 ? l->opts->accumulate : 1;
    nn_params_zero_grad(t->params);
    for (int64_t i = 1; i <= each; i++) {
        k_set_phase(l->dev, K_PHASE_STEP);
        int rc = t->batch(t->ctx, (s - 1) * each + i);
        if (rc)
            return rc;
        k_set_phase(l->dev, K_PHASE_FORWARD);           /* replay allocates nothing: both phases hold what the graph holds */
        k_set_phase(l->dev, K_PHASE_BACKWARD);
        if (nn_step(t->graph))
            return because(l, TASK_FAILED, "forward or backward of the model failed");
    }
    return TASK_DONE;
}

/* Step s but for its evaluation; due: one follows.  The clock counts the making of batches, too: a GPU works on the last step
 * meanwhile, and what it has not done by then the upload waits for. */
static int learn(loop *l, int64_t s, int due)
{
    nn_trainer *t = l->t;
    double before = now();
    int64_t r = t->redraw_interval;
    if (r > 0 && s > 1 && (s - 1) % r == 0)
        nn_params_redraw(t->params, (uint32_t)((s - 1) / r));
    int rc = collect(l, s);
    k_set_phase(l->dev, K_PHASE_STEP);
    k_range_push(l->dev, "optimiser");
    if (!rc && nn_optimiser_step(t->params, l->opts, s))
        rc = because(l, TASK_FAILED, "the optimiser failed");
    if (!rc)
        average(l, s, due);
    k_range_pop(l->dev);
    if (due && k_sync(l->dev) < 0)      /* here, so that the queue's work is counted as training, not as evaluation */
        rc = because(l, TASK_FAILED, k_error(l->dev));
    l->at.seconds += now() - before;
    return rc;
}

/* One step with its evaluation and its checkpoint, as far as they are due. */
static int step(loop *l, int *stop)
{
    int64_t s = l->at.step + 1;
    int due = s % l->opts->eval_every == 0 || s == l->opts->max_steps;
    k_range_push(l->dev, "step");
    int rc = learn(l, s, due);
    k_range_pop(l->dev);
    if (rc)
        return rc;
    l->at.step = s;
    if (due && (rc = judge(l, stop)))
        return rc;
    int last = *stop || s == l->opts->max_steps, every = l->opts->checkpoint_every;
    return (last ? l->opts->keep : every > 0 && s % every == 0) ? save(l) : TASK_DONE;
}

/* Takes another run's values, and tells which. */
static int import(loop *l, char *why, size_t nwhy)
{
    const task_host *host = l->host;
    nn_imported got;
    char note[600];
    if (!l->t->call->init)
        return 0;
    int rc = nn_params_import(l->t->params, l->t->call->init, &got, why, nwhy);
    if (!rc && host->note) {
        snprintf(note, sizeof note, "begun with %d parameters of %.200s; %d drawn%s%.300s", got.taken, l->t->call->init, got.drawn,
                 got.drawn ? ": " : "", got.drawn_names);
        host->note(host->ctx, note);
    }
    return rc;
}

/* Takes the room that the options ask for, the values to begin with, and goes back to the checkpoint. */
static int begin(loop *l)
{
    char why[300];
    if (l->opts->average > 0 && l->opts->average_last > 0)
        return because(l, TASK_FAILED, "train.average and train.average_last exclude each other");
    int rc = import(l, why, sizeof why);
    if (!rc && l->opts->max_steps > 0)
        rc = nn_params_moments(l->t->params, l->opts, why, sizeof why);
    if (!rc && averages(l))
        rc = nn_params_average(l->t->params, why, sizeof why);
    return rc ? because(l, nn_task_code(rc), why) : restore(l);
}

int nn_train(nn_trainer *t)
{
    loop l = { .t = t, .opts = t->call->train, .host = t->call->host, .dev = t->call->dev,
               .at = { .best = INFINITY, .last = NAN } };
    int stop = 0, rc = begin(&l);
    if (!rc && l.opts->max_steps == 0)
        rc = judge(&l, &stop);
    if (!rc && l.opts->max_steps == 0 && l.opts->keep)
        rc = save(&l);
    while (!rc && !stop && l.at.step < l.opts->max_steps) {
        if (l.host->stop(l.host->ctx)) {
            rc = save(&l);
            rc = rc ? rc : because(&l, TASK_INTERRUPTED, "interrupted");
            break;
        }
        rc = step(&l, &stop);
    }
    if (!rc && averages(&l))
        nn_params_swap(t->params);
    free(l.history);
    k_set_phase(l.dev, K_PHASE_SETUP);
    t->steps = l.at.step;
    t->best = l.at.best;
    t->last = l.at.last;
    t->seconds = l.at.seconds;
    return rc;
}
