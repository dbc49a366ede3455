/* figure_script.c - a figure as .tsv and .gp.
 *
 * The page is laid out here, in centimetres at the width of a paper's column, and handed to gnuplot as fractions:
 * title, plot, x axis, legend, then one line per kind of ending and per remark.  So nothing covers the data. */
#define _GNU_SOURCE
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_internal.h"
#include "protocol.h"
#include "table.h"

/* Okabe and Ito's colours, that colour-blind people tell apart; their yellow is too pale for a line on white. */
static const int colours[] = { 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x000000, 0x808080 };
static const int markers[] = { 7, 5, 9, 11, 13, 15 };   /* filled; the hollow one of each is the number before */
enum { COLOURS = 8, MARKERS = 6, LABEL_MAX = 48 };
/* The mark of each ending. */
static const int endings[HS_STATUSES] = { [HS_REFUSED] = 4, [HS_WRONG] = 1, [HS_DIVERGED] = 2, [HS_OOM] = 8,
                                          [HS_TIMEOUT] = 10, [HS_CRASHED] = 3 };

static const double page_width = 9, plot_height = 5.2, axis_height = 1.05, row_height = 0.4, title_height = 0.45;

/* A user's text as a literal: in single quotes gnuplot expands nothing, and a quote is doubled.  Control characters
 * become spaces, a long text is cut.  The caller frees. */
static char *literal(const char *text)
{
    char *clean = strdup(text), *out = malloc(2 * strlen(text) + 8), *o = out;
    if (!clean || !out) abort();
    hs_clean_text(clean);
    size_t letters = 0;
    *o++ = '\'';
    for (const char *p = clean; *p; p++) {
        if ((*p & 0xc0) != 0x80 && letters++ == LABEL_MAX) {
            o = stpcpy(o, "…");
            break;
        }
        if (*p == '\'') *o++ = '\'';
        *o++ = (unsigned char)*p < 32 ? ' ' : *p;
    }
    strcpy(o, "'");
    free(clean);
    return out;
}

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

/* The heights of marks at the upper edge: those of one series in one line, below that of the series before. */
static double mark_height(const fig *f, const fig_mark *m)
{
    size_t before = 0;
    for (size_t s = 0; s < m->series; s++)
        for (size_t i = 0; i < f->nmarks; i++)
            if (f->mark[i].series == s) {
                before++;
                break;
            }
    return 0.965 - 0.045 * (double)(before % 12);
}

/* Blocks for gnuplot's index: every series, then the marks of every ending that occurs. */
int fig_write_tsv(const fig *f, const char *dir)
{
    char *path = NULL, number[4][32];
    FILE *out = asprintf(&path, "%s/%s.tsv", dir, f->name) < 0 ? NULL : fopen(path, "w");
    free(path);
    if (!out) return -1;
    fprintf(out, "# %s\t%s (mean)\tlow\thigh\tn\tseries; low to high is the 95 %% interval of Student's t over n seeds\n",
            fig_x(f->spec), fig_y(f->spec));
    for (size_t i = 0; i < f->nseries; i++) {
        const fig_series *s = &f->series[i];
        for (size_t k = 0; k < s->npoints; k++) {
            const fig_point *p = &s->point[k];
            hs_exact(p->x, number[0]);
            hs_exact(p->y, number[1]);
            hs_exact(p->low, number[2]);
            hs_exact(p->high, number[3]);
            fprintf(out, "%s\t%s\t%s\t%s\t%zu\t", number[0], number[1], number[2], number[3], p->n);
            write_label(out, s->name);
        }
        if (s->npoints) fputs("\n\n", out);
    }
    for (int status = 0; status < HS_STATUSES; status++) {
        int any = 0;
        for (size_t i = 0; i < f->nmarks; i++) {
            const fig_mark *m = &f->mark[i];
            if ((int)m->status != status) continue;
            hs_exact(m->x, number[0]);
            fprintf(out, "%s\t%.4f\t%d\t%s\t", number[0], mark_height(f, m), colours[f->series[m->series].style % COLOURS],
                    hs_status_names[status]);
            write_label(out, f->series[m->series].name);
            any = 1;
        }
        if (any) fputs("\n\n", out);
    }
    return fclose(out) == 0 ? 0 : -1;
}

/* ---- text that grows ------------------------------------------------------------------------------------------- */
typedef struct text { char *s; size_t n; FILE *f; } text;

static void text_open(text *t)
{
    t->f = open_memstream(&t->s, &t->n);
    if (!t->f) abort();
}

/* The text, which the caller frees. */
static char *text_take(text *t)
{
    fclose(t->f);
    return t->s;
}

static char *format(const char *form, ...) __attribute__((format(printf, 1, 2)));
static char *format(const char *form, ...)
{
    va_list ap;
    char *s = NULL;
    va_start(ap, form);
    if (vasprintf(&s, form, ap) < 0) abort();
    va_end(ap);
    return s;
}

/* ---- axes -------------------------------------------------------------------------------------------------------- */
/* 10^n as text: "10⁻³". */
static void power_text(int n, char out[32])
{
    static const char *const digit[] = { "⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹" };
    char plain[16];
    snprintf(plain, sizeof plain, "%d", n);
    strcpy(out, "10");
    for (const char *p = plain; *p; p++) strcat(out, *p == '-' ? "⁻" : digit[*p - '0']);
}

/* Tics of a logarithmic axis: the decades by name, every second one when there are many; between them short tics, which
 * get names too (1, 2, 5) when the axis spans few decades. */
static void log_tics(FILE *out, char axis, double low, double high)
{
    int first = (int)floor(log10(low) + 1e-9), last = (int)ceil(log10(high) - 1e-9), stride = 1 + (last - first) / 8;
    int few = last - first <= 1;
    const char *comma = "";
    fprintf(out, "set %ctics (", axis);
    for (int n = first; n <= last; n++)
        for (int d = 1; d <= 9; d++) {
            double at = d * pow(10, n);
            char name[32] = "";
            if (at < low * (1 - 1e-9) || at > high * (1 + 1e-9)) continue;
            int major = d == 1 && (n - first) % stride == 0;
            if (few && (d == 1 || d == 2 || d == 5)) snprintf(name, sizeof name, "%g", at);
            else if (major) power_text(n, name);
            if (stride > 1 && d > 1) continue;      /* no room */
            fprintf(out, "%s'%s' %.3g %d", comma, name, at, !*name);
            comma = ", ";
        }
    fputs(")\n", out);
}

/* The range of one axis and its tics.  room: for marks at the upper edge. */
static void write_axis(FILE *out, char axis, int logarithmic, double low, double high, double cap, int room)
{
    int zero = low >= 0 && axis == 'y';
    if (!(low <= high)) low = logarithmic ? 0.1 : 0, high = 1;
    if (isfinite(cap) && cap > low) high = cap;
    if (logarithmic && axis == 'y') {
        low = pow(10, floor(log10(low) + 1e-9));
        if (!isfinite(cap)) high = pow(10, ceil(log10(high) - 1e-9));
        if (high <= low) high = 10 * low;
        if (room) high *= pow(high / low, 0.15);
    } else if (logarithmic) {
        double pad = high > low ? pow(high / low, 0.03) : 2;
        low /= pad;
        high *= pad;
    } else {
        double pad = high > low ? high - low : high != 0 ? fabs(high) : 1;
        low = zero ? 0 : low - 0.03 * pad;
        if (!isfinite(cap)) high += (axis == 'x' ? 0.03 : 0.06) * pad;
        if (room) high += 0.15 * (high - low);
    }
    if (logarithmic) fprintf(out, "set logscale %c\n", axis);
    fprintf(out, "set %crange [%.9g:%.9g]\n", axis, low, high);
    if (logarithmic) log_tics(out, axis, low, high);
}

static char *axes_text(const fig *f)
{
    text t;
    text_open(&t);
    write_axis(t.f, 'x', f->logx, f->xmin, f->xmax, f->xcap, 0);
    write_axis(t.f, 'y', f->logy, f->ymin, f->ymax, f->ycap, f->nmarks > 0);
    char *s = text_take(&t);
    s[strlen(s) - 1] = '\0';            /* the template has the last newline */
    return s;
}

/* ---- what is plotted --------------------------------------------------------------------------------------------- */
/* One series of ours: its band, when some point has several seeds, and its line. */
static void plot_series(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    int colour = colours[s->style % COLOURS], marker = markers[s->style % MARKERS], band = 0;
    for (size_t k = 0; k < s->npoints; k++) band |= s->point[k].n > 1;
    char *name = literal(s->name), floor_text[32];
    hs_exact(f->logy ? f->ymin * 1e-3 : -INFINITY, floor_text);
    if (band && f->logy)
        fprintf(out, "'%s.tsv' index %d using 1:($3 > 0 ? $3 : %s):4 with filledcurves linecolor rgb '#%06x' notitle, \\\n     ",
                f->name, index, floor_text, colour);
    else if (band)
        fprintf(out, "'%s.tsv' index %d using 1:3:4 with filledcurves linecolor rgb '#%06x' notitle, \\\n     ",
                f->name, index, colour);
    fprintf(out, "'%s.tsv' index %d using 1:2 with linespoints linecolor rgb '#%06x' linewidth 1.4 dashtype %s pointtype %d "
            "pointsize 0.5 pointinterval %d title %s, \\\n     ", f->name, index, colour,
            s->style < COLOURS ? "solid" : s->style < 2 * COLOURS ? "'-'" : "'.'", marker,
            f->curve ? (int)(1 + s->npoints / 9) : 1, name);
    free(name);
}

/* One series of a paper: thin, dashed, hollow, in the colour of ours. */
static void plot_published(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    int ours = s->style < f->ours;
    char *name = literal(s->name), *title = ours ? strdup("notitle") : format("title %s", name);
    fprintf(out, "'%s.tsv' index %d using 1:2 with linespoints linecolor rgb '#%06x' linewidth 0.7 dashtype (4,4) "
            "pointtype %d pointsize 0.75 %s, \\\n     ", f->name, index, colours[s->style % COLOURS],
            markers[s->style % MARKERS] - 1, title);
    free(name);
    free(title);
}

/* How many marks an ending has. */
static size_t count_marks(const fig *f, int status)
{
    size_t n = 0;
    for (size_t i = 0; i < f->nmarks; i++) n += (int)f->mark[i].status == status;
    return n;
}

/* The arguments of gnuplot's plot. */
static char *plot_text(const fig *f)
{
    text t;
    int index = 0;
    text_open(&t);
    for (size_t i = 0; i < f->nseries; i++) {
        if (f->series[i].npoints == 0) continue;
        (f->series[i].published ? plot_published : plot_series)(t.f, f, i, index++);
    }
    for (int status = 0; status < HS_STATUSES; status++)
        if (count_marks(f, status))
            fprintf(t.f, "'%s.tsv' index %d using 1:2:3 axes x1y2 with points linecolor rgb variable linewidth 1.2 pointtype %d "
                    "pointsize 0.6 notitle, \\\n     ", f->name, index++, endings[status]);
    fputs("NaN notitle", t.f);
    return text_take(&t);
}

/* ---- below the plot ---------------------------------------------------------------------------------------------- */
/* The entries of the legend, and how many stand in one row. */
static size_t legend(const fig *f, size_t *columns)
{
    size_t entries = 0, longest = 1;
    for (size_t i = 0; i < f->nseries; i++) {
        const fig_series *s = &f->series[i];
        if (s->npoints == 0 || (s->published && s->style < f->ours)) continue;
        size_t letters = 0;
        for (const char *p = s->name; *p; p++) letters += (*p & 0xc0) != 0x80;
        if (letters > LABEL_MAX) letters = LABEL_MAX;
        if (letters > longest) longest = letters;
        entries++;
    }
    *columns = (size_t)(page_width / (1.25 + 0.165 * (double)longest));
    if (*columns < 1) *columns = 1;
    if (*columns > 4) *columns = 4;
    return (entries + *columns - 1) / *columns;
}

/* One line below the legend, with a mark before it when pointtype is not 0. */
static void write_note(FILE *out, int line, double y, int pointtype, const char *note)
{
    char *words = literal(note), point[112] = "";
    if (pointtype)
        snprintf(point, sizeof point, "point pointtype %d pointsize 0.6 linewidth 1.2 linecolor rgb '#404040' offset 0.6,0", pointtype);
    fprintf(out, "set label %d %s at screen %.4f, screen %.4f left noenhanced front textcolor rgb '#404040' %s\n", line, words,
            pointtype ? 0.05 : 0.03, y, point);
    free(words);
}

/* The values that an axis cut off. */
static size_t count_beyond(const fig *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++) n += f->series[i].point[k].y > f->ycap;
    return n;
}

/* The remarks: endings with the first reason, what is missing, what is not shown, what is dashed.  y of the first and the
 * step to the next are fractions of the page; returns the count, and writes when out is not NULL. */
static int write_notes(FILE *out, const fig *f, double y, double step)
{
    int lines = 0;
    const int published = f->nseries > f->ours;
    for (int status = 0; status < HS_STATUSES; status++) {
        size_t n = count_marks(f, status), i = 0;
        if (n == 0) continue;
        while ((int)f->mark[i].status != status) i++;
        char *note = format("%s (%zu)%s%s", hs_status_names[status], n, f->mark[i].reason ? ": " : "",
                            f->mark[i].reason ? f->mark[i].reason : "");
        if (out) write_note(out, lines + 1, y - step * lines, endings[status], note);
        lines++;
        free(note);
    }
    size_t beyond = count_beyond(f);
    char *notes[] = { f->missing ? format("%zu of %zu cells missing", f->missing, f->cells) : NULL,
                      f->dropped ? format("%zu values not shown: %s", f->dropped,
                                          f->logx || f->logy ? "no number, or not positive" : "no number") : NULL,
                      beyond ? format("%zu values lie above the axis", beyond) : NULL,
                      published ? strdup("dashed, hollow: published") : NULL };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        if (!notes[i]) continue;
        if (out) write_note(out, lines + 1, y - step * lines, 0, notes[i]);
        lines++;
        free(notes[i]);
    }
    return lines;
}

/* ---- the template ------------------------------------------------------------------------------------------------ */
typedef struct place { const char *name; char *value; } place;

/* Copies the template, each @NAME@ replaced by its value; values are not looked into. */
static int fill(FILE *in, FILE *out, const place *places, size_t n)
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

/* The script of a figure from its template, already open. */
static int write_script(const fig *f, FILE *in, FILE *out)
{
    size_t columns, rows = legend(f, &columns);
    int lines = write_notes(NULL, f, 0, 0);
    double title = *f->title ? title_height : 0.15, below = row_height * ((double)rows + lines) + 0.1;
    double height = title + plot_height + axis_height + below;
    text notes;
    text_open(&notes);
    write_notes(notes.f, f, (row_height * (lines - 0.4)) / height, row_height / height);
    if (f->xmin > f->xmax) fputs("set label 99 'no cell has finished yet' at graph 0.5, graph 0.5 center\n", notes.f);
    place places[] = {
        { "NAME", strdup(f->name) }, { "TITLE", literal(f->title) }, { "XLABEL", literal(f->xlabel) },
        { "YLABEL", literal(f->ylabel) }, { "RANGES", axes_text(f) }, { "TOP", format("%.4f", 1 - title / height) },
        { "BOTTOM", format("%.4f", (axis_height + below) / height) }, { "KEY", format("%.4f", below / height) },
        { "COLUMNS", format("%zu", columns) }, { "NOTES", text_take(&notes) }, { "WIDTH", format("%.2f", page_width) },
        { "HEIGHT", format("%.2f", height) }, { "PLOT", plot_text(f) },
        { "PIXELS", format("%.0f,%.0f", page_width / 2.54 * 300, height / 2.54 * 300) },
        { "POINTS", format("%.0f,%.0f", page_width / 2.54 * 72, height / 2.54 * 72) } };
    int rc = fill(in, out, places, sizeof places / sizeof *places);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) free(places[i].value);
    return rc;
}

int fig_write_script(const fig *f, const char *dir, char *why, size_t nwhy)
{
    char path[4096];
    FILE *in = fig_template(f->curve ? "curve.gp.in" : "line.gp.in", why, nwhy);
    if (!in) return -1;
    snprintf(path, sizeof path, "%s/%s.gp", dir, f->name);
    FILE *out = fopen(path, "w");
    int rc = out ? write_script(f, in, out) : -1;
    if (out && fclose(out) != 0) rc = -1;
    if (rc != 0) snprintf(why, nwhy, "%s cannot be written", path);
    fclose(in);
    return rc;
}
