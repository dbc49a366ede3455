/* test_classification.c - what tasks of classification share: where tokens lie, which examples come, the classifier, the score. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "built_variants.h"
#include "harness/nn/mixer_choose.h"
#include "harness/options.h"
#include "kernels/philox.h"
#include "tasks/classification.h"

enum { WORDS = 6, LABELS = 3, ROOM = 16, EXAMPLES = 40 };

/* ---- a task ------------------------------------------------------------------------------------------------------------- */

typedef struct told { double value[16]; int times[16]; char reason[512]; } told;
static const char *const METRICS[] = { "valid_loss", "valid_accuracy", "test_loss", "test_accuracy", "test_accuracy_low", "test_accuracy_high",
                                       "test_majority", "test_examples", "test_tokens", "test_cut", "train_examples", "valid_examples" };
enum { METRIC_COUNT = sizeof METRICS / sizeof *METRICS };

static void on_metric(void *ctx, const char *name, int64_t step, double value)
{
    told *r = ctx;
    (void)step;
    for (int i = 0; i < METRIC_COUNT; i++)
        if (!strcmp(name, METRICS[i])) r->value[i] = value, r->times[i]++;
}
static double metric(const told *r, const char *name)
{
    for (int i = 0; i < METRIC_COUNT; i++)
        if (!strcmp(name, METRICS[i]) && r->times[i]) return r->value[i];
    fail_msg("no %s was told", name);
    return NAN;
}
static void on_progress(void *ctx, int64_t step, int64_t of, const char *what, double value)
{
    (void)ctx, (void)step, (void)of, (void)what, (void)value;
}
static int on_stop(void *ctx) { return (void)ctx, 0; }
static void on_reason(void *ctx, const char *sentence) { snprintf(((told *)ctx)->reason, 512, "%s", sentence); }

/* Texts of 1 to 11 random words, cut to the room; the label is how the first words of all texts add up, or anything. */
static void random_text(void *ctx, int split, int64_t i, class_text *text, int32_t *label)
{
    const int *texts = ctx;
    uint64_t at = 0;
    *label = 0;
    for (int k = 0; k < *texts; k++) {
        const uint32_t n = 1 + philox_u32(9, (uint32_t)split, (uint32_t)i, at++) % 11;
        for (uint32_t j = 0; j < n; j++) {
            const int32_t word = (int32_t)(philox_u32(9, (uint32_t)split, (uint32_t)i, at++) % WORDS);
            if ((int32_t)j < text[k].room) text[k].token[j] = word;
            if (j == 0) *label += word;
        }
        text[k].whole = n;
        text[k].n = (int32_t)n < text[k].room ? (int32_t)n : text[k].room;
    }
    *label %= LABELS;
}

typedef struct cell {                   /* one of them around softmax */
    nn_train_opts train;
    nn_model_opts model;
    class_opts o;
    char variant_opts[1024];
    nn_mixer_spec mixer;
    task_host host;
    task_call call;
    classification task;
    told told;
    int texts;
} cell;

static cell *cell_new(k_dtype dtype, int texts, int length, int mode, int pooling)
{
    cell *c = calloc(1, sizeof *c);
    const attn_variant *v = NULL;
    for (int i = 0; i < nfiles && !v; i++) v = hs_plugin_variant(&file[i], "softmax");
    assert_true(v && v->opts_size <= sizeof c->variant_opts);
    hs_opts_defaults(v->opts, c->variant_opts);
    hs_opts_defaults(nn_train_table, &c->train);
    hs_opts_defaults(nn_model_table, &c->model);
    c->train.batch = 3, c->train.max_steps = 1, c->train.eval_every = 50, c->train.lr = 0;
    c->model.layers = 1, c->model.d_model = c->model.d_ff = 8, c->model.heads = 2, c->model.init = 0.3;
    c->o = (class_opts){ .length = length, .mode = mode, .pooling = pooling };
    c->host = (task_host){ sizeof c->host, &c->told, on_metric, on_progress, on_stop, on_reason };
    c->mixer = (nn_mixer_spec){ .variant = v, .opts = c->variant_opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    c->call = (task_call){ .size = sizeof c->call, .train = &c->train, .model = &c->model, .mixer = &c->mixer, .dev = dev, .dtype = dtype,
                           .seed = 3, .host = &c->host };
    c->texts = texts;
    c->task = (classification){ .call = &c->call, .o = &c->o, .texts = texts, .vocabulary = WORDS, .classes = LABELS,
                                .examples = { EXAMPLES, EXAMPLES, EXAMPLES }, .ctx = &c->texts, .draw = random_text };
    return c;
}

/* ---- what lies where ---------------------------------------------------------------------------------------------------------- */

/* An example of two texts as the second of three: rows 1 and 4. */
static void places(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        const int causal = kind & 1, mean = kind >> 1 & 1, seen = kind >> 2, T = 8;
        cell *c = cell_new(K_F32, 2, T, causal ? CLASS_CAUSAL : CLASS_BIDIRECTIONAL, mean ? CLASS_MEAN : CLASS_CLS);
        c->o.padding = seen ? CLASS_SEEN : CLASS_HIDDEN;
        int32_t token[6 * 8], len[6], at[6], target[3], want[CLASS_TEXTS][ROOM] = { { 0 } }, label;
        class_run r = { .t = &c->task, .token = token, .len = len, .at = at, .target = target };
        for (int i = 0; i < 20; i++) {
            class_score s = { 0 };
            class_text text[] = { { want[0], ROOM, 0, 0 }, { want[1], ROOM, 0, 0 } };
            random_text(&c->texts, CLASS_VALID, i, text, &label);
            memset(token, 0x7f, sizeof token);
            class_put(&r, CLASS_VALID, i, 1, 3, &s);
            assert_int_equal(target[1], label);
            for (int k = 0; k < 2; k++) {
                const int room = mean ? T : T - 1, n = text[k].n < room ? text[k].n : room, row = 3 * k + 1, first = !mean && !causal;
                assert_memory_equal(token + row * T + first, want[k], (size_t)n * sizeof *token);
                assert_int_equal(len[row], n + !mean);
                assert_int_equal(at[row], mean ? row : row * T + (causal ? n : 0));
                if (!mean) assert_int_equal(token[at[row]], WORDS);
                for (int j = len[row]; j < T; j++) assert_int_equal(token[row * T + j], seen ? WORDS + !mean : 0);
                s.cut -= text[k].n > room;
                s.tokens -= text[k].n;
            }
            assert_true(s.cut == 0 && s.tokens == 0);
        }
        free(c);
    }
}

/* Every epoch has each example once, in an order of its own; a batch may end one and begin the next. */
static void epochs(void **state)
{
    enum { N = 10, B = 3, EPOCHS = 3 };
    int64_t order[EPOCHS][N];
    (void)state;
    for (int e = 0; e < EPOCHS; e++) {
        int seen[N] = { 0 };
        for (int i = 0; i < N; i++) {
            order[e][i] = data_permuted(5, (uint32_t)e, N, i);
            assert_int_equal(seen[order[e][i]]++, 0);
        }
        for (int before = 0; before < e; before++) assert_memory_not_equal(order[e], order[before], sizeof order[e]);
    }
    cell *c = cell_new(K_F32, 1, 8, CLASS_BIDIRECTIONAL, CLASS_CLS);
    c->call.seed = 5;
    c->train.batch = B;
    c->task.examples[CLASS_TRAIN] = N;
    class_run r = { .t = &c->task };
    assert_int_equal(class_build(&r), 0);
    for (int number = 1; number <= EPOCHS * N / B; number++) {
        class_batch(&r, number);
        for (int b = 0; b < B; b++) {
            const int i = (number - 1) * B + b;
            int32_t want[ROOM], label;
            class_text text = { want, ROOM, 0, 0 };
            random_text(&c->texts, CLASS_TRAIN, order[i / N][i % N], &text, &label);
            assert_int_equal(r.target[b], label);
            assert_int_equal(r.token[b * 8 + 1], want[0]);
        }
    }
    class_release(&r);
    free(c);
}

/* ---- the model ------------------------------------------------------------------------------------------------------------------ */

/* Gradients of all parameters against central differences, for every way from tokens to classes. */
static void gradients(void **state)
{
    (void)state;
    for (int kind = 0; kind < 32; kind++) {
        cell *c = cell_new(K_F64, 1 + (kind & 1), 6, kind & 2 ? CLASS_CAUSAL : CLASS_BIDIRECTIONAL, kind & 4 ? CLASS_MEAN : CLASS_CLS);
        c->o.interaction = kind & 8 ? CLASS_BOTH : CLASS_NLI, c->o.padding = kind & 16 ? CLASS_SEEN : CLASS_HIDDEN;
        class_run r = { .t = &c->task };
        assert_int_equal(class_build(&r), 0);
        class_batch(&r, 1);
        nn_params_zero_grad(r.params);
        assert_int_equal(nn_forward(r.learner.graph) || nn_backward(r.learner.graph), 0);
        for (int p = 0; p < nn_params_count(r.params); p++) {
            double *x = nn_param_value(r.params, p), *grad = nn_param_grad(r.params, p), h = 1e-5;
            for (int64_t i = 0; grad && i < nn_elements(nn_param_dims(r.params, p)); i += 5) {
                double before = x[i], loss[2];
                for (int side = 0; side < 2; side++) {
                    x[i] = before + (side ? h : -h);
                    nn_forward(r.learner.graph);
                    loss[side] = nn_loss(r.learner.graph);
                }
                x[i] = before;
                double expected = (loss[1] - loss[0]) / (2 * h);
                if (fabs(grad[i] - expected) > 1e-7 + 1e-5 * fabs(expected))
                    fail_msg("kind %d %s[%lld]: %g instead of %g", kind, nn_param_name(r.params, p), (long long)i, grad[i], expected);
            }
        }
        class_release(&r);
        free(c);
    }
}

/* Room behind the end of a text changes nothing. */
static void padding_is_hidden(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        double loss[2];
        for (int wide = 0; wide < 2; wide++) {
            cell *c = cell_new(K_F64, 1 + (kind & 1), wide ? 31 : 12, kind & 2 ? CLASS_CAUSAL : CLASS_BIDIRECTIONAL,
                               kind & 4 ? CLASS_MEAN : CLASS_CLS);
            class_run r = { .t = &c->task };
            assert_int_equal(class_build(&r), 0);
            class_batch(&r, 1);
            assert_int_equal(nn_forward(r.learner.graph), 0);
            loss[wide] = nn_loss(r.learner.graph);
            class_release(&r);
            free(c);
        }
        assert_true(loss[0] > 0 && fabs(loss[0] - loss[1]) < 1e-12);
    }
}

static const double *value_of(nn_params *p, const char *name)
{
    for (int i = 0; i < nn_params_count(p); i++)
        if (!strcmp(nn_param_name(p, i), name)) return nn_param_value(p, i);
    fail_msg("there is no parameter %s", name);
    return NULL;
}

/* y [width] += w [width,depth] x */
static void product(double *y, const double *w, const double *x, int width, int depth)
{
    for (int i = 0; i < width; i++)
        for (int j = 0; j < depth; j++) y[i] += w[i * depth + j] * x[j];
}

/* The scores of two rows by their formula, with hidden weights on [x1, x2, x1 * x2, x1 - x2]. */
static void head(void **state)
{
    enum { D = 8, B = 2 };
    static const char *const part[] = { "first", "second", "product", "difference" };
    (void)state;
    cell *c = cell_new(K_F64, 2, 6, CLASS_BIDIRECTIONAL, CLASS_CLS);
    class_run r = { .t = &c->task, .params = nn_params_new(dev, K_F64, 4) };
    nn_graph *g = nn_graph_new(r.params, 0);
    nn_id x[] = { nn_input(g, K_F64, (attn_dims){ 2, { B, D } }), nn_input(g, K_F64, (attn_dims){ 2, { B, D } }) };
    nn_id y = class_head(&r, g, x, &c->model);
    assert_int_equal(nn_params_alloc(r.params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), 0);
    double *in[] = { nn_data(g, x[0]), nn_data(g, x[1]) };
    for (int i = 0; i < B * D; i++) in[0][i] = sin(i), in[1][i] = cos(3 * i);
    assert_int_equal(nn_forward(g), 0);
    for (int b = 0; b < B; b++) {
        double of[4][D], hidden[D] = { 0 }, half[D / 2] = { 0 }, score[LABELS] = { 0 };
        char name[80];
        for (int j = 0; j < D; j++) {
            const double p = in[0][b * D + j], q = in[1][b * D + j], four[] = { p, q, p * q, p - q };
            for (int k = 0; k < 4; k++) of[k][j] = four[k];
        }
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "classifier.hidden.%s.weight", part[k]);
            product(hidden, value_of(r.params, name), of[k], D, D);
        }
        for (int j = 0; j < D; j++) hidden[j] = fmax(0, hidden[j]);
        product(half, value_of(r.params, "classifier.hidden2.weight"), hidden, D / 2, D);
        for (int j = 0; j < D / 2; j++) half[j] = fmax(0, half[j]);
        product(score, value_of(r.params, "classifier.output.weight"), half, LABELS, D / 2);
        for (int k = 0; k < LABELS; k++) assert_true(fabs(score[k] - ((double *)nn_data(g, y))[b * LABELS + k]) < 1e-12);
    }
    nn_graph_free(g);
    nn_params_free(r.params);
    free(c);
}

/* ---- the score -------------------------------------------------------------------------------------------------------------------- */

/* Wilson's interval against published values (Newcombe 1998, of 81 of 263 and 15 of 148), and at the ends. */
static void intervals(void **state)
{
    static const struct { int64_t right, n; double low, high; } of[] = {
        { 81, 263, 0.2553, 0.3662 }, { 15, 148, 0.0624, 0.1605 }, { 0, 20, 0, 0.1611 }, { 29, 29, 0.8830, 1 } };
    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        assert_true(fabs(class_wilson(of[i].right, of[i].n, -1) - of[i].low) < 5e-5);
        assert_true(fabs(class_wilson(of[i].right, of[i].n, 1) - of[i].high) < 5e-5);
    }
}

/* What stands at the beginning of a text is learned; counts and shares are those of the test. */
static void learning(void **state)
{
    int64_t count[LABELS] = { 0 }, tokens = 0, most = 0;
    (void)state;
    for (int pooling = 0; pooling < 2; pooling++) {
        cell *c = cell_new(K_F32, 1, 12, CLASS_BIDIRECTIONAL, pooling);
        c->train.batch = 16, c->train.max_steps = 300, c->train.lr = 1e-2, c->train.eval_every = 100;
        c->model.d_model = c->model.d_ff = 16, c->task.examples[CLASS_TRAIN] = 0, c->o.eval_examples = 10;
        assert_int_equal(classification_run(&c->task), TASK_DONE);
        const double accuracy = metric(&c->told, "test_accuracy");
        assert_true(accuracy > 0.95 && metric(&c->told, "test_loss") < 0.3);
        assert_true(metric(&c->told, "test_accuracy_low") < accuracy && metric(&c->told, "test_accuracy_high") >= accuracy);
        assert_int_equal(c->told.times[0], 3);          /* of the learning curve */
        assert_true(metric(&c->told, "valid_examples") == 10 && metric(&c->told, "test_examples") == EXAMPLES);
        assert_true(metric(&c->told, "train_examples") == 0 && metric(&c->told, "test_cut") == 0);
        for (int i = 0; pooling == 0 && i < EXAMPLES; i++) {
            int32_t token[ROOM], label;
            class_text text = { token, ROOM, 0, 0 };
            random_text(&c->texts, CLASS_TEST, i, &text, &label);
            count[label]++, tokens += text.whole;
        }
        for (int k = 0; k < LABELS; k++) most = count[k] > most ? count[k] : most;
        assert_true(metric(&c->told, "test_majority") == (double)most / EXAMPLES);
        assert_true(metric(&c->told, "test_tokens") == (double)tokens / EXAMPLES);
        free(c);
    }
}

/* Examples of the test count once each, however they are cut into batches. */
static void batches(void **state)
{
    static const int sizes[] = { 40, 7, 64, 1 };
    double loss = 0, accuracy = 0;
    (void)state;
    for (int i = 0; i < 4; i++) {
        cell *c = cell_new(K_F32, 2, 9, CLASS_BIDIRECTIONAL, CLASS_MEAN);
        c->o.eval_batch = sizes[i];
        assert_int_equal(classification_run(&c->task), TASK_DONE);
        if (i == 0) loss = metric(&c->told, "test_loss"), accuracy = metric(&c->told, "test_accuracy");
        assert_true(metric(&c->told, "test_accuracy") == accuracy);
        assert_true(fabs(metric(&c->told, "test_loss") - loss) < 1e-5);
        assert_true(metric(&c->told, "test_cut") > 0.1);
        free(c);
    }
}

/* Examples sorted by label. */
static void sorted(void *ctx, int split, int64_t i, class_text *text, int32_t *label)
{
    random_text(ctx, split, i, text, label);
    *label = i >= EXAMPLES / 2;
}

/* A part of the test is a sample of it, of all its labels, and the same whatever the seed. */
static void samples(void **state)
{
    double majority = 0, tokens = 0;
    (void)state;
    for (int seed = 0; seed < 3; seed++) {
        cell *c = cell_new(K_F32, 1, 12, CLASS_BIDIRECTIONAL, CLASS_CLS);
        c->task.draw = sorted, c->o.test_examples = EXAMPLES / 2, c->call.seed = (uint64_t)seed;
        assert_int_equal(classification_run(&c->task), TASK_DONE);
        assert_true(metric(&c->told, "test_examples") == EXAMPLES / 2 && metric(&c->told, "test_majority") < 0.8);
        assert_true(seed == 0 || (metric(&c->told, "test_majority") == majority && metric(&c->told, "test_tokens") == tokens));
        majority = metric(&c->told, "test_majority"), tokens = metric(&c->told, "test_tokens");
        free(c);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_files, close_files)
int main(void)
{
    const struct CMUnitTest tests[] = { T(places), T(epochs), T(gradients), T(padding_is_hidden), T(head), cmocka_unit_test(intervals),
                                        T(learning), T(batches), T(samples) };
    return cmocka_run_group_tests_name("classification", tests, NULL, NULL);
}
