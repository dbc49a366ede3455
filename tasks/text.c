/* text - of which class is a text, read byte by byte?
 *
 * The second task of Long Range Arena (Tay et al. 2021, arXiv:2011.04006): the film reviews of IMDb, good or bad.  IMDb has no split
 * to look at while training; the arena takes the test for it, here the last reviews of train are held out.  Defaults are those of
 * the arena's Transformer on 4,000 bytes. */
#include "classification.h"
#include "tasks/data/labelled.h"

typedef struct opts {
    class_opts c;
    char data[ATTN_TEXT_SIZE], train_split[ATTN_TEXT_SIZE], valid_split[ATTN_TEXT_SIZE], test_split[ATTN_TEXT_SIZE];
    int32_t held_out;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    CLASS_OPTIONS(opts, 4000),
    { "data", "prepared data set of labelled texts (harness data list)", OFF(data), ATTN_TEXT, 0, 0, 0, "imdb", ATTN_DATA_SET },
    { "train_split", "what is learned from", OFF(train_split), ATTN_TEXT, 0, 0, 0, "train", 0 },
    { "valid_split", "what is looked at while training; empty: the last held_out texts of train", OFF(valid_split), ATTN_TEXT, 0, 0, 0, "", 0 },
    { "test_split", "what is looked at in the end", OFF(test_split), ATTN_TEXT, 0, 0, 0, "test", 0 },
    { "held_out", "texts of train that are not trained on, where there is no valid_split", OFF(held_out), ATTN_INT, 2500, 1, 1 << 30, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = { CLASS_METRICS, { .name = NULL } };
static const task_default TRAIN[] = {
    { "optimizer", "adamw" }, { "beta2", "0.98" }, { "eps", "1e-9" }, { "weight_decay", "0.1" }, { "lr", "5.59e-4" }, { "schedule", "inverse_sqrt" },
    { "warmup", "8000" }, { "batch", "32" }, { "max_steps", "20000" }, { "eval_every", "500" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "layers", "4" }, { "d_model", "256" }, { "init", "0.0625" }, { "heads", "4" }, { "d_ff", "1024" }, { "positions", "sinusoidal" },
    { "scale_embedding", "true" }, { "attention_bias", "false" }, { "dropout", "0.1" }, { "embedding_dropout", "0.1" },
    { "ffn_dropout", "0.1" }, { NULL, NULL } };

/* classification's draw. */
static void draw(void *ctx, int split, int64_t i, class_text *text, int32_t *label)
{
    const labelled *l = ctx;
    text->n = labelled_text(l, split, i, 0, text->token, text->room, &text->whole);
    *label = labelled_label(l, split, i);
}

/* One cell. */
static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    char why[512];
    labelled l;
    const char *const name[] = { o->train_split, o->valid_split, o->test_split };
    int rc = labelled_open(&l, o->data, name, o->held_out, 1, 1, why, sizeof why);
    classification t = { .call = call, .o = &o->c, .texts = 1, .vocabulary = (int32_t)l.set.nvocab, .classes = l.classes,
                         .examples = { l.examples[0], l.examples[1], l.examples[2] }, .ctx = &l, .draw = draw };
    if (rc == 0) rc = classification_run(&t);
    else call->host->reason(call->host->ctx, why), rc = TASK_FAILED;
    labelled_release(&l);
    return rc;
}

static const task TEXT = {
    .size = sizeof(task), .name = "text", .title = "Byte-level text classification of Long Range Arena", .paper = "arXiv:2011.04006",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .run = task_run };
TASK_EXPORT(&TEXT);
