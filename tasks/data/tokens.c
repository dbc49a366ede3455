/* tokens.c - opening a prepared set: nothing in it is believed before it is checked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "data.h"
#include "format.h"

/* Four lanes of a multiplicative hash over words of 8 bytes, so that a set is looked at as fast as memory gives it. */
uint64_t data_sum(const void *x, size_t bytes)
{
    const unsigned char *p = x;
    const uint64_t prime = 0x9E3779B97F4A7C15u;
    uint64_t lane[4] = { 1, 2, 3, 4 }, w[4] = { 0 };
    for (; bytes >= sizeof w; bytes -= sizeof w, p += sizeof w) {
        memcpy(w, p, sizeof w);
        for (int i = 0; i < 4; i++) lane[i] = (lane[i] ^ w[i]) * prime;
        for (int i = 0; i < 4; i++) lane[i] ^= lane[i] >> 29;
    }
    memset(w, 0, sizeof w);
    memcpy(w, p, bytes);
    uint64_t sum = bytes;
    for (int i = 0; i < 4; i++) sum = (sum ^ (lane[i] ^ w[i]) * prime) * prime + (sum >> 31);
    return sum;
}

int data_cache_path(char *out, size_t n, const char *below)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length;
    if (xdg && *xdg == '/') length = snprintf(out, n, "%s/harness/%s", xdg, below);
    else length = snprintf(out, n, "%s/.cache/harness/%s", home ? home : "", below);
    return length > 0 && (size_t)length < n ? 0 : -1;
}

/* Whether `count` elements of `width` bytes at `at` lie in the file behind the header, on a section's boundary. */
static int inside(const file_header *h, uint64_t at, uint64_t count, uint64_t width)
{
    return at >= sizeof *h && at % DATA_SECTION == 0 && at <= h->bytes && count <= (h->bytes - at) / width;
}

/* Whether the header can be believed: 0, or what is wrong with it. */
static const char *header_fault(const file_header *h, uint64_t size)
{
    file_header copy;
    if (size < sizeof *h) return "it is shorter than the header of a prepared set";
    if (memcmp(h->magic, DATA_MAGIC, sizeof h->magic)) return "it is not a prepared set";
    if (h->order != DATA_ORDER) return "it was made on a machine with another byte order";
    if (h->version != DATA_VERSION) return "it is of another version: prepare the set again";
    memcpy(&copy, h, sizeof copy);
    copy.header_sum = 0;
    if (data_sum(&copy, sizeof copy) != h->header_sum) return "its header is damaged: prepare the set again";
    if (h->bytes != size) return h->bytes > size ? "it is truncated: prepare the set again" : "it is longer than it says: prepare the set again";
    if (data_sum((const char *)h + sizeof *h, size - sizeof *h) != h->sum) return "it is damaged: prepare the set again";
    if (h->nsplits > DATA_SPLITS || !memchr(h->name, 0, sizeof h->name) || !memchr(h->digest, 0, 65)) return "its header makes no sense";
    if (!inside(h, h->count_at, h->nvocab, 8) || !inside(h, h->word_end_at, h->nvocab, 8) || !inside(h, h->sorted_at, h->nvocab, 4) ||
        !inside(h, h->words_at, h->words_bytes, 1) || !inside(h, h->recipe_at, h->recipe_bytes, 1))
        return "its vocabulary does not lie in it";
    return NULL;
}

/* ends[n] must not fall and must end at `last`. */
static int ends_right(const uint64_t *ends, uint64_t n, uint64_t last)
{
    for (uint64_t i = 0; i < n; i++)
        if (ends[i] > last || (i && ends[i] < ends[i - 1])) return 0;
    return n == 0 || ends[n - 1] == last;
}

static uint32_t largest(const void *tokens, uint32_t width, uint64_t n)
{
    uint32_t m = 0;
    if (width == 1) for (uint64_t i = 0; i < n; i++) m = m > ((const uint8_t *)tokens)[i] ? m : ((const uint8_t *)tokens)[i];
    if (width == 2) for (uint64_t i = 0; i < n; i++) m = m > ((const uint16_t *)tokens)[i] ? m : ((const uint16_t *)tokens)[i];
    if (width == 4) for (uint64_t i = 0; i < n; i++) m = m > ((const uint32_t *)tokens)[i] ? m : ((const uint32_t *)tokens)[i];
    return m;
}

/* One split of the header into s; 0, or what is wrong with it. */
static const char *read_split(const file_header *h, const file_split *f, data_split *s)
{
    const char *base = (const char *)h;
    if ((f->width != 1 && f->width != 2 && f->width != 4) || !memchr(f->name, 0, sizeof f->name) ||
        !inside(h, f->tokens_at, f->n, f->width) || !inside(h, f->end_at, f->ndocs, 8) ||
        (f->labelled && !inside(h, f->label_at, f->ndocs, 4)))
        return "a split does not lie in it";
    *s = (data_split){ .name = f->name, .tokens = base + f->tokens_at, .width = (int32_t)f->width, .n = (int64_t)f->n,
                       .ndocs = (int64_t)f->ndocs, .end = (const uint64_t *)(base + f->end_at),
                       .label = f->labelled ? (const int32_t *)(base + f->label_at) : NULL,
                       .unknown = (int64_t)f->unknown, .replaced = (int64_t)f->replaced, .bytes = (int64_t)f->bytes };
    if (!ends_right(s->end, f->ndocs, f->n)) return "its documents are not in order";
    if (f->n && largest(s->tokens, f->width, f->n) >= h->nvocab) return "a token is not in its vocabulary";
    return NULL;
}

/* The mapped file into t; 0, or what is wrong with it. */
static const char *read_map(data_tokens *t)
{
    const file_header *h = t->map;
    const char *fault = header_fault(h, t->size), *base = t->map;
    if (fault) return fault;
    memcpy(t->name, h->name, sizeof t->name);
    memcpy(t->digest, h->digest, sizeof t->digest);
    t->nsplits = (int32_t)h->nsplits;
    t->nvocab = (int64_t)h->nvocab;
    t->count = (const uint64_t *)(base + h->count_at);
    t->word_end = (const uint64_t *)(base + h->word_end_at);
    t->sorted = (const uint32_t *)(base + h->sorted_at);
    t->words = base + h->words_at;
    t->recipe = base + h->recipe_at;
    t->recipe_length = h->recipe_bytes;
    if (!ends_right(t->word_end, h->nvocab, h->words_bytes) || (h->nvocab && largest(t->sorted, 4, h->nvocab) >= h->nvocab))
        return "its vocabulary makes no sense";
    for (int i = 0; !fault && i < t->nsplits; i++) fault = read_split(h, &h->split[i], &t->split[i]);
    return fault;
}

/* Maps the file; -1 with errno set. */
static int map_file(const char *path, data_tokens *t)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    if (fstat(fd, &st) == 0 && (st.st_size > 0 || (errno = ENODATA, 0))) {
        t->size = (size_t)st.st_size;
        t->map = mmap(NULL, t->size, PROT_READ, MAP_SHARED, fd, 0);
    }
    close(fd);
    return t->map != MAP_FAILED ? 0 : -1;
}

/* That a set is not there, and what makes it: NAME-UNITS is made of a set NAME. */
static void tell_missing(const char *name, const char *path, char *why, size_t nwhy)
{
    const char *dash = strrchr(name, '-');
    const int units = !data_set_find(name) && dash && dash[1] && strspn(dash + 1, "0123456789") == strlen(dash + 1);
    snprintf(why, nwhy, "the data set %s is not prepared (%s is not there): harness data prepare %.*s%s%s", name, path,
             units ? (int)(dash - name) : (int)strlen(name), name, units ? " --subwords " : "", units ? dash + 1 : "");
}

int data_open(const char *name, data_tokens *t, char *why, size_t nwhy)
{
    char path[4096], below[DATA_NAME + 32];
    const int by_name = strchr(name, '/') == NULL;
    *t = (data_tokens){ .map = MAP_FAILED };
    snprintf(below, sizeof below, "prepared/%.*s.tokens", DATA_NAME, name);
    if (by_name) data_cache_path(path, sizeof path, below);
    else snprintf(path, sizeof path, "%s", name);
    if (map_file(path, t) != 0) {
        if (by_name && errno == ENOENT)
            tell_missing(name, path, why, nwhy);
        else snprintf(why, nwhy, "%s: %s", path, strerror(errno));
        data_close(t);
        return -1;
    }
    const char *fault = t->size < sizeof(file_header) ? header_fault(t->map, t->size) : read_map(t);
    if (!fault) return 0;
    snprintf(why, nwhy, "%s: %s", path, fault);
    data_close(t);
    return -1;
}

void data_close(data_tokens *t)
{
    if (t->map && t->map != MAP_FAILED) munmap(t->map, t->size);
    *t = (data_tokens){ 0 };
}

const data_split *data_find_split(const data_tokens *t, const char *name)
{
    for (int i = 0; i < t->nsplits; i++)
        if (!strcmp(t->split[i].name, name)) return &t->split[i];
    return NULL;
}

const char *data_word(const data_tokens *t, int64_t id, size_t *length)
{
    const uint64_t begin = id ? t->word_end[id - 1] : 0;
    *length = t->word_end[id] - begin;
    return t->words + begin;
}

int64_t data_id(const data_tokens *t, const char *word, size_t length)
{
    int64_t low = 0, high = t->nvocab;
    while (low < high) {
        const int64_t middle = (low + high) / 2, id = t->sorted[middle];
        size_t n;
        const char *w = data_word(t, id, &n);
        const int cmp = memcmp(word, w, length < n ? length : n);
        if (cmp == 0 && length == n) return id;
        if (cmp < 0 || (cmp == 0 && length < n)) high = middle;
        else low = middle + 1;
    }
    return -1;
}
