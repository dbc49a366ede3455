/* memory.c - every byte has a tag, every moment a phase, every block a guard on both sides.
 *
 * A block on the device:   | guard 256 | the caller's bytes | guard 256 and what rounding leaves |
 * Its record lies on the host, because the host cannot read a GPU's memory without asking. */
#include "../device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = K_ALIGN, GUARD_BYTE = 0xA5, POISON_BYTE = 0xFF };

struct k_block {
    k_block *next, *prev;
    char *base;                     /* raw memory; the caller's begins GUARD bytes later */
    size_t bytes, raw;              /* the caller's; all */
    k_tag tag;
};

const char *const k_tag_names[K_TAGS] = { "parameters", "gradients", "optimiser", "activations", "saved",
                                          "workspace", "state", "data" };
const char *const k_phase_names[K_PHASES] = { "setup", "forward", "backward", "step", "eval", "decode" };

/* The peak of this phase, when this moment is it. */
static void note_phase(k_dev *dev)
{
    k_memory *m = &dev->memory;
    if (m->now > m->peak_phase[dev->phase]) {
        m->peak_phase[dev->phase] = m->now;
        memcpy(m->peak_phase_tag[dev->phase], m->now_tag, sizeof m->now_tag);
    }
}

static void account(k_dev *dev, k_tag tag, size_t bytes)
{
    k_memory *m = &dev->memory;
    m->now += bytes;
    m->now_tag[tag] += bytes;
    if (m->now > m->peak)
        m->peak = m->now;
    if (m->now_tag[tag] > m->peak_tag[tag])
        m->peak_tag[tag] = m->now_tag[tag];
    note_phase(dev);
}

void k_set_phase(k_dev *dev, k_phase phase)
{
    dev->phase = phase;
    note_phase(dev);
}

void k_memory_read(const k_dev *dev, k_memory *out) { *out = dev->memory; }
void k_set_limit(k_dev *dev, size_t bytes) { dev->limit = bytes; }

/* What is free: of the limit; of a GPU no more than its driver has left, because others use it too. */
static int no_memory(k_dev *dev, k_tag tag, size_t bytes, size_t limit)
{
    size_t now = dev->memory.now, left = limit > now ? limit - now : 0, total = dev->ops->total(dev);
    size_t seen = dev->is_cuda ? k_memory_seen(dev) : 0;
    if (total - seen < left)
        left = total - seen;
    snprintf(dev->error, sizeof dev->error, "asked %zu bytes for %s, %zu of %zu free", bytes, k_tag_names[tag], left, limit);
    return K_ENOMEM;
}

int k_alloc(k_dev *dev, k_tag tag, size_t bytes, void **out)
{
    size_t now = dev->memory.now, total = dev->ops->total(dev), limit = dev->limit ? dev->limit : total;
    *out = NULL;
    if (now > limit || bytes > limit - now || bytes > total)    /* also keeps the sums below from wrapping */
        return no_memory(dev, tag, bytes, limit);
    k_block *b = malloc(sizeof *b);
    size_t raw = GUARD + (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN + GUARD;
    char *base = b ? dev->ops->take(dev, raw) : NULL;
    if (!base) {
        free(b);
        return no_memory(dev, tag, bytes, limit);
    }
    *b = (k_block){ .next = dev->blocks, .base = base, .bytes = bytes, .raw = raw, .tag = tag };
    if (b->next)
        b->next->prev = b;
    dev->blocks = b;
    account(dev, tag, bytes);
    dev->ops->set_bytes(dev, base, GUARD_BYTE, GUARD);
    dev->ops->set_bytes(dev, base + GUARD + bytes, GUARD_BYTE, raw - GUARD - bytes);
#ifdef K_DEBUG
    dev->ops->set_bytes(dev, base + GUARD, POISON_BYTE, bytes);
#endif
    *out = base + GUARD;
    return K_OK;
}

/* How far writes went into the n guard bytes at p, counted from the caller's side; 0 when they are whole. */
static size_t damage(k_dev *dev, const char *p, size_t n, int before)
{
    unsigned char bytes[2 * GUARD];
    dev->ops->download(dev, bytes, p, n);
    for (size_t i = 0; i < n; i++) {
        size_t at = before ? i : n - 1 - i;         /* from the far end inwards */
        if (bytes[at] != GUARD_BYTE)
            return n - i;
    }
    return 0;
}

/* K_EGUARD and the sentence in what, when something wrote beside b. */
static int check_block(k_dev *dev, const k_block *b, char *what, size_t nwhat)
{
    const char *end = b->base + GUARD + b->bytes;
    size_t before = damage(dev, b->base, GUARD, 1), past = damage(dev, end, b->raw - GUARD - b->bytes, 0);
    if (!before && !past)
        return K_OK;
    snprintf(what, nwhat, "%s buffer of %zu bytes, %zu bytes %s", k_tag_names[b->tag], b->bytes,
             past ? past : before, past ? "past its end" : "before its start");
    return K_EGUARD;
}

int k_check_guards(k_dev *dev, char *what, size_t nwhat)
{
    for (const k_block *b = dev->blocks; b; b = b->next)
        if (check_block(dev, b, what, nwhat) < 0)
            return K_EGUARD;
    return K_OK;
}

static void unlink_block(k_dev *dev, k_block *b)
{
    if (b->prev)
        b->prev->next = b->next;
    else
        dev->blocks = b->next;
    if (b->next)
        b->next->prev = b->prev;
    dev->memory.now -= b->bytes;
    dev->memory.now_tag[b->tag] -= b->bytes;
    dev->ops->give(dev, b->base, b->raw);
    free(b);
}

/* A pointer that is not the device's, or a damaged guard, is the caller's bug: the sentence goes to k_error. */
void k_free(k_dev *dev, void *p)
{
    char what[128];
    k_block *b = dev->blocks;
    if (!p)
        return;
    while (b && b->base + GUARD != (char *)p)
        b = b->next;
    if (!b) {
        snprintf(dev->error, sizeof dev->error, "k_free of %p, which is not allocated on %s", p, dev->name);
        return;
    }
    if (check_block(dev, b, what, sizeof what) < 0)
        snprintf(dev->error, sizeof dev->error, "written outside: %s", what);
    unlink_block(dev, b);
}

void k_free_all(k_dev *dev)
{
    while (dev->blocks)
        unlink_block(dev, dev->blocks);
}

int k_arena_init(k_arena *a, k_dev *dev, k_tag tag, size_t bytes)
{
    void *base;
    int rc = k_alloc(dev, tag, bytes, &base);
    *a = (k_arena){ .dev = dev, .base = base, .size = rc < 0 ? 0 : bytes };
    return rc;
}

void *k_arena_take(k_arena *a, size_t bytes)
{
    size_t at = (a->used + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    if (at > a->size || bytes > a->size - at)
        return NULL;
    a->used = at + bytes;
    if (a->used > a->peak)
        a->peak = a->used;
    return a->base + at;
}

void k_arena_reset(k_arena *a) { a->used = 0; }

void k_arena_release(k_arena *a)
{
    if (a->dev)
        k_free(a->dev, a->base);
    *a = (k_arena){ 0 };
}
