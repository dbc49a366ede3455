/* internal.h - what the files of nn/ know of each other.  Private to nn/.
 *
 * How the tape is meant to grow:
 *  - Encoder-decoder models: nothing here knows the order of layers; cross attention is nn_attention with another
 *    k and v, and shared embeddings are one parameter used twice (edges accumulate).
 *  - CUDA: nodes call kernels.h only and hold device pointers; nothing looks at device data between the batch and the
 *    optimiser's step, so that the host may run ahead of the device. */
#ifndef NN_INTERNAL_H
#define NN_INTERNAL_H
#include "nn.h"

/* ---- parameters -------------------------------------------------------------------------------------- */
typedef struct param {
    char *name;
    attn_dims dims;
    attn_init init;
    int32_t flags;
    uint32_t stream;                    /* FNV-1a of the name: its stream of random numbers */
    int64_t n, offset;                  /* elements; where it begins in the blocks, in elements */
    int64_t second;                     /* where Adafactor's moments of it begin, in elements */
    int fresh;                          /* its gradient is zero without having been written so: see params.c */
} param;

struct nn_params {
    k_dev *dev;
    k_dtype dtype, wide;                /* of tensors in graphs; of the blocks: float when that is bf16, else the same */
    uint64_t seed;
    int count, capacity;
    param *list;
    int allocated;
    int64_t decayed, tables, learned, all;  /* elements with padding: [0,decayed) [decayed,tables) [tables,learned) [learned,all) */
    char *value, *grad;                 /* blocks of the device: all, learned elements */
    int moments;                        /* which of these there are, or will be: */
    char *m, *v;                        /* of Adam, learned elements each */
    char *second;                       /* of Adafactor: of a matrix a mean per row and one per column, of others like v */
    char *average;                      /* of the values, learned elements; NULL: nobody asked for it */
    char *seen;                         /* the values as graphs see them: `value`, or that rounded to bf16 */
    double *factor;                     /* of the device: what clips this step's gradient */
    uint32_t *forwards;                 /* of the device: forwards of training graphs so far; numbers the masks of dropout */
    int64_t step;                       /* of the optimiser, taken so far */
    char why[200];                      /* the first mistake of nn_param */
    size_t *counted;                    /* [K_TAGS] not NULL: of what would be taken, by tag, and nothing is */
};

/* Writes the zeros that nn_params_zero_grad promised and no backward overwrote. */
void nn_params_settle(nn_params *);
void *nn_param_seen(nn_params *, int);  /* the value in the graphs' dtype */
int64_t nn_param_rows(const nn_params *, int);  /* rows in memory: of a matrix a multiple of 8, those beyond its own are zero */
void nn_params_round(nn_params *);      /* after the values have changed: graphs see the new ones */
/* What an optimiser keeps beside the values, zero at first: with nn_params_alloc, or at once after it.  The same again does nothing,
 * another is refused. */
enum { NN_MOMENTS_NONE, NN_MOMENTS_ADAM, NN_MOMENTS_FACTORED };
int  nn_params_take_moments(nn_params *, int which, char *why, size_t nwhy);
/* The moving average of the learned values: begun with them; moved towards them, 1 - decay of the way; in the place of them,
 * and they in its place, which takes the gradients' room. */
int  nn_params_average(nn_params *, char *why, size_t nwhy);
void nn_params_average_step(nn_params *, double decay);
void nn_params_swap(nn_params *);
uint32_t nn_fnv1a(const char *name);
/* Adds what nn_params_alloc would take, by tag. */
int nn_params_count_bytes(const nn_params *, size_t bytes[K_TAGS], char *why, size_t nwhy);

/* ---- graphs --------------------------------------------------------------------------------------------- */
enum { NN_MAX_IN = 4 + 2 * ATTN_MAX };  /* attention: q, k, v, gates, params, klen */

typedef struct tensor {
    k_dtype dtype;
    attn_dims dims;
    int64_t n;                          /* elements */
    nn_id root;                         /* the tensor whose buffers it shares: itself, unless a reshape */
    int param;                          /* of nn_params, -1 = none */
    int input, learns, live;            /* filled by the caller; depends on a learned parameter; and the loss on it */
    int kept;                           /* nn_keep */
    int held;                           /* nn_hold */
    int spent;                          /* another has taken its place: nn_reversible_add */
    void *data, *grad;                  /* of a root */
    void *constant;                     /* on the host: what data holds from compiling on, float, or i32 of an i32; NULL: no constant */
} tensor;

typedef struct node node;
enum { NN_READS_IN = 1, NN_READS_OUT = 2 };
typedef struct op {                     /* one kind of node */
    const char *name;
    int (*forward)(nn_graph *, node *);
    int (*backward)(nn_graph *, node *);    /* reads the gradient of out; see nn_into() for those of in */
    int (*compile)(nn_graph *, node *, char *why, size_t nwhy);     /* takes what the node needs of its own; may be NULL */
    int loss;                           /* whether out is losses by row */
    int reads;                          /* whose data backward looks at: NN_READS_IN | NN_READS_OUT */
    int passes;                         /* to how many inputs, from the first on, nn_pass_gradient hands the gradient of out */
} op;

typedef struct attention {              /* what a node of nn_attention owns */
    nn_mixer_spec spec;
    attn_plan plan;
    size_t saved_at;                    /* where in the graph's `saved` its own is, of a node that backward runs again */
    uint64_t seed;
    int64_t capacity;                   /* tokens of decode state, 0 = none */
    nn_mixer *mixer;
    nn_mixer_io io;
    void *extra[NN_MAX_IN];             /* a gradient that is added to another: where the variant overwrites */
} attention;

struct node {
    const op *op;
    nn_id in[NN_MAX_IN], out;           /* roots; NN_NONE: absent */
    int n_in, live;                     /* live: takes part in backward */
    int reads;                          /* as its op's */
    int once;                           /* decoding: depends on nothing but what is held */
    int segment, again;                 /* of nn_recompute, from 1 on, 0 = none; whether backward runs it forward again there */
    uint8_t add[NN_MAX_IN];             /* another consumer wrote this input's gradient before */
    int64_t rows, width, depth;         /* sizes of the kernel call; meaning by op */
    int64_t chunk;                      /* rows at a time, where that is not all */
    double number;                      /* eps, probability, factor, smoothing; by op */
    uint32_t stream;                    /* of random numbers */
    k_unary unary;
    k_norm_kind norm;
    k_clusters clusters;                /* of the words of an adaptive softmax */
    attention *attention;
    int carried;                        /* which of the graph's: nn_remember */
    void *room;                         /* to work in, see the op's compile */
    int shares;                         /* whether that is the graph's */
    double *weight;                     /* losses: of the device, what each row of the last forward weighs in the mean */
};

typedef struct decoding {               /* of a graph that decodes, see decode.c */
    int64_t capacity, at;               /* tokens of a sequence at most, 0 = the graph does not decode; and so far */
    int B, tokens;                      /* sequences; tokens of each at a time */
    nn_id places;                       /* nn_places, NN_NONE = nobody asked */
    int32_t *host, *source;             /* [B,tokens] places on the host; [B] of the device */
    void *room;                         /* as much as the largest state */
} decoding;

struct nn_graph {
    nn_params *params;
    k_dev *dev;
    int training, compiled;
    nn_plan *plan;                      /* not NULL: compiling counts here what it would take (nn_take) */
    int ordered;                        /* plan_backward has run */
    int ntensors, tensor_capacity, nnodes, node_capacity;
    tensor *tensors;
    node *nodes;
    void *pool;                         /* [pool_bytes] where tensors take turns, see memory.c */
    int64_t pool_bytes;
    void *room, *saved;                 /* where nodes take turns: to work in; what mixers of one segment save */
    size_t room_bytes, saved_bytes, segment_saved;      /* the last: of the segment that is being compiled */
    int saving;                         /* that segment */
    nn_id loss;                         /* root of the loss rows, NN_NONE = none */
    node *loss_node;
    void *loss_host;                    /* the loss rows on the host */
    k_recording *recording, *more;      /* of a step with fresh gradients; of one that adds to what such a step left; NULL: none */
    int64_t steps, more_steps;          /* of nn_step, of either kind */
    unsigned char *written;             /* by parameter: the recorded step writes its gradient */
    int stepping;                       /* in nn_step: backward follows this forward at once */
    int dropouts;                       /* nodes that drop */
    decoding decoding;
    int carries, ncarried;              /* nn_graph_carry; how much is carried on, see carry.c */
    struct carried *carried;
    int64_t chunk_bytes;                /* of what is never made whole: so much of it at a time */
    int segment, segments;              /* of nn_recompute: that which is open, 0 = none; how many there are */
    int code;                           /* the first mistake, and its sentence */
    char why[256];
};

void nn_release_attention(nn_graph *, attention *);
/* decode.c: tokens of decode state of attention in this mode; what compiling, a forward's beginning and the end of the graph add. */
int64_t nn_capacity(const nn_graph *, int mode);
void nn_decode_mark(nn_graph *);
int nn_decode_take(nn_graph *, char *why, size_t nwhy);
int nn_decode_begin(nn_graph *);
void nn_decode_release(nn_graph *);
/* carry.c: buffers of which a forward reads one and writes the other; what a forward's beginning and the end of the graph add. */
int nn_carry_take(nn_graph *, size_t bytes, void **in, void **out, char *why, size_t nwhy);
void nn_carry_begin(nn_graph *);
void nn_carry_release(nn_graph *);
void nn_step_release(nn_graph *);       /* step.c */
/* plan.c: k_alloc, or, where a graph is planned, NULL and a number in its plan. */
int nn_take(nn_graph *, k_tag, size_t bytes, void **out);
void nn_share_room(nn_graph *, size_t bytes);   /* plan.c: the graph's room has at least so many bytes */
/* graph.c: the first mistake of a recording; all that a graph takes, in order. */
int nn_check_recording(nn_graph *, char *why, size_t nwhy);
int nn_compile_parts(nn_graph *, char *why, size_t nwhy);
/* memory.c: buffers of all tensors of a graph whose backward is planned; and their end. */
int nn_take_tensors(nn_graph *, char *why, size_t nwhy);
void nn_free_tensors(nn_graph *);
int nn_is_narrow(const nn_graph *, nn_id);  /* its gradient is of its own dtype: all but a parameter's in bf16 */

/* graph.c, for builders.  All do nothing and return NN_BAD once a mistake is recorded. */
__attribute__((format(printf, 3, 4)))
nn_id nn_fail(nn_graph *, int code, const char *format, ...);
nn_id nn_new_tensor(nn_graph *, k_dtype, attn_dims, const char *what);
node *nn_new_node(nn_graph *, const op *, const nn_id *in, int n_in, k_dtype, attn_dims);   /* NULL after a mistake */
int nn_ready(nn_graph *, const char *what, const nn_id *in, int n);     /* whether a builder may go on */
const char *nn_dims_text(attn_dims, char *out, size_t n);               /* "[32,20,64]" */
#endif
