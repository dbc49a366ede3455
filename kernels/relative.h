/* relative.h - softmax attention with learned vectors per distance (Shaw et al. 2018, Huang et al. 2018), on the CPU.
 *
 *   s_ij = scale q_i.(k_j + E_r),  o_i = sum_j p_ij (v_j + F_r),  p_i = softmax of s_i,  r = j - p_i + M - 1
 *
 * over j <= p_i if causal, where p_i = i + Tk - Tq, and with block > 0 over block b = p_i / block alone:
 * (b - 1) block <= j < (b + 2) block.  A row r that the tables do not have is 0, or with clamp the nearest.
 *
 * k_d... is the definition in double: one loop over pairs, nothing kept.  k_s... is float: tiles of 64 queries and 64
 * keys, which need the products of the queries with 127 consecutive rows; the skewed tile is read off their diagonals,
 * and 64 of the products serve the next tile, too, so that distances cost one product more and no memory. */
#ifndef KERNELS_RELATIVE_H
#define KERNELS_RELATIVE_H
#include <stddef.h>
#include "heads.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct k_relative {
    int B, Hq, Hk, Tq, Tk, Dk, Dv, threads;     /* Tq <= Tk: the queries are the last tokens */
    int causal, block;
    int distance, rows;                 /* M; rows of a table, M or 2 M - 1 */
    int shared, clamp;                  /* shared: all heads have one table */
    double scale;
    k_heads q, k, v, o;                 /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hk,Tk,Dv] [B,Hq,Tq,Dv] */
    k_heads d_o, dq, dk, dv;            /* backward, with Tq == Tk */
    const void *E, *F;                  /* [Hq or 1,rows,Dk] [Hq or 1,rows,Dv]; F NULL: values have no vectors */
    void *dE, *dF;                      /* added to; NULL: not wanted */
    float *lse;                         /* k_s...: [B,Hq,Tq]; NULL: not wanted */
    void *scratch;
} k_relative;

/* Bytes of scratch. */
size_t k_srelative_scratch(const k_relative *, int backward);
size_t k_drelative_scratch(const k_relative *, int backward);
void k_srelative_forward(const k_relative *);
void k_drelative_forward(const k_relative *);
void k_srelative_backward(const k_relative *);  /* reads o and lse */
void k_drelative_backward(const k_relative *);  /* reads o */

/* Keys that the query at position p sees: *first up to, not including, the result. */
static inline int k_relative_reach(const k_relative *a, int p, int *first)
{
    int begin = a->block ? (p / a->block - 1) * a->block : 0, end = a->Tk;
    if (a->block && end - p / a->block * a->block > 2 * a->block)
        end = (p / a->block + 2) * a->block;
    if (a->causal && end > p + 1)
        end = p + 1;
    *first = begin > 0 ? begin : 0;
    return end;
}

/* The row of the tables that stands for row r, -1: a row of zeros. */
static inline int k_relative_row(const k_relative *a, int64_t r)
{
    if (r >= 0 && r < a->rows)
        return (int)r;
    return !a->clamp ? -1 : r < 0 ? 0 : a->rows - 1;
}

#ifdef __cplusplus
}
#endif
#endif
