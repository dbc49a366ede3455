/* conv - convolution over the tokens, the comparator of the complexity table (Vaswani et al. 2017, arXiv:1706.03762).
 *
 *   o_t = bias + sum_tau W_tau x_(t + (tau - left) dilation),  tau = 0..K-1,  x = v, and 0 outside the sequence
 *
 * left = K-1 if causal, so that the last tap reads x_t; floor((K-1)/2) if bidirectional.  W_tau is a matrix (full) or a
 * diagonal (depthwise).  q and k are not inputs; heads are independent.  Nothing is saved.
 * Backward, with s = (tau - left) dilation:  dx_u = sum_tau W_tau' do_(u-s),  dW_tau = sum_t do_t x_(t+s)',  dbias = sum_t do_t.
 * Decode keeps the last (K-1) dilation tokens, row p of the sequence in row p mod (K-1) dilation.
 * The loops of "ref" are this file; the float form is kernels/conv.h. */
#include "values_only.h"
#include <math.h>

typedef struct { int32_t conv_type, kernel_size, dilation, bias; } opts;
enum { FULL, DEPTHWISE };
static const attn_opt OPTS[] = {
    { "conv_type", "every channel reads all channels of its head, or itself alone", offsetof(opts, conv_type), ATTN_CHOICE, 0, 0, 0, "full,depthwise", 0 },
    { "kernel_size", "taps, K", offsetof(opts, kernel_size), ATTN_INT, 3, 1, 1 << 20, NULL, 0 },
    { "dilation", "tokens from one tap to the next", offsetof(opts, dilation), ATTN_INT, 1, 1, 1 << 20, NULL, 0 },
    { "bias", "add a learned bias", offsetof(opts, bias), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { .name = NULL } };
enum { WEIGHT, BIAS };
static const attn_param PARAMS[] = {
    { "weight", "[H,K,Dv,Dv], or [H,K,Dv] if depthwise", 0 }, { "bias", "[H,Dv]", ATTN_NO_DECAY }, { .name = NULL } };

/* ---- the problem ------------------------------------------------------------------------------------------- */

/* Tokens that decode keeps: as far back as the first tap reads, and never more than there are. */
static int64_t window(const attn_shape *s, const opts *o)
{
    int64_t span = (int64_t)(o->kernel_size - 1) * o->dilation;
    return span < s->Tk ? span : s->Tk;
}

/* Why this is not defined, or NULL. */
static const char *refusal(const attn_shape *s)
{
    if (s->mode == ATTN_CROSS) return "a convolution over one sequence has no cross form";
    if (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk) return "every token is convolved in its place: Tq must be Tk";
    if (s->Hq != s->Hk) return "q is not an input, so no query heads share a head of v: Hq must be Hk";
    if (s->klen) return "key lengths are not defined for a convolution (pad with zeros on the right)";
    return NULL;
}

/* Rule: a multiply-add of every token with every tap, edges included; x and o once each way, the weights once. */
static int plan(const attn_shape *s, const void *opt, attn_plan *p)
{
    const opts *o = opt;
    if (refused(p, refusal(s))) return ATTN_EUNSUP;
    int full = o->conv_type == FULL, D = s->Dv, K = o->kernel_size;
    double number = (double)k_dtype_size((k_dtype)s->dtype), bound = 1 / sqrt((double)K * (full ? D : 1));
    p->param_dims[WEIGHT] = full ? (attn_dims){ 4, { s->Hk, K, D, D } } : (attn_dims){ 3, { s->Hk, K, D } };
    p->param_init[WEIGHT] = (attn_init){ ATTN_INIT_UNIFORM, -bound, bound };
    if (o->bias) p->param_dims[BIAS] = (attn_dims){ 2, { s->Hk, D } };
    p->state = (size_t)s->B * (size_t)s->Hk * (size_t)window(s, o) * (size_t)D * (size_t)number;
    if (!p->state) p->state = 1;        /* one tap needs no memory; 0 would mean that there is no decoding */
    double rows = (double)s->B * s->Hk * s->Tq, weights = (double)s->Hk * K * D * (full ? D : 1);
    p->flops_fwd = 2 * rows * K * D * (full ? D : 1);
    p->flops_bwd = 2 * p->flops_fwd;
    p->bytes_fwd = (2 * rows * D + weights) * number;
    p->bytes_bwd = (3 * rows * D + 2 * weights) * number;
    return ATTN_OK;
}

/* The taps of a call. */
typedef struct taps { const attn_call *c; int K, D, T, left, full; int64_t dilation; size_t size; } taps;   /* size: numbers of one W_tau */
static taps taps_of(const attn_call *c)
{
    const opts *o = c->opts;
    int K = o->kernel_size, D = c->s->Dv, full = o->conv_type == FULL;
    return (taps){ c, K, D, c->s->Tq, c->s->mode == ATTN_CAUSAL ? K - 1 : (K - 1) / 2, full, o->dilation, (size_t)D * (full ? D : 1) };
}

/* How far from t tap tau reads, and where W_tau of head h begins. */
static int64_t shift(const taps *k, int tau) { return (tau - k->left) * k->dilation; }
static size_t matrix(const taps *k, int h, int tau) { return ((size_t)h * k->K + tau) * k->size; }

/* Element 0 of row (b,h,t). */
static int64_t at(const attn_tensor *x, int b, int h, int64_t t) { return b * x->sb + h * x->sh + t * x->st; }
#define ROW(type, x, b, h, t) ((type *)(x).p + at(&(x), b, h, t))

/* ---- the definition ------------------------------------------------------------------------------------------ */

/* o[D] = bias of head h. */
static void ref_bias(const taps *k, int h, void *o)
{
    const double *bias = k->c->param[BIAS];
    for (int d = 0; d < k->D; d++) ((double *)o)[d] = bias ? bias[(size_t)h * k->D + d] : 0;
}

/* o[D] += W_tau x[D]. */
static void ref_tap(const taps *k, int h, int tau, const void *xs, void *os)
{
    const double *W = (const double *)k->c->param[WEIGHT] + matrix(k, h, tau), *x = xs;
    double *o = os;
    for (int d = 0; d < k->D; d++)
        if (k->full) for (int e = 0; e < k->D; e++) o[d] += W[(size_t)d * k->D + e] * x[e];
        else o[d] += W[d] * x[d];
}

/* o [B,H,T,Dv]. */
static int ref_forward(const attn_call *c)
{
    taps k = taps_of(c);
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++) for (int t = 0; t < k.T; t++) {
        double *o = ROW(double, c->o, b, h, t);
        ref_bias(&k, h, o);
        for (int tau = 0; tau < k.K; tau++) {
            int64_t j = t + shift(&k, tau);
            if (j >= 0 && j < k.T) ref_tap(&k, h, tau, ROW(double, c->v, b, h, j), o);
        }
    }
    return ATTN_OK;
}

/* dx[D] += W_tau' g[D] and dW_tau += g x'; either may be NULL. */
static void ref_tap_backward(const taps *k, int h, int tau, const double *x, const double *g, double *dx, double *dW)
{
    const double *W = (const double *)k->c->param[WEIGHT] + matrix(k, h, tau);
    for (int d = 0; d < k->D; d++) for (int e = k->full ? 0 : d; e < (k->full ? k->D : d + 1); e++) {
        size_t i = k->full ? (size_t)d * k->D + e : (size_t)d;
        if (dx) dx[e] += W[i] * g[d];
        if (dW) dW[i] += g[d] * x[e];
    }
}

/* dv, dweight and dbias. */
static int ref_backward(const attn_call *c)
{
    taps k = taps_of(c);
    double *dW = c->dparam[WEIGHT], *dbias = c->dparam[BIAS];
    zero_unused(c, sizeof(double));
    zero(c->dv, sizeof(double), c->s->B, c->s->Hk, k.T, k.D);
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++) for (int t = 0; t < k.T; t++) {
        const double *g = ROW(double, c->d_o, b, h, t);
        for (int tau = 0; tau < k.K; tau++) {
            int64_t j = t + shift(&k, tau);
            if (j >= 0 && j < k.T) ref_tap_backward(&k, h, tau, ROW(double, c->v, b, h, j), g, c->dv.p ? ROW(double, c->dv, b, h, j) : NULL,
                                                    dW ? dW + matrix(&k, h, tau) : NULL);
        }
        for (int d = 0; dbias && d < k.D; d++) dbias[(size_t)h * k.D + d] += g[d];
    }
    return ATTN_OK;
}

/* ---- fast --------------------------------------------------------------------------------------------------------- */

/* The problem of a call; every pointer is NULL where the call has none. */
static k_conv problem(const attn_call *c)
{
    const attn_shape *s = c->s;
    taps k = taps_of(c);
    return (k_conv){ .B = s->B, .H = s->Hk, .T = k.T, .D = k.D, .K = k.K, .left = k.left, .full = k.full, .threads = c->nthreads,
                     .dilation = k.dilation, .x = heads(c->v), .o = heads(c->o), .d_o = heads(c->d_o), .dx = heads(c->dv),
                     .weight = c->param[WEIGHT], .bias = c->param[BIAS], .dweight = c->dparam[WEIGHT], .dbias = c->dparam[BIAS],
                     .Dk = s->Dk, .dq = heads(c->dq), .dk = heads(c->dk) };
}

/* The fast form, and a token of it. */
static int cpu_forward(const attn_call *c) { k_conv p = problem(c); return k_conv_forward(&p), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_conv p = problem(c); return zero_unused(c, sizeof(float)), k_conv_backward(&p), ATTN_OK; }
static void cpu_bias(const taps *k, int h, void *o) { k_conv p = problem(k->c); k_conv_bias(&p, h, o); }
static void cpu_tap(const taps *k, int h, int tau, const void *x, void *o) { k_conv p = problem(k->c); k_conv_tap(&p, h, tau, x, o); }

/* ---- decode --------------------------------------------------------------------------------------------------------- */

typedef void bias_fn(const taps *, int h, void *o);
typedef void tap_fn(const taps *, int h, int tau, const void *x, void *o);

/* The new tokens of (b,h): each reads the ring of rows [rows,D], then takes the place of the oldest. */
static void decode_head(const taps *k, int b, int h, int64_t rows, size_t number, bias_fn *bias, tap_fn *tap)
{
    const attn_call *c = k->c;
    size_t row = (size_t)k->D * number;
    char *ring = (char *)c->state + ((size_t)b * c->s->Hk + h) * (size_t)rows * row;
    for (int t = 0; t < k->T; t++) {
        int64_t now = c->pos + t;
        const char *x = (const char *)c->v.p + at(&c->v, b, h, t) * (int64_t)number;
        char *o = (char *)c->o.p + at(&c->o, b, h, t) * (int64_t)number;
        bias(k, h, o);
        for (int tau = 0; tau < k->K; tau++) {
            int64_t j = now + shift(k, tau);
            if (j >= 0) tap(k, h, tau, j == now ? x : ring + (size_t)(j % rows) * row, o);
        }
        if (rows) memcpy(ring + (size_t)(now % rows) * row, x, row);
    }
}

/* All heads. */
static int decode(const attn_call *c, size_t number, bias_fn *bias, tap_fn *tap)
{
    taps k = taps_of(c);
    for (int b = 0; b < c->s->B; b++) for (int h = 0; h < c->s->Hk; h++)
        decode_head(&k, b, h, window(c->s, c->opts), number, bias, tap);
    return ATTN_OK;
}

/* The same for both precisions. */
static int ref_decode(const attn_call *c) { return decode(c, sizeof(double), ref_bias, ref_tap); }
static int cpu_decode(const attn_call *c) { return decode(c, sizeof(float), cpu_bias, cpu_tap); }

/* ---- on the GPU ----------------------------------------------------------------------------------------------------- */

/* The kernels need no memory, so that the shape does not matter, and the state is that of the CPU. */
static k_conv cuda_shape(const attn_shape *s, const void *opts) { return (void)s, (void)opts, (k_conv){ 0 }; }
CUDA_IMPL(cuda, conv, plan, cuda_shape, problem, problem)

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL } };
static const attn_variant CONV = {
    .size = sizeof CONV, .name = "conv", .title = "Convolution over tokens", .paper = "arXiv:1706.03762", .cost = "T K Dv^2",
    .flags = ATTN_NO_Q | ATTN_NO_K, .opts_size = sizeof(opts), .opts = OPTS, .params = PARAMS, .impls = IMPLS };
ATTN_EXPORT(&CONV);
