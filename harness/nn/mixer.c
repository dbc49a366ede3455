/* mixer.c - a variant bound to a shape and a device: its buffers, its calls, what the host adds to them.
 *
 * Invariants:
 *  1. All memory is taken in nn_mixer_new; the hot functions allocate nothing.
 *  2. When the implementation's dtype is the caller's, its tensors are the caller's: nothing is copied.
 *  3. Otherwise every tensor has a staging buffer (`slot`) of the implementation's dtype, dense, in the order
 *     of the caller's tensor when that is dense.  What forward staged, backward reads again.
 *  4. With output_norm the variant writes `raw`, which is kept for backward; the caller sees its norm. */
#include "mixer_choose.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const attn_opt nn_common_table[] = {
    { "output_norm", "normalise every output vector per head: o / sqrt(mean(o^2) + output_norm_eps)",
      offsetof(nn_common_opts, output_norm), ATTN_CHOICE, NN_OUTPUT_NORM_NONE, 0, 0, "none,rms", 0 },
    { "output_norm_eps", "epsilon of output_norm: rms", offsetof(nn_common_opts, output_norm_eps), ATTN_FLOAT, 1e-5, 0, 1, NULL,
      ATTN_OPEN_MIN },
    { NULL } };

enum { Q, K, V, O, D_O, DQ, DK, DV, GATE, DGATE = GATE + ATTN_MAX, PARAM = DGATE + ATTN_MAX, DPARAM = PARAM + ATTN_MAX,
       STATE_IN = DPARAM + ATTN_MAX, STATE_OUT = STATE_IN + ATTN_MAX, DSTATE_IN = STATE_OUT + ATTN_MAX,
       SLOTS = DSTATE_IN + ATTN_MAX };

typedef struct extent { int64_t B, H, T, D; } extent;   /* of a tensor; D contiguous */

struct nn_mixer {
    k_dev *dev;
    const attn_variant *variant;
    nn_common_opts common;
    k_dtype outer, inner;               /* the caller's dtype, the implementation's */
    attn_shape shape;                   /* as the caller sees it */
    nn_choice choice;                   /* impl, its shape, its plan */
    attn_call call;                     /* the constant part filled once */
    int64_t capacity;                   /* tokens of decode state, 0 = none */
    int lent;                           /* what is not the mixer's own: NN_LENT_ */
    size_t bytes[SLOTS];                /* of each staging buffer, 0 = none */
    void *slot[SLOTS], *stage;          /* inside the one block `stage` */
    void *raw, *d_raw;                  /* output_norm: o un-normalised, and its gradient */
    void *sum;                          /* outer dtype: one parameter's gradient on its way to dparam */
    void *saved, *scratch, *state;
    size_t *counted;                    /* [K_TAGS] not NULL: of what would be taken, by tag, and nothing is */
};

/* ---- tensors by strides ---------------------------------------------------------------------------------- */

attn_tensor nn_tensor_of(void *p, int64_t H, int64_t T, int64_t D, int bhtd)
{
    return (attn_tensor){ p, T * H * D, bhtd ? T * D : D, bhtd ? D : H * D };
}

/* Whether t [B,H,T,D] has the strides of want wherever a stride matters. */
static int same_strides(extent e, attn_tensor t, attn_tensor want)
{
    return (e.B == 1 || t.sb == want.sb) && (e.H == 1 || t.sh == want.sh) && (e.T == 1 || t.st == want.st);
}

/* A dense tensor over p in the order of like [B,H,T,D]: tokens before heads if like is so, else heads first. */
static attn_tensor dense_like(extent e, attn_tensor like, void *p)
{
    attn_tensor bthd = nn_tensor_of(p, e.H, e.T, e.D, 0);
    return same_strides(e, like, bthd) ? bthd : nn_tensor_of(p, e.H, e.T, e.D, 1);
}

static int is_dense(extent e, attn_tensor t) { return same_strides(e, t, dense_like(e, t, t.p)); }

/* What walk does to `rows` contiguous rows of D elements, at element offsets a and b of its two tensors. */
typedef void run_fn(nn_mixer *, const void *ctx, int64_t rows, int64_t D, int64_t a, int64_t b);

/* Visits two tensors [B,H,T,D] together in the longest runs that are contiguous in both. */
static void walk(nn_mixer *m, extent e, attn_tensor x, attn_tensor y, run_fn *run, const void *ctx)
{
    if (is_dense(e, x) && same_strides(e, x, y)) {
        run(m, ctx, e.B * e.H * e.T, e.D, 0, 0);
        return;
    }
    int by_head = e.T == 1 || (x.st == e.D && y.st == e.D);
    for (int64_t b = 0; b < e.B; b++)
        for (int64_t h = 0; h < e.H; h++) {
            int64_t ox = b * x.sb + h * x.sh, oy = b * y.sb + h * y.sh;
            if (by_head)
                run(m, ctx, e.T, e.D, ox, oy);
            for (int64_t t = 0; !by_head && t < e.T; t++)
                run(m, ctx, 1, e.D, ox + t * x.st, oy + t * y.st);
        }
}

typedef struct conversion { char *dst; k_dtype to; const char *src; k_dtype from; } conversion;

/* run_fn: dst = src in another dtype. */
static void convert_run(nn_mixer *m, const void *ctx, int64_t rows, int64_t D, int64_t a, int64_t b)
{
    const conversion *c = ctx;
    k_convert(m->dev, rows * D, c->dst + a * (int64_t)k_dtype_size(c->to), c->to, c->src + b * (int64_t)k_dtype_size(c->from), c->from);
}

/* The tensor that the implementation reads for the caller's t: t itself, or its staged copy. */
static attn_tensor stage_in(nn_mixer *m, extent e, attn_tensor t, int slot)
{
    if (!t.p || m->inner == m->outer)
        return t;
    attn_tensor s = dense_like(e, t, m->slot[slot]);
    walk(m, e, s, t, convert_run, &(conversion){ s.p, m->inner, t.p, m->outer });
    return s;
}

/* The tensor that the implementation writes for the caller's t. */
static attn_tensor stage_for(const nn_mixer *m, extent e, attn_tensor t, int slot)
{
    return !t.p || m->inner == m->outer ? t : dense_like(e, t, m->slot[slot]);
}

/* Brings what the implementation wrote in s to the caller's t. */
static void stage_out(nn_mixer *m, extent e, attn_tensor t, attn_tensor s)
{
    if (t.p && m->inner != m->outer)
        walk(m, e, t, s, convert_run, &(conversion){ t.p, m->outer, s.p, m->inner });
}

static int64_t slot_elements(const nn_mixer *m, int slot) { return (int64_t)(m->bytes[slot] / k_dtype_size(m->inner)); }

/* The same for dense arrays (parameters, states). */
static const void *dense_in(nn_mixer *m, const void *p, int slot)
{
    if (!p || m->inner == m->outer)
        return p;
    k_convert(m->dev, slot_elements(m, slot), m->slot[slot], m->inner, p, m->outer);
    return m->slot[slot];
}

static void *dense_for(const nn_mixer *m, void *p, int slot) { return !p || m->inner == m->outer ? p : m->slot[slot]; }

static void dense_out(nn_mixer *m, void *p, int slot)
{
    if (p && m->inner != m->outer)
        k_convert(m->dev, slot_elements(m, slot), p, m->outer, m->slot[slot], m->inner);
}

/* ---- extents: decode passes Tq rows of everything ------------------------------------------------------------ */

static extent ext_q(const nn_mixer *m) { return (extent){ m->shape.B, m->shape.Hq, m->shape.Tq, m->shape.Dk }; }
static extent ext_o(const nn_mixer *m) { return (extent){ m->shape.B, attn_out_heads(&m->shape), m->shape.Tq, m->shape.Dv }; }
static extent ext_k(const nn_mixer *m, int64_t T) { return (extent){ m->shape.B, m->shape.Hk, T, m->shape.Dk }; }
static extent ext_v(const nn_mixer *m, int64_t T) { return (extent){ m->shape.B, m->shape.Hv, T, m->shape.Dv }; }
static extent ext_gate(const nn_mixer *m, int64_t T, int i)
{
    return (extent){ m->shape.B, m->shape.Hv, T, m->choice.plan.gate_width[i] };
}

/* ---- building ------------------------------------------------------------------------------------------------- */

/* k_alloc with the mixer's code and the allocator's own sentence; 0 bytes is no buffer. */
static int take(nn_mixer *m, k_tag tag, size_t bytes, const char *what, void **out, char *why, size_t nwhy)
{
    *out = NULL;
    if (m->counted)
        return m->counted[tag] += bytes, ATTN_OK;
    if (bytes == 0 || k_alloc(m->dev, tag, bytes, out) == 0)
        return ATTN_OK;
    if (why && nwhy)
        snprintf(why, nwhy, "%s/%s, %s: %s", m->variant->name, m->choice.impl->name, what, k_error(m->dev));
    return NN_ENOMEM;
}

/* The implementation's dtype of params and states. */
static k_dtype param_dtype(const nn_mixer *m) { return m->inner == K_F64 ? K_F64 : K_F32; }

/* Bytes of every staging buffer, in the implementation's dtype. */
static void size_slots(nn_mixer *m)
{
    const attn_plan *p = &m->choice.plan;
    int64_t T = m->shape.Tk, training = m->shape.training;
    size_t each = k_dtype_size(m->inner), param = k_dtype_size(param_dtype(m));
    extent of[GATE] = { [Q] = ext_q(m), [K] = ext_k(m, T), [V] = ext_v(m, T), [O] = ext_o(m),
                        [D_O] = ext_o(m), [DQ] = ext_q(m), [DK] = ext_k(m, T), [DV] = ext_v(m, T) };
    for (int i = 0; i < GATE; i++)
        if (i < D_O || training)
            m->bytes[i] = (size_t)(of[i].B * of[i].H * of[i].T * of[i].D) * each;
    for (int i = 0; i < ATTN_MAX; i++) {
        extent g = ext_gate(m, T, i);
        m->bytes[GATE + i] = (size_t)(g.B * g.H * g.T * g.D) * each;
        m->bytes[PARAM + i] = p->param_dims[i].n ? (size_t)nn_elements(p->param_dims[i]) * param : 0;
        m->bytes[STATE_IN + i] = m->bytes[STATE_OUT + i] = p->state_dims[i].n ? (size_t)nn_elements(p->state_dims[i]) * param : 0;
        m->bytes[DGATE + i] = training ? m->bytes[GATE + i] : 0;
        int learned = p->param_dims[i].n && !(m->variant->params[i].flags & ATTN_FROZEN);
        m->bytes[DPARAM + i] = training && learned ? m->bytes[PARAM + i] : 0;
        m->bytes[DSTATE_IN + i] = training ? m->bytes[STATE_IN + i] : 0;
    }
}

static size_t aligned(size_t bytes) { return (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN; }

/* One block for all staging buffers, cut up. */
static int take_slots(nn_mixer *m, char *why, size_t nwhy)
{
    size_t total = 0, largest = 0;
    for (int i = 0; i < SLOTS; i++)
        total += aligned(m->bytes[i]);
    for (int i = 0; i < ATTN_MAX; i++)
        largest = m->bytes[DPARAM + i] > largest ? m->bytes[DPARAM + i] : largest;
    int rc = take(m, K_TAG_WORKSPACE, total, "conversion", &m->stage, why, nwhy);
    if (!rc)
        rc = take(m, K_TAG_WORKSPACE, largest / k_dtype_size(m->inner) * k_dtype_size(m->outer), "conversion", &m->sum, why, nwhy);
    if (rc)
        return rc;
    char *p = m->stage;
    for (int i = 0; p && i < SLOTS; p += aligned(m->bytes[i]), i++)
        m->slot[i] = p;
    return ATTN_OK;
}

size_t nn_mixer_scratch(const attn_plan *p, int training, int64_t capacity)
{
    size_t scratch = p->scratch_fwd;
    if (training && p->scratch_bwd > scratch)
        scratch = p->scratch_bwd;
    if (capacity && p->scratch_dec > scratch)
        scratch = p->scratch_dec;
    return scratch;
}

void nn_mixer_lend(nn_mixer *m, void *scratch, void *saved)
{
    if (m->lent & NN_LENT_SCRATCH && scratch)
        m->scratch = m->call.scratch = scratch;
    if (m->lent & NN_LENT_SAVED && saved)
        m->saved = m->call.saved = saved;
}

/* Every buffer that the plan, the conversion and the output norm need, but for those that are lent. */
static int take_buffers(nn_mixer *m, char *why, size_t nwhy)
{
    const attn_plan *p = &m->choice.plan;
    int training = m->shape.training, norm = m->common.output_norm == NN_OUTPUT_NORM_RMS;
    size_t scratch = m->lent & NN_LENT_SCRATCH ? 0 : nn_mixer_scratch(p, training, m->capacity);
    size_slots(m);
    int rc = take(m, K_TAG_SAVED, training && !(m->lent & NN_LENT_SAVED) ? p->saved : 0, "saved for backward", &m->saved, why, nwhy);
    if (!rc)
        rc = take(m, K_TAG_WORKSPACE, scratch, "scratch", &m->scratch, why, nwhy);
    if (!rc)
        rc = take(m, K_TAG_STATE, m->capacity ? p->state : 0, "decode state", &m->state, why, nwhy);
    if (!rc && norm)
        rc = take(m, training ? K_TAG_SAVED : K_TAG_WORKSPACE, m->bytes[O], "output norm", &m->raw, why, nwhy);
    if (!rc && norm && training)
        rc = take(m, K_TAG_WORKSPACE, m->bytes[O], "output norm", &m->d_raw, why, nwhy);
    if (!rc && m->inner != m->outer)
        rc = take_slots(m, why, nwhy);
    return rc;
}

/* What is wrong with a spec before any implementation is asked. */
static int spec_check(const nn_mixer_spec *spec, const attn_shape *shape, int64_t capacity, char *why, size_t nwhy)
{
    const char *wrong = NULL;
    if (capacity < 0 || capacity > INT32_MAX)
        wrong = "the capacity of a decode state lies in 0..2^31-1 tokens";
    else if (capacity && (shape->mode != ATTN_CAUSAL || shape->training))
        wrong = "decoding is causal and does not train";
    else if (spec->common.output_norm < NN_OUTPUT_NORM_NONE || spec->common.output_norm > NN_OUTPUT_NORM_RMS)
        wrong = "output_norm is none or rms";
    else if (spec->common.output_norm && !(spec->common.output_norm_eps > 0))
        wrong = "output_norm_eps must be above 0";
    else if (shape->Hv != shape->Hk && !(spec->variant->flags & ATTN_GROUPED_QK))
        wrong = "the variant needs as many value heads as key heads";
    if (!wrong)
        return nn_shape_check(shape, why, nwhy);
    if (why && nwhy)
        snprintf(why, nwhy, "%s", wrong);
    return ATTN_EINVAL;
}

/* Checks the spec and chooses; asked: the spec with the capacity as its Tk, and Hv = Hk where it says none. */
static int choose(k_dev *dev, const nn_mixer_spec *spec, int64_t capacity, nn_mixer_spec *asked, nn_choice *choice, char *why, size_t nwhy)
{
    *asked = *spec;
    if (capacity > 0 && capacity <= INT32_MAX)
        asked->shape.Tk = (int32_t)capacity;
    asked->shape.decode = capacity > 0;
    asked->shape.Hv = asked->shape.Hv ? asked->shape.Hv : asked->shape.Hk;
    int rc = spec_check(spec, &asked->shape, capacity, why, nwhy);
    return rc ? rc : nn_choose(asked, k_dev_is_cuda(dev) ? ATTN_CUDA : ATTN_CPU, capacity > 0, choice, why, nwhy);
}

int nn_mixer_ask(k_dev *dev, const nn_mixer_spec *spec, int64_t capacity, attn_plan *out, char *why, size_t nwhy)
{
    nn_mixer_spec asked;
    nn_choice choice;
    int rc = choose(dev, spec, capacity, &asked, &choice, why, nwhy);
    if (rc == ATTN_OK)
        *out = choice.plan;
    return rc;
}

/* Fills a mixer in but for its buffers. */
static int describe(k_dev *dev, const nn_mixer_spec *spec, int64_t capacity, nn_mixer *m, char *why, size_t nwhy)
{
    nn_mixer_spec asked;
    nn_choice choice;
    int rc = choose(dev, spec, capacity, &asked, &choice, why, nwhy);
    if (rc == ATTN_OK)
        *m = (nn_mixer){ .dev = dev, .variant = spec->variant, .common = spec->common, .shape = asked.shape, .choice = choice,
                         .outer = (k_dtype)asked.shape.dtype, .inner = (k_dtype)choice.shape.dtype, .capacity = capacity,
                         .lent = spec->lent };
    return rc;
}

int nn_mixer_count_bytes(k_dev *dev, const nn_mixer_spec *spec, int64_t capacity, size_t bytes[K_TAGS], char *why, size_t nwhy)
{
    nn_mixer m;
    int rc = describe(dev, spec, capacity, &m, why, nwhy);
    if (rc)
        return rc;
    m.counted = bytes;
    return take_buffers(&m, why, nwhy);
}

int nn_mixer_new(k_dev *dev, const nn_mixer_spec *spec, int64_t capacity, nn_mixer **out, char *why, size_t nwhy)
{
    *out = NULL;
    nn_mixer described;
    int rc = describe(dev, spec, capacity, &described, why, nwhy);
    if (rc)
        return rc;
    nn_mixer *m = calloc(1, sizeof *m);
    if (!m) {
        if (why && nwhy)
            snprintf(why, nwhy, "out of host memory");
        return NN_ENOMEM;
    }
    *m = described;
    rc = take_buffers(m, why, nwhy);
    if (rc) {
        nn_mixer_free(m);
        return rc;
    }
    m->call = (attn_call){ .size = sizeof m->call, .nthreads = k_dev_threads(dev), .s = &m->choice.shape, .plan = &m->choice.plan,
                           .opts = spec->opts, .stream = k_dev_stream(dev), .saved = m->saved, .scratch = m->scratch,
                           .state = m->state };
    nn_mixer_decode_reset(m);
    *out = m;
    return ATTN_OK;
}

void nn_mixer_free(nn_mixer *m)
{
    if (!m)
        return;
    void *const blocks[] = { m->lent & NN_LENT_SAVED ? NULL : m->saved, m->lent & NN_LENT_SCRATCH ? NULL : m->scratch, m->state, m->raw,
                             m->d_raw, m->stage, m->sum };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        k_free(m->dev, blocks[i]);
    free(m);
}

const attn_plan *nn_mixer_plan(const nn_mixer *m) { return &m->choice.plan; }
const attn_impl *nn_mixer_impl(const nn_mixer *m) { return m->choice.impl; }
const attn_shape *nn_mixer_shape(const nn_mixer *m) { return &m->shape; }

void *nn_mixer_state(nn_mixer *m) { return m->state; }

void nn_mixer_decode_reset(nn_mixer *m)
{
    if (m->state)
        k_zero(m->dev, m->state, m->choice.plan.state);
}

/* A part of the state, B shares of so many bytes, by way of the room. */
static void reorder_part(nn_mixer *m, char *part, size_t bytes, const int32_t *source, void *room)
{
    size_t share = bytes / (size_t)m->shape.B;
    k_dtype unit = share % sizeof(float) ? K_BF16 : K_F32;
    if (share == 0)
        return;
    k_gather_rows(m->dev, unit, m->shape.B, (int64_t)(share / k_dtype_size(unit)), room, part, source, 0);
    k_copy(m->dev, part, room, bytes);
}

void nn_mixer_decode_reorder(nn_mixer *m, const int32_t *source, void *room)
{
    const attn_plan *p = &m->choice.plan;
    size_t second = p->state_second ? p->state_second : p->state;
    reorder_part(m, m->state, second, source, room);
    reorder_part(m, (char *)m->state + second, p->state - second, source, room);
}

/* ---- calling ------------------------------------------------------------------------------------------------------ */

/* Whether io holds every tensor that the variant and its plan use. */
static int io_complete(const nn_mixer *m, const nn_mixer_io *io)
{
    const attn_plan *p = &m->choice.plan;
    uint32_t flags = m->variant->flags;
    if (!io->o.p || !io->v.p || (!io->q.p && !(flags & ATTN_NO_Q)) || (!io->k.p && !(flags & (ATTN_NO_K | ATTN_SHARED_QK))))
        return 0;
    for (int i = 0; i < ATTN_MAX; i++)
        if ((p->gate_width[i] && !io->gate[i].p) ||
            (p->param_dims[i].n && !io->param[i] && !(m->variant->params[i].flags & ATTN_OPTIONAL)))
            return 0;
    return !io->klen || m->shape.klen;
}

/* Fills call with what forward and decode read and write; T rows of k, v and gates. */
static void bind_inputs(nn_mixer *m, const nn_mixer_io *io, int64_t T)
{
    attn_call *c = &m->call;
    int shared = (m->variant->flags & ATTN_SHARED_QK) != 0;
    c->q = stage_in(m, ext_q(m), io->q, Q);
    c->k = shared ? c->q : stage_in(m, ext_k(m, T), io->k, K);
    c->v = stage_in(m, ext_v(m, T), io->v, V);
    c->o = m->raw ? dense_like(ext_o(m), io->o, m->raw) : stage_for(m, ext_o(m), io->o, O);
    for (int i = 0; i < ATTN_MAX; i++) {
        c->gate[i] = m->bytes[GATE + i] ? stage_in(m, ext_gate(m, T, i), io->gate[i], GATE + i) : (attn_tensor){ 0 };
        c->param[i] = m->bytes[PARAM + i] ? dense_in(m, io->param[i], PARAM + i) : NULL;
        c->state_in[i] = m->bytes[STATE_IN + i] ? dense_in(m, io->state_in[i], STATE_IN + i) : NULL;
        c->state_out[i] = m->bytes[STATE_OUT + i] ? dense_for(m, io->state_out[i], STATE_OUT + i) : NULL;
    }
    c->klen = io->klen;
    c->pos = io->pos;
    c->seed = io->seed;
}

typedef struct norm { char *y; const char *x; } norm;

/* run_fn: y = x normalised, rows of Dv. */
static void norm_run(nn_mixer *m, const void *ctx, int64_t rows, int64_t D, int64_t a, int64_t b)
{
    const norm *n = ctx;
    int64_t each = (int64_t)k_dtype_size(m->inner);
    k_norm_forward(m->dev, m->inner, K_NORM_RMS, rows, D, m->common.output_norm_eps, n->y + a * each, n->x + b * each, NULL, NULL);
}

typedef struct norm_back { char *dx; const char *x, *dy; } norm_back;

/* run_fn: dx += gradient through the norm; dx and x share the first offset. */
static void norm_back_run(nn_mixer *m, const void *ctx, int64_t rows, int64_t D, int64_t a, int64_t b)
{
    const norm_back *n = ctx;
    int64_t each = (int64_t)k_dtype_size(m->inner);
    k_norm_backward(m->dev, m->inner, K_NORM_RMS, rows, D, m->common.output_norm_eps, 1, n->dx + a * each, NULL, NULL, n->dy + b * each,
                    n->x + a * each, NULL);
}

/* What follows the variant's forward or decode: output norm, then the caller's dtype. */
static void finish_outputs(nn_mixer *m, const nn_mixer_io *io)
{
    attn_tensor o = m->call.o;
    if (m->raw) {
        o = stage_for(m, ext_o(m), io->o, O);
        walk(m, ext_o(m), o, m->call.o, norm_run, &(norm){ o.p, m->call.o.p });
    }
    stage_out(m, ext_o(m), io->o, o);
    for (int i = 0; i < ATTN_MAX; i++)
        if (m->bytes[STATE_OUT + i])
            dense_out(m, io->state_out[i], STATE_OUT + i);
}

int nn_mixer_forward(nn_mixer *m, const nn_mixer_io *io)
{
    if (m->shape.decode || !io_complete(m, io))
        return ATTN_EINVAL;
    bind_inputs(m, io, m->shape.Tk);
    int rc = m->choice.impl->forward(&m->call);
    if (rc == ATTN_OK)
        finish_outputs(m, io);
    return rc;
}

/* Fills call with the gradients that backward reads and writes. */
static void bind_gradients(nn_mixer *m, const nn_mixer_io *io)
{
    attn_call *c = &m->call;
    int64_t T = m->shape.Tk;
    c->d_o = stage_in(m, ext_o(m), io->d_o, D_O);
    if (m->raw) {
        attn_tensor d = c->o, dy = c->d_o;
        d.p = m->d_raw;
        k_zero(m->dev, m->d_raw, m->bytes[O]);
        walk(m, ext_o(m), d, dy, norm_back_run, &(norm_back){ d.p, c->o.p, dy.p });
        c->d_o = d;
    }
    c->dq = stage_for(m, ext_q(m), io->dq, DQ);
    c->dk = (attn_tensor){ 0 };
    if (!(m->variant->flags & ATTN_SHARED_QK))
        c->dk = stage_for(m, ext_k(m, T), io->dk, DK);
    c->dv = stage_for(m, ext_v(m, T), io->dv, DV);
    for (int i = 0; i < ATTN_MAX; i++) {
        c->dgate[i] = m->bytes[DGATE + i] ? stage_for(m, ext_gate(m, T, i), io->dgate[i], DGATE + i) : (attn_tensor){ 0 };
        c->dparam[i] = m->bytes[DPARAM + i] ? dense_for(m, io->dparam[i], DPARAM + i) : NULL;
        if (c->dparam[i] && c->dparam[i] != io->dparam[i])
            k_zero(m->dev, c->dparam[i], m->bytes[DPARAM + i]);     /* the variant adds */
        c->dstate_in[i] = m->bytes[DSTATE_IN + i] ? dense_for(m, io->dstate_in[i], DSTATE_IN + i) : NULL;
    }
}

/* Brings staged gradients to the caller; those of parameters are added. */
static void finish_gradients(nn_mixer *m, const nn_mixer_io *io)
{
    const attn_call *c = &m->call;
    int64_t T = m->shape.Tk;
    if (m->inner == m->outer)
        return;
    stage_out(m, ext_q(m), io->dq, c->dq);
    if (c->dk.p)
        stage_out(m, ext_k(m, T), io->dk, c->dk);
    stage_out(m, ext_v(m, T), io->dv, c->dv);
    for (int i = 0; i < ATTN_MAX; i++) {
        if (m->bytes[DGATE + i])
            stage_out(m, ext_gate(m, T, i), io->dgate[i], c->dgate[i]);
        if (m->bytes[DSTATE_IN + i])
            dense_out(m, io->dstate_in[i], DSTATE_IN + i);
        if (c->dparam[i]) {
            dense_out(m, m->sum, DPARAM + i);
            k_axpy(m->dev, m->outer, slot_elements(m, DPARAM + i), 1.0, m->sum, io->dparam[i]);
        }
    }
}

int nn_mixer_backward(nn_mixer *m, const nn_mixer_io *io)
{
    if (!m->shape.training || !io_complete(m, io) || !io->d_o.p)
        return ATTN_EINVAL;
    bind_gradients(m, io);
    int rc = m->choice.impl->backward(&m->call);
    if (rc == ATTN_OK)
        finish_gradients(m, io);
    return rc;
}

int nn_mixer_decode(nn_mixer *m, const nn_mixer_io *io)
{
    if (!m->state || !io_complete(m, io) || io->klen || io->pos < 0 || io->pos + m->shape.Tq > m->capacity)
        return ATTN_EINVAL;
    bind_inputs(m, io, m->shape.Tq);
    int rc = m->choice.impl->decode(&m->call);
    if (rc == ATTN_OK)
        finish_outputs(m, io);
    return rc;
}
