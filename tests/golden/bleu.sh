#!/bin/bash
# BLEU against sacreBLEU: the stored values of bleu_golden.py to 1e-8 in every file and setting; where the real one is
# installed, newstest-like text, whole, shuffled and truncated, to every printed digit too.  And what is refused.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
golden=$(dirname "$0")/bleu
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

# Each row of the golden table beside what the program prints: name, then pairs of numbers.
while IFS=$'\t' read -r hyp refs options want precisions brevity hyp_len ref_len; do
  [[ $hyp == \#* ]] && continue
  paths=(); for r in $refs; do paths+=("$golden/$r"); done
  "$HARNESS" bleu "$golden/$hyp" "${paths[@]}" $options --json >"$tmp/json" 2>"$tmp/err" || { echo "not ok - $hyp $options: $(<"$tmp/err")"; continue; }
  got=$(sed -nE 's/^ *"(score|brevity_penalty|hyp_len|ref_len)": ([^,]*),?$/\2/p; /"precisions"/,/\]/s/^ *([0-9][^,]*),?$/\1/p' "$tmp/json" | tr '\n' ' ')
  echo "$hyp $options|$want $precisions $brevity $hyp_len $ref_len|$got"
done <"$golden/expected.tsv" | awk -F'|' '
  function off(a, b) { return a > b ? a - b : b - a }
  NF == 1 { print; next }
  { n = split($2, want, " "); m = split($3, got, " "); worst = n == m && n == 8 ? 0 : 9
    for (i = 1; i <= n && i <= m; i++) if (off(want[i], got[i]) > worst) worst = off(want[i], got[i])
    printf "%s - %s: off by %.1e at most\n", worst <= 1e-8 ? "ok" : "not ok", $1, worst }'

is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }
is "a file of equal lines scores 100" "$("$HARNESS" bleu "$golden/equal.hyp" "$golden/equal.ref")" "BLEU = 100.00 100.0/100.0/100.0/100.0 (BP = 1.000"
is "the signature" "$("$HARNESS" bleu "$golden/ties.hyp" "$golden/ties.ref" "$golden/ties.ref1" --lowercase)" "nrefs:2|case:lc|eff:no|tok:13a|smooth:exp|version:"
head -n 3 "$golden/words40.ref" >"$tmp/short"
is "unequal files name file and line" "$("$HARNESS" bleu "$golden/words40.hyp" "$tmp/short" 2>&1)" "short:4: the file ends here"
printf 'good\nb\xffd\n' >"$tmp/bad"
is "bytes that are no UTF-8" "$("$HARNESS" bleu "$tmp/bad" "$tmp/bad" 2>&1)" "bad:2: not UTF-8"
printf 'a\0b\n' >"$tmp/nul"
is "a NUL" "$("$HARNESS" bleu "$tmp/nul" "$tmp/nul" 2>&1)" "nul:1: a NUL byte"
: >"$tmp/none"
is "an empty file" "$("$HARNESS" bleu "$tmp/none" "$tmp/none" 2>&1)" "none:1: the file is empty"
is "a file that is not there" "$("$HARNESS" bleu "$tmp/absent" "$tmp/bad" 2>&1)" "absent: No such file"
is "a wrong tokeniser" "$("$HARNESS" bleu a b --tokenize zh 2>&1)" "wants 13a, intl or none"
same=$("$HARNESS" bleu "$golden/everything40.hyp" "$golden/everything40.ref" --bootstrap 200 --against "$golden/everything40.hyp")
is "a system does not differ from itself" "$same" "difference +0.00, p = 1.0000"
is "the bootstrap is a function of its seed" "$same" "$("$HARNESS" bleu "$golden/everything40.hyp" "$golden/everything40.ref" --bootstrap 200 | sed -n 2p)"
is "a worse system differs" "$("$HARNESS" bleu "$golden/words40.ref" "$golden/words40.ref" --against "$golden/words40.hyp")" "p = 0.0001"

# Against the real one, on 2,737 lines of German where they are at hand, else on lines made here.
python=
for p in ${PYTHON:-} .venv/bin/python python3; do "$p" -c 'import sacrebleu' 2>/dev/null && python=$p && break; done
if [[ -z $python ]]; then
  [[ -n ${CI:-} ]] && { echo "not ok - against the installed sacreBLEU: no Python with sacreBLEU, which CI must have"; exit 1; }
  echo "ok - against the installed sacreBLEU # SKIP no Python with sacreBLEU (PYTHON, .venv, python3)"; exit 0
fi
real=${HARNESS_DATA:-/nonexistent}/wmt-en-de/newstest2014-2737.tok.en-de.tsv
if [[ -r $real ]]; then cut -f2 "$real" >"$tmp/ref"; echo "# references: newstest2014"; else
  cat "$golden"/*40.ref >"$tmp/ref"; echo "# references: made by bleu_golden.py (no newstest2014 at hand)"; fi
cp "$tmp/ref" "$tmp/whole"
awk 'BEGIN { srand(1) } { n = split($0, w, " "); for (i = n; i > 1; i--) { j = int(rand() * i) + 1; t = w[i]; w[i] = w[j]; w[j] = t }
     for (i = 1; i <= n; i++) printf "%s%s", w[i], (i < n ? " " : "\n"); if (!n) print "" }' "$tmp/ref" >"$tmp/shuffled"
awk '{ n = split($0, w, " "); for (i = 1; i <= n * 0.8; i++) printf "%s%s", (i > 1 ? " " : ""), w[i]; print "" }' "$tmp/ref" >"$tmp/truncated"
for copy in whole shuffled truncated; do
  for tok in 13a intl; do
    want=$("$python" -m sacrebleu "$tmp/ref" -i "$tmp/$copy" -m bleu --tokenize $tok -w 2 --force -f text 2>/dev/null | sed 's/.*version:[^ ]* = //')
    is "$copy, $tok: $want" "$("$HARNESS" bleu "$tmp/$copy" "$tmp/ref" --tokenize $tok | head -1)" "BLEU = $want"
  done
done

# Two systems, each with a fifth of its lines cut: interval and p-value are drawn from other random numbers, so equal to their noise.
cut() { awk -v at="$1" -v share="$2" '{ n = split($0, w, " "); m = NR % 5 == at ? n * share : n; for (i = 1; i <= m; i++) printf "%s%s", (i > 1 ? " " : ""), w[i]; print "" }' "$tmp/ref"; }
number() { sed -nE 's/^ *"'"$1"'": ([0-9.e-]+),?$/\1/p' "$2" | tail -1; }
near() { awk -v a="$2" -v b="$3" -v d="$4" -v n="$1" 'BEGIN { x = a - b; printf "%s - %s: %s, sacreBLEU %s\n", a != "" && b != "" && x * x <= d * d ? "ok" : "not ok", n, a, b }'; }
cut 0 0.6 >"$tmp/a"; cut 1 0.55 >"$tmp/b"
"$HARNESS" bleu "$tmp/a" "$tmp/ref" --against "$tmp/b" --bootstrap 2000 --json >"$tmp/ours"
"$python" -m sacrebleu "$tmp/ref" -i "$tmp/a" "$tmp/b" -m bleu --paired-ar --paired-ar-n 2000 --force -f json >"$tmp/ar" 2>/dev/null
"$python" -m sacrebleu "$tmp/ref" -i "$tmp/a" "$tmp/b" -m bleu --paired-bs --paired-bs-n 2000 --force -f json >"$tmp/bs" 2>/dev/null
near "p-value of two systems" "$(number p "$tmp/ours")" "$(number p_value "$tmp/ar")" 0.05
near "mean of the bootstrap" "$(number mean "$tmp/ours")" "$(number mean "$tmp/bs")" 0.3
near "interval of the bootstrap" "$(number interval "$tmp/ours")" "$(number ci "$tmp/bs")" 0.4
