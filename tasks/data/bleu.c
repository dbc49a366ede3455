/* bleu.c - n-grams counted and clipped, and the score that they make.  See bleu.h.
 *
 * Words of one segment get numbers (their rank among the sorted distinct words), n-grams are tuples of numbers, and
 * clipping is a merge of sorted n-grams: no hash decides anything. */
#include "bleu_tokens.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bleu {
    bleu_opts opts;
    bleu_rules rules;
};

bleu *bleu_new(const bleu_opts *opts)
{
    bleu *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    b->opts = *opts;
    if (!bleu_rules_init(&b->rules, opts->tokeniser)) return b;
    bleu_free(b);
    return NULL;
}

void bleu_free(bleu *b)
{
    if (!b) return;
    bleu_rules_release(&b->rules);
    free(b);
}

char *bleu_tokenise(bleu *b, const char *line) { return bleu_words(&b->rules, b->opts.lowercase, line); }

/* ---- words as numbers ------------------------------------------------------------------------------------------ */

typedef struct word { const char *text; int32_t at; } word;
typedef struct gram { int32_t word[BLEU_ORDERS]; } gram;

typedef struct side { char *text; int words; int32_t *number; } side;   /* a tokenised line */

typedef struct segment {
    int sides;                          /* the hypothesis, then the references */
    side *side;
    gram *have, *allowed, *one;         /* n-grams of the hypothesis; of the references, merged; of one reference */
} segment;

static int by_text(const void *a, const void *b) { return strcmp(((const word *)a)->text, ((const word *)b)->text); }

static int by_words(const void *a, const void *b)
{
    const int32_t *x = ((const gram *)a)->word, *y = ((const gram *)b)->word;
    for (int i = 0; i < BLEU_ORDERS; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

/* Counts the words of a tokenised line. */
static int count_words(const char *text)
{
    int n = *text != '\0';
    for (; *text; text++) n += *text == ' ';
    return n;
}

/* Gives every word of every side its number; cuts the texts at their spaces.  -1: out of memory. */
static int number_words(segment *s)
{
    int n = 0, at = 0;
    for (int i = 0; i < s->sides; i++) n += s->side[i].words;
    word *list = malloc((size_t)(n + 1) * sizeof *list);
    int32_t *number = malloc((size_t)(n + 1) * sizeof *number);
    if (!list || !number) {
        free(list), free(number);
        return -1;
    }
    for (int i = 0; i < s->sides; i++) {
        s->side[i].number = number + at;
        char *rest = s->side[i].text;
        for (int w = 0; w < s->side[i].words; w++, at++) list[at] = (word){ strsep(&rest, " "), at };
    }
    qsort(list, (size_t)n, sizeof *list, by_text);
    for (int i = 0, rank = 0; i < n; i++) {
        if (i && strcmp(list[i].text, list[i - 1].text)) rank++;
        number[list[i].at] = rank;
    }
    free(list);
    return 0;
}

/* The n-grams of a side, sorted: their count. */
static int grams(const side *s, int order, gram *out)
{
    int n = s->words - order + 1;
    for (int i = 0; i < n; i++) {
        out[i] = (gram){ { -1, -1, -1, -1 } };
        memcpy(out[i].word, s->number + i, (size_t)order * sizeof *s->number);
    }
    if (n > 1) qsort(out, (size_t)n, sizeof *out, by_words);
    return n > 0 ? n : 0;
}

/* How many of have [n] are in allowed [m], each of them used once; both sorted. */
static int64_t matches(const gram *have, int n, const gram *allowed, int m)
{
    int64_t found = 0;
    for (int i = 0, j = 0; i < n && j < m;) {
        int order = by_words(&have[i], &allowed[j]);
        found += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    return found;
}

/* allowed [m] becomes the union with one [n] in which each n-gram stands as often as where it stands more often. */
static int unite(gram *allowed, int m, const gram *one, int n, gram *room)
{
    int i = 0, j = 0, k = 0;
    while (i < m || j < n) {
        int order = i == m ? 1 : j == n ? -1 : by_words(&allowed[i], &one[j]);
        room[k++] = order <= 0 ? allowed[i] : one[j];
        i += order <= 0;
        j += order >= 0;
    }
    memcpy(allowed, room, (size_t)k * sizeof *room);
    return k;
}

/* The reference's length that is closest to words; of two, the shorter. */
static int64_t closest(const segment *s)
{
    int64_t words = s->side[0].words, best = s->side[1].words;
    for (int i = 2; i < s->sides; i++) {
        int64_t length = s->side[i].words, near = llabs(best - words), here = llabs(length - words);
        if (here < near || (here == near && length < best)) best = length;
    }
    return best;
}

/* Everything but the texts is there: counts. */
static void count(segment *s, gram *room, bleu_counts *out)
{
    *out = (bleu_counts){ .hyp_len = s->side[0].words, .ref_len = closest(s) };
    for (int order = 1; order <= BLEU_ORDERS; order++) {
        int n = grams(&s->side[0], order, s->have), m = 0;
        for (int i = 1; i < s->sides; i++) m = unite(s->allowed, m, s->one, grams(&s->side[i], order, s->one), room);
        out->total[order - 1] = n;
        out->match[order - 1] = matches(s->have, n, s->allowed, m);
    }
}

int bleu_count(bleu *b, const char *hyp, const char *const *refs, int nrefs, bleu_counts *out)
{
    segment s = { .sides = nrefs + 1, .side = calloc((size_t)nrefs + 1, sizeof *s.side) };
    int rc = s.side ? 0 : -1, words = 1;
    gram *room = NULL;
    for (int i = 0; i < s.sides && rc == 0; i++) {
        s.side[i].text = bleu_tokenise(b, i ? refs[i - 1] : hyp);
        if (!s.side[i].text) rc = -(1 + i);
        else words += s.side[i].words = count_words(s.side[i].text);
    }
    if (rc == 0) room = malloc((size_t)words * 4 * sizeof *room);
    if (rc == 0 && (!room || number_words(&s))) rc = -1;
    if (rc == 0) {
        s.have = room + words, s.allowed = room + 2 * words, s.one = room + 3 * words;
        count(&s, room, out);
        free(s.side[0].number);
    }
    for (int i = 0; s.side && i < s.sides; i++) free(s.side[i].text);
    free(s.side), free(room);
    return rc;
}

void bleu_add(bleu_counts *sum, const bleu_counts *c)
{
    for (int i = 0; i < BLEU_ORDERS; i++) sum->match[i] += c->match[i], sum->total[i] += c->total[i];
    sum->hyp_len += c->hyp_len;
    sum->ref_len += c->ref_len;
}

/* ---- the score --------------------------------------------------------------------------------------------------------- */

/* The precision of order n (from 0), in percent; *halvings: of the orders without a match so far. */
static double precision(const bleu_opts *o, const bleu_counts *c, int n, double *halvings)
{
    if (c->match[n]) return 100.0 * (double)c->match[n] / (double)c->total[n];
    if (o->smoothing == BLEU_SMOOTH_EXP) return 100.0 / ((*halvings *= 2) * (double)c->total[n]);
    return o->smoothing == BLEU_SMOOTH_FLOOR ? 100.0 * 0.1 / (double)c->total[n] : 0;
}

bleu_score bleu_of(const bleu_opts *o, const bleu_counts *c)
{
    bleu_score s = { .brevity = 1, .counts = *c };
    int any = 0, orders = BLEU_ORDERS;
    double halvings = 1, logs = 0;
    if (c->hyp_len < c->ref_len) s.brevity = c->hyp_len ? exp(1 - (double)c->ref_len / (double)c->hyp_len) : 0;
    for (int n = 0; n < BLEU_ORDERS; n++) any |= c->match[n] > 0;
    if (!any) return s;
    for (int n = 0; n < BLEU_ORDERS && c->total[n]; n++) {
        s.precision[n] = precision(o, c, n, &halvings);
        if (o->effective_order) orders = n + 1;
    }
    for (int n = 0; n < orders; n++) logs += s.precision[n] > 0 ? log(s.precision[n]) : -9999999999.0;
    s.score = s.brevity * exp(logs / orders);
    return s;
}

const char *bleu_text(const bleu_score *s, char *out, size_t n)
{
    const bleu_counts *c = &s->counts;
    snprintf(out, n, "BLEU = %.2f %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = %lld ref_len = %lld)", s->score, s->precision[0],
             s->precision[1], s->precision[2], s->precision[3], s->brevity, c->ref_len ? (double)c->hyp_len / (double)c->ref_len : 0,
             (long long)c->hyp_len, (long long)c->ref_len);
    return out;
}

const char *bleu_signature(const bleu_opts *o, int nrefs, int resamples, uint64_t seed, char *out, size_t n)
{
    static const char *const tokeniser[] = { "13a", "intl", "none" }, *const smoothing[] = { "exp", "floor[0.10]", "none" };
    char resampled[64] = "";
    if (resamples > 0) snprintf(resampled, sizeof resampled, "|bs:%d|seed:%llu", resamples, (unsigned long long)seed);
    snprintf(out, n, "nrefs:%d%s|case:%s|eff:%s|tok:%s|smooth:%s|version:harness(sacrebleu-2.6.0)", nrefs, resampled,
             o->lowercase ? "lc" : "mixed", o->effective_order ? "yes" : "no", tokeniser[o->tokeniser], smoothing[o->smoothing]);
    return out;
}
