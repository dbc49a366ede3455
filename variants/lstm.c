/* lstm - long short-term memory, the recurrent comparator (Hochreiter & Schmidhuber 1997; Vaswani et al. 2017).
 *
 *   a = w_x x_t + w_h h_(t-1) + bias,   row blocks i, f, g, o,   x = v
 *   c_t = s(a_f) c_(t-1) + s(a_i) tanh(a_g),   h_t = s(a_o) tanh(c_t),   o_t = h_t
 *
 * The hidden width is that of v; heads are independent and q and k are not inputs.  Causal only: a recurrence reads from
 * left to right.  Backward goes through time: c_t is kept, h_t is the output, the gates are computed again.
 *   dy = do_t + dh,  e = dc + dy s(a_o) (1 - tanh(c_t)^2),  da = [e g i(1-i), e c_(t-1) f(1-f), e i (1-g^2), dy tanh(c_t) o(1-o)]
 *   dx = w_x' da,  dh = w_h' da,  dc = e f,  dw_x = sum da x',  dw_h = sum da h_(t-1)',  dbias = sum da
 * The loops of "ref" are this file; the float form is kernels/lstm.h. */
#include "values_only.h"
#include <math.h>

enum { W_X, W_H, BIAS };
static const attn_param PARAMS[] = {
    { "w_x", "weights of the input [H,4Dv,Dv], row blocks i, f, g, o", 0 }, { "w_h", "weights of the last output [H,4Dv,Dv]", 0 },
    { "bias", "[H,4Dv]", ATTN_NO_DECAY }, { .name = NULL } };
enum { HIDDEN, CELL };
static const attn_state STATES[] = { { "h", "output of the last token [B,H,Dv]" }, { "c", "cell [B,H,Dv]" }, { .name = NULL } };

/* ---- the problem ------------------------------------------------------------------------------------------- */

/* Why this is not defined, or NULL. */
static const char *refusal(const attn_shape *s)
{
    if (s->mode != ATTN_CAUSAL) return "a recurrence reads from left to right: mode causal only";
    if (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk) return "every token is a step of the recurrence: Tq must be Tk";
    if (s->Hq != s->Hk) return "q is not an input, so no query heads share a head of v: Hq must be Hk";
    if (s->klen) return "key lengths are not defined for a recurrence (pad on the right)";
    return NULL;
}

/* What all impls plan.  Rule: two products of 4 Dv^2 per token, backward four and the two of the gates again. */
static int plan_common(const attn_shape *s, double number, attn_plan *p)
{
    if (refused(p, refusal(s))) return ATTN_EUNSUP;
    int H = s->Hk, D = s->Dv;
    double bound = 1 / sqrt(D), rows = (double)s->B * H * s->Tq, weights = 8.0 * H * D * D;
    p->param_dims[W_X] = p->param_dims[W_H] = (attn_dims){ 3, { H, 4 * D, D } };
    p->param_init[W_X] = p->param_init[W_H] = (attn_init){ ATTN_INIT_UNIFORM, -bound, bound };
    p->param_dims[BIAS] = (attn_dims){ 2, { H, 4 * D } };
    p->param_init[BIAS] = (attn_init){ ATTN_INIT_FORGET, 0, 1 };
    p->state_dims[HIDDEN] = p->state_dims[CELL] = (attn_dims){ 3, { s->B, H, D } };
    p->state = 2 * (size_t)s->B * (size_t)H * (size_t)D * (size_t)number;
    p->state_second = p->state / 2;
    p->saved = s->training ? (size_t)rows * (size_t)D * (size_t)number : 0;
    p->flops_fwd = 2 * rows * 8 * D * D;
    p->flops_bwd = 3 * p->flops_fwd;
    p->bytes_fwd = (2 * rows * D + weights) * number;
    p->bytes_bwd = (5 * rows * D + 2 * weights) * number;
    return ATTN_OK;
}

/* A call that goes on from the decode state, h [B,H,Dv] and behind it c [B,H,Dv], and leaves it there. */
static attn_call decoding(const attn_call *c, size_t number)
{
    attn_call d = *c;
    d.state_in[HIDDEN] = d.state_out[HIDDEN] = c->state;
    d.state_in[CELL] = d.state_out[CELL] = (char *)c->state + (size_t)c->s->B * (size_t)c->s->Hk * (size_t)c->s->Dv * number;
    d.saved = NULL;
    return d;
}

/* ---- the definition ------------------------------------------------------------------------------------------ */

/* One head of one row of the batch. */
typedef struct row {
    const attn_call *c;
    int b, h, D;
    const double *w_x, *w_h, *bias;     /* [4D,D] [4D,D] [4D] */
    double *gates, *zeros, *cell;       /* [4D] [D] [D] */
} row;

/* Scratch: gates, zeros and the running c; backward dh and dc besides. */
enum { FORWARD = 6, BACKWARD = 8 };     /* times Dv */

/* [cold] */
static int ref_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    p->scratch_fwd = p->scratch_dec = (size_t)FORWARD * (size_t)s->Dv * sizeof(double);
    p->scratch_bwd = (size_t)BACKWARD * (size_t)s->Dv * sizeof(double);
    return plan_common(s, sizeof(double), p);
}

/* Row (b,h) of a call. */
static row row_of(const attn_call *c, int b, int h)
{
    size_t D = (size_t)c->s->Dv, at = (size_t)h * 4 * D;
    double *w = c->scratch;
    memset(w + 4 * D, 0, D * sizeof *w);
    return (row){ c, b, h, c->s->Dv, (const double *)c->param[W_X] + at * D, (const double *)c->param[W_H] + at * D,
                  (const double *)c->param[BIAS] + at, w, w + 4 * D, w + 5 * D };
}

/* This row's part of a state [B,H,D], NULL if there is none; and its row t of a tensor. */
static double *part(const row *r, const void *state) { return state ? (double *)state + ((size_t)r->b * r->c->s->Hk + r->h) * (size_t)r->D : NULL; }
static double *token(const row *r, attn_tensor x, int t) { return x.p ? (double *)x.p + r->b * x.sb + r->h * x.sh + t * x.st : NULL; }

/* c_t: kept for backward [B,H,T,D], or the running one. */
static double *cell(const row *r, int t)
{
    const attn_shape *s = r->c->s;
    return r->c->saved ? (double *)r->c->saved + (((size_t)r->b * s->Hk + r->h) * s->Tq + t) * (size_t)r->D : r->cell;
}

/* h_(t-1) and c_(t-1). */
static const double *hidden_before(const row *r, int t)
{
    const double *initial = part(r, r->c->state_in[HIDDEN]);
    return t ? token(r, r->c->o, t - 1) : initial ? initial : r->zeros;
}
static const double *cell_before(const row *r, int t)
{
    const double *initial = part(r, r->c->state_in[CELL]);
    return t ? cell(r, t - 1) : initial ? initial : r->zeros;
}

/* gates[4D] of token t. */
static void gates(const row *r, int t)
{
    const double *x = token(r, r->c->v, t), *h = hidden_before(r, t);
    for (int j = 0; j < 4 * r->D; j++) {
        double a = r->bias[j];
        for (int d = 0; d < r->D; d++) a += r->w_x[(size_t)j * r->D + d] * x[d] + r->w_h[(size_t)j * r->D + d] * h[d];
        r->gates[j] = j / r->D == 2 ? tanh(a) : 1 / (1 + exp(-a));
    }
}

/* The tokens of a row, and the state behind them. */
static void forward_row(const row *r)
{
    int D = r->D, T = r->c->s->Tq;
    const double *i = r->gates, *f = i + D, *g = f + D, *o = g + D;
    double *hT = part(r, r->c->state_out[HIDDEN]), *cT = part(r, r->c->state_out[CELL]);
    for (int t = 0; t < T; t++) {
        const double *before = cell_before(r, t);
        double *c = cell(r, t), *h = token(r, r->c->o, t);
        gates(r, t);
        for (int d = 0; d < D; d++) {
            c[d] = f[d] * before[d] + i[d] * g[d];
            h[d] = o[d] * tanh(c[d]);
        }
    }
    if (hT) memcpy(hT, token(r, r->c->o, T - 1), (size_t)D * sizeof *hT);
    if (cT) memcpy(cT, cell(r, T - 1), (size_t)D * sizeof *cT);
}

/* o, row by row. */
static int ref_forward(const attn_call *c)
{
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++) {
        row r = row_of(c, b, h);
        forward_row(&r);
    }
    return ATTN_OK;
}

/* The new tokens, from the state to the state. */
static int ref_decode(const attn_call *c)
{
    attn_call d = decoding(c, sizeof(double));
    return ref_forward(&d);
}

/* The gates become da of token t; dc moves on to c_(t-1). */
static void gate_gradients(const row *r, int t, const double *dh, double *dc)
{
    int D = r->D;
    double *a = r->gates;
    const double *d_o = token(r, r->c->d_o, t), *before = cell_before(r, t), *c = cell(r, t);
    gates(r, t);
    for (int d = 0; d < D; d++) {
        double i = a[d], f = a[D + d], g = a[2 * D + d], o = a[3 * D + d], y = d_o[d] + dh[d], tc = tanh(c[d]);
        double e = dc[d] + y * o * (1 - tc * tc);
        a[d] = e * g * i * (1 - i);
        a[D + d] = e * before[d] * f * (1 - f);
        a[2 * D + d] = e * i * (1 - g * g);
        a[3 * D + d] = y * tc * o * (1 - o);
        dc[d] = e * f;
    }
}

/* What da[4D] of token t gives to the weights. */
static void weight_gradients(const row *r, int t)
{
    const double *x = token(r, r->c->v, t), *h = hidden_before(r, t), *da = r->gates;
    size_t D = (size_t)r->D, at = (size_t)r->h * 4 * D;
    double *dw_x = r->c->dparam[W_X], *dw_h = r->c->dparam[W_H], *dbias = r->c->dparam[BIAS];
    for (size_t j = 0; j < 4 * D; j++) {
        for (size_t d = 0; dw_x && d < D; d++) dw_x[(at + j) * D + d] += da[j] * x[d];
        for (size_t d = 0; dw_h && d < D; d++) dw_h[(at + j) * D + d] += da[j] * h[d];
        if (dbias) dbias[at + j] += da[j];
    }
}

/* y[D] = w' da of w[4D,D]. */
static void transposed(const row *r, const double *w, double *y)
{
    for (int d = 0; d < r->D; d++) {
        y[d] = 0;
        for (int j = 0; j < 4 * r->D; j++) y[d] += w[(size_t)j * r->D + d] * r->gates[j];
    }
}

/* The tokens of a row from the last to the first. */
static void backward_row(const row *r)
{
    size_t bytes = (size_t)r->D * sizeof(double);
    double *dh = r->cell + r->D, *dc = dh + r->D, *dh0 = part(r, r->c->dstate_in[HIDDEN]), *dc0 = part(r, r->c->dstate_in[CELL]);
    memset(dh, 0, 2 * bytes);
    for (int t = r->c->s->Tq - 1; t >= 0; t--) {
        double *dx = token(r, r->c->dv, t);
        gate_gradients(r, t, dh, dc);
        weight_gradients(r, t);
        transposed(r, r->w_h, dh);
        if (dx) transposed(r, r->w_x, dx);
    }
    if (dh0) memcpy(dh0, dh, bytes);
    if (dc0) memcpy(dc0, dc, bytes);
}

/* All gradients, row by row. */
static int ref_backward(const attn_call *c)
{
    zero_unused(c, sizeof(double));
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++) {
        row r = row_of(c, b, h);
        backward_row(&r);
    }
    return ATTN_OK;
}

/* ---- fast --------------------------------------------------------------------------------------------------------- */

/* The problem of a call; every pointer is NULL where the call has none. */
static k_lstm problem(const attn_call *c)
{
    return (k_lstm){ .B = c->s->B, .H = c->s->Hk, .T = c->s->Tq, .D = c->s->Dv, .threads = c->nthreads,
                     .x = heads(c->v), .o = heads(c->o), .d_o = heads(c->d_o), .dx = heads(c->dv),
                     .w_x = c->param[W_X], .w_h = c->param[W_H], .bias = c->param[BIAS], .h0 = c->state_in[HIDDEN], .c0 = c->state_in[CELL],
                     .hT = c->state_out[HIDDEN], .cT = c->state_out[CELL], .cells = c->saved, .dw_x = c->dparam[W_X],
                     .dw_h = c->dparam[W_H], .dbias = c->dparam[BIAS], .dh0 = c->dstate_in[HIDDEN], .dc0 = c->dstate_in[CELL],
                     .scratch = c->scratch, .Dk = c->s->Dk, .dq = heads(c->dq), .dk = heads(c->dk) };
}

/* [cold] */
static int cpu_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    k_lstm l = { .B = s->B, .H = s->Hk, .T = s->Tq, .D = s->Dv };
    p->scratch_fwd = p->scratch_dec = k_lstm_scratch(&l, 0) * sizeof(float);
    p->scratch_bwd = s->training ? k_lstm_scratch(&l, 1) * sizeof(float) : 0;
    return plan_common(s, sizeof(float), p);
}

/* The fast form. */
static int cpu_forward(const attn_call *c) { k_lstm l = problem(c); return k_lstm_forward(&l), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_lstm l = problem(c); return zero_unused(c, sizeof(float)), k_lstm_backward(&l), ATTN_OK; }
static int cpu_decode(const attn_call *c) { attn_call d = decoding(c, sizeof(float)); return cpu_forward(&d); }

/* ---- on the GPU ---------------------------------------------------------------------------------------------------- */

/* Tensors may be of half the width; states and what is saved are float. */
static int accepts(const attn_shape *s, const void *opts, attn_plan *p)
{
    (void)opts;
    int rc = plan_common(s, (double)k_dtype_size((k_dtype)s->dtype), p);
    p->state_second = (size_t)s->B * (size_t)s->Hk * (size_t)s->Dv * sizeof(float);
    return rc;
}
static k_lstm cuda_shape(const attn_shape *s, const void *opts) { (void)opts; return (k_lstm){ .B = s->B, .H = s->Hk, .T = s->Tq, .D = s->Dv }; }
static k_lstm cuda_step(const attn_call *c) { attn_call d = decoding(c, sizeof(float)); return problem(&d); }
CUDA_IMPL(cuda, lstm, accepts, cuda_shape, problem, cuda_step)

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, ref_plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL } };
static const attn_variant LSTM = {
    .size = sizeof LSTM, .name = "lstm", .title = "Long short-term memory", .paper = "doi:10.1162/neco.1997.9.8.1735", .cost = "T Dv^2",
    .flags = ATTN_NO_Q | ATTN_NO_K, .params = PARAMS, .states = STATES, .impls = IMPLS };
ATTN_EXPORT(&LSTM);
