/* source.h - a file of a data set, plain or compressed (.gz .xz .zst by name), as lines or as bytes. */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct data_source {
    const char *path;                   /* the caller's */
    int64_t line;                       /* number of the line that was read last, from 1 */
    int64_t crlf;                       /* lines that ended in CR LF; the CR is taken off */
    int64_t bytes;                      /* read so far, unpacked */
    int fd;
    const struct data_io *io;           /* io/io.h; NULL: the file is plain */
    void *packed;                       /* its stream */
    char *buf;
    size_t room, at, end, keep;         /* keep: length of the line at `at` that was handed out last */
    int eof;
    char *why;                          /* the caller's room for a sentence */
    size_t nwhy;
} data_source;

int  data_source_open(data_source *, const char *path, char *why, size_t nwhy);
void data_source_close(data_source *);
/* Up to n bytes; 0 at the end, -1 with a sentence. */
ssize_t data_source_read(data_source *, void *to, size_t n);
/* The next line without its end, valid until the next call: 1; 0 at the end; -1 with a sentence.  A line is in the
 * memory whole, and one longer than DATA_LONGEST_LINE is refused. */
enum { DATA_LONGEST_LINE = 1 << 28 };
int  data_source_line(data_source *, char **line, size_t *length);
/* The same, and the line must be UTF-8 without NUL. */
int  data_source_text(data_source *, char **line, size_t *length);
/* "path:line: sentence" into why; returns -1. */
int  data_source_fail(const data_source *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether the name ends as that of a compressed file. */
int  data_is_packed(const char *path);
/* SHA-256 of a file's bytes as they lie, 64 hex digits. */
int  data_digest(const char *path, char out[65]);
#endif
