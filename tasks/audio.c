/* audio - say every sample of a recording by those before it, as bytes of mu-law.
 *
 * Recordings by themselves, cut after `length` samples: 65,536 is the shortest length of table 4 of the Sparse Transformer
 * (Child et al. 2019, arXiv:1904.10509), which goes to 1,048,576.  Learned positions are told by row and column of a matrix whose rows are as
 * long as its columns. */
#include "generative.h"

static const attn_opt OPTS[] = { GEN_OPTIONS("audio", "valid", 1, 65536, "samples of a sequence at most; longer recordings are several") };
static const task_metric METRICS[] = { GEN_METRICS("bits_per_byte", "bit", "mean negative log-likelihood per sample") };
static const task_default TRAIN[] = {
    { "optimizer", "adamw" }, { "weight_decay", "0.01" }, { "lr", "3.5e-4" }, { "warmup", "5000" }, { "schedule", "cosine" }, { "clip", "1" },
    { "batch", "1" }, { "max_steps", "100000" }, { "eval_every", "1000" }, { NULL, NULL } };
static const task_default MODEL[] = { { "positions", "axial" }, { "scale_residual_init", "true" }, { NULL, NULL } };

static const gen_kind KIND = { "bits_per_byte", 1 / M_LN2, 0 };
GEN_ENTRIES(KIND)

static const task AUDIO = {
    .size = sizeof(task), .name = "audio", .title = "Sound sample by sample", .paper = "arXiv:1904.10509", .opts_size = sizeof(gen_opts), .opts = OPTS,
    .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .run = task_run, .open = task_open };
TASK_EXPORT(&AUDIO);
