/* check_suite.c - the child's work: every variant x impl x dtype x mode x option set of one plug-in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"
#include "options.h"
#include "plugin.h"

typedef struct suite {
    const hs_check_args *args;
    int start;
    hs_check_where *where;
    hs_check_sink sink;
    void *ctx;
    hs_device *device;                  /* NULL: the CPU's impls are checked */
    uint64_t *seen;                     /* hashes of results of the option sets of this impl and mode */
    size_t nseen;
    int accepted;                       /* problems that plan() of this impl took */
} suite;

static int32_t cross_queries(int32_t T) { return T == 1 ? 2 : T / 2 + 1; }

/* ---- the base problem --------------------------------------------------------------------------------- */
/* Heads and widths from the most telling to the least; what an impl refuses is on record as a skip. */
static const struct { int32_t Hq, Hk, Dk, Dv; const char *refused; } bases[] = {
    { 4, 2, 5, 3, "Hq = 2 Hk with odd Dk and another Dv" }, { 2, 2, 5, 3, "odd Dk and another Dv" },
    { 4, 2, 5, 5, "Hq = 2 Hk with odd Dk = Dv" }, { 2, 2, 5, 5, "odd Dk = Dv" }, { 4, 2, 8, 4, "Hq = 2 Hk with Dk = 8, Dv = 4" },
    { 2, 2, 8, 4, "Dk = 8, Dv = 4" }, { 2, 2, 8, 8, "Dk = Dv = 8" }, { 4, 2, 32, 16, "Hq = 2 Hk with Dk = 32, Dv = 16" },
    { 2, 2, 32, 32, "Dk = Dv = 32" }, { 2, 2, 64, 64, "Dk = Dv = 64" },
};

/* The first base that plan() takes with the defaults; the last one when it takes none. */
static void find_base(hs_case *c)
{
    enum { N = sizeof bases / sizeof *bases };
    attn_plan p[N];
    memset(p, 0, sizeof p);
    for (size_t i = 0; i < N; i++) {
        c->base = (attn_shape){ .Hq = bases[i].Hq, .Hk = bases[i].Hk, .Dk = bases[i].Dk, .Dv = bases[i].Dv };
        attn_shape s = hs_case_shape(c, 2, c->mode == ATTN_CROSS ? 3 : 5, 5);
        hs_case_begin(c, "plan");
        if (c->impl->plan(&s, c->opts, &p[i]) == ATTN_OK) {
            for (size_t j = 0; j < i; j++) hs_case_say(c, bases[j].refused, HS_CHECK_SKIP, 0, p[j].why[0] ? p[j].why : "plan() gives no reason");
            return;
        }
    }
    c->base = (attn_shape){ .Hq = bases[0].Hq, .Hk = bases[0].Hk, .Dk = bases[0].Dk, .Dv = bases[0].Dv };
}

/* ---- one case ------------------------------------------------------------------------------------------- */
static uint64_t hash_slot(uint64_t h, const hs_slot *s)
{
    const unsigned char *p = (const unsigned char *)s->val;
    for (size_t i = 0; i < (size_t)s->n * sizeof *s->val; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* Has another option set of this impl and mode given the very same outputs and gradients at this size?  Then it is
 * the same computation, and one of the two need not be judged.  A window of 8 shows in more than 8 tokens only. */
static int seen_before(suite *u, const hs_rig *r)
{
    uint64_t h = 14695981039346656037u ^ r->plan.saved ^ r->plan.scratch_fwd << 20 ^ r->plan.state << 40;
    for (int i = 0; i < HS_OUTPUTS; i++) h = hash_slot(h, &r->out[i]);
    for (int i = 0; i < HS_INPUTS; i++) h = hash_slot(h, &r->grad[i]);
    for (size_t i = 0; i < u->nseen; i++) if (u->seen[i] == h) return 1;
    u->seen = realloc(u->seen, (u->nseen + 1) * sizeof *u->seen);
    if (!u->seen) abort();
    u->seen[u->nseen++] = h;
    return 0;
}

/* The first run of a size; what it did wrong is said once here, and the comparisons are then pointless. */
static hs_rig *first_run(hs_case *c, attn_shape s)
{
    if (hs_check_plan(c, s)) return NULL;
    hs_case_begin(c, "runs within its buffers and stays finite");
    hs_rig *r = hs_rig_new(c, c->impl, c->dtype, c->opts, s, HS_BTHD, NULL, 0);
    hs_diff none = hs_diff_none;
    hs_rig_run(r);
    hs_case_judge(c, "runs within its buffers and stays finite", r, &none);
    if (!r->fault[0]) {
        hs_rounding_measure(c, r);
        hs_rounding_allow(c, r);
        char note[96] = "";
        if (r->hot.allocations) snprintf(note, sizeof note, "forward and backward called malloc or free %ld times", r->hot.allocations);
        if (c->impl->device == ATTN_CPU)    /* a CUDA runtime inside the plug-in allocates when a kernel is first launched */
            hs_case_say(c, "hot code allocates nothing", note[0] ? HS_CHECK_FAIL : HS_CHECK_OK, 0, note);
        note[0] = 0;
        if (r->hot.printed) snprintf(note, sizeof note, "forward and backward wrote %ld bytes to stdout", r->hot.printed);
        hs_case_say(c, "hot code prints nothing", note[0] ? HS_CHECK_FAIL : HS_CHECK_OK, 0, note);
        return r;
    }
    hs_rig_free(r);
    return NULL;
}

/* One size: thorough ones get every check, the others what size can change. */
static void check_size(suite *u, hs_case *c, const char *size, int32_t B, int32_t Tq, int32_t Tk, int small)
{
    c->size = size;
    hs_rig *base = first_run(c, hs_case_shape(c, B, Tq, Tk));
    if (!base) return;
    if (u->args->once) {
        hs_check_reference(c, base);
        hs_check_decode(c, base);
    } else if (!seen_before(u, base) || c->defaults) {
        hs_check_forward(c, base);
        hs_check_reference(c, base);
        hs_check_klen(c, base->s);
        hs_check_last_queries(c, base);
        hs_check_decode(c, base);
        hs_check_states(c, base);
        hs_check_map(c, base);
        if (small) {
            hs_check_gradients(c, base);
            hs_check_differences(c, base);
            hs_check_large(c, base);
        }
    }
    hs_rig_free(base);
}

/* B rows of T keys and as many queries, or about half as many; the size's name is "T=" and the number, and more. */
static void check_length(suite *u, hs_case *c, int32_t B, int32_t T, const char *more, int small)
{
    char size[64];
    snprintf(size, sizeof size, "T=%d%s", T, more);
    check_size(u, c, size, B, c->mode == ATTN_CROSS ? cross_queries(T) : T, T, small);
}

/* A device computes in tiles, of whole rows and of tens of tokens: widths that models have, and some beside them. */
static void check_widths(suite *u, hs_case *c)
{
    static const attn_shape widths[] = { { .Hq = 4, .Hk = 2, .Dk = 64, .Dv = 64 }, { .Hq = 2, .Hk = 2, .Dk = 128, .Dv = 128 },
        { .Hq = 2, .Hk = 2, .Dk = 64, .Dv = 32 }, { .Hq = 4, .Hk = 2, .Dk = 20, .Dv = 12 }, { .Hq = 1, .Hk = 1, .Dk = 256, .Dv = 256 } };
    attn_shape base = c->base;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        char more[40];
        c->base = widths[i];
        snprintf(more, sizeof more, " Dk=%d Dv=%d", widths[i].Dk, widths[i].Dv);
        check_length(u, c, 2, 130, more, 0);
    }
    c->base = base;
}

static void check_sizes(suite *u, hs_case *c)
{
    size_t seen = u->nseen;
    check_length(u, c, 3, 5, "", 1);
    if (!c->defaults && c->quick) return;
    if (c->defaults || u->args->once || seen < u->nseen) check_length(u, c, 2, 1, "", 1);
    check_length(u, c, 2, u->device ? 150 : 33, "", 0);
    if (c->mode == ATTN_CROSS) check_size(u, c, "one query, T=33", 3, 1, 33, 0);
    if (!c->defaults || c->quick) return;
    check_length(u, c, 2, u->device ? 300 : 130, "", 0);
    if (u->device) check_widths(u, c);
}

/* ---- options that the checks must know by name (VARIANTS 5) --------------------------------------------- */
static int is_choice(const attn_variant *v, const void *opts, const char *name, const char *value)
{
    const attn_opt *o = hs_opts_find(v->opts, name);
    if (!o || o->type != ATTN_CHOICE) return 0;
    json_t *all = hs_opts_to_json(o, opts);
    const char *now = json_string_value(json_object_get(all, name));
    int is = now && !strcmp(now, value);
    json_decref(all);
    return is;
}

static void set_to_zero(const attn_variant *v, void *opts, const char *name)
{
    const attn_opt *o = hs_opts_find(v->opts, name);
    const double none = 0;
    if (o && o->type == ATTN_FLOAT && o->min <= 0) memcpy((char *)opts + o->off, &none, sizeof none);
}

/* A constant added to features or a normaliser lets a stabiliser show, by definition: exact statements are
 * checked without it. */
static void *exact_options(const attn_variant *v, const void *opts)
{
    void *exact = calloc(1, v->opts_size + 1);
    if (!exact) abort();
    memcpy(exact, opts, v->opts_size);
    set_to_zero(v, exact, "feature_eps");
    if (is_choice(v, opts, "stabilizer", "max")) set_to_zero(v, exact, "denom_eps"), set_to_zero(v, exact, "norm_eps");
    return exact;
}

static void check_set(suite *u, hs_case *c, const hs_opt_set *set)
{
    c->where->index++;
    if (c->where->index <= u->start) { u->accepted += !set->refusal; return; }
    c->options = set->text, c->defaults = set->defaults, c->size = "";
    if (set->refusal) { hs_case_say(c, "plan", HS_CHECK_SKIP, 0, set->refusal); return; }
    void *exact = exact_options(c->variant, set->opts);
    c->opts = set->opts, c->exact = exact;
    c->relaxed_causality = is_choice(c->variant, set->opts, "stabilizer", "max");
    c->unstabilised = is_choice(c->variant, set->opts, "stabilizer", "none") || is_choice(c->variant, set->opts, "kernel_fn", "exp");
    c->other_order = is_choice(c->variant, set->opts, "order", "block");
    u->accepted++;
    check_sizes(u, c);
    c->size = "";
    if (!u->args->once) hs_check_growth(c);
    free(exact);
}

/* ---- all cases ---------------------------------------------------------------------------------------------- */
static int check_mode(suite *u, hs_case *c, char *why, size_t nwhy)
{
    size_t n;
    void *defaults = calloc(1, c->variant->opts_size + 1);
    if (!defaults) abort();
    hs_opts_defaults(c->variant->opts, defaults);
    c->opts = defaults, c->options = (char *)"", c->size = "";
    find_base(c);
    attn_shape s = hs_case_shape(c, 2, c->mode == ATTN_CROSS ? 3 : 5, 5);
    hs_opt_set *sets = hs_opt_sets(c->variant, c->impl, s, u->args, &n, why, nwhy);
    u->nseen = 0;
    for (size_t i = 0; sets && i < n; i++) check_set(u, c, &sets[i]);
    if (sets) hs_opt_sets_free(sets, n);
    free(defaults);
    return sets || u->args->noptions == 0 ? 0 : -1;
}

static int check_impl(suite *u, hs_case *c, char *why, size_t nwhy)
{
    static const int32_t modes[] = { ATTN_CAUSAL, ATTN_BIDIR, ATTN_CROSS }, dtypes[] = { ATTN_F64, ATTN_F32, ATTN_BF16, ATTN_F16 };
    c->options = (char *)"", c->size = "", c->mode = 0, c->dtype = 0;
    int tried = 0;
    u->accepted = 0;
    if (!u->device && c->impl->device != ATTN_CPU) { hs_case_say(c, "plan", HS_CHECK_SKIP, 0, "needs a GPU: harness check --device cuda"); return 0; }
    for (size_t d = 0; d < 4; d++) for (size_t m = 0; m < 3; m++) {
        if (!(c->impl->dtypes & dtypes[d]) || !(c->impl->modes & modes[m]) || (u->args->dtype && u->args->dtype != dtypes[d])) continue;
        c->dtype = dtypes[d], c->mode = modes[m], tried = 1;
        if (dtypes[d] == ATTN_F16) hs_case_say(c, "plan", HS_CHECK_SKIP, 0, "16-bit floating point is checked as bfloat16 alone");
        else if (check_mode(u, c, why, nwhy)) return -1;
    }
    c->options = (char *)"", c->size = "", c->mode = 0;
    if (tried) hs_case_say(c, "accepts something", u->accepted ? HS_CHECK_OK : HS_CHECK_FAIL, 0, u->accepted ? "" : "plan() refuses every problem");
    return 0;
}

static int check_variant(suite *u, const attn_variant *v, char *why, size_t nwhy)
{
    hs_case c = { .variant = v, .ref = &v->impls[0], .device = u->device, .quick = u->args->quick, .where = u->where, .sink = u->sink, .ctx = u->ctx };
    int found = 0, checked = 0;
    for (const attn_impl *im = v->impls; im->name; im++) {
        if (u->args->impl && strcmp(u->args->impl, im->name)) continue;
        found = 1;
        if (u->device && im->device != ATTN_CUDA) continue;
        c.impl = im, checked = 1;
        if (check_impl(u, &c, why, nwhy)) return -1;
    }
    c.impl = c.ref, c.options = (char *)"", c.size = "", c.mode = 0, c.dtype = 0;
    if (found && !checked) hs_case_say(&c, "plan", HS_CHECK_SKIP, 0, "no implementation for this device");
    if (!found) snprintf(why, nwhy, "%s has no impl '%s'", v->name, u->args->impl);
    return found ? 0 : -1;
}

int hs_check_suite(const char *path, const hs_check_args *args, int start, hs_check_where *where,
                   hs_check_sink sink, void *ctx, char *why, size_t nwhy)
{
    hs_plugin p;
    suite u = { .args = args, .start = start, .where = where, .sink = sink, .ctx = ctx };
    int found = 0, rc = 0;
    if (args->device && hs_device_open(args->device, &u.device, why, nwhy)) return HS_NO_DEVICE;
    if (hs_plugin_open(path, &p, why, nwhy)) { hs_device_close(u.device); return -1; }
    hs_hot_watch(p.handle);
    for (const attn_variant *const *v = p.variants; v && *v && !rc; v++) {
        if (args->variant && strcmp(args->variant, (*v)->name)) continue;
        found = 1;
        rc = check_variant(&u, *v, why, nwhy);
    }
    if (!found) snprintf(why, nwhy, args->variant ? "%s: no variant '%s' in it" : "%s: no variant in it", path, args->variant);
    free(u.seen);
    hs_plugin_close(&p);
    hs_device_close(u.device);
    return found ? rc : -1;
}
