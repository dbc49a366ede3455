/* npy.h - NumPy's .npy files: versions 1 to 3 read, version 1 written.
 *
 * A header is hostile input: it is parsed strictly, its sizes are held against the file's before anything is
 * allocated, and what cannot be read is refused with a sentence that says what was expected. */
#ifndef HS_NPY_H
#define HS_NPY_H
#include <stddef.h>
#include <stdint.h>

typedef enum hs_npy_type { HS_NPY_F32, HS_NPY_F64, HS_NPY_I32, HS_NPY_I64 } hs_npy_type;
enum { HS_NPY_MAX_DIMS = 8 };

typedef struct hs_npy {
    hs_npy_type type;
    int ndim;
    int64_t shape[HS_NPY_MAX_DIMS], n;  /* n: elements in all; a scalar (ndim 0) has one */
    void *data;                         /* row-major, the caller's to free */
} hs_npy;

/* 0, or -1 with a sentence that begins with the path. */
int  hs_npy_read(const char *path, hs_npy *, char *why, size_t nwhy);
int  hs_npy_write(const char *path, const hs_npy *, char *why, size_t nwhy);
void hs_npy_release(hs_npy *);
size_t      hs_npy_width(hs_npy_type);  /* bytes of an element */
const char *hs_npy_name(hs_npy_type);   /* "float32" */
/* "[2, 4, 5, 3]" */
char *hs_npy_shape_text(int ndim, const int64_t *shape, char *out, size_t n);
#endif
