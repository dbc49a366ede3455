/* subword_nmt.c - see subword_nmt.h. */
#define _GNU_SOURCE
#include "subword_nmt.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

#define END_OF_WORD "</w>"
enum { NO_RANK = INT32_MAX };

typedef struct merge { char *pair; int32_t rank; } merge;   /* "left right" */
struct subword_nmt {
    merge *merge;                       /* sorted by pair */
    int32_t n;
    int apart;                          /* version 0.1: the end of a word is a symbol of its own */
};

typedef struct symbol { const char *at; int length; } symbol;   /* neighbours in a word lie side by side in its text */

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int by_pair(const void *a, const void *b) { return strcmp(((const merge *)a)->pair, ((const merge *)b)->pair); }

/* Of equal pairs the first learned comes first. */
static int by_pair_and_rank(const void *a, const void *b)
{
    int order = by_pair(a, b);
    return order ? order : ((const merge *)a)->rank - ((const merge *)b)->rank;
}

/* Whether a line is two symbols with one space between. */
static int is_merge(const char *line)
{
    const char *space = strchr(line, ' ');
    return space && space > line && space[1] && !strchr(space + 1, ' ') && !u8_check((const uint8_t *)line, strlen(line));
}

/* Takes one merge.  -1: out of memory. */
static int add(subword_nmt *s, int32_t *room, const char *line)
{
    if (s->n == *room) {
        int32_t more = *room ? 2 * *room : 4096;
        merge *bigger = realloc(s->merge, (size_t)more * sizeof *bigger);
        if (!bigger) return -1;
        s->merge = bigger, *room = more;
    }
    s->merge[s->n] = (merge){ strdup(line), s->n };
    return s->merge[s->n].pair ? (s->n++, 0) : -1;
}

/* Reads all lines.  0, or the number of the bad line; -1: out of memory. */
static long read_codes(subword_nmt *s, FILE *f)
{
    char *line = NULL;
    size_t size = 0;
    int32_t room = 0;
    long number = 0, bad = 0;
    for (ssize_t n; !bad && (n = getline(&line, &size, f)) >= 0;) {
        number++;
        line[strcspn(line, "\r\n")] = '\0';
        if (number == 1) s->apart = !strcmp(line, "#version: 0.1"), bad = s->apart || !strcmp(line, "#version: 0.2") ? 0 : 1;
        else if (is_merge(line)) bad = add(s, &room, line);
        else bad = number;
    }
    free(line);
    return bad ? bad : number ? 0 : 1;
}

/* Sorts the merges and keeps of equal pairs the first learned. */
static void index_merges(subword_nmt *s)
{
    int32_t kept = 0;
    if (s->n) qsort(s->merge, (size_t)s->n, sizeof *s->merge, by_pair_and_rank);
    for (int32_t i = 0; i < s->n; i++) {
        if (kept && !by_pair(&s->merge[kept - 1], &s->merge[i])) free(s->merge[i].pair);
        else s->merge[kept++] = s->merge[i];
    }
    s->n = kept;
}

subword_nmt *subword_nmt_open(const char *path, char *why, size_t nwhy)
{
    FILE *f = fopen(path, "r");
    subword_nmt *s = f ? calloc(1, sizeof *s) : NULL;
    long bad = s ? read_codes(s, f) : -1;
    if (!f) snprintf(why, nwhy, "%s: %s", path, strerror(errno));
    else if (bad < 0) snprintf(why, nwhy, "%s: out of memory", path);
    else if (bad == 1) snprintf(why, nwhy, "%s:1: wanted #version: 0.1 or 0.2", path);
    else if (bad) snprintf(why, nwhy, "%s:%ld: wanted two symbols with one space between", path, bad);
    if (f) fclose(f);
    if (bad == 0) return index_merges(s), s;
    subword_nmt_close(s);
    return NULL;
}

void subword_nmt_close(subword_nmt *s)
{
    if (!s) return;
    for (int32_t i = 0; i < s->n; i++) free(s->merge[i].pair);
    free(s->merge), free(s);
}

/* ---- a word ------------------------------------------------------------------------------------------------------------ */

/* When the pair was learned; room: for its text. */
static int32_t rank(const subword_nmt *s, symbol a, symbol b, char *room)
{
    memcpy(room, a.at, (size_t)a.length);
    room[a.length] = ' ';
    memcpy(room + a.length + 1, b.at, (size_t)b.length);
    room[a.length + 1 + b.length] = '\0';
    const merge *m = s->n ? bsearch(&(merge){ room, 0 }, s->merge, (size_t)s->n, sizeof *m, by_pair) : NULL;
    return m ? m->rank : NO_RANK;
}

static int same(symbol a, symbol b) { return a.length == b.length && !memcmp(a.at, b.at, (size_t)a.length); }

/* Carries out the merge that was learned first, everywhere: symbols are left. */
static int merge_once(const subword_nmt *s, symbol *x, int n, char *room)
{
    int32_t best = NO_RANK, at = -1;
    for (int i = 0; i + 1 < n; i++) {
        int32_t r = rank(s, x[i], x[i + 1], room);
        if (r < best) best = r, at = i;
    }
    if (at < 0) return n;
    symbol a = x[at], b = x[at + 1];
    int kept = 0;
    for (int i = 0; i < n; i++) {
        x[kept] = x[i];
        if (i + 1 < n && same(x[i], a) && same(x[i + 1], b)) x[kept].length += x[++i].length;
        kept++;
    }
    return kept;
}

/* The symbols of a word that text holds with END_OF_WORD behind it. */
static int characters(const subword_nmt *s, const char *text, int length, symbol *x)
{
    int n = 0;
    for (int at = 0; at < length; n++) {
        int bytes = u8_mblen((const uint8_t *)text + at, (size_t)(length - at));
        x[n] = (symbol){ text + at, bytes };
        at += bytes;
    }
    if (s->apart) x[n++] = (symbol){ text + length, (int)strlen(END_OF_WORD) };
    else x[n - 1].length += (int)strlen(END_OF_WORD);
    return n;
}

/* Writes the units of a word to out, whose end is returned.  text: length bytes and END_OF_WORD. */
static char *put_word(const subword_nmt *s, const char *text, int length, symbol *x, char *room, char *out)
{
    const char *end = text + length;
    int n = characters(s, text, length, x);
    for (int before = n + 1; n > 1 && n < before;) {
        before = n;
        n = merge_once(s, x, n, room);
    }
    for (int i = 0; i < n && x[i].at < end; i++) {
        if (x[i].at > text) out = stpcpy(out, "@@ ");
        int bytes = x[i].at + x[i].length > end ? (int)(end - x[i].at) : x[i].length;
        out = mempcpy(out, x[i].at, (size_t)bytes);
    }
    return out;
}

char *subword_nmt_split(const subword_nmt *s, const char *line)
{
    size_t n = strlen(line);
    char *out = malloc(4 * n + 1), *word = malloc(n + 8), *room = malloc(n + 16), *end = out;
    symbol *x = malloc((n + 2) * sizeof *x);
    for (const char *p = line; out && word && room && x && *(p += strspn(p, " "));) {
        size_t length = strcspn(p, " ");
        strcpy(mempcpy(word, p, length), END_OF_WORD);
        if (end > out) *end++ = ' ';
        end = put_word(s, word, (int)length, x, room, end);
        p += length;
    }
    int complete = out && word && room && x;
    free(word), free(room), free(x);
    if (complete) return *end = '\0', out;
    free(out);
    return NULL;
}

char *subword_nmt_join(const char *units)
{
    char *out = malloc(strlen(units) + 1), *end = out;
    for (const char *p = units; out && *p;) {
        if (!strncmp(p, "@@ ", 3)) p += 3;
        else if (!strcmp(p, "@@")) p += 2;
        else *end++ = *p++;
    }
    if (out) *end = '\0';
    return out;
}
