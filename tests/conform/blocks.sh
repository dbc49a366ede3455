#!/bin/bash
# Variants that cut the sequence into blocks, at blocks so small that the checker's short sequences have many of them.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

conforms() {                            # conforms VARIANT OPTIONS...: every set of options passes every check
  local variant=$1 sets=(); shift
  for o in "$@"; do sets+=(--options "$o"); done
  if "$HARNESS" check --only-options "${sets[@]}" "$B/variants/$variant.so" >"$tmp/log" 2>&1 && ! grep -q '^0 ok' "$tmp/log"
  then echo "ok - $variant conforms with $# sets of small blocks"
  else grep FAIL "$tmp/log" | head; tail -1 "$tmp/log"; echo "not ok - $variant conforms with small blocks"; fi
}

sets=()
for across in true false; do for dedup in true false; do
  for o in "chunk_len=2" "chunk_len=3 n_buckets=6" "chunk_len=1 n_buckets=4 key_eps=0 scale=0" "chunk_len=1 lookback_wrap=true" \
           "chunk_len=5 n_rounds=1 lookback_wrap=true"; do
    sets+=("$o attend_across_buckets=$across dedup=$dedup")
  done
done; done
conforms lsh "${sets[@]}"

sets=()
for beyond in zero clamp; do for values in true false; do
  for o in "max_distance=1" "max_distance=3 block_length=2" "max_distance=40 block_length=1" "max_distance=20 block_length=7 share_heads=true"; do
    sets+=("$o beyond=$beyond relative_values=$values")
  done
done; done
conforms relative "${sets[@]}"
