/* get.c - the archives of a set fetched, held against their digests and unpacked, all below the cache:
 *
 *   downloads/NAME/FILE          verified; FILE.part until then, FILE.sha256 where no digest is published
 *   unpacked/NAME/               complete, or not there at all */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "data.h"
#include "folders.h"
#include "io/io.h"
#include "source.h"

enum { PATH = 4096 };
#define UNPACKS_TO_AT_MOST 64           /* times the size of the archive, and 64 MiB */

typedef struct getting {
    const data_set *set;
    const data_get_args *args;
    char folder[PATH - 512];            /* downloads/NAME */
    char *why;
    size_t nwhy;
} getting;

static void say(const data_get_args *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const data_get_args *a, const char *format, ...)
{
    char sentence[PATH];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    a->say(a->ctx, sentence);
}

static int fail(const getting *g, const char *what) { snprintf(g->why, g->nwhy, "%s: %s", what, strerror(errno)); return -1; }

static const char *file_name(const data_download *d) { return strrchr(d->url, '/') + 1; }

int data_set_folder(const data_set *set, char *out, size_t n)
{
    char below[DATA_NAME + 16];
    snprintf(below, sizeof below, "unpacked/%s", set->name);
    return data_cache_path(out, n, below);
}

/* The digest that is kept beside a file for which none is published, "" when there is none yet. */
static void kept_digest(const char *path, char out[65])
{
    char record[PATH];
    snprintf(record, sizeof record, "%s.sha256", path);
    FILE *f = fopen(record, "r");
    if (!f || fscanf(f, "%64[0-9a-f]", out) != 1) *out = 0;
    if (f) fclose(f);
}

/* Whether the file at path is what is expected.  No digest known: its own becomes the one that is kept for `name`. */
static int verify(const getting *g, const data_download *d, const char *path, const char *name)
{
    char digest[65], kept[65] = "", record[PATH];
    struct stat st;
    if (stat(path, &st) != 0 || data_digest(path, digest) != 0) return fail(g, path);
    if (!d->sha256) kept_digest(name, kept);
    const char *expected = d->sha256 ? d->sha256 : kept;
    if (d->bytes && st.st_size != d->bytes) {
        snprintf(g->why, g->nwhy, "%s has %lld bytes, expected %lld", path, (long long)st.st_size, (long long)d->bytes);
        return -1;
    }
    if (*expected && strcmp(expected, digest)) {
        snprintf(g->why, g->nwhy, "%s has the SHA-256 %s, expected %s%s", path, digest, expected, d->sha256 ? "" : " (that of the first copy)");
        return -1;
    }
    say(g->args, "%s: SHA-256 %s, %s", file_name(d), digest,
        d->sha256 ? "as published" : *kept ? "as in the first copy" : "none is published, this one is kept");
    if (*expected) return 0;
    snprintf(record, sizeof record, "%s.sha256", name);
    FILE *f = fopen(record, "w");
    if (!f) return fail(g, record);
    fprintf(f, "%s  %s\n", digest, file_name(d));
    return fclose(f) == 0 ? 0 : fail(g, record);
}

/* A local file copied to path. */
static int copy(const getting *g, const char *from, const char *path)
{
    const int in = open(from, O_RDONLY | O_CLOEXEC), out = in < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    char block[1 << 16];
    ssize_t n = in < 0 || out < 0 ? -1 : 1;
    while (n > 0 && (n = read(in, block, sizeof block)) > 0)
        for (ssize_t at = 0, put; n > 0 && at < n; at += put)
            if ((put = write(out, block + at, (size_t)(n - at))) < 0) n = put = -1;
    const int error = errno;
    if (in >= 0) close(in);
    if (out >= 0 && close(out) != 0) n = -1;
    errno = error;
    return n < 0 ? fail(g, from) : 0;
}

/* The file of d is in the downloads folder and verified. */
static int fetch_one(const getting *g, const data_io *io, const data_download *d)
{
    char path[PATH], part[PATH + 8], url[PATH];
    snprintf(path, sizeof path, "%s/%s", g->folder, file_name(d));
    if (access(path, F_OK) == 0) return verify(g, d, path, path);
    snprintf(part, sizeof part, "%s.part", path);
    if (g->args->from) {
        snprintf(url, sizeof url, "%s/%s", g->args->from, file_name(d));
        if (copy(g, url, part) != 0) return -1;
    } else {
        if (g->args->mirror) snprintf(url, sizeof url, "%s/%s", g->args->mirror, file_name(d));
        else snprintf(url, sizeof url, "%s", d->url);
        say(g->args, "fetching %s", url);
        if (io->fetch(&(data_fetch){ url, part, d->bytes, g->args->progress, g->args->ctx }, g->why, g->nwhy) != 0) return -1;
    }
    if (verify(g, d, part, path) != 0) {
        unlink(part);
        return -1;
    }
    return rename(part, path) == 0 ? 0 : fail(g, part);
}

/* One download into the folder that will be the unpacked set. */
static int unpack_one(const getting *g, const data_io *io, const data_download *d, const char *folder)
{
    char path[PATH], to[PATH + 512], sentence[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", g->folder, file_name(d));
    snprintf(to, sizeof to, "%s/%s", folder, file_name(d));
    if (d->plain) return link(path, to) == 0 || symlink(path, to) == 0 ? 0 : fail(g, to);
    if (stat(path, &st) != 0) return fail(g, path);
    say(g->args, "unpacking %s", file_name(d));
    if (io->unpack(path, folder, UNPACKS_TO_AT_MOST * (st.st_size + (1 << 20)), sentence, sizeof sentence) == 0) return 0;
    snprintf(g->why, g->nwhy, "%s: %s", path, sentence);
    return -1;
}

/* The folder `unpacked/NAME` at once, or not at all. */
static int unpack_all(const getting *g, const data_io *io)
{
    char folder[PATH - 512], temporary[PATH];
    int rc = 0;
    if (data_set_folder(g->set, folder, sizeof folder) != 0) return fail(g, "the cache");
    if (access(folder, F_OK) == 0) return 0;
    snprintf(temporary, sizeof temporary, "%s.part", folder);
    if (data_folder_remove(temporary) != 0 || data_folder_make(temporary) != 0) return fail(g, temporary);
    if (g->set->generate) rc = g->set->generate(temporary, g->why, g->nwhy);
    for (const data_download *d = g->set->downloads; rc == 0 && d && d->url; d++) rc = unpack_one(g, io, d, temporary);
    if (rc == 0 && rename(temporary, folder) != 0) rc = fail(g, folder);
    if (rc != 0) data_folder_remove(temporary);
    return rc;
}

static void tell_busy(void *ctx)
{
    const getting *g = ctx;
    say(g->args, "another process is getting %s: waiting for it", g->set->name);
}

/* Where the downloads are, made when it is missing. */
static int open_folder(getting *g)
{
    char below[DATA_NAME + 16];
    snprintf(below, sizeof below, "downloads/%s", g->set->name);
    if (data_cache_path(g->folder, sizeof g->folder, below) != 0) errno = ENAMETOOLONG;
    else if (data_folder_make(g->folder) == 0) return 0;
    return fail(g, g->folder);
}

int data_get(const data_set *set, const data_get_args *args, char *why, size_t nwhy)
{
    getting g = { .set = set, .args = args, .why = why, .nwhy = nwhy };
    char lock[PATH];
    const data_io *io = NULL;
    if (!set->downloads && !set->generate) {
        snprintf(why, nwhy, "%s is not to be had as one archive: prepare it from a local copy (%s) with --from FOLDER", set->name, set->home);
        return -1;
    }
    if (open_folder(&g) != 0 || (!set->generate && !(io = data_io_open(why, nwhy)))) return -1;
    snprintf(lock, sizeof lock, "%s/lock", g.folder);
    const int fd = data_lock(lock, tell_busy, &g);
    if (fd < 0) return fail(&g, lock);
    int rc = 0;
    for (const data_download *d = set->downloads; rc == 0 && d && d->url; d++) rc = fetch_one(&g, io, d);
    if (rc == 0) rc = unpack_all(&g, io);
    close(fd);
    return rc;
}

int data_verify_downloads(const data_set *set, const data_get_args *args, char *why, size_t nwhy)
{
    getting g = { .set = set, .args = args, .why = why, .nwhy = nwhy };
    char path[PATH];
    int rc = set->downloads ? open_folder(&g) : 0;
    for (const data_download *d = set->downloads; rc == 0 && d && d->url; d++) {
        snprintf(path, sizeof path, "%s/%s", g.folder, file_name(d));
        if (access(path, F_OK) == 0) rc = verify(&g, d, path, path);
        else say(args, "%s: not fetched", file_name(d));
    }
    return rc;
}
