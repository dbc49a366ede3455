#!/bin/bash
# Conformance of every variant x impl x mode x option set, and of the template built outside the tree.
# Sanitized builds are slower and take the quick set.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} CC=${CC:-cc}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
quick=(); [ -n "${SAN:-}" ] && quick=(--quick)

conform() {                             # conform FILE.so: TAP lines, and one for the exit status
  "$HARNESS" check --tap "${quick[@]}" "$1" 2>/dev/null
  local rc=$?
  (( rc == 0 )) && echo "ok - $(basename "$1") conforms" || echo "not ok - $(basename "$1") conforms (exit status $rc)"
}

$CC -std=gnu17 -O2 -fPIC -shared -Iharness variants/TEMPLATE.c -o "$tmp/template.so" -lm || echo "not ok - the template compiles with one line"
for so in "$B"/variants/*.so "$tmp/template.so"; do
  conform "$so" >"$tmp/$(basename "$so").tap" &
  while (( $(jobs -rp | wc -l) > 1 )); do wait -n; done
done
wait
cat "$tmp"/*.tap
