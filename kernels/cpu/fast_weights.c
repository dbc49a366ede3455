/* fast_weights.c - fast weights over batch rows and heads: choice of form, features, threads; see fast_weights.h. */
#include "fast_weights.h"
#include <math.h>
#include <omp.h>

enum { FEW = 8, SLOTS = 16 };           /* queries per key head for the form "rows"; threads that have scratch */

/* Which of the three forms computes this problem. */
static const fw_form *form_of(const k_fast_weights *f)
{
    int few = !f->causal && f->Hq / f->Hk * f->Tq <= FEW;
    if (few && f->rule != K_FW_FWM && f->attn_norm != K_FW_FULL)
        return &fw_rows;
    return f->rule == K_FW_DELTA || f->rule == K_FW_FWM ? &fw_recall : &fw_chunks;
}

/* Threads that have scratch. */
static int slots_of(const k_fast_weights *f)
{
    int64_t heads = (int64_t)f->B * f->Hk;
    return heads < SLOTS ? (int)heads : SLOTS;
}

/* Floats that forward keeps for backward. */
size_t k_fast_weights_saved(const k_fast_weights *f) { return (size_t)f->B * (size_t)f->Hk * form_of(f)->saved(f); }
/* Rounded, so that every thread's scratch begins on a cache line. */
static size_t slot_size(const k_fast_weights *f) { return (form_of(f)->scratch(f) + 63) / 64 * 64; }
size_t k_fast_weights_scratch(const k_fast_weights *f) { return (size_t)slots_of(f) * slot_size(f); }

/* Every head is the work of one thread. */
static void each_head(const k_fast_weights *f, void (*work)(const fw_head *))
{
    int threads = f->threads < slots_of(f) ? f->threads : slots_of(f);
    size_t slot = slot_size(f), saved = form_of(f)->saved(f);
    #pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int b = 0; b < f->B; b++) for (int h = 0; h < f->Hk; h++) {
        size_t index = (size_t)b * (size_t)f->Hk + (size_t)h;
        fw_head head = { .f = f, .b = b, .h = h, .G = f->Hq / f->Hk, .index = index, .map = f->features,
                         .saved = f->saved ? (float *)f->saved + index * saved : NULL,
                         .scratch = (float *)f->scratch + (size_t)omp_get_thread_num() * slot };
        if (head.map.map == K_MAP_FAVOR)
            head.map.W = (const float *)head.map.W + (size_t)h * (size_t)head.map.m * (size_t)head.map.D;
        work(&head);
    }
}

/* Both passes are the form's, head by head. */
void k_fast_weights_forward(const k_fast_weights *f) { each_head(f, form_of(f)->forward); }
void k_fast_weights_backward(const k_fast_weights *f) { each_head(f, form_of(f)->backward); }

/* ---- features ---------------------------------------------------------------------------------------------- */

/* As the features themselves say. */
size_t fw_features_work(const k_fast_weights *f, int n) { return k_features_work(&f->features, n); }

/* Features, then their normalisation. */
void fw_keys(const fw_head *a, int t0, int n, float *phi, float *x, float *r, float *work)
{
    const k_fast_weights *f = a->f;
    k_sfeatures_forward(&a->map, K_KEY, n, k_row(f->k, a->b, a->h, t0), f->k.st, NULL, phi, f->m, work);
    k_snormalise_forward(f->qk_norm, f->norm_eps, n, f->m, phi, f->m, x, f->m, r);
}

/* The same for a query head, which shares the projection of its key head. */
void fw_queries(const fw_head *a, int g, int t0, int n, float *phi, float *x, float *r, float *work)
{
    const k_fast_weights *f = a->f;
    k_sfeatures_forward(&a->map, K_QUERY, n, k_row(f->q, a->b, a->h * a->G + g, t0), f->q.st, NULL, phi, f->m, work);
    k_snormalise_forward(f->qk_norm, f->norm_eps, n, f->m, phi, f->m, x, f->m, r);
}

/* The two steps backwards; nothing to do when dk is not wanted. */
void fw_keys_back(const fw_head *a, int t0, int n, const float *phi, const float *x, const float *r, float *dx, float *work)
{
    const k_fast_weights *f = a->f;
    if (!f->dk.p)
        return;
    k_snormalise_backward(f->qk_norm, n, f->m, x, f->m, r, dx, f->m, dx, f->m);
    k_sfeatures_backward(&a->map, K_KEY, n, k_row(f->k, a->b, a->h, t0), f->k.st, phi, f->m, dx, f->m,
                         k_row(f->dk, a->b, a->h, t0), f->dk.st, work);
}

/* The same for queries. */
void fw_queries_back(const fw_head *a, int g, int t0, int n, const float *phi, const float *x, const float *r, float *dx, float *work)
{
    const k_fast_weights *f = a->f;
    int h = a->h * a->G + g;
    if (!f->dq.p)
        return;
    k_snormalise_backward(f->qk_norm, n, f->m, x, f->m, r, dx, f->m, dx, f->m);
    k_sfeatures_backward(&a->map, K_QUERY, n, k_row(f->q, a->b, h, t0), f->q.st, phi, f->m, dx, f->m,
                         k_row(f->dq, a->b, h, t0), f->dq.st, work);
}

/* beta_max sigmoid(logit). */
float fw_beta(const fw_head *a, int t)
{
    const k_fast_weights *f = a->f;
    return f->rule == K_FW_SUM ? 1 : (float)f->beta_max / (1 + expf(-*k_row(f->beta, a->b, a->h, t)));
}

/* Through the sigmoid. */
void fw_beta_back(const fw_head *a, int t, float dbeta)
{
    const k_fast_weights *f = a->f;
    float beta = fw_beta(a, t);
    if (f->dbeta.p)
        *k_row(f->dbeta, a->b, a->h, t) = dbeta * beta * (1 - beta / (float)f->beta_max);
}
