#!/bin/bash
# Translation on the GPU: the CPU's losses, and token by token on states the translations of whole prefixes.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache
"$HARNESS" data prepare generated-pairs >/dev/null 2>&1
cat >"$tmp/t.yaml" <<'Y'
experiment: t
about: made-up languages in bytes
task: {name: translation, data: generated-pairs, source: aa, target: bb, longest: 32, buckets: 2, tokens: 1024, extra: 4, valid_pairs: 100,
       beam: 3, decode_rows: 48, test_pairs: 64, verify: 64}
variants: [softmax, linear, {performer: {nb_features: 32}}]
model: {layers: 1, d_model: 64, heads: 2, d_ff: 128, dropout: 0.0, embedding_dropout: 0.0}
train: {lr: 3.0e-3, warmup: 50, max_steps: 120, eval_every: 60}
seeds: [1]
Y
run() {                                 # run NAME OPTION...: a line a variant of what is compared
  "$HARNESS" run "$tmp/t.yaml" --db "$tmp/$1.db" --quiet "${@:2}" >"$tmp/$1.log" 2>&1 || { sed 's/^/# /' "$tmp/$1.log" | tail -5; echo "not ok - trains: ${*:2}"; }
  "$HARNESS" show t --db "$tmp/$1.db" --csv --metric valid_loss --metric verified_tokens --metric same_tokens --metric verify_difference --metric verify_gap |
    tail -n +2 | cut -d, -f1,3,5- >"$tmp/$1"
}
run cpu --device cpu
run cuda --device cuda
run bf16 --device cuda --set dtype=bf16
paste -d, "$tmp/cpu" "$tmp/cuda" | awk -F, '
  function say(is, what) { print (is ? "ok - " : "not ok - ") what }
  { off = ($10 - $3) / $3
    say($2 == "done" && $9 == "done" && off * off < 1e-6, $1 ": the loss of the CPU (" $3 " and " $10 ")")
    say($11 > 200 && $12 == 1 && $13 < 1e-3, $1 ": " $11 " tokens are those of whole prefixes (share " $12 "), as likely to " $13) }'
awk -F, '{ print ($2 == "done" && $4 > 200 && $5 > 0.9 && $7 < 0.3 ? "ok - " : "not ok - ") $1 " in bf16: " $4 " tokens, those of whole prefixes (share " $5 \
             ") or as likely to " $7 }' "$tmp/bf16"
