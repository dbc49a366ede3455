/* test_token_task.c - what tasks share that ask a Transformer about some tokens: which sequences it sees, and its score. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

/* Runs a task of such sequences around the toy variant. */
static int run(void (*draw)(void *, words *, int32_t *, int32_t *, int32_t *), int batch, int steps, double lr, int examples, int eval_sequences,
               record *r)
{
    static const toy_opts fine = { FINE };
    nn_train_opts train;
    nn_model_opts model;
    char why[512];
    k_dev *dev;
    hs_opts_defaults(nn_train_table, &train);
    hs_opts_defaults(nn_model_table, &model);
    train.batch = batch, train.max_steps = steps, train.eval_every = 50, train.lr = lr;
    model.layers = 1, model.d_model = model.d_ff = 16, model.heads = 2;
    const task_host host = { sizeof host, r, on_metric, on_progress, on_stop, on_reason };
    const nn_mixer_spec mixer = { .variant = &toy, .opts = &fine, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    assert_int_equal(k_dev_open("cpu", 1, &dev, why, sizeof why), 0);
    const task_call call = { .size = sizeof call, .train = &train, .model = &model, .mixer = &mixer, .dev = dev, .dtype = K_F32, .seed = 3,
                             .host = &host };
    token_task t = { .call = &call, .length = LENGTH, .asked = ASKED, .vocabulary = VOCABULARY, .examples = examples,
                     .eval_sequences = eval_sequences, .draw = draw };
    *r = (record){ 0 };
    int rc = token_task_run(&t);
    k_memory m;
    k_memory_read(dev, &m);
    assert_int_equal(m.now, 0);
    k_dev_close(dev);
    return rc;
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
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_epochs), cmocka_unit_test(test_score), cmocka_unit_test(test_batches),
                                        cmocka_unit_test(test_examples) };
    return cmocka_run_group_tests_name("token_task", tests, NULL, NULL);
}
