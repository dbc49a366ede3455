/* cpu.h - primitives for CPU code inside a variant or inside kernels/cpu: no device, no allocation,
 * one thread each.  A variant spreads them over heads and batches with OpenMP (call->nthreads) and keeps
 * its results independent of the number of threads by splitting work, never sums, between threads. */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* C[m,n] = alpha op(A) op(B) + beta C, row-major, on the calling thread (never OpenBLAS's own threads).
 * beta == 0 ignores what C held, NaN included.  m == 1 and n == 1 cost what a matrix times a vector costs. */
void k_sgemm(int ta, int tb, int m, int n, int k, float alpha, const float *A, int lda,
             const float *B, int ldb, float beta, float *C, int ldc);
void k_dgemm(int ta, int tb, int m, int n, int k, double alpha, const double *A, int lda,
             const double *B, int ldb, double beta, double *C, int ldc);
float k_sdot(int n, const float *x, const float *y);
void  k_saxpy(int n, float a, const float *x, float *y);                /* y += a x */
/* x [n,width] = (I + T)^-1 x by substitution, or (I + T')^-1 x; T [n,ldt] is strictly lower, the rest of it is not read. */
void  k_ssolve_unit(int transposed, int n, int width, const float *T, int ldt, float *x);
/* y = exp(x), at most 2 ulp over the whole range; underflow to 0 (denormals flushed), overflow to inf, NaN kept. */
void  k_sexp(int n, float *y, const float *x);
/* y = exp(x - shift), returns the sum of y (fixed order of summation). */
float k_sexp_sum(int n, float *y, const float *x, float shift);
float k_smax(int n, const float *x);                                    /* -inf when n == 0 */
void  k_ssigmoid(int n, float *y, const float *x);
void  k_stanh(int n, float *y, const float *x);
#ifdef __cplusplus
}
#endif
#endif
