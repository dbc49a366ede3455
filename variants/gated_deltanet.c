/* gated_deltanet - the delta rule on a memory that fades by a gate (Yang et al. 2024, arXiv:2412.06464).
 *
 *   S' = alpha_t S_{t-1},  S_t = S' + k_t u_t',  u_t = beta_t (v_t - S''k_t),  o_t = scale S_t'q_t
 *   ln alpha_t = -e^a_log softplus(a_t + dt_bias),  beta_t = sigmoid(beta_t), doubled with allow_neg_eigval
 *
 * that is, S' turned by I - beta k k', plus beta k v'.  With qk_l2norm q and k are divided by
 * sqrt(|x|^2 + norm_eps) first.  The memory and its gates belong to the key head. */
#include "recurrence.h"

typedef struct { int32_t qk_l2norm, allow_neg_eigval; double norm_eps, scale; } options;
static const attn_opt OPTS[] = {
    { "qk_l2norm", "queries and keys of length 1", offsetof(options, qk_l2norm), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { "norm_eps", "added to the squared length", offsetof(options, norm_eps), ATTN_FLOAT, 1e-6, 0, 1, NULL, 0 },
    { "allow_neg_eigval", "beta in (0,2)", offsetof(options, allow_neg_eigval), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "scale", "multiplier of the outputs; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { .name = NULL }
};
static const attn_gate GATES[] = { { "a", "decay before its bias" }, { "beta", "logit of the write strength" }, { .name = NULL } };
static const attn_param PARAMS[] = {
    { "a_log", "log of the rate of decay [Hk]", ATTN_NO_DECAY }, { "dt_bias", "bias of a [Hk]", ATTN_NO_DECAY }, { .name = NULL }
};

/* The problem of a shape with these options. */
static k_recurrence problem_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    k_recurrence r = problem_with(s, s->Hk);
    r.decay = K_DECAY_STEP;
    r.write = K_WRITE_DELTA;
    r.norm = o->qk_l2norm ? K_NORM_L2 : K_NORM_NONE;
    r.norm_eps = o->norm_eps;
    r.beta_max = o->allow_neg_eigval ? 2 : 1;
    r.scale = scale_of(s, o->scale);
    return r;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    p->gate_width[0] = p->gate_width[1] = 1;
    p->param_dims[0] = p->param_dims[1] = (attn_dims){ 1, { s->Hk } };
    p->param_init[0] = (attn_init){ ATTN_INIT_LOG_UNIFORM, 0, 16 };
    p->param_init[1] = (attn_init){ ATTN_INIT_STEP, 1e-3, 1e-1 };
    return plan_sizes(s, problem_of(s, opts), p);
}

/* The problem of a call. */
static k_recurrence bound(const attn_call *c)
{
    k_recurrence r = problem_of(c->s, c->opts);
    bind_call(&r, c);
    r.gate = heads(c->gate[0]), r.dgate = heads(c->dgate[0]), r.beta = heads(c->gate[1]), r.dbeta = heads(c->dgate[1]);
    r.a_log = c->param[0], r.dt_bias = c->param[1], r.da_log = c->dparam[0], r.ddt_bias = c->dparam[1];
    return r;
}

static const attn_variant GATED_DELTANET = {
    .size = sizeof GATED_DELTANET, .name = "gated_deltanet", .title = "Gated delta rule", .paper = "arXiv:2412.06464", .cost = "T Dk Dv",
    .opts_size = sizeof(options), .opts = OPTS, .gates = GATES, .params = PARAMS, .states = STATES, .impls = IMPLS
};
ATTN_EXPORT(&GATED_DELTANET);
