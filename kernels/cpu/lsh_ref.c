/* lsh.h in double: the definition, pair by pair. */
#include "../lsh.h"
#include <math.h>

typedef struct { double *k, *dk, *rho, *p, *place; } work;      /* [T,Dk] [T,Dk] [T] [T] [rounds,T] */

/* Parts of the scratch. */
static work work_of(const k_lsh *p)
{
    size_t T = (size_t)p->T, D = (size_t)p->Dk;
    double *at = p->scratch;
    return (work){ at, at + T * D, at + 2 * T * D, at + 2 * T * D + T, at + 2 * T * (D + 1) };
}

/* Room for one (batch row, head). */
size_t k_dlsh_scratch(const k_lsh *p, int backward)
{
    (void)backward;
    return (size_t)p->T * (2 * ((size_t)p->Dk + 1) + (size_t)p->rounds) * sizeof(double);
}

/* x.y of n elements. */
static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * y[d];
    return sum;
}

/* The bucket of x [Dk]: per factor the index of the largest of [y; -y], y = x rotation. */
static int32_t bucket_of(const k_lsh *p, const double *x, const double *rotation)
{
    int columns = (p->factor[0] + p->factor[1]) / 2, unit = 1;
    int32_t bucket = 0;
    for (int f = 0; f < 2 && p->factor[f]; unit *= p->factor[f], rotation += p->factor[f] / 2, f++) {
        double best = -INFINITY;
        int half = p->factor[f] / 2, arg = 0;
        for (int a = 0; a < 2 * half; a++) {
            double y = 0;
            for (int d = 0; d < p->Dk; d++)
                y += x[d] * rotation[(size_t)d * (size_t)columns + (size_t)(a % half)];
            y = a < half ? y : -y;
            if (y > best)
                best = y, arg = a;
        }
        bucket += unit * arg;
    }
    return bucket;
}

/* The buckets of (b, h) in round r, or NULL. */
static int32_t *buckets_of(const k_lsh *p, int b, int h, int r)
{
    return p->bucket ? p->bucket + (((size_t)b * (size_t)p->H + (size_t)h) * (size_t)p->rounds + (size_t)r) * (size_t)p->capacity : NULL;
}

/* Token by token. */
void k_dlsh_hash(const k_lsh *p, const void *rotations, int from)
{
    size_t round = (size_t)p->Dk * (size_t)((p->factor[0] + p->factor[1]) / 2);
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++) for (int r = 0; r < p->rounds; r++)
        for (int t = from; t < p->T; t++)
            buckets_of(p, b, h, r)[t] = bucket_of(p, k_drow(p->k, b, h, t), (const double *)rotations + (size_t)(h * p->rounds + r) * round);
}

/* Keys, and the place of every token in every round. */
static void load(const k_lsh *p, int b, int h, work w)
{
    int T = p->T, D = p->Dk;
    for (int t = 0; t < T; t++) {
        const double *x = k_drow(p->k, b, h, t);
        w.rho[t] = sqrt(dot(D, x, x) + D * p->key_eps);
        for (int d = 0; d < D; d++)
            w.k[(size_t)t * D + d] = w.rho[t] > 0 ? x[d] / w.rho[t] : 0;
    }
    for (int r = 0; r < p->rounds; r++) {
        const int32_t *bucket = buckets_of(p, b, h, r);
        double *place = w.place + (size_t)r * T;
        for (int t = 0; t < T; t++) {
            place[t] = bucket ? 0 : t;
            for (int other = 0; bucket && other < T; other++)
                place[t] += bucket[other] < bucket[t] || (other < t && bucket[other] == bucket[t]);
        }
    }
}

/* How often i meets j in all rounds. */
static int meetings(const k_lsh *p, int b, int h, work w, int i, int j)
{
    int chunks = (p->T + p->chunk - 1) / p->chunk, all = chunks * p->rounds, n = 0;
    if (p->causal && j > i)
        return 0;
    for (int r = 0; r < p->rounds; r++) {
        const int32_t *bucket = buckets_of(p, b, h, r);
        int alike = p->across || bucket[i] == bucket[j];
        int mine = r * chunks + (int)w.place[(size_t)r * p->T + i] / p->chunk;
        int its = r * chunks + (int)w.place[(size_t)r * p->T + j] / p->chunk;
        int before = mine % chunks ? mine - 1 : p->wrap ? (mine + all - 1) % all : -1;
        n += its == mine && alike;
        if (before < 0)
            continue;
        int other = before / chunks;
        its = other * chunks + (int)w.place[(size_t)other * p->T + j] / p->chunk;
        n += its == before && alike && (p->across || other == r);
    }
    return p->dedup && n > 1 ? 1 : n;
}

/* p [T] = the weights of token i: a pair that meets n times has ln n more, the token itself 1e5 less. */
static void weights(const k_lsh *p, int b, int h, int i, work w)
{
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < p->T; j++) {
        double s = p->scale * dot(p->Dk, k_drow(p->q, b, h, i - p->first), w.k + (size_t)j * p->Dk);
        w.p[j] = s - (j == i ? 1e5 : 0) + log(meetings(p, b, h, w, i, j));
        top = fmax(top, w.p[j]);
    }
    for (int j = 0; j < p->T; j++)
        sum += w.p[j] = exp(w.p[j] - top);
    for (int j = 0; j < p->T; j++)
        w.p[j] /= sum;
}

/* Token by token. */
void k_dlsh_forward(const k_lsh *p)
{
    work w = work_of(p);
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++) {
        load(p, b, h, w);
        for (int i = p->first; i < p->T; i++) {
            double *o = k_drow(p->o, b, h, i - p->first);
            weights(p, b, h, i, w);
            for (int d = 0; d < p->Dv; d++) {
                o[d] = 0;
                for (int j = 0; j < p->T; j++)
                    o[d] += w.p[j] * k_drow(p->v, b, h, j)[d];
            }
        }
    }
}

/* The query role of row i of dq, and what the row adds to dk and dv. */
static void backward_row(const k_lsh *p, int b, int h, int i, work w)
{
    const double *g = k_drow(p->d_o, b, h, i), *q = k_drow(p->q, b, h, i);
    double delta = dot(p->Dv, g, k_drow(p->o, b, h, i));
    weights(p, b, h, i, w);
    for (int j = 0; j < p->T; j++) {
        double ds = p->scale * w.p[j] * (dot(p->Dv, g, k_drow(p->v, b, h, j)) - delta);
        for (int d = 0; p->dq.p && d < p->Dk; d++) {
            w.dk[(size_t)j * p->Dk + d] += ds * q[d];
            k_drow(p->dq, b, h, i)[d] += ds * w.k[(size_t)j * p->Dk + d];
        }
        for (int d = 0; p->dv.p && d < p->Dv; d++)
            k_drow(p->dv, b, h, j)[d] += w.p[j] * g[d];
    }
}

/* Token by token, then the key role. */
void k_dlsh_backward(const k_lsh *p)
{
    work w = work_of(p);
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++) {
        load(p, b, h, w);
        memset(w.dk, 0, (size_t)p->T * (size_t)p->Dk * sizeof *w.dk);
        for (int t = 0; t < p->T; t++) {
            if (p->dq.p)
                memset(k_drow(p->dq, b, h, t), 0, (size_t)p->Dk * sizeof(double));
            if (p->dv.p)
                memset(k_drow(p->dv, b, h, t), 0, (size_t)p->Dv * sizeof(double));
        }
        for (int i = 0; i < p->T; i++)
            backward_row(p, b, h, i, w);
        for (int j = 0; p->dq.p && j < p->T; j++) {
            const double *k = w.k + (size_t)j * p->Dk, *dk = w.dk + (size_t)j * p->Dk;
            double along = dot(p->Dk, k, dk);
            for (int d = 0; w.rho[j] > 0 && d < p->Dk; d++)
                k_drow(p->dq, b, h, j)[d] += (dk[d] - k[d] * along) / w.rho[j];
        }
    }
}
