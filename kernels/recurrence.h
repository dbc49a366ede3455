/* recurrence.h - memories S [D,E] that fade before every token is written (CPU).
 *
 *   S = diag(e^l_t) S;  S += k_t x_t';  o_t = scale S'q_t + skip v_t
 *
 * Decay l_t of a memory:
 *   fixed    l = ln(1 - 2^-(decay_exponent + h)), h the memory's head
 *   channel  l_d = max(logsigmoid(gate_d) / gate_normalizer, gate_min), one per row of S
 *   step     l = -e^a_log step,  step = clamp(softplus(gate + dt_bias), step_min, step_max)
 * What is written:  sum x = v,  stepped x = step v,  delta x = beta (v - S'k) from the faded S.
 * Causal, as many queries as keys.  Rows of q and k are normalised (norm l2) or turned (position rope), never both.
 *
 * There are H memories in every batch row.  Query heads are H G, or divide H and are shared; key and value heads
 * divide H and are shared; gates are per memory.  Outputs are H G. */
#ifndef KERNELS_RECURRENCE_H
#define KERNELS_RECURRENCE_H
#include "features.h"
#include "heads.h"
#include "rope.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum k_decay { K_DECAY_FIXED, K_DECAY_CHANNEL, K_DECAY_STEP } k_decay;
typedef enum k_write { K_WRITE_SUM, K_WRITE_STEPPED, K_WRITE_DELTA } k_write;

typedef struct k_recurrence {
    int B, H, Hq, Hk, Hv, Ho, T, D, E, threads;         /* Ho: heads of o, H G */
    k_decay decay;
    k_write write;
    k_norm norm;                        /* none or l2; CUDA, memories of at most 64 x 64 without channels' decays: sum too */
    k_map map;                          /* CUDA, those memories: what works on the numbers of q and k before the norm */
    double scale, norm_eps, decay_exponent, gate_normalizer, gate_min, step_min, step_max;
    double beta_max;                    /* beta = beta_max sigmoid(logit) */
    const k_position *position;         /* NULL: none */
    int64_t first;                      /* position of token 0 */
    const void *offset;                 /* CUDA: a float on the device that is added to it, NULL: 0; the CPU's caller adds */
    k_heads q, k, v, gate, beta, o;     /* [B,Hq,T,D] [B,Hk,T,D] [B,Hv,T,E] [B,H,T,D or 1] [B,H,T,1] [B,Ho,T,E] */
    k_heads d_o, dq, dk, dv, dgate, dbeta;              /* backward; overwritten, NULL: not wanted */
    int float_rows;                     /* CUDA: dq and dk are float without gaps, of Ho and H heads, and q and k neither normalised nor turned */
    const void *a_log, *dt_bias, *d_skip;               /* [H]; d_skip NULL: no skip */
    void *da_log, *ddt_bias, *dd_skip;  /* [H], added to; NULL: not wanted */
    const void *state_in;               /* [B,H,D,E]; NULL: zeros */
    void *state_out;                    /* NULL: not wanted; may be state_in */
    void *dstate;                       /* backward, of state_in; overwritten, NULL: not wanted */
    void *saved, *scratch;              /* elements as below; saved NULL: no backward will follow */
} k_recurrence;

/* In double: the definition, token by token.  Every number behind a pointer is a double; nothing is saved. */
size_t k_drecurrence_scratch(const k_recurrence *, int backward);
void   k_drecurrence_forward(const k_recurrence *);
void   k_drecurrence_backward(const k_recurrence *);

/* In float, in chunks. */
size_t k_srecurrence_saved(const k_recurrence *);
size_t k_srecurrence_scratch(const k_recurrence *);     /* enough for forward and for backward */
void   k_srecurrence_forward(const k_recurrence *);
void   k_srecurrence_backward(const k_recurrence *);

#ifdef __cplusplus
}
#endif
#endif
