#!/bin/bash
# harness apply against NumPy: forward and gradients by definition, to 1e-10 in float64.  usage: apply_numpy.sh [VARIANT...]
# NumPy is taken from $PYTHON, .venv or python3; without one the suite is skipped, and in CI it fails.
set -u
[ $# -gt 0 ] || set -- softmax linear performer performer_generalized identity
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
python=
for p in /usr/bin/python3 python3 .venv/bin/python ${PYTHON:-}; do
  "$p" -c 'import numpy' 2>/dev/null && python=$p
done
if [ -z "$python" ]; then
  [ -n "${CI:-}" ] && { echo "not ok - harness apply equals NumPy: no python3 with numpy, which CI must have"; exit 1; }
  echo "ok - harness apply equals NumPy # SKIP no numpy"
  exit 0
fi
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 "$python" tests/golden/apply_numpy.py "$HARNESS" "$B/variants" "$scratch" "$@"
