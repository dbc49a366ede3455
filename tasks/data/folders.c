/* folders.c - see folders.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "folders.h"

int data_folder_make(const char *path)
{
    char part[4096];
    if ((size_t)snprintf(part, sizeof part, "%s/", path) >= sizeof part) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return -1;
        *slash = '/';
    }
    return 0;
}

int data_folder_remove(const char *path)
{
    char *roots[] = { (char *)(uintptr_t)path, NULL };
    if (access(path, F_OK) != 0) return errno == ENOENT ? 0 : -1;
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    int rc = tree ? 0 : -1, error = errno;
    for (FTSENT *e; rc == 0 && (e = fts_read(tree)); )
        if (e->fts_info != FTS_D && remove(e->fts_path) != 0) rc = -1, error = errno;
    if (tree) fts_close(tree);
    errno = error;
    return rc;
}

int data_lock(const char *path, void (*busy)(void *ctx), void *ctx)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    int rc = -1;
    if (errno == EWOULDBLOCK) {
        busy(ctx);
        do rc = flock(fd, LOCK_EX); while (rc != 0 && errno == EINTR);
    }
    if (rc == 0) return fd;
    close(fd);
    return -1;
}
