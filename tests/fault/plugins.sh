#!/bin/bash
# Every way in which a plug-in can misbehave, beside one that does not: each cell ends with its status and a
# reason, the others finish, and nothing is left running.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
bad=$PWD/$B/tests/fault
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$bad HARNESS_DB=$tmp/results.db
cd "$tmp" || exit 1

check() {                               # check NAME COMMAND...: one result
  local name=$1; shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
sql() { sqlite3 results.db "$1"; }
status_of() { sql "SELECT DISTINCT status || '|' || coalesce(reason, '') FROM v_cells WHERE $1"; }
ends() {                                # ends WHAT WHERE STATUS REASON-PATTERN
  local got; got=$(status_of "$2")
  if [[ $got == "$3|"* && ${got#*|} =~ $4 ]]; then echo "ok - $1 is $3"; else echo "not ok - $1: '$got', not '$3' with '$4'"; fi
}

cat >bad.yaml <<YAML
experiment: bad
task: {name: fake, steps: 10, behave: [segfault, exit, print, nan, out_of_bounds, smash, ask, malloc, deaf, abort, orphan, unnamed,
       diverge, refuse, fail, forge, none]}
variants: [treacherous]
seeds: [1]
device: cpu
limits: {time: 60s, memory: 1G}
YAML
cat >hang.yaml <<YAML
experiment: hang
task: {name: fake, steps: 10, behave: [loop, stubborn, babble, none]}
variants: [treacherous]
seeds: [1]
device: cpu
limits: {time: 1s, memory: 1G}
YAML
cat >field.yaml <<YAML
experiment: field
task: {name: fake, steps: 4, length: 4099}
variants:
  - treacherous: {how: [none, segfault, exit, print, nan, out_of_bounds, ask, refuse]}
  - wrong_gradient
  - crashing
seeds: [1]
device: cpu
limits: {time: 60s, memory: 1G}
YAML

"$HARNESS" run bad.yaml --quiet >out 2>err;            check "a sweep with crashes exits 1" test $? = 1
"$HARNESS" run hang.yaml --quiet --jobs 4 >out 2>err;  check "a sweep with timeouts exits 1" test $? = 1
"$HARNESS" run field.yaml --quiet >out 2>err;          check "a sweep with a red check exits 1" test $? = 1

task() { echo "experiment='$1' AND json_extract(task_options,'\$.behave')='$2'"; }
how() { echo "experiment='field' AND json_extract(variant_options,'\$.how')='$1'"; }
any=. none='^$'
crash='signal 11|code 1'                # a sanitizer reports and exits instead
ends "a good cell among bad ones" "$(task bad none)" done "$none"
ends "a segfault" "$(task bad segfault)" crashed "$crash"
ends "exit(0)" "$(task bad exit)" crashed 'exited with code 0'
ends "printing" "$(task bad print)" 'done' "$none"
ends "a metric of NaN" "$(task bad nan)" 'done' "$none"
ends "a write out of bounds" "$(task bad out_of_bounds)" crashed 'out of bounds|code 1'
ends "a smashed stack" "$(task bad smash)" crashed 'signal|code 1'
ends "10^15 bytes" "$(task bad ask)" oom '1000000000000000'
ends "malloc of 200 GB" "$(task bad malloc)" crashed "$any"
ends "closing every descriptor" "$(task bad deaf)" crashed 'channel|code'
ends "abort" "$(task bad abort)" crashed 'signal 6|code 1'
ends "a child left behind" "$(task bad orphan)" 'done' "$none"
ends "a metric without a name" "$(task bad unnamed)" crashed no_such_metric
ends "divergence" "$(task bad diverge)" diverged 'nan at step 3'
ends "a refusal" "$(task bad refuse)" refused 'asks too much'
ends "failure" "$(task bad fail)" crashed 'did not work out'
ends "a forged answer" "$(task bad forge)" 'done' "$none"
ends "an endless loop" "$(task hang loop)" timeout 'time limit of 1.0s'
ends "ignoring SIGTERM" "$(task hang stubborn)" timeout 'time limit of 1.0s'
ends "printing for ever" "$(task hang babble)" timeout 'time limit of 1.0s'
ends "a good cell among hanging ones" "$(task hang none)" 'done' "$none"
ends "a variant without fault" "$(how none)" 'done' "$none"
ends "a variant's segfault" "$(how segfault)" crashed "$crash"
ends "a variant's exit(0)" "$(how exit)" crashed 'exited with code 0'
ends "a variant's printing" "$(how print)" 'done' "$none"
ends "a variant's NaN" "$(how nan)" diverged 'not finite'
ends "a variant's write out of bounds" "$(how out_of_bounds)" crashed 'out of bounds|code 1'
ends "a variant's 10^15 bytes" "$(how ask)" oom '1000000000000001'
ends "a variant's refusal" "$(how refuse)" refused 'not at this length'
ends "a wrong gradient" "experiment='field' AND variant='wrong_gradient'" wrong 'dv|gradient'
ends "a variant that crashes its check" "experiment='field' AND variant='crashing'" wrong 'signal 11|code 1|ended'

check "printing ends in the log, not on our stdout" test -z "$(grep -l 'hello from the plug-in' out err)"
check "and the log has it, without control characters" \
  test "$(sql "SELECT count(*) FROM log WHERE text LIKE '%hello from the plug-in%' AND instr(text, char(27)) = 0")" = 1
check "the log of endless printing is bounded" test "$(sql "SELECT max(length(text)) FROM log")" -le 65536
check "a forged or printed end brings no metric twice" test "$(sql "SELECT count(*) FROM v_metrics m JOIN v_cells c USING(cell_key)
  WHERE metric='final' AND $(task bad print)")" = 1
left=$(for p in /proc/[0-9]*; do [[ $(readlink $p/cwd) == "$tmp" && $(readlink $p/exe) == */sleep ]] && echo $p; done 2>/dev/null)
check "no child of a plug-in is left" test -z "$left"

# Crashed cells are tried again, results are not.
"$HARNESS" run bad.yaml --quiet --json >again.json 2>err
crashed=$(sql "SELECT count(*) FROM v_cells WHERE experiment='bad' AND status='crashed'")
check "a second run tries the crashed cells alone" grep -q "\"computed\": ${crashed:-none}," again.json

# Files that are no plug-ins, or die while they are loaded: their cells say why, the others finish.
echo 'not a shared object' >text.so
head -c 3000 "$bad/treacherous.so" >truncated.so
for how in segfault exit; do { cat "$bad/loading.so"; echo $how; } >load_$how.so; done      # other bytes, other verdict
for f in missing text truncated load_segfault load_exit; do
  printf 'experiment: %s\ntask: {name: fake}\nvariants: [{path: ./%s.so}, treacherous]\nseeds: [1]\ndevice: cpu\n' $f $f >$f.yaml
  HARNESS_TEST_LOAD=${f#load_} "$HARNESS" run $f.yaml >out 2>err
  check "a $f .so exits 1" test $? = 1
  ends "a $f .so" "experiment='$f' AND variant<>'treacherous'" wrong "$f.so"
  ends "the cell beside a $f .so" "experiment='$f' AND variant='treacherous'" 'done' "$none"
done
check "and no verdict is kept of a file that is not there" test "$(sql "SELECT count(*) FROM verdict WHERE digest=''")" = 0
