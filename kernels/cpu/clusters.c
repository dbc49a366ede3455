/* clusters.c - rows by the cluster of their target, and logarithms of probabilities. */
#include "internal.h"
#include "math.h"

/* The tail of a target, or the number of tails where it has none. */
static int tail_of(const k_clusters *c, int32_t target)
{
    int tail = -1;
    while (tail + 1 < c->tails && target >= c->cut[tail + 1])
        tail++;
    return tail < 0 ? c->tails : tail;
}

/* target, row, place [n], word [1 + tails,n], some [tails,chunks] */
void cpu_sort_targets(k_dev *dev, int64_t n, const int32_t *target, const k_clusters *c, int64_t chunk, int32_t *row, int32_t *place, int32_t *word,
                      int32_t *some)
{
    int64_t next[K_TAILS + 2] = { 0 };
    const int64_t chunks = (n + chunk - 1) / chunk;
    (void)dev;
    for (int64_t r = 0; r < n; r++)
        next[tail_of(c, target[r]) + 1]++;
    for (int i = 0; i < c->tails; i++)
        next[i + 1] += next[i];
    memset(some, 0, (size_t)(c->tails * chunks) * sizeof *some);
    for (int64_t r = 0; r < n; r++) {
        const int tail = tail_of(c, target[r]);
        const int64_t p = next[tail]++;
        row[p] = (int32_t)r;
        place[r] = (int32_t)p;
        word[p] = tail < c->tails ? c->cut[0] + tail : target[r];
        for (int i = 0; i < c->tails; i++)
            word[(i + 1) * n + p] = i == tail ? target[r] - c->cut[i] : -1;
        if (tail < c->tails)
            some[tail * chunks + p / chunk] = 1;
    }
}

int cpu_when(k_dev *dev, const int32_t *flag, int (*work)(void *), void *arg)
{
    (void)dev;
    return *flag ? work(arg) : 0;
}

#define REAL float
#define T(name) name##_f32
static inline float log_f32(float x) { return logf(x); }
#include "clusters.inc"
#undef REAL
#undef T
#define REAL double
#define T(name) name##_f64
static inline double log_f64(double x) { return log(x); }
#include "clusters.inc"

void cpu_log_softmax(k_dev *dev, k_dtype t, int64_t rows, int64_t d, int64_t take, void *out, int64_t ldo, const void *y, int64_t ld,
                     const void *plus, int64_t every)
{
    TYPED(t, log_softmax, dev, rows, d, take, out, ldo, y, ld, plus, every);
}
