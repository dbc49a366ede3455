/* tile.h - products of tiles that stay in the near caches, for attention and fast weights: no call into BLAS, no packing of A,
 * and twice the speed of BLAS at these sizes.
 *
 * The right factor lies as it came, or in panels of K_PANEL columns, so that a row of a panel is one cache line; the left one is
 * read where it is, by rows or by columns.  Two packings make panels: of the rows of a tensor as they are, and of its
 * columns, when the product is with the transpose. */
#ifndef KERNELS_CPU_TILE_H
#define KERNELS_CPU_TILE_H
#include <stdint.h>

enum { K_PANEL = 16, K_GROUP = 6 };     /* a product is fastest in groups of so many rows */

/* C [m,n] = A B, or C += A B with keep.  Element (r,e) of A [m,k] is a[r * rs + e * cs], one of the strides being 1;
 * row e of panel p of B [k,n] is b + p * bs + e * K_PANEL.  What is in a panel beyond column n has no effect. */
void k_tile_product(int m, int n, int k, const float *a, int64_t rs, int64_t cs, const float *b, int64_t bs, int keep, float *c,
                    int64_t ldc);

/* Panels of x [rows,width]: element (r,e) becomes to[e / 16 * bs + r * 16 + e % 16]; the columns behind are zeros. */
void k_tile_rows(int rows, int width, const float *x, int64_t ld, int64_t bs, float *to);
/* Panels of scale x', of bs = width * 16: element (r,e) becomes to[r / 16 * bs + e * 16 + r % 16]; the rows behind are zeros. */
void k_tile_columns(int rows, int width, float scale, const float *x, int64_t ld, float *to);

/* C [m,n] = A B + keep C for A [m,k], or with turned A' [k,m], and B [k,n], which nobody packs: rows of B can be read to whole
 * eights of columns.  keep 0 ignores what C held. */
void k_tile_plain(int turned, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb, float keep, float *c, int64_t ldc);
/* to [n,ldt] = x' for x [m,n]. */
void k_tile_transpose(int m, int n, const float *x, int64_t ld, float *to, int64_t ldt);

/* C [m,n] = scale A B' for A [m,k] and B [n,k], n <= K_TILE. */
enum { K_TILE = 64 };
void k_tile_dots(int m, int n, int k, float scale, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc);
/* C [m,n] = A B, or C += A B with keep, for A [m,k], or with turned A' [k,m], and B [k,n], k <= K_TILE. */
void k_tile_sums(int turned, int m, int n, int k, const float *a, int64_t lda, const float *b, int64_t ldb, int keep, float *c, int64_t ldc);
#endif
