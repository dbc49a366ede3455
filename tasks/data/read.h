/* read.h - what the readers of tasks/data share: one call reads one file into the open split of a writer. */
#ifndef DATA_READ_H
#define DATA_READ_H
#include "data.h"
#include "source.h"
#include "writer.h"

typedef struct data_notes {             /* what was read as something else than it was: told after preparing */
    int64_t crlf, empty_pairs, odd_letters, stops;
} data_notes;

typedef struct data_reading {
    const data_set *set;
    data_writer *out;
    data_vocab *vocab;                  /* WORDS: by first occurrence, else the kind's own */
    int learn;                          /* this is train: new words join, occurrences are counted */
    int64_t left;                       /* tokens that the split may still take; INT64_MAX: all */
    int side;                           /* PARALLEL: 0 or 1, the language wanted */
    const char *split;                  /* MUSIC: the key */
    uint32_t rate;                      /* AUDIO: samples a second so far, 0: none was read */
    data_notes notes;
    int64_t bytes;                      /* unpacked, read by all calls so far */
    char *why;
    size_t nwhy;
} data_reading;

/* path: a file that fits file->names; other: one that fits file->other, or NULL.  0, or -1 with a sentence. */
typedef int data_read(data_reading *, const data_file *file, const char *path, const char *other);
data_read data_read_words, data_read_bytes, data_read_proteins, data_read_parallel, data_read_music, data_read_images,
          data_read_labelled, data_read_listops, data_read_matched, data_read_audio;

/* The vocabularies that are the same whatever is read. */
int data_protein_vocab(data_vocab *);   /* <eos>, 20 amino acids, B O U X Z, <mask> */
int data_music_vocab(data_vocab *);     /* 0..127, rest */
int data_listops_vocab(data_vocab *);

/* A sample in -1..1 as a byte of mu-law. */
unsigned char data_mu_law(double x);

/* Bytes into the open split, counted where the split is train. */
void data_put_bytes(data_reading *, const void *bytes, size_t n);
#endif
