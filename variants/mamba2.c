/* mamba2 - state-space duality (Dao & Gu 2024, arXiv:2405.21060).
 *
 *   S_t = e^(step_t A) S_{t-1} + step_t k_t v_t',  o_t = S_t'q_t + d_skip v_t,
 *   step = clamp(softplus(dt + dt_bias), dt_min, dt_max),  A = -e^a_log
 *
 * q is C and k is B of the paper, [B,G,T,N] in G groups; v is x, [B,H,T,P], and every one of its heads has a memory
 * [N,P], a step and params of its own; head h reads group h G / H.  There is no scale. */
#include "recurrence.h"

typedef struct { int32_t use_d; double dt_min, dt_max; } options;
static const attn_opt OPTS[] = {
    { "dt_min", "least step", offsetof(options, dt_min), ATTN_FLOAT, 0, 0, 1e30, NULL, 0 },
    { "dt_max", "greatest step", offsetof(options, dt_max), ATTN_FLOAT, 1e30, 0, 1e30, NULL, 0 },
    { "use_d", "add d_skip times the value to the output", offsetof(options, use_d), ATTN_BOOL, 1, 0, 0, NULL, 0 },
    { .name = NULL }
};
static const attn_gate GATES[] = { { "dt", "step before its bias" }, { .name = NULL } };
static const attn_param PARAMS[] = {
    { "a_log", "log of the rate of decay [H]", ATTN_NO_DECAY }, { "dt_bias", "bias of dt [H]", ATTN_NO_DECAY },
    { "d_skip", "multiplier of the value in the output [H]", ATTN_NO_DECAY }, { .name = NULL }
};

/* The problem of a shape with these options. */
static k_recurrence problem_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    k_recurrence r = problem_with(s, s->Hv);
    r.decay = K_DECAY_STEP;
    r.write = K_WRITE_STEPPED;
    r.step_min = o->dt_min;
    r.step_max = o->dt_max;
    return r;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    const options *o = opts;
    if (o->dt_max < o->dt_min)
        return refused(p, "dt_max is less than dt_min");
    p->gate_width[0] = 1;
    for (int i = 0; i < (o->use_d ? 3 : 2); i++)
        p->param_dims[i] = (attn_dims){ 1, { s->Hv } };
    p->param_init[0] = (attn_init){ ATTN_INIT_LOG_UNIFORM, 1, 16 };
    p->param_init[1] = (attn_init){ ATTN_INIT_STEP, 1e-3, 1e-1 };
    p->param_init[2] = (attn_init){ ATTN_INIT_CONST, 1, 0 };
    return plan_sizes(s, problem_of(s, opts), p);
}

/* The problem of a call. */
static k_recurrence bound(const attn_call *c)
{
    k_recurrence r = problem_of(c->s, c->opts);
    bind_call(&r, c);
    r.gate = heads(c->gate[0]), r.dgate = heads(c->dgate[0]);
    r.a_log = c->param[0], r.dt_bias = c->param[1], r.d_skip = c->param[2];
    r.da_log = c->dparam[0], r.ddt_bias = c->dparam[1], r.dd_skip = c->dparam[2];
    return r;
}

static const attn_variant MAMBA2 = {
    .size = sizeof MAMBA2, .name = "mamba2", .title = "Mamba-2, state-space duality", .paper = "arXiv:2405.21060", .cost = "T Dk Dv",
    .flags = ATTN_GROUPED_QK, .opts_size = sizeof(options), .opts = OPTS, .gates = GATES, .params = PARAMS, .states = STATES,
    .impls = IMPLS
};
ATTN_EXPORT(&MAMBA2);
