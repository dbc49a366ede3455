/* image - say every byte of an image by those before it, in raster order, R, G and B of a pixel one after another.
 *
 * One image is one sequence: 3,072 bytes of CIFAR-10, 12,288 of ImageNet 64 x 64.  Bits per dimension are bits per byte; an image
 * of random bytes has 8.  Defaults are those of the Sparse Transformer on CIFAR-10 (Child et al. 2019, arXiv:1904.10509): the last 2,000
 * images of train are held out, learned positions are told by row, column and channel.  `harness sample --complete` draws what a kept
 * model makes of halves of images. */
#include "generative.h"

static const attn_opt OPTS[] = { GEN_OPTIONS("cifar10", "", 2000, 3072, "bytes of an image: 3 side^2") };
static const task_metric METRICS[] = { GEN_METRICS("bits_per_dim", "bit", "mean negative log-likelihood per byte of an image") };
static const task_default TRAIN[] = {
    { "optimizer", "adamw" }, { "weight_decay", "0.01" }, { "lr", "3.5e-4" }, { "warmup", "5000" }, { "schedule", "cosine" }, { "clip", "1" },
    { "batch", "16" }, { "max_steps", "360000" }, { "eval_every", "3000" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "positions", "axial" }, { "axial_columns", "32" }, { "axial_channels", "3" }, { "scale_residual_init", "true" }, { NULL, NULL } };

static const gen_kind KIND = { "bits_per_dim", 1 / M_LN2, 1 };
GEN_ENTRIES(KIND)

static const task IMAGE = {
    .size = sizeof(task), .name = "image", .title = "Images byte by byte", .paper = "arXiv:1904.10509", .opts_size = sizeof(gen_opts), .opts = OPTS,
    .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .run = task_run, .open = task_open };
TASK_EXPORT(&IMAGE);
