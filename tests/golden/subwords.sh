#!/bin/bash
# Subword units: the stored segmentations of subword-nmt (subwords_golden.py) to the letter, sentencepiece learned, applied
# and undone, and held against the Python package where that is installed.
set -u
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness}
golden=$(dirname "$0")/subwords
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
same() { if cmp -s "$2" "$3"; then echo "ok - $1"; else diff "$2" "$3" | head -4 | sed 's/^/# /'; echo "not ok - $1"; fi; }
is() { if [[ $2 == *"$3"* ]]; then echo "ok - $1"; else echo "not ok - $1: '$2', wanted '$3'"; fi; }

"$HARNESS" subwords split "$golden/codes" <"$golden/text" >"$tmp/units"
same "subword-nmt, version 0.2" "$tmp/units" "$golden/text.units"
"$HARNESS" subwords split "$golden/codes01" <"$golden/text" >"$tmp/units01"
same "subword-nmt, version 0.1" "$tmp/units01" "$golden/text.units01"
head -n 150 "$golden/text" >"$tmp/plain"
"$HARNESS" subwords split "$golden/codes" <"$tmp/plain" | "$HARNESS" subwords join "$golden/codes" >"$tmp/joined"
same "subword-nmt, undone" "$tmp/joined" "$tmp/plain"
printf '#version: 0.2\na b\nnospace\n' >"$tmp/broken"
is "codes with a bad line" "$("$HARNESS" subwords split "$tmp/broken" 2>&1 </dev/null)" "broken:3: wanted two symbols"
printf '#version: 7\n' >"$tmp/newer"
is "codes of a later version" "$("$HARNESS" subwords split "$tmp/newer" 2>&1 </dev/null)" "newer:1: wanted #version"
is "a model that is not there" "$("$HARNESS" subwords split "$tmp/absent" 2>&1 </dev/null)" "absent: No such file"
is "a line that is no UTF-8" "$(printf 'a\n\xff\n' | "$HARNESS" subwords split "$golden/codes" 2>&1 >/dev/null)" "standard input:2: not UTF-8"

if [[ ! -e $B/libharness-sentencepiece.so ]]; then
  is "a build without sentencepiece says so" "$("$HARNESS" subwords learn "$tmp/m.model" "$tmp/plain" 2>&1)" "this build has no sentencepiece"
  echo "ok - sentencepiece # SKIP not installed when this was built"; exit 0
fi
for kind in bpe unigram; do
  "$HARNESS" subwords learn "$tmp/$kind.model" "$tmp/plain" --vocabulary 120 --kind $kind >"$tmp/log" 2>&1 || { sed 's/^/# /' "$tmp/log"; echo "not ok - learns $kind"; continue; }
  is "$kind has the units asked for" "$(wc -l <"$tmp/$kind.vocab")" "120"
  "$HARNESS" subwords split "$tmp/$kind.model" <"$tmp/plain" >"$tmp/$kind.units"
  "$HARNESS" subwords join "$tmp/$kind.model" <"$tmp/$kind.units" | sed 's/ﬁ/fi/g' >"$tmp/$kind.joined"
  sed 's/ﬁ/fi/g' "$tmp/plain" >"$tmp/folded"         # its normalisation (NFKC) undoes ligatures
  same "$kind, undone" "$tmp/$kind.joined" "$tmp/folded"
  is "$kind splits words" "$(awk '{ u += NF } END { print (u > 2000) ? "many" : u }' "$tmp/$kind.units")" "many"
done
is "a damaged model" "$(head -c 200 "$tmp/bpe.model" >"$tmp/cut.model"; "$HARNESS" subwords split "$tmp/cut.model" 2>&1 </dev/null)" "cut.model: sentencepiece"
is "more units than the text has" "$("$HARNESS" subwords learn "$tmp/m.model" "$tmp/plain" --vocabulary 100000 2>&1 | tail -1)" "sentencepiece"

python=
for p in ${PYTHON:-} .venv/bin/python python3; do "$p" -c 'import sentencepiece' 2>/dev/null && python=$p && break; done
if [[ -z $python ]]; then
  [[ -n ${CI:-} ]] && { echo "not ok - against sentencepiece's own Python: none, which CI must have"; exit 1; }
  echo "ok - against sentencepiece's own Python # SKIP no Python with sentencepiece (PYTHON, .venv, python3)"; exit 0
fi
for kind in bpe unigram; do
  "$python" -c 'import sys, sentencepiece as s
m = s.SentencePieceProcessor(model_file=sys.argv[1])
for line in open(sys.argv[2]): print(" ".join(m.encode(line.rstrip("\n"), out_type=str)))' "$tmp/$kind.model" "$tmp/plain" >"$tmp/$kind.python"
  same "$kind as its own Python splits" "$tmp/$kind.units" "$tmp/$kind.python"
done
