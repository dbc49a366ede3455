/* subwords.h - text into subword units and back: sentencepiece models, and the codes of subword-nmt.
 *
 * Units are text here, one space between two of them; a prepared set's vocabulary gives them numbers.  In sentencepiece
 * (Kudo & Richardson 2018, arXiv:1808.06226) a unit that begins a word begins with U+2581; in subword-nmt (Sennrich,
 * Haddow & Birch 2016, arXiv:1508.07909) a unit that does not end a word ends in "@@", and the text is split into words
 * before. */
#ifndef TASKS_DATA_SUBWORDS_H
#define TASKS_DATA_SUBWORDS_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct subwords subwords;
/* Opens a file of either kind; codes begin with "#version:".  NULL with a sentence. */
subwords *subwords_open(const char *path, char *why, size_t nwhy);
void subwords_close(subwords *);
/* The units of a line of UTF-8; the text of units.  The caller's to free; NULL: not UTF-8, or out of memory. */
char *subwords_split(const subwords *, const char *line);
char *subwords_join(const subwords *, const char *units);

typedef struct subwords_training {
    const char *const *file;            /* [nfiles] of text, a sentence a line */
    int nfiles, vocabulary;             /* units in all, <unk> <s> </s> among them */
    const char *kind;                   /* "bpe" or "unigram" */
    double coverage;                    /* of characters, 1: all become units */
    int64_t sentences;                  /* at most so many are looked at, 0: all */
} subwords_training;
/* Learns a sentencepiece model and writes it to path (and path with .vocab for .model).  0, or -1 with a sentence. */
int subwords_train(const subwords_training *, const char *path, char *why, size_t nwhy);

/* ---- how sentencepiece, a C++ library, stands behind this: an object of its own, loaded when one is asked for ---------- */
#define SUBWORDS_OBJECT "libharness-sentencepiece.so"   /* lies beside libharness.so */
#define SUBWORDS_SYMBOL "subwords_sentencepiece_v1"
typedef struct subwords_library {
    uint32_t size;
    void *(*open)(const char *path, char *why, size_t nwhy);
    void (*close)(void *model);
    char *(*split)(const void *model, const char *line);
    char *(*join)(const void *model, const char *units);
    int (*train)(const subwords_training *, const char *path, char *why, size_t nwhy);
} subwords_library;
#ifdef __cplusplus
}
#endif
#endif
