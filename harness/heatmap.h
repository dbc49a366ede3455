/* heatmap.h - a matrix as a picture: NAME.tsv, .gp, .pdf, .png and .svg, by the template heatmap.gp.in. */
#ifndef HS_HEATMAP_H
#define HS_HEATMAP_H
#include <stddef.h>
#include <stdint.h>

typedef struct hs_tic { double at; char text[24]; } hs_tic;    /* where a row or column has its name */
typedef struct hs_heatmap {
    const char *title, *xlabel, *ylabel, *meaning;  /* meaning: of the colours */
    int64_t rows, columns;              /* the first row is the uppermost */
    const double *value;                /* [rows,columns]; NaN: nothing is drawn */
    double low, high;                   /* the ends of the colours; low < 0: white is 0, and the ends are as far from it */
    const hs_tic *xtic, *ytic, *top;    /* top: names of groups of columns, above them */
    size_t nx, ny, ntop;
} hs_heatmap;
/* The files in dir, which is made.  *drawn 0: there is no gnuplot, and .tsv and .gp are all.  0, or -1 with a sentence. */
int hs_heatmap_draw(const hs_heatmap *, const char *dir, const char *name, int *drawn, char *why, size_t nwhy);
/* The mean of blocks of `by` rows and columns, edges smaller; out [(rows+by-1)/by, (columns+by-1)/by]. */
void hs_heatmap_shrink(const double *value, int64_t rows, int64_t columns, int64_t by, double *out);
#endif
