/* io.h - what of tasks/data needs libarchive and libcurl: an object of its own, libharness-data.so, opened when a file is
 * unpacked or fetched.  A machine that only trains needs neither library. */
#ifndef DATA_IO_H
#define DATA_IO_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DATA_IO_OBJECT "libharness-data.so"
#define DATA_IO_SYMBOL "data_io_v1"

typedef struct data_fetch {
    const char *url, *path;             /* path: continued where it ends, when it exists */
    int64_t bytes;                      /* expected; 0: not known */
    void (*progress)(void *ctx, int64_t at, int64_t of);    /* now and then; NULL: not wanted.  of 0: not known */
    void *ctx;
} data_fetch;

typedef struct data_io {
    uint32_t size;                      /* sizeof(data_io) */
    /* One compressed file (.gz .xz .zst, told by its first bytes) as a stream.  NULL, -1: a sentence without the path. */
    void *(*open)(const char *path, char *why, size_t nwhy);
    ssize_t (*read)(void *stream, void *to, size_t n, char *why, size_t nwhy);
    void (*close)(void *stream);
    /* A tar (compressed or not) or zip into a folder that exists.  Only files and folders whose names stay inside it: a
     * name with "..", an absolute one or a link is refused, as is more than `most` bytes in all. */
    int (*unpack)(const char *archive, const char *folder, int64_t most, char *why, size_t nwhy);
    int (*fetch)(const data_fetch *, char *why, size_t nwhy);
} data_io;

/* The table, or NULL with a sentence. */
const data_io *data_io_open(char *why, size_t nwhy);
#endif
