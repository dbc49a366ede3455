/* figure_script.c - a figure as .tsv and .gp. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_page.h"
#include "protocol.h"
#include "table.h"

/* The fraction of the plot between two rows of marks. */
static double mark_step(const fig *f)
{
    return f->kind == FIG_SCALING ? 0.034 : 0.045;
}

/* The fraction of the plot that the marks take. */
static double mark_room(const fig *f)
{
    return f->mark_rows == 0 ? 0 : 0.04 + mark_step(f) * (double)f->mark_rows;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */
/* A label in the last column of the data: for people and other programs, gnuplot does not look at it. */
static void write_label(FILE *f, const char *label)
{
    char *clean = strdup(label);
    if (!clean) return;
    hs_clean_text(clean);
    for (const char *p = clean; *p; p++) fputc((unsigned char)*p < 32 || *p == '"' ? ' ' : *p, f);
    fputc('\n', f);
    free(clean);
}

/* Numbers in full, each with a tab behind it. */
static void write_numbers(FILE *out, const double *x, size_t n)
{
    char number[32];
    for (size_t i = 0; i < n; i++) {
        hs_exact(x[i], number);
        fprintf(out, "%s\t", number);
    }
}

/* What the columns are. */
static void write_head(FILE *out, const fig *f)
{
    const char *x = fig_x(f->spec), *y = fig_y(f->spec);
    if (f->kind == FIG_SCALING)
        fprintf(out, "# %s\t%s\tlow\thigh\tn\tfit\tseries; low to high: %s, with n > 1 seeds the 95 %% interval of their mean; "
                "fit 1: the fitted line goes through the point\n", x, y,
                json_object_get(f->spec, "bars") ? json_string_value(json_object_get(f->spec, "bars")) : "quantiles");
    else if (f->kind == FIG_PARETO)
        fprintf(out, "# %s\t%s\tlow\thigh\tn\t%s low\t%s high\tfront\tseries; 95 %% intervals over n seeds; front 1: no point "
                "is as good in both\n", x, y, x, x);
    else
        fprintf(out, "# %s\t%s (mean)\tlow\thigh\tn\tseries; low to high is the 95 %% interval of Student's t over n seeds\n", x, y);
}

/* The points of every series, a block for each that has some. */
static void write_series(FILE *out, const fig *f)
{
    for (size_t i = 0; i < f->nseries; i++) {
        const fig_series *s = &f->series[i];
        for (size_t k = 0; k < s->npoints; k++) {
            const fig_point *p = &s->point[k];
            write_numbers(out, (double[]){ p->x, p->y, p->low, p->high }, 4);
            fprintf(out, "%zu\t", p->n);
            if (f->kind == FIG_SCALING) fprintf(out, "%d\t", p->role == FIG_PLAIN);
            if (f->kind == FIG_PARETO) write_numbers(out, (double[]){ p->xlow, p->xhigh, p->role == FIG_ON_FRONT }, 3);
            write_label(out, s->name);
        }
        if (s->npoints) fputs("\n\n", out);
    }
}

/* Where series cross the baseline: x, y, both ends of the interval, colour. */
static void write_crossings(FILE *out, const fig *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->ours; i++) {
        const fig_series *s = &f->series[i], *base = &f->series[f->baseline];
        if (!s->compared || s->crossing.kind != HS_CROSS_AT) continue;
        double x = s->crossing.at, y = fig_height_at(base, x);
        write_numbers(out, (double[]){ x, y, fmax(s->crossing.low, f->xmin), fmin(s->crossing.high, f->xmax) }, 4);
        fprintf(out, "%d\t", fig_colour(s));
        write_label(out, s->name);
        n++;
    }
    if (n) fputs("\n\n", out);
}

/* The marks of every ending that occurs, a block for each: x, height, colour. */
static void write_marks(FILE *out, const fig *f)
{
    for (int status = 0; status < HS_STATUSES; status++) {
        for (size_t i = 0; i < f->nmarks; i++) {
            const fig_mark *m = &f->mark[i];
            if ((int)m->status != status) continue;
            write_numbers(out, &m->x, 1);
            fprintf(out, "%.4f\t%d\t%s\t", 0.965 - mark_step(f) * (double)m->row, fig_colour(&f->series[m->series]),
                    hs_status_names[status]);
            write_label(out, f->series[m->series].name);
        }
        if (fig_count_marks(f, status)) fputs("\n\n", out);
    }
}

/* Blocks for gnuplot's index: every series; the front, or the crossings; the marks of every ending that occurs. */
int fig_write_tsv(const fig *f, const char *dir)
{
    char *path = NULL;
    FILE *out = asprintf(&path, "%s/%s.tsv", dir, f->name) < 0 ? NULL : fopen(path, "w");
    free(path);
    if (!out) return -1;
    write_head(out, f);
    write_series(out, f);
    if (f->kind == FIG_PARETO) fig_write_front(out, f);
    if (f->baseline >= 0) write_crossings(out, f);
    write_marks(out, f);
    return fclose(out) == 0 ? 0 : -1;
}

/* ---- axes -------------------------------------------------------------------------------------------------------- */
/* base to the power n as text: "10⁻³". */
static void power_text(const char *base, int n, char out[32])
{
    static const char *const digit[] = { "⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹" };
    char plain[16];
    snprintf(plain, sizeof plain, "%d", n);
    strcpy(out, base);
    for (const char *p = plain; *p; p++) strcat(out, *p == '-' ? "⁻" : digit[*p - '0']);
}

/* Tics of a logarithmic axis: the decades by name, every second one when there are many; between them short tics, which
 * get names too (1, 2, 5) when the axis spans few decades. */
static void log_tics(FILE *out, char axis, double low, double high)
{
    int first = (int)floor(log10(low) + 1e-9), last = (int)ceil(log10(high) - 1e-9), stride = 1 + (last - first) / 8;
    int few = high / low < 100;
    const char *comma = "";
    fprintf(out, "set %ctics (", axis);
    for (int n = first; n <= last; n++)
        for (int d = 1; d <= 9; d++) {
            double at = d * pow(10, n);
            char name[32] = "";
            if (at < low * (1 - 1e-9) || at > high * (1 + 1e-9)) continue;
            int major = d == 1 && (n - first) % stride == 0;
            if (few && (d == 1 || d == 2 || d == 5) && n >= -3 && n <= 4) snprintf(name, sizeof name, "%g", at);
            else if (few && (d == 2 || d == 5)) power_text(d == 2 ? "2·10" : "5·10", n, name);
            else if (major) power_text("10", n, name);
            if (stride > 1 && d > 1) continue;      /* no room */
            fprintf(out, "%s'%s' %.3g %d", comma, name, at, !*name);
            comma = ", ";
        }
    fputs(")\n", out);
}

/* Are all our points at powers of two, few enough to be named as numbers? */
static int at_doublings(const fig *f)
{
    for (size_t i = 0; i < f->ours; i++)
        for (size_t n = 0; n < f->series[i].npoints; n++) {
            double x = f->series[i].point[n].x;
            if (!(x >= 1 && x <= 4096) || exp2(round(log2(x))) != x) return 0;
        }
    return f->ours > 0;
}

/* Tics at powers of two, named as far as there is room: 2^5 or, when plain, 32. */
static void binary_tics(FILE *out, double low, double high, int plain)
{
    int first = (int)ceil(log2(low) - 1e-9), last = (int)floor(log2(high) + 1e-9), stride = 1 + (last - first) / 14;
    fputs("set xtics (", out);
    for (int n = first; n <= last; n++) {
        char name[32] = "";
        if ((n - first) % stride == 0 && plain) snprintf(name, sizeof name, "%g", exp2(n));
        else if ((n - first) % stride == 0) power_text("2", n, name);
        fprintf(out, "%s'%s' %.9g %d", n > first ? ", " : "", name, exp2(n), !*name);
    }
    fputs(")\n", out);
}

/* The range of one axis and its tics.  room: the fraction for marks at the upper edge. */
static void write_axis(FILE *out, const fig *f, char axis)
{
    int logarithmic = axis == 'x' ? f->logx : f->logy, zero = axis == 'y' && f->ymin >= 0 && f->kind != FIG_PARETO;
    double low = axis == 'x' ? f->xmin : f->ymin, high = axis == 'x' ? f->xmax : f->ymax, cap = axis == 'x' ? f->xcap : f->ycap;
    double room = axis == 'x' ? 0 : mark_room(f), floor_at = axis == 'y' ? f->yfloor : NAN;
    if (!(low <= high)) low = logarithmic ? 0.1 : 0, high = 1;
    if (isfinite(cap) && cap > low) high = cap;
    double top;                         /* of the data; tics end there */
    if (logarithmic && axis == 'y') {
        low = floor_at > 0 ? floor_at : pow(10, floor(log10(low) + 1e-9));
        if (!isfinite(cap)) high = pow(10, ceil(log10(high) - 1e-9));
        top = high = high <= low ? 10 * low : high;
        high *= pow(high / low, room / (1 - room));
    } else if (logarithmic) {
        double pad = high > low ? pow(high / low, 0.03) : 2;
        low /= pad;
        top = high *= pad;
    } else {
        double pad = high > low ? high - low : high != 0 ? fabs(high) : 1;
        low = isfinite(floor_at) && floor_at < high ? floor_at : zero ? 0 : low - 0.03 * pad;
        if (!isfinite(cap)) high += (axis == 'x' ? 0.03 : 0.06) * pad;
        top = high += room / (1 - room) * (high - low);
    }
    if (logarithmic) fprintf(out, "set logscale %c\n", axis);
    fprintf(out, "set %crange [%.9g:%.9g]\n", axis, low, high);
    int doublings = logarithmic && axis == 'x' && f->kind == FIG_LINE && at_doublings(f);
    if (doublings || (axis == 'x' && f->kind == FIG_SCALING)) binary_tics(out, low, top, doublings);
    else if (logarithmic) log_tics(out, axis, low, top);
}

enum { FIRST_FREE = 100000 };           /* labels of the page count from 1 */

/* The line y = k x^slope that touches the points from below or above, with some air. */
static double touching(const fig *f, double slope, int below)
{
    double k = below ? INFINITY : 0;
    for (size_t i = 0; i < f->ours; i++)
        for (size_t n = 0; n < f->series[i].npoints; n++) {
            double at = f->series[i].point[n].y / pow(f->series[i].point[n].x, slope);
            k = below ? fmin(k, at / 1.6) : fmax(k, at * 1.6);
        }
    return k;
}

/* Grey lines to judge slopes by: the flattest below all points, the others above them. */
static void write_references(FILE *out, const fig *f)
{
    const json_t *list = json_object_get(f->spec, "reference");
    double bottom = pow(10, floor(log10(f->ymin) + 1e-9)), flattest = INFINITY;
    size_t n = list ? json_array_size(list) : 2;
    for (size_t i = 0; i < n; i++) flattest = fmin(flattest, list ? json_number_value(json_array_get(list, i)) : (double)i + 1);
    for (size_t i = 0; i < n && f->xmin < f->xmax && f->ymin <= f->ymax; i++) {
        double slope = list ? json_number_value(json_array_get(list, i)) : (double)i + 1;
        int below = slope == flattest;
        double k = touching(f, slope, below), from = f->xmin, to = f->xmax;
        if (slope > 0) {
            from = fmax(from, pow(bottom / k, 1 / slope));
            to = fmin(to, pow(f->ymax / k, 1 / slope));
        }
        if (!(from < to)) continue;
        double at = below ? from * pow(to / from, 0.25) : to;   /* the name: right below there, or left above */
        fprintf(out, "set arrow from first %.9g, first %.9g to first %.9g, first %.9g nohead back linecolor rgb '#a0a0a0' linewidth 1 "
                "dashtype (6,4)\n", from, k * pow(from, slope), to, k * pow(to, slope));
        fprintf(out, "set label %zu 'slope %g' at first %.9g, first %.9g %s noenhanced front textcolor rgb '#808080'\n", FIRST_FREE + i,
                slope, at, k * pow(at, slope), below ? "left offset 0.6,-0.6" : "right offset -0.6,0.6");
    }
}

/* Ranges, tics and what lies behind the data. */
static char *axes_text(const fig *f)
{
    fig_text t;
    fig_text_open(&t);
    write_axis(t.f, f, 'x');
    write_axis(t.f, f, 'y');
    if (f->kind == FIG_SCALING) write_references(t.f, f);
    char *s = fig_text_take(&t);
    s[strlen(s) - 1] = '\0';            /* the template has the last newline */
    return s;
}

/* ---- what is plotted --------------------------------------------------------------------------------------------- */
static const char then[] = " notitle, \\\n     ";

/* The 95 % band of one series of ours, when some point has several seeds; where it reaches 0 on a logarithmic axis it
 * goes on below the axis. */
static void plot_band(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    size_t k = 0;
    while (k < s->npoints && s->point[k].n < 2) k++;
    if (k == s->npoints || s->published) return;
    char *low = f->logy ? fig_format("($3 > 0 ? $3 : %.3g)", f->ymin * 1e-3) : strdup("3");
    fprintf(out, "'%s.tsv' index %d using 1:%s:4 with filledcurves linecolor rgb '#%06x'%s", f->name, index, low, fig_colour(s), then);
    free(low);
}

/* The line of one series; a long curve has a marker here and there. */
static void plot_line(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    char *line = fig_line_style(s), *point = fig_point_style(s, s->published);
    fprintf(out, "'%s.tsv' index %d using 1:2 with linespoints %s %s pointinterval %d%s", f->name, index, line, point,
            f->kind == FIG_CURVE && !s->published ? (int)(1 + s->npoints / 9) : 1, then);
    free(line);
    free(point);
}

/* The points of one series, filled where a column says 1 and hollow elsewhere. */
static void plot_points(FILE *out, const fig *f, size_t i, int index, int column)
{
    for (int hollow = 0; hollow < 2; hollow++) {
        char *point = fig_point_style(&f->series[i], hollow);
        fprintf(out, "'%s.tsv' index %d using 1:($%d == %d ? $2 : NaN) with points linecolor rgb '#%06x' linewidth 1 %s%s", f->name, index,
                column, !hollow, fig_colour(&f->series[i]), point, then);
        free(point);
    }
}

/* Intervals of one series, from columns that begin and span them; gnuplot's error bars would break the lines under them. */
static void plot_bars(FILE *out, const fig *f, size_t i, int index, const char *columns)
{
    fprintf(out, "'%s.tsv' index %d using %s with vectors nohead linewidth 0.8 linecolor rgb '#%06x'%s", f->name, index, columns,
            fig_colour(&f->series[i]), then);
}

/* One series against length: line, bars, points that are filled where the fitted line goes through them. */
static void plot_scaling(FILE *out, const fig *f, size_t i, int index)
{
    char *line = fig_line_style(&f->series[i]);
    fprintf(out, "'%s.tsv' index %d using 1:2 with lines %s%s", f->name, index, line, then);
    plot_bars(out, f, i, index, "1:3:(0):($4-$3)");
    if (f->series[i].published) plot_line(out, f, i, index);
    else plot_points(out, f, i, index, 6);
    free(line);
}

/* One series of quality against cost: intervals both ways, points that are filled on the front. */
static void plot_pareto(FILE *out, const fig *f, size_t i, int index)
{
    plot_bars(out, f, i, index, "1:3:(0):($4-$3)");
    plot_bars(out, f, i, index, "6:2:($7-$6):(0)");
    plot_points(out, f, i, index, 8);
}

/* What is drawn once: the front, or the crossings; then the marks.  index: of the first block behind the series. */
static void plot_rest(FILE *out, const fig *f, int index)
{
    int crossings = 0;
    for (size_t i = 0; f->baseline >= 0 && i < f->ours; i++)
        crossings += f->series[i].compared && f->series[i].crossing.kind == HS_CROSS_AT;
    if (f->kind == FIG_PARETO && f->xmin <= f->xmax)
        fprintf(out, "'%s.tsv' index %d using 1:2 with %s linewidth 1.2 linecolor rgb '#a0a0a0'%s", f->name, index++,
                f->xbetter < 0 ? "steps" : "fsteps", then);
    if (crossings)
        fprintf(out, "'%s.tsv' index %d using 3:2:($4-$3):(0):5 with vectors nohead linewidth 1.6 linecolor rgb variable%s"
                "'%s.tsv' index %d using 1:2:5 with points pointtype 2 pointsize 0.9 linewidth 1.6 linecolor rgb variable%s", f->name,
                index, then, f->name, index, then), index++;
    for (int status = 0; status < HS_STATUSES; status++)
        if (fig_count_marks(f, status))
            fprintf(out, "'%s.tsv' index %d using 1:2:3 axes x1y2 with points linecolor rgb variable linewidth 1.2 pointtype %d "
                    "pointsize %s%s", f->name, index++, fig_ending_point(status), f->kind == FIG_SCALING ? "0.5" : "0.6", then);
}

/* The arguments of gnuplot's plot: bands below, then series, then marks. */
static char *plot_text(const fig *f)
{
    static void (*const plot[FIG_KINDS])(FILE *, const fig *, size_t, int) = {
        [FIG_LINE] = plot_line, [FIG_CURVE] = plot_line, [FIG_SCALING] = plot_scaling, [FIG_PARETO] = plot_pareto };
    fig_text t;
    int index = 0;
    fig_text_open(&t);
    for (size_t i = 0; i < f->nseries && f->kind <= FIG_CURVE; i++)
        if (f->series[i].npoints) plot_band(t.f, f, i, index++);
    index = 0;
    for (size_t i = 0; i < f->nseries; i++)
        if (f->series[i].npoints) plot[f->kind](t.f, f, i, index++);
    plot_rest(t.f, f, index);
    fputs("NaN notitle", t.f);
    return fig_text_take(&t);
}

/* ---- the template ------------------------------------------------------------------------------------------------ */
/* Copies the template, each @NAME@ replaced by its value; values are not looked into. */
static int fill(FILE *in, FILE *out, const fig_place *places, size_t n)
{
    char line[512];
    while (fgets(line, sizeof line, in))
        for (char *p = line; *p;) {
            size_t k = 0, length = *p == '@' ? strspn(p + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") : 0;
            if (length == 0 || p[length + 1] != '@') {
                fputc(*p++, out);
                continue;
            }
            while (k < n && (strlen(places[k].name) != length || strncmp(places[k].name, p + 1, length) != 0)) k++;
            if (k == n) return -1;
            fputs(places[k].value, out);
            p += length + 2;
        }
    return ferror(out) ? -1 : 0;
}

int fig_fill_script(const char *kind, const char *dir, const char *name, const fig_place *places, size_t n, char *why, size_t nwhy)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.gp.in", kind);
    FILE *in = fig_template(path, why, nwhy), *out = NULL;
    if (in) {
        snprintf(path, sizeof path, "%s/%s.gp", dir, name);
        out = fopen(path, "w");
    }
    int rc = out ? fill(in, out, places, n) : -1;
    if (out && fclose(out) != 0) rc = -1;
    if (in && rc != 0) snprintf(why, nwhy, "%s cannot be written", path);
    if (in) fclose(in);
    for (size_t i = 0; i < n; i++) free(places[i].value);
    return rc;
}

int fig_write_script(const fig *f, const char *dir, char *why, size_t nwhy)
{
    const fig_layout a = fig_lay_out(f);
    const fig_place places[] = {
        { "NAME", strdup(f->name) }, { "TITLE", fig_literal(f->title, 64) }, { "XLABEL", fig_literal(f->xlabel, FIG_NOTE_LETTERS) },
        { "YLABEL", fig_literal(f->ylabel, 40) }, { "RANGES", axes_text(f) }, { "NOTES", a.notes },
        { "LEFT", fig_format("%.4f", a.left / a.width) }, { "RIGHT", fig_format("%.4f", a.right / a.width) },
        { "TOP", fig_format("%.4f", a.top / a.height) }, { "BOTTOM", fig_format("%.4f", a.bottom / a.height) },
        { "PLOT", plot_text(f) }, { "WIDTH", fig_format("%.2f", a.width) }, { "HEIGHT", fig_format("%.2f", a.height) },
        { "PIXELS", fig_format("%.0f,%.0f", a.width / 2.54 * 300, a.height / 2.54 * 300) },
        { "POINTS", fig_format("%.0f,%.0f", a.width / 2.54 * 72, a.height / 2.54 * 72) } };
    return fig_fill_script(fig_kind_names[f->kind], dir, f->name, places, sizeof places / sizeof *places, why, nwhy);
}
