/* kept.c - see kept.h: the model of a cell, built by its task around its variant, with the weights that training left. */
#include "kept.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plan.h"
#include "../tasks/data/tokens.h"

int hs_kept_option(hs_kept_args *a, int opt, const char *value)
{
    switch (opt) {
    case HS_KEPT_ONLY: return a->nonly < HS_KEPT_WORDS ? a->only[a->nonly++] = value, 1 : -1;
    case HS_KEPT_DB: a->db = value; return 1;
    case HS_KEPT_DEVICE: a->device = value; return 1;
    case HS_KEPT_THREADS: return (a->threads = atoi(value)) > 0 && a->threads <= 1024 ? 1 : -1;
    default: return 0;
    }
}

/* ---- a host for a task that only builds -------------------------------------------------------------------------------- */

static void no_metric(void *ctx, const char *name, int64_t step, double value) { (void)ctx, (void)name, (void)step, (void)value; }
static void no_progress(void *ctx, int64_t step, int64_t of, const char *what, double value)
{
    (void)ctx, (void)step, (void)of, (void)what, (void)value;
}
static int  no_stop(void *ctx) { (void)ctx; return 0; }
static void take_reason(void *ctx, const char *sentence)
{
    hs_kept *k = ctx;
    snprintf(k->reason, sizeof k->reason, "%s", sentence ? sentence : "");
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

/* Loads the plug-in that the catalog has under the name; notes when it is not the one of the training. */
static int load(hs_kept *k, const hs_catalog *c, const char *kind, hs_plugin *out, char *why, size_t nwhy)
{
    const json_t *said = json_object_get(k->found.doc, kind);
    const char *name = json_string_value(json_object_get(said, "name")), *was = json_string_value(json_object_get(said, "digest"));
    const json_t *row = !strcmp(kind, "task") ? hs_catalog_task(c, name) : hs_catalog_variant(c, name);
    const char *now = json_string_value(json_object_get(row, "digest"));
    if (!row) {
        snprintf(why, nwhy, "there is no %s '%s' (harness list %ss): HARNESS_PLUGIN_PATH says where plug-ins are", kind, name, kind);
        return HS_EXIT_PLUGIN;
    }
    if (was && now && strcmp(was, now))
        snprintf(k->note + strlen(k->note), sizeof k->note - strlen(k->note), "%s%s has been built anew since this model was trained",
                 *k->note ? "; " : "", name);
    return hs_plugin_open(json_string_value(json_object_get(row, "path")), out, why, nwhy) ? HS_EXIT_PLUGIN : HS_EXIT_OK;
}

/* Task and variant of the cell with all their options. */
static int bind(hs_kept *k, char *why, size_t nwhy)
{
    hs_catalog *c = hs_catalog_new(NULL, 0);
    const char *tname = json_string_value(json_object_get(json_object_get(k->found.doc, "task"), "name"));
    const char *vname = json_string_value(json_object_get(json_object_get(k->found.doc, "variant"), "name"));
    int rc = load(k, c, "task", &k->task_plugin, why, nwhy);
    if (!rc) rc = load(k, c, "variant", &k->variant_plugin, why, nwhy);
    hs_catalog_free(c);
    if (rc) return rc;
    const task *t = hs_plugin_task(&k->task_plugin, tname);
    if (t->size < sizeof *t || !t->open) {
        snprintf(why, nwhy, "the task %s has no model that could be opened", tname);
        return HS_EXIT_EMPTY;
    }
    if (hs_bind(k->found.doc, t, hs_plugin_variant(&k->variant_plugin, vname), &k->bound, why, nwhy)) return HS_EXIT_SPEC;
    k->bound.mixer.impl = NULL;         /* whatever this device has */
    return HS_EXIT_OK;
}

/* The device, and the task's model on it without values; bf16 was for speed: what it trained are floats. */
static int build(hs_kept *k, const hs_kept_args *a, char *why, size_t nwhy)
{
    const char *dtype = json_string_value(json_object_get(k->found.doc, "dtype")), *was = json_string_value(json_object_get(k->found.doc, "data"));
    if (k_dev_open(a->device ? a->device : "cpu", a->threads, &k->dev, why, nwhy)) return HS_EXIT_DEVICE;
    k->host = (task_host){ sizeof k->host, k, no_metric, no_progress, no_stop, take_reason };
    k->call = (task_call){ .size = sizeof k->call, .opts = k->bound.task_opts, .train = &k->bound.train, .mixer = &k->bound.mixer,
        .dev = k->dev, .dtype = dtype && !strcmp(dtype, "f64") ? K_F64 : K_F32, .host = &k->host, .model = &k->bound.model,
        .seed = (uint64_t)json_integer_value(json_object_get(k->found.doc, "seed")) };
    k->model = (task_model){ .size = sizeof k->model };
    if (k->bound.task->open(&k->call, &k->model)) {
        snprintf(why, nwhy, "%s", k->reason);
        k->model = (task_model){ 0 };
        return HS_EXIT_FAILED;
    }
    if (!was || !strcmp(was, k->model.data->digest)) return HS_EXIT_OK;
    snprintf(why, nwhy, "the data set %s has been prepared in another way since this model was trained: its words have other numbers", k->model.data->name);
    return HS_EXIT_FAILED;
}

nn_graph *hs_kept_graph(hs_kept *k, int64_t B, int64_t T, int decode, nn_id *tokens, nn_id *scores)
{
    nn_graph *g = nn_graph_new(k->model.params, 0);
    if (!g) return NULL;
    if (decode) nn_graph_decode(g, T);
    *tokens = nn_input(g, K_I32, (attn_dims){ 2, { B, decode ? 1 : T } });
    *scores = k->model.record(&k->model, g, *tokens);
    nn_keep(g, *scores);
    return g;
}

/* A graph declares the parameters; then they are taken and filled. */
static int fill(hs_kept *k, char *why, size_t nwhy)
{
    nn_id tokens, scores;
    nn_graph *g = hs_kept_graph(k, 1, k->model.context, 0, &tokens, &scores);
    int rc = !g || nn_params_alloc(k->model.params, why, nwhy) || nn_checkpoint_values(k->model.params, k->found.weights, why, nwhy);
    nn_graph_free(g);
    return rc ? HS_EXIT_FAILED : HS_EXIT_OK;
}

int hs_kept_open(hs_kept *k, const hs_kept_args *a, char *why, size_t nwhy)
{
    *k = (hs_kept){ 0 };
    int rc = hs_kept_find(a, &k->found, why, nwhy);
    if (!rc) rc = bind(k, why, nwhy);
    if (!rc) rc = build(k, a, why, nwhy);
    return rc ? rc : fill(k, why, nwhy);
}

void hs_kept_close(hs_kept *k)
{
    if (k->model.close) k->model.close(&k->model);
    if (k->dev) k_dev_close(k->dev);
    hs_bound_release(&k->bound);
    if (k->task_plugin.handle) hs_plugin_close(&k->task_plugin);
    if (k->variant_plugin.handle) hs_plugin_close(&k->variant_plugin);
    hs_found_release(&k->found);
}
