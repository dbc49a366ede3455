#!/bin/bash
# Classification trained on the CPU and on the GPU: the same losses within rounding, for each way from tokens to one row, padding hidden; and
# in bf16 the same accuracy within its interval.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache
"$HARNESS" data prepare generated-matches >/dev/null 2>"$tmp/err" || { sed 's/^/# /' "$tmp/err"; echo "not ok - matches are made"; }
experiment() {                          # experiment NAME TASK-OPTIONS STEPS
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
task: {name: $2}
model: {layers: 2, d_model: 32, heads: 2, d_ff: 64, init: 0.18, dropout: 0.1, embedding_dropout: 0.1, ffn_dropout: 0.1}
variants: [softmax, linear, performer_generalized: {nb_features: 32}]
train: {lr: 2.0e-3, warmup: 10, batch: 16, max_steps: $3, eval_every: $3}
seeds: [1]
Y
}
run() {                                 # run NAME DEVICE ARGUMENTS: "accuracy,loss" of each cell, with what it is
  "$HARNESS" run "$tmp/$1.yaml" --device "$2" --db "$tmp/$2.db" --quiet "${@:3}" >"$tmp/log" 2>&1
  rc=$?
  (( rc == 0 )) && echo "ok - $1 trains on $2 ${*:3}" || { sed 's/^/# /' "$tmp/log" | tail -5; echo "not ok - $1 trains on $2 ${*:3} (exit status $rc)"; }
  "$HARNESS" show "$1" --db "$tmp/$2.db" --csv --metric test_loss --metric best_valid_loss | tail -n +2 >"$tmp/$1-$2"
}
experiment listops 'listops, pooling: [cls, mean], length: 48, depth: 4, arguments: 4, min_length: 5, max_length: 48, train_size: 0, valid_size: 100, test_size: 500' 60
experiment retrieval 'retrieval, data: generated-matches, pooling: mean, length: 64, eval_examples: 100' 60
for t in listops retrieval; do
  run $t cpu; run $t cuda
  paste -d, "$tmp/$t-cpu" "$tmp/$t-cuda" | awk -F, -v t=$t '
    function off(a, b) { return a == "" || b == "" ? 9 : a > b ? (a - b) / b : (b - a) / a }
    { half = NF / 2; a = off($(half - 1), $(NF - 1)); b = off($half, $NF); worst = a > b ? a : b; same = $1 == $(half + 1) && $2 == $(half + 2)
      printf "%s - %s %s %s: the GPU has the CPU'"'"'s losses, off by %.1e at most\n", same && worst < 0.01 ? "ok" : "not ok", t, $1, $2, worst }
    END { if (NR == 0) print "not ok - " t " has cells" }'
done
# In bf16 the loss moves by less than what a change of seed does.
sed 's/^experiment: .*/experiment: narrow/; s/^seeds:.*/seeds: [1]\ndtype: bf16/' "$tmp/listops.yaml" >"$tmp/narrow.yaml"
run narrow cuda
paste -d, "$tmp/listops-cuda" "$tmp/narrow-cuda" | awk -F, '
  { half = NF / 2; d = $half - $NF; d = d < 0 ? -d : d
    printf "%s - listops %s %s: in bf16 the loss is off by %.2g\n", $NF != "" && d < 0.05 ? "ok" : "not ok", $1, $2, d }'
