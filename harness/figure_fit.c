/* figure_fit.c - what a figure says beyond its points: slopes, crossings with a baseline, a Pareto front; and the table
 * of them beside the figure.  stats.h has the rules of the fit. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_internal.h"
#include "protocol.h"
#include "table.h"

/* ---- slopes ------------------------------------------------------------------------------------------------------ */
/* Room for n numbers. */
static double *room_for(size_t n)
{
    double *x = calloc(n + 1, sizeof *x);
    if (!x) abort();
    return x;
}

/* The power law of one series, and what each of its points is to it. */
static void fit_series(fig_series *s)
{
    double *x = room_for(3 * s->npoints), *y = x + s->npoints, *error = y + s->npoints;
    unsigned char *out = calloc(s->npoints + 1, 1);
    if (!out) abort();
    for (size_t i = 0; i < s->npoints; i++) {
        x[i] = s->point[i].x;
        y[i] = s->point[i].y;
        error[i] = s->point[i].error;
    }
    hs_power_fit(x, y, error, s->npoints, &s->fit, out);
    for (size_t i = 0; i < s->npoints; i++)
        s->point[i].role = i < s->fit.first ? FIG_BEFORE_TAIL : out[i] ? FIG_OUTLIER : FIG_PLAIN;
    free(out);
    free(x);
}

/* The standard error of a point's ln y: of its own samples or seeds, and of a time at least the scatter about the fitted
 * line, because two processes differ by more than the samples of one.  Bytes that nobody repeated are exact. */
static double error_of(const fig *f, const fig_series *s, const fig_point *p)
{
    double scatter = strcmp(f->yunit, "s") == 0 && s->fit.kept ? s->fit.deviation : 0;
    return isfinite(p->error) ? fmax(p->error, scatter) : scatter;
}

/* Where a series becomes cheaper than the baseline, on the lengths that both have. */
static void compare_series(const fig *f, fig_series *s, const fig_series *base)
{
    size_t most = s->npoints < base->npoints ? s->npoints : base->npoints, n = 0;
    double *x = room_for(4 * most), *a = x + most, *b = a + most, *sd = b + most;
    s->interval = 1;
    for (size_t i = 0, k = 0; i < s->npoints && k < base->npoints;) {
        const fig_point *p = &s->point[i], *q = &base->point[k];
        if (p->x < q->x) i++;
        else if (p->x > q->x) k++;
        else {
            x[n] = p->x;
            a[n] = p->y;
            b[n] = q->y;
            sd[n] = hypot(error_of(f, s, p), error_of(f, base, q));
            s->interval &= sd[n++] > 0 || strcmp(f->yunit, "s") != 0;
            i++;
            k++;
        }
    }
    s->compared = n > 0;
    if (n) {
        s->compared_from = x[0];
        s->compared_to = x[n - 1];
        s->crossing = hs_crossing_of(x, a, b, sd, n);
    }
    free(x);
}

double fig_height_at(const fig_series *s, double x)
{
    size_t i = 1;
    while (i + 1 < s->npoints && s->point[i].x < x) i++;
    const fig_point *p = &s->point[i - 1], *q = &s->point[i];
    return exp(log(p->y) + (log(q->y) - log(p->y)) * (log(x) - log(p->x)) / (log(q->x) - log(p->x)));
}

/* ---- the front --------------------------------------------------------------------------------------------------- */
/* Whether q is at least as good as p in both, and better in one. */
static int dominates(const fig *f, const fig_point *q, const fig_point *p)
{
    double dx = f->xbetter * (q->x - p->x), dy = f->ybetter * (q->y - p->y);
    return dx >= 0 && dy >= 0 && (dx > 0 || dy > 0);
}

/* Marks the points that no other one dominates. */
static void mark_front(fig *f)
{
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++) {
            fig_point *p = &f->series[i].point[k];
            int beaten = 0;
            for (size_t j = 0; j < f->ours; j++)
                for (size_t l = 0; l < f->series[j].npoints; l++) beaten |= dominates(f, &f->series[j].point[l], p);
            p->role = beaten ? FIG_PLAIN : FIG_ON_FRONT;
        }
}

/* By x. */
static int by_x(const void *a, const void *b)
{
    double x = ((const fig_point *)a)->x, y = ((const fig_point *)b)->x;
    return (x > y) - (x < y);
}

void fig_write_front(FILE *out, const fig *f)
{
    fig_series front = { 0 };
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++)
            if (f->series[i].point[k].role == FIG_ON_FRONT) fig_add_point(&front, f->series[i].point[k]);
    if (front.npoints) qsort(front.point, front.npoints, sizeof *front.point, by_x);
    for (size_t k = 0; k < front.npoints; k++) fprintf(out, "%.17g\t%.17g\n", front.point[k].x, front.point[k].y);
    if (front.npoints) fputs("\n\n", out);
    free(front.point);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */
void fig_fit(fig *f)
{
    if (f->kind == FIG_PARETO) mark_front(f);
    if (f->kind != FIG_SCALING) return;
    for (size_t i = 0; i < f->ours && !json_is_false(json_object_get(f->spec, "fit")); i++) fit_series(&f->series[i]);
    for (size_t i = 0; f->baseline >= 0 && i < f->ours; i++)
        if ((int)i != f->baseline) compare_series(f, &f->series[i], &f->series[f->baseline]);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */
/* A length or number, null when it is not finite. */
static json_t *number(double x)
{
    if (!isfinite(x)) return json_null();
    return x == trunc(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

/* The lengths of a series' outliers with their distance from the line: "4096 (+31 %)". */
static char *outliers_text(const fig_series *s)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) abort();
    for (size_t i = 0; i < s->npoints; i++) {
        const fig_point *p = &s->point[i];
        if (p->role != FIG_OUTLIER) continue;
        fprintf(out, "%s%g (%+.0f %%)", ftell(out) ? ", " : "", p->x, 100 * (p->y / hs_power_at(&s->fit, p->x) - 1));
    }
    fclose(out);
    return text;
}

/* How the cells of a series ended that did not end done: "oom from 65536". */
static char *endings_text(const fig *f, size_t series)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) abort();
    for (int status = 0; status < HS_STATUSES; status++) {
        double first = INFINITY;
        for (size_t i = 0; i < f->nmarks; i++)
            if (f->mark[i].series == series && (int)f->mark[i].status == status) first = fmin(first, f->mark[i].x);
        if (isfinite(first)) fprintf(out, "%s%s from %g", ftell(out) ? ", " : "", hs_status_names[status], first);
    }
    fclose(out);
    return text;
}

/* The crossing in words and numbers. */
static void set_crossing(hs_table *t, size_t row, const fig *f, size_t i)
{
    static const char *const words[] = { [HS_CROSS_NEVER] = "not in range", [HS_CROSS_ALWAYS] = "at all lengths",
                                         [HS_CROSS_AT] = "crosses" };
    const fig_series *s = &f->series[i];
    const hs_crossing *c = &s->crossing;
    int at = s->compared && c->kind == HS_CROSS_AT;
    const char *said = (int)i == f->baseline ? "is the baseline" : s->compared ? words[c->kind] : "no length in common";
    hs_table_set(t, row, hs_table_column(t, "cheaper_than_baseline"), json_string(said));
    hs_table_set(t, row, hs_table_column(t, "from"), number(at ? c->at : NAN));
    hs_table_set(t, row, hs_table_column(t, "from_low"), number(s->compared && s->interval && c->low > 0 ? c->low : NAN));
    hs_table_set(t, row, hs_table_column(t, "from_high"), number(s->compared && s->interval && c->high > 0 ? c->high : NAN));
    hs_table_set(t, row, hs_table_column(t, "compared_from"), number(s->compared ? s->compared_from : NAN));
    hs_table_set(t, row, hs_table_column(t, "compared_to"), number(s->compared ? s->compared_to : NAN));
}

/* One series as a row. */
static void set_row(hs_table *t, size_t row, const fig *f, size_t i)
{
    const fig_series *s = &f->series[i];
    const hs_power *p = &s->fit;
    char *outliers = outliers_text(s), *endings = endings_text(f, i);
    json_t *name = hs_json_text(s->name);
    hs_table_set(t, row, hs_table_column(t, "series"), name);
    hs_table_set(t, row, hs_table_column(t, "slope"), number(p->kept ? p->slope.mean : NAN));
    hs_table_set(t, row, hs_table_column(t, "slope_low"), number(p->kept ? p->slope.low : NAN));
    hs_table_set(t, row, hs_table_column(t, "slope_high"), number(p->kept ? p->slope.high : NAN));
    hs_table_set(t, row, hs_table_column(t, "fit_from"), number(p->kept ? s->point[p->first].x : NAN));
    hs_table_set(t, row, hs_table_column(t, "fit_points"), json_integer((json_int_t)p->kept));
    hs_table_set(t, row, hs_table_column(t, "points"), json_integer((json_int_t)s->npoints));
    if (f->baseline >= 0) set_crossing(t, row, f, i);
    hs_table_set(t, row, hs_table_column(t, "outliers"), json_string(outliers));
    hs_table_set(t, row, hs_table_column(t, "ended_otherwise"), json_string(endings));
    free(outliers);
    free(endings);
}

int fig_write_table(const fig *f, const char *dir)
{
    static const struct { const char *suffix; enum hs_format format; } forms[] = {
        { "csv", HS_CSV }, { "md", HS_MARKDOWN }, { "tex", HS_LATEX } };
    hs_table *t = hs_table_new();
    char path[4096];
    int rc = t ? 0 : -1;
    for (size_t i = 0; t && i < f->ours; i++) set_row(t, i, f, i);
    for (size_t i = 0; rc == 0 && i < sizeof forms / sizeof *forms; i++) {
        snprintf(path, sizeof path, "%s/%s-slopes.%s", dir, f->name, forms[i].suffix);
        FILE *out = fopen(path, "w");
        if (out) hs_table_write(t, forms[i].format, out);
        if (!out || fclose(out) != 0) rc = -1;
    }
    hs_table_free(t);
    return rc;
}
