/* bind.c - see bind.h. */
#include "bind.h"
#include <stdio.h>
#include <stdlib.h>
#include "options.h"

int hs_bind_options(const char *of, const attn_opt *table, size_t size, const json_t *said, void **out, char *why, size_t nwhy)
{
    char what[256] = "";
    *out = calloc(1, size ? size : 1);
    if (!*out) return snprintf(why, nwhy, "out of memory"), -1;
    if (!table) return 0;
    hs_opts_defaults(table, *out);
    if (!said || hs_opts_set_json(table, *out, said, what, sizeof what) == 0) return 0;
    return snprintf(why, nwhy, "%s: %s", of, what), -1;
}

/* The variant's own options and those that every variant has stand side by side in the cell; they part here. */
static int variant_options(hs_bound *b, const json_t *said, char *why, size_t nwhy)
{
    const attn_variant *v = b->mixer.variant;
    json_t *own = json_object(), *common = json_object(), *value;
    const char *name;
    char what[256] = "";
    json_object_foreach((json_t *)said, name, value) {
        int is_common = !(v->opts && hs_opts_find(v->opts, name)) && hs_opts_find(nn_common_table, name);
        json_object_set(is_common ? common : own, name, value);
    }
    int rc = hs_bind_options(v->name, v->opts, v->opts_size, own, &b->variant_opts, why, nwhy);
    hs_opts_defaults(nn_common_table, &b->mixer.common);
    if (rc == 0 && hs_opts_set_json(nn_common_table, &b->mixer.common, common, what, sizeof what) < 0)
        rc = (snprintf(why, nwhy, "%s: %s", v->name, what), -1);
    b->mixer.opts = b->variant_opts;
    json_decref(own);
    json_decref(common);
    return rc;
}

int hs_bind(const json_t *doc, const task *t, const attn_variant *variant, hs_bound *b, char *why, size_t nwhy)
{
    const json_t *v = json_object_get(doc, "variant"), *model = json_object_get(doc, "model");
    char what[256] = "";
    *b = (hs_bound){ .task = t, .mixer = { .variant = variant, .impl = json_string_value(json_object_get(v, "impl")) } };
    if (hs_bind_options(t->name, t->opts, t->opts_size, json_object_get(json_object_get(doc, "task"), "options"), &b->task_opts, why, nwhy) < 0 ||
        variant_options(b, json_object_get(v, "options"), why, nwhy) < 0) return -1;
    hs_opts_defaults(nn_train_table, &b->train);
    if (hs_opts_set_json(nn_train_table, &b->train, json_object_get(doc, "train"), what, sizeof what) < 0)
        return snprintf(why, nwhy, "train: %s", what), -1;
    hs_opts_defaults(nn_model_table, &b->model);
    if (t->model_defaults && model && hs_opts_set_json(nn_model_table, &b->model, model, what, sizeof what) < 0)
        return snprintf(why, nwhy, "model: %s", what), -1;
    return 0;
}

void hs_bound_release(hs_bound *b)
{
    free(b->task_opts);
    free(b->variant_opts);
    *b = (hs_bound){ 0 };
}
