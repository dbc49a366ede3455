#!/bin/bash
# Transformers against NumPy, by definition and from the checkpoint: the same loss to 1e-12 in float64.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
python=
for p in /usr/bin/python3 python3 .venv/bin/python ${PYTHON:-}; do
  "$p" -c 'import numpy' 2>/dev/null && python=$p
done
if [ -z "$python" ]; then
  [ -n "${CI:-}" ] && { echo "not ok - models equal NumPy's: no python3 with numpy, which CI must have"; exit 1; }
  echo "ok - models equal NumPy's # SKIP no numpy"
  exit 0
fi
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
"$B/tests/golden/model_dump" "$B/variants/softmax.so" "$scratch" >"$scratch/lines" || echo "not ok - model_dump failed"
PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$python" tests/golden/model_numpy.py <"$scratch/lines"
