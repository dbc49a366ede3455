"""Milliseconds, forward and with backward, of what mixers.c measures, by PyTorch on the same GPU: cuDNN for softmax, matrix
products and exponentials for FAVOR+.  Lines: name, forward, both; medians of runs."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SOFTMAX = [("softmax-64-512", 32, 512, 32, 64, True), ("softmax-64-2048", 8, 2048, 32, 64, False),
           ("softmax-64-16384", 1, 16384, 32, 64, True), ("softmax-128-16384", 1, 16384, 16, 128, True)]
PERFORMER = [("performer-f32", torch.float32), ("performer-bf16", torch.bfloat16)]


def milliseconds(work, runs=15):
    times = []
    for _ in range(runs + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times[3:])[runs // 2]


def tensors(B, H, T, D, dtype):
    """q, k, v [B,H,T,D], T before H in memory, and the gradient of the output."""
    q, k, v, g = (torch.randn(B, T, H, D, device="cuda", dtype=dtype).transpose(1, 2) for _ in range(4))
    return [x.detach().requires_grad_() for x in (q, k, v)], g


def show(name, attend, inputs, gradient):
    def forward():
        with torch.no_grad():
            attend(*inputs)

    def both():
        torch.autograd.grad(attend(*inputs), inputs, gradient)
    print(f"{name} {milliseconds(forward):.4f} {milliseconds(both):.4f}", flush=True)


def softmax(causal):
    def attend(q, k, v):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return attend


def favor(W, eps=1e-6):
    """Positive random features of [B,H,T,D] by W [H,m,D], and linear attention over them."""
    m, D = W.shape[1:]

    def features(x, dims):
        u, eta = torch.einsum("bhtd,hmd->bhtm", D ** -.25 * x, W.to(x.dtype)), x.square().sum(-1, keepdim=True) / (2 * D ** .5)
        return m ** -.5 * (torch.exp(u - eta - u.amax(dims, keepdim=True).detach()) + eps)

    def attend(q, k, v):
        a, b = features(q, -1), features(k, (-1, -2))
        inverse = 1 / torch.einsum("bhtm,bhm->bht", a, b.sum(-2))
        return torch.einsum("bhme,bhtm,bht->bhte", torch.einsum("bhtm,bhte->bhme", b, v), a, inverse)
    return attend


torch.backends.cuda.matmul.allow_tf32 = False
for name, B, T, H, D, causal in SOFTMAX:
    show(name, softmax(causal), *tensors(B, H, T, D, torch.bfloat16))
for name, dtype in PERFORMER:
    show(name, favor(torch.randn(32, 256, 64, device="cuda")), *tensors(1, 32, 16384, 64, dtype))
