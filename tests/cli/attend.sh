#!/bin/bash
# harness attend on models trained here: shapes and files, both ways the same bytes where they are exact, similarity, complaints.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
holds() { if eval "$2"; then echo "ok - $1"; else echo "not ok - $1 ($2)"; fi; }
for set in generated-text generated-proteins; do "$HARNESS" data prepare $set >/dev/null 2>&1; done
train() {                               # train NAME TASK-OPTIONS VARIANTS
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: a small one
task: {name: language_model, context: 48, eval_tokens: 500, test_tokens: 500, $2}
variants: $3
model: {layers: 2, d_model: 32, heads: 4}
train: {lr: 1.0e-2, batch: 8, max_steps: 20, eval_every: 20, keep: true}
seeds: [1]
device: cpu
Y
  "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/r.db" --quiet >"$tmp/log" 2>&1 || sed 's/^/# /' "$tmp/log"
}
attend() { "$HARNESS" attend "$1" --db "$tmp/r.db" --out "$tmp/$2" "${@:3}" 2>&1; }
shape() { head -c 128 "$tmp/$1" | tr -d '\0' | grep -ao "([0-9, ]*)"; }

train words 'data: generated-text' '[softmax]'
is "rows of a softmax sum to one" "$(attend words all)" "layer 1: softmax, by its own map; rows sum to 1 within"
is "all layers and heads" "$(shape all/attention.npy)" "(2, 4, 48, 48)"
holds "the tokens beside them" '[ "$(wc -l <"$tmp/all/tokens.txt")" = 48 ]'
holds "data and script of the picture" 'grep -q "matrix with image" "$tmp/all/attention.gp" && [ "$(awk "NF" "$tmp/all/attention.tsv" | wc -l)" = 99 ]'
if command -v gnuplot >/dev/null; then holds "and the picture, thrice" '[ -s "$tmp/all/attention.png" ] && [ -s "$tmp/all/attention.pdf" ] && [ -s "$tmp/all/attention.svg" ]'
else echo "ok - and the picture, thrice # SKIP there is no gnuplot"; fi
attend words layer --layer 1 --length 20 >/dev/null; is "one layer, fewer tokens" "$(shape layer/attention.npy)" "(4, 20, 20)"
attend words head --head 3 --from 100 --length 20 >/dev/null; is "one head of each layer" "$(shape head/attention.npy)" "(2, 20, 20)"
attend words one --layer 0 --head 2 --length 9 >/dev/null; is "one head" "$(shape one/attention.npy)" "(9, 9)"
is "a layer that is not there" "$(attend words x --layer 2)" "the model has layers 0..1"
is "a head that is not there" "$(attend words x --head 4)" "a layer has heads 0..3"
is "too many tokens" "$(attend words x --length 49)" "more than the model's context of 48"
is "an unknown word" "$(attend words x --text 'xyzzy')" "'xyzzy' is not in the vocabulary"
is "a text without words" "$(attend words x --text ' ')" "the text is empty"
is "a split that is not there" "$(attend words x --split dev)" "has no split 'dev'"
is "similarity is of proteins" "$(attend words x --similarity)" "has not all amino acids"
holds "what failed has left nothing" '[ ! -e "$tmp/x" ]'

train proteins 'data: generated-proteins, objective: masked' '[softmax, linear, fwp]'
train recurrent 'data: generated-proteins' '[lstm]'
for variant in softmax linear; do
  is "by one-hot values, $variant" "$(attend proteins $variant-values --only variant=$variant --text ACDEFGHIKLMNPQRSTVWY --by values)" "by one-hot values"
  is "by its own map, $variant" "$(attend proteins $variant-map --only variant=$variant --text ACDEFGHIKLMNPQRSTVWY --by map)" "by its own map"
  # Own maps are the reference's output for values of an identity: the same sums, in blocks.
  holds "both the same numbers, $variant" 'cmp -s "$tmp/'$variant'-map/attention.tsv" "$tmp/'$variant'-values/attention.tsv"'
done
is "an LSTM has no map" "$(attend recurrent x)" "the output of lstm is no sum of its values with one weight each"
for variant in softmax fwp; do
  is "similarity, $variant" "$(attend proteins like-$variant --only variant=$variant --similarity --sequences 12)" "12 sequences with"
  is "as a matrix, $variant" "$(shape like-$variant/similarity.npy)" "(20, 20)"
  holds "beside BLOSUM62, $variant" '[ "$(awk "NF == 42" "$tmp/like-'$variant'/similarity.tsv" | wc -l)" = 20 ]'
done
is "its correlation" "$(attend proteins like --only variant=softmax --similarity --sequences 12)" "with BLOSUM62, 190 pairs: Pearson"
is "not of a text" "$(attend proteins x --only variant=softmax --similarity --text MKV)" "of sequences of a split, not of a text"
