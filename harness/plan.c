/* plan.c - from an experiment file to its cells: reads, edits, checks, multiplies out. */
#include "plan_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every plug-in there is, or those of the catalog at hand, and those that the file names by path. */
static hs_catalog *find_plugins(const plan_file *f, hs_catalog *at_hand)
{
    size_t n;
    char **paths = plan_series_paths(f, &n);
    hs_catalog *c = at_hand ? at_hand : hs_catalog_new((const char *const *)paths, n);
    if (at_hand) hs_catalog_add(c, (const char *const *)paths, n);
    for (size_t i = 0; i < n; i++) free(paths[i]);
    free(paths);
    return c;
}

/* Frees what the plan does not keep. */
static void file_release(plan_file *f)
{
    for (size_t i = 0; i < f->nseries; i++) plan_series_release(&f->series[i]);
    for (size_t i = 0; i < f->norigins; i++) free(f->origins[i]);
    free(f->series);
    free(f->origins);
    free(f->device);
    free(f->stop_longer);
    free(f->dtype);
    plan_group_release(&f->task_options);
    plan_group_release(&f->model);
    plan_group_release(&f->train);
    plan_group_release(&f->seeds);
    hs_opts_rebuilt_free(f->task_table);
    hs_node_free(f->root);
    hs_errors_release(&f->errors);
}

/* A text at the top of the file as a string of its own, "" when it is not there. */
static char *top_text(const plan_file *f, const char *key)
{
    const hs_node *n = hs_node_get(f->root, key);
    return strdup(n && n->kind == HS_SCALAR ? n->text : "");
}

/* Fills the plan from a file without errors; an exit code. */
static int fill(plan_file *f, FILE *errors, hs_plan *plan)
{
    const hs_node *figures = hs_node_get(f->root, "figures");
    plan->file = strdup(f->path);
    plan->experiment = top_text(f, "experiment");
    plan->about = top_text(f, "about");
    plan->figures = figures ? hs_node_json(figures) : json_array();
    plan->text = hs_node_json(f->root);
    plan->jobs = f->jobs;
    plan->stop_longer = f->stop_longer ? strdup(f->stop_longer) : NULL;
    if (plan_cells(f, plan)) return HS_EXIT_SPEC;
    if (!f->args->nset && !f->args->nonly && plan_figures_check(f, plan)) return HS_EXIT_SPEC;
    if (plan->ncells) return HS_EXIT_OK;
    fprintf(errors, "%s: nothing is left of the sweep by", f->path);
    for (size_t i = 0; i < f->args->nonly; i++) fprintf(errors, " --only %s", f->args->only[i]);
    fputs("\n", errors);
    return HS_EXIT_EMPTY;
}

/* See plan.h. */
int hs_plan_read_with(const char *file, const hs_plan_args *args, hs_catalog *catalog, FILE *errors, hs_plan *plan)
{
    static const hs_plan_args none;
    plan_file f = { .path = file, .args = args ? args : &none };
    int rc = HS_EXIT_SPEC;
    memset(plan, 0, sizeof *plan);
    plan->catalog = catalog;
    f.root = hs_spec_file(file, &f.errors);
    if (f.root) {
        plan_set_all(&f);
        f.catalog = plan->catalog = find_plugins(&f, catalog);
        plan_file_read(&f);
        size_t fatal = f.errors.n - f.errors.warnings;
        if (!fatal) rc = fill(&f, errors, plan);
        else if (fatal == f.plugin_errors) rc = HS_EXIT_PLUGIN;
    }
    hs_errors_print(&f.errors, errors);
    file_release(&f);
    if (rc) hs_plan_release(plan);
    return rc;
}

/* See plan.h. */
int hs_plan_read(const char *file, const hs_plan_args *args, hs_plan *plan)
{
    return hs_plan_read_with(file, args, NULL, stderr, plan);
}

/* Frees the cells, the catalog and the rest. */
void hs_plan_release(hs_plan *plan)
{
    for (size_t i = 0; i < plan->ncells; i++) {
        json_decref(plan->cell[i].doc);
        json_decref(plan->cell[i].axes);
        json_decref(plan->cell[i].others);
        json_decref(plan->cell[i].init);
        free((char *)plan->cell[i].label);
    }
    free(plan->cell);
    free(plan->file);
    free(plan->experiment);
    free(plan->about);
    free(plan->no_data);
    free(plan->stop_longer);
    json_decref(plan->figures);
    json_decref(plan->text);
    hs_catalog_free(plan->catalog);
    memset(plan, 0, sizeof *plan);
}
