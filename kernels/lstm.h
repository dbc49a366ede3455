/* lstm.h - the recurrence of variants/lstm.c in float, CPU.
 *
 *   a = w_x x_t + w_h h_(t-1) + bias,  c_t = s(a_f) c_(t-1) + s(a_i) tanh(a_g),  h_t = s(a_o) tanh(c_t),  o_t = h_t
 *
 * The products with x are matrix products over many tokens, those with h are one product per step over the batch.
 * A unit is a head with GROUP rows of the batch at most; units are spread over threads, and their gradients of the
 * weights added up in order, so results do not know how many threads there are. */
#ifndef KERNELS_LSTM_H
#define KERNELS_LSTM_H
#include <stddef.h>
#include "kernels/heads.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_lstm {
    int B, H, T, D, threads;            /* hidden width = width of x = D */
    k_heads x, o, d_o, dx;              /* [B,H,T,D]; backward reads o; dx may be absent */
    const float *w_x, *w_h, *bias;      /* [H,4D,D] [H,4D,D] [H,4D], row blocks i, f, g, o */
    const float *h0, *c0;               /* [B,H,D]; NULL: 0 */
    float *hT, *cT;                     /* [B,H,D] after the last token, may be h0 and c0; NULL: not wanted */
    float *cells;                       /* [B,H,T,D] c_t for backward; NULL: none will follow */
    float *dw_x, *dw_h, *dbias;         /* += */
    float *dh0, *dc0;                   /* overwritten */
    float *scratch;
    int Dk;                             /* on CUDA backward zeroes dq and dk [B,H,T,Dk] as well */
    k_heads dq, dk;
} k_lstm;

size_t k_lstm_scratch(const k_lstm *, int backward);    /* floats */
void   k_lstm_forward(const k_lstm *);
void   k_lstm_backward(const k_lstm *);

#ifdef __cplusplus
}
#endif
#endif
