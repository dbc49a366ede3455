/* cost.c - measuring and telling what a pass costs, for every task that does. */
#include "cost.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int nn_cost_check(const nn_cost_opts *o, char *why, size_t nwhy)
{
    if (o->min_samples <= o->max_samples)
        return 0;
    snprintf(why, nwhy, "min_samples %d is more than max_samples %d", o->min_samples, o->max_samples);
    return -1;
}

int32_t nn_size_batch(const nn_size_opts *o, int32_t length)
{
    int32_t B = o->tokens ? o->tokens / length : o->batch;
    return B > 0 ? B : 1;
}

k_dtype nn_size_dtype(const nn_size_opts *o, const task_call *call)
{
    static const k_dtype dtypes[] = { 0, K_F32, K_BF16, K_F64 };        /* of NN_SIZE_OPTIONS */
    return o->dtype ? dtypes[o->dtype] : k_dev_is_cuda(call->dev) ? K_BF16 : call->dtype;
}

/* How the GPU ran, for nn_measure. */
static nn_pace pace_of(const void *clocks) { return nn_clocks_now(clocks); }

int nn_cost_measure(k_dev *dev, const nn_cost_opts *o, const nn_work *work, nn_cost *c, char *why, size_t nwhy)
{
    nn_clocks *clocks = nn_clocks_open(dev);
    nn_measure_opts how = { .warmup_calls = o->warmup_calls, .min_samples = o->min_samples, .max_samples = o->max_samples,
                            .warmup_time = o->warmup_time, .max_time = o->max_time, .spread = o->spread, .cold = o->cold,
                            .rest = k_dev_is_cuda(dev) ? o->rest : 0, .pace = pace_of, .watch = clocks };
    c->sample = calloc((size_t)o->max_samples, sizeof *c->sample);
    int rc = c->sample ? nn_measure(dev, &how, work, c->first, c->sample, &c->time) : NN_MEASURE_FAILED;
    if (rc == NN_MEASURE_FAILED)
        snprintf(why, nwhy, "a pass failed: %s", c->sample ? k_error(dev) : "no memory for the samples");
    nn_clocks_close(clocks);
    return rc == 0 ? TASK_DONE : rc == NN_MEASURE_STOPPED ? TASK_INTERRUPTED : TASK_FAILED;
}

void nn_cost_release(nn_cost *c)
{
    free(c->sample);
    c->sample = NULL;
}

/* The machine's bounds, measured once for each device and dtype that this process meets, until that succeeds. */
static nn_peaks peaks_of(k_dev *dev, k_dtype dtype)
{
    static struct { char device[32]; int threads; k_dtype dtype; nn_peaks peaks; } known[8];
    static size_t n;
    const char *device = k_dev_name(dev);
    int threads = k_dev_threads(dev);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(known[i].device, device) && known[i].threads == threads && known[i].dtype == dtype)
            return known[i].peaks;
    nn_peaks peaks = nn_peaks_measure(device, threads, dtype);
    if (n == sizeof known / sizeof *known || peaks.bytes <= 0)
        return peaks;
    snprintf(known[n].device, sizeof known[n].device, "%s", device);
    known[n].threads = threads;
    known[n].dtype = dtype;
    known[n++].peaks = peaks;
    return peaks;
}

static void metric(const task_call *call, const char *name, double value)
{
    call->host->metric(call->host->ctx, name, 0, value);
}

/* An amount as planned, its rate, and the rate's share of the machine's bound. */
static void report_rate(const task_call *call, double amount, double seconds, double unit, double peak, const char *const name[4])
{
    if (peak > 0)
        metric(call, name[2], peak / unit);
    if (amount <= 0)
        return;
    metric(call, name[0], amount);
    metric(call, name[1], amount / seconds / unit);
    if (peak > 0)
        metric(call, name[3], amount / seconds / peak);
}

void nn_cost_report(const task_call *call, k_dtype dtype, const nn_cost *c, int traffic)
{
    static const char *const flops[4] = { "flops", "tflops", "peak_tflops", "share_of_peak_flops" };
    static const char *const bytes[4] = { "bytes", "gbps", "peak_gbps", "share_of_peak_bandwidth" };
    const nn_measured *m = &c->time;
    const struct { const char *name; double value; } each[] = {
        { "seconds", m->median }, { "seconds_min", m->min }, { "seconds_p20", m->p20 }, { "seconds_p80", m->p80 },
        { "seconds_low", m->low }, { "seconds_high", m->high }, { "seconds_spread", m->spread }, { "samples", m->n },
        { "settled", m->settled }, { "throttled_samples", m->throttled }, { "first_call_seconds", c->first },
        { "tokens_per_second", c->tokens / m->median } };
    nn_peaks peaks = peaks_of(call->dev, dtype);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        metric(call, each[i].name, each[i].value);
    if (m->hertz > 0) {
        metric(call, "capped_samples", m->capped);
        metric(call, "clock_hertz", m->hertz);
    }
    for (int32_t i = 0; i < m->n; i++)
        call->host->metric(call->host->ctx, "sample_seconds", i, c->sample[i]);
    report_rate(call, c->flops, m->median, 1e12, peaks.flops, flops);
    if (traffic)
        report_rate(call, c->bytes, m->median, 1e9, peaks.bytes, bytes);
}
