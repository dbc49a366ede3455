/* units.c - see units.h.  Nothing but the finished set is left in the cache, and it depends on the source's recipe and on the
 * units alone: the digest of the list of units is in the recipe. */
#define _GNU_SOURCE
#include "units.h"
#include <errno.h>
#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "folders.h"
#include "source.h"
#include "subwords.h"
#include "tokens.h"
#include "writer.h"

enum { PATH = 4096, UNITS_VERSION = 1 };

typedef struct maker {
    data_tokens from;
    data_vocab vocab;
    data_writer out;
    subwords *model;
    char folder[PATH], name[DATA_NAME], digest[65], recipe[512];   /* folder: of this process, for the text and the model */
    int64_t bytes;                      /* of text made into units */
    char *why;
    size_t nwhy;
} maker;

static int fail(const maker *m, const char *what) { return snprintf(m->why, m->nwhy, "%s: %s", what, strerror(errno)), -1; }

static int is_train(const data_split *s) { return !strncmp(s->name, "train.", 6); }

/* Document i of a split of bytes as a line; the caller's. */
static char *line_of(const data_split *s, int64_t i)
{
    int64_t begin = data_doc_begin(s, i), n = (int64_t)s->end[i] - begin;
    return strndup((const char *)s->tokens + begin, (size_t)n);
}

/* All of train as a text file. */
static int write_text(const maker *m, const char *path)
{
    FILE *f = fopen(path, "w");
    for (int k = 0; f && k < m->from.nsplits; k++) {
        const data_split *s = &m->from.split[k];
        for (int64_t i = 0; is_train(s) && i < s->ndocs; i++) {
            fwrite((const char *)s->tokens + data_doc_begin(s, i), 1, (size_t)((int64_t)s->end[i] - data_doc_begin(s, i)), f);
            fputc('\n', f);
        }
    }
    int bad = !f || ferror(f);
    return (f && fclose(f)) || bad ? fail(m, path) : 0;
}

/* Learns the units and writes the recipe with their digest. */
static int learn(maker *m, int vocabulary)
{
    char text[PATH + 16], model[PATH + 16], list[PATH + 16], digest[65];
    snprintf(text, sizeof text, "%s/text", m->folder);
    snprintf(model, sizeof model, "%s/units.model", m->folder);
    snprintf(list, sizeof list, "%s/units.vocab", m->folder);
    const char *const file[] = { text };
    const subwords_training t = { .file = file, .nfiles = 1, .vocabulary = vocabulary, .kind = "bpe", .coverage = 1 };
    if (write_text(m, text) || subwords_train(&t, model, m->why, m->nwhy)) return -1;
    if (data_digest(list, digest)) return fail(m, list);
    if (!(m->model = subwords_open(model, m->why, m->nwhy))) return -1;
    int n = snprintf(m->recipe, sizeof m->recipe, "format 1\nset %s\nkind units %d\nof %s %s\nbpe %d %s\n", m->name, UNITS_VERSION, m->from.name,
                     m->from.digest, vocabulary, digest);
    SHA256Data((const uint8_t *)m->recipe, (size_t)n, m->digest);
    return 0;
}

/* The bytes of a word, each a token. */
static int put_bytes(maker *m, const char *word, size_t length, uint64_t times)
{
    for (size_t i = 0; i < length; i++) {
        int64_t id = data_vocab_add(&m->vocab, word + i, 1, times);
        if (id < 0) return -1;
        data_writer_put(&m->out, &(uint32_t){ (uint32_t)id }, 1);
    }
    return 0;
}

/* A line as units; those of train that are new get a number. */
static int put_units(maker *m, const char *line, int train)
{
    char *units = subwords_split(m->model, line), *rest = units;
    int rc = units ? 0 : -1;
    for (char *unit; !rc && (unit = strsep(&rest, " "));) {
        size_t n = strlen(unit);
        int64_t id = train ? data_vocab_add(&m->vocab, unit, n, 1) : data_vocab_find(&m->vocab, unit, n);
        if (!n) continue;
        if (id >= 0) data_writer_put(&m->out, &(uint32_t){ (uint32_t)id }, 1);
        else rc = train ? -1 : put_bytes(m, unit, n, 0);
    }
    free(units);
    return rc;
}

/* A split in units, or as it is. */
static int put_split(maker *m, const data_split *s, const char *name, int units)
{
    int rc = data_writer_split(&m->out, name, 0);
    if (rc) return snprintf(m->why, m->nwhy, "more than %d splits", DATA_SPLITS), -1;
    for (int64_t i = 0; !rc && i < s->ndocs; i++) {
        char *line = line_of(s, i);
        rc = !line ? -1 : units ? put_units(m, line, is_train(s)) : put_bytes(m, line, strlen(line), 0);
        free(line);
        data_writer_doc(&m->out, -1);
    }
    data_writer_text(&m->out, (uint64_t)s->bytes);
    m->bytes += units ? s->bytes : 0;
    return rc ? (snprintf(m->why, m->nwhy, "%s: a line is not UTF-8, or memory is out", name), -1) : 0;
}

/* Train first: it decides what the vocabulary is. */
static int make(maker *m, const char *path)
{
    char name[DATA_NAME + 8];
    if (data_vocab_bytes(&m->vocab) || data_vocab_add(&m->vocab, "<eos>", 5, 0) < 0) return snprintf(m->why, m->nwhy, "no memory"), -1;
    if (data_writer_init(&m->out, path, 4, m->why, m->nwhy)) return -1;
    for (int pass = 0; pass < 3; pass++)
        for (int k = 0; k < m->from.nsplits; k++) {
            const data_split *s = &m->from.split[k];
            snprintf(name, sizeof name, "%s%s", s->name, pass == 2 ? ".text" : "");
            if (is_train(s) == (pass == 0) && put_split(m, s, name, pass < 2)) return -1;
        }
    const data_facts facts = { .name = m->name, .digest = m->digest, .recipe = m->recipe, .vocab = &m->vocab };
    return data_writer_finish(&m->out, &facts, m->why, m->nwhy);
}

/* NAME.tokens points to the file. */
static int point_to(const maker *m, const char *folder, const char *file)
{
    char link[PATH + 64], temporary[PATH + 64];
    snprintf(link, sizeof link, "%s/%s.tokens", folder, m->name);
    snprintf(temporary, sizeof temporary, "%s/%s.link", folder, m->name);
    unlink(temporary);
    return symlink(file, temporary) || rename(temporary, link) ? fail(m, link) : 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int data_units(const data_set *set, const char *path, int vocabulary, data_prepared *done, char *why, size_t nwhy)
{
    maker m = { .why = why, .nwhy = nwhy };
    const double begin = now();
    char folder[PATH - 256], file[128];
    if (set->kind != DATA_PARALLEL) return snprintf(why, nwhy, "%s has no sentence pairs: units are made of pairs alone", set->name), -1;
    if (data_open(path, &m.from, why, nwhy)) return -1;
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    snprintf(m.name, sizeof m.name, "%.32s-%d", set->name, vocabulary);
    snprintf(m.folder, sizeof m.folder, "%s/%s.XXXXXX", folder, m.name);
    int rc = mkdtemp(m.folder) ? learn(&m, vocabulary) : fail(&m, m.folder);
    snprintf(file, sizeof file, "%s-%.16s.tokens", m.name, m.digest);
    snprintf(done->path, sizeof done->path, "%s/%s", folder, file);
    done->reused = !rc && access(done->path, R_OK) == 0;
    if (!rc && !done->reused) rc = make(&m, done->path);
    if (!rc) rc = point_to(&m, folder, file);
    done->seconds = now() - begin;
    done->bytes = m.bytes;
    data_folder_remove(m.folder);
    subwords_close(m.model);
    data_writer_release(&m.out);
    data_vocab_release(&m.vocab);
    data_close(&m.from);
    return rc;
}
