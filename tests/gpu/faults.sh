#!/bin/bash
# What may happen on a GPU: a kernel that writes anywhere, more memory than there is, a device that is not there.  Each cell ends
# with its status and a reason, and the next one finds the device well.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} here=$PWD
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$tmp HARNESS_DB=$tmp/results.db

cat >"$tmp/wild.c" <<'C'
/* A task that asks the device for what its option says. */
#include "harness/task.h"
enum { NOTHING, WILD, MUCH, WAIT };
typedef struct opts { int32_t behave; } opts;
static const attn_opt OPTS[] = { { "behave", "what", 0, ATTN_CHOICE, 0, 0, 0, "nothing,wild,much,wait", 0 }, { .name = 0 } };
static const task_metric METRICS[] = { { "sum", "1", "of ones", 0, 0 }, { .name = 0 } };
static int run(const task_call *c)
{
    enum { N = 1000 };
    int behave = ((const opts *)c->opts)->behave, rc = TASK_DONE;
    void *x, *index, *big;
    if (k_alloc(c->dev, K_TAG_DATA, N * 4, &x) || k_alloc(c->dev, K_TAG_DATA, N * 4, &index)) return TASK_OOM;
    k_fill(c->dev, K_F32, N, x, 1);
    k_zero(c->dev, index, N * 4);
    if (behave == WILD) {
        int32_t wild = 2000000000;
        k_upload(c->dev, index, &wild, 4);
        k_gather_rows(c->dev, K_F32, 1, N, x, x, index, 0);
    }
    for (int i = 0; behave == MUCH && i < 100; i++)
        if (k_alloc(c->dev, K_TAG_ACTIVATION, (size_t)5 << 30, &big)) {
            c->host->reason(c->host->ctx, k_error(c->dev));
            return TASK_OOM;
        }
    while (behave == WAIT) k_sync(c->dev);
    c->host->metric(c->host->ctx, "sum", 0, k_sum_squares(c->dev, K_F32, N, x));
    return rc;
}
static const task wild = { .size = sizeof wild, .name = "wild", .title = "Wild", .paper = "none", .opts_size = sizeof(opts),
                           .opts = OPTS, .metrics = METRICS, .run = run };
TASK_EXPORT(&wild);
C
${CC:-cc} -std=gnu17 -O1 -fPIC -shared -I"$here" -I"$here/harness" "$tmp/wild.c" -o "$tmp/wild.so" || echo "not ok - the task compiles"
ln -s "$here/$B/variants/softmax.so" "$tmp"
cat >"$tmp/wild.yaml" <<'Y'
experiment: wild
about: what goes wrong on a GPU
task: {name: wild, behave: [wild, nothing, much, wait]}
variants: [softmax]
seeds: [1, 2]
device: cuda
limits: {time: 5s}
Y
cd "$tmp" || exit 1
"$HARNESS" run wild.yaml --quiet >log 2>&1
"$HARNESS" show wild.yaml --csv --metric sum >cells
ends() {                                # ends BEHAVIOUR PATTERN: both seeds
  if (( $(grep -cE "^$1,.*$2" cells) == 2 )); then echo "ok - $1: $2"; else sed 's/^/# /' log cells; echo "not ok - $1: $2"; fi
}
ends wild 'crashed,.*cuda:0.*illegal memory access'
ends much 'oom,.*asked 5368709120 bytes for activations, [0-9]+ of [0-9]+ free'
ends wait 'timeout,'
ends nothing 'done,.*1000$'
"$HARNESS" run wild.yaml --device cuda --only behave=nothing --quiet >log 2>&1 && echo "ok - what is done stays done" || echo "not ok - what is done stays done"
sentence=$(CUDA_VISIBLE_DEVICES= "$HARNESS" describe --device cuda)
[[ $sentence == '{"refused":"no CUDA device: '* ]] && echo "ok - a GPU that is hidden is not there" || echo "not ok - a GPU that is hidden is not there: $sentence"
CUDA_VISIBLE_DEVICES= "$HARNESS" run wild.yaml --set device=auto --dry-run 2>&1 | grep -q '^harness: on the CPU: no CUDA device: ' \
  && echo "ok - device auto falls back on the CPU and says why" || echo "not ok - device auto falls back on the CPU and says why"
