/* files.c - see files.h. */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "files.h"
#include "source.h"

enum { DEEPEST = 8 };

/* The length of a path without the ending of a packed file. */
static size_t plain_length(const char *path)
{
    return data_is_packed(path) ? (size_t)(strrchr(path, '.') - path) : strlen(path);
}

/* Whether the last components of path, as many as the pattern has, fit it. */
static int fits(const char *pattern, const char *path)
{
    char tail[4096];
    snprintf(tail, sizeof tail, "%.*s", (int)plain_length(path), path);
    int slashes = 0;
    for (const char *p = pattern; *p; p++) slashes += *p == '/';
    char *start = tail + strlen(tail);
    while (start > tail && (start[-1] != '/' || slashes-- > 0)) start--;
    return fnmatch(pattern, start, FNM_PATHNAME) == 0;
}

static int append(data_paths *p, const char *path)
{
    if ((p->n & (p->n - 1)) == 0) {                 /* a power of two, or none yet: full */
        char **wider = realloc(p->path, (p->n ? 2 * p->n : 1) * sizeof *wider);
        if (!wider) return -1;
        p->path = wider;
    }
    p->path[p->n] = strdup(path);
    return p->path[p->n] ? (p->n++, 0) : -1;
}

/* By the plain name; the plain file before the packed ones. */
static int by_name(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    const size_t nx = plain_length(x), ny = plain_length(y);
    const int cmp = strncmp(x, y, nx < ny ? nx : ny);
    if (cmp || nx != ny) return cmp ? cmp : nx < ny ? -1 : 1;
    return strcmp(x, y);
}

/* Sorts, and leaves one file of each plain name. */
static void tidy(data_paths *p)
{
    size_t n = 0;
    if (p->n) qsort(p->path, p->n, sizeof *p->path, by_name);
    for (size_t i = 0; i < p->n; i++) {
        const size_t length = plain_length(p->path[i]);
        if (n && plain_length(p->path[n - 1]) == length && !strncmp(p->path[n - 1], p->path[i], length)) free(p->path[i]);
        else p->path[n++] = p->path[i];
    }
    p->n = n;
}

/* Every file below the folder that fits. */
static int walk(data_paths *p, const char *folder, const char *pattern)
{
    char *roots[] = { (char *)(uintptr_t)folder, NULL };
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
    int rc = tree ? 0 : -1;
    for (FTSENT *e; rc == 0 && (e = fts_read(tree)); ) {
        if (e->fts_info == FTS_D && e->fts_level >= DEEPEST) fts_set(tree, e, FTS_SKIP);
        if ((e->fts_info == FTS_F || e->fts_info == FTS_NSOK) && fits(pattern, e->fts_path)) rc = append(p, e->fts_path);
    }
    if (tree) fts_close(tree);
    tidy(p);
    return rc;
}

int data_paths_find(data_paths *p, const char *const *folders, int nfolders, const char *patterns, char *why, size_t nwhy)
{
    char all[512], *rest = all, *pattern;
    *p = (data_paths){ 0 };
    snprintf(all, sizeof all, "%s", patterns);
    while (p->n == 0 && (pattern = strsep(&rest, "|")))
        for (int i = 0; p->n == 0 && i < nfolders; i++)
            if (walk(p, folders[i], pattern) != 0) {
                snprintf(why, nwhy, "%s: no memory for its list of files", folders[i]);
                data_paths_release(p);
                return -1;
            } else if (p->n > 1 && !strpbrk(pattern, "*?[")) {
                snprintf(why, nwhy, "%s and %s: which of them is meant?", p->path[0], p->path[1]);
                data_paths_release(p);
                return -1;
            }
    return 0;
}

void data_paths_release(data_paths *p)
{
    for (size_t i = 0; i < p->n; i++) free(p->path[i]);
    free(p->path);
    *p = (data_paths){ 0 };
}
