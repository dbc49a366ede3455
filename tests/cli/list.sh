#!/bin/bash
# harness list, describe, env, and the words for every plug-in that cannot be loaded.
set -u
HARNESS=${HARNESS:-$PWD/${B:-build}/harness} B=${B:-build}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
here=$PWD

check() {                               # check NAME COMMAND...: one result
  local name=$1; shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; fi
}
compile() {                             # compile NAME: a plug-in from stdin
  cat >"$tmp/$1.c"
  ${CC:-cc} -shared -fPIC -I"$here/harness" "$tmp/$1.c" -o "$tmp/plugins/$1.so" || echo "not ok - $1.c does not compile"
}
refused() { grep -qxF "refused: $tmp/plugins/$1" "$tmp/err" || { echo "# no line 'refused: $tmp/plugins/$1' in:"; sed 's/^/# /' "$tmp/err"; false; }; }
lists() { grep -qE -- "$1" "$tmp/out"; }

# ---- what there is ------------------------------------------------------------------------------------
"$HARNESS" list >"$tmp/out" 2>"$tmp/err"
check "list exits 0 and refuses nothing" test $? = 0 -a ! -s "$tmp/err"
check "every variant and task built is listed" eval 'for f in "$B"/variants/*.so "$B"/tasks/*.so; do lists "file .*/$(basename "$f")$" || exit 1; done'
check "options show default, range and help" lists '^    keys = 20 +1\.\.65536 +S: number of keys'
check "options of every variant are listed" lists '^    output_norm = none +none\|rms'
check "training options show the defaults of the task" lists '^    max_steps = 100000 '
check "metrics are listed" lists '^    best_eval_loss +less is better'
check "experiments are listed with their cells" lists '^  experiments/capacity-paper.yaml +240 cells'
check "no line is wider than 100 columns" awk 'length > 100 && !/file/ { exit 1 }' "$tmp/out"
"$HARNESS" list softmax >"$tmp/out" 2>/dev/null
check "list NAME shows that alone" eval 'lists "^softmax " && ! lists "^linear "'
"$HARNESS" list sofmax >"$tmp/out" 2>"$tmp/err"
check "list of a typo exits 2 with the nearest name" test $? = 2 -a "$(cat "$tmp/err")" = "harness list: there is no 'sofmax'; did you mean 'softmax'?"
"$HARNESS" list --json variants >"$tmp/out" 2>/dev/null
check "list --json is an array with options" lists '"options": \['
"$HARNESS" env >"$tmp/out"
check "env names CPU, BLAS, compiler and commit" eval 'lists "^cpu " && lists "^blas +OpenBLAS" && lists "^compiler " && lists "^git "'
check "env --json is an object" eval '"$HARNESS" env --json | grep -q "\"memory_bytes\": [0-9]"'
check "a command with a typo exits 2" eval '"$HARNESS" lsit 2>"$tmp/err"; [[ $? = 2 ]] && grep -q "did you mean .list" "$tmp/err"'
check "every command answers -h" eval 'for c in run status show plot list env check apply; do "$HARNESS" $c -h | grep -q "^usage: harness $c" || exit 1; done'
check "every command refuses an unknown option" eval 'for c in run status show plot list env check apply; do "$HARNESS" $c --no-such-option >/dev/null 2>&1; [[ $? = 2 ]] || exit 1; done'

# ---- what cannot be loaded ---------------------------------------------------------------------------------
mkdir "$tmp/plugins"
compile good <<'C'
#include <stdio.h>
#include "attn.h"
static int plan(const attn_shape *s, const void *o, attn_plan *p) { (void)s; (void)o; (void)p; return ATTN_OK; }
static int forward(const attn_call *c) { (void)c; return ATTN_OK; }
static const attn_impl I[] = {{"ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL, 0, plan, forward, NULL, NULL}, {NULL}};
static const attn_variant V = {.size = sizeof V, .name = "good", .title = "", .paper = "", .cost = "", .impls = I};
ATTN_EXPORT(&V);
__attribute__((constructor)) static void chatter(void) { puts("{\"variants\":[]}"); fflush(stdout); }
C
sed 's/"good"/"softmax"/' "$tmp/good.c" | compile taken
sed 's/"ref", ATTN_CPU, ATTN_F64/"fast", ATTN_CPU, ATTN_F32/; s/"good"/"bad_table"/' "$tmp/good.c" | compile bad_table
sed 's/ATTN_EXPORT(&V)/ATTN_EXPORT(\&V, \&V)/; s/"good"/"double"/' "$tmp/good.c" | compile double
echo 'int attn_variants_v7[] = {0};' | compile other_major
echo 'int answer = 42;' | compile no_plugin
echo 'void nowhere(void); void (*const p)(void) = nowhere; int attn_variants_v1[4];' | compile needs_symbol
echo '__attribute__((constructor)) static void f(void) { *(volatile int *)0 = 1; }' | compile crashes
echo '#include <stdlib.h>
__attribute__((constructor)) static void f(void) { exit(0); }' | compile exits
echo '__attribute__((constructor)) static void f(void) { for (;;) ; }' | compile hangs
head -c 4000 "$tmp/plugins/good.so" >"$tmp/plugins/truncated.so"
echo "not an ELF file" >"$tmp/plugins/text.so"
mkdir "$tmp/plugins/folder.so"

HARNESS_PLUGIN_PATH=$tmp/plugins:/nonexistent: "$HARNESS" list >"$tmp/out" 2>"$tmp/err"
check "list survives plug-ins that cannot be loaded" test $? = 0
check "a plug-in that prints is listed" lists '^good '
check "a bad table is refused" refused "bad_table.so: bad table of variant bad_table: the first impl, fast, must be the reference: ATTN_CPU with ATTN_F64"
check "two variants of one name are refused" refused "double.so: has two variants of the name double"
check "another major is refused by its number" refused "other_major.so: is built for ABI major 7, this harness speaks 1"
check "a library that is no plug-in is refused" refused "no_plugin.so: is no plug-in: it exports neither attn_variants_v1 nor harness_tasks_v1"
check "an undefined symbol is named" refused "needs_symbol.so: needs the symbol nowhere, which harness does not have"
check "a truncated file is refused" refused "truncated.so: is truncated"
check "a text is refused" refused "text.so: is not a shared object (no ELF header)"
check "a folder is refused" refused "folder.so: is not a file"
check "a crash while loading is refused" grep -qE "^refused: $tmp/plugins/crashes.so: its loading ended the process: (killed by signal 11|exited with code)" "$tmp/err"
check "exit(0) while loading is refused" grep -qxF "refused: $tmp/plugins/exits.so: its loading ended the process: exited with code 0" "$tmp/err"
check "an endless loop while loading is refused" refused "hangs.so: did not load within 10 s"
check "a name that is taken names both files" grep -qE "softmax\.so: the name softmax is taken by $tmp/plugins/taken\.so$" "$tmp/err"

# ---- in an experiment -------------------------------------------------------------------------------------
cat >"$tmp/e.yaml" <<YAML
experiment: e
task: associative_retrieval
variants: [good]
YAML
sed 's/good/bad_table/' "$tmp/e.yaml" >"$tmp/f.yaml"
rm "$tmp/plugins/hangs.so" "$tmp/plugins/taken.so"
HARNESS_PLUGIN_PATH=$tmp/plugins "$HARNESS" run "$tmp/e.yaml" --dry-run --db "$tmp/x.db" >"$tmp/out" 2>"$tmp/err"
check "a variant of the search path can be planned" test $? = 0
HARNESS_PLUGIN_PATH=$tmp/plugins "$HARNESS" run "$tmp/f.yaml" --dry-run --db "$tmp/x.db" >"$tmp/out" 2>"$tmp/err"
check "a refused variant exits 5 with its reason" test $? = 5 -a "$(cat "$tmp/err")" = "$tmp/f.yaml:3:12: there is no variant 'bad_table': $tmp/plugins/bad_table.so: bad table of variant bad_table: the first impl, fast, must be the reference: ATTN_CPU with ATTN_F64"
cat >"$tmp/g.yaml" <<YAML
experiment: g
task: associative_retrieval
variants: [softmax, {path: plugins/good.so}, {path: none.so, options: {rank: [1, 2]}}]
YAML
"$HARNESS" run "$tmp/g.yaml" --dry-run --db "$tmp/x.db" >"$tmp/out" 2>"$tmp/err"
check "a missing plug-in is planned beside the others, with a warning" eval '[[ $? = 0 ]] && lists "^4 cells" && grep -qxF "$tmp/g.yaml:3:53: warning: $tmp/none.so: no such file" "$tmp/err"'
