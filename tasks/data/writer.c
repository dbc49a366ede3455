/* writer.c - see writer.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "writer.h"

enum { CHUNK = 1 << 14, ORDER_SEED = 1 };

/* A file without a name in the folder of path. */
static FILE *open_scratch(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    const int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w+b") : NULL;
    if (!f && fd >= 0) close(fd);
    return f;
}

int data_writer_init(data_writer *w, const char *path, int width, char *why, size_t nwhy)
{
    *w = (data_writer){ .path = path, .width = width, .scratch = open_scratch(path) };
    if (w->scratch) return 0;
    snprintf(why, nwhy, "%s: there is no room for a scratch file beside it (%s)", path, strerror(errno));
    return -1;
}

void data_writer_release(data_writer *w)
{
    if (w->scratch) fclose(w->scratch);
    for (int i = 0; i < w->nsplits; i++) {
        free(w->split[i].end);
        free(w->split[i].label);
    }
    *w = (data_writer){ 0 };
}

static writer_split *open_split(data_writer *w) { return &w->split[w->nsplits - 1]; }

int data_writer_split(data_writer *w, const char *name, int shuffled)
{
    if (w->nsplits == DATA_SPLITS) return -1;
    writer_split *s = &w->split[w->nsplits++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->shuffled = shuffled;
    return 0;
}

void data_writer_put(data_writer *w, const void *tokens, size_t n)
{
    if (fwrite(tokens, (size_t)w->width, n, w->scratch) != n && !w->failed) w->failed = errno;
    open_split(w)->n += n;
}

void data_writer_text(data_writer *w, uint64_t bytes) { open_split(w)->bytes += bytes; }

void data_writer_doc(data_writer *w, int32_t label)
{
    writer_split *s = open_split(w);
    if (s->ndocs == s->room) {
        const uint64_t room = s->room ? 2 * s->room : 1024;
        uint64_t *end = realloc(s->end, room * sizeof *end);
        if (end) s->end = end;
        int32_t *labels = label >= 0 || s->label ? realloc(s->label, room * sizeof *labels) : NULL;
        if (labels) s->label = labels;
        if (!end || (label >= 0 && !labels)) {
            w->failed = ENOMEM;
            return;
        }
        s->room = room;
    }
    if (s->label) s->label[s->ndocs] = label;
    s->end[s->ndocs++] = s->n;
}

/* ---- the file ------------------------------------------------------------------------------------------------ */

typedef struct output { FILE *f; uint64_t at; int failed; } output;

static void emit(output *o, const void *x, size_t bytes)
{
    if (fwrite(x, 1, bytes, o->f) != bytes && !o->failed) o->failed = errno ? errno : EIO;
    o->at += bytes;
}

/* Where a section that begins now begins. */
static uint64_t section(output *o)
{
    static const char zeros[DATA_SECTION];
    emit(o, zeros, (DATA_SECTION - o->at % DATA_SECTION) % DATA_SECTION);
    return o->at;
}

/* x[n] of 4 bytes each, narrowed in place. */
static void narrow(uint32_t *x, size_t n, uint32_t width)
{
    if (width == 1) for (size_t i = 0; i < n; i++) ((uint8_t *)x)[i] = (uint8_t)x[i];
    if (width == 2) for (size_t i = 0; i < n; i++) ((uint16_t *)x)[i] = (uint16_t)x[i];
}

/* The words' ids of the scratch file into those of the vocabulary, unknown ones counted into f. */
static void translate(const data_facts *facts, uint32_t *x, size_t n, file_split *f)
{
    const uint32_t unk = facts->map[DATA_UNK];
    for (size_t i = 0; i < n; i++) {
        const uint32_t id = x[i] < facts->nmap ? facts->map[x[i]] : unk;
        f->unknown += id == unk;
        f->replaced += id == unk && x[i] != DATA_UNK;
        x[i] = id;
    }
}

/* The next n tokens of the scratch file. */
static void emit_tokens(const data_writer *w, const data_facts *facts, uint64_t left, output *o, file_split *f)
{
    uint32_t x[CHUNK];
    while (left > 0) {
        const size_t n = left < CHUNK ? left : CHUNK;
        if (fread(x, (size_t)w->width, n, w->scratch) != n && !o->failed) o->failed = EIO;
        if (facts->map) {
            translate(facts, x, n, f);
            narrow(x, n, f->width);
        }
        emit(o, x, n * f->width);
        left -= n;
    }
}

/* The documents of s, whose first token is at byte `base` of the scratch file, in their new order; s then has that
 * order. */
static int emit_shuffled(const data_writer *w, writer_split *s, const data_facts *facts, long base, output *o, file_split *f)
{
    uint64_t *end = malloc(s->room * sizeof *end), at = 0;
    int32_t *label = s->label ? malloc(s->room * sizeof *label) : NULL;
    const int rc = end && (label || !s->label) ? 0 : -1;
    for (uint64_t i = 0; rc == 0 && i < s->ndocs; i++) {
        const int64_t from = data_permuted(ORDER_SEED, 0, (int64_t)s->ndocs, (int64_t)i);
        const uint64_t begin = from ? s->end[from - 1] : 0, n = s->end[from] - begin;
        if (fseek(w->scratch, base + (long)begin * w->width, SEEK_SET) != 0) o->failed = errno;
        emit_tokens(w, facts, n, o, f);
        end[i] = at += n;
        if (label) label[i] = s->label[from];
    }
    if (rc == 0 && fseek(w->scratch, base + (long)s->n * w->width, SEEK_SET) != 0) o->failed = errno;
    free(rc == 0 ? s->end : end);
    free(rc == 0 ? s->label : label);
    if (rc == 0) s->end = end, s->label = label;
    return rc;
}

/* Tokens and documents of split s. */
static void emit_split(const data_writer *w, writer_split *s, const data_facts *facts, uint32_t width, output *o, file_split *f)
{
    memcpy(f->name, s->name, sizeof f->name);
    f->width = facts->map ? width : (uint32_t)w->width;
    f->n = s->n;
    f->ndocs = s->ndocs;
    f->bytes = s->bytes;
    f->tokens_at = section(o);
    if (!s->shuffled) emit_tokens(w, facts, s->n, o, f);
    else if (emit_shuffled(w, s, facts, ftell(w->scratch), o, f) != 0) o->failed = ENOMEM;
    f->end_at = section(o);
    emit(o, s->end, s->ndocs * sizeof *s->end);
    f->labelled = s->label != NULL;
    if (s->label) f->label_at = section(o);
    if (s->label) emit(o, s->label, s->ndocs * sizeof *s->label);
}

static int by_word(const void *a, const void *b, void *arg)
{
    const data_vocab *v = arg;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const uint64_t bx = x ? v->end[x - 1] : 0, by = y ? v->end[y - 1] : 0, nx = v->end[x] - bx, ny = v->end[y] - by;
    const int cmp = memcmp(v->text + bx, v->text + by, nx < ny ? nx : ny);
    return cmp ? cmp : nx < ny ? -1 : nx > ny;
}

static void emit_vocabulary(const data_vocab *v, output *o, file_header *h)
{
    uint32_t *sorted = malloc((v->n + 1) * sizeof *sorted);
    if (!sorted) {
        o->failed = ENOMEM;
        return;
    }
    for (uint32_t i = 0; i < v->n; i++) sorted[i] = i;
    qsort_r(sorted, v->n, sizeof *sorted, by_word, (void *)(uintptr_t)v);
    h->nvocab = v->n;
    h->count_at = section(o);
    emit(o, v->count, v->n * sizeof *v->count);
    h->word_end_at = section(o);
    emit(o, v->end, v->n * sizeof *v->end);
    h->words_at = section(o);
    h->words_bytes = v->ntext;
    emit(o, v->text, v->ntext);
    h->sorted_at = section(o);
    emit(o, sorted, v->n * sizeof *sorted);
    free(sorted);
}

/* The sums, once all else is written; 0, or errno. */
static int seal(output *o, file_header *h)
{
    if (fflush(o->f) != 0) return errno;
    const int fd = fileno(o->f);
    char *map = mmap(NULL, o->at, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return errno;
    h->bytes = o->at;
    h->sum = data_sum(map + sizeof *h, o->at - sizeof *h);
    munmap(map, o->at);
    h->header_sum = data_sum(h, sizeof *h);
    if (pwrite(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h) return errno ? errno : EIO;
    return fsync(fd) == 0 ? 0 : errno;
}

/* Everything into o; 0, or errno. */
static int emit_all(data_writer *w, const data_facts *facts, output *o)
{
    const uint32_t width = facts->vocab->n <= 1 << 8 ? 1 : facts->vocab->n <= 1 << 16 ? 2 : 4;
    file_header *h = calloc(1, sizeof *h);
    if (!h) return ENOMEM;
    memcpy(h->magic, DATA_MAGIC, sizeof h->magic);
    h->version = DATA_VERSION;
    h->order = DATA_ORDER;
    snprintf(h->name, sizeof h->name, "%s", facts->name);
    snprintf(h->digest, sizeof h->digest, "%s", facts->digest);
    h->nsplits = (uint64_t)w->nsplits;
    emit(o, h, sizeof *h);
    rewind(w->scratch);
    for (int i = 0; i < w->nsplits; i++) emit_split(w, &w->split[i], facts, width, o, &h->split[i]);
    emit_vocabulary(facts->vocab, o, h);
    h->recipe_at = section(o);
    h->recipe_bytes = strlen(facts->recipe);
    emit(o, facts->recipe, h->recipe_bytes);
    section(o);
    const int error = o->failed ? o->failed : seal(o, h);
    free(h);
    return error;
}

int data_writer_finish(data_writer *w, const data_facts *facts, char *why, size_t nwhy)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%d.part", w->path, (int)getpid());
    output o = { .f = w->failed ? NULL : fopen(path, "w+b") };
    int error = w->failed ? w->failed : o.f ? 0 : errno;
    if (!error && fflush(w->scratch) != 0) error = errno;
    if (!error) error = emit_all(w, facts, &o);
    if (o.f && fclose(o.f) != 0 && !error) error = errno;
    if (!error && rename(path, w->path) != 0) error = errno;
    if (!error) return 0;
    if (o.f) unlink(path);
    snprintf(why, nwhy, "%s: it cannot be written (%s)", w->path, strerror(error));
    return -1;
}
