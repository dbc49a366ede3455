/* valid.c - is a plug-in's table one that plan(), the host and a reader can rely on?
 *
 * Each check leaves one sentence that names the field; whoever has the path puts it in front. */
#include "options.h"
#include "plugin.h"
#include "nn/model.h"
#include "nn/train.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALL_DTYPES = ATTN_F32 | ATTN_BF16 | ATTN_F16 | ATTN_F64,
       ALL_MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS,
       ALL_PARAM_FLAGS = ATTN_FROZEN | ATTN_NO_DECAY | ATTN_REDRAW | ATTN_OPTIONAL,
       ALL_VARIANT_FLAGS = ATTN_LOOKS_AHEAD | ATTN_SHARED_QK | ATTN_NO_Q | ATTN_NO_K | ATTN_NONDET | ATTN_GROUPED_QK };

typedef struct why { char *text; size_t n; } why;

/* Writes the sentence; -1. */
__attribute__((format(printf, 2, 3)))
static int bad(why w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (w.n) vsnprintf(w.text, w.n, fmt, ap);
    va_end(ap);
    return -1;
}

/* ---- options --------------------------------------------------------------------------------------------- */
/* Size and alignment of the field of an option; 0 for an unknown type. */
static size_t field_size(int32_t type, size_t *align)
{
    *align = type == ATTN_FLOAT ? _Alignof(double) : type == ATTN_TEXT ? 1 : _Alignof(int32_t);
    return type == ATTN_TEXT ? ATTN_TEXT_SIZE : type == ATTN_FLOAT ? sizeof(double) : type == ATTN_INTS ? sizeof(attn_ints)
         : type >= ATTN_INT && type <= ATTN_INTS ? sizeof(int32_t) : 0;
}

/* Choices: a list of valid names, no name empty or twice, and the default one of them. */
static int check_choices(const attn_opt *o, why w)
{
    const char *seen[64];
    size_t n = 0;
    int rc = 0;
    if (!o->choices || !*o->choices) return bad(w, "option %s has no choices", o->name);
    char *copy = strdup(o->choices), *rest = copy, *one;
    while (!rc && (one = strsep(&rest, ","))) {
        if (n == 64) rc = bad(w, "option %s has more than 64 choices", o->name);
        else if (!hs_name_valid(one, 1) || strlen(one) > 63) rc = bad(w, "option %s has the choice '%s', which is not [a-z0-9_.]+", o->name, one);
        for (size_t i = 0; !rc && i < n; i++)
            if (!strcmp(seen[i], one)) rc = bad(w, "option %s has the choice %s twice", o->name, one);
        if (!rc) seen[n++] = one;
    }
    if (!rc && !(o->def >= 0 && o->def < (double)n && o->def == floor(o->def)))
        rc = bad(w, "the default of option %s is not the index of a choice", o->name);
    free(copy);
    return rc;
}

/* The default of a numeric or boolean option against its range. */
static int check_default(const attn_opt *o, why w)
{
    if (o->type == ATTN_CHOICE) return check_choices(o, w);
    if (o->type == ATTN_TEXT)
        return !o->choices || strlen(o->choices) < ATTN_TEXT_SIZE ? 0 : bad(w, "the default of option %s is too long", o->name);
    if (o->type == ATTN_BOOL)
        return o->def == 0 || o->def == 1 ? 0 : bad(w, "the default of option %s is neither 0 nor 1", o->name);
    if (!(o->min <= o->max)) return bad(w, "option %s has min above max", o->name);
    if (!(o->def >= o->min && o->def <= o->max) || (o->flags & ATTN_OPEN_MIN && o->def <= o->min))
        return bad(w, "the default %g of option %s is out of its range", o->def, o->name);
    if (o->type != ATTN_FLOAT && (o->def != floor(o->def) || o->min < INT32_MIN || o->max > INT32_MAX))
        return bad(w, "the default or range of option %s does not fit an int32", o->name);
    return 0;
}

/* An option table against the struct that it describes; dots: names such as stop.loss are fine. */
static int check_options(const attn_opt *table, size_t opts_size, why w)
{
    for (const attn_opt *o = table; o && o->name; o++) {
        size_t align, size = field_size(o->type, &align);
        if (!hs_name_valid(o->name, 1)) return bad(w, "option name '%s' is not [a-z0-9_.]+", o->name);
        if (!size) return bad(w, "option %s has the unknown type %d", o->name, o->type);
        if (o->off > opts_size || size > opts_size - o->off)
            return bad(w, "option %s lies outside the options struct of %zu bytes", o->name, opts_size);
        if (o->off % align) return bad(w, "option %s lies at the unaligned offset %zu", o->name, o->off);
        if (o->flags & ~(ATTN_OPEN_MIN | ATTN_DATA_SET | ATTN_OTHER_VARIANT) || (o->flags & ATTN_OTHER_VARIANT && o->type != ATTN_TEXT))
            return bad(w, "option %s has unknown flags", o->name);
        for (const attn_opt *p = table; p < o; p++) {
            size_t unused, psize = field_size(p->type, &unused);
            if (!strcmp(p->name, o->name)) return bad(w, "option %s comes twice", o->name);
            if (p->off < o->off + size && o->off < p->off + psize)
                return bad(w, "options %s and %s share a field", p->name, o->name);
        }
        if (check_default(o, w)) return -1;
    }
    return 0;
}

/* ---- tables of names --------------------------------------------------------------------------------------- */
/* Rows of `stride` bytes whose first member is their name: valid names, none twice, at most max of them. */
static int check_names(const char *what, const void *table, size_t stride, size_t max, why w)
{
    const char *row = table;
    for (size_t i = 0; row; i++) {
        const char *name = *(const char *const *)(row + i * stride);
        if (!name) break;
        if (i == max) return bad(w, "more than %zu %ss", max, what);
        if (!hs_name_valid(name, 0)) return bad(w, "%s name '%s' is not [a-z0-9_]+", what, name);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(name, *(const char *const *)(row + j * stride))) return bad(w, "%s %s comes twice", what, name);
    }
    return 0;
}

/* One implementation; first: it must be able to serve as the reference. */
static int check_impl(const attn_impl *impl, int first, why w)
{
    if (impl->device != ATTN_CPU && impl->device != ATTN_CUDA)
        return bad(w, "impl %s has device %d, neither ATTN_CPU nor ATTN_CUDA", impl->name, impl->device);
    if (!impl->dtypes || impl->dtypes & ~ALL_DTYPES) return bad(w, "impl %s has the dtypes mask %d", impl->name, impl->dtypes);
    if (!impl->modes || impl->modes & ~ALL_MODES) return bad(w, "impl %s has the modes mask %d", impl->name, impl->modes);
    if (!impl->plan) return bad(w, "impl %s has no plan()", impl->name);
    if (!impl->forward) return bad(w, "impl %s has no forward()", impl->name);
    if (first && (impl->device != ATTN_CPU || !(impl->dtypes & ATTN_F64)))
        return bad(w, "the first impl, %s, must be the reference: ATTN_CPU with ATTN_F64", impl->name);
    return 0;
}

/* See plugin.h. */
int hs_variant_valid(const attn_variant *v, char *text, size_t n)
{
    why w = { text, n };
    if (v->size < sizeof *v) return bad(w, "size is %u, less than the %zu bytes of ABI %d", v->size, sizeof *v, ATTN_ABI_MAJOR);
    if (!v->name) return bad(w, "the name is NULL");
    if (!hs_name_valid(v->name, 0)) return bad(w, "the name '%s' is not [a-z0-9_]+", v->name);
    if (v->flags & ~(uint32_t)ALL_VARIANT_FLAGS) return bad(w, "unknown flags 0x%x", v->flags);
    if (check_options(v->opts, v->opts_size, w)) return -1;
    if (check_names("gate", v->gates, sizeof *v->gates, ATTN_MAX, w)) return -1;
    if (check_names("param", v->params, sizeof *v->params, ATTN_MAX, w)) return -1;
    if (check_names("state", v->states, sizeof *v->states, ATTN_MAX, w)) return -1;
    for (const attn_param *p = v->params; p && p->name; p++)
        if (p->flags & ~ALL_PARAM_FLAGS) return bad(w, "param %s has unknown flags", p->name);
    if (!v->impls || !v->impls[0].name) return bad(w, "there are no impls");
    if (check_names("impl", v->impls, sizeof *v->impls, 64, w)) return -1;
    for (const attn_impl *impl = v->impls; impl->name; impl++)
        if (check_impl(impl, impl == v->impls, w)) return -1;
    return 0;
}

/* A task's own defaults of training or model options: known names, values in range. */
static int check_defaults(const task_default *d, const char *which, const attn_opt *table, why w)
{
    union { nn_train_opts train; nn_model_opts model; } scratch;
    char reason[256];
    for (; d && d->option; d++) {
        const attn_opt *o = hs_opts_find(table, d->option);
        if (!o) return bad(w, "%s names the unknown option %s", which, d->option);
        if (!d->value) return bad(w, "%s gives %s no value", which, d->option);
        if (hs_opt_set_text(o, &scratch, d->value, reason, sizeof reason)) return bad(w, "%s: %s", which, reason);
    }
    return 0;
}

/* See plugin.h. */
int hs_task_valid(const task *t, char *text, size_t n)
{
    why w = { text, n };
    if (t->size < TASK_LEAST) return bad(w, "size is %u, less than the %zu bytes of ABI %d", t->size, TASK_LEAST, TASK_ABI_MAJOR);
    if (!t->name) return bad(w, "the name is NULL");
    if (!hs_name_valid(t->name, 0)) return bad(w, "the name '%s' is not [a-z0-9_]+", t->name);
    if (check_options(t->opts, t->opts_size, w)) return -1;
    if (!t->metrics || !t->metrics[0].name) return bad(w, "there are no metrics");
    if (check_names("metric", t->metrics, sizeof *t->metrics, 256, w)) return -1;
    for (const task_metric *m = t->metrics; m->name; m++) {
        if (!m->unit || !*m->unit) return bad(w, "metric %s has no unit (\"1\" when there is none)", m->name);
        if (m->better < -1 || m->better > 1) return bad(w, "metric %s has better = %d, not -1, 0 or 1", m->name, m->better);
        if (m->series != 0 && m->series != 1) return bad(w, "metric %s has series = %d, not 0 or 1", m->name, m->series);
    }
    if (!t->run) return bad(w, "there is no run()");
    if (check_defaults(t->train_defaults, "train_defaults", nn_train_table, w)) return -1;
    return check_defaults(t->model_defaults, "model_defaults", nn_model_table, w);
}
