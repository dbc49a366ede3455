/* pairs.h - sentence pairs in batches of like length, and their text.
 *
 * A batch has about the same number of tokens whatever the length of its sentences: pairs are sorted into buckets by the
 * longer side, the end included, and the longest bucket has half as many rows as the one before.  Which pairs a step sees is a
 * pure function of seed and step: every epoch is another order of batches and of the pairs in them. */
#ifndef DATA_PAIRS_H
#define DATA_PAIRS_H
#include "tokens.h"

enum { PAIRS_BUCKETS = 8 };
typedef struct pairs_bucket { int length, rows; int64_t n; int32_t *pair; } pairs_bucket;   /* pairs of at most so many tokens a side */
typedef struct pairs {
    const data_split *source, *target;
    int nbuckets, rows;                 /* rows: of the largest batch */
    pairs_bucket bucket[PAIRS_BUCKETS]; /* lengths double */
    int64_t n, left_out;                /* pairs in buckets; longer ones */
} pairs;

/* `tokens` a batch and side, padding included, and at least a row.  0, or -1: no memory. */
int  pairs_init(pairs *, const data_split *source, const data_split *target, int longest, int buckets, int tokens);
void pairs_release(pairs *);
int64_t pairs_batches(const pairs *);       /* of an epoch: every pair at least once */
/* The pairs of a step, from 1 on, into pair [rows of its bucket]; the bucket. */
int  pairs_step(const pairs *, uint64_t seed, int64_t step, int32_t *pair);
/* A row: source [length of the bucket], cut there, and how long it is; what the decoder is shown, `end` first, and what it is to
 * say, `end` last and -1 behind it.  NULL: not wanted. */
void pairs_row(const pairs *, int64_t pair, int length, int32_t end, int32_t *source, int32_t *source_length, int32_t *shown, int32_t *said);
int32_t *pairs_longest_first(const data_split *);  /* [ndocs] its documents, equals as they stand; the caller's to free; NULL: no memory */
/* Tokens as text: of a vocabulary of units (one that has <eos>) U+2581 is a space; what is not text becomes a space, what is
 * not UTF-8 '?'.  The caller's to free; NULL: no memory. */
char *pairs_text(const data_tokens *, const int32_t *token, int64_t n);
/* The same of document i of a split. */
char *pairs_line(const data_tokens *, const data_split *, int64_t i);
#endif
