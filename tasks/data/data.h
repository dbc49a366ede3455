/* data.h - the data sets that harness knows, and how their files become prepared sets (tokens.h).
 *
 *   registry.c   what there is: source, size, licence, digest, files
 *   get.c        fetched, verified, unpacked below the cache
 *   prepare.c    files found, digests taken, read once under a lock, written by writer.c
 *   read_*.c     one reader per kind of file
 *   generate.c   corpora made from a seed, for tests and for trying things out */
#ifndef DATA_DATA_H
#define DATA_DATA_H
#include "tokens.h"

typedef enum data_kind { DATA_WORDS, DATA_BYTES, DATA_PROTEIN, DATA_PARALLEL, DATA_MUSIC, DATA_IMAGES, DATA_LABELLED,
                         DATA_LISTOPS, DATA_MATCHED, DATA_AUDIO, DATA_KINDS } data_kind;
extern const char *const data_kind_names[DATA_KINDS];

typedef struct data_download {          /* a row of a table that ends with url == NULL */
    const char *url;
    int64_t bytes;                      /* 0: not published */
    const char *sha256;                 /* NULL: not published, then the digest of the first copy is kept */
    int plain;                          /* a file of the set by itself, not an archive */
} data_download;

enum { DATA_OPTIONAL = 1 };             /* flag of a file: the set is complete without it */
typedef struct data_file {              /* a row of a table that ends with split == NULL */
    const char *split;
    const char *names;                  /* "a.txt|b/?*.txt": the first pattern that the folder has; .gz .xz .zst may follow */
    const char *other;                  /* PARALLEL: the other language (NULL: tab-separated); IMAGES: the labels */
    int64_t from, to;                   /* BYTES: this range of bytes; PROTEIN: names whose hash falls in this range of
                                           1000; to 0: all */
    int32_t label;                      /* LABELLED: of every file of this row, plus 1; 0: the file says */
    int32_t flags;
} data_file;

typedef struct data_set {               /* a row of a table that ends with name == NULL */
    const char *name, *about, *licence, *home;
    data_kind kind;
    uint64_t min_count;                 /* WORDS: rarer ones are <unk> */
    const char *languages;              /* PARALLEL: "en,de" */
    const data_download *downloads;     /* NULL: there is no archive to fetch, a local copy is needed */
    const data_file *files;
    int form_feeds;                     /* WORDS, BYTES: a form feed begins a document */
    /* A corpus that is made, not fetched: writes its files into the folder.  0, or -1 with a sentence. */
    int (*generate)(const char *folder, char *why, size_t nwhy);
    int side;                           /* IMAGES: pixels of a row and of a column; 0: 32 */
} data_set;

extern const data_set data_sets[];
const data_set *data_set_find(const char *name);    /* NULL: there is none of that name */

/* ---- get ------------------------------------------------------------------------------------------------------- */
typedef struct data_get_args {
    const char *mirror;                 /* where the files of the downloads lie instead, or NULL */
    const char *from;                   /* a folder that has them, or NULL */
    void (*progress)(void *ctx, int64_t at, int64_t of);
    void (*say)(void *ctx, const char *sentence);   /* what is being done */
    void *ctx;
} data_get_args;
/* Fetches what is not here yet, verifies, unpacks into data_set_folder.  0, or -1 with a sentence. */
int data_get(const data_set *, const data_get_args *, char *why, size_t nwhy);
/* Every archive at hand against its published digest, or against that of its first copy; say() tells each. */
int data_verify_downloads(const data_set *, const data_get_args *, char *why, size_t nwhy);
int data_set_folder(const data_set *, char *out, size_t n);     /* where the unpacked set lies */

/* ---- prepare ------------------------------------------------------------------------------------------------------- */
enum { DATA_FROM = 8 };
typedef struct data_prepare_args {
    const char *from[DATA_FROM];        /* folders to look in; none: the unpacked set */
    int nfrom;
    int level;                          /* -1: the set's own; DATA_WORDS or DATA_BYTES for text */
    int64_t min_count, limit;           /* -1: the set's own; tokens (PARALLEL: pairs) of train at most, 0: all */
    void (*say)(void *ctx, const char *sentence);
    void *ctx;
} data_prepare_args;
typedef struct data_prepared {
    char path[4096];
    int reused;                         /* it was there already */
    double seconds;
    int64_t bytes;                      /* of text read, unpacked */
} data_prepared;
/* Prepares the set and makes it the one that data_open(name) opens.  0, or -1 with a sentence. */
int data_prepare(const data_set *, const data_prepare_args *, data_prepared *, char *why, size_t nwhy);

/* ---- generated corpora ------------------------------------------------------------------------------------------------ */
int data_generate_text(const char *folder, char *why, size_t nwhy);
int data_generate_proteins(const char *folder, char *why, size_t nwhy);
int data_generate_pairs(const char *folder, char *why, size_t nwhy);
int data_generate_matches(const char *folder, char *why, size_t nwhy);
#endif
