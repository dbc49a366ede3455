/* sparse_strided - the strided pattern of the Sparse Transformer (Child et al. 2019, arXiv:1904.10509).
 *
 *   A1_p = { j : |p - j| < l },   A2_p = { j : (p - j) mod l = 0 },   l = stride,   both with j <= p when causal
 *
 * A_p by head_mode: A1 and A2 together, A1 in even heads and A2 in odd ones, or one of them.  The paper's A1 has one
 * key more, which is also in A2; this is that of the published code.  Everything else is softmax_family.h: A2 is l
 * small problems, one per column of the transposed sequence.  Decoding holds all tokens. */
#include "softmax_family.h"

typedef struct { softmax_options shared; int32_t stride, head_mode; } options;
static const attn_opt OPTS[] = {
    { "stride", "length of the local pattern and distance of the keys of the other; near sqrt(T)", offsetof(options, stride),
      ATTN_INT, 128, 1, 1 << 28, NULL, 0 },
    { "head_mode", "both patterns in every head, in even and odd heads, or one of them", offsetof(options, head_mode),
      ATTN_CHOICE, 0, 0, 0, "merged,split,first,second", 0 },
    SOFTMAX_OPTIONS(options),
    { .name = NULL }
};

/* A_p. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    const options *o = opts;
    int64_t l = o->stride;
    int first = j > p - l && j < p + l, second = (p - j) % l == 0;
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
    return (k_mask){ .kind = K_MASK_STRIDED, .length = o->stride, .patterns = o->head_mode };
}

/* Every stride fits. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    (void)s, (void)opts;
    return NULL;
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR);
static const attn_variant SPARSE_STRIDED = {
    .size = sizeof SPARSE_STRIDED, .name = "sparse_strided", .title = "Sparse Transformer, strided", .paper = "arXiv:1904.10509",
    .cost = "T (stride + T / stride) (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&SPARSE_STRIDED);
