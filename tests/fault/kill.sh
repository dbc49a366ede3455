#!/bin/bash
# 50 kill -9 at random moments, of the runner and of single workers: nothing that was finished is lost, nothing is
# there twice, and the final rows equal those of an undisturbed run to the bit.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
kills=${KILLS:-50}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/tests/fault
cd "$tmp" || exit 1
RANDOM=${SEED:-$$}

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi; }
cat >sweep.yaml <<YAML
experiment: sweep
task: {name: fake, steps: 40, sleep_ms: 2, value: {from: 1, to: 12, step: 1}}
variants: [treacherous]
seeds: [1, 2, 3]
device: cpu
limits: {time: 60s, memory: 1G}
YAML
# Every row that does not tell the time: times differ, numbers may not.
rows() {
  sqlite3 "$1" "SELECT experiment, cell_key, status, reason, task, variant, label, seed, device, task_options, variant_options, train_options
                FROM v_cells ORDER BY cell_key;
                SELECT cell_key, metric, step, hex(value), printf('%!.17g', value), unit FROM v_metrics WHERE metric <> 'seconds' ORDER BY 1, 2, 3"
}
workers_of() { pgrep -P "$1" -f worker; }
# Living programs of that name in this folder: ours.
still_here() { for p in /proc/[0-9]*; do [[ $(readlink $p/cwd) == "$tmp" && $(readlink $p/exe) == */$1 ]] && echo $p; done 2>/dev/null; }

begin=$(date +%s%N)
"$HARNESS" run sweep.yaml --db calm.db --jobs 2 --quiet >/dev/null 2>&1
check "an undisturbed run ends well" test $? = 0
span=$(( ($(date +%s%N) - begin) / 5000000 ))           # ms: a fifth of it is the longest life we grant
rows calm.db >calm.txt
check "and has rows" test "$(wc -l <calm.txt)" -gt 1000

killed=0 workers=0 runs=0 lost=0 before=0
while (( killed < kills && runs < 8 * kills )); do
  "$HARNESS" run sweep.yaml --db rough.db --jobs 2 --quiet >/dev/null 2>err & run=$!
  runs=$((runs + 1))
  while (( killed < kills )); do
    sleep "$(printf 0.%03d $((RANDOM % (span < 900 ? span : 900) + 10)))"
    kill -0 $run 2>/dev/null || break
    children=()
    if (( killed % 2 )); then               # every other time a worker, once there is one
      while kill -0 $run 2>/dev/null; do children=($(workers_of $run)); (( ${#children[@]} )) && break; sleep 0.01; done
    fi
    killed=$((killed + 1))
    if (( ${#children[@]} )); then workers=$((workers + 1)); kill -9 "${children[RANDOM % ${#children[@]}]}" 2>/dev/null
    else kill -9 $run; break; fi
  done
  if (( killed == kills )); then kill -9 $run 2>/dev/null; fi
  wait $run 2>/dev/null
  if [ -f rough.db ]; then
    now=$(sqlite3 rough.db "SELECT count(*) FROM v_cells WHERE status='done'" 2>/dev/null || echo "$before")
    (( now < before )) && lost=$((lost + 1))
    if (( now == 36 )); then rm -f rough.db*; now=0; fi        # done before the last kill: begin anew
    before=$now
  fi
done
sleep 0.3
check "$killed kills in $runs runs lost no finished cell" test $lost = 0 -a "$killed" = "$kills"
check "some of the killed were workers, some the runner" test $workers -gt 4 -a $((killed - workers)) -gt 4
check "no worker outlives its runner" test -z "$(still_here harness)"

"$HARNESS" run sweep.yaml --db rough.db --jobs 2 --quiet >/dev/null 2>err
check "the same command then ends well" test $? = 0
rows rough.db >rough.txt
check "its rows equal the undisturbed ones to the bit" cmp -s calm.txt rough.txt
check "the database is whole" test "$(sqlite3 rough.db 'PRAGMA integrity_check')" = ok
check "no cell and no value is there twice" test -z "$(sqlite3 rough.db "SELECT cell_key FROM v_cells GROUP BY 1 HAVING count(*) > 1;
  SELECT cell_key FROM v_metrics GROUP BY cell_key, metric, step HAVING count(*) > 1")"
check "no claim is left" test "$(sqlite3 rough.db 'SELECT count(*) FROM claim')" = 0
"$HARNESS" run sweep.yaml --db rough.db --json >out 2>/dev/null
check "once more computes nothing" grep -q '"computed": 0,' out

# A child that a plug-in left behind dies with the runner too, though it is nobody's any more.
printf 'experiment: orphan\ntask: {name: fake, steps: 1, sleep_ms: 30000, behave: orphan}\nvariants: [treacherous]\nseeds: [1]\ndevice: cpu\n' >orphan.yaml
"$HARNESS" run orphan.yaml --db rough.db --quiet >/dev/null 2>&1 & run=$!
for ((i = 0; i < 100; i++)); do [ -n "$(still_here sleep)" ] && break; sleep 0.1; done
check "a plug-in has a child" test -n "$(still_here sleep)"
kill -9 $run; wait $run 2>/dev/null
sleep 0.5
check "it does not outlive the runner" test -z "$(still_here sleep)"
