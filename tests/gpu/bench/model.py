"""The decoders of model.c in PyTorch, compiled: the same layers, scaled_dot_product_attention, weights in float32 under
autocast to bfloat16, fused Adam.  Prints the lines that model prints."""
import sys
import time
import torch
import torch.nn.functional as F

PROBLEMS = {"small": (16, 128, 8, 2048, 256, 96, 32768), "long": (6, 512, 8, 2048, 2048, 16, 32768),
            "gpt2": (12, 768, 12, 3072, 1024, 32, 50257)}
WARM, STEPS, REPEATS = 6, 8, 5


class Block(torch.nn.Module):
    def __init__(self, d, heads, d_ff):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(d), torch.nn.LayerNorm(d)
        self.qkv, self.out = torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d)
        self.up, self.down = torch.nn.Linear(d, d_ff), torch.nn.Linear(d_ff, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(d, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(torch.nn.Module):
    def __init__(self, layers, d, heads, d_ff, context, vocabulary):
        super().__init__()
        self.embedding, self.positions = torch.nn.Embedding(vocabulary, d), torch.nn.Embedding(context, d)
        self.blocks = torch.nn.ModuleList(Block(d, heads, d_ff) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(d)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(p)

    def forward(self, tokens, target):
        x = self.embedding(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(F.linear(self.norm(x), self.embedding.weight).flatten(0, 1), target)


def measure(name):
    layers, d, heads, d_ff, context, batch, vocabulary = PROBLEMS[name]
    torch.manual_seed(1)
    torch.cuda.reset_peak_memory_stats()
    model = Decoder(layers, d, heads, d_ff, context, vocabulary).cuda()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    compiled = torch.compile(model)
    tokens = torch.randint(vocabulary, (batch, context), device="cuda")
    target = torch.randint(vocabulary, (batch * context,), device="cuda")

    def steps(n):
        for _ in range(n):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = compiled(tokens, target)
            loss.backward()
            optimiser.step()
        torch.cuda.synchronize()
        return loss

    loss, best = steps(WARM), 1e9
    for _ in range(REPEATS):
        start = time.monotonic()
        loss = steps(STEPS)
        best = min(best, (time.monotonic() - start) / STEPS)
    print(f"{name:6} pytorch  {1e3 * best:8.3f} ms a step, {1e-3 * batch * context / best:7.1f} thousand tokens/s, "
          f"{torch.cuda.max_memory_allocated() / 2**30:6.2f} GiB, loss {loss.item():.4f}", flush=True)


torch.set_float32_matmul_precision("high")
for each in sys.argv[1:] or PROBLEMS:
    measure(each)
    torch._dynamo.reset()
    torch.cuda.empty_cache()
