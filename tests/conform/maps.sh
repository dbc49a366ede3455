#!/bin/bash
# The explicit map of kernel attention, where its rows sum to one: without the constant in the denominator.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}

sums() {                                # sums VARIANT OPTIONS...: every map conforms, and its rows are checked
  local variant=$1 sets=() out; shift
  for o in "$@"; do sets+=(--options "denom_eps=0 $o"); done
  if out=$("$HARNESS" check --impl ref --only-options "${sets[@]}" "$B/variants/$variant.so") && grep -qE 'rows of the map sum to one +[1-9]' <<<"$out"
  then echo "ok - rows of the map of $variant sum to one"; else grep FAIL <<<"$out" | head; echo "not ok - rows of the map of $variant sum to one"; fi
}

sums linear feature_map=elu1 feature_map=dpfp
sums performer feature_type=positive feature_type=hyperbolic
sums performer_generalized kernel_fn=sigmoid kernel_fn=softplus
