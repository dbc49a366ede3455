/* table.c - one table, five ways to write it. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "protocol.h"
#include "table.h"

struct hs_table {
    json_t *columns;                    /* names */
    json_t *rows;                       /* arrays of values */
};

hs_table *hs_table_new(void)
{
    hs_table *t = malloc(sizeof *t);
    if (t) *t = (hs_table){ json_array(), json_array() };
    return t;
}

void hs_table_free(hs_table *t)
{
    if (!t) return;
    json_decref(t->columns);
    json_decref(t->rows);
    free(t);
}

size_t hs_table_column(hs_table *t, const char *name)
{
    size_t i = 0, n = json_array_size(t->columns);
    while (i < n && strcmp(json_string_value(json_array_get(t->columns, i)), name) != 0) i++;
    if (i == n) json_array_append_new(t->columns, json_string(name));
    return i;
}

void hs_table_set(hs_table *t, size_t row, size_t column, json_t *value)
{
    while (json_array_size(t->rows) <= row) json_array_append_new(t->rows, json_array());
    json_t *cells = json_array_get(t->rows, row);
    while (json_array_size(cells) <= column) json_array_append_new(cells, json_null());
    json_array_set_new(cells, column, value ? value : json_null());
}

size_t hs_table_rows(const hs_table *t)
{
    return json_array_size(t->rows);
}

void hs_exact(double x, char out[32])
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, x);
        if (strtod(out, NULL) == x) return;
    }
}

/* A value as text; exact or rounded for the eye.  The caller frees. */
static char *text_of(const json_t *v, int exact)
{
    char number[32];
    if (!v || json_is_null(v)) return strdup("");
    if (json_is_string(v)) return strdup(json_string_value(v));
    if (!json_is_real(v)) return json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
    if (exact) hs_exact(json_real_value(v), number);
    else snprintf(number, sizeof number, "%.4g", json_real_value(v));
    return strdup(number);
}

/* Columns on a terminal: code points, which is right for all but wide and combining characters. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

/* A cell of a row that may be shorter than the table. */
static const json_t *cell_at(const hs_table *t, size_t row, size_t column)
{
    return json_array_get(json_array_get(t->rows, row), column);
}

/* The widest text of a column, its name included. */
static size_t column_width(const hs_table *t, size_t column)
{
    size_t width = width_of(json_string_value(json_array_get(t->columns, column)));
    for (size_t r = 0; r < hs_table_rows(t); r++) {
        char *text = text_of(cell_at(t, r, column), 0);
        if (text && width_of(text) > width) width = width_of(text);
        free(text);
    }
    return width;
}

/* One cell of text, filled to its width; numbers to the right.  A control character would reach the terminal. */
static void write_padded(FILE *f, const char *text, size_t width, int right, int last)
{
    int pad = (int)(width - width_of(text));
    if (right) fprintf(f, "%*s", pad, "");
    for (; *text; text++) fputc((unsigned char)*text < 32 || *text == 127 ? ' ' : *text, f);
    if (!right && !last) fprintf(f, "%*s", pad, "");
    fputs(last ? "\n" : "  ", f);
}

/* Aligned columns for people. */
static void write_text(const hs_table *t, FILE *f)
{
    size_t columns = json_array_size(t->columns), *width = calloc(columns + 1, sizeof *width);
    for (size_t c = 0; width && c < columns; c++) width[c] = column_width(t, c);
    for (size_t c = 0; width && c < columns; c++)
        write_padded(f, json_string_value(json_array_get(t->columns, c)), width[c], json_is_number(cell_at(t, 0, c)),
                     c + 1 == columns);
    for (size_t r = 0; width && r < hs_table_rows(t); r++)
        for (size_t c = 0; c < columns; c++) {
            char *text = text_of(cell_at(t, r, c), 0);
            write_padded(f, text ? text : "", width[c], json_is_number(cell_at(t, r, c)), c + 1 == columns);
            free(text);
        }
    free(width);
}

/* A field of CSV, in quotes where it needs them. */
static void write_csv_field(FILE *f, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputc('"', f);
}

/* Text in Markdown, without what would be markup or end the cell. */
static void write_markdown_field(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (strchr("\\|`*<[", *text)) fputc('\\', f);
        fputc((unsigned char)*text < 32 ? ' ' : *text, f);
    }
}

/* Text in LaTeX; a number with an exponent as a product. */
static void write_latex_field(FILE *f, const char *text, int number)
{
    const char *e = number ? strchr(text, 'e') : NULL;
    if (e) {
        fprintf(f, "$%.*s\\times10^{%d}$", (int)(e - text), text, atoi(e + 1));
        return;
    }
    for (; *text; text++) {
        if (strchr("&%$#_{}", *text)) fprintf(f, "\\%c", *text);
        else if (*text == '\\') fputs("\\textbackslash{}", f);
        else if (*text == '~') fputs("\\textasciitilde{}", f);
        else if (*text == '^') fputs("\\textasciicircum{}", f);
        else fputc((unsigned char)*text < 32 ? ' ' : *text, f);
    }
}

/* One row of the formats that are rows of fields; row -1 is the head. */
static void write_row(const hs_table *t, enum hs_format format, long row, FILE *f)
{
    size_t columns = json_array_size(t->columns);
    for (size_t c = 0; c < columns; c++) {
        const json_t *v = row < 0 ? json_array_get(t->columns, c) : cell_at(t, (size_t)row, c);
        char *text = text_of(v, format == HS_CSV);
        fputs(format == HS_MARKDOWN ? "| " : c == 0 ? "" : format == HS_CSV ? "," : " & ", f);
        if (format == HS_CSV) write_csv_field(f, text ? text : "");
        else if (format == HS_MARKDOWN) write_markdown_field(f, text ? text : "");
        else write_latex_field(f, text ? text : "", json_is_number(v));
        if (format == HS_MARKDOWN) fputc(' ', f);
        free(text);
    }
    fputs(format == HS_CSV ? "\n" : format == HS_MARKDOWN ? "|\n" : " \\\\\n", f);
}

/* The line under the head of a Markdown table: numbers to the right. */
static void write_markdown_rule(const hs_table *t, FILE *f)
{
    for (size_t c = 0; c < json_array_size(t->columns); c++)
        fputs(json_is_number(cell_at(t, 0, c)) ? "| ---: " : "| --- ", f);
    fputs("|\n", f);
}

json_t *hs_table_json(const hs_table *t)
{
    json_t *list = json_array();
    for (size_t r = 0; r < hs_table_rows(t); r++) {
        json_t *object = json_object();
        for (size_t c = 0; c < json_array_size(t->columns); c++) {
            const json_t *v = cell_at(t, r, c);
            json_object_set_new(object, json_string_value(json_array_get(t->columns, c)),
                                v ? json_incref((json_t *)v) : json_null());
        }
        json_array_append_new(list, object);
    }
    return list;
}

/* The same as text. */
static void write_json(const hs_table *t, FILE *f)
{
    json_t *list = hs_table_json(t);
    json_dumpf(list, f, JSON_INDENT(2));
    fputc('\n', f);
    json_decref(list);
}

/* A tabular in the style of the booktabs package. */
static void write_latex(const hs_table *t, FILE *f)
{
    fputs("\\begin{tabular}{", f);
    for (size_t c = 0; c < json_array_size(t->columns); c++) fputc(json_is_number(cell_at(t, 0, c)) ? 'r' : 'l', f);
    fputs("}\n\\toprule\n", f);
    write_row(t, HS_LATEX, -1, f);
    fputs("\\midrule\n", f);
    for (size_t r = 0; r < hs_table_rows(t); r++) write_row(t, HS_LATEX, (long)r, f);
    fputs("\\bottomrule\n\\end{tabular}\n", f);
}

void hs_table_write(const hs_table *t, enum hs_format format, FILE *f)
{
    if (format == HS_TEXT) write_text(t, f);
    else if (format == HS_JSON) write_json(t, f);
    else if (format == HS_LATEX) write_latex(t, f);
    else {
        write_row(t, format, -1, f);
        if (format == HS_MARKDOWN) write_markdown_rule(t, f);
        for (size_t r = 0; r < hs_table_rows(t); r++) write_row(t, format, (long)r, f);
    }
}
