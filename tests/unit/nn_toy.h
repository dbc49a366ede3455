/* nn_toy.h - a variant for tests of nn/, with one of everything: a gate, a learned and a redrawn param, a state.
 *
 *   o_i = sum over seen j of sigmoid(g_j) (q_i . (w r k_j)) v_j  +  q_i S0,     S = S0 + sum_j sigmoid(g_j) (w r k_j) v_j^T
 *
 * "ref" is double in every mode, "fast" is float and refuses mode cross.  Option `trouble` makes plan() misbehave. */
#ifndef NN_TOY_H
#define NN_TOY_H
#include "harness/attn.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FINE, FAST_REFUSES, ALL_REFUSE, SILENT_REFUSAL, PLAN_FAILS, GATE_NEGATIVE, GATE_UNKNOWN, PARAM_ZERO, PARAM_DIMS, PARAM_HUGE,
       PARAM_UNKNOWN, INIT_UNKNOWN, INIT_ORTHO_FLAT, STATE_NEGATIVE, STATE_UNKNOWN, SAVED_HUGE, SAVED_ENDLESS, SCRATCH_HUGE,
       NO_DECODE_STATE };
typedef struct toy_opts { int32_t trouble; } toy_opts;

#define REAL double
#define TOY(name) toy64_##name
#include "nn_toy.inc"
#define REAL float
#define TOY(name) toy32_##name
#include "nn_toy.inc"

/* The nonsense that `trouble` asks for. */
static void toy_spoil(int trouble, attn_plan *p)
{
    switch (trouble) {
    case GATE_NEGATIVE: p->gate_width[0] = -1; break;
    case GATE_UNKNOWN: p->gate_width[1] = 1; break;
    case PARAM_ZERO: p->param_dims[0].d[0] = 0; break;
    case PARAM_DIMS: p->param_dims[0].n = 5; break;
    case PARAM_HUGE: p->param_dims[0] = (attn_dims){ 4, { 1 << 30, 1 << 30, 1 << 30, 1 << 30 } }; break;
    case PARAM_UNKNOWN: p->param_dims[2] = (attn_dims){ 1, { 3 } }; break;
    case INIT_UNKNOWN: p->param_init[0].kind = 17; break;
    case INIT_ORTHO_FLAT: p->param_init[0].kind = ATTN_INIT_ORTHO_CHI; break;
    case STATE_NEGATIVE: p->state_dims[0].d[1] = -3; break;
    case STATE_UNKNOWN: p->state_dims[1] = (attn_dims){ 1, { 3 } }; break;
    case SAVED_HUGE: p->saved = (size_t)1000000000000000; break;
    case SAVED_ENDLESS: p->saved = SIZE_MAX; break;
    case SCRATCH_HUGE: p->scratch_bwd = (size_t)1000000000000000; break;
    case NO_DECODE_STATE: p->state = 0; break;
    default: break;
    }
}

static int toy_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    int trouble = ((const toy_opts *)opts)->trouble;
    size_t each = s->dtype == ATTN_F64 ? 8 : 4;
    if (trouble == ALL_REFUSE || (trouble == FAST_REFUSES && s->dtype == ATTN_F32)) {
        snprintf(p->why, sizeof p->why, "toy in %s does not like you", s->dtype == ATTN_F64 ? "f64" : "f32");
        return ATTN_EUNSUP;
    }
    if (trouble == SILENT_REFUSAL || trouble == PLAN_FAILS)
        return trouble == PLAN_FAILS ? 77 : ATTN_EUNSUP;
    p->saved = (size_t)(s->B * s->Hk * s->Tk) * each;
    p->scratch_fwd = p->scratch_bwd = p->scratch_dec = (size_t)s->Dk * each;
    p->state = (size_t)(s->B * s->Hk * s->Dk * s->Dv) * each;
    p->gate_width[0] = 1;
    p->param_dims[0] = p->param_dims[1] = (attn_dims){ 1, { s->Dk } };
    p->param_init[0] = (attn_init){ ATTN_INIT_NORMAL, 1, 0.1 };
    p->param_init[1] = (attn_init){ ATTN_INIT_UNIFORM, 0.5, 1.5 };
    p->state_dims[0] = (attn_dims){ 4, { s->B, s->Hk, s->Dk, s->Dv } };
    toy_spoil(trouble, p);
    return ATTN_OK;
}

static const attn_opt toy_options[] = { { "trouble", "which", 0, ATTN_INT, 0, 0, 100, NULL, 0 }, { NULL } };
static const attn_gate toy_gates[] = { { "g", "write strength" }, { NULL } };
static const attn_param toy_params[] = { { "w", "weights", 0 }, { "r", "random", ATTN_FROZEN | ATTN_REDRAW }, { NULL } };
static const attn_state toy_states[] = { { "S", "memory" }, { NULL } };
static const attn_impl toy_impls[] = {
    { "ref", ATTN_CPU, ATTN_F64, ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS, 0, toy_plan, toy64_forward, toy64_backward, toy64_decode },
    { "fast", ATTN_CPU, ATTN_F32, ATTN_CAUSAL | ATTN_BIDIR, 10, toy_plan, toy32_forward, toy32_backward, toy32_decode },
    { NULL } };
static const attn_variant toy = { sizeof(attn_variant), "toy", "A toy", "none", "T^2", 0, sizeof(toy_opts), toy_options, toy_gates,
                                  toy_params, toy_states, toy_impls, NULL };
#endif
