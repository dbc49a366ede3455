#!/bin/bash
# Weights of one variant in another: kept under a name, named by train.init, part of the key; without and with further steps; and the
# other options of training that a cell can say: adafactor, the mean of the last evaluations, an adaptive softmax.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
holds() { if awk "BEGIN { exit !($2) }"; then echo "ok - $1 ($2)"; else echo "not ok - $1 ($2)"; fi; }
run() { "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/r.db" --quiet "${@:2}" 2>&1; }
metric() { "$HARNESS" show "$tmp/$1.yaml" --db "$tmp/r.db" --csv --only "variant=$2" --metric "$3" | tail -1 | awk -F, '{ print $NF }'; }
"$HARNESS" data prepare generated-text >/dev/null 2>&1

cat >"$tmp/transfer.yaml" <<'Y'
experiment: transfer
about: a small one
task: {name: language_model, data: generated-text, context: 32, eval_tokens: 2000, test_tokens: 2000}
variants:
  - softmax: {}
    label: kept
    train: {keep: true, keep_as: teacher}
  - performer: {nb_features: 64}
    label: drawn
    train: {max_steps: 0}
  - performer: {nb_features: 64}
    label: taken
    train: {max_steps: 0, init: teacher}
  - performer: {nb_features: 64}
    label: tuned
    train: {max_steps: 20, init: teacher}
model: {layers: 1, d_model: 32, heads: 2}
train: {lr: 1.0e-2, warmup: 10, batch: 16, max_steps: 150, eval_every: 150}
seeds: [1]
device: cpu
Y
is "before the model is there" "$(run transfer; echo "rc $?")" "there is no kept model 'teacher' yet"
is "its own cells can be run alone" "$(run transfer --only variant=kept; echo "rc $?")" "rc 0"
is "a name beside the key" "$(ls "$tmp/models" | grep -c -E '^(teacher|[0-9a-f]{64})\.safetensors$')" 2
is "then the others" "$(run transfer; echo "rc $?")" "rc 0"
kept=$(metric transfer kept test_loss) drawn=$(metric transfer drawn test_loss) taken=$(metric transfer taken test_loss) tuned=$(metric transfer tuned test_loss)
holds "weights taken are better than drawn ones" "$taken < $drawn - 0.2"
holds "some steps make up for the change of the variant" "$tuned < $taken && $kept < $taken"
is "no step was taken" "$(metric transfer taken steps)" 0
is "the cell tells what was taken" "$("$HARNESS" show "$tmp/transfer.yaml" --db "$tmp/r.db" --csv --only variant=taken)" "teacher.safetensors; "
is "the same again" "$("$HARNESS" run "$tmp/transfer.yaml" --db "$tmp/r.db" 2>&1)" "nothing to compute"
key=$(basename "$(ls "$tmp"/models/[0-9a-f]*.safetensors | grep -v teacher | head -1)" .safetensors)
sed "s/init: teacher/init: ${key:0:12}/; s/^experiment: .*/experiment: bykey/" "$tmp/transfer.yaml" >"$tmp/bykey.yaml"
is "a model by the beginning of its key, or its path" "$(run bykey --dry-run && run transfer --set "train.init=$tmp/models/teacher.safetensors" --only variant=drawn --dry-run && echo both)" both
sed -i 's/seeds: .1./seeds: [2]/' "$tmp/transfer.yaml"
run transfer --only variant=kept >/dev/null
sed -i 's/seeds: .2./seeds: [1]/' "$tmp/transfer.yaml"
is "another model of that name makes the cells stale" "$("$HARNESS" status "$tmp/transfer.yaml" --db "$tmp/r.db" 2>&1)" "the model that it begins with"

sed 's/^experiment: .*/experiment: ways/; /keep_as/,$d; s/    label: kept/    label: adafactor/' "$tmp/transfer.yaml" >"$tmp/ways.yaml"
cat >>"$tmp/ways.yaml" <<'Y'
    train: {optimizer: adafactor, lr: 3.0e-2}
  - softmax: {}
    label: averaged
    train: {average_last: 3, eval_every: 40, checkpoint_every: 20}
  - softmax: {}
    label: adaptive
    model: {adaptive_cutoffs: [50, 200]}
model: {layers: 1, d_model: 32, heads: 2}
train: {lr: 1.0e-2, warmup: 10, batch: 16, max_steps: 150, eval_every: 150}
seeds: [1]
device: cpu
Y
is "other ways to train" "$(run ways; echo "rc $?")" "rc 0"
for way in adafactor averaged adaptive; do holds "$way: it learns" "$(metric ways $way test_loss) < $drawn - 1.2"; done
holds "an adaptive softmax has an entry for each tail" "$(metric ways adaptive parameters) - $(metric ways adafactor parameters) == 2 * 32"
