/* catalog.c - every plug-in there is, described by children.
 *
 * A plug-in runs code when it is loaded, so each is loaded by a child (`harness describe`) that may crash, hang
 * or exit; what it says about itself comes back as one line of JSON. */
#define _GNU_SOURCE
#include "child.h"
#include "plugin.h"
#include "protocol.h"
#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIME_LIMIT_MS = 10000, MAX_PARALLEL = 64 };

struct hs_catalog {
    json_t *all, *refused;              /* arrays */
    json_t *variants, *tasks;           /* name -> description */
    json_t *paths;                      /* path -> array of what the file holds */
    int owners;
};

/* One file to describe. */
typedef struct probe {
    char *path;
    hs_child child;
    hs_lines lines;
    int64_t deadline;                   /* ms */
    json_t *said;                       /* the line, NULL until it came */
} probe;

/* Milliseconds of a clock that only goes forward. */
static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- filling ------------------------------------------------------------------------------------------ */
/* An empty catalog. */
static hs_catalog *catalog_empty(void)
{
    hs_catalog *c = malloc(sizeof *c);
    if (c) *c = (hs_catalog){ json_array(), json_array(), json_object(), json_object(), json_object(), 1 };
    return c;
}

/* Remembers why a file does not serve; taken: the file is sound, but a name in it belongs to another. */
static void add_refused(hs_catalog *c, const char *path, const char *reason, int taken)
{
    json_array_append_new(c->refused, json_pack("{s:o, s:o, s:b}", "path", hs_json_text(path), "reason",
                                                hs_json_text(reason), "taken", taken));
}

/* Adds one description.  A name that another file has is refused, unless the files are equal byte for byte:
 * then it is the same plug-in found twice. */
static void add_described(hs_catalog *c, json_t *one)
{
    const char *name = json_string_value(json_object_get(one, "name"));
    const char *path = json_string_value(json_object_get(one, "path"));
    const char *kind = json_string_value(json_object_get(one, "kind"));
    if (!name || !path || !kind) return;
    json_t *names = !strcmp(kind, "task") ? c->tasks : c->variants;
    json_t *taken = json_object_get(names, name), *in_file = json_object_get(c->paths, path);
    if (taken && !json_equal(json_object_get(taken, "digest"), json_object_get(one, "digest"))) {
        char why[2 * PATH_MAX + 128];
        snprintf(why, sizeof why, "%s: the name %s is taken by %s", path, name, json_string_value(json_object_get(taken, "path")));
        add_refused(c, path, why, 1);
        return;
    }
    if (!in_file) json_object_set_new(c->paths, path, in_file = json_array());
    json_array_append(in_file, taken ? taken : one);
    if (taken) return;
    json_array_append(c->all, one);
    json_object_set(names, name, one);
}

/* See plugin.h. */
hs_catalog *hs_catalog_from_json(const json_t *descriptions)
{
    hs_catalog *c = catalog_empty();
    size_t i;
    json_t *one;
    json_array_foreach(descriptions, i, one) {
        add_described(c, one);
    }
    return c;
}

/* ---- children -------------------------------------------------------------------------------------------- */
/* Starts `harness describe PATH`; a failure to start is the file's reason. */
static void probe_start(hs_catalog *c, probe *p)
{
    char why[256], text[PATH_MAX + 300];
    const char *const args[] = { "describe", "--fd", "3", p->path, NULL };
    p->deadline = now_ms() + TIME_LIMIT_MS;
    if (!hs_child_start(&p->child, args, why, sizeof why)) return;
    snprintf(text, sizeof text, "%s: %s", p->path, why);
    add_refused(c, p->path, text, 0);
}

/* Reads what is there; 1 when the line is complete. */
static int probe_read(probe *p)
{
    char *line;
    hs_child_read_log(&p->child);       /* lest it blocks on a full pipe */
    while (hs_lines_read(&p->lines, p->child.out) > 0) continue;
    if (!p->said && (line = hs_lines_next(&p->lines))) p->said = json_loads(line, 0, NULL);
    return p->said != NULL;
}

/* Puts what a child said, or how it ended, into the catalog. */
static void probe_settle(hs_catalog *c, probe *p, int wait_status, int timed_out)
{
    size_t i;
    json_t *one;
    char how[128], why[PATH_MAX + 256];
    const char *refused = json_string_value(json_object_get(p->said, "refused"));
    json_array_foreach(json_object_get(p->said, "variants"), i, one) {
        add_described(c, one);
    }
    json_array_foreach(json_object_get(p->said, "tasks"), i, one) {
        add_described(c, one);
    }
    if (refused) add_refused(c, p->path, refused, 0);
    else if (!p->said) {
        hs_child_how(wait_status, how, sizeof how);
        if (timed_out) snprintf(why, sizeof why, "%s: did not load within %d s", p->path, TIME_LIMIT_MS / 1000);
        else snprintf(why, sizeof why, "%s: its loading ended the process: %s", p->path, how);
        add_refused(c, p->path, why, 0);
    }
    hs_child_kill(&p->child);
    hs_lines_release(&p->lines);
    json_decref(p->said);
}

/* One look at a running child; 1 when it is settled. */
static int probe_step(hs_catalog *c, probe *p)
{
    int wait_status = 0;
    int over = hs_child_ended(&p->child, &wait_status);     /* before reading: its last words are then in the pipe */
    int said = probe_read(p), late = now_ms() > p->deadline;
    if (!said && !over && !late) return 0;
    probe_settle(c, p, wait_status, !over);
    return 1;
}

/* Waits until some child has something to say, or ends, or time passes. */
static void probes_wait(const probe *p, size_t n)
{
    struct pollfd fds[MAX_PARALLEL];
    for (size_t i = 0; i < n; i++) fds[i] = (struct pollfd){ .fd = p[i].child.out, .events = POLLIN };
    poll(fds, (nfds_t)n, 20);
}

/* Describes paths[0..n-1], at most one child per core at a time; results in the order of the paths. */
static void describe_all(hs_catalog *c, char **paths, size_t n)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t batch = cores < 1 ? 1 : cores > MAX_PARALLEL ? MAX_PARALLEL : (size_t)cores;
    for (size_t at = 0; at < n; at += batch) {
        probe probes[MAX_PARALLEL] = { 0 };
        size_t m = n - at < batch ? n - at : batch, done = 0;
        for (size_t i = 0; i < m; i++) {
            probes[i].path = paths[at + i];
            probe_start(c, &probes[i]);
        }
        while (done < m) {              /* in order, so that of two that take one name the first has it */
            if (!probes[done].child.pid || probe_step(c, &probes[done])) done++;
            else probes_wait(probes + done, 1);
        }
    }
}

/* ---- where plug-ins are ---------------------------------------------------------------------------------- */
typedef struct path_list { char **at; size_t n; } path_list;

/* Adds a file once, by its real path. */
static void list_add(path_list *l, const char *path)
{
    char *real = realpath(path, NULL);
    if (!real) real = strdup(path);     /* the child says what is wrong with it */
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->at[i], real)) { free(real); return; }
    char **more = realloc(l->at, (l->n + 1) * sizeof *more);
    if (!more) { free(real); return; }
    l->at = more;
    l->at[l->n++] = real;
}

/* scandir's filter: names that end in .so and do not begin with a dot. */
static int is_so(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return d->d_name[0] != '.' && n > 3 && !strcmp(d->d_name + n - 3, ".so");
}

/* Adds the .so files of a folder in the order of their names; a folder that is not there holds none. */
static void list_add_folder(path_list *l, const char *folder)
{
    struct dirent **entry;
    int n = *folder ? scandir(folder, &entry, is_so, alphasort) : -1;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", folder, entry[i]->d_name) < (int)sizeof path) list_add(l, path);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
}

/* Every folder of the search path, in order. */
static void list_add_all(path_list *l)
{
    static const char *const beside[] = { "variants", "tasks", "../lib/harness/plugins" };
    const char *env = getenv("HARNESS_PLUGIN_PATH");
    char exe[PATH_MAX] = "", folder[PATH_MAX + 32];
    char *copy = strdup(env ? env : ""), *rest = copy, *one;
    while (copy && (one = strsep(&rest, ":"))) list_add_folder(l, one);
    free(copy);
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0) return;
    const char *home = dirname(exe);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        snprintf(folder, sizeof folder, "%s/%s", home, beside[i]);
        list_add_folder(l, folder);
    }
}

/* ---- the public face ------------------------------------------------------------------------------------- */
/* The refusal of a path, or NULL. */
static const json_t *refusal_of(const hs_catalog *c, const char *path)
{
    size_t i;
    json_t *one;
    json_array_foreach(c->refused, i, one) {
        if (!strcmp(json_string_value(json_object_get(one, "path")), path)) return one;
    }
    return NULL;
}

/* Describes the files of a list, which it frees. */
static void describe_list(hs_catalog *c, path_list *l)
{
    if (c) describe_all(c, l->at, l->n);
    for (size_t i = 0; i < l->n; i++) free(l->at[i]);
    free(l->at);
}

/* See plugin.h. */
hs_catalog *hs_catalog_new(const char *const *extra, size_t nextra)
{
    hs_catalog *c = catalog_empty();
    path_list l = { 0 };
    list_add_all(&l);
    for (size_t i = 0; i < nextra; i++) list_add(&l, extra[i]);
    describe_list(c, &l);
    return c;
}

/* See plugin.h. */
hs_catalog *hs_catalog_of(const char *path)
{
    hs_catalog *c = catalog_empty();
    hs_catalog_add(c, &path, 1);
    return c;
}

/* See plugin.h. */
void hs_catalog_add(hs_catalog *c, const char *const *paths, size_t n)
{
    path_list l = { 0 };
    for (size_t i = 0; i < n; i++)
        if (!json_object_get(c->paths, paths[i]) && !refusal_of(c, paths[i])) list_add(&l, paths[i]);
    describe_list(c, &l);
}

/* See plugin.h. */
hs_catalog *hs_catalog_keep(hs_catalog *c)
{
    c->owners++;
    return c;
}

/* Frees the catalog and every description when the last owner lets go. */
void hs_catalog_free(hs_catalog *c)
{
    if (!c || --c->owners > 0) return;
    json_decref(c->all);
    json_decref(c->refused);
    json_decref(c->variants);
    json_decref(c->tasks);
    json_decref(c->paths);
    free(c);
}

/* The description of a name, or NULL. */
const json_t *hs_catalog_variant(const hs_catalog *c, const char *name) { return json_object_get(c->variants, name); }
const json_t *hs_catalog_task(const hs_catalog *c, const char *name) { return json_object_get(c->tasks, name); }
const json_t *hs_catalog_all(const hs_catalog *c) { return c->all; }
const json_t *hs_catalog_refused(const hs_catalog *c) { return c->refused; }

/* See plugin.h: the variant of that name in the file, or its only one. */
const json_t *hs_catalog_path(const hs_catalog *c, const char *path, const char *name, char *why, size_t nwhy)
{
    char real[PATH_MAX], names[256] = "";
    const json_t *found = NULL, *file;
    size_t i, n = 0;
    json_t *one;
    if (!realpath(path, real)) snprintf(real, sizeof real, "%s", path);
    if (!(file = json_object_get(c->paths, real))) {
        const json_t *refused = refusal_of(c, real);
        if (refused) snprintf(why, nwhy, "%s", json_string_value(json_object_get(refused, "reason")));
        else snprintf(why, nwhy, "%s: no such file", path);
        return NULL;
    }
    json_array_foreach(file, i, one) {
        const char *its = json_string_value(json_object_get(one, "name"));
        if (strcmp(json_string_value(json_object_get(one, "kind")), "variant")) continue;
        if (!name || !strcmp(its, name)) found = one, n++;
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", its);
    }
    if (n == 1) return found;
    if (!*names) snprintf(why, nwhy, "%s: holds no variant", path);
    else if (!name) snprintf(why, nwhy, "%s: holds several variants (%s): say variant: NAME", path, names);
    else snprintf(why, nwhy, "%s: holds no variant '%s', but %s", path, name, names);
    return NULL;
}
