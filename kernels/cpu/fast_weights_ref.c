/* fast_weights_ref.c - the definition of fast weights in double: plain loops, every W_t kept for backward.
 * See fast_weights.h for the rules and variants/fwp.c for the gradient. */
#include "../fast_weights.h"
#include <math.h>
#include <string.h>

/* x.y of n elements. */
static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * y[d];
    return sum;
}
/* 1 / den; a denominator of exactly 0 gives 0. */
static double inverse(double den) { return den != 0 ? 1 / den : 0; }

/* u [Dv] = v - W'b / den, or v where the rule recalls nothing; returns 1 / den. */
static double recall(const k_fast_weights *f, const double *W, const double *z, const double *b, const double *v, double *u)
{
    double inv = f->attn_norm == K_FW_FULL ? inverse(dot(f->m, z, b) + f->attn_eps) : 1;
    int recalls = f->rule == K_FW_DELTA || f->rule == K_FW_FWM;
    memcpy(u, v, (size_t)f->Dv * sizeof *u);
    for (int d = 0; recalls && d < f->m; d++) for (int e = 0; e < f->Dv; e++)
        u[e] -= inv * b[d] * W[d * f->Dv + e];
    return inv;
}

/* One token: W [m,Dv] and z [m] become Wn and zn; u [Dv]: work; returns the divisor of fwm. */
static double write_token(const k_fast_weights *f, const double *W, const double *z, const double *b, const double *v,
                          double beta, int first, double *u, double *Wn, double *zn)
{
    double keep = f->rule == K_FW_GATED ? 1 - beta : 1, z_beta = f->rule == K_FW_GATED ? beta : 1, square = 0;
    recall(f, W, z, b, v, u);
    for (int d = 0; d < f->m; d++) for (int e = 0; e < f->Dv; e++) {
        Wn[d * f->Dv + e] = keep * W[d * f->Dv + e] + beta * b[d] * u[e];
        square += Wn[d * f->Dv + e] * Wn[d * f->Dv + e];
    }
    for (int d = 0; d < f->m; d++)
        zn[d] = keep * z[d] + z_beta * b[d];
    double clip = f->rule == K_FW_FWM && !first ? fmax(1, sqrt(square)) : 1;
    for (int i = 0; i < f->m * f->Dv; i++)
        Wn[i] /= clip;
    return clip;
}

/* Its gradient: dW [m,Dv] and dz [m], of Wn and zn, become those of W and z; dlogit, db [m] += , dv [Dv] = . */
static double write_back(const k_fast_weights *f, const double *W, const double *z, const double *Wn, const double *b,
                         const double *v, double beta, double clip, double *u, double *dW, double *dz, double *db, double *dv)
{
    int m = f->m, E = f->Dv, gated = f->rule == K_FW_GATED, recalls = f->rule == K_FW_DELTA || f->rule == K_FW_FWM;
    double inv = recall(f, W, z, b, v, u), along = clip > 1 ? dot(m * E, dW, Wn) : 0, dbeta = 0, dden = 0;
    for (int i = 0; i < m * E; i++)                                     /* W = W' / clip */
        dW[i] = (dW[i] - along * Wn[i]) / clip;
    for (int e = 0; e < E; e++) {                                       /* W' = keep W + beta b u' */
        dv[e] = 0;
        for (int d = 0; d < m; d++)
            dv[e] += dW[d * E + e] * b[d];
        dbeta += dv[e] * u[e];
        dv[e] *= beta;
        dden += inv * dv[e] * (v[e] - u[e]);                            /* u = v - W'b / den */
    }
    for (int d = 0; d < m; d++) {
        for (int e = 0; e < E; e++) {
            double *R = dW + d * E + e, w = W[d * E + e];
            db[d] += beta * *R * u[e] - (recalls ? inv * w * dv[e] : 0);
            dbeta -= gated ? *R * w : 0;
            *R = (gated ? 1 - beta : 1) * *R - (recalls ? inv * b[d] * dv[e] : 0);
        }
        dbeta += gated ? dz[d] * (b[d] - z[d]) : 0;                     /* z = keep z + b or beta b */
        db[d] += (gated ? beta : 1) * dz[d];
        dz[d] *= gated ? 1 - beta : 1;
        if (f->attn_norm == K_FW_FULL) {                                /* den = z.b + eps */
            db[d] += dden * z[d];
            dz[d] += dden * b[d];
        }
    }
    return dbeta * beta * (1 - beta / f->beta_max);
}

/* o [Dv] of one query with features a [m]; with g, the gradient of o, da [m] = , dW += and dz += as well. */
static void read_memory(const k_fast_weights *f, const double *W, const double *z, const double *a, double *y, double *o,
                        const double *g, double *da, double *dW, double *dz)
{
    int m = f->m, E = f->Dv, normed = f->attn_norm != K_FW_NONE;
    double inv = f->scale * (normed ? inverse(dot(m, z, a) + f->attn_eps) : 1), mean = 0, var = 0, along = 0, g_mean = 0;
    for (int e = 0; e < E; e++) {
        y[e] = 0;
        for (int d = 0; d < m; d++)
            y[e] += inv * W[d * E + e] * a[d];
        mean += y[e] / E;
    }
    for (int e = 0; e < E; e++)
        var += (y[e] - mean) * (y[e] - mean) / E;
    double r = f->rule == K_FW_FWM ? 1 / sqrt(var + K_FW_LAYER_NORM_EPS) : 1;
    for (int e = 0; e < E; e++)
        o[e] = f->rule == K_FW_FWM ? r * (y[e] - mean) : y[e];
    if (!g)
        return;
    for (int e = 0; e < E; e++) {
        along += g[e] * o[e];
        g_mean += g[e] / E;
    }
    for (int d = 0; d < m; d++) {
        da[d] = normed ? -inv / f->scale * along * z[d] : 0;
        dz[d] += normed ? -inv / f->scale * along * a[d] : 0;
        for (int e = 0; e < E; e++) {
            double ge = f->rule == K_FW_FWM ? r * (g[e] - g_mean - o[e] * along / E) : g[e];
            da[d] += inv * W[d * E + e] * ge;
            dW[d * E + e] += inv * a[d] * ge;
        }
    }
}

/* Scratch of one key head; forward keeps one W and z, backward (history) W_0 .. W_Tk. */
typedef struct {
    double *phi_k, *b, *db, *r_k, *phi_q, *a, *da, *r_q;    /* keys [Tk,m] .. [Tk], queries of a head [Tq,m] .. [Tq] */
    double *W, *z, *clip, *dW, *dz, *u, *y, *o, *work;      /* [.,m,Dv] [.,m] [Tk] [m,Dv] [m] [Dv] [Dv] [Dv] */
    size_t step, size;                                      /* states between W_t and W_t+1; elements in all */
} ref_work;

/* Lays the arrays out from `at` on; NULL: only their size. */
static ref_work ref_layout(const k_fast_weights *f, int history, double *at)
{
    size_t m = (size_t)f->m, E = (size_t)f->Dv, K = (size_t)f->Tk, Q = (size_t)f->Tq, T = history ? K + 1 : 1;
    size_t n = k_features_work(&f->features, f->Tk > f->Tq ? f->Tk : f->Tq), G = (size_t)(f->Hq / f->Hk);
    ref_work w = { .step = (size_t)history };
    double **array[] = { &w.phi_k, &w.b, &w.db, &w.r_k, &w.phi_q, &w.a, &w.da, &w.r_q, &w.W, &w.z, &w.clip, &w.dW, &w.dz, &w.u, &w.y, &w.o, &w.work };
    size_t count[] = { K * m, K * m, K * m, K, G * Q * m, G * Q * m, G * Q * m, G * Q, T * m * E, T * m, K, m * E, m, E, E, E, n };
    for (int i = 0; i < 17; w.size += count[i++])
        *array[i] = at ? at + w.size : NULL;
    return w;
}

/* The feature map of key head h, which has its own projection. */
static k_features head_features(const k_fast_weights *f, int h)
{
    k_features map = f->features;
    if (map.map == K_MAP_FAVOR)
        map.W = (const double *)map.W + (size_t)h * (size_t)map.m * (size_t)map.D;
    return map;
}

/* Features of the keys and queries of (b, key head h), and W_0, z_0. */
static void ref_load(const k_fast_weights *f, int b, int h, ref_work w)
{
    size_t head = (size_t)b * (size_t)f->Hk + (size_t)h, m = (size_t)f->m, n = m * (size_t)f->Dv;
    int G = f->Hq / f->Hk;
    k_features map = head_features(f, h);
    k_dfeatures_forward(&map, K_KEY, f->Tk, k_drow(f->k, b, h, 0), f->k.st, NULL, w.phi_k, f->m, w.work);
    k_dnormalise_forward(f->qk_norm, f->norm_eps, f->Tk, f->m, w.phi_k, f->m, w.b, f->m, w.r_k);
    for (int g = 0; g < G; g++)
        k_dfeatures_forward(&map, K_QUERY, f->Tq, k_drow(f->q, b, h * G + g, 0), f->q.st, NULL, w.phi_q + (size_t)g * (size_t)f->Tq * m, f->m, w.work);
    k_dnormalise_forward(f->qk_norm, f->norm_eps, G * f->Tq, f->m, w.phi_q, f->m, w.a, f->m, w.r_q);
    memset(w.W, 0, n * sizeof *w.W);
    memset(w.z, 0, m * sizeof *w.z);
    if (f->state_in)
        memcpy(w.W, (const double *)f->state_in + head * n, n * sizeof *w.W);
    if (f->z_in)
        memcpy(w.z, (const double *)f->z_in + head * m, m * sizeof *w.z);
}

/* beta_max sigmoid(logit); 1 for the sum rule. */
static double beta_of(const k_fast_weights *f, int b, int h, int t)
{
    return f->rule == K_FW_SUM ? 1 : f->beta_max / (1 + exp(-*k_drow(f->beta, b, h, t)));
}

/* Is W [n] all zeros, so that fwm's first token is not clipped? */
static int is_zero(const double *W, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (W[i] != 0)
            return 0;
    return 1;
}

/* Writes every token of (b,h); reads as well unless o is not to be touched (backward). */
static void ref_run(const k_fast_weights *f, int b, int h, ref_work w, int read)
{
    size_t m = (size_t)f->m, n = m * (size_t)f->Dv;
    int G = f->Hq / f->Hk, empty = is_zero(w.W, n);
    for (int t = 0; t <= f->Tk; t++) {
        double *W = w.W + (size_t)t * w.step * n, *z = w.z + (size_t)t * w.step * m;
        int from = f->causal ? t - 1 : 0, to = f->causal ? t : t == f->Tk ? f->Tq : 0;     /* queries that read W_t */
        for (int i = from; read && i >= 0 && i < to; i++) for (int g = 0; g < G; g++)
            read_memory(f, W, z, w.a + ((size_t)g * (size_t)f->Tq + (size_t)i) * m, w.y, k_drow(f->o, b, h * G + g, i), NULL, NULL, NULL, NULL);
        if (t < f->Tk)
            w.clip[t] = write_token(f, W, z, w.b + (size_t)t * m, k_drow(f->v, b, h, t), beta_of(f, b, h, t), empty && t == 0,
                                    w.u, W + w.step * n, z + w.step * m);
    }
}

/* Head after head on one scratch. */
void k_dfast_weights_forward(const k_fast_weights *f)
{
    size_t m = (size_t)f->m, n = m * (size_t)f->Dv;
    ref_work w = ref_layout(f, 0, f->scratch);
    for (int b = 0; b < f->B; b++) for (int h = 0; h < f->Hk; h++) {
        size_t head = (size_t)b * (size_t)f->Hk + (size_t)h;
        ref_load(f, b, h, w);
        ref_run(f, b, h, w, 1);
        if (f->state_out)
            memcpy((double *)f->state_out + head * n, w.W, n * sizeof *w.W);
        if (f->z_out)
            memcpy((double *)f->z_out + head * m, w.z, m * sizeof *w.z);
    }
}

/* The reads and writes of (b,h) from last to first: da, db, dv and dbeta; dW and dz end as those of W_0 and z_0. */
static void ref_run_back(const k_fast_weights *f, int b, int h, ref_work w)
{
    size_t m = (size_t)f->m, n = m * (size_t)f->Dv, Q = (size_t)f->Tq;
    int G = f->Hq / f->Hk;
    memset(w.dW, 0, n * sizeof *w.dW);
    memset(w.dz, 0, m * sizeof *w.dz);
    memset(w.db, 0, (size_t)f->Tk * m * sizeof *w.db);
    for (int t = f->Tk; t >= 0; t--) {
        const double *W = w.W + (size_t)t * n, *z = w.z + (size_t)t * m;
        int from = f->causal ? t - 1 : 0, to = f->causal ? t : t == f->Tk ? f->Tq : 0;
        for (int i = from; i >= 0 && i < to; i++) for (int g = 0; g < G; g++)
            read_memory(f, W, z, w.a + ((size_t)g * Q + (size_t)i) * m, w.y, w.o, k_drow(f->d_o, b, h * G + g, i),
                        w.da + ((size_t)g * Q + (size_t)i) * m, w.dW, w.dz);
        if (t == 0)
            break;
        size_t s = (size_t)t - 1;
        double dlogit = write_back(f, W - n, z - m, W, w.b + s * m, k_drow(f->v, b, h, t - 1), beta_of(f, b, h, t - 1),
                                   w.clip[s], w.u, w.dW, w.dz, w.db + s * m, w.y);
        if (f->dv.p)
            memcpy(k_drow(f->dv, b, h, t - 1), w.y, (size_t)f->Dv * sizeof *w.y);
        if (f->dbeta.p)
            *k_drow(f->dbeta, b, h, t - 1) = dlogit;
    }
}

/* Writes again with every W kept, then goes back. */
void k_dfast_weights_backward(const k_fast_weights *f)
{
    size_t m = (size_t)f->m, n = m * (size_t)f->Dv, Q = (size_t)f->Tq;
    int G = f->Hq / f->Hk, M = f->m;
    ref_work w = ref_layout(f, 1, f->scratch);
    for (int b = 0; b < f->B; b++) for (int h = 0; h < f->Hk; h++) {
        size_t head = (size_t)b * (size_t)f->Hk + (size_t)h;
        k_features map = head_features(f, h);
        ref_load(f, b, h, w);
        ref_run(f, b, h, w, 0);
        ref_run_back(f, b, h, w);
        k_dnormalise_backward(f->qk_norm, f->Tk, M, w.b, M, w.r_k, w.db, M, w.db, M);
        k_dnormalise_backward(f->qk_norm, G * f->Tq, M, w.a, M, w.r_q, w.da, M, w.da, M);
        if (f->dk.p)
            k_dfeatures_backward(&map, K_KEY, f->Tk, k_drow(f->k, b, h, 0), f->k.st, w.phi_k, M, w.db, M, k_drow(f->dk, b, h, 0), f->dk.st, w.work);
        for (int g = 0; f->dq.p && g < G; g++)
            k_dfeatures_backward(&map, K_QUERY, f->Tq, k_drow(f->q, b, h * G + g, 0), f->q.st, w.phi_q + (size_t)g * Q * m, M,
                                 w.da + (size_t)g * Q * m, M, k_drow(f->dq, b, h * G + g, 0), f->dq.st, w.work);
        if (f->dstate)
            memcpy((double *)f->dstate + head * n, w.dW, n * sizeof *w.dW);
        if (f->dz)
            memcpy((double *)f->dz + head * m, w.dz, m * sizeof *w.dz);
    }
}

/* Doubles of the layout. */
size_t k_dfast_weights_scratch(const k_fast_weights *f, int backward) { return ref_layout(f, backward, NULL).size; }
