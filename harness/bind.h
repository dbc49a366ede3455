/* bind.h - a cell's document bound to loaded tables: every option of task, variant, training and model in its struct. */
#ifndef HS_BIND_H
#define HS_BIND_H
#include <jansson.h>
#include "task.h"
#include "nn/model.h"
#include "nn/train.h"

typedef struct hs_bound {
    const task *task;
    nn_mixer_spec mixer;                /* its shape is the task's to fill in */
    nn_train_opts train;
    nn_model_opts model;
    void *task_opts, *variant_opts;
} hs_bound;
/* doc: as in hs_cell; it must outlive what is bound.  0, or -1 with a sentence; to be released either way. */
int  hs_bind(const json_t *doc, const task *, const attn_variant *, hs_bound *, char *why, size_t nwhy);
void hs_bound_release(hs_bound *);
/* An options struct with its defaults and what is said, in which NULL says nothing; the caller frees *out.  The same. */
int  hs_bind_options(const char *of, const attn_opt *table, size_t size, const json_t *said, void **out, char *why, size_t nwhy);
#endif
