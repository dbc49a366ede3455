#!/bin/bash
# The task language_model where segments go on from each other: states carried on, memories, and what contradicts them.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
variant='fwp: {update_rule: delta}'
experiment() {                          # experiment NAME TASK-OPTIONS: a model that is not trained, so that all have the same weights
  cat >"$tmp/$1.yaml" <<Y
experiment: $1
about: a small one
task: {name: language_model, data: generated-text, valid_split: test, eval_tokens: 100, test_tokens: 399, eval_batch: ${streams:-1}, $2}
variants: [$variant]
model: {layers: 2, d_model: 32, heads: 2, positions: none, init: 0.3}
train: {lr: 0, batch: 4, max_steps: 1, eval_every: 1}
seeds: [1]
device: cpu
Y
  mkdir -p "$tmp/$1"
}
run() { "$HARNESS" run "$tmp/$1.yaml" --db "$tmp/$1/r.db" --quiet 2>&1; }
metric() { "$HARNESS" show "$1" --db "$tmp/$1/r.db" --csv --metric "$2" | tail -1 | awk -F, '{ print $NF }'; }
test_loss() { experiment "$@"; run "$1" >"$tmp/log" || sed 's/^/# /' "$tmp/log" >&2; metric "$1" test_loss; }
# Two losses that are the same but for rounding, or both of them.
against() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(a > 0 && (d < 0 ? -d : d) < 1e-5 * a) }' && echo "equal" || echo "differ: $1 $2"; }

"$HARNESS" data prepare generated-text >/dev/null 2>&1
# 399 is no multiple of 8: the tail is shorter.
long=$(test_loss long 'context: 399')
is "states carried through segments of 8 are one context of the whole text" "$(against "$long" "$(test_loss carried 'context: 8, carry: true')")" "equal"
is "so they are through segments of 5" "$(against "$long" "$(test_loss fives 'context: 5, carry: true')")" "equal"
is "segments that forget say something else" "$(against "$long" "$(test_loss forgets 'context: 8')")" "differ"
is "two streams side by side begin twice" "$(against "$long" "$(streams=2 test_loss twice 'context: 8, carry: true')")" "differ"
is "every token is in the test, of one stream and of two" "$(metric carried test_tokens) $(metric twice test_tokens)" "399 399"
is "a stream carries as much, however many there are and however short their segments" \
  ".$(metric carried carried_bytes) $(metric fives carried_bytes)." ".$(metric twice carried_bytes) $(metric twice carried_bytes)."

variant='softmax: {position: rope}'
is "a memory is of the layers' inputs: 2 layers, 3 segments of 8 tokens of 32 floats" ".$(test_loss memory 'context: 8, memory: 3' >/dev/null; metric memory carried_bytes)." ".$((2 * 3 * 8 * 32 * 4))."
is "attention looks at it" "$(against "$(metric memory test_loss)" "$(test_loss alone 'context: 8')")" "differ"
reason() { experiment "$@"; run "$1" >/dev/null; "$HARNESS" show "$1" --db "$tmp/$1/r.db" --csv; }
is "a variant without a state says so" "$(reason stateless 'context: 8, carry: true')" "softmax has no state to go on from"
is "it is one way to go on or the other" "$(reason both 'context: 8, memory: 1, carry: true')" "two ways to go on"
is "what goes on does not overlap" "$(reason overlap 'context: 8, memory: 1, test_stride: 4')" "do not overlap"
is "nor is it masked" "$(reason hidden 'context: 8, carry: true, objective: masked')" "hidden tokens are of one segment"
