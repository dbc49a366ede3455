/* check_decode.c - one token after another, and a sequence in pieces, are the sequence whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"

/* A rig for n tokens of decoding with room for T tokens. */
static hs_rig *step_rig(const hs_case *c, const hs_rig *whole, int32_t n, char *why, size_t nwhy)
{
    attn_shape s = whole->s;
    s.training = 0, s.klen = 0, s.Tq = n, s.decode = 1;
    hs_rig *r = hs_rig_new(c, whole->impl, s.dtype, whole->opts, s, HS_BTHD, why, nwhy);
    if (!r) return NULL;
    r->give_states = r->want_states = 0;
    return r;
}

/* Decode takes Tq rows of k, v and the gates as well, while the plan's Tk is the capacity: a rig of n rows that
 * carries the plan, shape and params of the capacity. */
static hs_rig *decode_rig(const hs_case *c, const hs_rig *whole, int32_t n, char *why, size_t nwhy)
{
    hs_rig *planned = step_rig(c, whole, n, why, nwhy);
    if (!planned) return NULL;
    attn_shape s = planned->s;
    s.Tk = n;
    hs_rig *r = hs_rig_new(c, whole->impl, s.dtype, whole->opts, s, HS_BTHD, why, nwhy);
    if (r) {
        hs_buf_release(&r->scratch_dec);
        hs_buf_init(&r->scratch_dec, planned->plan.scratch_dec);
        r->s.Tk = planned->s.Tk, r->plan = planned->plan;
        for (int i = HS_PARAM; i < HS_STATE; i++) {
            hs_slot of_n = r->in[i];
            r->in[i] = planned->in[i];
            planned->in[i] = of_n;
        }
        r->give_states = r->want_states = 0;
    }
    hs_rig_free(planned);
    return r;
}

/* One step of n tokens from position pos on, compared with the rows of the whole; sequence b of the step is b + turn of the
 * whole, turn 0 or 1.  What looks ahead sees the same sequence only in the last step. */
static int step(const hs_case *c, hs_diff *d, const hs_rig *whole, hs_buf *state, int64_t pos, int32_t n, int32_t turn)
{
    hs_rig *r = decode_rig(c, whole, n, d->note, sizeof d->note);
    if (!r) { d->ok = 0; return -1; }
    hs_rig_from(r, whole, turn, pos, pos);
    int bad = r->plan.state != state->bytes;
    if (bad) snprintf(d->note, sizeof d->note, "the state of %d tokens at a time has %zu bytes, one at a time %zu", n, r->plan.state, state->bytes);
    else if ((bad = hs_rig_decode(r, state, pos))) memcpy(d->note, r->fault, sizeof d->note);
    else if (!(c->variant->flags & ATTN_LOOKS_AHEAD) || pos + n == whole->s.Tk) {
        int32_t rest = r->s.B - turn;
        hs_diff_part(d, (hs_part){ &r->out[HS_O], 0, 0 }, (hs_part){ &whole->out[HS_O], turn, pos }, rest, n, hs_tolerance(r->s.dtype));
        if (turn) hs_diff_part(d, (hs_part){ &r->out[HS_O], rest, 0 }, (hs_part){ &whole->out[HS_O], 0, pos }, turn, n, hs_tolerance(r->s.dtype));
    }
    if (bad) d->ok = 0;
    else if (!d->ok) snprintf(d->note + strlen(d->note), sizeof d->note - strlen(d->note), ", decoding from position %ld", (long)pos);
    hs_rig_free(r);
    return d->ok ? 0 : -1;
}

static void zero(hs_buf *state) { if (state->bytes) memset(hs_buf_ptr(state), 0, state->bytes); }

/* The whole sequence, `first` tokens at once and then `chunk` at a time. */
static void sequence(const hs_case *c, const char *check, const hs_rig *whole, hs_buf *state, int32_t first, int32_t chunk)
{
    hs_diff d = hs_diff_none;
    int32_t T = whole->s.Tk, n = first;
    hs_case_begin(c, check);
    zero(state);
    for (int32_t pos = 0; pos < T; pos += n, n = chunk) {
        if (n > T - pos) n = T - pos;
        if (step(c, &d, whole, state, pos, n, 0)) break;
    }
    hs_case_judge(c, check, NULL, &d);
}

/* Half way the state is copied; the original goes on with other tokens, the copy must not notice. */
static void fork_state(const hs_case *c, const hs_rig *whole, hs_buf *state)
{
    const char *check = "a copied state goes on alone";
    int32_t T = whole->s.Tk, half = T / 2;
    hs_diff d = hs_diff_none, ignored = hs_diff_none;
    hs_buf copy;
    hs_case_begin(c, check);
    hs_buf_init(&copy, state->bytes);
    zero(state);
    for (int32_t pos = 0; pos < half && d.ok; pos++) step(c, &d, whole, state, pos, 1, 0);
    if (state->bytes) memcpy(hs_buf_ptr(&copy), hs_buf_ptr(state), state->bytes);
    hs_rig *other = hs_rig_like(whole);
    for (int i = 0; i < HS_PARAM; i++) hs_rig_redraw(other, i, 2, 0, 0);
    for (int32_t pos = half; pos < T && d.ok; pos++) {
        ignored = hs_diff_none;
        step(c, &ignored, other, state, pos, 1, 0);
        step(c, &d, whole, &copy, pos, 1, 0);
    }
    hs_case_judge(c, check, NULL, &d);
    hs_rig_free(other);
    hs_buf_release(&copy);
}

/* A part of a state, in B shares: the first goes behind the last. */
static int turn_part(unsigned char *part, size_t bytes, int32_t B)
{
    size_t share = bytes / (size_t)B;
    unsigned char *first = malloc(share + 1);
    if (!first || share * (size_t)B != bytes) { free(first); return -1; }
    memcpy(first, part, share);
    memmove(part, part + share, bytes - share);
    memcpy(part + bytes - share, first, share);
    free(first);
    return 0;
}

/* Half way the sequences of the batch change places, and their shares of the state with them. */
static void turn_state(const hs_case *c, const hs_rig *whole, const attn_plan *plan, hs_buf *state)
{
    const char *check = "sequences change places";
    int32_t T = whole->s.Tk, half = T / 2, B = whole->s.B;
    hs_diff d = hs_diff_none;
    size_t second = plan->state_second ? plan->state_second : plan->state;
    unsigned char *p = hs_buf_ptr(state);
    if (B < 2 || plan->state < (size_t)B) return;       /* a state of a byte or so says that there is decoding, and no more */
    hs_case_begin(c, check);
    zero(state);
    for (int32_t pos = 0; pos < half && d.ok; pos++) step(c, &d, whole, state, pos, 1, 0);
    if (second > plan->state || turn_part(p, second, B) || turn_part(p + second, plan->state - second, B)) {
        d.ok = 0;
        snprintf(d.note, sizeof d.note, "%zu bytes of state, parted at %zu, are no shares of %d sequences", plan->state, second, B);
    }
    for (int32_t pos = half; pos < T && d.ok; pos++) step(c, &d, whole, state, pos, 1, 1);
    hs_case_judge(c, check, NULL, &d);
}

void hs_check_decode(const hs_case *c, const hs_rig *base)
{
    char why[200] = "";
    attn_shape s = base->s;
    if (!base->impl->decode || s.mode != ATTN_CAUSAL || s.Tq != s.Tk) return;
    hs_case_begin(c, "decode");
    hs_rig *whole = hs_rig_new(c, base->impl, s.dtype, c->exact, s, HS_BTHD, NULL, 0), *one = step_rig(c, whole, 1, why, sizeof why);
    whole->give_states = whole->want_states = 0;
    if (!one || hs_rig_forward(whole)) {
        hs_case_say(c, "decode", one ? HS_CHECK_FAIL : HS_CHECK_SKIP, 0, one ? whole->fault : why);
    } else {
        hs_buf state;
        hs_buf_init(&state, one->plan.state);
        sequence(c, "decode one by one", whole, &state, 1, 1);
        if (s.Tk > 3) hs_check_state_bytes(c, &state);  /* the features of a token or two may all be zero */
        sequence(c, "decode three by three", whole, &state, 3, 3);
        sequence(c, "decode after a prefill", whole, &state, s.Tk / 2 + 1, 1);
        fork_state(c, whole, &state);
        turn_state(c, whole, &one->plan, &state);
        hs_buf_release(&state);
    }
    hs_rig_free(one);
    hs_rig_free(whole);
}

/* ---- states ---------------------------------------------------------------------------------------------- */
/* The whole sequence from a random initial state against two pieces with the state handed over. */
static void pieces(const hs_case *c, hs_diff *d, const hs_rig *whole, int32_t cut)
{
    attn_shape s1 = whole->s, s2 = s1;
    s1.Tq = s1.Tk = cut;
    s2.Tq = s2.Tk = whole->s.Tk - cut;
    hs_rig *a = hs_rig_new(c, whole->impl, s1.dtype, whole->opts, s1, HS_BTHD, NULL, 0);
    hs_rig *b = hs_rig_new(c, whole->impl, s2.dtype, whole->opts, s2, HS_BTHD, NULL, 0);
    double tol = hs_tolerance(s1.dtype);
    if (!a || !b) { d->ok = 0; snprintf(d->note, sizeof d->note, "plan() accepts %d tokens but not %d and %d", whole->s.Tk, s1.Tk, s2.Tk); goto out; }
    hs_rig_from(a, whole, 0, 0, 0);
    hs_rig_from(b, whole, 0, cut, cut);
    b->offset = cut;
    int bad = hs_rig_forward(a);
    for (int i = 0; i < ATTN_MAX && !bad; i++)
        if (b->in[HS_STATE + i].n) memcpy(b->in[HS_STATE + i].val, a->out[HS_FINAL + i].val, (size_t)b->in[HS_STATE + i].n * sizeof(double));
    if (bad || hs_rig_forward(b)) { d->ok = 0; memcpy(d->note, bad ? a->fault : b->fault, sizeof d->note); goto out; }
    hs_diff_part(d, (hs_part){ &a->out[HS_O], 0, 0 }, (hs_part){ &whole->out[HS_O], 0, 0 }, s1.B, cut, tol);
    hs_diff_part(d, (hs_part){ &b->out[HS_O], 0, 0 }, (hs_part){ &whole->out[HS_O], 0, cut }, s2.B, s2.Tq, tol);
    for (int i = HS_FINAL; i < HS_OUTPUTS; i++) hs_diff_slot(d, &b->out[i], &whole->out[i], tol);
out:
    hs_rig_free(a);
    hs_rig_free(b);
}

void hs_check_states(const hs_case *c, const hs_rig *base)
{
    int states = 0;
    for (int i = HS_STATE; i < HS_INPUTS; i++) states += base->in[i].n > 0;
    if (!states) return;
    hs_case_begin(c, "no state given is a state of zeros");
    hs_diff d = hs_diff_none;
    hs_rig *none = hs_rig_like(base), *zeros = hs_rig_like(base);
    none->give_states = 0;
    for (int i = HS_STATE; i < HS_INPUTS; i++) if (zeros->in[i].n) memset(zeros->in[i].val, 0, (size_t)zeros->in[i].n * sizeof(double));
    for (int i = HS_STATE; i < HS_INPUTS; i++) none->want[i] = zeros->want[i] = 0;
    if (!hs_rig_run(none) && !hs_rig_run(zeros)) hs_diff_rigs(&d, none, zeros, 0);
    hs_case_judge(c, "no state given is a state of zeros", none->fault[0] ? none : zeros, &d);
    hs_rig_free(none);
    hs_rig_free(zeros);
    if (base->s.mode != ATTN_CAUSAL || base->s.Tk < 2 || base->s.Tq != base->s.Tk) return;
    hs_case_begin(c, "two pieces are the whole");
    d = hs_diff_none;
    pieces(c, &d, base, 1);
    if (base->s.Tk > 2) pieces(c, &d, base, base->s.Tk / 2 + 1);
    hs_case_judge(c, "two pieces are the whole", NULL, &d);
}

/* Causal with Tq < Tk: the last rows of the whole call. */
void hs_check_last_queries(const hs_case *c, const hs_rig *base)
{
    const char *check = "causal Tq < Tk is the last rows";
    char why[200] = "";
    attn_shape s = base->s;
    if (s.mode != ATTN_CAUSAL || s.Tk < 3 || s.Tq != s.Tk) return;
    s.Tq = s.Tk / 2;
    hs_case_begin(c, check);
    hs_diff d = hs_diff_none;
    hs_rig *r = hs_rig_new(c, base->impl, s.dtype, base->opts, s, HS_BTHD, why, sizeof why);
    if (!r) {                           /* without training it may be defined all the same */
        s.training = 0;
        r = hs_rig_new(c, base->impl, s.dtype, base->opts, s, HS_BTHD, why, sizeof why);
    }
    if (!r) { hs_case_say(c, check, why[0] ? HS_CHECK_SKIP : HS_CHECK_FAIL, 0, why[0] ? why : "refused without a reason"); return; }
    hs_rig_from(r, base, 0, s.Tk - s.Tq, 0);
    if (!hs_rig_run(r))
        hs_diff_part(&d, (hs_part){ &r->out[HS_O], 0, 0 }, (hs_part){ &base->out[HS_O], 0, s.Tk - s.Tq }, s.B, s.Tq, hs_tolerance(s.dtype));
    hs_case_judge(c, check, r, &d);
    hs_rig_free(r);
}
