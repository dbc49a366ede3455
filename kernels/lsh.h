/* lsh.h - attention of tokens to tokens of like hash, on the CPU (LSH attention, Reformer).
 *
 * The keys are the queries, normed: k_j = q_j / sqrt(|q_j|^2 + Dk key_eps).  In each of `rounds` rounds the tokens are
 * sorted by (bucket, position) and cut into chunks; a token sees its own chunk and the one before it.  One softmax
 * runs over all that it meets in all rounds; the token itself is met only when there is nothing else:
 *
 *   o_i = sum_r sum_j N_ij^r exp(s_ij) v_j / sum_r sum_j N_ij^r exp(s_ij),  s_ij = scale q_i.k_j,  j /= i
 *
 * with dedup every weight divided by sum_r N_ij^r.  In float nothing is sorted but indices: tiles of up to 64 queries
 * and 64 keys are gathered, multiplied and scattered, and a running maximum and sum per token go on from round to
 * round.  Buckets are decided in double where float cannot tell, so that both precisions agree on them.  Threads take
 * whole (batch row, head) pairs. */
#ifndef KERNELS_LSH_H
#define KERNELS_LSH_H
#include <stddef.h>
#include <stdint.h>
#include "heads.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_lsh {
    int B, H, T, Dk, Dv, threads;
    int first;                          /* the queries are tokens first .. T - 1 */
    int causal;                         /* only j <= i */
    int rounds, chunk;                  /* both >= 1; chunk: tokens, the last chunk of a round may be short */
    int across;                         /* tokens of other buckets are seen, too */
    int dedup, wrap;                    /* wrap: before the first chunk of a round comes the last of the one before */
    int factor[2];                      /* a bucket is a + factor[0] b; both even, factor[1] 0 when there is one, both 0: no buckets */
    double scale, key_eps;
    k_heads q, k, v, o;                 /* [B,H,T - first,Dk] [B,H,T,Dk] [B,H,T,Dv] [B,H,T - first,Dv]; k: raw */
    k_heads d_o, dq, dv;                /* backward, with first == 0: both roles of q are in dq */
    int32_t *bucket;                    /* [B,H,rounds,capacity]; NULL: the order is that of positions */
    int64_t capacity;
    float *lse;                         /* [B,H,T], -inf: the token saw itself alone; NULL: not wanted.  On CUDA 1 / lengths of keys follow */
    void *scratch;                      /* k_slsh_scratch() or k_dlsh_scratch() */
    /* CUDA, which hashes as part of forward and decoding: the rotations, or buckets as numbers [B,H,rounds,capacity]. */
    const float *rotations, *given;
} k_lsh;

/* k_d...: the definition, tensors and rotations in double, lse not used; k_s...: float.  Bytes of scratch: */
size_t k_slsh_scratch(const k_lsh *, int backward);
size_t k_dlsh_scratch(const k_lsh *, int backward);
/* bucket of the tokens from .. T - 1 by rotations [H,rounds,Dk,(factor[0] + factor[1]) / 2]. */
void k_slsh_hash(const k_lsh *, const void *rotations, int from);
void k_dlsh_hash(const k_lsh *, const void *rotations, int from);
void k_slsh_forward(const k_lsh *);
void k_dlsh_forward(const k_lsh *);
void k_slsh_backward(const k_lsh *);    /* reads o, bucket and, in float, lse */
void k_dlsh_backward(const k_lsh *);

#ifdef __cplusplus
}
#endif
#endif
