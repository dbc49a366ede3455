/* recurrence_scores.cuh - scores within a chunk whose channels fade each by itself.
 *
 * exp(b_i) / exp(b_j) is never formed, b the running sum of decays: it overflows.  A chunk is halved again and again.  With
 * half the size h and m the last row of the lower half, the pairs of an upper row i and a lower row j are
 *   P_ij = (q_i exp(b_i - b_m)) . (k_j exp(b_m - b_j)),
 * both fades at most 1.  Halves of 32 and 16 rows are blocks of 16 x 16 pairs; those of 8, 4, 2 and 1 lie within the
 * blocks of the diagonal, whose other pairs are masked; the diagonal itself (half 0) fades by nothing. */
#ifndef KERNELS_CUDA_RECURRENCE_SCORES_CUH
#define KERNELS_CUDA_RECURRENCE_SCORES_CUH
#include "linattn_tile.cuh"

/* The halves in which block i of 16 rows meets block j <= i. */
static __device__ __forceinline__ int first_half(int i, int j) { return i == j ? 8 : i / 2 == j / 2 ? 16 : 32; }
/* 1: rows i and j meet in half h. */
static __device__ __forceinline__ int meets(int i, int j, int h)
{
    return h == 0 ? i == j : i / (2 * h) == j / (2 * h) && (i & h) && !(j & h);
}
/* The fade of row r, column c in half h: of upper rows from the middle, of lower ones to it; 0 of the others. */
static __device__ __forceinline__ float half_fade(const float *b, int r, int c, int h, int upper)
{
    if (h == 0) return 1;
    if (!(r & h) == upper) return 0;
    int m = r / (2 * h) * 2 * h + h - 1;
    float d = b[r * LD + c] - b[m * LD + c];
    return __expf(upper ? d : -d);
}

/* Rows row.. and columns col.. of x, faded, as an operand: rows x columns, or columns x rows if turned. */
template <typename T> static __device__ __forceinline__ frag<T> faded_operand(const T *x, const float *b, int row, int col, int h, int upper, int turned)
{
    acc y;
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = row + (turned ? acc_col(i) : acc_row(i)), c = col + (turned ? acc_row(i) : acc_col(i));
        y.c[i] = to_float(x[r * LD + c]) * half_fade(b, r, c, h, upper);
    }
    return operand<T>(y);
}

/* P of block i against block j <= i over the 64 columns of q, k and b, added to p. */
template <typename T> static __device__ __forceinline__ void channel_scores(const T *q, const T *k, const float *b, int i, int j, acc &p)
{
    #pragma unroll 1
    for (int h = first_half(i, j); ; h /= 2) {
        acc s;
        clear(s);
        #pragma unroll 1
        for (int c = 0; c < TILE; c += 16)
            product(s, faded_operand(q, b, 16 * i, c, h, 1, 0), faded_operand(k, b, 16 * j, c, h, 0, 0));
        #pragma unroll
        for (int n = 0; n < 8; n++) p.c[n] += meets(16 * i + acc_row(n), 16 * j + acc_col(n), h) ? s.c[n] : 0;
        if (h == 0 || i != j) return;
    }
}

/* Block (i,j) of dP, of pairs that meet in half h alone, as an operand: its rows x columns, or turned. */
template <typename T> static __device__ __forceinline__ frag<T> met_operand(const T *dP, int i, int j, int h, int turned)
{
    acc y;
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        int r = 16 * i + (turned ? acc_col(n) : acc_row(n)), c = 16 * j + (turned ? acc_row(n) : acc_col(n));
        y.c[n] = meets(r, c, h) ? to_float(dP[r * LD + c]) : 0;
    }
    return operand<T>(y);
}

/* The gradient of channel_scores.  upper: dq of rows 16 i.. from the keys of block j;  else dk of rows 16 j.. from the
 * queries of block i.  64 columns, added to d. */
template <typename T> static __device__ __forceinline__ void channel_scores_back(const T *dP, const T *other, const float *b, int i, int j, int upper, acc d[BLOCKS])
{
    #pragma unroll 1
    for (int h = first_half(i, j); ; h /= 2) {
        frag<T> p = met_operand(dP, i, j, h, !upper);
        #pragma unroll
        for (int c = 0; c < BLOCKS; c++) {
            acc s;
            clear(s);
            product(s, p, faded_operand(other, b, 16 * (upper ? j : i), 16 * c, h, !upper, 1));
            #pragma unroll
            for (int n = 0; n < 8; n++) d[c].c[n] += s.c[n] * half_fade(b, 16 * (upper ? i : j) + acc_row(n), 16 * c + acc_col(n), h, upper);
        }
        if (h == 0 || i != j) return;
    }
}
#endif
