#!/bin/bash
# The decoders of model.c, which the loop over benchmarks has timed, in PyTorch; without PyTorch nothing.
python3 -c 'import torch' 2>/dev/null || { echo "no PyTorch to compare with"; exit 0; }
exec python3 "$(dirname "$0")/model.py"
