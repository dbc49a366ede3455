/* rows.c - what works row by row: embedding tables, normalisation, losses. */
#include "internal.h"
#include "math.h"

static inline float log_f32(float x) { return logf(x); }
static inline double log_f64(double x) { return log(x); }

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
void cpu_rms_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, double eps, void *y, const void *x)
{
    TYPED(t, rms_forward, dev, rows, d, eps, y, x);
}
void cpu_rms_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, double eps, void *dx, const void *dy, const void *x)
{
    TYPED(t, rms_backward, dev, rows, d, eps, dx, dy, x);
}
void cpu_mean_weight(k_dev *dev, int64_t n, const int32_t *target, double *weight)
{
    int64_t counted = 0;
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        counted += target[i] >= 0;
    *weight = counted ? 1 / (double)counted : 0;
}
void cpu_half_sq_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    TYPED(t, half_sq_forward, dev, rows, d, loss, y, target);
}
void cpu_half_sq_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, void *dy, const void *y,
                          const int32_t *target)
{
    TYPED(t, half_sq_backward, dev, rows, d, *w, dy, y, target);
}
void cpu_xent_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    TYPED(t, xent_forward, dev, rows, d, loss, y, target);
}
void cpu_xent_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, void *dy, const void *y,
                       const int32_t *target)
{
    TYPED(t, xent_backward, dev, rows, d, *w, dy, y, target);
}
