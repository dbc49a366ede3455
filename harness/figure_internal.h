/* figure_internal.h - a figure as data, between the store and gnuplot. */
#ifndef HS_FIGURE_INTERNAL_H
#define HS_FIGURE_INTERNAL_H
#include <stdio.h>
#include "figure.h"

typedef struct fig_point { double x, y, low, high; size_t n; } fig_point;   /* mean, 95 % interval, seeds */
typedef struct fig_series {
    char *name;
    fig_point *point;                   /* by rising x */
    size_t npoints;
    int published;                      /* a paper's numbers, not ours */
    size_t style;                       /* colour and marker; a paper's series has that of ours with its name */
} fig_series;
typedef struct fig_mark {               /* a cell that ended otherwise than done */
    double x;
    size_t series;
    enum hs_status status;
    char *reason;
} fig_mark;

typedef struct fig {
    const json_t *spec;
    char name[80];                      /* of the files, safe in any shell and script */
    char *title, *xlabel, *ylabel;
    int curve, logx, logy;
    double xcap, ycap;                  /* NaN: the data decide */
    fig_series *series;
    size_t nseries, ours;               /* series [0, ours) are ours, the others published */
    fig_mark *mark;
    size_t nmarks;
    size_t cells, missing;              /* of the plan; not finished yet */
    size_t dropped;                     /* values that are no number, or not positive on a logarithmic axis */
    double xmin, xmax, ymin, ymax;      /* of what is shown; min > max: nothing is */
} fig;

/* Collects a figure from the store.  0, or -1 with a sentence. */
int  fig_collect(fig *, hs_store *, const hs_plan *, const json_t *spec, size_t number, char *why, size_t nwhy);
/* Lays the published CSV over it, if the figure names one. */
int  fig_published(fig *, const hs_plan *, char *why, size_t nwhy);
void fig_release(fig *);
/* A name for files, in letters that no script, shell or path minds. */
void fig_safe_name(const char *name, char out[80]);
/* Appends a series that has no points yet; its index, or -1 without memory. */
int  fig_add_series(fig *, const char *name, int published);
int  fig_add_point(fig_series *, fig_point);
/* The columns of the figure: "keys" or "step", and the metric. */
const char *fig_x(const json_t *spec), *fig_y(const json_t *spec);
/* Leaves out what cannot be shown, and finds the extent of the rest. */
void fig_measure(fig *);
/* The data and the script, in the folder dir. */
int  fig_write_tsv(const fig *, const char *dir);
/* Opens a template of plots/: where HARNESS_PLOTS says, else beside the program. */
FILE *fig_template(const char *name, char *why, size_t nwhy);
int  fig_write_script(const fig *, const char *dir, char *why, size_t nwhy);
#endif
