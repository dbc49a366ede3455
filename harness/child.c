/* child.c - see child.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "child.h"
#include "protocol.h"

enum { GUARDED_MAX = 1024 };
static int guard_pipe = -1;             /* to the guard: a pid that began, or the negative of one that ended */
static pid_t guard_pid;

/* Tells the guard that a group began (pid) or is over (-pid).  A guard that is gone is no reason to stop. */
static void guard_tell(pid_t pid)
{
    if (guard_pipe >= 0 && write(guard_pipe, &pid, sizeof pid) < 0) { close(guard_pipe); guard_pipe = -1; }
}

/* The guard's life: keeps the list of living groups until the runner's end of the pipe closes, then kills
 * what is left. */
static void guard_main(int fd)
{
    static pid_t living[GUARDED_MAX];
    int n = 0;
    pid_t pid;
    while (read(fd, &pid, sizeof pid) == (ssize_t)sizeof pid) {
        if (pid > 0 && n < GUARDED_MAX) living[n++] = pid;
        for (int i = 0; pid < 0 && i < n; i++)
            if (living[i] == -pid) living[i] = living[--n];
    }
    while (n > 0) kill(-living[--n], SIGKILL);
    _exit(0);
}

int hs_guard_start(void)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) < 0) return -1;
    pid_t pid = fork();
    if (pid < 0) { close(fd[0]); close(fd[1]); return -1; }
    if (pid == 0) {
        setpgid(0, 0);                  /* out of reach of the terminal's signals */
        close(fd[1]);
        guard_main(fd[0]);
    }
    close(fd[0]);
    guard_pipe = fd[1];
    guard_pid = pid;
    return 0;
}

void hs_guard_stop(void)
{
    if (guard_pipe >= 0) close(guard_pipe);
    if (guard_pid > 0) waitpid(guard_pid, NULL, 0);
    guard_pipe = -1;
    guard_pid = 0;
}

/* The child between fork and exec; never returns.  fd: the child's ends for 0, 3 and 1 + 2. */
static void become(const char *const *args, const int fd[3], pid_t runner)
{
    int high[3];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != runner) _exit(127);                /* it died before prctl */
    setpgid(0, 0);
    for (int i = 0; i < 3; i++) high[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 10);    /* clear of 0..3 */
    if (dup2(high[0], 0) < 0 || dup2(high[2], 1) < 0 || dup2(high[2], 2) < 0 || dup2(high[1], HS_WORKER_FD) < 0) _exit(127);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_IGN);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    execv("/proc/self/exe", (char *const *)args);
    _exit(127);
}

/* Three pipes as six descriptors: child's and runner's end of stdin, answers, log. */
static int open_pipes(int child[3], int mine[3])
{
    for (int i = 0; i < 3; i++) child[i] = mine[i] = -1;
    for (int i = 0; i < 3; i++) {
        int fd[2];
        if (pipe2(fd, O_CLOEXEC) < 0) return -1;
        child[i] = fd[i == 0 ? 0 : 1];
        mine[i] = fd[i == 0 ? 1 : 0];
    }
    fcntl(mine[1], F_SETFL, O_NONBLOCK);
    fcntl(mine[2], F_SETFL, O_NONBLOCK);
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

int hs_child_start(hs_child *c, const char *const *args, char *why, size_t nwhy)
{
    const char *argv[16] = {"harness"};
    for (int i = 0; i < 14 && args[i]; i++) argv[i + 1] = args[i];
    int theirs[3], mine[3];
    pid_t me = getpid(), pid = -1;
    *c = (hs_child){.in = -1, .out = -1, .log = -1, .tail = malloc(HS_TAIL + 1)};
    int piped = c->tail ? open_pipes(theirs, mine) : -1;
    if (piped == 0) {
        fflush(NULL);
        pid = fork();
    }
    if (pid == 0) become(argv, theirs, me);
    if (pid < 0) snprintf(why, nwhy, "cannot start a worker: %s", strerror(errno));
    for (int i = 0; c->tail && i < 3; i++) {
        close_fd(&theirs[i]);
        if (pid < 0) close_fd(&mine[i]);
    }
    if (pid < 0) { free(c->tail); c->tail = NULL; return -1; }
    setpgid(pid, pid);                  /* in both processes: neither waits for the other */
    guard_tell(pid);
    c->pid = pid;
    c->in = mine[0], c->out = mine[1], c->log = mine[2];
    c->tail[0] = 0;
    return 0;
}

void hs_child_signal(const hs_child *c, int sig)
{
    if (c->pid > 0) kill(-c->pid, sig);
}

int hs_child_ended(hs_child *c, int *wait_status)
{
    siginfo_t info = {0};
    if (c->pid <= 0 || waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0) return 0;
    kill(-c->pid, SIGKILL);             /* while its number is still its own */
    waitpid(c->pid, wait_status, 0);
    guard_tell(-c->pid);
    c->pid = 0;
    return 1;
}

void hs_child_kill(hs_child *c)
{
    if (c->pid > 0) {
        kill(-c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        guard_tell(-c->pid);
        c->pid = 0;
    }
    close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->log);
    free(c->tail);
    c->tail = NULL;
}

/* Appends to the tail, dropping its oldest half when it is full: amortised, not byte by byte. */
static void tail_add(hs_child *c, const char *text, size_t n)
{
    if (c->ntail + n > HS_TAIL) {
        size_t keep = HS_TAIL / 2 < c->ntail ? HS_TAIL / 2 : c->ntail;
        memmove(c->tail, c->tail + c->ntail - keep, keep);
        c->ntail = keep;
    }
    memcpy(c->tail + c->ntail, text, n);
    c->ntail += n;
    c->tail[c->ntail] = 0;
}

void hs_child_read_log(hs_child *c)
{
    char text[4096];
    for (int i = 0; c->log >= 0 && i < 64; i++) {       /* bounded: a worker may print faster than we read */
        ssize_t n = read(c->log, text, sizeof text);
        if (n == 0) close_fd(&c->log);
        if (n <= 0) return;
        for (ssize_t j = 0; j < n; j++) if (!text[j]) text[j] = '?';
        tail_add(c, text, (size_t)n);
    }
}

const char *hs_child_last_line(hs_child *c)
{
    hs_clean_text(c->tail);
    char *end = c->tail + c->ntail;
    while (end > c->tail && (end[-1] == '\n' || end[-1] == ' ')) *--end = 0;
    c->ntail = (size_t)(end - c->tail);
    char *line = strrchr(c->tail, '\n');
    return line ? line + 1 : c->tail;
}

void hs_child_how(int ws, char *out, size_t n)
{
    if (WIFSIGNALED(ws)) {
        int sig = WTERMSIG(ws);
        snprintf(out, n, "killed by signal %d (%s)", sig, sig == SIGKILL ? "out of memory?" : strsignal(sig));
    } else if (WEXITSTATUS(ws) == HS_EXIT_DEAF) {
        snprintf(out, n, "could not answer any more: its channel was closed under it");
    } else {
        snprintf(out, n, "exited with code %d", WEXITSTATUS(ws));
    }
}
