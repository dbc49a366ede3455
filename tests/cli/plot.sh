#!/bin/bash
# plot: the five files of a figure, seeds as a band, published numbers, hostile labels, no gnuplot.
set -u
H=${HARNESS:-$PWD/${B:-build}/harness}
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
ok() { if eval "$2"; then echo "ok - $1"; else echo "not ok - $1"; fi; }
has() { grep -qF -- "$1" "$2"; }

cat >"$dir/tiny.yaml" <<'Y'
experiment: tiny
task: {name: associative_retrieval, keys: [3, 4, 5], eval_sequences: 2}
variants:
  - softmax: {}
    label: '"; system("touch pwned"); # `touch pwned` %s @x \'
  - linear: {feature_map: elu1}
    label: "φ'; system('touch pwned') #"
train: {max_steps: 20, eval_every: 10, batch: 4}
seeds: [1, 2]
figures:
  - {kind: line, x: keys, y: best_eval_loss, series: variant, published: paper.csv, title: "'.system('touch pwned').' {^2}"}
  - {name: curves, kind: curve, y: eval_loss, logy: true}
Y
printf '# a paper\nseries,keys,best_eval_loss\nPaper,3,0.25\nPaper,5,0.5\n' >"$dir/paper.csv"
export HARNESS_DB=$dir/h.db
"$H" plot "$dir/tiny.yaml" --out "$dir/out" >"$dir/log" 2>&1; rc=$?
ok "plot without a database: exit 7" "[ $rc = 7 ] && has 'does not exist' $dir/log"
"$H" run "$dir/tiny.yaml" --quiet --only keys=3,4 >"$dir/log" 2>&1
rm -rf plots/out/tiny
"$H" plot "$dir/tiny.yaml" --out "$dir/out" >"$dir/log" 2>&1; rc=$?
ok "plot" "[ $rc = 0 ]"
ok "what is missing is said" "has '4 of 12 cells missing' $dir/log && has \"'4 of 12 cells missing'\" $dir/out/tiny/1.gp"
ok ".tsv and .gp" "[ -s $dir/out/tiny/1.tsv ] && [ -s $dir/out/tiny/curves.gp ]"
if command -v gnuplot >/dev/null; then
  ok ".pdf" "[ \$(head -c 5 $dir/out/tiny/1.pdf) = %PDF- ]"
  ok ".png" "[ \"\$(head -c 4 $dir/out/tiny/curves.png | tail -c 3)\" = PNG ]"
  ok ".svg" "grep -q '</svg>' $dir/out/tiny/1.svg"
  (cd "$dir/out/tiny" && rm 1.svg && gnuplot 1.gp) >"$dir/log" 2>&1
  ok "the script draws again by itself" "[ -s $dir/out/tiny/1.svg ]"
else
  for f in .pdf .png .svg "the script draws again by itself"; do echo "ok - $f # SKIP no gnuplot"; done
fi
ok "two seeds are one point with a band" "awk -F'\t' '\$5 == 2 && \$3 <= \$2 && \$2 <= \$4 {n++} END {exit n != 4}' $dir/out/tiny/1.tsv && has filledcurves $dir/out/tiny/1.gp"
ok "no label was run" "[ -z \"\$(find $dir . -name pwned -not -path './.git/*' | head -1)\" ]"
ok "nothing is left of the work" "[ -z \"\$(find $dir/out -name '.*' -type d)\" ]"
"$H" plot "$dir/tiny.yaml" --out "$dir/out" --published >"$dir/log" 2>&1; rc=$?
ok "published numbers are laid over" "[ $rc = 0 ] && grep -q 'Paper$' $dir/out/tiny/1.tsv && has 'dashtype (4,4)' $dir/out/tiny/1.gp"
sed -i 's/best_eval_loss$/other/' "$dir/paper.csv"
"$H" plot "$dir/tiny.yaml" --out "$dir/out" --published >"$dir/log" 2>&1; rc=$?
ok "a CSV without the column: where and which" "[ $rc = 1 ] && has \"paper.csv:2: there is no column 'best_eval_loss'\" $dir/log"

# A narrowed run or plot never draws over the experiment's own figures.
sed -i 's/other$/best_eval_loss/' "$dir/paper.csv"
repo=$PWD; cd "$dir"
export HARNESS_PLOTS=$repo/plots
"$H" run tiny.yaml --quiet --only keys=5 >log 2>&1; rc=$?
ok "run --only draws all that the store has of the experiment" "[ $rc = 0 ] && [ \$(cut -f1 plots/out/tiny/1.tsv | grep -c '^[345]$') = 6 ]"
ok "and nothing else" "[ \$(ls -d plots/out/tiny/*/ 2>/dev/null | wc -l) = 0 ]"
before=$(cat plots/out/tiny/1.tsv)
"$H" run tiny.yaml --quiet --set task.keys=3,6 --only variant=softmax >log 2>&1; rc=$?
ok "run --set draws into a folder of its own" "[ $rc = 0 ] && grep -q '^6' plots/out/tiny/set-task_keys_3_6-*/1.tsv && [ \"\$before\" = \"\$(cat plots/out/tiny/1.tsv)\" ]"
"$H" plot tiny.yaml --only variant=softmax >log 2>&1; rc=$?
ok "plot --only too, and says where" "[ $rc = 0 ] && has plots/out/tiny/only-variant_softmax- log && [ \"\$before\" = \"\$(cat plots/out/tiny/1.tsv)\" ]"

# Selection, one figure for each value, quality against cost.
sed -e '/^figures/,$d' tiny.yaml >more.yaml
cat >>more.yaml <<'Y'
figures:
  - {name: where, kind: line, x: keys, y: best_eval_loss, where: {keys: [3, 5], seed: 1}}
  - {name: each, kind: line, x: keys, y: best_eval_loss, each: seed}
  - {name: slope, kind: scaling, x: keys, y: seconds, baseline: 'φ''; system(''touch pwned'') #'}
  - {name: front, kind: pareto, x: seconds, y: best_eval_loss}
Y
"$H" plot more.yaml >log 2>&1; rc=$?
ok "where, each, scaling and pareto are drawn" "[ $rc = 0 ] && [ \$(ls plots/out/tiny/{where,each-1,each-2,slope,front}.gp | wc -l) = 5 ]"
ok "a number in a title has its name" "grep -q 'title.*seed 2' plots/out/tiny/each-2.gp"
ok "where selects" "[ \$(grep -c '^[35]' plots/out/tiny/where.tsv) = 4 ] && ! grep -q '^4' plots/out/tiny/where.tsv"
ok "a table of slopes beside a scaling figure" "has 'is the baseline' plots/out/tiny/slope-slopes.md && [ -s plots/out/tiny/slope-slopes.csv ] && [ -s plots/out/tiny/slope-slopes.tex ]"
ok "no label was run there either" "[ -z \"\$(find . -name pwned | head -1)\" ]"
for bad in 'where: {keys: 7}|no cell of this sweep is as' 'where: {kyes: 3}|did you mean .keys.' 'each: sed|did you mean .seed.' \
           'baseline: x|belongs to figures of kind scaling' 'kind: scaling, baseline: soft|no series .soft. for a baseline'; do
  sed -e '/^figures/,$d' tiny.yaml >bad.yaml
  case $bad in kind*) echo "figures: [{x: keys, y: seconds, ${bad%|*}}]" ;; *) echo "figures: [{kind: line, x: keys, y: seconds, ${bad%|*}}]" ;; esac >>bad.yaml
  "$H" plot bad.yaml >log 2>&1; rc=$?
  ok "refused with its place: ${bad%|*}" "[ $rc = 3 ] && grep -q '^bad.yaml:[0-9]*:[0-9]*: .*${bad#*|}' log"
done
unset HARNESS_PLOTS
cd "$repo"

mkdir "$dir/bin" && PATH=$dir/bin "$H" plot "$dir/tiny.yaml" --out "$dir/bare" >"$dir/log" 2>&1; rc=$?
ok "without gnuplot .tsv and .gp are written, and it says so" \
   "[ $rc = 0 ] && has 'there is no gnuplot' $dir/log && [ -s $dir/bare/tiny/1.gp ] && [ ! -e $dir/bare/tiny/1.png ]"
echo text >"$dir/file"
"$H" plot "$dir/tiny.yaml" --out "$dir/file/x" >"$dir/log" 2>&1; rc=$?
ok "a folder that cannot be made" "[ $rc = 1 ] && has 'cannot be made' $dir/log"
sed -i '/^figures/,$d' "$dir/tiny.yaml"
"$H" plot "$dir/tiny.yaml" >"$dir/log" 2>&1; rc=$?
ok "an experiment without figures: exit 6" "[ $rc = 6 ] && has 'asks for no figures' $dir/log"
