#!/bin/bash
# The checker is checked (see mutants.inc): sums of features, fast weights, recurrences, hashing, distances.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/conform/mutants.inc

m linear $SUMS '' 'linear with its sums'
m performer $MAPS '' 'performer with its maps'
m fwp $RULES '' 'fwp with its rules'
m performer_generalized kernels/cpu/features.c '' 'performer_generalized with its maps'

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
m lsh variants/lsh.c 's/p->scratch_bwd = e->scratch(&l, 1);/& p->scratch_bwd += (size_t)s->Tk * s->Tk;/' 'scratch for a T x T matrix, cost T'
m lsh variants/lsh.c 's/p->state = tokens \* ((size_t)(s->Dk + s->Dv) \* e->number/& * 2/' 'half of the state never touched'
m lsh variants/lsh.c 's/ATTN_MAP_EXT(ref_plan, ref_forward/ATTN_MAP_EXT(ref_plan, cpu_forward/' 'the map computed in another precision'
m relative variants/relative.c 's/->relative_values ? ATTN_EUNSUP : ref_plan/->share_heads < 0 ? ATTN_EUNSUP : ref_plan/' 'a map without the vectors of the values'
m linear variants/linear.c 's/p.normalise && p.denom_eps == 0/p.normalise/' 'rows of the map said to sum to one, and they do not'
report
