/* read_audio.c - recordings as RIFF WAVE with 16-bit PCM samples; channels are averaged.
 *
 * A token is a sample x in -1..1 as a byte of mu-law, f(x) = sgn(x) ln(1 + 255 |x|) / ln 256 in 256 even steps from -1 to 1; a file is a
 * document.  Chunks other than "fmt " and "data" are skipped. */
#include <math.h>
#include <string.h>
#include "read.h"

enum { PCM = 1, EXTENSIBLE = 0xfffe, BATCH = 4096, MOST_CHANNELS = 64 };
typedef struct wave { uint32_t format, channels, rate, bits; } wave;

unsigned char data_mu_law(double x)
{
    return (unsigned char)floor((copysign(log1p(255 * fabs(x)) / log(256), x) + 1) / 2 * 255 + 0.5);
}

static uint32_t le(const unsigned char *at, int bytes)
{
    uint32_t x = 0;
    while (bytes--) x = x << 8 | at[bytes];
    return x;
}

/* The next n bytes, which are part of `what`; 0, or -1 with a sentence. */
static int take(data_source *s, const char *what, void *to, size_t n)
{
    const int64_t from = s->bytes;
    const ssize_t got = data_source_read(s, to, n);
    if (got == (ssize_t)n) return 0;
    return got < 0 ? -1 : data_source_fail(s, "byte %lld: it is truncated: %s has %zd of %zu bytes", (long long)from, what, got, n);
}

static int skip(data_source *s, uint32_t n)
{
    char waste[BATCH];
    for (uint32_t left = n; left;) {
        const uint32_t here = left < BATCH ? left : BATCH;
        if (take(s, "a chunk", waste, here) != 0) return -1;
        left -= here;
    }
    return 0;
}

/* The chunk "fmt ", of which n bytes are left: what the samples are. */
static int read_format(data_reading *r, data_source *s, uint32_t n, wave *w)
{
    unsigned char b[40] = { 0 };
    const long long at = (long long)s->bytes;
    if (n < 16) return data_source_fail(s, "byte %lld: its format has %u bytes, expected 16", at, n);
    const uint32_t kept = n < sizeof b ? n : (uint32_t)sizeof b;
    if (take(s, "its format", b, kept) != 0 || skip(s, n - kept + n % 2) != 0) return -1;
    *w = (wave){ le(b, 2), le(b + 2, 2), le(b + 4, 4), le(b + 14, 2) };
    if (w->format == EXTENSIBLE && kept >= 26) w->format = le(b + 24, 2);
    if (w->format != PCM || w->bits != 16)
        return data_source_fail(s, "byte %lld: samples of format %u with %u bits, expected PCM (1) with 16", at, w->format, w->bits);
    if (w->channels < 1 || w->channels > MOST_CHANNELS) return data_source_fail(s, "byte %lld: %u channels, expected 1..%d", at, w->channels, MOST_CHANNELS);
    if (r->rate && r->rate != w->rate)
        return data_source_fail(s, "byte %lld: %u samples a second; the recordings before have %u", at, w->rate, r->rate);
    r->rate = w->rate;
    return 0;
}

/* The chunk "data" of n bytes. */
static int read_samples(data_reading *r, data_source *s, uint32_t n, const wave *w)
{
    unsigned char raw[2 * MOST_CHANNELS * (BATCH / MOST_CHANNELS)], byte[BATCH];
    const uint32_t frame = 2 * w->channels, most = (uint32_t)sizeof raw / frame;
    if (n == 0 || n % frame)
        return data_source_fail(s, "byte %lld: %u bytes are no samples of %u channels", (long long)s->bytes, n, w->channels);
    for (uint32_t left = n / frame; left && r->left > 0;) {
        const uint32_t here = left < most ? left : most, wanted = r->left < here ? (uint32_t)r->left : here;
        if (take(s, "its sound", raw, here * frame) != 0) return -1;
        for (uint32_t i = 0; i < wanted; i++) {
            double sum = 0;
            for (uint32_t c = 0; c < w->channels; c++) sum += (int16_t)le(raw + i * frame + 2 * c, 2);
            byte[i] = data_mu_law(sum / w->channels / 32768);
        }
        data_put_bytes(r, byte, wanted);
        left -= here;
    }
    data_writer_doc(r->out, -1);
    return 0;
}

/* Chunks up to that of the samples. */
static int read_wave(data_reading *r, data_source *s)
{
    unsigned char b[12];
    wave w = { 0 };
    if (take(s, "its header", b, 12) != 0) return -1;
    if (memcmp(b, "RIFF", 4) != 0 || memcmp(b + 8, "WAVE", 4) != 0) return data_source_fail(s, "byte 0: it is not a RIFF WAVE file");
    for (;;) {
        if (take(s, "a chunk's header (no sound so far)", b, 8) != 0) return -1;
        const uint32_t n = le(b + 4, 4);
        if (memcmp(b, "data", 4) == 0)
            return w.format ? read_samples(r, s, n, &w) : data_source_fail(s, "byte %lld: sound without a format before it", (long long)s->bytes - 8);
        if (memcmp(b, "fmt ", 4) == 0 ? read_format(r, s, n, &w) : skip(s, n) || skip(s, n % 2)) return -1;
    }
}

int data_read_audio(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    (void)file; (void)other;
    if (r->left <= 0) return 0;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    const int rc = read_wave(r, &s);
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc;
}
