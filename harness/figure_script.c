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
/* Points of gnuplot's cairo terminals: a filled shape, and the hollow one or what comes nearest. */
static const struct { int filled, hollow; } markers[] = { { 7, 6 }, { 5, 4 }, { 9, 8 }, { 11, 10 }, { 13, 12 }, { 15, 14 },
                                                          { 1, 1 }, { 3, 3 } };
static const size_t paper_style = (size_t)-1;           /* of the legend's entry for all published numbers */
enum { COLOURS = 8, NAME_MAX_LETTERS = 48, NOTE_MAX_LETTERS = 54, MARK_LINES = 12, GREY = 0x404040 };
/* The mark of each ending. */
static const int endings[HS_STATUSES] = { [HS_REFUSED] = 4, [HS_WRONG] = 12, [HS_DIVERGED] = 2, [HS_OOM] = 8,
                                          [HS_TIMEOUT] = 10, [HS_CRASHED] = 14 };

static const double page_width = 9, plot_height = 5.2, axis_height = 1.15, row_height = 0.4, title_height = 0.6,
                    sample_width = 0.75, letter_width = 0.166, mark_step = 0.045;

/* A user's text as a literal in single quotes, in which gnuplot expands nothing.  A quote in it becomes an apostrophe,
 * because gnuplot 5.4 misreads a doubled one at the beginning; control characters become spaces; a long text is cut.
 * The caller frees. */
static char *literal(const char *text, size_t most)
{
    char *clean = strdup(text), *out = malloc(3 * strlen(text) + 8), *o = out;
    if (!clean || !out) abort();
    hs_clean_text(clean);
    size_t letters = 0;
    *o++ = '\'';
    for (const char *p = clean; *p; p++) {
        if ((*p & 0xc0) != 0x80 && letters++ == most) {
            o = stpcpy(o, "…");
            break;
        }
        if (*p == '\'') o = stpcpy(o, "’");
        else *o++ = (unsigned char)*p < 32 ? ' ' : *p;
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

/* Whether some cell of a series ended otherwise. */
static int has_marks(const fig *f, size_t series)
{
    size_t i = 0;
    while (i < f->nmarks && f->mark[i].series != series) i++;
    return i < f->nmarks;
}

/* How many of the first n series have marks. */
static size_t count_marked(const fig *f, size_t n)
{
    size_t marked = 0;
    for (size_t s = 0; s < n; s++) marked += (size_t)has_marks(f, s);
    return marked;
}

/* The height of a mark as a fraction of the plot: those of one series in one line, below that of the series before. */
static double mark_height(const fig *f, const fig_mark *m)
{
    return 0.965 - mark_step * (double)(count_marked(f, m->series) % MARK_LINES);
}

/* The fraction of the plot that the marks take. */
static double mark_room(const fig *f)
{
    size_t lines = count_marked(f, f->nseries);
    return lines == 0 ? 0 : 0.04 + mark_step * (double)(lines < MARK_LINES ? lines : MARK_LINES);
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

/* Red, green and blue of a series. */
static int colour_of(const fig_series *s)
{
    return s->style == paper_style ? GREY : colours[s->style % COLOURS];
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

/* A formatted string; the caller frees. */
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
    int few = high / low < 100;
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

/* The range of one axis and its tics.  room: the fraction for marks at the upper edge. */
static void write_axis(FILE *out, char axis, int logarithmic, double low, double high, double cap, double room)
{
    int zero = low >= 0 && axis == 'y';
    if (!(low <= high)) low = logarithmic ? 0.1 : 0, high = 1;
    if (isfinite(cap) && cap > low) high = cap;
    double top;                         /* of the data; tics end there */
    if (logarithmic && axis == 'y') {
        low = pow(10, floor(log10(low) + 1e-9));
        if (!isfinite(cap)) high = pow(10, ceil(log10(high) - 1e-9));
        top = high = high <= low ? 10 * low : high;
        high *= pow(high / low, room / (1 - room));
    } else if (logarithmic) {
        double pad = high > low ? pow(high / low, 0.03) : 2;
        low /= pad;
        top = high *= pad;
    } else {
        double pad = high > low ? high - low : high != 0 ? fabs(high) : 1;
        low = zero ? 0 : low - 0.03 * pad;
        if (!isfinite(cap)) high += (axis == 'x' ? 0.03 : 0.06) * pad;
        top = high += room / (1 - room) * (high - low);
    }
    if (logarithmic) fprintf(out, "set logscale %c\n", axis);
    fprintf(out, "set %crange [%.9g:%.9g]\n", axis, low, high);
    if (logarithmic) log_tics(out, axis, low, top);
}

static char *axes_text(const fig *f)
{
    text t;
    text_open(&t);
    write_axis(t.f, 'x', f->logx, f->xmin, f->xmax, f->xcap, 0);
    write_axis(t.f, 'y', f->logy, f->ymin, f->ymax, f->ycap, mark_room(f));
    char *s = text_take(&t);
    s[strlen(s) - 1] = '\0';            /* the template has the last newline */
    return s;
}

/* ---- what is plotted --------------------------------------------------------------------------------------------- */
/* The 95 % band of one series of ours, when some point has several seeds; where it reaches 0 on a logarithmic axis it
 * goes on below the axis. */
static void plot_band(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    size_t k = 0;
    while (k < s->npoints && s->point[k].n < 2) k++;
    if (k == s->npoints || s->published) return;
    char *low = f->logy ? format("($3 > 0 ? $3 : %.3g)", f->ymin * 1e-3) : strdup("3");
    fprintf(out, "'%s.tsv' index %d using 1:%s:4 with filledcurves linecolor rgb '#%06x' notitle, \\\n     ", f->name, index,
            low, colour_of(s));
    free(low);
}

/* How a series looks, as arguments of plot, arrow and point: colour, and dashes once the colours are used up. */
static char *line_style(const fig_series *s)
{
    const char *dash = s->published ? "(4,4)" : s->style < COLOURS ? "solid" : s->style < 2 * COLOURS ? "(8,3)" : "(1,3)";
    return format("linecolor rgb '#%06x' linewidth %s dashtype %s", colour_of(s), s->published ? "0.7" : "1.4", dash);
}

static char *point_style(const fig_series *s)
{
    size_t m = s->style == paper_style ? 0 : s->style % COLOURS;
    return format("pointtype %d pointsize %s", s->published ? markers[m].hollow : markers[m].filled, s->published ? "0.7" : "0.5");
}

/* The line of one series; a long curve has a marker here and there. */
static void plot_series(FILE *out, const fig *f, size_t i, int index)
{
    const fig_series *s = &f->series[i];
    char *line = line_style(s), *point = point_style(s);
    fprintf(out, "'%s.tsv' index %d using 1:2 with linespoints %s %s pointinterval %d notitle, \\\n     ", f->name, index, line,
            point, f->curve && !s->published ? (int)(1 + s->npoints / 9) : 1);
    free(line);
    free(point);
}

/* How many marks an ending has. */
static size_t count_marks(const fig *f, int status)
{
    size_t n = 0;
    for (size_t i = 0; i < f->nmarks; i++) n += (int)f->mark[i].status == status;
    return n;
}

/* The arguments of gnuplot's plot: bands below, then lines, then marks. */
static char *plot_text(const fig *f)
{
    text t;
    int index = 0;
    text_open(&t);
    for (size_t i = 0; i < f->nseries; i++)
        if (f->series[i].npoints) plot_band(t.f, f, i, index++);
    index = 0;
    for (size_t i = 0; i < f->nseries; i++)
        if (f->series[i].npoints) plot_series(t.f, f, i, index++);
    for (int status = 0; status < HS_STATUSES; status++)
        if (count_marks(f, status))
            fprintf(t.f, "'%s.tsv' index %d using 1:2:3 axes x1y2 with points linecolor rgb variable linewidth 1.2 pointtype %d "
                    "pointsize 0.6 notitle, \\\n     ", f->name, index++, endings[status]);
    fputs("NaN notitle", t.f);
    return text_take(&t);
}

/* ---- below the plot ---------------------------------------------------------------------------------------------- */
/* Where text may be put: centimetres from the left and from the bottom become fractions of the page. */
typedef struct page { FILE *out; double height; int label; } page;

/* Text that begins at a place. */
static void put_text(page *p, double x, double y, const char *words, size_t most)
{
    char *quoted = literal(words, most);
    fprintf(p->out, "set label %d %s at screen %.4f, screen %.4f left noenhanced front textcolor rgb '#%06x'\n", ++p->label, quoted,
            x / page_width, y / p->height, GREY);
    free(quoted);
}

/* A point, in the words of point_style and a colour. */
static void put_point(page *p, double x, double y, const char *style, int colour)
{
    fprintf(p->out, "set label %d '' at screen %.4f, screen %.4f front point %s linecolor rgb '#%06x'\n", ++p->label, x / page_width,
            y / p->height, style, colour);
}

/* One entry of the legend. */
static void put_entry(page *p, const fig_series *s, const char *name, double x, double y)
{
    char *line = line_style(s), *point = point_style(s);
    fprintf(p->out, "set arrow from screen %.4f, screen %.4f to screen %.4f, screen %.4f nohead front %s\n", x / page_width,
            y / p->height, (x + 0.6) / page_width, y / p->height, line);
    put_point(p, x + 0.3, y, point, colour_of(s));
    put_text(p, x + sample_width, y, name, NAME_MAX_LETTERS);
    free(line);
    free(point);
}

/* Centimetres that an entry takes. */
static double entry_width(const char *name)
{
    size_t letters = 0;
    for (const char *p = name; *p && letters < NAME_MAX_LETTERS; p++) letters += (*p & 0xc0) != 0x80;
    return sample_width + letter_width * (double)letters + 0.3;
}

/* The legend's entries: every series that is seen, if only by a mark, a published one only when none of ours has its name;
 * and one for all of those. */
typedef struct legend { const fig_series **entry; fig_series paper; size_t n, rows; } legend;

static void legend_init(legend *l, const fig *f)
{
    *l = (legend){ .entry = calloc(f->nseries + 1, sizeof *l->entry), .rows = 1,
                   .paper = { .name = "published", .published = 1, .style = paper_style } };
    if (!l->entry) abort();
    for (size_t i = 0; i < f->nseries; i++) {
        const fig_series *s = &f->series[i];
        int named = s->published && s->style < f->ours && (f->series[s->style].npoints || has_marks(f, s->style));
        if ((s->npoints || has_marks(f, i)) && !named) l->entry[l->n++] = s;
    }
    if (f->nseries > f->ours) l->entry[l->n++] = &l->paper;
}

/* The widths of the columns when the entries stand in so many rows; their sum. */
static double legend_width(const legend *l, size_t rows, double *width)
{
    double sum = 0;
    for (size_t i = 0; i < l->n; i++) {
        double w = entry_width(l->entry[i]->name), *column = &width[i / rows];
        if (i % rows == 0) *column = 0;
        if (w > *column) {
            sum += w - *column;
            *column = w;
        }
    }
    return sum;
}

/* Writes the legend column by column, in the fewest rows that fit, centred, its first row at y; the fewest rows are
 * found when nothing is written yet (p NULL). */
static void put_legend(page *p, legend *l, double y)
{
    double *width = calloc(l->n + 1, sizeof *width), x;
    if (!width) abort();
    while (legend_width(l, l->rows, width) > page_width - 0.2 && l->rows < l->n) l->rows++;
    x = 0.5 * (page_width - legend_width(l, l->rows, width)) + 0.1;
    for (size_t i = 0; p && i < l->n; i++) {
        put_entry(p, l->entry[i], l->entry[i]->name, x, y - row_height * (double)(i % l->rows));
        if ((i + 1) % l->rows == 0) x += width[i / l->rows];
    }
    free(width);
}

/* The values that an axis cut off. */
static size_t count_beyond(const fig *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++) n += f->series[i].point[k].y > f->ycap;
    return n;
}

/* The remarks that hold for the whole figure, one line; the caller frees. */
static char *remarks(const fig *f)
{
    text t;
    size_t beyond = count_beyond(f);
    const char *then = "";
    text_open(&t);
    if (f->missing) fprintf(t.f, "%zu of %zu cells missing", f->missing, f->cells), then = "; ";
    if (beyond) fprintf(t.f, "%s%zu %s above the axis", then, beyond, beyond == 1 ? "value lies" : "values lie"), then = "; ";
    if (f->dropped) fprintf(t.f, "%s%zu not shown (nan%s)", then, f->dropped, f->logx || f->logy ? " or not positive" : "");
    return text_take(&t);
}

/* One line for each kind of ending, with its first reason, then the remarks; the first line at y.  p NULL: only counts. */
static size_t put_notes(page *p, const fig *f, double y)
{
    size_t lines = 0;
    for (int status = 0; status < HS_STATUSES; status++) {
        size_t n = count_marks(f, status), i = 0;
        if (n == 0) continue;
        while ((int)f->mark[i].status != status) i++;
        const char *reason = f->mark[i].reason;
        char *note = format("%s (%zu)%s%s", hs_status_names[status], n, reason ? ": " : "", reason ? reason : "");
        char *point = format("pointtype %d pointsize 0.6 linewidth 1.2", endings[status]);
        if (p) put_point(p, 0.4, y - row_height * (double)lines, point, GREY);
        if (p) put_text(p, 0.65, y - row_height * (double)lines, note, NOTE_MAX_LETTERS);
        lines++;
        free(note);
        free(point);
    }
    char *rest = remarks(f);
    if (*rest && p) put_text(p, 0.3, y - row_height * (double)lines, rest, NOTE_MAX_LETTERS);
    lines += *rest != '\0';
    free(rest);
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

/* Legend and notes as commands, and the heights that follow from them; the caller frees. */
static char *below_text(const fig *f, double *below, double *height)
{
    legend l;
    text t;
    legend_init(&l, f);
    put_legend(NULL, &l, 0);
    double rows = row_height * (double)(l.n ? l.rows : 0) + 0.1;
    *below = rows + row_height * (double)put_notes(NULL, f, 0) + 0.1;
    *height = (*f->title ? title_height : 0.15) + plot_height + axis_height + *below;
    text_open(&t);
    page p = { t.f, *height, 0 };
    put_legend(&p, &l, *below - 0.5 * row_height);
    put_notes(&p, f, *below - rows - 0.5 * row_height);
    if (f->xmin > f->xmax) fprintf(t.f, "set label %d 'no cell has finished yet' at graph 0.5, graph 0.5 center\n", p.label + 1);
    free(l.entry);
    return text_take(&t);
}

/* The script of a figure from its template, already open. */
static int write_script(const fig *f, FILE *in, FILE *out)
{
    double below, height;
    char *notes = below_text(f, &below, &height);
    place places[] = {
        { "NAME", strdup(f->name) }, { "TITLE", literal(f->title, 64) }, { "XLABEL", literal(f->xlabel, NOTE_MAX_LETTERS) },
        { "YLABEL", literal(f->ylabel, 40) }, { "RANGES", axes_text(f) }, { "BELOW", notes },
        { "TOP", format("%.4f", (below + axis_height + plot_height) / height) },
        { "BOTTOM", format("%.4f", (below + axis_height) / height) }, { "PLOT", plot_text(f) },
        { "WIDTH", format("%.2f", page_width) }, { "HEIGHT", format("%.2f", height) },
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
