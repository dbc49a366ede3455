/* test_generative.c - tasks of sequences that stand for themselves: what a sequence is, which come, and what they are scored. */
#include <math.h>
#include "data_set.h"
#include "built_variants.h"
#include "harness/nn/mixer_choose.h"
#include "harness/options.h"
#include "tasks/generative.h"

static const data_file image_files[] = { { "train", "train.hwc" }, { "test", "test.hwc" }, { NULL } };
static const data_set images = { "images", .kind = DATA_IMAGES, .files = image_files, .side = 2 };
static const data_file music_files[] = { { "train", "m.json" }, { "test", "m.json" }, { NULL } };
static const data_set pieces = { "pieces", .kind = DATA_MUSIC, .files = music_files };
static data_tokens t;

/* Pieces of 1, 3, 2 and 5 steps: step j of piece i is 10 i + j, four times. */
static void make_pieces(void)
{
    static const int steps[] = { 1, 3, 2, 5 };
    char text[2000] = "{", *end = text + 1;
    for (int split = 0; split < 2; split++) {
        end += sprintf(end, "%s\"%s\": [", split ? ", " : "", split ? "test" : "train");
        for (int i = 0; i < 4; i++) {
            end += sprintf(end, "%s[", i ? ", " : "");
            for (int j = 0; j < steps[i]; j++) {
                const int p = 10 * i + j;
                end += sprintf(end, "%s[%d, %d, %d, %d]", j ? ", " : "", p, p, p, p);
            }
            end += sprintf(end, "]");
        }
        end += sprintf(end, "]");
    }
    strcpy(end, "}");
    put_file("m.json", text);
}

/* Every token once, none beside that of another piece. */
static void test_sequences(void **state)
{
    (void)state;
    make_pieces();
    assert_int_equal(prepare_set(&pieces, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    for (int32_t length = 4; length <= 24; length += 4) {
        sequences q;
        int64_t next = 0;
        assert_int_equal(sequences_init(&q, s, 0, s->ndocs, length), 0);
        for (int64_t i = 0; i < q.n; i++) {
            int32_t in[24], out[24];
            int64_t begin;
            const int32_t n = sequences_at(&q, i, &begin);
            assert_true(begin == next && n > 0 && n <= length);
            next += n;
            sequences_put(&q, i, in, out);
            for (int32_t k = 0; k < length; k++) {
                assert_int_equal(in[k], k && k < n ? out[k - 1] : 0);
                if (k < n) assert_int_equal(out[k] / 10, out[0] / 10);
                else assert_int_equal(out[k], -1);
            }
        }
        assert_int_equal(next, s->n);
        sequences_release(&q);
    }
    sequences some;                     /* two of the documents, with one of no token before them */
    const uint64_t end[] = { 4, 4, 7, 12 };
    const uint8_t token[12] = { 0 };
    const data_split odd = { .tokens = token, .width = 1, .n = 12, .ndocs = 4, .end = end };
    int64_t begin;
    assert_int_equal(sequences_init(&some, &odd, 1, 3, 4), 0);
    assert_int_equal(some.n, 3);
    assert_int_equal(sequences_at(&some, 0, &begin), 3);
    assert_int_equal(begin, 4);
    assert_int_equal(sequences_at(&some, 2, &begin), 1);
    assert_int_equal(begin, 11);
    sequences_release(&some);
    data_close(&t);
}

/* ---- cells ------------------------------------------------------------------------------------------------------------- */

typedef struct told { char reason[512]; double bits, test, loss, unigram, tokens, sequences, trained; } told;
static void on_metric(void *ctx, const char *name, int64_t step, double value)
{
    told *r = ctx;
    const struct { const char *name; double *to; } all[] = {
        { "valid_bits", &r->bits }, { "test_bits", &r->test }, { "test_loss", &r->loss }, { "unigram_bits", &r->unigram }, { "test_tokens", &r->tokens },
        { "test_sequences", &r->sequences }, { "train_sequences", &r->trained } };
    (void)step;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name, all[i].name)) *all[i].to = value;
}
static void on_progress(void *ctx, int64_t step, int64_t of, const char *what, double value) { (void)ctx, (void)step, (void)of, (void)what, (void)value; }
static int on_stop(void *ctx) { return (void)ctx, 0; }
static void on_reason(void *ctx, const char *sentence) { snprintf(((told *)ctx)->reason, 512, "%s", sentence); }

/* Runs softmax attention with so much at its beginning, or opens it where there is a model: a TASK_ code. */
static int run_or_open(const gen_opts *o, const gen_kind *kind, int steps, double init, told *told, task_model *opened)
{
    char variant_opts[1024];
    const attn_variant *v = NULL;
    nn_train_opts train;
    nn_model_opts model;
    for (int i = 0; i < nfiles && !v; i++) v = hs_plugin_variant(&file[i], "softmax");
    assert_true(v && v->opts_size <= sizeof variant_opts);
    hs_opts_defaults(v->opts, variant_opts);
    hs_opts_defaults(nn_train_table, &train);
    hs_opts_defaults(nn_model_table, &model);
    train.batch = 3, train.max_steps = steps, train.eval_every = 50, train.lr = 0.01;
    model.layers = 1, model.d_model = model.d_ff = 8, model.heads = 2, model.init = init;
    const nn_mixer_spec mixer = { .variant = v, .opts = variant_opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    *told = (struct told){ 0 };
    const task_host host = { sizeof host, told, on_metric, on_progress, on_stop, on_reason };
    const task_call call = { .size = sizeof call, .opts = o, .train = &train, .model = &model, .mixer = &mixer, .dev = dev, .dtype = K_F32, .seed = 3,
                             .host = &host };
    return opened ? generative_open(&call, opened, kind) : generative_run(&call, kind);
}
static int run(const gen_opts *o, const gen_kind *kind, int steps, double init, told *told)
{
    return run_or_open(o, kind, steps, init, told, NULL);
}

static gen_opts options(const char *set, int length)
{
    gen_opts o = { .length = length, .held_out = 2 };
    strcpy(o.data, set), strcpy(o.train_split, "train"), strcpy(o.test_split, "test");
    return o;
}

static void put_images(const char *name, int n, int kind)
{
    unsigned char image[20 * 12];
    for (int i = 0; i < n * 12; i++) image[i] = (unsigned char)(kind ? i % 12 * 20 : i * 37);
    put_bytes(name, image, (size_t)n * 12);
}

/* A model that knows nothing asks 8 bits for each byte, one that has learned images of one colour fewer. */
static void test_bits(void **state)
{
    static const gen_kind kind = { "bits", 1 / M_LN2, 1 };
    told r;
    (void)state;
    put_images("train.hwc", 10, 0);
    put_images("test.hwc", 5, 0);
    assert_int_equal(prepare_set(&images, &t), 0);
    data_close(&t);
    gen_opts o = options("images", 12);
    assert_int_equal(run(&o, &kind, 0, 1e-9, &r), TASK_DONE);
    assert_float_equal(r.bits, 8, 1e-5);
    assert_float_equal(r.test, 8, 1e-5);
    assert_float_equal(r.loss, log(256), 1e-5);
    assert_true(r.tokens == 60 && r.sequences == 5 && r.trained == 8);
    o.test_sequences = 4, o.eval_batch = 2, o.held_out = 9;
    assert_int_equal(run(&o, &kind, 0, 1e-9, &r), TASK_DONE);
    assert_true(r.tokens == 48 && r.sequences == 4 && r.trained == 1);
    put_images("train.hwc", 10, 1);
    put_images("test.hwc", 5, 1);
    assert_int_equal(prepare_set(&images, &t), 0);
    data_close(&t);
    o.held_out = 2;
    assert_int_equal(run(&o, &kind, 150, 0.2, &r), TASK_DONE);
    assert_float_equal(r.unigram, log2(12), 1e-6);
    assert_true(r.test < 0.5 * r.unigram && r.bits < 0.5 * r.unigram);
}

/* What a model says of itself to those who let it speak. */
static void test_open(void **state)
{
    static const gen_kind image = { "bits", 1, 1 }, sound = { "bits", 1, 0 };
    told r;
    (void)state;
    put_images("train.hwc", 10, 0);
    put_images("test.hwc", 5, 0);
    assert_int_equal(prepare_set(&images, &t), 0);
    data_close(&t);
    for (int i = 0; i < 2; i++) {
        task_model m = { .size = sizeof m };
        const gen_opts o = options("images", i ? 5 : 12);
        assert_int_equal(run_or_open(&o, i ? &sound : &image, 0, 0.1, &r, &m), TASK_DONE);
        assert_true(m.whole == 1 && m.side == (i ? 0 : 2) && m.context == (i ? 5 : 12) && m.vocabulary == 256 && m.mode == ATTN_CAUSAL);
        assert_string_equal(m.test_split, "test");
        m.close(&m);
    }
    task_model m = { .size = sizeof m };
    const gen_opts o = options("images", 27);
    assert_int_equal(run_or_open(&o, &image, 0, 0.1, &r, &m), TASK_FAILED);
}

/* The sum over the four notes of a 16th; pieces are cut, and no note is left out. */
static void test_notes(void **state)
{
    static const gen_kind kind = { "bits", 4, 0 };
    told r;
    (void)state;
    make_pieces();
    assert_int_equal(prepare_set(&pieces, &t), 0);
    data_close(&t);
    gen_opts o = options("pieces", 8);
    strcpy(o.valid_split, "test");
    assert_int_equal(run(&o, &kind, 0, 1e-9, &r), TASK_DONE);
    assert_float_equal(r.test, 4 * log(129), 1e-4);
    assert_true(r.tokens == 44 && r.sequences == 7 && r.trained == 7);
}

static void test_refused(void **state)
{
    static const gen_kind image = { "bits", 1, 1 };
    static const struct { int length, held_out; const char *test, *reason; } odd[] = {
        { 13, 2, "test", "length 13 is not that of a square image of three bytes a pixel" },
        { 27, 2, "test", "image 1 of split 'train' of images has 12 bytes; length is 27, which must be those of an image" },
        { 12, 10, "test", "10 of 10 documents of 'train' cannot be held out" },
        { 12, 2, "dev", "the data set images has no split 'dev'" } };
    told r;
    (void)state;
    put_images("train.hwc", 10, 0);
    put_images("test.hwc", 5, 0);
    assert_int_equal(prepare_set(&images, &t), 0);
    data_close(&t);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        gen_opts o = options("images", odd[i].length);
        o.held_out = odd[i].held_out;
        strcpy(o.test_split, odd[i].test);
        assert_int_equal(run(&o, &image, 0, 1e-9, &r), TASK_FAILED);
        assert_string_equal(r.reason, odd[i].reason);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, data_setup, data_teardown)
        T(test_sequences), T(test_bits), T(test_open), T(test_notes), T(test_refused) };
    return cmocka_run_group_tests_name("generative", tests, open_files, close_files);
}
