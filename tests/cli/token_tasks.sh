#!/bin/bash
# The tasks of token sequences: copy, mqar.  A toy of each is trained, killed in the middle and resumed to the bit.
set -u
HARNESS=${HARNESS:-$PWD/build/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# /' err; fi; }
value() { sqlite3 "$1" "SELECT printf('%.4f', value) FROM v_metrics WHERE metric = '$2' ORDER BY step DESC LIMIT 1"; }
rows() { sqlite3 "$1" "SELECT metric, step, hex(value), printf('%!.17g', value) FROM v_metrics WHERE metric NOT LIKE '%second%' ORDER BY 1, 2"; }
above() { awk -v x="$1" -v least="$2" 'BEGIN { exit !(x >= least) }'; }
cat >copy.yaml <<YAML
experiment: copy
task: {name: copy, length: 16, symbols: 15, eval_sequences: 32}
model: {d_model: 32, d_ff: 32, heads: 2}
variants: [lsh: {n_rounds: 4, chunk_len: 4, redraw_interval: 1}]
train: {batch: 16, lr: 3.0e-3, max_steps: 600, eval_every: 50, checkpoint_every: 50}
seeds: [1]
device: cpu
YAML
cat >mqar.yaml <<YAML
experiment: mqar
task: {name: mqar, length: 16, pairs: 2, vocabulary: 32, examples: 500, eval_sequences: 50}
model: {d_model: 32, embedding_dropout: 0.1}
variants: [softmax]
train: {batch: 16, lr: 3.0e-3, max_steps: 600, eval_every: 50, checkpoint_every: 50, weight_decay: 0}
seeds: [1]
device: cpu
YAML

for t in copy mqar; do
  "$HARNESS" run $t.yaml --db $t.db --quiet >out 2>err; check "$t ends well" test $? = 0
  rows $t.db >calm.txt
  "$HARNESS" run $t.yaml --db rough.db --quiet >out 2>err & run=$!
  for ((i = 0; i < 900; i++)); do [ -n "$(ls checkpoints/*.ckpt 2>/dev/null)" ] && break; sleep 0.01; done
  kill -9 $run; wait $run 2>/dev/null
  check "$t is killed in the middle" test -n "$(ls checkpoints)" -a -z "$(value rough.db accuracy)"
  "$HARNESS" run $t.yaml --db rough.db --quiet >out 2>err; rows rough.db >rough.txt
  check "$t resumed has the numbers of the undisturbed run, to the bit" cmp -s calm.txt rough.txt
  rm -f rough.db*
done
check "copy is solved" above "$(value copy.db accuracy)" 0.99
check "and told for every number of rounds" test "$(sqlite3 copy.db "SELECT count(*) FROM v_metrics WHERE metric LIKE 'accuracy_full' OR metric LIKE 'accuracy_lsh_%'")" = 5
refused() { "$HARNESS" run "$1" --set "$2" --db refused.db >out 2>err; check "$2 is refused with its reason" grep -q "refused.*$3" err; }
refused copy.yaml task.length=15 "length 15 is odd"
refused mqar.yaml task.pairs=5 "length must be at least 4 pairs"
refused mqar.yaml task.examples=15 "15 examples do not make a batch of 16"
