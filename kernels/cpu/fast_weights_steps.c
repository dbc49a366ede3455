/* fast_weights_steps.c - fast weights token by token: fwm, and delta with its full denominator.
 *
 * W_t = kappa_t (W_{t-1} + b_t u_t'), u = beta (v - vbar), vbar = inv W_{t-1}'b; kappa = 1 / max(1, |W'|) for
 * fwm, inv = 1 / den for full, else 1.  One pass over W writes token t and recalls for token t+1.
 * W is laid out in panels of PANEL columns, panel k a matrix [m,width] at k PANEL m, so that a pass is one stream.  |W'|^2 = |W|^2 + 2 vbar.u + |b|^2 |u|^2 needs no pass, but is taken anew where it cancels.
 *
 * Backward carries G_t = dL/dW_t as H + theta W_t and p = <W_t, G_t>, so that the projection of the clip,
 *   G' = kappa (G - p W_t) = kappa H + theta' (W_{t-1} + b u'),   theta' = kappa^2 (theta - p)   (p: 0 unclipped)
 * is one number and a product of vectors, no pass over W.  With dw = G''b = H''b + theta' W_{t-1}'b:
 *   dv = beta dw,  dbeta = dw.(v - vbar),  G_{t-1} = G' - inv b dv',  db = H'u + W_{t-1} (theta' u - inv dv),
 *   <W_{t-1}, G_{t-1}> = <W', G'> - u.dw - vbar.dv.
 * W_{t-1} y comes from the W kept every CHECK tokens and the vectors written since. */
#include "fast_weights.h"
#include "../cpu.h"
#include <math.h>
#include <string.h>

enum { CHECK = 24, LANE = 8, PANEL = 2 * LANE };
typedef float lane __attribute__((vector_size(32), may_alias));
typedef float loose_lane __attribute__((vector_size(32), may_alias, aligned(4)));     /* in what is saved, aligned to nothing */

/* Dv in whole lanes. */
static size_t padded(const k_fast_weights *f) { return ((size_t)f->Dv + LANE - 1) / LANE * LANE; }
/* Columns of the panel that begins at column e: PANEL, or LANE at the end. */
static int width_at(size_t E, size_t e) { return E - e < PANEL ? LANE : PANEL; }
static size_t queries_of(const k_fast_weights *f) { return (size_t)(f->Hq / f->Hk) * (size_t)f->Tq; }
static size_t checks_of(const k_fast_weights *f) { return ((size_t)f->Tk + CHECK - 1) / CHECK; }

/* Saved for one head. */
typedef struct {
    float *vbar, *kappa, *inv;          /* [Tk,E] [Tk] [Tk] */
    float *mean, *factor;               /* [queries]: layer norm of a read; factor is 1 / den when full */
    float *W, *z;                       /* [checks,m,E] [checks,m]: before tokens 0, CHECK, ... */
    size_t size;
} kept;

/* Lays the arrays out from `at` on; NULL: only their size. */
static kept keep(const k_fast_weights *f, float *at)
{
    size_t E = padded(f), K = (size_t)f->Tk, m = (size_t)f->m, n = queries_of(f), C = checks_of(f);
    kept s = { .size = 0 };
    float **array[] = { &s.vbar, &s.kappa, &s.inv, &s.mean, &s.factor, &s.W, &s.z };
    size_t count[] = { K * E, K, K, n, n, C * m * E, C * m };
    for (size_t i = 0; i < sizeof count / sizeof *count; s.size += count[i++])
        *array[i] = at ? at + s.size : NULL;
    return s;
}
/* Floats that one head keeps. */
static size_t saved(const k_fast_weights *f) { return keep(f, NULL).size; }

/* Scratch of one thread. */
typedef struct {
    float *phi, *b, *db, *rho;          /* keys [Tk,m] x 3 [Tk] */
    float *phi_q, *a, *da, *rho_q;      /* queries [n,m] x 3 [n] */
    float *W, *z, *dz;                  /* [m,E], backward H; [m] [m] */
    float *u, *y, *x, *next, *zero;     /* [E] x 4, and [E] of zeros */
    float *U, *z_before;                /* a stretch of CHECK tokens: [CHECK,E] [CHECK,m] */
    float *rows, *product;              /* [m,LANE] [m] */
    float *work;
    size_t size;
} steps;

/* Lays the arrays out from `at` on; NULL: only their size. */
static steps layout(const k_fast_weights *f, float *at)
{
    size_t E = padded(f), K = (size_t)f->Tk, m = (size_t)f->m, n = queries_of(f);
    size_t work = fw_features_work(f, f->Tk > f->Tq ? f->Tk : f->Tq);
    steps w = { .size = 0 };
    float **array[] = { &w.phi, &w.b, &w.db, &w.rho, &w.phi_q, &w.a, &w.da, &w.rho_q, &w.W, &w.z, &w.dz, &w.u, &w.y, &w.x,
                        &w.next, &w.zero, &w.U, &w.z_before, &w.rows, &w.product, &w.work };
    size_t count[] = { K * m, K * m, K * m, K, n * m, n * m, n * m, n, m * E, m, m, E, E, E, E, E, CHECK * E, CHECK * m,
                       m * LANE, m, work };
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        *array[i] = at ? at + w.size : NULL;
        w.size += (count[i] + LANE - 1) / LANE * LANE;
    }
    return w;
}
/* Floats for one thread. */
static size_t scratch(const k_fast_weights *f) { return layout(f, NULL).size; }

/* Features of all keys and queries of the head. */
static void load(const fw_head *a, steps w)
{
    size_t Q = (size_t)a->f->Tq, m = (size_t)a->f->m;
    fw_keys(a, 0, a->f->Tk, w.phi, w.b, w.rho, w.work);
    for (int g = 0; g < a->G; g++)
        fw_queries(a, g, 0, a->f->Tq, w.phi_q + (size_t)g * Q * m, w.a + (size_t)g * Q * m, w.rho_q + (size_t)g * Q, w.work);
    memset(w.zero, 0, padded(a->f) * sizeof *w.zero);
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

/* A panel of n lanes: W = kappa W + b u', y = W'x; two rows at a time, so that twice as many sums are under way. */
static inline __attribute__((always_inline)) void write_panel(int n, int m, lane *W, float kappa, const float *b, const lane *u,
                                                              const float *x, lane *y)
{
    lane un[2], even[2], odd[2];
    for (int k = 0; k < n; k++) {
        un[k] = u[k];
        even[k] = odd[k] = un[k] * 0;
    }
    int d = 0;
    for (; d + 2 <= m; d += 2, W += 2 * n)
        for (int k = 0; k < n; k++) {
            W[k] = kappa * W[k] + b[d] * un[k];
            W[n + k] = kappa * W[n + k] + b[d + 1] * un[k];
            even[k] += x[d] * W[k];
            odd[k] += x[d + 1] * W[n + k];
        }
    for (int k = 0; d < m && k < n; k++) {
        W[k] = kappa * W[k] + b[d] * un[k];
        even[k] += x[d] * W[k];
    }
    for (int k = 0; k < n; k++)
        y[k] = even[k] + odd[k];
}

/* W = kappa W + b u', y [E] = W'x. */
static void write_and_recall(int m, size_t E, float *W, float kappa, const float *b, const float *u, const float *x, float *y)
{
    for (size_t e = 0; e < E; e += PANEL)
        if (width_at(E, e) == PANEL)
            write_panel(2, m, (lane *)(W + e * (size_t)m), kappa, b, (const lane *)(u + e), x, (lane *)(y + e));
        else
            write_panel(1, m, (lane *)(W + e * (size_t)m), kappa, b, (const lane *)(u + e), x, (lane *)(y + e));
}

/* |W + b u'|^2 taken over all of W. */
static float square_after(int m, size_t E, const float *W, const float *b, const float *u)
{
    float sum = 0;
    for (size_t e = 0; e < E; e += PANEL) {
        int n = width_at(E, e);
        const float *row = W + e * (size_t)m;
        for (int d = 0; d < m; d++, row += n)
            for (int k = 0; k < n; k++) {
                float w = row[k] + b[d] * u[e + (size_t)k];
                sum += w * w;
            }
    }
    return sum;
}

/* kappa of a token; *square: |W|^2, before and after. */
static float clip(const fw_head *a, steps w, const float *b, const float *vbar, float *square)
{
    int m = a->f->m, E = (int)padded(a->f);
    float added = k_sdot(m, b, b) * k_sdot(E, w.u, w.u), now = *square + 2 * k_sdot(E, vbar, w.u) + added;
    if (now < 0.05f * (*square + added))
        now = square_after(m, (size_t)E, w.W, b, w.u);
    *square = now > 1 ? 1 : now;
    return now > 1 ? 1 / sqrtf(now) : 1;
}

/* o of query i of the head (i = g Tq + t) from W and z; what backward needs of it goes to s, unless s is NULL. */
static void read_one(const fw_head *a, steps w, const kept *s, size_t i)
{
    const k_fast_weights *f = a->f;
    int E = f->Dv, Q = f->Tq, m = f->m;
    float *o = k_row(f->o, a->b, a->h * a->G + (int)i / Q, (int)i % Q), mean = 0, square = 0, factor = 1;
    const float *x = w.a + i * (size_t)m;
    if (f->attn_norm != K_FW_NONE)
        factor = fw_inverse(k_sdot(m, w.z, x) + (float)f->attn_eps);
    for (int e = 0; e < E; e += PANEL) {
        int n = width_at(padded(f), (size_t)e);
        k_sgemm(0, 0, 1, E - e < n ? E - e : n, m, (float)f->scale * factor, x, m, w.W + e * m, n, 0, o + e, E);
    }
    if (f->rule == K_FW_FWM) {
        for (int e = 0; e < E; e++)
            mean += o[e] / (float)E;
        for (int e = 0; e < E; e++)
            square += (o[e] - mean) * (o[e] - mean) / (float)E;
        factor = 1 / sqrtf(square + (float)K_FW_LAYER_NORM_EPS);
        for (int e = 0; e < E; e++)
            o[e] = factor * (o[e] - mean);
    }
    if (s) {
        s->mean[i] = mean;
        s->factor[i] = factor;
    }
}

/* Copies W [m,Dv] of the caller to panels, or panels to it. */
static void repack(const k_fast_weights *f, float *panels, float *dense, int to_dense)
{
    size_t m = (size_t)f->m, D = (size_t)f->Dv, E = padded(f);
    for (size_t e = 0; e < D; e += PANEL) {
        size_t n = (size_t)width_at(E, e), bytes = (D - e < n ? D - e : n) * sizeof(float);
        for (size_t d = 0; d < m; d++) {
            float *p = panels + e * m + d * n, *q = dense + d * D + e;
            memcpy(to_dense ? q : p, to_dense ? p : q, bytes);
        }
    }
}

/* W and z [m] from the caller's; returns |W|^2. */
static float start(const fw_head *a, steps w)
{
    const k_fast_weights *f = a->f;
    size_t m = (size_t)f->m, E = padded(f);
    memset(w.W, 0, m * E * sizeof *w.W);
    memset(w.z, 0, m * sizeof *w.z);
    if (f->state_in)
        repack(f, w.W, (float *)f->state_in + a->index * m * (size_t)f->Dv, 0);
    if (f->z_in && f->attn_norm != K_FW_NONE)
        memcpy(w.z, (const float *)f->z_in + a->index * m, m * sizeof *w.z);
    return k_sdot((int)(m * E), w.W, w.W);
}

/* W and z to the caller. */
static void give(const fw_head *a, float *W, const float *z, void *to_W, void *to_z)
{
    const k_fast_weights *f = a->f;
    size_t m = (size_t)f->m;
    if (to_W)
        repack(f, W, (float *)to_W + a->index * m * (size_t)f->Dv, 1);
    if (to_z)
        memcpy((float *)to_z + a->index * m, z, m * sizeof *z);
}

/* u [E] = beta (v_t - vbar), padded with zeros; returns beta. */
static float written(const fw_head *a, int t, const float *vbar, float *u, size_t E)
{
    const float *v = k_row(a->f->v, a->b, a->h, t);
    float beta = fw_beta(a, t);
    int D = a->f->Dv;
    for (int e = 0; e < D; e++)
        u[e] = beta * (v[e] - vbar[e]);
    memset(u + D, 0, (E - (size_t)D) * sizeof *u);
    return beta;
}

/* Token after token; causal queries read between, others at the end. */
static void forward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    steps w = layout(f, a->scratch);
    kept s = keep(f, a->saved);
    size_t m = (size_t)f->m, E = padded(f), n = queries_of(f);
    load(a, w);
    float square = start(a, w), *recalled = w.y;
    int empty = square == 0;
    write_and_recall(f->m, E, w.W, 1, w.b, w.zero, w.b, recalled);
    for (int t = 0; t < f->Tk; t++) {
        const float *b = w.b + (size_t)t * m, *next = t + 1 < f->Tk ? b + m : b;
        float inv = f->attn_norm == K_FW_FULL ? fw_inverse(k_sdot(f->m, w.z, b) + (float)f->attn_eps) : 1, kappa = 1;
        for (size_t e = 0; e < E; e++)
            w.x[e] = inv * recalled[e];
        written(a, t, w.x, w.u, E);
        float old = square;
        if (f->rule == K_FW_FWM)
            kappa = clip(a, w, b, w.x, &square);
        if (empty && t == 0 && kappa < 1) {             /* the first token of an empty memory is not clipped */
            square = old + k_sdot(f->m, b, b) * k_sdot((int)E, w.u, w.u);
            kappa = 1;
        }
        if (a->saved) {
            memcpy(s.vbar + (size_t)t * E, w.x, E * sizeof *w.x);
            s.kappa[t] = kappa;
            s.inv[t] = inv;
        }
        if (a->saved && t % CHECK == 0) {
            memcpy(s.W + (size_t)(t / CHECK) * m * E, w.W, m * E * sizeof *w.W);
            memcpy(s.z + (size_t)(t / CHECK) * m, w.z, m * sizeof *w.z);
        }
        for (size_t e = 0; e < E; e++)
            w.u[e] *= kappa;
        write_and_recall(f->m, E, w.W, kappa, b, w.u, next, recalled);
        k_saxpy(f->m, 1, b, w.z);
        for (int g = 0; f->causal && g < a->G; g++)
            read_one(a, w, a->saved ? &s : NULL, (size_t)g * (size_t)f->Tq + (size_t)t);
    }
    for (size_t i = 0; !f->causal && i < n; i++)
        read_one(a, w, a->saved ? &s : NULL, i);
    give(a, w.W, w.z, f->state_out, f->z_out);
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* A panel of n lanes: H = kappa (H - b1 x1') + b2 x2', dw = H'b2, rows [m] += H o u, lane by lane. */
static inline __attribute__((always_inline)) void back_panel(int n, int m, lane *H, float kappa, const float *b1, const lane *x1,
                                                             const float *b2, const lane *x2, const lane *u, lane *dw, lane *rows)
{
    lane x1n[2], x2n[2], un[2], sum[2];
    for (int k = 0; k < n; k++) {
        x1n[k] = kappa * x1[k];
        x2n[k] = x2[k];
        un[k] = u[k];
        sum[k] = un[k] * 0;
    }
    for (int d = 0; d < m; d++, H += n) {
        lane row = rows[d];
        for (int k = 0; k < n; k++) {
            lane h = kappa * H[k] - b1[d] * x1n[k] + b2[d] * x2n[k];
            H[k] = h;
            sum[k] += b2[d] * h;
            row += h * un[k];
        }
        rows[d] = row;
    }
    for (int k = 0; k < n; k++)
        dw[k] = sum[k];
}

/* x [m] += factor times the sums of the lanes of rows [m]; eight rows at a time, halved three times over. */
static void add_rows(int m, float factor, const lane *rows, float *x)
{
    int d = 0;
    for (; d + LANE <= m; d += LANE) {
        lane four[4], two[2];
        for (int k = 0; k < 4; k++) {
            lane p = rows[d + 2 * k], q = rows[d + 2 * k + 1];
            four[k] = __builtin_shufflevector(p, q, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(p, q, 1, 9, 3, 11, 5, 13, 7, 15);
        }
        for (int k = 0; k < 2; k++) {
            lane p = four[2 * k], q = four[2 * k + 1];
            two[k] = __builtin_shufflevector(p, q, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(p, q, 2, 3, 10, 11, 6, 7, 14, 15);
        }
        lane sum = __builtin_shufflevector(two[0], two[1], 0, 1, 2, 3, 8, 9, 10, 11) +
                   __builtin_shufflevector(two[0], two[1], 4, 5, 6, 7, 12, 13, 14, 15);
        for (int k = 0; k < LANE; k++)
            x[d + k] += factor * sum[k];
    }
    for (; d < m; d++)
        for (int k = 0; k < LANE; k++)
            x[d] += factor * rows[d][k];
}

/* H = kappa (H - b1 x1') + b2 x2';  dw [E] = H'b2;  product [m] = H u. */
static void back_pass(steps w, int m, size_t E, float kappa, const float *b1, const float *x1, const float *b2,
                      const float *x2, const float *u, float *dw, float *product)
{
    lane *rows = (lane *)w.rows;
    memset(rows, 0, (size_t)m * sizeof *rows);
    for (size_t e = 0; e < E; e += PANEL) {
        lane *H = (lane *)(w.W + e * (size_t)m), *to = (lane *)(dw + e);
        const lane *x1e = (const lane *)(x1 + e), *x2e = (const lane *)(x2 + e), *ue = (const lane *)(u + e);
        if (width_at(E, e) == PANEL)
            back_panel(2, m, H, kappa, b1, x1e, b2, x2e, ue, to, rows);
        else
            back_panel(1, m, H, kappa, b1, x1e, b2, x2e, ue, to, rows);
    }
    memset(product, 0, (size_t)m * sizeof *product);
    add_rows(m, 1, rows, product);
}

/* x [m] += factor W y, y [E]. */
static void matrix_times(steps w, int m, size_t E, float factor, const float *W, const float *y, float *x)
{
    lane *rows = (lane *)w.rows;
    memset(rows, 0, (size_t)m * sizeof *rows);
    for (size_t e = 0; e < E; e += PANEL) {
        const loose_lane *row = (const loose_lane *)(W + e * (size_t)m);
        const lane *ye = (const lane *)(y + e);
        if (width_at(E, e) == PANEL)
            for (int d = 0; d < m; d++, row += 2)
                rows[d] += row[0] * ye[0] + row[1] * ye[1];
        else
            for (int d = 0; d < m; d++, row++)
                rows[d] += row[0] * ye[0];
    }
    add_rows(m, factor, rows, x);
}

/* A stretch of tokens t0.. after a kept W; U and z_before are filled for it. */
typedef struct { const float *W; int t0; } stretch;

/* Makes the stretch at t0 ready. */
static stretch enter(const fw_head *a, steps w, kept s, int t0)
{
    const k_fast_weights *f = a->f;
    size_t m = (size_t)f->m, E = padded(f), c = (size_t)(t0 / CHECK);
    for (int j = 0; j < CHECK && t0 + j < f->Tk; j++) {
        written(a, t0 + j, s.vbar + (size_t)(t0 + j) * E, w.U + (size_t)j * E, E);
        float *z = w.z_before + (size_t)j * m;
        memcpy(z, j ? z - m : s.z + c * m, m * sizeof *z);
        if (j)
            k_saxpy(f->m, 1, w.b + (size_t)(t0 + j - 1) * m, z);
    }
    return (stretch){ s.W + c * m * E, t0 };
}

/* x [m] += factor W y for the W before token t of the stretch, y [E]. */
static void times(const fw_head *a, steps w, kept s, stretch c, int t, float factor, const float *y, float *x)
{
    int m = a->f->m, E = (int)padded(a->f), n = t - c.t0;
    float coefficient[CHECK], left = factor;
    k_sgemm(0, 1, 1, n, E, 1, y, E, w.U, E, 0, coefficient, CHECK);
    for (int j = n - 1; j >= 0; j--) {
        left *= s.kappa[c.t0 + j];
        coefficient[j] *= left;
    }
    k_sgemm(0, 0, 1, m, n, 1, coefficient, CHECK, w.b + (size_t)c.t0 * (size_t)m, m, 1, x, m);
    matrix_times(w, m, (size_t)E, left, c.W, y, x);
}

/* Query i read W before token t (of the stretch or its end): da, H, dz; returns what it adds to p. */
static float read_back(const fw_head *a, steps w, kept s, stretch c, int t, size_t i)
{
    const k_fast_weights *f = a->f;
    int D = f->Dv, m = f->m, h = a->h * a->G + (int)i / f->Tq, r = (int)i % f->Tq;
    const float *g = k_row(f->d_o, a->b, h, r), *o = k_row(f->o, a->b, h, r), *x = w.a + i * (size_t)m;
    float along = k_sdot(D, g, o), *da = w.da + i * (size_t)m, factor = s.factor[i], scale = (float)f->scale, p = 0, mean = 0;
    memset(da, 0, (size_t)m * sizeof *da);
    memset(w.y, 0, padded(f) * sizeof *w.y);
    if (f->rule == K_FW_FWM) {
        for (int e = 0; e < D; e++)
            mean += g[e] / (float)D;
        for (int e = 0; e < D; e++) {
            w.y[e] = factor * (g[e] - mean - o[e] * along / (float)D);
            p += w.y[e] * (s.mean[i] + o[e] / factor);
        }
    } else {
        for (int e = 0; e < D; e++)
            w.y[e] = factor * g[e];
        const float *zb = w.z_before + (size_t)(t - 1 - c.t0) * (size_t)m, *b = w.b + (size_t)(t - 1) * (size_t)m;
        for (int d = 0; d < m; d++)
            da[d] = -factor * along * (zb[d] + b[d]);
        k_saxpy(m, -factor * along, x, w.dz);
    }
    times(a, w, s, c, t, scale, w.y, da);
    for (size_t e = 0; e < padded(f); e += PANEL) {
        int n = width_at(padded(f), e);
        k_sgemm(1, 0, m, n, 1, scale, x, m, w.y + e, n, 1, w.W + e * (size_t)m, n);
    }
    return p;
}

/* Carried from token to token: G = H + theta W, p = <W, G>, and the product b1 x1' that H still lacks. */
typedef struct { float theta, p; const float *b1; } carried;

/* The write of token t. */
static void write_back(const fw_head *a, steps w, kept s, stretch c, int t, carried *g)
{
    const k_fast_weights *f = a->f;
    int D = f->Dv, m = f->m;
    size_t E = padded(f), j = (size_t)(t - c.t0);
    const float *u = w.U + j * E, *vbar = s.vbar + (size_t)t * E, *b = w.b + (size_t)t * (size_t)m, *v = k_row(f->v, a->b, a->h, t);
    float *db = w.db + (size_t)t * (size_t)m, *dw = w.y, *dv = k_row(f->dv, a->b, a->h, t), kappa = s.kappa[t], inv = s.inv[t];
    float beta = fw_beta(a, t), dbeta = 0, dden = 0, inside = kappa < 1 ? 0 : g->p;
    g->theta = kappa * kappa * (g->theta - (kappa < 1 ? g->p : 0));
    for (size_t e = 0; e < E; e++)
        w.u[e] = g->theta * u[e];
    back_pass(w, m, E, kappa, g->b1, w.next, b, w.u, u, dw, db);        /* H', and db = H'u so far */
    for (int e = 0; e < D; e++) {
        dw[e] += g->theta * vbar[e];
        dbeta += dw[e] * (v[e] - vbar[e]);
        inside -= u[e] * dw[e] + beta * dw[e] * vbar[e];
        w.next[e] = inv * beta * dw[e];                                 /* H = H' - b next', in the next pass */
        dden += w.next[e] * vbar[e];
        w.x[e] = g->theta * u[e] - w.next[e];
        if (dv)
            dv[e] = beta * dw[e];
    }
    g->b1 = b;
    g->p = inside;
    times(a, w, s, c, t, 1, w.x, db);
    fw_beta_back(a, t, dbeta);
    if (f->attn_norm == K_FW_FULL) {
        k_saxpy(m, 1, w.dz, db);
        k_saxpy(m, dden, w.z_before + j * (size_t)m, db);
        k_saxpy(m, dden, b, w.dz);
    }
}

/* Stretches from last to first, tokens from last to first. */
static void backward(const fw_head *a)
{
    const k_fast_weights *f = a->f;
    steps w = layout(f, a->scratch);
    kept s = keep(f, a->saved);
    size_t m = (size_t)f->m, E = padded(f), n = queries_of(f), Q = (size_t)f->Tq;
    load(a, w);
    memset(w.W, 0, m * E * sizeof *w.W);
    memset(w.dz, 0, m * sizeof *w.dz);
    memset(w.next, 0, E * sizeof *w.next);
    memset(w.x, 0, E * sizeof *w.x);
    carried g = { 0, 0, w.b };
    for (int t0 = (f->Tk - 1) / CHECK * CHECK; t0 >= 0; t0 -= CHECK) {
        stretch c = enter(a, w, s, t0);
        for (int t = (f->Tk - t0 < CHECK ? f->Tk : t0 + CHECK) - 1; t >= t0; t--) {
            for (size_t i = 0; !f->causal && t == f->Tk - 1 && i < n; i++)
                g.p += read_back(a, w, s, c, t + 1, i);
            for (size_t q = 0; f->causal && q < (size_t)a->G; q++)
                g.p += read_back(a, w, s, c, t + 1, q * Q + (size_t)t);
            write_back(a, w, s, c, t, &g);
        }
        k_saxpy((int)(m * E), g.theta, c.W, w.W);       /* G outlives theta W only if they meet before H loses it */
        g.theta = 0;
    }
    back_pass(w, f->m, E, 1, g.b1, w.next, w.b, w.zero, w.zero, w.y, w.product);    /* the last b next' */
    give(a, w.W, w.dz, f->dstate, f->dz);
    fw_keys_back(a, 0, f->Tk, w.phi, w.b, w.rho, w.db, w.work);
    for (int q = 0; q < a->G; q++) {
        size_t at = (size_t)q * Q;
        fw_queries_back(a, q, 0, f->Tq, w.phi_q + at * m, w.a + at * m, w.rho_q + at, w.da + at * m, w.work);
    }
}

const fw_form fw_steps = { saved, scratch, forward, backward };
