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

    def heads(self, name, x):
        """A projection, and the short convolution behind it: tap tau of K reads the token K - 1 - tau before."""
        x = self.linear(name, x).reshape(len(x), -1, self.o["d_head"])
        if not self.o["short_conv"]:
            return x
        taps = self.w[name + "_conv.weight"]
        y = np.zeros_like(x)
        for t in range(len(x)):
            for back in range(min(t + 1, taps.shape[1])):
                y[t] += taps[:, taps.shape[1] - 1 - back] * x[t - back]
        return ACTIVATIONS["silu"](y) if self.o["short_conv_activation"] == "silu" else y

    def attention(self, at, x):
        t, group = len(x), self.o["heads"] // self.o["kv_heads"]
        q, k, v = (self.heads(f"{at}.{name}", x) for name in "qkv")
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
        if kind == "axial":
            row, column = self.w["positions.row.weight"], self.w["positions.column.weight"]
            return np.array([np.concatenate([row[i // len(column)], column[i % len(column)]]) for i in range(t)])
        place = np.arange(t)[:, None] if kind == "sinusoidal" else np.arange(t)[::-1, None]
        angle = place / 10000 ** (np.arange(0, d, 2) / d)
        return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype("f4")

    def logits(self, tokens):
        x = self.w["embedding.weight"][tokens]
        if self.o["scale_embedding"]:
            x = x * math.sqrt(self.o["d_model"])
        x = x + self.positions(len(tokens))
        streams = [x, x]
        sublayers = [("attention", self.attention), ("feed_forward", self.feed_forward)][: 1 + self.o["feed_forward"]]
        for i in range(self.o["layers"] * len(sublayers)):
            name, f = sublayers[i % len(sublayers)]
            at = f"layers.{i // len(sublayers)}.{name}"
            if self.o["reversible"]:
                streams[i % 2] = streams[i % 2] + f(at, self.norm(at + ".norm", streams[1 - i % 2]))
                continue
            if i and name == "attention" and self.o["positions_each_layer"]:
                x = x + self.positions(len(tokens))
            if self.o["norm_position"] == "pre":
                x = x * self.o["residual"] + f(at, self.norm(at + ".norm", x))
            else:
                x = self.norm(at + ".norm", x * self.o["residual"] + f(at, x))
        if self.o["reversible"]:
            x = streams[0] + streams[1]
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
    rest = "".join(f", {key}" for key in ("reversible", "positions_each_layer", "short_conv") if o[key]) + ("" if o["residual"] else ", no residuals")
    print(f"{'ok' if miss < 1e-12 else 'not ok'} {number} - a model with {o['norm']} norm, {o['norm_position']}, {o['activation']}, positions "
          f"{o['positions']}{rest} has the loss of NumPy's: {case['loss']:.12f}, off by {miss:.1g}")
if not number:
    print("not ok - no model was dumped")
