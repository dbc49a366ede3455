/* gpu.h - whether this machine has GPUs that this build can use, how many, and what they are. */
#ifndef HS_GPU_H
#define HS_GPU_H
#include <jansson.h>
/* Asks once; a child opens the device, so that this process never touches CUDA.  How many there are and what the first is,
 * or 0 and why there is none, as one sentence. */
int hs_gpu_ask(const char **text);
/* Opens the device here: {"device":"sentence","count":N} of its kind, or {"refused":"sentence"}. */
json_t *hs_device_json(const char *name);
#endif
