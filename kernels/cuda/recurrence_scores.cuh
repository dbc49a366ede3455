/* recurrence_scores.cuh - scores within a chunk whose channels fade each by itself.
 *
 * exp(b_i) / exp(b_j) is never formed, b the running sum of decays: it overflows.  A chunk is halved again and again.  With
 * half the size h and m the last row of the lower half, the pairs of an upper row i and a lower row j are
 *   P_ij = (q_i exp(b_i - b_m)) . (k_j exp(b_m - b_j)),
 * both fades at most 1.  So for each h one tile holds all rows, faded: those of q in upper halves, those of k in lower
 * ones.  Halves of 32 and 16 rows are blocks of 16 x 16 pairs; those of 8, 4, 2 and 1 lie within the blocks of the
 * diagonal, whose other pairs are masked; the diagonal itself does not fade. */
#ifndef KERNELS_CUDA_RECURRENCE_SCORES_CUH
#define KERNELS_CUDA_RECURRENCE_SCORES_CUH
#include "linattn_tile.cuh"

/* 1: rows i and j meet in half h, i in the upper and j in the lower one. */
static __device__ __forceinline__ int meets(int i, int j, int h) { return i / (2 * h) == j / (2 * h) && (i & h) && !(j & h); }
/* The row to whose fade the halves of row r are brought. */
static __device__ __forceinline__ int middle(int r, int h) { return r / (2 * h) * 2 * h + h - 1; }
/* First block of the lower half of block i, h >= 16; the upper one begins h / 16 blocks later. */
static __device__ __forceinline__ int first_block(int i, int h) { return 16 * i / (2 * h) * (h / 8); }

/* The tile of half h, by all threads. */
template <typename T> static __device__ __forceinline__ void make_half(const T *q, const T *k, const float *b, int h, T *half)
{
    __syncthreads();
    #pragma unroll 1
    for (int n = threadIdx.x; n < TILE * 8; n += THREADS) {
        int r = n / 8, c = n % 8 * 8;
        float x[8], y[8], z[8];
        read8((r & h ? q : k) + r * LD + c, x);
        read8(b + r * LD + c, y);
        read8(b + middle(r, h) * LD + c, z);
        #pragma unroll
        for (int e = 0; e < 8; e++) x[e] *= exponential<T>(r & h ? y[e] - z[e] : z[e] - y[e]);
        write8(half + r * LD + c, x);
    }
    __syncthreads();
}

/* p [16 rows of block i0 x 64] += the scores of half h over 64 columns; h = 0: of the diagonal, from the rows themselves. */
template <typename T> static __device__ __forceinline__ void half_scores(const T *q, const T *k, int i0, int h, acc p[BLOCKS])
{
    int from = h >= 16 ? first_block(i0, h) : i0, to = h >= 16 ? from + h / 16 : i0 + 1;
    if (h >= 16 && !(16 * i0 & h)) return;
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        if (j < from || j >= to) continue;
        acc s;
        clear(s);
        #pragma unroll
        for (int c = 0; c < TILE; c += 16) product(s, load_rows(q, 16 * i0, c), load_rows(k, 16 * j, c));
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = acc_row(n), c = acc_col(n);
            p[j].c[n] += h >= 16 || (h ? meets(r, c, h) : r == c) ? s.c[n] : 0;
        }
    }
}

/* Its gradient: dq of the rows of block i0 that lie in upper halves, dk of those in lower ones, 64 columns. */
template <typename T> static __device__ __forceinline__ void half_back(const T *dP, const T *half, const float *b, int i0, int h, acc dq[BLOCKS], acc dk[BLOCKS])
{
    int r0 = 16 * i0, upper = r0 & h;
    acc s[BLOCKS];
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) clear(s[c]);
    int from = h >= 16 ? first_block(i0, h) + (upper ? 0 : h / 16) : i0, to = h >= 16 ? from + h / 16 : i0 + 1;
    #pragma unroll 1
    for (int j = from; j < to; j++) {
        frag<T> p;
        if (h >= 16) p = upper ? load_rows(dP, r0, 16 * j) : load_cols(dP, 16 * j, r0);
        else {
            acc y;
            #pragma unroll
            for (int n = 0; n < 8; n++) {
                int r = acc_row(n), c = acc_col(n);
                y.c[n] = meets(r, c, h) ? to_float(dP[(r0 + r) * LD + r0 + c]) : meets(c, r, h) ? to_float(dP[(r0 + c) * LD + r0 + r]) : 0;
            }
            p = operand<T>(y);
        }
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) product(s[c], p, load_cols(half, 16 * j, 16 * c));
    }
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = r0 + acc_row(n), at = 16 * c + acc_col(n);
            float d = b[r * LD + at] - b[middle(r, h) * LD + at];
            if (r & h) dq[c].c[n] += s[c].c[n] * exponential<T>(d);
            else dk[c].c[n] += s[c].c[n] * exponential<T>(-d);
        }
    }
}

/* Pairs of a token with itself, which no decay stands in. */
template <typename T> static __device__ __forceinline__ void diagonal_back(const T *dP, const T *q, const T *k, int i0, acc dq[BLOCKS], acc dk[BLOCKS])
{
    #pragma unroll
    for (int c = 0; c < BLOCKS; c++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            int r = 16 * i0 + acc_row(n), d = 16 * c + acc_col(n);
            float p = to_float(dP[r * LD + r]);
            dq[c].c[n] += p * to_float(k[r * LD + d]);
            dk[c].c[n] += p * to_float(q[r * LD + d]);
        }
    }
}
#endif
