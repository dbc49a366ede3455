#!/bin/bash
# compare: verdicts and exit codes, every format, what is refused and why.
set -u
H=${HARNESS:-$PWD/${B:-build}/harness}
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
ok() { if eval "$2"; then echo "ok - $1"; else echo "not ok - $1"; fi; }
has() { grep -qF -- "$1" "$2"; }
if ! command -v sqlite3 >/dev/null; then echo "ok - compare # SKIP no sqlite3 program"; exit; fi

cat >"$dir/tiny.yaml" <<'Y'
experiment: tiny
task: {name: associative_retrieval, keys: [3, 4], eval_sequences: 2}
variants:
  - softmax: {}
    label: 'Softmax | "plain"'
  - linear: {feature_map: elu1}
train: {max_steps: 10, eval_every: 10, batch: 4}
Y
export HARNESS_DB=$dir/a.db
"$H" run "$dir/tiny.yaml" --quiet >"$dir/out" 2>&1; rc=$?
ok "the sweep runs" "[ $rc = 0 ]"
# samples CELLS SECONDS: forty samples about so many seconds, for the cells that the condition names.
samples() {
  sqlite3 "$1" "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 39)
    INSERT OR REPLACE INTO metric(cell, name, step, value, unit) SELECT c.id, 'sample_seconds', i, $3 * (1 + 0.0005 * ((i * 7 + c.id) % 40 - 20)), 's'
    FROM cell c, n WHERE $2"
}
samples "$dir/a.db" 1 1e-3
cp "$dir/a.db" "$dir/b.db"
"$H" compare "$dir/a.db" "$dir/b.db" >"$dir/out"; rc=$?
ok "a database and its copy are the same: exit 0" "[ $rc = 0 ] && has '4 SAME (sample_seconds' $dir/out"
samples "$dir/b.db" "variant = 'softmax' AND doc ->> '\$.task.options.keys' = 3" 1.2e-3
samples "$dir/b.db" "variant = 'linear'" 0.8e-3
"$H" compare "$dir/a.db" "$dir/b.db" >"$dir/out"; rc=$?
ok "slower: exit 1" "[ $rc = 1 ] && has '1 SAME, 2 FASTER, 1 SLOWER' $dir/out"
ok "the row has axes, medians, ratio and verdict" "grep -q 'Softmax.* 3 .*0.0009998  *0.0012  *1\\.2 .*SLOWER' $dir/out"
"$H" compare "$dir/a.db" "$dir/b.db:tiny" --threshold 30 >"$dir/out"; rc=$?
ok "a wider threshold: exit 0" "[ $rc = 0 ] && has '4 SAME' $dir/out"
"$H" compare "$dir/a.db" "$dir/b.db" --json >"$dir/json"; rc=$?
ok "json" "[ $rc = 1 ] && [ \"\$(sqlite3 :memory: \"SELECT j ->> '\$.count.SLOWER' || json_array_length(j, '\$.pairs') || (j ->> '\$.metric') FROM (SELECT readfile('$dir/json') AS j)\")\" = 14sample_seconds ]"
"$H" compare "$dir/a.db" "$dir/b.db" --markdown >"$dir/md"
ok "markdown: no bar of a label ends a cell" "sed -n 2p $dir/md | grep -q '^| ---' && has 'Softmax \\|' $dir/md && has '1 SLOWER' $dir/md"
"$H" compare "$dir/a.db" "$dir/b.db" --csv >"$dir/csv" 2>"$dir/err"
ok "csv: rows on stdout, the rest on stderr" "[ \$(wc -l <$dir/csv) = 5 ] && has '1 SLOWER' $dir/err && head -1 $dir/csv | grep -q '^variant,keys,A,B,B/A,low,high,p,n_A,n_B,verdict,note'"
"$H" compare "$dir/a.db" "$dir/b.db" --metric best_eval_loss >"$dir/out"; rc=$?
ok "another metric: the same numbers are the same" "[ $rc = 0 ] && has '4 SAME (best_eval_loss' $dir/out"
sqlite3 "$dir/b.db" "UPDATE cell SET status = 'timeout', reason = 'longer than 5 s' WHERE variant = 'softmax' AND doc ->> '\$.task.options.keys' = 4"
"$H" compare "$dir/a.db" "$dir/b.db" >"$dir/out"; rc=$?
ok "what ends no more is lost: exit 1, with the reason" "[ $rc = 1 ] && grep -q 'LOST *timeout: longer than 5 s' $dir/out"

git=$(sqlite3 "$dir/a.db" "SELECT substr(text ->> 'git', 1, 7) FROM env")
if [[ $git =~ ^[0-9a-f]{7}$ ]]; then
  "$H" compare tiny "tiny@$git" >"$dir/out"; rc=$?
  ok "an experiment and its cells of a commit" "[ $rc = 0 ] && has '4 SAME' $dir/out"
  "$H" compare "$git" tiny >"$dir/out"; rc=$?
  ok "a commit" "[ $rc = 0 ] && has '4 SAME' $dir/out"
else
  for n in "an experiment and its cells of a commit" "a commit"; do echo "ok - $n # SKIP not built in a git tree"; done
fi

cp "$dir/a.db" "$dir/c.db"
sqlite3 "$dir/c.db" "UPDATE env SET text = json_set(text, '\$.compiler', 'tcc 1')"
"$H" compare "$dir/a.db" "$dir/c.db" >"$dir/out" 2>"$dir/err"; rc=$?
ok "unlike machines: exit 4, the difference, and what to say" "[ $rc = 4 ] && [ ! -s $dir/out ] && grep -q 'differ in compiler: .* and tcc 1; --across-machines' $dir/err"
"$H" compare "$dir/a.db" "$dir/c.db" --across-machines >"$dir/out"; rc=$?
ok "--across-machines" "[ $rc = 0 ] && has '4 SAME' $dir/out"
"$H" compare "$dir/a.db" nothing >"$dir/out" 2>"$dir/err"; rc=$?
ok "an unknown side: exit 7" "[ $rc = 7 ] && has 'nothing is neither a database nor an experiment or a commit that' $dir/err"
"$H" compare "$dir/a.db" "$dir/b.db" --metric bleu >"$dir/out" 2>"$dir/err"; rc=$?
ok "a metric that nobody has: exit 6" "[ $rc = 6 ] && has 'none has the metric bleu' $dir/err"
"$H" compare "$dir/a.db" >"$dir/out" 2>"$dir/err"; rc=$?
ok "one side is too few: exit 2" "[ $rc = 2 ] && has 'usage: harness compare' $dir/err"
"$H" compare "$dir/a.db" "$dir/b.db" --threshold x >"$dir/out" 2>"$dir/err"; rc=$?
ok "a threshold that is no number: exit 2" "[ $rc = 2 ] && has 'wants a number of percent' $dir/err"
"$H" compare -h >"$dir/out"; rc=$?
ok "compare -h" "[ $rc = 0 ] && has 'usage: harness compare' $dir/out"
