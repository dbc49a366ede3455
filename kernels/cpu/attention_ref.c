/* attention_ref.c - softmax attention over any allowed set in double: the definition, row by row; see flash.h.
 *
 *   o_i = sum_j p_ij v_j,   p_i = softmax over j in A_i of s_ij,   s_ij = scale q_i.k_j - slope_h |p_i - j|
 *   dv_j = sum_i p_ij g_i,   ds_ij = p_ij (g_i.v_j - g_i.o_i),   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i
 *
 * with g = d_o, and q and k turned by their positions before and their gradients turned back after. */
#include "../flash.h"
#include <math.h>
#include <stdlib.h>

typedef struct { double *K, *dK, *q, *dq, *s, *kv; } work;    /* [Tk,Dk] [Tk,Dk] [Dk] [Dk] [Tk] [Tk,Dk+Dv] */

/* Parts of the scratch. */
static work work_of(const k_attention *a)
{
    size_t keys = (size_t)a->Tk * (size_t)a->Dk, D = (size_t)a->Dk;
    double *at = a->scratch;
    return (work){ at, at + keys, at + 2 * keys, at + 2 * keys + D, at + 2 * keys + 2 * D, at + 2 * keys + 2 * D + a->Tk };
}

size_t k_dattention_scratch(const k_attention *a)
{
    size_t T = (size_t)a->Tk, D = (size_t)a->Dk;
    return 2 * D * (T + 1) + T + T * (D + (size_t)a->Dv);
}

/* x.y of n elements. */
static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * y[d];
    return sum;
}

/* K [Tk,Dk] = the keys of (b, key head h), turned by their positions. */
static void load_keys(const k_attention *a, int b, int h, double *K)
{
    int D = a->Dk;
    for (int j = 0; j < a->Tk; j++) {
        memcpy(K + (size_t)j * D, k_drow(a->k, b, h, j), (size_t)D * sizeof *K);
        k_rope_row_f64(a->position, D, 1, j, K + (size_t)j * D);
    }
}

/* q [Dk] = query i, turned; s [Tk] = its scores, -inf where it does not see the key; returns how many it sees. */
static int scores(const k_attention *a, int b, int h, int i, work w)
{
    int n = 0, pos = i + a->Tk - a->Tq;
    double slope = k_alibi_slope(a->position, h, a->Hq);
    memcpy(w.q, k_drow(a->q, b, h, i), (size_t)a->Dk * sizeof *w.q);
    k_rope_row_f64(a->position, a->Dk, 1, pos, w.q);
    for (int j = 0; j < a->Tk; j++) {
        w.s[j] = -INFINITY;
        if ((a->klen && j >= a->klen[b]) || !a->sees(a->options, a->mask.causal, h, pos, j))
            continue;
        w.s[j] = a->scale * dot(a->Dk, w.q, w.K + (size_t)j * a->Dk) - slope * abs(pos - j);
        n++;
    }
    return n;
}

/* o_i of one row; returns the log-sum-exp. */
static double forward_row(const k_attention *a, int b, int h, int i, work w)
{
    int n = scores(a, b, h, i, w);
    double *o = k_drow(a->o, b, h, i), top = -INFINITY, sum = 0;
    memset(o, 0, (size_t)a->Dv * sizeof *o);
    if (n == 0)
        return -INFINITY;
    for (int j = 0; j < a->Tk; j++)
        top = fmax(top, w.s[j]);
    for (int j = 0; j < a->Tk; j++)
        sum += exp(w.s[j] - top);
    double lse = top + log(sum);
    for (int j = 0; j < a->Tk; j++) {
        const double *v = k_drow(a->v, b, h * a->Hk / a->Hq, j);
        for (int d = 0; d < a->Dv && w.s[j] > -INFINITY; d++)
            o[d] += exp(w.s[j] - lse) * v[d];
    }
    return lse;
}

/* Row by row; the log-sum-exp is kept when wanted. */
void k_dattention_forward(const k_attention *a)
{
    work w = work_of(a);
    double *lse = a->lse;
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) {
        load_keys(a, b, h * a->Hk / a->Hq, w.K);
        for (int i = 0; i < a->Tq; i++) {
            double l = forward_row(a, b, h, i, w);
            if (lse)
                lse[((size_t)b * (size_t)a->Hq + (size_t)h) * (size_t)a->Tq + (size_t)i] = l;
        }
    }
}

/* x [B,H,T,D] = 0, if wanted. */
static void zero(k_heads x, int B, int H, int T, int D)
{
    for (int b = 0; x.p && b < B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        memset(k_drow(x, b, h, t), 0, (size_t)D * sizeof(double));
}

/* Row i of dq, and what it adds to dK and dv. */
static void backward_row(const k_attention *a, int b, int h, int i, work w)
{
    int D = a->Dk, hk = h * a->Hk / a->Hq;
    double lse = ((const double *)a->lse)[((size_t)b * (size_t)a->Hq + (size_t)h) * (size_t)a->Tq + (size_t)i];
    const double *g = k_drow(a->d_o, b, h, i);
    double delta = dot(a->Dv, g, k_drow(a->o, b, h, i));
    scores(a, b, h, i, w);
    memset(w.dq, 0, (size_t)D * sizeof *w.dq);
    for (int j = 0; j < a->Tk; j++) {
        if (w.s[j] == -INFINITY)
            continue;
        double p = exp(w.s[j] - lse), ds = a->scale * p * (dot(a->Dv, g, k_drow(a->v, b, hk, j)) - delta);
        for (int d = 0; d < D; d++) {
            w.dq[d] += ds * w.K[(size_t)j * D + d];
            w.dK[(size_t)j * D + d] += ds * w.q[d];
        }
        for (int d = 0; a->dv.p && d < a->Dv; d++)
            k_drow(a->dv, b, hk, j)[d] += p * g[d];
    }
    if (!a->dq.p)
        return;
    k_rope_row_f64(a->position, D, -1, i + a->Tk - a->Tq, w.dq);
    memcpy(k_drow(a->dq, b, h, i), w.dq, (size_t)D * sizeof *w.dq);
}

/* Row by row; dK is gathered per query head and turned back before it is added to dk. */
void k_dattention_backward(const k_attention *a)
{
    int D = a->Dk;
    work w = work_of(a);
    zero(a->dk, a->B, a->Hk, a->Tk, D);
    zero(a->dv, a->B, a->Hk, a->Tk, a->Dv);
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++) {
        load_keys(a, b, h * a->Hk / a->Hq, w.K);
        memset(w.dK, 0, (size_t)a->Tk * (size_t)D * sizeof *w.dK);
        for (int i = 0; i < a->Tq; i++)
            backward_row(a, b, h, i, w);
        for (int j = 0; a->dk.p && j < a->Tk; j++) {
            k_rope_row_f64(a->position, D, -1, j, w.dK + (size_t)j * D);
            for (int d = 0; d < D; d++)
                k_drow(a->dk, b, h * a->Hk / a->Hq, j)[d] += w.dK[(size_t)j * D + d];
        }
    }
}

/* The rows of a decode state [B,Hk,rows,Dk+Dv]: its keys, or its values (at: Dk). */
static k_heads held(const k_attention *a, void *state, int64_t rows, int at)
{
    int64_t width = a->Dk + a->Dv;
    return (k_heads){ (double *)state + at, rows * width * a->Hk, rows * width, width };
}

/* Row of the state that holds key j while the query is at p: keys of older blocks are in the summary columns. */
static int64_t row_of(const k_mask *m, int capacity, int64_t p, int64_t j)
{
    int old = m->kind == K_MASK_FIXED && j / m->length < p / m->length;
    return old ? k_mask_summary_row(m, capacity, j) : k_mask_row(m, capacity, j);
}

/* One head of the token at position p: the sequence as far as the state holds it, zeros where the query does not
 * look, and the definition's row. */
static void decode_row(const k_attention *a, k_heads k, k_heads v, int b, int h, int i, int64_t p, int capacity)
{
    int hk = h * a->Hk / a->Hq, D = a->Dk, width = D + a->Dv;
    k_attention t = *a;
    work w = work_of(a);
    t.Tk = (int)p + 1;
    t.Tq = 1;
    t.q.p = k_drow(a->q, 0, 0, i);
    t.o.p = k_drow(a->o, 0, 0, i);
    memset(w.kv, 0, (size_t)t.Tk * (size_t)width * sizeof *w.kv);
    for (int64_t j = 0; j <= p; j++) {
        if (!a->sees(a->options, 1, h, p, j))
            continue;
        int64_t row = row_of(&a->mask, capacity, p, j);
        memcpy(w.kv + j * width, k_drow(k, b, hk, row), (size_t)D * sizeof *w.kv);
        memcpy(w.kv + j * width + D, k_drow(v, b, hk, row), (size_t)a->Dv * sizeof *w.kv);
    }
    t.k = (k_heads){ w.kv, 0, 0, width };
    t.v = (k_heads){ w.kv + D, 0, 0, width };
    load_keys(&t, b, hk, w.K);
    forward_row(&t, b, h, 0, w);
}

/* Token by token: into the state, then one row per head. */
void k_dattention_decode(const k_attention *a, void *state, int64_t pos, int capacity)
{
    int64_t rows = k_mask_rows(&a->mask, capacity);
    k_heads k = held(a, state, rows, 0), v = held(a, state, rows, a->Dk);
    k_attention room = *a;                                  /* scratch is cut for the capacity */
    room.Tk = capacity;
    for (int i = 0; i < a->Tq; i++) {
        int64_t p = pos + i, at[2] = { k_mask_row(&a->mask, capacity, p), k_mask_summary_row(&a->mask, capacity, p) };
        for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hk; h++) for (int n = 0; n < 2; n++) {
            if (at[n] < 0)
                continue;
            memcpy(k_drow(k, b, h, at[n]), k_drow(a->k, b, h, i), (size_t)a->Dk * sizeof(double));
            memcpy(k_drow(v, b, h, at[n]), k_drow(a->v, b, h, i), (size_t)a->Dv * sizeof(double));
        }
        for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hq; h++)
            decode_row(&room, k, v, b, h, i, p, capacity);
    }
}
