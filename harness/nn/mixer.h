/* mixer.h - one variant bound to its options, a shape and a device: planned, allocated, callable.
 *
 * Everything that uses a variant goes through here (training, `harness apply`, decoding), so the duties of
 * the host stand in one place: choosing the implementation, plan(), buffers with guards, conversion between
 * the model's dtype and the implementation's, and the options common to all variants (output_norm).
 * `harness check` alone calls the tables directly, because it judges them. */
#ifndef NN_MIXER_H
#define NN_MIXER_H
#include "../attn.h"
#include "../../kernels/kernels.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Options that every variant has (VARIANTS 2, "Output normalisation"); listed after the variant's own. */
enum { NN_OUTPUT_NORM_NONE, NN_OUTPUT_NORM_RMS };
typedef struct nn_common_opts { int32_t output_norm; double output_norm_eps; } nn_common_opts;
extern const attn_opt nn_common_table[];

enum { NN_LENT_SCRATCH = 1, NN_LENT_SAVED = 2 };        /* buffers that the caller gives, with nn_mixer_lend */

typedef struct nn_mixer_spec {
    const attn_variant *variant;
    const void *opts;                   /* the variant's options struct; must outlive the mixer */
    nn_common_opts common;
    const char *impl;                   /* name, or NULL: the highest rank that fits device, dtype and mode */
    const char *alias;                  /* NULL, or what its own parameters are called by, too, so that graphs over one
                                           nn_params may use a variant with options that size them otherwise */
    int32_t lent;                       /* NN_LENT_SCRATCH | NN_LENT_SAVED: what the mixer does not take itself */
    attn_shape shape;                   /* dtype: of q, k, v, o as the caller holds them: f32, f64 or bf16 */
} nn_mixer_spec;

typedef struct nn_mixer nn_mixer;

/* Caller-owned tensors of one call, in the caller's dtype, strided; a NULL p in d* means not wanted.
 * params, states and their gradients: dense, f64 when that is the caller's dtype, else f32. */
typedef struct nn_mixer_io {
    attn_tensor q, k, v, gate[ATTN_MAX], o;
    const void *param[ATTN_MAX];
    const int32_t *klen;
    const void *state_in[ATTN_MAX];
    void *state_out[ATTN_MAX];
    attn_tensor d_o, dq, dk, dv, dgate[ATTN_MAX];
    void *dparam[ATTN_MAX];
    void *dstate_in[ATTN_MAX];
    int64_t pos;                        /* decode */
    uint64_t seed;
} nn_mixer_io;

/* Returns ATTN_OK, ATTN_EUNSUP (why: the variant's own reason), ATTN_EINVAL (why: no such implementation ...)
 * or K_ENOMEM - 100 = NN_ENOMEM (why: bytes asked, bytes free).  capacity: tokens of decode state, 0 = none;
 * otherwise it takes the place of shape.Tk, and shape.Tq is the number of tokens of one decode. */
enum { NN_ENOMEM = -101 };
int  nn_mixer_new(k_dev *, const nn_mixer_spec *, int64_t capacity, nn_mixer **out, char *why, size_t nwhy);
void nn_mixer_free(nn_mixer *);
/* What nn_mixer_new would plan (gate widths, parameters, bytes), without taking memory. */
int  nn_mixer_ask(k_dev *, const nn_mixer_spec *, int64_t capacity, attn_plan *out, char *why, size_t nwhy);
/* Adds the bytes that nn_mixer_new would take, by tag; nothing is taken. */
int  nn_mixer_count_bytes(k_dev *, const nn_mixer_spec *, int64_t capacity, size_t bytes[K_TAGS], char *why, size_t nwhy);
/* Bytes of scratch that a mixer so planned needs; those lent to it, which other mixers may have at other times: scratch between
 * calls, what forward saves after the backward that reads it.  NULL: as it was. */
size_t nn_mixer_scratch(const attn_plan *, int training, int64_t capacity);
void nn_mixer_lend(nn_mixer *, void *scratch, void *saved);
const attn_plan *nn_mixer_plan(const nn_mixer *);
const attn_impl *nn_mixer_impl(const nn_mixer *);
const attn_shape *nn_mixer_shape(const nn_mixer *);
int  nn_mixer_forward(nn_mixer *, const nn_mixer_io *);
int  nn_mixer_backward(nn_mixer *, const nn_mixer_io *);    /* after forward with the same io */
int  nn_mixer_decode(nn_mixer *, const nn_mixer_io *);      /* q, k, v, o of shape.Tq rows at io->pos */
void nn_mixer_decode_reset(nn_mixer *);                     /* state of zeros, position 0 */
void *nn_mixer_state(nn_mixer *);                           /* of plan->state bytes, the caller's to save and to restore */
/* Sequence b goes on from where sequence source[b] is.  source: of the device, [B]; room: to work in, plan->state bytes of it. */
void nn_mixer_decode_reorder(nn_mixer *, const int32_t *source, void *room);
/* Dense [B,H,T,D] (bhtd = 1) or [B,T,H,D] (bhtd = 0) strides over p. */
attn_tensor nn_tensor_of(void *p, int64_t H, int64_t T, int64_t D, int bhtd);
#ifdef __cplusplus
}
#endif
#endif
