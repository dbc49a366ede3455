#!/bin/bash
# Implementations for a GPU are checked on a device; the very same path is taken here with a mirrored memory on the CPU.
# mirrored.c is right and must pass; broken on purpose, one bug each, every one must be found.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} CC=${CC:-cc} SAN=${SAN:-}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
source=tests/conform/mirrored.c

build() { $CC -std=gnu17 -O2 -w -fPIC -shared -Iharness ${SAN:+-fsanitize=$SAN} "$1" -o "$2"; }
m() {                                   # m DTYPE SED WHAT: the bug shows in this dtype
  local copy=$tmp/mutant.c so=$tmp/mutant.so found rc
  sed "$2" $source >"$copy"
  if cmp -s $source "$copy"; then echo "not ok - $3: the sed changes nothing"; return; fi
  build "$copy" "$so" || { echo "not ok - $3: does not compile"; return; }
  found=$("$HARNESS" check --device mirror --quick --limit 5 --dtype "$1" "$so" 2>/dev/null); rc=$?
  found=$(grep -m1 '^FAIL' <<<"$found" | sed 's/^FAIL  //; s/ ([0-9.e+-]*):.*//')
  if (( rc == 5 )) && [ -n "$found" ]; then echo "ok - $3: $found"; else echo "not ok - $3 (exit status $rc)"; fi
}

build $source "$tmp/mirrored.so"
wide=(--quick); [ -n "$SAN" ] || wide=()    # all widths, once
{ "$HARNESS" check --device mirror --quick --dtype f32 "$tmp/mirrored.so" && "$HARNESS" check --device mirror "${wide[@]}" --dtype bf16 "$tmp/mirrored.so"; } >"$tmp/log" && echo "ok - a far copy conforms" || { cat "$tmp/log"; echo "not ok - a far copy conforms"; }
for dtype in f32 bf16; do
  grep -qE "mirrored/far.$dtype/causal +[0-9]{2,} +0 " "$tmp/log" && echo "ok - its summary counts $dtype" || echo "not ok - its summary counts $dtype"
done
"$HARNESS" check --device mirror --defaults --once --tap "$tmp/mirrored.so" >"$tmp/once" 2>&1 && grep -q 'equals the reference.*Dk=256' "$tmp/once" && ! grep -q 'no leak' "$tmp/once" &&
  echo "ok - the defaults once, at all widths" || { cat "$tmp/once"; echo "not ok - the defaults once, at all widths"; }
grep -q "skipped .*Dk must be a multiple of 4" "$tmp/log" && echo "ok - a refusal is told with its reason" || echo "not ok - a refusal is told with its reason"
"$HARNESS" check --device mirror --dtype f32 "$B/variants/identity.so" | grep -q "no implementation for this device\|identity/" &&
  echo "ok - a variant without the implementation is told" || echo "not ok - a variant without the implementation is told"

"$HARNESS" check --device cuda "$tmp/mirrored.so" >"$tmp/out" 2>"$tmp/err"; rc=$?
if (( rc == 4 )) && [ ! -s "$tmp/out" ] && [ "$(wc -l <"$tmp/err")" = 1 ] && grep -q "no CUDA device" "$tmp/err"
then echo "ok - without a GPU one sentence and exit status 4"
elif [ -e /dev/nvidiactl ]; then echo "ok - without a GPU one sentence # SKIP there is a GPU"
else cat "$tmp/err"; echo "not ok - without a GPU one sentence and exit status 4 (is $rc)"; fi

m bf16 '/far_forward/,/^}/s/= amp_of(c)/= amp_of(c) * 1.01/' 'bf16: the output one percent too large'
m bf16 '/far_backward/,/^}/s/= amp_of(c)/= amp_of(c) * 1.02/' 'bf16: gradients two percent too large'
m bf16 '/far_backward/,/^}/s/mine = \*c;/mine = *c; mine.dk.p = c->s->dtype == ATTN_BF16 ? NULL : c->dk.p;/' 'bf16: a gradient is missing'
m bf16 's/sum\[e\] += w \* \(.*\);/sum[e] = kept(dtype, sum[e] + w * \1);/' 'bf16: sums kept in bfloat16'
m bf16 's/(u + 0x7FFF + (u >> 16 & 1)) >> 16/u >> 16/' 'bf16: rounded towards zero'
m bf16 's/int rc = forward_with.*/&\n    put(c->o.p, c->s->dtype, at(\&c->o, c->s->B - 1, c->s->Hq - 1, c->s->Tq - 1) + c->s->Dv, 1);/' 'bf16: one number past the output'
m f32 '/far_forward/,/^}/s/= amp_of(c)/= amp_of(c) * 1.001/' 'f32: the output a thousandth too large'
m f32 's/int rc = forward_with.*/&\n    ((char *)c->scratch)[sizeof(double) * c->s->Dv] = 0;/' 'f32: one byte past the scratch'
m f32 's/int rc = forward_with.*/&\n    ((char *)c->scratch)[-1] = 0;/' 'f32: one byte before the scratch'
m f32 's/int rc = forward_with.*/&\n    if (c->saved) ((char *)c->saved)[4] = 0;/' 'f32: one byte past saved'
m f32 's/int rc = forward_with.*/&\n    put((void *)c->k.p, c->s->dtype, 0, 1);/' 'f32: an input changed'
m f32 's/memset(dq, 0.*/if (dtype == ATTN_F64) &/' 'f32: scratch read before it is written'
m f32 's/j <= last;/j <= last + (dtype != ATTN_F64 \&\& last + 1 < s->Tk);/' 'f32: the mask off by one'
m f32 's/j <= last;/j <= last - (dtype != ATTN_F64 \&\& i >= 128);/' 'f32: wrong in the third tile of 64 tokens'
m f32 '/far_forward/,/^}/s/= amp_of(c)/= amp_of(c), drift = ({ static double calls; calls += 1e-6; })/; s/int rc = forward_with(c, amp)/int rc = forward_with(c, amp + drift)/' 'f32: a static counter'
m f32 '/far_backward/,/^}/s/mine = \*c;/mine = *c; if (c->dparam[0]) put(c->dparam[0], ATTN_F32, 0, 0);/' 'f32: dparam overwritten'
m f32 '/far_backward/,/^}/s/mine = \*c;/mine = *c; if (!mine.dk.p) mine.dv.p = NULL;/' 'f32: one gradient needs another'
m f32 '/far_decode/,/^}/s/mine = \*c;/mine = *c; if (c->pos == 2) *(double *)c->state = 0;/' 'f32: decode loses the state'
m f32 '/far_decode/,/^}/s/mine = \*c;/mine = *c; ((char *)c->state)[c->plan->state] = 0;/' 'f32: one byte past the state'
m f32 '/far_forward/,/^}/s/double amp = /const attn_call *volatile none = NULL; c = none; &/' 'f32: a crash'
