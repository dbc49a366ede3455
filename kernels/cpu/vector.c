/* vector.c - the float primitives of cpu.h. */
#include "../cpu.h"
#include "internal.h"
#include "math.h"

/* Four vectors of partial sums hide the latency of the additions; they are added in a fixed order. */
typedef float vec __attribute__((vector_size(32), aligned(4)));
enum { LANES = 8, RUN = 4 * LANES };

static float sum_of(vec v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

float k_sdot(int n, const float *x, const float *y)
{
    vec s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0;
    float rest = 0;
    int i = 0;
    for (; i + RUN <= n; i += RUN) {
        const vec *a = (const vec *)(x + i), *b = (const vec *)(y + i);
        s0 += a[0] * b[0];
        s1 += a[1] * b[1];
        s2 += a[2] * b[2];
        s3 += a[3] * b[3];
    }
    for (; i + LANES <= n; i += LANES)
        s0 += *(const vec *)(x + i) * *(const vec *)(y + i);
    for (; i < n; i++)
        rest += x[i] * y[i];
    return sum_of((s0 + s1) + (s2 + s3)) + rest;
}

void k_saxpy(int n, float a, const float *x, float *y)
{
    SIMD for (int i = 0; i < n; i++) y[i] += a * x[i];
}

/* From the first row down, transposed from the last row up: a row that is done is taken off the others. */
void k_ssolve_unit(int transposed, int n, int width, const float *T, int ldt, float *x)
{
    for (int i = 0; !transposed && i < n; i++)
        for (int j = 0; j < i; j++)
            k_saxpy(width, -T[i * ldt + j], x + j * width, x + i * width);
    for (int i = n - 1; transposed && i >= 0; i--)
        for (int j = 0; j < i; j++)
            k_saxpy(width, -T[i * ldt + j], x + i * width, x + j * width);
}

void k_sexp(int n, float *y, const float *x)
{
    SIMD for (int i = 0; i < n; i++) y[i] = exp_f32(x[i]);
}

float k_sexp_sum(int n, float *y, const float *x, float shift)
{
    float s = 0;
    K_PRAGMA(omp simd reduction(+ : s)) for (int i = 0; i < n; i++) s += y[i] = exp_f32(x[i] - shift);
    return s;
}

float k_smax(int n, const float *x)
{
    float m = -INFINITY;
    K_PRAGMA(omp simd reduction(max : m)) for (int i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

void k_ssigmoid(int n, float *y, const float *x)
{
    SIMD for (int i = 0; i < n; i++) y[i] = sigmoid_f32(x[i]);
}

void k_stanh(int n, float *y, const float *x)
{
    SIMD for (int i = 0; i < n; i++) y[i] = tanh_f32(x[i]);
}
