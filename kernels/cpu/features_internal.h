/* features_internal.h - what features.c and linear_scores.c share. */
#ifndef KERNELS_CPU_FEATURES_INTERNAL_H
#define KERNELS_CPU_FEATURES_INTERNAL_H
#include "kernels/features.h"
#include <math.h>
#include <string.h>

/* rr[4D] = [r; r] of x[D] with r = [relu(x); relu(-x)], so that r_((i-s) mod 2D) = rr[2D+i-s] is a contiguous load. */
static inline void rectify(int D, const float *restrict x, float *restrict rr)
{
    for (int d = 0; d < D; d++) {
        rr[d] = rr[2 * D + d] = x[d] > 0 ? x[d] : 0;
        rr[D + d] = rr[3 * D + d] = x[d] < 0 ? -x[d] : 0;
    }
}

/* dx[D] = w times the gradient that drr[4D], of both copies of r, has at x. */
static inline void rectify_backward(int D, float w, const float *restrict x, const float *restrict drr, float *restrict dx)
{
    for (int d = 0; d < D; d++) {
        float up = drr[d] + drr[2 * D + d], down = drr[D + d] + drr[3 * D + d];
        dx[d] = w * (x[d] > 0 ? up : x[d] < 0 ? -down : 0);
    }
}

/* favor: the factor of x in x', and the factor in front of the features. */
static inline float input_scale(const k_features *f)
{
    return f->input_scale > 0 ? (float)f->input_scale : powf((float)f->D, -0.25f);
}
static inline float front(const k_features *f)
{
    return 1 / sqrtf((float)(f->favor == K_FAVOR_HYPERBOLIC ? 2 * f->m : f->m));
}

/* The largest |u| of u[m]; NaN if there is one.  As integers, magnitudes have the order of their numbers, and compilers
 * vectorise an integer maximum without leave to forget about NaN. */
static inline float largest_magnitude(int m, const float *u)
{
    uint32_t max = 0;
    for (int r = 0; r < m; r++) {
        uint32_t bits;
        memcpy(&bits, u + r, sizeof bits);
        bits &= 0x7fffffff;
        max = bits > max ? bits : max;
    }
    float largest;
    memcpy(&largest, &max, sizeof largest);
    return largest;
}
#endif
