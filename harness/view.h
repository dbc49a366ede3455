/* view.h - what the commands that read share: options, the plan and the store. */
#ifndef HS_VIEW_H
#define HS_VIEW_H
#include "plan.h"
#include "store.h"
#include "table.h"

enum { HS_VIEW_WORDS = 64 };
/* Which options a command takes beside --db, --set, --only. */
enum { HS_VIEW_METRIC = 1, HS_VIEW_FORMAT = 2, HS_VIEW_JSON = 4, HS_VIEW_OUT = 8 };

typedef struct hs_view {
    const char *file, *db, *out;        /* an experiment file, or for show an experiment's name */
    const char *metric[HS_VIEW_WORDS], *set[HS_VIEW_WORDS], *only[HS_VIEW_WORDS];
    size_t nmetrics, nset, nonly;
    enum hs_format format;
    int published;
    hs_plan plan;
    hs_store *store;                    /* NULL: there is none yet */
} hs_view;

/* Reads the command line of argv[0].  Negative: go on, else the exit code. */
int  hs_view_parse(hs_view *, int argc, char **argv, int takes);
/* Reads the plan, and opens the store for reading.  A store that is not there yet is an error unless may_lack.
 * HS_EXIT_OK, or the exit code after a message. */
int  hs_view_plan(hs_view *);
int  hs_view_store(hs_view *, int may_lack);
void hs_view_release(hs_view *);
#endif
