#!/bin/bash
# The task scaling from the outside: what a cell records, and how a sweep over lengths ends.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/variants:$PWD/$B/tasks:$PWD/$B/tests/fault HARNESS_DB=$tmp/results.db
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# out: /' out; sed 's/^/# err: /' err; fi; }
run() { "$HARNESS" run "$@" >out 2>err; }
exits() { local code=$1 name=$2; shift 2; run "$@"; local rc=$?; check "$name exits $code" test $rc = "$code"; }
sql() { sqlite3 results.db "$1"; }
# The value of a metric in the one cell where the options given are so; true when a condition on it holds.
value() { sql "SELECT m.value FROM v_cells c JOIN v_metrics m USING (cell_key) WHERE m.metric = '$1' AND ${2:-1} LIMIT 1"; }
holds() { test "$(sql "SELECT count(*) FROM v_cells c WHERE $1")" = "${2:-1}"; }
quick='warmup_calls: 1, warmup_time: 0, min_samples: 3, max_samples: 7, max_time: 0.2, heads: 2, dim: 16'

cat >cost.yaml <<YAML
experiment: cost
task: {name: scaling, length: 64, phase: [forward, backward, both, decode], batch: 2, $quick}
variants: [softmax]
seeds: [1]
device: cpu
jobs: 1
limits: {time: 30s}
YAML
exits 0 "every phase" cost.yaml
check "each is done" holds "status = 'done'" 4
phase() { echo "c.task_options ->> 'phase' = '$1'"; }
for p in forward backward both decode; do
  check "$p: quantiles in order, the interval around the median" test "$(sql "
    WITH m AS (SELECT metric, value FROM v_metrics WHERE cell_key = (SELECT cell_key FROM v_cells c WHERE $(phase $p))),
         v(a, b, c, d, e, f) AS (SELECT max(value) FILTER (WHERE metric = 'seconds_min'), max(value) FILTER (WHERE metric = 'seconds_p20'),
           max(value) FILTER (WHERE metric = 'seconds'), max(value) FILTER (WHERE metric = 'seconds_p80'),
           max(value) FILTER (WHERE metric = 'seconds_low'), max(value) FILTER (WHERE metric = 'seconds_high') FROM m)
    SELECT 0 < a AND a <= b AND b <= c AND c <= d AND e <= c AND c <= f FROM v")" = 1
  check "$p: as many raw samples as it says" test "$(sql "
    SELECT count(*) = max(n.value) AND min(s.value) = min(l.value) FROM v_metrics s JOIN v_cells c USING (cell_key)
    JOIN v_metrics n USING (cell_key) JOIN v_metrics l USING (cell_key)
    WHERE s.metric = 'sample_seconds' AND n.metric = 'samples' AND l.metric = 'seconds_min' AND $(phase $p)")" = 1
done

# 2 sequences, 2 heads, 64 tokens, width 16: pairs below the diagonal, a tensor of 16 KiB.
pairs=$((2 * 2 * 64 * 65 / 2)) tensor=$((2 * 2 * 64 * 16 * 4))
equals() { local got; got=$(value "$2" "$(phase "$3")"); check "$1 ($got)" test "${got%.0}" = "$4"; }
equals "forward: flops are the plan's" flops forward $((pairs * 2 * 32))
equals "both: flops of both passes" flops both $((pairs * 2 * 32 + pairs * 2 * 80))
equals "forward: q, k, v and o" inputs_bytes forward $((4 * tensor))
equals "forward: no gradients" gradient_bytes forward 0
equals "forward: nothing is saved" saved_bytes forward 0
equals "both: d_o, dq, dk and dv" gradient_bytes both $((4 * tensor))
equals "both: a log-sum-exp for each row" saved_bytes both $((2 * 2 * 64 * 4))
equals "decode: keys and values" state_bytes decode $((2 * tensor))
for p in forward both; do
  sum=$(sql "SELECT sum(value) FROM v_metrics m JOIN v_cells c USING (cell_key) WHERE $(phase $p)
             AND metric IN ('inputs_bytes', 'gradient_bytes', 'parameter_bytes', 'saved_bytes', 'scratch_bytes', 'state_bytes')")
  equals "$p: the parts are the peak" memory_bytes $p "${sum%.0}"
done
equals "both: forward's peak is without gradients" peak_forward_bytes both $(( $(value memory_bytes "$(phase both)" | cut -d. -f1) - 4 * tensor ))
check "rates and shares follow from the time" test "$(sql "
  SELECT abs(t.value * s.value * 1e12 / f.value - 1) < 1e-9 AND abs(h.value * p.value / t.value - 1) < 1e-9
  FROM v_cells c JOIN v_metrics t USING (cell_key) JOIN v_metrics s USING (cell_key) JOIN v_metrics f USING (cell_key)
  JOIN v_metrics h USING (cell_key) JOIN v_metrics p USING (cell_key) WHERE t.metric = 'tflops' AND s.metric = 'seconds'
  AND f.metric = 'flops' AND h.metric = 'share_of_peak_flops' AND p.metric = 'peak_tflops' AND $(phase both)")" = 1

# What cannot be: refused with the plan's reason, or with the task's.
exits 0 "a form that is not defined" cost.yaml --set 'task.phase=forward' --set 'variants=[local_2d]'
check "is refused with the plan's reason" holds "variant = 'local_2d' AND status = 'refused' AND reason = 'local_2d needs the width of the picture'"
exits 0 "bf16 on the CPU" cost.yaml --set 'task.phase=forward' --set task.dtype=bf16
check "is refused: no implementation has it" holds "status = 'refused' AND reason LIKE '%in bf16%'"
exits 0 "decoding without order" cost.yaml --set 'task.phase=decode' --set task.mode=bidirectional
check "is refused by the task" holds "status = 'refused' AND reason = 'decoding is causal'"

# B T = tokens; B is at least 1.
exits 0 "tokens" cost.yaml --set task.phase=forward --set task.tokens=256 --set task.length=64,512
equals2() { local got; got=$(value "$2" "$3"); check "$1 ($got)" test "${got%.0}" = "$4"; }
equals2 "256 tokens are 4 sequences of 64" inputs_bytes "c.task_options ->> 'tokens' = 256 AND c.task_options ->> 'length' = 64" $((4 * 2 * tensor))
equals2 "and one of 512" inputs_bytes "c.task_options ->> 'tokens' = 256 AND c.task_options ->> 'length' = 512" $((4 * 4 * tensor))

# A sweep ends where memory does: longer ones are not tried.
cat >ladder.yaml <<YAML
experiment: ladder
task: {name: scaling, length: {from: 64, to: 65536, times: 4}, $quick}
variants: [softmax, identity]
seeds: [1]
device: cpu
jobs: 1
limits: {time: 30s, memory: 2M, stop_longer: length}
YAML
exits 0 "a sweep beyond its memory" ladder.yaml
check "the first that does not fit tells bytes asked and free" holds "experiment = 'ladder' AND status = 'oom' AND reason LIKE '%asked % bytes%free%'" 2
check "the longer ones are not tried" holds "experiment = 'ladder' AND status = 'oom' AND variant = 'softmax' AND reason = 'not tried: oom at length 4096'" 2
check "a ladder ends for itself alone" holds "experiment = 'ladder' AND variant = 'identity' AND reason = 'not tried: oom at length 16384'"
check "the shorter ones are done" holds "experiment = 'ladder' AND status = 'done'" 7
exits 0 "with more memory, again" ladder.yaml --retry oom --set limits.memory=8M
check "--retry goes on from there" holds "experiment = 'ladder' AND status = 'done'" 9
exits 0 "one length more" ladder.yaml --set limits.memory=8M --set task.length=16384,262144
check "is not tried either" holds "variant = 'softmax' AND reason = 'not tried: oom at length 16384' AND c.task_options ->> 'length' = 262144"

# And where time does.  Two ladders: each ends for itself.
cat >slow.yaml <<YAML
experiment: slow
task: {name: fake, value: [1, 2], sleep_ms: [0, 10, 400, 500, 600], steps: 5}
variants: [softmax]
seeds: [1]
device: cpu
jobs: 1
limits: {time: 1s, stop_longer: sleep_ms}
YAML
exits 0 "a sweep that ends in timeouts" slow.yaml
check "the first of each ladder was tried" holds "experiment = 'slow' AND status = 'timeout' AND reason LIKE 'stopped by its time limit%' AND c.task_options ->> 'sleep_ms' = 400" 2
check "the others were not" holds "experiment = 'slow' AND status = 'timeout' AND reason = 'not tried: timeout at sleep_ms 400'" 4
check "an expected end is no failure" test "$(grep -c '^  timeout' err)" = 0
sed -i 's/, stop_longer: sleep_ms//' slow.yaml
exits 1 "a timeout without stop_longer" slow.yaml --set task.value=3 --set task.sleep_ms=400
exits 3 "stop_longer of what is no number" ladder.yaml --set limits.stop_longer=phase
check "says what it should be" grep -q "stop_longer must be a number among the task's options" err
exits 3 "stop_longer with a typo" ladder.yaml --set limits.stop_longer=lenght
check "guesses the name" grep -q "did you mean 'length'" err

# The system's peak is the cell's own, where it can be reset: a small cell after a large one.
if echo 5 2>/dev/null >/proc/self/clear_refs; then
  exits 0 "a large and a small cell" cost.yaml --set experiment=seen --set 'variants=[identity]' --set task.phase=forward --set task.length=262144,32
  check "the small one was not seen large" test "$(sql "SELECT max(m.value) > 2 * min(m.value) FROM v_metrics m JOIN v_cells c USING (cell_key)
    WHERE m.metric = 'seen_bytes' AND c.experiment = 'seen'")" = 1
else
  echo "ok - the system's peak is the cell's own # SKIP the system does not reset it"
fi
