/* cost.h - what tasks share that measure what something costs: options of the measurement, metrics, and how they are told.
 *
 * A task puts nn_size_opts and nn_cost_opts into its options struct, NN_SIZE_OPTIONS and NN_COST_OPTIONS into its table and
 * NN_COST_METRICS into its metrics. */
#ifndef NN_COST_H
#define NN_COST_H
#include "../task.h"
#include "measure.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct nn_size_opts { int32_t batch, tokens, dtype; } nn_size_opts;   /* how much is measured, and in what */
#define NN_SIZE_OPTIONS(type, field, of)                                                                                                      \
    { "batch", "B: sequences", offsetof(type, field.batch), ATTN_INT, 1, 1, 1 << 20, NULL, 0 },                                              \
    { "tokens", "B T, in the place of batch: as many sequences as make so many tokens, at least one; 0 = as batch says",                      \
      offsetof(type, field.tokens), ATTN_INT, 0, 0, 1 << 30, NULL, 0 },                                                                       \
    { "dtype", "of " of "; auto = bf16 on a GPU, else the experiment's dtype", offsetof(type, field.dtype), ATTN_CHOICE, 0, 0, 0,             \
      "auto,f32,bf16,f64", 0 }
int32_t nn_size_batch(const nn_size_opts *, int32_t length);        /* sequences of so many tokens */
k_dtype nn_size_dtype(const nn_size_opts *, const task_call *);

typedef struct nn_cost_opts {
    int32_t cold, warmup_calls, min_samples, max_samples;
    double warmup_time, max_time, spread, rest;
} nn_cost_opts;

#define NN_COST_OPTIONS(type, field)                                                                                                          \
    { "cold", "flush the caches before each sample", offsetof(type, field.cold), ATTN_BOOL, 1, 0, 1, NULL, 0 },                              \
    { "rest", "GPU: seconds of idling before each call, at most ten times the last; 0: sustained load", offsetof(type, field.rest),           \
      ATTN_FLOAT, 0.02, 0, 10, NULL, 0 },                                                                                                     \
    { "warmup_calls", "untimed calls, at least", offsetof(type, field.warmup_calls), ATTN_INT, 3, 0, 1 << 20, NULL, 0 },                      \
    { "min_samples", "timed calls, at least, unless time is up", offsetof(type, field.min_samples), ATTN_INT, 10, 1, 1 << 20, NULL, 0 },      \
    { "max_samples", "timed calls, at most", offsetof(type, field.max_samples), ATTN_INT, 500, 1, 1 << 20, NULL, 0 },                         \
    { "warmup_time", "seconds of untimed calls, at least", offsetof(type, field.warmup_time), ATTN_FLOAT, 0.2, 0, 3600, NULL, 0 },            \
    { "max_time", "seconds of warming up and of sampling, each, at most; one sample is taken in any case", offsetof(type, field.max_time),    \
      ATTN_FLOAT, 2, 0, 3600, NULL, 0 },                                                                                                      \
    { "spread", "enough when the interquartile range of the median is this part of it", offsetof(type, field.spread), ATTN_FLOAT, 0.005, 0, 1, NULL, 0 }

#define NN_COST_METRICS                                                                                                                       \
    { "seconds", "s", "time of the pass, median", -1, 0 },                                                                                    \
    { "seconds_min", "s", "shortest sample", -1, 0 },                                                                                         \
    { "seconds_p20", "s", "20 % of the samples are shorter", -1, 0 },                                                                         \
    { "seconds_p80", "s", "80 % of the samples are shorter", -1, 0 },                                                                         \
    { "seconds_low", "s", "lower end of the median's 95 % interval, by bootstrap", -1, 0 },                                                   \
    { "seconds_high", "s", "upper end of the median's 95 % interval, by bootstrap", -1, 0 },                                                  \
    { "seconds_spread", "1", "interquartile range of the median, relative to it", -1, 0 },                                                    \
    { "samples", "1", "number of samples", 0, 0 },                                                                                            \
    { "settled", "1", "1 when the spread asked for was reached, 0 when time or samples ended it", 1, 0 },                                     \
    { "sample_seconds", "s", "every sample, in the order of time", -1, 1 },                                                                   \
    { "throttled_samples", "1", "samples dropped, because heat or the power supply slowed the GPU down", -1, 0 },                             \
    { "capped_samples", "1", "samples of a GPU at its power limit", 0, 0 },                                                                   \
    { "clock_hertz", "Hz", "clock of the GPU's multiprocessors, median over the samples", 0, 0 },                                             \
    { "first_call_seconds", "s", "the first call of the pass", -1, 0 },                                                                       \
    { "tokens_per_second", "1/s", "tokens by the median time", 1, 0 },                                                                        \
    { "flops", "1", "floating-point operations as planned: a multiply-add is 2, masked pairs are left out", 0, 0 },                           \
    { "tflops", "TFLOP/s", "flops by the median time", 1, 0 },                                                                                \
    { "peak_tflops", "TFLOP/s", "a large matrix product of this dtype on this machine", 0, 0 },                                               \
    { "share_of_peak_flops", "1", "tflops of peak_tflops", 1, 0 }
/* Of tasks that know the least traffic, too. */
#define NN_TRAFFIC_METRICS                                                                                                                    \
    { "bytes", "bytes", "least traffic as planned: every input once, every output once", 0, 0 },                                              \
    { "gbps", "GB/s", "bytes by the median time", 1, 0 },                                                                                     \
    { "peak_gbps", "GB/s", "a large copy on this machine, read and written", 0, 0 },                                                          \
    { "share_of_peak_bandwidth", "1", "gbps of peak_gbps", 1, 0 }

/* Whether the options agree: 0, or -1 with a sentence. */
int nn_cost_check(const nn_cost_opts *, char *why, size_t nwhy);

typedef struct nn_cost {                /* what was measured, and of what */
    nn_measured time;
    double *sample;                     /* [time.n], in the order of time; freed by nn_cost_release */
    double first;                       /* seconds of the first call, timed by the task */
    double tokens, flops, bytes;        /* of one pass; 0: not known */
} nn_cost;
/* Samples the work after a first call of c->first seconds; a TASK_ code, with a sentence when it is TASK_FAILED. */
int nn_cost_measure(k_dev *, const nn_cost_opts *, const nn_work *, nn_cost *c, char *why, size_t nwhy);
/* Emits NN_COST_METRICS, and NN_TRAFFIC_METRICS when traffic; the machine's bounds are measured once per process. */
void nn_cost_report(const task_call *, k_dtype, const nn_cost *, int traffic);
void nn_cost_release(nn_cost *);
#ifdef __cplusplus
}
#endif
#endif
