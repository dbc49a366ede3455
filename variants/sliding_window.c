/* sliding_window - softmax attention in a band (Longformer, arXiv:2004.05150; Mistral, arXiv:2310.06825).
 *
 *   A_p = { j : |p - j| < window },  and j <= p when causal
 *
 * The key itself counts: a causal row sees at most window keys, another row 2 window - 1.  Everything else is
 * softmax_family.h.  Decoding holds the last window tokens in a ring. */
#include "softmax_family.h"

typedef struct { softmax_options shared; int32_t window; } options;
static const attn_opt OPTS[] = {
    { "window", "keys that a causal query sees, itself among them", offsetof(options, window), ATTN_INT, 256, 1, 1 << 30, NULL, 0 },
    SOFTMAX_OPTIONS(options),
    { .name = NULL }
};

/* A_p. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    int64_t window = ((const options *)opts)->window;
    (void)head;
    return j > p - window && j < p + window && (!causal || j <= p);
}

/* The same as data. */
static k_mask mask_of(const attn_shape *s, const void *opts)
{
    (void)s;
    return (k_mask){ .kind = K_MASK_WINDOW, .length = ((const options *)opts)->window };
}

/* Every window fits. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    (void)s, (void)opts;
    return NULL;
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR);
static const attn_variant SLIDING_WINDOW = {
    .size = sizeof SLIDING_WINDOW, .name = "sliding_window", .title = "Sliding-window attention",
    .paper = "arXiv:2004.05150, arXiv:2310.06825", .cost = "T window (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&SLIDING_WINDOW);
