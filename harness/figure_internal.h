/* figure_internal.h - a figure as data, between the store and gnuplot.
 *
 * figure_select.c     which cells, and which series each belongs to
 * figure_data.c       from cells and metrics to series of points
 * figure_fit.c        slopes, crossings, fronts, and the table of them
 * figure_published.c  the numbers of a paper
 * figure_page.c       text, styles, legends and notes
 * figure_script.c     .tsv and .gp
 * heatmap.c           a matrix: no cells, its own data */
#ifndef HS_FIGURE_INTERNAL_H
#define HS_FIGURE_INTERNAL_H
#include <stdio.h>
#include "figure.h"
#include "stats.h"

enum fig_kind { FIG_LINE, FIG_CURVE, FIG_SCALING, FIG_PARETO, FIG_KINDS };
extern const char *const fig_kind_names[FIG_KINDS];

/* What the figure says of a point: scaling, whether the fitted line goes through it; pareto, whether it is on the front. */
enum fig_role { FIG_PLAIN, FIG_BEFORE_TAIL, FIG_OUTLIER, FIG_ON_FRONT };
typedef struct fig_point {
    double x, y, low, high;             /* mean, 95 % interval over seeds; scaling with one seed: p20 to p80 */
    size_t n;                           /* seeds */
    double xlow, xhigh;                 /* pareto: the interval of x */
    double error;                       /* scaling: the standard error of ln y */
    size_t group;                       /* pareto: cells that differ in the seed alone are of one group */
    enum fig_role role;
} fig_point;
typedef struct fig_series {
    char *name;
    fig_point *point;                   /* by rising x */
    size_t npoints;
    int published;                      /* a paper's numbers, not ours */
    size_t style;                       /* colour and marker; a paper's series has that of ours with its name */
    hs_power fit;                       /* scaling; fit.kept 0: no power law */
    int compared;                       /* scaling: it has lengths in common with the baseline */
    hs_crossing crossing;               /* from which length on it is below the baseline */
    int interval;                       /* the crossing's interval means something: the errors of its points are known */
    double compared_from, compared_to;  /* the lengths in common */
} fig_series;
enum { FIG_MARK_ROWS = 12 };
typedef struct fig_mark {               /* a cell that ended otherwise than done */
    double x;
    size_t series, row;                 /* row: its place below the upper edge */
    enum hs_status status;
    char *reason;
} fig_mark;

typedef struct fig {
    const json_t *spec;
    enum fig_kind kind;
    char name[80];                      /* of the files, safe in any shell and script */
    char *title, *xlabel, *ylabel, *yunit;
    int logx, logy;
    int xbetter, ybetter;               /* pareto: -1 less is better, 1 more is */
    double xcap, ycap, yfloor;          /* NaN: the data decide */
    fig_series *series;
    size_t nseries, ours;               /* series [0, ours) are ours, the others published */
    int baseline;                       /* scaling: the series that the others are held against, -1: none */
    fig_mark *mark;
    size_t nmarks, mark_rows;
    size_t cells, missing;              /* of the plan; not finished yet */
    size_t dropped;                     /* values that are no number, or not positive on a logarithmic axis */
    double xmin, xmax, ymin, ymax;      /* of what is shown; min > max: nothing is */
    json_t *groups;                     /* pareto, while collecting: {axes without seed: number} */
} fig;

/* Collects a figure from the store.  0, or -1 with a sentence. */
int  fig_collect(fig *, hs_store *, const hs_plan *, const json_t *spec, size_t number, char *why, size_t nwhy);
/* Lays the published CSV over it, if the figure names one. */
int  fig_published(fig *, const hs_plan *, char *why, size_t nwhy);
/* Leaves out what cannot be shown, and finds the extent of the rest. */
void fig_measure(fig *);
/* After fig_measure: slopes and crossings of kind scaling, the front of kind pareto. */
void fig_fit(fig *);
double fig_height_at(const fig_series *, double x);     /* of its line in ln-ln; two points or more */
void fig_write_front(FILE *, const fig *);              /* the points of the front by rising x, a block of the data */
void fig_release(fig *);
/* A name for files, in letters that no script, shell or path minds. */
void fig_safe_name(const char *name, char out[80]);
/* Appends a series that has no points yet; its index, or -1 without memory. */
int  fig_add_series(fig *, const char *name, int published);
int  fig_add_point(fig_series *, fig_point);
/* The columns of the figure: "keys" or "step", and the metric; its kind, and the series that it compares with or NULL. */
const char *fig_x(const json_t *spec), *fig_y(const json_t *spec), *fig_baseline(const json_t *spec);
enum fig_kind fig_kind_of(const json_t *spec);          /* FIG_KINDS: none that we know */

/* figure_select.c */
const char *fig_bare(const char *name);                 /* without its "task.", "variant.", "model." or "train." */
const json_t *fig_value_in(const hs_cell *, const char *name);
char *fig_value_text(const hs_cell *, const char *axis);                /* for a legend; the caller frees */
int   fig_wants(const json_t *spec, const hs_cell *);   /* whether `where` lets the cell in */
json_t *fig_splitting_axes(const hs_plan *, const json_t *spec);
char *fig_series_name(const hs_cell *, const json_t *spec, const json_t *split);    /* the caller frees */
/* The figures that a map stands for: itself, or one for each value of the axis that `each` names; a new array. */
json_t *fig_each(const hs_plan *, const json_t *spec, size_t number);

/* The data, the script and the table of slopes, in the folder dir. */
int  fig_write_tsv(const fig *, const char *dir);
int  fig_write_table(const fig *, const char *dir);
/* Draws a figure in a workshop of its own inside dir: write() leaves NAME.tsv and NAME.gp in the folder that it is given, gnuplot
 * runs, and every file is moved into place by one rename.  0, or -1 with a sentence. */
typedef int fig_write_fn(const void *ctx, const char *shop, char *why, size_t nwhy);
int  fig_in_workshop(const char *dir, const char *name, fig_write_fn *write, const void *ctx, int *gnuplot, char *why, size_t nwhy);
int  fig_make_folder(const char *path);                 /* and those above it */
/* The script NAME.gp in dir from the template KIND.gp.in, each @NAME@ in it replaced by its value, which is freed. */
typedef struct fig_place { const char *name; char *value; } fig_place;
int  fig_fill_script(const char *kind, const char *dir, const char *name, const fig_place *, size_t n, char *why, size_t nwhy);
/* Opens a template of plots/: where HARNESS_PLOTS says, else beside the program. */
FILE *fig_template(const char *name, char *why, size_t nwhy);
int  fig_write_script(const fig *, const char *dir, char *why, size_t nwhy);
#endif
