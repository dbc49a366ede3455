/* translator.h - what translates: a graph that decodes on states, by beam search, and a witness that knows no states.
 *
 * A task says how a model is recorded; sources, translations and texts are those of a set of pairs. */
#ifndef TRANSLATOR_H
#define TRANSLATOR_H
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/pairs.h"
#include "harness/nn/beam.h"
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "kernels/cpu.h"

/* The decoder's output over `shown`, with the encoder over `source`. */
typedef nn_id translator_record(void *ctx, nn_graph *, nn_id source, nn_id length, nn_id shown);

/* A graph that says what follows every prefix of a translation. */
typedef struct translator_witness {
    nn_graph *graph;
    int B, T;                               /* sequences at a time; tokens of a translation, its end included */
    nn_id source, length, shown, logits;    /* i32 [B,S], [B], [B,T]; [B*T,V] */
    void *raw;                              /* the logits on the host */
    int64_t tokens, same;                   /* asked so far; chosen here, too */
    double gap, difference;                 /* at most: from what it finds likeliest; of the log-probability of a translation */
} translator_witness;

typedef struct translator {                 /* the first lines are the task's */
    const task_call *call;
    nn_params *params;
    nn_transformer *model;
    translator_record *record;
    void *ctx;
    int64_t vocabulary;
    int32_t end;
    int rows, S, extra, witnessed;          /* sequences at a time; tokens of a source, and more of a translation; of the witness at a time */
    double alpha;
    nn_graph *graph;                        /* the encoder once, the decoder a token at a time */
    nn_id source, length, token, logits;    /* i32 [rows,S], [rows], [rows,1]; [rows,V] */
    translator_witness witness;             /* has a graph where witnessed > 0 */
    void *raw;                              /* the logits on the host */
    int32_t *same;                          /* [rows] 0, 1, 2 ... */
    int32_t *x;                             /* of a batch on the host: sources, lengths, and longest or shown */
} translator;

/* A set of pairs as a way of decoding renders it. */
typedef struct translation_output { int64_t n, tokens; char **text; double seconds; } translation_output;

/* ---- graphs ---------------------------------------------------------------------------------------------------------------- */

/* Records both graphs; what they lack in memory translator_compile says. */
static void translator_init(translator *s)
{
    nn_graph *g = s->graph = nn_graph_new(s->params, 0);
    translator_witness *w = &s->witness;
    nn_graph_decode(g, s->S + s->extra + 1);
    s->source = nn_input(g, K_I32, (attn_dims){ 2, { s->rows, s->S } });
    s->length = nn_input(g, K_I32, (attn_dims){ 1, { s->rows } });
    s->token = nn_input(g, K_I32, (attn_dims){ 2, { s->rows, 1 } });
    nn_hold(g, s->source);
    nn_hold(g, s->length);
    s->logits = nn_transformer_logits(s->model, g, s->record(s->ctx, g, s->source, s->length, s->token));
    nn_keep(g, s->logits);
    if (!s->witnessed) return;
    g = nn_graph_new(s->params, 0);
    *w = (translator_witness){ .graph = g, .B = s->witnessed, .T = s->S + s->extra + 1 };
    w->source = nn_input(g, K_I32, (attn_dims){ 2, { w->B, s->S } });
    w->length = nn_input(g, K_I32, (attn_dims){ 1, { w->B } });
    w->shown = nn_input(g, K_I32, (attn_dims){ 2, { w->B, w->T } });
    w->logits = nn_transformer_logits(s->model, g, s->record(s->ctx, g, w->source, w->length, w->shown));
    nn_keep(g, w->logits);
}

/* Bytes of the logits of so many rows. */
static size_t translator_bytes(const translator *s, int64_t rows)
{
    return (size_t)(rows * s->vocabulary) * k_dtype_size(s->call->dtype);
}

/* Compiles both graphs and takes the host's side; a code of nn.h, with a sentence. */
static int translator_compile(translator *s, char *why, size_t nwhy)
{
    translator_witness *w = &s->witness;
    size_t own = (size_t)s->rows * ((size_t)s->S + 2), asked = (size_t)w->B * (size_t)(s->S + w->T + 1);
    int rc = nn_graph_compile(s->graph, why, nwhy);
    if (!rc && w->graph) rc = nn_graph_compile(w->graph, why, nwhy);
    if (rc) return rc;
    s->raw = malloc(translator_bytes(s, s->rows));
    s->same = malloc((size_t)s->rows * sizeof *s->same);
    s->x = malloc((own > asked ? own : asked) * sizeof *s->x);
    if (w->graph) w->raw = malloc(translator_bytes(s, (int64_t)w->B * w->T));
    for (int b = 0; s->same && b < s->rows; b++) s->same[b] = b;
    if (s->raw && s->same && s->x && (!w->graph || w->raw)) return 0;
    return snprintf(why, nwhy, "no memory for translations on the host"), NN_ENOMEM;
}

static void translator_release(translator *s)
{
    nn_graph_free(s->graph);
    nn_graph_free(s->witness.graph);
    free(s->raw), free(s->witness.raw), free(s->same), free(s->x);
}

/* ---- the witness ------------------------------------------------------------------------------------------------------------- */

/* Has it read these sources, of pairs order[0..], and their translations; rows beyond n are those of the last. */
static int witness_read(translator *s, const pairs *p, const int32_t *order, int n, const nn_sequence *said)
{
    translator_witness *w = &s->witness;
    k_dev *dev = s->call->dev;
    int32_t *source = s->x, *length = source + (int64_t)w->B * s->S, *shown = length + w->B;
    for (int b = 0; b < w->B; b++) {
        int i = b < n ? b : n - 1;
        pairs_row(p, order[i], s->S, s->end, source + (int64_t)b * s->S, &length[b], NULL, NULL);
        for (int t = 0; t < w->T; t++) shown[b * w->T + t] = t && t <= said[i].length ? said[i].token[t - 1] : s->end;
    }
    k_upload(dev, nn_data(w->graph, w->source), source, (size_t)w->B * (size_t)s->S * sizeof *source);
    k_upload(dev, nn_data(w->graph, w->length), length, (size_t)w->B * sizeof *length);
    k_upload(dev, nn_data(w->graph, w->shown), shown, (size_t)w->B * (size_t)w->T * sizeof *shown);
    if (nn_forward(w->graph)) return TASK_FAILED;
    k_download(dev, w->raw, nn_data(w->graph, w->logits), translator_bytes(s, (int64_t)w->B * w->T));
    return 0;
}

/* Whether these greedy translations are the witness's: what it finds likeliest behind every prefix, the end included, but for
 * those that had to end. */
static int witness_hear(translator *s, const pairs *p, const int32_t *order, int n, const nn_sequence *said)
{
    translator_witness *w = &s->witness;
    float *logp = malloc((size_t)s->vocabulary * sizeof *logp);
    int rc = logp ? 0 : TASK_FAILED;
    for (int from = 0; !rc && from < n; from += w->B) {
        int here = n - from < w->B ? n - from : w->B;
        rc = witness_read(s, p, order + from, here, said + from);
        for (int b = 0; !rc && b < here; b++) {
            const nn_sequence *y = &said[from + b];
            int last = y->length - (y->length == s->x[w->B * s->S + b] + s->extra);
            double sum = 0;
            for (int t = 0; t <= y->length; t++) {
                nn_log_softmax(1, s->call->dtype, 1, s->vocabulary, (char *)w->raw + translator_bytes(s, (int64_t)b * w->T + t), logp);
                double chosen = (double)logp[t < y->length ? y->token[t] : s->end], gap = (double)k_smax((int)s->vocabulary, logp) - chosen;
                sum += chosen;
                if (t <= last) w->tokens++, w->same += gap == 0, w->gap = fmax(w->gap, gap);
            }
            w->difference = fmax(w->difference, fabs(sum - y->logp));
        }
    }
    free(logp);
    return rc;
}

/* ---- translating ----------------------------------------------------------------------------------------------------------------- */

/* A token of all sequences: see beam.h. */
static int translator_next(void *ctx, const int32_t *token, const int32_t *source, float *logp)
{
    translator *s = ctx;
    k_dev *dev = s->call->dev;
    const task_host *host = s->call->host;
    if (host->stop(host->ctx)) return TASK_INTERRUPTED;
    if (source && memcmp(source, s->same, (size_t)s->rows * sizeof *source) && nn_decode_reorder(s->graph, source)) return TASK_FAILED;
    k_upload(dev, nn_data(s->graph, s->token), token, (size_t)s->rows * sizeof *token);
    if (nn_forward(s->graph)) return TASK_FAILED;
    k_download(dev, s->raw, nn_data(s->graph, s->logits), translator_bytes(s, s->rows));
    nn_log_softmax(k_dev_threads(dev), s->call->dtype, s->rows, s->vocabulary, s->raw, logp);
    return 0;
}

/* Translates the sources of n pairs, at most as many as there is room for; the best sequence of pair i is [i * width]. */
static nn_sequence *translate_batch(translator *s, const pairs *p, int width, const int32_t *order, int n, int *code)
{
    int32_t *source = s->x, *length = source + (int64_t)s->rows * s->S, *longest = length + s->rows;
    k_dev *dev = s->call->dev;
    for (int b = 0; b < s->rows; b++) {
        pairs_row(p, order[b / width < n ? b / width : n - 1], s->S, s->end, source + (int64_t)b * s->S, &length[b], NULL, NULL);
        longest[b / width] = b / width < n ? length[b] + s->extra : 0;
    }
    k_upload(dev, nn_data(s->graph, s->source), source, (size_t)s->rows * (size_t)s->S * sizeof *source);
    k_upload(dev, nn_data(s->graph, s->length), length, (size_t)s->rows * sizeof *length);
    nn_decode_reset(s->graph);
    nn_beam b = { .sentences = s->rows / width, .width = width, .vocabulary = (int)s->vocabulary, .threads = k_dev_threads(dev), .begin = s->end,
                  .end = s->end, .alpha = width > 1 ? s->alpha : 0, .longest = longest, .ctx = s, .next = translator_next };
    return nn_beam_search(&b, code);
}

/* Translates all pairs, the longest sources first so that a batch ends about together; width 1 is greedy.  The witness hears the
 * first `verify` of them.  A TASK_ code; *out is the caller's to release. */
static int translate(translator *s, const data_tokens *data, const pairs *p, int width, int64_t verify, translation_output *out)
{
    const task_host *host = s->call->host;
    int64_t n = p->source->ndocs, at_once = s->rows / width;
    struct timespec begin, end;
    int32_t *order = pairs_longest_first(p->source);
    int rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    *out = (translation_output){ .n = n, .text = calloc((size_t)n, sizeof(char *)) };
    if (!order || !out->text) rc = TASK_FAILED;
    for (int64_t at = 0; !rc && at < n; at += at_once) {
        int here = (int)(n - at < at_once ? n - at : at_once);
        nn_sequence *found = translate_batch(s, p, width, order + at, here, &rc);
        for (int i = 0; found && i < here; i++) {
            out->text[order[at + i]] = pairs_text(data, found[i * width].token, found[i * width].length);
            out->tokens += found[i * width].length;
        }
        if (found && at < verify) rc = witness_hear(s, p, order + at, (int)(verify - at < here ? verify - at : here), found);
        free(found);
        host->progress(host->ctx, at, n, width > 1 ? "beam search" : "greedy decoding", 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    out->seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    free(order);
    return rc == TASK_INTERRUPTED || !rc ? rc : TASK_FAILED;
}

static void translation_release(translation_output *out)
{
    for (int64_t i = 0; out->text && i < out->n; i++) free(out->text[i]);
    free(out->text);
}
#endif
