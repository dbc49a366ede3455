#!/bin/bash
# The checker is checked (see mutants.inc): the template, softmax over every mask, and the mixers that stand alone.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/conform/mutants.inc

m TEMPLATE $T '' 'template'
m softmax $S '' 'softmax'
m softmax $HEADS '' 'softmax with its heads'
m sparse_fixed $MASK '' 'sparse_fixed with its mask'
m identity $I '' 'identity'
m conv $TAPS '' 'conv with its taps'
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

m conv $C 's/? K - 1 : (K - 1)/? K - 2 : (K - 1)/' 'a causal tap reads the next token'
m conv $TAPS 's/lo = t0 > -s ? t0 : -s, hi/lo = t0 > -s ? t0 : -s + 1, hi/' 'float: the first token of a tap lost'
m conv $C 's/if (dW) dW\[i\] += g/if (dW) dW[i] = g/' 'gradient of the weights overwritten'
m conv $C 's/ring + (size_t)(j % rows)/ring + (size_t)((j + 1) % rows)/' 'decode reads the row beside' dilation=2
m lstm $L 's/dc\[d\] = e \* f;/dc[d] = e;/' 'nothing is forgotten on the way back'
m lstm $L 's/y \* o \* (1 - tc \* tc)/y * o/' 'tanh of the cell without its slope'
m lstm $STEPS 's/if (t == 0) load_state(u, p->h0/if (t == 0) load_state(u, NULL/' 'float: the initial h forgotten in backward'
m lstm $STEPS 's/for (int t0 = 0; t0 < p->T; t0 += CHUNK)/for (int t0 = 0; t0 < p->T; t0 += CHUNK + 1)/' 'float: a token between two chunks lost'
m lstm variants/lstm.c 's/p->state_second = .*/;/' 'the two parts of a decode state taken for one'

m TEMPLATE $T 's/((size_t)s->Tk + 1) : 0/((size_t)s->Tk + 1) * (size_t)s->Tk : 0/' 'saved grows with T^2, its cost with T'
m TEMPLATE $T 's/p->state = heads \* S;/p->state = heads * S * (size_t)s->Tk * (size_t)s->Tk;/' 'a state that grows with T^2'
m TEMPLATE $T 's/p->state = heads \* S;/p->state = 3 * heads * S;/' 'a state said to be three times as large'
report
