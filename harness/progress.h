/* progress.h - how a sweep goes, on stderr: lines that are redrawn on a terminal, plain lines elsewhere.
 *
 * The text of a line is made by functions without side effects, so that tests can read it; hs_progress alone
 * knows the terminal. */
#ifndef HS_PROGRESS_H
#define HS_PROGRESS_H
#include <stddef.h>
#include <stdint.h>
#include "store.h"

enum hs_color { HS_COLOR_AUTO, HS_COLOR_ALWAYS, HS_COLOR_NEVER };

typedef struct hs_row {                 /* one running cell */
    const char *label, *axes;           /* "DPFP-1", "keys=20 seed=1" */
    int64_t step, of;                   /* of 0: not known yet */
    char what[32];                      /* the last progress value's name, "" when there was none */
    double value, elapsed;
} hs_row;

typedef struct hs_sweep {               /* the whole */
    size_t total;                       /* cells of the plan */
    size_t had;                         /* that the store had before */
    size_t ended;                       /* that ended in this run */
    size_t failed;                      /* of these: crashed, wrong, timeout */
    int jobs;
    double elapsed, busy;               /* seconds of this run; sum of seconds of the ended cells */
    const char *best_metric, *best_label;   /* NULL: none yet */
    double best_value;
} hs_sweep;

/* "1h02m", "3m20s", "12s", "0.4s". */
void hs_format_seconds(double seconds, char *out, size_t n);
/* Seconds left, from the mean of the ended cells; < 0: nothing to go by. */
double hs_sweep_left(const hs_sweep *);
/* One line without newline or colour, cut to width columns (0: not cut); the labels keep their beginnings. */
void hs_row_text(const hs_row *, size_t width, char *out, size_t n);
void hs_sweep_text(const hs_sweep *, size_t width, char *out, size_t n);
/* What distinguishes a cell but its label: "keys=20 seed=1". */
void hs_axes_text(const json_t *axes, char *out, size_t n);

typedef struct hs_progress {
    int fd, quiet, terminal, color;
    size_t width, drawn;                /* columns; lines on the screen that a redraw replaces */
    double last;                        /* when the last drawing or sweep line was made */
} hs_progress;
void hs_progress_init(hs_progress *, int fd, int quiet, enum hs_color);
/* Draws when it is time (10 times a second on a terminal, every 10 s elsewhere); now as hs_sweep.elapsed. */
void hs_progress_draw(hs_progress *, const hs_row *, size_t nrows, const hs_sweep *);
/* A line that stays: a cell has ended.  On a terminal only what is not done stays. */
void hs_progress_ended(hs_progress *, const hs_cell *, const hs_result *, const hs_sweep *);
/* A sentence that stays, above the redrawn lines. */
void hs_progress_say(hs_progress *, const char *form, ...) __attribute__((format(printf, 2, 3)));
void hs_progress_resized(hs_progress *);    /* after SIGWINCH */
void hs_progress_clear(hs_progress *);      /* takes the redrawn lines away */
#endif
