/* heatmap.c - see heatmap.h. */
#include "heatmap.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_page.h"

/* Centimetres: of the longer side of the picture, and of what stands around it. */
static const double SIDE = 10, LEFT = 1.6, RIGHT = 2.4, TOP = 1.1, BOTTOM = 1.3;

typedef struct page { const hs_heatmap *map; const char *name; } page;

void hs_heatmap_shrink(const double *value, int64_t rows, int64_t columns, int64_t by, double *out)
{
    for (int64_t r = 0; r < rows; r += by)
        for (int64_t c = 0; c < columns; c += by) {
            double sum = 0, n = 0;
            for (int64_t i = r; i < r + by && i < rows; i++)
                for (int64_t j = c; j < c + by && j < columns; j++) sum += value[i * columns + j], n++;
            *out++ = sum / n;
        }
}

/* Four digits are more than colours tell. */
static int write_matrix(const page *p, const char *dir)
{
    char path[4096];
    const hs_heatmap *m = p->map;
    snprintf(path, sizeof path, "%s/%s.tsv", dir, p->name);
    FILE *f = fopen(path, "w");
    if (!f) return -1;
    for (int64_t i = 0; i < m->rows * m->columns; i++) {
        char end = (i + 1) % m->columns ? '\t' : '\n';
        if (isnan(m->value[i])) fprintf(f, "nan%c", end);
        else fprintf(f, "%.4g%c", m->value[i], end);
    }
    return fclose(f);
}

/* "('A' 0, 'C' 1)", or gnuplot's own where there are none. */
static char *tics(const hs_tic *tic, size_t n)
{
    fig_text t;
    fig_text_open(&t);
    for (size_t i = 0; i < n; i++) {
        char *word = fig_literal(tic[i].text, sizeof tic->text);
        fprintf(t.f, "%s%s %.6g", i ? ", " : "(", word, tic[i].at);
        free(word);
    }
    fputs(n ? ")" : "auto", t.f);
    return fig_text_take(&t);
}

/* The command for the names above. */
static char *top_tics(const hs_heatmap *m)
{
    char *list = tics(m->top, m->ntop), *command = m->ntop ? fig_format("set x2tics %s scale 0 offset 0,-0.4", list) : strdup("unset x2tics");
    free(list);
    return command;
}

/* fig_write_fn */
static int write_files(const void *ctx, const char *dir, char *why, size_t nwhy)
{
    const page *p = ctx;
    const hs_heatmap *m = p->map;
    const int two = m->low < 0;
    double most = m->rows > m->columns ? (double)m->rows : (double)m->columns, reach = fmax(-m->low, m->high);
    double w = SIDE * (double)m->columns / most, h = SIDE * (double)m->rows / most, width = LEFT + w + RIGHT, height = TOP + h + BOTTOM;
    if (write_matrix(p, dir)) return -1;
    const fig_place places[] = {
        { "NAME", strdup(p->name) }, { "TITLE", fig_literal(m->title, 64) }, { "XLABEL", fig_literal(m->xlabel, FIG_NOTE_LETTERS) },
        { "YLABEL", fig_literal(m->ylabel, 40) }, { "MEANING", fig_literal(m->meaning, FIG_NOTE_LETTERS) },
        { "XTICS", tics(m->xtic, m->nx) }, { "TOPTICS", top_tics(m) }, { "YTICS", tics(m->ytic, m->ny) },
        { "COLUMNS", fig_format("%.1f", (double)m->columns - 0.5) }, { "ROWS", fig_format("%.1f", (double)m->rows - 0.5) },
        { "LOW", fig_format("%.6g", two ? -reach : m->low) }, { "HIGH", fig_format("%.6g", two ? reach : m->high) },
        { "COLOURS", strdup(two ? "0 '#b2182b', 0.25 '#f4a582', 0.5 '#ffffff', 0.75 '#92c5de', 1 '#2166ac'"
                                : "0 '#ffffff', 0.06 '#d5e6f4', 0.25 '#9ecae1', 0.55 '#3182bd', 1 '#08306b'") },
        { "LEFT", fig_format("%.4f", LEFT / width) }, { "RIGHT", fig_format("%.4f", (LEFT + w) / width) },
        { "TOP", fig_format("%.4f", (BOTTOM + h) / height) }, { "BOTTOM", fig_format("%.4f", BOTTOM / height) },
        { "WIDTH", fig_format("%.2f", width) }, { "HEIGHT", fig_format("%.2f", height) },
        { "PIXELS", fig_format("%.0f,%.0f", width / 2.54 * 300, height / 2.54 * 300) },
        { "POINTS", fig_format("%.0f,%.0f", width / 2.54 * 72, height / 2.54 * 72) } };
    return fig_fill_script("heatmap", dir, p->name, places, sizeof places / sizeof *places, why, nwhy);
}

int hs_heatmap_draw(const hs_heatmap *m, const char *dir, const char *name, int *drawn, char *why, size_t nwhy)
{
    *why = '\0';
    if (fig_make_folder(dir)) return snprintf(why, nwhy, "the folder %s cannot be made", dir), -1;
    return fig_in_workshop(dir, name, write_files, &(page){ m, name }, drawn, why, nwhy);
}
