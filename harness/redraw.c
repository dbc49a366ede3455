/* redraw.c - see redraw.h. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <unistd.h>
#include "figure.h"
#include "protocol.h"
#include "redraw.h"

static const double pause_seconds = 10, pause_factor = 20;

/* Words as JSON. */
static json_t *list_of(const char *const *word, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, hs_json_text(word[i]));
    return list;
}

/* A child that is told what to draw.  One that cannot be started is tried again later. */
static void begin(hs_redraw *d, const char *file, const hs_plan_args *a, const char *db)
{
    static const char *const args[] = {"worker", NULL};
    char why[256];
    json_t *message = json_pack("{s:s, s:o, s:o, s:s}", "draw", file, "set", list_of(a->set, a->nset), "device", hs_json_text(a->device), "db", db);
    if (hs_child_start(&d->child, args, why, sizeof why) == 0) {
        hs_line_write(d->child.in, message);
        close(d->child.in);             /* one drawing per child */
        d->child.in = -1;
    }
    json_decref(message);
}

void hs_redraw_tick(hs_redraw *d, const char *file, const hs_plan_args *a, const char *db, size_t ended, double now)
{
    int wait_status;
    if (d->child.pid > 0) {
        hs_child_read_log(&d->child);   /* what it complains about is complained about at the end as well */
        if (!hs_child_ended(&d->child, &wait_status)) return;
        hs_child_kill(&d->child);
        double took = now - d->began;
        d->next = now + (pause_factor * took > pause_seconds ? pause_factor * took : pause_seconds);
    }
    if (now < d->next || ended == d->drawn) return;
    d->began = now;
    d->next = now + pause_seconds;
    d->drawn = ended;
    begin(d, file, a, db);
}

void hs_redraw_stop(hs_redraw *d)
{
    if (d->child.pid > 0) hs_child_kill(&d->child);
}

/* The words of a JSON list; at most max of them. */
static size_t words_of(const json_t *list, const char **word, size_t max)
{
    size_t n = json_array_size(list) < max ? json_array_size(list) : max;
    for (size_t i = 0; i < n; i++) word[i] = json_string_value(json_array_get(list, i));
    return n;
}

int hs_redraw_serve(const json_t *message)
{
    const char *set[64], *db = json_string_value(json_object_get(message, "db"));
    hs_plan_args a = {.set = set, .device = json_string_value(json_object_get(message, "device")), .db = db};
    hs_plan plan;
    hs_store *store;
    char why[256];
    a.nset = words_of(json_object_get(message, "set"), set, 64);
    setpriority(PRIO_PROCESS, 0, 10);
    int rc = hs_plan_read(json_string_value(json_object_get(message, "draw")), &a, &plan);
    if (rc != HS_EXIT_OK) return rc;
    rc = db ? hs_store_open(db, HS_STORE_READ, &store, why, sizeof why) : -1;
    if (rc == 0) {
        rc = hs_figures_draw(store, &plan, &a, HS_PLOTS_OUT, 0);
        hs_store_close(store);
    }
    hs_plan_release(&plan);
    return rc == 0 ? HS_EXIT_OK : HS_EXIT_FAILED;
}
