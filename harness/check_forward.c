/* check_forward.c - what every forward pass promises, whatever it computes. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "check_case.h"

/* ---- plan ------------------------------------------------------------------------------------------- */
static int dims_equal(const attn_dims *a, const attn_dims *b)
{
    if (a->n != b->n) return 0;
    for (int i = 0; i < a->n; i++) if (a->d[i] != b->d[i]) return 0;
    return 1;
}

/* The name of a field in which two plans differ, or NULL. */
static const char *plans_differ(const attn_plan *a, const attn_plan *b)
{
    if (a->saved != b->saved) return "saved";
    if (a->scratch_fwd != b->scratch_fwd || a->scratch_bwd != b->scratch_bwd || a->scratch_dec != b->scratch_dec) return "scratch";
    if (a->state != b->state) return "state";
    if (a->flops_fwd != b->flops_fwd || a->flops_bwd != b->flops_bwd) return "flops";
    if (a->bytes_fwd != b->bytes_fwd || a->bytes_bwd != b->bytes_bwd) return "bytes";
    for (int i = 0; i < ATTN_MAX; i++) {
        if (a->gate_width[i] != b->gate_width[i]) return "gate_width";
        if (!dims_equal(&a->param_dims[i], &b->param_dims[i])) return "param_dims";
        if (!dims_equal(&a->state_dims[i], &b->state_dims[i])) return "state_dims";
        const attn_init *x = &a->param_init[i], *y = &b->param_init[i];
        if (x->kind != y->kind || x->a != y->a || x->b != y->b) return "param_init";
    }
    return NULL;
}

static int dims_sane(const attn_dims *dims, int named)
{
    if (dims->n < 0 || dims->n > ATTN_MAX_DIMS || (dims->n > 0 && !named)) return 0;
    for (int i = 0; i < dims->n; i++) if (dims->d[i] < 1 || dims->d[i] > 1 << 24) return 0;
    return 1;
}

/* What is absurd in a plan for a problem of a few thousand numbers, or NULL. */
static const char *plan_absurd(const attn_variant *v, const attn_impl *impl, const attn_shape *s, const attn_plan *p)
{
    const size_t most = (size_t)1 << 30;
    if (p->saved > most || p->scratch_fwd > most || p->scratch_bwd > most || p->scratch_dec > most || p->state > most)
        return "asks for more than 1 GiB for a tiny problem";
    if (!(p->flops_fwd >= 0 && p->flops_bwd >= 0 && p->bytes_fwd >= 0 && p->bytes_bwd >= 0)) return "negative or NaN cost";
    if (isinf(p->flops_fwd + p->flops_bwd + p->bytes_fwd + p->bytes_bwd)) return "infinite cost";
    if (p->state && !impl->decode) return "decode state without decode";
    int g = 0, q = 0, n = 0;
    for (int i = 0; i < ATTN_MAX; i++) {
        g = g || !v->gates || !v->gates[i].name;
        q = q || !v->params || !v->params[i].name;
        n = n || !v->states || !v->states[i].name;
        if (p->gate_width[i] < 0 || p->gate_width[i] > 1 << 16 || (p->gate_width[i] && g)) return "gate_width of a gate that the table does not name, or absurd";
        if (!dims_sane(&p->param_dims[i], !q)) return "param_dims of a param that the table does not name, or absurd";
        if (!dims_sane(&p->state_dims[i], !n)) return "state_dims of a state that the table does not name, or absurd";
        if (p->state_dims[i].n && p->state_dims[i].d[0] != s->B) return "state_dims must begin with B";
    }
    return NULL;
}

/* Plans three times: from zeros, from zeros again, and over the plan that is there. */
int hs_check_plan(const hs_case *c, attn_shape s)
{
    attn_plan a = { 0 }, b = { 0 };
    char note[256] = "";
    hs_case_begin(c, "plan");
    int rc = c->impl->plan(&s, c->opts, &a);
    if (rc == ATTN_EUNSUP) {
        int said = a.why[0] && memchr(a.why, 0, sizeof a.why);
        snprintf(note, sizeof note, "%.159s", said ? a.why : "plan() refuses without a reason in why");
        hs_case_say(c, "plan", said ? HS_CHECK_SKIP : HS_CHECK_FAIL, 0, note);
        return -1;
    }
    const char *absurd = rc == ATTN_OK ? plan_absurd(c->variant, c->impl, &s, &a) : NULL, *field = NULL;
    if (rc != ATTN_OK) snprintf(note, sizeof note, "plan() returned %d: only ATTN_OK and ATTN_EUNSUP are allowed", rc);
    else if (absurd) snprintf(note, sizeof note, "plan() %s", absurd);
    else if (c->impl->plan(&s, c->opts, &b) != ATTN_OK || (field = plans_differ(&a, &b)))
        snprintf(note, sizeof note, "planned twice, %s differs", field ? field : "the answer");
    else if (c->impl->plan(&s, c->opts, &b) != ATTN_OK || (field = plans_differ(&a, &b)))
        snprintf(note, sizeof note, "planned over an earlier plan, %s differs", field ? field : "the answer");
    hs_case_say(c, "plan", note[0] ? HS_CHECK_FAIL : HS_CHECK_OK, 0, note);
    return note[0] ? -1 : 0;
}

/* ---- the same again ------------------------------------------------------------------------------------- */
/* Runs r, which differs from base in nothing that may show, and compares. */
static void same(const hs_case *c, const char *check, hs_rig *r, const hs_rig *base, double tol)
{
    hs_diff d = hs_diff_none;
    hs_case_begin(c, check);
    if (!hs_rig_run(r)) hs_diff_rigs(&d, r, base, tol);
    hs_case_judge(c, check, r, &d);
    hs_rig_free(r);
}

static void check_repeats(const hs_case *c, const hs_rig *base)
{
    if (c->variant->flags & ATTN_NONDET) return;
    same(c, "same seed gives the same bits", hs_rig_like(base), base, 0);
    for (int i = 0; i < (c->quick ? c->defaults : 3) && c->impl->device == ATTN_CPU; i++) {
        hs_rig *r = hs_rig_like(base);
        r->nthreads = 3;
        same(c, "3 threads give the same bits", r, base, 0);
    }
}

/* Equal but for rounding: a BLAS may take another path for another leading dimension. */
static void check_layouts(const hs_case *c, const hs_rig *base)
{
    static const char *const names[] = { [HS_BHTD] = "layout BHTD", [HS_PADDED] = "layout with gaps" };
    for (int layout = HS_BHTD; layout <= HS_PADDED; layout++) {
        hs_rig *r = hs_rig_new(c, base->impl, base->s.dtype, base->opts, base->s, layout, NULL, 0);
        hs_rig_from(r, base, 0, 0, 0);
        same(c, names[layout], r, base, hs_tolerance(r->s.dtype) * 1e-3);
    }
}

/* What is not asked for is not missed: states, inputs that the variant says it ignores, training. */
static void check_absence(const hs_case *c, const hs_rig *base)
{
    int states = 0;
    for (int i = HS_STATE; i < HS_INPUTS; i++) states += base->in[i].n > 0;
    if (states) {
        hs_rig *r = hs_rig_like(base);
        r->want_states = 0;
        same(c, "state_out not wanted", r, base, 0);
    }
    if (c->variant->flags & (ATTN_NO_Q | ATTN_NO_K)) {
        hs_rig *r = hs_rig_like(base);
        r->absent[HS_Q] = (c->variant->flags & ATTN_NO_Q) != 0;
        r->absent[HS_K] = (c->variant->flags & ATTN_NO_K) != 0;
        same(c, "inputs that it ignores are absent", r, base, 0);
    }
    attn_shape s = base->s;
    s.training = 0;
    hs_rig *r = hs_rig_new(c, base->impl, s.dtype, base->opts, s, HS_BTHD, NULL, 0);
    if (!r) { hs_case_say(c, "without training", HS_CHECK_FAIL, 0, "plan() accepts training but not inference"); return; }
    hs_rig_from(r, base, 0, 0, 0);
    same(c, "without training", r, base, hs_tolerance(s.dtype));
}

/* ---- who may see whom ------------------------------------------------------------------------------------- */
/* New keys, values, gates and queries from token `cut` on: outputs before it stay as they are. */
static void check_leak(const hs_case *c, const hs_rig *base)
{
    const char *check = "no leak from the future";
    attn_shape s = base->s;
    double tol = c->relaxed_causality ? hs_tolerance(s.dtype) : 0;
    if (s.mode != ATTN_CAUSAL || s.Tk < 2 || s.Tq != s.Tk) return;
    if (c->variant->flags & ATTN_LOOKS_AHEAD) { hs_case_say(c, check, HS_CHECK_SKIP, 0, "the variant looks ahead by its own declaration"); return; }
    if (c->other_order) { hs_case_say(c, check, HS_CHECK_SKIP, 0, "with order=block the future of a token is not what has a higher position"); return; }
    hs_case_begin(c, check);
    hs_diff d = hs_diff_none;
    hs_rig *a = hs_rig_new(c, base->impl, s.dtype, c->exact, s, HS_BTHD, NULL, 0), *b = NULL;
    int bad = hs_rig_forward(a);
    for (int64_t cut = s.Tk - 1; cut >= 1 && !bad; cut -= s.Tk > 8 ? s.Tk / 3 : 1) {
        b = hs_rig_new(c, base->impl, s.dtype, c->exact, s, HS_BTHD, NULL, 0);
        for (int i = 0; i < HS_PARAM; i++) hs_rig_redraw(b, i, 1, 0, cut);
        if (!(bad = hs_rig_forward(b)))
            hs_diff_part(&d, (hs_part){ &b->out[HS_O], 0, 0 }, (hs_part){ &a->out[HS_O], 0, 0 }, s.B, cut, tol);
        if (!bad) hs_rig_free(b);
    }
    hs_case_judge(c, check, a->fault[0] ? a : bad ? b : NULL, &d);
    if (bad && b && !a->fault[0]) hs_rig_free(b);
    hs_rig_free(a);
}

/* Other rows of the batch change, then all rows change places: a row computes what it computed. */
static void check_batch(const hs_case *c, const hs_rig *base)
{
    hs_diff d = hs_diff_none;
    hs_rig *other = hs_rig_like(base), *turned = hs_rig_like(base);
    if (base->s.B < 2) goto out;
    hs_case_begin(c, "batch rows independent");
    for (int i = 0; i <= HS_INPUTS; i++)        /* HS_INPUTS: d_o */
        if (i < HS_PARAM || i >= HS_STATE) hs_rig_redraw(other, i, 1, 1, 0);
    hs_rig_from(turned, base, 1, 0, 0);
    if (hs_rig_run(other) || hs_rig_run(turned)) goto judge;
    for (int i = 0; i <= HS_INPUTS; i++) {      /* HS_INPUTS: o */
        if (i < HS_INPUTS && (!base->in[i].n || !base->impl->backward || (i >= HS_PARAM && i < HS_STATE))) continue;
        const hs_slot *x = i < HS_INPUTS ? &base->grad[i] : &base->out[HS_O];
        const hs_slot *y = i < HS_INPUTS ? &other->grad[i] : &other->out[HS_O], *z = i < HS_INPUTS ? &turned->grad[i] : &turned->out[HS_O];
        hs_diff_part(&d, (hs_part){ y, 0, 0 }, (hs_part){ x, 0, 0 }, 1, x->T, 0);
        hs_diff_part(&d, (hs_part){ z, 0, 0 }, (hs_part){ x, 1, 0 }, x->B - 1, x->T, 0);
        hs_diff_part(&d, (hs_part){ z, x->B - 1, 0 }, (hs_part){ x, 0, 0 }, 1, x->T, 0);
    }
judge:
    hs_case_judge(c, "batch rows independent", other->fault[0] ? other : turned, &d);
out:
    hs_rig_free(other);
    hs_rig_free(turned);
}

/* Hq = 2 Hk, or Hv = 2 Hk, is the same as every shared head written out twice. */
void hs_check_heads(const hs_case *c, const hs_rig *base)
{
    const char *check = "shared heads are repeated heads";
    attn_shape s = base->s;
    if (attn_out_heads(&s) == s.Hk) return;
    s.Hk = s.Hq = s.Hv = attn_out_heads(&s);
    hs_case_begin(c, check);
    hs_diff d = hs_diff_none;
    hs_rig *r = hs_rig_new(c, base->impl, s.dtype, base->opts, s, HS_BTHD, NULL, 0);
    if (!r) { hs_case_say(c, check, HS_CHECK_FAIL, 0, "plan() accepts shared heads but not as many of each"); return; }
    hs_rig_from(r, base, 0, 0, 0);
    if (!hs_rig_forward(r)) hs_diff_slot(&d, &base->out[HS_O], &r->out[HS_O], hs_tolerance(s.dtype));
    hs_case_judge(c, check, r, &d);
    hs_rig_free(r);
}

/* ---- key lengths ------------------------------------------------------------------------------------------- */
/* Row b of padded against a call of its own with klen[b] keys. */
static void truncated(const hs_case *c, hs_diff *d, const hs_rig *padded, int64_t b)
{
    attn_shape s = padded->s;
    int32_t n = padded->klen[b];
    s.B = 1, s.klen = 0, s.Tk = n;
    if (s.mode != ATTN_CROSS) s.Tq = n;         /* the queries beyond the keys are the caller's business */
    hs_rig *r = hs_rig_new(c, padded->impl, s.dtype, padded->opts, s, HS_BTHD, d->note, sizeof d->note);
    if (!r) { d->ok = 0; return; }
    hs_rig_from(r, padded, b, 0, 0);
    if (hs_rig_forward(r)) { d->ok = 0; memcpy(d->note, r->fault, sizeof d->note); }
    else hs_diff_part(d, (hs_part){ &padded->out[HS_O], b, 0 }, (hs_part){ &r->out[HS_O], 0, 0 }, 1, s.Tq, hs_tolerance(s.dtype));
    hs_rig_free(r);
}

/* Everything about absent keys: their content does not matter, their gradients are 0. */
static void absent_keys(hs_diff *d, hs_rig *r, const hs_rig *padded)
{
    for (int i = HS_K; i < HS_PARAM; i++)
        for (int64_t e = 0; e < r->in[i].n; e++)
            if (e / r->in[i].W % r->in[i].T >= r->klen[e / (r->in[i].H * r->in[i].T * r->in[i].W)]) r->in[i].val[e] = (e % 2 ? 1 : -1) * 100.;
    if (hs_rig_run(r)) return;
    hs_diff_rigs(d, r, padded, 0);
    for (int i = HS_K; i < HS_PARAM && r->impl->backward; i++)
        for (int64_t e = 0; e < r->in[i].n && d->ok; e++) {
            const hs_slot *g = &r->grad[i];
            int64_t b = e / (g->H * g->T * g->W);
            if (e / g->W % g->T < r->klen[b] || g->val[e] == 0) continue;
            d->ok = 0;
            snprintf(d->note, sizeof d->note, "%s of an absent key is %g (batch row %ld, klen %d)", g->name, g->val[e], (long)b, r->klen[b]);
        }
}

void hs_check_klen(const hs_case *c, attn_shape s)
{
    const char *check = "klen is truncation";
    char why[200] = "";
    hs_diff d = hs_diff_none;
    s.klen = 1, s.B = 3;
    hs_case_begin(c, check);
    hs_rig *r = hs_rig_new(c, c->impl, s.dtype, c->opts, s, HS_BTHD, why, sizeof why), *other = NULL;
    if (!r) { hs_case_say(c, check, why[0] ? HS_CHECK_SKIP : HS_CHECK_FAIL, 0, why[0] ? why : "refused without a reason"); return; }
    r->give_klen = 1;
    r->klen[0] = s.Tk, r->klen[1] = 0, r->klen[2] = s.Tk / 2 + (s.Tk > 1);
    if (!hs_rig_run(r)) {
        truncated(c, &d, r, 0);
        if (r->klen[2] > 0 && r->klen[2] < s.Tk) truncated(c, &d, r, 2);
        for (int64_t n = r->out[HS_O].n / 3, i = n; i < 2 * n && d.ok; i++)
            if (r->out[HS_O].val[i] != 0) d.ok = 0, snprintf(d.note, sizeof d.note, "the output is %g where there is no key", r->out[HS_O].val[i]);
        other = hs_rig_like(r);
        absent_keys(&d, other, r);
    }
    hs_case_judge(c, check, other && other->fault[0] ? other : r, &d);
    hs_rig_free(other);
    hs_rig_free(r);
}

void hs_check_forward(const hs_case *c, const hs_rig *base)
{
    check_repeats(c, base);
    check_layouts(c, base);
    check_absence(c, base);
    check_batch(c, base);
    check_leak(c, base);
    hs_check_heads(c, base);
}
