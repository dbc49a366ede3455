#!/bin/bash
# harness new from the outside, and docs/writing-a-variant.md word by word.
#
# Of the document, a block "c FILE" or "python FILE" is appended to FILE (before=TEXT, after=TEXT: put beside the first
# line with TEXT), and the commands of a block "console" are run.  What such a block shows of the output must be in the
# output: numbers count as equal, blanks are squeezed, and a line that ends in … is a beginning.
set -u
H=${HARNESS:-$PWD/${B:-build}/harness}
here=$PWD
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin" "$tmp/evening" && ln -s "$H" "$tmp/bin/harness"
export PATH=$tmp/bin:$PATH HARNESS=harness OMP_NUM_THREADS=1
[ -n "${SAN:-}" ] && export CFLAGS="-std=gnu17 -O1 -g -fopenmp -fsanitize=$SAN -fno-sanitize-recover=all"

ok() { if eval "$2"; then echo "ok - $1"; else sed 's/^/# /' "$tmp/out" | tail -n 30; echo "not ok - $1"; fi; }
new() { (cd "$tmp/evening" && "$H" new "$@") >"$tmp/out" 2>&1; rc=$?; }
has() { grep -qF -- "$1" "$tmp/out"; }

# ---- what is refused --------------------------------------------------------------------------------------------
for name in Mine my-own 'a b' ../up '' "$(printf 'x%.0s' {1..61})"; do
  new "$name"; ok "the name '${name:0:20}' is refused" "[ $rc = 2 ] && has 'is not 1 to 60 of a-z, 0-9 and _'"
done
new softmax; ok "the name of a loaded variant is refused with its file" "[ $rc = 2 ] && has 'there is a variant softmax already: ' && has softmax.so"
new mine "$tmp/nowhere"; ok "a folder that is not there is not made" "[ $rc = 1 ] && has 'No such file' && [ ! -e $tmp/nowhere ]"
new -h; ok "-h explains" "[ $rc = 0 ] && has 'usage: harness new NAME'"
new --no-such-option; ok "an unknown option is refused" "[ $rc = 2 ]"
mkdir "$tmp/evening/mine"; new mine; ok "a folder that exists is left alone" "[ $rc = 1 ] && has 'File exists' && [ -z \"\$(ls $tmp/evening/mine)\" ]"
rmdir "$tmp/evening/mine"; ok "nothing else was made" "[ -z \"\$(ls -A $tmp/evening)\" ]"

(cd "$tmp/evening" && trap '' XFSZ && ulimit -f 0 && "$H" new full; echo "exit $?") 2>&1 | cat >"$tmp/out"
ok "a disk that is full leaves nothing behind" "has 'full cannot be filled (File too large)' && has 'exit 1' && [ -z \"\$(ls -A $tmp/evening)\" ]"

# ---- where it may lie, and where harness may ---------------------------------------------------------------------
place="$tmp/a \$HOME # it's %"
mkdir "$place"
make -s -o all B="${B:-build}" SAN="${SAN:-}" PREFIX="$tmp/usr" install >"$tmp/out" 2>&1 && mv "$tmp/usr" "$place"
(unset HARNESS; cd "$place" && usr/bin/harness new mine_2 "$place/" && cd mine_2 && make -s check &&
 ! grep -i template Makefile mine_2.yaml) >>"$tmp/out" 2>&1; rc=$?
ok "an installed harness, and a folder whose name has every trap" "[ $rc = 0 ] && has ' 0 failed'"
ok "what is new bears its name alone" "has 'mine_2/ref/causal' && ! has 'template/'"

# ---- the document ------------------------------------------------------------------------------------------------
python=
for p in /usr/bin/python3 "$(command -v python3)" "$here/.venv/bin/python" ${PYTHON:-}; do
  "$p" -c 'import numpy' 2>/dev/null && python=$p
done
[ -n "$python" ] && printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" >"$tmp/bin/python3" && chmod +x "$tmp/bin/python3"

normal() { sed -E 's/-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/N/g; s/[ \t]+/ /g; s/^ //; s/ $//' "$@"; }
place_block() {                         # place_block FILE [before=TEXT|after=TEXT]: the block into the file
  local how=${2%%=*} text=${2#*=}
  if [ -z "$how" ]; then
    if [ -s "$1" ] && [ -z "${begun[$1]:-}" ]; then : >"$1"; fi        # the first block replaces what harness new wrote
    { [ -s "$1" ] && echo; cat "$tmp/block"; } >>"$1"; begun[$1]=1
  else
    awk -v how="$how" -v text="$text" -v block="$(sed 's/\\/\\\\/g' "$tmp/block")" '
      !done && index($0, text) { done = 1; if (how == "before") print block "\n"; print; if (how == "after") print block; next }
      { print }' \
      "$1" >"$tmp/placed" && cp "$tmp/placed" "$1"
  fi
}
judge() {                               # the command in $command against the output shown in $tmp/shown
  [ -z "$command" ] && return
  if [[ $command == python3* && -z $python ]]; then echo "ok - \$ ${command%%$'\n'*} # SKIP no numpy"; command=; return; fi
  eval "$command" >"$tmp/out" 2>&1 </dev/null; local rc=$? missing= line
  normal "$tmp/out" >"$tmp/said"
  while read -r line; do
    case $line in
      …|'') ;;
      *…) grep -qE -- "^$(sed 's/[][\\.*^$+?(){}|]/\\&/g; s/ *…$//' <<<"$line")" "$tmp/said" || missing=$line ;;
      *) grep -qxF -- "$line" "$tmp/said" || missing=$line ;;
    esac
  done < <(normal "$tmp/shown")
  [ -n "$missing" ] && echo "# not in the output: $missing"
  ok "\$ ${command%%$'\n'*}" "[ $rc = 0 ] && [ -z \"\$missing\" ]"
  command=
}

declare -A begun=()
cd "$tmp/evening" || exit 1
kind= command=
while IFS= read -r line; do
  if [[ $line == '```'?* ]]; then read -r kind file how <<<"${line#'```'}"; : >"$tmp/block"
  elif [[ $line == '```' ]]; then
    if [[ $kind == console ]]; then judge; elif [[ -n ${file:-} ]]; then place_block "$file" "$how"; fi
    kind= file=
  elif [[ $kind == console && $line == '$ '* ]]; then judge; command=${line#'$ '}; : >"$tmp/shown"
  elif [[ $kind == console && $line == '> '* ]]; then command+=$'\n'${line#'> '}
  elif [[ $kind == console ]]; then echo "$line" >>"$tmp/shown"
  elif [[ -n $kind ]]; then echo "$line" >>"$tmp/block"
  fi
done <"$here/docs/writing-a-variant.md"
if command -v gnuplot >/dev/null; then ok "the evening ends with a figure" "[ -s $tmp/evening/tempered/plots/out/tempered/keys.png ]"
else echo "ok - the evening ends with a figure # SKIP no gnuplot"; fi
