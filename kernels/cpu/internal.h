/* internal.h - what the files of kernels/cpu share: chunks, and one source for two precisions.
 *
 * A kernel is written once in a NAME.inc, with REAL for its type and T(name) for its name, and that file is
 * included once per precision.  Its loop stands inside IN_CHUNKS, which hands out ranges of fixed size:
 * a sum never crosses a chunk, so the result does not know how many threads there were. */
#ifndef KERNELS_CPU_INTERNAL_H
#define KERNELS_CPU_INTERNAL_H
#include "../device.h"

/* 16384 elements keep a thread busy for some microseconds, as long as waking it takes; a multiple of every
 * vector length, so that a chunk's end falls where the vector loop would have been anyway. */
enum { CHUNK = 16384, SERIAL_BELOW = 2 * CHUNK };

#define K_PRAGMA(x) _Pragma(#x)
#define SIMD K_PRAGMA(omp simd)
#pragma GCC diagnostic ignored "-Wpsabi"                /* no vector is passed beyond a static function */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"        /* in double some of these loops call libm and stay scalar */
#endif

/* Runs body for lo, hi over [0,n) in steps of grain; work: elements touched in all, few means no threads. */
#define IN_STEPS(dev, n, grain, work, ...)                                                        \
    do {                                                                                          \
        const int64_t n_ = (n), grain_ = (grain);                                                 \
        if ((dev)->threads == 1 || (work) <= SERIAL_BELOW) {                                      \
            for (int64_t lo = 0; lo < n_; lo += grain_) {                                         \
                const int64_t hi = lo + grain_ < n_ ? lo + grain_ : n_;                           \
                __VA_ARGS__                                                                       \
            }                                                                                     \
        } else {                                                                                  \
            K_PRAGMA(omp parallel for schedule(static) num_threads((dev)->threads))               \
            for (int64_t lo = 0; lo < n_; lo += grain_) {                                         \
                const int64_t hi = lo + grain_ < n_ ? lo + grain_ : n_;                           \
                __VA_ARGS__                                                                       \
            }                                                                                     \
        }                                                                                         \
    } while (0)

#define IN_CHUNKS(dev, n, ...) IN_STEPS(dev, n, CHUNK, n, __VA_ARGS__)
/* The same over rows of d elements. */
#define IN_ROWS(dev, rows, d, ...) IN_STEPS(dev, rows, (d) < CHUNK ? CHUNK / ((d) + 1) : 1, (rows) * (d), __VA_ARGS__)

/* Calls f_f64 or f_f32. */
#define TYPED(dtype, f, ...) ((dtype) == K_F64 ? f##_f64(__VA_ARGS__) : f##_f32(__VA_ARGS__))

#define X(name) extern __typeof__(k_##name) cpu_##name;
K_KERNELS(X)
#undef X
#endif
