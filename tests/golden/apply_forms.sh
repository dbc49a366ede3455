#!/bin/bash
# The forms of the specification's table that are undefined are refused, each by the variant's own plan; the others run.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

npy() {                                 # npy NAME SHAPE ELEMENTS: a file of zeros in double
  local head="{'descr': '<f8', 'fortran_order': False, 'shape': ($2), }"
  { printf '\x93NUMPY\x01\x00'; printf "\\x$(printf %02x $((${#head} % 256)))\\x$(printf %02x $((${#head} / 256)))$head"
    head -c $(($3 * 8)) /dev/zero; } >"$tmp/$1.npy"
}
npy short '1, 2, 3, 4' 24; npy long '1, 2, 6, 4' 48; npy scalar3 '1, 2, 3' 6; npy scalar6 '1, 2, 6' 12

try() {                                 # try VARIANT FORM: runs it; C+ is causal with 3 queries after 6 keys
  local v=$1 form=$2 mode k=short in gates=()
  case $form in C) mode=causal;; C+) mode=causal k=long;; B) mode=bidirectional;; X) mode=cross k=long;; esac
  case $v in
    lstm | conv) [ $k = long ] && in=(--q "$tmp/short.npy" --v "$tmp/long.npy") || in=(--v "$tmp/short.npy");;
    lsh)         in=(--q "$tmp/short.npy" --v "$tmp/short.npy");;
    *)           in=(--q "$tmp/short.npy" --k "$tmp/$k.npy" --v "$tmp/$k.npy");;
  esac
  local scalar=scalar3; [ $k = long ] && scalar=scalar6
  case $v in
    fwp)            gates=(--gate beta="$tmp/$scalar.npy");;
    gla)            gates=(--gate gk="$tmp/$k.npy");;
    gated_deltanet) gates=(--gate a="$tmp/$scalar.npy" --gate beta="$tmp/$scalar.npy");;
    mamba2)         gates=(--gate dt="$tmp/$scalar.npy");;
  esac
  rm -rf "$tmp/out"
  "$HARNESS" apply "$B/variants/$v.so" "${in[@]}" "${gates[@]}" --mode $mode --out "$tmp/out" $([ $v = local_2d ] && echo width=2) 2>&1
}

while read -r variant forms; do
  wrong=
  for form in C C+ B X; do
    [ $variant$form = lshC+ ] && continue       # its keys are its queries: there are as many
    out=$(try "$variant" $form); rc=$?
    if [[ " $forms " == *" $form "* ]]; then [ $rc = 0 ] || wrong+="$form is defined: $out; "
    else
      [ $rc != 0 ] && [ ! -e "$tmp/out" ] || wrong+="$form is undefined, but runs; "
      grep -q "$variant refuses" <<<"$out" || wrong+="$form: $out; "
    fi
  done
  if [ -z "$wrong" ]; then echo "ok - $variant is defined for $forms and nothing else"
  else echo "# $wrong"; echo "not ok - $variant is defined for $forms and nothing else"; fi
done <<'END'
identity C B
softmax C C+ B X
sliding_window C C+ B
sparse_strided C C+ B
sparse_fixed C C+ B
local_1d C C+ B
local_2d C C+ B
relative C B
lsh C B
performer C C+ B X
performer_generalized C C+ B X
linear C C+ B X
fwp C X B
retention C
gla C
gated_deltanet C
mamba2 C
lstm C
conv C B
END
