/* mqar.h - multi-query associative recall (Zoology; Arora et al. 2023, arXiv:2312.04927).
 *
 *   k_1 v_1 ... k_D v_D  . . k_3 . k_1 . . . k_2 .          D pairs, then every key once more
 *
 * Keys are 1..V/2-1 and values V/2..V-1, none twice in a sequence.  Behind the pairs there are (length - 2 D) / 2 slots of
 * two tokens; key i stands at the first token of slot g_i >= 1, where g_1, g_2 ... are drawn one after the other from
 * p_g ~ g^(a-1) among the slots still free, and has v_i for its target.  All other tokens are 0, or random.
 *
 * Drawn by alarm clocks: slot g rings after an exponential time of rate p_g.  The slot that rings first is g with
 * probability p_g / sum p, and the ones after it by the same rule among the rest: the order of the first D is the draw. */
#ifndef TASKS_DATA_MQAR_H
#define TASKS_DATA_MQAR_H
#include "words.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct mqar {
    int32_t length, pairs, vocabulary, random_filler;
    double power;                       /* a */
    int32_t slots;
    double *wait;                       /* [slots] 1 / p_g, not normalised */
} mqar;
typedef struct mqar_clock { double time; int32_t slot; } mqar_clock;

/* Why there are no such sequences, or NULL. */
const char *mqar_refusal(const mqar *);
int  mqar_init(mqar *);                 /* slots and wait from the rest; -1 without memory */
void mqar_release(mqar *);
/* token [length], of which token at[i] has target[i], i < pairs; clock [slots] is room. */
void mqar_draw(const mqar *, words *, mqar_clock *clock, int32_t *token, int32_t *at, int32_t *target);
#ifdef __cplusplus
}
#endif
#endif
