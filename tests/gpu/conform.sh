#!/bin/bash
# Conformance of every variant's implementations for the GPU, without which a variant fails; then the list of variant x
# implementation x dtype x mode.  The judge works on the CPU, so several share the GPU.  QUICK=1: small shapes, few options.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
quick=(); [ -n "${QUICK:-}" ] && quick=(--quick)

conform() {                             # conform FILE.so: TAP lines, and one for the whole
  local name checked rc; name=$(basename "$1" .so)
  timeout 900 "$HARNESS" check --device cuda --tap "${quick[@]}" "$1" 2>"$tmp/$name.err"; rc=$?
  checked=$(grep -E '^ok' "$tmp/$name.tap" | grep -cv '# SKIP')
  if (( rc == 0 && checked > 0 )); then echo "ok - $name conforms on the GPU"
  elif (( rc == 0 )); then echo "not ok - $name has no implementation for the GPU"
  else echo "not ok - $name conforms on the GPU (exit status $rc) $(head -1 "$tmp/$name.err")"; fi
}
for so in "$B"/variants/*.so; do
  conform "$so" >"$tmp/$(basename "$so" .so).tap" &
  while (( $(jobs -rp | wc -l) > $(nproc) / 2 )); do wait -n; done
done
wait
cat "$tmp"/*.tap
echo "# implementations for the GPU: variant, implementation and dtype, mode: ok, failed, skipped"
cat "$tmp"/*.tap | sed -nE 's/^(not )?ok( [0-9]+)?( -)? ([a-z0-9_]+\/[^ /]+\/[a-z]+) .*/\4 \1\0/p' | awk '
  { k = $1; n[k]++; if ($2 == "not") f[k]++; else if (/# SKIP/) s[k]++; else o[k]++ }
  END { for (k in n) printf "# %-46s %4d %4d %4d\n", k, o[k], f[k], s[k] }' | sort
