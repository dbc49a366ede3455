/* performer_generalized - kernel attention with an explicit function of random projections (Choromanski et al. 2021).
 *   o_i = sum_j (phi(q_i).phi(k_j)) v_j / (sum_j phi(q_i).phi(k_j) + denom_eps)
 *   phi(x) = f(proj x) + kernel_eps,  f: relu, abs, exp, sigmoid or softplus;  without a projection phi(x) = f(x) + kernel_eps
 * x enters as it is and the same proj serves queries and keys.  exp is not stabilised: large inputs overflow, as in
 * the paper's code.  The sums are those of kernels/linear_attention.h; decode holds S = sum phi(k) v^T and z = sum phi(k). */
#include "attn_map.h"
#include "kernel_attention.h"
#include <math.h>

typedef struct {
    int32_t nb_features, kernel_fn, projection, ortho_scaling, normalize, redraw_interval;
    double kernel_eps, denom_eps;
} opts;
enum { ORTHOGONAL, IID, NONE };
static const attn_opt OPTS[] = {
    { "nb_features", "rows of the projection, m; 0: D ln D", offsetof(opts, nb_features), ATTN_INT, 256, 0, 1 << 20, NULL, 0 },
    { "kernel_fn", "f", offsetof(opts, kernel_fn), ATTN_CHOICE, 0, 0, 0, "relu,abs,exp,sigmoid,softplus", 0 },
    { "projection", "how proj is drawn; none: phi(x) = f(x) + kernel_eps", offsetof(opts, projection), ATTN_CHOICE, 0, 0, 0, "orthogonal,iid,none", 0 },
    { "ortho_scaling", "length of orthogonal rows: 0 as of Gaussian rows, 1 sqrt(D)", offsetof(opts, ortho_scaling), ATTN_INT, 0, 0, 1, NULL, 0 },
    { "kernel_eps", "added to every feature", offsetof(opts, kernel_eps), ATTN_FLOAT, 1e-3, 0, 1e30, NULL, 0 },
    { "denom_eps", "added to the sum of the weights", offsetof(opts, denom_eps), ATTN_FLOAT, 0, 0, 1e30, NULL, 0 },
    { "normalize", "divide by the sum of the weights", offsetof(opts, normalize), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { "redraw_interval", "training steps between two drawings of proj; 0: never", offsetof(opts, redraw_interval), ATTN_INT, 0, 0, 1 << 30, NULL, 0 },
    { .name = NULL } };
static const attn_param PARAMS[] = {
    { "proj", "random directions [Hk,m,D]", ATTN_FROZEN | ATTN_REDRAW }, { .name = NULL } };

/* Rows of the projection; 0: there is none. */
static int features(const attn_shape *s, const opts *o)
{
    int m = o->nb_features ? o->nb_features : (int)(s->Dk * log(s->Dk));
    return o->projection == NONE ? 0 : m > 0 ? m : 1;
}

/* The problem of a shape with these options. */
static k_linattn problem_of(const attn_shape *s, const void *opt)
{
    const opts *o = opt;
    static const k_function FNS[] = { K_FN_RELU, K_FN_ABS, K_FN_EXP, K_FN_SIGMOID, K_FN_SOFTPLUS };
    k_linattn p = problem(s);
    p.f = (k_features){ .map = K_MAP_GENERAL, .D = s->Dk, .fn = FNS[o->kernel_fn], .m = features(s, o), .eps = o->kernel_eps };
    p.normalise = o->normalize;
    p.denom_eps = o->denom_eps;
    return p;
}

/* Sizes, and how proj is drawn. */
static int plan(const attn_shape *s, const void *opt, attn_plan *plan)
{
    const opts *o = opt;
    k_linattn p = problem_of(s, opt);
    if (p.f.m) plan->param_dims[0] = (attn_dims){ 3, { s->Hk, p.f.m, s->Dk } };
    plan->param_init[0] = o->projection == IID ? (attn_init){ ATTN_INIT_NORMAL, 0, 1 }
                                               : (attn_init){ o->ortho_scaling ? ATTN_INIT_ORTHO_SQRT : ATTN_INIT_ORTHO_CHI, 0, 0 };
    return plan_sizes(s, &p, plan);
}

/* A call with these options. */
static k_linattn call(const attn_call *c)
{
    k_linattn p = problem_of(c->s, c->opts);
    bind_call(&p, c);
    p.f.W = p.f.m ? c->param[0] : NULL;
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
    sizeof V, "performer_generalized", "Generalised kernel attention (Performer-ReLU)", "arXiv:2009.14794", "T M (D + Dv)", 0,
    sizeof(opts), OPTS, NULL, PARAMS, NULL, KERNEL_IMPLS, map_ext };
ATTN_EXPORT(&V);
