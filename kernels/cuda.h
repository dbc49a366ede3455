/* cuda.h - the mixers' kernels on CUDA, as variants call them.
 *
 * Every problem of kernels/ that has a form for the GPU is one file of kernels/cuda, and exports one table
 * k_cuda_<problem>_v1 over the very struct that the CPU's kernels take:
 *   - tensors (k_heads, k_rows), states and saved are the device's; q k v o and gates, and their gradients, are of the
 *     dtype given, K_F32 or K_BF16; params, states and their gradients are float; sums are float throughout;
 *   - klen is the device's; `threads` and the fields of the reference mean nothing.
 * plan() is host code and refuses with a sentence; what it accepts, the passes compute.  The passes queue work on the
 * stream, wait for nothing, allocate nothing, and give the same bits every time.  They return 0 or K_EDEVICE. */
#ifndef KERNELS_CUDA_H
#define KERNELS_CUDA_H
#include "conv.h"
#include "flash.h"
#include "fast_weights.h"
#include "kernels.h"
#include "linear_attention.h"
#include "lsh.h"
#include "lstm.h"
#include "recurrence.h"
#include "relative.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of an accepted problem. */
typedef struct k_cuda_sizes { size_t saved, scratch_fwd, scratch_bwd, scratch_dec, state; } k_cuda_sizes;

#define K_CUDA_PROBLEM(problem, type)                                                                            \
    typedef struct k_cuda_##problem {                                                                            \
        uint32_t size;                      /* sizeof this table: another is refused */                          \
        /* NULL, or why there is no CUDA form of it. */                                                          \
        const char *(*plan)(const type *, k_dtype, int training, k_cuda_sizes *);                                \
        int (*forward)(const type *, k_dtype, void *stream);                                                     \
        int (*backward)(const type *, k_dtype, void *stream);                                                    \
        /* Causal; Tq new tokens at position pos of a state for capacity tokens. */                              \
        int (*decode)(const type *, k_dtype, void *state, int64_t pos, int64_t capacity, void *stream);          \
    } k_cuda_##problem

K_CUDA_PROBLEM(attention, k_attention);             /* attention.cu: softmax over any mask */
K_CUDA_PROBLEM(linattn, k_linattn);                 /* linattn.cu: linear, performer, performer_generalized */
K_CUDA_PROBLEM(fast_weights, k_fast_weights);       /* fast_weights.cu: fwp */
K_CUDA_PROBLEM(recurrence, k_recurrence);           /* recurrence.cu: retention, gla, gated_deltanet, mamba2 */
K_CUDA_PROBLEM(lsh, k_lsh);                         /* lsh.cu */
K_CUDA_PROBLEM(relative, k_relative);               /* relative.cu */
K_CUDA_PROBLEM(lstm, k_lstm);                       /* lstm.cu */
K_CUDA_PROBLEM(conv, k_conv);                       /* conv.cu */

typedef struct k_identity {                         /* o = v; query head h passes the value of head h Hk / Hq */
    int B, Hq, Hk, T, Dk, Dv;
    k_heads v, o, d_o, dq, dk, dv;
} k_identity;
K_CUDA_PROBLEM(identity, k_identity);               /* identity.cu */

/* The table of a problem, "attention" ..., or NULL when this build or this machine has none.  Looked up once. */
const void *k_cuda_table(const char *problem, size_t size);
#define K_CUDA(problem) ((const k_cuda_##problem *)k_cuda_table(#problem, sizeof(k_cuda_##problem)))

#ifdef __cplusplus
}
#endif
#endif
