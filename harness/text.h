/* text.h - text as tokens of a data set and back. */
#ifndef HS_TEXT_H
#define HS_TEXT_H
#include <stdio.h>
#include "../tasks/data/tokens.h"

/* Words are parted by white space and a line ends in <eos>; letters (amino acids) stand side by side and a line ends in <eos>;
 * bytes are bytes.  Anything else (notes, pixels) is written as words. */
enum hs_spelling { HS_WORDS, HS_LETTERS, HS_BYTES };
typedef struct hs_text { const data_tokens *data; enum hs_spelling spelling; int64_t eos; } hs_text;   /* eos -1: there is none */
void hs_text_init(hs_text *, const data_tokens *);
/* The tokens of a text, the caller's, one more allocated than there are; NULL with a sentence: out of memory, or a word that the
 * vocabulary lacks. */
int32_t *hs_text_tokens(const hs_text *, const char *text, int64_t *n, char *why, size_t nwhy);
void hs_text_write(const hs_text *, const int32_t *token, int64_t n, FILE *);
/* The token as one word for people; a byte that does not print as "\x0a". */
void hs_text_word(const hs_text *, int32_t token, char out[64]);
#endif
