/* dispatch.c - the public kernels: each hands its arguments to the device's table. */
#include "../device.h"

void k_zero(k_dev *dev, void *x, size_t bytes) { dev->ops->zero(dev, x, bytes); }
void k_copy(k_dev *dev, void *dst, const void *src, size_t bytes) { dev->ops->copy(dev, dst, src, bytes); }
void k_upload(k_dev *dev, void *dst, const void *src, size_t bytes) { dev->ops->upload(dev, dst, src, bytes); }
void k_download(k_dev *dev, void *dst, const void *src, size_t bytes) { dev->ops->download(dev, dst, src, bytes); }
void k_fill(k_dev *dev, k_dtype t, int64_t n, void *x, double value) { dev->ops->fill(dev, t, n, x, value); }
void k_convert(k_dev *dev, int64_t n, void *dst, k_dtype to, const void *src, k_dtype from)
{
    dev->ops->convert(dev, n, dst, to, src, from);
}

void k_gemm(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
            int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    dev->ops->gemm(dev, t, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
void k_gemm_batched(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                    const void *A, int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB, double beta,
                    void *C, int64_t ldc, int64_t sC, int64_t nbatch)
{
    dev->ops->gemm_batched(dev, t, ta, tb, m, n, k, alpha, A, lda, sA, B, ldb, sB, beta, C, ldc, sC, nbatch);
}
void k_gemm_wide(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
                 int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    dev->ops->gemm_wide(dev, t, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

void k_linear(k_dev *dev, k_dtype t, int64_t rows, int64_t width, int64_t depth, void *y, const void *x, const void *w, const void *bias)
{
    dev->ops->linear(dev, t, rows, width, depth, y, x, w, bias);
}

void k_axpy(k_dev *dev, k_dtype t, int64_t n, double a, const void *x, void *y) { dev->ops->axpy(dev, t, n, a, x, y); }
void k_scale(k_dev *dev, k_dtype t, int64_t n, double a, void *y, const void *x) { dev->ops->scale(dev, t, n, a, y, x); }
void k_approach(k_dev *dev, k_dtype t, int64_t n, double rate, void *y, const void *x) { dev->ops->approach(dev, t, n, rate, y, x); }
void k_add(k_dev *dev, k_dtype t, int64_t n, void *out, const void *x, const void *y) { dev->ops->add(dev, t, n, out, x, y); }
void k_mul(k_dev *dev, k_dtype t, int64_t n, int add, void *out, const void *x, const void *y)
{
    dev->ops->mul(dev, t, n, add, out, x, y);
}
void k_add_bias(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *y, const void *x, const void *bias)
{
    dev->ops->add_bias(dev, t, rows, d, y, x, bias);
}
void k_sum_rows(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const void *x, void *out)
{
    dev->ops->sum_rows(dev, t, rows, d, x, out);
}
void k_unary_forward(k_dev *dev, k_dtype t, k_unary f, int64_t n, void *y, const void *x)
{
    dev->ops->unary_forward(dev, t, f, n, y, x);
}
void k_unary_backward(k_dev *dev, k_dtype t, k_unary f, int64_t n, int add, void *dx, const void *dy, const void *x, const void *y)
{
    dev->ops->unary_backward(dev, t, f, n, add, dx, dy, x, y);
}
void k_dropout(k_dev *dev, k_dtype t, int64_t n, double p, uint64_t seed, uint32_t stream, const uint32_t *draw, int add, void *y,
               const void *x)
{
    dev->ops->dropout(dev, t, n, p, seed, stream, draw, add, y, x);
}
void k_tick(k_dev *dev, uint32_t *count) { dev->ops->tick(dev, count); }

void k_gather_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *out, const void *table, const int32_t *idx,
                   int accumulate)
{
    dev->ops->gather_rows(dev, t, n, d, out, table, idx, accumulate);
}
void k_scatter_add_rows(k_dev *dev, k_dtype t, int64_t n, int64_t d, int64_t rows, void *dtable, const void *dout,
                        const int32_t *idx)
{
    dev->ops->scatter_add_rows(dev, t, n, d, rows, dtable, dout, idx);
}

void k_one_hot_move(k_dev *dev, k_dtype t, int64_t n, int64_t d, void *x, const int32_t *idx, int32_t *shown)
{
    dev->ops->one_hot_move(dev, t, n, d, x, idx, shown);
}
void k_pool_forward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, void *out, const void *x, const int32_t *len)
{
    dev->ops->pool_forward(dev, t, B, rows, d, out, x, len);
}
void k_pool_backward(k_dev *dev, k_dtype t, int64_t B, int64_t rows, int64_t d, int add, void *dx, const void *dout, const int32_t *len)
{
    dev->ops->pool_backward(dev, t, B, rows, d, add, dx, dout, len);
}
void k_norm_forward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, void *y, const void *x, const void *gain,
                    const void *bias)
{
    dev->ops->norm_forward(dev, t, kind, rows, d, eps, y, x, gain, bias);
}
void k_norm_backward(k_dev *dev, k_dtype t, k_norm_kind kind, int64_t rows, int64_t d, double eps, int add, void *dx, void *dgain, void *dbias,
                     const void *dy, const void *x, const void *gain)
{
    dev->ops->norm_backward(dev, t, kind, rows, d, eps, add, dx, dgain, dbias, dy, x, gain);
}
void k_mean_weight(k_dev *dev, int64_t n, const int32_t *target, double *weight)
{
    dev->ops->mean_weight(dev, n, target, weight);
}
void k_half_sq_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target)
{
    dev->ops->half_sq_forward(dev, t, rows, d, loss, y, target);
}
void k_half_sq_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, const double *w, int add, void *dy, const void *y,
                        const int32_t *target)
{
    dev->ops->half_sq_backward(dev, t, rows, d, w, add, dy, y, target);
}
void k_xent_forward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, void *loss, const void *y,
                    const int32_t *target)
{
    dev->ops->xent_forward(dev, t, rows, d, ld, smoothing, loss, y, target);
}
void k_xent_backward(k_dev *dev, k_dtype t, int64_t rows, int64_t d, double smoothing, const double *w, int add, void *dy, const void *y,
                     const int32_t *target)
{
    dev->ops->xent_backward(dev, t, rows, d, smoothing, w, add, dy, y, target);
}
void k_xent_both(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t ld, double smoothing, const double *w, void *loss, void *y,
                 const int32_t *target)
{
    dev->ops->xent_both(dev, t, rows, d, ld, smoothing, w, loss, y, target);
}

void k_sort_targets(k_dev *dev, int64_t n, const int32_t *target, const k_clusters *c, int64_t chunk, int32_t *row, int32_t *place, int32_t *word,
                    int32_t *some)
{
    dev->ops->sort_targets(dev, n, target, c, chunk, row, place, word, some);
}
void k_log_softmax(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t take, void *out, int64_t ldo, const void *y, int64_t ld, const void *plus,
                   int64_t every)
{
    dev->ops->log_softmax(dev, t, rows, d, take, out, ldo, y, ld, plus, every);
}
int k_when(k_dev *dev, const int32_t *flag, int (*work)(void *), void *arg) { return dev->ops->when(dev, flag, work, arg); }

void k_adam_step(k_dev *dev, k_dtype t, int64_t n, void *p, const void *g, void *m, void *v, const k_adam *o, const double *gscale)
{
    dev->ops->adam_step(dev, t, n, p, g, m, v, o, gscale);
}
void k_adafactor_step(k_dev *dev, k_dtype t, int64_t rows, int64_t d, void *p, const void *g, void *row, void *column, const k_adafactor *o,
                      const double *gscale)
{
    dev->ops->adafactor_step(dev, t, rows, d, p, g, row, column, o, gscale);
}
void k_clip_factor(k_dev *dev, k_dtype t, int64_t n, const void *x, double bound, double *factor)
{
    dev->ops->clip_factor(dev, t, n, x, bound, factor);
}
double k_sum_squares(k_dev *dev, k_dtype t, int64_t n, const void *x) { return dev->ops->sum_squares(dev, t, n, x); }
int k_all_finite(k_dev *dev, k_dtype t, int64_t n, const void *x) { return dev->ops->all_finite(dev, t, n, x); }

void k_random_uniform(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double lo, double hi)
{
    dev->ops->random_uniform(dev, t, n, x, rng, lo, hi);
}
void k_random_normal(k_dev *dev, k_dtype t, int64_t n, void *x, k_rng rng, double mean, double sd)
{
    dev->ops->random_normal(dev, t, n, x, rng, mean, sd);
}
void k_random_orthogonal(k_dev *dev, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    dev->ops->random_orthogonal(dev, t, blocks, m, D, x, rng, chi);
}
