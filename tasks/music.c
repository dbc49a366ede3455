/* music - say every note of a chorale by those before it: soprano, alto, tenor and bass of each 16th note, one after another.
 *
 * The set-up of the Music Transformer on the JSB Chorales (Huang et al. 2018, arXiv:1809.04281): pieces by themselves, cut after
 * 1,024 notes, of which the last are 256 16ths.  A note that is held is said again at each 16th, and a voice that rests is told as such; both
 * count.  The loss is the paper's negative log-likelihood per note, in nats, nll_per_16th that of the four notes of a 16th
 * together.  Learned positions are told by the 16th and the voice. */
#include "generative.h"

static const attn_opt OPTS[] = { GEN_OPTIONS("jsb-chorales", "valid", 1, 1024, "notes of a sequence at most, a multiple of 4; longer pieces are several") };
static const task_metric METRICS[] = { GEN_METRICS("nll_per_16th", "nat", "negative log-likelihood of the four notes of a 16th") };
static const task_default TRAIN[] = {
    { "beta2", "0.98" }, { "eps", "1e-9" }, { "lr", "1e-3" }, { "warmup", "400" }, { "schedule", "inverse_sqrt" }, { "batch", "8" },
    { "max_steps", "5000" }, { "eval_every", "100" }, { NULL, NULL } };
static const task_default MODEL[] = {
    { "layers", "5" }, { "d_model", "256" }, { "heads", "8" }, { "d_ff", "1024" }, { "dropout", "0.1" }, { "positions", "axial" },
    { "axial_columns", "4" }, { NULL, NULL } };

static const gen_kind KIND = { "nll_per_16th", 4, 0 };
GEN_ENTRIES(KIND)

/* A 16th is not cut in two. */
static int check(const void *opts, char *why, size_t nwhy)
{
    const gen_opts *o = opts;
    return o->length % 4 ? (snprintf(why, nwhy, "length %d is no multiple of four voices", o->length), -1) : 0;
}

static const task MUSIC = {
    .size = sizeof(task), .name = "music", .title = "Chorales note by note", .paper = "arXiv:1809.04281", .opts_size = sizeof(gen_opts), .opts = OPTS,
    .metrics = METRICS, .train_defaults = TRAIN, .model_defaults = MODEL, .check = check, .run = task_run, .open = task_open };
TASK_EXPORT(&MUSIC);
