#!/bin/bash
# harness apply against NumPy: images, relative positions and hashing.
exec bash "$(dirname "$0")/apply_numpy.sh" local_2d relative lsh
