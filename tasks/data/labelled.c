/* labelled.c - see labelled.h. */
#include "labelled.h"
#include <stdio.h>
#include <string.h>

/* Where the first document of example i of a split stands. */
static int64_t document(const labelled *l, int split, int64_t i) { return (l->from[split] + i) * l->texts; }

/* Finds the split of that name, if it is there, and looks at its labels; 0, or -1 with a sentence. */
static int find(labelled *l, int split, const char *name, char *why, size_t nwhy)
{
    const data_split *s = l->split[split] = data_find_split(&l->set, name);
    if (!s) return 0;
    if (!s->label || s->ndocs % l->texts) {
        if (!s->label) snprintf(why, nwhy, "the documents of split '%s' of %s have no labels", name, l->set.name);
        else snprintf(why, nwhy, "split '%s' of %s has %lld documents, expected %d for each example", name, l->set.name, (long long)s->ndocs,
                      l->texts);
        return -1;
    }
    l->examples[split] = s->ndocs / l->texts;
    for (int64_t i = 0; i < s->ndocs; i++) {
        if (s->label[i] < 0 || (int64_t)s->end[i] == data_doc_begin(s, i))
            return snprintf(why, nwhy, "document %lld of split '%s' of %s is empty or has no label", (long long)i + 1, name, l->set.name), -1;
        if (s->label[i] >= l->classes) l->classes = s->label[i] + 1;
    }
    return 0;
}

/* Takes the last examples of train for valid; 0, or -1 with a sentence. */
static int hold_out(labelled *l, int64_t held_out, char *why, size_t nwhy)
{
    if (!l->split[0]) return 0;
    if (held_out < 1 || held_out >= l->examples[0]) {
        snprintf(why, nwhy, "%lld of %lld examples to train on cannot be held out", (long long)held_out, (long long)l->examples[0]);
        return -1;
    }
    l->split[1] = l->split[0];
    l->from[1] = l->examples[0] -= held_out;
    l->examples[1] = held_out;
    return 0;
}

int labelled_open(labelled *l, const char *set, const char *const name[LABELLED_SPLITS], int64_t held_out, int32_t texts, int needed,
                  char *why, size_t nwhy)
{
    *l = (labelled){ .texts = texts };
    if (data_open(set, &l->set, why, nwhy)) return -1;
    for (int i = 0; i < LABELLED_SPLITS; i++)
        if (name[i][0] && find(l, i, name[i], why, nwhy)) return -1;
    if (!name[1][0] && hold_out(l, held_out, why, nwhy)) return -1;
    for (int i = 0; needed && i < LABELLED_SPLITS; i++)
        if (!l->split[i]) return snprintf(why, nwhy, "the data set %s has no split '%s'", l->set.name, name[i]), -1;
    return 0;
}

void labelled_release(labelled *l) { data_close(&l->set); }

int32_t labelled_text(const labelled *l, int split, int64_t i, int32_t k, int32_t *token, int32_t room, int64_t *whole)
{
    const data_split *s = l->split[split];
    const int64_t doc = document(l, split, i) + k, begin = data_doc_begin(s, doc);
    *whole = (int64_t)s->end[doc] - begin;
    const int32_t n = (int32_t)(*whole < room ? *whole : room);
    data_copy(s, begin, n, token);
    return n;
}

int32_t labelled_label(const labelled *l, int split, int64_t i) { return l->split[split]->label[document(l, split, i)]; }
