/* features.h - the feature maps of kernel attention and fast weights, CPU, one thread, no allocation.
 *
 *   identity  x                          elu1  x + 1 for x > 0, e^x otherwise      relu  max(x, 0)
 *   silu      x sigmoid(x)               tanh  tanh(x)
 *   dpfp      r = [relu(x); relu(-x)], feature (s-1) 2D + i = r_i r_((i-s) mod 2D), s = 1..nu, i = 0..2D-1
 *   favor     x' = input_scale x, u = W x', eta = |x'|^2 / 2, kappa a constant (no gradient):
 *     positive    m^-1/2 (exp(u - eta - kappa) + eps)                             m features
 *     hyperbolic  (2m)^-1/2 (exp(+-u - eta - kappa) + eps)                       2m: all +u, then all -u
 *     trig        m^-1/2 [cos u; sin u], of a key times exp(eta - kappa)          2m, no eps
 *   general   f(Wx) + eps, f one of k_function, m features; with m = 0 f(x) + eps, D features
 *
 * k_s... is float and fast, k_d... is double and the definition.  Both work on n rows of x with row stride
 * ldx and n rows of features with row stride ldp.  Rows of x and of features must not overlap.
 * work holds k_features_work(f, n) elements (float or double) and nothing between two calls. */
#ifndef KERNELS_FEATURES_H
#define KERNELS_FEATURES_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum k_map { K_MAP_IDENTITY, K_MAP_ELU1, K_MAP_RELU, K_MAP_SILU, K_MAP_TANH, K_MAP_DPFP, K_MAP_FAVOR,
               K_MAP_GENERAL } k_map;
typedef enum k_favor { K_FAVOR_POSITIVE, K_FAVOR_HYPERBOLIC, K_FAVOR_TRIG } k_favor;
typedef enum k_function { K_FN_RELU, K_FN_ABS, K_FN_EXP, K_FN_SIGMOID, K_FN_SOFTPLUS } k_function;
typedef enum k_role { K_QUERY, K_KEY } k_role;  /* only trig tells them apart */

typedef struct k_features {
    k_map map;
    int D;                              /* width of x */
    int nu;                             /* dpfp: 1..2D-1 */
    k_function fn;                      /* general */
    k_favor favor;
    int m;                              /* favor: rows of W, >= 1; general: or 0, no W */
    double input_scale, eps;            /* favor: input_scale 0 is D^-1/4; eps: favor and general */
    int stabilise;                      /* favor: 0, kappa is 0 */
    const void *W;                      /* [m,D], double for k_d..., float for k_s... */
} k_features;

int    k_features_width(const k_features *);            /* features of a row, M */
size_t k_features_work(const k_features *, int n);      /* elements of work for n rows */

/* ---- features in one go ------------------------------------------------------------------------------ */
/* phi[n,M] of x[n,D].  kappa: favor with f->stabilise only: one number for all rows (what k_?features_kappa
 * gave for the keys), or NULL: each row its own maximum (queries; also keys whose features are normalised). */
void k_sfeatures_forward(const k_features *f, k_role, int n, const float *x, int64_t ldx, const float *kappa,
                         float *phi, int64_t ldp, float *work);
void k_dfeatures_forward(const k_features *f, k_role, int n, const double *x, int64_t ldx, const double *kappa,
                         double *phi, int64_t ldp, double *work);
/* dx[n,D] = the gradient of sum(dphi o phi); x and phi are those of the forward call, dphi[n,M] is read only.
 * dx is overwritten.  kappa is not needed: it is contained in phi. */
void k_sfeatures_backward(const k_features *f, k_role, int n, const float *x, int64_t ldx, const float *phi, int64_t ldp,
                          const float *dphi, int64_t lddp, float *dx, int64_t lddx, float *work);
void k_dfeatures_backward(const k_features *f, k_role, int n, const double *x, int64_t ldx, const double *phi, int64_t ldp,
                          const double *dphi, int64_t lddp, double *dx, int64_t lddx, double *work);
/* The key stabiliser of n rows: the largest u (+-u if hyperbolic; eta if trig), so that a maximum over several
 * blocks of keys is the maximum of their kappas.  -inf when n == 0; 0 when the map has no stabiliser. */
float  k_sfeatures_kappa(const k_features *f, int n, const float *x, int64_t ldx, float *work);
double k_dfeatures_kappa(const k_features *f, int n, const double *x, int64_t ldx, double *work);

/* ---- favor in two steps, so that Wx is computed once ---------------------------------------------------- */
/* u[n,m] = W x' (row stride ldu) and eta[n]; returns the largest u, +-u or eta as k_sfeatures_kappa does. */
float k_sfavor_log(const k_features *f, int n, const float *x, int64_t ldx, float *u, int64_t ldu, float *eta);
/* phi[n,M] of u[n,m] and eta[n]; u may be the first m columns of phi itself (u == phi, ldu == ldp). */
void  k_sfavor_exp(const k_features *f, k_role, int n, const float *u, int64_t ldu, const float *eta, const float *kappa,
                   float *phi, int64_t ldp);

/* ---- normalisation of feature rows ------------------------------------------------------------------------ */
typedef enum k_norm { K_NORM_NONE, K_NORM_SUM, K_NORM_L2 } k_norm;
/* y = r phi with r = 1/(sum phi + eps) or 1/sqrt(sum phi^2 + eps), r[n] kept; r = 0 where that would be 1/0.
 * y may be phi.  K_NORM_NONE: r = 1. */
void k_snormalise_forward(k_norm, double eps, int n, int M, const float *phi, int64_t ldp, float *y, int64_t ldy, float *r);
void k_dnormalise_forward(k_norm, double eps, int n, int M, const double *phi, int64_t ldp, double *y, int64_t ldy, double *r);
/* dphi of dy, from y and r of the forward call.  dphi may be dy. */
void k_snormalise_backward(k_norm, int n, int M, const float *y, int64_t ldy, const float *r,
                           const float *dy, int64_t lddy, float *dphi, int64_t lddp);
void k_dnormalise_backward(k_norm, int n, int M, const double *y, int64_t ldy, const double *r,
                           const double *dy, int64_t lddy, double *dphi, int64_t lddp);

#ifdef __cplusplus
}
#endif
#endif
