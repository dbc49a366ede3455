/* local_2d - softmax attention of blocks of queries on a picture in raster order, with a flange of keys around
 * (Image Transformer, Parmar et al. 2018, arXiv:1802.05751).
 *
 * Position p is at row p / width, column p mod width.  For a query at (r, c), in the block that begins at
 * r0 = query_h floor(r / query_h), c0 = query_w floor(c / query_w), clipped to the picture:
 *   bidirectional  A_p = rows r0 - flange_h .. r0 + query_h + flange_h - 1, columns c0 - flange_w .. c0 + query_w + flange_w - 1
 *   causal         A_p = top (the flange's rows above the block, the same columns), left (the block's rows, the flange's
 *                  columns before it) and the keys j <= p of the block itself;  with order raster also j <= p in left.
 *
 * Order block is the paper's, where a picture is made block by block and left has rows below the query: it is defined
 * for whole sequences only, and has no decoding in raster order.  Everything else is softmax_family.h.  Decoding holds
 * the last (query_h + flange_h) rows of the picture in a ring. */
#include "softmax_family.h"

typedef struct { softmax_options shared; int32_t width, query_h, query_w, flange_h, flange_w, order; } options;
static const attn_opt OPTS[] = {
    { "width", "positions in one row of the picture; required", offsetof(options, width), ATTN_INT, 0, 0, 1 << 20, NULL, 0 },
    { "query_h", "rows of a block of queries", offsetof(options, query_h), ATTN_INT, 8, 1, 1 << 20, NULL, 0 },
    { "query_w", "columns of a block of queries", offsetof(options, query_w), ATTN_INT, 16, 1, 1 << 20, NULL, 0 },
    { "flange_h", "rows of keys above (and below) a block", offsetof(options, flange_h), ATTN_INT, 8, 0, 1 << 20, NULL, 0 },
    { "flange_w", "columns of keys beside a block", offsetof(options, flange_w), ATTN_INT, 16, 0, 1 << 20, NULL, 0 },
    { "order", "of generation: row by row, or block by block", offsetof(options, order), ATTN_CHOICE, 0, 0, 0, "raster,block", 0 },
    SOFTMAX_OPTIONS(options),
    { .name = NULL }
};

/* A_p; a query before the picture sees nothing. */
static int sees(const void *opts, int causal, int head, int64_t p, int64_t j)
{
    const options *o = opts;
    (void)head;
    if (p < 0)
        return 0;
    int64_t r0 = p / o->width / o->query_h * o->query_h, c0 = p % o->width / o->query_w * o->query_w;
    int64_t row = j / o->width, column = j % o->width;
    int beside = column >= c0 - o->flange_w && column < c0 + o->query_w + o->flange_w, own = column >= c0 && column < c0 + o->query_w;
    if (!causal)
        return beside && row >= r0 - o->flange_h && row < r0 + o->query_h + o->flange_h;
    int top = beside && row >= r0 - o->flange_h && row < r0, level = row >= r0 && row < r0 + o->query_h;
    int left = level && beside && column < c0;
    return (top || left || (level && own && j <= p)) && (o->order == K_ORDER_BLOCK || j <= p);
}

/* The same as data. */
static k_mask mask_of(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    (void)s;
    return (k_mask){ .kind = K_MASK_IMAGE, .width = o->width, .query_h = o->query_h, .query_w = o->query_w,
                     .flange_h = o->flange_h, .flange_w = o->flange_w, .order = o->order };
}

/* What the picture must be, and what order block leaves undefined. */
static const char *refusal(const attn_shape *s, const void *opts)
{
    const options *o = opts;
    if (o->width < 1)
        return "local_2d needs the width of the picture";
    if (s->mode != ATTN_CAUSAL || o->order != K_ORDER_BLOCK)
        return NULL;
    if (s->decode)
        return "order block has no decoding token by token, because tokens come in raster order";
    return s->Tq == s->Tk ? NULL : "order block needs Tq == Tk: the last queries are no prefix of its order";
}

static const attn_impl IMPLS[] = SOFTMAX_IMPLS(ATTN_CAUSAL | ATTN_BIDIR);
static const attn_variant LOCAL_2D = {
    .size = sizeof LOCAL_2D, .name = "local_2d", .title = "Local attention in two dimensions", .paper = "arXiv:1802.05751",
    .cost = "T (query_h + 2 flange_h) (query_w + 2 flange_w) (Dk + Dv)", .opts_size = sizeof(options), .opts = OPTS, .impls = IMPLS, .ext = map_ext
};
ATTN_EXPORT(&LOCAL_2D);
