/* device.h - what stands behind the seam of kernels.h: one table of functions per kind of device.
 *
 * The public functions (kernels/cpu/dispatch.c) do nothing but call through dev->ops, and the accounts of
 * memory (kernels/cpu/memory.c) are the same for every device: a table only brings the raw bytes.  The CPU's
 * table is linked in; CUDA's is looked up by name in an object of its own when a CUDA device is asked for. */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H
#include "kernels.h"
#ifdef __cplusplus
#define K_TYPE_OF(f) decltype(f)
extern "C" {
#else
#define K_TYPE_OF(f) __typeof__(f)
#endif

/* Every kernel of kernels.h that a device computes, once: the table, the declarations and the dispatch
 * follow this list. */
#define K_KERNELS(X)                                                                              \
    X(zero) X(copy) X(upload) X(download) X(fill) X(convert)                                      \
    X(gemm) X(gemm_batched) X(gemm_wide) X(linear)                                                \
    X(axpy) X(scale) X(approach) X(add) X(mul) X(add_bias) X(sum_rows)                            \
    X(unary_forward) X(unary_backward)                                                            \
    X(dropout) X(tick) X(gather_rows) X(scatter_add_rows) X(one_hot_move)                         \
    X(pool_forward) X(pool_backward)                                                              \
    X(norm_forward) X(norm_backward) X(mean_weight)                                               \
    X(half_sq_forward) X(half_sq_backward) X(xent_forward) X(xent_backward) X(xent_both)          \
    X(adam_step) X(adafactor_step) X(clip_factor) X(sum_squares) X(all_finite)                     \
    X(sort_targets) X(log_softmax) X(when)                                                        \
    X(random_uniform) X(random_normal) X(random_orthogonal)

typedef struct k_ops {
    uint32_t size;                                  /* sizeof(k_ops): a table of another size is refused */
    int   (*open)(k_dev *, int index);              /* fills dev->state and dev->stream; sentence in dev->error */
    void  (*close)(k_dev *);
    int   (*sync)(k_dev *);
    void *(*take)(k_dev *, size_t bytes);           /* raw memory aligned to K_ALIGN, NULL when there is none */
    void  (*give)(k_dev *, void *, size_t bytes);
    size_t (*total)(k_dev *);                       /* bytes that the device has in all */
    K_TYPE_OF(k_memory_seen) *memory_seen;
    K_TYPE_OF(k_time) *time;
    K_TYPE_OF(k_set_tf32) *set_tf32;
    K_TYPE_OF(k_record) *record;
    K_TYPE_OF(k_replay) *replay;
    K_TYPE_OF(k_forget) *forget;                    /* of what is not NULL */
    K_TYPE_OF(k_range_push) *range_push;
    K_TYPE_OF(k_range_pop) *range_pop;
    K_TYPE_OF(k_dev_describe) *describe;
    void  (*set_bytes)(k_dev *, void *, int byte, size_t bytes);
#define X(name) K_TYPE_OF(k_##name) *name;
    K_KERNELS(X)
#undef X
} k_ops;

typedef struct k_block k_block;                     /* one k_alloc, see memory.c */

struct k_dev {
    const k_ops *ops;
    char name[32], error[256];
    int threads, is_cuda;
    void *stream, *state;                           /* of the device's own */
    k_block *blocks;                                /* newest first */
    size_t limit;                                   /* bytes, 0: none */
    k_phase phase;
    k_memory memory;
};

#define K_CUDA_OBJECT "libharness-cuda.so"          /* lies beside libharness.so */
#define K_CUDA_SYMBOL "k_cuda_ops_v1"               /* a const k_ops */

extern const k_ops k_cpu_ops;
void k_free_all(k_dev *);                           /* every block that is left */

#ifdef __cplusplus
}
#endif
#endif
