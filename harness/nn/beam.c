/* beam.c - beam search.  See beam.h.
 *
 * Of each sentence `width` open sequences are kept.  A step looks at the best 2 width continuations, of which at most width end:
 * those among the best width are finished, the best that do not end are the open ones of the next step.  A sentence is done when
 * width sequences are finished and no open one can overtake the worst of them, whatever follows. */
#include "beam.h"
#include "../../kernels/cpu.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct choice { double logp; int row; int32_t token; } choice;      /* row: of the sentence */

typedef struct search {
    const nn_beam *b;
    int rows, most;                     /* most: of longest */
    nn_sequence *done;                  /* [rows], what becomes the result */
    double *logp;                       /* [rows] of open sequences; -inf: none */
    int32_t *text, *before;             /* [rows,most] their tokens; those of the step before */
    int32_t *token, *source;            /* [rows] for next() */
    float *next;                        /* [rows,vocabulary] */
    choice *best;                       /* [sentences][2 width] */
    unsigned char *finished;            /* [sentences] */
} search;

static double penalty(const nn_beam *b, int length) { return pow((5.0 + length) / 6.0, b->alpha); }

/* Puts c into the list of the n best of at most `most`, behind its equals; the new n. */
static int insert(choice *list, int n, int most, choice c)
{
    int at = n;
    if (n == most && !(c.logp > list[n - 1].logp))
        return n;
    while (at > 0 && c.logp > list[at - 1].logp)
        at--;
    n += n < most;
    memmove(list + at + 1, list + at, (size_t)(n - at - 1) * sizeof *list);
    list[at] = c;
    return n;
}

/* The best continuations of sentence s into its part of x->best; at the longest length only ends. */
static int choose(search *x, int s, int step)
{
    const nn_beam *b = x->b;
    choice *best = x->best + (int64_t)s * 2 * b->width;
    int n = 0, first = step >= b->longest[s] ? b->end : 0, last = step >= b->longest[s] ? b->end : b->vocabulary - 1;
    for (int i = 0; i < b->width; i++) {
        int row = s * b->width + i;
        const float *logp = x->next + (int64_t)row * b->vocabulary;
        for (int32_t t = first; x->logp[row] > -INFINITY && t <= last; t++)
            n = insert(best, n, 2 * b->width, (choice){ x->logp[row] + (double)logp[t], i, t });
    }
    return n;
}

/* A sequence of sentence s ends: among its finished ones, if it is good enough. */
static void finish(search *x, int s, choice c, int length)
{
    const nn_beam *b = x->b;
    nn_sequence *done = x->done + (int64_t)s * b->width, *worst = done + b->width - 1, new = *worst;
    double score = c.logp / penalty(b, length + 1);
    int at = b->width - 1;
    if (!(c.logp > -INFINITY) || (worst->length >= 0 && !(score > worst->score)))
        return;
    while (at > 0 && (done[at - 1].length < 0 || score > done[at - 1].score))
        done[at] = done[at - 1], at--;
    new.score = score, new.logp = c.logp, new.length = length;
    memcpy(new.token, x->before + ((int64_t)s * b->width + c.row) * x->most, (size_t)length * sizeof *new.token);
    done[at] = new;
}

/* Whether no open sequence of sentence s can become one of the best. */
static int is_done(const search *x, int s)
{
    const nn_beam *b = x->b;
    const nn_sequence *worst = &x->done[(int64_t)s * b->width + b->width - 1];
    double best = x->logp[s * b->width];
    return best == -INFINITY || (worst->length >= 0 && best / penalty(b, b->longest[s] + 1) <= worst->score);
}

/* Sentence s after its step: sequences that end, and those that go on. */
static void advance(search *x, int s, int step)
{
    const nn_beam *b = x->b;
    int n = choose(x, s, step), open = 0;
    for (int i = 0; i < n; i++) {
        choice c = x->best[(int64_t)s * 2 * b->width + i];
        int row = s * b->width + open;
        if (c.token == b->end && i < b->width)
            finish(x, s, c, step);
        else if (c.token != b->end && open < b->width && c.logp > -INFINITY) {
            int32_t *text = x->text + (int64_t)row * x->most;
            memcpy(text, x->before + ((int64_t)s * b->width + c.row) * x->most, (size_t)step * sizeof *text);
            text[step] = x->token[row] = c.token;
            x->source[row] = s * b->width + c.row;
            x->logp[row] = c.logp;
            open++;
        }
    }
    for (; open < b->width; open++) {
        int row = s * b->width + open;
        x->logp[row] = -INFINITY, x->token[row] = b->end, x->source[row] = row;
    }
    x->finished[s] = (unsigned char)is_done(x, s);
}

/* All steps; 0 or the code of next(). */
static int run(search *x)
{
    const nn_beam *b = x->b;
    for (int step = 0, open = b->sentences; open > 0; step++) {
        int code = b->next(b->ctx, x->token, step ? x->source : NULL, x->next);
        if (code)
            return code;
        int32_t *swap = x->before;
        x->before = x->text, x->text = swap;
        open = 0;
#pragma omp parallel for schedule(dynamic) num_threads(b->threads > 1 ? b->threads : 1) reduction(+ : open)
        for (int s = 0; s < b->sentences; s++) {
            if (!x->finished[s])
                advance(x, s, step);
            open += !x->finished[s];
        }
    }
    return 0;
}

/* The result without sequences: one block with the room for their tokens. */
static nn_sequence *blank(int rows, int most)
{
    nn_sequence *done = malloc((size_t)rows * (sizeof *done + (size_t)most * sizeof(int32_t)));
    for (int i = 0; done && i < rows; i++)
        done[i] = (nn_sequence){ -INFINITY, -INFINITY, -1, (int32_t *)(done + rows) + (int64_t)i * most };
    return done;
}

nn_sequence *nn_beam_search(const nn_beam *b, int *code)
{
    search x = { .b = b, .rows = b->sentences * b->width, .most = 1 };
    for (int s = 0; s < b->sentences; s++)
        x.most = b->longest[s] > x.most ? b->longest[s] : x.most;
    size_t rows = (size_t)x.rows, most = (size_t)x.most;
    x.done = blank(x.rows, x.most);
    x.logp = malloc(rows * sizeof *x.logp);
    x.text = calloc(2 * rows * most + 2 * rows, sizeof *x.text);
    x.next = malloc(rows * (size_t)b->vocabulary * sizeof *x.next);
    x.best = malloc(2 * rows * sizeof *x.best);
    x.finished = calloc((size_t)b->sentences, 1);
    void *const own[] = { x.logp, x.text, x.next, x.best, x.finished };
    *code = x.done && x.logp && x.text && x.next && x.best && x.finished ? 0 : -1;
    if (!*code) {
        x.before = x.text + rows * most, x.token = x.before + rows * most, x.source = x.token + rows;
        for (int i = 0; i < x.rows; i++)
            x.logp[i] = i % b->width ? -INFINITY : 0, x.token[i] = b->begin, x.source[i] = i;
        *code = run(&x);
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        free(own[i]);
    if (*code)
        free(x.done), x.done = NULL;
    return x.done;
}

/* Row by row; what there is of exp is in float, the sum of it in double. */
void nn_log_softmax(int threads, k_dtype t, int64_t rows, int64_t n, const void *logits, float *logp)
{
    enum { PART = 1024 };
#pragma omp parallel for num_threads(threads > 1 ? threads : 1)
    for (int64_t r = 0; r < rows; r++) {
        float *y = logp + r * n, part[PART];
        double sum = 0;
        for (int64_t v = 0; v < n; v++) {
            union { uint32_t bits; float value; } wide = { .bits = t == K_BF16 ? (uint32_t)((const uint16_t *)logits)[r * n + v] << 16 : 0 };
            y[v] = t == K_F64 ? (float)((const double *)logits)[r * n + v] : t == K_BF16 ? wide.value : ((const float *)logits)[r * n + v];
        }
        float top = k_smax((int)n, y);
        int64_t from = 0;
        do {
            sum += (double)k_sexp_sum((int)(n - from < PART ? n - from : PART), part, y + from, top);
        } while ((from += PART) < n);
        const float all = top + (float)log(sum);
        for (int64_t v = 0; v < n; v++)
            y[v] -= all;
    }
}
