/* attention.c - softmax attention over batch rows and heads: passes, rotation, sharing of key heads, threads,
 * decoding; see flash.h.
 *
 * Forward, threads take shares of queries.  Backward, they take key heads with all query heads that share one, and where
 * key heads are few, chunks of their keys: dk and dv of a chunk belong to one thread, and chunks add to dq in their order,
 * one waiting for the other.  So no sum is split between threads, nothing is kept twice, and how the work is cut does not
 * depend on how many threads there are. */
#include "../flash.h"
#include <math.h>
#include <sched.h>
#include <stdatomic.h>

enum { SHARE = 192, CHUNK = 192, ITEMS = 16 };     /* queries, least number of keys, key heads or chunks that are enough */

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

/* Queries that one thread takes at a time; of a strided set, whose columns go through the sequence, so many that a
 * column has enough of them. */
static int share(const k_attention *a)
{
    int64_t n = a->mask.kind == K_MASK_STRIDED ? (int64_t)a->mask.length * SHARE / 2 : SHARE;
    return n < a->Tq ? (int)n : a->Tq;
}

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

/* A part of backward that one thread does: a key head, or a chunk of its keys. */
typedef struct {
    int b, hk, key, keys;               /* the keys key .. key + keys - 1 */
    atomic_int *done;                   /* steps that this part has done, after those of the chunks before */
    int before;                         /* chunks before */
} part;

/* The keys of a pass that are in the part. */
static k_pass restrict_pass(k_pass pass, const part *w)
{
    int64_t skip = w->key > pass.k0 ? (w->key - pass.k0 + pass.kstep - 1) / pass.kstep : 0;
    pass.k0 += skip * pass.kstep;
    int64_t left = pass.nk - skip, here = (w->key + w->keys - pass.k0 + pass.kstep - 1) / pass.kstep;
    pass.nk = left < here ? (int)left : (int)here;
    return pass;
}

/* Whether any query of a pass sees a key of it. */
static int has_work(const k_pass *pass)
{
    for (int i = 0; i < pass->nq && pass->nk > 0; i++)
        if (k_pass_span(pass, i).to)
            return 1;
    return 0;
}

/* Waits until the chunks before have done what they add in this step. */
static void await(const part *w, int step)
{
    for (int n = 1; n <= w->before; n++)
        while (atomic_load_explicit(w->done - n, memory_order_acquire) <= step)
            sched_yield();
}

/* One step: the queries from i0 on of one head, pass by pass; the part of the first keys begins dq. */
static void backward_share(const k_attention *t, const part *w, int step, int h, int i0)
{
    k_scope s = scope(t, w->b, h);
    s.first += i0;
    s.Tq = s.Tq - i0 < share(t) ? s.Tq - i0 : share(t);
    for (int i = i0; w->key == 0 && t->dq.p && i < i0 + s.Tq; i++)
        memset(k_row(t->dq, w->b, h, i), 0, (size_t)t->Dk * sizeof(float));
    for (int64_t n = 0, passes = k_mask_passes(&t->mask, &s); n < passes; n++) {
        k_pass all = k_mask_pass(&t->mask, &s, n), pass = restrict_pass(all, w);
        if (!has_work(&pass))
            continue;
        await(w, step);
        k_flash f = problem(t, w->b, h, &pass);
        int64_t i = pass.q0 - (t->Tk - t->Tq);
        f.d_o = k_row(t->d_o, w->b, h, i);
        f.lddo = t->d_o.st * pass.qstep;
        f.dq = k_row(t->dq, w->b, h, i);
        f.lddq = t->dq.st * pass.qstep;
        f.dk = k_row(t->dk, w->b, w->hk, pass.k0);
        f.lddk = t->dk.st * pass.kstep;
        f.dv = k_row(t->dv, w->b, w->hk, pass.k0);
        f.lddv = t->dv.st * pass.kstep;
        k_flash_backward(&f);
    }
}

/* All queries of the heads that share the part's keys, the last ones first: they see most. */
static void backward_part(const k_attention *t, const part *w)
{
    int group = t->Hq / t->Hk, size = share(t), step = 0;
    for (int j = w->key; j < w->key + w->keys; j++) {
        if (t->dk.p)
            memset(k_row(t->dk, w->b, w->hk, j), 0, (size_t)t->Dk * sizeof(float));
        if (t->dv.p)
            memset(k_row(t->dv, w->b, w->hk, j), 0, (size_t)t->Dv * sizeof(float));
    }
    for (int h = w->hk * group; h < (w->hk + 1) * group; h++)
        for (int i0 = (t->Tq - 1) / size * size; i0 >= 0; i0 -= size) {
            backward_share(t, w, step, h, i0);
            if (w->done)
                atomic_store_explicit(w->done, ++step, memory_order_release);
        }
}

/* Turns, goes back part by part, turns the gradients back.  Parts are begun in order, so that one never waits for a part
 * that nobody has begun. */
void k_attention_backward(const k_attention *a)
{
    k_attention t = turn_inputs(a);
    int heads = a->B * a->Hk, chunks = (ITEMS + heads - 1) / heads, most = (a->Tk + CHUNK - 1) / CHUNK;
    chunks = chunks < most ? chunks : most;
    int size = (a->Tk + chunks - 1) / chunks;
    atomic_int done[2 * ITEMS] = { 0 }, next = 0;
    #pragma omp parallel num_threads(a->threads) if (a->threads > 1)
    for (int n; (n = atomic_fetch_add(&next, 1)) < heads * chunks;) {
        int head = n / chunks, chunk = n % chunks;
        part w = { .b = head / a->Hk, .hk = head % a->Hk, .key = chunk * size, .done = chunks > 1 ? done + n : NULL, .before = chunk };
        w.keys = a->Tk - w.key < size ? a->Tk - w.key : size;
        backward_part(&t, &w);
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
