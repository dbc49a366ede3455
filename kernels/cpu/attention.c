/* attention.c - softmax attention over batch rows and heads: passes, rotation, sharing of key heads, threads,
 * decoding; see flash.h.
 *
 * Threads take shares of queries forward and whole key heads backward, with all query heads that share one, so that
 * no sum is split between threads.  How the work is cut does not depend on how many threads there are. */
#include "../flash.h"
#include <math.h>

enum { SHARE = 512 };

/* Floats of the turned q [B,Hq,Tq,Dk], of the turned k [B,Hk,Tk,Dk] and of the angles [Tq or Tk,r]; 0 without rope. */
typedef struct { size_t q, k, table; } turned;

/* Sizes for this problem. */
static turned turned_of(const k_attention *a)
{
    size_t r = (size_t)k_rope_width(a->position, a->Dk), rows = (size_t)a->B * (size_t)a->Dk;
    if (!r)
        return (turned){ 0, 0, 0 };
    return (turned){ rows * (size_t)a->Hq * (size_t)a->Tq, rows * (size_t)a->Hk * (size_t)a->Tk,
                     r * (size_t)(a->Tq > a->Tk ? a->Tq : a->Tk) };
}

/* Room for what is turned, and for the log-sum-exp when nobody wants to keep it. */
size_t k_attention_scratch(const k_attention *a)
{
    turned n = turned_of(a);
    return n.q + n.k + n.table + (size_t)a->B * (size_t)a->Hq * (size_t)a->Tq;
}

/* to [B,H,T,Dk] = from, turned by the positions first .. first + T - 1; sign -1: back.  to may be from. */
static void turn(const k_attention *a, int sign, int H, int T, int64_t first, k_heads from, k_heads to)
{
    turned n = turned_of(a);
    int D = a->Dk, r = k_rope_width(a->position, D);
    float *table = (float *)a->scratch + n.q + n.k;
    if (!r || !from.p)
        return;
    k_rope_table(a->position, D, first, T, table);
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < a->B; b++) for (int h = 0; h < H; h++) for (int t = 0; t < T; t++)
        k_rope_row_f32(a->position, D, sign, table + (size_t)t * (size_t)r, k_row(to, b, h, t), k_row(from, b, h, t));
}

/* The same problem with q and k turned, in scratch. */
static k_attention turn_inputs(const k_attention *a)
{
    turned n = turned_of(a);
    k_attention t = *a;
    if (!n.table)
        return t;
    int64_t D = a->Dk;
    float *room = a->scratch;
    t.q = (k_heads){ room, a->Hq * a->Tq * D, a->Tq * D, D };
    turn(a, 1, a->Hq, a->Tq, a->Tk - a->Tq, a->q, t.q);
    if (!a->keys_turned) {
        t.k = (k_heads){ room + n.q, a->Hk * a->Tk * D, a->Tk * D, D };
        turn(a, 1, a->Hk, a->Tk, 0, a->k, t.k);
    }
    return t;
}

/* Queries and keys of head h of batch row b. */
static k_scope scope(const k_attention *a, int b, int h)
{
    int keys = a->klen && a->klen[b] < a->Tk ? a->klen[b] : a->Tk;
    return (k_scope){ .first = a->Tk - a->Tq, .Tq = a->Tq, .keys = keys, .head = h };
}

/* The log-sum-exp of query head h of batch row b. */
static float *lse_of(const k_attention *a, int b, int h)
{
    turned n = turned_of(a);
    float *lse = a->lse ? a->lse : (float *)a->scratch + n.q + n.k + n.table;
    return lse + ((size_t)b * (size_t)a->Hq + (size_t)h) * (size_t)a->Tq;
}

/* A pass of head h of batch row b; its keys are those of the tensors k and v. */
static k_flash problem(const k_attention *a, int b, int h, const k_pass *pass)
{
    int hk = h * a->Hk / a->Hq;
    int64_t i = pass->q0 - (a->Tk - a->Tq);
    return (k_flash){
        .pass = *pass, .Dk = a->Dk, .Dv = a->Dv,
        .scale = (float)a->scale, .slope = (float)k_alibi_slope(a->position, h, a->Hq),
        .q = k_row(a->q, b, h, i), .ldq = a->q.st * pass->qstep,
        .k = k_row(a->k, b, hk, pass->k0), .ldk = a->k.st * pass->kstep,
        .v = k_row(a->v, b, hk, pass->k0), .ldv = a->v.st * pass->kstep,
        .o = k_row(a->o, b, h, i), .ldo = a->o.st * pass->qstep, .lse = lse_of(a, b, h) + i, .ldl = pass->qstep
    };
}

/* Queries that one thread takes at a time: whole tiles; all of a strided set, whose columns go through the sequence. */
static int share(const k_attention *a) { return a->mask.kind == K_MASK_STRIDED ? a->Tq : SHARE; }

/* No key yet: outputs 0, weights 0, for the n queries from i0 on. */
static void begin(const k_attention *a, int b, int h, int i0, int n)
{
    float *lse = lse_of(a, b, h);
    for (int i = i0; i < i0 + n; i++) {
        lse[i] = -INFINITY;
        memset(k_row(a->o, b, h, i), 0, (size_t)a->Dv * sizeof(float));
    }
}

/* The queries from i0 on of one head, pass by pass. */
static void forward_share(const k_attention *t, int b, int h, int i0)
{
    k_scope s = scope(t, b, h);
    s.first += i0;
    s.Tq = s.Tq - i0 < share(t) ? s.Tq - i0 : share(t);
    begin(t, b, h, i0, s.Tq);
    for (int64_t n = 0, passes = k_mask_passes(&t->mask, &s); n < passes; n++) {
        k_pass pass = k_mask_pass(&t->mask, &s, n);
        if (pass.nq == 0 || pass.nk == 0)
            continue;
        k_flash f = problem(t, b, h, &pass);
        k_flash_forward(&f);
    }
}

/* Turns, then attends share by share: one long sequence has work for every thread. */
void k_attention_forward(const k_attention *a)
{
    k_attention t = turn_inputs(a);
    int step = share(&t);
    #pragma omp parallel for collapse(3) schedule(dynamic) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < t.B; b++) for (int h = 0; h < t.Hq; h++) for (int i0 = 0; i0 < t.Tq; i0 += step)
        forward_share(&t, b, h, i0);
}

/* One query head, pass by pass; dk and dv are added to. */
static void backward_head(const k_attention *t, int b, int h)
{
    int hk = h * t->Hk / t->Hq;
    k_scope s = scope(t, b, h);
    k_rows_zero(t->dq, b, h, t->Tq, t->Dk);
    for (int64_t n = 0, passes = k_mask_passes(&t->mask, &s); n < passes; n++) {
        k_pass pass = k_mask_pass(&t->mask, &s, n);
        if (pass.nq == 0 || pass.nk == 0)
            continue;
        k_flash f = problem(t, b, h, &pass);
        int64_t i = pass.q0 - s.first;
        f.d_o = k_row(t->d_o, b, h, i);
        f.lddo = t->d_o.st * pass.qstep;
        f.dq = k_row(t->dq, b, h, i);
        f.lddq = t->dq.st * pass.qstep;
        f.dk = k_row(t->dk, b, hk, pass.k0);
        f.lddk = t->dk.st * pass.kstep;
        f.dv = k_row(t->dv, b, hk, pass.k0);
        f.lddv = t->dv.st * pass.kstep;
        k_flash_backward(&f);
    }
}

/* Turns, goes back head by head, turns the gradients back. */
void k_attention_backward(const k_attention *a)
{
    int group = a->Hq / a->Hk;
    k_attention t = turn_inputs(a);
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < t.B; b++) for (int hk = 0; hk < t.Hk; hk++) {
        k_rows_zero(t.dk, b, hk, t.Tk, t.Dk);
        k_rows_zero(t.dv, b, hk, t.Tk, t.Dv);
        for (int h = hk * group; h < (hk + 1) * group; h++)
            backward_head(&t, b, h);
    }
    turn(a, -1, a->Hq, a->Tq, a->Tk - a->Tq, a->dq, a->dq);
    turn(a, -1, a->Hk, a->Tk, 0, a->dk, a->dk);
}

/* ---- decoding --------------------------------------------------------------------------------------------- */

/* The rows of a decode state from row on: its keys, or its values (at: Dk). */
static k_heads held(const k_attention *a, void *state, int64_t rows, int64_t row, int at)
{
    int64_t width = a->Dk + a->Dv;
    return (k_heads){ (float *)state + row * width + at, rows * width * a->Hk, rows * width, width };
}

/* Writes the T rows of k, turned by their positions from pos on, and of v into the state from row on. */
static void append(const k_attention *a, void *state, int64_t rows, int64_t row, int64_t pos)
{
    k_heads k = held(a, state, rows, row, 0), v = held(a, state, rows, row, a->Dk);
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hk; h++) for (int t = 0; t < a->Tk; t++) {
        memcpy(k_row(k, b, h, t), k_row(a->k, b, h, t), (size_t)a->Dk * sizeof(float));
        memcpy(k_row(v, b, h, t), k_row(a->v, b, h, t), (size_t)a->Dv * sizeof(float));
    }
    turn(a, 1, a->Hk, a->Tk, pos, k, k);
}

/* One query head over what it sees of a pass, which may go round the end of the ring. */
static void decode_pass(const k_attention *a, int b, int h, k_heads k, k_heads v, int capacity, k_pass pass)
{
    k_span seen = k_pass_span(&pass, 0);
    int64_t ring = k_mask_ring(&a->mask, capacity);
    int hk = h * a->Hk / a->Hq;
    for (int n = seen.from, count; n < seen.to; n += count) {
        int64_t j = pass.k0 + n * pass.kstep, row, step = 1;
        count = seen.to - n;
        if (pass.summary) {
            row = k_mask_summary_row(&a->mask, capacity, j);
            step = (int64_t)a->mask.summary_len * a->mask.summary_slots;
        } else {
            row = k_mask_row(&a->mask, capacity, j);
            count = count < ring - row ? count : (int)(ring - row);
        }
        k_pass part = { .q0 = pass.q0, .qstep = 1, .k0 = j, .kstep = pass.kstep, .nq = 1, .nk = count, .to = { 0, K_FAR } };
        k_flash f = problem(a, b, h, &part);
        f.k = k_row(k, b, hk, row);
        f.v = k_row(v, b, hk, row);
        f.ldk = k.st * step;
        f.ldv = v.st * step;
        k_flash_forward(&f);
    }
}

/* One token at position p: a->Tq and a->Tk are 1. */
static void decode_token(const k_attention *a, void *state, int64_t p, int capacity)
{
    int64_t rows = k_mask_rows(&a->mask, capacity), summary = k_mask_summary_row(&a->mask, capacity, p);
    append(a, state, rows, k_mask_row(&a->mask, capacity, p), p);
    if (summary >= 0)
        append(a, state, rows, summary, p);
    k_attention t = *a;
    t.keys_turned = 1;
    t.Tk = (int)p + 1;                                      /* the query's place among the positions */
    t = turn_inputs(&t);
    k_heads k = held(a, state, rows, 0, 0), v = held(a, state, rows, 0, a->Dk);
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < t.B; b++) for (int h = 0; h < t.Hq; h++) {
        k_scope s = scope(&t, b, h);
        begin(&t, b, h, 0, 1);
        for (int64_t n = 0, passes = k_mask_passes(&t.mask, &s); n < passes; n++) {
            k_pass pass = k_mask_pass(&t.mask, &s, n);
            if (pass.nq && pass.nk)
                decode_pass(&t, b, h, k, v, capacity, pass);
        }
    }
}

/* All at once when every key is held; else a token's key may be gone before the next token's query. */
void k_attention_decode(const k_attention *a, void *state, int64_t pos, int capacity)
{
    k_attention t = *a;
    t.Tk = a->Tq;
    if (a->mask.kind == K_MASK_ALL || a->mask.kind == K_MASK_STRIDED) {
        append(&t, state, capacity, pos, pos);
        t.keys_turned = 1;
        t.Tk = (int)pos + a->Tq;
        t.k = held(a, state, capacity, 0, 0);
        t.v = held(a, state, capacity, 0, a->Dk);
        k_attention_forward(&t);
        return;
    }
    t.Tq = t.Tk = 1;
    for (int i = 0; i < a->Tq; i++) {
        t.q.p = k_row(a->q, 0, 0, i);
        t.k.p = k_row(a->k, 0, 0, i);
        t.v.p = k_row(a->v, 0, 0, i);
        t.o.p = k_row(a->o, 0, 0, i);
        decode_token(&t, state, pos + i, capacity);
    }
}
