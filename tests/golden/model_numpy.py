"""The Transformer by its definition in NumPy, from a checkpoint: the loss is held against what model_dump printed.

usage: model_numpy.py <the lines of model_dump.  One TAP line for each model."""
import json
import math
import sys
import numpy as np

erf = np.vectorize(math.erf)
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2, "silu": lambda x: x / (1 + np.exp(-x))}
GATED = {"reglu": "relu", "geglu": "gelu", "swiglu": "silu"}


def read(path):
    """The tensors of a safetensors file."""
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(size)), f.read()
    header.pop("__metadata__")
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], {"F64": "<f8", "F32": "<f4"}[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


class Model:
    def __init__(self, options, weights):
        self.o, self.w = options, weights

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0)

    def norm(self, name, x):
        if self.o["norm"] == "layer":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.o["norm_eps"])
        return x * self.w[name + ".weight"] + self.w.get(name + ".bias", 0)

    def attention(self, at, x):
        t, group = len(x), self.o["heads"] // self.o["kv_heads"]
        q, k, v = (self.linear(f"{at}.{name}", x).reshape(t, -1, self.o["d_head"]) for name in "qkv")
        out = np.empty_like(q)
        for h in range(self.o["heads"]):
            for i in range(t):
                scores = k[: i + 1, h // group] @ q[i, h] / math.sqrt(self.o["d_head"])
                p = np.exp(scores - scores.max())
                out[i, h] = p @ v[: i + 1, h // group] / p.sum()
        return self.linear(at + ".out", out.reshape(t, -1))

    def feed_forward(self, at, x):
        act = self.o["activation"]
        up = self.linear(at + ".up", x)
        if act in GATED:
            return self.linear(at + ".down", ACTIVATIONS[GATED[act]](self.linear(at + ".gate", x)) * up)
        return self.linear(at + ".down", ACTIVATIONS[act](up))

    def positions(self, t):
        kind, d = self.o["positions"], self.o["d_model"]
        if kind == "learned":
            return self.w["positions.weight"][:t]
        if kind == "none":
            return 0
        place = np.arange(t)[:, None] if kind == "sinusoidal" else np.arange(t)[::-1, None]
        angle = place / 10000 ** (np.arange(0, d, 2) / d)
        return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype("f4")

    def logits(self, tokens):
        x = self.w["embedding.weight"][tokens]
        if self.o["scale_embedding"]:
            x = x * math.sqrt(self.o["d_model"])
        x = x + self.positions(len(tokens))
        for layer in range(self.o["layers"]):
            for name, f in (("attention", self.attention), ("feed_forward", self.feed_forward)):
                if name == "feed_forward" and not self.o["feed_forward"]:
                    continue
                at = f"layers.{layer}.{name}"
                if self.o["norm_position"] == "pre":
                    x = x + f(at, self.norm(at + ".norm", x))
                else:
                    x = self.norm(at + ".norm", x + f(at, x))
        if self.o["norm_position"] == "pre":
            x = self.norm("norm", x)
        return x @ self.w["embedding.weight" if self.o["tie_embeddings"] else "output.weight"].T


def loss(case):
    model = Model(case["options"], read(case["file"]))
    tokens = np.array(case["tokens"]).reshape(-1, case["length"])
    targets = np.array(case["targets"]).reshape(tokens.shape)
    total = count = 0
    for sequence, wanted in zip(tokens, targets):
        y = model.logits(sequence)
        y = y - np.log(np.exp(y).sum(1, keepdims=True))
        total -= sum(y[i, w] for i, w in enumerate(wanted) if w >= 0)
        count += (wanted >= 0).sum()
    return total / count


number = 0
for line in sys.stdin:
    case = json.loads(line)
    expected, o = loss(case), case["options"]
    miss = abs(expected - case["loss"]) / expected
    number += 1
    print(f"{'ok' if miss < 1e-12 else 'not ok'} {number} - a model with {o['norm']} norm, {o['norm_position']}, {o['activation']}, positions "
          f"{o['positions']} has the loss of NumPy's: {case['loss']:.12f}, off by {miss:.1g}")
if not number:
    print("not ok - no model was dumped")
