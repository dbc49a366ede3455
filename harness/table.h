/* table.h - one table, written as text, CSV, JSON, Markdown or LaTeX. */
#ifndef HS_TABLE_H
#define HS_TABLE_H
#include <jansson.h>
#include <stdio.h>

enum hs_format { HS_TEXT, HS_CSV, HS_JSON, HS_MARKDOWN, HS_LATEX };

typedef struct hs_table hs_table;       /* columns by name, rows of JSON values; what was not set is empty */
hs_table *hs_table_new(void);
void hs_table_free(hs_table *);
/* The column of that name, made when there is none. */
size_t hs_table_column(hs_table *, const char *name);
/* Sets a cell and takes the value over; row may be the next new one.  Numbers that JSON has not come as
 * hs_json_number gives them. */
void hs_table_set(hs_table *, size_t row, size_t column, json_t *value);
size_t hs_table_rows(const hs_table *);
json_t *hs_table_json(const hs_table *);        /* an array of objects, one per row; the caller's */
/* CSV (RFC 4180) and JSON carry numbers exactly; the formats for reading round them to four digits. */
void hs_table_write(const hs_table *, enum hs_format, FILE *);
/* A double in the fewest digits that read back as the same. */
void hs_exact(double, char out[32]);
#endif
