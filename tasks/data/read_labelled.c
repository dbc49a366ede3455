/* read_labelled.c - texts with a label: one a file (the folder tells the label), or one a line with tabs (the first
 * column is the label, the last the text); ListOps, whose text is a nested list; and pairs of texts, which match or not.
 *
 * A text is a document with its label.  ListOps lines may come the other way round, below a line of column names.  The two texts of a
 * pair are two documents, one after the other, both with its label. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include "read.h"

static const char *const OPERATORS[] = { "[MIN", "[MAX", "[MED", "[SM", "[FIRST", "[LAST", "]", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };

int data_listops_vocab(data_vocab *v)
{
    if (data_vocab_init(v) != 0) return -1;
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++)
        if (data_vocab_add(v, OPERATORS[i], strlen(OPERATORS[i]), 0) < 0) return -1;
    return 0;
}

/* A label of at most three digits; -1: it is none. */
static int32_t read_label(const char *p, size_t n)
{
    int32_t label = 0;
    if (n == 0 || n > 3) return -1;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return -1;
        label = 10 * label + p[i] - '0';
    }
    return label;
}

/* A whole file, one text. */
static int read_file(data_reading *r, data_source *s, int32_t label)
{
    char block[1 << 15];
    ssize_t n;
    while ((n = data_source_read(s, block, sizeof block)) > 0) data_put_bytes(r, block, (size_t)n);
    if (n == 0 && s->bytes == 0) return data_source_fail(s, "the file is empty");
    data_writer_doc(r->out, label);
    return n < 0 ? -1 : 0;
}

/* A line cut at its tabs: the label's field and the text's. */
typedef struct fields { const char *label, *text; size_t nlabel, ntext; } fields;

/* 0, or -1 with a sentence: not as many columns as the line before. */
static int cut_line(const data_source *s, char *line, size_t n, int *columns, fields *f)
{
    char *first = memchr(line, '\t', n), *last = memrchr(line, '\t', n);
    int here = 1;
    for (size_t i = 0; i < n; i++) here += line[i] == '\t';
    if (here < 2 || (*columns && here != *columns))
        return data_source_fail(s, "%d column%s, expected %s%d", here, here == 1 ? "" : "s", *columns ? "" : "at least ", *columns ? *columns : 2);
    *columns = here;
    *f = (fields){ line, last + 1, (size_t)(first - line), (size_t)(line + n - last - 1) };
    return 0;
}

int data_read_labelled(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    char *line;
    size_t n;
    int rc = 0, columns = 0;
    fields f;
    (void)other;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    if (file->label && strstr(path, ".tsv") == NULL) rc = r->left > 0 ? read_file(r, &s, file->label - 1) : 0;
    else while (r->left > 0 && (rc = data_source_text(&s, &line, &n)) == 1) {
        rc = cut_line(&s, line, n, &columns, &f);
        const int32_t label = rc == 0 ? read_label(f.label, f.nlabel) : 0;
        if (label < 0) rc = data_source_fail(&s, "the first column is '%.*s', expected a label", (int)(f.nlabel < 40 ? f.nlabel : 40), f.label);
        else if (rc == 0 && f.ntext == 0) rc = data_source_fail(&s, "the text is empty");
        if (rc != 0) break;
        data_put_bytes(r, f.text, f.ntext);
        data_writer_doc(r->out, label);
    }
    if (rc == 0 && s.bytes == 0) rc = data_source_fail(&s, "the file is empty");
    r->notes.crlf += s.crlf;
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc < 0 ? -1 : 0;
}

/* The tokens of an expression, round brackets left out. */
static int put_expression(data_reading *r, const data_source *s, const char *p, size_t n)
{
    for (const char *end = p + n, *word; p < end; p = word) {
        while (p < end && *p == ' ') p++;
        for (word = p; word < end && *word != ' '; word++) { }
        const size_t length = (size_t)(word - p);
        if (length == 0 || (length == 1 && (*p == '(' || *p == ')'))) continue;
        const int64_t id = data_vocab_find(r->vocab, p, length);
        if (id < 0) return data_source_fail(s, "'%.*s' is neither a number nor an operator", (int)(length < 20 ? length : 20), p);
        const unsigned char byte = (unsigned char)id;
        data_put_bytes(r, &byte, 1);
    }
    return 0;
}

int data_read_listops(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    char *line;
    size_t n;
    int rc = 0, columns = 2, swapped = 0;
    fields f;
    (void)file; (void)other;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    while (r->left > 0 && (rc = data_source_text(&s, &line, &n)) == 1) {
        if ((rc = cut_line(&s, line, n, &columns, &f)) != 0) break;
        if (s.line == 1 && f.nlabel == 6 && !memcmp(f.label, "Source", 6)) {
            swapped = 1;
            continue;
        }
        if (swapped) f = (fields){ f.text, f.label, f.ntext, f.nlabel };
        const int32_t label = read_label(f.label, f.nlabel);
        if (label < 0 || label > 9) rc = data_source_fail(&s, "the label is '%.*s', expected 0..9", (int)(f.nlabel < 40 ? f.nlabel : 40), f.label);
        if (rc == 0) rc = put_expression(r, &s, f.text, f.ntext);
        if (rc != 0) break;
        data_writer_doc(r->out, label);
    }
    if (rc == 0 && s.bytes == 0) rc = data_source_fail(&s, "the file is empty");
    r->notes.crlf += s.crlf;
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc < 0 ? -1 : 0;
}

/* ---- pairs ---------------------------------------------------------------------------------------------------------------- */

/* label, name, name, text, text with tabs between them: the label is 0 or 1, of which a float may have been made.  0, or -1 with a
 * sentence. */
static int read_match(data_reading *r, const data_source *s, const char *line, size_t n)
{
    enum { FIELDS = 5 };
    const char *field[FIELDS + 1] = { line };
    int fields = 1;
    for (const char *p = line; fields <= FIELDS && (p = memchr(p, '\t', (size_t)(line + n - p))); fields++) field[fields] = ++p;
    if (fields > FIELDS) return data_source_fail(s, "more than %d columns", FIELDS);
    if (fields < FIELDS) return data_source_fail(s, "%d column%s, expected %d", fields, fields == 1 ? "" : "s", FIELDS);
    const size_t nlabel = (size_t)(field[1] - line) - 1;
    const int32_t label = nlabel == 3 && !memcmp(line + 1, ".0", 2) ? read_label(line, 1) : read_label(line, nlabel);
    if (label < 0 || label > 1) return data_source_fail(s, "the first column is '%.*s', expected 0 or 1", (int)(nlabel < 40 ? nlabel : 40), line);
    field[FIELDS] = line + n + 1;
    for (int i = 3; i < FIELDS; i++) {
        const size_t length = (size_t)(field[i + 1] - field[i]) - 1;
        if (length == 0) return data_source_fail(s, "the %s text is empty", i == 3 ? "first" : "second");
        data_put_bytes(r, field[i], length);
        data_writer_doc(r->out, label);
    }
    return 0;
}

int data_read_matched(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    char *line;
    size_t n;
    int rc = 0;
    (void)file; (void)other;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    while (r->left > 0 && rc == 0 && (rc = data_source_text(&s, &line, &n)) == 1) rc = read_match(r, &s, line, n);
    if (rc == 0 && s.bytes == 0) rc = data_source_fail(&s, "the file is empty");
    r->notes.crlf += s.crlf;
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc < 0 ? -1 : 0;
}
