/* mask.h - which keys a query sees: the allowed sets of sparse softmax attention, as data.
 *
 * A set is cut into passes.  A pass is a view of the queries and a view of the keys, both rows at a fixed step,
 * in which every query sees one interval of keys: tiles outside the intervals are skipped, tiles inside need no
 * mask.  Two passes never show a query the same key, so their sums add up.  The columns of a strided set
 * (key j for query p when l divides p - j) are passes of step l: the transposed sequence without a copy. */
#ifndef KERNELS_MASK_H
#define KERNELS_MASK_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum { K_MASK_ALL,                      /* every key */
       K_MASK_WINDOW,                   /* |p - j| < length */
       K_MASK_BLOCK,                    /* the query's block of length, and left and right keys beside it */
       K_MASK_STRIDED,                  /* |p - j| < length, and (p - j) mod length = 0 */
       K_MASK_FIXED,                    /* the query's block of length, and summary columns of every block */
       K_MASK_IMAGE };                  /* a rectangle of a picture, see VARIANTS local_2d */
enum { K_PATTERNS_MERGED, K_PATTERNS_SPLIT, K_PATTERNS_FIRST, K_PATTERNS_SECOND };     /* STRIDED and FIXED have two */
enum { K_ORDER_RASTER, K_ORDER_BLOCK };
typedef struct k_mask {
    int kind, causal;                   /* causal: only keys j <= p */
    int length, left, right;
    int patterns;                       /* split: even heads have the first, odd heads the second */
    int summary_len, summary_slots;     /* head h reads columns length - summary_len (s+1) .., s by its number */
    int width, query_h, query_w, flange_h, flange_w, order;     /* order BLOCK, causal: a block may see rows below */
} k_mask;

/* Where an interval begins or ends: at position add, or at add from the query, or from the query's block. */
typedef struct k_edge { int64_t block, add; } k_edge;       /* block 0: of no query, 1: the query itself */
enum { K_FAR = 1 << 30 };               /* beyond every position */

typedef struct k_pass {
    int64_t q0, qstep, k0, kstep;       /* positions of query row 0 and key row 0, and of the rows after them */
    int nq, nk;                         /* rows; either may be 0 */
    k_edge from, to;                    /* positions that a query sees: from <= j < to */
    int summary;                        /* the keys are a summary column */
} k_pass;
typedef struct k_span { int from, to; } k_span;     /* key rows from .. to - 1 */

/* Queries at positions first .. first + Tq - 1 of one head, over the keys 0 .. keys - 1. */
typedef struct k_scope { int64_t first; int Tq, keys, head; } k_scope;

int64_t k_mask_passes(const k_mask *, const k_scope *);
k_pass k_mask_pass(const k_mask *, const k_scope *, int64_t n);     /* n = 0 .. k_mask_passes() - 1 */
k_span k_pass_span(const k_pass *, int i);                      /* what query row i of the pass sees */
double k_mask_pairs(const k_mask *, const k_scope *);           /* pairs of a query and a key that it sees */

/* Decoding holds what later queries may see.  Rows of state for capacity tokens, and the row of key j: as one of
 * the last tokens, or as one of a summary column (-1 when it is in none). */
int64_t k_mask_rows(const k_mask *, int64_t capacity);
int64_t k_mask_row(const k_mask *, int64_t capacity, int64_t j);
int64_t k_mask_summary_row(const k_mask *, int64_t capacity, int64_t j);
/* Rows whose key stays where it is until it is overwritten: the ring of the last tokens. */
int64_t k_mask_ring(const k_mask *, int64_t capacity);

#ifdef __cplusplus
}
#endif
#endif
