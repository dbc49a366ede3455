/* mqar.c - see mqar.h. */
#include "mqar.h"
#include <math.h>
#include <stdlib.h>

const char *mqar_refusal(const mqar *m)
{
    if (m->length % 2) return "length must be even: slots are two tokens wide";
    if (m->length < 4 * (int64_t)m->pairs) return "length must be at least 4 pairs: every key needs a slot behind the pairs";
    if (m->vocabulary % 2 || m->vocabulary / 2 - 1 < m->pairs) return "vocabulary must be even, with a key for every pair in its half";
    return NULL;
}

int mqar_init(mqar *m)
{
    m->slots = m->length / 2 - m->pairs;
    m->wait = malloc((size_t)m->slots * sizeof *m->wait);
    for (int32_t g = 0; m->wait && g < m->slots; g++) m->wait[g] = pow(1 + g, 1 - m->power);
    return m->wait ? 0 : -1;
}

void mqar_release(mqar *m)
{
    free(m->wait);
    m->wait = NULL;
}

/* x[n]: different numbers of first..first + range - 1, in random order.  n is small against range. */
static void draw_distinct(words *w, int32_t n, int32_t first, int32_t range, int32_t stride, int32_t *x)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t j, drawn;
        do {
            drawn = first + (int32_t)words_below(w, (uint32_t)range);
            for (j = 0; j < i && x[j * stride] != drawn; j++) {}
        } while (j < i);
        x[i * stride] = drawn;
    }
}

/* For qsort: who rings first; two at once in the order of slots. */
static int by_time(const void *a, const void *b)
{
    const mqar_clock *x = a, *y = b;
    return x->time != y->time ? (x->time > y->time) - (x->time < y->time) : x->slot - y->slot;
}

void mqar_draw(const mqar *m, words *w, mqar_clock *clock, int32_t *token, int32_t *at, int32_t *target)
{
    int32_t half = m->vocabulary / 2, D = m->pairs;
    draw_distinct(w, D, 1, half - 1, 2, token);
    draw_distinct(w, D, half, half, 2, token + 1);
    for (int32_t i = 2 * D; i < m->length; i++)
        token[i] = m->random_filler ? (int32_t)words_below(w, (uint32_t)m->vocabulary) : 0;
    for (int32_t g = 0; g < m->slots; g++)
        clock[g] = (mqar_clock){ -log((words_next(w) + 0.5) * 0x1p-32) * m->wait[g], g };
    qsort(clock, (size_t)m->slots, sizeof *clock, by_time);
    for (int32_t i = 0; i < D; i++) {
        at[i] = 2 * (D + clock[i].slot);
        token[at[i]] = token[2 * i];
        target[i] = token[2 * i + 1];
    }
}
