/* words.h - the random words of one (seed, stream, draw), in order: for data that is drawn as it goes. */
#ifndef TASKS_DATA_WORDS_H
#define TASKS_DATA_WORDS_H
#include "../../kernels/philox.h"

typedef struct words { uint64_t seed, i; uint32_t stream, draw; philox4 block; } words;     /* i: words taken so far */

/* The next 32 random bits. */
static inline uint32_t words_next(words *w)
{
    if ((w->i & 3) == 0) w->block = philox4x32_10(w->seed, w->i >> 2, w->stream, w->draw);
    return w->block.v[w->i++ & 3];
}

/* The next uniform integer in 0..n-1. */
static inline uint32_t words_below(words *w, uint32_t n) { return philox_below(words_next(w), n); }
#endif
