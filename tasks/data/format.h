/* format.h - a prepared set as it lies in its file; what tokens.c maps and writer.c writes.  Native byte order, which
 * `order` tells. */
#ifndef DATA_FORMAT_H
#define DATA_FORMAT_H
#include "tokens.h"

#define DATA_MAGIC "HSTOKENS"
enum { DATA_VERSION = 1, DATA_ORDER = 0x01020304, DATA_SECTION = 64 };

typedef struct file_split {
    char name[DATA_NAME];
    uint32_t width, labelled;
    uint64_t n, ndocs, tokens_at, end_at, label_at, unknown, replaced, bytes;
} file_split;

typedef struct file_header {
    char magic[8];
    uint32_t version, order;
    uint64_t header_sum, sum;           /* data_sum of this header with header_sum 0; of all that follows it */
    uint64_t bytes;                     /* of the whole file */
    char name[DATA_NAME], digest[72];
    uint64_t nsplits, nvocab, count_at, word_end_at, words_at, words_bytes, sorted_at, recipe_at, recipe_bytes;
    file_split split[DATA_SPLITS];
} __attribute__((aligned(DATA_SECTION))) file_header;

/* A sum that any change of a byte alters; not one that withstands an adversary. */
uint64_t data_sum(const void *, size_t bytes);
#endif
