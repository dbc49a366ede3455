/* short_conv.h - the short convolution that layers put in front of a mixer, as a mixer of values alone, which brings with it
 * what every mixer has: bf16, a GPU, and a decode state that beams reorder. */
#ifndef NN_SHORT_CONV_H
#define NN_SHORT_CONV_H
#include "../attn.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct nn_short_conv_opts { int32_t taps; } nn_short_conv_opts;
/* o_t [D] = sum_tau weight[tau] * x_(t - taps + 1 + tau), tau = 0..taps-1, element by element, causal whatever the mode; x = 0
 * before the first token.  Its parameter: weight [H,taps,D]. */
extern const attn_variant nn_short_conv;
#ifdef __cplusplus
}
#endif
#endif
