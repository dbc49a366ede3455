/* sheet.c - see sheet.h. */
#include "sheet.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_page.h"

enum { GAP = 2, WHITE = 255 };          /* pixels between images */
/* Centimetres: of an image, and of what stands around all. */
static const double IMAGE = 1.8, LEFT = 1.9, AROUND = 0.2, TOP = 0.9;

typedef struct page { const hs_sheet *sheet; const char *name; } page;

/* The three bytes at a place of the sheet, between the images white. */
static const unsigned char *pixel(const hs_sheet *s, int64_t x, int64_t y)
{
    static const unsigned char gap[3] = { WHITE, WHITE, WHITE };
    const int64_t step = s->side + GAP, i = y / step, j = x / step, row = y % step, column = x % step;
    if (row >= s->side || column >= s->side) return gap;
    return s->image + 3 * (((i * s->columns + j) * s->side + row) * s->side + column);
}

/* A pixel a line: column, row, red, green, blue. */
static int write_pixels(const page *p, const char *dir, int64_t width, int64_t height)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.tsv", dir, p->name);
    FILE *f = fopen(path, "w");
    if (!f) return -1;
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++) {
            const unsigned char *c = pixel(p->sheet, x, y);
            fprintf(f, "%lld\t%lld\t%d\t%d\t%d\n", (long long)x, (long long)y, c[0], c[1], c[2]);
        }
    return fclose(f);
}

/* "('given' 15.5, 'completed' 49.5)" */
static char *row_names(const hs_sheet *s)
{
    fig_text t;
    fig_text_open(&t);
    for (int64_t i = 0; i < s->rows; i++) {
        char *word = fig_literal(s->row[i], 24);
        fprintf(t.f, "%s%s %.6g", i ? ", " : "(", word, (double)(i * (s->side + GAP)) + (double)(s->side - 1) / 2);
        free(word);
    }
    fputc(')', t.f);
    return fig_text_take(&t);
}

/* fig_write_fn */
static int write_files(const void *ctx, const char *dir, char *why, size_t nwhy)
{
    const page *p = ctx;
    const hs_sheet *s = p->sheet;
    const int64_t across = s->columns * (s->side + GAP) - GAP, down = s->rows * (s->side + GAP) - GAP;
    const double pixel_cm = IMAGE / (double)s->side, w = pixel_cm * (double)across, h = pixel_cm * (double)down;
    const double width = LEFT + w + AROUND, height = TOP + h + AROUND;
    if (write_pixels(p, dir, across, down)) return -1;
    const fig_place places[] = {
        { "NAME", strdup(p->name) }, { "TITLE", fig_literal(s->title, 64) }, { "YTICS", row_names(s) },
        { "COLUMNS", fig_format("%.1f", (double)across - 0.5) }, { "ROWS", fig_format("%.1f", (double)down - 0.5) },
        { "LEFT", fig_format("%.4f", LEFT / width) }, { "RIGHT", fig_format("%.4f", (LEFT + w) / width) },
        { "TOP", fig_format("%.4f", (AROUND + h) / height) }, { "BOTTOM", fig_format("%.4f", AROUND / height) },
        { "WIDTH", fig_format("%.2f", width) }, { "HEIGHT", fig_format("%.2f", height) },
        { "PIXELS", fig_format("%.0f,%.0f", width / 2.54 * 300, height / 2.54 * 300) },
        { "POINTS", fig_format("%.0f,%.0f", width / 2.54 * 72, height / 2.54 * 72) } };
    return fig_fill_script("sheet", dir, p->name, places, sizeof places / sizeof *places, why, nwhy);
}

int hs_sheet_draw(const hs_sheet *s, const char *dir, const char *name, int *drawn, char *why, size_t nwhy)
{
    *why = '\0';
    if (fig_make_folder(dir)) return snprintf(why, nwhy, "the folder %s cannot be made", dir), -1;
    return fig_in_workshop(dir, name, write_files, &(page){ s, name }, drawn, why, nwhy);
}
