/* favor_error - how far random-feature attention is from the softmax attention that it estimates (Fig. 4 of
 * arXiv:2009.14794), and how far theory says it should be.
 *
 * q, k, v are random; a sample draws them and the variant's random matrix anew, by the host's rule.  Four errors, each
 * the mean over the samples with its interval:
 *
 *   output_error            mean of (o^ - o)^2, o softmax attention in double on the very same inputs
 *   output_error_relative   the same by the mean of o^2
 *   map_error               of the attention matrix, sum (A^ - A)^2 / sum A^2
 *   kernel_error            of the estimate of exp(q.k), before any division, sum (K^ - K)^2 / sum K^2
 *
 * `columns` columns of A^ come out of the same pass, because a value that is 1 at token j and 0 elsewhere comes out as
 * column j.  quantity: expected gives the same numbers in closed form for independent features.  With q and k scaled as
 * the variant scales them, one feature estimates K_j = exp(q.k_j) by f_j, and for each feature_type
 *
 *   E f_j f_l = alpha_j alpha_l exp(k_j.k_l) + beta_j beta_l exp(-k_j.k_l)
 *
 *                 positive             hyperbolic                 trig
 *   alpha_j   e^(|q|^2/2 + 2 q.k_j)   the same / sqrt 2          e^(|q|^2/2) / sqrt 2
 *   beta_j    0                       e^(-|q|^2/2) / sqrt 2      e^(-|q|^2/2 + 2 q.k_j) / sqrt 2
 *
 * The kernel's error is (E f_j^2 - K_j^2) / m, which is the paper's lemma on its variance; that is exact.  To first order
 * o^ - o is sum_j (K^_j - K_j) (v_j - o) / sum_j K_j, so that
 *
 *   E |o^ - o|^2 = sum_jl E f_j f_l (v_j - o).(v_l - o) / (m (sum_j K_j)^2) + O(m^-2)
 *
 * where sum_j K_j (v_j - o) = 0 has taken the mean away.  Beyond first order stands a sum of weights that is itself
 * estimated badly: there measured errors leave the line. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/nn/train.h"
#include "kernels/features.h"
#include "kernels/philox.h"

enum { MEASURED, EXPECTED };
enum { NORMAL, SPHERE };
enum { OUTPUT, OUTPUT_RELATIVE, MAP, KERNEL, ERRORS };
enum { STREAM_Q = 1, STREAM_K, STREAM_V, STREAM_BOOTSTRAP };    /* of the Philox counter; the draw is the sample */
enum { ROWS = 256, RESAMPLES = 2000, BUFFERS = 16 };            /* ROWS: of a square matrix, at a time */

typedef struct opts { int32_t quantity, length, dim, samples, columns, queries, inputs; double scale; } opts;

#define OFF(f) offsetof(opts, f)
static const attn_opt OPTS[] = {
    { "quantity", "the errors as they come out, or as theory expects them of independent features", OFF(quantity), ATTN_CHOICE,
      MEASURED, 0, 0, "measured,expected", 0 },
    { "length", "L: tokens, bidirectional", OFF(length), ATTN_INT, 4096, 1, 1 << 16, NULL, 0 },
    { "dim", "D: width of q, k and v", OFF(dim), ATTN_INT, 16, 1, 1024, NULL, 0 },
    { "samples", "draws of inputs and features", OFF(samples), ATTN_INT, 15, 2, 1 << 16, NULL, 0 },
    { "columns", "keys whose column of the attention matrix is looked at; as many queries and keys make the pairs of the kernel",
      OFF(columns), ATTN_INT, 64, 1, 4096, NULL, 0 },
    { "queries", "expected: queries that the errors of output and attention matrix are averaged over", OFF(queries), ATTN_INT, 4, 1,
      1 << 16, NULL, 0 },
    { "inputs", "q and k: normal numbers, or rows of the length sqrt(D) scale in all directions", OFF(inputs), ATTN_CHOICE, NORMAL,
      0, 0, "normal,sphere", 0 },
    { "scale", "standard deviation of the entries of q and k", OFF(scale), ATTN_FLOAT, 1, 0, 4, NULL, 0 },
    { .name = NULL } };

#define ERROR_ROWS(name, help) \
    { name, "1", help, -1, 0 }, { name "_low", "1", "lower end of its 95 % interval over the samples, by bootstrap", -1, 0 }, \
    { name "_high", "1", "upper end of its 95 % interval over the samples, by bootstrap", -1, 0 }, \
    { name "_sample", "1", "of every sample", -1, 1 }
static const task_metric METRICS[] = {
    ERROR_ROWS("output_error", "mean squared error of the output"),
    ERROR_ROWS("output_error_relative", "squared error of the output, relative"),
    ERROR_ROWS("map_error", "squared error of the attention matrix, relative"),
    ERROR_ROWS("kernel_error", "squared error of the kernel, relative"),
    { .name = NULL } };
static const char *const NAMES[ERRORS] = { "output_error", "output_error_relative", "map_error", "kernel_error" };

typedef struct run {
    const task_call *call;
    const opts *o;
    k_dev *dev;
    int64_t L, D, C, W, R;              /* W = D + C: width of a value, R: queries of the expected errors */
    k_features features;                /* of the variant; m == 0: it has none that are known here */
    double scale2;                      /* what q.k is multiplied by */
    nn_mixer_spec spec;
    nn_params *params;
    int proj;                           /* the random matrix in params, NN_NONE: none */
    nn_mixer *mixer;
    nn_mixer_io io;
    void *q64, *k64, *v64, *out64;      /* device: [L,D] [L,D] [L,W+1] [L,W+1]; a column of ones after v */
    void *q, *k, *v, *out;              /* the same in the dtype of the cell, out [L,W]; measured only */
    void *square;                       /* [ROWS,L] */
    void *weights, *sums;               /* [L,R(D+1)] both; expected only */
    void *buffer[BUFFERS];
    int nbuffers;
    double *hq, *hk, *hv, *exact, *got; /* host: [L,D] [L,D] [L,W+1] [L,W+1], got [L,W] or [L,R(D+1)] */
    double *hweights;                   /* host: [L,R(D+1)] */
    double *sample[ERRORS];             /* [samples] */
    char why[512];
} run;

/* Bytes of n doubles. */
static size_t bytes64(int64_t n) { return (size_t)n * sizeof(double); }

/* The product of two vectors [n]. */
static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* ---- what the variant says of its features ------------------------------------------------------------------ */

/* The field of an option of the variant, NULL when it has none of that name. */
static const void *variant_option(const nn_mixer_spec *m, const char *name)
{
    for (const attn_opt *o = m->variant->opts; o && o->name; o++)
        if (strcmp(o->name, name) == 0) return (const char *)m->opts + o->off;
    return NULL;
}

/* The features that theory speaks of: those of FAVOR+ without stabiliser and epsilon.  m is the plan's. */
static void find_features(run *r, const attn_plan *plan)
{
    static const k_favor types[] = { K_FAVOR_POSITIVE, K_FAVOR_HYPERBOLIC, K_FAVOR_TRIG };
    const int32_t *type = variant_option(&r->spec, "feature_type");
    const double *scale = variant_option(&r->spec, "input_scale");
    double s = scale && *scale > 0 ? *scale : pow((double)r->D, -0.25);
    r->scale2 = s * s;
    if (type && r->proj != NN_NONE)
        r->features = (k_features){ .map = K_MAP_FAVOR, .D = (int)r->D, .favor = types[*type], .input_scale = s,
                                    .m = (int)plan->param_dims[0].d[1] };
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* k_alloc, freed with the run. */
static int take(run *r, size_t bytes, void **out)
{
    if (k_alloc(r->dev, K_TAG_DATA, bytes, out)) {
        snprintf(r->why, sizeof r->why, "inputs and outputs: %s", k_error(r->dev));
        return NN_ENOMEM;
    }
    r->buffer[r->nbuffers++] = *out;
    return ATTN_OK;
}

/* The host's arrays. */
static int make_host(run *r)
{
    int64_t L = r->L, wide = r->R * (r->D + 1);
    r->hq = calloc(1, bytes64(L * r->D)), r->hk = calloc(1, bytes64(L * r->D)), r->hv = calloc(1, bytes64(L * (r->W + 1)));
    r->exact = calloc(1, bytes64(L * (r->W + 1))), r->got = calloc(1, bytes64(L * (r->W > wide ? r->W : wide)));
    r->hweights = calloc(1, bytes64(L * wide));
    int whole = r->hq && r->hk && r->hv && r->exact && r->got && r->hweights;
    for (int e = 0; e < ERRORS; e++) {
        r->sample[e] = calloc((size_t)r->o->samples, sizeof(double));
        whole = whole && r->sample[e];
    }
    if (!whole) snprintf(r->why, sizeof r->why, "no memory on the host for %d tokens", r->o->length);
    return whole ? ATTN_OK : NN_ENOMEM;
}

/* The device's arrays. */
static int make_device(run *r)
{
    size_t element = k_dtype_size(r->call->dtype);
    int64_t L = r->L, X = r->W + 1, wide = r->R * (r->D + 1);
    const struct { void **to; size_t bytes; int wanted; } list[] = {
        { &r->q64, bytes64(L * r->D), 1 }, { &r->k64, bytes64(L * r->D), 1 }, { &r->v64, bytes64(L * X), 1 },
        { &r->out64, bytes64(L * X), 1 }, { &r->square, bytes64(ROWS * L), 1 },
        { &r->q, (size_t)(L * r->D) * element, 1 }, { &r->k, (size_t)(L * r->D) * element, 1 }, { &r->v, (size_t)(L * X) * element, 1 },
        { &r->out, (size_t)(L * r->W) * element, r->o->quantity == MEASURED },
        { &r->weights, bytes64(L * wide), r->o->quantity == EXPECTED }, { &r->sums, bytes64(L * wide), r->o->quantity == EXPECTED } };
    int rc = ATTN_OK;
    for (size_t i = 0; rc == ATTN_OK && i < sizeof list / sizeof *list; i++)
        if (list[i].wanted) rc = take(r, list[i].bytes, list[i].to);
    return rc;
}

/* The mixer's parameters, each drawn as in a model. */
static int make_params(run *r, const attn_plan *plan)
{
    const attn_variant *v = r->spec.variant;
    int id[ATTN_MAX];
    r->proj = NN_NONE;
    r->params = nn_params_new(r->dev, r->call->dtype, r->call->seed);
    for (int i = 0; i < ATTN_MAX; i++) {
        id[i] = NN_NONE;
        if (!plan->param_dims[i].n || v->params[i].flags & ATTN_OPTIONAL) continue;
        id[i] = nn_param(r->params, v->params[i].name, plan->param_dims[i], plan->param_init[i], v->params[i].flags | ATTN_FROZEN);
        if (i == 0 && strcmp(v->params[i].name, "proj") == 0) r->proj = id[i];
    }
    int rc = nn_params_alloc(r->params, r->why, sizeof r->why);
    for (int i = 0; rc == ATTN_OK && i < ATTN_MAX; i++)
        r->io.param[i] = id[i] == NN_NONE ? NULL : nn_param_value(r->params, id[i]);
    return rc;
}

/* Whether theory has something to say; a sentence if not. */
static int is_expectable(run *r)
{
    const int32_t *projection = variant_option(&r->spec, "projection");
    if (r->features.m == 0)
        snprintf(r->why, sizeof r->why, "theory expects errors of the features of performer alone");
    else if (!projection || *projection != 1)
        snprintf(r->why, sizeof r->why, "the closed forms are those of independent features (projection: iid)");
    else
        return 1;
    return 0;
}

/* Plans, draws and allocates. */
static int build(run *r)
{
    attn_plan plan;
    int rc = nn_mixer_ask(r->dev, &r->spec, 0, &plan, r->why, sizeof r->why);
    for (int i = 0; rc == ATTN_OK && i < ATTN_MAX; i++)
        if (plan.gate_width[i]) {
            snprintf(r->why, sizeof r->why, "the gates of %s would have to be learned", r->spec.variant->name);
            return ATTN_EUNSUP;
        }
    if (rc == ATTN_OK) rc = make_params(r, &plan);
    if (rc != ATTN_OK) return rc;
    find_features(r, &plan);
    if (r->o->quantity == EXPECTED && !is_expectable(r)) return ATTN_EUNSUP;
    rc = make_host(r);
    if (rc == ATTN_OK) rc = make_device(r);
    if (rc != ATTN_OK || r->o->quantity == EXPECTED) return rc;
    r->io.seed = r->call->seed;
    r->io.q = nn_tensor_of(r->q, 1, r->L, r->D, 0);
    r->io.k = nn_tensor_of(r->k, 1, r->L, r->D, 0);
    r->io.v = nn_tensor_of(r->v, 1, r->L, r->W + 1, 0);
    r->io.o = nn_tensor_of(r->out, 1, r->L, r->W, 0);
    return nn_mixer_new(r->dev, &r->spec, 0, &r->mixer, r->why, sizeof r->why);
}

/* ---- inputs and exact attention ----------------------------------------------------------------------------------- */

/* x [L,width] of the host becomes the device's x64 and, rounded, x; both the host's and x64 are what x holds. */
static void send(run *r, int64_t width, double *host, void *x64, void *x)
{
    int64_t n = r->L * width;
    k_upload(r->dev, x64, host, bytes64(n));
    k_convert(r->dev, n, x, r->call->dtype, x64, K_F64);
    k_convert(r->dev, n, x64, K_F64, x, r->call->dtype);
    k_download(r->dev, host, x64, bytes64(n));
}

/* x [L,D]: normal numbers. */
static void draw(run *r, uint32_t stream, int s, double sd, double *x)
{
    k_random_normal(r->dev, K_F64, r->L * r->D, r->out64, (k_rng){ r->call->seed, stream, (uint32_t)s }, 0, sd);
    k_download(r->dev, x, r->out64, bytes64(r->L * r->D));
}

/* q or k [L,D] of sample s. */
static void draw_rows(run *r, uint32_t stream, int s, double *x)
{
    draw(r, stream, s, r->o->scale, x);
    for (int64_t i = 0; r->o->inputs == SPHERE && i < r->L; i++) {
        double *row = x + i * r->D, f = r->o->scale * sqrt((double)r->D / dot(r->D, row, row));
        for (int64_t d = 0; d < r->D; d++) row[d] *= f;
    }
}

/* q, k and v of sample s; v [L,W+1]: normal numbers, ones on the diagonal, ones. */
static void draw_inputs(run *r, int s)
{
    int64_t X = r->W + 1;
    draw_rows(r, STREAM_Q, s, r->hq);
    draw_rows(r, STREAM_K, s, r->hk);
    draw(r, STREAM_V, s, 1, r->got);
    memset(r->hv, 0, bytes64(r->L * X));
    for (int64_t j = 0; j < r->L; j++) {
        memcpy(r->hv + j * X, r->got + j * r->D, bytes64(r->D));
        if (j < r->C) r->hv[j * X + r->D + j] = 1;
        r->hv[j * X + r->W] = 1;
    }
    send(r, r->D, r->hq, r->q64, r->q);
    send(r, r->D, r->hk, r->k64, r->k);
    send(r, X, r->hv, r->v64, r->v);
}

/* out [L,width] = exp(scale x k^T) y, device, x [L,D], y [L,width]: some rows at a time. */
static void exponential_product(run *r, double scale, const double *x, int64_t width, const void *y, double *out)
{
    for (int64_t at = 0; at < r->L; at += ROWS) {
        int64_t n = r->L - at < ROWS ? r->L - at : ROWS;
        k_gemm(r->dev, K_F64, 0, 1, n, r->L, r->D, scale, x + at * r->D, r->D, r->k64, r->D, 0, r->square, r->L);
        k_unary_forward(r->dev, K_F64, K_EXP, n * r->L, r->square, r->square);
        k_gemm(r->dev, K_F64, 0, 0, n, width, r->L, 1, r->square, r->L, y, width, 0, out + at * width, width);
    }
}

/* exact [L,W+1]: softmax attention, and in the last column the sum of the weights. */
static void attend(run *r)
{
    int64_t X = r->W + 1;
    exponential_product(r, r->scale2, r->q64, X, r->v64, r->out64);
    k_download(r->dev, r->exact, r->out64, bytes64(r->L * X));
    for (int64_t i = 0; i < r->L; i++)
        for (int64_t d = 0; d < r->W; d++) r->exact[i * X + d] /= r->exact[i * X + r->W];
}

/* ---- measured ---------------------------------------------------------------------------------------------------------- */

/* phi [C,M] of x [C,D], the host's: a new array, NULL without memory. */
static double *features_of(const k_features *f, k_role role, int n, const double *x)
{
    int64_t M = k_features_width(f);
    double *phi = malloc(bytes64(n * M)), *work = malloc(k_features_work(f, n) * sizeof *work);
    if (phi && work) k_dfeatures_forward(f, role, n, x, f->D, NULL, phi, M, work);
    else free(phi), phi = NULL;
    free(work);
    return phi;
}

/* The error of phi(q).phi(k) over C times C pairs: the features in double, of the matrix that was drawn.  -1 without memory.
 * Those of trig leave out e^(|q|^2/2), which a division by the sum of the weights takes away anyhow. */
static double measure_kernel(run *r)
{
    k_features f = r->features;
    int64_t n = (int64_t)f.m * r->D, M = k_features_width(&f);
    double error = 0, total = 0, *W = malloc(bytes64(n)), *a = NULL, *b = NULL;
    const void *drawn = nn_param_value(r->params, r->proj);
    void *on_device;
    if (W && k_alloc(r->dev, K_TAG_DATA, bytes64(n), &on_device) == 0) {
        k_convert(r->dev, n, on_device, K_F64, drawn, r->call->dtype == K_F64 ? K_F64 : K_F32);
        k_download(r->dev, W, on_device, bytes64(n));
        k_free(r->dev, on_device);
        f.W = W;
        a = features_of(&f, K_QUERY, (int)r->C, r->hq);
        b = features_of(&f, K_KEY, (int)r->C, r->hk);
    }
    for (int64_t i = 0; a && b && i < r->C; i++) {
        const double *q = r->hq + i * r->D;
        double left_out = f.favor == K_FAVOR_TRIG ? exp(r->scale2 * dot(r->D, q, q) / 2) : 1;
        for (int64_t j = 0; j < r->C; j++) {
            double K = exp(r->scale2 * dot(r->D, q, r->hk + j * r->D)), e = left_out * dot(M, a + i * M, b + j * M) - K;
            error += e * e, total += K * K;
        }
    }
    int whole = a && b;
    free(W), free(a), free(b);
    return whole ? error / total : -1;
}

/* The errors of one sample as they are. */
static int measure(run *r, int s, double error[ERRORS])
{
    int64_t X = r->W + 1, n = r->L * r->W;
    double sum[2] = { 0 }, total[2] = { 0 };            /* of the output, of the matrix */
    nn_params_redraw(r->params, (uint32_t)s);
    if (nn_mixer_forward(r->mixer, &r->io)) {
        snprintf(r->why, sizeof r->why, "the forward pass failed: %s", k_error(r->dev));
        return TASK_FAILED;
    }
    k_convert(r->dev, n, r->out64, K_F64, r->out, r->call->dtype);
    k_download(r->dev, r->got, r->out64, bytes64(n));
    for (int64_t i = 0; i < r->L; i++)
        for (int64_t d = 0; d < r->W; d++) {
            double o = r->exact[i * X + d], e = r->got[i * r->W + d] - o;
            sum[d >= r->D] += e * e, total[d >= r->D] += o * o;
        }
    error[OUTPUT] = sum[0] / (double)(r->L * r->D);
    error[OUTPUT_RELATIVE] = sum[0] / total[0];
    error[MAP] = sum[1] / total[1];
    if (r->features.m) error[KERNEL] = measure_kernel(r);
    if (!(error[KERNEL] < 0)) return TASK_DONE;
    snprintf(r->why, sizeof r->why, "no memory for %d features of %lld tokens", r->features.m, (long long)r->C);
    return TASK_FAILED;
}

/* ---- expected ------------------------------------------------------------------------------------------------------------ */

/* alpha (sign 1) or beta (sign -1) of a pair, from eta = |q|^2 / 2 and s = q.k, both scaled. */
static double factor(k_favor type, int sign, double eta, double s)
{
    int squared = type == K_FAVOR_TRIG ? -1 : 1;        /* which of the two has e^(2s) */
    if (type == K_FAVOR_POSITIVE) return sign > 0 ? exp(eta + 2 * s) : 0;
    return exp(sign * eta + (sign == squared ? 2 * s : 0)) * M_SQRT1_2;
}

/* The paper's lemma: the error of one feature's estimate over C times C pairs, by the sum of K^2. */
static double expect_kernel(const run *r)
{
    k_favor type = r->features.favor;
    double error = 0, total = 0;
    for (int64_t i = 0; i < r->C; i++)
        for (int64_t j = 0; j < r->C; j++) {
            const double *q = r->hq + i * r->D, *k = r->hk + j * r->D;
            double s = r->scale2 * dot(r->D, q, k), n = r->scale2 * (dot(r->D, q, q) + dot(r->D, k, k)), K2 = exp(2 * s);
            double z = n + 2 * s, far = -expm1(2 * s - n);      /* |q + k|^2; 1 - exp(-|q - k|^2) */
            if (type == K_FAVOR_TRIG) error += exp(z) / K2 * far * far / 2;
            else error += K2 * expm1(z) * (type == K_FAVOR_HYPERBOLIC ? -expm1(-z) / 2 : 1);
            total += K2;
        }
    return error / total;
}

/* hweights [L,R,D+1]: of each query factor (v_j - o), and factor alone. */
static void weigh(run *r, int sign)
{
    int64_t X = r->W + 1, D = r->D;
    for (int64_t j = 0; j < r->L; j++)
        for (int64_t i = 0; i < r->R; i++) {
            const double *q = r->hq + i * D, *o = r->exact + i * X, *v = r->hv + j * X;
            double *u = r->hweights + (j * r->R + i) * (D + 1);
            u[D] = factor(r->features.favor, sign, r->scale2 * dot(D, q, q) / 2, r->scale2 * dot(D, q, r->hk + j * D));
            for (int64_t d = 0; d < D; d++) u[d] = u[D] * (v[d] - o[d]);
        }
}

/* Adds what the products of factors and exp(sign k_j.k_l) contribute: to sum[0] of the outputs, to sum[1] of the matrix. */
static void expect_part(run *r, int sign, double sum[2])
{
    int64_t D = r->D, width = r->R * (D + 1), X = r->W + 1;
    weigh(r, sign);
    k_upload(r->dev, r->weights, r->hweights, bytes64(r->L * width));
    exponential_product(r, sign * r->scale2, r->k64, width, r->weights, r->sums);
    k_download(r->dev, r->got, r->sums, bytes64(r->L * width));
    for (int64_t i = 0; i < r->R; i++) {
        const double *u = r->hweights + i * (D + 1), *y = r->got + i * (D + 1), *A = r->exact + i * X + D;
        double all = 0, outputs = 0, matrix = 0, weight = r->exact[i * X + r->W];
        for (int64_t j = 0; j < r->L; j++) {
            outputs += dot(D, u + j * width, y + j * width);
            all += u[j * width + D] * y[j * width + D];
        }
        for (int64_t c = 0; c < r->C; c++) {
            const double *k = r->hk + c * D;
            double a = u[c * width + D];
            matrix += a * a * exp(sign * r->scale2 * dot(D, k, k)) - 2 * A[c] * a * y[c * width + D] + A[c] * A[c] * all;
        }
        sum[0] += outputs / (weight * weight);
        sum[1] += matrix / (weight * weight);
    }
}

/* The errors that independent features would have in the mean, given the inputs of this sample. */
static void expect(run *r, double error[ERRORS])
{
    int64_t X = r->W + 1;
    double sum[2] = { 0 }, total[2] = { 0 }, m = r->features.m;
    expect_part(r, 1, sum);
    if (r->features.favor != K_FAVOR_POSITIVE) expect_part(r, -1, sum);
    for (int64_t i = 0; i < r->R; i++)
        for (int64_t d = 0; d < r->W; d++) total[d >= r->D] += r->exact[i * X + d] * r->exact[i * X + d];
    error[OUTPUT] = sum[0] / m / (double)(r->R * r->D);
    error[OUTPUT_RELATIVE] = sum[0] / m / total[0];
    error[MAP] = sum[1] / m / total[1];
    error[KERNEL] = expect_kernel(r) / m;
}

/* ---- a cell ------------------------------------------------------------------------------------------------------------------ */

/* For qsort. */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Reports the mean of x [n], its interval by bootstrap, and the values. */
static void report(const run *r, int e, const double *x, int32_t n)
{
    const task_host *h = r->call->host;
    double mean = 0, *drawn = calloc(RESAMPLES, sizeof *drawn);
    char name[64];
    for (int32_t s = 0; s < n; s++) mean += x[s] / n;
    h->metric(h->ctx, NAMES[e], 0, mean);
    for (uint32_t k = 0; drawn && k < RESAMPLES; k++)
        for (int32_t s = 0; s < n; s++) {
            uint32_t word = philox4x32_10(r->call->seed, (uint64_t)s, STREAM_BOOTSTRAP, k).v[0];
            drawn[k] += x[philox_below(word, (uint32_t)n)] / n;
        }
    if (drawn) {
        qsort(drawn, RESAMPLES, sizeof *drawn, by_value);
        snprintf(name, sizeof name, "%s_low", NAMES[e]);
        h->metric(h->ctx, name, 0, drawn[RESAMPLES / 40]);
        snprintf(name, sizeof name, "%s_high", NAMES[e]);
        h->metric(h->ctx, name, 0, drawn[RESAMPLES - 1 - RESAMPLES / 40]);
    }
    snprintf(name, sizeof name, "%s_sample", NAMES[e]);
    for (int32_t s = 0; s < n; s++) h->metric(h->ctx, name, s, x[s]);
    free(drawn);
}

/* All samples; a TASK_ code. */
static int take_samples(run *r)
{
    const task_host *h = r->call->host;
    int rc = TASK_DONE;
    for (int s = 0; rc == TASK_DONE && s < r->o->samples; s++) {
        double error[ERRORS] = { 0 };
        if (h->stop(h->ctx)) return TASK_INTERRUPTED;
        draw_inputs(r, s);
        attend(r);
        if (r->o->quantity == EXPECTED) expect(r, error);
        else rc = measure(r, s, error);
        for (int e = 0; e < ERRORS; e++) r->sample[e][s] = error[e];
        h->progress(h->ctx, s + 1, r->o->samples, "samples", error[OUTPUT]);
    }
    return rc;
}

/* Frees what the run took. */
static void release(run *r)
{
    nn_mixer_free(r->mixer);
    nn_params_free(r->params);
    while (r->nbuffers > 0) k_free(r->dev, r->buffer[--r->nbuffers]);
    free(r->hq), free(r->hk), free(r->hv), free(r->exact), free(r->got), free(r->hweights);
    for (int e = 0; e < ERRORS; e++) free(r->sample[e]);
}

/* More columns or queries than tokens are a mistake. */
static int check(const void *opts_, char *why, size_t nwhy)
{
    const opts *o = opts_;
    if (o->columns <= o->length && o->queries <= o->length) return 0;
    snprintf(why, nwhy, "%s %d is more than length %d", o->columns > o->length ? "columns" : "queries",
             o->columns > o->length ? o->columns : o->queries, o->length);
    return -1;
}

/* One cell. */
static int task_run(const task_call *call)
{
    const opts *o = call->opts;
    run r = { .call = call, .o = o, .dev = call->dev, .L = o->length, .D = o->dim, .C = o->columns, .W = o->dim + o->columns,
              .R = o->queries, .spec = *call->mixer };
    r.spec.shape = (attn_shape){ .B = 1, .Hq = 1, .Hk = 1, .Hv = 1, .Tq = o->length, .Tk = o->length, .Dk = o->dim,
                                 .Dv = o->dim + o->columns, .mode = ATTN_BIDIR, .dtype = (int32_t)call->dtype };
    int rc = build(&r);
    rc = rc == ATTN_OK ? take_samples(&r) : nn_task_code(rc);
    for (int e = 0; rc == TASK_DONE && e < ERRORS; e++)
        if (e != KERNEL || r.features.m) report(&r, e, r.sample[e], o->samples);
    if (rc != TASK_DONE) call->host->reason(call->host->ctx, r.why);
    release(&r);
    return rc;
}

static const task FAVOR_ERROR = {
    .size = sizeof(task), .name = "favor_error", .title = "Error of random-feature attention", .paper = "arXiv:2009.14794",
    .opts_size = sizeof(opts), .opts = OPTS, .metrics = METRICS, .check = check, .run = task_run };
TASK_EXPORT(&FAVOR_ERROR);
