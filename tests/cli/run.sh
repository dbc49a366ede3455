#!/bin/bash
# harness run from the outside: what it prints where, what it exits with, how it stops and goes on.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/tests/fault HARNESS_DB=$tmp/results.db
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# out: /' out; sed 's/^/# err: /' err; fi; }
run() { "$HARNESS" run "$@" >out 2>err; }
exits() { local code=$1 name=$2; shift 2; run "$@"; local rc=$?; check "$name exits $code" test $rc = "$code"; }
sql() { sqlite3 results.db "$1"; }
cat >a.yaml <<YAML
experiment: a
task: {name: fake, value: {from: 1, to: 4, step: 1}}
variants: [treacherous]
seeds: [1, 2]
device: cpu
limits: {time: 60s, memory: 1G}
YAML

# Without a store: --dry-run plans and makes nothing.
exits 0 "--dry-run" a.yaml --dry-run
check "--dry-run lists every cell and the count" test "$(grep -c ' planned ' out)" = 8 -a "$(tail -1 out)" = '8 cells, 8 to compute'
check "--dry-run makes no store" test ! -e results.db
exits 0 "--dry-run --only" a.yaml --dry-run --only value=2,3 --only seed=1
check "--only leaves the others out" test "$(tail -1 out)" = '2 cells, 2 to compute'
exits 0 "--dry-run --set" a.yaml --dry-run --set task.value=7 --json
check "--json is JSON with the cells" test "$(sqlite3 :memory: "SELECT json_extract(readfile('out'), '\$.cell[1].axes.seed')")" = 2

exits 2 "no file" ; exits 2 "two files" a.yaml a.yaml; exits 2 "an unknown option" a.yaml --faster
exits 2 "--jobs 0" a.yaml --jobs 0; exits 2 "--jobs many" a.yaml --jobs many; exits 2 "--color loud" a.yaml --color=loud
exits 2 "--set without a value" a.yaml --set
exits 3 "a file that is not there" b.yaml
exits 3 "a task option that is not there" a.yaml --set task.valu=1
check "with the nearest name" grep -q "value" err
exits 6 "an empty sweep" a.yaml --only value=99
check "nothing of this made a store" test ! -e results.db

exits 0 "a sweep" a.yaml
check "progress is on stderr alone" test "$(grep -c '^\[' out)" = 0 -a "$(grep -c '^\[.*done in' err)" = 8
check "the summary is on stdout" grep -q '8 done; 8 computed' out
check "no escape sequences without a terminal" test "$(grep -c "$(printf '\033')" err)" = 0
check "the store is where HARNESS_DB says" test "$(sql "SELECT count(*) FROM v_cells WHERE status='done'")" = 8
exits 0 "the same again" a.yaml
check "computes nothing and says so" grep -q 'nothing to compute' out
check "and checks nothing again" test ! -s err
touch a.yaml "$HARNESS_PLUGIN_PATH/treacherous.so"
exits 0 "after touch" a.yaml; check "touch computes nothing" grep -q 'nothing to compute' out
exits 0 "another value" a.yaml --set task.value=1,9 --quiet
check "computes that value alone" test "$(sql "SELECT count(*) FROM v_cells WHERE json_extract(task_options,'\$.value')=9")" = 2
check "a narrowed run keeps the experiment's other cells" test "$(sql "SELECT count(*) FROM v_cells WHERE experiment='a'")" = 10
check "--quiet is quiet" test ! -s out -a ! -s err
exits 0 "a dry run afterwards" a.yaml --dry-run
check "shows what is done" test "$(grep -c ' done ' out)" = 8 -a "$(tail -1 out)" = '8 cells, 0 to compute'

# A plug-in's new bytes make exactly its cells stale.
mkdir plugins; cp "$HARNESS_PLUGIN_PATH"/{fake_task,treacherous}.so plugins/
export HARNESS_PLUGIN_PATH=$tmp/plugins
exits 0 "equal bytes elsewhere" a.yaml; check "are the same plug-in" grep -q 'nothing to compute' out
printf x >>plugins/treacherous.so
exits 0 "a dry run after a change" a.yaml --dry-run; check "calls the cells stale" test "$(grep -c ' stale ' out)" = 8
exits 0 "a run after a change" a.yaml; check "computes them again" grep -q '8 computed' out

# Results that are no success are success, unless --strict.
printf 'experiment: r\ntask: {name: fake, behave: [none, refuse, diverge, ask]}\nvariants: [treacherous]\nseeds: [1]\ndevice: cpu\n' >r.yaml
exits 0 "refused, diverged and oom" r.yaml
exits 1 "the same with --strict" r.yaml --strict
exits 1 "a crash" r.yaml --set task.behave=segfault
check "is listed with its reason" grep -q 'crashed: treacherous .*signal 11\|crashed: treacherous .*code 1' err

# Colour.
NO_COLOR=1 run r.yaml --set task.behave=fail;          check "NO_COLOR is obeyed" test "$(grep -c "$(printf '\033')" err)" = 0
run r.yaml --set task.behave=fail --color=always;      check "--color=always colours" grep -q "$(printf '\033\\[31m')crashed" err
NO_COLOR=1 run r.yaml --set task.behave=fail --color=always; check "and is stronger than NO_COLOR" grep -q "$(printf '\033')" err

# On a terminal the lines are redrawn and kept within its width.
cat >slow.yaml <<YAML
experiment: slow
task: {name: fake, steps: 60, sleep_ms: 10, value: {from: 1, to: 8, step: 1}}
variants: [treacherous]
seeds: [1]
device: cpu
limits: {time: 60s, memory: 1G}
YAML
script -qec "stty cols 60; NO_COLOR=1 '$HARNESS' run slow.yaml --only value=1 --db t.db" typescript >out 2>err </dev/null
check "a terminal is redrawn" grep -q "$(printf '\033\\[')[0-9]*A" typescript
check "within its width" test "$(tr '\r' '\n' <typescript | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' | grep -E '^  treacherous|^[0-9]+/[0-9]+ cells' | awk '{ if (length > m) m = length } END { print m + 0 }')" -le 60
check "NO_COLOR there too" test "$(grep -c "$(printf '\033\\[[0-9;]*m')" typescript)" = 0

# SIGINT ends the running cells cleanly, says how to go on, and going on does the rest.
for sig in INT TERM; do
  "$HARNESS" run slow.yaml --db $sig.db --jobs 2 >out 2>err & run=$!
  sleep 1; kill -$sig $run; wait $run; rc=$?
  check "SIG$sig exits $((128 + $(kill -l $sig)))" test $rc = $((128 + $(kill -l $sig)))
  check "SIG$sig prints the command that goes on" grep -q "to go on: .*run slow.yaml --db $sig.db\|to go on: .*run .*--db $sig.db .*slow.yaml" err
  check "SIG$sig leaves cells interrupted" test "$(sqlite3 $sig.db "SELECT count(*) FROM v_cells WHERE status='interrupted'")" = 2
  before=$(sqlite3 $sig.db "SELECT count(*) FROM v_cells WHERE status='done'")
  $(sed -n 's/^to go on: //p' err) >out 2>err
  check "after SIG$sig that command does the rest" grep -q "8 done; $((8 - before)) computed" out
done
"$HARNESS" run slow.yaml --set task.behave=stubborn --db twice.db --jobs 2 >out 2>err & run=$!
sleep 0.8; kill -INT $run; sleep 0.2; start=$(date +%s%N); kill -INT $run; wait $run; rc=$?
check "a second SIGINT exits 130 at once" test $rc = 130 -a $(( ($(date +%s%N) - start) / 1000000 )) -lt 1000

# Every command explains itself and refuses what it does not know.
for c in run status show plot list env check apply; do
  "$HARNESS" $c -h >out 2>err; rc=$?
  check "$c -h explains and exits 0" test $rc = 0 -a -s out -a ! -s err
  "$HARNESS" $c --no-such-option >out 2>err; rc=$?
  check "$c refuses an unknown option" test $rc = 2 -a -s err
done
