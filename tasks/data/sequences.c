/* sequences.c - see sequences.h. */
#include "sequences.h"
#include <stdlib.h>

/* Tokens of a document of the split. */
static int64_t tokens_of(const data_split *s, int64_t doc) { return (int64_t)s->end[doc] - data_doc_begin(s, doc); }

int sequences_init(sequences *q, const data_split *split, int64_t from, int64_t docs, int32_t length)
{
    *q = (sequences){ .split = split, .length = length, .from = from, .docs = docs, .first = malloc(((size_t)docs + 1) * sizeof *q->first) };
    if (!q->first) return -1;
    for (int64_t d = 0; d < docs; d++) {
        q->first[d] = q->n;
        q->n += (tokens_of(split, from + d) + length - 1) / length;
    }
    return 0;
}

void sequences_release(sequences *q) { free(q->first); }

int32_t sequences_at(const sequences *q, int64_t i, int64_t *begin)
{
    int64_t low = 0, high = q->docs;    /* first[low] <= i < first[high]: of documents without a token the last is the one */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (q->first[middle] <= i) low = middle;
        else high = middle;
    }
    const int64_t before = (i - q->first[low]) * q->length, left = tokens_of(q->split, q->from + low) - before;
    *begin = data_doc_begin(q->split, q->from + low) + before;
    return (int32_t)(left < q->length ? left : q->length);
}

void sequences_put(const sequences *q, int64_t i, int32_t *in, int32_t *out)
{
    int64_t begin;
    const int32_t n = sequences_at(q, i, &begin);
    data_copy(q->split, begin, n, out);
    in[0] = 0;
    for (int32_t t = 1; t < q->length; t++) in[t] = t < n ? out[t - 1] : 0;
    for (int32_t t = n; t < q->length; t++) out[t] = -1;
}
