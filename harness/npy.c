/* npy.c - reading and writing NumPy's .npy files. */
#include "npy.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 1 << 16 };

static const struct { const char *descr, *name; size_t width; } types[] = {
    [HS_NPY_F32] = { "<f4", "float32", 4 }, [HS_NPY_F64] = { "<f8", "float64", 8 },
    [HS_NPY_I32] = { "<i4", "int32", 4 },   [HS_NPY_I64] = { "<i8", "int64", 8 },
};
enum { TYPES = sizeof types / sizeof *types };

size_t hs_npy_width(hs_npy_type t) { return types[t].width; }
const char *hs_npy_name(hs_npy_type t) { return types[t].name; }

char *hs_npy_shape_text(int ndim, const int64_t *shape, char *out, size_t n)
{
    size_t used = (size_t)snprintf(out, n, "[");
    for (int i = 0; i < ndim && used < n; i++)
        used += (size_t)snprintf(out + used, n - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < n) snprintf(out + used, n - used, "]");
    return out;
}

/* ---- the header, a Python dict ---------------------------------------------------------------------- */
typedef struct reader {
    const char *path, *p, *end;
    char *why;
    size_t nwhy;
} reader;

__attribute__((format(printf, 2, 3)))
static int bad(const reader *r, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(r->why, r->nwhy, "%s: %s", r->path, text);
    return -1;
}

static void spaces(reader *r) { while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p) r->p++; }

/* Takes one character after spaces; 0 when another is there. */
static int take(reader *r, char c)
{
    spaces(r);
    if (r->p >= r->end || *r->p != c) return 0;
    r->p++;
    return 1;
}

/* 'text' or "text", without escapes, copied to out. */
static int string(reader *r, char *out, size_t n)
{
    spaces(r);
    char quote = r->p < r->end ? *r->p : 0;
    if (quote != '\'' && quote != '"') return bad(r, "the header is damaged: a quoted string was expected");
    const char *start = ++r->p;
    while (r->p < r->end && *r->p != quote && *r->p >= ' ' && *r->p != '\\') r->p++;
    if (r->p >= r->end || *r->p != quote || (size_t)(r->p - start) >= n) return bad(r, "the header is damaged: a string does not end");
    memcpy(out, start, (size_t)(r->p - start));
    out[r->p++ - start] = 0;
    return 0;
}

/* The type of the elements, with a reason for each kind that is not taken. */
static int descr(reader *r, hs_npy *a)
{
    char text[32];
    spaces(r);
    if (r->p < r->end && *r->p == '[') return bad(r, "holds records; expected float32 or float64");
    if (string(r, text, sizeof text)) return -1;
    if (text[0] == '=') text[0] = '<';      /* the machine's own order: every machine of ours is little-endian */
    for (int i = 0; i < TYPES; i++) if (!strcmp(text, types[i].descr)) { a->type = (hs_npy_type)i; return 0; }
    if (text[0] == '>') return bad(r, "is big-endian ('%s'); save x.astype('<%s')", text, text + 1);
    if (strchr(text, 'O')) return bad(r, "holds Python objects; expected float32 or float64");
    return bad(r, "holds '%s'; expected float32 ('<f4') or float64 ('<f8'), for lengths int32 or int64", text);
}

static int fortran_order(reader *r)
{
    spaces(r);
    size_t left = (size_t)(r->end - r->p);
    if (left >= 5 && !strncmp(r->p, "False", 5)) { r->p += 5; return 0; }
    if (left >= 4 && !strncmp(r->p, "True", 4)) return bad(r, "is in Fortran order; save np.ascontiguousarray(x)");
    return bad(r, "the header is damaged: fortran_order is neither True nor False");
}

/* (2, 4, 5, 3) or (7,) or () */
static int shape(reader *r, hs_npy *a)
{
    if (!take(r, '(')) return bad(r, "the header is damaged: shape is no tuple");
    a->n = 1;
    for (a->ndim = 0; !take(r, ')'); a->ndim++) {
        int64_t x = 0;
        if (a->ndim == HS_NPY_MAX_DIMS) return bad(r, "has more than %d dimensions", HS_NPY_MAX_DIMS);
        spaces(r);
        const char *start = r->p;
        for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
            if (__builtin_mul_overflow(x, 10, &x) || __builtin_add_overflow(x, *r->p - '0', &x)) return bad(r, "the header is damaged: a dimension is too large");
        if (r->p == start) return bad(r, "the header is damaged: a dimension is no number");
        if (__builtin_mul_overflow(a->n, x, &a->n) || a->n > INT64_MAX / 8) return bad(r, "the shape is too large");
        a->shape[a->ndim] = x;
        if (take(r, ',')) continue;
        if (!take(r, ')')) return bad(r, "the header is damaged: shape does not end");
        a->ndim++;
        break;
    }
    return 0;
}

/* {'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), } - each key once, in any order. */
static int parse_header(reader *r, hs_npy *a)
{
    int seen[3] = { 0 };
    char key[32];
    if (!take(r, '{')) return bad(r, "the header is damaged: it does not begin with '{'");
    while (!take(r, '}')) {
        static const char *const keys[] = { "descr", "fortran_order", "shape" };
        int k = 0;
        if (string(r, key, sizeof key)) return -1;
        while (k < 3 && strcmp(key, keys[k])) k++;
        if (k == 3) return bad(r, "the header is damaged: it has the key '%s'", key);
        if (seen[k]++) return bad(r, "the header is damaged: it has '%s' twice", key);
        if (!take(r, ':')) return bad(r, "the header is damaged: no ':' after '%s'", key);
        if (k == 0 ? descr(r, a) : k == 1 ? fortran_order(r) : shape(r, a)) return -1;
        if (take(r, ',')) continue;
        if (!take(r, '}')) return bad(r, "the header is damaged: it does not end with '}'");
        break;
    }
    spaces(r);
    if (r->p != r->end) return bad(r, "the header is damaged: there is more behind it");
    if (!seen[0] || !seen[1] || !seen[2]) return bad(r, "the header is damaged: descr, fortran_order or shape is missing");
    return 0;
}

/* ---- the file ---------------------------------------------------------------------------------------- */
/* Magic, version and length of the header; leaves the file at the header's first byte. */
static int header_length(const reader *r, FILE *f, size_t *length)
{
    unsigned char b[12];
    if (fread(b, 1, 8, f) != 8 || memcmp(b, "\x93NUMPY", 6)) return bad(r, "is no .npy file");
    if (b[6] < 1 || b[6] > 3) return bad(r, "is .npy version %d.%d; versions 1 to 3 are read", b[6], b[7]);
    size_t bytes = b[6] == 1 ? 2 : 4;
    if (fread(b + 8, 1, bytes, f) != bytes) return bad(r, "is truncated");
    *length = 0;
    for (size_t i = bytes; i-- > 0;) *length = *length << 8 | b[8 + i];
    return *length > MAX_HEADER ? bad(r, "the header claims %zu bytes", *length) : 0;
}

/* The elements, once the file is known to hold exactly as many as the shape says. */
static int read_data(const reader *r, FILE *f, hs_npy *a)
{
    struct stat st;
    long at = ftell(f);
    size_t bytes = (size_t)a->n * types[a->type].width;
    if (at < 0 || fstat(fileno(f), &st)) return bad(r, "%s", strerror(errno));
    long long there = (long long)st.st_size - at;
    if (there != (long long)bytes)
        return bad(r, "%s: the header promises %zu bytes of data, the file has %lld", there < (long long)bytes ? "is truncated" : "is damaged", bytes, there);
    a->data = malloc(bytes ? bytes : 1);
    if (!a->data) return bad(r, "%zu bytes do not fit in memory", bytes);
    return fread(a->data, 1, bytes, f) == bytes ? 0 : bad(r, "cannot be read: %s", strerror(errno));
}

int hs_npy_read(const char *path, hs_npy *a, char *why, size_t nwhy)
{
    reader r = { path, NULL, NULL, why, nwhy };
    struct stat st;
    size_t length = 0;
    char *header = NULL;
    *a = (hs_npy){ 0 };
    FILE *f = fopen(path, "rb");
    if (!f) return bad(&r, "%s", strerror(errno));
    int rc = -1;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) bad(&r, "is no regular file");
    else if (header_length(&r, f, &length)) rc = -1;
    else if (!(header = malloc(length + 1)) || fread(header, 1, length, f) != length) bad(&r, "is truncated");
    else {
        r.p = header, r.end = header + length;
        rc = parse_header(&r, a);
        if (!rc) rc = read_data(&r, f, a);
    }
    free(header);
    fclose(f);
    if (rc) hs_npy_release(a);
    return rc;
}

void hs_npy_release(hs_npy *a)
{
    free(a->data);
    *a = (hs_npy){ 0 };
}

/* Version 1: the header padded so that the data begin on a multiple of 64. */
int hs_npy_write(const char *path, const hs_npy *a, char *why, size_t nwhy)
{
    reader r = { path, NULL, NULL, why, nwhy };
    char dims[HS_NPY_MAX_DIMS * 24] = "", header[512];
    for (int i = 0; i < a->ndim; i++)
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%lld%s", i ? ", " : "", (long long)a->shape[i], a->ndim == 1 ? "," : "");
    int n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", types[a->type].descr, dims);
    int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
    memset(header + n, ' ', (size_t)(padded - n));
    header[padded - 1] = '\n';
    const unsigned char magic[10] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)padded, (unsigned char)(padded >> 8) };
    size_t bytes = (size_t)a->n * types[a->type].width;
    FILE *f = fopen(path, "wb");
    if (!f) return bad(&r, "cannot be written: %s", strerror(errno));
    int ok = fwrite(magic, 1, sizeof magic, f) == sizeof magic && fwrite(header, 1, (size_t)padded, f) == (size_t)padded
          && fwrite(a->data, 1, bytes, f) == bytes;
    int error = errno;
    struct stat st;
    int regular = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    if (fclose(f) == 0 && ok) return 0;
    if (regular) unlink(path);          /* half a file is worse than none */
    return bad(&r, "cannot be written: %s", strerror(ok ? errno : error));
}
