/* nn.h - what trains a model around a variant.
 *
 * nn_params holds named parameters (values, gradients, optimiser moments), each kind in one block, so that
 * an optimiser step is one kernel.  nn_graph is a tape that is recorded once and replayed: layers append
 * nodes, nn_graph_compile sizes and allocates every buffer, and nn_forward / nn_backward then run without
 * allocating.  Several graphs (training, evaluation, decoding) share one nn_params.
 *
 * Invariants:
 *  1. Replay is deterministic and allocates nothing.
 *  2. A node's forward overwrites its output.  In nn_backward the first node that reaches a tensor overwrites its
 *     gradient and the others add; a parameter's gradient adds up from nn_params_zero_grad on.  A tensor that
 *     needs no gradient has none.
 *  3. Initial values depend on (seed, parameter name) alone, not on the order of construction.
 *  4. With K_BF16 (CUDA) tensors are bf16, values, gradients and moments of parameters float, and sums are float.  A
 *     parameter is then an input of linear, matmul, gather, add_rows (the table), the norms (gain and bias),
 *     linear_cross_entropy and the variant's params alone.
 *  5. Building functions return an nn_id or NN_BAD after recording the first error; later calls with NN_BAD do
 *     nothing, so a model is built without checks between the lines and nn_graph_compile reports. */
#ifndef NN_H
#define NN_H
#include "mixer.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef int32_t nn_id;
enum { NN_BAD = -1, NN_NONE = -2 };     /* NN_NONE: an optional input that is absent (no bias) */

/* ---- parameters ---------------------------------------------------------------------------------- */
typedef struct nn_params nn_params;
nn_params *nn_params_new(k_dev *, k_dtype, uint64_t seed);
void nn_params_free(nn_params *);
enum { NN_TABLE = 1 << 16 };            /* flag: a table of embeddings, which weight decay may leave out */
/* Declares name with this shape and drawing, flags ATTN_FROZEN | ATTN_NO_DECAY | ATTN_REDRAW | NN_TABLE; the same name
 * again returns the same parameter and must have the same shape. */
int  nn_param(nn_params *, const char *name, attn_dims, attn_init, int flags);
int  nn_params_alloc(nn_params *, char *why, size_t nwhy);  /* once, after all graphs are built, before compile; draws the values */
int  nn_params_count(const nn_params *);
int64_t nn_params_elements(const nn_params *, int learned_only);
const char *nn_param_name(const nn_params *, int);
attn_dims nn_param_dims(const nn_params *, int);
void *nn_param_value(nn_params *, int);         /* device pointer; the params' dtype, float when that is bf16 */
void *nn_param_grad(nn_params *, int);          /* NULL when frozen */
void nn_params_redraw(nn_params *, uint32_t draw);  /* every ATTN_REDRAW parameter from draw number `draw` */
void nn_params_zero_grad(nn_params *);
int64_t nn_params_step(const nn_params *);      /* optimiser steps taken */
/* Forwards so far of graphs that drop: every forward has masks of its own, which its number tells. */
uint32_t nn_params_forwards(nn_params *);       /* waits */
void nn_params_set_forwards(nn_params *, uint32_t);
/* Everything that training needs to go on bit for bit: values (redrawn ones too), moments, step and `extra` of the
 * caller, as one safetensors file (see checkpoint.c).  Written to path.tmp, flushed, renamed.  load refuses damage, another
 * seed and another set of names or shapes with a sentence, and then has changed nothing. */
int  nn_checkpoint_save(nn_params *, const char *path, const void *extra, size_t nextra, char *why, size_t nwhy);
int  nn_checkpoint_load(nn_params *, const char *path, void *extra, size_t nextra, char *why, size_t nwhy);
int64_t nn_checkpoint_extra(const char *path, char *why, size_t nwhy);  /* bytes of extra in the file, or -1 */
/* Another model's values, as such an evaluation saw them: every parameter that the file has under the same name and with the same
 * shape is taken, the others keep what was drawn; the names of both, as far as they fit.  Nothing taken is an error. */
typedef struct nn_imported { int taken, drawn; char taken_names[2000], drawn_names[2000]; } nn_imported;
int  nn_params_import(nn_params *, const char *path, nn_imported *, char *why, size_t nwhy);
/* The values alone, as an evaluation at the end of training saw them (the average where there is one); a file without
 * anything else does. */
int  nn_checkpoint_values(nn_params *, const char *path, char *why, size_t nwhy);

/* ---- graphs ------------------------------------------------------------------------------------------ */
typedef struct nn_graph nn_graph;
nn_graph *nn_graph_new(nn_params *, int training);
void nn_graph_free(nn_graph *);
int  nn_graph_compile(nn_graph *, char *why, size_t nwhy);  /* 0, ATTN_EUNSUP, NN_ENOMEM or ATTN_EINVAL */
/* What a recorded graph and its parameters will take, to the byte, before nn_params_alloc and nn_graph_compile take it: by tag,
 * and how much of it is in use at the worst moment of each phase (the optimiser's: parameters, gradients and moments). */
typedef struct nn_plan { size_t bytes[K_TAGS], all, forward, backward, step; } nn_plan;
int  nn_graph_plan(nn_graph *, nn_plan *, char *why, size_t nwhy);      /* as nn_graph_compile */

nn_id nn_input(nn_graph *, k_dtype, attn_dims);             /* the caller fills nn_data() before nn_forward; no gradient */
nn_id nn_constant(nn_graph *, attn_dims, const float *values);      /* of the params' dtype; the values are copied; no gradient */
nn_id nn_indices(nn_graph *, attn_dims, const int32_t *values);     /* i32; the values are copied */
nn_id nn_use(nn_graph *, int param);
nn_id nn_linear(nn_graph *, nn_id x, nn_id w, nn_id b);     /* [..,in] x [out,in] (+ [out]) -> [..,out] */
nn_id nn_matmul(nn_graph *, nn_id a, nn_id b);              /* [m,k] x [k,n] */
nn_id nn_gather(nn_graph *, nn_id table, nn_id idx);        /* [rows,d], i32 [n..] -> [n..,d] */
nn_id nn_gather2(nn_graph *, nn_id ta, nn_id ia, nn_id tb, nn_id ib);   /* ta[ia] + tb[ib], one pass */
nn_id nn_add(nn_graph *, nn_id, nn_id);
nn_id nn_mul(nn_graph *, nn_id, nn_id);                     /* element by element: gated units */
nn_id nn_scale(nn_graph *, nn_id, double a);
nn_id nn_add_rows(nn_graph *, nn_id x, nn_id table);        /* [..,T,d] + the first T rows of [T or more,d]: positions */
nn_id nn_unary(nn_graph *, k_unary, nn_id);
nn_id nn_layer_norm(nn_graph *, nn_id x, nn_id gain, nn_id bias, double eps);   /* [..,d]; gain, bias [d] or NN_NONE */
nn_id nn_rms_norm(nn_graph *, nn_id x, nn_id gain, double eps);
nn_id nn_pool(nn_graph *, nn_id x, nn_id len);              /* [B,T,d], i32 [B] or NN_NONE -> [B,d]: the mean of the first len[b] rows */
nn_id nn_dropout(nn_graph *, nn_id x, double p);            /* x itself when p is 0 or the graph does not train */
nn_id nn_reshape(nn_graph *, nn_id, attn_dims);             /* no copy */
/* down(act(up x)), or with a gate down(act(gate x) * up x), dropout before down: rows in so many chunks, one after another, so
 * that what is as wide as the feed-forward is never whole, and made again in backward.  The numbers are those of nn_linear,
 * nn_unary, nn_mul, but for the masks of dropout; weights are parameters, their gradients sums over the chunks. */
typedef struct nn_ffn {
    nn_id up, up_bias, gate, gate_bias, down, down_bias;    /* [width,d] [width] [width,d] [width] [d,width] [d]; gate, biases: or NN_NONE */
    k_unary unary;
    double dropout;
    int chunks;
} nn_ffn;
nn_id nn_feed_forward(nn_graph *, nn_id x, const nn_ffn *);
/* The variant: q [B,Tq,Hq,Dk], k [B,Tk,Hk,Dk], v [B,Tk,Hv,Dv], gates [B,Tk,Hv,width] -> [B,Tq,Hq,Dv], with
 * ATTN_GROUPED_QK [B,Tq,Hv,Dv].
 * Tensors that the variant ignores may be NN_NONE.  Its params are declared as prefix.NAME. */
nn_id nn_attention(nn_graph *, const nn_mixer_spec *, const char *prefix, nn_id q, nn_id k, nn_id v, const nn_id *gates);
/* The same of padded sequences: keys j >= klen[b] of sequence b do not exist; klen i32 [B], NN_NONE: all do. */
nn_id nn_attention_klen(nn_graph *, const nn_mixer_spec *, const char *prefix, nn_id q, nn_id k, nn_id v, const nn_id *gates, nn_id klen);
/* Losses: one number per row; the graph's loss is the mean over rows whose target is not -1. */
nn_id nn_half_squared_error(nn_graph *, nn_id y, nn_id target);     /* y [rows,d], target i32 [rows] */
nn_id nn_cross_entropy(nn_graph *, nn_id y, nn_id target);
nn_id nn_cross_entropy_smoothed(nn_graph *, nn_id y, nn_id target, double smoothing);   /* 1 - smoothing on the target, the rest even */
/* The same of the scores y = x w^T + b, x [rows,d], w [words,d], b [words] or NN_NONE: never whole, but chunk by chunk. */
nn_id nn_linear_cross_entropy(nn_graph *, nn_id x, nn_id w, nn_id b, nn_id target, double smoothing);
/* The same by an adaptive softmax (ops_adaptive.c): words [V,d] in clusters, tails [c->tails,d]: what the head weighs each tail by.
 * The logarithms of all probabilities, [rows,V], of a graph that does not train. */
nn_id nn_adaptive_cross_entropy(nn_graph *, nn_id x, nn_id words, nn_id tails, nn_id target, const k_clusters *);
nn_id nn_adaptive_logits(nn_graph *, nn_id x, nn_id words, nn_id tails, const k_clusters *);
int  nn_graph_set_loss(nn_graph *, nn_id loss_rows);
/* What is recorded between them makes its tensors again in backward instead of keeping them, but for those that others read:
 * the same gradients to the bit, for one more forward in time. */
void nn_recompute_begin(nn_graph *);
void nn_recompute_end(nn_graph *);
/* x + h in the place of x, whose id is gone then: backward, which may run once after a forward, takes h away again.  In a
 * segment that makes h from another stream, and that stream from x + h in turn, layers keep nothing at all (Gomez et al. 2017). */
nn_id nn_reversible_add(nn_graph *, nn_id x, nn_id h);
void nn_keep(nn_graph *, nn_id);                /* its data and its gradient stay as they are, for the caller to read */

/* ---- looking at attention: of a graph that does not train ------------------------------------------------------------- */
typedef struct nn_seen {                /* what one call of a variant works on; tensors of the device, in the spec's dtype */
    const nn_mixer_spec *spec;          /* with its shape */
    const nn_mixer_io *io;              /* after a forward: that one's q, k, v, gates, params and o */
} nn_seen;
void nn_watch(nn_graph *);              /* after recording, before compiling: what attention reads and makes stays */
int  nn_seen_count(const nn_graph *);   /* calls in a forward */
nn_seen nn_see(const nn_graph *, int call);     /* in the order of recording; after nn_graph_compile */

/* ---- decoding ---------------------------------------------------------------------------------------------------------
 * A graph in which causal attention is over all tokens so far: it is recorded over the new ones, [B,n,..], and every nn_forward
 * goes on by n.  Said before anything is recorded; a sequence has at most `capacity` tokens. */
void nn_graph_decode(nn_graph *, int64_t capacity);
nn_id nn_places(nn_graph *, int64_t B, int64_t n);  /* i32 [B,n]: where in their sequence the new tokens are */
/* The caller fills this input once, before the first forward after a reset: what depends on such inputs and on parameters
 * alone (an encoder; keys and values of what it made) is computed then and stays. */
void nn_hold(nn_graph *, nn_id input);
void nn_decode_reset(nn_graph *);               /* all sequences are empty: what compiling begins with */
int64_t nn_decode_position(const nn_graph *);   /* tokens so far */
int  nn_decode_reorder(nn_graph *, const int32_t *source);  /* [B] on the host: sequence b goes on from where source[b] is */

/* ---- carrying ---------------------------------------------------------------------------------------------------------
 * A graph that reads a text segment by segment and goes on, forward by forward, from where it was.  Gradients end where a segment
 * begins.  The first forward, and the next one after a reset, begins with zeros. */
void nn_graph_carry(nn_graph *);                /* said of an empty graph: causal attention begins with the states that it ended with */
/* x [B,T,d] behind the `tokens` that were before it in the last forwards: [B,tokens+T,d], for keys and values (Dai et al. 2019). */
nn_id nn_remember(nn_graph *, nn_id x, int64_t tokens);
void nn_carry_reset(nn_graph *);
size_t nn_carry_bytes(const nn_graph *);        /* what the next forward begins with, to be kept and brought back: */
void nn_carry_save(nn_graph *, void *host);     /* waits */
void nn_carry_load(nn_graph *, const void *host);

attn_dims nn_dims(const nn_graph *, nn_id);
/* Device pointers.  Data that other nodes read and gradients may lie in buffers that later ones overwrite, unless nn_keep was
 * called; the gradient is NULL when there is none. */
void *nn_data(nn_graph *, nn_id);
void *nn_grad(nn_graph *, nn_id);
int  nn_forward(nn_graph *);
int  nn_backward(nn_graph *);                   /* of the loss, into nn_param_grad (added) */
int  nn_step(nn_graph *);                       /* both; on CUDA replayed from a recording, after nn_params_zero_grad */
double nn_loss(nn_graph *);                     /* of the last forward; waits */
#ifdef __cplusplus
}
#endif
#endif
