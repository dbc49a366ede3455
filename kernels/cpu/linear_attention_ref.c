/* linear_attention.h in double: the definition, pair by pair. */
#include "kernels/linear_attention.h"
#include <math.h>

#define ROW(t, b, h, i) ((double *)(t).p + (b) * (t).sb + (h) * (t).sh + (i) * (t).st)

/* Sizes: features of all keys and of one query, their gradients, and the work of the maps. */
void k_dlinattn_sizes(const k_linattn *p, k_linattn_sizes *z)
{
    size_t M = k_features_width(&p->f);
    z->saved = 0;
    z->scratch_fwd = (M * (p->Tk + 1) + k_features_work(&p->f, 1)) * sizeof(double);
    z->scratch_bwd = z->scratch_fwd + M * (p->Tk + 1) * sizeof(double);
    z->scratch_dec = (2 * M + k_features_work(&p->f, 1)) * sizeof(double);
    z->state = (size_t)p->B * p->Hk * (M * p->Dv + M + 1) * sizeof(double);
}

/* The features of one key head. */
static k_features head(const k_linattn *p, int hk)
{
    k_features f = p->f;
    if (f.W) f.W = (const double *)f.W + (size_t)hk * f.m * f.D;
    return f;
}

/* How many keys batch row b has. */
static int keys(const k_linattn *p, int b) { return p->klen && p->klen[b] < p->Tk ? p->klen[b] : p->Tk; }

/* How many of them query i sees: a prefix in every mode. */
static int limit(const k_linattn *p, int b, int i)
{
    int n = p->causal ? i + p->Tk - p->Tq + 1 : p->Tk;
    return n < 0 ? 0 : n < keys(p, b) ? n : keys(p, b);
}

/* x[n] . y[n]. */
static double dot(const double *x, const double *y, int n)
{
    double s = 0;
    for (int d = 0; d < n; d++) s += x[d] * y[d];
    return s;
}

/* The factor of num_i. */
static double inverse(const k_linattn *p, double den)
{
    if (!p->normalise) return 1;
    den += (fabs(den) <= p->guard ? 2 * p->guard : 0) + p->denom_eps;
    return den == 0 ? 0 : 1 / den;
}

/* Features b[n,M] of the keys of (b, hk), stabilised by their common kappa. */
static void key_features(const k_linattn *p, const k_features *f, int b, int hk, double *bs, double *work)
{
    int n = keys(p, b), M = k_features_width(f);
    double kappa = -INFINITY;
    for (int j = 0; j < n; j++) kappa = fmax(kappa, k_dfeatures_kappa(f, 1, ROW(p->k, b, hk, j), 0, work));
    for (int j = 0; j < n; j++) k_dfeatures_forward(f, K_KEY, 1, ROW(p->k, b, hk, j), 0, &kappa, bs + (size_t)j * M, M, work);
}

/* o[Dv] of one query with features a[M]. */
static void forward_row(const k_linattn *p, int b, int h, int i, const double *a, const double *bs, int M)
{
    int hk = h / (p->Hq / p->Hk), n = limit(p, b, i);
    double *o = ROW(p->o, b, h, i), den = 0;
    for (int d = 0; d < p->Dv; d++) o[d] = 0;
    for (int j = 0; j < n; j++) {
        double s = dot(a, bs + (size_t)j * M, M), *v = ROW(p->v, b, hk, j);
        den += s;
        for (int d = 0; d < p->Dv; d++) o[d] += s * v[d];
    }
    double r = inverse(p, den);
    for (int d = 0; d < p->Dv; d++) o[d] *= r;
}

/* o[B,Hq,Tq,Dv]. */
void k_dlinattn_forward(const k_linattn *p)
{
    int M = k_features_width(&p->f), g = p->Hq / p->Hk;
    double *bs = p->scratch, *a = bs + (size_t)p->Tk * M, *work = a + M;
    for (int b = 0; b < p->B; b++) for (int hk = 0; hk < p->Hk; hk++) {
        k_features f = head(p, hk);
        key_features(p, &f, b, hk, bs, work);
        for (int h = hk * g; h < (hk + 1) * g; h++) for (int i = 0; i < p->Tq; i++) {
            k_dfeatures_forward(&f, K_QUERY, 1, ROW(p->q, b, h, i), 0, NULL, a, M, work);
            forward_row(p, b, h, i, a, bs, M);
        }
    }
}

/* With r_i = 1/den_i: ds_ij = r_i (do_i.v_j - do_i.o_i), dv_j += s_ij r_i do_i, da_i += ds_ij b_j, db_j += ds_ij a_i. */
static void backward_row(const k_linattn *p, int b, int h, int i, const double *a, const double *bs, int M, double *da, double *dbs)
{
    int hk = h / (p->Hq / p->Hk), n = limit(p, b, i);
    const double *d_o = ROW(p->d_o, b, h, i);
    double den = 0, delta = p->normalise ? dot(d_o, ROW(p->o, b, h, i), p->Dv) : 0;
    for (int j = 0; j < n; j++) den += dot(a, bs + (size_t)j * M, M);
    double r = inverse(p, den);
    for (int m = 0; m < M; m++) da[m] = 0;
    for (int j = 0; j < n; j++) {
        const double *bj = bs + (size_t)j * M;
        double *db = dbs + (size_t)j * M, ds = r * (dot(d_o, ROW(p->v, b, hk, j), p->Dv) - delta), s = dot(a, bj, M);
        for (int m = 0; m < M; m++) {
            da[m] += ds * bj[m];
            db[m] += ds * a[m];
        }
        if (p->dv.p) for (int d = 0; d < p->Dv; d++) ROW(p->dv, b, hk, j)[d] += s * r * d_o[d];
    }
}

/* dq, dk and dv. */
void k_dlinattn_backward(const k_linattn *p)
{
    int M = k_features_width(&p->f), g = p->Hq / p->Hk;
    double *bs = p->scratch, *dbs = bs + (size_t)p->Tk * M, *a = dbs + (size_t)p->Tk * M, *da = a + M, *work = da + M;
    for (int b = 0; b < p->B; b++) for (int hk = 0; hk < p->Hk; hk++) {
        k_features f = head(p, hk);
        key_features(p, &f, b, hk, bs, work);
        for (size_t e = 0; e < (size_t)p->Tk * M; e++) dbs[e] = 0;
        if (p->dv.p) for (int j = 0; j < p->Tk; j++) for (int d = 0; d < p->Dv; d++) ROW(p->dv, b, hk, j)[d] = 0;
        for (int h = hk * g; h < (hk + 1) * g; h++) for (int i = 0; i < p->Tq; i++) {
            const double *q = ROW(p->q, b, h, i);
            k_dfeatures_forward(&f, K_QUERY, 1, q, 0, NULL, a, M, work);
            backward_row(p, b, h, i, a, bs, M, da, dbs);
            if (p->dq.p) k_dfeatures_backward(&f, K_QUERY, 1, q, 0, a, M, da, M, ROW(p->dq, b, h, i), 0, work);
        }
        if (p->dk.p) for (int j = 0; j < p->Tk; j++) {
            double *dk = ROW(p->dk, b, hk, j);
            if (j < keys(p, b)) k_dfeatures_backward(&f, K_KEY, 1, ROW(p->k, b, hk, j), 0, bs + (size_t)j * M, M,
                                                     dbs + (size_t)j * M, M, dk, 0, work);
            else for (int d = 0; d < p->Dk; d++) dk[d] = 0;
        }
    }
}

/* S += b v^T and z += b; a larger kappa than the state's first rescales both. */
static void write_token(const k_linattn *p, const k_features *f, int b, int hk, int i, double *S, double *bi, double *work)
{
    int M = k_features_width(f);
    double *z = S + (size_t)M * p->Dv, *old = z + M, *k = ROW(p->k, b, hk, i), *v = ROW(p->v, b, hk, i);
    double kappa = k_dfeatures_kappa(f, 1, k, 0, work), fade = 1;
    if (p->pos + i > 0) {
        kappa = fmax(kappa, *old);
        fade = exp(*old - kappa);
    }
    *old = kappa;
    k_dfeatures_forward(f, K_KEY, 1, k, 0, &kappa, bi, M, work);
    for (int m = 0; m < M; m++) {
        z[m] = fade * z[m] + bi[m];
        for (int d = 0; d < p->Dv; d++) S[(size_t)m * p->Dv + d] = fade * S[(size_t)m * p->Dv + d] + bi[m] * v[d];
    }
}

/* o = S^T a / (a.z + eps). */
static void read_token(const k_linattn *p, int b, int h, int i, const double *S, const double *a, int M)
{
    double *o = ROW(p->o, b, h, i), r = inverse(p, dot(a, S + (size_t)M * p->Dv, M));
    for (int d = 0; d < p->Dv; d++) o[d] = 0;
    for (int m = 0; m < M; m++) for (int d = 0; d < p->Dv; d++) o[d] += r * a[m] * S[(size_t)m * p->Dv + d];
}

/* Tq new tokens, one after the other. */
void k_dlinattn_decode(const k_linattn *p)
{
    int M = k_features_width(&p->f), g = p->Hq / p->Hk;
    double *a = p->scratch, *bi = a + M, *work = bi + M;
    for (int b = 0; b < p->B; b++) for (int hk = 0; hk < p->Hk; hk++) for (int i = 0; i < p->Tq; i++) {
        k_features f = head(p, hk);
        double *S = (double *)p->state + ((size_t)b * p->Hk + hk) * ((size_t)M * p->Dv + M + 1);
        write_token(p, &f, b, hk, i, S, bi, work);
        for (int h = hk * g; h < (hk + 1) * g; h++) {
            k_dfeatures_forward(&f, K_QUERY, 1, ROW(p->q, b, h, i), 0, NULL, a, M, work);
            read_token(p, b, h, i, S, a, M);
        }
    }
}
