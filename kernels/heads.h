/* heads.h - tensors [B,H,T,D] by strides with D contiguous, as variants receive them. */
#ifndef KERNELS_HEADS_H
#define KERNELS_HEADS_H
#include <stdint.h>
#include <string.h>

typedef struct k_heads {                /* row (b,h,t) begins at p + b*sb + h*sh + t*st; p NULL: not wanted */
    void *p;                            /* float for k_row, double for k_drow */
    int64_t sb, sh, st;
} k_heads;

static inline float *k_row(k_heads x, int b, int h, int64_t t)
{
    return x.p ? (float *)x.p + b * x.sb + h * x.sh + t * x.st : NULL;
}

static inline double *k_drow(k_heads x, int b, int h, int64_t t)
{
    return x.p ? (double *)x.p + b * x.sb + h * x.sh + t * x.st : NULL;
}

/* Rows 0..T-1 of (b,h) become zero; returns row 0, NULL when not wanted. */
static inline float *k_rows_zero(k_heads x, int b, int h, int T, int D)
{
    for (int t = 0; x.p && t < T; t++)
        memset(k_row(x, b, h, t), 0, (size_t)D * sizeof(float));
    return k_row(x, b, h, 0);
}
#endif
