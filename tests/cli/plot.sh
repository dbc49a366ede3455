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

mkdir "$dir/bin" && PATH=$dir/bin "$H" plot "$dir/tiny.yaml" --out "$dir/bare" >"$dir/log" 2>&1; rc=$?
ok "without gnuplot .tsv and .gp are written, and it says so" \
   "[ $rc = 0 ] && has 'there is no gnuplot' $dir/log && [ -s $dir/bare/tiny/1.gp ] && [ ! -e $dir/bare/tiny/1.png ]"
echo text >"$dir/file"
"$H" plot "$dir/tiny.yaml" --out "$dir/file/x" >"$dir/log" 2>&1; rc=$?
ok "a folder that cannot be made" "[ $rc = 1 ] && has 'cannot be made' $dir/log"
sed -i '/^figures/,$d' "$dir/tiny.yaml"
"$H" plot "$dir/tiny.yaml" >"$dir/log" 2>&1; rc=$?
ok "an experiment without figures: exit 6" "[ $rc = 6 ] && has 'asks for no figures' $dir/log"
