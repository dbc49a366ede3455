/* optimiser.c - Adam, Adafactor, and the two questions that training asks of its gradients. */
#include "internal.h"
#include "math.h"

enum { PARTS = 64 };

/* The size of a part, so that there are at most PARTS of them and none is small. */
static int64_t part_size(int64_t n)
{
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    return CHUNK * ((chunks + PARTS - 1) / PARTS > 0 ? (chunks + PARTS - 1) / PARTS : 1);
}

#define REAL float
#define T(name) name##_f32
#include "optimiser.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
#include "optimiser.inc"

void cpu_adam_step(k_dev *dev, k_dtype t, int64_t n, void *p, const void *g, void *m, void *v, const k_adam *o, const double *gscale)
{
    TYPED(t, adam_step, dev, n, p, g, m, v, o, gscale ? *gscale : 1);
}
void cpu_adafactor_step(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *p, const void *g, void *row, void *column, const k_adafactor *o,
                        const double *gscale)
{
    TYPED(t, adafactor_step, dev, rows, d, p, g, row, column, o, gscale ? *gscale : 1);
}
void cpu_clip_factor(k_dev *dev, k_dtype t, int64_t n, const void *x, double bound, double *factor)
{
    const double norm = sqrt(cpu_sum_squares(dev, t, n, x));
    *factor = norm > bound ? bound / norm : 1;
}
double cpu_sum_squares(k_dev *dev, k_dtype t, int64_t n, const void *x) { return TYPED(t, sum_squares, dev, n, x); }
int cpu_all_finite(k_dev *dev, k_dtype t, int64_t n, const void *x) { return TYPED(t, all_finite, dev, n, x); }
