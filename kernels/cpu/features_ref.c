/* The feature maps of kernels/features.h in double: plain loops, the definition. */
#include "kernels/features.h"
#include <math.h>

/* Features of a row. */
int k_features_width(const k_features *f)
{
    if (f->map == K_MAP_DPFP) return 2 * f->nu * f->D;
    if (f->map == K_MAP_FAVOR) return f->favor == K_FAVOR_POSITIVE ? f->m : 2 * f->m;
    return f->map == K_MAP_GENERAL && f->m ? f->m : f->D;
}

/* dpfp: r and its gradient, twice over; favor: u or du and eta of n rows, and one row of +u and of -u; general: u of n
 * rows. */
size_t k_features_work(const k_features *f, int n)
{
    if (f->map == K_MAP_DPFP) return 8 * (size_t)f->D;
    if (f->map == K_MAP_FAVOR) return (size_t)n * (f->m + 1) + 2 * (size_t)f->m;
    return f->map == K_MAP_GENERAL ? (size_t)n * k_features_width(f) : 1;
}

/* The factor of x in x'. */
static double input_scale(const k_features *f) { return f->input_scale > 0 ? f->input_scale : pow(f->D, -0.25); }

/* The factor in front of the features. */
static double norm(const k_features *f) { return 1 / sqrt(k_features_width(f)); }

/* u[m] = W x', returns eta. */
static double project(const k_features *f, const double *x, double *u)
{
    const double *W = f->W;
    double s = input_scale(f), eta = 0;
    for (int d = 0; d < f->D; d++) eta += 0.5 * s * s * x[d] * x[d];
    for (int r = 0; r < f->m; r++) {
        u[r] = 0;
        for (int d = 0; d < f->D; d++) u[r] += W[(size_t)r * f->D + d] * s * x[d];
    }
    return eta;
}

/* The stabiliser of one row: the largest u, or +-u.  (That of a trig key is its eta.) */
static double largest(const k_features *f, const double *u)
{
    double max = -INFINITY;
    for (int r = 0; r < f->m; r++) max = fmax(max, f->favor == K_FAVOR_POSITIVE ? u[r] : fabs(u[r]));
    return max;
}

/* The key stabiliser of x[n,D]. */
double k_dfeatures_kappa(const k_features *f, int n, const double *x, int64_t ldx, double *work)
{
    if (f->map != K_MAP_FAVOR || !f->stabilise) return 0;
    double max = -INFINITY;
    for (int i = 0; i < n; i++) {
        double eta = project(f, x + i * ldx, work);
        max = fmax(max, f->favor == K_FAVOR_TRIG ? eta : largest(f, work));
    }
    return max;
}

/* phi[M] of x[D] by favor. */
static void favor_row(const k_features *f, k_role role, const double *x, const double *kappa, double *phi, double *u)
{
    double c = f->favor == K_FAVOR_TRIG ? 1 / sqrt(f->m) : norm(f), eta = project(f, x, u);
    if (f->favor == K_FAVOR_TRIG) {
        double k = !f->stabilise ? 0 : kappa ? *kappa : eta, g = role == K_KEY ? exp(eta - k) : 1;
        for (int r = 0; r < f->m; r++) {
            phi[r] = c * g * cos(u[r]);
            phi[f->m + r] = c * g * sin(u[r]);
        }
        return;
    }
    double k = !f->stabilise ? 0 : kappa ? *kappa : largest(f, u);
    for (int r = 0; r < f->m; r++) {
        phi[r] = c * (exp(u[r] - eta - k) + f->eps);
        if (f->favor == K_FAVOR_HYPERBOLIC) phi[f->m + r] = c * (exp(-u[r] - eta - k) + f->eps);
    }
}

/* r[2D] = [relu(x); relu(-x)]. */
static void rectify(int D, const double *x, double *r)
{
    for (int d = 0; d < D; d++) {
        r[d] = fmax(x[d], 0);
        r[D + d] = fmax(-x[d], 0);
    }
}

/* phi[2 nu D] of x[D]. */
static void dpfp_row(const k_features *f, const double *x, double *phi, double *r)
{
    int R = 2 * f->D;
    rectify(f->D, x, r);
    for (int s = 1; s <= f->nu; s++)
        for (int i = 0; i < R; i++) phi[(s - 1) * R + i] = r[i] * r[(i - s + R) % R];
}

/* A map that works element by element. */
static double map(k_map m, double x)
{
    switch (m) {
    case K_MAP_ELU1: return x > 0 ? x + 1 : exp(x);
    case K_MAP_RELU: return x > 0 ? x : 0;
    case K_MAP_SILU: return x / (1 + exp(-x));
    case K_MAP_TANH: return tanh(x);
    default:         return x;
    }
}

/* Its derivative. */
static double slope(k_map m, double x)
{
    double sig = 1 / (1 + exp(-x)), t = tanh(x);
    switch (m) {
    case K_MAP_ELU1: return x > 0 ? 1 : exp(x);
    case K_MAP_RELU: return x > 0;
    case K_MAP_SILU: return sig * (1 + x * (1 - sig));
    case K_MAP_TANH: return 1 - t * t;
    default:         return 1;
    }
}

/* f of kernel_fn. */
static double function(k_function fn, double u)
{
    switch (fn) {
    case K_FN_RELU:    return u > 0 ? u : 0;
    case K_FN_ABS:     return fabs(u);
    case K_FN_EXP:     return exp(u);
    case K_FN_SIGMOID: return 1 / (1 + exp(-u));
    default:           return fmax(u, 0) + log1p(exp(-fabs(u)));
    }
}

/* Its derivative; that of relu and abs at 0 is 0. */
static double function_slope(k_function fn, double u)
{
    double sig = 1 / (1 + exp(-u));
    switch (fn) {
    case K_FN_RELU:    return u > 0;
    case K_FN_ABS:     return (u > 0) - (u < 0);
    case K_FN_EXP:     return exp(u);
    case K_FN_SIGMOID: return sig * (1 - sig);
    default:           return sig;
    }
}

/* u[r] = (Wx)_r, or x_r without W. */
static double argument(const k_features *f, const double *x, int r)
{
    const double *w = (const double *)f->W + (size_t)r * f->D;
    double u = 0;
    if (!f->m) return x[r];
    for (int d = 0; d < f->D; d++) u += w[d] * x[d];
    return u;
}

/* dx[D] = W^T du, du = f'(u) dphi, or du itself without W. */
static void general_row_backward(const k_features *f, const double *x, const double *dphi, double *dx, double *du)
{
    int M = k_features_width(f);
    for (int r = 0; r < M; r++) du[r] = dphi[r] * function_slope(f->fn, argument(f, x, r));
    for (int d = 0; d < f->D; d++) {
        double sum = f->m ? 0 : du[d];
        for (int r = 0; r < f->m; r++) sum += ((const double *)f->W)[(size_t)r * f->D + d] * du[r];
        dx[d] = sum;
    }
}

/* phi[n,M] of x[n,D]. */
void k_dfeatures_forward(const k_features *f, k_role role, int n, const double *x, int64_t ldx, const double *kappa,
                         double *phi, int64_t ldp, double *work)
{
    for (int i = 0; i < n; i++, x += ldx, phi += ldp) {
        if (f->map == K_MAP_DPFP) dpfp_row(f, x, phi, work);
        else if (f->map == K_MAP_FAVOR) favor_row(f, role, x, kappa, phi, work);
        else if (f->map == K_MAP_GENERAL)
            for (int r = 0; r < k_features_width(f); r++) phi[r] = function(f->fn, argument(f, x, r)) + f->eps;
        else for (int d = 0; d < f->D; d++) phi[d] = map(f->map, x[d]);
    }
}

/* dx[D] of dphi[M] by favor: du is read off the features, dx = scale (W^T du + deta x'). */
static void favor_row_backward(const k_features *f, k_role role, const double *x, const double *phi, const double *dphi,
                               double *dx, double *du)
{
    const double *W = f->W;
    double s = input_scale(f), ce = norm(f) * f->eps, deta = 0;
    for (int r = 0; r < f->m; r++) {
        int q = f->m + r;
        if (f->favor == K_FAVOR_TRIG) {
            du[r] = dphi[q] * phi[r] - dphi[r] * phi[q];
            if (role == K_KEY) deta += dphi[r] * phi[r] + dphi[q] * phi[q];
            continue;
        }
        double up = dphi[r] * (phi[r] - ce), down = f->favor == K_FAVOR_HYPERBOLIC ? dphi[q] * (phi[q] - ce) : 0;
        du[r] = up - down;
        deta -= up + down;
    }
    for (int d = 0; d < f->D; d++) {
        double sum = deta * s * x[d];
        for (int r = 0; r < f->m; r++) sum += W[(size_t)r * f->D + d] * du[r];
        dx[d] = s * sum;
    }
}

/* dx[D] of dphi[2 nu D]: both factors of each product. */
static void dpfp_row_backward(const k_features *f, const double *x, const double *dphi, double *dx, double *r)
{
    int D = f->D, R = 2 * D;
    double *dr = r + R;
    rectify(D, x, r);
    for (int i = 0; i < R; i++) dr[i] = 0;
    for (int s = 1; s <= f->nu; s++)
        for (int i = 0; i < R; i++) {
            int j = (i - s + R) % R;
            dr[i] += dphi[(s - 1) * R + i] * r[j];
            dr[j] += dphi[(s - 1) * R + i] * r[i];
        }
    for (int d = 0; d < D; d++) dx[d] = x[d] > 0 ? dr[d] : x[d] < 0 ? -dr[D + d] : 0;
}

/* dx[n,D] of dphi[n,M]. */
void k_dfeatures_backward(const k_features *f, k_role role, int n, const double *x, int64_t ldx, const double *phi, int64_t ldp,
                          const double *dphi, int64_t lddp, double *dx, int64_t lddx, double *work)
{
    for (int i = 0; i < n; i++, x += ldx, phi += ldp, dphi += lddp, dx += lddx) {
        if (f->map == K_MAP_DPFP) dpfp_row_backward(f, x, dphi, dx, work);
        else if (f->map == K_MAP_FAVOR) favor_row_backward(f, role, x, phi, dphi, dx, work);
        else if (f->map == K_MAP_GENERAL) general_row_backward(f, x, dphi, dx, work);
        else for (int d = 0; d < f->D; d++) dx[d] = dphi[d] * slope(f->map, x[d]);
    }
}

/* y = r phi by rows of phi[n,M]; r[n] is kept. */
void k_dnormalise_forward(k_norm norm, double eps, int n, int M, const double *phi, int64_t ldp, double *y, int64_t ldy, double *r)
{
    for (int i = 0; i < n; i++, phi += ldp, y += ldy) {
        double sum = eps;
        for (int k = 0; k < M; k++) sum += norm == K_NORM_L2 ? phi[k] * phi[k] : phi[k];
        r[i] = norm == K_NORM_NONE ? 1 : sum == 0 ? 0 : norm == K_NORM_L2 ? 1 / sqrt(sum) : 1 / sum;
        for (int k = 0; k < M; k++) y[k] = r[i] * phi[k];
    }
}

/* sum: dphi = r (dy - dy.y);  l2: dphi = r (dy - y (dy.y)). */
void k_dnormalise_backward(k_norm norm, int n, int M, const double *y, int64_t ldy, const double *r,
                           const double *dy, int64_t lddy, double *dphi, int64_t lddp)
{
    for (int i = 0; i < n; i++, y += ldy, dy += lddy, dphi += lddp) {
        double dot = 0;
        for (int k = 0; k < M; k++) dot += norm == K_NORM_NONE ? 0 : dy[k] * y[k];
        for (int k = 0; k < M; k++) dphi[k] = r[i] * (dy[k] - dot * (norm == K_NORM_L2 ? y[k] : 1));
    }
}
