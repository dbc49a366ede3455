/* norm.c - normalisation by row: layer norm and root mean square. */
#include "internal.h"
#include <math.h>

enum { NORM_ROWS = 1024, NORM_COLUMNS = 64 };           /* rows whose moments are kept at a time; columns that a thread sums */

#define REAL float
#define T(name) name##_f32
#include "norm.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "norm.inc"

void cpu_norm_forward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, void *y, const void *x, const void *gain,
                      const void *bias)
{
    TYPED(t, norm_forward, dev, kind, rows, d, eps, y, x, gain, bias);
}
void cpu_norm_backward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, int add, void *dx, void *dgain,
                       void *dbias, const void *dy, const void *x, const void *gain)
{
    TYPED(t, norm_backward, dev, kind, rows, d, eps, add, dx, dgain, dbias, dy, x, gain);
}
