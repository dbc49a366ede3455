/* files.h - the files of a data set, found in folders. */
#ifndef DATA_FILES_H
#define DATA_FILES_H
#include <stddef.h>

typedef struct data_paths { char **path; size_t n; } data_paths;
/* patterns: "a.txt|b/?*.txt", tried in this order, each in every folder: the first that some folder has decides.  A
 * pattern is held against the end of a path, whole components, without .gz .xz .zst; a plain file is preferred to
 * a packed one of its name.  Sorted.  0, also where nothing is found; -1 with a sentence: a pattern without a wildcard
 * fits several files, or no memory. */
int  data_paths_find(data_paths *, const char *const *folders, int nfolders, const char *patterns, char *why, size_t nwhy);
void data_paths_release(data_paths *);
#endif
