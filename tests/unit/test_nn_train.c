/* test_nn_train.c - schedules, the optimiser step, the stop rule, redraws, and runs that are interrupted and go on. */
#include "harness/nn/train.h"
#include "nn_model.h"
#include "nn_toy.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static k_dev *dev;
static char why[400], folder[64], path[100];

static int open_device(void **state)
{
    (void)state;
    strcpy(folder, P_tmpdir "/test_nn_train.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    return k_dev_open("cpu", 1, &dev, why, sizeof why);
}

/* Also the leak check of every test; a .tmp left behind keeps the folder. */
static int close_device(void **state)
{
    k_memory m;
    (void)state;
    unlink(path);
    k_memory_read(dev, &m);
    k_dev_close(dev);
    return rmdir(folder) || m.now ? -1 : 0;
}

/* ---- options and schedules ------------------------------------------------------------------------------------------------ */

static nn_train_opts defaults(void)
{
    return (nn_train_opts){ .optimizer = NN_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .schedule = NN_CONSTANT, .batch = 32,
                            .accumulate = 1, .max_steps = 100000, .eval_every = 100, .relative_step = 1, .decay_embeddings = 1 };
}

static void the_table_is_the_struct(void **state)
{
    (void)state;
    nn_train_opts have, want = defaults();
    memset(&have, 0, sizeof have);
    int n = 0;
    for (const attn_opt *o = nn_train_table; o->name; o++, n++) {
        void *field = (char *)&have + o->off;
        assert_true(o->type == ATTN_CHOICE || (o->def >= o->min && o->def <= o->max));
        assert_true(o->help && strlen(o->help) > 5);
        if (o->type == ATTN_FLOAT)
            *(double *)field = o->def;
        else if (o->type != ATTN_TEXT)
            *(int32_t *)field = (int32_t)o->def;
    }
    assert_int_equal(n, 23);
    nn_train_opts clean;
    memset(&clean, 0, sizeof clean);
    for (const attn_opt *o = nn_train_table; o->name; o++)
        memcpy((char *)&clean + o->off, (char *)&want + o->off, o->type == ATTN_FLOAT ? sizeof(double) : o->type == ATTN_TEXT ? ATTN_TEXT_SIZE : sizeof(int32_t));
    assert_memory_equal(&clean, &have, sizeof have);
}

static void near(double have, double want) { assert_true(fabs(have - want) <= 1e-12 * fabs(want) + 1e-15); }

static void learning_rates(void **state)
{
    (void)state;
    nn_train_opts o = defaults();
    o.max_steps = 110;
    near(nn_learning_rate(&o, 1), 1e-3);
    near(nn_learning_rate(&o, 1000000), 1e-3);
    o.warmup = 10;
    for (o.schedule = NN_CONSTANT; o.schedule <= NN_LINEAR; o.schedule++) {
        near(nn_learning_rate(&o, 1), 1e-4);
        near(nn_learning_rate(&o, 10), 1e-3);
    }
    o.schedule = NN_INVERSE_SQRT;
    near(nn_learning_rate(&o, 40), 1e-3 / 2);
    o.schedule = NN_COSINE;
    near(nn_learning_rate(&o, 60), 1e-3 / 2);
    near(nn_learning_rate(&o, 35), 1e-3 * (1 + sqrt(0.5)) / 2);
    near(nn_learning_rate(&o, 110), 0);
    near(nn_learning_rate(&o, 500), 0);
    o.schedule = NN_LINEAR;
    near(nn_learning_rate(&o, 60), 1e-3 / 2);
    near(nn_learning_rate(&o, 110), 0);
    o.warmup = 0;
    o.schedule = NN_INVERSE_SQRT;
    near(nn_learning_rate(&o, 1), 1e-3);
    near(nn_learning_rate(&o, 4), 1e-3 / 2);
    o.warmup = 200;                     /* longer than the run: nothing but warm-up */
    o.schedule = NN_COSINE;
    near(nn_learning_rate(&o, 100), 1e-3 / 2);
}

/* ---- the optimiser -------------------------------------------------------------------------------------------------------- */

/* Three parameters of two numbers (decayed, not decayed, frozen) with gradients 3, 4 and none. */
static nn_params *three(void)
{
    nn_params *p = nn_params_new(dev, K_F64, 1);
    const int flags[] = { ATTN_NO_DECAY, 0, ATTN_FROZEN };
    static const char *const names[] = { "free", "decayed", "frozen" };
    for (int i = 0; i < 3; i++)
        nn_param(p, names[i], dims(1, 2, 0, 0, 0), (attn_init){ ATTN_INIT_CONST, 1, 0 }, flags[i]);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
    for (int i = 0; i < 2; i++)
        *(double *)nn_param_grad(p, i) = i ? 4 : 3;
    return p;
}

static double first(nn_params *p, int i) { return *(double *)nn_param_value(p, i); }

static void clipping_and_decay(void **state)
{
    (void)state;
    nn_train_opts o = defaults();
    o.beta1 = o.beta2 = 0;              /* then a step is lr g / (|g| + eps) */
    o.eps = 1;
    o.lr = 0.5;
    nn_params *p = three();
    nn_optimiser_step(p, &o, 1);
    near(first(p, 0), 1 - 0.5 * 3.0 / 4);
    near(first(p, 1), 1 - 0.5 * 4.0 / 5);
    near(first(p, 2), 1);
    assert_int_equal(nn_params_step(p), 1);
    double was = first(p, 0);
    nn_params_zero_grad(p);
    nn_optimiser_step(p, &o, 2);        /* no backward came: the gradients are zero, not the old ones */
    near(first(p, 0), was);
    nn_params_free(p);
    p = three();
    o.clip = 2.5;                       /* the norm is 5: gradients are halved */
    nn_optimiser_step(p, &o, 1);
    near(first(p, 0), 1 - 0.5 * 1.5 / 2.5);
    near(first(p, 1), 1 - 0.5 * 2.0 / 3);
    nn_params_free(p);
    p = three();
    o.clip = 10;                        /* below the bound: as without */
    o.weight_decay = 0.1;
    o.optimizer = NN_ADAMW;
    nn_optimiser_step(p, &o, 1);
    near(first(p, 0), 1 - 0.5 * 3.0 / 4);
    near(first(p, 1), 1 * (1 - 0.5 * 0.1) - 0.5 * 4.0 / 5);
    nn_params_free(p);
    p = three();
    o.optimizer = NN_ADAM;              /* L2: the gradient becomes 4.1 */
    nn_optimiser_step(p, &o, 1);
    near(first(p, 1), 1 - 0.5 * 4.1 / 5.1);
    near(first(p, 0), 1 - 0.5 * 3.0 / 4);
    near(((double *)nn_param_value(p, 1))[1], 1 - 0.5 * 0.1 / 1.1);
    nn_params_free(p);
    p = three();
    o.weight_decay = 0;
    o.accumulate = 2;                   /* gradients 1.5 and 2, of norm 2.5, halved by the bound */
    o.clip = 1.25;
    nn_optimiser_step(p, &o, 1);
    near(first(p, 0), 1 - 0.5 * 0.75 / 1.75);
    near(first(p, 1), 1 - 0.5 * 1.0 / 2);
    nn_params_free(p);
}

/* ---- the loop with a scripted evaluation --------------------------------------------------------------------------------- */

typedef struct script {
    model m;
    const double *losses;               /* of evaluation 1, 2, ...; NULL: the model's own training loss */
    int batches, evaluations, restored, stop_at, told;
    int64_t last_batch, last_restored;
    double curve[200];                  /* every loss that was evaluated or restored */
    int progress, fail_batch, fail_evaluation;
    char reason[300];
    task_host host;
    task_call call;
    nn_train_opts opts;
    nn_trainer t;
} script;

static int script_batch(void *ctx, int64_t step)
{
    script *s = ctx;
    s->batches++;
    s->last_batch = step;
    model_batch(&s->m, (uint64_t)step, 0);
    return step == s->fail_batch ? TASK_FAILED : TASK_DONE;
}

static int script_evaluate(void *ctx, int64_t step, double *loss)
{
    script *s = ctx;
    *loss = s->losses ? s->losses[s->evaluations] : nn_loss(s->m.graph);
    s->curve[s->evaluations++ + s->restored] = *loss;
    return step == s->fail_evaluation ? TASK_OOM : TASK_DONE;
}

static void script_restored(void *ctx, int64_t step, double loss)
{
    script *s = ctx;
    s->curve[s->restored++] = loss;
    s->last_restored = step;
}

static void script_progress(void *ctx, int64_t step, int64_t of, const char *what, double value)
{
    (void)step, (void)of, (void)what, (void)value;
    ((script *)ctx)->progress++;
}

static int script_stop(void *ctx)
{
    script *s = ctx;
    return s->stop_at && s->batches >= s->stop_at;
}

static void script_reason(void *ctx, const char *sentence)
{
    script *s = ctx;
    s->told++;
    snprintf(s->reason, sizeof s->reason, "%s", sentence);
}

static const toy_opts fine = { FINE };

/* A small task with the toy variant, ready to train; free with script_free. */
static script *script_new(uint64_t seed)
{
    script *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->m = (model){ .B = 4, .T = 6, .Tq = 1, .S = 6, .params = nn_params_new(dev, K_F32, seed) };
    nn_mixer_spec spec = { .variant = &toy, .opts = &fine, .common = { 0, 1e-5 }, .shape = { .mode = ATTN_CROSS, .dtype = ATTN_F32 } };
    s->m.graph = nn_graph_new(s->m.params, 1);
    model_record(&s->m, &spec, 8, 4, 1);
    assert_int_equal(nn_params_alloc(s->m.params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(s->m.graph, why, sizeof why), 0);
    s->host = (task_host){ sizeof s->host, s, NULL, script_progress, script_stop, script_reason };
    s->opts = defaults();
    s->opts.max_steps = 50;
    s->opts.eval_every = 5;
    s->opts.lr = 0.01;
    s->call = (task_call){ .size = sizeof s->call, .train = &s->opts, .dev = dev, .dtype = K_F32, .seed = seed, .host = &s->host };
    s->t = (nn_trainer){ .call = &s->call, .params = s->m.params, .graph = s->m.graph, .ctx = s, .batch = script_batch,
                         .evaluate = script_evaluate, .restored = script_restored, .redraw_interval = 3 };
    return s;
}

static void script_free(script *s)
{
    nn_graph_free(s->m.graph);
    nn_params_free(s->m.params);
    free(s);
}

/* Runs the losses under the rule and gives the step at which it ended. */
static int64_t ended(const double *losses, double stop_loss, int patience, int want, double best)
{
    script *s = script_new(1);
    s->losses = losses;
    s->opts.stop_loss = stop_loss;
    s->opts.stop_patience = patience;
    assert_int_equal(nn_train(&s->t), want);
    assert_true(s->t.best == best);
    assert_true((s->told == 1) == (want != TASK_DONE));
    assert_int_equal(s->batches, s->t.steps);
    assert_int_equal(s->progress, s->evaluations);
    int64_t steps = s->t.steps;
    assert_true(s->t.seconds > 0);
    assert_true(s->t.last == s->curve[s->evaluations - 1] || isnan(s->t.last));
    script_free(s);
    return steps;
}

static void the_stop_rule(void **state)
{
    (void)state;
    const double falling[] = { .9, .8, .7, .6, .5, .4, .3, .2, .1, .05 };
    const double stuck[] = { .5, .5, .6, .4, .4, .5, .45, .3, .2, .1 };
    const double broken[] = { .5, .4, NAN, .1 }, endless[] = { .5, INFINITY };
    assert_int_equal(ended(falling, 0, 0, TASK_DONE, .05), 50);
    assert_int_equal(ended(falling, .6, 0, TASK_DONE, .6), 20);     /* at the bound counts */
    assert_int_equal(ended(falling, .59, 0, TASK_DONE, .5), 25);
    assert_int_equal(ended(falling, 0, 1, TASK_DONE, .05), 50);
    assert_int_equal(ended(stuck, 0, 0, TASK_DONE, .1), 50);
    assert_int_equal(ended(stuck, 0, 1, TASK_DONE, .5), 15);        /* equal is no new best: strikes 1, 2 */
    assert_int_equal(ended(stuck, 0, 2, TASK_DONE, .4), 35);        /* .4 clears them; then .4 .5 .45 */
    assert_int_equal(ended(stuck, 0, 3, TASK_DONE, .1), 50);
    assert_int_equal(ended(broken, 0, 0, TASK_DIVERGED, .4), 15);
    assert_int_equal(ended(endless, 0, 0, TASK_DIVERGED, .5), 10);
}

static void the_last_step_is_evaluated(void **state)
{
    (void)state;
    script *s = script_new(1);
    s->opts.max_steps = 13;
    assert_int_equal(nn_train(&s->t), TASK_DONE);
    assert_int_equal(s->evaluations, 3);                            /* 5, 10, 13 */
    assert_int_equal(s->t.steps, 13);
    script_free(s);
}

static void failures_and_interruption_end_the_loop(void **state)
{
    (void)state;
    script *s = script_new(1);
    s->fail_batch = 7;
    assert_int_equal(nn_train(&s->t), TASK_FAILED);
    assert_int_equal(s->t.steps, 6);
    script_free(s);
    s = script_new(1);
    s->fail_evaluation = 10;
    assert_int_equal(nn_train(&s->t), TASK_OOM);
    script_free(s);
    s = script_new(1);
    s->stop_at = 7;
    assert_int_equal(nn_train(&s->t), TASK_INTERRUPTED);
    assert_int_equal(s->t.steps, 7);
    assert_int_equal(access(path, F_OK), -1);                       /* no checkpoint was asked for */
    script_free(s);
    assert_int_equal(nn_task_code(ATTN_EUNSUP), TASK_REFUSED);
    assert_int_equal(nn_task_code(NN_ENOMEM), TASK_OOM);
    assert_int_equal(nn_task_code(ATTN_EINVAL), TASK_FAILED);
    assert_int_equal(nn_task_code(0), TASK_DONE);
}

/* Draw (s-1)/r holds during steps s: 1..3 draw 0, 4..6 draw 1, 7 draw 2. */
static void redraws_come_in_time(void **state)
{
    (void)state;
    for (int steps = 1; steps <= 7; steps++) {
        script *s = script_new(1), *fresh = script_new(1);
        s->opts.max_steps = steps;
        assert_int_equal(nn_train(&s->t), TASK_DONE);
        nn_params_redraw(fresh->m.params, (uint32_t)((steps - 1) / 3));
        int r = nn_param(s->m.params, "mixer.r", dims(1, 4, 0, 0, 0), (attn_init){ 0 }, 0);
        assert_memory_equal(nn_param_value(s->m.params, r), nn_param_value(fresh->m.params, r), 4 * sizeof(float));
        script_free(s);
        script_free(fresh);
    }
}

/* A model that learns: the loss falls far below that of answering nothing. */
static void training_learns(void **state)
{
    (void)state;
    script *s = script_new(3);
    s->t.redraw_interval = 0;
    s->opts.max_steps = 600;
    s->opts.eval_every = 20;
    assert_int_equal(nn_train(&s->t), TASK_DONE);
    assert_true(s->t.best < 0.25 && s->curve[0] > 0.4);
    script_free(s);
}

/* ---- going on ---------------------------------------------------------------------------------------------------------------- */

/* All values of all parameters, bit for bit. */
static void same_parameters(nn_params *a, nn_params *b)
{
    assert_int_equal(nn_params_count(a), nn_params_count(b));
    for (int i = 0; i < nn_params_count(a); i++) {
        attn_dims d = nn_param_dims(a, i);
        assert_memory_equal(nn_param_value(a, i), nn_param_value(b, i), (size_t)(d.d[0] * (d.n > 1 ? d.d[1] : 1)) * sizeof(float));
    }
}

/* 20 steps at once against 20 that end after `at` steps and go on in a new state: parameters, curve and results, to the bit.
 * each: batches of a step; with more than one there is an average of the weights too. */
static void go_on(int at, int every, int cancelled, int each)
{
    script *whole = script_new(1), *half = script_new(1), *rest = script_new(1);
    script *const all[] = { whole, half, rest };
    for (int i = 0; i < 3; i++) {
        all[i]->opts.max_steps = 20;
        all[i]->opts.checkpoint_every = i ? every : 0;
        all[i]->call.checkpoint = path;
        all[i]->opts.clip = 0.5;
        all[i]->opts.accumulate = each;
        all[i]->opts.average = each > 1 ? 0.9 : 0;
    }
    assert_int_equal(nn_train(&whole->t), TASK_DONE);
    half->stop_at = cancelled ? at * each : 0;
    half->fail_batch = cancelled ? 0 : at * each + each;                      /* dies without a word */
    assert_int_equal(nn_train(&half->t), cancelled ? TASK_INTERRUPTED : TASK_FAILED);
    assert_int_equal(nn_train(&rest->t), TASK_DONE);
    assert_int_equal(rest->batches, each * (20 - (cancelled ? at : at / every * every)));
    same_parameters(whole->m.params, rest->m.params);
    assert_int_equal(rest->restored + rest->evaluations, whole->evaluations);
    assert_memory_equal(whole->curve, rest->curve, (size_t)whole->evaluations * sizeof *whole->curve);
    assert_true(whole->t.best == rest->t.best && whole->t.last == rest->t.last && whole->t.steps == rest->t.steps);
    assert_true(rest->t.seconds > 0);
    unlink(path);
    for (int i = 0; i < 3; i++)
        script_free(all[i]);
}

static void an_interrupted_run_ends_alike(void **state)
{
    (void)state;
    go_on(10, 100, 1, 1);
    go_on(7, 5, 1, 1);
    go_on(13, 4, 0, 1);
    go_on(10, 10, 0, 1);
    go_on(7, 5, 1, 3);
    go_on(13, 4, 0, 2);
}

/* ---- batches that share a step, and the average of the weights ------------------------------------------------------------------ */

/* Steps of three batches against the same gradients added up by hand. */
static void batches_accumulate(void **state)
{
    (void)state;
    script *s = script_new(1), *hand = script_new(1);
    nn_params *p = hand->m.params;
    s->opts.max_steps = 4;
    s->opts.accumulate = 3;
    s->t.redraw_interval = 0;
    assert_int_equal(nn_train(&s->t), TASK_DONE);
    assert_int_equal(s->batches, 12);
    assert_int_equal(s->last_batch, 12);
    for (int step = 1; step <= 4; step++) {
        nn_params_zero_grad(p);
        for (int i = 1; i <= 3; i++) {
            model_batch(&hand->m, (uint64_t)(3 * (step - 1) + i), 0);
            assert_int_equal(nn_forward(hand->m.graph) || nn_backward(hand->m.graph), 0);
        }
        for (int i = 0; i < nn_params_count(p); i++) {
            attn_dims d = nn_param_dims(p, i);
            if (nn_param_grad(p, i))
                k_scale(dev, K_F32, d.d[0] * (d.n > 1 ? d.d[1] : 1), 1.0 / 3, nn_param_grad(p, i), nn_param_grad(p, i));
        }
        nn_optimiser_step(p, &hand->opts, step);
    }
    same_parameters(s->m.params, p);
    script_free(s);
    script_free(hand);
}

/* What evaluate() of one run sees of a weight, step by step; and that of another with the average. */
typedef struct watcher { script *s; int weight, n; double seen[60]; } watcher;

static int watch(void *ctx, int64_t step, double *loss)
{
    watcher *w = ctx;
    (void)step;
    w->seen[w->n++] = (double)((float *)nn_param_value(w->s->m.params, w->weight))[1];
    *loss = 1;
    return TASK_DONE;
}

static int watched_batch(void *ctx, int64_t number) { return script_batch(((watcher *)ctx)->s, number); }

/* A run whose evaluations the watcher sees, with these options; the weight before and after it. */
static void watched_run(watcher *w, int eval_every, double average, int average_last, double *begin, double *end)
{
    script *s = w->s = script_new(1);
    const float *value = nn_param_value(s->m.params, w->weight = nn_param(s->m.params, "Wkv", dims(2, s->m.S, 4, 0, 0), (attn_init){ 0 }, 0));
    s->opts.eval_every = eval_every;
    s->opts.average = average;
    s->opts.average_last = average_last;
    s->t.ctx = w;
    s->t.evaluate = watch;
    s->t.batch = watched_batch;
    *begin = (double)value[1];
    assert_int_equal(nn_train(&s->t), TASK_DONE);
    *end = (double)value[1];
}

static void the_average_is_evaluated(void **state)
{
    (void)state;
    watcher w[2] = { 0 };
    double average = 0, end = 0, apart = 0;
    for (int i = 0; i < 2; i++)
        watched_run(&w[i], 1, i ? 0.8 : 0, 0, &average, &end);
    assert_true(w[0].n == 50 && w[1].n == 50);
    for (int step = 1; step <= 50; step++) {
        double decay = fmin(0.8, (1.0 + step) / (10.0 + step));
        average = decay * average + (1 - decay) * w[0].seen[step - 1];
        assert_true(fabs(w[1].seen[step - 1] - average) < 1e-6);
        apart = fmax(apart, fabs(w[0].seen[step - 1] - average));
    }
    assert_true(apart > 1e-3 && end == w[1].seen[49]);              /* it is another number, and what is left at the end */
    script_free(w[0].s);
    script_free(w[1].s);
}

/* The mean of the weights at the last four evaluations, of which the last is out of turn; before them the weights of each. */
static void the_last_weights_are_averaged(void **state)
{
    (void)state;
    watcher w[2] = { 0 };
    double begin, end, sum = 0;
    for (int i = 0; i < 2; i++)
        watched_run(&w[i], i ? 3 : 1, 0, i ? 4 : 0, &begin, &end);
    assert_int_equal(w[1].n, 17);
    for (int e = 0; e < 17; e++) {
        double now = w[0].seen[e < 16 ? 3 * e + 2 : 49];
        sum += e < 13 ? 0 : now;
        double want = e < 13 ? now : sum / (e - 12);
        if (!(e < 13 ? w[1].seen[e] == want : fabs(w[1].seen[e] - want) < 1e-6))
            fail_msg("evaluation %d: %.9g, not %.9g", e, w[1].seen[e], want);
    }
    assert_true(end == w[1].seen[16] && fabs(end - w[0].seen[49]) > 1e-5);
    w[0].s->opts.average = 0.5, w[0].s->opts.average_last = 2;
    assert_int_equal(nn_train(&w[0].s->t), TASK_FAILED);
    script_free(w[0].s);
    script_free(w[1].s);
}

static char noted[600];
static void note(void *ctx, const char *sentence) { (void)ctx; snprintf(noted, sizeof noted, "%s", sentence); }

/* Weights of a run, kept, are where another begins; without a step it evaluates them, once. */
static void a_run_begins_with_another(void **state)
{
    (void)state;
    script *first = script_new(1), *second = script_new(2);
    first->opts.keep = 1, first->call.checkpoint = path;
    assert_int_equal(nn_train(&first->t), TASK_DONE);
    second->opts.max_steps = 0, second->losses = (const double[]){ 0.5 }, second->fail_evaluation = -1;
    second->call.init = path, second->host.note = note;
    assert_int_equal(nn_train(&second->t), TASK_DONE);
    assert_true(second->evaluations == 1 && second->batches == 0);
    assert_true(second->t.steps == 0 && second->t.best == 0.5 && second->t.last == 0.5 && second->t.seconds == 0);
    same_parameters(first->m.params, second->m.params);
    assert_non_null(strstr(noted, "; 0 drawn"));
    script_free(first);
    unlink(path);
    script *third = script_new(3);
    third->call.init = path;
    assert_int_equal(nn_train(&third->t), TASK_FAILED);         /* the file is gone */
    assert_non_null(strstr(third->reason, path));
    script_free(second);
    script_free(third);
}

/* Patience counts across the interruption. */
static void strikes_survive(void **state)
{
    const double rising[] = { .1, .2, .3, .4, .5, .6, .7 };
    (void)state;
    script *s = script_new(1), *rest = script_new(1);
    s->losses = rising;
    rest->losses = rising + 3;
    script *const both[] = { s, rest };
    for (int i = 0; i < 2; i++) {
        both[i]->opts.stop_patience = 4;
        both[i]->opts.checkpoint_every = 1000;
        both[i]->call.checkpoint = path;
    }
    s->stop_at = 17;
    assert_int_equal(nn_train(&s->t), TASK_INTERRUPTED);
    assert_int_equal(nn_train(&rest->t), TASK_DONE);
    assert_int_equal(rest->t.steps, 30);                            /* .1, then five that are no better */
    assert_int_equal(rest->restored, 3);
    assert_int_equal(rest->last_restored, 15);
    assert_true(rest->t.best == .1);
    script_free(s);
    script_free(rest);
}

/* A checkpoint that is not this run's, or no checkpoint, ends the run with a sentence that names the file. */
static void a_foreign_checkpoint_is_refused(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        script *s = script_new(1), *other = script_new(2);
        FILE *f = kind ? NULL : fopen(path, "w");
        if (f)
            fclose(f);
        if (kind == 1)
            assert_int_equal(nn_checkpoint_save(other->m.params, path, &(char[64]){ 0 }, 64, why, sizeof why), 0);
        if (kind == 2)
            assert_int_equal(nn_checkpoint_save(s->m.params, path, "short", 5, why, sizeof why), 0);
        s->call.checkpoint = path;
        s->opts.checkpoint_every = 10;
        assert_int_equal(nn_train(&s->t), TASK_FAILED);
        assert_int_equal(s->batches, 0);
        assert_non_null(strstr(s->reason, kind == 2 ? "state of a training run" : path));
        unlink(path);
        script_free(s);
        script_free(other);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_table_is_the_struct), T(learning_rates), T(clipping_and_decay), T(the_stop_rule), T(the_last_step_is_evaluated),
        T(failures_and_interruption_end_the_loop), T(redraws_come_in_time), T(training_learns), T(an_interrupted_run_ends_alike),
        T(batches_accumulate), T(the_average_is_evaluated), T(the_last_weights_are_averaged),
        T(a_run_begins_with_another), T(strikes_survive), T(a_foreign_checkpoint_is_refused) };
    return cmocka_run_group_tests_name("nn_train", tests, NULL, NULL);
}
