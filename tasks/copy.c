/* copy - Reformer's duplication task: 0 w 0 w, and the second w is to be foretold.
 *
 * Kitaev et al. 2020 (arXiv:2001.04451, section 5): one layer of attention, trained with so many rounds of hashing and
 * evaluated with others, or with full attention.  A model is meant for any hashes when they are drawn anew at every step
 * (redraw_interval: 1); then more rounds must help one that was trained with few.
 *
 * Section 5 leaves open the optimiser, the batch, the size of chunks and what stands for positions: those are options. */
#include "tasks/data/duplication.h"
#include "tasks/token_task.h"

typedef struct opts { int32_t length, symbols, eval_sequences, all_rounds; } opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "length", "tokens of 0 w 0 w, even", OFF(length), ATTN_INT, 1024, 4, 1 << 24, NULL, 0 },
    { "symbols", "w is of the symbols 1 to this one", OFF(symbols), ATTN_INT, 127, 1, 1 << 24, NULL, 0 },
    { "eval_sequences", "sequences per evaluation, the same every time", OFF(eval_sequences), ATTN_INT, 128, 1, 1 << 24, NULL, 0 },
    { "all_rounds", "after training, evaluate a variant that has the option n_rounds with 0 (full attention), 1, 2, 4 and 8, too",
      OFF(all_rounds), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { .name = NULL } };

enum { ROUNDS = 5 };
static const struct { int32_t rounds; const char *alias, *metric; } EVALUATIONS[ROUNDS] = {
    { 0, "full", "accuracy_full" }, { 8, "lsh_8", "accuracy_lsh_8" }, { 4, "lsh_4", "accuracy_lsh_4" },
    { 2, "lsh_2", "accuracy_lsh_2" }, { 1, "lsh_1", "accuracy_lsh_1" } };
static const task_metric METRICS[] = {
    TOKEN_METRICS,
    { "accuracy_full", "1", "accuracy with full attention", 1, 0 },
    { "accuracy_lsh_8", "1", "accuracy with 8 rounds of hashing", 1, 0 },
    { "accuracy_lsh_4", "1", "accuracy with 4 rounds of hashing", 1, 0 },
    { "accuracy_lsh_2", "1", "accuracy with 2 rounds of hashing", 1, 0 },
    { "accuracy_lsh_1", "1", "accuracy with 1 round of hashing", 1, 0 },
    { "accuracy_by_rounds", "1", "the same against the rounds of hashing, 0: full attention", 1, 1 },
    { .name = NULL } };
static const task_default TRAIN[] = { { "max_steps", "150000" }, { "eval_every", "1000" }, { NULL, NULL } };
static const task_default MODEL[] = { { "layers", "1" }, { "d_model", "256" }, { "d_ff", "256" }, { "heads", "4" },
                                      { "positions", "learned" }, { NULL, NULL } };

/* token_task's draw. */
static void draw(void *ctx, words *w, int32_t *token, int32_t *at, int32_t *target)
{
    const opts *o = ctx;
    duplication_draw(w, o->length, o->symbols, token, at, target);
}

/* Where the variant keeps its number of rounds, NULL when it has none. */
static const attn_opt *rounds_option(const attn_variant *v)
{
    for (const attn_opt *o = v->opts; o && o->name; o++)
        if (o->type == ATTN_INT && strcmp(o->name, "n_rounds") == 0) return o;
    return NULL;
}

/* The mixer of training with other rounds; changed [opts_size] holds its options. */
static nn_mixer_spec with_rounds(const nn_mixer_spec *trained, const attn_opt *rounds, int i, char *changed)
{
    nn_mixer_spec m = *trained;
    memcpy(changed, trained->opts, trained->variant->opts_size);
    memcpy(changed + rounds->off, &EVALUATIONS[i].rounds, sizeof EVALUATIONS[i].rounds);
    m.opts = changed;
    m.alias = EVALUATIONS[i].alias;
    return m;
}

/* One cell. */
static int task_run(const task_call *call)
{
    opts o = *(const opts *)call->opts;
    const attn_opt *rounds = o.all_rounds ? rounds_option(call->mixer->variant) : NULL;
    size_t size = call->mixer->variant->opts_size;
    char *changed = calloc(ROUNDS, size + 1);
    token_task t = { .call = call, .length = o.length, .asked = o.length / 2 - 1, .vocabulary = o.symbols + 1,
                     .eval_sequences = o.eval_sequences, .ctx = &o, .draw = draw };
    if (!changed) return call->host->reason(call->host->ctx, "out of host memory"), TASK_FAILED;
    for (; rounds && t.nothers < ROUNDS; t.nothers++)
        t.other[t.nothers].mixer = with_rounds(call->mixer, rounds, t.nothers, changed + size * (size_t)t.nothers);
    int rc = token_task_run(&t);
    for (int i = 0; i < t.nothers && rc == TASK_DONE; i++) {
        call->host->metric(call->host->ctx, EVALUATIONS[i].metric, EVALUATIONS[i].rounds, t.other[i].score.accuracy);
        call->host->metric(call->host->ctx, "accuracy_by_rounds", EVALUATIONS[i].rounds, t.other[i].score.accuracy);
    }
    free(changed);
    return rc;
}

/* An odd length is a mistake. */
static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (o->length % 2 == 0) return 0;
    snprintf(why, nwhy, "length %d is odd: a sequence is two halves", o->length);
    return -1;
}

static const task COPY = {
    .size = sizeof(task), .name = "copy", .title = "Duplication", .paper = "arXiv:2001.04451", .opts_size = sizeof(opts), .opts = OPTS,
    .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run };
TASK_EXPORT(&COPY);
