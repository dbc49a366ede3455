/* sample.c - see sample.h. */
#define _GNU_SOURCE                     /* qsort_r */
#include "sample.h"
#include <math.h>
#include <stdlib.h>
#include "../../kernels/philox.h"

enum { STREAM = 0x5a3d };               /* of Philox */

static int32_t likeliest(const float *score, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (score[i] > score[best])
            best = i;
    return best;
}

/* The higher score first, of equal ones the first. */
static int by_score(const void *a, const void *b, void *score_)
{
    const float *score = score_;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return score[i] > score[j] ? -1 : score[i] < score[j] ? 1 : (i > j) - (i < j);
}

/* What a word weighs beside the likeliest one. */
static double weight(const nn_sampling *s, const float *score, int32_t word, float best)
{
    return exp(((double)score[word] - (double)best) / s->temperature);
}

int32_t nn_sample(const nn_sampling *s, const float *score, int32_t n, uint64_t row, uint32_t step, int32_t *room)
{
    const float best = score[likeliest(score, n)];
    if (s->temperature == 0)
        return likeliest(score, n);
    for (int32_t i = 0; i < n; i++)
        room[i] = i;
    if (s->top_k || s->top_p < 1)
        qsort_r(room, (size_t)n, sizeof *room, by_score, (void *)score);
    const int32_t most = s->top_k && s->top_k < n ? s->top_k : n;
    double total = 0, sum = 0;
    for (int32_t i = 0; i < most; i++)
        total += weight(s, score, room[i], best);
    int32_t left = 0;                   /* words of the nucleus */
    while (left < most && (left == 0 || s->top_p >= 1 || sum < s->top_p * total))
        sum += weight(s, score, room[left++], best);
    const philox4 r = philox4x32_10(s->seed, row, STREAM, step);
    double at = (r.v[0] + 0.5) * 0x1p-32 * sum;
    int32_t i = 0;
    while (i < left - 1 && (at -= weight(s, score, room[i], best)) >= 0)
        i++;
    return room[i];
}
