/* rope.h - how softmax attention knows positions: rotary embedding and ALiBi, for a whole family of variants.
 *
 * RoPE turns pair n of a row at position p by the angle p * freq_n; ALiBi adds -slope_h |p_i - j| to the
 * scaled logit.  Angles are computed in double, whatever the precision of the rows: at position 1e5 a float
 * product is off by up to 6e-3 rad.  A variant puts a k_position into its options struct and the rows of
 * K_POSITION_OPTIONS into its option table. */
#ifndef KERNELS_ROPE_H
#define KERNELS_ROPE_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum { K_POSITION_NONE, K_POSITION_ROPE, K_POSITION_ALIBI };
enum { K_ROPE_STANDARD, K_ROPE_LINSPACE };
typedef struct k_position {
    int32_t position, rope_dim, rope_interleaved, rope_freqs;
    double rope_base;
} k_position;

/* Rows of an attn_opt table; type: the options struct, field: its k_position.  K_ROPE_OPTIONS offers no alibi. */
#define K_POSITION_OPTIONS(type, field) K_POSITION_ROWS(type, field, "none,rope,alibi")
#define K_ROPE_OPTIONS(type, field) K_POSITION_ROWS(type, field, "none,rope")
#define K_POSITION_ROWS(type, field, choices)                                                                    \
    { "position", "how positions enter the scores", offsetof(type, field.position), ATTN_CHOICE, 0, 0, 0,        \
      choices, 0 },                                                                                              \
    { "rope_dim", "rotated width, even; 0: the largest even number <= Dk", offsetof(type, field.rope_dim),       \
      ATTN_INT, 0, 0, 1 << 20, NULL, 0 },                                                                        \
    { "rope_base", "base of the rotation frequencies", offsetof(type, field.rope_base), ATTN_FLOAT, 10000, 1,    \
      1e30, NULL, ATTN_OPEN_MIN },                                                                               \
    { "rope_interleaved", "pairs (2n, 2n+1); false: (n, n + rope_dim/2)",                                        \
      offsetof(type, field.rope_interleaved), ATTN_BOOL, 1, 0, 0, NULL, 0 },                                     \
    { "rope_freqs", "spacing of the frequencies: base^(-2n/r), or ending at 1/base exactly",                     \
      offsetof(type, field.rope_freqs), ATTN_CHOICE, 0, 0, 0, "standard,linspace", 0 }

/* NULL, or why these options do not fit a width D; cross: queries and keys are different sequences. */
const char *k_position_refusal(const k_position *, int D, int cross);
/* Width that is rotated, 0 unless position is rope. */
int  k_rope_width(const k_position *, int D);
/* Turns one row x [D] of position pos in place, sign -1: back (the gradient). */
void k_rope_row_f64(const k_position *, int D, int sign, int64_t pos, double *x);
/* Cosines and sines of positions first .. first + n - 1, table [n][r]: r/2 cosines, then r/2 sines. */
void k_rope_table(const k_position *, int D, int64_t first, int64_t n, float *table);
/* y [D] = x [D] turned by one row of the table (sign -1: back); y may be x. */
void k_rope_row_f32(const k_position *, int D, int sign, const float *table_row, float *y, const float *x);
/* Slope of head h of H; 0 unless position is alibi. */
double k_alibi_slope(const k_position *, int h, int H);

#ifdef __cplusplus
}
#endif
#endif
