/* redraw.h - figures that follow a sweep: drawn by a child at low priority, so that nothing waits for gnuplot.
 *
 * A figure shows what the store has of the whole experiment: --only decides what is run, not what is shown.  --set
 * makes another experiment of it, whose figures have a folder of their own.
 *
 * Drawing takes at most a twentieth of the time: the pause after one is 20 times as long as it took, and 10 s at
 * least. */
#ifndef HS_REDRAW_H
#define HS_REDRAW_H
#include "child.h"
#include "plan.h"

#define HS_PLOTS_OUT "plots/out"        /* where figures go that nobody sent elsewhere */

typedef struct hs_redraw {
    hs_child child;                     /* pid 0: none at work */
    double began, next;                 /* seconds; not before next */
    size_t drawn;                       /* cells that had ended when the last drawing began */
} hs_redraw;
/* Starts or looks after a drawing; ended: cells that ended so far, now in seconds. */
void hs_redraw_tick(hs_redraw *, const char *file, const hs_plan_args *, const char *db, size_t ended, double now);
void hs_redraw_stop(hs_redraw *);
/* In the child: what the message of hs_redraw_tick asks for. */
int  hs_redraw_serve(const json_t *message);
#endif
