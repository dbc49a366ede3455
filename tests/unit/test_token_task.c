/* test_token_task.c - what tasks share that ask a Transformer about some tokens: which sequences it sees, and its score. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "harness/nn/mixer_choose.h"
#include "harness/options.h"
#include "nn_toy.h"
#include "tasks/token_task.h"

enum { LENGTH = 6, ASKED = 2, VOCABULARY = 8 };

typedef struct record { double loss, accuracy; int evaluations; char reason[512]; } record;

static void on_metric(void *ctx, const char *name, int64_t step, double value)
{
    record *r = ctx;
    (void)step;
    if (!strcmp(name, "eval_loss")) r->loss = value, r->evaluations++;
    if (!strcmp(name, "accuracy")) r->accuracy = value;
}
static void on_progress(void *ctx, int64_t step, int64_t of, const char *what, double value)
{
    (void)ctx, (void)step, (void)of, (void)what, (void)value;
}
static int on_stop(void *ctx) { return (void)ctx, 0; }
static void on_reason(void *ctx, const char *sentence) { snprintf(((record *)ctx)->reason, 512, "%s", sentence); }

/* Random tokens, two of which are asked for themselves. */
static void itself(void *ctx, words *w, int32_t *token, int32_t *at, int32_t *target)
{
    (void)ctx;
    for (int i = 0; i < LENGTH; i++) token[i] = (int32_t)words_below(w, VOCABULARY);
    for (int i = 0; i < ASKED; i++) at[i] = (int32_t)words_below(w, LENGTH), target[i] = token[at[i]];
}

/* The same, but what is asked for nobody can know. */
static void anything(void *ctx, words *w, int32_t *token, int32_t *at, int32_t *target)
{
    itself(ctx, w, token, at, target);
    for (int i = 0; i < ASKED; i++) target[i] = (int32_t)words_below(w, VOCABULARY);
}

typedef void drawing(void *, words *, int32_t *, int32_t *, int32_t *);

typedef struct cell {                   /* a task of such sequences around the toy variant */
    nn_train_opts train;
    nn_model_opts model;
    nn_mixer_spec mixer;
    task_host host;
    task_call call;
    token_task task;
    record told;
} cell;

static cell *cell_new(k_dtype dtype, drawing *draw, int batch, int steps, double lr, int examples, int eval_sequences)
{
    static const toy_opts fine = { FINE };
    char why[512];
    cell *c = calloc(1, sizeof *c);
    hs_opts_defaults(nn_train_table, &c->train);
    hs_opts_defaults(nn_model_table, &c->model);
    c->train.batch = batch, c->train.max_steps = steps, c->train.eval_every = 50, c->train.lr = lr;
    c->model.layers = 1, c->model.d_model = c->model.d_ff = 16, c->model.heads = 2;
    c->host = (task_host){ sizeof c->host, &c->told, on_metric, on_progress, on_stop, on_reason };
    c->mixer = (nn_mixer_spec){ .variant = &toy, .opts = &fine, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    c->call = (task_call){ .size = sizeof c->call, .train = &c->train, .model = &c->model, .mixer = &c->mixer, .dtype = dtype, .seed = 3,
                           .host = &c->host };
    c->task = (token_task){ .call = &c->call, .length = LENGTH, .asked = ASKED, .vocabulary = VOCABULARY, .examples = examples,
                            .eval_sequences = eval_sequences, .draw = draw };
    assert_int_equal(k_dev_open("cpu", 1, &c->call.dev, why, sizeof why), 0);
    return c;
}

static void cell_free(cell *c)
{
    k_memory m;
    k_memory_read(c->call.dev, &m);
    assert_int_equal(m.now, 0);
    k_dev_close(c->call.dev);
    free(c);
}

/* Runs one in float. */
static int run(drawing *draw, int batch, int steps, double lr, int examples, int eval_sequences, record *r)
{
    cell *c = cell_new(K_F32, draw, batch, steps, lr, examples, eval_sequences);
    int rc = token_task_run(&c->task);
    *r = c->told;
    cell_free(c);
    return rc;
}

/* Gradients of all parameters against central differences: what the gathered rows learn reaches the whole model. */
static void test_gradients(void **state)
{
    (void)state;
    cell *c = cell_new(K_F64, itself, 3, 1, 0, 0, 3);
    c->model.init = 0.3;
    token_run r = { .t = &c->task, .epoch = -1 };
    assert_int_equal(token_build(&r), 0);
    token_batch(&r, 1);
    nn_params_zero_grad(r.params);
    assert_int_equal(nn_forward(r.train.graph) || nn_backward(r.train.graph), 0);
    for (int p = 0; p < nn_params_count(r.params); p++) {
        double *x = nn_param_value(r.params, p), *grad = nn_param_grad(r.params, p), h = 1e-5;
        for (int64_t i = 0; grad && i < nn_elements(nn_param_dims(r.params, p)); i += 3) {
            double before = x[i], loss[2];
            for (int side = 0; side < 2; side++) {
                x[i] = before + (side ? h : -h);
                nn_forward(r.train.graph);
                loss[side] = nn_loss(r.train.graph);
            }
            x[i] = before;
            double expected = (loss[1] - loss[0]) / (2 * h);
            if (fabs(grad[i] - expected) > 1e-7 + 1e-5 * fabs(expected))
                fail_msg("%s[%lld]: %g instead of %g", nn_param_name(r.params, p), (long long)i, grad[i], expected);
        }
    }
    token_release(&r);
    cell_free(c);
}

/* A fixed set of examples: every epoch has each at most once, in an order of its own that its number alone tells. */
static void test_epochs(void **state)
{
    (void)state;
    enum { EXAMPLES = 10, B = 3, EPOCHS = 4 };
    const task_call call = { .seed = 5 };
    token_task t = { .call = &call, .examples = EXAMPLES };
    int32_t order[EXAMPLES];
    uint32_t number[EPOCHS][9];
    token_run r = { .t = &t, .train.B = B, .order = order, .epoch = -1 };
    for (int e = 0; e < EPOCHS; e++) {
        int seen[EXAMPLES] = { 0 };
        for (int i = 0; i < 9; i++) {
            number[e][i] = token_number(&r, 1 + e * 3 + i / B, i % B);
            assert_in_range(number[e][i], 0, EXAMPLES - 1);
            assert_int_equal(seen[number[e][i]]++, 0);
        }
        for (int before = 0; before < e; before++) assert_memory_not_equal(number[e], number[before], sizeof number[e]);
    }
    r.epoch = -1;
    for (int e = EPOCHS - 1; e >= 0; e--)
        for (int i = 0; i < 9; i++) assert_int_equal(token_number(&r, 1 + e * 3 + i / B, i % B), number[e][i]);
    t.examples = 0;
    for (int i = 0; i < 12; i++) assert_int_equal(token_number(&r, 1 + i / B, i % B), i);
}

/* What stands in the sequence is learned to the last, and what does not stays at chance. */
static void test_score(void **state)
{
    (void)state;
    record r;
    assert_int_equal(run(itself, 16, 400, 3e-3, 0, 50, &r), TASK_DONE);
    assert_true(r.accuracy == 1 && r.loss < 0.1);
    assert_int_equal(r.evaluations, 8);
    assert_int_equal(run(anything, 16, 100, 1e-3, 0, 500, &r), TASK_DONE);
    assert_true(fabs(r.accuracy - 1.0 / VOCABULARY) < 0.05);        /* 1000 targets: five standard errors */
    assert_true(r.loss > 0.99 * log(VOCABULARY));
}

/* Sequences of evaluation count once each, however they are cut into batches. */
static void test_batches(void **state)
{
    (void)state;
    record whole, parts;
    assert_int_equal(run(itself, 37, 1, 0, 0, 37, &whole), TASK_DONE);
    assert_int_equal(run(itself, 8, 1, 0, 0, 37, &parts), TASK_DONE);
    assert_true(whole.accuracy == parts.accuracy);
    assert_true(fabs(whole.loss - parts.loss) < 1e-5);
}

/* Fewer examples than a batch are refused. */
static void test_examples(void **state)
{
    (void)state;
    record r;
    assert_int_equal(run(anything, 10, 100, 1e-3, 9, 10, &r), TASK_REFUSED);
    assert_non_null(strstr(r.reason, "9 examples do not make a batch of 10"));
    assert_int_equal(run(anything, 10, 10, 1e-3, 20, 10, &r), TASK_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_epochs),  cmocka_unit_test(test_gradients), cmocka_unit_test(test_score),
                                        cmocka_unit_test(test_batches), cmocka_unit_test(test_examples) };
    return cmocka_run_group_tests_name("token_task", tests, NULL, NULL);
}
