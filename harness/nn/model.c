/* model.c - the options that describe a Transformer, and which of them contradict each other. */
#include "model.h"
#include <stdio.h>

#define OFF(field) offsetof(nn_model_opts, field)
const attn_opt nn_model_table[] = {
    { "layers", "layers, each of attention and feed-forward", OFF(layers), ATTN_INT, 6, 1, 1024, NULL, 0 },
    { "d_model", "width of the stream between layers", OFF(d_model), ATTN_INT, 512, 1, 65536, NULL, 0 },
    { "heads", "query heads", OFF(heads), ATTN_INT, 8, 1, 1024, NULL, 0 },
    { "kv_heads", "key and value heads, each shared by several query heads; 0 = heads", OFF(kv_heads), ATTN_INT, 0, 0, 1024, NULL, 0 },
    { "d_head", "width of a head; 0 = d_model / heads", OFF(d_head), ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "d_ff", "inner width of the feed-forward; 0 = 4 d_model, gated: 8/3 d_model, up to a multiple of 64", OFF(d_ff), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "feed_forward", "whether layers have a feed-forward", OFF(feed_forward), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "norm", "LayerNorm with gain and bias, or RMSNorm with gain", OFF(norm), ATTN_CHOICE, NN_NORM_LAYER, 0, 0, "layer,rms", 0 },
    { "norm_position", "before each sublayer and at the end, or after each sum", OFF(norm_position), ATTN_CHOICE, NN_NORM_PRE, 0, 0, "pre,post", 0 },
    { "norm_eps", "added to the variance, or the mean square, under the root", OFF(norm_eps), ATTN_FLOAT, 1e-5, 0, 1, NULL, ATTN_OPEN_MIN },
    { "activation", "of the feed-forward; reglu, geglu and swiglu are gated", OFF(activation), ATTN_CHOICE, NN_GELU, 0, 0,
      "relu,gelu,silu,reglu,geglu,swiglu", 0 },
    { "bias", "biases in the feed-forward", OFF(bias), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "attention_bias", "biases in the projections around the variant", OFF(attention_bias), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "positions", "added to the embedding; reversed: the last token is at 0; axial: one learned row for t / axial_columns beside one for the rest",
      OFF(positions), ATTN_CHOICE, NN_POSITIONS_SINUSOIDAL, 0, 0, "none,sinusoidal,sinusoidal_reversed,learned,axial", 0 },
    { "positions_each_layer", "positions are added before every layer, not before the first alone", OFF(positions_each_layer), ATTN_BOOL, 0, 0, 1,
      NULL, 0 },
    { "axial_columns", "tokens, or pixels, of a row of axial positions; 0 = the root of the context, rounded up", OFF(axial_columns), ATTN_INT, 0, 0,
      1 << 24, NULL, 0 },
    { "axial_width", "numbers of a position that tell its row, the others its column; 0 = half of d_model, a third with channels", OFF(axial_width),
      ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "axial_channels", "tokens of a pixel: rows and columns are of pixels, a third learned table is of t % axial_channels; 0 = tokens are not",
      OFF(axial_channels), ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "axial_channel_width", "numbers of a position that tell its channel; 0 = a third of d_model", OFF(axial_channel_width), ATTN_INT, 0, 0, 65536, NULL, 0 },
    { "tie_embeddings", "the output layer is the embedding", OFF(tie_embeddings), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "adaptive_cutoffs", "adaptive softmax: words from each of these on are a cluster, which stands as one entry among the first words; 0 = none",
      OFF(adaptive_cutoffs), ATTN_INTS, 0, 0, 1 << 30, NULL, 0 },
    { "scale_embedding", "embeddings times sqrt(d_model)", OFF(scale_embedding), ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "init", "weights and embeddings are drawn from N(0, init^2)", OFF(init), ATTN_FLOAT, 0.02, 0, 10, NULL, 0 },
    { "scale_residual_init", "what a sublayer ends with is drawn smaller, by the root of the number of sublayers", OFF(scale_residual_init),
      ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "dropout", "of what a sublayer adds", OFF(dropout), ATTN_FLOAT, 0, 0, 0.99, NULL, 0 },
    { "embedding_dropout", "of embedding plus positions", OFF(embedding_dropout), ATTN_FLOAT, 0, 0, 0.99, NULL, 0 },
    { "ffn_dropout", "inside the feed-forward, after the activation", OFF(ffn_dropout), ATTN_FLOAT, 0, 0, 0.99, NULL, 0 },
    { "residual", "a sublayer adds to its input; false: it takes its place", OFF(residual), ATTN_BOOL, 1, 0, 1, NULL, 0 },
    { "reversible", "two streams, to which sublayers add in turn, each what it makes of the other: backward takes it away again and keeps nothing",
      OFF(reversible), ATTN_BOOL, 0, 0, 1, NULL, 0 },
    { "short_conv", "taps of a causal convolution, channel by channel, of q, k and v in self-attention; 0 = none", OFF(short_conv), ATTN_INT, 0, 0, 64,
      NULL, 0 },
    { "short_conv_activation", "behind it", OFF(short_conv_activation), ATTN_CHOICE, NN_SHORT_CONV_SILU, 0, 0, "none,silu", 0 },
    { "feed_forward_chunks", "parts of the tokens that pass the feed-forward one after another, and again in backward: less memory",
      OFF(feed_forward_chunks), ATTN_INT, 1, 1, 1 << 20, NULL, 0 },
    { "recompute", "what is made again in backward instead of kept: memory for time", OFF(recompute), ATTN_CHOICE, NN_RECOMPUTE_NONE, 0, 0,
      "none,layer,attention", 0 },
    { .name = NULL } };

int nn_model_is_gated(const nn_model_opts *o) { return o->activation >= NN_REGLU; }
int nn_model_is_sinusoidal(const nn_model_opts *o)
{
    return o->positions == NN_POSITIONS_SINUSOIDAL || o->positions == NN_POSITIONS_SINUSOIDAL_REVERSED;
}

int nn_model_is_adaptive(const nn_model_opts *o) { return o->adaptive_cutoffs.n > 0 && o->adaptive_cutoffs.v[0] > 0; }

/* Whether the cuts go up; their first is above 0. */
static int cuts_go_up(const nn_model_opts *o)
{
    int up = 1;
    for (int i = 1; i < o->adaptive_cutoffs.n; i++)
        up = up && o->adaptive_cutoffs.v[i] > o->adaptive_cutoffs.v[i - 1];
    return up;
}

/* Whether row and channel of a position leave something for the column. */
static int channels_fit(const nn_model_opts *o)
{
    int third = o->d_model / 3, row = o->axial_width ? o->axial_width : third, channel = o->axial_channel_width ? o->axial_channel_width : third;
    return third > 0 && row + channel < o->d_model;
}

int nn_model_check(const nn_model_opts *o, char *why, size_t nwhy)
{
    if (!o->d_head && o->d_model % o->heads)
        snprintf(why, nwhy, "model: d_model %d is no multiple of heads %d (or say d_head)", o->d_model, o->heads);
    else if (o->kv_heads && o->heads % o->kv_heads)
        snprintf(why, nwhy, "model: heads %d is no multiple of kv_heads %d", o->heads, o->kv_heads);
    else if (nn_model_is_sinusoidal(o) && o->d_model % 2)
        snprintf(why, nwhy, "model: sinusoidal positions need an even d_model, not %d", o->d_model);
    else if (o->positions == NN_POSITIONS_AXIAL && (o->axial_width >= o->d_model || o->d_model < 2))
        snprintf(why, nwhy, "model: axial positions of d_model %d need some of it for the row and some for the column", o->d_model);
    else if (o->positions == NN_POSITIONS_AXIAL && o->axial_channels && !channels_fit(o))
        snprintf(why, nwhy, "model: axial positions of d_model %d need some of it for the row, the column and the channel", o->d_model);
    else if (o->reversible && (o->norm_position != NN_NORM_PRE || !o->residual || o->positions_each_layer || o->recompute))
        snprintf(why, nwhy, "model: reversible layers are pre-norm, have residuals, and take neither positions_each_layer nor recompute");
    else if (nn_model_is_adaptive(o) && !cuts_go_up(o))
        snprintf(why, nwhy, "model: adaptive_cutoffs must go up");
    else
        return 0;
    return -1;
}

void nn_model_fill(nn_model_opts *o)
{
    if (!o->d_head)
        o->d_head = o->d_model / o->heads;
    if (!o->kv_heads)
        o->kv_heads = o->heads;
    if (!o->axial_width)
        o->axial_width = o->d_model / (o->axial_channels ? 3 : 2);
    if (!o->axial_channel_width)
        o->axial_channel_width = o->d_model / 3;
    if (!o->d_ff)
        o->d_ff = nn_model_is_gated(o) ? (8 * o->d_model / 3 + 63) / 64 * 64 : 4 * o->d_model;
}
