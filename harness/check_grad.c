/* check_grad.c - is the gradient the gradient, and are its pointers treated as attn.h says? */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "check_case.h"
#include "kernels/philox.h"

/* ---- the contract of the pointers -------------------------------------------------------------------- */
/* dparam starts from 1 instead of 0 and must end 1 higher; the rest starts from NaN in every run already. */
static void check_accumulates(const hs_case *c, const hs_rig *base)
{
    int learned = 0;
    for (int i = HS_PARAM; i < HS_STATE; i++) learned += base->want[i];
    if (!learned) return;
    hs_case_begin(c, "dparam accumulates");
    hs_diff d = hs_diff_none;
    hs_rig *r = hs_rig_like(base);
    r->dparam0 = 1;
    if (!hs_rig_run(r))
        for (int i = HS_PARAM; i < HS_STATE; i++) {
            for (int64_t e = 0; e < r->grad[i].n; e++) r->grad[i].val[e] -= 1;
            if (r->want[i]) hs_diff_slot(&d, &r->grad[i], &base->grad[i], hs_tolerance(r->s.dtype) * 10);
        }
    hs_case_judge(c, "dparam accumulates", r, &d);
    hs_rig_free(r);
}

/* Each gradient in turn is not wanted, then each alone is: the others keep their bits. */
static void check_unwanted(const hs_case *c, const hs_rig *base)
{
    const char *check = "a gradient not wanted is left alone";
    hs_diff d = hs_diff_none;
    hs_rig *r = hs_rig_like(base);
    hs_case_begin(c, check);
    for (int i = 0; i < HS_INPUTS && d.ok && !r->fault[0]; i++) {
        if (!base->want[i]) continue;
        for (int alone = 0; alone < 2 && d.ok && !r->fault[0]; alone++) {
            for (int j = 0; j < HS_INPUTS; j++) r->want[j] = base->want[j] && (j == i) == alone;
            if (!hs_rig_run(r)) hs_diff_rigs(&d, r, base, 0);
            if (!d.ok) snprintf(d.note + strlen(d.note), sizeof d.note - strlen(d.note), alone ? ", %s alone wanted" : ", %s NULL", r->grad[i].name);
        }
    }
    hs_case_judge(c, check, r, &d);
    hs_rig_free(r);
}

void hs_check_gradients(const hs_case *c, const hs_rig *base)
{
    if (!base->impl->backward) return;
    check_accumulates(c, base);
    if (!c->quick || c->defaults) check_unwanted(c, base);
}

/* ---- central differences ------------------------------------------------------------------------------- */
static double loss(hs_rig *r, double *x, double x0, double step, int *bad)
{
    double sum = 0;
    *x = x0 + step;
    *bad |= hs_rig_forward(r);
    for (int64_t i = 0; i < r->d_o.n; i++) sum += r->out[HS_O].val[i] * r->d_o.val[i];
    *x = x0;
    return sum;
}

/* d loss / d x by a step and its half, with smaller steps where the two disagree: steep places need them.
 * 0 when they disagree still, which means that a kink lies between. */
static int difference(hs_rig *r, double *x, double *out, int *bad)
{
    const double x0 = *x;
    for (double h = 1e-4; h > 1e-7; h /= 10) {
        double coarse = (loss(r, x, x0, h, bad) - loss(r, x, x0, -h, bad)) / (2 * h);
        double fine = (loss(r, x, x0, h / 2, bad) - loss(r, x, x0, -h / 2, bad)) / h;
        *out = (4 * fine - coarse) / 3;
        if (fabs(fine - coarse) <= 1e-5 * (1 + fabs(fine))) return 1;
    }
    return 0;
}

/* The gradient of one input at sampled coordinates: their relative distance, and how many were dropped. */
static void differences(hs_diff *d, hs_rig *r, const hs_rig *base, int slot, int samples)
{
    hs_slot *s = &r->in[slot];
    double num = 0, den = 0, worst = 0, tries = s->n < samples ? s->n : samples;
    int dropped = 0, bad = 0;
    for (int k = 0; k < tries && !bad; k++) {
        int64_t i = s->n <= samples ? k : (int64_t)philox_below(philox_u32(99, (uint32_t)slot, 0, (uint64_t)k), (uint32_t)s->n);
        double fd, g = base->grad[slot].val[i];
        if (!difference(r, &s->val[i], &fd, &bad)) { dropped++; continue; }
        num += (fd - g) * (fd - g);
        den += fd * fd;
        if (d->ok && fabs(fd - g) > worst) {
            worst = fabs(fd - g);
            snprintf(d->note, sizeof d->note, "%s[%ld,%ld,%ld,%ld] is %.9g, differences say %.9g", base->grad[slot].name,
                     (long)(i / (s->H * s->T * s->W)), (long)(i / (s->T * s->W) % s->H), (long)(i / s->W % s->T), (long)(i % s->W), g, fd);
        }
    }
    double error = sqrt(num / fmax(den, 1e-4));
    if (!(error <= d->error)) d->error = error;
    if (dropped > 1 + tries / 5 && d->ok)
        d->ok = 0, snprintf(d->note, sizeof d->note, "%d of %g coordinates of %s have no derivative that two step sizes agree on", dropped, tries, s->name);
    else if (!(error <= 1e-6)) d->ok = 0;
    if (d->ok) d->note[0] = 0;
}

/* The reference in double against central differences, every input by itself. */
void hs_check_differences(const hs_case *c, const hs_rig *base)
{
    if (c->impl != c->ref || !base->impl->backward) return;
    hs_rig *exact = hs_rig_new(c, c->impl, base->s.dtype, c->exact, base->s, HS_BTHD, NULL, 0);
    hs_rig *r = hs_rig_new(c, c->impl, base->s.dtype, c->exact, base->s, HS_BTHD, NULL, 0);
    for (int i = 0; i < HS_INPUTS; i++) {
        char check[64];
        if (!base->want[i]) continue;
        snprintf(check, sizeof check, "%s by differences", base->grad[i].name);
        hs_case_begin(c, check);
        hs_diff d = hs_diff_none;
        if (!hs_rig_run(exact)) differences(&d, r, exact, i, c->quick ? c->defaults ? 8 : 4 : c->defaults ? 64 : 16);
        hs_case_judge(c, check, exact->fault[0] ? exact : r, &d);
    }
    hs_rig_free(exact);
    hs_rig_free(r);
}

/* ---- against the reference --------------------------------------------------------------------------------- */
/* How far the reference itself moves when its inputs move by the rounding of a float: what a division by
 * nearly nothing does to a result is no fault of an impl. */
static double conditioning(const hs_rig *ref)
{
    hs_diff d = hs_diff_none;
    hs_rig *r = hs_rig_like(ref);
    for (int i = 0; i < HS_INPUTS; i++)
        for (int64_t e = 0; e < r->in[i].n; e++) r->in[i].val[e] *= 1 + 0x1p-24 * ((e * 7919 + i) % 5 - 2);
    if (!hs_rig_run(r)) hs_diff_rigs(&d, r, ref, 1);
    hs_rig_free(r);
    return d.error;
}

/* The largest number of a run's results. */
static double largest(const hs_rig *r)
{
    double m = 0;
    for (int i = 0; i < HS_INPUTS; i++) for (int64_t e = 0; r->want[i] && r->impl->backward && e < r->grad[i].n; e++) m = fmax(m, fabs(r->grad[i].val[e]));
    for (int i = 0; i < HS_OUTPUTS; i++) for (int64_t e = 0; e < r->out[i].n; e++) m = fmax(m, fabs(r->out[i].val[e]));
    return m;
}

void hs_check_reference(const hs_case *c, const hs_rig *base)
{
    const char *check = "equals the reference";
    double tol = hs_tolerance(base->s.dtype);
    hs_diff d = hs_diff_none;
    if (c->impl == c->ref) return;
    hs_case_begin(c, check);
    hs_rig *r = hs_rig_new(c, c->ref, ATTN_F64, base->opts, base->s, HS_BTHD, NULL, 0);
    if (!r) { hs_case_say(c, check, HS_CHECK_FAIL, 0, "the reference refuses what this impl accepts"); return; }
    hs_rig_from(r, base, 0, 0, 0);
    if (!hs_rig_run(r)) {
        if (base->s.dtype == ATTN_BF16) hs_rounding_diff(c, &d, base, r);
        else hs_diff_rigs(&d, base, r, tol);
    }
    if (!d.ok && base->s.dtype == ATTN_F32) {
        d = hs_diff_none;
        hs_diff_rigs(&d, base, r, fmax(tol, 100 * conditioning(r)));
    }
    if (!d.ok && base->s.dtype != ATTN_F64 && largest(r) > 1e6)
        hs_case_say(c, check, HS_CHECK_SKIP, d.error, "the recurrence grows without bound: float cannot follow it");
    else hs_case_judge(c, check, r, &d);
    hs_rig_free(r);
}

/* ---- large inputs -------------------------------------------------------------------------------------------- */
static hs_rig *enlarged(const hs_case *c, const attn_impl *impl, int32_t dtype, const hs_rig *base)
{
    hs_rig *r = hs_rig_new(c, impl, dtype, base->opts, base->s, HS_BTHD, NULL, 0);
    if (!r) return NULL;
    hs_rig_from(r, base, 0, 0, 0);
    for (int i = 0; i < HS_PARAM; i++) for (int64_t e = 0; e < r->in[i].n; e++) r->in[i].val[e] *= 30;
    hs_rig_run(r);
    return r;
}

/* Inputs 30 times as large give no NaN and no Inf, unless the definition itself leaves the range of float. */
void hs_check_large(const hs_case *c, const hs_rig *base)
{
    const char *check = "inputs times 30 stay finite";
    hs_case_begin(c, check);
    hs_rig *ref = enlarged(c, c->ref, ATTN_F64, base), *r = c->impl == c->ref ? NULL : enlarged(c, c->impl, base->s.dtype, base);
    const hs_rig *judged = r ? r : ref;
    if (!judged) hs_case_say(c, check, HS_CHECK_FAIL, 0, "plan() refuses what it accepted before");
    else if (!judged->fault[0]) hs_case_say(c, check, HS_CHECK_OK, 0, "");
    else if (c->unstabilised) hs_case_say(c, check, HS_CHECK_SKIP, 0, "overflows, as defined without a stabiliser");
    else if (r && ref && largest(ref) > 1e15) hs_case_say(c, check, HS_CHECK_SKIP, 0, "the result leaves the range of float by definition");
    else hs_case_say(c, check, HS_CHECK_FAIL, 0, judged->fault);
    hs_rig_free(ref);
    hs_rig_free(r);
}
