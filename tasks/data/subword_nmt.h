/* subword_nmt.h - byte-pair codes as subword-nmt writes and applies them.  Private to subwords.c.
 *
 * A file of codes: "#version: 0.2", then one merge a line, "left right", the first learned first.  A word is its
 * characters, the last of them with "</w>" behind it (version 0.1: "</w>" is a symbol of its own); the merge that was
 * learned first among those possible is carried out everywhere in the word, until none is possible. */
#ifndef TASKS_DATA_SUBWORD_NMT_H
#define TASKS_DATA_SUBWORD_NMT_H
#include <stddef.h>

typedef struct subword_nmt subword_nmt;
subword_nmt *subword_nmt_open(const char *path, char *why, size_t nwhy);    /* NULL with "path:line: what" */
void  subword_nmt_close(subword_nmt *);
char *subword_nmt_split(const subword_nmt *, const char *line);     /* line: UTF-8, words between spaces */
char *subword_nmt_join(const char *units);
#endif
