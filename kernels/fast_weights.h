/* fast_weights.h - memories W [m,Dv] that are written token by token and read by features (CPU).
 *
 * With b_t = norm(phi(k_t)), a_i = norm(phi(q_i)) and beta_t the write strength:
 *   sum    W += b v'
 *   delta  W += b u',  u = beta (v - W'b / den),  den = z.b + attn_eps with K_FW_FULL, else 1
 *   gated  W = (1 - beta) W + beta b v'
 *   fwm    W' = W + b u' (as delta),  W = W' / max(1, |W'|)  but for the first token of an empty memory
 *   z += b  (gated: z = (1 - beta) z + beta b)
 *   read   y = scale W'a, over z.a + attn_eps with K_FW_OUTPUT and K_FW_FULL; fwm: then layer norm, eps 1e-5
 * Causal: query i reads after the write of token i (Tq = Tk).  Otherwise all tokens are written, then all
 * queries read.  A denominator of exactly 0 gives 0. */
#ifndef KERNELS_FAST_WEIGHTS_H
#define KERNELS_FAST_WEIGHTS_H
#include "features.h"
#include "heads.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum k_fw_rule { K_FW_SUM, K_FW_DELTA, K_FW_GATED, K_FW_FWM } k_fw_rule;
typedef enum k_fw_norm { K_FW_NONE, K_FW_OUTPUT, K_FW_FULL } k_fw_norm;
#define K_FW_LAYER_NORM_EPS 1e-5

typedef struct k_fast_weights {
    int B, Hq, Hk, Tq, Tk, Dk, Dv, m, causal, threads;
    k_fw_rule rule;
    k_fw_norm attn_norm;
    k_norm qk_norm;
    double norm_eps, attn_eps, scale, beta_max;         /* beta = beta_max sigmoid(logit) */
    k_features features;                /* W: that of key head 0, [Hk,features.m,Dk] */
    k_heads q, k, v, beta, o;           /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] [B,Hk,Tk,1] [B,Hq,Tq,Dv] */
    k_heads d_o, dq, dk, dv, dbeta;     /* backward; overwritten, NULL: not wanted */
    const void *state_in, *z_in;        /* [B,Hk,m,Dv] [B,Hk,m]; NULL: zeros */
    void *state_out, *z_out;            /* NULL: not wanted */
    void *dstate, *dz;                  /* backward, of the input states; overwritten, NULL: not wanted */
    void *saved, *scratch;              /* elements as below; saved NULL: no backward will follow */
} k_fast_weights;

/* In double: the definition.  Every number behind a pointer is a double; nothing is saved. */
size_t k_dfast_weights_scratch(const k_fast_weights *, int backward);
void   k_dfast_weights_forward(const k_fast_weights *);
void   k_dfast_weights_backward(const k_fast_weights *);

/* In float, fast. */
size_t k_fast_weights_saved(const k_fast_weights *);
size_t k_fast_weights_scratch(const k_fast_weights *);  /* enough for forward and for backward */
void   k_fast_weights_forward(const k_fast_weights *);
void   k_fast_weights_backward(const k_fast_weights *);

#ifdef __cplusplus
}
#endif
#endif
