/* cmd_plot.c - `harness plot FILE`: the figures of an experiment. */
#include <stdio.h>
#include "command.h"
#include "figure.h"
#include "view.h"

int cmd_plot(int argc, char **argv)
{
    hs_view v;
    int rc = hs_view_parse(&v, argc, argv, HS_VIEW_OUT);
    if (rc >= 0) return rc;
    const hs_plan_args narrowed = { .set = v.set, .nset = v.nset, .only = v.only, .nonly = v.nonly };
    rc = hs_view_plan(&v);
    if (rc == HS_EXIT_OK) rc = hs_view_store(&v, 0);
    if (rc == HS_EXIT_OK && json_array_size(v.plan.figures) == 0) {
        fprintf(stderr, "harness: %s asks for no figures: add figures: [{kind: line, x: AXIS, y: METRIC}]\n", v.file);
        rc = HS_EXIT_EMPTY;
    }
    if (rc == HS_EXIT_OK &&
        hs_figures_draw(v.store, &v.plan, &narrowed, v.out, HS_FIGURES_VERBOSE | (v.published ? HS_FIGURES_PUBLISHED : 0)) != 0)
        rc = HS_EXIT_FAILED;
    hs_view_release(&v);
    return rc;
}
