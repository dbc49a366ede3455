#!/bin/bash
# Runs every suite that needs a GPU and ends with one line: N passed, M failed, K skipped.  A machine without a GPU fails:
# one was asked for.  Environment: B (build folder), ONLY=pattern runs the suites whose path matches, LIMIT (seconds for one
# suite, 1800: what takes longer hangs and has failed).
set -u
cd "$(dirname "$0")/../.." || exit 1
export B=${B:-build} HARNESS=$PWD/${B:-build}/harness OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
unset HARNESS_DB HARNESS_PLUGIN_PATH
device=$("$HARNESS" describe --device cuda) || { echo "make test-gpu needs a GPU: $device" >&2; exit 1; }
echo "$device"
passed=0 failed=0 skipped=0
log=$(mktemp) && trap 'rm -f "$log"' EXIT

for suite in "$B"/tests/gpu/* tests/gpu/*.sh; do
  [[ $suite == tests/gpu/run.sh || -d $suite || $suite != *"${ONLY:-}"* ]] && continue
  command=("$suite"); [[ $suite == *.sh ]] && command=(bash "$suite")
  start=$SECONDS
  timeout -k 10 "${LIMIT:-1800}" "${command[@]}" >"$log" 2>&1 </dev/null
  rc=$?
  (( rc == 124 )) && echo "not ok - ends within ${LIMIT:-1800} s" >>"$log"
  s=$(grep -cE '^ok .*# SKIP' "$log"); f=$(grep -cE '^not ok|^Bail out' "$log"); p=$(( $(grep -cE '^ok ' "$log") - s ))
  if (( rc != 0 && f == 0 )) || (( p + f + s == 0 )); then f=$((f + 1)); echo "not ok - exit status $rc" >>"$log"; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%-44s %5d passed %3d failed %3d skipped  %4d s\n' "${suite#"$B"/}" "$p" "$f" "$s" $((SECONDS - start))
  (( f )) && grep -E -B 3 '^not ok|^Bail out' "$log" | tail -n 60 | sed 's/^/    /'
  grep -E '^#' "$log" | sed 's/^#/   /'
  (( s )) && sed -n 's/^ok .*# SKIP *//p' "$log" | sort | uniq -c | sort -rn | awk 'NR <= 8 { print "    skipped" $0 } END { if (NR > 8) print "    skipped for", NR - 8, "other reasons" }'
done
echo "$passed passed, $failed failed, $skipped skipped"
(( failed == 0 && passed > 0 ))
