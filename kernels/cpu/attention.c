/* attention.c - softmax attention over batch rows and heads: rotation, sharing of key heads, threads; see flash.h.
 *
 * Threads take whole heads, and the query heads that share a key head in backward stay with one thread, so that
 * no sum is split between threads. */
#include "../flash.h"

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

/* Room for what is turned. */
size_t k_attention_scratch(const k_attention *a)
{
    turned n = turned_of(a);
    return n.q + n.k + n.table;
}

/* to [B,H,T,Dk] = from, turned by the positions first .. first + T - 1; sign -1: back.  to may be from. */
static void turn(const k_attention *a, int sign, int H, int T, int64_t first, k_heads from, k_heads to)
{
    turned n = turned_of(a);
    int D = a->Dk, r = k_rope_width(a->position, D);
    float *table = a->scratch + n.q + n.k;
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
    t.q = (k_heads){ a->scratch, a->Hq * a->Tq * D, a->Tq * D, D };
    turn(a, 1, a->Hq, a->Tq, a->Tk - a->Tq, a->q, t.q);
    if (!a->keys_turned) {
        t.k = (k_heads){ a->scratch + n.q, a->Hk * a->Tk * D, a->Tk * D, D };
        turn(a, 1, a->Hk, a->Tk, 0, a->k, t.k);
    }
    return t;
}

/* Query head h of batch row b. */
static k_flash problem(const k_attention *a, int b, int h)
{
    int hk = h * a->Hk / a->Hq, klen = a->klen && a->klen[b] < a->Tk ? a->klen[b] : a->Tk;
    return (k_flash){
        .Tq = a->Tq, .Dk = a->Dk, .Dv = a->Dv, .klen = klen,
        .offset = a->causal ? a->Tk - a->Tq : klen, .position = a->Tk - a->Tq,
        .scale = (float)a->scale, .slope = (float)k_alibi_slope(a->position, h, a->Hq),
        .q = k_row(a->q, b, h, 0), .ldq = a->q.st, .k = k_row(a->k, b, hk, 0), .ldk = a->k.st,
        .v = k_row(a->v, b, hk, 0), .ldv = a->v.st, .o = k_row(a->o, b, h, 0), .ldo = a->o.st,
        .lse = a->lse ? a->lse + ((size_t)b * (size_t)a->Hq + (size_t)h) * (size_t)a->Tq : NULL
    };
}

/* Turns, then attends head by head. */
void k_attention_forward(const k_attention *a)
{
    k_attention t = turn_inputs(a);
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < t.B; b++) for (int h = 0; h < t.Hq; h++) {
        k_flash f = problem(&t, b, h);
        k_flash_forward(&f);
    }
}

/* Turns, goes back head by head, turns the gradients back. */
void k_attention_backward(const k_attention *a)
{
    int group = a->Hq / a->Hk;
    k_attention t = turn_inputs(a);
    #pragma omp parallel for collapse(2) num_threads(a->threads) if (a->threads > 1)
    for (int b = 0; b < t.B; b++) for (int hk = 0; hk < t.Hk; hk++) {
        float *dk = k_rows_zero(t.dk, b, hk, t.Tk, t.Dk), *dv = k_rows_zero(t.dv, b, hk, t.Tk, t.Dv);
        for (int h = hk * group; h < (hk + 1) * group; h++) {
            k_flash f = problem(&t, b, h);
            f.d_o = k_row(t.d_o, b, h, 0);
            f.lddo = t.d_o.st;
            f.dq = k_row(t.dq, b, h, 0);
            f.lddq = t.dq.st;
            f.dk = dk;
            f.lddk = t.dk.st;
            f.dv = dv;
            f.lddv = t.dv.st;
            k_flash_backward(&f);
        }
    }
    turn(a, -1, a->Hq, a->Tq, a->Tk - a->Tq, a->dq, a->dq);
    turn(a, -1, a->Hk, a->Tk, 0, a->dk, a->dk);
}

/* Rows are copied, keys turned by their positions where they lie. */
k_attention k_attention_append(const k_attention *a, float *cache, int64_t pos, int capacity)
{
    int64_t width = a->Dk + a->Dv, sh = width * capacity;
    k_heads k = { cache + pos * width, sh * a->Hk, sh, width }, v = { cache + pos * width + a->Dk, sh * a->Hk, sh, width };
    for (int b = 0; b < a->B; b++) for (int h = 0; h < a->Hk; h++) for (int t = 0; t < a->Tk; t++) {
        memcpy(k_row(k, b, h, t), k_row(a->k, b, h, t), (size_t)a->Dk * sizeof(float));
        memcpy(k_row(v, b, h, t), k_row(a->v, b, h, t), (size_t)a->Dv * sizeof(float));
    }
    turn(a, 1, a->Hk, a->Tk, pos, k, k);
    k_attention whole = *a;
    whole.causal = whole.keys_turned = 1;
    whole.Tk = (int)pos + a->Tk;
    whole.k = (k_heads){ cache, k.sb, sh, width };
    whole.v = (k_heads){ cache + a->Dk, k.sb, sh, width };
    return whole;
}
