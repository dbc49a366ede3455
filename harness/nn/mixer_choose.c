/* mixer_choose.c - choosing an implementation, asking it to plan, and doubting the answer.
 *
 * Order of the automatic choice: implementations of the caller's dtype by falling rank; then, for a float
 * caller, those of double by falling rank (the host converts; nothing is converted to or from bf16).  A refusal by plan() leads to the next, so that
 * the reference, which has the lowest rank, has the last word and gives the reason. */
#include "mixer_choose.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One sentence for the caller; the code is returned so that a check is one line. */
__attribute__((format(printf, 4, 5)))
static int refuse(int code, char *why, size_t nwhy, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (why && nwhy)
        vsnprintf(why, nwhy, format, args);
    va_end(args);
    return code;
}

int64_t nn_elements(attn_dims dims)
{
    int64_t n = dims.n < 0 || dims.n > ATTN_MAX_DIMS ? -1 : 1;
    for (int i = 0; n > 0 && i < dims.n; i++)
        if (dims.d[i] < 1 || __builtin_mul_overflow(n, dims.d[i], &n) || n > (int64_t)1 << 48)
            return -1;
    return n;
}

/* The name of a mode, for messages. */
static const char *mode_name(int mode)
{
    return mode == ATTN_CAUSAL ? "causal" : mode == ATTN_BIDIR ? "bidirectional" : "cross";
}

int nn_shape_check(const attn_shape *s, char *why, size_t nwhy)
{
    const struct { const char *name; int32_t value; } sizes[] = {
        { "B", s->B }, { "Hq", s->Hq }, { "Hk", s->Hk }, { "Tq", s->Tq }, { "Tk", s->Tk }, { "Dk", s->Dk }, { "Dv", s->Dv } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1)
            return refuse(ATTN_EINVAL, why, nwhy, "%s = %d, it must be at least 1", sizes[i].name, sizes[i].value);
    if (s->Hv < 1 || s->Hv % s->Hk || (s->Hv != s->Hk && s->Hq != s->Hk))
        return refuse(ATTN_EINVAL, why, nwhy, "Hv = %d is neither Hk = %d nor, with Hq = Hk, a multiple of it", s->Hv, s->Hk);
    if (s->Hq % s->Hk)
        return refuse(ATTN_EINVAL, why, nwhy, "Hq = %d is not a multiple of Hk = %d", s->Hq, s->Hk);
    if (s->mode != ATTN_CAUSAL && s->mode != ATTN_BIDIR && s->mode != ATTN_CROSS)
        return refuse(ATTN_EINVAL, why, nwhy, "mode %d is not one of causal, bidirectional, cross", s->mode);
    if (s->mode == ATTN_BIDIR && s->Tq != s->Tk)
        return refuse(ATTN_EINVAL, why, nwhy, "mode bidirectional needs Tq = Tk, not %d and %d", s->Tq, s->Tk);
    if (s->dtype != ATTN_F32 && s->dtype != ATTN_F64 && s->dtype != ATTN_BF16)
        return refuse(ATTN_EINVAL, why, nwhy, "dtype %d is none of f32, bf16 and f64", s->dtype);
    const attn_dims tensors[] = { { 4, { s->B, s->Hq, s->Tq, s->Dk } }, { 4, { s->B, s->Hk, s->Tk, s->Dk } },
                                  { 4, { s->B, s->Hv, s->Tk, s->Dv } }, { 4, { s->B, attn_out_heads(s), s->Tq, s->Dv } } };
    for (int i = 0; i < 4; i++)
        if (nn_elements(tensors[i]) < 0)
            return refuse(ATTN_EINVAL, why, nwhy, "a tensor of %lld x %lld x %lld x %lld elements is too large",
                          (long long)tensors[i].d[0], (long long)tensors[i].d[1], (long long)tensors[i].d[2], (long long)tensors[i].d[3]);
    return ATTN_OK;
}

/* How many rows a table that ends with name == NULL has; ATTN_MAX at most.  stride: bytes of a row. */
static int rows_of(const void *table, size_t stride)
{
    int n = 0;
    for (const char *row = table; row && n < ATTN_MAX && *(const char *const *)row; row += stride)
        n++;
    return n;
}

/* A plan with nonsense in it: ATTN_EINVAL, naming variant, implementation and field. */
static int plan_check(const attn_variant *v, const attn_impl *impl, const attn_shape *s, const attn_plan *p, char *why, size_t nwhy)
{
    int gates = rows_of(v->gates, sizeof *v->gates), params = rows_of(v->params, sizeof *v->params);
    int states = rows_of(v->states, sizeof *v->states);
    for (int i = 0; i < ATTN_MAX; i++) {
        int width = p->gate_width[i];
        attn_dims gate = { 4, { s->B, s->Hv, s->Tk, width ? width : 1 } };
        if (width < 0 || (width && i >= gates) || nn_elements(gate) < 0)
            return refuse(ATTN_EINVAL, why, nwhy, "%s/%s: plan() gives gate %d a width of %d", v->name, impl->name, i, width);
        if (nn_elements(p->param_dims[i]) < 0 || (p->param_dims[i].n && i >= params))
            return refuse(ATTN_EINVAL, why, nwhy, "%s/%s: plan() gives param %d impossible dimensions", v->name, impl->name, i);
        if (nn_elements(p->state_dims[i]) < 0 || (p->state_dims[i].n && i >= states))
            return refuse(ATTN_EINVAL, why, nwhy, "%s/%s: plan() gives state %d impossible dimensions", v->name, impl->name, i);
        int kind = p->param_init[i].kind;
        if (kind < ATTN_INIT_CONST || kind > ATTN_INIT_STEP ||
            (p->param_dims[i].n == 1 && (kind == ATTN_INIT_ORTHO_CHI || kind == ATTN_INIT_ORTHO_SQRT)))
            return refuse(ATTN_EINVAL, why, nwhy, "%s/%s: plan() gives param %d an impossible initial value", v->name, impl->name, i);
    }
    return ATTN_OK;
}

/* The dtype in which impl would serve a caller of dtype: the caller's own, else for f32 and f64 the other one; bf16 is
 * asked for its speed, which no conversion would have.  0: none. */
static int serving_dtype(const attn_impl *impl, int dtype)
{
    if (impl->dtypes & dtype || dtype == ATTN_BF16)
        return impl->dtypes & dtype;
    int other = dtype == ATTN_F32 ? ATTN_F64 : ATTN_F32;
    return impl->dtypes & other ? other : 0;
}

/* Why impl cannot serve this spec whatever its plan would say, or NULL. */
static const char *unfit(const attn_impl *impl, const attn_shape *s, int device, int decoding)
{
    if (impl->device != device)
        return "runs on another device";
    if (!(impl->modes & s->mode))
        return "does not serve this mode";
    if (!serving_dtype(impl, s->dtype))
        return s->dtype == ATTN_BF16 ? "does not take bf16" : "takes neither f32 nor f64";
    if (s->training && !impl->backward)
        return "has no backward and cannot train";
    if (decoding && !impl->decode)
        return "does not decode";
    return NULL;
}

/* Asks one implementation to plan and checks the answer. */
static int try_impl(const nn_mixer_spec *spec, const attn_impl *impl, int decoding, nn_choice *out, char *why, size_t nwhy)
{
    *out = (nn_choice){ .impl = impl, .shape = spec->shape };
    out->shape.dtype = serving_dtype(impl, spec->shape.dtype);
    int rc = impl->plan(&out->shape, spec->opts, &out->plan);
    out->plan.why[sizeof out->plan.why - 1] = '\0';
    if (rc == ATTN_EUNSUP)
        return refuse(rc, why, nwhy, "%s", out->plan.why[0] ? out->plan.why : "refused without a reason");
    if (rc != ATTN_OK)
        return refuse(ATTN_EINVAL, why, nwhy, "%s/%s: plan() returned %d", spec->variant->name, impl->name, rc);
    if (decoding && out->plan.state == 0)
        return refuse(ATTN_EUNSUP, why, nwhy, "%s/%s does not decode with these options", spec->variant->name, impl->name);
    return plan_check(spec->variant, impl, &out->shape, &out->plan, why, nwhy);
}

/* The named implementation and no other; one of another dtype is served through conversion. */
static int choose_named(const nn_mixer_spec *spec, int device, int decoding, nn_choice *out, char *why, size_t nwhy)
{
    char known[128] = "";
    for (const attn_impl *impl = spec->variant->impls; impl->name; impl++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", impl->name);
        if (strcmp(impl->name, spec->impl))
            continue;
        const char *reason = unfit(impl, &spec->shape, device, decoding);
        if (reason)
            return refuse(ATTN_EUNSUP, why, nwhy, "%s/%s %s", spec->variant->name, impl->name, reason);
        return try_impl(spec, impl, decoding, out, why, nwhy);
    }
    return refuse(ATTN_EINVAL, why, nwhy, "%s has no implementation \"%s\" (it has %s)", spec->variant->name, spec->impl, known);
}

/* Of the fit implementations, the best one ranked after `last` (NULL: the best of all): see the head of this file. */
static const attn_impl *next_best(const nn_mixer_spec *spec, int device, int decoding, const attn_impl *last)
{
    const attn_impl *best = NULL;
    int dtype = spec->shape.dtype;
    for (const attn_impl *impl = spec->variant->impls; impl->name; impl++) {
        int exact = (impl->dtypes & dtype) != 0, best_exact = best && (best->dtypes & dtype) != 0;
        if (unfit(impl, &spec->shape, device, decoding) || (dtype == ATTN_F64 && !exact))
            continue;
        if (last) {
            int last_exact = (last->dtypes & dtype) != 0;
            int after = exact != last_exact ? exact < last_exact : impl->rank != last->rank ? impl->rank < last->rank : impl > last;
            if (!after)
                continue;
        }
        if (!best || (exact != best_exact ? exact > best_exact : impl->rank > best->rank))
            best = impl;
    }
    return best;
}

int nn_choose(const nn_mixer_spec *spec, int device, int decoding, nn_choice *out, char *why, size_t nwhy)
{
    if (spec->impl)
        return choose_named(spec, device, decoding, out, why, nwhy);
    int rc = refuse(ATTN_EUNSUP, why, nwhy, "%s has no implementation for mode %s%s%s on %s in %s", spec->variant->name,
                    mode_name(spec->shape.mode), spec->shape.training ? " that trains" : "", decoding ? " that decodes" : "",
                    device == ATTN_CPU ? "cpu" : "cuda", k_dtype_name((k_dtype)spec->shape.dtype));
    for (const attn_impl *impl = NULL; (impl = next_best(spec, device, decoding, impl));) {
        rc = try_impl(spec, impl, decoding, out, why, nwhy);
        if (rc != ATTN_EUNSUP)
            break;
    }
    if (rc == ATTN_OK && why && nwhy)
        why[0] = '\0';                  /* of those that refused before */
    return rc;
}
