/* mqar - multi-query associative recall: D pairs of key and value, then every key once more; which value was it?
 *
 * Zoology (Arora et al. 2023, arXiv:2312.04927): what language models of the linear family lack against attention is mostly
 * this.  tasks/data/mqar.h says what a sequence is.  Defaults are those of the paper's figure 2: two layers without
 * feed-forward, one head, a vocabulary of 8192, AdamW. */
#include "tasks/data/mqar.h"
#include "tasks/token_task.h"

typedef struct opts { int32_t length, pairs, vocabulary, filler, examples, eval_sequences; double power; } opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "length", "N: tokens of a sequence, even; 0: 16 for each pair", OFF(length), ATTN_INT, 0, 0, 1 << 24, NULL, 0 },
    { "pairs", "D: pairs of key and value, each asked for once", OFF(pairs), ATTN_INT, 4, 1, 1 << 18, NULL, 0 },
    { "vocabulary", "tokens; keys are of its first half, values of its second", OFF(vocabulary), ATTN_INT, 8192, 4, 1 << 24, NULL, 0 },
    { "power", "a: the gap g to a question has a probability proportional to g^(a-1)", OFF(power), ATTN_FLOAT, 0.01, 0, 10, NULL, 0 },
    { "filler", "tokens between the questions", OFF(filler), ATTN_CHOICE, 0, 0, 0, "zero,random", 0 },
    { "examples", "sequences to train on, each epoch in another order; 0: every sequence is new", OFF(examples), ATTN_INT, 100000, 0,
      1 << 30, NULL, 0 },
    { "eval_sequences", "sequences per evaluation, the same every time", OFF(eval_sequences), ATTN_INT, 3000, 1, 1 << 24, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = { TOKEN_METRICS, { .name = NULL } };
static const task_default TRAIN[] = { { "optimizer", "adamw" }, { "weight_decay", "0.1" }, { "batch", "512" }, { "schedule", "cosine" },
                                      { "max_steps", "12480" }, { NULL, NULL } };
static const task_default MODEL[] = { { "layers", "2" }, { "d_model", "64" }, { "heads", "1" }, { "feed_forward", "false" },
                                      { "positions", "learned" }, { "embedding_dropout", "0.1" }, { NULL, NULL } };

typedef struct maker { mqar shape; mqar_clock *clock; } maker;

/* token_task's draw. */
static void draw(void *ctx, words *w, int32_t *token, int32_t *at, int32_t *target)
{
    maker *m = ctx;
    mqar_draw(&m->shape, w, m->clock, token, at, target);
}

/* What the options ask for; not yet for mqar_draw. */
static mqar shape_of(const opts *o)
{
    return (mqar){ o->length ? o->length : 16 * o->pairs, o->pairs, o->vocabulary, o->filler, o->power };
}

/* Options that no sequence can satisfy are a mistake. */
static int check(const void *o, char *why, size_t nwhy)
{
    mqar m = shape_of(o);
    const char *refusal = mqar_refusal(&m);
    if (refusal) snprintf(why, nwhy, "%s", refusal);
    return refusal ? -1 : 0;
}

/* One cell. */
static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    maker m = { .shape = shape_of(o) };
    token_task t = { .call = call, .length = m.shape.length, .asked = o->pairs, .vocabulary = o->vocabulary, .examples = o->examples,
                     .eval_sequences = o->eval_sequences, .ctx = &m, .draw = draw };
    int rc = mqar_init(&m.shape);
    m.clock = rc ? NULL : malloc((size_t)m.shape.slots * sizeof *m.clock);
    if (m.clock) rc = token_task_run(&t);
    else call->host->reason(call->host->ctx, "no memory for the gaps of a sequence"), rc = TASK_FAILED;
    mqar_release(&m.shape);
    free(m.clock);
    return rc;
}

static const task MQAR = {
    .size = sizeof(task), .name = "mqar", .title = "Multi-query associative recall", .paper = "arXiv:2312.04927",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL,
    .check = check, .run = task_run };
TASK_EXPORT(&MQAR);
