/* pairs.c - see pairs.h. */
#define _GNU_SOURCE
#include "pairs.h"
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

static int64_t length_of(const data_split *s, int64_t doc) { return (int64_t)s->end[doc] - data_doc_begin(s, doc); }

/* The bucket of pair i; -1: it is too long. */
static int bucket_of(const pairs *p, int64_t i)
{
    int64_t source = length_of(p->source, i), target = length_of(p->target, i) + 1, longer = source > target ? source : target;
    for (int k = 0; k < p->nbuckets; k++)
        if (longer <= p->bucket[k].length) return k;
    return -1;
}

int pairs_init(pairs *p, const data_split *source, const data_split *target, int longest, int buckets, int tokens)
{
    *p = (pairs){ .source = source, .target = target, .nbuckets = buckets };
    for (int k = 0; k < buckets; k++) {
        pairs_bucket *b = &p->bucket[k];
        b->length = (longest + (1 << (buckets - 1 - k)) - 1) >> (buckets - 1 - k);
        b->rows = tokens / b->length ? tokens / b->length : 1;
        p->rows = b->rows > p->rows ? b->rows : p->rows;
        b->pair = malloc((size_t)(source->ndocs + 1) * sizeof *b->pair);
        if (!b->pair) return -1;
    }
    for (int64_t i = 0; i < source->ndocs; i++) {
        int k = bucket_of(p, i);
        if (k >= 0) p->bucket[k].pair[p->bucket[k].n++] = (int32_t)i;
        p->n += k >= 0, p->left_out += k < 0;
    }
    return 0;
}

void pairs_release(pairs *p)
{
    for (int k = 0; k < p->nbuckets; k++) free(p->bucket[k].pair);
}

static int64_t batches_of(const pairs_bucket *b) { return (b->n + b->rows - 1) / b->rows; }

int64_t pairs_batches(const pairs *p)
{
    int64_t n = 0;
    for (int k = 0; k < p->nbuckets; k++) n += batches_of(&p->bucket[k]);
    return n;
}

/* The last batch of a bucket is filled up with its first pairs. */
int pairs_step(const pairs *p, uint64_t seed, int64_t step, int32_t *pair)
{
    int64_t n = pairs_batches(p), epoch = (step - 1) / n, at = data_permuted(seed, (uint32_t)epoch, n, (step - 1) % n);
    int k = 0;
    for (; at >= batches_of(&p->bucket[k]); k++) at -= batches_of(&p->bucket[k]);
    const pairs_bucket *b = &p->bucket[k];
    for (int r = 0; r < b->rows; r++)
        pair[r] = b->pair[data_permuted(seed + 1 + (uint64_t)k, (uint32_t)epoch, b->n, (at * b->rows + r) % b->n)];
    return k;
}

void pairs_row(const pairs *p, int64_t pair, int length, int32_t end, int32_t *source, int32_t *source_length, int32_t *shown, int32_t *said)
{
    int64_t n = length_of(p->source, pair), m = length_of(p->target, pair);
    if (source) {
        *source_length = (int32_t)(n < length ? n : length);
        data_copy(p->source, data_doc_begin(p->source, pair), *source_length, source);
        for (int t = *source_length; t < length; t++) source[t] = end;
    }
    if (!said) return;
    data_copy(p->target, data_doc_begin(p->target, pair), m, said);
    memcpy(shown + 1, said, (size_t)m * sizeof *said);
    shown[0] = said[m] = end;
    for (int64_t t = m + 1; t < length; t++) shown[t] = end, said[t] = -1;
}

static int by_length(const void *a, const void *b, void *split)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    int64_t m = length_of(split, i), n = length_of(split, j);
    return m != n ? (m < n) - (m > n) : i - j;
}

int32_t *pairs_longest_first(const data_split *s)
{
    int32_t *order = malloc((size_t)s->ndocs * sizeof *order);
    for (int32_t i = 0; order && i < s->ndocs; i++) order[i] = i;
    if (order) qsort_r(order, (size_t)s->ndocs, sizeof *order, by_length, (void *)(uintptr_t)s);
    return order;
}

/* Puts spaces where units begin words, in place; the space that begins the text goes. */
static void join_units(char *text)
{
    char *out = text;
    for (const char *in = text; *in;) {
        int mark = !strncmp(in, "\xe2\x96\x81", 3);
        if (!mark || out > text) *out++ = mark ? ' ' : *in;
        in += mark ? 3 : 1;
    }
    *out = 0;
}

char *pairs_text(const data_tokens *data, const int32_t *token, int64_t n)
{
    size_t bytes = 0, length;
    for (int64_t i = 0; i < n; i++) {
        data_word(data, token[i], &length);
        bytes += length;
    }
    char *text = malloc(bytes + 1), *at = text;
    if (!text) return NULL;
    for (int64_t i = 0; i < n; i++, at += length) {
        const char *word = data_word(data, token[i], &length);
        memcpy(at, word, length);
    }
    *at = 0;
    for (char *c = text; c < at; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    if (data_id(data, "<eos>", 5) >= 0) join_units(text);
    if (u8_check((const uint8_t *)text, strlen(text)))
        for (char *c = text; *c; c++)
            if ((unsigned char)*c >= 0x80) *c = '?';
    return text;
}

char *pairs_line(const data_tokens *data, const data_split *s, int64_t i)
{
    int64_t n = length_of(s, i);
    int32_t *token = malloc((size_t)(n + 1) * sizeof *token);
    if (token) data_copy(s, data_doc_begin(s, i), n, token);
    char *text = token ? pairs_text(data, token, n) : NULL;
    free(token);
    return text;
}
