/* performer - FAVOR+: random features whose products estimate exp(q.k / sqrt(D)).
 *   o_i = sum_j (phi(q_i).phi(k_j)) v_j / (sum_j phi(q_i).phi(k_j) + denom_eps)
 * with x' = input_scale x, u = proj x', eta = |x'|^2 / 2 and kappa a stabiliser without gradient:
 *   positive    phi = m^-1/2 (exp(u - eta - kappa) + feature_eps)
 *   hyperbolic  phi = (2m)^-1/2 (exp(+-u - eta - kappa) + feature_eps)
 *   trig        phi_q = m^-1/2 [cos u; sin u], phi_k = phi_q exp(eta - kappa); den + 2 guard where |den| <= guard
 * kappa: of a query the maximum of its u; of the keys of a head one number, the maximum over all of them
 * (trig: of eta).  Decode keeps a running maximum and rescales, which is the same where feature_eps is 0. */
#include "attn_map.h"
#include "kernel_attention.h"
#include <math.h>

typedef struct {
    int32_t nb_features, feature_type, projection, ortho_scaling, stabilizer, redraw_interval;
    double feature_eps, input_scale, denom_eps, guard;
} opts;
enum { ORTHOGONAL, IID };
enum { MAX, NONE };
static const attn_opt OPTS[] = {
    { "nb_features", "rows of the projection, m; 0: D ln D", offsetof(opts, nb_features), ATTN_INT, 256, 0, 1 << 20, NULL, 0 },
    { "feature_type", "phi", offsetof(opts, feature_type), ATTN_CHOICE, 0, 0, 0, "positive,hyperbolic,trig", 0 },
    { "projection", "how proj is drawn", offsetof(opts, projection), ATTN_CHOICE, 0, 0, 0, "orthogonal,iid", 0 },
    { "ortho_scaling", "length of orthogonal rows: 0 as of Gaussian rows, 1 sqrt(D)", offsetof(opts, ortho_scaling), ATTN_INT, 0, 0, 1, NULL, 0 },
    { "feature_eps", "added to every exponential", offsetof(opts, feature_eps), ATTN_FLOAT, 1e-6, 0, 1e30, NULL, 0 },
    { "stabilizer", "kappa: the maximum, or 0", offsetof(opts, stabilizer), ATTN_CHOICE, 0, 0, 0, "max,none", 0 },
    { "input_scale", "factor of q and k; 0: D^-1/4", offsetof(opts, input_scale), ATTN_FLOAT, 0, 0, 1e30, NULL, 0 },
    { "denom_eps", "added to the sum of the weights", offsetof(opts, denom_eps), ATTN_FLOAT, 0, 0, 1e30, NULL, 0 },
    { "guard", "trig: smallest sum of the weights that is used as it is", offsetof(opts, guard), ATTN_FLOAT, 1e-6, 0, 1e30, NULL, 0 },
    { "redraw_interval", "training steps between two drawings of proj; 0: never", offsetof(opts, redraw_interval), ATTN_INT, 0, 0, 1 << 30, NULL, 0 },
    { .name = NULL } };
static const attn_param PARAMS[] = {
    { "proj", "random directions [Hk,m,D]", ATTN_FROZEN | ATTN_REDRAW }, { .name = NULL } };

/* Rows of the projection. */
static int features(const attn_shape *s, const opts *o)
{
    int m = o->nb_features ? o->nb_features : (int)(s->Dk * log(s->Dk));
    return m > 0 ? m : 1;
}

/* The problem of a shape with these options. */
static k_linattn problem_of(const attn_shape *s, const void *opt)
{
    const opts *o = opt;
    static const k_favor TYPES[] = { K_FAVOR_POSITIVE, K_FAVOR_HYPERBOLIC, K_FAVOR_TRIG };
    k_linattn p = problem(s);
    p.f = (k_features){ .map = K_MAP_FAVOR, .D = s->Dk, .favor = TYPES[o->feature_type], .m = features(s, o),
                        .input_scale = o->input_scale, .eps = o->feature_eps, .stabilise = o->stabilizer == MAX };
    p.denom_eps = o->denom_eps;
    p.guard = p.f.favor == K_FAVOR_TRIG ? o->guard : 0;
    return p;
}

/* Sizes, and how proj is drawn. */
static int plan(const attn_shape *s, const void *opt, attn_plan *plan)
{
    const opts *o = opt;
    k_linattn p = problem_of(s, opt);
    plan->param_dims[0] = (attn_dims){ 3, { s->Hk, p.f.m, s->Dk } };
    plan->param_init[0] = o->projection == IID ? (attn_init){ ATTN_INIT_NORMAL, 0, 1 }
                                               : (attn_init){ o->ortho_scaling ? ATTN_INIT_ORTHO_SQRT : ATTN_INIT_ORTHO_CHI, 0, 0 };
    return plan_sizes(s, &p, plan);
}

/* A call with these options. */
static k_linattn call(const attn_call *c)
{
    k_linattn p = problem_of(c->s, c->opts);
    bind_call(&p, c);
    p.f.W = c->param[0];
    return p;
}

/* Do rows of the map sum to one? */
static int sums(const attn_shape *s, const void *opt)
{
    k_linattn p = problem_of(s, opt);
    return p.normalise && p.denom_eps == 0;
}
ATTN_MAP_EXT(plan, ref_forward, sums)

static const attn_variant V = {
    sizeof V, "performer", "FAVOR+ attention (Performer)", "arXiv:2009.14794", "T M (D + Dv)", 0,
    sizeof(opts), OPTS, NULL, PARAMS, NULL, KERNEL_IMPLS, map_ext };
ATTN_EXPORT(&V);
