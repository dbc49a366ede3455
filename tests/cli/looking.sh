#!/bin/bash
# docs/looking.md is true: its commands, in its order, on generated proteins and for a few steps.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} root=$PWD
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME=$tmp/cache OMP_NUM_THREADS=1 HARNESS_PLOTS=$root/plots
mkdir "$tmp/experiments" && cp experiments/protein-tiny.yaml "$tmp/experiments" && cd "$tmp" || exit 1
sed -i 's/data: proteins, other_split: ood/data: generated-proteins, other_split: valid/; s/max_steps: 400, eval_every: 100/max_steps: 8, eval_every: 8/; s/_tokens: [0-9]*/_tokens: 1000/g' experiments/protein-tiny.yaml
commands=$(sed -n 's/^    build\/harness //p' "$root/docs/looking.md")
if [ "$(echo "$commands" | wc -l)" -ge 5 ]; then echo "ok - the page has commands"; else echo "not ok - the page has commands: '$commands'"; fi
while read -r line; do
  line=${line/data prepare proteins --from \~\/data\/proteins/data prepare generated-proteins}
  if eval "\"$HARNESS\" $line" >"$tmp/out" 2>"$tmp/err" </dev/null && [ -s "$tmp/out" ]; then echo "ok - harness $line"
  else echo "not ok - harness $line: $(cat "$tmp/err")"; fi
done <<<"$commands"
