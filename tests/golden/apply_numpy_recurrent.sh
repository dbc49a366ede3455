#!/bin/bash
# harness apply against NumPy: the memories with a decay, and the comparators.
exec bash "$(dirname "$0")/apply_numpy.sh" retention gla gated_deltanet mamba2 lstm conv
