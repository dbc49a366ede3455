#!/bin/bash
# compute-sanitizer over training, over the kernels of the seam and over every variant with its default options: memory
# (memcheck) at all shapes and widths, races in shared memory (racecheck) in bfloat16 at the same and in float at small ones.
# What a child of the command reports is an error, too.  Environment: BUDGET (seconds for all of it; what is cut off fails).
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} BUDGET=${BUDGET:-1800}
command -v compute-sanitizer >/dev/null || { echo "ok - compute-sanitizer # SKIP compute-sanitizer is not installed"; exit 0; }
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
jobs=$(( $(nproc) * 3 / 4 )); (( jobs > 1 )) || jobs=1

clean() {                               # clean TOOL NAME COMMAND...: in the background, its result in a file
  local tool=$1 name=$2 log=$tmp/$1.${2// /_}; shift 2
  { local start=$SECONDS left=$(( BUDGET - SECONDS )) rc
    OMP_NUM_THREADS=1 timeout -k 5 $(( left > 1 ? left : 1 )) \
      compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 "$@" >"$log.log" 2>&1
    rc=$?
    if (( rc == 0 )); then echo "ok - $tool finds nothing in $name"; else
      grep -E '=========|not ok|FAIL' "$log.log" | head -20 | sed 's/^/# /'; echo "not ok - $tool in $name: exit status $rc"; fi
    echo "# $((SECONDS - start)) s: $tool, $name"
  } >"$log.tap" &
  while (( $(jobs -rp | wc -l) >= jobs )); do wait -n; done
}
defaults() {                            # defaults TOOL FILE.so NAME ARGUMENT...: forward, backward and decoding, once, in all modes
  local tool=$1 so=$2 name=$3; shift 3
  clean "$tool" "$(basename "$so" .so)$name" "$HARNESS" check --device cuda --defaults --once "$@" "$so"
}
for so in "$B"/variants/*.so; do        # the long ones first
  defaults racecheck "$so" ", bf16" --dtype bf16
  defaults racecheck "$so" ", f32" --dtype f32 --quick
done
for so in "$B"/variants/*.so; do defaults memcheck "$so" ""; done
for tool in racecheck memcheck; do clean $tool "the kernels of the seam" "$B/tests/gpu/test_ops" own; done
clean memcheck training "$B/tests/gpu/test_nn" 3
wait
cat "$tmp"/*.tap
