/* check_memory.c - does memory grow as the variant says, and is the decode state as large as it says?
 *
 * plan() is asked at T = 256 ... 8192, and a line is fitted to the logarithms of its bytes over those of T; the slope
 * from there to T = 32768 counts where it is less.  What a variant claims is attn_variant.cost, "T m Dv" or
 * "T (stride + T / stride) (Dk + Dv)": a sum of products, of which the highest power of T counts; everything else is a
 * constant.  A pass that takes T steps of work cannot fill T^2 bytes, so saved and scratch must not grow faster than the
 * cost.  A decode state holds at most its tokens: T. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"

enum { FIRST = 256, RUNGS = 6, BEYOND = 2 };    /* T = FIRST << rung; the rungs beyond tell a step from a slope */
static const double SLACK = 0.1;        /* of a slope: constants and whole blocks bend the line */
static const double LOGARITHM = 0.2;    /* what log T adds to the slope on this ladder, at most */

/* ---- the claim: a small grammar ----------------------------------------------------------------------------- */
typedef struct cost { const char *at; int bad, names_T; } cost;
static double sum_degree(cost *);

static void skip_blanks(cost *c) { while (*c->at == ' ' || *c->at == '*') c->at++; }

/* A number, a name, log of a factor, or a sum in brackets; with an exponent perhaps. */
static double factor_degree(cost *c)
{
    double degree = 0;
    if (*c->at == '(') {
        c->at++;
        degree = sum_degree(c);
        if (*c->at == ')') c->at++;
        else c->bad = 1;
    } else if (isalpha((unsigned char)*c->at) || *c->at == '_') {
        const char *name = c->at;
        while (isalnum((unsigned char)*c->at) || *c->at == '_') c->at++;
        size_t n = (size_t)(c->at - name);
        skip_blanks(c);
        if (n == 3 && !strncmp(name, "log", 3)) degree = factor_degree(c) > 0 ? LOGARITHM : 0;
        else if (n == 1 && *name == 'T') degree = 1, c->names_T = 1;
    } else if (isdigit((unsigned char)*c->at)) strtod(c->at, (char **)&c->at);
    else c->bad = 1;
    if (!c->bad && *c->at == '^') {
        char *end;
        degree *= strtod(c->at + 1, &end);
        c->bad = end == c->at + 1;
        c->at = end;
    }
    return degree;
}

/* Factors side by side; a slash divides by the next one. */
static double product_degree(cost *c)
{
    double degree = 0, sign = 1;
    for (skip_blanks(c); *c->at && !strchr("+)", *c->at) && !c->bad; skip_blanks(c)) {
        if (*c->at == '/') sign = -1, c->at++;
        else degree += sign * factor_degree(c), sign = 1;
    }
    return degree;
}

static double sum_degree(cost *c)
{
    double degree = product_degree(c);
    while (*c->at == '+' && !c->bad) {
        c->at++;
        degree = fmax(degree, product_degree(c));
    }
    return degree;
}

int hs_cost_degree(const char *text, double *degree)
{
    cost c = { .at = text };
    *degree = sum_degree(&c);
    return c.bad || *c.at || !c.names_T ? -1 : 0;
}

/* ---- the fact: a ladder of plans ------------------------------------------------------------------------------- */
/* The line through log y over log T; nothing counts as one byte.  Memory that a plan takes only from some length on, a
 * part for each piece of the sequence, makes a step in the line; it shows no more behind it. */
static hs_ladder fit(const double y[RUNGS + BEYOND])
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (int i = 0; i < RUNGS; i++) {
        double x = i * log(2), v = log(fmax(1, y[i]));
        sx += x, sy += v, sxx += x * x, sxy += x * v;
    }
    double behind = log2(fmax(1, y[RUNGS + BEYOND - 1]) / fmax(1, y[RUNGS - 1])) / BEYOND;
    return (hs_ladder){ y[2], y[RUNGS - 1], fmin((RUNGS * sxy - sx * sy) / (RUNGS * sxx - sx * sx), behind) };
}

/* Eight heads of 64, or those of the case where plan() does not take them. */
static attn_shape shape_of(const hs_case *c, int32_t T)
{
    hs_case usual = *c;
    attn_plan p = { 0 };
    usual.base.Hq = usual.base.Hk = 8, usual.base.Dk = usual.base.Dv = 64;
    attn_shape s = hs_case_shape(&usual, 1, T, T);
    return c->impl->plan(&s, c->opts, &p) == ATTN_OK ? s : hs_case_shape(c, 1, T, T);
}

int hs_growth_measure(const hs_case *c, hs_growth *g, char *why, size_t nwhy)
{
    double saved[RUNGS + BEYOND], scratch[RUNGS + BEYOND], state[RUNGS + BEYOND];
    for (int i = 0; i < RUNGS + BEYOND; i++) {
        attn_plan p = { 0 }, q = { 0 };
        attn_shape s = shape_of(c, FIRST << i), one = s;
        one.training = 0, one.Tq = 1, one.decode = 1;
        if (c->impl->plan(&s, c->opts, &p) != ATTN_OK) {
            snprintf(why, nwhy, "%.159s", p.why);
            return -1;
        }
        int decodes = c->impl->decode && c->mode == ATTN_CAUSAL && c->impl->plan(&one, c->opts, &q) == ATTN_OK;
        saved[i] = (double)p.saved;
        scratch[i] = fmax((double)p.scratch_fwd, (double)p.scratch_bwd);
        state[i] = decodes ? (double)q.state : 0;
    }
    *g = (hs_growth){ fit(saved), fit(scratch), fit(state) };
    return 0;
}

/* One kind of memory against its bound. */
static void judge(const hs_case *c, const char *what, const hs_ladder *l, double bound, const char *claim)
{
    char check[64], note[256] = "";
    snprintf(check, sizeof check, "%s grows as claimed", what);
    int bad = l->slope > bound + SLACK;
    if (bad) snprintf(note, sizeof note, "%s has %.2g bytes at T=8192, slope %.2f, but %s", what, l->bytes_8k, l->slope, claim);
    hs_case_send(c, check, (hs_check_result){ .status = bad ? HS_CHECK_FAIL : HS_CHECK_OK, .note = note,
                                              .bytes_1k = l->bytes_1k, .bytes_8k = l->bytes_8k, .slope = l->slope });
}

void hs_check_growth(const hs_case *c)
{
    char why[200] = "", claim[200];
    double degree;
    hs_growth g;
    hs_case_begin(c, "memory grows as claimed");
    if (hs_growth_measure(c, &g, why, sizeof why)) { hs_case_say(c, "memory grows as claimed", HS_CHECK_SKIP, 0, why); return; }
    judge(c, "state", &g.state, 1, "a state holds no more than its tokens");
    if (hs_cost_degree(c->variant->cost, &degree)) {
        hs_case_say(c, "memory grows as claimed", HS_CHECK_SKIP, 0, "the cost is no sum of products with a T in it, like T m Dv");
        return;
    }
    snprintf(claim, sizeof claim, "its cost is said to be %.150s", c->variant->cost);
    judge(c, "saved", &g.saved, degree, claim);
    judge(c, "scratch", &g.scratch, degree, claim);
}

/* ---- the state as decoding leaves it ------------------------------------------------------------------------------ */
/* A full state of which the end was never written, or much in between, is smaller than it says.  Guards, which every
 * decode looks at, see to it that it is not larger. */
void hs_check_state_bytes(const hs_case *c, const hs_buf *state)
{
    const unsigned char *p = hs_buf_ptr(state);
    size_t last = 0, words = state->bytes / 4, touched = 0;
    char note[256] = "";
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, p + 4 * i, sizeof word);
        if (word) touched++, last = 4 * (i + 1);
    }
    if (!state->bytes) return;
    int bad = last + 64 + state->bytes / 16 < state->bytes || touched < words / 2;
    if (bad) snprintf(note, sizeof note, "the state is said to have %zu bytes, of a full one the last touched is number %zu, and %zu are not zero",
                      state->bytes, last, 4 * touched);
    hs_case_say(c, "state bytes are touched", bad ? HS_CHECK_FAIL : HS_CHECK_OK, 0, note);
}
