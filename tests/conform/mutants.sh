#!/bin/bash
# The checker is checked: variants broken on purpose, one bug each, every one of which `harness check` must find.
#
# A mutant is a copy of one source file with a sed applied, built with its variant into a plug-in of its own, whose
# symbols stand before libharness's (-Bsymbolic).  The same build of the unbroken file must
# pass, a sed that changes nothing is a failure, and so is a mutant that fails to load instead of failing a check.
set -u
cd "$(dirname "$0")/../.." || exit 1
export B=${B:-build} HARNESS=${HARNESS:-$PWD/${B:-build}/harness} CC=${CC:-cc} SAN=${SAN:-}
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
export tmp
count=0

build() {                               # build OUT.so VARIANT FILE COPY
  local sources=("$4") c
  if [[ $3 == kernels/* ]]; then        # the whole family of kernels, lest libharness's call each other
    sources+=("variants/$2.c")
    for c in kernels/cpu/{attention*,flash,mask,linear_*,features*,fast_weights*,recurrence*,lsh*,relative*}.c; do
      [ "$c" = "$3" ] || sources+=("$B/obj/${c%.c}.o")
    done
  fi
  $CC -std=gnu17 -O1 -g -w -fopenmp -fPIC -shared -Wl,-Bsymbolic -include stdlib.h -I. -Iharness \
      -iquote "$(dirname "$3")" -iquote variants ${SAN:+-fsanitize=$SAN} "${sources[@]}" -o "$1" -lm
}

judge() {                               # judge NUMBER VARIANT FILE SED WHAT [OPTIONS]: one result, in a file of its own
  local dir=$tmp/$1; mkdir -p "$dir"
  local copy=$dir/$(basename "$3") out
  if [ -n "$4" ]; then sed "$4" "$3" >"$copy"; else cp "$3" "$copy"; fi
  if [ -n "$4" ] && cmp -s "$3" "$copy"; then echo "not ok - $5: the sed changes nothing in $3"
  elif ! build "$dir/$2.so" "$2" "$3" "$copy" 2>"$dir/log"; then cat "$dir/log"; echo "not ok - $5: does not compile"
  else
    out=$(timeout 30 "$HARNESS" check --quick --limit 3 ${6:+--options "$6"} "$dir/$2.so" 2>/dev/null); local rc=$?
    local found; found=$(grep -m1 '^FAIL' <<<"$out" | sed 's/^FAIL  //; s/ ([0-9.e+-]*):.*//')
    if [ -z "$4" ]; then
      if (( rc == 0 )); then echo "ok - unbroken: $5"; else echo "# $found"; echo "not ok - unbroken: $5"; fi
    elif (( rc == 5 )) && [[ $found == "$2"/* || $found == template/* ]]; then echo "ok - caught: $5 ($found)"
    else echo "# exit status $rc: $found"; echo "not ok - survived: $5"; fi
  fi >"$dir/tap"
  rm -f "$dir/$2.so"
}

m() {                                   # m VARIANT FILE SED WHAT [OPTIONS of one more set], two at a time
  while (( $(jobs -rp | wc -l) > 1 )); do wait -n; done
  count=$((count + 1))
  judge "$count" "$@" &
}

T=variants/TEMPLATE.c S=variants/softmax.c I=variants/identity.c F=variants/fwp.c
FLASH=kernels/cpu/flash.c HEADS=kernels/cpu/attention.c LOOPS=kernels/cpu/attention_ref.c MASK=kernels/cpu/mask.c SUMS=kernels/cpu/linear_attention_ref.c FAST=kernels/cpu/linear_attention.c
MAPS=kernels/cpu/features_ref.c RULES=kernels/cpu/fast_weights_ref.c ROWS=kernels/cpu/fast_weights_rows.c C=variants/conv.c L=variants/lstm.c STEPS=kernels/cpu/lstm.c
FADES=kernels/cpu/recurrence_ref.c SCORES=kernels/cpu/recurrence_scores.c HASH=kernels/cpu/lsh_ref.c TILES=kernels/cpu/lsh.c SKEW=kernels/cpu/relative_ref.c

m TEMPLATE $T '' 'template'
m softmax $S '' 'softmax'
m softmax $HEADS '' 'softmax with its heads'
m sparse_fixed $MASK '' 'sparse_fixed with its mask'
m identity $I '' 'identity'
m linear $SUMS '' 'linear with its sums'
m performer $MAPS '' 'performer with its maps'
m fwp $RULES '' 'fwp with its rules'
m performer_generalized kernels/cpu/features.c '' 'performer_generalized with its maps'
m conv $C '' 'conv'
m lstm $STEPS '' 'lstm with its steps'

m TEMPLATE $T 's/\[h\] += a \* (1 - a) \* da/[h] = a * (1 - a) * da/' 'dparam overwritten'
m TEMPLATE $T 's/\[0\] = a \* (1 - a) \* da/[0] = a * da/' 'gate without its derivative'
m TEMPLATE $T 's/if (c->state_in\[0\])/if (0)/' 'initial state ignored'
m TEMPLATE $T 's/memcpy((double \*)c->state_out\[0\] + head \* n, S/memset((double *)c->state_out[0] + head * n, 0/' 'final state left at zero'
m TEMPLATE $T 's/memcpy((double \*)c->dstate_in\[0\] + head \* n, R/memset((double *)c->dstate_in[0] + head * n, 0/' 'gradient of the initial state left at zero'
m TEMPLATE $T 's/((size_t)s->Tk + 1) : 0/(size_t)s->Tk : 0/' 'saved one state short'
m TEMPLATE $T 's/if (c->dq.p)/if (1)/' 'a gradient that nobody wants is written'
m TEMPLATE $T 's/(h) \* (t).sh/(h) * ((t).st \/ c->s->Hq)/' 'layout assumed'
m TEMPLATE $T 's/o\[e\] = 0;/{ static double drift; o[e] = drift += 1e-9; }/' 'a static counter'
m TEMPLATE $T 's/o\[e\] = 0;/;/' 'output read before it is written'
m TEMPLATE $T 's/memset(S, 0, bytes)/;/' 'scratch read before it is written'
m TEMPLATE $T 's/dk += R\[d \* E + e\] \* v\[e\]/dk -= R[d * E + e] * v[e]/' 'dk with the wrong sign'
m TEMPLATE $T 's/double dq = 0;/double dq = c->dq.p ? ROW(c->dq, b, h, i)[d] : 0;/' 'dq added to instead of overwritten'
m TEMPLATE $T 's/R\[d \* E + e\] \*= a;/;/' 'decay missing in backward'
m TEMPLATE $T 's/size_t head = (size_t)b \* (size_t)s->Hq + (size_t)h;/size_t head = (size_t)h;/' 'batch rows share their memory'
m TEMPLATE $T 's/double a = keep(c, b, h, t), da = 0;/&\n    ((double *)c->q.p)[0] += 1e-300, ((double *)c->k.p)[0] = 0;/' 'an input changed'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/char *volatile p = malloc(8); free(p); &/' 'malloc in hot code'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/puts("forward"); &/' 'printing in hot code'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/exit(0); &/' 'exit(0) in forward'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/abort(); &/' 'abort in forward'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/*(volatile int *)8 = 1; &/' 'a segmentation fault in forward'
m TEMPLATE $T 's/    size_t n = .*, bytes = n.*/for (volatile int i = 1; i;) ; &/' 'an endless loop in forward'
m TEMPLATE $T 's/p->state = heads \* S;/p->state = (size_t)1 << 50;/' 'plan asks for 10^15 bytes'
m TEMPLATE $T 's/snprintf(p->why.*/;/' 'plan refuses without a reason'
m TEMPLATE $T 's/p->state = heads \* S;/static int plans; p->state = heads * S + (size_t)(plans++ % 2 * 8);/' 'plan answers differently the second time'

m identity $I 's/memcpy(row(&c->o, size, b, h, t), row(&c->v, size, b, h \* s->Hk \/ s->Hq, t)/memcpy(row(\&c->o, size, b, h, t), row(\&c->v, size, b, h % s->Hk, t)/' 'key heads taken in turn'
m identity $I 's/zero(&c->dq, .*/;/' 'dq not cleared'
m identity $I 's/\[d\] += ((const double/[d] = ((const double/' 'dv of the last query head of a group only'
m identity $I 's/size \* (size_t)s->Dv);/size * (size_t)(s->Dv + 1));/' 'one number past the row'

m softmax $S 's/j <= p;/j <= p + 1;/' 'mask off by one'
m softmax $LOOPS 's/ - delta);/ + delta);/' 'delta with the wrong sign'
m softmax $LOOPS 's/ds = a->scale \* p/ds = p/' 'scale missing in backward'
m softmax $LOOPS 's/k_drow(k, b, h, at\[n\])/k_drow(k, b, h, 0)/' 'decode ignores the position'
m softmax $LOOPS 's/D, -1, j, w.dK/D, 1, j, w.dK/' 'the gradient of the keys turned the wrong way'
m softmax $LOOPS 's/top = fmax(top, w.s\[j\])/top = 0/' 'no maximum taken off'
m softmax $LOOPS 's/zero(a->dv, .*/;/' 'dv not cleared'
m softmax $HEADS 's/keys = a->klen && a->klen\[b\] < a->Tk ? a->klen\[b\] : a->Tk/keys = a->Tk/' 'float: key lengths ignored'
m softmax $HEADS 's/\.scale = (float)a->scale/.scale = (float)(a->scale * (1 + 1e-6 * (a->threads - 1)))/' 'float: the result depends on the threads'
m softmax $HEADS 's/v = held(a, state, rows, row, a->Dk)/v = held(a, state, rows, 0, a->Dk)/' 'float: values always appended at the front'
m softmax $FLASH 's/f->ldl\] = sum > 0 ? top + logf(sum)/f->ldl] = sum > 0 ? top/' 'float: log-sum-exp without its sum'

m sliding_window $MASK 's/WINDOW: return around(m, s, 1, m->length - 1/WINDOW: return around(m, s, 1, m->length/' 'float: window one key too long' window=3
m sliding_window $HEADS 's/count = count < ring - row ? count : (int)(ring - row)/;/' 'float: decode runs over the end of the ring' window=3
m local_1d variants/local_1d.c 's/j >= begin - left_of(o)/j > begin - left_of(o)/' 'memory one key short' block_length=2
m sparse_strided $MASK 's/both && !side ? before/0 ? before/' 'float: a key of both patterns counted twice'
m sparse_strided $HEADS 's/f.lddq = t->dq.st \* pass.qstep/f.lddq = t->dq.st/' 'float: gradients of a column written to a row'
m sparse_fixed $FLASH 's/\*sum = \*top > -INFINITY ? 1 : 0;/*sum = 0;/' 'float: a pass forgets the passes before it' 'stride=2 summary_len=1'
m sparse_fixed $MASK 's,s->head / 2 : s->head) %,s->head : s->head) %,' 'float: slots of split count every head' 'stride=2 summary_len=1 summary_slots=2 head_mode=split'
m sparse_fixed $LOOPS 's/int old = m->kind == K_MASK_FIXED.*/int old = 0;/' 'decode looks for summaries in the ring' 'stride=2 summary_len=1'
m local_2d $MASK 's/right = kr <= r ? c0 + m->query_w/right = kr < r ? c0 + m->query_w/' 'float: the own row of the block lost'
m local_2d variants/local_2d.c 's/column < c0;/column <= c0;/' 'left has a column of the block itself' 'width=2 query_h=2 query_w=1 order=block'

m linear $SUMS 's/i + p->Tk - p->Tq + 1/i + p->Tk - p->Tq + 2/' 'kernel sums see one key too many'
m linear $SUMS 's/dot(d_o, ROW(p->v, b, hk, j), p->Dv) - delta/dot(d_o, ROW(p->v, b, hk, j), p->Dv)/' 'gradient without the normaliser'
m linear $SUMS 's/return p->klen && p->klen\[b\] < p->Tk ? p->klen\[b\] : p->Tk/return p->Tk/' 'key lengths ignored'
m linear $SUMS 's/z\[m\] = fade \* z\[m\] + bi\[m\]/z[m] = bi[m]/' 'decode forgets the normaliser'
m linear $FAST 's/p->Tk - u->p->Tq + 1 - j0/p->Tk - u->p->Tq + 2 - j0/' 'float: kernel mask off by one'
m linear $MAPS 's/dr\[j\] += dphi.*/;/' 'DPFP: one factor of the product forgotten'
m linear $MAPS 's/case K_MAP_ELU1: return x > 0 ? 1 : exp(x);/case K_MAP_ELU1: return 1;/' 'elu1 with the slope of the identity'
m performer $SUMS 's/z\[m\] = fade \* z\[m\]/z[m] = z[m]/' 'decode does not rescale for a new maximum'
m performer $SUMS 's/for (int j = 0; j < n; j++) kappa = fmax/for (int j = 0; j < p->Tk; j++) kappa = fmax/' 'absent keys in the stabiliser'
m performer $MAPS 's/du\[r\] = up - down/du[r] = up + down/' 'hyperbolic with the wrong sign'
m performer $MAPS 's/deta -= up + down/deta -= up/' 'half of the norm forgotten'

m fwp $RULES 's/dbeta \* beta \* (1 - beta \/ f->beta_max)/dbeta * beta/' "beta' forgotten"
m fwp $RULES 's/dden += inv/dden -= inv/' 'full normalisation with the wrong sign'
m fwp $RULES 's/dW\[i\] - along \* Wn\[i\]/dW[i]/' 'no gradient through the norm of fwm'
m fwp $RULES 's/dz\[d\] \*= gated ? 1 - beta : 1;/;/' 'gated: z does not decay in backward' 'update_rule=gated feature_map=elu1 attn_norm=output'
m fwp $RULES 's/if (f->z_in)/if (0)/' 'initial z ignored'
m fwp $ROWS 's/k_saxpy(m, -w.w\[j\], b, r)/k_saxpy(m, w.w[j], b, r)/' 'float: rows unrolled with the wrong sign'
m fwp $F 's/((size_t)s->Dv + 1) \* number/(size_t)s->Dv * number/' 'decode state without room for z'
m fwp $F 's/if (s->mode == ATTN_BIDIR && s->Tq != s->Tk)/if (s->klen > 1)/; s/    if (s->klen)/    if (0)/' 'key lengths accepted and ignored'

m performer_generalized $MAPS 's/return (u > 0) - (u < 0);/return 1;/' 'abs with the slope of the identity' kernel_fn=abs
m performer_generalized $MAPS 's/du\[r\] = dphi\[r\] \* function_slope.*/du[r] = dphi[r];/' 'no slope at all'
m performer_generalized kernels/cpu/features.c 's/float s = sigmoid_f32(u\[r\]);/float s = u[r];/' 'float: the slope of the sigmoid at the wrong place' kernel_fn=sigmoid
m conv $C 's/? K - 1 : (K - 1)/? K - 2 : (K - 1)/' 'a causal tap reads the next token'
m conv $C 's/lo = t0 > -s ? t0 : -s, hi/lo = t0 > -s ? t0 : -s + 1, hi/' 'float: the first token of a tap lost'
m conv $C 's/if (dW) dW\[i\] += g/if (dW) dW[i] = g/' 'gradient of the weights overwritten'
m conv $C 's/ring + (size_t)(j % rows)/ring + (size_t)((j + 1) % rows)/' 'decode reads the row beside' dilation=2
m lstm $L 's/dc\[d\] = e \* f;/dc[d] = e;/' 'nothing is forgotten on the way back'
m lstm $L 's/y \* o \* (1 - tc \* tc)/y * o/' 'tanh of the cell without its slope'
m lstm $STEPS 's/if (t == 0) load_state(u, p->h0/if (t == 0) load_state(u, NULL/' 'float: the initial h forgotten in backward'
m lstm $STEPS 's/for (int t0 = 0; t0 < p->T; t0 += CHUNK)/for (int t0 = 0; t0 < p->T; t0 += CHUNK + 1)/' 'float: a token between two chunks lost'

m retention $FADES '' 'retention with its memory'
m gla $SCORES '' 'gla with its scores'
m gated_deltanet $FADES '' 'gated_deltanet with its memory'
m mamba2 $FADES '' 'mamba2 with its memory'
m lsh $HASH '' 'lsh with its pairs'
m lsh $TILES '' 'lsh with its tiles'
m relative $SKEW '' 'relative with its vectors'
m retention $FADES 's/w.l\[t\] = rc_fixed(a);/w.l[t] = rc_fixed(a) * (t + 1);/' 'decay by the place in the call'
m retention $FADES 's/r->position, r->D, -1/r->position, r->D, 1/' 'gradients turned the wrong way'
m gla $FADES 's/w.dl\[d\] \* sigmoid_f64(-gate)/w.dl[d] * sigmoid_f64(gate)/' 'the slope of the gate at the wrong place'
m gla $FADES 's/w.R\[d \* E + e\] \*= exp.*/;/' 'nothing fades on the way back'
m gla $SCORES 's/j + 1 < hi ? l\[(j + 1) \* D + d\]/j + 1 < hi ? l[j * D + d]/' 'float: keys fade by their own decay'
m gated_deltanet $FADES 's/w.R\[d \* E + e\] -= delta ? k\[d\] \* w.dx\[e\] : 0;/;/' 'what is recalled forgotten on the way back'
m gated_deltanet $FADES 's/dfactor \* beta \* (1 - beta \/ r->beta_max)/dfactor * beta/' 'beta without its slope'
m mamba2 $FADES 's/(r->write == K_WRITE_STEPPED ? dfactor : 0)/0/' 'the step as a factor of v without gradient'
m mamba2 $FADES 's/\[a->h\] += w.dl\[0\]/[a->h] = w.dl[0]/' 'gradient of a_log overwritten'
m mamba2 $FADES 's/o\[e\] += a->skip \* v\[e\];/;/' 'd_skip forgotten'
m lsh $HASH 's/j == i ? 1e5/j == i ? 0/' 'a token attends to itself'
m lsh $HASH 's/(dk\[d\] - k\[d\] \* along)/dk[d]/' 'no gradient through the norm of a key'
m lsh $HASH 's/other < t && bucket/other > t \&\& bucket/' 'tokens of a bucket in reverse order'
m lsh $TILES 's/keys->token\[j\] < me/keys->token[j] <= me/' 'float: a token attends to itself'
m relative $SKEW 's/add(a->Dk, ds, E, dq);/;/' 'dq without the vectors of distances'
m relative $SKEW 's/ + (F ? dot(a->Dv, g, F) : 0), ds/, ds/' 'vectors of values forgotten in backward' relative_values=true

m lsh variants/lsh.c '' 'lsh'
m relative variants/relative.c '' 'relative'
m linear variants/linear.c '' 'linear with its map'
m TEMPLATE $T 's/((size_t)s->Tk + 1) : 0/((size_t)s->Tk + 1) * (size_t)s->Tk : 0/' 'saved grows with T^2, its cost with T'
m TEMPLATE $T 's/p->state = heads \* S;/p->state = heads * S * (size_t)s->Tk * (size_t)s->Tk;/' 'a state that grows with T^2'
m TEMPLATE $T 's/p->state = heads \* S;/p->state = 3 * heads * S;/' 'a state said to be three times as large'
m lsh variants/lsh.c 's/p->scratch_bwd = e->scratch(&l, 1);/& p->scratch_bwd += (size_t)s->Tk * s->Tk;/' 'scratch for a T x T matrix, cost T'
m lsh variants/lsh.c 's/e->number + buckets;/e->number * 2 + buckets;/' 'half of the state never touched'
m lsh variants/lsh.c 's/ATTN_MAP_EXT(ref_plan, ref_forward/ATTN_MAP_EXT(ref_plan, cpu_forward/' 'the map computed in another precision'
m relative variants/relative.c 's/->relative_values ? ATTN_EUNSUP : ref_plan/->share_heads < 0 ? ATTN_EUNSUP : ref_plan/' 'a map without the vectors of the values'
m linear variants/linear.c 's/p.normalise && p.denom_eps == 0/p.normalise/' 'rows of the map said to sum to one, and they do not'
wait
for (( i = 1; i <= count; i++ )); do cat "$tmp/$i/tap"; done
