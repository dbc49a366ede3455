#!/bin/bash
# Which device there is: a child opens it, and whoever asks hears one sentence.
set -u
HARNESS=${HARNESS:-$PWD/${B:-build}/harness} B=${B:-build}

check() {                               # check NAME COMMAND...: one result
  local name=$1; shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
said=$("$HARNESS" describe --device cpu); rc=$?
check "a device that opens is described" eval '[[ $rc == 0 && $said == "{\"device\":\""*"\",\"count\":1}" ]]' 
said=$("$HARNESS" describe --device gpu); rc=$?
check "a device that does not open has a reason and exit code 4" \
  test $rc = 4 -a "$said" = '{"refused":"no device gpu: expected cpu, cuda or cuda:N"}'
"$HARNESS" describe --device cpu file.so 2>/dev/null
check "a device and a file are too much" test $? = 2

cuda=$("$HARNESS" describe --device cuda); rc=$?
sentence=$("$HARNESS" env | sed -n 's/^gpu  *//p')
if [ $rc = 0 ]; then
  check "env names the GPU" eval '[[ $cuda == "{\"device\":\"$sentence\",\"count\":"[1-9]*"}" ]]'
else
  check "env says why there is no GPU" eval '[[ $sentence == "no CUDA device: "* && $cuda == "{\"refused\":\"no CUDA device: "* ]]'
fi
