/* clocks.c - see clocks.h.  Both of the driver's libraries are loaded by name, so that nothing here needs them. */
#include "clocks.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_CLOCK_SM = 1 };
/* Reasons for a lower clock, bits of nvmlDeviceGetCurrentClocksEventReasons. */
enum { POWER_CAP = 0x04, HARDWARE = 0x08, HEAT = 0x20, HARDWARE_HEAT = 0x40, POWER_BRAKE = 0x80 };

struct nn_clocks {
    void *device;                       /* nvmlDevice_t */
    int (*clock)(void *device, int which, unsigned *mhz);
    int (*reasons)(void *device, unsigned long long *bits);
};

/* The function of a library that has it under one of two names. */
static void *function_of(void *library, const char *name, const char *older)
{
    void *f = dlsym(library, name);
    return f || !older ? f : dlsym(library, older);
}

/* The bus address of CUDA device `index`, which NVML knows it by, as it numbers those that CUDA does not see, too. */
static int bus_of(int index, char *out, int n)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!cuda)
        return -1;
    int device = 0;
    int (*get)(int *, int) = (int (*)(int *, int))dlsym(cuda, "cuDeviceGet");
    int (*bus)(char *, int, int) = (int (*)(char *, int, int))dlsym(cuda, "cuDeviceGetPCIBusId");
    int rc = get && bus && get(&device, index) == 0 && bus(out, n, device) == 0 ? 0 : -1;
    dlclose(cuda);
    return rc;
}

/* The library stays loaded and in use until the process ends: to open it again costs nothing. */
nn_clocks *nn_clocks_open(k_dev *dev)
{
    char bus[32];
    const char *number = strchr(k_dev_name(dev), ':');
    if (!k_dev_is_cuda(dev) || bus_of(number ? atoi(number + 1) : 0, bus, sizeof bus))
        return NULL;
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_LAZY);
    nn_clocks *c = nvml ? calloc(1, sizeof *c) : NULL;
    if (!c)
        return NULL;
    int (*init)(void) = (int (*)(void))function_of(nvml, "nvmlInit_v2", NULL);
    int (*find)(const char *, void **) = (int (*)(const char *, void **))function_of(nvml, "nvmlDeviceGetHandleByPciBusId_v2", NULL);
    c->clock = (int (*)(void *, int, unsigned *))function_of(nvml, "nvmlDeviceGetClockInfo", NULL);
    c->reasons = (int (*)(void *, unsigned long long *))function_of(nvml, "nvmlDeviceGetCurrentClocksEventReasons",
                                                                    "nvmlDeviceGetCurrentClocksThrottleReasons");
    if (init && find && c->clock && c->reasons && init() == 0 && find(bus, &c->device) == 0)
        return c;
    free(c);
    return NULL;
}

nn_pace nn_clocks_now(const nn_clocks *c)
{
    unsigned mhz = 0;
    unsigned long long why = 0;
    nn_pace pace = { 0, 0, 0 };
    if (c && c->clock(c->device, NVML_CLOCK_SM, &mhz) == 0)
        pace.hertz = 1e6 * mhz;
    if (c && c->reasons(c->device, &why) == 0) {
        pace.throttled = (why & (HARDWARE | HEAT | HARDWARE_HEAT | POWER_BRAKE)) != 0;
        pace.capped = (why & POWER_CAP) != 0;
    }
    return pace;
}

void nn_clocks_close(nn_clocks *c) { free(c); }
