/* read_parallel.c - sentence pairs: two files line by line, or one with tabs (the last two columns).
 *
 * Both languages are read to the end together, so that unequal files are found whichever is wanted.  A pair one side of
 * which is empty is left out of both.  Of .sgm files the text of each <seg> is a line.  A sentence is a document of
 * bytes without a line end. */
#define _GNU_SOURCE
#include <string.h>
#include "read.h"

/* The next sentence: in .sgm the text of the next <seg>. */
static int next_line(data_source *s, int sgm, char **line, size_t *length)
{
    int rc;
    while ((rc = data_source_text(s, line, length)) == 1) {
        if (!sgm) return 1;
        char *seg = memmem(*line, *length, "<seg", 4), *end = *line + *length;
        if (!seg) continue;
        char *text = memchr(seg, '>', (size_t)(end - seg)), *close = text ? memmem(text, (size_t)(end - text), "</seg>", 6) : NULL;
        if (!close) return data_source_fail(s, "a <seg> that does not end on its line");
        *line = text + 1;
        *length = (size_t)(close - *line);
        return 1;
    }
    return rc;
}

static void trim(char **line, size_t *length)
{
    while (*length && (**line == ' ' || **line == '\t')) ++*line, --*length;
    while (*length && ((*line)[*length - 1] == ' ' || (*line)[*length - 1] == '\t')) --*length;
}

/* A pair: the wanted side becomes a document. */
static void put_pair(data_reading *r, char *line[2], size_t length[2])
{
    for (int i = 0; i < 2; i++) trim(&line[i], &length[i]);
    if (!length[0] || !length[1]) {
        r->notes.empty_pairs += r->side == 0;
        return;
    }
    const int64_t left = r->left;
    data_put_bytes(r, line[r->side], length[r->side]);
    data_writer_doc(r->out, -1);
    r->left = left - 1;                             /* a limit counts pairs, so that both sides end at the same one */
}

static int is_sgm(const char *path) { return strstr(path, ".sgm") != NULL; }

/* Two files. */
static int read_two(data_reading *r, data_source s[2])
{
    const int sgm[2] = { is_sgm(s[0].path), is_sgm(s[1].path) };
    char *line[2];
    size_t length[2];
    for (;;) {
        const int a = next_line(&s[0], sgm[0], &line[0], &length[0]);
        const int b = a < 0 ? -1 : next_line(&s[1], sgm[1], &line[1], &length[1]);
        if (a < 0 || b < 0) return -1;
        if (a != b) return data_source_fail(&s[!a], "%s has no line that belongs to this one: the two files do not go together", s[a != 0].path);
        if (a == 0) return 0;
        if (r->left > 0) put_pair(r, line, length);
    }
}

/* One file with tabs. */
static int read_tabs(data_reading *r, data_source *s)
{
    char *line[2], *all;
    size_t length[2], n;
    int rc, columns = 0;
    while ((rc = data_source_text(s, &all, &n)) == 1 && r->left > 0) {
        char *last = memrchr(all, '\t', n), *before = last ? memrchr(all, '\t', (size_t)(last - all)) : NULL;
        int here = 1;
        for (size_t i = 0; i < n; i++) here += all[i] == '\t';
        if (here < 2 || here > 3 || (columns && here != columns))
            return data_source_fail(s, "%d column%s, expected %d", here, here == 1 ? "" : "s", columns ? columns : 2);
        columns = here;
        line[0] = before ? before + 1 : all;
        length[0] = (size_t)(last - line[0]);
        line[1] = last + 1;
        length[1] = (size_t)(all + n - line[1]);
        put_pair(r, line, length);
    }
    return rc < 0 ? -1 : 0;
}

int data_read_parallel(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s[2];
    (void)file;
    if (data_source_open(&s[0], path, r->why, r->nwhy) != 0) return -1;
    if (other && data_source_open(&s[1], other, r->why, r->nwhy) != 0) {
        data_source_close(&s[0]);
        return -1;
    }
    const int rc = other ? read_two(r, s) : read_tabs(r, &s[0]);
    for (int i = 0; i < 1 + (other != NULL); i++) {
        r->notes.crlf += r->side == 0 ? s[i].crlf : 0;
        r->bytes += s[i].bytes;
        data_source_close(&s[i]);
    }
    return rc;
}
