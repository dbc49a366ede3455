/* bleu_tokens.c - a line of text into words, as mteval-v13a and its international form do it.
 *
 * The tokenisers are a few substitutions over Unicode code points, left to right and not overlapping, which PCRE2 does;
 * words are what Unicode white space separates, as Python's str.split() sees it. */
#include "bleu_tokens.h"
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unistr.h>

typedef struct rule { const char *pattern, *with; } rule;

static const rule V13A[] = {
    { "([\\{-\\~\\[-\\` -\\&\\(-\\+\\:-\\@\\/])", " $1 " },     /* all of ASCII's signs but ' , - . */
    { "([^0-9])([\\.,])", "$1 $2 " },                           /* period and comma, unless a digit stands before */
    { "([\\.,])([^0-9])", " $1 $2" },                           /* ... or behind */
    { "([0-9])(-)", "$1 $2 " },                                 /* a dash after a digit */
    { NULL, NULL } };
static const rule INTL[] = {
    { "(\\P{N})(\\p{P})", "$1 $2 " },
    { "(\\p{P})(\\P{N})", " $1 $2" },
    { "(\\p{S})", " $1 " },
    { NULL, NULL } };

int bleu_rules_init(bleu_rules *r, bleu_tokeniser which)
{
    const rule *rules = which == BLEU_13A ? V13A : INTL;
    *r = (bleu_rules){ .tokeniser = which };
    for (; which != BLEU_NONE && rules[r->n].pattern; r->n++) {
        int code;
        PCRE2_SIZE at;
        r->with[r->n] = rules[r->n].with;
        r->pattern[r->n] = pcre2_compile((PCRE2_SPTR)rules[r->n].pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_NO_UTF_CHECK, &code, &at, NULL);
        if (!r->pattern[r->n]) return -1;
        pcre2_jit_compile(r->pattern[r->n], PCRE2_JIT_COMPLETE);    /* without it, it is only slower */
    }
    return 0;
}

void bleu_rules_release(bleu_rules *r)
{
    for (int i = 0; i < BLEU_MAX_RULES; i++) pcre2_code_free(r->pattern[i]);
}

/* Bytes of the white space that p begins with, 0: none.  Exactly what Python's str.isspace() holds for such. */
static size_t space(const char *p)
{
    ucs4_t c;
    int n = u8_strmbtouc(&c, (const uint8_t *)p);
    if (n <= 0) return 0;
    int is = (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
             c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
    return is ? (size_t)n : 0;
}

/* Words of text with one space between them, in place. */
static void squeeze(char *text)
{
    char *out = text;
    int gap = 0;
    for (const char *p = text; *p;) {
        size_t n = space(p);
        if (n) {
            gap = 1, p += n;
            continue;
        }
        if (gap && out > text) *out++ = ' ';
        gap = 0;
        *out++ = *p++;                  /* a byte inside of a character never looks like the beginning of another */
        while (((unsigned char)*p & 0xc0) == 0x80) *out++ = *p++;
    }
    *out = '\0';
}

/* Cuts the white space at the end. */
static void strip_end(char *text)
{
    char *end = text;
    for (char *p = text; *p;) {
        size_t n = space(p);
        p += n ? n : (size_t)u8_strmblen((const uint8_t *)p);
        if (!n) end = p;
    }
    *end = '\0';
}

/* Every `from` becomes `to`, which is not longer, in place. */
static void replace(char *text, const char *from, const char *to)
{
    size_t nfrom = strlen(from), nto = strlen(to);
    char *out = text;
    for (const char *p = text; *p;) {
        if (!strncmp(p, from, nfrom)) {
            memcpy(out, to, nto);
            out += nto, p += nfrom;
        } else {
            *out++ = *p++;
        }
    }
    *out = '\0';
}

/* A copy with a space on both sides: the substitutions want a character beside each sign. */
static char *padded(const char *text)
{
    size_t n = strlen(text);
    char *out = malloc(n + 3);
    if (!out) return NULL;
    out[0] = ' ';
    memcpy(out + 1, text, n);
    memcpy(out + n + 1, " ", 2);
    return out;
}

/* The text after one substitution; frees the one before.  NULL: out of memory. */
static char *substitute(pcre2_code *pattern, const char *with, char *text)
{
    size_t n = strlen(text), room = 3 * n + 16;         /* a sign becomes three characters at most */
    char *out = malloc(room);
    PCRE2_SIZE length = room;
    int rc = out ? pcre2_substitute(pattern, (PCRE2_SPTR)text, n, 0, PCRE2_SUBSTITUTE_GLOBAL | PCRE2_NO_UTF_CHECK, NULL, NULL,
                                    (PCRE2_SPTR)with, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &length) : -1;
    free(text);
    if (rc >= 0) return out;
    free(out);
    return NULL;
}

/* What both families do before and after their substitutions differs: 13a knows entities and line ends. */
static char *prepare(const bleu_rules *r, char *text)
{
    if (r->tokeniser != BLEU_13A) return text;
    static const char *const entity[][2] = { { "&quot;", "\"" }, { "&amp;", "&" }, { "&lt;", "<" }, { "&gt;", ">" } };
    replace(text, "<skipped>", "");
    replace(text, "-\n", "");
    replace(text, "\n", " ");
    for (size_t i = 0; i < sizeof entity / sizeof *entity; i++) replace(text, entity[i][0], entity[i][1]);
    char *wide = padded(text);
    free(text);
    return wide;
}

char *bleu_words(const bleu_rules *r, int lowercase, const char *line)
{
    if (u8_check((const uint8_t *)line, strlen(line))) return NULL;
    size_t n;
    char *text = lowercase ? (char *)u8_tolower((const uint8_t *)line, strlen(line) + 1, NULL, NULL, NULL, &n) : strdup(line);
    if (!text) return NULL;
    strip_end(text);
    text = prepare(r, text);
    for (int i = 0; text && i < r->n; i++) text = substitute(r->pattern[i], r->with[i], text);
    if (text) squeeze(text);
    return text;
}
