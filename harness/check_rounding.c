/* check_rounding.c - how far may a bfloat16 impl be from the reference?
 *
 * The rule is FlashAttention's: twice the error of a plain computation in that format, and a small floor.  The plain
 * computation is the reference itself, in double, with a rounding to bfloat16 wherever a plain program has one:
 *   - operands of products: every input is moved by a random part of half an ulp of bfloat16, as rounding the
 *     intermediate that it becomes (a feature, a probability, a scaled query) would move that.  Params count when they
 *     are matrices; vectors (decay rates, biases) stay in float in any sound program;
 *   - forward and backward are moved each in their own way, since what backward computes anew is rounded anew: a
 *     difference that cancels exactly in exact arithmetic (d_o.v - d_o.o) does not in bfloat16;
 *   - the output is rounded before backward reads it, and the gradients of inputs are rounded in the end.
 * Buckets of a variant that sorts by hash are no matter of rounding: there q, k and the params stay as they are.
 * Errors are of a whole tensor: the largest one, and the root of the mean square, which sees a small error made
 * everywhere.  Of several draws the worst counts.  The floor is what a number known to half an ulp may be off: half an
 * ulp of the tensor's largest number, and for the mean a third of its square. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "check_case.h"
#include "kernels/philox.h"

enum { DRAWS = 3 };
static const double HALF_ULP = 0x1p-8;  /* of 1: a bfloat16 has 8 bits */
static const double SMALL = 1e-2;       /* numbers below count as this, as in hs_diff_part */

/* ---- the plain computation ------------------------------------------------------------------------------- */
/* Is this input an operand that a plain program rounds? */
static int is_rounded(const hs_rig *r, int slot)
{
    int hashed = (r->c->variant->flags & ATTN_LOOKS_AHEAD) != 0;
    if (slot >= HS_PARAM && slot < HS_STATE) return !hashed && r->plan.param_dims[slot - HS_PARAM].n > 1;
    return !(hashed && slot <= HS_K);
}

/* Half an ulp of x. */
static double half_ulp(double x) { return x == 0 ? 0 : ldexp(HALF_ULP, ilogb(x)); }

/* The inputs of r become those of exact, moved by up to half an ulp. */
static void move_inputs(hs_rig *r, const hs_rig *exact, uint32_t draw)
{
    for (int i = 0; i <= HS_INPUTS; i++) {      /* HS_INPUTS: d_o */
        hs_slot *x = i < HS_INPUTS ? &r->in[i] : &r->d_o;
        const hs_slot *from = i < HS_INPUTS ? &exact->in[i] : &exact->d_o;
        if (i < HS_INPUTS && !is_rounded(r, i)) continue;
        for (int64_t e = 0; e < x->n; e++)
            x->val[e] = from->val[e] + half_ulp(from->val[e]) * (2 * philox_uniform(philox_u32(77, (uint32_t)i, draw, (uint64_t)e)) - 1);
    }
}

static void round_slot(hs_slot *s)
{
    for (int64_t e = 0; e < s->n; e++) s->val[e] = hs_rounded(ATTN_BF16, s->val[e]);
}

/* One run of it; not 0 when the reference itself fails. */
static int run_plainly(hs_rig *r, const hs_rig *exact, uint32_t draw)
{
    move_inputs(r, exact, 2 * draw);
    if (hs_rig_forward(r)) return -1;
    round_slot(&r->out[HS_O]);
    hs_slot_store(&r->out[HS_O]);
    move_inputs(r, exact, 2 * draw + 1);
    hs_rig_load(r);
    if (hs_rig_backward(r)) return -1;
    for (int i = 0; i < HS_PARAM && r->impl->backward; i++) if (r->want[i]) round_slot(&r->grad[i]);
    return 0;
}

/* ---- errors of a tensor ------------------------------------------------------------------------------------ */
static hs_spread spread_of(const hs_slot *got, const hs_slot *want)
{
    hs_spread s = { .largest = SMALL };
    double error = 0, size = 0;
    for (int64_t e = 0; e < want->n; e++) {
        double x = fabs(got->val[e] - want->val[e]), y = fabs(want->val[e]);
        if (!(x <= s.worst)) s.worst = x;
        s.largest = fmax(s.largest, y);
        error += x * x;
        size += fmax(y, SMALL) * fmax(y, SMALL);
    }
    s.mean = sqrt(error / (double)want->n);
    s.size = sqrt(size / (double)want->n);
    return s;
}

static void add_spread(hs_spread *sum, const hs_slot *got, const hs_slot *want)
{
    if (!want->n) return;
    hs_spread s = spread_of(got, want);
    *sum = (hs_spread){ fmax(sum->worst, s.worst), fmax(sum->mean, s.mean), s.largest, s.size };
}

void hs_rounding_measure(hs_case *c, const hs_rig *base)
{
    memset(&c->rounding, 0, sizeof c->rounding);
    if (c->dtype != ATTN_BF16) return;
    hs_case_begin(c, "plain bfloat16 computation");
    hs_rig *exact = hs_rig_new(c, c->ref, ATTN_F64, base->opts, base->s, HS_BTHD, NULL, 0);
    if (!exact) return;                 /* hs_check_reference says so */
    hs_rig_from(exact, base, 0, 0, 0);
    hs_rig *plain = hs_rig_like(exact);
    int bad = hs_rig_run(exact);
    for (uint32_t draw = 0; draw < DRAWS && !bad; draw++) {
        if (run_plainly(plain, exact, draw)) continue;
        for (int i = 0; i < HS_OUTPUTS; i++) add_spread(&c->rounding.out[i], &plain->out[i], &exact->out[i]);
        for (int i = 0; i < HS_INPUTS && exact->impl->backward; i++)
            if (exact->want[i]) add_spread(&c->rounding.grad[i], &plain->grad[i], &exact->grad[i]);
    }
    hs_rig_free(plain);
    hs_rig_free(exact);
}

/* ---- bounds -------------------------------------------------------------------------------------------------- */
static double bound_of_worst(const hs_spread *s) { return 2 * s->worst + HALF_ULP * s->largest; }
static double bound_of_mean(const hs_spread *s) { return 2 * s->mean + HALF_ULP / sqrt(3) * s->size; }

/* Two results that are each within the bound are within twice the bound of each other. */
static void allow(hs_slot *slot, const hs_spread *s)
{
    double distance = s->size > 0 ? 2 * bound_of_mean(s) / s->size : 0;
    slot->slack = distance * distance;
    slot->square = s->size * s->size;
}

void hs_rounding_allow(const hs_case *c, hs_rig *r)
{
    if (r->s.dtype != ATTN_BF16) return;
    for (int i = 0; i < HS_OUTPUTS; i++) allow(&r->out[i], &c->rounding.out[i]);
    for (int i = 0; i < HS_INPUTS; i++) allow(&r->grad[i], &c->rounding.grad[i]);
}

/* One tensor against the reference; the error told is the largest, relative to the tensor's largest number. */
static void judge(hs_diff *d, const hs_slot *got, const hs_slot *want, const hs_spread *plain)
{
    if (!want->n || !got->n) return;
    hs_spread s = spread_of(got, want);
    double error = s.worst / s.largest;
    if (!(error <= d->error)) d->error = error;
    int worst = !(s.worst <= bound_of_worst(plain)), mean = !(s.mean <= bound_of_mean(plain));
    if (!d->ok || (!worst && !mean)) return;
    d->ok = 0;
    snprintf(d->note, sizeof d->note, "%s: the %s error is %.3g of %.3g, a plain bfloat16 computation makes %.3g", got->name,
             worst ? "largest" : "mean", worst ? s.worst : s.mean, worst ? s.largest : s.size, worst ? plain->worst : plain->mean);
}

void hs_rounding_diff(const hs_case *c, hs_diff *d, const hs_rig *got, const hs_rig *ref)
{
    for (int i = 0; i < HS_OUTPUTS; i++)
        judge(d, &got->out[i], &ref->out[i], &c->rounding.out[i]);
    for (int i = 0; i < HS_INPUTS && got->impl->backward && ref->impl->backward; i++)
        if (got->want[i] && ref->want[i]) judge(d, &got->grad[i], &ref->grad[i], &c->rounding.grad[i]);
}
