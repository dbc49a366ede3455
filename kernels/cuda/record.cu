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
