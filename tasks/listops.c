/* listops - which digit does a nested list of operations come to?
 *
 * The first task of Long Range Arena (Tay et al. 2021, arXiv:2011.04006) after Nangia and Bowman 2018: expressions of 500 to 2,000
 * tokens, ten classes.  tasks/data/listops.h says how they are drawn: expression i of a split is a pure function of the seed and i.
 * A prepared data set may bring them instead; what splits it lacks are drawn.  Defaults are those of the arena's Transformer. */
#include "classification.h"
#include "tasks/data/labelled.h"
#include "tasks/data/listops.h"

typedef struct opts {
    class_opts c;
    char data[ATTN_TEXT_SIZE];
    int32_t depth, arguments, min_length, max_length, train_size, valid_size, test_size;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    CLASS_OPTIONS(opts, 2000),
    { "data", "prepared data set whose splits train, valid and test are read, as far as it has them; empty: all are drawn", OFF(data),
      ATTN_TEXT, 0, 0, 0, "", ATTN_DATA_SET },
    { "depth", "a digit is of depth 1, an operation one deeper than its deepest argument", OFF(depth), ATTN_INT, 10, 2, 100, NULL, 0 },
    { "arguments", "of an operation, at most", OFF(arguments), ATTN_INT, 10, 2, 1000, NULL, 0 },
    { "min_length", "an expression has more tokens", OFF(min_length), ATTN_INT, 500, 0, 1 << 20, NULL, 0 },
    { "max_length", "an expression has fewer tokens", OFF(max_length), ATTN_INT, 2000, 2, 1 << 20, NULL, 0 },
    { "train_size", "expressions to train on, each epoch in another order; 0: every one is new", OFF(train_size), ATTN_INT, 96000, 0,
      1 << 30, NULL, 0 },
    { "valid_size", "expressions to evaluate on while training", OFF(valid_size), ATTN_INT, 2000, 1, 1 << 30, NULL, 0 },
    { "test_size", "expressions of the test", OFF(test_size), ATTN_INT, 2000, 1, 1 << 30, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = { CLASS_METRICS, { .name = NULL } };
static const task_default TRAIN[] = {
    { "optimizer", "adamw" }, { "beta2", "0.98" }, { "eps", "1e-9" }, { "weight_decay", "0.1" }, { "lr", "1.58e-3" }, { "schedule", "inverse_sqrt" },
    { "warmup", "1000" }, { "batch", "32" }, { "max_steps", "5000" }, { "eval_every", "250" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "layers", "4" }, { "d_model", "512" }, { "init", "0.0442" }, { "heads", "8" }, { "d_ff", "1024" }, { "positions", "sinusoidal" },
    { "scale_embedding", "true" }, { "attention_bias", "false" }, { "dropout", "0.1" }, { "embedding_dropout", "0.1" },
    { "ffn_dropout", "0.1" }, { NULL, NULL } };

enum { STREAM = 0x1150 };               /* of training; those of valid and test follow */

typedef struct maker {
    listops rules;
    uint64_t seed;
    int32_t *room;                      /* [max_length] for an expression that may have to be cut */
    int read;                           /* there is a data set */
    labelled texts;
} maker;

/* What the options ask for. */
static listops rules_of(const opts *o) { return (listops){ o->depth, o->arguments, o->min_length, o->max_length }; }

/* classification's draw. */
static void draw(void *ctx, int split, int64_t i, class_text *text, int32_t *label)
{
    maker *m = ctx;
    if (m->read && m->texts.split[split]) {
        text->n = labelled_text(&m->texts, split, i, 0, text->token, text->room, &text->whole);
        *label = labelled_label(&m->texts, split, i);
        return;
    }
    words w = { .seed = m->seed, .stream = STREAM + (uint32_t)split, .draw = (uint32_t)i };
    const int32_t n = listops_draw(&m->rules, &w, m->room);
    text->whole = n;
    text->n = n < text->room ? n : text->room;
    memcpy(text->token, m->room, (size_t)text->n * sizeof *text->token);
    *label = listops_value(m->room, n);
}

/* Options that no expression can satisfy are a mistake. */
static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    const listops rules = rules_of(o);
    const char *refusal = listops_refusal(&rules);
    if (refusal) return snprintf(why, nwhy, "%s", refusal), -1;
    return 0;
}

/* Opens what is to be read; 0, or -1 with a sentence. */
static int open_data(maker *m, const opts *o, classification *t, char *why, size_t nwhy)
{
    static const char *const name[] = { "train", "valid", "test" };
    const int64_t size[] = { o->train_size, o->valid_size, o->test_size };
    m->read = o->data[0] != 0;
    if (m->read && labelled_open(&m->texts, o->data, name, 0, 1, 0, why, nwhy)) return -1;
    if (m->read && (m->texts.set.nvocab != LISTOPS_TOKENS || m->texts.classes > t->classes))
        return snprintf(why, nwhy, "the data set %s is not one of list operations", o->data), -1;
    for (int i = 0; i < CLASS_SPLITS; i++) t->examples[i] = m->read && m->texts.split[i] ? m->texts.examples[i] : size[i];
    m->room = malloc((size_t)o->max_length * sizeof *m->room);
    return m->room ? 0 : (snprintf(why, nwhy, "no memory for an expression"), -1);
}

/* One cell. */
static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    char why[512];
    maker m = { .rules = rules_of(o), .seed = call->seed };
    classification t = { .call = call, .o = &o->c, .texts = 1, .vocabulary = LISTOPS_TOKENS, .classes = 10, .ctx = &m, .draw = draw };
    int rc = open_data(&m, o, &t, why, sizeof why);
    if (rc == 0) rc = classification_run(&t);
    else call->host->reason(call->host->ctx, why), rc = TASK_FAILED;
    if (m.read) labelled_release(&m.texts);
    free(m.room);
    return rc;
}

static const task LISTOPS = {
    .size = sizeof(task), .name = "listops", .title = "ListOps of Long Range Arena", .paper = "arXiv:2011.04006", .opts_size = sizeof(opts),
    .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run };
TASK_EXPORT(&LISTOPS);
