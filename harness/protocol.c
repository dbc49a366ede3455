/* protocol.c - numbers, text and lines on the pipe between runner and worker. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "protocol.h"

/* A double that survives the pipe bit for bit. */
json_t *hs_json_number(double x)
{
    if (isfinite(x)) return json_real(x);
    return json_string(isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
}

/* The inverse of hs_json_number; integers are taken too. */
double hs_json_double(const json_t *j)
{
    if (json_is_number(j)) return json_number_value(j);
    const char *s = json_string_value(j);
    if (s && !strcmp(s, "inf")) return INFINITY;
    if (s && !strcmp(s, "-inf")) return -INFINITY;
    return NAN;
}

/* Length of the UTF-8 sequence at s, 0 when there is none that is valid. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (s[0] == 0xE0 && s[1] < 0xA0) return 0;          /* too long a form */
    if (s[0] == 0xED && s[1] > 0x9F) return 0;          /* a surrogate */
    if (s[0] == 0xF0 && s[1] < 0x90) return 0;
    if (s[0] == 0xF4 && s[1] > 0x8F) return 0;
    return n;
}

/* A plug-in's words end in a database and on a terminal: neither shall trip over them. */
void hs_clean_text(char *text)
{
    for (unsigned char *s = (unsigned char *)text; *s; ) {
        size_t n = utf8_length(s);
        int control = *s < 0x20 ? *s != '\n' && *s != '\t' : *s == 0x7F;
        if (n == 0 || control) { *s++ = '?'; continue; }
        s += n;
    }
}

json_t *hs_json_text(const char *text)
{
    if (!text) return json_null();
    char *copy = strdup(text);
    if (!copy) return NULL;
    hs_clean_text(copy);
    json_t *j = json_string(copy);
    free(copy);
    return j;
}

/* Drops the lines that were taken and makes room for another read; 0, or -1 when a line is too long. */
static int lines_room(hs_lines *l)
{
    if (l->taken) {
        memmove(l->text, l->text + l->taken, l->used - l->taken);
        l->used -= l->taken;
        l->taken = 0;
    }
    if (l->size - l->used > 4096) return 0;
    size_t size = l->size ? 2 * l->size : 1 << 14;
    if (size > 2 * (size_t)HS_LINE_MAX) return -1;
    char *text = realloc(l->text, size);
    if (!text) return -1;
    l->text = text;
    l->size = size;
    return 0;
}

int hs_lines_read(hs_lines *l, int fd)
{
    if (lines_room(l) < 0) return HS_LINES_BAD;
    ssize_t n;
    do n = read(fd, l->text + l->used, l->size - l->used);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? HS_LINES_WAIT : HS_LINES_BAD;
    l->used += (size_t)n;
    return (int)n;
}

char *hs_lines_next(hs_lines *l)
{
    if (l->used == l->taken) return NULL;
    char *line = l->text + l->taken;
    char *end = memchr(line, '\n', l->used - l->taken);
    if (!end) return NULL;
    *end = 0;
    l->taken = (size_t)(end + 1 - l->text);
    return line;
}

void hs_lines_release(hs_lines *l)
{
    free(l->text);
    *l = (hs_lines){0};
}

int hs_line_write(int fd, const json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    if (!text) return -1;
    size_t n = strlen(text), at = 0;
    text[n++] = '\n';                   /* in place of the NUL: one write for a line that fits the pipe */
    while (at < n) {
        ssize_t w = write(fd, text + at, n - at);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) break;
        at += (size_t)w;
    }
    free(text);
    return at == n ? 0 : -1;
}
