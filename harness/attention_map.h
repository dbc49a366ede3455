/* attention_map.h - how much of each value every query of a call gives out.
 *
 * For a call of a variant that gives sums of its values, o_i = sum_j map_ij v_j.  The map is the variant's own ("attn.map/1") where it
 * has one, else what its reference makes of values that are blocks of an identity; of the output before output_norm. */
#ifndef HS_ATTENTION_MAP_H
#define HS_ATTENTION_MAP_H
#include "nn/nn.h"

/* What every head reads of values [T,columns]: value() says row and column; out [H,T,columns], H the heads of o.  By the
 * variant as this device computes it, or as its spec says.  0, or -1 with a sentence. */
typedef double hs_value_fn(const void *ctx, int64_t row, int64_t column);
int hs_attention_read(k_dev *, nn_seen, int64_t columns, hs_value_fn *value, const void *ctx, double *out, char *why, size_t nwhy);

enum hs_map_by { HS_MAP_ANY, HS_MAP_OWN, HS_MAP_VALUES };   /* the variant's own where there is one; that; identity blocks */
/* map [H,T,T] of a call on dev, in double by the variant's reference; *by: which way it came about.  A variant that bends its
 * values, or weighs each of their channels by itself, is refused.  0, or -1 with a sentence. */
int hs_attention_map(k_dev *, nn_seen, enum hs_map_by *by, double *map, char *why, size_t nwhy);
/* Whether rows sum to one, as the variant says of itself; 0 where it says nothing. */
int hs_attention_sums_to_one(nn_seen);
#endif
