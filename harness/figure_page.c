/* figure_page.c - the page of a figure, laid out in centimetres at the width of a paper's column, or with a table of
 * slopes at its right: title, plot, x axis, legend, then one line per kind of ending and per remark.  So nothing covers
 * the data. */
#define _GNU_SOURCE
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "figure_page.h"
#include "protocol.h"

/* Okabe and Ito's colours, that colour-blind people tell apart; their yellow is too pale for a line on white. */
static const int colours[] = { 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x000000, 0x808080 };
/* Points of gnuplot's cairo terminals: a filled shape, and the hollow one or what comes nearest. */
static const struct { int filled, hollow; } markers[] = { { 7, 6 }, { 5, 4 }, { 9, 8 }, { 11, 10 }, { 13, 12 }, { 15, 14 } };
enum { COLOURS = sizeof colours / sizeof *colours, MARKERS = sizeof markers / sizeof *markers, NAME_MAX_LETTERS = 48 };
/* The mark of each ending. */
static const int endings[HS_STATUSES] = { [HS_REFUSED] = 4, [HS_WRONG] = 12, [HS_DIVERGED] = 2, [HS_OOM] = 8,
                                          [HS_TIMEOUT] = 10, [HS_CRASHED] = 14 };
static const size_t paper_style = (size_t)-1;           /* of the legend's entry for all published numbers */
static const double page_width = 9, plot_height = 5.2, axis_height = 1.15, row_height = 0.4, title_height = 0.6,
                    sample_width = 0.75, letter_width = 0.166, usual_left = 1.32;
/* Of a page with a table at the right of the plot. */
static const double side_plot_width = 8.2, side_plot_height = 6.4, side_gap = 0.35, side_row = 0.36, slope_width = 2.2,
                    crossing_width = 3.2, superscript_drop = 0.04;

/* ---- text -------------------------------------------------------------------------------------------------------- */
void fig_text_open(fig_text *t)
{
    t->f = open_memstream(&t->s, &t->n);
    if (!t->f) abort();
}

char *fig_text_take(fig_text *t)
{
    fclose(t->f);
    return t->s;
}

char *fig_format(const char *form, ...)
{
    va_list ap;
    char *s = NULL;
    va_start(ap, form);
    if (vasprintf(&s, form, ap) < 0) abort();
    va_end(ap);
    return s;
}

/* A user's text as a literal in single quotes, in which gnuplot expands nothing.  A quote in it becomes an apostrophe,
 * because gnuplot 5.4 misreads a doubled one at the beginning; control characters become spaces; a long text is cut.
 * The caller frees. */
char *fig_literal(const char *text, size_t most)
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

/* ---- styles ------------------------------------------------------------------------------------------------------ */
int fig_colour(const fig_series *s)
{
    return s->style == paper_style ? FIG_GREY : colours[s->style % COLOURS];
}

/* Whether some cell of a series ended otherwise. */
int fig_has_marks(const fig *f, size_t series)
{
    size_t i = 0;
    while (i < f->nmarks && f->mark[i].series != series) i++;
    return i < f->nmarks;
}

/* How a series looks, as arguments of plot, arrow and point: colour, and dashes once the colours are used up. */
char *fig_line_style(const fig_series *s)
{
    const char *dash = s->published ? "(4,4)" : s->style < COLOURS ? "solid" : s->style < 2 * COLOURS ? "(8,3)" : "(1,3)";
    return fig_format("linecolor rgb '#%06x' linewidth %s dashtype %s", fig_colour(s), s->published ? "0.7" : "1.2", dash);
}

char *fig_point_style(const fig_series *s, int hollow)
{
    size_t m = s->style == paper_style ? 0 : s->style % MARKERS;
    return fig_format("pointtype %d pointsize %s", hollow ? markers[m].hollow : markers[m].filled, s->published ? "0.7" : "0.5");
}

int fig_ending_point(int status)
{
    return endings[status];
}

/* How many marks an ending has. */
size_t fig_count_marks(const fig *f, int status)
{
    size_t n = 0;
    for (size_t i = 0; i < f->nmarks; i++) n += (int)f->mark[i].status == status;
    return n;
}

/* ---- putting ------------------------------------------------------------------------------------------------------ */
/* Where text may be put: centimetres from the left and from the bottom become fractions of the page. */
typedef struct page { FILE *out; double width, height; int label, lines; } page;      /* lines: points are joined */

/* Words in quotes that begin at a place. */
static void put_literal(page *p, double x, double y, const char *quoted, const char *enhanced)
{
    fprintf(p->out, "set label %d %s at screen %.4f, screen %.4f left %s front textcolor rgb '#%06x'\n", ++p->label, quoted,
            x / p->width, y / p->height, enhanced, FIG_GREY);
}

/* Text that begins at a place. */
static void put_text(page *p, double x, double y, const char *words, size_t most)
{
    char *quoted = fig_literal(words, most);
    put_literal(p, x, y, quoted, "noenhanced");
    free(quoted);
}

/* A point, in the words of point_style and a colour. */
static void put_point(page *p, double x, double y, const char *style, int colour)
{
    fprintf(p->out, "set label %d '' at screen %.4f, screen %.4f front point %s linecolor rgb '#%06x'\n", ++p->label, x / p->width,
            y / p->height, style, colour);
}

/* One entry of the legend. */
static void put_entry(page *p, const fig_series *s, const char *name, double x, double y)
{
    char *line = fig_line_style(s), *point = fig_point_style(s, s->published);
    if (p->lines)
        fprintf(p->out, "set arrow from screen %.4f, screen %.4f to screen %.4f, screen %.4f nohead front %s\n", x / p->width,
                y / p->height, (x + 0.6) / p->width, y / p->height, line);
    put_point(p, x + 0.3, y, point, fig_colour(s));
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

/* ---- the legend below the plot ----------------------------------------------------------------------------------- */
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
        int named = s->published && s->style < f->ours && (f->series[s->style].npoints || fig_has_marks(f, s->style));
        if ((s->npoints || fig_has_marks(f, i)) && !named) l->entry[l->n++] = s;
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

/* ---- the table at the right of the plot ---------------------------------------------------------------------------- */
/* A length for the eye: 2310, 12.3k, 1.05M. */
static char *length_text(double x)
{
    if (x >= 1e6) return fig_format("%.3gM", x * 1e-6);
    return x >= 1e4 ? fig_format("%.3gk", x * 1e-3) : fig_format("%.0f", x);
}

/* From which length on a series is below the baseline: "2310 (2100–2480)". */
static char *crossing_text(const fig *f, size_t i)
{
    const fig_series *s = &f->series[i];
    const hs_crossing *c = &s->crossing;
    if ((int)i == f->baseline) return strdup("baseline");
    if (!s->compared) return strdup("–");
    if (c->kind == HS_CROSS_NEVER) return strdup("not in range");
    char *first = length_text(s->compared_from), *at = length_text(c->at), *whole;
    char *low = c->low > 0 ? length_text(c->low) : fig_format("<%s", first);
    char *high = isfinite(c->high) ? length_text(c->high) : strdup("∞");
    if (c->kind == HS_CROSS_ALWAYS) whole = fig_format("≤%s", first);
    else whole = !s->interval || strcmp(low, high) == 0 ? strdup(at) : fig_format("%s (%s–%s)", at, low, high);
    free(first);
    free(at);
    free(low);
    free(high);
    return whole;
}

/* A slope as an exponent, for gnuplot's enhanced text: no user's text is in it. */
static char *slope_literal(const fig *f, const fig_series *s)
{
    const char *x = strcmp(fig_bare(fig_x(f->spec)), "length") == 0 ? "T" : "x";
    double half = s->fit.slope.high - s->fit.slope.mean;
    if (!s->fit.kept) return strdup("'–'");
    return fig_format("'%s^{%.2f ± %.*f}'", x, s->fit.slope.mean, half < 0.995 ? 2 : 1, half);
}

/* The longest name, in centimetres with its sample. */
static double name_width(const legend *l)
{
    double most = 0;
    for (size_t i = 0; i < l->n; i++) most = fmax(most, entry_width(l->entry[i]->name));
    return most;
}

/* One row per series: name, slope, crossing; the head at y. */
static void put_side(page *p, const fig *f, const legend *l, double x, double y)
{
    double at_slope = x + name_width(l), at_crossing = at_slope + slope_width;
    put_text(p, at_slope, y, "slope", NAME_MAX_LETTERS);
    if (f->baseline >= 0) {
        char *head = fig_format("below %s from", f->series[f->baseline].name);
        put_text(p, at_crossing, y, head, 26);
        free(head);
    }
    for (size_t i = 0; i < l->n; i++) {
        const fig_series *s = l->entry[i];
        y -= side_row;
        put_entry(p, s, s->name, x, y);
        if (s->published) continue;
        char *slope = slope_literal(f, s), *crossing = crossing_text(f, (size_t)(s - f->series));
        put_literal(p, at_slope, y - superscript_drop, slope, "enhanced");
        if (f->baseline >= 0) put_text(p, at_crossing, y, crossing, 26);
        free(slope);
        free(crossing);
    }
}

/* ---- notes -------------------------------------------------------------------------------------------------------- */
/* The values that an axis cut off. */
static size_t count_beyond(const fig *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++) n += f->series[i].point[k].y > f->ycap || f->series[i].point[k].y < f->yfloor;
    return n;
}

/* What is missing from the figure, "" when nothing is; the caller frees. */
static char *lacks_text(const fig *f)
{
    fig_text t;
    size_t beyond = count_beyond(f);
    const char *then = "";
    fig_text_open(&t);
    if (f->missing) fprintf(t.f, "%zu of %zu cells missing", f->missing, f->cells), then = "; ";
    if (beyond) fprintf(t.f, "%s%zu %s beyond the axis", then, beyond, beyond == 1 ? "value lies" : "values lie"), then = "; ";
    if (f->dropped) fprintf(t.f, "%s%zu not shown (nan%s)", then, f->dropped, f->logx || f->logy ? " or not positive" : "");
    return fig_text_take(&t);
}

/* Whether some point of ours has one of two roles. */
static int has_role(const fig *f, enum fig_role role, enum fig_role other)
{
    for (size_t i = 0; i < f->ours; i++)
        for (size_t k = 0; k < f->series[i].npoints; k++)
            if (f->series[i].point[k].role == role || f->series[i].point[k].role == other) return 1;
    return 0;
}

/* How to read the points, "" when they need no words; the caller frees. */
static char *points_text(const fig *f)
{
    if (has_role(f, FIG_ON_FRONT, FIG_ON_FRONT)) return strdup("filled points and grey line: the Pareto front");
    return strdup(has_role(f, FIG_BEFORE_TAIL, FIG_OUTLIER) ? "hollow points: left out of the fit (plateau or outlier)" : "");
}

/* The same of the crossings. */
static char *crossings_text(const fig *f)
{
    for (size_t i = 0; i < f->ours; i++)
        if (f->series[i].compared && f->series[i].crossing.kind == HS_CROSS_AT)
            return fig_format("crosses: cheaper than %s from here on, with the 95 %% interval", f->series[f->baseline].name);
    return strdup("");
}

/* A line of notes, when it says something: written at y unless p is NULL.  The lines that it takes. */
static size_t put_note(page *p, double x, double y, char *note, size_t letters)
{
    size_t lines = *note != '\0';
    if (lines && p) put_text(p, x, y, note, letters);
    free(note);
    return lines;
}

/* One line for each kind of ending, with its first reason, then the remarks; the first line at y.  p NULL: only counts. */
static size_t put_notes(page *p, const fig *f, double y)
{
    size_t lines = 0, letters = p ? (size_t)(FIG_NOTE_LETTERS * p->width / page_width) : FIG_NOTE_LETTERS;
    for (int status = 0; status < HS_STATUSES; status++) {
        size_t n = fig_count_marks(f, status), i = 0;
        if (n == 0) continue;
        while ((int)f->mark[i].status != status) i++;
        const char *reason = f->mark[i].reason;
        char *point = fig_format("pointtype %d pointsize 0.6 linewidth 1.2", endings[status]);
        if (p) put_point(p, 0.4, y - row_height * (double)lines, point, FIG_GREY);
        lines += put_note(p, 0.65, y - row_height * (double)lines, fig_format("%s (%zu)%s%s", hs_status_names[status], n,
                          reason ? ": " : "", reason ? reason : ""), letters);
        free(point);
    }
    lines += put_note(p, 0.3, y - row_height * (double)lines, points_text(f), letters);
    lines += put_note(p, 0.3, y - row_height * (double)lines, crossings_text(f), letters);
    lines += put_note(p, 0.3, y - row_height * (double)lines, lacks_text(f), letters);
    return lines;
}

/* ---- the whole page ------------------------------------------------------------------------------------------------ */
/* Letters by which the tics of y are wider than usual: 5·10⁻⁷ where the axis spans less than two decades, 90000, 0.0001. */
static double wide_tics(const fig *f)
{
    if (!(f->ymin <= f->ymax) || f->ymax <= 0) return 0;
    int low = (int)floor(log10(f->logy ? f->ymin : f->ymax)), high = (int)ceil(log10(f->ymax));
    if (f->logy) return high - low < 3 && (low < -3 || high > 5) ? 1.5 : 0;
    return high > 4 ? high - 4 : low < -1 ? -1 - low : 0;
}

/* A page of a paper's column: the legend below the plot. */
static fig_layout column_page(const fig *f, legend *l)
{
    put_legend(NULL, l, 0);
    double legend = row_height * (double)(l->n ? l->rows : 0) + 0.1, below = legend + row_height * (double)put_notes(NULL, f, 0) + 0.1;
    fig_layout a = { .width = page_width, .left = usual_left + letter_width * wide_tics(f), .right = 0.955 * page_width,
                     .bottom = below + axis_height };
    a.top = a.bottom + plot_height;
    a.height = a.top + (*f->title ? title_height : 0.15);
    return a;
}

/* A page with a table at the right of the plot, as high as the table wants. */
static fig_layout side_page(const fig *f, const legend *l)
{
    double below = row_height * (double)put_notes(NULL, f, 0) + 0.2, table = side_row * (double)(l->n + 1);
    fig_layout a = { .left = usual_left + letter_width * wide_tics(f), .bottom = below + axis_height - 0.1 };
    a.right = a.left + side_plot_width;
    a.width = a.right + side_gap + name_width(l) + slope_width + (f->baseline >= 0 ? crossing_width : 0);
    a.top = a.bottom + fmax(side_plot_height, table - 0.5);
    a.height = a.top + (*f->title ? title_height : 0.15);
    return a;
}

fig_layout fig_lay_out(const fig *f)
{
    int side = f->kind == FIG_SCALING;
    legend l;
    fig_text t;
    legend_init(&l, f);
    fig_layout a = side ? side_page(f, &l) : column_page(f, &l);
    double notes = row_height * ((double)put_notes(NULL, f, 0) - 0.5) + 0.1;
    fig_text_open(&t);
    page p = { t.f, a.width, a.height, 0, f->kind != FIG_PARETO };
    if (side) put_side(&p, f, &l, a.right + side_gap, a.top);
    else put_legend(&p, &l, a.bottom - axis_height - 0.5 * row_height);
    put_notes(&p, f, notes);
    if (f->xmin > f->xmax) fprintf(t.f, "set label %d 'no cell has finished yet' at graph 0.5, graph 0.5 center\n", p.label + 1);
    free(l.entry);
    a.notes = fig_text_take(&t);
    return a;
}
