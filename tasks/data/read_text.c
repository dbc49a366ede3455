/* read_text.c - text as words or as bytes.
 *
 * Words are what Python's str.split() leaves (white space of Unicode, so that token counts are those of the published
 * scripts), and every line ends in <eos>, empty lines too.  Bytes are the file as it is.  Where the set says so, a form
 * feed begins a document; else a file is one. */
#include <string.h>
#include "read.h"

enum { ORDINARY, SPACE, PERHAPS, BATCH = 4096 };

/* What a byte may be: white space, or the first of a white space of several bytes. */
static int class_of(unsigned char c)
{
    if ((c >= 9 && c <= 13) || (c >= 28 && c <= 32)) return SPACE;
    return c == 0xC2 || c == 0xE1 || c == 0xE2 || c == 0xE3 ? PERHAPS : ORDINARY;
}

/* Bytes of the white space at p, 0 when there is none; the text is UTF-8. */
static size_t wide_space(const unsigned char *p)
{
    if (p[0] == 0xC2) return p[1] == 0x85 || p[1] == 0xA0 ? 2 : 0;
    if (p[0] == 0xE1) return p[1] == 0x9A && p[2] == 0x80 ? 3 : 0;
    if (p[0] == 0xE3) return p[1] == 0x80 && p[2] == 0x80 ? 3 : 0;
    if (p[1] == 0x81) return p[2] == 0x9F ? 3 : 0;
    return p[1] == 0x80 && (p[2] <= 0x8A || p[2] == 0xA8 || p[2] == 0xA9 || p[2] == 0xAF) ? 3 : 0;
}

typedef struct words { data_reading *r; unsigned char class[256]; uint32_t id[BATCH]; size_t n; } words;

static void flush(words *w)
{
    data_writer_put(w->r->out, w->id, w->n);
    w->r->left -= (int64_t)w->n;
    w->n = 0;
}

/* One word; -1: no memory. */
static int put_word(words *w, const char *word, size_t length)
{
    const int64_t id = w->r->learn ? data_vocab_add(w->r->vocab, word, length, 1) : data_vocab_find(w->r->vocab, word, length);
    if (id < 0 && w->r->learn) return -1;
    if (w->n == BATCH) flush(w);
    w->id[w->n++] = (uint32_t)id;                   /* -1: in no vocabulary */
    return 0;
}

/* The words of a line, and <eos>. */
static int put_line(words *w, const char *line, size_t length)
{
    const unsigned char *p = (const unsigned char *)line, *end = p + length, *word = NULL;
    for (size_t step; p < end; p += step) {
        const int class = w->class[*p];
        step = class == SPACE ? 1 : class == PERHAPS ? wide_space(p) : 0;
        if (step == 0) {
            if (!word) word = p;
            step = 1;
        } else if (word) {
            if (put_word(w, (const char *)word, (size_t)(p - word)) != 0) return -1;
            word = NULL;
        }
    }
    if (word && put_word(w, (const char *)word, (size_t)(end - word)) != 0) return -1;
    return put_word(w, "<eos>", 5);
}

/* A bound of the words in a line: no line is cut by a limit. */
static int64_t at_most(size_t length) { return (int64_t)(length / 2) + 2; }

int data_read_words(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    char *line;
    size_t length;
    int rc, begun = 0;
    words w = { .r = r };
    (void)file; (void)other;
    for (int c = 0; c < 256; c++) w.class[c] = (unsigned char)class_of((unsigned char)c);
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    while ((rc = data_source_text(&s, &line, &length)) == 1) {
        if (r->left - (int64_t)w.n < at_most(length)) break;
        if (r->set->form_feeds && length && *line == '\f' && begun) {
            flush(&w);
            data_writer_doc(r->out, -1);
        }
        if (put_line(&w, line, length) != 0) {
            rc = data_source_fail(&s, "no memory for so many words");
            break;
        }
        begun = 1;
        data_writer_text(r->out, length + 1);
    }
    flush(&w);
    if (begun) data_writer_doc(r->out, -1);
    if (rc == 0 && !begun && s.bytes == 0) rc = data_source_fail(&s, "the file is empty");
    if (rc == 1) r->left = 0;
    r->notes.crlf += s.crlf;
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc < 0 ? -1 : 0;
}

void data_put_bytes(data_reading *r, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    if (r->learn)
        for (size_t i = 0; i < n; i++) r->vocab->count[b[i]]++;
    data_writer_put(r->out, b, n);
    data_writer_text(r->out, n);
    r->left -= (int64_t)n;
}

/* Bytes that may hold form feeds, which are not tokens: each ends the document before it. */
static void put_documents(data_reading *r, const char *bytes, size_t n, int *begun)
{
    for (const char *end = bytes + n; bytes < end; ) {
        const char *feed = memchr(bytes, '\f', (size_t)(end - bytes)), *stop = feed ? feed : end;
        if (stop > bytes) data_put_bytes(r, bytes, (size_t)(stop - bytes));
        *begun |= stop > bytes;
        if (feed && *begun) data_writer_doc(r->out, -1);
        if (feed) *begun = 0;
        bytes = stop + (feed != NULL);
    }
}

int data_read_bytes(data_reading *r, const data_file *file, const char *path, const char *other)
{
    enum { BLOCK = 1 << 16 };
    char block[BLOCK];
    data_source s;
    int64_t at = 0, to = file->to ? file->to : INT64_MAX;
    ssize_t n = 0;
    int begun = 0;
    (void)other;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    while (at < to && r->left > 0 && (n = data_source_read(&s, block, (size_t)(to - at < BLOCK ? to - at : BLOCK))) > 0) {
        const int64_t skip = at < file->from ? (file->from - at < n ? file->from - at : n) : 0;
        const int64_t take = n - skip < r->left ? n - skip : r->left;
        if (r->set->form_feeds) put_documents(r, block + skip, (size_t)take, &begun);
        else data_put_bytes(r, block + skip, (size_t)take);
        begun |= !r->set->form_feeds && take > 0;
        at += n;
    }
    if (n == 0 && file->to && at < to)
        n = data_source_fail(&s, "it is truncated: %lld bytes, the set has %lld at least", (long long)at, (long long)to);
    else if (n == 0 && at == 0 && r->left > 0) n = data_source_fail(&s, "the file is empty");
    if (begun) data_writer_doc(r->out, -1);
    r->bytes += s.bytes;
    data_source_close(&s);
    return n < 0 ? -1 : 0;
}
