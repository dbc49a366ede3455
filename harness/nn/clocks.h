/* clocks.h - how fast a GPU runs just now and what holds it back, as its driver says (NVML, looked for when asked). */
#ifndef NN_CLOCKS_H
#define NN_CLOCKS_H
#include "../../kernels/kernels.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nn_clocks nn_clocks;
typedef struct nn_pace {
    double hertz;                       /* of the multiprocessors; 0: not known */
    int throttled;                      /* by heat, or to spare the power supply: no time taken so is the GPU's own */
    int capped;                         /* by its power limit, as heavy work is on some GPUs all the time */
} nn_pace;

/* Of the device; NULL: it is a CPU, or the driver does not say. */
nn_clocks *nn_clocks_open(k_dev *);
/* clocks may be NULL: nothing is known. */
nn_pace nn_clocks_now(const nn_clocks *clocks);
void nn_clocks_close(nn_clocks *);
#ifdef __cplusplus
}
#endif
#endif
