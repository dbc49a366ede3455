/* gate.c - see gate.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "../kernels/device.h"
#include "child.h"
#include "gate.h"
#include "protocol.h"

enum { CHECKS_MAX = 64, KEY_MAX = 3 * 65 };

/* Of the cells: all of a plan have one device. */
static const char *device_of(const hs_plan *p)
{
    const char *device = p->ncells ? json_string_value(json_object_get(p->cell[0].doc, "device")) : NULL;
    return device ? device : "cpu";
}

/* A check under way. */
typedef struct checking {
    hs_child child;
    hs_lines lines;
    hs_verdict *verdict;                /* NULL: this place is free */
    double deadline;
} checking;

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of the variant's file; "" when it could not be read: then there is nothing to keep a verdict by. */
static const char *digest_of(const hs_cell *c)
{
    const char *digest = json_string_value(json_object_get(json_object_get(c->doc, "variant"), "digest"));
    return digest ? digest : "";
}

const hs_verdict *hs_gate_of(const hs_gate *g, const hs_cell *c)
{
    for (size_t i = 0; i < g->n; i++)
        if (!strcmp(g->verdict[i].digest, digest_of(c)) && !strcmp(g->verdict[i].path, c->variant_path)) return &g->verdict[i];
    return NULL;
}

void hs_gate_release(hs_gate *g)
{
    for (size_t i = 0; i < g->n; i++) free(g->verdict[i].reason);
    free(g->verdict);
    *g = (hs_gate){0};
}

/* One entry per file that a wanted cell needs, all green as yet; -1 out of memory. */
static int collect(hs_gate *g, const hs_plan *p, const unsigned char *wanted)
{
    g->verdict = calloc(p->ncells ? p->ncells : 1, sizeof *g->verdict);
    if (!g->verdict) return -1;
    for (size_t i = 0; i < p->ncells; i++)
        if (wanted[i] && !hs_gate_of(g, &p->cell[i]))
            g->verdict[g->n++] = (hs_verdict){p->cell[i].variant_path, digest_of(&p->cell[i]), HS_DONE, NULL};
    return 0;
}

/* Starts the check of one file; a child that cannot be started is a red check with that reason. */
static void begin(checking *c, hs_verdict *v, const char *device, hs_progress *progress)
{
    static const char *const args[] = {"worker", NULL};
    char why[256] = "";
    json_t *message = json_pack("{s:s, s:s}", "check", v->path, "device", device);
    if (!progress->quiet) hs_progress_say(progress, "checking %s", v->path);
    *c = (checking){.verdict = v, .deadline = now_seconds() + HS_GATE_SECONDS};
    if (hs_child_start(&c->child, args, why, sizeof why) < 0 || hs_line_write(c->child.in, message) < 0) {
        v->status = HS_TIMEOUT;
        if (asprintf(&v->reason, "the check could not be started: %s", why) < 0) v->reason = NULL;
        hs_child_kill(&c->child);
        c->verdict = NULL;
    }
    json_decref(message);
}

/* What a verdict is kept by: the file and the library that its code calls, for CUDA both of its halves; "" when there is
 * nothing to keep it by. */
static void verdict_key(const hs_verdict *v, const char *device, char key[KEY_MAX])
{
    char library[65], cuda[65], path[PATH_MAX], half[PATH_MAX + 64];
    Dl_info found;
    *key = 0;
    if (!*v->digest || !dladdr((void *)k_dev_open, &found) || hs_file_digest(found.dli_fname, library)) return;
    snprintf(path, sizeof path, "%s", found.dli_fname);
    snprintf(half, sizeof half, "%s/%s", dirname(path), K_CUDA_OBJECT);
    if (!strcmp(device, "cpu")) snprintf(key, KEY_MAX, "%s+%s", v->digest, library);
    else if (hs_file_digest(half, cuda) == 0) snprintf(key, KEY_MAX, "%s+%s+%s", v->digest, library, cuda);
}

/* Files the verdict that a line holds; 0 when it was the verdict, -1 when the store failed, 1 otherwise. */
static int take_line(checking *c, hs_store *store, const char *device, const char *line)
{
    json_t *said = json_loads(line, 0, NULL);
    const char *type = json_string_value(json_object_get(said, "t"));
    int rc = 1;
    if (type && !strcmp(type, "verdict")) {
        int ok = json_is_true(json_object_get(said, "ok"));
        const char *why = json_string_value(json_object_get(said, "reason"));
        hs_verdict *v = c->verdict;
        v->status = ok ? HS_DONE : HS_WRONG;
        if (!ok && asprintf(&v->reason, "the check is red: %s", why ? why : "it gave no reason") < 0) v->reason = NULL;
        char key[KEY_MAX];
        verdict_key(v, device, key);
        rc = *key && hs_store_verdict_put(store, key, ok, v->reason, json_object_get(said, "report")) < 0 ? -1 : 0;
    }
    json_decref(said);
    return rc;
}

/* Looks after one check; 1 when it is over, 0 when not yet, -1 when the store failed. */
static int attend(checking *c, hs_store *store, const char *device)
{
    char how[128];
    int status, got, rc = 1;
    hs_verdict *v = c->verdict;
    int ended = hs_child_ended(&c->child, &status);
    hs_child_read_log(&c->child);
    do {
        got = hs_lines_read(&c->lines, c->child.out);
        for (char *line; rc == 1 && (line = hs_lines_next(&c->lines)); ) rc = take_line(c, store, device, line);
    } while (got > 0 && rc == 1);
    if (rc < 1) return rc < 0 ? -1 : 1;
    if (ended) {
        hs_child_how(status, how, sizeof how);
        v->status = HS_WRONG;
        if (asprintf(&v->reason, "the check was %s; %s", how, hs_child_last_line(&c->child)) < 0) v->reason = NULL;
    } else if (now_seconds() > c->deadline) {
        v->status = HS_TIMEOUT;
        if (asprintf(&v->reason, "the check before the run did not end within %d s", HS_GATE_SECONDS) < 0) v->reason = NULL;
    }
    return v->status != HS_DONE;
}

/* Frees the place of a check that is over. */
static void end(checking *c)
{
    hs_child_kill(&c->child);
    hs_lines_release(&c->lines);
    c->verdict = NULL;
}

/* Runs the checks of todo[0..n). */
static int run_checks(hs_verdict **todo, size_t n, hs_store *store, const char *device, const hs_gate_args *a)
{
    checking place[CHECKS_MAX] = {0};
    size_t next = 0, over = 0;
    int rc = 0, jobs = a->jobs < CHECKS_MAX ? a->jobs : CHECKS_MAX;
    while (over < n && rc == 0) {
        struct pollfd fd[CHECKS_MAX + 1] = {{.fd = a->sigfd, .events = POLLIN}};
        for (int i = 0; i < jobs; i++) {
            while (!place[i].verdict && next < n) {
                begin(&place[i], todo[next++], device, a->progress);
                over += !place[i].verdict;
            }
            fd[i + 1] = (struct pollfd){.fd = place[i].verdict ? place[i].child.out : -1, .events = POLLIN};
        }
        poll(fd, (nfds_t)jobs + 1, 100);
        if ((fd[0].revents & POLLIN) && a->interrupted(a->ctx)) rc = HS_GATE_INTERRUPTED;
        for (int i = 0; i < jobs && rc == 0; i++) {
            int done = place[i].verdict ? attend(&place[i], store, device) : 0;
            if (done < 0) rc = -1;
            if (done > 0) { end(&place[i]); over++; }
        }
    }
    for (int i = 0; i < jobs; i++) if (place[i].verdict) end(&place[i]);
    return rc;
}

int hs_gate_init(hs_gate *g, hs_store *store, const hs_plan *plan, const hs_gate_args *a)
{
    *g = (hs_gate){0};
    if (collect(g, plan, a->wanted) < 0) return -1;
    hs_verdict **todo = calloc(g->n + 1, sizeof *todo);
    size_t n = 0;
    int rc = todo ? 0 : -1;
    for (size_t i = 0; i < g->n && rc == 0; i++) {
        hs_verdict *v = &g->verdict[i];
        char key[KEY_MAX];
        verdict_key(v, device_of(plan), key);
        int ok = 1, known = *key ? hs_store_verdict_get(store, key, &ok, &v->reason) : 0;
        if (known < 0) rc = -1;
        if (known == 0) todo[n++] = v;
        if (known > 0 && !ok) v->status = HS_WRONG;
    }
    if (rc == 0) rc = run_checks(todo, n, store, device_of(plan), a);
    free(todo);
    return rc;
}
