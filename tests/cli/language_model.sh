#!/bin/bash
# The task language_model on corpora made here: learning, both objectives, what a cell knows of its data, kill -9 in the middle.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
holds() { if awk "BEGIN { exit !($2) }"; then echo "ok - $1 ($2)"; else echo "not ok - $1 ($2)"; fi; }
variant=softmax
experiment() {                          # experiment NAME TASK-OPTIONS TRAIN-OPTIONS [LR]
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: a small one
task: {name: language_model, $2}
variants: [$variant]
model: {layers: 1, d_model: 32, heads: 2, dropout: 0.1}
train: {lr: ${4:-1.0e-2}, warmup: 20, batch: 16, $3}
seeds: [1]
device: cpu
Y
  mkdir -p "$tmp/$1"
}
run() { "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/$1/r.db" --quiet "${@:2}" 2>&1; }
metric() { "$HARNESS" show "$1" --db "$tmp/$1/r.db" --csv --metric "$2" | tail -1 | awk -F, '{ print $NF }'; }

experiment words 'data: generated-text, context: 32, eval_tokens: 3000, test_tokens: 3000' 'max_steps: 300, eval_every: 150, keep: true'
is "a set that is not prepared" "$(run words)" "harness data prepare generated-text"
"$HARNESS" data prepare generated-text >/dev/null 2>&1
run words >"$tmp/log" || sed 's/^/# /' "$tmp/log"
holds "words: better than their frequencies" "$(metric words test_perplexity) < 0.97 * $(metric words unigram_perplexity)"
holds "the test has the tokens asked for" "$(metric words test_tokens) == 3000"
holds "the generated text has rare words" "$(metric words test_unknown) > 0"
is "the weights are kept" "$(ls "$tmp/words/models" | wc -l)" "1"
is "the same again" "$("$HARNESS" run "$tmp/words.yaml" --db "$tmp/words/r.db" 2>&1)" "nothing to compute"

experiment bytes 'data: generated-text, context: 32, stride: 33' 'max_steps: 10'
is "a stride that leaves tokens out" "$("$HARNESS" run "$tmp/bytes.yaml" --dry-run 2>&1; run bytes; "$HARNESS" show bytes --db "$tmp/bytes/r.db" --csv 2>&1)" "would leave tokens out"
experiment nosplit 'data: generated-text, valid_split: dev, context: 16' 'max_steps: 10'
run nosplit >/dev/null
is "a split that is not there" "$("$HARNESS" show nosplit --db "$tmp/nosplit/r.db" --csv)" "has no split 'dev'"

"$HARNESS" data prepare generated-proteins >/dev/null 2>&1
for objective in next masked; do
  experiment $objective "data: generated-proteins, context: 64, objective: $objective, eval_tokens: 4000, test_tokens: 8000, other_split: valid" 'max_steps: 400, eval_every: 400' 3.0e-3
  sed -i 's/dropout: 0.1/&, scale_embedding: true/' "$tmp/$objective.yaml"      # places are added: small embeddings would drown in them
  run $objective >"$tmp/log" || sed 's/^/# /' "$tmp/log"
  holds "proteins, $objective: better than the frequencies" "$(metric $objective test_perplexity) < $(metric $objective unigram_perplexity)"
  holds "proteins, $objective: the other split, too" "$(metric $objective other_perplexity) > 1 && $(metric $objective other_perplexity) < 30"
  holds "proteins, $objective: guesses are counted" "$(metric $objective test_accuracy) > 0.05"
done
holds "what is hidden is guessed more rarely than what is asked for" "0 < $(metric masked test_hidden_accuracy) && $(metric masked test_hidden_accuracy) < $(metric masked test_accuracy)"

# Killed in the middle and gone on with: the weights of an undisturbed run, bit for bit, also where states are carried on.
variant='fwp: {update_rule: delta}'
experiment whole 'data: generated-text, context: 32, carry: true, eval_tokens: 500, test_tokens: 500' 'max_steps: 120, eval_every: 30, checkpoint_every: 10, keep: true'
sed 's/^experiment: whole/experiment: killed/' "$tmp/whole.yaml" >"$tmp/killed.yaml"; mkdir "$tmp/killed"
run whole >"$tmp/log" || sed 's/^/# /' "$tmp/log"
setsid "$HARNESS" run "$tmp/killed.yaml" --db "$tmp/killed/r.db" --quiet >/dev/null 2>&1 &
for _ in $(seq 400); do ls "$tmp"/killed/checkpoints/*.ckpt >/dev/null 2>&1 && break; sleep 0.05; done
kill -9 -- -$! 2>/dev/null; wait 2>/dev/null
is "it was killed before its end" "$(ls "$tmp/killed/models" 2>/dev/null | wc -l)" "0"
is "there is a checkpoint to go on from" "$(ls "$tmp"/killed/checkpoints/*.ckpt | wc -l)" "1"
run killed >"$tmp/log" || sed 's/^/# /' "$tmp/log"
# The tensors of a kept file before "extra:", the last, in which the training loop keeps what the clock said; the header has their sum.
weights() {
  local n from; n=$(od -An -tu8 -N8 "$1" | tr -d ' ')
  read -r from < <(head -c $((8 + n)) "$1" | tail -c "$n" | sed -E 's/.*"extra:":\{[^}]*\[([0-9]+),[0-9]+\]\}.*/\1/')
  tail -c +$((9 + n)) "$1" | head -c "$from" | sha256sum
}
is "the same weights to the bit" "$(weights "$tmp"/whole/models/*.safetensors)" "$(weights "$tmp"/killed/models/*.safetensors)"
holds "the same test" "$(metric killed test_loss) == $(metric whole test_loss)"
