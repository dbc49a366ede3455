/* softmax - scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).
 *
 *   o_i = sum_j p_ij v_j,   p_i = softmax over j in A_i of s_ij,   s_ij = scale q_i.k_j - slope_h |p_i - j|
 *
 * A_i: all keys, or j <= p_i = i + Tk - Tq when causal, below klen; no key gives output 0.  With position
 * rope q and k are turned by their positions first, with alibi slope_h > 0.  Several query heads may share a
 * key head (GQA, MQA).  Saved: the row log-sum-exp, one number per (b,h,i).
 *
 * Backward, with g_i = d_o_i and D_i = g_i.o_i:  dv_j = sum_i p_ij g_i,  ds_ij = p_ij (g_i.v_j - D_i),
 * dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i, turned back by the positions.
 *
 * This is the member of the softmax family without a set of its own: the loops of "ref" are
 * kernels/cpu/attention_ref.c, the tiles of "cpu" kernels/cpu/flash.c. */
#include "softmax_family.h"

typedef struct { softmax_options shared; } options;
static const attn_opt OPTS[] = { SOFTMAX_OPTIONS(options), { .name = NULL } };

/* A_p: the keys up to p, or all. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    (void)opts, (void)head;
    return !causal || j <= p;
}

/* The same as data. */
static k_mask mask_of(const attn_shape *s, const void *opts)
{
    (void)s, (void)opts;
    return (k_mask){ .kind = K_MASK_ALL };
}

/* Nothing of its own can be wrong. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    (void)s, (void)opts;
    return NULL;
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR | ATTN_CROSS);
static const attn_variant SOFTMAX = {
    .size = sizeof SOFTMAX, .name = "softmax", .title = "Softmax attention", .paper = "arXiv:1706.03762",
    .cost = "T^2 (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&SOFTMAX);
