#!/bin/bash
# The task translation on pairs made here: units and bytes, learning, both ways of decoding, kill -9 in the middle.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
holds() { if awk "BEGIN { exit !($2) }"; then echo "ok - $1 ($2)"; else echo "not ok - $1 ($2)"; fi; }
experiment() {                          # experiment NAME DATA VARIANT TASK-OPTIONS TRAIN-OPTIONS
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: a small one
task: {name: translation, data: $2, source: aa, target: bb, longest: 16, buckets: 2, tokens: 256, extra: 4, valid_pairs: 100, $4}
variants: [$3]
model: {layers: 1, d_model: 32, heads: 2, d_ff: 64, dropout: 0.0, embedding_dropout: 0.0}
train: {lr: 5.0e-3, warmup: 50, $5}
seeds: [1]
device: cpu
Y
  mkdir -p "$tmp/$1"
}
run() { "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/$1/r.db" --quiet "${@:2}" 2>&1; }
metric() { "$HARNESS" show "$1" --db "$tmp/$1/r.db" --csv --metric "$2" | tail -1 | awk -F, '{ print $NF }'; }
rows() { sqlite3 "$tmp/$1/r.db" "SELECT metric, step, hex(value), printf('%!.17g', value) FROM v_metrics WHERE metric NOT LIKE '%second%' ORDER BY 1, 2"; }

"$HARNESS" data prepare generated-pairs >/dev/null 2>&1
set=generated-pairs
if [ -e "$B/libharness-sentencepiece.so" ]; then
  is "units of proteins" "$("$HARNESS" data prepare generated-proteins --subwords 100 2>&1)" "units are made of pairs alone"
  is "too few units" "$("$HARNESS" data prepare generated-pairs --subwords 3 2>&1)" "a number of units"
  out=$("$HARNESS" data prepare generated-pairs --subwords 200 2>&1)
  is "a set in units" "$out" "test.bb.text"
  is "the same again" "$("$HARNESS" data prepare generated-pairs --subwords 200 2>&1)" "is prepared already"
  is "nothing else is left" "$(ls "$tmp/cache/harness/prepared" | grep -c 200)" "2"
  set=generated-pairs-200
fi

experiment whole $set softmax 'beam: 3, decode_rows: 32, test_pairs: 40, verify: 30, also: valid' 'max_steps: 200, eval_every: 100, checkpoint_every: 20, keep: true'
run whole >"$tmp/log" || sed 's/^/# /' "$tmp/log"
holds "it knows more than how often a word is said" "$(metric whole valid_loss) < 3.3"
holds "the test has the pairs asked for" "$(metric whole test_pairs) == 40"
holds "beam search and greedy decoding are judged" "$(metric whole bleu_beam) > 0 && $(metric whole bleu_greedy) > 0 && $(metric whole bleu_interval) >= 0"
holds "decoding on states says what decoding of whole prefixes says, token for token" "$(metric whole verified_tokens) > 90 && $(metric whole same_tokens) == 1"
holds "with the same probability" "$(metric whole verify_difference) < 1e-5"
holds "another split is translated, too" "$(metric whole bleu_also) > 0 && $(metric whole also_interval) > 0"
is "the translations are kept" "$(cat "$tmp"/whole/translations/*.test.txt | wc -l)" "40"
is "those of the other split, too" "$(cat "$tmp"/whole/translations/*.valid.txt | wc -l)" "40"
cut -c1-3 "$tmp"/whole/translations/*.test.txt >"$tmp/other"
is "and compare with another's" "$("$HARNESS" bleu "$tmp"/whole/translations/*.test.txt "$tmp"/whole/translations/*.test.txt --against "$tmp/other")" "p = 0.0001"

# Killed in the middle and gone on with: the numbers of an undisturbed run, to the bit.
sed 's/^experiment: whole/experiment: killed/' "$tmp/whole.yaml" >"$tmp/killed.yaml"; mkdir "$tmp/killed"
setsid "$HARNESS" run "$tmp/killed.yaml" --db "$tmp/killed/r.db" --quiet >/dev/null 2>&1 &
for _ in $(seq 400); do ls "$tmp"/killed/checkpoints/*.ckpt >/dev/null 2>&1 && break; sleep 0.02; done
kill -9 -- -$! 2>/dev/null; wait 2>/dev/null
is "there is a checkpoint to go on from" "$(ls "$tmp"/killed/checkpoints/*.ckpt | wc -l)" "1"
run killed >"$tmp/log" || sed 's/^/# /' "$tmp/log"
if [ "$(rows whole)" = "$(rows killed)" ] && [ -n "$(rows whole)" ]; then echo "ok - resumed has the numbers of the undisturbed run"
else echo "not ok - resumed has the numbers of the undisturbed run"; fi

experiment bytes generated-pairs linear 'beam: 2, decode_rows: 8, test_pairs: 5' 'max_steps: 5, eval_every: 5'
run bytes >"$tmp/log" || sed 's/^/# /' "$tmp/log"
holds "bytes are translated, too" "$(metric bytes bleu_beam) >= 0"
holds "what is too long is left out and told" "$(metric bytes left_out) > 0"

experiment refused generated-pairs lstm 'beam: 2, decode_rows: 8, test_pairs: 5' 'max_steps: 5'
run refused >/dev/null
is "a variant that cannot read both ways" "$("$HARNESS" show refused --db "$tmp/refused/r.db" --csv)" "refused"
experiment mixed generated-pairs lstm 'encoder: linear, cross: softmax, beam: 2, decode_rows: 8, test_pairs: 5' 'max_steps: 5'
run mixed >"$tmp/log" || sed 's/^/# /' "$tmp/log"
holds "but others can in its place" "$(metric mixed bleu_beam) >= 0"
experiment narrow generated-pairs softmax 'beam: 9, decode_rows: 8' 'max_steps: 5'
is "no room for the beam" "$("$HARNESS" run "$tmp/narrow.yaml" --dry-run 2>&1; run narrow; "$HARNESS" show narrow --db "$tmp/narrow/r.db" --csv 2>&1)" "has no room for a beam of 9"
experiment nosplit generated-pairs-77 softmax 'test_pairs: 1' 'max_steps: 5'
is "a set that is not there" "$(run nosplit)" "harness data prepare generated-pairs --subwords 77"
