/* cmd_apply.c - `harness apply`: one variant on the user's own NPY tensors, which is how anyone compares us.
 *
 * Invariants:
 *  1. Tensors, options and shapes are named as in VARIANTS 12 and 13: q, k, v, o are [B,H,T,D].
 *  2. Results have the precision of the inputs: float64 runs the reference, float32 the fastest impl.
 *  3. Nothing is written before everything was computed. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "command.h"
#include "nn/mixer.h"
#include "nn/nn.h"
#include "npy.h"
#include "options.h"
#include "plan.h"
#include "plugin.h"

enum { MOST = 3 * ATTN_MAX + 1 };
/* What the command line asks for. */
typedef struct request {
    const char *variant, *q, *k, *v, *klen, *d_o, *mode, *impl, *out;
    const char *gate[MOST], *param[MOST], *state[MOST];     /* "NAME=FILE" */
    int ngate, nparam, nstate, nset, threads;
    char **set;                         /* "option=value" */
    uint64_t seed;
} request;

typedef struct input { hs_npy a; const char *path; } input;     /* path NULL: not given */
typedef struct apply {
    request r;
    hs_plugin plugin;
    const attn_variant *variant;
    void *opts;
    int nb_features_set;
    k_dev *dev;
    hs_npy_type type;                   /* of every tensor in and out */
    const char *typed;                  /* the file that said so */
    nn_mixer_spec spec;
    attn_plan plan;
    nn_params *params;
    int param_id[ATTN_MAX];
    nn_mixer *mixer;
    nn_mixer_io io;
    input q, k, v, d_o, klen, gate[ATTN_MAX], param[ATTN_MAX], state[ATTN_MAX];
    char why[600];
} apply;

/* The sentence and the exit code of a failure. */
__attribute__((format(printf, 3, 4)))
static int fail(apply *a, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(a->why, sizeof a->why, fmt, ap);
    va_end(ap);
    return code;
}

/* ---- the command line ------------------------------------------------------------------------------- */
/* One long option; -1 when it is none of ours. */
static int take_option(request *r, int o, const char *arg)
{
    char *end = NULL;
    long long number = arg ? strtoll(arg, &end, 10) : 0;
    int whole = end && end != arg && !*end;
    switch (o) {
    case 'q': r->q = arg; return 0;
    case 'k': r->k = arg; return 0;
    case 'v': r->v = arg; return 0;
    case 'd': r->d_o = arg; return 0;
    case 'l': r->klen = arg; return 0;
    case 'm': r->mode = arg; return 0;
    case 'i': r->impl = arg; return 0;
    case 'o': r->out = arg; return 0;
    case 'g': return r->ngate < MOST ? r->gate[r->ngate++] = arg, 0 : -1;
    case 'p': return r->nparam < MOST ? r->param[r->nparam++] = arg, 0 : -1;
    case 's': return r->nstate < MOST ? r->state[r->nstate++] = arg, 0 : -1;
    case 'S': r->seed = (uint64_t)number; return whole && number >= 0 ? 0 : -1;
    case 't': r->threads = (int)number; return whole && number >= 1 && number <= 1024 ? 0 : -1;
    default: return -1;
    }
}

/* HS_EXIT_USAGE or HS_EXIT_OK (help) when the command ends here, else -1. */
static int parse(request *r, int argc, char **argv)
{
    static const struct option longs[] = {
        { "q", 1, NULL, 'q' }, { "k", 1, NULL, 'k' }, { "v", 1, NULL, 'v' }, { "do", 1, NULL, 'd' }, { "kv-len", 1, NULL, 'l' },
        { "mode", 1, NULL, 'm' }, { "impl", 1, NULL, 'i' }, { "out", 1, NULL, 'o' }, { "gate", 1, NULL, 'g' }, { "param", 1, NULL, 'p' },
        { "state", 1, NULL, 's' }, { "seed", 1, NULL, 'S' }, { "threads", 1, NULL, 't' }, { "help", 0, NULL, 'h' }, { 0 } };
    const hs_command *me = hs_command_find("apply");
    char complaint[200];
    *r = (request){ .seed = 1 };
    optind = 0, opterr = 0;
    for (int o; (o = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        if (o == 'h') return hs_usage(me, NULL);
        if (!take_option(r, o, optarg)) continue;
        snprintf(complaint, sizeof complaint, "%s is unknown, lacks its value or has a wrong one", argv[optind - 1]);
        return hs_usage(me, complaint);
    }
    if (optind == argc) return hs_usage(me, "which variant? give a name (harness list variants) or a path to a .so");
    r->variant = argv[optind];
    r->set = argv + optind + 1, r->nset = argc - optind - 1;
    if (!r->v) return hs_usage(me, "--q, --k and --v name the .npy files of the inputs");
    if (!r->mode) return hs_usage(me, "--mode is causal, bidirectional or cross");
    if (!r->out) return hs_usage(me, "--out names the folder for the results");
    return -1;
}

/* ---- the variant and its options --------------------------------------------------------------------- */
/* Why there is no variant of that name: its file was refused, or the name is a typo. */
static void not_found(const hs_catalog *c, const char *name, char *why, size_t nwhy)
{
    const char *names[256];
    char file[200];
    size_t n = 0, i;
    json_t *one;
    snprintf(file, sizeof file, "/%s.so", name);
    json_array_foreach(hs_catalog_refused(c), i, one) {
        if (!strstr(json_string_value(json_object_get(one, "path")), file)) continue;
        snprintf(why, nwhy, "%s", json_string_value(json_object_get(one, "reason")));
        return;
    }
    json_array_foreach(hs_catalog_all(c), i, one)
        if (n < 256 && !strcmp(json_string_value(json_object_get(one, "kind")), "variant"))
            names[n++] = json_string_value(json_object_get(one, "name"));
    const char *near = hs_nearest(name, names, n);
    snprintf(why, nwhy, "there is no variant '%s'%s%s%s (harness list variants)", name, near ? "; did you mean '" : "",
             near ? near : "", near ? "'?" : "");
}

/* "softmax", "mine.so" or "mine.so:name".  Described in a child first, so that a broken file cannot hurt. */
static int find_variant(apply *a)
{
    char file[4096], path[4096], why[500] = "";
    const char *given = a->r.variant, *name = NULL;
    snprintf(file, sizeof file, "%s", given);
    char *colon = strrchr(file, ':');
    if (colon && strstr(file, ".so:")) *colon = 0, name = colon + 1;
    int is_path = strchr(file, '/') || strstr(file, ".so");
    hs_catalog *c = is_path ? hs_catalog_of(file) : hs_catalog_new(NULL, 0);
    const json_t *found = is_path ? hs_catalog_path(c, file, name, why, sizeof why) : hs_catalog_variant(c, given);
    int rc = 0;
    if (!found && !*why) not_found(c, given, why, sizeof why);
    if (!found) rc = fail(a, HS_EXIT_PLUGIN, "%s", why);
    else {
        snprintf(path, sizeof path, "%s", json_string_value(json_object_get(found, "path")));
        if (hs_plugin_open(path, &a->plugin, why, sizeof why)) rc = fail(a, HS_EXIT_PLUGIN, "%s", why);
        else a->variant = hs_plugin_variant(&a->plugin, json_string_value(json_object_get(found, "name")));
    }
    hs_catalog_free(c);
    return rc;
}

/* A name that a table lacks, with the nearest that it has. */
static int no_such(apply *a, const char *what, const char *name, const char *const *names, size_t n)
{
    const char *near = hs_nearest(name, names, n);
    char all[300] = "";
    for (size_t i = 0; i < n; i++) snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", names[i]);
    if (near) return fail(a, HS_EXIT_USAGE, "%s has no %s '%s'; did you mean '%s'?", a->variant->name, what, name, near);
    return fail(a, HS_EXIT_USAGE, "%s has no %s '%s'; it has %s", a->variant->name, what, name, n ? all : "none");
}

static int set_options(apply *a)
{
    const attn_opt *tables[2] = { a->variant->opts, nn_common_table };
    void *structs[2] = { a->opts, &a->spec.common };
    const char *names[128];
    size_t n = 0;
    for (int t = 0; t < 2; t++) {
        hs_opts_defaults(tables[t], structs[t]);
        for (const attn_opt *o = tables[t]; o && o->name && n < 128; o++) names[n++] = o->name;
    }
    for (int i = 0; i < a->r.nset; i++) {
        char name[128], why[400];
        const char *equals = strchr(a->r.set[i], '=');
        if (!equals) return fail(a, HS_EXIT_USAGE, "'%s' is no option=value", a->r.set[i]);
        snprintf(name, sizeof name, "%.*s", (int)(equals - a->r.set[i]), a->r.set[i]);
        int t = hs_opts_find(tables[0], name) ? 0 : 1;
        const attn_opt *o = hs_opts_find(tables[t], name);
        if (!o) return no_such(a, "option", name, names, n);
        if (hs_opt_set_text(o, structs[t], equals + 1, why, sizeof why)) return fail(a, HS_EXIT_USAGE, "%s", why);
        a->nb_features_set |= !strcmp(name, "nb_features");
    }
    return 0;
}

/* ---- inputs --------------------------------------------------------------------------------------------- */
static int read_tensor(apply *a, input *in, const char *path)
{
    char why[500];
    if (!path) return 0;
    in->path = path;
    if (hs_npy_read(path, &in->a, why, sizeof why)) return fail(a, HS_EXIT_SPEC, "%s", why);
    return in->a.n > 0 ? 0 : fail(a, HS_EXIT_SPEC, "%s: is empty", path);
}

/* Whether what was read is floating and of the precision of the first tensor. */
static int check_float(apply *a, const input *in, const char *path)
{
    if (in->a.type != HS_NPY_F32 && in->a.type != HS_NPY_F64)
        return fail(a, HS_EXIT_SPEC, "%s: is %s; expected float32 or float64", path, hs_npy_name(in->a.type));
    if (a->typed && in->a.type != a->type)
        return fail(a, HS_EXIT_SPEC, "%s: is %s, but %s is %s; all tensors have one precision", path, hs_npy_name(in->a.type), a->typed, hs_npy_name(a->type));
    if (!a->typed) a->typed = path;
    a->type = in->a.type;
    return 0;
}

/* A floating tensor of the precision of the first one. */
static int read_float(apply *a, input *in, const char *path)
{
    int rc = read_tensor(a, in, path);
    return rc || !path ? rc : check_float(a, in, path);
}

/* What may be absent may hold integers: they become numbers of the precision of q. */
static int read_optional(apply *a, input *in, const char *path)
{
    int rc = read_tensor(a, in, path);
    hs_npy *n = &in->a;
    if (rc || (n->type != HS_NPY_I32 && n->type != HS_NPY_I64)) return rc ? rc : check_float(a, in, path);
    void *out = malloc((size_t)n->n * hs_npy_width(a->type));
    if (!out) return fail(a, HS_EXIT_FAILED, "out of memory");
    for (int64_t i = 0; i < n->n; i++) {
        double x = n->type == HS_NPY_I32 ? ((int32_t *)n->data)[i] : (double)((int64_t *)n->data)[i];
        if (a->type == HS_NPY_F64) ((double *)out)[i] = x;
        else ((float *)out)[i] = (float)x;
    }
    free(n->data);
    n->data = out, n->type = a->type;
    return 0;
}

/* The file's shape must be the wanted one; what names it for people ("k [B,Hkv,Tk,D]"). */
static int want_shape(apply *a, const input *in, const char *what, int ndim, const int64_t *shape)
{
    char is[200], should[200];
    int same = in->a.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = in->a.shape[i] == shape[i];
    if (same) return 0;
    return fail(a, HS_EXIT_SPEC, "%s: is %s; %s must be %s", in->path, hs_npy_shape_text(in->a.ndim, in->a.shape, is, sizeof is), what,
                hs_npy_shape_text(ndim, shape, should, sizeof should));
}

/* Are q and k given where the variant reads them, and only there? */
static int check_given(apply *a)
{
    uint32_t flags = a->variant->flags;
    if (flags & ATTN_SHARED_QK && a->r.k) return fail(a, HS_EXIT_USAGE, "%s takes no --k: its keys are its queries", a->variant->name);
    if (!a->r.q && !(flags & ATTN_NO_Q)) return fail(a, HS_EXIT_USAGE, "%s needs --q", a->variant->name);
    if (!a->r.k && !(flags & (ATTN_SHARED_QK | ATTN_NO_K))) return fail(a, HS_EXIT_USAGE, "%s needs --k", a->variant->name);
    return 0;
}

/* q, k, v and do, and from them the shape of the problem. */
static int read_main(apply *a)
{
    int rc;
    int shared = (a->variant->flags & ATTN_SHARED_QK) != 0;
    if ((rc = check_given(a))) return rc;
    if ((rc = read_float(a, &a->q, a->r.q)) || (rc = read_float(a, &a->k, a->r.k)) || (rc = read_float(a, &a->v, a->r.v)) ||
        (rc = read_float(a, &a->d_o, a->r.d_o))) return rc;
    const input *all[] = { &a->q, &a->v, &a->k };
    for (int i = 0; i < 3; i++) {
        if (!all[i]->path) continue;
        if (all[i]->a.ndim != 4) return fail(a, HS_EXIT_SPEC, "%s: has %d dimensions; expected [B, H, T, D]", all[i]->path, all[i]->a.ndim);
        for (int d = 0; d < 4; d++) if (all[i]->a.shape[d] > INT32_MAX) return fail(a, HS_EXIT_SPEC, "%s: a dimension is above 2^31-1", all[i]->path);
    }
    /* An input that is ignored and not given has the shape that fits. */
    const int64_t *v = a->v.a.shape, *q = a->q.path ? a->q.a.shape : a->k.path ? a->k.a.shape : v, fit[4] = { v[0], v[1], v[2], q[3] };
    const int64_t *k = a->k.path ? a->k.a.shape : shared ? q : fit;
    if (a->k.path && (rc = want_shape(a, &a->k, "k, by the batch and width of q,", 4, (int64_t[]){ q[0], k[1], k[2], q[3] }))) return rc;
    int grouped = (a->variant->flags & ATTN_GROUPED_QK) != 0;
    int64_t Hv = grouped ? v[1] : k[1], Ho = grouped ? v[1] : q[1];
    if ((rc = want_shape(a, &a->v, shared ? "v, by the heads and length of q," : "v, by the heads and length of k,", 4, (int64_t[]){ q[0], Hv, k[2], v[3] }))) return rc;
    if (q[1] % k[1]) return fail(a, HS_EXIT_SPEC, "%s: has %lld heads, which is no multiple of the %lld of %s", a->r.q, (long long)q[1], (long long)k[1], a->r.k ? a->r.k : a->r.v);
    if (a->d_o.path && (rc = want_shape(a, &a->d_o, "do, the gradient of o,", 4, (int64_t[]){ q[0], Ho, q[2], v[3] }))) return rc;
    a->spec.shape = (attn_shape){ .B = (int32_t)q[0], .Hq = (int32_t)q[1], .Hk = (int32_t)k[1], .Tq = (int32_t)q[2], .Tk = (int32_t)k[2],
        .Dk = (int32_t)q[3], .Dv = (int32_t)v[3], .Hv = (int32_t)Hv, .dtype = a->type == HS_NPY_F64 ? ATTN_F64 : ATTN_F32, .training = a->d_o.path != NULL, .klen = a->r.klen != NULL };
    const char *mode = a->r.mode;
    a->spec.shape.mode = !strcmp(mode, "causal") ? ATTN_CAUSAL : !strcmp(mode, "bidirectional") ? ATTN_BIDIR : !strcmp(mode, "cross") ? ATTN_CROSS : 0;
    return a->spec.shape.mode ? 0 : fail(a, HS_EXIT_USAGE, "--mode %s: expected causal, bidirectional or cross", mode);
}

/* kv_len [B] as int32, each in 0..Tk. */
static int read_klen(apply *a)
{
    int rc = read_tensor(a, &a->klen, a->r.klen);
    if (rc || !a->r.klen) return rc;
    hs_npy *n = &a->klen.a;
    if (n->type != HS_NPY_I32 && n->type != HS_NPY_I64) return fail(a, HS_EXIT_SPEC, "%s: is %s; expected int32 or int64", a->r.klen, hs_npy_name(n->type));
    if ((rc = want_shape(a, &a->klen, "kv_len [B]", 1, (int64_t[]){ a->spec.shape.B }))) return rc;
    int32_t *out = malloc((size_t)n->n * sizeof *out);
    if (!out) return fail(a, HS_EXIT_FAILED, "out of memory");
    for (int64_t b = 0; b < n->n; b++) {
        int64_t x = n->type == HS_NPY_I32 ? ((int32_t *)n->data)[b] : ((int64_t *)n->data)[b];
        if (x < 0 || x > a->spec.shape.Tk) rc = fail(a, HS_EXIT_SPEC, "%s: [%lld] is %lld; expected 0..%d", a->r.klen, (long long)b, (long long)x, a->spec.shape.Tk);
        out[b] = (int32_t)x;
    }
    free(n->data);
    n->data = out, n->type = HS_NPY_I32;
    a->io.klen = out;
    return rc;
}

/* Reads every "NAME=FILE" into the slot of its name; initial_ may stand before a state's. */
static int read_named(apply *a, const char *what, const char *const *given, int n, const char *const *names, size_t nnames, input *slots)
{
    for (int i = 0; i < n; i++) {
        char name[128];
        const char *equals = strchr(given[i], '=');
        if (!equals) return fail(a, HS_EXIT_USAGE, "--%s takes NAME=FILE, not '%s'", what, given[i]);
        snprintf(name, sizeof name, "%.*s", (int)(equals - given[i]), given[i]);
        size_t s = 0;
        while (s < nnames && strcmp(names[s], name)) s++;
        if (s == nnames && !strcmp(what, "state") && !strncmp(name, "initial_", 8))
            for (s = 0; s < nnames && strcmp(names[s], name + 8); s++) ;
        if (s == nnames) return no_such(a, what, name, names, nnames);
        if (slots[s].path) return fail(a, HS_EXIT_USAGE, "--%s %s is given twice", what, name);
        int optional = slots == a->param && a->variant->params[s].flags & ATTN_OPTIONAL;
        int rc = optional ? read_optional(a, &slots[s], equals + 1) : read_float(a, &slots[s], equals + 1);
        if (rc) return rc;
    }
    return 0;
}

static int read_tables(apply *a)
{
    const char *names[3][ATTN_MAX];
    size_t n[3] = { 0 };
    for (int i = 0; a->variant->gates && a->variant->gates[i].name; i++) names[0][n[0]++] = a->variant->gates[i].name;
    for (int i = 0; a->variant->params && a->variant->params[i].name; i++) names[1][n[1]++] = a->variant->params[i].name;
    for (int i = 0; a->variant->states && a->variant->states[i].name; i++) names[2][n[2]++] = a->variant->states[i].name;
    int rc = read_named(a, "gate", a->r.gate, a->r.ngate, names[0], n[0], a->gate);
    if (!rc) rc = read_named(a, "param", a->r.param, a->r.nparam, names[1], n[1], a->param);
    return rc ? rc : read_named(a, "state", a->r.state, a->r.nstate, names[2], n[2], a->state);
}

/* A projection that is given says how many features there are, unless the option does. */
static int features_from_projection(apply *a)
{
    const attn_opt *o = hs_opts_find(a->variant->opts, "nb_features");
    char m[32], why[400];
    for (int i = 0; o && a->variant->params && a->variant->params[i].name; i++) {
        const hs_npy *p = &a->param[i].a;
        if (strcmp(a->variant->params[i].name, "proj") || !a->param[i].path || p->ndim != 3 || a->nb_features_set) continue;
        snprintf(m, sizeof m, "%lld", (long long)p->shape[1]);
        if (hs_opt_set_text(o, a->opts, m, why, sizeof why)) return fail(a, HS_EXIT_SPEC, "%s: %s", a->param[i].path, why);
    }
    return 0;
}

/* ---- binding what was read to what plan() asks for ---------------------------------------------------------- */
static size_t width(const apply *a) { return hs_npy_width(a->type); }

static int zeroed(apply *a, int64_t n, void **out)
{
    if (k_alloc(a->dev, K_TAG_ACTIVATION, (size_t)n * width(a), out)) return fail(a, HS_EXIT_FAILED, "%s", k_error(a->dev));
    k_zero(a->dev, *out, (size_t)n * width(a));
    return 0;
}

/* Dense [B,H,T,D] on the device for a result. */
static int result(apply *a, attn_tensor *t, int64_t B, int64_t H, int64_t T, int64_t D)
{
    void *p;
    int rc = zeroed(a, B * H * T * D, &p);
    if (!rc) *t = nn_tensor_of(p, H, T, D, 1);
    return rc;
}

/* [B,Hv,Tk] or [B,Hv,Tk,width]. */
static int bind_gate(apply *a, int i)
{
    const attn_shape *s = &a->spec.shape;
    const char *name = a->variant->gates[i].name;
    input *in = &a->gate[i];
    int w = a->plan.gate_width[i];
    int64_t shape[4] = { s->B, s->Hv, s->Tk, w };
    char text[200], what[100];
    if (!w) return in->path ? fail(a, HS_EXIT_USAGE, "%s: %s does not use the gate %s with these options", in->path, a->variant->name, name) : 0;
    int ndim = w == 1 && in->a.ndim != 4 ? 3 : 4;
    if (!in->path) return fail(a, HS_EXIT_USAGE, "%s needs --gate %s=FILE of shape %s", a->variant->name, name, hs_npy_shape_text(ndim, shape, text, sizeof text));
    snprintf(what, sizeof what, "the gate %s", name);
    int rc = want_shape(a, in, what, ndim, shape);
    if (rc) return rc;
    a->io.gate[i] = nn_tensor_of(in->a.data, s->Hv, s->Tk, w, 1);
    return s->training ? result(a, &a->io.dgate[i], s->B, s->Hv, s->Tk, w) : 0;
}

/* A given param replaces the drawn one; a leading 1 is repeated for every head. */
static int bind_param(apply *a, int i)
{
    const attn_dims *d = &a->plan.param_dims[i];
    const attn_param *p = &a->variant->params[i];
    input *in = &a->param[i];
    char what[160];
    if (!d->n) return in->path ? fail(a, HS_EXIT_USAGE, "%s: %s does not use the param %s with these options", in->path, a->variant->name, p->name) : 0;
    if (a->param_id[i] < 0) return 0;
    a->io.param[i] = nn_param_value(a->params, a->param_id[i]);
    if (a->spec.shape.training && !(p->flags & ATTN_FROZEN)) a->io.dparam[i] = nn_param_grad(a->params, a->param_id[i]);
    if (!in->path) return 0;
    int64_t shape[ATTN_MAX_DIMS], n = in->a.n;
    memcpy(shape, d->d, sizeof shape);
    if (in->a.ndim == d->n && in->a.shape[0] == 1) shape[0] = 1;
    const attn_opt *o = hs_opts_find(a->variant->opts, "nb_features");
    snprintf(what, sizeof what, "the param %s%s", p->name, o && !strcmp(p->name, "proj") && a->nb_features_set ? ", by nb_features," : "");
    int rc = want_shape(a, in, what, d->n, shape);
    for (int64_t h = 0; !rc && h < d->d[0] / shape[0]; h++)
        k_upload(a->dev, (char *)nn_param_value(a->params, a->param_id[i]) + (size_t)(h * n) * width(a), in->a.data, (size_t)n * width(a));
    return rc;
}

static int bind_state(apply *a, int i)
{
    const attn_dims *d = &a->plan.state_dims[i];
    const char *name = a->variant->states[i].name;
    input *in = &a->state[i];
    char what[100];
    int64_t n = 1;
    if (!d->n) return in->path ? fail(a, HS_EXIT_USAGE, "%s: %s does not use the state %s with these options", in->path, a->variant->name, name) : 0;
    for (int k = 0; k < d->n; k++) n *= d->d[k];
    snprintf(what, sizeof what, "the state %s", name);
    int rc = in->path ? want_shape(a, in, what, d->n, d->d) : 0;
    if (!rc && in->path) a->io.state_in[i] = in->a.data;
    if (!rc) rc = zeroed(a, n, &a->io.state_out[i]);
    return rc || !a->spec.shape.training ? rc : zeroed(a, n, &a->io.dstate_in[i]);
}

/* Params that are not given are drawn from the seed, as a model would draw them; optional ones are then absent. */
static int draw_params(apply *a)
{
    char why[400];
    a->params = nn_params_new(a->dev, a->type == HS_NPY_F64 ? K_F64 : K_F32, a->r.seed);
    if (!a->params) return fail(a, HS_EXIT_FAILED, "out of memory");
    for (int i = 0; a->variant->params && a->variant->params[i].name; i++) {
        int absent = a->variant->params[i].flags & ATTN_OPTIONAL && !a->param[i].path;
        a->param_id[i] = !a->plan.param_dims[i].n || absent ? -1
            : nn_param(a->params, a->variant->params[i].name, a->plan.param_dims[i], a->plan.param_init[i], a->variant->params[i].flags);
    }
    return nn_params_alloc(a->params, why, sizeof why) ? fail(a, HS_EXIT_FAILED, "%s", why) : 0;
}

static int bind_all(apply *a)
{
    const attn_shape *s = &a->spec.shape;
    nn_mixer_io *io = &a->io;
    int rc = draw_params(a);
    for (int i = 0; !rc && a->variant->gates && a->variant->gates[i].name; i++) rc = bind_gate(a, i);
    for (int i = 0; !rc && a->variant->params && a->variant->params[i].name; i++) rc = bind_param(a, i);
    for (int i = 0; !rc && a->variant->states && a->variant->states[i].name; i++) rc = bind_state(a, i);
    if (rc || (rc = result(a, &io->o, s->B, attn_out_heads(s), s->Tq, s->Dv))) return rc;
    if (a->q.path) io->q = nn_tensor_of(a->q.a.data, s->Hq, s->Tq, s->Dk, 1);
    if (a->k.path) io->k = nn_tensor_of(a->k.a.data, s->Hk, s->Tk, s->Dk, 1);
    io->v = nn_tensor_of(a->v.a.data, s->Hv, s->Tk, s->Dv, 1);
    io->seed = a->r.seed;
    if (!s->training) return 0;
    io->d_o = nn_tensor_of(a->d_o.a.data, attn_out_heads(s), s->Tq, s->Dv, 1);
    if ((a->q.path && (rc = result(a, &io->dq, s->B, s->Hq, s->Tq, s->Dk))) || (a->k.path && (rc = result(a, &io->dk, s->B, s->Hk, s->Tk, s->Dk)))) return rc;
    return result(a, &io->dv, s->B, s->Hv, s->Tk, s->Dv);
}

/* ---- computing and writing ---------------------------------------------------------------------------------------- */
static int compute(apply *a)
{
    char why[400] = "";
    a->spec.variant = a->variant, a->spec.opts = a->opts;
    a->spec.impl = a->r.impl ? a->r.impl : a->type == HS_NPY_F64 ? a->variant->impls[0].name : NULL;
    int rc = nn_mixer_ask(a->dev, &a->spec, 0, &a->plan, why, sizeof why);
    if (rc) return fail(a, rc == ATTN_EINVAL ? HS_EXIT_USAGE : HS_EXIT_FAILED, "%s%s: %s", a->variant->name, rc == ATTN_EUNSUP ? " refuses" : "", why);
    if ((rc = bind_all(a))) return rc;
    if (nn_mixer_new(a->dev, &a->spec, 0, &a->mixer, why, sizeof why)) return fail(a, HS_EXIT_FAILED, "%s: %s", a->variant->name, why);
    rc = nn_mixer_forward(a->mixer, &a->io);
    if (!rc && a->spec.shape.training) rc = nn_mixer_backward(a->mixer, &a->io);
    if (!rc) rc = k_sync(a->dev);
    return rc ? fail(a, HS_EXIT_FAILED, "%s/%s failed with code %d", a->variant->name, nn_mixer_impl(a->mixer)->name, rc) : 0;
}

static int write_one(apply *a, const char *prefix, const char *name, const void *device, int ndim, const int64_t *shape)
{
    char path[4096], why[500], text[200];
    hs_npy x = { .type = a->type, .ndim = ndim, .n = 1 };
    for (int i = 0; i < ndim; i++) x.n *= x.shape[i] = shape[i];
    if (!(x.data = malloc((size_t)x.n * width(a)))) return fail(a, HS_EXIT_FAILED, "out of memory");
    k_download(a->dev, x.data, device, (size_t)x.n * width(a));
    snprintf(path, sizeof path, "%s/%s%s.npy", a->r.out, prefix, name);
    int rc = hs_npy_write(path, &x, why, sizeof why) ? fail(a, HS_EXIT_FAILED, "%s", why) : 0;
    if (!rc) printf("%s %s %s\n", path, hs_npy_shape_text(ndim, x.shape, text, sizeof text), hs_npy_name(a->type));
    hs_npy_release(&x);
    return rc;
}

static void add_into(const apply *a, void *sum, const void *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a->type == HS_NPY_F64) ((double *)sum)[i] += ((const double *)x)[i];
        else ((float *)sum)[i] += ((const float *)x)[i];
}

/* The gradient of a param that was given once for all heads is the sum over them. */
static int write_dparam(apply *a, int i)
{
    attn_dims d = a->plan.param_dims[i];
    char *g = a->io.dparam[i];
    int64_t n = 1;
    if (!g) return 0;
    for (int k = 1; k < d.n; k++) n *= d.d[k];
    if (a->param[i].path && a->param[i].a.shape[0] == 1 && d.d[0] > 1) {
        for (int64_t h = 1; h < d.d[0]; h++) add_into(a, g, g + (size_t)(h * n) * width(a), n);
        d.d[0] = 1;
    }
    return write_one(a, "dparam_", a->variant->params[i].name, g, d.n, d.d);
}

static int write_all(apply *a)
{
    const attn_shape *s = &a->spec.shape;
    const nn_mixer_io *io = &a->io;
    if (mkdir(a->r.out, 0777) && errno != EEXIST) return fail(a, HS_EXIT_FAILED, "%s: cannot be made: %s", a->r.out, strerror(errno));
    int rc = write_one(a, "o", "", io->o.p, 4, (int64_t[]){ s->B, attn_out_heads(s), s->Tq, s->Dv });
    for (int i = 0; !rc && i < ATTN_MAX; i++)
        if (io->state_out[i]) rc = write_one(a, "final_", a->variant->states[i].name, io->state_out[i], a->plan.state_dims[i].n, a->plan.state_dims[i].d);
    if (rc || !s->training) return rc;
    if ((io->dq.p && (rc = write_one(a, "dq", "", io->dq.p, 4, a->q.a.shape))) || (io->dk.p && (rc = write_one(a, "dk", "", io->dk.p, 4, a->k.a.shape))) ||
        (rc = write_one(a, "dv", "", io->dv.p, 4, a->v.a.shape))) return rc;
    for (int i = 0; !rc && i < ATTN_MAX; i++) {
        if (io->dgate[i].p) rc = write_one(a, "dgate_", a->variant->gates[i].name, io->dgate[i].p, a->gate[i].a.ndim, a->gate[i].a.shape);
        if (!rc) rc = write_dparam(a, i);
        if (!rc && io->dstate_in[i]) rc = write_one(a, "dinitial_", a->variant->states[i].name, io->dstate_in[i], a->plan.state_dims[i].n, a->plan.state_dims[i].d);
    }
    return rc;
}

static void release(apply *a)
{
    input *single[] = { &a->q, &a->k, &a->v, &a->d_o, &a->klen };
    for (int i = 0; i < 5; i++) hs_npy_release(&single[i]->a);
    for (int i = 0; i < ATTN_MAX; i++) hs_npy_release(&a->gate[i].a), hs_npy_release(&a->param[i].a), hs_npy_release(&a->state[i].a);
    nn_mixer_free(a->mixer);
    nn_params_free(a->params);
    if (a->dev) k_dev_close(a->dev);    /* frees the results, too */
    if (a->variant) hs_plugin_close(&a->plugin);
    free(a->opts);
}

int cmd_apply(int argc, char **argv)
{
    apply a = { 0 };
    char why[400];
    int rc = parse(&a.r, argc, argv);
    if (rc >= 0) return rc;
    if (!(rc = find_variant(&a))) {
        a.opts = calloc(1, a.variant->opts_size + 1);
        rc = a.opts ? set_options(&a) : fail(&a, HS_EXIT_FAILED, "out of memory");
    }
    if (!rc && k_dev_open("cpu", a.r.threads, &a.dev, why, sizeof why)) rc = fail(&a, HS_EXIT_DEVICE, "%s", why);
    if (!rc) rc = read_main(&a);
    if (!rc) rc = read_klen(&a);
    if (!rc) rc = read_tables(&a);
    if (!rc) rc = features_from_projection(&a);
    if (!rc) rc = compute(&a);
    if (!rc) rc = write_all(&a);
    if (rc) fprintf(stderr, "harness apply: %s\n", a.why);
    release(&a);
    return rc;
}
