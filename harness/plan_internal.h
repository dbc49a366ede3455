/* plan_internal.h - what the files plan*.c share: an experiment file understood, before it is multiplied out.
 *
 * A group is one table of options with a value for each: fixed, or an axis.  Values are checked and canonical
 * here, once per axis value; the expansion only combines them. */
#ifndef HS_PLAN_INTERNAL_H
#define HS_PLAN_INTERNAL_H
#include "options.h"
#include "plan.h"
#include "spec.h"

enum { MAX_CELLS = 1000000 };

typedef struct plan_axis { char *name; json_t *values; } plan_axis;     /* an array of at least one */
typedef struct plan_group {
    const attn_opt *table[2];           /* both NULL: untyped, for a plug-in that could not be described */
    json_t *fixed;                      /* every option's value; that of an axis is overwritten by the cell */
    plan_axis *axis;
    size_t naxes;
} plan_group;

/* One entry of `variants:`. */
typedef struct plan_series {
    hs_node *node;
    const json_t *variant;              /* its description; NULL when it could not be loaded: its cells say why */
    const char *path;                   /* kept by the catalog */
    char *name, *digest, *label, *impl; /* digest NULL: no file; label: template or NULL; impl NULL: the host chooses */
    hs_node *options_node;
    attn_opt *table;                    /* the variant's own options, rebuilt */
    plan_group options, model, train;
} plan_series;

typedef struct plan_file {
    const char *path;
    const hs_plan_args *args;
    hs_node *root;
    hs_errors errors;
    size_t plugin_errors;               /* those of them that are a plug-in's fault */
    char **origins;                     /* "--set ...", for nodes that came from there */
    size_t norigins;
    hs_catalog *catalog;
    const json_t *task;
    attn_opt *task_table;
    int builds_model;                   /* whether the task does; else the groups `model` are empty */
    plan_group task_options, model, train, seeds;
    plan_series *series;
    size_t nseries;
    char *device, *dtype;
    double time_limit;
    int64_t memory_limit;
    char *stop_longer;
    int jobs;
} plan_file;

/* plan_axes.c */
int  plan_group_init(plan_group *, const attn_opt *own, const attn_opt *common);    /* every option at its default */
int  plan_group_copy(plan_group *, const plan_group *);
void plan_group_release(plan_group *);
const attn_opt *plan_group_find(const plan_group *, const char *name);
size_t plan_group_points(const plan_group *);   /* product of the axes, at most MAX_CELLS + 1 */
/* Reads a map of options, nested ones as "stop.loss"; a key in skip (NULL-terminated, may be NULL) is not ours. */
void plan_group_read(plan_group *, hs_node *map, const char *what, const char *const *skip, hs_errors *);
void plan_group_set(plan_group *, const char *name, hs_node *value, hs_errors *);   /* a name that is in the table */

/* plan_set.c */
void plan_set_all(plan_file *);         /* --set and --device, as edits of the tree */

/* plan_file.c and plan_series.c: the tree understood; errors are collected */
void plan_file_read(plan_file *);
/* Every figure against the cells, once they are known; -1 with errors added. */
int  plan_figures_check(plan_file *, const hs_plan *);
const char *plan_refused_reason(const hs_catalog *, const char *name);   /* of the file NAME.so, or NULL */
void plan_series_read(plan_file *, hs_node *list);
/* There is no variant of that name: the nearest, or why its file was refused. */
void plan_refuse_variant(plan_file *, hs_node *where, const char *name);
/* Whether the task builds no model; then the section `model` (NULL: there is none) is an error. */
int plan_model_refused(plan_file *, hs_node *model);
/* Paths of plug-ins named in the file, absolute; the caller frees each and the array. */
char **plan_series_paths(const plan_file *, size_t *n);

void plan_series_release(plan_series *);

/* plan_init.c: the file that train.init means, with its digest; NULL: there is none, or KEY begins several.  The caller's. */
char *plan_init_path(const plan_file *, const char *said, char digest[65]);

/* plan_cells.c: the product; 0, or -1 with errors added */
int  plan_cells(plan_file *, hs_plan *);
#endif
