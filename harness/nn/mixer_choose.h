/* mixer_choose.h - which implementation serves a spec, and whether its plan can be trusted.  Private to nn/. */
#ifndef NN_MIXER_CHOOSE_H
#define NN_MIXER_CHOOSE_H
#include "mixer.h"

typedef struct nn_choice {
    const attn_impl *impl;
    attn_shape shape;                   /* as the implementation sees it: its own dtype */
    attn_plan plan;
} nn_choice;

/* A shape that no implementation needs to be asked about: ATTN_EINVAL and a sentence. */
int nn_shape_check(const attn_shape *, char *why, size_t nwhy);
/* Plans the named implementation, or the best that accepts.  decoding: it must decode.  ATTN_ codes. */
int nn_choose(const nn_mixer_spec *, int device, int decoding, nn_choice *out, char *why, size_t nwhy);
/* The product of 0..4 dimensions; -1 when there are more, one is below 1 or the product exceeds 2^48. */
int64_t nn_elements(attn_dims);
#endif
