/* bleu.h - BLEU as sacreBLEU 2 computes it, to every printed digit.
 *
 * Papineni et al. 2002 (BLEU), Post 2018 (arXiv:1804.08771: why the tokeniser belongs to the number).  Scores are of
 * detokenised text against untouched references.  Segment by segment the sufficient statistics are counted; a corpus is
 * their sum, and a bootstrap sums them over resampled segments.
 *
 * Equal to sacreBLEU: the statistics, the score, its text, the tokenisers 13a, intl and none.  Not equal: the resamples of
 * bleu_bootstrap and bleu_compare come from the counter-based generator of this project, so an interval agrees with
 * sacreBLEU's within its own noise alone.  The signature says so. */
#ifndef TASKS_DATA_BLEU_H
#define TASKS_DATA_BLEU_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
enum { BLEU_ORDERS = 4 };
typedef enum bleu_tokeniser { BLEU_13A, BLEU_INTL, BLEU_NONE } bleu_tokeniser;
/* What happens to an order of n-grams without a match: exp halves the precision from one such order to the next, floor
 * puts 0.1 matches, none leaves 0. */
typedef enum bleu_smoothing { BLEU_SMOOTH_EXP, BLEU_SMOOTH_FLOOR, BLEU_SMOOTH_NONE } bleu_smoothing;
typedef struct bleu_opts {
    bleu_tokeniser tokeniser;
    bleu_smoothing smoothing;
    int lowercase;
    int effective_order;                /* stop at the first order without a match: for single sentences */
} bleu_opts;                            /* all zero: sacreBLEU's defaults */

typedef struct bleu_counts {            /* additive */
    int64_t match[BLEU_ORDERS], total[BLEU_ORDERS];     /* clipped matches and n-grams of the hypothesis, n = 1.. */
    int64_t hyp_len, ref_len;           /* words; the reference's whose length is closest, of two the shorter */
} bleu_counts;

typedef struct bleu_score {
    double score, precision[BLEU_ORDERS], brevity;      /* percent, percent, 0..1 */
    bleu_counts counts;
} bleu_score;

/* What tokenises: compiled patterns.  NULL: out of memory. */
typedef struct bleu bleu;
bleu *bleu_new(const bleu_opts *);
void bleu_free(bleu *);
/* The tokenised line, words with one space between them; the caller's to free.  NULL: not UTF-8, or out of memory. */
char *bleu_tokenise(bleu *, const char *line);
/* Counts one segment; nrefs >= 1.  0; -1: hyp is not UTF-8 or memory is out; -(2 + i): reference i is not UTF-8. */
int  bleu_count(bleu *, const char *hyp, const char *const *refs, int nrefs, bleu_counts *out);
void bleu_add(bleu_counts *sum, const bleu_counts *);
bleu_score bleu_of(const bleu_opts *, const bleu_counts *);
/* "BLEU = 27.30 58.9/33.2/21.0/13.7 (BP = 1.000 ratio = 1.002 hyp_len = 62362 ref_len = 62240)". */
const char *bleu_text(const bleu_score *, char *out, size_t n);
/* "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:harness(sacrebleu-2.6.0)"; resamples > 0: "|bs:1000|seed:12345"
 * after nrefs. */
const char *bleu_signature(const bleu_opts *, int nrefs, int resamples, uint64_t seed, char *out, size_t n);

typedef struct bleu_interval { double mean, half; } bleu_interval;     /* of the resampled scores; half the width of 95 % */
/* segment [n]: what bleu_count gave for each.  half is -1 when memory is out. */
bleu_interval bleu_bootstrap(const bleu_opts *, const bleu_counts *segment, int64_t n, int resamples, uint64_t seed);
/* The chance that two systems a [n], b [n], scored on the same segments, differ by at least as much as they do when each
 * segment's outputs are swapped by a coin: approximate randomisation (Riezler & Maxwell 2005), (hits + 1) / (trials + 1). */
double bleu_compare(const bleu_opts *, const bleu_counts *a, const bleu_counts *b, int64_t n, int trials, uint64_t seed);
#ifdef __cplusplus
}
#endif
#endif
