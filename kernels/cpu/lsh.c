/* lsh.c - see lsh.h.
 *
 * A unit is one (batch row, head).  Chunks are numbered through all rounds, g = round * chunks + chunk, and places
 * through all rounds, round * T + place.  walk() visits every tile of queries with every tile of keys that it
 * reaches; forward and backward are what they do when a tile of queries begins, meets keys, and ends. */
#include "../lsh.h"
#include "../cpu.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { TILE = 64 };

typedef struct tile { int n, round, least, most; int32_t token[TILE]; } tile;   /* least, most: of the tokens */

typedef struct unit {
    const k_lsh *p;
    int b, h;
    const int32_t *bucket;              /* [rounds,capacity] */
    int32_t *order, *chunk_of, *spare;  /* [rounds,T] token at a place; [rounds,T] g of a token; [T] */
    float *top, *sum;                   /* [T] running maximum and sum (backward: lse, delta) */
    float *q, *k, *v, *o, *dk, *dv;     /* [TILE,Dk] [TILE,Dk] [TILE,Dv] [TILE,Dv] [TILE,Dk] [TILE,Dv] gathered rows */
    float *dkeys;                       /* [T,Dk] gradient of the normed keys */
    tile queries, keys;
} unit;

/* The smaller one. */
static int least(int a, int b) { return a < b ? a : b; }
/* Chunks of a round. */
static int chunks_of(const k_lsh *p) { return (p->T + p->chunk - 1) / p->chunk; }
/* Columns of a round's rotations. */
static int columns_of(const k_lsh *p) { return (p->factor[0] + p->factor[1]) / 2; }

/* Numbers of four bytes that a unit needs. */
static size_t unit_size(const k_lsh *p, int backward)
{
    size_t T = (size_t)p->T, D = (size_t)p->Dk, V = (size_t)p->Dv, R = (size_t)p->rounds;
    return 2 * R * T + 3 * T + TILE * (3 * D + 3 * V) + (backward ? T * D : 0);
}

/* Room for every unit, or for the products of hashing. */
size_t k_slsh_scratch(const k_lsh *p, int backward)
{
    size_t attend = unit_size(p, backward), hash = TILE * (size_t)columns_of(p);
    return (size_t)p->B * (size_t)p->H * (attend > hash ? attend : hash) * sizeof(float);
}

/* ---- hashing --------------------------------------------------------------------------------------------- */

/* The index of the largest of [y; -y], y [half] in double; the lowest of equal ones. */
static int decide(const k_lsh *p, const float *x, const float *rotation, int half)
{
    double plus = -INFINITY, minus = -INFINITY;
    int at_plus = 0, at_minus = 0, columns = columns_of(p);
    for (int c = 0; c < half; c++) {
        double y = 0;
        for (int d = 0; d < p->Dk; d++)
            y += (double)x[d] * (double)rotation[(size_t)d * (size_t)columns + (size_t)c];
        if (y > plus)
            plus = y, at_plus = c;
        if (-y > minus)
            minus = -y, at_minus = c;
    }
    return plus >= minus ? at_plus : half + at_minus;
}

/* The same from y in float, -1 when the two largest lie within margin. */
static int decide_quickly(const float *y, int half, float margin)
{
    float best = -1, second = -1;
    int at = 0;
    for (int c = 0; c < half; c++) {
        float a = fabsf(y[c]);
        second = a > best ? best : a > second ? a : second;
        at = a > best ? c : at;
        best = a > best ? a : best;
    }
    if (half == 1)
        second = -best;
    return best - second > margin ? at + (y[at] < 0 ? half : 0) : -1;
}

/* The bucket of x [Dk], whose products with the columns are y in float, each off by less than half the margin. */
static int32_t bucket_of(const k_lsh *p, const float *x, const float *rotation, const float *y, float margin)
{
    int32_t bucket = 0, unit = 1;
    for (int f = 0, column = 0; f < 2 && p->factor[f]; f++) {
        int half = p->factor[f] / 2, a = decide_quickly(y + column, half, margin);
        bucket += unit * (a >= 0 ? a : decide(p, x, rotation + column, half));
        unit *= p->factor[f];
        column += half;
    }
    return bucket;
}

/* The longest column of rotation [D,columns]; y [columns] is room. */
static float longest(int D, int columns, const float *rotation, float *y)
{
    memset(y, 0, (size_t)columns * sizeof *y);
    for (int d = 0; d < D; d++)
        for (int c = 0; c < columns; c++)
            y[c] += rotation[(size_t)d * (size_t)columns + (size_t)c] * rotation[(size_t)d * (size_t)columns + (size_t)c];
    return sqrtf(k_smax(columns, y));
}

/* One round of one head: tokens from .. T - 1 to bucket [capacity]; y [TILE,columns] is room. */
static void hash_round(const k_lsh *p, int b, int h, const float *rotation, int from, float *y, int32_t *bucket)
{
    int columns = columns_of(p);
    float bound = 2 * (float)(p->Dk + 2) * FLT_EPSILON * longest(p->Dk, columns, rotation, y);
    for (int t0 = from; t0 < p->T; t0 += TILE) {
        int n = least(TILE, p->T - t0);
        k_sgemm(0, 0, n, columns, p->Dk, 1, k_row(p->k, b, h, t0), (int)p->k.st, rotation, columns, 0, y, columns);
        for (int i = 0; i < n; i++) {
            const float *x = k_row(p->k, b, h, t0 + i);
            float margin = bound * sqrtf(k_sdot(p->Dk, x, x)) + FLT_MIN;
            bucket[t0 + i] = bucket_of(p, x, rotation, y + (size_t)i * (size_t)columns, margin);
        }
    }
}

/* All heads. */
void k_slsh_hash(const k_lsh *p, const void *rotations, int from)
{
    size_t columns = (size_t)columns_of(p);
    #pragma omp parallel for collapse(2) num_threads(p->threads) if (p->threads > 1)
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++)
        for (int r = 0; r < p->rounds; r++) {
            size_t bh = (size_t)b * (size_t)p->H + (size_t)h, hr = (size_t)h * (size_t)p->rounds + (size_t)r;
            hash_round(p, b, h, (const float *)rotations + hr * (size_t)p->Dk * columns, from, (float *)p->scratch + bh * TILE * columns,
                       p->bucket + (bh * (size_t)p->rounds + (size_t)r) * (size_t)p->capacity);
        }
}

/* ---- order ----------------------------------------------------------------------------------------------- */

/* order [T] = 0 .. T - 1 by bucket [T], none of them negative; equal ones stay in order. */
static void sort_tokens(int T, const int32_t *bucket, int32_t *order, int32_t *spare)
{
    uint32_t most = 0;
    for (int t = 0; t < T; t++) {
        order[t] = t;
        most |= (uint32_t)bucket[t];
    }
    for (int shift = 0; shift < 32 && most >> shift; shift += 8) {
        int32_t start[257] = { 0 };
        for (int t = 0; t < T; t++)
            start[(bucket[t] >> shift & 255) + 1]++;
        for (int digit = 0; digit < 256; digit++)
            start[digit + 1] += start[digit];
        for (int t = 0; t < T; t++)
            spare[start[bucket[order[t]] >> shift & 255]++] = order[t];
        memcpy(order, spare, (size_t)T * sizeof *order);
    }
}

/* The unit (b, h): its parts of the scratch and the order of every round. */
static void unit_init(unit *u, const k_lsh *p, int b, int h, int backward)
{
    size_t T = (size_t)p->T, D = (size_t)p->Dk, V = (size_t)p->Dv, R = (size_t)p->rounds, bh = (size_t)b * (size_t)p->H + (size_t)h;
    float *at = (float *)p->scratch + bh * unit_size(p, backward);
    *u = (unit){ .p = p, .b = b, .h = h, .bucket = p->bucket ? p->bucket + bh * R * (size_t)p->capacity : NULL };
    u->order = (void *)at, u->chunk_of = u->order + R * T, u->spare = u->chunk_of + R * T;
    u->top = at + 2 * R * T + T, u->sum = u->top + T;
    u->q = u->sum + T, u->k = u->q + TILE * D, u->dk = u->k + TILE * D;
    u->v = u->dk + TILE * D, u->o = u->v + TILE * V, u->dv = u->o + TILE * V;
    u->dkeys = backward ? u->dv + TILE * V : NULL;
    for (size_t r = 0; r < R; r++) {
        int32_t *order = u->order + r * T;
        for (int t = 0; !u->bucket && t < p->T; t++)
            order[t] = t;
        if (u->bucket)
            sort_tokens(p->T, u->bucket + r * (size_t)p->capacity, order, u->spare);
        for (int t = 0; t < p->T; t++)
            u->chunk_of[r * T + (size_t)order[t]] = (int32_t)r * chunks_of(p) + t / p->chunk;
    }
}

/* ---- who meets whom ---------------------------------------------------------------------------------------- */

/* The chunk before chunk g, -1: none. */
static int before(const k_lsh *p, int g)
{
    int chunks = chunks_of(p);
    return g % chunks ? g - 1 : !p->wrap ? -1 : g ? g - 1 : chunks * p->rounds - 1;
}

/* Takes up to TILE tokens, none below first, from chunk g, of which *next are done; 0 when there are none left. */
static int take(const unit *u, int g, int first, int *next, tile *t)
{
    const k_lsh *p = u->p;
    int chunks = chunks_of(p), from = g % chunks * p->chunk, n = least(p->chunk, p->T - from);
    const int32_t *order = u->order + (size_t)(g / chunks) * (size_t)p->T + from;
    t->n = 0, t->round = g / chunks, t->least = p->T, t->most = -1;
    for (; *next < n && t->n < TILE; (*next)++) {
        int token = order[*next];
        if (token < first)
            continue;
        t->token[t->n++] = token;
        t->least = token < t->least ? token : t->least;
        t->most = token > t->most ? token : t->most;
    }
    return t->n > 0;
}

/* The bucket of a token in a round. */
static int32_t bucket_at(const unit *u, int round, int32_t token) { return u->bucket[(int64_t)round * u->p->capacity + token]; }

/* Scores s [keys.n] of query i become -inf where it does not see the key. */
static void mask(const unit *u, int i, float *s)
{
    const tile *keys = &u->keys;
    int32_t me = u->queries.token[i];
    for (int j = 0; j < keys->n; j++) {
        int seen = u->p->causal ? keys->token[j] < me : keys->token[j] != me;
        s[j] = seen ? s[j] : -INFINITY;
    }
    for (int j = 0; !u->p->across && j < keys->n; j++)
        if (bucket_at(u, keys->round, keys->token[j]) != bucket_at(u, u->queries.round, me))
            s[j] = -INFINITY;
}

/* w [keys.n] divided by the number of times that query i meets the key in all rounds; not seen: as it comes. */
static void share(const unit *u, int i, float *w)
{
    const k_lsh *p = u->p;
    int32_t me = u->queries.token[i];
    int count[TILE] = { 0 };
    for (int r = 0; r < p->rounds; r++) {
        const int32_t *own = u->chunk_of + (size_t)r * (size_t)p->T;
        int g = own[me], back = before(p, g), other = back < 0 ? r : back / chunks_of(p);
        const int32_t *there = u->chunk_of + (size_t)other * (size_t)p->T;
        for (int j = 0; j < u->keys.n; j++) {
            int32_t token = u->keys.token[j];
            int alike = p->across || bucket_at(u, r, token) == bucket_at(u, r, me);
            count[j] += (own[token] == g && alike) + (there[token] == back && alike && (p->across || other == r));
        }
    }
    for (int j = 0; j < u->keys.n; j++)
        w[j] /= count[j] ? (float)count[j] : 1;
}

typedef struct pass { void (*begin)(unit *), (*meet)(unit *), (*end)(unit *); } pass;

/* Every tile of queries, one after another, with every tile of keys that it reaches. */
static void walk(unit *u, const pass *pass)
{
    const k_lsh *p = u->p;
    for (int g = 0; g < chunks_of(p) * p->rounds; g++)
        for (int i = 0; take(u, g, p->first, &i, &u->queries);) {
            const int reach[2] = { g, before(p, g) };
            pass->begin(u);
            for (int s = 0; s < 2 && reach[s] >= 0; s++)
                for (int j = 0; take(u, reach[s], 0, &j, &u->keys);)
                    if ((p->across || u->keys.round == u->queries.round) && !(p->causal && u->keys.least >= u->queries.most))
                        pass->meet(u);
            pass->end(u);
        }
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

/* to [n,D] = rows of the tokens of t, less `first`. */
static void gather(const unit *u, const tile *t, k_heads from, int first, int D, float *to)
{
    for (int i = 0; i < t->n; i++)
        memcpy(to + (size_t)i * (size_t)D, k_row(from, u->b, u->h, t->token[i] - first), (size_t)D * sizeof *to);
}

/* 1 / rho of x [Dk], 0 of a zero. */
static float inverse_length(const k_lsh *p, const float *x)
{
    float square = k_sdot(p->Dk, x, x) + (float)(p->Dk * p->key_eps);
    return square > 0 ? 1 / sqrtf(square) : 0;
}

/* Rows of the tile's keys and values, and the scores S [queries.n,TILE]. */
static void scores(unit *u, float *S)
{
    const k_lsh *p = u->p;
    gather(u, &u->keys, p->v, 0, p->Dv, u->v);
    for (int j = 0; j < u->keys.n; j++) {
        const float *x = k_row(p->k, u->b, u->h, u->keys.token[j]);
        float inverse = inverse_length(p, x), *k = u->k + (size_t)j * (size_t)p->Dk;
        for (int d = 0; d < p->Dk; d++)
            k[d] = inverse * x[d];
    }
    k_sgemm(0, 1, u->queries.n, u->keys.n, p->Dk, (float)p->scale, u->q, p->Dk, u->k, p->Dk, 0, S, TILE);
    for (int i = 0; i < u->queries.n; i++)
        mask(u, i, S + i * TILE);
}

/* Queries, and the outputs so far. */
static void forward_begin(unit *u)
{
    gather(u, &u->queries, u->p->q, u->p->first, u->p->Dk, u->q);
    gather(u, &u->queries, u->p->o, u->p->first, u->p->Dv, u->o);
}

/* Scores s of query i become weights under the running maximum and sum; its output comes under the new maximum. */
static void online(unit *u, int i, float *s)
{
    int32_t me = u->queries.token[i];
    int n = u->keys.n, Dv = u->p->Dv;
    float top = fmaxf(u->top[me], k_smax(n, s)), keep = expf(u->top[me] - top), *o = u->o + (size_t)i * (size_t)Dv;
    if (top == -INFINITY) {
        memset(s, 0, (size_t)n * sizeof *s);
        return;
    }
    float part = k_sexp_sum(n, s, s, top);
    if (u->p->dedup) {
        share(u, i, s);
        part = 0;
        for (int j = 0; j < n; j++)
            part += s[j];
    }
    for (int d = 0; keep != 1 && d < Dv; d++)
        o[d] *= keep;
    u->sum[me] = u->sum[me] * keep + part;
    u->top[me] = top;
}

/* One more tile of keys. */
static void forward_meet(unit *u)
{
    float S[TILE * TILE];
    int Dv = u->p->Dv;
    scores(u, S);
    for (int i = 0; i < u->queries.n; i++)
        online(u, i, S + i * TILE);
    k_sgemm(0, 0, u->queries.n, Dv, u->keys.n, 1, S, TILE, u->v, Dv, 1, u->o, Dv);
}

/* Outputs go back to their places. */
static void forward_end(unit *u)
{
    for (int i = 0; i < u->queries.n; i++)
        memcpy(k_row(u->p->o, u->b, u->h, u->queries.token[i] - u->p->first), u->o + (size_t)i * (size_t)u->p->Dv,
               (size_t)u->p->Dv * sizeof *u->o);
}

/* One unit: all rounds, then the quotients. */
static void forward_unit(unit *u)
{
    static const pass FORWARD = { forward_begin, forward_meet, forward_end };
    const k_lsh *p = u->p;
    for (int t = p->first; t < p->T; t++) {
        u->top[t] = -INFINITY;
        u->sum[t] = 0;
        memset(k_row(p->o, u->b, u->h, t - p->first), 0, (size_t)p->Dv * sizeof(float));
    }
    walk(u, &FORWARD);
    for (int t = p->first; t < p->T; t++) {
        float *o = k_row(p->o, u->b, u->h, t - p->first), sum = u->sum[t];
        for (int d = 0; sum > 0 && d < p->Dv; d++)
            o[d] /= sum;
        if (!(sum > 0))
            memcpy(o, k_row(p->v, u->b, u->h, t), (size_t)p->Dv * sizeof *o);
        if (p->lse)
            p->lse[((size_t)u->b * (size_t)p->H + (size_t)u->h) * (size_t)p->T + (size_t)t] = sum > 0 ? u->top[t] + logf(sum) : -INFINITY;
    }
}

/* All units. */
void k_slsh_forward(const k_lsh *p)
{
    #pragma omp parallel for collapse(2) num_threads(p->threads) if (p->threads > 1)
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++) {
        unit u;
        unit_init(&u, p, b, h, 0);
        forward_unit(&u);
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* Queries, and the gradients of their outputs. */
static void backward_begin(unit *u)
{
    gather(u, &u->queries, u->p->q, 0, u->p->Dk, u->q);
    gather(u, &u->queries, u->p->d_o, 0, u->p->Dv, u->o);
}

/* P [n,TILE]: scores to weights; dS [n,TILE]: g.v to the gradient of the scores.  top is the lse, sum is delta. */
static void gradients(unit *u, float *P, float *dS)
{
    for (int i = 0; i < u->queries.n; i++) {
        int32_t me = u->queries.token[i];
        float *p = P + i * TILE, *ds = dS + i * TILE;
        if (u->top[me] == -INFINITY)
            memset(p, 0, (size_t)u->keys.n * sizeof *p);
        else
            k_sexp_sum(u->keys.n, p, p, u->top[me]);
        if (u->p->dedup)
            share(u, i, p);
        for (int j = 0; j < u->keys.n; j++)
            ds[j] = (float)u->p->scale * p[j] * (ds[j] - u->sum[me]);
    }
}

/* One more tile of keys. */
static void backward_meet(unit *u)
{
    const k_lsh *p = u->p;
    float P[TILE * TILE], dS[TILE * TILE];
    int nq = u->queries.n, nk = u->keys.n, D = p->Dk, V = p->Dv;
    scores(u, P);
    k_sgemm(0, 1, nq, nk, V, 1, u->o, V, u->v, V, 0, dS, TILE);
    gradients(u, P, dS);
    if (p->dq.p) {
        k_sgemm(0, 0, nq, D, nk, 1, dS, TILE, u->k, D, 0, u->dk, D);
        for (int i = 0; i < nq; i++)
            k_saxpy(D, 1, u->dk + (size_t)i * (size_t)D, k_row(p->dq, u->b, u->h, u->queries.token[i]));
        k_sgemm(1, 0, nk, D, nq, 1, dS, TILE, u->q, D, 0, u->dk, D);
        for (int j = 0; j < nk; j++)
            k_saxpy(D, 1, u->dk + (size_t)j * (size_t)D, u->dkeys + (size_t)u->keys.token[j] * (size_t)D);
    }
    if (p->dv.p) {
        k_sgemm(1, 0, nk, V, nq, 1, P, TILE, u->o, V, 0, u->dv, V);
        for (int j = 0; j < nk; j++)
            k_saxpy(V, 1, u->dv + (size_t)j * (size_t)V, k_row(p->dv, u->b, u->h, u->keys.token[j]));
    }
}

/* Nothing is left to do for a tile of queries. */
static void backward_end(unit *u) { (void)u; }

/* Through the norm of the keys, x / |x|: dq += (dk - k (k.dk)) / |x|.  A token that saw itself alone copied its value. */
static void backward_finish(unit *u)
{
    const k_lsh *p = u->p;
    for (int t = 0; t < p->T; t++) {
        if (p->dq.p) {
            const float *x = k_row(p->k, u->b, u->h, t);
            float *dk = u->dkeys + (size_t)t * (size_t)p->Dk, inverse = inverse_length(p, x), along = inverse * k_sdot(p->Dk, x, dk);
            k_saxpy(p->Dk, -along * inverse, x, dk);
            k_saxpy(p->Dk, inverse, dk, k_row(p->dq, u->b, u->h, t));
        }
        if (p->dv.p && u->top[t] == -INFINITY)
            k_saxpy(p->Dv, 1, k_row(p->d_o, u->b, u->h, t), k_row(p->dv, u->b, u->h, t));
    }
}

/* One unit, with the weights back from the log-sum-exp. */
static void backward_unit(unit *u)
{
    static const pass BACKWARD = { backward_begin, backward_meet, backward_end };
    const k_lsh *p = u->p;
    k_rows_zero(p->dq, u->b, u->h, p->T, p->Dk);
    k_rows_zero(p->dv, u->b, u->h, p->T, p->Dv);
    memset(u->dkeys, 0, (size_t)p->T * (size_t)p->Dk * sizeof *u->dkeys);
    for (int t = 0; t < p->T; t++) {
        u->top[t] = p->lse[((size_t)u->b * (size_t)p->H + (size_t)u->h) * (size_t)p->T + (size_t)t];
        u->sum[t] = k_sdot(p->Dv, k_row(p->d_o, u->b, u->h, t), k_row(p->o, u->b, u->h, t));
    }
    walk(u, &BACKWARD);
    backward_finish(u);
}

/* All units. */
void k_slsh_backward(const k_lsh *p)
{
    #pragma omp parallel for collapse(2) num_threads(p->threads) if (p->threads > 1)
    for (int b = 0; b < p->B; b++) for (int h = 0; h < p->H; h++) {
        unit u;
        unit_init(&u, p, b, h, 1);
        backward_unit(&u);
    }
}
