/* retrieval - do two documents, each read byte by byte and by itself, belong together?
 *
 * The third task of Long Range Arena (Tay et al. 2021, arXiv:2011.04006): papers of the ACL Anthology Network, one of which cites the
 * other or not.  Both go through the same encoder, without attention between them.  Defaults are those of the arena's Transformer
 * on 4,000 bytes each. */
#include "classification.h"
#include "tasks/data/labelled.h"

typedef struct opts {
    class_opts c;
    char data[ATTN_TEXT_SIZE], train_split[ATTN_TEXT_SIZE], valid_split[ATTN_TEXT_SIZE], test_split[ATTN_TEXT_SIZE];
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    CLASS_OPTIONS(opts, 4000),
    { "interaction", "what is classified: both rows, their product and their difference, or both rows alone", OFF(c.interaction), ATTN_CHOICE,
      CLASS_NLI, 0, 0, "nli,both", 0 },
    { "data", "prepared data set of matched texts (harness data list)", OFF(data), ATTN_TEXT, 0, 0, 0, "aan", ATTN_DATA_SET },
    { "train_split", "what is learned from", OFF(train_split), ATTN_TEXT, 0, 0, 0, "train", 0 },
    { "valid_split", "what is looked at while training", OFF(valid_split), ATTN_TEXT, 0, 0, 0, "valid", 0 },
    { "test_split", "what is looked at in the end", OFF(test_split), ATTN_TEXT, 0, 0, 0, "test", 0 },
    { .name = NULL } };

static const task_metric METRICS[] = { CLASS_METRICS, { .name = NULL } };
static const task_default TRAIN[] = {
    { "optimizer", "adamw" }, { "beta2", "0.98" }, { "eps", "1e-9" }, { "weight_decay", "0.1" }, { "lr", "5.59e-4" }, { "schedule", "inverse_sqrt" },
    { "warmup", "8000" }, { "batch", "32" }, { "max_steps", "5000" }, { "eval_every", "250" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "layers", "4" }, { "d_model", "128" }, { "init", "0.0884" }, { "heads", "4" }, { "d_ff", "512" }, { "positions", "sinusoidal" },
    { "scale_embedding", "true" }, { "attention_bias", "false" }, { "dropout", "0.1" }, { "embedding_dropout", "0.1" },
    { "ffn_dropout", "0.1" }, { NULL, NULL } };

/* classification's draw. */
static void draw(void *ctx, int split, int64_t i, class_text *text, int32_t *label)
{
    const labelled *l = ctx;
    for (int32_t k = 0; k < 2; k++) text[k].n = labelled_text(l, split, i, k, text[k].token, text[k].room, &text[k].whole);
    *label = labelled_label(l, split, i);
}

/* One cell. */
static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    char why[512];
    labelled l;
    const char *const name[] = { o->train_split, o->valid_split, o->test_split };
    int rc = labelled_open(&l, o->data, name, 0, 2, 1, why, sizeof why);
    classification t = { .call = call, .o = &o->c, .texts = 2, .vocabulary = (int32_t)l.set.nvocab, .classes = l.classes,
                         .examples = { l.examples[0], l.examples[1], l.examples[2] }, .ctx = &l, .draw = draw };
    if (rc == 0) rc = classification_run(&t);
    else call->host->reason(call->host->ctx, why), rc = TASK_FAILED;
    labelled_release(&l);
    return rc;
}

/* A text of its own for valid is needed. */
static int check(const void *opts_, char *why, size_t nwhy)
{
    return ((const opts *)opts_)->valid_split[0] ? 0 : (snprintf(why, nwhy, "the option valid_split is empty"), -1);
}

static const task RETRIEVAL = {
    .size = sizeof(task), .name = "retrieval", .title = "Byte-level document retrieval of Long Range Arena", .paper = "arXiv:2011.04006",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run };
TASK_EXPORT(&RETRIEVAL);
