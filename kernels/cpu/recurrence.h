/* recurrence.h - what the double and the float form of ../recurrence.h share: one memory, and its gates in double. */
#ifndef KERNELS_CPU_RECURRENCE_H
#define KERNELS_CPU_RECURRENCE_H
#include "../recurrence.h"
#include "math.h"

/* One memory: batch row b, head h, with the heads that it reads and its G readers. */
typedef struct rc_memory {
    const k_recurrence *r;
    int b, h, hk, hv, G;
    double A, bias, skip;               /* step: e^a_log and dt_bias; 0 without */
} rc_memory;

/* Number i of an array of doubles or floats; 0 when there is none. */
static inline double rc_number(const void *x, int i, int is_double)
{
    return !x ? 0 : is_double ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

/* Memory (b,h), with params in double or in float. */
static inline rc_memory rc_memory_of(const k_recurrence *r, int b, int h, int is_double)
{
    return (rc_memory){ .r = r, .b = b, .h = h, .hk = h * r->Hk / r->H, .hv = h * r->Hv / r->H, .G = r->Ho / r->H,
                        .A = exp(rc_number(r->a_log, h, is_double)), .bias = rc_number(r->dt_bias, h, is_double),
                        .skip = rc_number(r->d_skip, h, is_double) };
}

/* Head of o, and of q, of reader g. */
static inline int rc_out_head(const rc_memory *a, int g) { return a->h * a->G + g; }
static inline int rc_query_head(const rc_memory *a, int g) { return rc_out_head(a, g) * a->r->Hq / a->r->Ho; }
/* Decays of one token. */
static inline int rc_width(const k_recurrence *r) { return r->decay == K_DECAY_CHANNEL ? r->D : 1; }
/* Decay of a memory that is the same for every token. */
static inline double rc_fixed(const rc_memory *a) { return log1p(-exp2(-a->r->decay_exponent - a->h)); }

/* Step of a token and its derivative by the gate, which is 0 beyond the bounds. */
static inline double rc_step(const rc_memory *a, double gate, double *slope)
{
    double step = softplus_f64(gate + a->bias), low = a->r->step_min, high = a->r->step_max;
    *slope = step >= low && step <= high ? sigmoid_f64(gate + a->bias) : 0;
    return step < low ? low : step > high ? high : step;
}
#endif
