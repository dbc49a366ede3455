/* cuda_impl.h - the implementations for a GPU, which are the same in every variant: the problem that its CPU kernels take is
 * handed on to a table of kernels/cuda.h, with the device's tensors and the host's stream. */
#ifndef CUDA_IMPL_H
#define CUDA_IMPL_H
#include "attn.h"
#include "kernels/cuda.h"
#include <stdio.h>

/* The same tensor, as kernels call it. */
static inline k_heads heads(attn_tensor t) { return (k_heads){ t.p, t.sb, t.sh, t.st }; }

/* [cold] Refuses where why is not NULL. */
static inline int refused(attn_plan *p, const char *why)
{
    if (why) snprintf(p->why, sizeof p->why, "%s", why);
    return why ? ATTN_EUNSUP : ATTN_OK;
}

/* Whatever fails while work is queued is the device's failure. */
static inline int queued(int code) { return code ? ATTN_EDEVICE : ATTN_OK; }

/* Defines impl_plan, impl_forward, impl_backward and impl_decode over the table k_cuda_<problem>, by four functions:
 *
 *   accepts(s, opts, p)    what every implementation plans, or a refusal; the sizes that are the kernels' own replace its
 *   of_shape(s, opts)      the problem of a shape, without tensors
 *   of_call(c)             the problem of a call
 *   of_step(c)             the problem of a call that decodes */
#define CUDA_IMPL(impl, problem, accepts, of_shape, of_call, of_step)                                             \
    static int impl##_plan(const attn_shape *s, const void *opts, attn_plan *p)                                   \
    {                                                                                                             \
        const k_cuda_##problem *table = K_CUDA(problem);                                                          \
        int rc = accepts(s, opts, p);                                                                             \
        if (rc != ATTN_OK) return rc;                                                                             \
        k_cuda_sizes z = { p->saved, p->scratch_fwd, p->scratch_bwd, p->scratch_dec, p->state };                  \
        __auto_type x = of_shape(s, opts);                                                                        \
        rc = refused(p, table ? table->plan(&x, (k_dtype)s->dtype, s->training, &z) : "this build has no CUDA half"); \
        p->saved = z.saved, p->state = z.state;                                                                   \
        p->scratch_fwd = z.scratch_fwd, p->scratch_bwd = z.scratch_bwd, p->scratch_dec = z.scratch_dec;           \
        return rc;                                                                                                \
    }                                                                                                             \
    static int impl##_forward(const attn_call *c)                                                                 \
    {                                                                                                             \
        __auto_type x = of_call(c);                                                                               \
        return queued(K_CUDA(problem)->forward(&x, (k_dtype)c->s->dtype, c->stream));                             \
    }                                                                                                             \
    static int impl##_backward(const attn_call *c)                                                                \
    {                                                                                                             \
        __auto_type x = of_call(c);                                                                               \
        return queued(K_CUDA(problem)->backward(&x, (k_dtype)c->s->dtype, c->stream));                            \
    }                                                                                                             \
    static int impl##_decode(const attn_call *c)                                                                  \
    {                                                                                                             \
        __auto_type x = of_step(c);                                                                               \
        return queued(K_CUDA(problem)->decode(&x, (k_dtype)c->s->dtype, c->state, c->pos, c->s->Tk, c->stream));  \
    }
#endif
