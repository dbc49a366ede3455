#!/bin/bash
# harness apply against NumPy: softmax over sets of keys.
exec bash "$(dirname "$0")/apply_numpy.sh" sliding_window sparse_strided sparse_fixed local_1d
