#!/bin/bash
# What a cell costs that computes nothing: start, load, store.  Once with a worker that serves them all, once with
# a fresh worker for each (the task says that it failed, which retires the worker).  The aim is 50 ms.
set -eu
make -s B="$B" "$B"/tests/fault/{fake_task,treacherous}.so
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/tests/fault
printf 'experiment: empty\ntask: {name: fake, steps: 0, value: {from: 1, to: 200, step: 1}}\nvariants: [treacherous]\nseeds: [1]\ndevice: cpu\n' >"$tmp/empty.yaml"

measure() {                             # measure NAME ARGS...: milliseconds per cell, planning and all included
  local name=$1 start; shift
  start=$(date +%s%N)
  "$HARNESS" run "$tmp/empty.yaml" --db "$tmp/bench.db" --jobs 1 --quiet "$@" >/dev/null 2>&1 || true
  awk -v n="$name" -v t=$(($(date +%s%N) - start)) 'BEGIN { printf "%-36s %6.1f ms per cell   (aim 50)\n", n, t / 200 / 1e6 }'
}
"$HARNESS" run "$tmp/empty.yaml" --db "$tmp/bench.db" --only value=1 --quiet >/dev/null   # the check is not the subject
measure "one worker for 200 cells"
measure "a fresh worker for each" --set task.behave=fail
[ "$(sqlite3 "$tmp/bench.db" "SELECT count(*) FROM v_cells WHERE status IN ('done', 'crashed')")" = 400 ]
