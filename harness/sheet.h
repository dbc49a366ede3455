/* sheet.h - images side by side, in rows that have names: NAME.tsv, .gp, .pdf, .png and .svg, by the template sheet.gp.in. */
#ifndef HS_SHEET_H
#define HS_SHEET_H
#include <stdint.h>
#include <stddef.h>

typedef struct hs_sheet {
    const char *title;
    const char *const *row;             /* [rows] what they show */
    int64_t rows, columns, side;        /* images of side x side pixels */
    const unsigned char *image;         /* [rows,columns,side,side,3]: red, green, blue */
} hs_sheet;
/* The files in dir, which is made.  *drawn 0: there is no gnuplot, and .tsv and .gp are all.  0, or -1 with a sentence. */
int hs_sheet_draw(const hs_sheet *, const char *dir, const char *name, int *drawn, char *why, size_t nwhy);
#endif
