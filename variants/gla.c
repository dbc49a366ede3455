/* gla - gated linear attention (Yang et al. 2023, arXiv:2312.06635).
 *
 *   S_t = diag(e^l_t) S_{t-1} + k_t v_t',  o_t = scale S_t'q_t,  l_t = max(logsigmoid(gk_t) / gate_normalizer, gate_min)
 *
 * Every channel of the key fades by a gate of its own; the memory belongs to the key head.  First the decay, then
 * the write, then the read. */
#include "recurrence.h"

typedef struct { double gate_normalizer, gate_min, scale; } options;
static const attn_opt OPTS[] = {
    { "gate_normalizer", "divisor of the log of the gate", offsetof(options, gate_normalizer), ATTN_FLOAT, 16, 0, 1e6, NULL, ATTN_OPEN_MIN },
    { "gate_min", "least log of a gate; -1e30: none", offsetof(options, gate_min), ATTN_FLOAT, -1e30, -1e30, 0, NULL, 0 },
    { "scale", "multiplier of the outputs; 0: 1/sqrt(Dk)", offsetof(options, scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { .name = NULL }
};
static const attn_gate GATES[] = { { "gk", "logit of the gate of every key channel" }, { .name = NULL } };

/* The problem of a shape with these options. */
static k_recurrence problem_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    k_recurrence r = problem_with(s, s->Hk);
    r.decay = K_DECAY_CHANNEL;
    r.write = K_WRITE_SUM;
    r.gate_normalizer = o->gate_normalizer;
    r.gate_min = o->gate_min;
    r.scale = scale_of(s, o->scale);
    return r;
}

/* [cold] */
static int plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    p->gate_width[0] = s->Dk;
    return plan_sizes(s, problem_of(s, opts), p);
}

/* The problem of a call. */
static k_recurrence bound(const attn_call *c)
{
    k_recurrence r = problem_of(c->s, c->opts);
    bind_call(&r, c);
    r.gate = heads(c->gate[0]), r.dgate = heads(c->dgate[0]);
    return r;
}

static const attn_variant GLA = {
    .size = sizeof GLA, .name = "gla", .title = "Gated linear attention", .paper = "arXiv:2312.06635", .cost = "T Dk Dv",
    .opts_size = sizeof(options), .opts = OPTS, .gates = GATES, .states = STATES, .impls = IMPLS
};
ATTN_EXPORT(&GLA);
