/* duplication.h - 0 w 0 w: the copy task of Reformer (Kitaev et al. 2020, arXiv:2001.04451). */
#ifndef TASKS_DATA_DUPLICATION_H
#define TASKS_DATA_DUPLICATION_H
#include "words.h"
#ifdef __cplusplus
extern "C" {
#endif
/* token [length], length even and at least 4: twice a 0 and the word w, whose length / 2 - 1 symbols are uniform in
 * 1..symbols.  A language model knows the second w by then: token at[i] foretells target[i], i < length / 2 - 1. */
void duplication_draw(words *, int32_t length, int32_t symbols, int32_t *token, int32_t *at, int32_t *target);
#ifdef __cplusplus
}
#endif
#endif
