/* transformer.h - the Transformer around any variant, as model.h describes it.
 *
 * A model declares its parameters in an nn_params and records itself in as many graphs as wanted (training, evaluation,
 * other lengths): the same names are the same parameters.
 *
 *     nn_transformer_init(&model, params, call->model, call->mixer, 1, vocabulary, T, why, sizeof why);
 *     nn_id tokens = nn_input(g, K_I32, [B,T]), target = nn_input(g, K_I32, [B*T]);
 *     nn_id h = nn_transformer_body(&model, g, tokens, ATTN_CAUSAL);
 *     nn_graph_set_loss(g, nn_transformer_loss(&model, g, h, target, 0)); */
#ifndef NN_TRANSFORMER_H
#define NN_TRANSFORMER_H
#include "model.h"
#include "nn.h"
#include "short_conv.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct nn_transformer {
    nn_params *params;
    nn_model_opts o;                    /* with what 0 stands for filled in */
    const nn_mixer_spec *mixer;         /* layer i mixes with mixer[i % nmixers]; shapes are filled in here */
    int nmixers;
    int64_t vocabulary, context;        /* context: rows of learned positions, the longest T */
    int64_t memory;                     /* tokens of the forwards before that causal self-attention sees too (nn_remember);
                                           0 after nn_transformer_init, for the caller to set */
    nn_short_conv_opts conv;            /* of the graphs' short convolutions */
} nn_transformer;

/* 0, or ATTN_EINVAL with a sentence.  mixers [nmixers] must outlive the model: one for all layers, or several in turn. */
int nn_transformer_init(nn_transformer *, nn_params *, const nn_model_opts *, const nn_mixer_spec *mixers, int nmixers,
                        int64_t vocabulary, int64_t context, char *why, size_t nwhy);
/* The stack over tokens i32 [B,T]: [B,T,d_model], what the output layer reads.  mode: ATTN_CAUSAL makes a decoder,
 * ATTN_BIDIR an encoder.  Dropout is of training graphs alone. */
nn_id nn_transformer_body(nn_transformer *, nn_graph *, nn_id tokens, int mode);
/* The same as one of two stacks.  An encoder-decoder is
 *     nn_id memory = nn_transformer_stack(&t, g, &(nn_stack){ "encoder", ATTN_BIDIR, source, length, &own, 1, NN_NONE, NN_NONE, NULL });
 *     nn_id h = nn_transformer_stack(&t, g, &(nn_stack){ "decoder", ATTN_CAUSAL, target, NN_NONE, &own, 1, memory, length, &cross });
 * with the layers of the model in either; embedding and output layer are shared. */
typedef struct nn_stack {
    const char *name;                   /* before the names of its parameters; "": nothing */
    int mode;
    nn_id tokens, klen;                 /* i32 [B,T]; i32 [B]: keys of self-attention from there on are padding, NN_NONE: none is */
    const nn_mixer_spec *mixer;         /* of self-attention, as nn_transformer.mixer */
    int nmixers;
    nn_id memory, memory_klen;          /* [B,S,d_model] that each layer attends to as well, NN_NONE: none; its lengths */
    const nn_mixer_spec *cross;         /* with what it does */
} nn_stack;
nn_id nn_transformer_stack(nn_transformer *, nn_graph *, const nn_stack *);
/* Of such an output [B,T,d_model]: the logits [B*T,vocabulary]; the losses [B*T] of targets i32 [B*T], -1 = not asked,
 * without the logits being whole; smoothing: the part of a target that is shared by the whole vocabulary. */
nn_id nn_transformer_logits(nn_transformer *, nn_graph *, nn_id h);
nn_id nn_transformer_loss(nn_transformer *, nn_graph *, nn_id h, nn_id target, double smoothing);
/* The mixer of self-attention in a layer with the shape of its problem on [B,T,d_model]. */
nn_mixer_spec nn_transformer_mixer(const nn_transformer *, int layer, int64_t B, int64_t T, int mode, int training);
#ifdef __cplusplus
}
#endif
#endif
