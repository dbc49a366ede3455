/* transformer.c - the Transformer around any variant.
 *
 *   stack  x = drop(embedding[tokens] (x sqrt(d)) + positions);  every layer: x = residual(self-attention), in a decoder with an
 *          encoder x = residual(attention to its output), x = residual(feed forward);  pre-norm: a last norm
 *   pre    residual(F) = x + drop(F(norm(x)))          post   residual(F) = norm(x + drop(F(x)));  without residuals no x +
 *   reversible   two streams, both the embedding at first: a sublayer adds to one what it makes of the norm of the other, and
 *          the next the other way round (Gomez et al. 2017, Kitaev et al. 2020);  at the end the norm of their sum
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
    *t = (nn_transformer){ params, *o, mixers, nmixers, vocabulary, context, 0, { o->short_conv } };
    nn_model_fill(&t->o);
    return 0;
}

/* ---- where in the model we are, and its parameters ------------------------------------------------------------- */

typedef struct place {
    nn_transformer *t;
    nn_graph *g;
    const nn_stack *s;
    int layer, sublayers;               /* how many sublayers came before: reversible ones take the streams in turn */
    nn_id positions;                    /* [T or more,d_model], NN_NONE: there are none */
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

/* A table [rows,width], as embeddings are. */
static nn_id table(const place *p, const char *name, int64_t rows, int64_t width)
{
    return parameter(p, name, "weight", dims2(rows, width), (attn_init){ ATTN_INIT_NORMAL, 0, p->t->o.init }, NN_TABLE);
}

/* W [width,in] and b [width], NN_NONE if there is to be none, of a linear map. */
static nn_id weight(const place *p, const char *name, int64_t width, int64_t in, double sd)
{
    return parameter(p, name, "weight", dims2(width, in), (attn_init){ ATTN_INIT_NORMAL, 0, sd }, 0);
}

static nn_id bias(const place *p, const char *name, int64_t width, int wanted)
{
    return wanted ? parameter(p, name, "bias", dims1(width), (attn_init){ ATTN_INIT_CONST, 0, 0 }, ATTN_NO_DECAY) : NN_NONE;
}

/* W x (+ b): x [..,in] -> [..,width]. */
static nn_id linear(const place *p, const char *name, nn_id x, int64_t width, int biased, double sd)
{
    attn_dims d = nn_dims(p->g, x);
    if (x < 0)
        return NN_BAD;
    nn_id w = weight(p, name, width, d.d[d.n - 1], sd);
    return nn_linear(p->g, x, w, bias(p, name, width, biased));
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

/* The convolution of heads [B,T,H,D] of self-attention, over the tokens that a graph which decodes has seen before, too. */
static nn_id short_conv(const place *p, const char *name, int mode, nn_id x)
{
    const nn_model_opts *o = &p->t->o;
    char full[100];
    if (!o->short_conv || x < 0)
        return x;
    nn_mixer_spec m = { .variant = &nn_short_conv, .opts = &p->t->conv, .common = { NN_OUTPUT_NORM_NONE, 1e-5 }, .shape = { .mode = mode } };
    snprintf(full, sizeof full, "%s.%s_conv", p->path, name);
    nn_id y = nn_attention(p->g, &m, full, NN_NONE, NN_NONE, x, NULL);
    return o->short_conv_activation == NN_SHORT_CONV_SILU ? nn_unary(p->g, K_SILU, y) : y;
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
    if (mode != ATTN_CROSS) {
        q = short_conv(p, "q", mode, q);
        k = short_conv(p, "k", mode, k);
        v = short_conv(p, "v", mode, v);
    }
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
    if (memory && p->t->o.short_conv)
        return nn_fail(p->g, ATTN_EUNSUP, "a short convolution sees queries before the segment, which a memory does not have");
    return attend(p, m, p->s->mode, x, memory ? nn_remember(p->g, x, memory) : x, p->s->klen);
}

static nn_id cross_attention(const place *p, nn_id x)
{
    return attend(p, p->s->cross, ATTN_CROSS, x, p->s->memory, p->s->memory_klen);
}

/* The feed-forward in chunks. */
static nn_id chunked(const place *p, nn_id x, k_unary act)
{
    const nn_model_opts *o = &p->t->o;
    nn_ffn f = { .unary = act, .dropout = o->ffn_dropout, .chunks = o->feed_forward_chunks, .gate = NN_NONE, .gate_bias = NN_NONE };
    f.up = weight(p, "up", o->d_ff, o->d_model, o->init);
    f.up_bias = bias(p, "up", o->d_ff, o->bias);
    if (nn_model_is_gated(o)) {
        f.gate = weight(p, "gate", o->d_ff, o->d_model, o->init);
        f.gate_bias = bias(p, "gate", o->d_ff, o->bias);
    }
    f.down = weight(p, "down", o->d_model, o->d_ff, end_init(p));
    f.down_bias = bias(p, "down", o->d_model, o->bias);
    return nn_feed_forward(p->g, x, &f);
}

static nn_id feed_forward(const place *p, nn_id x)
{
    static const k_unary of[] = { [NN_RELU] = K_RELU, [NN_GELU] = K_GELU, [NN_SILU] = K_SILU,
                                  [NN_REGLU] = K_RELU, [NN_GEGLU] = K_GELU, [NN_SWIGLU] = K_SILU };
    const nn_model_opts *o = &p->t->o;
    if (o->feed_forward_chunks > 1)
        return chunked(p, x, of[o->activation]);
    nn_id up = linear(p, "up", x, o->d_ff, o->bias, o->init);
    nn_id gate = nn_model_is_gated(o) ? linear(p, "gate", x, o->d_ff, o->bias, o->init) : up;
    nn_id y = nn_unary(p->g, of[o->activation], gate);
    if (nn_model_is_gated(o))
        y = nn_mul(p->g, y, up);
    return linear(p, "down", nn_dropout(p->g, y, o->ffn_dropout), o->d_model, o->bias, end_init(p));
}

typedef nn_id sublayer(const place *, nn_id x);

/* F with its sum and its norm, of one stream; again: F is made again in backward. */
static nn_id residual(const place *p, sublayer *F, int again, nn_id x)
{
    const nn_model_opts *o = &p->t->o;
    int pre = o->norm_position == NN_NORM_PRE;
    if (again)
        nn_recompute_begin(p->g);
    nn_id y = nn_dropout(p->g, F(p, pre ? norm(p, "norm", x) : x), o->dropout);
    if (again)
        nn_recompute_end(p->g);
    if (o->residual)
        y = nn_add(p->g, x, y);
    return pre ? y : norm(p, "norm", y);
}

/* F of one of two streams, added to the other in its place. */
static nn_id reversible(const place *p, sublayer *F, nn_id from, nn_id to)
{
    nn_recompute_begin(p->g);
    nn_id y = F(p, norm(p, "norm", from));
    to = nn_reversible_add(p->g, to, nn_dropout(p->g, y, p->t->o.dropout));
    nn_recompute_end(p->g);
    return to;
}

/* Sublayer `name` of this layer, x: its stream, or both of them. */
static void pass(place *p, const char *name, sublayer *F, nn_id *x)
{
    int to = p->sublayers++ % 2, again = p->t->o.recompute == NN_RECOMPUTE_ATTENTION && F != feed_forward;
    snprintf(p->path, sizeof p->path, "%s%slayers.%d.%s", p->s->name, *p->s->name ? "." : "", p->layer, name);
    if (p->t->o.reversible)
        x[to] = reversible(p, F, x[1 - to], x[to]);
    else
        x[0] = residual(p, F, again, x[0]);
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
    return table(&(place){ .t = t, .g = g }, "embedding", t->vocabulary, t->o.d_model);
}

/* A table [rows,width] beside zeros on one side of it: [rows,d_model]. */
static nn_id beside_zeros(const place *p, const char *name, int64_t rows, int64_t at, int64_t width)
{
    int64_t d = p->t->o.d_model;
    float *ones = calloc((size_t)(width * d), sizeof *ones);    /* the identity [width,width] from column `at` on */
    if (!ones)
        return nn_fail(p->g, NN_ENOMEM, "out of host memory");
    for (int64_t i = 0; i < width; i++)
        ones[i * d + at + i] = 1;
    nn_id x = nn_matmul(p->g, table(p, name, rows, width), nn_constant(p->g, dims2(width, d), ones));
    free(ones);
    return x;
}

/* i32 [T]: t / by % of. */
static nn_id every(const place *p, int64_t T, int64_t by, int64_t of)
{
    int32_t *at = malloc((size_t)T * sizeof *at);
    if (!at)
        return nn_fail(p->g, NN_ENOMEM, "out of host memory");
    for (int64_t t = 0; t < T; t++)
        at[t] = (int32_t)(t / by % of);
    nn_id x = nn_indices(p->g, dims1(T), at);
    free(at);
    return x;
}

/* Row t is row t / columns of one table and, behind it, row t % columns of another (Kitaev et al. 2020); with channels that is said of the
 * pixel t / channels, and row t % channels of a third table is behind both. */
static nn_id axial(const place *p, int64_t T)
{
    const nn_model_opts *o = &p->t->o;
    int64_t channels = o->axial_channels ? o->axial_channels : 1, pixels = (p->t->context + channels - 1) / channels;
    int64_t columns = o->axial_columns ? o->axial_columns : (int64_t)ceil(sqrt((double)pixels)), rows = (pixels + columns - 1) / columns;
    int64_t width = o->axial_channels ? o->axial_channel_width : 0, rest = o->d_model - o->axial_width - width;
    nn_id row = beside_zeros(p, "positions.row", rows, 0, o->axial_width);
    nn_id column = beside_zeros(p, "positions.column", columns, o->axial_width, rest);
    nn_id x = nn_gather2(p->g, row, every(p, T, columns * channels, rows), column, every(p, T, channels, columns));
    if (!width)
        return x;
    nn_id channel = beside_zeros(p, "positions.channel", channels, o->d_model - width, width);
    return nn_add(p->g, x, nn_gather(p->g, channel, every(p, T, 1, channels)));
}

/* The positions of T tokens. */
static nn_id positions(const place *p, int64_t T)
{
    switch (p->t->o.positions) {
    case NN_POSITIONS_NONE: return NN_NONE;
    case NN_POSITIONS_LEARNED: return table(p, "positions", p->t->context, p->t->o.d_model);
    case NN_POSITIONS_AXIAL: return axial(p, T);
    default: return sinusoids(p, T, p->t->o.d_model);
    }
}

/* i32 [B,T]: every sequence's tokens are at 0, 1, 2 .. */
static nn_id all_places(const place *p, int64_t B, int64_t T)
{
    int32_t *at = malloc((size_t)(B * T) * sizeof *at);
    if (!at)
        return nn_fail(p->g, NN_ENOMEM, "out of host memory");
    for (int64_t i = 0; i < B * T; i++)
        at[i] = (int32_t)(i % T);
    nn_id places = nn_indices(p->g, dims2(B, T), at);
    free(at);
    return places;
}

/* x [B,T,d_model] with their positions. */
static nn_id placed(const place *p, nn_id x)
{
    attn_dims d = nn_dims(p->g, x);
    int decodes = nn_capacity(p->g, p->s->mode) > 0;
    if (p->positions == NN_NONE || x < 0)
        return x;
    if (decodes)
        return nn_add(p->g, x, nn_gather(p->g, p->positions, nn_places(p->g, d.d[0], d.d[1])));
    if (p->t->o.positions == NN_POSITIONS_AXIAL)        /* add_rows takes no learned rows that are not a parameter in bf16 */
        return nn_add(p->g, x, nn_gather(p->g, p->positions, all_places(p, d.d[0], d.d[1])));
    return nn_add_rows(p->g, x, p->positions);
}

/* The tokens, i32 [B,T], as [B,T,d_model]; T: tokens of a sequence, of one that is decoded at most. */
static nn_id embed(place *p, int64_t T)
{
    const nn_model_opts *o = &p->t->o;
    nn_id x = nn_gather(p->g, embedding(p->t, p->g), p->s->tokens);
    if (o->scale_embedding)
        x = nn_scale(p->g, x, sqrt(o->d_model));
    p->positions = positions(p, T);
    return nn_dropout(p->g, placed(p, x), o->embedding_dropout);
}

/* All sublayers of this layer. */
static void layer(place *p, nn_id *x)
{
    int again = p->t->o.recompute == NN_RECOMPUTE_LAYER;
    if (again)
        nn_recompute_begin(p->g);
    if (p->layer > 0 && p->t->o.positions_each_layer)
        x[0] = placed(p, x[0]);
    pass(p, "attention", self_attention, x);
    if (p->s->memory != NN_NONE)
        pass(p, "cross", cross_attention, x);
    if (p->t->o.feed_forward)
        pass(p, "feed_forward", feed_forward, x);
    if (again)
        nn_recompute_end(p->g);
}

nn_id nn_transformer_stack(nn_transformer *t, nn_graph *g, const nn_stack *s)
{
    place p = { .t = t, .g = g, .s = s };
    attn_dims d = nn_dims(g, s->tokens);
    if (s->tokens < 0 || d.n != 2)
        return nn_fail(g, ATTN_EINVAL, "transformer: tokens must be i32 [B,T]");
    int64_t capacity = nn_capacity(g, s->mode), T = capacity ? capacity : d.d[1];
    if ((t->o.positions == NN_POSITIONS_LEARNED || t->o.positions == NN_POSITIONS_AXIAL) && T > t->context)
        return nn_fail(g, ATTN_EINVAL, "transformer: %lld tokens, learned positions for %lld", (long long)T, (long long)t->context);
    if (t->o.positions == NN_POSITIONS_SINUSOIDAL_REVERSED && capacity)
        return nn_fail(g, ATTN_EINVAL, "transformer: reversed positions are known when the sequence ends, not in decoding");
    snprintf(p.path, sizeof p.path, "%s", s->name);
    nn_id x[2] = { embed(&p, T), NN_NONE };
    if (t->o.reversible)
        x[1] = nn_scale(g, x[0], 1);
    for (; p.layer < t->o.layers; p.layer++)
        layer(&p, x);
    if (t->o.reversible)
        x[0] = nn_add(g, x[0], x[1]);
    snprintf(p.path, sizeof p.path, "%s", s->name);
    return t->o.norm_position == NN_NORM_PRE ? norm(&p, "norm", x[0]) : x[0];
}

nn_id nn_transformer_body(nn_transformer *t, nn_graph *g, nn_id tokens, int mode)
{
    return nn_transformer_stack(t, g, &(nn_stack){ "", mode, tokens, NN_NONE, t->mixer, t->nmixers, NN_NONE, NN_NONE, NULL });
}

/* The output layer's weights [vocabulary,d_model]. */
static nn_id output(nn_transformer *t, nn_graph *g)
{
    return t->o.tie_embeddings ? embedding(t, g) : table(&(place){ .t = t, .g = g }, "output", t->vocabulary, t->o.d_model);
}

/* h [B,T,d_model] as rows [B*T,d_model]. */
static nn_id rows_of(nn_graph *g, nn_id h)
{
    attn_dims d = nn_dims(g, h);
    return h < 0 ? NN_BAD : nn_reshape(g, h, dims2(d.d[0] * d.d[1], d.d[2]));
}

/* What the head of an adaptive softmax weighs its tails by, [tails,d_model], and the clusters themselves. */
static nn_id tails(nn_transformer *t, nn_graph *g, k_clusters *c)
{
    const attn_ints *cuts = &t->o.adaptive_cutoffs;
    _Static_assert(ATTN_MAX_INTS <= K_TAILS, "every list of cuts fits");
    *c = (k_clusters){ .tails = cuts->n };
    memcpy(c->cut, cuts->v, sizeof cuts->v);
    return parameter(&(place){ .t = t, .g = g }, "output.tails", "weight", dims2(c->tails, t->o.d_model), (attn_init){ ATTN_INIT_NORMAL, 0, t->o.init }, 0);
}

nn_id nn_transformer_logits(nn_transformer *t, nn_graph *g, nn_id h)
{
    k_clusters c;
    if (nn_model_is_adaptive(&t->o))
        return nn_adaptive_logits(g, rows_of(g, h), output(t, g), tails(t, g, &c), &c);
    return nn_linear(g, rows_of(g, h), output(t, g), NN_NONE);
}

nn_id nn_transformer_loss(nn_transformer *t, nn_graph *g, nn_id h, nn_id target, double smoothing)
{
    k_clusters c;
    if (!nn_model_is_adaptive(&t->o))
        return nn_linear_cross_entropy(g, rows_of(g, h), output(t, g), NN_NONE, target, smoothing);
    if (smoothing > 0)
        return nn_fail(g, ATTN_EINVAL, "transformer: no label smoothing over the clusters of an adaptive softmax");
    return nn_adaptive_cross_entropy(g, rows_of(g, h), output(t, g), tails(t, g, &c), target, &c);
}
