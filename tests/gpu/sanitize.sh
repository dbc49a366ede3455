#!/bin/bash
# compute-sanitizer over training, over the kernels of the seam and, quickly, over every variant: memory and races.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
command -v compute-sanitizer >/dev/null || { echo "ok - compute-sanitizer # SKIP compute-sanitizer is not installed"; exit 0; }
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

clean() {                               # clean TOOL NAME COMMAND...: in the background, its result in a file
  local tool=$1 name=$2 log=$tmp/$1.${2// /_}; shift 2
  { timeout 900 compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 "$@" >"$log.log" 2>&1
    local rc=$?
    if (( rc == 0 )); then echo "ok - $tool finds nothing in $name"; else
      grep -E '=========|not ok|FAIL' "$log.log" | head -20 | sed 's/^/# /'; echo "not ok - $tool in $name: exit status $rc"; fi
  } >"$log.tap" &
  while (( $(jobs -rp | wc -l) > 3 )); do wait -n; done
}
clean memcheck training "$B/tests/gpu/test_nn" 3
for tool in memcheck racecheck; do
  clean $tool "the kernels of the seam" "$B/tests/gpu/test_ops" own
  for so in "$B"/variants/*.so; do clean $tool "$(basename "$so" .so)" "$HARNESS" check --device cuda --quick "$so"; done
done
wait
cat "$tmp"/*.tap
