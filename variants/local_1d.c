/* local_1d - softmax attention of blocks of queries with a memory beside them (Image Transformer, Parmar et al.
 * 2018, arXiv:1802.05751).
 *
 *   A_p = { j : N b - memory_left <= j < (N + 1) b + memory_right },  N = floor(p / b), b = block_length,
 *   and j <= p when causal
 *
 * The last block may be short.  tensor2tensor's bidirectional function shifts the memory by a block for some sizes;
 * this is the set that it documents.  Everything else is softmax_family.h.  Decoding holds the last
 * block_length + memory_left tokens in a ring. */
#include "softmax_family.h"

typedef struct { softmax_options shared; int32_t block_length, memory_left, memory_right; } options;
static const attn_opt OPTS[] = {
    { "block_length", "queries that share a memory", offsetof(options, block_length), ATTN_INT, 128, 1, 1 << 28, NULL, 0 },
    { "memory_left", "keys before the block; -1: as many as block_length", offsetof(options, memory_left), ATTN_INT, -1, -1, 1 << 28, NULL, 0 },
    { "memory_right", "keys after the block, none when causal; -1: as many as memory_left", offsetof(options, memory_right),
      ATTN_INT, -1, -1, 1 << 28, NULL, 0 },
    SOFTMAX_OPTIONS(options),
    { .name = NULL }
};

/* The memory of these options, -1 resolved. */
static int left_of(const options *o) { return o->memory_left < 0 ? o->block_length : o->memory_left; }
static int right_of(const options *o) { return o->memory_right < 0 ? left_of(o) : o->memory_right; }

/* A_p. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    const options *o = opts;
    int64_t b = o->block_length, begin = p - (p % b + b) % b;       /* N b; p may be negative */
    (void)head;
    return j >= begin - left_of(o) && j < begin + b + right_of(o) && (!causal || j <= p);
}

/* The same as data. */
static k_mask mask_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    (void)s;
    return (k_mask){ .kind = K_MASK_BLOCK, .length = o->block_length, .left = left_of(o), .right = right_of(o) };
}

/* Every block fits. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    (void)s, (void)opts;
    return NULL;
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR);
static const attn_variant LOCAL_1D = {
    .size = sizeof LOCAL_1D, .name = "local_1d", .title = "Local attention in one dimension", .paper = "arXiv:1802.05751",
    .cost = "T (block_length + memory) (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&LOCAL_1D);
