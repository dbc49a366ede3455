/* check.c - the parent's side: a child for each plug-in, its results by pipe, its death explained.
 *
 * Results come as JSON lines on a descriptor of their own, so that a plug-in that prints harms nothing; where
 * the child is stands in shared memory, so that a crash has a name.  After a crash the rest of the plug-in is
 * checked by a new child that starts behind the case that crashed. */
#define _GNU_SOURCE                     /* memfd_create, strsignal */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check_case.h"
#include "plan.h"

enum { MOST_CRASHES = 3, DEFAULT_LIMIT = 60, LINE = 1 << 14 };

/* ---- results -------------------------------------------------------------------------------------------- */
static char *copy(const char *s) { return strdup(s ? s : ""); }

static void add(hs_check_report *r, const hs_check_args *args, const char *path, const hs_check_result *x)
{
    hs_check_result *more = realloc(r->results, (r->n + 1) * sizeof *more);
    if (!more) return;
    r->results = more;
    hs_check_result *y = &more[r->n++];
    *y = *x;
    y->variant = copy(x->variant), y->impl = copy(x->impl), y->dtype = copy(x->dtype), y->mode = copy(x->mode);
    y->options = copy(x->options), y->check = copy(x->check), y->note = copy(x->note);
    if (x->status == HS_CHECK_OK) r->ok++;
    else if (x->status == HS_CHECK_SKIP) r->skipped++;
    else if (!r->failed++)
        snprintf(r->why, sizeof r->why, "%s: %s%s%s%s%s%s%s%s: %s", *y->variant ? y->variant : path, y->impl, *y->impl ? " " : "", y->mode,
                 *y->mode ? " " : "", y->options, *y->options ? " " : "", *y->check ? "fails " : "", y->check, *y->note ? y->note : "wrong");
    if (args->each) args->each(y, args->ctx);
}

void hs_check_report_release(hs_check_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        hs_check_result *x = &r->results[i];
        free(x->variant), free(x->impl), free(x->dtype), free(x->mode), free(x->options), free(x->check), free(x->note);
    }
    free(r->results);
    *r = (hs_check_report){ 0 };
}

/* ---- the child ------------------------------------------------------------------------------------------- */
/* One line of JSON to the parent; a parent that is gone ends the child. */
static void send_line(int fd, json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (!text) _exit(1);
    size_t n = strlen(text);
    text[n++] = '\n';
    for (size_t sent = 0; sent < n;) {
        ssize_t k = write(fd, text + sent, n - sent);
        if (k < 0 && errno != EINTR) _exit(1);
        if (k > 0) sent += (size_t)k;
    }
    free(text);
}

/* Text of a plug-in need not be UTF-8; what is not printable ASCII becomes '?'. */
static json_t *plain(const char *s)
{
    char out[1024];
    size_t n = 0;
    for (; s && *s && n < sizeof out - 1; s++) out[n++] = *s >= ' ' && *s <= '~' ? *s : '?';
    return json_stringn(out, n);
}

static void send_result(void *ctx, const hs_check_result *r)
{
    char error[40];
    snprintf(error, sizeof error, "%.6g", r->error);    /* as text: JSON has no NaN */
    send_line(*(int *)ctx, json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:i,s:s,s:[fff],s:o}", "variant", plain(r->variant),
              "impl", plain(r->impl), "dtype", plain(r->dtype), "mode", plain(r->mode), "options", plain(r->options), "check", plain(r->check), "status", (int)r->status,
              "error", error, "growth", r->bytes_1k, r->bytes_8k, r->slope, "note", plain(r->note)));
}

/* Never returns.  stdout is a file in memory, so that what the plug-in prints is seen by hs_hot_end alone. */
static _Noreturn void child(const char *path, const hs_check_args *args, int start, hs_check_where *where, int fd)
{
    char why[512] = "";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mallopt(M_MMAP_THRESHOLD, 1 << 26);     /* thousands of rigs come and go: keep their pages */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    int out = memfd_create("stdout", 0), quiet = open("/dev/null", O_RDONLY);
    dup2(out < 0 ? quiet : out, STDOUT_FILENO);
    dup2(quiet, STDIN_FILENO);
    int rc = hs_check_suite(path, args, start, where, send_result, &fd, why, sizeof why);
    send_line(fd, json_pack("{s:b,s:b,s:o}", "done", rc == 0, "device", rc != HS_NO_DEVICE, "why", plain(why)));
    _exit(0);
}

/* ---- the parent -------------------------------------------------------------------------------------------- */
typedef struct watch {
    const char *path;
    const hs_check_args *args;
    hs_check_report *report;
    hs_check_where *where;
    int done;                           /* the child said that it is through */
    char line[LINE];
    size_t n;
} watch;

/* A failure of the case that the child was at. */
static void fail_here(watch *w, const char *note)
{
    const hs_check_where *at = w->where;
    hs_check_result r = { .variant = (char *)at->variant, .impl = (char *)at->impl, .mode = (char *)at->mode, .options = (char *)at->options,
                          .check = (char *)(at->check[0] ? at->check : "load"), .status = HS_CHECK_FAIL, .note = (char *)note };
    add(w->report, w->args, w->path, &r);
}

static void take_line(watch *w)
{
    json_t *j = json_loadb(w->line, w->n, 0, NULL), *x;
    enum { TEXTS = 8 };
    const char *text[TEXTS];
    static const char *const keys[TEXTS] = { "variant", "impl", "dtype", "mode", "options", "check", "note", "error" };
    w->n = 0;
    if ((x = json_object_get(j, "done"))) {
        w->done = 1;
        const char *why = json_string_value(json_object_get(j, "why"));
        if (json_is_false(json_object_get(j, "device"))) {
            w->report->no_device = 1;
            snprintf(w->report->why, sizeof w->report->why, "%s", why);
        } else if (!json_is_true(x)) fail_here(w, why);
    } else if (json_is_object(j)) {
        for (int i = 0; i < TEXTS; i++) { const char *s = json_string_value(json_object_get(j, keys[i])); text[i] = s ? s : ""; }
        hs_check_result r = { .variant = (char *)text[0], .impl = (char *)text[1], .dtype = (char *)text[2], .mode = (char *)text[3],
                              .options = (char *)text[4], .check = (char *)text[5], .note = (char *)text[6], .error = strtod(text[7], NULL),
                              .status = (hs_check_status)json_integer_value(json_object_get(j, "status")) };
        json_unpack(json_object_get(j, "growth"), "[FFF]", &r.bytes_1k, &r.bytes_8k, &r.slope);
        add(w->report, w->args, w->path, &r);
    } else fail_here(w, "the plug-in wrote to a descriptor that is not its own");
    json_decref(j);
}

/* Reads until the child closes its end; -1 when it was silent for longer than the limit. */
static int listen_to(watch *w, int fd)
{
    char buffer[4096];
    int limit = w->args->limit_s > 0 ? w->args->limit_s : DEFAULT_LIMIT;
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int ready = poll(&p, 1, limit * 1000);
        if (ready == 0) return -1;
        if (ready < 0) { if (errno == EINTR) continue; return 0; }
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n <= 0) return 0;
        for (ssize_t i = 0; i < n; i++) {
            if (buffer[i] == '\n') take_line(w);
            else if (w->n < LINE) w->line[w->n++] = buffer[i];
        }
    }
}

/* Buries the child and says how it ended when that was not as agreed; 1 when the rest can still be checked. */
static int bury(watch *w, pid_t pid, int silent)
{
    char note[320];
    int status = 0, limit = w->args->limit_s > 0 ? w->args->limit_s : DEFAULT_LIMIT;
    if (silent) kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) ;
    if (w->done) return 0;
    if (silent) snprintf(note, sizeof note, "gave no sign for %d seconds (an endless loop?)", limit);
    else if (*w->where->words) snprintf(note, sizeof note, "%s", w->where->words);
    else if (WIFSIGNALED(status)) snprintf(note, sizeof note, "ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else snprintf(note, sizeof note, "ended the process with exit status %d", WEXITSTATUS(status));
    fail_here(w, note);
    return !silent && w->where->index > 0;
}

/* One child from case `start` on; 1 when it died and the rest is still to be checked. */
static int check_from(watch *w, int start)
{
    int fd[2];
    memset(w->where, 0, sizeof *w->where);
    w->n = 0, w->done = 0;
    if (pipe2(fd, O_CLOEXEC)) { fail_here(w, strerror(errno)); return 0; }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int far = fcntl(fd[1], F_DUPFD_CLOEXEC, 100);   /* out of the reach of a clumsy plug-in */
        close(fd[0]);
        close(fd[1]);
        child(w->path, w->args, start, w->where, far);
    }
    close(fd[1]);
    int silent = pid > 0 && listen_to(w, fd[0]);
    close(fd[0]);
    if (pid < 0) { fail_here(w, strerror(errno)); return 0; }
    return bury(w, pid, silent);
}

int hs_check_file(const char *path, const hs_check_args *args, hs_check_report *report)
{
    *report = (hs_check_report){ 0 };
    watch w = { .path = path, .args = args, .report = report };
    w.where = mmap(NULL, sizeof *w.where, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.where == MAP_FAILED) {
        snprintf(report->why, sizeof report->why, "%s: %s", path, strerror(errno));
        return HS_EXIT_PLUGIN;
    }
    int crashes = 0;
    for (int start = 0; check_from(&w, start); start = w.where->index)
        if (++crashes == MOST_CRASHES) { fail_here(&w, "crashed too often: what is behind this case was not checked"); break; }
    munmap(w.where, sizeof *w.where);
    return report->no_device ? HS_EXIT_DEVICE : report->failed ? HS_EXIT_PLUGIN : HS_EXIT_OK;
}
