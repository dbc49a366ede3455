/* fake_plan.h - a plan made by code, for tests of what comes after planning. */
#ifndef FAKE_PLAN_H
#define FAKE_PLAN_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plan.h"

static const char *const fake_labels[] = { "Softmax", "Linear", "DPFP-1", "DPFP-2", "DPFP-3", "FAVOR+ 64", "FAVOR+ 128",
                                           "FAVOR+ 512" };

/* Keys in the form of the real ones: 64 hex digits, here of the cell's number and a build. */
static inline void fake_key(char out[65], int number, int build)
{
    snprintf(out, 65, "%032x%032x", build, number);
}

/* nseries x nx x nseeds cells: series s at keys 20 + 20 x and seed 1 + r; the digests name the build. */
static inline void fake_plan(hs_plan *plan, const char *name, int nseries, int nx, int nseeds, int build)
{
    char digest[32];
    snprintf(digest, sizeof digest, "digest-%d", build);
    memset(plan, 0, sizeof *plan);
    plan->file = strdup("experiments/fake.yaml");
    plan->experiment = strdup(name);
    plan->about = strdup("made by code");
    plan->ncells = (size_t)(nseries * nx * nseeds);
    plan->cell = calloc(plan->ncells, sizeof *plan->cell);
    plan->text = json_object();
    plan->figures = json_array();
    for (int i = 0; i < (int)plan->ncells; i++) {
        hs_cell *c = &plan->cell[i];
        int series = i / (nx * nseeds), keys = 20 + 20 * (i / nseeds % nx), seed = 1 + i % nseeds;
        fake_key(c->key, i, build);
        fake_key(c->ident, i, 0);
        c->label = fake_labels[series];
        c->variant_path = "build/variants/fake.so";
        c->task_path = "build/tasks/fake.so";
        c->axes = json_pack("{s:i, s:s, s:i}", "keys", keys, "variant", c->label, "seed", seed);
        c->doc = json_pack("{s:{s:s, s:{s:i}, s:s}, s:{s:s, s:{}, s:s, s:s}, s:{s:f}, s:i, s:s, s:s, s:n, s:i}",
                           "task", "name", "associative_retrieval", "options", "keys", keys, "digest", "task",
                           "variant", "name", series ? "linear" : "softmax", "options", "impl", "cpu", "digest", digest,
                           "train", "lr", 1e-3, "seed", seed, "device", "cpu", "dtype", "f32", "data", "numerics", HS_NUMERICS);
    }
}

/* Frees a plan of fake_plan. */
static inline void fake_plan_free(hs_plan *plan)
{
    for (size_t i = 0; i < plan->ncells; i++) {
        json_decref(plan->cell[i].doc);
        json_decref(plan->cell[i].axes);
    }
    free(plan->cell);
    free(plan->file);
    free(plan->experiment);
    free(plan->about);
    json_decref(plan->text);
    json_decref(plan->figures);
}
#endif
