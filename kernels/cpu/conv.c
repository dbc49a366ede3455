/* conv.c - kernels/conv.h: one product per tap over a block of tokens. */
#include "kernels/conv.h"
#include "kernels/cpu.h"

enum { BLOCK = 256 };                   /* tokens that one thread takes at a time */

/* Where W_tau of head h begins. */
static int64_t matrix(const k_conv *p, int h, int tau) { return ((int64_t)h * p->K + tau) * k_conv_size(p); }

/* y[n,D] += x[n,D] W_tau' (or W_tau if back). */
static void product(const k_conv *p, int h, int tau, int back, int n, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    const float *W = p->weight + matrix(p, h, tau);
    if (p->full) k_sgemm(0, !back, n, p->D, p->D, 1, x, (int)ldx, W, p->D, 1, y, (int)ldy);
    else for (int t = 0; t < n; t++, x += ldx, y += ldy) {
        #pragma omp simd
        for (int d = 0; d < p->D; d++) y[d] += W[d] * x[d];
    }
}

/* o[D] += W_tau x[D]. */
void k_conv_tap(const k_conv *p, int h, int tau, const float *x, float *o) { product(p, h, tau, 0, 1, x, p->D, o, p->D); }

/* o[D] = bias of head h. */
void k_conv_bias(const k_conv *p, int h, float *o)
{
    if (p->bias) memcpy(o, p->bias + (int64_t)h * p->D, (size_t)p->D * sizeof *o);
    else memset(o, 0, (size_t)p->D * sizeof *o);
}

/* y[t] += sum_tau W_tau x[t + s] (back: W_tau' x[t - s]) for the tokens t0..t1-1 of (b,h). */
static void convolve(const k_conv *p, int b, int h, int t0, int t1, k_heads x, k_heads y, int back)
{
    for (int tau = 0; tau < p->K; tau++) {
        int64_t s = back ? -k_conv_shift(p, tau) : k_conv_shift(p, tau), lo = t0 > -s ? t0 : -s, hi = t1 < p->T - s ? t1 : p->T - s;
        if (lo < hi) product(p, h, tau, back, (int)(hi - lo), k_row(x, b, h, lo + s), x.st, k_row(y, b, h, lo), y.st);
    }
}

/* y = bias + convolution, or the transposed one of gradients, over blocks of all heads. */
static void each_block(const k_conv *p, k_heads x, k_heads y, int back)
{
    int blocks = (p->T + BLOCK - 1) / BLOCK;
    int64_t units = (int64_t)p->B * p->H * blocks;
    #pragma omp parallel for schedule(static) num_threads(p->threads)
    for (int64_t u = 0; u < units; u++) {
        int b = (int)(u / blocks / p->H), h = (int)(u / blocks % p->H), t0 = (int)(u % blocks) * BLOCK, t1 = t0 + BLOCK < p->T ? t0 + BLOCK : p->T;
        for (int t = t0; t < t1; t++)
            if (back) memset(k_row(y, b, h, t), 0, (size_t)p->D * sizeof(float));
            else k_conv_bias(p, h, k_row(y, b, h, t));
        convolve(p, b, h, t0, t1, x, y, back);
    }
}

/* o [B,H,T,D], block by block. */
void k_conv_forward(const k_conv *p) { each_block(p, p->x, p->o, 0); }

/* dW_tau of head h += sum over the batch of do' x. */
static void weight_gradient(const k_conv *p, int h, int tau)
{
    float *dW = p->dweight + matrix(p, h, tau);
    int64_t s = k_conv_shift(p, tau), lo = s < 0 ? -s : 0, hi = s > 0 ? p->T - s : p->T;
    for (int b = 0; b < p->B && lo < hi; b++) {
        const float *g = k_row(p->d_o, b, h, lo), *x = k_row(p->x, b, h, lo + s);
        if (p->full) k_sgemm(1, 0, p->D, p->D, (int)(hi - lo), 1, g, (int)p->d_o.st, x, (int)p->x.st, 1, dW, p->D);
        else for (int64_t t = lo; t < hi; t++, g += p->d_o.st, x += p->x.st) {
            #pragma omp simd
            for (int d = 0; d < p->D; d++) dW[d] += g[d] * x[d];
        }
    }
}

/* dx by blocks, dweight by taps, dbias by heads. */
void k_conv_backward(const k_conv *p)
{
    int units = p->H * p->K;
    if (p->dx.p) each_block(p, p->d_o, p->dx, 1);
    if (p->dweight) {
        #pragma omp parallel for schedule(static) num_threads(p->threads)
        for (int u = 0; u < units; u++) weight_gradient(p, u / p->K, u % p->K);
    }
    for (int h = 0; p->dbias && h < p->H; h++) for (int b = 0; b < p->B; b++) for (int t = 0; t < p->T; t++)
        k_saxpy(p->D, 1, k_row(p->d_o, b, h, t), p->dbias + (int64_t)h * p->D);
}
