/* figure_published.c - the numbers of a paper, from a CSV, over ours. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "figure_internal.h"

enum { FIELDS = 16 };

/* Splits one line of CSV in place; quoted fields keep their commas, a doubled quote is one.  The count of fields. */
static int split(char *line, char *field[FIELDS])
{
    int n = 0;
    char *in = line, *out = line;
    while (n < FIELDS) {
        int quoted = *in == '"';
        if (quoted) in++;
        field[n++] = out;
        for (; *in; in++) {
            if (quoted && in[0] == '"' && in[1] == '"') in++;
            else if (quoted && *in == '"') {
                quoted = 0;
                continue;
            } else if (!quoted && strchr(",\r\n", *in)) break;
            *out++ = *in;
        }
        char end = *in;
        *out++ = '\0';
        if (end != ',') break;
        in++;
    }
    return n;
}

/* The number of a column by its name, -1 when it is not there. */
static int column(char *const field[FIELDS], int n, const char *name)
{
    const char *dot = strrchr(name, '.');
    for (int i = 0; i < n; i++)
        if (strcmp(field[i], name) == 0 || (dot && strcmp(field[i], dot + 1) == 0)) return i;
    return -1;
}

/* The published series of that name, made when there is none: in the style of ours, or in the next that is free. */
static int published_series(fig *f, const char *name)
{
    size_t style = f->ours;
    for (size_t i = f->ours; i < f->nseries; i++) {
        if (strcmp(f->series[i].name, name) == 0) return (int)i;
        if (f->series[i].style >= style) style = f->series[i].style + 1;
    }
    for (size_t i = 0; i < f->ours; i++)
        if (strcmp(f->series[i].name, name) == 0) style = i;
    int made = fig_add_series(f, name, 1);
    if (made >= 0) f->series[made].style = style;
    return made;
}

/* Reads the rows below the head.  0, or -1. */
static int read_rows(fig *f, FILE *in, const char *path, char *why, size_t nwhy)
{
    char line[1024], *field[FIELDS];
    const char *const name[] = { "series", fig_x(f->spec), fig_y(f->spec) };
    int at[3] = { -1, -1, -1 }, number = 0, head = 0;
    while (fgets(line, sizeof line, in)) {
        number++;
        if (*line == '#' || *line == '\n') continue;
        int n = split(line, field);
        if (!head) {
            head = 1;
            for (int i = 0; i < 3; i++)
                if ((at[i] = column(field, n, name[i])) < 0) {
                    snprintf(why, nwhy, "%s:%d: there is no column '%s'", path, number, name[i]);
                    return -1;
                }
            continue;
        }
        double value[2];
        for (int i = 0; i < 2; i++) {
            char *end, *text = at[i + 1] < n ? field[at[i + 1]] : "";
            value[i] = strtod(text, &end);
            if (end == text || *end) {
                snprintf(why, nwhy, "%s:%d: '%s' is not a number (%s)", path, number, text, name[i + 1]);
                return -1;
            }
        }
        int series = isfinite(value[1]) ? published_series(f, field[at[0]]) : -1;   /* a paper's NaN is not shown */
        if (series >= 0) fig_add_point(&f->series[series], (fig_point){ value[0], value[1], value[1], value[1], 1 });
    }
    return 0;
}

int fig_published(fig *f, const hs_plan *plan, char *why, size_t nwhy)
{
    const char *path = json_string_value(json_object_get(f->spec, "published"));
    char *beside = NULL;
    if (!path) return 0;
    FILE *in = fopen(path, "r");
    const char *slash = strrchr(plan->file, '/');
    if (!in && slash && asprintf(&beside, "%.*s/%s", (int)(slash - plan->file), plan->file, path) > 0) in = fopen(beside, "r");
    free(beside);
    if (!in) {
        snprintf(why, nwhy, "%s: %s (sought from here and beside %s)", path, strerror(errno), plan->file);
        return -1;
    }
    int rc = read_rows(f, in, path, why, nwhy);
    fclose(in);
    return rc;
}
