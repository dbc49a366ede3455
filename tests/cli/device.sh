#!/bin/bash
# Which device there is: a child opens it, and whoever asks hears one sentence.
set -u
HARNESS=${HARNESS:-$PWD/${B:-build}/harness} B=${B:-build}

check() {                               # check NAME COMMAND...: one result
  local name=$1; shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
said=$("$HARNESS" describe --device cpu); rc=$?
check "a device that opens is described" test $rc = 0 -a "${said#'{"device":'}" != "$said"
said=$("$HARNESS" describe --device gpu); rc=$?
check "a device that does not open has a reason and exit code 4" \
  test $rc = 4 -a "$said" = '{"refused":"no device gpu: expected cpu, cuda or cuda:N"}'
"$HARNESS" describe --device cpu file.so 2>/dev/null
check "a device and a file are too much" test $? = 2

cuda=$("$HARNESS" describe --device cuda); rc=$?
sentence=$("$HARNESS" env | sed -n 's/^gpu  *//p')
if [ $rc = 0 ]; then
  check "env names the GPU" test "$cuda" = "{\"device\":\"$sentence\"}"
else
  check "env says why there is no GPU" eval '[[ $sentence == "no CUDA device: "* && $cuda == "{\"refused\":\"no CUDA device: "* ]]'
fi
