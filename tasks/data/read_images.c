/* read_images.c - square images of three bytes a pixel, as the bytes in raster order, R G B of a pixel together.
 *
 * CIFAR-10's records (.bin: a label, then the planes R, G, B) are put into that order; other files have it already.  Their
 * labels, a byte each, are in a second file, if the set has labels.  An image is a document. */
#include <string.h>
#include "read.h"

enum { SIDE = 32, MOST_SIDE = 64, MOST = 3 * MOST_SIDE * MOST_SIDE, CLASSES = 10 };

static int is_record_file(const char *path)
{
    const char *dot = strstr(path, ".bin");
    return dot && (dot[4] == 0 || data_is_packed(path));
}

/* One image of so many bytes in raster order, and its label, -1: none. */
static int put_image(data_reading *r, const data_source *s, const unsigned char *image, size_t bytes, int label, int64_t number)
{
    if (label >= CLASSES) return data_source_fail(s, "image %lld: its label is %d, expected 0..%d", (long long)number, label, CLASSES - 1);
    data_put_bytes(r, image, bytes);
    data_writer_doc(r->out, label);
    return 0;
}

/* The planes of a record, interleaved. */
static void interleave(const unsigned char *planes, size_t pixels, unsigned char *image)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < 3; c++) image[3 * p + c] = planes[c * pixels + p];
}

/* Images of so many bytes from s; labels from l, unless it is NULL: from the records themselves, or there are none. */
static int read_images(data_reading *r, data_source *s, data_source *l, size_t bytes, int records)
{
    unsigned char record[1 + MOST], image[MOST], label = 0, extra;
    const size_t size = bytes + (size_t)records;
    int64_t number = 0;
    while (r->left > 0) {
        const ssize_t got = data_source_read(s, record, size), lgot = l && got >= 0 ? data_source_read(l, &label, 1) : 0;
        if (got < 0 || lgot < 0) return -1;
        if (got == 0 && lgot == 0) return number ? 0 : data_source_fail(s, "the file is empty");
        if (got != 0 && got != (ssize_t)size)
            return data_source_fail(s, "it is truncated: image %lld has %zd of %zu bytes", (long long)number + 1, got, size);
        if (l && (got == 0 || lgot == 0)) return data_source_fail(s, "%s has not as many labels", l->path);
        number++;
        if (records) interleave(record + 1, bytes / 3, image);
        if (put_image(r, s, records ? image : record, bytes, records ? record[0] : l ? label : -1, number) != 0) return -1;
    }
    return data_source_read(s, &extra, 1) < 0 ? -1 : 0;
}

int data_read_images(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s, l;
    const int records = is_record_file(path), side = r->set->side ? r->set->side : SIDE, labels = !records && other;
    (void)file;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    int rc = labels ? data_source_open(&l, other, r->why, r->nwhy) : 0;
    if (rc == 0) {
        rc = read_images(r, &s, labels ? &l : NULL, 3 * (size_t)side * (size_t)side, records);
        if (labels) data_source_close(&l);
    }
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc;
}
