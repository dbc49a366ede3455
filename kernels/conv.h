/* conv.h - convolution over the tokens, head by head.
 *
 *   o_t = bias + sum_tau W_tau x_(t + (tau - left) dilation),  tau = 0..K-1,  x_t = 0 outside the sequence
 *
 * W_tau is a matrix (full) or a diagonal.  Forward keeps nothing; backward needs x and d_o. */
#ifndef KERNELS_CONV_H
#define KERNELS_CONV_H
#include "heads.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_conv {
    int B, H, T, D, K, left, full, threads;
    int64_t dilation;
    k_heads x, o, d_o, dx;              /* [B,H,T,D]; dx may be absent */
    const float *weight, *bias;         /* [H,K,D,D], or [H,K,D]; [H,D] or NULL */
    float *dweight, *dbias;             /* +=; NULL: not wanted */
    int Dk;                             /* on CUDA backward zeroes dq and dk [B,H,T,Dk] as well */
    k_heads dq, dk;
} k_conv;

/* How far from t tap tau reads, and numbers of one W_tau. */
static inline int64_t k_conv_shift(const k_conv *p, int tau) { return (int64_t)(tau - p->left) * p->dilation; }
static inline int64_t k_conv_size(const k_conv *p) { return (int64_t)p->D * (p->full ? p->D : 1); }

void k_conv_forward(const k_conv *);
void k_conv_backward(const k_conv *);   /* dx, dweight and dbias */
/* o[D] = bias of head h, and o[D] += W_tau x[D]: a token at a time. */
void k_conv_bias(const k_conv *, int h, float *o);
void k_conv_tap(const k_conv *, int h, int tau, const float *x, float *o);

#ifdef __cplusplus
}
#endif
#endif
