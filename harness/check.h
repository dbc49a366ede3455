/* check.h - is a plug-in's every variant right?  The conformance that each variant gets for free.
 *
 * Invariants:
 *  1. A plug-in is judged in a child of its own with a time limit: whatever it does (segfault, endless loop,
 *     exit(0), abort, printing) is a failed check with a reason, and what it had not yet come to goes on.
 *  2. The variant's tables are called directly, never through the mixer: the judge shares no code with the host.
 *  3. A refusal of plan() is a skip with plan()'s reason; a variant or impl that refuses everything fails. */
#ifndef HS_CHECK_H
#define HS_CHECK_H
#include <stddef.h>
#include <stdio.h>

typedef enum hs_check_status { HS_CHECK_OK, HS_CHECK_FAIL, HS_CHECK_SKIP } hs_check_status;

typedef struct hs_check_result {
    char *variant, *impl, *dtype, *mode, *options;  /* "fwp" "ref" "f64" "causal" "update_rule=sum"; "" where it does not apply */
    char *check;                        /* "no leak from the future, T=33" */
    hs_check_status status;
    double error;                       /* the worst error seen; 0 for a check of bits */
    double bytes_1k, bytes_8k, slope;   /* of a check of growth: memory at T = 1024 and 8192; else 0 */
    char *note;                         /* where and why, one sentence; "" when all is right */
} hs_check_result;

typedef struct hs_check_args {          /* all zero: every check, every variant */
    int quick;                          /* the gate before a run: small shapes, fewer option sets */
    int defaults;                       /* the default options alone, with what they require, at all sizes */
    int once;                           /* forward, backward and decoding of each size against the reference, and no more */
    int limit_s;                        /* a check silent for longer has failed; 0: 60 */
    const char *variant, *impl;         /* only these; NULL: all */
    int dtype;                          /* only this ATTN_* one; 0: all */
    const char *device;                 /* name of the k_dev to check the impls of ATTN_CUDA on; NULL: those of ATTN_CPU */
    const char *const *options;         /* option sets "update_rule=fwm qk_norm=none" to check besides ... */
    size_t noptions;
    int only_options;                   /* ... or instead of those that the checker makes up */
    void (*each)(const hs_check_result *, void *ctx);   /* called for each result as it comes; may be NULL */
    void *ctx;
} hs_check_args;

typedef struct hs_check_report {
    hs_check_result *results;
    size_t n, ok, failed, skipped;
    int no_device;                      /* there is no such device, says why: nothing was checked */
    char why[512];                      /* the first failure as one sentence, "" when there is none */
} hs_check_report;

/* HS_EXIT_OK; HS_EXIT_PLUGIN when a check failed or the file is no plug-in with a variant; HS_EXIT_DEVICE.  The report
 * is the caller's to release in all cases. */
int  hs_check_file(const char *path, const hs_check_args *, hs_check_report *);
void hs_check_report_release(hs_check_report *);

/* One row per variant in Markdown, made of results as they come (check_table.c). */
typedef struct hs_check_table hs_check_table;
hs_check_table *hs_check_table_new(void);
void hs_check_table_add(hs_check_table *, const hs_check_result *);
void hs_check_table_write(const hs_check_table *, FILE *);
void hs_check_table_free(hs_check_table *);
#endif
