#!/bin/bash
# A store that is full, read-only, locked, too new or none at all, and two runs at once on one: a sentence that says
# what to do, exit code 7, and nothing lost or done twice.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
tmp=$(mktemp -d)
trap 'mountpoint -q "$tmp/small" && umount "$tmp/small"; rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/tests/fault
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# /' err; fi; }
cat >sweep.yaml <<YAML
experiment: sweep
task: {name: fake, steps: 30, value: {from: 1, to: 8, step: 1}}
variants: [treacherous]
seeds: [1, 2]
device: cpu
limits: {time: 60s, memory: 1G}
YAML
run() { "$HARNESS" run sweep.yaml --db "$@" >out 2>err; }
fails() {                               # fails WHAT DB PATTERN: exit code 7 and a sentence with the pattern
  run "$2"; local rc=$?
  check "$1 exits 7" test $rc = 7
  check "$1 says so" grep -qiE "$3" err
}
done_in() { sqlite3 "$1" "SELECT count(*) FROM v_cells WHERE status='done'"; }

head -c 100000 /dev/zero | tr '\0' 'x' >text.db
fails "a file that is no database" text.db 'not a (harness )?database|no database'
run newer.db; sqlite3 newer.db 'PRAGMA user_version = 99'
fails "a newer schema" newer.db 99
sqlite3 foreign.db 'CREATE TABLE t(x)'
cp foreign.db foreign.before
run foreign.db; check "another program's database is refused" test $? = 7
check "and left as it was" cmp -s foreign.db foreign.before
fails "a folder that cannot be made" /proc/results/harness.db /proc/results
mkdir folder.db
fails "a folder in place of the file" folder.db folder.db

# Locked for good: a sentence, after a wait.  Locked for a while: the run goes on.
run locked.db --only value=1
sqlite3 locked.db >hold 2>&1 < <(echo 'BEGIN IMMEDIATE;'; sleep 2; echo 'COMMIT;') & holder=$!
sleep 0.3
run locked.db; check "a lock that is given up is waited for" test $? = 0
wait $holder
check "and then every cell is there" test "$(done_in locked.db)" = 16

# Two runs at once share the cells.
cat >slow.yaml <<YAML
experiment: slow
task: {name: fake, steps: 30, sleep_ms: 4, value: {from: 1, to: 12, step: 1}}
variants: [treacherous]
seeds: [1]
device: cpu
limits: {time: 60s, memory: 1G}
YAML
"$HARNESS" run slow.yaml --db two.db --jobs 1 --json >one 2>err & first=$!
"$HARNESS" run slow.yaml --db two.db --jobs 1 --json >two 2>err; rc=$?
wait $first
check "two runs at once both end well" test $? = 0 -a $rc = 0
computed() { sed -n 's/.*"computed": \([0-9]*\),.*/\1/p' "$1"; }
check "and each cell is computed once" test $(($(computed one) + $(computed two))) = 12
check "by both of them" test "$(computed one)" -gt 0 -a "$(computed two)" -gt 0
check "and every cell is there" test "$(done_in two.db)" = 12

# A full disk, on a file system of one megabyte.
mkdir small
if mount -t tmpfs -o size=1m none small 2>/dev/null; then
  sed 's/steps: 30/steps: 3000/; s/name: sweep/name: full/' sweep.yaml >full.yaml
  "$HARNESS" run full.yaml --db small/full.db >out 2>err
  check "a full disk exits 7" test $? = 7
  check "a full disk says so" grep -qi full err
  check "it says how to go on" grep -q 'to go on:' err
  before=$(done_in small/full.db); check "what was finished before it is there" test "${before:-0}" -gt 0
  check "and the database is whole" test "$(sqlite3 small/full.db 'PRAGMA integrity_check')" = ok
  mount -o remount,size=20m small
  "$HARNESS" run full.yaml --db small/full.db --json >out 2>err
  check "with room again the rest is computed" test $? = 0 -a "$(done_in small/full.db)" = 16
  check "and only the rest" test "$(computed out)" = $((16 - before))
  mount -o remount,ro small
  sed -i 's/value: {from/steps: 5, value: {from/; s/steps: 3000, //' full.yaml
  "$HARNESS" run full.yaml --db small/full.db >out 2>err; check "a read-only folder exits 7" test $? = 7
  check "a read-only folder says so" grep -qiE 'read-?only|cannot be written' err
else
  for name in "a full disk" "a read-only folder"; do echo "ok - $name # SKIP mounting is not allowed"; done
fi
