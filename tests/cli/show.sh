#!/bin/bash
# show and status: every format, the words for every mistake, what is stale and why, and the queries of docs/database.md.
set -u
H=${HARNESS:-$PWD/${B:-build}/harness}
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
ok() { if eval "$2"; then echo "ok - $1"; else echo "not ok - $1"; fi; }
has() { grep -qF -- "$1" "$2"; }
# sql NAME FILE EXPECTED QUERY: what the query gives; * stands for anything but an error.
sql() {
  local got
  if ! command -v sqlite3 >/dev/null; then echo "ok - $1 # SKIP no sqlite3 program"; return; fi
  if got=$(sqlite3 "$2" "$4" 2>&1) && [[ $got == $3 ]]; then echo "ok - $1"; else echo "not ok - $1: $got"; fi
}

cat >"$dir/tiny.yaml" <<'Y'
experiment: capacity
task: {name: associative_retrieval, keys: [3, 4], eval_sequences: 2}
variants:
  - softmax: {}
    label: Softmax
  - linear: {feature_map: elu1}
    label: 'Linear | "elu"'
train: {max_steps: 20, eval_every: 10, batch: 4}
seeds: [1, 2]
Y
mkdir "$dir/plugins"
cp "${H%/*}"/variants/{softmax,linear}.so "${H%/*}/tasks/associative_retrieval.so" "$dir/plugins/"
export HARNESS_PLUGIN_PATH=$dir/plugins HARNESS_DB=$dir/r/h.db

"$H" status "$dir/tiny.yaml" >"$dir/out" 2>&1
ok "status before the first run" "has 'capacity: 8 cells, 8 planned' $dir/out && has 'not made yet' $dir/out"
"$H" show "$dir/tiny.yaml" >"$dir/out" 2>&1; rc=$?
ok "show without a database says what makes it, exit 7" "[ $rc = 7 ] && has 'does not exist: \`harness run FILE\` makes it' $dir/out"

"$H" run "$dir/tiny.yaml" --quiet >"$dir/out" 2>&1; rc=$?
ok "the sweep runs" "[ $rc = 0 ]"
"$H" show "$dir/tiny.yaml" >"$dir/text"
ok "text: a head and a row per cell" "[ \$(wc -l <$dir/text) = 9 ] && head -1 $dir/text | grep -q 'keys.*variant.*seed.*status.*reason.*best_eval_loss.*steps'"
"$H" show "$dir/tiny.yaml" --metric steps --metric best_eval_loss --csv >"$dir/csv"
ok "csv: the metrics asked for, in that order" "head -1 $dir/csv | grep -qE ',status,reason,steps,best_eval_loss$'"
ok "csv: a label with quotes is quoted" "grep -q '\"Linear | \"\"elu\"\"\",' $dir/csv"
ok "csv: whole numbers stay whole" "grep -qE ',done,,20,[0-9.]+' $dir/csv"
"$H" show "$dir/tiny.yaml" --json >"$dir/json"
ok "json: eight objects" "[ \$(grep -c '\"status\": \"done\"' $dir/json) = 8 ]"
sql "json: the numbers of the store" "$HARNESS_DB" 8 "SELECT count(*) FROM json_each(readfile('$dir/json')) j JOIN v_cells c ON
  c.task_options ->> 'keys' = j.value ->> 'keys' AND c.seed = j.value ->> 'seed' AND c.label = j.value ->> 'variant'
  JOIN v_metrics m USING (cell_key) WHERE metric = 'best_eval_loss' AND abs(m.value - (j.value ->> 'best_eval_loss')) < 1e-15"
"$H" show "$dir/tiny.yaml" --markdown --metric steps >"$dir/md"
ok "markdown: a rule, and no bar of a label ends a cell" "sed -n 2p $dir/md | grep -q '^| ---' && has 'Linear \\|' $dir/md"
"$H" show "$dir/tiny.yaml" --latex --metric steps >"$dir/tex"
ok "latex: booktabs" "has '\\toprule' $dir/tex && has '\\bottomrule' $dir/tex"
"$H" show capacity >"$dir/name"
ok "show by the name of the experiment is the same table" "cmp -s $dir/text $dir/name"
"$H" show "$dir/tiny.yaml" --only variant=softmax --metric steps --csv >"$dir/out"
ok "--only narrows" "[ \$(wc -l <$dir/out) = 5 ]"

"$H" show "$dir/tiny.yaml" --metric best_eval_los >"$dir/out" 2>&1; rc=$?
ok "an unknown metric is named with the nearest" "[ $rc = 1 ] && has \"did you mean 'best_eval_loss'?\" $dir/out"
"$H" show nothing >"$dir/out" 2>&1; rc=$?
ok "an unknown experiment" "[ $rc = 2 ] && has 'neither a file nothing nor an experiment' $dir/out"
"$H" show "$dir/tiny.yaml" --cvs >"$dir/out" 2>&1; rc=$?
ok "an unknown option" "[ $rc = 2 ] && has 'cvs is no option' $dir/out"
"$H" show >"$dir/out" 2>&1; rc=$?
ok "no file" "[ $rc = 2 ]"
for c in show status plot; do "$H" $c -h >"$dir/out" 2>&1; ok "$c -h" "[ $? = 0 ] && has 'usage: harness $c' $dir/out"; done

"$H" status "$dir/tiny.yaml" >"$dir/out"
ok "status when all is done" "has 'capacity: 8 cells, 8 done' $dir/out && [ \$(wc -l <$dir/out) = 1 ]"
touch "$dir/plugins/linear.so"
"$H" status "$dir/tiny.yaml" >"$dir/out"
ok "touch makes nothing stale" "has '8 cells, 8 done' $dir/out"
printf 'x' >>"$dir/plugins/linear.so"
"$H" status "$dir/tiny.yaml" >"$dir/out"
ok "another file of a variant makes its cells stale, and status says so" \
   "has '8 cells, 4 done, 4 stale' $dir/out && has 'Linear | \"elu\": 4 cells stale, ' $dir/out && has 'linear.so changed' $dir/out"
"$H" status "$dir/tiny.yaml" --only keys=3 --only seed=1 >"$dir/out"
ok "few stale cells have a line each" "grep -q 'keys=3.*seed=1: stale, .*linear.so changed' $dir/out"
"$H" status "$dir/tiny.yaml" --json >"$dir/json"
sql "status --json" :memory: '4|4' "SELECT j -> '\$.status' ->> 'stale', json_array_length(j, '\$.groups[0].cells')
  FROM (SELECT readfile('$dir/json') AS j)"

printf 'this is not a database, it is a text of some length\n%.0s' {1..40} >"$dir/text.db"
"$H" status "$dir/tiny.yaml" --db "$dir/text.db" >"$dir/out" 2>&1; rc=$?
ok "not a database: exit 7 and a sentence" "[ $rc = 7 ] && has 'is not a database' $dir/out"

n=0
while read -r query; do
  n=$((n + 1))
  sql "query $n of docs/database.md" "$HARNESS_DB" "$( ((n == 1)) && echo 8 || echo '*')" "SELECT count(*) FROM (${query%;})"
done < <(awk '/^       /{q = q " " $0; if (/;$/) {print q; q = ""}}' docs/database.md)
ok "docs/database.md has five queries" "[ $n = 5 ]"
