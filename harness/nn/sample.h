/* sample.h - one word drawn from the scores of all. */
#ifndef NN_SAMPLE_H
#define NN_SAMPLE_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct nn_sampling {
    double temperature;                 /* scores are divided by it; 0: always the likeliest */
    int32_t top_k;                      /* only the k likeliest, 0 = all */
    double top_p;                       /* of these the fewest likeliest that have this share of their probability, 1 = all */
    uint64_t seed;
} nn_sampling;
/* A word of 0..n-1 by their scores; of equal ones the first.  The draw is number `step` of sequence `row`: it depends on these, the
 * seed and the scores alone.  room [n]: to work in. */
int32_t nn_sample(const nn_sampling *, const float *score, int32_t n, uint64_t row, uint32_t step, int32_t *room);
#ifdef __cplusplus
}
#endif
#endif
