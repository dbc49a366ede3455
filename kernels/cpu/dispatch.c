/* dispatch.c - the public kernels: each hands its arguments to the device's table. */
#include "../device.h"

void k_zero(k_dev *d, void *x, size_t bytes) { d->ops->zero(d, x, bytes); }
void k_copy(k_dev *d, void *dst, const void *src, size_t bytes) { d->ops->copy(d, dst, src, bytes); }
void k_upload(k_dev *d, void *dst, const void *src, size_t bytes) { d->ops->upload(d, dst, src, bytes); }
void k_download(k_dev *d, void *dst, const void *src, size_t bytes) { d->ops->download(d, dst, src, bytes); }
void k_fill(k_dev *d, k_dtype t, int64_t n, void *x, double value) { d->ops->fill(d, t, n, x, value); }
void k_convert(k_dev *d, int64_t n, void *dst, k_dtype to, const void *src, k_dtype from)
{
    d->ops->convert(d, n, dst, to, src, from);
}

void k_gemm(k_dev *d, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
            int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    d->ops->gemm(d, t, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
void k_gemm_batched(k_dev *d, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                    const void *A, int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB, double beta,
                    void *C, int64_t ldc, int64_t sC, int64_t nbatch)
{
    d->ops->gemm_batched(d, t, ta, tb, m, n, k, alpha, A, lda, sA, B, ldb, sB, beta, C, ldc, sC, nbatch);
}

void k_axpy(k_dev *d, k_dtype t, int64_t n, double a, const void *x, void *y) { d->ops->axpy(d, t, n, a, x, y); }
void k_scale(k_dev *d, k_dtype t, int64_t n, double a, void *x) { d->ops->scale(d, t, n, a, x); }
void k_add(k_dev *d, k_dtype t, int64_t n, void *out, const void *x, const void *y) { d->ops->add(d, t, n, out, x, y); }
void k_mul(k_dev *d, k_dtype t, int64_t n, void *out, const void *x, const void *y) { d->ops->mul(d, t, n, out, x, y); }
void k_add_bias(k_dev *d, k_dtype t, int64_t rows, int64_t width, void *x, const void *bias)
{
    d->ops->add_bias(d, t, rows, width, x, bias);
}
void k_sum_rows(k_dev *d, k_dtype t, int64_t rows, int64_t width, const void *x, void *out)
{
    d->ops->sum_rows(d, t, rows, width, x, out);
}
void k_unary_forward(k_dev *d, k_dtype t, k_unary f, int64_t n, void *y, const void *x)
{
    d->ops->unary_forward(d, t, f, n, y, x);
}
void k_unary_backward(k_dev *d, k_dtype t, k_unary f, int64_t n, void *dx, const void *dy, const void *x, const void *y)
{
    d->ops->unary_backward(d, t, f, n, dx, dy, x, y);
}

void k_gather_rows(k_dev *d, k_dtype t, int64_t n, int64_t width, void *out, const void *table, const int32_t *idx,
                   int accumulate)
{
    d->ops->gather_rows(d, t, n, width, out, table, idx, accumulate);
}
void k_scatter_add_rows(k_dev *d, k_dtype t, int64_t n, int64_t width, int64_t rows, void *dtable, const void *dout,
                        const int32_t *idx)
{
    d->ops->scatter_add_rows(d, t, n, width, rows, dtable, dout, idx);
}

void k_one_hot_move(k_dev *d, k_dtype t, int64_t n, int64_t width, void *x, const int32_t *idx, int32_t *shown)
{
    d->ops->one_hot_move(d, t, n, width, x, idx, shown);
}
void k_rms_forward(k_dev *d, k_dtype t, int64_t rows, int64_t width, double eps, void *y, const void *x)
{
    d->ops->rms_forward(d, t, rows, width, eps, y, x);
}
void k_rms_backward(k_dev *d, k_dtype t, int64_t rows, int64_t width, double eps, void *dx, const void *dy, const void *x)
{
    d->ops->rms_backward(d, t, rows, width, eps, dx, dy, x);
}
void k_half_sq_forward(k_dev *d, k_dtype t, int64_t rows, int64_t width, void *loss, const void *y, const int32_t *target)
{
    d->ops->half_sq_forward(d, t, rows, width, loss, y, target);
}
void k_half_sq_backward(k_dev *d, k_dtype t, int64_t rows, int64_t width, double w, void *dy, const void *y,
                        const int32_t *target)
{
    d->ops->half_sq_backward(d, t, rows, width, w, dy, y, target);
}
void k_xent_forward(k_dev *d, k_dtype t, int64_t rows, int64_t width, void *loss, const void *y, const int32_t *target)
{
    d->ops->xent_forward(d, t, rows, width, loss, y, target);
}
void k_xent_backward(k_dev *d, k_dtype t, int64_t rows, int64_t width, double w, void *dy, const void *y,
                     const int32_t *target)
{
    d->ops->xent_backward(d, t, rows, width, w, dy, y, target);
}

void k_adam_step(k_dev *d, k_dtype t, int64_t n, void *p, const void *g, void *m, void *v, const k_adam *o, double gscale)
{
    d->ops->adam_step(d, t, n, p, g, m, v, o, gscale);
}
double k_sum_squares(k_dev *d, k_dtype t, int64_t n, const void *x) { return d->ops->sum_squares(d, t, n, x); }
int k_all_finite(k_dev *d, k_dtype t, int64_t n, const void *x) { return d->ops->all_finite(d, t, n, x); }

void k_random_uniform(k_dev *d, k_dtype t, int64_t n, void *x, k_rng rng, double lo, double hi)
{
    d->ops->random_uniform(d, t, n, x, rng, lo, hi);
}
void k_random_normal(k_dev *d, k_dtype t, int64_t n, void *x, k_rng rng, double mean, double sd)
{
    d->ops->random_normal(d, t, n, x, rng, mean, sd);
}
void k_random_orthogonal(k_dev *d, k_dtype t, int64_t blocks, int64_t m, int64_t D, void *x, k_rng rng, int chi)
{
    d->ops->random_orthogonal(d, t, blocks, m, D, x, rng, chi);
}
