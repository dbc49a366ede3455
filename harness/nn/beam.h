/* beam.h - the likeliest sequences of tokens by beam search, several sentences at a time; greedy is a beam of one.
 *
 * Host code over log-probabilities that the caller gives, token by token.  A finished sequence Y, its end included, has the score
 * log P(Y) / ((5 + |Y|) / 6)^alpha (Wu et al. 2016, arXiv:1609.08144, without coverage). */
#ifndef NN_BEAM_H
#define NN_BEAM_H
#include "../../kernels/kernels.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct nn_beam {
    int sentences, width, vocabulary;   /* row s * width + i is the i-th sequence of sentence s */
    int threads;                        /* that share the sentences; 0 is 1; the result does not depend on it */
    int32_t begin, end;                 /* what the first step is shown; what ends a sequence */
    double alpha;                       /* 0: the likelier, the shorter as a rule */
    const int32_t *longest;             /* [sentences] tokens before the end, at most */
    void *ctx;
    /* logp [rows,vocabulary]: what follows token [rows].  source [rows]: row r goes on from where row source[r] was, always one of
     * its sentence; NULL in the first step.  Nonzero ends the search. */
    int (*next)(void *ctx, const int32_t *token, const int32_t *source, float *logp);
} nn_beam;
typedef struct nn_sequence { double score, logp; int32_t length, *token; } nn_sequence;    /* length without the end */
/* out [sentences][width]: the best finished sequences of each sentence, best first, equal ones in the order in which they were
 * found; length -1: there are no more.  One block of the caller's to free, or NULL: out of memory, or next said so (*code). */
nn_sequence *nn_beam_search(const nn_beam *, int *code);
/* logp [rows,n] of logits [rows,n], both on the host. */
void nn_log_softmax(int threads, k_dtype, int64_t rows, int64_t n, const void *logits, float *logp);
#ifdef __cplusplus
}
#endif
#endif
