#!/bin/bash
# Every kind of mistake in an experiment file: the exact messages of bad/NAME.err, exit code 3, nothing run and
# no database made.
set -u
HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export HARNESS_DB=$tmp/results.db

check() {                               # check NAME COMMAND...: one result
  local name=$1; shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
refused() {                             # refused EXIT-CODE EXPECTED-FILE ARGUMENTS...: runs and compares
  local code=$1 expected=$2; shift 2
  "$HARNESS" run "$@" >"$tmp/out" 2>"$tmp/err"
  local rc=$?
  [[ $rc == "$code" ]] || { echo "# exit code $rc, not $code"; return 1; }
  [[ ! -s $tmp/out && ! -e $HARNESS_DB ]] || { echo "# something was run"; return 1; }
  diff "$expected" "$tmp/err" >"$tmp/diff" || { sed 's/^/# /' "$tmp/diff"; return 1; }
}
says() {                                # says EXIT-CODE SENTENCE ARGUMENTS...: the same with the sentence at hand
  local code=$1; echo "$2" >"$tmp/sentence"; shift 2
  refused "$code" "$tmp/sentence" "$@"
}

for file in tests/cli/bad/*.yaml; do
  check "$(basename "$file") is refused" refused 3 "${file%.yaml}.err" "$file"
done
check "a dry run refuses too" refused 3 tests/cli/bad/twice.err tests/cli/bad/twice.yaml --dry-run

cat >"$tmp/good.yaml" <<YAML
experiment: e
task: {name: associative_retrieval, keys: [20, 40]}
variants: [softmax]
YAML
good=$tmp/good.yaml
check "a missing file" says 3 "$tmp/none.yaml: No such file or directory" "$tmp/none.yaml"
check "--set with a typo" says 3 "--set task.kyes=3: task associative_retrieval has no option 'kyes'; did you mean 'keys'?" "$good" --set task.kyes=3
check "--set out of range" says 3 "--set task.keys=20,0: keys must be 1..65536, not 0" "$good" --set task.keys=20,0
check "--only with a typo" says 3 "--only kyes=20: this sweep has no axis 'kyes'; did you mean 'keys'?" "$good" --only kyes=20
check "--only that leaves nothing" says 6 "$good: nothing is left of the sweep by --only keys=30" "$good" --only keys=30
