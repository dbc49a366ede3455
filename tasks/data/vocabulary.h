/* vocabulary.h - words counted while they are read, then put into the order of their frequency. */
#ifndef DATA_VOCABULARY_H
#define DATA_VOCABULARY_H
#include <stddef.h>
#include <stdint.h>

typedef struct vocab_slot { uint64_t key; uint32_t length, id; } vocab_slot;    /* key: a short word itself; id UINT32_MAX: empty */
typedef struct data_vocab {
    char *text;                         /* the words, one behind the other */
    size_t ntext, text_room;
    uint64_t *end, *count;              /* [n] where each word ends in text; how often it occurred */
    size_t n, room;
    vocab_slot *slot;                   /* open addressing, [nslots], a power of two */
    size_t nslots;
    int shift;                          /* 64 - log2 nslots */
} data_vocab;

int  data_vocab_init(data_vocab *);     /* 0, or -1: no memory */
void data_vocab_release(data_vocab *);
/* The id of a word; -1 when it has none. */
int64_t data_vocab_find(const data_vocab *, const char *word, size_t length);
/* The same, given the next one where it has none; `times` is added to its count.  -1: no memory. */
int64_t data_vocab_add(data_vocab *, const char *word, size_t length, uint64_t times);
/* A vocabulary that text fills: <eos> and <unk> are in it. */
enum { DATA_EOS = 0, DATA_UNK = 1 };    /* their ids there */
int data_vocab_words(data_vocab *);
/* The rules of WikiText's vocabulary: <eos> first, then words by falling frequency, equal ones by first occurrence; a
 * word that occurred fewer than min_count times is <unk>, which takes the place that its frequency gives it.  Of one
 * made by data_vocab_words, out is the vocabulary so ordered, (*map)[id there] the id here; the caller frees both.  0, or
 * -1: no memory. */
int data_vocab_order(const data_vocab *, uint64_t min_count, data_vocab *out, uint32_t **map);
/* 256 words of one byte each: the vocabulary of bytes. */
int data_vocab_bytes(data_vocab *);
#endif
