/* figure_page.h - how a page looks: text, styles, where plot, legend and notes stand. */
#ifndef HS_FIGURE_PAGE_H
#define HS_FIGURE_PAGE_H
#include "figure_internal.h"

typedef struct fig_text { char *s; size_t n; FILE *f; } fig_text;       /* text that grows */
void  fig_text_open(fig_text *);
char *fig_text_take(fig_text *);        /* the text, which the caller frees */
char *fig_format(const char *form, ...) __attribute__((format(printf, 1, 2)));     /* the caller frees */
/* A user's text as a literal in single quotes, in which gnuplot expands nothing; the caller frees. */
char *fig_literal(const char *text, size_t most);

enum { FIG_NOTE_LETTERS = 54, FIG_GREY = 0x404040 };
int   fig_colour(const fig_series *);
/* Arguments of plot, arrow and point: colour and dashes; marker.  The caller frees. */
char *fig_line_style(const fig_series *);
char *fig_point_style(const fig_series *, int hollow);
int   fig_ending_point(int status);     /* gnuplot's point for a cell that ended so */
size_t fig_count_marks(const fig *, int status);
int   fig_has_marks(const fig *, size_t series);

typedef struct fig_layout {             /* centimetres from the left and lower edges */
    double width, height, left, right, bottom, top;     /* of the page; of the plot on it */
    char *notes;                        /* legend and notes as commands; the caller frees */
} fig_layout;
fig_layout fig_lay_out(const fig *);
#endif
