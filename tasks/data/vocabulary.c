/* vocabulary.c - a hash table over words that lie one behind the other. */
#include <stdlib.h>
#include <string.h>
#include "vocabulary.h"

enum { FIRST_SLOTS = 1 << 12, EMPTY_WORDS = 1 << 11, EMPTY_TEXT = 1 << 14 };

/* A word of up to eight bytes is its own key, so that words of that kind, nearly all of a text, are compared in their slot;
 * the key of a longer one is its FNV-1a hash. */
static uint64_t key_of(const char *word, size_t n)
{
    uint64_t key = 0;
    if (n <= 8) {
        for (size_t i = 0; i < n; i++) key = key << 8 | (unsigned char)word[i];
        return key;
    }
    key = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) key = (key ^ (unsigned char)word[i]) * 0x100000001B3u;
    return key;
}

static size_t first_slot(uint64_t key, int shift) { return (size_t)((key ^ key >> 32) * 0x9E3779B97F4A7C15u >> shift); }

/* The slot of the word: its own, or the empty one that it would take. */
static vocab_slot *seek(const data_vocab *v, uint64_t key, const char *word, size_t length)
{
    for (size_t i = first_slot(key, v->shift);; i = (i + 1) & (v->nslots - 1)) {
        vocab_slot *s = &v->slot[i];
        if (s->id == UINT32_MAX) return s;
        if (s->key != key || s->length != length) continue;
        if (length <= 8 || memcmp(v->text + v->end[s->id] - length, word, length) == 0) return s;
    }
}

/* A table of nslots into v, with the words that it has. */
static int rehash(data_vocab *v, size_t nslots)
{
    vocab_slot *old = v->slot, *slot = malloc(nslots * sizeof *slot);
    const int shift = 64 - __builtin_ctzll(nslots);
    if (!slot) return -1;
    memset(slot, 0xFF, nslots * sizeof *slot);
    for (size_t k = 0; old && k < v->nslots; k++) {
        if (old[k].id == UINT32_MAX) continue;
        size_t i = first_slot(old[k].key, shift);
        while (slot[i].id != UINT32_MAX) i = (i + 1) & (nslots - 1);
        slot[i] = old[k];
    }
    free(old);
    v->slot = slot;
    v->nslots = nslots;
    v->shift = shift;
    return 0;
}

int data_vocab_init(data_vocab *v)
{
    *v = (data_vocab){ .text_room = EMPTY_TEXT, .room = EMPTY_WORDS };
    v->text = malloc(v->text_room);
    v->end = malloc(v->room * sizeof *v->end);
    v->count = malloc(v->room * sizeof *v->count);
    if (v->text && v->end && v->count && rehash(v, FIRST_SLOTS) == 0) return 0;
    data_vocab_release(v);
    return -1;
}

void data_vocab_release(data_vocab *v)
{
    free(v->text);
    free(v->end);
    free(v->count);
    free(v->slot);
    *v = (data_vocab){ 0 };
}

int64_t data_vocab_find(const data_vocab *v, const char *word, size_t length)
{
    const uint32_t id = seek(v, key_of(word, length), word, length)->id;
    return id == UINT32_MAX ? -1 : (int64_t)id;
}

/* Room for one word more of that length. */
static int make_room(data_vocab *v, size_t length)
{
    if (v->n == v->room) {
        const size_t room = 2 * v->room;
        uint64_t *end = realloc(v->end, room * sizeof *end);
        if (end) v->end = end;
        uint64_t *count = realloc(v->count, room * sizeof *count);
        if (count) v->count = count;
        if (!end || !count) return -1;
        v->room = room;
    }
    if (v->ntext + length > v->text_room) {
        const size_t room = 2 * (v->text_room + length);
        char *text = realloc(v->text, room);
        if (!text) return -1;
        v->text = text;
        v->text_room = room;
    }
    return 2 * (v->n + 1) > v->nslots ? rehash(v, 2 * v->nslots) : 0;
}

int64_t data_vocab_add(data_vocab *v, const char *word, size_t length, uint64_t times)
{
    const uint64_t key = key_of(word, length);
    vocab_slot *s = seek(v, key, word, length);
    if (s->id == UINT32_MAX) {
        if (v->n >= INT32_MAX || length > INT32_MAX || make_room(v, length) != 0) return -1;
        s = seek(v, key, word, length);
        *s = (vocab_slot){ key, (uint32_t)length, (uint32_t)v->n };
        memcpy(v->text + v->ntext, word, length);
        v->ntext += length;
        v->end[v->n] = v->ntext;
        v->count[v->n++] = 0;
    }
    v->count[s->id] += times;
    return s->id;
}

int data_vocab_words(data_vocab *v)
{
    return data_vocab_init(v) == 0 && data_vocab_add(v, "<eos>", 5, 0) == DATA_EOS && data_vocab_add(v, "<unk>", 5, 0) == DATA_UNK ? 0 : -1;
}

typedef struct ranked { uint64_t count; uint32_t id; } ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* The words that stay, in their order, into r, <unk> with the sum of the others among them; how many.  Ids are in the
 * order of first occurrence. */
static size_t rank(const data_vocab *v, uint64_t min_count, ranked *r)
{
    size_t n = 1;
    r[0] = (ranked){ v->count[DATA_UNK], DATA_UNK };
    for (uint32_t id = DATA_UNK + 1; id < v->n; id++) {
        if (v->count[id] >= min_count) r[n++] = (ranked){ v->count[id], id };
        else r[0].count += v->count[id];
    }
    qsort(r, n, sizeof *r, by_rank);
    return n;
}

int data_vocab_order(const data_vocab *v, uint64_t min_count, data_vocab *out, uint32_t **map)
{
    ranked *r = malloc(v->n * sizeof *r);
    uint32_t *to = *map = calloc(v->n, sizeof *to);
    int rc = r && to && data_vocab_init(out) == 0 && data_vocab_add(out, "<eos>", 5, v->count[DATA_EOS]) == 0 ? 0 : -1;
    const size_t n = rc == 0 ? rank(v, min_count, r) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const uint64_t begin = r[i].id ? v->end[r[i].id - 1] : 0;
        if (data_vocab_add(out, v->text + begin, v->end[r[i].id] - begin, r[i].count) < 0) rc = -1;
        else to[r[i].id] = (uint32_t)i + 1;
    }
    for (size_t id = DATA_UNK + 1; rc == 0 && id < v->n; id++)
        if (to[id] == DATA_EOS) to[id] = to[DATA_UNK];
    free(r);
    if (rc == 0) return 0;
    free(to);
    *map = NULL;
    data_vocab_release(out);
    return -1;
}

int data_vocab_bytes(data_vocab *v)
{
    if (data_vocab_init(v) != 0) return -1;
    for (int b = 0; b < 256; b++) {
        const char word = (char)b;
        if (data_vocab_add(v, &word, 1, 0) < 0) return -1;
    }
    return 0;
}
