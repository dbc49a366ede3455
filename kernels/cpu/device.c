/* device.c - opening a device: the CPU's own table, or CUDA's from its own object. */
#define _GNU_SOURCE                 /* dladdr */
#include "internal.h"
#include "../cpu.h"
#include "../cuda.h"
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, UNKNOWN_CACHE = 32 << 20, CACHE_LINE = 64 };

static int cpu_open(k_dev *dev, int index)
{
    if (index > 0) {
        snprintf(dev->error, sizeof dev->error, "there is one CPU device, cpu");
        return K_EDEVICE;
    }
    return K_OK;
}

static void cpu_close(k_dev *dev) { free(dev->state); }
static int cpu_sync(k_dev *dev) { (void)dev; return K_OK; }

/* Large blocks lie on huge pages where the system has them: fewer misses when a whole table is walked. */
static void *cpu_take(k_dev *dev, size_t bytes)
{
    void *p;
    (void)dev;
    if (posix_memalign(&p, bytes >= HUGE_PAGE ? HUGE_PAGE : K_ALIGN, bytes) != 0)
        return NULL;
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return p;
}

static void cpu_give(k_dev *dev, void *p, size_t bytes) { (void)dev; (void)bytes; free(p); }

static size_t cpu_total(k_dev *dev)
{
    (void)dev;
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

/* VmHWM, which begins anew with every program; getrusage's peak outlives exec. */
static size_t cpu_memory_seen(k_dev *dev)
{
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    (void)dev;
    while (f && !kib && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %zu kB", &kib) != 1)
            kib = 0;
    if (f)
        fclose(f);
    return kib << 10;
}

/* Writes to every line of a buffer (dev->state) of twice the last cache, each thread to its part. */
static int flush_caches(k_dev *dev)
{
    const long said = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const int64_t bytes = 2 * (said > UNKNOWN_CACHE ? (int64_t)said : UNKNOWN_CACHE);
    if (!dev->state)
        dev->state = calloc(1, (size_t)bytes);
    char *lines = dev->state;
    if (!lines)
        return K_ENOMEM;
    IN_STEPS(dev, bytes, CHUNK, bytes, for (int64_t i = lo; i < hi; i += CACHE_LINE) lines[i]++;);
    return K_OK;
}

static double cpu_time(k_dev *dev, int (*work)(void *), void *arg, int cold)
{
    struct timespec start, end;
    if (cold && flush_caches(dev) < 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &start);
    const int rc = work(arg);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return rc ? -1 : (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

static const char *cpu_describe(k_dev *dev, char *out, size_t n)
{
    (void)dev; (void)out; (void)n;
    return k_cpu_describe();
}

static k_recording *cpu_record(k_dev *dev, int (*work)(void *), void *arg) { (void)dev; (void)work; (void)arg; return NULL; }
static void cpu_replay(k_dev *dev, k_recording *r) { (void)dev; (void)r; }
static void cpu_set_tf32(k_dev *dev, int on) { (void)dev; (void)on; }
static void cpu_range_push(k_dev *dev, const char *name) { (void)dev; (void)name; }
static void cpu_range_pop(k_dev *dev) { (void)dev; }
static void cpu_set_bytes(k_dev *dev, void *x, int byte, size_t bytes) { (void)dev; memset(x, byte, bytes); }

const k_ops k_cpu_ops = {
    .size = sizeof(k_ops), .open = cpu_open, .close = cpu_close, .sync = cpu_sync, .take = cpu_take,
    .give = cpu_give, .total = cpu_total, .memory_seen = cpu_memory_seen, .time = cpu_time, .set_tf32 = cpu_set_tf32,
    .record = cpu_record, .replay = cpu_replay, .forget = cpu_replay,
    .range_push = cpu_range_push, .range_pop = cpu_range_pop, .describe = cpu_describe, .set_bytes = cpu_set_bytes,
#define X(name) .name = cpu_##name,
    K_KERNELS(X)
#undef X
};

/* The CUDA half, or NULL and the sentence in why.  It is looked for beside this object, and stays loaded: devices and
 * variants point into it. */
static void *open_cuda(char *why, size_t nwhy)
{
    char path[4096] = K_CUDA_OBJECT;
    Dl_info here;
    if (dladdr((void *)(uintptr_t)k_dev_open, &here) && here.dli_fname && strrchr(here.dli_fname, '/'))
        snprintf(path, sizeof path, "%.*s/" K_CUDA_OBJECT,
                 (int)(strrchr(here.dli_fname, '/') - here.dli_fname), here.dli_fname);
    if (access(path, R_OK) != 0) {
        snprintf(why, nwhy, "no CUDA device: this build has no CUDA half (%s is not there)", K_CUDA_OBJECT);
        return NULL;
    }
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object)
        snprintf(why, nwhy, "no CUDA device: %s", dlerror());
    return object;
}

/* The CUDA device's table, or NULL and the sentence in dev->error. */
static const k_ops *find_cuda(k_dev *dev)
{
    void *object = open_cuda(dev->error, sizeof dev->error);
    const k_ops *ops = object ? (const k_ops *)dlsym(object, K_CUDA_SYMBOL) : NULL;
    if (object && (!ops || ops->size != sizeof(k_ops))) {
        snprintf(dev->error, sizeof dev->error, "no CUDA device: %s is of another version, build it again", K_CUDA_OBJECT);
        ops = NULL;
    }
    return ops;
}

const void *k_cuda_table(const char *problem, size_t size)
{
    static _Atomic(void *) object;
    char name[64], why[256];
    void *cuda = object;
    if (!cuda)
        object = cuda = open_cuda(why, sizeof why);
    snprintf(name, sizeof name, "k_cuda_%s_v1", problem);
    const uint32_t *table = cuda ? dlsym(cuda, name) : NULL;    /* every table begins with its size */
    return table && *table == size ? table : NULL;
}

/* "cpu", "cuda" or "cuda:1" into kind and index; false when it is none of them. */
static int parse_name(const char *name, int *cuda, int *index)
{
    char rest;
    *index = 0;
    *cuda = strncmp(name, "cuda", 4) == 0;
    if (strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0)
        return 1;
    return *cuda && sscanf(name + 4, ":%d%c", index, &rest) == 1 && *index >= 0;
}

static int open_on(k_dev *dev, const char *name)
{
    int index;
    if (!parse_name(name, &dev->is_cuda, &index)) {
        snprintf(dev->error, sizeof dev->error, "no device %s: expected cpu, cuda or cuda:N", name);
        return K_EINVAL;
    }
    dev->ops = dev->is_cuda ? find_cuda(dev) : &k_cpu_ops;
    if (!dev->ops)
        return K_EDEVICE;
    if (dev->is_cuda)
        snprintf(dev->name, sizeof dev->name, "cuda:%d", index);
    else
        snprintf(dev->name, sizeof dev->name, "cpu");
    return dev->ops->open(dev, index);
}

int k_dev_open(const char *name, int nthreads, k_dev **out, char *err, size_t nerr)
{
    k_dev *dev = calloc(1, sizeof *dev);
    int rc = K_ENOMEM;
    *out = NULL;
    if (dev) {
        dev->threads = nthreads > 0 ? nthreads : omp_get_max_threads();
        rc = open_on(dev, name);
    }
    if (rc < 0) {
        snprintf(err, nerr, "%s", dev ? dev->error : "no memory for a device");
        free(dev);
        return rc;
    }
    *out = dev;
    return K_OK;
}

void k_dev_close(k_dev *dev)
{
    if (!dev)
        return;
    k_free_all(dev);
    dev->ops->close(dev);
    free(dev);
}

const char *k_dev_name(const k_dev *dev) { return dev->name; }
int k_dev_is_cuda(const k_dev *dev) { return dev->is_cuda; }
int k_dev_threads(const k_dev *dev) { return dev->threads; }
void *k_dev_stream(const k_dev *dev) { return dev->stream; }
const char *k_error(const k_dev *dev) { return dev->error; }
int k_sync(k_dev *dev) { return dev->ops->sync(dev); }
const char *k_dev_describe(k_dev *dev, char *out, size_t n) { return dev->ops->describe(dev, out, n); }
k_recording *k_record(k_dev *dev, int (*work)(void *), void *arg) { return dev->ops->record(dev, work, arg); }
void k_replay(k_dev *dev, k_recording *r) { dev->ops->replay(dev, r); }
void k_forget(k_dev *dev, k_recording *r)
{
    if (r)
        dev->ops->forget(dev, r);
}
void k_set_tf32(k_dev *dev, int on) { dev->ops->set_tf32(dev, on); }
void k_range_push(k_dev *dev, const char *name) { dev->ops->range_push(dev, name); }
void k_range_pop(k_dev *dev) { dev->ops->range_pop(dev); }
size_t k_memory_seen(k_dev *dev) { return dev->ops->memory_seen(dev); }
double k_time(k_dev *dev, int (*work)(void *), void *arg, int cold) { return dev->ops->time(dev, work, arg, cold); }

/* The model of the processor as the kernel names it, or its architecture. */
static void read_model(char *out, size_t n)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, n, "unknown CPU");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, n, "%.200s", strchr(line, ':') + 2);
            break;
        }
    if (f)
        fclose(f);
}

const char *k_cpu_describe(void)
{
    static char text[320];
    char model[224];
    const char *isa = "";
    read_model(model, sizeof model);
#ifdef __x86_64__
    isa = __builtin_cpu_supports("avx512f") ? ", avx512 avx2 fma"
        : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? ", avx2 fma" : "";
#endif
    snprintf(text, sizeof text, "%s, %d cores%s", model, omp_get_num_procs(), isa);
    return text;
}

size_t k_dtype_size(k_dtype t)
{
    switch (t) {
    case K_F64: return 8;
    case K_F32: case K_I32: return 4;
    case K_BF16: case K_F16: return 2;
    }
    return 0;
}

static const struct { k_dtype dtype; const char *name; } dtypes[] = {
    { K_F32, "f32" }, { K_BF16, "bf16" }, { K_F16, "f16" }, { K_F64, "f64" }, { K_I32, "i32" } };
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *k_dtype_name(k_dtype t)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == t)
            return dtypes[i].name;
    return "?";
}

int k_dtype_parse(const char *name, k_dtype *out)
{
    for (int i = 0; i < DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = dtypes[i].dtype;
            return K_OK;
        }
    return K_EINVAL;
}
