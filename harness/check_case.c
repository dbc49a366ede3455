/* check_case.c - naming a case, comparing two rigs, and saying the verdict. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "check_case.h"

const hs_diff hs_diff_none = { .ok = 1 };

const char *hs_mode_name(int32_t mode)
{
    return mode == ATTN_CAUSAL ? "causal" : mode == ATTN_BIDIR ? "bidirectional" : mode == ATTN_CROSS ? "cross" : "";
}

const char *hs_dtype_name(int32_t dtype)
{
    return dtype == ATTN_F64 ? "f64" : dtype == ATTN_F32 ? "f32" : dtype == ATTN_BF16 ? "bf16" : "f16";
}

/* Heads and widths of the case's base, sizes as asked; training on, no key lengths.  Where values have heads of their
 * own, the base's query heads are those. */
attn_shape hs_case_shape(const hs_case *c, int32_t B, int32_t Tq, int32_t Tk)
{
    attn_shape s = c->base;
    s.B = B, s.Tq = Tq, s.Tk = Tk, s.mode = c->mode, s.dtype = c->dtype, s.training = 1, s.klen = 0, s.Hv = s.Hk;
    if (c->variant->flags & ATTN_GROUPED_QK) s.Hv = s.Hq, s.Hq = s.Hk;
    return s;
}

/* Normalised mean square errors: float loses digits, double must only be rounded. */
double hs_tolerance(int32_t dtype) { return dtype == ATTN_F64 ? 1e-20 : 1e-7; }

static double value(hs_part p, int64_t b, int64_t h, int64_t t, int64_t w)
{
    return p.s->val[(((b + p.b0) * p.s->H + h) * p.s->T + t + p.t0) * p.s->W + w];
}

/* Compares nb rows and nt tokens of two tensors.  tol > 0 bounds the normalised mean square error, where numbers
 * below 1e-2 count as 1e-2: a gradient that cancels to nothing has no digits to compare.  In bfloat16 the bound is what
 * rounding may make of the tensor, and a part of small numbers is held against the whole. */
void hs_diff_part(hs_diff *d, hs_part got, hs_part want, int64_t nb, int64_t nt, double tol)
{
    double num = 0, den = 0, worst = -1;
    int64_t n = nb * got.s->H * nt * got.s->W, at[4] = { 0 };
    for (int64_t b = 0; b < nb; b++) for (int64_t h = 0; h < got.s->H; h++) for (int64_t t = 0; t < nt; t++)
        for (int64_t w = 0; w < got.s->W; w++) {
            double x = value(got, b, h, t, w), y = value(want, b, h, t, w), e = fabs(x - y);
            if (x == y || (tol == 0 && isnan(x) && isnan(y))) e = 0;
            num += e * e;
            den += fmax(y * y, 1e-4);
            if (!isnan(worst) && !(e <= worst)) worst = e, at[0] = b, at[1] = h, at[2] = t, at[3] = w;
        }
    double error = tol > 0 ? num / fmax(den, (double)n * want.s->square) : worst;
    if (n == 0) return;
    if (tol > 0) tol = fmax(tol, want.s->slack);
    if (!(error <= d->error)) d->error = error;
    if (error <= tol || !d->ok) return;
    d->ok = 0;
    snprintf(d->note, sizeof d->note, "%s[%ld,%ld,%ld,%ld] is %.9g instead of %.9g", got.s->name, (long)(at[0] + got.b0),
             (long)at[1], (long)(at[2] + got.t0), (long)at[3], value(got, at[0], at[1], at[2], at[3]),
             value(want, at[0], at[1], at[2], at[3]));
}

void hs_diff_slot(hs_diff *d, const hs_slot *got, const hs_slot *want, double tol)
{
    if (got->n && want->n) hs_diff_part(d, (hs_part){ got, 0, 0 }, (hs_part){ want, 0, 0 }, got->B, got->T, tol);
}

void hs_diff_rigs(hs_diff *d, const hs_rig *got, const hs_rig *want, double tol)
{
    for (int i = 0; i < HS_OUTPUTS; i++)
        if (i == HS_O || (got->want_states && want->want_states)) hs_diff_slot(d, &got->out[i], &want->out[i], tol);
    if (!got->impl->backward || !want->impl->backward || !got->s.training || !want->s.training) return;
    for (int i = 0; i < HS_INPUTS; i++)
        if (got->want[i] && want->want[i]) hs_diff_slot(d, &got->grad[i], &want->grad[i], tol);
}

/* The name of an impl; with its dtype when it has more than one. */
static void impl_name(const hs_case *c, char *out, size_t n)
{
    int several = c->dtype && c->impl->dtypes & (c->impl->dtypes - 1);
    snprintf(out, n, "%s%s%s", c->impl->name, several ? "." : "", several ? hs_dtype_name(c->dtype) : "");
}

void hs_case_begin(const hs_case *c, const char *check)
{
    hs_check_where *w = c->where;
    snprintf(w->variant, sizeof w->variant, "%s", c->variant->name);
    impl_name(c, w->impl, sizeof w->impl);
    snprintf(w->mode, sizeof w->mode, "%s", hs_mode_name(c->mode));
    snprintf(w->options, sizeof w->options, "%s", c->options);
    snprintf(w->check, sizeof w->check, "%s%s%s", check, *c->size ? ", " : "", c->size);
}

void hs_case_send(const hs_case *c, const char *check, hs_check_result r)
{
    char name[128], impl[64];
    snprintf(name, sizeof name, "%s%s%s", check, *c->size ? ", " : "", c->size);
    impl_name(c, impl, sizeof impl);
    r.variant = (char *)c->variant->name, r.impl = impl, r.dtype = (char *)(c->dtype ? hs_dtype_name(c->dtype) : "");
    r.mode = (char *)hs_mode_name(c->mode), r.options = c->options, r.check = name;
    c->sink(c->ctx, &r);
}

void hs_case_say(const hs_case *c, const char *check, hs_check_status status, double error, const char *note)
{
    hs_case_send(c, check, (hs_check_result){ .status = status, .error = error, .note = (char *)note });
}

void hs_case_judge(const hs_case *c, const char *check, const hs_rig *rig, const hs_diff *d)
{
    if (rig && rig->fault[0]) hs_case_say(c, check, HS_CHECK_FAIL, d->error, rig->fault);
    else hs_case_say(c, check, d->ok ? HS_CHECK_OK : HS_CHECK_FAIL, d->error, d->note);
}
