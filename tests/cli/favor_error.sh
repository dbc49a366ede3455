#!/bin/bash
# The task favor_error from the outside: theory and measurement agree, orthogonal rows are better, softmax has no error.
set -u
HARNESS=${HARNESS:-$PWD/build/harness} B=${B:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_PLUGIN_PATH=$PWD/$B/variants:$PWD/$B/tasks HARNESS_DB=$tmp/results.db OMP_NUM_THREADS=1
cd "$tmp" || exit 1

check() { local name=$1; shift; if "$@"; then echo "ok - $name"; else echo "not ok - $name"; sed 's/^/# out: /' out; sed 's/^/# err: /' err; fi; }
run() { "$HARNESS" run "$@" >out 2>err; }
exits() { local code=$1 name=$2; shift 2; run "$@"; local rc=$?; check "$name exits $code" test $rc = "$code"; }
sql() { sqlite3 results.db "$1"; }
holds() { test "$(sql "SELECT count(*) FROM v_cells c WHERE $1")" = "$2"; }

cat >theory.yaml <<YAML
experiment: theory
task: {name: favor_error, quantity: [measured, expected], length: 24, dim: 8, samples: 400, columns: 12, queries: 24, scale: 0.25}
variants:
  - performer: {feature_type: [positive, hyperbolic, trig], projection: [iid, orthogonal], nb_features: 256, feature_eps: 0}
    label: "{feature_type} {projection}"
seeds: [1]
device: cpu
jobs: 1
YAML
exits 0 "theory and measurement" theory.yaml
check "theory speaks of independent rows alone" holds "status = 'refused' AND label LIKE '%orthogonal' AND reason LIKE 'the closed forms are those of independent features%'" 3
check "all else is done" holds "status = 'done'" 9

# A value of a series: its mean, and the standard error that its interval stands for.
sql "CREATE VIEW side AS SELECT label, task_options ->> 'quantity' quantity, e.metric, e.value mean, (h.value - l.value) / 3.92 error
     FROM v_cells c JOIN v_metrics e USING (cell_key) JOIN v_metrics l USING (cell_key) JOIN v_metrics h USING (cell_key)
     WHERE c.experiment = 'theory' AND l.metric = e.metric || '_low' AND h.metric = e.metric || '_high'"
for type in positive hyperbolic trig; do
  for metric in output_error output_error_relative map_error kernel_error; do
    row=$(sql "SELECT abs(a.mean - b.mean) / sqrt(a.error * a.error + b.error * b.error), b.error / b.mean FROM side a JOIN side b USING (label, metric)
               WHERE metric = '$metric' AND label = '$type iid' AND a.quantity = 'expected' AND b.quantity = 'measured'")
    check "$type: $metric is as expected (${row%|*} standard errors, which are ${row#*|} of it)" awk -F'|' '{ exit !($1 < 3 && $2 < 0.1) }' <<<"$row"
    row=$(sql "SELECT (b.mean - a.mean) / sqrt(a.error * a.error + b.error * b.error) FROM side a JOIN side b USING (quantity, metric)
               WHERE quantity = 'measured' AND metric = '$metric' AND a.label = '$type orthogonal' AND b.label = '$type iid'")
    check "$type: $metric is less with orthogonal rows (by $row standard errors)" awk '{ exit !($1 > 2) }' <<<"$row"
  done
done

# A mean of its samples, between the ends of its interval.
check "what is stored is the mean of the samples" test "$(sql "
  SELECT count(*) FROM v_cells c JOIN v_metrics m USING (cell_key) JOIN v_metrics l USING (cell_key) JOIN v_metrics h USING (cell_key)
  WHERE m.metric = 'output_error' AND l.metric = 'output_error_low' AND h.metric = 'output_error_high' AND l.value < m.value AND m.value < h.value
  AND abs((SELECT avg(value) FROM v_metrics s WHERE s.cell_key = c.cell_key AND s.metric = 'output_error_sample') / m.value - 1) < 1e-9")" = 9

exits 0 "softmax itself" theory.yaml --set experiment=itself --set 'variants=[softmax]' --set task.samples=2
check "has no error but rounding" test "$(sql "SELECT max(value) BETWEEN 0 AND 1e-12 FROM v_metrics m JOIN v_cells c USING (cell_key)
  WHERE experiment = 'itself' AND metric IN ('output_error', 'map_error')")" = 1
check "and no theory" holds "experiment = 'itself' AND status = 'refused' AND reason LIKE 'theory expects%'" 1
exits 0 "more columns than keys" theory.yaml --set experiment=wide --set task.columns=25 --set 'variants=[softmax]'
check "is refused" holds "experiment = 'wide' AND status = 'refused' AND reason = 'columns 25 is more than length 24'" 2
