/* listops.h - nested operations on lists of digits, as Long Range Arena draws them (Tay et al. 2021, arXiv:2011.04006), and
 * their value.  [MAX 4 3 [MIN 2 3 ] 1 0 ] is 4. */
#ifndef TASKS_DATA_LISTOPS_H
#define TASKS_DATA_LISTOPS_H
#include "words.h"
#ifdef __cplusplus
extern "C" {
#endif
/* The tokens, as data_listops_vocab numbers them; a digit is LISTOPS_DIGIT plus itself. */
enum { LISTOPS_MIN, LISTOPS_MAX, LISTOPS_MED, LISTOPS_SM, LISTOPS_FIRST, LISTOPS_LAST, LISTOPS_CLOSE, LISTOPS_DIGIT,
       LISTOPS_TOKENS = LISTOPS_DIGIT + 10 };

typedef struct listops {
    int32_t depth, arguments;           /* a digit is the only expression of depth 1; an operator has 2 to so many arguments */
    int32_t more_than, fewer_than;      /* tokens of an expression, brackets counted: between these */
} listops;

/* Why there are no such expressions, or hardly any; NULL: there are. */
const char *listops_refusal(const listops *);
/* token [fewer_than]: at each place an expression is, if it is not too deep, an operation with probability 1/4, else a digit; all
 * choices are even; those of other lengths are drawn again.  How many tokens it has. */
int32_t listops_draw(const listops *, words *, int32_t *token);
/* What n tokens come to: 0..9, or -1 when they are no expression.  The median of an even number is the mean of the middle two,
 * rounded down; SM is the sum modulo 10. */
int32_t listops_value(const int32_t *token, int32_t n);
#ifdef __cplusplus
}
#endif
#endif
