/* prepare.c - a set's files read once, into one file below the cache:
 *
 *   prepared/NAME-DIGEST.tokens  DIGEST: of the recipe, that is of the sources' bytes, the reader and its options
 *   prepared/NAME.tokens         a link to the one that was prepared last
 *   prepared/NAME.lock           held while one is made: who comes second waits and finds it done */
#define _GNU_SOURCE
#include <errno.h>
#include <glob.h>
#include <sha256.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "data.h"
#include "files.h"
#include "folders.h"
#include "read.h"

enum { PATH = 4096, ROWS = 16, READER_VERSION = 1 };    /* READER_VERSION: raised when a reader makes other tokens */

typedef struct row { const data_file *file; data_paths path, other; } row;
typedef struct job {
    const data_set *set;
    const data_prepare_args *args;
    data_kind kind;
    uint64_t min_count;
    int64_t limit;
    char unpacked[PATH];
    const char *folder[DATA_FROM];
    int nfolders;
    row row[ROWS];
    int nrows;
    char *recipe, digest[65];
    data_notes notes;
    int64_t bytes;
    char *why;
    size_t nwhy;
} job;

static void say(const job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const job *j, const char *format, ...)
{
    char sentence[PATH + 256];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    j->args->say(j->args->ctx, sentence);
}

/* ---- the files ------------------------------------------------------------------------------------------------- */

/* Where to look: the folders that were given, or the unpacked set, which is made when it can be made from a seed. */
static int choose_folders(job *j)
{
    const data_get_args get = { .say = j->args->say, .ctx = j->args->ctx };
    for (int i = 0; i < j->args->nfrom; i++) {
        j->folder[j->nfolders++] = j->args->from[i];
        if (access(j->args->from[i], R_OK | X_OK) == 0) continue;
        snprintf(j->why, j->nwhy, "%s: %s", j->args->from[i], strerror(errno));
        return -1;
    }
    if (j->nfolders) return 0;
    if (data_set_folder(j->set, j->unpacked, sizeof j->unpacked) != 0) return -1;
    if (j->set->generate && data_get(j->set, &get, j->why, j->nwhy) != 0) return -1;
    j->folder[j->nfolders++] = j->unpacked;
    if (access(j->unpacked, F_OK) == 0) return 0;
    if (j->set->downloads) snprintf(j->why, j->nwhy, "%s is not here: harness data get %s, or --from FOLDER", j->set->name, j->set->name);
    else snprintf(j->why, j->nwhy, "%s is prepared from a local copy: --from FOLDER", j->set->name);
    return -1;
}

/* Whether some row before the last has files of the split. */
static int has_files(const job *j, const char *split)
{
    for (int i = 0; i + 1 < j->nrows; i++)
        if (!strcmp(j->row[i].file->split, split) && j->row[i].path.n) return 1;
    return 0;
}

/* The files of every row; 0, or -1: one that is needed is missing. */
static int find_rows(job *j)
{
    for (const data_file *f = j->set->files; f->split; f++) {
        row *r = &j->row[j->nrows++];
        r->file = f;
        if (data_paths_find(&r->path, j->folder, j->nfolders, f->names, j->why, j->nwhy) != 0) return -1;
        if (f->other && data_paths_find(&r->other, j->folder, j->nfolders, f->other, j->why, j->nwhy) != 0) return -1;
        const int missing = r->path.n == 0 || (f->other && r->other.n == 0);
        if (missing && !(f->flags & DATA_OPTIONAL)) {
            snprintf(j->why, j->nwhy, "there is no file %s (.gz .xz .zst) in %s%s", r->path.n ? f->other : f->names, j->folder[0],
                     j->nfolders > 1 ? " and the other folders" : "");
            return -1;
        }
        if (missing) {
            if (!has_files(j, f->split)) say(j, "no %s: there is no file %s", f->split, f->names);
            data_paths_release(&r->path);
        } else if (f->other && r->path.n != r->other.n) {
            snprintf(j->why, j->nwhy, "%zu files %s and %zu files %s do not go together", r->path.n, f->names, r->other.n, f->other);
            return -1;
        }
    }
    return 0;
}

/* ---- the kinds ---------------------------------------------------------------------------------------------------- */

/* shuffled: train comes sorted, by family, by source or by label, and its documents are independent. */
typedef struct reader { int width; int (*vocab)(data_vocab *); data_read *read; int shuffled; } reader;
static const reader readers[DATA_KINDS] = {
    [DATA_WORDS] = { 4, data_vocab_words, data_read_words },       [DATA_BYTES] = { 1, data_vocab_bytes, data_read_bytes },
    [DATA_PROTEIN] = { 1, data_protein_vocab, data_read_proteins, 1 }, [DATA_PARALLEL] = { 1, data_vocab_bytes, data_read_parallel, 1 },
    [DATA_MUSIC] = { 1, data_music_vocab, data_read_music },        [DATA_IMAGES] = { 1, data_vocab_bytes, data_read_images },
    [DATA_LABELLED] = { 1, data_vocab_bytes, data_read_labelled, 1 },  [DATA_LISTOPS] = { 1, data_listops_vocab, data_read_listops },
    [DATA_MATCHED] = { 1, data_vocab_bytes, data_read_matched },    [DATA_AUDIO] = { 1, data_vocab_bytes, data_read_audio },
};

/* ---- the recipe --------------------------------------------------------------------------------------------------- */

/* "file train SHA256 name" for each of the paths. */
static int describe_files(job *j, FILE *out, const char *split, const data_paths *paths)
{
    char digest[65] = "";
    for (size_t i = 0; i < paths->n; i++) {
        if (data_digest(paths->path[i], digest) != 0) {
            snprintf(j->why, j->nwhy, "%s: %s", paths->path[i], strerror(errno));
            return -1;
        }
        const char *slash = strrchr(paths->path[i], '/');
        fprintf(out, "file %s %s %s\n", split, digest, slash ? slash + 1 : paths->path[i]);
    }
    return 0;
}

/* All that the tokens depend on, a fact a line, and its digest. */
static int write_recipe(job *j)
{
    size_t n;
    int rc = 0;
    FILE *out = open_memstream(&j->recipe, &n);
    if (!out) return -1;
    fprintf(out, "format %d\nset %s\nkind %s %d\n", 1, j->set->name, data_kind_names[j->kind], READER_VERSION);
    if (j->kind == DATA_WORDS) fprintf(out, "min_count %llu\n", (unsigned long long)j->min_count);
    if (readers[j->kind].shuffled) fprintf(out, "train shuffled\n");
    if (j->limit) fprintf(out, "limit %lld\n", (long long)j->limit);
    for (int i = 0; rc == 0 && i < j->nrows; i++) {
        const data_file *f = j->row[i].file;
        if (f->to) fprintf(out, "range %s %lld %lld\n", f->split, (long long)f->from, (long long)f->to);
        rc = describe_files(j, out, f->split, &j->row[i].path);
        if (rc == 0) rc = describe_files(j, out, f->split, &j->row[i].other);
    }
    if (fclose(out) != 0) rc = -1;
    if (rc == 0) SHA256Data((const uint8_t *)j->recipe, n, j->digest);
    return rc;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* Every file of one split, one side of it where there are two, into the writer. */
static int read_split(job *j, data_reading *r, const char *split, int side)
{
    char name[DATA_NAME];
    snprintf(name, sizeof name, "%s", split);
    if (j->kind == DATA_PARALLEL) snprintf(name, sizeof name, "%.40s.%.2s", split, j->set->languages + 3 * side);
    r->learn = strcmp(split, "train") == 0;
    if (data_writer_split(r->out, name, r->learn && readers[j->kind].shuffled) != 0) {
        snprintf(j->why, j->nwhy, "more than %d splits", DATA_SPLITS);
        return -1;
    }
    r->split = split;
    r->side = side;
    r->left = r->learn && j->limit ? j->limit : INT64_MAX;
    for (int i = 0; i < j->nrows; i++) {
        const row *w = &j->row[i];
        if (strcmp(w->file->split, split)) continue;
        for (size_t k = 0; k < w->path.n; k++)
            if (readers[j->kind].read(r, w->file, w->path.path[k], w->file->other ? w->other.path[k] : NULL) != 0) return -1;
    }
    if (r->out->split[r->out->nsplits - 1].n || j->kind == DATA_PROTEIN) return 0;      /* of few sequences a part may have none */
    snprintf(j->why, j->nwhy, "%s has no tokens", name);
    return -1;
}

/* Whether row i is the first of its split, and has files. */
static int begins_split(const job *j, int i)
{
    for (int k = 0; k < i; k++)
        if (!strcmp(j->row[k].file->split, j->row[i].file->split)) return 0;
    return j->row[i].path.n > 0;
}

/* Words have their ids once train is read: writes the set. */
static int finish(job *j, data_reading *r)
{
    data_facts facts = { .name = j->set->name, .digest = j->digest, .recipe = j->recipe, .vocab = r->vocab };
    if (j->kind != DATA_WORDS) return data_writer_finish(r->out, &facts, j->why, j->nwhy);
    data_vocab ordered;
    uint32_t *map;
    if (data_vocab_order(r->vocab, j->min_count, &ordered, &map) != 0) {
        snprintf(j->why, j->nwhy, "no memory for the vocabulary");
        return -1;
    }
    facts.vocab = &ordered;
    facts.map = map;
    facts.nmap = r->vocab->n;
    const int rc = data_writer_finish(r->out, &facts, j->why, j->nwhy);
    data_vocab_release(&ordered);
    free(map);
    return rc;
}

/* Reads everything and writes the set to path. */
static int make(job *j, const char *path)
{
    data_writer out;
    data_vocab vocab = { 0 };
    if (data_writer_init(&out, path, readers[j->kind].width, j->why, j->nwhy) != 0) return -1;
    data_reading r = { .set = j->set, .out = &out, .vocab = &vocab, .why = j->why, .nwhy = j->nwhy };
    int rc = readers[j->kind].vocab(&vocab);
    if (rc != 0) snprintf(j->why, j->nwhy, "no memory");
    const int sides = j->kind == DATA_PARALLEL ? 2 : 1;
    for (int i = 0; rc == 0 && i < j->nrows; i++)
        for (int side = 0; rc == 0 && side < sides && begins_split(j, i); side++) rc = read_split(j, &r, j->row[i].file->split, side);
    if (rc == 0) rc = finish(j, &r);
    j->notes = r.notes;
    j->bytes = r.bytes;
    data_vocab_release(&vocab);
    data_writer_release(&out);
    return rc;
}

/* ---- the cache ----------------------------------------------------------------------------------------------------------- */

static void tell_busy(void *ctx)
{
    const job *j = ctx;
    say(j, "another process is preparing %s: waiting for it", j->set->name);
}

/* What a killed process left; only who holds the lock may call this. */
static void clear_parts(const char *path)
{
    char pattern[PATH + 16];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s.*.part", path);
    if (glob(pattern, 0, NULL, &found) != 0) return;
    for (size_t i = 0; i < found.gl_pathc; i++) unlink(found.gl_pathv[i]);
    globfree(&found);
}

/* prepared/NAME.tokens points to the file. */
static int point_to(const job *j, const char *folder, const char *file)
{
    char link[PATH], temporary[PATH];
    snprintf(link, sizeof link, "%s/%s.tokens", folder, j->set->name);
    snprintf(temporary, sizeof temporary, "%s/%s.link", folder, j->set->name);
    unlink(temporary);
    if (symlink(file, temporary) == 0 && rename(temporary, link) == 0) return 0;
    snprintf(j->why, j->nwhy, "%s: %s", link, strerror(errno));
    return -1;
}

/* Makes the set unless it is there, under the lock. */
static int make_once(job *j, data_prepared *done)
{
    char folder[PATH - 256], file[128], lock[PATH], ignored[256];
    data_tokens there;
    if (data_cache_path(folder, sizeof folder, "prepared") != 0 || data_folder_make(folder) != 0) {
        snprintf(j->why, j->nwhy, "%s: %s", folder, strerror(errno));
        return -1;
    }
    snprintf(file, sizeof file, "%s-%.16s.tokens", j->set->name, j->digest);
    snprintf(done->path, sizeof done->path, "%s/%s", folder, file);
    snprintf(lock, sizeof lock, "%s/%s.lock", folder, j->set->name);
    const int fd = data_lock(lock, tell_busy, j);
    if (fd < 0) {
        snprintf(j->why, j->nwhy, "%s: %s", lock, strerror(errno));
        return -1;
    }
    clear_parts(done->path);
    done->reused = data_open(done->path, &there, ignored, sizeof ignored) == 0;
    if (done->reused) data_close(&there);
    int rc = done->reused ? 0 : make(j, done->path);
    if (rc == 0) rc = point_to(j, folder, file);
    close(fd);
    return rc;
}

/* What was read as something else than it was. */
static void tell_notes(const job *j)
{
    const data_notes *n = &j->notes;
    if (n->crlf) say(j, "%lld lines ended in CR LF: read as LF", (long long)n->crlf);
    if (n->empty_pairs) say(j, "%lld pairs left out, one side of which is empty", (long long)n->empty_pairs);
    if (n->odd_letters) say(j, "%lld letters J read as X", (long long)n->odd_letters);
    if (n->stops) say(j, "%lld stops ('*') at the end of a sequence left out", (long long)n->stops);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whether splits are ranges of bytes, which words know nothing of. */
static int has_ranges(const data_set *set)
{
    for (const data_file *f = set->files; f->split; f++)
        if (set->kind == DATA_BYTES && f->to) return 1;
    return 0;
}

/* The options as they hold for this set; -1: one does not fit it. */
static int choose_options(job *j)
{
    const data_prepare_args *a = j->args;
    const int text = j->set->kind == DATA_WORDS || j->set->kind == DATA_BYTES;
    j->kind = a->level >= 0 && text ? (data_kind)a->level : j->set->kind;
    j->min_count = a->min_count >= 0 ? (uint64_t)a->min_count : j->set->min_count ? j->set->min_count : 1;
    j->limit = a->limit > 0 ? a->limit : 0;
    if (a->level >= 0 && !text) snprintf(j->why, j->nwhy, "%s is read as %s, not by words or bytes", j->set->name, data_kind_names[j->kind]);
    else if (j->kind == DATA_WORDS && has_ranges(j->set))
        snprintf(j->why, j->nwhy, "the splits of %s are ranges of bytes: it is not read by words", j->set->name);
    else if (a->min_count >= 0 && j->kind != DATA_WORDS)
        snprintf(j->why, j->nwhy, "only words are counted out: --min-count does not belong to %s", data_kind_names[j->kind]);
    else return 0;
    return -1;
}

int data_prepare(const data_set *set, const data_prepare_args *args, data_prepared *done, char *why, size_t nwhy)
{
    job j = { .set = set, .args = args, .why = why, .nwhy = nwhy };
    const double start = now();
    *done = (data_prepared){ 0 };
    int rc = choose_options(&j);
    if (rc == 0) rc = choose_folders(&j);
    if (rc == 0) rc = find_rows(&j);
    if (rc == 0) rc = write_recipe(&j);
    if (rc == 0) rc = make_once(&j, done);
    if (rc == 0) tell_notes(&j);
    done->seconds = now() - start;
    done->bytes = j.bytes;
    for (int i = 0; i < j.nrows; i++) {
        data_paths_release(&j.row[i].path);
        data_paths_release(&j.row[i].other);
    }
    free(j.recipe);
    return rc;
}
