#!/bin/bash
# harness apply against NumPy: fast weights with every rule, feature map and normalisation.
exec bash "$(dirname "$0")/apply_numpy.sh" fwp
