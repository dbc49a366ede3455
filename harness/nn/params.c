/* params.c - named parameters in blocks: values, gradients, and what the optimiser keeps; with bf16 one more.
 *
 * Invariants:
 *  1. Order in the blocks: learned with weight decay, tables of embeddings, learned without, frozen; each begins on K_ALIGN.  Matrices end
 *     with rows of zeros, up to a multiple of ROW_STEP, where tensor cores want a whole number of them.  All padding is zero in
 *     every block and stays zero under the optimiser.
 *  2. nn_params_zero_grad only marks gradients as fresh: the first backward that reaches one overwrites it, and
 *     what nothing reached is zeroed when it is first looked at.  So no step pays a pass of zeros.
 *  3. With bf16 the blocks are float, and `seen` is the values rounded once per step: graphs read that and add gradients
 *     up in float.
 *  4. Values come from (seed, FNV-1a of the name, draw); two names of one hash are refused. */
#include "internal.h"
#include "mixer_choose.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_STEP = 8 };

uint32_t nn_fnv1a(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

nn_params *nn_params_new(k_dev *dev, k_dtype dtype, uint64_t seed)
{
    nn_params *p = calloc(1, sizeof *p);
    if (p)
        *p = (nn_params){ .dev = dev, .dtype = dtype, .wide = dtype == K_BF16 ? K_F32 : dtype, .seed = seed };
    return p;
}

void nn_params_free(nn_params *p)
{
    if (!p)
        return;
    void *const blocks[] = { p->value, p->grad, p->m, p->v, p->second, p->seen != p->value ? p->seen : NULL, p->factor, p->forwards, p->average };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        k_free(p->dev, blocks[i]);
    for (int i = 0; i < p->count; i++)
        free(p->list[i].name);
    free(p->list);
    free(p);
}

/* Records the first mistake; nn_params_alloc and every graph that uses the parameter report it. */
static int mistake(nn_params *p, const char *name, const char *what)
{
    if (!p->why[0])
        snprintf(p->why, sizeof p->why, "parameter %.100s %s", name, what);
    return NN_BAD;
}

/* Names go into checkpoints as they are. */
static int name_ok(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= 100 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/") == n;
}

static int same_dims(attn_dims a, attn_dims b)
{
    return a.n == b.n && memcmp(a.d, b.d, (size_t)a.n * sizeof *a.d) == 0;
}

int nn_param(nn_params *p, const char *name, attn_dims dims, attn_init init, int flags)
{
    int64_t n = dims.n < 1 ? -1 : nn_elements(dims);
    if (!name_ok(name))
        return mistake(p, name, "has a name with other characters than letters, digits and _ . - /");
    if (n < 0 || ((init.kind == ATTN_INIT_ORTHO_CHI || init.kind == ATTN_INIT_ORTHO_SQRT) && dims.n < 2))
        return mistake(p, name, "has impossible dimensions");
    uint32_t stream = nn_fnv1a(name);
    for (int i = 0; i < p->count; i++) {
        if (strcmp(p->list[i].name, name) == 0)
            return same_dims(p->list[i].dims, dims) ? i : mistake(p, name, "is declared twice with unlike shapes");
        if (p->list[i].stream == stream)
            return mistake(p, name, "has the hash of another name: rename one");
    }
    if (p->allocated)
        return mistake(p, name, "is declared after nn_params_alloc");
    if (p->count == p->capacity) {
        int capacity = p->capacity ? 2 * p->capacity : 16;
        param *list = realloc(p->list, (size_t)capacity * sizeof *list);
        if (!list)
            return mistake(p, name, "found no host memory");
        p->list = list;
        p->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy)
        return mistake(p, name, "found no host memory");
    p->list[p->count] = (param){ .name = copy, .dims = dims, .init = init, .flags = flags, .stream = stream, .n = n };
    return p->count++;
}

int64_t nn_param_rows(const nn_params *p, int i)
{
    attn_dims d = p->list[i].dims;
    return d.n == 2 ? (d.d[0] + ROW_STEP - 1) / ROW_STEP * ROW_STEP : d.d[0];
}

/* Gives every parameter of one group its place, from `at` on; the end, which is aligned, is returned. */
static int64_t place(nn_params *p, int mask, int want, int64_t at)
{
    int64_t unit = K_ALIGN / (int64_t)k_dtype_size(p->dtype);
    for (int i = 0; i < p->count; i++)
        if ((p->list[i].flags & mask) == want) {
            int64_t rows = p->list[i].dims.d[0], n = rows ? p->list[i].n / rows * nn_param_rows(p, i) : 0;
            p->list[i].offset = at;
            at += (n + unit - 1) / unit * unit;
        }
    return at;
}

static char *element(const nn_params *p, char *block, int64_t offset)
{
    return block + offset * (int64_t)k_dtype_size(p->wide);
}

/* The value of a parameter of kind LOG_UNIFORM or STEP from u, uniform in [0, 1); the least u is not 0, lest its
 * logarithm be infinite. */
static double from_uniform(attn_init init, double u)
{
    if (init.kind == ATTN_INIT_LOG_UNIFORM)
        return log(init.a + (init.b - init.a) * fmax(u, 0x1p-24));
    double step = fmax(init.a * pow(init.b / init.a, u), 1e-4);
    return step + log(-expm1(-step));
}

/* Draws such a parameter, some numbers at a time: the functions are the host's. */
static void draw_mapped(nn_params *p, const param *q, k_rng rng)
{
    union { double f64[64]; float f32[64]; } u;
    k_random_uniform(p->dev, p->wide, q->n, element(p, p->value, q->offset), rng, 0, 1);
    for (int64_t at = 0; at < q->n; at += 64) {
        int64_t n = q->n - at < 64 ? q->n - at : 64;
        char *x = element(p, p->value, q->offset + at);
        k_download(p->dev, &u, x, (size_t)n * k_dtype_size(p->wide));
        for (int64_t i = 0; i < n; i++) {
            if (p->wide == K_F64)
                u.f64[i] = from_uniform(q->init, u.f64[i]);
            else
                u.f32[i] = (float)from_uniform(q->init, u.f32[i]);
        }
        k_upload(p->dev, x, &u, (size_t)n * k_dtype_size(p->wide));
    }
}

/* Fills one parameter with its initial or redrawn values. */
static void draw_param(nn_params *p, const param *q, uint32_t draw)
{
    void *x = element(p, p->value, q->offset);
    k_rng rng = { p->seed, q->stream, draw };
    int64_t D = q->dims.d[q->dims.n - 1], m = q->dims.n > 1 ? q->dims.d[q->dims.n - 2] : 1;
    switch (q->init.kind) {
    case ATTN_INIT_CONST:
        k_fill(p->dev, p->wide, q->n, x, q->init.a);
        break;
    case ATTN_INIT_NORMAL:
        k_random_normal(p->dev, p->wide, q->n, x, rng, q->init.a, q->init.b);
        break;
    case ATTN_INIT_UNIFORM:
        k_random_uniform(p->dev, p->wide, q->n, x, rng, q->init.a, q->init.b);
        break;
    case ATTN_INIT_FORGET:
        k_fill(p->dev, p->wide, q->n, x, q->init.a);
        for (int64_t i = 0; i < q->n / D; i++)
            k_fill(p->dev, p->wide, D / 4, element(p, p->value, q->offset + i * D + D / 4), q->init.b);
        break;
    case ATTN_INIT_LOG_UNIFORM:
    case ATTN_INIT_STEP:
        draw_mapped(p, q, rng);
        break;
    default:
        k_random_orthogonal(p->dev, p->wide, q->n / (m * D), m, D, x, rng, q->init.kind == ATTN_INIT_ORTHO_CHI);
    }
}

/* k_alloc, or, where bytes are counted, NULL and a number more. */
static int take(nn_params *p, k_tag tag, size_t bytes, void **out)
{
    *out = NULL;
    if (!p->counted)
        return k_alloc(p->dev, tag, bytes, out);
    p->counted[tag] += bytes;
    return 0;
}

/* One block of n elements, zeroed. */
static int take_block(nn_params *p, k_tag tag, k_dtype dtype, int64_t n, char **out, char *why, size_t nwhy)
{
    size_t bytes = (size_t)n * k_dtype_size(dtype);
    void *block = NULL;
    if (bytes && take(p, tag, bytes, &block)) {
        snprintf(why, nwhy, "parameters: %s", k_error(p->dev));
        return NN_ENOMEM;
    }
    if (block)
        k_zero(p->dev, block, bytes);
    *out = block;
    return 0;
}

/* Elements of Adafactor's moments of a parameter: a matrix has a row and a column of them. */
static int64_t seconds_of(const param *q)
{
    int64_t columns = q->dims.d[q->dims.n - 1];
    return q->dims.n > 1 && q->n > 0 ? q->n / columns + columns : q->n;
}

/* The moments of the optimiser that was asked for. */
static int take_moments(nn_params *p, char *why, size_t nwhy)
{
    int64_t n = 0;
    for (int i = 0; i < p->count; i++) {
        p->list[i].second = n;
        n += p->list[i].flags & ATTN_FROZEN ? 0 : seconds_of(&p->list[i]);
    }
    if (p->moments == NN_MOMENTS_FACTORED)
        return take_block(p, K_TAG_OPTIMISER, p->wide, n, &p->second, why, nwhy);
    int rc = take_block(p, K_TAG_OPTIMISER, p->wide, p->learned, &p->m, why, nwhy);
    return rc ? rc : take_block(p, K_TAG_OPTIMISER, p->wide, p->learned, &p->v, why, nwhy);
}

int nn_params_take_moments(nn_params *p, int which, char *why, size_t nwhy)
{
    if (p->moments) {
        if (p->moments == which)
            return 0;
        snprintf(why, nwhy, "the parameters have the moments of another optimiser");
        return ATTN_EINVAL;
    }
    p->moments = which;
    return p->allocated ? take_moments(p, why, nwhy) : 0;
}

int nn_params_alloc(nn_params *p, char *why, size_t nwhy)
{
    if (p->why[0] || p->allocated) {
        snprintf(why, nwhy, "%s", p->why[0] ? p->why : "nn_params_alloc was called twice");
        return ATTN_EINVAL;
    }
    if (p->dtype == K_BF16 && !k_dev_is_cuda(p->dev)) {
        snprintf(why, nwhy, "models train in bf16 on CUDA alone");
        return ATTN_EUNSUP;
    }
    p->decayed = place(p, ATTN_FROZEN | ATTN_NO_DECAY | NN_TABLE, 0, 0);
    p->tables = place(p, ATTN_FROZEN | ATTN_NO_DECAY | NN_TABLE, NN_TABLE, p->decayed);
    p->learned = place(p, ATTN_FROZEN | ATTN_NO_DECAY, ATTN_NO_DECAY, p->tables);
    p->all = place(p, ATTN_FROZEN, ATTN_FROZEN, p->learned);
    int rc = take_block(p, K_TAG_PARAM, p->wide, p->all, &p->value, why, nwhy);
    if (!rc)
        rc = take_block(p, K_TAG_GRAD, p->wide, p->learned, &p->grad, why, nwhy);
    p->seen = p->value;
    if (!rc && p->wide != p->dtype)
        rc = take_block(p, K_TAG_PARAM, p->dtype, p->all, &p->seen, why, nwhy);
    if (!rc && (take(p, K_TAG_OPTIMISER, sizeof *p->factor, (void **)&p->factor) ||
                take(p, K_TAG_OPTIMISER, sizeof *p->forwards, (void **)&p->forwards))) {
        snprintf(why, nwhy, "parameters: %s", k_error(p->dev));
        rc = NN_ENOMEM;
    }
    if (!rc && p->moments)
        rc = take_moments(p, why, nwhy);
    if (rc || p->counted)
        return rc;
    p->allocated = 1;
    nn_params_set_forwards(p, 0);
    for (int i = 0; i < p->count; i++)
        draw_param(p, &p->list[i], 0);
    nn_params_round(p);
    return 0;
}

int nn_params_count_bytes(const nn_params *p, size_t bytes[K_TAGS], char *why, size_t nwhy)
{
    nn_params counting = *p;            /* with the list of p, whose places are the same whenever they are given */
    counting.counted = bytes;
    return nn_params_alloc(&counting, why, nwhy);
}

void nn_params_round(nn_params *p)
{
    if (p->seen != p->value)
        k_convert(p->dev, p->all, p->seen, p->dtype, p->value, p->wide);
}

int nn_params_average(nn_params *p, char *why, size_t nwhy)
{
    int rc = take_block(p, K_TAG_OPTIMISER, p->wide, p->learned, &p->average, why, nwhy);
    if (!rc && p->learned)
        k_copy(p->dev, p->average, p->value, (size_t)p->learned * k_dtype_size(p->wide));
    return rc;
}

void nn_params_average_step(nn_params *p, double decay)
{
    if (decay > 0)
        k_approach(p->dev, p->wide, p->learned, 1 - decay, p->average, p->value);
    else if (p->learned)
        k_copy(p->dev, p->average, p->value, (size_t)p->learned * k_dtype_size(p->wide));
}

void nn_params_swap(nn_params *p)
{
    size_t bytes = (size_t)p->learned * k_dtype_size(p->wide);
    k_copy(p->dev, p->grad, p->value, bytes);
    k_copy(p->dev, p->value, p->average, bytes);
    k_copy(p->dev, p->average, p->grad, bytes);
    nn_params_zero_grad(p);
    nn_params_round(p);
}

int nn_params_count(const nn_params *p) { return p->count; }
const char *nn_param_name(const nn_params *p, int i) { return p->list[i].name; }
attn_dims nn_param_dims(const nn_params *p, int i) { return p->list[i].dims; }
int64_t nn_params_step(const nn_params *p) { return p->step; }

int64_t nn_params_elements(const nn_params *p, int learned_only)
{
    int64_t n = 0;
    for (int i = 0; i < p->count; i++)
        if (!learned_only || !(p->list[i].flags & ATTN_FROZEN))
            n += p->list[i].n;
    return n;
}

void *nn_param_value(nn_params *p, int i) { return p->value ? element(p, p->value, p->list[i].offset) : NULL; }
void *nn_param_seen(nn_params *p, int i)
{
    return p->seen ? p->seen + p->list[i].offset * (int64_t)k_dtype_size(p->dtype) : NULL;
}

void *nn_param_grad(nn_params *p, int i)
{
    param *q = &p->list[i];
    if ((q->flags & ATTN_FROZEN) || !p->grad)
        return NULL;
    char *g = element(p, p->grad, q->offset);
    if (q->fresh)
        k_zero(p->dev, g, (size_t)q->n * k_dtype_size(p->wide));
    q->fresh = 0;
    return g;
}

void nn_params_redraw(nn_params *p, uint32_t draw)
{
    for (int i = 0; i < p->count; i++)
        if (p->list[i].flags & ATTN_REDRAW)
            draw_param(p, &p->list[i], draw);
    nn_params_round(p);
}

void nn_params_set_forwards(nn_params *p, uint32_t n) { k_upload(p->dev, p->forwards, &n, sizeof n); }

uint32_t nn_params_forwards(nn_params *p)
{
    uint32_t n;
    k_download(p->dev, &n, p->forwards, sizeof n);
    return n;
}

void nn_params_zero_grad(nn_params *p)
{
    for (int i = 0; i < p->count; i++)
        p->list[i].fresh = !(p->list[i].flags & ATTN_FROZEN);
}

void nn_params_settle(nn_params *p)
{
    for (int i = 0; i < p->count; i++)
        if (p->list[i].fresh)
            nn_param_grad(p, i);
}
