/* transformer.c - the Transformer around any variant.
 *
 *   stack  x = drop(embedding[tokens] (x sqrt(d)) + positions);  every layer: x = residual(self-attention), in a decoder with an
 *          encoder x = residual(attention to its output), x = residual(feed forward);  pre-norm: a last norm
 *   pre    residual(F) = x + drop(F(norm(x)))          post   residual(F) = norm(x + drop(F(x)))
 *   attention    q, k, v and the variant's gates are linear in its input; the heads' outputs go through one more
 *   feed forward W2 act(W1 x), or with a gated activation W2 (act(Wg x) * (W1 x))
 *
 * Parameters are named as they stand in the model: layers.3.attention.q.weight. */
#include "transformer.h"
#include "internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int nn_transformer_init(nn_transformer *t, nn_params *params, const nn_model_opts *o, const nn_mixer_spec *mixers, int nmixers,
                        int64_t vocabulary, int64_t context, char *why, size_t nwhy)
{
    if (nn_model_check(o, why, nwhy))
        return ATTN_EINVAL;
    *t = (nn_transformer){ params, *o, mixers, nmixers, vocabulary, context, 0 };
    nn_model_fill(&t->o);
    return 0;
}

/* ---- where in the model we are, and its parameters ------------------------------------------------------------- */

typedef struct place {
    nn_transformer *t;
    nn_graph *g;
    const nn_stack *s;
    int layer;
    char path[80];                      /* "layers.3.attention" */
} place;

static attn_dims dims1(int64_t a) { return (attn_dims){ 1, { a } }; }
static attn_dims dims2(int64_t a, int64_t b) { return (attn_dims){ 2, { a, b } }; }
static attn_dims dims3(int64_t a, int64_t b, int64_t c) { return (attn_dims){ 3, { a, b, c } }; }
static attn_dims dims4(int64_t a, int64_t b, int64_t c, int64_t d) { return (attn_dims){ 4, { a, b, c, d } }; }

/* The parameter path.name.suffix. */
static nn_id parameter(const place *p, const char *name, const char *suffix, attn_dims dims, attn_init init, int flags)
{
    char full[120];
    snprintf(full, sizeof full, "%s%s%s.%s", p->path, *p->path ? "." : "", name, suffix);
    return nn_use(p->g, nn_param(p->t->params, full, dims, init, flags));
}

/* A table [rows,d_model], as embeddings are. */
static nn_id table(const place *p, const char *name, int64_t rows)
{
    return parameter(p, name, "weight", dims2(rows, p->t->o.d_model), (attn_init){ ATTN_INIT_NORMAL, 0, p->t->o.init }, 0);
}

/* W x (+ b): x [..,in] -> [..,width]. */
static nn_id linear(const place *p, const char *name, nn_id x, int64_t width, int bias, double sd)
{
    attn_dims d = nn_dims(p->g, x);
    if (x < 0)
        return NN_BAD;
    nn_id w = parameter(p, name, "weight", dims2(width, d.d[d.n - 1]), (attn_init){ ATTN_INIT_NORMAL, 0, sd }, 0);
    nn_id b = bias ? parameter(p, name, "bias", dims1(width), (attn_init){ ATTN_INIT_CONST, 0, 0 }, ATTN_NO_DECAY) : NN_NONE;
    return nn_linear(p->g, x, w, b);
}

static nn_id norm(const place *p, const char *name, nn_id x)
{
    const nn_model_opts *o = &p->t->o;
    nn_id gain = parameter(p, name, "weight", dims1(o->d_model), (attn_init){ ATTN_INIT_CONST, 1, 0 }, ATTN_NO_DECAY);
    if (o->norm == NN_NORM_RMS)
        return nn_rms_norm(p->g, x, gain, o->norm_eps);
    nn_id bias = parameter(p, name, "bias", dims1(o->d_model), (attn_init){ ATTN_INIT_CONST, 0, 0 }, ATTN_NO_DECAY);
    return nn_layer_norm(p->g, x, gain, bias, o->norm_eps);
}

/* Standard deviation of the weights that a sublayer ends with. */
static double end_init(const place *p)
{
    const nn_model_opts *o = &p->t->o;
    return o->scale_residual_init ? o->init / sqrt(o->layers * (1 + o->feed_forward)) : o->init;
}

/* ---- sublayers: [B,T,d_model] -> [B,T,d_model] --------------------------------------------------------------------- */

/* A projection of x as heads [B,T,H,D], without bias if attention has none. */
static nn_id heads(const place *p, const char *name, nn_id x, int64_t H, int64_t D)
{
    attn_dims d = nn_dims(p->g, x);
    nn_id y = linear(p, name, x, H * D, p->t->o.attention_bias, p->t->o.init);
    return nn_reshape(p->g, y, dims4(d.d[0], d.d[1], H, D));
}

/* A mixer with the shape of its problem: Tq queries, Tk keys. */
static nn_mixer_spec shaped(const nn_transformer *t, nn_mixer_spec m, int64_t B, int64_t Tq, int64_t Tk, int mode, int training)
{
    const nn_model_opts *o = &t->o;
    int grouped = (m.variant->flags & ATTN_GROUPED_QK) != 0;
    m.shape = (attn_shape){ .B = (int32_t)B, .Hq = grouped ? o->kv_heads : o->heads, .Hk = o->kv_heads,
                            .Hv = grouped ? o->heads : o->kv_heads, .Tq = (int32_t)Tq, .Tk = (int32_t)Tk, .Dk = o->d_head,
                            .Dv = o->d_head, .mode = mode, .dtype = (int32_t)t->params->dtype, .training = training };
    return m;
}

nn_mixer_spec nn_transformer_mixer(const nn_transformer *t, int layer, int64_t B, int64_t T, int mode, int training)
{
    return shaped(t, t->mixer[layer % t->nmixers], B, T, T, mode, training);
}

/* The gates that the variant asks for, each a projection to [B,T,Hv,width]; 0, or -1 with the graph's error set. */
static int gates(const place *p, const nn_mixer_spec *m, nn_id x, nn_id *gate)
{
    attn_plan plan;
    char why[200], name[80];
    int rc = nn_mixer_ask(p->g->dev, m, nn_capacity(p->g, m->shape.mode), &plan, why, sizeof why);
    if (rc)
        return nn_fail(p->g, rc, "%s", why);
    for (int i = 0; i < ATTN_MAX; i++) {
        gate[i] = NN_NONE;
        if (plan.gate_width[i] == 0)
            continue;
        snprintf(name, sizeof name, "gate.%s", m->variant->gates[i].name);
        gate[i] = heads(p, name, x, m->shape.Hv, plan.gate_width[i]);
    }
    return 0;
}

/* Queries of x, keys, values and gates of `of`. */
static nn_id attend(const place *p, const nn_mixer_spec *mixer, int mode, nn_id x, nn_id of, nn_id klen)
{
    const nn_model_opts *o = &p->t->o;
    attn_dims d = nn_dims(p->g, x), from = nn_dims(p->g, of);
    if (x < 0 || of < 0)
        return NN_BAD;
    nn_mixer_spec m = shaped(p->t, *mixer, d.d[0], d.d[1], from.d[1], mode, p->g->training);
    m.shape.klen = klen != NN_NONE;
    uint32_t flags = m.variant->flags;
    nn_id gate[ATTN_MAX];
    nn_id q = flags & ATTN_NO_Q ? NN_NONE : heads(p, "q", x, m.shape.Hq, o->d_head);
    nn_id k = flags & (ATTN_NO_K | ATTN_SHARED_QK) ? NN_NONE : heads(p, "k", of, m.shape.Hk, o->d_head);
    nn_id v = heads(p, "v", of, m.shape.Hv, o->d_head);
    if (gates(p, &m, of, gate))
        return NN_BAD;
    nn_id y = nn_attention_klen(p->g, &m, p->path, q, k, v, gate, klen);
    y = nn_reshape(p->g, y, dims3(d.d[0], d.d[1], (int64_t)attn_out_heads(&m.shape) * o->d_head));
    return linear(p, "out", y, o->d_model, o->attention_bias, end_init(p));
}

static nn_id self_attention(const place *p, nn_id x)
{
    const nn_mixer_spec *m = &p->s->mixer[p->layer % p->s->nmixers];
    int64_t memory = p->s->mode == ATTN_CAUSAL ? p->t->memory : 0;
    if (memory && m->variant->flags & ATTN_SHARED_QK)
        return nn_fail(p->g, ATTN_EUNSUP, "the keys of %s are its queries, which a memory does not have", m->variant->name);
    return attend(p, m, p->s->mode, x, memory ? nn_remember(p->g, x, memory) : x, p->s->klen);
}

static nn_id cross_attention(const place *p, nn_id x)
{
    return attend(p, p->s->cross, ATTN_CROSS, x, p->s->memory, p->s->memory_klen);
}

static nn_id feed_forward(const place *p, nn_id x)
{
    static const k_unary of[] = { [NN_RELU] = K_RELU, [NN_GELU] = K_GELU, [NN_SILU] = K_SILU,
                                  [NN_REGLU] = K_RELU, [NN_GEGLU] = K_GELU, [NN_SWIGLU] = K_SILU };
    const nn_model_opts *o = &p->t->o;
    nn_id up = linear(p, "up", x, o->d_ff, o->bias, o->init);
    nn_id gate = nn_model_is_gated(o) ? linear(p, "gate", x, o->d_ff, o->bias, o->init) : up;
    nn_id y = nn_unary(p->g, of[o->activation], gate);
    if (nn_model_is_gated(o))
        y = nn_mul(p->g, y, up);
    return linear(p, "down", nn_dropout(p->g, y, o->ffn_dropout), o->d_model, o->bias, end_init(p));
}

/* The sublayer F with its sum and its norm, as sublayer `name` of this layer. */
static nn_id residual(place *p, const char *name, nn_id (*F)(const place *, nn_id), nn_id x)
{
    int pre = p->t->o.norm_position == NN_NORM_PRE;
    snprintf(p->path, sizeof p->path, "%s%slayers.%d.%s", p->s->name, *p->s->name ? "." : "", p->layer, name);
    nn_id y = F(p, pre ? norm(p, "norm", x) : x);
    nn_id sum = nn_add(p->g, x, nn_dropout(p->g, y, p->t->o.dropout));
    return pre ? sum : norm(p, "norm", sum);
}

/* ---- the ends of the model -------------------------------------------------------------------------------------------- */

/* Row t is the place of token t: sin(w t) for d/2 frequencies w, then cos(w t); w falls from 1 to 1/10000. */
static nn_id sinusoids(const place *p, int64_t T, int64_t d)
{
    int reversed = p->t->o.positions == NN_POSITIONS_SINUSOIDAL_REVERSED;
    float *x = malloc((size_t)(T * d) * sizeof *x);
    if (!x)
        return nn_fail(p->g, NN_ENOMEM, "out of host memory");
    for (int64_t i = 0; i < d / 2; i++) {
        double w = pow(10000, -2.0 * (double)i / (double)d);
        for (int64_t t = 0; t < T; t++) {
            double angle = w * (double)(reversed ? T - 1 - t : t);
            x[t * d + i] = (float)sin(angle);
            x[t * d + d / 2 + i] = (float)cos(angle);
        }
    }
    nn_id rows = nn_constant(p->g, dims2(T, d), x);
    free(x);
    return rows;
}

/* The embedding is that of the whole model, whatever the stack. */
static nn_id embedding(nn_transformer *t, nn_graph *g)
{
    return table(&(place){ .t = t, .g = g }, "embedding", t->vocabulary);
}

/* The tokens, i32 [B,T], as [B,T,d_model]. */
static nn_id embed(const place *p)
{
    const nn_model_opts *o = &p->t->o;
    attn_dims d = nn_dims(p->g, p->s->tokens);
    int64_t capacity = nn_capacity(p->g, p->s->mode), T = capacity ? capacity : d.d[1];
    nn_id x = nn_gather(p->g, embedding(p->t, p->g), p->s->tokens), rows = NN_NONE;
    if (o->scale_embedding)
        x = nn_scale(p->g, x, sqrt(o->d_model));
    if (nn_model_is_sinusoidal(o))
        rows = sinusoids(p, T, o->d_model);
    else if (o->positions == NN_POSITIONS_LEARNED)
        rows = table(p, "positions", p->t->context);
    if (rows != NN_NONE)
        x = capacity ? nn_add(p->g, x, nn_gather(p->g, rows, nn_places(p->g, d.d[0], d.d[1]))) : nn_add_rows(p->g, x, rows);
    return nn_dropout(p->g, x, o->embedding_dropout);
}

/* All sublayers of this layer. */
static nn_id layer(place *p, nn_id x)
{
    int again = p->t->o.recompute == NN_RECOMPUTE_LAYER;
    if (again)
        nn_recompute_begin(p->g);
    x = residual(p, "attention", self_attention, x);
    if (p->s->memory != NN_NONE)
        x = residual(p, "cross", cross_attention, x);
    if (p->t->o.feed_forward)
        x = residual(p, "feed_forward", feed_forward, x);
    if (again)
        nn_recompute_end(p->g);
    return x;
}

nn_id nn_transformer_stack(nn_transformer *t, nn_graph *g, const nn_stack *s)
{
    place p = { .t = t, .g = g, .s = s };
    attn_dims d = nn_dims(g, s->tokens);
    if (s->tokens < 0 || d.n != 2)
        return nn_fail(g, ATTN_EINVAL, "transformer: tokens must be i32 [B,T]");
    int64_t capacity = nn_capacity(g, s->mode), T = capacity ? capacity : d.d[1];
    if (t->o.positions == NN_POSITIONS_LEARNED && T > t->context)
        return nn_fail(g, ATTN_EINVAL, "transformer: %lld tokens, learned positions for %lld", (long long)T, (long long)t->context);
    if (t->o.positions == NN_POSITIONS_SINUSOIDAL_REVERSED && capacity)
        return nn_fail(g, ATTN_EINVAL, "transformer: reversed positions are known when the sequence ends, not in decoding");
    snprintf(p.path, sizeof p.path, "%s", s->name);
    nn_id x = embed(&p);
    for (; p.layer < t->o.layers; p.layer++)
        x = layer(&p, x);
    snprintf(p.path, sizeof p.path, "%s", s->name);
    return t->o.norm_position == NN_NORM_PRE ? norm(&p, "norm", x) : x;
}

nn_id nn_transformer_body(nn_transformer *t, nn_graph *g, nn_id tokens, int mode)
{
    return nn_transformer_stack(t, g, &(nn_stack){ "", mode, tokens, NN_NONE, t->mixer, t->nmixers, NN_NONE, NN_NONE, NULL });
}

/* The output layer's weights [vocabulary,d_model]. */
static nn_id output(nn_transformer *t, nn_graph *g)
{
    return t->o.tie_embeddings ? embedding(t, g) : table(&(place){ .t = t, .g = g }, "output", t->vocabulary);
}

/* h [B,T,d_model] as rows [B*T,d_model]. */
static nn_id rows_of(nn_graph *g, nn_id h)
{
    attn_dims d = nn_dims(g, h);
    return h < 0 ? NN_BAD : nn_reshape(g, h, dims2(d.d[0] * d.d[1], d.d[2]));
}

nn_id nn_transformer_logits(nn_transformer *t, nn_graph *g, nn_id h)
{
    return nn_linear(g, rows_of(g, h), output(t, g), NN_NONE);
}

nn_id nn_transformer_loss(nn_transformer *t, nn_graph *g, nn_id h, nn_id target, double smoothing)
{
    return nn_linear_cross_entropy(g, rows_of(g, h), output(t, g), NN_NONE, target, smoothing);
}
