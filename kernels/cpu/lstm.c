/* lstm.c - kernels/lstm.h: tokens go by in chunks, whose gates [CHUNK, rows, 4D] stay in the cache.
 *
 * Backward computes the gates of a chunk again: h_(t-1) is known from o, so this is two matrix products; only
 * dh_(t-1) = da_t w_h walks token by token. */
#include "kernels/lstm.h"
#include "kernels/cpu.h"
#include <omp.h>
#include <string.h>

enum { GROUP = 8, CHUNK = 16, SLOTS = 16 };     /* rows of a unit, tokens of a chunk, threads that have scratch */

typedef struct unit {
    const k_lstm *p;
    int h, b0, n;                       /* head, first row of the batch, rows */
    const float *w_x, *w_h, *bias;      /* of the head */
    float *gates, *before, *hidden, *cell, *tmp;        /* [CHUNK,n,4D] [CHUNK,n,D] [n,D] [n,D] [2,D] */
    float *dw_x, *dw_h, *dbias;         /* [4D,D] [4D,D] [4D] of this unit alone */
} unit;

/* ---- units --------------------------------------------------------------------------------------------- */

/* Groups of rows of the batch; threads that have scratch. */
static int groups(const k_lstm *p) { return (p->B + GROUP - 1) / GROUP; }
static int slots(const k_lstm *p) { return p->H * groups(p) < SLOTS ? p->H * groups(p) : SLOTS; }

/* Floats that one thread works in, and of the gradients of the weights of one unit. */
static size_t work_size(const k_lstm *p) { return ((size_t)CHUNK * GROUP * 5 + 2 * GROUP + 2) * (size_t)p->D; }
static size_t weight_size(const k_lstm *p) { return 4 * (size_t)p->D * (2 * (size_t)p->D + 1); }

/* Work of the threads, and in backward the units' gradients of the weights. */
size_t k_lstm_scratch(const k_lstm *p, int backward)
{
    return slots(p) * work_size(p) + (backward ? (size_t)p->H * (size_t)groups(p) * weight_size(p) : 0);
}

/* Unit number at, with the scratch of a slot. */
static unit unit_at(const k_lstm *p, int at, int slot)
{
    size_t D = (size_t)p->D, square = 4 * D * D;
    int h = at / groups(p), b0 = at % groups(p) * GROUP;
    float *w = p->scratch + (size_t)slot * work_size(p), *d = p->scratch + slots(p) * work_size(p) + (size_t)at * weight_size(p);
    return (unit){ .p = p, .h = h, .b0 = b0, .n = p->B - b0 < GROUP ? p->B - b0 : GROUP,
                   .w_x = p->w_x + (size_t)h * square, .w_h = p->w_h + (size_t)h * square, .bias = p->bias + (size_t)h * 4 * D,
                   .gates = w, .before = w + CHUNK * GROUP * 4 * D, .hidden = w + CHUNK * GROUP * 5 * D,
                   .cell = w + (CHUNK * 5 + 1) * GROUP * D, .tmp = w + (CHUNK * 5 + 2) * GROUP * D,
                   .dw_x = d, .dw_h = d + square, .dbias = d + 2 * square };
}

/* Runs f on every unit. */
static void each_unit(const k_lstm *p, void (*f)(const unit *))
{
    int threads = p->threads < slots(p) ? p->threads : slots(p), units = p->H * groups(p);
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int at = 0; at < units; at++) {
        unit u = unit_at(p, at, omp_get_thread_num());
        f(&u);
    }
}

/* Row of an array [B,H,D] of states, and of one [B,H,T,D] of cells. */
static size_t state_at(const unit *u, int i) { return ((size_t)(u->b0 + i) * u->p->H + u->h) * (size_t)u->p->D; }
static float *cell_at(const unit *u, int i, int t) { return u->p->cells + state_at(u, i) * (size_t)u->p->T + (size_t)t * u->p->D; }

/* dst[D] = row i of an array of states, or 0. */
static void load_state(const unit *u, const float *from, int i, float *dst)
{
    size_t bytes = (size_t)u->p->D * sizeof *dst;
    if (from) memcpy(dst, from + state_at(u, i), bytes);
    else memset(dst, 0, bytes);
}

/* ---- gates ------------------------------------------------------------------------------------------------ */

/* gates[nt,n,4D] = bias + w_x x of tokens t0..t0+nt-1. */
static void input_products(const unit *u, int t0, int nt)
{
    const k_lstm *p = u->p;
    int W = 4 * p->D;
    for (int r = 0; r < nt * u->n; r++) memcpy(u->gates + (size_t)r * W, u->bias, (size_t)W * sizeof(float));
    for (int i = 0; i < u->n; i++)
        k_sgemm(0, 1, nt, W, p->D, 1, k_row(p->x, u->b0 + i, u->h, t0), (int)p->x.st, u->w_x, p->D, 1, u->gates + (size_t)i * W, u->n * W);
}

/* a[4D] becomes sigmoid, sigmoid, tanh, sigmoid. */
static void activate(int D, float *a)
{
    k_ssigmoid(2 * D, a, a);
    k_stanh(D, a + 2 * D, a + 2 * D);
    k_ssigmoid(D, a + 3 * D, a + 3 * D);
}

/* One token of one row: c[D] and h[D] move on; a[4D] holds the gates before activation. */
static void step(int D, float *restrict a, float *restrict c, float *restrict h)
{
    activate(D, a);
    for (int d = 0; d < D; d++) c[d] = a[D + d] * c[d] + a[d] * a[2 * D + d];
    k_stanh(D, h, c);
    for (int d = 0; d < D; d++) h[d] *= a[3 * D + d];
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

/* Token t of all rows. */
static void forward_token(const unit *u, int t, float *a)
{
    const k_lstm *p = u->p;
    int D = p->D;
    size_t bytes = (size_t)D * sizeof(float);
    k_sgemm(0, 1, u->n, 4 * D, D, 1, u->hidden, D, u->w_h, D, 1, a, 4 * D);
    for (int i = 0; i < u->n; i++) {
        float *c = u->cell + (size_t)i * D, *h = u->hidden + (size_t)i * D;
        step(D, a + (size_t)i * 4 * D, c, h);
        memcpy(k_row(p->o, u->b0 + i, u->h, t), h, bytes);
        if (p->cells) memcpy(cell_at(u, i, t), c, bytes);
    }
}

/* All tokens of a unit. */
static void forward_unit(const unit *u)
{
    const k_lstm *p = u->p;
    size_t D = (size_t)p->D, bytes = D * sizeof(float);
    for (int i = 0; i < u->n; i++) {
        load_state(u, p->h0, i, u->hidden + i * D);
        load_state(u, p->c0, i, u->cell + i * D);
    }
    for (int t0 = 0; t0 < p->T; t0 += CHUNK) {
        int nt = p->T - t0 < CHUNK ? p->T - t0 : CHUNK;
        input_products(u, t0, nt);
        for (int t = 0; t < nt; t++) forward_token(u, t0 + t, u->gates + (size_t)t * u->n * 4 * D);
    }
    for (int i = 0; i < u->n; i++) {
        if (p->hT) memcpy(p->hT + state_at(u, i), u->hidden + i * D, bytes);
        if (p->cT) memcpy(p->cT + state_at(u, i), u->cell + i * D, bytes);
    }
}

/* o, hT and cT. */
void k_lstm_forward(const k_lstm *p) { each_unit(p, forward_unit); }

/* ---- backward --------------------------------------------------------------------------------------------------- */

/* before[nt,n,D] = h_(t-1), and the gates of the chunk once more. */
static void recompute(const unit *u, int t0, int nt)
{
    const k_lstm *p = u->p;
    int D = p->D, rows = nt * u->n;
    for (int r = 0; r < rows; r++) {
        int t = t0 + r / u->n, i = r % u->n;
        if (t == 0) load_state(u, p->h0, i, u->before + (size_t)r * D);
        else memcpy(u->before + (size_t)r * D, k_row(p->o, u->b0 + i, u->h, t - 1), (size_t)D * sizeof(float));
    }
    input_products(u, t0, nt);
    k_sgemm(0, 1, rows, 4 * D, D, 1, u->before, D, u->w_h, D, 1, u->gates, 4 * D);
    for (int r = 0; r < rows; r++) activate(D, u->gates + (size_t)r * 4 * D);
}

/* One token of one row: a[4D], the gates, become da; dc[D] moves on to c_(t-1); c0 is c_(t-1), tc tanh(c_t). */
static void step_backward(int D, const float *restrict g, const float *restrict dh, const float *restrict c0, const float *restrict tc,
                          float *restrict a, float *restrict dc)
{
    #pragma omp simd
    for (int d = 0; d < D; d++) {
        float i = a[d], f = a[D + d], z = a[2 * D + d], o = a[3 * D + d], y = g[d] + dh[d];
        float e = dc[d] + y * o * (1 - tc[d] * tc[d]);
        a[d] = e * z * i * (1 - i);
        a[D + d] = e * c0[d] * f * (1 - f);
        a[2 * D + d] = e * i * (1 - z * z);
        a[3 * D + d] = y * tc[d] * o * (1 - o);
        dc[d] = e * f;
    }
}

/* Token t of all rows: the gates a[n,4D] become da, hidden and cell hold dh and dc. */
static void backward_token(const unit *u, int t, float *a)
{
    const k_lstm *p = u->p;
    size_t D = (size_t)p->D;
    float *tanh_c = u->tmp, *initial = u->tmp + D;
    for (int i = 0; i < u->n; i++) {
        if (t == 0) load_state(u, p->c0, i, initial);
        k_stanh(p->D, tanh_c, cell_at(u, i, t));
        step_backward(p->D, k_row(p->d_o, u->b0 + i, u->h, t), u->hidden + i * D, t ? cell_at(u, i, t - 1) : initial, tanh_c,
                      a + i * 4 * D, u->cell + i * D);
    }
    k_sgemm(0, 0, u->n, p->D, 4 * p->D, 1, a, 4 * p->D, u->w_h, p->D, 0, u->hidden, p->D);
}

/* What the da of a chunk, gates[nt,n,4D], give to x and to the weights with it. */
static void input_gradients(const unit *u, int t0, int nt)
{
    const k_lstm *p = u->p;
    int D = p->D, W = 4 * D;
    for (int i = 0; i < u->n; i++) {
        const float *da = u->gates + (size_t)i * W;
        float *dx = k_row(p->dx, u->b0 + i, u->h, t0);
        if (dx) k_sgemm(0, 0, nt, D, W, 1, da, u->n * W, u->w_x, D, 0, dx, (int)p->dx.st);
        if (p->dw_x) k_sgemm(1, 0, W, D, nt, 1, da, u->n * W, k_row(p->x, u->b0 + i, u->h, t0), (int)p->x.st, 1, u->dw_x, D);
    }
    for (int r = 0; r < nt * u->n; r++) k_saxpy(W, 1, u->gates + (size_t)r * W, u->dbias);
}

/* All tokens of a unit, from the last to the first. */
static void backward_unit(const unit *u)
{
    const k_lstm *p = u->p;
    int D = p->D;
    size_t bytes = (size_t)D * sizeof(float);
    memset(u->dw_x, 0, weight_size(p) * sizeof(float));
    memset(u->hidden, 0, (size_t)u->n * bytes);
    memset(u->cell, 0, (size_t)u->n * bytes);
    for (int t0 = (p->T - 1) / CHUNK * CHUNK; t0 >= 0; t0 -= CHUNK) {
        int nt = p->T - t0 < CHUNK ? p->T - t0 : CHUNK, rows = nt * u->n;
        recompute(u, t0, nt);
        for (int t = nt - 1; t >= 0; t--) backward_token(u, t0 + t, u->gates + (size_t)t * u->n * 4 * D);
        if (p->dw_h) k_sgemm(1, 0, 4 * D, D, rows, 1, u->gates, 4 * D, u->before, D, 1, u->dw_h, D);
        input_gradients(u, t0, nt);
    }
    for (int i = 0; i < u->n; i++) {
        if (p->dh0) memcpy(p->dh0 + state_at(u, i), u->hidden + (size_t)i * D, bytes);
        if (p->dc0) memcpy(p->dc0 + state_at(u, i), u->cell + (size_t)i * D, bytes);
    }
}

/* Then the units' gradients of the weights, in order. */
void k_lstm_backward(const k_lstm *p)
{
    int D = p->D, square = 4 * D * D;
    each_unit(p, backward_unit);
    for (int at = 0; at < p->H * groups(p); at++) {
        unit u = unit_at(p, at, 0);
        size_t h = (size_t)u.h;
        if (p->dw_x) k_saxpy(square, 1, u.dw_x, p->dw_x + h * (size_t)square);
        if (p->dw_h) k_saxpy(square, 1, u.dw_h, p->dw_h + h * (size_t)square);
        if (p->dbias) k_saxpy(4 * D, 1, u.dbias, p->dbias + h * 4 * (size_t)D);
    }
}
