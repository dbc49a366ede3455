/* attention_map.c - see attention_map.h. */
#include "attention_map.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double LINEAR = 1e-6;      /* the map times v against the output, relative */

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

/* The call with values and output of its own, of one block of columns. */
typedef struct reading {
    k_dev *dev;
    nn_mixer *mixer;
    nn_mixer_io io;
    k_dtype dtype;
    int64_t T, D, heads, value_heads;   /* heads: of o */
    void *host, *v, *o;                 /* [T,max(value_heads,heads),D] here; [T,value_heads,D] and [T,heads,D] there */
} reading;

static int reading_init(reading *r, k_dev *dev, nn_seen seen, char *why, size_t nwhy)
{
    nn_mixer_spec spec = *seen.spec;
    const attn_shape *s = &spec.shape;
    spec.common.output_norm = NN_OUTPUT_NORM_NONE;
    spec.lent = 0;                      /* what the graph lends its own mixer */
    *r = (reading){ .dev = dev, .io = *seen.io, .dtype = (k_dtype)s->dtype, .T = s->Tk, .D = s->Dv, .heads = attn_out_heads(s),
                    .value_heads = s->Hv ? s->Hv : s->Hk };
    size_t each = k_dtype_size(r->dtype) * (size_t)(r->T * r->D), most = (size_t)(r->heads > r->value_heads ? r->heads : r->value_heads);
    r->host = malloc(each * most);
    if (!r->host || k_alloc(dev, K_TAG_WORKSPACE, each * (size_t)r->value_heads, &r->v) ||
        k_alloc(dev, K_TAG_WORKSPACE, each * (size_t)r->heads, &r->o)) return snprintf(why, nwhy, "out of memory for attention"), -1;
    r->io.v = nn_tensor_of(r->v, r->value_heads, r->T, r->D, 0);
    r->io.o = nn_tensor_of(r->o, r->heads, r->T, r->D, 0);
    return nn_mixer_new(dev, &spec, 0, &r->mixer, why, nwhy) ? -1 : 0;
}

static void reading_release(reading *r)
{
    nn_mixer_free(r->mixer);
    k_free(r->dev, r->v);
    k_free(r->dev, r->o);
    free(r->host);
}

static void put(const reading *r, int64_t at, double x)
{
    if (r->dtype == K_F64) ((double *)r->host)[at] = x;
    else ((float *)r->host)[at] = (float)x;
}

static double get(const reading *r, int64_t at) { return r->dtype == K_F64 ? ((double *)r->host)[at] : ((float *)r->host)[at]; }

/* Columns from..from+n-1 of the values, the same for every head, through the variant into out [H,T,columns]. */
static int read_block(reading *r, int64_t from, int64_t n, int64_t columns, hs_value_fn *value, const void *ctx, double *out)
{
    size_t each = k_dtype_size(r->dtype) * (size_t)(r->T * r->D);
    for (int64_t t = 0; t < r->T; t++)
        for (int64_t e = 0; e < r->D; e++) {
            double x = e < n ? value(ctx, t, from + e) : 0;
            for (int64_t h = 0; h < r->value_heads; h++) put(r, (t * r->value_heads + h) * r->D + e, x);
        }
    k_upload(r->dev, r->v, r->host, each * (size_t)r->value_heads);
    if (nn_mixer_forward(r->mixer, &r->io)) return -1;
    k_download(r->dev, r->host, r->o, each * (size_t)r->heads);
    for (int64_t h = 0; h < r->heads; h++)
        for (int64_t t = 0; t < r->T; t++)
            for (int64_t e = 0; e < n; e++) out[(h * r->T + t) * columns + from + e] = get(r, (t * r->heads + h) * r->D + e);
    return 0;
}

int hs_attention_read(k_dev *dev, nn_seen seen, int64_t columns, hs_value_fn *value, const void *ctx, double *out, char *why, size_t nwhy)
{
    reading r;
    int rc = reading_init(&r, dev, seen, why, nwhy);
    for (int64_t at = 0; !rc && at < columns; at += r.D)
        if (read_block(&r, at, columns - at < r.D ? columns - at : r.D, columns, value, ctx, out))
            rc = (snprintf(why, nwhy, "%s failed", seen.spec->variant->name), -1);
    reading_release(&r);
    return rc;
}

/* ---- the call again, in double ---------------------------------------------------------------------------------------------- */

typedef struct twin {
    k_dev *dev;                         /* the CPU */
    nn_mixer_spec spec;
    nn_mixer_io io;
    attn_plan plan;
    void *block[4 + 2 * ATTN_MAX];      /* what its tensors lie in */
    int n;
} twin;

/* A dense array of the call's device as double here; NULL: out of memory. */
static void *widen(twin *t, k_dev *from, const void *p, int64_t n, int is_double)
{
    double *wide = malloc((size_t)n * sizeof *wide);
    float *raw = is_double ? NULL : malloc((size_t)n * sizeof *raw);
    if (wide && is_double) k_download(from, wide, p, (size_t)n * sizeof *wide);
    if (wide && raw) {
        k_download(from, raw, p, (size_t)n * sizeof *raw);
        for (int64_t i = 0; i < n; i++) wide[i] = (double)raw[i];
    }
    int ok = wide && (raw || is_double);
    free(raw);
    if (!ok) free(wide), wide = NULL;
    return t->block[t->n++] = wide;
}

/* A tensor [1,T,H,D], dense as the graph keeps it; -1: out of memory. */
static int widen_tensor(twin *t, k_dev *from, attn_tensor in, int64_t H, int64_t D, attn_tensor *out)
{
    const attn_shape *s = &t->spec.shape;
    *out = (attn_tensor){ 0 };
    if (!in.p) return 0;
    void *p = widen(t, from, in.p, s->Tk * H * D, t->spec.shape.dtype == ATTN_F64);
    if (p) *out = nn_tensor_of(p, H, s->Tk, D, 0);
    return p ? 0 : -1;
}

static void twin_release(twin *t)
{
    for (int i = 0; i < t->n; i++) free(t->block[i]);
    if (t->dev) k_dev_close(t->dev);
}

/* The reference's call of the same problem on the CPU. */
static int twin_init(twin *t, k_dev *from, nn_seen seen, char *why, size_t nwhy)
{
    const attn_shape *s = &seen.spec->shape;
    const int32_t Hv = s->Hv ? s->Hv : s->Hk;
    *t = (twin){ .spec = *seen.spec };
    if (k_dev_open("cpu", 1, &t->dev, why, nwhy)) return -1;
    if (nn_mixer_ask(from, &t->spec, 0, &t->plan, why, nwhy)) return -1;
    int rc = widen_tensor(t, from, seen.io->q, s->Hq, s->Dk, &t->io.q) || widen_tensor(t, from, seen.io->k, s->Hk, s->Dk, &t->io.k) ||
             widen_tensor(t, from, seen.io->v, Hv, s->Dv, &t->io.v);
    for (int i = 0; !rc && i < ATTN_MAX; i++) {
        rc = widen_tensor(t, from, seen.io->gate[i], Hv, t->plan.gate_width[i], &t->io.gate[i]);
        int64_t n = 1;
        for (int k = 0; k < t->plan.param_dims[i].n; k++) n *= t->plan.param_dims[i].d[k];
        if (!rc && seen.io->param[i] && t->plan.param_dims[i].n)
            rc = !(t->io.param[i] = widen(t, from, seen.io->param[i], n, s->dtype == ATTN_F64));
    }
    t->io.seed = seen.io->seed;
    t->spec.impl = t->spec.variant->impls[0].name;
    t->spec.shape.dtype = ATTN_F64;
    return rc ? (snprintf(why, nwhy, "out of memory for attention"), -1) : 0;
}

/* ---- the map ---------------------------------------------------------------------------------------------------------------- */

static double identity(const void *ctx, int64_t row, int64_t column) { (void)ctx; return row == column; }

static const attn_map *own_map(const attn_variant *v)
{
    const attn_map *m = v->ext ? v->ext(ATTN_MAP_ID) : NULL;
    return m && m->size >= sizeof *m ? m : NULL;
}

int hs_attention_sums_to_one(nn_seen seen)
{
    const attn_map *m = own_map(seen.spec->variant);
    return m && m->rows_sum_to_one(&seen.spec->shape, seen.spec->opts);
}

/* The variant's own map.  1: it has none with these options. */
static int compute_own(const twin *t, double *map, char *why, size_t nwhy)
{
    const attn_variant *v = t->spec.variant;
    const attn_map *m = own_map(v);
    attn_plan plan = { 0 };
    attn_shape s = t->spec.shape;
    s.Hv = s.Hv ? s.Hv : s.Hk;
    if (!m || v->impls[0].plan(&s, t->spec.opts, &plan)) return 1;
    attn_call c = { .size = sizeof c, .nthreads = 1, .s = &s, .plan = &plan, .opts = t->spec.opts, .q = t->io.q, .v = t->io.v,
                    .k = v->flags & ATTN_SHARED_QK ? t->io.q : t->io.k, .seed = t->io.seed };
    memcpy(c.gate, t->io.gate, sizeof c.gate);
    memcpy(c.param, t->io.param, sizeof c.param);
    int rc = m->compute(&c, map);
    if (rc && rc != ATTN_EUNSUP) snprintf(why, nwhy, "the map of %s failed with code %d", v->name, rc);
    return rc == ATTN_EUNSUP ? 1 : rc ? -1 : 0;
}

/* The values of one head, read by all. */
typedef struct values { const twin *t; int64_t head; } values;
static double value_of(const void *ctx, int64_t row, int64_t column)
{
    const values *v = ctx;
    const attn_tensor *x = &v->t->io.v;
    return ((const double *)x->p)[v->head * x->sh + row * x->st + column];
}

/* Whether the map times v is the output, for every head. */
static int is_linear(const twin *t, const double *map, char *why, size_t nwhy)
{
    const attn_shape *s = &t->spec.shape;
    const int64_t T = s->Tk, D = s->Dv, H = attn_out_heads(s), Hv = s->Hv ? s->Hv : s->Hk;
    double *o = malloc((size_t)(H * T * D) * sizeof *o), error = 0, size = 0;
    int rc = o ? 0 : -1;
    for (int64_t g = 0; !rc && g < Hv; g++) {
        if ((rc = hs_attention_read(t->dev, (nn_seen){ &t->spec, &t->io }, D, value_of, &(values){ t, g }, o, why, nwhy))) break;
        for (int64_t h = g * H / Hv; h < (g + 1) * H / Hv; h++)
            for (int64_t at = 0; at < T * D; at++) {
                double sum = 0;
                for (int64_t j = 0; j < T; j++) sum += map[(h * T + at / D) * T + j] * value_of(&(values){ t, g }, j, at % D);
                error += (sum - o[h * T * D + at]) * (sum - o[h * T * D + at]);
                size += o[h * T * D + at] * o[h * T * D + at];
            }
    }
    free(o);
    if (!rc && sqrt(error) > LINEAR * sqrt(size))
        rc = (snprintf(why, nwhy, "the output of %s is no sum of its values with one weight each: it has no attention map", t->spec.variant->name), -1);
    return rc;
}

int hs_attention_map(k_dev *dev, nn_seen seen, enum hs_map_by *by, double *map, char *why, size_t nwhy)
{
    twin t;
    int rc = twin_init(&t, dev, seen, why, nwhy), own = 1;
    if (!rc && *by != HS_MAP_VALUES && (own = compute_own(&t, map, why, nwhy)) < 0) rc = -1;
    if (!rc && own == 1 && *by == HS_MAP_OWN)
        rc = (snprintf(why, nwhy, "%s has no explicit map with these options", seen.spec->variant->name), -1);
    if (!rc && own == 1) rc = hs_attention_read(t.dev, (nn_seen){ &t.spec, &t.io }, seen.spec->shape.Tk, identity, NULL, map, why, nwhy);
    *by = own == 1 ? HS_MAP_VALUES : HS_MAP_OWN;
    if (!rc) rc = is_linear(&t, map, why, nwhy);
    twin_release(&t);
    return rc;
}
