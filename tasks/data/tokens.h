/* tokens.h - prepared data sets, as tasks read them: memory-mapped tokens, their vocabulary, and ways of cutting them.
 *
 * A set is one file, made by `harness data prepare` and never changed: a header, a table of splits, and sections that
 * begin on multiples of 64 bytes.  data_open looks at all of it (a sum over every byte) and refuses what is truncated,
 * damaged or of another version, so that a task need not check anything: every token is below nvocab, documents
 * follow one another without a gap, and their ends are inside the split.
 *
 * The cuts are pure functions of their arguments: same cut on every machine, no state, no allocation. */
#ifndef DATA_TOKENS_H
#define DATA_TOKENS_H
#include <stddef.h>
#include <stdint.h>

enum { DATA_SPLITS = 24, DATA_NAME = 48 };  /* splits of a set; bytes of a name with its end */

typedef struct data_split {
    const char *name;                   /* "train", "valid", "test", "wikitext-test" ... */
    const void *tokens;                 /* n of them, width bytes each: uint8_t, uint16_t or uint32_t */
    int32_t width;
    int64_t n, ndocs;
    const uint64_t *end;                /* [ndocs] where each document ends; it begins where the one before ends */
    const int32_t *label;               /* [ndocs], or NULL: not labelled */
    int64_t unknown, replaced;          /* tokens that are <unk>; those of them that the text did not write so itself */
    int64_t bytes;                      /* of the text that the tokens stand for, line ends included: bits per byte */
} data_split;

typedef struct data_tokens {
    char name[DATA_NAME], digest[65];   /* the set, and the SHA-256 of the recipe: sources, reader and options */
    int32_t nsplits;
    data_split split[DATA_SPLITS];
    int64_t nvocab;
    const uint64_t *count;              /* [nvocab] occurrences in train */
    const uint64_t *word_end;           /* [nvocab] where each word ends in words */
    const char *words;
    const uint32_t *sorted;             /* [nvocab] ids in the order of strcmp */
    const char *recipe;                 /* what the file was made of, one fact a line; recipe_length bytes */
    size_t recipe_length;
    void *map;
    size_t size;
} data_tokens;

/* A set by name (the one that `prepare` made last, in the cache) or by path (with a slash).  0, or -1 with a sentence. */
int  data_open(const char *name, data_tokens *, char *why, size_t nwhy);
void data_close(data_tokens *);
const data_split *data_find_split(const data_tokens *, const char *name);   /* NULL: none of that name */

/* ---- vocabulary ---------------------------------------------------------------------------------------------- */
const char *data_word(const data_tokens *, int64_t id, size_t *length);     /* not terminated */
int64_t data_id(const data_tokens *, const char *word, size_t length);      /* -1: not in it */
/* Predicting by the frequencies of train alone: how often the commonest token is right, and exp(mean negative log
 * likelihood).  Tokens that train never showed count as once seen; `skip` (an id, or -1) is not predicted. */
typedef struct data_unigram { double accuracy, perplexity; int64_t n; } data_unigram;
data_unigram data_unigram_of(const data_tokens *, const data_split *, int64_t skip);

/* ---- cuts ------------------------------------------------------------------------------------------------------- */
/* Tokens at..at+n-1 of a split, widened. */
void data_copy(const data_split *, int64_t at, int64_t n, int32_t *out);
static inline int64_t data_doc_begin(const data_split *s, int64_t doc) { return doc ? (int64_t)s->end[doc - 1] : 0; }

/* Where i goes when 0..n-1 are put into a pseudo-random order, a one-to-one map: documents of an epoch, the draw being the
 * epoch. */
int64_t data_permuted(uint64_t seed, uint32_t draw, int64_t n, int64_t i);

/* `streams` contiguous streams of equal length, the remainder dropped: the batch of the language modelling papers. */
static inline int64_t data_stream_length(int64_t n, int64_t streams) { return n / streams; }
/* out [streams][n]: tokens at..at+n-1 of every stream. */
void data_streams(const data_split *, int64_t streams, int64_t at, int64_t n, int32_t *out);

/* Segments of `length` inputs over a stream of n tokens, each target being the token after its input: how many there
 * are, and the i-th.  keep_tail: a shorter last one counts. */
typedef struct data_cut { int64_t begin; int32_t length, score; } data_cut;     /* targets begin+1 .. begin+length; the last `score` of them count */
int64_t  data_segments(int64_t n, int32_t length, int keep_tail);
data_cut data_segment(int64_t n, int32_t length, int64_t i);

/* Evaluation windows of `length` inputs moved on by `stride`: the first counts in full, each later one only in its last
 * targets, those that no earlier window has scored.  Every one of the n - 1 targets is scored exactly once, the tail
 * included; stride 1 gives every target but the first `length` a context of exactly `length` tokens. */
int64_t  data_windows(int64_t n, int32_t length, int32_t stride);
data_cut data_window(int64_t n, int32_t length, int32_t stride, int64_t i);

/* The same text read from front to end by `streams` readers side by side, each its own stretch of equal length but for the last:
 * in how many turns of `length` targets, and reader b's part of turn i, of no length when it has done.  Every target is scored
 * exactly once, the tails included; of one reader the cuts are data_segment's with its tail. */
int64_t  data_turns(int64_t n, int32_t length, int32_t streams);
data_cut data_turn(int64_t n, int32_t length, int32_t streams, int32_t b, int64_t i);
/* Words of tokens from..to-1 of a text that was read as bytes, runs of other than white space; -1: it was not. */
int64_t  data_words_of(const data_tokens *, const data_split *, int64_t from, int64_t to);

/* Masked language modelling: each token is chosen with probability `rate`; a chosen one becomes `mask` (80 %), a token
 * drawn from first..last (10 %) or stays (10 %).  Never chosen: tokens outside first..last.  target[i] is the token to
 * predict where i was chosen and -1 elsewhere.  Element i of (seed, stream, draw) depends on nothing else. */
typedef struct data_masking { uint64_t seed; uint32_t stream, draw; double rate; int32_t mask, first, last; } data_masking;
void data_mask(const data_masking *, int64_t n, int32_t *x, int32_t *target);

/* ---- where things are ----------------------------------------------------------------------------------------------- */
/* $XDG_CACHE_HOME/harness or ~/.cache/harness, and below. */
int data_cache_path(char *out, size_t n, const char *below);
#endif
