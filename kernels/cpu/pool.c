/* pool.c - the mean over the tokens of a sequence. */
#include "internal.h"
#include <string.h>

#define REAL float
#define T(name) name##_f32
#include "pool.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "pool.inc"

void cpu_pool_forward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, void *out, const void *x, const int32_t *len)
{
    TYPED(t, pool_forward, dev, B, rows, d, out, x, len);
}
void cpu_pool_backward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, int add, void *dx, const void *dout, const int32_t *len)
{
    TYPED(t, pool_backward, dev, B, rows, d, add, dx, dout, len);
}
