/* conv - convolution over the tokens, the comparator of the complexity table (Vaswani et al. 2017, arXiv:1706.03762).
 *
 *   o_t = bias + sum_tau W_tau x_(t + (tau - left) dilation),  tau = 0..K-1,  x = v, and 0 outside the sequence
 *
 * left = K-1 if causal, so that the last tap reads x_t; floor((K-1)/2) if bidirectional.  W_tau is a matrix (full) or a
 * diagonal (depthwise).  q and k are not inputs; heads are independent.  Nothing is saved.
 * Backward, with s = (tau - left) dilation:  dx_u = sum_tau W_tau' do_(u-s),  dW_tau = sum_t do_t x_(t+s)',  dbias = sum_t do_t.
 * Decode keeps the last (K-1) dilation tokens, row p of the sequence in row p mod (K-1) dilation. */
#include "attn.h"
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

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
    const char *why = refusal(s);
    if (why) {
        strcpy(p->why, why);
        return ATTN_EUNSUP;
    }
    int full = o->conv_type == FULL, D = s->Dv, K = o->kernel_size;
    double number = s->dtype == ATTN_F64 ? sizeof(double) : sizeof(float), bound = 1 / sqrt((double)K * (full ? D : 1));
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

/* x [B,H,T,D] becomes 0, if wanted: nothing depends on q and k. */
static void zero(attn_tensor x, size_t number, int B, int H, int T, int D)
{
    for (int b = 0; x.p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset((char *)x.p + at(&x, b, h, t) * (int64_t)number, 0, (size_t)D * number);
}

/* dq and dk. */
static void zero_unused(const attn_call *c, size_t number)
{
    const attn_shape *s = c->s;
    zero(c->dq, number, s->B, s->Hq, s->Tq, s->Dk);
    zero(c->dk, number, s->B, s->Hk, s->Tk, s->Dk);
}

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

/* ---- fast: one product per tap over a block of tokens ----------------------------------------------------------- */

enum { BLOCK = 256 };                   /* tokens that one thread takes at a time */

/* y[n,D] += x[n,D] W_tau' (or W_tau if back). */
static void product(const taps *k, int h, int tau, int back, int n, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    const float *W = (const float *)k->c->param[WEIGHT] + matrix(k, h, tau);
    if (k->full) k_sgemm(0, !back, n, k->D, k->D, 1, x, (int)ldx, W, k->D, 1, y, (int)ldy);
    else for (int t = 0; t < n; t++, x += ldx, y += ldy) {
        #pragma omp simd
        for (int d = 0; d < k->D; d++) y[d] += W[d] * x[d];
    }
}

/* y[t] += sum_tau W_tau x[t + s] (back: W_tau' x[t - s]) for the tokens t0..t1-1 of (b,h). */
static void convolve(const taps *k, int b, int h, int t0, int t1, attn_tensor x, attn_tensor y, int back)
{
    for (int tau = 0; tau < k->K; tau++) {
        int64_t s = back ? -shift(k, tau) : shift(k, tau), lo = t0 > -s ? t0 : -s, hi = t1 < k->T - s ? t1 : k->T - s;
        if (lo < hi) product(k, h, tau, back, (int)(hi - lo), ROW(float, x, b, h, lo + s), x.st, ROW(float, y, b, h, lo), y.st);
    }
}

/* y[D] = bias of head h. */
static void cpu_bias(const taps *k, int h, void *y)
{
    const float *bias = k->c->param[BIAS];
    if (bias) memcpy(y, bias + (size_t)h * k->D, (size_t)k->D * sizeof(float));
    else memset(y, 0, (size_t)k->D * sizeof(float));
}

/* y = bias + convolution, or the transposed one of gradients, over blocks of all heads. */
static void cpu_blocks(const taps *k, attn_tensor x, attn_tensor y, int back)
{
    int H = k->c->s->Hk, blocks = (k->T + BLOCK - 1) / BLOCK;
    int64_t units = (int64_t)k->c->s->B * H * blocks;
    #pragma omp parallel for schedule(static) num_threads(k->c->nthreads)
    for (int64_t u = 0; u < units; u++) {
        int b = (int)(u / blocks / H), h = (int)(u / blocks % H), t0 = (int)(u % blocks) * BLOCK, t1 = t0 + BLOCK < k->T ? t0 + BLOCK : k->T;
        for (int t = t0; t < t1; t++)
            if (back) memset(ROW(float, y, b, h, t), 0, (size_t)k->D * sizeof(float));
            else cpu_bias(k, h, ROW(float, y, b, h, t));
        convolve(k, b, h, t0, t1, x, y, back);
    }
}

/* o [B,H,T,Dv], block by block. */
static int cpu_forward(const attn_call *c)
{
    taps k = taps_of(c);
    cpu_blocks(&k, c->v, c->o, 0);
    return ATTN_OK;
}

/* dW_tau of head h += sum over the batch of do' x. */
static void weight_gradient(const taps *k, int h, int tau)
{
    const attn_call *c = k->c;
    float *dW = (float *)c->dparam[WEIGHT] + matrix(k, h, tau);
    int64_t s = shift(k, tau), lo = s < 0 ? -s : 0, hi = s > 0 ? k->T - s : k->T;
    for (int b = 0; b < c->s->B && lo < hi; b++) {
        const float *g = ROW(float, c->d_o, b, h, lo), *x = ROW(float, c->v, b, h, lo + s);
        if (k->full) k_sgemm(1, 0, k->D, k->D, (int)(hi - lo), 1, g, (int)c->d_o.st, x, (int)c->v.st, 1, dW, k->D);
        else for (int64_t t = lo; t < hi; t++, g += c->d_o.st, x += c->v.st) {
            #pragma omp simd
            for (int d = 0; d < k->D; d++) dW[d] += g[d] * x[d];
        }
    }
}

/* dv by blocks, dweight by taps, dbias by heads. */
static int cpu_backward(const attn_call *c)
{
    taps k = taps_of(c);
    int H = c->s->Hk, units = H * k.K;
    zero_unused(c, sizeof(float));
    if (c->dv.p) cpu_blocks(&k, c->d_o, c->dv, 1);
    if (c->dparam[WEIGHT]) {
        #pragma omp parallel for schedule(static) num_threads(c->nthreads)
        for (int u = 0; u < units; u++) weight_gradient(&k, u / k.K, u % k.K);
    }
    for (int h = 0; c->dparam[BIAS] && h < H; h++) for (int b = 0; b < c->s->B; b++) for (int t = 0; t < k.T; t++)
        k_saxpy(k.D, 1, ROW(float, c->d_o, b, h, t), (float *)c->dparam[BIAS] + (size_t)h * k.D);
    return ATTN_OK;
}

/* o[D] += W_tau x[D]. */
static void cpu_tap(const taps *k, int h, int tau, const void *x, void *o) { product(k, h, tau, 0, 1, x, k->D, o, k->D); }

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

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, plan, cpu_forward, cpu_backward, cpu_decode },
    { .name = NULL } };
static const attn_variant CONV = {
    .size = sizeof CONV, .name = "conv", .title = "Convolution over tokens", .paper = "arXiv:1706.03762", .cost = "T K Dv^2",
    .flags = ATTN_NO_Q | ATTN_NO_K, .opts_size = sizeof(opts), .opts = OPTS, .params = PARAMS, .impls = IMPLS };
ATTN_EXPORT(&CONV);
