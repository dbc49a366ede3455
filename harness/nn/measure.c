/* measure.c - the loop of samples, what it says, and the machine's own bounds. */
#include "measure.h"
#include "../../kernels/philox.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RESAMPLES = 2000 };

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what samples say ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double nn_quantile(const double *x, int32_t n, double p)
{
    double at = p * (n - 1);
    int32_t i = (int32_t)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[n - 1];
}

double nn_spread(const double *x, int32_t n)
{
    if (n < 2)
        return INFINITY;
    double range = nn_quantile(x, n, 0.75) - nn_quantile(x, n, 0.25), median = nn_quantile(x, n, 0.5);
    return median > 0 ? sqrt(acos(-1) / 2) * range / sqrt(n) / median : 0;
}

/* The median of one resample of the sorted x [n]: n ranks are drawn, drawn[i] counts how often rank i came. */
static double resampled_median(const double *x, int32_t n, uint32_t round, int32_t *drawn)
{
    philox4 words = { { 0 } };
    memset(drawn, 0, (size_t)n * sizeof *drawn);
    for (int32_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            words = philox4x32_10(0, (uint64_t)i / 4, 0, round);
        drawn[philox_below(words.v[i % 4], (uint32_t)n)]++;
    }
    double middle[2] = { 0, 0 };                        /* ranks (n - 1) / 2 and n / 2 of the resample */
    for (int32_t i = 0, seen = 0; i < n; i++) {
        int32_t next = seen + drawn[i];
        for (int half = 0; half < 2; half++)
            if (seen <= (n - 1 + half) / 2 && (n - 1 + half) / 2 < next)
                middle[half] = x[i];
        seen = next;
    }
    return 0.5 * (middle[0] + middle[1]);
}

/* The interval of the median of the sorted x [n]; without memory it stays the median alone. */
static void bootstrap(const double *x, int32_t n, nn_measured *out)
{
    int32_t *drawn = calloc((size_t)n, sizeof *drawn);
    double *median = calloc(RESAMPLES, sizeof *median);
    for (uint32_t i = 0; drawn && median && i < RESAMPLES; i++)
        median[i] = resampled_median(x, n, i, drawn);
    if (drawn && median) {
        qsort(median, RESAMPLES, sizeof *median, by_value);
        out->low = nn_quantile(median, RESAMPLES, 0.025);
        out->high = nn_quantile(median, RESAMPLES, 0.975);
    }
    free(drawn);
    free(median);
}

void nn_summarise(double *x, int32_t n, nn_measured *out)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    double median = nn_quantile(x, n, 0.5);
    *out = (nn_measured){ .min = x[0], .p20 = nn_quantile(x, n, 0.2), .median = median, .p80 = nn_quantile(x, n, 0.8),
                          .low = median, .high = median, .spread = nn_spread(x, n), .n = n };
    bootstrap(x, n, out);
}

/* ---- taking them ------------------------------------------------------------------------------------------- */

/* Idles, so that the machine is no warmer and no hungrier than by the work itself, now and then; before: seconds of the last. */
static void rest(const nn_measure_opts *o, double before)
{
    double seconds = o->rest < 10 * before ? o->rest : 10 * before;
    if (seconds > 0)
        nanosleep(&(struct timespec){ (time_t)seconds, (long)(1e9 * fmod(seconds, 1)) }, NULL);
}

/* One run, prepared and timed after one of `before` seconds; negative: a code of nn_measure. */
static double sample_once(k_dev *dev, const nn_measure_opts *o, const nn_work *work, int cold, double before)
{
    if (work->stop && work->stop(work->arg))
        return NN_MEASURE_STOPPED;
    rest(o, before);
    if (work->before && work->before(work->arg))
        return NN_MEASURE_FAILED;
    double seconds = k_time(dev, work->run, work->arg, cold);
    return seconds < 0 ? NN_MEASURE_FAILED : seconds;
}

/* Until both the calls and the time are reached, or time is up; a run of `first` seconds has been. */
static int warm_up(k_dev *dev, const nn_measure_opts *o, const nn_work *work, double first)
{
    double start = now_seconds() - first, passed = first, seconds = first;
    for (int32_t calls = first > 0; (calls < o->warmup_calls || passed < o->warmup_time) && passed < o->max_time; calls++) {
        seconds = sample_once(dev, o, work, 0, seconds);
        if (seconds < 0)
            return (int)seconds;
        passed = now_seconds() - start;
    }
    return 0;
}

/* Whether the samples x [n] are enough; looked at when n has grown by an eighth, because looking sorts them. */
static int settled(const nn_measure_opts *o, const double *x, int32_t n, int32_t *look, double *sorted)
{
    if (n < o->min_samples || n < *look)
        return 0;
    *look = n + 1 + n / 8;
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *x, by_value);
    return nn_spread(sorted, n) <= o->spread;
}

/* Takes samples until they are enough or time is up; hertz [max_samples]: the clock at each of them. */
static int take_samples(k_dev *dev, const nn_measure_opts *o, const nn_work *work, double *sample, double *hertz, double *sorted, nn_measured *out)
{
    const double end = now_seconds() + o->max_time;
    double seconds = 0;
    int32_t look = 0;
    while (!out->settled && out->n < o->max_samples && (out->n == 0 || now_seconds() < end)) {
        seconds = sample_once(dev, o, work, o->cold, seconds);
        if (seconds < 0)
            return (int)seconds;
        nn_pace pace = o->pace ? o->pace(o->watch) : (nn_pace){ 0, 0, 0 };
        if (pace.throttled && now_seconds() < end) {
            out->throttled++;
            continue;
        }
        out->capped += pace.capped;
        hertz[out->n] = pace.hertz;
        sample[out->n++] = seconds;
        out->settled = settled(o, sample, out->n, &look, sorted);
    }
    return 0;
}

int nn_measure(k_dev *dev, const nn_measure_opts *o, const nn_work *work, double first, double *sample, nn_measured *out)
{
    double *hertz = malloc((size_t)o->max_samples * sizeof *hertz), *sorted = malloc((size_t)o->max_samples * sizeof *sorted);
    nn_measured m = { 0 };
    int rc = hertz && sorted ? warm_up(dev, o, work, first) : NN_MEASURE_FAILED;
    if (!rc)
        rc = take_samples(dev, o, work, sample, hertz, sorted, &m);
    if (!rc) {
        memcpy(sorted, sample, (size_t)m.n * sizeof *sample);
        nn_summarise(sorted, m.n, out);
        qsort(hertz, (size_t)m.n, sizeof *hertz, by_value);
        out->hertz = nn_quantile(hertz, m.n, 0.5);
        out->settled = m.settled, out->throttled = m.throttled, out->capped = m.capped;
    }
    free(hertz);
    free(sorted);
    return rc;
}

/* ---- the machine's bounds -------------------------------------------------------------------------------------- */

typedef struct bound {                                  /* a copy of `bytes`, or a product of n x n matrices */
    k_dev *dev;
    k_dtype dtype;
    size_t bytes;
    int64_t n;
    void *x, *y, *z;
} bound;

static int copy_once(void *arg)
{
    bound *b = arg;
    k_copy(b->dev, b->y, b->x, b->bytes);
    return 0;
}

static int multiply_once(void *arg)
{
    bound *b = arg;
    k_gemm(b->dev, b->dtype, 0, 0, b->n, b->n, b->n, 1, b->x, b->n, b->y, b->n, 0, b->z, b->n);
    return 0;
}

/* The shortest time of some runs, 0 when they fail. */
static double shortest(bound *b, int (*run)(void *))
{
    const nn_measure_opts o = { .warmup_calls = 2, .min_samples = 5, .max_samples = 50, .warmup_time = 0.05, .max_time = 0.4, .spread = 1e-3 };
    double sample[50];
    nn_measured m;
    return nn_measure(b->dev, &o, &(nn_work){ .run = run, .arg = b }, 0, sample, &m) ? 0 : m.min;
}

/* Three buffers of bytes, or none. */
static int take_three(bound *b, size_t bytes)
{
    void **const each[] = { &b->x, &b->y, &b->z };
    for (int i = 0; i < 3; i++)
        k_free(b->dev, *each[i]), *each[i] = NULL;
    for (int i = 0; i < 3; i++)
        if (k_alloc(b->dev, K_TAG_DATA, bytes, each[i]))
            return -1;
    return 0;
}

/* Numbers that are not zeros, which some machines multiply faster: normal ones, through z where the dtype has none. */
static void fill_factors(bound *b)
{
    void *const each[] = { b->x, b->y };
    int64_t elements = b->n * b->n;
    for (int i = 0; i < 2; i++) {
        k_rng rng = { .stream = (uint32_t)i };
        if (b->dtype == K_F32 || b->dtype == K_F64) {
            k_random_normal(b->dev, b->dtype, elements, each[i], rng, 0, 1);
            continue;
        }
        int64_t piece = elements / 2;                   /* z has room for half of them in f32 */
        for (int64_t at = 0; at < elements; at += piece, rng.draw++) {
            k_random_normal(b->dev, K_F32, piece, b->z, rng, 0, 1);
            k_convert(b->dev, piece, (char *)each[i] + at * (int64_t)k_dtype_size(b->dtype), b->dtype, b->z, K_F32);
        }
    }
}

nn_peaks nn_peaks_measure(const char *device, int threads, k_dtype dtype)
{
    bound b = { .dtype = dtype };
    nn_peaks p = { 0, 0 };
    char why[256];
    if (k_dev_open(device, threads, &b.dev, why, sizeof why))
        return p;
    int cuda = k_dev_is_cuda(b.dev);
    b.bytes = (size_t)(cuda ? 512 : 128) << 20;
    b.n = cuda ? 8192 : 1024;
    if (take_three(&b, b.bytes) == 0) {
        double seconds = shortest(&b, copy_once);
        p.bytes = seconds > 0 ? 2.0 * (double)b.bytes / seconds : 0;
    }
    if ((cuda || dtype != K_BF16) && take_three(&b, (size_t)(b.n * b.n) * k_dtype_size(dtype)) == 0) {
        fill_factors(&b);
        double seconds = shortest(&b, multiply_once);
        p.flops = seconds > 0 ? 2.0 * (double)b.n * (double)b.n * (double)b.n / seconds : 0;
    }
    k_dev_close(b.dev);
    return p;
}
