#!/bin/bash
# The same cells trained on the CPU and on the GPU: the same losses within rounding, through the whole program.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/parity.yaml" <<'Y'
experiment: parity
about: the same curves on the CPU and on the GPU
task: {name: associative_retrieval, keys: [20, 60], eval_sequences: 4}
variants:
  - softmax
  - linear
  - linear: {feature_map: dpfp, nu: 2}
    label: DPFP-2
  - performer: {nb_features: 64}
  - fwp
train: {optimizer: adam, lr: 1.0e-3, batch: 16, max_steps: 150, eval_every: 50, clip: 1, stop: {loss: 0, patience: 0}}
seeds: [1]
Y
for device in cpu cuda; do
  "$HARNESS" run "$tmp/parity.yaml" --device $device --db "$tmp/$device.db" --quiet >"$tmp/$device.log" 2>&1
  rc=$?
  (( rc == 0 )) && echo "ok - trains on $device" || { sed 's/^/# /' "$tmp/$device.log" | tail -5; echo "not ok - trains on $device (exit status $rc)"; }
  "$HARNESS" show parity --db "$tmp/$device.db" --csv --metric best_eval_loss --metric last_eval_loss | tail -n +2 >"$tmp/$device"
done
paste -d, "$tmp/cpu" "$tmp/cuda" | awk -F, '
  function off(a, b) { return a == "" || b == "" ? 9 : a > b ? (a - b) / b : (b - a) / a }
  { best = off($6, $13); last = off($7, $14); worst = best > last ? best : last
    printf "%s - %s with %s keys: the GPU has the CPU'"'"'s losses (%s and %s), off by %.1e at most\n",
      $4 == "done" && $11 == "done" && $2 == $9 && worst < 0.01 ? "ok" : "not ok", $2, $1, $4, $11, worst }'
