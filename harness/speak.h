/* speak.h - the scores of what comes next, word after word, from a kept model that was trained to say it.
 *
 * By states: the variants' decode states go on with each word (harness/nn/decode.c), a sequence has the words so far.  By windows:
 * the last `context` words are read again for each word; that is what is left to variants without decode states, to positions that
 * are counted from the end, and to sequences longer than any that a model with positions has seen. */
#ifndef HS_SPEAK_H
#define HS_SPEAK_H
#include "kept.h"

enum hs_speak_how { HS_SPEAK_ANY, HS_SPEAK_STATES, HS_SPEAK_WINDOWS };
typedef struct hs_speaker {
    hs_kept *kept;
    enum hs_speak_how how;
    int64_t rows, length, at;           /* sequences side by side; words of each at most; so far */
    nn_graph *graph;
    nn_id tokens, scores;
    int32_t *said, *shown;              /* [rows,length] all words; what the graph is shown next */
    void *raw;                          /* the graph's scores on the host */
    float *score;                       /* [rows,vocabulary] */
} hs_speaker;
/* 0, or -1 with a sentence; to be released either way. */
int  hs_speaker_init(hs_speaker *, hs_kept *, int64_t rows, int64_t length, enum hs_speak_how, char *why, size_t nwhy);
/* Goes on by one word a row; then `score` is of what follows.  0, or -1: the model failed, or the sequences are full. */
int  hs_speaker_take(hs_speaker *, const int32_t *word);
void hs_speaker_release(hs_speaker *);
#endif
