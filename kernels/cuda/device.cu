/* device.cu - the CUDA device behind kernels.h: opening, memory, moving bytes, waiting, and its table. */
#include "device.cuh"
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cuda_failed(k_dev *dev, cudaError_t rc, const char *what)
{
    if (rc == cudaSuccess)
        return 0;
    cuda_state *s = cuda_of(dev);
    cudaGetLastError();                 /* what can be forgotten is forgotten, so that it is told once */
    if (!s || !s->failed)
        snprintf(dev->error, sizeof dev->error, "%s failed on %s: %s", what, dev->name, cudaGetErrorString(rc));
    if (s)
        s->failed = 1;
    return 1;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

__global__ static void probe() {}

/* Why this device cannot be used, in dev->error; 0 when it can. */
static int judge(k_dev *dev, int index)
{
    int driver = 0, devices = 0, major = 0, minor = 0;
    cudaFuncAttributes probed;
    cudaDriverGetVersion(&driver);
    const cudaError_t rc = cudaGetDeviceCount(&devices);
    if (driver == 0)
        snprintf(dev->error, sizeof dev->error, "no CUDA device: this machine has no NVIDIA driver");
    else if (rc != cudaSuccess)
        snprintf(dev->error, sizeof dev->error, "no CUDA device: %s", cudaGetErrorString(rc));
    else if (index >= devices)
        snprintf(dev->error, sizeof dev->error, "no CUDA device: %s asked for, there are %d", dev->name, devices);
    else if (cudaSetDevice(index) != cudaSuccess)
        snprintf(dev->error, sizeof dev->error, "no CUDA device: %s: %s", dev->name, cudaGetErrorString(cudaGetLastError()));
    else if (cudaFuncGetAttributes(&probed, probe) != cudaSuccess) {
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
        snprintf(dev->error, sizeof dev->error, "no CUDA device: %s has compute capability %d.%d, this build is for another (CUDA_ARCH)",
                 dev->name, major, minor);
    } else {
        return 0;
    }
    cudaGetLastError();
    return K_EDEVICE;
}

/* The stream, events and memory of the state; the sizes are known. */
static int take_state(k_dev *dev, cuda_state *s)
{
    cudaStream_t stream;
    if (cuda_failed(dev, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"))
        return K_EDEVICE;
    dev->stream = stream;
    cudaEvent_t *const events[] = { &s->passed[0], &s->passed[1] }, *const clocks[] = { &s->start, &s->stop };
    for (int i = 0; i < 2; i++)
        if (cuda_failed(dev, cudaEventCreateWithFlags(events[i], cudaEventDisableTiming), "making an event") ||
            cuda_failed(dev, cudaEventCreate(clocks[i]), "making an event"))
            return K_EDEVICE;
    if (cuda_failed(dev, cudaMalloc(&s->scratch, CUDA_SCRATCH + CUDA_BLAS_SCRATCH), "taking scratch") ||
        cuda_failed(dev, cudaMallocHost(&s->stage, CUDA_STAGE), "pinning memory") ||
        cuda_failed(dev, cudaMallocHost((void **)&s->gate, sizeof *s->gate), "pinning memory"))
        return K_EDEVICE;
    s->own = CUDA_SCRATCH + CUDA_BLAS_SCRATCH;
    if (cublasCreate(&s->blas) != CUBLAS_STATUS_SUCCESS || cublasSetStream(s->blas, stream) != CUBLAS_STATUS_SUCCESS ||
        cublasSetWorkspace(s->blas, s->scratch + CUDA_SCRATCH, CUDA_BLAS_SCRATCH) != CUBLAS_STATUS_SUCCESS) {
        snprintf(dev->error, sizeof dev->error, "cuBLAS does not start on %s", dev->name);
        return K_EDEVICE;
    }
    return K_OK;
}

/* Frees whatever the state holds. */
static void cuda_close(k_dev *dev)
{
    cuda_state *s = cuda_of(dev);
    if (!s)
        return;
    if (dev->stream)
        cudaStreamSynchronize(cuda_stream(dev));
    cuda_forget_linears(s);
    if (s->blas)
        cublasDestroy(s->blas);
    cudaEvent_t const events[] = { s->passed[0], s->passed[1], s->start, s->stop };
    for (int i = 0; i < 4; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
    cudaFree(s->scratch);
    cudaFree(s->flush);
    cudaFreeHost(s->stage);
    cudaFreeHost((void *)s->gate);
    if (dev->stream)
        cudaStreamDestroy(cuda_stream(dev));
    free(s);
    dev->state = dev->stream = NULL;
}

static int cuda_open(k_dev *dev, int index)
{
    int l2 = 0, rc = judge(dev, index);
    size_t free_bytes;
    if (rc < 0)
        return rc;
    cuda_state *s = (cuda_state *)calloc(1, sizeof *s);
    if (!s) {
        snprintf(dev->error, sizeof dev->error, "no memory for a device");
        return K_ENOMEM;
    }
    dev->state = s;
    s->index = index;
    if (cuda_failed(dev, cudaMemGetInfo(&free_bytes, &s->total), "opening") ||
        cuda_failed(dev, cudaDeviceGetAttribute(&s->sms, cudaDevAttrMultiProcessorCount, index), "opening") ||
        cuda_failed(dev, cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, index), "opening"))
        rc = K_EDEVICE;
    s->l2 = (size_t)l2;
    if (rc == K_OK)
        rc = take_state(dev, s);
    if (rc < 0)
        cuda_close(dev);
    return rc;
}

/* The name of the GPU and what its numbers depend on. */
static const char *cuda_describe(k_dev *dev, char *out, size_t n)
{
    cudaDeviceProp p;
    int driver = 0, runtime = 0;
    if (cudaGetDeviceProperties(&p, cuda_of(dev)->index) != cudaSuccess)
        return dev->name;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(out, n, "%s, compute capability %d.%d, %d SMs, %zu MiB, L2 %d MiB, CUDA %d.%d (driver up to %d.%d), built for %s",
             p.name, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem >> 20, p.l2CacheSize >> 20, runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, K_CUDA_ARCH);
    return out;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

static void *cuda_take(k_dev *dev, size_t bytes)
{
    void *p = NULL;
    const cudaError_t rc = cudaMalloc(&p, bytes);
    if (rc == cudaSuccess)
        return p;
    if (rc == cudaErrorMemoryAllocation)
        cudaGetLastError();             /* the caller tells */
    else
        cuda_failed(dev, rc, "cudaMalloc");
    return NULL;
}

static void cuda_give(k_dev *dev, void *p, size_t bytes)
{
    (void)bytes;
    cuda_failed(dev, cudaFree(p), "cudaFree");
}

static size_t cuda_total(k_dev *dev) { return cuda_of(dev)->total; }

/* What the state itself took is no part of what is measured. */
static size_t cuda_memory_seen(k_dev *dev)
{
    size_t free_bytes = 0, total = 0;
    if (cuda_failed(dev, cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo"))
        return 0;
    return total - free_bytes - cuda_of(dev)->own;
}

static void cuda_set_bytes(k_dev *dev, void *x, int byte, size_t bytes)
{
    if (bytes)
        cuda_failed(dev, cudaMemsetAsync(x, byte, bytes, cuda_stream(dev)), "cudaMemset");
}

/* ---- moving bytes ------------------------------------------------------------------------------------------------------ */

void cuda_zero(k_dev *dev, void *x, size_t bytes) { cuda_set_bytes(dev, x, 0, bytes); }

void cuda_copy(k_dev *dev, void *dst, const void *src, size_t bytes)
{
    if (bytes)
        cuda_failed(dev, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda_stream(dev)), "a copy");
}

/* Where `bytes` may be staged: pinned memory in two halves, of which one is used again when what lay there has gone. */
static char *stage(k_dev *dev, size_t bytes)
{
    cuda_state *s = cuda_of(dev);
    const size_t room = (bytes + 15) / 16 * 16;
    if (s->staged + room > CUDA_STAGE / 2) {
        cuda_failed(dev, cudaEventRecord(s->passed[s->half], cuda_stream(dev)), "an upload");
        s->half = !s->half;
        cuda_failed(dev, cudaEventSynchronize(s->passed[s->half]), "an upload");
        s->staged = 0;
    }
    char *at = s->stage + s->half * (CUDA_STAGE / 2) + s->staged;
    s->staged += room;
    return at;
}

/* Small uploads wait for nothing; large ones are copied by the driver, which waits for the queue. */
void cuda_upload(k_dev *dev, void *dst, const void *host_src, size_t bytes)
{
    if (bytes == 0 || cuda_of(dev)->failed)
        return;
    if (bytes <= CUDA_STAGE / 2)
        host_src = memcpy(stage(dev, bytes), host_src, bytes);
    cuda_failed(dev, cudaMemcpyAsync(dst, host_src, bytes, cudaMemcpyHostToDevice, cuda_stream(dev)), "an upload");
}

int cuda_fetch(k_dev *dev, void *host_dst, const void *src, size_t bytes)
{
    cuda_state *s = cuda_of(dev);
    if (!s->failed && bytes)
        cuda_failed(dev, cudaMemcpyAsync(host_dst, src, bytes, cudaMemcpyDeviceToHost, cuda_stream(dev)), "a download");
    if (!s->failed && !cuda_failed(dev, cudaStreamSynchronize(cuda_stream(dev)), "the queue"))
        return K_OK;
    memset(host_dst, 0xFF, bytes);
    return K_EDEVICE;
}

void cuda_download(k_dev *dev, void *host_dst, const void *src, size_t bytes) { cuda_fetch(dev, host_dst, src, bytes); }

static int cuda_sync(k_dev *dev) { return cuda_fetch(dev, NULL, NULL, 0); }

/* ---- time ---------------------------------------------------------------------------------------------------------------- */

/* Holds the queue until the host opens the gate, but no longer than 0.1 s, lest work that waits should wait for ever. */
__global__ static void hold(const volatile int *gate)
{
    uint64_t begin, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (!*gate && now - begin < 100000000);
}

/* Reads x [n]; *never is not written, but the compiler cannot know. */
__global__ static void read_over(const uint4 *x, size_t n, int *never)
{
    uint32_t bits = 0;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        const uint4 v = x[i];
        bits |= v.x | v.y | v.z | v.w;
    }
    if (bits)
        *never = 0;
}

/* Fills the L2 with zeros that nobody wants by reading them: what is written there would have to go back to memory, at the
 * expense of the work that is timed next. */
static void flush(k_dev *dev, cuda_state *s)
{
    const size_t bytes = 2 * s->l2;
    if (!s->flush) {
        if (cuda_failed(dev, cudaMalloc(&s->flush, bytes), "taking memory to flush the cache with"))
            return;
        s->own += bytes;
        cuda_set_bytes(dev, s->flush, 0, bytes);
    }
    CUDA_RUN(dev, read_over, 8 * s->sms, 256, (const uint4 *)s->flush, bytes / sizeof(uint4), (int *)s->flush);
}

/* Seconds between two events around the work, which is queued behind a kernel that holds it back, so that the device never
 * waits for the host; negative: it failed. */
static double between_events(k_dev *dev, int (*work)(void *), void *arg)
{
    cuda_state *s = cuda_of(dev);
    float milliseconds = 0;
    if (cuda_sync(dev) < 0)
        return -1;
    *s->gate = 0;
    CUDA_RUN(dev, hold, 1, 1, s->gate);
    cuda_failed(dev, cudaEventRecord(s->start, cuda_stream(dev)), "an event");
    const int rc = work ? work(arg) : 0;
    cuda_failed(dev, cudaEventRecord(s->stop, cuda_stream(dev)), "an event");
    *s->gate = 1;
    if (cuda_sync(dev) < 0 || rc || cuda_failed(dev, cudaEventElapsedTime(&milliseconds, s->start, s->stop), "an event"))
        return -1;
    return 1e-3 * (double)milliseconds;
}

/* What the events themselves take: the least of some. */
static void time_nothing(k_dev *dev, cuda_state *s)
{
    for (int i = 0; i < 9; i++) {
        const double seconds = between_events(dev, NULL, NULL);
        s->nothing = i && s->nothing < seconds ? s->nothing : seconds;
    }
}

static double cuda_time(k_dev *dev, int (*work)(void *), void *arg, int cold)
{
    cuda_state *s = cuda_of(dev);
    if (s->nothing == 0)
        time_nothing(dev, s);
    if (cold)
        flush(dev, s);
    const double seconds = between_events(dev, work, arg);
    return seconds < 0 ? -1 : seconds > s->nothing ? seconds - s->nothing : 0;
}

static void cuda_range_push(k_dev *dev, const char *name) { (void)dev; nvtxRangePushA(name); }
static void cuda_range_pop(k_dev *dev) { (void)dev; nvtxRangePop(); }

static void cuda_set_tf32(k_dev *dev, int on)
{
    cublasSetMathMode(cuda_of(dev)->blas, on ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH);
}

extern "C" __attribute__((visibility("default"))) const k_ops k_cuda_ops_v1;
const k_ops k_cuda_ops_v1 = {
    .size = sizeof(k_ops), .open = cuda_open, .close = cuda_close, .sync = cuda_sync, .take = cuda_take, .give = cuda_give,
    .total = cuda_total, .memory_seen = cuda_memory_seen, .time = cuda_time, .set_tf32 = cuda_set_tf32,
    .record = cuda_record, .replay = cuda_replay, .forget = cuda_forget,
    .range_push = cuda_range_push, .range_pop = cuda_range_pop, .describe = cuda_describe, .set_bytes = cuda_set_bytes,
#define X(name) .name = cuda_##name,
    K_KERNELS(X)
#undef X
};
