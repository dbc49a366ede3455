/* writer.h - a prepared set under construction.
 *
 * Tokens are appended split by split to a scratch file without a name; finish() gives words the ids that the whole
 * training set decides, writes the set beside its place and renames it there.  Whatever goes wrong, nothing half made
 * is ever seen under the set's name. */
#ifndef DATA_WRITER_H
#define DATA_WRITER_H
#include "format.h"
#include "vocabulary.h"
#include <stdio.h>

typedef struct writer_split {
    char name[DATA_NAME];
    uint64_t n, ndocs, room, bytes, *end;
    int32_t *label;                     /* NULL until a document has one */
    int shuffled;                       /* its documents are written in a pseudo-random order, the same every time */
} writer_split;

typedef struct data_writer {
    const char *path;                   /* where the set will be */
    FILE *scratch;
    int width;                          /* of a token in it: 1, or 4 for words whose id is not known yet */
    int failed;                         /* errno of the first write that failed */
    int nsplits;
    writer_split split[DATA_SPLITS];
} data_writer;

int  data_writer_init(data_writer *, const char *path, int width, char *why, size_t nwhy);
void data_writer_release(data_writer *);
int  data_writer_split(data_writer *, const char *name, int shuffled);      /* begins one; -1: there are DATA_SPLITS already */
/* Tokens of the open split; errors are kept for finish. */
void data_writer_put(data_writer *, const void *tokens, size_t n);
void data_writer_text(data_writer *, uint64_t bytes);       /* that the tokens stand for */
void data_writer_doc(data_writer *, int32_t label);         /* ends a document; label -1: none */
/* map[nmap]: ids of the scratch file into ids of the vocabulary (width 4; one that is not below nmap is a word that train
 * has not); NULL: they are.  0, or -1 with a sentence. */
typedef struct data_facts { const char *name, *digest, *recipe; const data_vocab *vocab; const uint32_t *map; size_t nmap; } data_facts;
int  data_writer_finish(data_writer *, const data_facts *, char *why, size_t nwhy);
#endif
