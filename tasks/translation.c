/* translation - sentences of one language into another, judged by BLEU.
 *
 * An encoder-decoder Transformer (model:) with the variant in three places, or another in some of them: self-attention of the encoder
 * (padded, every key), of the decoder (causal) and attention of the decoder to the encoder.  A set of sentence pairs (`harness data`), in bytes or in
 * subword units that both languages share; batches of like length by tokens, see data/pairs.h.
 *
 * At the end the last weights translate the test pairs, greedily and by beam search, with the states of the variants instead of
 * the tokens before; BLEU is of the joined text against the text of the set, 13a, as sacreBLEU counts it. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/bleu.h"
#include "likelihood.h"
#include "tasks/translator.h"

#define OWN "variant"
enum { RESAMPLES = 1000, BLEU_SEED = 12345 };

typedef struct opts {
    char data[ATTN_TEXT_SIZE], train_split[ATTN_TEXT_SIZE], valid_split[ATTN_TEXT_SIZE], test_split[ATTN_TEXT_SIZE], also[ATTN_TEXT_SIZE],
        source[ATTN_TEXT_SIZE], target[ATTN_TEXT_SIZE], encoder[ATTN_TEXT_SIZE], decoder[ATTN_TEXT_SIZE], cross[ATTN_TEXT_SIZE];
    int32_t tokens, longest, buckets, beam, extra, decode_rows, valid_pairs, test_pairs, verify;
    double smoothing, alpha;
} opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "data", "prepared set of pairs, a name or a path (harness data list)", OFF(data), ATTN_TEXT, 0, 0, 0, NULL, ATTN_DATA_SET },
    { "source", "the language that is read", OFF(source), ATTN_TEXT, 0, 0, 0, "en", 0 },
    { "target", "the language that is written", OFF(target), ATTN_TEXT, 0, 0, 0, "de", 0 },
    { "train_split", "what is learned from", OFF(train_split), ATTN_TEXT, 0, 0, 0, "train", 0 },
    { "valid_split", "what is evaluated every eval_every steps", OFF(valid_split), ATTN_TEXT, 0, 0, 0, "valid", 0 },
    { "test_split", "what is translated at the end; empty: nothing", OFF(test_split), ATTN_TEXT, 0, 0, 0, "test", 0 },
    { "also", "another split that is translated by beam search; empty: none", OFF(also), ATTN_TEXT, 0, 0, 0, NULL, 0 },
    { "encoder", "what attends within the source", OFF(encoder), ATTN_TEXT, 0, 0, 0, OWN, ATTN_OTHER_VARIANT },
    { "decoder", "what attends within the translation", OFF(decoder), ATTN_TEXT, 0, 0, 0, OWN, ATTN_OTHER_VARIANT },
    { "cross", "what attends from the translation to the source", OFF(cross), ATTN_TEXT, 0, 0, 0, OWN, ATTN_OTHER_VARIANT },
    { "tokens", "of a batch and side, padding included (train.batch is not used)", OFF(tokens), ATTN_INT, 4096, 1, 1 << 24, NULL, 0 },
    { "longest", "tokens of a sentence; longer pairs are left out, longer sources of the test cut", OFF(longest), ATTN_INT, 128, 2, 1 << 16, NULL, 0 },
    { "buckets", "of lengths, each twice as long as the one before", OFF(buckets), ATTN_INT, 4, 1, PAIRS_BUCKETS, NULL, 0 },
    { "smoothing", "label smoothing in training", OFF(smoothing), ATTN_FLOAT, 0.1, 0, 0.9, NULL, 0 },
    { "beam", "width of the beam", OFF(beam), ATTN_INT, 4, 1, 256, NULL, 0 },
    { "alpha", "of the beam's length penalty ((5 + length) / 6)^alpha", OFF(alpha), ATTN_FLOAT, 0.6, 0, 10, NULL, 0 },
    { "extra", "tokens that a translation may have more than its source", OFF(extra), ATTN_INT, 50, 0, 1 << 16, NULL, 0 },
    { "decode_rows", "sequences decoded at a time", OFF(decode_rows), ATTN_INT, 128, 1, 65536, NULL, 0 },
    { "valid_pairs", "pairs of an evaluation, at most; 0 = all", OFF(valid_pairs), ATTN_INT, 0, 0, INT32_MAX, NULL, 0 },
    { "test_pairs", "pairs translated, at most; 0 = all", OFF(test_pairs), ATTN_INT, 0, 0, INT32_MAX, NULL, 0 },
    { "verify", "pairs whose greedy translation is decoded once more, the whole prefix for every token, at most", OFF(verify), ATTN_INT, 0, 0,
      INT32_MAX, NULL, 0 },
    { .name = NULL } };

static const task_metric METRICS[] = {
    LIKELIHOOD_METRICS,
    { "bleu_greedy", "%", "BLEU of greedy translations of the test", 1, 0 },
    { "bleu_beam", "%", "BLEU of translations by beam search", 1, 0 },
    { "bleu_also", "%", "BLEU of translations by beam search of the split `also`", 1, 0 },
    { "also_interval", "%", "half the width of its bootstrap interval (95 %)", -1, 0 },
    { "bleu_interval", "%", "half the width of the bootstrap interval (95 %) of bleu_beam", -1, 0 },
    { "brevity", "1", "brevity penalty of bleu_beam", 0, 0 },
    { "bleu_p_value", "1", "chance of so large a difference between beam and greedy (approximate randomisation)", 0, 0 },
    { "test_pairs", "1", "pairs translated", 0, 0 },
    { "test_cut", "1", "sources of the test that were cut to `longest`", 0, 0 },
    { "left_out", "1", "training pairs longer than `longest`", 0, 0 },
    { "verified_tokens", "1", "tokens of greedy translations that were decoded once more (verify)", 0, 0 },
    { "same_tokens", "1", "share of them that decoding of the whole prefix chooses, too", 1, 0 },
    { "verify_gap", "nat", "by how much it finds another token likelier, at most", -1, 0 },
    { "verify_difference", "nat", "between the log-probabilities of a translation by either, at most", -1, 0 },
    { "decode_seconds", "s", "time of the beam search", -1, 0 },
    { "decode_tokens_per_second", "1/s", "tokens of the translations by beam search", 1, 0 },
    { .name = NULL } };

/* Vaswani et al. 2017: lr d^-0.5 min(step^-0.5, step 4000^-1.5) for d = 512. */
static const task_default TRAIN[] = {
    { "lr", "7e-4" }, { "beta2", "0.98" }, { "eps", "1e-9" }, { "schedule", "inverse_sqrt" }, { "warmup", "4000" }, { "max_steps", "100000" },
    { "eval_every", "1000" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "layers", "6" }, { "d_model", "512" }, { "heads", "8" }, { "d_ff", "2048" }, { "norm_position", "post" }, { "activation", "relu" },
    { "scale_embedding", "true" }, { "dropout", "0.1" }, { "embedding_dropout", "0.1" }, { NULL, NULL } };

/* A graph over pairs of one bucket. */
typedef struct reader {
    nn_graph *graph;
    int B, T;
    nn_id source, length, shown, said;      /* i32 [B,T], [B], [B,T], [B*T] */
} reader;

typedef struct run {
    const task_call *call;              /* first: log_loss */
    const opts *o;
    nn_trainer trainer;
    data_tokens data;
    data_split side[4][2];                  /* of train, valid, test and also, as many pairs as are wanted */
    pairs train, valid, test, also;
    int64_t vocabulary;
    int32_t end;
    const nn_mixer_spec *encoder, *decoder, *cross;
    nn_params *params;
    nn_transformer model;
    reader learner[PAIRS_BUCKETS], judge[PAIRS_BUCKETS];
    translator translator;
    int32_t *pair, *x;                      /* of a batch on the host: its pairs [rows]; source, shown, said, length */
    char why[512];
} run;

/* ---- graphs ---------------------------------------------------------------------------------------------------------------- */

/* The decoder's output over `shown`, with the encoder over `source`. */
static nn_id record(void *ctx, nn_graph *g, nn_id source, nn_id length, nn_id shown)
{
    run *r = ctx;
    nn_stack encoder = { "encoder", ATTN_BIDIR, source, length, r->encoder, 1, NN_NONE, NN_NONE, NULL };
    nn_stack decoder = { "decoder", ATTN_CAUSAL, shown, NN_NONE, r->decoder, 1, nn_transformer_stack(&r->model, g, &encoder), length, r->cross };
    return nn_transformer_stack(&r->model, g, &decoder);
}

static void reader_init(run *r, reader *x, const pairs_bucket *b, int training)
{
    nn_graph *g = nn_graph_new(r->params, training);
    *x = (reader){ .graph = g, .B = b->rows, .T = b->length };
    x->source = nn_input(g, K_I32, (attn_dims){ 2, { x->B, x->T } });
    x->length = nn_input(g, K_I32, (attn_dims){ 1, { x->B } });
    x->shown = nn_input(g, K_I32, (attn_dims){ 2, { x->B, x->T } });
    x->said = nn_input(g, K_I32, (attn_dims){ 1, { (int64_t)x->B * x->T } });
    nn_id h = record(r, g, x->source, x->length, x->shown);
    nn_graph_set_loss(g, nn_transformer_loss(&r->model, g, h, x->said, training ? r->o->smoothing : 0));
}

/* ---- training and evaluation ------------------------------------------------------------------------------------------------- */

/* Shows a graph these pairs; a pair of -1 is an empty row that is asked nothing. */
static void show(run *r, const reader *x, const pairs *p, const int32_t *pair)
{
    size_t n = (size_t)x->B * (size_t)x->T;
    int32_t *source = r->x, *shown = source + n, *said = shown + n, *length = said + n;
    for (int b = 0; b < x->B; b++) {
        int64_t at = (int64_t)b * x->T;
        if (pair[b] >= 0) {
            pairs_row(p, pair[b], x->T, r->end, source + at, &length[b], shown + at, said + at);
            continue;
        }
        for (int t = 0; t < x->T; t++) source[at + t] = shown[at + t] = r->end, said[at + t] = -1;
        length[b] = 1;
    }
    k_upload(r->call->dev, nn_data(x->graph, x->source), source, n * sizeof *source);
    k_upload(r->call->dev, nn_data(x->graph, x->shown), shown, n * sizeof *shown);
    k_upload(r->call->dev, nn_data(x->graph, x->said), said, n * sizeof *said);
    k_upload(r->call->dev, nn_data(x->graph, x->length), length, (size_t)x->B * sizeof *length);
}

/* The pairs of a batch, in the graph of their length. */
static int train_batch(void *ctx, int64_t number)
{
    run *r = ctx;
    int k = pairs_step(&r->train, r->call->seed, number, r->pair);
    r->trainer.graph = r->learner[k].graph;
    show(r, &r->learner[k], &r->train, r->pair);
    return TASK_DONE;
}

/* The loss of every target token, bucket by bucket. */
static int evaluate(void *ctx, int64_t step, double *loss)
{
    run *r = ctx;
    const task_host *host = r->call->host;
    double sum = 0;
    int64_t asked = 0;
    for (int k = 0; k < r->valid.nbuckets; k++) {
        const pairs_bucket *p = &r->valid.bucket[k];
        const reader *x = &r->judge[k];
        for (int64_t at = 0; at < p->n; at += x->B) {
            int64_t here = 0;
            for (int b = 0; b < x->B; b++) r->pair[b] = at + b < p->n ? p->pair[at + b] : -1;
            show(r, x, &r->valid, r->pair);
            if (nn_forward(x->graph)) return TASK_FAILED;
            for (int64_t i = 0; i < (int64_t)x->B * x->T; i++) here += r->x[2 * (int64_t)x->B * x->T + i] >= 0;
            sum += nn_loss(x->graph) * (double)here;
            asked += here;
            if (host->stop(host->ctx)) return TASK_INTERRUPTED;
        }
    }
    *loss = sum / (double)asked;
    log_loss(r, step, *loss);
    return TASK_DONE;
}

/* ---- judging ---------------------------------------------------------------------------------------------------------------------- */

static const bleu_opts PLAIN;

/* Counts every segment against the text of a split, which is the set's, where it has one, and else that of the tokens. */
static int count(run *r, const char *split, const pairs *p, const translation_output *out, bleu_counts *counts, bleu_counts *sum)
{
    bleu *b = bleu_new(&PLAIN);
    int rc = b ? 0 : -1;
    char name[2 * ATTN_TEXT_SIZE + 8];
    snprintf(name, sizeof name, "%s.%s.text", split, r->o->target);
    const data_split *text = data_find_split(&r->data, name);
    *sum = (bleu_counts){ 0 };
    for (int64_t i = 0; !rc && i < out->n; i++) {
        char *line = pairs_line(&r->data, text ? text : p->target, i);
        const char *reference = line;
        rc = line && out->text[i] ? bleu_count(b, out->text[i], &reference, 1, &counts[i]) : -1;
        free(line);
        if (!rc) bleu_add(sum, &counts[i]);
    }
    bleu_free(b);
    if (rc) snprintf(r->why, sizeof r->why, "no memory for the score of split '%s'", split);
    return rc ? -1 : 0;
}

/* The translations beside the weights that are kept: translations/KEY.SPLIT.txt, one a line. */
static int keep(run *r, const char *split, const translation_output *out)
{
    const char *checkpoint = r->call->checkpoint, *slash = checkpoint ? strrchr(checkpoint, '/') : NULL;
    char path[4096];
    if (!r->call->train->keep || !slash) return 0;
    snprintf(path, sizeof path, "%.*s/../translations", (int)(slash - checkpoint), checkpoint);
    int rc = mkdir(path, 0777) && errno != EEXIST;
    snprintf(path, sizeof path, "%.*s/../translations%.*s.%s.txt", (int)(slash - checkpoint), checkpoint, (int)strcspn(slash, "."), slash, split);
    FILE *f = rc ? NULL : fopen(path, "w");
    for (int64_t i = 0; f && i < out->n; i++) fprintf(f, "%s\n", out->text[i]);
    rc = !f || ferror(f);
    if ((f && fclose(f)) || rc) return snprintf(r->why, sizeof r->why, "%.400s: %s", path, strerror(errno)), -1;
    return 0;
}

/* BLEU of both ways of decoding the test, and whether they differ. */
static int judge(run *r, const translation_output *greedy, const translation_output *beam)
{
    const task_host *h = r->call->host;
    int64_t n = greedy->n;
    bleu_counts sum[2], *counts = malloc(2 * (size_t)n * sizeof *counts);
    int rc = !counts || count(r, r->o->test_split, &r->test, greedy, counts, &sum[0]);
    if (!rc) rc = count(r, r->o->test_split, &r->test, beam, counts + n, &sum[1]);
    if (!rc) {
        bleu_score score = bleu_of(&PLAIN, &sum[1]);
        h->metric(h->ctx, "bleu_greedy", 0, bleu_of(&PLAIN, &sum[0]).score);
        h->metric(h->ctx, "bleu_beam", 0, score.score);
        h->metric(h->ctx, "brevity", 0, score.brevity);
        h->metric(h->ctx, "bleu_interval", 0, bleu_bootstrap(&PLAIN, counts + n, n, RESAMPLES, BLEU_SEED).half);
        h->metric(h->ctx, "bleu_p_value", 0, bleu_compare(&PLAIN, counts, counts + n, n, RESAMPLES, BLEU_SEED));
        h->metric(h->ctx, "decode_seconds", 0, beam->seconds);
        h->metric(h->ctx, "decode_tokens_per_second", 0, (double)beam->tokens / beam->seconds);
    }
    free(counts);
    return rc || keep(r, r->o->test_split, beam) ? TASK_FAILED : TASK_DONE;
}

/* BLEU of the other split by beam search. */
static int judge_also(run *r, const translation_output *beam)
{
    const task_host *h = r->call->host;
    bleu_counts sum, *counts = malloc((size_t)beam->n * sizeof *counts);
    int rc = !counts || count(r, r->o->also, &r->also, beam, counts, &sum);
    if (!rc) {
        h->metric(h->ctx, "bleu_also", 0, bleu_of(&PLAIN, &sum).score);
        h->metric(h->ctx, "also_interval", 0, bleu_bootstrap(&PLAIN, counts, beam->n, RESAMPLES, BLEU_SEED).half);
    }
    free(counts);
    return rc || keep(r, r->o->also, beam) ? TASK_FAILED : TASK_DONE;
}

/* What the witness has heard. */
static void report_witness(const run *r)
{
    const task_host *h = r->call->host;
    const translator_witness *w = &r->translator.witness;
    if (!w->graph) return;
    h->metric(h->ctx, "verified_tokens", 0, (double)w->tokens);
    h->metric(h->ctx, "same_tokens", 0, (double)w->same / (double)w->tokens);
    h->metric(h->ctx, "verify_gap", 0, w->gap);
    h->metric(h->ctx, "verify_difference", 0, w->difference);
}

static int test(run *r)
{
    const task_host *h = r->call->host;
    const data_split *source = r->test.source;
    int64_t cut = 0;
    translation_output greedy, beam = { 0 }, also = { 0 };
    for (int64_t i = 0; i < source->ndocs; i++) cut += (int64_t)source->end[i] - data_doc_begin(source, i) > r->o->longest;
    h->metric(h->ctx, "test_pairs", 0, (double)source->ndocs);
    h->metric(h->ctx, "test_cut", 0, (double)cut);
    int rc = translate(&r->translator, &r->data, &r->test, 1, r->o->verify, &greedy);
    if (!rc) report_witness(r);
    if (!rc) rc = translate(&r->translator, &r->data, &r->test, r->o->beam, 0, &beam);
    if (!rc) rc = judge(r, &greedy, &beam);
    if (!rc && r->o->also[0]) rc = translate(&r->translator, &r->data, &r->also, r->o->beam, 0, &also);
    if (!rc && r->o->also[0]) rc = judge_also(r, &also);
    translation_release(&greedy), translation_release(&beam), translation_release(&also);
    return rc;
}

/* ---- the run ------------------------------------------------------------------------------------------------------------------------ */

/* One side of a split of pairs, its first `most` sentences; 0, or -1 with a sentence. */
static int side(run *r, const char *split, const char *language, int64_t most, data_split *out)
{
    char name[2 * ATTN_TEXT_SIZE];
    snprintf(name, sizeof name, "%s.%s", split, language);
    const data_split *s = data_find_split(&r->data, name);
    if (!s) return snprintf(r->why, sizeof r->why, "the data set %s has no split '%s'", r->data.name, name), -1;
    *out = *s;
    if (most && most < out->ndocs) out->ndocs = most;
    return 0;
}

/* The pairs of a split in buckets. */
static int open_pairs(run *r, const char *split, int which, int64_t most, pairs *p)
{
    const opts *o = r->o;
    data_split *s = r->side[which];
    if (side(r, split, o->source, most, &s[0]) || side(r, split, o->target, most, &s[1])) return -1;
    if (pairs_init(p, &s[0], &s[1], o->longest, o->buckets, o->tokens)) return snprintf(r->why, sizeof r->why, "no memory for the pairs"), -1;
    return p->n ? 0 : (snprintf(r->why, sizeof r->why, "split '%s' of %s has no pair of at most %d tokens", split, r->data.name, o->longest), -1);
}

/* Opens the data; what ends a sentence is its <eos>, or a word that it lacks. */
static int open_data(run *r)
{
    const opts *o = r->o;
    if (data_open(o->data, &r->data, r->why, sizeof r->why)) return -1;
    int64_t eos = data_id(&r->data, "<eos>", 5);
    r->end = (int32_t)(eos < 0 ? r->data.nvocab : eos);
    r->vocabulary = r->data.nvocab + (eos < 0);
    if (open_pairs(r, o->train_split, 0, 0, &r->train) || open_pairs(r, o->valid_split, 1, o->valid_pairs, &r->valid)) return -1;
    if (o->test_split[0] && open_pairs(r, o->test_split, 2, o->test_pairs, &r->test)) return -1;
    return o->test_split[0] && o->also[0] ? open_pairs(r, o->also, 3, o->test_pairs, &r->also) : 0;
}

/* What attends in a place: the variant of the cell, or another. */
static int find_mixer(run *r, const char *name, const nn_mixer_spec **mixer)
{
    const task_host *h = r->call->host;
    *mixer = strcmp(name, OWN) ? h->variant(h->ctx, name) : r->call->mixer;
    return *mixer ? 0 : -1;
}

/* The host's side of the batches, as large as the largest of them. */
static int take_host(run *r)
{
    size_t most = 0;
    for (int k = 0; k < r->train.nbuckets; k++) {
        size_t n = (size_t)r->learner[k].B * (3 * (size_t)r->learner[k].T + 1);
        most = n > most ? n : most;
    }
    r->x = malloc(most * sizeof *r->x);
    r->pair = malloc((size_t)r->train.rows * sizeof *r->pair);
    if (r->x && r->pair) return 0;
    snprintf(r->why, sizeof r->why, "no memory for the batches on the host");
    return NN_ENOMEM;
}

/* As many sequences of the witness at a time as there are tokens in a batch. */
static void start_translator(run *r)
{
    const opts *o = r->o;
    int longest = o->longest + o->extra + 1, fit = o->tokens / longest > 1 ? o->tokens / longest : 1;
    r->translator = (translator){ .call = r->call, .params = r->params, .model = &r->model, .record = record, .ctx = r, .vocabulary = r->vocabulary,
                                  .end = r->end, .rows = o->decode_rows / o->beam * o->beam, .S = o->longest, .extra = o->extra,
                                  .witnessed = o->verify ? fit : 0, .alpha = o->alpha };
    translator_init(&r->translator);
}

/* Builds all graphs over one set of parameters, then sizes and allocates them. */
static int build(run *r)
{
    const task_call *c = r->call;
    r->params = nn_params_new(c->dev, c->dtype, c->seed);
    int rc = nn_transformer_init(&r->model, r->params, c->model, c->mixer, 1, r->vocabulary, r->o->longest + r->o->extra + 1, r->why, sizeof r->why);
    if (rc) return rc;
    for (int k = 0; k < r->train.nbuckets; k++) {
        reader_init(r, &r->learner[k], &r->train.bucket[k], 1);
        reader_init(r, &r->judge[k], &r->train.bucket[k], 0);
    }
    if (r->test.source) start_translator(r);
    if ((rc = take_host(r)) || (rc = nn_params_alloc(r->params, r->why, sizeof r->why))) return rc;
    for (int k = 0; !rc && k < r->train.nbuckets; k++) {
        rc = nn_graph_compile(r->learner[k].graph, r->why, sizeof r->why);
        if (!rc) rc = nn_graph_compile(r->judge[k].graph, r->why, sizeof r->why);
    }
    return rc || !r->test.source ? rc : translator_compile(&r->translator, r->why, sizeof r->why);
}

/* What the training has come to. */
static void report(const run *r)
{
    const task_host *h = r->call->host;
    report_training(r->call, r->params, &r->trainer);
    h->metric(h->ctx, "left_out", 0, (double)r->train.left_out);
}

static void release(run *r)
{
    for (int k = 0; k < PAIRS_BUCKETS; k++) {
        nn_graph_free(r->learner[k].graph);
        nn_graph_free(r->judge[k].graph);
    }
    translator_release(&r->translator);
    nn_params_free(r->params);
    pairs_release(&r->train), pairs_release(&r->valid), pairs_release(&r->test), pairs_release(&r->also);
    free(r->x), free(r->pair);
    data_close(&r->data);
}

static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (!o->data[0]) return snprintf(why, nwhy, "the option data is not given: a prepared set of pairs (harness data list)"), -1;
    if (o->decode_rows < o->beam) return snprintf(why, nwhy, "decode_rows = %d has no room for a beam of %d", o->decode_rows, o->beam), -1;
    return 0;
}

static int task_run(const task_call *call)
{
    run r = { .call = call, .o = call->opts };
    int rc = open_data(&r) || find_mixer(&r, r.o->encoder, &r.encoder) || find_mixer(&r, r.o->decoder, &r.decoder) ||
             find_mixer(&r, r.o->cross, &r.cross) ? TASK_FAILED : nn_task_code(build(&r));
    if (rc == TASK_DONE) {
        r.trainer = (nn_trainer){ .call = call, .params = r.params, .graph = r.learner[0].graph, .ctx = &r, .batch = train_batch,
                                  .evaluate = evaluate, .restored = log_loss, .redraw_interval = nn_redraw_interval(call->mixer) };
        rc = nn_train(&r.trainer);
        if (rc == TASK_DONE) report(&r);
        if (rc == TASK_DONE && r.test.source) rc = test(&r);
    }
    if (rc != TASK_DONE && r.why[0]) call->host->reason(call->host->ctx, r.why);
    release(&r);
    return rc;
}

static const task TRANSLATION = {
    .size = sizeof(task), .name = "translation", .title = "Translation", .paper = "arXiv:1706.03762", .opts_size = sizeof(opts), .opts = OPTS,
    .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run };
TASK_EXPORT(&TRANSLATION);
