/* loss.c - losses by row, and what a row weighs in their mean. */
#include "internal.h"
#include "math.h"

static inline float log_f32(float x) { return logf(x); }
static inline double log_f64(double x) { return log(x); }

#define REAL float
#define T(name) name##_f32
#include "loss.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "loss.inc"

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
void cpu_half_sq_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, int add, void *dy, const void *y,
                          const int32_t *target)
{
    TYPED(t, half_sq_backward, dev, rows, d, *w, add, dy, y, target);
}
void cpu_xent_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, void *loss, const void *y,
                      const int32_t *target)
{
    TYPED(t, xent_forward, dev, rows, d, ld, smoothing, loss, y, target);
}
void cpu_xent_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, double smoothing, const double *w, int add, void *dy,
                       const void *y, const int32_t *target)
{
    TYPED(t, xent_backward, dev, rows, d, smoothing, *w, add, dy, y, target);
}
void cpu_xent_both(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, const double *w, void *loss, void *y,
                   const int32_t *target)
{
    TYPED(t, xent_both, dev, rows, d, ld, smoothing, *w, loss, y, target);
}
