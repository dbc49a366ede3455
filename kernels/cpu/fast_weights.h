/* fast_weights.h - what the float forms of fast weights share: one key head at a time, see ../fast_weights.h.
 *
 *   rows    few queries after all writes (sum, delta, gated): no W at all, the query walks back through the tokens
 *   chunks  sum and gated: blocks of tokens as matrix products
 *   recall  delta and fwm: the same, and what W recalls of each token is found from those before it */
#ifndef KERNELS_CPU_FAST_WEIGHTS_H
#define KERNELS_CPU_FAST_WEIGHTS_H
#include "../fast_weights.h"

enum { FW_BLOCK = 32 };                 /* tokens whose features are made at once, and those of a chunk */

typedef struct fw_head {                /* batch row b, key head h with its G query heads, b * Hk + h */
    const k_fast_weights *f;
    int b, h, G;
    size_t index;
    k_features map;
    float *saved, *scratch;             /* this head's; this thread's */
} fw_head;

typedef struct fw_form {
    size_t (*saved)(const k_fast_weights *);            /* floats for one head */
    size_t (*scratch)(const k_fast_weights *);          /* floats for one thread */
    void (*forward)(const fw_head *);
    void (*backward)(const fw_head *);
} fw_form;
extern const fw_form fw_rows, fw_chunks, fw_recall;

/* Elements of work for the features of n rows, at most Tk or Tq of them. */
size_t fw_features_work(const k_fast_weights *, int n);
/* phi, x [n,m] and r [n] of n keys from t0 on: features, normalised features, factors; phi may be x. */
void fw_keys(const fw_head *, int t0, int n, float *phi, float *x, float *r, float *work);
/* The same of n queries of query head g in 0..G-1. */
void fw_queries(const fw_head *, int g, int t0, int n, float *phi, float *x, float *r, float *work);
/* dk and dq of the gradient dx [n,m] of x; dx is lost. */
void fw_keys_back(const fw_head *, int t0, int n, const float *phi, const float *x, const float *r, float *dx, float *work);
void fw_queries_back(const fw_head *, int g, int t0, int n, const float *phi, const float *x, const float *r, float *dx, float *work);
float fw_beta(const fw_head *, int t);                  /* 1 for the sum rule */
/* Writes the gradient of the logit of token t. */
void fw_beta_back(const fw_head *, int t, float dbeta);
static inline float fw_inverse(float den) { return den != 0 ? 1 / den : 0; }
#endif
