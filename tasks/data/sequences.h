/* sequences.h - documents of a prepared set as sequences that stand for themselves: images, pieces of music, recordings.
 *
 * A document that is longer than `length` is several sequences, one behind the other, the last of them shorter.  No sequence goes
 * on from one document into the next, and every token is in exactly one. */
#ifndef DATA_SEQUENCES_H
#define DATA_SEQUENCES_H
#include "tokens.h"

typedef struct sequences {
    const data_split *split;
    int32_t length;
    int64_t from, docs, n;              /* the documents from..from+docs-1; how many sequences they are */
    int64_t *first;                     /* [docs] the number of each one's first sequence */
} sequences;

int  sequences_init(sequences *, const data_split *, int64_t from, int64_t docs, int32_t length);      /* 0, or -1: no memory */
void sequences_release(sequences *);
/* The tokens of sequence i: how many, and *begin, where they begin in the split. */
int32_t sequences_at(const sequences *, int64_t i, int64_t *begin);
/* Sequence i as a model reads it that says each token by those before it: token 0 and then all but the last, as in [length],
 * and what it is asked, out [length].  Behind its end 0, and nothing is asked (-1). */
void sequences_put(const sequences *, int64_t i, int32_t *in, int32_t *out);
#endif
