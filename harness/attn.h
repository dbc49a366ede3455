/* attn.h - the only header between harness and an attention variant.
 *
 * A variant is one shared object that exports one symbol, ATTN_SYMBOL: a NULL-terminated array
 * of pointers to attn_variant tables.  C11, C17 and C++17; no CUDA header is needed, because a
 * stream travels as void *.
 *
 * The contract, in full:
 *  1. A variant mixes tokens and nothing else.  The host owns projections, gate projections,
 *     parameters, buffers, files, clocks and random numbers.
 *  2. Static tables NAME things, plan() SIZES them, the host ALLOCATES them.
 *  3. [cold] code may be slow and may refuse.  [hot] code allocates nothing, waits for nothing and
 *     prints nothing; CUDA work goes to call->stream only.
 *  4. Only plan() refuses, with ATTN_EUNSUP and a reason.  What plan() accepts, forward and
 *     backward compute correctly.
 *  5. impls[0] is the plain reference in double precision (dtype ATTN_F64, device ATTN_CPU): its
 *     loops are the definition of the variant.  Every further impl is checked against it.
 *  6. Tensors are [B,H,T,D] by element strides with D contiguous; the memory order is the host's.
 *  7. Causal is right-aligned: query i sees keys j <= i + Tk - Tq.  Training, chunked prefill and
 *     decoding one token are one formula.  A query that sees no key has output 0 and gradient 0.
 *  8. Backward OVERWRITES dq dk dv dgate dstate_in and ADDS to dparam.  Any of them may be NULL
 *     (not wanted), and a variant must then not touch it.
 *  9. Decode state and saved bytes hold no pointers: the host may copy, reorder, save and count them.
 * 10. No globals: two calls with different options may run at the same time. */
#ifndef ATTN_H
#define ATTN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define ATTN_ABI_MAJOR 1                /* in the symbol's name: another major is another symbol */
#define ATTN_MAX 8                      /* gates, params or states of one variant, each */
#define ATTN_MAX_DIMS 4                 /* dimensions of a param or of a state */
#define ATTN_MAX_INTS 8                 /* values of an integer-list option */

/* Results.  Negative codes travel up; the host turns them into one message. */
enum { ATTN_OK = 0,
       ATTN_EUNSUP = -1,                /* plan() only: this problem is not defined, see plan->why */
       ATTN_EINVAL = -2,                /* the host broke the contract */
       ATTN_EDEVICE = -3 };             /* the device failed (CUDA error) */

/* One value in attn_shape, a mask in attn_impl. */
enum { ATTN_F32 = 1, ATTN_BF16 = 2, ATTN_F16 = 4, ATTN_F64 = 8 };
enum { ATTN_CAUSAL = 1,                 /* j <= i + Tk - Tq */
       ATTN_BIDIR  = 2,                 /* Tq == Tk, every key */
       ATTN_CROSS  = 4 };               /* any Tq, Tk, every key; for fast weights the read-out */
enum { ATTN_CPU = 1, ATTN_CUDA = 2 };

/* ---- options: parsed, range-checked, defaulted and recorded by the host ------------------------ */
enum { ATTN_INT,                        /* field is int32_t */
       ATTN_FLOAT,                      /* field is double */
       ATTN_BOOL,                       /* field is int32_t, 0 or 1 */
       ATTN_CHOICE,                     /* field is int32_t, the index into choices */
       ATTN_INTS,                       /* field is attn_ints */
       ATTN_TEXT };                     /* field is char[ATTN_TEXT_SIZE], with its end */
enum { ATTN_TEXT_SIZE = 128 };
typedef struct attn_ints { int32_t n, v[ATTN_MAX_INTS]; } attn_ints;
enum { ATTN_OPEN_MIN = 1,               /* option flag: min itself is out of range (scale > 0) */
       ATTN_DATA_SET = 2,               /* option flag: the text names a prepared data set; a cell knows its digest */
       ATTN_OTHER_VARIANT = 4 };        /* option flag of a task: the text names a variant beside that of the cell, which task_host
                                           gives; its default stands for that of the cell.  A cell knows its digest */

typedef struct attn_opt {               /* a row of a table that ends with name == NULL */
    const char *name, *help;
    size_t off;                         /* offsetof(your options struct, field) */
    int32_t type;
    double def, min, max;               /* CHOICE and BOOL: def is the index, min and max unused.
                                           INTS: the default list is { def }, each value in range */
    const char *choices;                /* "none,rope,alibi" for ATTN_CHOICE; the default of ATTN_TEXT, NULL: ""; else NULL */
    int32_t flags;
} attn_opt;

/* ---- tensors ------------------------------------------------------------------------------------ */
typedef struct attn_tensor {            /* element (b,h,t,d) is p[b*sb + h*sh + t*st + d] */
    void *p;                            /* of the shape's dtype; NULL: absent or not wanted */
    int64_t sb, sh, st;                 /* in elements */
} attn_tensor;
typedef struct attn_dims { int32_t n; int64_t d[ATTN_MAX_DIMS]; } attn_dims;

/* A per-token learned input, [B,Hv,Tk,width].  It arrives raw, as the linear projection of the
 * layer's input; every non-linearity (sigmoid, log-sigmoid, softplus) is the variant's. */
typedef struct attn_gate { const char *name, *help; } attn_gate;

/* A tensor of the mixer itself, dense, row-major, shape by plan(). */
enum { ATTN_FROZEN = 1,                 /* not learned: no gradient, dparam is NULL */
       ATTN_NO_DECAY = 2,               /* weight decay does not apply */
       ATTN_REDRAW = 4,                 /* drawn anew every redraw_interval steps (option of that name) */
       ATTN_OPTIONAL = 8 };             /* NULL unless the caller gives it; integers arrive as floating point numbers */
enum { ATTN_INIT_CONST,                 /* a */
       ATTN_INIT_NORMAL,                /* mean a, standard deviation b */
       ATTN_INIT_UNIFORM,               /* in [a, b) */
       ATTN_INIT_ORTHO_CHI,             /* last two dims [m,D]: blocks of D orthonormal rows (Haar), row
                                           lengths those of independent Gaussian vectors of D entries */
       ATTN_INIT_ORTHO_SQRT,            /* the same, every row of length sqrt(D) */
       ATTN_INIT_FORGET,                /* last dim in blocks i, f, g, o of an LSTM: b in block f, a in the others */
       ATTN_INIT_LOG_UNIFORM,           /* ln x, x uniform in [a, b): e^value is a rate of decay */
       ATTN_INIT_STEP };                /* softplus^-1(x), x log-uniform in [a, b) and at least 1e-4: softplus(value) is a step */
typedef struct attn_param { const char *name, *help; int32_t flags; } attn_param;
typedef struct attn_init { int32_t kind; double a, b; } attn_init;

/* A recurrent state that a call may take and return, dense, row-major, shape by plan(). */
typedef struct attn_state { const char *name, *help; } attn_state;

/* ---- the problem and its plan --------------------------------------------------------------------- */
typedef struct attn_shape {             /* one problem, fixed at plan time */
    int32_t B, Hq, Hk, Tq, Tk, Dk, Dv;  /* Hq % Hk == 0; query head h reads key head h * Hk / Hq */
    int32_t mode, dtype, training;      /* training 0: saved is NULL, backward is not called */
    int32_t klen;                       /* 1: call->klen may be given */
    int32_t decode;                     /* 1: planned for decode() alone, Tq new tokens at a time and Tk in all */
    int32_t Hv;                         /* heads of v and of gates: Hk; with ATTN_GROUPED_QK a multiple of Hk = Hq, head h
                                           reads query and key head h * Hk / Hv, and o has Hv heads instead of Hq */
} attn_shape;

/* Heads of o. */
static inline int32_t attn_out_heads(const attn_shape *s) { return s->Hv > s->Hq ? s->Hv : s->Hq; }

typedef struct attn_plan {              /* zeroed by the host, filled by plan() */
    size_t saved;                       /* bytes that forward leaves for backward */
    size_t scratch_fwd, scratch_bwd, scratch_dec;   /* bytes; the host aligns to 256 */
    size_t state;                       /* bytes of decode state for Tk tokens; 0: no decode.  The share of sequence b is the
                                           b-th of B equal ones: the host reorders them (beam search) */
    int32_t gate_width[ATTN_MAX];       /* values per value head and key token; 0: gate not used */
    attn_dims param_dims[ATTN_MAX];     /* n == 0: param not used with these options */
    attn_init param_init[ATTN_MAX];
    attn_dims state_dims[ATTN_MAX];     /* n == 0: state not used */
    double flops_fwd, flops_bwd;        /* a multiply-add counts 2; 0 = unknown */
    double bytes_fwd, bytes_bwd;        /* least traffic, for the roofline; 0 = unknown */
    char why[160];                      /* the reason of ATTN_EUNSUP, one sentence without a period */
    size_t state_second;                /* where a second part of the state begins, either part cut into B shares; 0: it is one */
} attn_plan;

/* ---- a call ------------------------------------------------------------------------------------------ */
typedef struct attn_call {              /* all that one call may read or write */
    uint32_t size;                      /* sizeof(attn_call): the tail may grow */
    int32_t nthreads;                   /* CPU threads that the variant may use, >= 1 */
    const attn_shape *s;
    const attn_plan *plan;
    const void *opts;                   /* the variant's options struct */
    void *stream;                       /* cudaStream_t, or NULL on the CPU */
    attn_tensor q, k, v;                /* [B,Hq,Tq,Dk] [B,Hk,Tk,Dk] [B,Hv,Tk,Dv] */
    attn_tensor gate[ATTN_MAX];         /* [B,Hv,Tk,gate_width] */
    attn_tensor o;                      /* [B,Hq or Hv,Tq,Dv]; backward reads what forward wrote */
    const void *param[ATTN_MAX];        /* f64 when dtype is ATTN_F64, else f32 */
    const int32_t *klen;                /* [B] keys j >= klen[b] do not exist; NULL: all do */
    const void *state_in[ATTN_MAX];     /* f64 or f32 like params; NULL: zeros */
    void *state_out[ATTN_MAX];          /* NULL: not wanted */
    void *saved, *scratch, *state;      /* aligned to 256; state is zeroed before token 0 */
    int64_t pos;                        /* decode: tokens already in the state */
    uint64_t seed;                      /* same seed, same bits */
    attn_tensor d_o;                    /* backward: gradient of o */
    attn_tensor dq, dk, dv, dgate[ATTN_MAX];
    void *dparam[ATTN_MAX];             /* f64 or f32 like params, += */
    void *dstate_in[ATTN_MAX];
} attn_call;

/* One way to compute the variant.  A variant's impls are a ladder: all are kept, named, and checked
 * against the first. */
typedef struct attn_impl {
    const char *name;                   /* "ref", "cpu", "cuda", ... */
    int32_t device, dtypes, modes;      /* one of ATTN_CPU/CUDA; masks */
    int32_t rank;                       /* the highest usable rank is the host's default */
    int (*plan)(const attn_shape *, const void *opts, attn_plan *);     /* [cold] */
    int (*forward)(const attn_call *);                                  /* [hot] */
    int (*backward)(const attn_call *); /* [hot] NULL: cannot train */
    int (*decode)(const attn_call *);   /* [hot] NULL: not incremental.  Causal; Tq new rows of q, k, v and
                                           gates (all with Tq rows) at position pos; shape Tk is the
                                           capacity in tokens; klen is NULL */
} attn_impl;

enum { ATTN_LOOKS_AHEAD = 1,            /* causal in values but not in structure (sorting by hash) */
       ATTN_SHARED_QK = 2,              /* k is not an input: the host passes k = q, and dk NULL */
       ATTN_NO_Q = 4, ATTN_NO_K = 8,    /* inputs that the variant ignores: not projected */
       ATTN_NONDET = 16,                /* same seed may give other bits */
       ATTN_GROUPED_QK = 32 };          /* several value heads share a query and key head: see Hv */

typedef struct attn_variant {
    uint32_t size;                      /* sizeof(attn_variant): the tail may grow */
    const char *name;                   /* "softmax": [a-z0-9_]+, unique among the loaded */
    const char *title, *paper, *cost;   /* for people: "Softmax attention", "arXiv:1706.03762", "T^2 D"; memory is held
                                           against the power of T in the cost */
    uint32_t flags;
    size_t opts_size;
    const attn_opt *opts;               /* each table may be NULL when empty */
    const attn_gate *gates;
    const attn_param *params;
    const attn_state *states;
    const attn_impl *impls;
    const void *(*ext)(const char *id); /* named extensions, "attn.map/1" ...; may be NULL */
} attn_variant;

/* ---- the extension "attn.map/1": which token reads how much of which ------------------------------- */
#define ATTN_MAP_ID "attn.map/1"
typedef struct attn_map {
    uint32_t size;                      /* sizeof(attn_map) */
    /* [cold] map [B,H,Tq,Tk], dense, H the heads of o, of a call as forward gets it in double (saved and scratch are
     * not used): o_i = sum_j map_ij v_j.  ATTN_EUNSUP: with these options there is no such map. */
    int (*compute)(const attn_call *, double *map);
    int (*rows_sum_to_one)(const attn_shape *, const void *opts);   /* those of queries that see a key */
} attn_map;

#define ATTN_SYMBOL "attn_variants_v1"

#ifdef __cplusplus
#define ATTN_EXTERN extern "C"
#else
#define ATTN_EXTERN extern
#endif
/* ATTN_EXPORT(&my_variant, &my_other) at the end of the file is all the registration there is. */
#define ATTN_EXPORT(...)                                                                    \
    ATTN_EXTERN __attribute__((visibility("default"))) const attn_variant *const attn_variants_v1[]; \
    const attn_variant *const attn_variants_v1[] = { __VA_ARGS__, NULL }

#ifdef __cplusplus
}
#endif
#endif
