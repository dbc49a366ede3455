/* rows.c - rows of embedding tables. */
#include "internal.h"
#include <string.h>

#define REAL float
#define T(name) name##_f32
#include "rows.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "rows.inc"

void cpu_gather_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *out, const void *table, const int32_t *idx,
                     int accumulate)
{
    TYPED(t, gather_rows, dev, n, d, out, table, idx, accumulate);
}
void cpu_scatter_add_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, int64_t rows, void *dtable, const void *dout,
                          const int32_t *idx)
{
    TYPED(t, scatter_add_rows, dev, n, d, rows, dtable, dout, idx);
}
void cpu_one_hot_move(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *x, const int32_t *idx, int32_t *shown)
{
    TYPED(t, one_hot_move, dev, n, d, x, idx, shown);
}
