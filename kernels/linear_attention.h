/* linear_attention.h - attention with feature maps instead of a softmax, CPU:
 *
 *   a_i = phi(q_i), b_j = phi(k_j),  num_i = sum_j (a_i.b_j) v_j,  den_i = sum_j a_i.b_j,  o_i = num_i / (den_i + denom_eps)
 *
 * over the keys that query i sees: all, or j <= i + Tk - Tq if causal, and j < klen[b].  den + 2 guard stands
 * for den where |den| <= guard.  o_i = 0 where the denominator is 0; without normalise o_i = num_i.
 *
 * k_d... is the definition in double: one loop over pairs, nothing kept.  k_s... is float and chooses the
 * cheaper order of products by k_linattn_pairs:
 *   pairs   scores first: tiles of keys against all queries of a key head, Tq Tk (M + Dv)
 *   states  S = sum b v^T and z = sum b first, prefixes of them by chunks if causal, (Tk + Tq) M Dv
 * It spreads (batch, key head) over threads, so results do not know how many there are. */
#ifndef KERNELS_LINEAR_ATTENTION_H
#define KERNELS_LINEAR_ATTENTION_H
#include "kernels/features.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Element (b,h,t,d) is p[b*sb + h*sh + t*st + d]; double for k_d..., float for k_s...; p NULL: not wanted. */
typedef struct k_rows { void *p; int64_t sb, sh, st; } k_rows;

typedef struct k_linattn {
    k_features f;                       /* W is that of key head 0, the others follow: [Hk,m,Dk] */
    int normalise;
    double denom_eps, guard;
    int B, Hq, Hk, Tq, Tk, Dk, Dv, causal, threads;
    const int32_t *klen;                /* [B] or NULL */
    k_rows q, k, v, o;                  /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] [B,Hq,Tq,Dv] */
    k_rows d_o, dq, dk, dv;             /* backward */
    void *saved, *scratch, *state;
    int64_t pos;                        /* decode: tokens in the state; Tq rows of q, k and v are new */
} k_linattn;

/* Bytes.  State: S [M,Dv], z [M] and kappa of each (batch, key head), whatever the number of tokens. */
typedef struct k_linattn_sizes { size_t saved, scratch_fwd, scratch_bwd, scratch_dec, state; } k_linattn_sizes;

int  k_linattn_pairs(const k_linattn *);
void k_slinattn_sizes(const k_linattn *, k_linattn_sizes *);
void k_slinattn_forward(const k_linattn *);     /* saved NULL: no backward will follow */
void k_slinattn_backward(const k_linattn *);
void k_slinattn_decode(const k_linattn *);
void k_dlinattn_sizes(const k_linattn *, k_linattn_sizes *);
void k_dlinattn_forward(const k_linattn *);
void k_dlinattn_backward(const k_linattn *);
void k_dlinattn_decode(const k_linattn *);

/* ---- the scores of one query, without forming the features of its keys -------------------------------- */
/* 1: dpfp, and hyperbolic favor with eps 0, have such a form. */
int k_scores_fused(const k_features *);
/* Floats: packed, W in the order of use; keep, of each key; query, what dq is made of. */
typedef struct k_scores_sizes { size_t packed, keep, query, work; } k_scores_sizes;
void k_sscores_sizes(const k_features *, k_scores_sizes *);
void k_sscores_pack(const k_features *, float *packed);
/* s[n] = a . phi(x_j) for the keys x[n,D] and a[M].  keep[n * sizes.keep] is for backward; NULL: none will follow. */
void k_sscores_forward(const k_features *, const float *packed, int n, const float *x, int64_t ldx, const float *kappa,
                       const float *a, float *s, float *keep, float *work);
/* Of ds[n]: query[sizes.query] += and dx[n,D] overwritten (NULL: not wanted).  s and keep as forward left them. */
void k_sscores_backward(const k_features *, int n, const float *x, int64_t ldx, const float *a, const float *s, const float *ds,
                        const float *keep, float *query, float *dx, int64_t lddx, float *work);
/* dq[D] of the query q[D], whose features are a[M]; query as the calls of backward for all its keys left it. */
void k_sscores_dq(const k_features *, const float *q, const float *a, const float *query, float *dq, float *work);

#ifdef __cplusplus
}
#endif
#endif
