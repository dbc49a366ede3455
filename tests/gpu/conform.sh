#!/bin/bash
# Conformance of every variant's implementations for the GPU, without which a variant fails; then the list of variant x
# implementation x dtype x mode.  Small shapes under every option, and all shapes and widths under the defaults; FULL=1: all
# shapes under every option, which takes an hour.  The judge works on the CPU, so several share the GPU.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

conform() {                             # conform FILE.so WHAT ARGUMENT...: TAP lines, and one for the whole
  local so=$1 name what=$2 out rc checked; name=$(basename "$1" .so) out=$tmp/$name.${2// /_}; shift 2
  OMP_NUM_THREADS=1 timeout 3600 "$HARNESS" check --device cuda --tap "$@" "$so" >"$out.tap" 2>"$out.err"; rc=$?
  checked=$(grep -E '^ok' "$out.tap" | grep -cv '# SKIP')
  if (( rc == 0 && checked > 0 )); then echo "ok - $name conforms on the GPU: $what"
  elif (( rc == 0 )); then echo "not ok - $name has no implementation for the GPU"
  else echo "not ok - $name conforms on the GPU: $what (exit status $rc) $(head -1 "$out.err")"; fi >>"$out.tap"
}
start() { while (( $(jobs -rp | wc -l) >= $(nproc) )); do wait -n; done; conform "$@" & }
for so in "$B"/variants/*.so; do
  if [ -n "${FULL:-}" ]; then start "$so" "all shapes, every option"; continue; fi
  start "$so" "small shapes, every option" --quick
  start "$so" "all shapes, defaults" --defaults
  [[ $so == */fwp.so ]] && start "$so" "chunks, features made on the way" --only-options --options feature_map=elu1 --options 'feature_map=silu qk_norm=l2'
done
wait
cat "$tmp"/*.tap
echo "# implementations for the GPU: variant, implementation and dtype, mode: ok, failed, skipped"
cat "$tmp"/*.tap | sed -nE 's/^(not )?ok( [0-9]+)?( -)? ([a-z0-9_]+\/[^ /]+\/[a-z]+) .*/\4 \1\0/p' | awk '
  { k = $1; n[k]++; if ($2 == "not") f[k]++; else if (/# SKIP/) s[k]++; else o[k]++ }
  END { for (k in n) printf "# %-46s %4d %4d %4d\n", k, o[k], f[k], s[k] }' | sort
