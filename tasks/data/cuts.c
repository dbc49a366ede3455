/* cuts.c - a split cut into streams, segments, windows and masked sequences. */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>
#include "../../kernels/philox.h"
#include "tokens.h"

void data_copy(const data_split *s, int64_t at, int64_t n, int32_t *out)
{
    const uint8_t *one = (const uint8_t *)s->tokens + at;
    const uint16_t *two = (const uint16_t *)s->tokens + at;
    const uint32_t *four = (const uint32_t *)s->tokens + at;
    if (s->width == 1)
        for (int64_t i = 0; i < n; i++) out[i] = one[i];
    else if (s->width == 2)
        for (int64_t i = 0; i < n; i++) out[i] = two[i];
    else
        for (int64_t i = 0; i < n; i++) out[i] = (int32_t)four[i];
}

void data_streams(const data_split *s, int64_t streams, int64_t at, int64_t n, int32_t *out)
{
    const int64_t length = data_stream_length(s->n, streams);
    for (int64_t b = 0; b < streams; b++) data_copy(s, b * length + at, n, out + b * n);
}

/* A Feistel network over the next even number of bits; what leaves 0..n-1 is sent through it again. */
int64_t data_permuted(uint64_t seed, uint32_t draw, int64_t n, int64_t i)
{
    enum { ROUNDS = 6 };
    int half = 1;
    while ((int64_t)1 << 2 * half < n) half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t x = (uint64_t)i;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t mixed = left ^ (philox4x32_10(seed, right, round, draw).v[0] & mask);
            left = right;
            right = mixed;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

int64_t data_segments(int64_t n, int32_t length, int keep_tail)
{
    const int64_t targets = n > 1 ? n - 1 : 0;
    return (targets + (keep_tail ? length - 1 : 0)) / length;
}

data_cut data_segment(int64_t n, int32_t length, int64_t i)
{
    const int64_t begin = i * length, left = n - 1 - begin;
    const int32_t here = left < length ? (int32_t)left : length;
    return (data_cut){ begin, here, here };
}

int64_t data_windows(int64_t n, int32_t length, int32_t stride)
{
    if (n < 2) return 0;
    return n - 1 <= length ? 1 : 1 + (n - 1 - length + stride - 1) / stride;
}

data_cut data_window(int64_t n, int32_t length, int32_t stride, int64_t i)
{
    const int64_t targets = n - 1, before = length + (i - 1) * stride;      /* before: scored by earlier windows, i > 0 */
    int64_t end = i ? before + stride : length;
    if (end > targets) end = targets;
    const int64_t begin = end > length ? end - length : 0;
    return (data_cut){ begin, (int32_t)(end - begin), (int32_t)(i ? end - before : end) };
}

/* Targets of each reader but the last. */
static int64_t stretch(int64_t n, int32_t streams) { return n > 1 ? (n - 1 + streams - 1) / streams : 0; }

int64_t data_turns(int64_t n, int32_t length, int32_t streams) { return (stretch(n, streams) + length - 1) / length; }

data_cut data_turn(int64_t n, int32_t length, int32_t streams, int32_t b, int64_t i)
{
    const int64_t each = stretch(n, streams), begin = b * each + i * length;
    int64_t end = (b + 1) * each < n - 1 ? (b + 1) * each : n - 1;
    if (end > begin + length) end = begin + length;
    const int32_t here = end > begin ? (int32_t)(end - begin) : 0;
    return (data_cut){ here ? begin : 0, here, here };
}

int64_t data_words_of(const data_tokens *t, const data_split *s, int64_t from, int64_t to)
{
    static const char bytes[] = "\nkind bytes ";
    int64_t words = 0;
    int within = 0;
    if (!memmem(t->recipe, t->recipe_length, bytes, sizeof bytes - 1)) return -1;
    for (int64_t i = from; i < to; i++) {
        int32_t c;
        data_copy(s, i, 1, &c);
        const int blank = c == ' ' || (c >= '\t' && c <= '\r');
        words += !blank && !within;
        within = !blank;
    }
    return words;
}

void data_mask(const data_masking *m, int64_t n, int32_t *x, int32_t *target)
{
    for (int64_t i = 0; i < n; i++) {
        const philox4 r = philox4x32_10(m->seed, (uint64_t)i, m->stream, m->draw);
        const double what = r.v[1] * 0x1p-32;
        const int chosen = x[i] >= m->first && x[i] <= m->last && r.v[0] * 0x1p-32 < m->rate;
        target[i] = chosen ? x[i] : -1;
        if (chosen && what < 0.8) x[i] = m->mask;
        else if (chosen && what < 0.9) x[i] = m->first + (int32_t)philox_below(r.v[2], (uint32_t)(m->last - m->first + 1));
    }
}

data_unigram data_unigram_of(const data_tokens *t, const data_split *s, int64_t skip)
{
    enum { CHUNK = 4096 };
    int32_t x[CHUNK];
    int64_t best = -1, right = 0, n = 0;
    double total = 0, loss = 0;
    for (int64_t v = 0; v < t->nvocab; v++) {
        if (v == skip) continue;
        total += (double)t->count[v];
        if (best < 0 || t->count[v] > t->count[best]) best = v;
    }
    for (int64_t at = 0; at < s->n; at += CHUNK) {
        const int64_t here = s->n - at < CHUNK ? s->n - at : CHUNK;
        data_copy(s, at, here, x);
        for (int64_t i = 0; i < here; i++) {
            if (x[i] == skip) continue;
            const double seen = t->count[x[i]] ? (double)t->count[x[i]] : 1;
            loss -= log(seen / total);
            right += x[i] == best;
            n++;
        }
    }
    return (data_unigram){ n ? (double)right / (double)n : 0, n ? exp(loss / (double)n) : 0, n };
}
