"""Milliseconds, forward and with backward, of what mixers.c measures, by PyTorch on the same GPU: cuDNN for softmax, matrix
products and exponentials for FAVOR+, sorted chunks for LSH.  Lines: name, forward, both; medians of runs."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SOFTMAX = [("softmax-64-512", 32, 512, 32, 64, True), ("softmax-64-2048", 8, 2048, 32, 64, False),
           ("softmax-64-16384", 1, 16384, 32, 64, True), ("softmax-128-16384", 1, 16384, 16, 128, True)]
PERFORMER = [("performer-f32", torch.float32), ("performer-bf16", torch.bfloat16)]
LSH = [("lsh-8192-1", 64, 8192, 1), ("lsh-8192-4", 64, 8192, 4), ("lsh-65536-1", 32, 65536, 1), ("lsh-65536-4", 32, 65536, 4)]


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


def show(name, attend, inputs, gradient, runs=15):
    def forward():
        with torch.no_grad():
            attend(*inputs)

    def both():
        torch.autograd.grad(attend(*inputs), inputs, gradient)
    print(f"{name} {milliseconds(forward, runs):.4f} {milliseconds(both, runs):.4f}", flush=True)


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


def lsh(rotations, size=64):
    """Causal LSH attention of [heads,T,D] by rotations [D,rounds,T/size/2]: all rounds sorted at once, a chunk sees itself and the
    one before, a token itself only when there is nothing else; rounds are weighed by their log-sum-exps."""
    def rows(x, index):
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    def with_back(x):
        return torch.cat([x, torch.cat([x[:, -1:], x[:, :-1]], 1)], 2)

    def attend(q, v):
        heads, T, D = q.shape
        rounds = rotations.shape[1]
        turned = torch.einsum("htd,drc->hrtc", q, rotations)
        buckets = torch.cat([turned, -turned], -1).argmax(-1) + torch.arange(rounds, device=q.device)[:, None] * (T // size)
        _, order = (buckets.reshape(heads, -1) * T + torch.arange(rounds * T, device=q.device) % T).sort(-1)
        back, token = order.argsort(-1), order % T
        chunks, values, at = (x.reshape(heads, rounds * T // size, size, *x.shape[2:]) for x in (rows(q, token), rows(v, token), token))
        keys, values, there = with_back(F.normalize(chunks, dim=-1)), with_back(values), with_back(at)
        scores = torch.einsum("hcid,hcjd->hcij", chunks, keys) * D ** -.5
        scores = scores.masked_fill(at[..., :, None] < there[..., None, :], torch.finfo(q.dtype).min)
        scores = scores.masked_fill(at[..., :, None] == there[..., None, :], -5e4)
        level = scores.logsumexp(-1, keepdim=True)
        out = torch.einsum("hcij,hcje->hcie", (scores - level).exp(), values).reshape(heads, -1, D)
        out, level = (rows(x.reshape(heads, rounds * T, -1), back).reshape(heads, rounds, T, -1) for x in (out, level))
        return out[:, 0] if rounds == 1 else (out * (level - level.logsumexp(1, keepdim=True)).exp()).sum(1)
    return attend


torch.backends.cuda.matmul.allow_tf32 = False
for name, B, T, H, D, causal in SOFTMAX:
    show(name, softmax(causal), *tensors(B, H, T, D, torch.bfloat16))
for name, dtype in PERFORMER:
    show(name, favor(torch.randn(32, 256, 64, device="cuda")), *tensors(1, 32, 16384, 64, dtype))
for name, heads, T, rounds in LSH:
    q, v, g = (torch.randn(heads, T, 64, device="cuda") for _ in range(3))
    show(name, lsh(torch.randn(64, rounds, T // 128, device="cuda")), [x.requires_grad_() for x in (q, v)], g, 5)
    del q, v, g
    torch.cuda.empty_cache()
