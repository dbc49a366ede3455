/* kernels.h - the seam between the mathematics of one device and everything above it.
 *
 * A k_dev is a device with its memory accounts, its threads (CPU) or its stream (CUDA).  Everything
 * above asks a k_dev for work and never knows which one it is.  kernels/cpu stands behind the seam
 * always; kernels/cuda is an object of its own, opened when a CUDA device is asked for.
 *
 * Invariants:
 *  1. Every kernel is deterministic: same input, same bits, whatever the number of threads.
 *  2. Work is queued in order; on the CPU it is done on return.  k_sync waits for the device.
 *  3. Pointers are the device's, dense, row-major, aligned to K_ALIGN when they come from k_alloc.
 *  4. dtype is K_F32 or K_F64 for every kernel unless its comment says otherwise.  CUDA takes K_BF16 as well and
 *     computes in float; what adds up over many rows then is float: C of k_gemm_wide, out of k_sum_rows, dtable of
 *     k_scatter_add_rows, dgain and dbias of k_norm_backward, the losses.  The optimiser's kernels never take it.
 *  5. Functions that can fail return 0 or a negative K_E code and leave the sentence in k_error(dev).
 *  6. Nothing allocates but k_dev_open, k_alloc and what their comments say. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum k_dtype { K_F32 = 1, K_BF16 = 2, K_F16 = 4, K_F64 = 8, K_I32 = 16 } k_dtype;   /* as ATTN_* */
enum { K_OK = 0, K_ENOMEM = -1, K_EDEVICE = -2, K_EINVAL = -3, K_EGUARD = -4 };
enum { K_ALIGN = 256 };
size_t      k_dtype_size(k_dtype);
const char *k_dtype_name(k_dtype);              /* "f32" ... */
int         k_dtype_parse(const char *name, k_dtype *out);

/* ---- devices ---------------------------------------------------------------------------------- */
typedef struct k_dev k_dev;
/* name: "cpu", "cuda", "cuda:1".  nthreads: CPU threads, 0 = OMP_NUM_THREADS or all cores.  err: the sentence on
 * failure. */
int  k_dev_open(const char *name, int nthreads, k_dev **out, char *err, size_t nerr);
void k_dev_close(k_dev *);                      /* frees all that is still allocated on it */
const char *k_dev_name(const k_dev *);          /* "cpu" or "cuda:0" */
int  k_dev_is_cuda(const k_dev *);
int  k_dev_threads(const k_dev *);
void *k_dev_stream(const k_dev *);              /* cudaStream_t, NULL on the CPU */
const char *k_error(const k_dev *);             /* the last failure, one sentence */
int  k_sync(k_dev *);                           /* K_EDEVICE when the device failed since it was opened */
/* "NVIDIA H200, compute capability 9.0, 132 SMs ...", in out or static. */
const char *k_dev_describe(k_dev *, char *out, size_t n);
void k_set_tf32(k_dev *, int on);               /* float products may round their operands to TF32 (CUDA); off at first */
void k_range_push(k_dev *, const char *name);   /* a named stretch of the host's time, for profilers (NVTX) */
void k_range_pop(k_dev *);
/* The BLAS behind the CPU: "OpenBLAS 0.3.21, kernels Zen".  k_blas_init picks the kernel set before the
 * first BLAS call (a generic set on a machine with AVX2 or AVX-512 is overridden, as OPENBLAS_CORETYPE is
 * read when the library loads: it re-executes the program once, so it is called first in main). */
void k_blas_init(char **argv);
const char *k_blas_describe(void);
const char *k_cpu_describe(void);               /* "AMD EPYC ..., 2 cores, avx2 fma" */

/* ---- memory: every byte has a tag, every moment a phase ----------------------------------------- */
typedef enum k_tag { K_TAG_PARAM, K_TAG_GRAD, K_TAG_OPTIMISER, K_TAG_ACTIVATION, K_TAG_SAVED,
                     K_TAG_WORKSPACE, K_TAG_STATE, K_TAG_DATA, K_TAGS } k_tag;
typedef enum k_phase { K_PHASE_SETUP, K_PHASE_FORWARD, K_PHASE_BACKWARD, K_PHASE_STEP, K_PHASE_EVAL,
                       K_PHASE_DECODE, K_PHASES } k_phase;
extern const char *const k_tag_names[K_TAGS], *const k_phase_names[K_PHASES];
typedef struct k_memory {
    size_t now, peak;                           /* bytes in all */
    size_t now_tag[K_TAGS], peak_tag[K_TAGS];
    size_t peak_phase[K_PHASES];                /* peak of all bytes while in that phase */
    size_t peak_phase_tag[K_PHASES][K_TAGS];    /* bytes of each tag at that moment */
} k_memory;
/* Zero-filled when bytes are few is not promised: in debug builds (K_DEBUG) memory is poisoned with 0xFF,
 * a NaN in every dtype.  Guard bytes lie on both sides in every build; k_check_guards and k_free look at
 * them.  On failure *out is NULL and k_error tells bytes asked and bytes free. */
int  k_alloc(k_dev *, k_tag, size_t bytes, void **out);
void k_free(k_dev *, void *);                   /* NULL is fine */
void k_set_phase(k_dev *, k_phase);
void k_memory_read(const k_dev *, k_memory *);
void k_set_limit(k_dev *, size_t bytes);        /* k_alloc beyond it fails with K_ENOMEM; 0: no limit */
int  k_check_guards(k_dev *, char *what, size_t nwhat);  /* K_EGUARD and "activations buffer of 4096 bytes, 3 bytes past its end" */

/* An arena: one block, filled from the front, emptied at once. */
typedef struct k_arena { k_dev *dev; char *base; size_t size, used, peak; } k_arena;
int   k_arena_init(k_arena *, k_dev *, k_tag, size_t bytes);
void *k_arena_take(k_arena *, size_t bytes);    /* aligned to K_ALIGN; NULL when full */
void  k_arena_reset(k_arena *);
void  k_arena_release(k_arena *);

/* What the system sees, to hold the accounts against: bytes in use on the whole device (CUDA), or the most that this
 * process ever had resident (CPU). 0: it does not tell. */
size_t k_memory_seen(k_dev *);

/* ---- time ------------------------------------------------------------------------------------------- */
/* Seconds that the device takes for what work(arg) queues, queueing left out; cold: with nothing of it in the caches.
 * Negative when work did not return 0 or the device failed.  Waits. */
double k_time(k_dev *, int (*work)(void *), void *arg, int cold);

/* ---- recording: a CUDA graph ---------------------------------------------------------------------------- */
/* Calls work(arg) once and keeps what it queues instead of running it, with its pointers and numbers; k_replay queues all
 * of it at once.  NULL: the device keeps no recordings (CPU), or the work failed, waited or read the host's memory; then
 * nothing has run. */
typedef struct k_recording k_recording;
k_recording *k_record(k_dev *, int (*work)(void *), void *arg);
void k_replay(k_dev *, k_recording *);
void k_forget(k_dev *, k_recording *);          /* NULL is fine */

/* ---- moving ----------------------------------------------------------------------------------------- */
void k_zero(k_dev *, void *x, size_t bytes);
void k_copy(k_dev *, void *dst, const void *src, size_t bytes);             /* device to device */
void k_upload(k_dev *, void *dst, const void *host_src, size_t bytes);
void k_download(k_dev *, void *host_dst, const void *src, size_t bytes);    /* waits */
void k_fill(k_dev *, k_dtype, int64_t n, void *x, double value);
void k_convert(k_dev *, int64_t n, void *dst, k_dtype to, const void *src, k_dtype from);

/* ---- products ----------------------------------------------------------------------------------------- */
/* C[m,n] = alpha op(A) op(B) + beta C; op is transposition when ta / tb; ld in elements, row-major. */
void k_gemm(k_dev *, k_dtype, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
            const void *A, int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc);
/* The same nbatch times; s_: distance of one batch to the next, in elements (0 = shared, inputs only). */
void k_gemm_batched(k_dev *, k_dtype, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                    const void *A, int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB,
                    double beta, void *C, int64_t ldc, int64_t sC, int64_t nbatch);
/* k_gemm that leaves the sums of K_BF16 in float: C is float then, and of the dtype otherwise. */
void k_gemm_wide(k_dev *, k_dtype, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                 const void *A, int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc);
/* y [rows,width] = x [rows,depth] w [width,depth]^T + bias [width], NULL: none; one pass over y for K_BF16. */
void k_linear(k_dev *, k_dtype, int64_t rows, int64_t width, int64_t depth, void *y, const void *x, const void *w, const void *bias);

/* ---- element-wise -------------------------------------------------------------------------------------- */
void k_axpy(k_dev *, k_dtype, int64_t n, double a, const void *x, void *y);              /* y += a x */
void k_scale(k_dev *, k_dtype, int64_t n, double a, void *y, const void *x);             /* y = a x; y may be x */
void k_approach(k_dev *, k_dtype, int64_t n, double rate, void *y, const void *x);       /* y += rate (x - y) */
void k_add(k_dev *, k_dtype, int64_t n, void *out, const void *x, const void *y);
void k_mul(k_dev *, k_dtype, int64_t n, int add, void *out, const void *x, const void *y);  /* out = (add ? out : 0) + x y */
void k_add_bias(k_dev *, k_dtype, int64_t rows, int64_t d, void *y, const void *x, const void *bias);   /* y[rows,d] = x + bias[d]; y may be x */
void k_sum_rows(k_dev *, k_dtype, int64_t rows, int64_t d, const void *x, void *out);    /* out[d] += sum over rows */
typedef enum k_unary { K_RELU, K_SIGMOID, K_TANH, K_EXP, K_SILU, K_GELU, K_SOFTPLUS, K_ELU1, K_UNARIES } k_unary;
/* gelu is x times the normal distribution function (erf); elu1 is elu + 1; softplus is exact for all x. */
void k_unary_forward(k_dev *, k_dtype, k_unary, int64_t n, void *y, const void *x);
/* dx = (add ? dx : 0) + dy f'(x) */
void k_unary_backward(k_dev *, k_dtype, k_unary, int64_t n, int add, void *dx, const void *dy, const void *x, const void *y);
/* y = (add ? y : 0) + x / (1 - p) where an element is kept, which word i of (seed, stream, *draw) decides: it is at least
 * 2^32 p.  Applied to dy it gives dx.  draw is the device's, so that a recorded call drops other elements when it has changed. */
void k_dropout(k_dev *, k_dtype, int64_t n, double p, uint64_t seed, uint32_t stream, const uint32_t *draw, int add, void *y, const void *x);
void k_tick(k_dev *, uint32_t *count);          /* ++*count, the device's */

/* ---- rows of a table (embeddings) ----------------------------------------------------------------------- */
/* out[i,:] = (accumulate ? out[i,:] : 0) + table[idx[i],:], i < n.  idx is int32 in 0..rows-1. */
void k_gather_rows(k_dev *, k_dtype, int64_t n, int64_t d, void *out, const void *table, const int32_t *idx, int accumulate);
/* dtable[idx[i],:] += dout[i,:] in the order of i, so that the sum is the same on every run. */
void k_scatter_add_rows(k_dev *, k_dtype, int64_t n, int64_t d, int64_t rows, void *dtable, const void *dout, const int32_t *idx);
/* x[i,:] holds a one at shown[i] (or nothing but zeros) and will hold one at idx[i] alone; shown becomes idx. */
void k_one_hot_move(k_dev *, k_dtype, int64_t n, int64_t d, void *x, const int32_t *idx, int32_t *shown);

/* ---- sequences -------------------------------------------------------------------------------------------- */
/* out[b,:] is the mean of the first len[b] rows of x [B,rows,d], 0 when there is none; len NULL: of all.  backward: those rows of dx
 * are (add ? dx : 0) + dout[b,:] / len[b], the others (add ? dx : 0). */
void k_pool_forward(k_dev *, k_dtype, int64_t B, int64_t rows, int64_t d, void *out, const void *x, const int32_t *len);
void k_pool_backward(k_dev *, k_dtype, int64_t B, int64_t rows, int64_t d, int add, void *dx, const void *dout, const int32_t *len);

/* ---- normalisation and losses ------------------------------------------------------------------------------ */
/* y = gain (x - m) / sqrt(mean((x - m)^2) + eps) + bias per row of d; m is the row's mean, or 0 for K_NORM_RMS; gain and bias
 * [d] may be NULL.  backward: dx = (add ? dx : 0) + ..., dgain and dbias += ...; each of them may be NULL. */
typedef enum k_norm_kind { K_NORM_LAYER, K_NORM_RMS } k_norm_kind;
void k_norm_forward(k_dev *, k_dtype, k_norm_kind, int64_t rows, int64_t d, double eps, void *y, const void *x, const void *gain, const void *bias);
void k_norm_backward(k_dev *, k_dtype, k_norm_kind, int64_t rows, int64_t d, double eps, int add, void *dx, void *dgain, void *dbias,
                     const void *dy, const void *x, const void *gain);
/* *weight (the device's) = 1 / how many of n targets are not -1, 0 when none is: the weight of a row in their mean. */
void k_mean_weight(k_dev *, int64_t n, const int32_t *target, double *weight);
/* loss[i] = 0.5 |y_i - onehot(target[i])|^2; a target of -1 gives loss 0 and gradient 0.
 * backward: dy[i,:] = (add ? dy[i,:] : 0) + *w (y_i - onehot(target[i])); w is the device's. */
void k_half_sq_forward(k_dev *, k_dtype, int64_t rows, int64_t d, void *loss, const void *y, const int32_t *target);
void k_half_sq_backward(k_dev *, k_dtype, int64_t rows, int64_t d, const double *w, int add, void *dy, const void *y, const int32_t *target);
/* Softmax cross-entropy by row against q = (1 - smoothing) onehot(target[i]) + smoothing / d: loss[i] = lse(y_i) - q y_i; its
 * gradient is *w (softmax - q).  k_xent_both gives the loss and leaves the gradient in the place of y, zeros in the gaps.  Rows lie ld apart. */
void k_xent_forward(k_dev *, k_dtype, int64_t rows, int64_t d, int64_t ld, double smoothing, void *loss, const void *y, const int32_t *target);
void k_xent_backward(k_dev *, k_dtype, int64_t rows, int64_t d, double smoothing, const double *w, int add, void *dy, const void *y,
                     const int32_t *target);
void k_xent_both(k_dev *, k_dtype, int64_t rows, int64_t d, int64_t ld, double smoothing, const double *w, void *loss, void *y,
                 const int32_t *target);

/* ---- a vocabulary in clusters: a head of the words below cut[0], tails of those from cut[i] to cut[i + 1], the last one's end open */
enum { K_TAILS = 8 };
typedef struct k_clusters { int tails; int32_t cut[K_TAILS]; } k_clusters;
/* Rows in the order of their target's tail, the others behind them, in each as they came: row[p] stands at p, row r at place[r].
 * word [1 + tails,n] of place p: in the head the target, or cut[0] + its tail; in each tail the target's number there; -1: none.
 * some [tails,chunks of `chunk` places]: whether any word of that tail and chunk is one. */
void k_sort_targets(k_dev *, int64_t n, const int32_t *target, const k_clusters *, int64_t chunk, int32_t *row, int32_t *place, int32_t *word, int32_t *some);
/* out[r,j] = y[r,j] - log sum exp(y[r,0..d-1]) (+ plus[r every]) for j < take; rows of y and out lie ld and ldo apart; out may be y. */
void k_log_softmax(k_dev *, k_dtype, int64_t rows, int64_t d, int64_t take, void *out, int64_t ldo, const void *y, int64_t ld, const void *plus, int64_t every);
/* Calls work(arg) if *flag (the device's) is not 0, or if the host cannot know that: where it is 0 the work must change nothing. */
int  k_when(k_dev *, const int32_t *flag, int (*work)(void *), void *arg);

/* ---- optimiser ------------------------------------------------------------------------------------------------ */
typedef struct k_adam { double lr, beta1, beta2, eps, weight_decay; int decoupled; int64_t step; } k_adam;  /* step from 1 */
/* Kingma & Ba 2015 with bias correction as torch.optim.Adam computes it: eps is added after the square root
 * of the corrected second moment; decoupled: AdamW.  g is multiplied by *gscale (the device's; NULL: 1) first. */
void k_adam_step(k_dev *, k_dtype, int64_t n, void *p, const void *g, void *m, void *v, const k_adam *, const double *gscale);
/* Shazeer & Stern 2018 on p, g [rows,d]: the means of g^2 + eps over each row and each column move by 1 - beta2 into row [rows] and
 * column [d], whose products, over the mean of row, stand for the second moments; row NULL: column [rows d] are these themselves.
 * u = g over their roots, divided by max(1, rms(u) / clip), is taken from p (times keep) at this rate; least > 0: at the rate
 * times max(least, rms(p)).  g is multiplied by *gscale (the device's; NULL: 1) first. */
typedef struct k_adafactor { double rate, least, beta2, eps, clip, keep; } k_adafactor;
void k_adafactor_step(k_dev *, k_dtype, int64_t rows, int64_t d, void *p, const void *g, void *row, void *column, const k_adafactor *, const double *gscale);
/* *factor (the device's) = bound / |x| where |x| exceeds bound, else 1: what clips a gradient. */
void k_clip_factor(k_dev *, k_dtype, int64_t n, const void *x, double bound, double *factor);
double k_sum_squares(k_dev *, k_dtype, int64_t n, const void *x);                        /* waits */
int    k_all_finite(k_dev *, k_dtype, int64_t n, const void *x);                         /* waits */

/* ---- randomness: Philox4x32-10, counter-based, same bits on every device --------------------------------------- */
/* Element i of stream (seed, stream, draw) depends on nothing else.  It is made of word i % 4 of counter block
 * i / 4 (kernels/philox.h): uniform from the word's 32 bits; normal from the words of its pair, i and i ^ 1
 * (kernels/normal.h).  All is computed in double and rounded last: the values of K_F32 are the rounded values of
 * K_F64, except that a uniform number that rounds up to hi becomes the number below it. */
typedef struct k_rng { uint64_t seed; uint32_t stream, draw; } k_rng;
void k_random_uniform(k_dev *, k_dtype, int64_t n, void *x, k_rng, double lo, double hi); /* in [lo, hi) */
void k_random_normal(k_dev *, k_dtype, int64_t n, void *x, k_rng, double mean, double sd); /* Box-Muller on pairs */
/* Random features, [blocks][m,D]: orthonormal rows in blocks of D (QR of a Gaussian, signs of R's diagonal),
 * scaled as ATTN_INIT_ORTHO_CHI (chi = 1) or to sqrt(D) (chi = 0).  Computed in double on the host, in room from
 * the heap. */
void k_random_orthogonal(k_dev *, k_dtype, int64_t blocks, int64_t m, int64_t D, void *x, k_rng, int chi);

#ifdef __cplusplus
}
#endif
#endif
