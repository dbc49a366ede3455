#!/bin/bash
# harness sample on models trained here: the same seeds the same text, states and windows alike, the prompt goes first; and what
# is said when there is nothing to go on with.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
same() { if [[ -n $2 && $2 == "$3" ]]; then echo "ok - $1"; else echo "not ok - $1: '$2' and '$3'"; fi; }
holds() { if eval "$2"; then echo "ok - $1"; else echo "not ok - $1 ($2)"; fi; }
for set in generated-text generated-proteins; do "$HARNESS" data prepare $set >/dev/null 2>&1; done
model='layers: 2, d_model: 32, heads: 2'
train() {                               # train NAME TASK-OPTIONS VARIANTS [MODEL [TRAIN]]
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: a small one
task: {name: language_model, context: 32, eval_tokens: 500, test_split: "", $2}
variants: $3
model: {$model${4:+, $4}}
train: {lr: 1.0e-2, batch: 8, max_steps: 30, eval_every: 30, keep: true${5:+, $5}}
seeds: [1]
device: cpu
Y
  "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/r.db" --quiet >"$tmp/log" 2>&1 || sed 's/^/# /' "$tmp/log"
}
sample() { "$HARNESS" sample "$@" --db "$tmp/r.db" 2>&1; }

train words 'data: generated-text' '[softmax]'
words=$(sample words --length 20 --seed 3)
holds "a text of as many words" '[ "$(sample words --length 20 --seed 3 --json | grep -c "^ *[0-9]*,\?$")" = 20 ]'
same "the same seed, the same text" "$words" "$(sample words --length 20 --seed 3)"
holds "another seed, another text" '[ "$words" != "$(sample words --length 20 --seed 4)" ]'
same "windows say what states say" "$words" "$(sample words --length 20 --seed 3 --by windows)"
same "by the file of the experiment" "$words" "$(sample "$tmp/words.yaml" --length 20 --seed 3)"
key=$(basename "$tmp"/models/*.safetensors .safetensors)
same "by the key" "$words" "$(sample "${key:0:12}" --length 20 --seed 3)"
same "by the file of weights, with the store beside it" "$words" "$("$HARNESS" sample "$tmp/models/$key.safetensors" --length 20 --seed 3 2>&1)"
same "the first of several is as alone" "$(echo "$words" | head -1)" "$(sample words --length 20 --seed 3 --number 3 | sed -n 2p)"
same "no temperature: the likeliest, whatever the seed" "$(sample words --temperature 0 --seed 1)" "$(sample words --temperature 0 --seed 2)"
same "only the likeliest of all" "$(sample words --temperature 0)" "$(sample words --top-k 1)"
first=$(sample words --length 1 --temperature 0 | head -1)
[ -n "$first" ] || first=$(sample words --length 9 | tr ' ' '\n' | grep -m1 .)
is "a text begins with the prompt" "$(sample words --length 5 --prompt "$first $first")" "$first $first"
is "a word that is not in the vocabulary" "$(sample words --prompt 'xyzzy')" "'xyzzy' is not in the vocabulary of generated-text, in which <unk> stands for such words"
is "longer than the context: by windows" "$(sample words --length 40 --json)" '"by": "windows"'
is "a wrong value" "$(sample words --top-p 1.5)" "--top-p does not take '1.5'"
is "what is not there" "$(sample nothing)" "knows no experiment and no key 'nothing'"
is "a store that is not there" "$("$HARNESS" sample words --db "$tmp/none.db" 2>&1)" "none.db"

# Without positions there is no place that a model has not seen; a variant with states of its own; an average of weights.
train bare 'data: generated-text' '[gla]' 'positions: none' 'average: 0.9'
is "without positions the states go on" "$(sample bare --length 40 --json)" '"by": "states"'
same "and say what windows say" "$(sample bare --length 30)" "$(sample bare --length 30 --by windows)"
train reversed 'data: generated-text' '[softmax]' 'positions: sinusoidal_reversed'
is "positions from the end: by windows" "$(sample reversed --length 10 --json)" '"by": "windows"'
is "and not by states" "$(sample reversed --length 10 --by states)" "reversed positions"

# Several models of an experiment; hidden tokens; nothing kept.
train proteins 'data: generated-proteins, objective: [next, masked]' '[softmax]'
is "which of them?" "$(sample proteins)" "2 models of proteins are kept; choose one with --only"
is "amino acids stand side by side" "$(sample proteins --only objective=next --prompt mkv --length 20)" "MKV"
is "what fills gaps does not go on" "$(sample proteins --only objective=masked)" "was trained to say what is hidden"
is "a letter that is no amino acid" "$(sample proteins --only objective=next --prompt MKJ)" "'J' is not in the vocabulary of generated-proteins"

# Bytes are bytes; a set that was prepared in another way has other words.
"$HARNESS" data prepare generated-text --level bytes >/dev/null 2>&1
is "words that have other numbers now" "$(sample words)" "has been prepared in another way since this model was trained"
train bytes 'data: generated-text' '[linear]'
is "bytes go on behind the prompt as it stands" "$(sample bytes --prompt 'a  b' --length 12)" "a  b"
holds "and are as many as asked for" '[ "$(sample bytes --prompt "a  b" --length 12 | wc -c)" = 17 ]'
rm "$tmp"/models/*
is "nothing is kept" "$(sample words)" "no model of words is kept"
