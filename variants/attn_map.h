/* attn_map.h - the explicit map of a variant that is linear in v ("attn.map/1"): with row j of an identity as the value
 * of key j, the output of the reference is the map. */
#ifndef ATTN_MAP_H
#define ATTN_MAP_H
#include "attn.h"
#include <stdlib.h>
#include <string.h>

/* [cold] map [B,H,Tq,Tk] of a call in double, H the heads of o, by plan() and forward() of the reference. */
static inline int map_by_identity(int (*plan)(const attn_shape *, const void *, attn_plan *), int (*forward)(const attn_call *),
                                  const attn_call *c, double *map)
{
    attn_shape s = *c->s;
    attn_plan p = { 0 };
    int64_t T = s.Tk;
    s.Dv = s.Tk, s.training = 0;
    int rc = plan(&s, c->opts, &p);
    if (rc != ATTN_OK) return rc;
    double *one = calloc((size_t)(T * T), sizeof *one);
    void *scratch = aligned_alloc(256, (p.scratch_fwd + 256) / 256 * 256);
    for (int64_t j = 0; one && j < T; j++) one[j * T + j] = 1;
    attn_call mine = *c;
    mine.s = &s, mine.plan = &p, mine.scratch = scratch, mine.saved = NULL;
    mine.v = (attn_tensor){ one, 0, 0, T };     /* the same for every row of the batch and every head */
    mine.o = (attn_tensor){ map, (int64_t)attn_out_heads(&s) * s.Tq * T, s.Tq * T, T };
    rc = one && scratch ? forward(&mine) : ATTN_EINVAL;
    free(one);
    free(scratch);
    return rc;
}

/* Defines map_ext, the variant's ext: plan and forward are the reference's, sums says whether rows sum to one. */
#define ATTN_MAP_EXT(plan, forward, sums)                                                                         \
    static int map_of_call(const attn_call *c, double *map) { return map_by_identity(plan, forward, c, map); }    \
    static const void *map_ext(const char *id)                                                                    \
    {                                                                                                             \
        static const attn_map MAP = { sizeof MAP, map_of_call, sums };                                            \
        return strcmp(id, ATTN_MAP_ID) ? NULL : &MAP;                                                             \
    }
#endif
