/* sparse_fixed - the fixed pattern of the Sparse Transformer (Child et al. 2019, arXiv:1904.10509).
 *
 *   A1_p = { j : floor(j / l) = floor(p / l) },   A2_p = { j : l - c (s + 1) <= j mod l < l - c s },
 *   l = stride, c = summary_len, slot s = h mod summary_slots,   both with j <= p when causal
 *
 * A_p by head_mode: A1 and A2 together, A1 in even heads and A2 in odd ones (which then count s among themselves), or
 * one of them.  A2 alone leaves the first causal rows without a key: their output is 0.  The published code works in
 * whole blocks; this is the paper's set, key by key.  Everything else is softmax_family.h: A2 is c problems over the
 * keys of one column each.  Decoding holds the own block and the summary columns. */
#include "softmax_family.h"

typedef struct { softmax_options shared; int32_t stride, summary_len, summary_slots, head_mode; } options;
static const attn_opt OPTS[] = {
    { "stride", "length of a block", offsetof(options, stride), ATTN_INT, 128, 1, 1 << 28, NULL, 0 },
    { "summary_len", "columns at the end of every block that a head reads", offsetof(options, summary_len), ATTN_INT, 8, 1, 1 << 28, NULL, 0 },
    { "summary_slots", "sets of columns that the heads take in turn", offsetof(options, summary_slots), ATTN_INT, 1, 1, 1 << 28, NULL, 0 },
    { "head_mode", "both patterns in every head, in even and odd heads, or one of them", offsetof(options, head_mode),
      ATTN_CHOICE, 0, 0, 0, "merged,split,first,second", 0 },
    SOFTMAX_OPTIONS(options),
    { .name = NULL }
};

/* A_p. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    const options *o = opts;
    int64_t l = o->stride, c = o->summary_len, begin = p - (p % l + l) % l;     /* of p's block; p may be negative */
    int64_t s = (o->head_mode == K_PATTERNS_SPLIT ? head / 2 : head) % o->summary_slots;
    int first = j >= begin && j < begin + l, second = j % l >= l - c * (s + 1) && j % l < l - c * s;
    if (causal && j > p)
        return 0;
    switch (o->head_mode) {
    case K_PATTERNS_MERGED: return first || second;
    case K_PATTERNS_SPLIT: return head % 2 ? second : first;
    default: return o->head_mode == K_PATTERNS_FIRST ? first : second;
    }
}

/* The same as data. */
static k_mask mask_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    (void)s;
    return (k_mask){ .kind = K_MASK_FIXED, .length = o->stride, .patterns = o->head_mode, .summary_len = o->summary_len,
                     .summary_slots = o->summary_slots };
}

/* The summary columns must lie in the block. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    (void)s;
    return (int64_t)o->summary_len * o->summary_slots > o->stride ? "summary_len times summary_slots must not exceed stride" : NULL;
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR);
static const attn_variant SPARSE_FIXED = {
    .size = sizeof SPARSE_FIXED, .name = "sparse_fixed", .title = "Sparse Transformer, fixed", .paper = "arXiv:1904.10509",
    .cost = "T (stride + summary_len T / stride) (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&SPARSE_FIXED);
