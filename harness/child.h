/* child.h - this program as a child that may do its worst: how one is started, heard, stopped and buried.
 *
 * Invariants:
 *  1. A child leads a process group of its own; whoever is left in the group when it ends is killed.
 *  2. When the runner dies, in whatever way, the child and its group die too: the kernel kills the child
 *     (PR_SET_PDEATHSIG) and a guard process kills the groups.
 *  3. Nothing a child writes can block or fill the runner: both pipes are read without waiting, the log keeps
 *     its tail alone. */
#ifndef HS_CHILD_H
#define HS_CHILD_H
#include <stddef.h>
#include <sys/types.h>

enum { HS_TAIL = 64 << 10 };            /* bytes of log that are kept */
typedef struct hs_child {
    pid_t pid;                          /* 0: none */
    int in, out, log;                   /* its stdin, its HS_WORKER_FD, its stdout and stderr; -1: closed */
    char *tail;                         /* HS_TAIL + 1 bytes */
    size_t ntail;
} hs_child;

/* Starts `harness ARGS...`; args end with NULL.  0, or -1 with a sentence. */
int  hs_child_start(hs_child *, const char *const *args, char *why, size_t nwhy);
void hs_child_signal(const hs_child *, int sig);    /* to the whole group */
/* 1 when the child has ended: then the rest of its group is dead and *wait_status tells how.  0: still alive. */
int  hs_child_ended(hs_child *, int *wait_status);
void hs_child_kill(hs_child *);                     /* ends it at once, if it lives, and releases everything */
void hs_child_read_log(hs_child *);                 /* what is there now */
const char *hs_child_last_line(hs_child *);         /* of the log, or "" */
/* "killed by signal 11 (Segmentation fault)", "exited with code 0". */
void hs_child_how(int wait_status, char *out, size_t n);
/* The guard of this process; call it once, before the first child.  -1 when it could not be started. */
int  hs_guard_start(void);
void hs_guard_stop(void);
#endif
