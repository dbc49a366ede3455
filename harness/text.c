/* text.c - see text.h. */
#include "text.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void hs_text_init(hs_text *t, const data_tokens *data)
{
    static const char letters[] = "kind protein", bytes[] = "kind bytes";
    *t = (hs_text){ data, HS_WORDS, data_id(data, "<eos>", 5) };
    for (const char *line = data->recipe, *end = line + data->recipe_length; line && line < end;) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        size_t n = next ? (size_t)(next - line) : (size_t)(end - line);
        if (n >= sizeof letters - 1 && !memcmp(line, letters, sizeof letters - 1)) t->spelling = HS_LETTERS;
        if (n >= sizeof bytes - 1 && !memcmp(line, bytes, sizeof bytes - 1)) t->spelling = HS_BYTES;
        line = next ? next + 1 : NULL;
    }
}

/* How long the word at p is: up to white space; a letter; <like this>; a byte. */
static size_t word_length(const hs_text *t, const char *p)
{
    const char *close = strchr(p, '>');
    if (t->spelling == HS_WORDS) return strcspn(p, " \t\r\n\v\f");
    if (t->spelling == HS_LETTERS && *p == '<' && close) return (size_t)(close - p) + 1;
    return 1;
}

int32_t *hs_text_tokens(const hs_text *t, const char *text, int64_t *n, char *why, size_t nwhy)
{
    int32_t *token = malloc((strlen(text) + 2) * sizeof *token);
    *n = 0;
    if (!token) return snprintf(why, nwhy, "out of memory"), NULL;
    for (const char *p = text; *p;) {
        if (t->spelling != HS_BYTES && isspace((unsigned char)*p)) {
            if (*p++ == '\n' && t->eos >= 0) token[(*n)++] = (int32_t)t->eos;
            continue;
        }
        size_t length = word_length(t, p);
        char upper = (char)toupper((unsigned char)*p);
        int64_t id = data_id(t->data, t->spelling == HS_LETTERS && length == 1 ? &upper : p, length);
        if (id < 0) {
            snprintf(why, nwhy, "'%.*s' is not in the vocabulary of %s%s", length > 60 ? 60 : (int)length, p, t->data->name,
                     data_id(t->data, "<unk>", 5) >= 0 ? ", in which <unk> stands for such words" : "");
            free(token);
            return NULL;
        }
        token[(*n)++] = (int32_t)id;
        p += length;
    }
    return token;
}

/* What hides tokens may be no word of the data. */
static const char *word(const hs_text *t, int32_t token, size_t *length)
{
    *length = 6;
    return token < t->data->nvocab ? data_word(t->data, token, length) : "<mask>";
}

void hs_text_write(const hs_text *t, const int32_t *token, int64_t n, FILE *out)
{
    int inside = 0;                     /* a line has begun */
    for (int64_t i = 0; i < n; i++) {
        size_t length;
        const char *w = word(t, token[i], &length);
        int ends = token[i] == t->eos;
        if (t->spelling == HS_WORDS && inside && !ends) fputc(' ', out);
        if (ends) fputc('\n', out);
        else fwrite(w, 1, length, out);
        inside = !ends;
    }
}

void hs_text_word(const hs_text *t, int32_t token, char out[64])
{
    size_t length;
    const char *w = word(t, token, &length);
    if (length == 1 && !isprint((unsigned char)*w)) snprintf(out, 64, "\\x%02x", (unsigned char)*w);
    else snprintf(out, 64, "%.*s", length > 60 ? 60 : (int)length, w);
}
