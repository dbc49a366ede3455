/* fwp - fast weight programmers (Schlag, Irie & Schmidhuber 2021, arXiv:2102.11174).
 *
 * A memory W [m,Dv] is written by the features b_t of the key and read by the features a_i of the query,
 * b = norm(phi(k)), a = norm(phi(q)); the rules, the denominators and the read stand in kernels/fast_weights.h and, as
 * the loops of "ref", in kernels/cpu/fast_weights_ref.c.
 * Causal: query i reads after the write of token i.  Bidirectional and cross: the read-out, all tokens are
 * written, then all queries read.  "fwm" is the rule of Schlag et al. 2021a as the synthetic experiments use it;
 * "gated" that of Peng et al. 2021.  Memory and features belong to the key head.  A state of zeros is no state.
 *
 * Backward, with R = dL/dW_t and g = dL/dy, from the last token to the first:
 *   read   da = W g,  R += a g'
 *   write  dx = R'b,  db = R x + z's part,  and through x = beta (v - W'b / den):  dv = beta dx,
 *          dbeta = dx.(v - W'b / den),  R -= beta b dx' / den,  db -= beta W dx / den */
#include "attn.h"
#include "cuda_impl.h"
#include <math.h>
#include <string.h>

typedef struct {
    int32_t rule, map, nu, qk_norm, attn_norm, allow_neg_eigval, feature_type, nb_features, projection, ortho_scaling;
    int32_t stabilizer, redraw_interval;
    double norm_eps, attn_eps, scale, feature_eps, input_scale;
} options;
#define AT(field) offsetof(options, field)
static const attn_opt OPTS[] = {
    { "update_rule", "how a token is written", AT(rule), ATTN_CHOICE, 1, 0, 0, "sum,delta,gated,fwm", 0 },
    { "feature_map", "phi", AT(map), ATTN_CHOICE, 0, 0, 0, "dpfp,elu1,relu,silu,identity,tanh,favor", 0 },
    { "nu", "dpfp: products with 1..nu shifts, up to 2 Dk - 1", AT(nu), ATTN_INT, 3, 1, 1 << 20, NULL, 0 },
    { "qk_norm", "normalisation of the features", AT(qk_norm), ATTN_CHOICE, 0, 0, 0, "sum,l2,none", 0 },
    { "norm_eps", "added to the sum or to the squared length", AT(norm_eps), ATTN_FLOAT, 1e-6, 0, 1, NULL, 0 },
    { "attn_norm", "division by z.a on reading, by z.b on writing too", AT(attn_norm), ATTN_CHOICE, 0, 0, 0, "none,output,full", 0 },
    { "attn_eps", "added to z.a and z.b", AT(attn_eps), ATTN_FLOAT, 1e-6, 0, 1, NULL, 0 },
    { "allow_neg_eigval", "delta: beta in (0,2)", AT(allow_neg_eigval), ATTN_BOOL, 0, 0, 0, NULL, 0 },
    { "scale", "multiplier of the output; 0: 1/sqrt(Dk)", AT(scale), ATTN_FLOAT, 1, 0, 1e6, NULL, 0 },
    { "feature_type", "favor: kind of random features", AT(feature_type), ATTN_CHOICE, 1, 0, 0, "positive,hyperbolic,trig", 0 },
    { "nb_features", "favor: rows of the projection; 0: Dk ln Dk", AT(nb_features), ATTN_INT, 256, 0, 1 << 20, NULL, 0 },
    { "projection", "favor: how it is drawn", AT(projection), ATTN_CHOICE, 0, 0, 0, "orthogonal,iid", 0 },
    { "ortho_scaling", "favor: row lengths random (0) or sqrt(Dk) (1)", AT(ortho_scaling), ATTN_INT, 0, 0, 1, NULL, 0 },
    { "feature_eps", "favor: added to every feature", AT(feature_eps), ATTN_FLOAT, 0, 0, 1, NULL, 0 },
    { "stabilizer", "favor: constant taken off the exponents", AT(stabilizer), ATTN_CHOICE, 1, 0, 0, "max,none", 0 },
    { "input_scale", "favor: multiplier of q and k; 0: Dk^(-1/4)", AT(input_scale), ATTN_FLOAT, 0, 0, 1e6, NULL, 0 },
    { "redraw_interval", "favor: steps between two drawings; 0: never", AT(redraw_interval), ATTN_INT, 0, 0, INT32_MAX, NULL, 0 },
    { .name = NULL }
};
static const attn_gate GATES[] = { { "beta", "logit of the write strength" }, { .name = NULL } };
static const attn_param PARAMS[] = { { "proj", "favor: rows of random features", ATTN_FROZEN | ATTN_REDRAW }, { .name = NULL } };
static const attn_state STATES[] = { { "state", "W [B,Hk,m,Dv]" }, { "z", "sum of key features [B,Hk,m]" }, { .name = NULL } };

/* ---- the problem, shared by all impls -------------------------------------------------------------------- */

/* Shape and options, without tensors. */
static k_fast_weights problem_of(const attn_shape *s, const options *o)
{
    static const k_map maps[] = { K_MAP_DPFP, K_MAP_ELU1, K_MAP_RELU, K_MAP_SILU, K_MAP_IDENTITY, K_MAP_TANH, K_MAP_FAVOR };
    static const k_norm norms[] = { K_NORM_SUM, K_NORM_L2, K_NORM_NONE };
    int rows = o->nb_features ? o->nb_features : (int)fmax(1, floor(s->Dk * log(s->Dk)));
    k_fast_weights f = {
        .B = s->B, .Hq = s->Hq, .Hk = s->Hk, .Tq = s->Tq, .Tk = s->Tk, .Dk = s->Dk, .Dv = s->Dv, .causal = s->mode == ATTN_CAUSAL,
        .rule = (k_fw_rule)o->rule, .attn_norm = (k_fw_norm)o->attn_norm, .qk_norm = norms[o->qk_norm], .norm_eps = o->norm_eps,
        .attn_eps = o->attn_eps, .scale = o->scale > 0 ? o->scale : 1 / sqrt(s->Dk), .beta_max = o->allow_neg_eigval ? 2 : 1,
        .features = { .map = maps[o->map], .D = s->Dk, .nu = o->nu, .favor = (k_favor)o->feature_type, .m = rows,
                      .input_scale = o->input_scale, .eps = o->feature_eps, .stabilise = o->stabilizer == 0 }
    };
    f.m = k_features_width(&f.features);
    return f;
}

/* Why this is not defined, or NULL. */
static const char *refusal(const attn_shape *s, const k_fast_weights *f)
{
    k_map map = f->features.map;
    int favor = map == K_MAP_FAVOR, trig = favor && f->features.favor == K_FAVOR_TRIG;
    if (s->klen)
        return "key lengths are not defined for fast weights (pad on the right)";
    if (s->mode == ATTN_CAUSAL && (s->decode ? s->Tq > s->Tk : s->Tq != s->Tk))
        return "causal fast weights need Tq == Tk: every token is written";
    if (s->mode == ATTN_BIDIR && s->Tq != s->Tk)
        return "mode bidirectional needs Tq == Tk";
    if (map == K_MAP_DPFP && f->features.nu > 2 * s->Dk - 1)
        return "nu must be at most 2 Dk - 1";
    if (f->qk_norm == K_NORM_SUM && (map == K_MAP_SILU || map == K_MAP_IDENTITY || map == K_MAP_TANH || trig))
        return "qk_norm sum needs non-negative features: dpfp, elu1, relu, or favor that is not trig";
    if (f->attn_norm == K_FW_FULL && f->rule != K_FW_DELTA)
        return "attn_norm full is defined for update_rule delta only";
    if (f->rule == K_FW_FWM && (f->attn_norm != K_FW_NONE || f->qk_norm != K_NORM_NONE))
        return "update_rule fwm is defined for attn_norm none and qk_norm none";
    if (f->beta_max > 1 && f->rule != K_FW_DELTA)
        return "allow_neg_eigval is defined for update_rule delta only";
    if (favor && f->features.stabilise && f->qk_norm == K_NORM_NONE)
        return "stabilizer max needs qk_norm sum or l2: the maximum is taken per token and must cancel";
    return NULL;
}

/* What all impls plan; number: bytes of one number. */
static int plan_common(const attn_shape *s, const options *o, const k_fast_weights *f, size_t number, attn_plan *p)
{
    if (refused(p, refusal(s, f)))
        return ATTN_EUNSUP;
    double heads = (double)s->B * s->Hk, queries = (double)s->B * s->Hq * s->Tq, E = s->Dv, m = f->m;
    p->gate_width[0] = f->rule != K_FW_SUM;
    if (f->features.map == K_MAP_FAVOR)
        p->param_dims[0] = (attn_dims){ 3, { s->Hk, f->features.m, s->Dk } };
    p->param_init[0] = o->projection ? (attn_init){ ATTN_INIT_NORMAL, 0, 1 } :
                       (attn_init){ o->ortho_scaling ? ATTN_INIT_ORTHO_SQRT : ATTN_INIT_ORTHO_CHI, 0, 0 };
    p->state_dims[0] = (attn_dims){ 4, { s->B, s->Hk, f->m, s->Dv } };
    if (f->attn_norm != K_FW_NONE)
        p->state_dims[1] = (attn_dims){ 3, { s->B, s->Hk, f->m } };
    p->state = (size_t)s->B * (size_t)s->Hk * (size_t)f->m * ((size_t)s->Dv + 1) * number;
    p->state_second = p->state / ((size_t)s->Dv + 1) * (size_t)s->Dv;
    /* Rule: the recurrence as defined, 2 m Dv for each of recall, write and read (sum and gated: no recall);
     * backward twice that; features are not counted.  Traffic: inputs and outputs once each way. */
    double products = f->rule == K_FW_DELTA || f->rule == K_FW_FWM ? 4 : 2;
    double in = queries * s->Dk + heads * s->Tk * (s->Dk + E + 1), out = queries * E;
    p->flops_fwd = m * E * (products * heads * s->Tk + 2 * queries);
    p->flops_bwd = 2 * p->flops_fwd;
    p->bytes_fwd = (in + out) * (double)number;
    p->bytes_bwd = 2 * p->bytes_fwd;
    return ATTN_OK;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* [cold] */
static int ref_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_fast_weights f = problem_of(s, opts);
    p->scratch_fwd = k_dfast_weights_scratch(&f, 0) * sizeof(double);
    p->scratch_bwd = k_dfast_weights_scratch(&f, 1) * sizeof(double);
    f.Tk = s->Tq;
    p->scratch_dec = k_dfast_weights_scratch(&f, 0) * sizeof(double);
    return plan_common(s, opts, &f, sizeof(double), p);
}

/* [cold] */
static int cpu_plan(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_fast_weights f = problem_of(s, opts);
    int rc = plan_common(s, opts, &f, sizeof(float), p);
    if (rc)
        return rc;
    p->saved = s->training ? k_fast_weights_saved(&f) * sizeof(float) : 0;
    p->scratch_fwd = p->scratch_bwd = k_fast_weights_scratch(&f) * sizeof(float);
    f.Tk = s->Tq;
    p->scratch_dec = k_fast_weights_scratch(&f) * sizeof(float);
    return ATTN_OK;
}

/* The problem of a call. */
static k_fast_weights problem_from(const attn_call *c)
{
    k_fast_weights f = problem_of(c->s, c->opts);
    f.threads = c->nthreads;
    f.features.W = c->param[0];
    f.q = heads(c->q), f.k = heads(c->k), f.v = heads(c->v), f.beta = heads(c->gate[0]), f.o = heads(c->o);
    f.d_o = heads(c->d_o), f.dq = heads(c->dq), f.dk = heads(c->dk), f.dv = heads(c->dv), f.dbeta = heads(c->dgate[0]);
    f.state_in = c->state_in[0], f.z_in = c->state_in[1], f.state_out = c->state_out[0], f.z_out = c->state_out[1];
    f.dstate = c->dstate_in[0], f.dz = c->dstate_in[1], f.saved = c->saved, f.scratch = c->scratch;
    return f;
}

/* Decoding is a causal forward pass over the new tokens from the state W [B,Hk,m,Dv], z [B,Hk,m] to itself. */
static k_fast_weights decode_from(const attn_call *c, size_t number)
{
    k_fast_weights f = problem_from(c);
    f.Tk = f.Tq;
    f.causal = 1;
    f.saved = NULL;
    f.state_in = f.state_out = c->state;
    f.z_in = f.z_out = (char *)c->state + (size_t)f.B * (size_t)f.Hk * (size_t)f.m * (size_t)f.Dv * number;
    return f;
}

/* The definition. */
static int ref_forward(const attn_call *c)
{
    k_fast_weights f = problem_from(c);
    k_dfast_weights_forward(&f);
    return ATTN_OK;
}

/* The fast form. */
static int cpu_forward(const attn_call *c)
{
    k_fast_weights f = problem_from(c);
    k_fast_weights_forward(&f);
    return ATTN_OK;
}

/* Backward and decoding hand the problem on. */
static int ref_backward(const attn_call *c) { k_fast_weights f = problem_from(c); return k_dfast_weights_backward(&f), ATTN_OK; }
static int cpu_backward(const attn_call *c) { k_fast_weights f = problem_from(c); return k_fast_weights_backward(&f), ATTN_OK; }
static int ref_decode(const attn_call *c) { k_fast_weights f = decode_from(c, sizeof(double)); return k_dfast_weights_forward(&f), ATTN_OK; }
static int cpu_decode(const attn_call *c) { k_fast_weights f = decode_from(c, sizeof(float)); return k_fast_weights_forward(&f), ATTN_OK; }

/* The GPU's: states are float in any dtype, and decoding takes no longer than the tokens of one call. */
static int accepts(const attn_shape *s, const void *opts, attn_plan *p)
{
    k_fast_weights f = problem_of(s, opts);
    int rc = plan_common(s, opts, &f, k_dtype_size((k_dtype)s->dtype), p);
    p->state_second = (size_t)s->B * (size_t)s->Hk * (size_t)f.m * (size_t)s->Dv * sizeof(float);
    return rc;
}
static k_fast_weights cuda_shape(const attn_shape *s, const void *opts)
{
    k_fast_weights f = problem_of(s, opts);
    if (s->decode)
        f.Tk = s->Tq;
    return f;
}
static k_fast_weights cuda_step(const attn_call *c) { return decode_from(c, sizeof(float)); }
CUDA_IMPL(cuda, fast_weights, accepts, cuda_shape, problem_from, cuda_step)

enum { MODES = ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS };
static const attn_impl IMPLS[] = {
    { "ref", ATTN_CPU, ATTN_F64, MODES, 0, ref_plan, ref_forward, ref_backward, ref_decode },
    { "cpu", ATTN_CPU, ATTN_F32, MODES, 10, cpu_plan, cpu_forward, cpu_backward, cpu_decode },
    { "cuda", ATTN_CUDA, ATTN_F32 | ATTN_BF16, MODES, 20, cuda_plan, cuda_forward, cuda_backward, cuda_decode },
    { .name = NULL }
};
static const attn_variant FWP = {
    .size = sizeof FWP, .name = "fwp", .title = "Fast weight programmer", .paper = "arXiv:2102.11174", .cost = "T m Dv",
    .opts_size = sizeof(options), .opts = OPTS, .gates = GATES, .params = PARAMS, .states = STATES, .impls = IMPLS
};
ATTN_EXPORT(&FWP);
