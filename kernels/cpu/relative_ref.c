/* relative.h in double: the definition, pair by pair. */
#include "../relative.h"
#include <math.h>

/* Room for the weights of one row. */
size_t k_drelative_scratch(const k_relative *a, int backward)
{
    (void)backward;
    return (size_t)a->Tk * sizeof(double);
}

/* x.y of n elements. */
static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * y[d];
    return sum;
}

/* Row of table [Hq or 1,rows,D] for head h, query position p and key j; NULL: zeros, or no table. */
static double *vector(const k_relative *a, const void *table, int D, int h, int p, int j)
{
    int r = k_relative_row(a, (int64_t)j - p + a->distance - 1);
    return table && r >= 0 ? (double *)table + ((size_t)(a->shared ? 0 : h) * (size_t)a->rows + (size_t)r) * (size_t)D : NULL;
}

/* w [Tk] = the weights of query i over the keys *first up to, not including, the result. */
static int weights(const k_relative *a, int b, int h, int i, int *first, double *w)
{
    int p = i + a->Tk - a->Tq, end = k_relative_reach(a, p, first);
    const double *q = k_drow(a->q, b, h, i);
    double top = -INFINITY, sum = 0;
    for (int j = *first; j < end; j++) {
        const double *E = vector(a, a->E, a->Dk, h, p, j);
        w[j] = a->scale * (dot(a->Dk, q, k_drow(a->k, b, h * a->Hk / a->Hq, j)) + (E ? dot(a->Dk, q, E) : 0));
        top = fmax(top, w[j]);
    }
    for (int j = *first; j < end; j++)
        sum += w[j] = exp(w[j] - top);
    for (int j = *first; j < end; j++)
        w[j] /= sum;
    return end;
}

/* Row by row. */
void k_drelative_forward(const k_relative *a)
{
    double *w = a->scratch;
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) for (int i = 0; i < a->Tq; i++) {
        int first, end = weights(a, b, h, i, &first, w);
        double *o = k_drow(a->o, b, h, i);
        memset(o, 0, (size_t)a->Dv * sizeof *o);
        for (int j = first; j < end; j++) {
            const double *v = k_drow(a->v, b, h * a->Hk / a->Hq, j), *F = vector(a, a->F, a->Dv, h, i + a->Tk - a->Tq, j);
            for (int d = 0; d < a->Dv; d++)
                o[d] += w[j] * (v[d] + (F ? F[d] : 0));
        }
    }
}

/* y [n] += s x [n], where both are there. */
static void add(int n, double s, const double *x, double *y)
{
    for (int d = 0; x && y && d < n; d++)
        y[d] += s * x[d];
}

/* Row i of dq, and what it adds to everything else. */
static void backward_row(const k_relative *a, int b, int h, int i)
{
    double *w = a->scratch;
    int hk = h * a->Hk / a->Hq, p = i + a->Tk - a->Tq, first, end = weights(a, b, h, i, &first, w);
    const double *g = k_drow(a->d_o, b, h, i), *q = k_drow(a->q, b, h, i);
    double delta = dot(a->Dv, g, k_drow(a->o, b, h, i)), *dq = k_drow(a->dq, b, h, i);
    for (int j = first; j < end; j++) {
        const double *E = vector(a, a->E, a->Dk, h, p, j), *F = vector(a, a->F, a->Dv, h, p, j);
        double gv = dot(a->Dv, g, k_drow(a->v, b, hk, j)) + (F ? dot(a->Dv, g, F) : 0), ds = a->scale * w[j] * (gv - delta);
        add(a->Dk, ds, k_drow(a->k, b, hk, j), dq);
        add(a->Dk, ds, E, dq);
        add(a->Dk, ds, q, k_drow(a->dk, b, hk, j));
        add(a->Dk, ds, q, vector(a, a->dE, a->Dk, h, p, j));
        add(a->Dv, w[j], g, k_drow(a->dv, b, hk, j));
        add(a->Dv, w[j], g, vector(a, a->dF, a->Dv, h, p, j));
    }
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(k_heads x, int B, int H, int T, int D)
{
    for (int b = 0; x.p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(k_drow(x, b, h, t), 0, (size_t)D * sizeof(double));
}

/* Row by row. */
void k_drelative_backward(const k_relative *a)
{
    zero(a->dq, a->B, a->Hq, a->Tq, a->Dk);
    zero(a->dk, a->B, a->Hk, a->Tk, a->Dk);
    zero(a->dv, a->B, a->Hk, a->Tk, a->Dv);
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) for (int i = 0; i < a->Tq; i++)
        backward_row(a, b, h, i);
}
