/* bleu_tokens.h - the tokenisers of BLEU.  Private to bleu*.c. */
#ifndef TASKS_DATA_BLEU_TOKENS_H
#define TASKS_DATA_BLEU_TOKENS_H
#include "bleu.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { BLEU_MAX_RULES = 4 };
typedef struct bleu_rules {
    bleu_tokeniser tokeniser;
    int n;
    pcre2_code *pattern[BLEU_MAX_RULES];
    const char *with[BLEU_MAX_RULES];
} bleu_rules;

int   bleu_rules_init(bleu_rules *, bleu_tokeniser);    /* -1: out of memory */
void  bleu_rules_release(bleu_rules *);
char *bleu_words(const bleu_rules *, int lowercase, const char *line);  /* see bleu_tokenise */
#endif
