#!/bin/bash
# Softmax attention on the CPU against PyTorch's scaled_dot_product_attention, in one run, turn by turn: float32, B = 1,
# H = 8, D = 64, two threads each.  PYTHON names a Python that has torch and numpy; LENGTHS="512 1024" shortens the run.
set -eu
export B=${B:-build}
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import numpy, torch' 2>/dev/null || { echo "skip: $PYTHON has no torch and numpy (PYTHON=path of one that has)"; exit 0; }
make -s B="$B" "$B/tests/bench/bench_attention" "$B/variants/softmax.so"
exec "$PYTHON" tests/bench/pytorch_attention.py "$B" ${LENGTHS:-512 1024 2048 4096 8192}
