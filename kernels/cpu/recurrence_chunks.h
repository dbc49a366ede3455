/* recurrence_chunks.h - what the float files of fading memories share: the scratch of a thread and the decays of a chunk. */
#ifndef KERNELS_CPU_RECURRENCE_CHUNKS_H
#define KERNELS_CPU_RECURRENCE_CHUNKS_H
#include "recurrence.h"

enum { RC_CHUNK = 64 };

/* Scratch of one thread: C = RC_CHUNK tokens, W = D decays of a token or 1. */
typedef struct rc_chunk {
    float *k, *dk, *rk, *q, *dq, *rq;   /* [C,D] [C,D] [C] each: rows, their gradients, factors of their norm */
    float *v, *x, *u, *dx, *y;          /* [C,E]: values; what is written; v - S'k; gradient of x; o or its gradient */
    float *l, *in, *out, *left;         /* [C,W] decays; [C,W] fade from the start to i, from j to the end; [W] of the whole chunk */
    float *weight;                      /* [C,C]: W = 1: fade from j to i, 0 for j > i */
    float *k_in, *k_out, *q_in;         /* [C,D]: rows times in and out */
    float *P, *dP, *A, *T;              /* [C,C]: scores, their gradient; delta: (k_i.k_j) weight, the same times beta_i */
    float *dl, *sum;                    /* [C,W] gradient of the decays; [W] work */
    float *step, *slope, *beta, *dfactor;               /* [C] */
    float *S, *R;                       /* [D,E]: memory, its gradient */
    float *fade, *q_half, *k_half, *d_half;             /* [C,D]: channels, see rc_scores */
    size_t size;
} rc_chunk;

/* Fades of the decays of n tokens; W = 1 also the weights. */
void rc_fades(const k_recurrence *, rc_chunk, int n);
/* P [n,C] = the scores q_i.k_j faded from j to i; 0 for j > i. */
void rc_scores(const k_recurrence *, rc_chunk, int n);
/* dq, dk and dl += what dP gives; P and dP are lost. */
void rc_scores_back(const k_recurrence *, rc_chunk, int n);

/* Gradients of decays, summed over the products that hold a decay, never as a difference: where a memory fades fast
 * they are small. */
/* dl_t += sum of x_s o dx_s over s = t .. hi-1, t in [lo,hi): x_s holds the fade from lo to s. */
void rc_decays_from(const k_recurrence *, rc_chunk, int lo, int hi, const float *x, const float *dx);
/* dl_t += sum of x_s o dx_s over s = lo .. t-1, t in (lo,hi): x_s holds the fade after s to the end. */
void rc_decays_to(const k_recurrence *, rc_chunk, int lo, int hi, const float *x, const float *dx);
/* W = 1: dl_t += sum of shares_ij [n,C] over j < t <= i; shares hold the weights. */
void rc_decays_between(rc_chunk, int n, const float *shares);
/* y = x o fade, [n,D]; fade is [n,W]. */
void rc_faded(const k_recurrence *, int n, const float *x, const float *fade, float *y);
#endif
