/* folders.h - folders, locks and trees below the cache. */
#ifndef DATA_FOLDERS_H
#define DATA_FOLDERS_H
#include <stddef.h>
#include <stdint.h>
/* path and the folders above it; 0, or -1 with errno. */
int data_folder_make(const char *path);
/* A folder and all below it is gone: 0, or -1 with errno.  Links are taken away, not followed. */
int data_folder_remove(const char *path);
/* Waits for the lock; busy() is called once before waiting when another process holds it.  A descriptor that close()
 * gives back, or -1 with errno. */
int data_lock(const char *path, void (*busy)(void *ctx), void *ctx);
#endif
