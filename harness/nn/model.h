/* model.h - the options that describe a Transformer: `model:` of an experiment file.
 *
 * A task that builds one has model_defaults and is handed the options; transformer.h makes the model of them. */
#ifndef NN_MODEL_OPTS_H
#define NN_MODEL_OPTS_H
#include "../attn.h"
#ifdef __cplusplus
extern "C" {
#endif
enum { NN_NORM_LAYER, NN_NORM_RMS };
enum { NN_NORM_PRE, NN_NORM_POST };
enum { NN_RELU, NN_GELU, NN_SILU, NN_REGLU, NN_GEGLU, NN_SWIGLU };      /* from NN_REGLU on gated */
enum { NN_RECOMPUTE_NONE, NN_RECOMPUTE_LAYER, NN_RECOMPUTE_ATTENTION };
enum { NN_POSITIONS_NONE, NN_POSITIONS_SINUSOIDAL, NN_POSITIONS_SINUSOIDAL_REVERSED, NN_POSITIONS_LEARNED, NN_POSITIONS_AXIAL };
enum { NN_SHORT_CONV_NONE, NN_SHORT_CONV_SILU };

typedef struct nn_model_opts {
    int32_t layers, d_model, heads, kv_heads, d_head, d_ff;     /* the last three: 0 until nn_model_fill */
    int32_t feed_forward, norm, norm_position, activation, bias, attention_bias;
    int32_t positions, tie_embeddings, scale_embedding, scale_residual_init, recompute;
    int32_t positions_each_layer, axial_columns, axial_width, axial_channels, axial_channel_width;
    int32_t residual, reversible, short_conv, short_conv_activation, feed_forward_chunks;
    attn_ints adaptive_cutoffs;         /* one 0: none */
    double norm_eps, init, dropout, embedding_dropout, ffn_dropout;
} nn_model_opts;
extern const attn_opt nn_model_table[];
/* Whether the options agree with each other: 0, or -1 with a sentence. */
int nn_model_check(const nn_model_opts *, char *why, size_t nwhy);
/* Puts in the widths and heads that 0 stands for. */
void nn_model_fill(nn_model_opts *);
int nn_model_is_gated(const nn_model_opts *);   /* its feed-forward */
int nn_model_is_sinusoidal(const nn_model_opts *);
int nn_model_is_adaptive(const nn_model_opts *);    /* its softmax */
#ifdef __cplusplus
}
#endif
#endif
