/* retention - a memory that fades by a constant of its head (Sun et al. 2023, arXiv:2307.08621).
 *
 *   S_t = gamma S_{t-1} + k_t v_t',  o_t = scale S_t'q_t,  gamma_h = 1 - 2^-(decay_exponent + h)
 *
 * that is o_i = scale sum over j <= i of gamma^(i-j) (q_i.k_j) v_j.  h is the query head: every query head has a
 * memory of its own, also where several read one key head.  With position rope, q and k are turned by their
 * positions first; `offset` is the position of token 0, for a sequence that goes on from a state. */
#include "recurrence.h"

typedef struct { double decay_exponent, scale; k_position position; } options;
static const attn_opt OPTS[] = {
    { "decay_exponent", "head h fades by 1 - 2^-(decay_exponent + h)", offsetof(options, decay_exponent), ATTN_FLOAT, 5, 0, 1e6,
      NULL, ATTN_OPEN_MIN },
    { "scale", "multiplier of the outputs; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    K_ROPE_OPTIONS(options, position),
    { .name = NULL }
};
static const attn_param PARAMS[] = { { "offset", "rope: position of token 0", ATTN_FROZEN | ATTN_OPTIONAL }, { .name = NULL } };

/* The problem of a shape with these options. */
static k_recurrence problem_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    k_recurrence r = problem_with(s, s->Hq);
    r.decay = K_DECAY_FIXED;
    r.write = K_WRITE_SUM;
    r.decay_exponent = o->decay_exponent;
    r.scale = scale_of(s, o->scale);
    r.position = o->position.position == K_POSITION_ROPE ? &o->position : NULL;
    return r;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    const options *o = opts;
    if (refused(p, k_position_refusal(&o->position, s->Dk, 0)))
        return ATTN_EUNSUP;
    if (o->position.position == K_POSITION_ROPE)
        p->param_dims[0] = (attn_dims){ 1, { 1 } };
    return plan_sizes(s, problem_of(s, opts), p);
}

/* The problem of a call. */
static k_recurrence bound(const attn_call *c)
{
    k_recurrence r = problem_of(c->s, c->opts);
    bind_call(&r, c);
    r.offset = c->param[0];
    return r;
}

static const attn_variant RETENTION = {
    .size = sizeof RETENTION, .name = "retention", .title = "Retention", .paper = "arXiv:2307.08621", .cost = "T Dk Dv",
    .opts_size = sizeof(options), .opts = OPTS, .params = PARAMS, .states = STATES, .impls = IMPLS
};
ATTN_EXPORT(&RETENTION);
