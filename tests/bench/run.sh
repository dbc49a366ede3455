#!/bin/bash
# make bench: every benchmark, one after another, on an otherwise idle machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
export B=${B:-build} HARNESS=$PWD/${B:-build}/harness
status=0
for b in "$B"/tests/bench/* tests/bench/*.sh; do
  [ "$b" = tests/bench/run.sh ] || [ ! -f "$b" ] && continue
  case $b in *.d | *.o) continue ;; esac
  echo "== ${b##*/}"
  case $b in *.sh) bash "$b" ;; *) "$b" ;; esac || status=1
done
exit $status
