/* check_table.c - what the checks found, one row per variant in Markdown. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "check.h"

enum { MODES = 3, DTYPES = 3 };
static const char *const modes[MODES] = { "causal", "bidirectional", "cross" }, *const dtypes[DTYPES] = { "f64", "f32", "bf16" };
typedef struct row {
    char variant[64], impl[64], mode[24], options[256];     /* the last three: of the result before this one */
    int has_mode[MODES], has_dtype[DTYPES];
    size_t n[3], sets, most_sets;       /* results by status; option sets of the impl and mode at hand, of the richest */
    double reference[DTYPES], gradient, decode[DTYPES];     /* worst errors; negative: none seen */
    hs_check_result saved, state;       /* the first of the impl seen last: that is the best one, with its defaults */
} row;
struct hs_check_table { row *rows; size_t n; };

hs_check_table *hs_check_table_new(void) { return calloc(1, sizeof(hs_check_table)); }

void hs_check_table_free(hs_check_table *t)
{
    if (t) free(t->rows);
    free(t);
}

/* The row of a variant, which is the last one or a new one; NULL without memory. */
static row *row_of(hs_check_table *t, const char *variant)
{
    if (t->n && !strcmp(t->rows[t->n - 1].variant, variant)) return &t->rows[t->n - 1];
    row *more = realloc(t->rows, (t->n + 1) * sizeof *more);
    if (!more) return NULL;
    t->rows = more;
    row *r = &more[t->n++];
    *r = (row){ .reference = { -1, -1, -1 }, .gradient = -1, .decode = { -1, -1, -1 } };
    snprintf(r->variant, sizeof r->variant, "%s", variant);
    return r;
}

static int index_of(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++) if (!strcmp(names[i], name)) return i;
    return -1;
}

static void worsen(double *worst, double error) { if (!(error <= *worst)) *worst = error; }

static int begins(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

/* Which impl, mode and option set is this?  Results of one follow each other. */
static void follow(row *r, const hs_check_result *x)
{
    int other_impl = strcmp(r->impl, x->impl) != 0, other_mode = other_impl || strcmp(r->mode, x->mode);
    if (other_impl) r->saved.slope = r->state.slope = NAN;
    if (other_mode) r->sets = 0;
    if (other_mode || strcmp(r->options, x->options)) r->sets++;
    if (r->sets > r->most_sets) r->most_sets = r->sets;
    snprintf(r->impl, sizeof r->impl, "%s", x->impl);
    snprintf(r->mode, sizeof r->mode, "%s", x->mode);
    snprintf(r->options, sizeof r->options, "%s", x->options);
}

void hs_check_table_add(hs_check_table *t, const hs_check_result *x)
{
    row *r = *x->variant ? row_of(t, x->variant) : NULL;
    int mode = index_of(x->mode, modes, MODES), dtype = index_of(x->dtype, dtypes, DTYPES);
    if (!r) return;
    r->n[x->status]++;
    if (x->status == HS_CHECK_SKIP || mode < 0 || dtype < 0) return;
    follow(r, x);
    r->has_mode[mode] = r->has_dtype[dtype] = 1;
    if (begins(x->check, "equals the reference")) worsen(&r->reference[dtype], x->error);
    if (strstr(x->check, " by differences")) worsen(&r->gradient, x->error);
    if (begins(x->check, "decode ")) worsen(&r->decode[dtype], x->error);
    if (begins(x->check, "saved grows") && isnan(r->saved.slope)) r->saved = *x;
    if (begins(x->check, "state grows") && isnan(r->state.slope)) r->state = *x;
}

/* ---- writing ------------------------------------------------------------------------------------------- */
/* An error, or a dash where there is none; square: a mean square becomes its root. */
static void write_error(FILE *out, double error, int square)
{
    if (error < 0) fputs(" – |", out);
    else fprintf(out, " %.1e |", square ? sqrt(error) : error);
}

static void write_bytes(FILE *out, double bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB" };
    int u = 0;
    for (; u < 3 && bytes >= 1024; u++) bytes /= 1024;
    fprintf(out, " %.3g %s", bytes, units[u]);
}

static void write_growth(FILE *out, const hs_check_result *g, int with_slope)
{
    if (isnan(g->slope) || g->bytes_8k == 0) { fputs(" – |", out); return; }
    write_bytes(out, g->bytes_1k), fputs(",", out), write_bytes(out, g->bytes_8k);
    if (with_slope) fprintf(out, ", %.2f", g->slope);
    fputs(" |", out);
}

static void write_names(FILE *out, const char *const *names, const int *has, int n)
{
    const char *between = "";
    for (int i = 0; i < n; i++) if (has[i]) fprintf(out, "%s%s", between, names[i]), between = " ";
}

void hs_check_table_write(const hs_check_table *t, FILE *out)
{
    fputs("| variant | forms: modes × dtypes × option sets | float − double | bfloat16 − double | gradient − differences | decode − forward, double |"
          " float | bfloat16 | saved at T = 1024, 8192, slope | state at T = 1024, 8192 | ok | failed | skipped |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n", out);
    for (size_t i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        fprintf(out, "| %s | ", r->variant);
        write_names(out, modes, r->has_mode, MODES), fputs(" × ", out), write_names(out, dtypes, r->has_dtype, DTYPES);
        fprintf(out, " × %zu |", r->most_sets);
        write_error(out, r->reference[1], 1), write_error(out, r->reference[2], 0);
        write_error(out, r->gradient, 0);
        for (int d = 0; d < DTYPES; d++) write_error(out, r->decode[d], 1);
        write_growth(out, &r->saved, 1), write_growth(out, &r->state, 0);
        fprintf(out, " %zu | %zu | %zu |\n", r->n[HS_CHECK_OK], r->n[HS_CHECK_FAIL], r->n[HS_CHECK_SKIP]);
    }
}
