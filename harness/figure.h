/* figure.h - the figures of an experiment, from the store to .tsv, .gp, .pdf, .png and .svg.
 *
 * A figure of an experiment file is a map:
 *   kind       line     metric y against the number x, one line per series; repeated seeds become a mean with a 95 % band
 *              curve    the series metric y against its step, e.g. learning curves
 *              scaling  metric y against the length x, log-log: slopes, crossings with a baseline (docs/figures.md)
 *              pareto   metric y, the quality, against metric x, the cost: a point per cell or mean of seeds, and the front
 *   x          line, scaling: an axis or option of task, variant, model or train; "task.keys" where a name is ambiguous;
 *              default of scaling: length.  pareto: a metric
 *   y          a metric of the task
 *   series     an axis; default variant (the label)
 *   where      {axis: value or list of values}: the figure shows the cells that are so
 *   each       an axis: one figure for each of its values, the value added to name and title
 *   best       line only: an axis; each point is the best over its values (of the means of seeds), as the task says of y
 *   baseline   scaling only: the name of the series that the others are held against
 *   bars       scaling only: quantiles (Y_p20 to Y_p80, the default) or interval (Y_low to Y_high)
 *   fit        scaling only: false: no slopes
 *   reference  scaling only: slopes of grey lines; default [1, 2]
 *   name       of the files; default the figure's number
 *   title, xlabel, ylabel    texts; default none, the option's and the metric's help
 *   logx, logy               true: logarithmic axis
 *   xmax, ymax               the axis ends there, whatever lies beyond
 *   published  a CSV with the columns series, x (or step) and y: the numbers of a paper
 * A text of a user reaches gnuplot only as a literal in single quotes, without quotes and control characters. */
#ifndef HS_FIGURE_H
#define HS_FIGURE_H
#include <jansson.h>
#include "store.h"

/* 0, or -1 with a sentence: unknown kind or key (with the nearest), wrong type, x or y missing. */
int hs_figure_check(const json_t *figure, char *why, size_t nwhy);
/* The same against the cells of a plan: `where` selects some, the baseline is a series. */
int hs_figure_check_plan(const hs_plan *, const json_t *figure, char *why, size_t nwhy);

enum { HS_FIGURES_VERBOSE = 1,          /* one line per figure on stdout, with what is missing from it */
       HS_FIGURES_PUBLISHED = 2 };      /* lays the published numbers over those that name a CSV */
/* Draws every figure of the plan into outdir/<experiment>/, or when --set or --only narrowed the plan into a folder
 * below it that is named after them, so that the experiment's own figures stay.  The files appear in one rename each: a
 * viewer never sees half a one.  Without gnuplot .tsv and .gp are written.  narrowed: may be NULL.  0, or -1 after a
 * sentence on stderr. */
int hs_figures_draw(hs_store *, const hs_plan *, const hs_plan_args *narrowed, const char *outdir, int flags);
#endif
