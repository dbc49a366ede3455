/* labelled.h - the three splits of a prepared set whose documents have labels, as tasks of classification draw from them. */
#ifndef TASKS_DATA_LABELLED_H
#define TASKS_DATA_LABELLED_H
#include "tokens.h"
#ifdef __cplusplus
extern "C" {
#endif
enum { LABELLED_SPLITS = 3 };           /* train, valid, test */

typedef struct labelled {
    data_tokens set;
    const data_split *split[LABELLED_SPLITS];   /* NULL: the set has none of that name */
    int64_t from[LABELLED_SPLITS], examples[LABELLED_SPLITS];   /* the first example, and how many */
    int32_t texts, classes;             /* documents of an example; one more than the largest label */
} labelled;

/* Opens a set whose examples are so many documents each.  name[i]: of the splits; valid may be "": then it is the last `held_out`
 * examples of train, which are not trained on.  needed: whether all three must be there.  0, or -1 with a sentence; release it
 * in either case. */
int  labelled_open(labelled *, const char *set, const char *const name[LABELLED_SPLITS], int64_t held_out, int32_t texts, int needed,
                   char *why, size_t nwhy);
void labelled_release(labelled *);
/* Text k of example i: its first tokens, at most `room`, and how many; *whole: how many it has. */
int32_t labelled_text(const labelled *, int split, int64_t i, int32_t k, int32_t *token, int32_t room, int64_t *whole);
int32_t labelled_label(const labelled *, int split, int64_t i);
#ifdef __cplusplus
}
#endif
#endif
