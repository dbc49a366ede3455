/* ops.h - what the kinds of nodes share: a forward, a backward and a builder each, in ops.c (products), ops_rows.c,
 * ops_elements.c and ops_loss.c.  Private to them.
 *
 * In backward, nn_into(g, n, i, &add) gives the gradient buffer of input i, NULL when nobody wants it, and says whether to
 * add to what is there.  Kernels that only add get the buffer zeroed first when they are its first writer (nn_zeroed). */
#ifndef NN_OPS_H
#define NN_OPS_H
#include "internal.h"
#include <string.h>

/* The gradient of input i, or NULL; *add: others wrote it before in this sweep (or, a parameter's, since zero_grad). */
void *nn_into(const nn_graph *, const node *, int i, int *add);
void *nn_zeroed(const nn_graph *, const node *, int i);     /* the same for kernels that can only add */
/* The product that makes the gradient of input i: k_gemm, or k_gemm_wide for a parameter's in bf16. */
typedef __typeof__(&k_gemm) product_fn;
product_fn nn_product_for(const nn_graph *, const node *, int i);
void nn_pass_gradient(const nn_graph *, const node *, int i);    /* of an input that is in the sum as it is (ops_elements.c) */
/* Records that a builder cannot take these inputs. */
nn_id nn_unfit(nn_graph *, const char *what, nn_id a, nn_id b, const char *want);
/* A buffer of the node's own, node.room; a sentence when there is none. */
int nn_take_room(nn_graph *, node *, size_t bytes, char *why, size_t nwhy);

static inline void *data(const nn_graph *g, nn_id id) { return id < 0 ? NULL : g->tensors[id].data; }
static inline void *out_grad(const nn_graph *g, const node *n) { return g->tensors[n->out].grad; }
static inline k_dtype type(const nn_graph *g, const node *n) { return g->tensors[n->out].dtype; }
static inline int64_t last(attn_dims d) { return d.d[d.n - 1]; }
static inline int is_index(const nn_graph *g, nn_id id) { return id >= 0 && g->tensors[id].dtype == K_I32; }

/* Whether id is a tensor of the parameters' dtype with n dimensions (0: any). */
static inline int is_real(const nn_graph *g, nn_id id, int n)
{
    return id >= 0 && g->tensors[id].dtype == g->params->dtype && (n == 0 || g->tensors[id].dims.n == n);
}

/* The same for what may be no parameter in bf16, whose gradient would be float. */
static inline int is_activation(const nn_graph *g, nn_id id, int n) { return is_real(g, id, n) && nn_is_narrow(g, id); }

/* Whether id is [n], and its gradient, if it has one, float in bf16: a bias, a gain. */
static inline int is_vector(const nn_graph *g, nn_id id, int64_t n)
{
    return is_real(g, id, 1) && nn_dims(g, id).d[0] == n && (g->params->dtype != K_BF16 || !nn_is_narrow(g, id) || !g->tensors[id].learns);
}

/* Whether id is made by a node, not given. */
static inline int is_made(const nn_graph *g, nn_id id)
{
    const tensor *t = id < 0 ? NULL : &g->tensors[g->tensors[id].root];
    return t && t->param < 0 && !t->input && !t->constant;
}

static inline int same_dims(attn_dims a, attn_dims b) { return a.n == b.n && memcmp(a.d, b.d, (size_t)a.n * sizeof *a.d) == 0; }
#endif
