/* check_rig.c - one call of a variant in memory where nothing goes unseen.
 *
 * Invariants:
 *  1. Every byte around what a variant may write is 0xFF (a NaN in every dtype) and is looked at after each
 *     call: guards, gaps between rows, buffers of exactly the planned size.
 *  2. Every byte that the variant has to write is 0xFF before each call, so that what was left out shows.
 *  3. Inputs are floats, also where the call is in double, and bfloat16s where the call is in that, so that two impls
 *     see the same numbers. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check_case.h"
#include "kernels/philox.h"

/* ---- buffers ---------------------------------------------------------------------------------------- */
/* With its guards, rounded up. */
static size_t buf_size(const hs_buf *b) { return (b->bytes + 2 * HS_GUARD + 255) / 256 * 256; }

void hs_buf_init(hs_buf *b, size_t bytes)
{
    b->bytes = bytes;
    b->before = NULL;
    size_t all = buf_size(b);
    b->raw = aligned_alloc(256, all);
    if (!b->raw) abort();               /* a few kilobytes: the child's death is reported by its parent */
    memset(b->raw, 0xFF, all);
}

void hs_buf_release(hs_buf *b)
{
    free(b->raw);
    free(b->before);
    *b = (hs_buf){ 0 };
}

void *hs_buf_ptr(const hs_buf *b) { return b->raw ? b->raw + HS_GUARD : NULL; }

static void poison(hs_buf *b) { if (b->raw) memset(b->raw, 0xFF, b->bytes + 2 * HS_GUARD); }

/* An input is surrounded by another NaN than an output: what is copied from beyond the one shows beyond the other. */
static void mark(hs_buf *b)
{
    for (size_t i = 0; i < b->bytes + 2 * HS_GUARD; i += 4) b->raw[i] = 0xFE;
}

/* 0 when both guards are whole, else the distance of the first written byte from the buffer's edge, negative
 * before its start. */
static long guard_broken(const hs_buf *b)
{
    for (long i = 1; b->raw && i <= HS_GUARD; i++) {
        if (b->raw[HS_GUARD - i] != 0xFF) return -i;
        if (b->raw[HS_GUARD + b->bytes + (size_t)i - 1] != 0xFF) return i;
    }
    return 0;
}

/* ---- slots ------------------------------------------------------------------------------------------ */
static size_t width_of(int32_t dtype) { return dtype == ATTN_F64 ? sizeof(double) : dtype == ATTN_BF16 ? sizeof(uint16_t) : sizeof(float); }

/* A bfloat16 is the upper half of a float. */
static double from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest, ties to even. */
static uint16_t to_bf16(double x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(f)) return 0xFFFF;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

double hs_rounded(int32_t dtype, double x) { return dtype == ATTN_F64 ? x : dtype == ATTN_BF16 ? from_bf16(to_bf16(x)) : (double)(float)x; }

static int64_t at(const hs_slot *s, int64_t b, int64_t h, int64_t t) { return ((b * s->H + h) * s->T + t) * s->W; }

/* Strides of a layout, and the number of elements that they span. */
static int64_t lay_out(hs_slot *s, int layout)
{
    int64_t row = layout == HS_PADDED ? s->W + 3 : s->W, head = s->T * row + (layout == HS_PADDED ? 5 : 0);
    if (layout == HS_BTHD) s->t = (attn_tensor){ NULL, s->T * s->H * s->W, s->W, s->H * s->W };
    else s->t = (attn_tensor){ NULL, s->H * head, head, row };
    return (s->B - 1) * s->t.sb + (s->H - 1) * s->t.sh + (s->T - 1) * s->t.st + s->W;
}

static void slot_init(hs_slot *s, const char *prefix, const char *name, const int64_t d[4], int layout, int32_t dtype, int is_input)
{
    s->B = d[0], s->H = d[1], s->T = d[2], s->W = d[3];
    s->n = s->B * s->H * s->T * s->W;
    snprintf(s->name, sizeof s->name, "%s%s", prefix, name);
    if (s->n == 0) return;
    s->dtype = dtype;
    hs_buf_init(&s->buf, (size_t)lay_out(s, layout) * width_of(dtype));
    s->t.p = hs_buf_ptr(&s->buf);
    if (is_input) mark(&s->buf);
    s->val = calloc((size_t)s->n, sizeof *s->val);
    if (!s->val) abort();
}

static void slot_release(hs_slot *s)
{
    hs_buf_release(&s->buf);
    free(s->val);
}

/* Walks the elements of a slot in order: values into memory (store) or memory into values. */
static void slot_move(hs_slot *s, int store)
{
    double *x = s->val;
    for (int64_t b = 0; b < s->B; b++) for (int64_t h = 0; h < s->H; h++) for (int64_t t = 0; t < s->T; t++) {
        int64_t e = b * s->t.sb + h * s->t.sh + t * s->t.st;
        for (int64_t w = 0; w < s->W; w++, x++, e++) {
            if (s->dtype == ATTN_F64) { if (store) ((double *)s->t.p)[e] = *x; else *x = ((double *)s->t.p)[e]; }
            else if (s->dtype == ATTN_BF16) { if (store) ((uint16_t *)s->t.p)[e] = to_bf16(*x); else *x = from_bf16(((uint16_t *)s->t.p)[e]); }
            else { if (store) ((float *)s->t.p)[e] = (float)*x; else *x = ((float *)s->t.p)[e]; }
        }
    }
}

void hs_slot_store(hs_slot *s) { slot_move(s, 1); }

/* Writes the values and remembers every byte, guards and gaps included. */
static void slot_load(hs_slot *s)
{
    size_t all = s->buf.bytes + 2 * HS_GUARD;
    if (s->n == 0) return;
    slot_move(s, 1);
    if (!s->buf.before) s->buf.before = malloc(all);
    if (!s->buf.before) abort();
    memcpy(s->buf.before, s->buf.raw, all);
}

static int slot_changed(const hs_slot *s)
{
    return s->n && memcmp(s->buf.before, s->buf.raw, s->buf.bytes + 2 * HS_GUARD) != 0;
}

/* The gaps between rows of an output must still be poison. */
static int gap_written(const hs_slot *s)
{
    size_t width = width_of(s->dtype);
    if (s->n == 0 || s->buf.bytes == (size_t)s->n * width) return 0;
    unsigned char *copy = malloc(s->buf.bytes);
    if (!copy) abort();
    memcpy(copy, s->t.p, s->buf.bytes);
    for (int64_t b = 0; b < s->B; b++) for (int64_t h = 0; h < s->H; h++) for (int64_t t = 0; t < s->T; t++)
        memset(copy + (size_t)(b * s->t.sb + h * s->t.sh + t * s->t.st) * width, 0xFF, (size_t)s->W * width);
    int bad = 0;
    for (size_t i = 0; i < s->buf.bytes; i++) bad |= copy[i] != 0xFF;
    free(copy);
    return bad;
}

/* dst[b,h,t,:] = src[(b + b0) mod B, h * H_src / H_dst, t + t0, :] */
static void slot_from(hs_slot *dst, const hs_slot *src, int64_t b0, int64_t t0)
{
    if (dst->n == 0 || src->n == 0) return;
    for (int64_t b = 0; b < dst->B; b++) for (int64_t h = 0; h < dst->H; h++) for (int64_t t = 0; t < dst->T; t++)
        memcpy(dst->val + at(dst, b, h, t), src->val + at(src, (b + b0) % src->B, h * src->H / dst->H, t + t0),
               (size_t)dst->W * sizeof *dst->val);
}

/* ---- numbers ---------------------------------------------------------------------------------------- */
static double uniform(uint32_t stream, uint64_t i) { return philox_uniform(philox_u32(20240607, stream, 1, i)); }

/* Nearly a standard normal number (the sum of four uniform ones), rounded to float. */
static double normal(uint32_t stream, uint32_t draw, uint64_t i)
{
    philox4 r = philox4x32_10(20240607, i, stream, draw);
    double sum = -2;
    for (int k = 0; k < 4; k++) sum += philox_uniform(r.v[k]);
    return (float)(sum * 1.7320508075688772);
}

/* The first n numbers of a slot's first draw.  Nearly every rig begins with them, so they are kept. */
static const double *first_draw(int slot, int64_t n)
{
    static struct { double *x; int64_t n; } drawn[HS_INPUTS + 1];
    if (n > drawn[slot].n) {
        drawn[slot].x = realloc(drawn[slot].x, (size_t)n * sizeof(double));
        if (!drawn[slot].x) abort();
        for (int64_t i = drawn[slot].n; i < n; i++) drawn[slot].x[i] = normal((uint32_t)slot, 0, (uint64_t)i);
        drawn[slot].n = n;
    }
    return drawn[slot].x;
}

/* A value of one param as its plan asks; orthogonal features are drawn as plain Gaussians, which serve as well
 * here; constants are spread, lest a gradient vanish by symmetry. */
static double param_value(const attn_init *init, uint32_t stream, uint64_t i)
{
    double z = normal(stream, 0, i);
    if (init->kind == ATTN_INIT_CONST) return (float)(init->a + 0.3 * z);
    if (init->kind == ATTN_INIT_NORMAL) return (float)(init->a + init->b * z);
    if (init->kind == ATTN_INIT_UNIFORM) return (float)(init->a + (init->b - init->a) * uniform(stream, i));
    if (init->kind == ATTN_INIT_LOG_UNIFORM) return (float)log(init->a + (init->b - init->a) * fmax(uniform(stream, i), 1e-3));
    if (init->kind == ATTN_INIT_STEP) return (float)log(expm1(init->a * pow(init->b / init->a, uniform(stream, i))));
    return z;
}

void hs_rig_redraw(hs_rig *r, int slot, uint32_t draw, int64_t b0, int64_t t0)
{
    hs_slot *s = slot == HS_INPUTS ? &r->d_o : &r->in[slot];
    const double *first = draw == 0 ? first_draw(slot, s->n) : NULL;
    for (int64_t i = 0; i < s->n; i++) {
        if ((b0 > 0 && i / (s->H * s->T * s->W) < b0) || (t0 > 0 && i / s->W % s->T < t0)) continue;
        s->val[i] = slot >= HS_PARAM && slot < HS_STATE ? param_value(&r->plan.param_init[slot - HS_PARAM], (uint32_t)slot, (uint64_t)i)
                                                        : hs_rounded(s->dtype, first ? first[i] : normal((uint32_t)slot, draw, (uint64_t)i));
    }
}

/* ---- the rig ------------------------------------------------------------------------------------------ */
int hs_is_token_slot(int slot) { return slot < HS_PARAM; }

int hs_is_frozen(const hs_rig *r, int slot)
{
    return slot >= HS_PARAM && slot < HS_STATE && r->c->variant->params[slot - HS_PARAM].flags & ATTN_FROZEN;
}

/* Shape of a param or state as four numbers; params start at the head, states at the batch. */
static void dims_of(const attn_dims *dims, int is_state, int64_t d[4])
{
    int first = is_state ? 0 : 1;
    d[0] = d[1] = d[2] = d[3] = 1;
    for (int i = 0; i < dims->n; i++) d[first + i < 4 ? first + i : 3] *= dims->d[i];
    if (dims->n == 0) d[3] = 0;
}

/* What params and states are of in a call of this dtype. */
static int32_t wide_of(int32_t dtype) { return dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

/* One input and its gradient. */
static void add_input(hs_rig *r, int slot, const char *name, const int64_t d[4], int layout)
{
    int32_t dtype = slot < HS_PARAM ? r->s.dtype : wide_of(r->s.dtype);
    slot_init(&r->in[slot], "", name, d, layout, dtype, 1);
    slot_init(&r->grad[slot], slot < HS_GATE ? "d" : "d_", name, d, layout, dtype, 0);
    int shared = slot == HS_K && r->c->variant->flags & ATTN_SHARED_QK;
    r->want[slot] = r->in[slot].n > 0 && !hs_is_frozen(r, slot) && !shared;
    hs_rig_redraw(r, slot, 0, 0, 0);
}

static void add_tables(hs_rig *r, int layout)
{
    const attn_variant *v = r->c->variant;
    const attn_shape *s = &r->s;
    int64_t d[4];
    for (int i = 0; v->gates && v->gates[i].name; i++)
        add_input(r, HS_GATE + i, v->gates[i].name, (int64_t[4]){ s->B, s->Hv, s->Tk, r->plan.gate_width[i] }, layout);
    for (int i = 0; v->params && v->params[i].name; i++) {
        dims_of(&r->plan.param_dims[i], 0, d);
        if (v->params[i].flags & ATTN_OPTIONAL) d[3] = 0;   /* not given */
        add_input(r, HS_PARAM + i, v->params[i].name, d, HS_BHTD);
    }
    for (int i = 0; v->states && v->states[i].name; i++) {
        dims_of(&r->plan.state_dims[i], 1, d);
        add_input(r, HS_STATE + i, v->states[i].name, d, HS_BHTD);
        slot_init(&r->out[HS_FINAL + i], "final_", v->states[i].name, d, HS_BHTD, wide_of(s->dtype), 0);
    }
}

hs_rig *hs_rig_new(const hs_case *c, const attn_impl *impl, int32_t dtype, const void *opts, attn_shape s, int layout,
                   char *why, size_t nwhy)
{
    s.Hv = s.Hv ? s.Hv : s.Hk;
    hs_rig *r = calloc(1, sizeof *r);
    if (!r) abort();
    *r = (hs_rig){ .c = c, .impl = impl, .opts = opts, .s = s, .nthreads = 1, .give_states = 1, .want_states = 1, .seed = 7 };
    r->s.dtype = dtype;
    int rc = impl->plan(&r->s, opts, &r->plan);
    if (rc != ATTN_OK) {
        if (why) snprintf(why, nwhy, "%.159s", r->plan.why);
        free(r);
        return NULL;
    }
    add_input(r, HS_Q, "q", (int64_t[4]){ s.B, s.Hq, s.Tq, s.Dk }, layout);
    add_input(r, HS_K, "k", (int64_t[4]){ s.B, s.Hk, s.Tk, s.Dk }, layout);
    add_input(r, HS_V, "v", (int64_t[4]){ s.B, s.Hv, s.Tk, s.Dv }, layout);
    add_tables(r, layout);
    const int64_t o[4] = { s.B, attn_out_heads(&s), s.Tq, s.Dv };
    slot_init(&r->out[HS_O], "", "o", o, layout, dtype, 0);
    slot_init(&r->d_o, "", "d_o", o, layout, dtype, 1);
    hs_rig_redraw(r, HS_INPUTS, 0, 0, 0);
    hs_rounding_allow(c, r);
    hs_buf_init(&r->saved, r->plan.saved);
    hs_buf_init(&r->scratch_fwd, r->plan.scratch_fwd);
    hs_buf_init(&r->scratch_bwd, r->plan.scratch_bwd);
    hs_buf_init(&r->scratch_dec, r->plan.scratch_dec);
    return r;
}

void hs_rig_from(hs_rig *dst, const hs_rig *src, int64_t b0, int64_t tq0, int64_t tk0)
{
    for (int i = 0; i < HS_INPUTS; i++)
        slot_from(&dst->in[i], &src->in[i], b0, i == HS_Q ? tq0 : hs_is_token_slot(i) ? tk0 : 0);
    slot_from(&dst->d_o, &src->d_o, b0, tq0);
}

hs_rig *hs_rig_like(const hs_rig *r)
{
    hs_rig *copy = hs_rig_new(r->c, r->impl, r->s.dtype, r->opts, r->s, HS_BTHD, NULL, 0);
    if (!copy) abort();                 /* the same plan was accepted a moment ago: hs_check_plan compared two */
    copy->give_states = r->give_states, copy->want_states = r->want_states, copy->give_klen = r->give_klen;
    memcpy(copy->klen, r->klen, sizeof copy->klen);
    hs_rig_from(copy, r, 0, 0, 0);
    return copy;
}

void hs_rig_free(hs_rig *r)
{
    if (!r) return;
    for (int i = 0; i < HS_INPUTS; i++) slot_release(&r->in[i]), slot_release(&r->grad[i]);
    for (int i = 0; i < HS_OUTPUTS; i++) slot_release(&r->out[i]);
    slot_release(&r->d_o);
    hs_buf_release(&r->saved);
    hs_buf_release(&r->scratch_fwd);
    hs_buf_release(&r->scratch_bwd);
    hs_buf_release(&r->scratch_dec);
    free(r);
}

/* ---- calling ----------------------------------------------------------------------------------------- */
/* The optional param `offset`, the position of token 0, when a check gives it. */
static void give_offset(hs_rig *r, attn_call *c)
{
    const attn_param *p = r->c->variant->params;
    int wide = r->s.dtype == ATTN_F64;
    for (int i = 0; r->offset && p && p[i].name; i++) {
        if (!(p[i].flags & ATTN_OPTIONAL) || strcmp(p[i].name, "offset") || !r->plan.param_dims[i].n) continue;
        if (wide) r->number.d = (double)r->offset;
        else r->number.f = (float)r->offset;
        c->param[i] = &r->number;
    }
}

/* All pointers of a call; what is not there is NULL. */
static attn_call call_of(hs_rig *r, void *scratch)
{
    attn_call c = { .size = sizeof c, .nthreads = r->nthreads, .s = &r->s, .plan = &r->plan, .opts = r->opts,
                    .seed = r->seed, .scratch = scratch, .klen = r->give_klen ? r->klen : NULL,
                    .saved = r->s.training ? hs_buf_ptr(&r->saved) : NULL,
                    .k = r->in[HS_K].t, .v = r->in[HS_V].t, .q = r->in[HS_Q].t, .o = r->out[HS_O].t };
    if (r->c->variant->flags & ATTN_SHARED_QK) c.k = c.q;
    if (r->absent[HS_Q]) c.q.p = NULL;
    if (r->absent[HS_K]) c.k.p = NULL;
    for (int i = 0; i < ATTN_MAX; i++) {
        c.gate[i] = r->in[HS_GATE + i].t;
        c.param[i] = r->in[HS_PARAM + i].t.p;
        c.state_in[i] = r->give_states ? r->in[HS_STATE + i].t.p : NULL;
        c.state_out[i] = r->want_states ? r->out[HS_FINAL + i].t.p : NULL;
    }
    give_offset(r, &c);
    return c;
}

void hs_rig_load(hs_rig *r)
{
    for (int i = 0; i < HS_INPUTS; i++) slot_load(&r->in[i]);
    slot_load(&r->d_o);
    r->fault[0] = 0;
    r->finite = 1;
}

__attribute__((format(printf, 2, 3)))
static int fault(hs_rig *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!r->fault[0]) vsnprintf(r->fault, sizeof r->fault, fmt, ap);
    va_end(ap);
    return -1;
}

static int guarded(hs_rig *r, const char *what, const char *name, const hs_buf *b)
{
    long bad = guard_broken(b);
    if (!bad) return 0;
    return fault(r, "%s wrote byte %ld %s the %zu bytes of %s", what, labs(bad), bad < 0 ? "before" : "past", b->bytes, name);
}

static void place(hs_device *d, const hs_buf *b) { hs_device_place(d, b->raw, buf_size(b)); }

/* What no call may do: change an input, write outside its buffers. */
static int look_after(hs_rig *r, const char *what, const hs_buf *scratch)
{
    for (int i = 0; i < HS_INPUTS; i++) if (slot_changed(&r->in[i])) return fault(r, "%s changed its input %s", what, r->in[i].name);
    if (slot_changed(&r->d_o)) return fault(r, "%s changed its input d_o", what);
    if (guarded(r, what, "saved", &r->saved) || guarded(r, what, "scratch", scratch)) return -1;
    for (int i = 0; i < HS_OUTPUTS; i++) {
        if (guarded(r, what, r->out[i].name, &r->out[i].buf)) return -1;
        if (gap_written(&r->out[i])) return fault(r, "%s wrote between the rows of %s", what, r->out[i].name);
    }
    for (int i = 0; i < HS_INPUTS; i++) {
        if (guarded(r, what, r->grad[i].name, &r->grad[i].buf)) return -1;
        if (gap_written(&r->grad[i])) return fault(r, "%s wrote between the rows of %s", what, r->grad[i].name);
    }
    return 0;
}

/* Memory into values; says where the first number is that is none. */
static void read_back(hs_rig *r, const char *what, hs_slot *s)
{
    if (s->n == 0) return;
    slot_move(s, 0);
    for (int64_t i = 0; i < s->n && r->finite; i++) {
        if (isfinite(s->val[i])) continue;
        r->finite = 0;
        fault(r, "%s left %s in %s[%ld,%ld,%ld,%ld]", what, isnan(s->val[i]) ? "NaN (or nothing)" : "Inf", s->name,
              (long)(i / (s->H * s->T * s->W)), (long)(i / (s->T * s->W) % s->H), (long)(i / s->W % s->T), (long)(i % s->W));
    }
}

/* The call on the case's device: every buffer of the rig goes there and comes back.  A device that fails is of no use
 * to later checks either: the child ends, and its last words are the note of this check. */
static int device_call(hs_rig *r, int (*f)(const attn_call *), const attn_call *c, const hs_buf *scratch, const hs_buf *state)
{
    hs_device *d = r->c->device;
    int lost;
    hs_device_begin(d);
    for (int i = 0; i < HS_INPUTS; i++) place(d, &r->in[i].buf), place(d, &r->grad[i].buf);
    for (int i = 0; i < HS_OUTPUTS; i++) place(d, &r->out[i].buf);
    place(d, &r->d_o.buf);
    place(d, &r->saved);
    if (state) place(d, state);
    hs_device_place(d, r->klen, sizeof r->klen);
    hs_device_place(d, &r->number, sizeof r->number);
    hs_device_place_scratch(d, scratch->raw, buf_size(scratch));
    int rc = hs_device_call(d, f, c, &r->hot, &lost);
    if (!lost) return rc;
    snprintf(r->c->where->words, sizeof r->c->where->words, "%s failed: %s", hs_device_name(d), hs_device_error(d));
    _exit(1);
}

/* One call of the impl, in place or on its device; state: of decode, else NULL. */
static int hot_call(hs_rig *r, int (*f)(const attn_call *), const attn_call *c, const char *what, const hs_buf *scratch, const hs_buf *state)
{
    int rc;
    if (r->impl->device == ATTN_CUDA) rc = device_call(r, f, c, scratch, state);
    else {
        hs_hot_begin();
        rc = f(c);
        hs_hot_end(&r->hot);
    }
    return rc == ATTN_OK ? 0 : fault(r, "%s returned %d for a problem that plan() accepted", what, rc);
}

int hs_rig_forward(hs_rig *r)
{
    hs_rig_load(r);
    for (int i = 0; i < HS_OUTPUTS; i++) poison(&r->out[i].buf);
    poison(&r->saved);
    poison(&r->scratch_fwd);
    attn_call c = call_of(r, hs_buf_ptr(&r->scratch_fwd));
    if (hot_call(r, r->impl->forward, &c, "forward", &r->scratch_fwd, NULL) || look_after(r, "forward", &r->scratch_fwd)) return -1;
    read_back(r, "forward", &r->out[HS_O]);
    for (int i = HS_FINAL; r->want_states && i < HS_OUTPUTS; i++) read_back(r, "forward", &r->out[i]);
    return r->fault[0] ? -1 : 0;
}

/* dparam is added to, so it starts from a number; all else from poison. */
static void prepare_gradients(hs_rig *r)
{
    for (int i = 0; i < HS_INPUTS; i++) {
        hs_slot *g = &r->grad[i];
        poison(&g->buf);
        if (i < HS_PARAM || i >= HS_STATE || !g->n) continue;
        for (int64_t e = 0; e < g->n; e++) g->val[e] = r->dparam0;
        slot_move(g, 1);
    }
}

int hs_rig_backward(hs_rig *r)
{
    if (!r->impl->backward || !r->s.training) return 0;
    prepare_gradients(r);
    poison(&r->scratch_bwd);
    attn_call c = call_of(r, hs_buf_ptr(&r->scratch_bwd));
    c.d_o = r->d_o.t;
    attn_tensor *grads[HS_PARAM] = { &c.dq, &c.dk, &c.dv };
    for (int i = 0; i < ATTN_MAX; i++) grads[HS_GATE + i] = &c.dgate[i];
    for (int i = 0; i < HS_PARAM; i++) if (r->want[i]) *grads[i] = r->grad[i].t;
    for (int i = 0; i < ATTN_MAX; i++) {
        c.dparam[i] = r->want[HS_PARAM + i] ? r->grad[HS_PARAM + i].t.p : NULL;
        c.dstate_in[i] = r->want[HS_STATE + i] ? r->grad[HS_STATE + i].t.p : NULL;
    }
    if (hot_call(r, r->impl->backward, &c, "backward", &r->scratch_bwd, NULL) || look_after(r, "backward", &r->scratch_bwd)) return -1;
    for (int i = 0; i < HS_INPUTS; i++) if (r->want[i]) read_back(r, "backward", &r->grad[i]);
    return r->fault[0] ? -1 : 0;
}

int hs_rig_run(hs_rig *r) { return hs_rig_forward(r) || hs_rig_backward(r) ? -1 : 0; }

int hs_rig_map(hs_rig *r, const attn_map *m, double *map)
{
    hs_rig_load(r);
    attn_call c = call_of(r, NULL);
    int rc = m->compute(&c, map);
    if (rc == ATTN_OK) look_after(r, "the map", &r->scratch_fwd);
    return rc;
}

int hs_rig_decode(hs_rig *r, hs_buf *state, int64_t pos)
{
    hs_rig_load(r);
    poison(&r->out[HS_O].buf);
    poison(&r->scratch_dec);
    attn_call c = call_of(r, hs_buf_ptr(&r->scratch_dec));
    c.state = hs_buf_ptr(state);
    c.pos = pos;
    if (hot_call(r, r->impl->decode, &c, "decode", &r->scratch_dec, state) || look_after(r, "decode", &r->scratch_dec)) return -1;
    if (guarded(r, "decode", "state", state)) return -1;
    read_back(r, "decode", &r->out[HS_O]);
    return r->fault[0] ? -1 : 0;
}
