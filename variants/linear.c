/* linear - kernel attention without a random projection.
 *   o_i = sum_j (phi(q_i).phi(k_j)) v_j / (sum_j phi(q_i).phi(k_j) + denom_eps)
 * phi: elu(x) + 1, relu(x), or dpfp: r = [relu(x); relu(-x)], r_i r_(i-s) for s = 1..nu.
 * The sums are those of kernels/linear_attention.h; decode holds S = sum phi(k) v^T and z = sum phi(k). */
#include "attn_map.h"
#include "kernel_attention.h"
#include <stdio.h>

typedef struct { int32_t feature_map, nu, normalize; double denom_eps; } opts;
static const attn_opt OPTS[] = {
    { "feature_map", "phi", offsetof(opts, feature_map), ATTN_CHOICE, 0, 0, 0, "elu1,relu,dpfp", 0 },
    { "nu", "dpfp: products of each number with its nu neighbours, at most 2D-1", offsetof(opts, nu), ATTN_INT, 3, 1, 1 << 20, NULL, 0 },
    { "normalize", "divide by the sum of the weights", offsetof(opts, normalize), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { "denom_eps", "added to the sum of the weights", offsetof(opts, denom_eps), ATTN_FLOAT, 1e-6, 0, 1e30, NULL, 0 },
    { .name = NULL } };

/* The problem of a shape with these options. */
static k_linattn problem_of(const attn_shape *s, const void *opt)
{
    const opts *o = opt;
    static const k_map MAPS[] = { K_MAP_ELU1, K_MAP_RELU, K_MAP_DPFP };
    k_linattn p = problem(s);
    p.f = (k_features){ .map = MAPS[o->feature_map], .D = s->Dk, .nu = o->nu };
    p.normalise = o->normalize;
    p.denom_eps = o->denom_eps;
    return p;
}

/* Sizes, and what the options do not allow. */
static int plan(const attn_shape *s, const void *opt, attn_plan *plan)
{
    const opts *o = opt;
    k_linattn p = problem_of(s, opt);
    if (p.f.map == K_MAP_DPFP && o->nu > 2 * s->Dk - 1) {
        snprintf(plan->why, sizeof plan->why, "nu %d is more than 2D-1 = %d at a head width of %d", o->nu, 2 * s->Dk - 1, s->Dk);
        return ATTN_EUNSUP;
    }
    return plan_sizes(s, &p, plan);
}

/* A call with these options. */
static k_linattn call(const attn_call *c)
{
    k_linattn p = problem_of(c->s, c->opts);
    bind_call(&p, c);
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
    sizeof V, "linear", "Linear attention (elu1, relu, DPFP)", "arXiv:2006.16236, arXiv:2102.11174", "T M Dv", 0,
    sizeof(opts), OPTS, NULL, NULL, NULL, KERNEL_IMPLS, map_ext };
ATTN_EXPORT(&V);
