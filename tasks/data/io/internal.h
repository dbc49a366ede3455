/* internal.h - the functions behind the table of io.h. */
#ifndef DATA_IO_INTERNAL_H
#define DATA_IO_INTERNAL_H
#include "io.h"
void   *io_open(const char *path, char *why, size_t nwhy);
ssize_t io_read(void *stream, void *to, size_t n, char *why, size_t nwhy);
void    io_close(void *stream);
int     io_unpack(const char *archive, const char *folder, int64_t most, char *why, size_t nwhy);
int     io_fetch(const data_fetch *, char *why, size_t nwhy);
#endif
