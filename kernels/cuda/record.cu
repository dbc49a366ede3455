/* record.cu - work that is queued the same way again and again, as one CUDA graph: a launch costs the host microseconds, a
 * replay of hundreds of them no more than one. */
#include "device.cuh"
#include <stdlib.h>

struct k_recording { cudaGraph_t graph; cudaGraphExec_t run; };

/* Whether a graph may be replayed: a copy from the host's memory would read what lies there by then. */
static int repeatable(cudaGraph_t graph)
{
    size_t n = 0;
    if (cudaGraphGetNodes(graph, NULL, &n) != cudaSuccess || n == 0)
        return 0;
    cudaGraphNode_t *nodes = (cudaGraphNode_t *)malloc(n * sizeof *nodes);
    int ok = nodes && cudaGraphGetNodes(graph, nodes, &n) == cudaSuccess;
    for (size_t i = 0; ok && i < n; i++) {
        cudaGraphNodeType type;
        cudaMemcpy3DParms copy;
        ok = cudaGraphNodeGetType(nodes[i], &type) == cudaSuccess && type != cudaGraphNodeTypeHost;
        if (ok && type == cudaGraphNodeTypeMemcpy)
            ok = cudaGraphMemcpyNodeGetParams(nodes[i], &copy) == cudaSuccess && copy.kind == cudaMemcpyDeviceToDevice;
    }
    free(nodes);
    return ok;
}

/* What the work did to the stream is undone when it cannot be recorded: nothing of it has run. */
k_recording *cuda_record(k_dev *dev, int (*work)(void *), void *arg)
{
    cuda_state *s = cuda_of(dev);
    k_recording *r = (k_recording *)calloc(1, sizeof *r);
    if (!r || s->failed || cudaStreamBeginCapture(cuda_stream(dev), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        free(r);
        return NULL;
    }
    const int rc = work(arg);
    const cudaError_t end = cudaStreamEndCapture(cuda_stream(dev), &r->graph);
    cudaGetLastError();
    s->failed = 0;                      /* failures of recording are no failures of the device */
    dev->error[0] = 0;
    if (rc == 0 && end == cudaSuccess && repeatable(r->graph) && cudaGraphInstantiate(&r->run, r->graph, 0) == cudaSuccess)
        return r;
    cudaGetLastError();
    cuda_forget(dev, r);
    return NULL;
}

void cuda_replay(k_dev *dev, k_recording *r)
{
    cuda_failed(dev, cudaGraphLaunch(r->run, cuda_stream(dev)), "a recorded step");
}

void cuda_forget(k_dev *dev, k_recording *r)
{
    (void)dev;
    if (r->run)
        cudaGraphExecDestroy(r->run);
    if (r->graph)
        cudaGraphDestroy(r->graph);
    free(r);
}

/* ---- work that a recording leaves out where a flag of the device says so ------------------------------------------------------ */

__global__ static void decide(cudaGraphConditionalHandle handle, const int32_t *flag) { cudaGraphSetConditional(handle, *flag != 0); }

/* Makes a stream that of the device and of its products. */
static int use_stream(k_dev *dev, cudaStream_t stream)
{
    cuda_state *s = cuda_of(dev);
    dev->stream = stream;
    return cublasSetStream(s->blas, stream) == CUBLAS_STATUS_SUCCESS &&
           cublasSetWorkspace(s->blas, s->scratch + CUDA_SCRATCH, CUDA_BLAS_SCRATCH) == CUBLAS_STATUS_SUCCESS;
}

/* Where the stream that is being recorded stands: the graph, and what the next node comes after. */
typedef struct standing { cudaStreamCaptureStatus status; cudaGraph_t graph; const cudaGraphNode_t *after; size_t n; } standing;

static int stand(cudaStream_t stream, standing *at)
{
    return cudaStreamGetCaptureInfo(stream, &at->status, NULL, &at->graph, &at->after, NULL, &at->n) == cudaSuccess;
}

/* Records the work into the body of a node that runs where the flag is set; what the work returned, -1: it is not to be had. */
static int record_body(k_dev *dev, cudaStream_t aside, const int32_t *flag, int (*work)(void *), void *arg)
{
    const cudaStream_t stream = cuda_stream(dev);
    cudaGraphConditionalHandle handle;
    cudaGraphNodeParams what = {};
    cudaGraphNode_t node;
    standing at;
    if (!stand(stream, &at) || cudaGraphConditionalHandleCreate(&handle, at.graph, 0, cudaGraphCondAssignDefault) != cudaSuccess)
        return -1;
    decide<<<1, 1, 0, stream>>>(handle, flag);
    what.type = cudaGraphNodeTypeConditional;
    what.conditional.handle = handle;
    what.conditional.type = cudaGraphCondTypeIf;
    what.conditional.size = 1;
    if (!stand(stream, &at) || cudaGraphAddNode(&node, at.graph, at.after, NULL, at.n, &what) != cudaSuccess ||
        cudaStreamUpdateCaptureDependencies(stream, &node, NULL, 1, cudaStreamSetCaptureDependencies) != cudaSuccess ||
        cudaStreamBeginCaptureToGraph(aside, what.conditional.phGraph_out[0], NULL, NULL, 0, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return -1;
    int rc = use_stream(dev, aside) ? work(arg) : -1;
    cudaGraph_t body;
    if (cudaStreamEndCapture(aside, &body) != cudaSuccess || !use_stream(dev, stream))
        rc = -1;
    return rc;
}

/* Outside of a recording the host would have to wait for the flag: the work is done, and changes nothing where it is 0. */
int cuda_when(k_dev *dev, const int32_t *flag, int (*work)(void *), void *arg)
{
    standing at;
    cudaStream_t aside;
    if (!stand(cuda_stream(dev), &at) || at.status != cudaStreamCaptureStatusActive)
        return work(arg);
    if (cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking) != cudaSuccess)
        return -1;
    const int rc = record_body(dev, aside, flag, work, arg);
    cudaStreamDestroy(aside);
    return rc;
}
