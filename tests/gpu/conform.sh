#!/bin/bash
# Conformance of every variant's implementations for the GPU, without which a variant fails; then the list of variant x
# implementation x dtype x mode.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
quick=(); [ -n "${QUICK:-}" ] && quick=(--quick)

for so in "$B"/variants/*.so; do
  name=$(basename "$so" .so)
  timeout 300 "$HARNESS" check --device cuda --tap "${quick[@]}" "$so" >"$tmp/$name" 2>"$tmp/err"
  rc=$?
  cat "$tmp/$name"
  done=$(grep -E '^ok' "$tmp/$name" | grep -cv '# SKIP')
  if (( rc == 0 && done > 0 )); then echo "ok - $name conforms on the GPU"
  elif (( rc == 0 )); then echo "not ok - $name has no implementation for the GPU"
  else echo "not ok - $name conforms on the GPU (exit status $rc) $(head -1 "$tmp/err")"; fi
done
echo "# implementations for the GPU: variant, implementation and dtype, mode: ok, failed, skipped"
cat "$tmp"/* | sed -nE 's/^(not )?ok( [0-9]+)?( -)? ([a-z0-9_]+\/[^ /]+\/[a-z]+) .*/\4 \1\0/p' | awk '
  { k = $1; n[k]++; if ($2 == "not") f[k]++; else if (/# SKIP/) s[k]++; else o[k]++ }
  END { for (k in n) printf "# %-46s %4d %4d %4d\n", k, o[k], f[k], s[k] }' | sort
