#!/bin/bash
# A training that is interrupted, then killed, and then allowed to finish goes on from its checkpoint and ends with
# the numbers of an undisturbed one, to the bit.
set -u
HARNESS=${HARNESS:-$PWD/build/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# /' err; fi; }
cat >train.yaml <<YAML
experiment: train
task: {name: associative_retrieval, keys: 40}
variants: [softmax]
train: {max_steps: ${STEPS:-4000}, stop: {loss: 0, patience: 0}, eval_every: 100, checkpoint_every: 50}
seeds: [1]
device: cpu
limits: {time: 5m, memory: 1G}
YAML
rows() { sqlite3 "$1" "SELECT metric, step, hex(value), printf('%!.17g', value) FROM v_metrics WHERE metric NOT LIKE '%second%' ORDER BY 1, 2"; }
# Starts the training in the background and sends a signal when a new checkpoint has been written.
disturb() {
  touch mark
  "$HARNESS" run train.yaml --db rough.db --quiet >out 2>err & local run=$!
  for ((i = 0; i < 600; i++)); do
    [ -n "$(find checkpoints -name '*.ckpt' -newer mark 2>/dev/null)" ] && break
    sleep 0.02
  done
  kill "-$1" $run; wait $run 2>/dev/null
}

"$HARNESS" run train.yaml --db calm.db --quiet >out 2>err; check "an undisturbed training ends well" test $? = 0
rows calm.db >calm.txt
check "and has a learning curve" test "$(grep -c '^eval_loss|' calm.txt)" -gt 20
check "its checkpoint is removed" test -z "$(ls checkpoints)"
disturb INT
check "an interrupted training leaves its checkpoint" test -n "$(ls checkpoints)" -a "$(sqlite3 rough.db 'SELECT status FROM v_cells')" = interrupted
disturb KILL
check "so does a killed one" test -n "$(ls checkpoints)"
"$HARNESS" run train.yaml --db rough.db --quiet >out 2>err; check "the same command finishes it" test $? = 0
rows rough.db >rough.txt
check "with the numbers of the undisturbed one, to the bit" cmp -s calm.txt rough.txt
check "and removes its checkpoint" test -z "$(ls checkpoints)"
