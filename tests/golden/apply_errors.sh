#!/bin/bash
# harness apply on wrong input: each refusal names the file, what was expected and what was found.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT

npy() {                                 # npy NAME DESCR SHAPE BYTES [FORTRAN]: a file of zeros
  local head="{'descr': '$2', 'fortran_order': ${5:-False}, 'shape': ($3), }"
  { printf '\x93NUMPY\x01\x00'; printf "\\x$(printf %02x $((${#head} % 256)))\\x$(printf %02x $((${#head} / 256)))$head"
    head -c "$4" /dev/zero; } >"$tmp/$1.npy"
}
refuses() {                             # refuses NAME STATUS PATTERN ARGUMENTS...
  local name=$1 status=$2 pattern=$3; shift 3
  local out; out=$("$HARNESS" apply "$@" --out "$tmp/out" 2>&1 >/dev/null); local rc=$?
  if [[ $rc == $status ]] && grep -qE -- "$pattern" <<<"$out" && [ ! -e "$tmp/out" ]; then echo "ok - $name"
  else echo "# exit status $rc: $out"; echo "not ok - $name"; fi
}

S=$B/variants/softmax.so I=$B/variants/identity.so F=$B/variants/fwp.so P=$B/variants/performer.so L=$B/variants/lsh.so
npy q '<f8' '1, 2, 3, 4' 192; npy k '<f8' '1, 2, 3, 4' 192; npy k5 '<f8' '1, 2, 5, 4' 320; npy f32 '<f4' '1, 2, 3, 4' 96
npy big '>f8' '1, 2, 3, 4' 192; npy fortran '<f8' '1, 2, 3, 4' 192 True; npy short '<f8' '1, 2, 3, 4' 100; npy rank '<f8' '2, 3, 4' 192
npy three '<f8' '1, 3, 3, 4' 288; npy int '<i8' '1, 2, 3, 4' 192; npy empty '<f8' '1, 2, 0, 4' 0; npy objects '|O' '1, 2, 3, 4' 192
npy gate '<f8' '1, 2, 3' 48; npy proj '<f8' '1, 8, 4' 256; npy buckets '<i8' '1, 2, 4, 3' 192; npy n '<i8' '1,' 8; npy nf '<f8' '1,' 8
q="$tmp/q.npy" k="$tmp/k.npy"
qkv=(--q "$q" --k "$k" --v "$k")

refuses 'no variant'                2 'which variant'
refuses 'no mode'                   2 '--mode'                              "$S" "${qkv[@]}"
refuses 'no queries'                2 'softmax needs --q'                   "$S" --k "$k" --v "$k" --mode causal
refuses 'no keys'                   2 'softmax needs --k'                   "$S" --q "$q" --v "$k" --mode causal
refuses 'keys for shared queries'   2 'lsh takes no --k'                    "$B/variants/lsh.so" "${qkv[@]}" --mode causal
refuses 'an unknown mode'           2 'causal, bidirectional or cross'      "$S" "${qkv[@]}" --mode sideways
refuses 'an unknown variant'        5 "did you mean 'softmax'"              softmx "${qkv[@]}" --mode causal
refuses 'a file that is no plug-in' 5 'q.npy'                               "$q.so" "${qkv[@]}" --mode causal
refuses 'an unknown option'         2 "did you mean 'scale'"                "$S" "${qkv[@]}" --mode causal scal=1
refuses 'a value out of range'      2 'scale'                               "$S" "${qkv[@]}" --mode causal scale=-1
refuses 'an unknown implementation' 2 'gpu'                                 "$S" "${qkv[@]}" --mode causal --impl gpu
refuses 'a seed that is no number'  2 'seed|one'                            "$S" "${qkv[@]}" --mode causal --seed one
refuses 'a file that is not there'  3 'nowhere.npy: No such file'           "$S" --q "$tmp/nowhere.npy" --k "$k" --v "$k" --mode causal
refuses 'big-endian numbers'        3 'big.npy: is big-endian'              "$S" --q "$tmp/big.npy" --k "$k" --v "$k" --mode causal
refuses 'Fortran order'             3 'ascontiguousarray'                   "$S" --q "$q" --k "$tmp/fortran.npy" --v "$k" --mode causal
refuses 'Python objects'            3 'objects.npy: holds Python objects'   "$S" --q "$tmp/objects.npy" --k "$k" --v "$k" --mode causal
refuses 'a truncated file'          3 'short.npy: is truncated'             "$S" --q "$q" --k "$k" --v "$tmp/short.npy" --mode causal
refuses 'integers for q'            3 'int.npy: is int64; expected float32' "$S" --q "$tmp/int.npy" --k "$k" --v "$k" --mode causal
refuses 'an empty tensor'           3 'empty.npy: is empty'                 "$S" --q "$tmp/empty.npy" --k "$k" --v "$k" --mode causal
refuses 'three dimensions'          3 'rank.npy: has 3 dimensions'          "$S" --q "$tmp/rank.npy" --k "$k" --v "$k" --mode causal
refuses 'two precisions'            3 'f32.npy: is float32, but .*q.npy'    "$S" --q "$q" --k "$k" --v "$tmp/f32.npy" --mode causal
refuses 'v longer than k'           3 'k5.npy: is \[1, 2, 5, 4\]; .*\[1, 2, 3, 4\]' "$S" --q "$q" --k "$k" --v "$tmp/k5.npy" --mode causal
refuses 'heads that do not divide'  3 '2 heads, .* 3 of'                    "$S" --q "$q" --k "$tmp/three.npy" --v "$tmp/three.npy" --mode causal
refuses 'do of another shape'       3 'k5.npy: .* do,'                      "$S" "${qkv[@]}" --do "$tmp/k5.npy" --mode causal
refuses 'kv-len that is floating'   3 'nf.npy: is float64; expected int32'  "$S" "${qkv[@]}" --kv-len "$tmp/nf.npy" --mode causal
refuses 'key lengths for fwp'       1 'fwp refuses: key lengths'            "$F" "${qkv[@]}" --gate beta="$tmp/gate.npy" --kv-len "$tmp/n.npy" --mode causal
refuses 'lengths that do not match' 2 'bidirectional needs Tq = Tk, not 3'  "$F" --q "$q" --k "$tmp/k5.npy" --v "$tmp/k5.npy" --mode bidirectional update_rule=sum
refuses 'a mode that is undefined'  [12] 'identity refuses'                  "$I" "${qkv[@]}" --mode cross
refuses 'a gate that is missing'    2 '--gate beta=FILE of shape \[1, 2, 3\]' "$F" "${qkv[@]}" --mode causal
refuses 'a gate that is unknown'    2 "no gate 'bet'; did you mean 'beta'"  "$F" "${qkv[@]}" --gate bet="$tmp/gate.npy" --mode causal
refuses 'a gate of another shape'   3 'k5.npy: .* the gate beta must be'    "$F" "${qkv[@]}" --gate beta="$tmp/k5.npy" --mode causal
refuses 'a gate given twice'        2 'given twice'                         "$F" "${qkv[@]}" --gate beta="$tmp/gate.npy" --gate beta="$tmp/gate.npy" --mode causal
refuses 'a gate that is not used'   2 'does not use the gate beta'          "$F" "${qkv[@]}" --gate beta="$tmp/gate.npy" --mode causal update_rule=sum
refuses 'a state that is unknown'   2 "no state 'stat'"                     "$F" "${qkv[@]}" --state stat="$q" --mode causal update_rule=sum
refuses 'a gate without a name'     2 'NAME=FILE'                           "$F" "${qkv[@]}" --gate "$q" --mode causal
refuses 'no keys'                   2 'softmax needs --k'                   "$S" --q "$q" --v "$k" --mode causal
refuses 'keys where queries are'    2 'lsh takes no --k'                    "$L" "${qkv[@]}" --mode causal
refuses 'v longer than q'           3 'k5.npy: .* by the heads and length of q' "$L" --q "$q" --v "$tmp/k5.npy" --mode causal
refuses 'buckets of another shape'  3 'gate.npy: .* the param buckets must' "$L" --q "$q" --v "$k" --param buckets="$tmp/gate.npy" --mode causal
refuses 'proj against nb_features'  3 'proj.npy: is \[1, 8, 4\]; .* by nb_features, must be \[1, 16, 4\]' "$P" "${qkv[@]}" --param proj="$tmp/proj.npy" --mode causal nb_features=16

"$HARNESS" apply "$P" "${qkv[@]}" --param proj="$tmp/proj.npy" --mode causal --out "$tmp/one" >/dev/null 2>"$tmp/log" &&
  "$HARNESS" apply "$P" "${qkv[@]}" --mode causal --seed 3 --out "$tmp/two" >/dev/null 2>>"$tmp/log" &&
  "$HARNESS" apply "$P" "${qkv[@]}" --mode causal --seed 3 --threads 2 --out "$tmp/three" >/dev/null 2>>"$tmp/log" &&
  cmp -s "$tmp/two/o.npy" "$tmp/three/o.npy" && echo "ok - a projection is given, or drawn from the seed" || { cat "$tmp/log"; echo "not ok - a projection is given, or drawn from the seed"; }
"$HARNESS" apply "$L" --q "$q" --v "$k" --do "$q" --param buckets="$tmp/buckets.npy" --mode causal --out "$tmp/lsh" >"$tmp/log" 2>&1 &&
  [[ $(cd "$tmp/lsh" && echo *) == "dq.npy dv.npy o.npy" ]] && echo "ok - integers for a param that may be absent, and no keys" ||
  { cat "$tmp/log"; echo "not ok - integers for a param that may be absent, and no keys"; }
: >"$tmp/file"
"$HARNESS" apply "$S" "${qkv[@]}" --mode causal --out "$tmp/file/below" 2>&1 >/dev/null | grep -q 'file/below: cannot be made' &&
  echo "ok - a folder that cannot be made is named" || echo "not ok - a folder that cannot be made is named"
"$HARNESS" apply "$B/variants/conv.so" --v "$k" --do "$k" --mode causal --out "$tmp/values" >/dev/null 2>"$tmp/log" &&
  [ -e "$tmp/values/dv.npy" ] && [ ! -e "$tmp/values/dq.npy" ] && [ ! -e "$tmp/values/dk.npy" ] &&
  echo "ok - a variant of v alone needs neither q nor k" || { cat "$tmp/log"; echo "not ok - a variant of v alone needs neither q nor k"; }
