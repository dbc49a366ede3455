/* source.c - see source.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sha256.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unistr.h>
#include "io/io.h"
#include "source.h"

enum { FIRST_ROOM = 1 << 18 };

/* Looked for beside this object, and kept open. */
const data_io *data_io_open(char *why, size_t nwhy)
{
    char path[4096] = DATA_IO_OBJECT;
    Dl_info here;
    if (dladdr((void *)(uintptr_t)data_io_open, &here) && here.dli_fname && strrchr(here.dli_fname, '/'))
        snprintf(path, sizeof path, "%.*s/" DATA_IO_OBJECT, (int)(strrchr(here.dli_fname, '/') - here.dli_fname), here.dli_fname);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const data_io *io = object ? dlsym(object, DATA_IO_SYMBOL) : NULL;
    if (io && io->size == sizeof *io) return io;
    snprintf(why, nwhy, "nothing can be unpacked or fetched here: %s", object ? DATA_IO_OBJECT " is of another version" : dlerror());
    return NULL;
}

int data_is_packed(const char *path)
{
    static const char *const ends[] = { ".gz", ".xz", ".zst" };
    const size_t n = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && !strcmp(path + n - strlen(ends[i]), ends[i])) return 1;
    return 0;
}

int data_digest(const char *path, char out[65]) { return SHA256File(path, out) ? 0 : -1; }

int data_source_fail(const data_source *s, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (s->line) snprintf(s->why, s->nwhy, "%s:%lld: %s", s->path, (long long)s->line, sentence);
    else snprintf(s->why, s->nwhy, "%s: %s", s->path, sentence);
    return -1;
}

int data_source_open(data_source *s, const char *path, char *why, size_t nwhy)
{
    *s = (data_source){ .path = path, .fd = -1, .room = FIRST_ROOM, .why = why, .nwhy = nwhy, .buf = malloc(FIRST_ROOM) };
    if (!s->buf) return data_source_fail(s, "no memory");
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        data_source_fail(s, "%s", strerror(errno));
        data_source_close(s);
        return -1;
    }
    if (!data_is_packed(path)) return 0;
    char sentence[400] = "it cannot be unpacked";
    s->io = data_io_open(sentence, sizeof sentence);
    s->packed = s->io ? s->io->open(path, sentence, sizeof sentence) : NULL;
    if (s->packed) return 0;
    data_source_fail(s, "%s", sentence);
    data_source_close(s);
    return -1;
}

void data_source_close(data_source *s)
{
    if (s->packed) s->io->close(s->packed);
    if (s->fd >= 0) close(s->fd);
    free(s->buf);
    s->packed = s->buf = NULL;
    s->fd = -1;
}

/* Bytes from the file itself, past the buffer. */
static ssize_t pull(data_source *s, void *to, size_t n)
{
    char sentence[400];
    ssize_t got;
    if (s->packed) {
        got = s->io->read(s->packed, to, n, sentence, sizeof sentence);
        if (got < 0) data_source_fail(s, "the compressed data are broken or end too early (%s)", sentence);
    } else {
        do got = read(s->fd, to, n); while (got < 0 && errno == EINTR);
        if (got < 0) data_source_fail(s, "%s", strerror(errno));
    }
    if (got > 0) s->bytes += got;
    return got;
}

ssize_t data_source_read(data_source *s, void *to, size_t n)
{
    size_t have = 0;
    while (have < n) {
        const ssize_t got = pull(s, (char *)to + have, n - have);
        if (got < 0) return -1;
        if (got == 0) break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

/* More bytes behind those in the buffer, which moves to the front first. */
static int refill(data_source *s)
{
    memmove(s->buf, s->buf + s->at, s->end - s->at);
    s->end -= s->at;
    s->at = 0;
    if (s->end == s->room) {
        char *wider = s->room < DATA_LONGEST_LINE ? realloc(s->buf, 2 * s->room) : NULL;
        if (!wider) {
            s->line++;
            return data_source_fail(s, "the line is longer than %d MiB", (int)(s->room >> 20));
        }
        s->buf = wider;
        s->room *= 2;
    }
    const ssize_t got = pull(s, s->buf + s->end, s->room - s->end);
    if (got < 0) return -1;
    s->eof = got == 0;
    s->end += (size_t)got;
    return 0;
}

int data_source_line(data_source *s, char **line, size_t *length)
{
    char *newline = NULL;
    s->at += s->keep;
    s->keep = 0;
    for (size_t seen = 0; !(newline = memchr(s->buf + s->at + seen, '\n', s->end - s->at - seen)); ) {
        seen = s->end - s->at;
        if (s->eof) break;
        if (refill(s) != 0) return -1;
    }
    if (!newline && s->at == s->end) return 0;
    s->line++;
    *line = s->buf + s->at;
    *length = newline ? (size_t)(newline - *line) : s->end - s->at;
    s->keep = *length + (newline != NULL);
    if (newline && *length && (*line)[*length - 1] == '\r') {
        s->crlf++;
        --*length;
    }
    return 1;
}

int data_source_text(data_source *s, char **line, size_t *length)
{
    const int rc = data_source_line(s, line, length);
    if (rc != 1) return rc;
    const uint8_t *bad = u8_check((const uint8_t *)*line, *length);
    if (bad) return data_source_fail(s, "byte %zu of the line is not UTF-8 (0x%02X)", (size_t)(bad - (const uint8_t *)*line) + 1, *bad);
    if (memchr(*line, 0, *length)) return data_source_fail(s, "there is a NUL byte: this is not text");
    return 1;
}
