/* listops.c - see listops.h. */
#include "listops.h"
#include <stdlib.h>

/* ---- drawing ------------------------------------------------------------------------------------------------------------ */

/* An expression at this depth: writes at most `room` tokens, at least 1, and gives how many there are, more than room when it has
 * not ended by then. */
static int32_t grow(const listops *l, words *w, int32_t depth, int32_t *token, int32_t room)
{
    const uint32_t quarter = 1u << 30;
    if (depth >= l->depth || words_next(w) >= quarter) {
        *token = LISTOPS_DIGIT + (int32_t)words_below(w, 10);
        return 1;
    }
    int32_t n = 1, left = 2 + (int32_t)words_below(w, (uint32_t)l->arguments - 1);
    *token = LISTOPS_MIN + (int32_t)words_below(w, 4);
    while (left-- > 0 && n < room) n += grow(l, w, depth + 1, token + n, room - n);
    if (n < room) token[n] = LISTOPS_CLOSE;
    return n + 1;
}

/* The same from the top: how many tokens, 0 when that are too few or too many. */
static int32_t attempt(const listops *l, words *w, int32_t *token)
{
    const int32_t n = grow(l, w, 1, token, l->fewer_than - 1);
    return n > l->more_than && n < l->fewer_than ? n : 0;
}

int32_t listops_draw(const listops *l, words *w, int32_t *token)
{
    int32_t n;
    while ((n = attempt(l, w, token)) == 0) { }
    return n;
}

const char *listops_refusal(const listops *l)
{
    enum { ATTEMPTS = 100000 };
    words w = { .seed = 1 };
    int found = 0;
    if (l->more_than + 1 >= l->fewer_than) return "max_length must be more than min_length by two at least";
    int32_t *token = malloc((size_t)l->fewer_than * sizeof *token);
    for (int i = 0; token && i < ATTEMPTS && !found; i++) found = attempt(l, &w, token);
    free(token);
    if (!token) return "no memory for an expression";
    return found ? NULL : "of 100,000 expressions of this depth and so many arguments none has a length between min_length and max_length";
}

/* ---- the value ------------------------------------------------------------------------------------------------------------ */

typedef struct reading { const int32_t *token; int32_t at, n; } reading;

/* What an operator makes of `total` arguments, of which count[d] are the digit d. */
static int32_t apply(int32_t operator, const int32_t *count, int32_t total, int32_t first, int32_t last)
{
    int32_t least = 9, most = 0, sum = 0, low = -1, high = -1;
    for (int32_t d = 0, seen = 0; d < 10; d++) {
        if (d < least && count[d]) least = d;
        if (count[d]) most = d;
        sum += d * count[d];
        seen += count[d];
        if (low < 0 && seen > (total - 1) / 2) low = d;
        if (high < 0 && seen > total / 2) high = d;
    }
    switch (operator) {
    case LISTOPS_MIN: return least;
    case LISTOPS_MAX: return most;
    case LISTOPS_MED: return (low + high) / 2;
    case LISTOPS_SM: return sum % 10;
    case LISTOPS_FIRST: return first;
    default: return last;
    }
}

/* The value of the expression that begins here, -1: none does. */
static int32_t value(reading *r)
{
    int32_t count[10] = { 0 }, total = 0, first = -1, last = -1;
    const int32_t t = r->at < r->n ? r->token[r->at++] : LISTOPS_CLOSE;
    if (t >= LISTOPS_DIGIT) return t < LISTOPS_TOKENS ? t - LISTOPS_DIGIT : -1;
    if (t < LISTOPS_MIN || t == LISTOPS_CLOSE) return -1;
    for (; r->at < r->n && r->token[r->at] != LISTOPS_CLOSE; total++) {
        if ((last = value(r)) < 0) return -1;
        if (total == 0) first = last;
        count[last]++;
    }
    return total > 0 && r->at++ < r->n ? apply(t, count, total, first, last) : -1;
}

int32_t listops_value(const int32_t *token, int32_t n)
{
    reading r = { token, 0, n };
    const int32_t v = value(&r);
    return r.at == n ? v : -1;
}
