/* check_case.h - what the checks share: the case under judgement, the rig that calls it, and the verdicts.
 *
 * A case is one variant x impl x mode x dtype x option set.  A rig is one call of it with every buffer its
 * own: poisoned with NaN, guarded on both sides, gaps between rows included.  Checks build two rigs that must
 * agree and compare them. */
#ifndef HS_CHECK_CASE_H
#define HS_CHECK_CASE_H
#include "attn.h"
#include "check.h"

/* ---- the case -------------------------------------------------------------------------------------- */
typedef struct hs_check_where {
    int index;
    char variant[64], impl[64], mode[24], options[256], check[96];
    char words[256];                    /* why the child ends of its own accord; "" when it does not */
} hs_check_where;
typedef void (*hs_check_sink)(void *ctx, const hs_check_result *);
typedef struct hs_device hs_device;

enum { HS_Q, HS_K, HS_V, HS_GATE, HS_PARAM = HS_GATE + ATTN_MAX, HS_STATE = HS_PARAM + ATTN_MAX,
       HS_INPUTS = HS_STATE + ATTN_MAX };
enum { HS_O, HS_FINAL, HS_OUTPUTS = HS_FINAL + ATTN_MAX };

/* What rounding to bfloat16 does to one tensor: the largest error, the root of the mean square error, and those of the
 * tensor itself. */
typedef struct hs_spread { double worst, mean, largest, size; } hs_spread;
typedef struct hs_rounding { hs_spread out[HS_OUTPUTS], grad[HS_INPUTS]; } hs_rounding;
typedef struct hs_case {
    const attn_variant *variant;
    const attn_impl *impl, *ref;        /* ref: impls[0] */
    hs_device *device;                  /* on which impls of ATTN_CUDA are called; NULL: those are not checked */
    hs_rounding rounding;               /* in bfloat16, of the size at hand */
    int32_t mode, dtype;
    const void *opts, *exact;           /* exact: opts with feature_eps 0 where there is such an option */
    int relaxed_causality;              /* a stabiliser over all keys: equal in exact arithmetic, not in bits */
    int unstabilised;                   /* an option switched the stabiliser off: large inputs may overflow */
    int other_order;                    /* causal in another order of the tokens than that of their positions */
    int quick, defaults;                /* defaults: the variant's own defaults, checked at more sizes */
    attn_shape base;                    /* heads and widths that plan() accepts */
    char *options;                      /* as text */
    const char *size;                   /* of the problem at hand, "T=33" */
    hs_check_where *where;              /* kept up to date for the parent's eyes */
    hs_check_sink sink;
    void *ctx;
} hs_case;

void hs_case_begin(const hs_case *, const char *check);      /* names what runs, should it crash */
void hs_case_say(const hs_case *, const char *check, hs_check_status, double error, const char *note);
void hs_case_send(const hs_case *, const char *check, hs_check_result);     /* names the case in it */
attn_shape hs_case_shape(const hs_case *, int32_t B, int32_t Tq, int32_t Tk);
const char *hs_mode_name(int32_t mode);
const char *hs_dtype_name(int32_t dtype);

/* ---- hot code (check_hot.c) --------------------------------------------------------------------------- */
typedef struct hs_hot { long allocations, printed; } hs_hot;    /* calls, bytes */
void hs_hot_watch(void *handle);        /* from now on allocations made by this library are counted */
void hs_hot_begin(void);
void hs_hot_end(hs_hot *);              /* adds what happened since hs_hot_begin, on all threads */

/* ---- another device's memory (check_device.c) ----------------------------------------------------------------- */
int  hs_device_open(const char *name, hs_device **, char *why, size_t nwhy);    /* a k_dev's name; -1 and a sentence */
void hs_device_close(hs_device *);
const char *hs_device_name(const hs_device *), *hs_device_error(const hs_device *);
void hs_device_begin(hs_device *);      /* a new call, nothing placed */
void hs_device_place(hs_device *, void *host, size_t bytes);    /* a piece of memory that goes there and comes back */
void hs_device_place_scratch(hs_device *, void *host, size_t bytes);    /* a whole hs_buf: its guards alone come back */
/* The call with all that is placed: f's result; lost is not 0 when the device failed. */
int  hs_device_call(hs_device *, int (*f)(const attn_call *), const attn_call *, hs_hot *, int *lost);

/* ---- the rig --------------------------------------------------------------------------------------------- */
enum { HS_GUARD = 256, HS_MAX_BATCH = 4 };
enum { HS_BTHD, HS_BHTD, HS_PADDED };   /* PADDED: BHTD with gaps after every row and head */

typedef struct hs_buf { unsigned char *raw, *before; size_t bytes; } hs_buf;    /* raw: guard, bytes, guard */
typedef struct hs_slot {                /* one tensor: values in double [B,H,T,W], memory in the call's dtype */
    char name[40];
    int64_t B, H, T, W, n;              /* n == 0: not there */
    int32_t dtype;
    double slack, square;               /* bfloat16: normalised mean square error that rounding alone may make, and the
                                           mean square of the tensor in the case's problem; else 0 */
    double *val;
    attn_tensor t;
    hs_buf buf;
} hs_slot;

typedef union hs_number { double d; float f; } hs_number;
typedef struct hs_rig {
    const hs_case *c;
    const attn_impl *impl;
    const void *opts;
    attn_shape s;
    attn_plan plan;
    hs_slot in[HS_INPUTS], grad[HS_INPUTS], d_o, out[HS_OUTPUTS];
    hs_buf saved, scratch_fwd, scratch_bwd, scratch_dec;
    int nthreads, give_states, want_states, give_klen;
    int want[HS_INPUTS];                /* gradients asked for */
    int absent[2];                      /* pass q, k as NULL */
    int64_t offset;                     /* given to the optional param of that name, unless it is 0 */
    hs_number number;                   /* the same in the call's dtype */
    int32_t klen[HS_MAX_BATCH];
    double dparam0;                     /* what dparam holds before backward */
    uint64_t seed;
    hs_hot hot;                         /* what hot code did and should not, all runs together */
    int finite;                         /* of the last run */
    char fault[256];                    /* how the last run broke the contract; "" when it did not */
} hs_rig;

/* NULL when plan() refuses, with its reason in why. */
hs_rig *hs_rig_new(const hs_case *, const attn_impl *, int32_t dtype, const void *opts, attn_shape, int layout,
                   char *why, size_t nwhy);
hs_rig *hs_rig_like(const hs_rig *);                        /* same impl, options, shape; inputs copied; BTHD */
void hs_rig_free(hs_rig *);
/* Inputs of dst are those of src: batch row b of dst is row (b + b0) mod B, tokens from tq0 and tk0 on. */
void hs_rig_from(hs_rig *dst, const hs_rig *src, int64_t b0, int64_t tq0, int64_t tk0);
void hs_rig_redraw(hs_rig *, int slot, uint32_t draw, int64_t b0, int64_t t0);   /* new values from row b0, token t0 on */
int  hs_rig_forward(hs_rig *);          /* 0, or -1 with the reason in fault */
int  hs_rig_backward(hs_rig *);         /* where there is one */
int  hs_rig_run(hs_rig *);              /* both */
void hs_rig_load(hs_rig *);             /* the values of the inputs into memory; the passes do it */
void hs_slot_store(hs_slot *);          /* the values of one slot into memory */
double hs_rounded(int32_t dtype, double);   /* the nearest number of that dtype */
int  hs_rig_map(hs_rig *, const attn_map *, double *map);   /* [B,H,Tq,Tk]; the extension's result */
int  hs_rig_decode(hs_rig *, hs_buf *state, int64_t pos);
int  hs_is_token_slot(int slot);        /* q, k, v, gates: T counts tokens */
int  hs_is_frozen(const hs_rig *, int slot);
void hs_buf_init(hs_buf *, size_t bytes);                   /* poisoned */
void hs_buf_release(hs_buf *);
void *hs_buf_ptr(const hs_buf *);

/* ---- verdicts ------------------------------------------------------------------------------------------------ */
typedef struct hs_diff { int ok; double error; char note[256]; } hs_diff;
typedef struct hs_part { const hs_slot *s; int64_t b0, t0; } hs_part;
extern const hs_diff hs_diff_none;
double hs_tolerance(int32_t dtype);     /* of a normalised mean square error; 0 asks for equal bits */
void hs_diff_part(hs_diff *, hs_part got, hs_part want, int64_t nb, int64_t nt, double tol);
void hs_diff_slot(hs_diff *, const hs_slot *got, const hs_slot *want, double tol);
void hs_diff_rigs(hs_diff *, const hs_rig *got, const hs_rig *want, double tol);  /* outputs and gradients of both */
void hs_case_judge(const hs_case *, const char *check, const hs_rig *, const hs_diff *);  /* a fault of the rig fails too */

/* ---- what rounding alone does (check_rounding.c) ------------------------------------------------------------------- */
void hs_rounding_measure(hs_case *, const hs_rig *base);    /* a plain bfloat16 computation of base's problem */
void hs_rounding_allow(const hs_case *, hs_rig *);          /* slots of a bfloat16 rig get their slack */
void hs_rounding_diff(const hs_case *, hs_diff *, const hs_rig *got, const hs_rig *ref);    /* the rule of twice the plain error */

/* ---- the checks (check_forward.c, check_decode.c, check_grad.c) --------------------------------------------------- */
int  hs_check_plan(const hs_case *, attn_shape);            /* 0: goes on */
void hs_check_forward(const hs_case *, const hs_rig *base);
void hs_check_klen(const hs_case *, attn_shape);
void hs_check_heads(const hs_case *, const hs_rig *base);
void hs_check_decode(const hs_case *, const hs_rig *base);
void hs_check_states(const hs_case *, const hs_rig *base);
void hs_check_last_queries(const hs_case *, const hs_rig *base);
void hs_check_gradients(const hs_case *, const hs_rig *base);   /* the contract of the gradient pointers */
void hs_check_differences(const hs_case *, const hs_rig *base); /* the reference against central differences */
void hs_check_reference(const hs_case *, const hs_rig *base);   /* another impl against the reference */
void hs_check_map(const hs_case *, const hs_rig *base);         /* "attn.map/1" (check_map.c) */
void hs_check_large(const hs_case *, const hs_rig *base);       /* inputs times 30 */

/* ---- memory (check_memory.c) ------------------------------------------------------------------------------------------ */
typedef struct hs_ladder { double bytes_1k, bytes_8k, slope; } hs_ladder;  /* at T = 1024 and 8192; of the logarithms */
typedef struct hs_growth { hs_ladder saved, scratch, state; } hs_growth;   /* plan()'s bytes for a batch of one */
int  hs_growth_measure(const hs_case *, hs_growth *, char *why, size_t nwhy);   /* -1: plan() refuses, why */
int  hs_cost_degree(const char *cost, double *degree);      /* highest power of T; -1: not to be understood */
void hs_check_growth(const hs_case *);
void hs_check_state_bytes(const hs_case *, const hs_buf *state);    /* after decoding as many tokens as it has room for */

/* ---- option sets (check_options.c) ---------------------------------------------------------------------------------- */
typedef struct hs_opt_set { void *opts; char *text; char *refusal; int defaults; } hs_opt_set;
/* Every set to be checked of an impl and shape; those that plan() refuses carry its reason.  *n of them. */
hs_opt_set *hs_opt_sets(const attn_variant *, const attn_impl *, attn_shape, const hs_check_args *, size_t *n,
                        char *why, size_t nwhy);
void hs_opt_sets_free(hs_opt_set *, size_t n);

/* ---- the child's whole work (check_suite.c) -------------------------------------------------------------------------------- */
/* Judges the plug-in's cases from number `start` on; where is kept up to date for the parent's eyes.
 * Returns 0, or with a sentence in why -1 when the file is no plug-in, HS_NO_DEVICE when there is no such device. */
enum { HS_NO_DEVICE = -2 };
int hs_check_suite(const char *path, const hs_check_args *, int start, hs_check_where *where,
                   hs_check_sink, void *ctx, char *why, size_t nwhy);
#endif
