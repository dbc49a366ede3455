#!/bin/bash
# Language models trained by the program, their kept weights read by NumPy: the same perplexity of the same text, to 1e-4.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
python=
for p in /usr/bin/python3 python3 .venv/bin/python ${PYTHON:-}; do "$p" -c 'import numpy' 2>/dev/null && python=$p; done
if [[ -z $python ]]; then
  [[ -n ${CI:-} ]] && { echo "not ok - perplexity equals NumPy's: no python3 with numpy, which CI must have"; exit 1; }
  echo "ok - perplexity equals NumPy's # SKIP no numpy"; exit 0
fi
"$HARNESS" data prepare generated-text >/dev/null 2>"$tmp/log" || { sed 's/^/# /' "$tmp/log"; echo "not ok - prepares generated-text"; exit 1; }
text=$(dirname "$(find "$tmp/cache" -name generated.train.txt)")

# compare NAME VARIANT MODEL STRIDE [TASK]
compare() {
  mkdir "$tmp/$1"
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: held against NumPy
task: {name: language_model, data: generated-text, context: 16, eval_tokens: 400, test_tokens: 600, test_stride: $4${5:+, $5}}
variants: [$2]
model: {layers: 2, d_model: 24, heads: 3, d_ff: 40, dropout: 0.1, $3}
train: {max_steps: 60, batch: 8, warmup: 10, lr: 3.0e-3, eval_every: 60, keep: true}
seeds: [1]
device: cpu
Y
  "$HARNESS" run "$tmp/$1.yaml" --dry-run --json >"$tmp/plan.json" 2>"$tmp/log" &&
    "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/$1/r.db" --quiet >"$tmp/log" 2>&1 || { sed 's/^/# /' "$tmp/log"; echo "not ok - trains $1"; return; }
  local have want
  have=$("$HARNESS" show "$1" --db "$tmp/$1/r.db" --csv --metric test_loss --metric test_tokens | tail -1 | awk -F, '{ print $(NF - 1), $NF }')
  want=$("$python" tests/golden/perplexity.py "$text/generated.train.txt" "$text/generated.test.txt" "$tmp/$1"/models/*.safetensors "$tmp/plan.json" 2>&1 | tail -1)
  echo "$have $want" | awk -v name="$1" '{ d = exp($1) - exp($3); d = (d < 0 ? -d : d) / exp($3)
    printf "%s - %s: perplexity %.6f, NumPy %.6f over %d tokens, off by %.1e\n", NF == 4 && $2 == $4 && d < 1e-4 ? "ok" : "not ok", name, exp($1), exp($3), $4, d }'
}
paper='norm_position: post, activation: relu, positions: sinusoidal_reversed, scale_embedding: true, attention_bias: false'
modern='norm: rms, activation: swiglu, positions: learned, tie_embeddings: false'
compare softmax softmax "$paper" 1
compare linear 'linear: {feature_map: elu1}' "$paper" 5
compare delta 'fwp: {update_rule: delta, feature_map: elu1, scale: 0}' "$paper" 16
compare favor 'performer: {nb_features: 12}' "$modern" 16
compare gla gla "$modern" 7
compare window 'sliding_window: {window: 5}' 'activation: gelu, positions: none' 16
compare adaptive softmax "$paper, adaptive_cutoffs: [100, 300, 1000]" 8
# Both go on from segments of 16 tokens: by states, and by memories of two segments in each of the layers.
compare carried 'fwp: {update_rule: delta}' "${modern/learned/none}" 0 'carry: true, eval_batch: 1'
compare memory 'softmax: {position: rope}' "${paper/sinusoidal_reversed/none}" 0 'memory: 2, eval_batch: 1'
compare remembered 'linear: {feature_map: elu1}' 'positions: none' 0 'memory: 3, eval_batch: 1'
