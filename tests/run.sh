#!/bin/bash
# Runs every suite and ends with one line: N passed, M failed, K skipped.
#
# A suite prints TAP lines: "ok - name", "not ok - name", "ok - name # SKIP reason"; a suite that exits
# non-zero without a "not ok" counts as one failure, and one that prints no result at all does too.
# Environment: B (build folder), SAN (sanitizers, if any), CI (a skip for want of Python is then a failure),
# ONLY=pattern runs the suites whose path matches.
set -u
cd "$(dirname "$0")/.." || exit 1
export B=${B:-build} SAN=${SAN:-} CMOCKA_MESSAGE_OUTPUT=TAP HARNESS=$PWD/${B:-build}/harness
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
unset HARNESS_DB HARNESS_PLUGIN_PATH
passed=0 failed=0 skipped=0
log=$(mktemp) && trap 'rm -f "$log"' EXIT

suite() {                               # suite NAME COMMAND...
  local name=$1; shift
  [[ -n ${ONLY:-} && $name != *$ONLY* ]] && return
  local start=$SECONDS
  "$@" >"$log" 2>&1 </dev/null
  local rc=$? s f p
  s=$(grep -cE '^ok .*# SKIP' "$log"); f=$(grep -cE '^not ok' "$log")
  p=$(( $(grep -cE '^ok ' "$log") - s ))
  if (( rc != 0 && f == 0 )) || (( p + f + s == 0 )); then f=$((f + 1)); echo "not ok - $name: exit status $rc" >>"$log"; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%-44s %5d passed %3d failed %3d skipped  %4d s\n' "$name" "$p" "$f" "$s" $((SECONDS - start))
  if (( f )); then grep -E -B 12 '^not ok|ERROR|runtime error' "$log" | tail -n 80 | sed 's/^/    /'; fi
  (( s )) && sed -n 's/^ok .*# SKIP *//p' "$log" | sort | uniq -c | sort -rn | awk 'NR <= 8 { print "    skipped" $0 } END { if (NR > 8) print "    skipped for", NR - 8, "other reasons" }'
}

for t in "$B"/tests/unit/*; do [ -x "$t" ] && [ ! -d "$t" ] && suite "unit/$(basename "$t")" "$t"; done
for t in tests/conform/*.sh tests/cli/*.sh tests/fault/*.sh tests/golden/*.sh; do
  [ -f "$t" ] && suite "${t#tests/}" bash "$t"
done
echo "$passed passed, $failed failed, $skipped skipped"
(( failed == 0 && passed > 0 ))
