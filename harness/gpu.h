/* gpu.h - whether this machine has a GPU that this build can use, and which. */
#ifndef HS_GPU_H
#define HS_GPU_H
/* Asks once; a child opens the device, so that this process never touches CUDA.  1 and what the device is, or 0 and why
 * there is none, as one sentence. */
int hs_gpu_ask(const char **text);
#endif
