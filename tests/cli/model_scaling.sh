#!/bin/bash
# The task model_scaling from the outside: what a cell records, by hand where it can be, and how a sweep ends.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/variants:$PWD/$B/tasks HARNESS_DB=$tmp/results.db
here=$PWD
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# out: /' out; sed 's/^/# err: /' err; fi; }
run() { "$HARNESS" run "$@" >out 2>err; }
exits() { local code=$1 name=$2; shift 2; run "$@"; local rc=$?; check "$name exits $code" test $rc = "$code"; }
sql() { sqlite3 results.db "$1"; }
value() { sql "SELECT m.value FROM v_cells c JOIN v_metrics m USING (cell_key) WHERE m.metric = '$1' AND ${2:-1} LIMIT 1"; }
holds() { test "$(sql "SELECT count(*) FROM v_cells c WHERE $1")" = "${2:-1}"; }
is() { local got; got=$(value "$2" "$3"); check "$1 ($got)" test "${got%.0}" = "$4"; }
quick='warmup_calls: 1, warmup_time: 0, min_samples: 3, max_samples: 5, max_time: 0.1, length: 16, batch: 2'

cat >cost.yaml <<YAML
experiment: cost
task: {name: model_scaling, phase: [forward, backward, step], vocabulary: 10, $quick}
model: {layers: 2, d_model: 8, heads: 2, d_ff: 16}
variants: [softmax, identity]
device: cpu
jobs: 1
YAML
exits 0 "every phase" cost.yaml
check "each is done" holds "status = 'done'" 6

# Per layer 4 8^2 + 4 8 around the mixer (for identity, which takes values alone, half of it), 2 8 16 + 16 + 8 of feed-forward
# and 4 8 of norms; 10 words of 8; a norm of 2 8.  32 tokens; pairs of 2 sequences and 2 heads of 4, both products.
feed=$((2 * 8 * 16)) words=80 tokens=32 pairs=$((2 * 2 * 16 * 16))
for v in softmax identity; do
  of() { echo "c.variant = '$v' AND c.task_options ->> 'phase' = '$1'"; }
  around=$((4 * 64)); [[ $v = identity ]] && around=$((2 * 64))
  weights=$((2 * (around + feed) + words))
  is "$v: parameters" parameters "$(of step)" $((weights + 2 * (around / 8 + 16 + 8 + 32) + 16))
  fwd=$((2 * weights * tokens)) bwd=$((4 * weights * tokens))
  [[ $v = softmax ]] && fwd=$((fwd + 2 * pairs * 16)) bwd=$((bwd + 2 * pairs * 40))
  is "$v: operations of forward" flops "$(of forward)" $fwd
  is "$v: operations of backward" flops "$(of backward)" $bwd
  is "$v: operations of a step" flops "$(of step)" $((fwd + bwd))
  for p in forward backward step; do
    check "$v $p: the parts of the memory are the whole" test "$(sql "
      SELECT sum(m.value) = 2 * max(m.value) FROM v_metrics m JOIN v_cells c USING (cell_key) WHERE $(of $p) AND metric IN
      ('memory_bytes', 'parameter_bytes', 'gradient_bytes', 'optimiser_bytes', 'activation_bytes', 'saved_bytes', 'workspace_bytes', 'data_bytes')")" = 1
    check "$v $p: the memory is what was planned" test "$(sql "
      SELECT count(DISTINCT m.value) || ' ' || count(*) FROM v_metrics m JOIN v_cells c USING (cell_key) WHERE $(of $p) AND metric IN
      ('memory_bytes', 'planned_bytes')")" = '1 2'
    check "$v $p: quantiles in order, rates follow" test "$(sql "
      WITH v AS (SELECT metric, value FROM v_metrics JOIN v_cells c USING (cell_key) WHERE $(of $p)),
           x(a, b, c, d, f, r, k) AS (SELECT max(value) FILTER (WHERE metric = 'seconds_min'), max(value) FILTER (WHERE metric = 'seconds_p20'),
             max(value) FILTER (WHERE metric = 'seconds'), max(value) FILTER (WHERE metric = 'seconds_p80'),
             max(value) FILTER (WHERE metric = 'flops'), max(value) FILTER (WHERE metric = 'tflops'),
             max(value) FILTER (WHERE metric = 'tokens_per_second') FROM v)
      SELECT 0 < a AND a <= b AND b <= c AND c <= d AND abs(f / c / r / 1e12 - 1) < 1e-9 AND abs($tokens / c / k - 1) < 1e-9 FROM x")" = 1
  done
done
is "softmax saves a log-sum-exp for each row" saved_bytes "c.variant = 'softmax' AND c.task_options ->> 'phase' = 'step'" $((2 * 2 * 2 * 16 * 4))
is "forward alone saves nothing" saved_bytes "c.variant = 'softmax' AND c.task_options ->> 'phase' = 'forward'" 0
check "forward alone holds fewer activations" test "$(sql "
  SELECT a.value < b.value FROM v_metrics a JOIN v_cells c ON c.cell_key = a.cell_key, v_metrics b JOIN v_cells d ON d.cell_key = b.cell_key
  WHERE a.metric = 'activation_bytes' AND b.metric = 'activation_bytes' AND c.variant = 'softmax' AND d.variant = 'softmax'
  AND c.task_options ->> 'phase' = 'forward' AND d.task_options ->> 'phase' = 'step'")" = 1

# What cannot be is a result: refused by the plan, by the model's options, or out of memory; longer ones are not tried.
cat >ends.yaml <<YAML
experiment: ends
task: {name: model_scaling, $quick, mode: causal}
model: {layers: 1, d_model: 8, heads: 2}
variants:
  - mamba2: {}
    model: {heads: 4, kv_heads: 2}
  - local_2d
  - softmax: {}
    model: {heads: 3}
device: cpu
YAML
exits 0 "a sweep with refusals" ends.yaml
check "grouped heads are what mamba2 has" holds "experiment = 'ends' AND variant = 'mamba2' AND status = 'done'"
check "a plan's reason" holds "experiment = 'ends' AND variant = 'local_2d' AND status = 'refused' AND reason = 'local_2d needs the width of the picture'"
check "a contradiction's reason" holds "experiment = 'ends' AND status = 'refused' AND reason = 'model: d_model 8 is no multiple of heads 3 (or say d_head)'"
exits 0 "bf16 on the CPU" ends.yaml --set experiment=narrow --set dtype=bf16 --set 'variants=[softmax]'
check "is refused" holds "experiment = 'narrow' AND status = 'refused' AND reason = 'dtype bf16 needs a GPU'"
cat >long.yaml <<YAML
experiment: long
task: {name: model_scaling, ${quick/length: 16, /}, length: [16, 65536, 131072]}
model: {layers: 2, d_model: 64, heads: 2}
variants: [identity]
device: cpu
limits: {time: 20s, memory: 100M, stop_longer: length}
YAML
exits 0 "a sweep that meets the end of memory" long.yaml
check "oom tells bytes" holds "experiment = 'long' AND status = 'oom' AND reason LIKE '%bytes%'"
check "and the plan, which was told before" test "$(sql "
  SELECT count(*) FROM v_metrics m JOIN v_cells c USING (cell_key) WHERE c.experiment = 'long' AND c.status = 'oom' AND metric = 'planned_bytes'
  AND m.value > 100e6")" = 1
check "and the longer one is not tried" holds "experiment = 'long' AND status = 'oom' AND reason = 'not tried: oom at length 65536'"

sed 's/name: model_scaling.*/name: scaling, length: 16}/' cost.yaml >none.yaml
exits 3 "a model for a task that builds none" none.yaml
check "is refused in so many words" grep -qxF "none.yaml:3:8: the task scaling builds no model: it takes no 'model'" err
check "harness list tells the model's options" eval '"$HARNESS" list model_scaling 2>/dev/null | grep -q "^    d_model = 512"'
check "the experiment is sound" eval '"$HARNESS" run "$here/experiments/model-scaling.yaml" --dry-run >out 2>err && grep -q "^160 cells" out'
