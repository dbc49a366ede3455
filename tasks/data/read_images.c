/* read_images.c - images of 32 x 32 x 3 bytes, as the bytes in raster order, R G B of a pixel together.
 *
 * CIFAR-10's records (.bin: a label, then the planes R, G, B) are put into that order; other files have it already and
 * their labels, a byte each, in a second file.  An image is a document, with its label. */
#include <string.h>
#include "read.h"

enum { SIDE = 32, PIXELS = SIDE * SIDE, IMAGE = 3 * PIXELS, CLASSES = 10 };

static int is_record_file(const char *path)
{
    const char *dot = strstr(path, ".bin");
    return dot && (dot[4] == 0 || data_is_packed(path));
}

/* One image in raster order, and its label. */
static int put_image(data_reading *r, const data_source *s, const unsigned char *image, int label, int64_t number)
{
    if (label >= CLASSES) return data_source_fail(s, "image %lld: its label is %d, expected 0..%d", (long long)number, label, CLASSES - 1);
    data_put_bytes(r, image, IMAGE);
    data_writer_doc(r->out, label);
    return 0;
}

/* The planes of a record, interleaved. */
static void interleave(const unsigned char *planes, unsigned char *image)
{
    for (int p = 0; p < PIXELS; p++)
        for (int c = 0; c < 3; c++) image[3 * p + c] = planes[c * PIXELS + p];
}

/* Images from s; labels from l, or from the records themselves where l is NULL. */
static int read_images(data_reading *r, data_source *s, data_source *l)
{
    unsigned char record[1 + IMAGE], image[IMAGE], label = 0, extra;
    const size_t size = l ? IMAGE : 1 + IMAGE;
    int64_t number = 0;
    while (r->left > 0) {
        const ssize_t got = data_source_read(s, record, size), lgot = l && got >= 0 ? data_source_read(l, &label, 1) : 0;
        if (got < 0 || lgot < 0) return -1;
        if (got == 0 && lgot == 0) return number ? 0 : data_source_fail(s, "the file is empty");
        if (got != 0 && got != (ssize_t)size)
            return data_source_fail(s, "it is truncated: image %lld has %zd of %zu bytes", (long long)number + 1, got, size);
        if (l && (got == 0 || lgot == 0)) return data_source_fail(s, "%s has not as many labels", l->path);
        number++;
        if (!l) interleave(record + 1, image);
        if (put_image(r, s, l ? record : image, l ? label : record[0], number) != 0) return -1;
    }
    return data_source_read(s, &extra, 1) < 0 ? -1 : 0;
}

int data_read_images(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s, l;
    const int records = is_record_file(path);
    (void)file;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    int rc = !records && !other ? data_source_fail(&s, "its labels are not there") : 0;
    if (rc == 0 && !records && data_source_open(&l, other, r->why, r->nwhy) != 0) rc = -1;
    else if (rc == 0) {
        rc = read_images(r, &s, records ? NULL : &l);
        if (!records) data_source_close(&l);
    }
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc;
}
