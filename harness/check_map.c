/* check_map.c - is the map that a variant offers ("attn.map/1") the map of its output? */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"

static const double EXACT = 1e-10;

/* One row of a map and what is known of it. */
typedef struct map_row { const double *p; int64_t b, h, i, keys; } map_row;    /* keys: this many the query may see */

/* Which keys may query i see?  In another order of the tokens only absent keys are known to be hidden. */
static int64_t keys_of(const hs_rig *r, int64_t b, int64_t i)
{
    int64_t n = r->give_klen ? r->klen[b] : r->s.Tk, reach = i + r->s.Tk - r->s.Tq + 1;
    return r->s.mode != ATTN_CAUSAL || r->c->other_order || reach > n ? n : reach > 0 ? reach : 0;
}

__attribute__((format(printf, 3, 4)))
static void wrong(hs_diff *d, const map_row *m, const char *fmt, ...)
{
    char what[160];
    va_list ap;
    if (!d->ok) return;
    d->ok = 0;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(d->note, sizeof d->note, "row [%ld,%ld,%ld] %s", (long)m->b, (long)m->h, (long)m->i, what);
}

/* Hidden keys have weight 0, exactly; the rest sums to one, or is 0 altogether where the set of the query is empty. */
static void judge_row(hs_diff *hidden, hs_diff *sums, const map_row *m, int64_t T)
{
    double sum = 0, size = 0;
    for (int64_t j = 0; j < T; j++) {
        sum += m->p[j], size += fabs(m->p[j]);
        if (j >= m->keys && m->p[j] != 0) wrong(hidden, m, "gives the hidden key %ld the weight %g", (long)j, m->p[j]);
    }
    if (size > 0 && !(fabs(sum - 1) <= sums->error)) sums->error = fabs(sum - 1);
    if (size > 0 && !(fabs(sum - 1) <= EXACT)) wrong(sums, m, "sums to %.12g over %ld keys", sum, (long)m->keys);
}

/* product [B,H,Tq,Dv] = map v, into the values of a slot that looks like o. */
static void multiply(hs_slot *product, const hs_rig *r, const double *map)
{
    const hs_slot *v = &r->in[HS_V];
    double *out = product->val;
    for (int64_t row = 0; row < product->B * product->H * product->T; row++, map += v->T, out += product->W) {
        int64_t b = row / (product->H * product->T), h = row / product->T % product->H * v->H / product->H;
        memset(out, 0, (size_t)product->W * sizeof *out);
        for (int64_t j = 0; j < v->T; j++)
            for (int64_t e = 0; e < product->W; e++) out[e] += map[j] * v->val[((b * v->H + h) * v->T + j) * v->W + e];
    }
}

/* The map of one rig, whose output is known. */
static void judge(const hs_case *c, const attn_map *m, hs_rig *r)
{
    const char *check = "the map times v is the output";
    hs_diff product = hs_diff_none, hidden = hs_diff_none, sums = hs_diff_none;
    int64_t T = r->s.Tk, n = (int64_t)r->s.B * attn_out_heads(&r->s) * r->s.Tq;
    double *map = malloc((size_t)(n * T) * sizeof *map);
    hs_rig *other = hs_rig_like(r);
    if (!map) abort();
    memset(map, 0xFF, (size_t)(n * T) * sizeof *map);
    hs_case_begin(c, check);
    int rc = hs_rig_map(other, m, map), ones = m->rows_sum_to_one(&r->s, r->opts);
    for (int64_t row = 0; row < n && rc == ATTN_OK; row++) {
        map_row at = { map + row * T, row / (n / r->s.B), row / r->s.Tq % attn_out_heads(&r->s), row % r->s.Tq, 0 };
        at.keys = keys_of(r, at.b, at.i);
        judge_row(&hidden, &sums, &at, T);
    }
    if (rc == ATTN_EUNSUP) hs_case_say(c, check, HS_CHECK_SKIP, 0, "with these options there is no map");
    else if (rc != ATTN_OK) hs_case_say(c, check, HS_CHECK_FAIL, 0, "compute() fails");
    else {
        multiply(&other->out[HS_O], r, map);
        hs_diff_slot(&product, &other->out[HS_O], &r->out[HS_O], EXACT * EXACT);
        hs_case_judge(c, check, other, &product);
        hs_case_judge(c, "the map hides hidden keys", NULL, &hidden);
        if (ones) hs_case_judge(c, "rows of the map sum to one", NULL, &sums);
    }
    hs_rig_free(other);
    free(map);
}

void hs_check_map(const hs_case *c, const hs_rig *base)
{
    const attn_map *m = c->variant->ext ? c->variant->ext(ATTN_MAP_ID) : NULL;
    if (!m || c->impl != c->ref || m->size < sizeof *m) return;
    hs_rig *r = hs_rig_like(base);
    if (!hs_rig_forward(r)) judge(c, m, r);
    hs_rig_free(r);
    attn_shape s = base->s;
    s.klen = 1;
    r = hs_rig_new(c, c->impl, s.dtype, c->opts, s, HS_BTHD, NULL, 0);
    if (!r) return;                     /* hs_check_klen says why */
    r->give_klen = 1;
    for (int b = 0; b < s.B; b++) r->klen[b] = b * s.Tk / s.B;
    if (!hs_rig_forward(r)) judge(c, m, r);
    hs_rig_free(r);
}
