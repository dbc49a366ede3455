/* check_device.c - calls on a device whose memory is not ours.
 *
 * The rig keeps all buffers of a call in the host's memory.  For a call on a device they are laid one behind the
 * other into an image, guards and all; the image goes up in one transfer, the call is given the device's addresses,
 * and the image comes back and is taken apart again.  So the rig looks at the very bytes that the device left, and
 * knows one kind of memory only.  Scratch, which may be large and whose content is nobody's business, is poisoned on
 * the device, and its guards alone come back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "check_case.h"
#include "kernels/kernels.h"

enum { MOST_PIECES = 8 * ATTN_MAX + 16 };
typedef struct piece { unsigned char *host; size_t bytes, at; } piece;     /* at: place in the image */
struct hs_device {
    k_dev *dev;
    piece pieces[MOST_PIECES];
    int n;
    piece scratch;                      /* behind the image */
    unsigned char *image;               /* host; NULL: no call so far */
    void *far;                          /* the device's block for image and scratch */
    size_t used, room;                  /* bytes of the image, of the block */
};

int hs_device_open(const char *name, hs_device **out, char *why, size_t nwhy)
{
    hs_device *d = calloc(1, sizeof *d);
    if (!d) abort();
    if (k_dev_open(name, 1, &d->dev, why, nwhy)) {
        free(d);
        return -1;
    }
    *out = d;
    return 0;
}

void hs_device_close(hs_device *d)
{
    if (!d) return;
    k_dev_close(d->dev);
    free(d->image);
    free(d);
}

const char *hs_device_name(const hs_device *d) { return k_dev_name(d->dev); }
const char *hs_device_error(const hs_device *d) { return k_error(d->dev); }

void hs_device_begin(hs_device *d) { d->n = 0, d->used = 0, d->scratch = (piece){ 0 }; }

/* Both ends of every piece on a multiple of K_ALIGN. */
static size_t aligned(size_t bytes) { return (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN; }

void hs_device_place(hs_device *d, void *host, size_t bytes)
{
    if (!host) return;
    if (d->n == MOST_PIECES) abort();
    d->pieces[d->n++] = (piece){ host, bytes, d->used };
    d->used += aligned(bytes);
}

void hs_device_place_scratch(hs_device *d, void *host, size_t bytes) { d->scratch = (piece){ host, host ? bytes : 0, 0 }; }

/* The device's address of a byte of a piece; NULL stays NULL. */
static void *far_of(const hs_device *d, const void *host)
{
    const unsigned char *p = host;
    for (int i = 0; i <= d->n && p; i++) {
        const piece *x = i < d->n ? &d->pieces[i] : &d->scratch;
        if (p >= x->host && p < x->host + x->bytes) return (unsigned char *)d->far + x->at + (p - x->host);
    }
    if (p) abort();                     /* the rig forgot to place a buffer */
    return NULL;
}

/* The call as the device sees it. */
static attn_call far_call(const hs_device *d, const attn_call *near)
{
    attn_call c = *near;
    attn_tensor *tensors[] = { &c.q, &c.k, &c.v, &c.o, &c.d_o, &c.dq, &c.dk, &c.dv };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) tensors[i]->p = far_of(d, tensors[i]->p);
    for (int i = 0; i < ATTN_MAX; i++) {
        c.gate[i].p = far_of(d, c.gate[i].p), c.dgate[i].p = far_of(d, c.dgate[i].p);
        c.param[i] = far_of(d, c.param[i]), c.dparam[i] = far_of(d, c.dparam[i]);
        c.state_in[i] = far_of(d, c.state_in[i]), c.state_out[i] = far_of(d, c.state_out[i]);
        c.dstate_in[i] = far_of(d, c.dstate_in[i]);
    }
    c.klen = far_of(d, c.klen);
    c.saved = far_of(d, c.saved), c.scratch = far_of(d, c.scratch), c.state = far_of(d, c.state);
    c.stream = k_dev_stream(d->dev);
    return c;
}

/* Room for the image and the scratch behind it; 0, or a K_E code. */
static int make_room(hs_device *d)
{
    size_t need = d->used + aligned(d->scratch.bytes);
    d->scratch.at = d->used;
    if (need <= d->room) return 0;
    free(d->image);
    k_free(d->dev, d->far);
    d->far = NULL, d->room = 0;
    d->image = aligned_alloc(K_ALIGN, need);
    if (!d->image) abort();
    int rc = k_alloc(d->dev, K_TAG_WORKSPACE, need, &d->far);
    if (rc == 0) d->room = need;
    return rc;
}

static void send(hs_device *d)
{
    const uint64_t poison = UINT64_MAX; /* a NaN in every dtype */
    double nan;
    memcpy(&nan, &poison, sizeof nan);
    memset(d->image, 0, d->used);
    for (int i = 0; i < d->n; i++) memcpy(d->image + d->pieces[i].at, d->pieces[i].host, d->pieces[i].bytes);
    k_upload(d->dev, d->far, d->image, d->used);
    if (d->scratch.bytes)
        k_fill(d->dev, K_F64, (int64_t)(aligned(d->scratch.bytes) / sizeof nan), (unsigned char *)d->far + d->scratch.at, nan);
}

static void fetch(hs_device *d)
{
    k_download(d->dev, d->image, d->far, d->used);
    for (int i = 0; i < d->n; i++) memcpy(d->pieces[i].host, d->image + d->pieces[i].at, d->pieces[i].bytes);
    if (!d->scratch.bytes) return;
    const unsigned char *far = (unsigned char *)d->far + d->scratch.at;
    size_t tail = 2 * HS_GUARD, end = d->scratch.bytes - tail;   /* the guard, and what rounds the buffer up */
    k_download(d->dev, d->scratch.host, far, HS_GUARD);
    k_download(d->dev, d->scratch.host + end, far + end, tail);
}

int hs_device_call(hs_device *d, int (*f)(const attn_call *), const attn_call *near, hs_hot *hot, int *lost)
{
    *lost = make_room(d);
    if (*lost) return ATTN_EDEVICE;
    send(d);
    attn_call c = far_call(d, near);
    hs_hot_begin();
    int rc = f(&c);
    *lost = k_sync(d->dev);
    hs_hot_end(hot);
    if (*lost) return ATTN_EDEVICE;
    fetch(d);
    return rc;
}
