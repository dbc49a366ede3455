/* elementwise.c - fills, sums, products, activations and dropout, element by element. */
#include "internal.h"
#include "../philox.h"
#include "math.h"

enum { SUM_COLUMNS = 64, SUM_ROWS = 128 };

#define REAL float
#define T(name) name##_f32
#include "elementwise.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "elementwise.inc"

void cpu_zero(k_dev *dev, void *x, size_t bytes) { (void)dev; if (bytes) memset(x, 0, bytes); }
void cpu_copy(k_dev *dev, void *dst, const void *src, size_t bytes) { (void)dev; if (bytes) memmove(dst, src, bytes); }
void cpu_upload(k_dev *dev, void *dst, const void *src, size_t bytes) { cpu_copy(dev, dst, src, bytes); }
void cpu_download(k_dev *dev, void *dst, const void *src, size_t bytes) { cpu_copy(dev, dst, src, bytes); }

void cpu_fill(k_dev *dev, k_dtype t, int64_t n, void *x, double value) { TYPED(t, fill, dev, n, x, value); }
void cpu_axpy(k_dev *dev, k_dtype t, int64_t n, double a, const void *x, void *y) { TYPED(t, axpy, dev, n, a, x, y); }
void cpu_scale(k_dev *dev, k_dtype t, int64_t n, double a, void *y, const void *x) { TYPED(t, scale, dev, n, a, y, x); }
void cpu_approach(k_dev *dev, k_dtype t, int64_t n, double rate, void *y, const void *x) { TYPED(t, approach, dev, n, rate, y, x); }
void cpu_add(k_dev *dev, k_dtype t, int64_t n, void *out, const void *x, const void *y)
{
    TYPED(t, add, dev, n, out, x, y);
}
void cpu_mul(k_dev *dev, k_dtype t, int64_t n, int add, void *out, const void *x, const void *y)
{
    TYPED(t, mul, dev, n, add, out, x, y);
}
void cpu_add_bias(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *y, const void *x, const void *bias)
{
    TYPED(t, add_bias, dev, rows, d, y, x, bias);
}
void cpu_sum_rows(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const void *x, void *out)
{
    TYPED(t, sum_rows, dev, rows, d, x, out);
}
void cpu_unary_forward(k_dev *dev, k_dtype t, k_unary f, int64_t n, void *y, const void *x)
{
    TYPED(t, unary_forward, dev, f, n, y, x);
}
void cpu_unary_backward(k_dev *dev, k_dtype t, k_unary f, int64_t n, int add, void *dx, const void *dy, const void *x, const void *y)
{
    TYPED(t, unary_backward, dev, f, n, add, dx, dy, x, y);
}
void cpu_dropout(k_dev *dev, k_dtype t, int64_t n, double p, uint64_t seed, uint32_t stream, const uint32_t *draw, int add, void *y,
                 const void *x)
{
    TYPED(t, dropout, dev, n, p, seed, stream, *draw, add, y, x);
}
void cpu_tick(k_dev *dev, uint32_t *count)
{
    (void)dev;
    ++*count;
}
