/* table.c - the one symbol of libharness-data.so. */
#include "internal.h"

extern const data_io data_io_v1;
__attribute__((visibility("default"))) const data_io data_io_v1 = {
    .size = sizeof(data_io), .open = io_open, .read = io_read, .close = io_close, .unpack = io_unpack, .fetch = io_fetch };
