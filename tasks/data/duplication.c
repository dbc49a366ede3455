/* duplication.c - see duplication.h. */
#include "duplication.h"

void duplication_draw(words *w, int32_t length, int32_t symbols, int32_t *token, int32_t *at, int32_t *target)
{
    int32_t half = length / 2;
    token[0] = token[half] = 0;
    for (int32_t i = 0; i < half - 1; i++) {
        token[1 + i] = token[half + 1 + i] = target[i] = 1 + (int32_t)words_below(w, (uint32_t)symbols);
        at[i] = half + i;
    }
}
